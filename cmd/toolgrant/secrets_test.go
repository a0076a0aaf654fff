package main

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

// TestSecretsStayPut (U03): canaries go in by every path (tokens of each kind,
// arguments, constraints, forms, client secrets, paths and user agents), and
// are then looked for in everything that comes out: both logs, Envoy's access
// log, the metrics, every answer, and what reached the tool.
func TestSecretsStayPut(t *testing.T) {
	w := layOut(t)
	w.serve()
	w.startEnvoy()
	const canary = "CANARY7f3a"
	secrets := []string{canary}
	var answers bytes.Buffer
	keep := func(header http.Header, body string) {
		answers.WriteString(body)
		for name, values := range header {
			answers.WriteString(name + strings.Join(values, "") + "\n")
		}
	}

	// The issue door.
	task := w.task()
	identity := w.identity("report-bot", "toolgrant", "reporting")
	secrets = append(secrets, tokenEnd(identity))
	pin := `{"type":"object","additionalProperties":false,"required":["query","body"],"properties":{
		"query":{"type":"object","additionalProperties":false,"required":["format"],"properties":{"format":{"type":"string","const":"csv"}}},
		"body":{"type":"object","additionalProperties":false,"required":["month"],"properties":{"month":{"type":"string","enum":["` + canary + `","2026-10"]}}}}}`
	tok, err := w.with(identity).Exchange(t.Context(), client.GrantRequest{
		Tool: "reports/export", Task: task, Constraints: []json.RawMessage{json.RawMessage(pin)},
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, tokenEnd(tok.AccessToken))
	for _, form := range []url.Values{
		{"grant_type": {"password"}, "username": {"u"}, "password": {canary}},
		{"grant_type": {grantTypeExchange}, "subject_token": {identity}, "subject_token_type": {canary}},
		{"grant_type": {grantTypeExchange}, "subject_token": {identity + canary}, "subject_token_type": {typeJWT}},
		{"grant_type": {grantTypeExchange}, "subject_token": {identity}, "subject_token_type": {typeJWT}, "client_secret": {canary}, "client_id": {"x"}},
		{"grant_type": {grantTypeExchange}, "subject_token": {identity}, "subject_token_type": {typeJWT}, "scope": {canary}, "resource": {"https://reports.internal"}, "task": {task}},
		{"grant_type": {grantTypeExchange}, "subject_token": {identity}, "subject_token_type": {typeJWT}, "authorization_details": {`[{"type":"` + canary + `"}]`}},
		{"grant_type": {grantTypeExchange}, "subject_token": {identity}, "subject_token_type": {typeJWT}, "authorization_details": {`[{"type":"urn:toolgrant:grant:1","tool":"` + canary + `"}]`}},
	} {
		resp, err := http.PostForm(w.broker+"/oauth2/token", form)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		keep(resp.Header, string(body))
		if resp.StatusCode == http.StatusOK {
			t.Errorf("%v was granted", form)
		}
	}
	for _, path := range []string{"/v1/tasks?access_token=" + canary, "/v1/tasks/" + canary, "/v1/grants?task=" + canary, "/" + canary} {
		req, _ := http.NewRequest("GET", w.broker+path, nil)
		req.Header.Set("Authorization", "Bearer "+identity)
		req.Header.Set("User-Agent", canary)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		keep(resp.Header, string(body))
	}

	// The call door.
	secret := []string{"Cookie", "session=" + canary, "Proxy-Authorization", "Basic " + canary, "X-Api-Key", canary, "Dpop", canary}
	for _, call := range []struct {
		token, method, path, body string
		headers                   []string
	}{
		{tok.AccessToken, "POST", exportCSV, `{"month":"` + canary + `"}`, secret},
		{tok.AccessToken, "POST", exportCSV, `{"month":"other` + canary + `"}`, secret},
		{tok.AccessToken, "POST", exportCSV, `{"month":"` + canary + `",`, nil},
		{tok.AccessToken, "POST", exportCSV, `{"` + canary + `":1}`, nil},
		{tok.AccessToken, "POST", exportCSV + "&x=" + canary, october, nil},
		{tok.AccessToken, "POST", exportCSV + "&access_token=" + canary, october, nil},
		{canary, "POST", exportCSV, october, nil},
		{flip(tok.AccessToken), "POST", exportCSV, october, nil},
		{identity, "POST", exportCSV, october, nil},
		{tok.AccessToken, "DELETE", "/archive", "", secret},
		{"", "POST", exportCSV, october, []string{"Authorization", "Basic " + canary}},
	} {
		a := w.call(call.token, call.method, call.path, call.body, call.headers...)
		keep(a.header, a.body)
		secrets = append(secrets, tokenEnd(call.token))
	}
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}

	// What came out.
	out := map[string]string{"answers": answers.String()}
	w.until("the log's records are on disk", func() bool {
		text, _ := os.ReadFile(w.cfg.Audit.File)
		out["the audit log"] = string(text)
		return strings.Contains(string(text), `"kind":"end_task"`)
	})
	out["the metrics"] = get(t, w.admin+"/metrics")
	out["readyz"] = get(t, w.admin+"/readyz")
	out["toolgrant's log"] = w.log.String()
	w.until("Envoy has written its access log", func() bool {
		out["Envoy's output"] = w.envoy.Stdout() + w.envoy.Stderr()
		return strings.Contains(out["Envoy's output"], "task_ended") || strings.Contains(out["Envoy's output"], "decision_id")
	})
	w.tool.mu.Lock()
	for i, r := range w.tool.seen {
		h := r.Header.Clone()
		text, _ := json.Marshal(h)
		out["the tool's headers"] += string(text) + r.URL.String()
		if !strings.Contains(w.tool.body[i], canary) {
			t.Errorf("the tool got %s", w.tool.body[i]) // the one call that was granted
		}
	}
	w.tool.mu.Unlock()
	if out["the tool's headers"] == "" || len(out["the audit log"]) < 1000 || out["toolgrant's log"] == "" || out["the metrics"] == "" {
		t.Fatalf("an output is empty: nothing was looked at: %v", lengths(out))
	}
	for where, text := range out {
		for _, s := range secrets {
			if s == "" {
				continue
			}
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("%s: %q in %.120q", where, s, text[max(0, i-60):])
			}
		}
	}
	// And in every file that was written, but for the keys' own and what was put there.
	_ = filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, _ := os.ReadFile(path)
		if bytes.Contains(text, []byte(canary)) || bytes.Contains(text, []byte(tokenEnd(tok.AccessToken))) {
			t.Errorf("%s holds a secret", path)
		}
		return nil
	})
}

const (
	grantTypeExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT           = "urn:ietf:params:oauth:token-type:jwt"
)

// tokenEnd is the end of a token's signature, which nothing else can hold by chance.
func tokenEnd(token string) string {
	if len(token) < 40 {
		return ""
	}
	return token[len(token)-24:]
}

func lengths(m map[string]string) map[string]int {
	n := map[string]int{}
	for k, v := range m {
		n[k] = len(v)
	}
	return n
}

// get reads a page; an answer that is no success fails the test.
func get(t *testing.T, url string) string {
	t.Helper()
	hc := &http.Client{Timeout: 20 * time.Second}
	resp, err := hc.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", url, resp.StatusCode, body, err)
	}
	return string(body)
}
