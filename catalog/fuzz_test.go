package catalog

import (
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(twoServers))
	f.Add([]byte(sameMeaning))
	f.Add([]byte(github))
	f.Add([]byte(sameGithub))
	f.Add([]byte(mcpTool("    meta: {tool: /n, arguments: /a}\n    input: {type: object, properties: {n: {type: string}, a: {type: any}}}\n")))
	f.Add([]byte(mcpServer("- {id: s, resource: 'https://s', upstream: '127.0.0.1:1', http: [{tool: t, method: GET, path: /t}]}\n")))
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
		checkRoutes(t, c)
		for tool := range c.AllTools() {
			checkTool(t, c, tool)
		}
		if again, err := Parse("fuzz", text); err != nil || again.Digest != c.Digest {
			t.Errorf("the same text gives another digest, or error %v", err)
		}
	})
}

// checkRoutes: whatever is at a path by any method is alone there.
func checkRoutes(t *testing.T, c *Catalog) {
	taken := map[string]string{} // path -> methods, each with a blank behind it
	take := func(method, path string) {
		if before := taken[path]; before != "" && (method == "*" || strings.Contains(before, "*")) || strings.Contains(before, method+" ") {
			t.Errorf("%s %s is there twice", method, path)
		}
		taken[path] += method + " "
	}
	metadata := map[string]bool{} // paths
	for i := range c.Servers {
		s := &c.Servers[i]
		for _, tool := range s.Tools {
			if tool.Server != s || (tool.Method == "") != (s.MCP != nil) {
				t.Errorf("tool %s is not its server's", tool.ID)
			}
			if s.MCP == nil {
				take(tool.Method, tool.Path)
			}
		}
		if s.MCP != nil {
			take("*", s.MCP.Path)
		} else if len(s.Tools) == 0 {
			t.Errorf("HTTP service %s has no tools", s.ID)
		}
		if path := s.MetadataPath(); path != "" {
			if metadata[path] && !c.SharesMetadataPath(s) {
				t.Errorf("server %s shares its metadata's path", s.ID)
			}
			metadata[path] = true
		}
	}
	for path := range metadata {
		take("*", path)
	}
}

func checkTool(t *testing.T, c *Catalog, tool *Tool) {
	if got, ok := c.Tool(tool.ID); !ok || got != tool {
		t.Errorf("tool %s is not found by its id", tool.ID)
	}
	for _, h := range c.CredentialHeaders("") {
		if tool.Header[h] != nil || h == "authorization" && tool.PassAuthorization && tool.Credential == h {
			t.Errorf("tool %s would get a credential in %q", tool.ID, h)
		}
	}
	input := tool.Input()
	checkSeen(t, tool, input, "")
	if tool.Server.MCP == nil {
		return
	}
	if got, ok := tool.Server.ToolByMCPName(tool.MCPName); !ok || got != tool {
		t.Errorf("tool %s is not found by its name on the server", tool.ID)
	}
	if input.Type != "object" {
		t.Errorf("tool %s: arguments of the type %s", tool.ID, input.Type)
	}
	for _, h := range tool.HeaderArguments() {
		if s := at(input, h.Path); s == nil || s.Header != h.Name || s.Type != h.Type {
			t.Errorf("tool %s: header %s is not of the argument %q", tool.ID, h.Name, h.Path)
		}
	}
	if in := tool.Inner; in != nil {
		if s := at(input, PointerPath(in.Tool)); s == nil || s.Type != "string" || covered(tool.Opaque, in.Tool) {
			t.Errorf("tool %s: the inner tool's name is at %s", tool.ID, in.Tool)
		}
		if in.Arguments != "" && (at(input, PointerPath(in.Arguments)) == nil || !covered(tool.Opaque, in.Arguments)) {
			t.Errorf("tool %s: the inner tool's arguments are at %s", tool.ID, in.Arguments)
		}
	}
}

// checkSeen: no value that policy sees is of any type.
func checkSeen(t *testing.T, tool *Tool, s *Schema, pointer string) {
	switch {
	case covered(tool.Opaque, pointer):
	case s.Type == "any":
		t.Errorf("tool %s: policy would see any type at %q", tool.ID, pointer)
	case s.Items != nil:
		checkSeen(t, tool, s.Items, pointer+"/*")
	default:
		for name, p := range s.Properties {
			checkSeen(t, tool, p, pointer+"/"+escape(name))
		}
	}
}

// at is the schema of the place; nil if it is not declared.
func at(s *Schema, path []string) *Schema {
	for _, name := range path {
		if s = s.Properties[name]; s == nil {
			return nil
		}
	}
	return s
}
