package cedar

import (
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/toolgrant/toolgrant/catalog"
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

// mayMatch reports whether the scope lets the tool or server through.
func mayMatch(scope ast.IsResourceScopeNode, resource cedargo.EntityUID, base cedargo.EntityMap) bool {
	in := func(uid cedargo.EntityUID) bool { return resource == uid || base[resource].Parents.Contains(uid) }
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return resource == s.Entity
	case ast.ScopeTypeIn:
		return in(s.Entity)
	case ast.ScopeTypeIs:
		return s.Type == resource.Type
	case ast.ScopeTypeIsIn:
		return s.Type == resource.Type && in(s.Entity)
	}
	return true
}

// matchable reports whether a policy's scope can match anything. The validator
// compares types alone: to it, one tool's call action goes with another tool,
// and an action about MCP servers with any server.
func (w *world) matchable(p *ast.Policy) bool {
	for _, action := range w.schema.Actions {
		if action.AppliesTo == nil || !lets(p.Action, action.Entity) {
			continue
		}
		if w.some(p.Resource, action.Entity.UID) {
			return true
		}
	}
	return false
}

// some reports whether the scope lets through something that the action can be
// about.
func (w *world) some(scope ast.IsResourceScopeNode, action cedargo.EntityUID) bool {
	about := func(t cedargo.EntityType, id string) bool {
		return mayMatch(scope, cedargo.NewEntityUID(t, cedargo.String(id)), w.base)
	}
	if id, ok := strings.CutPrefix(string(action.ID), grants.ActionCall); ok {
		return about(toolType, id)
	}
	switch id := string(action.ID); {
	case id == grants.ActionStartTask || id == grants.ActionEndTask:
		return aboutKinds(scope)
	case w.methods[id] != nil:
		return slices.ContainsFunc(mcpServers(w.catalog), func(s *catalog.Server) bool { return about(serverType, s.ID) })
	}
	for id := range w.inputs {
		if about(toolType, id) {
			return true
		}
	}
	return false
}

// aboutKinds reports whether the scope lets a task kind through; it may be one
// that nothing declares.
func aboutKinds(scope ast.IsResourceScopeNode) bool {
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		return s.Entity.Type == kindType
	case ast.ScopeTypeIn:
		return s.Entity.Type == kindType
	case ast.ScopeTypeIs:
		return s.Type == kindType
	case ast.ScopeTypeIsIn:
		return s.Type == kindType && s.Entity.Type == kindType
	}
	return true
}
