package cedar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedarast "github.com/cedar-policy/cedar-go/ast"
)

// fate is what becomes of a policy in all the questions that it is about.
type fate struct {
	asked   bool             // there is such a question
	body    outcome          // of its conditions, in any of them
	forbids map[*parsed]bool // that override it
	permits map[*parsed]bool // that permit the same without it
	stands  bool             // in some question, nothing of that
}

// met notes what its conditions may come to in a question.
func (f *fate) met(body outcome) {
	f.asked = true
	f.body.yes = f.body.yes || body.yes
	f.body.no = f.body.no || body.no
}

// weigh notes what of the other policies makes it moot in a question in which it
// may permit; nil: nothing does.
func (f *fate) weigh(forbid, permit *parsed) {
	if f.forbids == nil {
		f.forbids, f.permits = map[*parsed]bool{}, map[*parsed]bool{}
	}
	switch {
	case forbid != nil:
		f.forbids[forbid] = true
	case permit != nil:
		f.permits[permit] = true
	default:
		f.stands = true
	}
}

// moot tells of a policy that does nothing: by itself, or because of others.
func (l *lint) moot(p *parsed) []Finding {
	f := l.fates[p]
	if !f.asked {
		return nil // told elsewhere: it is about no revision of MCP that is spoken
	}
	if a, b, found := conflict(p.ast()); found {
		return []Finding{p.finding(CodeNeverHolds, p.from, fmt.Sprintf("its conditions never hold: %s and %s contradict each other", a, b), "mend one of them, or take the policy away")}
	}
	switch {
	case f.body == outcome{}:
		return []Finding{p.finding(CodeAlwaysErrs, p.from, "its conditions err whatever is asked, and an error denies", "mend them, or take the policy away")}
	case !f.body.yes:
		return []Finding{p.finding(CodeNeverHolds, p.from, "its conditions never hold, whatever is asked", "mend them, or take the policy away")}
	case f.forbids == nil || f.stands: // a forbid, or a permit that counts
		if first := l.copies[p]; first != nil {
			return []Finding{p.finding(CodeRedundant, p.from, fmt.Sprintf("it adds nothing: %q (%s) says the same", first.id, first.at(first.from)), "take it away, or narrow the other")}
		}
		return nil
	case len(f.permits) == 0:
		return []Finding{p.finding(CodeShadowed, p.from, "it never permits anything: what it permits is always forbidden by "+places(f.forbids), "give the forbid a condition, or take the permit away")}
	}
	text := "it adds nothing: what it permits is permitted all the same by " + places(f.permits)
	if len(f.forbids) > 0 {
		text += ", or always forbidden by " + places(f.forbids)
	}
	return []Finding{p.finding(CodeRedundant, p.from, text, "take it away, or narrow the other")}
}

// copiesOf finds policies that say what another one does, word for word but for
// layout and annotations: each -> the first in the files that says it.
func copiesOf(policies []*parsed) map[*parsed]*parsed {
	first, out := map[string]*parsed{}, map[*parsed]*parsed{}
	for _, p := range slices.SortedFunc(slices.Values(policies), func(a, b *parsed) int { return byPlace(a.policy, b.policy) }) {
		bare := *p.ast()
		bare.Annotations = nil
		text := string((*cedarast.Policy)(&bare).MarshalCedar())
		if before := first[text]; before != nil {
			out[p] = before
		} else {
			first[text] = p
		}
	}
	return out
}

// places names policies and where they are, at most three.
func places(policies map[*parsed]bool) string {
	all := slices.SortedFunc(maps.Keys(policies), func(a, b *parsed) int { return byPlace(a.policy, b.policy) })
	var texts []string
	for _, p := range all[:min(3, len(all))] {
		texts = append(texts, fmt.Sprintf("%q (%s)", p.id, p.at(p.from)))
	}
	if more := len(all) - len(texts); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts, ", "), more)
	}
	return strings.Join(texts, " and ")
}
