package grantstest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/toolgrant/toolgrant/grants"
)

func beat(ev grants.Event) bool { return ev.Task == nil && ev.Grant == nil && ev.Fence == nil }

// collect watches until done says so, which sees each event last, and returns
// all that came, heartbeats included. It checks what holds for each Watch.
func (s *suite) collect(from grants.Rev, tools []string, done func(grants.Event) bool) []grants.Event {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var all []grants.Event
	last := from
	for ev, err := range s.store.Watch(ctx, from, tools) {
		if err != nil {
			s.Errorf("watch: %v after %d events", err, len(all))
			return all
		}
		if (last != grants.Rev{}) && (ev.Rev.Epoch != last.Epoch || ev.Rev.N < last.N) {
			s.Errorf("watch: %s after revision %v", text(ev), last)
		}
		last = ev.Rev
		all = append(all, ev)
		if inner := innerRev(ev); inner != ev.Rev {
			s.Errorf("watch: event at %v holds revision %v", ev.Rev, inner)
		}
		if done(ev) {
			return all
		}
	}
	s.Errorf("watch: ended by itself after %d events", len(all))
	return all
}

func innerRev(ev grants.Event) grants.Rev {
	switch {
	case ev.Task != nil:
		return ev.Task.Rev
	case ev.Grant != nil:
		return ev.Grant.Rev
	case ev.Fence != nil:
		return ev.Fence.Rev
	}
	return ev.Rev
}

func text(ev grants.Event) string {
	switch {
	case ev.Task != nil:
		return fmt.Sprintf("task %s at %v", ev.Task.ID, ev.Rev)
	case ev.Grant != nil:
		return fmt.Sprintf("grant %s at %v", ev.Grant.ID, ev.Rev)
	case ev.Fence != nil:
		return fmt.Sprintf("fence on %s %s at %v", ev.Fence.Scope, ev.Fence.Key, ev.Rev)
	}
	return fmt.Sprintf("heartbeat at %v", ev.Rev)
}

// until ends a collect at a heartbeat that covers rev.
func until(rev grants.Rev) func(grants.Event) bool {
	return func(ev grants.Event) bool { return beat(ev) && ev.Rev.Compare(rev) >= 0 }
}

// counts says how often each change came.
func counts(evs []grants.Event) map[string]int {
	n := map[string]int{}
	for _, ev := range evs {
		if !beat(ev) {
			n[text(ev)]++
		}
	}
	return n
}

func (s *suite) watchState() {
	if evs := s.collect(grants.Rev{}, nil, beat); len(evs) != 1 {
		s.Errorf("an empty store: %d events before the first heartbeat", len(evs)-1)
	}
	task := newTask()
	task.Agents = []string{"idp/bot", "idp/helper"}
	task = s.open(task)
	g := newGrant(task)
	g.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, tool, "/amount"), Arg: "/amount", Limit: 5}}
	g.Rev = s.issue(g)
	c := child(g)
	c.Rev = s.issue(c)
	until := time.Now().Add(2 * time.Hour)
	ended := s.open(newTask()) // may be told of or not
	var fences []grants.Fence
	for _, f := range []grants.Fence{
		{Scope: grants.ScopeAgent, Key: "idp/bot", Why: grants.PolicyChanged, Until: until.Add(time.Hour)}, // raised below
		{Scope: grants.ScopeGrant, Key: c.ID, Why: grants.Superseded, Until: until},
		{Scope: grants.ScopeTask, Key: ended.ID, Why: grants.TaskEnded, Until: until},
		{Scope: grants.ScopeTool, Key: "github/get_pr", Why: grants.ToolChanged, Until: until},
		{Scope: grants.ScopeAgent, Key: "idp/bot", Why: grants.Revoked, Until: until},
	} {
		rev, err := s.store.Fence(s.ctx, f)
		if err != nil {
			s.Fatal(err)
		}
		f.Rev = rev
		fences = append(fences, f)
	}
	// The raised fence stands for the first one too, and as long.
	fences[4].Until = fences[0].Until
	late := s.open(newTask())

	// The first heartbeat says that the present state is complete.
	evs := s.collect(grants.Rev{}, nil, beat)
	if last := evs[len(evs)-1].Rev; last.Compare(late.Rev) < 0 {
		s.Errorf("first heartbeat at %v; want %v or later", last, late.Rev)
	}
	tasks, gs, fs := map[string]grants.Task{}, map[string]grants.Grant{}, map[string]grants.Fence{}
	for _, ev := range evs {
		switch {
		case ev.Task != nil && ev.Task.ID == ended.ID:
		case ev.Task != nil:
			tasks[ev.Task.ID] = *ev.Task
		case ev.Grant != nil:
			gs[ev.Grant.ID] = *ev.Grant
			if _, ok := tasks[ev.Grant.Task]; !ok {
				s.Errorf("%s before its task", text(ev))
			}
			if _, ok := gs[ev.Grant.Parent]; ev.Grant.Parent != "" && !ok {
				s.Errorf("%s before its parent", text(ev))
			}
		case ev.Fence != nil:
			fs[string(ev.Fence.Scope)+" "+ev.Fence.Key] = *ev.Fence
		}
	}
	wantFences := map[string]grants.Fence{}
	for _, f := range fences {
		wantFences[string(f.Scope)+" "+f.Key] = f
	}
	same := cmpopts.EquateEmpty() // times by Equal
	if diff := cmp.Diff(map[string]grants.Task{task.ID: task, late.ID: late}, tasks, same); diff != "" {
		s.Errorf("tasks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]grants.Grant{g.ID: g, c.ID: c}, gs, same); diff != "" {
		s.Errorf("grants (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantFences, fs, same); diff != "" {
		s.Errorf("fences (-want +got):\n%s", diff)
	}
}

// watchConcurrent holds that watchers who come while others write get each
// change exactly once, on whichever side of their first heartbeat.
func (s *suite) watchConcurrent() {
	const writers, writes, watchers = 4, 25, 6
	task := s.open(newTask())
	var mu sync.Mutex
	want := map[string]int{text(grants.Event{Rev: task.Rev, Task: &task}): 1}
	var newest grants.Rev
	note := func(ev grants.Event) {
		mu.Lock()
		defer mu.Unlock()
		want[text(ev)]++
		if ev.Rev.Compare(newest) > 0 {
			newest = ev.Rev
		}
	}
	written := make(chan struct{})
	results := make([]map[string]int, watchers)
	go func() {
		defer close(written)
		each(writers, func(int) {
			for i := range writes {
				if i%5 == 4 {
					f := grants.Fence{Scope: grants.ScopeGrant, Key: grants.NewID(grants.GrantPrefix), Why: grants.Revoked, Until: time.Now().Add(time.Hour)}
					rev, err := s.store.Fence(s.ctx, f)
					if err != nil {
						s.Errorf("fence: %v", err)
						continue
					}
					note(grants.Event{Rev: rev, Fence: &f})
					continue
				}
				a, b := newGrant(task), newGrant(task)
				rev, why, err := s.store.Issue(s.ctx, []grants.Grant{a, b})
				if err != nil || why != grants.None {
					s.Errorf("issue: %v, %v", why, err)
					continue
				}
				note(grants.Event{Rev: rev, Grant: &a})
				note(grants.Event{Rev: rev, Grant: &b})
			}
		})
	}()
	finished := func(ev grants.Event) bool {
		select {
		case <-written:
			return beat(ev) && ev.Rev.Compare(newest) >= 0
		default:
			return false
		}
	}
	each(watchers, func(i int) {
		if i%2 == 0 {
			results[i] = counts(s.collect(grants.Rev{}, nil, finished))
			return
		}
		// Half of them leave in the middle and come back.
		seen := 0
		first := s.collect(grants.Rev{}, nil, func(ev grants.Event) bool {
			if !beat(ev) {
				seen++
			}
			return beat(ev) && seen >= 20*i
		})
		second := s.collect(first[len(first)-1].Rev, nil, finished)
		results[i] = counts(append(first, second...))
	})
	for i, got := range results {
		if diff := cmp.Diff(want, got); diff != "" {
			s.Errorf("watcher %d (-want +got):\n%s", i, diff)
		}
	}
}

func (s *suite) watchResume() {
	task := s.open(newTask())
	s.issue(newGrant(task))
	evs := s.collect(grants.Rev{}, nil, beat)
	from := evs[len(evs)-1].Rev

	g := newGrant(task)
	grant := s.issue(g)
	fence := s.fence(grants.ScopeAgent, "idp/bot")
	want := map[string]int{
		text(grants.Event{Rev: grant, Grant: &g}):                                                      1,
		text(grants.Event{Rev: fence, Fence: &grants.Fence{Scope: grants.ScopeAgent, Key: "idp/bot"}}): 1,
	}
	if diff := cmp.Diff(want, counts(s.collect(from, nil, until(fence)))); diff != "" {
		s.Errorf("from %v (-want +got):\n%s", from, diff)
	}
	delete(want, text(grants.Event{Rev: grant, Grant: &g}))
	if diff := cmp.Diff(want, counts(s.collect(grant, nil, until(fence)))); diff != "" {
		s.Errorf("from the grant's own %v (-want +got):\n%s", grant, diff)
	}

	// There is no such history.
	for what, rev := range map[string]grants.Rev{
		"a later epoch":     {Epoch: from.Epoch + 1, N: from.N},
		"an earlier epoch":  {Epoch: from.Epoch - 1, N: from.N},
		"no epoch":          {N: from.N},
		"the highest epoch": {Epoch: math.MaxUint64, N: 1},
		"the future":        {Epoch: from.Epoch, N: fence.N + 1_000},
		"the far future":    {Epoch: from.Epoch, N: math.MaxUint64},
	} {
		n := 0
		for ev, err := range s.store.Watch(s.ctx, rev, nil) {
			n++
			if !errors.Is(err, grants.ErrResync) || ev != (grants.Event{}) || n > 1 {
				s.Errorf("from %s: %s, %v; want %v alone", what, text(ev), err, grants.ErrResync)
				break
			}
		}
		if n == 0 {
			s.Errorf("from %s: ended without an error", what)
		}
	}
}

func (s *suite) watchTools() {
	task := s.open(newTask())
	tools := []string{"github/a", "github/ab", "github/b"}
	by := map[string]grants.Grant{}
	write := func() grants.Rev {
		var batch []grants.Grant
		for _, name := range tools {
			g := newGrant(task)
			g.Tool = name
			by[name] = g
			batch = append(batch, g)
		}
		return s.issue(batch...)
	}
	start := s.fence(grants.ScopeTool, "github/other")
	state := write()
	evs := s.collect(grants.Rev{}, nil, beat)
	resume := evs[len(evs)-1].Rev
	stateOf := map[string]grants.Grant{}
	for k, g := range by {
		stateOf[k] = g
	}
	changes := write()
	fence := s.fence(grants.ScopeTool, "github/b") // whoever watches what

	for _, watched := range [][]string{nil, {}, {"github/a"}, {"github/b", "github/a"}, {"github/none"}} {
		all, later := map[string]int{}, map[string]int{}
		add := func(m map[string]int, ev grants.Event) { m[text(ev)]++ }
		add(all, grants.Event{Rev: task.Rev, Task: &task})
		add(all, grants.Event{Rev: start, Fence: &grants.Fence{Scope: grants.ScopeTool, Key: "github/other"}})
		for _, m := range []map[string]int{all, later} {
			add(m, grants.Event{Rev: fence, Fence: &grants.Fence{Scope: grants.ScopeTool, Key: "github/b"}})
		}
		names := watched
		if watched == nil {
			names = tools
		}
		for _, name := range names {
			old, ok := stateOf[name]
			if !ok {
				continue
			}
			g := by[name]
			add(all, grants.Event{Rev: state, Grant: &old})
			add(all, grants.Event{Rev: changes, Grant: &g})
			add(later, grants.Event{Rev: changes, Grant: &g})
		}
		if diff := cmp.Diff(all, counts(s.collect(grants.Rev{}, watched, until(fence)))); diff != "" {
			s.Errorf("tools %q from the beginning (-want +got):\n%s", watched, diff)
		}
		if diff := cmp.Diff(later, counts(s.collect(resume, watched, until(fence)))); diff != "" {
			s.Errorf("tools %q from %v (-want +got):\n%s", watched, resume, diff)
		}
	}
}

// watchBudgets holds that a Table which starts anew learns the budgets of an open
// task, whatever has become of the grants that brought them, so that it can ask
// for the next grant.
func (s *suite) watchBudgets() {
	task := s.open(newTask())
	var budgets []grants.Budget
	for _, arg := range []string{"", "/amount", "/fee"} { // each grant brings one
		budgets = append(budgets, grants.Budget{Key: grants.TaskBudget(task.ID, tool, arg), Arg: arg, Limit: 5})
		g := newGrant(task)
		g.Budgets, g.Constraints = budgets, nil // a Table takes what it can compile
		if s.expired(g); arg == "/amount" {
			s.fence(grants.ScopeGrant, g.ID)
		}
	}
	for range 20 { // a Store that forgets has time to
		s.waitUntil(time.Now().Add(10 * time.Millisecond))
		carried := map[grants.Budget]bool{}
		s.collect(grants.Rev{}, []string{tool}, func(ev grants.Event) bool {
			if ev.Grant != nil {
				for _, b := range ev.Grant.Budgets {
					carried[b] = true
				}
			}
			return beat(ev)
		})
		for _, b := range budgets {
			if !carried[b] {
				s.Fatalf("no grant carries %v", b)
			}
		}
	}

	table := grants.NewTable(grants.TableConfig{Draw: s.store.Draw})
	ctx, cancel := context.WithCancel(s.ctx)
	followed := make(chan error)
	go func() { followed <- table.Follow(ctx, s.store, []string{tool}) }()
	if err := table.Wait(s.ctx, s.fence(grants.ScopeTool, "github/other")); err != nil {
		s.Fatal(err)
	}
	next := newGrant(task)
	next.Budgets = table.TaskBudgets(task.ID, tool)
	if diff := cmp.Diff(budgets, next.Budgets); diff != "" {
		s.Errorf("a new table's budgets (-want +got):\n%s", diff)
	}
	s.issue(next)
	cancel()
	<-followed
}

// watchHeartbeat holds that heartbeats come without writes, and cover writes
// of which the watcher sees nothing.
func (s *suite) watchHeartbeat() {
	task := s.open(newTask())
	// Twice the second that is promised and more, for a machine that is busy;
	// still less than the staleness at which a node stops allowing.
	const atLeastEvery = 4 * time.Second
	var last time.Time
	n := 0
	s.collect(grants.Rev{}, []string{}, func(ev grants.Event) bool {
		if !beat(ev) {
			return false
		}
		if gap := time.Since(last); n > 0 && gap > atLeastEvery {
			s.Errorf("%v between two heartbeats; want at most a second", gap)
		}
		last = time.Now()
		n++
		return n == 4
	})

	var unseen grants.Rev
	n = 0
	s.collect(grants.Rev{}, []string{"github/none"}, func(ev grants.Event) bool {
		if n++; beat(ev) && unseen == (grants.Rev{}) {
			unseen = s.issue(newGrant(task)) // of another tool
			return false
		}
		return until(unseen)(ev) && unseen != (grants.Rev{})
	})
}

func (s *suite) watchEnd() {
	task := s.open(newTask())
	s.issue(newGrant(task))
	cause := errors.New("the consumer goes")
	for _, c := range []struct {
		what string
		end  func() (context.Context, func())
		want error
	}{
		{"cancelled", func() (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(s.ctx)
			return ctx, func() { cancel(cause) }
		}, context.Canceled},
		{"over its deadline", func() (context.Context, func()) {
			ctx, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
			s.Cleanup(cancel)
			return ctx, func() {}
		}, context.DeadlineExceeded},
	} {
		ctx, end := c.end()
		var got error
		for ev, err := range s.store.Watch(ctx, grants.Rev{}, nil) {
			if got != nil {
				s.Errorf("%s: %s, %v after the error", c.what, text(ev), err)
				break
			}
			if got = err; err == nil && beat(ev) {
				end()
			}
		}
		if !errors.Is(got, c.want) {
			s.Errorf("%s: ended with %v; want %v", c.what, got, c.want)
		}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	n := 0
	for ev, err := range s.store.Watch(ctx, grants.Rev{}, nil) {
		if n++; n > 1 || !errors.Is(err, context.Canceled) {
			s.Errorf("cancelled before: %s, %v", text(ev), err)
			break
		}
	}
	if n == 0 {
		s.Error("cancelled before: ended without an error")
	}
}

// watchSlow holds that a consumer who does not read holds up neither a writer
// nor another watcher, and gets all or ErrResync in the end.
func (s *suite) watchSlow() {
	const writes = 300
	task := s.open(newTask())
	stuck, release, result := make(chan struct{}), make(chan struct{}), make(chan map[string]int, 1)
	var newest grants.Rev
	go func() {
		got := map[string]int{}
		defer func() { result <- got }()
		first := true
		for ev, err := range s.store.Watch(s.ctx, grants.Rev{}, nil) {
			if errors.Is(err, grants.ErrResync) {
				got = nil
				return
			}
			if err != nil {
				s.Errorf("watch: %v", err)
				return
			}
			if !beat(ev) {
				got[text(ev)]++
			}
			if beat(ev) && first {
				first = false
				close(stuck)
				<-release
			} else if until(newest)(ev) {
				return
			}
		}
	}()
	<-stuck
	want := map[string]int{text(grants.Event{Rev: task.Rev, Task: &task}): 1}
	for range writes {
		g := newGrant(task)
		newest = s.issue(g)
		want[text(grants.Event{Rev: newest, Grant: &g})]++
	}
	if diff := cmp.Diff(want, counts(s.collect(grants.Rev{}, nil, until(newest)))); diff != "" {
		s.Errorf("another watcher (-want +got):\n%s", diff)
	}
	close(release)
	select {
	case got := <-result:
		if diff := cmp.Diff(want, got); got != nil && diff != "" {
			s.Errorf("the slow watcher, without %v (-want +got):\n%s", grants.ErrResync, diff)
		}
	case <-s.ctx.Done():
		s.Error("the slow watcher never came to an end")
	}
}
