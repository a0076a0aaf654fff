package identity

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// TestAgentsCanBeNamed: a subject is either one that a token can have and that
// can be named, or neither.
func TestAgentsCanBeNamed(t *testing.T) {
	v, key, _ := newVerifier(t)
	for sub, good := range map[string]bool{
		"agent-7": true, "a/b/c": true, "auth0|5f7c é 名": true, "Jo Doe": true, "urn:a b": true, strings.Repeat("a", maxSubject): true, "\ufffd": true,
		"": false, " a": false, "a ": false, " ": false, "a\tb": false, "a\nb": false, "a\x00": false, "a\x7f": false, "a\u0085b": false, "a\u009bb": false,
		"a\u00a0b": false, "a\u2028b": false, "a\u2029b": false, "a\u202eb": false, "a\u2066b": false, "a\u200bb": false, "a\ufeffb": false, "a\u3000b": false,
		strings.Repeat("a", maxSubject+1): false, "a\xffb": false,
	} {
		text, _ := json.Marshal(sub)
		if strings.Contains(sub, "\xff") {
			text = []byte(`"` + sub + `"`) // json.Marshal mends it
		}
		_, why := v.Verify(key.sign(key.header(""), payload(t, "sub", string(text))), testNow)
		if (why == grants.None) != good {
			t.Errorf("sub %q: %v", sub, why)
		}
		got, ok := ParseAgent("corp/" + sub)
		if want := (grants.Principal{Issuer: "corp", Subject: sub}); ok != good || ok && !cmp.Equal(got, want) {
			t.Errorf("agent %q: %v, %+v", sub, ok, got)
		}
	}
	for _, id := range []string{"", "corp", "corp/", "/a", "Corp/a", "-/a", "c rp/a", "corp /a", strings.Repeat("a", 32) + "/a", "corp\n/a", " corp/a"} {
		if got, ok := ParseAgent(id); ok {
			t.Errorf("%q: %+v", id, got)
		}
	}
}
