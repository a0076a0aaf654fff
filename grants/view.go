package grants

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// numShards splits a view so that who goes through all of it (a list, a sweep)
// holds one lock for a thousandth of the time: of 10^6 grants, some 0.2 ms.
const numShards = 1024

// view is one history's worth of state. One goroutine, the follower, writes it:
// it reads without a lock, and takes a shard's to change what lookups read.
type view struct {
	seed   maphash.Seed
	shards [numShards]shard
	rev    atomic.Pointer[Rev]

	// While this view is built: the one that it will replace, and how far the
	// wall clock was set back since the Table was made. A deadline that was
	// counted there is not counted anew; one that was not (its end may have been
	// swept) is counted as if the clock had never been set back.
	before  *view
	setBack time.Duration
	// Also while it is built: fences on what is not here yet. Later there are
	// none, because what is written comes in order of Rev: a fence on what is
	// not here kills nothing, and need not be kept.
	early map[fenceKey]*Fence

	// The follower's alone.
	marks  map[fenceKey]*sharedMark // of the agents and tools of the grants here
	purses map[string]*purse        // budget key -> this node's share
	swept  time.Duration            // of Clock: up to when shards have been swept
	next   int                      // the shard to be swept next
}

type shard struct {
	mu     sync.RWMutex
	grants map[ID]*record     // grant id -> record
	tasks  map[ID]*taskRecord // task id -> record
}

// mark holds the last fence on something, as one word: the fence's Rev.N and
// its Reason. 0: never fenced.
type mark struct{ word atomic.Uint64 }

// sharedMark is the mark of an agent or a tool.
type sharedMark struct {
	mark
	refs int // records that point here; follower only
}

func (m *mark) set(f *Fence) { m.word.Store(f.Rev.N<<8 | uint64(f.reason())) }

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
	newest   map[holding]*record // -> the last that was written, which leads to the older ones; guarded by its shard's mu
	budgets  map[string][]Budget // tool -> the budgets that its grants share; guarded by its shard's mu
}

// holding is a hash of tool and agent: an agent may have several grants for a
// tool in one task. Two that have the same hash share a list.
type holding uint64

func (v *view) holding(tool, agent string) holding {
	var h maphash.Hash
	h.SetSeed(v.seed)
	h.WriteString(tool)
	h.WriteByte(0)
	h.WriteString(agent)
	return holding(h.Sum64())
}

// over reports whether nobody needs to be told any more why the task has ended.
func (tr *taskRecord) over(wall time.Time, mono time.Duration) bool {
	return tr.deadline.left(wall, mono) <= -forgetAfter ||
		tr.mark.word.Load() != 0 && mono-tr.ended >= forgetAfter
}

// open reports whether the task has not ended.
func (tr *taskRecord) open(wall time.Time, mono time.Duration) bool {
	return tr.mark.word.Load() == 0 && !tr.deadline.passed(wall, mono)
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

// record is a grant as a lookup needs it. Immutable but for its mark and its
// place among the task's grants.
type record struct {
	grant       *Grant
	limits      *limits // nil: no constraints and no budgets
	parent      *record // that it was delegated from; nil: none
	task        *taskRecord
	agent, tool *sharedMark
	self        mark
	ends        deadline

	// Its neighbours in the task's holding; guarded by the mu of the task's
	// shard. One that has been taken out still leads to the older ones.
	newer, older *record
}

// limits are what a call under a grant is held to.
type limits struct {
	constraints []*Constraint
	purses      []*purse // one per Grant.Budgets
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
	case wall.Before(r.grant.NotBefore.Add(-MaxAhead)):
		return NotYet
	}
	return None
}

func newView() *view {
	v := &view{
		seed: maphash.MakeSeed(), early: map[fenceKey]*Fence{},
		marks: map[fenceKey]*sharedMark{}, purses: map[string]*purse{},
	}
	v.rev.Store(&Rev{})
	for i := range v.shards {
		v.shards[i].grants, v.shards[i].tasks = map[ID]*record{}, map[ID]*taskRecord{}
	}
	return v
}

func (v *view) shard(id ID) *shard {
	return &v.shards[maphash.String(v.seed, id)%numShards]
}

// record returns a grant's record; nil: unknown.
func (v *view) record(id ID) *record {
	s := v.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.grants[id]
}

// task returns a task's record and the shard that guards it; nil: unknown.
func (v *view) task(id ID) (*taskRecord, *shard) {
	s := v.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tasks[id], s
}
