package identity

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	// maxReplays is how many assertions of one client may be remembered: over
	// 50 a second at the longest life that one may have. Each client has its
	// own, so that none can keep another out.
	maxReplays = 16384

	sweepEvery = time.Minute
	sweepFull  = time.Second // when there is no room
)

// replays remembers what was used, until its end. It never forgets to make
// room. The zero value is empty and ready for concurrent use.
type replays struct {
	mu    sync.Mutex
	seen  map[grants.Digest]time.Time // SHA-256 of a jti -> exp
	swept time.Time                   // what ended by then is forgotten
}

// once is nil the first time that it is called with this jti.
func (r *replays) once(jti string, expires, now time.Time) error {
	key := grants.Digest(sha256.Sum256([]byte(jti)))
	r.mu.Lock()
	defer r.mu.Unlock()
	if idle := now.Sub(r.swept); idle >= sweepEvery || len(r.seen) >= maxReplays && idle >= sweepFull {
		r.sweepLocked(now)
	}
	// A clock that was set back brings back the time of what is forgotten.
	if !expires.After(r.swept) {
		return ErrAssertionPast
	}
	if _, used := r.seen[key]; used {
		return ErrReplay
	}
	if len(r.seen) >= maxReplays {
		return ErrBusy
	}
	if r.seen == nil {
		r.seen = make(map[grants.Digest]time.Time)
	}
	r.seen[key] = expires
	return nil
}

func (r *replays) sweepLocked(now time.Time) {
	r.swept = now
	maps.DeleteFunc(r.seen, func(_ grants.Digest, expires time.Time) bool { return !expires.After(now) })
}
