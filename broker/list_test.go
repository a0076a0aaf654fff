package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// B08: what is unknown and what is not the caller's are one answer, for as much
// work of policy.
func TestB08UnknownAndForeign(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	g := h.buy(h.as("bot"), task, "pay/send", "").GrantID
	unknownTask, unknownGrant := grants.NewID(grants.TaskPrefix), grants.NewID(grants.GrantPrefix)
	stranger := h.as("stranger")
	for _, tc := range []struct {
		what, body       string
		foreign, unknown string
	}{
		{"GET /v1/tasks/%s", "", task, unknownTask},
		{"GET /v1/tasks/%s", "", task, "x"},
		{"POST /v1/tasks/%s/end", "", task, unknownTask},
		{"POST /v1/tasks/%s/beat", "", task, unknownTask},
		{"DELETE /v1/grants?task=%s", "", task, unknownTask},
		{"DELETE /v1/grants/%s", "", g, unknownGrant},
		{"POST /v1/grants", `{"task":"%s","grants":[{"tool":"pay/send"}]}`, task, unknownTask},
		{"POST /v1/grants", `{"task":"%s","agent":"corp/bot","grants":[{"tool":"pay/send"}]}`, task, unknownTask},
	} {
		answer := func(id string) (members, int) {
			h.questions()
			fill := func(s string) string {
				if strings.Contains(s, "%s") {
					return fmt.Sprintf(s, id)
				}
				return s
			}
			status, m := h.json(fill(tc.what), stranger, fill(tc.body))
			if status != 404 {
				t.Errorf("%s: %d %v", tc.what, status, m)
			}
			delete(m, "decision_id")
			return m, len(h.questions())
		}
		foreign, asked := answer(tc.foreign)
		unknown, asked2 := answer(tc.unknown)
		if diff := cmp.Diff(foreign, unknown); diff != "" || asked != asked2 {
			t.Errorf("%s: %d and %d questions to policy, %s", tc.what, asked, asked2, diff)
		}
	}
	// A renewal, too: by an agent of the same task.
	task = h.start("", "corp/bot", "corp/other")
	g = h.buy(h.as("bot"), task, "pay/send", "").GrantID
	ask := `{"task":"` + task + `","grants":[{"tool":"pay/send","renew":"%s"}]}`
	foreign := h.refuse("POST /v1/grants", h.as("other"), fmt.Sprintf(ask, g), 404, grants.UnknownGrant)
	unknown := h.refuse("POST /v1/grants", h.as("other"), fmt.Sprintf(ask, unknownGrant), 404, grants.UnknownGrant)
	if foreign != unknown || h.state(g) != grants.None {
		t.Errorf("%q, %q, %v", foreign, unknown, h.state(g))
	}
}

// ids takes an id out of each member of a list.
func ids(m members, list, name string) []string {
	var out []string
	for _, one := range m[list].([]any) {
		out = append(out, one.(members)[name].(string))
	}
	slices.Sort(out)
	return out
}

func sorted(s ...string) []string { slices.Sort(s); return s }

func TestWhoSeesWhat(t *testing.T) {
	h := newHouse(t)
	one := h.start("", "corp/bot", "corp/mate")
	two := h.start("", "corp/mate")
	own := h.must("POST /v1/tasks", h.as("mate"), `{"kind":"own","beat":60}`)["task"].(string)
	botSends := h.buy(h.as("bot"), one, "pay/send", `,"max_calls":3,"max_sum":{"/body/amount":"10.5"}`).GrantID
	mateShows := h.buy(h.as("mate"), one, "pay/show", "").GrantID
	mateExports := h.buy(h.as("mate"), own, "rep/export", "").GrantID
	asked := h.must("POST /v1/grants", h.boss(), fmt.Sprintf(`{"task":%q,"agent":"corp/mate","grants":[{"tool":"rep/export"}]}`, two))
	forMate := asked["tokens"].([]any)[0].(members)["authorization_details"].([]any)[0].(members)["grant_id"].(string)

	all := sorted(botSends, mateShows, mateExports, forMate)
	for _, tc := range []struct {
		who           string
		tasks, grants []string
	}{
		{h.boss(), sorted(one, two), sorted(botSends, mateShows, forMate)},
		{h.as("bot"), sorted(one), sorted(botSends)},
		{h.as("mate"), sorted(one, two, own), sorted(mateShows, mateExports, forMate)},
		{h.as("op", "ops"), sorted(one, two, own), all},
		{h.as("stranger"), nil, nil},
	} {
		h.recorded()
		m := h.must("GET /v1/tasks", tc.who, "")
		if got := ids(m, "tasks", "task"); !slices.Equal(got, tc.tasks) || m["more"] != false {
			t.Errorf("tasks: %v, want %v", got, tc.tasks)
		}
		m = h.must("GET /v1/grants", tc.who, "")
		if got := ids(m, "grants", "grant_id"); !slices.Equal(got, tc.grants) || m["more"] != false {
			t.Errorf("grants: %v, want %v", got, tc.grants)
		}
		rs := h.recorded()
		if len(rs) != 2 || rs[0].Kind != "list_tasks" || rs[0].Note != fmt.Sprintf("tasks=%d more=false", len(tc.tasks)) ||
			rs[1].Kind != "list_grants" || rs[1].Note != fmt.Sprintf("grants=%d more=false", len(tc.grants)) || rs[1].Outcome != audit.Allow {
			t.Errorf("on record: %+v", rs)
		}
		for _, f := range []struct {
			query string
			want  []string
		}{
			{"task=" + one, []string{botSends, mateShows}}, {"agent=corp/mate", []string{mateShows, mateExports, forMate}},
			{"tool=rep/export", []string{mateExports, forMate}}, {"task=" + two + "&agent=corp/mate&tool=rep/export", []string{forMate}},
			{"task=" + two + "&agent=corp/bot", nil},
		} {
			want := slices.DeleteFunc(sorted(f.want...), func(id string) bool { return !slices.Contains(tc.grants, id) })
			if got := ids(h.must("GET /v1/grants?"+f.query, tc.who, ""), "grants", "grant_id"); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", f.query, got, want)
			}
		}
		for _, f := range []struct {
			query string
			want  []string
		}{{"kind=own", []string{own}}, {"owner=corp/boss", []string{one, two}}, {"agent=corp/bot&kind=k", []string{one}}, {"kind=none", nil}} {
			want := slices.DeleteFunc(sorted(f.want...), func(id string) bool { return !slices.Contains(tc.tasks, id) })
			if got := ids(h.must("GET /v1/tasks?"+f.query, tc.who, ""), "tasks", "task"); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", f.query, got, want)
			}
		}
	}

	// What structure shows, it shows whatever policy says.
	h.rule(func(grants.Input) grants.Decision { return grants.Decision{Reason: grants.Policy} }, nil)
	for who, want := range map[string][]string{h.as("boss"): {botSends, mateShows, forMate}, h.as("bot"): {botSends}, h.as("op", "ops"): nil} {
		if got := ids(h.must("GET /v1/grants", who, ""), "grants", "grant_id"); !slices.Equal(got, sorted(want...)) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	h.rule(houseRules, nil)

	// One task: an agent of it sees its own grants alone.
	m := h.must("GET /v1/tasks/"+one, h.as("bot"), "")
	if got := ids(m, "grants", "grant_id"); m["state"] != "open" || m["owner"] != "corp/boss" || !slices.Equal(got, []string{botSends}) {
		t.Errorf("%v", m)
	}
	g := m["grants"].([]any)[0].(members)
	if g["max_calls"] != 3.0 || g["agent"] != "corp/bot" || g["requester"] != "corp/bot" || g["kind"] != "k" || g["depth"] != 0.0 ||
		g["ttl"].(float64) < 1 || g["ttl"].(float64) > 300 || g["max_sum"].(members)["/body/amount"] != "10.5" {
		t.Errorf("%v", g)
	}
	if m := h.must("GET /v1/tasks/"+own, h.as("op", "ops"), ""); len(ids(m, "grants", "grant_id")) != 1 || m["beat"] != 60.0 {
		t.Errorf("%v", m)
	}
	// What has ended is in no list, and shown as ended for a while.
	h.must("POST /v1/tasks/"+one+"/end", h.boss(), "")
	if m := h.must("GET /v1/tasks/"+one, h.as("bot"), ""); m["state"] != "ended" || len(m["grants"].([]any)) != 0 {
		t.Errorf("%v", m)
	}
	if got := ids(h.must("GET /v1/tasks", h.as("bot"), ""), "tasks", "task"); len(got) != 0 {
		t.Errorf("an ended task is listed: %v", got)
	}
	if got := ids(h.must("GET /v1/grants", h.as("bot"), ""), "grants", "grant_id"); len(got) != 0 {
		t.Errorf("a grant of an ended task is listed: %v", got)
	}

	// Who asked, too, whoever else that is.
	agent, _ := agentOf("corp/bot")
	asker, _ := agentOf("corp/asker")
	held := grants.Grant{ID: grants.NewID(grants.GrantPrefix), Task: two, Agent: agent, Requester: asker, Tool: "pay/show", NotBefore: h.cfg.Table.Now(), Expires: h.cfg.Table.Now().Add(60e9)}
	if rev, why, err := h.store.Issue(t.Context(), []grants.Grant{held}); err != nil || why != grants.None || h.cfg.Table.Wait(t.Context(), rev) != nil {
		t.Fatal(why, err)
	}
	if got := ids(h.must("GET /v1/grants", h.as("asker"), ""), "grants", "grant_id"); !slices.Equal(got, []string{held.ID}) {
		t.Errorf("%v", got)
	}
}

func TestListsAreStrict(t *testing.T) {
	h := newHouse(t)
	me := h.as("bot")
	for _, tc := range []struct {
		what string
		why  grants.Reason
	}{
		{"GET /v1/tasks?status=open", grants.Malformed}, {"GET /v1/tasks?kind=a&kind=b", grants.Malformed},
		{"GET /v1/tasks?kind=", grants.Malformed}, {"GET /v1/tasks?owner=bot", grants.Malformed}, {"GET /v1/tasks?agent=/x", grants.Malformed},
		{"GET /v1/tasks?kind=%zz", grants.Malformed}, {"GET /v1/grants?kind=a", grants.Malformed}, {"GET /v1/grants?task=x", grants.Malformed},
		{"GET /v1/grants?tool=pay/none", grants.UnknownTool}, {"GET /v1/grants?agent=x", grants.Malformed},
		{"GET /v1/tasks/" + grants.NewID("t_") + "?x=y", grants.Malformed},
	} {
		h.refuse(tc.what, me, "", 400, tc.why)
	}
	h.refuse("GET /v1/tasks", me, "{}", 400, grants.Malformed)
	h.refuse("GET /v1/grants", me, "{}", 400, grants.Malformed)
	h.refuse("GET /v1/grants", "", "", 401, grants.NoCredential)

	// No answer of policy is no list; one that cannot be evaluated hides its task.
	h.start("", "corp/bot")
	h.rule(houseRules, errors.New("down"))
	h.refuse("GET /v1/tasks", h.as("op", "ops"), "", 503, grants.Undecided)
	h.must("GET /v1/tasks", me, "") // what structure decides needs no policy
	h.rule(func(grants.Input) grants.Decision { return grants.Decision{Allow: true, Reason: grants.PolicyError} }, nil)
	if m := h.must("GET /v1/tasks", h.as("op", "ops"), ""); len(m["tasks"].([]any)) != 0 {
		t.Errorf("%v", m)
	}
}

// TestListsAreBounded, in what they hold, in what they put to policy, and in how
// often.
func TestListsAreBounded(t *testing.T) {
	h := newHouse(t)
	owner := h.as("owner")
	for range maxListed + 5 {
		h.must("POST /v1/tasks", owner, `{"kind":"k"}`)
	}
	for _, who := range []string{owner, h.as("op", "ops"), h.as("stranger")} {
		h.questions()
		m := h.must("GET /v1/tasks", who, "")
		n, want := len(m["tasks"].([]any)), maxListed
		if who == h.as("stranger") {
			want = 0
		}
		if n != want || m["more"] != true || len(h.questions()) > maxListed {
			t.Errorf("%d tasks, more %v", n, m["more"])
		}
	}
}

// TestListsCostTheirRate: of a burst of 16, a list of 208 entries that policy
// has to be asked about takes 1 as a request, 2 for its questions and 2 for its
// entries.
func TestListsCostTheirRate(t *testing.T) {
	for list, fill := range map[string]func(*house){
		"GET /v1/tasks": func(h *house) {
			for range 208 {
				h.task(h.boss())
			}
		},
		"GET /v1/grants": func(h *house) { h.many(208, "pay/send") },
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			fill(h)
			h.limits = newLimits(8)
			heard := 0
			for status := 200; status == 200; heard++ {
				status, _ = h.json(list, h.as("op", "ops"), "")
			}
			if heard != 4 { // and the fourth is refused
				t.Errorf("%s: refused is the list number %d", list, heard)
			}
		})
	}
}
