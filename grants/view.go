package grants

import (
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// view is one history's worth of state. One goroutine writes it.
type view struct {
	seed   maphash.Seed
	shards [64]shard
	rev    atomic.Pointer[Rev]

	// While this view is built: the one that it will replace, and how far the
	// wall clock was set back since the Table was made. A deadline that was
	// counted there is not counted anew; one that was not (its end may have been
	// swept) is counted as if the clock had never been set back.
	before  *view
	setBack time.Duration

	mu     sync.RWMutex       // guards the maps below; written by the follower alone
	tasks  map[ID]*taskRecord // task id -> record
	marks  map[string]*mark   // scope and key -> mark of an agent, a tool, or a grant or task not (yet) here
	purses map[string]*purse  // budget key -> this node's share
}

type shard struct {
	mu     sync.RWMutex
	grants map[ID]*record // grant id -> record
}

// mark holds the last fence on something, as one word: the fence's Rev.N and
// its Reason. 0: never fenced.
type mark struct {
	word  atomic.Uint64
	refs  int       // records that point here; follower only
	until time.Time // not to be forgotten before; follower only
}

func (m *mark) set(n uint64, why Reason) { m.word.Store(n<<8 | uint64(why)) }

// kills returns why a grant written at revision n is dead, or None.
func (m *mark) kills(n uint64) Reason {
	w := m.word.Load()
	if w == 0 || w>>8 < n {
		return None
	}
	return Reason(w & 0xff)
}

type taskRecord struct {
	task     *Task
	mark     mark
	ended    time.Duration // of Clock: when its first fence came; follower only
	deadline deadline
	grants   map[ID]*record      // grant id -> record; guarded by view.mu
	budgets  map[string][]Budget // tool -> the budgets that its grants share; guarded by view.mu
}

// deadline is one instant on both clocks.
type deadline struct {
	wall int64         // Unix nanoseconds
	mono time.Duration // of Clock
}

func (d deadline) passed(wall time.Time, mono time.Duration) bool {
	return wall.UnixNano() >= d.wall || mono >= d.mono
}

func (d deadline) left(wall time.Time, mono time.Duration) time.Duration {
	return min(time.Duration(d.wall-wall.UnixNano()), d.mono-mono)
}

func deadlineAt(end, wall time.Time, mono time.Duration) deadline {
	return deadline{wall: end.UnixNano(), mono: mono + end.Sub(wall)}
}

// record is a grant as a lookup needs it. Immutable but for its mark.
type record struct {
	grant       *Grant
	constraints []*Constraint
	parent      *record // that it was delegated from; nil: none
	task        *taskRecord
	agent, tool *mark
	self        mark
	begins      int64 // Unix nanoseconds
	ends        deadline
	purses      []*purse // one per grant.Budgets
}

func (r *record) dead(wall time.Time, mono time.Duration) Reason {
	n := r.grant.Rev.N
	switch {
	case r.task.mark.word.Load() != 0: // whenever written: an ended task is ended
		return r.task.mark.kills(0)
	case r.task.deadline.passed(wall, mono):
		return TaskEnded
	case r.self.word.Load() != 0:
		return r.self.kills(0)
	}
	if why := r.agent.kills(n); why != None {
		return why
	}
	if why := r.tool.kills(n); why != None {
		return why
	}
	if r.parent != nil { // ending a parent ends its children
		if why := r.parent.dead(wall, mono); why != None {
			return why
		}
	}
	switch {
	case r.ends.passed(wall, mono):
		return Expired
	case wall.UnixNano() < r.begins-int64(MaxAhead):
		return NotYet
	}
	return None
}

func newView() *view {
	v := &view{
		seed:  maphash.MakeSeed(),
		tasks: map[ID]*taskRecord{}, marks: map[string]*mark{}, purses: map[string]*purse{},
	}
	v.rev.Store(&Rev{})
	for i := range v.shards {
		v.shards[i].grants = map[ID]*record{}
	}
	return v
}

func (v *view) shard(id ID) *shard {
	return &v.shards[maphash.String(v.seed, id)%uint64(len(v.shards))]
}

// apply takes in one event. The follower alone calls it.
func (v *view) apply(ev Event, wall time.Time, mono time.Duration) {
	v.mu.Lock()
	switch {
	case ev.Task != nil:
		v.addTask(ev.Task, wall, mono)
	case ev.Grant != nil:
		v.addGrant(ev.Grant, wall, mono)
	case ev.Fence != nil:
		v.addFence(ev.Fence, mono)
	}
	v.mu.Unlock()
	// Grants of one Issue share a Rev, so an event says only that whatever is
	// older is here; a heartbeat says that of its own Rev, too.
	rev := ev.Rev
	if !ev.heartbeat() {
		if rev.N == 0 {
			return
		}
		rev.N--
	}
	if rev.Compare(*v.rev.Load()) > 0 {
		v.rev.Store(&rev)
	}
}

func (v *view) addTask(task *Task, wall time.Time, mono time.Duration) {
	if v.tasks[task.ID] != nil {
		return
	}
	tr := &taskRecord{
		task: task, deadline: deadlineAt(task.Deadline, wall.Add(v.setBack), mono),
		grants: map[ID]*record{}, budgets: map[string][]Budget{},
	}
	if v.before != nil {
		if old := v.before.tasks[task.ID]; old != nil { // nobody writes there any more
			tr.deadline.mono = old.deadline.mono
		}
	}
	// A fence that came before its task, as it may in a first state.
	if m := v.marks[markKey(ScopeTask, task.ID)]; m != nil {
		tr.mark.word.Store(m.word.Load())
		tr.ended = mono
	}
	v.tasks[task.ID] = tr
}

func (v *view) addGrant(g *Grant, wall time.Time, mono time.Duration) {
	tr := v.tasks[g.Task]
	cs, err := CompileConstraints(g.Constraints)
	s := v.shard(g.ID)
	var parent *record
	if g.Parent != "" {
		if parent = v.shard(g.Parent).grants[g.Parent]; parent == nil {
			return
		}
	}
	if tr == nil || err != nil || len(g.Budgets) > MaxBudgets || s.grants[g.ID] != nil {
		// Without its task or parent, or with what this program cannot read or
		// count, it is not in the table, and so not live.
		return
	}
	r := &record{
		grant: g, constraints: cs, parent: parent, task: tr,
		agent: v.mark(ScopeAgent, g.Agent.ID()), tool: v.mark(ScopeTool, g.Tool),
		begins: g.NotBefore.UnixNano(), ends: deadlineAt(g.Expires, wall.Add(v.setBack), mono),
	}
	r.agent.refs++
	r.tool.refs++
	if v.before != nil {
		if old := v.before.shard(g.ID).grants[g.ID]; old != nil {
			r.ends.mono = old.ends.mono
		}
	}
	if m := v.marks[markKey(ScopeGrant, g.ID)]; m != nil {
		r.self.word.Store(m.word.Load())
	}
	for _, b := range g.Budgets {
		p := v.purses[b.Key]
		if p == nil {
			p = &purse{key: b.Key}
			v.purses[b.Key] = p
		}
		r.purses = append(r.purses, p)
		if b.Key == TaskBudget(g.Task, g.Tool, b.Arg) && !hasBudget(tr.budgets[g.Tool], b.Key) {
			tr.budgets[g.Tool] = append(tr.budgets[g.Tool], b)
		}
	}
	tr.grants[g.ID] = r
	s.mu.Lock()
	s.grants[g.ID] = r
	s.mu.Unlock()
}

func hasBudget(bs []Budget, key string) bool {
	for _, b := range bs {
		if b.Key == key {
			return true
		}
	}
	return false
}

func (v *view) addFence(f *Fence, mono time.Duration) {
	why := f.Why
	if why == None {
		why = Revoked
	}
	switch f.Scope {
	case ScopeTask:
		if tr := v.tasks[f.Key]; tr != nil {
			if tr.mark.word.Load() == 0 {
				tr.ended = mono
			}
			tr.mark.set(f.Rev.N, why)
			return
		}
	case ScopeGrant:
		s := v.shard(f.Key)
		if r := s.grants[f.Key]; r != nil { // the follower may read without the lock
			r.self.set(f.Rev.N, why)
			return
		}
	}
	m := v.mark(f.Scope, f.Key)
	m.set(f.Rev.N, why)
	if f.Until.After(m.until) {
		m.until = f.Until
	}
}

func markKey(s Scope, key string) string { return string(s) + "\x00" + key }

func (v *view) mark(s Scope, key string) *mark {
	k := markKey(s, key)
	m := v.marks[k]
	if m == nil {
		m = &mark{}
		v.marks[k] = m
	}
	return m
}

// forgetAfter is how long the dead are kept, so that a late call is told why.
const forgetAfter = time.Minute

// sweep frees what can matter no more. The follower alone calls it. A mark goes
// only when no record points at it: a record that kept a forgotten mark would
// not hear of the next fence.
func (v *view) sweep(wall time.Time, mono time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, tr := range v.tasks {
		over := tr.deadline.left(wall, mono) <= -forgetAfter ||
			tr.mark.word.Load() != 0 && mono-tr.ended >= forgetAfter
		for gid, r := range tr.grants {
			if !over && r.ends.left(wall, mono) > -forgetAfter {
				continue
			}
			r.agent.refs--
			r.tool.refs--
			for _, b := range r.grant.Budgets {
				if b.Key == GrantBudget(gid, b.Arg) {
					delete(v.purses, b.Key)
				}
			}
			delete(tr.grants, gid)
			s := v.shard(gid)
			s.mu.Lock()
			delete(s.grants, gid)
			s.mu.Unlock()
		}
		if over {
			for _, bs := range tr.budgets {
				for _, b := range bs {
					delete(v.purses, b.Key)
				}
			}
			delete(v.tasks, id)
		}
	}
	maps.DeleteFunc(v.marks, func(_ string, m *mark) bool {
		return m.refs == 0 && wall.After(m.until)
	})
}
