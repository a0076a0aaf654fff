package broker

import (
	"context"
	"net/http"
	"sync"
)

const (
	// maxFlight bounds the requests in hand, and with maxBody their memory.
	maxFlight = 256
	// maxFlightSource is what one source address may have of them: many agents
	// can share an address.
	maxFlightSource = maxFlight / 2
	// maxFlightAgent is what one agent may have of them.
	maxFlightAgent = maxFlight / 8
)

// slot is one request's place among those in hand.
type slot struct {
	source, agent string // keys in flight.by; "": not counted there
}

type slotKey struct{}

// serve runs the handler with a place for it, which it gives back.
func (f *flight) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s := new(slot)
	defer f.leave(s)
	next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), slotKey{}, s)))
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

// enter takes a place for a request of source. One that did not come through
// Handler has no slot and is not counted: nothing would give its place back.
func (f *flight) enter(s *slot, source string) bool {
	if s == nil {
		return true
	}
	key := "s " + source
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total >= maxFlight || f.by[key] >= maxFlightSource {
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
