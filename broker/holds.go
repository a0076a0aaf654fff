package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// canHold says why a constraint could hold of no call of the tool, as the
// catalogue declares its input; nil if one could. A grant that permits nothing
// is a slip in the asking, and is better told of then than at each call. The
// constraints are compiled ones: their form is known to be right.
func canHold(tool *catalog.Tool, constraints []json.RawMessage) error {
	for i, raw := range constraints {
		doc, err := strictjson.Parse(raw, strictjson.Limits{Bytes: grants.MaxConstraint})
		if err != nil {
			return fmt.Errorf("number %d: %w", i, err)
		}
		c, _ := doc.(map[string]any)
		if err := meets(c, tool.Input(), "", tool.Opaque); err != nil {
			return fmt.Errorf("number %d could never hold: %w", i, err)
		}
	}
	return nil
}

// meets compares one level of a constraint with what the catalogue declares at
// the JSON Pointer at (RFC 6901; "*" stands for the elements of an array). An
// opaque value may be anything, and so may the members of an object of which
// none is declared.
func meets(c map[string]any, s *catalog.Schema, at string, opaque []string) error {
	if slices.Contains(opaque, at) {
		return nil
	}
	kind, _ := c["type"].(string)
	if kind != s.Type && !(numeric(kind) && numeric(s.Type)) {
		return fmt.Errorf("%q is of type %s in the catalogue, and no %s", cut(at), s.Type, kind)
	}
	switch kind {
	case "object":
		return meetsMembers(c, s, at, opaque)
	case "array":
		items, _ := c["items"].(map[string]any)
		return meets(items, s.Items, at+"/*", opaque)
	}
	return nil
}

func meetsMembers(c map[string]any, s *catalog.Schema, at string, opaque []string) error {
	properties, _ := c["properties"].(map[string]any)
	// A constraint lists all members that there may be.
	for _, name := range s.Required {
		if _, listed := properties[name]; !listed {
			return fmt.Errorf("every call has %q: list it, too", cut(below(at, name)))
		}
	}
	if len(s.Properties) == 0 && at != "" {
		return nil
	}
	names := make([]string, 0, len(properties))
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		member, declared := s.Properties[name]
		if !declared {
			return fmt.Errorf("the catalogue declares no %q", cut(below(at, name)))
		}
		sub, _ := properties[name].(map[string]any)
		if err := meets(sub, member, below(at, name), opaque); err != nil {
			return err
		}
	}
	return nil
}

// numeric reports whether a type is of numbers: each integer is a number, and
// some numbers are integers.
func numeric(kind string) bool { return kind == "number" || kind == "integer" }

// below is the JSON Pointer of a member (RFC 6901, Section 3).
func below(at, name string) string {
	return at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
