package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/examples/reports"
)

// `toolgrant dev --mcp`: an MCP server that somebody runs, behind everything.

const (
	mcpMark  = "policies/mcp.cedar" // tells a folder of an MCP server from one of the example
	mcpPath  = "/mcp"               // at Envoy
	mcpAgent = "agent-1"
	mcpKind  = "try"
)

// layOutMCP asks the server for its tools, and writes a catalogue of them with
// policies for it.
func (d *dev) layOutMCP(ctx context.Context, at [5]string) error {
	server, err := importMCP(ctx, importOptions{URL: d.mcp, Resource: "http://" + at[0] + mcpPath, Path: mcpPath, Errs: d.errs})
	if err != nil {
		return err
	}
	if server.tls {
		return usagef("--mcp %s: dev calls servers by plain HTTP; for one with TLS, see the clusters of `toolgrant envoy`", d.mcp)
	}
	text, err := reports.Files.ReadFile("toolgrant.yaml")
	if err != nil {
		return err
	}
	config := devPlaces(at).Replace(string(text))
	config = strings.Replace(config, "reporting: reporting", "agents: agents", 1)
	config += "\n# Where Envoy sends the messages to MCP servers whose answers have to be seen.\nsurface:\n  listen: " + at[3] + "\n"
	for _, f := range [][2]string{
		{"toolgrant.yaml", config}, {"tools.yaml", string(server.YAML())},
		{mcpMark, cedar.MCPBaseline + mcpCalls}, {"policies/issue.cedar", fmt.Sprintf(mcpIssue, server.id)},
		{"policies/entities.json", mcpEntities},
	} {
		if err := d.lay(f[0], f[1]); err != nil {
			return fmt.Errorf("laying out: %w", err)
		}
	}
	return nil
}

const mcpEntities = `[
  {"uid": {"type": "Toolgrant::AgentGroup", "id": "orchestrators"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Toolgrant::AgentGroup", "id": "agents"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Toolgrant::TaskKind", "id": "try"}, "attrs": {}, "parents": []}
]
`

const mcpCalls = `
// A session's stream and its end, of whoever opened it.
@id("sessions-need-no-grant")
permit (
  principal,
  action in [Toolgrant::Action::"mcp:GET", Toolgrant::Action::"mcp:DELETE"],
  resource
);

// Inside a live grant, a call passes. (What else the server may be asked, such as
// mcp:resources/read, is not permitted yet.)
@id("inside-a-grant")
permit (
  principal,
  action in Toolgrant::Action::"call",
  resource
)
when { context has grant };
`

const mcpIssue = `// An orchestrator runs its own tasks.
@id("orchestrators-run-their-tasks")
permit (
  principal in Toolgrant::AgentGroup::"orchestrators",
  action in [
    Toolgrant::Action::"start_task",
    Toolgrant::Action::"end_task",
    Toolgrant::Action::"revoke"
  ],
  resource
)
when { context.task.owner == principal };

// To try it, an agent may be granted every tool of the server, for 15 minutes. In
// earnest, say which tools which kind of task needs.
@id("agents-may-try")
permit (
  principal in Toolgrant::AgentGroup::"agents",
  action == Toolgrant::Action::"grant",
  resource in Toolgrant::ToolServer::"%s"
)
when { context.task.kind == "try" && context.ttl <= 900 };
`

// theMCPServer is the MCP server of a catalogue that layOutMCP wrote.
func theMCPServer(c *catalog.Catalog) *catalog.Server {
	i := slices.IndexFunc(c.Servers, func(s catalog.Server) bool { return s.MCP != nil })
	if i < 0 {
		return nil
	}
	return &c.Servers[i]
}

func mcpPeople(c *catalog.Catalog) []person {
	people := []person{{"planner.jwt", "planner", "orchestrators", "toolgrant"}, {mcpAgent + ".jwt", mcpAgent, "agents", "toolgrant"}}
	if s := theMCPServer(c); s != nil {
		people = append(people, person{mcpAgent + "-mcp.jwt", mcpAgent, "agents", s.Resource})
	}
	return people
}

// say is what is printed when everything is up.
func (d *dev) say(self string, tools *catalog.Catalog) string {
	if _, err := os.Stat(filepath.Join(d.dir, mcpMark)); err == nil {
		if s := theMCPServer(tools); s != nil {
			return d.pasteMCP(self, s)
		}
	}
	return d.paste(self)
}

// pasteMCP is what another shell needs, and how an MCP client gets in.
func (d *dev) pasteMCP(self string, s *catalog.Server) string {
	tool := s.ID + "/TOOL"
	if len(s.Tools) > 0 {
		tool = s.Tools[0].ID
	}
	return fmt.Sprintf(`Everything is up, FOR DEVELOPMENT ONLY. The MCP server (%[1]s) is protected, for whoever calls it at

  %[2]s

An MCP client shows a token in each request, as "Authorization: Bearer TOKEN". Paste into
another shell:

%[3]sexport TOOLGRANT_URL=%[4]s TOOLGRANT_DEV_DIR=%[5]s

# At baseline the agent may begin and see the tools, and call none.
jwt="$TOOLGRANT_DEV_DIR/%[6]s-mcp.jwt"
curl -sS -H "Authorization: Bearer $(cat "$jwt")" -H 'Accept: application/json, text/event-stream' \
  %[7]s '%[2]s'

# The planner starts a task; the agent buys a grant for it. Give the header to your client.
task=$(toolgrant task start --identity-token-file "$TOOLGRANT_DEV_DIR/planner.jwt" --kind %[8]s --agent corp/%[6]s --ttl 30m)
toolgrant grant --identity-token-file "$TOOLGRANT_DEV_DIR/%[6]s.jwt" --task "$task" --tool %[9]s --ttl 15m --header

# Its end takes the tools away, whatever the client still holds.
toolgrant task end --identity-token-file "$TOOLGRANT_DEV_DIR/planner.jwt" "$task"

# Files: the catalogue and policies to edit, logs. Decisions follow, each with its id
# (d_…); it is told in words by: toolgrant explain ID
ls "$TOOLGRANT_DEV_DIR"

`, s.Upstream, "http://"+d.cfg.Envoy.Listen+s.MCP.Path, findMe(self), d.cfg.Broker.PublicURL, shellWord(d.dir),
		mcpAgent, firstMessage(s), mcpKind, tool)
}

// firstMessage is how curl sends what a client of the server begins with.
func firstMessage(s *catalog.Server) string {
	newest := s.MCP.Revisions[len(s.MCP.Revisions)-1]
	if newest >= mcp.Rev20260728 {
		return "-H 'MCP-Protocol-Version: " + newest + "' -H 'Mcp-Method: tools/list' \\\n" +
			`  --json '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"` + newest +
			`","io.modelcontextprotocol/clientCapabilities":{}}}}'`
	}
	return `--json '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"` + newest +
		`","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'`
}
