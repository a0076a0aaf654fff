package catalog

import (
	"strings"
	"testing"
)

func TestRefusesServer(t *testing.T) {
	refuses(t, []refusal{
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
		{"http missing", "servers: [{id: s, resource: 'https://s', upstream: '127.0.0.1:1'}]", `1:16: server "s" needs "http", the tools of an HTTP service, or "mcp"`},
		{"http and mcp", one("  mcp: {path: /m}\n"), `9:3: server "s" has both "http" and "mcp": make two servers of it`},
		{"tools beside http", one("  tools: []\n"), `9:3: "tools" are an MCP server's`},
		{"tools without mcp", with("  http:", "  tools:"), `5:3: "tools" are an MCP server's, which has "mcp" as well`},
		{"tool twice", one("  - {tool: t, method: GET, path: /u}\n"), `tool "s/t" is there twice`},
		{"tool name", with("tool: t", "tool: T"), `"T": must match`},

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
	})
}
