package cedar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
)

// Warnings says what loads and is probably not meant, at most 50 of it, in the
// order of the files:
//
//   - a group that a policy names and in which no identity ever is, so that a
//     permit for it is dead, and a forbid for it forbids nothing;
//   - a group that identities are mapped to (Config.Groups) and that nothing
//     else names.
func (s *Set) Warnings() []string { return slices.Clone(s.warnings) }

func warnings(policies []*parsed, w *world, cfg Config) []string {
	var out []string
	inhabited, named := w.inhabited(cfg), map[cedargo.EntityUID]bool{}
	for _, p := range policies {
		told := map[cedargo.EntityUID]bool{}
		for _, uid := range mentions(p.ast()) {
			if uid.Type != groupType {
				continue
			}
			named[uid] = true
			if inhabited[uid] || told[uid] || len(out) >= maxFaults {
				continue
			}
			told[uid] = true
			out = append(out, fmt.Sprintf("%s: policy %q: group %q: no identity is ever in it: no issuer maps to it (identity.issuers[].groups) and no agent of %s is in it; an unmapped group is ALIAS/GROUP",
				p.at(p.findText(string(uid.ID))), p.id, string(uid.ID), entitiesFile))
		}
	}
	known := maps.Clone(named)
	for _, d := range w.declared {
		known[d.uid] = true
	}
	var groups []string // that a mapping could mean
	for uid := range known {
		if uid.Type == groupType {
			groups = append(groups, string(uid.ID))
		}
	}
	slices.Sort(groups)
	for _, name := range slices.Compact(slices.Sorted(slices.Values(cfg.Groups))) {
		if !known[cedargo.NewEntityUID(groupType, cedargo.String(name))] && len(out) < maxFaults {
			out = append(out, fmt.Sprintf("identity.issuers[].groups: group %q: no policy names it, and %s does not declare it%s",
				name, entitiesFile, didYouMean(name, groups)))
		}
	}
	return out
}

// inhabited gives the groups in which an identity may be: those that issuers map
// to, unmapped ones, those of agents of entities.json, and what these are in.
func (w *world) inhabited(cfg Config) map[cedargo.EntityUID]bool {
	in := map[cedargo.EntityUID]bool{}
	for _, name := range cfg.Groups {
		w.reach(cedargo.NewEntityUID(groupType, cedargo.String(name)), in)
	}
	for uid := range w.base {
		alias, _, unmapped := strings.Cut(string(uid.ID), "/")
		if uid.Type == agentType || uid.Type == groupType && unmapped && slices.Contains(cfg.Aliases, alias) {
			w.reach(uid, in)
		}
	}
	return in
}
