package authz

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// TestMessagesAreDecided: each tool of a call by its own grant or as baseline, each
// method as an action of its own.
func TestMessagesAreDecided(t *testing.T) {
	w := newMCPWorld(t)
	write := w.token(w.grant("notes/write"))
	self := w.identity(w.bot.Subject, "https://notes.internal/mcp")
	call := func(name, args string) string { return fmt.Sprintf(`{"name":%q,"arguments":%s}`, name, args) }
	inner := func(name, args string) string { return call("any", call(name, args)) }
	for _, tc := range []struct {
		name, tok, method, subject, params, why string
	}{
		{"granted", write, "tools/call", "writeNote", call("writeNote", `{"id":"a"}`), ""},
		{"granted, by our name", write, "tools/call", "write", call("write", `{"id":"a"}`), "unknown_tool"},
		{"baseline by a grant's token", write, "tools/call", "read", call("read", `{"id":"a"}`), ""},
		{"baseline", self, "tools/call", "read", call("read", `{"id":"a"}`), ""},
		{"no grant", self, "tools/call", "writeNote", call("writeNote", `{"id":"a"}`), "no_grant"},
		{"another tool", write, "tools/call", "slow", call("slow", `{}`), "wrong_tool"},
		{"arguments that are not the tool's", write, "tools/call", "writeNote", call("writeNote", `{"id":1}`), "mismatch"},
		{"an argument missing", write, "tools/call", "writeNote", call("writeNote", `{}`), "mismatch"},
		{"through a meta-tool", write, "tools/call", "any", inner("writeNote", `{"id":"a"}`), ""},
		{"through a meta-tool, twice", write, "tools/call", "any", inner("any", call("writeNote", `{"id":"a"}`)), ""},
		{"through a meta-tool, no grant", self, "tools/call", "any", inner("writeNote", `{"id":"a"}`), "no_grant"},
		{"through a meta-tool, other arguments", write, "tools/call", "any", inner("writeNote", `{"id":1}`), "mismatch"},
		{"through a meta-tool, unknown", write, "tools/call", "any", inner("purge", `{}`), "unknown_tool"},
		{"a method of the baseline", self, "tools/list", "", "", ""},
		{"one that is none", self, "resources/read", "a:b", `{"uri":"a:b"}`, "no_grant"},
		{"one that a grant covers", write, "resources/read", "a:b", `{"uri":"a:b"}`, ""},
		{"one that there is not", write, "tools/delete", "", "", "no_grant"},
	} {
		r := w.want(tc.name, modern(tc.tok, tc.method, tc.subject, tc.params), tc.why)
		if tc.why == "" {
			if cut := sent(r, "x-envoy-upstream-rq-timeout-ms"); cut != "15000" {
				t.Errorf("%s: may last %q", tc.name, cut)
			}
			continue
		}
		a := w.answer(r)
		if string(a.ID) != "7" || a.Error.Data["reason"] != tc.why || a.Error.Data["decision_id"] != w.last().ID || a.Error.Code == 0 {
			t.Errorf("%s: %+v", tc.name, a)
		}
		if r.GetDeniedResponse().GetStatus().GetCode() == 200 {
			t.Errorf("%s: status 200", tc.name)
		}
	}
}

// TestMetaCallIsOneDecision: all of it is spent, or nothing is; the record is of
// the inner tool and says how the call came to it.
func TestMetaCallIsOneDecision(t *testing.T) {
	w := newMCPWorld(t)
	g := w.grant("notes/write", func(g *grants.Grant) {
		g.Budgets = []grants.Budget{{Key: grants.TaskBudget(g.Task, g.Tool, ""), Limit: 1}}
	})
	tok := w.token(g)
	req := func() string {
		return `{"name":"any","arguments":{"name":"writeNote","arguments":{"id":"a"}}}`
	}
	r := w.want("the first", modern(tok, "tools/call", "any", req()), "")
	if sent(r, "x-grant-ctx-tool") != "notes/write" || sent(r, "x-grant-ctx-grant") != g.ID {
		t.Errorf("sent on: %v", r.GetOkResponse().GetHeaders())
	}
	if rec := w.last(); rec.Tool != "notes/write" || rec.Grant != g.ID || rec.Kind != "call" || !strings.Contains(rec.Note, "through notes/any") {
		t.Errorf("on record: %+v", rec)
	}
	w.want("the second", modern(tok, "tools/call", "any", req()), "budget_spent")

	// What the inner tool spends is given back when the answer is no after all.
	g = w.grant("notes/write", func(g *grants.Grant) {
		g.Budgets = []grants.Budget{{Key: grants.TaskBudget(g.Task, g.Tool, ""), Limit: 1}}
	})
	tok = w.token(g)
	w.setFull(true)
	w.want("no record", modern(tok, "tools/call", "any", req()), "cannot_record")
	w.setFull(false)
	w.want("the next", modern(tok, "tools/call", "any", req()), "")
}

// TestSessionsAreTheirOpeners: a session of another agent is none, and an unknown
// one tells the client to start anew.
func TestSessionsAreTheirOpeners(t *testing.T) {
	w := newMCPWorld(t)
	w.permit["mcp:GET"], w.permit["mcp:DELETE"] = true, true
	list := `{"jsonrpc":"2.0","id":"a","method":"tools/list"}`
	mine, theirs := w.identity(w.bot.Subject, "https://notes.internal/mcp"), w.identity("other", "https://notes.internal/mcp")

	r := w.want("initialize", message("notes", mine, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`), "")
	pass, good := w.seal.Open(sent(r, "x-grant-ctx-pass"), time.Now())
	if !good || pass.Agent != w.bot.ID() || pass.Server != "notes" || pass.Method != "initialize" {
		t.Fatalf("%v %+v", good, pass)
	}
	r = w.want("unknown", legacy("notes", mine, "s1", list), "unknown_session")
	if r.GetDeniedResponse().GetStatus().GetCode() != 404 {
		t.Errorf("unknown session: %v", r)
	}
	w.sessions["notes s1"] = w.bot.ID()
	r = w.want("its own", legacy("notes", mine, "s1", list), "")
	if sent(r, "x-grant-ctx-pass") != "" || slices.Contains(r.GetOkResponse().GetHeadersToRemove(), "mcp-session-id") {
		t.Errorf("%v", r)
	}
	w.want("another agent's", legacy("notes", theirs, "s1", list), "no_grant")
	w.want("at another server", legacy("rpc", w.identity(w.bot.Subject, "https://rpc.internal/mcp"), "s1", list), "unknown_session")

	// 2026-07-28 knows no sessions: the header does not reach the server.
	r = w.want("modern", modern(mine, "tools/list", "", "", "mcp-session-id", "s1"), "")
	if !slices.Contains(r.GetOkResponse().GetHeadersToRemove(), "mcp-session-id") {
		t.Errorf("%v", r.GetOkResponse().GetHeadersToRemove())
	}

	get := legacy("notes", mine, "s1", "")
	get.Attributes.Request.Http.Method = "GET"
	r = w.want("GET", get, "")
	if ms, _ := strconv.Atoi(sent(r, "x-envoy-upstream-rq-timeout-ms")); ms < 3_500_000 || ms > 3_600_000 {
		t.Errorf("a stream may last %d ms", ms)
	}
	del := legacy("notes", mine, "s1", "")
	del.Attributes.Request.Http.Method = "DELETE"
	w.want("DELETE", del, "")
	w.want("after it", legacy("notes", mine, "s1", list), "unknown_session")
}

// TestTasksAreTheirStarters: a task's result goes to the agent that started it, and
// under the grant that it was started by, while that lives.
func TestTasksAreTheirStarters(t *testing.T) {
	w := newMCPWorld(t)
	g := w.grant("notes/slow")
	tok := w.token(g)
	r := w.want("start", legacy("notes", tok, "", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow","arguments":{},"task":{"ttl":1000}}}`), "")
	pass, good := w.seal.Open(sent(r, "x-grant-ctx-pass"), time.Now())
	if !good || !slices.Equal(pass.Grants, []string{g.ID}) || pass.Agent != w.bot.ID() {
		t.Fatalf("%v %+v", good, pass)
	}
	w.want("as a task of a tool that has none", legacy("notes", w.token(w.grant("notes/write")), "",
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"writeNote","arguments":{"id":"a"},"task":{}}}`), "malformed")

	get := `{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t1"}}`
	w.permit["mcp:tasks/get"] = true
	w.want("unknown", legacy("notes", tok, "", get), "no_grant")
	w.tasks["notes t1"] = Started{Agent: w.bot.ID(), Grants: []grants.ID{g.ID}}
	w.want("its own", legacy("notes", tok, "", get), "")
	w.want("its agent without the grant", legacy("notes", w.identity(w.bot.Subject, "https://notes.internal/mcp"), "", get), "wrong_tool")
	w.want("under another grant", legacy("notes", w.token(w.grant("notes/slow")), "", get), "wrong_tool")
	w.want("another agent", legacy("notes", w.identity("other", "https://notes.internal/mcp"), "", get), "no_grant")
	w.want("followed", modern(tok, "subscriptions/listen", "", `{"notifications":{"taskIds":["t1"]}}`), "")
	w.want("followed with another's", modern(tok, "subscriptions/listen", "", `{"notifications":{"taskIds":["t1","t2"]}}`), "no_grant")

	rev, err := w.store.Fence(t.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.Revoked, Until: g.Expires})
	w.must(err)
	w.must(w.table.Wait(t.Context(), rev))
	w.want("after its revocation", legacy("notes", tok, "", get), "revoked")

	w.tasks["notes t2"] = Started{Agent: w.bot.ID()}
	w.want("one of the baseline", legacy("notes", w.identity(w.bot.Subject, "https://notes.internal/mcp"), "", strings.ReplaceAll(get, "t1", "t2")), "")
}

// TestRetriesStayInsideConstraints: answers to the server are put to policy, and
// refused where the grant pins arguments and the catalogue does not say otherwise.
func TestRetriesStayInsideConstraints(t *testing.T) {
	w := newMCPWorld(t)
	pinned := func(g *grants.Grant) {
		g.Constraints = append(g.Constraints, []byte(`{"type":"object","properties":{"id":{"type":"string","const":"a"}},"required":["id"],"additionalProperties":false}`))
	}
	retry := func(name string) string {
		return fmt.Sprintf(`{"name":%q,"arguments":{"id":"a"},"inputResponses":{"q":{"action":"accept","content":{"id":"b"}}},"requestState":"s"}`, name)
	}
	w.want("free", modern(w.token(w.grant("notes/write")), "tools/call", "writeNote", retry("writeNote")), "")
	asked := w.asked[len(w.asked)-1]
	if asked.Retry == nil || !asked.Retry.State || asked.Retry.Responses != `{"q":{"action":"accept","content":{"id":"b"}}}` || asked.Revision != "2026-07-28" {
		t.Errorf("policy saw %+v", asked)
	}
	tok := w.token(w.grant("notes/write", pinned))
	w.want("pinned", modern(tok, "tools/call", "writeNote", retry("writeNote")), "constraint")
	w.want("pinned, state alone", modern(tok, "tools/call", "writeNote", `{"name":"writeNote","arguments":{"id":"a"},"requestState":"s"}`), "constraint")
	w.want("pinned, no retry", modern(tok, "tools/call", "writeNote", `{"name":"writeNote","arguments":{"id":"a"}}`), "")
	w.want("pinned, and the catalogue permits it", modern(w.token(w.grant("notes/slow", pinned)), "tools/call", "slow", retry("slow")), "")
	w.want("pinned, through a meta-tool", modern(tok, "tools/call", "any",
		`{"name":"any","arguments":{"name":"writeNote","arguments":{"id":"a"}},"inputResponses":{}}`), "constraint")
	w.want("a resource under a pinned grant", modern(tok, "resources/read", "a:b", `{"uri":"a:b","requestState":"s"}`), "constraint")
	answer := `{"jsonrpc":"2.0","id":1,"result":{"action":"accept","content":{"id":"b"}}}`
	w.want("an answer in a session, pinned", legacy("notes", tok, "", answer), "constraint")
	w.want("an answer in a session, free", legacy("notes", w.token(w.grant("notes/write")), "", answer), "")
}

// TestDenialsAsJSONRPC: where the catalogue says so, a denial of a request has
// status 200; what says that there is no session or no token does not.
func TestDenialsAsJSONRPC(t *testing.T) {
	w := newMCPWorld(t)
	self := w.identity(w.bot.Subject, "https://rpc.internal/mcp")
	call := `{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"read"}}`
	status := func(name string, r int32, want int32) {
		t.Helper()
		if r != want {
			t.Errorf("%s: status %d, want %d", name, r, want)
		}
	}
	r := w.want("denied", legacy("rpc", self, "", call), "no_grant")
	status("denied", int32(r.GetDeniedResponse().GetStatus().GetCode()), 200)
	if a := w.answer(r); string(a.ID) != `"x"` || a.Error.Code != 403 || w.last().Status != 200 {
		t.Errorf("%+v, on record %+v", a, w.last())
	}
	old := w.grant("rpc/read")
	old.NotBefore, old.Expires = old.NotBefore.Add(-time.Hour), old.NotBefore.Add(-time.Minute) // its token's time, that is
	r = w.want("an old token", legacy("rpc", w.token(old), "", call), "expired_token")
	status("an old token", int32(r.GetDeniedResponse().GetStatus().GetCode()), 200)
	if a := w.answer(r); string(a.ID) != `"x"` || a.Error.Code != 401 {
		t.Errorf("%+v", a)
	}
	r = w.want("no token", legacy("rpc", "", "", call), "no_credential")
	status("no token", int32(r.GetDeniedResponse().GetStatus().GetCode()), 401)
	if got := challengeOf(r); got != `Bearer resource_metadata="https://rpc.internal/.well-known/oauth-protected-resource/mcp"` {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	r = w.want("no session", legacy("rpc", self, "s9", call), "unknown_session")
	status("no session", int32(r.GetDeniedResponse().GetStatus().GetCode()), 404)
	r = w.want("a notification", legacy("rpc", self, "", `{"jsonrpc":"2.0","method":"notifications/initialized"}`), "no_grant")
	status("a notification", int32(r.GetDeniedResponse().GetStatus().GetCode()), 403)
	r = w.want("arguments of another form", legacy("rpc", self, "", `{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"read","arguments":[]}}`), "malformed")
	status("arguments of another form", int32(r.GetDeniedResponse().GetStatus().GetCode()), 200)
	if a := w.answer(r); string(a.ID) != `"x"` || a.Error.Code != -32602 {
		t.Errorf("%+v", a)
	}
	r = w.want("malformed", legacy("rpc", self, "", `[`+call+`]`), "malformed")
	status("malformed", int32(r.GetDeniedResponse().GetStatus().GetCode()), 400)
	r = w.want("unsupported", legacy("rpc", self, "", call, "mcp-protocol-version", "2025-11-25"), "mismatch")
	status("two of a header", int32(r.GetDeniedResponse().GetStatus().GetCode()), 400)
}

// TestScopesOfAChallenge: a client learns at once of all that it has to ask for.
func TestScopesOfAChallenge(t *testing.T) {
	w := newMCPWorld(t)
	r := w.want("a meta-tool", modern(w.identity(w.bot.Subject, "https://notes.internal/mcp"), "tools/call", "any",
		`{"name":"any","arguments":{"name":"writeNote","arguments":{"id":"a"}}}`), "no_grant")
	where := `, resource_metadata="https://notes.internal/.well-known/oauth-protected-resource/mcp"`
	if got := challengeOf(r); got != `Bearer error="insufficient_scope", scope="notes/write"`+where { // any is baseline
		t.Error(got)
	}
	r = w.want("two that are missing", modern(w.token(w.grant("notes/slow")), "tools/call", "deep",
		`{"name":"deep","arguments":{"name":"writeNote","arguments":{"id":"a"}}}`), "wrong_tool")
	if got := challengeOf(r); got != `Bearer error="insufficient_scope", scope="notes/deep notes/write"`+where {
		t.Error(got)
	}
	r = w.want("one that is missing", modern(w.token(w.grant("notes/write")), "tools/call", "deep",
		`{"name":"deep","arguments":{"name":"writeNote","arguments":{"id":"a"}}}`), "wrong_tool")
	if got := challengeOf(r); got != `Bearer error="insufficient_scope", scope="notes/deep"`+where {
		t.Error(got)
	}
	r = w.want("a method, for which no scope helps", modern(w.identity(w.bot.Subject, "https://notes.internal/mcp"), "resources/read", "a:b", `{"uri":"a:b"}`), "no_grant")
	if got := challengeOf(r); got != "" {
		t.Error(got)
	}
}

// TestAnswersStayInsideConstraints: an answer in a session is refused once a call
// went through it by a grant that pins arguments, whatever credential brings it, and
// after the grant's end, too.
func TestAnswersStayInsideConstraints(t *testing.T) {
	w := newMCPWorld(t)
	w.permit["mcp:response"] = true
	for _, s := range []string{"notes s1", "notes s2"} {
		w.sessions[s] = w.bot.ID()
	}
	answer := `{"jsonrpc":"2.0","id":1,"result":{"action":"accept","content":{"id":"b"}}}`
	call := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"writeNote","arguments":{"id":"a"}}}`
	self := w.identity(w.bot.Subject, "https://notes.internal/mcp")
	g := w.grant("notes/write", func(g *grants.Grant) {
		g.Constraints = append(g.Constraints, []byte(`{"type":"object","properties":{"id":{"type":"string","const":"a"}},"required":["id"],"additionalProperties":false}`))
	})
	w.want("before any call", legacy("notes", self, "s1", answer), "")
	w.want("the call", legacy("notes", w.token(g), "s1", call), "")
	w.want("by its grant", legacy("notes", w.token(g), "s1", answer), "constraint")
	w.want("by another grant", legacy("notes", w.token(w.grant("notes/slow")), "s1", answer), "constraint")
	w.want("at baseline", legacy("notes", self, "s1", answer), "constraint")
	w.want("in another session", legacy("notes", self, "s2", answer), "")
	rev, err := w.store.Fence(t.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.Revoked, Until: g.Expires})
	w.must(err)
	w.must(w.table.Wait(t.Context(), rev))
	w.want("after its end", legacy("notes", self, "s1", answer), "constraint")
}

// TestTaskOfAMetaTool: what a call under several grants has started ends with each
// of them.
func TestTaskOfAMetaTool(t *testing.T) {
	w := newMCPWorld(t)
	outer := w.grant("notes/deep")
	inner := w.grant("notes/slow", func(g *grants.Grant) { g.Task = outer.Task })
	tok := w.token(outer, inner)
	r := w.want("start", modern(tok, "tools/call", "deep", `{"name":"deep","arguments":{"name":"slow","arguments":{}}}`), "")
	pass, _ := w.seal.Open(sent(r, "x-grant-ctx-pass"), time.Now())
	both := []string{outer.ID, inner.ID}
	slices.Sort(both)
	if !slices.Equal(pass.Grants, both) {
		t.Fatalf("%+v, want %q", pass, both)
	}
	w.tasks["notes t1"] = Started{Agent: w.bot.ID(), Grants: pass.Grants}
	get := legacy("notes", tok, "", `{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t1"}}`)
	w.want("its own", get, "")
	w.want("with one of them", legacy("notes", w.token(inner), "", `{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t1"}}`), "wrong_tool")
	rev, err := w.store.Fence(t.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: outer.ID, Why: grants.Revoked, Until: outer.Expires})
	w.must(err)
	w.must(w.table.Wait(t.Context(), rev))
	w.want("after the end of one", get, "revoked")
}

// TestRecordsTellRetriesApart: what answers came with a call is in the digest.
func TestRecordsTellRetriesApart(t *testing.T) {
	w := newMCPWorld(t)
	tok := w.token(w.grant("notes/write"))
	seen := map[string]bool{}
	for _, more := range []string{"", `,"inputResponses":{"q":{"x":1}}`, `,"inputResponses":{"q":{"x":2}}`, `,"requestState":"s"`} {
		w.want(more, modern(tok, "tools/call", "writeNote", `{"name":"writeNote","arguments":{"id":"a"}`+more+`}`), "")
		r := w.last()
		if seen[r.Args] || (more != "") != strings.Contains(r.Note, "a retry") {
			t.Errorf("%s: %+v", more, r)
		}
		seen[r.Args] = true
	}
	w.want("unknown", modern(tok, "tools/call", "purge", `{"name":"purge"}`), "unknown_tool")
	if r := w.last(); !strings.Contains(r.Note, `asked for "purge"`) {
		t.Errorf("%+v", r)
	}
}

// TestTextsThatAreJSON: a text that a server might read as null, array or object.
func TestTextsThatAreJSON(t *testing.T) {
	for text, want := range map[string]bool{
		"null": true, " null\n": true, `{"a":1}`: true, "[1, NaN]": true, "[]": true,
		"nul": false, "none": false, "[draft] x": false, "{a}": false, "1": false, "true": false, `"null"`: false, "": false,
	} {
		if readAsJSON(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	w := newMCPWorld(t)
	tok := w.token(w.grant("notes/slow"))
	w.want("a text", modern(tok, "tools/call", "slow", `{"name":"slow","arguments":{"folder":"x"}}`), "")
	w.want("one that is null to some", modern(tok, "tools/call", "slow", `{"name":"slow","arguments":{"folder":"null"}}`), "mismatch")
	w.want("where null may not be", modern(tok, "tools/call", "slow", `{"name":"slow","arguments":{"id":"null"}}`), "")
}

// TestRoutesAreOfTheirKind: a route that names a tool of the other kind, or both,
// is none.
func TestRoutesAreOfTheirKind(t *testing.T) {
	w := newMCPWorld(t)
	for _, ext := range []map[string]string{
		{"tool": "notes/read"}, {"server": "web"}, {"server": "notes", "tool": "web/get"}, {"server": "none"}, {"tool": "notes"}, {},
	} {
		req := modern(w.identity(w.bot.Subject, "https://notes.internal/mcp"), "tools/list", "", "")
		req.Attributes.ContextExtensions = ext
		w.want(fmt.Sprint(ext), req, "unknown_tool")
	}
	req := modern(w.identity(w.bot.Subject, "https://notes.internal/mcp"), "tools/list", "", "")
	req.Attributes.Request.Http.Path = "/rpc"
	w.want("another server's path", req, "mismatch")
}
