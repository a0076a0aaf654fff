package cedar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

func parse(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func with(in grants.Input, change func(*grants.Input)) grants.Input {
	if in.Task != nil {
		task := *in.Task
		in.Task = &task
	}
	if in.Grant != nil {
		g := *in.Grant
		in.Grant = &g
	}
	change(&in)
	return in
}

func TestExample(t *testing.T) {
	s := example(t)
	merge := func(args string) grants.Input {
		return call("github/merge_pr", testGrant("github/merge_pr"), parse(t, args))
	}
	outsider := grants.Principal{Issuer: "corp", Subject: "x", Groups: []string{"corp/ci"}}
	for _, tt := range []struct {
		name string
		in   grants.Input
		want string
	}{
		{"start", startTask("release"), "allow orchestrators-start-tasks"},
		{"start, too long", with(startTask("release"), func(in *grants.Input) { in.Task.Deadline = now.Add(time.Hour + 1) }), "policy"},
		{"start, not in the group", with(startTask("release"), func(in *grants.Input) { in.Principal = builder1 }), "policy"},
		{"start, kind not declared", startTask("other"), "allow orchestrators-start-tasks"},
		{"end", with(startTask("release"), func(in *grants.Input) { in.Action = grants.ActionEndTask }), "allow orchestrators-start-tasks"},
		{"grant", grantTool("github/merge_pr"), "allow release-may-merge"},
		{"grant, other tool", grantTool("bank/pay"), "policy"},
		{"grant, other kind", with(grantTool("github/merge_pr"), func(in *grants.Input) { in.Task.Kind = "debug" }), "policy"},
		{"grant, too long", with(grantTool("github/merge_pr"), func(in *grants.Input) { in.Grant.Expires = in.Grant.NotBefore.Add(600*time.Second + 1) }), "policy"},
		{"grant, group of that name elsewhere", with(grantTool("github/merge_pr"), func(in *grants.Input) { in.Principal, in.Grant.Agent = outsider, outsider }), "policy"},
		{"revoke", with(grantTool("github/merge_pr"), func(in *grants.Input) { in.Action = grants.ActionRevoke }), "policy"},
		{"squash", merge(`{"body": {"number": 1, "method": "squash"}}`), "allow inside-a-grant"},
		{"rebase", merge(`{"body": {"number": 1, "method": "rebase"}}`), "policy squash-only"},
		{"no method", merge(`{"body": {"number": 1}}`), "policy squash-only"},
		{"input not known", call("github/merge_pr", testGrant("github/merge_pr"), nil), "policy squash-only"},
		{"no grant", call("github/merge_pr", nil, parse(t, `{"body": {"number": 1, "method": "squash"}}`)), "policy"},
		{"baseline", call("github/get_pr", nil, parse(t, `{"query": {"number": 7}}`)), "allow reads-need-no-grant"},
		{"baseline, in a grant", call("github/get_pr", testGrant("github/get_pr"), parse(t, `{"query": {}}`)), "allow inside-a-grant reads-need-no-grant"},
		{"no baseline", call("reports/health", nil, parse(t, `{}`)), "policy"},
		{"unknown tool", call("github/nosuch", nil, parse(t, `{}`)), "unknown_tool"},
		{"grant of an unknown tool", grantTool("github/nosuch"), "unknown_tool"},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, decide(t, s, tt.in), tt.want) })
	}
}

// What does not make a question is never allowed, whatever policy says.
func TestMalformed(t *testing.T) {
	s := policies(t, permitAll)
	pay := call("bank/pay", testGrant("bank/pay"), nil)
	ask := grantTool("bank/pay")
	forAnother := askFor("bank/pay")
	start := startTask("release")
	baseline := call("bank/pay", nil, nil) // no grant that would have to agree with the principal
	for _, in := range []grants.Input{start, ask, forAnother, pay, baseline} {
		want(t, decide(t, s, in), "allow all")
	}
	other := grants.Principal{Issuer: "corp", Subject: "other"}
	for _, tt := range []struct {
		name string
		from grants.Input
		to   func(*grants.Input)
	}{
		{"nothing", pay, func(in *grants.Input) { *in = grants.Input{} }},
		{"no action", pay, func(in *grants.Input) { in.Action = "" }},
		{"parent action", pay, func(in *grants.Input) { in.Action = "call" }},
		{"unknown action", ask, func(in *grants.Input) { in.Action = "mint" }},
		{"action of another tool", pay, func(in *grants.Input) { in.Action = "call:reports/health" }},
		{"action without its tool", pay, func(in *grants.Input) { in.Tool = "" }},
		{"no principal", baseline, func(in *grants.Input) { in.Principal = grants.Principal{} }},
		{"no subject", baseline, func(in *grants.Input) { in.Principal.Subject = "" }},
		{"no issuer", baseline, func(in *grants.Input) { in.Principal.Issuer = "" }},
		{"slash in the issuer", baseline, func(in *grants.Input) { in.Principal.Issuer = "corp/x" }},
		{"no requester", baseline, func(in *grants.Input) { in.Requester = grants.Principal{} }},
		{"no time", baseline, func(in *grants.Input) { in.At = time.Time{} }},
		{"start: no task", start, func(in *grants.Input) { in.Task = nil }},
		{"start: no owner", start, func(in *grants.Input) { in.Task.Owner = grants.Principal{} }},
		{"start: a tool", start, func(in *grants.Input) { in.Tool = "bank/pay" }},
		{"start: a grant", start, func(in *grants.Input) { in.Grant = testGrant("bank/pay") }},
		{"start: arguments", start, func(in *grants.Input) { in.Args = map[string]any{} }},
		{"grant: no task", ask, func(in *grants.Input) { in.Task = nil }},
		{"grant: no grant", ask, func(in *grants.Input) { in.Grant = nil }},
		{"grant: of another task", ask, func(in *grants.Input) { in.Grant.Task = "t_2" }},
		{"grant: for another tool", ask, func(in *grants.Input) { in.Grant.Tool = "github/get_pr" }},
		{"grant: for another agent", ask, func(in *grants.Input) { in.Grant.Agent = other }},
		{"grant: arguments", ask, func(in *grants.Input) { in.Args = map[string]any{} }},
		{"ask for: no grant", forAnother, func(in *grants.Input) { in.Grant = nil }},
		{"ask for: no agent", forAnother, func(in *grants.Input) { in.Grant.Agent = grants.Principal{} }},
		{"ask for: of another task", forAnother, func(in *grants.Input) { in.Grant.Task = "t_2" }},
		{"ask for: oneself", forAnother, func(in *grants.Input) { in.Grant.Agent = lead }},
		{"ask for: the agent as principal", forAnother, func(in *grants.Input) { in.Principal = builder1 }},
		{"ask for: another requester", forAnother, func(in *grants.Input) { in.Requester = other }},
		{"ask for: a grant that another asked for", forAnother, func(in *grants.Input) { in.Grant.Requester = other }},
		{"ask for: arguments", forAnother, func(in *grants.Input) { in.Args = map[string]any{} }},
		{"revoke: no grant", ask, func(in *grants.Input) { in.Action, in.Grant = grants.ActionRevoke, nil }},
		{"call: grant without a task", pay, func(in *grants.Input) { in.Task = nil }},
		{"call: grant of another task", pay, func(in *grants.Input) { in.Grant.Task = "t_2" }},
		{"call: grant for another tool", pay, func(in *grants.Input) { in.Grant.Tool = "github/get_pr" }},
		{"call: another's grant", pay, func(in *grants.Input) { in.Grant.Agent = other }},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, decide(t, s, with(tt.from, tt.to)), "undecided") })
	}
	want(t, decide(t, s, with(ask, func(in *grants.Input) { in.Action, in.Principal = grants.ActionRevoke, other })), "allow all")
}

// Who asks for another needs a permit of its own, beside the agent's.
func TestAskFor(t *testing.T) {
	agentMay := `@id("agent") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource);` + "\n"
	askerMay := `@id("asker") permit (principal in T::AgentGroup::"orchestrators", action == T::Action::"ask_for", resource in T::ToolSet::"write")
		when { context.agent in T::AgentGroup::"ops" && context.agent.issuer == principal.issuer && context.requester == principal };` + "\n"
	bot := grants.Principal{Issuer: "corp", Subject: "bot", Groups: []string{"ops"}}
	for _, tt := range []struct {
		name, policies   string
		agent, requester grants.Principal
		tool             string
		want             []string // one for each question
	}{
		{"both", agentMay + askerMay, bot, lead, "bank/pay", []string{"allow agent", "allow asker"}},
		{"no policy for it", agentMay, bot, lead, "bank/pay", []string{"allow agent", "policy"}},
		{"asker alone", askerMay, bot, lead, "bank/pay", []string{"policy", "allow asker"}},
		{"not an asker", agentMay + askerMay, bot, grants.Principal{Issuer: "corp", Subject: "x", Groups: []string{"ops"}}, "bank/pay", []string{"allow agent", "policy"}},
		{"the agent's groups are not the asker's", agentMay + askerMay, grants.Principal{Issuer: "corp", Subject: "bot", Groups: []string{"orchestrators"}}, lead, "bank/pay", []string{"policy", "policy"}},
		{"another tool", agentMay + askerMay, bot, lead, "github/get_pr", []string{"allow agent", "policy"}},
		{"for itself", agentMay + askerMay, bot, bot, "bank/pay", []string{"allow agent"}},
		{"forbidden", agentMay + askerMay + `@id("no") forbid (principal, action == T::Action::"ask_for", resource == T::Tool::"bank/pay");`, bot, lead, "bank/pay", []string{"allow agent", "policy no"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := testGrant(tt.tool)
			g.Agent, g.Requester = tt.agent, tt.requester
			asks := g.Asks(testTask("release"), now)
			ds, err := policies(t, tt.policies).Decide(context.Background(), asks)
			if err != nil || len(ds) != len(tt.want) {
				t.Fatalf("%d decisions, %v", len(ds), err)
			}
			for i, d := range ds {
				want(t, d, tt.want[i])
			}
		})
	}
}

// Policy can demand a budget over an argument.
func TestSums(t *testing.T) {
	s := policies(t, permitAll+`@id("payments-are-summed") forbid (principal, action == T::Action::"grant", resource == T::Tool::"bank/pay")
		unless { context.sums.contains("/body/amount") };`)
	sum := func(args ...string) grants.Input {
		return with(grantTool("bank/pay"), func(in *grants.Input) {
			for _, arg := range args {
				in.Grant.Budgets = append(in.Grant.Budgets, grants.Budget{Key: "k" + arg, Arg: arg, Limit: 1})
			}
		})
	}
	want(t, decide(t, s, sum()), "policy payments-are-summed")
	want(t, decide(t, s, sum("")), "policy payments-are-summed") // a budget of calls
	want(t, decide(t, s, sum("/body/x")), "policy payments-are-summed")
	want(t, decide(t, s, sum("/body/amount")), "allow all")
	want(t, decide(t, s, sum("", "/body/x", "/body/amount", "/body/amount")), "allow all")
}

// Cedar skips a policy that errs; here it denies, and is named.
func TestErringPolicy(t *testing.T) {
	overflow := `context has input && context.input.body has x && context.input.body.x + 9223372036854775807 > 0`
	pay := func(x string) grants.Input {
		return call("bank/pay", nil, parse(t, `{"body": {"amount": 1, "to": "a", "x": `+x+`}}`))
	}
	for _, effect := range []string{"forbid", "permit"} {
		s := policies(t, permitAll+`@id("sum") `+effect+` (principal, action == T::Action::"call:bank/pay", resource) when { `+overflow+` };`+
			` @id("never") forbid (principal, action == T::Action::"call:bank/pay", resource) when { context has input && context.input.body.to == "evil" };`)
		want(t, decide(t, s, pay("1")), "policy_error sum")
		want(t, decide(t, s, call("bank/pay", nil, parse(t, `{"body": {"amount": 1, "to": "evil", "x": 1}}`))), "policy_error sum")
		want(t, decide(t, s, call("reports/health", nil, nil)), "allow all")
	}
	s := policies(t, permitAll+`@id("sum") forbid (principal, action == T::Action::"call:bank/pay", resource) when { `+overflow+` };`)
	want(t, decide(t, s, pay("0")), "policy sum")
	want(t, decide(t, s, pay("-9007199254740991")), "policy sum")
}

// An entity or an attribute that is missing, met while a policy is evaluated:
// a forbid that asks for it denies, and one that may ask whether it is there
// gets an answer.
func TestMissing(t *testing.T) {
	for _, tt := range []struct{ condition, want string }{
		{` T::Agent::"corp/ghost".subject == "ghost"`, "policy_error f"},
		{` T::Agent::"corp/ghost" has subject`, "allow all"},
		{` T::Agent::"corp/ghost" in T::AgentGroup::"ops"`, "allow all"},
		{` T::Agent::"corp/ghost".hasTag("team")`, "allow all"},
		{`principal.hasTag("nosuch") && principal.getTag("nosuch") == "x"`, "allow all"},
		{`context.requester.hasTag("team")`, "policy f"},
		{`context has max_calls && context.max_calls > 0`, "allow all"},
	} {
		s := policies(t, permitAll+`@id("f") forbid (principal, action == T::Action::"grant", resource) when { `+tt.condition+` };`)
		in := with(grantTool("bank/pay"), func(in *grants.Input) { in.Requester.Tags = map[string]string{"team": "a"} })
		want(t, decide(t, s, in), tt.want)
	}
	// Policies are told that what is required is there. An input without it,
	// and an agent that is none, are no questions.
	s := policies(t, permitAll)
	want(t, decide(t, s, call("bank/pay", nil, parse(t, `{"body": {"amount": 1}}`))), "unrepresentable")
	want(t, decide(t, s, with(grantTool("bank/pay"), func(in *grants.Input) { in.Task.Owner = grants.Principal{} })), "undecided")
}

func TestDeterminingPolicies(t *testing.T) {
	s := policies(t, `@id("z") forbid (principal, action, resource);
		@id("b") forbid (principal, action, resource);
		@id("a") forbid (principal, action, resource) when { false };`+"\n"+permitAll)
	for range 20 { // maps are in random order
		want(t, decide(t, s, call("bank/pay", nil, nil)), "policy b z")
	}
}

func TestValues(t *testing.T) {
	s := policies(t, permitAll)
	const ok = `"amount": 1, "to": "a"`
	body := func(members string) string { return `{"body": {` + members + `}}` }
	for _, tt := range []struct{ args, want string }{ // "": unrepresentable
		{body(ok), `{"body":{"amount":decimal("1.0"), "to":"a"}}`},
		{body(`"amount": 0.0001, "to": ""`), `{"body":{"amount":decimal("0.0001"), "to":""}}`},
		{body(`"amount": -1.25e1, "to": ""`), `{"body":{"amount":decimal("-12.5"), "to":""}}`},
		{body(`"amount": 0.00001, "to": ""`), ``},
		{body(`"amount": 1e300, "to": ""`), ``},
		{body(`"amount": "1", "to": ""`), ``},
		{body(`"amount": null, "to": ""`), ``},
		{body(`"amount": 1, "to": 1`), ``},
		{body(`"amount": 1, "to": true`), ``},
		{body(`"amount": 1, "to": ["a"]`), ``},
		{body(`"amount": 1, "to": {}`), ``},
		{body(`"amount": 1`), ``}, // "to" is required, and policies were told that it is there
		{body(ok + `, "nosuch": 1`), ``},
		{body(ok + `, "__entity": {"type": "Toolgrant::Agent", "id": "corp/root"}`), ``},
		{body(`"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}, "to": "a"`), ``},
		{body(`"amount": 1, "to": {"__entity": {"type": "Toolgrant::Agent", "id": "corp/root"}}`), ``},
		{body(ok + `, "urgent": false`), `{"body":{"amount":decimal("1.0"), "to":"a", "urgent":false}}`},
		{body(ok + `, "urgent": 0`), ``},
		{body(ok + `, "x": -5`), `{"body":{"amount":decimal("1.0"), "to":"a", "x":-5}}`},
		{body(ok + `, "x": 2.0`), `{"body":{"amount":decimal("1.0"), "to":"a", "x":2}}`},
		{body(ok + `, "x": 2.5`), ``},
		{body(ok + `, "x": true`), ``},
		{body(ok + `, "tags": []`), `{"body":{"amount":decimal("1.0"), "tags":[], "to":"a"}}`},
		{body(ok + `, "tags": ["b"]`), `{"body":{"amount":decimal("1.0"), "tags":["b"], "to":"a"}}`},
		{body(ok + `, "tags": ["b", "b"]`), ``},
		{body(ok + `, "tags": ["b", 1]`), ``},
		{body(ok + `, "tags": "b"`), ``},
		{body(ok + `, "tags": {}`), ``},
		{body(ok + `, "matrix": [[1, 2]]`), `{"body":{"amount":decimal("1.0"), "matrix":[[1, 2]], "to":"a"}}`},
		{body(ok + `, "matrix": [[1, 2], [2, 1]]`), ``}, // equal, as sets
		{body(ok + `, "lines": [{"sku": "a", "n": 1}]`), `{"body":{"amount":decimal("1.0"), "lines":[{"n":1, "sku":"a"}], "to":"a"}}`},
		{body(ok + `, "lines": [{"n": 1}]`), ``},
		{body(ok + `, "lines": [{"sku": "a", "m": 1}]`), ``},
		{body(ok + `, "lines": [null]`), ``},
		{body(ok + `, "memo": {"any": [null, 1e300]}`), `{"body":{"amount":decimal("1.0"), "to":"a"}}`},
		{body(ok + `, "extra": {"blob": {"any": null}, "ref": "r"}`), `{"body":{"amount":decimal("1.0"), "extra":{"ref":"r"}, "to":"a"}}`},
		{body(ok + `, "extra": {"blob": {}, "blub": {}}`), ``},
		{`{}`, ``},
		{`{"body": []}`, ``},
		{`{` + ok + `}`, ``},
		{`{"body": {` + ok + `}, "query": {}}`, ``},
		{`[]`, ``},
		{`"a"`, ``},
		{`1`, ``},
		{`false`, ``},
	} {
		t.Run(tt.args, func(t *testing.T) {
			in := call("bank/pay", nil, parse(t, tt.args))
			if tt.want == "" {
				want(t, decide(t, s, in), "unrepresentable")
				return
			}
			want(t, decide(t, s, in), "allow all")
			var q question
			if why := s.ask(&in, &q); why != grants.None {
				t.Fatal(why)
			}
			if got, _ := q.request.Context.Get("input"); got.String() != tt.want {
				t.Errorf("policy sees %s", got)
			}
		})
	}
	t.Run("foreign Go types", func(t *testing.T) {
		for _, v := range []any{1, 1.5, int64(1), json.Number("1"), map[string]string{}, []string{}, struct{}{}} {
			want(t, decide(t, s, call("bank/pay", nil, map[string]any{"body": map[string]any{"amount": v, "to": "a"}})), "unrepresentable")
		}
	})
}

func TestLargeArrays(t *testing.T) {
	s := policies(t, permitAll)
	pay := func(member, elements string) grants.Decision {
		return decide(t, s, call("bank/pay", nil, parse(t, `{"body": {"amount": 1, "to": "a", "`+member+`": [`+elements+`]}}`)))
	}
	list := func(n int, element func(i int) string) string {
		var all []string
		for i := range n {
			all = append(all, element(i))
		}
		return strings.Join(all, ",")
	}
	tag := func(i int) string { return fmt.Sprintf(`"%d"`, i) }
	want(t, pay("tags", list(maxArray, tag)), "allow all")
	want(t, pay("tags", list(maxArray+1, tag)), "unrepresentable")
	row := func(n int) func(int) string {
		return func(i int) string {
			return "[" + list(n, func(j int) string { return fmt.Sprint(i*1000 + j) }) + "]"
		}
	}
	want(t, pay("matrix", list(8, row(511))), "allow all") // 8 + 8 × 511 = 4096
	want(t, pay("matrix", list(8, row(512))), "unrepresentable")
}

// Every question has exactly the type that policies were validated for.
func TestQuestions(t *testing.T) {
	s := example(t)
	c := testCatalog(t)
	inputs, err := shapes(c)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := newSchema(c, inputs).Resolve()
	if err != nil {
		t.Fatal(err)
	}
	full := with(grantTool("bank/pay"), func(in *grants.Input) {
		in.Grant.CNF = grants.Digest{1}
		in.Grant.Actors = []string{"corp/a", "corp/b"}
		in.Grant.Constraints = []json.RawMessage{json.RawMessage(`{}`)}
		in.Grant.Budgets = []grants.Budget{{Key: "a", Arg: "/body/amount", Limit: 1}, {Key: "b", Limit: 7}, {Key: "c", Limit: 3}, {Key: "d", Limit: 5}}
		in.Grant.Expires = in.Grant.NotBefore.Add(90*time.Second + 1)
	})
	inside := with(call("bank/pay", full.Grant, parse(t, `{"body": {"amount": 1.5, "to": "a", "tags": ["x"]}}`)), func(in *grants.Input) {
		in.At = in.Grant.NotBefore.Add(10*time.Second + 1)
	})
	const requester = `"requester":Toolgrant::Agent::"corp/lead"`
	const task = `"task":{"id":"t_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead"`
	for name, tt := range map[string]struct {
		in   grants.Input
		want string // action, resource, context
	}{
		"start": {startTask("release"), `start_task TaskKind::"release" {` + requester + `, ` + task + `, "ttl":3600}}`},
		"start, part of a second": {with(startTask("x"), func(in *grants.Input) { in.Task.Kind, in.At = "release", now.Add(-1) }),
			`start_task TaskKind::"release" {` + requester + `, ` + task + `, "ttl":3601}}`},
		"end, late": {with(startTask("release"), func(in *grants.Input) { in.Action, in.At = grants.ActionEndTask, now.Add(2*time.Hour) }),
			`end_task TaskKind::"release" {` + requester + `, ` + task + `, "ttl":-3600}}`},
		"grant":       {grantTool("bank/pay"), `grant Tool::"bank/pay" {"bound":false, "constrained":false, "depth":0, ` + requester + `, "sums":[], ` + task + `}, "ttl":600}`},
		"grant, full": {full, `grant Tool::"bank/pay" {"bound":true, "constrained":true, "depth":2, "max_calls":3, ` + requester + `, "sums":["/body/amount"], ` + task + `}, "ttl":91}`},
		"ask for":     {askFor("bank/pay"), `ask_for Tool::"bank/pay" {"agent":Toolgrant::Agent::"corp/bot", "bound":false, "constrained":false, "depth":0, ` + requester + `, "sums":[], ` + task + `}, "ttl":600}`},
		"revoke": {with(full, func(in *grants.Input) { in.Action = grants.ActionRevoke }),
			`revoke Tool::"bank/pay" {"bound":true, "constrained":true, "depth":2, "max_calls":3, ` + requester + `, "sums":["/body/amount"], ` + task + `}, "ttl":91}`},
		"baseline": {call("reports/health", nil, parse(t, `{}`)), `call:reports/health Tool::"reports/health" {"input":{}, "requester":Toolgrant::Agent::"corp/bot"}`},
		"inside, input not known": {call("bank/pay", testGrant("bank/pay"), nil),
			`call:bank/pay Tool::"bank/pay" {"grant":{"age":60, "bound":false, "depth":0, "id":"g_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead", "task":"t_1", "ttl":540}, "requester":Toolgrant::Agent::"corp/bot"}`},
		"inside": {inside,
			`call:bank/pay Tool::"bank/pay" {"grant":{"age":11, "bound":true, "depth":2, "id":"g_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead", "task":"t_1", "ttl":80}, ` +
				`"input":{"body":{"amount":decimal("1.5"), "tags":["x"], "to":"a"}}, "requester":Toolgrant::Agent::"corp/bot"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var q question
			if why := s.ask(&tt.in, &q); why != grants.None {
				t.Fatal(why)
			}
			r := q.request
			got := fmt.Sprintf("%s %s %s", r.Action.ID, strings.TrimPrefix(r.Resource.String(), "Toolgrant::"), r.Context)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			checkRequest(t, schema, &q)
		})
	}
}

func checkRequest(t *testing.T, schema *resolved.Schema, q *question) {
	t.Helper()
	v := validate.New(schema)
	if err := v.Request(q.request); err != nil {
		t.Error(err)
	}
	for uid := range q.entities.base {
		if e, _ := q.entities.Get(uid); uid.Type != actionType {
			if err := v.Entity(e); err != nil {
				t.Errorf("%s: %v", uid, err)
			}
		}
	}
	e, ok := q.entities.Get(q.request.Principal)
	if !ok {
		t.Fatal("no entity for the principal")
	}
	if err := v.Entity(e); err != nil {
		t.Error(err)
	}
}

// Who an agent is comes from its identity, and from entities.json beside it.
func TestAgents(t *testing.T) {
	load := func(condition string) *Set {
		t.Helper()
		entities := `[
			{"uid": {"type": "Toolgrant::AgentGroup", "id": "top"}},
			{"uid": {"type": "Toolgrant::AgentGroup", "id": "ci"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "top"}]},
			{"uid": {"type": "Toolgrant::Agent", "id": "corp/declared"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "ci"}]}
		]`
		text := long(`@id("p") permit (principal, action == T::Action::"grant", resource) when { ` + condition + ` };`)
		s, err := Load(config(t, "p.cedar", text, "entities.json", entities))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	agent := func(subject string, groups ...string) grants.Principal {
		return grants.Principal{Issuer: "corp", Subject: subject, Groups: groups, Tags: map[string]string{"team": "a"}}
	}
	ask := func(principal, requester, owner grants.Principal) grants.Input {
		return with(grantTool("bank/pay"), func(in *grants.Input) {
			in.Principal, in.Grant.Agent, in.Requester, in.Task.Owner = principal, principal, requester, owner
		})
	}
	nobody := agent("nobody")
	for _, tt := range []struct {
		condition string
		in        grants.Input
		want      bool
	}{
		{`principal in T::AgentGroup::"ci"`, ask(agent("a", "ci"), nobody, nobody), true},
		{`principal in T::AgentGroup::"top"`, ask(agent("a", "ci"), nobody, nobody), true},
		{`principal in T::AgentGroup::"ci"`, ask(agent("a", "top"), nobody, nobody), false},
		{`principal in T::AgentGroup::"ci"`, ask(agent("a", "other/ci"), nobody, nobody), false},
		{`principal in T::AgentGroup::"top"`, ask(agent("declared"), nobody, nobody), true},
		{`principal in T::AgentGroup::"ops"`, ask(agent("declared", "ops"), nobody, nobody), true},
		{`principal in T::AgentGroup::"top"`, ask(agent("declared", "ops"), nobody, nobody), true},
		{`context.requester in T::AgentGroup::"ci"`, ask(nobody, agent("a", "ci"), nobody), true},
		{`context.task.owner in T::AgentGroup::"ci"`, ask(nobody, nobody, agent("a", "ci")), true},
		{`context.task.owner in T::AgentGroup::"ci"`, ask(agent("b", "ci"), agent("c", "ci"), agent("a")), false},
		// One agent in several parts: as it is now.
		{`principal in T::AgentGroup::"ci"`, ask(agent("a"), nobody, agent("a", "ci")), false},
		{`principal in T::AgentGroup::"ci"`, ask(agent("a"), agent("a", "ci"), agent("a", "ci")), false},
		{`context.task.owner in T::AgentGroup::"ci"`, ask(agent("a", "ci"), nobody, agent("a")), true},
		{`context.requester == principal`, ask(agent("a"), agent("a"), nobody), true},
		{`context.requester == principal`, ask(agent("a"), agent("b"), nobody), false},
		{`T::Agent::"corp/declared" in T::AgentGroup::"top"`, ask(nobody, nobody, nobody), true},
		{`T::Agent::"corp/declared".subject == "declared"`, ask(nobody, nobody, nobody), true},
		{`principal.issuer == "corp" && principal.subject == "a/b"`, ask(agent("a/b"), nobody, nobody), true},
		{`principal == T::Agent::"corp/a/b"`, ask(agent("a/b"), nobody, nobody), true},
		{`principal.hasTag("team") && principal.getTag("team") == "a"`, ask(nobody, nobody, nobody), true},
		{`principal.hasTag("role")`, ask(nobody, nobody, nobody), false},
		{`resource in T::ToolServer::"bank" && resource in T::ToolSet::"write"`, ask(nobody, nobody, nobody), true},
		{`resource in T::ToolSet::"read"`, ask(nobody, nobody, nobody), false},
	} {
		t.Run(tt.condition, func(t *testing.T) {
			if got := decide(t, load(tt.condition), tt.in); got.Allow != tt.want || got.Reason == grants.PolicyError {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestBatch(t *testing.T) {
	s := example(t)
	in := []grants.Input{startTask("release"), {}, call("github/get_pr", nil, nil)}
	got, err := s.Decide(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	wanted := []grants.Decision{
		{Allow: true, Policies: []string{"orchestrators-start-tasks"}, Revision: s.Revision()},
		{Reason: grants.Undecided, Revision: s.Revision()},
		{Allow: true, Policies: []string{"reads-need-no-grant"}, Revision: s.Revision()},
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Error(diff)
	}
	if got, err := s.Decide(context.Background(), nil); err != nil || len(got) != 0 {
		t.Errorf("an empty batch: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got, err := s.Decide(ctx, in); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("cancelled: %v, %v", got, err)
	}
}

func TestConcurrent(t *testing.T) {
	s := example(t)
	in := []grants.Input{
		startTask("release"), grantTool("github/merge_pr"), call("github/get_pr", nil, nil),
		call("github/merge_pr", testGrant("github/merge_pr"), parse(t, `{"body": {"number": 1, "method": "rebase"}}`)),
	}
	first, err := s.Decide(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				got, err := s.Decide(context.Background(), in)
				if diff := cmp.Diff(first, got); err != nil || diff != "" {
					t.Errorf("%v, %s", err, diff)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzDecideInput: no input panics, gets past a forbid, or is allowed with
// something in it that policy did not see.
func FuzzDecideInput(f *testing.F) {
	for _, seed := range []string{
		`{"body": {"amount": 1, "to": "a"}}`, `{"body": {"amount": 100.0001, "to": "a"}}`,
		`{"body": {"amount": 1e2, "to": "evil"}}`, `{"body": {"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}, "to": "a"}}`,
		`{"body": {"amount": 1, "to": {"__entity": {"type": "Toolgrant::Agent", "id": "corp/a"}}}}`,
		`{"body": {"amount": 1, "to": "a", "memo": null, "extra": {"blob": [1, 1]}}}`,
		`{"body": {"amount": 1, "to": "a", "tags": ["a", "evil"], "matrix": [[1], [2, 3]], "lines": [{"sku": "a"}], "x": 3}}`, `[]`, `null`,
	} {
		f.Add([]byte(seed))
	}
	s := policies(f, permitAll+`@id("much") forbid (principal, action == T::Action::"call:bank/pay", resource)
		unless { context has input && context.input.body.amount.lessThanOrEqual(decimal("100.0")) };
		@id("evil") forbid (principal, action == T::Action::"call:bank/pay", resource)
		when { context has input && (context.input.body.to == "evil" || context.input.body has tags && context.input.body.tags.contains("evil")) };`)
	f.Fuzz(func(t *testing.T, text []byte) {
		args, err := strictjson.Parse(text, strictjson.Limits{})
		if err != nil {
			return
		}
		if !decide(t, s, call("bank/pay", testGrant("bank/pay"), args)).Allow {
			return
		}
		body, ok := args.(map[string]any)["body"].(map[string]any)
		if !ok || len(args.(map[string]any)) != 1 {
			t.Fatalf("allowed %s", text)
		}
		amount, ok := body["amount"].(strictjson.Number)
		value, exact := new(big.Rat).SetString(string(amount))
		if !ok || !exact || value.Cmp(big.NewRat(100, 1)) > 0 {
			t.Fatalf("allowed %s", text)
		}
		if to, ok := body["to"].(string); !ok || to == "evil" {
			t.Fatalf("allowed %s", text)
		}
		tags, _ := body["tags"].([]any)
		for _, tag := range tags {
			if s, ok := tag.(string); !ok || s == "evil" {
				t.Fatalf("allowed %s", text)
			}
		}
		delete(body, "memo") // opaque
		if extra, ok := body["extra"].(map[string]any); ok {
			delete(extra, "blob")
		}
		for name, member := range body {
			switch name {
			case "amount", "to", "urgent", "x", "tags", "matrix", "lines", "extra":
			default:
				t.Fatalf("allowed %q in %s", name, text)
			}
			if hasNull(member) {
				t.Fatalf("allowed a null in %s", text)
			}
		}
	})
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	}
	return false
}

var _ cedargo.EntityGetter = (*view)(nil)
