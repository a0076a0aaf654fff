package broker

import (
	"container/list"
	"io"
	"sync"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	// stallTime is how long a body may bring no byte; readTime bounds all of it.
	stallTime = 2 * time.Second

	// maxReading bounds the bodies on their way, those of strangers and those of
	// agents each, and with maxBody their memory.
	maxReading       = 256
	maxReadingSource = maxReading / 2
	maxReadingAgent  = maxReading / 8

	// lingerTime is how long a body that nobody reads may keep its connection.
	// What is still on its way must be taken in, or the caller's TCP would drop
	// the answer with it.
	lingerTime = 500 * time.Millisecond
)

// bodies are those on their way. A body has no place among the requests in hand
// until it is whole, so that slow ones take none; and when there is no room for
// a new one, the one that has been on its way longest gives way: honest ones
// come with their headers, or a round trip later.
type bodies struct {
	each int // at most so many of one key

	mu  sync.Mutex
	all list.List             // *body; in front the longest on its way
	of  map[string]*list.List // source or agent id -> its part of all; none is empty
}

func newBodies(each int) *bodies { return &bodies{each: each, of: map[string]*list.List{}} }

// body is one on its way.
type body struct {
	key      string
	all, own *list.Element // guarded by bodies.mu; nil: it has no place

	mu       sync.Mutex
	over     bool // read, or cut off: deadline is not called any more
	deadline func(time.Time) error
}

// enter gives a body a place, and takes another's if need be.
func (bs *bodies) enter(b *body) {
	if victim := bs.place(b); victim != nil {
		victim.end(time.Now())
	}
}

func (bs *bodies) place(b *body) (victim *body) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	own := bs.of[b.key]
	if own == nil {
		own = new(list.List)
	}
	var first *list.Element
	switch {
	case own.Len() >= bs.each:
		first = own.Front()
	case bs.all.Len() >= maxReading:
		first = bs.all.Front()
	}
	if first != nil {
		victim = first.Value.(*body)
		bs.dropLocked(victim)
	}
	bs.of[b.key] = own
	b.all, b.own = bs.all.PushBack(b), own.PushBack(b)
	return victim
}

func (bs *bodies) leave(b *body) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.dropLocked(b)
}

// dropLocked takes a body's place away, once.
func (bs *bodies) dropLocked(b *body) {
	if b.all == nil {
		return
	}
	bs.all.Remove(b.all)
	own := bs.of[b.key]
	own.Remove(b.own)
	if own.Len() == 0 {
		delete(bs.of, b.key)
	}
	b.all, b.own = nil, nil
}

// wait lets the next byte come until then; false: the body has been cut off.
func (b *body) wait(until time.Time) bool { return b.set(until, false) }

// end sets the last deadline; false: another has. Of its reader and who takes its
// place, only the first touches the connection, which may be at its next request
// when the second comes.
func (b *body) end(until time.Time) bool { return b.set(until, true) }

func (b *body) set(until time.Time, last bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.over = last
	_ = b.deadline(until) // where there is none to set, the server's readTime holds alone
	return true
}

// read takes in the body: an agent's by the agent's share, a stranger's by its
// source's. Reasons: Encoding, TooLarge, Limit when it gave way to others,
// Malformed when it did not come.
func (l *limits) read(r *request) (grants.Reason, string) {
	if r.Header.Get("Content-Encoding") != "" {
		return grants.Encoding, "a content-encoding is not read: send the body as it is"
	}
	if r.ContentLength == 0 {
		return grants.None, ""
	}
	on, b := l.strangeBodies, &body{key: sourceOf(r.RemoteAddr), deadline: r.deadline}
	if r.verified() {
		on, b.key = l.agentBodies, r.who.Principal.ID()
	}
	on.enter(b)
	defer on.leave(b)
	end := time.Now().Add(readTime)
	text, err := io.ReadAll(io.LimitReader(patient{r, b, end}, maxBody+1))
	switch whole := b.end(end); {
	case !whole:
		return grants.Limit, "too many bodies are on their way, and this one was the slowest: send it at once"
	case err != nil:
		return grants.Malformed, "the body could not be read whole: it came too slowly, or was broken off"
	case len(text) > maxBody:
		return grants.TooLarge, "the body is over 64 KiB"
	}
	r.body = text
	return grants.None, ""
}

// patient reads a request's body for as long as it makes progress.
type patient struct {
	r   *request
	b   *body
	end time.Time
}

func (p patient) Read(to []byte) (int, error) {
	until := time.Now().Add(stallTime)
	if until.After(p.end) {
		until = p.end
	}
	if !p.b.wait(until) {
		return 0, io.ErrUnexpectedEOF
	}
	return p.r.Request.Body.Read(to)
}

// linger is for a request whose body nobody reads to its end.
func (r *request) linger() {
	if r.ContentLength != 0 {
		_ = r.deadline(time.Now().Add(lingerTime))
	}
}
