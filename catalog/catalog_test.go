package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
)

const twoServers = `
servers:
- id: reports
  resource: https://reports.internal
  upstream: 127.0.0.1:8080
  http:
  - tool: export
    method: POST
    path: /export
    sets: [write, month-end]
    timeout: 5s
    opaque: [/body/note, /body/a~1b]
    query: {format: {enum: [pdf, csv]}, page: {type: integer, description: from 1}}
    header: {x-locale: {type: string}}
    body:
      type: object
      required: [month]
      properties:
        month: {type: string}
        note: {type: string}
        a/b: {type: number}
        lines: {type: array, items: {type: object, properties: {paid: {type: boolean}}}}
  - {tool: health, method: GET, path: /health, sets: [init]}
- id: mail
  resource: https://mail.internal/api
  upstream: mail.internal:80
  http:
  - {tool: send, method: POST, path: /mail/send, pass_authorization: true, body: {type: object}}
`

func mustParse(t testing.TB, text string) *Catalog {
	t.Helper()
	c, err := Parse("tools.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	c := mustParse(t, twoServers)
	got, ok := c.Tool("reports/export")
	if !ok {
		t.Fatal("no tool reports/export")
	}
	want := &Tool{
		ID: "reports/export", Name: "export", Server: &c.Servers[0],
		Method: "POST", Path: "/export",
		Sets: []string{"month-end", "write"}, Timeout: 5 * time.Second,
		Opaque: []string{"/body/a~1b", "/body/note"},
		Query: map[string]*Schema{
			"format": {Type: "string", Enum: []string{"csv", "pdf"}},
			"page":   {Type: "integer", Description: "from 1"},
		},
		Header: map[string]*Schema{"x-locale": {Type: "string"}},
		Body: &Schema{
			Type: "object", Required: []string{"month"},
			Properties: map[string]*Schema{
				"month": {Type: "string"}, "note": {Type: "string"}, "a/b": {Type: "number"},
				"lines": {Type: "array", Items: &Schema{
					Type: "object", Properties: map[string]*Schema{"paid": {Type: "boolean"}},
				}},
			},
		},
	}
	opts := cmp.Options{cmpopts.IgnoreFields(Tool{}, "Digest", "Server")}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("reports/export (-want +got):\n%s", diff)
	}
	if got.Server != &c.Servers[0] {
		t.Error("a tool's Server is not the one in Servers")
	}
	if diff := cmp.Diff([]string{"init", "month-end", "write"}, c.Sets()); diff != "" {
		t.Errorf("Sets (-want +got):\n%s", diff)
	}
	if s, ok := c.ServerByResource("https://mail.internal/api"); !ok || s.ID != "mail" || s.Upstream != "mail.internal:80" {
		t.Errorf("ServerByResource = %+v, %t", s, ok)
	}
	if s, ok := c.ServerByID("mail"); !ok || s != &c.Servers[1] {
		t.Errorf("ServerByID = %+v, %t", s, ok)
	}
	send, _ := c.Tool("mail/send")
	if !send.PassAuthorization || send.Timeout != DefaultTimeout {
		t.Errorf("mail/send: PassAuthorization %t, Timeout %v", send.PassAuthorization, send.Timeout)
	}
	for _, absent := range []string{"", "reports", "export", "reports/EXPORT", "mail/export"} {
		if _, ok := c.Tool(absent); ok {
			t.Errorf("Tool(%q) found one", absent)
		}
	}
	if _, ok := c.ServerByResource("https://mail.internal/api/"); ok {
		t.Error("ServerByResource found a server by another URI")
	}
}

func TestInput(t *testing.T) {
	c := mustParse(t, twoServers)
	export, _ := c.Tool("reports/export")
	want := &Schema{
		Type: "object", Required: []string{"body", "header", "query"},
		Properties: map[string]*Schema{
			"body":   export.Body,
			"header": {Type: "object", Properties: export.Header},
			"query":  {Type: "object", Properties: export.Query},
		},
	}
	if diff := cmp.Diff(want, export.Input()); diff != "" {
		t.Errorf("export (-want +got):\n%s", diff)
	}
	health, _ := c.Tool("reports/health")
	want = &Schema{Type: "object", Properties: map[string]*Schema{}}
	if diff := cmp.Diff(want, health.Input()); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
}

// sameMeaning is twoServers in another order and spelling, with defaults
// written out.
const sameMeaning = `
"servers":
  - http:
      - body: {properties: {}, type: "object"}
        path: '/mail/send'
        method: "POST"
        tool: send
        timeout: 15000ms
        sets: []
        pass_authorization: true
    upstream: "mail.internal:80"
    resource: https://mail.internal/api
    id: mail
  - {id: reports, upstream: "127.0.0.1:8080", resource: "https://reports.internal", http: [
      {tool: health, sets: [init], path: /health, method: GET, pass_authorization: false},
      {tool: export, path: /export, method: POST, timeout: 5000ms, sets: [month-end, write], opaque: [/body/a~1b, /body/note],
        header: {x-locale: {type: string}},
        query: {page: {description: "from 1", type: integer}, format: {type: string, enum: [csv, pdf]}},
        body: {type: object, properties: {note: {type: string}, month: {type: string}, a/b: {type: number},
          lines: {type: array, items: {type: object, properties: {paid: {type: boolean}}}}}, required: [month]}}]}
`

func TestDigestIsOfTheMeaning(t *testing.T) {
	a, b := mustParse(t, twoServers), mustParse(t, sameMeaning)
	if a.Digest != b.Digest {
		t.Error("two files that mean the same have different digests")
	}
	for _, s := range a.Servers {
		for _, ta := range s.Tools {
			if tb, ok := b.Tool(ta.ID); !ok || ta.Digest != tb.Digest {
				t.Errorf("%s: digests differ", ta.ID)
			}
		}
	}
}

func TestDigestChangesWithTheMeaning(t *testing.T) {
	was := mustParse(t, twoServers)
	seen := map[[32]byte]string{was.Digest: "the original"}
	for _, change := range []struct {
		from, to string
		pin      bool // whether reports/export becomes another tool
	}{
		{"method: POST\n    path: /export", "method: PUT\n    path: /export", true},
		{"path: /export", "path: /export2", true},
		{"[write, month-end]", "[write]", true},
		{"timeout: 5s", "timeout: 6s", true},
		{"opaque: [/body/note, /body/a~1b]", "opaque: [/body/note]", true},
		{"timeout: 5s", "timeout: 5s\n    pass_authorization: true\n    credential: x-c", true},
		{"timeout: 5s", "timeout: 5s\n    credential: x-c", true},
		{"upstream: 127.0.0.1:8080", "upstream: 127.0.0.1:8080\n  credential: x-d", true},
		{"[pdf, csv]", "[pdf]", true},
		{"type: integer", "type: number", true},
		{"from 1", "from 0", true},
		{"x-locale", "x-language", true},
		{"required: [month]", "required: [month, note]", true},
		{"paid: {type: boolean}", "paid: {type: string}", true},
		{"items: {type: object, properties: {paid: {type: boolean}}}", "items: {type: string}", true},
		{"https://reports.internal", "https://reports2.internal", true},
		{"id: reports", "id: reports2", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"path: /health", "path: /healthz", false},
		{"mail.internal:80", "mail.internal:81", false},
	} {
		text := strings.Replace(twoServers, change.from, change.to, 1)
		if text == twoServers {
			t.Fatalf("%q is not in the catalogue", change.from)
		}
		c := mustParse(t, text)
		if other, ok := seen[c.Digest]; ok {
			t.Errorf("%s: same digest as %s", change.to, other)
		}
		seen[c.Digest] = change.to
		before, _ := was.Tool("reports/export")
		after, ok := c.Tool("reports/export")
		if pinned := ok && before.Digest == after.Digest; pinned == change.pin {
			t.Errorf("%s: pin unchanged = %t, want %t", change.to, pinned, !change.pin)
		}
	}
}

// one returns a catalogue with one server and one tool with more fields.
func one(fields string) string {
	return "servers:\n- id: s\n  resource: https://s\n  upstream: 127.0.0.1:1\n  http:\n  - tool: t\n" +
		"    method: POST\n    path: /t\n" + fields
}

// with is one after a replacement.
func with(from, to string) string { return strings.Replace(one(""), from, to, 1) }

func TestParseRefuses(t *testing.T) {
	const second = "- id: s2\n  resource: https://s2\n  upstream: 127.0.0.1:2\n  http:\n"
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "1:1: the file is empty"},
		{"only a comment", "# servers\n", "1:1: the file is empty"},
		{"a list", "- a\n", "1:1: must be a mapping, not a list"},
		{"no servers", "servers: []\n", "1:1: a catalogue needs at least one server"},
		{"servers missing", "{}\n", `1:1: "servers" is missing`},
		{"servers null", "servers:\n", `"servers" must be a list, not a number or null`},
		{"unknown key", one("    retries: 3\n"), `9:5: unknown key "retries"`},
		{"unknown key at the top", one("") + "version: 1\n", `9:1: unknown key "version"`},
		{"key in another case", with("upstream:", "Upstream:"), `4:3: unknown key "Upstream"`},
		{"duplicate key", one("    path: /u\n"), `9:5: duplicate key "path"`},
		{"duplicate key in one line", one("    query: {a: {type: string}, a: {type: integer}}\n"), `9:32: duplicate key "a"`},
		{"duplicate key in quotes", one("    \"path\": /u\n"), `9:5: duplicate key "path"`},
		{"key a number", one("    1: a\n"), "9:5: a key must be a string"},
		{"key a boolean", one("    body: {type: object, properties: {true: {type: string}}}\n"), "a key must be a string"},
		{"key null", one("    body: {type: object, properties: {null: {type: string}}}\n"), "a key must be a string"},
		{"half a surrogate pair", one("    body: {type: object, description: \"\\uD800\"}\n"), "surrogate pair"},
		{"replacement character", one("    body: {type: object, description: \ufffd}\n"), "not valid Unicode"},
		{"anchor", with("id: s", "id: &a s"), "2:7: anchors"},
		{"alias", one("    sets: *a\n"), "9:11: anchors"},
		{"merge key", one("    <<: {}\n"), "9:5: anchors"},
		{"tag", with("id: s", "id: !!str s"), "2:7: tags"},
		{"directive", "%YAML 1.2\n---\n" + one(""), "directives"},
		{"complex key", "? servers\n: []\n", "complex keys"},
		{"two documents", one("") + "---\n" + one(""), "more than one YAML document"},
		{"deep", "servers: " + strings.Repeat("[", 10_000), "nested deeper"},
		{"deep by dashes", "servers: [" + strings.Repeat("- ", 10_000), "not supported here"},
		{"deep by indentation", strings.Repeat(" ", 200) + "a: 1", "indented by more than"},
		{"empty entries", strings.Repeat("-\n", 500_000), `"-" is not supported here`},
		{"too large", one("") + strings.Repeat("#", MaxSize), "larger than 1048576 bytes"},
		{"not UTF-8", one("") + "# \xff\n", "9:1: not UTF-8"},
		{"control character", one("") + "# \x1b[2J\n", "9:3: character U+001B"},
		{"control character by escape", one("    body: {type: object, description: \"\\e[2J\"}\n"), "character U+001B"},
		{"bad syntax", "servers: [\n", "tools.yaml:1:10: "},
		{"mcp", with("  http:", "  mcp: {path: /mcp}\n  http:"), `5:3: "mcp": MCP servers are not supported yet`},
		{"tools", with("  http:", "  tools: []\n  http:"), `5:3: "tools": MCP servers are not supported yet`},

		{"id missing", with("- id: s\n  ", "- "), `"id" is missing`},
		{"id in capitals", with("id: s", "id: S"), `2:7: "S": must match`},
		{"id with a slash", with("id: s", "id: a/b"), `"a/b": must match`},
		{"id begins with a dot", with("id: s", "id: .s"), `".s": must match`},
		{"id too long", with("id: s", "id: "+strings.Repeat("a", 64)), "must match"},
		{"id with a line end", with("id: s", `id: "s\n"`), "must match"},
		{"id a number", with("id: s", "id: 1"), `"id" must be a string, not a number or null; put it in quotes`},
		{"id a boolean", with("id: s", "id: true"), `"id" must be a string, not true or false`},
		{"server twice", one("") + "- {id: s, resource: 'https://b', upstream: '127.0.0.1:1', http: []}\n", `server "s" is there twice`},
		{"no tools", "servers: [{id: s, resource: 'https://s', upstream: '127.0.0.1:1', http: []}]", `server "s" has no tools`},
		{"http missing", "servers: [{id: s, resource: 'https://s', upstream: '127.0.0.1:1'}]", `"http" is missing`},
		{"tool twice", one("  - {tool: t, method: GET, path: /u}\n"), `tool "s/t" is there twice`},
		{"tool name", with("tool: t", "tool: T"), `"T": must match`},

		{"resource relative", with("https://s", "/s"), "must be an absolute URI"},
		{"resource without host", with("https://s", "https:///s"), "must be an absolute URI"},
		{"resource opaque https", with("https://s", "https:s"), "must be an absolute URI"},
		{"resource with a fragment", with("https://s", "https://s/#"), "must have no fragment"},
		{"resource with a user", with("https://s", "https://u:p@s"), "must have no user information"},
		{"resource in capitals", with("https://s", "https://S"), "in lower case"},
		{"resource scheme in capitals", with("https://s", "HTTPS://s"), "in lower case"},
		{"resource with a space", with("https://s", `"https://s/ "`), "visible ASCII"},
		{"resource twice", one("") + "- {id: s2, resource: 'https://s', upstream: '127.0.0.1:1', http: []}\n", `already that of server "s"`},

		{"upstream without port", with("127.0.0.1:1", "127.0.0.1"), "must be HOST:PORT"},
		{"upstream URL", with("127.0.0.1:1", "http://a:1"), "must be HOST:PORT"},
		{"upstream port 0", with("127.0.0.1:1", "127.0.0.1:0"), "the port must be"},
		{"upstream port too high", with("127.0.0.1:1", "127.0.0.1:65536"), "the port must be"},
		{"upstream port by name", with("127.0.0.1:1", "127.0.0.1:http"), "the port must be"},
		{"upstream port spelling", with("127.0.0.1:1", "127.0.0.1:080"), "the port must be"},
		{"upstream no host", with("127.0.0.1:1", "':1'"), "the host must be"},
		{"upstream octal", with("127.0.0.1:1", "127.0.0.01:1"), "the host must be"},
		{"upstream underscore", with("127.0.0.1:1", "a_b:1"), "the host must be"},
		{"upstream capitals", with("127.0.0.1:1", "Mail:1"), "the host must be"},
		{"upstream zone", with("127.0.0.1:1", "'[fe80::1%eth0]:1'"), "write the address as fe80::1"},
		{"upstream IPv6 spelling", with("127.0.0.1:1", "'[0::1]:1'"), "write the address as ::1"},

		{"method missing", with("    method: POST\n", ""), `6:5: "method" is missing`},
		{"method HEAD", with("POST", "HEAD"), "must be GET, POST"},
		{"method CONNECT", with("POST", "CONNECT"), "must be GET, POST"},
		{"method TRACE", with("POST", "TRACE"), "must be GET, POST"},
		{"method OPTIONS", with("POST", "OPTIONS"), "must be GET, POST"},
		{"method in lower case", with("POST", "post"), "must be GET, POST"},
		{"path relative", with("path: /t", "path: t"), `must start with "/"`},
		{"path with an empty segment", with("path: /t", "path: /a//t"), "no empty segment"},
		{"path with an escape", with("path: /t", "path: /a%2ft"), "only letters"},
		{"path with a parameter", with("path: /t", "path: /t;a"), "only letters"},
		{"path with a query", with("path: /t", "path: /t?a"), "only letters"},
		{"path with a fragment", with("path: /t", "path: /t#a"), "only letters"},
		{"path with a backslash", with("path: /t", `path: /a\t`), "only letters"},
		{"path with a line end", with("path: /t", `path: "/t\n"`), "only letters"},
		{"path with dots", with("path: /t", "path: /a/../t"), `no segment ".."`},
		{"path with a dot", with("path: /t", "path: /."), `no segment "."`},
		{"route twice", one("  - {tool: u, method: POST, path: /t}\n"), `9:35: POST /t is already`},
		{"route twice over servers", one(second + "  - {tool: u, method: POST, path: /t}\n"),
			`POST /t is already the tool "s/t": one listener serves all servers`},

		{"set name", one("    sets: [Write]\n"), `9:12: "Write": must match`},
		{"set twice", one("    sets: [a, a]\n"), `9:15: "a" is there twice in "sets"`},
		{"sets a string", one("    sets: a\n"), `"sets" must be a list`},
		{"timeout without unit", one("    timeout: 5\n"), "a duration with its unit"},
		{"timeout text", one("    timeout: soon\n"), "a duration with its unit"},
		{"timeout 0", one("    timeout: 0s\n"), "above 0"},
		{"timeout negative", one("    timeout: -1s\n"), "above 0"},
		{"timeout too long", one("    timeout: 1h1ms\n"), "at most 1h"},
		{"timeout too fine", one("    timeout: 1us\n"), "whole milliseconds"},
		{"credential a number", one("    credential: 1\n"), `"credential" must be a string`},
		{"credential in capitals", one("    credential: X-Token\n"), `9:17: credential header "X-Token": must be a lower-case`},
		{"credential with another use", one("    credential: host\n"), `9:17: credential header "host": that header has another use`},
		{"credential of a server", with("upstream:", "credential: cookie\n  upstream:"), `4:15: credential header "cookie"`},
		{"credential that is an input", one("    credential: x-t\n    header: {x-t: {type: string}}\n"), `6:5: tool s/t: its input header "x-t" is the credential header`},
		{"credential that is another tool's input", one("    header: {x-t: {type: string}}\n  - {tool: u, method: GET, path: /u, credential: x-t}\n"), `6:5: tool s/t: its input header "x-t"`},
		{"credential that is passed on", one("    credential: authorization\n    pass_authorization: true\n"), `6:5: tool s/t: pass_authorization would hand`},
		{"pass_authorization text", one("    pass_authorization: \"true\"\n"), "must be true or false"},

		{"opaque not a pointer", one("    opaque: [body]\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"opaque empty", one("    opaque: ['']\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"opaque unknown", one("    opaque: [/body/a]\n    body: {type: object}\n"), "no such property"},
		{"opaque without body", one("    opaque: [/body]\n"), "no such property"},
		{"opaque bad escape", one("    opaque: [/body/~2]\n    body: {type: object, properties: {~2: {type: string}}}\n"), "must be followed by 0 or 1"},
		{"opaque into an array", one("    opaque: [/body/0]\n    body: {type: array, items: {type: string}}\n"), "no such property"},

		{"body with GET", strings.Replace(one("    body: {type: object}\n"), "POST", "GET", 1), "9:5: a tool with the method GET takes no body"},
		{"body with DELETE", strings.Replace(one("    body: {type: object}\n"), "POST", "DELETE", 1), "DELETE takes no body"},
		{"body without type", one("    body: {properties: {}}\n"), `"type" is missing`},
		{"body enum without type", one("    body: {enum: [a]}\n"), `"type" is missing`},
		{"body null", one("    body:\n"), "must be a mapping, not a number or null"},
		{"type unknown", one("    body: {type: 'null'}\n"), `type "null": must be one of`},
		{"type list", one("    body: {type: [string]}\n"), `"type" must be a string, not a list`},
		{"keyword unknown", one("    body: {type: string, pattern: a}\n"), `9:26: unknown key "pattern"`},
		{"keyword misspelt", one("    body: {type: object, propertys: {}}\n"), `unknown key "propertys"`},
		{"keyword deep down", one("    body: {type: array, items: {type: object, properties: {a: {$ref: b}}}}\n"), `unknown key "$ref"`},
		{"properties of a string", one("    body: {type: string, properties: {}}\n"), `"properties" goes with the type object`},
		{"required of an array", one("    body: {type: array, required: [], items: {type: string}}\n"), `"required" goes with the type object`},
		{"items of an object", one("    body: {type: object, items: {type: string}}\n"), `"items" goes with the type array`},
		{"array without items", one("    body: {type: array}\n"), `an array needs "items"`},
		{"required unknown", one("    body: {type: object, required: [a]}\n"), `required property "a" is not in`},
		{"required twice", one("    body: {type: object, required: [a, a], properties: {a: {type: string}}}\n"), `"a" is there twice`},
		{"properties in two cases", one("    body: {type: object, properties: {note: {type: string}, Note: {type: string}}}\n"), "differ only in case"},
		{"properties in two cases, Kelvin", one("    body: {type: object, properties: {k: {type: string}, \"\\u212a\": {type: string}}}\n"), "differ only in case"},
		{"properties a list", one("    body: {type: object, properties: [a]}\n"), "\"properties\" must be a mapping"},
		{"property without name", one("    body: {type: object, properties: {'': {type: string}}}\n"), "a property needs a name"},
		{"enum of integers", one("    body: {type: integer, enum: ['1']}\n"), `"enum" goes with the type string`},
		{"enum item a number", one("    body: {type: string, enum: [1]}\n"), "must hold strings"},
		{"enum empty", one("    body: {type: string, enum: []}\n"), `an empty "enum"`},
		{"enum twice", one("    body: {type: string, enum: [a, a]}\n"), `"a" is there twice in "enum"`},
		{"description a number", one("    body: {type: string, description: 1}\n"), `"description" must be a string`},

		{"query object", one("    query: {a: {type: object}}\n"), `query "a": must be a string, integer`},
		{"query array", one("    query: {a: {type: array}}\n"), `query "a": must be a string, integer`},
		{"query with properties", one("    query: {a: {type: string, properties: {}}}\n"), `unknown key "properties"`},
		{"query without type", one("    query: {a: {}}\n"), `"type" is missing`},
		{"query empty", one("    query: {}\n"), "leave it out"},
		{"query a list", one("    query: [a]\n"), `"query" must be a mapping`},
		{"query name escaped", one("    query: {a%20b: {type: string}}\n"), "visible ASCII characters other than"},
		{"query name delimited", one("    query: {a&b: {type: string}}\n"), "visible ASCII characters other than"},
		{"query names in two cases", one("    query: {a: {type: string}, A: {type: string}}\n"), "differ only in case"},
		{"header object", one("    header: {a: {type: object}}\n"), `header "a": must be a string, integer`},
		{"header in capitals", one("    header: {X-Locale: {type: string}}\n"), "must be a lower-case HTTP field name"},
		{"header with an underscore", one("    header: {x_locale: {type: string}}\n"), "without an underscore"},
		{"header with a space", one("    header: {'x locale': {type: string}}\n"), "must be a lower-case HTTP field name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("tools.yaml", []byte(tt.text))
			if err == nil {
				t.Fatalf("accepted; want an error with %q", tt.want)
			}
			if !strings.HasPrefix(err.Error(), "tools.yaml:") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want one with %q", err, tt.want)
			}
		})
	}
	for _, name := range append([]string{
		":path", "x-grant-ctx-agent", "x-envoy-upstream-rq-timeout-ms", "x-forwarded-for", "proxy-authorization",
	}, forbiddenHeaders...) {
		_, err := Parse("tools.yaml", []byte(one(fmt.Sprintf("    header: {%q: {type: string}}\n", name))))
		if want := fmt.Sprintf("header %q can never be an input", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("header %s: error %v, want one with %q", name, err, want)
		}
	}
}

func TestParseAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"root path":                   with("path: /t", "path: /"),
		"trailing slash":              with("path: /t", "path: /a.b/_~-/"),
		"three dots":                  with("path: /t", "path: /.../t"),
		"same path, another method":   one("  - {tool: u, method: GET, path: /t}\n"),
		"IPv6":                        with("127.0.0.1:1", "'[::1]:65535'"),
		"URN":                         with("https://s", "urn:example:s"),
		"resource with a query":       with("https://s", "https://s/?tenant=a"),
		"longest id":                  with("id: s", "id: "+strings.Repeat("a", 63)),
		"longest time":                one("    timeout: 1h\n"),
		"whole body opaque":           one("    opaque: [/body, /query/a]\n    query: {a: {type: boolean}}\n    body: {type: object}\n"),
		"literal description":         one("    body:\n      type: object\n      description: |\n        one\n        two\n"),
		"empty required":              one("    body: {type: object, required: []}\n"),
		"Windows line ends":           strings.ReplaceAll(one(""), "\n", "\r\n"),
		"document start":              "---\n" + one(""),
		"words that YAML 1.1 mangles": one("    body: {type: string, enum: [yes, no, on, off]}\n"),
	} {
		if _, err := Parse(name, []byte(text)); err != nil {
			t.Error(err)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tools.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	for _, tt := range []struct{ text, want string }{
		{one(""), ""},
		{one("    path: 1\n"), path + ":9:5: "},
		{one("") + strings.Repeat("#", MaxSize), path + ": larger than"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); (err != nil) != (tt.want != "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(twoServers))
	f.Add([]byte(sameMeaning))
	f.Add([]byte(one("    credential: x-t\n    header: {x-u: {type: string}}\n")))
	f.Add([]byte(one("    body: {type: array, items: {type: string, enum: [a]}}\n")))
	for _, s := range []string{"a: &a [*a]", "? a\n: b", "- - a", "!!str a", "%YAML 1.2\n---\na", "a: |2\n   b", "\"\\xff\"", "a: 'b'\nc: >-\n d"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("fuzz", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz:") {
				t.Errorf("error without the file's name: %v", err)
			}
			return
		}
		routes := map[string]bool{}
		for i := range c.Servers {
			for _, tool := range c.Servers[i].Tools {
				if got, ok := c.Tool(tool.ID); !ok || got != tool || tool.Server != &c.Servers[i] {
					t.Errorf("tool %s is not found by its id", tool.ID)
				}
				for _, h := range c.CredentialHeaders("") {
					if tool.Header[h] != nil || h == "authorization" && tool.PassAuthorization && tool.Credential == h {
						t.Errorf("tool %s would get a credential in %q", tool.ID, h)
					}
				}
				if route := tool.Method + " " + tool.Path; routes[route] {
					t.Errorf("route %s is there twice", route)
				} else {
					routes[route] = true
				}
			}
		}
		if len(routes) == 0 {
			t.Error("accepted a catalogue without a tool")
		}
		if again, err := Parse("fuzz", text); err != nil || again.Digest != c.Digest {
			t.Errorf("the same text gives another digest, or error %v", err)
		}
	})
}

func TestCredential(t *testing.T) {
	c := mustParse(t, `
servers:
- id: a
  resource: https://a
  upstream: 127.0.0.1:1
  credential: x-a-token
  http:
  - {tool: default, method: GET, path: /a/default}
  - {tool: own, method: GET, path: /a/own, credential: x-own-token, pass_authorization: true}
- {id: b, resource: "https://b", upstream: "127.0.0.1:2", http: [{tool: t, method: GET, path: /b/t, header: {x-b: {type: string}}}]}
`)
	for id, want := range map[string]string{"a/default": "x-a-token", "a/own": "x-own-token", "b/t": "authorization"} {
		tool, _ := c.Tool(id)
		if got := tool.CredentialIn("authorization"); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	if diff := cmp.Diff([]string{"authorization", "x-a-token", "x-own-token"}, c.CredentialHeaders("authorization")); diff != "" {
		t.Errorf("CredentialHeaders (-want +got):\n%s", diff)
	}
	for def, want := range map[string]string{
		"authorization": "", "x-grant": "", "x-a-token": "",
		"x-b":    `tool b/t: its input header "x-b" is the credential header of some tool`,
		"Cookie": "must be a lower-case", "x_b": "must be a lower-case", "": "must be a lower-case",
	} {
		err := c.CheckCredentials(def)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", def, err, want)
		}
	}
	passes := mustParse(t, one("    pass_authorization: true\n"))
	if err := passes.CheckCredentials("authorization"); err == nil || !strings.Contains(err.Error(), "would hand the grant token to the tool") {
		t.Errorf("error %v", err)
	}
	if err := passes.CheckCredentials("x-grant"); err != nil {
		t.Error(err)
	}
	for _, taken := range []string{
		"host", "connection", "te", "cookie", "dpop", "content-type", "content-language", "proxy-authorization", "x-grant-ctx-agent",
		"x-envoy-token", "x-forwarded-for", "x-request-id", "accept", "user-agent", "traceparent", ":path", "x-original-url",
	} {
		if err := CheckCredentialHeader(taken); err == nil || !strings.Contains(err.Error(), "another use") {
			t.Errorf("%s: error %v", taken, err)
		}
	}
}
