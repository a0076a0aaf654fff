package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

func TestOneTokenForEachServer(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	w := h.shell.ask("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[
		{"tool":"rep/export","ttl":60},{"tool":"pay/send","ttl":120,"max_calls":2},{"tool":"pay/show","ttl":30}]}`, task))
	var ans grantsAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &ans); err != nil || w.Code != 200 || len(ans.Tokens) != 2 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for i, want := range []struct {
		server, scope string
		ttl           int64
	}{{"rep", "rep/export", 60}, {"pay", "pay/send pay/show", 120}} {
		tok := ans.Tokens[i]
		c := h.open(tok.AccessToken, tok.Resource)
		if tok.Server != want.server || tok.Scope != want.scope || tok.ExpiresIn > want.ttl || tok.ExpiresIn < want.ttl-2 ||
			c.Subject != "corp/bot" || c.Client != "corp/bot" || c.Task.ID != task || len(c.Details) != len(tok.Details) {
			t.Errorf("%+v: %+v", tok, c)
		}
		if c.Expires.Sub(c.NotBefore) > time.Duration(want.ttl)*time.Second || c.Expires.Sub(c.NotBefore) < time.Duration(want.ttl-2)*time.Second {
			t.Errorf("the token lasts from %v to %v, want %d s", c.NotBefore, c.Expires, want.ttl)
		}
		for _, d := range tok.Details {
			if h.state(d.GrantID) != grants.None {
				t.Errorf("%s does not live", d.Tool)
			}
		}
	}
	rs := h.recorded()
	rs = rs[len(rs)-3:]
	for i, tool := range []string{"rep/export", "pay/send", "pay/show"} {
		if r := rs[i]; r.Tool != tool || r.Kind != grants.ActionGrant || r.Outcome != audit.Allow || r.Grant == "" || r.Agent != "corp/bot" ||
			r.Source != "192.0.2.1" || r.Count != 1 || len(r.Policies) != 1 || r.Status != 200 {
			t.Errorf("on record: %+v", r)
		}
	}

	// One that policy refuses, and nothing of it is written.
	h.refuse("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"rep/export","ttl":61},{"tool":"pay/purge"}]}`, task), 403, grants.Policy)
	if live, _ := h.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 10); len(live) != 3 {
		t.Errorf("%d grants live", len(live))
	}
	for _, r := range h.recorded() {
		if r.Outcome != audit.Deny || r.Grant != "" {
			t.Errorf("on record: %+v", r)
		}
	}
}

func TestOrdersAreStrict(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	for _, tc := range []struct {
		body string // TASK stands for the task
		why  grants.Reason
		help string
	}{
		{`{"task":"TASK","grants":[]}`, grants.BadRequest, "1 to 16"},
		{`{"task":"TASK","grants":[` + strings.Repeat(`{"tool":"pay/send"},`, 16) + `{"tool":"pay/show"}]}`, grants.BadRequest, "1 to 16"},
		{`{"grants":[{"tool":"pay/send"}]}`, grants.BadRequest, "task"},
		{`{"task":"TASK","grants":[{"tool":"pay/send"},{"tool":"pay/send"}]}`, grants.BadRequest, "twice"},
		{`{"task":"TASK","grants":[{"tool":"pay/nosuch"}]}`, grants.UnknownTool, "grants[0]"},
		{`{"task":"TASK","grants":[{"tool":"*"}]}`, grants.UnknownTool, "SERVER/TOOL"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","task":"TASK"}]}`, grants.Malformed, "task"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","Tool":"pay/purge"}]}`, grants.Malformed, ""},
		{`{"task":"TASK","grants":[{"tool":"pay/send","ttl":1}]}`, grants.BadTTL, "2 or more; what is over 900"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","ttl":-1}]}`, grants.BadTTL, ""},
		{`{"task":"TASK","grants":[{"tool":"pay/send","ttl":"PT1H"}]}`, grants.Malformed, ""},
		{`{"task":"TASK","grants":[{"tool":"pay/send","max_calls":0}]}`, grants.BadRequest, "from 1 to 2147483648"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","max_calls":2147483649}]}`, grants.BadRequest, "from 1 to"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","max_sum":{"/body/note":"1"}}]}`, grants.BadRequest, "string"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","constraints":[{"type":"object"}]}]}`, grants.BadRequest, "constraints"},
		{`{"task":"TASK","grants":[{"tool":"pay/send","renew":""}]}`, grants.BadRequest, "renew"},
		{`{"task":"TASK","agent":"bot","grants":[{"tool":"pay/send"}]}`, grants.Malformed, "ISSUER-ALIAS"},
		{`{"task":"TASK","agents":["corp/bot"],"grants":[{"tool":"pay/send"}]}`, grants.Malformed, "agents"},
		{`[]`, grants.Malformed, ""},
	} {
		if help := h.refuse("POST /v1/grants", h.as("bot"), strings.ReplaceAll(tc.body, "TASK", task), 400, tc.why); !strings.Contains(help, tc.help) {
			t.Errorf("%s: %q does not help", tc.body, help)
		}
	}
	r := newRequest(ownIssuer, "POST /v1/grants", h.as("bot"), `{}`)
	r.Header.Set("Content-Type", "text/plain")
	if w := h.do(r); w.Code != 415 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestAskForAnother: the owner of a task may ask for an agent of it, if policy
// permits both that and the grant.
func TestAskForAnother(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	ask := func(agent, tool string) string {
		return fmt.Sprintf(`{"task":%q,"agent":%q,"grants":[{"tool":%q}]}`, task, agent, tool)
	}
	h.questions()
	h.recorded()
	m := h.must("POST /v1/grants", h.boss(), ask("corp/bot", "pay/send"))
	in := h.questions()
	if len(in) != 2 || in[0].Action != grants.ActionGrant || in[0].Principal.ID() != "corp/bot" || in[0].Requester.ID() != "corp/boss" ||
		in[1].Action != grants.ActionAskFor || in[1].Principal.ID() != "corp/boss" || in[0].Grant.Agent.ID() != "corp/bot" ||
		len(in[0].Principal.Groups) != 0 || len(in[1].Principal.Groups) != 1 {
		t.Fatalf("%+v", in)
	}
	tok := m["tokens"].([]any)[0].(members)
	if c := h.open(tok["access_token"].(string), "https://pay.internal"); c.Subject != "corp/bot" || c.Client != "corp/bot" {
		t.Errorf("%+v", c)
	}
	if rs := h.recorded(); len(rs) != 1 || rs[0].Agent != "corp/bot" || rs[0].Requester != "corp/boss" || len(rs[0].Policies) != 2 {
		t.Errorf("on record: %+v", rs)
	}

	// Neither permit is enough alone.
	h.refuse("POST /v1/grants", h.boss(), ask("corp/bot", "pay/purge"), 403, grants.Policy)
	h.refuse("POST /v1/grants", h.as("boss"), ask("corp/bot", "pay/send"), 403, grants.Policy) // no orchestrator today
	h.questions()
	// Who the task does not name, and who does not own it: before policy.
	h.refuse("POST /v1/grants", h.boss(), ask("corp/other", "pay/send"), 404, grants.UnknownTask)
	h.refuse("POST /v1/grants", h.boss(), ask("corp/boss", "pay/send"), 404, grants.UnknownTask)
	h.refuse("POST /v1/grants", h.as("op", "ops", "orchestrators"), ask("corp/bot", "pay/send"), 404, grants.UnknownTask)
	h.must("POST /v1/tasks/"+task+"/end", h.boss(), "")
	h.refuse("POST /v1/grants", h.as("op", "ops", "orchestrators"), ask("corp/bot", "pay/send"), 404, grants.UnknownTask) // not that it has ended
	h.refuse("POST /v1/grants", h.boss(), ask("corp/bot", "pay/send"), 409, grants.TaskEnded)
	for _, q := range h.questions() {
		if q.Action != grants.ActionEndTask {
			t.Errorf("policy was asked: %+v", q)
		}
	}
	// Its own name is no other's, and keeps its groups.
	task = h.start("", "corp/boss")
	h.questions()
	h.must("POST /v1/grants", h.boss(), ask("corp/boss", "pay/send"))
	if in := h.questions(); len(in) != 1 || len(in[0].Principal.Groups) != 1 {
		t.Errorf("%+v", in)
	}
}

// B14: a living grant stands for a new one only where all is equal.
func TestB14Reuse(t *testing.T) {
	const limit = `,"constraints":[{"type":"object","properties":{"query":{"type":"object","properties":{"copies":{"type":"integer","maximum":%d}},"required":["copies"],"additionalProperties":false},"body":{"type":"object","additionalProperties":false}},"required":["query","body"],"additionalProperties":false}]`
	h := newHouse(t)
	task := h.start("", "corp/bot", "corp/boss")
	other := h.start("", "corp/bot")
	base := fmt.Sprintf(limit, 3)
	first := h.buy(h.as("bot"), task, "pay/send", base)
	if again := h.buy(h.as("bot"), task, "pay/send", `,"ttl":100`+base); !again.Reused || again.GrantID != first.GrantID || again.TTL > 100 {
		t.Fatalf("%+v", again)
	}
	asked := len(h.questions())
	h.buy(h.as("bot"), task, "pay/send", base)
	if len(h.questions()) != 1 || asked == 0 {
		t.Error("a reuse was not put to policy")
	}
	for _, tc := range []struct {
		name             string
		who, task, asked string
	}{
		{"another task", h.as("bot"), other, base},
		{"another agent", h.boss(), task, base},
		{"another identity token", h.minted("bot", brokerAud, 30*time.Minute), task, base},
		{"other groups", h.as("bot", "x"), task, base},
		{"no constraint", h.as("bot"), task, ""},
		{"another constraint", h.as("bot"), task, fmt.Sprintf(limit, 4)},
		{"more time", h.as("bot"), task, `,"ttl":800` + base},
		{"a budget", h.as("bot"), other, `,"max_calls":3` + base},
		{"a narrower one", h.as("bot"), other, `,"max_calls":2` + base},
		{"a still narrower one", h.as("bot"), other, `,"max_calls":1` + base}, // as many budgets, of another limit
		{"a sum", h.as("bot"), other, `,"max_calls":1,"max_sum":{"/query/copies":"9"}` + base},
		{"a narrower sum", h.as("bot"), other, `,"max_calls":1,"max_sum":{"/query/copies":"8"}` + base},
		{"a still narrower sum", h.as("bot"), other, `,"max_calls":1,"max_sum":{"/query/copies":"7"}` + base},
	} {
		if d := h.buy(tc.who, tc.task, "pay/send", tc.asked); d.Reused {
			t.Errorf("%s: reused", tc.name)
		}
	}
	if d := h.buy(h.as("bot"), task, "pay/show", ""); d.Reused {
		t.Error("another tool: reused")
	}
	// A token lasts as long as the longest of its asks, and so would a reused grant.
	ends := h.buy(h.as("bot"), task, "pay/show", `,"ttl":500`).GrantID
	for _, tc := range []struct {
		asked  string
		reused bool
	}{
		{`{"tool":"pay/show","ttl":100},{"tool":"rep/export","ttl":200}`, true}, // in a token of its own
		{`{"tool":"pay/show","ttl":110},{"tool":"pay/send","ttl":110}`, true},
		{`{"tool":"pay/show","ttl":120},{"tool":"pay/send","ttl":200}`, false},
	} {
		m := h.must("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[%s]}`, task, tc.asked))
		d := m["tokens"].([]any)[0].(members)["authorization_details"].([]any)[0].(members)
		if d["reused"] != tc.reused || d["ttl"].(float64) > 120 || (d["grant_id"] == ends) != tc.reused {
			t.Errorf("%s: %v", tc.asked, d)
		}
	}
	h.rule(houseRules, nil) // the same rules of another revision
	if d := h.buy(h.as("bot"), task, "pay/send", base); d.Reused {
		t.Error("another policy revision: reused")
	}
}

// TestNoFullAnswerIsNo: what a decider gives that is not one decision for each
// question allows nothing.
func TestNoFullAnswerIsNo(t *testing.T) {
	yes := grants.Decision{Allow: true}
	var answer func(n int) ([]grants.Decision, error)
	h := newHouse(t)
	task := h.start("", "corp/bot")
	decide := h.cfg.Decide
	h.cfg.Decide = func(_ context.Context, in []grants.Input) ([]grants.Decision, error) { return answer(len(in)) }
	for name, f := range map[string]func(n int) ([]grants.Decision, error){
		"too few":  func(n int) ([]grants.Decision, error) { return slices.Repeat([]grants.Decision{yes}, n-1), nil },
		"too many": func(n int) ([]grants.Decision, error) { return slices.Repeat([]grants.Decision{yes}, n+1), nil },
		"none":     func(int) ([]grants.Decision, error) { return nil, nil },
		"and an error": func(n int) ([]grants.Decision, error) {
			return slices.Repeat([]grants.Decision{yes}, n), errors.New("down")
		},
		"a panic": func(int) ([]grants.Decision, error) { panic("planted") },
	} {
		answer = f
		h.refuse("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send"},{"tool":"pay/show"}]}`, task), 503, grants.Undecided)
		h.refuse("POST /v1/tasks/"+task+"/end", h.boss(), "", 503, grants.Undecided)
		h.refuse("DELETE /v1/grants?agent=corp/bot", h.boss(), "", 503, grants.Undecided)
		h.refuse("GET /v1/tasks", h.as("op", "ops"), "", 503, grants.Undecided)
		for _, r := range h.recorded() {
			if r.Outcome == audit.Allow && r.Kind != grants.ActionStartTask {
				t.Errorf("%s: on record: %+v", name, r)
			}
		}
	}
	if found, _ := h.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 9); len(found) != 0 {
		t.Errorf("%d grants", len(found))
	}
	h.cfg.Decide = decide
	h.must("POST /v1/tasks/"+task+"/end", h.boss(), "")
}

// FuzzOrder: a body that is accepted asks for 1 to 16 tools of the catalogue, each
// once, with bounds and times that are some.
func FuzzOrder(f *testing.F) {
	f.Add(`{"task":"t","grants":[{"tool":"pay/send","ttl":3,"max_calls":2,"max_sum":{"/body/amount":"1.5","/body/a~1b~0c":"2"},"renew":"g_aaaaaaaaaaaaaaaaaaaaaaaaaa"},{"tool":"rep/export"}]}`)
	f.Add(`{"task":"t","agent":"corp/bot","grants":[{"tool":"pay/send","constraints":[` + fmt.Sprintf(atMost, 3) + `]}]}`)
	f.Add(`{"task":"t","grants":[{"tool":"bank/wire","input":{"body":{"iban":"x","amount":1.5,"list":[1],"speed":"fast","raw":{}}}}]}`)
	cat, err := catalog.Parse("tools.yaml", []byte(bankTools))
	if err != nil {
		f.Fatal(err)
	}
	b := New(Config{Catalog: cat, Logger: zap.NewNop()})
	f.Fuzz(func(t *testing.T, body string) {
		r := &request{Request: newRequest(ownIssuer, "POST /v1/grants", "", body), body: []byte(body)}
		r.Header.Set("Content-Type", "application/json")
		o, rep := b.readOrder(r)
		if rep.why != grants.None {
			if rep.detail == "" {
				t.Fatalf("refused without help: %q", body)
			}
			return
		}
		if o.task == "" || len(o.asks) == 0 || len(o.asks) > 16 || o.agent.ID() != "" && (o.agent.Issuer == "" || o.agent.Subject == "") {
			t.Fatalf("accepted: %q", body)
		}
		tools := map[string]bool{}
		for _, a := range o.asks {
			args := map[string]bool{}
			for _, bd := range a.bounds {
				if bd.limit <= 0 || args[bd.arg] {
					t.Fatalf("accepted: %q", body)
				}
				args[bd.arg] = true
			}
			if (a.input == nil) != a.once.IsZero() || !a.once.IsZero() && args[""] {
				t.Fatalf("accepted: %q", body)
			}
			if tools[a.tool.ID] || a.ttl < 0 || a.renew != "" && !grants.ValidID(a.renew, grants.GrantPrefix) {
				t.Fatalf("accepted: %q", body)
			}
			tools[a.tool.ID] = true
		}
	})
}
