package main

import (
	"slices"

	"github.com/toolgrant/toolgrant/catalog"
)

// schemaKind is the one type that a schema has beside null; "" if it is for anyOf or
// oneOf to say. An argument that is null is refused at the call, so that a null
// that may be is no loss but to those who send it.
func schemaKind(node map[string]any) (kind, why string) {
	switch t := node["type"].(type) {
	case string:
		kind = t
	case []any:
		var kinds []string
		for _, v := range t {
			if text, _ := v.(string); text != "null" {
				kinds = append(kinds, text)
			}
		}
		kind = oneKind(kinds)
		if kind == "" {
			return "", whyUnion
		}
	case nil:
		kind = impliedKind(node)
		_, any := node["anyOf"]
		_, one := node["oneOf"]
		switch {
		case kind != "":
		case any || one:
			return "", ""
		case node["allOf"] != nil:
			return "", whyAllOf
		}
	}
	if !slices.Contains([]string{"object", "array", "string", "integer", "number", "boolean"}, kind) {
		return "", whyUntyped
	}
	return kind, ""
}

// oneKind is the type that all of them are; "" if there is none. Integers are
// numbers.
func oneKind(kinds []string) string {
	slices.Sort(kinds)
	switch kinds = slices.Compact(kinds); {
	case len(kinds) == 1:
		return kinds[0]
	case slices.Equal(kinds, []string{"integer", "number"}):
		return "number"
	}
	return ""
}

// impliedKind is the type of a schema that does not name it.
func impliedKind(node map[string]any) string {
	values, _ := node["enum"].([]any)
	if c, ok := node["const"]; ok {
		values = []any{c}
	}
	var kinds []string
	for _, v := range values[:min(len(values), maxSchemaTexts)] {
		switch v.(type) {
		case nil:
		case string:
			kinds = append(kinds, "string")
		case bool:
			kinds = append(kinds, "boolean")
		case map[string]any, []any:
			return ""
		default:
			kinds = append(kinds, "number")
		}
	}
	switch {
	case len(values) > maxSchemaTexts:
		return ""
	case values != nil:
		return oneKind(kinds)
	case isObject(node):
		return "object"
	case node["items"] != nil || node["prefixItems"] != nil:
		return "array"
	}
	return ""
}

func isObject(node map[string]any) bool {
	if node["type"] == nil {
		_, ok := node["properties"].(map[string]any)
		return ok
	}
	kind, _ := schemaKind(node)
	return kind == "object"
}

// narrowsOnly reports whether what stands beside the members of an object, or
// the elements of an array, declares none.
func narrowsOnly(node map[string]any) bool {
	for _, word := range []string{"anyOf", "oneOf", "allOf"} {
		parts, _ := node[word].([]any)
		for _, part := range parts {
			p, _ := part.(map[string]any)
			for _, declares := range []string{"properties", "items", "prefixItems", "$ref", "anyOf", "oneOf", "allOf", "patternProperties", "additionalProperties"} {
				if p[declares] != nil {
					return false
				}
			}
		}
	}
	return true
}

// union maps anyOf and oneOf: of one type and null, or of scalars of one type.
func (m *schemaMapper) union(node map[string]any, at schemaPlace) (*catalog.Schema, string) {
	parts, ok := node["anyOf"].([]any)
	if others, both := node["oneOf"].([]any); both {
		if ok {
			return nil, whyUnion
		}
		parts = others
	}
	all := len(parts)
	parts = slices.DeleteFunc(slices.Clone(parts), isNull)
	at.named = false
	if len(parts) == 1 {
		at.depth--
		s, why := m.value(parts[0], at)
		if s != nil && s.Type == "string" {
			s.Nullable = s.Nullable || all > 1
		}
		return s, why
	}
	at.fixed = false // nothing in them is opaque by itself: then all of it is
	var kinds, enum []string
	whole := true
	for _, part := range parts {
		s, why := m.value(part, at)
		if why == whyLarge {
			return nil, why
		}
		if why != "" || s.Type == "object" || s.Type == "array" {
			return nil, whyUnion
		}
		kinds = append(kinds, s.Type)
		enum = append(enum, s.Enum...)
		whole = whole && s.Enum != nil
	}
	kind := oneKind(kinds)
	if kind == "" {
		return nil, whyUnion
	}
	if !whole {
		enum = nil
	}
	return &catalog.Schema{Type: kind, Enum: m.enumOf(enum), Nullable: kind == "string" && all > len(parts)}, ""
}

func isNull(schema any) bool {
	node, _ := schema.(map[string]any)
	if c, ok := node["const"]; ok {
		return c == nil
	}
	values, ok := node["enum"].([]any)
	return node["type"] == "null" || ok && len(values) == 1 && values[0] == nil
}

// enum gives the texts that a string can be; nil for any.
func (m *schemaMapper) enum(node map[string]any) []string {
	values, _ := node["enum"].([]any)
	if c, ok := node["const"]; ok {
		values = []any{c}
	}
	if len(values) > maxSchemaTexts {
		return nil
	}
	var texts []string
	for _, v := range values {
		if text, ok := v.(string); ok {
			texts = append(texts, text)
		}
	}
	return m.enumOf(texts)
}

func (m *schemaMapper) enumOf(texts []string) []string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	size := 0
	for _, text := range texts {
		if size += len(text) + 4; size > maxSchemaEnum || !inCatalogue(text) {
			return nil
		}
	}
	m.left -= size
	return texts
}
