package mcp

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParams(t *testing.T) {
	note := func(method, params string) HTTPRequest {
		return post(Rev20251125, `{"jsonrpc":"2.0","method":"`+method+`","params":{`+params+`}}`)
	}
	task := func(method, more string) HTTPRequest {
		return modern(method, `"taskId":"t"`+more, headerName, "t")
	}
	init := func(params string) HTTPRequest {
		return post("", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{`+params+`}}`)
	}
	complete := func(ref, argument, more string) HTTPRequest {
		return old("completion/complete", `"ref":`+ref+`,"argument":`+argument+more)
	}
	const prompt, arg = `{"type":"ref/prompt","name":"p"}`, `{"name":"a","value":""}`
	listen := func(filter string) HTTPRequest { return modern("subscriptions/listen", `"notifications":`+filter) }
	checkRules(t, world(), []rule{
		{"initialize without a revision", init(`"capabilities":{},"clientInfo":{}`), badParams},
		{"initialize without capabilities", init(`"protocolVersion":"x","clientInfo":{}`), badParams},
		{"initialize without clientInfo", init(`"protocolVersion":"x","capabilities":{}`), badParams},
		{"initialize with more", init(`"protocolVersion":"x","capabilities":{},"clientInfo":{},"x":1`), badParams},
		{"ping with more", old("ping", `"x":1`), badParams},
		{"cursor", old("tools/list", `"cursor":""`), accepted},
		{"cursor null", old("tools/list", `"cursor":null`), badParams},
		{"cursor in another case", old("tools/list", `"Cursor":"c"`), badParams},
		{"cancelled", note("notifications/cancelled", `"requestId":1,"reason":"r"`), accepted},
		{"cancelled, of nothing", note("notifications/cancelled", ``), badParams},
		{"cancelled, of a fraction", note("notifications/cancelled", `"requestId":1.5`), badParams},
		{"progress", note("notifications/progress", `"progressToken":"t","progress":0.5,"total":1,"message":"m"`), accepted},
		{"progress without", note("notifications/progress", `"progressToken":"t"`), badParams},
		{"status", note("notifications/tasks/status", `"taskId":"t","status":"working","ttl":null,"createdAt":"x","lastUpdatedAt":"y","pollInterval":5`), accepted},
		{"status without a task", note("notifications/tasks/status", `"status":"working"`), badParams},
		{"ttl as a text", note("notifications/tasks/status", `"taskId":"t","status":"working","ttl":"1"`), badParams},
		{"uri", old("resources/read", `"uri":"a:b"`), accepted},
		{"uri empty", old("resources/read", `"uri":""`), badParams},
		{"uri no text", old("resources/subscribe", `"uri":["x"]`), badParams},
		{"uri missing", old("resources/unsubscribe", ``), badParams},
		{"prompt", old("prompts/get", `"name":"p","arguments":{"a":"b"}`), accepted},
		{"prompt without a name", old("prompts/get", `"arguments":{}`), badParams},
		{"prompt with a number", old("prompts/get", `"name":"p","arguments":{"a":1}`), badParams},
		{"prompt with null", old("prompts/get", `"name":"p","arguments":{"a":null}`), badParams},
		{"arguments null", old("prompts/get", `"name":"p","arguments":null`), badParams},
		{"level", old("logging/setLevel", `"level":"notice"`), accepted},
		{"no level", old("logging/setLevel", `"level":"Notice"`), badParams},
		{"task", task("tasks/get", ``), accepted},
		{"task empty", modern("tasks/get", `"taskId":""`, headerName, ""), badParams},
		{"task with answers", task("tasks/get", `,"inputResponses":{}`), badParams},
		{"update", task("tasks/update", `,"inputResponses":{"a":{}},"requestState":"s"`), accepted},
		{"update without answers", task("tasks/update", ``), badParams},

		{"completion", complete(prompt, arg, ""), accepted},
		{"with a title", complete(`{"type":"ref/prompt","name":"p","title":"P"}`, arg, ""), accepted},
		{"of a resource", complete(`{"type":"ref/resource","uri":"a:u"}`, arg, `,"context":{"arguments":{"x":"y"}}`), accepted},
		{"of both", complete(`{"type":"ref/resource","uri":"a:u","name":"p"}`, arg, ""), badParams},
		{"by another name", complete(`{"type":"ref/resource","name":"u"}`, arg, ""), badParams},
		{"of another type", complete(`{"type":"ref/tool","name":"p"}`, arg, ""), badParams},
		{"without a type", complete(`{"name":"p"}`, arg, ""), badParams},
		{"without a name", complete(`{"type":"ref/prompt"}`, arg, ""), badParams},
		{"without an argument", old("completion/complete", `"ref":`+prompt), badParams},
		{"without a ref", old("completion/complete", `"argument":`+arg), badParams},
		{"without a value", complete(prompt, `{"name":"a"}`, ""), badParams},
		{"argument with more", complete(prompt, `{"name":"a","value":"","x":1}`, ""), badParams},
		{"value no text", complete(prompt, `{"name":"a","value":1}`, ""), badParams},
		{"context with more", complete(prompt, arg, `,"context":{"x":1}`), badParams},
		{"context with numbers", complete(prompt, arg, `,"context":{"arguments":{"x":1}}`), badParams},
		{"context empty", complete(prompt, arg, `,"context":{}`), accepted},

		{"listen", listen(`{}`), accepted},
		{"listen to more", listen(`{"rootsListChanged":true}`), badParams},
		{"listen as a text", listen(`{"toolsListChanged":"true"}`), badParams},
		{"listen to null", listen(`{"resourceSubscriptions":null}`), badParams},
		{"listen to numbers", listen(`{"taskIds":[1]}`), badParams},
		{"listen to nothing", modern("subscriptions/listen", ``), badParams},
	})
}

// TestInput: what policy sees is what the table says that it sees.
func TestInput(t *testing.T) {
	s := world()
	inputs := map[string]struct {
		in   HTTPRequest
		want map[string]any
	}{
		"resources/read":             {modern("resources/read", `"uri":"a:u"`, headerName, "a:u"), map[string]any{"uri": "a:u"}},
		"resources/subscribe":        {old("resources/subscribe", `"uri":"a:u"`), map[string]any{"uri": "a:u"}},
		"resources/unsubscribe":      {old("resources/unsubscribe", `"uri":"a:u"`), map[string]any{"uri": "a:u"}},
		"prompts/get":                {old("prompts/get", `"name":"p"`), map[string]any{"name": "p", "arguments": []any{}}},
		"logging/setLevel":           {old("logging/setLevel", `"level":"error"`), map[string]any{"level": "error"}},
		"tasks/get":                  {old("tasks/get", `"taskId":"t"`), map[string]any{"task": "t"}},
		"tasks/result":               {old("tasks/result", `"taskId":"t"`), map[string]any{"task": "t"}},
		"tasks/cancel":               {old("tasks/cancel", `"taskId":"t"`), map[string]any{"task": "t"}},
		"tasks/update":               {modern("tasks/update", `"taskId":"t","inputResponses":{}`, headerName, "t"), map[string]any{"task": "t"}},
		"notifications/tasks/status": {post(Rev20251125, `{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t","status":"working"}}`), map[string]any{"task": "t"}},
		"subscriptions/listen": {
			modern("subscriptions/listen", `"notifications":{"promptsListChanged":true,"toolsListChanged":false,"resourceSubscriptions":["a:u"]}`),
			map[string]any{"tools": false, "prompts": true, "resources": false, "uris": []any{"a:u"}, "tasks": []any{}},
		},
		"completion/complete": {
			old("completion/complete", `"ref":{"type":"ref/resource","uri":"a:u"},"argument":{"name":"a","value":"v"},"context":{"arguments":{"y":"2","x":"1"}}`),
			map[string]any{
				"ref_type": "ref/resource", "ref": "a:u", "argument": "a", "value": "v",
				"arguments": []any{map[string]any{"name": "x", "value": "1"}, map[string]any{"name": "y", "value": "2"}},
			},
		},
		"response": {post(Rev20251125, `{"jsonrpc":"2.0","id":1,"result":{}}`), map[string]any{"result": "{}"}},
	}
	for _, m := range Methods() {
		c, ok := inputs[m.Name]
		if !ok {
			if len(m.Input) > 0 {
				t.Errorf("%s has no case here", m.Name)
			}
			continue
		}
		msg := mustRead(t, s, c.in)
		if diff := cmp.Diff(c.want, msg.Input); diff != "" || msg.Method != m {
			t.Errorf("%s: %s", m.Name, diff)
		}
		var names []string
		for _, p := range m.Input {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		if diff := cmp.Diff(names, slices.Sorted(maps.Keys(msg.Input))); diff != "" {
			t.Errorf("%s: not what the table says: %s", m.Name, diff)
		}
	}
	if msg := mustRead(t, s, old("ping", "")); msg.Input == nil {
		t.Error("the input of a method without one is nil")
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Methods() {
		if seen[m.Name] || m.Since == "" || m.Until != "" && m.Until < m.Since {
			t.Errorf("%s: twice, or in no revision", m.Name)
		}
		seen[m.Name] = true
		for _, member := range m.Members {
			if shapes[member].is == nil {
				t.Errorf("%s: %s has no shape", m.Name, member)
			}
		}
		for _, member := range m.Require {
			if !slices.Contains(m.Members, member) && (!m.Retry || member != "inputResponses") {
				t.Errorf("%s: %s is required but no member", m.Name, member)
			}
		}
		if m.Subject != "" && m.Name != ToolsCall && !slices.ContainsFunc(m.Input, func(p Param) bool { return p.Name == m.Subject }) {
			t.Errorf("%s: policy does not see its subject", m.Name)
		}
		if found, ok := Lookup(m.Name, m.Kind); !ok || found != m {
			t.Errorf("%s cannot be looked up", m.Name)
		}
		if want := "mcp:" + m.Name; m.Action() != want && m.Name != ToolsCall {
			t.Errorf("%s: action %s", m.Name, m.Action())
		}
	}
	for _, revision := range Revisions() {
		for _, must := range []string{ToolsCall, "tools/list", "resources/read"} {
			if m, ok := Lookup(must, Request); !ok || !m.In(revision) {
				t.Errorf("%s has no %s", revision, must)
			}
		}
	}
	for name, in := range map[string]bool{"GET": true, "resume": true, "DELETE": true, "initialize": true, "server/discover": false, "tasks/get": true, "tasks/update": false} {
		kind := Request
		if slices.Contains([]string{http.MethodGet, resume, http.MethodDelete}, name) {
			kind = Verb
		}
		if m, _ := Lookup(name, kind); m.In(Rev20251125) != in {
			t.Errorf("2025-11-25 and %s: %v", name, !in)
		}
	}
}
