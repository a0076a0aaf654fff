package grants_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/grants/grantstest"
)

func TestMemoryStore(t *testing.T) {
	grantstest.Run(t, func(*testing.T) grants.Store { return grants.NewMemory(grants.MemoryConfig{}) })
}

// Sweeping must not show in anything but memory: the suite again, while a
// sweeper runs all the time.
func TestMemoryStoreSwept(t *testing.T) {
	grantstest.Run(t, func(t *testing.T) grants.Store {
		m := grants.NewMemory(grants.MemoryConfig{Heartbeat: 20 * time.Millisecond})
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					m.Sweep(time.Now())
				}
			}
		}()
		t.Cleanup(func() { close(stop); <-stopped })
		return m
	})
}

type memory struct {
	*testing.T
	*grants.Memory
}

func (m memory) start(life time.Duration) grants.Task {
	m.Helper()
	task := grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(life)}
	rev, why, err := m.Start(m.Context(), task)
	if err != nil || why != grants.None {
		m.Fatalf("start: %v, %v", why, err)
	}
	task.Rev = rev
	return task
}

func (m memory) grant(task grants.Task, life time.Duration) grants.Grant {
	return grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Tool: "github/merge_pr",
		Agent: grants.Principal{Issuer: "idp", Subject: "bot"}, Expires: time.Now().Add(life),
	}
}

func (m memory) issue(g grants.Grant, want grants.Reason) grants.Rev {
	m.Helper()
	rev, why, err := m.Issue(m.Context(), []grants.Grant{g})
	if err != nil || why != want {
		m.Fatalf("issue: %v, %v; want %v", why, err, want)
	}
	return rev
}

func (m memory) fence(scope grants.Scope, key string, life time.Duration) grants.Rev {
	m.Helper()
	rev, err := m.Fence(m.Context(), grants.Fence{Scope: scope, Key: key, Why: grants.Revoked, Until: time.Now().Add(life)})
	if err != nil {
		m.Fatal(err)
	}
	return rev
}

func (m memory) sweep(want int) {
	m.Helper()
	if got := m.Sweep(time.Now()); got != want {
		m.Errorf("sweep forgot %d; want %d", got, want)
	}
}

// resync reports whether a Watch from rev has lost its history.
func (m memory) resync(rev grants.Rev) bool {
	for _, err := range m.Watch(m.Context(), rev, nil) {
		return errors.Is(err, grants.ErrResync)
	}
	return false
}

// seen is what a Watch from the beginning gives before its first heartbeat.
func (m memory) seen() (tasks, gs, fences int) {
	for ev, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
		switch {
		case err != nil:
			m.Fatal(err)
		case ev.Task != nil:
			tasks++
		case ev.Grant != nil:
			gs++
		case ev.Fence != nil:
			fences++
		default:
			return
		}
	}
	return
}

func inBubble(t *testing.T, c grants.MemoryConfig, f func(memory)) {
	synctest.Test(t, func(t *testing.T) { f(memory{t, grants.NewMemory(c)}) })
}

func TestMemorySweep(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(time.Hour)
		g := m.grant(task, time.Minute)
		own, shared := grants.GrantBudget(g.ID, ""), grants.TaskBudget(task.ID, g.Tool, "")
		g.Budgets = []grants.Budget{{Key: own, Limit: 5}, {Key: shared, Limit: 5}}
		m.issue(g, grants.None)
		m.fence(grants.ScopeGrant, g.ID, 0)      // as long as its grant
		m.fence(grants.ScopeAgent, "idp/bot", 0) // as long as any grant
		view := m.fence(grants.ScopeTool, "github/get_pr", 2*time.Minute)
		drawn := func(key string, want int64) {
			m.Helper()
			if got, err := m.Draw(m.Context(), key, 1); err != nil || got != want {
				m.Errorf("drawing from %s: %d, %v; want %d", key, got, err, want)
			}
		}
		state := func(tasks, gs, fences int) {
			m.Helper()
			if a, b, c := m.seen(); a != tasks || b != gs || c != fences {
				m.Errorf("%d tasks, %d grants, %d fences; want %d, %d, %d", a, b, c, tasks, gs, fences)
			}
		}

		later := m.grant(task, time.Minute)
		later.Budgets = []grants.Budget{{Key: grants.GrantBudget(later.ID, ""), Limit: 5}, {Key: shared, Limit: 5}}
		later.Rev = view
		m.issue(later, grants.None)

		time.Sleep(time.Minute - 1)
		m.sweep(0)
		state(1, 2, 3)
		drawn(own, 1)
		drawn(later.Budgets[0].Key, 1)
		time.Sleep(time.Nanosecond)
		state(1, 1, 1) // what is over is not told, swept or not, but for the first with the task's budget
		m.sweep(3)     // the later grant and two fences
		m.sweep(0)
		state(1, 1, 1)
		drawn(own, 1)
		drawn(later.Budgets[0].Key, 0)
		drawn(shared, 1)
		m.issue(later, grants.BadTTL) // it is not known any more

		time.Sleep(time.Minute)
		m.sweep(1)
		state(1, 1, 0)
		time.Sleep(58*time.Minute - 1)
		m.sweep(0)
		time.Sleep(time.Nanosecond)
		m.sweep(2)
		state(0, 0, 0)
		drawn(shared, 0)
		m.issue(m.grant(task, time.Minute), grants.UnknownTask)

		// The newest forgotten fence was on a tool, at view: whoever decided
		// before it may have decided on its absence.
		task = m.start(time.Hour)
		g = m.grant(task, time.Minute)
		m.issue(g, grants.Conflict)
		g.Rev = grants.Rev{Epoch: view.Epoch, N: view.N - 1}
		m.issue(g, grants.Conflict)
		g.Rev = view
		m.issue(g, grants.None)
	})
}

// A raised fence is forgotten when the last of the two would be, and the first
// one's entry in the log does not take it along.
func TestMemorySweepRaisedFence(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(time.Hour)
		m.fence(grants.ScopeAgent, "idp/bot", time.Minute)
		m.fence(grants.ScopeAgent, "idp/bot", time.Second)
		m.fence(grants.ScopeAgent, "idp/eve", time.Second)
		m.fence(grants.ScopeAgent, "idp/eve", time.Minute)
		time.Sleep(2 * time.Second)
		m.sweep(0)
		time.Sleep(57 * time.Second)
		for _, agent := range []string{"bot", "eve"} {
			g := m.grant(task, time.Minute)
			g.Agent.Subject = agent
			m.issue(g, grants.Revoked)
		}
		time.Sleep(time.Second)
		m.sweep(2)
	})
}

func TestMemoryBounds(t *testing.T) {
	inBubble(t, grants.MemoryConfig{MaxTasks: 2, MaxGrants: 3}, func(m memory) {
		task := m.start(time.Hour)
		m.start(time.Minute)
		over := grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(time.Hour)}
		if _, why, err := m.Start(m.Context(), over); err != nil || why != grants.Limit {
			m.Errorf("a third task: %v, %v; want %v", why, err, grants.Limit)
		}
		g := m.grant(task, time.Minute)
		rev := m.issue(g, grants.None)
		m.issue(m.grant(task, time.Minute), grants.None)
		two := []grants.Grant{m.grant(task, time.Minute), m.grant(task, time.Minute)}
		if _, why, err := m.Issue(m.Context(), two); err != nil || why != grants.Limit {
			m.Errorf("a third and a fourth grant: %v, %v; want %v", why, err, grants.Limit)
		}
		m.issue(two[0], grants.None) // all or none: it was none
		m.issue(two[1], grants.Limit)
		if again := m.issue(g, grants.None); again != rev {
			m.Errorf("a retry when full: %v; want %v", again, rev)
		}
		if _, why, err := m.Start(m.Context(), task); err != nil || why != grants.None {
			m.Errorf("a retry when full: %v, %v", why, err)
		}
		m.fence(grants.ScopeAgent, "idp/bot", time.Hour) // is never refused
		time.Sleep(time.Minute)
		m.sweep(4) // a task and three grants
		if _, why, err := m.Start(m.Context(), over); err != nil || why != grants.None {
			m.Errorf("a task after one has passed: %v, %v", why, err)
		}
		g = m.grant(over, time.Minute)
		g.Agent.Subject = "helper"
		m.issue(g, grants.None)
	})
}

// A task that has ended makes room at once, its memory at the next sweep; what
// is left of it until its deadline is the fence.
func TestMemoryEndedTasks(t *testing.T) {
	// Each grant takes a fifth of the memory, by its long name.
	inBubble(t, grants.MemoryConfig{MaxTasks: 1, MaxGrants: 1, MaxBytes: 100_000}, func(m memory) {
		task := m.start(time.Hour)
		for range 200 {
			g := m.grant(task, time.Minute)
			g.Tool = strings.Repeat("x", 20_000)
			g.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, g.Tool, ""), Limit: 5}}
			m.issue(g, grants.None)
			m.issue(m.grant(task, time.Minute), grants.Limit)
			m.fence(grants.ScopeTask, task.ID, 0)
			next := m.start(time.Hour)
			m.issue(m.grant(task, time.Minute), grants.TaskEnded)
			m.sweep(2) // a task and a grant
			if got, err := m.Draw(m.Context(), g.Budgets[0].Key, 1); err != nil || got != 0 {
				m.Errorf("the budget of an ended task gives %d, %v; want 0", got, err)
			}
			m.issue(g, grants.UnknownTask)
			if _, why, err := m.Start(m.Context(), task); err != nil || why != grants.TaskEnded {
				m.Errorf("start of a forgotten task: %v, %v; want %v", why, err, grants.TaskEnded)
			}
			task = next
		}
		if tasks, gs, fences := m.seen(); tasks > 2 || gs > 1 || fences != 200 { // what the log had at the last sweep
			m.Errorf("%d tasks, %d grants, %d fences; want at most 2 and 1, and 200", tasks, gs, fences)
		}
		time.Sleep(time.Hour)
		m.sweep(201)
		if tasks, gs, fences := m.seen(); tasks+gs+fences != 0 {
			m.Errorf("%d tasks, %d grants, %d fences at the deadline; want none", tasks, gs, fences)
		}
	})
}

// A watcher that follows hears of a task and its end, however soon it is swept.
func TestMemoryEndedTaskWatched(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		var heard []string
		for ev, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
			switch {
			case err != nil:
				m.Fatal(err)
			case ev.Task != nil:
				heard = append(heard, "task")
			case ev.Grant != nil:
				heard = append(heard, "grant")
			case ev.Fence != nil:
				if heard = append(heard, "fence"); !slices.Equal(heard, []string{"task", "grant", "fence"}) {
					m.Errorf("heard of %q", heard)
				}
				return
			default: // the first heartbeat: all of it while the watcher is busy
				m.Sweep(time.Now())
				task := m.start(time.Hour)
				m.issue(m.grant(task, time.Minute), grants.None)
				m.fence(grants.ScopeTask, task.ID, 0)
				m.sweep(2)
			}
		}
	})
}

func TestMemoryMaxBytes(t *testing.T) {
	inBubble(t, grants.MemoryConfig{MaxBytes: 1 << 20}, func(m memory) {
		task := m.start(time.Hour)
		// A short text that takes much memory when compiled.
		costly := json.RawMessage(`{"type":"object","properties":{"a":{"type":"string","pattern":"^(?:(?:a?){900})$"}},"required":["a"],"additionalProperties":false}`)
		n := 0
		for ; n < 100; n++ {
			g := m.grant(task, time.Minute)
			g.Constraints = []json.RawMessage{costly, costly}
			_, why, err := m.Issue(m.Context(), []grants.Grant{g})
			if err != nil || why != grants.None && why != grants.Limit {
				m.Fatal(why, err)
			}
			if why == grants.Limit {
				break
			}
		}
		if n < 4 || n > 5 { // 200 KB each
			m.Errorf("%d costly grants in 1 MiB", n)
		}
		large := grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(time.Hour), Params: make(json.RawMessage, 1<<20)}
		if _, why, err := m.Start(m.Context(), large); err != nil || why != grants.Limit {
			m.Errorf("a large task: %v, %v; want %v", why, err, grants.Limit)
		}
		time.Sleep(time.Minute)
		m.sweep(n)
		g := m.grant(task, time.Minute)
		g.Constraints = []json.RawMessage{costly, costly}
		m.issue(g, grants.None)
	})
}

// A new Table learns a task's budgets although the grant that brought the last
// one was delegated, and both it and its parent are over.
func TestMemoryKeepsCarriers(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(time.Hour)
		p := m.grant(task, time.Minute)
		m.issue(p, grants.None)
		c := m.grant(task, time.Minute)
		c.Parent, c.Actors = p.ID, []string{p.Agent.ID()}
		c.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, c.Tool, ""), Limit: 5}}
		m.issue(c, grants.None)
		other := m.grant(task, time.Minute)
		other.Budgets = c.Budgets
		m.issue(other, grants.None)
		time.Sleep(time.Minute)
		m.sweep(1) // other
		m.sweep(0)
		if _, gs, _ := m.seen(); gs != 2 {
			m.Errorf("a new watch yields %d grants; want the carrier and its parent", gs)
		}
		table := grants.NewTable(grants.TableConfig{Draw: m.Draw})
		ctx, cancel := context.WithCancel(m.Context())
		done := make(chan error)
		go func() { done <- table.Follow(ctx, m, nil) }()
		synctest.Wait()
		next := m.grant(task, time.Minute)
		m.issue(next, grants.Conflict)
		next.Budgets = table.TaskBudgets(task.ID, next.Tool)
		m.issue(next, grants.None)
		cancel()
		<-done
		m.fence(grants.ScopeTask, task.ID, 0)
		m.sweep(4) // the task and three grants
	})
}

// What the log has lost cannot be told to one who comes back; nothing that it
// tells is lost to one who is up to date.
func TestMemoryWatchSwept(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(time.Hour)
		short := m.issue(m.grant(task, time.Second), grants.None)
		last := m.issue(m.grant(task, time.Minute), grants.None)
		time.Sleep(time.Second)
		m.sweep(1)
		if m.resync(task.Rev) {
			m.Error("resync after one sweep")
		}
		m.sweep(0)
		for rev, want := range map[grants.Rev]bool{task.Rev: true, short: false, last: false, {}: false} {
			if got := m.resync(rev); got != want {
				m.Errorf("from %v: resync %v; want %v", rev, got, want)
			}
		}
	})
}

// What is written while a sweep rewrites the log is in the new one.
func TestMemorySweepConcurrent(t *testing.T) {
	m := memory{t, grants.NewMemory(grants.MemoryConfig{})}
	done := make(chan struct{})
	var kept int
	go func() {
		defer close(done)
		for i := range 20_000 {
			f := grants.Fence{Scope: grants.ScopeGrant, Key: fmt.Sprint("g_", i), Why: grants.Revoked, Until: time.Now()}
			if i%2 == 0 { // else it is dead at once
				f.Until = f.Until.Add(time.Hour)
				kept++
			}
			if _, err := m.Fence(context.Background(), f); err != nil {
				t.Error(err)
			}
		}
	}()
	for sweeping := true; sweeping; {
		select {
		case <-done:
			sweeping = false
		default:
			m.Sweep(time.Now())
		}
	}
	if _, _, fences := m.seen(); fences != kept {
		t.Errorf("%d fences left; want %d", fences, kept)
	}
}

// A consumer that is behind when the log is cut hears of it, instead of
// missing something.
func TestMemoryWatchFallsBehind(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(time.Hour)
		n := 0
		for ev, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
			if err != nil {
				if !errors.Is(err, grants.ErrResync) {
					m.Errorf("%v; want %v", err, grants.ErrResync)
				}
				return
			}
			if n++; n > 2 {
				m.Fatalf("event %d at %v; want %v", n, ev.Rev, grants.ErrResync)
			}
			if n == 2 { // the first heartbeat
				m.issue(m.grant(task, time.Second), grants.None)
				time.Sleep(time.Second)
				m.sweep(1)
				m.sweep(0)
			}
		}
	})
}

func TestMemoryHeartbeat(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		0: time.Second, -1: time.Second, time.Hour: time.Second, 300 * time.Millisecond: 300 * time.Millisecond,
	} {
		inBubble(t, grants.MemoryConfig{Heartbeat: asked}, func(m memory) {
			last, n := time.Now(), 0
			for _, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
				if gap := time.Since(last); err != nil || n > 0 && gap != want {
					m.Errorf("heartbeat %v: after %v, %v; want %v", asked, gap, err, want)
				}
				last = time.Now()
				if n++; n == 4 {
					break
				}
			}
		})
	}
}

// A watcher that waits hears of a write at once, not with the next heartbeat.
func TestMemoryWatchPrompt(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		var wrote time.Time
		for ev, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
			switch {
			case err != nil:
				m.Fatal(err)
			case ev.Fence != nil:
				if late := time.Since(wrote); late != 0 {
					m.Errorf("fence seen after %v; want at once", late)
				}
				return
			case wrote.IsZero(): // the first heartbeat
				wrote = time.Now().Add(300 * time.Millisecond)
				time.AfterFunc(time.Until(wrote), func() { m.fence(grants.ScopeAgent, "idp/bot", time.Hour) })
			}
		}
	})
}

// A heartbeat says "nothing unseen", so it must not come from before a write
// that happened while the consumer was slow.
func TestMemoryHeartbeatIsNotOld(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		m.start(time.Hour)
		var fenced grants.Rev
		for ev, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
			switch {
			case err != nil:
				m.Fatal(err)
			case ev.Task != nil: // slow; and something is revoked meanwhile
				fenced = m.fence(grants.ScopeAgent, "idp/bot", time.Hour)
				time.Sleep(10 * time.Second)
			case ev.Fence != nil:
				return
			default:
				m.Fatalf("heartbeat at %v before the fence at %v, ten seconds after it", ev.Rev, fenced)
			}
		}
	})
}

func TestMemoryRun(t *testing.T) {
	inBubble(t, grants.MemoryConfig{MaxTasks: 1}, func(m memory) {
		ctx, cancel := context.WithCancel(m.Context())
		done := make(chan error)
		go func() { done <- m.Memory.Run(ctx) }()
		m.start(15 * time.Second)
		time.Sleep(20*time.Second + 1)
		m.start(time.Second) // there is room again
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			m.Errorf("run: %v; want %v", err, context.Canceled)
		}
	})
}

func TestMemoryEpoch(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		rev := m.start(time.Hour).Rev
		if want := (grants.Rev{Epoch: uint64(time.Now().UnixMilli()), N: 1}); rev != want {
			m.Errorf("first write at %v; want %v", rev, want)
		}
		time.Sleep(time.Millisecond)
		next := memory{m.T, grants.NewMemory(grants.MemoryConfig{})}
		if !next.resync(rev) {
			m.Error("a new Memory goes on with the old one's history")
		}
	})
}

// roomy is a configuration whose bounds are all counted and never reached.
var roomy = grants.MemoryConfig{MaxTasks: 1 << 30, MaxGrants: 1 << 30, MaxBytes: 1 << 50, GrantsPerAgent: 1 << 30, TasksPerOwner: 1 << 30}

// filled returns a Memory with n grants, ten a task.
func filled(b *testing.B, n int) (*grants.Memory, []grants.Task) {
	m := grants.NewMemory(roomy)
	var tasks []grants.Task
	for i := range n {
		if i%10 == 0 {
			task := grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(time.Hour)}
			if _, why, err := m.Start(b.Context(), task); err != nil || why != grants.None {
				b.Fatal(why, err)
			}
			tasks = append(tasks, task)
		}
		if _, why, err := m.Issue(b.Context(), []grants.Grant{benchGrant(tasks[len(tasks)-1])}); err != nil || why != grants.None {
			b.Fatal(why, err)
		}
	}
	return m, tasks
}

func benchGrant(task grants.Task) grants.Grant {
	return grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Tool: "github/merge_pr",
		Agent: grants.Principal{Issuer: "idp", Subject: "bot"}, Expires: task.Deadline,
	}
}

func BenchmarkMemoryIssue(b *testing.B) {
	for _, n := range []int{1_000, 500_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, tasks := filled(b, n)
			i := 0
			for b.Loop() {
				_, why, err := m.Issue(b.Context(), []grants.Grant{benchGrant(tasks[i%len(tasks)])})
				if err != nil || why != grants.None {
					b.Fatal(why, err)
				}
				i++
			}
		})
	}
}

// BenchmarkMemoryBytes is what a task, a plain grant and the fence of a task
// that has gone take in a Memory and one Table together; taskBytes and
// grantBytes rest on it.
func BenchmarkMemoryBytes(b *testing.B) {
	const n = 50_000
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		m := grants.NewMemory(roomy)
		table := grants.NewTable(grants.TableConfig{Draw: m.Draw})
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- table.Follow(ctx, m, nil) }()
		filled := func(write func(i int) grants.Rev) float64 {
			before := heap()
			var last grants.Rev
			for i := range n {
				if last = write(i); last == (grants.Rev{}) {
					b.Fatal("refused")
				}
			}
			if err := table.Wait(ctx, last); err != nil {
				b.Fatal(err)
			}
			return (heap() - before) / n
		}
		tasks := make([]grants.ID, n)
		b.ReportMetric(filled(func(i int) grants.Rev {
			task := grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(time.Hour), Kind: "release", Agents: []string{"idp/bot"}}
			tasks[i] = task.ID
			rev, _, _ := m.Start(ctx, task)
			return rev
		}), "B/task")
		b.ReportMetric(filled(func(i int) grants.Rev {
			g := benchGrant(grants.Task{ID: tasks[i], Deadline: time.Now().Add(time.Minute)})
			rev, _, _ := m.Issue(ctx, []grants.Grant{g})
			return rev
		}), "B/grant")
		b.ReportMetric(filled(func(int) grants.Rev {
			rev, _ := m.Fence(ctx, grants.Fence{Scope: grants.ScopeTask, Key: grants.NewID(grants.TaskPrefix), Until: time.Now().Add(time.Hour)})
			return rev
		}), "B/fence")
		cancel()
		<-done
		runtime.KeepAlive(m)
		runtime.KeepAlive(table)
	}
}

// BenchmarkMemoryWatch is the present state from its beginning to the first
// heartbeat.
func BenchmarkMemoryWatch(b *testing.B) {
	m, _ := filled(b, 500_000)
	for b.Loop() {
		for ev, err := range m.Watch(b.Context(), grants.Rev{}, nil) {
			if err != nil {
				b.Fatal(err)
			}
			if ev.Task == nil && ev.Grant == nil && ev.Fence == nil {
				break
			}
		}
	}
}
