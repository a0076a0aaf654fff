package main

import (
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// plus is a good request with more fields.
func (a attack) plus(name, want string, fields ...string) attack {
	a.name, a.want = name, want
	a.fields = append(a.fields[:len(a.fields):len(a.fields)], fields...)
	return a
}

// set is a good request in which a field says something else; no value: it is not
// there.
func (a attack) set(name, want, field string, values ...string) attack {
	var fields []string
	for i := 0; i+1 < len(a.fields); i += 2 {
		if a.fields[i] != field {
			fields = append(fields, a.fields[i], a.fields[i+1])
		}
	}
	for _, value := range values {
		fields = append(fields, field, value)
	}
	a.name, a.want, a.fields = name, want, fields
	return a
}

// sizes is R06: the body's size, and bodies of which a part comes.
func (s speaker) sizes() []attack {
	e := s.edits(s.write(""))
	const limit = 64 << 10
	pad := func(n int) string { return e.good.body + strings.Repeat(" ", n-len(e.good.body)) }
	e.body("R06 a body of the limit", pad(limit), "200")
	// Over HTTP/2, Envoy 1.40 asks about a part of what only its last frame takes over
	// the limit, and would send on the whole: the door refuses parts.
	e.body("R06 over the limit", pad(limit+1), "413")
	e.body("R06 1 MB over the limit", pad(limit+1<<20), "413")
	e.body("R06 over the limit, and good behind it", strings.Repeat(" ", limit)+e.good.body, "413")
	attacks := e.attacks
	for _, a := range e.attacks[1:] {
		a = a.set(a.name+", and no token", "401 413", "authorization")
		attacks = append(attacks, a)
	}
	g := s.good()
	half := func(name, rest, want string) {
		attacks = append(attacks, attack{name: "R06 " + name, http1: g.head1() + rest, hangUp: true, want: want})
	}
	half("half of it", g.length()[:len(g.length())-60], "ended 400")
	half("none of it", "Content-Length: 300\r\n\r\n", "ended 400")
	half("half of it, in a chunk", g.chunks()[:len(g.chunks())-60], "ended 400")
	half("all of it, and no last chunk", strings.TrimSuffix(g.chunks(), "0\r\n"), "ended 400")
	half("all of it, and half of the last chunk", g.chunks(), "ended 400")
	half("longer than it comes", "Content-Length: 200000\r\n\r\n"+pad(limit+1), "ended 413")
	a := s.write("")
	for _, value := range []string{"true", "false"} {
		attacks = append(attacks, a.plus("R06 partial, the client says "+value, "200", "x-envoy-auth-partial-body", value))
	}
	a.body = a.body[:len(a.body)/2]
	return append(attacks,
		a.plus("R06 a half that says so", unparsed, "x-envoy-auth-partial-body", "true"),
		a.plus("R06 a half that denies it", unparsed, "x-envoy-auth-partial-body", "false"),
		attack{name: "R06 shorter than its length", http2: append(g.fields2(), "content-length", "100000"), body: g.body, want: mayEnd})
}

// steering is R07: what Envoy, the surface or a server could believe.
func (s speaker) steering() []attack {
	a := s.write("")
	forged := mcp.NewSeal().Close(mcp.Pass{
		Decision: "d_evil", Server: s.server, Agent: "corp/admin", Method: mcp.ToolsCall, Revision: s.revision, Ends: time.Now().Add(time.Hour),
	})
	attacks := []attack{
		a.plus("R07 x-envoy-*", "200", "x-envoy-auth-partial-body", "false", "x-envoy-original-path", "/evil", "x-envoy-upstream-rq-timeout-ms", "1", "x-envoy-upstream-rq-per-try-timeout-ms", "1",
			"x-envoy-expected-rq-timeout-ms", "1", "x-envoy-internal", "evil", "x-envoy-retry-on", "5xx", "x-envoy-max-retries", "9", "x-envoy-hedge-on-per-try-timeout", "true", "x-envoy-decorator-operation", "evil"),
		a.plus("R07 x-grant-*", "200", "x-grant", "evil", "x-grant-ctx-agent", "evil", "x-grant-ctx-agent", "evil", "x-grant-ctx-task", "evil", "x-grant-ctx-admin", "evil"),
		a.plus("R07 a stream, the client says", "200", "x-grant-ctx-stream", "1"),
		a.plus("R07 x-forwarded-*", "200", "x-forwarded-for", "evil", "x-forwarded-proto", "evil", "x-forwarded-host", "evil", "x-forwarded-client-cert", "URI=evil", "forwarded", "for=evil", "x-real-ip", "evil"),
		a.plus("R07 credentials of others", "200", "cookie", "session=evil", "proxy-authorization", "Basic evil", "x-api-key", "evil", "dpop", "evil"),
		a.plus("R07 an underscore", mayEnd, "x_grant_ctx_pass", "evil"),
		a.plus("R07 headers of MCP's that are none", "200", "mcp-new", "evil", "last-event-id", "evil"),
	}
	for name, values := range map[string][]string{
		"of words": {"evil"}, "empty": {""}, "two": {"evil", "evil"}, "well made, by another key": {forged}, "in capitals": {strings.ToUpper(forged)},
	} {
		for what, a := range map[string]attack{"a call": a, "a call of another tool": s.call("delete_note", `"note":"work/b"`), "tools|list": s.attack("", "tools/list", "")} {
			want := "200"
			if what == "a call of another tool" {
				want = denied
			}
			a = a.plus("R07 a pass "+name+" with "+what, want)
			for _, v := range values {
				a.fields = append(a.fields, "x-grant-ctx-pass", v)
			}
			attacks = append(attacks, a)
		}
	}
	if !s.modern() { // the surface watches it: a pass of its own
		hello := s.attack("", "initialize", helloParams).set("", "", "mcp-session-id")
		for name, values := range map[string][]string{"none": nil, "of words": {"evil"}, "well made, by another key": {forged}} {
			attacks = append(attacks, hello.set("R07 initialize with a pass, "+name, "200", "x-grant-ctx-pass", values...))
		}
	}
	return append(attacks, attack{name: "R07 hop by hop", want: "200 400 401",
		http1: strings.Replace(s.good().head1(), "Connection: close", "Connection: close, authorization, mcp-session-id, x-grant-ctx-agent, x-grant-ctx-pass", 1) + s.good().length()})
}

// call is a call of a tool with the grant's token.
func (s speaker) call(tool, arguments string) attack {
	a := s.attack("", mcp.ToolsCall, `"name":"`+tool+`","arguments":{`+arguments+`}`)
	a.fields = s.fields(s.tokens[s.server], mcp.ToolsCall, tool)
	return a
}

// contents are R08 and R09: what is said of the body.
func (s speaker) contents() []attack {
	const coding, typ = "415/415/null", "415/415/null"
	a := s.write("")
	zipped := a
	zipped.body = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
	var attacks []attack
	for _, value := range []string{"gzip", "GZIP", "x-gzip", "br", "deflate", "zstd", "gzip, gzip", "identity", "evil", ""} {
		attacks = append(attacks,
			a.plus("R08 "+value, coding, "content-encoding", value),
			zipped.plus("R08 "+value+", truly", coding, "content-encoding", value))
	}
	attacks = append(attacks,
		zipped.plus("R08 gzip, not said", unparsed),
		a.plus("R08 two", coding, "content-encoding", "identity", "content-encoding", "gzip"))
	for _, value := range []string{
		"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "application/json; charset=iso-8859-1", "application/json; charset*=utf-16''x",
		"application/json, text/plain", "application/jsonp", "application/json-rpc", "application/problem+json", "text/json", "text/event-stream", "*/*", "application/json;charset", "application/json;", `application/json; charset="utf-7"`,
		"application/json; charset=utf-8; charset=utf-7", "",
	} {
		attacks = append(attacks, a.set("R09 "+strings.ReplaceAll(value, "/", "|"), typ, "content-type", value))
	}
	return append(attacks,
		a.set("R09 missing", typ, "content-type"),
		a.set("R09 two", typ, "content-type", "application/json", "text/plain"),
		a.set("R09 the same one twice", typ, "content-type", "application/json", "application/json"),
		a.set("R09 with a charset", "200", "content-type", "Application/JSON; charset=UTF-8"),
		a.plus("R09 two lengths", "400 ended", "content-length", "5"),
		a.set("R09 accept twice", "200", "accept", "application/json", "text/event-stream"))
}

// verbs is R11.
func (s speaker) verbs() []attack {
	a := s.write("")
	var attacks []attack
	for name, value := range map[string]string{
		"x-http-method-override": "DELETE", "x-http-method": "DELETE", "x-method-override": "GET", "x-original-url": "/mcp/told", "x-rewrite-url": "/mcp/told", "x-original-method": "evil",
	} {
		attacks = append(attacks, a.plus("R11 "+name, "200", name, value))
	}
	verb := func(method, want string, body bool) {
		b := a
		b.name, b.method, b.want = "R11 "+method, method, want
		if !body {
			b.name, b.body = b.name+" without a body", ""
			b = b.set(b.name, want, "content-type")
		}
		attacks = append(attacks, b)
	}
	for _, method := range []string{"PUT", "PATCH", "OPTIONS", "EVIL", "post", "Post", "Get", "PROPFIND", "QUERY"} {
		verb(method, noVerb+" 405 400 501 ended", true)
	}
	verb("HEAD", "405", false)
	verb("TRACE", noVerb+" 405 400 501 ended", false)
	verb("OPTIONS", noVerb, false)
	for _, method := range []string{"GET", "DELETE"} {
		verb(method, ambiguous, true)
	}
	if s.modern() {
		verb("GET", noVerb, false)
		verb("DELETE", noVerb, false)
	} else {
		// Policy lets agents end sessions, and the server says that there is none.
		b := s.attack("R11 DELETE without a session", "", "").set("", "", "mcp-session-id")
		b.method, b.body, b.want, b.name = "DELETE", "", "ran", "R11 DELETE without a session"
		b = b.set(b.name, "ran", "content-type")
		attacks = append(attacks, b, b.set("R11 DELETE without a token", nobody, "authorization"))
	}
	return append(attacks, a.set("R11 POST without a token", nobody, "authorization"))
}

// paths is R12: there is one, and no query. What Envoy takes for another way of
// writing it reaches the server as the one that was decided.
func (s speaker) paths() []attack {
	var attacks []attack
	own := "/mcp/" + s.server
	other := map[string]string{"notes": "/mcp/told", "legacy": "/mcp/notes"}[s.server]
	for path, want := range map[string]string{
		"/" + own: "200 404", "/mcp//" + s.server: "200 404", "/./mcp/" + s.server: "200 404", "/mcp/./" + s.server: "200 404", "/x/.." + own: "200 404", other + "/../" + s.server: "200 404",
		`\mcp/` + s.server: "200 " + mayEnd, `/mcp\` + s.server: "200 400 404", "/%6dcp/" + s.server: "200 404", "/mcp/%2e/" + s.server: "200 404", "/mcp/x/%2e%2e/" + s.server: "200 404",
		own + "#x": "200 400 404 ended", own + "#": "200 400 404 ended",
		own + "/": "404", own + "//": "404", "/MCP/" + s.server: "404", strings.ToUpper(own): "404", own + ";a=b": "404", own + ";": "404", "/mcp;x/" + s.server: "404", own + "/.": "404", own + "/..": "404", own + "/../admin": "404",
		own + "/x": "404", "/mcp": "404", "/mcp/": "404", "/" + s.server: "404", own + "s": "404", "/mcp/" + s.server[1:]: "404", "/mcp/*": "404", own + ".json": "404", own + ".": "404",
		"/mcp%2f" + s.server: "400", "/mcp%2F" + s.server: "400", "/mcp%5c" + s.server: "400", own + "%00": "400", "/%00" + own: "400", own + "%2f": "400", "/x%2f.." + own: "400",
		own + "%20": "404", own + "%3f": "404", own + "%23": "404", own + "%3b": "404", "/%256dcp/" + s.server: "404", own + "%": "400 404", own + "%zz": "400 404", own + "%c0%af": "400 404",
		"/mcp/n%c3%b6tes": "404", "/mcp/..;/mcp/" + s.server: "200 404", "/x/..;a=b" + own: "200 404", "/mcp/.;/" + s.server: "200 404", "/mcp/...;/" + s.server: "404", "/.well-known/../mcp/" + s.server: "200 404", "/": "404", "*": mayEnd, "": mayEnd, own[1:]: mayEnd, "//evil.internal" + own: "404",
		"http:" + own: mayEnd, own + "?": ambiguous, own + "?a=b": ambiguous, own + "?/../b": ambiguous, own + "??": ambiguous, own + "?" + theID: ambiguous, own + "?sessionId=x": ambiguous,
		own + "?access_token=x": "401/401/null", own + "?a=b#c": "400", own + ";?a": "404", own + "%3fa=b": "404",
	} {
		a := s.write("R12 " + strings.ReplaceAll(path, "/", "|"))
		a.path, a.want = path, want
		attacks = append(attacks, a)
	}
	return attacks
}

// hosts is R18: DNS rebinding needs a name that others control, or a page of
// theirs.
func (s speaker) hosts() []attack {
	var attacks []attack
	own := s.server + ".internal"
	host := func(want string, hosts ...string) {
		for _, h := range hosts {
			a := s.write("R18 host " + h)
			a.host, a.want = h, want
			attacks = append(attacks, a)
		}
	}
	// Envoy takes off what is behind the last colon.
	host("200", own, strings.ToUpper(own), own+":8443", own+":0", own+":80:80", "localhost", "localhost:80", "127.0.0.1", "127.0.0.1:10000", "10.1.2.3", "[::1]", "[::1]:80")
	host(foreign, "evil", "evil.internal", own+".evil.internal", own+".", "evil-"+own, "evil."+own, "told.internal", "127.0.0.1.evil.internal", "localhost.evil.internal", "localhost.", "0x7f.1", "127.1", "2130706433", "mcp", "xn--"+own)
	host(foreign+" 400 404 ended", "evil@"+own, own+",evil", own+" evil", own+"/evil", own+"#", "[::1", "[fe80::1%25lo]", "::1", own+":x", own+":", "*")
	page := func(want string, origins ...string) {
		a := s.write("")
		attacks = append(attacks, a.set("R18 origin "+strings.ReplaceAll(strings.Join(origins, " and "), "/", "|"), want, "origin", origins...))
	}
	for _, origin := range []string{"https://evil.internal", "http://evil.internal", "null", "", "http://localhost", "http://127.0.0.1:10000", "https://" + own, "https://" + own + ".evil", "file://", "evil", "https://INSPECTOR.example", "https://inspector.example:8443", "https://inspector.example/"} {
		page(foreign, origin)
	}
	page(foreign, "https://inspector.example", "https://evil.internal")
	page(foreign, "https://evil.internal", "https://inspector.example")
	page(foreign, "https://inspector.example, https://evil.internal")
	if s.server == "legacy" { // its catalogue entry names both
		page("200", "https://inspector.example")
		host("200", "mcp.example", "MCP.example:443")
	} else {
		page(foreign, "https://inspector.example")
		host(foreign, "mcp.example")
	}
	return attacks
}
