package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

// placeKey is how a file writes a place: {$param: NAME}.
const placeKey = "$param"

// place stands in a template for the whole value of the parameter that it names.
// Values that come from outside are never of this type.
type place string

// use is what a parameter must be to fit one of its places.
type use struct {
	param string
	where string // as a message has it
	fit   func(v any) error
}

// fill is a template with the values in their places.
func fill(v any, values map[string]any) any {
	switch v := v.(type) {
	case place:
		return values[string(v)]
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[name] = fill(member, values)
		}
		return out
	}
	return v // no list has a place in it
}

// withoutPlaces is a template without the keywords whose values are parameters.
func withoutPlaces(v map[string]any) map[string]any {
	out := make(map[string]any, len(v))
	for name, member := range v {
		switch member := member.(type) {
		case place:
		case map[string]any:
			out[name] = withoutPlaces(member)
		default:
			out[name] = member
		}
	}
	return out
}

// input reads the template of a tool's input: of an MCP tool its arguments, of an
// HTTP tool the parts that the catalogue declares. A part that is not named has
// nothing in it.
func (r *reader) input(n *strictyaml.Node) {
	tool := r.tool.Tool
	if n.Kind != strictyaml.Mapping {
		r.fault(n, "\"input\" must be %s of arguments to templates, not %s", strictyaml.Mapping, n.Kind)
		return
	}
	if tool.Arguments != nil {
		r.tool.input = r.members(n, tool.Arguments, "", r.hides(""))
		return
	}
	parts := tool.Input().Properties
	r.mapping(n, "the input of "+tool.ID, sortedKeys(parts)...)
	properties := map[string]any{}
	for _, name := range sortedKeys(parts) {
		part, at := parts[name], "/"+name
		v, ok := n.Get(name)
		switch {
		case part.Type != "object" && !ok:
			r.fault(n, "%q is missing: it is not an object, so it cannot be left empty", name)
		case part.Type != "object":
			properties[name] = r.template(v, part, at, r.hides(at))
		case !ok:
			v = &strictyaml.Node{Kind: strictyaml.Mapping, Line: n.Line, Column: n.Column}
			fallthrough
		default:
			properties[name] = r.members(v, part, at, r.hides(at))
		}
	}
	r.tool.input = object(properties)
}

// hides reports whether the catalogue lists the place as opaque: then it holds
// no call to what the schema says of it.
func (r *reader) hides(at string) bool { return slices.Contains(r.tool.Tool.Opaque, at) }

// members reads a mapping of names to templates: all of them are required, and
// nothing else is allowed. s is nil where the catalogue says nothing.
func (r *reader) members(n *strictyaml.Node, s *catalog.Schema, at string, hidden bool) map[string]any {
	properties := map[string]any{}
	if n.Kind != strictyaml.Mapping {
		r.fault(n, "%s must be %s of names to templates, not %s", r.where(at), strictyaml.Mapping, n.Kind)
		return object(properties)
	}
	declared := map[string]*catalog.Schema{}
	if s != nil {
		declared = s.Properties
	}
	for _, f := range n.Fields {
		name := f.Key.Text
		below := at + "/" + token(name)
		if declared[name] == nil && !hidden {
			r.fault(f.Key, "the catalogue declares no %s of %s%s", below, r.tool.Tool.ID, suggest(name, sortedKeys(declared)))
			continue
		}
		properties[name] = r.template(f.Value, declared[name], below, hidden || r.hides(below))
	}
	if s != nil && !hidden {
		for _, name := range s.Required {
			if _, listed := n.Get(name); !listed {
				r.fault(n, "%s/%s is missing: %s takes no call without it, and what is not listed is refused", at, token(name), r.tool.Tool.ID)
			}
		}
	}
	return object(properties)
}

// where names a place in the input.
func (r *reader) where(at string) string {
	if at == "" {
		at = "the input"
	}
	return at + " of " + r.tool.Tool.ID
}

// template reads what one argument may be.
func (r *reader) template(n *strictyaml.Node, s *catalog.Schema, at string, hidden bool) map[string]any {
	doc := map[string]any{}
	if n.Kind != strictyaml.Mapping {
		r.fault(n, "%s: write {const: …} for one value, or {} for any of its type", r.where(at))
		return doc
	}
	if _, ok := n.Get(placeKey); ok {
		r.fault(n, "%s: write {const: {%s: …}} for the value of a parameter", r.where(at), placeKey)
		return doc
	}
	kind := r.kind(n, s, at, hidden)
	if kind == "" {
		return doc
	}
	doc["type"] = kind
	before := len(r.faults)
	for _, f := range n.Fields {
		switch word := f.Key.Text; word {
		case "type", "properties", "items":
		case "required", "additionalProperties":
			r.fault(f.Key, "%q is not written: everything that is listed is required, and nothing else is allowed", word)
		default:
			if !slices.Contains(words[kind], word) {
				r.fault(f.Key, "%q is no keyword for a template of type %s%s", cut(word), kind, suggest(word, append([]string{"type"}, words[kind]...)))
				continue
			}
			doc[word] = r.keyword(f, kind, s, at)
		}
	}
	switch kind {
	case "object":
		properties, ok := n.Get("properties")
		if !ok {
			r.fault(n, "%s: an object needs \"properties\": each of them is required, and nothing else is allowed", r.where(at))
			return doc
		}
		return r.members(properties, s, at, hidden)
	case "array":
		var items *catalog.Schema
		if s != nil {
			items = s.Items
		}
		if v, ok := n.Get("items"); ok {
			doc["items"] = r.template(v, items, at+"/*", hidden)
		} else if doc["items"] = declaredItems(items); doc["items"] == nil {
			r.fault(n, "%s: write \"items\": the catalogue has no type for them that is closed", r.where(at))
		}
	case "string":
		r.declaredEnum(n, doc, s, at, hidden)
	}
	if len(r.faults) == before {
		r.leaf(n, doc, at)
	}
	return doc
}

// kind is the type of a template: the catalogue's or, where that has none, its
// own. "" if there is a fault.
func (r *reader) kind(n *strictyaml.Node, s *catalog.Schema, at string, hidden bool) string {
	declared := ""
	if s != nil && s.Type != "any" {
		declared = s.Type
	}
	v, ok := n.Get("type")
	switch {
	case ok && v.Kind != strictyaml.Text:
		r.fault(v, "\"type\" must be %s, not %s", strictyaml.Text, v.Kind)
	case ok && words[v.Text] == nil:
		r.fault(v, "type %q: must be one of %s", cut(v.Text), strings.Join(sortedKeys(words), ", "))
	case ok && declared != "" && v.Text != declared && !hidden:
		r.fault(v, "%s is of type %s in the catalogue, not %s", r.where(at), declared, v.Text)
	case ok:
		return v.Text
	case declared == "":
		r.fault(n, "%s: give its \"type\": the catalogue has none", r.where(at))
	default:
		return declared
	}
	return ""
}

// declaredItems is the template of an array's items that the catalogue's schema
// makes; nil if it makes none that is closed.
func declaredItems(s *catalog.Schema) any {
	switch {
	case s == nil || s.Type == "object" || s.Type == "any":
		return nil
	case s.Type == "array":
		items := declaredItems(s.Items)
		if items == nil {
			return nil
		}
		return map[string]any{"type": "array", "items": items}
	}
	doc := map[string]any{"type": s.Type}
	if len(s.Enum) > 0 {
		doc["enum"] = list(s.Enum)
	}
	return doc
}

func list(names []string) []any {
	out := make([]any, len(names))
	for i, name := range names {
		out[i] = name
	}
	return out
}

// declaredEnum takes the catalogue's values where the template has none of its
// own, and refuses others: no call with them gets through.
func (r *reader) declaredEnum(n *strictyaml.Node, doc map[string]any, s *catalog.Schema, at string, hidden bool) {
	if s == nil || len(s.Enum) == 0 || hidden {
		return
	}
	_, isConst := doc["const"]
	_, isEnum := doc["enum"]
	if !isConst && !isEnum {
		doc["enum"] = list(s.Enum)
	}
	for _, text := range texts(doc) {
		if !slices.Contains(s.Enum, text) {
			r.fault(n, "%s is never %q in the catalogue%s", r.where(at), cut(text), suggest(text, s.Enum))
		}
	}
	for _, word := range []string{"const", "enum"} {
		p, ok := doc[word].(place)
		if !ok {
			continue
		}
		r.use(n, r.m.params[string(p)], fmt.Sprintf("%q of %s", word, r.where(at)), func(v any) error {
			texts, many := v.([]any)
			if !many {
				texts = []any{v}
			}
			for _, text := range texts {
				if one, ok := text.(string); !ok || !slices.Contains(s.Enum, one) {
					return errors.New("of what the catalogue has there: " + strings.Join(s.Enum, ", "))
				}
			}
			return nil
		})
	}
}

// Keywords that are bounds, with the types of parameters that fit them.
var boundWords = map[string][]string{
	"minimum": {"number", "integer"}, "maximum": {"number", "integer"},
	"exclusiveMinimum": {"number", "integer"}, "exclusiveMaximum": {"number", "integer"},
	"minLength": {"integer"}, "maxLength": {"integer"}, "maxItems": {"integer"},
}

// keyword reads the value of one keyword: a literal, or a place.
func (r *reader) keyword(f strictyaml.Field, kind string, s *catalog.Schema, at string) any {
	word := f.Key.Text
	if _, ok := f.Value.Get(placeKey); !ok {
		return r.value(f.Value)
	}
	fits := boundWords[word]
	switch {
	case fits != nil:
	case (word == "const" || word == "enum") && (kind == "array" || kind == "object"):
		if kind == "array" && word == "const" && s != nil && s.Items != nil {
			fits = arraysOf(s.Items.Type)
		}
	case word == "const" && kind == "number":
		fits = []string{"number", "integer"}
	case word == "const":
		fits = []string{kind}
	case word == "enum":
		fits = arraysOf(kind)
	}
	if fits == nil {
		r.fault(f.Value, "%s cannot stand for %q here; write the value out", placeKey, word)
		return nil
	}
	what := fmt.Sprintf("%q of %s", word, r.where(at))
	p := r.place(f.Value, what, fits)
	if p == nil {
		return nil
	}
	switch word {
	case "const", "enum": // leaf notes what they must fit
	case "minLength", "maxLength", "maxItems":
		r.use(f.Value, p, what, func(v any) error {
			_, err := wholeOf(v, 0, maxLength)
			return err
		})
	default:
		r.use(f.Value, p, what, func(any) error { return nil }) // every number is a bound
	}
	return place(p.name)
}

func arraysOf(kind string) []string {
	if kind == "number" {
		return []string{"array of number", "array of integer"}
	}
	return []string{"array of " + kind}
}

// place reads {$param: NAME} of a parameter of one of the types; nil if there is
// a fault.
func (r *reader) place(n *strictyaml.Node, what string, types []string) *parameter {
	v, _ := n.Get(placeKey)
	if len(n.Fields) != 1 || v.Kind != strictyaml.Text {
		r.fault(n, "write {%s: NAME} and nothing beside it", placeKey)
		return nil
	}
	p := r.m.params[v.Text]
	switch {
	case p == nil:
		r.fault(v, "there is no parameter %q%s", cut(v.Text), suggest(v.Text, sortedKeys(r.m.params)))
		return nil
	case p.schema.Type == "":
		return nil // it has a fault of its own
	case !slices.Contains(types, p.words()):
		r.fault(v, "parameter %q is of type %s, and %s takes one of type %s", p.name, p.words(), what, strings.Join(types, " or "))
		return nil
	}
	return p
}

// leaf holds the written part of a template against the profile, and notes what
// values from parameters must be to fit it.
func (r *reader) leaf(n *strictyaml.Node, doc map[string]any, at string) {
	written := withoutPlaces(doc)
	constraint := func(name string) (*grants.Constraint, error) {
		text, err := strictjson.Canonical(object(map[string]any{name: written}))
		if err != nil {
			return nil, err
		}
		return grants.CompileConstraint(text)
	}
	if _, err := constraint("value"); err != nil {
		r.fault(n, "%s: %v", r.where(at), err)
		return
	}
	for _, word := range []string{"const", "enum"} {
		name, ok := doc[word].(place)
		if !ok {
			continue
		}
		p := string(name)
		c, err := constraint(p)
		if err != nil {
			r.fault(n, "%s: %v", r.where(at), err)
			return
		}
		r.use(n, r.m.params[p], fmt.Sprintf("%q of %s", word, r.where(at)), func(v any) error {
			values := []any{v}
			if word == "enum" {
				if values = v.([]any); len(values) == 0 {
					return errors.New("a list of at least one value")
				}
			}
			for _, v := range values {
				if err := c.Check(map[string]any{p: v}); err != nil {
					return fmt.Errorf("what else the template lets through (%w)", err)
				}
			}
			return nil
		})
	}
}
