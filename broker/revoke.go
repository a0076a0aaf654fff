package broker

import (
	"context"
	"net/http"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// revokeGrant handles DELETE /v1/grants/{id}. Revoking what is over is done, for
// about a minute: then it is forgotten, and unknown. A
// grant that is not there and one that is not the caller's to revoke are
// answered alike.
func (b *Broker) revokeGrant(ctx context.Context, r *request) reply {
	id := r.PathValue("id")
	r.note(audit.Record{Kind: grants.ActionRevoke})
	if grants.ValidID(id, grants.GrantPrefix) { // what was asked, known or not
		r.records[0].Grant = id
	}
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if !b.cfg.Table.Fresh() {
		return refused(grants.NotFresh, "")
	}
	g, task := b.cfg.Table.Grant(id)
	known := g != nil
	if !known {
		g, task = b.nobodysGrant(r.now)
	}
	ds, why := b.decide(ctx, r, []grants.Input{{
		Action: grants.ActionRevoke, Requester: r.who.Principal, Principal: r.who.Principal,
		Tool: g.Tool, Task: task, Grant: g, At: r.now,
	}})
	r.decided(ds)
	if why == grants.Undecided {
		return refused(why, "")
	}
	if why != grants.None || !known {
		return refused(grants.UnknownGrant, "")
	}
	rec := &r.records[0]
	rec.Task, rec.Tool, rec.Agent = g.Task, g.Tool, g.Agent.ID()
	end := grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.Revoked, Until: g.Expires}
	if rep := b.fence(ctx, r, "revoking a grant", end); rep.why != grants.None {
		return rep
	}
	return reply{
		status: http.StatusOK, body: map[string]string{"grant": g.ID, "state": "revoked"},
		done: "the grant is revoked, but that is not on record: ask again until it is",
	}
}

// nobodysGrant is put to policy in place of one that is not there.
func (b *Broker) nobodysGrant(now time.Time) (*grants.Grant, *grants.Task) {
	task := nobodysTask(now)
	return &grants.Grant{
		ID: grants.GrantPrefix, Task: task.ID, Agent: task.Owner, Requester: task.Owner,
		Tool: b.cfg.Catalog.Servers[0].Tools[0].ID, NotBefore: now, Expires: task.Deadline,
	}, task
}
