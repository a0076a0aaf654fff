package cedar

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	cedargo "github.com/cedar-policy/cedar-go"
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

var _ cedargo.EntityGetter = (*view)(nil)
