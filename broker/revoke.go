package broker

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

// revokeGrant handles DELETE /v1/grants/{id}. Revoking what is over is done, for
// about a minute: then it is forgotten, and unknown. A
// grant that is not there and one that is not the caller's to revoke are
// answered alike.
func (b *Broker) revokeGrant(ctx context.Context, r *request) reply {
	id := r.PathValue("id")
	rec := &r.records[0]
	if grants.ValidID(id, grants.GrantPrefix) { // what was asked, known or not
		rec.Grant = id
	}
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	if !b.cfg.Table.Fresh() {
		return refused(grants.NotFresh, "")
	}
	g, task := b.cfg.Table.Grant(id)
	known := g != nil
	if !known {
		any, tools := b.anyTool()
		if !tools { // then there is nobody's grant either
			return refused(grants.UnknownGrant, "")
		}
		g, task = nobodysGrant(any, r.now)
	}
	in := b.mayRevoke(r, g, task)
	ds, why := b.decide(ctx, r, []grants.Input{in})
	if known {
		r.decided(ds, why, in)
	} else {
		r.decidedOnNothing(ds)
	}
	if why == grants.Undecided {
		return refused(why, "")
	}
	if why != grants.None || !known {
		return refused(grants.UnknownGrant, "")
	}
	rec.Task, rec.Tool, rec.Agent = g.Task, g.Tool, g.Agent.ID()
	end := grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.Revoked, Until: g.Expires}
	if rep := b.fence(ctx, r, "revoking a grant", end); rep.why != grants.None {
		return rep
	}
	return reply{
		status: http.StatusOK, body: map[string]string{"grant": g.ID, "state": stateRevoked},
		done: "the grant is revoked, but that is not on record: ask again until it is",
	}
}

// mayRevoke asks whether the caller may revoke a grant.
func (b *Broker) mayRevoke(r *request, g *grants.Grant, task *grants.Task) grants.Input {
	return grants.Input{
		Action: grants.ActionRevoke, Requester: r.who.Principal, Principal: r.who.Principal,
		Tool: g.Tool, Task: task, Grant: g, At: r.now,
	}
}

// nobodysGrant is put to policy in place of one that is not there, and for any
// grant whatever.
func nobodysGrant(tool string, now time.Time) (*grants.Grant, *grants.Task) {
	task := nobodysTask(now)
	return &grants.Grant{
		ID: grants.GrantPrefix, Task: task.ID, Agent: task.Owner, Requester: task.Owner,
		Tool: tool, NotBefore: now, Expires: task.Deadline,
	}, task
}

// anyTool is some tool of the catalogue, which may have none.
func (b *Broker) anyTool() (id string, ok bool) {
	for t := range b.cfg.Catalog.AllTools() {
		return t.ID, true
	}
	return "", false
}

// fenceAnswer is the answer of DELETE /v1/grants?…
type fenceAnswer struct {
	Scope grants.Scope `json:"scope"`
	Key   string       `json:"key"`
	State string       `json:"state"`
}

// revokeMany handles DELETE /v1/grants?task=, ?agent= or ?tool=: one fence for
// everything that it matches and that was written before it.
func (b *Broker) revokeMany(ctx context.Context, r *request) reply {
	q, why, detail := r.parameters("task", "agent", "tool")
	if why == grants.None && len(q) != 1 {
		why, detail = grants.BadRequest, "say which grants: task=ID, agent=ALIAS/SUBJECT or tool=SERVER/TOOL, one of them"
	}
	r.aims(q)
	// Who asks comes first: what is wrong with the rest is for callers alone.
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	if q.Has("task") {
		return b.end(ctx, r, q.Get("task"), func(id grants.ID) any {
			return fenceAnswer{grants.ScopeTask, id, stateEnded}
		})
	}
	f, in, rep := b.wholesale(r, q)
	if rep.why != grants.None {
		return rep
	}
	if !b.pay(r, len(in), perToken) {
		return refused(grants.Limit, "")
	}
	ds, why := b.decideAll(ctx, r, in)
	r.decided(ds, why, in[0])
	if why == grants.Policy {
		return reply{why: why, advice: advice(ds, why), detail: "policy does not permit you to revoke any grant whatever of " + f.Key + ": revoke those that you may one by one"}
	}
	if why == grants.Conflict {
		return refused(why, "the policies changed while they were asked: ask again")
	}
	if why != grants.None {
		return refused(why, "")
	}
	if rep := b.fence(ctx, r, "revoking grants", f); rep.why != grants.None {
		return rep
	}
	return reply{
		status: http.StatusOK, body: fenceAnswer{f.Scope, f.Key, stateRevoked},
		done: "the grants are revoked, but that is not on record: ask again until it is",
	}
}

// atOnce is how many questions of a long list are put to policy at once.
const atOnce = 64

// decideAll is decide for a list that can be long: the first no ends it. All
// answers are of one revision, so that no reload splits the decision; Conflict if
// there was one in between.
func (b *Broker) decideAll(ctx context.Context, r *request, in []grants.Input) (all []grants.Decision, why grants.Reason) {
	for some := range slices.Chunk(in, atOnce) {
		ds, why := b.decide(ctx, r, some)
		all = append(all, ds...)
		if why != grants.None {
			return all, why
		}
		if ds[0].Revision != all[0].Revision {
			return all, grants.Conflict
		}
	}
	return all, grants.None
}

// aims notes on record what is to be revoked.
func (r *request) aims(q url.Values) {
	rec := &r.records[0]
	if q.Has("task") {
		rec.Kind = grants.ActionEndTask
		r.named(q.Get("task"))
	}
	rec.Agent, rec.Tool = q.Get("agent"), q.Get("tool")
}

// wholesale gives the fence on an agent or a tool, and what policy has to allow
// all of: revoking a grant of which nothing is known but that. So it is not
// enough to own the tasks of which grants there happen to be.
func (b *Broker) wholesale(r *request, q url.Values) (grants.Fence, []grants.Input, reply) {
	// No grant outlives its task, and no task lasts longer than this.
	f := grants.Fence{Why: grants.Revoked, Until: r.now.Add(b.cfg.MaxTask)}
	var in []grants.Input
	if q.Has("tool") {
		f.Scope, f.Key = grants.ScopeTool, q.Get("tool")
		if _, ok := b.cfg.Catalog.Tool(f.Key); !ok {
			return f, nil, refused(grants.UnknownTool, "")
		}
		g, task := nobodysGrant(f.Key, r.now)
		return f, []grants.Input{b.mayRevoke(r, g, task)}, reply{}
	}
	f.Scope, f.Key = grants.ScopeAgent, q.Get("agent")
	agent, ok := identity.ParseAgent(f.Key)
	if !ok {
		return f, nil, refused(grants.Malformed, "agent: write ISSUER-ALIAS/SUBJECT")
	}
	for i := range b.cfg.Catalog.Servers {
		for _, t := range b.cfg.Catalog.Servers[i].Tools {
			g, task := nobodysGrant(t.ID, r.now)
			g.Agent = agent
			in = append(in, b.mayRevoke(r, g, task))
		}
	}
	return f, in, reply{}
}
