package cedar

import (
	"fmt"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Whoever starts a task says what it is for; whoever is granted something in it
// reads what others wrote. Where one agent may do both, what it reads can talk it
// into a task of its own.

// twoRoles tells of permits by which one agent may start a task and be granted
// something in it: for each that grants, of the first that lets it start.
func (l *lint) twoRoles(policies []*parsed) []Finding {
	permits := slices.DeleteFunc(slices.Clone(policies), func(p *parsed) bool { return l.starts[p] == nil && l.gives[p] == nil })
	all := l.witnesses(permits)
	starts, gives := l.rolesOf(permits, l.starts, all), l.rolesOf(permits, l.gives, all)
	var out []Finding
	for _, grant := range gives {
		for _, start := range starts {
			if l.left--; l.left <= 0 || len(out) >= maxFaults {
				return out
			}
			if start.shares(grant) && mayBeOneKind(start.kinds, grant.kinds) {
				out = append(out, grant.finding(CodeTwoRoles, grant.from,
					fmt.Sprintf("whom it lets be granted something may also start the task, by %q (%s): what such an agent reads can talk it into tasks of its own", start.id, start.at(start.from)),
					"add when { principal != context.task.owner }, or let another group start tasks"))
				break
			}
		}
	}
	return out
}

// role is a permit, whom it certainly lets, and for which kinds of task (nil:
// any).
type role struct {
	*parsed
	who   map[cedargo.EntityUID]bool // witnesses
	kinds []string
}

func (r role) shares(other role) bool {
	for uid := range r.who {
		if other.who[uid] {
			return true
		}
	}
	return false
}

// exceptions is, of the questions that a permit may permit, which forbids may
// except somebody there: their ids, joined -> the forbids. Most questions have the
// same ones.
type exceptions map[string][]*parsed

// rolesOf tries the permits on the witnesses: one is let if in some question no
// forbid excepts it.
func (l *lint) rolesOf(policies []*parsed, some map[*parsed]exceptions, all []witness) []role {
	var out []role
	for _, p := range policies {
		if some[p] == nil {
			continue
		}
		r := role{p, map[cedargo.EntityUID]bool{}, kindsOf(p.ast())}
		for _, w := range all {
			if l.left--; l.left <= 0 {
				return nil
			}
			if !w.matches(p.ast()) {
				continue
			}
			for _, forbids := range some[p] {
				l.left -= len(forbids)
				if !slices.ContainsFunc(forbids, func(f *parsed) bool { return w.matches(f.ast()) }) {
					r.who[w.uid] = true
					break
				}
			}
		}
		out = append(out, r)
	}
	return out
}

// noteRole notes which permits may permit a question, and but for whom: by the
// forbids that hang on nothing but who it is.
func (l *lint) noteRole(roles map[*parsed]exceptions, q *asked, may prospects) {
	if len(may.by) == 0 {
		return
	}
	var forbids []*parsed
	for _, policy := range q.route.All() {
		tree := (*ast.Policy)(policy.AST())
		if tree.Effect == ast.EffectForbid && mayMatch(tree.Resource, q.resource, l.base) && l.hangsOnWho(q, tree) {
			forbids = append(forbids, l.policies[policy])
		}
	}
	slices.SortFunc(forbids, func(a, b *parsed) int { return byPlace(a.policy, b.policy) })
	var key strings.Builder
	for _, f := range forbids {
		key.WriteString(f.id + "\x00")
	}
	for _, p := range may.by {
		if roles[p] == nil {
			roles[p] = exceptions{}
		}
		roles[p][key.String()] = forbids
	}
}

// hangsOnWho reports whether all conditions hold in a question that name no agent.
func (l *lint) hangsOnWho(q *asked, p *ast.Policy) bool {
	for _, c := range conjuncts(p) {
		l.left--
		if namesAgent(c.node) {
			continue
		}
		holds := q.of(c.node)
		if c.negated {
			holds = holds.not()
		}
		if holds != (outcome{yes: true}) {
			return false
		}
	}
	return true
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
