// Package grantstest holds what each implementation of grants.Store must do:
// one suite, run against the real Store, with real concurrency. A Store that
// passes it may stand behind the two doors.
package grantstest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// patience bounds every wait; a Store that needs longer has hung.
const patience = 30 * time.Second

// Run runs the suite. open returns an empty Store that no other test uses and
// that holds at least 1,000 tasks and 10,000 grants; it closes it with
// t.Cleanup. Times are the machine's own.
func Run(t *testing.T, open func(t *testing.T) grants.Store) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"Start", (*suite).start},
		{"IssueAgain", (*suite).issueAgain},
		{"IssueAgainEveryField", (*suite).issueAgainEveryField},
		{"IssueAllOrNone", (*suite).issueAllOrNone},
		{"IssueMalformed", (*suite).issueMalformed},
		{"IssueTask", (*suite).issueTask},
		{"TaskEnded", (*suite).taskEnded},
		{"IssueParents", (*suite).issueParents},
		{"IssueFences", (*suite).issueFences},
		{"IssueView", (*suite).issueView},
		{"FenceTwice", (*suite).fenceTwice},
		{"Budgets", (*suite).budgets},
		{"BudgetsConcurrent", (*suite).budgetsConcurrent},
		{"Renew", (*suite).renew},
		{"RenewChain", (*suite).renewChain},
		{"RenewForgotten", (*suite).renewForgotten},
		{"RenewConcurrent", (*suite).renewConcurrent},
		{"Draw", (*suite).draw},
		{"DrawConcurrent", (*suite).drawConcurrent},
		{"EndedContext", (*suite).endedContext},
		{"WatchState", (*suite).watchState},
		{"WatchConcurrent", (*suite).watchConcurrent},
		{"WatchResume", (*suite).watchResume},
		{"WatchTools", (*suite).watchTools},
		{"WatchBudgets", (*suite).watchBudgets},
		{"WatchHeartbeat", (*suite).watchHeartbeat},
		{"WatchEnd", (*suite).watchEnd},
		{"WatchSlow", (*suite).watchSlow},
		{"Linearizable", (*suite).linearizable},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.test(&suite{T: t, store: open(t), ctx: ctx})
		})
	}
}

type suite struct {
	*testing.T
	store grants.Store
	ctx   context.Context
}

const tool = "github/merge_pr"

func newTask() grants.Task {
	return grants.Task{
		ID: grants.NewID(grants.TaskPrefix), Kind: "release",
		Owner:  grants.Principal{Issuer: "idp", Subject: "olga", Groups: []string{"orchestrators"}, Tags: map[string]string{"team": "ci"}},
		Agents: []string{"idp/bot"},
		// Its bytes matter, because digests are made of them: blanks stay
		// blanks, and < stays <.
		Params:   json.RawMessage(`{"repo": "a<b&c>d",  "n": 1}`),
		Deadline: time.Now().Add(time.Hour), Beat: time.Minute,
	}
}

func newGrant(task grants.Task) grants.Grant {
	return grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: task.ID,
		Agent:     grants.Principal{Issuer: "idp", Subject: "bot", Groups: []string{"ci"}},
		Requester: task.Owner, Client: "runner", Identity: grants.Digest{1}, Tool: tool,
		Pin: grants.Digest{2}, CNF: grants.Digest{3}, Policy: grants.Digest{4},
		NotBefore:   time.Now(),
		Expires:     time.Now().Add(10 * time.Minute),
		Constraints: []json.RawMessage{json.RawMessage(`{"type": "string", "pattern": "^(?:a<b)$"}`)},
	}
}

// child is a grant that p delegates to another agent.
func child(p grants.Grant) grants.Grant {
	g := p
	g.ID, g.Parent, g.Rev = grants.NewID(grants.GrantPrefix), p.ID, grants.Rev{}
	g.Agent = grants.Principal{Issuer: "idp", Subject: "helper"}
	g.Actors = append(append([]string{}, p.Actors...), p.Agent.ID())
	return g
}

// open starts a task that must be accepted.
func (s *suite) open(task grants.Task) grants.Task {
	s.Helper()
	rev, why, err := s.store.Start(s.ctx, task)
	if err != nil || why != grants.None || rev == (grants.Rev{}) {
		s.Fatalf("start: %v, %v, %v; want a revision", rev, why, err)
	}
	task.Rev = rev
	return task
}

// issue writes grants that must be accepted.
func (s *suite) issue(batch ...grants.Grant) grants.Rev {
	s.Helper()
	rev, why, err := s.store.Issue(s.ctx, batch)
	if err != nil || why != grants.None || rev == (grants.Rev{}) {
		s.Fatalf("issue: %v, %v, %v; want a revision", rev, why, err)
	}
	return rev
}

// refuse issues grants that must be refused, for one of the reasons.
func (s *suite) refuse(what string, batch []grants.Grant, reasons ...grants.Reason) {
	s.Helper()
	rev, why, err := s.store.Issue(s.ctx, batch)
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
	for _, r := range reasons {
		if why == r && rev == (grants.Rev{}) {
			return
		}
	}
	s.Errorf("%s: %v, %v; want a refusal, %v", what, rev, why, reasons)
}

func one(g grants.Grant) []grants.Grant { return []grants.Grant{g} }

func (s *suite) fence(scope grants.Scope, key string) grants.Rev {
	s.Helper()
	rev, err := s.store.Fence(s.ctx, grants.Fence{Scope: scope, Key: key, Why: grants.Revoked, Until: time.Now().Add(time.Hour)})
	if err != nil || rev == (grants.Rev{}) {
		s.Fatalf("fence on %s %s: %v, %v; want a revision", scope, key, rev, err)
	}
	return rev
}

// after fails unless b is later than a in the same history.
func (s *suite) after(a, b grants.Rev) {
	s.Helper()
	if a.Epoch != b.Epoch || b.N <= a.N {
		s.Errorf("revision %v does not come after %v", b, a)
	}
}

// waitUntil returns once the wall clock has passed at.
func (s *suite) waitUntil(at time.Time) {
	s.Helper()
	for time.Now().Before(at) {
		select {
		case <-time.After(time.Until(at)):
		case <-s.ctx.Done():
			s.Fatal(s.ctx.Err())
		}
	}
}

func (s *suite) start() {
	task := newTask()
	first := s.open(task)
	again := task
	again.Rev = grants.Rev{Epoch: 1, N: 2} // ignored
	again.Deadline = task.Deadline.Round(0).UTC()
	if got := s.open(again).Rev; got != first.Rev {
		s.Errorf("the same again: revision %v; want the first, %v", got, first.Rev)
	}
	for what, change := range map[string]func(*grants.Task){
		"kind":     func(t *grants.Task) { t.Kind = "other" },
		"owner":    func(t *grants.Task) { t.Owner.Subject = "eve" },
		"groups":   func(t *grants.Task) { t.Owner.Groups = []string{"admins"} },
		"tags":     func(t *grants.Task) { t.Owner.Tags = map[string]string{"team": "x"} },
		"agents":   func(t *grants.Task) { t.Agents = []string{"idp/bot", "idp/eve"} },
		"params":   func(t *grants.Task) { t.Params = json.RawMessage(`{}`) },
		"deadline": func(t *grants.Task) { t.Deadline = t.Deadline.Add(1) },
		"beat":     func(t *grants.Task) { t.Beat = 0 },
	} {
		other := task
		change(&other)
		if rev, why, err := s.store.Start(s.ctx, other); err != nil || why != grants.Conflict || rev != (grants.Rev{}) {
			s.Errorf("the same id, another %s: %v, %v, %v; want %v", what, rev, why, err, grants.Conflict)
		}
	}
	second := s.open(newTask())
	s.after(first.Rev, second.Rev)

	// What the caller does to its slices later is not the Store's.
	task.Agents[0] = "idp/eve"
	task.Agents = []string{"idp/bot"}
	if got := s.open(task).Rev; got != first.Rev {
		s.Errorf("the same again, from other slices: revision %v; want the first, %v", got, first.Rev)
	}

	early, late, odd := newTask(), newTask(), newTask()
	s.fence(grants.ScopeTask, early.ID)
	late.Deadline = time.Now()
	odd.ID = "t_1"
	for _, c := range []struct {
		what string
		task grants.Task
		want grants.Reason
	}{
		{"ended before its start", early, grants.TaskEnded},
		{"a deadline that has passed", late, grants.BadTTL},
		{"no task id", odd, grants.BadRequest},
	} {
		if rev, why, err := s.store.Start(s.ctx, c.task); err != nil || why != c.want || rev != (grants.Rev{}) {
			s.Errorf("%s: %v, %v, %v; want %v", c.what, rev, why, err, c.want)
		}
	}
}

func (s *suite) issueAgain() {
	task := s.open(newTask())
	g := newGrant(task)
	g.Actors = []string{"idp/root"}
	first := s.issue(g)
	s.after(task.Rev, first)

	again := g
	again.Rev = first // decided on a newer view: the same grant
	again.NotBefore, again.Expires = g.NotBefore.Round(0).UTC(), g.Expires.Round(0).UTC()
	again.Actors = []string{"idp/root"}
	again.Constraints = []json.RawMessage{json.RawMessage(string(g.Constraints[0]))}
	g.Actors[0], g.Constraints[0][0] = "idp/eve", '['
	if got := s.issue(again); got != first {
		s.Errorf("the same again: revision %v; want the first, %v", got, first)
	}

	a, b, c := newGrant(task), newGrant(task), newGrant(task)
	pair := s.issue(a, b)
	if got := s.issue(a, b); got != pair {
		s.Errorf("the same two again: revision %v; want the first, %v", got, pair)
	}
	s.refuse("one that is there, one that is not", []grants.Grant{a, c}, grants.Conflict)
	s.issue(c) // it was not written
	s.refuse("of two batches", []grants.Grant{a, again}, grants.Conflict)
}

func (s *suite) issueAgainEveryField() {
	task := s.open(newTask())
	p := newGrant(task)
	s.issue(p)
	g := child(p)
	g.Budgets = []grants.Budget{{Key: grants.GrantBudget(g.ID, ""), Limit: 3}}
	s.issue(g)
	for what, change := range map[string]func(*grants.Grant){
		"task":        func(g *grants.Grant) { g.Task = s.open(newTask()).ID },
		"parent":      func(g *grants.Grant) { g.Parent = "" },
		"renews":      func(g *grants.Grant) { g.Renews = p.ID },
		"agent":       func(g *grants.Grant) { g.Agent.Subject = "eve" },
		"groups":      func(g *grants.Grant) { g.Agent.Groups = []string{"admins"} },
		"actors":      func(g *grants.Grant) { g.Actors = nil },
		"requester":   func(g *grants.Grant) { g.Requester.Subject = "eve" },
		"client":      func(g *grants.Grant) { g.Client = "" },
		"identity":    func(g *grants.Grant) { g.Identity = grants.Digest{9} },
		"tool":        func(g *grants.Grant) { g.Tool = "github/get_pr" },
		"pin":         func(g *grants.Grant) { g.Pin = grants.Digest{9} },
		"cnf":         func(g *grants.Grant) { g.CNF = grants.Digest{} },
		"not before":  func(g *grants.Grant) { g.NotBefore = g.NotBefore.Add(-1) },
		"expires":     func(g *grants.Grant) { g.Expires = g.Expires.Add(-1) },
		"constraints": func(g *grants.Grant) { g.Constraints = nil },
		"a blank": func(g *grants.Grant) {
			g.Constraints = []json.RawMessage{[]byte(`{"type":"string","pattern":"^(?:a<b)$"}`)}
		},
		"budgets": func(g *grants.Grant) { g.Budgets = nil },
		"limit":   func(g *grants.Grant) { g.Budgets = []grants.Budget{{Key: g.Budgets[0].Key, Limit: 4}} },
		"policy":  func(g *grants.Grant) { g.Policy = grants.Digest{9} },
	} {
		other := g
		change(&other)
		s.refuse("the same id, another "+what, one(other), grants.Conflict)
	}
}

func (s *suite) issueAllOrNone() {
	task, ended := s.open(newTask()), s.open(newTask())
	s.fence(grants.ScopeTask, ended.ID)
	fenced := newGrant(task)
	s.fence(grants.ScopeGrant, fenced.ID)
	long, orphan, poor := newGrant(task), newGrant(task), newGrant(task)
	long.Expires = task.Deadline.Add(1)
	orphan.Parent = grants.NewID(grants.GrantPrefix)
	rich := newGrant(task)
	rich.Tool, poor.Tool = "github/pay", "github/pay"
	rich.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, rich.Tool, ""), Limit: 5}}
	s.issue(rich)

	for what, bad := range map[string]grants.Grant{
		"an ended task": newGrant(ended), "a fence": fenced, "a window": long, "a parent": orphan, "a budget": poor,
	} {
		for _, badFirst := range []bool{false, true} {
			good := newGrant(task)
			good.Budgets = []grants.Budget{{Key: grants.GrantBudget(good.ID, ""), Limit: 5}}
			batch := []grants.Grant{good, bad}
			if badFirst {
				batch = []grants.Grant{bad, good}
			}
			if _, why, err := s.store.Issue(s.ctx, batch); err != nil || why == grants.None {
				s.Errorf("%s in a batch: %v, %v; want a refusal", what, why, err)
			}
			if got, err := s.store.Draw(s.ctx, good.Budgets[0].Key, 1); err != nil || got != 0 {
				s.Errorf("%s in a batch: the other's budget gives %d, %v; want 0", what, got, err)
			}
			good.Client = "another content" // a Conflict, had it been written
			s.issue(good)
		}
	}
}

func (s *suite) issueMalformed() {
	task := s.open(newTask())
	g := newGrant(task)
	with := func(change func(*grants.Grant)) []grants.Grant {
		g := newGrant(task)
		change(&g)
		return one(g)
	}
	var many []grants.Grant
	for range grants.MaxBatch + 1 {
		many = append(many, newGrant(task))
	}
	for _, c := range []struct {
		what  string
		batch []grants.Grant
		want  grants.Reason
	}{
		{"nothing", nil, grants.BadRequest},
		{"the same twice", []grants.Grant{g, g}, grants.BadRequest},
		{"too many", many, grants.Limit},
		{"no id", with(func(g *grants.Grant) { g.ID = "" }), grants.BadRequest},
		{"a task's id", with(func(g *grants.Grant) { g.ID = task.ID }), grants.BadRequest},
		{"no agent", with(func(g *grants.Grant) { g.Agent = grants.Principal{} }), grants.BadRequest},
		{"no tool", with(func(g *grants.Grant) { g.Tool = "" }), grants.BadRequest},
		{"an empty window", with(func(g *grants.Grant) { g.NotBefore = g.Expires }), grants.BadTTL},
		{"a window in the past", with(func(g *grants.Grant) {
			g.NotBefore, g.Expires = time.Now().Add(-2*time.Second), time.Now().Add(-time.Second)
		}), grants.BadTTL},
		{"a negative limit", with(func(g *grants.Grant) {
			g.Budgets = []grants.Budget{{Key: grants.GrantBudget(g.ID, ""), Limit: -1}}
		}), grants.BadRequest},
		{"one budget twice", with(func(g *grants.Grant) {
			b := grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 1}
			g.Budgets = []grants.Budget{b, b}
		}), grants.BadRequest},
		{"too many budgets", with(func(g *grants.Grant) {
			for i := range grants.MaxBudgets + 1 {
				arg := "/" + string(rune('a'+i))
				g.Budgets = append(g.Budgets, grants.Budget{Key: grants.GrantBudget(g.ID, arg), Arg: arg, Limit: 1})
			}
		}), grants.Limit},
		{"another task's budget", with(func(g *grants.Grant) {
			g.Budgets = []grants.Budget{{Key: grants.TaskBudget(grants.NewID(grants.TaskPrefix), tool, ""), Limit: 1}}
		}), grants.BadRequest},
		{"a budget whose key names another argument", with(func(g *grants.Grant) {
			g.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, tool, "/a"), Arg: "/b", Limit: 1}}
		}), grants.BadRequest},
	} {
		s.refuse(c.what, c.batch, c.want)
	}
	if rev, err := s.store.Fence(s.ctx, grants.Fence{Scope: "everything", Key: "x"}); err == nil {
		s.Errorf("a fence of an unknown scope: %v; want an error", rev)
	}
	if rev, err := s.store.Fence(s.ctx, grants.Fence{Scope: grants.ScopeTool}); err == nil {
		s.Errorf("a fence on nothing: %v; want an error", rev)
	}
}

// each runs f n times at once and waits for all.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
