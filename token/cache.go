package token

import (
	"crypto/sha256"
	"sync"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	cacheShards = 16
	// What one generation of a shard may hold. There are two, so that a cache
	// has at most 8,192 entries, of at most 16 MiB of text.
	generationEntries = 256
	generationBytes   = 512 << 10
)

// Cache remembers of texts whose signature was verified what they say, since
// verifying is most of what a check costs. It is no source of truth: an entry
// says "this very text was signed by this key set, and reads so". Whoever uses
// it compares the key set, the times and the audience at every use.
//
// The key is a hash of the WHOLE text: one of a part of it would give a
// tampered token the verdict of the genuine one. What does not verify is not
// kept, so only an issuer's own tokens take room. The zero value is empty and
// ready for concurrent use.
type Cache[V any] struct {
	shards [cacheShards]cacheShard[V]
}

// cacheShard turns its young generation into the old one when that is full, and
// forgets the old one. What is used moves to the young one.
type cacheShard[V any] struct {
	mu         sync.Mutex
	young, old map[grants.Digest]cacheEntry[V] // SHA-256 of a compact text -> what it says
	bytes      int                             // of the young generation
}

type cacheEntry[V any] struct {
	value V
	bytes int
}

// TextDigest is the key of a Cache: the SHA-256 of a compact text.
func TextDigest(compact string) grants.Digest { return sha256.Sum256([]byte(compact)) }

// Get returns what Put was given for the text with this digest.
func (c *Cache[V]) Get(text grants.Digest) (value V, ok bool) {
	s := &c.shards[text[0]%cacheShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.young[text]; ok {
		return e.value, true
	}
	e, ok := s.old[text]
	if ok {
		s.putLocked(text, e)
	}
	return e.value, ok
}

// Put keeps a value for the text with this digest, which weighs so many bytes.
// It replaces the one before. The value is shared: it must not change.
func (c *Cache[V]) Put(text grants.Digest, bytes int, value V) {
	s := &c.shards[text[0]%cacheShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(text, cacheEntry[V]{value, bytes})
}

func (s *cacheShard[V]) putLocked(text grants.Digest, e cacheEntry[V]) {
	before, again := s.young[text]
	if !again && (len(s.young) >= generationEntries || s.bytes+e.bytes > generationBytes) || s.young == nil {
		s.old, s.young, s.bytes = s.young, make(map[grants.Digest]cacheEntry[V]), 0
	}
	s.bytes += e.bytes - before.bytes
	s.young[text] = e
}
