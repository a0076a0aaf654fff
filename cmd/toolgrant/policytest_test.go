package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const reportsAgents = `
agents:
  planner: {id: corp/planner, groups: [orchestrators]}
  bot: {id: corp/report-bot, groups: [reporting]}
  night: {id: corp/night, groups: [corp/night]}
tests:
`

// exampleDir is a copy of an example, to change; it gives the configuration.
func exampleDir(t *testing.T, name string) (dir, config string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "examples", name))); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "toolgrant.yaml")
}

// writeTests puts cases into the example's folder of tests, alone.
func writeTests(t *testing.T, dir, text string) {
	t.Helper()
	tests := filepath.Join(dir, "tests")
	if err := errors.Join(os.RemoveAll(tests), os.MkdirAll(tests, 0o700), os.WriteFile(filepath.Join(tests, "a.yaml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// edit replaces a text in a file, which must be there.
func edit(t *testing.T, file, old, now string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), old) {
		t.Fatalf("%s: no %q in it (%v)", file, old, err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, now, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The example with manifests is tested by its own tests.
func TestPolicyTestsOfTheExample(t *testing.T) {
	got := toolgrant(t, "", "policy", "test", "--config", "../../examples/bank/toolgrant.yaml")
	if got.code != exitDone || !strings.Contains(got.stdout, " 0 failed; policies covered ") || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// reportsCases are cases that pass with the policies of the example reports.
var reportsCases = []string{
	"start_task: {agent: planner, kind: monthly-report}\n  expect: allow\n  by: [orchestrators-run-their-tasks]",
	"start_task: {agent: bot, kind: monthly-report}\n  expect: deny\n  by: []",
	"end_task: {agent: planner, kind: monthly-report}\n  expect: allow",
	"end_task: {agent: planner, kind: monthly-report, owner: night}\n  expect: deny",
	"grant: {agent: bot, requester: planner, tool: reports/export, task: {kind: monthly-report}, ttl: 10m, max_calls: 2}\n  expect: allow\n  by: [reporting-may-export]",
	"grant: {agent: bot, tool: reports/export, task: {kind: monthly-report, owner: planner}, ttl: 10m1s}\n  expect: deny",
	"grant: {agent: bot, tool: reports/export, task: {kind: another, owner: planner}}\n  expect: deny",
	"grant: {agent: bot, tool: reports/purge, task: {kind: monthly-report, owner: planner}}\n  expect: deny\n  reason: policy",
	"ask_for: {requester: planner, agent: bot, tool: reports/export, task: {kind: monthly-report}}\n  expect: deny",
	"revoke: {agent: planner, holder: bot, tool: reports/export, task: {kind: monthly-report}}\n  expect: allow",
	"revoke: {agent: bot, tool: reports/export, task: {kind: monthly-report, owner: planner}}\n  expect: deny",
	"call: {agent: bot, tool: reports/health}\n  expect: deny\n  by: []",
	"call: {agent: bot, tool: reports/health, grant: {task: {kind: monthly-report, owner: planner}, age: 1m, ttl: 5m, depth: 1, bound: true}}\n  expect: allow\n  by: [inside-a-grant]",
	"start_task: {agent: planner, kind: monthly-report, params: {month: x}}\n  expect: deny\n  reason: bad_request",
}

// Each case passes, and the same with another outcome does not: none passes for
// whatever comes.
func TestPolicyTestCases(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	edit(t, filepath.Join(dir, "policies", "entities.json"), "[", `[{"uid": {"type": "Toolgrant::TaskKind", "id": "another"}, "attrs": {}, "parents": []},`)
	var good, flipped strings.Builder
	for i, c := range reportsCases {
		fmt.Fprintf(&good, "- name: case %d\n  %s\n", i, c)
		if strings.Contains(c, "expect: allow") {
			c = strings.Replace(c, "expect: allow", "expect: deny", 1)
		} else {
			c = strings.Replace(c, "expect: deny", "expect: allow", 1)
			c, _, _ = strings.Cut(c, "\n  reason:")
		}
		fmt.Fprintf(&flipped, "- name: case %d\n  %s\n", i, c)
	}
	writeTests(t, dir, reportsAgents+good.String())
	got := toolgrant(t, "", "policy", "test", "--config", config, "--require-coverage")
	if got.code != exitDone || got.stdout != fmt.Sprintf("%d passed, 0 failed; policies covered 3 of 3\n", len(reportsCases)) {
		t.Errorf("%+v", got)
	}
	writeTests(t, dir, reportsAgents+flipped.String())
	got = toolgrant(t, "", "policy", "test", "--config", config)
	if got.code != exitFailed || !strings.Contains(got.stdout, fmt.Sprintf("\n0 passed, %d failed;", len(reportsCases))) {
		t.Errorf("%+v", got)
	}
}

const reportsStory = reportsAgents + `- name: a report
  story:
  - start: {as: bot, kind: monthly-report}
    expect: deny
    by: []
  - start: {as: planner, kind: monthly-report, agents: [bot], ttl: 1h}
    by: [orchestrators-run-their-tasks]
  - call: {as: bot, tool: reports/export, input: {query: {format: csv}, body: {month: "2026-10"}}}
    expect: deny
    reason: no_grant
  - grant: {as: bot, tool: reports/export, ttl: 5m, max_calls: 2, constraint: {type: object, required: [query, body], additionalProperties: false, properties: {query: {type: object, required: [format], additionalProperties: false, properties: {format: {type: string, const: csv}}}, body: {type: object, required: [month], additionalProperties: false, properties: {month: {type: string}}}}}}
    granted: [reports/export]
  - grant: {as: bot, tool: reports/purge}
    expect: deny
    by: []
  - call: {as: night, tool: reports/export, input: {query: {format: csv}, body: {month: "2026-10"}}}
    expect: deny
    reason: no_grant
  - call: {as: bot, tool: reports/export, input: {query: {format: csv}, body: {month: "a & b +"}}}
    by: [inside-a-grant]
  - call: {as: bot, tool: reports/export, input: {query: {format: pdf}, body: {month: "2026-10"}}}
    expect: deny
    reason: constraint
  - call: {as: bot, baseline: true, tool: reports/export, input: {query: {format: csv}, body: {month: "2026-10"}}}
    expect: deny
    reason: no_grant
  - call: {as: bot, tool: reports/health}
    expect: deny
    reason: wrong_tool
  - grant: {as: bot, tool: reports/export, renew: true}
  - call: {as: bot, tool: reports/export, input: {query: {format: csv}, body: {month: x}}}
  - call: {as: bot, tool: reports/export, input: {query: {format: csv}, body: {month: x}}}
    expect: deny
    reason: budget_spent
  - revoke: {as: bot, tool: reports/export}
    expect: deny
    reason: unknown_grant
  - revoke: {as: planner, agent: bot, tool: reports/export}
  - call: {as: bot, tool: reports/export, input: {query: {format: csv}, body: {month: x}}}
    expect: deny
    reason: revoked
  - end: {as: bot}
    expect: deny
  - end: {as: planner}
  - grant: {as: bot, tool: reports/export}
    expect: deny
    reason: task_ended
`

// A story goes through both doors. With any of its steps expected otherwise, that
// step is where it fails.
func TestPolicyTestStory(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsStory)
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitDone || !strings.HasPrefix(got.stdout, "1 passed, 0 failed; policies covered 3 of 3\n") {
		t.Fatalf("%+v", got)
	}
	head, steps, _ := strings.Cut(reportsStory, "  story:\n")
	list := strings.Split(strings.TrimPrefix(steps, "  - "), "  - ")
	for i, step := range list {
		wrong, _, _ := strings.Cut(step, "\n") // without what it expects: an allow
		if !strings.Contains(step, "expect: deny") {
			wrong += "\n    expect: deny"
		}
		changed := slices.Clone(list)
		changed[i] = wrong + "\n"
		writeTests(t, dir, head+"  story:\n  - "+strings.Join(changed, "  - "))
		got := toolgrant(t, "", "policy", "test", "--config", config)
		if where := fmt.Sprintf(": a report: step %d (", i+1); got.code != exitFailed || !strings.Contains(got.stdout, where) || !strings.Contains(got.stdout, "\n0 passed, 1 failed") {
			t.Errorf("step %d: %+v", i+1, got)
		}
	}
}

// It is the policies in the folder that are tested, and their change shows, with
// what would have to differ.
func TestPolicyTestSeesAChange(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: five minutes\n  grant: {agent: bot, tool: reports/export, task: {kind: monthly-report, owner: planner}}\n  expect: allow\n"+
		"- name: in a story\n  story:\n  - start: {as: planner, kind: monthly-report, agents: [bot]}\n  - grant: {as: bot, tool: reports/export}\n")
	edit(t, filepath.Join(dir, "policies", "issue.cedar"), "context.ttl <= 600", "context.ttl <= 60")
	got := toolgrant(t, "", "policy", "test", "--config", config)
	for _, want := range []string{
		"a.yaml:7:3: five minutes: expected allow; got deny (policy), by no policy\n  ",
		"a.yaml:13:5: in a story: step 2 (grant reports/export): expected allow; got deny (policy), by no policy\n  ",
		"reporting-may-export", "context.ttl <= 60", "0 passed, 2 failed; policies covered 1 of 3: not covered: inside-a-grant, reporting-may-export\n",
	} {
		if got.code != exitFailed || !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in %+v", want, got)
		}
	}
}

func TestPolicyTestCoverage(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: starts\n  start_task: {agent: planner, kind: monthly-report}\n  expect: allow\n- name: ends\n  end_task: {agent: planner, kind: monthly-report}\n  expect: allow\n")
	for _, tc := range []struct {
		args   []string
		code   int
		stdout string
	}{
		{nil, exitDone, "2 passed, 0 failed; policies covered 1 of 3: not covered: inside-a-grant, reporting-may-export\n"},
		{[]string{"--require-coverage"}, exitFailed, "2 passed, 0 failed; policies covered 1 of 3: not covered: inside-a-grant, reporting-may-export\n"},
		{[]string{"--run", "^end"}, exitDone, "1 passed, 0 failed\n"},
		{[]string{"--run", "("}, exitUsage, ""},
		{[]string{"--run", "none"}, exitUsage, ""},
		{[]string{"--run", "x", "--require-coverage"}, exitUsage, ""},
		{[]string{filepath.Join(dir, "nowhere")}, exitUsage, ""},
		{[]string{filepath.Join(dir, "policies")}, exitUsage, ""}, // no *.yaml
		{[]string{filepath.Join(dir, "tests", "a.yaml")}, exitDone, "2 passed, 0 failed; policies covered 1 of 3: not covered: inside-a-grant, reporting-may-export\n"},
	} {
		got := toolgrant(t, "", append([]string{"policy", "test", "--config", config}, tc.args...)...)
		if got.code != tc.code || got.stdout != tc.stdout || (got.stderr == "") != (tc.code != exitUsage) {
			t.Errorf("%v: %+v", tc.args, got)
		}
	}
	// What would not be read is told, and not left out.
	if err := os.Rename(filepath.Join(dir, "tests", "a.yaml"), filepath.Join(dir, "tests", "a.yml")); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitUsage || !strings.Contains(got.stderr, "name it .yaml") {
		t.Errorf("%+v", got)
	}
}

// A policy that errs decides nothing: it is not covered, and no bare deny is meant
// by it.
func TestPolicyTestError(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	edit(t, filepath.Join(dir, "policies", "call.cedar"), "when { context has grant };", `when { context has grant };

@id("overflows")
forbid (principal, action == Toolgrant::Action::"grant", resource)
when { context.ttl * 9223372036854775807 > 7 };
`)
	asked := "  grant: {agent: bot, tool: reports/export, task: {kind: monthly-report, owner: planner}}\n  expect: deny\n"
	writeTests(t, dir, reportsAgents+"- name: bare\n"+asked+"- name: by its reason\n"+asked+"  reason: policy_error\n  by: [overflows]\n"+
		"- name: in a story\n  story:\n  - start: {as: planner, kind: monthly-report, agents: [bot]}\n  - grant: {as: bot, tool: reports/export}\n    expect: deny\n    reason: policy_error\n")
	got := toolgrant(t, "", "policy", "test", "--config", config)
	if got.code != exitFailed || !strings.Contains(got.stdout, ": bare: expected deny; got deny (policy_error)") ||
		!strings.HasSuffix(got.stdout, "2 passed, 1 failed; policies covered 1 of 4: not covered: inside-a-grant, overflows, reporting-may-export\n") {
		t.Errorf("%+v", got)
	}
}

// What the call door makes of a request is what the test wrote.
func TestWireCalls(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	err := os.WriteFile(filepath.Join(dir, "tools.yaml"), []byte(`
servers:
- id: reports
  resource: https://reports.internal
  upstream: 127.0.0.1:8080
  http:
  - tool: export
    method: POST
    path: /export
    query: {q: {type: string}, n: {type: number}, b: {type: boolean}, i: {type: integer}}
    header: {x-tenant: {type: string}, x-limit: {type: number}}
    body: {type: object, properties: {rows: {type: array, items: {type: number}}, text: {type: string}}}
- id: notes
  resource: https://notes.internal/mcp
  upstream: 127.0.0.1:8081
  mcp: {path: /mcp}
  tools:
  - {tool: write, name: writeNote, input: {type: object, properties: {id: {type: string, header: Id}, size: {type: integer, header: Size}, sure: {type: boolean}}}}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, config, "catalogue: ", "surface: {listen: \"127.0.0.1:8183\"}\ncatalogue: ")
	edit(t, filepath.Join(dir, "policies", "issue.cedar"), `{ context.task.kind == "monthly-report" && context.ttl <= 600 }`, "{ true }")
	cfg, err := LoadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	h, err := openHouse(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	}()
	n := func(s string) strictjson.Number { return strictjson.Number(s) }
	for id, inputs := range map[string][]map[string]any{
		"reports/export": {
			{"query": map[string]any{}, "header": map[string]any{}, "body": map[string]any{}},
			{
				"query":  map[string]any{"q": "a&b=c +%ü?/", "n": n("1.5"), "b": true, "i": n("-7")},
				"header": map[string]any{"x-tenant": "acme, inc", "x-limit": n("10")},
				"body":   map[string]any{"rows": []any{n("1"), n("2.5")}, "text": "\"\n\u2028<>"},
			},
		},
		"notes/write": {{}, {"id": "plain", "size": n("3"), "sure": false}, {"id": " ü=?", "size": n("0")}, {"id": "=?base64?eA==?="}},
	} {
		tool, ok := h.parts.catalog.Tool(id)
		if !ok {
			t.Fatal(id)
		}
		for _, input := range inputs {
			bot := grants.Principal{Issuer: "corp", Subject: "bot", Groups: []string{"reporting"}}
			c, err := callOf(tool, input)
			if err != nil {
				t.Fatal(err)
			}
			o, err := (&play{house: h}).check(t.Context(), c, bot, true, tool.Server, tool)
			if err != nil || o.reason != grants.NoGrant || len(o.asked) == 0 {
				t.Errorf("%s %v: %s (%v)", id, input, o.words(), err)
				continue
			}
			if diff := cmp.Diff(any(input), o.asked[0].in.Args); diff != "" {
				t.Errorf("%s: the door read (-written +read):\n%s", id, diff)
			}
			if who := o.asked[0].in.Principal; who.ID() != "corp/bot" || !slices.Equal(who.Groups, bot.Groups) {
				t.Errorf("%s: by %+v", id, who)
			}
		}
	}
}
