package authz

import (
	"context"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
)

// Watched is what the answers of MCP servers said, as long as this process
// remembers it, and how a message is marked whose answer says such a thing.
type Watched struct {
	// Session is the agent that opened the session.
	Session func(server, id string) (agent string, known bool)
	// EndSession forgets a session.
	EndSession func(server, id string)
	// Task is who started a task of the server's.
	Task func(server, id string) (Started, bool)
	// Seal makes the passes by which an answer is watched.
	Seal *mcp.Seal
}

// Started is a task of an MCP server's, which one call of a tool became.
type Started struct {
	Agent string    // agent id
	Tool  string    // SERVER/TOOL
	Grant grants.ID // under which it was started; "": baseline
}

// bound holds a message to what it is about: its session is one that this agent
// opened, and its tasks are those that this agent started.
func (d *Door) bound(c *check) (grants.Reason, string) {
	m := c.call.message
	if m.Session != "" {
		agent, known := d.cfg.Watched.Session(c.call.server.ID, m.Session)
		switch {
		case !known:
			return grants.UnknownSession, ""
		case agent != c.caller.agent.ID():
			return grants.NoGrant, "the session is another agent's"
		}
	}
	for _, id := range m.Tasks {
		// Unknown and foreign are alike, or ids could be tried out.
		if t, known := d.cfg.Watched.Task(c.call.server.ID, id); !known || t.Agent != c.caller.agent.ID() {
			return grants.NoGrant, "no task of that id was started by this agent here"
		}
	}
	return grants.None, ""
}

// method decides what an MCP method does that calls no tool. Policy sees the grant
// that the credential brings, if the method is one that a grant can cover.
func (d *Door) method(ctx context.Context, c *check) verdict {
	v := d.name(c)
	if v.why != grants.None {
		return v
	}
	var inside *grants.Live
	if c.call.message.Method.Grant && len(v.rests) > 0 {
		inside = &v.rests[0]
	}
	for _, id := range c.call.message.Tasks {
		live, why, detail := d.started(c, id)
		if why != grants.None {
			v.why, v.detail = why, detail
			return v
		}
		if live != nil {
			v.rests = append(v.rests, *live)
			inside = live
		}
	}
	if !c.call.message.Method.Grant {
		inside = nil // it may rest on a grant all the same
	}
	if inside != nil {
		v.held, v.grant = true, *inside
	}
	if c.call.answers() && d.pins(c) {
		v.why, v.detail = grants.ConstraintBroken, answersPastConstraints
		return v
	}
	v.decision, v.why = d.decide(ctx, c, c.question(inside))
	if v.why = c.missing(v); v.why == grants.NoGrant {
		v.detail = "policy permits this method neither without a grant nor with the one that came: " + c.call.at.action
	}
	v.allow = v.why == grants.None
	return v
}

// answers reports whether the message answers what the server asked: in a retry, or
// in a session by a message of its own, which does not say to which call it belongs.
func (c *call) answers() bool {
	return c.message != nil && (c.message.Retry != nil || c.message.Method.Kind == mcp.Response)
}

// pins reports whether the credential holds a live grant that says something of
// the arguments of its tool, and answers may not go past that.
func (d *Door) pins(c *check) bool {
	for _, det := range c.caller.grants {
		live, why := d.cfg.Table.Lookup(det.GrantID)
		if why != grants.None || !pinned(live) {
			continue
		}
		if t, known := d.cfg.Catalog.Tool(live.Grant().Tool); !known || !t.Retries {
			return true
		}
	}
	return false
}

// started finds the grant behind a task of the server's: what a call under a grant
// has started is told under that grant alone, or one that renewed it. A revocation
// takes the result with it.
func (d *Door) started(c *check, id string) (*grants.Live, grants.Reason, string) {
	t, known := d.cfg.Watched.Task(c.call.server.ID, id)
	if !known || t.Agent != c.caller.agent.ID() {
		return nil, grants.NoGrant, "no task of that id was started by this agent here"
	}
	if t.Grant == "" {
		return nil, grants.None, ""
	}
	first := grants.WrongTool
	for _, held := range c.caller.grantsFor(t.Tool) {
		if !d.renews(held, t.Grant) {
			continue
		}
		live, why := d.cfg.Table.Lookup(held)
		if why == grants.None {
			if why, detail := d.matchesTool(c, live, t.Tool); why != grants.None {
				return nil, why, detail
			}
			return &live, grants.None, ""
		}
		first = why
	}
	return nil, first, "the task was started under another grant than the token holds, or one that has ended"
}

// renews reports whether a grant is the other one, or stands in its place.
func (d *Door) renews(held, other grants.ID) bool {
	for range maxRenewals {
		if held == other {
			return true
		}
		g, _ := d.cfg.Table.Grant(held)
		if g == nil || g.Renews == "" {
			return false
		}
		held = g.Renews
	}
	return false
}

// maxRenewals bounds the walk; a task's grants renewed more often than that ask
// for its result by the tool again.
const maxRenewals = 64
