package authz

import (
	"context"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
)

// Watched is what the answers of MCP servers said, as long as this process
// remembers it, and how a message is marked whose answer says such a thing.
type Watched struct {
	// Session is the agent that opened the session; it is pinned from PinSession on.
	Session func(server, id string) (agent string, pinned, known bool)
	// PinSession remembers that a call by a grant that pins arguments went through it.
	PinSession func(server, id string)
	// EndSession forgets a session.
	EndSession func(server, id string)
	// Task is who started a task of the server's.
	Task func(server, id string) (Started, bool)
	// Seal makes the passes by which an answer is watched.
	Seal *mcp.Seal
}

// Started is a task of an MCP server's, which one call of a tool became.
type Started struct {
	Agent  string      // agent id
	Grants []grants.ID // under which it was started; empty: baseline
}

// bound holds a message to what it is about: its session is one that this agent
// opened, and its tasks are those that this agent started.
func (d *Door) bound(c *check) (grants.Reason, string) {
	m := c.call.message
	if m.Session != "" {
		agent, pinned, known := d.cfg.Watched.Session(c.call.server.ID, m.Session)
		switch {
		case !known:
			return grants.UnknownSession, ""
		case agent != c.caller.agent.ID():
			return grants.NoGrant, "the session is another agent's"
		}
		c.call.pinned = pinned
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
		under, why, detail := d.started(c, id)
		if why != grants.None {
			v.why, v.detail = why, detail
			return v
		}
		if len(under) > 0 {
			v.rests = append(v.rests, under...)
			inside = &under[len(under)-1]
		}
	}
	if !c.call.message.Method.Grant {
		inside = nil // it may rest on a grant all the same
	}
	if inside != nil {
		v.hold(*inside)
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

// pins reports whether answers could go past what a grant says of arguments: one of
// the credential's, or one by which a call went through the session. One that has
// ended counts, since what it began may still run.
func (d *Door) pins(c *check) bool {
	if c.call.pinned {
		return true
	}
	for _, det := range c.caller.grants {
		g, _ := d.cfg.Table.Grant(det.GrantID)
		if g == nil || d.keeps(g) { // nothing is known of it any more: the worst is assumed
			return true
		}
	}
	return false
}

// keeps reports whether the grant says something of its tool's arguments that
// answers may not go past.
func (d *Door) keeps(g *grants.Grant) bool {
	t, known := d.cfg.Catalog.Tool(g.Tool)
	return pinned(g) && !(known && t.Retries)
}

// started finds the grants behind a task of the server's: what a call under grants
// has started is told under those alone, or under what renewed them, and all must
// live. A revocation takes the result with it.
func (d *Door) started(c *check, id string) ([]grants.Live, grants.Reason, string) {
	t, known := d.cfg.Watched.Task(c.call.server.ID, id)
	if !known || t.Agent != c.caller.agent.ID() {
		return nil, grants.NoGrant, "no task of that id was started by this agent here"
	}
	var under []grants.Live
	for _, first := range t.Grants {
		live, why, detail := d.standsFor(c, first)
		if why != grants.None {
			return nil, why, detail
		}
		under = append(under, live)
	}
	return under, grants.None, ""
}

// standsFor finds the live grant of the credential that is the given one or renews
// it.
func (d *Door) standsFor(c *check, first grants.ID) (grants.Live, grants.Reason, string) {
	why := grants.WrongTool
	for _, det := range c.caller.grants {
		if !d.renews(det.GrantID, first) {
			continue
		}
		live, no := d.cfg.Table.Lookup(det.GrantID)
		if no == grants.None {
			no, detail := d.matchesTool(c, live, det.Tool)
			return live, no, detail
		}
		why = no
	}
	return grants.Live{}, why, "the task was started under another grant than the token holds, or one that has ended"
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
