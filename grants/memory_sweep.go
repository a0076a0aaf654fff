package grants

import (
	"context"
	"slices"
	"sort"
	"time"
)

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

// Sweep forgets what can matter no more at time now: grants at their end but
// for the carriers of an open task's budgets; tasks that have ended, with all
// that is theirs; fences at their Until. It returns how many tasks, grants and
// fences those were. Nothing rests on its being called but memory and the bounds.
func (m *Memory) Sweep(now time.Time) int {
	m.sweeping.Lock()
	defer m.sweeping.Unlock()

	m.mu.Lock()
	log, n := m.log, m.n
	m.mu.Unlock()
	ended := endedTasks(log, now)
	over := func(ev Event) bool {
		return ev.passed(now) || ev.Task != nil && ended[ev.Task.ID] || ev.Grant != nil && ended[ev.Grant.Task]
	}
	var dead []Event
	for _, ev := range log {
		if over(ev) || ev.wide() { // of those there may be a newer one
			dead = append(dead, ev)
		}
	}
	count := 0
	forgotten := dead[:0]
	for some := range slices.Chunk(dead, sweepChunk) {
		var fresh int
		some, fresh = m.forget(some, over)
		forgotten = append(forgotten, some...)
		count += fresh
	}
	m.cut(log, forgotten)
	m.swept = n
	return count
}

// endedTasks are those with a fence. (One that has passed tells nothing: what it
// ended has passed too, and the id may have been used again.)
func endedTasks(log []Event, now time.Time) map[ID]bool {
	ended := map[ID]bool{}
	for _, ev := range log {
		if ev.Fence != nil && ev.Fence.Scope == ScopeTask && !ev.passed(now) {
			ended[ev.Fence.Key] = true
		}
	}
	return ended
}

// wide reports whether the event is a fence on an agent or a tool, which may be
// fenced any number of times.
func (ev Event) wide() bool {
	return ev.Fence != nil && (ev.Fence.Scope == ScopeAgent || ev.Fence.Scope == ScopeTool)
}

// forget drops those of the entries that still stand and are over, and counts
// them. It returns these and all that do not stand; what stays are the carriers,
// and fences that are not over. The slice is some's. In order of Rev a grant
// comes before the fence that kills it, and goes before it.
func (m *Memory) forget(some []Event, over func(Event) bool) (forgotten []Event, fresh int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	forgotten = some[:0]
	for _, ev := range some {
		switch stands, kept := m.standsLocked(ev); {
		case kept, stands && !over(ev):
			continue
		case stands:
			m.dropLocked(ev)
			fresh++
		}
		forgotten = append(forgotten, ev)
	}
	return forgotten, fresh
}

// standsLocked reports whether what the event wrote is still there, and whether
// that is a grant that is to stay beyond its end.
func (m *Memory) standsLocked(ev Event) (stands, kept bool) {
	switch {
	case ev.Task != nil:
		return m.heldLocked(ev.Task.ID).task == ev.Task, false
	case ev.Grant != nil:
		h := m.grants[ev.Grant.ID]
		stands = h != nil && h.grant == ev.Grant
		return stands, stands && !h.task.ended && h.task.carriers[ev.Grant.ID]
	default:
		return m.fences[fenceKey{ev.Fence.Scope, ev.Fence.Key}] == ev.Fence, false
	}
}

func (m *Memory) dropLocked(ev Event) {
	switch {
	case ev.Task != nil:
		m.dropTaskLocked(m.tasks[ev.Task.ID])
	case ev.Grant != nil:
		m.dropGrantLocked(m.grants[ev.Grant.ID])
	default:
		m.dropFenceLocked(ev.Fence)
	}
}

func (m *Memory) dropTaskLocked(h *heldTask) {
	m.endLocked(h)
	delete(m.tasks, h.task.ID)
	m.bytes -= h.task.bytes()
	for _, b := range h.budgets {
		delete(m.accounts, b.Key)
	}
}

func (m *Memory) dropGrantLocked(h *heldGrant) {
	g, all := h.grant, h.task.grants
	delete(m.grants, g.ID)
	last := all[len(all)-1]
	all[h.place], last.place = last, h.place
	all[len(all)-1] = nil
	h.task.grants = all[:len(all)-1]
	m.agents.remove(&h.counted)
	m.bytes -= h.bytes
	if !h.task.ended {
		m.live--
	}
	for _, k := range heldKeys(g) {
		if m.held[k]--; m.held[k] > 0 {
			continue
		}
		delete(m.held, k)
		if f := m.fences[k]; f != nil {
			m.idleLocked(f)
		}
	}
	for _, b := range g.Budgets {
		if b.Key == TaskBudget(g.Task, g.Tool, b.Arg) {
			continue
		}
		if a := m.accounts[b.Key]; a.carriers > 1 {
			a.carriers--
			m.accounts[b.Key] = a
		} else {
			delete(m.accounts, b.Key)
		}
	}
}

// cut takes the forgotten out of the log, which begins with old and is in the
// same order. What was written since the Sweep before stays for one more: a
// watcher that is not so far behind loses nothing.
func (m *Memory) cut(old, forgotten []Event) {
	i := sort.Search(len(forgotten), func(i int) bool { return forgotten[i].Rev.N > m.swept })
	if forgotten = forgotten[:i]; i == 0 {
		return
	}
	floor := forgotten[i-1].Rev.N
	kept := make([]Event, 0, len(old)-i)
	for _, ev := range old {
		if len(forgotten) > 0 && ev == forgotten[0] {
			forgotten = forgotten[1:]
		} else {
			kept = append(kept, ev)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(kept, m.log[len(old):]...)
	m.floor = max(m.floor, floor)
}

// What a task and a grant cost without their texts: measured, with a Table that
// follows and all bounds counted, it is 540 to 570 and 1,010 to 1,040 bytes
// (BenchmarkMemoryBytes).
const (
	taskBytes  = 700
	grantBytes = 1100
)

func (t *Task) bytes() int64 {
	n := taskBytes + t.Owner.bytes() + len(t.Kind) + len(t.Params)
	for _, a := range t.Agents {
		n += 16 + len(a)
	}
	return int64(n)
}

// bytes counts the constraints' text twice, because a Table's compiled ones keep
// some of it, and their state: that is no multiple of the text (MaxConstraintsBytes).
func (g *Grant) bytes() int64 {
	n := grantBytes + g.Agent.bytes() + g.Requester.bytes() + len(g.Client) + len(g.Tool) + 2*constraintsBytes(g.Constraints)
	for _, a := range g.Actors {
		n += 16 + len(a)
	}
	for _, b := range g.Budgets {
		n += 200 + 2*len(b.Key) + len(b.Arg)
	}
	cs, _ := CompileConstraints(g.Constraints) // what does not compile, no Table keeps
	for _, c := range cs {
		n += c.state
	}
	return int64(n)
}

func (p *Principal) bytes() int {
	n := len(p.Issuer) + len(p.Subject)
	for _, g := range p.Groups {
		n += 16 + len(g)
	}
	for k, v := range p.Tags {
		n += 64 + len(k) + len(v)
	}
	return n
}
