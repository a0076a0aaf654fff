package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse: what Parse takes is as the package says, and JSON that it takes is
// what it is to a reader of JSON.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		sample, "a: &a [*a]", "? a\n: b", "- - a", "!!str a", "%YAML 1.2\n---\na", "a: |2\n   b", "\"\\xff\"", "a: 'b'\nc: >-\n  d",
		`{"a": [1, -0.5e+3, "\u00e4\ud83d\ude00\/\n", true, false, null, {"b": {}}], "c": []}`,
		"a: [0x10, 017, 1_000, +1, .5, 1e3, .inf, ~]\n", "{a: 1, a: 2}", "{1e3: a}", "a:\n- b: c\n  d: e\n- {f: g}\n", "a: b\n---\nc",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := Parse(text, maxTest)
		if err != nil {
			var at *PosError
			if !errors.As(err, &at) || at.Line < 1 || at.Column < 1 || at.Message == "" {
				t.Errorf("error %v has no place", err)
			}
			return
		}
		checkNode(t, n, 0)
		if again, err := Parse(text, maxTest); err != nil || !cmp.Equal(n, again) {
			t.Errorf("the same text gives another tree, or error %v", err)
		}
		got, err := n.Value()
		if err != nil || !json.Valid(text) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(withJSONNumbers(want), got); diff != "" {
			t.Errorf("not what JSON says (-json +yaml):\n%s", diff)
		}
	})
}

// withJSONNumbers is v with numbers as Value gives them.
func withJSONNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return JSONNumber(v)
	case []any:
		for i := range v {
			v[i] = withJSONNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withJSONNumbers(v[k])
		}
	}
	return v
}

func checkNode(t *testing.T, n *Node, depth int) {
	if n.Line < 1 || n.Column < 1 {
		t.Errorf("%s at %d:%d", n.Kind, n.Line, n.Column)
	}
	if depth > maxFlowDepth+maxIndent {
		t.Fatal("deeper than its bounds")
	}
	for _, item := range n.Items {
		checkNode(t, item, depth+1)
	}
	keys := map[string]bool{}
	for _, f := range n.Fields {
		if f.Key.Kind != Text || keys[f.Key.Text] {
			t.Errorf("key %q is %s, or there twice", f.Key.Text, f.Key.Kind)
		}
		keys[f.Key.Text] = true
		checkNode(t, f.Key, depth+1)
		checkNode(t, f.Value, depth+1)
	}
	switch n.Kind {
	case Text:
		if !utf8.ValidString(n.Text) || strings.ContainsRune(n.Text, utf8.RuneError) {
			t.Errorf("text %q", n.Text)
		}
	case Number:
		if !json.Valid([]byte(n.Text)) {
			t.Errorf("number %q", n.Text)
		}
	case OddNumber:
		if json.Valid([]byte(n.Text)) {
			t.Errorf("odd number %q", n.Text)
		}
	case Boolean, Null, Mapping, Sequence:
	default:
		t.Errorf("kind %q", n.Kind)
	}
}
