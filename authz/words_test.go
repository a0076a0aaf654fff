package authz

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// help is what a denied caller is told to mend.
func help(t testing.TB, r *authv3.CheckResponse) string {
	t.Helper()
	var body struct {
		Help string `json:"help"`
	}
	if err := json.Unmarshal([]byte(r.GetDeniedResponse().GetBody()), &body); err != nil {
		t.Fatal(err)
	}
	return body.Help
}

// answering is a policy that gives the same decision to every question.
func answering(dec grants.Decision) grants.Decider {
	return func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
		ds := make([]grants.Decision, len(in))
		for i := range ds {
			ds[i] = dec
		}
		return ds, nil
	}
}

func bearer(tool, path, token string) *authv3.CheckRequest {
	return ask(tool, "GET", path, "", "authorization", "Bearer "+token)
}

// TestBudgetsInWords: which budget it was, and that it does not cover this call,
// which need not mean that it is spent.
func TestBudgetsInWords(t *testing.T) {
	w := newWorld(t)
	tok := w.token(w.grant("srv/pay", func(g *grants.Grant) {
		g.Budgets = []grants.Budget{
			{Key: grants.TaskBudget(g.Task, g.Tool, "/body/amount"), Arg: "/body/amount", Limit: 100_0000},
			{Key: grants.TaskBudget(g.Task, g.Tool, ""), Limit: 1},
		}
	}))
	for _, tc := range []struct{ amount, why, says string }{
		{"9013.5", "budget_spent", `what is left of the grant's budget over "/body/amount" does not cover this call`},
		{"-9013.5", "constraint", `"/body/amount" is counted against a budget: send a number, 0 or more`},
		{"0.0901355", "constraint", `with at most 4 decimals`},
		{"60", "", ""},
		{"0.9013", "budget_spent", `the grant's budget of calls does not cover this call`},
	} {
		r := w.want(tc.amount, pay(tok, `{"amount":`+tc.amount+`}`), tc.why)
		if tc.why == "" {
			continue
		}
		text := help(t, r)
		if !strings.Contains(text, tc.says) || strings.Contains(text, "9013") {
			t.Errorf("%s: %s", tc.amount, text)
		}
		if note := w.last().Note; note != text {
			t.Errorf("%s: on record %q, to the caller %q", tc.amount, note, text)
		}
	}
}

// TestUnseen: what policy could not see is named, and its value is not.
func TestUnseen(t *testing.T) {
	d := testDoor(t, "")
	tool, _ := d.cfg.Catalog.Tool("srv/full")
	for body, want := range map[string]string{
		`{"month":"x","rows":[1.5]}`:                           "",
		`{"month":"x","note":{"deep":[7654321,7654321]}}`:      "", // opaque
		`{"month":"x","extra":7654321}`:                        `"/body/extra": not declared by the tool`,
		`{"month":"x","a/b~c":"7654321"}`:                      `"/body/a~1b~0c": not declared by the tool`,
		`{"month":"x","rows":[1,7654321.00001]}`:               `"/body/rows/1": policy sees numbers with at most 4 decimals`,
		`{"month":"x","rows":[1e200]}`:                         `"/body/rows/0": policy sees numbers with`,
		`{"month":"x","rows":[7654321,1,7654321.0]}`:           `"/body/rows": policy sees an array as a set`,
		`{"month":"x","` + strings.Repeat("z", 500) + `":1}`:   `"/body/` + strings.Repeat("z", 64) + `…": not declared`,
		`{"month":"x","zz":1,"aa":1,"rows":[7654321.0000001]}`: `"/body/aa": not declared by the tool`, // the same one each time
	} {
		v, err := strictjson.Parse([]byte(body), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		got := unseen(&asked{tool: tool, input: map[string]any{"query": map[string]any{}, "header": map[string]any{}, "body": v}})
		if !strings.HasPrefix(got, want) || (got == "") != (want == "") || strings.Contains(got, "7654321") || len(got) > 200 {
			t.Errorf("%.60s: %q, want %q", body, got, want)
		}
	}
}

// TestUnrepresentableInWords: with a grant and as baseline, to the caller and on
// record.
func TestUnrepresentableInWords(t *testing.T) {
	w := newWorld(t)
	w.door.cfg.Decide = answering(grants.Decision{Reason: grants.Unrepresentable})
	for name, tok := range map[string]string{
		"granted": w.token(w.grant("srv/full")), "baseline": w.identity(w.bot.Subject, "https://srv.internal"),
	} {
		r := w.want(name, ask("srv/full", "POST", "/full", `{"month":"x","extra":1}`, "authorization", "Bearer "+tok, "content-type", "application/json"), "unrepresentable")
		if text := help(t, r); text != `"/body/extra": not declared by the tool` || w.last().Note != text {
			t.Errorf("%s: to the caller %q, on record %q", name, text, w.last().Note)
		}
		// Where nothing is found, the reason's own words.
		r = w.want(name, ask("srv/full", "POST", "/full", `{"month":"x"}`, "authorization", "Bearer "+tok, "content-type", "application/json"), "unrepresentable")
		if text := help(t, r); text != answers[grants.Unrepresentable].help || w.last().Note != "" {
			t.Errorf("%s: to the caller %q, on record %q", name, text, w.last().Note)
		}
	}
}

// TestTheCallersTextIsOnRecord: an operator reads no less than the caller got, and
// neither reads a value.
func TestTheCallersTextIsOnRecord(t *testing.T) {
	w := newWorld(t)
	tok := w.token(w.grant("srv/full", func(g *grants.Grant) {
		g.Constraints = []json.RawMessage{json.RawMessage(`{"type":"object","properties":{"query":{"type":"object","properties":{"format":{"type":"string","const":"csv"}},"required":["format"],"additionalProperties":false},` +
			`"header":{"type":"object","additionalProperties":false},"body":{"type":"object","properties":{"month":{"type":"string"}},"required":["month"],"additionalProperties":false}},` +
			`"required":["query","header","body"],"additionalProperties":false}`)}
	}))
	for _, tc := range []struct{ query, body, why, says string }{
		{"?format=pdf", `{"month":"v4lue"}`, "constraint", `"/query/format" is not one of the permitted values`},
		{"?format=v4lue", `{"month":"x"}`, "malformed", `query: "format": value: not one of csv, pdf`},
		{"?page=v4lue", `{"month":"x"}`, "malformed", `query: "page"`},
		{"?fromat=v4lue", `{"month":"x"}`, "malformed", `query: "fromat" is not declared by the tool`},
		{"?" + strings.Repeat("n", 200) + "=v4lue", `{"month":"x"}`, "malformed", `query: "` + strings.Repeat("n", 64) + `…" is not declared by the tool`},
		{"?format=csv", `{"month":["v4lue"]}`, "mismatch", "/body/month: not of type string"},
		{"?format=csv", `{"month":"v4lue","month":"v4lue"}`, "malformed", "body: JSON at byte"},
		{"?format=csv", `{"month":"v4lue`, "malformed", "body: JSON at byte"},
	} {
		r := w.want(tc.query+tc.body, ask("srv/full", "POST", "/full"+tc.query, tc.body, "authorization", "Bearer "+tok, "content-type", "application/json"), tc.why)
		text := help(t, r)
		if !strings.Contains(text, tc.says) || strings.Contains(text, "v4lue") || w.last().Note != text {
			t.Errorf("%s %s: to the caller %q, on record %q", tc.query, tc.body, text, w.last().Note)
		}
	}
}

// TestWhatPolicySawIsOnRecord: of a refusal by policy the kind, what is left of
// the time, and the groups; and only the policies that said no.
func TestWhatPolicySawIsOnRecord(t *testing.T) {
	w := newWorld(t)
	w.bot.Groups = []string{"ci", "corp/x"}
	g := w.grant("srv/bare", func(g *grants.Grant) { g.Policy = grants.Digest{7} })
	granted := bearer("srv/bare", "/bare", w.token(g))
	none, err := w.issuer.Mint("somebody", []string{"x"}, "https://srv.internal", time.Hour)
	w.must(err)

	no := grants.Decision{Reason: grants.Policy, Policies: []string{"forbids"}, Revision: g.Policy}
	left := func(note string) bool { // 30 minutes, and what the test took
		var ttl int
		_, err := fmt.Sscanf(note, "kind=test ttl=%d groups=ci,corp/x", &ttl)
		return err == nil && ttl > 0 && ttl < 1800
	}
	w.door.cfg.Decide = answering(no)
	w.want("forbidden", granted, "policy")
	if r := w.last(); !left(r.Note) || len(r.Policies) != 1 || r.Policies[0] != "forbids" || r.Grant != g.ID {
		t.Errorf("%+v", r)
	}
	// Decided anew: what permits a part of it is not named, and all that refuse are.
	boss := grants.Principal{Issuer: "corp", Subject: "boss"}
	g = w.grant("srv/bare", func(g *grants.Grant) { g.Requester = boss })
	granted = bearer("srv/bare", "/bare", w.token(g))
	for want, refusing := range map[string][]string{
		"no-grant": {grants.ActionGrant}, "no-ask_for": {grants.ActionAskFor}, "no-ask_for no-grant": {grants.ActionGrant, grants.ActionAskFor},
	} {
		w.door.cfg.Decide = func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			ds := make([]grants.Decision, len(in))
			for i, q := range in {
				ds[i] = grants.Decision{Allow: true, Policies: []string{"may-" + q.Action}, Revision: grants.Digest{9}}
				for _, action := range refusing {
					if q.Action == action {
						ds[i] = grants.Decision{Reason: grants.Policy, Policies: []string{"no-" + action}, Revision: grants.Digest{9}}
					}
				}
			}
			return ds, nil
		}
		w.want(want, granted, "policy_changed")
		if r := w.last(); strings.Join(r.Policies, " ") != want || r.Revision != (grants.Digest{9}) || !left(r.Note) {
			t.Errorf("%s: %+v", want, r)
		}
	}
	// Without a grant there is neither kind nor time.
	w.door.cfg.Decide = answering(grants.Decision{})
	w.want("baseline", bearer("srv/bare", "/bare", none), "no_grant")
	if r := w.last(); r.Note != "groups=corp/x" || r.Agent != "corp/somebody" {
		t.Errorf("%+v", r)
	}
}

// TestEndedGrantsAreOnRecord: a denial by what a genuine token names says which
// task and grant that was.
func TestEndedGrantsAreOnRecord(t *testing.T) {
	w := newWorld(t)
	g := w.grant("srv/bare")
	granted := bearer("srv/bare", "/bare", w.token(g))
	rev, err := w.store.Fence(t.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.Revoked, Until: g.Expires})
	w.must(err)
	w.must(w.table.Wait(t.Context(), rev))
	w.want("revoked", granted, "revoked")
	if r := w.last(); r.Grant != g.ID || r.Task != g.Task || r.Agent != w.bot.ID() {
		t.Errorf("%+v", r)
	}

	// A token that is over names nobody, so that its denials fold like a stranger's.
	g = w.grant("srv/bare")
	g.NotBefore, g.Expires = g.NotBefore.Add(-time.Hour), g.NotBefore.Add(-time.Minute)
	over := w.token(g)
	w.want("over", bearer("srv/bare", "/bare", over), "expired_token")
	if r := w.last(); r.Grant != g.ID || r.Task != g.Task || r.Agent != "" || r.Actor != "" || r.Requester != "" || r.Client != "" {
		t.Errorf("%+v", r)
	}
	// What is not genuine, or over for another tool, names no grant.
	w.want("forged", bearer("srv/bare", "/bare", over[:len(over)-10]+"AAAAAAAAAA"), "bad_credential")
	if r := w.last(); r.Grant != "" || r.Task != "" {
		t.Errorf("%+v", r)
	}
	w.want("of another tool", bearer("srv/open", "/open", over), "expired_token")
	if r := w.last(); r.Grant != "" || r.Task != g.Task {
		t.Errorf("%+v", r)
	}
}

// TestTheWantedAudienceIsNamed: to who comes with the broker's identity token.
func TestTheWantedAudienceIsNamed(t *testing.T) {
	w := newWorld(t)
	for _, aud := range []string{"toolgrant", "https://other.internal"} {
		text := help(t, w.want(aud, bearer("srv/open", "/open", w.identity("bot", aud)), "credential_kind"))
		if !strings.Contains(text, "a grant's token") || !strings.Contains(text, `aud is "https://srv.internal"`) || w.last().Note != text {
			t.Errorf("%s: %q, on record %q", aud, text, w.last().Note)
		}
	}
}
