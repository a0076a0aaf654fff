package catalog

import (
	"strings"
	"testing"
)

// TestRefusesText: of what package strictyaml refuses, that it is told with the
// file's name and place; and what a catalogue is not.
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
		{"anchor", with("id: s", "id: &a s"), "2:7: anchors"},
		{"two documents", one("") + "---\n" + one(""), "more than one YAML document"},
		{"deep", "servers: " + strings.Repeat("[", 10_000), "nested deeper"},
		{"too large", one("") + strings.Repeat("#", MaxSize), "larger than 1048576 bytes"},
		{"not UTF-8", one("") + "# \xff\n", "9:1: not UTF-8"},
		{"control character", one("") + "# \x1b[2J\n", "9:3: character U+001B"},
		{"bad syntax", "servers: [\n", "tools.yaml:1:10: "},
	})
}
