package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// one is the single record since the last time.
func (h *house) one() audit.Record {
	h.t.Helper()
	rs := h.recorded()
	if len(rs) != 1 {
		h.t.Fatalf("%d records: %+v", len(rs), rs)
	}
	return rs[0]
}

// TestRefusalsNameWhatSaidNo: on record are the policies that said no, for the
// reason that the caller is told, and none that permitted a part of it.
func TestRefusalsNameWhatSaidNo(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	ask := func(tools ...string) string {
		for i, tool := range tools {
			tools[i] = fmt.Sprintf(`{"tool":%q}`, tool)
		}
		return fmt.Sprintf(`{"task":%q,"agent":"corp/bot","grants":[%s]}`, task, strings.Join(tools, ","))
	}
	want := func(name string, r audit.Record, why grants.Reason, policies ...string) {
		t.Helper()
		if r.Reason != why || !slices.Equal(r.Policies, policies) {
			t.Errorf("%s: on record %v by %q, want %v by %q", name, r.Reason, r.Policies, why, policies)
		}
	}
	h.recorded()
	h.must("POST /v1/grants", h.boss(), ask("pay/send"))
	want("both permit", h.one(), grants.None, "may-ask_for", "may-grant")
	h.refuse("POST /v1/grants", h.boss(), ask("pay/purge"), 403, grants.Policy)
	want("ask_for permits, grant does not", h.one(), grants.Policy, "no-grant")
	h.refuse("POST /v1/grants", h.as("boss"), ask("pay/send"), 403, grants.Policy)
	want("the other way round", h.one(), grants.Policy, "no-ask_for")
	h.refuse("POST /v1/grants", h.as("boss"), ask("pay/purge"), 403, grants.Policy)
	want("neither", h.one(), grants.Policy, "no-ask_for", "no-grant")

	// All or nothing: what would be permitted names what it was refused with.
	h.refuse("POST /v1/grants", h.boss(), ask("pay/send", "pay/purge"), 403, grants.Policy)
	rs := h.recorded()
	if len(rs) != 2 {
		t.Fatalf("%+v", rs)
	}
	want("refused with another", rs[0], grants.Policy, "no-grant")
	want("that other", rs[1], grants.Policy, "no-grant")
	if !strings.Contains(rs[0].Note, "refused with pay/purge") || strings.Contains(rs[1].Note, "refused with") {
		t.Errorf("notes: %q, %q", rs[0].Note, rs[1].Note)
	}
	// None permits it: nothing that permits another is named in its place.
	h.rule(func(in grants.Input) grants.Decision {
		switch in.Action {
		case grants.ActionGrant:
			return grants.Decision{Reason: grants.Policy}
		case grants.ActionAskFor:
			return grants.Decision{Reason: grants.PolicyError, Policies: []string{"erring"}}
		}
		return houseRules(in)
	}, nil)
	h.refuse("POST /v1/grants", h.boss(), ask("pay/send"), 403, grants.Policy)
	want("none permits, and another errs", h.one(), grants.Policy)

	// What is not there was decided by nothing.
	h.rule(houseRules, nil)
	h.refuse("POST /v1/tasks/"+task+"/end", h.as("bot"), "", 404, grants.UnknownTask)
	want("a foreign task", h.one(), grants.UnknownTask, "no-end_task")
	for who, bearer := range map[string]string{"bot": h.as("bot"), "op": h.as("op", "ops")} {
		h.refuse("POST /v1/tasks/t_aaaaaaaaaaaaaaaaaaaaaaaaaa/end", bearer, "", 404, grants.UnknownTask)
		want("no task, to "+who, h.one(), grants.UnknownTask)
		h.refuse("DELETE /v1/grants/g_aaaaaaaaaaaaaaaaaaaaaaaaaa", bearer, "", 404, grants.UnknownGrant)
		want("no grant, to "+who, h.one(), grants.UnknownGrant)
	}
	h.refuse("DELETE /v1/grants?tool=pay/send", h.as("bot"), "", 403, grants.Policy)
	want("revoking all", h.one(), grants.Policy, "no-revoke")
}

// TestSweepNamesWhatSaidNo: the same rule, for what is decided anew.
func TestSweepNamesWhatSaidNo(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	h.must("POST /v1/grants", h.boss(), fmt.Sprintf(`{"task":%q,"agent":"corp/bot","grants":[{"tool":"pay/send"}]}`, task))
	h.rule(func(in grants.Input) grants.Decision {
		if in.Action == grants.ActionGrant {
			return grants.Decision{Reason: grants.Policy, Policies: []string{"forbids"}}
		}
		return houseRules(in)
	}, nil)
	h.recorded()
	if _, fenced, err := h.Sweep(t.Context()); fenced != 1 || err != nil {
		t.Fatal(fenced, err)
	}
	if r := h.one(); r.Reason != grants.PolicyChanged || !slices.Equal(r.Policies, []string{"forbids"}) {
		t.Errorf("%+v", r)
	}
}

// TestWhatPolicySawIsOnRecord: kind, time and groups, with which an operator sees
// why a policy did not fit.
func TestWhatPolicySawIsOnRecord(t *testing.T) {
	h := newHouse(t)
	want := func(name, note string) {
		t.Helper()
		if got := h.one().Note; got != note {
			t.Errorf("%s: note %q, want %q", name, got, note)
		}
	}
	h.recorded()
	task := h.must("POST /v1/tasks", h.as("boss", "orchestrators", "x"), `{"kind":"release","ttl":600}`)["task"].(string)
	want("start", "kind=release ttl=600 groups=corp/orchestrators,corp/x")
	grant := h.buy(h.as("boss", "orchestrators"), task, "pay/send", `,"ttl":60,"max_calls":2`).GrantID
	want("grant", "kind=release ttl=60 max_calls=2 max_sums=0 constraints=0 groups=corp/orchestrators")

	h.refuse("DELETE /v1/grants/"+grant, h.as("bot", "y"), "", 404, grants.UnknownGrant)
	want("revoke of another's", "kind=release ttl=60 groups=corp/y")
	h.refuse("DELETE /v1/grants/g_aaaaaaaaaaaaaaaaaaaaaaaaaa", h.as("bot", "y"), "", 404, grants.UnknownGrant)
	want("revoke of nothing", "groups=corp/y")
	h.must("DELETE /v1/grants/"+grant, h.as("op", "ops"), "")
	want("revoke", "kind=release ttl=60 groups=corp/ops")
	h.must("DELETE /v1/grants?tool=pay/send", h.as("op", "ops"), "")
	want("revoke of all", "kind=- ttl=60 groups=corp/ops")

	h.refuse("POST /v1/tasks/"+task+"/end", h.as("bot", "y"), "", 404, grants.UnknownTask)
	if note := h.one().Note; !strings.HasPrefix(note, "kind=release ttl=") || !strings.HasSuffix(note, " groups=corp/y") {
		t.Errorf("end of another's: %q", note)
	}
	h.must("POST /v1/tasks/"+task+"/end", h.boss(), "")
	if note := h.one().Note; !strings.HasPrefix(note, "kind=release ttl=") || !strings.HasSuffix(note, " groups=corp/orchestrators") {
		t.Errorf("end: %q", note)
	}
}

// TestTheCallersTextIsOnRecord: an operator reads no less than the caller got.
func TestTheCallersTextIsOnRecord(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	for _, tc := range []struct {
		what, body string
		status     int
		why        grants.Reason
		more       string // behind the text
	}{
		{"POST /v1/tasks", `{"kind":7}`, 400, grants.Malformed, ""},
		{"POST /v1/tasks", `{"kind":"k","ttl":0}`, 400, grants.BadTTL, ""},
		{"POST /v1/grants", `{"task":"` + task + `","grants":[{"tool":"pay/send","max_calls":0}]}`, 400, grants.BadRequest, ""},
		{"POST /v1/grants", `{"task":"` + task + `","grants":[{"tool":"pay/send"},{"tool":"pay/send"}]}`, 400, grants.BadRequest, ""},
		{"GET /v1/grants?tol=pay/send", "", 400, grants.Malformed, ""},
		{"DELETE /v1/grants?tool=pay/send", "", 403, grants.Policy, "; kind=- ttl=60 groups=corp/x"},
	} {
		h.recorded()
		help := h.refuse(tc.what, h.as("bot", "x"), tc.body, tc.status, tc.why)
		if note := h.one().Note; note != help+tc.more {
			t.Errorf("%s %s: on record %q, to the caller %q", tc.what, tc.body, note, help)
		}
	}
	// Where the reason says it all, the note does not say it again.
	h.recorded()
	h.refuse("GET /v1/tasks", "", "", 401, grants.NoCredential)
	if r := h.one(); r.Note != "" || r.Requester != "" {
		t.Errorf("%+v", r)
	}
}

// TestGroupsOfAnother: who asks for another agent is told that the groups which
// it knows of did not count; who asks for itself is not.
func TestGroupsOfAnother(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot", "corp/boss")
	ask := func(agent, tool string) string {
		return fmt.Sprintf(`{"task":%q,"agent":%q,"grants":[{"tool":%q}]}`, task, agent, tool)
	}
	const says = "for another agent than yourself, only the groups of entities.json count"
	if help := h.refuse("POST /v1/grants", h.boss(), ask("corp/bot", "pay/purge"), 403, grants.Policy); !strings.Contains(help, says) || !strings.Contains(help, "corp/bot") {
		t.Error(help)
	}
	// Its own name, and a grant that policy would permit to the other.
	for _, help := range []string{
		h.refuse("POST /v1/grants", h.boss(), ask("corp/boss", "pay/purge"), 403, grants.Policy),
		h.refuse("POST /v1/grants", h.as("boss"), ask("corp/bot", "pay/send"), 403, grants.Policy),
	} {
		if strings.Contains(help, "entities.json") {
			t.Error(help)
		}
	}
}

// TestWhatIsExpected: a member of another type is told what it must be.
func TestWhatIsExpected(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	for member, says := range map[string]string{
		`"max_calls":"3"`:                   `"/0/max_calls" must be a whole number`,
		`"max_calls":1.5`:                   `"/0/max_calls" must be a whole number`,
		`"ttl":"60"`:                        `"/0/ttl" must be a whole number`,
		`"max_sum":{"/body/amount":1000.5}`: `"max_sum": "/body/amount": write a decimal over 0 in quotes`,
		`"max_sum":"1000"`:                  `"/0/max_sum" must be an object`,
		`"renew":7`:                         `"/0/renew" must be a string, in quotes`,
	} {
		details := fmt.Sprintf(`[{"type":"urn:toolgrant:grant:1","tool":"pay/send","task":%q,%s}]`, task, member)
		status, m := h.json("POST /oauth2/token", "", h.form(h.as("bot"), "scope", "", "authorization_details", details))
		if text, _ := m["error_description"].(string); status != 400 || m["error"] != badDetails || !strings.Contains(text, says) {
			t.Errorf("%s: %d %v", member, status, m)
		}
	}
}

// TestTheWantedAudienceIsNamed: a genuine token of another audience is told which
// one to get.
func TestTheWantedAudienceIsNamed(t *testing.T) {
	h := newHouse(t)
	for _, aud := range []string{"other", "https://pay.internal"} {
		if help := h.refuse("GET /v1/tasks", h.minted("bot", aud, time.Hour), "", 401, grants.CredentialKind); !strings.Contains(help, `aud is "toolgrant"`) {
			t.Errorf("%s: %s", aud, help)
		}
	}
}

// TestDigestOfNoConstraints is not shown, and not signed: there is none.
func TestDigestOfNoConstraints(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	with := `,"constraints":[` + object("query", object(), "body", object()) + `]`
	for more, there := range map[string]bool{"": false, `,"constraints":[]`: false, with: true} {
		m := h.must("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send"%s}]}`, task, more))
		tok := m["tokens"].([]any)[0].(members)
		detail := tok["authorization_details"].([]any)[0].(members)
		_, shown := detail["constraints_digest"]
		signed := !h.open(tok["access_token"].(string), "https://pay.internal").Details[0].ConstraintsDigest.IsZero()
		listed := false
		for _, g := range h.must("GET /v1/grants?task="+task, h.as("bot"), "")["grants"].([]any) {
			if g := g.(members); g["grant_id"] == detail["grant_id"] {
				_, listed = g["constraints_digest"]
			}
		}
		if shown != there || signed != there || listed != there {
			t.Errorf("constraints %q: shown %v, signed %v, listed %v", more, shown, signed, listed)
		}
	}
}
