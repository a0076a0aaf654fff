package grantstest

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

func (s *suite) issueTask() {
	unknown := newTask()
	s.refuse("no such task", one(newGrant(unknown)), grants.UnknownTask)

	task := s.open(newTask())
	g := newGrant(task)
	g.Expires = task.Deadline.Add(1)
	s.refuse("longer than the task", one(g), grants.BadTTL)
	g.Expires = task.Deadline
	s.issue(g)

	short := newTask()
	short.Deadline = time.Now().Add(50 * time.Millisecond)
	for { // a machine that was busy for so long gets a longer one
		_, why, err := s.store.Start(s.ctx, short)
		if err != nil {
			s.Fatal(err)
		}
		if why == grants.None {
			break
		}
		short.Deadline = time.Now().Add(2 * time.Until(short.Deadline).Abs())
	}
	s.waitUntil(short.Deadline)
	g = newGrant(short)
	g.NotBefore = short.Deadline.Add(-time.Minute)
	for _, end := range []time.Time{short.Deadline, time.Now().Add(time.Minute)} {
		g.Expires = end
		s.refuse("a task at its deadline", one(g), grants.TaskEnded, grants.UnknownTask)
	}
}

// taskEnded holds what is left of a task that has ended: that it has. Whether
// the Store still knows what it was, and what it had, is the Store's to say.
func (s *suite) taskEnded() {
	task, other := s.open(newTask()), s.open(newTask())
	g := newGrant(task)
	first := s.issue(g)
	view := s.fence(grants.ScopeTask, task.ID)
	deadline := time.Now().Add(200 * time.Millisecond) // time to forget it in
	for time.Now().Before(deadline) {
		rev, why, err := s.store.Start(s.ctx, task)
		known := why == grants.None && rev == task.Rev
		if err != nil || !known && (why != grants.TaskEnded || rev != grants.Rev{}) {
			s.Fatalf("the same start again: %v, %v, %v; want the first, %v, or %v", rev, why, err, task.Rev, grants.TaskEnded)
		}
		rev, why, err = s.store.Issue(s.ctx, one(g))
		known = why == grants.None && rev == first
		if err != nil || !known && (why != grants.TaskEnded && why != grants.UnknownTask || rev != grants.Rev{}) {
			s.Fatalf("the same grant again: %v, %v, %v; want the first, %v, or a refusal", rev, why, err, first)
		}
		fresh := newGrant(task)
		s.refuse("a grant", one(fresh), grants.TaskEnded, grants.UnknownTask)
		fresh.Rev = view
		s.refuse("a grant, decided after the end", one(fresh), grants.TaskEnded, grants.UnknownTask)
		s.refuse("a delegated grant", one(child(g)), grants.TaskEnded, grants.UnknownTask)
		if rev := s.fence(grants.ScopeTask, task.ID); rev != view {
			s.Fatalf("a second end: %v; want the first's, %v", rev, view)
		}
		if s.Failed() {
			return
		}
	}
	seen := counts(s.collect(grants.Rev{}, nil, beat))
	if ev := (grants.Event{Rev: view, Fence: &grants.Fence{Scope: grants.ScopeTask, Key: task.ID}}); seen[text(ev)] != 1 {
		s.Errorf("a new watch is not told of the end: %v", seen)
	}
	s.issue(newGrant(other)) // another task goes on
}

func (s *suite) issueParents() {
	task := s.open(newTask())
	p := newGrant(task)
	s.refuse("an unknown parent", one(child(p)), grants.UnknownGrant)
	s.refuse("a parent in the same batch", []grants.Grant{p, child(p)}, grants.UnknownGrant)
	written := s.issue(p)

	g := child(p)
	g.Expires = p.Expires.Add(1)
	s.refuse("longer than its parent", one(g), grants.BadTTL)
	g.Expires = p.Expires
	s.issue(g)
	grandchild := child(g)
	grandchild.Agent.Subject = "third"
	s.issue(grandchild)

	other := s.open(newTask())
	g = child(p)
	g.Task = other.ID
	s.refuse("a parent of another task", one(g), grants.BadRequest)
	g = child(p)
	g.Tool = "github/get_pr"
	s.refuse("a parent of another tool", one(g), grants.BadRequest)

	// A parent that is dead for any reason, however new the view of the child.
	for what, kill := range map[string]func(p grants.Grant) grants.Rev{
		"grant": func(p grants.Grant) grants.Rev { return s.fence(grants.ScopeGrant, p.ID) },
		"agent": func(p grants.Grant) grants.Rev { return s.fence(grants.ScopeAgent, p.Agent.ID()) },
		"tool":  func(p grants.Grant) grants.Rev { return s.fence(grants.ScopeTool, p.Tool) },
	} {
		p := newGrant(task)
		p.Agent.Subject, p.Tool = "by-"+what, "github/by_"+what
		s.issue(p)
		mid := child(p)
		s.issue(mid)
		view := kill(p)
		s.after(written, view)
		g, gg := child(p), child(mid)
		gg.Agent.Subject = "third"
		g.Rev, gg.Rev = view, view
		s.refuse("a parent fenced by "+what, one(g), grants.Revoked)
		s.refuse("a grandparent fenced by "+what, one(gg), grants.Revoked)
	}

	// A parent's own budget may be shared, as it is.
	p = newGrant(task)
	b := grants.Budget{Key: grants.GrantBudget(p.ID, ""), Limit: 3}
	p.Budgets = []grants.Budget{b}
	s.issue(p)
	g = child(p)
	s.issue(g)
	g.ID, g.Budgets = grants.NewID(grants.GrantPrefix), []grants.Budget{{Key: b.Key, Limit: 4}}
	s.refuse("a parent's budget with another limit", one(g), grants.BadRequest, grants.Conflict)
	if got, err := s.store.Draw(s.ctx, b.Key, 10); err != nil || got != 3 {
		s.Errorf("a budget that a child shares gives %d, %v; want 3", got, err)
	}

	p = s.expired(newGrant(task))
	g = child(p)
	s.refuse("a parent at its end", one(g), grants.Expired, grants.UnknownGrant)
}

// expired issues a grant that ends soon, and waits for that. A machine that was
// busy for so long gets a longer one.
func (s *suite) expired(g grants.Grant) grants.Grant {
	s.Helper()
	for life := 50 * time.Millisecond; ; life *= 2 {
		g.NotBefore, g.Expires = time.Now(), time.Now().Add(life)
		_, why, err := s.store.Issue(s.ctx, one(g))
		if err != nil {
			s.Fatal(err)
		}
		if why == grants.None {
			s.waitUntil(g.Expires)
			return g
		}
	}
}

func (s *suite) issueFences() {
	task := s.open(newTask())
	for what, kill := range map[string]func(g grants.Grant) grants.Rev{
		"agent": func(g grants.Grant) grants.Rev { return s.fence(grants.ScopeAgent, g.Agent.ID()) },
		"tool":  func(g grants.Grant) grants.Rev { return s.fence(grants.ScopeTool, g.Tool) },
	} {
		g := newGrant(task)
		g.Agent.Subject, g.Tool = "f-"+what, "github/f_"+what
		s.refuseNone(what, g)
		before := s.open(newTask()).Rev
		view := kill(g)
		fresh := g
		fresh.ID = grants.NewID(grants.GrantPrefix)
		s.refuse("decided on no view, "+what+" fenced", one(fresh), grants.Revoked)
		fresh.Rev = before
		s.refuse("decided before a fence by "+what, one(fresh), grants.Revoked)
		fresh.Rev = view
		s.issue(fresh)

		near := newGrant(task)
		near.Agent.Subject, near.Tool = g.Agent.Subject+"2", g.Tool+"2"
		near.Rev = before
		s.issue(near) // a fence names one thing, not all that begin like it
		near.ID, near.Agent.Subject, near.Tool = grants.NewID(grants.GrantPrefix), "f", "github/f"
		s.issue(near)
	}

	// A grant that was revoked before it was issued is never issued.
	g := newGrant(task)
	g.Agent.Subject, g.Tool = "quick", "github/quick"
	view := s.fence(grants.ScopeGrant, g.ID)
	s.refuse("fenced before it was issued", one(g), grants.Revoked)
	g.Rev = view
	s.refuse("fenced before it was issued, and decided later", one(g), grants.Revoked)
}

// refuseNone issues a grant that nothing speaks against.
func (s *suite) refuseNone(what string, g grants.Grant) {
	s.Helper()
	if rev, why, err := s.store.Issue(s.ctx, one(g)); err != nil || why != grants.None || rev == (grants.Rev{}) {
		s.Errorf("before the fence by %s: %v, %v, %v; want a revision", what, rev, why, err)
	}
}

func (s *suite) issueView() {
	task := s.open(newTask())
	now := s.issue(newGrant(task))
	for what, view := range map[string]grants.Rev{
		"not written yet":        {Epoch: now.Epoch, N: math.MaxUint64},
		"of a later epoch":       {Epoch: now.Epoch + 1, N: 1},
		"of an epoch before":     {Epoch: now.Epoch - 1, N: now.N},
		"of the highest epoch":   {Epoch: math.MaxUint64, N: math.MaxUint64},
		"of an epoch, and empty": {Epoch: now.Epoch + 1},
	} {
		g := newGrant(task)
		g.Rev = view
		s.refuse("a view "+what, one(g), grants.Conflict)
	}
	g := newGrant(task)
	g.Rev = now
	s.issue(g)
}

func (s *suite) fenceTwice() {
	task := s.open(newTask())
	g := newGrant(task)
	s.issue(g)
	for _, c := range []struct {
		scope grants.Scope
		key   string
	}{
		{grants.ScopeGrant, g.ID},
		{grants.ScopeTask, task.ID},
		{grants.ScopeGrant, grants.NewID(grants.GrantPrefix)},
		{grants.ScopeTask, grants.NewID(grants.TaskPrefix)},
	} {
		first := s.fence(c.scope, c.key)
		s.fence(grants.ScopeTool, "github/other") // the history goes on
		if second := s.fence(c.scope, c.key); second != first {
			s.Errorf("a second fence on %s %s: %v; want the first's, %v", c.scope, c.key, second, first)
		}
	}

	task = s.open(newTask())
	for _, c := range []struct {
		scope grants.Scope
		key   string
	}{{grants.ScopeAgent, "idp/bot"}, {grants.ScopeTool, tool}} {
		first := s.fence(c.scope, c.key)
		g := newGrant(task)
		g.Rev = first
		s.issue(g)
		second := s.fence(c.scope, c.key)
		s.after(first, second)
		g = newGrant(task)
		g.Rev = first
		s.refuse("decided between two fences by "+string(c.scope), one(g), grants.Revoked)
		g.Rev = second
		s.issue(g)
	}
}

func (s *suite) budgets() {
	task := s.open(newTask())
	calls := grants.Budget{Key: grants.TaskBudget(task.ID, tool, ""), Limit: 5}
	sum := grants.Budget{Key: grants.TaskBudget(task.ID, tool, "/amount"), Arg: "/amount", Limit: 70}
	with := func(bs ...grants.Budget) grants.Grant {
		g := newGrant(task)
		g.Budgets = bs
		return g
	}
	s.refuse("two grants of one batch that do not share", []grants.Grant{with(calls), with()}, grants.Conflict)
	s.refuse("two grants of one batch with two limits", []grants.Grant{with(calls), with(grants.Budget{Key: calls.Key, Limit: 6})}, grants.Conflict)
	s.issue(with()) // nothing is bounded yet
	s.issue(with(calls), with(sum, calls))

	more := calls
	more.Limit++
	other := sum
	other.Key, other.Arg = grants.TaskBudget(task.ID, tool, "/other"), "/other"
	for what, g := range map[string]grants.Grant{
		"without budgets":        with(),
		"without the sum":        with(calls),
		"without the calls":      with(sum),
		"with another limit":     with(more, sum),
		"with others in stead":   with(other),
		"with others and not it": with(other, calls),
	} {
		s.refuse("a later grant "+what, one(g), grants.Conflict)
	}
	s.issue(with(calls, sum))
	s.issue(with(sum, calls, other)) // one more is narrower
	s.refuse("a later grant without the newest", one(with(sum, calls)), grants.Conflict)

	// Another tool, even one that begins alike, and another task have none.
	g := newGrant(task)
	g.Tool = tool + "2"
	s.issue(g)
	g = newGrant(task)
	g.Tool = "github/merge"
	s.issue(g)
	s.issue(newGrant(s.open(newTask())))

	s.drawn(calls.Key, 3, 3)
	s.issue(with(calls, sum, other)) // refills nothing
	s.drawn(calls.Key, 3, 2)
	s.drawn(calls.Key, 3, 0)
	s.drawn(sum.Key, 100, 70)
}

// budgetsConcurrent holds that of grants that race to be a tool's first, with
// budgets that do not fit together, one wins.
func (s *suite) budgetsConcurrent() {
	const rounds, racers = 30, 4
	task := s.open(newTask())
	for round := range rounds {
		var batch [racers]grants.Grant
		for i := range batch {
			g := newGrant(task)
			g.Tool = fmt.Sprintf("github/tool_%d", round)
			arg := ""
			if round%2 == 0 { // each another argument, else each another limit
				arg = fmt.Sprintf("/%d", i)
			}
			g.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, g.Tool, arg), Arg: arg, Limit: int64(5 + i)}}
			batch[i] = g
		}
		var won, lost atomic.Int32
		each(racers, func(i int) {
			switch _, why, err := s.store.Issue(s.ctx, one(batch[i])); {
			case err != nil:
				s.Errorf("issue: %v", err)
			case why == grants.None:
				won.Add(1)
			case why == grants.Conflict:
				lost.Add(1)
			}
		})
		if won.Load() != 1 || lost.Load() != racers-1 {
			s.Fatalf("round %d: %d grants issued and %d in conflict; want 1 and %d", round, won.Load(), lost.Load(), racers-1)
		}
	}
}

func (s *suite) drawn(key string, want, expect int64) {
	s.Helper()
	if got, err := s.store.Draw(s.ctx, key, want); err != nil || got != expect {
		s.Errorf("drawing %d from %s: %d, %v; want %d", want, key, got, err, expect)
	}
}

func (s *suite) draw() {
	task := s.open(newTask())
	g := newGrant(task)
	b := grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: math.MaxInt64}
	none := grants.Budget{Key: grants.TaskBudget(task.ID, tool, ""), Limit: 0}
	g.Budgets = []grants.Budget{b, none}
	s.drawn(b.Key, 1, 0) // not yet known
	s.issue(g)
	s.drawn("", 1, 0)
	s.drawn("task/", 1, 0)
	s.drawn(grants.GrantBudget(grants.NewID(grants.GrantPrefix), ""), 1, 0)
	s.drawn(none.Key, 1, 0)
	s.drawn(b.Key, 0, 0)
	s.drawn(b.Key, -5, 0)
	s.drawn(b.Key, math.MinInt64, 0)
	s.drawn(b.Key, 7, 7)
	s.drawn(b.Key, math.MaxInt64, math.MaxInt64-7) // what went negative gave nothing back
	s.drawn(b.Key, 1, 0)
	if got := s.issue(g); got == (grants.Rev{}) { // a retry refills nothing
		s.Error("no revision")
	}
	s.drawn(b.Key, 1, 0)
}

func (s *suite) drawConcurrent() {
	const drawers, limit = 100, 1000
	task := s.open(newTask())
	g := newGrant(task)
	b := grants.Budget{Key: grants.TaskBudget(task.ID, tool, ""), Limit: limit}
	g.Budgets = []grants.Budget{b}
	s.issue(g)
	var total atomic.Int64
	each(drawers, func(i int) {
		for range 2 {
			got, err := s.store.Draw(s.ctx, b.Key, 7)
			if err != nil || got < 0 || got > 7 {
				s.Errorf("drawing 7: %d, %v", got, err)
			}
			total.Add(got)
		}
		if i%10 != 0 {
			return
		}
		again := newGrant(task) // asking again in between refills nothing
		again.Budgets = g.Budgets
		if _, why, err := s.store.Issue(s.ctx, one(again)); err != nil || why != grants.None {
			s.Errorf("issue in between: %v, %v", why, err)
		}
	})
	if total.Load() != limit { // 200 draws of 7 want more than there is
		s.Errorf("all draws together gave %d; want the limit, %d", total.Load(), limit)
	}
	s.drawn(b.Key, 1, 0)
}

// endedContext holds that no call answers for a caller who has gone.
func (s *suite) endedContext() {
	task := s.open(newTask())
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if rev, why, err := s.store.Start(ctx, newTask()); err == nil {
		s.Errorf("start: %v, %v; want an error", rev, why)
	}
	if rev, why, err := s.store.Issue(ctx, one(newGrant(task))); err == nil {
		s.Errorf("issue: %v, %v; want an error", rev, why)
	}
	if rev, err := s.store.Fence(ctx, grants.Fence{Scope: grants.ScopeTask, Key: task.ID}); err == nil {
		s.Errorf("fence: %v; want an error", rev)
	}
	if got, err := s.store.Draw(ctx, "task/", 1); err == nil || got != 0 {
		s.Errorf("draw: %d, %v; want an error", got, err)
	}
}
