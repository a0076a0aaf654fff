package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// A name that is not there is an error, with its place.
func TestPolicyTestMisspelling(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	for line, want := range map[string]string{
		"start_task: {agent: bott, kind: k}\n  expect: deny":                                                                  `a.yaml:8:23: "bott" is none of "agents"; did you mean "bot"?`,
		"start_task: {agent: bot, kind: k}\n  expect: deny\n  by: [inside-a-grnt]":                                            `a.yaml:10:8: there is no policy "inside-a-grnt"; did you mean "inside-a-grant"?`,
		"start_task: {agent: bot, kind: k, owner: bot}\n  expect: deny":                                                       `unknown key "owner"`,
		"call: {agent: bot, tool: reports/exprt}\n  expect: deny":                                                             `"reports/exprt" is no tool of the catalogue; did you mean "reports/export"?`,
		"call: {agent: bot, tool: reports/export, input: {query: {formt: csv}, body: {}}}\n  expect: deny":                    `reports/export declares no query "formt"; did you mean "format"?`,
		"call: {agent: bot, tool: reports/export, input: {queri: {}, body: {}}}\n  expect: deny":                              `has no part "queri"; did you mean "query"?`,
		"call: {agent: bot, tool: reports/export}\n  expect: deny":                                                            `needs a body`,
		"call: {agent: bot, tool: reports/health, revision: x}\n  expect: deny":                                               `is an HTTP service`,
		"mcp: {agent: bot, server: reports, method: tools/list}\n  expect: deny":                                              `"reports" is no MCP server of the catalogue`,
		"start_task: {agent: bot, kind: k}\n  expect: no":                                                                     `"expect" is allow or deny, not "no"`,
		"start_task: {agent: bot, kind: k}\n  expect: deny\n  reason: polisy":                                                 `"polisy" is no reason of a denial; did you mean "policy"?`,
		"start_task: {agent: bot, kind: k}\n  expect: allow\n  reason: policy":                                                `"reason" is of a denial`,
		"start_task: {agent: bot, kind: k}\n  expect: deny\n  raeson: policy":                                                 `unknown key "raeson"`,
		"start_task: {agent: bot, kind: k}\n  grant: {}\n  expect: deny":                                                      `there is "start_task" already`,
		"start_task: {agent: bot, kind: k}":                                                                                   `"expect" is missing`,
		"expect: deny":                                                                                                        `says nothing to do`,
		"grant: {agent: bot, tool: reports/export}\n  expect: deny":                                                           `"task" is missing`,
		"grant: {agent: bot, tool: reports/export, task: {kind: k}, ttl: 0x10}\n  expect: deny":                               `"ttl" must be a duration`,
		"grant: {agent: bot, tool: reports/export, task: {kind: k}, max_sum: {/body/month: 3}}\n  expect: deny":               `"/body/month" leads to no number`,
		"grant: {agent: bot, tool: reports/export, task: {kind: k}, max_calls: 0}\n  expect: deny":                            `"max_calls" must be a whole number from 1`,
		"grant: {agent: bot, tool: reports/export, task: {kind: k}, constraint: {type: object, requird: []}}\n  expect: deny": `requird`,
		"ask_for: {agent: bot, requester: bot, tool: reports/export, task: {kind: k}}\n  expect: deny":                        `requester and agent are one`,
		"ask_for: {agent: bot, tool: reports/export, task: {kind: k}}\n  expect: deny":                                        `"requester" is missing`,
		"story: [{end: {as: bot}, granted: []}]":                                                                              `"granted" is of the steps start and grant`,
		"story: [{ende: {as: bot}}]":                                                                                          `unknown key "ende"`,
		"story: []":                                                                                                           `has no steps`,
		"story: [{end: {as: bot}}]\n  expect: deny":                                                                           `"expect" belongs to the steps`,
		"story: [{start: {as: bot, kind: k, agents: [bt]}}]":                                                                  `"bt" is none of "agents"`,
		"story: [{start: {as: bot, kind: k}, refused: {reports/exprt: policy}}]":                                              `"reports/exprt" is no tool`,
		"start_task: {agent: bot, kind: k}\n  expect: deny\n- name: one\n  start_task: {agent: bot, kind: k}\n  expect: deny": `a test named "one" is there already`,
	} {
		writeTests(t, dir, reportsAgents+"- name: one\n  "+line+"\n")
		got := toolgrant(t, "", "policy", "test", "--config", config)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, "a.yaml:") {
			t.Errorf("%s\n%+v\nwant %s", line, got, want)
		}
	}
	for agents, want := range map[string]string{
		"{x: {id: corp/x, groups: [orchestratrs]}}": `brings the group "orchestratrs"; did you mean "orchestrators"?`,
		"{x: {id: corp/x, groups: [corp/]}}":        `brings the group "corp/"`,
		// The issuer's own name of a group that is mapped: it can never come so.
		"{x: {id: corp/x, groups: [corp/reporting]}}": `brings the group "corp/reporting"`,
		"{x: {id: crop/x}}":                           `no issuer of identities has the alias "crop"`,
		"{x: {id: x}}":                                `"x" is no agent`,
		"[x]":                                         `"agents" must be a mapping`,
	} {
		writeTests(t, dir, "agents: "+agents+"\ntests: []\n")
		if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v\nwant %s", agents, got, want)
		}
	}
}

// A denial that decides nothing about what is tested passes no test that does not
// name it. Every reason is one or the other: a new one has to be thought of.
func TestUndecisiveReasons(t *testing.T) {
	decisive := []grants.Reason{
		grants.NoGrant, grants.Expired, grants.Revoked, grants.TaskEnded, grants.Superseded, grants.ToolChanged, grants.PolicyChanged,
		grants.WrongTool, grants.ConstraintBroken, grants.BudgetSpent, grants.Policy, grants.Manifest, grants.UnknownTask,
	}
	want := map[grants.Reason]bool{}
	for _, why := range decisive {
		want[why] = true
	}
	for _, why := range grants.Reasons() {
		passes := expectation{}.differs(testOutcome{reason: why}) == ""
		if passes != want[why] || passes == slices.Contains(undecisive, why) {
			t.Errorf("%s: a bare deny passes: %v", why, passes)
		}
		if wrong := (expectation{reason: why}).differs(testOutcome{reason: why}); wrong != "" {
			t.Errorf("%s by its name: %s", why, wrong)
		}
	}
	dir, config := exampleDir(t, "bank")
	writeTests(t, dir, "agents: {clerk: {id: corp/clerk}, front: {id: corp/front, groups: [front-ends]}}\ntests:\n- name: five decimals\n  call: {agent: clerk, tool: bank/send_money, input: {amount: 0.00001}}\n  expect: deny\n")
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitFailed || !strings.Contains(got.stdout, "that is no decision about it; if it is meant, write reason: unrepresentable") {
		t.Errorf("%+v", got)
	}
}

// Each thing that is expected is compared, and what is not said is not.
func TestExpectations(t *testing.T) {
	denied := testOutcome{reason: grants.Policy, advice: "ask", by: []string{"a", "b"}}
	bought := testOutcome{allow: true, by: []string{"a"}, granted: []string{"s/t"}, refused: map[string]grants.Reason{"s/u": grants.Policy}}
	for i, tc := range []struct {
		want expectation
		came testOutcome
		says string // "": it came
	}{
		{expectation{}, denied, ""},
		{expectation{reason: grants.Policy, by: []string{"a", "b"}, advice: "ask"}, denied, ""},
		{expectation{allow: true}, denied, "expected allow; got deny (policy), by a, b"},
		{expectation{reason: grants.Manifest}, denied, "expected deny (manifest); got deny (policy), by a, b"},
		{expectation{by: []string{"a"}}, denied, "expected deny, by a; got deny (policy), by a, b"},
		{expectation{by: []string{}}, denied, "expected deny, by no policy; got deny (policy), by a, b"},
		{expectation{advice: "no"}, denied, `expected deny; got deny (policy), by a, b; expected the advice "no", got "ask"`},
		{expectation{allow: true}, bought, ""},
		{expectation{}, bought, "expected deny; got allow, by a"},
		{expectation{allow: true, granted: []string{"s/t"}, refused: map[string]grants.Reason{"s/u": grants.Policy}}, bought, ""},
		{expectation{allow: true, granted: []string{}}, bought, "expected grants of nothing; got s/t, refused s/u (policy)"},
		{expectation{allow: true, granted: []string{"s/t", "s/u"}}, bought, "expected grants of s/t, s/u; got s/t, refused s/u (policy)"},
		{expectation{allow: true, refused: map[string]grants.Reason{}}, bought, "expected nothing refused; got refused s/u (policy)"},
		{expectation{allow: true, refused: map[string]grants.Reason{"s/u": grants.BadRequest}}, bought, "expected refused s/u (bad_request); got refused s/u (policy)"},
	} {
		if says := tc.want.differs(tc.came); says != tc.says {
			t.Errorf("%d: %q, want %q", i, says, tc.says)
		}
	}
}

// What a manifest says of a grant is in the question, as the broker puts it there.
func TestPolicyTestManifest(t *testing.T) {
	dir, config := exampleDir(t, "bank")
	writeTests(t, dir, `
agents: {clerk: {id: corp/clerk}, front: {id: corp/front, groups: [front-ends]}}
tests:
- name: narrower than asked
  grant: {agent: clerk, tool: bank/send_money, task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}, ttl: 10m, max_calls: 2, max_sum: {/amount: 2}}
  expect: allow
- name: not in it
  grant: {agent: clerk, tool: bank/change_password, task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}
  expect: deny
  reason: manifest
- name: parameters that it does not take
  start_task: {agent: front, kind: pay-bill, params: {recipient: a, limit: 10001}}
  expect: deny
  reason: bad_request
- name: none, where it has some
  start_task: {agent: front, kind: pay-bill}
  expect: deny
  reason: bad_request
- name: another recipient
  call: {agent: clerk, tool: bank/send_money, input: {recipient: b, amount: 1, subject: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}}
  expect: deny
  reason: constraint
- name: the same one
  call: {agent: clerk, tool: bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}}
  expect: allow
- name: one call each, of which no input is said
  grant: {agent: clerk, requester: front, tool: bank/wire, task: {kind: settle-account}}
  expect: deny
  reason: bad_request
- name: with its input
  grant: {agent: clerk, requester: front, tool: bank/wire, task: {kind: settle-account}, input: {iban: x, amount: 3}}
  expect: allow
- name: advice
  start_task: {agent: front, kind: pay-bill, params: {recipient: a, limit: 1001}}
  expect: deny
  advice: payments over 1000 are started at the counter
- name: an end, of which policy sees no parameters
  end_task: {agent: front, kind: pay-bill}
  expect: allow
- name: MCP
  mcp: {agent: clerk, server: bank, method: tools/list}
  expect: allow
- name: a retry of MCP
  mcp: {agent: clerk, server: bank, method: resources/read, input: {uri: "x:y"}, retry: {responses: {a: {b: 1}}, state: true}, grant: {tool: bank/get_iban, task: {kind: settle-account, owner: front}}}
  expect: deny
  by: []
`)
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitDone || !strings.HasPrefix(got.stdout, "12 passed, 0 failed;") {
		t.Errorf("%+v", got)
	}
	writeTests(t, dir, "agents: {front: {id: corp/front, groups: [front-ends]}}\ntests:\n- name: other advice\n  start_task: {agent: front, kind: pay-bill, params: {recipient: a, limit: 1001}}\n  expect: deny\n  advice: none\n")
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitFailed || !strings.Contains(got.stdout, `expected the advice "none", got "payments over 1000`) {
		t.Errorf("%+v", got)
	}
}

// questionsOf reads the cases of a text with the configuration.
func questionsOf(t *testing.T, config, text string) []*asking {
	t.Helper()
	cfg, err := LoadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	set, tools, err := readPolicies(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &testReader{cfg: cfg, catalog: tools, set: set, now: time.Unix(1e9, 0).UTC()}
	tests, err := r.readFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []*asking
	for _, c := range tests {
		all = append(all, c.question)
	}
	return all
}

// A question is as the doors put it: a grant inside its manifest, with the task's
// bounds and narrower ones of its own, and an input with all of its parts.
func TestPolicyTestQuestions(t *testing.T) {
	grant := "{agent: clerk, tool: bank/send_money, task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}, ttl: 10m, "
	qs := questionsOf(t, "../../examples/bank/toolgrant.yaml", "agents: {clerk: {id: corp/clerk}, front: {id: corp/front, groups: [front-ends]}}\ntests:\n"+
		"- {name: a, expect: allow, grant: "+grant+"max_calls: 2, max_sum: {/amount: 2.5}}}\n"+
		"- {name: b, expect: allow, grant: "+grant+"max_calls: 5, max_sum: {/amount: 7}}}\n"+
		"- {name: c, expect: allow, grant: {agent: clerk, tool: bank/wire, task: {kind: settle-account}, input: {iban: x, amount: 3, request_id: r}}}\n"+
		"- {name: d, expect: allow, call: {agent: clerk, tool: bank/get_iban, input: {name: x}, grant: {task: {kind: settle-account, owner: front}, age: 1m, ttl: 2m}}}\n")
	budgets := func(i int) (all []string) {
		g := qs[i].in.Grant
		for _, b := range g.Budgets {
			whose := "task"
			if b.Key == grants.GrantBudget(g.ID, b.Arg) {
				whose = "own"
			} else if b.Key != grants.TaskBudget(g.Task, g.Tool, b.Arg) {
				t.Errorf("%d: key %s", i, b.Key)
			}
			all = append(all, fmt.Sprint(whose, b.Arg, " ", b.Limit))
		}
		return all
	}
	for i, want := range [][]string{
		{"task 3", "own 2", "task/amount 30000", "own/amount 25000"}, // narrower than the manifest's
		{"task 3", "task/amount 30000"},                              // wider is nothing
		{"task 20", "own 1"},
		nil,
	} {
		if got := budgets(i); !slices.Equal(got, want) {
			t.Errorf("%d: %q, want %q", i, got, want)
		}
		if qs[i].why != grants.None {
			t.Errorf("%d: %s: %s", i, qs[i].why, qs[i].detail)
		}
	}
	if g := qs[0].in.Grant; g.TTL() != 2*time.Minute || len(g.Constraints) != 1 || !g.Once.IsZero() {
		t.Errorf("not as its manifest has it: %+v", g)
	}
	pinned, err := grants.OnceDigest(map[string]any{"iban": "x", "amount": strictjson.Number("3")}, nil)
	if g := qs[2].in.Grant; err != nil || g.Once != pinned { // request_id is volatile
		t.Errorf("once %s, want %s (%v)", g.Once, pinned, err)
	}
	if g, at := qs[3].in.Grant, qs[3].in.At; at.Sub(g.NotBefore) != time.Minute || g.Expires.Sub(at) != 2*time.Minute {
		t.Errorf("%+v at %s", g, at)
	}
	call := questionsOf(t, "../../examples/reports/toolgrant.yaml", reportsAgents+"- {name: a, expect: deny, call: {agent: bot, tool: reports/export, input: {body: {month: x}}}}\n")[0]
	if diff := cmp.Diff(any(map[string]any{"query": map[string]any{}, "body": map[string]any{"month": "x"}}), call.in.Args); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
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

// Nothing of a run stays: no key, no audit log, no temporary file.
func TestPolicyTestLeavesNothing(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	writeTests(t, dir, reportsStory)
	before := allFiles(t, dir)
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	if now := allFiles(t, dir); !slices.Equal(before, now) {
		t.Errorf("before %q\nafter %q", before, now)
	}
	if left := allFiles(t, temp); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func allFiles(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && path != dir {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPolicyTestJUnit(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: passes <&>\n  start_task: {agent: planner, kind: k}\n  expect: allow\n- name: \"fails \\\"x\\\"\"\n  start_task: {agent: bot, kind: k}\n  expect: allow\n")
	file := filepath.Join(dir, "report.xml")
	got := toolgrant(t, "", "policy", "test", "--config", config, "--junit", file)
	text, err := os.ReadFile(file)
	if got.code != exitFailed || err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	var all junitSuites
	if err := xml.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if all.Tests != 2 || all.Failures != 1 || len(all.Suites) != 1 || all.Suites[0].Tests != 2 || all.Suites[0].Failures != 1 {
		t.Fatalf("%s", text)
	}
	pass, fail := all.Suites[0].Cases[0], all.Suites[0].Cases[1]
	if pass.Name != "passes <&>" || pass.Failure != nil || fail.Name != `fails "x"` || fail.Failure == nil || !strings.Contains(fail.Failure.Message, "expected allow; got deny (policy)") || fail.Line != 10 {
		t.Errorf("%s", text)
	}
	if got := toolgrant(t, "", "policy", "test", "--config", config, "--junit", filepath.Join(dir, "none", "r.xml")); got.code != exitFailed || !strings.Contains(got.stderr, "--junit") {
		t.Errorf("%+v", got)
	}
}

// Tests run again when what they rest on changes, and when that is mended.
func TestPolicyTestWatch(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: starts\n  start_task: {agent: planner, kind: k}\n  expect: allow\n")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs syncBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"policy", "test", "--watch", "--config", config}, strings.NewReader(""), &out, &errs)
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) { // between two looks
			if time.Now().After(deadline) {
				t.Fatalf("%s: it never came; stdout %s, stderr %s", what, out.String(), errs.String())
			}
		}
	}
	until("the first run", func() bool { return strings.Contains(out.String(), "1 passed, 0 failed") })
	policy := filepath.Join(dir, "policies", "issue.cedar")
	edit(t, policy, "context.task.owner == principal", "context.task.owner != principal")
	until("a policy changed", func() bool { return strings.Contains(out.String(), "0 passed, 1 failed") })
	edit(t, filepath.Join(dir, "tests", "a.yaml"), "expect: allow", "expect: deny")
	until("a test changed", func() bool { return strings.Count(out.String(), "1 passed, 0 failed") == 2 })
	edit(t, policy, "context.task.owner != principal", "context.task.ovner != principal")
	until("a fault", func() bool { return strings.Contains(errs.String(), "ovner") })
	edit(t, policy, "context.task.ovner != principal", "context.task.owner == principal")
	until("it is mended", func() bool { return strings.Count(out.String(), "0 passed, 1 failed") == 2 })
	stop()
	if code := <-ended; code != exitDone {
		t.Errorf("code %d, stderr %s", code, errs.String())
	}
}

// With another engine there are no policies to test.
func TestPolicyTestOtherEngine(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: starts\n  start_task: {agent: planner, kind: k}\n  expect: allow\n")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "\npdp: {engine: opa, url: \"http://127.0.0.1:1/v1/data/toolgrant\"}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitUsage || !strings.Contains(got.stderr, "pdp decides") {
		t.Errorf("%+v", got)
	}
}

func TestIssuersGroup(t *testing.T) {
	mapped := map[string]string{"engineers": "builders", "ops": "builders", "plain": "plain"}
	for group, want := range map[string]string{"builders": "engineers", "plain": "plain", "corp/night": "night", "corp/a/b": "a/b", "corp/plain": "", "corp/": "", "other/x": "", "x": ""} {
		if got, ok := issuersGroup("corp", group, mapped); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v", group, got, ok)
		}
	}
}

// FuzzPolicyTestFile: whatever is in a file, reading it ends with cases or an
// error that has its place.
func FuzzPolicyTestFile(f *testing.F) {
	cfg, err := LoadConfig("../../examples/bank/toolgrant.yaml")
	if err != nil {
		f.Fatal(err)
	}
	set, tools, err := readPolicies(cfg)
	if err != nil {
		f.Fatal(err)
	}
	files, err := filepath.Glob("../../examples/bank/tests/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, c := range reportsCases {
		f.Add(reportsAgents + "- name: x\n  " + c)
	}
	f.Add(reportsStory)
	file := filepath.Join(f.TempDir(), "a.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &testReader{cfg: cfg, catalog: tools, set: set, now: time.Unix(1e9, 0).UTC()}
		tests, err := r.readFile(file)
		if err != nil {
			if !strings.HasPrefix(err.Error(), file+":") {
				t.Errorf("no place: %v", err)
			}
			return
		}
		for _, c := range tests {
			if c.question == nil || c.question.why != grants.None {
				continue
			}
			ds, err := set.Decide(t.Context(), []grants.Input{c.question.in})
			if err != nil || ds[0].Reason == grants.Undecided && !strings.HasPrefix(c.question.in.Action, grants.ActionMCP) {
				t.Errorf("%s: a question that no door would ask: %+v (%v)", c.name, c.question.in, err)
			}
		}
	})
}
