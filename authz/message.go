package authz

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// readers gives, for each MCP server of the catalogue, what its messages are read
// with.
func readers(c *catalog.Catalog) map[string]mcp.Server {
	out := map[string]mcp.Server{}
	for i := range c.Servers {
		s := &c.Servers[i]
		if s.MCP == nil {
			continue
		}
		tools := make(map[string]mcp.Tool, len(s.Tools))
		for _, t := range s.Tools {
			tools[t.MCPName] = reader(t)
		}
		out[s.ID] = mcp.Server{
			Revisions: s.MCP.Revisions, Hosts: s.Hosts(), Origins: s.MCP.Origins,
			Tool: func(name string) (mcp.Tool, bool) { t, ok := tools[name]; return t, ok },
		}
	}
	return out
}

func reader(t *catalog.Tool) mcp.Tool {
	out := mcp.Tool{Tasks: t.Tasks}
	for _, h := range t.HeaderArguments() {
		out.Headers = append(out.Headers, mcp.Header{Name: h.Name, Path: h.Path, Type: h.Type})
	}
	if t.Inner != nil {
		out.Inner = &mcp.Inner{Tool: catalog.PointerPath(t.Inner.Tool)}
		if t.Inner.Arguments != "" {
			out.Inner.Arguments = catalog.PointerPath(t.Inner.Arguments)
		}
	}
	return out
}

// readMessage reads what is asked of an MCP server: a call of a tool, and of each
// that it calls in turn, or one method. It returns why it could not; nil for none.
func (d *Door) readMessage(req *authv3.CheckRequest, c *call) *verdict {
	raw, why, detail := d.readBytes(req, c)
	if why != grants.None {
		return &verdict{why: why, detail: detail}
	}
	m, no := mcp.Read(d.mcp[c.server.ID], mcp.HTTPRequest{
		Verb: req.GetAttributes().GetRequest().GetHttp().GetMethod(), Query: c.query, Header: c.headers.mcp, Body: raw,
	})
	if no != nil {
		c.id, c.wanted = no.ID, no.Asked
		return refused(no)
	}
	c.message, c.id = m, m.ID
	if m.Method.Name != mcp.ToolsCall {
		c.asks = []asked{{action: m.Method.Action(), input: m.Input}}
		return nil
	}
	var asks []asked
	for _, one := range m.Calls {
		t, known := c.server.ToolByMCPName(one.Name)
		if !known {
			c.wanted = cut(one.Name)
			return &verdict{why: grants.UnknownTool, detail: "the catalogue has no such tool of this server"}
		}
		if err := conform(one.Arguments, t.Arguments, "", t.Opaque); err != nil {
			return refused(&mcp.Refusal{
				Why: mcp.Mismatch, Status: answers[grants.Mismatch].status, Code: mcp.CodeParams, Detail: "arguments of " + t.ID + ": " + err.Error(),
			})
		}
		if m.AsTask && !t.Tasks {
			return refused(&mcp.Refusal{
				Why: mcp.Malformed, Status: answers[grants.Malformed].status, Code: mcp.CodeParams,
				Detail: "params.task: the catalogue does not say tasks: true of " + t.ID,
			})
		}
		asks = append(asks, asked{action: grants.ActionCall + t.ID, tool: t, input: one.Arguments})
	}
	c.asks = asks
	return nil
}

// refusals maps the kinds of refusal to Reasons, once. Status and codes are the
// refusal's own.
var refusals = map[mcp.Why]grants.Reason{
	mcp.Malformed: grants.Malformed, mcp.Mismatch: grants.Mismatch, mcp.TooLarge: grants.TooLarge, mcp.Encoding: grants.Encoding,
	mcp.BadVerb: grants.Mismatch, mcp.BadRevision: grants.Mismatch, mcp.Foreign: grants.Mismatch,
	mcp.NoMethod: grants.NoGrant, // deny by default: no policy can permit it
}

// refused is a message that is wrong in itself, as a verdict.
func refused(no *mcp.Refusal) *verdict {
	return &verdict{why: cmp.Or(refusals[no.Why], grants.Malformed), detail: no.Detail, refusal: no}
}

// retry is what a multi-round-trip retry brings, for policy; nil: the request is
// none.
func (c *call) retry() *grants.Retry {
	if c.message == nil || c.message.Retry == nil {
		return nil
	}
	return &grants.Retry{Responses: c.message.Retry.Responses, State: c.message.Retry.State}
}

// pinned reports whether the grant says something of the arguments.
func pinned(g *grants.Grant) bool {
	return len(g.Constraints) > 0 || !g.Once.IsZero() || slices.ContainsFunc(g.Budgets, func(b grants.Budget) bool { return b.Arg != "" })
}

// answersPastConstraints: what the server asked for in between and what it
// remembers in requestState can stand in for arguments.
const answersPastConstraints = "the grant pins arguments, and answers to the server (inputResponses, requestState) could go past them: " +
	"have the catalogue say retries: true for the tool, or ask for a grant without constraints"

// arguments are what the digest on record is taken of: the outermost input, which
// has the others in it, and the answers that came with it.
func (c *call) arguments() map[string]any {
	in, retry := c.asks[0].input, c.retry()
	if retry == nil {
		return in
	}
	return map[string]any{"arguments": in, "inputResponses": retry.Responses, "requestState": retry.State}
}

// retries says, on record, that answers to the server came with it.
func (c *call) retries() string {
	if c.retry() == nil {
		return ""
	}
	return "a retry, with answers to the server"
}

// notThere says, on record, what was asked for that there is not.
func (c *call) notThere() string {
	if c.wanted == "" {
		return ""
	}
	return "asked for " + strconv.Quote(c.wanted)
}

// through says by which tools a call came to the one that it is about; "" where
// it names that one itself.
func (c *call) through() string {
	if c.at == nil || len(c.asks) < 2 || c.at == &c.asks[0] {
		return ""
	}
	var names []string
	for i := range c.asks {
		if &c.asks[i] == c.at {
			break
		}
		names = append(names, c.asks[i].tool.ID)
	}
	return "through " + strings.Join(names, ", ")
}
