package authz

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const onceTools = `
servers:
- id: srv
  resource: https://srv.internal
  upstream: 127.0.0.1:1
  http:
  - {tool: pay, method: POST, path: /pay, volatile: [/body/ref/id], body: {type: object, properties: {amount: {type: number}, to: {type: string}, ref: {type: object, properties: {id: {type: string}, kind: {type: string}}}}, required: [amount]}}
`

// TestOnce: a one-time grant lets one input through, however it is written, once.
func TestOnce(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		cat, err := catalog.Parse("tools.yaml", []byte(onceTools))
		if err != nil {
			t.Fatal(err)
		}
		c.Catalog = cat
	})
	once := func(input string) string {
		in, err := strictjson.Parse([]byte(input), strictjson.Limits{})
		w.must(err)
		digest, err := grants.OnceDigest(in, []string{"/body/ref/id"})
		w.must(err)
		return w.token(w.grant("srv/pay", func(g *grants.Grant) {
			g.Once, g.Budgets = digest, []grants.Budget{{Key: grants.GrantBudget(g.ID, ""), Limit: 1}}
		}))
	}
	tok := once(`{"body":{"amount":60,"to":"bob","ref":{"id":"1","kind":"rent"}}}`)
	for _, other := range []string{
		`{"amount":60.01,"to":"bob","ref":{"id":"1","kind":"rent"}}`,
		`{"amount":60,"to":"Bob","ref":{"id":"1","kind":"rent"}}`,
		`{"amount":60,"to":"bob","ref":{"id":"1","kind":"gift"}}`,
		`{"amount":60,"to":"bob"}`,
		`{"amount":60}`,
	} {
		w.want(other, pay(tok, other), "constraint")
	}
	w.want("the one, with another reference", pay(tok, `{"ref":{"kind":"rent","id":"2"},"to":"\u0062ob","amount":6e1}`), "")
	w.want("the same again", pay(tok, `{"amount":60,"to":"bob","ref":{"id":"1","kind":"rent"}}`), "budget_spent")

	// What the record kept from happening has not been spent.
	tok = once(`{"body":{"amount":1}}`)
	w.setFull(true)
	w.want("not on record", pay(tok, `{"amount":1}`), "cannot_record")
	w.setFull(false)
	w.want("on record", pay(tok, `{"amount":1}`), "")
}

// TestOnceOfManyCalls: of calls that race with one one-time grant, one passes.
func TestOnceOfManyCalls(t *testing.T) {
	w := newWorld(t)
	in, err := strictjson.Parse([]byte(`{"body":{"amount":1}}`), strictjson.Limits{})
	w.must(err)
	digest, err := grants.OnceDigest(in, nil)
	w.must(err)
	tok := w.token(w.grant("srv/pay", func(g *grants.Grant) {
		g.Once, g.Budgets = digest, []grants.Budget{{Key: grants.GrantBudget(g.ID, ""), Limit: 1}}
	}))
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	for range 50 {
		wg.Go(func() {
			r, err := w.door.Check(t.Context(), pay(tok, `{"amount":1}`))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			got[reason(r)]++
		})
	}
	wg.Wait()
	if got[""] != 1 || got["budget_spent"] != 49 {
		t.Errorf("answers: %v", got)
	}
}

// TestAdvice: what a policy has to say to who was refused stands in the denial,
// and nowhere else.
func TestAdvice(t *testing.T) {
	const advice = "ask a person first"
	answer := grants.Decision{Reason: grants.Policy, Policies: []string{"no-pay"}, Advice: advice}
	w := newWorld(t)
	w.door = New(w.cfgWith(func(c *Config) {
		c.Decide = func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			out := make([]grants.Decision, len(in))
			for i := range out {
				out[i] = answer
			}
			return out, nil
		}
	}))
	tok := w.token(w.grant("srv/pay"))
	said := func() bool {
		return strings.Contains(w.check(pay(tok, `{"amount":1}`)).GetDeniedResponse().GetBody(), `"advice":"`+advice+`"`)
	}
	if !said() {
		t.Error("the denial does not say it")
	}
	answer.Reason = grants.PolicyError // what erred advises nothing
	if said() {
		t.Error("it is said of a policy that erred")
	}

	m := newMCPWorld(t)
	m.door = New(m.cfgWith(func(c *Config) {
		c.Decide = func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			return []grants.Decision{{Reason: grants.Policy, Policies: []string{"no"}, Advice: advice}}, nil
		}
	}))
	tok = m.token(m.grant("notes/read"))
	r := m.check(modern(tok, "tools/call", "read", `{"name":"read","arguments":{"id":"a"}}`))
	if body := r.GetDeniedResponse().GetBody(); !strings.Contains(body, `"data":{"advice":"`+advice+`"`) {
		t.Errorf("the JSON-RPC error does not say it: %s", body)
	}
}

// TestAsked: who hears of questions to policy hears each, with its answer and the
// id of the decision.
func TestAsked(t *testing.T) {
	type heard struct {
		id  string
		in  []grants.Input
		out []grants.Decision
	}
	var all []heard
	w := newWorld(t, func(c *Config) {
		c.Asked = func(id string, in []grants.Input, out []grants.Decision) { all = append(all, heard{id, in, out}) }
	})
	g := w.grant("srv/pay")
	w.want("inside", pay(w.token(g), `{"amount":1}`), "")
	// The grant is of another policy revision than the test's (none): only the call is asked about.
	if len(all) != 1 || all[0].id != w.last().ID || len(all[0].in) != 1 || len(all[0].out) != 1 ||
		all[0].in[0].Action != "call:srv/pay" || all[0].in[0].Grant.ID != g.ID || !all[0].out[0].Allow {
		t.Errorf("heard: %+v", all)
	}
	g = w.grant("srv/pay", func(g *grants.Grant) { g.Policy = grants.Digest{9} })
	w.want("of an older revision", pay(w.token(g), `{"amount":1}`), "")
	if len(all) != 3 || len(all[2].in) != 2 || all[2].in[0].Action != grants.ActionGrant {
		t.Errorf("heard: %+v", all[1:])
	}
	w.want("without a grant", ask("srv/pay", "POST", "/pay", `{"amount":1}`, "content-type", "application/json"), "no_credential")
	if len(all) != 3 {
		t.Error("heard of a question that nobody put")
	}
}
