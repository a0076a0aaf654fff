package authz

import (
	"context"
	"encoding/json"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// conclude records the verdict and answers. Every path to an allow leads
// through here, and so does everything that turned out to be none.
func (d *Door) conclude(ctx context.Context, c *check, v verdict) *authv3.CheckResponse {
	d.confirm(ctx, c, &v)
	if len(c.call.asks) > 0 && c.call.asks[0].input != nil { // what was read can be large, and writing can take time
		c.args = d.cfg.Digest(argsText(c.call.arguments()))
		for i := range c.call.asks {
			c.call.asks[i].input = nil
		}
	}
	if err := d.cfg.Record(d.record(c, v)); err != nil {
		d.cfg.Logger.Debug("recording a decision", zap.String("decision", c.id), zap.Error(err))
		v.refuse(grants.CannotRecord)
		return d.denied(c, v)
	}
	if !v.allow {
		return d.denied(c, v)
	}
	// Writing took time, in which the grant may have ended. The record that
	// stands says "allow"; a second one says that it did not come to that.
	if d.confirm(ctx, c, &v); !v.allow {
		if err := d.cfg.Record(d.record(c, v)); err != nil {
			d.cfg.Logger.Debug("recording a withdrawal", zap.String("decision", c.id), zap.Error(err))
		}
		return d.denied(c, v)
	}
	return d.allowed(c, v)
}

// confirm refuses what would have been allowed if its token or grant lives no
// more, or if the time for an answer is up.
func (d *Door) confirm(ctx context.Context, c *check, v *verdict) {
	if !v.allow {
		return
	}
	if ctx.Err() != nil {
		v.refuse(grants.Undecided)
		return
	}
	if v.left = c.caller.ends.Sub(d.cfg.Table.Now()); v.left <= 0 {
		v.refuse(grants.ExpiredToken)
		return
	}
	for _, live := range v.rests {
		if why := d.cfg.Table.Still(live); why != grants.None {
			v.refuse(why)
			return
		}
		if v.left = min(v.left, d.cfg.Table.Left(live)); v.left <= 0 {
			v.refuse(grants.Expired)
			return
		}
	}
}

// refuse turns the verdict into a denial and gives back what it spent.
func (v *verdict) refuse(why grants.Reason) {
	v.giveBack()
	v.allow, v.why = false, why
}

func (v *verdict) giveBack() {
	for i := range v.spent {
		v.spent[i].GiveBack()
	}
	v.spent = nil
}

func (d *Door) record(c *check, v verdict) audit.Record {
	r := audit.Record{
		ID: c.id, Kind: c.kind(), Time: c.now, Agent: c.caller.agent.ID(), Tool: c.call.subject(),
		Task: c.caller.task, Source: c.call.source, Args: c.args, Count: 1, Outcome: audit.Deny, Reason: v.why,
		Policies: v.decision.Policies, Revision: v.decision.Revision,
		Rev: d.cfg.Table.Rev().String(), LatencyUS: time.Since(c.began).Microseconds(),
	}
	if answers[v.why].status == 0 {
		r.Reason = grants.Undecided
	}
	if v.held {
		g := v.grant.Grant()
		r.Grant, r.Requester, r.Client = g.ID, g.Requester.ID(), g.Client
	} else {
		r.Grant = c.caller.named(c.call.subject())
		// One that is dead is in the table for a while, and who asked for it is what
		// is looked for first.
		if g, _ := d.cfg.Table.Grant(r.Grant); g != nil && g.Agent.ID() == c.caller.agent.ID() && g.Task == c.caller.task {
			r.Requester, r.Client = g.Requester.ID(), g.Client
		}
	}
	if v.allow {
		r.Outcome, r.Reason = audit.Allow, grants.None // the status is the tool's, and not known yet
		r.Note = audit.Note(c.call.through(), c.call.retries())
		return r
	}
	r.Status, r.Note = d.told(c, v).status, audit.Note(c.call.through(), c.call.retries(), c.call.notThere(), v.detail, facts(c, v))
	return r
}

// facts are what policy may have refused a call for, to who reads the record; ""
// where something else refused it.
func facts(c *check, v verdict) string {
	switch v.why {
	case grants.Policy, grants.PolicyError, grants.PolicyChanged, grants.NoGrant, grants.WrongTool:
	default:
		return ""
	}
	if !v.held {
		return audit.Facts{Groups: c.caller.agent.Groups}.String()
	}
	g := v.grant.Grant()
	return audit.Facts{Kind: v.grant.Task().Kind, TTL: int64(g.Expires.Sub(c.now) / time.Second), Groups: g.Agent.Groups}.String()
}

// argsText is the text of an input that its digest is taken of: RFC 8785, or,
// where a number has no such form (more digits than a double keeps), the same
// members in order with that number as it was written.
func argsText(input map[string]any) []byte {
	text, err := strictjson.Canonical(input)
	if err != nil {
		text, err = json.Marshal(input) // sorts names; a strictjson.Number is written as it was
	}
	if err != nil {
		return nil
	}
	return text
}

// kind is what was decided, as records have it: a call, or the action of an MCP
// method.
func (c *check) kind() string {
	if c.call.message != nil && c.call.message.Method.Name != mcp.ToolsCall {
		return c.call.message.Method.Action()
	}
	return audit.KindCall
}

// metadata goes to Envoy's access log, under envoy.filters.http.ext_authz.
func (d *Door) metadata(c *check, v verdict) *structpb.Struct {
	m := map[string]*structpb.Value{
		"decision_id": structpb.NewStringValue(c.id),
		"outcome":     structpb.NewStringValue("deny"),
		"reason":      structpb.NewStringValue(v.why.String()),
		"agent":       structpb.NewStringValue(c.caller.agent.ID()),
		"task":        structpb.NewStringValue(c.caller.task),
	}
	if v.allow {
		m["outcome"], m["reason"] = structpb.NewStringValue("allow"), structpb.NewStringValue("")
	}
	if subject := c.call.subject(); subject != "" {
		m["tool"] = structpb.NewStringValue(subject)
	}
	if v.held {
		m["grant"] = structpb.NewStringValue(v.grant.Grant().ID)
	} else if id := c.caller.named(c.call.subject()); id != "" {
		m["grant"] = structpb.NewStringValue(id)
	}
	return &structpb.Struct{Fields: m}
}
