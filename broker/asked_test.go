package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/grants"
)

// TestAdvice: a denial by policy has it, in both styles, and no other answer.
func TestAdvice(t *testing.T) {
	b := newBank(t, payBill)
	b.rule(func(in grants.Input) grants.Decision {
		d := houseRules(in)
		d.Advice = in.Action + " " + in.Tool // with an allow: of no use
		if in.Tool == "rep/export" {
			d = grants.Decision{Reason: grants.PolicyError, Advice: "of an error"}
		}
		return d
	}, nil)
	task, bot := b.start("", "corp/bot"), b.as("bot")
	ask := func(tool string) string { return fmt.Sprintf(`{"task":%q,"grants":[{"tool":%q}]}`, task, tool) }
	for _, tc := range []struct{ what, who, body, advice string }{
		{"POST /v1/grants", bot, ask("pay/purge"), "grant pay/purge"},
		{"POST /v1/grants", bot, ask("pay/send"), ""},
		{"POST /v1/grants", bot, strings.Replace(ask("pay/purge"), "[", `[{"tool":"pay/show"},`, 1), "grant pay/purge"},
		{"POST /v1/grants", bot, ask("rep/export"), ""},
		{"POST /oauth2/token", "", b.form(bot, "task", task, "scope", "pay/purge"), "grant pay/purge"},
		{"POST /oauth2/token", "", b.form(bot, "task", task, "scope", "pay/send"), ""},
		{"DELETE /v1/grants?tool=pay/send", bot, "", "revoke pay/send"},
		{"POST /v1/tasks/" + task + "/end", bot, "", ""}, // it would say that there is such a task
		{"GET /v1/tasks", bot, "", ""},
	} {
		_, m := b.json(tc.what, tc.who, tc.body)
		if got, _ := m["advice"].(string); got != tc.advice {
			t.Errorf("%s %s: advice %q, want %q", tc.what, tc.body, got, tc.advice)
		}
	}
	b.rule(func(grants.Input) grants.Decision { return grants.Decision{Reason: grants.Policy, Advice: "not today"} }, nil)
	if _, m := b.json("POST /v1/tasks", bot, `{"kind":"k"}`); m["advice"] != "not today" {
		t.Errorf("%v", m)
	}
}

// TestAsked: whoever wants to know is told of each answer, under the id of the
// decision, and of nothing that was none.
func TestAsked(t *testing.T) {
	type told struct {
		id  string
		in  []grants.Input
		out []grants.Decision
	}
	var all []told
	b := newBank(t, payBill, func(c *Config) {
		c.Asked = func(id string, in []grants.Input, out []grants.Decision) {
			all = append(all, told{id, slices.Clone(in), slices.Clone(out)})
		}
	})
	one := func(name string, questions int) told {
		t.Helper()
		if len(all) != 1 || len(all[0].in) != questions || len(all[0].out) != questions {
			t.Fatalf("%s: %+v", name, all)
		}
		was := all[0]
		all = nil
		return was
	}
	b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","agents":["corp/bot"],"grant":true,"params":`+billParams+`}`)
	start := one("start", 1+2*4) // for another agent: grant and ask_for of each tool that is no one-time one
	if rs := b.recorded(); start.id != rs[0].ID || start.id != rs[len(rs)-1].ID || start.in[0].Action != grants.ActionStartTask || !start.out[0].Allow {
		t.Errorf("%+v", start)
	}
	task := b.start("", "corp/bot")
	one("start", 1)
	_, m := b.json("POST /v1/grants", b.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/purge"}]}`, task))
	if no := one("denial", 1); no.id != m["decision_id"] || no.out[0].Allow || no.in[0].Tool != "pay/purge" {
		t.Errorf("%+v", no)
	}
	b.json("GET /v1/tasks", b.as("bot"), "")
	one("a list", 1)
	id := b.buy(b.as("bot"), task, "pay/show", "").GrantID
	all = nil
	b.rule(func(in grants.Input) grants.Decision {
		if in.Tool == "pay/show" && in.Task.Kind == "k" {
			return grants.Decision{Reason: grants.Policy}
		}
		return houseRules(in)
	}, nil)
	b.recorded()
	if _, fenced, err := b.Sweep(t.Context()); fenced != 1 || err != nil {
		t.Fatal(fenced, err)
	}
	if swept := one("sweep", 1); swept.id != b.one().ID || swept.in[0].Grant.ID != id {
		t.Errorf("%+v", swept)
	}
	b.rule(houseRules, errors.New("down"))
	b.json("POST /v1/tasks", b.boss(), `{"kind":"k"}`)
	if len(all) != 0 {
		t.Errorf("no answer, and told: %+v", all)
	}
}
