package grants

import (
	"container/heap"
	"time"
)

// tally is what one agent or owner has that counts against its bound: a heap, in
// which what ends first is first.
type tally struct {
	id   string
	all  []*counted
	seen uint64 // N of the newest fence that is known to have ended none of these
}

// counted is one entry.
type counted struct {
	in    *tally // nil: it does not count
	at    int    // in in.all
	end   int64  // Unix nanoseconds
	grant *Grant // nil: it is a task
}

// tallies hold one tally for each agent or owner that has anything.
type tallies map[string]*tally

func (ts tallies) add(id string, c *counted, end time.Time) {
	t := ts[id]
	if t == nil {
		t = &tally{id: id}
		ts[id] = t
	}
	c.in, c.end = t, end.UnixNano()
	heap.Push(t, c)
}

// remove lets an entry count no more; one that does not is left alone.
func (ts tallies) remove(c *counted) {
	t := c.in
	if t == nil {
		return
	}
	heap.Remove(t, c.at)
	if c.in = nil; len(t.all) == 0 {
		delete(ts, t.id)
	}
}

// expire removes what has ended by time alone. Each entry is removed once, so
// that it costs whoever asks too often nothing.
func (ts tallies) expire(t *tally, now time.Time) {
	for len(t.all) > 0 && t.all[0].end <= now.UnixNano() {
		ts.remove(t.all[0])
	}
}

// ownerFullLocked reports whether the task's owner may have no further one. A
// task that was ended counts no more since then.
func (m *Memory) ownerFullLocked(task *Task, now time.Time) bool {
	t := m.owners[task.Owner.ID()]
	if m.perOwner <= 0 || t == nil || len(t.all) < m.perOwner {
		return false
	}
	m.owners.expire(t, now)
	return len(t.all) >= m.perOwner
}

// agentFullLocked reports whether the batch gives an agent more than it may
// have.
func (m *Memory) agentFullLocked(batch []*Grant, now time.Time) bool {
	if m.perAgent <= 0 {
		return false
	}
	more := map[string]int{}
	for _, g := range batch {
		if old := m.grants[g.Renews]; old == nil || old.in == nil { // else it takes that one's place
			more[g.Agent.ID()]++
		}
	}
	for agent, n := range more {
		if !m.fitsLocked(agent, n, now) {
			return true
		}
	}
	return false
}

// fitsLocked reports whether the agent may have n more grants. Those that a
// fence on themselves or their task has ended count no more since then. What a
// fence on much else has ended is looked for here: once for each such fence, and
// only by who is at the bound, among no more than the bound.
func (m *Memory) fitsLocked(agent string, n int, now time.Time) bool {
	t := m.agents[agent]
	if t == nil {
		return n <= m.perAgent
	}
	fits := func() bool { return len(t.all)+n <= m.perAgent }
	if fits() {
		return true
	}
	m.agents.expire(t, now)
	if fits() || t.seen >= m.moved {
		return fits()
	}
	t.seen = m.moved
	v := m.viewLocked()
	var dead []*counted
	for _, c := range t.all {
		if !v.live(c.grant, now) {
			dead = append(dead, c)
		}
	}
	for _, c := range dead {
		m.agents.remove(c)
	}
	return fits()
}

// The five methods of heap.Interface.

func (t *tally) Len() int           { return len(t.all) }
func (t *tally) Less(i, j int) bool { return t.all[i].end < t.all[j].end }

func (t *tally) Swap(i, j int) {
	t.all[i], t.all[j] = t.all[j], t.all[i]
	t.all[i].at, t.all[j].at = i, j
}

func (t *tally) Push(c any) {
	c.(*counted).at = len(t.all)
	t.all = append(t.all, c.(*counted))
}

func (t *tally) Pop() any {
	last := len(t.all) - 1
	c := t.all[last]
	t.all[last] = nil
	t.all = t.all[:last]
	return c
}
