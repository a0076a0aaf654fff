package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const testTools = `servers:
- id: bank
  resource: https://bank.example
  upstream: 127.0.0.1:1
  http:
  - tool: pay
    method: POST
    path: /pay
    opaque: [/body/blob]
    redact: [/body/iban, /body/payee/name]
    body:
      type: object
      properties:
        amount: {type: number}
        iban: {type: string}
        blob: {type: string}
        payee: {type: object, properties: {name: {type: string}, city: {type: string}}}
  - {tool: look, method: GET, path: /look}
`

func testCatalog(t testing.TB, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("tools.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	now   = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	oldRe = grants.Digest{1}
	newRe = grants.Digest{2}
	agent = grants.Principal{Issuer: "corp", Subject: "agent", Groups: []string{"corp/ops"}, Tags: map[string]string{"Team": "a", "team": "b"}}
	boss  = grants.Principal{Issuer: "corp", Subject: "boss"}
)

func testTask() *grants.Task {
	return &grants.Task{
		ID: "t_1", Kind: "pay-bill", Owner: boss, Agents: []string{"corp/agent"}, Params: json.RawMessage(`{"limit":5}`),
		Deadline: now.Add(time.Hour), Beat: time.Minute, Rev: grants.Rev{Epoch: 1, N: 2},
	}
}

// testGrant is one of the old revision, for which its agent asked itself.
func testGrant() *grants.Grant {
	return &grants.Grant{
		ID: "g_1", Task: "t_1", Agent: agent, Requester: agent, Client: "cli", Identity: grants.Digest{3}, Tool: "bank/pay", Pin: grants.Digest{4},
		NotBefore: now, Expires: now.Add(time.Minute), Constraints: []json.RawMessage{[]byte(`{"type":"object"}`)},
		Budgets: []grants.Budget{{Key: "grant/g_1", Limit: 3}}, Once: grants.Digest{5}, Policy: oldRe, Rev: grants.Rev{Epoch: 1, N: 3},
	}
}

func parse(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// call is one under a grant; nil: baseline.
func call(g *grants.Grant, args any) grants.Input {
	in := grants.Input{Action: "call:bank/pay", Requester: agent, Principal: agent, Tool: "bank/pay", Grant: g, Args: args, At: now}
	if g != nil {
		in.Task = testTask()
	}
	return in
}

func baseline(tool string) grants.Input {
	return grants.Input{Action: "call:" + tool, Requester: agent, Principal: agent, Tool: tool, At: now}
}

// Answers, of a revision.
func allow(rev grants.Digest, ids ...string) grants.Decision {
	return grants.Decision{Allow: true, Policies: ids, Revision: rev}
}

func deny(rev grants.Digest, why grants.Reason, ids ...string) grants.Decision {
	return grants.Decision{Reason: why, Policies: ids, Revision: rev}
}

// says is a Decider of one answer for each action; others are permitted by "any".
func says(answers map[string]grants.Decision) grants.Decider {
	return func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
		out := make([]grants.Decision, len(in))
		for i := range in {
			d, ok := answers[in[i].Action]
			if !ok {
				d = allow(newRe, "any")
			}
			out[i] = d
		}
		return out, ctx.Err()
	}
}

func testPath(t testing.TB) string { return filepath.Join(t.TempDir(), "inputs.jsonl") }

func openInputs(t testing.TB, path string) *Inputs {
	t.Helper()
	s, err := Open(InputsConfig{File: path, Catalog: testCatalog(t, testTools)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// readAll gives the lines of a file and the errors of those that are none.
func readAll(t testing.TB, path string) (all []Line, bad []error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for line, err := range Read(f) {
		if err != nil {
			bad = append(bad, err)
		} else {
			all = append(all, line)
		}
	}
	return all, bad
}

func wantLines(t testing.TB, path string, ids ...string) {
	t.Helper()
	all, bad := readAll(t, path)
	if len(bad) > 0 {
		t.Errorf("bad lines: %v", bad)
	}
	var got []string
	for _, line := range all {
		got = append(got, line.ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("lines of %v, want %v", got, ids)
	}
}

func idOf(i int) string { return fmt.Sprintf("d_%d", i) }
