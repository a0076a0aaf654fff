package manifest

import (
	"strings"
	"testing"
	"time"
)

// A shorter max_duration binds tasks that were started before: by when they were,
// and not by what is left of them.
func TestAdmitsWithinMaxDurationOfTheStart(t *testing.T) {
	now := mustParse(t, "kind: k\nmax_duration: 10s\ntools: [{tool: bank/get_iban}]")
	task := taskOf(mustParse(t, "kind: k\nmax_duration: 1h\ntools: [{tool: bank/get_iban}]"), "{}")
	task.Started = begin
	g := granted(t, now, task, "bank/get_iban")
	for _, tc := range []struct {
		after, lasts time.Duration
		ok           bool
	}{
		{0, 10 * time.Second, true}, {7 * time.Second, 3 * time.Second, true}, {7 * time.Second, 4 * time.Second, false},
		{10 * time.Second, 2 * time.Second, false}, {59 * time.Minute, 2 * time.Second, false},
	} {
		g.NotBefore = begin.Add(tc.after)
		g.Expires = g.NotBefore.Add(tc.lasts)
		if err := setOf(now).Admits(task, g); (err == nil) != tc.ok {
			t.Errorf("%v after the start, for %v: %v", tc.after, tc.lasts, err)
		}
	}
}

// What policy could not see exactly is no parameter, given or by default.
func TestParamsAreExact(t *testing.T) {
	m := mustParse(t, with("required: [n, l], properties: {n: {type: number}, l: {type: array, items: {type: string}}}", "- {tool: bank/get_iban}"))
	for _, tc := range []struct{ params, want string }{
		{`{"n":0.0001,"l":["a","b"]}`, ""},
		{`{"n":0.00001,"l":["a"]}`, "4 decimals"},
		{`{"n":1e300,"l":["a"]}`, "4 decimals"},
		{`{"n":1,"l":["a","b","a"]}`, "twice"},
		{`{"n":1,"l":["a","\u0061"]}`, "twice"},
	} {
		_, err := m.ReadParams([]byte(tc.params))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.params, err)
		}
	}
	for params, want := range map[string]string{
		"properties: {n: {type: number, default: 0.00001}}":                         "4 decimals",
		"properties: {l: {type: array, items: {type: integer}, default: [1, 1.0]}}": "twice",
	} {
		if _, err := Parse("m.yaml", []byte(with(params, "- {tool: bank/get_iban}")), testCatalog(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", params, err)
		}
	}
}

// A parameter in the place of a text that the catalogue lists is one of these.
func TestParamsOfAnEnum(t *testing.T) {
	for template, params := range map[string][2]string{
		"urgency: {const: {$param: u}}": {`{"u":"low"}`, `{"u":"never"}`},
	} {
		m := mustParse(t, input("u: {type: string}", template))
		if _, err := m.ReadParams([]byte(params[0])); err != nil {
			t.Errorf("%s: %v", template, err)
		}
		if _, err := m.ReadParams([]byte(params[1])); err == nil || !strings.Contains(err.Error(), "low") || strings.Contains(err.Error(), "never") {
			t.Errorf("%s: %v", template, err)
		}
	}
	m := mustParse(t, input("u: {type: array, items: {type: string}}", "urgency: {enum: {$param: u}}"))
	if _, err := m.ReadParams([]byte(`{"u":["high"]}`)); err != nil {
		t.Error(err)
	}
	if _, err := m.ReadParams([]byte(`{"u":["high","never"]}`)); err == nil {
		t.Error("a list with another text is taken")
	}
}
