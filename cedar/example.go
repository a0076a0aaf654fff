package cedar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	cedargo "github.com/cedar-policy/cedar-go"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// ExampleInput returns a question as DecideExample takes it: a JSON document
// with plausible values for all that policy can see of an action. The action is
// start_task, end_task, grant, ask_for, revoke or call; all but the first two
// are about a tool, SERVER/TOOL. The names in it are those of the set: a group
// that a policy permits to do it, and the first agent and kind of entities.json.
//
// Its members principal, action, resource and context are what Cedar's own
// command line takes for a request (cedar authorize --request-json), and
// entities what it takes for entities
// (https://docs.cedarpolicy.com/auth/entities-syntax.html).
func (s *Set) ExampleInput(action, toolID string) ([]byte, error) {
	in, err := s.exampleOf(action, toolID)
	if err != nil {
		return nil, fmt.Errorf("example input: %w", err)
	}
	var q question
	if why := s.ask(&in, &q); why != grants.None {
		return nil, fmt.Errorf("example input: %s: %s", in.Action, why)
	}
	return q.document()
}

// document writes the question as JSON.
func (q *question) document() ([]byte, error) {
	entities := cedargo.EntityMap{}
	for i := range q.entities.agents[:q.entities.n] {
		uid := q.entities.agents[i].uid
		entities[uid], _ = q.entities.Get(uid)
	}
	if e, known := q.entities.Get(q.request.Resource); known {
		entities[e.UID] = e
	}
	text, err := json.Marshal(struct {
		Principal string            `json:"principal"`
		Action    string            `json:"action"`
		Resource  string            `json:"resource"`
		Context   cedargo.Record    `json:"context"`
		Entities  cedargo.EntityMap `json:"entities"`
	}{q.request.Principal.String(), q.request.Action.String(), q.request.Resource.String(), q.request.Context, entities})
	if err != nil {
		return nil, fmt.Errorf("writing the input: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return nil, fmt.Errorf("writing the input: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// exampleOf makes up a question in which nothing that policy can see is absent.
func (s *Set) exampleOf(action, toolID string) (grants.Input, error) {
	at := time.Unix(0, 0)
	task := &grants.Task{ID: grants.TaskPrefix + strings.Repeat("a", 26), Kind: s.exampleKind(), Deadline: at.Add(time.Hour)}
	in := grants.Input{Action: action, Task: task, At: at}
	start := s.kindRoute(actionUID(grants.ActionStartTask), task.Kind)
	if action == grants.ActionStartTask || action == grants.ActionEndTask {
		if toolID != "" {
			return in, fmt.Errorf("%s is about a kind of task, not about the tool %s", action, toolID)
		}
		task.Owner = s.cast("orchestrator-1", s.kindRoute(actionUID(action), task.Kind), start)
		in.Principal, in.Requester = task.Owner, task.Owner
		return in, nil
	}

	callAction := strings.TrimSuffix(grants.ActionCall, ":")
	actions := []string{grants.ActionStartTask, grants.ActionEndTask, grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke, callAction}
	if !slices.Contains(actions, action) {
		return in, fmt.Errorf("no action %q%s", action, suggest(action, slices.Values(actions)))
	}
	t, known := s.catalog.Tool(toolID)
	if !known {
		return in, fmt.Errorf("%s is about a tool, and %q is none of the catalogue%s", action, toolID, suggest(toolID, names(s.tools)))
	}
	routes := s.tools[t.ID]
	agent := s.cast("agent-1", routes.grant, routes.call)
	agent.Tags = map[string]string{"team": "build"}
	asks := start
	switch action {
	case grants.ActionAskFor, grants.ActionRevoke:
		asks = routes.route(actionUID(action))
	}
	orchestrator := s.cast("orchestrator-1", asks, start)
	if agent.ID() == orchestrator.ID() { // who asks for itself does not "ask_for"
		agent.Subject += "-2"
	}
	task.Owner, task.Agents = orchestrator, []string{agent.ID()}
	in.Principal, in.Requester, in.Tool = orchestrator, orchestrator, t.ID
	in.Grant = &grants.Grant{
		ID: grants.GrantPrefix + strings.Repeat("b", 26), Task: task.ID, Agent: agent, Requester: orchestrator, Tool: t.ID,
		NotBefore: at.Add(-time.Minute), Expires: at.Add(4 * time.Minute),
		Budgets: []grants.Budget{{Key: grants.TaskBudget(task.ID, t.ID, ""), Limit: 10}},
	}
	sums := map[string]bool{}
	s.inputs[t.ID].sums("", sums)
	if args := slices.Sorted(names(sums)); len(args) > 0 {
		in.Grant.Budgets = append(in.Grant.Budgets, grants.Budget{Key: grants.TaskBudget(task.ID, t.ID, args[0]), Arg: args[0], Limit: 1})
	}
	switch action {
	case grants.ActionGrant:
		in.Principal = agent
	case callAction:
		in.Action, in.Principal, in.Requester = grants.ActionCall+t.ID, agent, agent
		in.Args = exampleArg(t.Input())
	}
	return in, nil
}

// exampleArg makes up an argument of the schema, as strictjson would give it.
func exampleArg(s *catalog.Schema) any {
	switch s.Type {
	case "integer":
		return strictjson.Number("7")
	case "number":
		return strictjson.Number("12.5")
	case "boolean":
		return true
	case "array":
		return []any{exampleArg(s.Items)}
	case "object":
		object := map[string]any{}
		for name, p := range s.Properties {
			object[name] = exampleArg(p)
		}
		return object
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	return "text"
}
