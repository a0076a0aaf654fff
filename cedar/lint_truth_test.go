package cedar

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
)

// randomWorld gives what random policies are about, and questions for them.
func randomWorld(t *testing.T) (*world, []grants.Input) {
	t.Helper()
	w, err := newWorld(Config{Catalog: mcpCatalog(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const entities = `[{"uid": {"type": "Toolgrant::AgentGroup", "id": "staff"}}, {"uid": {"type": "Toolgrant::TaskKind", "id": "release"}},
		{"uid": {"type": "Toolgrant::AgentGroup", "id": "ci"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "staff"}]}]`
	if err := w.addEntities([]byte(entities), nil); err != nil {
		t.Fatal(err)
	}
	var all []grants.Input
	for _, who := range []grants.Principal{builder1, {Issuer: "corp", Subject: "x"}} {
		grant := func(tool string) *grants.Grant { g := testGrant(tool); g.Agent = who; return g }
		for _, in := range []grants.Input{
			startTask("release"), startTask("other"), grantTool("github/merge_pr"), grantTool("forge/merge"), askFor("github/merge_pr"), askFor("bank/pay"),
			call("github/get_pr", nil, parse(t, `{"query": {"number": 7}}`)), call("github/get_pr", nil, nil), call("github/merge_pr", grant("github/merge_pr"), parse(t, `{"body": {"number": 7}}`)),
			call("github/merge_pr", nil, nil), call("bank/pay", grant("bank/pay"), nil), callMCP("forge/merge", nil, parse(t, `{"number": 7}`)),
			callMCP("forge/merge", grant("forge/merge"), nil), askMCP("ping", "forge", nil), askMCP("notifications/initialized", "notes", nil),
			askMCP("resources/read", "forge", map[string]any{"uri": "a"}),
		} {
			switch in.Action {
			case grants.ActionStartTask:
				task := *in.Task
				task.Owner = who
				in.Task, in.Principal, in.Requester = &task, who, who
			case grants.ActionGrant:
				g := *in.Grant
				g.Agent = who
				in.Grant, in.Principal = &g, who
			case grants.ActionAskFor:
			default:
				in.Principal, in.Requester = who, who
			}
			all = append(all, in)
		}
	}
	for _, in := range all {
		var q question
		if why := newSet(nil, w).ask(&in, &q); why != grants.None {
			t.Fatalf("%s %s: %s", in.Action, in.Tool, why)
		}
	}
	return w, all
}

// randomPolicies writes one to five policies.
func randomPolicies(t *rapid.T) string {
	leaves := []string{
		"true", "false", "context has grant", "context has input", "context has task", "context has requester", "context has grant.owner", "context.grant.ttl > 3",
		"context has input.query.number", `principal.subject == "x"`, `principal in Toolgrant::AgentGroup::"ci"`, "1 + 9223372036854775807 > 0",
		`resource == Toolgrant::Tool::"github/get_pr"`, `resource in Toolgrant::ToolSet::"write"`, `action in Toolgrant::Action::"call"`, `resource == Toolgrant::TaskKind::"release"`,
		"context has retry", `context.revision == "2025-11-25"`, `resource == Toolgrant::ToolServer::"forge"`, `action in Toolgrant::Action::"mcp:notifications"`,
		"context.ttl > 600", "context.ttl <= 600", "context.depth == 0", "context.depth == 1", "context.ttl > 0", `context.task.kind == "release"`, `context.task.kind != "release"`,
		`[].isEmpty()`, // no strict validator takes it
		"principal is Toolgrant::Agent", `["release", "other"].contains(context.task.kind)`, "principal != context.requester",
	}
	var expression func(depth int) string
	expression = func(depth int) string {
		form := rapid.IntRange(0, 6).Draw(t, "form")
		if depth == 0 || form > 4 {
			return rapid.SampledFrom(leaves).Draw(t, "leaf")
		}
		a, b := expression(depth-1), expression(depth-1)
		switch form {
		case 0, 1:
			return "(" + a + " && " + b + ")"
		case 2:
			return "(" + a + " || " + b + ")"
		case 3:
			return "!(" + a + ")"
		}
		return "(if " + a + " then " + b + " else " + expression(depth-1) + ")"
	}
	var text, last strings.Builder
	for i := range rapid.IntRange(1, 5).Draw(t, "policies") {
		fmt.Fprintf(&text, "@id(\"p%d\") ", i)
		if i > 0 && rapid.IntRange(0, 7).Draw(t, "copy") == 0 {
			text.WriteString(last.String())
			continue
		}
		last.Reset()
		fmt.Fprintf(&last, "%s (%s, %s, %s)", rapid.SampledFrom([]string{"permit", "permit", "permit", "forbid"}).Draw(t, "effect"),
			rapid.SampledFrom([]string{"principal", "principal is Toolgrant::Agent", `principal in Toolgrant::AgentGroup::"ci"`, `principal in Toolgrant::AgentGroup::"staff"`, `principal == Toolgrant::Agent::"corp/x"`}).Draw(t, "principal"),
			rapid.SampledFrom([]string{"action", `action in Toolgrant::Action::"call"`, `action == Toolgrant::Action::"grant"`, `action in [Toolgrant::Action::"ask_for", Toolgrant::Action::"start_task"]`,
				`action in Toolgrant::Action::"mcp"`, `action in [Toolgrant::Action::"mcp:ping", Toolgrant::Action::"mcp:notifications"]`}).Draw(t, "action"),
			rapid.SampledFrom([]string{"resource", "resource", "resource is Toolgrant::Tool", "resource is Toolgrant::ToolServer", `resource in Toolgrant::ToolSet::"write"`, `resource in Toolgrant::ToolServer::"github"`}).Draw(t, "resource"))
		for range rapid.IntRange(0, 2).Draw(t, "conditions") {
			fmt.Fprintf(&last, " %s { %s }", rapid.SampledFrom([]string{"when", "unless"}).Draw(t, "condition"), expression(2))
		}
		last.WriteString(";\n")
		text.WriteString(last.String())
	}
	return text.String()
}

// Whatever the policies: what is told of them is true of every question. The
// questions are few of all that there can be, and random policies many.
func TestFindingsAreTrue(t *testing.T) {
	w, inputs := randomWorld(t)
	seen := map[string]int{}
	check := func(t *rapid.T) {
		text := randomPolicies(t)
		load := func(without ...string) *Set {
			all, err := parsePolicies([]file{{"p.cedar", []byte(text)}})
			if err != nil {
				t.Fatal(err)
			}
			all = slices.DeleteFunc(all, func(p *parsed) bool { return slices.Contains(without, p.id) })
			return newSet(all, w)
		}
		all, err := parsePolicies([]file{{"p.cedar", []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		s := newSet(all, w)
		var redundant []string
		for _, f := range s.lintAll(all) {
			seen[f.Code]++
			if f.Code == CodeRedundant {
				redundant = append(redundant, f.Policy)
			}
			for _, in := range inputs {
				d := s.decide(&in)
				by := slices.Contains(d.Policies, f.Policy)
				if d.Reason == grants.PolicyError {
					if by && f.Code == CodeAlwaysErrs || f.Code != CodeAlwaysErrs {
						continue
					}
				}
				switch {
				case f.Code == CodeNeverHolds && by, f.Code == CodeShadowed && by && d.Allow, f.Code == CodeAlwaysErrs && by:
					t.Fatalf("%s\ndecides %s %s%s: %v\n%s", f, in.Action, in.Tool, in.Server, d, text)
				}
			}
		}
		rest := load(redundant...)
		denied, _ := s.Denied()
		for _, in := range inputs {
			d := s.decide(&in)
			if without := rest.decide(&in); d.Allow != without.Allow && d.Reason != grants.PolicyError {
				t.Fatalf("without %q %s %s%s is decided otherwise\n%s", redundant, in.Action, in.Tool, in.Server, text)
			}
			if d.Allow && slices.Contains(denied, in.Tool) && (in.Action == grants.ActionGrant || strings.HasPrefix(in.Action, grants.ActionCall) && in.Grant == nil) {
				t.Fatalf("nobody can call %s, it says, and %s is allowed\n%s", in.Tool, in.Action, text)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			check(t)
		}
	})
	for _, code := range []string{CodeNeverHolds, CodeAlwaysErrs, CodeShadowed, CodeRedundant, CodeBaselineWrites, CodeNothingGrants, CodeNeverCalled, CodeTwoRoles} {
		if seen[code] == 0 {
			t.Errorf("nothing is told of %s: %v", code, seen)
		}
	}
}
