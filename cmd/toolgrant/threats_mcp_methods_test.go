package main

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

func inBase64(text string) string {
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
}

// repeated is R14: headers that repeat the body.
func (s speaker) repeated() []attack {
	var attacks []attack
	a := s.write("")
	missing := map[bool]string{true: differs, false: "200"}[s.modern()] // before, nobody had to send them
	header := func(a attack, field, right, absent string) {
		name := "R14 " + field + " of " + strings.Fields(strings.ReplaceAll(a.name, "/", "|") + " a call")[0] + ", "
		set := func(what, want string, values ...string) {
			attacks = append(attacks, a.set(name+what, want, field, values...))
		}
		set("right", "200", right)
		set("missing", absent)
		set("another", differs, "evil")
		set("with more", differs, right+"2")
		set("empty", differs, "")
		set("twice", differs, right, right)
		set("twice, the second another", differs, right, "evil")
		set("twice, the first another", differs, "evil", right)
		set("joined", differs, right+","+right)
		set("in another case", differs, strings.ToUpper(right[:1])+right[1:])
		set("percent-encoded", differs, "%"+right)
		set("half of it", differs, right[:len(right)/2])
		set("beyond ASCII", "400 ended", right+"\xe9")
		set("wrong base64", differs, inBase64("evil"))
		set("loose base64", differs, strings.TrimSuffix(inBase64(right+"xx"), "=?=")+"?=")
		set("base64 in capitals", differs, strings.Replace(inBase64(right), "base64", "BASE64", 1))
		set("base64, and what else", differs, inBase64(right)+"x")
	}
	header(a, "mcp-method", mcp.ToolsCall, missing)
	header(a, "mcp-name", "write_note", missing)
	attacks = append(attacks,
		a.set("R14 base64 of the method", differs, "mcp-method", inBase64(mcp.ToolsCall)),
		a.set("R14 base64 of the name", map[bool]string{true: "ran", false: "200"}[s.modern()], // the Go SDK's server knows but one spelling
			"mcp-name", inBase64("write_note")),
		a.plus("R14 an argument that no tool repeats", differs, "mcp-param-note", theName),
		a.plus("R14 another tool's argument", differs, "mcp-param-shelf", "work"),
		a.plus("R14 an underscore", mayEnd, "mcp_name", "write_note"),
		a.set("R14 the other tool's name, and its body", differs, "mcp-name", "read_note"))

	list := s.call("list_notes", `"shelf":"work"`)
	list.name = "list_notes"
	shelf := list
	if s.modern() {
		shelf = list.plus("list_notes", "", "mcp-param-shelf", "work")
	}
	header(shelf, "mcp-param-shelf", "work", missing)
	attacks = append(attacks, list.set("R14 base64 of an argument", "200", "mcp-param-shelf", inBase64("work")))
	none := s.call("read_note", `"note":"work/standup"`)
	attacks = append(attacks, none.plus("R14 an argument that is not there", differs, "mcp-param-shelf", "work"))
	listing := s.attack("", "tools/list", "")
	attacks = append(attacks,
		listing.plus("R14 the name of nothing", differs, "mcp-name", "write_note"),
		listing.plus("R14 an argument of nothing", differs, "mcp-param-shelf", "work"),
		listing.set("R14 a call by the header", differs, "mcp-method", mcp.ToolsCall))

	late := a.set("R14 a name in a trailer alone", missing, "mcp-name")
	late.trailers = []string{"mcp-name", "write_note", "mcp-method", "tools/list"}
	attacks = append(attacks, late)
	return append(attacks, s.revisions()...)
}

// revisions are the part of R14 that MCP-Protocol-Version is.
func (s speaker) revisions() []attack {
	a, field := s.write(""), "mcp-protocol-version"
	unknown := map[bool]string{true: differs, false: "400/-32022/id"}[s.modern()] // _meta says another
	attacks := []attack{
		a.set("R14 revision missing", differs, field),
		a.set("R14 revision twice", differs, field, s.revision, s.revision),
		a.set("R14 two revisions", differs, field, s.revision, mcp.Rev20250326),
		a.set("R14 two revisions, the other first", differs, field, mcp.Rev20250326, s.revision),
	}
	for _, value := range []string{"", "2027-01-01", "2024-11-05", "draft", "2025-11-25 ,", mcp.Rev20250326, mcp.Rev20250618, inBase64(s.revision), strings.Repeat("9", 1_000)} {
		attacks = append(attacks, a.set("R14 revision "+value[:min(len(value), 20)], unknown, field, value))
	}
	if !s.modern() {
		attacks = append(attacks, a.set("R14 the revision after", "400/-32022/id", field, mcp.Rev20260728))
		a.body = strings.Replace(a.body, `"_meta":{`, `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",`, 1)
		return append(attacks,
			a.set("R14 another revision in the body", differs, field, s.revision),
			a.set("R14 the revision after, in the body too", "400/-32022/id", field, mcp.Rev20260728))
	}
	other := func(name, want, meta string, header ...string) {
		b := a.set("R14 "+name, want, field, header...)
		b.body = strings.Replace(b.body, `"io.modelcontextprotocol/protocolVersion":"2026-07-28"`, meta, 1)
		attacks = append(attacks, b)
	}
	other("another revision in the body", differs, `"io.modelcontextprotocol/protocolVersion":"2025-11-25"`, s.revision)
	other("no revision in the body", badParams, `"x":1`, s.revision)
	other("a revision that is no text", badParams, `"io.modelcontextprotocol/protocolVersion":["2026-07-28"]`, s.revision)
	other("an unknown one in both", "400/-32022/id", `"io.modelcontextprotocol/protocolVersion":"2027-01-01"`, "2027-01-01")
	return attacks
}

// someParams are good ones of each method that needs any; subjects are what Mcp-Name
// says of them.
var someParams = map[string]string{
	"initialize": helloParams, mcp.ToolsCall: theCall,
	"notifications/cancelled": `"requestId":1`, "notifications/progress": `"progressToken":1,"progress":0.5`, "notifications/tasks/status": `"taskId":"t1","status":"working"`,
	"resources/read": `"uri":"notes://index"`, "resources/subscribe": `"uri":"notes://index"`, "resources/unsubscribe": `"uri":"notes://index"`,
	"prompts/get": `"name":"summarize","arguments":{"note":"work/standup"}`, "completion/complete": `"ref":{"type":"ref/prompt","name":"summarize"},"argument":{"name":"note","value":"w"}`,
	"logging/setLevel": `"level":"info"`, "tasks/get": `"taskId":"t1"`, "tasks/result": `"taskId":"t1"`, "tasks/cancel": `"taskId":"t1"`, "tasks/update": `"taskId":"t1","inputResponses":{}`,
	"subscriptions/listen": `"notifications":{"toolsListChanged":true}`,
}

var subjects = map[string]string{
	mcp.ToolsCall: "write_note", "resources/read": "notes://index", "resources/subscribe": "notes://index", "resources/unsubscribe": "notes://index", "prompts/get": "summarize",
	"tasks/get": "t1", "tasks/result": "t1", "tasks/cancel": "t1", "tasks/update": "t1",
}

// baseline are the methods that mcpPolicies permit without a grant.
var baseline = []string{
	"initialize", "ping", "server/discover", "tools/list", "notifications/initialized", "notifications/cancelled", "notifications/progress", "notifications/roots/list_changed",
	"GET", "DELETE",
}

// methods is R15: each method of the table as an action of its own, with and
// without a grant.
func (s speaker) methods(t *testing.T) []attack {
	var attacks []attack
	for _, m := range mcp.Methods() {
		if _, ok := someParams[m.Name]; len(m.Require) > 0 && !ok {
			t.Errorf("no params of %s", m.Name)
		}
		for who, token := range map[string]string{"no grant": s.self[s.server], "a grant": s.tokens[s.server]} {
			a := s.attack("R15 "+strings.ReplaceAll(m.Name, "/", "|")+" of "+s.revision+" with "+who, m.Name, someParams[m.Name])
			a.stream = m.Stream
			a.fields = s.fields(token, m.Name)
			if name := subjects[m.Name]; name != "" {
				a.fields = s.fields(token, m.Name, name)
			}
			permitted := slices.Contains(baseline, m.Name) || m.Grant && who == "a grant" && !strings.HasPrefix(m.Name, "tasks/") || m.Name == "tasks/list" && who == "a grant"
			a.want = denied
			switch {
			case !m.In(s.revision) && m.Kind == mcp.Verb:
				a.want = noVerb
			case !m.In(s.revision):
				a.want = noMethod
			case permitted:
				a.want = "ran"
			}
			switch m.Kind {
			case mcp.Notification:
				a.body = strings.Replace(a.body, `"id":`+theID+`,`, "", 1)
			case mcp.Response:
				a.body = `{"jsonrpc":"2.0","id":` + theID + `,"result":{"roots":[]}}`
				a = a.set(a.name, a.want, "mcp-method")
			case mcp.Verb:
				a.method, a.body = m.Name, ""
				a = a.set(a.name, a.want, "content-type").set(a.name, a.want, "mcp-method")
				if m.Name == "resume" {
					a = a.plus(a.name, a.want, "last-event-id", "1")
					a.method = "GET"
				}
			}
			if m.Kind != mcp.Request {
				a.want = strings.Replace(a.want, "/id", "/null", 1)
			}
			attacks = append(attacks, a)
		}
	}
	return attacks
}

// strangers are the rest of R15: what no table has, and calls that are none.
func (s speaker) strangers() []attack {
	var attacks []attack
	for _, method := range []string{
		"", "tools/delete", "tools", "tools/call/x", "tools/call ", " tools/call", "TOOLS/CALL", "tools/calI", "tools//call", "tools\\\\call", "sampling/createMessage", "elicitation/create", "roots/list", "resources/write",
		"GET", "DELETE", "response", "rpc.discover", "$/cancelRequest", "__proto__", "notifications/unknown", "mcp:ping", "*",
	} {
		a := s.attack("R15 unknown, "+strings.ReplaceAll(method, "/", "|"), method, theCall).set("", "", "mcp-method")
		attacks = append(attacks, a.plus("R15 unknown, "+strings.ReplaceAll(method, "/", "|"), noMethod))
	}
	e := s.edits(s.write(""))
	id := `"id":` + theID + `,`
	e.change("R15 a call without an id", id, "", "403/-32601/null")
	e.change("R15 a call with an id of null", theID, "null", ambiguous)
	e.change("R15 a notification with an id", `"tools/call"`, `"notifications/initialized"`, noMethod)
	e.change("R15 a call that is an answer, too", `"method":"tools/call"`, `"result":{}`, ambiguous)
	attacks = append(attacks, e.attacks...)

	call := func(name, want, tool, arguments string) {
		attacks = append(attacks, s.call(tool, arguments).plus("R15 "+name, want))
	}
	inner := func(tool, arguments string) string { return `"name":"` + tool + `","arguments":{` + arguments + `}` }
	call("another tool", denied, "delete_note", `"note":"work/b"`)
	call("another tool, with the grant's arguments", denied, "delete_note", theNote)
	call("a tool that nobody has", denied, "purge", `"note":"work/b"`)
	call("a tool by the catalogue's id", denied, s.server+"|write_note", theNote)
	call("through a meta-tool", "200", "call_tool", inner("write_note", theNote))
	call("another through a meta-tool", denied, "call_tool", inner("delete_note", `"note":"work/b"`))
	call("one that nobody has through a meta-tool", denied, "call_tool", inner("purge", ``))
	call("through a meta-tool, deep", denied, "call_tool", inner("call_tool", inner("call_tool", inner("delete_note", `"note":"work/b"`))))
	call("through a meta-tool, too deep", badParams, "call_tool", strings.Repeat(`"name":"call_tool","arguments":{`, 9)+inner("write_note", theNote)+strings.Repeat("}", 9))
	call("a meta-tool that names none", badParams, "call_tool", `"arguments":{}`)
	call("a meta-tool that names several", badParams, "call_tool", `"name":["read_note","delete_note"],"arguments":{}`)
	call("a meta-tool with a text of arguments", badParams, "call_tool", `"name":"write_note","arguments":"{}"`)
	attacks = append(attacks, s.call("write_note", theNote).set("R15 with the grant of another server", nobody, "authorization", "Bearer "+s.tokens["told"]))
	return attacks
}

// inJSONRPC is of the server that tells denials by JSON-RPC: with status 200 where a request
// can be told so, and none of them runs.
func (s speaker) inJSONRPC() []attack {
	a := s.write("")
	e := s.edits(a)
	e.change("R15 a call without an id", `"id":`+theID+`,`, "", "403/-32601/null")
	return append(e.attacks,
		a.set("R15 no grant", "200/403/id", "authorization", "Bearer "+s.self[s.server]),
		s.call("delete_note", `"note":"work/b"`).plus("R15 another tool", "200/403/id"),
		s.attack("", "tools/delete", "").plus("R15 unknown", "200/-32601/id"),
		s.attack("", "resources/read", `"uri":"notes://index"`).set("R15 resources|read", "200/403/id", "authorization", "Bearer "+s.self[s.server]),
		a.set("R16 no token", nobody, "authorization"),
		a.plus("R16 a session of another server", "404/404/id", "mcp-session-id", s.rpcTarget.session),
		a.plus("R18 origin", foreign, "origin", "https://evil.internal"),
		a.plus("R14 a name that differs", differs, "mcp-name", "read_note"),
		a.plus("R00 the granted call", "ran"))
}

// sessionsOfOthers is R16, and R17 where a stream goes on: they are their agent's, and at their server.
func (s speaker) sessionsOfOthers() []attack {
	a := s.write("")
	const field = "mcp-session-id"
	if s.modern() { // there are none, and an id that is there says nothing
		return []attack{
			a.plus("R16 another agent's session, of before", "200", field, s.other),
			a.plus("R16 an unknown session, of before", "200", field, "evil"),
			a.set("R16 a session, and no token", nobody, "authorization").plus("R16 a session, and no token", nobody, field, s.other),
		}
	}
	const resumed = "GET from where it was"
	var attacks []attack
	verb := func(method string) attack {
		b := a
		b.method, b.body, b.stream = method, "", true
		return b.set("", "", "content-type")
	}
	for what, a := range map[string]attack{
		"a call": a, "tools|list": s.attack("", "tools/list", ""), "initialize": s.attack("", "initialize", helloParams), "GET": verb("GET"), "DELETE": verb("DELETE"),
		resumed: verb("GET").plus("", "", "last-event-id", "1"),
	} {
		row := "R16 "
		if what == resumed {
			row = "R17 "
		}
		session := func(name, want string, ids ...string) {
			if strings.ContainsAny(what, "GD") {
				want = strings.Replace(want, "/id", "/null", 1)
			}
			attacks = append(attacks, a.set(row+what+" in "+name, want, field, ids...))
		}
		session("another agent's session", denied, s.other)
		session("an unknown session", "404/404/id", "evil")
		session("a session in capitals", "404/404/id", strings.ToUpper(s.session)+"X")
		session("half a session", "404/404/id", s.session[:len(s.session)-1])
		session("two sessions", differs, s.session, s.session)
		session("two agents' sessions", differs, s.session, s.other)
		session("two agents' sessions, the other first", differs, s.other, s.session)
		session("sessions that are joined", "404/404/id", s.session+","+s.other)
		session("sessions that are joined with a blank", differs, s.session+", "+s.other)
		session("no session's name", differs, "")
		session("a session beyond ASCII", "400 ended", s.session+"\xe9")
		session("a long session", differs, strings.Repeat("x", 300))
		attacks = append(attacks,
			a.set(row+what+" in a session, and no token", nobody, "authorization"),
			a.set(row+what+" in a session, with a forged token", nobody, "authorization", "Bearer "+flip(s.tokens[s.server])))
	}
	return append(attacks,
		a.plus("R16 in its own session", "200"),
		verb("GET").plus("R17 GET from an event without a name", ambiguous, "last-event-id", ""),
		verb("GET").plus("R17 GET from two events", ambiguous, "last-event-id", "1", "last-event-id", "2"))
}
