package cedar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
)

// Finding is something of a set that loads and is probably not meant.
type Finding struct {
	Policy       string // id; "": it is about no single policy
	File         string // of the policy, without its folder; "": it is about none
	Line, Column int    // from 1, the column in characters; 0: none
	Code         string // what it is: one of Code…
	Text         string // what is so, and why that matters
	Hint         string // what to write instead; "": nothing is known
}

// Codes of findings. The set is closed.
const (
	CodeDeadGroup      = "dead-group"       // a policy names a group in which no identity ever is: a permit for it is dead, and a forbid for it forbids nothing
	CodeUnnamedGroup   = "unnamed-group"    // identities are mapped to it (Config.Groups), and nothing else names it
	CodeOpensMore      = "opens-more"       // a permit opens more of an MCP server than start-up needs, to everybody and without a grant, and does not name it
	CodeNotSpoken      = "not-spoken"       // no MCP server speaks a revision with what the policy's scope names
	CodeCannotBegin    = "cannot-begin"     // an MCP server with which no client can begin
	CodeNeverHolds     = "never-holds"      // its conditions are never true
	CodeAlwaysErrs     = "always-errs"      // its conditions cannot be evaluated
	CodeShadowed       = "shadowed"         // a permit, and forbids always override it
	CodeRedundant      = "redundant"        // a permit, and wider ones without conditions permit the same
	CodeBaselineWrites = "baseline-writes"  // it permits without a grant what may write
	CodeNothingGrants  = "nothing-grants"   // a tool that needs a grant, and no policy can give one
	CodeNeverCalled    = "never-called"     // a tool that can be granted, and no policy permits to call it then
	CodeTwoRoles       = "starts-and-holds" // one agent may start a task and be granted something in it
	CodeTooMuch        = "too-much"         // the set was too large to be looked over
)

// String is one line: FILE:LINE:COLUMN: policy "ID": TEXT; HINT.
func (f Finding) String() string {
	text := f.Text
	if f.Policy != "" {
		text = fmt.Sprintf("%s:%d:%d: policy %q: %s", f.File, f.Line, f.Column, f.Policy, text)
	}
	if f.Hint != "" {
		text += "; " + f.Hint
	}
	return text
}

// Warnings prints each of Findings as a line.
func (s *Set) Warnings() []string {
	var out []string
	for _, f := range s.Findings() {
		out = append(out, f.String())
	}
	return out
}

// Findings says what loads and is probably not meant, at most 50 of it: first
// what is wrong with names, in the order of the files, then what comes of policies
// together. It is all worked out from policies, entities and catalogue, and what
// depends on who asks or on arguments is taken to be possible: a policy of which
// nothing is told may be dead all the same.
func (s *Set) Findings() []Finding { return slices.Clone(s.findings) }

func (s *Set) find(policies []*parsed, cfg Config) []Finding {
	var out []Finding
	inhabited, named, opened := s.inhabited(cfg), map[cedargo.EntityUID]bool{}, s.opened()
	for _, p := range policies {
		out = append(out, deadGroups(p, inhabited, named)...)
		out = append(out, opensMore(p, opened[p.policy])...)
		out = append(out, s.unspoken(p)...)
	}
	out = append(out, s.unreachable()...)
	out = append(out, s.unnamed(named, cfg)...)
	out = append(out, s.lintAll(policies)...)
	return out[:min(maxFaults, len(out))]
}

func (p *parsed) finding(code string, offset int, text, hint string) Finding {
	line, column := p.position(offset)
	return Finding{Policy: p.id, File: p.file.name, Line: line, Column: column, Code: code, Text: text, Hint: hint}
}

// deadGroups tells of the groups in a policy that no identity is in. It notes
// all that the policy names.
func deadGroups(p *parsed, inhabited, named map[cedargo.EntityUID]bool) []Finding {
	var out []Finding
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
		out = append(out, p.finding(CodeDeadGroup, p.findText(string(uid.ID)),
			fmt.Sprintf("group %q: no identity is ever in it: no issuer maps to it (identity.issuers[].groups) and no agent of %s is in it", string(uid.ID), entitiesFile),
			"an unmapped group is ALIAS/GROUP"))
	}
	return out
}

// unnamed tells of the groups that identities are mapped to for nothing.
func (w *world) unnamed(named map[cedargo.EntityUID]bool, cfg Config) []Finding {
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
	var out []Finding
	for _, name := range slices.Compact(slices.Sorted(slices.Values(cfg.Groups))) {
		if !known[cedargo.NewEntityUID(groupType, cedargo.String(name))] {
			out = append(out, Finding{Code: CodeUnnamedGroup,
				Text: fmt.Sprintf("identity.issuers[].groups: group %q: no policy names it, and %s does not declare it", name, entitiesFile),
				Hint: strings.TrimPrefix(didYouMean(name, groups), "; ")})
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
