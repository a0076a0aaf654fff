package main

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

const (
	testIdentity = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJwbGFubmVyIn0.c2lnbmF0dXJl"
	testTask     = "t_abcdefghijklmnopqrstuvwxyz"
	testGrant    = "g_abcdefghijklmnopqrstuvwxyz"
	testToken    = "eyJ0eXAiOiJ0b29sZ3JhbnQrand0In0.e30.c2ln"
)

// testTokenAnswer is a token as POST /v1/grants gives it.
const testTokenAnswer = `{"server":"reports","resource":"https://reports.internal","access_token":"` + testToken + `","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":300,"scope":"reports/export","authorization_details":[` +
	`{"type":"urn:toolgrant:grant:1","grant_id":"` + testGrant + `","tool":"reports/export","task":"` + testTask + `","ttl":300,"max_calls":2,"constraints":[{"type":"object"}],"constraints_digest":"ab","expires_at":"2030-01-02T03:04:05Z","reused":false},` +
	`{"type":"urn:toolgrant:grant:1","grant_id":"g_bbbbbbbbbbbbbbbbbbbbbbbbbb","tool":"reports/health","task":"` + testTask + `","ttl":300,"expires_at":"2030-01-02T03:04:05Z","reused":true}]}`

// result is what a run of the program came to.
type result struct {
	code           int
	stdout, stderr string
}

func toolgrant(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// startBroker answers as a broker does; status 0 is success. It sets the
// environment so that the commands find it.
func startBroker(t *testing.T, status int, refusal string) *http.Request {
	t.Helper()
	last := &http.Request{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*last = *r
		last.Body = io.NopCloser(bytes.NewReader(body))
		w.Header().Set("Content-Type", "application/json")
		switch {
		case status != 0:
			w.WriteHeader(status)
			io.WriteString(w, refusal)
		case r.URL.Path == "/v1/tasks":
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"task":"`+testTask+`","kind":"monthly-report","owner":"corp/planner","agents":["corp/report-bot"],"deadline":"2030-01-02T03:04:05Z"}`)
		case r.URL.Path == "/v1/tasks/"+testTask+"/end":
			io.WriteString(w, `{"task":"`+testTask+`","state":"ended"}`)
		case r.URL.Path == "/v1/grants/"+testGrant:
			io.WriteString(w, `{"grant":"`+testGrant+`","state":"revoked"}`)
		case r.URL.Path == "/v1/grants" && r.Method == http.MethodPost:
			io.WriteString(w, `{"tokens":[`+testTokenAnswer+`]}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	t.Setenv(envURL, srv.URL)
	t.Setenv(envTokenFile, tokenFile(t, testIdentity+"\n", 0o600))
	return last
}

func tokenFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity.jwt")
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func sent(t *testing.T, r *http.Request) string {
	t.Helper()
	if r.Body == nil {
		t.Fatal("nothing was sent")
	}
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func TestCommands(t *testing.T) {
	last := startBroker(t, 0, "")
	for _, tc := range []struct {
		args   []string
		stdout string
		stderr string // a part of it; "" for nothing at all
		method string
		path   string
		body   string // JSON body
	}{
		{[]string{"task", "start", "--kind", "monthly-report", "--agent", "corp/report-bot", "--ttl", "1h"},
			testTask + "\n", `task ` + testTask + ` of "monthly-report" is open until 2030-`, "POST", "/v1/tasks",
			`{"kind":"monthly-report","agents":["corp/report-bot"],"ttl":3600}`},
		{[]string{"task", "start", "--kind", "monthly-report", "--json"},
			`{"task":"` + testTask + `","kind":"monthly-report","owner":"corp/planner","agents":["corp/report-bot"],"deadline":"2030-01-02T03:04:05Z","beat":0}` + "\n", "is open until", "POST", "/v1/tasks",
			`{"kind":"monthly-report"}`},
		{[]string{"task", "end", testTask}, testTask + " ended\n", "", "POST", "/v1/tasks/" + testTask + "/end", ""},
		{[]string{"revoke", testGrant}, testGrant + " revoked\n", "", "DELETE", "/v1/grants/" + testGrant, ""},
	} {
		got := toolgrant(t, "", tc.args...)
		if got.code != exitDone || got.stdout != tc.stdout || !strings.Contains(got.stderr, tc.stderr) || tc.stderr == "" && got.stderr != "" {
			t.Errorf("%v: %+v\nwant stdout %q, stderr with %q", tc.args, got, tc.stdout, tc.stderr)
		}
		if last.Method != tc.method || last.URL.Path != tc.path || sent(t, last) != tc.body {
			t.Errorf("%v: sent %s %s", tc.args, last.Method, last.URL.Path)
		}
		if a := last.Header.Get("Authorization"); a != "Bearer "+testIdentity {
			t.Errorf("%v: Authorization %q", tc.args, a)
		}
		if ua := last.Header.Get("User-Agent"); !strings.HasPrefix(ua, "toolgrant/") {
			t.Errorf("%v: User-Agent %q", tc.args, ua)
		}
	}
}

func TestGrant(t *testing.T) {
	last := startBroker(t, 0, "")
	file := filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(file, []byte(`{"type":"string"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := []string{"grant", "--task", testTask, "--tool", "reports/export"}
	whole := toolgrant(t, "", append(ask, "--json")...)
	var answer struct {
		Tokens []struct {
			Token  string           `json:"access_token"`
			Grants []map[string]any `json:"authorization_details"`
		}
	}
	if err := stdjson.Unmarshal([]byte(whole.stdout), &answer); err != nil || whole.code != exitDone || answer.Tokens[0].Token != testToken || answer.Tokens[0].Grants[0]["grant_id"] != testGrant {
		t.Errorf("--json: %+v (%v)", whole, err)
	}
	for line, args := range map[string][]string{
		"Authorization: Bearer " + testToken: {"--header"},
		"authorization: Bearer " + testToken: {"--header", "--header-name", "authorization"},
		"X-Tool-Token: " + testToken:         {"--header", "--header-name", "X-Tool-Token"},
	} {
		if got := toolgrant(t, "", append(ask, args...)...); got.stdout != line+"\n" {
			t.Errorf("%v: %+v", args, got)
		}
	}
	got := toolgrant(t, "", append(ask, "--tool", "reports/health", "--ttl", "5m", "--max-calls", "2", "--agent", "corp/bot",
		"--max-sum", "/body/a=b=10.5", "--constraint", `{"type":"object"}`, "--constraint", "@"+file)...)
	if got.code != exitDone || got.stdout != testToken+"\n" || strings.Contains(got.stderr, testToken) ||
		!strings.Contains(got.stderr, "granted: "+testGrant+` for "reports/export" until `) || !strings.Contains(got.stderr, "granted before: g_b") {
		t.Errorf("%+v", got)
	}
	detail := func(tool string) string {
		return `{"tool":"` + tool + `","ttl":300,"max_calls":2,"max_sum":{"/body/a=b":"10.5"},"constraints":[{"type":"object"},{"type":"string"}]}`
	}
	if d := cmp.Diff(`{"task":"`+testTask+`","agent":"corp/bot","grants":[`+detail("reports/export")+","+detail("reports/health")+"]}", sent(t, last)); d != "" {
		t.Error(d)
	}
	if last.Header.Get("Authorization") != "Bearer "+testIdentity {
		t.Errorf("Authorization %q", last.Header.Get("Authorization"))
	}
	if got := toolgrant(t, "", append(ask, "--renew", testGrant)...); got.code != exitDone || sent(t, last) != `{"task":"`+testTask+`","grants":[{"tool":"reports/export","renew":"`+testGrant+`"}]}` {
		t.Errorf("--renew: %+v", got)
	}
}

// Exit code 3, all that the broker said on stderr, and nothing on stdout.
func TestRefused(t *testing.T) {
	commands := [][]string{
		{"task", "start", "--kind", "k"}, {"task", "start", "--kind", "k", "--json"}, {"task", "end", testTask},
		{"grant", "--task", testTask, "--tool", "a/b"}, {"grant", "--task", testTask, "--tool", "a/b", "--json"},
		{"grant", "--task", testTask, "--tool", "a/b", "--header"}, {"revoke", testGrant},
	}
	for _, tc := range []struct {
		status int
		body   string
		code   int
		stderr []string
	}{
		{403, `{"error":"forbidden","reason":"policy","decision_id":"d_1","help":"ask for less"}`, exitRefused, []string{"(policy)", "d_1", "ask for less"}},
		{400, `{"error":"invalid_target","error_description":"one server","reason":"bad_request","decision_id":"d_2"}`, exitRefused, []string{"(bad_request)", "d_2", "one server"}},
		{401, `{"error":"unauthorized","reason":"expired_token","decision_id":"d_3"}`, exitRefused, []string{"(expired_token)", "d_3", "fresh identity token"}},
		{503, `{"error":"unavailable","reason":"cannot_record","decision_id":"d_4"}`, exitFailed, []string{"(cannot_record)", "d_4"}},
		{404, `<html>`, exitFailed, []string{"404", "check its URL"}},
	} {
		startBroker(t, tc.status, tc.body)
		for _, args := range commands {
			got := toolgrant(t, "", args...)
			if got.code != tc.code || got.stdout != "" || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("%d %v: %+v", tc.status, args, got)
			}
			for _, want := range tc.stderr {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("%d %v: no %q in %s", tc.status, args, want, got.stderr)
				}
			}
		}
	}
}

func TestUnreachable(t *testing.T) {
	startBroker(t, 0, "")
	srv := httptest.NewServer(nil)
	srv.Close()
	got := toolgrant(t, "", "task", "start", "--kind", "k", "--url", srv.URL)
	if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, srv.URL) {
		t.Errorf("%+v", got)
	}
}

func TestIdentityTokenFile(t *testing.T) {
	last := startBroker(t, 0, "")
	start := []string{"task", "start", "--kind", "k"}
	with := func(file string) []string { return append(start, "--identity-token-file", file) }
	other := "eyJhbGciOiJFZERTQSJ9.b3RoZXI.c2ln"

	// Stdin, and the flag before the environment.
	for _, got := range []result{toolgrant(t, other+"\n", with("-")...), toolgrant(t, "", with(tokenFile(t, other, 0o600))...)} {
		if got.code != exitDone || last.Header.Get("Authorization") != "Bearer "+other || strings.Contains(got.stderr, "warning") {
			t.Errorf("%+v, sent %q", got, last.Header.Get("Authorization"))
		}
	}
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o644: true} {
		got := toolgrant(t, "", with(tokenFile(t, other, mode))...)
		if got.code != exitDone || strings.Contains(got.stderr, "warning: others can read") != warned {
			t.Errorf("mode %#o: %+v", mode, got)
		}
	}
	for name, file := range map[string]string{
		"the token itself": testIdentity,
		"empty":            tokenFile(t, " \n", 0o600),
		"two":              tokenFile(t, other+"\n"+other, 0o600),
		"a page":           tokenFile(t, "<html>", 0o600),
		"huge":             tokenFile(t, other+strings.Repeat(" ", maxTokenFile)+"more", 0o600),
		"a folder":         t.TempDir(),
		"missing":          t.TempDir() + "/none",
	} {
		*last = http.Request{}
		got := toolgrant(t, "", with(file)...)
		if got.code != exitUsage || got.stdout != "" || last.Method != "" {
			t.Errorf("%s: %+v", name, got)
		}
		if strings.Contains(got.stderr, testIdentity) || strings.Contains(got.stderr, other) {
			t.Errorf("%s: the token is in %s", name, got.stderr)
		}
	}
	t.Setenv(envTokenFile, "")
	if got := toolgrant(t, "", start...); got.code != exitUsage || !strings.Contains(got.stderr, envTokenFile) {
		t.Errorf("no file: %+v", got)
	}
}

// fullDisk is a stdout that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// A script must not take an empty file for a token.
func TestResultNotWritten(t *testing.T) {
	startBroker(t, 0, "")
	for _, args := range [][]string{
		{"task", "start", "--kind", "k"}, {"grant", "--task", testTask, "--tool", "reports/export"}, {"version"},
		{"envoy", "--config", "../../examples/reports/toolgrant.yaml"},
	} {
		var errs bytes.Buffer
		if code := run(t.Context(), args, nil, fullDisk{}, &errs); code != exitFailed || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%v: %d, %s", args, code, errs.String())
		}
	}
}

func TestInterrupted(t *testing.T) {
	startBroker(t, 0, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"task", "end", testTask}, nil, &out, &errs); code != exitFailed || errs.String() != "toolgrant task end: interrupted\n" {
		t.Errorf("%d, %q", code, errs.String())
	}
}

func TestVersion(t *testing.T) {
	old := version
	defer func() { version = old }()
	version = "v1.2.3"
	if got := toolgrant(t, "", "version"); got.code != exitDone || !strings.HasPrefix(got.stdout, "toolgrant v1.2.3 ") {
		t.Errorf("%+v", got)
	}
	var b build
	if got := toolgrant(t, "", "version", "--json"); stdjson.Unmarshal([]byte(got.stdout), &b) != nil || b.Version != "v1.2.3" || b.Go == "" || b.Platform == "" {
		t.Errorf("%+v", got)
	}
	version = ""
	if b := buildInfo(); b.Version == "" || b.Version == "(devel)" {
		t.Errorf("%+v", b)
	}
	got := build{Version: "v1", Commit: "0123456789abcdef", Modified: true, Go: "go1", Platform: "a/b"}.String()
	if got != "toolgrant v1 (commit 0123456789ab, modified) go1 a/b" {
		t.Error(got)
	}
}

// The token is one that a broker with such a configuration believes.
func TestIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "issuer")
	got := toolgrant(t, "", "identity", "--dir", dir, "--agent", "ci-1", "--group", "ci", "--group", "night", "--ttl", "10m")
	jwks := filepath.Join(dir, "jwks.json")
	if got.code != exitDone || !strings.Contains(got.stderr, "DEVELOPMENT") || !strings.Contains(got.stderr, jwks) || strings.Count(got.stdout, "\n") != 1 {
		t.Fatalf("%+v", got)
	}
	v, err := identity.New(identity.Config{Issuers: []identity.Issuer{{Alias: "dev", URL: devIssuerURL, JWKSFile: jwks, Audience: "toolgrant"}}})
	if err != nil {
		t.Fatal(err)
	}
	who, reason := v.Verify(strings.TrimSpace(got.stdout), time.Now())
	if reason != grants.None || who.Principal.ID() != "dev/ci-1" || !who.For("toolgrant") || len(who.Principal.Groups) != 2 {
		t.Errorf("%v: %+v", reason, who)
	}
	if ttl := time.Until(who.Expires); ttl <= 9*time.Minute || ttl > 10*time.Minute {
		t.Errorf("good for %s", ttl)
	}
}

func TestEnvoy(t *testing.T) {
	whole := toolgrant(t, "", "envoy", "--config", "../../examples/reports/toolgrant.yaml")
	part := toolgrant(t, "", "envoy", "--config", "../../examples/reports/toolgrant.yaml", "--fragment")
	for name, got := range map[string]result{"whole": whole, "fragment": part} {
		if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "/export") || !strings.Contains(got.stdout, "8182") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if whole.stdout == part.stdout || !strings.Contains(whole.stdout, "10000") {
		t.Error("the whole lacks the listener, or is the fragment")
	}
}

func TestAuditVerify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	log, err := audit.Open(audit.Config{File: path, Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := log.Append(audit.Record{ID: fmt.Sprint("d_", i), Kind: "grant", Outcome: audit.Deny, Reason: grants.Policy}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := toolgrant(t, "", "audit", "verify", path)
	if good.code != exitDone || !strings.HasPrefix(good.stdout, path+": 3 records are good") {
		t.Errorf("%+v", good)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if got := toolgrant(t, lines[0]+lines[1], "audit", "verify", "-"); got.code != exitDone || !strings.HasPrefix(got.stdout, "stdin: 2 records are good") {
		t.Errorf("stdin: %+v", got)
	}
	if got := toolgrant(t, lines[0]+lines[2], "audit", "verify", "-"); got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "line 2") || !strings.Contains(got.stderr, "the 1 records before it") {
		t.Errorf("a lost record: %+v", got)
	}
	if got := toolgrant(t, "", "audit", "verify", "-"); got.code != exitFailed || got.stdout != "" {
		t.Errorf("no records: %+v", got)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/cli", RequireExplicitExec: true})
}
