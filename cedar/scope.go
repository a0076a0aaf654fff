package cedar

import (
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/toolgrant/toolgrant/grants"
)

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

// matchable reports whether a policy's scope can match anything. The validator
// compares types alone: to it, one tool's call action goes with another tool.
func (w *world) matchable(p *ast.Policy) bool {
	for _, action := range w.schema.Actions {
		if action.AppliesTo == nil || !lets(p.Action, action.Entity) {
			continue
		}
		if slices.Contains(action.AppliesTo.Resources, kindType) || w.someTool(p.Resource, action) {
			return true
		}
	}
	return false
}

// someTool reports whether the scope lets through a tool that the action can be
// about.
func (w *world) someTool(scope ast.IsResourceScopeNode, action resolved.Action) bool {
	if id, ok := strings.CutPrefix(string(action.Entity.UID.ID), grants.ActionCall); ok {
		return mayMatch(scope, cedargo.NewEntityUID(toolType, cedargo.String(id)), w.base)
	}
	for id := range w.inputs {
		if mayMatch(scope, cedargo.NewEntityUID(toolType, cedargo.String(id)), w.base) {
			return true
		}
	}
	return false
}
