package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/replay"
	"github.com/toolgrant/toolgrant/strictjson"
)

const (
	paidDecision   = "d_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	bareDecision   = "d_bbbbbbbbbbbbbbbbbbbbbbbbbb"
	absentDecision = "d_cccccccccccccccccccccccccc"
)

// keptInputs is a file of inputs with two calls of the bank, as the call door's
// hook writes it: one whose subject is redacted, and one of a tool without such.
func keptInputs(t *testing.T, cfg *Config) string {
	t.Helper()
	set, tools, err := readPolicies(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "inputs.jsonl")
	kept, err := replay.Open(replay.InputsConfig{File: file, Catalog: tools, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	clerk := grants.Principal{Issuer: "corp", Subject: "clerk"}
	ask := func(id, tool string, args map[string]any) {
		in := []grants.Input{{
			Action: grants.ActionCall + tool, Tool: tool, Requester: clerk, Principal: clerk, Revision: "2026-07-28", Args: args, At: time.Now(),
		}}
		out, err := set.Decide(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		kept.Asked(id, in, out)
	}
	ask(paidDecision, "bank/send_money", map[string]any{"recipient": "stopped ACME", "amount": strictjson.Number("1"), "subject": "a secret"})
	ask(bareDecision, "bank/get_iban", map[string]any{"name": "ACME"})
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// What was asked is put again; what of it was redacted is not guessed.
func TestPolicyExplainDecision(t *testing.T) {
	dir, config := exampleDir(t, "bank")
	cfg, err := LoadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	file := keptInputs(t, cfg)
	explain := func(args ...string) result {
		t.Helper()
		return toolgrant(t, "", append([]string{"policy", "explain", "--config", config, "--inputs", file}, args...)...)
	}
	got := explain("--decision", bareDecision)
	for _, want := range []string{"call:bank/get_iban was answered: deny (policy), by no policy\n", "inside-a-grant", "context has grant"} {
		if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in %+v", want, got)
		}
	}
	if strings.Contains(got.stdout, "have changed since") || strings.Contains(got.stdout, "ACME") {
		t.Errorf("%s", got.stdout)
	}
	got = explain("--decision", paidDecision, "--values")
	if got.code != exitDone || !strings.Contains(got.stdout, "deny (policy), by stopped-recipients\nIt cannot be put again: the arguments /subject are not kept.\n") {
		t.Errorf("%+v", got)
	}
	edit(t, filepath.Join(dir, "policies", "call.cedar"), `"stopped-recipients"`, `"stopped"`)
	if got := explain("--decision", bareDecision); !strings.Contains(got.stdout, "The policies have changed since: that was by revision ") {
		t.Errorf("%+v", got)
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--decision", absentDecision}, exitFailed, "nothing of the decision " + absentDecision},
		{[]string{"--decision", "d_1"}, exitUsage, "is no decision_id"},
		{[]string{"--input", "-"}, exitUsage, "--inputs is where --decision is looked for"},
	} {
		if got := explain(tc.args...); got.code != tc.code || got.stdout != "" || !strings.Contains(got.stderr, tc.want) {
			t.Errorf("%v: %+v", tc.args, got)
		}
	}
	// A line that is none does not hide the others, and is told where nothing is found.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("{}\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := explain("--decision", bareDecision); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	if got := explain("--decision", absentDecision); !strings.Contains(got.stderr, "1 lines of it could not be read") {
		t.Errorf("%+v", got)
	}
}

// Arguments are shown to those alone who ask for them, and nothing moves a cursor.
func TestPolicyExplainInput(t *testing.T) {
	_, config := exampleDir(t, "bank")
	ask := toolgrant(t, "", "policy", "example-input", "call", "--tool", "bank/send_money", "--config", config)
	if ask.code != exitDone {
		t.Fatalf("%+v", ask)
	}
	doc := strings.ReplaceAll(ask.stdout, `"recipient": "text"`, `"recipient": "stopped \u001b[2J"`) // of the input and of the parameters
	if doc == ask.stdout {
		t.Fatalf("no recipient in %s", doc)
	}
	plain := toolgrant(t, doc, "policy", "explain", "--config", config, "--input", "-")
	if plain.code != exitDone || !strings.Contains(plain.stdout, "deny (policy)") || !strings.Contains(plain.stdout, "stopped-recipients") || strings.Contains(plain.stdout, "[2J") {
		t.Errorf("%+v", plain)
	}
	values := toolgrant(t, doc, "policy", "explain", "--config", config, "--input", "-", "--values")
	if values.code != exitDone || !strings.Contains(values.stdout, "[2J") || strings.Contains(values.stdout, "\x1b") {
		t.Errorf("%+v", values)
	}
	if got := toolgrant(t, "{", "policy", "explain", "--config", config, "--input", "-"); got.code != exitUsage || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	if got := toolgrant(t, "", "policy", "explain", "--config", config); got.code != exitUsage || !strings.Contains(got.stderr, "say which question") {
		t.Errorf("%+v", got)
	}
}
