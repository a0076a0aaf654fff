package broker

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

// maxListed is the most that one list holds, and the most that one puts to
// policy.
const maxListed = 1000

// Entries of a list cost the caller as much of its rate as a request for each
// perToken that is put to policy or shown, and for each perScan that is only
// looked at: a list that was as cheap as a request would be a lever.
const (
	perToken = 100
	perScan  = 50_000
)

// grantAnswer is a live grant as callers see it.
type grantAnswer struct {
	GrantID           grants.ID         `json:"grant_id"`
	Task              grants.ID         `json:"task"`
	Kind              string            `json:"kind"` // of the task
	Agent             string            `json:"agent"`
	Requester         string            `json:"requester"`
	Tool              string            `json:"tool"`
	NotBefore         time.Time         `json:"not_before"`
	ExpiresAt         time.Time         `json:"expires_at"`
	TTL               int64             `json:"ttl"` // seconds left
	MaxCalls          int64             `json:"max_calls,omitempty"`
	MaxSum            map[string]string `json:"max_sum,omitempty"`
	ConstraintsDigest grants.Digest     `json:"constraints_digest,omitzero"`
	Depth             int               `json:"depth"`
}

type tasksAnswer struct {
	Tasks []taskAnswer `json:"tasks"`
	More  bool         `json:"more"` // there may be others: name what you look for
}

type grantsListAnswer struct {
	Grants []grantAnswer `json:"grants"`
	More   bool          `json:"more"`
}

// showTask handles GET /v1/tasks/{id}, for the task's owner and agents and for
// whom policy would let end it. Others get what they get for an unknown one, in
// the same time: both are put to policy.
func (b *Broker) showTask(ctx context.Context, r *request) reply {
	id := r.PathValue("id")
	r.named(id)
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	if _, why, detail := r.parameters(); why != grants.None {
		return refused(why, detail)
	}
	task, why := b.cfg.Table.Task(id)
	switch {
	case why == grants.NotFresh:
		return refused(why, "")
	case task == nil || !knows(r.who.Principal, task):
		if task, why = b.ownTask(ctx, r, id, grants.ActionEndTask); why != grants.None {
			return refused(why, "")
		}
	}
	state := stateOpen
	if _, why := b.cfg.Table.Task(id); why != grants.None {
		state = stateEnded
	}
	ans := answerTask(task, state)
	found, more, rep := b.visibleGrants(ctx, r, grantFilter{task: id})
	if rep.why != grants.None {
		return rep
	}
	ans.Grants = found
	r.records[0].Note = fmt.Sprintf("grants=%d more=%t", len(found), more)
	return reply{status: http.StatusOK, body: ans}
}

// knows reports whether a task is the principal's, or names it.
func knows(p grants.Principal, t *grants.Task) bool { return is(t.Owner, p) || t.HasAgent(p.ID()) }

// listTasks handles GET /v1/tasks: open tasks that the caller may see.
func (b *Broker) listTasks(ctx context.Context, r *request) reply {
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	q, why, detail := r.parameters("kind", "owner", "agent")
	if why != grants.None {
		return refused(why, detail)
	}
	owner, rep := agentFilter(q, "owner")
	if rep.why != grants.None {
		return rep
	}
	if _, rep := agentFilter(q, "agent"); rep.why != grants.None {
		return rep
	}
	if !b.cfg.Table.Fresh() {
		return refused(grants.NotFresh, "")
	}
	if !b.pay(r, 2*b.cfg.Table.Counts().Tasks, perScan) {
		return refused(grants.Limit, "")
	}
	kind, agent, me := q.Get("kind"), q.Get("agent"), r.who.Principal
	matches := func(t *grants.Task) bool {
		return (kind == "" || t.Kind == kind) && (owner == nil || is(t.Owner, *owner)) && (agent == "" || t.HasAgent(agent))
	}
	tasks, more := b.cfg.Table.Tasks(func(t *grants.Task) bool { return matches(t) && knows(me, t) }, maxListed)
	if !more {
		var others []*grants.Task
		others, more = b.cfg.Table.Tasks(func(t *grants.Task) bool { return matches(t) && !knows(me, t) }, maxListed-len(tasks))
		others, rep = permitted(ctx, b, r, others, func(t *grants.Task) grants.Input {
			return grants.Input{Action: grants.ActionEndTask, Requester: me, Principal: me, Task: t, At: r.now}
		})
		if rep.why != grants.None {
			return rep
		}
		tasks = append(tasks, others...)
	}
	if !b.pay(r, len(tasks), perToken) {
		return refused(grants.Limit, "")
	}
	slices.SortFunc(tasks, func(x, y *grants.Task) int {
		return cmp.Or(x.Deadline.Compare(y.Deadline), cmp.Compare(x.ID, y.ID))
	})
	ans := tasksAnswer{Tasks: make([]taskAnswer, len(tasks)), More: more}
	for i, t := range tasks {
		ans.Tasks[i] = answerTask(t, stateOpen)
	}
	r.records[0].Note = fmt.Sprintf("tasks=%d more=%t", len(tasks), more)
	return reply{status: http.StatusOK, body: ans}
}

// grantFilter is what a list of grants is narrowed to; a field that is zero
// narrows nothing.
type grantFilter struct {
	task  grants.ID
	agent *grants.Principal
	tool  string
}

func (f grantFilter) matches(g *grants.Grant) bool {
	return (f.task == "" || g.Task == f.task) && (f.tool == "" || g.Tool == f.tool) && (f.agent == nil || is(g.Agent, *f.agent))
}

// listGrants handles GET /v1/grants: live grants that the caller may see.
func (b *Broker) listGrants(ctx context.Context, r *request) reply {
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	q, why, detail := r.parameters("task", "agent", "tool")
	if why != grants.None {
		return refused(why, detail)
	}
	f := grantFilter{task: q.Get("task"), tool: q.Get("tool")}
	if q.Has("task") && !grants.ValidID(f.task, grants.TaskPrefix) {
		return refused(grants.Malformed, "task: write the id of a task")
	}
	r.named(f.task)
	if _, ok := b.cfg.Catalog.Tool(f.tool); q.Has("tool") && !ok {
		return refused(grants.UnknownTool, "")
	}
	var rep reply
	if f.agent, rep = agentFilter(q, "agent"); rep.why != grants.None {
		return rep
	}
	found, more, rep := b.visibleGrants(ctx, r, f)
	if rep.why != grants.None {
		return rep
	}
	r.records[0].Note = fmt.Sprintf("grants=%d more=%t", len(found), more)
	return reply{status: http.StatusOK, body: grantsListAnswer{found, more}}
}

// visibleGrants are the live grants that match and that the caller may see: its
// own, those that it asked for, those of tasks that it owns, and those that
// policy would let it revoke. more says that there may be others.
func (b *Broker) visibleGrants(ctx context.Context, r *request, f grantFilter) ([]grantAnswer, bool, reply) {
	if !b.cfg.Table.Fresh() {
		return nil, false, refused(grants.NotFresh, "")
	}
	if f.task == "" && !b.pay(r, 2*b.cfg.Table.Counts().Grants, perScan) {
		return nil, false, refused(grants.Limit, "")
	}
	me, mine := r.who.Principal, map[grants.ID]bool{}
	for _, t := range b.tasksOf(me, f.task) {
		mine[t.ID] = true
	}
	knows := func(g *grants.Grant) bool { return is(g.Agent, me) || is(g.Requester, me) || mine[g.Task] }

	live, more := b.matching(f, knows, maxListed)
	if !more {
		var others []grants.Live
		var rep reply
		others, more = b.matching(f, func(g *grants.Grant) bool { return !knows(g) }, maxListed-len(live))
		others, rep = permitted(ctx, b, r, others, func(l grants.Live) grants.Input { return b.mayRevoke(r, l.Grant(), l.Task()) })
		if rep.why != grants.None {
			return nil, false, rep
		}
		live = append(live, others...)
	}
	if !b.pay(r, len(live), perToken) {
		return nil, false, refused(grants.Limit, "")
	}
	slices.SortFunc(live, func(x, y grants.Live) int {
		return cmp.Or(x.Grant().Expires.Compare(y.Grant().Expires), cmp.Compare(x.Grant().ID, y.Grant().ID))
	})
	out := make([]grantAnswer, 0, len(live))
	for _, l := range live {
		g := l.Grant()
		digest, err := grants.ConstraintsDigest(g.Constraints)
		if err != nil {
			return nil, false, b.fault(r, "digesting constraints", err)
		}
		out = append(out, grantAnswer{
			GrantID: g.ID, Task: g.Task, Kind: l.Task().Kind, Agent: g.Agent.ID(), Requester: g.Requester.ID(), Tool: g.Tool,
			NotBefore: g.NotBefore, ExpiresAt: g.Expires, TTL: max(0, int64(b.cfg.Table.Left(l)/time.Second)),
			MaxCalls: calls(g), MaxSum: sums(g), ConstraintsDigest: digest, Depth: g.Depth(),
		})
	}
	return out, more, reply{}
}

// tasksOf are the open tasks that somebody owns, or that one of them that is
// named. One owner's tasks are bounded by limits.tasks_per_owner.
func (b *Broker) tasksOf(owner grants.Principal, one grants.ID) []*grants.Task {
	if one == "" {
		found, _ := b.cfg.Table.Tasks(func(t *grants.Task) bool { return is(t.Owner, owner) }, math.MaxInt)
		return found
	}
	if t, _ := b.cfg.Table.Task(one); t != nil && is(t.Owner, owner) {
		return []*grants.Task{t}
	}
	return nil
}

// matching are live grants that pass the filter and the test.
func (b *Broker) matching(f grantFilter, and func(*grants.Grant) bool, limit int) ([]grants.Live, bool) {
	match := func(g *grants.Grant) bool { return f.matches(g) && and(g) }
	if f.task != "" {
		return b.cfg.Table.GrantsOf(f.task, match, limit)
	}
	return b.cfg.Table.Grants(match, limit)
}

// permitted keeps of what structure does not let the caller see what policy
// does, asked in one batch. One that a policy cannot be evaluated for is not
// shown; a batch that cannot be decided refuses the whole.
func permitted[T any](ctx context.Context, b *Broker, r *request, all []T, question func(T) grants.Input) ([]T, reply) {
	if len(all) == 0 {
		return nil, reply{}
	}
	if !b.pay(r, len(all), perToken) {
		return nil, refused(grants.Limit, "")
	}
	in := make([]grants.Input, len(all))
	for i, one := range all {
		in[i] = question(one)
	}
	ds, err := b.ask(ctx, in)
	if err != nil {
		b.cfg.Logger.Error("deciding what a list shows", zap.String("decision", r.id), zap.Error(err))
		return nil, refused(grants.Undecided, "")
	}
	var seen []T
	var by []grants.Decision
	for i, d := range ds {
		if refusal(d) == grants.None {
			seen, by = append(seen, all[i]), append(by, d)
		}
	}
	r.decided(by)
	return seen, reply{}
}

// pay takes from the caller's rate what n entries of a list cost beyond the
// request itself; never more than half of what a rested caller has, so that a
// list is never out of reach.
func (b *Broker) pay(r *request, n, each int) bool {
	allowance := b.limits.allowance(r.who.Principal.ID(), time.Now())
	return allowance.AllowN(time.Now(), min(n/each, allowance.Burst()/2))
}

// agentFilter reads a query parameter that names an agent; nil: it is not there.
func agentFilter(q url.Values, name string) (*grants.Principal, reply) {
	if !q.Has(name) {
		return nil, reply{}
	}
	agent, ok := agentOf(q.Get(name))
	if !ok {
		return nil, refused(grants.Malformed, name+": write ISSUER-ALIAS/SUBJECT")
	}
	return &agent, reply{}
}
