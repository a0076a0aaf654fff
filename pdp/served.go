package pdp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Bounds of what a question may say, far past what any grant has.
const (
	maxSeconds = 10 * 366 * 24 * 60 * 60
	maxChain   = 64 // delegations
)

// served is an Access Evaluation request as it comes. What is not in it is
// ignored, as AuthZEN has it ("JSON Serialization").
type served struct {
	Subject  *servedEntity  `json:"subject"`
	Action   *servedAction  `json:"action"`
	Resource *servedEntity  `json:"resource"`
	Context  jsontext.Value `json:"context"`
}

type servedEntity struct {
	Type       *string        `json:"type"`
	ID         *string        `json:"id"`
	Properties jsontext.Value `json:"properties"`
}

type servedAction struct {
	Name       *string        `json:"name"`
	Properties jsontext.Value `json:"properties"`
}

// check wants all that AuthZEN requires. The error is for who asks.
func (e *served) check() error {
	switch {
	case e.Subject == nil || e.Subject.Type == nil || e.Subject.ID == nil:
		return errors.New("subject, with type and id, is required")
	case e.Action == nil || e.Action.Name == nil:
		return errors.New("action, with name, is required")
	case e.Resource == nil || e.Resource.Type == nil || e.Resource.ID == nil:
		return errors.New("resource, with type and id, is required")
	}
	for _, object := range []jsontext.Value{e.Subject.Properties, e.Action.Properties, e.Resource.Properties, e.Context} {
		if object != nil && !bytes.HasPrefix(bytes.TrimSpace(object), []byte("{")) {
			return errors.New("properties and context must be objects")
		}
	}
	return nil
}

// input reads an evaluation as the question that it is of ours: evaluation
// backwards. What an agent's groups are, what a grant has and how long it lasts
// are believed, because who asks is a PEP that has proved who it is. The error
// says why it is no question; whether its parts fit together is the Decider's to
// check.
func (e *served) input(at time.Time) (grants.Input, error) {
	var c ctxPart
	if err := decode(e.Context, &c); err != nil {
		return grants.Input{}, fmt.Errorf("context: %w", err)
	}
	in := grants.Input{Action: *e.Action.Name, Revision: c.Revision, At: at}
	if *e.Subject.Type != agentType {
		return in, fmt.Errorf("subject: only the type %q is known", agentType)
	}
	self := agent{ID: *e.Subject.ID}
	if err := decode(e.Subject.Properties, &self); err != nil {
		return in, fmt.Errorf("subject: properties: %w", err)
	}
	if self.ID != *e.Subject.ID {
		return in, errors.New("subject: properties have another id")
	}
	var err error
	if in.Principal, err = self.principal(); err != nil {
		return in, fmt.Errorf("subject: %w", err)
	}
	in.Requester = in.Principal
	if c.Requester != nil {
		if in.Requester, err = c.Requester.principal(); err != nil {
			return in, fmt.Errorf("context: requester: %w", err)
		}
	}
	if c.Retry != nil {
		in.Retry = &grants.Retry{Responses: c.Retry.Responses, State: c.Retry.State}
	}
	if c.Input != nil {
		args, err := strictjson.Parse(c.Input, strictjson.Limits{})
		if err != nil {
			return in, fmt.Errorf("context: input: %w", err)
		}
		if _, object := args.(map[string]any); !object {
			return in, errors.New("context: input: must be an object")
		}
		in.Args = args
	}
	if c.Task != nil {
		if in.Task, err = c.Task.task(at); err != nil {
			return in, fmt.Errorf("context: task: %w", err)
		}
	}
	switch id := *e.Resource.ID; *e.Resource.Type {
	case toolType:
		in.Tool = id
	case serverType:
		in.Server = id
	case kindType:
		if in.Task == nil || in.Task.Kind != id {
			return in, errors.New("context: task: must be there, and of the kind that is the resource")
		}
	default:
		return in, fmt.Errorf("resource: the types that are known are %s, %s and %s", toolType, serverType, kindType)
	}
	if c.Grant != nil {
		if in.Grant, err = c.Grant.grant(&in); err != nil {
			return in, fmt.Errorf("context: grant: %w", err)
		}
	}
	return in, nil
}

// decode reads an object, or nothing.
func decode(text jsontext.Value, into any) error {
	if text == nil {
		return nil
	}
	return strictjson.UnmarshalOpen(text, strictjson.Limits{}, into)
}

// principal splits the id, ALIAS/SUBJECT; what else names the agent must say the
// same.
func (a *agent) principal() (grants.Principal, error) {
	issuer, subject, _ := strings.Cut(a.ID, "/")
	p := grants.Principal{Issuer: issuer, Subject: subject, Tags: a.Tags}
	if !validAgent(&p) {
		return p, errors.New("an agent's id is ALIAS/SUBJECT")
	}
	if a.Issuer != "" && a.Issuer != issuer || a.Subject != "" && a.Subject != subject {
		return p, errors.New("issuer and subject are not those of the id")
	}
	p.Groups = slices.Sorted(slices.Values(a.Groups))
	p.Groups = slices.Compact(p.Groups)
	return p, nil
}

func (t *taskPart) task(at time.Time) (*grants.Task, error) {
	owner, err := t.Owner.principal()
	if err != nil {
		return nil, fmt.Errorf("owner: %w", err)
	}
	out := &grants.Task{ID: t.ID, Kind: t.Kind, Owner: owner, Deadline: at}
	if t.TTL != nil {
		ttl, ok := seconds(*t.TTL)
		if !ok {
			return nil, errors.New("ttl: out of bounds")
		}
		out.Deadline = at.Add(ttl)
	}
	if t.Params != nil {
		params, err := strictjson.Parse(t.Params, strictjson.Limits{})
		if err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		if _, object := params.(map[string]any); !object {
			return nil, errors.New("params: must be an object")
		}
		text, err := strictjson.Canonical(params)
		if err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		out.Params = text
	}
	return out, nil
}

// grant is a grant of which all is so that policy can see; what it cannot, such
// as a key, only is or is not there.
func (g *grantPart) grant(in *grants.Input) (*grants.Grant, error) {
	holder, err := g.Agent.principal()
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	ttl, ok := seconds(g.TTL)
	if !ok || g.Depth < 0 || g.Depth > maxChain || len(g.Budgets) > grants.MaxBudgets || len(g.Sums) > grants.MaxBudgets || len(g.Constraints) > grants.MaxConstraints {
		return nil, errors.New("ttl, depth, budgets or constraints: out of bounds")
	}
	out := &grants.Grant{
		ID: g.ID, Agent: holder, Requester: in.Requester, Tool: cmp.Or(g.Tool, in.Tool), Actors: make([]string, g.Depth),
		NotBefore: in.At, Expires: in.At.Add(ttl),
	}
	if in.Task != nil {
		out.Task = in.Task.ID
	}
	if g.Age != nil {
		age, ok := seconds(*g.Age)
		if !ok || in.Action == grants.ActionGrant || in.Action == grants.ActionAskFor || in.Action == grants.ActionRevoke {
			return nil, errors.New("age: out of bounds, or of a grant that nothing is asked under")
		}
		out.NotBefore = in.At.Add(-age)
	}
	if g.Bound {
		out.CNF = grants.Digest{1}
	}
	if g.Once {
		out.Once = grants.Digest{1}
	}
	g.addTerms(out)
	return out, nil
}

// addTerms adds budgets and constraints. A PEP that is not one of ours may say no
// more of them than policy compares: how many calls, which sums, whether any.
func (g *grantPart) addTerms(out *grants.Grant) {
	for _, b := range g.Budgets {
		key := grants.GrantBudget(out.ID, b.Argument)
		if b.Of == ofTask {
			key = grants.TaskBudget(out.Task, out.Tool, b.Argument)
		}
		out.Budgets = append(out.Budgets, grants.Budget{Key: key, Arg: b.Argument, Limit: b.Limit})
	}
	if len(g.Budgets) == 0 {
		if g.MaxCalls != nil {
			out.Budgets = append(out.Budgets, grants.Budget{Key: grants.GrantBudget(out.ID, ""), Limit: *g.MaxCalls})
		}
		for _, arg := range g.Sums {
			out.Budgets = append(out.Budgets, grants.Budget{Key: grants.GrantBudget(out.ID, arg), Arg: arg})
		}
	}
	for _, c := range g.Constraints {
		out.Constraints = append(out.Constraints, []byte(c))
	}
	if g.Constrained && len(g.Constraints) == 0 {
		out.Constraints = []json.RawMessage{json.RawMessage(`{}`)} // by something
	}
}

func seconds(n int64) (time.Duration, bool) {
	return time.Duration(n) * time.Second, n >= -maxSeconds && n <= maxSeconds
}
