package cedar

import (
	"context"
	"fmt"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
)

// Whatever the policies, a route decides as the whole set does: it drops no
// policy that could match or err, and has none twice. The policies are not
// validated, so that scopes that the validator would refuse are tried too.
func TestRoutes(t *testing.T) {
	w, err := newWorld(Config{Catalog: mcpCatalog(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const entities = `[{"uid": {"type": "Toolgrant::TaskKind", "id": "release"}}, {"uid": {"type": "Toolgrant::AgentGroup", "id": "ci"}}]`
	if err := w.addEntities([]byte(entities), nil); err != nil {
		t.Fatal(err)
	}

	actions := []string{`"start_task"`, `"end_task"`, `"grant"`, `"ask_for"`, `"revoke"`, `"call"`, `"call:bank/pay"`, `"call:github/get_pr"`, `"call:github/merge_pr"`, `"nosuch"`,
		`"call:forge/merge"`, `"mcp"`, `"mcp"`, `"mcp:notifications"`, `"mcp:notifications/initialized"`, `"mcp:notifications/progress"`, `"mcp:ping"`, `"mcp:resources/read"`}
	resources := []string{`Tool::"bank/pay"`, `Tool::"github/get_pr"`, `ToolServer::"github"`, `ToolServer::"bank"`, `ToolSet::"write"`, `ToolSet::"read"`, `TaskKind::"release"`, `TaskKind::"debug"`, `Tool::"nosuch"`, `Tool::"forge/merge"`, `ToolServer::"forge"`, `ToolServer::"notes"`}
	principals := []string{"principal", `principal == Toolgrant::Agent::"corp/bot"`, `principal in Toolgrant::AgentGroup::"ci"`, `principal is Toolgrant::Agent`, `principal is Toolgrant::Agent in Toolgrant::AgentGroup::"ci"`}
	conditions := []string{"", "when { context has grant }", "unless { context has grant }", "when { context.ttl < 1000 }", "when { context.task.ttl + 9223372036854775807 > 0 }"}
	requests := []grants.Input{
		startTask("release"), startTask("debug"), startTask("other"),
		with(startTask("release"), func(in *grants.Input) { in.Action, in.Principal = grants.ActionEndTask, builder1 }),
		grantTool("bank/pay"), grantTool("github/merge_pr"), grantTool("reports/health"),
		askFor("bank/pay"), askFor("github/merge_pr"),
		with(grantTool("github/get_pr"), func(in *grants.Input) { in.Action = grants.ActionRevoke }),
		call("bank/pay", nil, nil), call("github/get_pr", nil, nil), call("reports/health", nil, nil),
		call("github/merge_pr", testGrant("github/merge_pr"), nil),
		callMCP("forge/merge", nil, nil), callMCP("forge/merge", testGrant("forge/merge"), nil),
		askMCP("ping", "forge", nil), askMCP("notifications/initialized", "forge", nil), askMCP("notifications/progress", "notes", nil),
		askMCP("resources/read", "forge", map[string]any{"uri": "a"}), under(askMCP("resources/read", "forge", map[string]any{"uri": "a"}), "forge/merge"),
	}
	var allowed, errs, forbidden int
	rapid.Check(t, func(t *rapid.T) {
		pick := func(what string, from []string) string { return rapid.SampledFrom(from).Draw(t, what) }
		var text strings.Builder
		n := rapid.IntRange(1, 12).Draw(t, "policies")
		for i := range n {
			action := "action"
			switch rapid.IntRange(0, 3).Draw(t, "action scope") {
			case 1:
				action += " == Toolgrant::Action::" + pick("action", actions)
			case 2:
				action += " in Toolgrant::Action::" + pick("action", actions)
			case 3:
				list := rapid.SliceOfN(rapid.SampledFrom(actions), 1, 5).Draw(t, "actions")
				action += " in [Toolgrant::Action::" + strings.Join(list, ", Toolgrant::Action::") + "]"
			}
			resource := "resource"
			switch rapid.IntRange(0, 4).Draw(t, "resource scope") {
			case 1:
				resource += " == Toolgrant::" + pick("resource", resources)
			case 2:
				resource += " in Toolgrant::" + pick("resource", resources)
			case 3:
				resource += " is Toolgrant::" + pick("type", []string{"Tool", "ToolServer", "TaskKind", "ToolSet"})
			case 4:
				resource += " is Toolgrant::" + pick("type", []string{"Tool", "ToolServer", "TaskKind"}) + " in Toolgrant::" + pick("resource", resources)
			}
			fmt.Fprintf(&text, "@id(\"p%d\") %s (%s, %s, %s) %s;\n", i, pick("effect", []string{"permit", "permit", "forbid"}),
				pick("principal", principals), action, resource, pick("condition", conditions))
		}
		parsed, err := parsePolicies([]file{{"p.cedar", []byte(text.String())}})
		if err != nil {
			t.Fatal(err)
		}
		s := newSet(parsed, w)
		var whole route
		for _, p := range parsed {
			whole = append(whole, []entry{{cedargo.PolicyID(p.id), p.policy}})
		}
		for _, in := range requests {
			var q question
			if why := s.ask(&in, &q); why != grants.None {
				t.Fatalf("%s: %v", in.Action, why)
			}
			met := map[cedargo.PolicyID]bool{}
			for id := range q.route.All() {
				if met[id] {
					t.Fatalf("%s %s meets %s twice\n%s", in.Action, q.request.Resource, id, text.String())
				}
				met[id] = true
			}
			got := verdict(cedargo.Authorize(q.route, &q.entities, q.request))
			full := verdict(cedargo.Authorize(whole, &q.entities, q.request))
			if diff := cmp.Diff(full, got); diff != "" {
				t.Fatalf("%s %s decided by its route otherwise than by all of\n%s%s", in.Action, q.request.Resource, text.String(), diff)
			}
			switch {
			case got.Allow:
				allowed++
			case got.Reason == grants.PolicyError:
				errs++
			case len(got.Policies) > 0:
				forbidden++
			}
		}
	})
	if allowed == 0 || errs == 0 || forbidden == 0 {
		t.Errorf("%d allowed, %d erred, %d forbidden: the requests try too little", allowed, errs, forbidden)
	}
}

// A set that is large because of other tools costs about what a small one
// does: /few is that, and /all the price when every policy could match.
func BenchmarkDecide(b *testing.B) {
	args := parse(b, `{"body": {"number": 1, "method": "squash"}}`)
	in := []grants.Input{call("github/merge_pr", testGrant("github/merge_pr"), args)}
	for _, spread := range []struct{ name, scope string }{
		{"few", `action == T::Action::"call:bank/pay", resource`},
		{"all", `action in T::Action::"call", resource`},
	} {
		for _, n := range []int{10, 100, 1000} {
			var text strings.Builder
			text.WriteString(`@id("inside") permit (principal, action in T::Action::"call", resource) when { context has grant };` + "\n")
			for i := 1; i < n; i++ {
				fmt.Fprintf(&text, "@id(\"p%d\") forbid (principal, %s) when { principal.subject == \"x%d\" };\n", i, spread.scope, i)
			}
			s := policies(b, text.String())
			b.Run(fmt.Sprintf("%s/%d", spread.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ds, err := s.Decide(context.Background(), in)
					if err != nil || !ds[0].Allow {
						b.Fatalf("%v, %v", ds, err)
					}
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 1000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "@id(\"p%d\") permit (principal, action in T::Action::\"call\", resource) when { context has grant && context.grant.ttl > %d };\n", i, i)
		}
		cfg := config(b, "p.cedar", long(text.String()))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Load(cfg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
