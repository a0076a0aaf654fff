package broker

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// input is a call's input as the call door reads it.
func input(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const wired = `{"body":{"iban":"X1","amount":12.5,"memo":"a"}}`

// TestReadOnce: an input is what the catalogue lets through, in the call door's
// form.
func TestReadOnce(t *testing.T) {
	cat, err := catalog.Parse("tools.yaml", []byte(bankTools))
	if err != nil {
		t.Fatal(err)
	}
	for tool, inputs := range map[string]map[string]string{ // input -> what is wrong with it
		"bank/wire": {
			wired: "", `{"body":{"iban":"X1","amount":-1,"speed":"fast","list":[1,2],"raw":{"x":null}}}`: "",
			`{"body":{"iban":"X1"}}`:                             `"/body/amount" is missing`,
			`{"body":{"iban":"X1","amount":"1"}}`:                `"/body/amount" is of type number`,
			`{"body":{"iban":"X1","amount":null}}`:               `"/body/amount" is of type number`,
			`{"body":{"iban":"X1","amount":1,"speed":"slower"}}`: "none of the texts",
			`{"body":{"iban":"X1","amount":1,"list":[1,2.5]}}`:   `"/body/list/1" is of type integer`,
			`{"body":{"iban":"X1","amount":1,"list":{}}}`:        `"/body/list" is of type array`,
			`{"body":{"iban":"X1","amount":1,"other":1}}`:        `declares no "/body/other"`,
			`{"body":{"iban":true,"amount":1}}`:                  `"/body/iban" is of type string`,
			`{"body":[]}`:                                        `"/body" is of type object`, `{}`: `"/body" is missing`, `{"query":{},"body":{"iban":"X1","amount":1}}`: `declares no "/query"`,
			`{"iban":"X1","amount":1}`: `"/body" is missing`, `[]`: "write an object", `null`: "write an object", `"x"`: "write an object", `*`: "",
			`{"body":{"iban":"X1","iban":"X2","amount":1}}`: "duplicate",
		},
		"pay/show": {`{}`: "", `{"query":{}}`: `declares no "/query"`},
		"pay/send": {`{"query":{},"body":{}}`: "", `{"query":{"copies":1.5},"body":{}}`: "integer", `{"query":{"copies":2,"to":"x"},"body":{"hidden":[7]}}`: "", `{"body":{}}`: `"/query" is missing`},
	} {
		at, _ := cat.Tool(tool)
		for text, wrong := range inputs {
			_, digest, err := readOnce(at, []byte(text))
			bad := wrong != "" || text == "*"
			if (err != nil) != bad || bad && !strings.Contains(err.Error(), wrong) || digest.IsZero() != bad {
				t.Errorf("%s %s: %v, want %q", tool, text, err, wrong)
			}
		}
	}
}

// TestOneTimeGrant: bound to its input but for what is volatile, good for one call
// of its own, and never reused.
func TestOneTimeGrant(t *testing.T) {
	b := newBank(t, payBill)
	task, bot := b.start("", "corp/bot"), b.as("bot")
	first := b.buy(bot, task, "bank/wire", `,"input":`+wired)
	g := b.live(first.GrantID)
	for text, same := range map[string]bool{
		wired: true, `{"body":{"memo":"b","amount":1.25e1,"iban":"X1"}}`: true, `{"body":{"amount":12.50,"iban":"X1"}}`: true,
		`{"body":{"iban":"X1","amount":12.6,"memo":"a"}}`: false, `{"body":{"iban":"X2","amount":12.5,"memo":"a"}}`: false, `{"body":{"iban":"X1","amount":12.5,"speed":"fast"}}`: false,
	} {
		digest, err := grants.OnceDigest(input(t, text), []string{"/body/memo"})
		if err != nil || (digest == g.Once) != same {
			t.Errorf("%s: the same %v, want %v (%v)", text, digest == g.Once, same, err)
		}
	}
	if !first.Once || first.MaxCalls != 1 || first.Reused || len(g.Budgets) != 1 || g.Budgets[0].Key != grants.GrantBudget(g.ID, "") {
		t.Errorf("%+v, %+v", first, g.Budgets)
	}
	// Each is an account of its own, and none of the task's.
	second := b.buy(bot, task, "bank/wire", `,"input":`+wired)
	if second.Reused || second.GrantID == first.GrantID {
		t.Errorf("%+v", second)
	}
	for _, id := range []grants.ID{first.GrantID, second.GrantID} {
		if b.spend(id, "1") != grants.None || b.spend(id, "1") != grants.BudgetSpent {
			t.Errorf("%s is not for one call", id)
		}
	}
	if any := b.buy(bot, task, "bank/wire", ""); any.Reused || any.Once || any.MaxCalls != 0 {
		t.Errorf("a grant for any input: %+v", any)
	}
	if in := b.questions(); in[len(in)-1].Grant.Once != (grants.Digest{}) || in[len(in)-2].Grant.Once.IsZero() {
		t.Error("policy does not see which of them is a one-time grant")
	}
	for _, one := range b.must("GET /v1/grants?task="+task, bot, "")["grants"].([]any) {
		one := one.(members)
		if shown, _ := one["once"].(bool); shown == b.live(one["grant_id"].(string)).Once.IsZero() {
			t.Errorf("%v", one)
		}
	}
	// At the token endpoint, too.
	details := fmt.Sprintf(`[{"type":"urn:toolgrant:grant:1","tool":"bank/wire","task":%q,"input":%s}]`, task, wired)
	_, m := b.json("POST /oauth2/token", "", b.form(bot, "resource", "https://bank.internal", "scope", "", "authorization_details", details))
	if list, _ := m["authorization_details"].([]any); len(list) != 1 || list[0].(members)["once"] != true {
		t.Errorf("%v", m)
	}
	b.recorded()
	b.buy(bot, task, "bank/wire", `,"input":`+wired)
	if r := b.one(); !strings.Contains(r.Note, "once=true") || strings.Contains(r.Note, "X1") {
		t.Errorf("note %q", r.Note)
	}
}

// TestOneTimeGrantIsStrict: what does not go together, or could not be called.
func TestOneTimeGrantIsStrict(t *testing.T) {
	b := newBank(t, payBill)
	task, bot := b.start("", "corp/bot"), b.as("bot")
	only := object("body", object("iban", `{"type":"string","const":"X9"}`, "amount", `{"type":"number"}`))
	for _, tc := range []struct {
		more, says string
		status     int
		why        grants.Reason
	}{
		{`,"input":null`, `"input": write an object`, 400, grants.BadRequest},
		{`,"input":{}`, `"input": "/body" is missing`, 400, grants.BadRequest},
		{`,"max_calls":1,"input":` + wired, "do not go together", 400, grants.BadRequest},
		{`,"input":{"body":{"iban":"X1","amount":1}},"constraints":[` + only + `]`, "breaks a constraint", 403, grants.ConstraintBroken},
	} {
		if help := b.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"bank/wire"%s}]}`, task, tc.more), tc.status, tc.why); !strings.Contains(help, tc.says) {
			t.Errorf("%s: %s", tc.more, help)
		}
	}
	if in := b.questions(); len(in) != 1 { // of the start
		t.Errorf("policy was asked: %+v", in)
	}
	b.buy(bot, task, "bank/wire", `,"input":{"body":{"iban":"X9","amount":1}},"constraints":[`+only+`]`)
}

// TestManifestOnce: a tool that the manifest has for one call at a time, and an
// input that its template does not let through.
func TestManifestOnce(t *testing.T) {
	b := newBank(t, payBill)
	task, bot := b.bill(""), b.as("bot")
	ask := func(tool, more string) string {
		return fmt.Sprintf(`{"task":%q,"grants":[{"tool":%q%s}]}`, task, tool, more)
	}
	if help := b.refuse("POST /v1/grants", bot, ask("bank/wire", ""), 400, grants.BadRequest); !strings.Contains(help, "one call at a time") {
		t.Error(help)
	}
	if _, m := b.json("POST /oauth2/token", "", b.form(bot, "task", task, "resource", "https://bank.internal", "scope", "bank/wire")); m["reason"] != "bad_request" {
		t.Errorf("%v", m)
	}
	for range 5 { // the task's five calls
		d := b.buy(bot, task, "bank/wire", `,"input":`+wired)
		g := b.live(d.GrantID)
		if d.MaxCalls != 1 || len(g.Budgets) != 2 || g.Budgets[0] != (grants.Budget{Key: grants.TaskBudget(task, "bank/wire", ""), Limit: 5}) {
			t.Fatalf("%+v", g.Budgets)
		}
		if b.spend(d.GrantID, "1") != grants.None || b.spend(d.GrantID, "1") != grants.BudgetSpent {
			t.Error("not for one call")
		}
	}
	if b.spend(b.buy(bot, task, "bank/wire", `,"input":`+wired).GrantID, "1") != grants.BudgetSpent {
		t.Error("a sixth call of five")
	}
	help := b.refuse("POST /v1/grants", bot, ask("pay/send", `,"input":{"query":{"to":"mallory"},"body":{"amount":1}}`), 403, grants.ConstraintBroken)
	if strings.Contains(help, "mallory") {
		t.Error(help)
	}
	b.buy(bot, task, "pay/send", `,"input":{"query":{"to":"supplier-7"},"body":{"amount":100.5}}`)
}

// TestRenewOneTimeGrant: a longer window for the same call; neither another input,
// nor another account.
func TestRenewOneTimeGrant(t *testing.T) {
	b := newBank(t, payBill)
	task, bot := b.start("", "corp/bot"), b.as("bot")
	d := b.buy(bot, task, "bank/wire", `,"ttl":60,"input":`+wired)
	first := b.live(d.GrantID)
	renew := func(id grants.ID, more string) string {
		return fmt.Sprintf(`{"task":%q,"grants":[{"tool":"bank/wire","renew":%q%s}]}`, task, id, more)
	}
	b.refuse("POST /v1/grants", bot, renew(d.GrantID, `,"input":{"body":{"iban":"X2","amount":12.5}}`), 400, grants.BadRequest)
	d = b.renew(bot, task, "bank/wire", d.GrantID, "")
	d = b.renew(bot, task, "bank/wire", d.GrantID, `,"input":{"body":{"iban":"X1","amount":12.5,"memo":"z"}}`)
	if g := b.live(d.GrantID); g.Once != first.Once || len(g.Budgets) != 1 || g.Budgets[0] != first.Budgets[0] || !d.Once {
		t.Errorf("%+v", g)
	}
	if b.spend(d.GrantID, "1") != grants.None {
		t.Error("its one call is gone")
	}
	d = b.renew(bot, task, "bank/wire", d.GrantID, "")
	if b.spend(d.GrantID, "1") != grants.BudgetSpent {
		t.Error("renewing gave it another call")
	}
	// One for any input does not become one for one.
	any := b.buy(bot, task, "bank/wire", "").GrantID
	b.refuse("POST /v1/grants", bot, renew(any, `,"input":`+wired), 400, grants.BadRequest)
}

// B14: two grants are the same where every field is equal that a decision rests
// on, those that there will be included: each that is not named here counts.
func TestB14EveryFieldCounts(t *testing.T) {
	free := map[string]bool{"ID": true, "NotBefore": true, "Expires": true, "Rev": true, "Renews": true}
	one := grants.Grant{ID: "g_a", Actors: []string{"x"}, Budgets: []grants.Budget{{Key: "k", Limit: 1}}}
	if two := one; !same(&one, &two) {
		t.Fatal("a grant and itself")
	}
	fields := reflect.TypeFor[grants.Grant]()
	for i := range fields.NumField() {
		two := one
		f := reflect.ValueOf(&two).Elem().Field(i)
		switch v := f.Addr().Interface().(type) {
		case *string:
			*v += "z"
		case *[]string:
			*v = []string{"y"}
		case *grants.Digest:
			v[7] = 7
		case *time.Time:
			*v = v.Add(time.Second)
		case *grants.Rev:
			v.N++
		case *grants.Principal:
			v.Tags = map[string]string{"a": "b"}
		case *[]grants.Budget:
			*v = []grants.Budget{{Key: "k", Limit: 2}}
		default:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		}
		if name := fields.Field(i).Name; same(&one, &two) != free[name] {
			t.Errorf("%s: the same %v", name, same(&one, &two))
		}
	}
}

// B14: a living grant is not reused under manifests of another revision, nor in a
// task of other parameters.
func TestB14Manifests(t *testing.T) {
	b := newBank(t, payBill)
	task, bot := b.bill(""), b.as("bot")
	first := b.buy(bot, task, "pay/send", "")
	if d := b.buy(bot, task, "pay/send", ""); !d.Reused || d.GrantID != first.GrantID {
		t.Fatalf("%+v", d)
	}
	other := b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","agents":["corp/bot"],"params":{"recipient":"supplier-8","limit":100.5}}`)["task"].(string)
	if d := b.buy(bot, other, "pay/send", ""); d.Reused {
		t.Errorf("other parameters: %+v", d)
	}
	b.load(strings.Replace(payBill, "- {tool: pay/purge}\n", "", 1)) // of another tool: the revision is another all the same
	if d := b.buy(bot, task, "pay/send", ""); d.Reused {
		t.Errorf("another revision: %+v", d)
	}
}
