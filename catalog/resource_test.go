package catalog

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRefusesResource(t *testing.T) {
	refuses(t, []refusal{
		{"resource relative", with("https://s", "/s"), "must be an absolute URI"},
		{"resource without host", with("https://s", "https:///s"), "must be an absolute URI"},
		{"resource opaque https", with("https://s", "https:s"), "must be an absolute URI"},
		{"resource with a fragment", with("https://s", "https://s/#"), "must have no fragment"},
		{"resource with a user", with("https://s", "https://u:p@s"), "must have no user information"},
		{"resource in capitals", with("https://s", "https://S"), "in lower case"},
		{"resource scheme in capitals", with("https://s", "HTTPS://s"), "in lower case"},
		{"resource with a space", with("https://s", `"https://s/ "`), "visible ASCII"},
		{"metadata at a tool's path", with("path: /t", "path: /.well-known/oauth-protected-resource"),
			`3:13: resource "https://s": its metadata is at /.well-known/oauth-protected-resource (RFC 9728, Section 3.1), which is already the tool "s/t"`},
		{"metadata at an MCP server's path", one("- {id: m, resource: 'https://m/s', upstream: '127.0.0.1:1', mcp: {path: /.well-known/oauth-protected-resource}}\n"),
			`3:13: resource "https://s": its metadata is at /.well-known/oauth-protected-resource (RFC 9728, Section 3.1), which is already the MCP server "m"`},
		{"one metadata for two schemes", one("- {id: s2, resource: 'http://s', upstream: '127.0.0.1:1', mcp: {path: /m}}\n"),
			`9:22: resource "http://s": its metadata would be where that of server "s" is, at s/.well-known/oauth-protected-resource`},
		{"one metadata for two queries", one("- {id: s2, resource: 'https://s?a', upstream: '127.0.0.1:1', mcp: {path: /m}}\n"), `would be where that of server "s" is`},
		{"one metadata with a slash or without", one("- {id: s2, resource: 'https://s/', upstream: '127.0.0.1:1', mcp: {path: /m}}\n"), `would be where that of server "s" is`},
		{"resource twice", one("") + "- {id: s2, resource: 'https://s', upstream: '127.0.0.1:1', http: []}\n", `already that of server "s"`},
	})
}

func TestMetadata(t *testing.T) {
	const root = "/.well-known/oauth-protected-resource"
	for _, tt := range []struct{ resource, url, path string }{
		{"https://s", "https://s" + root, root},
		{"https://s/", "https://s" + root, root},
		{"http://s.example:8080/a/b", "http://s.example:8080" + root + "/a/b", root + "/a/b"},
		{"https://s/a/", "https://s" + root + "/a/", root + "/a/"},
		{"https://s/a?tenant=b", "https://s" + root + "/a", root + "/a"},
		{"https://127.0.0.1/a", "https://127.0.0.1" + root + "/a", root + "/a"},
		{"https://[::1]:1/a", "https://[::1]:1" + root + "/a", root + "/a"},
		{"urn:example:s", "", ""},
		{"ftp://s/a", "", ""},
		{"https://s/a%2fb", "", ""},
		{"https://s/a//b", "", ""},
		{"https://s/a/../b", "", ""},
		{`https://s"/a`, "", ""},
		{"https://s_s/a", "", ""},
		{"https://127.0.0.01/a", "", ""},
		{"https://[fe80::1%25eth0]/a", "", ""},
		{"https://s:/a", "", ""},
		{"https://s:0443/a", "", ""},
	} {
		c := mustParse(t, with("https://s", "'"+tt.resource+"'"))
		s := &c.Servers[0]
		if url, path := s.MetadataURL(), s.MetadataPath(); url != tt.url || path != tt.path {
			t.Errorf("%s: MetadataURL %q, MetadataPath %q", tt.resource, url, path)
		}
		if c.SharesMetadataPath(s) {
			t.Errorf("%s shares its metadata's path with nobody", tt.resource)
		}
	}
}

func TestSharesMetadataPath(t *testing.T) {
	c := mustParse(t, `
servers:
- {id: a, resource: "https://a/mcp", upstream: "127.0.0.1:1", mcp: {path: /a}}
- {id: b, resource: "https://b/mcp", upstream: "127.0.0.1:1", mcp: {path: /b}}
- {id: c, resource: "https://a:1", upstream: "127.0.0.1:1", mcp: {path: /c}}
- {id: d, resource: "urn:d", upstream: "127.0.0.1:1", mcp: {path: /d}}
- {id: e, resource: "urn:e", upstream: "127.0.0.1:1", mcp: {path: /e}}
`)
	for i, want := range []bool{true, true, false, false, false} {
		if s := &c.Servers[i]; c.SharesMetadataPath(s) != want {
			t.Errorf("%s: %t", s.ID, !want)
		}
	}
}

func TestHosts(t *testing.T) {
	c := mustParse(t, `
servers:
- {id: a, resource: "https://m.example:8443/mcp", upstream: "127.0.0.1:1", mcp: {path: /a, hosts: [z.example, b.example]}}
- {id: b, resource: "urn:b", upstream: "127.0.0.1:1", mcp: {path: /b, hosts: [m.example]}}
- {id: c, resource: "https://c/a%2fb", upstream: "127.0.0.1:1", http: [{tool: t, method: GET, path: /t}]}
`)
	for i, want := range [][]string{{"b.example", "m.example", "z.example"}, {"m.example"}, {"c"}} {
		if diff := cmp.Diff(want, c.Servers[i].Hosts()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Servers[i].ID, diff)
		}
	}
}
