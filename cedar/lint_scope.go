package cedar

import (
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/toolgrant/toolgrant/grants"
)

// principals holds, of policies by whom their scope is about, the one that stands
// first in the files: an agent or group -> policy, the zero entity for everybody.
type principals map[cedargo.EntityUID]*parsed

func (ps principals) add(p *parsed) {
	who := principalOf(p.ast())
	if first := ps[who]; first == nil || byPlace(p.policy, first.policy) < 0 {
		ps[who] = p
	}
}

// over gives a policy, other than p, whose scope has in it whoever may be in p's.
// Of policies about the same, p among them, the first is over the others.
func (ps principals) over(p *parsed, w *world) *parsed {
	who := principalOf(p.ast())
	if first := ps[who]; first != nil && first != p {
		return first
	}
	wider := map[cedargo.EntityUID]bool{{}: true}
	if !isEverybody(who) {
		w.reach(who, wider)
	}
	delete(wider, who)
	var over *parsed
	for uid := range wider {
		if p := ps[uid]; p != nil && (over == nil || byPlace(p.policy, over.policy) < 0) {
			over = p
		}
	}
	return over
}

// principalOf gives whom a policy's scope is about.
func principalOf(p *ast.Policy) cedargo.EntityUID {
	switch s := p.Principal.(type) {
	case ast.ScopeTypeEq:
		return s.Entity
	case ast.ScopeTypeIn:
		return s.Entity
	case ast.ScopeTypeIsIn:
		return s.Entity
	}
	return cedargo.EntityUID{} // there is no principal but an agent, so that "is" says nothing
}

func isEverybody(who cedargo.EntityUID) bool { return who == cedargo.EntityUID{} }

// width orders what a policy's scope says of the resource: the narrower, the
// higher.
func width(p *ast.Policy) int {
	switch p.Resource.(type) {
	case ast.ScopeTypeEq:
		return 2
	case ast.ScopeTypeIn, ast.ScopeTypeIsIn:
		return 1
	}
	if eq, ok := p.Action.(ast.ScopeTypeEq); ok && strings.HasPrefix(string(eq.Entity.ID), grants.ActionCall) {
		return 2 // the action names the tool
	}
	return 0
}
