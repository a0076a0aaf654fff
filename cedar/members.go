package cedar

import (
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/toolgrant/toolgrant/grants"
)

// members looks in a policy's conditions for names that cannot exist: members
// (attributes of records and entities), types of entities, and texts (see
// checkTexts). To Cedar's validator, "has" about an attribute that no schema
// knows is no error but false, and so are "is" and "in" with a type that never
// occurs, so that a misspelt guard would switch its policy off, a forbid too.
//
// Members of a record that the policy itself writes have no type without
// running it, so none may be taken. Tags, which come from identities, are not
// looked at. And a name need only exist for one of the actions and tools that
// the policy's scope lets through: what narrows them down in its conditions
// does not count.
type members struct {
	p        *parsed
	w        *world
	contexts []resolved.RecordType // one for each action in the scope
	resource []cedargo.EntityType  // of these actions
	inputs   []*shape              // of the calls and of what is asked of MCP servers in the scope
	faults   *faults
}

func checkMembers(p *parsed, w *world, faults *faults) {
	tree := p.ast()
	if len(tree.Conditions) == 0 {
		return
	}
	m := members{p: p, w: w, faults: faults}
	for uid, action := range w.schema.Actions {
		if action.AppliesTo == nil || !lets(tree.Action, action.Entity) {
			continue
		}
		if tool, ok := strings.CutPrefix(string(uid.ID), grants.ActionCall); ok {
			if !m.about(tool) {
				continue
			}
			m.inputs = append(m.inputs, w.inputs[tool])
		}
		if method := w.methods[string(uid.ID)]; method != nil {
			if !w.some(tree.Resource, uid) {
				continue
			}
			m.inputs = append(m.inputs, method.input)
		}
		m.contexts = append(m.contexts, action.AppliesTo.Context)
		m.resource = append(m.resource, action.AppliesTo.Resources...)
	}
	m.resource = slices.Compact(slices.Sorted(slices.Values(m.resource)))
	for _, c := range tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), m.check)
	}
}

// about reports whether the policy's scope lets the tool through.
func (m *members) about(id string) bool {
	return mayMatch(m.p.ast().Resource, cedargo.NewEntityUID(toolType, cedargo.String(id)), m.w.base)
}

// sums adds the JSON Pointers of the numbers in the input that policy sees.
func (s *shape) sums(at string, into map[string]bool) {
	if s.of == "integer" || s.of == "number" {
		into[at] = true
	}
	for name, a := range s.attrs {
		if a.shape != nil {
			a.shape.sums(pointer(at, name), into)
		}
	}
}

// check looks at one node of a condition.
func (m *members) check(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeHas:
		m.known(n.Arg, n.Value)
	case ast.NodeTypeAccess:
		m.known(n.Arg, n.Value)
	case ast.NodeTypeIs:
		m.is(n.Left, n.EntityType)
	case ast.NodeTypeIsIn:
		m.is(n.Left, n.EntityType)
		m.mayBe(n.Left, "in", n.Entity, true)
	case ast.NodeTypeIn:
		m.mayBe(n.Left, "in", n.Right, true)
	case ast.NodeTypeEquals:
		m.mayBe(n.Left, "==", n.Right, false)
		m.isAsked(n.Left, n.Right)
		m.checkTexts(n.Left, n.Right)
	case ast.NodeTypeNotEquals:
		m.mayBe(n.Left, "==", n.Right, false)
		m.isAsked(n.Left, n.Right)
		m.checkTexts(n.Left, n.Right)
	case ast.NodeTypeContains:
		m.checkTexts(n.Left, n.Right)
	case ast.NodeTypeContainsAny:
		m.checkTexts(n.Left, n.Right)
	case ast.NodeTypeContainsAll:
		m.checkTexts(n.Left, n.Right)
	case ast.NodeTypeLike:
		m.checkLike(n)
	}
	return true
}

// isAsked holds that an action that one is compared with is one that questions
// have: "call", "mcp" and "mcp:notifications" are only the parents of those.
func (m *members) isAsked(sides ...ast.IsNode) {
	for _, n := range sides {
		v, ok := n.(ast.NodeValue)
		if !ok {
			continue
		}
		if uid, ok := v.Value.(cedargo.EntityUID); ok && isParent(uid) {
			m.faults.add("%s: policy %q: no question has the action %q itself, so that == with it never holds; write: action in %s",
				m.p.at(m.p.from), m.p.id, string(uid.ID), uid)
		}
	}
}

// is holds that an entity may be of the type.
func (m *members) is(n ast.IsNode, t cedargo.EntityType) {
	types, ok := m.typesOf(n)
	may := map[string]bool{}
	for _, is := range types {
		e, entity := is.(resolved.EntityType)
		ok = ok && entity
		may[string(e)] = true
	}
	at := m.p.at(m.p.findType(t))
	if _, declared := m.w.schema.Entities[t]; !declared && t != actionType {
		m.faults.add("%s: policy %q: there is no entity type %s%s", at, m.p.id, t, suggest(string(t), names(m.w.schema.Entities)))
	} else if ok && len(may) > 0 && !may[string(t)] {
		m.faults.add("%s: policy %q: %s is never a %s%s", at, m.p.id, written(n), t, suggest(string(t), names(may)))
	}
}

// mayBe holds that an entity may be another one, or in it, by their types. To
// the validator, that it never is is only false.
func (m *members) mayBe(n ast.IsNode, op string, other ast.IsNode, in bool) {
	left, right := m.entitiesOf(n), m.entitiesOf(other)
	for l := range left {
		for r := range right {
			if l == r || in && slices.Contains(m.w.schema.Entities[l].ParentTypes, r) {
				return
			}
		}
	}
	if len(left) > 0 && len(right) > 0 {
		m.faults.add("%s: policy %q: %s is of the type %s, so that %q with one of %s never holds", m.p.at(m.p.from), m.p.id,
			written(n), oneOf(left), op, oneOf(right))
	}
}

func oneOf(types map[cedargo.EntityType]bool) string {
	return strings.Join(slices.Sorted(names(types)), " or ")
}

// entitiesOf gives the types of the entities that a node may be or, if it is a
// set that is written out, that are in it; none where that is not known.
func (m *members) entitiesOf(n ast.IsNode) map[cedargo.EntityType]bool {
	elements := []ast.IsNode{n}
	switch n := n.(type) {
	case ast.NodeTypeSet:
		elements = n.Elements
	case ast.NodeValue:
		if set, ok := n.Value.(cedargo.Set); ok {
			elements = nil
			for v := range set.All() {
				elements = append(elements, ast.NodeValue{Value: v})
			}
		}
	}
	out := map[cedargo.EntityType]bool{}
	for _, e := range elements {
		types, ok := m.typesOf(e)
		for _, t := range types {
			entity, is := t.(resolved.EntityType)
			ok = ok && is
			out[cedargo.EntityType(entity)] = true
		}
		if !ok {
			return nil
		}
	}
	return out
}

// known holds that one of the types that the node may have has the member.
func (m *members) known(of ast.IsNode, name cedargo.String) {
	if takesOfRecord(of) {
		m.faults.add("%s: policy %q: .%s is taken of a record that the policy itself writes, where a misspelt name could hide; write out what it is there",
			m.p.at(m.p.findMember(string(name))), m.p.id, name)
		return
	}
	types, ok := m.typesOf(of)
	if !ok || len(types) == 0 {
		return
	}
	all := resolved.RecordType{}
	for _, t := range types {
		attrs, ok := m.attributes(t)
		if _, has := attrs[name]; has || !ok {
			return
		}
		maps.Copy(all, attrs)
	}
	m.faults.add("%s: policy %q: %s has no member %q%s", m.p.at(m.p.findMember(string(name))), m.p.id,
		written(of), string(name), suggest(string(name), names(all)))
}

// takesOfRecord reports whether the node is a record that the policy writes, or
// is taken of one.
func takesOfRecord(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeRecord:
		return true
	case ast.NodeValue:
		_, record := n.Value.(cedargo.Record)
		return record
	case ast.NodeTypeAccess:
		return takesOfRecord(n.Arg)
	case ast.NodeTypeIfThenElse:
		return takesOfRecord(n.Then) || takesOfRecord(n.Else)
	}
	return false
}

// typesOf gives the types that the node may have, one for each action in the
// scope; none if it has none in any of them. It is false where the schema alone
// does not tell.
func (m *members) typesOf(n ast.IsNode) (types []resolved.IsType, ok bool) {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		switch n.Name {
		case "context":
			for _, c := range m.contexts {
				types = append(types, c)
			}
		case "principal":
			types = append(types, resolved.EntityType(agentType))
		case "action":
			types = append(types, resolved.EntityType(actionType))
		case "resource":
			for _, t := range m.resource {
				types = append(types, resolved.EntityType(t))
			}
		}
		return types, true
	case ast.NodeValue:
		uid, ok := n.Value.(cedargo.EntityUID)
		return []resolved.IsType{resolved.EntityType(uid.Type)}, ok
	case ast.NodeTypeAccess:
		of, ok := m.typesOf(n.Arg)
		for _, t := range of {
			attrs, known := m.attributes(t)
			if a, has := attrs[n.Value]; has {
				types = append(types, a.Type)
			}
			ok = ok && known
		}
		return types, ok
	case ast.NodeTypeIfThenElse:
		then, ok1 := m.typesOf(n.Then)
		or, ok2 := m.typesOf(n.Else)
		return slices.Concat(then, or), ok1 && ok2
	}
	return nil, false
}

// attributes gives the members of a type's values; false if it is not one of
// records or entities, which the validator says.
func (m *members) attributes(t resolved.IsType) (resolved.RecordType, bool) {
	switch t := t.(type) {
	case resolved.RecordType:
		return t, true
	case resolved.EntityType:
		return m.w.schema.Entities[cedargo.EntityType(t)].Shape, true
	}
	return nil, false
}

// written gives a node as a policy writes it, shortened where it is no path.
func written(n ast.IsNode) string {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		return string(n.Name)
	case ast.NodeValue:
		return n.Value.String()
	case ast.NodeTypeAccess:
		return written(n.Arg) + "." + string(n.Value)
	}
	return "(…)"
}
