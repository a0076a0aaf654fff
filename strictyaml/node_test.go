package strictyaml

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got := mustParse(t, "--- # a comment\r\nname: x # another\r\nlist: [\"a\\nb\", 'it''s', -1.50, yes,\r\n  True, ~]\nin:\n  block: |\n    one\n    two\n  none:\n  flow: { k: 0x1F }\n  empty: {}\n")
	text := func(line, column int, s string) *Node { return &Node{Kind: Text, Line: line, Column: column, Text: s} }
	want := &Node{Kind: Mapping, Line: 2, Column: 1, Fields: []Field{
		{text(2, 1, "name"), text(2, 7, "x")},
		{text(3, 1, "list"), &Node{Kind: Sequence, Line: 3, Column: 7, Items: []*Node{
			text(3, 8, "a\nb"), text(3, 16, "it's"),
			{Kind: Number, Line: 3, Column: 25, Text: "-1.50"},
			text(3, 32, "yes"),
			{Kind: Boolean, Line: 4, Column: 3, Text: "True", Yes: true},
			{Kind: Null, Line: 4, Column: 9},
		}}},
		{text(5, 1, "in"), &Node{Kind: Mapping, Line: 6, Column: 3, Fields: []Field{
			{text(6, 3, "block"), &Node{Kind: Text, Line: 6, Column: 10, Text: "one\ntwo\n", Block: true}},
			{text(9, 3, "none"), &Node{Kind: Null, Line: 9, Column: 8}},
			{text(10, 3, "flow"), &Node{Kind: Mapping, Line: 10, Column: 11, Fields: []Field{
				{text(10, 11, "k"), &Node{Kind: OddNumber, Line: 10, Column: 14, Text: "0x1F"}},
			}}},
			{text(11, 3, "empty"), &Node{Kind: Mapping, Line: 11, Column: 10}},
		}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNumbers: a number is what JSON writes so, as it was written, and what is in
// quotes is none.
func TestNumbers(t *testing.T) {
	for _, s := range []string{
		"0", "-0", "16", "-1", "1.0", "0.5", "-0.50", "1e3", "1E3", "1e+3", "1.5e-3", "0e0", "1e400",
		"9007199254740993", "18446744073709551616", "123456789012345678901234567890", "-123456789012345678901234567890",
		"1.0000000000000000000000001",
	} {
		for _, text := range []string{"a: " + s, "a: [" + s + "]", "{\"a\": " + s + " }", "a: " + s + " # b", "a:\n  " + s} {
			v := mustParse(t, text+"\n").Fields[0].Value
			if v.Kind == Sequence {
				v = v.Items[0]
			}
			if v.Kind != Number || v.Text != s {
				t.Errorf("%s: %s %q", text, v.Kind, v.Text)
			}
		}
		for _, q := range []string{"'", `"`} {
			if v := mustParse(t, q+s+q); v.Kind != Text || v.Text != s {
				t.Errorf("%s in quotes: %s %q", s, v.Kind, v.Text)
			}
		}
	}
	for _, s := range []string{
		"0x10", "-0x10", "0o17", "017", "00", "-01", "09", "08.5", "0b1", "1_000", "1_", "+1", "+1.5e3", "+0", ".5", "-.5", "1.", "0.", "1.e3", ".5e3",
		".inf", "-.inf", "+.inf", "+.Inf", ".nan", ".NaN", ".INF",
	} {
		n := mustParse(t, "a: "+s+"\n")
		v := n.Fields[0].Value
		if v.Kind != OddNumber || v.Text != s {
			t.Errorf("%s: %s %q", s, v.Kind, v.Text)
		}
		if got, err := n.Value(); err == nil || !strings.HasPrefix(err.Error(), "1:4: "+s+": write a number in digits as JSON does") {
			t.Errorf("%s: value %v, %v", s, got, err)
		}
		if v := mustParse(t, "'"+s+"'"); v.Kind != Text {
			t.Errorf("%s in quotes: %s", s, v.Kind)
		}
	}
	for _, s := range []string{"2025-11-25", "1.2.3", "127.0.0.1:80", "10m", "1e", "0x", "yes", "on", "--1", "12:30", "e3", "inf", "Infinity"} {
		if v := mustParse(t, "a: "+s+"\n").Fields[0].Value; v.Kind != Text || v.Text != s {
			t.Errorf("%s: %s %q", s, v.Kind, v.Text)
		}
	}
	if v := mustParse(t, ">-\n  12\n"); v.Kind != Text || v.Text != "12" {
		t.Errorf("a block: %s %q", v.Kind, v.Text)
	}
}

func TestValue(t *testing.T) {
	got, err := mustParse(t, "a: [1e3, '1e3', true, null, {b: {}}]\nc: []\nd:\n").Value()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": []any{JSONNumber("1e3"), "1e3", true, nil, map[string]any{"b": map[string]any{}}},
		"c": []any{}, "d": nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{"a: {b: [c, 017]}": "1:12: 017: ", "[{a: .5}]": "1:6: .5: "} {
		if v, err := mustParse(t, text).Value(); v != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", text, v, err, want)
		}
	}
}
