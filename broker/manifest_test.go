package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// TestManifestIsACeiling for each way to ask, and for what is asked wider.
func TestManifestIsACeiling(t *testing.T) {
	b := newBank(t, payBill)
	task := b.bill("")
	bot := b.as("bot")
	budgets := []grants.Budget{
		{Key: grants.TaskBudget(task, "pay/send", ""), Limit: 3},
		{Key: grants.TaskBudget(task, "pay/send", "/body/amount"), Arg: "/body/amount", Limit: 1_005_000},
	}
	holds := func(name string, g *grants.Grant, constraints int) {
		t.Helper()
		if d := cmp.Diff(budgets, g.Budgets); d != "" || g.TTL() > 2*time.Minute || len(g.Constraints) != constraints ||
			!slices.ContainsFunc(g.Constraints, func(c json.RawMessage) bool { return string(c) == pinned }) {
			t.Errorf("%s: %v, constraints %s, budgets %s", name, g.TTL(), g.Constraints, d)
		}
	}
	details := func(more string) string {
		return b.form(bot, "scope", "", "authorization_details", fmt.Sprintf(`[{"type":"urn:toolgrant:grant:1","tool":"pay/send","task":%q%s}]`, task, more))
	}
	var id grants.ID
	for name, body := range map[string]string{
		"scope": b.form(bot, "task", task), "scope, longer": b.form(bot, "task", task, "ttl", "900"),
		"details": details(""), "details, wider": details(`,"ttl":900,"max_calls":1000,"max_sum":{"/body/amount":"1000000"}`),
	} {
		_, m := b.json("POST /oauth2/token", "", body)
		list, _ := m["authorization_details"].([]any)
		if len(list) != 1 {
			t.Fatalf("%s: %v", name, m)
		}
		id = list[0].(members)["grant_id"].(string)
		holds(name, b.live(id), 1)
	}
	if d := b.buy(bot, task, "pay/send", ""); !d.Reused || d.TTL > 120 || d.TTL < 110 {
		t.Errorf("without a ttl it is the manifest's: %+v", d)
	}
	// The manifest's own constraint, asked for, is there once; another beside it.
	holds("asked for", b.live(b.buy(bot, task, "pay/send", `,"constraints":[`+pinned+`]`).GrantID), 1)
	other := object("query", object("to", `{"type":"string"}`), "body", object("amount", `{"type":"number"}`))
	holds("another constraint", b.live(b.buy(bot, task, "pay/send", `,"constraints":[`+other+`]`).GrantID), 2)
	holds("renewal", b.live(b.renew(bot, task, "pay/send", id, `,"ttl":900,"max_calls":100`).GrantID), 1)
	// Longer than the broker's own bound is no use, and without a bound it is the
	// usual one.
	if d := b.buy(bot, task, "rep/export", ""); d.TTL > 600 || d.TTL < 590 { // to the end of the task
		t.Errorf("%+v", d)
	}
	if d := b.buy(bot, task, "pay/show", ""); d.TTL > 300 || d.TTL < 290 || d.MaxCalls != 0 || len(d.Constraints) != 0 {
		t.Errorf("%+v", d)
	}
	// What was narrower comes first, and is then the task's.
	second := b.bill("")
	if d := b.buy(bot, second, "pay/send", `,"ttl":60,"max_calls":1,"max_sum":{"/body/amount":"7","/query/copies":"2"}`); d.TTL > 60 || d.MaxCalls != 1 || d.MaxSum["/body/amount"] != "7" || d.MaxSum["/query/copies"] != "2" {
		t.Errorf("%+v", d)
	}
}

// TestOutsideTheManifest: refused before policy is asked, and on record; and to
// others the task stays unknown.
func TestOutsideTheManifest(t *testing.T) {
	b := newBank(t, strings.Replace(payBill, "- {tool: pay/show}\n", "", 1))
	task, bot := b.bill(""), b.as("bot")
	body := fmt.Sprintf(`{"task":%q,"grants":[{"tool":"rep/export"},{"tool":"pay/show"}]}`, task)
	b.questions()
	b.recorded()
	if help := b.refuse("POST /v1/grants", bot, body, 403, grants.Manifest); !strings.Contains(help, "pay-bill does not have pay/show") {
		t.Error(help)
	}
	if in := b.questions(); len(in) != 0 {
		t.Errorf("policy was asked: %+v", in)
	}
	if rs := b.recorded(); len(rs) != 2 || rs[1].Tool != "pay/show" || rs[1].Reason != grants.Manifest || rs[0].Outcome != audit.Deny || rs[0].Task != task {
		t.Errorf("%+v", rs)
	}
	if _, m := b.json("POST /oauth2/token", "", b.form(bot, "task", task, "scope", "pay/show")); m["error"] != "invalid_scope" || m["reason"] != "manifest" {
		t.Errorf("%v", m)
	}
	b.refuse("POST /v1/grants", b.as("stranger"), body, 404, grants.UnknownTask)

	// A task without parameters of a kind that has got a manifest, and the reverse.
	b.load("")
	b.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"rep/export"}]}`, task), 403, grants.Manifest)
	plain := b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","agents":["corp/bot"]}`)["task"].(string)
	b.buy(bot, plain, "rep/export", "")
	b.load(payBill)
	if help := b.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"rep/export"}]}`, plain), 403, grants.Manifest); !strings.Contains(help, "before its kind had a manifest") {
		t.Error(help)
	}
	b.buy(bot, task, "rep/export", "")
	// Parameters that today's manifest does not take.
	b.load(strings.Replace(payBill, "maximum: 10000", "maximum: 100", 1))
	b.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"rep/export"}]}`, task), 403, grants.Manifest)
	// A task of another kind is not concerned.
	b.buy(bot, b.start("", "corp/bot"), "pay/show", "")
}

// TestManifestBoundsOfGrants: those of grants hold with the manifest's part.
func TestManifestBoundsOfGrants(t *testing.T) {
	b := newBank(t, payBill)
	task, bot := b.bill(""), b.as("bot")
	one := object("query", object("to", `{"type":"string"}`), "body", object("amount", `{"type":"number"}`))
	asked := `"constraints":[` + strings.Repeat(one+",", grants.MaxConstraints-1) + one + `]`
	help := b.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send",%s}]}`, task, asked), 400, grants.BadRequest)
	if !strings.Contains(help, "pay/send: with those of the manifest") || !strings.Contains(help, "at most 16") {
		t.Error(help)
	}
}

// TestReloadInBetween: what was narrowed to manifests that are none any more is
// not granted, and who asks again gets the answer of today.
func TestReloadInBetween(t *testing.T) {
	narrower := strings.Replace(payBill, "ttl: 2m", "ttl: 1m", 1)
	b := newBank(t, payBill)
	task, bot := b.bill(""), b.as("bot")
	ask := fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send"}]}`, task)
	next := b.read(narrower)
	// The Decider has the new ones while the door reads the old ones: the second
	// time that the door looks, it has them, too.
	old, looks := b.door.Load(), 0
	b.cfg.Manifests = func() *manifest.Set {
		if looks++; looks == 1 {
			return old
		}
		return next
	}
	b.decider.Store(next)
	b.recorded()
	if help := b.refuse("POST /v1/grants", bot, ask, 409, grants.Conflict); !strings.Contains(help, "ask again") {
		t.Error(help)
	}
	if r := b.one(); r.Reason != grants.Conflict || r.Outcome != audit.Deny || r.Revision.IsZero() {
		t.Errorf("%+v", r)
	}
	if d := b.buy(bot, task, "pay/send", ""); d.TTL > 60 {
		t.Errorf("%+v", d)
	}
	// A start is of the manifest that its parameters were read with, or of none.
	for name, tc := range map[string]struct {
		was, is *manifest.Set
		body    string
	}{
		"another": {old, next, `,"grant":true,"params":` + billParams}, "none": {old, nil, `,"params":` + billParams}, "the first": {nil, next, ""},
	} {
		looks = 0
		b.cfg.Manifests = func() *manifest.Set {
			if looks++; looks == 1 {
				return tc.was
			}
			return tc.is
		}
		b.decider.Store(tc.is)
		before := b.cfg.Table.Counts().Tasks
		b.refuse("POST /v1/tasks", b.boss(), `{"kind":"pay-bill"`+tc.body+`}`, 409, grants.Conflict)
		if n := b.cfg.Table.Counts().Tasks; n != before {
			t.Errorf("%s: %d tasks, of %d", name, n, before)
		}
	}
	// The same manifests, and a Decider that says no: that is an answer.
	b.cfg.Manifests = func() *manifest.Set { return old }
	b.decider.Store(next)
	b.refuse("POST /v1/grants", bot, ask, 403, grants.Manifest)
}

// TestSweepOfManifests: what today's manifests do not have ends as what today's
// policies do not permit.
func TestSweepOfManifests(t *testing.T) {
	for name, tc := range map[string]struct {
		now  string
		ends []string // of pay/send and rep/export
	}{
		"the same":            {payBill, nil},
		"gone":                {"", []string{"pay/send", "rep/export"}},
		"without a tool":      {strings.Replace(payBill, "- {tool: rep/export, ttl: 20m}\n", "", 1), []string{"rep/export"}},
		"a shorter time":      {strings.Replace(payBill, "ttl: 2m", "ttl: 1m", 1), []string{"pay/send"}},
		"fewer calls":         {strings.Replace(payBill, "max_calls: 3", "max_calls: 2", 1), []string{"pay/send"}},
		"another template":    {strings.Replace(payBill, "{$param: recipient}", "supplier-8", 1), []string{"pay/send"}},
		"other parameters":    {strings.Replace(payBill, "maximum: 10000", "maximum: 10", 1), []string{"pay/send", "rep/export"}},
		"for one call a time": {strings.Replace(payBill, "{tool: rep/export,", "{tool: rep/export, once: true,", 1), []string{"rep/export"}},
		"wider":               {strings.Replace(payBill, "max_calls: 3", "max_calls: 30", 1), nil},
	} {
		b := newBank(t, payBill)
		task, bot := b.bill(""), b.as("bot")
		ids := map[string]grants.ID{"pay/send": b.buy(bot, task, "pay/send", "").GrantID, "rep/export": b.buy(bot, task, "rep/export", "").GrantID}
		other := b.buy(bot, b.start("", "corp/bot"), "pay/show", "").GrantID
		b.load(tc.now)
		b.recorded()
		decided, fenced, err := b.Sweep(t.Context())
		if decided != 3 || fenced != len(tc.ends) || err != nil {
			t.Errorf("%s: %d %d %v", name, decided, fenced, err)
		}
		for tool, id := range ids {
			want := grants.None
			if slices.Contains(tc.ends, tool) {
				want = grants.PolicyChanged
			}
			if why := b.state(id); why != want {
				t.Errorf("%s: %s: %v, want %v", name, tool, why, want)
			}
		}
		if b.state(other) != grants.None {
			t.Errorf("%s: a grant of another kind: %v", name, b.state(other))
		}
		for _, r := range b.recorded() {
			if r.Reason != grants.PolicyChanged || r.Kind != kindSweep {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

// TestManifestsAreReadOnce for each request that is not refused by them.
func TestManifestsAreReadOnce(t *testing.T) {
	b := newBank(t, payBill)
	looks := 0
	b.cfg.Manifests = func() *manifest.Set { looks++; return b.door.Load() }
	task := b.bill("")
	looks = 0
	b.buy(b.as("bot"), task, "pay/send", "")
	if looks != 1 {
		t.Errorf("%d times", looks)
	}
}
