package surface

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

func TestTheServerGetsWhatItWouldFromEnvoy(t *testing.T) {
	type seen struct {
		Method, Path, Host, Body string
		Header                   http.Header
	}
	got := make(chan seen, 1)
	w := newWorld(t, Config{}, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.RequestURI, r.Host, string(b), r.Header}
	})
	r := w.request(w.pass(mcp.Pass{}), `{"a": 1}`)
	r.URL.RawQuery = "q=1"
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "gzip", "User-Agent": "",
		"X-Grant-Ctx-Agent": "agent-a", "X-Forwarded-For": "10.0.0.1", "X-Request-Id": "r-1", "Idempotency-Key": "k",
		"Mcp-Protocol-Version": "2025-11-25", "Authorization": "Bearer upstream",
		"X-Envoy-Expected-Rq-Timeout-Ms": "1", "Te": "trailers", "Keep-Alive": "timeout=5", "Proxy-Authorization": "Basic x",
		"Upgrade": "websocket", "Connection": "keep-alive, X-Named", "X-Named": "1", "Expect": "100-continue",
	} {
		r.Header.Set(name, value)
	}
	if res := w.open(r); res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	want := seen{"POST", "/v1/mcp", w.host, `{"a": 1}`, http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {"8"}, "Accept": {"text/event-stream"}, "Accept-Encoding": {"identity"},
		"X-Grant-Ctx-Agent": {"agent-a"}, "X-Forwarded-For": {"10.0.0.1"}, "X-Request-Id": {"r-1"}, "Idempotency-Key": {"k"},
		"Mcp-Protocol-Version": {"2025-11-25"}, "Authorization": {"Bearer upstream"},
		"Connection": {"close"}, // ours
	}}
	if diff := cmp.Diff(want, <-got); diff != "" {
		t.Errorf("the server got (-want +got):\n%s", diff)
	}
}

func TestTheClientGetsWhatTheServerSays(t *testing.T) {
	w := newRawWorld(t, "HTTP/1.1 103 Early Hints\r\nMcp-Session-Id: early\r\n\r\n"+
		"HTTP/1.1 201 Made\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nMcp-Session-Id: s\r\nConnection: X-Named\r\nX-Named: 1\r\nKeep-Alive: 1\r\n"+
		"X-Envoy-Immediate-Health-Check-Fail: 1\r\nContent-Encoding: gzip\r\nTrailer: X-Late\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"4\r\n<htm\r\n2\r\nl>\r\n0\r\nX-Late: 1\r\n\r\n")
	res, body, err := w.send(mcp.Pass{})
	res.Header.Del("Date") // made up by the surface
	want := http.Header{"Set-Cookie": {"a", "b"}, "Mcp-Session-Id": {"s"}, "Content-Encoding": {"gzip"}}
	if diff := cmp.Diff(want, res.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if res.StatusCode != 201 || body != "<html>" || err != nil || len(res.Trailer) > 0 {
		t.Errorf("status %d, body %q, trailer %v, %v", res.StatusCode, body, res.Trailer, err)
	}
	if _, _, known := w.surface.Session("github", "early"); known {
		t.Error("an interim answer taught a session")
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]string{
		"other protocol":  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw",
		"101 bare":        "HTTP/1.1 101 Switching Protocols\r\n\r\nraw",
		"no status":       "HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n",
		"past statuses":   "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
		"no HTTP":         "SSH-2.0\r\n",
		"nothing":         "",
		"huge headers":    "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", maxAnswerHeaders+(16<<10)) + "\r\n\r\n",
		"half a document": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n" + `{"result":{}}`,
	} {
		w := newRawWorld(t, answer)
		res, body, err := w.send(call("agent-a", mcp.Rev20251125))
		if err != nil || res.StatusCode != http.StatusBadGateway || body != "" {
			t.Errorf("%s: status %d, body %q, %v", name, res.StatusCode, body, err)
		}
	}
}

func TestAServerThatDiesInAStream(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		w := newRawWorld(t, "HTTP/1.1 200 OK\r\nContent-Type: "+kind+"\r\nTransfer-Encoding: chunked\r\n\r\n"+
			"10\r\ndata: {\"n\": 1}\n\n\r\n99\r\ndata: {\"res")
		res, body, err := w.send(call("agent-a", mcp.Rev20251125))
		if res.StatusCode != 200 || !strings.HasPrefix(body, "data: {\"n\": 1}\n\n") || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: status %d, body %q, %v; want the first event, then no regular end", kind, res.StatusCode, body, err)
		}
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := &world{t: t, seal: mcp.NewSeal()}
	w.start(Config{}, l.Addr().String())
	if res, body, err := w.send(mcp.Pass{}); err != nil || res.StatusCode != http.StatusBadGateway || body != "" {
		t.Errorf("status %d, body %q, %v", res.StatusCode, body, err)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	w := newWorld(t, Config{MaxBody: 10}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	for size, want := range map[int]int{10: 200, 11: 413, 2 << 20: 413} {
		for _, chunked := range []bool{false, true} {
			r := w.request(w.pass(mcp.Pass{}), strings.Repeat("a", size))
			if chunked {
				r.ContentLength = -1
			}
			if res := w.open(r); res.StatusCode != want {
				t.Errorf("%d bytes, chunked %v: %d, want %d", size, chunked, res.StatusCode, want)
			}
		}
	}
	if n := w.asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestEachAgentHasItsShare(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, Config{MaxExchanges: 64}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-release
	})
	opened := func(agent, method string) int {
		return w.open(w.request(w.pass(mcp.Pass{Agent: agent, Method: method}), "{}")).StatusCode
	}
	for i, want := range []int{200, 200, 503, 503} {
		if got := opened("agent-a", initialize); got != want {
			t.Errorf("exchange %d: %d, want %d", i, got, want)
		}
	}
	for i := range 48 - 2 {
		if got := opened(fmt.Sprintf("b-%d", i/2), initialize); got != 200 {
			t.Errorf("exchange %d of others: %d", i, got)
		}
	}
	if got := opened("agent-c", initialize); got != 503 {
		t.Errorf("in what is kept for calls: %d, want 503", got)
	}
	for i := range 16 {
		if got := opened(fmt.Sprintf("d-%d", i/2), mcp.ToolsCall); got != 200 {
			t.Errorf("call %d: %d", i, got)
		}
	}
	for _, method := range []string{initialize, mcp.ToolsCall} {
		if got := opened("agent-c", method); got != 503 {
			t.Errorf("%s without any room: %d, want 503", method, got)
		}
	}
	close(release)
	eventually(t, "all have left", func() bool { return w.underWay() == 0 })
	if got := opened("agent-a", initialize); got != 200 {
		t.Errorf("when there is room again: %d", got)
	}
}

func TestAClientThatLeavesTakesTheMessageBack(t *testing.T) {
	for _, begun := range []bool{false, true} {
		arrived, cancelled := make(chan struct{}), make(chan struct{})
		w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if begun {
				w.(http.Flusher).Flush()
			}
			close(arrived)
			<-r.Context().Done()
			close(cancelled)
		})
		ctx, leave := context.WithCancel(t.Context())
		r := w.request(w.pass(mcp.Pass{}), "{}").WithContext(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if res, err := w.client.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		<-arrived
		leave()
		<-cancelled
		<-done
		eventually(t, "all have left", func() bool { return w.underWay() == 0 })
	}
}

func TestAPassEndsItsExchange(t *testing.T) {
	for _, begun := range []bool{false, true} {
		cancelled := make(chan struct{})
		w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if begun {
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
			close(cancelled)
		})
		res, body, err := w.send(mcp.Pass{Ends: time.Now().Add(200 * time.Millisecond)})
		if want := map[bool]int{false: http.StatusGatewayTimeout, true: 200}[begun]; res.StatusCode != want || body != "" || (err != nil) != begun {
			t.Errorf("begun %v: status %d, want %d; body %q, %v", begun, res.StatusCode, want, body, err)
		}
		<-cancelled
	}
}

// An exchange lasts as long as its Pass, whatever the server allows a stranger.
func TestAnExchangeHasItsPasssTime(t *testing.T) {
	const limit = 50 * time.Millisecond
	w := &world{t: t, seal: mcp.NewSeal(), tune: func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = limit, limit }}
	w.behind(Config{}, func(w http.ResponseWriter, r *http.Request) {
		for range 2 {
			<-time.After(2 * limit)
			_, _ = io.WriteString(w, "late")
			w.(http.Flusher).Flush()
		}
	})
	for range 2 { // the second finds the connection as it was
		if _, body, err := w.send(mcp.Pass{}); body != "latelate" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestAClientThatDoesNotRead(t *testing.T) {
	cancelled := make(chan struct{})
	w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		defer close(cancelled)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	c, err := net.Dial("unix", w.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pass := w.pass(mcp.Pass{Ends: time.Now().Add(300 * time.Millisecond)})
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\n%s: %s\r\nContent-Length: 2\r\n\r\n{}", mcp.PassHeader, pass); err != nil {
		t.Fatal(err)
	}
	<-cancelled
	eventually(t, "it has been cut", func() bool { return w.underWay() == 0 })
}
