package mcp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const initialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`

func TestEnvelope(t *testing.T) {
	body := func(b string) HTTPRequest { return post(Rev20251125, b) }
	id := func(id string) HTTPRequest { return body(`{"jsonrpc":"2.0","id":` + id + `,"method":"ping"}`) }
	deep := func(n int) HTTPRequest {
		return old("tools/call", `"name":"echo","arguments":{"a":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`}`)
	}
	checkRules(t, world(), []rule{
		{"request", id("1"), accepted},
		{"no body", body(""), parse},
		{"cut off", body(`{"jsonrpc":"2.0"`), parse},
		{"byte order mark", body("\ufeff" + string(id("1").Body)), parse},
		{"second object", body(string(id("1").Body) + `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}`), parse},
		{"comment", body(`{"jsonrpc":"2.0",/**/"id":1,"method":"ping"}`), parse},
		{"not UTF-8", body("{\"jsonrpc\":\"2.0\",\"id\":\"\xff\",\"method\":\"ping\"}"), parse},
		{"duplicate", body(`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}`), invalid},
		{"duplicate by an escape", body(`{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/list"}`), invalid},
		{"duplicate by case", body(`{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/list"}`), invalid},
		{"duplicate far down", old("tools/call", `"name":"echo","arguments":{"a":[{"b":1,"B":2}]}`), invalid},
		{"integer that JavaScript rounds", old("tools/call", `"name":"echo","arguments":{"a":9007199254740993}`), invalid},
		{"name in another case", body(`{"jsonrpc":"2.0","id":1,"Method":"ping"}`), invalid},
		{"deep", deep(maxDepth - 3), accepted},
		{"too deep", deep(maxDepth - 2), want{TooLarge, 400, CodeInvalid}},
		{"too long", old("tools/call", `"name":"echo","arguments":{"a":"`+strings.Repeat("x", 1<<20)+`"}`), tooLarge},
		{"prototype", old("tools/call", `"name":"echo","arguments":{"a":[{"__proto__":{"b":1}}]}`), invalid},
		{"prototype of params", old("tools/list", `"__proto__":{}`), invalid},
		{"prototype as a value", old("tools/call", `"name":"echo","arguments":{"a":"__proto__"}`), accepted},

		{"batch", body(`[` + string(id("1").Body) + `]`), invalid},
		{"batch of the revision that had them", post(Rev20250326, `[`+string(id("1").Body)+`]`), invalid},
		{"batch without a revision", post("", `[`+string(id("1").Body)+`]`), invalid},
		{"empty batch", body(`[]`), invalid},
		{"string", body(`"ping"`), invalid},
		{"null", body(`null`), invalid},
		{"no version", body(`{"id":1,"method":"ping"}`), invalid},
		{"version 1", body(`{"jsonrpc":"1.0","id":1,"method":"ping"}`), invalid},
		{"version as a number", body(`{"jsonrpc":2.0,"id":1,"method":"ping"}`), invalid},
		{"member of none", body(`{"jsonrpc":"2.0","id":1,"method":"ping","meta":1}`), invalid},
		{"method and result", body(`{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}`), invalid},
		{"method and error", body(`{"jsonrpc":"2.0","id":1,"method":"ping","error":null}`), invalid},
		{"neither", body(`{"jsonrpc":"2.0","id":1}`), invalid},
		{"method null", body(`{"jsonrpc":"2.0","id":1,"method":null}`), invalid},
		{"method no string", body(`{"jsonrpc":"2.0","id":1,"method":["ping"]}`), invalid},

		{"id 0", id("0"), accepted},
		{"id below 0", id("-9007199254740991"), accepted},
		{"id string", id(`"a"`), accepted},
		{"long id", id(`"` + strings.Repeat("x", maxID) + `"`), accepted},
		{"too long id", id(`"` + strings.Repeat("x", maxID+1) + `"`), invalid},
		{"id null", id("null"), invalid},
		{"id with a fraction", id("1.0"), invalid},
		{"id with an exponent", id("1e2"), invalid},
		{"id minus zero", id("-0"), invalid},
		{"id truth", id("true"), invalid},
		{"id object", id("{}"), invalid},
		{"large id", id("1e21"), invalid},

		{"params array", body(`{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}`), badParams},
		{"params null", body(`{"jsonrpc":"2.0","id":1,"method":"ping","params":null}`), badParams},
		{"no params", id("1"), accepted},
		{"meta no object", old("ping", `"_meta":[]`), badParams},
		{"meta null", old("ping", `"_meta":null`), badParams},
		{"free meta", old("ping", `"_meta":{"com.example/x":{"y":[1]}}`), accepted},
		{"progress token", old("tools/list", `"_meta":{"progressToken":"p"}`), accepted},
		{"progress token with a fraction", old("tools/list", `"_meta":{"progressToken":1.5}`), badParams},
		{"progress token null", old("tools/list", `"_meta":{"progressToken":null}`), badParams},
		{"related task", old("tools/list", `"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}`), accepted},
		{"related task without id", old("tools/list", `"_meta":{"io.modelcontextprotocol/related-task":{}}`), badParams},
		{"related task of an empty id", old("tools/list", `"_meta":{"io.modelcontextprotocol/related-task":{"taskId":""}}`), badParams},
		{"related task with more", old("tools/list", `"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t","id":"u"}}`), badParams},
		{"related task as a text", old("tools/list", `"_meta":{"io.modelcontextprotocol/related-task":"t"}`), badParams},
	})
}

func TestKinds(t *testing.T) {
	body := func(b string) HTTPRequest { return post(Rev20251125, b) }
	checkRules(t, world(), []rule{
		{"unknown method", old("tools/run", ""), unknown},
		{"method in another case", old("Tools/Call", `"name":"echo"`), unknown},
		{"method with a blank", old("tools/call ", `"name":"echo"`), unknown},
		{"call without an id", body(`{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}`), unknown},
		{"notification with an id", old("notifications/initialized", ""), unknown},
		{"notification", body(`{"jsonrpc":"2.0","method":"notifications/initialized"}`), accepted},
		{"GET as a method", old("GET", ""), unknown},
		{"resume as a method", old("resume", ""), unknown},
		{"response as a method", body(`{"jsonrpc":"2.0","id":1,"method":"response"}`), unknown},
		{"not yet", old("server/discover", ""), unknown},
		{"no more", modern("ping", ""), unknown},
		{"not yet: tasks", post(Rev20250618, string(old("tasks/get", `"taskId":"t"`).Body)), unknown},
		{"method of the server's", old("sampling/createMessage", ""), unknown},
	})
}

// TestAsked: what was asked for is told, and bounded.
func TestAsked(t *testing.T) {
	for name, want := range map[string]string{
		"tools/run": "tools/run", `a\n\u001b[31m`: "a\n\x1b[31m", "ping": "ping", "": "",
		strings.Repeat("x", maxAsked+1):        strings.Repeat("x", maxAsked),
		strings.Repeat("x", maxAsked-1) + "é…": strings.Repeat("x", maxAsked-1),
	} {
		if _, no := Read(world(), modern(name, "")); got(no) != unknown || no.Asked != want {
			t.Errorf("%s: %+v; want %q asked for", name, no, want)
		}
	}
}

func TestResponses(t *testing.T) {
	res := func(members string) HTTPRequest { return post(Rev20251125, `{"jsonrpc":"2.0","id":3,`+members+`}`) }
	checkRules(t, world(), []rule{
		{"result", res(`"result":{}`), accepted},
		{"error", res(`"error":{"code":-1,"message":"no"}`), accepted},
		{"error with data", res(`"error":{"code":-1,"message":"no","data":[1]}`), accepted},
		{"both", res(`"result":{},"error":{"code":-1,"message":"no"}`), invalid},
		{"no id", post(Rev20251125, `{"jsonrpc":"2.0","result":{}}`), invalid},
		{"id null", post(Rev20251125, `{"jsonrpc":"2.0","id":null,"result":{}}`), invalid},
		{"params", res(`"result":{},"params":{}`), invalid},
		{"result no object", res(`"result":[]`), invalid},
		{"result null", res(`"result":null`), invalid},
		{"result without one text", res(`"result":{"n":0.12345678901234567890}`), invalid},
		{"error null", res(`"error":null`), invalid},
		{"error without a message", res(`"error":{"code":-1}`), invalid},
		{"message no text", res(`"error":{"code":-1,"message":["no"]}`), invalid},
		{"code as a text", res(`"error":{"code":"-1","message":"no"}`), invalid},
		{"code with a fraction", res(`"error":{"code":1.0,"message":"no"}`), invalid},
		{"error with more", res(`"error":{"code":-1,"message":"no","more":1}`), invalid},
		{"error with more in place of data", res(`"error":{"code":-1,"message":"no","data":1,"more":1}`), invalid},
		{"meta", res(`"result":{"_meta":[]}`), badParams},
		{"no more", post(Rev20260728, `{"jsonrpc":"2.0","id":3,"result":{}}`), unknown},
		{"with a method header", with(res(`"result":{}`), headerMethod, "response"), missed},
		{"with a name header", with(res(`"result":{}`), headerName, "x"), missed},
	})
	m := mustRead(t, world(), res(`"result":{"b":1.0,"a":"\u0041","_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}`))
	want := &Message{
		Method: m.Method, Revision: Rev20251125, Tasks: []string{"t"},
		Input: map[string]any{"result": `{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}},"a":"A","b":1}`},
	}
	if diff := cmp.Diff(want, m, cmpopts.IgnoreUnexported(Message{})); diff != "" || m.Method.Kind != Response {
		t.Error(diff)
	}
	if m := mustRead(t, world(), res(`"error":{"code":-1,"message":"no"}`)); len(m.Input) != 0 {
		t.Errorf("the input of an error: %v", m.Input)
	}
}

// TestRefusalsHaveTheID: a client finds its request again, whatever was wrong.
func TestRefusalsHaveTheID(t *testing.T) {
	for _, in := range []HTTPRequest{
		old("tools/run", ""), old("tools/call", ""), old("ping", `"x":1`), modern("ping", ""),
		with(old("ping", ""), headerRevision, "2027-01-01"), with(modern("tools/list", ""), headerMethod), old("ping", "", headerSession, ""),
		post(Rev20251125, `{"jsonrpc":"1.0","id":7,"method":"ping"}`), post(Rev20251125, `{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}`),
		with(old("ping", ""), headerMethod, "ping", "ping"), old("ping", `"__proto__":1`),
	} {
		if _, no := Read(world(), in); no == nil || string(no.ID) != "7" {
			t.Errorf("%s: %+v", in.Body, no)
		}
	}
	if m := mustRead(t, world(), post("", `{"jsonrpc":"2.0","id":"\u0061\/","method":"ping"}`)); string(m.ID) != `"a/"` {
		t.Errorf("id %s", m.ID)
	}
	// The id of an answer is the server's: a refusal that echoed it would answer
	// another request of the client's.
	if _, no := Read(world(), post(Rev20251125, `{"jsonrpc":"2.0","id":7,"result":[]}`)); no == nil || no.ID != nil {
		t.Errorf("refused answer: %+v", no)
	}
}

func TestDetailsHaveNoValues(t *testing.T) {
	const secret = "s3cr3t"
	for _, in := range []HTTPRequest{
		old("tools/call", `"name":"echo","arguments":"`+secret+`"`), old("tools/call", `"name":["`+secret+`"]`),
		old(secret, ""), post(secret, `{"jsonrpc":"2.0","id":7,"method":"ping"}`), old("ping", "", headerSession, secret+" "),
		old("ping", "", headerMethod, secret), old("tools/call", `"name":"query","arguments":{"region":"`+secret+`"}`, "mcp-param-region", "x"),
		old("logging/setLevel", `"level":"`+secret+`"`), old("completion/complete", `"ref":{"type":"`+secret+`"},"argument":{}`),
		post(Rev20251125, `{"jsonrpc":"`+secret+`"}`), post(Rev20251125, `{"jsonrpc":"2.0","id":{"`+secret+`":1},"method":"ping"}`),
		with(old("ping", ""), "origin", secret), with(old("ping", ""), ":authority", secret),
		post(Rev20251125, `{"jsonrpc":"2.0","id":3,"result":{"n":0.123456789012345678901,"s":"`+secret+`"}}`),
	} {
		_, no := Read(world(), in)
		if no == nil || strings.Contains(no.Detail, secret) || strings.Contains(no.Detail, "0.1234") {
			t.Errorf("%s: %+v", in.Body, no)
		}
	}
}
