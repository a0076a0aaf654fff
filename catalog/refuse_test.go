package catalog

import (
	"strings"
	"testing"
)

// one returns a catalogue with one server and one tool with more fields.
func one(fields string) string {
	return "servers:\n- id: s\n  resource: https://s\n  upstream: 127.0.0.1:1\n  http:\n  - tool: t\n" +
		"    method: POST\n    path: /t\n" + fields
}

// with is one after a replacement.
func with(from, to string) string { return strings.Replace(one(""), from, to, 1) }

// refusal is a catalogue that is refused, and words of the error.
type refusal struct{ name, text, want string }

func refuses(t *testing.T, all []refusal) {
	t.Helper()
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("tools.yaml", []byte(tt.text))
			if err == nil {
				t.Fatalf("accepted; want an error with %q", tt.want)
			}
			if !strings.HasPrefix(err.Error(), "tools.yaml:") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want one with %q", err, tt.want)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"root path":                   with("path: /t", "path: /"),
		"trailing slash":              with("path: /t", "path: /a.b/_~-/"),
		"three dots":                  with("path: /t", "path: /.../t"),
		"same path, another method":   one("  - {tool: u, method: GET, path: /t}\n"),
		"IPv6":                        with("127.0.0.1:1", "'[::1]:65535'"),
		"URN":                         with("https://s", "urn:example:s"),
		"resource with a query":       with("https://s", "https://s/?tenant=a"),
		"longest id":                  with("id: s", "id: "+strings.Repeat("a", 63)),
		"longest time":                one("    timeout: 1h\n"),
		"whole body opaque":           one("    opaque: [/body, /query/a]\n    query: {a: {type: boolean}}\n    body: {type: object}\n"),
		"one name begins another":     one("    volatile: [/body/a, /body/ab]\n" + bodyOfA),
		"in all three lists":          one("    opaque: [/body/a]\n    volatile: [/body]\n    redact: [/body/a]\n" + bodyOfA),
		"any where it is opaque":      one("    opaque: [/body/a, /body/l]\n    body: {type: object, properties: {a: {type: object, properties: {b: {type: any}}}, l: {type: array, items: {type: any}}}}\n"),
		"any as the body":             one("    opaque: [/body]\n    body: {type: any}\n"),
		"literal description":         one("    body:\n      type: object\n      description: |\n        one\n        two\n"),
		"empty required":              one("    body: {type: object, required: []}\n"),
		"Windows line ends":           strings.ReplaceAll(one(""), "\n", "\r\n"),
		"document start":              "---\n" + one(""),
		"words that YAML 1.1 mangles": one("    body: {type: string, enum: [yes, no, on, off]}\n"),
	} {
		if _, err := Parse(name, []byte(text)); err != nil {
			t.Error(err)
		}
	}
}
