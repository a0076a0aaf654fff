package main

import (
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

// A name that is not there is an error, with its place.
func TestPolicyTestMisspelling(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	for line, want := range map[string]string{
		"start_task: {agent: bott, kind: monthly-report}\n  expect: deny":                                                      `a.yaml:8:23: "bott" is none of "agents"; did you mean "bot"?`,
		"start_task: {agent: bot, kind: monthly-report}\n  expect: deny\n  by: [inside-a-grnt]":                                `a.yaml:10:8: there is no policy "inside-a-grnt"; did you mean "inside-a-grant"?`,
		"start_task: {agent: bot, kind: monthly-report, owner: bot}\n  expect: deny":                                           `unknown key "owner"`,
		"call: {agent: bot, tool: reports/exprt}\n  expect: deny":                                                              `"reports/exprt" is no tool of the catalogue; did you mean "reports/export"?`,
		"call: {agent: bot, tool: reports/export, input: {query: {formt: csv}, body: {}}}\n  expect: deny":                     `reports/export declares no query "formt"; did you mean "format"?`,
		"call: {agent: bot, tool: reports/export, input: {queri: {}, body: {}}}\n  expect: deny":                               `has no part "queri"; did you mean "query"?`,
		"call: {agent: bot, tool: reports/export}\n  expect: deny":                                                             `needs a body`,
		"call: {agent: bot, tool: reports/health, revision: x}\n  expect: deny":                                                `is an HTTP service`,
		"mcp: {agent: bot, server: reports, method: tools/list}\n  expect: deny":                                               `"reports" is no MCP server of the catalogue`,
		"start_task: {agent: bot, kind: monthly-reprt}\n  expect: deny":                                                        `a.yaml:8:34: no kind of task is called "monthly-reprt": entities.json does not declare it, and it has no manifest; did you mean "monthly-report"?`,
		"end_task: {agent: bot, kind: x}\n  expect: deny":                                                                      `a.yaml:8:32: no kind of task is called "x": entities.json does not declare it, and it has no manifest; there are: monthly-report`,
		"grant: {agent: bot, tool: reports/export, task: {kind: monthly-reprt}}\n  expect: deny":                               `no kind of task is called "monthly-reprt"`,
		"ask_for: {agent: bot, requester: planner, tool: reports/export, task: {kind: monthly-reprt}}\n  expect: deny":         `no kind of task is called "monthly-reprt"`,
		"revoke: {agent: bot, tool: reports/export, task: {kind: monthly-reprt}}\n  expect: deny":                              `no kind of task is called "monthly-reprt"`,
		"call: {agent: bot, tool: reports/health, grant: {task: {kind: monthly-reprt}}}\n  expect: deny":                       `no kind of task is called "monthly-reprt"`,
		"story: [{start: {as: bot, kind: monthly-reprt}}]":                                                                     `a.yaml:8:35: no kind of task is called "monthly-reprt"`,
		"call: {agent: bot, tool: reports/health, grant: {task: {kind: monthly-report}, age: 10m, ttl: 5m1s}}\n  expect: deny": `a.yaml:8:97: no grant of reports/health lasts 15m1s ("age" and what is left of it, "ttl"): limits.max_ttl is 15m0s`,
		"call: {agent: bot, tool: reports/health, grant: {task: {kind: monthly-report}, age: 15m}}\n  expect: deny":            `no grant of reports/health lasts 15m1s`,
		"start_task: {agent: bot, kind: monthly-report}\n  expect: no":                                                         `"expect" is allow or deny, not "no"`,
		"start_task: {agent: bot, kind: monthly-report}\n  expect: deny\n  reason: polisy":                                     `"polisy" is no reason of a denial; did you mean "policy"?`,
		"start_task: {agent: bot, kind: monthly-report}\n  expect: allow\n  reason: policy":                                    `"reason" is of a denial`,
		"start_task: {agent: bot, kind: monthly-report}\n  expect: deny\n  raeson: policy":                                     `unknown key "raeson"`,
		"start_task: {agent: bot, kind: monthly-report}\n  grant: {}\n  expect: deny":                                          `there is "start_task" already`,
		"start_task: {agent: bot, kind: monthly-report}":                                                                       `"expect" is missing`,
		"expect: deny": `says nothing to do`,
		"grant: {agent: bot, tool: reports/export}\n  expect: deny":                                                                                     `"task" is missing`,
		"grant: {agent: bot, tool: reports/export, task: {kind: monthly-report}, ttl: 0x10}\n  expect: deny":                                            `"ttl" must be a duration`,
		"grant: {agent: bot, tool: reports/export, task: {kind: monthly-report}, max_sum: {/body/month: 3}}\n  expect: deny":                            `"/body/month" leads to no number`,
		"grant: {agent: bot, tool: reports/export, task: {kind: monthly-report}, max_calls: 0}\n  expect: deny":                                         `"max_calls" must be a whole number from 1`,
		"grant: {agent: bot, tool: reports/export, task: {kind: monthly-report}, constraint: {type: object, requird: []}}\n  expect: deny":              `requird`,
		"ask_for: {agent: bot, requester: bot, tool: reports/export, task: {kind: monthly-report}}\n  expect: deny":                                     `requester and agent are one`,
		"ask_for: {agent: bot, tool: reports/export, task: {kind: monthly-report}}\n  expect: deny":                                                     `"requester" is missing`,
		"story: [{end: {as: bot}, granted: []}]":                                                                                                        `"granted" is of the steps start and grant`,
		"story: [{ende: {as: bot}}]":                                                                                                                    `unknown key "ende"`,
		"story: []":                                                                                                                                     `has no steps`,
		"story: [{end: {as: bot}}]\n  expect: deny":                                                                                                     `"expect" belongs to the steps`,
		"story: [{start: {as: bot, kind: monthly-report, agents: [bt]}}]":                                                                               `"bt" is none of "agents"`,
		"story: [{start: {as: bot, kind: monthly-report}, refused: {reports/exprt: policy}}]":                                                           `"reports/exprt" is no tool`,
		"start_task: {agent: bot, kind: monthly-report}\n  expect: deny\n- name: one\n  start_task: {agent: bot, kind: monthly-report}\n  expect: deny": `a test named "one" is there already`,
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
	if task, g := qs[3].in.Task, qs[3].in.Grant; task.Started.After(g.NotBefore) || task.Deadline.Sub(task.Started) != time.Hour {
		t.Errorf("the grant is older than its task, or that is longer than its kind's: %+v", task)
	}
	call := questionsOf(t, "../../examples/reports/toolgrant.yaml", reportsAgents+"- {name: a, expect: deny, call: {agent: bot, tool: reports/export, input: {body: {month: x}}}}\n")[0]
	if diff := cmp.Diff(any(map[string]any{"query": map[string]any{}, "body": map[string]any{"month": "x"}}), call.in.Args); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
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
