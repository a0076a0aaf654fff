package broker

import (
	"context"
	"net/http"
	"sync"
)

const (
	// maxFlight bounds the requests in hand, and with maxBody their memory. What
	// is done and has its answer written is not in hand.
	maxFlight = 256
	// maxFlightSource is what one source address may have of them: many agents
	// can share an address.
	maxFlightSource = maxFlight / 2
	// maxFlightAgent is what one agent may have of them.
	maxFlightAgent = maxFlight / 8
	// keptFlight of them are kept, beside its source's own, for an agent that ends
	// a task, revokes or beats: what takes access away, or loses a task by its
	// absence, does not wait until others are served.
	keptFlight = maxFlight / 8
)

// slot is one request's place among those in hand.
type slot struct {
	source, agent string // keys in flight.by; "": not counted there
}

type slotKey struct{}

// counted lets a handler take a place, and gives it back if the handler has not:
// a door does before it writes, or who does not read would hold it.
func (f *flight) counted(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := new(slot)
		defer f.leave(s)
		next(w, r.WithContext(context.WithValue(r.Context(), slotKey{}, s)))
	})
}

// slotOf is the place of a request that came through Handler; nil for others.
func slotOf(r *request) *slot {
	s, _ := r.Context().Value(slotKey{}).(*slot)
	return s
}

// flight counts the requests in hand: all of them, and those of each source
// address and agent, so that slow ones of one do not take every place.
type flight struct {
	mu    sync.Mutex
	total int
	by    map[string]int // "s "+source or "a "+agent -> requests; none is 0
}

// enter takes a place for a request of source; urgent: it may have a kept one.
// One that did not come through Handler has no slot and is not counted: nothing
// would give its place back.
func (f *flight) enter(s *slot, source string, urgent bool) bool {
	if s == nil {
		return true
	}
	key := "s " + source
	all, own := maxFlight-keptFlight, maxFlightSource
	if urgent {
		all, own = all+keptFlight, own+keptFlight
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total >= all || f.by[key] >= own {
		return false
	}
	f.total++
	f.by[key]++
	s.source = key
	return true
}

// room reports whether an agent may have one more request in hand.
func (f *flight) room(agent string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by["a "+agent] < maxFlightAgent
}

// claim counts a request in hand for its agent, too.
func (f *flight) claim(s *slot, agent string) bool {
	if s == nil {
		return true
	}
	key := "a " + agent
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[key] >= maxFlightAgent {
		return false
	}
	f.by[key]++
	s.agent = key
	return true
}

// leave gives back what the request took; again, it does nothing.
func (f *flight) leave(s *slot) {
	if s == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.source != "" {
		f.total--
		f.dropLocked(s.source)
	}
	if s.agent != "" {
		f.dropLocked(s.agent)
	}
	*s = slot{}
}

func (f *flight) dropLocked(key string) {
	if f.by[key]--; f.by[key] <= 0 {
		delete(f.by, key)
	}
}
