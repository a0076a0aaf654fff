package broker

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// deaf is a caller who reads nothing: the first byte of an answer to it blocks
// until release.
type deaf struct {
	*httptest.ResponseRecorder
	writing, release chan struct{}
	once             sync.Once
	deadline         time.Duration // until which the write was to be done, at its beginning
	until            time.Time
}

func (d *deaf) SetWriteDeadline(at time.Time) error { d.until = at; return nil }

func (d *deaf) Write(p []byte) (int, error) {
	d.once.Do(func() {
		d.deadline = time.Until(d.until)
		close(d.writing)
		<-d.release
	})
	return d.ResponseRecorder.Write(p)
}

// TestUnreadAnswers: whoever does not read an answer, of whatever route, holds
// nothing in hand while it is written, and not for long.
func TestUnreadAnswers(t *testing.T) {
	s := newShell(t)
	me := s.identity("me")
	for _, ask := range []struct{ what, bearer, host, body string }{
		{"GET /openapi.json", "", "localhost", ""},
		{"GET /.well-known/jwks.json", "", "localhost", ""},
		{"GET /.well-known/oauth-authorization-server", "", "localhost", ""},
		{"GET /nothing", "", "localhost", ""},
		{"GET /openapi.json", "", "rebound.example", ""},
		{"GET /v1/tasks", me, "localhost", ""},
		{"POST /v1/tasks", me, "localhost", `{"kind":"k"}`},
		{"POST /v1/tasks", me, "localhost", `{`},
		{"POST /v1/tasks", "", "localhost", `{}`},
	} {
		d := &deaf{ResponseRecorder: httptest.NewRecorder(), writing: make(chan struct{}), release: make(chan struct{})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r := newRequest(ownIssuer, ask.what, ask.bearer, ask.body)
			r.Host = ask.host
			s.Handler().ServeHTTP(d, r)
		}()
		<-d.writing
		f := &s.limits.flight
		f.mu.Lock()
		if f.total != 0 || len(f.by) != 0 {
			t.Errorf("%+.60v: in hand while it is written: %d, %v", ask, f.total, f.by)
		}
		f.mu.Unlock()
		if d.deadline <= 0 || d.deadline > answerTime {
			t.Errorf("%+.60v: %v to be read", ask, d.deadline)
		}
		close(d.release)
		<-done
		if f.total != 0 || len(f.by) != 0 {
			t.Errorf("%+.60v: given back twice: %d, %v", ask, f.total, f.by)
		}
	}
}

// TestUnreadDocuments: connections, and streams, that ask for the largest
// document and never read keep no agent out, and connections do not stay.
func TestUnreadDocuments(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	server, client := secure(t)
	plain, tls := serve(t, s.Handler(), ServerConfig{MaxConns: 600}), serve(t, s.Handler(), ServerConfig{TLS: server})
	me := s.identity("me")
	for i := range 260 {
		source := fmt.Sprintf("127.0.0.%d", 2+i%2)
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
		}}).DialContext(t.Context(), "tcp", plain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	const piped = 300 // answers, more than the kernel takes in for one connection
	pipe := send(t, "127.0.0.7", plain, strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", piped))
	var h *h2
	for i := range 8 {
		h = newH2(t, client, fmt.Sprintf("127.0.0.%d", 4+i%2), tls)
		if err := h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			t.Fatal(err)
		}
		for stream := range uint32(60) {
			h.buf.Reset()
			for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "127.0.0.1"}, {":path", "/openapi.json"}} {
				_ = h.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
			}
			if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*stream + 1, BlockFragment: []byte(h.buf.String()), EndHeaders: true, EndStream: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	time.Sleep(300 * time.Millisecond) // all of them are being answered
	for range 10 {
		c := send(t, "127.0.0.6", plain, raw("GET /v1/tasks", me, "application/json", "", 0))
		if status, body := answered(t, c); status != http.StatusOK {
			t.Fatalf("an agent: %d %s", status, body)
		}
	}
	for reset := false; !reset; {
		f, err := h.ReadFrame() // until newH2's deadline
		if err != nil {
			t.Fatalf("its streams stay: %v", err)
		}
		_, reset = f.(*http2.RSTStreamFrame)
	}
	if took := time.Since(began); took > 2*answerTime {
		t.Errorf("a stream stays for %v", took)
	}
	time.Sleep(time.Until(began.Add(answerTime + 2*time.Second)))
	if n, err := io.Copy(io.Discard, pipe); isTimeout(err) || n >= piped*int64(len(openAPIText)) {
		t.Errorf("a connection stays: read %d bytes, %v", n, err)
	}
}
