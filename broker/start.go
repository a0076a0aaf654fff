package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
)

// taskRequest is the body of POST /v1/tasks.
type taskRequest struct {
	Kind   string          `json:"kind"`
	Agents []string        `json:"agents"` // absent: the caller alone
	TTL    *int64          `json:"ttl"`    // whole seconds; absent: as long as may be
	Beat   *int64          `json:"beat"`   // whole seconds; absent: it may be silent
	Params json.RawMessage `json:"params"` // an object; goes with a kind that has a manifest
	Grant  bool            `json:"grant"`  // with the grants of all that the manifest has
}

// startAnswer is its answer; Tokens and Refused are there where grants were asked
// for.
type startAnswer struct {
	taskAnswer
	Tokens  []tokenAnswer `json:"tokens,omitzero"`  // as in grantsAnswer; empty: none was granted
	Refused []refusedTool `json:"refused,omitzero"` // tools of the manifest that are not among them
}

// refusedTool is one tool that was asked for with others and is not granted: a
// refusal, inside of an answer.
type refusedTool struct {
	Tool       string        `json:"tool"`
	Reason     grants.Reason `json:"reason"`
	Help       string        `json:"help"`
	Advice     string        `json:"advice,omitempty"`
	DecisionID string        `json:"decision_id"`
}

const (
	maxKind   = 64 // bytes
	maxAgents = 64
)

// start is a task on its way, with what is to be granted in it.
type start struct {
	task     *grants.Task
	set      *manifest.Set
	manifest *manifest.Manifest // nil: the kind has none
	order    *order             // nil: no grants are asked for
	oneByOne []*catalog.Tool    // of the manifest, but not ordered: their input is not known yet
}

// startTask handles POST /v1/tasks. The task and the grants in it are one
// decision, of one revision; the grants that policy refuses are told of, and keep
// nothing from being started.
func (b *Broker) startTask(ctx context.Context, r *request) reply {
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	s, rep := b.readStart(r)
	if rep.why != grants.None {
		return rep
	}
	r.records[0].Task = s.task.ID
	in := []grants.Input{{Action: grants.ActionStartTask, Requester: s.task.Owner, Principal: s.task.Owner, Task: s.task, At: r.now}}
	gs, rep := b.proposeAll(r, s)
	if rep.why != grants.None {
		return rep
	}
	for i := range gs {
		in = append(in, gs[i].grant.Asks(s.task, r.now)...)
	}
	ds, why := b.answers(ctx, r, in)
	if why != grants.None {
		return refused(why, "")
	}
	why = ds[0].Refusal()
	r.decided(ds[:1], why, in[0])
	switch {
	// Its parameters and its deadline are of the manifest that was read.
	case (s.manifest != nil || why == grants.Manifest) && b.reloaded(s.set):
		return raced()
	case why != grants.None:
		return reply{why: why, advice: advice(ds[:1], why)}
	}
	return b.open(ctx, r, s, gs, in[1:], ds)
}

// open starts the task, and writes what policy permits of the grants. What goes
// wrong then ends the task.
func (b *Broker) open(ctx context.Context, r *request, s *start, gs []granted, in []grants.Input, ds []grants.Decision) reply {
	task := s.task
	rev, why, err := b.cfg.Store.Start(ctx, *task)
	if err != nil {
		b.undo(r, endOf(task))
		return b.fault(r, "starting a task", err)
	}
	switch why {
	case grants.None:
	case grants.Limit:
		return refused(why, "you, or all together, have as many open tasks as there may be: end one")
	default:
		return refused(why, "")
	}
	if err := b.settle(rev); err != nil {
		b.undo(r, endOf(task))
		return b.fault(r, "waiting for the table", err)
	}
	ans := startAnswer{taskAnswer: answerTask(task, stateOpen)}
	if s.order != nil {
		permitted, no := r.sortOut(s, gs, in, ds[1:])
		tokens, rep := b.issueFirst(ctx, r, permitted, ds[0].Revision)
		if rep.why != grants.None {
			b.undo(r, endOf(task))
			return rep
		}
		ans.Tokens, ans.Refused = tokens, no
	}
	b.pulses.beat(task, time.Now())
	return reply{
		status: http.StatusCreated, body: ans,
		undo: func() { b.pulses.forget(task.ID); b.undo(r, endOf(task)) },
	}
}

// issueFirst writes the first grants of a task and mints their tokens.
func (b *Broker) issueFirst(ctx context.Context, r *request, gs []granted, policy grants.Digest) ([]tokenAnswer, reply) {
	if len(gs) == 0 {
		return []tokenAnswer{}, reply{}
	}
	rev, rep := b.write(ctx, r, gs, policy)
	if rep.why != grants.None {
		return nil, rep
	}
	tokens, err := b.mintAll(r, gs, rev)
	if err != nil {
		return nil, b.fault(r, "minting a token", err)
	}
	return tokens, reply{}
}

// proposeAll builds the grants of an order on a task that is yet to be started.
func (b *Broker) proposeAll(r *request, s *start) ([]granted, reply) {
	if s.order == nil {
		return nil, reply{}
	}
	view := b.cfg.Table.Rev()
	gs := make([]granted, len(s.order.asks))
	for i, a := range s.order.asks {
		var rep reply
		if gs[i], rep = b.propose(r, s.order, s.task, a, view); rep.why != grants.None {
			return nil, rep
		}
	}
	return gs, reply{}
}

// sortOut puts the tools of a manifest on record, one each: which of them policy
// permits, and which are refused, and why.
func (r *request) sortOut(s *start, gs []granted, in []grants.Input, ds []grants.Decision) (permitted []granted, no []refusedTool) {
	no = []refusedTool{}
	note := func(tool string) *audit.Record {
		r.records = append(r.records, audit.Record{Kind: grants.ActionGrant, Agent: s.order.agent.ID(), Tool: tool, Task: s.task.ID})
		return &r.records[len(r.records)-1]
	}
	refuse := func(rec *audit.Record, why grants.Reason, detail, advice string) {
		rep := reply{why: why, detail: detail}
		no = append(no, refusedTool{Tool: rec.Tool, Reason: why, Help: rep.help(), Advice: advice, DecisionID: r.id})
		rec.Reason, rec.Note = why, audit.Note(detail, rec.Note)
	}
	each := len(ds) / max(1, len(gs)) // one asker, one agent: as many questions for each
	for i, g := range gs {
		asks, said := in[i*each:(i+1)*each], ds[i*each:(i+1)*each]
		why := objection(said)
		rec := note(g.tool.ID)
		rec.Note = noteOf(&g)
		say(rec, said, why)
		if why != grants.None {
			refuse(rec, why, refusedFor(r, s.order, asks, said, why), advice(said, why))
			continue
		}
		g.at = len(r.records) - 1
		permitted = append(permitted, g)
	}
	for _, t := range s.oneByOne {
		refuse(note(t.ID), grants.BadRequest, `the manifest has it for one call at a time: ask for each at POST /v1/grants, with its "input"`, "")
	}
	return permitted, no
}

// readStart reads what is to be started, against the manifest of its kind.
func (b *Broker) readStart(r *request) (*start, reply) {
	if why, detail := r.mustBeJSON(); why != grants.None {
		return nil, refused(why, detail)
	}
	var req taskRequest
	if err := strictjson.Unmarshal(r.body, strictjson.Limits{}, &req); err != nil {
		return nil, refused(grants.Malformed, "body: "+err.Error())
	}
	task, rep := b.readTask(r, &req)
	if rep.why != grants.None {
		return nil, rep
	}
	s := &start{task: task, set: b.manifests()}
	m, has := s.set.Kind(req.Kind)
	switch {
	case has:
		s.manifest = m
	case req.Params != nil || req.Grant:
		return nil, refused(grants.BadRequest, `"params" and "grant" go with a kind of task that has a manifest, and this one has none`)
	default:
		return s, reply{}
	}
	var err error
	if task.Params, err = m.ReadParams(req.Params); err != nil {
		return nil, refused(grants.BadRequest, err.Error())
	}
	if m.MaxDuration > 0 {
		task.Deadline = earlier(task.Deadline, r.now.Add(m.MaxDuration).UTC())
	}
	if !req.Grant {
		return s, reply{}
	}
	return s, b.orderAll(r, s)
}

// orderAll orders all that the manifest has, for the task's one agent.
func (b *Broker) orderAll(r *request, s *start) reply {
	if why, detail := b.mayBuy(r); why != grants.None {
		return refused(why, detail)
	}
	if len(s.task.Agents) != 1 {
		return refused(grants.BadRequest, `"grant" goes with a task of one agent: for several, ask at POST /v1/grants for each`)
	}
	s.order = &order{task: s.task.ID, agent: r.who.Principal}
	if agent, _ := identity.ParseAgent(s.task.Agents[0]); !is(agent, r.who.Principal) {
		s.order.agent = agent // of whose groups nothing is known
	}
	for _, t := range s.manifest.Tools {
		if t.Once {
			s.oneByOne = append(s.oneByOne, t.Tool)
			continue
		}
		s.order.asks = append(s.order.asks, ask{tool: t.Tool})
	}
	return s.order.under(s.set, s.task)
}

func (b *Broker) readTask(r *request, req *taskRequest) (*grants.Task, reply) {
	bad := func(why grants.Reason, format string, args ...any) (*grants.Task, reply) {
		return nil, refused(why, fmt.Sprintf(format, args...))
	}
	switch {
	case !validKind(req.Kind):
		return bad(grants.Malformed, `"kind" is 1 to %d bytes that print, with no blank among them`, maxKind)
	case len(req.Agents) > maxAgents:
		return bad(grants.Malformed, `"agents" has at most %d entries`, maxAgents)
	}
	agents := slices.Clone(req.Agents)
	if len(agents) == 0 {
		agents = []string{r.who.Principal.ID()}
	}
	for _, a := range agents {
		if _, ok := identity.ParseAgent(a); !ok {
			return bad(grants.Malformed, "agent %q: write ISSUER-ALIAS/SUBJECT", cut(a))
		}
	}
	slices.Sort(agents)
	ttl := b.cfg.MaxTask
	if req.TTL != nil {
		var ok bool
		if ttl, ok = seconds(*req.TTL, 1); !ok {
			return bad(grants.BadTTL, `"ttl" is a whole number of seconds, 1 or more; what is over %d is cut to that`, b.cfg.MaxTask/time.Second)
		}
	}
	var beat time.Duration
	if req.Beat != nil {
		if beat = time.Duration(*req.Beat) * time.Second; *req.Beat < minBeat || *req.Beat > maxBeat {
			return bad(grants.BadTTL, `"beat" is a whole number of seconds from %d to %d: silent for so long, the task ends`, minBeat, maxBeat)
		}
	}
	return &grants.Task{
		ID: grants.NewID(grants.TaskPrefix), Kind: req.Kind, Owner: r.who.Principal, Agents: slices.Compact(agents),
		Started: r.now.UTC(), Deadline: r.now.Add(min(ttl, b.cfg.MaxTask)).UTC(), Beat: beat,
	}, reply{}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
