package broker

import (
	"container/list"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	maxConns = 4096
	minConns = 8

	// tellEvery is how often at most it is logged that there is no room.
	tellEvery = time.Minute
)

// defaultMaxConns leaves three of four files to the rest of the process: the
// other door, the log, the keys.
func defaultMaxConns() int {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return minConns
	}
	return int(max(minConns, min(lim.Cur/4, maxConns)))
}

// guard is a listener that holds at most max connections open, and at most half
// of them of one source. A connection with no request in hand, be it new, slow
// with its headers or between requests, gives way to a newer one: the one that
// has been so for longest. If every connection has a request in hand, which the
// server's time-outs bound, the new one is closed.
type guard struct {
	net.Listener
	max    int
	logger *zap.Logger

	mu     sync.Mutex
	open   int
	idle   list.List         // *conn without a request in hand; in front the longest so
	of     map[string]*share // source -> its part; none without a connection
	toldAt time.Time
}

// share is one source's part of a guard's connections.
type share struct {
	open int
	idle list.List // as in guard
}

// conn is a connection that a guard counts.
type conn struct {
	net.Conn
	g      *guard
	source string

	// Guarded by g.mu. The places in both lists; nil: a request is in hand.
	all, own *list.Element
	gone     bool
}

func newGuard(l net.Listener, limit int, logger *zap.Logger) *guard {
	return &guard{Listener: l, max: limit, logger: logger, of: map[string]*share{}}
}

// Accept returns the next connection for which there is room, or was made.
func (g *guard) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				g.logger.Warn("accepting a connection", zap.Error(err)) // net/http waits and tries again
			}
			return nil, err
		}
		c := &conn{Conn: nc, g: g, source: sourceOf(nc.RemoteAddr().String())}
		victim, ok := g.admit(c)
		if victim != nil {
			_ = victim.Conn.Close()
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
	s := g.of[c.source]
	if s == nil {
		s = new(share)
	}
	full := &g.idle
	switch {
	case s.open >= max(1, g.max/2):
		full = &s.idle
	case g.open < g.max:
		full = nil
	}
	if full != nil {
		g.tellLocked()
		front := full.Front()
		if front == nil {
			return nil, false
		}
		victim = front.Value.(*conn)
		g.dropLocked(victim)
	}
	g.of[c.source] = s
	g.open++
	s.open++
	g.idleLocked(c)
	return victim, true
}

func (g *guard) tellLocked() {
	if now := time.Now(); now.Sub(g.toldAt) >= tellEvery {
		g.toldAt = now
		g.logger.Warn("no room for more connections: idle ones give way, or new ones are closed", zap.Int("open", g.open), zap.Int("max", g.max))
	}
}

// idleLocked notes that no request is in hand from now on.
func (g *guard) idleLocked(c *conn) {
	g.busyLocked(c)
	if !c.gone {
		c.all, c.own = g.idle.PushBack(c), g.of[c.source].idle.PushBack(c)
	}
}

// busyLocked notes that a request is in hand.
func (g *guard) busyLocked(c *conn) {
	if c.all != nil {
		g.idle.Remove(c.all)
		g.of[c.source].idle.Remove(c.own)
		c.all, c.own = nil, nil
	}
}

// dropLocked takes a connection out of the count, once.
func (g *guard) dropLocked(c *conn) {
	if c.gone {
		return
	}
	g.busyLocked(c)
	c.gone = true
	g.open--
	s := g.of[c.source]
	if s.open--; s.open == 0 {
		delete(g.of, c.source)
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.g.mu.Lock()
	c.g.dropLocked(c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

// connState is the http.Server's hook. StateActive comes when the headers of a
// request have been read whole, and, over HTTP/2, when the first stream opens.
func connState(nc net.Conn, state http.ConnState) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	switch state {
	case http.StateActive:
		c.g.busyLocked(c)
	case http.StateIdle:
		c.g.idleLocked(c)
	}
}
