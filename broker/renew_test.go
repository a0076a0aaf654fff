package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/strictjson"
)

// renew asks for a grant in place of another and returns its detail.
func (h *house) renew(bearer, task, tool string, old grants.ID, more string) detailAnswer {
	h.t.Helper()
	return h.buy(bearer, task, tool, fmt.Sprintf(`,"renew":%q%s`, old, more))
}

const atMost = `{"type":"object","properties":{"body":{"type":"object","properties":{"amount":{"type":"number","maximum":%d}},"required":["amount"],"additionalProperties":false},"query":{"type":"object","additionalProperties":false}},"required":["query","body"],"additionalProperties":false}`

func TestRenew(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	bot := h.as("bot")
	old := h.buy(bot, task, "pay/send", `,"ttl":60,"max_calls":5,"constraints":[`+fmt.Sprintf(atMost, 9)+`]`)
	own := h.buy(bot, task, "pay/send", `,"ttl":60,"max_calls":3`)
	asked := fmt.Sprintf(`,"ttl":600,"max_calls":4,"constraints":[%s,%s]`, fmt.Sprintf(atMost, 9), strings.Replace(fmt.Sprintf(atMost, 7), ":", " : ", 1))
	g := h.renew(bot, task, "pay/send", old.GrantID, asked)
	if g.Reused || g.Renewed != old.GrantID || g.GrantID == old.GrantID || g.TTL < 590 || g.MaxCalls != 4 || len(g.Constraints) != 2 ||
		string(g.Constraints[0]) != string(old.Constraints[0]) || h.state(old.GrantID) != grants.Superseded || h.state(g.GrantID) != grants.None {
		t.Fatalf("%+v", g)
	}
	if rs := h.recorded(); !strings.Contains(rs[len(rs)-1].Note, "renews="+old.GrantID) {
		t.Errorf("on record: %+v", rs[len(rs)-1])
	}
	// The own budget of the old grant goes with the new one, as it is.
	for range 2 {
		if why := h.spend(own.GrantID, "1"); why != grants.None {
			t.Fatal(why)
		}
	}
	own2 := h.renew(bot, task, "pay/send", own.GrantID, "")
	if own2.MaxCalls != 3 || h.spend(own2.GrantID, "1") != grants.None || h.spend(own2.GrantID, "1") != grants.BudgetSpent {
		t.Errorf("the budget of 3 calls was refilled: %+v", own2)
	}

	for _, tc := range []struct {
		name, who, task, tool, more string
		old                         grants.ID
		status                      int
		why                         grants.Reason
	}{
		{"renewed already", bot, task, "pay/send", "", old.GrantID, 403, grants.Superseded},
		{"another tool", bot, task, "pay/show", "", g.GrantID, 400, grants.BadRequest},
		{"another task", bot, h.start("", "corp/bot"), "pay/send", "", g.GrantID, 400, grants.BadRequest},
		{"no grant", bot, task, "pay/send", "", grants.NewID(grants.GrantPrefix), 404, grants.UnknownGrant},
		{"not who asked for it", h.boss(), task, "pay/send", `"agent":"corp/bot",`, g.GrantID, 404, grants.UnknownGrant},
	} {
		body := fmt.Sprintf(`{"task":%q,%s"grants":[{"tool":%q,"renew":%q}]}`, tc.task, tc.more, tc.tool, tc.old)
		if help := h.refuse("POST /v1/grants", tc.who, body, tc.status, tc.why); tc.status == 400 && !strings.Contains(help, tc.name) {
			t.Errorf("%s: %q does not help", tc.name, help)
		}
	}
	h.questions()
	h.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","renew":%q}]}`, task, old.GrantID), 403, grants.Superseded)
	if in := h.questions(); len(in) != 0 {
		t.Errorf("policy was asked about what cannot be: %+v", in)
	}
	// What the task has got since binds the renewal, too.
	free := h.buy(bot, task, "pay/show", "").GrantID
	h.buy(bot, task, "pay/show", `,"max_calls":6`)
	if g := h.renew(bot, task, "pay/show", free, ""); g.MaxCalls != 6 {
		t.Errorf("%+v", g)
	}
	// A new decision, which may be no; the old grant lives on then.
	h.rule(func(in grants.Input) grants.Decision {
		if in.Grant != nil && in.Grant.TTL() > time.Minute {
			return grants.Decision{Reason: grants.Policy}
		}
		return grants.Decision{Allow: true}
	}, nil)
	h.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","renew":%q,"ttl":300}]}`, task, g.GrantID), 403, grants.Policy)
	if h.state(g.GrantID) != grants.None {
		t.Error("a renewal that was refused ended the grant")
	}
	// What has ended is not renewed.
	h.rule(houseRules, nil)
	h.must("DELETE /v1/grants/"+g.GrantID, h.boss(), "")
	h.refuse("POST /v1/grants", bot, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","renew":%q}]}`, task, g.GrantID), 403, grants.Revoked)
}

// TestRenewForAnother: by the agent, and by who asked for it.
func TestRenewForAnother(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	ask := func(bearer, agent string, old grants.ID) (int, members) {
		renew := ""
		if old != "" {
			renew = fmt.Sprintf(`,"renew":%q`, old)
		}
		return h.json("POST /v1/grants", bearer, fmt.Sprintf(`{"task":%q%s,"grants":[{"tool":"pay/send"%s}]}`, task, agent, renew))
	}
	id := func(status int, m members) grants.ID {
		if status != 200 {
			t.Fatalf("%d %v", status, m)
		}
		return m["tokens"].([]any)[0].(members)["authorization_details"].([]any)[0].(members)["grant_id"].(string)
	}
	const bot = `,"agent":"corp/bot"`
	g := id(ask(h.boss(), bot, ""))
	g = id(ask(h.boss(), bot, g))
	if status, m := ask(h.as("boss"), bot, g); status != 403 { // ask_for is decided anew
		t.Errorf("%d %v", status, m)
	}
	old := g
	g = id(ask(h.as("bot"), "", g))
	live, _ := h.cfg.Table.Grant(g)
	if live.Requester.ID() != "corp/bot" || live.Renews != old || h.state(old) != grants.Superseded {
		t.Errorf("%+v", live)
	}
	// Who asked for it, but not for the agent.
	boss := h.start("", "corp/bot", "corp/boss")
	task = boss
	g = id(ask(h.boss(), bot, ""))
	if status, m := ask(h.boss(), "", g); status != 400 || !strings.Contains(m["help"].(string), "another agent's") {
		t.Errorf("%d %v", status, m)
	}
}

// TestRenewAtTheTokenEndpoint, in both its forms.
func TestRenewAtTheTokenEndpoint(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	bot := h.as("bot")
	id := h.buy(bot, task, "pay/send", "").GrantID
	renewed := func(form string) grants.ID {
		w := h.shell.ask("POST /oauth2/token", "", form)
		var ans tokenAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &ans); err != nil || w.Code != 200 || ans.Details[0].Renewed != id {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if h.state(id) != grants.Superseded {
			t.Errorf("the old grant: %v", h.state(id))
		}
		return ans.Details[0].GrantID
	}
	id = renewed(h.form(bot, "task", task, "renew", id))
	id = renewed(h.form(bot, "scope", "", "authorization_details",
		fmt.Sprintf(`[{"type":"urn:toolgrant:grant:1","tool":"pay/send","task":%q,"renew":%q}]`, task, id)))
	for form, help := range map[string]string{
		h.form(bot, "task", task, "renew", id, "scope", "pay/send pay/show"): "scope of one tool",
		h.form(bot, "task", task, "renew", "g_x"):                            "id of a grant",
		h.form(bot, "task", task, "renew", id, "scope", "pay/show"):          "another tool",
		h.form(bot, "renew", id, "scope", "", "authorization_details", "[]"): "do not go together",
	} {
		status, m := h.json("POST /oauth2/token", "", form)
		if text, _ := m["error_description"].(string); status != 400 || m["error"] != "invalid_request" || !strings.Contains(text, help) {
			t.Errorf("%s: %d %v", form, status, m)
		}
	}
	if h.state(id) != grants.None {
		t.Error("a refused renewal ended the grant")
	}
}

// TestRenewalThatFails leaves nothing alive that it wrote.
func TestRenewalThatFails(t *testing.T) {
	var failing, unrecorded bool
	h := newHouse(t, func(c *Config) {
		c.Store = brokenStore{c.Store, func(f grants.Fence) error {
			if failing && f.Why == grants.Superseded {
				return errors.New("no store")
			}
			return nil
		}}
		record := c.Record
		c.Record = func(rs []audit.Record) error {
			if unrecorded {
				return errors.New("no room")
			}
			return record(rs)
		}
	})
	task := h.start("", "corp/bot")
	id := h.buy(h.as("bot"), task, "pay/send", "").GrantID
	renew := fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","renew":%q}]}`, task, id)
	live := func() []grants.Live {
		found, _ := h.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 9)
		return found
	}
	failing = true
	h.refuse("POST /v1/grants", h.as("bot"), renew, 503, grants.Undecided)
	if l := live(); len(l) != 1 || l[0].Grant().ID != id {
		t.Fatalf("%d live", len(l))
	}
	failing, unrecorded = false, true
	if help := h.refuse("POST /v1/grants", h.as("bot"), renew, 503, grants.CannotRecord); !strings.Contains(help, "has ended") {
		t.Errorf("%q", help)
	}
	if l := live(); len(l) != 0 {
		t.Errorf("%d live, and nothing is on record", len(l))
	}
}

// B06: renewing for ever is not possible: every window ends with the task, the
// identity token and the maximum, and no budget is refilled on the way.
func TestB06RenewForEver(t *testing.T) {
	h := newHouse(t)
	task := h.start(`,"ttl":20`, "corp/bot")
	deadline := h.must("GET /v1/tasks/"+task, h.boss(), "")["deadline"].(string)
	ends, err := time.Parse(time.RFC3339, deadline)
	if err != nil {
		t.Fatal(err)
	}
	g := h.buy(h.as("bot"), task, "pay/send", `,"max_calls":3,"max_sum":{"/body/amount":"10"}`)
	spent := 0
	for i := range 100 {
		if i%30 == 0 && h.spend(g.GrantID, "1") == grants.None {
			spent++
		}
		if g = h.renew(h.as("bot"), task, "pay/send", g.GrantID, `,"ttl":900`); g.ExpiresAt.After(ends) || g.MaxCalls != 3 {
			t.Fatalf("%+v", g)
		}
	}
	if h.spend(g.GrantID, "1") == grants.None || spent != 3 {
		t.Errorf("%d calls, and another, on a budget of 3", spent)
	}
	short := h.minted("bot", brokerAud, 10*time.Second)
	task = h.start("", "corp/bot")
	g = h.renew(short, task, "pay/send", h.buy(short, task, "pay/send", "").GrantID, `,"ttl":900`)
	if g.TTL > 10 {
		t.Errorf("%+v: longer than the identity token", g)
	}
}

// B04: 100 runs of 1000 random pairs: what a renewal may do, the old grant might
// have done. It is judged by what a call door makes of a grant, not by how a
// renewal is built.
func TestB04RenewalNeverWider(t *testing.T) {
	h := newHouse(t)
	allows := map[string][8]bool{} // constraint -> by amount
	var texts []json.RawMessage
	for n := range 8 {
		text := json.RawMessage(fmt.Sprintf(atMost, n))
		c, err := grants.CompileConstraint(text)
		if err != nil {
			t.Fatal(err)
		}
		var by [8]bool
		for amount := range by {
			by[amount] = c.Check(map[string]any{"body": map[string]any{"amount": strictjson.Number(fmt.Sprint(amount))}}) == nil
		}
		texts, allows[string(text)] = append(texts, text), by
	}
	args := []string{"", "/body/amount", "/query/copies"}
	now := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	passes := func(amount int, cs []json.RawMessage) bool {
		for _, c := range cs {
			if !allows[string(c)][amount] {
				return false
			}
		}
		return true
	}
	rapid.Check(t, func(rt *rapid.T) {
		some := rapid.SliceOfN(rapid.SampledFrom(texts), 0, 3)
		bounds := rapid.SliceOfNDistinct(rapid.SampledFrom(args), 0, 3, rapid.ID[string])
		small := rapid.Int64Range(1, 6)
		draw := func() []bound {
			var out []bound
			for _, arg := range bounds.Draw(rt, "args") {
				out = append(out, bound{arg, small.Draw(rt, "limit")})
			}
			return out
		}
		for range 1000 {
			shared := budgets(nil, "", "t_x", "pay/send", draw())
			old := grants.Grant{ID: "g_old", Task: "t_x", Tool: "pay/send", Constraints: some.Draw(rt, "old")}
			old.Budgets = budgets(shared, old.ID, "t_x", "pay/send", draw())
			asked := some.Draw(rt, "asked")
			g := inPlaceOf(&old, asked, shared)
			g.Budgets = budgets(g.Budgets, "g_new", "t_x", "pay/send", draw())
			for n := range 8 {
				if passes(n, g.Constraints) && !(passes(n, old.Constraints) && passes(n, asked)) {
					rt.Fatalf("amount %d passes %s and not %s, %s", n, g.Constraints, old.Constraints, asked)
				}
			}
			for _, b := range old.Budgets { // the account itself, so that what is spent stays spent
				if !slices.Contains(g.Budgets, b) {
					rt.Fatalf("%v is not in %v", b, g.Budgets)
				}
			}
			for _, arg := range args {
				was, counted := narrowest(old.Budgets, arg)
				if is, still := narrowest(g.Budgets, arg); counted && (!still || is > was) {
					rt.Fatalf("%q: %d, of %d", arg, is, was)
				}
			}
			// The window, of any ask, never passes what bounds it.
			task := &grants.Task{Deadline: now.Add(time.Duration(small.Draw(rt, "task")) * 777 * time.Millisecond)}
			r := &request{now: now, who: identity.Verified{Expires: now.Add(time.Duration(small.Draw(rt, "token")) * 900 * time.Millisecond)}}
			ttl := time.Duration(small.Draw(rt, "ttl")-1) * time.Second
			last := now.Add(time.Duration(small.Draw(rt, "manifest")) * 700 * time.Millisecond)
			if small.Draw(rt, "has a manifest") == 0 {
				last = time.Time{}
			}
			begin, end, rep := h.window(r, task, ttl, last)
			if rep.why == grants.None && (end.After(task.Deadline) || !last.IsZero() && end.After(last) || end.After(r.who.Expires) || end.After(now.Add(h.cfg.MaxTTL)) || ttl > 0 && end.After(now.Add(ttl)) || begin.After(now)) {
				rt.Fatalf("%v to %v", begin, end)
			}
		}
	})
}

// B04: and through the whole door, with a Store that compares.
func TestB04WiderIsRefused(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	for _, tc := range []struct{ name, form, code string }{
		{"a tool that policy does not grant", h.form(h.as("bot"), "task", task, "scope", "pay/purge"), "invalid_scope"},
		{"a wildcard", h.form(h.as("bot"), "task", task, "scope", "*"), "invalid_scope"},
		{"a wildcard of the server", h.form(h.as("bot"), "task", task, "scope", "pay/*"), "invalid_scope"},
		{"one more tool", h.form(h.as("bot"), "task", task, "scope", "pay/send pay/purge"), "invalid_scope"},
		{"a tool of another server", h.form(h.as("bot"), "task", task, "scope", "pay/send rep/export"), "invalid_target"},
	} {
		w := h.shell.ask("POST /oauth2/token", "", tc.form)
		if code := errorOf(t, w); w.Code != 400 || code != tc.code {
			t.Errorf("%s: %d %s", tc.name, w.Code, w.Body)
		}
	}
	if found, _ := h.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 9); len(found) != 0 {
		t.Errorf("%d grants", len(found))
	}
}

func errorOf(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	_, m := read(t, w)
	code, _ := m["error"].(string)
	return code
}
