package grants

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sort"
	"sync"
	"time"
)

// Bounds of a Memory whose configuration names none.
const (
	DefaultMaxTasks  = 100_000
	DefaultMaxGrants = 1_000_000
)

const (
	maxHeartbeat = time.Second      // what Store.Watch promises
	sweepEvery   = 10 * time.Second // Memory.Run
	sweepChunk   = 1024             // entries forgotten under one hold of the lock
)

// MemoryConfig says how much a Memory may hold.
type MemoryConfig struct {
	MaxTasks  int           // tasks before their deadline; 0: DefaultMaxTasks
	MaxGrants int           // grants before their end; 0: DefaultMaxGrants
	Heartbeat time.Duration // of each Watch; 0, or more than 1 s: 1 s
}

// Memory is a Store for one process. It dies with it: a new Memory is a new
// epoch and holds nothing, so every token that an earlier one issued is
// refused.
//
// A task or grant over the bounds is refused as Limit; Run frees what has
// ended. Fences are not bounded, because a revocation must not be refused; the
// broker fences only what its callers may fence.
type Memory struct {
	maxTasks, maxGrants int
	heartbeat           time.Duration
	epoch               uint64

	sweeping sync.Mutex // held over a whole Sweep; taken before mu

	mu       sync.Mutex
	n        uint64              // of the newest write
	tasks    map[ID]*Task        // task id -> task
	grants   map[ID]*Grant       // grant id -> grant
	fences   map[fenceKey]*Fence // -> the newest
	accounts map[string]int64    // budget key -> what is left
	shared   map[ID][]Budget     // task id -> its budgets, for all of its tools
	lastEnd  time.Time           // no grant, dead or alive, ends later
	forgot   uint64              // N of the newest fence on an agent or tool that Sweep dropped
	log      []Event             // what was written, in order of Rev; appended to, never changed in place
	floor    uint64              // N of the newest event that log has lost
	wake     chan struct{}       // closed by the next write; nil: nobody waits
}

type fenceKey struct {
	scope Scope
	key   string
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty Memory. Its epoch is the wall clock's Unix time in
// milliseconds.
func NewMemory(c MemoryConfig) *Memory {
	if c.MaxTasks <= 0 {
		c.MaxTasks = DefaultMaxTasks
	}
	if c.MaxGrants <= 0 {
		c.MaxGrants = DefaultMaxGrants
	}
	if c.Heartbeat <= 0 || c.Heartbeat > maxHeartbeat {
		c.Heartbeat = maxHeartbeat
	}
	return &Memory{
		maxTasks: c.MaxTasks, maxGrants: c.MaxGrants, heartbeat: c.Heartbeat,
		epoch: uint64(time.Now().UnixMilli()),
		tasks: map[ID]*Task{}, grants: map[ID]*Grant{}, fences: map[fenceKey]*Fence{},
		accounts: map[string]int64{}, shared: map[ID][]Budget{},
	}
}

// Start implements Store.
func (m *Memory) Start(ctx context.Context, t Task) (Rev, Reason, error) {
	if err := ctx.Err(); err != nil {
		return Rev{}, None, err
	}
	own := copyTask(t, Rev{})
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev, why := m.viewLocked().CheckStart(*own, time.Now()); why != None || rev != (Rev{}) {
		return rev, why, nil
	}
	if len(m.tasks) >= m.maxTasks {
		return Rev{}, Limit, nil
	}
	own.Rev = m.nextLocked()
	m.tasks[own.ID] = own
	m.log = append(m.log, Event{Rev: own.Rev, Task: own})
	return own.Rev, None, nil
}

// Issue implements Store.
func (m *Memory) Issue(ctx context.Context, batch []Grant) (Rev, Reason, error) {
	if err := ctx.Err(); err != nil {
		return Rev{}, None, err
	}
	own := make([]*Grant, len(batch))
	for i, g := range batch {
		own[i] = copyGrant(g, g.Rev)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev, why := m.viewLocked().CheckIssue(own, time.Now()); why != None || rev != (Rev{}) {
		return rev, why, nil
	}
	if len(m.grants)+len(own) > m.maxGrants {
		return Rev{}, Limit, nil
	}
	rev := m.nextLocked()
	for _, g := range own {
		g.Rev = rev
		m.grants[g.ID] = g
		m.lastEnd = later(m.lastEnd, g.Expires)
		m.openLocked(g)
		m.log = append(m.log, Event{Rev: rev, Grant: g})
	}
	return rev, None, nil
}

// openLocked opens the budgets of a grant that are new.
func (m *Memory) openLocked(g *Grant) {
	for _, b := range g.Budgets {
		if _, open := m.accounts[b.Key]; open {
			continue
		}
		m.accounts[b.Key] = b.Limit
		if b.Key == TaskBudget(g.Task, g.Tool, b.Arg) {
			m.shared[g.Task] = append(m.shared[g.Task], b)
		}
	}
}

// Fence implements Store. An unknown scope or an empty key is an error. The
// fence stands at least until what it kills has ended, even if f.Until is
// earlier.
func (m *Memory) Fence(ctx context.Context, f Fence) (Rev, error) {
	if err := ctx.Err(); err != nil {
		return Rev{}, err
	}
	if err := f.check(); err != nil {
		return Rev{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	own, rev := m.viewLocked().NextFence(f)
	if rev != (Rev{}) {
		return rev, nil
	}
	if f.Scope == ScopeAgent || f.Scope == ScopeTool {
		own.Until = later(own.Until, m.lastEnd)
	}
	own.Rev = m.nextLocked()
	m.fences[fenceKey{f.Scope, f.Key}] = &own
	m.log = append(m.log, Event{Rev: own.Rev, Fence: &own})
	return own.Rev, nil
}

func (f *Fence) check() error {
	switch f.Scope {
	case ScopeGrant, ScopeTask, ScopeAgent, ScopeTool:
		if f.Key != "" {
			return nil
		}
	}
	return fmt.Errorf("fence on scope %q, key %q: names nothing", f.Scope, f.Key)
}

// Draw implements Store.
func (m *Memory) Draw(ctx context.Context, budget string, want int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	left, open := m.accounts[budget]
	got := max(0, min(want, left))
	if open {
		m.accounts[budget] = left - got
	}
	return got, nil
}

// viewLocked is what the rules see; good only while mu is held.
func (m *Memory) viewLocked() View {
	return View{
		Task:      func(id ID) *Task { return m.tasks[id] },
		Grant:     func(id ID) *Grant { return m.grants[id] },
		Fence:     func(s Scope, key string) *Fence { return m.fences[fenceKey{s, key}] },
		Budgets:   func(task ID) []Budget { return m.shared[task] },
		Now:       Rev{m.epoch, m.n},
		Forgotten: m.forgotLocked(),
	}
}

func (m *Memory) forgotLocked() Rev {
	if m.forgot == 0 {
		return Rev{}
	}
	return Rev{m.epoch, m.forgot}
}

// nextLocked begins a write. Those who wait for it can read once mu is free.
func (m *Memory) nextLocked() Rev {
	m.n++
	if m.wake != nil {
		close(m.wake)
		m.wake = nil
	}
	return Rev{m.epoch, m.n}
}

// Watch implements Store. All watchers read one log, which nobody changes, at
// their own pace: none holds up a writer or another watcher, and the lock is
// held only to look where the log ends. A watcher that falls behind what the
// log still has gets ErrResync.
//
// Whenever a watcher has been given all there is, it gets a heartbeat with the
// newest Rev: from the zero Rev, the first one says that the present state is
// complete. Only a heartbeat's Rev is safe to come back with, because the
// grants of one Issue share theirs.
func (m *Memory) Watch(ctx context.Context, from Rev, tools []string) iter.Seq2[Event, error] {
	tools = slices.Clone(tools)
	return func(yield func(Event, error) bool) {
		tick := time.NewTicker(m.heartbeat)
		defer tick.Stop()
		start := from == Rev{}
		for at := from; ; {
			asked := time.Now()
			events, now, wake, err := m.after(at)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, ev := range events {
				if err := ctx.Err(); err != nil {
					yield(Event{}, err)
					return
				}
				if ev.Grant != nil && tools != nil && !slices.Contains(tools, ev.Grant.Tool) || start && ev.passed(asked) {
					continue
				}
				if !yield(ev, nil) {
					return
				}
			}
			at, start = now, false
			// A heartbeat says "nothing unseen", and is believed as of now. If
			// the consumer took long over the events, that may be wrong: look
			// again first.
			if len(events) > 0 && time.Since(asked) > m.heartbeat/2 {
				continue
			}
			if !yield(Event{Rev: now}, nil) {
				return
			}
			select {
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
				return
			case <-wake:
			case <-tick.C:
			}
		}
	}
}

// after returns what the log has after at (all of it for the zero Rev), the
// newest Rev, and a channel that is closed by the next write; ErrResync if the
// log lacks some of what came after at.
func (m *Memory) after(at Rev) ([]Event, Rev, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at != (Rev{}) && (at.Epoch != m.epoch || at.N > m.n || at.N < m.floor) {
		return nil, Rev{}, nil, ErrResync
	}
	if m.wake == nil {
		m.wake = make(chan struct{})
	}
	i := sort.Search(len(m.log), func(i int) bool { return m.log[i].Rev.N > at.N })
	return m.log[i:len(m.log):len(m.log)], Rev{m.epoch, m.n}, m.wake, nil
}

// passed reports whether what the event tells can matter no more.
func (ev Event) passed(now time.Time) bool {
	switch {
	case ev.Task != nil:
		return !now.Before(ev.Task.Deadline)
	case ev.Grant != nil:
		return !now.Before(ev.Grant.Expires)
	default:
		return !now.Before(ev.Fence.Until)
	}
}

// Run calls Sweep every ten seconds until ctx ends, and returns its error.
func (m *Memory) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			m.Sweep(time.Now())
		}
	}
}

// Sweep forgets what can matter no more at time now: grants at their end, tasks
// at their deadline with their budgets, fences at their Until. It returns how
// many tasks, grants and fences those were. Nothing rests on its being called
// but memory and the bounds.
func (m *Memory) Sweep(now time.Time) int {
	m.sweeping.Lock()
	defer m.sweeping.Unlock()

	m.mu.Lock()
	log := m.log
	m.mu.Unlock()
	var dead []Event
	for _, ev := range log {
		if ev.passed(now) {
			dead = append(dead, ev)
		}
	}
	count := 0
	for some := range slices.Chunk(dead, sweepChunk) {
		count += m.forget(some)
	}
	// The log's dead entries only cost memory: rewriting it is worth it once
	// they are a quarter.
	if len(dead) == 0 || len(dead) < len(log)/4 {
		return count
	}
	kept := make([]Event, 0, len(log)-len(dead)/2)
	for _, ev := range log {
		if !ev.passed(now) {
			kept = append(kept, ev)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(kept, m.log[len(log):]...)
	m.floor = max(m.floor, dead[len(dead)-1].Rev.N)
	return count
}

// forget drops the entries that still stand. In order of Rev a grant comes
// before the fence that kills it, and goes before it.
func (m *Memory) forget(dead []Event) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	count := 0
	for _, ev := range dead {
		switch {
		case ev.Task != nil && m.tasks[ev.Task.ID] == ev.Task:
			delete(m.tasks, ev.Task.ID)
			for _, b := range m.shared[ev.Task.ID] {
				delete(m.accounts, b.Key)
			}
			delete(m.shared, ev.Task.ID)
		case ev.Grant != nil && m.grants[ev.Grant.ID] == ev.Grant:
			delete(m.grants, ev.Grant.ID)
			for _, b := range ev.Grant.Budgets {
				if b.Key == GrantBudget(ev.Grant.ID, b.Arg) {
					delete(m.accounts, b.Key)
				}
			}
		case ev.Fence != nil && m.fences[fenceKey{ev.Fence.Scope, ev.Fence.Key}] == ev.Fence:
			delete(m.fences, fenceKey{ev.Fence.Scope, ev.Fence.Key})
			if ev.Fence.Scope == ScopeAgent || ev.Fence.Scope == ScopeTool {
				m.forgot = max(m.forgot, ev.Rev.N)
			}
		default:
			continue
		}
		count++
	}
	return count
}
