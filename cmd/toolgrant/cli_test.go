package main

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/client"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

const testLive = `{"grant_id":"` + testGrant + `","task":"` + testTask + `","kind":"monthly-report","agent":"corp/bot\u001b[2J","requester":"corp/planner","tool":"reports/export",` +
	`"not_before":"2030-01-02T03:04:05Z","expires_at":"2030-01-02T03:09:05Z","ttl":250,"max_calls":2,"max_sum":{"/body/a":"10.5"},"depth":0}`

const testOpenTask = `{"task":"` + testTask + `","kind":"monthly-report","owner":"corp/planner","agents":["corp/bot"],"deadline":"2030-01-02T04:04:05Z","beat":6,"state":"open","grants":[` + testLive + `]}`

// answering is a broker that gives one answer, and the last request that it got.
func answering(t *testing.T, body string) *http.Request {
	t.Helper()
	last := &http.Request{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*last = *r
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	t.Setenv(envURL, srv.URL)
	t.Setenv(envTokenFile, tokenFile(t, testIdentity, 0o600))
	return last
}

func TestLists(t *testing.T) {
	for _, tc := range []struct {
		args   []string
		answer string
		target string // METHOD and URL of the request
		stdout []string
		stderr string
	}{
		{[]string{"task", "show", testTask}, testOpenTask, "GET /v1/tasks/" + testTask,
			[]string{"state     open\n", "owner     corp/planner\n", "silent for 6s", "GRANT", testGrant, "corp/bot?[2J", "4m10s", "MAX CALLS  MAX SUMS\n", "4m10s  2          /body/a=10.5\n"}, ""},
		{[]string{"task", "show", testTask, "--json"}, testOpenTask, "GET /v1/tasks/" + testTask, []string{`"state":"open"`, `"beat":6`, `"ttl":250`}, ""},
		{[]string{"task", "list", "--kind", "monthly-report", "--owner", "a/b", "--agent", "c/d"}, `{"tasks":[` + testOpenTask + `],"more":true}`,
			"GET /v1/tasks?agent=c%2Fd&kind=monthly-report&owner=a%2Fb", []string{"TASK  ", "KIND  ", testTask + "  monthly-report  corp/planner  corp/bot"}, "narrow the list"},
		{[]string{"task", "list", "--json"}, `{"tasks":[],"more":false}`, "GET /v1/tasks", []string{`{"tasks":[],"more":false}`}, ""},
		{[]string{"grants", "--task", testTask, "--agent", "a/b", "--tool", "c/d"}, `{"grants":[` + testLive + `],"more":true}`,
			"GET /v1/grants?agent=a%2Fb&task=" + testTask + "&tool=c%2Fd", []string{testGrant + "  corp/bot?[2J  reports/export  " + testTask}, "narrow the list"},
		{[]string{"grants", "--json"}, `{"grants":[` + testLive + `],"more":false}`, "GET /v1/grants", []string{`"grant_id":"` + testGrant}, ""},
		{[]string{"revoke", "--task", testTask}, `{"scope":"task","key":"` + testTask + `","state":"ended"}`, "DELETE /v1/grants?task=" + testTask, []string{testTask + " ended\n"}, ""},
		{[]string{"revoke", "--agent", "corp/bot"}, `{"scope":"agent","key":"corp/bot","state":"revoked"}`, "DELETE /v1/grants?agent=corp%2Fbot", []string{"all grants of corp/bot revoked\n"}, ""},
		{[]string{"revoke", "--tool", "bank/pay"}, `{"scope":"tool","key":"bank/pay","state":"revoked"}`, "DELETE /v1/grants?tool=bank%2Fpay", []string{"all grants of bank/pay revoked\n"}, ""},
	} {
		last := answering(t, tc.answer)
		got := toolgrant(t, "", tc.args...)
		if target := last.Method + " " + last.URL.String(); got.code != exitDone || target != tc.target || !strings.Contains(got.stderr, tc.stderr) || tc.stderr == "" && got.stderr != "" {
			t.Errorf("%v: %s, %+v", tc.args, target, got)
		}
		for _, want := range tc.stdout {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%v: no %q in\n%s", tc.args, want, got.stdout)
			}
		}
		if strings.Contains(got.stdout, "\x1b") {
			t.Errorf("%v: a control character in %q", tc.args, got.stdout)
		}
	}
}

// Several servers: a line for each.
func TestGrantOfTwoServers(t *testing.T) {
	other := strings.NewReplacer(`"reports"`, `"bank"`, "reports/", "bank/", testGrant, "g_cccccccccccccccccccccccccc").Replace(testTokenAnswer)
	answering(t, `{"tokens":[`+testTokenAnswer+`,`+other+`]}`)
	got := toolgrant(t, "", "grant", "--task", testTask, "--tool", "reports/export", "--tool", "bank/export")
	if got.code != exitDone || got.stdout != "reports "+testToken+"\nbank "+testToken+"\n" {
		t.Errorf("%+v", got)
	}
}

func live(id string) client.LiveGrant {
	return client.LiveGrant{ID: id, Task: testTask, Agent: "a/b", Tool: "c/d", TTL: 60}
}

// watch plays the answers of a broker, one a look, until they are used up.
func watch(t *testing.T, w *watcher, answers ...any) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.each = time.Millisecond
	w.list = func(context.Context) ([]client.LiveGrant, bool, error) {
		if len(answers) == 0 {
			cancel()
			return nil, false, ctx.Err()
		}
		now := answers[0]
		answers = answers[1:]
		if err, failed := now.(error); failed {
			return nil, false, err
		}
		return now.([]client.LiveGrant), false, nil
	}
	return w.run(ctx)
}

// Without a terminal: one line of JSON for each change, and none for a look
// that failed.
func TestWatchLines(t *testing.T) {
	var out, errs bytes.Buffer
	one, two := live("g_1"), live("g_2")
	away := errors.New("no answer")
	err := watch(t, &watcher{out: &out, errs: &errs}, []client.LiveGrant{one}, []client.LiveGrant{one, two}, away, away, []client.LiveGrant{two}, []client.LiveGrant{two})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for line := range strings.Lines(out.String()) {
		var change struct {
			At     time.Time
			Change string
			Grant  client.LiveGrant
		}
		if err := json.Unmarshal([]byte(line), &change); err != nil || time.Since(change.At) > time.Minute {
			t.Fatalf("%s: %v", line, err)
		}
		seen = append(seen, fmt.Sprint(change.Change, " ", change.Grant.ID, " ", change.Grant.TTL))
	}
	if got := strings.Join(seen, ", "); got != "live g_1 60, live g_2 60, gone g_1 0" {
		t.Error(got)
	}
	if errs.String() != "still asking: no answer\n" {
		t.Errorf("%q", errs.String())
	}
}

// On a terminal: what fits, on the alternate screen, which is left at the end
// however it ends.
func TestWatchScreen(t *testing.T) {
	many := make([]client.LiveGrant, 50)
	for i := range many {
		many[i] = live(fmt.Sprintf("g_%02d", i))
	}
	denied := &client.Error{Status: 403, Reason: "policy"}
	for name, end := range map[string]error{"told to": nil, "denied": denied} {
		var out bytes.Buffer
		w := &watcher{out: &out, errs: io.Discard, size: func() (int, int, bool) { return 10, 70, true }}
		answers := []any{many, errors.New("no\x1b[2Janswer"), many[:2]}
		if end != nil {
			answers = append(answers, end)
		}
		if err := watch(t, w, answers...); !errors.Is(err, end) {
			t.Errorf("%s: %v", name, err)
		}
		text := out.String()
		body, entered := strings.CutPrefix(text, "\x1b[?1049h\x1b[?25l")
		body, left := strings.CutSuffix(body, "\x1b[?25h\x1b[?1049l")
		if !entered || !left {
			t.Fatalf("%s: %q", name, text)
		}
		screens := strings.Split(body, "\x1b[H")[1:]
		if len(screens) != 3 || !strings.Contains(screens[0], "50 live at") || !strings.Contains(screens[0], "… 44 more") ||
			!strings.Contains(screens[1], "NO ANSWER") || strings.Contains(screens[1], "\x1b[2J") || !strings.Contains(screens[1], "g_00") || !strings.Contains(screens[2], "2 live at") {
			t.Errorf("%s: %q", name, screens)
		}
		for _, s := range screens {
			s = strings.NewReplacer("\x1b[K", "", "\x1b[J", "").Replace(s)
			if lines := strings.Split(s, "\n"); len(lines) > 10 {
				t.Errorf("%d lines", len(lines))
			} else {
				for _, l := range lines {
					if len([]rune(l)) > 70 {
						t.Errorf("%q is longer than a line", l)
					}
				}
			}
		}
	}
	// The first look fails: the terminal was never touched.
	var out bytes.Buffer
	w := &watcher{out: &out, size: func() (int, int, bool) { return 10, 40, true }}
	if err := watch(t, w, errors.New("away")); err == nil || out.Len() != 0 {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestTokenInspect(t *testing.T) {
	dir := t.TempDir()
	keys, err := token.OpenKeys(filepath.Join(dir, "keys"), token.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	mint := func(expires time.Time) string {
		text, err := keys.Mint(token.Claims{
			Issuer: "https://broker", Subject: "corp/bot", Audience: "https://reports.internal", ID: grants.NewID(token.IDPrefix),
			IssuedAt: now, NotBefore: now, Expires: expires, Task: token.Task{ID: testTask, Kind: "monthly-report"},
			Details: []token.Detail{{Type: token.DetailType, GrantID: testGrant, Tool: "reports/export"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := mint(now.Add(time.Hour))
	got := toolgrant(t, text+"\n", "token", "inspect")
	for _, want := range []string{"NOT VERIFIED", "a grant's token", "alg EdDSA", "expires    " + now.Add(time.Hour).Local().Format(time.RFC3339) + ", in 59m", `"aud": "https://reports.internal"`, testGrant} {
		if got.code != exitDone || !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in %+v", want, got)
		}
	}
	if signature := text[strings.LastIndex(text, ".")+1:]; strings.Contains(got.stdout, signature) {
		t.Error("the signature is shown: the token could be put together again")
	}

	jwks := filepath.Join(dir, "jwks.json")
	if err := keys.WriteJWKS(jwks); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, text, "token", "inspect", "--jwks", jwks, "--issuer", "https://broker"); got.code != exitDone || !strings.HasPrefix(got.stdout, "Verified: ") {
		t.Errorf("%+v", got)
	}
	dev, err := identity.NewDevIssuer(filepath.Join(dir, "issuer"), devIssuerURL)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := dev.Mint("bot", nil, "toolgrant", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(text)
	flipped[len(text)-10] ^= 1
	for name, tc := range map[string]struct {
		text, issuer string
		code         int
	}{
		"another issuer": {text, "https://other", exitFailed},
		"changed":        {string(flipped), "https://broker", exitFailed},
		"an identity":    {foreign, "https://broker", exitUsage},
		"not a token":    {"abc", "https://broker", exitFailed},
		"nothing at all": {"", "https://broker", exitUsage},
	} {
		if got := toolgrant(t, tc.text, "token", "inspect", "--jwks", jwks, "--issuer", tc.issuer); got.code != tc.code || got.stdout != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := toolgrant(t, foreign, "token", "inspect"); got.code != exitDone || !strings.Contains(got.stdout, "of another issuer") || !strings.Contains(got.stdout, `"sub": "bot"`) {
		t.Errorf("an identity token: %+v", got)
	}
}

func TestPolicyCommands(t *testing.T) {
	config := []string{"--config", "../../examples/reports/toolgrant.yaml"}
	with := func(args ...string) []string { return append(args, config...) }
	if got := toolgrant(t, "", with("policy", "check")...); got.code != exitDone || !strings.Contains(got.stdout, "3 policies are in order: inside-a-grant, orchestrators-run-their-tasks, reporting-may-export; revision ") || !strings.HasSuffix(got.stdout, "\nwithout a grant: nothing may be called\nnobody can call: reports/health, reports/purge\n") || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if got := toolgrant(t, "", with("policy", "schema")...); got.code != exitDone || !strings.Contains(got.stdout, `"call:reports/export"`) {
		t.Errorf("%+v", got)
	}
	asked := toolgrant(t, "", with("policy", "example-input", "call", "--tool", "reports/export")...)
	if asked.code != exitDone || !json.Valid([]byte(asked.stdout)) {
		t.Fatalf("%+v", asked)
	}
	if got := toolgrant(t, asked.stdout, with("policy", "check", "--input", "-")...); got.code != exitDone || got.stdout != "allow, by inside-a-grant\n" {
		t.Errorf("%+v", got)
	}
	asked = toolgrant(t, "", with("policy", "example-input", "grant", "--tool", "reports/export")...)
	other := strings.ReplaceAll(asked.stdout, `"reporting"`, `"orchestrators"`) // who may not have it
	if got := toolgrant(t, other, with("policy", "check", "--input", "-")...); got.code != exitRefused || got.stdout != "deny (policy), none permits it\n" || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if got := toolgrant(t, "{}", with("policy", "check", "--input", "-")...); got.code != exitUsage || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	t.Setenv(envDevDir, "../../examples/reports")
	if got := toolgrant(t, "", "policy", "check"); got.code != exitDone {
		t.Errorf("with the folder of dev: %+v", got)
	}
}

// What loads and is not meant, and what may be called without a grant, is said.
func TestPolicyCheckSays(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("toolgrant.yaml", leastConfig+"policies: .\n")
	write("tools.yaml", "servers:\n- id: a\n  resource: https://a.internal\n  upstream: 127.0.0.1:8080\n  http:\n"+
		"  - {tool: b, method: GET, path: /b, sets: [read]}\n  - {tool: c, method: GET, path: /c, sets: [read]}\n")
	write("p.cedar", `@id("open") permit (principal in Toolgrant::AgentGroup::"shoppers", action in Toolgrant::Action::"call", resource);
@id("of-corp") permit (principal in Toolgrant::AgentGroup::"corp/x", action in Toolgrant::Action::"call", resource) when { context has grant };`)
	write("entities.json", `[{"uid": {"type": "Toolgrant::AgentGroup", "id": "shoppers"}, "attrs": {}, "parents": []},
{"uid": {"type": "Toolgrant::AgentGroup", "id": "corp/x"}, "attrs": {}, "parents": []}]`)
	got := toolgrant(t, "", "policy", "check", "--config", filepath.Join(dir, "toolgrant.yaml"))
	if got.code != exitDone || !strings.Contains(got.stdout, "\nwithout a grant: policy \"open\" (") || !strings.HasSuffix(got.stdout, ") may permit a/b, a/c\n") {
		t.Errorf("%+v", got)
	}
	if strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "warning: ") || !strings.Contains(got.stderr, `group "shoppers"`) {
		t.Errorf("stderr %q: wanted a warning of the group that nobody is in, and none of the issuer's own", got.stderr)
	}
	if got := toolgrant(t, "", "policy", "check", "--strict", "--config", filepath.Join(dir, "toolgrant.yaml")); got.code != exitRefused {
		t.Errorf("--strict with a warning: %+v", got)
	}
}

func TestExplain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	log, err := audit.Open(audit.Config{File: path, Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	id := grants.NewID(grants.DecisionPrefix)
	if err := log.Append(audit.Record{ID: id, Kind: "grant", Agent: "corp/bot", Tool: "reports/purge", Outcome: audit.Deny, Reason: grants.Policy, Status: 400}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "explain", id, "--audit", path); got.code != exitDone || !strings.Contains(got.stdout, "corp/bot") || !strings.Contains(got.stdout, "reports/purge") {
		t.Errorf("%+v", got)
	}
	if got := toolgrant(t, "", "explain", grants.NewID(grants.DecisionPrefix), "--audit", path); got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "no such decision") {
		t.Errorf("%+v", got)
	}
	if err := os.WriteFile(path, []byte("torn\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "explain", id, "--audit", path); got.code != exitFailed || !strings.Contains(got.stderr, "audit verify") && !strings.Contains(got.stderr, "no such decision") {
		t.Errorf("%+v", got)
	}
}

// Where lines of dev were pasted, its issuer is the one.
func TestIdentityOfDev(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(envDevDir, dir)
	got := toolgrant(t, "", "identity", "--agent", "ci-1", "--group", "ci")
	if _, err := os.Stat(filepath.Join(dir, "issuer", "jwks.json")); err != nil || got.code != exitDone || !strings.Contains(got.stderr, "FOR DEVELOPMENT ONLY") {
		t.Errorf("%+v, %v", got, err)
	}
}
