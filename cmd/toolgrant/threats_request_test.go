package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"sigs.k8s.io/yaml"

	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
	"github.com/toolgrant/toolgrant/token"
)

// TestThreatsToRequest sends the threat list's requests through real Envoy to a
// `toolgrant serve`, with the token of a live grant.
func TestThreatsToRequest(t *testing.T) {
	w := openTarget(t, token.EdDSA, declareDesk)
	for name, group := range map[string]struct {
		rows    []string
		attacks []attack
	}{
		"bodies":  {[]string{"R01", "R02", "R03", "R04", "R05", "R06", "R08", "R09"}, append(w.bodies(), w.bodyHeaders()...)},
		"headers": {[]string{"R07", "R11"}, w.headers()},
		"framing": {[]string{"R10"}, w.good().framing()},
		"paths":   {[]string{"R12"}, w.paths()},
		"forms":   {[]string{"R13"}, append(w.good().forms1(), w.good().forms2()...)},
	} {
		t.Run(name, func(t *testing.T) {
			covers(t, group.attacks, group.rows)
			w.hold(t, group.attacks)
			// It answers afterwards, over both protocols.
			w.hold(t, []attack{{name: "afterwards", fields: bearer(w.token), body: october, want: "200"}})
		})
	}
}

// declareDesk gives reports/export an argument whose name has the two letters
// that fold from beyond ASCII.
func declareDesk(w *world) {
	w.t.Helper()
	file := filepath.Join(w.dir, "tools.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	const month = "        month: {type: string}\n"
	changed := bytes.Replace(text, []byte(month), []byte(month+"        desk: {type: string}\n        amount: {type: number}\n"), 1)
	if bytes.Equal(text, changed) {
		w.t.Fatal("tools.yaml has changed")
	}
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// bodies are R01 to R05: what parsers read differently, or not at all.
func (w *target) bodies() []attack {
	var attacks []attack
	add := func(row, name, body, want string) {
		attacks = append(attacks, attack{name: row + " " + name, fields: bearer(w.token), body: body, want: want})
	}
	add("R00", "the plain request", october, "200")
	add("R00", "all arguments, spaced", "\n{ \"month\" : \"2026-10\",\t\"desk\":\"d\", \"amount\":1.5 }\r\n", "200")

	for name, body := range map[string]string{
		"at the top": `{"month":"2026-10","month":"2026-11"}`, "the same value": `{"month":"2026-10","month":"2026-10"}`,
		"apart": `{"month":"2026-10","desk":"d","month":"2026-11"}`, "escaped": `{"month":"2026-10","\u006donth":"2026-11"}`,
		"escaped, in capitals": `{"month":"2026-10","mont\u0068":"x"}`, "in an object": `{"month":"2026-10","x":{"a":1,"a":2}}`,
		"in an object of an array": `{"month":"2026-10","x":[{"a":1},{"a":1,"a":2}]}`, "empty names": `{"month":"2026-10","":1,"":2}`,
	} {
		add("R01", name, body, "400")
	}
	for name, body := range map[string]string{
		"case": `{"month":"2026-10","Month":"2026-11"}`, "capitals": `{"MONTH":"2026-10","month":"2026-11"}`, "case alone": `{"Month":"2026-10"}`,
		"long s": `{"month":"2026-10","desk":"a","deſk":"b"}`, "Kelvin sign": `{"month":"2026-10","desk":"a","des` + "\u212a" + `":"b"}`,
		"Kelvin sign, escaped": `{"month":"2026-10","desk":"a","des\u212a":"b"}`, "NUL behind": `{"month":"2026-10","month\u0000":"x"}`,
		"NUL alone": `{"month\u0000":"2026-10"}`, "case, nested": `{"month":"2026-10","x":{"a":1,"A":2}}`,
	} {
		add("R02", name, body, "400")
	}
	wide := func(order func(r uint16) []byte) string {
		var b bytes.Buffer
		for _, r := range utf16.Encode([]rune(october)) {
			b.Write(order(r))
		}
		return b.String()
	}
	for name, body := range map[string]string{
		"UTF-8 mark": "\xef\xbb\xbf" + october, "UTF-16LE": wide(func(r uint16) []byte { return []byte{byte(r), byte(r >> 8)} }),
		"UTF-16BE, mark": "\xfe\xff" + wide(func(r uint16) []byte { return []byte{byte(r >> 8), byte(r)} }),
		"UTF-32LE":       wide(func(r uint16) []byte { return []byte{byte(r), byte(r >> 8), 0, 0} }),
		"UTF-32BE, mark": "\x00\x00\xfe\xff" + wide(func(r uint16) []byte { return []byte{0, 0, byte(r >> 8), byte(r)} }),
		"invalid":        "{\"month\":\"\xff\"}", "overlong": "{\"month\":\"\xc0\xaf\"}", "overlong NUL": "{\"month\":\"\xc0\x80\"}",
		"cut": "{\"month\":\"\xe2\x82\"}", "surrogate": "{\"month\":\"\xed\xa0\x80\"}", "invalid name": "{\"month\":\"x\",\"\xff\":1}",
		"lone surrogate, escaped": `{"month":"\ud800"}`, "low surrogate first": `{"month":"\udc00\ud800"}`, "beyond Unicode": "{\"month\":\"\xf4\x90\x80\x80\"}",
	} {
		add("R03", name, body, "400")
	}
	for name, body := range map[string]string{
		"array": "[" + october + "," + october + "]", "array of one": "[" + october + "]", "empty array": "[]", "two values": october + october,
		"two values, spaced": october + " " + october, "NDJSON": october + "\n" + october + "\n", "trailing text": october + "x",
		"trailing comma": october + ",", "trailing NUL": october + "\x00", "trailing bracket": october + "}", "comma inside": `{"month":"2026-10",}`,
		"cut": october[:len(october)-3], "comment": october + "/**/", "single quotes": `{'month':'2026-10'}`, "bare name": `{month:"2026-10"}`,
		"a string": `"month"`, "null": "null", "form": "month=2026-10", "blanks": "   ",
	} {
		add("R04", name, body, "400")
	}
	add("R04", "nothing", "", "400")

	const open = `{"month":"2026-10","x":`
	for name, n := range map[string]int{"10^4": 10_000, "3×10^4": 30_000, "10^5": 100_000, "10^6": 1_000_000} {
		want := "400"
		if 2*n > 64<<10 { // Envoy holds no more of a body
			want = "413"
		}
		add("R05", "arrays in each other, "+name, open+strings.Repeat("[", n)+strings.Repeat("]", n)+"}", want)
		add("R05", "arrays that never end, "+name, open+strings.Repeat("[", 2*n), want)
		add("R05", "objects in each other, "+name, open+strings.Repeat(`{"":`, n/4)+"1"+strings.Repeat("}", n/4)+"}", map[bool]string{true: "413", false: "400"}[n > 40_000])
	}
	keys := func(n int) string {
		var b strings.Builder
		b.WriteString(`{"month":"2026-10"`)
		for i := range n {
			b.WriteString(`,"` + strconv.FormatInt(int64(i), 36) + `":1`)
		}
		return b.String() + "}"
	}
	add("R05", "10^5 names", keys(100_000), "413")
	add("R05", "7,000 names, the last one twice", strings.TrimSuffix(keys(7_000), "}")+`,"5ef":2}`, "400")
	add("R05", "7,000 names that nobody declared", keys(7_000), "403")
	for _, number := range []string{
		strings.Repeat("9", 400), "0." + strings.Repeat("1", 400), "1e400", "-1e400", "1e-400", "1e10000000", "1" + strings.Repeat("0", 60_000),
		"NaN", "Infinity", "-Infinity", "0x10", "01", "+1", ".5", "1.", "-", "1e", "9007199254740993", "1_000",
	} {
		add("R05", "number "+number[:min(len(number), 20)], `{"month":"2026-10","amount":`+number+"}", "400")
	}
	return attacks
}

// bodyHeaders are R06, R08 and R09: the body's size, and what is said of it.
func (w *target) bodyHeaders() []attack {
	good := w.good()
	huge := `{"month":"2026-10"` + strings.Repeat(" ", 64<<10) + "}"
	fits := `{"month":"2026-10"` + strings.Repeat(" ", 64<<10-len(october)) + "}"
	attacks := []attack{
		{name: "R06 a body of the limit", fields: bearer(w.token), body: fits, want: "200"},
		{name: "R06 over the limit", fields: bearer(w.token), body: huge, want: "413"},
		{name: "R06 over the limit, in chunks", fields: bearer(w.token), body: huge, trailers: []string{}, want: "413"},
		{name: "R06 1 MB over the limit", fields: bearer(w.token), body: huge + strings.Repeat(" ", 1<<20), want: "413"},
		{name: "R06 over the limit, and no token", fields: bearer(w.token)[2:], body: huge, want: "401 413"},
		{name: "R06 the length says more than comes", http1: good.head1() + "Content-Length: 200000\r\n\r\n" + huge, want: "413"},
		{name: "R06 half of it", fields: bearer(w.token), body: `{"month":"2026-`, want: "400"},
		{name: "R06 partial, the client says", fields: bearer(w.token, "x-envoy-auth-partial-body", "true"), body: october, want: "200 413"},
		{name: "R06 partial, and half of it", fields: bearer(w.token, "x-envoy-auth-partial-body", "true"), body: `{"month":"2026-`, want: "400 413"},
		{name: "R06 not partial, the client says", fields: bearer(w.token, "x-envoy-auth-partial-body", "false"), body: october, want: "200 413"},
	}
	for name, value := range map[string]string{
		"gzip": "gzip", "br": "br", "deflate": "deflate", "zstd": "zstd", "gzip twice": "gzip, gzip", "identity": "identity", "unknown": "evil", "empty": "",
	} {
		a := attack{name: "R08 " + name, fields: bearer(w.token, "content-encoding", value), body: october, want: "415"}
		attacks = append(attacks, a)
		a.name, a.body = "R08 "+name+", truly", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
		attacks = append(attacks, a)
	}
	attacks = append(attacks, attack{name: "R08 gzip, not said", fields: bearer(w.token), body: "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", want: "400"})
	for _, value := range []string{
		"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "application/json; charset=iso-8859-1",
		"application/json, text/plain", "application/jsonp", "application/json+x", "application/problem+json", "text/json", "*/*", "application/json;charset", `application/json; charset="utf-7"`, "",
	} {
		attacks = append(attacks, attack{name: "R09 " + strings.ReplaceAll(value, "/", "|"), fields: append(bearer(w.token)[:2:2], "content-type", value), body: october, want: "415"})
	}
	return append(attacks,
		attack{name: "R09 missing", fields: bearer(w.token)[:2], body: october, want: "415"},
		attack{name: "R09 two", fields: bearer(w.token, "content-type", "text/plain"), body: october, want: "415"})
}

// TestPartialBody (R06): an Envoy that somebody told to send a part of the body
// to the check, and the whole of it to the tool.
func TestPartialBody(t *testing.T) {
	w := openTarget(t, token.EdDSA)
	w.sendParts(t, len(october))
	long := october + strings.Repeat(" ", 100)
	w.hold(t, []attack{
		{name: "R06 the whole", fields: bearer(w.token), body: october, want: "200"},
		{name: "R06 a part that is whole by itself", fields: bearer(w.token), body: long, want: "413"},
		{name: "R06 a part, and the client says that it is not", fields: bearer(w.token, "x-envoy-auth-partial-body", "false"), body: long, want: "413"},
		{name: "R06 a part, in chunks", fields: bearer(w.token), body: long, trailers: []string{}, want: "413"},
		{name: "R06 a part, with trailers", fields: bearer(w.token), body: long, trailers: []string{"x-evil", "1"}, want: "413"},
	})
}

// sendParts starts an Envoy that sends no more than so many bytes to the check.
func (w *world) sendParts(t *testing.T, bytes int) {
	t.Helper()
	text, err := envoy.Config(w.envoyOptions())
	if err != nil {
		t.Fatal(err)
	}
	var config any
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	set(t, config, "with_request_body", map[string]any{"max_request_bytes": bytes, "allow_partial_message": true, "pack_as_bytes": true})
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	w.envoy = envoytest.Start(t, text)
	w.front = "http://" + w.envoy.Listener(t, "toolgrant")
}

// set gives the one member of that name another value, however deep it lies.
func set(t *testing.T, in any, name string, value any) {
	t.Helper()
	found := 0
	var walk func(any)
	walk = func(in any) {
		switch x := in.(type) {
		case map[string]any:
			for key, member := range x {
				if key == name {
					x[key] = value
					found++
				} else {
					walk(member)
				}
			}
		case []any:
			for _, item := range x {
				walk(item)
			}
		}
	}
	if walk(in); found != 1 {
		t.Fatalf("%d members are called %s", found, name)
	}
}

// headers are R07 and R11: what steers an Envoy or a tool that believes it.
func (w *target) headers() []attack {
	good := w.good()
	attacks := []attack{
		{name: "R07 x-envoy-*", fields: bearer(w.token, "x-envoy-auth-partial-body", "false", "x-envoy-original-path", "/evil", "x-envoy-upstream-rq-timeout-ms", "1",
			"x-envoy-internal", "evil", "x-envoy-retry-on", "5xx", "x-envoy-max-retries", "9", "x-envoy-hedge-on-per-try-timeout", "true", "x-envoy-upstream-alt-stat-name", "evil"), body: october, want: "200"},
		{name: "R07 x-grant-*", fields: bearer(w.token, "x-grant", "evil", "x-grant-ctx-agent", "evil", "x-grant-ctx-agent", "evil", "X-Grant-Ctx-Task", "evil", "x-grant-ctx-admin", "evil"), body: october, want: "200"},
		{name: "R07 x-forwarded-*", fields: bearer(w.token, "x-forwarded-for", "evil", "x-forwarded-proto", "evil", "x-forwarded-host", "evil", "x-forwarded-user", "evil",
			"x-forwarded-client-cert", "URI=evil", "forwarded", "for=evil", "x-real-ip", "evil"), body: october, want: "200"},
		{name: "R07 x-request-id", fields: bearer(w.token, "x-request-id", "evil"), body: october, want: "200"},
		{name: "R07 an underscore", fields: bearer(w.token, "x_grant_ctx_agent", "evil"), body: october, want: "400 ended"},
		{name: "R07 hop by hop", http1: strings.Replace(good.head1(), "Connection: close", "Connection: close, authorization, x-grant-ctx-agent", 1) + good.length(), want: "200 400 401"},
	}
	for i := range attacks { // field names are in lower case in HTTP/2
		for n := 0; n+1 < len(attacks[i].fields); n += 2 {
			attacks[i].fields[n] = strings.ToLower(attacks[i].fields[n])
		}
	}
	for name, value := range map[string]string{
		"x-http-method-override": "DELETE", "x-http-method": "DELETE", "x-method-override": "DELETE", "x-original-url": "/archive", "x-rewrite-url": "/archive", "x-original-method": "evil",
	} {
		attacks = append(attacks, attack{name: "R11 " + name, fields: bearer(w.token, name, value), body: october, want: "200"})
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "DELETE", "post", "Post", "EVIL"} {
		attacks = append(attacks, attack{name: "R11 " + method, method: method, fields: bearer(w.token), body: october, want: mayEnd + " 405 501"})
	}
	return append(attacks,
		attack{name: "R11 the method in the query", path: exportCSV + "&_method=DELETE", fields: bearer(w.token), body: october, want: "400"},
		attack{name: "R11 a body where none is declared", method: "DELETE", path: "/archive", fields: bearer(w.token), body: october, want: "400 403"})
}

// framing is R10: where a body ends, and what comes behind it.
func (g good) framing() []attack {
	spoof := []string{"authorization", "Bearer evil", "x-grant-ctx-agent", "evil", "mcp-name", "evil"}
	head, length, chunks := g.head1(), g.length(), g.chunks()
	size, hex := strconv.Itoa(len(g.body)), fmt.Sprintf("%x\r\n", len(g.body))
	without := func(name string) []string { // that field
		return slices.Concat(g.fields[:slices.Index(g.fields, name)], g.fields[slices.Index(g.fields, name)+2:])
	}
	anonymous := strings.Replace(head, "authorization: "+g.fields[1]+"\r\n", "", 1)
	hidden := strings.Replace(head, "MARK", "evil", 1) + length
	http2 := g.fields2()
	with := func(fields ...string) []string { return slices.Concat(http2, fields) }
	plus := func(fields ...string) []string { return slices.Concat(g.fields, fields) }
	sent := func(a attack) attack { a.host, a.path, a.body = g.host, g.path, g.body; return a }
	return []attack{
		sent(attack{name: "R10 trailers", fields: g.fields, trailers: spoof, want: "200 400 ended"}),
		sent(attack{name: "R10 trailers, announced", fields: plus("trailer", "authorization, x-grant-ctx-agent"), trailers: spoof, want: "200 400 ended"}),
		sent(attack{name: "R10 the credential in a trailer alone", fields: without("authorization"), trailers: g.fields[:2], want: "400 401 ended"}),
		sent(attack{name: "R10 the content type in a trailer alone", fields: without("content-type"), trailers: []string{"content-type", "application/json"}, want: "400 415 ended"}),
		{name: "R10 a chunk extension", http1: head + strings.Replace(chunks, hex, strings.TrimSpace(hex)+";a=evil;b=\"x\"\r\n", 1) + "\r\n", want: "200 400"},
		{name: "R10 a long chunk extension", http1: head + strings.Replace(chunks, hex, strings.TrimSpace(hex)+";"+strings.Repeat("evil", 5_000)+"\r\n", 1) + "\r\n", want: "200 400 413"},
		{name: "R10 length and chunks", http1: head + "Content-Length: " + size + "\r\n" + chunks + "\r\n", want: "400"},
		{name: "R10 chunks and length", http1: head + strings.Replace(chunks, "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", 1) + "\r\n", want: "400"},
		{name: "R10 a request behind, by length", http1: strings.Replace(head, "Connection: close\r\n", "", 1) + "Content-Length: 5\r\n" + chunks + "\r\n" + hidden, want: "400"},
		{name: "R10 a request in the body", http1: head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(hidden), hidden), want: "400"},
		{name: "R10 two lengths", http1: head + "Content-Length: " + size + "\r\n" + length, want: "400"},
		{name: "R10 two lengths that differ", http1: head + "Content-Length: 5\r\n" + length, want: "400"},
		{name: "R10 a list of lengths", http1: head + "Content-Length: " + size + ", " + size + "\r\n\r\n" + g.body, want: "400"},
		{name: "R10 a length with a sign", http1: head + "Content-Length: +" + size + "\r\n\r\n" + g.body, want: "400"},
		{name: "R10 a length in hexadecimal", http1: head + "Content-Length: 0x" + hex + "\r\n" + g.body, want: "400"},
		{name: "R10 a negative length", http1: head + "Content-Length: -1\r\n\r\n" + g.body, want: "400"},
		{name: "R10 no length", http1: head + "\r\n" + g.body, want: "400"},
		{name: "R10 another coding", http1: head + strings.Replace(chunks, "chunked", "xchunked", 1) + "\r\n", want: "400 501"},
		{name: "R10 chunked twice", http1: head + strings.Replace(chunks, "chunked", "chunked, chunked", 1) + "\r\n", want: "400 501"},
		{name: "R10 chunked, then identity", http1: head + strings.Replace(chunks, "chunked", "chunked\r\nTransfer-Encoding: identity", 1) + "\r\n", want: "400 501"},
		{name: "R10 a tab before chunked", http1: head + strings.Replace(chunks, " chunked", "\tchunked", 1) + "\r\n", want: "200 400 501"},
		{name: "R10 chunked in quotes", http1: head + strings.Replace(chunks, "chunked", `"chunked"`, 1) + "\r\n", want: "400 501"},
		{name: "R10 a chunk's size is none", http1: head + strings.Replace(chunks, hex, "zz\r\n", 1) + "\r\n", want: "400"},
		{name: "R10 a chunk's size overflows", http1: head + strings.Replace(chunks, hex, "100000000000000"+hex, 1) + "\r\n", want: "400 413"},
		{name: "R10 a chunk longer than its size", http1: head + strings.Replace(chunks, hex, fmt.Sprintf("%x\r\n", len(g.body)-1), 1) + "\r\n", want: "400"},
		{name: "R10 the trailer of a request without a token", http1: anonymous + chunks + "Authorization: " + g.fields[1] + "\r\n\r\n", want: "400 401"},
		{name: "R10 te: trailers", http2: with("te", "trailers"), body: g.body, trailers: spoof, want: "200 400 ended"},
		{name: "R10 a pseudo-field in a trailer", http2: http2, body: g.body, trailers: []string{":path", "/archive"}, want: mayEnd},
		{name: "R10 shorter than its length", http2: with("content-length", strconv.Itoa(len(g.body)+1)), body: g.body, want: mayEnd},
		{name: "R10 longer than its length", http2: with("content-length", "5"), body: g.body, want: mayEnd},
		{name: "R10 lengths that differ", http2: with("content-length", size, "content-length", "5"), body: g.body, want: mayEnd},
		{name: "R10 a coding in HTTP|2", http2: with("transfer-encoding", "chunked"), body: g.body, want: mayEnd},
	}
}

// paths is R12: none of them is another way to a tool; one that means the same
// reaches it in the one form that was decided.
func (w *target) paths() []attack {
	var attacks []attack
	for path, want := range map[string]string{
		"//export": "200 404", "/./export": "200 404", "/x/../export": "200 404", "/archive/../export": "200 404", `\export`: "200 " + mayEnd, `/x\..\export`: "200 400 404",
		"/%65xport": "200 404", "/%2e/export": "200 404", "/x/%2e%2e/export": "200 404", "/export?format=csv#x": "200 400 404 ended", "/export#x": "200 400 404 ended",
		"/export/": "404", "/export//": "404", "/EXPORT": "404", "/Export": "404", "/export;a=b": "404", "/export;": "404", "/;/export": "404", "/export/.": "404", "/export/..": "404", "/export/../archive": "404",
		"/export%2f": "400", "/%2fexport": "400", "/x%2f..%2fexport": "400", "/export%5c": "400", "/export%00": "400", "/%00/export": "400",
		"/export%20": "404", "/export%3f": "404", "/export%3fformat=csv": "404", "/export%23": "404", "/export%3b": "404", "/%2565xport": "404", "/export%252f": "404",
		"/export%": "400 404", "/export%zz": "400 404", "/export%c0%af": "400 404", "/export%e2%80%ae": "400 404", "/ex%ad%adport": "400 404", "/.export": "404", "/export.json": "404", "/export.": "404", "/export..": "404",
		"/archive": "404", "/../../../etc/passwd": "404", "/nosuch": "404", "/": "404", "*": mayEnd, "": mayEnd, "export": mayEnd, "?format=csv": mayEnd,
		"//evil.internal/export": "404", "///export": "200 404", "http:/export": mayEnd,
	} {
		a := attack{name: "R12 " + strings.ReplaceAll(path, "/", "|"), path: path, fields: bearer(w.token), body: october, want: want}
		if !strings.Contains(path, "?") && !strings.Contains(path, "#") {
			a.path += "?format=csv"
		}
		attacks = append(attacks, a)
	}
	for query, want := range map[string]string{
		"a=b": "400", "format=csv&a=b": "400", "format=csv&format=pdf": "400", "format=csv;a=b": "400", "FORMAT=csv": "400", "format=csv&": "400", "&format=csv": "400", "format[]=csv": "400",
		"format=csv%26a=b": "400", "?format=csv": "400", "format=csv?x": "400", "format=csv%00": "400", "format": "400", "format=": "400", "format=exe": "400",
	} {
		attacks = append(attacks, attack{name: "R12 ?" + query, path: "/export?" + query, fields: bearer(w.token), body: october, want: want})
	}
	return attacks
}
