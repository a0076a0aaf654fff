package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/toolgrant/toolgrant/grants"
)

// renewable finds the grant that an ask is to stand in for, for its agent and
// for who asked for it. To all others, one that is there is as unknown as one
// that is not.
func (b *Broker) renewable(r *request, o *order, a ask) (*grants.Grant, reply) {
	old, _ := b.cfg.Table.Grant(a.renew)
	if old == nil || !is(old.Agent, r.who.Principal) && !is(old.Requester, r.who.Principal) {
		return nil, refused(grants.UnknownGrant, "there is no such grant, or it is not yours to renew")
	}
	switch {
	case !is(old.Agent, o.agent):
		return nil, refused(grants.BadRequest, "the grant to renew is another agent's: name that agent")
	case old.Task != o.task:
		return nil, refused(grants.BadRequest, "the grant to renew is of another task")
	case old.Tool != a.tool.ID:
		return nil, refused(grants.BadRequest, "the grant to renew is for another tool")
	}
	if _, why := b.cfg.Table.Lookup(old.ID); why != grants.None {
		return nil, refused(why, "")
	}
	return old, reply{}
}

// inPlaceOf is a grant that holds all that narrowed the old one: its
// constraints with the asked ones added, its place in a delegation, and its
// budgets, its own ones included, with those that the task has got since.
func inPlaceOf(old *grants.Grant, constraints []json.RawMessage, shared []grants.Budget) grants.Grant {
	g := *old
	g.Renews = old.ID
	g.Constraints = slices.Clone(old.Constraints)
	for _, c := range constraints {
		if !slices.ContainsFunc(g.Constraints, func(have json.RawMessage) bool { return bytes.Equal(have, c) }) {
			g.Constraints = append(g.Constraints, c)
		}
	}
	g.Budgets = slices.Clone(old.Budgets)
	for _, s := range shared {
		if !slices.Contains(g.Budgets, s) {
			g.Budgets = append(g.Budgets, s)
		}
	}
	return g
}

// supersede fences the grants in whose place others stand now, and waits until
// the table knows. It gives the newest of rev and the fences.
func (b *Broker) supersede(ctx context.Context, r *request, gs []granted, rev grants.Rev) (grants.Rev, reply) {
	for i := range gs {
		old := gs[i].old
		if old == nil {
			continue
		}
		f := grants.Fence{Scope: grants.ScopeGrant, Key: old.ID, Why: grants.Superseded, Until: old.Expires}
		at, err := b.cfg.Store.Fence(ctx, f)
		if err != nil {
			return rev, b.fault(r, "fencing a renewed grant", err)
		}
		if at.Compare(rev) > 0 {
			rev = at
		}
	}
	if err := b.settle(rev); err != nil {
		return rev, b.fault(r, "fencing a renewed grant: waiting for the table", err)
	}
	return rev, reply{}
}
