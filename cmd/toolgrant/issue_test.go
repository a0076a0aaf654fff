package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

// form posts to the token endpoint and returns the status and the answer.
func (w *world) form(values url.Values, change ...func(*http.Request)) (int, map[string]any) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "POST", w.broker+"/oauth2/token", strings.NewReader(values.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, f := range change {
		f(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var ans map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&ans); err != nil {
		w.t.Fatal(err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		w.t.Error("an answer of the token endpoint may be stored")
	}
	return resp.StatusCode, ans
}

func TestTokenExchange(t *testing.T) {
	w := layOut(t)
	w.serve()
	task := w.task()
	subject := w.identity("report-bot", "toolgrant", "reporting")
	good := func() url.Values {
		return url.Values{
			"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
			"subject_token":      {subject},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
			"resource":           {"https://reports.internal"}, "scope": {"reports/export"}, "task": {task}, "ttl": {"300"},
		}
	}
	details := func(json string) func(url.Values) {
		return func(v url.Values) {
			for _, name := range []string{"resource", "scope", "task", "ttl"} {
				v.Del(name)
			}
			v.Set("authorization_details", strings.ReplaceAll(json, "TASK", task))
		}
	}
	set := func(pairs ...string) func(url.Values) {
		return func(v url.Values) {
			for i := 0; i < len(pairs); i += 2 {
				if v.Del(pairs[i]); pairs[i+1] != "" {
					v.Set(pairs[i], pairs[i+1])
				}
			}
		}
	}
	const one = `{"type":"urn:toolgrant:grant:1","tool":"reports/export","task":"TASK"`
	for _, tc := range []struct {
		name   string
		form   func(url.Values)
		req    func(*http.Request)
		status int
		error  string
		reason string
	}{
		{"plain", set(), nil, 200, "", ""},
		{"plain, by audience", set("resource", "", "audience", "reports"), nil, 200, "", ""},
		{"details", details("[" + one + `,"ttl":300,"max_calls":2}]`), nil, 200, "", ""},
		{"details, no ttl", details("[" + one + "}]"), nil, 200, "", ""},
		{"an unknown parameter is ignored", set("foo", "bar"), nil, 200, "", ""},

		{"no grant_type", set("grant_type", ""), nil, 400, "invalid_request", ""},
		{"another grant_type", set("grant_type", "client_credentials"), nil, 400, "unsupported_grant_type", ""},
		{"grant_type in capitals", set("grant_type", "URN:IETF:params:oauth:grant-type:token-exchange"), nil, 400, "unsupported_grant_type", ""},
		{"no subject_token", set("subject_token", ""), nil, 400, "invalid_request", ""},
		{"junk subject_token", set("subject_token", "junk"), nil, 400, "invalid_request", "bad_credential"},
		{"huge subject_token", set("subject_token", strings.Repeat("a.", 9000)), nil, 400, "invalid_request", "bad_credential"},
		{"subject_token of another audience", set("subject_token", w.identity("report-bot", "other", "reporting")), nil, 400, "invalid_target", "credential_kind"},
		{"subject_token for both doors", set("subject_token", w.identityFor("report-bot", "toolgrant", "https://reports.internal")), nil, 400, "invalid_target", "credential_kind"},
		{"subject_token for the tool server", set("subject_token", w.identity("report-bot", "https://reports.internal", "reporting")), nil, 400, "invalid_target", "credential_kind"},
		{"a grant token as subject_token", set("subject_token", w.export(task).AccessToken), nil, 400, "invalid_request", "bad_credential"},
		{"no subject_token_type", set("subject_token_type", ""), nil, 400, "invalid_request", ""},
		{"actor_token", set("actor_token", subject), nil, 400, "invalid_request", ""},
		{"a parameter twice", func(v url.Values) { v.Add("task", task) }, nil, 400, "invalid_request", ""},
		{"two resources", func(v url.Values) { v.Add("resource", "https://other.internal") }, nil, 400, "invalid_target", ""},
		{"unknown resource", set("resource", "https://other.internal"), nil, 400, "invalid_target", "unknown_tool"},
		{"no resource", set("resource", ""), nil, 400, "invalid_target", ""},
		{"unknown tool", set("scope", "reports/nosuch"), nil, 400, "invalid_scope", "unknown_tool"},
		{"wildcard", set("scope", "*"), nil, 400, "invalid_scope", "unknown_tool"},
		{"no scope", set("scope", ""), nil, 400, "invalid_scope", ""},
		{"a tool that policy does not grant", set("scope", "reports/purge"), nil, 400, "invalid_scope", "policy"},
		{"one of two is not granted: none is", set("scope", "reports/export reports/purge"), nil, 400, "invalid_scope", "policy"},
		{"one tool twice", set("scope", "reports/export reports/export"), nil, 400, "invalid_request", ""},
		{"no task", set("task", ""), nil, 400, "invalid_request", ""},
		{"unknown task", set("task", "t_aaaaaaaaaaaaaaaaaaaaaaaaaa"), nil, 400, "invalid_request", "unknown_task"},
		{"another agent's task", set("subject_token", w.identity("other-bot", "toolgrant", "reporting")), nil, 400, "invalid_request", "unknown_task"},
		{"longer than policy permits", set("ttl", "601"), nil, 400, "invalid_scope", "policy"},
		{"ttl 0", set("ttl", "0"), nil, 400, "invalid_request", "bad_ttl"},
		{"ttl too short to tell", set("ttl", "1"), nil, 400, "invalid_request", "bad_ttl"},
		{"ttl negative", set("ttl", "-1"), nil, 400, "invalid_request", "bad_ttl"},
		{"ttl in words", set("ttl", "PT1H"), nil, 400, "invalid_request", "bad_ttl"},
		{"ttl beyond everything", set("ttl", "9223372036854775807"), nil, 400, "invalid_scope", "policy"},

		{"details: not JSON", details("x"), nil, 400, "invalid_authorization_details", ""},
		{"details: an object", details(one + "}"), nil, 400, "invalid_authorization_details", ""},
		{"details: none", details("[]"), nil, 400, "invalid_authorization_details", ""},
		{"details: unknown type", details(`[{"type":"payment","tool":"reports/export","task":"TASK"}]`), nil, 400, "invalid_authorization_details", ""},
		{"details: unknown member", details("[" + one + `,"tll":3}]`), nil, 400, "invalid_authorization_details", ""},
		{"details: duplicate member", details("[" + one + `,"Tool":"reports/purge"}]`), nil, 400, "invalid_authorization_details", ""},
		{"details: ttl as text", details("[" + one + `,"ttl":"300"}]`), nil, 400, "invalid_authorization_details", ""},
		{"details: max_calls 0", details("[" + one + `,"max_calls":0}]`), nil, 400, "invalid_authorization_details", ""},
		{"details: open constraint", details("[" + one + `,"constraints":[{"type":"object","properties":{}}]}]`), nil, 400, "invalid_authorization_details", ""},
		{"details: misspelt constraint", details("[" + one + `,"constraints":[{"type":"object","propertys":{},"additionalProperties":false}]}]`), nil, 400, "invalid_authorization_details", ""},
		{"details and scope", func(v url.Values) { details("[" + one + "}]")(v); v.Set("scope", "reports/export") }, nil, 400, "invalid_request", ""},

		{"parameters in the URL", set(), func(r *http.Request) { r.URL.RawQuery = "task=x" }, 400, "invalid_request", ""},
		{"body as JSON", set(), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 400, "invalid_request", ""},
		{"client authentication", set(), func(r *http.Request) { r.SetBasicAuth("a", "b") }, 401, "invalid_client", ""},
		{"client assertion", set("client_assertion", "x"), nil, 401, "invalid_client", ""},
		{"over the size", set("foo", strings.Repeat("x", 70_000)), nil, 413, "invalid_request", "too_large"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := *w
			w.t = t
			v := good()
			tc.form(v)
			var change []func(*http.Request)
			if tc.req != nil {
				change = append(change, tc.req)
			}
			status, ans := w.form(v, change...)
			if status != tc.status || tc.error != "" && ans["error"] != tc.error || tc.reason != "" && ans["reason"] != tc.reason {
				t.Fatalf("%d %v; want %d %s %s", status, ans, tc.status, tc.error, tc.reason)
			}
			if status == 200 {
				return
			}
			if desc, _ := ans["error_description"].(string); len(desc) < 10 || !strings.HasPrefix(ans["decision_id"].(string), "d_") {
				t.Errorf("an error that does not help: %v", ans)
			}
			if text, _ := json.Marshal(ans); strings.Contains(string(text), subject) {
				t.Error("the answer repeats the subject token")
			}
		})
	}
}

// TestTokenSaysWhatWasGranted reads the token as the tool's side would.
func TestTokenSaysWhatWasGranted(t *testing.T) {
	w := layOut(t)
	w.serve()
	task := w.task()
	tok := w.export(task, func(r *client.GrantRequest) { r.MaxCalls = 3 })
	head, claims := segment(t, tok.AccessToken, 0), segment(t, tok.AccessToken, 1)
	if head["typ"] != "toolgrant+jwt" || head["alg"] != "EdDSA" || head["kid"] == "" {
		t.Errorf("header %v", head)
	}
	if claims["iss"] != w.cfg.Broker.Issuer || claims["aud"] != "https://reports.internal" || claims["sub"] != "corp/report-bot" ||
		claims["task"].(map[string]any)["id"] != task || claims["task"].(map[string]any)["kind"] != "monthly-report" {
		t.Errorf("claims %v", claims)
	}
	exp, nbf := claims["exp"].(float64), claims["nbf"].(float64)
	if exp-nbf != 300 || exp > float64(tok.Grants[0].ExpiresAt.Unix()) {
		t.Errorf("nbf %v exp %v, the grant ends %v", nbf, exp, tok.Grants[0].ExpiresAt)
	}
	detail := claims["authorization_details"].([]any)[0].(map[string]any)
	if detail["grant_id"] != tok.Grants[0].ID || detail["tool"] != "reports/export" || detail["type"] != "urn:toolgrant:grant:1" {
		t.Errorf("details %v", detail)
	}
	if tok.Grants[0].MaxCalls != 3 || tok.ExpiresIn > 300 {
		t.Errorf("answer %+v", tok.Grants[0])
	}

	resp, err := http.Get(w.broker + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	jwks, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(jwks), head["kid"].(string)) || strings.Contains(string(jwks), `"d"`) {
		t.Errorf("JWKS %s", jwks)
	}
}

func segment(t *testing.T, token string, i int) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWindowIsTheShortest of what is asked, the configured maximum, the task and
// the identity token.
func TestWindowIsTheShortest(t *testing.T) {
	w := layOut(t)
	text, err := os.ReadFile(filepath.Join(w.dir, "toolgrant.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.write("toolgrant.yaml", strings.Replace(string(text), "max_ttl: 15m", "max_ttl: 4m", 1)); err != nil {
		t.Fatal(err)
	}
	w.load()
	w.serve()
	short, err := w.issuer.Mint("report-bot", []string{"reporting"}, "toolgrant", 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name           string
		identity       string
		task, ask, max time.Duration
	}{
		{"as asked", "", time.Hour, time.Minute, time.Minute},
		{"the maximum", "", time.Hour, 9 * time.Minute, 4 * time.Minute},
		{"the task", "", 3 * time.Minute, 9 * time.Minute, 3 * time.Minute},
		{"the identity token", short, time.Hour, 9 * time.Minute, 2 * time.Minute},
	} {
		task, err := w.planner().StartTask(t.Context(), client.TaskRequest{Kind: "monthly-report", Agents: []string{"corp/report-bot"}, TTL: tc.task})
		if err != nil {
			t.Fatal(err)
		}
		bot := w.bot()
		if tc.identity != "" {
			bot = w.with(tc.identity)
		}
		tok, err := bot.Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task.ID, TTL: tc.ask})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if left := time.Until(tok.Grants[0].ExpiresAt); left > tc.max || left < tc.max-30*time.Second {
			t.Errorf("%s: %v, want %v", tc.name, left, tc.max)
		}
	}
}

// TestReuse: what lives and suffices is not granted twice; whatever differs is.
func TestReuse(t *testing.T) {
	w := layOut(t)
	w.serve()
	bot, task := w.bot(), w.task() // one identity token, which reuse compares
	get := func(r client.GrantRequest) client.Grant {
		t.Helper()
		r.Tool, r.Task = "reports/export", task
		tok, err := bot.Exchange(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return tok.Grants[0]
	}
	first := get(client.GrantRequest{TTL: 5 * time.Minute})
	again := get(client.GrantRequest{TTL: 4 * time.Minute})
	if left := time.Until(again.ExpiresAt); left > 4*time.Minute {
		t.Errorf("asked for 4 minutes, and got a token of %v", left)
	}
	if first.Reused || !again.Reused || again.ID != first.ID {
		t.Errorf("the same for less time: %+v after %+v", again, first)
	}
	for name, r := range map[string]client.GrantRequest{
		"more time":    {TTL: 10 * time.Minute},
		"a constraint": {TTL: time.Minute, Constraints: []json.RawMessage{onlyMonth("2026-10")}},
	} {
		if g := get(r); g.Reused {
			t.Errorf("%s: reused", name)
		}
	}
	// A narrower count is the grant's own budget, and a reason to issue once.
	get(client.GrantRequest{TTL: 3 * time.Minute, MaxCalls: 9})
	three := get(client.GrantRequest{TTL: 3 * time.Minute, MaxCalls: 3})
	if g := get(client.GrantRequest{TTL: 2 * time.Minute, MaxCalls: 3}); three.Reused || !g.Reused || g.ID != three.ID {
		t.Errorf("the same narrower count: %+v after %+v", g, three)
	}
	// Another identity token of the same agent is another evidence.
	if tok := w.export(task, func(r *client.GrantRequest) { r.TTL = time.Minute }); tok.Grants[0].Reused {
		t.Error("another identity token: reused")
	}
	if err := w.planner().Revoke(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if g := get(client.GrantRequest{TTL: time.Minute}); g.ID == first.ID {
		t.Error("a revoked grant was reused")
	}
}

// TestForeignAndUnknownAreAlike: what is not there and what is not the caller's
// get the same answer.
func TestForeignAndUnknownAreAlike(t *testing.T) {
	w := layOut(t)
	w.serve()
	task := w.task()
	grant := w.export(task).Grants[0].ID
	other := w.identity("intruder", "toolgrant", "orchestrators", "reporting")
	send := func(method, path string) (int, map[string]any) {
		req, err := http.NewRequestWithContext(t.Context(), method, w.broker+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+other)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var ans map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&ans); err != nil {
			t.Fatal(err)
		}
		delete(ans, "decision_id")
		return resp.StatusCode, ans
	}
	for _, tc := range []struct{ method, theirs, unknown string }{
		{"POST", "/v1/tasks/" + task + "/end", "/v1/tasks/t_aaaaaaaaaaaaaaaaaaaaaaaaaa/end"},
		{"DELETE", "/v1/grants/" + grant, "/v1/grants/g_aaaaaaaaaaaaaaaaaaaaaaaaaa"},
	} {
		s1, a1 := send(tc.method, tc.theirs)
		s2, a2 := send(tc.method, tc.unknown)
		t1, _ := json.Marshal(a1)
		t2, _ := json.Marshal(a2)
		if s1 != 404 || s2 != 404 || string(t1) != string(t2) {
			t.Errorf("%s: %d %s and %d %s", tc.method, s1, t1, s2, t2)
		}
	}
}
