package cedar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// sameMembers holds that a value has all members that its type has, the
// optional ones too, and no other.
func sameMembers(t *testing.T, at string, v cedargo.Value, want resolved.IsType) {
	t.Helper()
	rec, ok := v.(cedargo.Record)
	if !ok {
		return
	}
	for name, a := range want.(resolved.RecordType) {
		if member, there := rec.Get(name); there {
			sameMembers(t, at+"."+string(name), member, a.Type)
		} else {
			t.Errorf("%s.%s is not there", at, name)
		}
	}
	if rec.Len() != len(want.(resolved.RecordType)) {
		t.Errorf("%s has other members: %s", at, rec)
	}
}

// Each example is accepted as it is, and shows all that policy can see.
func TestExampleInput(t *testing.T) {
	c := testCatalog(t)
	s := policies(t, permitAll)
	try := func(action, tool string) {
		t.Run(action+" "+tool, func(t *testing.T) {
			doc, err := s.ExampleInput(action, tool)
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.DecideExample(doc)
			if err != nil {
				t.Fatalf("%v\n%s", err, doc)
			}
			want(t, d, "allow all")
			if d.Revision != s.Revision() {
				t.Errorf("revision %v", d.Revision)
			}
			var text exampleText
			if err := json.Unmarshal(doc, &text); err != nil {
				t.Fatal(err)
			}
			q, err := s.read(&text)
			if err != nil {
				t.Fatal(err)
			}
			sameMembers(t, "context", q.request.Context, s.schema.Actions[q.request.Action].AppliesTo.Context)
			if again, err := s.ExampleInput(action, tool); err != nil || !bytes.Equal(doc, again) {
				t.Errorf("another time it is %s, %v", again, err)
			}
		})
	}
	try("start_task", "")
	try("end_task", "")
	for i := range c.Servers {
		for _, tool := range c.Servers[i].Tools {
			for _, action := range []string{"grant", "ask_for", "revoke", "call"} {
				try(action, tool.ID)
			}
		}
	}
}

// The names of an example are those of the set.
func TestExampleNames(t *testing.T) {
	const (
		rules = `@id("never") forbid (principal in T::AgentGroup::"orchestrators", action == T::Action::"start_task", resource);
@id("start") permit (principal in T::AgentGroup::"ops", action == T::Action::"start_task", resource);
@id("later") permit (principal in T::AgentGroup::"staff", action == T::Action::"start_task", resource);
@id("pay") permit (principal is T::Agent in T::AgentGroup::"staff", action == T::Action::"grant", resource == T::Tool::"bank/pay");
@id("read") permit (principal, action == T::Action::"grant", resource == T::Tool::"github/get_pr");
@id("bot") permit (principal == T::Agent::"corp/bot", action == T::Action::"ask_for", resource);
@id("export") permit (principal == T::Agent::"corp/bot", action == T::Action::"grant", resource == T::Tool::"reports/export");
`
		groups = `{"uid": {"type": "Toolgrant::AgentGroup", "id": "night"}}, {"uid": {"type": "Toolgrant::AgentGroup", "id": "staff"}}`
		kinds  = `, {"uid": {"type": "Toolgrant::TaskKind", "id": "nightly"}}, {"uid": {"type": "Toolgrant::TaskKind", "id": "adhoc"}}`
		till   = `, {"uid": {"type": "Toolgrant::AgentGroup", "id": "tills"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "staff"}]}` +
			`, {"uid": {"type": "Toolgrant::Agent", "id": "shop/till"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "tills"}]}`
	)
	for _, tt := range []struct {
		name, entities, action, tool string
		want                         []string // AGENT GROUPS, who has a part in it; KIND
	}{
		{"who may start a task", groups + kinds, "start_task", "", []string{"idp/orchestrator-1 ops", "nightly"}},
		{"an action that nobody may", groups, "end_task", "", []string{"idp/orchestrator-1 ops", "some-kind"}},
		{"who may have the grant", groups + kinds, "grant", "bank/pay", []string{"idp/agent-1 staff", "idp/orchestrator-1 ops", "nightly"}},
		{"a declared agent in the group", groups + till, "grant", "bank/pay", []string{"shop/till tills", "idp/orchestrator-1 ops", "some-kind"}},
		{"who may call", groups + till, "call", "bank/pay", []string{"shop/till tills", "idp/orchestrator-1 ops", "some-kind"}},
		{"no group is named", groups, "grant", "github/get_pr", []string{"idp/agent-1 night", "idp/orchestrator-1 ops", "some-kind"}},
		{"who may ask", groups + till, "ask_for", "bank/pay", []string{"corp/bot", "shop/till tills", "some-kind"}},
		{"who may ask for itself", groups, "ask_for", "reports/export", []string{"corp/bot", "corp/bot-2", "some-kind"}},
		{"what nobody may revoke", groups, "revoke", "bank/pay", []string{"idp/orchestrator-1 ops", "some-kind"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t, "p.cedar", long(rules), "entities.json", "["+tt.entities+"]")
			cfg.Aliases = []string{"idp", "corp", "shop"}
			s, err := Load(cfg)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := s.ExampleInput(tt.action, tt.tool)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.DecideExample(doc); err != nil {
				t.Error(err)
			}
			var text exampleText
			if err := json.Unmarshal(doc, &text); err != nil {
				t.Fatal(err)
			}
			q, err := s.read(&text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range q.entities.agents[:q.entities.n] {
				got = append(got, strings.TrimSuffix(a.who.ID()+" "+strings.Join(a.who.Groups, " "), " "))
			}
			if !strings.HasPrefix(text.Principal, `Toolgrant::Agent::"`+strings.Fields(got[0])[0]) {
				t.Errorf("the principal is %s", text.Principal)
			}
			about, _ := q.request.Context.Get("task")
			if about == nil {
				about, _ = q.request.Context.Get("grant")
			}
			kind, _ := about.(cedargo.Record).Get("kind")
			got = append(got, string(kind.(cedargo.String)))
			slices.Sort(got[1 : len(got)-1])
			slices.Sort(tt.want[1 : len(tt.want)-1])
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNoExampleInput(t *testing.T) {
	s := policies(t, permitAll)
	for _, tt := range []struct{ action, tool, want string }{
		{"grnat", "bank/pay", `no action "grnat"; did you mean "grant"?`},
		{"", "", `no action ""; there are: ask_for, call, end_task, grant, revoke, start_task`},
		{"call:bank/pay", "bank/pay", `no action "call:bank/pay"`},
		{"call", "bank/pya", `did you mean "bank/pay"?`},
		{"grant", "", `there are: bank/pay, github/get_pr`},
		{"start_task", "bank/pay", "about a kind of task"},
	} {
		if doc, err := s.ExampleInput(tt.action, tt.tool); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %s, %v", tt.action, tt.tool, doc, err)
		}
	}
}

// A question that a door asks and the same question written down get the same
// decision.
func TestDecideExampleLikeDecide(t *testing.T) {
	s := example(t)
	merge := func(args string) grants.Input {
		return call("github/merge_pr", testGrant("github/merge_pr"), parse(t, args))
	}
	declared := grants.Principal{Issuer: "corp", Subject: "builder"} // in ci by entities.json
	seen := map[string]bool{}
	for _, in := range []grants.Input{
		startTask("release"), startTask("other"),
		with(startTask("release"), func(in *grants.Input) { in.Action = grants.ActionEndTask }),
		with(startTask("release"), func(in *grants.Input) { in.Principal, in.Requester = builder1, builder1 }),
		grantTool("github/merge_pr"), grantTool("bank/pay"), askFor("bank/pay"),
		with(grantTool("github/merge_pr"), func(in *grants.Input) { in.Principal, in.Grant.Agent = declared, declared }),
		with(grantTool("github/merge_pr"), func(in *grants.Input) { in.Action = grants.ActionRevoke }),
		merge(`{"body": {"number": 1, "method": "squash"}}`), merge(`{"body": {"number": 1, "method": "rebase"}}`), merge(`{"body": {"number": 1}}`),
		call("github/merge_pr", testGrant("github/merge_pr"), nil), call("github/get_pr", nil, parse(t, `{"query": {"number": 7}}`)),
		call("reports/health", nil, parse(t, `{}`)), call("bank/pay", testGrant("bank/pay"), parse(t, `{"body": {"amount": 1.5, "to": "a", "tags": ["x", "y"]}}`)),
	} {
		wanted := decide(t, s, in)
		seen[fmt.Sprint(wanted.Allow, wanted.Policies)] = true
		var q question
		if why := s.ask(&in, &q); why != grants.None {
			t.Fatal(why)
		}
		doc, err := q.document()
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.DecideExample(doc)
		if diff := cmp.Diff(wanted, got); err != nil || diff != "" {
			t.Errorf("%v, %s\n%s", err, diff, doc)
		}
	}
	if len(seen) < 6 {
		t.Errorf("only the decisions %v", seen)
	}
}

// What no door would ask is refused, with what to write.
func TestDecideExampleRefuses(t *testing.T) {
	s := example(t)
	doc := func(action, tool string) string {
		text, err := s.ExampleInput(action, tool)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := json.Compact(&out, text); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	start, grant, ask, pay := doc("start_task", ""), doc("grant", "bank/pay"), doc("ask_for", "bank/pay"), doc("call", "bank/pay")
	for _, in := range []string{start, grant, ask, pay} {
		if _, err := s.DecideExample([]byte(in)); err != nil {
			t.Fatal(err)
		}
	}
	const agent = `{"uid":{"type":"Toolgrant::Agent","id":"corp/builder"},`
	for _, tt := range []struct{ name, doc, from, to, want string }{
		{"not JSON", pay, pay, "principal: x", "it needs principal, action"},
		{"an array", pay, pay, "[]", "it needs principal, action"},
		{"cut off", pay, `"entities"`, "", "input:"},
		{"more behind it", pay, pay, pay + pay, "input:"},
		{"unknown member", pay, `"principal"`, `"princpal"`, "princpal"},
		{"member twice", pay, `"context"`, `"context":{},"context"`, "context"},
		{"no principal", pay, `"principal":"Toolgrant::Agent::\"corp/builder\"",`, ``, `principal: "" is not an entity`},
		{"no context", pay, pay, pay[:strings.Index(pay, `,"context"`)] + "}", "context: it is not there"},
		{"principal is no entity", pay, `"Toolgrant::Agent::\"corp/builder\""`, `"corp/builder"`, `write Toolgrant::TYPE::"ID"`},
		{"principal is a group", pay, `"Toolgrant::Agent::\"corp/builder\""`, `"Toolgrant::AgentGroup::\"ci\""`, "is not an Toolgrant::Agent"},
		{"principal without issuer", pay, `"Toolgrant::Agent::\"corp/builder\""`, `"Toolgrant::Agent::\"builder\""`, "ISSUER/SUBJECT"},
		{"unknown action", pay, `call:bank/pay`, `call:bank/pya`, `did you mean "call:bank/pay"?`},
		{"parent action", pay, `call:bank/pay`, `call`, "only a parent"},
		{"action of another tool", pay, `call:bank/pay`, `call:reports/health`, "is not called by"},
		{"unknown tool", grant, `Toolgrant::Tool::\"bank/pay\"`, `Toolgrant::Tool::\"bank/pya\"`, `did you mean "bank/pay"?`},
		{"tool of a task", start, `Toolgrant::TaskKind::\"release\"`, `Toolgrant::Tool::\"bank/pay\"`, "is about a Toolgrant::TaskKind"},
		{"another kind", start, `Toolgrant::TaskKind::\"release\"`, `Toolgrant::TaskKind::\"debug\"`, `context.task.kind: "release", and the resource`},
		{"another requester", start, `"Toolgrant::Agent::\"corp/orchestrator-1\""`, `"Toolgrant::Agent::\"corp/x\""`, "both are who asks"},
		{"asks for itself", ask, `"agent":{"__entity":{"type":"Toolgrant::Agent","id":"corp/builder"}}`, `"agent":{"__entity":{"type":"Toolgrant::Agent","id":"corp/orchestrator-1"}}`, "asks for itself"},
		{"misspelt in the context", grant, `"max_calls"`, `"max_call"`, `context has no member "max_call"; did you mean "max_calls"?`},
		{"missing in the context", grant, `"depth":0,`, ``, "context.depth: it is not there"},
		{"a part of a second", grant, `"ttl":300`, `"ttl":1.5`, `a decimal {"__extn"`},
		{"text for a number", grant, `"ttl":300`, `"ttl":"300"`, "context.ttl: \"300\" is not of the type Long"},
		{"decimal for a number", grant, `"ttl":300`, `"ttl":{"__extn":{"fn":"decimal","arg":"1.5"}}`, "is not of the type Long"},
		{"record for a text", grant, `"kind":"release"`, `"kind":{}`, "context.task.kind: {} is not of the type String"},
		{"text for a record", start, `"context":{`, `"context":{"task":1,"x":{`, "input:"},
		{"text for an agent", grant, `"owner":{"__entity":{"type":"Toolgrant::Agent","id":"corp/orchestrator-1"}}`, `"owner":"corp/orchestrator-1"`, "context.task.owner"},
		{"tool for an agent", grant, `"owner":{"__entity":{"type":"Toolgrant::Agent"`, `"owner":{"__entity":{"type":"Toolgrant::Tool"`, "context.task.owner"},
		{"agent without issuer", grant, `"owner":{"__entity":{"type":"Toolgrant::Agent","id":"corp/orchestrator-1"}}`, `"owner":{"__entity":{"type":"Toolgrant::Agent","id":"x"}}`, "ISSUER/SUBJECT"},
		{"number in a set of texts", pay, `"tags":["text"]`, `"tags":["text",1]`, "context.input.body.tags[…]: 1 is not of the type String"},
		{"no set", pay, `"tags":["text"]`, `"tags":"text"`, "is not of the type Set"},
		{"opaque argument", pay, `"to":"text"`, `"to":"text","memo":"x"`, `has no member "memo"`},
		{"null", pay, `"to":"text"`, `"to":null`, "context:"},
		{"entity twice", pay, agent, agent + `"parents":[],"attrs":{}},` + agent, "is there twice"},
		{"entity without id", pay, agent, `{"uid":{},`, "needs a type and an id"},
		{"entity with another member", pay, agent, agent + `"parent":[],`, "parent"},
		{"agent of no part", pay, agent, `{"uid":{"type":"Toolgrant::Agent","id":"corp/x"}},` + agent, "has no part in the question"},
		{"agent of a server", pay, `"parents":[{"type":"Toolgrant::AgentGroup","id":"ci"}]`, `"parents":[{"type":"Toolgrant::ToolServer","id":"bank"}]`, "an agent is in groups"},
		{"agent with another subject", pay, `"subject":"builder"`, `"subject":"builder-2"`, `its id says "builder"`},
		{"agent with an attribute", pay, `"subject":"builder"`, `"subjct":"ci-1"`, `did you mean "subject"?`},
		{"tag that is a number", pay, `"team":"build"`, `"team":3`, "tags.team: not a text"},
		{"tool in another set", pay, `{"type":"Toolgrant::ToolSet","id":"write"}`, `{"type":"Toolgrant::ToolSet","id":"read"}`, `the parents [Toolgrant::ToolServer::"bank", Toolgrant::ToolSet::"write"]`},
		{"unknown tool described", pay, `"uid":{"type":"Toolgrant::Tool","id":"bank/pay"}`, `"uid":{"type":"Toolgrant::Tool","id":"bank/pya"}`, `did you mean "bank/pay"?`},
		{"deep", pay, `"to":"text"`, `"to":` + strings.Repeat("[", 100_000), "input:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(tt.doc, tt.from, tt.to, 1)
			if changed == tt.doc {
				t.Fatalf("%q is not in %s", tt.from, tt.doc)
			}
			d, err := s.DecideExample([]byte(changed))
			if err == nil || d.Allow || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// FuzzDecideExample: no document panics, or is allowed past a forbid.
func FuzzDecideExample(f *testing.F) {
	s := mcpPolicies(f, permitAll+`@id("bot") forbid (principal == T::Agent::"corp/orchestrator-1", action, resource);
		@id("group") forbid (principal in T::AgentGroup::"ops", action, resource);`)
	for action, id := range map[string]string{
		"start_task": "", "grant": "bank/pay", "ask_for": "bank/pay", "revoke": "bank/pay", "call": "bank/pay", "mcp:prompts/get": "forge",
	} {
		doc, err := s.ExampleInput(action, id)
		if err != nil {
			f.Fatal(err)
		}
		var small bytes.Buffer // large ones take long to minimize
		if err := json.Compact(&small, doc); err != nil {
			f.Fatal(err)
		}
		f.Add(small.Bytes())
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		d, err := s.DecideExample(doc)
		if err != nil {
			if d.Allow {
				t.Fatalf("allowed with %v", err)
			}
			return
		}
		var text exampleText
		if err := json.Unmarshal(doc, &text); err != nil {
			t.Fatalf("decided %s: %v", doc, err)
		}
		var principal cedargo.EntityUID
		if err := principal.UnmarshalCedar([]byte(text.Principal)); err != nil || principal.Type != agentType {
			t.Fatalf("decided %s: %v", doc, err)
		}
		forbidden := principal.ID == "corp/orchestrator-1"
		for _, e := range text.Entities {
			uid, err := e.UID.uid()
			if err != nil {
				t.Fatalf("decided %s: %v", doc, err)
			}
			for _, parent := range e.Parents {
				p, err := parent.uid()
				forbidden = forbidden || err != nil || uid == principal && p == cedargo.NewEntityUID(groupType, "ops")
			}
		}
		if d.Allow == forbidden {
			t.Fatalf("allowed is %v: %s", d.Allow, doc)
		}
	})
}
