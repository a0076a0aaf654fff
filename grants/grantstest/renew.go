package grantstest

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// renewal is a grant that stands in g's place.
func renewal(g grants.Grant) grants.Grant {
	next := g
	next.ID, next.Renews, next.Rev = grants.NewID(grants.GrantPrefix), g.ID, grants.Rev{}
	return next
}

func (s *suite) renew() {
	task, other := s.open(newTask()), s.open(newTask())
	g := newGrant(task)
	own := grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 3}
	shared := grants.Budget{Key: grants.TaskBudget(task.ID, tool, "/amount"), Arg: "/amount", Limit: 5}
	g.Budgets = []grants.Budget{own, shared}
	g.Constraints = append(g.Constraints, json.RawMessage(`{"type":"integer","maximum":5}`))
	s.refuse("of what is not there", one(renewal(g)), grants.UnknownGrant)
	s.refuse("of one of its own batch", []grants.Grant{g, renewal(g)}, grants.BadRequest, grants.UnknownGrant)
	s.issue(g)
	sibling := newGrant(task)
	sibling.Budgets = []grants.Budget{shared}
	s.issue(sibling)

	for _, c := range []struct {
		what   string
		change func(*grants.Grant)
		want   grants.Reason
	}{
		{"itself", func(g *grants.Grant) { g.Renews = g.ID }, grants.UnknownGrant},
		{"another agent", func(g *grants.Grant) { g.Agent.Subject = "eve" }, grants.BadRequest},
		{"another issuer's agent", func(g *grants.Grant) { g.Agent.Issuer = "other" }, grants.BadRequest},
		{"another task", func(g *grants.Grant) { g.Task = other.ID }, grants.BadRequest},
		{"another tool", func(g *grants.Grant) { g.Tool = "github/get_pr" }, grants.BadRequest},
		{"another chain of actors", func(g *grants.Grant) { g.Actors = []string{"idp/root"} }, grants.BadRequest},
		{"a parent that the old one had not", func(g *grants.Grant) { g.Parent = sibling.ID }, grants.BadRequest},
		{"without a constraint", func(g *grants.Grant) { g.Constraints = g.Constraints[:1] }, grants.BadRequest},
		{"without constraints", func(g *grants.Grant) { g.Constraints = nil }, grants.BadRequest},
		{"a constraint that reads alike", func(g *grants.Grant) {
			g.Constraints = []json.RawMessage{g.Constraints[0], json.RawMessage(`{"type": "integer","maximum":5}`)}
		}, grants.BadRequest},
		{"a wider constraint", func(g *grants.Grant) {
			g.Constraints = []json.RawMessage{g.Constraints[0], json.RawMessage(`{"type":"integer","maximum":6}`)}
		}, grants.BadRequest},
		{"without its own budget", func(g *grants.Grant) { g.Budgets = []grants.Budget{shared} }, grants.Conflict},
		{"without the task's", func(g *grants.Grant) { g.Budgets = []grants.Budget{own} }, grants.Conflict},
		{"its own budget under a new key", func(g *grants.Grant) {
			g.Budgets = []grants.Budget{shared, {Key: grants.GrantBudget(g.ID, ""), Limit: 3}}
		}, grants.Conflict},
		{"its own budget with a smaller limit", func(g *grants.Grant) {
			g.Budgets = []grants.Budget{shared, {Key: own.Key, Limit: 2}}
		}, grants.Conflict},
		{"its own budget with another argument", func(g *grants.Grant) {
			g.Budgets = []grants.Budget{shared, {Key: own.Key, Arg: "/amount", Limit: 3}}
		}, grants.Conflict},
		{"for one input alone", func(g *grants.Grant) { g.Once = grants.Digest{1} }, grants.BadRequest},
		{"longer than the task", func(g *grants.Grant) { g.Expires = task.Deadline.Add(1) }, grants.BadTTL},
	} {
		next := renewal(g)
		c.change(&next)
		s.refuse("a renewal: "+c.what, one(next), c.want)
	}
	s.refuse("two in one place", []grants.Grant{renewal(g), renewal(g)}, grants.BadRequest)
	next := renewal(g) // nobody but who renews it carries a grant's own budget
	next.Renews = ""
	s.refuse("its own budget without a renewal", one(next), grants.BadRequest)
	next.Renews, next.Constraints = sibling.ID, sibling.Constraints
	s.refuse("its own budget with the renewal of another", one(next), grants.BadRequest)

	next = renewal(g)
	next.Expires = g.Expires.Add(time.Minute) // a renewal may be longer
	next.Constraints = append([]json.RawMessage{json.RawMessage(`{"type":"object"}`)}, g.Constraints...)
	next.Budgets = []grants.Budget{{Key: grants.GrantBudget(next.ID, ""), Limit: 2}, shared, own}
	first := s.issue(next)
	third := renewal(next)
	third.Budgets = append([]grants.Budget{{Key: grants.GrantBudget(third.ID, ""), Limit: 1}}, next.Budgets...)
	s.issue(third)
	for _, id := range []grants.ID{g.ID, next.ID} {
		s.supersede(id)
	}
	s.refuse("of one that was superseded", one(renewal(g)), grants.Superseded)
	s.refuse("of one that was superseded, and is a renewal", one(renewal(next)), grants.Superseded)
	if got := s.issue(next); got != first {
		s.Errorf("the same renewal again, when the old one is fenced: %v; want the first's, %v", got, first)
	}

	for what, kill := range map[string]func(g grants.Grant) grants.Rev{
		"agent": func(g grants.Grant) grants.Rev { return s.fence(grants.ScopeAgent, g.Agent.ID()) },
		"tool":  func(g grants.Grant) grants.Rev { return s.fence(grants.ScopeTool, g.Tool) },
	} {
		g := newGrant(task)
		g.Agent.Subject, g.Tool = "r-"+what, "github/r_"+what
		s.issue(g)
		next := renewal(g)
		next.Rev = kill(g) // decided after the fence, which the old one did not survive
		s.refuse("of one that was fenced by "+what, one(next), grants.Revoked)
	}
	dead := newGrant(task)
	dead.Tool = "github/dead"
	dead = s.expired(dead)
	next = renewal(dead)
	next.Expires = time.Now().Add(time.Minute)
	s.refuse("of one at its end", one(next), grants.Expired, grants.UnknownGrant)

	// What hangs on a parent hangs on it still.
	p := newGrant(task)
	p.Tool = "github/parent"
	s.issue(p)
	c := child(p)
	s.issue(c)
	next = renewal(c)
	next.Parent = ""
	s.refuse("of a delegated one, without its parent", one(next), grants.BadRequest)
	next = renewal(c)
	next.Expires = p.Expires.Add(1)
	s.refuse("of a delegated one, longer than its parent", one(next), grants.BadTTL)
	s.issue(renewal(c))
	s.fence(grants.ScopeGrant, p.ID)
	s.refuse("of a delegated one, whose parent is fenced", one(renewal(c)), grants.Revoked)
}

// supersede fences a grant that was renewed, as the issue door does.
func (s *suite) supersede(id grants.ID) {
	s.Helper()
	f := grants.Fence{Scope: grants.ScopeGrant, Key: id, Why: grants.Superseded, Until: time.Now().Add(time.Hour)}
	if _, err := s.store.Fence(s.ctx, f); err != nil {
		s.Fatal(err)
	}
}

// renewChain holds that what is spent stays spent over any number of renewals,
// whatever the Store has forgotten of the grants before, and that what is left
// is there to the last: here three calls, spent through a Table.
func (s *suite) renewChain() {
	task := s.open(newTask())
	table := grants.NewTable(grants.TableConfig{Draw: s.store.Draw})
	ctx, cancel := context.WithCancel(s.ctx)
	followed := make(chan error)
	go func() { followed <- table.Follow(ctx, s.store, []string{tool}) }()
	defer func() { cancel(); <-followed }()

	g := newGrant(task)
	g.Constraints = nil
	g.Budgets = []grants.Budget{{Key: grants.GrantBudget(g.ID, ""), Limit: 3}}
	spend := func(want grants.Reason) {
		s.Helper()
		live, why := table.Lookup(g.ID)
		if why != grants.None {
			s.Fatalf("lookup: %v", why)
		}
		if _, why, err := table.Spend(s.ctx, live, nil); err != nil || why != want {
			s.Fatalf("spend: %v, %v; want %v", why, err, want)
		}
	}
	rev := s.issue(g)
	for i := range 100 {
		if err := table.Wait(s.ctx, rev); err != nil {
			s.Fatal(err)
		}
		switch i {
		case 0, 50: // two of three
			spend(grants.None)
		}
		g = renewal(g)
		rev = s.issue(g)
		s.supersede(g.Renews)
	}
	if err := table.Wait(s.ctx, rev); err != nil {
		s.Fatal(err)
	}
	spend(grants.None)
	spend(grants.BudgetSpent)
	s.drawn(g.Budgets[0].Key, 1, 0)
}

// renewForgotten holds that the account of a grant's own budget outlives the
// grant while another carries it on.
func (s *suite) renewForgotten() {
	task := s.open(newTask())
	var g, next grants.Grant
	for life := 50 * time.Millisecond; ; life *= 2 { // a machine that was busy for so long gets a longer one
		g = newGrant(task)
		g.NotBefore, g.Expires = time.Now(), time.Now().Add(life)
		g.Budgets = []grants.Budget{{Key: grants.GrantBudget(g.ID, ""), Limit: 3}}
		if _, why, err := s.store.Issue(s.ctx, one(g)); err != nil || why != grants.None && why != grants.BadTTL {
			s.Fatalf("issue: %v, %v", why, err)
		}
		next = renewal(g)
		next.Expires = time.Now().Add(time.Minute)
		_, why, err := s.store.Issue(s.ctx, one(next))
		if err != nil {
			s.Fatal(err)
		}
		if why == grants.None {
			break
		}
	}
	key := g.Budgets[0].Key
	s.drawn(key, 1, 1)
	s.waitUntil(g.Expires)
	s.waitUntil(time.Now().Add(100 * time.Millisecond)) // a Store that forgets has time to
	s.issue(renewal(next))                              // refills nothing either
	s.drawn(key, 3, 2)
	s.drawn(key, 1, 0)
}

// renewConcurrent holds that a renewal and a fence on what it renews come one
// after the other, or the renewal not at all.
func (s *suite) renewConcurrent() {
	task := s.open(newTask())
	var won, lost atomic.Int32
	for range 50 {
		g := newGrant(task)
		s.issue(g)
		var fenced, renewed grants.Rev
		each(2, func(i int) {
			if i == 0 {
				rev, err := s.store.Fence(s.ctx, grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.Revoked, Until: time.Now().Add(time.Hour)})
				if err != nil {
					s.Errorf("fence: %v", err)
				}
				fenced = rev
				return
			}
			rev, why, err := s.store.Issue(s.ctx, one(renewal(g)))
			switch {
			case err != nil || why != grants.None && why != grants.Revoked:
				s.Errorf("renewal: %v, %v", why, err)
			case why == grants.None:
				won.Add(1)
			default:
				lost.Add(1)
			}
			renewed = rev
		})
		if renewed != (grants.Rev{}) && renewed.Compare(fenced) > 0 {
			s.Fatalf("renewed at %v what was fenced at %v", renewed, fenced)
		}
	}
	s.Logf("%d before the fence, %d after it", won.Load(), lost.Load())
}
