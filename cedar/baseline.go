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

// Permit is a policy that may permit calls without a grant.
type Permit struct {
	ID    string   // of the policy
	At    string   // where it begins, FILE:LINE
	Tools []string // SERVER/TOOL, sorted; never empty
}

// Baseline lists the policies that may permit a call without a grant, and the
// tools for which they may, in the order of the files. It leaves nothing out,
// and may list too much: of what depends on who calls or on the arguments it
// assumes the worst. A tool that a policy forbids to everybody without a grant
// is not listed.
func (s *Set) Baseline() []Permit {
	tools := map[*cedargo.Policy][]string{} // a permit -> what it may permit
	for _, id := range slices.Sorted(maps.Keys(s.tools)) {
		t := s.tools[id]
		call := outside{world: s.world, tool: t, context: s.schema.Actions[t.action].AppliesTo.Context}
		if call.forbidden() {
			continue
		}
		for _, policy := range t.call.All() {
			if p := (*ast.Policy)(policy.AST()); p.Effect == ast.EffectPermit && call.matches(p).yes {
				tools[policy] = append(tools[policy], id)
			}
		}
	}
	var out []Permit
	for _, policy := range slices.SortedFunc(maps.Keys(tools), byPlace) {
		at := policy.Position()
		out = append(out, Permit{
			ID: string(policy.Annotations()["id"]), At: fmt.Sprintf("%s:%d", at.Filename, at.Line), Tools: tools[policy],
		})
	}
	return out
}

// byPlace orders policies as their files have them.
func byPlace(a, b *cedargo.Policy) int {
	p, q := a.Position(), b.Position()
	return cmp.Or(cmp.Compare(p.Filename, q.Filename), cmp.Compare(p.Offset, q.Offset))
}

// outside is a call of one tool without a grant, by anybody.
type outside struct {
	*world
	*tool
	context resolved.RecordType
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

// forbidden reports whether one of the policies forbids the call, whoever it is
// and whatever the arguments.
func (o outside) forbidden() bool {
	for _, policy := range o.call.All() {
		if p := (*ast.Policy)(policy.AST()); p.Effect == ast.EffectForbid && o.matches(p) == (outcome{yes: true}) {
			return true
		}
	}
	return false
}

// matches is what a policy of the tool's route may come to.
func (o outside) matches(p *ast.Policy) outcome {
	if !mayMatch(p.Resource, o.uid, o.base) {
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
	v, err := eval.Eval(n, eval.Env{Entities: o.base, Action: o.action, Resource: o.uid})
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
