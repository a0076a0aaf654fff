package broker

import (
	"crypto/sha256"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

const (
	// burstFactor is how many seconds of its rate a caller may spend at once.
	burstFactor = 2

	// strangersPerSource is how many credentials a second that are not known one
	// source address may present, of those that name an issuer's key and of others
	// each: so many signatures cost about 1 % of a processor.
	strangersPerSource = 200

	// maxCallers bounds each map of callers, by entries. One takes under 600 bytes
	// with the longest name, so a full map is under 60 MB. When the agents' is
	// full, all that are not in it share restFactor agents' rate.
	maxCallers = 100_000
	restFactor = 20

	// agentIdle is when a bucket is forgotten. It is full again after
	// burstFactor seconds, so that nothing is won by waiting for that.
	agentIdle = 10 * time.Second

	// knownFor is how long a credential is known after its last use.
	knownFor = 5 * time.Minute

	// A refused caller waits for its answer, for one to two refusalDelay, so that
	// a loop of calls is not a busy one, and many loops do not fall into step;
	// maxWaiting bounds how many do at a time.
	refusalDelay = 100 * time.Millisecond
	maxWaiting   = 1024
)

// limits keeps one caller's flood from taking another's answers. It is safe for
// concurrent use.
//
// Nothing is counted by a claim that is not verified, or a forger could spend
// another's allowance. A credential that was accepted is known, by its digest,
// to be of an agent, whose allowance is asked before it is verified again; any
// other is paid for by its source address. So neither a flood of one genuine
// token nor one of junk buys verifications without bound. Junk keeps out nobody;
// forgeries that name an issuer's key keep out, at their address, the agents
// that were not there before.
type limits struct {
	perAgent rate.Limit

	agents    *recent[string, *rate.Limiter] // agent id -> its allowance
	rest      *rate.Limiter                  // of the agents that agents has no room for
	known     *recent[grants.Digest, string] // digest of an accepted credential -> its agent
	strangers *recent[string, *stranger]     // source -> its allowances for what names no known agent
	strays    *stranger                      // of the sources that strangers has no room for

	strangeBodies *bodies // by source
	agentBodies   *bodies // by agent id
	flight        flight
	waiting       chan struct{} // holds one for each refused request that waits
}

// stranger is what one source may send that names no known agent.
type stranger struct {
	// named is for credentials that name a key of a configured issuer: they cost a
	// signature. That proves nothing, since key ids are public, and who forges
	// them spends it; but what is junk at a glance does not, and so keeps out no
	// agent whose token is new.
	named *rate.Limiter
	// junk is for all others, and for what needs no credential.
	junk *rate.Limiter
}

func newLimits(perAgent int) *limits {
	return &limits{
		perAgent:  rate.Limit(perAgent),
		agents:    newRecent[string, *rate.Limiter](agentIdle, maxCallers),
		rest:      rate.NewLimiter(rate.Limit(perAgent*restFactor), perAgent*restFactor*burstFactor),
		known:     newRecent[grants.Digest, string](knownFor, maxCallers),
		strangers: newRecent[string, *stranger](agentIdle, maxCallers),
		strays:    newStranger(),

		strangeBodies: newBodies(maxReadingSource),
		agentBodies:   newBodies(maxReadingAgent),
		flight:        flight{by: map[string]int{}},
		waiting:       make(chan struct{}, maxWaiting),
	}
}

// admit is asked before anything is done for a request, whose body is there: is
// there room for one more of its source? Which credential it carries is known,
// at the token endpoint, only from the body, so that is verify's.
func (l *limits) admit(r *request, urgent bool) bool {
	if l.flight.enter(slotOf(r), sourceOf(r.RemoteAddr), urgent) {
		return true
	}
	l.delay(r)
	return false
}

// admitAnybody is for what asks for no credential: its source pays. It takes no
// place, for those who do not read a document would keep it.
func (l *limits) admitAnybody(r *request) bool {
	now := time.Now()
	if !l.stranger(sourceOf(r.RemoteAddr), now).junk.AllowN(now, 1) {
		l.delay(r)
		return false
	}
	return true
}

// verify stands before the check of a credential, which costs a signature if
// names says that it names an issuer's key, and makes it if somebody has an
// allowance left to pay for it. One that names none is checked, too: that has
// the issuer's keys looked at again.
func (l *limits) verify(r *request, compact string, names func(string) bool, check func(string, time.Time) (identity.Verified, grants.Reason)) (identity.Verified, grants.Reason) {
	now := time.Now()
	var digest grants.Digest
	var agent string
	var known bool
	if len(compact) <= identity.MaxBytes { // longer ones are refused without a look
		digest = sha256.Sum256([]byte(compact))
		agent, known = l.known.get(digest, now)
	}
	var pays bool
	switch payer := l.stranger(sourceOf(r.RemoteAddr), now); {
	case known: // allow takes it
		pays = l.allowance(agent, now).TokensAt(now) >= 1 && l.flight.room(agent)
	case names(compact):
		pays = payer.named.AllowN(now, 1)
	default:
		pays = payer.junk.AllowN(now, 1)
	}
	if !pays {
		l.delay(r)
		return identity.Verified{}, grants.Limit
	}
	who, why := check(compact, r.now)
	if known && why != grants.None { // it has expired: from now on its source pays
		l.known.forget(digest)
	}
	return who, why
}

// allow counts a request whose identity token is accepted for its agent.
func (l *limits) allow(r *request) bool {
	now := time.Now()
	agent := r.who.Principal.ID()
	l.known.of(r.who.Digest, now, func() string { return agent }) // no room: its source pays next time, too
	if l.allowance(agent, now).AllowN(now, 1) && l.flight.claim(slotOf(r), agent) {
		return true
	}
	l.delay(r)
	return false
}

func (l *limits) allowance(agent string, now time.Time) *rate.Limiter {
	b, ok := l.agents.of(agent, now, func() *rate.Limiter {
		return rate.NewLimiter(l.perAgent, int(l.perAgent)*burstFactor)
	})
	if !ok {
		return l.rest
	}
	return b
}

func (l *limits) stranger(source string, now time.Time) *stranger {
	s, ok := l.strangers.of(source, now, newStranger)
	if !ok {
		return l.strays
	}
	return s
}

func newStranger() *stranger {
	limiter := func() *rate.Limiter { return rate.NewLimiter(strangersPerSource, strangersPerSource*burstFactor) }
	return &stranger{named: limiter(), junk: limiter()}
}

// delay holds a refused request back for a while, with nothing in hand. When
// too many wait, or its caller has gone, it does not.
func (l *limits) delay(r *request) {
	l.flight.leave(slotOf(r))
	r.body = nil
	select {
	case l.waiting <- struct{}{}:
		defer func() { <-l.waiting }()
	default:
		return
	}
	t := time.NewTimer(refusalDelay + rand.N(refusalDelay))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// sourceOf is whom a connection is counted for: its IPv4 address, or the /64 of
// its IPv6 address, since that is the least that one party is given. What is no
// such address is one source.
func sourceOf(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ""
	}
	return p.String()
}

// recent is a map of at most max entries, which forgets, in constant time, what
// was not looked at for at least keep and at most twice that.
type recent[K comparable, V any] struct {
	keep time.Duration
	max  int

	mu         sync.Mutex
	young, old map[K]V // used since the turn; used in the period before
	turn       time.Time
}

func newRecent[K comparable, V any](keep time.Duration, limit int) *recent[K, V] {
	return &recent[K, V]{keep: keep, max: limit, young: map[K]V{}}
}

// get returns the entry, if there is one.
func (m *recent[K, V]) get(k K, now time.Time) (V, bool) { return m.of(k, now, nil) }

// of returns the entry, made by fresh if it is not there; false: there is no
// room, or it is not to be made.
func (m *recent[K, V]) of(k K, now time.Time, fresh func() V) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turnLocked(now)
	if v, ok := m.young[k]; ok {
		return v, true
	}
	v, ok := m.old[k]
	switch {
	case ok:
		delete(m.old, k)
	case fresh == nil || len(m.young)+len(m.old) >= m.max:
		return v, false
	default:
		v = fresh()
	}
	m.young[k] = v
	return v, true
}

func (m *recent[K, V]) forget(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.young, k)
	delete(m.old, k)
}

func (m *recent[K, V]) turnLocked(now time.Time) {
	switch since := now.Sub(m.turn); {
	case since >= 2*m.keep:
		m.young, m.old, m.turn = map[K]V{}, nil, now
	case since >= m.keep:
		m.young, m.old, m.turn = map[K]V{}, m.young, now
	}
}
