package main

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/toolgrant/toolgrant/catalog"
)

// members maps what an object has. Of the whole input, which cannot be opaque,
// what cannot be said is left out: a call that has it is refused.
func (m *schemaMapper) members(s *catalog.Schema, node map[string]any, at schemaPlace) (why string) {
	properties, _ := node["properties"].(map[string]any)
	patterns, _ := node["patternProperties"].(map[string]any)
	open, described := node["additionalProperties"].(map[string]any)
	others := described || node["additionalProperties"] == true
	closed := node["additionalProperties"] == false
	switch {
	case at.root:
		m.note("it takes other arguments than these: they are refused", others || len(patterns) > 0)
		m.note("a part of its schema may declare further arguments: they are refused", !narrowsOnly(node))
	case len(patterns) > 0, len(open) > 0, len(properties) == 0 && !closed:
		// By the letter of JSON Schema every object that does not close itself is
		// open; here it is one that says so and how, or declares nothing.
		return whyFree
	}
	names, required := memberNames(node, properties)
	seen := map[string]bool{} // by folded name
	kept := names[:0:0]
	for _, name := range names {
		fold := foldName(name)
		if name != "" && len(name) <= maxSchemaName && inCatalogue(name) && !seen[fold] {
			seen[fold] = true
			kept = append(kept, name)
			continue
		}
		if !at.root {
			return whyNames
		}
		m.note("the argument \""+shown(name, 80)+"\" is refused: a catalogue cannot hold such a name, or two that differ only in case", true)
	}
	for _, name := range kept {
		if properties[name] == false { // it must not be there
			continue
		}
		below := at
		below.root = false
		if at.fixed {
			below.pointer = at.pointer + "/" + escapePointer(name)
		}
		m.left -= len(name)
		p, why := m.value(properties[name], below)
		if why != "" {
			if !at.fixed {
				return why
			}
			p = &catalog.Schema{Type: "any"}
			m.out.opaque = append(m.out.opaque, opaquePlace{below.pointer, why})
		}
		if s.Properties == nil {
			s.Properties = map[string]*catalog.Schema{}
		}
		s.Properties[name] = p
		if required[name] {
			s.Required = append(s.Required, name)
		}
	}
	return ""
}

func (m *schemaMapper) note(text string, holds bool) {
	if holds {
		m.out.notes = append(m.out.notes, text)
	}
}

// memberNames gives the names of the members that are declared or required,
// sorted, and which are required.
func memberNames(node, properties map[string]any) ([]string, map[string]bool) {
	required := map[string]bool{}
	list, _ := node["required"].([]any)
	names := slices.Collect(maps.Keys(properties))
	for _, v := range list {
		name, ok := v.(string)
		if !ok || required[name] {
			continue
		}
		required[name] = true
		if _, declared := properties[name]; !declared {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, required
}

// items maps the elements of an array. No pointer leads to one, so that what
// cannot be said of them makes the array opaque.
func (m *schemaMapper) items(node map[string]any, at schemaPlace) (*catalog.Schema, string) {
	if _, tuple := node["items"].([]any); tuple || node["prefixItems"] != nil {
		return nil, whyTuple
	}
	if _, described := node["items"].(map[string]any); !described {
		return nil, whyItems
	}
	at.fixed, at.named, at.root = false, false, false
	return m.value(node["items"], at)
}

// foldName is the same for names that differ only in case, as the catalogue sees
// it (Unicode simple folding).
func foldName(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}
