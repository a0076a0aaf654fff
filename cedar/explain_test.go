package cedar

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
)

func explain(t *testing.T, s *Set, in grants.Input) Explanation {
	t.Helper()
	e, err := s.Explain(in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decide(t, s, in), e.Decision); diff != "" {
		t.Errorf("the decision: %s", diff)
	}
	return e
}

func TestExplain(t *testing.T) {
	s := policies(t, `@id("start") permit (principal in T::AgentGroup::"orchestrators", action == T::Action::"start_task", resource) when { context.task.ttl <= 600 };
@id("ops, at night") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource in T::ToolServer::"github")
  when { context.ttl <= 60 && context.depth == 0 } unless { context has max_calls && context.max_calls > 3 || context.bound };
@id("ci") permit (principal, action == T::Action::"grant", resource == T::Tool::"github/merge_pr") when { context.ttl <= 60 };
@id("squash-only") forbid (principal, action == T::Action::"call:github/merge_pr", resource) when { context has input && context.input.body has method && context.input.body.method != "squash" };
@id("inside") permit (principal, action in T::Action::"call", resource) when { context has grant && context.grant.ttl > 0 };
@id("adds") permit (principal, action == T::Action::"call:bank/pay", resource) when { context has input && context.input.body has x && context.input.body.x + 9223372036854775807 > 2 };`)
	merge := func(method string) grants.Input {
		return call("github/merge_pr", testGrant("github/merge_pr"), parse(t, `{"body": {"number": 7, "method": "`+method+`"}}`))
	}
	for _, tt := range []struct {
		name string
		in   grants.Input
		want string
	}{
		{"nearest permits first", grantTool("github/merge_pr"), `deny (policy): Toolgrant::Agent::"corp/bot" asks for Toolgrant::Action::"grant" on Toolgrant::Tool::"github/merge_pr"

permit "ops, at night" (p.cedar:2:1): does not hold
  false      principal in Toolgrant::AgentGroup::"ops"
  false      context.ttl <= 60 [context.ttl is 600]
  true       context.depth == 0 [context.depth is 0]
  true       not (context has max_calls && context.max_calls > 3) [context.max_calls is not there]
  true       not (context.bound) [context.bound is false]

permit "ci" (p.cedar:4:1): does not hold
  true       principal
  false      context.ttl <= 60 [context.ttl is 600]

what would have to differ:
- permit "ci" (p.cedar:4:1) would permit it, but for: context.ttl <= 60 [context.ttl is 600]
- permit "ops, at night" (p.cedar:2:1) would permit it, but for: principal in Toolgrant::AgentGroup::"ops"; context.ttl <= 60 [context.ttl is 600]
`},
		{"a forbid", merge("rebase"), `deny (policy): Toolgrant::Agent::"corp/bot" asks for Toolgrant::Action::"call:github/merge_pr" on Toolgrant::Tool::"github/merge_pr"
by squash-only

forbid "squash-only" (p.cedar:5:1): holds
  true       principal
  true       context has input [context.input is a record]
  true       context.input.body has method [context.input.body.method is a String]
  true       context.input.body.method != "squash" [context.input.body.method is a String]

permit "inside" (p.cedar:6:1): holds
  true       principal
  true       context has grant [context.grant is a record]
  true       context.grant.ttl > 0 [context.grant.ttl is 540]

what would have to differ:
- forbid "squash-only" (p.cedar:5:1) holds, and one of these would have to be false: context has input [context.input is a record]; context.input.body has method [context.input.body.method is a String]; context.input.body.method != "squash" [context.input.body.method is a String]
`},
		{"allowed", merge("squash"), `allow: Toolgrant::Agent::"corp/bot" asks for Toolgrant::Action::"call:github/merge_pr" on Toolgrant::Tool::"github/merge_pr"
by inside

forbid "squash-only" (p.cedar:5:1): does not hold
  true       principal
  true       context has input [context.input is a record]
  true       context.input.body has method [context.input.body.method is a String]
  false      context.input.body.method != "squash" [context.input.body.method is a String]

permit "inside" (p.cedar:6:1): holds
  true       principal
  true       context has grant [context.grant is a record]
  true       context.grant.ttl > 0 [context.grant.ttl is 540]
`},
		{"it errs", call("bank/pay", nil, parse(t, `{"body": {"amount": 1, "to": "x", "x": 7}}`)), `deny (policy_error): Toolgrant::Agent::"corp/bot" asks for Toolgrant::Action::"call:bank/pay" on Toolgrant::Tool::"bank/pay"
by adds

permit "inside" (p.cedar:6:1): does not hold
  true       principal
  false      context has grant [context.grant is not there]
  unreached  context.grant.ttl > 0 [context.grant.ttl is not there]

permit "adds" (p.cedar:7:1): errs
  true       principal
  true       context has input [context.input is a record]
  true       context.input.body has x [context.input.body.x is a Long]
  error      context.input.body.x + 9223372036854775807 > 2 [context.input.body.x is a Long]
             it cannot be evaluated with these values

what would have to differ:
- permit "adds" (p.cedar:7:1) errs, and what it would say is not known: context.input.body.x + 9223372036854775807 > 2 [context.input.body.x is a Long]: it cannot be evaluated with these values
`},
		{"nothing is about it", func() grants.Input { in := grantTool("bank/pay"); in.Action = grants.ActionRevoke; return in }(), `deny (policy): Toolgrant::Agent::"corp/bot" asks for Toolgrant::Action::"revoke" on Toolgrant::Tool::"bank/pay"

what would have to differ:
- no permit is about this action on this resource: one would have to be written
`},
		{"unknown tool", call("bank/nosuch", nil, nil), `deny (unknown_tool): corp/bot asks for call:bank/nosuch on bank/nosuch

what would have to differ:
- no policy was looked at: the catalogue has no such tool or MCP server
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, explain(t, s, tt.in).String()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("with values", func(t *testing.T) {
		e := explain(t, s, merge("rebase"))
		shown := e.WithValues()
		if text := shown.String(); strings.Count(text, `context.input.body.method is "rebase"`) != 4 || !strings.Contains(shown.Differ[0], `"rebase"`) {
			t.Errorf("%s", text)
		}
		if strings.Contains(fmt.Sprint(e), "rebase") {
			t.Error("it changes what it was called on")
		}
	})
	t.Run("no question", func(t *testing.T) {
		if _, err := s.Explain(grants.Input{Action: "dance"}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("what the manifest does not cover", func(t *testing.T) {
		in := grantTool("bank/pay")
		in.Task = billTask(bill)
		e := explain(t, bounded(t, permitAll), in)
		if e.Decision.Reason != grants.Manifest || len(e.Policies) != 0 || len(e.Differ) != 1 {
			t.Errorf("%s", e)
		}
	})
	t.Run("as a document", func(t *testing.T) {
		for _, in := range []grants.Input{merge("rebase"), merge("squash"), grantTool("github/merge_pr")} {
			var q question
			if why := s.ask(&in, &q); why != grants.None {
				t.Fatal(why)
			}
			doc, err := q.document()
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.ExplainExample(doc)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(explain(t, s, in).String(), got.String()); diff != "" {
				t.Error(diff)
			}
		}
		if _, err := s.ExplainExample([]byte("{}")); err == nil {
			t.Error("no error")
		}
	})
}

// A value of an argument, of what a retry brings, or of a parameter is nowhere in
// an explanation that was not asked for it; and it is where it was.
func TestExplainKeepsValues(t *testing.T) {
	s := mcpPolicies(t, `@id("a") permit (principal, action == T::Action::"call:forge/merge", resource)
when { context has input.method && context.input.method like "squ*" && context.input has region && context.input.region == "x" && context has retry && context.retry.responses == "x" && context.input has kind && [context.input.kind].contains("x") };`)
	in := callMCP("forge/merge", nil, parse(t, `{"number": 7, "method": "squash", "region": "canary", "kind": "canary"}`))
	in.Revision, in.Retry = "2026-07-28", &grants.Retry{Responses: `{"a":"canary"}`}
	e := explain(t, s, in)
	if text := e.String(); strings.Contains(text, "canary") || strings.Contains(text, `"squash"`) {
		t.Errorf("%s", text)
	}
	if text := e.WithValues().String(); strings.Count(text, "canary") < 3 {
		t.Errorf("%s", text)
	}

	s = bounded(t, `@id("a") permit (principal, action in [ T::Action::"call:bank/pay", T::Action::"grant"], resource) when { context has task && context.task has params.recipient && context.task.params.recipient == "x" };
@id("b") permit (principal, action == T::Action::"call:bank/pay", resource) when { context has grant.params.recipient && context.grant.params.recipient == "x" };`)
	task := billTask(bill)
	grant := billGrant(t, s, task)
	under := call("bank/pay", grant, nil)
	under.Task = task
	for _, in := range []grants.Input{grant.Asks(task, now)[0], under} {
		e := explain(t, s, in)
		if text := e.String(); strings.Contains(text, "ACME") || !strings.Contains(text, "params.recipient is a String") {
			t.Errorf("%s", text)
		}
		if text := e.WithValues().String(); !strings.Contains(text, `params.recipient is "ACME"`) {
			t.Errorf("%s", text)
		}
	}
}

// What is said to hold is what decides, whatever the policies.
func TestExplainAgreesWithDecisions(t *testing.T) {
	w, calls := randomWorld(t)
	var allowed, forbidden, erred int
	rapid.Check(t, func(t *rapid.T) {
		text := randomPolicies(t)
		parsed, err := parsePolicies([]file{{"p.cedar", []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		s := newSet(parsed, w)
		for _, in := range calls {
			d := s.decide(&in)
			e, err := s.Explain(in)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, x := range e.Policies {
				switch {
				case d.Reason == grants.PolicyError && x.Holds == Errs,
					d.Reason != grants.PolicyError && x.Holds == True && x.Forbid != d.Allow:
					ids = append(ids, x.ID)
				}
			}
			slices.Sort(ids)
			if diff := cmp.Diff(d.Policies, ids); diff != "" {
				t.Fatalf("%v, and explained by %s\n%s", d, diff, text)
			}
			if (len(e.Differ) > 0) == d.Allow {
				t.Fatalf("%v, and would have to differ: %q", d, e.Differ)
			}
			switch {
			case d.Allow:
				allowed++
			case d.Reason == grants.PolicyError:
				erred++
			case len(ids) > 0:
				forbidden++
			}
		}
	})
	if allowed == 0 || forbidden == 0 || erred == 0 {
		t.Errorf("%d allowed, %d forbidden, %d erred: too little is tried", allowed, forbidden, erred)
	}
}
