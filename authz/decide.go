package authz

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

// tryGrant judges the call by one grant.
func (d *Door) tryGrant(ctx context.Context, c *check, id grants.ID) verdict {
	live, why := d.cfg.Table.Lookup(id)
	if why != grants.None {
		return deny(why)
	}
	v := verdict{rests: []grants.Live{live}}
	v.hold(live)
	if v.why, v.detail = d.matchesTool(c, live, c.call.at.tool.ID); v.why != grants.None {
		return v
	}
	for _, con := range live.Constraints() {
		if err := con.Check(c.call.at.input); err != nil {
			v.why, v.detail = grants.ConstraintBroken, err.Error()
			return v
		}
	}
	if v.detail = d.onlyOnce(c, live.Grant()); v.detail != "" {
		v.why = grants.ConstraintBroken
		return v
	}
	if c.call.retry() != nil && d.keeps(live.Grant()) {
		v.why, v.detail = grants.ConstraintBroken, answersPastConstraints
		return v
	}
	if v.decision, v.why = d.decide(ctx, c, c.question(&live)); v.why != grants.None {
		v.detail = mend(c, v.why)
		return v
	}
	spent, why, err := d.cfg.Table.Spend(ctx, live, c.call.at.input)
	if err != nil {
		d.cfg.Logger.Warn("drawing a budget", zap.String("decision", c.id), zap.Error(err))
	}
	v.why, v.spent = why, []grants.Spent{spent}
	if v.allow = err == nil && why == grants.None; !v.allow && spent.Refused != nil {
		v.detail = uncovered(why, spent.Refused.Arg)
	}
	return v
}

// onlyOnce holds a call against a one-time grant: its input must be the one that
// the grant was asked for, but for what the catalogue leaves out. It gives what
// is wrong; "": nothing.
func (d *Door) onlyOnce(c *check, g *grants.Grant) string {
	if g.Once.IsZero() {
		return ""
	}
	digest, err := grants.OnceDigest(c.call.at.input, c.call.at.tool.Volatile)
	if err != nil || digest != g.Once {
		return "the arguments are not those that the one-time grant was asked for"
	}
	return ""
}

// mend says what to mend after a refusal by policy; "": the reason's own words.
func mend(c *check, why grants.Reason) string {
	if why == grants.Unrepresentable {
		return unseen(c.call.at)
	}
	return ""
}

// uncovered says which budget did not cover a call: of calls, or over arg.
func uncovered(why grants.Reason, arg string) string {
	switch {
	case why == grants.ConstraintBroken:
		return strconv.Quote(arg) + " is counted against a budget: send a number, 0 or more, with at most 4 decimals"
	case why != grants.BudgetSpent:
		return ""
	case arg == "":
		return "the grant's budget of calls does not cover this call: none is left"
	}
	return "what is left of the grant's budget over " + strconv.Quote(arg) + " does not cover this call: less may"
}

// matchesTool compares the signed token, the sender and the catalogue with the
// grant in the table: a perfectly signed token is not enough.
func (d *Door) matchesTool(c *check, live grants.Live, tool string) (grants.Reason, string) {
	g := live.Grant()
	t, known := d.cfg.Catalog.Tool(tool)
	switch {
	case !c.caller.names(live):
		return grants.BadCredential, ""
	case !known || g.Tool != tool:
		return grants.WrongTool, ""
	case !g.Pin.IsZero() && g.Pin != grants.Digest(t.Digest):
		return grants.ToolChanged, ""
	case !g.CNF.IsZero():
		return grants.UnboundToken, "the grant is bound to a key, and this door cannot verify the proof"
	case !c.call.peer.sentBy(g.Agent):
		return grants.NoGrant, othersCertificate
	}
	return grants.None, ""
}

// othersCertificate: a grant of one agent is none of another's (403, as any
// other call without a grant), however good its token is.
const othersCertificate = "the client certificate names another agent than the token"

// question is what policy is asked of what is asked now, inside the grant; nil:
// without one.
func (c *check) question(live *grants.Live) grants.Input {
	in := grants.Input{
		Action: c.call.at.action, Requester: c.caller.agent, Principal: c.caller.agent,
		Args: c.call.at.input, At: c.now,
	}
	if c.call.at.tool != nil {
		in.Tool = c.call.at.tool.ID
	} else {
		in.Server = c.call.server.ID
	}
	if m := c.call.message; m != nil {
		in.Revision, in.Retry = m.Revision, c.call.retry()
	}
	if live != nil {
		in.Grant, in.Task = live.Grant(), live.Task()
		in.Requester, in.Principal = in.Grant.Agent, in.Grant.Agent
	}
	return in
}

// decide asks policy and, if the grant in the question was permitted by an older
// policy revision, about the grant once more: both from one revision.
func (d *Door) decide(ctx context.Context, c *check, in grants.Input) (grants.Decision, grants.Reason) {
	ds, why := d.ask(ctx, c, in)
	if why == grants.None && in.Grant != nil && ds[0].Revision != in.Grant.Policy {
		if ds, why = d.ask(ctx, c, append(in.Grant.Asks(in.Task, c.now), in)...); why == grants.None {
			last := len(ds) - 1
			if no, changed := objections(ds[:last]); changed {
				return no, grants.PolicyChanged
			}
			ds = ds[last:]
		}
	}
	if why != grants.None {
		return grants.Decision{}, why
	}
	return ds[0], ds[0].Refusal()
}

// objections are the decisions that say no, as one: what permits the rest is not
// among its policies.
func objections(ds []grants.Decision) (no grants.Decision, any bool) {
	for _, dec := range ds {
		if dec.Refusal() != grants.None {
			no.Policies, no.Revision, any = append(no.Policies, dec.Policies...), dec.Revision, true
			no.Advice = cmp.Or(no.Advice, dec.Advice)
		}
	}
	slices.Sort(no.Policies)
	no.Policies = slices.Compact(no.Policies)
	return no, any
}

// baseline decides a call that no grant stands behind.
func (d *Door) baseline(ctx context.Context, c *check) verdict {
	v := d.name(c)
	if v.why != grants.None {
		return v
	}
	v.decision, v.why = d.decide(ctx, c, c.question(nil))
	v.detail = mend(c, v.why)
	v.why = c.missing(v)
	v.allow = v.why == grants.None
	return v
}

// name finds out who the agent of a credential is that holds no grant for what is
// asked. A grant token names its agent only while one of its grants lives, and
// that grant says who the agent was: a signature alone proves nothing here. The
// verdict rests on it, and has its Reason where nobody is named.
func (d *Door) name(c *check) verdict {
	last := len(c.caller.grants) - 1
	for i, det := range c.caller.grants {
		live, why := d.cfg.Table.Lookup(det.GrantID)
		if why == grants.None && c.caller.names(live) {
			if !c.call.peer.sentBy(live.Grant().Agent) {
				return verdict{why: grants.NoGrant, detail: othersCertificate}
			}
			c.caller.agent = live.Grant().Agent
			return verdict{rests: []grants.Live{live}}
		}
		if i == last {
			return deny(cmp.Or(why, grants.BadCredential))
		}
	}
	return verdict{}
}

// lacking are the tools for which a grant is missing, when the i-th thing that is
// asked was refused for that: an OAuth client has to ask for all of them, and for
// none that it need not have (RFC 6750, Section 3.1; MCP, "Scope Challenge").
func (d *Door) lacking(ctx context.Context, c *check, i int, v verdict) []string {
	if answers[v.why].challenge != insufficientScope || c.call.at.tool == nil {
		return nil
	}
	all := []string{c.call.at.tool.ID}
	refused := c.call.at
	for j := range c.call.asks[i+1:] {
		c.call.at = &c.call.asks[i+1+j]
		id := c.call.at.tool.ID
		if slices.Contains(all, id) || slices.ContainsFunc(c.caller.grantsFor(id), func(g grants.ID) bool {
			_, why := d.cfg.Table.Lookup(g)
			return why == grants.None
		}) {
			continue
		}
		if dec, err := d.ask(ctx, c, c.question(nil)); err != grants.None || dec[0].Refusal() != grants.None {
			all = append(all, id)
		}
	}
	c.call.at = refused
	return all
}

// missing is why a verdict without a grant denies: where nothing permits what is
// asked, it is a grant that is missing.
func (c *check) missing(v verdict) grants.Reason {
	switch {
	case v.why != grants.Policy || len(v.decision.Policies) > 0:
		return v.why
	case c.call.at.tool != nil && len(c.caller.grants) > 0:
		return grants.WrongTool
	}
	return grants.NoGrant
}

// ask puts questions to policy; whatever is not one full answer each is
// Undecided.
func (d *Door) ask(ctx context.Context, c *check, in ...grants.Input) ([]grants.Decision, grants.Reason) {
	ds, err := d.cfg.Decide(ctx, in)
	if err == nil && len(ds) != len(in) {
		err = fmt.Errorf("%d decisions for %d questions", len(ds), len(in))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		d.cfg.Logger.Error("deciding a call", zap.String("decision", c.id), zap.Error(err))
		return nil, grants.Undecided
	}
	if d.cfg.Asked != nil {
		d.cfg.Asked(c.id, in, ds)
	}
	return ds, grants.None
}
