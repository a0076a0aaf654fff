package cedar

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// payBill pins who is paid and how much; look has no parameters.
const (
	payBill = `kind: pay-bill
params:
  type: object
  required: [recipient, limit]
  properties:
    recipient: {type: string}
    limit: {type: number, maximum: 10000}
    channel: {type: string, enum: [web, phone], default: web, description: where it was asked for}
    parts: {type: array, items: {type: integer}, maxItems: 8, default: []}
tools:
- tool: bank/pay
  ttl: 10m
  max_calls: 3
  sum: {argument: /body/amount, max: {$param: limit}}
  input: {body: {amount: {maximum: {$param: limit}}, to: {const: {$param: recipient}}}}
- {tool: github/get_pr, once: true}
`
	look = "kind: look\ntools:\n- {tool: github/get_pr}\n"
	bill = `{"channel":"web","limit":250,"parts":[],"recipient":"ACME"}`
)

// manifests is a configuration with payBill and look beside the policies.
func manifests(t testing.TB, text string) Config {
	cfg := config(t, "p.cedar", long(text), "entities.json", release)
	cfg.Manifests = dir(t, "pay.yaml", payBill, "look.yaml", look)
	return cfg
}

func bounded(t testing.TB, text string) *Set {
	t.Helper()
	s, err := Load(manifests(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func billTask(params string) *grants.Task {
	task := testTask("pay-bill")
	task.Params = json.RawMessage(params)
	return task
}

// billGrant is a grant of bank/pay as the manifest has it.
func billGrant(t testing.TB, s *Set, task *grants.Task) *grants.Grant {
	t.Helper()
	m, ok := s.Manifests().Kind(task.Kind)
	if !ok {
		t.Fatalf("no manifest of %s", task.Kind)
	}
	e, ok, err := m.Entry("bank/pay", task.Params)
	if !ok || err != nil {
		t.Fatalf("entry: %v, %v", ok, err)
	}
	g := testGrant("bank/pay")
	g.Constraints = []json.RawMessage{e.Constraint}
	g.Budgets = []grants.Budget{{Key: grants.TaskBudget(task.ID, g.Tool, ""), Limit: e.MaxCalls}}
	for arg, limit := range e.Sums {
		g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(task.ID, g.Tool, arg), Arg: arg, Limit: limit})
	}
	return g
}

// The manifest of a task's kind is a ceiling that no policy lifts, and it permits
// nothing by itself.
func TestManifestBoundsGrants(t *testing.T) {
	s := bounded(t, permitAll)
	nothing := bounded(t, `@id("none") permit (principal, action == T::Action::"end_task", resource);`)
	task := billTask(bill)
	g := billGrant(t, s, task)
	start := with(startTask("pay-bill"), func(in *grants.Input) { in.Task.Params = task.Params })
	pay, payFor := g.Asks(task, now)[0], g.Asks(task, now)[1]
	read := with(pay, func(in *grants.Input) { // by a kind without parameters
		in.Task.Kind, in.Task.Params, in.Tool, in.Grant = "look", json.RawMessage(`{}`), "github/get_pr", testGrant("github/get_pr")
	})
	free := grantTool("bank/pay")
	for _, in := range []grants.Input{start, pay, payFor, read, free, startTask("release")} {
		want(t, decide(t, s, in), "allow all")
		want(t, decide(t, nothing, in), "policy")
	}
	for _, tt := range []struct {
		name string
		from grants.Input
		to   func(*grants.Input)
		want string
	}{
		{"start: no parameters", start, func(in *grants.Input) { in.Task.Params = nil }, "manifest"},
		{"start: parameters, no manifest", start, func(in *grants.Input) { in.Task.Kind = "release" }, "manifest"},
		{"start: none of a kind without", start, func(in *grants.Input) { in.Task.Kind, in.Task.Params = "look", nil }, "manifest"},
		{"start: of no parameters", start, func(in *grants.Input) { in.Task.Kind, in.Task.Params = "look", json.RawMessage(`{}`) }, "allow all"},
		{"end: as it was under another manifest", start, func(in *grants.Input) {
			in.Action, in.Task.Params = grants.ActionEndTask, json.RawMessage(`{"x":null}`)
		}, "allow all"},
		{"end: without parameters", start, func(in *grants.Input) { in.Action, in.Task.Params = grants.ActionEndTask, nil }, "allow all"},
		{"any arguments", pay, func(in *grants.Input) { in.Grant.Constraints = nil }, "manifest"},
		{"another's recipient", pay, func(in *grants.Input) {
			in.Task.Params = json.RawMessage(strings.Replace(bill, "ACME", "EVIL", 1))
		}, "manifest"},
		{"any number of calls", pay, func(in *grants.Input) { in.Grant.Budgets = in.Grant.Budgets[1:] }, "manifest"},
		{"any sum", pay, func(in *grants.Input) { in.Grant.Budgets = in.Grant.Budgets[:1] }, "manifest"},
		{"too long", pay, func(in *grants.Input) { in.Grant.Expires = in.Grant.NotBefore.Add(10*time.Minute + 1) }, "manifest"},
		{"another tool", pay, func(in *grants.Input) { in.Tool, in.Grant.Tool = "reports/export", "reports/export" }, "manifest"},
		{"not for one call", read, func(in *grants.Input) { in.Task.Kind, in.Task.Params = task.Kind, task.Params }, "manifest"},
		{"task without parameters", pay, func(in *grants.Input) { in.Task.Params = nil }, "manifest"},
		{"parameters of another manifest", pay, func(in *grants.Input) { in.Task.Params = json.RawMessage(`{"x":null}`) }, "manifest"},
		{"kind without a manifest", pay, func(in *grants.Input) { in.Task.Kind = "release" }, "manifest"},
		{"for another: any arguments", payFor, func(in *grants.Input) { in.Grant.Constraints = nil }, "manifest"},
		{"for another: task without parameters", payFor, func(in *grants.Input) { in.Task.Params = nil }, "manifest"},
		{"revoke: any arguments", pay, func(in *grants.Input) { in.Action, in.Grant.Constraints = grants.ActionRevoke, nil }, "allow all"},
		{"revoke: task without parameters", pay, func(in *grants.Input) { in.Action, in.Task.Params = grants.ActionRevoke, nil }, "allow all"},
		// What is no question stays none.
		{"no task", pay, func(in *grants.Input) { in.Task = nil }, "undecided"},
		{"no grant", pay, func(in *grants.Input) { in.Grant = nil }, "undecided"},
		{"start: no task", start, func(in *grants.Input) { in.Task = nil }, "undecided"},
		{"grant of another task", pay, func(in *grants.Input) { in.Grant.Task = "t_2" }, "undecided"},
		{"unknown tool", pay, func(in *grants.Input) { in.Tool = "bank/pya" }, "unknown_tool"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := decide(t, s, with(tt.from, tt.to))
			want(t, d, tt.want)
			if d.Revision != s.Revision() {
				t.Errorf("revision %v", d.Revision)
			}
		})
	}
	// Without any manifest, parameters are those of a manifest that is gone.
	none := policies(t, permitAll)
	want(t, decide(t, none, start), "manifest")
	want(t, decide(t, none, pay), "manifest")
	if none.Manifests().Digest() != (grants.Digest{}) || s.Manifests().Digest().IsZero() {
		t.Error("the sets do not have their manifests")
	}
}

// Policy sees the parameters exactly, in the form that it was validated for.
func TestParams(t *testing.T) {
	s := bounded(t, permitAll)
	task := billTask(`{"channel":"phone","limit":250.5,"parts":[3,1],"recipient":"ACME"}`)
	g := billGrant(t, s, task)
	ask := g.Asks(task, now)
	start := with(startTask("pay-bill"), func(in *grants.Input) { in.Task.Params = task.Params })
	pay := with(call("bank/pay", g, nil), func(in *grants.Input) { in.Task = task })
	const (
		params = `"params":{"channel":"phone", "limit":decimal("250.5"), "parts":[1, 3], "recipient":"ACME"}`
		head   = `{"id":"t_1", "kind":"pay-bill", "owner":Toolgrant::Agent::"corp/lead"`
	)
	for name, tt := range map[string]struct {
		in       grants.Input
		at, want string
	}{
		"start":   {start, "task", head + `, ` + params + `, "ttl":3600}`},
		"end":     {with(start, func(in *grants.Input) { in.Action = grants.ActionEndTask }), "task", head + `, "ttl":3600}`},
		"grant":   {ask[0], "task", head + `, ` + params + `}`},
		"ask for": {ask[1], "task", head + `, ` + params + `}`},
		"revoke":  {with(ask[0], func(in *grants.Input) { in.Action = grants.ActionRevoke }), "task", head + `, ` + params + `}`},
		"call": {pay, "grant", `{"age":60, "bound":false, "depth":0, "id":"g_1", "kind":"pay-bill", "owner":Toolgrant::Agent::"corp/lead", ` +
			params + `, "task":"t_1", "ttl":540}`},
		"none": {with(start, func(in *grants.Input) { in.Task.Kind, in.Task.Params = "look", json.RawMessage(`{}`) }), "task",
			`{"id":"t_1", "kind":"look", "owner":Toolgrant::Agent::"corp/lead", "params":{}, "ttl":3600}`},
		"no manifest": {grantTool("bank/pay"), "task", `{"id":"t_1", "kind":"release", "owner":Toolgrant::Agent::"corp/lead"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var q question
			if why := s.ask(&tt.in, &q); why != grants.None {
				t.Fatal(why)
			}
			got, _ := q.request.Context.Get(cedargo.String(tt.at))
			if diff := cmp.Diff(tt.want, fmt.Sprint(got)); diff != "" {
				t.Error(diff)
			}
			checkRequest(t, s.schema, &q)
			want(t, decide(t, s, tt.in), "allow all")
			doc, err := q.document()
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.DecideExample(doc)
			if diff := cmp.Diff(decide(t, s, tt.in), d); err != nil || diff != "" {
				t.Errorf("written down, it is %v, %s", err, diff)
			}
		})
	}
}

// What is asked of an MCP server shows the parameters too.
func TestMCPTaskParams(t *testing.T) {
	cfg := config(t, "p.cedar", long(permitAll+`@id("acme") forbid (principal, action in T::Action::"mcp", resource)
		when { context has grant && context.grant has params && context.grant.params has recipient && context.grant.params.recipient == "ACME" };`))
	cfg.Catalog = mcpCatalog(t)
	cfg.Manifests = dir(t, "merge.yaml", "kind: merge\nparams: {type: object, required: [recipient], properties: {recipient: {type: string}}}\ntools:\n- {tool: forge/merge}\n")
	s, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	read := func(params string) grants.Input {
		in := under(askMCP("resources/read", "forge", map[string]any{"uri": "a"}), "forge/merge")
		in.Task.Kind, in.Task.Params = "merge", json.RawMessage(params)
		return in
	}
	want(t, decide(t, s, read(`{"recipient":"other"}`)), "allow all")
	want(t, decide(t, s, read(`{"recipient":"ACME"}`)), "policy acme")
	want(t, decide(t, s, read(`{"recipient":7}`)), "unrepresentable")
}

// What has no exact Cedar value denies, whatever policy says, and so do
// parameters that are no parameters.
func TestUnrepresentableParams(t *testing.T) {
	s := bounded(t, permitAll)
	start := func(params string) grants.Input {
		return with(startTask("pay-bill"), func(in *grants.Input) { in.Task.Params = json.RawMessage(params) })
	}
	want(t, decide(t, s, start(bill)), "allow all")
	for name, params := range map[string]string{
		"five decimals":   strings.Replace(bill, "250", "0.00001", 1),
		"the same twice":  strings.Replace(bill, "[]", "[1,1]", 1),
		"another type":    strings.Replace(bill, `"ACME"`, "7", 1),
		"an entity":       strings.Replace(bill, `"ACME"`, `{"__entity":{"type":"Toolgrant::Agent","id":"corp/a"}}`, 1),
		"unknown":         strings.Replace(bill, `"limit"`, `"x":1,"limit"`, 1),
		"a member twice":  strings.Replace(bill, `"limit"`, `"limit":1,"limit"`, 1),
		"null":            `null`,
		"nothing":         ``,
		"no JSON":         `{`,
		"an array":        `[]`,
		"more behind":     bill + `{}`,
		"a text too deep": strings.Replace(bill, "[]", strings.Repeat("[", 10_000), 1),
	} {
		t.Run(name, func(t *testing.T) {
			want(t, decide(t, s, start(params)), "unrepresentable")
			// And where a grant or a call brings them.
			task := billTask(params)
			revoke := grantTool("bank/pay")
			revoke.Action, revoke.Task = grants.ActionRevoke, task
			want(t, decide(t, s, revoke), "unrepresentable")
			pay := call("bank/pay", testGrant("bank/pay"), nil)
			pay.Task = task
			want(t, decide(t, s, pay), "unrepresentable")
		})
	}
	// In a set that knows no parameters, there are none that policy could see.
	none := policies(t, permitAll)
	pay := call("bank/pay", testGrant("bank/pay"), nil)
	pay.Task = billTask(`{}`)
	want(t, decide(t, none, pay), "allow all")
	pay.Task = billTask(bill)
	want(t, decide(t, none, pay), "unrepresentable")
}

// Policies decide by parameters; what errs in them denies.
func TestPoliciesOnParams(t *testing.T) {
	grant := func(condition string) *Set {
		return bounded(t, permitAll+`@id("f") forbid (principal, action == T::Action::"grant", resource) when { `+condition+` };`)
	}
	for _, tt := range []struct{ condition, params, want string }{
		{`context.task has params && context.task.params has limit && context.task.params.limit.greaterThan(decimal("100.0"))`, bill, "policy f"},
		{`context.task has params && context.task.params has limit && context.task.params.limit.greaterThan(decimal("300.0"))`, bill, "allow all"},
		{`context.task has params.recipient && context.task.params.recipient like "AC*"`, bill, "policy f"},
		{`context.task has params.channel && context.task.params.channel == "phone"`, bill, "allow all"},
		{`context.task has params.parts && context.task.params.parts.contains(7)`, strings.Replace(bill, "[]", "[7]", 1), "policy f"},
		{`!(context.task has params)`, bill, "allow all"},
		{`context.once`, bill, "allow all"},
		{`!context.once`, bill, "policy f"},
		{`context.task has params.limit && context.ttl * 9223372036854775807 > 0`, bill, "policy_error f"},
	} {
		t.Run(tt.condition, func(t *testing.T) {
			s := grant(tt.condition)
			task := billTask(tt.params)
			want(t, decide(t, s, billGrant(t, s, task).Asks(task, now)[0]), tt.want)
		})
	}
	s := grant(`context.once`)
	want(t, decide(t, s, with(grantTool("bank/pay"), func(in *grants.Input) { in.Grant.Once = grants.Digest{1} })), "policy f")
}

// A name that cannot be is refused in parameters as it is in arguments.
func TestParamsRefused(t *testing.T) {
	for _, tt := range []struct{ scope, condition, want string }{
		{`action == T::Action::"grant"`, `context.task.params.limit.greaterThan(decimal("1.0"))`, `ask for it first: context has task.params.limit`},
		{`action == T::Action::"grant"`, `context.task has params && context.task.params.limit.greaterThan(decimal("1.0"))`, "ask for it first"},
		{`action == T::Action::"grant"`, `context.task has parms`, `did you mean "params"?`},
		{`action == T::Action::"grant"`, `context.task has params && context.task.params has limti`, `did you mean "limit"?`},
		{`action == T::Action::"grant"`, `context.task has params.limit && context.task.params.limit > 100`, "limit"},
		{`action == T::Action::"grant"`, `context.task has params.channel && context.task.params.channel == "fone"`, `context.task.params.channel never has "fone"`},
		{`action == T::Action::"grant"`, `context.task has params.channel && context.task.params.channel like "fon*"`, `is never like`},
		{`action in T::Action::"call"`, `context has grant && context.grant has params.channel && context.grant.params.channel == "wep"`, `did you mean "web"?`},
		{`action == T::Action::"end_task"`, `context.task has params`, `has no member "params"`},
		{`action == T::Action::"call:bank/pay"`, `context has once`, `has no member "once"`},
		{`action == T::Action::"grant"`, `context has onec`, `did you mean "once"?`},
		{`action == T::Action::"grant"`, `context.task.kind == "pay-bil"`, `did you mean "pay-bill"?`},
	} {
		t.Run(tt.condition, func(t *testing.T) {
			_, err := Load(manifests(t, `@id("p") permit (principal, `+tt.scope+`, resource) when { `+tt.condition+` };`))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not have %q", err, tt.want)
			}
		})
	}
	// Where no kind has parameters, policy cannot name any.
	cfg := manifests(t, `@id("p") permit (principal, action == T::Action::"grant", resource) when { context.task has params };`)
	if _, err := Load(cfg); err != nil {
		t.Error(err)
	}
	cfg.Manifests = dir(t, "look.yaml", look)
	if _, err := Load(cfg); err == nil || !strings.Contains(err.Error(), `has no member "params"`) {
		t.Errorf("without parameters: %v", err)
	}
}

// Kinds with a manifest need no entities.json, and may be in it.
func TestManifestKinds(t *testing.T) {
	rule := `@id("p") permit (principal, action == T::Action::"start_task", resource == T::TaskKind::"pay-bill");
		@id("g") permit (principal, action == T::Action::"grant", resource) when { context.task.kind == "look" };`
	s := bounded(t, rule)
	start := with(startTask("pay-bill"), func(in *grants.Input) { in.Task.Params = json.RawMessage(bill) })
	want(t, decide(t, s, start), "allow p")
	cfg := manifests(t, rule)
	if err := os.WriteFile(filepath.Join(cfg.Dir, "entities.json"), []byte(`[{"uid": {"type": "Toolgrant::TaskKind", "id": "look"}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(cfg); err != nil {
		t.Error(err)
	}
	cfg.Manifests = ""
	if _, err := Load(cfg); err == nil || !strings.Contains(err.Error(), `TaskKind::"pay-bill" is not in entities.json, and has no manifest`) {
		t.Errorf("without manifests: %v", err)
	}
}

// Manifests that do not load are told with their folder, file and line.
func TestManifestFaults(t *testing.T) {
	cfg := manifests(t, permitAll)
	for name, text := range map[string]string{"x.yaml": "kind: x\ntools:\n- {tool: bank/pya}\n", "x.yml": look} {
		cfg.Manifests = dir(t, "look.yaml", look, name, text)
		s, err := Load(cfg)
		if s != nil || err == nil || !strings.HasPrefix(err.Error(), "loading manifests from "+cfg.Manifests+": ") || !strings.Contains(err.Error(), name+":") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	cfg.Manifests = filepath.Join(cfg.Dir, "nosuch")
	if s, err := Load(cfg); s != nil || err == nil {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// Manifests are in the revision, and an empty folder of them is none.
func TestManifestRevision(t *testing.T) {
	cfg := manifests(t, permitAll)
	revision := func(folder string) grants.Digest {
		t.Helper()
		cfg.Manifests = folder
		s, err := Load(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision()
	}
	some := revision(cfg.Manifests)
	if revision(dir(t, "other.yaml", payBill, "look.yaml", look)) != some {
		t.Error("the same manifests in other files are another revision")
	}
	none := revision("")
	if revision(t.TempDir()) != none {
		t.Error("a folder without manifests is another revision than none")
	}
	seen := map[grants.Digest]bool{some: true, none: true}
	for _, folder := range []string{
		dir(t, "look.yaml", look),
		dir(t, "pay.yaml", payBill),
		dir(t, "pay.yaml", strings.Replace(payBill, "max_calls: 3", "max_calls: 4", 1), "look.yaml", look),
	} {
		r := revision(folder)
		if seen[r] {
			t.Errorf("%s: another set has the same revision", folder)
		}
		seen[r] = true
	}
}

// The schema with parameters is stable, reads back, and is what policies are
// validated against.
func TestManifestSchemaText(t *testing.T) {
	s := bounded(t, permitAll)
	checkSchemaText(t, "testdata/manifest.cedarschema", s.world)
}
