package cedar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// prospect is what may become of a tool: to be granted, asked for or revoked, and to be called under a
// grant or outside of any.
type prospect struct{ grant, askFor, revoke, inside, outside prospects }

// writes tells of what a policy permits without a grant, and that is not known to
// only read. A meta-tool does nothing by itself: what it calls is decided, too.
func (l *lint) writes(p *parsed) []Finding {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(l.outlook)) {
		t, _ := l.catalog.Tool(id)
		harmless := t.Inner != nil || slices.Contains(t.Sets, "read") || slices.Contains(t.Sets, "init")
		if slices.Contains(l.outlook[id].outside.by, p) && (!harmless || slices.Contains(t.Sets, "write")) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return []Finding{p.finding(CodeBaselineWrites, p.from, fmt.Sprintf("it permits, without a grant, what may write: %s (in the set write, or in neither read nor init)", listed(ids)),
		"add when { context has grant }, or put what only reads into the set read of the catalogue")}
}

// Denied lists the tools that nobody can call, SERVER/TOOL, sorted: no policy
// can grant them, and none permits them without a grant. That is how it should be
// with what nobody is to have; Findings tells of those among them that a policy or
// a manifest means to give. It is false if there are too many policies and tools
// to be looked over.
func (s *Set) Denied() (tools []string, ok bool) {
	l := s.newLint(s.routed())
	if !l.look() {
		return nil, false
	}
	for _, id := range slices.Sorted(maps.Keys(l.outlook)) {
		if t := l.outlook[id]; len(t.grant.by) == 0 && len(t.outside.by) == 0 {
			tools = append(tools, id)
		}
	}
	return tools, true
}

// routed gives the policies of the set, without their text.
func (s *Set) routed() []*parsed {
	found := map[*cedargo.Policy]bool{}
	note := func(routes ...route) {
		for _, r := range routes {
			for _, policy := range r.All() {
				found[policy] = true
			}
		}
	}
	for _, t := range s.tools {
		note(t.call, t.grant, t.askFor, t.revoke)
	}
	for _, k := range s.kinds {
		note(k.start, k.end)
	}
	note(s.anyKind.start, s.anyKind.end)
	for _, at := range s.servers {
		note(slices.Collect(maps.Values(at.routes))...)
	}
	var out []*parsed
	for policy := range found {
		out = append(out, &parsed{policy: policy})
	}
	return out
}

// unused tells of tools that are meant to be granted, and that nothing can grant,
// and of those that can be granted and then not be called.
func (l *lint) unused() []Finding {
	var none, uncalled []string
	var out []Finding
	granted := slices.ContainsFunc(slices.Collect(maps.Values(l.outlook)), func(t *prospect) bool { return len(t.grant.by) > 0 })
	for _, id := range slices.Sorted(maps.Keys(l.outlook)) {
		t := l.outlook[id]
		switch {
		case len(t.grant.by) > 0:
			if len(t.inside.by) == 0 {
				uncalled = append(uncalled, id)
			}
		case len(t.outside.by) > 0:
		case len(t.grant.overruled) > 0:
			out = append(out, l.overruled(id, t.grant.overruled)...)
		case l.isMeant(id, t, granted):
			none = append(none, id)
		}
	}
	if len(none) > 0 {
		out = append(out, Finding{Code: CodeNothingGrants, Text: "no policy can grant " + listed(none) + ", and none permits it without a grant, so that nobody can call it",
			Hint: fmt.Sprintf("write permit (principal in …, action == %s, resource == %s::%q), or take away what is about it", actionUID(grants.ActionGrant), toolType, none[0])})
	}
	if len(uncalled) > 0 {
		out = append(out, Finding{Code: CodeNeverCalled, Text: "no policy permits to call " + listed(uncalled) + " under a grant, which policies can give",
			Hint: fmt.Sprintf("write permit (principal, action in %s, resource) when { context has grant }", actionUID(callParent))})
	}
	return out
}

// isMeant reports whether somebody means a tool to be granted: a manifest has it;
// a permit to call it under a grant, or to ask for it or revoke it, says so of it
// or of its set or server; or nothing can be granted at all, though calls need it.
// A catalogue may have tools that nobody is to have.
func (l *lint) isMeant(id string, t *prospect, granted bool) bool {
	for _, kind := range l.manifests.Kinds() {
		m, _ := l.manifests.Kind(kind)
		if slices.ContainsFunc(m.Tools, func(of *manifest.Tool) bool { return of.Tool.ID == id }) {
			return true
		}
	}
	if !granted && len(t.inside.by) > 0 {
		return true
	}
	return slices.ContainsFunc(slices.Concat(t.inside.by, t.askFor.by, t.revoke.by), func(p *parsed) bool { return width(p.ast()) > 0 })
}

// overruled tells of a tool whose every permit a forbid overrides. Where the
// forbid says more narrowly what it is about, it is an exception, and meant.
func (l *lint) overruled(id string, by map[*parsed]*parsed) []Finding {
	for _, permit := range slices.SortedFunc(maps.Keys(by), func(a, b *parsed) int { return byPlace(a.policy, b.policy) }) {
		if forbid := by[permit]; width(forbid.ast()) <= width(permit.ast()) {
			return []Finding{permit.finding(CodeNothingGrants, permit.from, fmt.Sprintf("it would grant %s, and no policy can: %q (%s) always forbids it", id, forbid.id, forbid.at(forbid.from)),
				"give the forbid a condition, or take the tool out of the permit")}
		}
	}
	return nil
}

// listed names tools, at most maxListed.
func listed(ids []string) string {
	if more := len(ids) - maxListed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:maxListed], ", "), more)
	}
	return strings.Join(ids, ", ")
}
