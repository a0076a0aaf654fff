package cedar

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// Each example is accepted as it is, and shows all that policy can see.
func TestMCPExampleInput(t *testing.T) {
	s := mcpPolicies(t, permitAll)
	try := func(action, id string, lacks ...string) {
		t.Run(action+" "+id, func(t *testing.T) {
			doc, err := s.ExampleInput(action, id)
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.DecideExample(doc)
			if err != nil {
				t.Fatalf("%v\n%s", err, doc)
			}
			want(t, d, "allow all")
			var text exampleText
			if err := json.Unmarshal(doc, &text); err != nil {
				t.Fatal(err)
			}
			q, err := s.read(&text)
			if err != nil {
				t.Fatal(err)
			}
			checkRequest(t, s.schema, q)
			context := s.schema.Actions[q.request.Action].AppliesTo.Context
			for name := range context {
				if _, there := q.request.Context.Get(name); !there && !slices.Contains(lacks, string(name)) {
					t.Errorf("context.%s is not there", name)
				}
			}
		})
	}
	for _, m := range mcp.Methods() {
		if m.Name != mcp.ToolsCall {
			try("mcp:"+m.Name, "forge")
		}
	}
	try("call", "forge/merge")
	try("call", "forge/run")
	try("call", "forge/status")
	try("grant", "forge/merge")
	try("mcp:resources/read", "notes", "grant") // it has no tools, and so there are no grants for it
	for _, tt := range []struct{ action, id, want string }{
		{"mcp:resource/read", "forge", `did you mean "mcp:resources/read"?`},
		{"mcp:resources/read", "froge", `did you mean "forge"?`},
		{"mcp:resources/read", "bank", `is about an MCP server, and "bank" is none of the catalogue; there are: forge, notes`},
		{"mcp:resources/read", "forge/merge", `"forge/merge" is none of the catalogue`},
		{"mcp:resources/read", "", `there are: forge, notes`},
		{"mcp:initialize", "notes", "the server notes speaks no revision of MCP that has it"},
		{"call", "forge", `"forge" is none of the catalogue`},
		{"mcp", "forge", `no action "mcp"`},
	} {
		if doc, err := s.ExampleInput(tt.action, tt.id); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %s, %v", tt.action, tt.id, doc, err)
		}
	}
}

// What no door would ask is refused, with what to write.
func TestMCPExampleRefuses(t *testing.T) {
	s := mcpPolicies(t, permitAll)
	doc := func(action, id string) string {
		text, err := s.ExampleInput(action, id)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	read, ping, merge := doc("mcp:resources/read", "forge"), doc("mcp:ping", "forge"), doc("call", "forge/merge")
	for _, tt := range []struct{ name, doc, from, to, want string }{
		{"unknown action", read, "mcp:resources/read", "mcp:resources/raed", "action:"},
		{"the parent", read, "mcp:resources/read", "mcp", `is only a parent; write out what is asked: Toolgrant::Action::"mcp:METHOD"`},
		{"an HTTP service", read, `ToolServer::\"forge\"`, `ToolServer::\"bank\"`, `is no MCP server; there are: forge, notes`},
		{"unknown server", read, `ToolServer::\"forge\"`, `ToolServer::\"froge\"`, `did you mean "forge"?`},
		{"a tool", read, `ToolServer::\"forge\"`, `Tool::\"forge/merge\"`, "is about a Toolgrant::ToolServer"},
		{"unknown revision", read, `"2026-07-28"`, `"2026-07-29"`, `context.revision: "2026-07-29" is no revision of MCP that is known; did you mean "2026-07-28"?`},
		{"a revision without the method", ping, `"2025-11-25"`, `"2026-07-28"`, "context.revision: 2026-07-28 has no ping"},
		{"a retry before there were any", merge, `"2026-07-28"`, `"2025-11-25"`, "context.retry: 2025-11-25 has no multi-round-trip retries"},
		{"no revision", ping, `"revision"`, `"revisoin"`, `did you mean "revision"?`},
		{"a grant that cannot cover it", ping, `"input"`, `"grant"`, `context has no member "grant"`},
		{"another parameter", read, `"uri"`, `"url"`, `context.input has no member "url"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(tt.doc, tt.from, tt.to, 1)
			if changed == tt.doc {
				t.Fatalf("%q is not in %s", tt.from, tt.doc)
			}
			d, err := s.DecideExample([]byte(changed))
			if err == nil || d.Allow || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}
