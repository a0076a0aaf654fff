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
	DefaultMaxBytes  = 1 << 30
)

const (
	maxHeartbeat = time.Second      // what Store.Watch promises
	sweepEvery   = 10 * time.Second // Memory.Run
	sweepChunk   = 1024             // entries forgotten under one hold of the lock
)

// MemoryConfig says how much a Memory may hold.
type MemoryConfig struct {
	MaxTasks  int // open tasks; 0: DefaultMaxTasks
	MaxGrants int // grants of open tasks, before their end; 0: DefaultMaxGrants
	// GrantsPerAgent bounds the live grants of one agent, TasksPerOwner the open
	// tasks of one owner; 0: no bound of its own.
	GrantsPerAgent, TasksPerOwner int
	MaxBytes                      int64         // of memory for tasks and grants, by estimate, with what one Table makes of them; 0: DefaultMaxBytes
	Heartbeat                     time.Duration // of each Watch; 0, or more than 1 s: 1 s
}

// Memory is a Store for one process. It dies with it: a new Memory is a new
// epoch and holds nothing, so every token that an earlier one issued is
// refused.
//
// A task or grant over the bounds is refused as Limit. An ended task and its
// grants count no more, but for their memory until Run has freed it. Fences are
// not bounded, because a revocation must not be refused; the broker fences only
// what its callers may fence.
type Memory struct {
	maxTasks, maxGrants int
	maxBytes            int64
	heartbeat           time.Duration
	epoch               uint64

	sweeping sync.Mutex // held over a whole Sweep; taken before mu
	swept    uint64     // N of the newest write when Sweep was last called; guarded by sweeping

	mu       sync.Mutex
	n        uint64              // of the newest write
	tasks    map[ID]*heldTask    // task id -> task
	grants   map[ID]heldGrant    // grant id -> grant
	fences   map[fenceKey]*Fence // -> the newest
	accounts map[string]int64    // budget key -> what is left
	open     int                 // tasks that have not ended
	live     int                 // grants of those
	bytes    int64               // of all tasks and grants
	lastEnd  time.Time           // no grant, dead or alive, ends later
	forgot   uint64              // N of the newest fence on an agent or tool that Sweep dropped
	log      []Event             // what was written, in order of Rev; appended to, never changed in place
	floor    uint64              // N of the newest event that log has lost
	wake     chan struct{}       // closed by the next write; nil: nobody waits
}

// heldTask is a task and what hangs on it.
type heldTask struct {
	task    *Task
	ended   bool     // fenced, or past its deadline and forgotten
	grants  int      // that are held
	budgets []Budget // for all of its tools
	// carriers are what a new Table learns the budgets from: for each the first
	// grant, and those that it was delegated from. They stay while the task is
	// open, because Issue compares the budgets for so long.
	carriers map[ID]bool // grant id ->
}

type heldGrant struct {
	grant *Grant
	task  *heldTask
	bytes int64
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
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Heartbeat <= 0 || c.Heartbeat > maxHeartbeat {
		c.Heartbeat = maxHeartbeat
	}
	return &Memory{
		maxTasks: c.MaxTasks, maxGrants: c.MaxGrants, maxBytes: c.MaxBytes, heartbeat: c.Heartbeat,
		epoch: uint64(time.Now().UnixMilli()),
		tasks: map[ID]*heldTask{}, grants: map[ID]heldGrant{}, fences: map[fenceKey]*Fence{},
		accounts: map[string]int64{},
	}
}

// Start implements Store.
func (m *Memory) Start(ctx context.Context, t Task) (Rev, Reason, error) {
	if err := ctx.Err(); err != nil {
		return Rev{}, None, err
	}
	own := copyTask(t, Rev{})
	bytes := own.bytes()
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev, why := m.viewLocked().CheckStart(*own, time.Now()); why != None || rev != (Rev{}) {
		return rev, why, nil
	}
	if m.open >= m.maxTasks || m.bytes+bytes > m.maxBytes {
		return Rev{}, Limit, nil
	}
	own.Rev = m.nextLocked()
	m.tasks[own.ID] = &heldTask{task: own}
	m.open++
	m.bytes += bytes
	m.log = append(m.log, Event{Rev: own.Rev, Task: own})
	return own.Rev, None, nil
}

// Issue implements Store.
func (m *Memory) Issue(ctx context.Context, batch []Grant) (Rev, Reason, error) {
	if err := ctx.Err(); err != nil {
		return Rev{}, None, err
	}
	own, bytes, all := make([]*Grant, len(batch)), make([]int64, len(batch)), int64(0)
	for i, g := range batch {
		own[i] = copyGrant(g, g.Rev)
		bytes[i] = own[i].bytes()
		all += bytes[i]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev, why := m.viewLocked().CheckIssue(own, time.Now()); why != None || rev != (Rev{}) {
		return rev, why, nil
	}
	if m.live+len(own) > m.maxGrants || m.bytes+all > m.maxBytes {
		return Rev{}, Limit, nil
	}
	rev := m.nextLocked()
	for i, g := range own {
		g.Rev = rev
		h := m.tasks[g.Task]
		m.grants[g.ID] = heldGrant{g, h, bytes[i]}
		h.grants++
		m.live++
		m.bytes += bytes[i]
		m.lastEnd = later(m.lastEnd, g.Expires)
		m.budgetsLocked(g, h)
		m.log = append(m.log, Event{Rev: rev, Grant: g})
	}
	return rev, None, nil
}

// budgetsLocked opens the budgets of a grant that are new.
func (m *Memory) budgetsLocked(g *Grant, h *heldTask) {
	for _, b := range g.Budgets {
		if _, open := m.accounts[b.Key]; open {
			continue
		}
		m.accounts[b.Key] = b.Limit
		if b.Key == TaskBudget(g.Task, g.Tool, b.Arg) {
			h.budgets = append(h.budgets, b)
			h.carry(g, m.grants)
		}
	}
}

// carry keeps a grant and those that it was delegated from: without them, a
// Table would not take it.
func (h *heldTask) carry(g *Grant, grants map[ID]heldGrant) {
	if h.carriers == nil {
		h.carriers = map[ID]bool{}
	}
	for ; g != nil; g = grants[g.Parent].grant {
		h.carriers[g.ID] = true
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
	if f.Scope == ScopeTask {
		m.endLocked(m.tasks[f.Key])
	}
	own.Rev = m.nextLocked()
	m.fences[fenceKey{f.Scope, f.Key}] = &own
	m.log = append(m.log, Event{Rev: own.Rev, Fence: &own})
	return own.Rev, nil
}

// endLocked makes room for as much as the task and its grants have counted.
func (m *Memory) endLocked(h *heldTask) {
	if h == nil || h.ended {
		return
	}
	h.ended = true
	m.open--
	m.live -= h.grants
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
		Task:      func(id ID) *Task { return m.heldLocked(id).task },
		Grant:     func(id ID) *Grant { return m.grants[id].grant },
		Fence:     func(s Scope, key string) *Fence { return m.fences[fenceKey{s, key}] },
		Budgets:   func(task ID) []Budget { return m.heldLocked(task).budgets },
		Now:       Rev{m.epoch, m.n},
		Forgotten: m.forgotLocked(),
	}
}

// heldLocked is a task, or an empty one if there is none.
func (m *Memory) heldLocked(id ID) heldTask {
	if h := m.tasks[id]; h != nil {
		return *h
	}
	return heldTask{}
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
				if ev.Grant != nil && tools != nil && !slices.Contains(tools, ev.Grant.Tool) {
					continue
				}
				if start && ev.passed(asked) && !m.carries(ev) {
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

// carries reports whether the event is of a grant that is kept beyond its end,
// for its budgets.
func (m *Memory) carries(ev Event) bool {
	if ev.Grant == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, kept := m.standsLocked(ev)
	return kept
}

// passed reports whether what the event tells can matter no more at that time.
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
