package pdp

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Whatever OPA answers, what is taken of it is one bounded answer to each question.
func FuzzOPAAnswer(f *testing.F) {
	f.Add([]byte(`{"result": {"answers": [{"n": 0, "allow": true, "policies": ["a"], "cacheable_for": 5}], "revision": "1"}, "provenance": {"bundles": {"a": {"revision": "1"}}}}`), 1)
	f.Add([]byte(`{"result": {"answers": []}}`), 0)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		n = max(0, min(n, 8))
		out, err := readOPA(body, n)
		if err != nil {
			return
		}
		if len(out) != n {
			t.Fatalf("%d answers to %d questions", len(out), n)
		}
		checkAnswers(t, out)
	})
}

// Whatever a PDP answers, likewise.
func FuzzDecision(f *testing.F) {
	f.Add([]byte(`{"decision": false, "context": {"reason": "policy", "advice": "a", "policies": ["b", "a"], "revision": "1"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var d azDecision
		if strictjson.UnmarshalOpen(body, strictjson.Limits{}, &d) != nil {
			return
		}
		if a, err := d.answer(); err == nil {
			checkAnswers(t, []answer{a})
		}
	})
}

func checkAnswers(t *testing.T, out []answer) {
	for _, a := range out {
		d := a.decision()
		if d.Allow != (d.Reason == grants.None) || d.Allow && d.Advice != "" || len(d.Policies) > maxPolicies || len(d.Advice) > maxAdvice || len(a.revision) > maxRevision || a.cacheable < 0 || a.cacheable > MaxCache {
			t.Fatalf("%+v gives %+v", a, d)
		}
	}
}

// Whatever a PEP asks, what becomes a question of it can be put to an engine again
// and means the same there, or is none.
func FuzzServed(f *testing.F) {
	c := testCatalog(f)
	for _, in := range questions(f) {
		d, _ := newDocument(c, &in)
		e := d.evaluation()
		text, err := jsonOf(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var e served
		if strictjson.UnmarshalOpen(body, servedLimits, &e) != nil || e.check() != nil {
			return
		}
		in, err := e.input(time.Unix(1_800_000_000, 0))
		if err != nil {
			return
		}
		d, why := newDocument(c, &in)
		if why != grants.None {
			return
		}
		one, err := d.text()
		if err != nil {
			t.Fatalf("what came as JSON has no text: %v", err)
		}
		text, err := jsonOf(d.evaluation())
		if err != nil {
			t.Fatal(err)
		}
		var again served
		if err := strictjson.UnmarshalOpen(text, servedLimits, &again); err != nil || again.check() != nil {
			t.Fatalf("%s: %v", text, err)
		}
		back, err := again.input(in.At)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		d2, why := newDocument(c, &back)
		if why != grants.None {
			t.Fatalf("%s: %s", text, why)
		}
		if two, _ := d2.text(); string(one) != string(two) {
			t.Fatalf("asked\n%s\ncame as\n%s", one, two)
		}
	})
}

func jsonOf(e evaluation) ([]byte, error) { return json.Marshal(e, json.Deterministic(true)) }
