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
	"github.com/toolgrant/toolgrant/identity"
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
	if got := ids(h.must("GET /v1/grants?task="+one, h.as("boss"), ""), "grants", "grant_id"); !slices.Equal(got, sorted(botSends, mateShows)) {
		t.Errorf("an owner's: %v", got)
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
	agent, _ := identity.ParseAgent("corp/bot")
	asker, _ := identity.ParseAgent("corp/asker")
	held := grants.Grant{ID: grants.NewID(grants.GrantPrefix), Task: two, Agent: agent, Requester: asker, Tool: "pay/show", NotBefore: h.cfg.Table.Now(), Expires: h.cfg.Table.Now().Add(60e9)}
	if rev, why, err := h.store.Issue(t.Context(), []grants.Grant{held}); err != nil || why != grants.None || h.cfg.Table.Wait(t.Context(), rev) != nil {
		t.Fatal(why, err)
	}
	if got := ids(h.must("GET /v1/grants", h.as("asker"), ""), "grants", "grant_id"); !slices.Equal(got, []string{held.ID}) {
		t.Errorf("%v", got)
	}
	// A task that is neither one's own nor names one is not looked into.
	if got := ids(h.must("GET /v1/grants?task="+two, h.as("asker"), ""), "grants", "grant_id"); len(got) != 0 {
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
	h.refuse("GET /v1/tasks", me, "", 503, grants.Undecided) // whether there are others' or not
	h.refuse("GET /v1/grants", me, "", 503, grants.Undecided)
	h.rule(func(grants.Input) grants.Decision { return grants.Decision{Allow: true, Reason: grants.PolicyError} }, nil)
	if m := h.must("GET /v1/tasks", h.as("op", "ops"), ""); len(m["tasks"].([]any)) != 0 {
		t.Errorf("%v", m)
	}
}

// TestListsAreBounded, in what they hold; and whether there are more is a matter
// of what may be seen.
func TestListsAreBounded(t *testing.T) {
	h := newHouse(t)
	owner := h.as("owner")
	for range maxListed + 5 {
		h.must("POST /v1/tasks", owner, `{"kind":"k"}`)
	}
	h.many(maxListed+5, "pay/send")
	for _, tc := range []struct {
		list, name, who string
		n               int
		more            bool
		asked           int // questions to policy, at most
	}{
		{"GET /v1/tasks?kind=k", "tasks", owner, maxListed, true, 0},
		{"GET /v1/tasks?owner=corp/owner", "tasks", h.as("op", "ops"), maxListed, true, 1 + maxListed + 5},
		{"GET /v1/tasks", "tasks", h.as("stranger"), 0, false, 1},
		{"GET /v1/grants", "grants", h.as("bot"), maxListed, true, 0},
		{"GET /v1/grants?agent=corp/bot", "grants", h.as("op", "ops"), maxListed, true, 4 + maxListed + 5},
		{"GET /v1/grants?agent=corp/bot", "grants", h.as("stranger"), 0, false, 4},
		{"GET /v1/grants?tool=pay/send", "grants", h.as("stranger"), 0, false, 1},
	} {
		h.questions()
		m := h.must(tc.list, tc.who, "")
		if n, asked := len(m[tc.name].([]any)), len(h.questions()); n != tc.n || m["more"] != tc.more || asked > tc.asked {
			t.Errorf("%s: %d, more %v, %d questions; want %+v", tc.list, n, m["more"], asked, tc)
		}
	}

	m := h.must("GET /v1/tasks?owner=corp/owner", owner, "")
	for _, id := range ids(m, "tasks", "task")[:5] {
		h.must("POST /v1/tasks/"+id+"/end", owner, "")
	}
	for _, who := range []string{owner, h.as("op", "ops")} {
		if m := h.must("GET /v1/tasks?owner=corp/owner", who, ""); len(m["tasks"].([]any)) != maxListed || m["more"] != false {
			t.Errorf("%d tasks, more %v", len(m["tasks"].([]any)), m["more"])
		}
	}

	// Exactly as many as fit are all: what is denied one by one counts for nothing.
	seen := 0
	h.rule(func(in grants.Input) grants.Decision {
		d := houseRules(in)
		if d.Allow && in.Grant != nil && in.Grant.ID != grants.GrantPrefix {
			if seen++; seen > maxListed { // the last five
				return grants.Decision{Reason: grants.Policy}
			}
		}
		return d
	}, nil)
	if m := h.must("GET /v1/grants?agent=corp/bot", h.as("op", "ops"), ""); len(m["grants"].([]any)) != maxListed || m["more"] != false || seen != maxListed+5 {
		t.Errorf("%d, more %v, %d asked", len(m["grants"].([]any)), m["more"], seen)
	}
	seen = 5 // and those that may be seen are found behind others
	if m := h.must("GET /v1/grants?agent=corp/bot", h.as("op", "ops"), ""); len(m["grants"].([]any)) != maxListed-5 || m["more"] != false {
		t.Errorf("%d, more %v", len(m["grants"].([]any)), m["more"])
	}
}

// TestListsTellNothing (B08): what a caller may not see shows neither in a list
// nor in how much policy is asked for it.
func TestListsTellNothing(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot", "corp/idle")
	lists := map[string]string{ // with what there is -> with what there is not
		"GET /v1/grants?task=" + task:                      "GET /v1/grants?task=" + grants.NewID(grants.TaskPrefix),
		"GET /v1/grants?tool=pay/send&task=" + task:        "GET /v1/grants?tool=pay/send&task=" + grants.NewID(grants.TaskPrefix),
		"GET /v1/grants?agent=corp/bot":                    "GET /v1/grants?agent=corp/none",
		"GET /v1/grants?agent=corp/bot&tool=pay/send":      "GET /v1/grants?agent=corp/none&tool=pay/send",
		"GET /v1/grants?tool=pay/send":                     "GET /v1/grants?tool=rep/export",
		"GET /v1/grants?agent=corp/bot&task=" + task:       "GET /v1/grants?agent=corp/none&task=" + task,
		"GET /v1/tasks?owner=corp/boss":                    "GET /v1/tasks?owner=corp/none",
		"GET /v1/tasks?agent=corp/bot":                     "GET /v1/tasks?agent=corp/none",
		"GET /v1/tasks?kind=k":                             "GET /v1/tasks?kind=none",
		"GET /v1/tasks?kind=k&owner=corp/boss":             "GET /v1/tasks?kind=k&owner=corp/none",
		"GET /v1/grants?task=" + task + "&tool=rep/export": "GET /v1/grants?task=" + task + "&tool=pay/purge",
	}
	answer := func(what, who string) (members, int) {
		h.questions()
		m := h.must(what, who, "")
		return m, len(h.questions())
	}
	empty := map[string]int{}
	for what := range lists {
		_, empty[what] = answer(what, h.as("stranger"))
	}
	for range 100 {
		h.buy(h.issuedTo(nil), task, "pay/send", "") // a token each: none is reused
	}
	h.many(400, "pay/send")
	for what, without := range lists {
		there, asked := answer(what, h.as("stranger"))
		none, asked2 := answer(without, h.as("stranger"))
		if diff := cmp.Diff(there, none); diff != "" || asked != asked2 || asked != empty[what] {
			t.Errorf("%s: %d questions to policy, %d for what is not there, %d before it was: %s", what, asked, asked2, empty[what], diff)
		}
	}
	// An agent of the task knows that it is there, and no more.
	before := 0
	for i, tool := range []string{"pay/send", "rep/export"} {
		if i == 1 {
			h.buy(h.as("bot"), task, tool, "")
		}
		m, asked := answer("GET /v1/grants?task="+task, h.as("idle"))
		if len(m["grants"].([]any)) != 0 || m["more"] != false || i == 1 && asked != before {
			t.Errorf("%v, %d questions, %d before", m, asked, before)
		}
		before = asked
	}
}

// TestFiltersAreAsked: what a list is narrowed to is in the question to policy,
// and who may see no more than that sees it.
func TestFiltersAreAsked(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot", "corp/mate")
	other := h.must("POST /v1/tasks", h.as("mate"), `{"kind":"own"}`)["task"].(string)
	h.buy(h.as("bot"), task, "pay/send", "")
	mates := h.buy(h.as("mate"), task, "pay/send", "").GrantID
	h.rule(func(in grants.Input) grants.Decision {
		switch in.Action {
		case grants.ActionRevoke:
			return grants.Decision{Allow: in.Grant.Agent.ID() == "corp/mate"}
		case grants.ActionEndTask:
			return grants.Decision{Allow: in.Task.Kind == "own" || in.Task.Owner.ID() == "corp/boss" || in.Task.HasAgent("corp/bot")}
		}
		return grants.Decision{}
	}, nil)
	for _, tc := range []struct{ list, name, id, want string }{
		{"GET /v1/grants", "grants", "grant_id", ""}, {"GET /v1/grants?agent=corp/mate", "grants", "grant_id", mates}, {"GET /v1/grants?agent=corp/bot", "grants", "grant_id", ""},
		{"GET /v1/tasks", "tasks", "task", ""}, {"GET /v1/tasks?kind=own", "tasks", "task", other}, {"GET /v1/tasks?kind=k", "tasks", "task", ""},
		{"GET /v1/tasks?owner=corp/boss", "tasks", "task", task}, {"GET /v1/tasks?agent=corp/bot", "tasks", "task", task}, {"GET /v1/tasks?owner=corp/mate", "tasks", "task", ""},
	} {
		if got := ids(h.must(tc.list, h.as("lead"), ""), tc.name, tc.id); strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %v, want %q", tc.list, got, tc.want)
		}
	}
}

// TestWhoMayRevokeATool sees its grants, and no others, however it asks.
func TestWhoMayRevokeATool(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	sends, shows := h.buy(h.as("bot"), task, "pay/send", "").GrantID, h.buy(h.as("bot"), task, "pay/show", "").GrantID
	h.rule(func(in grants.Input) grants.Decision {
		return grants.Decision{Allow: in.Action == grants.ActionRevoke && in.Tool == "pay/send"}
	}, nil)
	for _, query := range []string{"", "?tool=pay/send", "?task=" + task, "?agent=corp/bot", "?tool=pay/send&task=" + task} {
		if got := ids(h.must("GET /v1/grants"+query, h.as("keeper"), ""), "grants", "grant_id"); !slices.Equal(got, []string{sends}) {
			t.Errorf("%s: %v, and pay/show's is %s", query, got, shows)
		}
	}
	// Those that it may not revoke are not asked about.
	h.many(50, "pay/show")
	h.questions()
	h.must("GET /v1/grants", h.as("keeper"), "")
	if n := len(h.questions()); n != 4+1 {
		t.Errorf("%d questions for four tools and one grant", n)
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
