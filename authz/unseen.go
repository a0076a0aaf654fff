package authz

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/strictjson"
)

// unseen names the first argument that policy could not see exactly, for the
// caller of a call that was refused for it (grants.Unrepresentable): by its JSON
// Pointer (RFC 6901), and what is wrong with it. "": none that is known here; it
// explains a decision, and makes none.
func unseen(a *asked) string {
	if a.tool == nil {
		return ""
	}
	at, what := unseenIn(a.input, a.tool.Input(), "", a.tool.Opaque)
	if what == "" {
		return ""
	}
	return strconv.Quote(at) + ": " + what
}

func unseenIn(v any, s *catalog.Schema, at string, opaque []string) (where, what string) {
	if slices.Contains(opaque, at) {
		return "", ""
	}
	switch x := v.(type) {
	case strictjson.Number:
		if _, exact := x.Units(); s.Type == "number" && !exact {
			return at, "policy sees numbers with at most 4 decimals, and up to some 922 trillion"
		}
	case []any:
		return unseenItems(x, s, at)
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(x)) {
			member, declared := s.Properties[name]
			if !declared {
				return at + "/" + escapePointer(cut(name)), "not declared by the tool"
			}
			if where, what = unseenIn(x[name], member, at+"/"+escapePointer(name), opaque); what != "" {
				return where, what
			}
		}
	}
	return "", ""
}

// unseenItems looks into an array, which policy sees as a set.
func unseenItems(array []any, s *catalog.Schema, at string) (where, what string) {
	seen := map[string]bool{}
	for i, item := range array {
		// Opaque pointers lead through objects alone.
		if where, what = unseenIn(item, s.Items, at+"/"+strconv.Itoa(i), nil); what != "" {
			return where, what
		}
		if text, err := strictjson.Canonical(item); err == nil {
			if seen[string(text)] {
				return at, "policy sees an array as a set, and two of its elements are equal"
			}
			seen[string(text)] = true
		}
	}
	return "", ""
}

// cut keeps a name that a caller sent from growing an answer and a record.
func cut(name string) string {
	const most = 64
	if len(name) <= most {
		return name
	}
	return strings.ToValidUTF8(name[:most], "") + "…"
}
