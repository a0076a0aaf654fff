package cedar

import (
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// asked is a question as far as it is known before anybody asks it: an action on
// a resource, by whomever, with whatever arguments, under a grant or not.
type asked struct {
	*world
	action, resource cedargo.EntityUID
	context          resolved.RecordType
	granted          bool   // it comes under a grant; only what may
	class            string // of questions in which an expression comes to the same, unless it names action or resource
	route            route
}

// body is what the conditions of a policy may come to.
func (q *asked) body(p *ast.Policy) outcome {
	all := outcome{yes: true}
	for _, c := range conjuncts(p) {
		holds := q.of(c.node)
		if c.negated {
			holds = holds.not()
		}
		all = all.then(holds, outcome{no: true})
	}
	return all
}

// of is what an expression may come to.
func (q *asked) of(n ast.IsNode) outcome {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return q.of(n.Left).then(q.of(n.Right), outcome{no: true})
	case ast.NodeTypeOr:
		return q.of(n.Left).then(outcome{yes: true}, q.of(n.Right))
	case ast.NodeTypeNot:
		return q.of(n.Arg).not()
	case ast.NodeTypeIfThenElse:
		return q.of(n.If).then(q.of(n.Then), q.of(n.Else))
	case ast.NodeTypeHas:
		if isContext(n.Arg) {
			return q.has(n.Value)
		}
	case ast.NodeTypeIs:
		if isPrincipal(n.Left) { // there is no principal but an agent
			return outcome{yes: n.EntityType == agentType, no: n.EntityType != agentType}
		}
	}
	if !isFixed(n) {
		return anything
	}
	v, err := eval.Eval(n, eval.Env{Entities: q.base, Action: q.action, Resource: q.resource})
	return outcome{yes: err == nil && v == cedargo.True, no: err == nil && v == cedargo.False}
}

// has is what "context has NAME" comes to.
func (q *asked) has(name cedargo.String) outcome {
	member, known := q.context[name]
	switch {
	case !known:
		return outcome{no: true}
	case name == "grant":
		return outcome{yes: q.granted, no: !q.granted}
	case member.Optional:
		return anything
	}
	return outcome{yes: true}
}

// conjunct is a part of a policy's conditions; all of them must hold.
type conjunct struct {
	node    ast.IsNode
	negated bool // holds if the node is false
}

// conjuncts splits the conditions of a policy, in the order in which Cedar
// evaluates them: a "when" at &&, an "unless" at ||. The first one that does not
// hold or errs is the last that Cedar looks at.
func conjuncts(p *ast.Policy) []conjunct {
	var out []conjunct
	for _, c := range p.Conditions {
		out = split(out, c.Body, c.Condition == ast.ConditionUnless)
	}
	return out
}

func split(out []conjunct, n ast.IsNode, negated bool) []conjunct {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		if !negated {
			return split(split(out, n.Left, false), n.Right, false)
		}
	case ast.NodeTypeOr:
		if negated {
			return split(split(out, n.Left, true), n.Right, true)
		}
	case ast.NodeTypeNot:
		return split(out, n.Arg, !negated)
	}
	return append(out, conjunct{n, negated})
}

// plain writes != as what it is: a negated ==.
func (c conjunct) plain() conjunct {
	if n, unequal := c.node.(ast.NodeTypeNotEquals); unequal {
		return conjunct{ast.NodeTypeEquals(n), !c.negated}
	}
	return c
}

// String writes the conjunct as a policy has it, but for layout.
func (c conjunct) String() string {
	text := textOf(c.node)
	if c.negated {
		return "not (" + text + ")"
	}
	return text
}

// textOf writes an expression in Cedar.
func textOf(n ast.IsNode) string {
	text := string((*cedarast.Policy)(ast.Permit().When(ast.NewNode(n))).MarshalCedar())
	_, text, _ = strings.Cut(text, "when {")
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "};"))
}

func isPrincipal(n ast.IsNode) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == "principal"
}

// namesVariable reports whether an expression names one of the variables.
func namesVariable(n ast.IsNode, variables ...cedargo.String) bool {
	found := false
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		v, ok := n.(ast.NodeTypeVariable)
		for _, name := range variables {
			found = found || ok && v.Name == name
		}
		return !found
	})
	return found
}
