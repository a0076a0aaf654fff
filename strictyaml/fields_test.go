package strictyaml

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sample = "text: a\nnumber: 1.50\nodd: 0x10\nyes: true\nno: false\nnone:\ntime: 90s\npart: 1500ms\nlist: [b, a]\nblock: |\n  5s\n"

// fields reads sample, whose keys must all be known.
func fields(t *testing.T, text string) *Fields {
	t.Helper()
	n := mustParse(t, text)
	var known []string
	for _, f := range n.Fields {
		known = append(known, f.Key.Text)
	}
	f, err := n.Keys(known...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"{}", ""},
		{"b: 1\na: 1", ""},
		{"a: 1\nc: 1", `2:1: unknown key "c"; known are a, b`},
		{"A: 1", `1:1: unknown key "A"; known are a, b`},
		{"- a", "1:1: must be a mapping, not a list"},
		{"a", "1:1: must be a mapping, not a string"},
		{"5", "1:1: must be a mapping, not a number or null"},
		{"true", "1:1: must be a mapping, not true or false"},
	} {
		f, err := mustParse(t, tt.text).Keys("a", "b")
		if got := errorText(err); got != tt.want || (f == nil) != (tt.want != "") {
			t.Errorf("%s: %v, %q; want %q", tt.text, f, got, tt.want)
		}
	}
}

func TestFind(t *testing.T) {
	n := mustParse(t, "a: 1\nb: 2\n")
	if f, ok := n.Find("b"); !ok || f.Key.Line != 2 || f.Value.Text != "2" {
		t.Errorf("b: %v, %t", f, ok)
	}
	if key, ok := n.Key("b"); !ok || key.Text != "b" {
		t.Errorf("key b: %v, %t", key, ok)
	}
	if v, ok := n.Get("c"); ok || v != nil {
		t.Errorf("c: %v, %t", v, ok)
	}
	if _, ok := mustParse(t, "a").Find("a"); ok {
		t.Error("a string has a key")
	}
}

func TestFields(t *testing.T) {
	f := fields(t, sample)
	text := func(key string) (any, error) {
		v, err := f.Text(key)
		return textOf(v), err
	}
	number := func(key string) (any, error) {
		v, err := f.Number(key)
		return textOf(v), err
	}
	boolean := func(key string) (any, error) { return f.Boolean(key) }
	seconds := func(key string) (any, error) { return f.Duration(key, time.Second, 2*time.Minute) }
	minute := func(key string) (any, error) { return f.Duration(key, time.Millisecond, time.Minute) }
	list := func(key string) (any, error) {
		v, err := f.List(key)
		return len(v), err
	}
	for _, tt := range []struct {
		read func(string) (any, error)
		key  string
		want any // a value, or what the error says
	}{
		{text, "text", "a"},
		{text, "missing", `1:1: "missing" is missing`},
		{text, "number", `2:9: "number" must be a string, not a number or null; put it in quotes`},
		{text, "odd", `3:6: "odd" must be a string, not a number or null; put it in quotes`},
		{text, "yes", `4:6: "yes" must be a string, not true or false; put it in quotes`},
		{number, "number", "1.50"},
		{number, "missing", `1:1: "missing" is missing`},
		{number, "odd", "3:6: 0x10: write a number in digits as JSON does (RFC 8259, Section 6), such as 16, -0.5 or 1e3; put a string in quotes"},
		{number, "text", `1:7: "text" must be a number, not a string`},
		{number, "none", `6:6: "none" must be a number, not null`},
		{boolean, "yes", true},
		{boolean, "no", false},
		{boolean, "missing", false},
		{boolean, "text", `1:7: "text" must be true or false, not a string`},
		{boolean, "none", `6:6: "none" must be true or false, not a number or null`},
		{seconds, "time", 90 * time.Second},
		{seconds, "missing", time.Duration(0)},
		{seconds, "part", `8:7: part "1500ms": must be whole seconds, above 0 and at most 2m0s`},
		{seconds, "text", `1:7: "text" must be a duration with its unit, such as 5s`},
		{seconds, "number", `2:9: "number" must be a duration with its unit, such as 5s`},
		{seconds, "block", `10:8: "block" must be a duration with its unit, such as 5s`},
		{minute, "part", 1500 * time.Millisecond},
		{minute, "time", `7:7: time "90s": must be whole milliseconds, above 0 and at most 1m0s`},
		{list, "list", 2},
		{list, "missing", `1:1: "missing" is missing`},
		{list, "text", `1:7: "text" must be a list, not a string`},
	} {
		got, err := tt.read(tt.key)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.key, got, tt.want)
		}
	}
	for _, text := range []string{"0s", "'0'", "-5s", "'5'"} {
		if d, err := fields(t, "time: "+text).Duration("time", time.Second, time.Hour); err == nil {
			t.Errorf("%s: %v", text, d)
		}
	}
	// ParseDuration takes 0 without a unit.
	if d, err := fields(t, "time: 0").Duration("time", time.Second, time.Hour); err == nil || err.Error() != `1:7: "time" must be a duration with its unit, such as 5s` {
		t.Errorf("0: %v, %v", d, err)
	}
}

func TestStrings(t *testing.T) {
	for _, tt := range []struct {
		text, fault string
		want        []string
	}{
		{"a: [y, x, 'z']", "", []string{"x", "y", "z"}},
		{"a: []", "", nil},
		{"{}", "", nil},
		{"a: x", `1:4: "a" must be a list, not a string`, nil},
		{"a: [x, 1]", `1:8: "a" must hold strings, not a number or null; put it in quotes`, nil},
		{"a: [x, 1e3]", `1:8: "a" must hold strings, not a number or null; put it in quotes`, nil},
		{"a: [x, y, x]", `1:11: "x" is there twice in "a"`, nil},
		{"a: [x, bad, bad]", "1:8: bad", nil},
	} {
		got, err := fields(t, tt.text).Strings("a", func(n *Node) error {
			if n.Text == "bad" {
				return n.Errorf("bad")
			}
			return nil
		})
		if diff := cmp.Diff(tt.want, got); diff != "" || errorText(err) != tt.fault {
			t.Errorf("%s: error %q, want %q (-want +got):\n%s", tt.text, errorText(err), tt.fault, diff)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func textOf(n *Node) string {
	if n == nil {
		return ""
	}
	return n.Text
}
