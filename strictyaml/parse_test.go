package strictyaml

import (
	"errors"
	"strings"
	"testing"
)

const maxTest = 1 << 20

func mustParse(t testing.TB, text string) *Node {
	t.Helper()
	n, err := Parse([]byte(text), maxTest)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return n
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "1:1: the file is empty"},
		{"blanks", " \n\n", "1:1: the file is empty"},
		{"only a comment", "# servers\n", "1:1: the file is empty"},
		{"only a document's start", "---\n", "1:1: the file is empty"},
		{"duplicate key", "a: 1\nb: 2\na: 1\n", `3:1: duplicate key "a"`},
		{"duplicate key in one line", "{b: {a: 1, a: 2}}", `1:12: duplicate key "a"`},
		{"duplicate key in quotes", "a: 1\n\"a\": 2\n", `2:1: duplicate key "a"`},
		{"duplicate key by escape", "a: 1\n\"\\x61\": 2\n", `2:1: duplicate key "a"`},
		{"key a number", "1: a\n", "1:1: a key must be a string; put it in quotes"},
		{"key an odd number", "09: a\n", "1:1: a key must be a string"},
		{"key that only JSON takes for a number", "1e3: a\n", "1:1: a key must be a string"},
		{"key a boolean", "{true: a}", "1:2: a key must be a string"},
		{"key null", "a: {null: 1}\n", "1:5: a key must be a string"},
		{"half a surrogate pair", "a: \"\\uD800\"\n", "surrogate pair"},
		{"replacement character", "a: \ufffd\n", "1:4: the string is not valid Unicode"},
		{"anchor", "a: &x b\n", "1:4: anchors, aliases and merge keys are not supported"},
		{"alias", "a: *x\n", "1:4: anchors"},
		{"alias of itself", "a: &a [*a]\n", "1:4: anchors"},
		{"merge key", "a:\n  <<: {}\n", "2:3: anchors"},
		{"tag", "a: !!str 1\n", "1:4: tags are not supported"},
		{"tag of its own", "!x\na: b\n", "1:1: tags"},
		{"directive", "%YAML 1.2\n---\na: b\n", "directives"},
		{"complex key", "? a\n: b\n", "1:1: complex keys"},
		{"two documents", "a: b\n---\na: b\n", "3:2: more than one YAML document"},
		{"two after an end", "a: b\n...\n---\nc\n", "more than one YAML document"},
		{"deep", strings.Repeat("[", 10_000), "1:65: nested deeper than 64 levels"},
		{"deep mappings", strings.Repeat("{a: ", 10_000), "nested deeper"},
		{"deep by dashes", "a: [" + strings.Repeat("- ", 10_000), "1:5: \"-\" is not supported here"},
		{"dashes in a line", "- - a\n", "1:3: \"-\" is not supported here"},
		{"deep by indentation", strings.Repeat(" ", maxIndent+1) + "a: 1", "1:1: indented by more than 128 columns"},
		{"empty entries", strings.Repeat("-\n", 500_000), `"-" is not supported here`},
		{"not UTF-8", "a: b\n# \xff\n", "2:1: not UTF-8"},
		{"control character", "ä: b # \x1b[2J\n", "1:8: character U+001B is not allowed"},
		{"control character by escape", "a: \"\\e[2J\"\n", "1:4: character U+001B"},
		{"line separator", "a: b\u2028c\n", "1:5: character U+2028"},
		{"paragraph separator", "a: b\u2029c\n", "1:5: character U+2029"},
		{"next line", "a: b\u0085c\n", "1:5: character U+0085"},
		{"byte order mark", "\ufeffa: b\n", "1:1: character U+FEFF"},
		{"carriage return inside", "a: b\rc: d\n", "1:5: character U+000D"},
		{"bad syntax", "a: [\n", "1:4: "},
		{"tab for indentation", "a:\n\tb: c\n", "2:1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := Parse([]byte(tt.text), maxTest)
			var at *PosError
			if n != nil || !errors.As(err, &at) {
				t.Fatalf("got %v, %v; want a *PosError with %q", n, err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want one with %q", err, tt.want)
			}
		})
	}
}

func TestParseRefusesLong(t *testing.T) {
	if _, err := Parse([]byte("a: b"), 4); err != nil {
		t.Error(err)
	}
	_, err := Parse([]byte("a: b\n"), 4)
	if err == nil || err.Error() != "larger than 4 bytes" {
		t.Errorf("error %v", err)
	}
}

func TestParseEmptyIsTold(t *testing.T) {
	if _, err := Parse([]byte("# a\n"), maxTest); !errors.Is(err, ErrEmpty) {
		t.Errorf("error %v, want ErrEmpty", err)
	}
	if _, err := Parse([]byte("a: ["), maxTest); err == nil || errors.Is(err, ErrEmpty) {
		t.Errorf("error %v, want another one", err)
	}
}
