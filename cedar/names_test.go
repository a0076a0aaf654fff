package cedar

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/catalog"
)

// The guard that an error gives is one that loads, and there is no other error.
func TestGuards(t *testing.T) {
	c, err := catalog.Load(filepath.Join(dir(t, "tools.yaml", `servers:
- id: docs
  resource: https://docs.internal
  upstream: 127.0.0.1:9200
  http:
  - tool: find
    method: POST
    path: /find
    query: {in: {type: string}}
    header: {x-tenant: {type: string}}
    body: {type: object, properties: {a.b: {type: object, properties: {é: {type: string}}}, to: {type: string}, extra: {type: object, required: [ref], properties: {ref: {type: string}}}}}
`), "tools.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const find = `action == T::Action::"call:docs/find"`
	for _, tt := range []struct{ name, scope, access, want string }{
		{"all of the path", find, `context.input.body.to == "csv"`, `context has input.body.to`},
		{"a required member", find, `context.input.body.extra.ref == "x"`, `context has input.body.extra`},
		{"what is guarded in part", find, `context has input && context.input.body.to == "x"`, `context has input.body.to`},
		{"a grant", find, `context.grant.owner == principal`, `context has grant`},
		{"of another action", `action == T::Action::"grant"`, `context.max_calls < 3`, `context has max_calls`},
		{"two of them", find, `context.input.body.to == context.grant.id`, `context has input.body.to && context has grant`},
		{"a name that is no identifier", find, `context.input.header["x-tenant"] == "a"`, `context has input.header && context.input.header has "x-tenant"`},
		{"a name that is a keyword", find, `context.input.query["in"] == "a"`, `context has input.query && context.input.query has "in"`},
		{"a name with a dot, and what is in it", find, `context.input.body["a.b"]["é"] == "a"`,
			`context has input.body && context.input.body has "a.b" && context.input.body["a.b"] has "é"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load := func(condition string) error {
				_, err := Load(Config{Dir: dir(t, "p.cedar", long(`@id("a") permit (principal, `+tt.scope+", resource)\nwhen { "+condition+" };")), Catalog: c})
				return err
			}
			err := load(tt.access)
			if err == nil {
				t.Fatal("it loads without a guard")
			}
			var guards []string
			for line := range strings.Lines(err.Error()) {
				_, guard, _ := strings.Cut(strings.TrimSpace(line), "ask for it first: ")
				guards = append(guards, strings.TrimSuffix(guard, " && …"))
			}
			if got := strings.Join(guards, " && "); got != tt.want {
				t.Errorf("the guard is %q, not %q: %v", got, tt.want, err)
			}
			if err := load(tt.want + " && " + tt.access); err != nil {
				t.Errorf("guarded so, it does not load: %v", err)
			}
		})
	}
}

// What is just inside the bounds must load, and not overflow anything.
func TestBounds(t *testing.T) {
	const scope = `@id("a") permit (principal, action == T::Action::"call:bank/pay", resource) when { `
	for name, condition := range map[string]string{
		"parentheses":                      strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60),
		"negations":                        strings.Repeat("!", 16_000) + "true",
		"minus signs":                      strings.Repeat("-", 16_000) + "1 == 1",
		"conjunctions":                     strings.Repeat("true&&", 5_000) + "true",
		"disjunctions":                     strings.Repeat("false||", 5_000) + "true",
		"sum":                              strings.Repeat("1+", 8_000) + "1 > 0",
		"ifs":                              strings.Repeat("if true then true else ", 3_000) + "true",
		"many short chains":                strings.Repeat("context has grant.owner.subject && ", 300) + "false || true",
		"brackets and slashes in a string": `"((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((/*\"//" != "//" // ((((((((` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := policies(t, scope+condition+" };\r\n")
			want(t, decide(t, s, call("bank/pay", nil, nil)), "allow a")
		})
	}
}

// Guards that may hold somewhere in the policy's scope load.
func TestNamesThatExist(t *testing.T) {
	for _, policy := range []string{
		`(principal, action in T::Action::"call", resource) when { context has input.body.urgent && context.input.body.urgent }`,
		`(principal, action in T::Action::"call", resource in T::ToolServer::"github") when { context has input.query.number && context.input.query.number > 3 }`,
		`(principal, action, resource) when { context has max_calls || context has grant || context has agent || context has task && context.task has ttl }`,
		`(principal, action in [ T::Action::"call:bank/pay", T::Action::"call:reports/export"], resource in T::ToolServer::"bank")`,
		`(principal, action == T::Action::"start_task", resource is T::TaskKind)`,
		`(principal, action == T::Action::"revoke", resource is T::Tool in T::ToolSet::"read")`,
		`(principal, action, resource) when { action is T::Action && action in T::Action::"call" && principal is T::Agent && (resource is T::TaskKind || resource is T::Tool in T::ToolServer::"bank") }`,
		`(principal, action == T::Action::"grant", resource) when { principal in [ T::AgentGroup::"ops"] || principal in T::Agent::"corp/a" || resource in [ T::ToolSet::"read", T::ToolSet::"write"] || principal == context.task.owner }`,
		`(principal, action == T::Action::"grant", resource) when { context.sums.isEmpty() || ["/body/amount"].containsAll(context.sums) || context.sums != ["/body/x"] }`,
		`(principal, action == T::Action::"start_task", resource) when { context.task has ttl && context.task.owner has subject && principal has issuer }`,
		`(principal, action == T::Action::"call:bank/pay", resource) when { context has input.body.lines || context has input.body.extra.ref }`,
		`(principal, action, resource is T::Tool) when { context has sums && context.sums.containsAny(["/body/amount", "/body/number", "/query/number"]) }`,
		`(principal, action == T::Action::"grant", resource == T::Tool::"bank/pay") when { context.sums == ["/body/amount", "/body/x"] && principal.subject like "` + strings.Repeat("a", maxPattern-3) + `*" }`,
	} {
		if _, err := Load(config(t, "p.cedar", long(`@id("a") permit `+policy+`;`))); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
	}
}
