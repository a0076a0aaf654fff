package cedar

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// Every question has exactly the type that policies were validated for.
func TestQuestions(t *testing.T) {
	s := example(t)
	full := with(grantTool("bank/pay"), func(in *grants.Input) {
		in.Grant.CNF = grants.Digest{1}
		in.Grant.Actors = []string{"corp/a", "corp/b"}
		in.Grant.Constraints = []json.RawMessage{json.RawMessage(`{}`)}
		in.Grant.Budgets = []grants.Budget{{Key: "a", Arg: "/body/amount", Limit: 1}, {Key: "b", Limit: 7}, {Key: "c", Limit: 3}, {Key: "d", Limit: 5}}
		in.Grant.Expires = in.Grant.NotBefore.Add(90*time.Second + 1)
	})
	inside := with(call("bank/pay", full.Grant, parse(t, `{"body": {"amount": 1.5, "to": "a", "tags": ["x"]}}`)), func(in *grants.Input) {
		in.At = in.Grant.NotBefore.Add(10*time.Second + 1)
	})
	const requester = `"requester":Toolgrant::Agent::"corp/lead"`
	const task = `"task":{"id":"t_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead"`
	for name, tt := range map[string]struct {
		in   grants.Input
		want string // action, resource, context
	}{
		"start": {startTask("release"), `start_task TaskKind::"release" {` + requester + `, ` + task + `, "ttl":3600}}`},
		"start, part of a second": {with(startTask("x"), func(in *grants.Input) { in.Task.Kind, in.At = "release", now.Add(-1) }),
			`start_task TaskKind::"release" {` + requester + `, ` + task + `, "ttl":3601}}`},
		"end, late": {with(startTask("release"), func(in *grants.Input) { in.Action, in.At = grants.ActionEndTask, now.Add(2*time.Hour) }),
			`end_task TaskKind::"release" {` + requester + `, ` + task + `, "ttl":-3600}}`},
		"grant":       {grantTool("bank/pay"), `grant Tool::"bank/pay" {"bound":false, "constrained":false, "depth":0, "once":false, ` + requester + `, "sums":[], ` + task + `}, "ttl":600}`},
		"grant, full": {full, `grant Tool::"bank/pay" {"bound":true, "constrained":true, "depth":2, "max_calls":3, "once":false, ` + requester + `, "sums":["/body/amount"], ` + task + `}, "ttl":91}`},
		"ask for":     {askFor("bank/pay"), `ask_for Tool::"bank/pay" {"agent":Toolgrant::Agent::"corp/bot", "bound":false, "constrained":false, "depth":0, "once":false, ` + requester + `, "sums":[], ` + task + `}, "ttl":600}`},
		"revoke": {with(full, func(in *grants.Input) { in.Action = grants.ActionRevoke }),
			`revoke Tool::"bank/pay" {"bound":true, "constrained":true, "depth":2, "max_calls":3, "once":false, ` + requester + `, "sums":["/body/amount"], ` + task + `}, "ttl":91}`},
		"baseline": {call("reports/health", nil, parse(t, `{}`)), `call:reports/health Tool::"reports/health" {"input":{}, "requester":Toolgrant::Agent::"corp/bot"}`},
		"inside, input not known": {call("bank/pay", testGrant("bank/pay"), nil),
			`call:bank/pay Tool::"bank/pay" {"grant":{"age":60, "bound":false, "depth":0, "id":"g_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead", "task":"t_1", "ttl":540}, "requester":Toolgrant::Agent::"corp/bot"}`},
		"inside": {inside,
			`call:bank/pay Tool::"bank/pay" {"grant":{"age":11, "bound":true, "depth":2, "id":"g_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead", "task":"t_1", "ttl":80}, ` +
				`"input":{"body":{"amount":decimal("1.5"), "tags":["x"], "to":"a"}}, "requester":Toolgrant::Agent::"corp/bot"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var q question
			if why := s.ask(&tt.in, &q); why != grants.None {
				t.Fatal(why)
			}
			r := q.request
			got := fmt.Sprintf("%s %s %s", r.Action.ID, strings.TrimPrefix(r.Resource.String(), "Toolgrant::"), r.Context)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			checkRequest(t, s.schema, &q)
		})
	}
}

func checkRequest(t *testing.T, schema *resolved.Schema, q *question) {
	t.Helper()
	v := validate.New(schema)
	if err := v.Request(q.request); err != nil {
		t.Error(err)
	}
	for uid := range q.entities.base {
		if e, _ := q.entities.Get(uid); uid.Type != actionType {
			if err := v.Entity(e); err != nil {
				t.Errorf("%s: %v", uid, err)
			}
		}
	}
	e, ok := q.entities.Get(q.request.Principal)
	if !ok {
		t.Fatal("no entity for the principal")
	}
	if err := v.Entity(e); err != nil {
		t.Error(err)
	}
}

// Who an agent is comes from its identity, and from entities.json beside it.
func TestAgents(t *testing.T) {
	load := func(condition string) *Set {
		t.Helper()
		entities := `[
			{"uid": {"type": "Toolgrant::AgentGroup", "id": "top"}},
			{"uid": {"type": "Toolgrant::AgentGroup", "id": "ci"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "top"}]},
			{"uid": {"type": "Toolgrant::Agent", "id": "corp/declared"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "ci"}]}
		]`
		text := long(`@id("p") permit (principal, action == T::Action::"grant", resource) when { ` + condition + ` };`)
		s, err := Load(config(t, "p.cedar", text, "entities.json", entities))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	agent := func(subject string, groups ...string) grants.Principal {
		return grants.Principal{Issuer: "corp", Subject: subject, Groups: groups, Tags: map[string]string{"team": "a"}}
	}
	ask := func(principal, requester, owner grants.Principal) grants.Input {
		return with(grantTool("bank/pay"), func(in *grants.Input) {
			in.Principal, in.Grant.Agent, in.Requester, in.Task.Owner = principal, principal, requester, owner
		})
	}
	nobody := agent("nobody")
	for _, tt := range []struct {
		condition string
		in        grants.Input
		want      bool
	}{
		{`principal in T::AgentGroup::"ci"`, ask(agent("a", "ci"), nobody, nobody), true},
		{`principal in T::AgentGroup::"top"`, ask(agent("a", "ci"), nobody, nobody), true},
		{`principal in T::AgentGroup::"ci"`, ask(agent("a", "top"), nobody, nobody), false},
		{`principal in T::AgentGroup::"ci"`, ask(agent("a", "other/ci"), nobody, nobody), false},
		{`principal in T::AgentGroup::"top"`, ask(agent("declared"), nobody, nobody), true},
		{`principal in T::AgentGroup::"ops"`, ask(agent("declared", "ops"), nobody, nobody), true},
		{`principal in T::AgentGroup::"top"`, ask(agent("declared", "ops"), nobody, nobody), true},
		{`context.requester in T::AgentGroup::"ci"`, ask(nobody, agent("a", "ci"), nobody), true},
		{`context.task.owner in T::AgentGroup::"ci"`, ask(nobody, nobody, agent("a", "ci")), true},
		{`context.task.owner in T::AgentGroup::"ci"`, ask(agent("b", "ci"), agent("c", "ci"), agent("a")), false},
		// One agent in several parts: as it is now.
		{`principal in T::AgentGroup::"ci"`, ask(agent("a"), nobody, agent("a", "ci")), false},
		{`principal in T::AgentGroup::"ci"`, ask(agent("a"), agent("a", "ci"), agent("a", "ci")), false},
		{`context.task.owner in T::AgentGroup::"ci"`, ask(agent("a", "ci"), nobody, agent("a")), true},
		{`context.requester == principal`, ask(agent("a"), agent("a"), nobody), true},
		{`context.requester == principal`, ask(agent("a"), agent("b"), nobody), false},
		{`T::Agent::"corp/declared" in T::AgentGroup::"top"`, ask(nobody, nobody, nobody), true},
		{`T::Agent::"corp/declared".subject == "declared"`, ask(nobody, nobody, nobody), true},
		{`principal.issuer == "corp" && principal.subject == "a/b"`, ask(agent("a/b"), nobody, nobody), true},
		{`principal == T::Agent::"corp/a/b"`, ask(agent("a/b"), nobody, nobody), true},
		{`principal.hasTag("team") && principal.getTag("team") == "a"`, ask(nobody, nobody, nobody), true},
		{`principal.hasTag("role")`, ask(nobody, nobody, nobody), false},
		{`resource in T::ToolServer::"bank" && resource in T::ToolSet::"write"`, ask(nobody, nobody, nobody), true},
		{`resource in T::ToolSet::"read"`, ask(nobody, nobody, nobody), false},
	} {
		t.Run(tt.condition, func(t *testing.T) {
			if got := decide(t, load(tt.condition), tt.in); got.Allow != tt.want || got.Reason == grants.PolicyError {
				t.Errorf("%+v", got)
			}
		})
	}
}
