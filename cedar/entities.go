package cedar

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// maxAncestors bounds what one "principal in GROUP" has to walk.
const maxAncestors = 256

// catalogEntities gives the entities that the catalogue declares.
func catalogEntities(c *catalog.Catalog, schema *resolved.Schema) cedargo.EntityMap {
	base := cedargo.EntityMap{}
	for uid, action := range schema.Actions {
		base[uid] = action.Entity
	}
	for _, name := range c.Sets() {
		put(base, cedargo.NewEntityUID(setType, cedargo.String(name)))
	}
	for i := range c.Servers {
		server := put(base, cedargo.NewEntityUID(serverType, cedargo.String(c.Servers[i].ID)))
		for _, t := range c.Servers[i].Tools {
			put(base, cedargo.NewEntityUID(toolType, cedargo.String(t.ID)), toolParents(t, server)...)
		}
	}
	return base
}

func toolParents(t *catalog.Tool, server cedargo.EntityUID) []cedargo.EntityUID {
	parents := []cedargo.EntityUID{server}
	for _, name := range t.Sets {
		parents = append(parents, cedargo.NewEntityUID(setType, cedargo.String(name)))
	}
	return parents
}

func put(base cedargo.EntityMap, uid cedargo.EntityUID, parents ...cedargo.EntityUID) cedargo.EntityUID {
	base[uid] = cedargo.Entity{UID: uid, Parents: cedargo.NewEntityUIDSet(parents...)}
	return uid
}

// entityText is one entity in Cedar's JSON format
// (https://docs.cedarpolicy.com/auth/entities-syntax.html). Attributes and tags
// come from identities alone, so there are none here.
type entityText struct {
	UID     uidText                   `json:"uid"`
	Parents []uidText                 `json:"parents"`
	Attrs   map[string]jsontext.Value `json:"attrs"`
	Tags    map[string]jsontext.Value `json:"tags"`
}

// uidText is an entity's id, bare or inside the "__entity" escape.
type uidText struct {
	Type   string   `json:"type"`
	ID     string   `json:"id"`
	Entity *uidText `json:"__entity"`
}

func (u uidText) uid() (cedargo.EntityUID, error) {
	if u.Entity != nil {
		if u.Type != "" || u.ID != "" || u.Entity.Entity != nil {
			return cedargo.EntityUID{}, errors.New("an entity id is {type, id} or {__entity: {type, id}}")
		}
		u = *u.Entity
	}
	if u.Type == "" || u.ID == "" {
		return cedargo.EntityUID{}, errors.New("an entity id needs a type and an id")
	}
	return cedargo.NewEntityUID(cedargo.EntityType(u.Type), cedargo.String(u.ID)), nil
}

// declaration is an entity of entities.json.
type declaration struct {
	uid  cedargo.EntityUID
	line int
}

// addEntities adds what entities.json declares, the groups that identities are
// mapped to, and the kinds of task that have a manifest. entities.json may declare
// groups, task kinds and agents; all else comes from the catalogue.
func (w *world) addEntities(text []byte, groups []string) error {
	if text != nil {
		if err := w.readEntities(text); err != nil {
			return err
		}
	}
	for _, name := range groups {
		uid := cedargo.NewEntityUID(groupType, cedargo.String(name))
		if _, ok := w.base[uid]; !ok {
			put(w.base, uid)
		}
	}
	for _, name := range w.manifests.Kinds() {
		uid := cedargo.NewEntityUID(kindType, cedargo.String(name))
		if _, ok := w.base[uid]; !ok {
			put(w.base, uid)
		}
	}
	var faults faults
	for _, d := range w.declared {
		if err := checkAncestors(w.base, d.uid); err != nil {
			faults.add("%s:%d: %w", entitiesFile, d.line, err)
		}
	}
	return faults.join()
}

func (w *world) readEntities(text []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	at := func(offset int64, err error) error {
		return fmt.Errorf("%s:%d: %w", entitiesFile, lineAt(text, int(offset)), err)
	}
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '[' {
		return at(0, errors.New(`not an array of entities; write [{"uid": {"type": …, "id": …}}], or [] for none`))
	}
	for dec.PeekKind() != ']' {
		raw, err := dec.ReadValue()
		if err != nil {
			offset := dec.InputOffset()
			if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
				offset = e.ByteOffset
			}
			return at(offset, err)
		}
		start := dec.InputOffset() - int64(len(raw))
		var e entityText
		// Duplicate names and bad UTF-8 are errors by default.
		if err := json.Unmarshal(raw, &e, json.RejectUnknownMembers(true)); err != nil {
			return at(start, entityError(err))
		}
		entity, err := w.entity(e)
		if err != nil {
			return at(start, err)
		}
		if _, twice := w.base[entity.UID]; twice {
			return at(start, fmt.Errorf("%s is declared twice", entity.UID))
		}
		w.base[entity.UID] = entity
		w.declared = append(w.declared, declaration{entity.UID, lineAt(text, int(start))})
	}
	if _, err := dec.ReadToken(); err != nil {
		return at(dec.InputOffset(), err)
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
		return at(dec.InputOffset(), errors.New("more after the array of entities"))
	}
	return nil
}

// entityError says in our words what the JSON library says in those of Go.
func entityError(err error) error {
	e, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case !ok:
		return err
	case errors.Is(e.Err, json.ErrUnknownName):
		known := slices.Values([]string{"attrs", "id", "parents", "tags", "type", "uid"})
		return fmt.Errorf("there is no member %q%s", e.JSONPointer.LastToken(), suggest(e.JSONPointer.LastToken(), known))
	}
	return fmt.Errorf(`%s is not what is expected; an entity is {"uid": {"type": …, "id": …}, "attrs": {}, "parents": [{"type": …, "id": …}]}`, cmp.Or(e.JSONPointer, "it"))
}

func (w *world) entity(e entityText) (cedargo.Entity, error) {
	uid, err := e.UID.uid()
	if err != nil {
		return cedargo.Entity{}, err
	}
	if len(e.Attrs) > 0 || len(e.Tags) > 0 {
		return cedargo.Entity{}, fmt.Errorf("%s: attributes and tags come from identities, not from here", uid)
	}
	entity := cedargo.Entity{UID: uid}
	switch uid.Type {
	case groupType:
	case kindType:
		if len(e.Parents) > 0 {
			return cedargo.Entity{}, fmt.Errorf("%s: a task kind has no parents", uid)
		}
	case agentType:
		p, err := w.agent(uid)
		if err != nil {
			return cedargo.Entity{}, err
		}
		entity.Attributes = agentAttributes(&p)
	default:
		return cedargo.Entity{}, fmt.Errorf("%s: only %s, %s and %s may be declared here", uid, groupType, kindType, agentType)
	}
	var parents []cedargo.EntityUID
	for _, p := range e.Parents {
		parent, err := p.uid()
		if err != nil {
			return cedargo.Entity{}, fmt.Errorf("%s: parent: %w", uid, err)
		}
		if parent.Type != groupType {
			return cedargo.Entity{}, fmt.Errorf("%s: parent %s is not an %s", uid, parent, groupType)
		}
		parents = append(parents, parent)
	}
	entity.Parents = cedargo.NewEntityUIDSet(parents...)
	return entity, nil
}

// checkAncestors walks up from an entity: each ancestor is known, none is the
// entity itself, and there are not too many.
func checkAncestors(base cedargo.EntityMap, uid cedargo.EntityUID) error {
	seen := map[cedargo.EntityUID]bool{}
	for todo := []cedargo.EntityUID{uid}; len(todo) > 0; {
		child := todo[0]
		todo = todo[1:]
		for parent := range base[child].Parents.All() {
			if parent == uid {
				return fmt.Errorf("%s is its own ancestor", uid)
			}
			if seen[parent] {
				continue
			}
			if _, known := base[parent]; !known {
				return unknown(base, parent)
			}
			if seen[parent] = true; len(seen) > maxAncestors {
				return fmt.Errorf("%s has more than %d ancestors", uid, maxAncestors)
			}
			todo = append(todo, parent)
		}
	}
	return nil
}

// reach adds an entity and all its ancestors to those that are reached.
func (w *world) reach(uid cedargo.EntityUID, reached map[cedargo.EntityUID]bool) {
	if reached[uid] {
		return
	}
	reached[uid] = true
	for parent := range w.base[uid].Parents.All() {
		w.reach(parent, reached) // not deep: checkAncestors
	}
}

// agent reads the id of an agent that there can be: one of a known issuer.
func (w *world) agent(uid cedargo.EntityUID) (grants.Principal, error) {
	p, ok := agentOf(string(uid.ID))
	if !ok {
		return p, fmt.Errorf("%s: an agent's id is ISSUER/SUBJECT", uid)
	}
	if len(w.aliases) > 0 && !slices.Contains(w.aliases, p.Issuer) {
		return p, fmt.Errorf("%s: no issuer of identities has the alias %q%s", uid, p.Issuer, suggest(p.Issuer, slices.Values(w.aliases)))
	}
	return p, nil
}

// agentOf splits an agent id, ISSUER/SUBJECT. An issuer's alias has no slash;
// a subject may.
func agentOf(id string) (grants.Principal, bool) {
	issuer, subject, _ := strings.Cut(id, "/")
	p := grants.Principal{Issuer: issuer, Subject: subject}
	return p, validAgent(&p)
}

// validAgent holds what makes an agent's id name one agent.
func validAgent(p *grants.Principal) bool {
	return p.Issuer != "" && p.Subject != "" && !strings.Contains(p.Issuer, "/")
}

func agentAttributes(p *grants.Principal) cedargo.Record {
	return cedargo.NewRecord(cedargo.RecordMap{
		"issuer": cedargo.String(p.Issuer), "subject": cedargo.String(p.Subject),
	})
}

// view is the entities of one request: the set's own and, over them, the agents
// that the request names. It is not safe for concurrent use.
type view struct {
	base   cedargo.EntityMap
	agents [4]agent // principal, requester, agent, owner: in this order, see add
	n      int
}

type agent struct {
	uid    cedargo.EntityUID
	who    *grants.Principal
	entity cedargo.Entity // built when a policy first looks at it
	built  bool
}

// add makes an agent visible. The first one of an id stays: who acts now counts
// as they are now, not as they were when they started a task.
func (v *view) add(p *grants.Principal) cedargo.EntityUID {
	uid := cedargo.NewEntityUID(agentType, cedargo.String(p.ID()))
	for i := range v.agents[:v.n] {
		if v.agents[i].uid == uid {
			return uid
		}
	}
	v.agents[v.n] = agent{uid: uid, who: p}
	v.n++
	return uid
}

// Get implements cedar's EntityGetter.
func (v *view) Get(uid cedargo.EntityUID) (cedargo.Entity, bool) {
	if uid.Type == agentType {
		for i := range v.agents[:v.n] {
			if a := &v.agents[i]; a.uid == uid {
				if !a.built {
					a.entity, a.built = v.build(uid, a.who), true
				}
				return a.entity, true
			}
		}
	}
	e, ok := v.base[uid]
	return e, ok
}

// build makes an agent's entity: its groups are the identity's and those that
// entities.json puts it in.
func (v *view) build(uid cedargo.EntityUID, p *grants.Principal) cedargo.Entity {
	declared := v.base[uid].Parents
	parents := make([]cedargo.EntityUID, 0, len(p.Groups)+declared.Len())
	for _, g := range p.Groups {
		parents = append(parents, cedargo.NewEntityUID(groupType, cedargo.String(g)))
	}
	for g := range declared.All() {
		parents = append(parents, g)
	}
	tags := make(cedargo.RecordMap, len(p.Tags))
	for name, value := range p.Tags {
		tags[cedargo.String(name)] = cedargo.String(value)
	}
	return cedargo.Entity{
		UID: uid, Parents: cedargo.NewEntityUIDSet(parents...),
		Attributes: agentAttributes(p), Tags: cedargo.NewRecord(tags),
	}
}
