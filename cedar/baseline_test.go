package cedar

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
)

const all5 = "bank/pay github/get_pr github/merge_pr reports/export reports/health"

func TestBaseline(t *testing.T) {
	const inCall = `principal, action in T::Action::"call", resource`
	permit := func(scope, rest string) string { return `@id("a") permit (` + scope + ") " + rest + ";\n" }
	for _, tt := range []struct {
		name, policies string
		want           []string // ID FILE:LINE TOOLS
	}{
		{"everything", permit("principal, action, resource", ""), []string{"a p.cedar:1 " + all5}},
		{"a grant is asked for", permit(inCall, "when { context has grant }"), nil},
		{"a grant is asked for, by its member", permit(inCall, `when { context has grant.owner && context.grant.owner == principal }`), nil},
		{"a grant is asked for, as a text", permit(inCall, `when { context has "grant" }`), nil},
		{"a grant is asked for, last", permit(inCall, `when { principal.subject like "a*" && context has input && context has grant }`), nil},
		{"a grant is asked for, in another condition", permit(inCall, `when { principal.subject like "a*" } unless { !(context has grant) }`), nil},
		{"a grant is asked for, by an if", permit(inCall, `when { if context has grant then context.grant.ttl > 3 else false }`), nil},
		{"a grant is asked for, or else", permit(inCall, `when { context has grant && context.grant.ttl > 3 || principal.subject like "a*" }`), []string{"a p.cedar:1 " + all5}},
		{"no grant is asked for", permit(inCall, "unless { context has grant }"), []string{"a p.cedar:1 " + all5}},
		{"depends on who calls", permit(`principal in T::AgentGroup::"ops", action in T::Action::"call", resource`, `when { principal.subject != "x" }`), []string{"a p.cedar:1 " + all5}},
		{"depends on the input being known", permit(inCall, "unless { context has input }"), []string{"a p.cedar:1 " + all5}},
		{"depends on the input", permit(`principal, action == T::Action::"call:bank/pay", resource`, `when { context has input && context.input.body.to == "x" }`), []string{"a p.cedar:1 bank/pay"}},
		{"issue door", permit(`principal, action in [ T::Action::"grant", T::Action::"start_task"], resource`, ""), nil},
		{"kinds of task", permit(`principal, action, resource is T::TaskKind`, ""), nil},
		{"context of another action", permit(`principal, action, resource`, "when { context has task }"), nil},
		{"context of every action", permit(`principal, action, resource`, "when { context has requester }"), []string{"a p.cedar:1 " + all5}},
		{"of a set", permit(`principal, action in T::Action::"call", resource in T::ToolSet::"write"`, ""), []string{"a p.cedar:1 bank/pay github/merge_pr reports/export"}},
		{"of a server", permit(`principal, action in T::Action::"call", resource is T::Tool in T::ToolServer::"github"`, ""), []string{"a p.cedar:1 github/get_pr github/merge_pr"}},
		{"by the action", permit(`principal, action in [ T::Action::"call:bank/pay", T::Action::"grant"], resource`, ""), []string{"a p.cedar:1 bank/pay"}},
		{"by the condition", permit(inCall, `when { resource in T::ToolSet::"read" || action == T::Action::"call:bank/pay" }`), []string{"a p.cedar:1 bank/pay github/get_pr"}},
		{"never", permit(inCall, `when { context has grant || 1 + 9223372036854775807 > 0 }`), nil},
		{"never, by an unless", permit(inCall, `unless { 1 + 9223372036854775807 > 0 }`), nil},
		{"forbidden to all", permit(inCall, "") + `@id("f") forbid (` + inCall + `) unless { context has grant };`, nil},
		{"forbidden to every agent", permit(inCall, "") + `@id("f") forbid (principal is T::Agent, action, resource in T::ToolSet::"write") when { true || principal.subject == "x" };`,
			[]string{"a p.cedar:1 github/get_pr reports/health"}},
		{"forbidden to some", permit(inCall, "") + `@id("f") forbid (principal in T::AgentGroup::"ops", action, resource);`, []string{"a p.cedar:1 " + all5}},
		{"forbidden to some, by the condition", permit(inCall, "") + `@id("f") forbid (principal, action, resource) when { principal.subject == "x" };`, []string{"a p.cedar:1 " + all5}},
		{"of other things forbidden", permit(inCall, "") + `@id("f") forbid (principal, action, resource is T::TaskKind);`, []string{"a p.cedar:1 " + all5}},
		{"in the order of the files", "\n\n" + `@id("z") permit (principal, action, resource == T::Tool::"bank/pay");` + "\n// x\n" + permit(inCall, ""),
			[]string{"z p.cedar:3 bank/pay", "a p.cedar:5 " + all5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range policies(t, tt.policies).Baseline() {
				got = append(got, p.ID+" "+p.At+" "+strings.Join(p.Tools, " "))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever the policies: what permits something without a grant is listed.
func TestBaselineLeavesNothingOut(t *testing.T) {
	w, err := newWorld(Config{Catalog: mcpCatalog(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.addEntities(nil, []string{"ci"}); err != nil {
		t.Fatal(err)
	}
	var calls []grants.Input
	for _, who := range []grants.Principal{builder1, {Issuer: "corp", Subject: "x"}} {
		for _, args := range []any{nil, parse(t, `{"query": {"number": 7}}`), parse(t, `{"query": {}}`)} {
			calls = append(calls, with(call("github/get_pr", nil, args), func(in *grants.Input) { in.Principal, in.Requester = who, who }))
		}
		for _, in := range []grants.Input{
			call("reports/health", nil, parse(t, `{}`)), callMCP("forge/merge", nil, parse(t, `{"number": 7}`)),
			askMCP("ping", "forge", nil), askMCP("notifications/initialized", "notes", nil), askMCP("resources/read", "forge", map[string]any{"uri": "a"}),
		} {
			in.Principal, in.Requester = who, who
			calls = append(calls, in)
		}
	}
	leaves := []string{
		"true", "false", "context has grant", "context has input", "context has task", "context has requester", "context has grant.owner", "context.grant.ttl > 3",
		"context has input.query.number", `principal.subject == "x"`, `principal in Toolgrant::AgentGroup::"ci"`, "1 + 9223372036854775807 > 0",
		`resource == Toolgrant::Tool::"github/get_pr"`, `resource in Toolgrant::ToolSet::"init"`, `action in Toolgrant::Action::"call"`,
		"context has retry", `context.revision == "2025-11-25"`, `resource == Toolgrant::ToolServer::"forge"`, `action in Toolgrant::Action::"mcp:notifications"`,
	}
	var expression func(t *rapid.T, depth int) string
	expression = func(t *rapid.T, depth int) string {
		form := rapid.IntRange(0, 5).Draw(t, "form")
		if depth == 0 || form > 3 {
			return rapid.SampledFrom(leaves).Draw(t, "leaf")
		}
		a, b := expression(t, depth-1), expression(t, depth-1)
		switch form {
		case 0:
			return "(" + a + " && " + b + ")"
		case 1:
			return "(" + a + " || " + b + ")"
		case 2:
			return "!(" + a + ")"
		}
		return "(if " + a + " then " + b + " else " + expression(t, depth-1) + ")"
	}
	var permitted, listed int
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
			fmt.Fprintf(&text, "@id(\"p%d\") %s (%s, %s, %s) %s { %s };\n", i, rapid.SampledFrom([]string{"permit", "permit", "forbid"}).Draw(t, "effect"),
				rapid.SampledFrom([]string{"principal", "principal is Toolgrant::Agent", `principal in Toolgrant::AgentGroup::"ci"`}).Draw(t, "principal"),
				rapid.SampledFrom([]string{"action", `action in Toolgrant::Action::"call"`, `action == Toolgrant::Action::"grant"`,
					`action in Toolgrant::Action::"mcp"`, `action in [Toolgrant::Action::"mcp:ping", Toolgrant::Action::"mcp:notifications"]`}).Draw(t, "action"),
				rapid.SampledFrom([]string{"resource", "resource is Toolgrant::Tool", "resource is Toolgrant::TaskKind", "resource is Toolgrant::ToolServer", `resource in Toolgrant::ToolServer::"forge"`, `resource in Toolgrant::ToolServer::"github"`}).Draw(t, "resource"),
				rapid.SampledFrom([]string{"when", "unless"}).Draw(t, "condition"), expression(t, 3))
		}
		parsed, err := parsePolicies([]file{{"p.cedar", []byte(text.String())}})
		if err != nil {
			t.Fatal(err)
		}
		s := newSet(parsed, w)
		may := map[string][]string{}
		for _, p := range s.Baseline() {
			may[p.ID] = slices.Concat(p.Tools, p.Methods)
		}
		listed += len(may)
		for _, in := range calls {
			d := s.decide(&in)
			if !d.Allow {
				continue
			}
			permitted++
			what := in.Tool
			if in.Server != "" {
				what = in.Server + " " + in.Action
			}
			for _, id := range d.Policies {
				if !slices.Contains(may[id], what) {
					t.Fatalf("%s permits %s by %s without a grant; listed are %v\n%s", id, what, in.Principal.ID(), may, text.String())
				}
			}
		}
	})
	if permitted == 0 || listed == 0 {
		t.Errorf("%d permitted, %d listed: the calls try too little", permitted, listed)
	}
}
