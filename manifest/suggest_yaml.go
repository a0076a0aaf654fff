package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// yaml writes the manifest with some of the tools.
func (s *suggester) yaml(tools []string) string {
	var b strings.Builder
	total := 0
	for _, p := range s.tools {
		total += len(p.calls)
	}
	fmt.Fprintf(&b, "# Proposed from %s in %s. It allows what was seen: hold each line\n", count(total, "call"), count(len(s.tasks), "task"))
	fmt.Fprintf(&b, "# against what is meant before it is put in force.\n")
	fmt.Fprintf(&b, "kind: %s\n", strconv.Quote(s.kind))
	if len(s.groups) > 0 {
		b.WriteString("params:\n  type: object\n  required: [")
		for i, g := range s.groups {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(key(g.name))
		}
		b.WriteString("]\n  properties:\n")
		for _, g := range s.groups {
			fmt.Fprintf(&b, "    %s: %s # %s\n", key(g.name), g.schema(), g.why())
		}
	}
	b.WriteString("tools:\n")
	for _, id := range tools {
		s.tools[id].yaml(&b)
	}
	return b.String()
}

func (p *proposal) yaml(b *strings.Builder) {
	fmt.Fprintf(b, "- tool: %s # %s in %s\n", strconv.Quote(p.tool.ID), count(len(p.calls), "call"), count(p.tasks(), "task"))
	fmt.Fprintf(b, "  max_calls: %d # the most of one task\n", p.most())
	if len(p.sums) > 0 {
		b.WriteString("  sum:\n")
		for _, sum := range p.sums {
			fmt.Fprintf(b, "  - {argument: %s, max: %s} # the most of one task\n", strconv.Quote(sum.arg), decimal(sum.units))
		}
	}
	switch {
	case p.input == nil:
		fmt.Fprintf(b, "  # any input: %s\n", printable(p.whyFree))
	case len(p.input.members) == 0:
		b.WriteString("  input: {} # nothing\n")
	default:
		b.WriteString("  input:\n")
		for _, member := range p.input.members {
			if p.tool.Arguments == nil && member.leaf == nil && member.items == nil { // a part, whose members are not under "properties"
				member.yamlMembers(b, "    ")
			} else {
				member.yaml(b, "    ")
			}
		}
	}
}

func (x *branch) yamlMembers(b *strings.Builder, indent string) {
	if len(x.members) == 0 {
		fmt.Fprintf(b, "%s%s: {}\n", indent, key(x.name))
		return
	}
	fmt.Fprintf(b, "%s%s:\n", indent, key(x.name))
	for _, member := range x.members {
		member.yaml(b, indent+"  ")
	}
}

// yaml writes a template on a line of its own, with why it is so.
func (x *branch) yaml(b *strings.Builder, indent string) {
	if x.leaf != nil || x.items != nil {
		fmt.Fprintf(b, "%s%s: %s # %s\n", indent, key(x.name), x.flow(), printable(x.why()))
		return
	}
	fmt.Fprintf(b, "%s%s:\n", indent, key(x.name))
	(&branch{name: "properties", members: x.members}).yamlMembers(b, indent+"  ")
}

var plainKey = regexp.MustCompile(`^[a-z][a-z0-9_]{2,}$`)

// key writes a name so that every reader of YAML takes it for a string.
func key(name string) string {
	if plainKey.MatchString(name) && !slices.Contains([]string{"true", "false", "null", "yes", "off"}, name) {
		return name
	}
	return strconv.Quote(name)
}

// decimal writes units of 10^-4.
func decimal(units int64) string {
	whole, rest := strconv.FormatInt(units/10_000, 10), units%10_000
	if rest == 0 {
		return whole
	}
	return whole + "." + strings.TrimRight(fmt.Sprintf("%04d", rest), "0")
}
