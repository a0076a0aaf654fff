package authz

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	rpcpeer "google.golang.org/grpc/peer"
)

// waiting makes a connection of the given kind that is so since age ago.
func (g *guard) waiting(kind int32, age time.Duration) *conn {
	c := &conn{g: g}
	c.kind.Store(kind)
	c.since.Store(g.now() - int64(age))
	return c
}

// TestWhoGivesWay is the rule. (A bubble's clock stands still.)
func TestWhoGivesWay(t *testing.T) {
	type group struct {
		kind  int32
		age   time.Duration // of the oldest; each next one is a nanosecond younger
		count int
		busy  bool
	}
	for _, tc := range []struct {
		name string
		is   []group
		want int // whose oldest gives way; -1: nobody's
	}{
		{"strangers, of which there are too many", []group{{kind: used, age: time.Hour, count: 9}, {kind: unused, age: time.Minute, count: 100}, {kind: stranger, age: time.Millisecond, count: 65}}, 2},
		{"an old stranger", []group{{kind: used, age: time.Hour, count: 9}, {kind: unused, age: time.Minute, count: 100}, {kind: stranger, age: 2 * newTime, count: 1}}, 2},
		{"unused ones, of which there are too many", []group{{kind: used, age: time.Hour, count: 9}, {kind: unused, age: time.Millisecond, count: 65}, {kind: stranger, age: time.Millisecond, count: 64}}, 1},
		{"an old unused one", []group{{kind: used, age: time.Hour, count: 9}, {kind: unused, age: 2 * newTime, count: 1}, {kind: stranger, age: time.Millisecond, count: 64}}, 1},
		{"the longest without a check, before those that are new", []group{{kind: used, age: 2 * time.Millisecond, count: 9}, {kind: unused, age: newTime, count: 64}, {kind: stranger, age: newTime, count: 64}}, 0},
		{"not one with a check under way", []group{{kind: used, age: time.Hour, count: 1, busy: true}, {kind: used, age: time.Minute, count: 1}}, 1},
		{"nor one whose first check is under way", []group{{kind: unused, age: time.Hour, count: 1, busy: true}, {kind: used, age: time.Minute, count: 1}}, 1},
		{"a new stranger, if the others are busy", []group{{kind: used, age: time.Hour, count: 9, busy: true}, {kind: unused, age: newTime, count: 1}, {kind: stranger, age: time.Millisecond, count: 1}}, 2},
		{"a new unused one, if the others are busy", []group{{kind: used, age: time.Hour, count: 9, busy: true}, {kind: unused, age: newTime, count: 1}}, 1},
		{"nobody", []group{{kind: used, age: time.Hour, count: 9, busy: true}}, -1},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGuard(nil, 1, zap.NewNop())
			var oldest []*conn
			for _, is := range tc.is {
				for i := range is.count {
					c := g.waiting(is.kind, is.age-time.Duration(i))
					if is.busy {
						c.checks.Add(1)
					}
					if i == 0 {
						oldest = append(oldest, c)
					}
					g.conns[c] = struct{}{}
				}
			}
			before := len(g.conns)
			newer := g.waiting(stranger, 0)
			victim, ok := g.admit(newer)
			if tc.want < 0 {
				if victim != nil || ok || len(g.conns) != before {
					t.Errorf("%s: %v gave way, admitted %v", tc.name, victim, ok)
				}
				return
			}
			_, counted := g.conns[newer]
			if victim != oldest[tc.want] || !ok || !counted || len(g.conns) != before {
				t.Errorf("%s: another gave way, or it was counted wrong", tc.name)
			}
			if victim.begin() {
				t.Errorf("%s: a check begins on what gave way", tc.name)
			}
		})
	}
}

// TestFullOfChecks: where each connection has a check under way, a new one is
// closed; when a check has ended, the next takes its place.
func TestFullOfChecks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.WarnLevel)
	g := newGuard(l, 2, zap.New(core))
	accepted := make(chan *conn)
	go func() {
		defer close(accepted)
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			accepted <- c.(*conn)
		}
	}()
	connect := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	dropped := func(c net.Conn) {
		t.Helper()
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("still open: %v", err)
		}
	}
	var clients, conns = make([]net.Conn, 3), make([]*conn, 3)
	for i := range 2 {
		clients[i] = connect()
		conns[i] = <-accepted
		if !conns[i].begin() {
			t.Fatal("no check begins")
		}
	}
	dropped(connect())
	conns[1].end()
	clients[2] = connect()
	conns[2] = <-accepted
	dropped(clients[1])
	if conns[1].begin() {
		t.Error("a check begins on a connection that is closed")
	}
	for _, c := range conns { // the one that gave way too: it counts no more
		c.Close()
	}
	if len(g.conns) != 0 {
		t.Errorf("%d are counted", len(g.conns))
	}
	l.Close()
	if c, ok := <-accepted; ok {
		t.Errorf("accepted %v", c)
	}
	if n := logs.Len(); n != 1 { // twice there was no room
		t.Errorf("logged %d times", n)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestUnusedAreClosed: of those that never ask, newcomers stay; whoever has asked
// does in any case, and so does whoever came less than unusedTime ago.
func TestUnusedAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(nil, maxConnections, zap.NewNop())
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go g.run(ctx)
		join := func(kind int32, n int) (ends []net.Conn) {
			for range n {
				near, far := net.Pipe()
				c := g.waiting(kind, 0)
				c.Conn = near
				g.admit(c)
				ends = append(ends, far)
				t.Cleanup(func() { near.Close(); far.Close() })
			}
			return ends
		}
		open := func(ends []net.Conn) (n int) {
			for _, c := range ends {
				_ = c.SetReadDeadline(time.Now().Add(time.Nanosecond))
				if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
					n++
				}
			}
			return n
		}
		asked, old := join(used, 100), join(unused, newcomers+20)
		time.Sleep(unusedTime - time.Second)
		if n := open(old); n != newcomers+20 {
			t.Errorf("%d are open before their time is over", n)
		}
		young := join(unused, 10)
		time.Sleep(time.Second + tidyEvery)
		if a, o, y := open(asked), open(old), open(young); a != 100 || o != newcomers-10 || y != 10 {
			t.Errorf("open: %d that asked, %d old, %d young", a, o, y)
		}
		if n := len(g.conns); n != 100+newcomers {
			t.Errorf("%d are counted", n)
		}
	})
}

// pipes is a listener in memory, whose time is a bubble's.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// TestServerClosesUnused: the server that is run does so.
func TestServerClosesUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, ServerConfig{Listen: "unix://" + socket(t), Check: denyAll})
		s.guard.Listener.Close()
		l := make(pipes)
		s.guard.Listener = l
		serve(t, s)
		var closed atomic.Int64
		for range newcomers + 6 {
			near, far := net.Pipe()
			l <- near
			go func() { _, _ = io.WriteString(far, http2.ClientPreface); _ = http2.NewFramer(far, far).WriteSettings() }()
			go func() { _, _ = io.Copy(io.Discard, far); closed.Add(1) }()
			t.Cleanup(func() { far.Close() })
		}
		time.Sleep(unusedTime)
		if n := closed.Load(); n != 0 {
			t.Errorf("%d are closed before their time is over", n)
		}
		time.Sleep(tidyEvery)
		synctest.Wait()
		if n := closed.Load(); n != 6 {
			t.Errorf("%d are closed", n)
		}
	})
}

// TestGiveWayOrBegin: a connection gives way, or a check is under way, and never both.
func TestGiveWayOrBegin(t *testing.T) {
	g := newGuard(nil, 1, zap.NewNop())
	for range 500 {
		c := g.waiting(unused, 0)
		var wrong atomic.Int64
		var given atomic.Bool
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() {
				for range 1000 {
					late := given.Load()
					if !c.begin() {
						return
					}
					if late || c.giveWay() {
						wrong.Add(1)
					}
					c.end()
				}
			})
		}
		for !c.giveWay() { // at the latest when the callers have done
			runtime.Gosched()
		}
		given.Store(true)
		callers.Wait()
		if wrong.Load() > 0 || c.begin() || c.giveWay() {
			t.Fatalf("%d checks were under way on what had given way", wrong.Load())
		}
	}
}

// TestCount: a check is made on a connection that is counted and has its place;
// the health service is asked in any case, and does not make it used.
func TestCount(t *testing.T) {
	g := newGuard(nil, 1, zap.NewNop())
	ran := 0
	on := func(info credentials.AuthInfo, req any) (any, error) {
		ctx := rpcpeer.NewContext(t.Context(), &rpcpeer.Peer{AuthInfo: info})
		return count(ctx, req, nil, func(context.Context, any) (any, error) { ran++; return req, nil })
	}
	c := g.waiting(unused, time.Hour)
	came := c.since.Load()
	if _, err := on(admitted{conn: c}, &healthv1.HealthCheckRequest{}); err != nil || ran != 1 || c.kind.Load() != unused || c.since.Load() != came {
		t.Errorf("health: %v, ran %d", err, ran)
	}
	if _, err := on(admitted{conn: c}, &authv3.CheckRequest{}); err != nil || ran != 2 || c.kind.Load() != used || c.since.Load() <= came || c.checks.Load() != 0 {
		t.Errorf("a check: %v, ran %d", err, ran)
	}
	if !c.giveWay() {
		t.Fatal("it does not give way")
	}
	if resp, err := on(admitted{conn: c}, &authv3.CheckRequest{}); err != nil || ran != 2 || resp.(*authv3.CheckResponse).GetDeniedResponse() == nil {
		t.Errorf("after it gave way: %v %v, ran %d", resp, err, ran)
	}
	if _, err := on(credentials.TLSInfo{}, &authv3.CheckRequest{}); err == nil || ran != 2 {
		t.Errorf("not counted: %v, ran %d", err, ran)
	}
	if _, err := count(t.Context(), &authv3.CheckRequest{}, nil, nil); err == nil {
		t.Error("no peer")
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if _, _, err := (counted{insecure.NewCredentials()}).Clone().ServerHandshake(near); err == nil {
		t.Error("a connection of another listener is taken")
	}
	d := g.waiting(stranger, 0)
	d.Conn = near
	nc, info, err := counted{insecure.NewCredentials()}.ServerHandshake(d)
	if a, ok := info.(admitted); err != nil || nc != d || !ok || a.conn != d || a.AuthType() != "insecure" || d.kind.Load() != unused {
		t.Errorf("handshake: %v %v %v, kind %d", nc, info, err, d.kind.Load())
	}
}

// BenchmarkCount is what marking a connection adds to each check on it.
func BenchmarkCount(b *testing.B) {
	c := newGuard(nil, 1, zap.NewNop()).waiting(unused, 0)
	ctx := rpcpeer.NewContext(b.Context(), &rpcpeer.Peer{AuthInfo: admitted{conn: c}})
	var req any = &authv3.CheckRequest{}
	next := func(context.Context, any) (any, error) { return nil, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := count(ctx, req, nil, next); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAdmit is a new connection when the door is full.
func BenchmarkAdmit(b *testing.B) {
	g := newGuard(nil, maxConnections, zap.NewNop())
	for range maxConnections {
		g.admit(g.waiting(used, time.Minute))
	}
	for b.Loop() {
		if _, ok := g.admit(g.waiting(stranger, 0)); !ok {
			b.Fatal("no room")
		}
	}
}
