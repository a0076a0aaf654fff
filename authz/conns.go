package authz

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	rpcpeer "google.golang.org/grpc/peer"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	// newcomers is how many connections may be new when the others are wanted: so
	// many before their TLS handshake, and as many that have asked nothing yet.
	newcomers = 64
	// newTime is how long one is new. Envoy connects when it has something to ask.
	newTime = time.Second

	unusedTime = 10 * time.Second // of one beyond newcomers that never asks
	tidyEvery  = unusedTime / 4
	tellEvery  = time.Minute
)

// What a connection has come to.
const (
	stranger = int32(iota) // before the TLS handshake; without TLS, before gRPC took it
	unused                 // has not made a check
	used
)

// gone, as a number of checks under way, is that of a connection that has given
// way: whatever is added to it stays negative.
const gone = math.MinInt32 / 2

// guard is a listener that holds at most max connections open. When it is full, a
// new one takes the place of another that has no check under way:
//
//   - the oldest stranger, or else the oldest unused one: of each kind one that is
//     older than newTime, or any when there are more than newcomers of them;
//   - or else the one whose last check is the longest ago; without one, a new one.
//
// So whoever only opens connections, as anybody can who reaches the port, takes
// them from each other; and whoever makes checks keeps out nobody else who does.
// If every connection has a check under way, which is bounded in time and asks for
// a whole request, the new one is closed.
type guard struct {
	net.Listener
	max    int
	logger *zap.Logger
	began  time.Time

	mu     sync.Mutex
	conns  map[*conn]struct{} // all that are open
	toldAt time.Time
}

// conn is a connection that a guard counts. A check touches no lock of the guard.
type conn struct {
	net.Conn
	g      *guard
	kind   atomic.Int32 // stranger, unused, used; only grows
	checks atomic.Int32 // under way, or gone
	since  atomic.Int64 // when it came or, once used, when its last check ended: ns since the guard began
}

func newGuard(l net.Listener, limit int, logger *zap.Logger) *guard {
	return &guard{Listener: l, max: limit, logger: logger, began: time.Now(), conns: map[*conn]struct{}{}}
}

// now is on the monotonic clock.
func (g *guard) now() int64 { return int64(time.Since(g.began)) }

// Accept returns the next connection for which there is room, or was made.
func (g *guard) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err // gRPC tries again where that makes sense
		}
		c := &conn{Conn: nc, g: g}
		c.since.Store(g.now())
		victim, ok := g.admit(c)
		if victim != nil || !ok {
			g.tell()
		}
		if victim != nil {
			_ = victim.Conn.Close() // and not by TLS, which may wait for the peer
		}
		if ok {
			return c, nil
		}
		_ = nc.Close()
	}
}

// admit counts a new connection, and takes the one out of the count that has to
// give way to it, if any.
func (g *guard) admit(c *conn) (victim *conn, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.conns) >= g.max {
		if victim = g.victimLocked(); victim == nil {
			return nil, false
		}
		delete(g.conns, victim)
	}
	g.conns[c] = struct{}{}
	return victim, true
}

// victimLocked picks the connection that gives way, and makes sure that it begins
// no check any more; nil: each has one under way.
func (g *guard) victimLocked() *conn {
	for {
		var free [used + 1]int    // kind -> how many have no check under way
		var first [used + 1]*conn // kind -> the one of these that has been so for longest
		for c := range g.conns {
			if c.checks.Load() > 0 {
				continue
			}
			k := c.kind.Load()
			free[k]++
			if first[k] == nil || c.since.Load() < first[k].since.Load() {
				first[k] = c
			}
		}
		yields := func(kind int32) bool {
			return free[kind] > newcomers || free[kind] > 0 && g.now()-first[kind].since.Load() > int64(newTime)
		}
		victim := cmp.Or(first[used], first[stranger], first[unused])
		switch {
		case yields(stranger):
			victim = first[stranger]
		case yields(unused):
			victim = first[unused]
		}
		if victim == nil || victim.giveWay() { // or a check has begun meanwhile
			return victim
		}
	}
}

// tell logs, once per tellEvery, that there is no room.
func (g *guard) tell() {
	g.mu.Lock()
	now := time.Now()
	due := now.Sub(g.toldAt) >= tellEvery
	if due {
		g.toldAt = now
	}
	g.mu.Unlock()
	if due {
		g.logger.Warn("no room for more connections to authz: those that ask nothing give way", zap.Int("max", g.max))
	}
}

// run closes unused connections until ctx ends.
func (g *guard) run(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range g.takeUnused() {
			_ = c.Conn.Close()
		}
	}
}

// takeUnused takes those out of the count that came more than unusedTime ago and
// have not made a check, but for as many as may be new. (Strangers end by
// beginTime.)
func (g *guard) takeUnused() []*conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	var old []*conn
	for c := range g.conns {
		if c.kind.Load() != unused {
			continue
		}
		n++
		if g.now()-c.since.Load() > int64(unusedTime) {
			old = append(old, c)
		}
	}
	taken := old[:0]
	for _, c := range old[:min(len(old), max(0, n-newcomers))] {
		if c.giveWay() {
			delete(g.conns, c)
			taken = append(taken, c)
		}
	}
	return taken
}

// giveWay reports whether the connection had no check under way; then none begins
// any more, and the caller closes it.
func (c *conn) giveWay() bool { return c.checks.CompareAndSwap(0, gone) }

// begin notes that a check is under way, or reports that it may not be made: the
// connection has given way, and nobody would hear the answer.
func (c *conn) begin() bool {
	if c.checks.Add(1) <= 0 {
		return false
	}
	if c.kind.Load() != used {
		c.kind.Store(used)
	}
	return true
}

// end is for each begin that said true.
func (c *conn) end() {
	c.since.Store(c.g.now())
	c.checks.Add(-1)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.g.mu.Lock()
	delete(c.g.conns, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

// count is the interceptor that marks a connection by its checks. Other calls,
// the health service's for one, do not make it used.
func count(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if _, checks := req.(*authv3.CheckRequest); !checks {
		return next(ctx, req)
	}
	p, ok := rpcpeer.FromContext(ctx)
	if !ok {
		return nil, errUncounted
	}
	a, ok := p.AuthInfo.(admitted)
	if !ok {
		return nil, errUncounted
	}
	if !a.conn.begin() { // nothing may be spent on it
		return plain(grants.Undecided).response(grants.NewID(grants.DecisionPrefix), nil), nil
	}
	defer a.conn.end()
	return next(ctx, req)
}

// errUncounted is of a connection that did not come through a guard.
var errUncounted = errors.New("authz: a connection that is not counted")

// admitted is the AuthInfo of a connection that came through a guard.
type admitted struct {
	credentials.AuthInfo
	conn *conn
}

// counted is credentials by which count knows a call's connection. gRPC gives an
// interceptor no other way to it.
type counted struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (t counted) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		return nil, nil, errUncounted
	}
	nc, info, err := t.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	c.kind.Store(unused)
	return nc, admitted{AuthInfo: info, conn: c}, nil
}

// Clone implements credentials.TransportCredentials.
func (t counted) Clone() credentials.TransportCredentials {
	return counted{t.TransportCredentials.Clone()}
}
