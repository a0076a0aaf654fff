package grants

import (
	"context"
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
	// GrantsPerAgent bounds the live grants of one agent that it asked for itself
	// and, each apart, those that one other requester asked for in its name, so
	// that nobody spends what the agent may have by asking for it. TasksPerOwner
	// bounds the open tasks of one owner. 0: no bound of its own. What has ended
	// for whatever reason counts no more, at once. A grant that renews another of
	// the same requester counts in its place.
	GrantsPerAgent, TasksPerOwner int
	MaxBytes                      int64         // of memory for tasks and grants, by estimate, with what one Table makes of them; 0: DefaultMaxBytes
	Heartbeat                     time.Duration // of each Watch; 0, or more than 1 s: 1 s
}

// Memory is a Store for one process. It dies with it: a new Memory is a new
// epoch and holds nothing, so every token that an earlier one issued is
// refused.
//
// A task or grant over the bounds is refused as Limit. An ended task and its
// grants count no more, but for their memory until Run has freed it. A fence is
// never refused. Those on agents and tools are at most one for each agent and
// tool that has a grant here, and maxIdle more (idleLocked); those on grants and
// tasks stand until their Until, and the broker fences only what is there.
type Memory struct {
	maxTasks, maxGrants int
	perAgent, perOwner  int // 0: no bound
	maxBytes            int64
	heartbeat           time.Duration
	epoch               uint64

	sweeping sync.Mutex // held over a whole Sweep; taken before mu
	swept    uint64     // N of the newest write when Sweep was last called; guarded by sweeping

	mu       sync.Mutex
	n        uint64              // of the newest write
	tasks    map[ID]*heldTask    // task id -> task
	grants   map[ID]*heldGrant   // grant id -> grant
	fences   map[fenceKey]*Fence // -> the newest
	accounts map[string]account  // budget key -> account
	open     int                 // tasks that have not ended
	live     int                 // grants of those
	bytes    int64               // of all tasks and grants
	owners   tallies             // owner -> open tasks; if they are bounded
	agents   tallies             // requester and agent -> live grants; if they are bounded
	moved    uint64              // N of the newest fence that may have ended grants which agents still counts
	held     map[fenceKey]int    // agent or tool -> grants here
	idle     []*Fence            // on agents and tools, that kill nothing here; oldest first
	lastEnd  time.Time           // no grant, dead or alive, ends later
	forgot   uint64              // N of the newest fence on an agent or tool that was dropped
	log      []Event             // what was written, in order of Rev; appended to, never changed in place
	floor    uint64              // N of the newest event that log has lost
	wake     chan struct{}       // closed by the next write; nil: nobody waits
}

// heldTask is a task and what hangs on it.
type heldTask struct {
	task    *Task
	ended   bool         // fenced, or past its deadline and forgotten
	counted counted      // among its owner's
	grants  []*heldGrant // all that are here
	budgets []Budget     // for all of its tools
	// carriers are what a new Table learns the budgets from: for each the first
	// grant, and those that it was delegated from. They stay while the task is
	// open, because Issue compares the budgets for so long.
	carriers map[ID]bool // grant id ->
}

type heldGrant struct {
	counted   // among its agent's, of its requester
	task      *heldTask
	place     int // in task.grants
	bytes     int64
	delegated bool // others hang on it
}

// account is what is left of a budget. That of a task lives as long as the task,
// that of a grant as long as any grant here carries it: one that renews it does,
// when the grant itself is long forgotten.
type account struct {
	left     int64
	carriers int
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
		perAgent: c.GrantsPerAgent, perOwner: c.TasksPerOwner,
		epoch: uint64(time.Now().UnixMilli()),
		tasks: map[ID]*heldTask{}, grants: map[ID]*heldGrant{}, fences: map[fenceKey]*Fence{},
		accounts: map[string]account{}, owners: tallies{}, agents: tallies{}, held: map[fenceKey]int{},
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
	now := time.Now()
	if rev, why := m.viewLocked().CheckStart(*own, now); why != None || rev != (Rev{}) {
		return rev, why, nil
	}
	if m.open >= m.maxTasks || m.bytes+bytes > m.maxBytes || m.ownerFullLocked(own, now) {
		return Rev{}, Limit, nil
	}
	own.Rev = m.nextLocked()
	h := &heldTask{task: own}
	m.tasks[own.ID] = h
	if m.perOwner > 0 {
		m.owners.add(ownerOf(own), &h.counted, own.Deadline)
	}
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
	now := time.Now()
	if rev, why := m.viewLocked().CheckIssue(own, now); why != None || rev != (Rev{}) {
		return rev, why, nil
	}
	if m.live+len(own) > m.maxGrants || m.bytes+all > m.maxBytes || m.agentFullLocked(own, now) {
		return Rev{}, Limit, nil
	}
	rev := m.nextLocked()
	for i, g := range own {
		g.Rev = rev
		m.addLocked(g, bytes[i])
		m.log = append(m.log, Event{Rev: rev, Grant: g})
	}
	return rev, None, nil
}

func (m *Memory) addLocked(g *Grant, bytes int64) {
	task := m.tasks[g.Task]
	h := &heldGrant{counted: counted{grant: g}, task: task, place: len(task.grants), bytes: bytes}
	m.grants[g.ID] = h
	task.grants = append(task.grants, h)
	m.live++
	m.bytes += bytes
	for _, k := range heldKeys(g) {
		m.held[k]++
	}
	m.lastEnd = later(m.lastEnd, g.Expires)
	m.budgetsLocked(g, task)
	if p := m.grants[g.Parent]; p != nil {
		p.delegated = true
	}
	if m.perAgent > 0 {
		if old := m.grants[g.Renews]; old != nil {
			m.agents.remove(&old.counted)
		}
		m.agents.add(holderOf(g), &h.counted, g.Expires)
	}
}

// heldKeys are what a fence on many grants would match this one by.
func heldKeys(g *Grant) [2]fenceKey {
	return [...]fenceKey{{ScopeAgent, g.Agent.ID()}, {ScopeTool, g.Tool}}
}

// budgetsLocked opens the budgets of a grant that are new, and has it carry all.
func (m *Memory) budgetsLocked(g *Grant, h *heldTask) {
	for _, b := range g.Budgets {
		a, open := m.accounts[b.Key]
		switch b.Key {
		case TaskBudget(g.Task, g.Tool, b.Arg):
			if open {
				continue
			}
			a.left = b.Limit
			h.budgets = append(h.budgets, b)
			h.carry(g, m.grants)
		case GrantBudget(g.ID, b.Arg):
			a.left = b.Limit
			a.carriers++
		default: // of a grant that it renews or hangs on, which carries it too
			a.carriers++
		}
		m.accounts[b.Key] = a
	}
}

// carry keeps a grant and those that it was delegated from: without them, a
// Table would not take it.
func (h *heldTask) carry(g *Grant, grants map[ID]*heldGrant) {
	if h.carriers == nil {
		h.carriers = map[ID]bool{}
	}
	h.carriers[g.ID] = true
	for p := grants[g.Parent]; p != nil; p = grants[p.grant.Parent] {
		h.carriers[p.grant.ID] = true
	}
}

// Draw implements Store.
func (m *Memory) Draw(ctx context.Context, budget string, want int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a, open := m.accounts[budget]
	got := max(0, min(want, a.left))
	if open {
		a.left -= got
		m.accounts[budget] = a
	}
	return got, nil
}

// viewLocked is what the rules see; good only while mu is held.
func (m *Memory) viewLocked() View {
	return View{
		Task:      func(id ID) *Task { return m.heldLocked(id).task },
		Grant:     m.grantLocked,
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

func (m *Memory) grantLocked(id ID) *Grant {
	if h := m.grants[id]; h != nil {
		return h.grant
	}
	return nil
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
