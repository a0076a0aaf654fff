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
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

// Config is what a Door works with. All fields but the last four are required.
type Config struct {
	Catalog  *catalog.Catalog
	Table    *grants.Table
	Decide   grants.Decider
	Tokens   *token.Verifier          // the broker's grant tokens
	Identity *identity.Verifier       // identity tokens, for the baseline
	Record   func(audit.Record) error // writes one record; an error means that it was not written
	Digest   func(args []byte) string // keyed digest of a call's input, for the record
	Logger   *zap.Logger

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
	credentials []string      // the credential headers of all tools
	underWay    chan struct{} // holds one for each check
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
	return &Door{
		cfg:         cfg,
		credentials: cfg.Catalog.CredentialHeaders(cfg.CredentialHeader),
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

	call   call
	caller caller
	args   string // digest of the call's input, once it is decided
}

// verdict is what judge found. Its zero value denies.
type verdict struct {
	allow    bool
	why      grants.Reason // of a denial
	detail   string        // for the caller: what to mend; never a value of theirs
	grant    grants.Live   // set with held
	held     bool          // decided by a grant; else by the baseline
	rests    []grants.Live // what must live for it: the grant, or the one that names a baseline's agent
	left     time.Duration // how long an allow may last, once confirmed
	spent    grants.Spent
	decision grants.Decision
}

func deny(why grants.Reason) verdict { return verdict{why: why} }

// judge decides, and spends. The order is that of the package comment.
func (d *Door) judge(ctx context.Context, c *check, req *authv3.CheckRequest) verdict {
	if why, detail := d.parse(req, &c.call); why != grants.None {
		return verdict{why: why, detail: detail}
	}
	if why, detail := d.identify(ctx, c); why != grants.None {
		return verdict{why: why, detail: detail}
	}
	if why, detail := d.readInput(req, &c.call); why != grants.None {
		return verdict{why: why, detail: detail}
	}
	held := c.caller.grantsFor(c.call.tool.ID)
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

// tryGrant judges the call by one grant.
func (d *Door) tryGrant(ctx context.Context, c *check, id grants.ID) verdict {
	live, why := d.cfg.Table.Lookup(id)
	if why != grants.None {
		return deny(why)
	}
	v := verdict{grant: live, held: true, rests: []grants.Live{live}}
	if v.why, v.detail = d.matches(c, live); v.why != grants.None {
		return v
	}
	for _, con := range live.Constraints() {
		if err := con.Check(c.call.input); err != nil {
			v.why, v.detail = grants.ConstraintBroken, err.Error()
			return v
		}
	}
	if v.decision, v.why = d.decide(ctx, c, live); v.why != grants.None {
		v.detail = mend(c, v.why)
		return v
	}
	var err error
	if v.spent, v.why, err = d.cfg.Table.Spend(ctx, live, c.call.input); err != nil {
		d.cfg.Logger.Warn("drawing a budget", zap.String("decision", c.id), zap.Error(err))
	}
	if v.allow = err == nil && v.why == grants.None; !v.allow && v.spent.Refused != nil {
		v.detail = uncovered(v.why, v.spent.Refused.Arg)
	}
	return v
}

// mend says what to mend after a refusal by policy; "": the reason's own words.
func mend(c *check, why grants.Reason) string {
	if why == grants.Unrepresentable {
		return unseen(&c.call)
	}
	return ""
}

// uncovered says which budget did not cover a call: of calls, or over arg.
func uncovered(why grants.Reason, arg string) string {
	switch {
	case why == grants.ConstraintBroken:
		return strconv.Quote(arg) + " is counted against a budget: send a number, 0 or more, with at most 4 decimals"
	case why != grants.BudgetSpent:
		return ""
	case arg == "":
		return "the grant's budget of calls does not cover this call: none is left"
	}
	return "what is left of the grant's budget over " + strconv.Quote(arg) + " does not cover this call: less may"
}

// matches compares the signed token, the sender and the catalogue with the
// grant in the table: a perfectly signed token is not enough.
func (d *Door) matches(c *check, live grants.Live) (grants.Reason, string) {
	g := live.Grant()
	switch {
	case !c.caller.names(live):
		return grants.BadCredential, ""
	case g.Tool != c.call.tool.ID:
		return grants.WrongTool, ""
	case !g.Pin.IsZero() && g.Pin != grants.Digest(c.call.tool.Digest):
		return grants.ToolChanged, ""
	case !g.CNF.IsZero():
		return grants.UnboundToken, "the grant is bound to a key, and this door cannot verify the proof"
	case !c.call.peer.sentBy(g.Agent):
		return grants.NoGrant, othersCertificate
	}
	return grants.None, ""
}

// othersCertificate: a grant of one agent is none of another's (403, as any
// other call without a grant), however good its token is.
const othersCertificate = "the client certificate names another agent than the token"

// decide asks policy about the call and, if the grant was permitted by an older
// policy revision, about the grant once more: both from one revision.
func (d *Door) decide(ctx context.Context, c *check, live grants.Live) (grants.Decision, grants.Reason) {
	g, task := live.Grant(), live.Task()
	call := grants.Input{
		Action: grants.ActionCall + c.call.tool.ID, Requester: g.Agent, Principal: g.Agent,
		Tool: c.call.tool.ID, Task: task, Grant: g, Args: c.call.input, At: c.now,
	}
	ds, why := d.ask(ctx, c, call)
	if why == grants.None && ds[0].Revision != g.Policy {
		if ds, why = d.ask(ctx, c, append(g.Asks(task, c.now), call)...); why == grants.None {
			last := len(ds) - 1
			if no, changed := objections(ds[:last]); changed {
				return no, grants.PolicyChanged
			}
			ds = ds[last:]
		}
	}
	if why != grants.None {
		return grants.Decision{}, why
	}
	return ds[0], ds[0].Refusal()
}

// objections are the decisions that say no, as one: what permits the rest is not
// among its policies.
func objections(ds []grants.Decision) (no grants.Decision, any bool) {
	for _, dec := range ds {
		if dec.Refusal() != grants.None {
			no.Policies, no.Revision, any = append(no.Policies, dec.Policies...), dec.Revision, true
		}
	}
	slices.Sort(no.Policies)
	no.Policies = slices.Compact(no.Policies)
	return no, any
}

// baseline decides a call that no grant stands behind. A grant token names its
// agent only while one of its grants lives, and that grant says who the agent
// was: a signature alone proves nothing here.
func (d *Door) baseline(ctx context.Context, c *check) verdict {
	var rests []grants.Live
	for i, det := range c.caller.grants {
		live, why := d.cfg.Table.Lookup(det.GrantID)
		if why == grants.None && c.caller.names(live) {
			if !c.call.peer.sentBy(live.Grant().Agent) {
				return verdict{why: grants.NoGrant, detail: othersCertificate}
			}
			c.caller.agent = live.Grant().Agent
			rests = []grants.Live{live}
			break
		}
		if i == len(c.caller.grants)-1 {
			return deny(cmp.Or(why, grants.BadCredential))
		}
	}
	ds, why := d.ask(ctx, c, grants.Input{
		Action: grants.ActionCall + c.call.tool.ID, Requester: c.caller.agent, Principal: c.caller.agent,
		Tool: c.call.tool.ID, Args: c.call.input, At: c.now,
	})
	if why != grants.None {
		return deny(why)
	}
	v := verdict{decision: ds[0], why: ds[0].Refusal(), rests: rests}
	v.detail = mend(c, v.why)
	if v.why == grants.Policy && len(ds[0].Policies) == 0 {
		// Nothing permits it: what is missing is a grant.
		if v.why = grants.NoGrant; len(c.caller.grants) > 0 {
			v.why = grants.WrongTool
		}
	}
	v.allow = v.why == grants.None
	return v
}

// ask puts questions to policy; whatever is not one full answer each is
// Undecided.
func (d *Door) ask(ctx context.Context, c *check, in ...grants.Input) ([]grants.Decision, grants.Reason) {
	ds, err := d.cfg.Decide(ctx, in)
	if err == nil && len(ds) != len(in) {
		err = fmt.Errorf("%d decisions for %d questions", len(ds), len(in))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		d.cfg.Logger.Error("deciding a call", zap.String("decision", c.id), zap.Error(err))
		return nil, grants.Undecided
	}
	return ds, grants.None
}
