package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// granted is one ask on its way to a grant.
type granted struct {
	tool   *catalog.Tool
	task   *grants.Task
	grant  grants.Grant
	at     int           // of its record among the request's
	end    time.Time     // of what was asked; a reused grant may last longer, its token does not
	old    *grants.Grant // that it renews; nil: none
	reused bool
}

// issue decides what is ordered and writes it: all of it, or nothing. body makes
// the answer of the tokens, one for each server in the order of first mention.
func (b *Broker) issue(ctx context.Context, r *request, o *order, body func([]tokenAnswer) any) reply {
	view := b.cfg.Table.Rev() // before anything is read that the decision rests on
	set := b.manifests()
	r.ordered(o)
	task, why := b.orderedTask(r, o)
	if why != grants.None {
		return refused(why, "")
	}
	if rep := o.under(set, task); rep.why != grants.None {
		return rep
	}
	if rep := b.constrain(r, o); rep.why != grants.None {
		return rep
	}
	gs := make([]granted, len(o.asks))
	var in []grants.Input
	for i, a := range o.asks {
		var rep reply
		if gs[i], rep = b.propose(r, o, task, a, view); rep.why != grants.None {
			return rep
		}
		gs[i].at = i
		in = append(in, gs[i].grant.Asks(task, r.now)...)
		r.records[i].Note = noteOf(&gs[i])
	}
	ds, why := b.decide(ctx, r, in)
	r.decidedEach(gs, ds, why)
	switch {
	case why == grants.Manifest && b.reloaded(set):
		return raced()
	case why != grants.None:
		return reply{why: why, detail: refusedFor(r, o, in, ds, why), advice: advice(ds, why)}
	}
	rev, rep := b.write(ctx, r, gs, ds[0].Revision)
	if rep.why != grants.None {
		return rep
	}
	tokens, err := b.mintAll(r, gs, rev)
	if err != nil {
		b.takeBack(r, gs)
		return b.fault(r, "minting a token", err)
	}
	rep = reply{status: 200, body: body(tokens), undo: func() { b.takeBack(r, gs) }}
	if slices.ContainsFunc(gs, func(g granted) bool { return g.old != nil }) {
		rep.done = "what was to be renewed has ended, and nothing stands in its place: ask for new grants"
	}
	return rep
}

// ordered notes what was asked, known or not: one record for each tool.
func (r *request) ordered(o *order) {
	r.records = r.records[:0]
	for _, a := range o.asks {
		rec := audit.Record{Kind: grants.ActionGrant, Agent: o.agent.ID(), Tool: a.tool.ID}
		if grants.ValidID(o.task, grants.TaskPrefix) {
			rec.Task = o.task
		}
		r.records = append(r.records, rec)
	}
}

// noteOf says what a policy may have refused it for, to who reads the record.
func noteOf(p *granted) string {
	g := &p.grant
	more := fmt.Sprintf("max_calls=%d max_sums=%d constraints=%d", calls(g), len(sums(g)), len(g.Constraints))
	if !g.Once.IsZero() {
		more += " once=true"
	}
	if p.old != nil {
		more += " renews=" + p.old.ID
	}
	return audit.Facts{Kind: p.task.Kind, TTL: secondsUp(g.TTL()), More: more, Groups: g.Agent.Groups}.String()
}

// decidedEach notes on the record of each tool what policy said of it. A tool
// that policy would permit is refused with the one that it does not: its record
// names that one, and what said no to it.
func (r *request) decidedEach(gs []granted, ds []grants.Decision, why grants.Reason) {
	no := func(d grants.Decision) bool { return d.Refusal() == why }
	each := len(ds) / len(gs) // one asker, one agent: as many questions for each
	for i := range gs {
		own, rec := ds[i*each:(i+1)*each], &r.records[i]
		if first := slices.IndexFunc(ds, no); first >= 0 && !slices.ContainsFunc(own, no) {
			rec.Note = audit.Note("all or nothing: refused with "+gs[first/each].tool.ID, rec.Note)
			own = ds
		}
		say(rec, own, why)
	}
}

// refusedFor is what the caller is told beyond the reason: that its agent's
// groups may be what is missing, where the caller cannot know that they did not
// count.
func refusedFor(r *request, o *order, in []grants.Input, ds []grants.Decision, why grants.Reason) string {
	if why != grants.Policy || is(o.agent, r.who.Principal) {
		return ""
	}
	for i, d := range ds {
		if in[i].Action == grants.ActionGrant && d.Refusal() == why {
			return "policy does not permit this to " + cut(o.agent.ID()) + ": for another agent than yourself, only the groups of entities.json count, none that its own identity token names; it may also be the tool, the kind of task, the time or the number of calls"
		}
	}
	return ""
}

// orderedTask finds the task before policy says anything about tools. It must
// name the agent, and who asks is that agent or the task's owner: to others it
// is unknown.
func (b *Broker) orderedTask(r *request, o *order) (*grants.Task, grants.Reason) {
	task, why := b.cfg.Table.Task(o.task)
	me := r.who.Principal
	switch {
	case why == grants.NotFresh:
		return nil, why
	case task == nil, !task.HasAgent(o.agent.ID()), !is(me, o.agent) && !is(me, task.Owner):
		return nil, grants.UnknownTask
	}
	return task, why
}

// is reports whether two principals are the same agent, whatever their groups.
func is(a, b grants.Principal) bool { return a.Issuer == b.Issuer && a.Subject == b.Subject }

// write puts the grants into the store, but for those that are there already,
// and waits until the table has them and, of those that were renewed, the end.
func (b *Broker) write(ctx context.Context, r *request, gs []granted, policy grants.Digest) (grants.Rev, reply) {
	var fresh []grants.Grant
	rev := b.cfg.Table.Rev()
	for i := range gs {
		g := &gs[i]
		g.grant.Policy = policy
		if old := b.living(g, gs); old != nil {
			g.grant, g.reused = *old, true
			if old.Rev.Compare(rev) > 0 {
				rev = old.Rev
			}
		} else {
			fresh = append(fresh, g.grant)
		}
		r.records[g.at].Grant = g.grant.ID
	}
	if len(fresh) == 0 {
		return rev, reply{}
	}
	rev, why, err := b.cfg.Store.Issue(ctx, fresh)
	if err != nil {
		b.takeBack(r, gs)
		return rev, b.fault(r, "issuing grants", err)
	}
	switch why {
	case grants.None:
	case grants.Limit:
		return rev, refused(why, "the agent, or all together, have as many live grants as there may be: revoke some, or let them end")
	default:
		return rev, refused(why, "")
	}
	if err := b.settle(rev); err != nil {
		b.takeBack(r, gs)
		return rev, b.fault(r, "waiting for the table", err)
	}
	rev, rep := b.supersede(ctx, r, gs, rev)
	if rep.why != grants.None {
		b.takeBack(r, gs)
	}
	return rev, rep
}

// living finds a live grant that is what is proposed, with time enough: policy
// has said yes again, and nothing is written anew. A token ends with the last
// of what was asked of its server; so a grant that lasts longer than its own
// ask may be in it only if all of them end at that instant.
func (b *Broker) living(p *granted, gs []granted) *grants.Grant {
	if p.old != nil || !p.grant.Once.IsZero() {
		return nil // a renewal is a grant of its own, and so is each of one call
	}
	oneEnd := !slices.ContainsFunc(gs, func(g granted) bool { return g.tool.Server == p.tool.Server && !g.end.Equal(p.end) })
	for _, l := range b.cfg.Table.Holding(p.task.ID, p.tool.ID, p.grant.Agent.ID()) {
		g := l.Grant()
		if same(g, &p.grant) && !g.Expires.Before(p.grant.Expires) && (oneEnd || g.Expires.Equal(p.end)) {
			return g
		}
	}
	return nil
}

// same reports whether two grants differ in id, window, revision and what they
// renew alone.
func same(a, b *grants.Grant) bool {
	return samePrincipal(a.Agent, b.Agent) && samePrincipal(a.Requester, b.Requester) &&
		slices.Equal(a.Actors, b.Actors) && a.Client == b.Client && a.Parent == b.Parent &&
		a.Task == b.Task && a.Tool == b.Tool && a.CNF == b.CNF && a.Identity == b.Identity && a.Policy == b.Policy && a.Pin == b.Pin && a.Once == b.Once &&
		slices.EqualFunc(a.Budgets, b.Budgets, func(x, y grants.Budget) bool {
			own := x.Key == grants.GrantBudget(a.ID, x.Arg) && y.Key == grants.GrantBudget(b.ID, y.Arg)
			return (own || x.Key == y.Key) && x.Arg == y.Arg && x.Limit == y.Limit
		}) && slices.EqualFunc(a.Constraints, b.Constraints, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) })
}

func samePrincipal(a, b grants.Principal) bool {
	return is(a, b) && slices.Equal(a.Groups, b.Groups) && maps.Equal(a.Tags, b.Tags)
}

// takeBack fences the grants that this request wrote.
func (b *Broker) takeBack(r *request, gs []granted) {
	var fences []grants.Fence
	for _, g := range gs {
		if !g.reused {
			fences = append(fences, grants.Fence{Scope: grants.ScopeGrant, Key: g.grant.ID, Why: grants.Revoked, Until: g.grant.Expires})
		}
	}
	b.undo(r, fences...)
}
