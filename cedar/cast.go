package cedar

import (
	"encoding/json"
	"maps"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Who plays in an example: names that the set knows, so that a person who tries
// out policies sees what they wrote.

// exampleKind is a kind whose tasks may have the tool ("": one that may start),
// so far as manifests say: the first with parameters, which then show, or else the
// first of entities.json.
func (s *Set) exampleKind(tool string) string {
	best, most := "some-kind", -1
	try := func(kind string) {
		m, bounded := s.manifests.Kind(kind)
		if bounded && tool != "" && !hasTool(m, tool) {
			return
		}
		params := 0
		if bounded && len(m.Params.Properties) > 0 {
			params = 1
		}
		if params > most {
			best, most = kind, params
		}
	}
	for _, d := range s.declared {
		if d.uid.Type == kindType {
			try(string(d.uid.ID))
		}
	}
	for _, kind := range s.manifests.Kinds() {
		try(kind)
	}
	return best
}

// exampleParams makes up what a task of the kind is started with; nil: it has no
// manifest.
func (s *Set) exampleParams(kind string) (json.RawMessage, error) {
	m, bounded := s.manifests.Kind(kind)
	if !bounded {
		return nil, nil
	}
	return strictjson.Canonical(exampleArg(m.Params))
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
