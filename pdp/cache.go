package pdp

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	freshFor   = 5 * time.Second // after a revision was last seen, decisions of it may be used
	maxEntries = 1 << 16
)

// cache holds decisions about the grants of tasks, by task. Every input of a
// decision and the revision of all that it rests on are in its key, so that what
// it holds can only be too old, never another question's.
type cache struct {
	now   func() time.Time
	limit time.Duration

	mu       sync.Mutex
	tasks    map[grants.ID]map[key]entry // task -> its decisions
	size     int
	revision string    // that the engine stated last; "": none
	asked    time.Time // when the question was put whose answer stated it
	seen     time.Time // when it was last seen; zero: the engine has not been reached since
	drops    uint64    // calls of drop
}

// key is a SHA-256 over a revision and a document.
type key [sha256.Size]byte

type entry struct {
	answer answer
	until  time.Time
	grant  grants.ID // "": one that is only asked for
	agent  string
	tool   string
}

func newCache(limit time.Duration) *cache {
	return &cache{now: time.Now, limit: limit, tasks: map[grants.ID]map[key]entry{}}
}

// keeps reports whether an answer to the question may be used again: it is about
// a grant of a task. Who starts, ends and revokes is asked once each, and a call
// without a grant has no task to hold it.
func keeps(in *grants.Input) bool {
	return in.Task != nil && in.Grant != nil && in.Action != grants.ActionRevoke
}

// keyOf is the key of a document's text under a revision.
func keyOf(basis grants.Digest, text []byte) key {
	return sha256.Sum256(append(basis[:], text...))
}

// keys are those under which an answer to the question may stand: for it as it
// is, and for it without its seconds.
func (q *question) keys(basis grants.Digest) (exact key, timeless key, has bool) {
	exact = keyOf(basis, q.text)
	if d := q.doc.timeless(); d != nil {
		text, err := d.text()
		return exact, keyOf(basis, text), err == nil
	}
	return exact, key{}, false
}

// timeless is the document without the seconds that pass; nil if it has none.
// What it says is the same for any of them, so that it is no document of the
// other kind: a grant that is called under has an age.
func (d *document) timeless() *document {
	if d.Grant == nil || d.Grant.Age == nil {
		return nil
	}
	rest, grant := *d, *d.Grant
	grant.TTL, grant.Age = 0, nil
	rest.Grant = &grant
	return &rest
}

// take gives the answers to all questions, or to none. The revision is the one
// seen last, in either case.
func (c *cache) take(now time.Time, asks []question, basis func(revision string) grants.Digest) ([]answer, string, bool) {
	c.mu.Lock()
	revision, usable := c.revision, c.revision != "" && now.Sub(c.seen) < freshFor
	c.mu.Unlock()
	if !usable || len(asks) == 0 {
		return nil, revision, false
	}
	digest := basis(revision) // not under mu: it is a caller's
	out := make([]answer, len(asks))
	for i, q := range asks {
		var ok bool
		if out[i], ok = c.find(now, &q, digest); !ok {
			return nil, revision, false
		}
	}
	return out, revision, true
}

func (c *cache) find(now time.Time, q *question, basis grants.Digest) (answer, bool) {
	if !keeps(q.in) {
		return answer{}, false
	}
	exact, timeless, has := q.keys(basis)
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.tasks[q.in.Task.ID]
	e, ok := held[exact]
	if (!ok || !now.Before(e.until)) && has {
		e, ok = held[timeless]
	}
	return e.answer, ok && now.Before(e.until)
}

// saw notes which revision answered a question that was put at the time. Another
// one than before ends all that is held. An answer that was overtaken by a later
// question's says nothing new.
func (c *cache) saw(asked time.Time, revision string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if asked.Before(c.asked) {
		return
	}
	if revision != c.revision {
		c.clearLocked()
	}
	c.revision, c.asked, c.seen = revision, asked, asked
}

// lost notes that the engine could not be reached: what it would say is not known.
func (c *cache) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = time.Time{}
}

// dropped is to be asked for before a question is put, and given to put.
func (c *cache) dropped() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// put keeps answers to questions that were put at the time, but for those of a
// revision that is over, and none if something was dropped meanwhile.
func (c *cache) put(asked time.Time, dropped uint64, asks []question, answers []answer, basis grants.Digest) {
	for i, q := range asks {
		a := answers[i]
		if !keeps(q.in) || a.revision == "" {
			continue
		}
		k, timeless, has := q.keys(basis)
		until := c.limit
		if has && a.cacheable > 0 {
			k, until = timeless, min(until, a.cacheable)
		}
		e := entry{
			answer: a, until: asked.Add(until),
			grant: q.doc.Grant.ID, agent: q.in.Grant.Agent.ID(), tool: q.in.Grant.Tool,
		}
		c.keep(q.in.Task.ID, k, e, dropped)
	}
}

func (c *cache) keep(task grants.ID, k key, e entry, dropped uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != dropped || c.revision != e.answer.revision {
		return
	}
	held := c.tasks[task]
	if _, again := held[k]; !again {
		if c.size >= maxEntries {
			return
		}
		c.size++
	}
	if held == nil {
		held = map[key]entry{}
		c.tasks[task] = held
	}
	held[k] = e
}

// drop forgets what a fence matches.
func (c *cache) drop(f grants.Fence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	if f.Scope == grants.ScopeTask {
		c.size -= len(c.tasks[f.Key])
		delete(c.tasks, f.Key)
		return
	}
	c.forgetLocked(func(e entry) bool {
		switch f.Scope {
		case grants.ScopeGrant:
			return e.grant == f.Key
		case grants.ScopeAgent:
			return e.agent == f.Key
		case grants.ScopeTool:
			return e.tool == f.Key
		}
		return true // a scope that is not known here matches all
	})
}

// expire forgets what may not be used any more.
func (c *cache) expire(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(func(e entry) bool { return !now.Before(e.until) })
}

func (c *cache) forgetLocked(match func(entry) bool) {
	for task, held := range c.tasks {
		before := len(held)
		maps.DeleteFunc(held, func(_ key, e entry) bool { return match(e) })
		if c.size -= before - len(held); len(held) == 0 {
			delete(c.tasks, task)
		}
	}
}

func (c *cache) clearLocked() {
	clear(c.tasks)
	c.size = 0
}

// stated is the revision seen last, and when.
func (c *cache) stated() (string, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision, c.seen
}
