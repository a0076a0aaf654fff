package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/toolgrant/toolgrant/client"
)

const monthlyManifest = `kind: monthly-report
max_duration: 10m
params:
  type: object
  required: [month]
  properties:
    month: {type: string, pattern: "^(?:2026-1[0-2])$"}
    copies: {type: integer, minimum: 1, maximum: 5, default: 3}
tools:
- tool: reports/export
  ttl: 5m
  max_calls: {$param: copies}
  input: {query: {format: {const: csv}}, body: {month: {const: {$param: month}}}}
- tool: reports/purge
`

// openWithManifest starts a world whose monthly reports have a manifest, with inputs on record.
func openWithManifest(t *testing.T) (*world, int) {
	w := layOut(t)
	if err := w.write("manifests/monthly-report.yaml", monthlyManifest); err != nil {
		t.Fatal(err)
	}
	if err := w.edit("toolgrant.yaml", "fsync: interval", "fsync: interval\n  inputs: run/inputs.jsonl"); err != nil {
		t.Fatal(err)
	}
	w.load()
	cmd := w.serve()
	w.startEnvoy()
	return w, cmd.Process.Pid
}

// TestManifestThroughEnvoy: a task of a kind with a manifest gets what that has and
// policy permits, in one call, and nothing beyond it, however it is asked for.
func TestManifestThroughEnvoy(t *testing.T) {
	w, _ := openWithManifest(t)
	start := func(params string) (client.Started, error) {
		// The agent owns its task: the groups of its identity count.
		return w.as("report-bot", "reporting", "orchestrators").StartTask(t.Context(), client.TaskRequest{
			Kind: "monthly-report", Params: json.RawMessage(params), Grant: true,
		})
	}
	for _, bad := range []string{`{}`, `{"month":"2026-09"}`, `{"month":202610}`, `{"month":"2026-10","more":1}`, `{"month":"2026-10","copies":6}`, `{"month":{"$param":"month"}}`} {
		if s, err := start(bad); err == nil {
			t.Errorf("%s: started %+v", bad, s)
		}
	}
	s, err := start(`{"month":"2026-10","copies":2}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Tokens) != 1 || len(s.Tokens[0].Grants) != 1 || len(s.Refused) != 1 || s.Refused[0].Tool != "reports/purge" || s.Refused[0].Reason != "policy" {
		t.Fatalf("granted %+v, refused %+v", s.Tokens, s.Refused)
	}
	tok := s.Tokens[0].AccessToken
	for _, c := range []struct {
		path, body string
		status     int
		reason     string
	}{
		{"/export?format=pdf", october, 403, "constraint"},
		{"/export", october, 403, "constraint"},
		{exportCSV, `{"month":"2026-11"}`, 403, "constraint"},
		{exportCSV, october, 200, ""},
	} {
		before := w.tool.calls()
		w.check(w.call(tok, "POST", c.path, c.body), before, c.status, c.reason)
	}
	// Asking for more gives no more: one call is left of two, over all grants.
	bot := w.bot()
	more, err := bot.Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: s.ID, MaxCalls: 100})
	if err != nil {
		t.Fatal(err)
	}
	before := w.tool.calls()
	w.check(w.call(more.AccessToken, "POST", exportCSV, `{"month":"2026-12"}`), before, 403, "constraint")
	w.wantCall(more.AccessToken, 200, "")
	w.wantCall(more.AccessToken, 403, "budget_spent")
	w.wantCall(tok, 403, "budget_spent")
	if _, err := bot.Exchange(t.Context(), client.GrantRequest{Tool: "reports/health", Task: s.ID}); err == nil || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("a tool that is in no manifest: %v", err)
	}
}

// TestManifestReload: a manifest that becomes narrower ends what was granted beyond
// it; one that is broken, or taken away, changes nothing.
func TestManifestReload(t *testing.T) {
	w, pid := openWithManifest(t)
	s, err := w.as("report-bot", "reporting", "orchestrators").StartTask(t.Context(), client.TaskRequest{
		Kind: "monthly-report", Params: json.RawMessage(`{"month":"2026-10","copies":5}`), Grant: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	tok := s.Tokens[0].AccessToken
	w.wantCall(tok, 200, "")
	failed := func() bool { return strings.Contains(w.log.String(), "do not load") }
	hup := func() {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.edit("manifests/monthly-report.yaml", "const: csv", "const: xls"); err != nil {
		t.Fatal(err)
	}
	hup()
	w.until("a broken manifest is told of", failed)
	w.wantCall(tok, 200, "")
	if err := os.Remove(filepath.Join(w.dir, "manifests/monthly-report.yaml")); err != nil {
		t.Fatal(err)
	}
	hup()
	w.until("its absence is told of", func() bool { return strings.Count(w.log.String(), "do not load") > 1 })
	w.wantCall(tok, 200, "")
	if err := w.write("manifests/monthly-report.yaml", strings.Replace(monthlyManifest, "const: csv", "const: pdf", 1)); err != nil {
		t.Fatal(err)
	}
	hup()
	w.until("what was granted has ended", func() bool {
		return strings.Contains(w.call(tok, "POST", exportCSV, october).body, "policy_changed")
	})
	w.wantCall(tok, 403, "policy_changed")

	// What policy was asked is on record, for its owner's eyes.
	inputs := filepath.Join(w.dir, "run/inputs.jsonl")
	info, err := os.Stat(inputs)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	conf := filepath.Join(w.dir, "toolgrant.yaml")
	got := toolgrant(t, "", "manifest", "suggest", "monthly-report", "--config", conf)
	if got.code != exitDone || !strings.Contains(got.stdout, `tool: "reports/export"`) || !strings.Contains(got.stdout, `{const: "csv"}`) {
		t.Errorf("suggested: %+v", got)
	}
	got = toolgrant(t, "", "policy", "replay", "--policies", filepath.Join(w.dir, "policies"), "--config", conf, "--fail-on-flip")
	if got.code != exitRefused || !strings.Contains(got.stdout, "policy_changed") && !strings.Contains(got.stdout, "manifest") {
		t.Errorf("replayed by the narrower manifest: %+v", got)
	}
}
