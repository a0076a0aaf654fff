package cedar

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// exampleText is a question as a person writes it; see ExampleInput.
type exampleText struct {
	Principal string         `json:"principal"`
	Action    string         `json:"action"`
	Resource  string         `json:"resource"`
	Context   jsontext.Value `json:"context"`
	Entities  []entityText   `json:"entities"`
}

// DecideExample decides a question that a person wrote, in the form that
// ExampleInput gives. It is for trying policies out: who the agents are is read
// from the document's entities (an agent without one is in the groups that
// entities.json puts it in) and believed. The error says what is wrong with a
// document that no door would ask: one that is no strict JSON, has unknown
// members, names what does not exist, or has another context than the schema. A
// document has neither a grant's constraints nor its budgets, so of a manifest it
// is only looked at whether it has the tool.
func (s *Set) DecideExample(doc []byte) (grants.Decision, error) {
	var text exampleText
	if err := strictjson.Unmarshal(doc, strictjson.Limits{}, &text); err != nil {
		return grants.Decision{}, fmt.Errorf("input: %w; it needs principal, action, resource, context and entities, as policy example-input prints them", err)
	}
	q, err := s.read(&text)
	if err != nil {
		return grants.Decision{}, fmt.Errorf("input: %w", err)
	}
	if s.lacksTool(q) {
		return grants.Decision{Reason: grants.Manifest, Revision: s.revision}, nil
	}
	return s.answer(q), nil
}

// read makes a question of the text, or says why no door would ask it.
func (s *Set) read(text *exampleText) (*question, error) {
	q := &question{entities: view{base: s.base}}
	for _, part := range []struct {
		name string
		text string
		uid  *cedargo.EntityUID
	}{
		{"principal", text.Principal, &q.request.Principal},
		{"action", text.Action, &q.request.Action},
		{"resource", text.Resource, &q.request.Resource},
	} {
		if err := part.uid.UnmarshalCedar([]byte(part.text)); err != nil {
			return nil, fmt.Errorf(`%s: %q is not an entity; write Toolgrant::TYPE::"ID"`, part.name, part.text)
		}
	}
	action, err := s.aim(q)
	if err != nil {
		return nil, err
	}
	if len(text.Context) == 0 {
		return nil, errors.New("context: it is not there")
	}
	if err := json.Unmarshal(text.Context, &q.request.Context); err != nil {
		return nil, fmt.Errorf(`context: %w; an agent is written {"__entity": {"type": %q, "id": "ISSUER/SUBJECT"}}, a decimal {"__extn": {"fn": "decimal", "arg": "12.5"}}`, err, agentType)
	}
	if err := conforms("context", q.request.Context, action.AppliesTo.Context); err != nil {
		return nil, err
	}
	if err := s.agree(q); err != nil {
		return nil, err
	}
	return q, s.believe(q, text.Entities)
}

// aim finds what the question is about, and the policies for it.
func (s *Set) aim(q *question) (resolved.Action, error) {
	r := &q.request
	action, known := s.schema.Actions[r.Action]
	switch {
	case !known:
		return action, fmt.Errorf("action: %w", unknown(s.base, r.Action))
	case action.AppliesTo == nil:
		name := actionUID(grants.ActionCall + "SERVER/TOOL")
		if r.Action != actionUID(callParent) {
			name = actionUID(mcp.ActionPrefix + "METHOD")
		}
		return action, fmt.Errorf("action: %s is only a parent; write out what is asked: %s", r.Action, name)
	case !slices.Contains(action.AppliesTo.Resources, r.Resource.Type):
		return action, fmt.Errorf("resource: %s is about a %s, not about %s", r.Action, action.AppliesTo.Resources[0], r.Resource)
	case r.Principal.Type != agentType:
		return action, fmt.Errorf("principal: %s is not an %s", r.Principal, agentType)
	}
	if err := s.checkMention(r.Principal); err != nil {
		return action, fmt.Errorf("principal: %w", err)
	}
	if r.Resource.Type == kindType { // a task may be of a kind that nothing declares
		q.route = s.kindRoute(r.Action, string(r.Resource.ID))
		return action, nil
	}
	if _, known := s.base[r.Resource]; !known {
		return action, fmt.Errorf("resource: %w", unknown(s.base, r.Resource))
	}
	if r.Resource.Type == serverType {
		to, known := s.servers[string(r.Resource.ID)]
		if !known {
			return action, fmt.Errorf("resource: %s is no MCP server%s", r.Resource, suggest(string(r.Resource.ID), names(s.servers)))
		}
		q.route = to.routes[string(r.Action.ID)]
		return action, nil
	}
	t := s.tools[string(r.Resource.ID)]
	q.route = t.route(r.Action)
	if strings.HasPrefix(string(r.Action.ID), grants.ActionCall) && r.Action != t.action {
		return action, fmt.Errorf("resource: %s is not called by %s", r.Resource, r.Action)
	}
	return action, nil
}

// agree holds the parts of a question together, as the doors do.
func (s *Set) agree(q *question) error {
	r := &q.request
	if err := s.agreeOnRevision(&r.Context, r.Action); err != nil {
		return err
	}
	if err := s.agreeOnParams(q); err != nil {
		return err
	}
	requester, _ := r.Context.Get("requester")
	switch string(r.Action.ID) {
	case grants.ActionStartTask, grants.ActionEndTask:
		task, _ := r.Context.Get("task")
		if kind, _ := task.(cedargo.Record).Get("kind"); kind != cedargo.Value(r.Resource.ID) {
			return fmt.Errorf("context.task.kind: %s, and the resource is %s", kind.MarshalCedar(), r.Resource)
		}
	case grants.ActionAskFor:
		if agent, _ := r.Context.Get("agent"); agent == cedargo.Value(r.Principal) {
			return fmt.Errorf("context.agent: %s asks for itself; that is %s alone", agent, actionUID(grants.ActionGrant))
		}
	default:
		return nil
	}
	if requester != cedargo.Value(r.Principal) {
		return fmt.Errorf("context.requester: %s, and the principal is %s; with %s both are who asks", requester, r.Principal, r.Action)
	}
	return nil
}

// agreeOnRevision holds that a message's revision is one that has its method.
func (s *Set) agreeOnRevision(context *cedargo.Record, action cedargo.EntityUID) error {
	v, there := context.Get("revision")
	if !there {
		return nil
	}
	revision, m := string(v.(cedargo.String)), s.methods[string(action.ID)]
	_, retry := context.Get("retry")
	switch {
	case !isRevision(revision):
		return fmt.Errorf("context.revision: %q is no revision of MCP that is known%s", revision, suggest(revision, slices.Values(mcp.Revisions())))
	case m != nil && !m.In(revision):
		return fmt.Errorf("context.revision: %s has no %s", revision, m.Name)
	case retry && !hasRetries(revision):
		return fmt.Errorf("context.retry: %s has no multi-round-trip retries", revision)
	}
	return nil
}

// conforms holds a value to its type in the schema: neither more nor less.
func conforms(at string, v cedargo.Value, want resolved.IsType) error {
	switch want := want.(type) {
	case resolved.RecordType:
		rec, ok := v.(cedargo.Record)
		if !ok {
			break
		}
		for name := range rec.All() {
			if _, known := want[name]; !known {
				return fmt.Errorf("%s has no member %q%s", at, string(name), suggest(string(name), names(want)))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			member, there := rec.Get(name)
			if !there && !want[name].Optional {
				return fmt.Errorf("%s.%s: it is not there, and always is", at, name)
			}
			if there {
				if err := conforms(at+"."+string(name), member, want[name].Type); err != nil {
					return err
				}
			}
		}
		return nil
	case resolved.SetType:
		set, ok := v.(cedargo.Set)
		if !ok {
			break
		}
		for e := range set.All() {
			if err := conforms(at+"[…]", e, want.Element); err != nil {
				return err
			}
		}
		return nil
	case resolved.EntityType:
		if uid, ok := v.(cedargo.EntityUID); ok && uid.Type == cedargo.EntityType(want) {
			if _, ok := agentOf(string(uid.ID)); !ok {
				return fmt.Errorf("%s: %s: an agent's id is ISSUER/SUBJECT", at, uid)
			}
			return nil
		}
	default:
		if typeName(v) == typeText(want) {
			return nil
		}
	}
	return fmt.Errorf("%s: %s is not of the type %s", at, v.MarshalCedar(), typeText(want))
}

// typeName is what the schema calls a scalar's type; "" for no scalar of ours.
func typeName(v cedargo.Value) string {
	switch v.(type) {
	case cedargo.String:
		return "String"
	case cedargo.Long:
		return "Long"
	case cedargo.Boolean:
		return "Bool"
	case cedargo.Decimal:
		return "decimal"
	}
	return ""
}

func typeText(t resolved.IsType) string {
	switch t := t.(type) {
	case resolved.StringType:
		return "String"
	case resolved.LongType:
		return "Long"
	case resolved.BoolType:
		return "Bool"
	case resolved.ExtensionType:
		return string(t)
	case resolved.EntityType:
		return string(t)
	case resolved.SetType:
		return "Set"
	}
	return "record"
}

// believe adds the agents of the question, as the document describes them. All
// else that it describes must be as the catalogue and entities.json have it.
func (s *Set) believe(q *question, entities []entityText) error {
	seen := map[cedargo.EntityUID]bool{}
	agents := map[cedargo.EntityUID]*grants.Principal{}
	for i := range entities {
		e := &entities[i]
		uid, err := e.UID.uid()
		if err != nil {
			return fmt.Errorf("entities: %w", err)
		}
		if seen[uid] {
			return fmt.Errorf("entities: %s is there twice", uid)
		}
		seen[uid] = true
		if uid.Type != agentType {
			if err := s.asKnown(uid, e); err != nil {
				return fmt.Errorf("entities: %w", err)
			}
			continue
		}
		if agents[uid], err = e.agent(uid); err != nil {
			return fmt.Errorf("entities: %s: %w", uid, err)
		}
	}
	for _, uid := range agentsIn(nil, q.request.Principal, q.request.Context) {
		if err := s.checkMention(uid); err != nil {
			return err
		}
		p, there := agents[uid]
		if !there {
			named, _ := agentOf(string(uid.ID))
			p = &named
		}
		delete(agents, uid)
		q.entities.add(p)
	}
	for uid := range agents {
		return fmt.Errorf("entities: %s has no part in the question; entities.json says what is true of it otherwise", uid)
	}
	return nil
}

// agentsIn adds the agents in the values to those that are known, each once.
func agentsIn(known []cedargo.EntityUID, values ...cedargo.Value) []cedargo.EntityUID {
	for _, v := range values {
		switch v := v.(type) {
		case cedargo.EntityUID:
			if !slices.Contains(known, v) {
				known = append(known, v)
			}
		case cedargo.Record:
			known = agentsIn(known, slices.Collect(v.Values())...)
		}
	}
	return known
}

// asKnown holds what the document says of a tool, server, set, group or kind to
// what the set says of it.
func (s *Set) asKnown(uid cedargo.EntityUID, e *entityText) error {
	have, known := s.base[uid]
	if !known {
		return unknown(s.base, uid)
	}
	var parents []cedargo.EntityUID
	for _, p := range e.Parents {
		parent, err := p.uid()
		if err != nil {
			return fmt.Errorf("%s: parent: %w", uid, err)
		}
		parents = append(parents, parent)
	}
	if len(e.Attrs)+len(e.Tags) > 0 || !have.Parents.Equal(cedargo.NewEntityUIDSet(parents...)) {
		var want []string
		for p := range have.Parents.All() {
			want = append(want, p.String())
		}
		slices.Sort(want)
		return fmt.Errorf("%s: the catalogue and %s say that it has no attributes and the parents [%s]", uid, entitiesFile, strings.Join(want, ", "))
	}
	return nil
}

// agent reads who an agent is said to be.
func (e *entityText) agent(uid cedargo.EntityUID) (*grants.Principal, error) {
	p, ok := agentOf(string(uid.ID))
	if !ok {
		return nil, errors.New("an agent's id is ISSUER/SUBJECT")
	}
	own := map[string]string{"issuer": p.Issuer, "subject": p.Subject}
	for name, text := range e.Attrs {
		want, known := own[name]
		if !known {
			return nil, fmt.Errorf("attrs: an agent has no %q%s", name, suggest(name, names(own)))
		}
		var value string
		if err := json.Unmarshal(text, &value); err != nil || value != want {
			return nil, fmt.Errorf("attrs.%s: %s, and its id says %q", name, text, want)
		}
	}
	for _, parent := range e.Parents {
		group, err := parent.uid()
		if err != nil || group.Type != groupType {
			return nil, fmt.Errorf("parents: an agent is in groups, %s, alone", groupType)
		}
		p.Groups = append(p.Groups, string(group.ID))
	}
	for name, text := range e.Tags {
		var value string
		if err := json.Unmarshal(text, &value); err != nil {
			return nil, fmt.Errorf("tags.%s: not a text", name)
		}
		if p.Tags == nil {
			p.Tags = map[string]string{}
		}
		p.Tags[name] = value
	}
	return &p, nil
}
