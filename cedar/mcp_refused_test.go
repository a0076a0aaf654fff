package cedar

import (
	"strings"
	"testing"
)

func TestMCPRefused(t *testing.T) {
	rule := func(scope string) string { return "\n\n" + `@id("a") permit (` + scope + `);` }
	when := func(scope, condition string) string {
		return `@id("a") permit (` + scope + `)` + "\nwhen {\n" + condition + ` };`
	}
	const (
		read     = `principal, action == T::Action::"mcp:resources/read", resource`
		complete = `principal, action == T::Action::"mcp:completion/complete", resource`
		merge    = `principal, action == T::Action::"call:forge/merge", resource`
	)
	for _, tt := range []struct {
		name, policy string
		want         []string // parts of the error
	}{
		{"misspelt action", rule(`principal, action == T::Action::"mcp:resource/read", resource`), []string{"p.cedar:3:", `did you mean "mcp:resources/read"?`}},
		{"misspelt in a list", rule(`principal, action in [ T::Action::"mcp:ping", T::Action::"mcp:notification"], resource`), []string{`did you mean "mcp:notifications"?`}},
		{"misspelt in a condition", when(`principal, action in T::Action::"mcp", resource`, `action == T::Action::"mcp:pign"`), []string{"p.cedar:3:", `did you mean "mcp:ping"?`}},
		{"tools/call", rule(`principal, action == T::Action::"mcp:tools/call", resource`), []string{"p.cedar:3:", "is not in the schema; a call of a tool is an action of its own, call:SERVER/TOOL"}},
		{"the parent, equal", rule(`principal, action == T::Action::"mcp", resource`), []string{"p.cedar:3:", "applicable action", "mcp: actions about a ToolServer"}},
		{"the parent of notifications, equal", rule(`principal, action == T::Action::"mcp:notifications", resource`), []string{"p.cedar:3:", "applicable action"}},
		{"the parent, compared", when(`principal, action, resource`, `action == T::Action::"mcp"`), []string{`no question has the action "mcp" itself`, `write: action in Toolgrant::Action::"mcp"`}},
		{"the parent of notifications, other than", when(`principal, action, resource`, ` T::Action::"mcp:notifications" != action`), []string{`no question has the action "mcp:notifications" itself`}},
		{"about a tool", rule(`principal, action == T::Action::"mcp:ping", resource == T::Tool::"forge/merge"`), []string{"p.cedar:3:", "applicable action"}},
		{"about tools of a set", rule(`principal, action in T::Action::"mcp", resource is T::Tool in T::ToolSet::"write"`), []string{"p.cedar:3:", "applicable action"}},
		{"calls, about a server alone", rule(`principal, action in T::Action::"call", resource is T::ToolServer`), []string{"p.cedar:3:", "applicable action"}},
		{"about an HTTP service", rule(`principal, action == T::Action::"mcp:resources/read", resource == T::ToolServer::"bank"`), []string{"p.cedar:3:", "its scope matches nothing"}},
		{"about an HTTP service, in", rule(`principal, action in T::Action::"mcp", resource in T::ToolServer::"bank"`), []string{"p.cedar:3:", "its scope matches nothing"}},
		{"about an HTTP service, is in", rule(`principal, action in [ T::Action::"mcp:notifications", T::Action::"mcp:ping"], resource is T::ToolServer in T::ToolServer::"bank"`), []string{"p.cedar:3:", "its scope matches nothing"}},
		{"any action about an HTTP service itself", rule(`principal, action, resource == T::ToolServer::"bank"`), []string{"p.cedar:3:", "its scope matches nothing"}},
		{"unknown server", rule(`principal, action == T::Action::"mcp:ping", resource == T::ToolServer::"froge"`), []string{"p.cedar:3:", `did you mean "forge"?`}},
		{"unknown kind", when(read, `context has grant && context.grant.kind == "relaese"`), []string{"p.cedar:3:", `did you mean "release"?`}},
		{"kind in a form that hides it", when(read, `context has grant && context.grant.kind like "rel*"`), []string{"may only be compared"}},
		{"has: of the context", when(read, `context has garnt`), []string{"p.cedar:3:", `context has no member "garnt"; did you mean "grant"?`}},
		{"has: a grant where none can cover it", when(`principal, action in [ T::Action::"mcp:tools/list", T::Action::"mcp:notifications"], resource`, `context has grant`), []string{"p.cedar:3:", `context has no member "grant"; there are: input, requester, revision`}},
		{"has: a retry where there is none", when(`principal, action == T::Action::"mcp:prompts/list", resource`, `context has retry`), []string{"p.cedar:3:", `context has no member "retry"`}},
		{"has: of a retry", when(read, `context has retry.response`), []string{"p.cedar:3:", `did you mean "responses"?`}},
		{"a retry of a call to HTTP", when(`principal, action == T::Action::"call:bank/pay", resource`, `context has retry`), []string{"p.cedar:3:", `context has no member "retry"`}},
		{"the revision of a call to HTTP", when(`principal, action == T::Action::"call:bank/pay", resource`, `context.revision == "2025-11-25"`), []string{"p.cedar:3:", `context has no member "revision"`}},
		{"a retry that is not asked for", when(merge, `context.retry.state`), []string{"p.cedar:3:", "ask for it first: context has retry && …"}},
		{"misspelt parameter", when(read, `context.input.url == "x"`), []string{"p.cedar:3:", `context.input has no member "url"; did you mean "uri"?`}},
		{"a parameter of another method", when(read, `context.input.name == "x"`), []string{"p.cedar:3:", `context.input has no member "name"`}},
		{"a parameter of what only an HTTP service would be asked", when(`principal, action in [ T::Action::"mcp:resources/read", T::Action::"call:bank/pay"], resource in T::ToolServer::"bank"`, `context has input.uri`), []string{"p.cedar:3:", `context.input has no member "uri"`}},
		{"a parameter that may be absent", when(`principal, action == T::Action::"mcp:response", resource`, `context.input.result == "{}"`), []string{"p.cedar:3:", "ask for it first: context has input.result && …"}},
		{"a member of a pair", when(`principal, action == T::Action::"mcp:prompts/get", resource`, `context.input.arguments.contains({name: "a", valeu: "b"})`), []string{"p.cedar:1:", `policy "a"`}},
		{"opaque argument", when(merge, `context has input.note`), []string{"p.cedar:3:", `has no member "note"`}},
		{"opaque by meta", when(`principal, action == T::Action::"call:forge/run", resource`, `context has input.arguments`), []string{"p.cedar:3:", `has no member "arguments"`}},
		{"arguments have no body", when(merge, `context has input && context.input has body`), []string{"p.cedar:3:", `context.input has no member "body"`}},
		{"enum of an argument", when(merge, `context has input.method && context.input.method == "sqash"`), []string{"p.cedar:3:", `did you mean "squash"?`}},
		{"sums of another place", when(`principal, action == T::Action::"grant", resource == T::Tool::"forge/merge"`, `context.sums.contains("/body/amount")`), []string{"p.cedar:3:", `context.sums never has "/body/amount"`, "/amount, /number"}},
		{"unknown revision", when(read, `context.revision == "2025-11-24"`), []string{"p.cedar:3:", `context.revision never has "2025-11-24": it is no revision of MCP that is known; did you mean "2025-11-25"?`}},
		{"unknown revision, turned round", when(read, `"draft" != context.revision`), []string{"p.cedar:3:", `there are: 2025-03-26, 2025-06-18, 2025-11-25, 2026-07-28`}},
		{"unknown revision in a set", when(merge, `["2025-11-25", "2024-11-05"].contains(context.revision)`), []string{"p.cedar:3:", `context.revision never has "2024-11-05"`}},
		{"unknown revision, like", when(merge, `context.revision like "2024-*"`), []string{"p.cedar:3:", `context.revision is never like "2024-*"`}},
		{"unknown type of a reference", when(complete, `context.input.ref_type == "ref/prompts"`), []string{"p.cedar:3:", `context.input.ref_type never has "ref/prompts"`, `did you mean "ref/prompt"?`}},
		{"unknown type of a reference, like", when(complete, `context.input.ref_type like "prompt*"`), []string{"p.cedar:3:", `context.input.ref_type is never like`}},
		{"unknown level", when(`principal, action == T::Action::"mcp:logging/setLevel", resource`, `["debug", "trace"].contains(context.input.level)`), []string{"p.cedar:3:", `context.input.level never has "trace"`}},
		{"is never a tool", when(read, `resource is T::Tool`), []string{"p.cedar:3:", "resource is never a Toolgrant::Tool"}},
		{"a server is in no set", when(read, `resource in T::ToolSet::"write"`), []string{"p.cedar:1:", "never holds"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadMCP(t, tt.policy)
			if err == nil {
				t.Fatal("loaded")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %.600q does not have %q", err.Error(), part)
				}
			}
		})
	}
	t.Run("no MCP server", func(t *testing.T) {
		for _, action := range []string{"mcp", "mcp:ping"} {
			_, err := Load(config(t, "p.cedar", long(rule(`principal, action in T::Action::"`+action+`", resource`))))
			if err == nil || !strings.Contains(err.Error(), "p.cedar:3:") || !strings.Contains(err.Error(), "because the catalogue has no MCP server") {
				t.Errorf("%s: error %v", action, err)
			}
		}
	})
}

func TestMCPNamesThatExist(t *testing.T) {
	for _, policy := range []string{
		`(principal, action in T::Action::"mcp", resource)`,
		`(principal, action in [ T::Action::"mcp:notifications", T::Action::"call"], resource in T::ToolServer::"bank")`,
		`(principal, action, resource == T::ToolServer::"forge")`,
		`(principal, action, resource is T::ToolServer in T::ToolServer::"notes")`,
		`(principal, action in T::Action::"mcp", resource) when { context has grant && context.grant.kind == "release" && context has retry && !context.retry.state }`,
		`(principal, action in T::Action::"mcp", resource) when { context.revision != "2025-03-26" && context.revision like "2026-*" || context.revision like "2025-*" }`,
		`(principal, action in T::Action::"mcp:notifications", resource) when { action == T::Action::"mcp:notifications/initialized" || action in T::Action::"mcp:notifications" || resource is T::ToolServer }`,
		`(principal, action == T::Action::"mcp:prompts/get", resource) when { context.input.name == "review" && context.input.arguments.contains({name: "pr", value: "7"}) }`,
		`(principal, action == T::Action::"mcp:subscriptions/listen", resource) when { !context.input.tools && context.input.uris.containsAll(["a"]) && context.input.tasks.isEmpty() }`,
		`(principal, action == T::Action::"mcp:completion/complete", resource) when { context.input.ref_type == "ref/prompt" && context.input.ref like "a*" }`,
		`(principal, action == T::Action::"mcp:response", resource) when { context.input has result && context.input.result == "{}" }`,
		`(principal, action == T::Action::"call:forge/merge", resource) when { context has input && context.input.number > 3 && context.input has kind && context.input.kind == "any text" && context.revision == "2026-07-28" }`,
		`(principal, action in T::Action::"call", resource) when { context has revision && context has retry && context.retry.responses == "" }`,
		`(principal, action == T::Action::"grant", resource) when { context.sums.containsAny(["/amount", "/number", "/body/amount"]) }`,
	} {
		if _, err := loadMCP(t, `@id("a") permit `+policy+`;`); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
	}
}
