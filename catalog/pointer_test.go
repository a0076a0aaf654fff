package catalog

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRefusesOpaque(t *testing.T) {
	refuses(t, []refusal{
		{"opaque not a pointer", one("    opaque: [body]\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"opaque empty", one("    opaque: ['']\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"opaque unknown", one("    opaque: [/body/a]\n    body: {type: object}\n"), "no such property"},
		{"opaque without body", one("    opaque: [/body]\n"), "no such property"},
		{"opaque bad escape", one("    opaque: [/body/~2]\n    body: {type: object, properties: {~2: {type: string}}}\n"), "must be followed by 0 or 1"},
		{"opaque into an array", one("    opaque: [/body/0]\n    body: {type: array, items: {type: string}}\n"), "no such property"},
	})
}

func TestPointerPath(t *testing.T) {
	for pointer, want := range map[string][]string{
		"": nil, "/": {""}, "/a": {"a"}, "/a/b": {"a", "b"}, "/a~1b/~0c/~01": {"a/b", "~c", "~1"},
	} {
		if diff := cmp.Diff(want, PointerPath(pointer)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", pointer, diff)
		}
	}
}
