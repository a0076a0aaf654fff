package catalog

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const bodyOfA = "    body: {type: object, properties: {a: {type: string}, ab: {type: string}}}\n"

func TestRefusesPlaces(t *testing.T) {
	refuses(t, []refusal{
		{"opaque not a pointer", one("    opaque: [body]\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"opaque empty", one("    opaque: ['']\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"opaque unknown", one("    opaque: [/body/a]\n    body: {type: object}\n"), "no such property"},
		{"opaque without body", one("    opaque: [/body]\n"), "no such property"},
		{"opaque bad escape", one("    opaque: [/body/~2]\n    body: {type: object, properties: {~2: {type: string}}}\n"), "must be followed by 0 or 1"},
		{"opaque into an array", one("    opaque: [/body/0]\n    body: {type: array, items: {type: string}}\n"), "no such property"},
		{"volatile not a list", one("    volatile: /body\n    body: {type: object}\n"), `"volatile" must be a list`},
		{"volatile unknown", one("    volatile: [/body/a]\n    body: {type: object}\n"), `9:16: volatile "/body/a": the input has no such property`},
		{"volatile twice", one("    volatile: [/body, /body]\n    body: {type: object}\n"), `"/body" is there twice in "volatile"`},
		{"volatile, all", one("    volatile: ['']\n    body: {type: object}\n"), "must be a JSON Pointer"},
		{"volatile inside", one("    volatile: [/body, /body/a]\n" + bodyOfA), `9:23: volatile "/body/a": "/body/a" is inside of "/body"; leave it out`},
		{"volatile around", one("    volatile: [/body/a, /body]\n" + bodyOfA), `9:25: volatile "/body": "/body/a" is inside of "/body"; leave it out`},
		{"redact unknown", one("    redact: [/query/a]\n"), `9:14: redact "/query/a": the input has no such property`},
		{"redact inside", one("    redact: [/body, /body/a]\n" + bodyOfA), `redact "/body/a": "/body/a" is inside of "/body"`},
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
