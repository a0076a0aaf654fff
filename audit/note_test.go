package audit

import (
	"strings"
	"testing"
)

func TestFacts(t *testing.T) {
	for want, f := range map[string]Facts{
		"kind=release ttl=600 groups=ci,ops":         {Kind: "release", TTL: 600, Groups: []string{"ci", "ops"}},
		"kind=release ttl=0 max_calls=2 groups=":     {Kind: "release", More: "max_calls=2"},
		"groups=corp/ci":                             {TTL: 7, Groups: []string{"corp/ci"}}, // no task, no time
		"kind=k ttl=1 groups=a ttl=900 kind=release": {Kind: "k", TTL: 1, Groups: []string{"a ttl=900 kind=release"}},
	} {
		if got := f.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	many := Facts{Kind: "k", TTL: 5, Groups: strings.Split(strings.Repeat("group,", 1<<16), ",")}
	got := many.String()
	if !strings.HasPrefix(got, "kind=k ttl=5 groups=group,") || len(got) > MaxNote+100 {
		t.Errorf("of many groups: %d bytes, %.60q", len(got), got)
	}
	long := Note("what to mend", many.String())
	if line := string(appendString(nil, long, MaxNote)); !strings.HasPrefix(line, `"what to mend; kind=k ttl=5 groups=group,`) || len(line) > MaxNote+2 {
		t.Errorf("%d bytes, %.60q", len(line), line)
	}
}

func TestNote(t *testing.T) {
	for want, parts := range map[string][]string{
		"": {"", ""}, "a": {"", "a", ""}, "a; b": {"a", "", "b"},
	} {
		if got := Note(parts...); got != want {
			t.Errorf("%q: %q, want %q", parts, got, want)
		}
	}
}
