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
//   - a permit that opens more of an MCP server than start-up needs, to everybody
//     and without a grant, and does not name it;
//   - a policy about MCP servers of which none speaks a revision with what the
//     policy's scope names;
//   - an MCP server with which no client can begin;
//   - a group that identities are mapped to (Config.Groups) and that nothing
//     else names.
func (s *Set) Warnings() []string { return slices.Clone(s.warnings) }

func (s *Set) warn(policies []*parsed, cfg Config) []string {
	var out []string
	add := func(texts ...string) { out = append(out, texts[:min(len(texts), maxFaults-len(out))]...) }
	inhabited, named, opened := s.inhabited(cfg), map[cedargo.EntityUID]bool{}, s.opened()
	for _, p := range policies {
		add(deadGroups(p, inhabited, named)...)
		add(opensMore(p, opened[p.policy])...)
		add(s.unspoken(p)...)
	}
	add(s.unreachable()...)
	add(s.unnamed(named, cfg)...)
	return out
}

// deadGroups tells of the groups in a policy that no identity is in. It notes
// all that the policy names.
func deadGroups(p *parsed, inhabited, named map[cedargo.EntityUID]bool) []string {
	var out []string
	told := map[cedargo.EntityUID]bool{}
	for _, uid := range mentions(p.ast()) {
		if uid.Type != groupType {
			continue
		}
		named[uid] = true
		if inhabited[uid] || told[uid] {
			continue
		}
		told[uid] = true
		out = append(out, fmt.Sprintf("%s: policy %q: group %q: no identity is ever in it: no issuer maps to it (identity.issuers[].groups) and no agent of %s is in it; an unmapped group is ALIAS/GROUP",
			p.at(p.findText(string(uid.ID))), p.id, string(uid.ID), entitiesFile))
	}
	return out
}

// unnamed tells of the groups that identities are mapped to for nothing.
func (w *world) unnamed(named map[cedargo.EntityUID]bool, cfg Config) []string {
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
	var out []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(cfg.Groups))) {
		if !known[cedargo.NewEntityUID(groupType, cedargo.String(name))] {
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
