package cedar

import (
	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// kindsCompared gives the kinds of task that a node compares one with:
// `context.task.kind == "k"`, `context.grant.kind != "k"`, and
// `["k", "l"].contains(context.task.kind)`. To Cedar they are texts like any
// other, so a misspelt one would never match, and a forbid for it never forbid.
func kindsCompared(n ast.IsNode) []cedargo.EntityUID {
	var left, right ast.IsNode
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		left, right = n.Left, n.Right
	case ast.NodeTypeNotEquals:
		left, right = n.Left, n.Right
	case ast.NodeTypeContains:
		left, right = n.Left, n.Right
	default:
		return nil
	}
	switch {
	case isKind(left):
		return kindsIn(right)
	case isKind(right):
		return kindsIn(left)
	}
	return nil
}

// isKind reports whether the node is context.task.kind or context.grant.kind;
// a tool may have an argument of that name.
func isKind(n ast.IsNode) bool {
	kind, ok := n.(ast.NodeTypeAccess)
	if !ok || kind.Value != "kind" {
		return false
	}
	of, ok := kind.Arg.(ast.NodeTypeAccess)
	if !ok || of.Value != "task" && of.Value != "grant" {
		return false
	}
	v, ok := of.Arg.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

// kindsIn gives the texts of a literal, or of a set of literals.
func kindsIn(n ast.IsNode) []cedargo.EntityUID {
	var uids []cedargo.EntityUID
	add := func(v cedargo.Value) {
		if text, ok := v.(cedargo.String); ok {
			uids = append(uids, cedargo.NewEntityUID(kindType, text))
		}
	}
	switch n := n.(type) {
	case ast.NodeValue:
		add(n.Value)
		if set, ok := n.Value.(cedargo.Set); ok {
			for v := range set.All() {
				add(v)
			}
		}
	case ast.NodeTypeSet:
		for _, e := range n.Elements {
			uids = append(uids, kindsIn(e)...)
		}
	}
	return uids
}
