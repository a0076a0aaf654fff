package cedar

import (
	"fmt"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Whoever starts a task says what it is for; whoever is granted something in it
// reads what others wrote. Where one agent may do both, what it reads can talk it
// into a task of its own.

// twoRoles tells of permits by which one agent may start a task and be granted
// something in it: for each that grants, of the first that lets it start.
func (l *lint) twoRoles(policies []*parsed) []Finding {
	starts, gives := rolesOf(policies, l.starts), rolesOf(policies, l.gives)
	var out []Finding
	for _, grant := range gives {
		for _, start := range starts {
			if l.left--; l.left <= 0 || len(out) >= maxFaults {
				return out
			}
			if l.overlap(start.who, grant.who) && mayBeOneKind(start.kinds, grant.kinds) {
				out = append(out, grant.finding(CodeTwoRoles, grant.from,
					fmt.Sprintf("whom it lets be granted something may also start the task, by %q (%s): what such an agent reads can talk it into tasks of its own", start.id, start.at(start.from)),
					"add when { principal != context.task.owner }, or let another group start tasks"))
				break
			}
		}
	}
	return out
}

// role is a permit, whom it is about, and of which kinds of task (nil: any).
type role struct {
	*parsed
	who   cedargo.EntityUID
	kinds []string
}

// rolesOf gives the roles of some policies, without those that are about a part
// of whom their scope has: of these it is not known whom they share.
func rolesOf(policies []*parsed, some map[*parsed]bool) []role {
	var out []role
	for _, p := range policies {
		if !some[p] {
			continue
		}
		if who, sure := whom(p.ast()); sure {
			out = append(out, role{p, who, kindsOf(p.ast())})
		}
	}
	return out
}

// noteGives notes which permits may grant something to the owner of the task.
func (l *lint) noteGives(q *asked, may prospects) {
	for _, policy := range q.route.All() {
		tree := (*ast.Policy)(policy.AST())
		all := conjuncts(tree)
		if tree.Effect == ast.EffectForbid && isEverybody(principalOf(tree)) && mayMatch(tree.Resource, q.resource, l.base) &&
			len(all) == 1 && all[0].isOwner(false) {
			return // a forbid for all that are both
		}
	}
	for _, p := range may.by {
		if !slices.ContainsFunc(conjuncts(p.ast()), func(c conjunct) bool { return c.isOwner(true) }) {
			l.gives[p] = true
		}
	}
}

// isOwner reports whether a conjunct says that the principal is (or, differs: is
// not) who started the task or who asks.
func (c conjunct) isOwner(differs bool) bool {
	c = c.plain()
	eq, ok := c.node.(ast.NodeTypeEquals)
	if !ok || c.negated != differs {
		return false
	}
	other := eq.Right
	if !isPrincipal(eq.Left) {
		other = eq.Left
		if !isPrincipal(eq.Right) {
			return false
		}
	}
	return isOther(other)
}

// isOther reports whether a node is another agent than the principal that a
// question is about: context.task.owner or context.requester.
func isOther(n ast.IsNode) bool {
	of, ok := n.(ast.NodeTypeAccess)
	return ok && (of.Value == "requester" && isContext(of.Arg) || of.Value == "owner" && isHolder(of.Arg) && !isContext(of.Arg))
}

// whom gives the agent or group that a policy is about, by its scope or else by
// one condition; not sure, if other conditions narrow it further.
func whom(p *ast.Policy) (who cedargo.EntityUID, sure bool) {
	who = principalOf(p)
	for _, c := range conjuncts(p) {
		c = c.plain()
		in, is := memberOf(c.node)
		switch {
		case c.isOwner(c.negated):
		case is && !c.negated && isEverybody(who):
			who = in
		case namesVariable(c.node, "principal"), namesOther(c.node):
			return who, false
		}
	}
	return who, true
}

// memberOf reads "principal == ENTITY" and "principal in ENTITY".
func memberOf(n ast.IsNode) (cedargo.EntityUID, bool) {
	var left, right ast.IsNode
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		left, right = n.Left, n.Right
	case ast.NodeTypeIn:
		left, right = n.Left, n.Right
	case ast.NodeTypeIsIn:
		left, right = n.Left, n.Entity
	}
	v, ok := right.(ast.NodeValue)
	if !ok || !isPrincipal(left) {
		return cedargo.EntityUID{}, false
	}
	uid, ok := v.Value.(cedargo.EntityUID)
	return uid, ok
}

func namesOther(n ast.IsNode) bool {
	found := false
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		found = found || isOther(n)
		return !found
	})
	return found
}

// kindsOf gives the kinds of task that a policy is about; nil: any.
func kindsOf(p *ast.Policy) []string {
	var kinds []string
	switch s := p.Resource.(type) {
	case ast.ScopeTypeEq:
		if s.Entity.Type == kindType {
			kinds = []string{string(s.Entity.ID)}
		}
	case ast.ScopeTypeIn:
		if s.Entity.Type == kindType {
			kinds = []string{string(s.Entity.ID)}
		}
	}
	for _, c := range conjuncts(p) {
		c = c.plain()
		if kinds != nil || c.negated {
			continue
		}
		switch n := c.node.(type) {
		case ast.NodeTypeEquals:
			compared(n.Left, n.Right, &kinds)
		case ast.NodeTypeContains:
			if set, ok := literals(n.Left); ok && isKind(n.Right) {
				kinds = set
			}
		}
	}
	return kinds
}

func mayBeOneKind(a, b []string) bool {
	return a == nil || b == nil || slices.ContainsFunc(a, func(kind string) bool { return slices.Contains(b, kind) })
}
