package cedar

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// LiveConfig says how a Live follows its directory. Hooks run one at a time, in
// the order of what they report, and on the goroutine of the Run or Reload that
// found it; they must not call Reload.
type LiveConfig struct {
	Every     time.Duration       // how often Run looks; 0: 1 s
	OnReload  func(old, new *Set) // another revision is in force; nil: nobody asks
	OnFailure func(error)         // the directory did not load, and the last good set stays; nil: nobody asks
}

// Live is the set of a directory that may change, with the manifests beside it. A
// set is swapped as a whole: whatever becomes of the directory or of the folder of
// manifests (broken, emptied, unreadable, gone), the last good set stays in force.
// It is safe for concurrent use.
type Live struct {
	cfg     Config
	live    LiveConfig
	state   atomic.Pointer[state]
	loading sync.Mutex // one load at a time, its hooks included; no reader waits for it
}

// state is what a Live knows, never changed.
type state struct {
	set      *Set
	loaded   time.Time // when set came into force
	failed   error     // of the last load; nil: it gave set
	failedAt time.Time
	seen     fingerprint // what the last load read
}

// fingerprint is a SHA-256 of what a directory holds or, if it cannot be read, of
// why.
type fingerprint [sha256.Size]byte

// Open loads the directory, and the manifests, for the first time; with what does
// not load there is no Live. Catalogue and groups stay those of cfg.
func Open(cfg Config, live LiveConfig) (*Live, error) {
	if live.Every <= 0 {
		live.Every = time.Second
	}
	l := &Live{cfg: cfg, live: live}
	set, seen, err := read(cfg)
	if err != nil {
		return nil, err
	}
	l.state.Store(&state{set: set, loaded: time.Now(), seen: seen})
	return l, nil
}

// Decide is a grants.Decider: the whole batch is decided by the one set that is
// in force when it begins. See Set.Decide.
func (l *Live) Decide(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
	return l.Current().Decide(ctx, in)
}

// Current is the set in force.
func (l *Live) Current() *Set { return l.state.Load().set }

// Status is which set is in force, since when, and whether what the directory
// holds now is it.
type Status struct {
	Revision grants.Digest
	Loaded   time.Time
	Failed   error     // why what the directory holds did not load; nil: it did
	FailedAt time.Time // since when that is known
}

// Status says how the set in force stands to the directory.
func (l *Live) Status() Status {
	s := l.state.Load()
	return Status{s.set.revision, s.loaded, s.failed, s.failedAt}
}

// Reload loads the directory and the manifests now. On an error the last good set
// stays; what loads and is of the same revision changes nothing.
func (l *Live) Reload() (changed bool, err error) { return l.reload(true) }

// reload tells of a failure, or only keeps it for Status.
func (l *Live) reload(tell bool) (changed bool, err error) {
	l.loading.Lock()
	defer l.loading.Unlock()
	set, seen, err := read(l.cfg)
	old := l.state.Load()
	if err == nil {
		err = l.cfg.keepsManifests(old.set, set)
	}
	next := *old
	next.seen, next.failed, next.failedAt = seen, err, time.Time{}
	switch {
	case err != nil:
		next.failedAt = time.Now()
		if !tell && old.failed != nil {
			next.failedAt = old.failedAt
		}
	case set.revision != old.set.revision:
		next.set, next.loaded, changed = set, time.Now(), true
	}
	l.state.Store(&next)
	switch {
	case err != nil && tell && l.live.OnFailure != nil:
		l.live.OnFailure(err)
	case changed && l.live.OnReload != nil:
		l.live.OnReload(old.set, set)
	}
	return changed, err
}

// Run reloads when the directory has changed, until ctx ends. It compares
// contents, not times: an editor's rename, the swap of a mounted ConfigMap's
// ..data and a write within the clock's grain all show, and reading all of it
// again is bounded. A change counts when it has rested for a quarter of Every,
// so that files written one after the other come into force together, and what
// is half-written is not reported; what is broken is reported once.
//
// A directory that does not rest is loaded after Every all the same, or else
// whoever keeps rewriting one file could keep a new forbid in another from
// coming into force. Until that succeeds it is tried with each look, and
// reported once, and once more if it then rests and is broken in another way.
func (l *Live) Run(ctx context.Context) {
	pause, before := l.live.Every, l.state.Load().seen
	var since time.Time // when what is not loaded yet was first seen; zero: all is loaded
	var told error      // why it did not load
	load := func(tell bool) {
		_, err := l.reload(tell) // told to the hook, and kept for Status
		switch {
		case err == nil:
			since, told = time.Now(), nil
		case tell:
			told = err
		}
	}
	for wait(ctx, pause) {
		now := l.look()
		rests := now == before
		before = now
		switch s := l.state.Load(); {
		case now != s.seen && since.IsZero():
			pause, since = l.live.Every/4, time.Now()
		case now != s.seen:
			if rests || time.Since(since) >= l.live.Every {
				load(rests || told == nil)
			}
		case rests:
			if told != nil && s.failed != nil && s.failed.Error() != told.Error() {
				load(true)
			}
			pause, since, told = l.live.Every, time.Time{}, nil
		}
	}
}

func (l *Live) look() fingerprint {
	src, err := readOnce(l.cfg)
	return l.cfg.fingerprint(src, err)
}

// keepsManifests refuses a set without any manifest in place of one with some. A
// folder is emptied by accident (a mount that is gone, a file about to be written
// anew), and each kind would lose its ceiling by that. Whoever means it starts the
// program without manifests.
func (c Config) keepsManifests(old, next *Set) error {
	if len(old.manifests.Kinds()) > 0 && len(next.manifests.Kinds()) == 0 {
		return fmt.Errorf("loading manifests from %s: there is none any more, and without them no kind of task has a ceiling; to go on without any, restart", c.Manifests)
	}
	return nil
}

func (c Config) fingerprint(src source, err error) fingerprint {
	if err != nil {
		return sha256.Sum256([]byte(err.Error()))
	}
	h := sha256.New()
	note(h, src.digest(c), src.tree[:])
	return fingerprint(h.Sum(nil))
}

// wait reports whether d went by before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
