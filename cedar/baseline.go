package cedar

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// Permit is a policy that may permit something without a grant. Of Tools and
// Methods one at least is not empty.
type Permit struct {
	ID      string   // of the policy
	At      string   // where it begins, FILE:LINE
	Tools   []string // that may be called, SERVER/TOOL; sorted
	Methods []string // what MCP servers may be asked, "SERVER mcp:METHOD"; sorted
}

// Baseline lists the policies that may permit without a grant a call, or what is
// asked of an MCP server, and what they may permit, in the order of the files.
// It leaves nothing out, and may list too much: of what depends on who asks or on
// the arguments it assumes the worst. What a policy forbids to everybody without
// a grant is not listed.
func (s *Set) Baseline() []Permit {
	all := map[*cedargo.Policy]*Permit{}
	may := func(o outside, add func(*Permit)) {
		for policy := range o.permits() {
			p := all[policy]
			if p == nil {
				at := policy.Position()
				p = &Permit{ID: string(policy.Annotations()["id"]), At: fmt.Sprintf("%s:%d", at.Filename, at.Line)}
				all[policy] = p
			}
			add(p)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.tools)) {
		may(s.callOutside(id), func(p *Permit) { p.Tools = append(p.Tools, id) })
	}
	for _, id := range slices.Sorted(maps.Keys(s.servers)) {
		for _, action := range slices.Sorted(maps.Keys(s.methods)) {
			may(s.methodOutside(id, action), func(p *Permit) { p.Methods = append(p.Methods, id+" "+action) })
		}
	}
	var out []Permit
	for _, policy := range slices.SortedFunc(maps.Keys(all), byPlace) {
		out = append(out, *all[policy])
	}
	return out
}

// byPlace orders policies as their files have them.
func byPlace(a, b *cedargo.Policy) int {
	p, q := a.Position(), b.Position()
	return cmp.Or(cmp.Compare(p.Filename, q.Filename), cmp.Compare(p.Offset, q.Offset))
}

// outside is a question that anybody asks without a grant.
type outside struct {
	*world
	action, resource cedargo.EntityUID
	route            route
	context          resolved.RecordType
}

func (s *Set) callOutside(id string) outside {
	t := s.tools[id]
	return s.outside(t.action, t.uid, t.call)
}

func (s *Set) methodOutside(id, action string) outside {
	at := s.servers[id]
	return s.outside(s.methods[action].uid, at.uid, at.routes[action])
}

func (s *Set) outside(action, resource cedargo.EntityUID, r route) outside {
	return outside{s.world, action, resource, r, s.schema.Actions[action].AppliesTo.Context}
}

// permits gives the policies that may permit it, and what each may come to; none
// if it is forbidden to everybody.
func (o outside) permits() map[*cedargo.Policy]outcome {
	if o.forbidden() {
		return nil
	}
	out := map[*cedargo.Policy]outcome{}
	for _, policy := range o.route.All() {
		p := (*ast.Policy)(policy.AST())
		if p.Effect != ast.EffectPermit {
			continue
		}
		if may := o.matches(p); may.yes {
			out[policy] = may
		}
	}
	return out
}

// outcome is what a condition may come to. Neither: it errs, and then nothing
// is permitted.
type outcome struct{ yes, no bool }

var anything = outcome{yes: true, no: true}

func (o outcome) not() outcome { return outcome{yes: o.no, no: o.yes} }

// then is what "if o then a else b" may come to; && and || are two such ifs.
func (o outcome) then(a, b outcome) outcome {
	return outcome{yes: o.yes && a.yes || o.no && b.yes, no: o.yes && a.no || o.no && b.no}
}

// forbidden reports whether one of the policies forbids it, whoever asks and
// whatever the arguments.
func (o outside) forbidden() bool {
	for _, policy := range o.route.All() {
		if p := (*ast.Policy)(policy.AST()); p.Effect == ast.EffectForbid && o.matches(p) == (outcome{yes: true}) {
			return true
		}
	}
	return false
}

// matches is what a policy of the route may come to.
func (o outside) matches(p *ast.Policy) outcome {
	if !mayMatch(p.Resource, o.resource, o.base) {
		return outcome{no: true}
	}
	all := anything
	switch p.Principal.(type) {
	case ast.ScopeTypeAll, ast.ScopeTypeIs: // there is no principal but an agent
		all = outcome{yes: true}
	}
	for _, c := range p.Conditions {
		holds := o.of(c.Body)
		if c.Condition == ast.ConditionUnless {
			holds = holds.not()
		}
		all = all.then(holds, outcome{no: true})
	}
	return all
}

// of is what an expression may come to.
func (o outside) of(n ast.IsNode) outcome {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return o.of(n.Left).then(o.of(n.Right), outcome{no: true})
	case ast.NodeTypeOr:
		return o.of(n.Left).then(outcome{yes: true}, o.of(n.Right))
	case ast.NodeTypeNot:
		return o.of(n.Arg).not()
	case ast.NodeTypeIfThenElse:
		return o.of(n.If).then(o.of(n.Then), o.of(n.Else))
	case ast.NodeTypeHas:
		if isContext(n.Arg) {
			return o.has(n.Value)
		}
	}
	if !isFixed(n) {
		return anything
	}
	v, err := eval.Eval(n, eval.Env{Entities: o.base, Action: o.action, Resource: o.resource})
	return outcome{yes: err == nil && v == cedargo.True, no: err == nil && v == cedargo.False}
}

// has is what "context has NAME" may come to.
func (o outside) has(name cedargo.String) outcome {
	member, known := o.context[name]
	switch {
	case !known || name == "grant":
		return outcome{no: true}
	case member.Optional:
		return anything
	}
	return outcome{yes: true}
}

// isFixed reports whether an expression depends on action and resource at most.
func isFixed(n ast.IsNode) bool {
	fixed := true
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		if v, ok := n.(ast.NodeTypeVariable); ok && (v.Name == "principal" || v.Name == "context") {
			fixed = false
		}
		return fixed
	})
	return fixed
}
