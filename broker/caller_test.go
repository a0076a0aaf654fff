package broker

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// TestTokenForOthers: a genuine identity token that is not meant for the broker
// opens nothing, and its denial names whose it is: it is no stranger's, and not
// folded.
func TestTokenForOthers(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/boss")
	g := h.buy(h.boss(), task, "pay/send", "").GrantID
	calls := map[string]string{
		"POST /v1/tasks": `{"kind":"k"}`, "GET /v1/tasks": "", "GET /v1/tasks/" + task: "", "POST /v1/tasks/" + task + "/end": "", "POST /v1/tasks/" + task + "/beat": "",
		"POST /v1/grants": `{"task":"` + task + `","grants":[{"tool":"pay/send"}]}`, "GET /v1/grants": "", "DELETE /v1/grants?task=" + task: "", "DELETE /v1/grants/" + g: "",
		"POST /oauth2/token": "",
	}
	for name, aud := range map[string]any{
		"another's": "other", "a tool server's": "https://pay.internal", "ours and a tool server's": []string{brokerAud, "https://rep.internal"},
	} {
		bearer := h.issuedTo(members{"sub": "boss", "groups": []string{"orchestrators"}, "aud": aud})
		h.recorded()
		h.questions()
		for what, body := range calls {
			at, want := bearer, http.StatusUnauthorized
			if what == "POST /oauth2/token" {
				at, body, want = "", h.form(bearer, "task", task), http.StatusBadRequest
			}
			status, m := h.json(what, at, body)
			rs := h.recorded()
			if status != want || m["reason"] != grants.CredentialKind.String() || len(rs) != 1 || rs[0].Requester != "corp/boss" || rs[0].Outcome != audit.Deny {
				t.Errorf("%s, %s: %d %v; on record %+v", name, what, status, m, rs)
			}
		}
		if n := len(h.questions()); n != 0 {
			t.Errorf("%s: policy was asked %d times", name, n)
		}
	}
	if found, _ := h.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 9); len(found) != 1 || h.state(g) != grants.None {
		t.Errorf("%d grants, %v", len(found), h.state(g))
	}
}

// TestTokenForOthersSpendsNothing: who is given an agent's token for another
// audience cannot use up what the agent may ask of the broker.
func TestTokenForOthersSpendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.limits = newLimits(2) // 4 at once
		other := h.minted("bot", "https://pay.internal", time.Hour)
		for range 20 {
			h.refuse("GET /v1/tasks", other, "", 401, grants.CredentialKind)
		}
		for range 4 {
			h.must("GET /v1/tasks", h.as("bot"), "")
		}
		h.refuse("GET /v1/tasks", h.as("bot"), "", 429, grants.Limit)
	})
}

// TestAgentsAreNamedAlike: an agent whose token is accepted can be named
// wherever agents are, and what cannot be in a token is refused there.
func TestAgentsAreNamedAlike(t *testing.T) {
	h := newHouse(t)
	for _, sub := range []string{"Jo Doe", "a/b c", "名 é", "auth0|x"} {
		agent := "corp/" + sub
		q := url.QueryEscape(agent)
		task := h.start("", agent)
		g := h.buy(h.as(sub), task, "pay/send", "").GrantID
		h.must("POST /v1/grants", h.boss(), fmt.Sprintf(`{"task":%q,"agent":%q,"grants":[{"tool":"pay/show"}]}`, task, agent))
		if got := ids(h.must("GET /v1/tasks?agent="+q, h.boss(), ""), "tasks", "task"); len(got) != 1 {
			t.Errorf("%s: %v", agent, got)
		}
		if got := ids(h.must("GET /v1/grants?agent="+q, h.boss(), ""), "grants", "grant_id"); len(got) != 2 {
			t.Errorf("%s: %v", agent, got)
		}
		h.must("DELETE /v1/grants?agent="+q, h.as("op", "ops"), "")
		if why := h.state(g); why != grants.Revoked {
			t.Errorf("%s: %v", agent, why)
		}
	}
	task := h.start("", "corp/bot")
	for _, agent := range []string{"corp/ a", "corp/a ", "corp/a\u202eb", "corp/a\u2028b", "corp/a\u009bb", "corp/a\u00a0b", "corp/a\u200bb", "Corp/a", "-/a", "corp", "/a"} {
		q := url.QueryEscape(agent)
		h.refuse("POST /v1/tasks", h.boss(), `{"kind":"k","agents":["`+agent+`"]}`, 400, grants.Malformed)
		h.refuse("POST /v1/grants", h.boss(), `{"task":"`+task+`","agent":"`+agent+`","grants":[{"tool":"pay/send"}]}`, 400, grants.Malformed)
		for _, what := range []string{"GET /v1/tasks?owner=", "GET /v1/tasks?agent=", "GET /v1/grants?agent=", "DELETE /v1/grants?agent="} {
			h.refuse(what+q, h.as("op", "ops"), "", 400, grants.Malformed)
		}
	}
	for _, kind := range []string{"a b", "a\u2028b", "a\u009bb", "a\u202eb", ""} {
		h.refuse("POST /v1/tasks", h.boss(), `{"kind":"`+kind+`"}`, 400, grants.Malformed)
		h.refuse("GET /v1/tasks?kind="+url.QueryEscape(kind), h.boss(), "", 400, grants.Malformed)
	}
}
