package authz

import (
	"strings"
	"testing"
)

// The rows of the threat list that need bytes which no client library sends. In
// each the answer is a refusal and the tool has not run, or the tool ran exactly
// once, and got exactly what the check was about.

// ranClean holds what reached the tool of a call that was allowed.
func (l *live) ranClean(t *testing.T, name, status string, mayRun bool) {
	t.Helper()
	ran := l.taken()
	switch {
	case status != "200" && len(ran) == 0 && !strings.HasPrefix(status, "2"):
		return
	case status != "200" || len(ran) != 1 || !mayRun:
		t.Errorf("%s: answer %q, and the tool ran %d times", name, status, len(ran))
		return
	}
	r := ran[0]
	if r.Host != "srv.internal" || r.URL.Path != "/pay" && r.URL.Path != "/bare" || r.URL.IsAbs() || len(r.Trailer) > 0 {
		t.Errorf("%s: the tool got %s %s of %s, trailers %v", name, r.Method, r.RequestURI, r.Host, r.Trailer)
	}
	for header, values := range r.Header {
		header = strings.ToLower(header)
		ours := strings.HasPrefix(header, "x-grant-ctx-") && len(values) == 1 && !strings.Contains(values[0], "evil")
		if !ours && !passed[header] || strings.Contains(strings.Join(values, ","), "evil") {
			t.Errorf("%s: the tool got %s: %q", name, header, values)
		}
	}
	if got := r.Header.Values("X-Grant-Ctx-Agent"); len(got) != 1 || got[0] != l.bot.ID() {
		t.Errorf("%s: x-grant-ctx-agent: %q", name, got)
	}
}

func TestLiveHTTP1(t *testing.T) {
	l := openLive(t, nil)
	auth := "Authorization: Bearer " + l.token(l.grant("srv/bare")) + "\r\n"
	payAuth := "Authorization: Bearer " + l.token(l.grant("srv/pay")) + "\r\nContent-Type: application/json\r\n"
	const get, post = "GET /bare HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", "POST /pay HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
	const chunks = "Transfer-Encoding: chunked\r\n\r\nc\r\n{\"amount\":1}\r\n0\r\n"
	for _, tc := range []struct {
		name, request, status string // "" is any refusal, or a call that got through clean
	}{
		{"R00 as it should be", get + auth + "\r\n", "200"},
		{"R00 as it should be, chunked", post + payAuth + chunks + "\r\n", "200"},

		{"T15 two Authorization headers", get + auth + auth + "\r\n", "401"},
		{"T15 two, one of them in another case", get + auth + strings.Replace(auth, "Authorization", "aUTHORIZATION", 1) + "\r\n", "401"},
		{"T15 Bearer twice in one", get + strings.TrimSpace(auth) + " Bearer x\r\n\r\n", "401"},
		{"T15 folded onto the next line", get + strings.Replace(auth, " Bearer", "\r\n Bearer", 1) + "\r\n", ""},
		{"T15 in header, query and body", strings.Replace(post, "/pay", "/pay?access_token=x", 1) + payAuth + "Content-Length: 29\r\n\r\n" + `{"amount":1,"access_token":1}`, "401"},
		{"T15 in another tool's header too", get + auth + "X-Own-Token: x\r\n\r\n", "401"},
		{"T15 in another tool's header alone", get + strings.Replace(auth, "Authorization: Bearer ", "X-Own-Token: ", 1) + "\r\n", "401"},

		{"R06 chunked over the limit", post + payAuth + "Transfer-Encoding: chunked\r\n\r\n20000\r\n" + strings.Repeat(" ", 0x20000) + "\r\n0\r\n\r\n", "413"},
		{"R06 a length over the limit, and less sent", post + payAuth + "Content-Length: 200000\r\n\r\n" + `{"amount":1}` + strings.Repeat(" ", 70_000), "413"},

		{"R07 headers that Envoy sets", get + auth + "X-Envoy-Auth-Partial-Body: false\r\nX-Envoy-Original-Path: /evil\r\nX-Envoy-Upstream-Rq-Timeout-Ms: 1\r\n" +
			"X-Envoy-Internal: evil\r\nX-Forwarded-For: evil\r\nX-Forwarded-Proto: evil\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Client-Cert: URI=evil\r\nX-Request-Id: evil\r\n\r\n", "200"},
		{"R07 the context, spoofed", get + auth + "X-Grant-Ctx-Agent: evil\r\nx-grant-ctx-agent: evil2\r\nX-GRANT-CTX-TASK: evil\r\nX-Grant-Ctx-Admin: evil\r\n\r\n", "200"},
		{"R07 the context with an underscore", get + auth + "X_Grant_Ctx_Agent: evil\r\n\r\n", "400"},
		{"R07 made hop-by-hop", strings.Replace(get, "Connection: close", "Connection: close, authorization, x-grant-ctx-agent, x-request-id", 1) + auth + "\r\n", ""},

		{"R10 trailers", post + payAuth + "Trailer: Authorization, X-Grant-Ctx-Agent\r\n" + chunks + "Authorization: Bearer evil\r\nX-Grant-Ctx-Agent: evil\r\n\r\n", "200"},
		{"R10 the credential in a trailer alone", post + "Content-Type: application/json\r\n" + chunks + auth + "\r\n", "401"},
		{"R10 chunk extensions", post + payAuth + strings.Replace(chunks, "c\r\n", "c;a=evil\r\n", 1) + "\r\n", ""},
		{"R10 both lengths", post + payAuth + "Content-Length: 12\r\n" + chunks + "\r\n", "400"},
		{"R10 two lengths", post + payAuth + "Content-Length: 12\r\nContent-Length: 13\r\n\r\n" + `{"amount":1}`, "400"},
		{"R10 a length with a sign", post + payAuth + "Content-Length: +12\r\n\r\n" + `{"amount":1}`, "400"},
		{"R10 another transfer coding", post + payAuth + strings.Replace(chunks, "chunked", "xchunked", 1) + "\r\n", ""},
		{"R10 chunked twice", post + payAuth + strings.Replace(chunks, "chunked", "chunked, chunked", 1) + "\r\n", ""},
		{"R10 a chunk size beyond 64 bits", post + payAuth + "Transfer-Encoding: chunked\r\n\r\n1000000000000000c\r\n" + `{"amount":1}` + "\r\n0\r\n\r\n", "400"},
		{"R10 a call smuggled behind the body", post + payAuth + "Content-Length: 12\r\n\r\n" + `{"amount":1}` + "GET /open HTTP/1.1\r\nHost: a\r\n\r\n", "200"},

		{"R11 GET with a body", get + auth + "Content-Length: 2\r\n\r\n{}", "400"},
		{"R11 HEAD", strings.Replace(get, "GET", "HEAD", 1) + auth + "\r\n", "404"},
		{"R11 OPTIONS", strings.Replace(get, "GET", "OPTIONS", 1) + auth + "\r\n", "404"},
		{"R11 a method in lower case", strings.Replace(get, "GET", "get", 1) + auth + "\r\n", ""},
		{"R11 overrides", get + auth + "X-HTTP-Method-Override: POST\r\nX-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\nX-Method-Override: evil\r\n\r\n", "200"},

		{"R12 an absolute URI", strings.Replace(get, "/bare", "http://evil.internal/bare", 1) + auth + "\r\n", ""},
		{"R12 a fragment", strings.Replace(get, "/bare", "/bare#x", 1) + auth + "\r\n", ""},
		{"R12 a parameter", strings.Replace(get, "/bare", "/bare;x=1", 1) + auth + "\r\n", "404"},
		{"R12 up and down", strings.Replace(get, "/bare", "/open/../bare", 1) + auth + "\r\n", ""},
		{"R12 an escaped letter", strings.Replace(get, "/bare", "/%62are", 1) + auth + "\r\n", ""},
		{"R12 an escaped escape", strings.Replace(get, "/bare", "/%2562are", 1) + auth + "\r\n", "404"},
		{"R12 an escaped slash", strings.Replace(get, "/bare", "/open%2f..%2fbare", 1) + auth + "\r\n", "400"},
		{"R12 a zero", strings.Replace(get, "/bare", "/bare%00", 1) + auth + "\r\n", "400"},
		{"R12 a query that is not declared", strings.Replace(get, "/bare", "/bare?a=b", 1) + auth + "\r\n", "400"},

		{"R13 two hosts", strings.Replace(get, "Host: a", "Host: a\r\nHost: evil", 1) + auth + "\r\n", "400"},
		{"R13 no host", strings.Replace(get, "Host: a\r\n", "", 1) + auth + "\r\n", "400"},
		{"R13 CONNECT", strings.Replace(get, "GET /bare", "CONNECT a:80", 1) + auth + "\r\n", "404"},
		{"R13 bytes beyond ASCII", get + auth + "Accept-Language: a\x85b\r\n\r\n", "400"},
		{"R13 a bare line end", get + strings.TrimSuffix(auth, "\r\n") + "\n\r\n", ""},
		{"R13 a carriage return in a value", get + auth + "Accept-Language: a\rX-Evil: b\r\n\r\n", ""},
		{"R13 a zero in a value", get + auth + "Accept-Language: a\x00b\r\n\r\n", "400"},
		{"R13 a blank before the colon", get + strings.Replace(auth, ":", " :", 1) + "\r\n", "400"},
		{"R13 a name with a blank", get + auth + "X Evil: a\r\n\r\n", "400"},
		{"R13 HTTP/1.0", strings.Replace(get, "HTTP/1.1", "HTTP/1.0", 1) + auth + "\r\n", ""},
		{"R13 an upgrade to h2c", strings.Replace(get, "Connection: close", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", 1) + auth + "\r\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status := l.h1(t, tc.request)
			if tc.status != "" && status != tc.status {
				t.Errorf("answer %q, want %q", status, tc.status)
			}
			l.ranClean(t, tc.name, status, tc.status == "200" || tc.status == "")
		})
	}
}

func TestLiveHTTP2(t *testing.T) {
	l := openLive(t, nil)
	auth := []string{"authorization", "Bearer " + l.token(l.grant("srv/bare"))}
	payAuth := []string{"authorization", "Bearer " + l.token(l.grant("srv/pay")), "content-type", "application/json"}
	head := func(method, path string, more ...[]string) []string {
		fields := []string{":method", method, ":scheme", "http", ":path", path, ":authority", "a"}
		for _, m := range more {
			fields = append(fields, m...)
		}
		return fields
	}
	h := func(fields ...string) []string { return fields }
	type row struct {
		name     string
		fields   []string
		body     string
		trailers []string
		status   string // "-" is any refusal, "" that or a call that got through clean
	}
	var refused []row
	for _, tc := range []row{
		{"R00 as it should be", head("GET", "/bare", auth), "", nil, "200"},
		{"R00 as it should be, with a body", head("POST", "/pay", payAuth), `{"amount":1}`, nil, "200"},

		{"T15 two authorization fields", head("GET", "/bare", auth, auth), "", nil, "401"},
		{"T15 in another tool's field too", head("GET", "/bare", auth, h("x-own-token", "x")), "", nil, "401"},
		{"T15 in the query too", head("GET", "/bare?access_token=x", auth), "", nil, "401"},

		{"R07 what Envoy sets", head("GET", "/bare", auth, h("x-envoy-auth-partial-body", "false", "x-envoy-internal", "evil", "x-forwarded-for", "evil", "x-forwarded-proto", "evil", "x-request-id", "evil")), "", nil, "200"},
		{"R07 the context, spoofed", head("GET", "/bare", auth, h("x-grant-ctx-agent", "evil", "x-grant-ctx-agent", "evil", "x-grant-ctx-admin", "evil")), "", nil, "200"},
		{"R10 trailers", head("POST", "/pay", payAuth, h("te", "trailers", "trailer", "authorization")), `{"amount":1}`, h("authorization", "Bearer evil", "x-grant-ctx-agent", "evil"), "200"},
		{"R10 the credential in a trailer alone", head("POST", "/pay", h("content-type", "application/json")), `{"amount":1}`, payAuth[:2], "401"},
		{"R10 a pseudo-header in a trailer", head("POST", "/pay", payAuth), `{"amount":1}`, h(":path", "/evil"), "-"},
		{"R10 a length that is not the body's", head("POST", "/pay", payAuth, h("content-length", "5")), `{"amount":1}`, nil, "-"},
		{"R10 two lengths", head("POST", "/pay", payAuth, h("content-length", "12", "content-length", "13")), `{"amount":1}`, nil, "-"},
		{"R10 a transfer coding", head("POST", "/pay", payAuth, h("transfer-encoding", "chunked")), `{"amount":1}`, nil, "-"},
		{"R11 GET with a body", head("GET", "/bare", auth), "{}", nil, "400"},
		{"R11 HEAD", head("HEAD", "/bare", auth), "", nil, "404"},
		{"R11 overrides", head("GET", "/bare", auth, h("x-http-method-override", "POST", "x-original-url", "/evil")), "", nil, "200"},
		{"R12 an absolute URI", head("GET", "http://evil.internal/bare", auth), "", nil, "-"},
		{"R12 a path without a slash", head("GET", "bare", auth), "", nil, "-"},
		{"R12 no path at all", head("GET", "", auth), "", nil, "-"},
		{"R12 a fragment", head("GET", "/bare#x", auth), "", nil, ""},
		{"R12 an escaped slash", head("GET", "/open%2f..%2fbare", auth), "", nil, "400"},
		{"R13 no :path", append(h(":method", "GET", ":scheme", "http", ":authority", "a"), auth...), "", nil, "-"},
		{"R13 no :method", append(h(":path", "/bare", ":scheme", "http", ":authority", "a"), auth...), "", nil, "-"},
		{"R13 two :path", append(h(":path", "/open"), head("GET", "/bare", auth)...), "", nil, "-"},
		{"R13 two :method", append(h(":method", "POST"), head("GET", "/bare", auth)...), "", nil, "-"},
		{"R13 host beside :authority", head("GET", "/bare", auth, h("host", "evil.internal")), "", nil, ""},
		{"R13 host in place of :authority", append(h(":method", "GET", ":scheme", "http", ":path", "/bare", "host", "evil.internal"), auth...), "", nil, ""},
		{"R13 neither", append(h(":method", "GET", ":scheme", "http", ":path", "/bare"), auth...), "", nil, "-"},
		{"R13 a user in :authority", append(h(":method", "GET", ":scheme", "http", ":path", "/bare", ":authority", "evil@a"), auth...), "", nil, "-"},
		{"R13 a pseudo-header behind the others", append(append(h(":method", "GET", ":scheme", "http", ":authority", "a"), auth...), ":path", "/bare"), "", nil, "-"},
		{"R13 an unknown pseudo-header", append(h(":evil", "1"), head("GET", "/bare", auth)...), "", nil, "-"},
		{"R13 a name in upper case", head("GET", "/bare", h("Authorization", auth[1])), "", nil, "-"},
		{"R13 a name with an underscore", head("GET", "/bare", auth, h("x_grant_ctx_agent", "evil")), "", nil, "-"},
		{"R13 CONNECT", append(h(":method", "CONNECT", ":authority", "a:80"), auth...), "", nil, "-"},
		{"R13 an extended CONNECT", append(h(":protocol", "websocket"), head("CONNECT", "/bare", auth)...), "", nil, "-"},
		{"R13 a connection header", head("GET", "/bare", auth, h("connection", "authorization")), "", nil, "-"},
		{"R13 bytes beyond ASCII", head("GET", "/bare", auth, h("accept-language", "a\x85\xffb")), "", nil, "400"},
		{"R13 bytes beyond ASCII in the credential", head("GET", "/bare", h("authorization", auth[1]+"\xe9")), "", nil, "401"},
		{"R13 bytes beyond ASCII in the path", head("GET", "/bar\xe9", auth), "", nil, "-"},
		{"R13 bytes beyond ASCII in the query", head("GET", "/bare?q=\xe9", auth), "", nil, "-"},
		{"R13 a line end in a value", head("GET", "/bare", auth, h("accept-language", "a\r\nx-evil: b")), "", nil, "-"},
		{"R13 a line end in the path", head("GET", "/bare\r\nx-evil: b", auth), "", nil, "-"},
		{"R13 a zero in a value", head("GET", "/bare", auth, h("accept-language", "a\x00b")), "", nil, "-"},
		{"R13 blanks around the credential", head("GET", "/bare", h("authorization", " "+auth[1]+" ")), "", nil, ""},
	} {
		if tc.status == "-" {
			refused = append(refused, tc)
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			status := l.send(t, tc.fields, tc.body, tc.trailers...).status()
			if tc.status != "" && tc.status != status {
				t.Errorf("answer %q, want %q", status, tc.status)
			}
			l.ranClean(t, tc.name, status, tc.status == "200" || tc.status == "")
		})
	}
	// Envoy takes a second to hang up, so all are sent before the first is read.
	sent := make([]*rawH2, len(refused))
	for i, tc := range refused {
		sent[i] = l.send(t, tc.fields, tc.body, tc.trailers...)
	}
	for i, tc := range refused {
		if status := sent[i].status(); status != "" && !strings.HasPrefix(status, "4") {
			t.Errorf("%s: answer %q, want a refusal", tc.name, status)
		}
	}
	if ran := l.taken(); len(ran) != 0 {
		t.Errorf("the tool ran %d times", len(ran))
	}
}
