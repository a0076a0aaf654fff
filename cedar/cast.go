package cedar

import (
	"maps"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/toolgrant/toolgrant/grants"
)

// Who plays in an example: names that the set knows, so that a person who tries
// out policies sees what they wrote.

// exampleKind is the first kind of entities.json.
func (s *Set) exampleKind() string {
	for _, d := range s.declared {
		if d.uid.Type == kindType {
			return string(d.uid.ID)
		}
	}
	return "some-kind"
}

// cast finds an agent: the first whom a permit of the first of the routes names,
// or else of the second; or else one of the first group of entities.json.
func (s *Set) cast(subject string, routes ...route) grants.Principal {
	for _, r := range routes {
		for _, policy := range slices.SortedFunc(maps.Values(maps.Collect(r.All())), byPlace) {
			p := (*ast.Policy)(policy.AST())
			if p.Effect != ast.EffectPermit {
				continue
			}
			switch scope := p.Principal.(type) {
			case ast.ScopeTypeEq:
				return s.member(subject, scope.Entity)
			case ast.ScopeTypeIn:
				return s.member(subject, scope.Entity)
			case ast.ScopeTypeIsIn:
				return s.member(subject, scope.Entity)
			}
		}
	}
	for _, d := range s.declared {
		if d.uid.Type == groupType {
			return s.member(subject, d.uid)
		}
	}
	return grants.Principal{Issuer: s.exampleIssuer(), Subject: subject}
}

// member gives the agent, or one of the group: the first that entities.json puts
// in it or, if there is none, one whose identity says so.
func (s *Set) member(subject string, of cedargo.EntityUID) grants.Principal {
	if p, ok := agentOf(string(of.ID)); ok && of.Type == agentType {
		return p
	}
	for _, d := range s.declared {
		if d.uid.Type != agentType {
			continue
		}
		in := map[cedargo.EntityUID]bool{}
		if s.reach(d.uid, in); in[of] {
			return s.member(subject, d.uid)
		}
	}
	return grants.Principal{Issuer: s.exampleIssuer(), Subject: subject, Groups: []string{string(of.ID)}}
}

func (s *Set) exampleIssuer() string {
	if len(s.aliases) > 0 {
		return s.aliases[0]
	}
	return "corp"
}
