package catalog

import (
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/strictyaml"
)

// RFC 6901, Section 4: "~1" is undone first, so that "~01" becomes "~1".
func escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

func unescape(part string) string {
	return strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
}

// PointerPath returns the names of members that a JSON Pointer (RFC 6901) out of
// the catalogue leads through: ["a/b", "c"] of "/a~1b/c", none of "".
func PointerPath(pointer string) []string {
	if pointer == "" {
		return nil
	}
	var path []string
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		path = append(path, unescape(part))
	}
	return path
}

// readPlaces reads the lists of pointers into the tool's input, which has been
// read.
func (t *Tool) readPlaces(f *fields) error {
	var err error
	if t.Opaque, err = t.pointers(f, "opaque", func(*strictyaml.Node) error { return nil }); err != nil {
		return err
	}
	if t.Volatile, err = t.pointers(f, "volatile", apart("volatile")); err != nil {
		return err
	}
	t.Redact, err = t.pointers(f, "redact", apart("redact"))
	return err
}

// pointers returns those under key, sorted; nil if it is not there.
func (t *Tool) pointers(f *fields, key string, check func(*strictyaml.Node) error) ([]string, error) {
	input := t.Input()
	return f.Strings(key, func(v *strictyaml.Node) error {
		if _, err := checkPointer(key, v, input); err != nil {
			return err
		}
		return check(v)
	})
}

// apart refuses a pointer inside of what another of the list names: it would say
// nothing, and two files that mean the same must be the same catalogue.
func apart(key string) func(*strictyaml.Node) error {
	var seen []string
	return func(v *strictyaml.Node) error {
		for _, outer := range seen {
			inner := v.Text
			if len(inner) < len(outer) {
				inner, outer = outer, inner
			}
			if inner != outer && covered([]string{outer}, inner) {
				return v.Errorf("%s %q: %q is inside of %q; leave it out", key, v.Text, inner, outer)
			}
		}
		seen = append(seen, v.Text)
		return nil
	}
}

// checkPointer wants a JSON Pointer (RFC 6901) to a place that the schema of the
// input declares, and returns that one's. It does not lead into arrays: their
// elements have no fixed places.
func checkPointer(what string, v *strictyaml.Node, s *Schema) (*Schema, error) {
	if !strings.HasPrefix(v.Text, "/") {
		return nil, v.Errorf("%s %q: must be a JSON Pointer into the input, such as /body/note or, of an MCP tool, /note", what, v.Text)
	}
	for part := range strings.SplitSeq(v.Text[1:], "/") {
		name := unescape(part)
		if escape(name) != part {
			return nil, v.Errorf("%s %q: \"~\" must be followed by 0 or 1 (RFC 6901, Section 3)", what, v.Text)
		}
		if s = s.Properties[name]; s == nil {
			return nil, v.Errorf("%s %q: the input has no such property", what, v.Text)
		}
	}
	return s, nil
}

// covered reports whether what the pointer names is one of the places, or inside
// of one.
func covered(places []string, pointer string) bool {
	return slices.ContainsFunc(places, func(o string) bool { return pointer == o || strings.HasPrefix(pointer, o+"/") })
}
