package cedar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
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
// start_task, end_task, grant, ask_for, revoke, call or one of those about MCP
// servers (mcp:resources/read). The id is that of the tool, SERVER/TOOL, or of the
// MCP server, that it is about; start_task and end_task have none. The names in it
// are those of the set: a group that a policy permits to do it, the first agent of
// entities.json, and a kind whose manifest has parameters or else the first of
// entities.json.
//
// Its members principal, action, resource and context are what Cedar's own
// command line takes for a request (cedar authorize --request-json), and
// entities what it takes for entities
// (https://docs.cedarpolicy.com/auth/entities-syntax.html).
func (s *Set) ExampleInput(action, id string) ([]byte, error) {
	in, err := s.exampleOf(action, id)
	if err != nil {
		return nil, fmt.Errorf("example input: %w", err)
	}
	var q question
	if why := s.pose(&in, &q); why != grants.None {
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
func (s *Set) exampleOf(action, id string) (grants.Input, error) {
	at := time.Unix(0, 0)
	tool := id
	if server, known := s.catalog.ServerByID(id); known && len(server.Tools) > 0 {
		tool = server.Tools[0].ID // of the grant, see exampleMethod
	}
	task := &grants.Task{ID: grants.TaskPrefix + strings.Repeat("a", 26), Kind: s.exampleKind(tool), Deadline: at.Add(time.Hour)}
	in := grants.Input{Action: action, Task: task, At: at}
	var err error
	if task.Params, err = s.exampleParams(task.Kind); err != nil {
		return in, fmt.Errorf("parameters of the kind %q: %w", task.Kind, err)
	}
	start := s.kindRoute(actionUID(grants.ActionStartTask), task.Kind)
	if action == grants.ActionStartTask || action == grants.ActionEndTask {
		if id != "" {
			return in, fmt.Errorf("%s is about a kind of task, not about the tool or server %s", action, id)
		}
		task.Owner = s.cast("orchestrator-1", s.kindRoute(actionUID(action), task.Kind), start)
		in.Principal, in.Requester = task.Owner, task.Owner
		return in, nil
	}
	if m := s.methods[action]; m != nil {
		return in, s.exampleMethod(m, id, start, &in)
	}

	callAction := strings.TrimSuffix(grants.ActionCall, ":")
	actions := []string{grants.ActionStartTask, grants.ActionEndTask, grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke, callAction}
	if !slices.Contains(actions, action) {
		known := slices.AppendSeq(actions, maps.Keys(s.methods))
		return in, fmt.Errorf("no action %q%s", action, suggest(action, slices.Values(known)))
	}
	t, known := s.catalog.Tool(id)
	if !known {
		return in, fmt.Errorf("%s is about a tool, and %q is none of the catalogue%s", action, id, suggest(id, names(s.tools)))
	}
	routes := s.tools[t.ID]
	asks := start
	switch action {
	case grants.ActionAskFor, grants.ActionRevoke:
		asks = routes.route(actionUID(action))
	}
	agent := s.exampleAgent(routes.grant, routes.call)
	owner := s.exampleOwner(&agent, asks, start)
	s.exampleGrant(&in, t, agent, owner)
	switch action {
	case grants.ActionGrant:
		in.Principal = agent
	case callAction:
		in.Action, in.Principal, in.Requester = grants.ActionCall+t.ID, agent, agent
		in.Args = exampleArg(t.Input())
		if of := t.Server.MCP; of != nil {
			in.Revision = of.Revisions[len(of.Revisions)-1]
			in.Retry = exampleRetry(in.Revision)
		}
	}
	return in, nil
}

// exampleMethod makes up what is asked of an MCP server, under a grant if one can
// cover it.
func (s *Set) exampleMethod(m *method, id string, start route, in *grants.Input) error {
	to, known := s.servers[id]
	if !known {
		return fmt.Errorf("%s is about an MCP server, and %q is none of the catalogue%s", in.Action, id, suggest(id, names(s.servers)))
	}
	server, _ := s.catalog.ServerByID(id)
	if in.Revision, known = revisionFor(server, m.Method); !known {
		return fmt.Errorf("%s: the server %s speaks no revision of MCP that has it", in.Action, id)
	}
	agent := s.exampleAgent(to.routes[in.Action])
	if m.Grant && len(server.Tools) > 0 {
		owner := s.exampleOwner(&agent, start)
		s.exampleGrant(in, server.Tools[0], agent, owner)
	} else {
		in.Task = nil
	}
	in.Tool, in.Server, in.Principal, in.Requester = "", id, agent, agent
	in.Args = exampleArg(m.schema)
	if m.Retry {
		in.Retry = exampleRetry(in.Revision)
	}
	return nil
}

func (s *Set) exampleAgent(routes ...route) grants.Principal {
	agent := s.cast("agent-1", routes...)
	agent.Tags = map[string]string{"team": "build"}
	return agent
}

// exampleOwner finds who owns the task: another than the agent, who gets another
// name if need be.
func (s *Set) exampleOwner(agent *grants.Principal, routes ...route) grants.Principal {
	owner := s.cast("orchestrator-1", routes...)
	if agent.ID() == owner.ID() { // who asks for itself does not "ask_for"
		agent.Subject += "-2"
	}
	return owner
}

// exampleGrant adds a grant for the tool, which the owner of the task asks for.
func (s *Set) exampleGrant(in *grants.Input, t *catalog.Tool, agent, owner grants.Principal) {
	task := in.Task
	task.Owner, task.Agents = owner, []string{agent.ID()}
	in.Principal, in.Requester, in.Tool = owner, owner, t.ID
	in.Grant = &grants.Grant{
		ID: grants.GrantPrefix + strings.Repeat("b", 26), Task: task.ID, Agent: agent, Requester: owner, Tool: t.ID,
		NotBefore: in.At.Add(-time.Minute), Expires: in.At.Add(4 * time.Minute),
		Budgets: []grants.Budget{{Key: grants.TaskBudget(task.ID, t.ID, ""), Limit: 10}},
	}
	sums := map[string]bool{}
	s.inputs[t.ID].sums("", sums)
	if args := slices.Sorted(names(sums)); len(args) > 0 {
		in.Grant.Budgets = append(in.Grant.Budgets, grants.Budget{Key: grants.TaskBudget(task.ID, t.ID, args[0]), Arg: args[0], Limit: 1})
	}
}

// exampleRetry makes up what a client answers to a question of the server's
// (MCP 2026-07-28, "Multi Round-Trip Requests"), where the revision has that.
func exampleRetry(revision string) *grants.Retry {
	if !hasRetries(revision) {
		return nil
	}
	return &grants.Retry{Responses: `{"confirm":{"action":"accept","content":{"sure":true}}}`, State: true}
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
