package client

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	testIdentity = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJwbGFubmVyIn0.c2lnbmF0dXJl"
	testTask     = "t_abcdefghijklmnopqrstuvwxyz"
	testGrant    = "g_abcdefghijklmnopqrstuvwxyz"
	testToken    = "eyJ0eXAiOiJ0b29sZ3JhbnQrand0In0.e30.c2ln"
)

// broker answers each request with one status and body, and keeps the request.
type broker struct {
	*httptest.Server
	status int
	header http.Header
	body   string

	method, path, auth, ctype, agent string
	sent                             string
	query                            url.Values
	calls                            int
}

func newBroker(t *testing.T, status int, body string) *broker {
	b := &broker{status: status, body: body, header: http.Header{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		b.method, b.path, b.auth, b.sent = r.Method, r.URL.Path, r.Header.Get("Authorization"), string(sent)
		b.query = r.URL.Query()
		b.ctype, b.agent = r.Header.Get("Content-Type"), r.Header.Get("User-Agent")
		b.calls++
		for k, v := range b.header {
			w.Header()[k] = v
		}
		w.WriteHeader(b.status)
		io.WriteString(w, b.body)
	}))
	t.Cleanup(b.Close)
	return b
}

func identity(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

func newClient(t *testing.T, url string) *Client {
	t.Helper()
	c, err := New(Config{URL: url, Identity: identity(testIdentity)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewURL(t *testing.T) {
	for u, ok := range map[string]bool{
		"https://broker.example":        true,
		"https://broker.example/prefix": true,
		"http://127.0.0.1:8181":         true,
		"http://127.8.9.10":             true,
		"http://[::1]:8181":             true,
		"http://localhost:8181":         true,
		"http://broker.example":         false,
		"http://10.0.0.1:8181":          false,
		"http://127.0.0.1.example":      false,
		"http://localhost.example":      false,
		"http://0.0.0.0:8181":           false,
		"unix:///run/x.sock":            false,
		"ftp://127.0.0.1":               false,
		"broker.example":                false,
		"":                              false,
		"https://":                      false,
		"https://:443":                  false,
		"https://u:p@broker.example":    false,
		"https://broker.example?a=b":    false,
		"https://broker.example?":       false,
		"https://broker.example#f":      false,
	} {
		_, err := New(Config{URL: u, Identity: identity(testIdentity)})
		if (err == nil) != ok {
			t.Errorf("New(%q): %v, want ok %v", u, err, ok)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("New(%q): %v does not wrap ErrInvalid", u, err)
		}
	}
	if _, err := New(Config{URL: "https://u:hunter2@bro ker"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password in a bad URL: %v", err)
	}
	if _, err := New(Config{URL: "https://broker.example"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no identity: %v", err)
	}
}

func TestStartTask(t *testing.T) {
	b := newBroker(t, 201, `{"task":"`+testTask+`","kind":"monthly-report","owner":"corp/planner","agents":["corp/report-bot"],"deadline":"2030-01-02T03:04:05Z","later":1}`)
	got, err := newClient(t, b.URL).StartTask(t.Context(), TaskRequest{Kind: "monthly-report", Agents: []string{"corp/report-bot"}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	want := Started{Task: Task{ID: testTask, Kind: "monthly-report", Owner: "corp/planner", Agents: []string{"corp/report-bot"}, Deadline: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	seen := []string{b.method, b.path, b.auth, b.ctype, b.agent, b.sent}
	if d := cmp.Diff([]string{"POST", "/v1/tasks", "Bearer " + testIdentity, "application/json", "toolgrant-client",
		`{"kind":"monthly-report","agents":["corp/report-bot"],"ttl":3600}`}, seen); d != "" {
		t.Error(d)
	}

	if _, err := newClient(t, b.URL).StartTask(t.Context(), TaskRequest{Kind: "k"}); err != nil || b.sent != `{"kind":"k"}` {
		t.Errorf("defaults: sent %s (%v)", b.sent, err)
	}
}

func TestEndTaskAndRevoke(t *testing.T) {
	b := newBroker(t, 200, `{"task":"`+testTask+`","state":"ended"}`)
	if err := newClient(t, b.URL+"/prefix/").EndTask(t.Context(), testTask); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"POST", "/prefix/v1/tasks/" + testTask + "/end", "Bearer " + testIdentity, "", ""}, []string{b.method, b.path, b.auth, b.ctype, b.sent}); d != "" {
		t.Error(d)
	}
	b = newBroker(t, 200, `{"grant":"`+testGrant+`","state":"revoked"}`)
	if err := newClient(t, b.URL).Revoke(t.Context(), testGrant); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"DELETE", "/v1/grants/" + testGrant, "Bearer " + testIdentity}, []string{b.method, b.path, b.auth}); d != "" {
		t.Error(d)
	}
}

// An answer that does not say that it was done must not pass for done.
func TestNotDone(t *testing.T) {
	for _, body := range []string{`{}`, `{"task":"` + testTask + `","state":"open"}`, `{"task":"t_bbbbbbbbbbbbbbbbbbbbbbbbbb","state":"ended"}`,
		`{"Task":"` + testTask + `","State":"ended"}`, `{"task":"` + testTask + `","state":"ended","state":"ended"}`, `null`, ``, `<html>`} {
		if err := newClient(t, newBroker(t, 200, body).URL).EndTask(t.Context(), testTask); err == nil {
			t.Errorf("EndTask took %s", body)
		}
	}
	for _, body := range []string{`{}`, `{"grant":"` + testGrant + `","state":"live"}`, `{"grant":"g_bbbbbbbbbbbbbbbbbbbbbbbbbb","state":"revoked"}`} {
		if err := newClient(t, newBroker(t, 200, body).URL).Revoke(t.Context(), testGrant); err == nil {
			t.Errorf("Revoke took %s", body)
		}
	}
	for _, body := range []string{`{}`, `{"task":"t_x"}`, `{"task":"t_\u001b[2Jaaaaaaaaaaaaaaaaaaaaaa"}`} {
		if _, err := newClient(t, newBroker(t, 201, body).URL).StartTask(t.Context(), TaskRequest{Kind: "k"}); err == nil {
			t.Errorf("StartTask took %s", body)
		}
	}
}

func answer(edit func(map[string]any)) string {
	m := map[string]any{
		"access_token": testToken, "issued_token_type": tokenTypeAccessToken, "token_type": "Bearer", "expires_in": 300, "scope": "reports/export",
		"authorization_details": []any{map[string]any{
			"type": detailType, "grant_id": testGrant, "tool": "reports/export", "task": testTask, "ttl": 300, "max_calls": 2,
			"constraints": []any{map[string]any{"type": "object"}}, "constraints_digest": "ab", "expires_at": "2030-01-02T03:04:05Z", "reused": true}},
	}
	if edit != nil {
		edit(m)
	}
	b, _ := stdjson.Marshal(m)
	return string(b)
}

func TestExchange(t *testing.T) {
	b := newBroker(t, 200, answer(nil))
	got, err := newClient(t, b.URL).Exchange(t.Context(),
		GrantRequest{Tool: "reports/export", Task: testTask, TTL: 5 * time.Minute, MaxCalls: 2, Constraints: []stdjson.RawMessage{[]byte(`{"type":"object"}`)}},
		GrantRequest{Tool: "reports/health", Task: testTask})
	if err != nil {
		t.Fatal(err)
	}
	want := Token{AccessToken: testToken, IssuedTokenType: tokenTypeAccessToken, TokenType: "Bearer", ExpiresIn: 300, Scope: "reports/export",
		Grants: []Grant{{Type: detailType, ID: testGrant, Tool: "reports/export", Task: testTask, TTL: 300, MaxCalls: 2,
			Constraints: []stdjson.RawMessage{[]byte(`{"type":"object"}`)}, ConstraintsDigest: "ab", ExpiresAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Reused: true}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"POST", "/oauth2/token", "", "application/x-www-form-urlencoded"}, []string{b.method, b.path, b.auth, b.ctype}); d != "" {
		t.Error(d)
	}
	form, _ := url.ParseQuery(b.sent)
	if d := cmp.Diff(url.Values{
		"grant_type": {grantTypeExchange}, "subject_token": {testIdentity}, "subject_token_type": {tokenTypeJWT},
		"authorization_details": {`[{"type":"urn:toolgrant:grant:1","tool":"reports/export","task":"` + testTask + `","ttl":300,"max_calls":2,"constraints":[{"type":"object"}]},` +
			`{"type":"urn:toolgrant:grant:1","tool":"reports/health","task":"` + testTask + `"}]`},
	}, form); d != "" {
		t.Error(d)
	}
}

func TestExchangeScope(t *testing.T) {
	b := newBroker(t, 200, answer(nil))
	_, err := newClient(t, b.URL).ExchangeScope(t.Context(), ScopeRequest{Resource: "https://reports.internal", Scope: []string{"reports/export", "reports/health"}, Task: testTask, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	form, _ := url.ParseQuery(b.sent)
	if d := cmp.Diff(url.Values{
		"grant_type": {grantTypeExchange}, "subject_token": {testIdentity}, "subject_token_type": {tokenTypeJWT},
		"resource": {"https://reports.internal"}, "scope": {"reports/export reports/health"}, "task": {testTask}, "ttl": {"60"},
	}, form); d != "" {
		t.Error(d)
	}
}

func TestExchangeAnswerChecked(t *testing.T) {
	for name, edit := range map[string]func(map[string]any){
		"no token":      func(m map[string]any) { delete(m, "access_token") },
		"line break":    func(m map[string]any) { m["access_token"] = "a\r\nX-Evil: 1" },
		"escape":        func(m map[string]any) { m["access_token"] = "a\x1bb" },
		"other type":    func(m map[string]any) { m["token_type"] = "DPoP" },
		"refresh token": func(m map[string]any) { m["issued_token_type"] = "urn:ietf:params:oauth:token-type:refresh_token" },
		"expired":       func(m map[string]any) { m["expires_in"] = 0 },
		"no grants":     func(m map[string]any) { delete(m, "authorization_details") },
		"other detail": func(m map[string]any) {
			m["authorization_details"] = []any{map[string]any{"type": "x", "grant_id": testGrant}}
		},
		"not a grant id": func(m map[string]any) {
			m["authorization_details"] = []any{map[string]any{"type": detailType, "grant_id": "g_"}}
		},
		"expires as text": func(m map[string]any) { m["expires_in"] = "300" },
	} {
		tok, err := newClient(t, newBroker(t, 200, answer(edit)).URL).Exchange(t.Context(), GrantRequest{Tool: "reports/export", Task: testTask})
		if err == nil || tok.AccessToken != "" {
			t.Errorf("%s: got %v, %v", name, tok, err)
		} else if strings.Contains(err.Error(), testToken) {
			t.Errorf("%s: the error holds the token", name)
		}
	}
}

// What cannot be meant is refused before anything is sent.
func TestInvalidNotSent(t *testing.T) {
	b := newBroker(t, 200, answer(nil))
	c := newClient(t, b.URL)
	good := GrantRequest{Tool: "reports/export", Task: testTask}
	with := func(f func(*GrantRequest)) error {
		g := good
		f(&g)
		_, err := c.Exchange(t.Context(), g)
		return err
	}
	_, noKind := c.StartTask(t.Context(), TaskRequest{})
	_, negative := c.StartTask(t.Context(), TaskRequest{Kind: "k", TTL: -time.Second})
	_, nothing := c.Exchange(t.Context())
	_, noScope := c.ExchangeScope(t.Context(), ScopeRequest{Resource: "https://r", Task: testTask})
	_, twoTools := c.ExchangeScope(t.Context(), ScopeRequest{Resource: "https://r", Scope: []string{"a/b c/d"}, Task: testTask})
	badToken := func(tok string) error {
		c, err := New(Config{URL: b.URL, Identity: identity(tok)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Exchange(t.Context(), good)
		if err != nil && tok != "" && strings.Contains(err.Error(), tok) {
			t.Errorf("the error holds the token: %v", err)
		}
		return err
	}
	for name, err := range map[string]error{
		"no kind": noKind, "negative ttl": negative, "nothing": nothing, "no scope": noScope, "two tools in one": twoTools,
		"part of a second": with(func(g *GrantRequest) { g.TTL = 1500 * time.Millisecond }),
		"negative budget":  with(func(g *GrantRequest) { g.MaxCalls = -1 }),
		"no server":        with(func(g *GrantRequest) { g.Tool = "export" }),
		"blank in tool":    with(func(g *GrantRequest) { g.Tool = "a/b c" }),
		"task":             with(func(g *GrantRequest) { g.Task = "t_../../x" }),
		"bad constraint":   with(func(g *GrantRequest) { g.Constraints = []stdjson.RawMessage{[]byte(`{"a":1,"a":2}`)} }),
		"end":              c.EndTask(t.Context(), "../grants"),
		"end of a grant":   c.EndTask(t.Context(), testGrant),
		"revoke":           c.Revoke(t.Context(), "g_UPPERCASEUPPERCASEUPPERCAS"),
		"empty token":      badToken(""),
		"token with break": badToken("aa.bb.cc\r\nX-Evil: 1"),
		"token with blank": badToken("aa.bb.cc "),
		"huge token":       badToken(strings.Repeat("a", maxToken+1)),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if b.calls != 0 {
		t.Errorf("%d requests were sent", b.calls)
	}
}
