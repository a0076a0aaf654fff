package cedar

import (
	"iter"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/toolgrant/toolgrant/grants"
)

// entry is a policy under its id.
type entry struct {
	id     cedargo.PolicyID
	policy *cedargo.Policy
}

// route is the policies that could match one action on one resource. Every
// other policy's scope rules it out, and Cedar reads the scope first, so that
// such a policy can neither match nor err.
type route [][]entry

// All implements cedar's PolicyIterator.
func (r route) All() iter.Seq2[cedargo.PolicyID, *cedargo.Policy] {
	return func(yield func(cedargo.PolicyID, *cedargo.Policy) bool) {
		for _, list := range r {
			for _, e := range list {
				if !yield(e.id, e.policy) {
					return
				}
			}
		}
	}
}

// scope is what a policy's scope demands of action and resource: to be the
// entity or in it. The zero entity demands nothing.
type scope struct{ action, resource cedargo.EntityUID }

// index files each policy under its scope, once (once for each action of an
// "action in [...]"). What the scope says beyond that (the principal, "is
// TYPE") is left to Cedar.
//
// The schema gives each action all of its ancestors as parents, and they are a
// chain: of two of them, one is the parent of the other. So a policy that is
// filed under no action beside a parent of it is met once by a request.
type index map[scope][]entry

// add files a policy; base has the actions.
func (ix index) add(e entry, base cedargo.EntityMap) {
	p := (*ast.Policy)(e.policy.AST())
	var resource cedargo.EntityUID
	switch s := p.Resource.(type) {
	case ast.ScopeTypeEq:
		resource = s.Entity
	case ast.ScopeTypeIn:
		resource = s.Entity
	case ast.ScopeTypeIsIn:
		resource = s.Entity
	}
	for _, action := range scopeActions(p.Action, base) {
		key := scope{action, resource}
		ix[key] = append(ix[key], e)
	}
}

// scopeActions gives the actions that a policy is filed under. No request may
// meet it twice: an action beside one of its parents is left out.
func scopeActions(action ast.IsActionScopeNode, base cedargo.EntityMap) []cedargo.EntityUID {
	switch s := action.(type) {
	case ast.ScopeTypeEq:
		return []cedargo.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		return []cedargo.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		var out []cedargo.EntityUID
		for _, uid := range s.Entities {
			parents := base[uid].Parents
			if !slices.Contains(out, uid) && !slices.ContainsFunc(s.Entities, parents.Contains) {
				out = append(out, uid)
			}
		}
		return out
	}
	return []cedargo.EntityUID{{}}
}

// route gathers the policies for a request's action, with its parents, on a
// resource, with its parents.
func (ix index) route(actions, resources []cedargo.EntityUID) route {
	var r route
	demandsNothing := []cedargo.EntityUID{{}}
	for _, action := range slices.Concat(actions, demandsNothing) {
		for _, resource := range slices.Concat(resources, demandsNothing) {
			if list := ix[scope{action, resource}]; len(list) > 0 {
				r = append(r, list)
			}
		}
	}
	return r
}

// route gives the policies about an action on the tool; none for an action
// that is not about tools.
func (t *tool) route(action cedargo.EntityUID) route {
	switch string(action.ID) {
	case grants.ActionGrant:
		return t.grant
	case grants.ActionAskFor:
		return t.askFor
	case grants.ActionRevoke:
		return t.revoke
	}
	if action == t.action {
		return t.call
	}
	return nil
}

// kindRoute gives the policies about an action on tasks of a kind.
func (s *Set) kindRoute(action cedargo.EntityUID, name string) route {
	k, named := s.kinds[name]
	if !named {
		k = s.anyKind
	}
	if string(action.ID) == grants.ActionEndTask {
		return k.end
	}
	return k.start
}

// makeRoutes gathers the policies of every tool, MCP server and task kind.
func (s *Set) makeRoutes(ix index) {
	to := func(action string, resources ...cedargo.EntityUID) route {
		uid := actionUID(action)
		return ix.route(append(slices.Collect(s.base[uid].Parents.All()), uid), resources)
	}
	toKind := func(resources ...cedargo.EntityUID) kind {
		return kind{start: to(grants.ActionStartTask, resources...), end: to(grants.ActionEndTask, resources...)}
	}
	for uid, e := range s.base {
		if uid.Type != toolType {
			continue
		}
		id := string(uid.ID)
		resources := append(slices.Collect(e.Parents.All()), uid)
		of, _ := s.catalog.Tool(id)
		s.tools[id] = &tool{
			uid: uid, action: actionUID(grants.ActionCall + id), input: s.inputs[id], mcp: of.Server.MCP != nil,
			call:   to(grants.ActionCall+id, resources...),
			grant:  to(grants.ActionGrant, resources...),
			askFor: to(grants.ActionAskFor, resources...),
			revoke: to(grants.ActionRevoke, resources...),
		}
	}
	for _, of := range mcpServers(s.catalog) {
		at := &server{uid: cedargo.NewEntityUID(serverType, cedargo.String(of.ID)), routes: map[string]route{}}
		for action := range s.methods {
			at.routes[action] = to(action, at.uid)
		}
		s.servers[of.ID] = at
	}
	for at := range ix {
		if at.resource.Type == kindType {
			s.kinds[string(at.resource.ID)] = toKind(at.resource)
		}
	}
	s.anyKind = toKind()
}
