package broker

import (
	"context"
	"math"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// Who may see what: first what structure shows (one's own), then, of what is
// others', what policy would let the caller end or revoke.
//
// Neither what a list says nor how often policy is asked for it may tell of what
// the caller may not see. So before others' entries are looked at, policy is
// asked about nobody's: a task, or a grant of each tool, of which no more is
// known than what the query names. The number of these questions is the same
// whatever there is, and their no ends the list. The price: who may revoke, say,
// only the grants of one agent has to name it, or the list leaves them out.

// maxListed is the most that one list holds, and the most that is put to policy
// at a time.
const maxListed = 1000

// Entries of a list cost the caller as much of its rate as a request for each
// perToken that is put to policy or shown, and for each perScan that is only
// looked at: a list that was as cheap as a request would be a lever.
const (
	perToken = 100
	perScan  = 50_000
	perBytes = 128 << 10 // of tasks' parameters
)

// knows reports whether a task is the principal's, or names it.
func knows(p grants.Principal, t *grants.Task) bool { return is(t.Owner, p) || t.HasAgent(p.ID()) }

// taskFilter is what a list of tasks is narrowed to; a field that is zero
// narrows nothing.
type taskFilter struct {
	kind  string
	owner *grants.Principal
	agent string
}

func (f taskFilter) matches(t *grants.Task) bool {
	return (f.kind == "" || t.Kind == f.kind) && (f.owner == nil || is(t.Owner, *f.owner)) && (f.agent == "" || t.HasAgent(f.agent))
}

// nobodys is a task of which nothing is known but that it matches.
func (f taskFilter) nobodys(now time.Time) *grants.Task {
	t := nobodysTask(now)
	if f.kind != "" {
		t.Kind = f.kind
	}
	if f.owner != nil {
		t.Owner = *f.owner
	}
	if f.agent != "" {
		t.Agents = []string{f.agent}
	}
	return t
}

// visibleTasks are the open tasks that match and that the caller may see, at
// most maxListed; more says that there are others of them.
func (b *Broker) visibleTasks(ctx context.Context, r *request, f taskFilter) (tasks []*grants.Task, more bool, rep reply) {
	if !b.cfg.Table.Fresh() {
		return nil, false, refused(grants.NotFresh, "")
	}
	if !b.pay(r, 2*b.cfg.Table.Counts().Tasks, perScan) {
		return nil, false, refused(grants.Limit, "")
	}
	me := r.who.Principal
	tasks, more = b.cfg.Table.Tasks(func(t *grants.Task) bool { return f.matches(t) && knows(me, t) }, maxListed)
	if !more {
		mayEnd := func(t *grants.Task) grants.Input { return b.mayEnd(r, t) }
		gate, _, rep := permitted(ctx, b, r, []*grants.Task{f.nobodys(r.now)}, 1, mayEnd)
		if rep.why != grants.None {
			return nil, false, rep
		}
		if len(gate) > 0 {
			others, _ := b.cfg.Table.Tasks(func(t *grants.Task) bool { return f.matches(t) && !knows(me, t) }, math.MaxInt)
			if others, more, rep = permitted(ctx, b, r, others, maxListed-len(tasks), mayEnd); rep.why != grants.None {
				return nil, false, rep
			}
			tasks = append(tasks, others...)
		}
	}
	params := 0
	for _, t := range tasks {
		params += len(t.Params)
	}
	if !b.pay(r, len(tasks), perToken) || !b.pay(r, params, perBytes) {
		return nil, false, refused(grants.Limit, "")
	}
	return tasks, more, reply{}
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

// visibleGrants are the live grants that match and that the caller may see, at
// most maxListed: its own, those that it asked for, those of tasks that it owns,
// and those that policy would let it revoke. more says that there are others of
// them.
func (b *Broker) visibleGrants(ctx context.Context, r *request, f grantFilter) (live []grants.Live, more bool, rep reply) {
	if !b.cfg.Table.Fresh() {
		return nil, false, refused(grants.NotFresh, "")
	}
	if f.task == "" && !b.pay(r, 2*b.cfg.Table.Counts().Grants, perScan) {
		return nil, false, refused(grants.Limit, "")
	}
	me, mine := r.who.Principal, map[grants.ID]bool{}
	if f.task == "" {
		owned, _ := b.cfg.Table.Tasks(func(t *grants.Task) bool { return is(t.Owner, me) }, math.MaxInt) // limits.tasks_per_owner at most
		for _, t := range owned {
			mine[t.ID] = true
		}
	} else if t, _ := b.cfg.Table.Task(f.task); t != nil && is(t.Owner, me) {
		mine[t.ID] = true
	}
	own := func(g *grants.Grant) bool { return is(g.Agent, me) || is(g.Requester, me) || mine[g.Task] }

	if b.inside(r, f) {
		live, more = b.matching(f, own, maxListed)
	}
	if !more && !mine[f.task] { // all of one's own task is one's own
		classes, rep := b.othersGrants(ctx, r, f)
		if rep.why != grants.None {
			return nil, false, rep
		}
		if classes != nil {
			others, _ := b.matching(f, func(g *grants.Grant) bool { return !own(g) && classes(g) }, math.MaxInt)
			others, more, rep = permitted(ctx, b, r, others, maxListed-len(live), func(l grants.Live) grants.Input { return b.mayRevoke(r, l.Grant(), l.Task()) })
			if rep.why != grants.None {
				return nil, false, rep
			}
			live = append(live, others...)
		}
	}
	if !b.pay(r, len(live), perToken) {
		return nil, false, refused(grants.Limit, "")
	}
	return live, more, reply{}
}

// inside reports whether any grant that matches can be the caller's own. It has
// none in a task that is not its own and does not name it: such a one is not
// looked into, so that it costs what an unknown one does.
func (b *Broker) inside(r *request, f grantFilter) bool {
	if f.task == "" {
		return true
	}
	t, _ := b.cfg.Table.Task(f.task)
	return t != nil && knows(r.who.Principal, t)
}

// othersGrants asks policy which of others' grants are worth looking at; nil:
// none. All of a task's are whose end the caller may bring about; of the others,
// those of each tool of which it may revoke nobody's grant.
func (b *Broker) othersGrants(ctx context.Context, r *request, f grantFilter) (func(*grants.Grant) bool, reply) {
	if f.task != "" {
		task, _ := b.cfg.Table.Task(f.task)
		if task == nil {
			task = nobodysTask(r.now)
		}
		gate, _, rep := permitted(ctx, b, r, []*grants.Task{task}, 1, func(t *grants.Task) grants.Input { return b.mayEnd(r, t) })
		if rep.why != grants.None {
			return nil, rep
		}
		if len(gate) > 0 {
			return func(*grants.Grant) bool { return true }, reply{}
		}
	}
	tools := []string{f.tool}
	if f.tool == "" {
		tools = tools[:0]
		for i := range b.cfg.Catalog.Servers {
			for _, t := range b.cfg.Catalog.Servers[i].Tools {
				tools = append(tools, t.ID)
			}
		}
	}
	gate, _, rep := permitted(ctx, b, r, tools, len(tools), func(tool string) grants.Input {
		g, task := nobodysGrant(tool, r.now)
		if f.agent != nil {
			g.Agent = *f.agent
		}
		return b.mayRevoke(r, g, task)
	})
	if len(gate) == 0 {
		return nil, rep
	}
	may := make(map[string]bool, len(gate))
	for _, tool := range gate {
		may[tool] = true
	}
	return func(g *grants.Grant) bool { return may[g.Tool] }, reply{}
}

// matching are live grants that pass the filter and the test.
func (b *Broker) matching(f grantFilter, and func(*grants.Grant) bool, limit int) ([]grants.Live, bool) {
	match := func(g *grants.Grant) bool { return f.matches(g) && and(g) }
	if f.task != "" {
		return b.cfg.Table.GrantsOf(f.task, match, limit)
	}
	return b.cfg.Table.Grants(match, limit)
}

// mayEnd asks whether the caller may end a task.
func (b *Broker) mayEnd(r *request, t *grants.Task) grants.Input {
	return grants.Input{Action: grants.ActionEndTask, Requester: r.who.Principal, Principal: r.who.Principal, Task: t, At: r.now}
}

// permitted keeps what policy permits of all, at most room of it. It is asked
// maxListed at a time until there is more, which is therefore a matter of what
// may be seen alone. Each batch is paid for, and one that the caller has no
// allowance for refuses the whole; so does one that cannot be decided. What a
// policy cannot be evaluated for is not kept.
func permitted[T any](ctx context.Context, b *Broker, r *request, all []T, room int, question func(T) grants.Input) (seen []T, more bool, rep reply) {
	var by []grants.Decision
	for len(all) > 0 && len(seen) <= room {
		batch := all[:min(maxListed, len(all))]
		all = all[len(batch):]
		if !b.pay(r, len(batch), perToken) {
			return nil, false, refused(grants.Limit, "")
		}
		in := make([]grants.Input, len(batch))
		for i, one := range batch {
			in[i] = question(one)
		}
		ds, why := b.answers(ctx, r, in)
		if why != grants.None {
			return nil, false, refused(why, "")
		}
		for i, d := range ds {
			if d.Refusal() == grants.None {
				seen, by = append(seen, batch[i]), append(by, d)
			}
		}
	}
	if more = len(seen) > room; more {
		seen, by = seen[:room], by[:room]
	}
	say(&r.records[0], by, grants.None)
	return seen, more, reply{}
}

// pay takes from the caller's rate what n entries of a list cost beyond the
// request itself; never more than half of what a rested caller has, so that a
// list is never out of reach.
func (b *Broker) pay(r *request, n, each int) bool {
	allowance := b.limits.allowance(r.who.Principal.ID(), time.Now())
	return allowance.AllowN(time.Now(), min(n/each, allowance.Burst()/2))
}
