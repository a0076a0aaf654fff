package audit

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

// SignalsConfig says when decisions are worth a look.
type SignalsConfig struct {
	// GrantRequests is how many requests for grants of one tool, allowed or
	// denied and for whichever agent, a requester may make within Window without
	// a signal: 0 or less: 30; at most 10,000, and what is more counts as that.
	GrantRequests int
	Window        time.Duration // 0 or less: 1 minute
	Logger        *zap.Logger   // hears the signals; nil: nobody does

	// OnOutside is called for each observed record of a call outside any window,
	// OnSpike when a grant spike begins; nil: not. tool is the record's,
	// SERVER/TOOL or "", and for OnSpike also "…" (see Signals). They are called
	// concurrently and must not block.
	OnOutside func(tool string, reason grants.Reason, n int)
	OnSpike   func(tool string)
}

const (
	defaultGrantRequests = 30
	maxGrantRequests     = 10_000
	defaultWindow        = time.Minute

	outsideEvery = 10 * time.Second // at most one line of one agent, tool and reason in that time
	sweepEvery   = time.Second
	maxIDs       = 16      // decision ids in a line: the last ones
	maxKeys      = 4096    // agents × tools × reasons, or requesters × tools, that a rule tells apart
	keysEach     = 64      // of them, of one agent or requester
	leastNames   = 16      // who can have that many keys, where a rule has fewer than maxKeys
	maxStamps    = 1 << 20 // times of requests that are kept, 8 bytes each
)

// Signals are two detection rules over the records of both doors.
//
// A call outside any window: one that was denied for a reason of OutsideWindow.
// One warning per agent, tool and reason in 10 seconds, the first at once, with
// the number of calls and the last decision ids, at most 16.
//
// A grant spike: more than GrantRequests requests for grants of a tool by a
// requester, of which the first and the last are less than Window apart. A
// warning when it begins and again each Window while it lasts, an information
// when it is over. It goes by who was verified to ask, for the agent that a
// grant is asked for is what the caller wrote: counted by that, one could raise
// the alarm in another's name, or stay below it under many. The lines tell the
// last of these agents, at most 4. Requests without a verified identity are not
// counted.
//
// Both go by the times of the records, which may come in another order than
// their times: what is late by a Window or more begins the count of its key
// anew, as it must when the clock was set back.
//
// Names stand in the lines as in the log of records: escaped, and cut at MaxID.
//
// Memory: each rule tells 4096 of its keys apart (a spike's with GrantRequests
// over 255 fewer), 1 to 2 KiB each, or 15 MiB together with the defaults. At most
// 64 of them are one agent's or requester's (and of a spike's no more than a
// sixteenth), so that none can use them up: its further tools are counted
// together, as its tool "…".
// What comes when all keys are in use is counted under the name and tool "…", and
// is a signal by itself, however few: somebody uses very many identities. Run
// forgets keys that are quiet.
type Signals struct {
	cfg               SignalsConfig
	maxKeys, keysEach int // of spikes

	mu      sync.Mutex
	outside map[outsideKey]*tally
	callers shares // keys of outside, by agent
	spikes  map[spikeKey]*requests
	askers  shares // keys of spikes, by requester
	spill   tally  // requests that found no room in spikes
}

type outsideKey struct {
	agent, tool string
	reason      grants.Reason
}

// shares are how many keys of a rule each name has.
type shares map[string]int

// giveBack gives back one key.
func (s shares) giveBack(name string) {
	if s[name]--; s[name] == 0 {
		delete(s, name)
	}
}

// NewSignals returns the rules; the caller owns the goroutine of Run.
func NewSignals(c SignalsConfig) *Signals {
	if c.GrantRequests <= 0 {
		c.GrantRequests = defaultGrantRequests
	}
	c.GrantRequests = min(c.GrantRequests, maxGrantRequests)
	if c.Window <= 0 {
		c.Window = defaultWindow
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.OnOutside == nil {
		c.OnOutside = func(string, grants.Reason, int) {}
	}
	if c.OnSpike == nil {
		c.OnSpike = func(string) {}
	}
	keys := min(maxKeys, maxStamps/(c.GrantRequests+1))
	return &Signals{
		cfg: c, maxKeys: keys, keysEach: min(keysEach, keys/leastNames),
		outside: map[outsideKey]*tally{}, callers: shares{}, spikes: map[spikeKey]*requests{}, askers: shares{},
	}
}

// OutsideWindow reports whether a call that was denied for this reason was made
// without a live grant by somebody who went to a tool as if there were one; not
// for None.
func OutsideWindow(why grants.Reason) bool {
	switch why {
	case
		// The credential buys nothing, and somebody tried it.
		grants.BadCredential,  // forged, or of a key that was retired
		grants.ExpiredToken,   // the token's window, and so each of its grants', is over
		grants.UnboundToken,   // for this sender there is no grant: a stolen token looks so
		grants.CredentialKind, // the agent's identity, as if that were a grant
		// The agent is known, and has no grant that lives.
		grants.NoGrant, grants.UnknownGrant, grants.NotYet, grants.Expired,
		grants.Revoked, grants.TaskEnded, grants.Superseded, grants.PolicyChanged,
		// A spent budget ends the window as its time does.
		grants.BudgetSpent,
		// It has one, for something else.
		grants.WrongTool, grants.ToolChanged,
		// Nothing at all was shown: a scan, or a client that is about to look for
		// its authorization server. The reason tells them from the others.
		grants.NoCredential:
		return true
	case
		// Not read as far as that; what it would have shown is not known.
		grants.Malformed, grants.Mismatch, grants.TooLarge, grants.Encoding,
		grants.UnknownTool, grants.Unrepresentable, grants.Ambiguous,
		// Sessions end with this process, and their clients start new ones.
		grants.UnknownSession,
		// Inside a live grant, and refused for what it wanted.
		grants.ConstraintBroken, grants.Policy, grants.PolicyError,
		// Of the issue door, or of ourselves.
		grants.Manifest, grants.UnknownTask, grants.BadTTL, grants.BadRequest, grants.Conflict,
		grants.Limit, grants.NotFresh, grants.CannotRecord, grants.Undecided:
		return false
	}
	return false
}

// Observe takes in records after they were written. It is safe for concurrent
// use, does no I/O but the signals' lines, and costs an allowed call next to
// nothing.
func (s *Signals) Observe(rs []Record) {
	for i := range rs {
		r := &rs[i]
		switch {
		case r.called() && OutsideWindow(r.Reason):
			s.call(r)
		case r.Kind == grants.ActionGrant:
			s.request(r)
		}
	}
}

// Run writes until ctx ends what is due though nothing new comes, and forgets
// what is quiet. Then it writes what is still to be told, and gives nil.
func (s *Signals) Run(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			s.sweep(time.Now(), true)
			return nil
		case now := <-t.C:
			s.sweep(now, false)
		}
	}
}

func (s *Signals) call(r *Record) {
	n := max(1, r.Count)
	s.cfg.OnOutside(r.Tool, r.Reason, int(n))

	s.mu.Lock()
	key := outsideKey{keyText(r.Agent), keyText(r.Tool), r.Reason}
	t := s.outside[key]
	if t == nil && s.callers[key.agent] >= keysEach {
		key.tool = manySource
		t = s.outside[key]
	}
	if t == nil && len(s.outside) >= maxKeys {
		key.agent, key.tool = manySource, manySource
		t = s.outside[key]
	}
	if t == nil {
		t = &tally{}
		s.outside[key] = t
		s.callers[key.agent]++
	}
	t.add(n, r.ID)
	told := t.tell(timeOf(r), outsideEvery)
	s.mu.Unlock()

	s.logOutside(key, told)
}

func (s *Signals) logOutside(key outsideKey, told tally) {
	if told.count > 0 {
		s.cfg.Logger.Warn("calls outside any window", zap.String("agent", key.agent), zap.String("tool", key.tool),
			zap.Stringer("reason", key.reason), zap.Int64("count", told.count), zap.Strings("decisions", told.ids))
	}
}

// sweep tells what is due and forgets what is quiet; closing: tells all.
func (s *Signals) sweep(now time.Time, closing bool) {
	var log []func() // after the lock
	s.mu.Lock()
	every, window := outsideEvery, s.cfg.Window
	if closing {
		every, window = 0, 0
	}
	for key, t := range s.outside {
		if told := t.tell(now, every); told.count > 0 {
			log = append(log, func() { s.logOutside(key, told) })
		} else if t.quiet(now, every) {
			delete(s.outside, key)
			s.callers.giveBack(key.agent)
		}
	}
	for key, q := range s.spikes {
		for _, n := range q.settle(now.UnixNano(), s.cfg.Window.Nanoseconds()) {
			log = append(log, func() { s.logSpike(key, n) })
		}
		if q.idle(now.UnixNano(), s.cfg.Window.Nanoseconds()) {
			delete(s.spikes, key)
			s.askers.giveBack(key.requester)
		}
	}
	if told := s.spill.tell(now, window); told.count > 0 {
		log = append(log, func() { s.logSpill(told) })
	}
	s.mu.Unlock()
	for _, f := range log {
		f()
	}
}

// keyText is a name as a record's line has it: so no key holds more than that
// of what somebody else wrote, and no line what does not print.
func keyText(name string) string {
	quoted := string(appendString(nil, name, MaxID))
	return quoted[1 : len(quoted)-1]
}

func timeOf(r *Record) time.Time {
	if r.Time.IsZero() {
		return time.Now()
	}
	return r.Time
}

// tally counts what the next line will tell.
type tally struct {
	count int64
	ids   []string  // the last ones
	told  time.Time // when there was a line; zero: never
}

func (t *tally) add(n int64, id string) {
	t.count += n
	t.ids = appendID(t.ids, id)
}

// tell gives what is to be told now, if anything, and starts anew.
func (t *tally) tell(now time.Time, every time.Duration) tally {
	if t.count == 0 || !t.quiet(now, every) {
		return tally{}
	}
	was := *t
	*t = tally{told: now}
	return was
}

// quiet reports whether the last line is long enough ago, or lies in a time
// that a clock which was set back has not reached again.
func (t *tally) quiet(now time.Time, every time.Duration) bool {
	since := now.Sub(t.told)
	return t.told.IsZero() || since >= every || since <= -every
}

func appendID(ids []string, id string) []string {
	if len(ids) == maxIDs {
		ids = slices.Delete(ids, 0, 1)
	}
	return append(ids, id)
}
