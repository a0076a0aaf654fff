package cedar

import (
	"context"
	"fmt"
	"slices"
	"time"

	cedargo "github.com/cedar-policy/cedar-go"

	"github.com/toolgrant/toolgrant/grants"
)

// Decide answers a batch; it is a grants.Decider. The error is ctx's, and then
// nothing is decided.
//
// A Decision that does not allow says why: Policy (none permits, or one
// forbids; Policies are the forbidding ones, and Advice is what they tell),
// PolicyError (Policies are those that erred), Manifest (that of the task's kind
// does not cover the task or the grant; no policy was looked at), Unrepresentable
// (of Args, or of the task's Params), UnknownTool (or a Server that is no MCP
// server), or Undecided for an Input whose parts do not make a question: an
// action that is not known, a missing task or grant, parts that contradict each
// other.
func (s *Set) Decide(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
	out := make([]grants.Decision, len(in))
	for i := range in {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("deciding: %w", err)
		}
		out[i] = s.decide(&in[i])
	}
	return out, nil
}

func (s *Set) decide(in *grants.Input) grants.Decision {
	var q question
	if why := s.ask(in, &q); why != grants.None {
		return grants.Decision{Reason: why, Revision: s.revision}
	}
	return s.answer(&q)
}

// answer puts the question to policy.
func (s *Set) answer(q *question) grants.Decision {
	d := verdict(cedargo.Authorize(q.route, &q.entities, q.request))
	d.Advice, d.Revision = s.advice(d), s.revision
	return d
}

// verdict reads what Cedar says. A policy that erred was skipped, and nobody
// knows what it would have forbidden.
func verdict(decision cedargo.Decision, diag cedargo.Diagnostic) grants.Decision {
	var d grants.Decision
	switch {
	case len(diag.Errors) > 0:
		d.Reason = grants.PolicyError
		for _, e := range diag.Errors {
			d.Policies = append(d.Policies, string(e.PolicyID))
		}
	case decision == cedargo.Allow:
		d.Allow = true
	default:
		d.Reason = grants.Policy
	}
	if len(diag.Errors) == 0 {
		for _, r := range diag.Reasons {
			d.Policies = append(d.Policies, string(r.PolicyID))
		}
	}
	slices.Sort(d.Policies)
	return d
}

// question is an Input as Cedar sees it.
type question struct {
	route    route
	entities view
	request  cedargo.Request
}

// ask fills in the question, or says why policy is not asked. What a manifest does
// not cover is no question to policy.
func (s *Set) ask(in *grants.Input, q *question) grants.Reason {
	why := s.pose(in, q)
	// Parameters that policy cannot see are most likely those of another manifest.
	if (why == grants.None || why == grants.Unrepresentable) && s.uncovered(in) {
		return grants.Manifest
	}
	return why
}

// pose fills in the question without a look at manifests, or says why there is
// none.
func (s *Set) pose(in *grants.Input, q *question) grants.Reason {
	if !validAgent(&in.Principal) || !validAgent(&in.Requester) || in.At.IsZero() {
		return grants.Undecided
	}
	if in.Task != nil && !validAgent(&in.Task.Owner) {
		return grants.Undecided
	}
	q.entities.base = s.base
	q.request.Principal = q.entities.add(&in.Principal)
	context := cedargo.RecordMap{"requester": q.entities.add(&in.Requester)}

	var why grants.Reason
	switch in.Action {
	case grants.ActionStartTask, grants.ActionEndTask:
		why = s.askTask(in, q, context)
	case grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke:
		why = s.askGrant(in, q, context)
	case grants.ActionCall + in.Tool:
		why = s.askCall(in, q, context)
	default:
		why = grants.Undecided
		if m, known := s.methods[in.Action]; known {
			why = s.askMethod(m, in, q, context)
		}
	}
	q.request.Context = cedargo.NewRecord(context)
	return why
}

func (s *Set) askTask(in *grants.Input, q *question, context cedargo.RecordMap) grants.Reason {
	if in.Task == nil || in.Tool != "" || in.Grant != nil || in.Args != nil || hasMCP(in) {
		return grants.Undecided
	}
	q.request.Action = actionUID(in.Action)
	q.route = s.kindRoute(q.request.Action, in.Task.Kind)
	q.request.Resource = cedargo.NewEntityUID(kindType, cedargo.String(in.Task.Kind))
	task := cedargo.RecordMap{
		"id":    cedargo.String(in.Task.ID),
		"kind":  cedargo.String(in.Task.Kind),
		"owner": q.entities.add(&in.Task.Owner),
		"ttl":   secondsUp(in.Task.Deadline.Sub(in.At)),
	}
	if in.Action == grants.ActionStartTask && !s.addParams(in.Task, task) {
		return grants.Unrepresentable
	}
	context["task"] = cedargo.NewRecord(task)
	return grants.None
}

func (s *Set) askGrant(in *grants.Input, q *question, context cedargo.RecordMap) grants.Reason {
	t, known := s.tools[in.Tool]
	if !known {
		return grants.UnknownTool
	}
	if !coherent(in) || in.Args != nil || hasMCP(in) {
		return grants.Undecided
	}
	q.request.Action, q.request.Resource = actionUID(in.Action), t.uid
	q.route = t.route(q.request.Action)
	g := in.Grant
	if in.Action == grants.ActionAskFor {
		context["agent"] = q.entities.add(&g.Agent)
	}
	task := cedargo.RecordMap{
		"id":    cedargo.String(in.Task.ID),
		"kind":  cedargo.String(in.Task.Kind),
		"owner": q.entities.add(&in.Task.Owner),
	}
	if !s.addParams(in.Task, task) {
		return grants.Unrepresentable
	}
	context["task"] = cedargo.NewRecord(task)
	context["ttl"] = secondsUp(g.TTL())
	context["depth"] = cedargo.Long(g.Depth())
	context["bound"] = cedargo.Boolean(!g.CNF.IsZero())
	context["constrained"] = cedargo.Boolean(len(g.Constraints) > 0)
	context["once"] = cedargo.Boolean(!g.Once.IsZero())
	if calls, bounded := maxCalls(g.Budgets); bounded {
		context["max_calls"] = cedargo.Long(calls)
	}
	context["sums"] = sums(g.Budgets)
	return grants.None
}

func (s *Set) askCall(in *grants.Input, q *question, context cedargo.RecordMap) grants.Reason {
	t, known := s.tools[in.Tool]
	if !known {
		return grants.UnknownTool
	}
	switch {
	case !t.mcp && hasMCP(in), t.mcp && (in.Server != "" || !byMCP(in)):
		return grants.Undecided
	case t.mcp:
		addRevision(in, context)
	}
	q.request.Action, q.request.Resource = t.action, t.uid
	q.route = t.call
	if in.Grant != nil {
		if !coherent(in) {
			return grants.Undecided
		}
		if !s.addGrant(in, q, context) {
			return grants.Unrepresentable
		}
	}
	if in.Args != nil {
		var b builder
		input, ok := b.value(t.input, in.Args)
		if !ok {
			return grants.Unrepresentable
		}
		context["input"] = input
	}
	return grants.None
}

// addGrant tells policy of the grant under which something is asked; false if
// policy cannot see its task's parameters.
func (s *Set) addGrant(in *grants.Input, q *question, context cedargo.RecordMap) bool {
	g := in.Grant
	grant := cedargo.RecordMap{
		"id":    cedargo.String(g.ID),
		"task":  cedargo.String(g.Task),
		"kind":  cedargo.String(in.Task.Kind),
		"owner": q.entities.add(&in.Task.Owner),
		"ttl":   secondsDown(g.Expires.Sub(in.At)),
		"age":   secondsUp(in.At.Sub(g.NotBefore)),
		"depth": cedargo.Long(g.Depth()),
		"bound": cedargo.Boolean(!g.CNF.IsZero()),
	}
	ok := s.addParams(in.Task, grant)
	context["grant"] = cedargo.NewRecord(grant)
	return ok
}

// coherent reports whether the grant is one of the task, for the tool and of
// the principal: what the principal would act by or, with ask_for, what it asks
// for in another's name. Whoever may revoke may revoke anybody's.
func coherent(in *grants.Input) bool {
	if in.Task == nil || in.Grant == nil || in.Grant.Task != in.Task.ID || in.Grant.Tool != in.Tool {
		return false
	}
	agent, principal := &in.Grant.Agent, in.Principal.ID()
	switch in.Action {
	case grants.ActionRevoke:
		return true
	case grants.ActionAskFor:
		return validAgent(agent) && agent.ID() != principal &&
			in.Requester.ID() == principal && in.Grant.Requester.ID() == principal
	}
	return agent.ID() == principal
}

// maxCalls is the least of the budgets of calls, which is what binds.
func maxCalls(budgets []grants.Budget) (calls int64, bounded bool) {
	for _, b := range budgets {
		if b.Arg == "" && (!bounded || b.Limit < calls) {
			calls, bounded = b.Limit, true
		}
	}
	return calls, bounded
}

// sums is the set of arguments of which the budgets bound the sum.
func sums(budgets []grants.Budget) cedargo.Set {
	var args []cedargo.Value
	for _, b := range budgets {
		if b.Arg != "" {
			args = append(args, cedargo.String(b.Arg))
		}
	}
	return cedargo.NewSet(args...)
}

// Part of a second counts against the asker: what policies bound from above
// rounds up, what is left of a grant rounds down.

func secondsUp(d time.Duration) cedargo.Long {
	n := d / time.Second
	if d%time.Second > 0 {
		n++
	}
	return cedargo.Long(n)
}

func secondsDown(d time.Duration) cedargo.Long {
	n := d / time.Second
	if d%time.Second < 0 {
		n--
	}
	return cedargo.Long(n)
}
