package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
	end    time.Time // of what was asked; a reused grant may last longer, its token does not
	reused bool
}

// maxCalls is what the grant's narrowest count of calls allows; 0: not counted.
func (g *granted) maxCalls() int64 {
	var n int64
	for _, b := range g.grant.Budgets {
		if b.Arg == "" && (n == 0 || b.Limit < n) {
			n = b.Limit
		}
	}
	return n
}

// issue decides what is asked and writes it: all of it, or nothing.
func (b *Broker) issue(ctx context.Context, r *request, asks []ask) reply {
	view := b.cfg.Table.Rev() // before anything is read that the decision rests on
	agent := r.who.Principal
	for _, a := range asks {
		rec := audit.Record{Kind: grants.ActionGrant, Agent: agent.ID(), Tool: a.tool.ID}
		if grants.ValidID(a.task, grants.TaskPrefix) { // what was asked, known or not
			rec.Task = a.task
		}
		r.note(rec)
	}
	task, why := b.cfg.Table.Task(asks[0].task)
	if why == grants.NotFresh {
		return refused(why, "")
	}
	if task == nil || !task.HasAgent(agent.ID()) {
		return refused(grants.UnknownTask, "")
	}
	if why != grants.None {
		return refused(why, "")
	}
	gs := make([]granted, len(asks))
	in := make([]grants.Input, len(asks))
	for i, a := range asks {
		if gs[i], why = b.propose(r, task, a, view); why != grants.None {
			return refused(why, "")
		}
		in[i] = gs[i].grant.Asks(task, r.now)[0]
		// What a policy may have refused it for, for who reads the record.
		r.records[i].Note = fmt.Sprintf("kind=%s ttl=%d max_calls=%d constraints=%d groups=%s", task.Kind,
			int64(gs[i].grant.TTL()/time.Second), gs[i].maxCalls(), len(a.constraints), strings.Join(agent.Groups, ","))
	}
	ds, why := b.decide(ctx, r, in)
	r.decided(ds)
	if why != grants.None {
		return refused(why, "")
	}
	rev, rep := b.write(ctx, r, gs, ds)
	if rep.why != grants.None {
		return rep
	}
	rep = b.answerToken(r, gs, rev)
	rep.undo = func() { b.takeBack(r, gs) }
	if rep.why != grants.None {
		b.takeBack(r, gs)
	}
	return rep
}

// propose builds the grant that policy is asked about: the window is the
// shortest of all that bound it, and never longer than was asked.
func (b *Broker) propose(r *request, task *grants.Task, a ask, view grants.Rev) (granted, grants.Reason) {
	ttl := a.ttl
	if ttl == 0 {
		ttl = DefaultTTL
	}
	end := r.now.Add(min(ttl, b.cfg.MaxTTL))
	for _, bound := range []time.Time{task.Deadline, r.who.Expires} {
		if bound.Before(end) {
			end = bound
		}
	}
	// Whole seconds, as the token's claims have them; both round down, so the
	// token never says more than the table, and an asked 300 s reads 300.
	begin := r.now.Truncate(time.Second).UTC()
	end = end.Truncate(time.Second).UTC()
	if end.Sub(r.now) < time.Second { // an answer could not say how long it lasts
		return granted{}, grants.BadTTL
	}
	g := grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Client: r.who.Principal.ID(),
		Agent: r.who.Principal, Requester: r.who.Principal, Identity: r.who.Digest,
		Tool: a.tool.ID, Pin: grants.Digest(a.tool.Digest),
		NotBefore: begin, Expires: end, Constraints: compact(a.constraints), Rev: view,
	}
	g.Budgets = b.budgets(task.ID, a, g.ID)
	return granted{tool: a.tool, task: task, grant: g, end: end}, grants.None
}

// budgets are those that the task and tool have already, which asking again
// neither drops nor refills, and what the ask adds: the first count becomes the
// task's, a narrower one later the grant's own.
func (b *Broker) budgets(task grants.ID, a ask, id grants.ID) []grants.Budget {
	have := b.cfg.Table.TaskBudgets(task, a.tool.ID)
	if a.maxCalls == 0 {
		return have
	}
	i := slices.IndexFunc(have, func(b grants.Budget) bool { return b.Arg == "" })
	switch {
	case i < 0:
		return append(have, grants.Budget{Key: grants.TaskBudget(task, a.tool.ID, ""), Limit: a.maxCalls})
	case a.maxCalls < have[i].Limit:
		return append(have, grants.Budget{Key: grants.GrantBudget(id, ""), Limit: a.maxCalls})
	}
	return have
}

// write puts the grants into the store, but for those that are there already,
// and waits until the table has them.
func (b *Broker) write(ctx context.Context, r *request, gs []granted, ds []grants.Decision) (grants.Rev, reply) {
	var fresh []grants.Grant
	rev := b.cfg.Table.Rev()
	// The token ends with the last of what was asked; a grant that lasts longer
	// than its own ask may be in it only if that is the same instant.
	oneEnd := !slices.ContainsFunc(gs, func(g granted) bool { return !g.end.Equal(gs[0].end) })
	for i := range gs {
		gs[i].grant.Policy = ds[i].Revision
		if old := b.living(&gs[i]); old != nil && (oneEnd || old.Expires.Equal(gs[i].end)) {
			gs[i].grant, gs[i].reused = *old, true
			if old.Rev.Compare(rev) > 0 {
				rev = old.Rev
			}
		} else {
			fresh = append(fresh, gs[i].grant)
		}
		r.records[i].Grant = gs[i].grant.ID
	}
	if len(fresh) == 0 {
		return rev, reply{}
	}
	rev, why, err := b.cfg.Store.Issue(ctx, fresh)
	if err != nil {
		b.takeBack(r, gs)
		return rev, b.fault(r, "issuing grants", err)
	}
	if why != grants.None {
		return rev, refused(why, "")
	}
	if err := b.settle(rev); err != nil {
		b.takeBack(r, gs)
		return rev, b.fault(r, "waiting for the table", err)
	}
	return rev, reply{}
}

// living finds a live grant that is what is proposed, with time enough: policy
// has said yes again, and nothing is written anew.
func (b *Broker) living(p *granted) *grants.Grant {
	for _, l := range b.cfg.Table.TaskGrants(p.task.ID, p.tool.ID) {
		if g := l.Grant(); same(g, &p.grant) && !g.Expires.Before(p.grant.Expires) {
			return g
		}
	}
	return nil
}

// same reports whether two grants differ in id, window and revision alone.
func same(a, b *grants.Grant) bool {
	return a.Agent.ID() == b.Agent.ID() && slices.Equal(a.Agent.Groups, b.Agent.Groups) &&
		slices.Equal(a.Actors, b.Actors) && a.Client == b.Client && a.Parent == b.Parent &&
		a.Task == b.Task && a.Tool == b.Tool && a.CNF == b.CNF && a.Identity == b.Identity && a.Policy == b.Policy && a.Pin == b.Pin &&
		a.Requester.ID() == b.Requester.ID() &&
		slices.EqualFunc(a.Budgets, b.Budgets, func(x, y grants.Budget) bool {
			own := x.Key == grants.GrantBudget(a.ID, x.Arg) && y.Key == grants.GrantBudget(b.ID, y.Arg)
			return (own || x.Key == y.Key) && x.Arg == y.Arg && x.Limit == y.Limit
		}) && slices.EqualFunc(a.Constraints, b.Constraints, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) })
}

// compact takes the white space out of constraints, so that two ways of
// writing one are one.
func compact(cs []json.RawMessage) []json.RawMessage {
	out := make([]json.RawMessage, len(cs))
	for i, c := range cs {
		var buf bytes.Buffer
		if json.Compact(&buf, c) != nil {
			buf.Reset()
			buf.Write(c)
		}
		out[i] = buf.Bytes()
	}
	return out
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
