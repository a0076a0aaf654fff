package cedar

import (
	"maps"
	"slices"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// maxLook bounds the steps of looking over a set: a reload must not take long,
// however many policies and tools there are.
const maxLook = 1_000_000

// lint looks over a set of policies, question by question: what may permit it,
// and what decides it whoever asks.
type lint struct {
	*Set
	policies map[*cedargo.Policy]*parsed
	memo     map[memoKey]outcome
	fixed    map[*cedargo.Policy]bool // its conditions name action or resource
	left     int                      // steps

	fates   map[*parsed]*fate
	copies  map[*parsed]*parsed    // policy -> an earlier one that says the same
	outlook map[string]*prospect   // SERVER/TOOL -> what may become of it
	starts  map[*parsed]exceptions // permits that may let somebody start a task
	gives   map[*parsed]exceptions // permits that may let somebody be granted something
}

type memoKey struct {
	policy *cedargo.Policy
	class  string
}

func (s *Set) newLint(policies []*parsed) *lint {
	l := &lint{
		Set: s, policies: map[*cedargo.Policy]*parsed{}, memo: map[memoKey]outcome{}, fixed: map[*cedargo.Policy]bool{}, left: maxLook,
		fates: map[*parsed]*fate{}, outlook: map[string]*prospect{}, starts: map[*parsed]exceptions{}, gives: map[*parsed]exceptions{},
	}
	for _, p := range policies {
		l.policies[p.policy] = p
		l.fates[p] = &fate{}
		l.fixed[p.policy] = slices.ContainsFunc(p.ast().Conditions, func(c ast.ConditionType) bool {
			return namesVariable(c.Body, "action", "resource")
		})
	}
	return l
}

// lintAll gives the findings that come of looking at questions, as many as are
// told.
func (s *Set) lintAll(policies []*parsed) []Finding {
	l := s.newLint(policies)
	if !l.look() {
		return []Finding{{Code: CodeTooMuch, Text: "there are so many policies and tools that they were not looked over: what is moot, or cannot be granted, is not told",
			Hint: "few policies about sets and groups say more than many about each tool"}}
	}
	l.copies = copiesOf(policies)
	out := l.unused()
	for _, p := range policies {
		if len(out) >= maxFaults {
			break
		}
		out = append(out, l.moot(p)...)
		out = append(out, l.writes(p)...)
	}
	return append(out, l.twoRoles(policies)...)
}

// look puts every question that there can be; false if they are too many.
func (l *lint) look() bool {
	for _, id := range slices.Sorted(maps.Keys(l.tools)) {
		t := l.tools[id]
		at := &prospect{}
		l.outlook[id] = at
		for _, action := range []string{grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke} {
			q := l.asked(actionUID(action), t.uid, t.route(actionUID(action)), action, false)
			switch may := l.put(q); action {
			case grants.ActionGrant:
				at.grant = may
				l.noteRole(l.gives, q, may)
			case grants.ActionAskFor:
				at.askFor = may
			default:
				at.revoke = may
			}
		}
		class := "call"
		if t.mcp {
			class = "call by MCP"
		}
		at.outside = l.put(l.asked(t.action, t.uid, t.call, class, false))
		at.inside = l.put(l.asked(t.action, t.uid, t.call, class, true))
	}
	l.lookAtTasks()
	l.lookAtServers()
	return l.left > 0
}

// lookAtTasks puts the questions about kinds of task: those that are declared
// or named, and any other.
func (l *lint) lookAtTasks() {
	kinds := map[string]bool{"": true} // no task is of this kind: it stands for any other
	for uid := range l.base {
		if uid.Type == kindType {
			kinds[string(uid.ID)] = true
		}
	}
	for name := range l.kinds {
		kinds[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		uid := cedargo.NewEntityUID(kindType, cedargo.String(name))
		for _, action := range []string{grants.ActionStartTask, grants.ActionEndTask} {
			q := l.asked(actionUID(action), uid, l.kindRoute(actionUID(action), name), action, false)
			if may := l.put(q); action == grants.ActionStartTask {
				l.noteRole(l.starts, q, may)
			}
		}
	}
}

// lookAtServers puts the questions about what MCP servers can be asked.
func (l *lint) lookAtServers() {
	for _, server := range mcpServers(l.catalog) {
		at := l.servers[server.ID]
		for _, action := range slices.Sorted(maps.Keys(l.methods)) {
			m := l.methods[action]
			if !l.speaks(server, m) {
				continue
			}
			l.put(l.asked(m.uid, at.uid, at.routes[action], action, false))
			if m.Grant {
				l.put(l.asked(m.uid, at.uid, at.routes[action], action, true))
			}
		}
	}
}

func (l *lint) speaks(server *catalog.Server, m *method) bool {
	_, speaks := revisionFor(server, m.Method)
	return speaks
}

func (l *lint) asked(action, resource cedargo.EntityUID, r route, class string, granted bool) *asked {
	if granted {
		class += " in a grant"
	}
	var context resolved.RecordType
	if about := l.schema.Actions[action].AppliesTo; about != nil {
		context = about.Context
	}
	return &asked{world: l.world, action: action, resource: resource, context: context, granted: granted, class: class, route: r}
}

// body is what the conditions of a policy may come to, worked out once for each
// class of questions where that is enough.
func (l *lint) body(q *asked, p *cedargo.Policy) outcome {
	key := memoKey{p, q.class}
	if known, ok := l.memo[key]; ok {
		return known
	}
	tree := (*ast.Policy)(p.AST())
	l.left -= 1 + len(tree.Conditions)
	may := q.body(tree)
	if !l.fixed[p] {
		l.memo[key] = may
	}
	return may
}

// prospects is what may permit a question, and what certainly forbids it.
type prospects struct {
	by        []*parsed           // permits that may, and that nothing certain overrides; in the order of the files
	overruled map[*parsed]*parsed // permit that may -> forbid that always overrides it
}

// put puts a question to the policies, and notes what becomes of each.
func (l *lint) put(q *asked) prospects {
	var may []*parsed                              // permits
	permits, forbids := principals{}, principals{} // that always match, for whoever is in their scope
	for _, policy := range q.route.All() {
		if l.left--; l.left <= 0 {
			return prospects{}
		}
		p, tree := l.policies[policy], (*ast.Policy)(policy.AST())
		if !mayMatch(tree.Resource, q.resource, l.base) {
			continue
		}
		body := l.body(q, policy)
		l.fates[p].met(body)
		always := body == outcome{yes: true}
		switch {
		case tree.Effect == ast.EffectForbid && always:
			forbids.add(p)
		case tree.Effect == ast.EffectPermit && body.yes:
			may = append(may, p)
			if always {
				permits.add(p)
			}
		}
	}
	slices.SortFunc(may, func(a, b *parsed) int { return byPlace(a.policy, b.policy) })
	out := prospects{overruled: map[*parsed]*parsed{}}
	for _, p := range may {
		l.left--
		forbid := forbids.over(p, l.world)
		l.fates[p].weigh(forbid, permits.over(p, l.world))
		if forbid != nil {
			out.overruled[p] = forbid
		} else {
			out.by = append(out.by, p)
		}
	}
	return out
}
