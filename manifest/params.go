package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

// Bounds on parameters.
const (
	MaxParams = 8 << 10 // bytes of a task's parameters, as RFC 8785 text
	maxNames  = 64      // of one manifest
)

// namePattern is what a parameter may be called: policies write
// context.task.params.NAME, and people --param NAME=VALUE.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// parameter is one parameter of a kind of task.
type parameter struct {
	name   string
	schema *catalog.Schema // for policy and people
	doc    map[string]any  // a schema of the profile
	def    any             // fills in where none is given, if it is not required
	must   bool
	at     string // FILE:LINE:COLUMN
}

// words names the parameter's type.
func (p *parameter) words() string {
	if p.schema.Items != nil {
		return "array of " + p.schema.Items.Type
	}
	return p.schema.Type
}

// Keywords of a schema by its type, beside "type" itself.
var (
	numberWords = []string{"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "const", "enum"}
	words       = map[string][]string{
		"string":  {"minLength", "maxLength", "pattern", "const", "enum"},
		"number":  numberWords,
		"integer": numberWords,
		"boolean": {"const", "enum"},
		"null":    {"const", "enum"},
		"array":   {"items", "maxItems", "const", "enum"},
		"object":  {"properties"},
	}
	scalars = []string{"string", "number", "integer", "boolean"}
)

// params reads "params"; nil: there is none.
func (r *reader) params(n *strictyaml.Node) {
	r.m.Params = &catalog.Schema{Type: "object", Properties: map[string]*catalog.Schema{}}
	if n == nil {
		r.closeParams(nil)
		return
	}
	if !r.mapping(n, "\"params\"", "type", "description", "required", "properties", "additionalProperties") {
		return
	}
	if at, kind := r.text(n, "type", true); at != nil && kind != "object" {
		r.fault(at, "\"type\" of the parameters is object")
	}
	if v, ok := n.Get("additionalProperties"); ok && (v.Kind != strictyaml.Boolean || v.Yes) {
		r.fault(v, "\"additionalProperties\" can be false alone, and is without being written: a task has the parameters that its manifest lists")
	}
	_, r.m.Params.Description = r.text(n, "description", false)
	required := r.required(n)
	folded := map[string]string{}
	if props, ok := n.Get("properties"); ok {
		if props.Kind != strictyaml.Mapping {
			r.fault(props, "\"properties\" must be %s of names to schemas, not %s", strictyaml.Mapping, props.Kind)
			return
		}
		if len(props.Fields) > maxNames {
			r.fault(props, "a manifest has at most %d parameters", maxNames)
			return
		}
		for _, f := range props.Fields {
			name := f.Key.Text
			if !namePattern.MatchString(name) {
				r.fault(f.Key, "parameter %q: must match %s", cut(name), namePattern)
				continue
			}
			if other, ok := folded[strings.ToLower(name)]; ok {
				r.fault(f.Key, "parameters %q and %q differ only in case", other, name)
			}
			folded[strings.ToLower(name)] = name
			r.parameter(f, required[name] != nil)
		}
	}
	for _, name := range sortedKeys(required) {
		if r.m.params[name] == nil {
			r.fault(required[name], "required parameter %q is not in \"properties\"%s", cut(name), suggest(name, sortedKeys(r.m.params)))
			continue
		}
		r.m.Params.Required = append(r.m.Params.Required, name)
	}
	r.closeParams(n)
}

// required reads the names in "required" -> where they are.
func (r *reader) required(n *strictyaml.Node) map[string]*strictyaml.Node {
	out := map[string]*strictyaml.Node{}
	list, ok := n.Get("required")
	if !ok {
		return out
	}
	if list.Kind != strictyaml.Sequence {
		r.fault(list, "\"required\" must be %s, not %s", strictyaml.Sequence, list.Kind)
	}
	for _, item := range list.Items {
		switch {
		case item.Kind != strictyaml.Text:
			r.fault(item, "\"required\" holds names of parameters, not %s", item.Kind)
		case out[item.Text] != nil:
			r.fault(item, "%q is there twice in \"required\"", cut(item.Text))
		default:
			out[item.Text] = item
		}
	}
	return out
}

func (r *reader) parameter(f strictyaml.Field, must bool) {
	p := &parameter{name: f.Key.Text, must: must, at: r.at(f.Key)}
	before := len(r.faults)
	p.doc, p.schema = r.paramSchema(f.Value, true)
	var one *grants.Constraint
	if len(r.faults) == before {
		var err error
		if one, err = closedOver(map[string]*parameter{p.name: p}); err != nil {
			r.fault(f.Value, "%v", err)
		}
	}
	if len(r.faults) > before {
		p.schema = &catalog.Schema{} // the name is known all the same, for what uses it
	}
	r.m.params[p.name], r.m.Params.Properties[p.name] = p, p.schema
	if len(r.faults) > before {
		return
	}
	switch def, ok := f.Value.Find("default"); {
	case must && ok:
		r.fault(def.Key, "parameter %q is required, so that its default would never count; leave one out", p.name)
	case !must && !ok:
		r.fault(f.Key, "parameter %q must be in \"required\" or have a \"default\": a task's parameters are always complete", p.name)
	case ok:
		p.def = r.value(def.Value)
		if err := one.Check(map[string]any{p.name: p.def}); err != nil {
			r.fault(def.Value, "the default is none that the parameter may have: %v", err)
		} else if err := exact(p.def); err != nil {
			r.fault(def.Value, "the default: %v", err)
		}
	}
}

// paramSchema reads the schema of a parameter, or of the items of one.
func (r *reader) paramSchema(n *strictyaml.Node, outer bool) (map[string]any, *catalog.Schema) {
	doc, s := map[string]any{}, &catalog.Schema{}
	if n.Kind != strictyaml.Mapping {
		r.fault(n, "a parameter's schema must be %s, not %s", strictyaml.Mapping, n.Kind)
		return doc, s
	}
	at, kind := r.text(n, "type", true)
	if at == nil {
		return doc, s
	}
	types := scalars
	if outer {
		types = append(slices.Clone(scalars), "array")
	}
	if !slices.Contains(types, kind) {
		r.fault(at, "type %q: here it must be one of %s", cut(kind), strings.Join(types, ", "))
		return doc, s
	}
	known := append([]string{"type"}, words[kind]...)
	if outer {
		known = append(known, "description", "default")
	}
	r.mapping(n, "a parameter's schema of type "+kind, known...)
	doc["type"], s.Type = kind, kind
	_, s.Description = r.text(n, "description", false)
	for _, f := range n.Fields {
		switch word := f.Key.Text; {
		case word == "items":
			doc["items"], s.Items = r.paramSchema(f.Value, false)
		case slices.Contains(words[kind], word):
			doc[word] = r.value(f.Value)
		}
	}
	if s.Items == nil && kind == "array" {
		r.fault(n, "an array needs \"items\"")
	}
	if kind == "string" {
		s.Enum = texts(doc)
	}
	return doc, s
}

// texts are the strings that a schema of the profile allows, sorted; nil: any.
func texts(doc map[string]any) (out []string) {
	list, _ := doc["enum"].([]any)
	if v, ok := doc["const"]; ok {
		list = []any{v}
	}
	for _, v := range list {
		if text, ok := v.(string); ok {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *reader) closeParams(n *strictyaml.Node) {
	for _, p := range r.m.params {
		if p.schema.Type == "" {
			return // there is a fault
		}
	}
	var err error
	if r.m.closed, err = closedOver(r.m.params); err != nil && len(r.faults) == 0 {
		r.fault(n, "%v", err)
	}
}

// closedOver is a constraint on an object of exactly these parameters.
func closedOver(params map[string]*parameter) (*grants.Constraint, error) {
	properties := map[string]any{}
	for name, p := range params {
		properties[name] = p.doc
	}
	text, err := strictjson.Canonical(object(properties))
	if err != nil {
		return nil, err
	}
	return grants.CompileConstraint(text)
}

// object is a schema of the profile: all of the properties, and nothing else.
func object(properties map[string]any) map[string]any {
	required := []any{}
	for _, name := range sortedKeys(properties) {
		required = append(required, name)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// ReadParams checks the parameters that a task is to be started with (nil: none)
// and gives their RFC 8785 text with the defaults filled in, at most MaxParams
// bytes. It is never nil: "{}" for a manifest without parameters. What it gives
// has an Entry for every tool. The error says what to mend, and has nothing of
// the values in it.
func (m *Manifest) ReadParams(raw json.RawMessage) (json.RawMessage, error) {
	values := map[string]any{}
	if raw != nil {
		doc, err := strictjson.Parse(raw, strictjson.Limits{Bytes: MaxParams, Depth: 8})
		if err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		var ok bool
		if values, ok = doc.(map[string]any); !ok {
			return nil, errors.New("params: must be an object")
		}
	}
	for _, name := range sortedKeys(values) {
		if m.params[name] == nil {
			return nil, fmt.Errorf("params: the kind %q has no parameter %q%s", m.Kind, cut(name), suggest(name, sortedKeys(m.params)))
		}
	}
	for _, name := range sortedKeys(m.params) {
		if _, given := values[name]; given {
			continue
		}
		p := m.params[name]
		if p.must {
			return nil, fmt.Errorf("params: %q is missing; it is of type %s", name, p.words())
		}
		values[name] = p.def
	}
	if err := m.checkParams(values); err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(values) {
		if err := exact(values[name]); err != nil {
			return nil, fmt.Errorf("params: %q: %w", name, err)
		}
	}
	text, err := strictjson.Canonical(values)
	if err != nil { // the number's digits are not in it
		return nil, fmt.Errorf("params: %w", err)
	}
	if len(text) > MaxParams {
		return nil, fmt.Errorf("params: over %d bytes", MaxParams)
	}
	for _, t := range m.Tools {
		if _, err := m.compiled(t, values); err != nil {
			return nil, err
		}
	}
	return text, nil
}

// exact refuses what policy could not see as it is: its numbers have at most four
// decimals, and its lists are sets.
func exact(v any) error {
	switch x := v.(type) {
	case strictjson.Number:
		if _, ok := x.Units(); !ok {
			return errors.New("a number has at most 4 decimals, and is within ±922337203685477.5807")
		}
	case []any:
		seen := map[string]bool{}
		for _, item := range x {
			if err := exact(item); err != nil {
				return err
			}
			text, err := strictjson.Canonical(item)
			if err != nil || seen[string(text)] {
				return errors.New("a list has no value twice")
			}
			seen[string(text)] = true
		}
	}
	return nil
}

// checkParams holds complete parameters against their schemas.
func (m *Manifest) checkParams(values map[string]any) error {
	if err := m.closed.Check(values); err != nil {
		return fmt.Errorf("params: %s", strings.TrimPrefix(err.Error(), "input "))
	}
	return nil
}

// started reads the parameters of a task that has been started: they are
// complete, or were so for a manifest that was another then.
func (m *Manifest) started(params json.RawMessage) (map[string]any, error) {
	doc, err := strictjson.Parse(params, strictjson.Limits{Bytes: MaxParams, Depth: 8})
	if err != nil {
		return nil, fmt.Errorf("params: %w", err)
	}
	values, ok := doc.(map[string]any)
	if !ok {
		return nil, errors.New("params: must be an object")
	}
	return values, m.checkParams(values)
}
