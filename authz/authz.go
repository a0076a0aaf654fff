// Package authz is the call door: Envoy's external authorization (ext_authz,
// envoy.service.auth.v3) in front of every tool.
//
// A request is judged by the one credential that it presents:
//
//	request ─► parse ─► caller ─► lookup ─► sender ─► constraints ─► decide ─► spend ─► record ─► answer
//
// (The body is the last to be parsed, once the caller is known: a stranger's
// costs nothing.)
//
// What is asked is the route's tool or, of an MCP server, what the message says
// (authz/mcp): every tool that a tools/call would run, or a method. All of it must
// be allowed.
//
// Invariants:
//   - Only a verdict that says "allow" allows; its zero value denies. Each step
//     gives a Reason, and whatever kept it from deciding (an error, a panic, a
//     view that is not fresh, a record that cannot be written) is one.
//   - Reads never leave the process.
//   - Every decision is on record before it is answered. If the record fails,
//     what was spent is given back and the answer is no.
//   - Envoy's types end in this package.
package authz

import (
	"context"
	"slices"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

// Config is what a Door works with. All fields but the last five are required;
// Watched is, where the catalogue has an MCP server.
type Config struct {
	Catalog  *catalog.Catalog
	Table    *grants.Table
	Decide   grants.Decider
	Tokens   *token.Verifier          // the broker's grant tokens
	Identity *identity.Verifier       // identity tokens, for the baseline
	Record   func(audit.Record) error // writes one record; an error means that it was not written
	Digest   func(args []byte) string // keyed digest of a call's input, for the record
	Logger   *zap.Logger
	Watched  *Watched // what the answers of MCP servers said
	// Asked hears of each answer of Decide, by the id of the decision that it is a
	// part of; nil: nobody does. What it is given is not changed by anybody.
	Asked func(decision string, in []grants.Input, out []grants.Decision)

	// CredentialHeader is the one header in which the calls of a tool carry their
	// credential if the catalogue names none for it, in lower case; "":
	// authorization. In that header it has the scheme Bearer, elsewhere none.
	CredentialHeader string
	// MaxBody is the largest body in bytes that Envoy may send; 0:
	// DefaultMaxBody. It is the filter's max_request_bytes.
	MaxBody int
	// MaxLag is how long a check waits for the table to reach the revision that
	// a token was issued at; 0: 100 ms.
	MaxLag time.Duration
	// MaxChecks is how many checks may be under way; those beyond are denied at
	// once (grants.Limit). One holds its message and, until it is decided, what was
	// read of it: 3 MB at worst for a body of 64 KiB; 0: DefaultMaxChecks.
	MaxChecks int
}

const (
	// DefaultMaxBody is the largest body of a call, in bytes.
	DefaultMaxBody = 64 << 10
	// DefaultMaxChecks is what the printed configuration lets one Envoy ask at
	// a time.
	DefaultMaxChecks = 1024
)

// Door decides calls. It is safe for concurrent use.
type Door struct {
	cfg         Config
	credentials []string              // the credential headers of all tools
	mcp         map[string]mcp.Server // catalogue id -> what its messages are read with
	discovery   map[string]string     // catalogue id -> URL of the server's metadata (RFC 9728); "": none
	underWay    chan struct{}         // holds one for each check
}

// New returns a Door.
func New(cfg Config) *Door {
	if cfg.CredentialHeader == "" {
		cfg.CredentialHeader = "authorization"
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.MaxLag == 0 {
		cfg.MaxLag = 100 * time.Millisecond
	}
	if cfg.MaxChecks == 0 {
		cfg.MaxChecks = DefaultMaxChecks
	}
	discovery := map[string]string{}
	for i := range cfg.Catalog.Servers {
		discovery[cfg.Catalog.Servers[i].ID] = cfg.Catalog.Discoverable(&cfg.Catalog.Servers[i])
	}
	return &Door{
		discovery:   discovery,
		cfg:         cfg,
		credentials: cfg.Catalog.CredentialHeaders(cfg.CredentialHeader),
		mcp:         readers(cfg.Catalog),
		underWay:    make(chan struct{}, cfg.MaxChecks),
	}
}

// Check implements authv3.AuthorizationServer. It never returns an error: to
// Envoy that would be a fault of the filter, not a decision with a reason.
func (d *Door) Check(ctx context.Context, req *authv3.CheckRequest) (resp *authv3.CheckResponse, err error) {
	c := &check{id: grants.NewID(grants.DecisionPrefix), began: time.Now(), now: d.cfg.Table.Now()}
	defer func() {
		if p := recover(); p != nil {
			d.cfg.Logger.Error("panic in a check", zap.String("decision", c.id), zap.Any("panic", p), zap.Stack("stack"))
			resp, err = d.conclude(ctx, c, verdict{why: grants.Undecided}), nil
		}
	}()
	select {
	case d.underWay <- struct{}{}:
		defer func() { <-d.underWay }()
	default:
		c.call.source = source(req)
		return d.conclude(ctx, c, deny(grants.Limit)), nil
	}
	return d.conclude(ctx, c, d.judge(ctx, c, req)), nil
}

// check is one request on its way through the door. What a step has found out
// is there for the record, whatever becomes of the request.
type check struct {
	id    string
	began time.Time
	now   time.Time

	call    call
	caller  caller
	args    string   // digest of the call's input, once it is decided
	lacking []string // of a denial: the tools for which a grant is missing
}

// verdict is what judge found. Its zero value denies.
type verdict struct {
	allow    bool
	why      grants.Reason  // of a denial
	detail   string         // for the caller: what to mend; never a value of theirs
	refusal  *mcp.Refusal   // of a message that is wrong in itself: its codes are told
	grant    grants.Live    // set with held
	held     bool           // decided by a grant; else by the baseline
	under    []grants.Live  // all grants that it was decided by
	rests    []grants.Live  // what must live for it: the grant, or the one that names a baseline's agent
	left     time.Duration  // how long an allow may last, once confirmed
	spent    []grants.Spent // by an allow
	decision grants.Decision
}

func deny(why grants.Reason) verdict { return verdict{why: why} }

// hold makes it a verdict of the grant.
func (v *verdict) hold(live grants.Live) {
	v.held, v.grant, v.under = true, live, []grants.Live{live}
}

// judge decides, and spends. The order is that of the package comment.
func (d *Door) judge(ctx context.Context, c *check, req *authv3.CheckRequest) verdict {
	if why, detail := d.parse(req, &c.call); why != grants.None {
		return verdict{why: why, detail: detail}
	}
	if why, detail := d.identify(ctx, c); why != grants.None {
		if why == grants.ExpiredToken && c.call.server.MCP != nil {
			_ = d.readMessage(req, &c.call) // the denial says which request it is of
		}
		return verdict{why: why, detail: detail}
	}
	if c.call.server.MCP != nil {
		if no := d.readMessage(req, &c.call); no != nil {
			return *no
		}
		if why, detail := d.bound(c); why != grants.None {
			return verdict{why: why, detail: detail}
		}
	} else if why, detail := d.readInput(req, &c.call); why != grants.None {
		return verdict{why: why, detail: detail}
	}
	return d.judgeAll(ctx, c)
}

// judgeAll decides all that is asked, in order; the first no is the answer.
func (d *Door) judgeAll(ctx context.Context, c *check) verdict {
	var whole verdict
	for i := range c.call.asks {
		c.call.at = &c.call.asks[i]
		v := d.judgeOne(ctx, c)
		if v.allow && i > 0 && v.decision.Revision != whole.decision.Revision {
			v.refuse(grants.Undecided) // the policies were reloaded in between: no one set permits all of it
		}
		if !v.allow {
			whole.giveBack()
			c.lacking = d.lacking(ctx, c, i, v)
			return v
		}
		v.rests = append(whole.rests, v.rests...)
		v.under = append(whole.under, v.under...)
		v.spent = append(whole.spent, v.spent...)
		v.decision.Policies = union(whole.decision.Policies, v.decision.Policies)
		if !v.held && whole.held {
			v.held, v.grant = true, whole.grant
		}
		whole = v
	}
	return whole
}

// judgeOne decides one thing that is asked: by the grants that the credential
// holds for it, or as baseline.
func (d *Door) judgeOne(ctx context.Context, c *check) verdict {
	if c.call.at.tool == nil {
		return d.method(ctx, c)
	}
	held := c.caller.grantsFor(c.call.at.tool.ID)
	if len(held) == 0 {
		return d.baseline(ctx, c)
	}
	first := verdict{}
	for i, id := range held {
		v := d.tryGrant(ctx, c, id)
		if v.allow {
			return v
		}
		if i == 0 {
			first = v
		}
	}
	return first // a token that holds a grant for the tool is never tried as baseline
}

// union is both lists as one, sorted.
func union(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
