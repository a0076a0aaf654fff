package authz

import (
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// TestDeadGrantsAreNamed: a call by a grant that lives no more is what is looked
// into first, so its record and Envoy's access log say which grant it was, and the
// record who had asked for it.
func TestDeadGrantsAreNamed(t *testing.T) {
	w := newWorld(t)
	orchestrator := grants.Principal{Issuer: "corp", Subject: "orchestrator"}
	for _, why := range []grants.Reason{grants.Revoked, grants.Superseded, grants.PolicyChanged, grants.TaskEnded} {
		g := w.grant("srv/bare", func(g *grants.Grant) { g.Requester, g.Client = orchestrator, "ci" })
		tok := w.token(g)
		f := grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: why, Until: g.Expires}
		if why == grants.TaskEnded {
			f.Scope, f.Key = grants.ScopeTask, g.Task
		}
		rev, err := w.store.Fence(t.Context(), f)
		w.must(err)
		w.must(w.table.Wait(t.Context(), rev))
		resp := w.want(why.String(), ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+tok), why.String())
		r := w.last()
		if r.Grant != g.ID || r.Requester != "corp/orchestrator" || r.Client != "ci" || r.Agent != g.Agent.ID() || r.Task != g.Task {
			t.Errorf("%v: on record: %+v", why, r)
		}
		if got := resp.GetDynamicMetadata().GetFields()["grant"].GetStringValue(); got != g.ID {
			t.Errorf("%v: metadata: %q", why, got)
		}
	}
	// One that never was is named as the token names it, and tells nothing of others.
	g := w.grant("srv/bare", func(g *grants.Grant) { g.Requester, g.Client = orchestrator, "ci" })
	foreign := g
	foreign.Agent = grants.Principal{Issuer: "corp", Subject: "another"}
	foreign.Expires = time.Now().Add(time.Minute).Truncate(time.Second)
	w.want("another agent's token for it", ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+w.token(foreign)), "bad_credential")
	if r := w.last(); r.Agent == g.Agent.ID() {
		t.Errorf("on record: %+v", r)
	}
}
