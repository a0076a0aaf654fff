package cedar

import (
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// witness is an agent that policies are tried on: a declared one, or one that
// stands for those of whom no more is known than that they are in a group, or
// (the zero entity) than that they are agents. It is the principal, who started
// the task, and who asks: of these, one agent may be all.
type witness struct {
	uid     cedargo.EntityUID
	reached map[cedargo.EntityUID]bool // itself, and what it is in
}

// witnesses gives those that may tell policies apart: one for everybody, one for
// each agent and group that the policies name, and of the declared agents one for
// each set of groups.
func (w *world) witnesses(policies []*parsed) []witness {
	named := map[cedargo.EntityUID]bool{{}: true}
	for _, p := range policies {
		tree := p.ast()
		named[principalOf(tree)] = true
		for _, c := range tree.Conditions {
			ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
				for _, uid := range entities(n) {
					if uid.Type == agentType || uid.Type == groupType {
						named[uid] = true
					}
				}
				return true
			})
		}
	}
	seen := map[string]bool{} // the groups of an agent
	for _, d := range w.declared {
		if d.uid.Type != agentType || named[d.uid] {
			continue
		}
		var groups []string
		for group := range w.base[d.uid].Parents.All() {
			groups = append(groups, group.String())
		}
		slices.Sort(groups)
		if key := strings.Join(groups, "\x00"); !seen[key] {
			seen[key], named[d.uid] = true, true
		}
	}
	var out []witness
	for uid := range maps.Keys(named) {
		reached := map[cedargo.EntityUID]bool{}
		w.reach(uid, reached)
		out = append(out, witness{uid, reached})
	}
	return out
}

// matches reports whether a policy is certainly about the witness, in some
// question: by its scope, and by each condition that names an agent. What the
// others come to does not hang on who it is.
func (w witness) matches(p *ast.Policy) bool {
	if who := principalOf(p); !isEverybody(who) && !w.reached[who] {
		return false
	}
	for _, c := range conjuncts(p) {
		if !namesAgent(c.node) {
			continue
		}
		holds := w.of(c.node)
		if c.negated {
			holds = holds.not()
		}
		if holds != (outcome{yes: true}) {
			return false
		}
	}
	return true
}

// of is what an expression may come to for the witness.
func (w witness) of(n ast.IsNode) outcome {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return w.of(n.Left).then(w.of(n.Right), outcome{no: true})
	case ast.NodeTypeOr:
		return w.of(n.Left).then(outcome{yes: true}, w.of(n.Right))
	case ast.NodeTypeNot:
		return w.of(n.Arg).not()
	case ast.NodeTypeIfThenElse:
		return w.of(n.If).then(w.of(n.Then), w.of(n.Else))
	case ast.NodeTypeEquals:
		return w.is(n.Left, n.Right)
	case ast.NodeTypeNotEquals:
		return w.is(n.Left, n.Right).not()
	case ast.NodeTypeIn:
		return w.in(n.Left, n.Right)
	case ast.NodeTypeIsIn:
		return w.in(n.Left, n.Entity) // no other type than an agent's is valid here
	case ast.NodeTypeIs:
		if isAgent(n.Left) {
			return certain(n.EntityType == agentType)
		}
	case ast.NodeValue:
		if b, ok := n.Value.(cedargo.Boolean); ok {
			return certain(bool(b))
		}
	}
	return anything
}

// is is what AGENT == AGENT comes to, on whichever side each stands.
func (w witness) is(left, right ast.IsNode) outcome {
	if !isAgent(left) {
		left, right = right, left
	}
	if !isAgent(left) {
		return anything
	}
	if isAgent(right) {
		return certain(true)
	}
	if all := entities(right); len(all) == 1 {
		return certain(all[0] == w.uid)
	}
	return anything
}

// in is what AGENT in GROUP, or AGENT in [GROUP, …], comes to.
func (w witness) in(left, right ast.IsNode) outcome {
	if !isAgent(left) {
		return anything
	}
	of := []ast.IsNode{right}
	if set, ok := right.(ast.NodeTypeSet); ok {
		of = set.Elements
	}
	for _, n := range of {
		all := entities(n)
		if len(all) == 0 {
			return anything
		}
		if slices.ContainsFunc(all, func(uid cedargo.EntityUID) bool { return w.reached[uid] }) {
			return certain(true)
		}
	}
	return certain(false)
}

func certain(b bool) outcome { return outcome{yes: b, no: !b} }

// entities gives the entity that is written out, or those of a set that is one
// value.
func entities(n ast.IsNode) []cedargo.EntityUID {
	v, ok := n.(ast.NodeValue)
	if !ok {
		return nil
	}
	switch v := v.Value.(type) {
	case cedargo.EntityUID:
		return []cedargo.EntityUID{v}
	case cedargo.Set:
		var out []cedargo.EntityUID
		for e := range v.All() {
			uid, ok := e.(cedargo.EntityUID)
			if !ok {
				return nil
			}
			out = append(out, uid)
		}
		return out
	}
	return nil
}

// isAgent reports whether a node is what a witness is: principal,
// context.task.owner or context.requester.
func isAgent(n ast.IsNode) bool {
	of, ok := n.(ast.NodeTypeAccess)
	return isPrincipal(n) || ok && (of.Value == "requester" && isContext(of.Arg) || of.Value == "owner" && isHolder(of.Arg) && !isContext(of.Arg))
}

func namesAgent(n ast.IsNode) bool {
	found := false
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		found = found || isAgent(n)
		return !found
	})
	return found
}
