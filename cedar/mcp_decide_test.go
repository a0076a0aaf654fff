package cedar

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
)

// askMCP is what builder1 asks of an MCP server, in the newest revision that has the
// method; nil stands for no parameters.
func askMCP(name, server string, input map[string]any) grants.Input {
	if input == nil {
		input = map[string]any{}
	}
	in := grants.Input{Action: "mcp:" + name, Requester: builder1, Principal: builder1, Server: server, Args: input, At: now}
	for _, m := range mcp.Methods() {
		for _, revision := range mcp.Revisions() {
			if m.Name == name && m.In(revision) {
				in.Revision = revision
			}
		}
	}
	return in
}

// under puts a question under a grant for the tool.
func under(in grants.Input, tool string) grants.Input {
	in.Task, in.Grant = testTask("release"), testGrant(tool)
	return in
}

func callMCP(tool string, g *grants.Grant, args any) grants.Input {
	in := call(tool, g, args)
	in.Revision = mcp.Rev20260728
	return in
}

func retried(in grants.Input, responses string) grants.Input {
	in.Retry = &grants.Retry{Responses: responses, State: true}
	return in
}

// Every question has exactly the type that policies were validated for.
func TestMCPQuestions(t *testing.T) {
	s := mcpPolicies(t, permitAll)
	pair := func(name, value string) any { return map[string]any{"name": name, "value": value} }
	const (
		requester = `"requester":Toolgrant::Agent::"corp/bot"`
		grant     = `"grant":{"age":60, "bound":false, "depth":0, "id":"g_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead", "task":"t_1", "ttl":540}`
		modern    = `"revision":"2026-07-28"`
		legacy    = `"revision":"2025-11-25"`
	)
	for name, tt := range map[string]struct {
		in   grants.Input
		want string // action, resource, context
	}{
		"no parameters": {askMCP("ping", "forge", nil), `mcp:ping ToolServer::"forge" {"input":{}, ` + requester + `, ` + legacy + `}`},
		"a notification": {askMCP("notifications/tasks/status", "forge", map[string]any{"task": "1"}),
			`mcp:notifications/tasks/status ToolServer::"forge" {"input":{"task":"1"}, ` + requester + `, ` + legacy + `}`},
		"no message": {under(askMCP("DELETE", "forge", nil), "forge/merge"), `mcp:DELETE ToolServer::"forge" {` + grant + `, "input":{}, ` + requester + `, ` + legacy + `}`},
		"a text": {askMCP("resources/read", "notes", map[string]any{"uri": "file:///a"}),
			`mcp:resources/read ToolServer::"notes" {"input":{"uri":"file:///a"}, ` + requester + `, ` + modern + `}`},
		"a retry in a grant": {retried(under(askMCP("resources/read", "forge", map[string]any{"uri": ""}), "forge/run"), `{"a":{}}`),
			`mcp:resources/read ToolServer::"forge" {` + grant + `, "input":{"uri":""}, ` + requester + `, "retry":{"responses":"{\"a\":{}}", "state":true}, ` + modern + `}`},
		"pairs": {askMCP("prompts/get", "forge", map[string]any{"name": "p", "arguments": []any{pair("a", "b")}}),
			`mcp:prompts/get ToolServer::"forge" {"input":{"arguments":[{"name":"a", "value":"b"}], "name":"p"}, ` + requester + `, ` + modern + `}`},
		"truths and sets": {askMCP("subscriptions/listen", "forge", map[string]any{"tools": true, "prompts": false, "resources": false, "uris": []any{"u"}, "tasks": []any{}}),
			`mcp:subscriptions/listen ToolServer::"forge" {"input":{"prompts":false, "resources":false, "tasks":[], "tools":true, "uris":["u"]}, ` + requester + `, ` + modern + `}`},
		"an answer":                  {askMCP("response", "forge", map[string]any{"result": `{"x":1}`}), `mcp:response ToolServer::"forge" {"input":{"result":"{\"x\":1}"}, ` + requester + `, ` + legacy + `}`},
		"an answer without a result": {askMCP("response", "forge", nil), `mcp:response ToolServer::"forge" {"input":{}, ` + requester + `, ` + legacy + `}`},
		"a call": {callMCP("forge/merge", nil, parse(t, `{"number": 7, "amount": 1.5, "note": [null, 1e300]}`)),
			`call:forge/merge Tool::"forge/merge" {"input":{"amount":decimal("1.5"), "number":7}, ` + requester + `, ` + modern + `}`},
		"a call of a meta-tool": {callMCP("forge/run", nil, parse(t, `{"name": "mergePR", "arguments": {"number": null}}`)),
			`call:forge/run Tool::"forge/run" {"input":{"name":"mergePR"}, ` + requester + `, ` + modern + `}`},
		"a call that is retried": {retried(callMCP("forge/status", testGrant("forge/status"), parse(t, `{}`)), ""),
			`call:forge/status Tool::"forge/status" {` + grant + `, "input":{}, ` + requester + `, "retry":{"responses":"", "state":true}, ` + modern + `}`},
		"a call whose input is not known": {callMCP("forge/merge", nil, nil), `call:forge/merge Tool::"forge/merge" {` + requester + `, ` + modern + `}`},
		"an old call": {with(callMCP("forge/status", nil, nil), func(in *grants.Input) { in.Revision = mcp.Rev20250326 }),
			`call:forge/status Tool::"forge/status" {` + requester + `, "revision":"2025-03-26"}`},
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
			checkRequest(t, s.schema, &q)
			want(t, decide(t, s, tt.in), "allow all")
			doc, err := q.document()
			if err != nil {
				t.Fatal(err)
			}
			if d, err := s.DecideExample(doc); err != nil || !d.Allow {
				t.Errorf("written down, it is %+v, %v", d, err)
			}
		})
	}
}

// What does not make a question is never allowed, whatever policy says.
func TestMCPMalformed(t *testing.T) {
	s := mcpPolicies(t, permitAll)
	read := askMCP("resources/read", "forge", map[string]any{"uri": "a"})
	inside := under(read, "forge/merge")
	ping := askMCP("ping", "forge", nil)
	merge := callMCP("forge/merge", testGrant("forge/merge"), parse(t, `{"number": 7}`))
	pay := call("bank/pay", nil, nil)
	prompt := askMCP("prompts/get", "forge", map[string]any{"name": "p", "arguments": []any{map[string]any{"name": "a", "value": "b"}}})
	listen := askMCP("subscriptions/listen", "forge", map[string]any{"tools": true, "prompts": false, "resources": false, "uris": []any{"u"}, "tasks": []any{}})
	for _, in := range []grants.Input{read, inside, ping, merge, pay, prompt, listen, retried(inside, "{}"), retried(merge, "{}")} {
		want(t, decide(t, s, in), "allow all")
	}
	input := func(in *grants.Input, members map[string]any) { in.Args = members }
	for _, tt := range []struct {
		name string
		from grants.Input
		to   func(*grants.Input)
		want string
	}{
		{"unknown method", read, func(in *grants.Input) { in.Action = "mcp:resources/write" }, "undecided"},
		{"tools/call", read, func(in *grants.Input) { in.Action = "mcp:tools/call" }, "undecided"},
		{"the parent", read, func(in *grants.Input) { in.Action = "mcp" }, "undecided"},
		{"the parent of notifications", ping, func(in *grants.Input) { in.Action = "mcp:notifications" }, "undecided"},
		{"no method", read, func(in *grants.Input) { in.Action = "mcp:" }, "undecided"},
		{"another case", ping, func(in *grants.Input) { in.Action = "mcp:Ping" }, "undecided"},
		{"no server", read, func(in *grants.Input) { in.Server = "" }, "unknown_tool"},
		{"unknown server", read, func(in *grants.Input) { in.Server = "gitlab" }, "unknown_tool"},
		{"an HTTP service", read, func(in *grants.Input) { in.Server = "bank" }, "unknown_tool"},
		{"a tool for a server", read, func(in *grants.Input) { in.Server = "forge/merge" }, "unknown_tool"},
		{"a tool beside it", read, func(in *grants.Input) { in.Tool = "forge/merge" }, "undecided"},
		{"no principal", read, func(in *grants.Input) { in.Principal = grants.Principal{} }, "undecided"},
		{"no time", read, func(in *grants.Input) { in.At = time.Time{} }, "undecided"},
		{"no input", read, func(in *grants.Input) { in.Args = nil }, "undecided"},
		{"no revision", read, func(in *grants.Input) { in.Revision = "" }, "undecided"},
		{"unknown revision", read, func(in *grants.Input) { in.Revision = "2025-11-24" }, "undecided"},
		{"a revision to come", read, func(in *grants.Input) { in.Revision = "2027-01-01" }, "undecided"},
		{"a revision without the method", ping, func(in *grants.Input) { in.Revision = mcp.Rev20260728 }, "undecided"},
		{"a retry where there is none", askMCP("tools/list", "forge", nil), func(in *grants.Input) { *in = retried(*in, "{}") }, "undecided"},
		{"a retry before there were any", retried(read, "{}"), func(in *grants.Input) { in.Revision = mcp.Rev20251125 }, "undecided"},
		{"a grant that cannot cover it", ping, func(in *grants.Input) { *in = under(*in, "forge/merge") }, "undecided"},
		{"a grant without a task", inside, func(in *grants.Input) { in.Task = nil }, "undecided"},
		{"a task without a grant", inside, func(in *grants.Input) { in.Grant = nil }, "undecided"},
		{"a grant of another task", inside, func(in *grants.Input) { in.Grant.Task = "t_2" }, "undecided"},
		{"another's grant", inside, func(in *grants.Input) { in.Grant.Agent.Subject = "other" }, "undecided"},
		{"a grant for a tool of another server", inside, func(in *grants.Input) { in.Server = "notes" }, "undecided"},
		{"a grant for an HTTP tool", inside, func(in *grants.Input) { in.Grant.Tool = "bank/pay" }, "undecided"},
		{"a grant for no tool", inside, func(in *grants.Input) { in.Grant.Tool = "forge/nosuch" }, "undecided"},
		{"a task without an owner", inside, func(in *grants.Input) { in.Task.Owner = grants.Principal{} }, "undecided"},
		{"another parameter", read, func(in *grants.Input) { input(in, map[string]any{"uri": "a", "cursor": "b"}) }, "unrepresentable"},
		{"a parameter too few", read, func(in *grants.Input) { input(in, map[string]any{}) }, "unrepresentable"},
		{"a parameter where there is none", ping, func(in *grants.Input) { input(in, map[string]any{"uri": "a"}) }, "unrepresentable"},
		{"another type", read, func(in *grants.Input) { input(in, map[string]any{"uri": true}) }, "unrepresentable"},
		{"null", read, func(in *grants.Input) { input(in, map[string]any{"uri": nil}) }, "unrepresentable"},
		{"a list for a text", read, func(in *grants.Input) { input(in, map[string]any{"uri": []any{"a"}}) }, "unrepresentable"},
		{"an entity for a text", read, func(in *grants.Input) {
			input(in, map[string]any{"uri": map[string]any{"__entity": map[string]any{"type": "Toolgrant::Agent", "id": "corp/a"}}})
		}, "unrepresentable"},
		{"no object", read, func(in *grants.Input) { in.Args = "a" }, "unrepresentable"},
		{"a pair too much", prompt, func(in *grants.Input) {
			input(in, map[string]any{"name": "p", "arguments": []any{map[string]any{"name": "a", "value": "b", "x": "y"}}})
		}, "unrepresentable"},
		{"half a pair", prompt, func(in *grants.Input) {
			input(in, map[string]any{"name": "p", "arguments": []any{map[string]any{"name": "a"}}})
		}, "unrepresentable"},
		{"an object for pairs", prompt, func(in *grants.Input) {
			input(in, map[string]any{"name": "p", "arguments": map[string]any{"a": "b"}})
		}, "unrepresentable"},
		{"a number in a set of texts", listen, func(in *grants.Input) { in.Args.(map[string]any)["uris"] = []any{"u", 1} }, "unrepresentable"},
		{"what policy would count once", listen, func(in *grants.Input) { in.Args.(map[string]any)["uris"] = []any{"u", "u"} }, "unrepresentable"},
		{"call: no revision", merge, func(in *grants.Input) { in.Revision = "" }, "undecided"},
		{"call: unknown revision", merge, func(in *grants.Input) { in.Revision = "draft" }, "undecided"},
		{"call: a server beside it", merge, func(in *grants.Input) { in.Server = "forge" }, "undecided"},
		{"call: a retry before there were any", retried(merge, "{}"), func(in *grants.Input) { in.Revision = mcp.Rev20250618 }, "undecided"},
		{"call: a body", merge, func(in *grants.Input) { in.Args = parse(t, `{"body": {"number": 7}}`) }, "unrepresentable"},
		{"call: an argument that is not declared", merge, func(in *grants.Input) { in.Args = parse(t, `{"number": 7, "force": true}`) }, "unrepresentable"},
		{"HTTP call: a revision", pay, func(in *grants.Input) { in.Revision = mcp.Rev20260728 }, "undecided"},
		{"HTTP call: a retry", pay, func(in *grants.Input) { *in = retried(*in, "{}") }, "undecided"},
		{"HTTP call: a server", pay, func(in *grants.Input) { in.Server = "bank" }, "undecided"},
		{"start: a server", startTask("release"), func(in *grants.Input) { in.Server = "forge" }, "undecided"},
		{"start: a revision", startTask("release"), func(in *grants.Input) { in.Revision = mcp.Rev20260728 }, "undecided"},
		{"grant: a revision", grantTool("forge/merge"), func(in *grants.Input) { in.Revision = mcp.Rev20260728 }, "undecided"},
		{"grant: a retry", grantTool("forge/merge"), func(in *grants.Input) { *in = retried(*in, "{}") }, "undecided"},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, decide(t, s, with(tt.from, tt.to)), tt.want) })
	}
}

// Policies meet what they are about, and nothing else.
func TestMCPDecide(t *testing.T) {
	inside := `@id("inside-a-grant") permit (principal, action in T::Action::"call", resource) when { context has grant };` + "\n"
	read := func(server, uri string) grants.Input {
		return askMCP("resources/read", server, map[string]any{"uri": uri})
	}
	merge := func(args string) grants.Input {
		return callMCP("forge/merge", testGrant("forge/merge"), parse(t, args))
	}
	for _, tt := range []struct {
		name, policies string
		in             grants.Input
		want           string
	}{
		{"start-up", MCPBaseline, askMCP("initialize", "forge", nil), "allow mcp-start-up-needs-no-grant"},
		{"start-up, the new way", MCPBaseline, askMCP("server/discover", "notes", nil), "allow mcp-start-up-needs-no-grant"},
		{"a notification", MCPBaseline, askMCP("notifications/cancelled", "notes", nil), "allow mcp-start-up-needs-no-grant"},
		{"no start-up", MCPBaseline, read("forge", "a"), "policy"},
		{"no start-up: an answer", MCPBaseline, askMCP("response", "forge", nil), "policy"},
		{"no start-up: a stream", MCPBaseline, askMCP("GET", "forge", nil), "policy"},
		{"no start-up: what a stream has carried", MCPBaseline, askMCP("resume", "forge", nil), "policy"},
		{"no start-up: a call", MCPBaseline, callMCP("forge/status", nil, parse(t, `{}`)), "policy"},
		{"a grant for calls covers no reading", inside, under(read("forge", "a"), "forge/merge"), "policy"},
		{"a grant for calls covers no prompt", inside, under(askMCP("prompts/get", "forge", map[string]any{"name": "a", "arguments": []any{}}), "forge/merge"), "policy"},
		{"a grant for calls covers calls", inside, merge(`{"number": 7}`), "allow inside-a-grant"},
		{"by a grant", `@id("a") permit (principal, action == T::Action::"mcp:resources/read", resource) when { context has grant && context.grant.kind == "release" };`,
			under(read("forge", "a"), "forge/status"), "allow a"},
		{"by a grant, without one", `@id("a") permit (principal, action == T::Action::"mcp:resources/read", resource) when { context has grant && context.grant.kind == "release" };`,
			read("forge", "a"), "policy"},
		{"by the server", `@id("a") permit (principal, action in T::Action::"mcp", resource == T::ToolServer::"notes");`, read("notes", "a"), "allow a"},
		{"of another server", `@id("a") permit (principal, action in T::Action::"mcp", resource == T::ToolServer::"notes");`, read("forge", "a"), "policy"},
		{"by the input", `@id("a") permit (principal, action == T::Action::"mcp:resources/read", resource) when { context.input.uri like "file:///docs/*" };`,
			read("notes", "file:///docs/x"), "allow a"},
		{"by the input, another", `@id("a") permit (principal, action == T::Action::"mcp:resources/read", resource) when { context.input.uri like "file:///docs/*" };`,
			read("notes", "file:///etc"), "policy"},
		{"a forbid by a parent", permitAll + `@id("f") forbid (principal, action in T::Action::"mcp:notifications", resource in T::ToolServer::"forge");`,
			askMCP("notifications/progress", "forge", nil), "policy f"},
		{"a forbid by a parent's parent", permitAll + `@id("f") forbid (principal, action in T::Action::"mcp", resource);`,
			askMCP("notifications/progress", "forge", nil), "policy f"},
		{"a forbid of notifications alone", permitAll + `@id("f") forbid (principal, action in T::Action::"mcp:notifications", resource);`, askMCP("ping", "forge", nil), "allow all"},
		{"a forbid for MCP, of a call", permitAll + `@id("f") forbid (principal, action in T::Action::"mcp", resource);`, merge(`{"number": 7}`), "allow all"},
		{"a forbid by the server, of a call", permitAll + `@id("f") forbid (principal, action, resource in T::ToolServer::"forge");`, merge(`{"number": 7}`), "policy f"},
		{"a forbid by the server, of what it is asked", permitAll + `@id("f") forbid (principal, action, resource in T::ToolServer::"forge");`, askMCP("ping", "forge", nil), "policy f"},
		{"a forbid by the revision", permitAll + `@id("f") forbid (principal, action in T::Action::"mcp", resource) when { context.revision == "2025-11-25" };`, askMCP("ping", "forge", nil), "policy f"},
		{"no retries", permitAll + `@id("f") forbid (principal, action in T::Action::"call", resource) when { context has retry };`, retried(merge(`{"number": 7}`), "{}"), "policy f"},
		{"no retries, and it is none", permitAll + `@id("f") forbid (principal, action in T::Action::"call", resource) when { context has retry };`, merge(`{"number": 7}`), "allow all"},
		{"what is answered", permitAll + `@id("f") forbid (principal, action == T::Action::"call:forge/merge", resource) when { context has retry && context.retry.responses like "*decline*" };`,
			retried(merge(`{"number": 7}`), `{"a":{"action":"decline"}}`), "policy f"},
		{"arguments", permitAll + `@id("f") forbid (principal, action == T::Action::"call:forge/merge", resource) unless { context has input.amount && context.input.amount.lessThan(decimal("10.0")) };`,
			merge(`{"number": 7, "amount": 10}`), "policy f"},
		{"an erring forbid", permitAll + `@id("f") forbid (principal, action in T::Action::"mcp", resource) when { T::Agent::"corp/ghost".subject == "x" };`, askMCP("ping", "forge", nil), "policy_error f"},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, decide(t, mcpPolicies(t, tt.policies), tt.in), tt.want) })
	}
}

// One batch may have calls and what servers are asked; all is of one revision.
func TestMCPBatch(t *testing.T) {
	s := mcpPolicies(t, MCPBaseline)
	ds, err := s.Decide(context.Background(), []grants.Input{askMCP("ping", "forge", nil), callMCP("forge/merge", nil, nil), askMCP("ping", "bank", nil)})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"allow mcp-start-up-needs-no-grant", "policy", "unknown_tool"} {
		want(t, ds[i], text)
		if ds[i].Revision != s.Revision() {
			t.Errorf("%d: another revision", i)
		}
	}
}
