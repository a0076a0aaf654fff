package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/toolgrant/toolgrant/grants"
)

// keyServer is an issuer's JWKS endpoint behind TLS, and the file of its CA.
func keyServer(t testing.TB, h http.HandlerFunc) (url, caFile string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(caFile, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL, caFile
}

func urlIssuer(url, caFile string) Issuer {
	return Issuer{Alias: "corp", URL: corpURL, JWKSURL: url, CAFile: caFile, Audience: "toolgrant"}
}

// A Kubernetes API server: its keys behind a bearer token, RS256, no groups, a
// nested claim. BoundServiceAccountTokenVolume's claims are these.
func TestKubernetesServiceAccount(t *testing.T) {
	const iss, sub = "https://kubernetes.default.svc.cluster.local", "system:serviceaccount:ci:agent-7"
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwks := fmt.Sprintf(`{"keys":[{"use":"sig","kty":"RSA","kid":"k8s","alg":"RS256","n":%q,"e":%q}]}`,
		encode(string(key.N.Bytes())), encode(string(big.NewInt(int64(key.E)).Bytes())))
	bearerFile := filepath.Join(t.TempDir(), "token")
	var seen atomic.Value
	url, ca := keyServer(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = io.WriteString(w, jwks)
	})
	rotate := func(bearer string) {
		if err := os.WriteFile(bearerFile, []byte(bearer+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate("first.bearer")
	v, err := New(Config{Issuers: []Issuer{{Alias: "k8s", URL: iss, JWKSURL: url + "/openid/v1/jwks", CAFile: ca, BearerFile: bearerFile, Audience: "toolgrant"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := seen.Load(); got != "Bearer first.bearer" {
		t.Errorf("Authorization %q", got)
	}
	input := encode(`{"alg":"RS256","kid":"k8s"}`) + "." + encode(`{"aud":["toolgrant"],"exp":1800003600,"iat":1800000000,"nbf":1800000000,"iss":"`+iss+`",`+
		`"jti":"0f6f7a8c","kubernetes.io":{"namespace":"ci","node":{"name":"n","uid":"u"},"pod":{"name":"p","uid":"u"},`+
		`"serviceaccount":{"name":"agent-7","uid":"u"},"warnafter":1800003607},"sub":"`+sub+`"}`)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	got, reason := v.Verify(input+"."+encode(string(sig)), testNow)
	if reason != grants.None || got.Principal.ID() != "k8s/"+sub || got.Principal.Groups != nil || !got.For("toolgrant") {
		t.Errorf("%v: %+v", reason, got)
	}
	// Kubernetes puts another token there; the next fetch shows that one.
	rotate("second.bearer")
	if changed, err := v.byURL[iss].refresh(t.Context(), testNow); changed || err != nil || seen.Load() != "Bearer second.bearer" {
		t.Errorf("refresh: %v, %v, Authorization %q", changed, err, seen.Load())
	}
}

func TestFetchRefuses(t *testing.T) {
	key := newTestKey(t, "1")
	var elsewhere atomic.Int32
	target, _ := keyServer(t, func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = io.WriteString(w, key.jwks())
	})
	url, ca := keyServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, target, http.StatusFound)
			return
		case "/error":
			w.WriteHeader(http.StatusInternalServerError)
		case "/created":
			w.WriteHeader(http.StatusCreated)
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat(" ", maxJWKS))
		case "/twice":
			_, _ = io.WriteString(w, key.jwks())
		case "/cut":
			w.Header().Set("Content-Length", "100000")
		}
		_, _ = io.WriteString(w, key.jwks())
	})
	bearer := func(text string) string { return writeFile(t, text) }
	open := writeFile(t, "abc")
	if err := os.Chmod(open, 0o660); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Issuer)
		want   string // in the error; "": none
	}{
		{"good", func(*Issuer) {}, ""},
		{"good, bearer", func(i *Issuer) { i.BearerFile = bearer("a.b-c_d~+/==\n") }, ""},
		{"no CA", func(i *Issuer) { i.CAFile = "" }, "certificate"},
		{"CA of nobody", func(i *Issuer) { i.CAFile = bearer("x") }, "no certificate"},
		{"CA absent", func(i *Issuer) { i.CAFile = "/nonexistent/ca.pem" }, "/nonexistent/ca.pem"},
		{"CA that others write", func(i *Issuer) { i.CAFile = open }, "chmod go-w"},
		{"redirect", func(i *Issuer) { i.JWKSURL += "/redirect" }, "302"},
		{"status 500", func(i *Issuer) { i.JWKSURL += "/error" }, "500"},
		{"status 201", func(i *Issuer) { i.JWKSURL += "/created" }, "201"},
		{"large", func(i *Issuer) { i.JWKSURL += "/large" }, "256 KiB"},
		{"not one value", func(i *Issuer) { i.JWKSURL += "/twice" }, "/twice"},
		{"cut off", func(i *Issuer) { i.JWKSURL += "/cut" }, "EOF"},
		{"nobody there", func(i *Issuer) { i.JWKSURL = "https://127.0.0.1:1/" }, "127.0.0.1:1"},
		{"bearer absent", func(i *Issuer) { i.BearerFile = "/nonexistent/t" }, "/nonexistent/t"},
		{"bearer empty", func(i *Issuer) { i.BearerFile = bearer("\n") }, "not one token"},
		{"bearer of two lines", func(i *Issuer) { i.BearerFile = bearer("CANARY\nCANARY") }, "not one token"},
		{"bearer large", func(i *Issuer) { i.BearerFile = bearer(strings.Repeat("a", maxBearer+1)) }, "not one token"},
		{"bearer that others write", func(i *Issuer) { i.BearerFile = open }, "chmod go-w"},
		{"http", func(i *Issuer) { i.JWKSURL = "http://idp.example/keys" }, "https is needed"},
		{"http to localhost", func(i *Issuer) { i.JWKSURL = "http://localhost:1/keys" }, "https is needed"},
		{"http to a name like an address", func(i *Issuer) { i.JWKSURL = "http://127.0.0.1.example/keys" }, "https is needed"},
		{"file URL", func(i *Issuer) { i.JWKSURL = "file:///etc/keys" }, "absolute URL"},
		{"relative", func(i *Issuer) { i.JWKSURL = "/keys" }, "absolute URL"},
		{"user", func(i *Issuer) { i.JWKSURL = "https://u:CANARY@idp.example/" }, "without user"},
		{"user, broken", func(i *Issuer) { i.JWKSURL = "https://u:CANARY@idp.example:x/" }, "without user"},
		{"fragment", func(i *Issuer) { i.JWKSURL = "https://idp.example/#a" }, "fragment"},
		{"CA without TLS", func(i *Issuer) { i.JWKSURL = "http://127.0.0.1:1/" }, "not https"},
	} {
		iss := urlIssuer(url, ca)
		c.change(&iss)
		v, err := New(Config{Issuers: []Issuer{iss}})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "":
			want(t, v, c.name, key.sign(key.header(""), payload(t)), grants.None)
		case err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "corp"):
			t.Errorf("%s: %v; want %q in it", c.name, err, c.want)
		case strings.Contains(err.Error(), "CANARY"):
			t.Errorf("%s: tells a secret: %v", c.name, err)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests to where a redirect led", n)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, key.jwks()) }))
	defer plain.Close()
	if _, err := New(Config{Issuers: []Issuer{urlIssuer(plain.URL, "")}}); err != nil {
		t.Errorf("http to a loopback address: %v", err)
	}
}

// An endpoint that does not answer, or does so without an end, takes no longer
// than the limit.
func TestFetchIsBoundedInTime(t *testing.T) {
	key := newTestKey(t, "1")
	var hang atomic.Bool
	url, ca := keyServer(t, func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // a return would end the body as if it were whole
		}
		_, _ = io.WriteString(w, key.jwks())
	})
	v, err := New(Config{Issuers: []Issuer{urlIssuer(url, ca)}})
	if err != nil {
		t.Fatal(err)
	}
	iss := v.byURL[corpURL]
	if iss.source.limit != readTime {
		t.Errorf("limit %v", iss.source.limit)
	}
	hang.Store(true)
	iss.source.limit = 50 * time.Millisecond
	if _, err := iss.refresh(t.Context(), testNow); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the time is over", err)
	}
	want(t, v, "after it", key.sign(key.header(""), payload(t)), grants.None)
}

// fakeSource is an issuer's keys in memory, for time that is not real.
type fakeSource struct {
	mu    sync.Mutex
	data  string
	err   error
	reads []time.Time
}

func (s *fakeSource) set(data string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.err = data, err
}

func (s *fakeSource) read(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = append(s.reads, time.Now())
	return []byte(s.data), s.err
}

// since gives how long after start each read was, and forgets them.
func (s *fakeSource) since(start time.Time) (after []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.reads {
		after = append(after, at.Sub(start))
	}
	s.reads = nil
	return after
}

// follow runs Run over a fake URL for the length of test, in a bubble of time.
func follow(t *testing.T, test func(t *testing.T, v *Verifier, src *fakeSource, key testKey, logged *observer.ObservedLogs)) {
	key := newTestKey(t, "1")
	path := writeFile(t, key.jwks())
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zap.DebugLevel)
		v, err := New(Config{Issuers: []Issuer{{Alias: "corp", URL: corpURL, JWKSFile: path, Audience: "toolgrant"}}, Logger: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		src := &fakeSource{data: key.jwks()}
		v.byURL[corpURL].source = source{read: src.read, every: fetchEvery, gap: fetchGap, limit: readTime}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()
		test(t, v, src, key, logged)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// T05: whatever tokens come, an issuer's keys are fetched once a minute at
// most; and a new key is known a minute later at the latest.
func TestT05UnknownKIDHastens(t *testing.T) {
	follow(t, func(t *testing.T, v *Verifier, src *fakeSource, key testKey, _ *observer.ObservedLogs) {
		start := time.Now()
		time.Sleep(15*time.Minute + time.Second)
		if got := src.since(start); !slices.Equal(got, []time.Duration{5 * time.Minute, 10 * time.Minute, 15 * time.Minute}) {
			t.Errorf("left alone, read after %v", got)
		}
		start = time.Now().Add(-time.Second) // of the last read
		for i := range 10 * 60 * 10 {
			want(t, v, "unknown kid", key.sign(fmt.Sprintf(`{"alg":"EdDSA","kid":"new-%d"}`, i), payload(t)), grants.BadCredential)
			time.Sleep(100 * time.Millisecond)
		}
		got := src.since(start)
		if len(got) != 10 {
			t.Errorf("within 10 minutes of tokens with unknown keys read %d times: %v", len(got), got)
		}
		last := time.Duration(0)
		for _, at := range got {
			if at-last < fetchGap {
				t.Errorf("read %v after the last time", at-last)
			}
			last = at
		}

		fresh := newTestKey(t, "2")
		src.set(fresh.jwks(), nil)
		compact := fresh.sign(fresh.header(""), payload(t))
		want(t, v, "a new key, not fetched", compact, grants.BadCredential)
		time.Sleep(fetchGap)
		synctest.Wait()
		want(t, v, "a new key, fetched", compact, grants.None)
		want(t, v, "the old key", key.sign(key.header(""), payload(t)), grants.BadCredential)
	})
}

// Only a key that is not known hastens: a forged signature, a broken token and a
// token of nobody's do not.
func TestForgeriesDoNotHasten(t *testing.T) {
	follow(t, func(t *testing.T, v *Verifier, src *fakeSource, key testKey, _ *observer.ObservedLogs) {
		start := time.Now()
		stranger := newTestKey(t, "1")
		for _, compact := range []string{
			stranger.sign(stranger.header(""), payload(t)), key.sign(`{"alg":"EdDSA"}`, payload(t)), key.sign(`{"alg":"EdDSA","kid":"2","jku":"x"}`, payload(t)),
			key.sign(`{"alg":"EdDSA","kid":"2"}`, payload(t, "iss", `"https://nobody.example"`)), "x", "..",
		} {
			want(t, v, compact, compact, grants.BadCredential)
		}
		time.Sleep(4 * time.Minute)
		if got := src.since(start); got != nil {
			t.Errorf("read after %v", got)
		}
	})
}

// A refresh that fails leaves the last good keys, says so, and is tried again
// after a minute.
func TestFailedRefreshKeepsTheLastGood(t *testing.T) {
	follow(t, func(t *testing.T, v *Verifier, src *fakeSource, key testKey, logged *observer.ObservedLogs) {
		start := time.Now()
		compact := key.sign(key.header(""), payload(t))
		want(t, v, "at first", compact, grants.None)
		for _, broken := range []struct {
			data string
			err  error
		}{{"", errors.New("away")}, {"{}", nil}, {`{"keys":[{"kty":"oct","kid":"1","k":"Q0FOQVJZ"}]}`, nil}} {
			src.set(broken.data, broken.err)
			before := v.Status()[0].Read
			time.Sleep(fetchEvery + 2*fetchGap + time.Second)
			synctest.Wait()
			if s := v.Status()[0]; s.Err == nil || !s.Read.Equal(before) || s.Keys != 1 || s.Alias != "corp" {
				t.Errorf("%v: %+v", broken, s)
			}
			want(t, v, "by the last good keys", compact, grants.None)
			if got := src.since(start); len(got) != 3 {
				t.Errorf("read after %v, want three times", got)
			}
			src.set(key.jwks(), nil)
			time.Sleep(fetchGap)
			synctest.Wait()
			if s := v.Status()[0]; s.Err != nil || time.Since(s.Read) > fetchGap {
				t.Errorf("mended: %+v", s)
			}
			src.since(start)
		}
		// One line for each state, however often it was seen.
		if w, i := logged.FilterLevelExact(zap.WarnLevel).Len(), logged.FilterLevelExact(zap.InfoLevel).Len(); w != 3 || i != 3 {
			t.Errorf("%d warnings and %d notes: %v", w, i, logged.All())
		}
		for _, e := range logged.All() {
			if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "Q0FOQVJZ") || strings.Contains(text, "CANARY") {
				t.Errorf("logs a secret: %s", text)
			}
		}
	})
}

// A file is followed, by the rules by which New reads it.
func TestFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newTestKey(t, "1"), newTestKey(t, "1")
		path := writeFile(t, old.jwks())
		var told atomic.Value
		v, err := New(Config{
			Issuers: []Issuer{{Alias: "corp", URL: corpURL, JWKSFile: path, Audience: "toolgrant"}},
			OnRefresh: func(alias string, changed bool, err error) {
				told.Store(fmt.Sprintf("%s %v %v", alias, changed, err != nil))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()
		step := func(name string, do func() error, valid, invalid testKey, wantTold string) {
			t.Helper()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lookEvery)
			synctest.Wait()
			want(t, v, name, valid.sign(valid.header(""), payload(t)), grants.None)
			want(t, v, name+", the other", invalid.sign(invalid.header(""), payload(t)), grants.BadCredential)
			if got := told.Load(); got != wantTold {
				t.Errorf("%s: told %v, want %s", name, got, wantTold)
			}
		}
		write := func(data string) func() error {
			return func() error { return os.WriteFile(path, []byte(data), 0o600) }
		}
		step("as it was", func() error { return nil }, old, fresh, "corp false false")
		step("half written", write(fresh.jwks()[:20]), old, fresh, "corp false true")
		step("written", write(fresh.jwks()), fresh, old, "corp true false")
		step("gone", func() error { return os.Remove(path) }, fresh, old, "corp false true")
		step("back", write(old.jwks()), old, fresh, "corp true false")
		step("others may write", func() error { return errors.Join(write(fresh.jwks())(), os.Chmod(path, 0o666)) }, old, fresh, "corp false true")
		step("no more", func() error { return os.Chmod(path, 0o600) }, fresh, old, "corp true false")
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// Verify while keys change: each token is judged by one set, old or new.
func TestRefreshWhileVerifying(t *testing.T) {
	a, b := newTestKey(t, "a"), newTestKey(t, "b")
	both := strings.TrimSuffix(a.jwks(), "]}") + "," + strings.TrimPrefix(b.jwks(), `{"keys":[`)
	v, err := New(Config{Issuers: []Issuer{{Alias: "corp", URL: corpURL, JWKSFile: writeFile(t, both), Audience: "toolgrant"}}})
	if err != nil {
		t.Fatal(err)
	}
	src := &fakeSource{data: both}
	iss := v.byURL[corpURL]
	iss.source.read = src.read
	always, sometimes := b.sign(b.header(""), payload(t)), a.sign(a.header(""), payload(t))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				if _, reason := v.Verify(always, testNow); reason != grants.None {
					t.Errorf("a key that is in both sets: %v", reason)
				}
				_, _ = v.Verify(sometimes, testNow)
			}
		})
	}
	for i := range 100 {
		src.set([]string{both, b.jwks()}[i%2], nil)
		if _, err := iss.refresh(t.Context(), testNow); err != nil {
			t.Error(err)
		}
		// Nobody else writes here: what is true now is so after the refresh.
		if _, reason := v.Verify(sometimes, testNow); (reason == grants.None) != (i%2 == 0) {
			t.Errorf("round %d: %v", i, reason)
		}
	}
	stop.Store(true)
	wg.Wait()
}
