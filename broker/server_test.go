package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serve runs a Server on a loopback address until the test ends.
func serve(t *testing.T, h http.Handler, cfg ServerConfig) (addr string) {
	t.Helper()
	addr, stop := serveUntil(t, h, cfg)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return addr
}

func serveUntil(t *testing.T, h http.Handler, cfg ServerConfig) (addr string, stop func() error) {
	t.Helper()
	cfg.Logger = zap.NewNop()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- NewServer(h, cfg).Serve(ctx, l) }()
	return l.Addr().String(), func() error { cancel(); return <-done }
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

// dial connects from a loopback address of its own.
func dial(t testing.TB, source, addr string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 30 * time.Second}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// get makes one request on a connection and returns the answer's body.
func get(c net.Conn, path string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	return drain(res.Body), nil
}

// mustGet makes one request on a new connection.
func mustGet(t testing.TB, source, addr string) {
	t.Helper()
	c := dial(t, source, addr)
	defer c.Close()
	if body, err := get(c, "/"); body != "hello" || err != nil {
		t.Errorf("from %s: %q, %v", source, body, err)
	}
}

// closed waits for the other side to close a connection.
func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// TestSlowHeaders (O09): whoever sends a header now and then holds nothing that
// others need, and not for long.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	addr := serve(t, hello, ServerConfig{MaxConns: 20})
	kept := dial(t, "127.0.0.2", addr)
	if _, err := get(kept, "/"); err != nil {
		t.Fatal(err)
	}
	var slow []net.Conn
	for range 60 {
		c := dial(t, "127.0.0.1", addr)
		slow = append(slow, c)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "); err != nil {
			t.Fatal(err)
		}
	}
	last := slow[len(slow)-1]
	mustGet(t, "127.0.0.1", addr)
	mustGet(t, "127.0.0.2", addr)
	if body, err := get(kept, "/"); body != "hello" || err != nil { // its place was not taken
		t.Errorf("a connection from elsewhere: %q, %v", body, err)
	}
	if !closed(slow[0]) {
		t.Error("the longest idle did not give way")
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // header by header, faster than any time-out between two bytes
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				if _, err := io.WriteString(last, "a\r\nX-A: "); err != nil {
					return
				}
			}
		}
	}()
	if !closed(last) {
		t.Error("headers may be sent for ever")
	}
}

// TestIdleConnections (O09): ten thousand of one address, if this process may
// open as many files.
func TestIdleConnections(t *testing.T) {
	n := 10_000
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if may := int(lim.Cur) * 2 / 3; n > may {
		t.Logf("%d connections, since this process may open %d files", may, lim.Cur)
		n = may
	}
	addr := serve(t, hello, ServerConfig{})
	kept := dial(t, "127.0.0.2", addr)
	if _, err := get(kept, "/"); err != nil {
		t.Fatal(err)
	}
	for range n {
		dial(t, "127.0.0.1", addr)
	}
	if body, err := get(kept, "/"); body != "hello" || err != nil {
		t.Errorf("a connection from elsewhere: %q, %v", body, err)
	}
	mustGet(t, "127.0.0.2", addr)
	mustGet(t, "127.0.0.1", addr)
}

// TestFullOfIdle: when several addresses have filled it, one idle connection
// gives way to one more.
func TestFullOfIdle(t *testing.T) {
	t.Parallel()
	addr := serve(t, hello, ServerConfig{MaxConns: 4})
	var cs []net.Conn
	for _, source := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"} {
		c := dial(t, source, addr)
		if _, err := get(c, "/"); err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	eventually(t, "one more is served", func() bool { // an answer comes before its connection counts as idle
		c := dial(t, "127.0.0.3", addr)
		defer c.Close()
		body, err := get(c, "/")
		return body == "hello" && err == nil
	})
	gone := 0
	for _, c := range cs {
		if _, err := get(c, "/"); err != nil {
			gone++
		}
	}
	if gone != 1 {
		t.Errorf("%d had to go", gone)
	}
}

// TestLongestIdleGivesWay, of the new one's address if that has its share, and of
// all if it has not.
func TestLongestIdleGivesWay(t *testing.T) {
	g := newGuard(nil, 4, zap.NewNop())
	come := func(source string) (*conn, *conn) {
		nc, _ := net.Pipe()
		c := &conn{Conn: nc, g: g, source: source}
		victim, ok := g.admit(c)
		if !ok {
			t.Fatal("not let in")
		}
		return c, victim
	}
	a1, _ := come("a")
	b1, _ := come("b")
	a2, _ := come("a")
	b2, _ := come("b")
	use := func(c *conn) {
		connState(c, http.StateActive)
		connState(c, http.StateIdle)
	}
	use(a1)
	use(b2)
	connState(a2, http.StateActive) // in hand, and stays so
	c1, first := come("c")
	b3, second := come("b")
	use(b2)
	_, third := come("b")
	_, fourth := come("d")
	if first != b1 || second != a1 || third != b3 || fourth != c1 {
		t.Errorf("the wrong ones: %p %p %p %p, of %p", first, second, third, fourth, []*conn{a1, b1, a2, b2, b3, c1})
	}
}

// TestFullOfRequests: a request in hand does not give way, and one address does
// not have all places.
func TestFullOfRequests(t *testing.T) {
	t.Parallel()
	var inHand atomic.Int32
	finish := make(chan struct{})
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.RemoteAddr, "127.0.0.1:") {
			inHand.Add(1)
			<-finish
		}
		hello(w, r)
	}), ServerConfig{MaxConns: 4})
	answers := make(chan string, 2)
	for range 2 {
		c := dial(t, "127.0.0.1", addr)
		go func() {
			body, err := get(c, "/")
			answers <- fmt.Sprint(body, err)
		}()
	}
	eventually(t, "two requests in hand", func() bool { return inHand.Load() == 2 })
	if !closed(dial(t, "127.0.0.1", addr)) {
		t.Error("a third connection of the address")
	}
	mustGet(t, "127.0.0.2", addr)
	close(finish)
	for range 2 {
		if got := <-answers; got != "hello<nil>" {
			t.Errorf("a request in hand: %s", got)
		}
	}
}

// TestGuardForgets what is closed: the count and the sources.
func TestGuardForgets(t *testing.T) {
	g := newGuard(nil, 4, zap.NewNop())
	var cs []*conn
	for i := range 4 {
		nc, _ := net.Pipe()
		c := &conn{Conn: nc, g: g, source: fmt.Sprint(i % 2)}
		if victim, ok := g.admit(c); victim != nil || !ok {
			t.Fatal("no room for four")
		}
		cs = append(cs, c)
	}
	for _, c := range cs {
		connState(c, http.StateActive)
		connState(c, http.StateActive)
		_ = c.Close()
		_ = c.Close()
		connState(c, http.StateIdle) // the hook may come late
		connState(c, http.StateClosed)
	}
	if g.open != 0 || len(g.of) != 0 || g.idle.Len() != 0 {
		t.Errorf("left: %d open, %v, %d idle", g.open, g.of, g.idle.Len())
	}
}

// secure is a TLS configuration for 127.0.0.1, and one of its clients.
func secure(t testing.TB) (server, client *tls.Config) {
	ts := httptest.NewTLSServer(nil)
	defer ts.Close()
	pool := x509.NewCertPool()
	pool.AddCert(ts.Certificate())
	return &tls.Config{Certificates: ts.TLS.Certificates}, &tls.Config{RootCAs: pool}
}

// h2 is the client's side of one HTTP/2 connection, frame by frame.
type h2 struct {
	*http2.Framer
	buf strings.Builder
	enc *hpack.Encoder
}

func newH2(t testing.TB, cfg *tls.Config, source, addr string) *h2 {
	t.Helper()
	cfg = cfg.Clone()
	cfg.ServerName, cfg.NextProtos = "127.0.0.1", []string{"h2"}
	c := tls.Client(dial(t, source, addr), cfg)
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.HandshakeContext(t.Context()); err != nil || c.ConnectionState().NegotiatedProtocol != "h2" {
		t.Fatalf("no HTTP/2: %v", err)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	h := &h2{Framer: http2.NewFramer(c, c)}
	h.enc = hpack.NewEncoder(&h.buf)
	if err := h.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return h
}

// open sends a whole request on a stream.
func (h *h2) open(stream uint32) error {
	h.buf.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "127.0.0.1"}, {":path", "/slow"}} {
		if err := h.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(h.buf.String()), EndHeaders: true, EndStream: true})
}

// TestRapidReset (O09, CVE-2023-44487): streams that are opened and reset at once
// run no more handlers than streams that are not, and end their connection, while
// others get their answers.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	server, client := secure(t)
	var running, most atomic.Int32
	finish := make(chan struct{})
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			hello(w, r)
			return
		}
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-finish // a handler that does not hear of the reset: the worst case
		running.Add(-1)
	}), ServerConfig{TLS: server})
	defer close(finish)

	h := newH2(t, client, "127.0.0.1", addr)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for stream := uint32(1); stream < 1<<31; stream += 2 {
			if h.open(stream) != nil || h.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
				return // the server has closed
			}
		}
	}()
	var streams uint32
	var end http2.ErrCode
	for {
		f, err := h.ReadFrame()
		if err != nil {
			break
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if n, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
				streams = n
			}
		case *http2.GoAwayFrame:
			end = f.ErrCode
		}
	}
	<-sent
	if streams != maxStreams || end != http2.ErrCodeEnhanceYourCalm || most.Load() > maxStreams {
		t.Errorf("announced %d streams, ended with %v, ran %d handlers at a time", streams, end, most.Load())
	}
	for _, protocols := range [][]string{{"h2"}, {"http/1.1"}} {
		cfg := client.Clone()
		cfg.NextProtos = protocols
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: protocols[0] == "h2"}
		c := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		res, err := c.Get("https://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		if body := drain(res.Body); body != "hello" || (res.ProtoMajor == 2) != (protocols[0] == "h2") {
			t.Errorf("%v: %s, %q", protocols, res.Proto, body)
		}
		tr.CloseIdleConnections()
	}
}

// TestStreamsOfOneConnection: it is in hand while one of them is, and idle after.
func TestStreamsOfOneConnection(t *testing.T) {
	t.Parallel()
	server, client := secure(t)
	var inHand atomic.Int32
	finish := make(chan struct{})
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inHand.Add(1)
		<-finish
		hello(w, r)
	}), ServerConfig{TLS: server, MaxConns: 2})
	h := newH2(t, client, "127.0.0.1", addr)
	for _, stream := range []uint32{1, 3} {
		if err := h.open(stream); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two requests in hand", func() bool { return inHand.Load() == 2 })
	if !closed(dial(t, "127.0.0.1", addr)) {
		t.Error("a connection with requests in hand gave way")
	}
	close(finish)
	for ended := 0; ended < 2; {
		f, err := h.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().Type == http2.FrameData {
			ended++
		}
	}
	eventually(t, "an idle connection gives way", func() bool {
		c := dial(t, "127.0.0.1", addr)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err := c.Read(make([]byte, 1))
		_ = c.Close()
		return isTimeout(err) // it was let in, and waits for TLS
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestShutdown: an answer under way is sent, and what does not end is cut off.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for name, stuck := range map[string]bool{"in order": false, "cut off": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, finish := make(chan struct{}), make(chan struct{})
			addr, stop := serveUntil(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(began)
				<-finish
				hello(w, r)
			}), ServerConfig{})
			c := dial(t, "127.0.0.1", addr)
			answer := make(chan string, 1)
			go func() {
				body, err := get(c, "/")
				if errors.Is(err, io.ErrUnexpectedEOF) {
					body = "cut off"
				}
				answer <- body
			}()
			<-began
			if stuck {
				defer close(finish)
			} else {
				go func() { // once nobody new is let in
					defer close(finish)
					eventually(t, "closed to new connections", func() bool {
						nc, err := net.Dial("tcp", addr)
						if err == nil {
							_ = nc.Close()
						}
						return err != nil
					})
				}()
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if got, want := <-answer, map[bool]string{false: "hello", true: "cut off"}[stuck]; got != want {
				t.Errorf("answer %q, want %q", got, want)
			}
		})
	}
}

// TestServeFails when its listener does.
func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := NewServer(hello, ServerConfig{Logger: zap.NewNop()}).Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener: %v", err)
	}
}
