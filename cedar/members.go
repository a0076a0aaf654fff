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

// members looks for members (attributes of records and entities) and sums that
// a policy names and that cannot exist. To Cedar's validator, "has" about an
// attribute that no schema knows is no error but false, so that a misspelt
// guard would switch its policy off, a forbid too.
//
// What has no type without running the policy is not looked at: members of
// records that the policy itself writes, and tags, which come from identities.
// And a name need only exist for one of the actions and tools that the policy's
// scope lets through: what narrows them down in its conditions does not count.
type members struct {
	p        *parsed
	w        *world
	contexts []resolved.RecordType // one for each action in the scope
	resource []cedargo.EntityType  // of these actions
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
		if tool, ok := strings.CutPrefix(string(uid.ID), grants.ActionCall); ok && !m.about(tool) {
			continue
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

// lets reports whether the scope lets the action through.
func lets(scope ast.IsActionScopeNode, action cedargo.Entity) bool {
	in := func(uid cedargo.EntityUID) bool { return action.UID == uid || action.Parents.Contains(uid) }
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return action.UID == s.Entity
	case ast.ScopeTypeIn:
		return in(s.Entity)
	case ast.ScopeTypeInSet:
		return slices.ContainsFunc(s.Entities, in)
	}
	return true
}

// mayMatch reports whether the scope lets the tool through.
func mayMatch(scope ast.IsResourceScopeNode, tool cedargo.EntityUID, base cedargo.EntityMap) bool {
	in := func(uid cedargo.EntityUID) bool { return tool == uid || base[tool].Parents.Contains(uid) }
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return tool == s.Entity
	case ast.ScopeTypeIn:
		return in(s.Entity)
	case ast.ScopeTypeIs:
		return s.Type == toolType
	case ast.ScopeTypeIsIn:
		return s.Type == toolType && in(s.Entity)
	}
	return true
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
	case ast.NodeTypeContains:
		m.checkSums(n.Left, n.Right)
	case ast.NodeTypeContainsAny:
		m.checkSums(n.Left, n.Right)
	case ast.NodeTypeContainsAll:
		m.checkSums(n.Left, n.Right)
	case ast.NodeTypeEquals:
		m.checkSums(n.Left, n.Right)
	case ast.NodeTypeNotEquals:
		m.checkSums(n.Left, n.Right)
	}
	return true
}

// known holds that one of the types that the node may have has the member.
func (m *members) known(of ast.IsNode, name cedargo.String) {
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

// checkSums looks for the texts that context.sums is compared with, if it is
// one of the two.
func (m *members) checkSums(left, right ast.IsNode) {
	if isSums(right) {
		left, right = right, left
	}
	if !isSums(left) {
		return
	}
	texts, _ := literals(right)
	if one, single := literal(right); single {
		texts = []string{one}
	}
	sums := map[string]bool{}
	for id, input := range m.w.inputs {
		if m.about(id) {
			input.sums("", sums)
		}
	}
	for _, arg := range texts {
		if !sums[arg] {
			m.faults.add("%s: policy %q: context.sums never has %q: in the input of no tool that the policy is about is there a number%s",
				m.p.at(m.p.findText(arg)), m.p.id, arg, suggest(arg, names(sums)))
		}
	}
}

func isSums(n ast.IsNode) bool {
	of, ok := n.(ast.NodeTypeAccess)
	return ok && of.Value == "sums" && isContext(of.Arg)
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
