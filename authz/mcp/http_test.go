package mcp

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostsAndOrigins(t *testing.T) {
	host := func(h ...string) HTTPRequest { return with(old("ping", ""), ":authority", h...) }
	origin := func(o ...string) HTTPRequest { return with(old("ping", ""), "origin", o...) }
	var rules []rule
	for _, h := range []string{
		"mcp.example", "MCP.example", "mcp.example:8443", "localhost", "localhost:3000", "127.0.0.1", "10.1.2.3:80", "[::1]", "[2001:db8::1]:443",
	} {
		rules = append(rules, rule{h, host(h), accepted})
	}
	for _, h := range []string{
		"", "evil.example", "mcp.example.", "mcp.example.evil.example", "evil.example:80", "mcp.example:", "mcp.example:0", "mcp.example:65536",
		"mcp.example:80:80", "mcp.example,evil.example", "::1", "::1:80", "[127.0.0.1]", "[::1", "[fe80::1%25eth0]", "127.1", "user@mcp.example", "localhost.evil.example",
	} {
		rules = append(rules, rule{"not " + h, host(h), foreign})
	}
	checkRules(t, world(), append(rules,
		rule{"no host", host(), foreign},
		rule{"two hosts", host("mcp.example", "mcp.example"), foreign},
		rule{"known origin", origin("https://inspector.example"), accepted},
		rule{"null origin", origin("null"), foreign},
		rule{"empty origin", origin(""), foreign},
		rule{"other case", origin("https://Inspector.example"), foreign},
		rule{"origin of another port", origin("https://inspector.example:8443"), foreign},
		rule{"two origins", origin("https://inspector.example", "https://inspector.example"), foreign},
	))
}

func TestTransport(t *testing.T) {
	ping := old("ping", "")
	query := ping
	query.Query = "a=b"
	bodied := verb("GET", Rev20251125)
	bodied.Body = []byte("{}")
	put := ping
	put.Verb = "PUT"
	lower := ping
	lower.Verb = "post"
	checkRules(t, world(), []rule{
		{"PUT", put, badVerb},
		{"PUT of two types", with(put, "content-type", "text/plain", "text/html"), badVerb},
		{"post", lower, badVerb},
		{"query", query, invalid},
		{"GET", verb("GET", Rev20251125), accepted},
		{"DELETE", verb("DELETE", ""), accepted},
		{"GET of the newest", verb("GET", Rev20260728), badVerb},
		{"DELETE of the newest", verb("DELETE", Rev20260728), badVerb},
		{"GET of an unknown revision", verb("GET", "2027-01-01"), badRev},
		{"GET with a body", bodied, invalid},
		{"GET with a method", verb("GET", Rev20251125, headerMethod, "GET"), missed},
		{"GET with a name", verb("GET", Rev20251125, headerName, "x"), missed},
		{"GET with an argument", verb("GET", Rev20251125, "mcp-param-region", "x"), missed},
		{"charset", with(ping, "content-type", "Application/JSON ; Charset=UTF-8"), accepted},
		{"quoted charset", with(ping, "content-type", `application/json;charset="utf-8"`), accepted},
		{"no type", with(ping, "content-type"), encoded},
		{"text", with(ping, "content-type", "text/plain"), encoded},
		{"other charset", with(ping, "content-type", "application/json; charset=utf-16"), encoded},
		{"charset by RFC 8187", with(ping, "content-type", "application/json; charset*=utf-16''x"), encoded},
		{"two parameters", with(ping, "content-type", "application/json; charset=utf-8; charset=utf-7"), encoded},
		{"empty parameter", with(ping, "content-type", "application/json;"), encoded},
		{"json-like", with(ping, "content-type", "application/json-rpc"), encoded},
		{"gzip", with(ping, "content-encoding", "gzip"), encoded},
		{"identity", with(ping, "content-encoding", "identity"), encoded},
		{"two types", with(ping, "content-type", "application/json", "application/json"), invalid},
		{"two accepts", with(ping, "accept", "application/json", "text/event-stream"), invalid},
		{"two lengths", with(ping, "content-length", "1", "1"), invalid},
		{"two event ids", verb("GET", "", headerEvent, "1", headerEvent, "1"), invalid},
		{"resume", verb("GET", Rev20251125, headerEvent, "0"), accepted},
		{"resume of the newest", verb("GET", Rev20260728, headerEvent, "0"), badVerb},
		{"empty event id", verb("GET", Rev20251125, headerEvent, ""), invalid},
		{"blank event id", verb("GET", Rev20251125, headerEvent, " \t"), invalid},
		{"event id beyond ASCII", verb("GET", "", headerEvent, "ü"), invalid},
		{"two revisions", with(ping, headerRevision, Rev20251125, Rev20251125), missed},
		{"two methods", with(ping, headerMethod, "ping", "ping"), missed},
		{"two sessions", with(ping, headerSession, "a", "a"), missed},
		{"two of an unknown header of MCP's", with(ping, "mcp-new", "a", "a"), missed},
		{"control character", with(ping, headerSession, "s\x01"), missed},
		{"two sessions of a GET", verb("GET", Rev20251125, headerSession, "a", headerSession, "a"), missed},
		{"beyond ASCII", with(ping, headerSession, "sé"), missed},
		{"other headers are not looked at", with(ping, "x-other", "ü", "ü"), accepted},
	})
}

func TestModernServer(t *testing.T) {
	s := world()
	s.Revisions = []string{Rev20260728}
	checkRules(t, s, []rule{
		{"GET", verb("GET", ""), badVerb},
		{"GET of a legacy revision", verb("GET", Rev20251125), badVerb},
		{"legacy message", old("tools/list", ""), badRev},
		{"message without a header", with(old("tools/list", ""), headerRevision), missed},
		{"initialize", post("", initialize), badRev},
		{"discovery", modern("server/discover", ""), accepted},
	})
}

func TestSession(t *testing.T) {
	long := strings.Repeat("s", maxSession)
	for id, ok := range map[string]bool{"!~": true, long: true, "": false, "a b": false, "a\t": false, long + "s": false} {
		in := old("ping", "", headerSession, id)
		m, no := Read(world(), in)
		if ok && (no != nil || m.Session != id) || !ok && got(no) != missed {
			t.Errorf("session %q: %+v, %+v", id, m, no)
		}
		if m, no := Read(world(), modern("server/discover", "", headerSession, id)); no != nil || m.Session != "" {
			t.Errorf("session %q since 2026-07-28: %+v, %+v; want it ignored", id, m, no)
		}
	}
}

func TestResume(t *testing.T) {
	for name, in := range map[string]HTTPRequest{
		"GET": verb("GET", ""), resume: verb("GET", "", headerEvent, "0"), "DELETE": verb("DELETE", "", headerEvent, "0"),
	} {
		if m := mustRead(t, world(), in); m.Method.Name != name || m.Method.Kind != Verb || m.Method.Action() != "mcp:"+name {
			t.Errorf("%s is read as %s", name, m.Method.Name)
		}
	}
}

func TestPassedHeaders(t *testing.T) {
	const args = `"name":"query","arguments":{"region":"eu"}`
	extra := []string{headerSession, "s", headerEvent, "e", "mcp-new", "x", "authorization", "y", headerName, "query", "mcp-param-region", "eu"}
	for _, c := range []struct {
		name string
		in   HTTPRequest
		want []string
	}{
		{"legacy call", old("tools/call", args, extra...), []string{headerName, "mcp-param-region", headerRevision, headerSession}},
		{"modern call", modern("tools/call", args, extra...), []string{headerMethod, headerName, "mcp-param-region", headerRevision}},
		{"unknown tool", old("tools/call", `"name":"none"`, "mcp-param-region", "eu"), []string{headerRevision}},
		{"GET", verb("GET", Rev20251125, headerSession, "s"), []string{headerRevision, headerSession}},
		{"resume", verb("GET", Rev20251125, headerSession, "s", headerEvent, "e"), []string{headerEvent, headerRevision, headerSession}},
		{"DELETE", verb("DELETE", Rev20251125, headerSession, "s", headerEvent, "e"), []string{headerRevision, headerSession}},
	} {
		if diff := cmp.Diff(c.want, PassedHeaders(mustRead(t, world(), c.in))); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if got := PassedHeaders(mustRead(t, world(), verb("GET", ""))); len(got) > 0 || !slices.IsSorted(got) {
		t.Errorf("GET with none: %v", got)
	}
}
