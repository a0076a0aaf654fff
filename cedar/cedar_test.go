package cedar

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

var update = flag.Bool("update", false, "write the golden files anew")

var _ grants.Decider = (*Set)(nil).Decide

func testCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load("testdata/tools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// version is a folder's name as Kubernetes gives it to a version of a mount.
const version = "..2026_11_24_12_00_00.1234567"

// dir writes files, name and text in turn, into a new directory.
func dir(t testing.TB, files ...string) string {
	t.Helper()
	d := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// mount writes files as Kubernetes mounts a ConfigMap of them.
func mount(t testing.TB, files ...string) string {
	t.Helper()
	d := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(d, version), 0o700), os.Symlink(version, filepath.Join(d, "..data"))); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		if err := errors.Join(os.WriteFile(filepath.Join(d, version, files[i]), []byte(files[i+1]), 0o600),
			os.Symlink("..data/"+files[i], filepath.Join(d, files[i]))); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func config(t testing.TB, files ...string) Config {
	return Config{Dir: dir(t, files...), Catalog: testCatalog(t), Groups: []string{"orchestrators", "ops"}}
}

// policies loads one file of policies in which T:: stands for Toolgrant::.
func policies(t testing.TB, text string) *Set {
	t.Helper()
	s, err := Load(config(t, "p.cedar", long(text)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func long(text string) string { return strings.ReplaceAll(text, " T::", " Toolgrant::") }

func example(t testing.TB) *Set {
	t.Helper()
	s, err := Load(Config{Dir: "testdata/example", Catalog: testCatalog(t), Groups: []string{"orchestrators"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decide(t testing.TB, s *Set, in grants.Input) grants.Decision {
	t.Helper()
	ds, err := s.Decide(context.Background(), []grants.Input{in})
	if err != nil || len(ds) != 1 {
		t.Fatalf("Decide: %d decisions, %v", len(ds), err)
	}
	return ds[0]
}

// want compares a decision with "allow IDS" or "REASON IDS".
func want(t *testing.T, got grants.Decision, text string) {
	t.Helper()
	verdict := got.Reason.String()
	if got.Allow {
		verdict = "allow"
		if got.Reason != grants.None {
			t.Errorf("allowed with the reason %v", got.Reason)
		}
	}
	if s := strings.Join(append([]string{verdict}, got.Policies...), " "); s != text {
		t.Errorf("got %q, want %q", s, text)
	}
}

const permitAll = `@id("all") permit (principal, action, resource);` + "\n"

func TestRefused(t *testing.T) {
	entity := func(typ, id, rest string) string {
		return fmt.Sprintf(`{"uid": {"type": "Toolgrant::%s", "id": %q}, "attrs": {}, "parents": []%s}`, typ, id, rest)
	}
	group := func(id, parent string) string {
		return fmt.Sprintf(`{"uid": {"type": "Toolgrant::AgentGroup", "id": %q}, "attrs": {}, "parents": [{"type": "Toolgrant::AgentGroup", "id": %q}]}`, id, parent)
	}
	rule := func(scope string) string { return "\n\n" + `@id("a") permit (` + scope + `);` }
	when := func(scope, condition string) string {
		return `@id("a") permit (` + scope + `)` + "\nwhen {\n" + condition + ` };`
	}
	const pay = `principal, action == T::Action::"call:bank/pay", resource`
	for _, tt := range []struct {
		name  string
		files []string // name, text, name, text …
		want  []string // parts of the error
	}{
		{"no file", []string{"README", "x"}, []string{"no *.cedar", "nothing could ever be permitted"}},
		{"empty file", []string{"p.cedar", permitAll, "q.cedar", ""}, []string{"q.cedar: no policy"}},
		{"comments only", []string{"p.cedar", permitAll, "q.cedar", "// forbid (principal, action, resource);\n"}, []string{"q.cedar: no policy"}},
		{"other case", []string{"p.cedar", permitAll, "q.CEDAR", permitAll}, []string{"q.CEDAR: only names in .cedar", "rename"}},
		{"entities: other case", []string{"p.cedar", permitAll, "Entities.json", "[]"}, []string{"Entities.json: only the name entities.json", "rename"}},
		{"syntax", []string{"p.cedar", permitAll + "@id(\"b\")\npermit (principal action, resource);"}, []string{`p.cedar:3:25: not a policy: "action" is not expected here, but ","`}},
		{"half a file", []string{"p.cedar", permitAll[:36]}, []string{"p.cedar:1:37: not a policy: it ends where"}},
		{"not UTF-8", []string{"p.cedar", permitAll + "// \xff"}, []string{"p.cedar: not UTF-8"}},
		{"NUL", []string{"p.cedar", permitAll + "\x00"}, []string{"p.cedar:2: NUL"}},
		{"block comment", []string{"p.cedar", permitAll + `/* @id("b") permit (principal, action, resource); */`}, []string{"p.cedar:2: block comment"}},
		{"hidden by a bare CR", []string{"p.cedar", permitAll + "// x\r" + permitAll}, []string{"p.cedar:2: carriage return"}},
		{"bare CR", []string{"p.cedar", permitAll + "\r" + permitAll}, []string{"p.cedar:2: carriage return"}},
		{"string over lines", []string{"p.cedar", "@id(\"a\nb\") permit (principal, action, resource);"}, []string{"p.cedar:1: string"}},
		{"template", []string{"p.cedar", rule(`principal == ?principal, action, resource`)}, []string{"p.cedar:3:"}},
		{"no id", []string{"p.cedar", permitAll + "permit (principal, action, resource);"}, []string{"p.cedar:2:", `write @id("`}},
		{"empty id", []string{"p.cedar", `@id permit (principal, action, resource);`}, []string{"p.cedar:1:", "@id"}},
		{"long id", []string{"p.cedar", `@id("` + strings.Repeat("x", 129) + `") permit (principal, action, resource);`}, []string{"p.cedar:1:", "128 bytes"}},
		{"id with a line feed", []string{"p.cedar", `@id("a\nb") permit (principal, action, resource);`}, []string{"p.cedar:1:", "print"}},
		{"duplicate id", []string{"p.cedar", permitAll, "q.cedar", "\n" + permitAll}, []string{"q.cedar:2:", `@id("all")`, "p.cedar:1"}},
		{"unknown action", []string{"p.cedar", rule(`principal, action == T::Action::"grnat", resource`)}, []string{"p.cedar:3:", `policy "a"`, `did you mean "grant"?`}},
		{"unknown tool", []string{"p.cedar", rule("principal, action,\n" + `resource == T::Tool::"github/merge_rp"`)}, []string{"p.cedar:4:", "catalogue", `did you mean "github/merge_pr"?`}},
		{"unknown tool, far off", []string{"p.cedar", rule(`principal, action, resource == T::Tool::"mail/send"`)}, []string{"p.cedar:3:", `Tool::"mail/send" is not in the catalogue`}},
		{"unknown tool in a condition", []string{"p.cedar", when(pay, `resource == T::Tool::"bank/pya"`)}, []string{"p.cedar:3:", `did you mean "bank/pay"?`}},
		{"unknown tool behind a short cut", []string{"p.cedar", when(pay, `true || resource in [ T::Tool::"bank/pya"]`)}, []string{"p.cedar:3:", `did you mean "bank/pay"?`}},
		{"unknown tool after is", []string{"p.cedar", rule(`principal, action, resource is T::Tool in T::ToolServer::"bnak"`)}, []string{"p.cedar:3:", `did you mean "bank"?`}},
		{"unknown call action in a list", []string{"p.cedar", rule(`principal, action in [ T::Action::"grant", T::Action::"call:bank/pya"], resource`)}, []string{"p.cedar:3:", `did you mean "call:bank/pay"?`}},
		{"unknown server", []string{"p.cedar", rule(`principal, action, resource in T::ToolServer::"githbu"`)}, []string{"p.cedar:3:", `did you mean "github"?`}},
		{"unknown set", []string{"p.cedar", rule(`principal, action, resource in T::ToolSet::"writes"`)}, []string{"p.cedar:3:", `did you mean "write"?`}},
		{"unknown group", []string{"p.cedar", rule(`principal in T::AgentGroup::"orchestrator", action, resource`)}, []string{"p.cedar:3:", `did you mean "orchestrators"?`}},
		{"unknown kind compared with", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.task.kind == "relaese"`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:3:", `did you mean "release"?`}},
		{"the other way round", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `"relaese" != context.task.kind`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:3:", `did you mean "release"?`}},
		{"of a call's grant", []string{"p.cedar", when(pay, `context has grant && context.grant.kind == "relaese"`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:3:", `did you mean "release"?`}},
		{"in a set", []string{"p.cedar", when(pay, `context has grant && ["release", "relaese"].contains(context.grant.kind)`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:3:", `did you mean "release"?`}},
		{"kind in a form that hides it: containsAny", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `["relaese"].containsAny([context.task.kind])`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: containsAll", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `["relaese"].containsAll([context.task.kind])`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: the set turned round", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `[context.task.kind].contains("relaese")`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: like", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.task.kind like "relaese"`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: if", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `(if context.ttl > 3 then "relaese" else "release") == context.task.kind`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: a record", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.task == {id: "t", kind: "relaese", owner: principal}`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: a member of a record", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `{k: "relaese"}.k == context.task.kind`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: the whole context", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `[context].contains(context)`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"kind in a form that hides it: two kinds", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.task.kind == context.task.kind`), "entities.json", "[" + entity("TaskKind", "release", "") + "]"}, []string{"p.cedar:1:", "may only be compared"}},
		{"unknown kind", []string{"p.cedar", rule(`principal, action, resource == T::TaskKind::"release"`)}, []string{"p.cedar:3:", `declare it there: {"uid": {"type": "Toolgrant::TaskKind", "id": "release"}}`}},
		{"agent without issuer", []string{"p.cedar", rule(`principal == T::Agent::"alice", action, resource`)}, []string{"p.cedar:3:", "ISSUER/SUBJECT"}},
		{"no namespace", []string{"p.cedar", rule(`principal, action, resource == Tool::"bank/pay"`)}, []string{"p.cedar:3:", "namespace Toolgrant"}},
		{"unknown type", []string{"p.cedar", rule(`principal is T::User, action, resource`)}, []string{"p.cedar:3:", "Toolgrant::User"}},
		{"never applies", []string{"p.cedar", rule(`principal, action == T::Action::"call", resource`)}, []string{"p.cedar:3:", `policy "a"`, "applicable action", "write action in"}},
		{"wrong resource type", []string{"p.cedar", rule(`principal, action == T::Action::"start_task", resource is T::Tool`)}, []string{"p.cedar:3:", "applicable action"}},
		{"wrong type in input", []string{"p.cedar", when(pay, `context has input && context.input.body.to > 3`)}, []string{"p.cedar:1:", `policy "a"`, "Long"}},
		{"unguarded input", []string{"p.cedar", when(pay, `context.input.body.to == "x"`)}, []string{"p.cedar:3:", "input", "ask for it first"}},
		{"unguarded optional", []string{"p.cedar", when(pay, `context has input && context.input.body.urgent`)}, []string{"p.cedar:3:", "urgent"}},
		{"misspelt attribute", []string{"p.cedar", when(pay, `context has input && context.input.body.amuont == decimal("1.0")`)}, []string{"p.cedar:3:", `has no member "amuont"; did you mean "amount"?`}},
		{"opaque attribute", []string{"p.cedar", when(pay, `context has input && context.input.body.memo == "x"`)}, []string{"p.cedar:3:", "memo"}},
		{"input of another tool", []string{"p.cedar", when(`principal, action in T::Action::"call", resource`, `context has input && context.input.body.to == "x"`)}, []string{"p.cedar:3:", "call:github/merge_pr"}},
		{"has: of the context", []string{"p.cedar", when(`principal, action in T::Action::"call", resource`, `context has garnt`)}, []string{"p.cedar:3:", `context has no member "garnt"; did you mean "grant"?`}},
		{"has: of another action's context", []string{"p.cedar", when(`principal, action in T::Action::"call", resource`, `context has max_calls`)}, []string{"p.cedar:3:", `context has no member "max_calls"; there are: grant, input, requester`}},
		{"has: as a text", []string{"p.cedar", when(pay, `context has "garnt"`)}, []string{"p.cedar:3:", `did you mean "grant"?`}},
		{"has: in an unless", []string{"p.cedar", "\n" + `@id("a") forbid (principal, action, resource) unless { context has gr };`}, []string{"p.cedar:2:", "context has no member"}},
		{"has: of a grant", []string{"p.cedar", when(pay, `context has grant.onwer`)}, []string{"p.cedar:3:", `context.grant has no member "onwer"; did you mean "owner"?`}},
		{"has: of a task", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.task has ttl`)}, []string{"p.cedar:3:", `context.task has no member "ttl"; there are: id, kind, owner`}},
		{"has: max_calls of a task", []string{"p.cedar", when(`principal, action in [ T::Action::"grant", T::Action::"ask_for"], resource`, `context has max_call`)}, []string{"p.cedar:3:", `did you mean "max_calls"?`}},
		{"has: agent outside of ask_for", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context has agent`)}, []string{"p.cedar:3:", `context has no member "agent"`}},
		{"has: of an input", []string{"p.cedar", when(pay, `context has input && context.input has query`)}, []string{"p.cedar:3:", `context.input has no member "query"; there are: body`}},
		{"has: of a body", []string{"p.cedar", when(pay, "context has input\n&& context.input.body has ugrent")}, []string{"p.cedar:4:", `context.input.body has no member "ugrent"; did you mean "urgent"?`}},
		{"has: of what another tool has, by the resource", []string{"p.cedar", when(`principal, action in T::Action::"call", resource == T::Tool::"bank/pay"`, `context has input.query`)}, []string{"p.cedar:3:", `no member "query"`}},
		{"has: of what another tool has, by the server", []string{"p.cedar", when(`principal, action in T::Action::"call", resource is T::Tool in T::ToolServer::"bank"`, `context has input.query`)}, []string{"p.cedar:3:", `no member "query"`}},
		{"has: of the principal", []string{"p.cedar", when(pay, `principal has team`)}, []string{"p.cedar:3:", `principal has no member "team"; there are: issuer, subject`}},
		{"has: of the requester", []string{"p.cedar", when(pay, `context.requester has sub`)}, []string{"p.cedar:3:", `context.requester has no member "sub"`}},
		{"has: of a written agent", []string{"p.cedar", when(pay, ` T::Agent::"corp/a" has sub`)}, []string{"p.cedar:3:", `Toolgrant::Agent::"corp/a" has no member "sub"`}},
		{"has: of the resource", []string{"p.cedar", when(pay, `resource has name`)}, []string{"p.cedar:3:", `resource has no member "name"; there is none`}},
		{"has: of the action", []string{"p.cedar", when(pay, `action has name`)}, []string{"p.cedar:3:", `action has no member "name"; there is none`}},
		{"has: behind an if", []string{"p.cedar", when(pay, `(if context has grant then principal else context.requester) has team`)}, []string{"p.cedar:3:", `has no member "team"`}},
		{"has: behind a short cut", []string{"p.cedar", when(pay, `true || context has garnt`)}, []string{"p.cedar:3:", `did you mean "grant"?`}},
		{"has: chains that end nowhere", []string{"p.cedar", when(pay, strings.Repeat("context has input"+strings.Repeat(".body", 64)+" || ", 60)+"true")}, []string{"p.cedar:3:", `context.input.body has no member "body"`}},
		{"is: misspelt type", []string{"p.cedar", when(pay, `resource is T::Tol`)}, []string{"p.cedar:3:", `there is no entity type Toolgrant::Tol; did you mean "Toolgrant::Tool"?`}},
		{"is: misspelt type of the principal", []string{"p.cedar", when(pay, `principal is T::Agnt`)}, []string{"p.cedar:3:", `did you mean "Toolgrant::Agent"?`}},
		{"is: misspelt type of an owner", []string{"p.cedar", when(pay, `context has grant && context.grant.owner is T::Agnt`)}, []string{"p.cedar:3:", `did you mean "Toolgrant::Agent"?`}},
		{"is: misspelt type, in", []string{"p.cedar", when(pay, `true && (resource is T::Tol in T::ToolSet::"write")`)}, []string{"p.cedar:3:", `did you mean "Toolgrant::Tool"?`}},
		{"is: no namespace", []string{"p.cedar", when(pay, `resource is Tool`)}, []string{"p.cedar:3:", `there is no entity type Tool;`}},
		{"the parent of calls, compared", []string{"p.cedar", when(pay, `action == Toolgrant::Action::"call"`)}, []string{"p.cedar:1:", `no question has the action "call" itself`}},
		{"the parent of calls, other than", []string{"p.cedar", when(pay, `Toolgrant::Action::"call" != action`)}, []string{"p.cedar:1:", `no question has the action "call" itself`}},
		{"is: never", []string{"p.cedar", when(pay, `resource is T::ToolServer`)}, []string{"p.cedar:3:", `resource is never a Toolgrant::ToolServer; there are: Toolgrant::Tool`}},
		{"is: never, in", []string{"p.cedar", when(pay, `context.requester is T::AgentGroup in T::AgentGroup::"ops"`)}, []string{"p.cedar:3:", `context.requester is never a Toolgrant::AgentGroup`}},
		{"is: in what it never is in", []string{"p.cedar", when(pay, `principal is T::Agent in T::ToolSet::"write"`)}, []string{"p.cedar:1:", `principal is of the type Toolgrant::Agent, so that "in" with one of Toolgrant::ToolSet never holds`}},
		{"in: of another type", []string{"p.cedar", when(pay, `resource in T::AgentGroup::"ops"`)}, []string{"p.cedar:1:", `resource is of the type Toolgrant::Tool, so that "in"`}},
		{"in: a list of another type", []string{"p.cedar", when(pay, `principal in [ T::ToolSet::"write", T::ToolServer::"bank"]`)}, []string{"p.cedar:1:", `one of Toolgrant::ToolServer or Toolgrant::ToolSet never holds`}},
		{"equal to another type", []string{"p.cedar", when(pay, ` T::ToolServer::"bank" != resource`)}, []string{"p.cedar:1:", `so that "==" with one of Toolgrant::Tool never holds`}},
		{"scope: another tool's call", []string{"p.cedar", rule(`principal, action == T::Action::"call:bank/pay", resource == T::Tool::"reports/export"`)}, []string{"p.cedar:3:", `policy "a": its scope matches nothing`}},
		{"scope: a server without the tool", []string{"p.cedar", rule(`principal, action in [ T::Action::"call:bank/pay", T::Action::"call:reports/export"], resource in T::ToolServer::"github"`)}, []string{"p.cedar:3:", "its scope matches nothing"}},
		{"scope: a set without the tool", []string{"p.cedar", rule(`principal, action == T::Action::"call:bank/pay", resource is T::Tool in T::ToolSet::"read"`)}, []string{"p.cedar:3:", "its scope matches nothing"}},
		{"record: a member of the input", []string{"p.cedar", when(pay, `context has input && {i: context.input}.i.body has bdy`)}, []string{"p.cedar:3:", `.bdy is taken of a record that the policy itself writes`}},
		{"record: a member of the principal", []string{"p.cedar", when(pay, `(if true then {p: principal} else {p: principal})["p"] has team`)}, []string{"p.cedar:3:", `.team is taken of a record that the policy itself writes`}},
		{"record: its own member", []string{"p.cedar", when(pay, `{a: 1} has b`)}, []string{"p.cedar:3:", `.b is taken of a record`}},
		{"sums: misspelt", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums.contains("/body/amuont")`)}, []string{"p.cedar:3:", `did you mean "/body/amount"?`}},
		{"sums: not a number", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums.contains("/body/to")`)}, []string{"p.cedar:3:", `context.sums never has "/body/to"`}},
		{"sums: opaque", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums.contains("/body/memo")`)}, []string{"p.cedar:3:", `context.sums never has "/body/memo"`}},
		{"sums: of a tool outside the scope", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource in T::ToolServer::"github"`, `context.sums.contains("/body/amount")`)}, []string{"p.cedar:3:", `context.sums never has "/body/amount"`, "/body/number"}},
		{"sums: in a set", []string{"p.cedar", when(`principal, action == T::Action::"ask_for", resource`, `context.sums.containsAny(["/body/amount", "body/amount"])`)}, []string{"p.cedar:3:", `context.sums never has "body/amount"`}},
		{"sums: turned round", []string{"p.cedar", when(`principal, action == T::Action::"ask_for", resource`, `["/body/amount", "amount"].containsAll(context.sums)`)}, []string{"p.cedar:3:", `context.sums never has "amount"`}},
		{"sums: any of a set, turned round", []string{"p.cedar", when(`principal, action == T::Action::"ask_for", resource`, `["/body/a"].containsAny(context.sums)`)}, []string{"p.cedar:3:", `context.sums never has "/body/a"`}},
		{"sums: all of a set", []string{"p.cedar", when(`principal, action == T::Action::"ask_for", resource`, `context.sums.containsAll(["/body/a"])`)}, []string{"p.cedar:3:", `context.sums never has "/body/a"`}},
		{"sums: equal to a set", []string{"p.cedar", when(`principal, action == T::Action::"ask_for", resource`, `["/body/a"] != context.sums`)}, []string{"p.cedar:3:", `context.sums never has "/body/a"`}},
		{"sums in a form that hides it: an if around it", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `(if true then context.sums else context.sums).contains("/body/amount")`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"sums in a form that hides it: a record", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `{s: context.sums}.s.contains("/body/amount")`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"sums in a form that hides it: an if in it", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums.contains(if true then "/body/amount" else "/body/x")`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"sums in a form that hides it: an element of a set", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums.containsAny([if true then "/body/amount" else "/body/x"])`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"sums in a form that hides it: another text", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums.contains(context.task.id)`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"sums in a form that hides it: itself", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `context.sums == context.sums`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"sums in a form that hides it: a set around it", []string{"p.cedar", when(`principal, action == T::Action::"grant", resource`, `[["/body/amount"]].contains(context.sums)`)}, []string{"p.cedar:1:", "context.sums may only be compared"}},
		{"long pattern", []string{"p.cedar", when(pay, "true\n&& principal.subject like \"*"+strings.Repeat("a", maxPattern)+"\"")}, []string{"p.cedar:4:", "256 bytes"}},
		{"unguarded tag", []string{"p.cedar", when(pay, `principal.getTag("team") == "a"`)}, []string{"p.cedar:1:", "team"}},
		{"bad decimal", []string{"p.cedar", when(pay, `context has input && context.input.body.amount == decimal("1")`)}, []string{"p.cedar:1:", `decimal("1.0")`}},
		{"all faults at once", []string{"p.cedar", rule(`principal, action, resource == T::Tool::"x/y"`), "q.cedar", `@id("b") permit (principal in T::AgentGroup::"x", action, resource);`}, []string{"p.cedar:3:", "q.cedar:1:"}},

		{"parentheses", []string{"p.cedar", when(pay, strings.Repeat("(", 100_000)+"true"+strings.Repeat(")", 100_000))}, []string{"p.cedar:3: brackets nest"}},
		{"nested sets", []string{"p.cedar", when(pay, strings.Repeat("[", 100_000))}, []string{"p.cedar:3: brackets nest"}},
		{"nested records", []string{"p.cedar", when(pay, strings.Repeat("{a:", 80_000))}, []string{"p.cedar:3: brackets nest"}},
		{"nesting over policies", []string{"p.cedar", when(pay, strings.Repeat("(;", 100_000))}, []string{"p.cedar:3: brackets nest"}},
		{"negations", []string{"p.cedar", when(pay, strings.Repeat("!", 200_000)+"true")}, []string{"p.cedar:3:", "tokens"}},
		{"minus signs", []string{"p.cedar", when(pay, strings.Repeat("-", 200_000)+"1 == 1")}, []string{"p.cedar:3:", "tokens"}},
		{"conjunctions", []string{"p.cedar", when(pay, strings.Repeat("true&&", 40_000)+"true")}, []string{"p.cedar:3:", "tokens"}},
		{"ifs", []string{"p.cedar", when(pay, strings.Repeat("if true then true else ", 10_000)+"true")}, []string{"p.cedar:3:", "tokens"}},
		{"accesses", []string{"p.cedar", when(pay, "context"+strings.Repeat(".a", 100_000))}, []string{"p.cedar:3:", "joined by dots"}},
		{"has chain", []string{"p.cedar", when(pay, "context has input\n"+strings.Repeat(". // x\nbody", 66))}, []string{"p.cedar:", "joined by dots"}},
		{"index chain", []string{"p.cedar", when(pay, "context"+strings.Repeat(`["a"]`, 50_000))}, []string{"p.cedar:3:", "tokens"}},
		{"large file", []string{"p.cedar", permitAll + strings.Repeat(" ", maxFile)}, []string{"p.cedar", "262144 bytes"}},
		{"large together", slices.Concat(blank("a"), blank("b"), blank("c"), blank("d"), blank("e")), []string{"e.cedar", "1048576 bytes"}},
		{"many policies", many(10_001), []string{"10001 policies"}},

		{"entities: empty", []string{"p.cedar", permitAll, "entities.json", ""}, []string{"entities.json:1:"}},
		{"entities: not an array", []string{"p.cedar", permitAll, "entities.json", `{}`}, []string{"entities.json:1:", "array"}},
		{"entities: cut off", []string{"p.cedar", permitAll, "entities.json", "[\n" + entity("TaskKind", "k", "")}, []string{"entities.json:2:"}},
		{"entities: two values", []string{"p.cedar", permitAll, "entities.json", "[]\n[]"}, []string{"entities.json:1:", "more"}},
		{"entities: misspelt member", []string{"p.cedar", permitAll, "entities.json", "[\n" + `{"uid": {"type": "Toolgrant::AgentGroup", "id": "a"}, "parent": []}]`}, []string{"entities.json:2:", `there is no member "parent"; did you mean "parents"?`}},
		{"entities: another type", []string{"p.cedar", permitAll, "entities.json", "[\n{\"uid\": 3}]"}, []string{"entities.json:2:", `/uid is not what is expected; an entity is {"uid"`}},
		{"entities: no entity", []string{"p.cedar", permitAll, "entities.json", "[\n3]"}, []string{"entities.json:2: it is not what is expected"}},
		{"entities: duplicate member", []string{"p.cedar", permitAll, "entities.json", "[\n" + entity("AgentGroup", "a", `, "parents": []`) + "]"}, []string{"entities.json:2:", "duplicate"}},
		{"entities: twice", []string{"p.cedar", permitAll, "entities.json", "[" + entity("TaskKind", "k", "") + ",\n" + entity("TaskKind", "k", "") + "]"}, []string{"entities.json:2:", "twice"}},
		{"entities: a tool", []string{"p.cedar", permitAll, "entities.json", "[" + entity("Tool", "bank/pay2", "") + "]"}, []string{"entities.json:1:", "bank/pay2"}},
		{"entities: a tool of the catalogue", []string{"p.cedar", permitAll, "entities.json", "[" + entity("Tool", "bank/pay", "") + "]"}, []string{"entities.json:1:", "bank/pay"}},
		{"entities: an action", []string{"p.cedar", permitAll, "entities.json", "[" + entity("Action", "x", "") + "]"}, []string{"entities.json:1:", "only"}},
		{"entities: tags", []string{"p.cedar", permitAll, "entities.json", "[" + entity("Agent", "a/b", `, "tags": {"admin": "yes"}`) + "]"}, []string{"entities.json:1:", "tags"}},
		{"entities: agent's id", []string{"p.cedar", permitAll, "entities.json", "[" + entity("Agent", "b", "") + "]"}, []string{"entities.json:1:", "ISSUER/SUBJECT"}},
		{"entities: no id", []string{"p.cedar", permitAll, "entities.json", "[" + entity("AgentGroup", "", "") + "]"}, []string{"entities.json:1:", "type and an id"}},
		{"entities: two ids", []string{"p.cedar", permitAll, "entities.json", `[{"uid": {"type": "Toolgrant::TaskKind", "id": "k", "__entity": {"type": "Toolgrant::TaskKind", "id": "l"}}}]`}, []string{"entities.json:1:", "__entity"}},
		{"entities: kind with a parent", []string{"p.cedar", permitAll, "entities.json", `[{"uid": {"type": "Toolgrant::TaskKind", "id": "k"}, "parents": [{"type": "Toolgrant::AgentGroup", "id": "ops"}]}]`}, []string{"entities.json:1:", "no parents"}},
		{"entities: parent of another type", []string{"p.cedar", permitAll, "entities.json", `[{"uid": {"type": "Toolgrant::AgentGroup", "id": "k"}, "parents": [{"type": "Toolgrant::Agent", "id": "a/b"}]}]`}, []string{"entities.json:1:", "is not an"}},
		{"entities: unknown parent", []string{"p.cedar", permitAll, "entities.json", "[\n" + group("a", "osp") + "]"}, []string{"entities.json:2:", `did you mean "ops"?`}},
		{"entities: own parent", []string{"p.cedar", permitAll, "entities.json", "[\n" + group("a", "a") + "]"}, []string{"entities.json:2:", "own ancestor"}},
		{"entities: loop", []string{"p.cedar", permitAll, "entities.json", "[" + group("a", "b") + ",\n" + group("b", "c") + ",\n" + group("c", "a") + "]"}, []string{"entities.json:3:", "own ancestor"}},
		{"entities: deep", []string{"p.cedar", permitAll, "entities.json", deepGroups(group, 300)}, []string{"entities.json:", "256 ancestors"}},
		{"entities: large", []string{"p.cedar", permitAll, "entities.json", "[]" + strings.Repeat(" ", maxEntities)}, []string{"entities.json", "1048576 bytes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := slices.Clone(tt.files)
			for i := 1; i < len(files); i += 2 {
				files[i] = long(files[i])
			}
			s, err := Load(config(t, files...))
			if err == nil || s != nil {
				t.Fatal("loaded")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %.600q does not have %q", err.Error(), part)
				}
			}
		})
	}
}

// The guard that an error gives is one that loads, and there is no other error.
func TestGuards(t *testing.T) {
	c, err := catalog.Load(filepath.Join(dir(t, "tools.yaml", `servers:
- id: docs
  resource: https://docs.internal
  upstream: 127.0.0.1:9200
  http:
  - tool: find
    method: POST
    path: /find
    query: {in: {type: string}}
    header: {x-tenant: {type: string}}
    body: {type: object, properties: {a.b: {type: object, properties: {é: {type: string}}}, to: {type: string}, extra: {type: object, required: [ref], properties: {ref: {type: string}}}}}
`), "tools.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const find = `action == T::Action::"call:docs/find"`
	for _, tt := range []struct{ name, scope, access, want string }{
		{"all of the path", find, `context.input.body.to == "csv"`, `context has input.body.to`},
		{"a required member", find, `context.input.body.extra.ref == "x"`, `context has input.body.extra`},
		{"what is guarded in part", find, `context has input && context.input.body.to == "x"`, `context has input.body.to`},
		{"a grant", find, `context.grant.owner == principal`, `context has grant`},
		{"of another action", `action == T::Action::"grant"`, `context.max_calls < 3`, `context has max_calls`},
		{"two of them", find, `context.input.body.to == context.grant.id`, `context has grant && context has input.body.to`},
		{"a name that is no identifier", find, `context.input.header["x-tenant"] == "a"`, `context has input.header && context.input.header has "x-tenant"`},
		{"a name that is a keyword", find, `context.input.query["in"] == "a"`, `context has input.query && context.input.query has "in"`},
		{"a name with a dot, and what is in it", find, `context.input.body["a.b"]["é"] == "a"`,
			`context has input.body && context.input.body has "a.b" && context.input.body["a.b"] has "é"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load := func(condition string) error {
				_, err := Load(Config{Dir: dir(t, "p.cedar", long(`@id("a") permit (principal, `+tt.scope+", resource)\nwhen { "+condition+" };")), Catalog: c})
				return err
			}
			err := load(tt.access)
			if err == nil {
				t.Fatal("it loads without a guard")
			}
			var guards []string
			for line := range strings.Lines(err.Error()) {
				_, guard, _ := strings.Cut(strings.TrimSpace(line), "ask for it first: ")
				guards = append(guards, strings.TrimSuffix(guard, " && …"))
			}
			if got := strings.Join(guards, " && "); got != tt.want {
				t.Errorf("the guard is %q, not %q: %v", got, tt.want, err)
			}
			if err := load(tt.want + " && " + tt.access); err != nil {
				t.Errorf("guarded so, it does not load: %v", err)
			}
		})
	}
}

func blank(name string) []string {
	return []string{name + ".cedar", strings.Repeat(" ", maxFile-10)}
}

// many gives n policies in files that are small enough.
func many(n int) []string {
	var files []string
	for i := 0; i < n; {
		var b strings.Builder
		for ; i < n && b.Len() < 200_000; i++ {
			fmt.Fprintf(&b, "@id(\"%d\") permit (principal, action, resource);\n", i)
		}
		files = append(files, fmt.Sprintf("%d.cedar", i), b.String())
	}
	return files
}

func deepGroups(group func(id, parent string) string, n int) string {
	var all []string
	for i := range n {
		all = append(all, group(fmt.Sprintf("g%d", i), fmt.Sprintf("g%d", i+1)))
	}
	return "[" + strings.Join(all, ",\n") + ",\n" + group(fmt.Sprintf("g%d", n), "ops") + "]"
}

// What is just inside the bounds must load, and not overflow anything.
func TestBounds(t *testing.T) {
	const scope = `@id("a") permit (principal, action == T::Action::"call:bank/pay", resource) when { `
	for name, condition := range map[string]string{
		"parentheses":                      strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60),
		"negations":                        strings.Repeat("!", 16_000) + "true",
		"minus signs":                      strings.Repeat("-", 16_000) + "1 == 1",
		"conjunctions":                     strings.Repeat("true&&", 5_000) + "true",
		"disjunctions":                     strings.Repeat("false||", 5_000) + "true",
		"sum":                              strings.Repeat("1+", 8_000) + "1 > 0",
		"ifs":                              strings.Repeat("if true then true else ", 3_000) + "true",
		"many short chains":                strings.Repeat("context has grant.owner.subject && ", 300) + "false || true",
		"brackets and slashes in a string": `"((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((/*\"//" != "//" // ((((((((` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := policies(t, scope+condition+" };\r\n")
			want(t, decide(t, s, call("bank/pay", nil, nil)), "allow a")
		})
	}
}

// Guards that may hold somewhere in the policy's scope load.
func TestNamesThatExist(t *testing.T) {
	for _, policy := range []string{
		`(principal, action in T::Action::"call", resource) when { context has input.body.urgent && context.input.body.urgent }`,
		`(principal, action in T::Action::"call", resource in T::ToolServer::"github") when { context has input.query.number && context.input.query.number > 3 }`,
		`(principal, action, resource) when { context has max_calls || context has grant || context has agent || context has task && context.task has ttl }`,
		`(principal, action in [ T::Action::"call:bank/pay", T::Action::"call:reports/export"], resource in T::ToolServer::"bank")`,
		`(principal, action == T::Action::"start_task", resource is T::TaskKind)`,
		`(principal, action == T::Action::"revoke", resource is T::Tool in T::ToolSet::"read")`,
		`(principal, action, resource) when { action is T::Action && action in T::Action::"call" && principal is T::Agent && (resource is T::TaskKind || resource is T::Tool in T::ToolServer::"bank") }`,
		`(principal, action == T::Action::"grant", resource) when { principal in [ T::AgentGroup::"ops"] || principal in T::Agent::"corp/a" || resource in [ T::ToolSet::"read", T::ToolSet::"write"] || principal == context.task.owner }`,
		`(principal, action == T::Action::"grant", resource) when { context.sums.isEmpty() || ["/body/amount"].containsAll(context.sums) || context.sums != ["/body/x"] }`,
		`(principal, action == T::Action::"start_task", resource) when { context.task has ttl && context.task.owner has subject && principal has issuer }`,
		`(principal, action == T::Action::"call:bank/pay", resource) when { context has input.body.lines || context has input.body.extra.ref }`,
		`(principal, action, resource is T::Tool) when { context has sums && context.sums.containsAny(["/body/amount", "/body/number", "/query/number"]) }`,
		`(principal, action == T::Action::"grant", resource == T::Tool::"bank/pay") when { context.sums == ["/body/amount", "/body/x"] && principal.subject like "` + strings.Repeat("a", maxPattern-3) + `*" }`,
	} {
		if _, err := Load(config(t, "p.cedar", long(`@id("a") permit `+policy+`;`))); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

func TestDirectory(t *testing.T) {
	outside := dir(t, "out.cedar", permitAll)
	load := func(d string) error {
		_, err := Load(Config{Dir: d, Catalog: testCatalog(t)})
		return err
	}
	refused := func(name string, make func(d string) error, part string) {
		t.Run(name, func(t *testing.T) {
			d := dir(t, "p.cedar", `@id("first") permit (principal, action, resource);`)
			if err := load(d); err != nil {
				t.Fatal(err)
			}
			if err := make(d); err != nil {
				t.Fatal(err)
			}
			if err := load(d); err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("error %v does not have %q", err, part)
			}
		})
	}
	refused("link out", func(d string) error {
		return os.Symlink("../"+filepath.Base(outside)+"/out.cedar", filepath.Join(d, "l.cedar"))
	}, "l.cedar")
	refused("absolute link out", func(d string) error {
		return os.Symlink(filepath.Join(outside, "out.cedar"), filepath.Join(d, "l.cedar"))
	}, "l.cedar")
	refused("entities link out", func(d string) error {
		return os.Symlink("/etc/hostname", filepath.Join(d, "entities.json"))
	}, "entities.json")
	refused("link to nothing", func(d string) error {
		return os.Symlink("gone", filepath.Join(d, "l.cedar"))
	}, "l.cedar")
	refused("directory", func(d string) error { return os.Mkdir(filepath.Join(d, "d.cedar"), 0o700) }, "d.cedar: not a regular file")
	refused("named pipe", func(d string) error { return syscall.Mkfifo(filepath.Join(d, "f.cedar"), 0o600) }, "f.cedar: not a regular file")

	file := func(d, name string) error {
		name = filepath.Join(d, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		return os.WriteFile(name, []byte(permitAll), 0o600)
	}
	for _, name := range []string{"..x.cedar", "..cedar", "..data", "..2026_11_24_12_00_00.5", "..backup/q.cedar", "..2026_11_24/q.cedar"} {
		refused("two dots: "+name, func(d string) error { return file(d, name) }, "two dots belong to Kubernetes")
	}
	refused("two dots: a link", func(d string) error { return os.Symlink("p.cedar", filepath.Join(d, "..p")) }, "..p: names that begin with two dots")
	refused("two dots: a link to nothing", func(d string) error { return os.Symlink(version, filepath.Join(d, "..data")) }, "..data: a link that cannot be followed")
	refused("file in a sub-directory", func(d string) error { return file(d, "sub/q.cedar") }, "sub/q.cedar: sub-directories are not read")
	refused("file deeper", func(d string) error { return file(d, ".a/..b/c/q.Cedar") }, ".a/..b/c/q.Cedar: sub-directories are not read")
	refused("link to a directory, as a mounted ConfigMap has for a path", func(d string) error {
		return errors.Join(file(d, version+"/sub/q.cedar"), os.Symlink(version, filepath.Join(d, "..data")), os.Symlink("..data/sub", filepath.Join(d, "sub")))
	}, "sub/q.cedar: sub-directories are not read")
	refused("link to a directory outside", func(d string) error { return os.Symlink(outside, filepath.Join(d, "sub")) }, "sub: a link that cannot be followed")
	refused("link to a directory, deeper", func(d string) error {
		return errors.Join(file(d, "sub/README"), file(d, version+"/q.cedar"), os.Symlink("../"+version, filepath.Join(d, "sub/link")))
	}, "sub/link: a link in a sub-directory")
	refused("links in a circle", func(d string) error {
		return errors.Join(file(d, "sub/README"), os.Symlink("../sub", filepath.Join(d, "sub/a")), os.Symlink("../sub", filepath.Join(d, "sub/b")))
	}, "sub/a: a link in a sub-directory")
	if os.Getuid() != 0 { // root reads all
		refused("directory that cannot be read", func(d string) error { return os.Mkdir(filepath.Join(d, "sub"), 0) }, "sub: a sub-directory that cannot be read")
	}
	t.Run("what holds no policies", func(t *testing.T) {
		d := dir(t, "p.cedar", permitAll, "q.cedar.old", "", "cedar", "")
		if err := errors.Join(file(d, "sub/README"), os.Symlink("README", filepath.Join(d, "sub/link")), os.Symlink("sub", filepath.Join(d, "other"))); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err != nil {
			t.Error(err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if load(filepath.Join(outside, "nosuch")) == nil {
			t.Error("loaded")
		}
	})
	t.Run("links inside, as a mounted ConfigMap has", func(t *testing.T) {
		d := mount(t, "p.cedar", permitAll)
		if err := load(d); err != nil {
			t.Error(err)
		}
		// While the next version is put in its place.
		next := "..2026_11_24_12_00_01.77"
		if err := errors.Join(file(d, next+"/p.cedar"), file(d, next+"/q.cedar"), os.Symlink(next, filepath.Join(d, "..data_tmp"))); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err != nil {
			t.Error(err)
		}
		if err := os.Rename(filepath.Join(d, "..data_tmp"), filepath.Join(d, "..data")); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err == nil || !strings.Contains(err.Error(), "..data/q.cedar: there is no link to it") {
			t.Errorf("a file to which there is no link yet: %v", err)
		}
		if err := os.Symlink("..data/q.cedar", filepath.Join(d, "q.cedar")); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err == nil || !strings.Contains(err.Error(), `@id("all") is also that of`) {
			t.Errorf("the new file is not read: %v", err)
		}
	})
	t.Run("no catalogue", func(t *testing.T) {
		if _, err := Load(Config{Dir: outside}); err == nil {
			t.Error("loaded")
		}
	})
}

func TestReadTwice(t *testing.T) {
	a := source{policies: []file{{"p", []byte("x")}}, entities: []byte("[]")}
	read := func(second source) (source, error) {
		all := []source{a, second}
		return readTwice(func() (source, error) {
			next := all[0]
			all = all[1:]
			return next, nil
		})
	}
	for name, b := range map[string]source{
		"text":     {policies: []file{{"p", []byte("y")}}, entities: []byte("[]")},
		"name":     {policies: []file{{"q", []byte("x")}}, entities: []byte("[]")},
		"more":     {policies: []file{{"p", []byte("x")}, {"q", nil}}, entities: []byte("[]")},
		"entities": {policies: []file{{"p", []byte("x")}}, entities: []byte("[ ]")},
	} {
		if got, err := read(b); err == nil || got.policies != nil {
			t.Errorf("%s: a change is not seen", name)
		}
	}
	if got, err := read(a); err != nil || !got.equal(a) {
		t.Errorf("without a change: %v, %v", got, err)
	}
}

func TestRevision(t *testing.T) {
	load := func(c Config) grants.Digest {
		t.Helper()
		s, err := Load(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision()
	}
	other := func() *catalog.Catalog {
		text, err := os.ReadFile("testdata/tools.yaml")
		if err != nil {
			t.Fatal(err)
		}
		c, err := catalog.Parse("other", bytes.Replace(text, []byte("sets: [init]"), []byte("sets: [init, read]"), 1))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}()
	c := testCatalog(t)
	base := Config{Dir: dir(t, "p.cedar", permitAll), Catalog: c, Groups: []string{"a", "b"}}
	revision := load(base)
	if revision.IsZero() {
		t.Fatal("no revision")
	}
	same := base
	same.Dir, same.Groups = dir(t, "p.cedar", permitAll), []string{"b", "a", "b"}
	if load(same) != revision {
		t.Error("the same has another revision")
	}
	for name, c := range map[string]Config{
		"policy":    {Dir: dir(t, "p.cedar", strings.Replace(permitAll, "permit", "forbid", 1)), Catalog: c, Groups: base.Groups},
		"file":      {Dir: dir(t, "q.cedar", permitAll), Catalog: c, Groups: base.Groups},
		"entities":  {Dir: dir(t, "p.cedar", permitAll, "entities.json", "[]"), Catalog: c, Groups: base.Groups},
		"catalogue": {Dir: base.Dir, Catalog: other, Groups: base.Groups},
		"groups":    {Dir: base.Dir, Catalog: c, Groups: []string{"a"}},
	} {
		if load(c) == revision {
			t.Errorf("%s: another %s has the same revision", name, name)
		}
	}
}

func TestPolicies(t *testing.T) {
	got := example(t).Policies()
	ids := []string{"inside-a-grant", "orchestrators-start-tasks", "reads-need-no-grant", "release-may-merge", "squash-only"}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Error(diff)
	}
}

// The text is stable, and reads back as the very schema that policies are
// validated against.
func TestSchemaText(t *testing.T) {
	c := testCatalog(t)
	text, err := SchemaText(c)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/schema.cedarschema"
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(old), string(text)); diff != "" {
		t.Errorf("%s (-update writes it anew):\n%s", golden, diff)
	}
	var read schema.Schema
	if err := read.UnmarshalCedar(text); err != nil {
		t.Fatal(err)
	}
	inputs, err := shapes(c)
	if err != nil {
		t.Fatal(err)
	}
	want, err := newSchema(c, inputs).Resolve()
	if err != nil {
		t.Fatal(err)
	}
	got, err := read.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read back as %v, not %v", got, want)
	}
}

func TestDeepSchemaRefused(t *testing.T) {
	s := &catalog.Schema{Type: "string"}
	for range maxDepth {
		s = &catalog.Schema{Type: "array", Items: s}
	}
	if _, err := newShape(s, "", nil, maxDepth); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("error %v", err)
	}
	if _, err := newShape(s.Items, "", nil, maxDepth); err != nil {
		t.Error(err)
	}
	if _, err := newShape(&catalog.Schema{Type: "null"}, "", nil, maxDepth); err == nil {
		t.Error("an unknown type was accepted")
	}
}

// FuzzLoad: no text of policies makes Load panic or overflow the stack, and
// what loads is named and decides without errors of its own making.
func FuzzLoad(f *testing.F) {
	text, err := os.ReadFile("testdata/example/policies.cedar")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	for _, seed := range []string{
		permitAll, `@id("a") permit (principal, action, resource) when { !-(1) == "\"" };`,
		`@id("a") forbid (principal is Toolgrant::Agent in Toolgrant::AgentGroup::"ci", action in [Toolgrant::Action::"call"], resource) unless { if context has grant then context.grant.ttl > 3 else principal.hasTag("x") && principal.getTag("x") like "a*" };`,
		"// \r\n@id(\"\\u{1F600}\") permit(principal,action,resource);",
	} {
		f.Add(seed)
	}
	c := testCatalog(f)
	entities, err := os.ReadFile("testdata/example/entities.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > maxFile {
			return
		}
		src := source{policies: []file{{"p.cedar", []byte(text)}}, entities: entities}
		s, err := load(src, Config{Catalog: c, Groups: []string{"orchestrators"}})
		if err != nil {
			return
		}
		ids := s.Policies()
		if len(ids) == 0 || slices.Contains(ids, "") || len(slices.Compact(slices.Clone(ids))) != len(ids) {
			t.Fatalf("ids %q", ids)
		}
		for _, in := range []grants.Input{
			startTask("release"), grantTool("github/merge_pr"), call("bank/pay", nil, nil),
			call("github/merge_pr", testGrant("github/merge_pr"), map[string]any{}),
		} {
			for _, id := range decide(t, s, in).Policies {
				if !slices.Contains(ids, id) {
					t.Fatalf("decided by %q, which is none of %q", id, ids)
				}
			}
		}
	})
}

// Inputs that the tests vary.

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var (
	builder1 = grants.Principal{Issuer: "corp", Subject: "bot", Groups: []string{"ci"}, Tags: map[string]string{"team": "a"}}
	lead     = grants.Principal{Issuer: "corp", Subject: "lead", Groups: []string{"orchestrators"}}
)

func testTask(kind string) *grants.Task {
	return &grants.Task{ID: "t_1", Kind: kind, Owner: lead, Deadline: now.Add(time.Hour)}
}

func testGrant(tool string) *grants.Grant {
	return &grants.Grant{
		ID: "g_1", Task: "t_1", Agent: builder1, Requester: lead, Tool: tool,
		NotBefore: now.Add(-time.Minute), Expires: now.Add(9 * time.Minute),
	}
}

func startTask(kind string) grants.Input {
	return grants.Input{Action: grants.ActionStartTask, Requester: lead, Principal: lead, Task: testTask(kind), At: now}
}

func grantTool(tool string) grants.Input {
	return testGrant(tool).Asks(testTask("release"), now)[0]
}

func askFor(tool string) grants.Input {
	return testGrant(tool).Asks(testTask("release"), now)[1]
}

func call(tool string, g *grants.Grant, args any) grants.Input {
	in := grants.Input{Action: grants.ActionCall + tool, Requester: builder1, Principal: builder1, Tool: tool, Grant: g, Args: args, At: now}
	if g != nil {
		in.Task = testTask("release")
	}
	return in
}
