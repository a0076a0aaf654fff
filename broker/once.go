package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// readOnce reads the one input that a one-time grant is asked for. It has the
// form in which the call door sees a call's input, and it is one that the
// catalogue would let through: a grant for any other would be for nothing.
func readOnce(tool *catalog.Tool, raw json.RawMessage) (any, grants.Digest, error) {
	input, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return nil, grants.Digest{}, err
	}
	if err := fits(input, tool.Input(), "", tool.Opaque); err != nil {
		return nil, grants.Digest{}, err
	}
	digest, err := grants.OnceDigest(input, tool.Volatile)
	return input, digest, err
}

// fits holds a value against what the catalogue declares at the JSON Pointer at
// (RFC 6901), as the call door does. Members that are not declared are refused
// here already, for policy would see them at no call; opaque ones may be
// anything.
func fits(v any, s *catalog.Schema, at string, opaque []string) error {
	if slices.Contains(opaque, at) {
		return nil
	}
	ok := false
	switch x := v.(type) {
	case string:
		if ok = s.Type == "string"; ok && len(s.Enum) > 0 && !slices.Contains(s.Enum, x) {
			return fmt.Errorf("%q is none of the texts that the catalogue lists", cut(at))
		}
	case bool:
		ok = s.Type == "boolean"
	case strictjson.Number:
		_, integral := x.Int64()
		ok = s.Type == "number" || s.Type == "integer" && integral
	case []any:
		if ok = s.Type == "array"; ok && s.Items != nil {
			for i, item := range x {
				if err := fits(item, s.Items, at+"/"+strconv.Itoa(i), opaque); err != nil {
					return err
				}
			}
		}
	case map[string]any:
		if ok = s.Type == "object"; ok {
			return memberwise(x, s, at, opaque)
		}
	}
	if !ok && at == "" {
		return errors.New("write an object, as the catalogue describes the tool's input")
	}
	if !ok {
		return fmt.Errorf("%q is of type %s in the catalogue", cut(at), s.Type)
	}
	return nil
}

func memberwise(object map[string]any, s *catalog.Schema, at string, opaque []string) error {
	for _, name := range s.Required {
		if _, there := object[name]; !there {
			return fmt.Errorf("%q is missing: every call has it", cut(below(at, name)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		member, declared := s.Properties[name]
		switch {
		case !declared && len(s.Properties) == 0 && at != "": // as in meetsMembers
			continue
		case !declared:
			return fmt.Errorf("the catalogue declares no %q", cut(below(at, name)))
		}
		if err := fits(object[name], member, below(at, name), opaque); err != nil {
			return err
		}
	}
	return nil
}

// oneTime makes a proposal one for one call, where that is asked for or where the
// grant to renew is one.
func (p *granted) oneTime(a ask) error {
	g := &p.grant
	switch {
	case p.old == nil:
		g.Once = a.once
	case !a.once.IsZero() && a.once != g.Once: // what it has of the old one
		return errors.New(`"input" is not the one that the grant to renew is for: ask for a new grant`)
	}
	if a.oneByOne && g.Once.IsZero() {
		return errors.New(`the manifest has the tool for one call at a time: ask for each with its "input"`)
	}
	// The account is the grant's own, or the first of them would be the only one of
	// the task. A renewal has that of the old one.
	if p.old == nil && !g.Once.IsZero() {
		g.Budgets = append(g.Budgets, grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 1})
	}
	return nil
}
