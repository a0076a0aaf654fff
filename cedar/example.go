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
// are about a tool, SERVER/TOOL.
//
// Its members principal, action, resource and context are what Cedar's own
// command line takes for a request (cedar authorize --request-json), and
// entities what it takes for entities
// (https://docs.cedarpolicy.com/auth/entities-syntax.html).
func ExampleInput(c *catalog.Catalog, action, toolID string) ([]byte, error) {
	in, err := exampleOf(c, action, toolID)
	if err != nil {
		return nil, fmt.Errorf("example input: %w", err)
	}
	w, err := newWorld(c)
	if err != nil {
		return nil, fmt.Errorf("example input: %w", err)
	}
	var q question
	if why := newSet(nil, w).ask(&in, &q); why != grants.None {
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
func exampleOf(c *catalog.Catalog, action, toolID string) (grants.Input, error) {
	agent := grants.Principal{Issuer: "corp", Subject: "ci-1", Groups: []string{"ci"}, Tags: map[string]string{"team": "build"}}
	orchestrator := grants.Principal{Issuer: "corp", Subject: "release-bot", Groups: []string{"orchestrators"}}
	at := time.Unix(0, 0)
	task := &grants.Task{
		ID: grants.TaskPrefix + strings.Repeat("a", 26), Kind: "release", Owner: orchestrator,
		Agents: []string{agent.ID()}, Deadline: at.Add(time.Hour),
	}
	in := grants.Input{Action: action, Requester: orchestrator, Principal: orchestrator, Task: task, At: at}
	if action == grants.ActionStartTask || action == grants.ActionEndTask {
		if toolID != "" {
			return in, fmt.Errorf("%s is about a kind of task, not about the tool %s", action, toolID)
		}
		return in, nil
	}

	callAction := strings.TrimSuffix(grants.ActionCall, ":")
	actions := []string{grants.ActionStartTask, grants.ActionEndTask, grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke, callAction}
	if !slices.Contains(actions, action) {
		return in, fmt.Errorf("no action %q%s", action, suggest(action, slices.Values(actions)))
	}
	t, known := c.Tool(toolID)
	if !known {
		var all []string
		for i := range c.Servers {
			for _, t := range c.Servers[i].Tools {
				all = append(all, t.ID)
			}
		}
		return in, fmt.Errorf("%s is about a tool, and %q is none of the catalogue%s", action, toolID, suggest(toolID, slices.Values(all)))
	}
	in.Tool = t.ID
	in.Grant = &grants.Grant{
		ID: grants.GrantPrefix + strings.Repeat("b", 26), Task: task.ID, Agent: agent, Requester: orchestrator, Tool: t.ID,
		NotBefore: at.Add(-time.Minute), Expires: at.Add(4 * time.Minute),
		Budgets: []grants.Budget{{Key: grants.TaskBudget(task.ID, t.ID, ""), Limit: 10}},
	}
	switch action {
	case grants.ActionGrant:
		in.Principal = agent
	case callAction:
		in.Action, in.Principal, in.Requester = grants.ActionCall+t.ID, agent, agent
		in.Args = exampleArg(t.Input())
	}
	return in, exampleSum(c, in.Grant)
}

// exampleSum adds a budget over the tool's first number, if it has one.
func exampleSum(c *catalog.Catalog, g *grants.Grant) error {
	inputs, err := shapes(c)
	if err != nil {
		return err
	}
	sums := map[string]bool{}
	inputs[g.Tool].sums("", sums)
	if args := slices.Sorted(names(sums)); len(args) > 0 {
		g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(g.Task, g.Tool, args[0]), Arg: args[0], Limit: 1})
	}
	return nil
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
