package authz

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// Floods of connections, on real sockets. The rule itself: conns_test.go.

// tally is a listener that counts for itself how many of its connections are open.
type tally struct {
	net.Listener
	guard      *guard
	open, most atomic.Int64
	counted    atomic.Int64 // most that the guard has had in its count
}

type tallied struct {
	net.Conn
	once sync.Once
	of   *tally
}

func (l *tally) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if n := l.open.Add(1); n > l.most.Load() { // one goroutine accepts
		l.most.Store(n)
	}
	l.guard.mu.Lock()
	if n := int64(len(l.guard.conns)); n > l.counted.Load() {
		l.counted.Store(n)
	}
	l.guard.mu.Unlock()
	return &tallied{Conn: c, of: l}, nil
}

func (c *tallied) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

// crowded serves at a TCP port and counts.
func crowded(t *testing.T, cfg ServerConfig) (target string, l *tally) {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	s := open(t, cfg)
	l = &tally{Listener: s.guard.Listener, guard: s.guard}
	s.guard.Listener = l
	t.Cleanup(func() { // runs when the server has ended
		// The count is exact; of files there are some more, for as long as it takes to
		// close what is out of the count.
		if n := l.counted.Load(); n != maxConnections {
			t.Errorf("at most %d connections were counted; want %d", n, maxConnections)
		}
		if n := l.most.Load(); n < maxConnections || n > maxConnections+newcomers { // the new one, and those that have given way and are being closed
			t.Errorf("at most %d connections were open; want %d", n, maxConnections)
		}
		if n := l.open.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	serve(t, s)
	return s.Addr().String(), l
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// once asks on a connection of its own, which is given no second try, and no time
// to wait until unused ones are closed.
func once(t *testing.T, target string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), unusedTime/2)
	defer cancel()
	_, err = authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{})
	return err
}

// TestIdleConnections (threat O09): whoever opens connections and asks nothing on
// them closes out neither who has asked, nor who asks anew, nor a check under way.
func TestIdleConnections(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	var end sync.Once
	defer end.Do(func() { close(release) })
	target, _ := crowded(t, ServerConfig{Check: checkFunc(func(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		if req.GetAttributes() != nil { // the slow one
			close(started)
			<-release
		}
		return denyAll(ctx, req)
	})})
	plain := insecure.NewCredentials()
	busy, slow := authv3.NewAuthorizationClient(dial(t, target, plain)), authv3.NewAuthorizationClient(dial(t, target, plain))
	check := func() {
		t.Helper()
		if _, err := busy.Check(within(t), &authv3.CheckRequest{}); err != nil {
			t.Fatalf("the old client: %v", err)
		}
	}
	check()
	answer := make(chan error, 1)
	go func() {
		_, err := slow.Check(within(t), ask("srv/bare", "GET", "/bare", "")) // run once, or close(started) panics
		answer <- err
	}()
	<-started
	var closed atomic.Int64
	idle := func(n int) {
		for range n {
			r := dialRaw(t, "tcp", target)
			gone := make(chan struct{})
			go func() { defer close(gone); _, _ = io.Copy(io.Discard, r.conn); closed.Add(1) }()
			t.Cleanup(func() { r.conn.Close(); <-gone })
		}
	}
	idle(600)
	for range 100 {
		check()
		if err := once(t, target, plain); err != nil {
			t.Fatalf("a new client: %v", err)
		}
	}
	idle(600)
	check()
	eventually(t, "those beyond the bound are closed", func() bool { return closed.Load() >= 1200-maxConnections })
	end.Do(func() { close(release) })
	if err := <-answer; err != nil {
		t.Errorf("the check under way: %v", err)
	}
	check()
}

// TestSilentConnections: nor does whoever has no certificate, and says nothing.
func TestSilentConnections(t *testing.T) {
	ca := envoytest.NewCA(t)
	pair := func(names ...string) []tls.Certificate {
		certFile, keyFile := ca.Issue(t, time.Now().Add(time.Hour), names...)
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	target, l := crowded(t, ServerConfig{Check: denyAll, TLS: &tls.Config{
		Certificates: pair("authz.internal"), ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool,
	}})
	mine := credentials.NewTLS(&tls.Config{RootCAs: ca.Pool, ServerName: "authz.internal", Certificates: pair("envoy.internal")})
	old := authv3.NewAuthorizationClient(dial(t, target, mine))
	if _, err := old.Check(within(t), &authv3.CheckRequest{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var silent sync.WaitGroup
	defer func() { stop(); silent.Wait() }()
	var opened atomic.Int64
	for range 700 {
		silent.Go(func() {
			for ctx.Err() == nil {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
				if err != nil {
					continue
				}
				opened.Add(1)
				done := context.AfterFunc(ctx, func() { c.Close() })
				_, _ = c.Read(make([]byte, 1)) // until it is dropped
				done()
				c.Close()
			}
		})
	}
	eventually(t, "the door is full", func() bool { return l.most.Load() >= maxConnections })
	// All of these in the time of one; a place that is free only when a silent
	// connection has had its time (beginTime) would be too late.
	all := within(t)
	for range 20 {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(mine))
		if err != nil {
			t.Fatal(err)
		}
		_, err = authv3.NewAuthorizationClient(conn).Check(all, &authv3.CheckRequest{}, grpc.WaitForReady(true))
		conn.Close()
		if err != nil {
			t.Fatalf("a new client: %v", err)
		}
		if _, err := old.Check(all, &authv3.CheckRequest{}); err != nil {
			t.Fatalf("the old client: %v", err)
		}
	}
}

// TestLiveIdleConnections is the first through a real Envoy, which connects only
// after the others have.
func TestLiveIdleConnections(t *testing.T) {
	var door *envoy.Options
	l := openLive(t, func(cfg *ServerConfig, opts *envoy.Options) {
		cfg.Listen, door = "127.0.0.1:0", opts
	})
	for range 600 {
		dialRaw(t, "tcp", door.Authz).discard(t)
	}
	call := "GET /bare HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer " + l.token(l.grant("srv/bare")) + "\r\n\r\n"
	for i := range 20 {
		if status := l.h1(t, call); status != "200" {
			t.Errorf("call %d: %s", i, status)
		}
	}
}

// BenchmarkServer is a check over the socket whose answer costs nothing: what
// gRPC and the guard of its connections take.
func BenchmarkServer(b *testing.B) {
	client := authv3.NewAuthorizationClient(dial(b, run(b, ServerConfig{Check: denyAll}), insecure.NewCredentials()))
	req := &authv3.CheckRequest{}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Check(b.Context(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
