package mcp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/strictjson"
)

func TestCalls(t *testing.T) {
	retry := func(more string) HTTPRequest {
		return modern("tools/call", `"name":"echo"`+more, headerName, "echo")
	}
	asTask := func(revision, tool, task string) HTTPRequest {
		return post(revision, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","task":`+task+`}}`)
	}
	checkRules(t, world(), []rule{
		{"without arguments", old("tools/call", `"name":"echo"`), accepted},
		{"of a tool that the catalogue has not", old("tools/call", `"name":"none"`), accepted},
		{"without a name", old("tools/call", ``), badParams},
		{"without params", post(Rev20251125, `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`), badParams},
		{"name empty", old("tools/call", `"name":""`), badParams},
		{"name no text", old("tools/call", `"name":{"name":"echo"}`), badParams},
		{"name in another case", old("tools/call", `"Name":"echo"`), badParams},
		{"arguments null", old("tools/call", `"name":"echo","arguments":null`), badParams},
		{"arguments a list", old("tools/call", `"name":"echo","arguments":[]`), badParams},
		{"arguments a text", old("tools/call", `"name":"echo","arguments":"{}"`), badParams},
		{"more", old("tools/call", `"name":"echo","input":{}`), badParams},
		{"answers", retry(`,"inputResponses":{"a":{"action":"accept"}}`), accepted},
		{"state", retry(`,"requestState":""`), accepted},
		{"answers null", retry(`,"inputResponses":null`), badParams},
		{"answers a list", retry(`,"inputResponses":[]`), badParams},
		{"answers of texts", retry(`,"inputResponses":{"a":{},"b":"yes"}`), badParams},
		{"answers without one text", retry(`,"inputResponses":{"a":{"n":0.12345678901234567890}}`), badParams},
		{"state no text", retry(`,"requestState":1`), badParams},
		{"answers before there were any", old("tools/call", `"name":"echo","inputResponses":{}`), badParams},
		{"state before there was any", old("tools/call", `"name":"echo","requestState":"s"`), badParams},
		{"answers where none are", modern("tools/list", `"inputResponses":{}`), badParams},
		{"task", asTask(Rev20251125, "job", `{"ttl":60}`), accepted},
		{"task of a tool that the catalogue has not", asTask(Rev20251125, "none", `{}`), accepted},
		{"task of a tool without", asTask(Rev20251125, "echo", `{}`), badParams},
		{"task before there were any", asTask(Rev20250618, "job", `{}`), badParams},
		{"task since the extension", modern("tools/call", `"name":"job","task":{}`, headerName, "job"), badParams},
		{"task null", asTask(Rev20251125, "job", `null`), badParams},
		{"task with more", asTask(Rev20251125, "job", `{"taskId":"t"}`), badParams},
		{"ttl a text", asTask(Rev20251125, "job", `{"ttl":"60"}`), badParams},
	})
	m := mustRead(t, world(), retry(`,"inputResponses":{"b":{"n":1.0},"a":{}},"requestState":"s"`))
	if diff := cmp.Diff(&Retry{Responses: `{"a":{},"b":{"n":1}}`, State: true}, m.Retry); diff != "" {
		t.Error(diff)
	}
	if m := mustRead(t, world(), retry("")); m.Retry != nil || m.AsTask {
		t.Errorf("a plain call: %+v", m)
	}
	if m := mustRead(t, world(), asTask(Rev20251125, "job", `{}`)); !m.AsTask {
		t.Error("not seen as a task")
	}
}

func TestInnerCalls(t *testing.T) {
	call := func(tool, arguments string) HTTPRequest {
		return old("tools/call", `"name":"`+tool+`","arguments":`+arguments)
	}
	checkRules(t, world(), []rule{
		{"no inner name", call("call_tool", `{}`), badParams},
		{"inner name empty", call("call_tool", `{"name":""}`), badParams},
		{"inner name no text", call("call_tool", `{"name":["echo"]}`), badParams},
		{"inner name null", call("call_tool", `{"name":null}`), badParams},
		{"inner arguments null", call("call_tool", `{"name":"echo","arguments":null}`), badParams},
		{"inner arguments a text", call("call_tool", `{"name":"echo","arguments":"{}"}`), badParams},
		{"inner arguments a list", call("call_tool", `{"name":"echo","arguments":[]}`), badParams},
		{"nothing where they should be", call("deep", `{}`), badParams},
		{"no object where they should be", call("deep", `{"in":[]}`), badParams},
		{"no object on the way to them", call("apart", `{"what":"echo","in":5}`), badParams},
		{"null on the way to them", call("apart", `{"what":"echo","in":null}`), badParams},
		{"nothing on the way to them", call("apart", `{"what":"echo"}`), accepted},
		{"an inner one names none", call("call_tool", `{"name":"call_tool","arguments":{"arguments":{}}}`), badParams},
	})

	for _, c := range []struct {
		in   HTTPRequest
		want []Call
	}{
		{old("tools/call", `"name":"echo"`), []Call{{"echo", map[string]any{}}}},
		{call("call_tool", `{"name":"echo"}`), []Call{
			{"call_tool", map[string]any{"name": "echo"}}, {"echo", map[string]any{}},
		}},
		{call("start", `{"what":"echo","arguments":{"a":1}}`), []Call{
			{"start", map[string]any{"what": "echo", "arguments": map[string]any{"a": strictjson.Number("1")}}}, {"echo", map[string]any{}},
		}},
		{call("call_tool", `{"name":"deep","arguments":{"in":{"tool":"none","with":{"a":true}}}}`), []Call{
			{"call_tool", map[string]any{"name": "deep", "arguments": map[string]any{"in": map[string]any{"tool": "none", "with": map[string]any{"a": true}}}}},
			{"deep", map[string]any{"in": map[string]any{"tool": "none", "with": map[string]any{"a": true}}}},
			{"none", map[string]any{"a": true}},
		}},
	} {
		if diff := cmp.Diff(c.want, mustRead(t, world(), c.in).Calls); diff != "" {
			t.Errorf("%s: %s", c.in.Body, diff)
		}
	}

	nested := func(tools int) HTTPRequest {
		arguments := `{}`
		for range tools - 2 {
			arguments = `{"name":"call_tool","arguments":` + arguments + `}`
		}
		return call("call_tool", strings.Replace(arguments, `{}`, `{"name":"echo"}`, 1))
	}
	if m := mustRead(t, world(), nested(MaxInner)); len(m.Calls) != MaxInner || m.Calls[MaxInner-1].Name != "echo" {
		t.Errorf("calls %v", m.Calls)
	}
	if _, no := Read(world(), nested(MaxInner+1)); got(no) != badParams {
		t.Errorf("over %d tools: %+v", MaxInner, no)
	}
}

func TestTasks(t *testing.T) {
	related := `"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"r"}}`
	for _, c := range []struct {
		in   HTTPRequest
		want []string
	}{
		{old("tasks/get", `"taskId":"t"`), []string{"t"}},
		{old("tasks/result", `"taskId":"t",`+related), []string{"r", "t"}},
		{old("tools/call", `"name":"echo",`+related), []string{"r"}},
		{modern("tasks/update", `"taskId":"t","inputResponses":{}`, headerName, "t"), []string{"t"}},
		{modern("subscriptions/listen", `"notifications":{"taskIds":["t","u"]}`), []string{"t", "u"}},
		{post(Rev20251125, `{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t","status":"working"}}`), []string{"t"}},
		{old("tasks/list", ""), nil},
	} {
		if diff := cmp.Diff(c.want, mustRead(t, world(), c.in).Tasks); diff != "" {
			t.Errorf("%s: %s", c.in.Body, diff)
		}
	}
}
