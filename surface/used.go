package surface

import (
	"container/heap"
	"sync"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// used remembers which Passes have been used, each until it is good no more. When
// there is no room, of all or of an agent's, no other is taken.
type used struct {
	most, each int // in total and of one agent

	mu     sync.Mutex
	ids    map[string]struct{} // decision id, of all in ends
	agents map[string]int      // agent -> how many of them are its own
	ends   passes              // the first to end first
	forgot time.Time           // the latest end of one that is not remembered any more
}

func newUsed(most, each int) *used {
	return &used{most: most, each: each, ids: map[string]struct{}{}, agents: map[string]int{}}
}

// maxForgotten is how many are forgotten at a time, which bounds how long one
// waits for another. It is more than come at a time.
const maxForgotten = 64

// take uses a Pass up; false where it was before, or that is not known.
func (u *used) take(p mcp.Pass, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := 0; n < maxForgotten && len(u.ends) > 0 && u.ends[0].ends.Before(now); n++ {
		old := heap.Pop(&u.ends).(usedPass)
		delete(u.ids, old.id)
		if u.agents[old.agent]--; u.agents[old.agent] == 0 {
			delete(u.agents, old.agent)
		}
		u.forgot = old.ends // no earlier than any before: see the next condition
	}
	// A clock that was set back makes a forgotten Pass good again.
	if !p.Ends.After(u.forgot) {
		return false
	}
	if _, again := u.ids[p.Decision]; again || len(u.ends) >= u.most || u.agents[p.Agent] >= u.each {
		return false
	}
	u.ids[p.Decision] = struct{}{}
	u.agents[p.Agent]++
	heap.Push(&u.ends, usedPass{id: p.Decision, agent: p.Agent, ends: p.Ends})
	return true
}

type usedPass struct {
	id, agent string
	ends      time.Time
}

// passes is a heap.Interface.
type passes []usedPass

func (h passes) Len() int           { return len(h) }
func (h passes) Less(i, j int) bool { return h[i].ends.Before(h[j].ends) }
func (h passes) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *passes) Push(x any)        { *h = append(*h, x.(usedPass)) }

func (h *passes) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = usedPass{} // so that its texts are not kept
	*h = (*h)[:last]
	return x
}

// gate bounds the exchanges under way, in total, of each agent and of each method:
// of two methods, a quarter is kept for either.
type gate struct {
	most, each int

	mu      sync.Mutex
	empty   sync.Cond // total is 0
	total   int
	agents  map[string]int // agent -> its own of total; none is 0
	methods map[string]int // method -> its own of total; of those that are watched
	shut    bool
}

func newGate(most, each int) *gate {
	g := &gate{most: most, each: each, agents: map[string]int{}, methods: map[string]int{}}
	g.empty.L = &g.mu
	return g
}

// enter reports whether there is room; then leave is called after it.
func (g *gate) enter(agent, method string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut || g.total >= g.most || g.agents[agent] >= g.each || g.methods[method] >= g.most-g.most/4 {
		return false
	}
	g.total++
	g.agents[agent]++
	g.methods[method]++
	return true
}

func (g *gate) leave(agent, method string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.agents[agent]--; g.agents[agent] == 0 {
		delete(g.agents, agent)
	}
	g.methods[method]--
	if g.total--; g.total == 0 {
		g.empty.Broadcast()
	}
}

// close lets nobody in any more, and returns when all have left.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for g.total > 0 {
		g.empty.Wait()
	}
}
