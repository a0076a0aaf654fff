package broker

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

const (
	ownIssuer     = "http://127.0.0.1:8181"
	foreignIssuer = "https://idp.example"
	brokerAud     = "toolgrant"
)

// shell is a Broker on real parts, and what it put on record.
type shell struct {
	*Broker
	t      testing.TB
	issuer *identity.DevIssuer
	keys   *token.Keys

	mu      sync.Mutex
	records []audit.Record
}

// newShell returns a shell whose policy permits everything; change makes it
// another.
func newShell(t testing.TB, change ...func(*Config)) *shell {
	t.Helper()
	s := &shell{t: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	s.issuer, err = identity.NewDevIssuer(filepath.Join(t.TempDir(), "issuer"), foreignIssuer)
	must(err)
	ids, err := identity.New(identity.Config{Issuers: []identity.Issuer{{
		Alias: "corp", URL: foreignIssuer, JWKSFile: s.issuer.JWKSFile(), Audience: brokerAud,
	}}})
	must(err)
	s.keys, err = token.OpenKeys(filepath.Join(t.TempDir(), "keys"), token.EdDSA)
	must(err)
	cat, err := catalog.Parse("tools.yaml", []byte(tools))
	must(err)
	store := grants.NewMemory(grants.MemoryConfig{})
	table := grants.NewTable(grants.TableConfig{Draw: store.Draw})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = table.Follow(ctx, store, nil) }()
	t.Cleanup(func() { stop(); <-ended })
	eventually(t, "the table is fresh", table.Fresh)
	cfg := Config{
		Catalog: cat, Store: store, Table: table, Identity: ids, Keys: s.keys, Issuer: ownIssuer, Logger: zap.NewNop(),
		Decide: func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			ds := make([]grants.Decision, len(in))
			for i := range ds {
				ds[i] = grants.Decision{Allow: true, Policies: []string{"all"}}
			}
			return ds, nil
		},
		Record: func(rs []audit.Record) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.records = append(s.records, rs...)
			return nil
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	s.Broker = New(cfg)
	return s
}

// eventually waits for what another goroutine or process brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// identity mints an identity token for the broker.
func (s *shell) identity(sub string) string { return s.minted(sub, brokerAud, time.Hour) }

func (s *shell) minted(sub, aud string, ttl time.Duration) string {
	s.t.Helper()
	compact, err := s.issuer.Mint(sub, nil, aud, ttl)
	if err != nil {
		s.t.Fatal(err)
	}
	return compact
}

// newRequest is a request as a client sends it: "POST /v1/tasks", with the
// identity token if there is one, and the body as JSON unless it is a form.
func newRequest(base, what, bearer, body string) *http.Request {
	method, path, _ := strings.Cut(what, " ")
	r := httptest.NewRequest(method, base+path, strings.NewReader(body))
	r.RequestURI = ""
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	switch {
	case strings.HasPrefix(body, "grant_type="):
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case body != "":
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// ask sends a request through Handler.
func (s *shell) ask(what, bearer, body string) *httptest.ResponseRecorder {
	return s.do(newRequest(ownIssuer, what, bearer, body))
}

func (s *shell) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// exchangeForm asks for tools of server a.
func exchangeForm(subject, task string, tools ...string) string {
	return "grant_type=" + url.QueryEscape(grantTypeExchange) + "&" + url.Values{
		"subject_token": {subject}, "subject_token_type": {typeJWT}, "resource": {"https://a.internal"},
		"scope": {strings.Join(tools, " ")}, "task": {task},
	}.Encode()
}

// task starts a task of the owner, who is its agent.
func (s *shell) task(bearer string) string {
	s.t.Helper()
	w := s.ask("POST /v1/tasks", bearer, `{"kind":"k"}`)
	return field(s.t, w, http.StatusCreated, "task")
}

// field reads a text out of an answer.
func field(t testing.TB, w *httptest.ResponseRecorder, status int, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Code != status {
		t.Fatalf("%d %s, want %d: %v", w.Code, w.Body, status, err)
	}
	text, _ := m[name].(string)
	return text
}

// recorded returns what was put on record since the last time.
func (s *shell) recorded() []audit.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	rs := s.records
	s.records = nil
	return rs
}

func drain(r io.ReadCloser) string {
	defer r.Close()
	b, _ := io.ReadAll(r)
	return string(b)
}
