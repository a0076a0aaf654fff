package catalog

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRefusesCredential(t *testing.T) {
	refuses(t, []refusal{
		{"credential a number", one("    credential: 1\n"), `"credential" must be a string`},
		{"credential in capitals", one("    credential: X-Token\n"), `9:17: credential header "X-Token": must be a lower-case`},
		{"credential with another use", one("    credential: host\n"), `9:17: credential header "host": that header has another use`},
		{"credential of a server", with("upstream:", "credential: cookie\n  upstream:"), `4:15: credential header "cookie"`},
		{"credential that is an input", one("    credential: x-t\n    header: {x-t: {type: string}}\n"), `6:5: tool s/t: its input header "x-t" is the credential header`},
		{"credential that is another tool's input", one("    header: {x-t: {type: string}}\n  - {tool: u, method: GET, path: /u, credential: x-t}\n"), `6:5: tool s/t: its input header "x-t"`},
		{"credential that is passed on", one("    credential: authorization\n    pass_authorization: true\n"), `6:5: tool s/t: pass_authorization would hand`},
		{"credential that is an MCP server's", one("    header: {x-t: {type: string}}\n- {id: m, resource: 'https://m', upstream: '127.0.0.1:1', credential: x-t, mcp: {path: /m}}\n"), `6:5: tool s/t: its input header "x-t"`},
		{"credential that MCP uses", strings.Replace(mcpServer(""), "upstream:", "credential: mcp-session-id\n  upstream:", 1), `4:15: credential header "mcp-session-id": that header has another use`},
		{"credential of an MCP tool", mcpTool("    credential: x-t\n"), `9:5: "credential" is the MCP server's, for all of its tools`},
		{"pass_authorization text", one("    pass_authorization: \"true\"\n"), "must be true or false"},
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
- {id: m, resource: "https://m", upstream: "127.0.0.1:3", credential: x-m-token, mcp: {path: /m}}
- {id: n, resource: "https://n", upstream: "127.0.0.1:3", credential: x-n-token, mcp: {path: /n}, tools: [{tool: t}]}
- {id: b, resource: "https://b", upstream: "127.0.0.1:2", http: [{tool: t, method: GET, path: /b/t, header: {x-b: {type: string}}}]}
`)
	for id, want := range map[string]string{"a/default": "x-a-token", "a/own": "x-own-token", "b/t": "authorization", "n/t": "x-n-token"} {
		tool, _ := c.Tool(id)
		if got := tool.CredentialIn("authorization"); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	for id, want := range map[string]string{"a": "x-a-token", "m": "x-m-token", "b": "authorization"} {
		s, _ := c.ServerByID(id)
		if got := s.CredentialIn("authorization"); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	if diff := cmp.Diff([]string{"authorization", "x-a-token", "x-m-token", "x-n-token", "x-own-token"}, c.CredentialHeaders("authorization")); diff != "" {
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
		"mcp-session-id", "mcp-param-token", "last-event-id", "origin",
	} {
		if err := CheckCredentialHeader(taken); err == nil || !strings.Contains(err.Error(), "another use") {
			t.Errorf("%s: error %v", taken, err)
		}
	}
}
