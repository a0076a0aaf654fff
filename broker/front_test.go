package broker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// TestHostAndOrigin (R18): another site's page gets no answer of ours, by its
// own name or by ours.
func TestHostAndOrigin(t *testing.T) {
	s := newShell(t, func(c *Config) { c.PublicURL = "https://broker.example:8443/base" })
	for _, ask := range []struct {
		host   string
		origin []string
		want   int
	}{
		{"127.0.0.1:8181", nil, 200},
		{"192.0.2.9", nil, 200},
		{"[::1]:8181", nil, 200},
		{"[::1]", nil, 200},
		{"localhost:9", nil, 200},
		{"broker.example:8443", nil, 200},
		{"BROKER.example.", nil, 200},
		{"rebound.example", nil, 421},
		{"rebound.example:8181", nil, 421},
		{"127.0.0.1.rebound.example", nil, 421},
		{"localhost.rebound.example", nil, 421},
		{"", nil, 421},
		{"broker.example:8443", []string{"https://broker.example:8443"}, 200},
		{"127.0.0.1:8181", []string{"http://127.0.0.1:8181"}, 200},
		{"127.0.0.1:8181", []string{"https://broker.example"}, 403},
		{"127.0.0.1:8181", []string{"http://broker.example:8443"}, 403},
		{"127.0.0.1:8181", []string{"https://broker.example:8443/base"}, 403},
		{"127.0.0.1:8181", []string{"https://rebound.example"}, 403},
		{"127.0.0.1:8181", []string{"null"}, 403},
		{"127.0.0.1:8181", []string{""}, 403},
		{"127.0.0.1:8181", []string{"http://127.0.0.1:8181", "https://rebound.example"}, 403},
	} {
		s.recorded()
		r := newRequest(ownIssuer, "GET /.well-known/jwks.json", "", "")
		r.Host, r.Header["Origin"] = ask.host, ask.origin
		if ask.origin == nil {
			delete(r.Header, "Origin")
		}
		w := s.do(r)
		if w.Code != ask.want {
			t.Errorf("Host %q, Origin %q: %d, want %d", ask.host, ask.origin, w.Code, ask.want)
		}
		rs := s.recorded()
		if ask.want == 200 {
			if len(rs) != 0 {
				t.Errorf("Host %q, Origin %q: on record: %+v", ask.host, ask.origin, rs)
			}
			continue
		}
		if len(rs) != 1 || rs[0].ID != field(t, w, ask.want, "decision_id") || rs[0].Reason != grants.Mismatch ||
			rs[0].Status != ask.want || rs[0].Requester != "" || rs[0].Source == "" {
			t.Errorf("Host %q, Origin %q: on record: %+v", ask.host, ask.origin, rs)
		}
	}
}

// TestTwoReadings: what two servers could read as different requests is refused,
// and what follows it on the connection is not read at all.
func TestTwoReadings(t *testing.T) {
	s := newShell(t)
	addr := serve(t, s.Handler(), ServerConfig{})
	const next = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
	const post = "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\n"
	for name, ask := range map[string]struct {
		raw  string
		want []int
	}{
		"as it should be":            {next + next, []int{200, 200}},
		"length and chunks":          {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, []int{411}},
		"chunks and length":          {post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + next, []int{411}},
		"chunks":                     {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, []int{411}},
		"chunks, and a trailer":      {post + "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n0\r\nAuthorization: Bearer x\r\n\r\n" + next, []int{411}},
		"an unknown coding":          {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + next, []int{501}},
		"two codings":                {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + next, []int{501}},
		"two lengths":                {post + "Content-Length: 0\r\nContent-Length: 4\r\n\r\n" + next, []int{400}},
		"a list of lengths":          {post + "Content-Length: 0, 4\r\n\r\n" + next, []int{400}},
		"a signed length":            {post + "Content-Length: +0\r\n\r\n" + next, []int{400}},
		"a negative length":          {post + "Content-Length: -1\r\n\r\n" + next, []int{400}},
		"a blank before the colon":   {post + "Content-Length : 0\r\n\r\n" + next, []int{400}},
		"two hosts":                  {"GET / HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n" + next, []int{400}},
		"no host":                    {"GET / HTTP/1.1\r\n\r\n" + next, []int{400}},
		"another host in the target": {"GET http://rebound.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n" + next, []int{421}},
		"a NUL in a header":          {"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n" + next, []int{400}},
		"headers over their bound":   {"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("a", 40<<10) + "\r\n\r\n" + next, []int{431}},
		"a form over its bound":      {post + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1048576\r\n\r\na=" + strings.Repeat("b", 1<<20-2) + next, []int{413}},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "127.0.0.1", addr)
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			go func() { // while it is being refused
				if _, err := io.WriteString(c, ask.raw); err == nil && len(ask.want) > 1 {
					_ = c.(interface{ CloseWrite() error }).CloseWrite()
				}
			}()
			var got []int
			for r := bufio.NewReader(c); ; {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					break
				}
				_ = drain(res.Body)
				got = append(got, res.StatusCode)
			}
			if diff := cmp.Diff(ask.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAnybodyPays: what asks for no credential is not free, and costs those who
// have one nothing.
func TestAnybodyPays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShell(t)
		me := s.identity("me")
		for i, ask := range []struct {
			what, host string
			want       int
		}{
			{"GET /openapi.json", "localhost", 200},
			{"GET /.well-known/jwks.json", "localhost", 200},
			{"GET /.well-known/oauth-authorization-server", "localhost", 200},
			{"GET /nothing", "localhost", 404},
			{"GET /oauth2/token", "localhost", 405},
			{"POST //v1/tasks", "localhost", 307},
			{"POST /v1/tasks", "rebound.example", 421},
		} {
			ask1 := func(source string) *httptest.ResponseRecorder {
				gone, cancel := context.WithCancel(t.Context())
				cancel() // so that a refusal does not make it wait
				r := newRequest(ownIssuer, ask.what, "", "").WithContext(gone)
				r.Host, r.RemoteAddr = ask.host, source+":1"
				return s.do(r)
			}
			source := fmt.Sprintf("192.0.2.%d", i+1)
			for n := range strangersPerSource * burstFactor {
				if w := ask1(source); w.Code != ask.want {
					t.Fatalf("%s, number %d: %d %s", ask.what, n, w.Code, w.Body)
				}
			}
			s.recorded()
			w := ask1(source)
			rs := s.recorded()
			if field(t, w, http.StatusTooManyRequests, "reason") != "limit" || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: %s %v", ask.what, w.Body, w.Header())
			}
			if len(rs) != 1 || rs[0].Kind != kindRequest || rs[0].Reason != grants.Limit || rs[0].Status != 429 || rs[0].Source != source {
				t.Errorf("%s: on record: %+v", ask.what, rs)
			}
			if w := ask1("192.0.2.100"); w.Code != ask.want {
				t.Errorf("%s: from elsewhere: %d", ask.what, w.Code)
			}
			r := newRequest(ownIssuer, "GET /v1/tasks", me, "")
			if r.RemoteAddr = source + ":1"; s.do(r).Code != http.StatusOK {
				t.Errorf("%s keeps an agent out", ask.what)
			}
		}
		if s.limits.flight.total != 0 {
			t.Errorf("still in hand: %v", s.limits.flight.by)
		}
	})
}

// TestAnybodyNeedsNoPlace: what asks for no credential is answered when there is
// none; an agent is not, but for what must not wait.
func TestAnybodyNeedsNoPlace(t *testing.T) {
	s := newShell(t)
	for i := range maxFlight - keptFlight {
		if !s.limits.flight.enter(new(slot), fmt.Sprint("elsewhere ", i%2), false) {
			t.Fatal(i)
		}
	}
	for what, want := range map[string]int{"GET /openapi.json": 200, "GET /.well-known/jwks.json": 200, "GET /nothing": 404} {
		if w := s.ask(what, "", ""); w.Code != want {
			t.Errorf("%s: %d", what, w.Code)
		}
	}
	// What must not wait for others has a place yet.
	me := s.identity("me")
	if w := s.ask("GET /v1/tasks", me, ""); w.Code != http.StatusTooManyRequests {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, what := range []string{"POST /v1/tasks/t_aaaaaaaaaaaaaaaaaaaaaaaaaa/end", "POST /v1/tasks/t_aaaaaaaaaaaaaaaaaaaaaaaaaa/beat", "DELETE /v1/grants/g_aaaaaaaaaaaaaaaaaaaaaaaaaa", "DELETE /v1/grants?task=t_aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if w := s.ask(what, me, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
		if w := s.ask(what, "junk", ""); w.Code != http.StatusTooManyRequests {
			t.Errorf("a stranger: %s: %d %s", what, w.Code, w.Body)
		}
	}
}
