package cedar

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// What is ready-made loads, warns of nothing, and permits what it says.
func TestMCPBaseline(t *testing.T) {
	s := mcpPolicies(t, MCPBaseline)
	if diff := cmp.Diff([]string{"mcp-start-up-needs-no-grant"}, s.Policies()); diff != "" {
		t.Error(diff)
	}
	for _, w := range s.Warnings() {
		if !strings.HasPrefix(w, "identity.issuers[].groups: ") { // the groups of config
			t.Errorf("it warns: %s", w)
		}
	}
	var methods []string
	for _, server := range []string{"forge", "notes"} {
		for _, m := range []string{"initialize", "notifications/cancelled", "notifications/initialized", "notifications/progress",
			"notifications/roots/list_changed", "notifications/tasks/status", "ping", "server/discover", "tools/list"} {
			methods = append(methods, server+" mcp:"+m)
		}
	}
	want := []Permit{{ID: "mcp-start-up-needs-no-grant", At: "p.cedar:6", Methods: methods}}
	if diff := cmp.Diff(want, s.Baseline()); diff != "" {
		t.Error(diff)
	}
}

func TestMCPPermits(t *testing.T) {
	const inMCP = `principal, action in T::Action::"mcp", resource`
	for _, tt := range []struct {
		name, policies string
		want           []string // ID TOOLS METHODS, without those of notes
	}{
		{"by name", `@id("a") permit (principal, action == T::Action::"mcp:resources/read", resource);`, []string{"a forge mcp:resources/read"}},
		{"a grant is asked for", `@id("a") permit (` + inMCP + `) when { context has grant };`, nil},
		{"calls only", `@id("a") permit (principal, action in T::Action::"call", resource in T::ToolServer::"forge");`, []string{"a forge/merge forge/run forge/status"}},
		{"of a server", `@id("a") permit (principal, action in [ T::Action::"call", T::Action::"mcp:ping"], resource in T::ToolServer::"forge");`, []string{"a forge/merge forge/run forge/status forge mcp:ping"}},
		{"of an HTTP service", `@id("a") permit (principal, action, resource in T::ToolServer::"bank");`, []string{"a bank/pay"}},
		{"forbidden", `@id("a") permit (principal, action in T::Action::"mcp:notifications", resource); @id("b") forbid (principal, action in T::Action::"mcp:notifications", resource)
			unless { action == T::Action::"mcp:notifications/initialized" };`, []string{"a forge mcp:notifications/initialized"}},
		{"by a member of the context", `@id("a") permit (` + inMCP + `) when { context has input && context has retry };`, []string{
			"a forge mcp:prompts/get forge mcp:resources/read forge mcp:tasks/update"}},
		{"by the revision", `@id("a") permit (principal, action == T::Action::"mcp:ping", resource) when { context.revision == "2025-11-25" };`, []string{"a forge mcp:ping"}},
		{"a retry", `@id("a") permit (principal, action == T::Action::"mcp:prompts/get", resource) unless { context has retry };`, []string{"a forge mcp:prompts/get"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range mcpPolicies(t, tt.policies).Baseline() {
				text := p.ID
				for _, may := range slices.Concat(p.Tools, p.Methods) {
					if !strings.HasPrefix(may, "notes ") {
						text += " " + may
					}
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMCPWarnings(t *testing.T) {
	const opens = ` to everybody, without a grant; if that is meant, name the actions, and if not, those of start-up alone (see the policy mcp-start-up-needs-no-grant)`
	var covered []string
	for _, m := range mcp.Methods() {
		if m.Grant && m.Name != mcp.ToolsCall {
			covered = append(covered, "mcp:"+m.Name)
		}
	}
	slices.Sort(covered)
	all := `policy "a": it opens ` + strings.Join(covered, ", ") + " at forge, notes" + opens
	one := func(action, servers string) string {
		return `p.cedar:1:1: policy "a": it opens ` + action + " at " + servers + opens
	}
	for _, tt := range []struct {
		name, policies string
		without        bool // MCPBaseline
		want           []string
	}{
		{"everything", `@id("a") permit (principal, action, resource);`, false, []string{"p.cedar:1:1: " + all}},
		{"all of MCP", `@id("a") permit (principal, action in T::Action::"mcp", resource is T::ToolServer);`, false, []string{"p.cedar:1:1: " + all}},
		{"to everybody that there is", `@id("a") permit (principal is T::Agent, action in T::Action::"mcp", resource);`, false, []string{"p.cedar:1:1: " + all}},
		{"in a grant", `@id("a") permit (principal, action in T::Action::"mcp", resource) when { context has grant };`, false, nil},
		{"to a group", `@id("a") permit (principal in T::AgentGroup::"ops", action in T::Action::"mcp", resource);`, false, nil},
		{"to some", `@id("a") permit (principal, action in T::Action::"mcp", resource) when { principal.subject == "x" };`, false, nil},
		{"by what is asked", `@id("a") permit (principal, action in T::Action::"mcp", resource) when { action == T::Action::"mcp:GET" };`, false, []string{one("mcp:GET", "forge, notes")}},
		{"of one server", `@id("a") permit (principal, action in T::Action::"mcp", resource) when { action == T::Action::"mcp:GET" && resource == T::ToolServer::"forge" };`, false, []string{one("mcp:GET", "forge")}},
		{"all but what is forbidden to all", `@id("a") permit (principal, action in T::Action::"mcp", resource);
			@id("f") forbid (principal, action in T::Action::"mcp", resource) unless { action == T::Action::"mcp:response" || action in [ T::Action::"mcp:initialize", T::Action::"mcp:server/discover"] || context has grant };`, false,
			[]string{one("mcp:response", "forge, notes")}},
		{"by name", `@id("a") permit (principal, action == T::Action::"mcp:resources/read", resource);`, false, nil},
		{"in a list of names", `@id("a") permit (principal, action in [ T::Action::"mcp:prompts/get", T::Action::"mcp:resources/read"], resource);`, false, nil},
		{"start-up alone", `@id("a") permit (principal, action in T::Action::"mcp:notifications", resource);`, false, nil},
		{"calls", `@id("a") permit (principal, action in T::Action::"call", resource);`, false, nil},
		{"about what no server has", `@id("a") permit (principal, action in [ T::Action::"mcp:ping", T::Action::"mcp:GET"], resource == T::ToolServer::"notes");`, false,
			[]string{`p.cedar:1:1: policy "a": it is about nothing: no server that it is about speaks a revision of MCP with mcp:GET or mcp:ping`}},
		{"a forbid about what no server has", "\n" + `@id("a") forbid (principal, action == T::Action::"mcp:tasks/result", resource == T::ToolServer::"notes");`, false,
			[]string{`p.cedar:2:1: policy "a": it is about nothing: no server that it is about speaks a revision of MCP with mcp:tasks/result`}},
		{"about what one server has", `@id("a") permit (principal, action == T::Action::"mcp:ping", resource);`, false, nil},
		{"about calls, too", `@id("a") permit (principal, action in [ T::Action::"mcp:ping", T::Action::"call"], resource in T::ToolServer::"notes");`, false, nil},
		{"nobody can begin", `@id("a") permit (principal, action == T::Action::"mcp:tools/list", resource);`, true, []string{
			`MCP server "forge": no policy permits mcp:initialize or mcp:server/discover, so that no client can begin; the policy mcp-start-up-needs-no-grant does`,
			`MCP server "notes": no policy permits mcp:server/discover, so that no client can begin; the policy mcp-start-up-needs-no-grant does`}},
		{"only the other revisions' beginning", `@id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"mcp:initialize", resource);`, true, []string{
			`MCP server "notes": no policy permits mcp:server/discover, so that no client can begin; the policy mcp-start-up-needs-no-grant does`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.policies + "\n"
			if !tt.without {
				text += MCPBaseline
			}
			text += `@id("groups") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource) when { principal in T::AgentGroup::"orchestrators" };`
			if diff := cmp.Diff(tt.want, lines(mcpPolicies(t, text), CodeOpensMore, CodeNotSpoken, CodeCannotBegin)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("few", func(t *testing.T) {
		var text strings.Builder
		for i := range maxFaults + 10 {
			fmt.Fprintf(&text, "@id(\"p%d\") permit (principal, action, resource);\n", i)
		}
		if got := mcpPolicies(t, text.String()).Warnings(); len(got) != maxFaults {
			t.Errorf("%d warnings", len(got))
		}
	})
}
