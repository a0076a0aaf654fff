package catalog

import (
	"strings"
	"testing"
)

func TestRefusesText(t *testing.T) {
	refuses(t, []refusal{
		{"nothing", "", "1:1: the file is empty"},
		{"only a comment", "# servers\n", "1:1: the file is empty"},
		{"a list", "- a\n", "1:1: must be a mapping, not a list"},
		{"no servers", "servers: []\n", "1:1: a catalogue needs at least one server"},
		{"servers missing", "{}\n", `1:1: "servers" is missing`},
		{"servers null", "servers:\n", `"servers" must be a list, not a number or null`},
		{"unknown key", one("    retries: 3\n"), `9:5: unknown key "retries"`},
		{"unknown key at the top", one("") + "version: 1\n", `9:1: unknown key "version"`},
		{"key in another case", with("upstream:", "Upstream:"), `4:3: unknown key "Upstream"`},
		{"duplicate key", one("    path: /u\n"), `9:5: duplicate key "path"`},
		{"duplicate key in one line", one("    query: {a: {type: string}, a: {type: integer}}\n"), `9:32: duplicate key "a"`},
		{"duplicate key in quotes", one("    \"path\": /u\n"), `9:5: duplicate key "path"`},
		{"key a number", one("    1: a\n"), "9:5: a key must be a string"},
		{"key a boolean", one("    body: {type: object, properties: {true: {type: string}}}\n"), "a key must be a string"},
		{"key null", one("    body: {type: object, properties: {null: {type: string}}}\n"), "a key must be a string"},
		{"half a surrogate pair", one("    body: {type: object, description: \"\\uD800\"}\n"), "surrogate pair"},
		{"replacement character", one("    body: {type: object, description: \ufffd}\n"), "not valid Unicode"},
		{"anchor", with("id: s", "id: &a s"), "2:7: anchors"},
		{"alias", one("    sets: *a\n"), "9:11: anchors"},
		{"merge key", one("    <<: {}\n"), "9:5: anchors"},
		{"tag", with("id: s", "id: !!str s"), "2:7: tags"},
		{"directive", "%YAML 1.2\n---\n" + one(""), "directives"},
		{"complex key", "? servers\n: []\n", "complex keys"},
		{"two documents", one("") + "---\n" + one(""), "more than one YAML document"},
		{"deep", "servers: " + strings.Repeat("[", 10_000), "nested deeper"},
		{"deep by dashes", "servers: [" + strings.Repeat("- ", 10_000), "not supported here"},
		{"deep by indentation", strings.Repeat(" ", 200) + "a: 1", "indented by more than"},
		{"empty entries", strings.Repeat("-\n", 500_000), `"-" is not supported here`},
		{"too large", one("") + strings.Repeat("#", MaxSize), "larger than 1048576 bytes"},
		{"not UTF-8", one("") + "# \xff\n", "9:1: not UTF-8"},
		{"control character", one("") + "# \x1b[2J\n", "9:3: character U+001B"},
		{"control character by escape", one("    body: {type: object, description: \"\\e[2J\"}\n"), "character U+001B"},
		{"bad syntax", "servers: [\n", "tools.yaml:1:10: "},
	})
}
