package cedar

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
)

// told prints findings shortly, without those of the codes.
func told(all []Finding, without ...string) []string {
	var out []string
	for _, f := range all {
		skip := false
		for _, code := range without {
			skip = skip || f.Code == code
		}
		if !skip {
			out = append(out, fmt.Sprintf("%s %s %d:%d %s", f.Code, f.Policy, f.Line, f.Column, f.Text))
		}
	}
	return out
}

func TestLint(t *testing.T) {
	const (
		start   = `@id("start") permit (principal in T::AgentGroup::"orchestrators", action == T::Action::"start_task", resource);` + "\n"
		grant   = `@id("grant") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource);` + "\n"
		grant0  = `@id("grant") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource == T::Tool::"bank/pay");` + "\n"
		calls   = `@id("calls") permit (principal, action in T::Action::"call", resource) when { context has grant };` + "\n"
		base    = start + grant + calls
		writers = "(in the set write, or in neither read nor init)"
	)
	for _, tt := range []struct {
		name, policies string
		want           []string
	}{
		{"all in order", base, nil},
		// never-holds, always-errs
		{"false", base + `@id("a") forbid (principal, action, resource) when { false };`, []string{"never-holds a 4:1 its conditions never hold, whatever is asked"}},
		{"not true", base + `  @id("a") permit (principal, action, resource) unless { true };`, []string{"never-holds a 4:3 its conditions never hold, whatever is asked"}},
		{"what the action's context never has", base + `@id("a") permit (principal, action == T::Action::"call:bank/pay", resource) when { !(context has grant) && context has grant };`,
			[]string{`never-holds a 4:1 its conditions never hold: not (context has grant) and context has grant contradict each other`}},
		{"another tool than the scope's", base + `@id("a") forbid (principal, action == T::Action::"grant", resource in T::ToolServer::"github") when { resource == T::Tool::"bank/pay" };`,
			[]string{"never-holds a 4:1 its conditions never hold, whatever is asked"}},
		{"one of the scope's tools", base + `@id("a") forbid (principal, action == T::Action::"grant", resource in T::ToolServer::"github") when { resource == T::Tool::"github/get_pr" };`, nil},
		{"another kind than the scope's", base + `@id("a") forbid (principal, action == T::Action::"start_task", resource == T::TaskKind::"release") when { resource == T::TaskKind::"hotfix" };`,
			[]string{"never-holds a 4:1 its conditions never hold, whatever is asked"}},
		{"not of a kind that is declared", base + `@id("a") forbid (principal, action == T::Action::"start_task", resource) unless { resource in [ T::TaskKind::"release", T::TaskKind::"hotfix"] };`, nil},
		{"two kinds", base + `@id("a") forbid (principal, action == T::Action::"grant", resource) when { context.task.kind == "release" } when { context.ttl > 3 && "hotfix" == context.task.kind };`,
			[]string{`never-holds a 4:1 its conditions never hold: context.task.kind == "release" and "hotfix" == context.task.kind contradict each other`}},
		{"one of two kinds, and neither", base + `@id("a") forbid (principal, action == T::Action::"grant", resource) when { ["release", "hotfix"].contains(context.task.kind) && context.task.kind == "release" && context.task.kind != "release" };`,
			[]string{`never-holds a 4:1 its conditions never hold: context.task.kind == "release" and not (context.task.kind == "release") contradict each other`}},
		{"over and under", base + `@id("a") forbid (principal, action == T::Action::"grant", resource) when { context.ttl <= 600 } unless { context.depth > 1 || 600 >= context.ttl };`,
			[]string{`never-holds a 4:1 its conditions never hold: context.ttl <= 600 and not (600 >= context.ttl) contradict each other`}},
		{"over and at", base + `@id("a") forbid (principal, action == T::Action::"grant", resource) when { context.ttl <= 600 && 600 <= context.ttl && context.depth > 1 && context.depth < 3 };`, nil},
		{"errs", base + `@id("a") forbid (principal, action, resource) when { 1 + 9223372036854775807 > 0 };`, []string{"always-errs a 4:1 its conditions err whatever is asked, and an error denies"}},
		{"errs in one case", base + `@id("a") forbid (principal, action, resource) when { principal.subject == "x" && 1 + 9223372036854775807 > 0 };`, []string{"never-holds a 4:1 its conditions never hold, whatever is asked"}},
		// shadowed
		{"always forbidden", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource == T::Tool::"bank/pay");
			@id("f") forbid (principal, action in [ T::Action::"revoke", T::Action::"ask_for"], resource in T::ToolServer::"bank");`,
			[]string{`shadowed a 4:1 it never permits anything: what it permits is always forbidden by "f" (p.cedar:5:4)`}},
		{"always forbidden, by two", base + `@id("a") permit (principal in T::AgentGroup::"ops", action in [ T::Action::"revoke", T::Action::"ask_for"], resource == T::Tool::"bank/pay");
			@id("f") forbid (principal, action == T::Action::"revoke", resource);
			@id("g") forbid (principal in T::AgentGroup::"staff", action == T::Action::"ask_for", resource);`,
			[]string{`shadowed a 4:1 it never permits anything: what it permits is always forbidden by "f" (p.cedar:5:4) and "g" (p.cedar:6:4)`}},
		{"forbidden to a narrower group", base + `@id("a") permit (principal in T::AgentGroup::"staff", action == T::Action::"revoke", resource == T::Tool::"bank/pay");
			@id("f") forbid (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource);`, nil},
		{"forbidden on a condition", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource == T::Tool::"bank/pay");
			@id("f") forbid (principal, action == T::Action::"revoke", resource) when { context.bound };`, nil},
		{"forbidden without a grant", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"call:bank/pay", resource) unless { context has grant };
			@id("f") forbid (principal, action in T::Action::"call", resource) unless { context has grant };`,
			[]string{`shadowed a 4:1 it never permits anything: what it permits is always forbidden by "f" (p.cedar:5:4)`}},
		// redundant
		{"permitted all the same", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource == T::Tool::"bank/pay") when { context.ttl < 60 };`,
			[]string{`redundant a 4:1 it adds nothing: what it permits is permitted all the same by "grant" (p.cedar:2:1)`}},
		{"in a grant", base + `@id("a") permit (principal, action == T::Action::"call:bank/pay", resource) when { context has grant && context.grant.ttl > 5 };`,
			[]string{`redundant a 4:1 it adds nothing: what it permits is permitted all the same by "calls" (p.cedar:3:1)`}},
		{"the same twice: the later", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource);`,
			[]string{`redundant a 4:1 it adds nothing: what it permits is permitted all the same by "grant" (p.cedar:2:1)`}},
		{"permitted to a wider group alone", base + `@id("a") permit (principal in T::AgentGroup::"staff", action == T::Action::"grant", resource);`,
			[]string{`redundant grant 2:1 it adds nothing: what it permits is permitted all the same by "a" (p.cedar:4:1)`}},
		{"permitted, or forbidden", base + `@id("a") permit (principal in T::AgentGroup::"ops", action in [ T::Action::"grant", T::Action::"revoke"], resource);
			@id("f") forbid (principal, action == T::Action::"revoke", resource);`,
			[]string{`redundant a 4:1 it adds nothing: what it permits is permitted all the same by "grant" (p.cedar:2:1), or always forbidden by "f" (p.cedar:5:4)`}},
		{"a copy that is narrowed", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource) when { context.requester == context.task.owner };
			@id("b") permit (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource)
				when { context.requester  ==  context.task.owner };
			@id("c") permit (principal in T::AgentGroup::"staff", action == T::Action::"revoke", resource) when { context.requester == context.task.owner };
			@id("d") permit (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource) unless { context.requester == context.task.owner };`,
			[]string{`redundant b 5:4 it adds nothing: "a" (p.cedar:4:1) says the same`}},
		{"copies of a forbid", base + `@id("a") @advice("no") forbid (principal, action == T::Action::"grant", resource) when { context.depth > 3 };
			@id("b") forbid (principal, action == T::Action::"grant", resource) when { context.depth > 3 };
			@id("c") forbid (principal, action == T::Action::"grant", resource) when { context.depth > 4 };
			@id("d") forbid (principal, action == T::Action::"grant", resource) when { context.depth > 3 };`,
			[]string{`redundant b 5:4 it adds nothing: "a" (p.cedar:4:1) says the same`, `redundant d 7:4 it adds nothing: "a" (p.cedar:4:1) says the same`}},
		{"a permit and a forbid of one text", base + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource) when { context.bound };
			@id("b") forbid (principal in T::AgentGroup::"ops", action == T::Action::"revoke", resource) when { context.bound };`, nil},
		// baseline-writes
		{"a baseline that writes", base + `@id("a") permit (principal in T::AgentGroup::"ops", action in T::Action::"call", resource is T::Tool in T::ToolServer::"github");`,
			[]string{"baseline-writes a 4:1 it permits, without a grant, what may write: github/merge_pr " + writers}},
		{"a baseline that reads", base + `@id("a") permit (principal, action in T::Action::"call", resource in T::ToolSet::"read");`, nil},
		{"a baseline that writes, forbidden", base + `@id("a") permit (principal, action in T::Action::"call", resource);
			@id("f") forbid (principal, action in T::Action::"call", resource in T::ToolSet::"write") unless { context has grant };`,
			nil},
		// nothing-grants
		{"nothing grants what is not named", start + calls + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource in T::ToolServer::"bank");`, nil},
		{"nothing grants what is to be called", start + grant0 + calls + `@id("a") permit (principal, action in T::Action::"call", resource in T::ToolServer::"github") when { context has grant && context.grant.bound };`,
			[]string{"nothing-grants  0:0 no policy can grant github/get_pr, github/merge_pr, and none permits it without a grant, so that nobody can call it",
				`redundant a 4:1 it adds nothing: what it permits is permitted all the same by "calls" (p.cedar:3:1)`}},
		{"nothing grants what is to be asked for", start + grant0 + calls + `@id("a") permit (principal, action == T::Action::"ask_for", resource == T::Tool::"github/get_pr");`,
			[]string{"nothing-grants  0:0 no policy can grant github/get_pr, and none permits it without a grant, so that nobody can call it"}},
		{"nothing grants what is to be revoked, and it needs no grant", start + grant0 + calls + `@id("a") permit (principal, action == T::Action::"revoke", resource == T::Tool::"github/get_pr");
			@id("b") permit (principal, action in T::Action::"call", resource == T::Tool::"github/get_pr");`, nil},
		{"what is granted is forbidden", start + calls + `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource in T::ToolServer::"bank");
			@id("f") forbid (principal, action == T::Action::"grant", resource);`,
			[]string{`nothing-grants a 3:1 it would grant bank/pay, and no policy can: "f" (p.cedar:4:4) always forbids it`,
				"nothing-grants  0:0 no policy can grant github/get_pr, github/merge_pr, reports/export, reports/health, and none permits it without a grant, so that nobody can call it",
				`shadowed a 3:1 it never permits anything: what it permits is always forbidden by "f" (p.cedar:4:4)`}},
		{"an exception", base + `@id("f") forbid (principal, action == T::Action::"grant", resource == T::Tool::"bank/pay");`, nil},
		{"no grants at all", `@id("a") permit (principal, action in T::Action::"call", resource in T::ToolSet::"init");`, nil},
		{"calls need what nothing gives", calls, []string{"nothing-grants  0:0 no policy can grant bank/pay, github/get_pr, github/merge_pr, reports/export, reports/health, and none permits it without a grant, so that nobody can call it"}},
		// never-called
		{"granted and not called", start + grant + `@id("a") permit (principal, action in T::Action::"call", resource in T::ToolServer::"github") when { context has grant };`,
			[]string{"never-called  0:0 no policy permits to call bank/pay, reports/export, reports/health under a grant, which policies can give"}},
		{"granted and forbidden to be called", base + `@id("f") forbid (principal, action == T::Action::"call:bank/pay", resource);`,
			[]string{"never-called  0:0 no policy permits to call bank/pay under a grant, which policies can give"}},
		{"called only without a grant", start + grant + `@id("a") permit (principal, action in T::Action::"call", resource in T::ToolSet::"read") unless { context has grant };` + `@id("b") permit (principal, action in T::Action::"call", resource) when { context has grant && !(resource in T::ToolSet::"read") };`,
			[]string{"never-called  0:0 no policy permits to call github/get_pr under a grant, which policies can give"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, told(lintSet(t, tt.policies).Findings())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// lintSet loads policies with groups of which "ops" is in "staff".
func lintSet(t *testing.T, text string) *Set {
	t.Helper()
	const entities = `[{"uid": {"type": "Toolgrant::TaskKind", "id": "release"}}, {"uid": {"type": "Toolgrant::TaskKind", "id": "hotfix"}},
		{"uid": {"type": "Toolgrant::AgentGroup", "id": "orchestrators"}}, {"uid": {"type": "Toolgrant::AgentGroup", "id": "staff"}}, {"uid": {"type": "Toolgrant::AgentGroup", "id": "ops"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "staff"}]},
		{"uid": {"type": "Toolgrant::AgentGroup", "id": "night"}}, {"uid": {"type": "Toolgrant::AgentGroup", "id": "day"}},
		{"uid": {"type": "Toolgrant::Agent", "id": "corp/x"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "night"}, {"type": "Toolgrant::AgentGroup", "id": "day"}]}]`
	s, err := Load(config(t, "p.cedar", long(text), "entities.json", entities))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTwoRoles(t *testing.T) {
	const calls = `@id("calls") permit (principal, action in T::Action::"call", resource) when { context has grant };` + "\n"
	start := func(principal, resource, rest string) string {
		return `@id("s") permit (` + principal + `, action == T::Action::"start_task", ` + resource + ") " + rest + ";\n"
	}
	grant := func(principal, rest string) string {
		return `@id("g") permit (` + principal + `, action == T::Action::"grant", resource) ` + rest + ";\n"
	}
	forbid := func(principal, action, rest string) string {
		return `@id("f") forbid (` + principal + `, action == T::Action::"` + action + `", resource) ` + rest + ";\n"
	}
	group := func(name string) string { return `principal in T::AgentGroup::"` + name + `"` }
	const any, at = "principal", "resource"
	for _, tt := range []struct {
		name, policies string
		both           bool
	}{
		{"anybody both", start(any, at, "") + grant(any, ""), true},
		{"a group both", start(group("ops"), at, "") + grant(group("ops"), ""), true},
		{"a group and a wider one", start(group("staff"), at, "") + grant(group("ops"), ""), true},
		{"a group and a narrower one", start(group("ops"), at, "") + grant(group("staff"), ""), true},
		{"two groups of which nothing is known", start(group("orchestrators"), at, "") + grant(group("ops"), ""), false},
		{"two groups of one agent", start(group("night"), at, "") + grant(group("day"), ""), true},
		{"one policy", `@id("g") permit (principal, action in [ T::Action::"grant", T::Action::"start_task"], resource);` + "\n", true},
		{"an agent", start(`principal == T::Agent::"corp/x"`, at, "") + grant(group("day"), ""), true},
		{"an agent of another group", start(`principal == T::Agent::"corp/x"`, at, "") + grant(group("ops"), ""), false},
		{"a group in the condition", start(any, at, `when { principal in T::AgentGroup::"orchestrators" && context.task.owner == principal }`) + grant(group("ops"), ""), false},
		{"one group in a condition", start(any, at, `when { principal in T::AgentGroup::"ops" && context.task.owner == principal }`) + grant(group("ops"), ""), true},
		{"some of them", start(group("ops"), at, `when { principal.subject like "lead-*" }`) + grant(group("ops"), ""), false},
		{"started by others", start(group("ops"), at, "") + grant(group("ops"), `when { context.task.owner in T::AgentGroup::"orchestrators" }`), false},
		{"not the owner", start(any, at, "") + grant(any, "when { principal != context.task.owner }"), false},
		{"not the owner, by unless", start(any, at, "") + grant(any, "unless { context.task.owner == principal || context.ttl > 9 }"), false},
		{"not the owner, by a negation", start(any, at, "") + grant(any, "when { !(context.task.owner == principal) }"), false},
		{"not who asks", start(any, at, "") + grant(any, "when { principal != context.requester }"), false},
		{"the owner alone", start(any, at, "") + grant(any, "when { principal == context.task.owner }"), true},
		{"not the owner, or else", start(any, at, "") + grant(any, "when { principal != context.task.owner || context.ttl < 9 }"), false}, // narrowed by what is not understood
		{"forbidden to the owner", start(any, at, "") + grant(any, "") + `@id("f") forbid (principal, action == T::Action::"grant", resource) when { principal == context.task.owner };`, false},
		{"forbidden to some owners", start(any, at, "") + grant(any, "") + `@id("f") forbid (principal, action == T::Action::"grant", resource) when { principal == context.task.owner && context.ttl > 9 };`, true},
		{"forbidden to the owner for some tools", start(any, at, "") + grant(any, "") + `@id("f") forbid (principal, action == T::Action::"grant", resource in T::ToolSet::"write") when { principal == context.task.owner };`, true},
		{"other kinds", start(any, `resource == T::TaskKind::"release"`, "") + grant(any, `when { context.task.kind == "hotfix" }`), false},
		{"one kind", start(any, `resource == T::TaskKind::"release"`, "") + grant(any, `when { ["hotfix", "release"].contains(context.task.kind) }`), true},
		{"any but another kind", start(any, `resource == T::TaskKind::"release"`, "") + grant(any, `when { context.task.kind != "hotfix" }`), true},
		{"no start", grant(any, ""), false},
		{"forbidden to the owner for the last tool", start(any, at, "") + grant(any, "") + `@id("f") forbid (principal, action == T::Action::"grant", resource == T::Tool::"reports/health") when { principal == context.task.owner };`, true},
		{"an agent in a condition", start(any, at, `when { T::Agent::"corp/y" == principal || principal in T::AgentGroup::"night" }`) + grant(`principal == T::Agent::"corp/y"`, ""), true},
		{"all but one agent in a condition", start(any, at, `unless { principal == T::Agent::"corp/y" }`) + grant(`principal == T::Agent::"corp/y"`, ""), false},
		{"a set of groups", start(any, at, `when { principal in [ T::AgentGroup::"ops", T::AgentGroup::"night"] }`) + grant(group("ops"), ""), true},
		{"a set of other groups", start(any, at, `when { principal in [ T::AgentGroup::"orchestrators", T::AgentGroup::"night"] }`) + grant(group("ops"), ""), false},
		{"one group or another", start(any, at, `when { principal in T::AgentGroup::"ops" || principal in T::AgentGroup::"night" }`) + grant(group("ops"), ""), true},
		{"other groups", start(any, at, `when { principal in T::AgentGroup::"orchestrators" || principal in T::AgentGroup::"night" }`) + grant(group("ops"), ""), false},
		{"all but another group", start(any, at, `unless { principal in T::AgentGroup::"night" }`) + grant(group("ops"), ""), true},
		{"all but the group", start(any, at, `unless { principal in T::AgentGroup::"ops" }`) + grant(group("ops"), ""), false},
		{"all but a wider group", start(any, at, `unless { principal in T::AgentGroup::"staff" }`) + grant(group("ops"), ""), false},
		{"all but a narrower group", start(any, at, `unless { principal in T::AgentGroup::"ops" }`) + grant(group("staff"), ""), true},
		{"all but an agent", start(any, at, `unless { principal == T::Agent::"corp/x" }`) + grant(group("day"), ""), true},
		{"a condition that names no one", start(group("ops"), at, `when { context.task.ttl > 0 }`) + grant(group("ops"), `when { context.ttl < 600 }`), true},
		{"a group in the scope, and a wider one", start(group("ops"), at, `when { principal in T::AgentGroup::"staff" }`) + grant(group("ops"), ""), true},
		{"two groups, and one agent in both", start(group("night"), at, `when { principal in T::AgentGroup::"day" }`) + grant(`principal == T::Agent::"corp/x"`, ""), true},
		{"two groups, and nobody in both", start(group("night"), at, `when { principal in T::AgentGroup::"ops" }`) + grant(group("ops"), ""), false},
		{"the group's owners forbidden", start(group("ops"), at, "") + grant(group("ops"), "") + forbid(group("ops"), "grant", "when { principal == context.task.owner }"), false},
		{"a wider group's owners forbidden", start(group("ops"), at, "") + grant(group("ops"), "") + forbid(group("staff"), "grant", "when { principal == context.task.owner }"), false},
		{"a narrower group's owners forbidden", start(group("staff"), at, "") + grant(group("staff"), "") + forbid(group("ops"), "grant", "when { principal == context.task.owner }"), true},
		{"another group's owners forbidden", start(group("ops"), at, "") + grant(group("ops"), "") + forbid(group("night"), "grant", "when { principal == context.task.owner }"), true},
		{"the starters' group forbidden to be granted", start(group("ops"), at, "") + grant(any, "") + forbid(group("ops"), "grant", ""), false},
		{"the granted group forbidden to start", start(any, at, "") + grant(group("ops"), "") + forbid(group("ops"), "start_task", ""), false},
		{"all but a group forbidden to start", start(any, at, "") + grant(group("ops"), "") + forbid(any, "start_task", `unless { principal in T::AgentGroup::"night" }`), false},
		{"forbidden to start on another condition", start(any, at, "") + grant(group("ops"), "") + forbid(group("ops"), "start_task", "when { context.task.ttl > 0 }"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, f := range lintSet(t, tt.policies+calls).Findings() {
				if f.Code == CodeTwoRoles {
					got = append(got, f.Policy)
				} else {
					t.Errorf("beside it: %s", f)
				}
			}
			var want []string
			if tt.both {
				want = []string{"g"}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Of what the project shows, nothing is told.
func TestExamplesAreQuiet(t *testing.T) {
	for _, name := range []string{"reports", "mcp"} {
		root := filepath.Join("..", "examples", name)
		c, err := catalog.Load(filepath.Join(root, "tools.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Load(Config{Dir: filepath.Join(root, "policies"), Catalog: c, Groups: []string{"orchestrators", "reporting", "assistants"}, Aliases: []string{"corp"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Findings() {
			if f.Code != CodeUnnamedGroup { // the groups of this test
				t.Errorf("%s: %s", name, f)
			}
		}
	}
}

// What a manifest has is meant to be granted.
func TestLintOfManifests(t *testing.T) {
	s := bounded(t, `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource in T::ToolServer::"github");
@id("b") permit (principal in T::AgentGroup::"orchestrators", action == T::Action::"start_task", resource);
@id("c") permit (principal, action in T::Action::"call", resource) when { context has grant };`)
	want := []string{"nothing-grants  0:0 no policy can grant bank/pay, and none permits it without a grant, so that nobody can call it"}
	if diff := cmp.Diff(want, told(s.Findings())); diff != "" {
		t.Error(diff)
	}
}

// Decimals are compared as numbers are: in steps of a ten-thousandth.
func TestConflictOfDecimals(t *testing.T) {
	for _, tt := range []struct {
		conditions string
		found      bool
	}{
		{`context.x.greaterThan(decimal("100.0")) && context.x.lessThan(decimal("10.0"))`, true},
		{`context.x.greaterThan(decimal("9.9999")) && context.x.lessThan(decimal("10.0"))`, true},
		{`context.x.greaterThan(decimal("9.9998")) && context.x.lessThan(decimal("10.0"))`, false},
		{`context.x.greaterThanOrEqual(decimal("9.9999")) && context.x.lessThan(decimal("10.0"))`, false},
		{`context.x.greaterThanOrEqual(decimal("10.0")) && context.x.lessThanOrEqual(decimal("10.0"))`, false},
		{`context.x.greaterThanOrEqual(decimal("10.0001")) && context.x.lessThanOrEqual(decimal("10.0"))`, true},
		{`context.x.greaterThan(decimal("-0.5")) && context.x.lessThan(decimal("-0.6"))`, true},
		{`context.x.greaterThan(decimal("-0.6")) && context.x.lessThan(decimal("-0.5"))`, false},
		{`context.x == decimal("2.0") && context.x.lessThan(decimal("10.0"))`, false},
		{`context.x == decimal("2.5") && decimal("2.05").greaterThan(context.x)`, true},
		{`context.x == decimal("1.0") && context.x == decimal("1.00")`, false},
		{`context.x.lessThan(decimal("10.0")) && !(context.x.lessThan(decimal("10.0")) || context.x.lessThan(decimal("5.0")))`, true},
		{`!(context.x.lessThan(decimal("10.0"))) && context.x.lessThan(decimal("9.0"))`, true},
		{`context.x.greaterThan(decimal("100.0")) && context.y.lessThan(decimal("10.0"))`, false},
		{`context.x.greaterThan(decimal("922337203685477.5807")) && context.x.lessThan(decimal("-922337203685477.5808"))`, false}, // at the ends of the type
		{`context.x.isInRange(ip("10.0.0.0/8")) && !context.x.isInRange(ip("11.0.0.0/8"))`, false},
	} {
		all, err := parsePolicies([]file{{"p.cedar", []byte(`@id("a") permit (principal, action, resource) when { ` + tt.conditions + ` };`)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, found := conflict(all[0].ast()); found != tt.found {
			t.Errorf("%s: found %v", tt.conditions, found)
		}
	}
}

func TestDenied(t *testing.T) {
	s := policies(t, `@id("a") permit (principal, action == T::Action::"grant", resource in T::ToolServer::"github");
@id("b") permit (principal, action in T::Action::"call", resource in T::ToolSet::"init");
@id("c") permit (principal, action in T::Action::"call", resource) when { context has grant };
@id("d") permit (principal, action == T::Action::"grant", resource == T::Tool::"bank/pay");
@id("e") forbid (principal, action == T::Action::"grant", resource == T::Tool::"bank/pay");`)
	got, ok := s.Denied()
	if diff := cmp.Diff([]string{"bank/pay", "reports/export"}, got); diff != "" || !ok {
		t.Errorf("%v: %s", ok, diff)
	}
}

// However large a set is, looking it over is bounded, and says when it gave up.
func TestLintIsBounded(t *testing.T) {
	var text strings.Builder
	for i := range maxPolicies {
		fmt.Fprintf(&text, "@id(\"p%d\") permit(principal,action,resource)when{context has grant&&resource in T::ToolSet::\"read\"};\n", i)
	}
	src := strings.ReplaceAll(text.String(), "T::", "Toolgrant::")
	parsed, err := parsePolicies([]file{{"p.cedar", []byte(src)}})
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(Config{Catalog: mcpCatalog(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := newSet(parsed, w).lintAll(parsed)
	if len(l) != 1 || l[0].Code != CodeTooMuch {
		t.Errorf("%d findings, first %+v", len(l), l[:min(1, len(l))])
	}
}
