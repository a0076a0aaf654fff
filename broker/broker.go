// Package broker is the issue door: HTTP endpoints at which an identity token
// buys a grant for a task.
//
//	identity token ─► caller ─► decide ─► grant ─► token
//
// Invariants:
//   - A task that is unknown, foreign or ended is refused before policy says
//     anything about tools; unknown and foreign are told apart to nobody.
//   - Every decision is on record before it is answered. A grant whose record
//     cannot be written is fenced, and the answer is no.
//   - A reply to a revocation, a renewal or a task's end is sent once the table
//     of this process has the fence: a check that starts after it is not allowed.
//   - Asking again, renewing, and asking for another refill no budget and widen
//     no window beyond what bounds the asker.
//   - Where a task's kind has a manifest, no grant of the task is put to policy
//     that is wider than the manifest, however it is asked for.
package broker

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/token"
)

// Config is what a Broker works with. Those above PublicURL are required.
type Config struct {
	Catalog  *catalog.Catalog
	Store    grants.Store
	Table    *grants.Table
	Decide   grants.Decider
	Identity *identity.Verifier
	Keys     *token.Keys
	Issuer   string                     // our iss: the URL under which the broker is reached
	Record   func([]audit.Record) error // writes the records of one request, all or none
	Logger   *zap.Logger

	// PublicURL is where clients reach the broker; "": Issuer.
	PublicURL string
	// Clients are the OAuth clients that authenticate; nil: none are configured,
	// and a client_id is not looked at.
	Clients *identity.Clients
	// RatePerAgent is how many requests a second one agent may make in the long
	// run; 0: 50.
	RatePerAgent int

	// Manifests gives those of today, of the same load as what Decide rests on;
	// nil: there are none. It is called once for each request, and once more where
	// a reload may have come in between.
	Manifests func() *manifest.Set
	// Asked is told of each answer of Decide, with the decision's id; nil: nobody
	// is. It must not keep what it is given longer than it runs, unless it copies
	// (what Task, Grant and Args point to is never changed). Calls may overlap.
	Asked func(decision string, in []grants.Input, out []grants.Decision)

	MaxTTL  time.Duration // longest grant; 0: 15 minutes
	MaxTask time.Duration // longest task; 0: 4 hours
}

// DefaultTTL is the length of a window that was asked for without one.
const DefaultTTL = 5 * time.Minute

// Broker serves the issue door. It is safe for concurrent use.
type Broker struct {
	cfg    Config
	limits *limits
	pulses *pulses
}

// New returns a Broker. Tasks that must not fall silent are ended by Run alone.
func New(cfg Config) *Broker {
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = 15 * time.Minute
	}
	if cfg.MaxTask == 0 {
		cfg.MaxTask = 4 * time.Hour
	}
	if cfg.RatePerAgent == 0 {
		cfg.RatePerAgent = 50
	}
	return &Broker{cfg: cfg, limits: newLimits(cfg.RatePerAgent), pulses: newPulses()}
}

// maxBody bounds every request body, in bytes.
const maxBody = 64 << 10

// settleTime bounds the waits for the table to have what the store has.
const settleTime = 2 * time.Second

// route is one way in: "METHOD PATH" as http.ServeMux reads it.
type route struct {
	pattern string
	serve   http.Handler
}

// routes are all ways in; openapi.json describes each.
func (b *Broker) routes() []route {
	return []route{
		{"POST /v1/tasks", b.door(apiStyle, grants.ActionStartTask, b.startTask)},
		{"GET /v1/tasks", b.door(apiStyle, kindListTasks, b.listTasks)},
		{"GET /v1/tasks/{id}", b.door(apiStyle, kindShowTask, b.showTask)},
		{"POST /v1/tasks/{id}/end", b.door(apiStyle, grants.ActionEndTask, b.endTask)},
		{"POST /v1/tasks/{id}/beat", b.door(apiStyle, kindBeat, b.beatTask)},
		{"POST /v1/grants", b.door(apiStyle, grants.ActionGrant, b.buy)},
		{"GET /v1/grants", b.door(apiStyle, kindListGrants, b.listGrants)},
		{"DELETE /v1/grants", b.door(apiStyle, grants.ActionRevoke, b.revokeMany)},
		{"DELETE /v1/grants/{id}", b.door(apiStyle, grants.ActionRevoke, b.revokeGrant)},
		{"POST /oauth2/token", b.door(oauthStyle, grants.ActionGrant, b.exchange)},
		{"GET /.well-known/jwks.json", http.HandlerFunc(b.jwks)},
		{"GET /.well-known/oauth-authorization-server", http.HandlerFunc(b.metadata)},
		{"GET /.well-known/oauth-authorization-server/{path...}", http.HandlerFunc(b.metadata)},
		{"GET /openapi.json", http.HandlerFunc(b.openAPI)},
	}
}

// Handler returns the routes. What it does not know is 404; a known path with
// another method is 405.
func (b *Broker) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range b.routes() {
		mux.Handle(r.pattern, r.serve)
	}
	return b.front(mux)
}

// isDoor reports whether the request is for a door: the documents, redirections,
// 404 and 405 are not.
func isDoor(mux *http.ServeMux, r *http.Request) bool {
	h, _ := mux.Handler(r)
	_, ok := h.(door)
	return ok
}

func (b *Broker) jwks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(b.cfg.Keys.JWKS())
}

// Kinds of the records of what is no action of policy.
const (
	kindShowTask   = "show_task"
	kindListTasks  = "list_tasks"
	kindListGrants = "list_grants"
	kindBeat       = "beat"
	kindSweep      = "sweep"
)

// request is one call on its way through the door.
type request struct {
	*http.Request
	id     string // decision id
	began  time.Time
	now    time.Time
	source string // address, without a port
	who    identity.Verified
	client string // OAuth client that has authenticated; "": none
	body   []byte

	// What identify said, once asked.
	asked   bool
	refusal grants.Reason
	detail  string

	// deadline bounds the reading of the body (http.ResponseController).
	deadline func(time.Time) error

	// What was decided, to be written before the answer: one from the start, of
	// the kind that was asked for.
	records []audit.Record
}

// reply is what a handler found: a refusal if why is not None, else the answer.
type reply struct {
	why    grants.Reason
	detail string // for the caller: what to mend
	advice string // for the caller: what the policies that refused it say; "": nothing
	code   string // OAuth error code, where the reason alone does not say it
	status int
	body   any
	undo   func() // what to take back if the record cannot be written
	done   string // what stays done even then, for the caller
	quiet  bool   // nothing was decided: an answer that leaves no record
}

func refused(why grants.Reason, detail string) reply { return reply{why: why, detail: detail} }

// request begins the way of one. kind is what is asked for, on record.
func (b *Broker) request(w http.ResponseWriter, hr *http.Request, kind string) *request {
	return &request{
		Request: hr, id: grants.NewID(grants.DecisionPrefix), began: time.Now(), now: b.cfg.Table.Now(),
		source: sourceAddress(hr.RemoteAddr), records: []audit.Record{{Kind: kind}},
		deadline: http.NewResponseController(w).SetReadDeadline,
	}
}

// door is a handler that sees to its own limits; front sees to those of others.
type door func(http.ResponseWriter, *http.Request)

func (d door) ServeHTTP(w http.ResponseWriter, r *http.Request) { d(w, r) }

// door is the frame of every handler: read, handle, record, answer. What it has
// in hand it gives back before the answer is written. A panic in
// a handler is a refusal like any other.
func (b *Broker) door(style style, kind string, handle func(context.Context, *request) reply) door {
	urgent := kind == grants.ActionEndTask || kind == grants.ActionRevoke || kind == kindBeat
	return func(w http.ResponseWriter, hr *http.Request) {
		r := b.request(w, hr, kind)
		rep := b.guarded(hr.Context(), r, style, urgent, handle)
		if !rep.quiet || rep.why != grants.None {
			rep = b.record(r, style, rep)
		}
		// The work is done: who is slow to read the answer holds nothing of it.
		b.limits.flight.leave(slotOf(r))
		r.body, r.records = nil, nil
		style.answer(w, r, rep)
	}
}

// record completes the records and writes all of them or none: what is taken
// back leaves no allow on record.
func (b *Broker) record(r *request, style style, rep reply) reply {
	for i := range r.records {
		rec := &r.records[i]
		rec.ID, rec.Time, rec.LatencyUS = r.id, r.now, time.Since(r.began).Microseconds()
		rec.Requester, rec.Client, rec.Source, rec.Count = r.who.Principal.ID(), r.client, r.source, 1
		rec.Rev = b.cfg.Table.Rev().String()
		rec.Outcome, rec.Status = audit.Allow, style.status(rep)
		switch {
		case rec.Reason != grants.None: // one part of what was asked, refused for itself
			rec.Outcome = audit.Deny
		case rep.why != grants.None:
			rec.Outcome, rec.Reason, rec.Note = audit.Deny, rep.why, audit.Note(rep.detail, rec.Note)
		}
	}
	err := b.cfg.Record(r.records)
	if err == nil {
		return rep
	}
	b.cfg.Logger.Debug("recording a decision", zap.String("decision", r.id), zap.Error(err))
	if rep.undo != nil {
		rep.undo()
	}
	return refused(grants.CannotRecord, rep.done)
}

func (b *Broker) guarded(ctx context.Context, r *request, style style, urgent bool, handle func(context.Context, *request) reply) (rep reply) {
	defer func() {
		if p := recover(); p != nil {
			b.cfg.Logger.Error("panic at the issue door", zap.String("decision", r.id), zap.Any("panic", p), zap.Stack("stack"))
			rep = refused(grants.Undecided, "")
		}
	}()
	if why, detail := b.take(r, style); why != grants.None {
		return refused(why, detail)
	}
	if !b.limits.admit(r, urgent && r.verified()) {
		return refused(grants.Limit, "")
	}
	return handle(ctx, r)
}

// take finds out who asks, where the header says it, and then reads the body: a
// stranger's is read only where it may hold the credential.
func (b *Broker) take(r *request, style style) (grants.Reason, string) {
	if style == apiStyle {
		if why, _ := b.identify(r); why != grants.None {
			r.linger()
			return grants.None, "" // the handler notes what was asked, and refuses it
		}
	}
	why, detail := b.limits.read(r)
	if why != grants.None {
		r.linger()
	}
	r.now = b.cfg.Table.Now() // a body may take its time, and nothing is judged by when it began
	if r.verified() && !r.who.Expires.After(r.now) {
		r.refusal, r.detail = grants.ExpiredToken, ""
	}
	return why, detail
}

// settle waits until this process's table has what was written at rev.
func (b *Broker) settle(rev grants.Rev) error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	return b.cfg.Table.Wait(ctx, rev)
}

// fault logs what kept the store from answering and gives the refusal.
func (b *Broker) fault(r *request, doing string, err error) reply {
	b.cfg.Logger.Error(doing, zap.String("decision", r.id), zap.Error(err))
	return refused(grants.Undecided, "it is not known whether this was done: ask again")
}
