package broker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

// caller calls limits as the door does. Its requests are of callers that have
// gone, so that a refusal does not make them wait.
type caller struct {
	l        *limits
	verified int             // how many checks were paid for
	expired  map[string]bool // credentials that are genuine no more
}

func (c *caller) present(source, credential string) (grants.Reason, *request) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	hr := httptest.NewRequestWithContext(gone, http.MethodGet, "/", nil)
	hr.RemoteAddr = source + ":1"
	r := &request{Request: hr}
	names := func(compact string) bool { return !strings.HasPrefix(compact, "junk ") }
	who, why := c.l.verify(r, credential, names, func(compact string, _ time.Time) (identity.Verified, grants.Reason) {
		c.verified++
		agent, ok := strings.CutPrefix(compact, "genuine ")
		agent, _, _ = strings.Cut(agent, " ")
		switch {
		case !ok:
			return identity.Verified{}, grants.BadCredential
		case c.expired[compact]:
			return identity.Verified{}, grants.ExpiredToken
		}
		return identity.Verified{
			Principal: grants.Principal{Issuer: "corp", Subject: agent}, Digest: sha256.Sum256([]byte(compact)),
		}, grants.None
	})
	r.who = who
	return why, r
}

// ask presents a credential and, if it is accepted, counts the request.
func (c *caller) ask(source, credential string) grants.Reason {
	why, r := c.present(source, credential)
	if why == grants.None && !c.l.allow(r) {
		return grants.Limit
	}
	return why
}

// many asks n times and returns how many were not refused for a limit.
func (c *caller) many(n int, source string, credential func(i int) string) (heard int) {
	for i := range n {
		if c.ask(source, credential(i)) != grants.Limit {
			heard++
		}
	}
	return heard
}

func always(s string) func(int) string { return func(int) string { return s } }

func junk(i int) string { return fmt.Sprint("junk ", i) }

func forged(i int) string { return fmt.Sprint("forged ", i) }

func TestAgentsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &caller{l: newLimits(10)}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 20}, {time.Second, 10}, {500 * time.Millisecond, 5}, {time.Hour, 20}} {
			time.Sleep(step.wait)
			if got := c.many(50, "192.0.2.1", always("genuine a")); got != step.want {
				t.Errorf("after %v: %d requests, want %d", step.wait, got, step.want)
			}
		}
		// Another credential and another address are no second allowance, and
		// another agent has its own.
		if got := c.many(50, "192.0.2.2", func(i int) string { return fmt.Sprint("genuine a ", i) }); got != 0 {
			t.Errorf("by other tokens: %d more requests", got)
		}
		if got := c.many(50, "192.0.2.1", always("genuine b")); got != 20 {
			t.Errorf("another agent: %d requests, want 20", got)
		}
	})
}

// TestOneTokensFlood costs as many verifications as the agent may make requests.
func TestOneTokensFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &caller{l: newLimits(10)}
		if c.many(10_000, "192.0.2.1", always("genuine a")); c.verified != 20 {
			t.Errorf("%d verifications, want 20", c.verified)
		}
	})
}

// TestJunk buys no more looks than its address may have, and keeps nobody out.
func TestJunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst = strangersPerSource * burstFactor
		c := &caller{l: newLimits(10)}
		if c.many(10_000, "192.0.2.1", junk); c.verified != burst {
			t.Errorf("%d looks, want %d", c.verified, burst)
		}
		for _, ask := range []struct {
			source, credential string
			want               grants.Reason
		}{
			{"192.0.2.1", "genuine a", grants.None}, // it was never seen before
			{"192.0.2.1", "genuine a 2", grants.None},
			{"192.0.2.1", "junk 0", grants.Limit}, // junk is not known by being seen
		} {
			if why := c.ask(ask.source, ask.credential); why != ask.want {
				t.Errorf("%v: %v", ask, why)
			}
		}
	})
}

// TestForgeries buy no more verifications than their address may have, and keep
// nobody out who was there before, nor anyone elsewhere.
func TestForgeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst = strangersPerSource * burstFactor
		c := &caller{l: newLimits(10)}
		if why := c.ask("192.0.2.1", "genuine a"); why != grants.None {
			t.Fatal(why)
		}
		c.verified = 0
		c.many(10_000, "192.0.2.1", forged)
		if c.verified != burst-1 {
			t.Errorf("%d verifications, want %d", c.verified, burst-1)
		}
		for _, ask := range []struct {
			source, credential string
			want               grants.Reason
		}{
			{"192.0.2.1", "genuine a", grants.None},    // known
			{"192.0.2.1", "genuine a 2", grants.Limit}, // nobody can tell it from a forgery
			{"192.0.2.2", "genuine b", grants.None},
			{"192.0.2.1", "forged 0", grants.Limit}, // nor is one known by being seen
		} {
			if why := c.ask(ask.source, ask.credential); why != ask.want {
				t.Errorf("%v: %v", ask, why)
			}
		}
		// Half an hour later the agent is known no more, and forgeries are not either.
		time.Sleep(30 * time.Minute)
		c.many(10_000, "192.0.2.1", forged)
		if why := c.ask("192.0.2.1", "genuine a"); why != grants.Limit {
			t.Errorf("a credential is known for ever: %v", why)
		}
	})
}

// TestOnlyAcceptedCredentialsAreKnown: one that is genuine, and fails all the
// same, is paid for by its address.
func TestOnlyAcceptedCredentialsAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &caller{l: newLimits(1_000_000), expired: map[string]bool{}}
		if why := c.ask("192.0.2.1", "genuine a"); why != grants.None {
			t.Fatal(why)
		}
		c.expired["genuine a"] = true
		c.verified = 0
		c.many(10_000, "192.0.2.1", always("genuine a"))
		if want := strangersPerSource * burstFactor; c.verified != want {
			t.Errorf("expired: %d verifications, want %d", c.verified, want)
		}
		// Meant for a tool server: the door refuses it before it is counted.
		c.verified = 0
		for range 10_000 {
			c.present("192.0.2.2", "genuine b")
		}
		if want := strangersPerSource * burstFactor; c.verified != want {
			t.Errorf("never accepted: %d verifications, want %d", c.verified, want)
		}
	})
}

func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newRecent[int, int](time.Minute, 3)
		put := func(k int) bool {
			_, ok := m.of(k, time.Now(), func() int { return k })
			return ok
		}
		has := func(k int) bool {
			v, ok := m.get(k, time.Now())
			if ok && v != k {
				t.Errorf("%d is %d", k, v)
			}
			return ok
		}
		if !put(1) || !put(2) || !put(3) || put(4) || !put(1) {
			t.Error("it does not hold three, or holds four")
		}
		for range 10 {
			time.Sleep(59 * time.Second)
			if !has(1) {
				t.Fatal("forgotten while in use")
			}
		}
		if has(2) || has(3) || !put(4) || !put(5) || put(6) {
			t.Error("not forgotten, or not forgotten in the count")
		}
		m.forget(4)
		if has(4) || !put(6) {
			t.Error("not forgotten when told")
		}
		time.Sleep(2 * time.Minute)
		if has(1) || has(5) || has(6) {
			t.Error("not forgotten together")
		}
	})
}

// TestNoRoomForMoreCallers: they share an allowance, and those that are there
// keep theirs.
func TestNoRoomForMoreCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &caller{l: newLimits(10)}
		c.l.agents.max, c.l.strangers.max = 1, 1
		if why := c.ask("192.0.2.1", "genuine a"); why != grants.None {
			t.Fatal(why)
		}
		agents := func(i int) string { return fmt.Sprintf("genuine b%d", i) }
		if got, want := c.many(390, "192.0.2.1", agents), 390; got != want {
			t.Errorf("many agents: %d, want %d", got, want)
		}
		other := func(i int) string { return fmt.Sprintf("genuine c%d", i) }
		if got, want := c.many(390, "192.0.2.2", other), 10; got != want {
			t.Errorf("many more agents: %d, want %d", got, want)
		}
		if got := c.many(50, "192.0.2.1", always("genuine a")); got != 19 {
			t.Errorf("the agent that was there: %d, want 19", got)
		}
		c.verified = 0
		for i := range 10_000 {
			c.ask(fmt.Sprintf("198.51.100.%d", i%256), forged(i))
		}
		if want := strangersPerSource*burstFactor - 390; c.verified != want {
			t.Errorf("forgeries of many addresses: %d verifications, want %d", c.verified, want)
		}
	})
}

// TestRefusedWait: a refused caller waits with nothing in hand, and not all do.
func TestRefusedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(10)
		refuse := func() (time.Duration, *slot) {
			s := new(slot)
			if !l.flight.enter(s, "192.0.2.1", false) {
				t.Error("no place")
			}
			hr := httptest.NewRequestWithContext(context.WithValue(t.Context(), slotKey{}, s), http.MethodGet, "/", nil)
			began := time.Now()
			l.delay(&request{Request: hr, body: []byte("x")})
			return time.Since(began), s
		}
		for range maxWaiting {
			go refuse()
			synctest.Wait()
		}
		if l.flight.total != 0 {
			t.Errorf("%d places are held by who waits", l.flight.total)
		}
		if d, _ := refuse(); d != 0 {
			t.Errorf("one too many waited %v", d)
		}
		time.Sleep(2 * refusalDelay)
		synctest.Wait()
		if d, s := refuse(); d < refusalDelay || d > 2*refusalDelay || *s != (slot{}) {
			t.Errorf("waited %v, want about %v; holds %v", d, refusalDelay, *s)
		}
	})
}

func TestFlight(t *testing.T) {
	f := flight{by: map[string]int{}}
	take := func(n int, source, agent string) (took []*slot) {
		for i := range n {
			s := new(slot)
			if f.enter(s, source, false) && f.claim(s, fmt.Sprint(agent, i/maxFlightAgent)) {
				took = append(took, s)
			} else {
				f.leave(s)
			}
		}
		return took
	}
	// One agent has its share, of one address or of two.
	if a, b := take(20, "192.0.2.1", "a"), take(20, "192.0.2.2", "a"); len(a) != 20 || len(b) != maxFlightAgent-20 || f.room("a0") || !f.room("b0") {
		t.Errorf("one agent: %d and %d", len(a), len(b))
	} else {
		for _, s := range append(a, b...) {
			f.leave(s)
			f.leave(s)
		}
	}
	if f.total != 0 || len(f.by) != 0 {
		t.Fatalf("not given back: %d, %v", f.total, f.by)
	}
	// So has one address, and two have all.
	one, two := take(maxFlight, "192.0.2.1", "a"), take(maxFlight, "192.0.2.2", "b")
	if len(one) != maxFlightSource || len(two) != maxFlight-keptFlight-maxFlightSource {
		t.Errorf("two addresses: %d and %d", len(one), len(two))
	}
	if len(take(1, "192.0.2.3", "c")) != 0 {
		t.Error("a place beyond all")
	}
	f.leave(one[0])
	if len(take(1, "192.0.2.3", "c")) != 1 {
		t.Error("a place that was given back is not there")
	}
	// What is urgent has places yet, also of an address that has its share.
	urgent := 0
	for f.enter(new(slot), "192.0.2.1", true) {
		urgent++
	}
	if urgent != keptFlight || f.total != maxFlight {
		t.Errorf("%d urgent ones, want %d; %d in all", urgent, keptFlight, f.total)
	}
}

// TestFlightIsGivenBack whatever becomes of the handler.
func TestFlightIsGivenBack(t *testing.T) {
	f := flight{by: map[string]int{}}
	for _, h := range []http.HandlerFunc{
		func(http.ResponseWriter, *http.Request) {},
		func(_ http.ResponseWriter, r *http.Request) {
			s := slotOf(&request{Request: r})
			if !f.enter(s, "192.0.2.1", false) || !f.claim(s, "a") || f.total != 1 {
				t.Error("no place")
			}
			panic(http.ErrAbortHandler)
		},
	} {
		func() {
			defer func() { _ = recover() }()
			f.counted(h).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		}()
		if f.total != 0 || len(f.by) != 0 {
			t.Errorf("not given back: %d, %v", f.total, f.by)
		}
	}
}

func TestSourceOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "[2001:db8:1:2::9]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80": "fe80::/64", "@": "", "": "",
	} {
		if got := sourceOf(remote); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
}

// TestOverTheLimit at both kinds of endpoint: 429, Retry-After, on record.
func TestOverTheLimit(t *testing.T) {
	s := newShell(t, func(c *Config) { c.RatePerAgent = 1 })
	for _, ask := range []struct{ what, error string }{{"POST /v1/tasks", "temporarily_unavailable"}, {"POST /oauth2/token", "temporarily_unavailable"}} {
		me := s.identity(strings.ReplaceAll(ask.what[5:], "/", "-"))
		bearer, body := me, `{"kind":"k"}`
		if ask.what == "POST /oauth2/token" {
			bearer, body = "", exchangeForm(me, "t_aaaaaaaaaaaaaaaaaaaaaaaaaa", "a/x")
		}
		var w *httptest.ResponseRecorder
		eventually(t, "a refusal", func() bool {
			s.recorded()
			w = s.ask(ask.what, bearer, body)
			return w.Code == http.StatusTooManyRequests
		})
		if got := field(t, w, http.StatusTooManyRequests, "error"); got != ask.error || w.Header().Get("Retry-After") != "1" || field(t, w, w.Code, "reason") != "limit" {
			t.Errorf("%s: %s %v", ask.what, w.Body, w.Header())
		}
		rs := s.recorded()
		if len(rs) != 1 || rs[0].Reason != grants.Limit || rs[0].Status != http.StatusTooManyRequests || rs[0].ID != field(t, w, w.Code, "decision_id") {
			t.Errorf("%s: on record: %+v", ask.what, rs)
		}
	}
	if s.limits.flight.total != 0 || len(s.limits.flight.by) != 0 {
		t.Errorf("still in hand: %v", s.limits.flight.by)
	}
}
