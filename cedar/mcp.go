package cedar

import (
	"fmt"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// What an agent asks of an MCP server beside calls of its tools is an action
// about the server, "mcp:resources/read": one for each method of mcp.Methods.
// They are there where the catalogue has an MCP server, and then all of them,
// whatever revisions its servers speak: a policy that names what start-up needs
// in any revision (MCPBaseline) is the same text for every catalogue, and a
// narrower "revisions" in the catalogue does not make policies fail.

// The parents of the actions about MCP servers. A parent of a parent is named
// by its children, too (see index).
const (
	mcpParent           = "mcp"
	notificationsParent = mcp.ActionPrefix + "notifications"
)

// MCPBaseline is the text of a policy file that permits to every agent what MCP
// clients send to begin, and no more. Without it, or the like of it, none can.
const MCPBaseline = `// What MCP clients send to begin. It calls no tool, and reads no resource and no
// prompt; tools/list shows which tools there are. All else that a server is asked
// (resources, prompts, tasks, answers to what it asks itself, GET and DELETE) is an
// action of its own in Toolgrant::Action::"mcp", and a call of a tool is one in
// Toolgrant::Action::"call".
@id("mcp-start-up-needs-no-grant")
permit (
  principal,
  action in [
    Toolgrant::Action::"mcp:initialize",
    Toolgrant::Action::"mcp:ping",
    Toolgrant::Action::"mcp:server/discover",
    Toolgrant::Action::"mcp:notifications",
    Toolgrant::Action::"mcp:tools/list"
  ],
  resource
);
`

// method is what can be asked of an MCP server, and how policy sees it.
type method struct {
	*mcp.Method
	uid    cedargo.EntityUID // its action
	schema *catalog.Schema   // of its input
	input  *shape
}

// methods gives what can be asked of the MCP servers, by action; none if the
// catalogue has no MCP server. Calls of tools are not in it.
func methods(c *catalog.Catalog) (map[string]*method, error) {
	all := map[string]*method{}
	if len(mcpServers(c)) == 0 {
		return all, nil
	}
	for _, m := range mcp.Methods() {
		action := m.Action()
		if action == "" {
			continue
		}
		schema := inputSchema(m)
		input, err := newShape(schema, "", nil, maxDepth)
		if err != nil {
			return nil, fmt.Errorf("action %s: input%w", action, err)
		}
		all[action] = &method{Method: m, uid: actionUID(action), schema: schema, input: input}
	}
	return all, nil
}

func mcpServers(c *catalog.Catalog) []*catalog.Server {
	var out []*catalog.Server
	for i := range c.Servers {
		if s := &c.Servers[i]; s.MCP != nil {
			out = append(out, s)
		}
	}
	return out
}

// closedParams are the parameters of which all values are known.
var closedParams = map[string][]string{
	"completion/complete ref_type": {"ref/prompt", "ref/resource"},
	// MCP 2025-03-26 and on, LoggingLevel.
	"logging/setLevel level": {"alert", "critical", "debug", "emergency", "error", "info", "notice", "warning"},
}

// inputSchema describes what mcp.Read gives as the Input of a Message.
func inputSchema(m *mcp.Method) *catalog.Schema {
	text := func() *catalog.Schema { return &catalog.Schema{Type: "string"} }
	types := map[mcp.ParamType]*catalog.Schema{
		mcp.Text:  text(),
		mcp.Texts: {Type: "array", Items: text()},
		mcp.Pairs: {Type: "array", Items: &catalog.Schema{
			Type: "object", Properties: map[string]*catalog.Schema{"name": text(), "value": text()}, Required: []string{"name", "value"},
		}},
		mcp.Truth: {Type: "boolean"},
	}
	out := &catalog.Schema{Type: "object", Properties: map[string]*catalog.Schema{}}
	for _, p := range m.Input {
		param := types[p.Type] // nil, an error in newShape, of a type that is not here
		if known := closedParams[m.Name+" "+p.Name]; known != nil {
			param = &catalog.Schema{Type: "string", Enum: known}
		}
		out.Properties[p.Name] = param
		if !p.Optional {
			out.Required = append(out.Required, p.Name)
		}
	}
	return out
}

// parents gives all parents of the method's action.
func (m *method) parents() []string {
	if m.Kind == mcp.Notification {
		return []string{mcpParent, notificationsParent}
	}
	return []string{mcpParent}
}

// server is what deciding about an MCP server needs.
type server struct {
	uid    cedargo.EntityUID
	routes map[string]route // action -> policies
}

var revisionType = ast.Attribute{Type: ast.String(), Annotations: doc("of MCP, in which it comes")}

// addMCP adds the actions about MCP servers to the schema.
func addMCP(ns *ast.Namespace, all map[string]*method, requester ast.Attribute, appliesTo func(cedargo.EntityType, ast.IsType) *ast.AppliesTo) {
	if len(all) == 0 {
		return
	}
	ns.CommonTypes["Retry"] = ast.CommonType{Type: ast.RecordType{
		"responses": {Type: ast.String(), Annotations: doc("RFC 8785 text of inputResponses; empty: none")},
		"state":     {Type: ast.Bool(), Annotations: doc("it has a requestState")},
	}}
	ns.Actions[mcpParent] = ast.Action{Annotations: doc("the parent of all that is asked of MCP servers but calls of tools")}
	ns.Actions[notificationsParent] = ast.Action{
		Parents:     []ast.ParentRef{ast.ParentRefFromID(mcpParent)},
		Annotations: doc("the parent of every notification's action"),
	}
	for action, m := range all {
		context := ast.RecordType{
			"requester": requester,
			"revision":  revisionType,
			"input":     {Type: m.input.schemaType()},
		}
		if m.Grant {
			context["grant"] = grantType
		}
		if m.Retry {
			context["retry"] = retryType
		}
		var parents []ast.ParentRef
		for _, p := range m.parents() {
			parents = append(parents, ast.ParentRefFromID(cedargo.String(p)))
		}
		ns.Actions[cedargo.String(action)] = ast.Action{Parents: parents, AppliesTo: appliesTo("ToolServer", context)}
	}
}

// askMethod asks for an action about an MCP server.
func (s *Set) askMethod(m *method, in *grants.Input, q *question, context cedargo.RecordMap) grants.Reason {
	to, known := s.servers[in.Server]
	if !known {
		return grants.UnknownTool
	}
	if in.Tool != "" || in.Args == nil || !byMCP(in) || !m.In(in.Revision) || in.Retry != nil && !m.Retry {
		return grants.Undecided
	}
	if in.Grant != nil || in.Task != nil {
		if !m.Grant || !s.covers(in) {
			return grants.Undecided
		}
		if !s.addGrant(in, q, context) {
			return grants.Unrepresentable
		}
	}
	var b builder
	input, ok := b.value(m.input, in.Args)
	if !ok {
		return grants.Unrepresentable
	}
	context["input"] = input
	addRevision(in, context)
	q.request.Action, q.request.Resource = m.uid, to.uid
	q.route = to.routes[in.Action]
	return grants.None
}

// covers reports whether the grant is one of the task, of the principal, and for
// a tool of the server.
func (s *Set) covers(in *grants.Input) bool {
	if in.Task == nil || in.Grant == nil || in.Grant.Task != in.Task.ID || in.Grant.Agent.ID() != in.Principal.ID() {
		return false
	}
	t, known := s.catalog.Tool(in.Grant.Tool)
	return known && t.Server.ID == in.Server
}

// addRevision tells policy how a message of MCP came.
func addRevision(in *grants.Input, context cedargo.RecordMap) {
	context["revision"] = cedargo.String(in.Revision)
	if r := in.Retry; r != nil {
		context["retry"] = cedargo.NewRecord(cedargo.RecordMap{
			"responses": cedargo.String(r.Responses), "state": cedargo.Boolean(r.State),
		})
	}
}

// byMCP reports whether an Input says in which revision it came, and a retry came
// in one that has them.
func byMCP(in *grants.Input) bool {
	return isRevision(in.Revision) && (in.Retry == nil || hasRetries(in.Revision))
}

func isRevision(text string) bool { return slices.Contains(mcp.Revisions(), text) }

// hasRetries reports whether there are multi-round-trip retries in the revision.
func hasRetries(revision string) bool { return revision >= mcp.Rev20260728 }

// hasMCP reports whether an Input has what only questions about MCP have.
func hasMCP(in *grants.Input) bool {
	return in.Server != "" || in.Revision != "" || in.Retry != nil
}

// revisionFor gives the newest revision of the server that has the method.
func revisionFor(s *catalog.Server, m *mcp.Method) (string, bool) {
	for _, r := range slices.Backward(s.MCP.Revisions) {
		if m.In(r) {
			return r, true
		}
	}
	return "", false
}

// isParent reports whether the action is one that no question has.
func isParent(uid cedargo.EntityUID) bool {
	return uid == actionUID(callParent) || uid == actionUID(mcpParent) || uid == actionUID(notificationsParent)
}

// actionHint says more of an action that there is not.
func (w *world) actionHint(id string) string {
	switch {
	case id == mcp.ActionPrefix+mcp.ToolsCall:
		return "; a call of a tool is an action of its own, " + grants.ActionCall + "SERVER/TOOL"
	case (id == mcpParent || strings.HasPrefix(id, mcp.ActionPrefix)) && len(w.methods) == 0:
		return "; there is none of these, because the catalogue has no MCP server"
	}
	return ""
}
