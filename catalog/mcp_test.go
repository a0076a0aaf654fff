package catalog

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const github = `
servers:
- id: github
  resource: https://github-mcp.internal/mcp
  upstream: 127.0.0.1:9000
  credential: x-github-token
  mcp:
    path: /mcp/github
    upstream_path: /mcp
    revisions: ["2026-07-28", 2025-11-25]
    denials: jsonrpc
    hosts: [mcp.example, a.example]
    origins: ["https://inspector.example", "http://127.0.0.1:6274"]
    timeout: 20s
    stream: 30m
  tools:
  - tool: merge_pr
    name: mergePR
    pin: sha256:9f00000000000000000000000000000000000000000000000000000000000001
    sets: [write, repo]
    timeout: 30s
    opaque: [/body]
    tasks: true
    retries: true
    input:
      type: object
      required: [pull]
      properties:
        pull: {type: integer, header: Pull}
        body: {type: any}
        where: {type: object, properties: {Region: {type: string, header: x_Region}, dry: {type: boolean, header: dry}}}
  - tool: call_tool
    meta: {tool: /a~1b/name, arguments: /args}
    opaque: [/note]
    volatile: [/args]
    redact: [/a~1b/name, /args]
    input: {type: object, properties: {a/b: {type: object, properties: {name: {type: string}}}, args: {type: any}, note: {type: string}}}
  - {tool: whoami}
- id: plain
  resource: urn:example:plain
  upstream: plain.internal:80
  mcp: {path: /mcp}
`

func TestParseMCP(t *testing.T) {
	c := mustParse(t, github)
	want := []*MCP{
		{
			Path: "/mcp/github", UpstreamPath: "/mcp", Revisions: []string{"2025-11-25", "2026-07-28"}, Denials: DenialsJSONRPC,
			Hosts: []string{"a.example", "mcp.example"}, Origins: []string{"http://127.0.0.1:6274", "https://inspector.example"},
			Timeout: 20 * time.Second, Stream: 30 * time.Minute,
		},
		{
			Path: "/mcp", UpstreamPath: "/mcp", Revisions: []string{"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"},
			Denials: DenialsHTTP, Timeout: 15 * time.Second, Stream: time.Hour,
		},
	}
	for i, want := range want {
		if diff := cmp.Diff(want, c.Servers[i].MCP); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Servers[i].ID, diff)
		}
	}
	tools := []*Tool{
		{
			ID: "github/merge_pr", Name: "merge_pr", MCPName: "mergePR", Pin: [32]byte{0: 0x9f, 31: 1},
			Sets: []string{"repo", "write"}, Timeout: 30 * time.Second, Opaque: []string{"/body"}, Tasks: true, Retries: true,
			Credential: "x-github-token",
			Arguments: &Schema{Type: "object", Required: []string{"pull"}, Properties: map[string]*Schema{
				"pull": {Type: "integer", Header: "pull"}, "body": {Type: "any"},
				"where": {Type: "object", Properties: map[string]*Schema{
					"Region": {Type: "string", Header: "x_region"}, "dry": {Type: "boolean", Header: "dry"},
				}},
			}},
		},
		{
			ID: "github/call_tool", Name: "call_tool", MCPName: "call_tool", Timeout: DefaultTimeout,
			Credential: "x-github-token", Opaque: []string{"/args", "/note"},
			Volatile: []string{"/args"}, Redact: []string{"/args", "/a~1b/name"},
			Inner: &Inner{Tool: "/a~1b/name", Arguments: "/args"},
			Arguments: &Schema{Type: "object", Properties: map[string]*Schema{
				"a/b":  {Type: "object", Properties: map[string]*Schema{"name": {Type: "string"}}},
				"args": {Type: "any"}, "note": {Type: "string"},
			}},
		},
		{
			ID: "github/whoami", Name: "whoami", MCPName: "whoami", Timeout: DefaultTimeout,
			Credential: "x-github-token", Arguments: &Schema{Type: "object"},
		},
	}
	server, _ := c.ServerByID("github")
	if diff := cmp.Diff(tools, server.Tools, cmpopts.IgnoreFields(Tool{}, "Digest", "Server")); diff != "" {
		t.Errorf("tools (-want +got):\n%s", diff)
	}
	for _, tool := range server.Tools {
		if got, ok := c.Tool(tool.ID); !ok || got != tool || tool.Server != server {
			t.Errorf("%s is not found by its id", tool.ID)
		}
		if got, ok := server.ToolByMCPName(tool.MCPName); !ok || got != tool {
			t.Errorf("%s is not found by its name on the server", tool.ID)
		}
		if tool.Input() != tool.Arguments {
			t.Errorf("%s: the input is not its arguments", tool.ID)
		}
	}
	for _, absent := range []string{"", "merge_pr", "MergePR", "mergepr"} {
		if _, ok := server.ToolByMCPName(absent); ok {
			t.Errorf("ToolByMCPName(%q) found one", absent)
		}
	}
	if _, ok := c.Servers[1].ToolByMCPName("whoami"); ok {
		t.Error("ToolByMCPName found another server's tool")
	}
}

func TestHeaderArguments(t *testing.T) {
	c := mustParse(t, github)
	merge, _ := c.Tool("github/merge_pr")
	want := []HeaderArgument{
		{Name: "dry", Path: []string{"where", "dry"}, Type: "boolean"},
		{Name: "pull", Path: []string{"pull"}, Type: "integer"},
		{Name: "x_region", Path: []string{"where", "Region"}, Type: "string"},
	}
	if diff := cmp.Diff(want, merge.HeaderArguments()); diff != "" {
		t.Errorf("merge_pr (-want +got):\n%s", diff)
	}
	deep, _ := mustParse(t, mcpTool("    input: {type: object, properties: {a: {type: object, properties: {b: {type: object, properties: {c: {type: object,\n"+
		"      properties: {x: {type: string, header: x}, y: {type: string, header: y}, z: {type: string, header: z}}}}}}}}}\n")).Tool("m/t")
	want = nil
	for _, name := range []string{"x", "y", "z"} { // none may share the others' memory
		want = append(want, HeaderArgument{Name: name, Path: []string{"a", "b", "c", name}, Type: "string"})
	}
	if diff := cmp.Diff(want, deep.HeaderArguments()); diff != "" {
		t.Errorf("m/t (-want +got):\n%s", diff)
	}
	export, _ := mustParse(t, twoServers).Tool("reports/export")
	if got := export.HeaderArguments(); got != nil {
		t.Errorf("an HTTP tool has %v", got)
	}
}

// mcpServer is a catalogue with one MCP server without tools, and more under
// "mcp" from line 7 on.
func mcpServer(mcp string) string {
	return "servers:\n- id: m\n  resource: https://m.example/mcp\n  upstream: 127.0.0.1:1\n  mcp:\n    path: /m\n" + mcp
}

// mcpTool is a catalogue with one MCP server and one tool, with more fields from
// line 9 on.
func mcpTool(fields string) string { return mcpServer("  tools:\n  - tool: t\n") + fields }

func TestRefusesMCPServer(t *testing.T) {
	const second = "- {id: s, resource: 'https://s', upstream: '127.0.0.1:1', "
	refuses(t, []refusal{
		{"mcp a list", strings.Replace(mcpServer(""), "mcp:\n    path: /m", "mcp: []", 1), "5:8: must be a mapping, not a list"},
		{"unknown key", mcpServer("    url: /m\n"), `7:5: unknown key "url"; known are path, upstream_path`},
		{"path missing", strings.Replace(mcpServer(""), "path: /m", "denials: http", 1), `6:5: "path" is missing`},
		{"path", strings.Replace(mcpServer(""), "path: /m", "path: m", 1), `6:11: path "m": must start with "/"`},
		{"path with an escape", strings.Replace(mcpServer(""), "path: /m", "path: /%6d", 1), "6:11: path \"/%6d\": only letters"},
		{"upstream_path", mcpServer("    upstream_path: /a/../b\n"), `7:20: upstream_path "/a/../b": must have no segment ".."`},
		{"path of another MCP server", mcpServer(second + "mcp: {path: /m}}\n"), `7:71: /m is already the MCP server "m"`},
		{"path of a tool", mcpServer(second + "http: [{tool: t, method: DELETE, path: /m}]}\n"), `DELETE /m is already the MCP server "m"`},
		{"path of a tool before", one("- {id: m, resource: 'https://m', upstream: '127.0.0.1:1', mcp: {path: /t}}\n"), `9:71: /t is already the tool "s/t"`},

		{"revision unknown", mcpServer("    revisions: ['2024-11-05']\n"), `7:17: revision "2024-11-05": must be one of 2025-03-26, 2025-06-18, 2025-11-25, 2026-07-28`},
		{"revision twice", mcpServer("    revisions: ['2025-11-25', '2025-11-25']\n"), `"2025-11-25" is there twice in "revisions"`},
		{"revision a number", mcpServer("    revisions: [2025]\n"), `"revisions" must hold strings`},
		{"revisions empty", mcpServer("    revisions: []\n"), `7:5: "revisions" must list at least one of`},
		{"revisions null", mcpServer("    revisions:\n"), `"revisions" must be a list`},
		{"denials", mcpServer("    denials: HTTP\n"), `7:14: denials "HTTP": must be http or jsonrpc`},
		{"denials empty", mcpServer("    denials: ''\n"), `denials "": must be http or jsonrpc`},
		{"denials a list", mcpServer("    denials: [http]\n"), `"denials" must be a string, not a list`},
		{"timeout", mcpServer("    timeout: 5\n"), `7:14: "timeout" must be a duration`},
		{"stream too long", mcpServer("    stream: 61m\n"), `7:13: stream "61m": must be whole milliseconds, above 0 and at most 1h0m0s`},

		{"host with a port", mcpServer("    hosts: ['a.example:80']\n"), `7:13: host "a.example:80": must be a DNS name in lower case, without a port`},
		{"host in capitals", mcpServer("    hosts: [A.example]\n"), "must be a DNS name in lower case"},
		{"host a URL", mcpServer("    hosts: ['https://a']\n"), "must be a DNS name in lower case"},
		{"host with a wildcard", mcpServer("    hosts: ['*.example']\n"), "must be a DNS name in lower case"},
		{"host empty", mcpServer("    hosts: ['']\n"), "must be a DNS name in lower case"},
		{"host like an address", mcpServer("    hosts: ['127.1']\n"), "must be a DNS name in lower case"},
		{"host an address", mcpServer("    hosts: ['127.0.0.1']\n"), "always allowed; leave it out"},
		{"host an IPv6 address", mcpServer("    hosts: ['::1']\n"), "always allowed; leave it out"},
		{"host localhost", mcpServer("    hosts: [localhost]\n"), "always allowed; leave it out"},
		{"host of the resource", mcpServer("    hosts: [m.example]\n"), "the resource's own, which is always allowed; leave it out"},
		{"host twice", mcpServer("    hosts: [a, a]\n"), `"a" is there twice in "hosts"`},
		{"origin null", mcpServer("    origins: ['null']\n"), `7:15: origin "null": must be as browsers send it`},
		{"origin any", mcpServer("    origins: ['*']\n"), "must be as browsers send it"},
		{"origin a name", mcpServer("    origins: [a.example]\n"), "must be as browsers send it"},
		{"origin of another scheme", mcpServer("    origins: ['ftp://a']\n"), "must be as browsers send it"},
		{"origin of another scheme with a port", mcpServer("    origins: ['ftp://a:2121']\n"), "must be as browsers send it"},
		{"origin without scheme", mcpServer("    origins: ['://a']\n"), "must be as browsers send it"},
		{"origin with a path", mcpServer("    origins: ['https://a/']\n"), "must be as browsers send it"},
		{"origin with a query", mcpServer("    origins: ['https://a?b']\n"), "must be as browsers send it"},
		{"origin with a user", mcpServer("    origins: ['https://u@a']\n"), "must be as browsers send it"},
		{"origin in capitals", mcpServer("    origins: ['https://A']\n"), "must be as browsers send it"},
		{"origin scheme in capitals", mcpServer("    origins: ['HTTPS://a']\n"), "must be as browsers send it"},
		{"origin with the default port", mcpServer("    origins: ['https://a:443']\n"), "must be as browsers send it"},
		{"origin with http's default port", mcpServer("    origins: ['http://a:80']\n"), "must be as browsers send it"},
		{"origin with an empty port", mcpServer("    origins: ['https://a:']\n"), "must be as browsers send it"},
		{"origin with a port's other spelling", mcpServer("    origins: ['https://a:0444']\n"), "must be as browsers send it"},
		{"origin without host", mcpServer("    origins: ['https://']\n"), "must be as browsers send it"},
	})
}

func TestRefusesMCPTool(t *testing.T) {
	properties := func(p string) string { return mcpTool("    input: {type: object, properties: {" + p + "}}\n") }
	meta := func(meta, p string) string {
		return mcpTool("    meta: {" + meta + "}\n" + properties(p)[len(mcpTool("")):])
	}
	const zeros = "0000000000000000000000000000000000000000000000000000000000000000"
	refuses(t, []refusal{
		{"tools null", mcpServer("  tools:\n"), `"tools" must be a list`},
		{"tool a string", mcpServer("  tools: [a]\n"), "7:11: must be a mapping, not a string"},
		{"tool missing", mcpServer("  tools: [{name: a}]\n"), `7:12: "tool" is missing`},
		{"tool as the server names it", strings.Replace(mcpTool(""), "tool: t", "tool: mergePR", 1), `8:11: "mergePR": must match`},
		{"unknown key", mcpTool("    method: POST\n"), `9:5: unknown key "method"; known are tool, name, pin`},
		{"tool twice", mcpTool("  - {tool: t, name: b}\n"), `9:12: tool "m/t" is there twice`},
		{"name twice", mcpTool("  - {tool: u, name: t}\n"), `9:21: name "t" is already that of the tool "m/t"`},
		{"name twice by default", mcpTool("    name: u\n  - {tool: u}\n"), `10:12: name "u" is already that of the tool "m/t"`},
		{"name with a blank", mcpTool("    name: a b\n"), `9:11: name "a b": must be 1 to 128 printable ASCII characters without blanks`},
		{"name not in ASCII", mcpTool("    name: \u00e9\n"), "must be 1 to 128 printable ASCII"},
		{"name with a line end", mcpTool("    name: \"a\\n\"\n"), "must be 1 to 128 printable ASCII"},
		{"name empty", mcpTool("    name: ''\n"), "must be 1 to 128 printable ASCII"},
		{"name too long", mcpTool("    name: " + strings.Repeat("a", 129) + "\n"), "must be 1 to 128 printable ASCII"},
		{"name a number", mcpTool("    name: 1\n"), `"name" must be a string, not a number or null; put it in quotes`},

		{"pin of another kind", mcpTool("    pin: sha512:" + strings.Repeat("a", 64) + "\n"), `9:10: pin "sha512:`},
		{"pin too short", mcpTool("    pin: sha256:" + strings.Repeat("a", 63) + "\n"), "must be sha256: and 64 hexadecimal digits in lower case"},
		{"pin too long", mcpTool("    pin: sha256:" + strings.Repeat("a", 66) + "\n"), "must be sha256: and 64"},
		{"pin in capitals", mcpTool("    pin: sha256:" + strings.Repeat("A", 64) + "\n"), "must be sha256: and 64"},
		{"pin of zeros", mcpTool("    pin: sha256:" + zeros + "\n"), `is no descriptor's; leave "pin" out for none`},
		{"tasks text", mcpTool("    tasks: 'yes'\n"), `9:12: "tasks" must be true or false, not a string`},
		{"retries null", mcpTool("    retries:\n"), `"retries" must be true or false`},
		{"timeout", mcpTool("    timeout: 2h\n"), `timeout "2h": must be`},
		{"set name", mcpTool("    sets: [A]\n"), `"A": must match`},

		{"input no object", mcpTool("    input: {type: string}\n"), `9:13: "input" must be of the type object, not string`},
		{"input of any type", mcpTool("    input: {type: any}\n"), `"input" must be of the type object, not any`},
		{"input without type", mcpTool("    input: {properties: {}}\n"), `9:13: "type" is missing`},
		{"input keyword", properties("a: {type: string, pattern: b}"), `unknown key "pattern"; known are type, description, enum, required, properties, items, header`},
		{"any that policy would see", properties("a: {type: any}"), `9:50: type any: policy cannot see such a value; list "/a" in the tool's "opaque"`},
		{"opaque into body", mcpTool("    opaque: [/body]\n"), `9:14: opaque "/body": the input has no such property`},
		{"all opaque", mcpTool("    opaque: ['']\n"), "must be a JSON Pointer"},

		{"header of an object", properties("a: {type: object, header: A}"), `9:58: "header" goes with the types string, integer and boolean, not object`},
		{"header of a number", properties("a: {type: number, header: A}"), "not number"},
		{"header of an array", properties("a: {type: array, header: A, items: {type: string}}"), "not array"},
		{"header of any", properties("a: {type: any, header: A}"), "not any"},
		{"header of the arguments", mcpTool("    input: {type: object, header: A}\n"), "not object"},
		{"header of an element", properties("a: {type: array, items: {type: string, header: A}}"), "not with what is in an array"},
		{"header in an element", properties("a: {type: array, items: {type: object, properties: {b: {type: string, header: A}}}}"), "not with what is in an array"},
		{"header empty", properties("a: {type: string, header: ''}"), `header "": must be 1 to 64 characters of an HTTP field name`},
		{"header with a blank", properties("a: {type: string, header: 'A B'}"), "characters of an HTTP field name"},
		{"header with a line end", properties(`a: {type: string, header: "A\n"}`), "characters of an HTTP field name"},
		{"header with a colon", properties("a: {type: string, header: 'A:'}"), "characters of an HTTP field name"},
		{"header a number", properties("a: {type: string, header: 1}"), `"header" must be a string`},
		{"header twice", properties("a: {type: string, header: Region}, b: {type: object, properties: {c: {type: boolean, header: rEGION}}}"),
			`header "rEGION": is already that of the argument "/a" (case does not matter)`},

		{"meta a string", mcpTool("    meta: /name\n"), "9:11: must be a mapping"},
		{"meta with another key", meta("tool: /n, args: /a", "n: {type: string}"), `unknown key "args"; known are tool, arguments`},
		{"meta without tool", meta("arguments: /a", "a: {type: object}"), `9:12: "tool" is missing`},
		{"meta tool not a pointer", meta("tool: n", "n: {type: string}"), `9:18: meta: tool "n": must be a JSON Pointer`},
		{"meta tool undeclared", meta("tool: /m", "n: {type: string}"), `meta: tool "/m": the input has no such property`},
		{"meta tool in an array", meta("tool: /n/0", "n: {type: array, items: {type: string}}"), `the input has no such property`},
		{"meta tool bad escape", meta("tool: /n~", "n~: {type: string}"), "must be followed by 0 or 1"},
		{"meta tool no string", meta("tool: /n", "n: {type: integer}"), `names the inner tool, and so must be of the type string, not integer`},
		{"meta tool of any type", meta("tool: /n", "n: {type: any}"), "must be of the type string, not any"},
		{"meta tool opaque", strings.Replace(meta("tool: /n", "n: {type: string}"), "    meta", "    opaque: [/n]\n    meta", 1),
			`10:18: meta: tool "/n": is opaque, but policy must see which tool is called`},
		{"meta tool volatile", strings.Replace(meta("tool: /n/o", "n: {type: object, properties: {o: {type: string}}}"), "    meta", "    volatile: [/n]\n    meta", 1),
			`10:18: meta: tool "/n/o": is volatile, but a one-time grant must pin which tool is called`},
		{"meta tool in the arguments", meta("tool: /a/n, arguments: /a", "a: {type: object, properties: {n: {type: string}}}"), `meta: tool "/a/n": is opaque`},
		{"meta arguments empty", meta("tool: /n, arguments: ''", "n: {type: string}"), `meta: arguments "": must be a JSON Pointer`},
		{"meta arguments undeclared", meta("tool: /n, arguments: /a", "n: {type: string}"), `meta: arguments "/a": the input has no such property`},
		{"meta arguments text", meta("tool: /n, arguments: /a", "n: {type: string}, a: {type: string}"), `must be of the type object or any, not string`},
		{"meta arguments the name", meta("tool: /n, arguments: /n", "n: {type: string}"), `must be of the type object or any, not string`},
	})
}

func TestParseAcceptsMCP(t *testing.T) {
	for name, text := range map[string]string{
		"no tools":                mcpServer(""),
		"an empty list of tools":  mcpServer("  tools: []\n"),
		"longest name":            mcpTool("    name: " + strings.Repeat("a", 128) + "\n"),
		"name with a slash":       mcpTool("    name: a/B.c-d_e:f\n"),
		"same name, other server": mcpTool("- {id: n, resource: 'https://n', upstream: '127.0.0.1:1', mcp: {path: /n}, tools: [{tool: t}]}\n"),
		"name in another case":    mcpTool("  - {tool: u, name: T}\n"),
		"meta without arguments":  mcpTool("    meta: {tool: /n}\n    input: {type: object, properties: {n: {type: string}}}\n"),
		"meta arguments listed":   mcpTool("    meta: {tool: /n, arguments: /a}\n    opaque: [/a]\n    input: {type: object, properties: {n: {type: string}, a: {type: object}}}\n"),
		"meta arguments below":    mcpTool("    meta: {tool: /n, arguments: /a/b}\n    opaque: [/a]\n    input: {type: object, properties: {n: {type: string}, a: {type: object, properties: {b: {type: object}}}}}\n"),
		"origin with a port":      mcpServer("    origins: ['https://a:8443', 'http://[::1]', 'http://a:443']\n"),
		"resource's path":         strings.Replace(mcpServer(""), "path: /m", "path: /mcp", 1),
	} {
		if _, err := Parse(name, []byte(text)); err != nil {
			t.Error(err)
		}
	}
}

// TestDiscoverable: of resources that differ by the port alone none can be found
// by its metadata.
func TestDiscoverable(t *testing.T) {
	c, err := Parse("tools.yaml", []byte(`servers:
- {id: a, resource: "http://h.internal:1", upstream: "127.0.0.1:1", http: [{tool: x, method: GET, path: /a}]}
- {id: b, resource: "http://h.internal:2", upstream: "127.0.0.1:1", http: [{tool: x, method: GET, path: /b}]}
- {id: c, resource: "http://other.internal:2", upstream: "127.0.0.1:1", http: [{tool: x, method: GET, path: /c}]}
- {id: d, resource: "urn:d", upstream: "127.0.0.1:1", http: [{tool: x, method: GET, path: /d}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "", "http://other.internal:2/.well-known/oauth-protected-resource", ""}
	for i := range c.Servers {
		if got := c.Discoverable(&c.Servers[i]); got != want[i] {
			t.Errorf("%s: %q", c.Servers[i].ID, got)
		}
	}
}
