package grants

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxStaleness is how old a Table's view may be before it denies.
const DefaultMaxStaleness = 5 * time.Second

// MaxAhead is how far ahead of this node's clock a window may begin: another
// node issued it, and clocks differ. An end has no such allowance.
const MaxAhead = 5 * time.Second

// A Clock reads two clocks at once. Wall can be set; mono only runs forward,
// but may stand still while the machine sleeps. A deadline is kept on both and
// the earlier one ends it.
type Clock func() (wall time.Time, mono time.Duration)

var processStart = time.Now()

// SystemClock is the machine's.
func SystemClock() (time.Time, time.Duration) {
	now := time.Now()
	return now.Round(0), now.Sub(processStart)
}

// TableConfig says how a Table works.
type TableConfig struct {
	// Draw fetches this node's share of a budget, as Store.Draw does. Required.
	Draw func(ctx context.Context, budget string, want int64) (int64, error)
	// MaxStaleness is how long the Store may be silent; 0: DefaultMaxStaleness.
	MaxStaleness time.Duration
	// Clock; nil: SystemClock.
	Clock Clock
	// Broke hears why a Watch broke, each time; nil: nobody does.
	Broke func(error)
}

// Table is one node's view of the live grants, fed by Follow. A lookup never
// leaves the process, allocates nothing and takes one read lock of one of 1,024
// shards. A fence is one atomic store, however many grants it kills, because
// each grant points at the marks of its task, agent and tool. Expiry is judged
// at the lookup; sweeping only frees memory.
type Table struct {
	cfg  TableConfig
	view atomic.Pointer[view] // replaced as a whole when the Store's history starts anew

	mu      sync.Mutex
	waiters map[chan struct{}]Rev // closed once the view has reached the Rev

	firstWall time.Time // when the Table was made, on both clocks
	firstMono time.Duration

	heardMono atomic.Int64 // when the Store was last heard of, on both clocks
	heardWall atomic.Int64
}

// NewTable returns a Table that denies everything until Follow has seen the
// Store's present state.
func NewTable(cfg TableConfig) *Table {
	if cfg.MaxStaleness == 0 {
		cfg.MaxStaleness = DefaultMaxStaleness
	}
	if cfg.Clock == nil {
		cfg.Clock = SystemClock
	}
	t := &Table{cfg: cfg, waiters: map[chan struct{}]Rev{}}
	t.firstWall, t.firstMono = cfg.Clock()
	t.heardMono.Store(int64(-1 << 62))
	t.view.Store(newView())
	return t
}

// Live is a grant that a Lookup found live. It may have died since: ask Still.
type Live struct{ r *record }

// Grant returns the grant; not to be changed.
func (l Live) Grant() *Grant { return l.r.grant }

// Task returns the grant's task; not to be changed.
func (l Live) Task() *Task { return l.r.task.task }

// Constraints returns the compiled constraints; all must pass.
func (l Live) Constraints() []*Constraint {
	if l.r.limits == nil {
		return nil
	}
	return l.r.limits.constraints
}

// Now reads the table's clock, for rules that take a time.
func (t *Table) Now() time.Time {
	wall, _ := t.cfg.Clock()
	return wall
}

// Fresh reports whether the Store was heard of recently enough, by both
// clocks.
func (t *Table) Fresh() bool {
	wall, mono := t.cfg.Clock()
	return mono-time.Duration(t.heardMono.Load()) <= t.cfg.MaxStaleness &&
		wall.UnixNano()-t.heardWall.Load() <= int64(t.cfg.MaxStaleness)
}

// Rev is up to where the view is complete.
func (t *Table) Rev() Rev { return *t.view.Load().rev.Load() }

// Lookup returns the live grant with this id, or why there is none: NotFresh,
// UnknownGrant, NotYet, Expired, TaskEnded, Revoked or the fence's reason.
func (t *Table) Lookup(id ID) (Live, Reason) {
	if !t.Fresh() {
		return Live{}, NotFresh
	}
	r := t.view.Load().record(id)
	if r == nil {
		return Live{}, UnknownGrant
	}
	if why := r.dead(t.cfg.Clock()); why != None {
		return Live{}, why
	}
	return Live{r}, None
}

// Grant returns a grant and its task, live or dead, or nil: for the issue door,
// never to allow a call.
func (t *Table) Grant(id ID) (*Grant, *Task) {
	if r := t.view.Load().record(id); r != nil {
		return r.grant, r.task.task
	}
	return nil, nil
}

// Still returns None while the grant is live: to be asked again after every
// wait.
func (t *Table) Still(l Live) Reason {
	if !t.Fresh() {
		return NotFresh
	}
	// By id: after the view was replaced, the record in hand hears of no fence.
	now, why := t.Lookup(l.r.grant.ID)
	if why != None {
		return why
	}
	if now.r.grant.Rev != l.r.grant.Rev {
		return UnknownGrant
	}
	return None
}

// Left is how long the grant's window lasts from now on, by the clock that
// ends it first; never more than its task has.
func (t *Table) Left(l Live) time.Duration {
	wall, mono := t.cfg.Clock()
	return min(l.r.ends.left(wall, mono), l.r.task.deadline.left(wall, mono))
}

// Task returns an open task, or UnknownTask, TaskEnded or NotFresh.
func (t *Table) Task(id ID) (*Task, Reason) {
	if !t.Fresh() {
		return nil, NotFresh
	}
	tr, _ := t.view.Load().task(id)
	if tr == nil {
		return nil, UnknownTask
	}
	if !tr.open(t.cfg.Clock()) {
		return tr.task, TaskEnded
	}
	return tr.task, None
}

// TaskBudgets returns the budgets that the task's grants for the tool share,
// as the first of them set them.
func (t *Table) TaskBudgets(task ID, tool string) []Budget {
	tr, s := t.view.Load().task(task)
	if tr == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(tr.budgets[tool])
}

// Wait blocks until the view has reached rev; ctx bounds it, and its error is
// returned. A rev of an older epoch counts as reached.
func (t *Table) Wait(ctx context.Context, rev Rev) error {
	if t.Rev().Compare(rev) >= 0 {
		return nil
	}
	ch := make(chan struct{})
	t.mu.Lock()
	if t.Rev().Compare(rev) >= 0 {
		t.mu.Unlock()
		return nil
	}
	t.waiters[ch] = rev
	t.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.waiters, ch)
		t.mu.Unlock()
		return ctx.Err()
	}
}

func (t *Table) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiters) == 0 {
		return
	}
	rev := t.Rev()
	for ch, want := range t.waiters {
		if rev.Compare(want) >= 0 {
			close(ch)
			delete(t.waiters, ch)
		}
	}
}

// Follow keeps the view up to date from the store's Watch until ctx ends, whose
// error it returns. When the Watch breaks it builds a new view from the
// beginning and puts it in place of the old one once it is complete; until then
// the old one serves, and denies once it is older than MaxStaleness.
func (t *Table) Follow(ctx context.Context, s Store, tools []string) error {
	for {
		if err := t.follow(ctx, s, tools); t.cfg.Broke != nil && ctx.Err() == nil {
			t.cfg.Broke(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (t *Table) follow(ctx context.Context, s Store, tools []string) error {
	v, placed := newView(), false
	v.before = t.view.Load()
	for ev, err := range s.Watch(ctx, Rev{}, tools) {
		if err != nil {
			return err
		}
		wall, mono := t.cfg.Clock()
		if !placed {
			v.setBack = max(0, t.firstWall.Add(mono-t.firstMono).Sub(wall))
		}
		v.apply(ev, wall, mono)
		if !placed {
			// The first heartbeat says that the present state is complete.
			if !ev.heartbeat() {
				continue
			}
			v.built(mono)
			t.view.Store(v)
			placed = true
		}
		if ev.heartbeat() { // other events may have been under way for long
			t.heardMono.Store(int64(mono))
			t.heardWall.Store(wall.UnixNano())
		}
		t.wake()
		v.sweep(wall, mono)
	}
	return errors.New("watch: it ended")
}

// Counts are sizes of the table, for metrics and limits.
type Counts struct{ Tasks, Grants int }

// Counts returns what the table holds, dead ones that are not yet swept
// included.
func (t *Table) Counts() Counts {
	var c Counts
	v := t.view.Load()
	for i := range v.shards {
		s := &v.shards[i]
		s.mu.RLock()
		c.Tasks += len(s.tasks)
		c.Grants += len(s.grants)
		s.mu.RUnlock()
	}
	return c
}
