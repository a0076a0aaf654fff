package pdp

import (
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// document is a grants.Input as an engine sees it; the package comment says what
// the members are.
type document struct {
	Action    string         `json:"action"`
	Requester agent          `json:"requester"`
	Principal agent          `json:"principal"`
	Tool      *toolPart      `json:"tool,omitempty"`
	Server    string         `json:"server,omitempty"`
	Task      *taskPart      `json:"task,omitempty"`
	Grant     *grantPart     `json:"grant,omitempty"`
	Input     jsontext.Value `json:"input,omitzero"`
	Revision  string         `json:"revision,omitempty"`
	Retry     *retryPart     `json:"retry,omitempty"`
}

type agent struct {
	ID      string            `json:"id"`
	Issuer  string            `json:"issuer"`
	Subject string            `json:"subject"`
	Groups  []string          `json:"groups"`
	Tags    map[string]string `json:"tags"`
}

type toolPart struct {
	ID     string   `json:"id"`
	Server string   `json:"server"`
	Sets   []string `json:"sets"`
}

type taskPart struct {
	ID     string         `json:"id"`
	Kind   string         `json:"kind"`
	Owner  agent          `json:"owner"`
	Params jsontext.Value `json:"params,omitzero"`
	TTL    *int64         `json:"ttl,omitempty"`
}

type grantPart struct {
	ID          string           `json:"id,omitempty"`
	Agent       agent            `json:"agent"`
	Tool        string           `json:"tool"`
	TTL         int64            `json:"ttl"`
	Age         *int64           `json:"age,omitempty"`
	Depth       int              `json:"depth"`
	Bound       bool             `json:"bound"`
	MaxCalls    *int64           `json:"max_calls,omitempty"`
	Sums        []string         `json:"sums"`
	Constrained bool             `json:"constrained"`
	Once        bool             `json:"once"`
	Budgets     []budgetPart     `json:"budgets"`
	Constraints []jsontext.Value `json:"constraints"`
}

type budgetPart struct {
	Of       string `json:"of"` // ofTask or ofGrant
	Argument string `json:"argument,omitempty"`
	Limit    int64  `json:"limit"`
}

// Whose calls a budget counts: all of the task's for the tool, or the grant's and
// those of the grants that it renews.
const (
	ofTask  = "task"
	ofGrant = "grant"
)

type retryPart struct {
	Responses string `json:"responses"`
	State     bool   `json:"state"`
}

// maxSafe is 2^53-1: an integer beyond it is not kept by every reader of JSON.
const maxSafe = 1<<53 - 1

// newDocument reads an Input. The Reason is None, or why there is no document:
// UnknownTool, Unrepresentable, or Undecided where the parts of the Input do not
// make a question.
func newDocument(c *catalog.Catalog, in *grants.Input) (*document, grants.Reason) {
	if !validAgent(&in.Principal) || !validAgent(&in.Requester) || in.At.IsZero() {
		return nil, grants.Undecided
	}
	if in.Task != nil && !validAgent(&in.Task.Owner) {
		return nil, grants.Undecided
	}
	d := &document{Action: in.Action, Requester: newAgent(&in.Requester), Principal: newAgent(&in.Principal)}
	var why grants.Reason
	switch in.Action {
	case grants.ActionStartTask, grants.ActionEndTask:
		why = d.ofTask(in)
	case grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke:
		why = d.ofGrant(c, in)
	case grants.ActionCall + in.Tool:
		why = d.ofCall(c, in)
	default:
		why = d.ofMethod(c, in)
	}
	if why != grants.None {
		return nil, why
	}
	return d, grants.None
}

func (d *document) ofTask(in *grants.Input) grants.Reason {
	if in.Task == nil || in.Tool != "" || in.Grant != nil || in.Args != nil || hasMCP(in) {
		return grants.Undecided
	}
	d.Task = newTask(in.Task)
	ttl := secondsUp(in.Task.Deadline.Sub(in.At))
	d.Task.TTL = &ttl
	return grants.None
}

func (d *document) ofGrant(c *catalog.Catalog, in *grants.Input) grants.Reason {
	t, known := c.Tool(in.Tool)
	if !known {
		return grants.UnknownTool
	}
	if !coherent(in) || in.Args != nil || hasMCP(in) {
		return grants.Undecided
	}
	d.Tool, d.Task = newTool(t), newTask(in.Task)
	return d.addGrant(in.Grant, secondsUp(in.Grant.TTL()))
}

func (d *document) ofCall(c *catalog.Catalog, in *grants.Input) grants.Reason {
	t, known := c.Tool(in.Tool)
	if !known {
		return grants.UnknownTool
	}
	if isMCP := t.Server.MCP != nil; !isMCP && hasMCP(in) || isMCP && (in.Server != "" || !byMCP(in)) {
		return grants.Undecided
	}
	d.Tool = newTool(t)
	d.addMessage(in)
	if in.Grant != nil {
		if !coherent(in) {
			return grants.Undecided
		}
		if why := d.addOpen(in); why != grants.None {
			return why
		}
	}
	return d.addInput(in.Args, t.Opaque)
}

// ofMethod is what an MCP server is asked beside calls of its tools.
func (d *document) ofMethod(c *catalog.Catalog, in *grants.Input) grants.Reason {
	m, known := methods[in.Action]
	if !known {
		return grants.Undecided
	}
	s, known := c.ServerByID(in.Server)
	if !known || s.MCP == nil {
		return grants.UnknownTool
	}
	if in.Tool != "" || in.Args == nil || !byMCP(in) || !m.In(in.Revision) || in.Retry != nil && !m.Retry {
		return grants.Undecided
	}
	d.Server = s.ID
	d.addMessage(in)
	if in.Grant != nil || in.Task != nil {
		if !m.Grant || !covers(c, in) {
			return grants.Undecided
		}
		if why := d.addOpen(in); why != grants.None {
			return why
		}
	}
	return d.addInput(in.Args, nil)
}

// methods are all that MCP servers can be asked, by action; never changed.
var methods = func() map[string]*mcp.Method {
	all := map[string]*mcp.Method{}
	for _, m := range mcp.Methods() {
		if action := m.Action(); action != "" {
			all[action] = m
		}
	}
	return all
}()

// addOpen adds the grant under which something is asked. Part of a second counts
// against the asker: what policies bound from above rounds up, what is left of a
// grant rounds down.
func (d *document) addOpen(in *grants.Input) grants.Reason {
	d.Task = newTask(in.Task)
	why := d.addGrant(in.Grant, secondsDown(in.Grant.Expires.Sub(in.At)))
	if why == grants.None {
		age := secondsUp(in.At.Sub(in.Grant.NotBefore))
		d.Grant.ID, d.Grant.Age = in.Grant.ID, &age
	}
	return why
}

// addGrant adds what a grant says. One that is only asked for has an id, too,
// but a fresh one each time: nothing for policy.
func (d *document) addGrant(g *grants.Grant, ttl int64) grants.Reason {
	if !validAgent(&g.Agent) {
		return grants.Undecided
	}
	p := &grantPart{
		Agent: newAgent(&g.Agent), Tool: g.Tool, TTL: ttl, Depth: g.Depth(), Bound: !g.CNF.IsZero(),
		Constrained: len(g.Constraints) > 0, Once: !g.Once.IsZero(),
	}
	for _, b := range g.Budgets {
		if b.Limit > maxSafe || b.Limit < -maxSafe {
			return grants.Unrepresentable
		}
		part := budgetPart{Of: ofGrant, Argument: b.Arg, Limit: b.Limit}
		if b.Key == grants.TaskBudget(g.Task, g.Tool, b.Arg) {
			part.Of = ofTask
		}
		p.Budgets = append(p.Budgets, part)
		switch {
		case b.Arg != "":
			p.Sums = append(p.Sums, b.Arg)
		case p.MaxCalls == nil || b.Limit < *p.MaxCalls:
			p.MaxCalls = &b.Limit
		}
	}
	slices.Sort(p.Sums)
	p.Sums = slices.Compact(p.Sums)
	for _, c := range g.Constraints {
		p.Constraints = append(p.Constraints, jsontext.Value(c))
	}
	d.Grant = p
	return grants.None
}

// addInput adds what policy sees of an input: exactly, or there is no document.
// Numbers are written by RFC 8785, which refuses one that is not what a reader
// with doubles takes it for.
func (d *document) addInput(args any, opaque []string) grants.Reason {
	if args == nil {
		return grants.None
	}
	for _, pointer := range opaque {
		args = without(args, catalog.PointerPath(pointer))
	}
	if _, ok := args.(map[string]any); !ok {
		return grants.Undecided
	}
	text, err := strictjson.Canonical(args)
	if err != nil {
		return grants.Unrepresentable
	}
	d.Input = text
	return grants.None
}

// without is a copy of v that lacks what the path leads to.
func without(v any, path []string) any {
	object, ok := v.(map[string]any)
	if !ok || len(path) == 0 {
		return v
	}
	rest := make(map[string]any, len(object))
	for name, member := range object {
		switch {
		case name != path[0]:
			rest[name] = member
		case len(path) > 1:
			rest[name] = without(member, path[1:])
		}
	}
	return rest
}

// addMessage says how a message of MCP came.
func (d *document) addMessage(in *grants.Input) {
	d.Revision = in.Revision
	if r := in.Retry; r != nil {
		d.Retry = &retryPart{r.Responses, r.State}
	}
}

// text is the document as JSON, the same for the same. What has no exact text,
// such as a string that is not UTF-8, is an error.
func (d *document) text() ([]byte, error) { return json.Marshal(d, json.Deterministic(true)) }

func newAgent(p *grants.Principal) agent {
	return agent{ID: p.ID(), Issuer: p.Issuer, Subject: p.Subject, Groups: p.Groups, Tags: p.Tags}
}

func newTool(t *catalog.Tool) *toolPart {
	return &toolPart{ID: t.ID, Server: t.Server.ID, Sets: t.Sets}
}

func newTask(t *grants.Task) *taskPart {
	return &taskPart{ID: t.ID, Kind: t.Kind, Owner: newAgent(&t.Owner), Params: jsontext.Value(t.Params)}
}

// validAgent holds what makes an agent's id, ALIAS/SUBJECT, name one agent.
func validAgent(p *grants.Principal) bool {
	return p.Issuer != "" && p.Subject != "" && !strings.Contains(p.Issuer, "/")
}

// coherent reports whether the grant is one of the task, for the tool and of the
// principal: what the principal would act by or, with ask_for, what it asks for
// in another's name. Whoever may revoke may revoke anybody's.
func coherent(in *grants.Input) bool {
	if in.Task == nil || in.Grant == nil || in.Grant.Task != in.Task.ID || in.Grant.Tool != in.Tool {
		return false
	}
	principal := in.Principal.ID()
	switch in.Action {
	case grants.ActionRevoke:
		return true
	case grants.ActionAskFor:
		return in.Grant.Agent.ID() != principal && in.Requester.ID() == principal && in.Grant.Requester.ID() == principal
	}
	return in.Grant.Agent.ID() == principal
}

// covers reports whether the grant is one of the task, of the principal, and for
// a tool of the server.
func covers(c *catalog.Catalog, in *grants.Input) bool {
	if in.Task == nil || in.Grant == nil || in.Grant.Task != in.Task.ID || in.Grant.Agent.ID() != in.Principal.ID() {
		return false
	}
	t, known := c.Tool(in.Grant.Tool)
	return known && t.Server.ID == in.Server
}

// hasMCP reports whether an Input has what only questions about MCP have.
func hasMCP(in *grants.Input) bool {
	return in.Server != "" || in.Revision != "" || in.Retry != nil
}

// byMCP reports whether an Input says in which revision it came, and a retry came
// in one that has them.
func byMCP(in *grants.Input) bool {
	return slices.Contains(mcp.Revisions(), in.Revision) && (in.Retry == nil || in.Revision >= mcp.Rev20260728)
}

func secondsUp(d time.Duration) int64 {
	n := d / time.Second
	if d%time.Second > 0 {
		n++
	}
	return int64(n)
}

func secondsDown(d time.Duration) int64 {
	n := d / time.Second
	if d%time.Second < 0 {
		n--
	}
	return int64(n)
}
