package spelling

import "testing"

func TestNearest(t *testing.T) {
	for _, tc := range []struct {
		what, name string
		known      []string
		want       string
	}{
		{"none", "pay", nil, ""},
		{"itself", "pay", []string{"pa", "pay"}, "pay"},
		{"replaced", "pax", []string{"send", "pay"}, "pay"},
		{"two turned round", "grnat", []string{"grant"}, "grant"},
		{"one too few", "max_call", []string{"max_calls"}, "max_calls"},
		{"two too many", "grantss", []string{"grant"}, "grant"},
		{"moved", "ayp", []string{"pay"}, "pay"},
		{"three too many", "grantsss", []string{"grant"}, ""},
		{"three replaced", "abcdef", []string{"abcxyz"}, ""},
		{"the nearer", "grant", []string{"grunts", "grants"}, "grants"},
		{"the first of two", "pay", []string{"way", "day"}, "way"},
		{"bytes, not letters", "caf", []string{"cafés"}, ""}, // é is two
		{"case", "PAY", []string{"pay"}, ""},
		{"all of a short name", "ab", []string{"xy"}, "xy"},
	} {
		if got := Nearest(tc.name, tc.known); got != tc.want {
			t.Errorf("%s: Nearest(%q, %q) is %q, not %q", tc.what, tc.name, tc.known, got, tc.want)
		}
	}
}
