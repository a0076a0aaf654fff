package replay

import (
	"maps"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// withheld gives the arguments of a question as they may be kept, and where
// something was: what policy does not see (opaque), and what the catalogue
// redacts. Of a tool that the catalogue does not have, nothing is kept: who knows
// what it would redact.
func withheld(c *catalog.Catalog, in *grants.Input) (args any, opaque, redacted []string) {
	if in.Args == nil || in.Tool == "" {
		return in.Args, nil, nil
	}
	t, known := c.Tool(in.Tool)
	if !known {
		return nil, nil, []string{""}
	}
	args = in.Args
	take := func(pointers []string) (taken []string) {
		for _, p := range pointers {
			var there bool
			if args, there = without(args, catalog.PointerPath(p)); there {
				taken = append(taken, p)
			}
		}
		return taken
	}
	opaque = take(t.Opaque)
	return args, opaque, take(t.Redact)
}

// without is v, copied where it must be, without what the path leads to through
// objects, and whether that was there.
func without(v any, path []string) (any, bool) {
	object, ok := v.(map[string]any)
	if !ok || len(path) == 0 {
		return v, false
	}
	child, ok := object[path[0]]
	if !ok {
		return v, false
	}
	var rest map[string]any
	if len(path) == 1 {
		rest = maps.Clone(object)
		delete(rest, path[0])
		return rest, true
	}
	child, ok = without(child, path[1:])
	if !ok {
		return v, false
	}
	rest = maps.Clone(object)
	rest[path[0]] = child
	return rest, true
}
