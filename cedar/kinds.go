package cedar

import (
	"errors"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

var errKindForm = errors.New(`context.task.kind and context.grant.kind may only be compared with what is written out: ` +
	`== "kind", != "kind", or ["kind", "kind"].contains(…); another form could hide a misspelt kind, which never matches`)

// Kinds are the kinds of task that this set knows, sorted: those that entities.json
// declares, and those that have a manifest. Its policies name no others. A task may
// be of another kind all the same, as far as a policy permits any.
func (s *Set) Kinds() []string {
	var kinds []string
	for uid := range s.base {
		if uid.Type == kindType {
			kinds = append(kinds, string(uid.ID))
		}
	}
	slices.Sort(kinds)
	return kinds
}

// kindsCompared gives the kinds of task that a condition compares one with. To
// Cedar they are texts like any other, so a misspelt one would never match, and
// a forbid for it never forbid. Only forms in which it can be found are allowed:
//
//	context.task.kind == "k"   context.grant.kind != "k"   ["k", "l"].contains(context.task.kind)
//
// and context, context.task and context.grant only as what a member is taken of.
func kindsCompared(condition ast.IsNode) ([]string, error) {
	var kinds []string
	stands, known := 0, 0 // places of a kind, or of a record with one; those in a known form
	ast.Inspect(ast.NewNode(condition), func(n ast.IsNode) bool {
		if isKind(n) || isHolder(n) {
			stands++
		}
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			if isHolder(n.Arg) {
				known++
			}
		case ast.NodeTypeHas:
			if isHolder(n.Arg) {
				known++
			}
		case ast.NodeTypeEquals:
			known += compared(n.Left, n.Right, &kinds)
		case ast.NodeTypeNotEquals:
			known += compared(n.Left, n.Right, &kinds)
		case ast.NodeTypeContains:
			if set, ok := literals(n.Left); ok && isKind(n.Right) {
				kinds = append(kinds, set...)
				known++
			}
		}
		return true
	})
	if known != stands {
		return nil, errKindForm
	}
	return kinds, nil
}

// compared counts a kind that is compared with a literal, and keeps the literal.
func compared(left, right ast.IsNode, kinds *[]string) int {
	if isKind(right) {
		left, right = right, left
	}
	text, ok := literal(right)
	if !isKind(left) || !ok {
		return 0
	}
	*kinds = append(*kinds, text)
	return 1
}

// isKind reports whether the node is context.task.kind or context.grant.kind;
// a tool may have an argument of that name.
func isKind(n ast.IsNode) bool {
	kind, ok := n.(ast.NodeTypeAccess)
	return ok && kind.Value == "kind" && isHolder(kind.Arg) && !isContext(kind.Arg)
}

// isHolder reports whether the node is context, context.task or context.grant.
func isHolder(n ast.IsNode) bool {
	of, ok := n.(ast.NodeTypeAccess)
	return isContext(n) || ok && (of.Value == "task" || of.Value == "grant") && isContext(of.Arg)
}

func isContext(n ast.IsNode) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

// literal gives a text that is written out.
func literal(n ast.IsNode) (string, bool) {
	v, ok := n.(ast.NodeValue)
	if !ok {
		return "", false
	}
	text, ok := v.Value.(cedargo.String)
	return string(text), ok
}

// literals gives the texts of a set that is written out.
func literals(n ast.IsNode) ([]string, bool) {
	var texts []string
	switch n := n.(type) {
	case ast.NodeValue:
		set, ok := n.Value.(cedargo.Set)
		if !ok {
			return nil, false
		}
		for v := range set.All() {
			text, ok := v.(cedargo.String)
			if !ok {
				return nil, false
			}
			texts = append(texts, string(text))
		}
		slices.Sort(texts)
	case ast.NodeTypeSet:
		for _, e := range n.Elements {
			text, ok := literal(e)
			if !ok {
				return nil, false
			}
			texts = append(texts, text)
		}
	default:
		return nil, false
	}
	return texts, true
}
