package cedar

import (
	"fmt"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Bounds of inputs. A Cedar set is a hash table whose hashes a caller can make
// collide, so that its cost is the square of its size; the validator's cost
// can double with each level of a schema.
const (
	maxArray    = 1024 // elements of one array that policy sees
	maxElements = 4096 // elements of all arrays of one input
	maxDepth    = 16   // levels of a tool's schema
)

// shape is a tool's input as policy sees it: the catalogue's schema without
// what is opaque.
type shape struct {
	of    string               // a catalog.Schema's type
	attrs map[string]attribute // of an object
	items *shape               // of an array
	enum  []string             // of a string: what it can be; empty: anything
}

type attribute struct {
	shape    *shape // nil: opaque
	required bool
	doc      string
}

// shapes gives every tool's input, by SERVER/TOOL.
func shapes(c *catalog.Catalog) (map[string]*shape, error) {
	all := map[string]*shape{}
	for i := range c.Servers {
		for _, t := range c.Servers[i].Tools {
			s, err := newShape(t.Input(), "", t.Opaque, maxDepth)
			if err != nil {
				return nil, fmt.Errorf("tool %s: input%w", t.ID, err)
			}
			all[t.ID] = s
		}
	}
	return all, nil
}

// newShape reads the part of a schema that the JSON Pointer at leads to.
func newShape(s *catalog.Schema, at string, opaque []string, depth int) (*shape, error) {
	if depth == 0 {
		return nil, fmt.Errorf("%s: schemas nest deeper than %d levels", at, maxDepth)
	}
	if s == nil {
		return nil, fmt.Errorf("%s: no schema", at)
	}
	out := &shape{of: s.Type, enum: s.Enum}
	var err error
	switch s.Type {
	case "string", "integer", "number", "boolean":
	case "array":
		// An element of a Cedar set has no index for a pointer to name.
		out.items, err = newShape(s.Items, at+"/*", nil, depth-1)
	case "object":
		out.attrs = map[string]attribute{}
		for name, p := range s.Properties {
			a := attribute{required: slices.Contains(s.Required, name)}
			if p != nil {
				a.doc = p.Description
			}
			below := pointer(at, name)
			if !slices.Contains(opaque, below) {
				if a.shape, err = newShape(p, below, opaque, depth-1); err != nil {
					break
				}
			}
			out.attrs[name] = a
		}
	default:
		err = fmt.Errorf("%s: type %q is not known", at, s.Type)
	}
	return out, err
}

// pointer gives the JSON Pointer of a member (RFC 6901, Section 3).
func pointer(at, name string) string {
	return at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// schemaType is the Cedar type of the values that the shape builds.
func (s *shape) schemaType() ast.IsType {
	switch s.of {
	case "string":
		return ast.String()
	case "integer":
		return ast.Long()
	case "number":
		return ast.Decimal()
	case "boolean":
		return ast.Bool()
	case "array":
		return ast.Set(s.items.schemaType())
	}
	rec := ast.RecordType{}
	for name, a := range s.attrs {
		if a.shape != nil {
			rec[cedargo.String(name)] = ast.Attribute{
				Type: a.shape.schemaType(), Optional: !a.required, Annotations: doc(a.doc),
			}
		}
	}
	return rec
}

// builder turns a parsed input into a Cedar value by hand. Cedar's own JSON
// decoding would let a caller mint entities and extension values (__entity,
// __extn).
type builder struct{ elements int }

// value returns the exact Cedar value of v; false if it has none.
func (b *builder) value(s *shape, v any) (cedargo.Value, bool) {
	switch v := v.(type) {
	case string:
		return cedargo.String(v), s.of == "string"
	case bool:
		return cedargo.Boolean(v), s.of == "boolean"
	case strictjson.Number:
		switch s.of {
		case "integer":
			n, ok := v.Int64()
			return cedargo.Long(n), ok
		case "number":
			n, ok := v.Units()
			d, err := cedargo.NewDecimal(n, -4)
			return d, ok && err == nil
		}
	case []any:
		return b.set(s, v)
	case map[string]any:
		return b.record(s, v)
	}
	return nil, false // null has no type in Cedar
}

// set gives an array as a set, which has no order. Two equal elements would
// become one, and policy would count fewer than the tool gets.
func (b *builder) set(s *shape, array []any) (cedargo.Value, bool) {
	b.elements += len(array)
	if s.of != "array" || len(array) > maxArray || b.elements > maxElements {
		return nil, false
	}
	values := make([]cedargo.Value, len(array))
	for i, item := range array {
		v, ok := b.value(s.items, item)
		if !ok {
			return nil, false
		}
		values[i] = v
	}
	set := cedargo.NewSet(values...)
	return set, set.Len() == len(array)
}

func (b *builder) record(s *shape, object map[string]any) (cedargo.Value, bool) {
	if s.of != "object" {
		return nil, false
	}
	rec := make(cedargo.RecordMap, len(object))
	for name, member := range object {
		a, declared := s.attrs[name]
		if !declared {
			return nil, false
		}
		if a.shape == nil {
			continue // opaque
		}
		v, ok := b.value(a.shape, member)
		if !ok {
			return nil, false
		}
		rec[cedargo.String(name)] = v
	}
	// The validator has told policies that these are there.
	for name, a := range s.attrs {
		if _, there := rec[cedargo.String(name)]; a.required && a.shape != nil && !there {
			return nil, false
		}
	}
	return cedargo.NewRecord(rec), true
}
