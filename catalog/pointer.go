package catalog

import (
	"slices"
	"strings"
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

// readOpaque reads the pointers to what policy does not see of the tool's input,
// which has been read.
func (t *Tool) readOpaque(f *fields) error {
	input := t.Input()
	var err error
	t.Opaque, err = f.strings("opaque", func(v *node) error {
		_, err := checkPointer("opaque", v, input)
		return err
	})
	return err
}

// checkPointer wants a JSON Pointer (RFC 6901) to a place that the schema of the
// input declares, and returns that one's. It does not lead into arrays: their
// elements have no fixed places.
func checkPointer(what string, v *node, s *Schema) (*Schema, error) {
	if !strings.HasPrefix(v.text, "/") {
		return nil, v.errorf("%s %q: must be a JSON Pointer into the input, such as /body/note or, of an MCP tool, /note", what, v.text)
	}
	for part := range strings.SplitSeq(v.text[1:], "/") {
		name := unescape(part)
		if escape(name) != part {
			return nil, v.errorf("%s %q: \"~\" must be followed by 0 or 1 (RFC 6901, Section 3)", what, v.text)
		}
		if s = s.Properties[name]; s == nil {
			return nil, v.errorf("%s %q: the input has no such property", what, v.text)
		}
	}
	return s, nil
}

// covered reports whether what the pointer names is one of the opaque, or inside
// of one.
func covered(opaque []string, pointer string) bool {
	return slices.ContainsFunc(opaque, func(o string) bool { return pointer == o || strings.HasPrefix(pointer, o+"/") })
}
