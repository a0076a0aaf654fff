package grants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/strictjson"
)

// feed is a Store of which a Table sees only what a test puts in.
type feed struct {
	Store
	events chan Event
	breaks chan error
}

func (f *feed) Watch(ctx context.Context, _ Rev, _ []string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			select {
			case ev := <-f.events:
				if !yield(ev, nil) {
					return
				}
			case err := <-f.breaks:
				yield(Event{}, err)
				return
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
				return
			}
		}
	}
}

// clock is one that a test sets.
type clock struct{ wall, mono atomic.Int64 }

func (c *clock) read() (time.Time, time.Duration) {
	return time.Unix(0, c.wall.Load()), time.Duration(c.mono.Load())
}

func (c *clock) pass(d time.Duration) { c.wall.Add(int64(d)); c.mono.Add(int64(d)) }

// rig is a Table with its feed, clock and a budget to draw from.
type rig struct {
	*Table
	t     *testing.T
	feed  *feed
	clock *clock
	n     uint64
	pool  sync.Map // budget key -> *atomic.Int64
}

var epoch = time.Unix(1_800_000_000, 0)

func newRig(t *testing.T) *rig {
	r := &rig{t: t, feed: &feed{events: make(chan Event), breaks: make(chan error)}, clock: &clock{}}
	r.clock.wall.Store(epoch.UnixNano())
	r.Table = NewTable(TableConfig{Draw: r.draw, Clock: r.clock.read})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Follow(ctx, r.feed, nil) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *rig) draw(_ context.Context, key string, want int64) (int64, error) {
	v, ok := r.pool.Load(key)
	if !ok {
		return 0, nil
	}
	left := v.(*atomic.Int64)
	for {
		have := left.Load()
		got := min(have, want)
		if got <= 0 {
			return 0, nil
		}
		if left.CompareAndSwap(have, have-got) {
			return got, nil
		}
	}
}

// put feeds one event and waits until the table has it.
func (r *rig) put(ev Event) {
	r.t.Helper()
	r.send(ev)
	r.beat()
}

func (r *rig) send(ev Event) {
	r.n++
	ev.Rev = Rev{1, r.n}
	switch {
	case ev.Task != nil:
		ev.Task.Rev = ev.Rev
	case ev.Grant != nil:
		ev.Grant.Rev = ev.Rev
	case ev.Fence != nil:
		ev.Fence.Rev = ev.Rev
	}
	r.feed.events <- ev
}

// beat sends a heartbeat and waits until it has been taken in.
func (r *rig) beat() {
	r.t.Helper()
	r.n++
	r.feed.events <- Event{Rev: Rev{1, r.n}}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Wait(ctx, Rev{1, r.n}); err != nil {
		r.t.Fatal(err)
	}
}

// swept waits for the sweep that is due: it comes after the first heartbeat has
// been taken in, and before the second.
func (r *rig) swept() {
	r.t.Helper()
	r.beat()
	r.beat()
}

func (r *rig) task(deadline time.Duration) *Task {
	wall, _ := r.clock.read()
	t := &Task{ID: NewID(TaskPrefix), Kind: "k", Agents: []string{"corp/a"}, Deadline: wall.Add(deadline)}
	r.put(Event{Task: t})
	return t
}

func (r *rig) grant(task *Task, ttl time.Duration, change ...func(*Grant)) *Grant {
	wall, _ := r.clock.read()
	g := &Grant{
		ID: NewID(GrantPrefix), Task: task.ID, Agent: Principal{Issuer: "corp", Subject: "a"},
		Tool: "srv/tool", NotBefore: wall, Expires: wall.Add(ttl),
	}
	for _, f := range change {
		f(g)
	}
	r.put(Event{Grant: g})
	return g
}

func (r *rig) fence(s Scope, key string, why Reason) {
	r.put(Event{Fence: &Fence{Scope: s, Key: key, Why: why, Until: epoch.Add(time.Hour)}})
}

func (r *rig) want(g *Grant, want Reason) {
	r.t.Helper()
	if _, got := r.Lookup(g.ID); got != want {
		r.t.Fatalf("Lookup: %v, want %v", got, want)
	}
}

func TestFencesKillWhatTheyMatch(t *testing.T) {
	for _, tc := range []struct {
		scope Scope
		key   func(*Grant) string
		why   Reason
		later Reason // what a grant is that is written after the fence
	}{
		{ScopeGrant, func(g *Grant) string { return g.ID }, Superseded, None},
		{ScopeTask, func(g *Grant) string { return g.Task }, TaskEnded, TaskEnded},
		{ScopeAgent, func(g *Grant) string { return g.Agent.ID() }, Revoked, None},
		{ScopeTool, func(g *Grant) string { return g.Tool }, Revoked, None},
	} {
		t.Run(string(tc.scope), func(t *testing.T) {
			r := newRig(t)
			task := r.task(time.Hour)
			g := r.grant(task, time.Minute)
			bystander := r.grant(r.task(time.Hour), time.Minute, func(g *Grant) {
				g.Tool, g.Agent.Subject = "srv/other", "b"
			})
			live, why := r.Lookup(g.ID)
			if why != None {
				t.Fatal(why)
			}
			r.fence(tc.scope, tc.key(g), tc.why)
			r.want(g, tc.why)
			if why := r.Still(live); why != tc.why {
				t.Fatalf("Still: %v", why)
			}
			r.want(bystander, None)
			r.want(r.grant(task, time.Minute), tc.later)
		})
	}
}

// TestFenceBeforeItsGrant: in a first state a fence may come before what it
// kills, and before what it does not.
func TestFenceBeforeItsGrant(t *testing.T) {
	r := newRig(t)
	r.clock.pass(time.Hour)
	now, _ := r.clock.read()
	ended, task := &Task{ID: NewID(TaskPrefix), Deadline: now.Add(time.Hour)}, &Task{ID: NewID(TaskPrefix), Deadline: now.Add(time.Hour)}
	grant := func(agent, tool string) *Grant {
		return &Grant{
			ID: NewID(GrantPrefix), Task: task.ID, Agent: Principal{Issuer: "corp", Subject: agent}, Tool: tool,
			NotBefore: now, Expires: now.Add(time.Minute),
		}
	}
	self, agent, tool := grant("a", "srv/a"), grant("b", "srv/a"), grant("a", "srv/b")
	sent := []*Grant{self, agent, tool}
	r.n = 100 // the grants have earlier revisions than the fences
	for _, f := range []Fence{{Scope: ScopeGrant, Key: self.ID}, {Scope: ScopeAgent, Key: "corp/b"}, {Scope: ScopeTool, Key: "srv/b"}, {Scope: ScopeTask, Key: ended.ID}} {
		f.Why, f.Until = ToolChanged, now.Add(time.Hour)
		r.send(Event{Fence: &f})
	}
	r.n = 0
	r.send(Event{Task: ended})
	r.send(Event{Task: task})
	for _, g := range sent {
		r.send(Event{Grant: g})
	}
	r.n = 200
	newer := grant("b", "srv/b")
	r.send(Event{Grant: newer})
	r.beat()
	for _, g := range sent {
		r.want(g, ToolChanged)
	}
	r.want(newer, None)
	if _, why := r.Task(ended.ID); why != TaskEnded {
		t.Fatalf("task: %v", why)
	}
	later := grant("b", "srv/b")
	r.put(Event{Grant: later})
	r.want(later, None)
	r.clock.pass(sweepRound)
	r.swept()
	if _, why := r.Task(ended.ID); why != TaskEnded {
		t.Fatalf("task, after a sweep: %v", why)
	}
}

// TestFencesOnNothingAreNotKept: names that no grant here has, fenced one after
// another, take no memory, and neither does what the swept ones pointed to.
func TestFencesOnNothingAreNotKept(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	g := r.grant(task, time.Minute)
	for _, s := range []Scope{ScopeAgent, ScopeTool, ScopeGrant, ScopeTask} {
		for i := range 100 {
			r.send(Event{Fence: &Fence{Scope: s, Key: fmt.Sprint("corp/", i), Why: Revoked, Until: epoch.Add(time.Hour)}})
		}
	}
	r.beat()
	v := r.view.Load()
	if len(v.marks) != 2 || len(v.early) != 0 { // of the grant's agent and tool
		t.Errorf("%d marks and %d early fences", len(v.marks), len(v.early))
	}
	r.want(g, None)
	r.clock.pass(5 * time.Minute)
	r.swept()
	r.want(g, UnknownGrant)
	if len(v.marks) != 0 {
		t.Errorf("%d marks of swept grants", len(v.marks))
	}
}

func TestTheEarlierClockEndsIt(t *testing.T) {
	step := func(wall, mono time.Duration) func(*clock) {
		return func(c *clock) { c.wall.Add(int64(wall)); c.mono.Add(int64(mono)) }
	}
	for _, tc := range []struct {
		name string
		step func(*clock)
		want Reason
	}{
		{"just before", step(60*time.Second-1, 60*time.Second-1), None},
		{"at the end", step(60*time.Second, 60*time.Second), Expired},
		{"wall clock set ahead", step(time.Hour/2, 0), Expired},
		{"wall clock set back", step(-time.Hour, 60*time.Second), Expired},
		{"wall clock frozen", step(0, 60*time.Second), Expired},
		{"machine slept: mono stood still", step(60*time.Second, 0), Expired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			g := r.grant(r.task(time.Hour), time.Minute)
			tc.step(r.clock)
			r.beat()
			if tc.want == None {
				r.want(g, None)
				return
			}
			r.want(g, tc.want)
		})
	}
}

func TestTaskDeadlineEndsItsGrants(t *testing.T) {
	r := newRig(t)
	task := r.task(30 * time.Second)
	g := r.grant(task, time.Minute)
	r.clock.pass(30 * time.Second)
	r.beat()
	r.want(g, TaskEnded)
	if _, why := r.Task(task.ID); why != TaskEnded {
		t.Fatalf("task: %v", why)
	}
}

func TestNotYet(t *testing.T) {
	r := newRig(t)
	g := r.grant(r.task(time.Hour), time.Minute, func(g *Grant) { g.NotBefore = g.NotBefore.Add(MaxAhead + 1) })
	r.want(g, NotYet)
	r.clock.pass(time.Second)
	r.want(g, None)
}

func TestSilentStoreDenies(t *testing.T) {
	for name, step := range map[string]func(*clock){
		"time passes":           func(c *clock) { c.pass(DefaultMaxStaleness + 1) },
		"the machine has slept": func(c *clock) { c.wall.Add(int64(DefaultMaxStaleness + 1)) },
		"the wall clock stands": func(c *clock) { c.mono.Add(int64(DefaultMaxStaleness + 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			g := r.grant(r.task(time.Hour), time.Minute)
			live, _ := r.Lookup(g.ID)
			step(r.clock)
			r.want(g, NotFresh)
			if why := r.Still(live); why != NotFresh {
				t.Fatalf("Still: %v", why)
			}
			if _, why := r.Task(g.Task); why != NotFresh {
				t.Fatalf("Task: %v", why)
			}
			r.beat()
			r.want(g, None)
		})
	}
}

// TestOneIssueIsSeenWhole: the grants of one Issue share a Rev; who waits for it
// must find all of them.
func TestOneIssueIsSeenWhole(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	var gs []*Grant
	for range 2 {
		gs = append(gs, &Grant{ID: NewID(GrantPrefix), Task: task.ID, Agent: Principal{Issuer: "corp", Subject: "a"}, Tool: "srv/tool", NotBefore: epoch, Expires: epoch.Add(time.Minute), Rev: Rev{1, 10}})
	}
	r.feed.events <- Event{Rev: Rev{1, 10}, Grant: gs[0]}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Wait(ctx, Rev{1, 10}); err == nil {
		t.Fatal("the second grant of the Issue is not here yet")
	}
	r.feed.events <- Event{Rev: Rev{1, 10}, Grant: gs[1]}
	r.n = 10
	r.beat()
	r.want(gs[0], None)
	r.want(gs[1], None)
}

func TestEndingAParentEndsItsChildren(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	parent := r.grant(task, time.Minute)
	child := r.grant(task, 30*time.Second, func(g *Grant) { g.Parent = parent.ID })
	grandchild := r.grant(task, 30*time.Second, func(g *Grant) { g.Parent = child.ID })
	orphan := r.grant(task, 30*time.Second, func(g *Grant) { g.Parent = NewID(GrantPrefix) })
	r.want(orphan, UnknownGrant)
	r.want(grandchild, None)
	r.fence(ScopeGrant, child.ID, Superseded)
	r.want(grandchild, Superseded)
	r.want(parent, None)
	r.fence(ScopeGrant, parent.ID, Revoked)
	r.want(child, Superseded)
}

// TestOnlyHeartbeatsAreFresh: a stream that lags still brings events.
func TestOnlyHeartbeatsAreFresh(t *testing.T) {
	r := newRig(t)
	g := r.grant(r.task(time.Hour), time.Minute)
	r.clock.pass(DefaultMaxStaleness + 1)
	r.send(Event{Task: &Task{ID: NewID(TaskPrefix), Deadline: epoch.Add(time.Hour)}})
	r.send(Event{Task: &Task{ID: NewID(TaskPrefix), Deadline: epoch.Add(time.Hour)}}) // the first one has been taken in
	r.want(g, NotFresh)
	r.beat()
	r.want(g, None)
}

func TestEmptyTableDenies(t *testing.T) {
	table := NewTable(TableConfig{})
	if _, why := table.Lookup(NewID(GrantPrefix)); why != NotFresh {
		t.Fatalf("before the first state: %v", why)
	}
}

// TestNewViewCountsOn: a view that is built anew, after the wall clock was set
// back, must not count a deadline from the beginning.
func TestNewViewCountsOn(t *testing.T) {
	for _, tc := range []struct {
		name      string
		task, ttl time.Duration
		want      Reason
	}{
		{"of a grant", time.Hour, time.Minute, Expired},
		{"of a task", time.Minute, time.Hour, TaskEnded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			task := r.task(tc.task)
			g := r.grant(task, tc.ttl)
			live, _ := r.Lookup(g.ID)
			r.clock.wall.Add(int64(-3 * time.Second))
			r.feed.breaks <- errors.New("connection lost")
			r.n = 0
			copyT, copyG := *task, *g
			r.send(Event{Task: &copyT})
			r.send(Event{Grant: &copyG})
			r.n += 10
			r.beat()
			r.want(g, None)
			r.clock.pass(time.Minute)
			r.beat()
			r.want(g, tc.want)

			// The record in hand is of the old view; a fence reaches it all the same.
			r.clock.pass(-30 * time.Second)
			r.fence(ScopeGrant, g.ID, Revoked)
			if why := r.Still(live); why == None {
				t.Fatal("a fenced grant still lives for who looked it up before")
			}
		})
	}
}

// TestSweptDoesNotComeBack: a grant that ended, and was swept, is in the Store
// still (it carries its task's budget); a new view, built after the wall clock
// was set back, must not take it for live.
func TestSweptDoesNotComeBack(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	g := r.grant(task, time.Minute)
	r.clock.pass(5 * time.Minute)
	r.swept()
	r.want(g, UnknownGrant)
	r.clock.wall.Add(int64(-5*time.Minute + 2*time.Second))
	r.feed.breaks <- errors.New("connection lost")
	r.n = 0
	copyT, copyG := *task, *g
	r.send(Event{Task: &copyT})
	r.send(Event{Grant: &copyG})
	later := Grant{ID: NewID(GrantPrefix), Task: task.ID, Agent: g.Agent, Tool: g.Tool, NotBefore: epoch, Expires: epoch.Add(10 * time.Minute)}
	r.send(Event{Grant: &later})
	r.n += 10
	r.beat()
	if _, why := r.Lookup(g.ID); why == None {
		t.Fatal("live again, minutes after its end")
	}
	r.want(&later, None)
	// A grant that comes once the view is in place is counted by today's clock.
	r.want(r.grant(task, time.Minute), None)
}

// TestATooDearCallHidesNothing: while it finds out that too little is left, the
// others spend what there is.
func TestATooDearCallHidesNothing(t *testing.T) {
	p := &purse{key: "k"}
	p.left.Store(2)
	in, out := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = p.take(t.Context(), 5, func(context.Context, string, int64) (int64, error) {
			close(in)
			<-out
			return 0, nil
		})
	}()
	<-in
	none := func(context.Context, string, int64) (int64, error) { return 0, nil }
	for range 2 {
		if why, err := p.take(t.Context(), 1, none); why != None || err != nil {
			t.Error(why, err)
		}
	}
	close(out)
}

func TestWhatIsGoneFromTheStoreIsGone(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	g := r.grant(task, time.Minute)
	r.feed.breaks <- errors.New("connection lost")
	r.send(Event{Task: task})
	r.beat()
	r.want(g, UnknownGrant)
}

func TestUnreadableGrantIsNotLive(t *testing.T) {
	r := newRig(t)
	g := r.grant(r.task(time.Hour), time.Minute, func(g *Grant) {
		g.Constraints = []json.RawMessage{json.RawMessage(`{"type":"object","propertys":{}}`)}
	})
	r.want(g, UnknownGrant)
	many := r.grant(r.task(time.Hour), time.Minute, func(g *Grant) {
		for i := range MaxBudgets + 1 {
			g.Budgets = append(g.Budgets, Budget{Key: fmt.Sprint("grant/x", i), Limit: 1})
		}
	})
	r.want(many, UnknownGrant)
}

func TestSweepForgetsAndLaterFencesStillBite(t *testing.T) {
	r := newRig(t)
	short := r.grant(r.task(time.Minute), 30*time.Second)
	ended := r.grant(r.task(time.Hour), 30*time.Minute)
	r.fence(ScopeTask, ended.Task, TaskEnded)
	r.want(ended, TaskEnded)
	long := r.grant(r.task(time.Hour), 30*time.Minute)
	r.clock.pass(5 * time.Minute) // beyond forgetAfter; the heartbeat sweeps
	r.swept()
	r.want(short, UnknownGrant)
	r.want(ended, UnknownGrant)
	if c := r.Counts(); c.Grants != 1 || c.Tasks != 1 {
		t.Fatalf("counts %+v", c)
	}
	r.want(long, None)
	r.fence(ScopeAgent, "corp/a", Revoked)
	r.want(long, Revoked)
}

func (r *rig) fund(key string, n int64) {
	left := &atomic.Int64{}
	left.Store(n)
	r.pool.Store(key, left)
}

func TestBudgetOfOne(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	key := TaskBudget(task.ID, "srv/tool", "")
	g := r.grant(task, time.Minute, func(g *Grant) { g.Budgets = []Budget{{Key: key, Limit: 1}} })
	r.fund(key, 1)
	live, _ := r.Lookup(g.ID)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, why, err := r.Spend(t.Context(), live, nil); why == None && err == nil {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 1 {
		t.Fatalf("%d of 100 calls ran on a budget of one", allowed.Load())
	}
}

func TestSpendIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	calls, sum := TaskBudget(task.ID, "srv/tool", ""), TaskBudget(task.ID, "srv/tool", "/amount")
	g := r.grant(task, time.Minute, func(g *Grant) {
		g.Budgets = []Budget{{Key: calls, Limit: 2}, {Key: sum, Arg: "/amount", Limit: 100_0000}}
	})
	r.fund(calls, 2)
	r.fund(sum, 100_0000)
	live, _ := r.Lookup(g.ID)
	spend := func(amount any) (Spent, Reason) {
		s, why, err := r.Spend(t.Context(), live, map[string]any{"amount": amount})
		if err != nil {
			t.Fatal(err)
		}
		return s, why
	}
	for _, bad := range []any{strictjson.Number("-1"), strictjson.Number("0.00001"), "5", nil} {
		if s, why := spend(bad); why != ConstraintBroken || s.Refused == nil || s.Refused.Key != sum {
			t.Fatalf("amount %v: %v by %v", bad, why, s.Refused)
		}
	}
	if s, why := spend(strictjson.Number("100.0001")); why != BudgetSpent || s.Refused == nil || s.Refused.Key != sum {
		t.Fatalf("over the sum: %v by %v", why, s.Refused)
	}
	s, why := spend(strictjson.Number("60"))
	if why != None || s.Refused != nil {
		t.Fatal(why, s.Refused)
	}
	if _, why := spend(strictjson.Number("60")); why != BudgetSpent {
		t.Fatalf("over what is left: %v", why)
	}
	s.GiveBack()
	s.GiveBack() // no second refund
	if _, why := spend(strictjson.Number("100")); why != None {
		t.Fatalf("after giving back: %v", why)
	}
	if _, why := spend(strictjson.Number("0")); why != None {
		t.Fatalf("second call, of nothing: %v", why)
	}
	if s, why := spend(strictjson.Number("0")); why != BudgetSpent || s.Refused == nil || s.Refused.Key != calls {
		t.Fatalf("third call of two: %v by %v", why, s.Refused)
	}
}

// TestRenewalsShareTheirPurse: what this node has drawn and not spent of a
// grant's own budget is there for the grants that renew it, when that grant is
// long swept; and a chain of them refills nothing.
func TestRenewalsShareTheirPurse(t *testing.T) {
	r := newRig(t)
	task := r.task(100 * time.Hour)
	var b Budget
	g := r.grant(task, 10*time.Minute, func(g *Grant) {
		b = Budget{Key: GrantBudget(g.ID, ""), Limit: 3}
		g.Budgets = []Budget{b, {Key: TaskBudget(task.ID, g.Tool, ""), Limit: 10}}
	})
	r.fund(b.Key, 3)
	r.fund(g.Budgets[1].Key, 10)
	spend := func(want Reason) Spent {
		t.Helper()
		live, why := r.Lookup(g.ID)
		if why != None {
			t.Fatal(why)
		}
		s, why, err := r.Spend(t.Context(), live, nil)
		if why != want || err != nil {
			t.Fatalf("%v, %v; want %v", why, err, want)
		}
		return s
	}
	for i := range 100 {
		old := g
		g = r.grant(task, 10*time.Minute, func(g *Grant) { g.Budgets, g.Renews = old.Budgets, old.ID })
		r.fence(ScopeGrant, old.ID, Superseded)
		r.want(old, Superseded)
		if i < 3 {
			s := spend(None)
			if i == 1 {
				s.GiveBack() // it stays in this node's purse
			}
		}
		r.clock.pass(9 * time.Minute) // the next heartbeat sweeps what came before
		r.swept()
		if n := r.Counts().Grants; n > 2 {
			t.Fatalf("%d grants are kept", n)
		}
	}
	spend(None)
	spend(BudgetSpent)
	r.clock.pass(time.Hour)
	r.swept()
	if ps := r.view.Load().purses; len(ps) != 1 || ps[g.Budgets[1].Key] == nil {
		t.Errorf("%d purses; want the task's alone", len(ps))
	}
	r.clock.pass(100 * time.Hour)
	r.swept()
	if n := len(r.view.Load().purses); n != 0 {
		t.Errorf("%d purses that nobody spends from", n)
	}
}

func TestUnknownDrawDenies(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	g := r.grant(task, time.Minute, func(g *Grant) { g.Budgets = []Budget{{Key: "grant/" + g.ID, Limit: 1}} })
	live, _ := r.Lookup(g.ID)
	r.cfg.Draw = func(context.Context, string, int64) (int64, error) { return 0, errors.New("unreachable") }
	if _, why, err := r.Spend(t.Context(), live, nil); why != Undecided || err == nil {
		t.Fatalf("%v, %v", why, err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	r.beat()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Wait(ctx, Rev{1, 1 << 40}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := r.Wait(ctx, Rev{0, 1 << 40}); err != nil {
		t.Fatalf("a revision of an older epoch: %v", err)
	}
}
