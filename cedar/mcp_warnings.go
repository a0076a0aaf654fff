package cedar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/toolgrant/toolgrant/catalog"
)

// opened gives, by policy, what it permits to everybody without a grant, though
// no start-up needs it: "SERVER mcp:METHOD", sorted. What needs no grant to begin
// is what a grant does not cover.
func (s *Set) opened() map[*cedargo.Policy][]string {
	out := map[*cedargo.Policy][]string{}
	for _, id := range slices.Sorted(maps.Keys(s.servers)) {
		for _, action := range slices.Sorted(maps.Keys(s.methods)) {
			if !s.methods[action].Grant {
				continue
			}
			for policy, may := range s.methodOutside(id, action).permits() {
				if !may.no {
					out[policy] = append(out[policy], id+" "+action)
				}
			}
		}
	}
	return out
}

// opensMore tells of what a policy opens and does not name.
func opensMore(p *parsed, opened []string) []Finding {
	var named []string
	switch s := p.ast().Action.(type) {
	case ast.ScopeTypeEq:
		named = append(named, string(s.Entity.ID))
	case ast.ScopeTypeIn:
		named = append(named, string(s.Entity.ID))
	case ast.ScopeTypeInSet:
		for _, uid := range s.Entities {
			named = append(named, string(uid.ID))
		}
	}
	var actions, servers []string
	for _, text := range opened {
		server, action, _ := strings.Cut(text, " ")
		if !slices.Contains(named, action) {
			actions, servers = append(actions, action), append(servers, server)
		}
	}
	if len(actions) == 0 {
		return nil
	}
	slices.Sort(actions)
	return []Finding{p.finding(CodeOpensMore, p.from,
		fmt.Sprintf("it opens %s at %s to everybody, without a grant", strings.Join(slices.Compact(actions), ", "), strings.Join(slices.Compact(servers), ", ")),
		"if that is meant, name the actions, and if not, those of start-up alone (see the policy mcp-start-up-needs-no-grant)")}
}

// unspoken tells of a policy that is only about what its MCP servers cannot be
// asked, in any revision that the catalogue lets them speak.
func (s *Set) unspoken(p *parsed) []Finding {
	var actions []string
	for uid, action := range s.schema.Actions {
		if action.AppliesTo == nil || !lets(p.ast().Action, action.Entity) {
			continue
		}
		m := s.methods[string(uid.ID)]
		if m == nil {
			return nil
		}
		for _, server := range mcpServers(s.catalog) {
			at := cedargo.NewEntityUID(serverType, cedargo.String(server.ID))
			if _, speaks := revisionFor(server, m.Method); speaks && mayMatch(p.ast().Resource, at, s.base) {
				return nil
			}
		}
		actions = append(actions, string(uid.ID))
	}
	slices.Sort(actions)
	return []Finding{p.finding(CodeNotSpoken, p.from,
		"it is about nothing: no server that it is about speaks a revision of MCP with "+strings.Join(actions, " or "), "")}
}

// begins are the methods with which a client begins: one until 2025-11-25, and
// one since, by which it may ask what the server is.
var begins = []string{"mcp:initialize", "mcp:server/discover"}

// unreachable tells of the MCP servers with which nobody can begin.
func (s *Set) unreachable() []Finding {
	var out []Finding
	for _, server := range mcpServers(s.catalog) {
		var needs []string
		for _, action := range begins {
			if _, speaks := revisionFor(server, s.methods[action].Method); speaks {
				needs = append(needs, action)
			}
		}
		may := func(action string) bool { return s.mayAsk(server, action) }
		if !slices.ContainsFunc(needs, may) {
			out = append(out, Finding{
				Code: CodeCannotBegin,
				Text: fmt.Sprintf("MCP server %q: no policy permits %s, so that no client can begin", server.ID, strings.Join(needs, " or ")),
				Hint: "the policy mcp-start-up-needs-no-grant does",
			})
		}
	}
	return out
}

func (s *Set) mayAsk(server *catalog.Server, action string) bool {
	return len(s.methodOutside(server.ID, action).permits()) > 0
}
