package main

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/catalog"
)

// Bounds on the schema of one tool: what is behind them becomes opaque.
const (
	maxSchemaDepth = 12       // levels of objects and arrays
	maxSchemaSize  = 64 << 10 // bytes of YAML, about: references can multiply a small schema
	maxSchemaEnum  = 4 << 10  // bytes of the texts of one enum; a longer one is left out
	maxSchemaTexts = 1024     // texts of one enum, likewise
	maxSchemaName  = 256      // bytes of a property's name
)

// mappedSchema is the input schema of a tool, as far as the catalogue can say
// it. Nothing that an argument can be is lost sight of by that: what is left out
// only narrows values (minimum, format), and what the catalogue has no words for
// is opaque, or refused.
type mappedSchema struct {
	input  *catalog.Schema
	opaque []opaquePlace // sorted
	notes  []string      // what of it could not be kept otherwise
}

// opaquePlace is an argument that policy does not see.
type opaquePlace struct {
	pointer string // RFC 6901
	why     string // of a closed set
}

// Why a value is opaque.
const (
	whyUntyped   = "no type is declared"
	whyUnion     = "one of several types"
	whyAllOf     = "several schemas at once"
	whyFree      = "an object of which the members are not declared"
	whyNames     = "an object with names of members that a catalogue cannot hold"
	whyItems     = "an array of which the elements are not declared"
	whyTuple     = "an array with a type for each place"
	whyRecursive = "it contains itself"
	whyReference = "a reference that leads nowhere in this schema"
	whyDeep      = "nested too deep"
	whyLarge     = "the schema is too large"
)

// mapSchema maps a JSON Schema (2020-12, or a draft before it), as strictjson
// gives it, to the subset that the catalogue has.
func mapSchema(schema any) *mappedSchema {
	m := schemaMapper{root: schema, left: maxSchemaSize, headers: map[string]bool{}}
	out := &m.out
	out.input = &catalog.Schema{Type: "object"}
	if top, trail, direct, why := m.resolve(schema, []string{"#"}); why != "" || !isObject(top) {
		m.note("its input is not described as an object: it can be called without arguments alone", true)
	} else {
		m.members(out.input, top, schemaPlace{fixed: true, named: direct, root: true, trail: trail})
	}
	for _, at := range annotated(schema, "") {
		s := schemaAt(out.input, at)
		m.note("the x-mcp-header of "+shown(at, 80)+" could not be kept: clients may leave the tool out, or calls with that header be refused", s == nil || s.Header == "")
	}
	slices.SortFunc(out.opaque, func(a, b opaquePlace) int { return strings.Compare(a.pointer, b.pointer) })
	return out
}

// schemaPlace is where in the input a schema is.
type schemaPlace struct {
	pointer string   // of the value
	fixed   bool     // no array is around it, so that the pointer names it
	named   bool     // reached by "properties" alone, so that it may have a header
	root    bool     // it is the whole input
	depth   int      // levels above it
	trail   []string // references that were followed to get here
}

type schemaMapper struct {
	root    any
	left    int             // of maxSchemaSize
	headers map[string]bool // taken, in lower case
	out     mappedSchema
}

// value maps one schema. If it cannot be said, why is set.
func (m *schemaMapper) value(schema any, at schemaPlace) (s *catalog.Schema, why string) {
	if at.depth++; at.depth > maxSchemaDepth {
		return nil, whyDeep
	}
	node, trail, direct, why := m.resolve(schema, at.trail)
	if why != "" {
		return nil, why
	}
	if m.left -= weight(node); m.left < 0 {
		return nil, whyLarge
	}
	at.trail, at.named = trail, at.named && direct
	kind, why := schemaKind(node)
	if why != "" {
		return nil, why
	}
	if kind == "" {
		return m.union(node, at)
	}
	s = &catalog.Schema{Type: kind}
	switch kind {
	case "object":
		if narrowsOnly(node) {
			return s, m.members(s, node, at)
		}
		return nil, whyUnion
	case "array":
		if !narrowsOnly(node) {
			return nil, whyUnion
		}
		s.Items, why = m.items(node, at)
		return s, why
	case "string":
		s.Enum = m.enum(node)
		types, _ := node["type"].([]any)
		s.Nullable = slices.Contains(types, any("null"))
	}
	m.header(s, node, at)
	return s, ""
}

// weight is about what it costs to read a schema, not those inside of it, and to
// write it down.
func weight(node map[string]any) int {
	size := 64
	for _, word := range []string{"type", "required", "anyOf", "oneOf", "allOf"} {
		list, _ := node[word].([]any)
		size += 8 * len(list)
	}
	properties, _ := node["properties"].(map[string]any)
	return size + 64*len(properties)
}

// resolve follows references, and schemas that are nothing but another one, to
// one that says something; direct is false if it had to. The trail has the
// references on the way from the root: whoever meets one again is inside of it.
func (m *schemaMapper) resolve(schema any, trail []string) (node map[string]any, _ []string, direct bool, why string) {
	for direct = true; ; direct = false {
		node, ok := schema.(map[string]any)
		if !ok {
			return nil, nil, direct, whyUntyped // true and false, too
		}
		ref, referred := node["$ref"]
		parts, all := node["allOf"].([]any)
		switch {
		case referred:
			text, _ := ref.(string)
			if slices.Contains(trail, text) {
				return nil, nil, direct, whyRecursive
			}
			if len(trail) > maxSchemaDepth {
				return nil, nil, direct, whyDeep
			}
			if schema, ok = m.lookup(text); !ok {
				return nil, nil, direct, whyReference
			}
			trail = append(slices.Clip(trail), text)
		case all && len(parts) == 1 && node["type"] == nil && node["properties"] == nil:
			schema = parts[0]
		default:
			return node, trail, direct, ""
		}
	}
}

// lookup finds what a local reference names: a JSON Pointer in a fragment (RFC
// 6901, Section 6).
func (m *schemaMapper) lookup(ref string) (any, bool) {
	fragment, ok := strings.CutPrefix(ref, "#")
	if !ok || len(ref) > 1024 {
		return nil, false
	}
	pointer, err := url.PathUnescape(fragment)
	if err != nil || pointer != "" && pointer[0] != '/' {
		return nil, false
	}
	at := m.root
	for _, name := range catalog.PointerPath(pointer) {
		switch v := at.(type) {
		case map[string]any:
			at, ok = v[name]
		case []any:
			var i int
			i, err = strconv.Atoi(name)
			if ok = err == nil && 0 <= i && i < len(v); ok {
				at = v[i]
			}
		default:
			ok = false
		}
		if !ok {
			return nil, false
		}
	}
	return at, true
}

// inCatalogue reports whether a catalogue can hold the text.
func inCatalogue(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r)
	})
}

// paramHeader is what can follow Mcp-Param-: RFC 9110, Section 5.6.2, token.
var paramHeader = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")

// header keeps the x-mcp-header of an argument (MCP 2026-07-28, Streamable HTTP,
// "Schema Extension").
func (m *schemaMapper) header(s *catalog.Schema, node map[string]any, at schemaPlace) {
	name, _ := node["x-mcp-header"].(string)
	lower := strings.ToLower(name)
	if !at.named || !at.fixed || node["type"] != s.Type || s.Type == "number" || !paramHeader.MatchString(name) || m.headers[lower] {
		return
	}
	m.headers[lower] = true
	s.Header = lower
}

// annotated gives the pointers of what has an x-mcp-header where clients look.
func annotated(schema any, pointer string) []string {
	node, _ := schema.(map[string]any)
	properties, _ := node["properties"].(map[string]any)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		p, _ := properties[name].(map[string]any)
		below := pointer + "/" + escapePointer(name)
		if p["x-mcp-header"] != nil {
			all = append(all, below)
		}
		all = append(all, annotated(p, below)...)
	}
	return all
}

func schemaAt(s *catalog.Schema, pointer string) *catalog.Schema {
	for _, name := range catalog.PointerPath(pointer) {
		if s = s.Properties[name]; s == nil {
			return nil
		}
	}
	return s
}

// escapePointer writes a name in a JSON Pointer (RFC 6901, Section 3).
func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
