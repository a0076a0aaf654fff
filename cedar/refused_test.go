package cedar

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

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
		{"unknown kind", []string{"p.cedar", rule(`principal, action, resource == T::TaskKind::"release"`)}, []string{"p.cedar:3:", `declare it in entities.json: {"uid": {"type": "Toolgrant::TaskKind", "id": "release"}}`}},
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
