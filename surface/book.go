package surface

import (
	"container/list"
	"sync"
	"time"
)

// key is an id of a server's. Servers make them up, so two may make the same.
type key struct{ server, id string }

// book remembers of ids what they belong to: at most so many in total and of each
// agent. A new one takes the place of the longest-unused, of the agent's or of
// all. Each operation takes the same time however many there are.
type book[V any] struct {
	most, each int           // entries, in total and of one agent
	life       time.Duration // of an entry
	renewed    bool          // its life begins anew with each use

	mu     sync.Mutex
	all    list.List             // of *entry[V], the last used first
	agents map[string]*list.List // agent -> its own of all, likewise; none is empty
	places map[key]place         // id -> where its entry stands
}

type entry[V any] struct {
	key   key
	agent string
	value V
	since time.Time
}

type place struct{ inAll, inAgent *list.Element }

func newBook[V any](most, each int, life time.Duration, renewed bool) *book[V] {
	return &book[V]{
		most: most, each: each, life: life, renewed: renewed,
		agents: map[string]*list.List{}, places: map[key]place{},
	}
}

// put says that the id is the agent's, and what it is. One that is known already
// stays what it is; put reports false where it is another agent's.
func (b *book[V]) put(now time.Time, k key, agent string, value V) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, known := b.useLocked(now, k); known {
		return e.agent == agent
	}
	if own := b.agents[agent]; own != nil && own.Len() >= b.each {
		b.dropLocked(own.Back().Value.(*entry[V]).key)
	}
	if b.all.Len() >= b.most {
		b.dropLocked(b.all.Back().Value.(*entry[V]).key)
	}
	own := b.agents[agent]
	if own == nil {
		own = list.New()
		b.agents[agent] = own
	}
	e := &entry[V]{key: k, agent: agent, value: value, since: now}
	b.places[k] = place{inAll: b.all.PushFront(e), inAgent: own.PushFront(e)}
	return true
}

// get returns whose the id is and what, and counts as a use of it.
func (b *book[V]) get(now time.Time, k key) (agent string, value V, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, known := b.useLocked(now, k)
	if !known {
		return "", value, false
	}
	return e.agent, e.value, true
}

// set changes what a known id is, and counts as a use of it.
func (b *book[V]) set(now time.Time, k key, value V) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, known := b.useLocked(now, k); known {
		e.value = value
	}
}

func (b *book[V]) drop(k key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropLocked(k)
}

// useLocked finds an entry that is not too old.
func (b *book[V]) useLocked(now time.Time, k key) (*entry[V], bool) {
	p, known := b.places[k]
	if !known {
		return nil, false
	}
	e := p.inAll.Value.(*entry[V])
	if now.Sub(e.since) >= b.life {
		b.dropLocked(k)
		return nil, false
	}
	if b.renewed {
		e.since = now
	}
	b.all.MoveToFront(p.inAll)
	b.agents[e.agent].MoveToFront(p.inAgent)
	return e, true
}

func (b *book[V]) dropLocked(k key) {
	p, known := b.places[k]
	if !known {
		return
	}
	delete(b.places, k)
	agent := b.all.Remove(p.inAll).(*entry[V]).agent
	own := b.agents[agent]
	own.Remove(p.inAgent)
	if own.Len() == 0 {
		delete(b.agents, agent)
	}
}
