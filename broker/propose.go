package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// propose builds the grant that policy is asked about.
func (b *Broker) propose(r *request, o *order, task *grants.Task, a ask, view grants.Rev) (granted, reply) {
	bad := func(format string, args ...any) (granted, reply) {
		return granted{}, reply{why: grants.BadRequest, code: badDetails, detail: a.tool.ID + ": " + fmt.Sprintf(format, args...)}
	}
	begin, end, rep := b.window(r, task, a.ttl, o.end)
	if rep.why != grants.None {
		return granted{}, rep
	}
	p := granted{tool: a.tool, task: task, end: end}
	shared, asked := b.cfg.Table.TaskBudgets(task.ID, a.tool.ID), with(compact(a.constraints), a.ceiling)
	p.grant = grants.Grant{Constraints: asked, Budgets: shared}
	if a.renew != "" {
		if p.old, rep = b.renewable(r, o, a); rep.why != grants.None {
			return granted{}, rep
		}
		own := slices.DeleteFunc(slices.Clone(p.old.Constraints), func(c json.RawMessage) bool { return bytes.Equal(c, a.ceiling) })
		if rep = b.affordable(r, weigh(own), 0); rep.why != grants.None {
			return granted{}, rep
		}
		p.grant = inPlaceOf(p.old, asked, shared)
	}
	g := &p.grant
	g.ID, g.Task, g.Tool, g.Pin = grants.NewID(grants.GrantPrefix), task.ID, a.tool.ID, grants.Digest(a.tool.Digest)
	g.Agent, g.Requester, g.Identity = o.agent, r.who.Principal, r.who.Digest
	if g.Client = r.client; g.Client == "" {
		g.Client = g.Agent.ID()
	}
	g.NotBefore, g.Expires, g.Rev = begin, end, view
	g.Budgets = budgets(g.Budgets, g.ID, task.ID, a.tool.ID, a.bounds)
	if err := p.oneTime(a); err != nil {
		return bad("%s", err)
	}
	if len(g.Budgets) > grants.MaxBudgets {
		return bad("a grant has at most %d budgets, with those that the task has for the tool", grants.MaxBudgets)
	}
	if p.old != nil || a.ceiling != nil || a.input != nil {
		return p, p.constrained(a)
	}
	return p, reply{} // constrain has compiled all there is
}

// constrained compiles what a proposal has got from elsewhere together with what
// was asked, and holds the input of a one-time grant against all of it.
func (p *granted) constrained(a ask) reply {
	compiled, err := grants.CompileConstraints(p.grant.Constraints)
	if err != nil {
		return reply{why: grants.BadRequest, code: badDetails, detail: a.tool.ID + ": with those of the manifest and of the grant to renew, constraints: " + err.Error()}
	}
	if a.input == nil {
		return reply{}
	}
	for _, c := range compiled {
		if err := c.Check(a.input); err != nil {
			return reply{why: grants.ConstraintBroken, code: badDetails, detail: a.tool.ID + `: "input" breaks a constraint of the grant: ` + err.Error()}
		}
	}
	return reply{}
}

// window is the shortest of all that bounds it, and never longer than was asked.
// last is the end of what the manifest has; zero: it does not say.
func (b *Broker) window(r *request, task *grants.Task, ttl time.Duration, last time.Time) (begin, end time.Time, rep reply) {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	end = r.now.Add(min(ttl, b.cfg.MaxTTL))
	for _, bound := range []time.Time{task.Deadline, r.who.Expires, last} {
		if bound.Before(end) && !bound.IsZero() {
			end = bound
		}
	}
	// Whole seconds, as the token's claims have them; both round down, so the
	// token never says more than the table, and an asked 300 s reads 300.
	begin, end = r.now.Truncate(time.Second).UTC(), end.Truncate(time.Second).UTC()
	switch {
	case end.Sub(r.now) >= time.Second: // else an answer could not say how long it lasts
	case !last.IsZero() && last.Sub(r.now) < 2*time.Second && last.Before(task.Deadline):
		rep = refused(grants.Manifest, "a task of this kind may not last longer, by the manifest of today: start another")
	default:
		rep = refused(grants.BadTTL, fmt.Sprintf("no whole second is left: the task ends at %s, the identity token at %s",
			task.Deadline.UTC().Format(time.RFC3339), r.who.Expires.UTC().Format(time.RFC3339)))
	}
	return begin, end, rep
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
