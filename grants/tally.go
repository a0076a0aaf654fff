package grants

import (
	"container/heap"
	"time"
)

// tally is what counts against one bound: a heap, in which what ends first is
// first.
type tally struct {
	of   bounded
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

// bounded is who has a bound of its own: the owner of tasks, or who asked for
// grants together with the agent that holds them. What somebody else asks for
// in an agent's name does not spend what that agent may ask for itself, or
// whoever may ask for it could lock it out.
type bounded struct{ by, agent string } // agent ids; agent is "" for an owner

func ownerOf(t *Task) bounded   { return bounded{by: t.Owner.ID()} }
func holderOf(g *Grant) bounded { return bounded{by: g.Requester.ID(), agent: g.Agent.ID()} }

// tallies hold one tally for each that has anything.
type tallies map[bounded]*tally

func (ts tallies) add(of bounded, c *counted, end time.Time) {
	t := ts[of]
	if t == nil {
		t = &tally{of: of}
		ts[of] = t
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
		delete(ts, t.of)
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
	t := m.owners[ownerOf(task)]
	if m.perOwner <= 0 || t == nil || len(t.all) < m.perOwner {
		return false
	}
	m.owners.expire(t, now)
	return len(t.all) >= m.perOwner
}

// agentFullLocked reports whether the batch gives an agent more than it may
// have of one requester.
func (m *Memory) agentFullLocked(batch []*Grant, now time.Time) bool {
	if m.perAgent <= 0 {
		return false
	}
	more := map[bounded]int{}
	for _, g := range batch {
		of := holderOf(g)
		if old := m.grants[g.Renews]; old == nil || old.in == nil || old.in.of != of { // else it takes that one's place
			more[of]++
		}
	}
	for of, n := range more {
		if !m.fitsLocked(of, n, now) {
			return true
		}
	}
	return false
}

// fitsLocked reports whether there may be n more grants of one bound. Those that a
// fence on themselves or their task has ended count no more since then. What a
// fence on much else has ended is looked for here: once for each such fence, and
// only by who is at the bound, among no more than the bound.
func (m *Memory) fitsLocked(of bounded, n int, now time.Time) bool {
	t := m.agents[of]
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
