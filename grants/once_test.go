package grants_test

import (
	"testing"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

func TestOnceDigest(t *testing.T) {
	digest := func(text string, leaveOut ...string) grants.Digest {
		t.Helper()
		in, err := strictjson.Parse([]byte(text), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := grants.OnceDigest(in, leaveOut)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	whole := digest(`{"to":"a","amount":10,"ref":{"id":"x","kind":"k"}}`)
	for _, same := range []string{`{"amount":10.0,"to":"a","ref":{"kind":"k","id":"x"}}`, `{"amount":1e1,"ref":{"id":"\u0078","kind":"k"},"to":"a"}`} {
		if digest(same) != whole {
			t.Errorf("%s: another digest, though it says the same", same)
		}
	}
	for _, other := range []string{`{"to":"a","amount":11,"ref":{"id":"x","kind":"k"}}`, `{"to":"a","amount":10}`, `{"to":"a","amount":"10","ref":{"id":"x","kind":"k"}}`, `{"to":"a","amount":10,"ref":{"id":"x","kind":"k"},"more":null}`} {
		if digest(other) == whole {
			t.Errorf("%s: the same digest, though it says something else", other)
		}
	}
	left := digest(`{"to":"a","ref":{"id":"x","kind":"k"}}`, "/ref/id")
	for _, same := range []string{`{"to":"a","ref":{"id":"y","kind":"k"}}`, `{"to":"a","ref":{"kind":"k"}}`} {
		if digest(same, "/ref/id") != left {
			t.Errorf("%s: another digest, though only what is left out differs", same)
		}
	}
	if digest(`{"to":"a","ref":{"id":"x","kind":"j"}}`, "/ref/id") == left || digest(`{"to":"b","ref":{"id":"x","kind":"k"}}`, "/ref/id") == left {
		t.Error("the same digest, though another argument differs")
	}
	if in := map[string]any{"a~/b": "x", "c": true}; true {
		a, _ := grants.OnceDigest(in, []string{"/a~0~1b"})
		b, _ := grants.OnceDigest(map[string]any{"c": true}, nil)
		if a != b || len(in) != 2 {
			t.Error("an escaped pointer does not lead there, or the input was changed")
		}
	}
}
