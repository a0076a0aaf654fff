package broker

import (
	"context"
	"encoding/json"
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

// noIssue is a Store that does not issue.
type noIssue struct {
	grants.Store
	why func() (grants.Reason, error)
}

func (s noIssue) Issue(ctx context.Context, gs []grants.Grant) (grants.Rev, grants.Reason, error) {
	if why, err := s.why(); why != grants.None || err != nil {
		return grants.Rev{}, why, err
	}
	return s.Store.Issue(ctx, gs)
}

// started is what a start with grants was answered.
type started struct {
	Task    grants.ID
	State   string
	Tokens  []tokenAnswer
	Refused []refusedTool
}

func (b *bank) startAll(bearer, more string) (started, members) {
	b.t.Helper()
	w := b.shell.ask("POST /v1/tasks", bearer, `{"kind":"pay-bill","grant":true,"params":`+billParams+more+`}`)
	var s started
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != 201 {
		b.t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	_, m := read(b.t, w)
	return s, m
}

// tools are those that the tokens are for.
func (s started) tools() (out []string) {
	for _, t := range s.Tokens {
		for _, d := range t.Details {
			out = append(out, d.Tool)
		}
	}
	return out
}

// TestStartWithGrants: one call, what policy permits is granted, what it refuses
// is told of and on record.
func TestStartWithGrants(t *testing.T) {
	b := newBank(t, payBill)
	b.rule(func(in grants.Input) grants.Decision {
		d := houseRules(in)
		if in.Action == grants.ActionGrant && in.Tool == "pay/purge" {
			d.Advice = "ask the operator"
		}
		return d
	}, nil)
	b.questions()
	b.recorded()
	b.stories = nil
	s, m := b.startAll(b.as("bot"), "")
	if d := cmp.Diff([]string{"pay/send", "pay/show", "rep/export"}, s.tools()); d != "" {
		t.Error(d)
	}
	var refused []string
	for _, r := range s.Refused {
		refused = append(refused, r.Tool+" "+r.Reason.String()+" "+r.Advice)
		if len(r.Help) < 10 || !grants.ValidID(r.DecisionID, grants.DecisionPrefix) {
			t.Errorf("%+v", r)
		}
	}
	if d := cmp.Diff([]string{"pay/purge policy ask the operator", "bank/wire bad_request "}, refused); d != "" {
		t.Error(d)
	}
	if s.State != "open" || m["params"].(members)["recipient"] != "supplier-7" {
		t.Errorf("%v", m)
	}
	for _, tok := range s.Tokens {
		if c := b.open(tok.AccessToken, tok.Resource); c.Task.ID != s.Task || c.Subject != "corp/bot" || len(c.Details) != len(tok.Details) {
			t.Errorf("%+v", c)
		}
		for _, d := range tok.Details {
			g := b.live(d.GrantID)
			if d.Tool == "pay/send" && (string(g.Constraints[0]) != pinned || d.MaxCalls != 3 || d.MaxSum["/body/amount"] != "100.5" || d.TTL > 120) {
				t.Errorf("%+v", d)
			}
		}
	}
	// One decision for all: start_task, then a grant of each tool that is granted
	// without an input.
	in := b.questions()
	if len(in) != 5 || in[0].Action != grants.ActionStartTask || in[0].Task.Params == nil || in[1].Tool != "pay/send" || in[1].Grant.Constraints == nil {
		t.Errorf("%+v", in)
	}
	// One write: start_task, and each tool of the manifest.
	if len(b.stories) != 1 {
		t.Fatalf("%d writes", len(b.stories))
	}
	var on []string
	for _, r := range b.stories[0] {
		on = append(on, fmt.Sprint(r.Kind, " ", r.Tool, " ", r.Outcome, " ", r.Reason, " ", r.Policies, " ", r.Status))
		if r.Task != s.Task || r.ID != s.Refused[0].DecisionID || r.Requester != "corp/bot" || (r.Grant != "") != (r.Tool != "" && r.Outcome == audit.Allow) {
			t.Errorf("%+v", r)
		}
	}
	if d := cmp.Diff([]string{
		"start_task  allow none [may-start_task] 201",
		"grant pay/send allow none [may-grant] 201", "grant pay/show allow none [may-grant] 201",
		"grant pay/purge deny policy [no-grant] 201", "grant rep/export allow none [may-grant] 201", "grant bank/wire deny bad_request [] 201",
	}, on); d != "" {
		t.Error(d)
	}

	// For another agent, of whose groups nothing is known: policy is asked of both.
	s, _ = b.startAll(b.boss(), `,"agents":["corp/bot"]`)
	for _, id := range s.Tokens[0].Details {
		if g := b.live(id.GrantID); g.Agent.ID() != "corp/bot" || g.Agent.Groups != nil || g.Requester.ID() != "corp/boss" {
			t.Errorf("%+v", g)
		}
	}
	if help := s.Refused[0].Help; s.Refused[0].Tool != "pay/purge" || !strings.Contains(help, "only the groups of entities.json") {
		t.Errorf("%+v", s.Refused)
	}
	// Who may start and may not ask for the agent: nothing is granted, and that is
	// an answer.
	s, m = b.startAll(b.as("lead"), `,"agents":["corp/bot"]`)
	if list, ok := m["tokens"].([]any); !ok || len(list) != 0 || len(s.Refused) != 5 || s.Refused[0].Reason != grants.Policy {
		t.Errorf("%v", m)
	}
	b.must("GET /v1/tasks/"+s.Task, b.as("lead"), "")
	// A policy that errs refuses its tool alone; and nothing is said where no
	// grants are asked for.
	b.rule(func(in grants.Input) grants.Decision {
		if in.Tool == "pay/show" {
			return grants.Decision{Reason: grants.PolicyError}
		}
		return houseRules(in)
	}, nil)
	s, _ = b.startAll(b.as("bot"), "")
	if !slices.ContainsFunc(s.Refused, func(r refusedTool) bool { return r.Tool == "pay/show" && r.Reason == grants.PolicyError }) || len(s.tools()) != 2 {
		t.Errorf("%+v", s)
	}
	m = b.must("POST /v1/tasks", b.as("bot"), `{"kind":"pay-bill","params":`+billParams+`}`)
	for _, name := range []string{"tokens", "refused"} {
		if _, there := m[name]; there {
			t.Errorf("%v", m)
		}
	}
}

// TestStartRefused: where the task may not be started, nothing is said of tools.
func TestStartRefused(t *testing.T) {
	b := newBank(t, payBill)
	b.rule(func(in grants.Input) grants.Decision {
		if in.Action == grants.ActionStartTask {
			return grants.Decision{Reason: grants.Policy, Policies: []string{"no-start"}, Advice: "on Mondays"}
		}
		return houseRules(in)
	}, nil)
	b.recorded()
	status, m := b.json("POST /v1/tasks", b.as("bot"), `{"kind":"pay-bill","grant":true,"params":`+billParams+`}`)
	if status != 403 || m["reason"] != "policy" || m["advice"] != "on Mondays" || m["refused"] != nil {
		t.Errorf("%d %v", status, m)
	}
	if r := b.one(); r.Kind != grants.ActionStartTask || r.Outcome != audit.Deny || !slices.Equal(r.Policies, []string{"no-start"}) {
		t.Errorf("%+v", r)
	}
	if c := b.cfg.Table.Counts(); c.Tasks != 0 || c.Grants != 0 {
		t.Errorf("%+v", c)
	}
}

// TestStartThatFails: a fault in the middle leaves no open task and no grant, and
// no allow on record.
func TestStartThatFails(t *testing.T) {
	for name, tc := range map[string]struct {
		why    grants.Reason
		err    error
		record error
		want   grants.Reason
		status int
	}{
		"the store does not answer": {err: errors.New("down"), want: grants.Undecided, status: 503},
		"too many grants":           {why: grants.Limit, want: grants.Limit, status: 429},
		"fenced meanwhile":          {why: grants.Revoked, want: grants.Revoked, status: 403},
		"nothing can be recorded":   {record: errors.New("full"), want: grants.CannotRecord, status: 503},
		"nothing is wrong":          {status: 201},
	} {
		var task grants.ID
		b := newBank(t, payBill, func(c *Config) {
			c.Store = noIssue{c.Store, func() (grants.Reason, error) { return tc.why, tc.err }}
			record := c.Record
			c.Record = func(rs []audit.Record) error { return errors.Join(tc.record, record(rs)) }
		})
		status, m := b.json("POST /v1/tasks", b.as("bot"), `{"kind":"pay-bill","grant":true,"beat":5,"params":`+billParams+`}`)
		if status != tc.status || tc.status != 201 && m["reason"] != tc.want.String() {
			t.Errorf("%s: %d %v", name, status, m)
			continue
		}
		rs := b.recorded()
		if task = rs[0].Task; !grants.ValidID(task, grants.TaskPrefix) || len(rs) != 6 {
			t.Fatalf("%s: %+v", name, rs)
		}
		_, why := b.cfg.Table.Task(task)
		alive, _ := b.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 9)
		b.pulses.mu.Lock()
		beats := len(b.pulses.of)
		b.pulses.mu.Unlock()
		if tc.status == 201 {
			if why != grants.None || len(alive) != 3 || beats != 1 {
				t.Errorf("%s: %v, %d grants, %d beats", name, why, len(alive), beats)
			}
			continue
		}
		if why != grants.TaskEnded || len(alive) != 0 || beats != 0 {
			t.Errorf("%s: the task: %v, with %d grants, %d beats", name, why, len(alive), beats)
		}
		for _, r := range rs {
			if tc.record == nil && (r.Outcome != audit.Deny || r.Reason == grants.None) {
				t.Errorf("%s: on record: %+v", name, r)
			}
		}
	}
}

// TestB03StartOfAClientsToken: what buys nothing at POST /v1/grants starts no task
// with grants.
func TestB03StartOfAClientsToken(t *testing.T) {
	clients, _ := newClients(t)
	b := newBank(t, payBill, func(c *Config) { c.Clients = clients })
	bearer := b.issuedTo(members{"azp": "ci"})
	body := `{"kind":"pay-bill","params":` + billParams
	b.refuse("POST /v1/tasks", bearer, body+`,"grant":true}`, 401, grants.CredentialKind)
	b.must("POST /v1/tasks", bearer, body+`}`)
}

// TestParametersCostTheirRate: a list of 40 tasks with 7 KB of parameters each is
// as dear as three requests.
func TestParametersCostTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t, payBill)
		note := strings.Repeat("x", 7000)
		for range 40 {
			b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","params":{"recipient":"x","limit":1,"note":"`+note+`"}}`)
		}
		b.limits = newLimits(8) // a burst of 16
		heard := 0
		for status := 200; status == 200; heard++ {
			status, _ = b.json("GET /v1/tasks", b.boss(), "")
		}
		if heard != 6 { // and the sixth is refused
			t.Errorf("refused is the list number %d", heard)
		}
	})
}

// TestManifestAnswersAreAsDescribed: the tour, where there are manifests.
func TestManifestAnswersAreAsDescribed(t *testing.T) {
	b := newBank(t, payBill)
	b.rule(func(in grants.Input) grants.Decision {
		d := houseRules(in)
		d.Advice = "ask the operator"
		return d
	}, nil)
	tr := &tour{shell: b.shell, doc: readDocument(t, true), visited: map[string]bool{}}
	bot := b.as("bot")
	task := field(t, tr.call(201, "POST /v1/tasks", bot, `{"kind":"pay-bill","grant":true,"params":`+billParams+`}`), 201, "task")
	tr.call(201, "POST /v1/tasks", b.as("lead"), `{"kind":"pay-bill","agents":["corp/bot"],"grant":true,"params":`+billParams+`}`)
	tr.call(201, "POST /v1/tasks", bot, `{"kind":"pay-bill","params":`+billParams+`}`)
	tr.call(200, "POST /v1/grants", bot, `{"task":"`+task+`","grants":[{"tool":"bank/wire","input":`+wired+`}]}`)
	details := `[{"type":"urn:toolgrant:grant:1","tool":"bank/wire","task":"` + task + `","input":` + wired + `}]`
	tr.call(200, "POST /oauth2/token", "", b.form(bot, "resource", "", "scope", "", "authorization_details", details))
	tr.call(200, "GET /v1/tasks/{id}", bot, "", task)
	tr.call(200, "GET /v1/tasks", bot, "")
	tr.call(200, "GET /v1/grants", bot, "")
	w := tr.call(403, "POST /v1/grants", bot, `{"task":"`+task+`","grants":[{"tool":"pay/purge"}]}`)
	if field(t, w, 403, "advice") == "" {
		t.Error("no advice")
	}
	w = tr.call(400, "POST /oauth2/token", "", b.form(bot, "task", task, "scope", "pay/purge"))
	if field(t, w, 400, "advice") == "" {
		t.Error("no advice")
	}
}
