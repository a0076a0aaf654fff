package broker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// send writes a part of a request, from an address of its own.
func send(t *testing.T, source, addr, text string) net.Conn {
	t.Helper()
	c := dial(t, source, addr)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

func answered(t *testing.T, c net.Conn) (int, string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, drain(res.Body)
}

func raw(what, bearer, contentType, body string, length int) string {
	auth := ""
	if bearer != "" {
		auth = "Authorization: Bearer " + bearer + "\r\n"
	}
	return fmt.Sprintf("%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", what, auth, contentType, length, body)
}

const formType = "application/x-www-form-urlencoded"

// TestHalfBodies: whoever sends no more than the beginning of a body, to whatever
// route, takes nothing that agents need, with bodies or without, and does not stay.
func TestHalfBodies(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	addr := serve(t, s.Handler(), ServerConfig{MaxConns: 2000})
	me := s.identity("me")
	task := s.task(me)
	half := func(what string, n int) (all []net.Conn) {
		for i := range n {
			all = append(all, send(t, fmt.Sprintf("127.0.0.%d", 1+i%2), addr, raw(what, "", formType, "a", 60_000)))
		}
		return all
	}
	tokens := half("POST /oauth2/token", 280)
	others := append(half("POST /v1/grants", 280), half("GET /openapi.json", 20)...)
	eventually(t, "they are all being read, as far as they may", func() bool {
		s.limits.strangeBodies.mu.Lock()
		defer s.limits.strangeBodies.mu.Unlock()
		return s.limits.strangeBodies.all.Len() == maxReading
	})
	form := exchangeForm(me, task, "a/x")
	for _, source := range []string{"127.0.0.1", "127.0.0.9"} {
		for _, ask := range []struct {
			text string
			want int
		}{
			{raw("POST /oauth2/token", "", formType, form, len(form)), 200},
			{raw("POST /v1/tasks", me, "application/json", `{"kind":"k"}`, 12), 201},
			{raw("GET /v1/tasks", me, "", "", 0), 200},
			{raw("GET /openapi.json", "", "", "", 0), 200},
		} {
			if status, body := answered(t, send(t, source, addr, ask.text)); status != ask.want {
				t.Errorf("%s: %.40q: %d %s", source, ask.text, status, body)
			}
		}
	}
	if status, body := answered(t, send(t, "127.0.0.1", addr, raw("POST /v1/tasks/"+task+"/end", me, "", "", 0))); status != 200 {
		t.Errorf("ending a task: %d %s", status, body)
	}
	for _, c := range append(tokens, others...) {
		var ne net.Error
		if _, err := io.Copy(io.Discard, c); errors.As(err, &ne) && ne.Timeout() {
			t.Fatal("it is not closed")
		}
	}
	l := s.limits
	eventually(t, "all is given back", func() bool {
		l.strangeBodies.mu.Lock()
		defer l.strangeBodies.mu.Unlock()
		return l.strangeBodies.all.Len() == 0 && len(l.strangeBodies.of) == 0
	})
}

// TestSlowBody: each byte may take stallTime, and all of them readTime.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := newLimits(10), time.Now()
		r := &request{Request: newRequest(ownIssuer, "POST /oauth2/token", "", strings.Repeat("a", 100))}
		var until time.Time
		r.deadline = func(at time.Time) error { until = at; return nil }
		r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
			want := min(time.Since(began)+stallTime, readTime)
			if got := until.Sub(began); got != want {
				t.Errorf("after %v: it may take until %v, want %v", time.Since(began), got, want)
			}
			time.Sleep(stallTime - 500*time.Millisecond)
			if time.Now().After(until) {
				return 0, os.ErrDeadlineExceeded
			}
			return copy(p, "a"), nil
		}))
		if why, _ := l.read(r); why != grants.Malformed || time.Since(began) < readTime {
			t.Errorf("%v after %v", why, time.Since(began))
		}
		if l.strangeBodies.all.Len() != 0 {
			t.Error("it has its place yet")
		}
	})
}

// TestAgentsBodies have room of their own, and one that comes in pieces is read.
func TestAgentsBodies(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	addr := serve(t, s.Handler(), ServerConfig{})
	me := s.identity("me")
	const body = `{"kind":"k"}`
	c := send(t, "127.0.0.1", addr, raw("POST /v1/tasks", me, "application/json", body[:5], len(body)))
	reading := func(bs *bodies) int {
		bs.mu.Lock()
		defer bs.mu.Unlock()
		return bs.all.Len()
	}
	eventually(t, "it is being read", func() bool { return reading(s.limits.agentBodies) == 1 })
	for range maxReadingSource + 10 {
		send(t, "127.0.0.1", addr, raw("POST /oauth2/token", "", formType, "a", 60_000))
	}
	eventually(t, "strangers have their share", func() bool { return reading(s.limits.strangeBodies) == maxReadingSource })
	if n := reading(s.limits.agentBodies); n != 1 {
		t.Fatalf("the agent's body gave way to strangers': %d", n)
	}
	if _, err := io.WriteString(c, body[5:]); err != nil {
		t.Fatal(err)
	}
	if status, text := answered(t, c); status != http.StatusCreated {
		t.Errorf("%d %s", status, text)
	}
}

// TestStrangersBodiesAreNotRead where the credential is in the header: what does
// not come is not waited for.
func TestStrangersBodiesAreNotRead(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	w := newRequest(ownIssuer, "POST /v1/tasks", "junk", `{"kind":"k"}`)
	w.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
		t.Error("it is read")
		return 0, io.EOF
	}))
	if got := field(t, s.do(w), http.StatusUnauthorized, "reason"); got != grants.BadCredential.String() {
		t.Error(got)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestTokenThatEndsWithItsBody: who asks is known before the body comes, and must
// still be that when it is there.
func TestTokenThatEndsWithItsBody(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	me := s.minted("me", brokerAud, 3*time.Second)
	if w := s.ask("POST /v1/tasks", me, `{"kind":"k"}`); w.Code != http.StatusCreated {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	r := newRequest(ownIssuer, "POST /v1/tasks", me, `{"kind":"k"}`)
	text, reading := r.Body, false
	r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
		reading = true
		eventually(t, "the token has ended", func() bool {
			_, why := s.cfg.Identity.Verify(me, s.cfg.Table.Now())
			return why == grants.ExpiredToken
		})
		return text.Read(p)
	}))
	if got := field(t, s.do(r), http.StatusUnauthorized, "reason"); got != grants.ExpiredToken.String() || !reading {
		t.Errorf("%s, its body was read: %t", got, reading)
	}
}

// TestBodies: the longest on its way gives way, of its own key if that has its
// share, and is told so once.
func TestBodies(t *testing.T) {
	const each = maxReading / 2
	bs := newBodies(each)
	var all []*body
	enter := func(n int, key string) {
		for range n {
			b := &body{key: key, deadline: func(time.Time) error { return nil }}
			bs.enter(b)
			all = append(all, b)
		}
	}
	cut := func() (n int) {
		for _, b := range all {
			if !b.wait(time.Time{}) {
				n++
			}
		}
		return n
	}
	enter(1, "a")
	enter(each, "b")
	if enter(1, "b"); cut() != 1 || all[1].wait(time.Time{}) {
		t.Errorf("one key has more than its share: %d were cut off", cut())
	}
	enter(each-1, "c")
	if enter(1, "d"); cut() != 2 || all[0].wait(time.Time{}) {
		t.Errorf("there are more than may be: %d were cut off", cut())
	}
	if bs.all.Len() != maxReading {
		t.Errorf("%d are on their way", bs.all.Len())
	}
	var leaving sync.WaitGroup
	for _, b := range all {
		leaving.Go(func() { bs.leave(b); bs.leave(b) })
	}
	leaving.Wait()
	if bs.all.Len() != 0 || len(bs.of) != 0 {
		t.Errorf("not given back: %d, %v", bs.all.Len(), bs.of)
	}
	calls := 0
	b := &body{deadline: func(time.Time) error { calls++; return nil }}
	if !b.end(time.Time{}) || b.end(time.Time{}) || b.wait(time.Time{}) || calls != 1 {
		t.Errorf("the connection of a body that is over was touched: %d", calls)
	}
}

// TestBodyOverItsBound by one byte.
func TestBodyOverItsBound(t *testing.T) {
	s := newShell(t)
	me := s.identity("me")
	if w := s.ask("POST /v1/tasks", me, strings.Repeat(" ", maxBody-12)+`{"kind":"k"}`); w.Code != http.StatusCreated {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := field(t, s.ask("POST /v1/tasks", me, strings.Repeat(" ", maxBody-11)+`{"kind":"k"}`), http.StatusRequestEntityTooLarge, "reason"); got != grants.TooLarge.String() {
		t.Error(got)
	}
}

// deadlines is a ResponseWriter that knows the last deadline for reading.
type deadlines struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error { d.last = at; return nil }

// TestUnreadBodies keep their connections for lingerTime and no longer.
func TestUnreadBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShell(t)
		for _, ask := range []struct{ what, bearer, host, body string }{
			{"POST /v1/tasks", "junk", "localhost", "{}"},
			{"POST /v1/tasks", "", "localhost", "{}"},
			{"GET /openapi.json", "", "localhost", "{}"},
			{"POST /nothing", "", "localhost", "{}"},
			{"POST /v1/tasks", "", "rebound.example", "{}"},
			{"POST /oauth2/token", "", "localhost", strings.Repeat("a", maxBody+1)},
		} {
			r, w := newRequest(ownIssuer, ask.what, ask.bearer, ask.body), &deadlines{ResponseRecorder: httptest.NewRecorder()}
			r.Host = ask.host
			s.Handler().ServeHTTP(w, r)
			if got := time.Until(w.last); got != lingerTime {
				t.Errorf("%+.60v: %d, and %v to linger", ask, w.Code, got)
			}
		}
		// One that is read leaves what the whole request may take.
		r, w := newRequest(ownIssuer, "POST /v1/tasks", s.identity("me"), `{"kind":"k"}`), &deadlines{ResponseRecorder: httptest.NewRecorder()}
		s.Handler().ServeHTTP(w, r)
		if got := time.Until(w.last); w.Code != http.StatusCreated || got != readTime {
			t.Errorf("%d, and %v", w.Code, got)
		}
	})
}
