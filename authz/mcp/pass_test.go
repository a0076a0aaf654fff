package mcp

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var aPass = Pass{
	Decision: "d", Server: "github", Agent: "spiffe://x/a", Method: "tools/call", Grants: []string{"g", "h"}, Revision: Rev20251125,
	Ends: time.UnixMilli(1_800_000_000_123),
}

func TestSeal(t *testing.T) {
	s := NewSeal()
	text := s.Close(aPass)
	before, at := aPass.Ends.Add(-time.Millisecond), aPass.Ends
	got, ok := s.Open(text, before)
	if diff := cmp.Diff(aPass, got); !ok || diff != "" {
		t.Fatalf("opened %v: %s", ok, diff)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("no text for a header: %q", text)
	}
	baseline := aPass
	baseline.Grants = nil
	if got, ok := s.Open(s.Close(baseline), before); !ok || len(got.Grants) > 0 {
		t.Errorf("baseline: opened %v with %v", ok, got.Grants)
	}
	if _, ok := s.Open(text, at); ok {
		t.Error("good at its end")
	}
	if _, ok := NewSeal().Open(text, before); ok {
		t.Error("another key opens it")
	}
	for i := range text {
		if _, ok := s.Open(text[:i], before); ok {
			t.Errorf("good when cut at %d", i)
		}
		changed := []byte(text)
		changed[i] ^= 1
		if _, ok := s.Open(string(changed), before); ok {
			t.Errorf("good when changed at %d", i)
		}
		if _, ok := s.Open(text[:i]+"\n"+text[i:], before); ok {
			t.Errorf("good with a line break at %d", i)
		}
	}
	for _, more := range []string{"=", ".", "A", " "} {
		if _, ok := s.Open(text+more, before); ok {
			t.Errorf("good with %q behind", more)
		}
	}
	long := aPass
	long.Agent = strings.Repeat("a", maxSealed)
	if _, ok := s.Open(s.Close(long), before); ok {
		t.Error("good over its bound")
	}
}

func FuzzOpen(f *testing.F) {
	s := NewSeal()
	text := s.Close(aPass)
	f.Add(text, "")
	f.Add("", text)
	f.Add(strings.Replace(text, ".", "..", 1), ".")
	f.Add(NewSeal().Close(aPass), "")
	f.Fuzz(func(t *testing.T, a, b string) {
		if _, ok := s.Open(a+b, time.Unix(0, 0)); ok != (a+b == text) {
			t.Errorf("%q is opened: %v", a+b, ok)
		}
	})
}
