package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func setOf(manifests ...*Manifest) *Set {
	s := &Set{kinds: map[string]*Manifest{}}
	for _, m := range manifests {
		s.kinds[m.Kind] = m
	}
	return s
}

// granted is a grant with all that the manifest has of a tool, and no more.
func granted(t testing.TB, m *Manifest, task *grants.Task, tool string) *grants.Grant {
	t.Helper()
	e, ok, err := m.Entry(tool, task.Params)
	if err != nil || !ok {
		t.Fatalf("Entry of %s: %v, %v", tool, ok, err)
	}
	ttl := e.TTL
	if ttl == 0 {
		ttl = time.Minute
	}
	if m.MaxDuration > 0 {
		ttl = min(ttl, m.MaxDuration)
	}
	g := &grants.Grant{ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Tool: tool, NotBefore: begin, Expires: begin.Add(ttl)}
	if e.Constraint != nil {
		g.Constraints = []json.RawMessage{e.Constraint}
	}
	if e.MaxCalls > 0 {
		g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(task.ID, tool, ""), Limit: e.MaxCalls})
	}
	for arg, limit := range e.Sums {
		g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(task.ID, tool, arg), Arg: arg, Limit: limit})
	}
	if e.Once {
		g.Once = grants.Digest{1}
	}
	return g
}

func taskOf(m *Manifest, params string) *grants.Task {
	d := m.MaxDuration
	if d == 0 {
		d = time.Hour
	}
	return &grants.Task{ID: grants.NewID(grants.TaskPrefix), Kind: m.Kind, Params: json.RawMessage(params), Deadline: begin.Add(d)}
}

func TestAdmits(t *testing.T) {
	m := mustParse(t, payBill)
	s := setOf(m)
	const params = `{"limit":123.5,"recipient":"GB29"}`
	send := func(change func(*grants.Task, *grants.Grant)) (*grants.Task, *grants.Grant) {
		task := taskOf(m, params)
		g := granted(t, m, task, "bank/send_money")
		change(task, g)
		return task, g
	}
	budget := func(arg string, g *grants.Grant) *grants.Budget {
		return &g.Budgets[slices.IndexFunc(g.Budgets, func(b grants.Budget) bool { return b.Arg == arg })]
	}
	for _, tc := range []struct {
		name   string
		change func(*grants.Task, *grants.Grant)
		want   string // in the error; "": admitted
	}{
		{"all of it", func(*grants.Task, *grants.Grant) {}, ""},
		{"less time", func(_ *grants.Task, g *grants.Grant) { g.Expires = g.NotBefore.Add(time.Second) }, ""},
		{"a constraint more", func(_ *grants.Task, g *grants.Grant) {
			g.Constraints = append([]json.RawMessage{json.RawMessage("{}")}, g.Constraints...)
		}, ""},
		{"narrower budgets of the task", func(_ *grants.Task, g *grants.Grant) {
			for i := range g.Budgets {
				g.Budgets[i].Limit--
			}
		}, ""},
		{"a budget of its own more", func(_ *grants.Task, g *grants.Grant) {
			g.Budgets = append(g.Budgets, grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 9})
		}, ""},
		{"bound to one input", func(_ *grants.Task, g *grants.Grant) { g.Once = grants.Digest{7} }, ""},

		{"a longer window", func(_ *grants.Task, g *grants.Grant) { g.Expires = g.Expires.Add(time.Nanosecond) }, "the grant lasts 2m0.000000001s, and the manifest has 2m0s"},
		{"another tool", func(_ *grants.Task, g *grants.Grant) { g.Tool = "bank/other" }, "does not have the tool bank/other"},
		{"no constraint", func(_ *grants.Task, g *grants.Grant) { g.Constraints = nil }, "constraint is not among"},
		{"another constraint", func(_ *grants.Task, g *grants.Grant) {
			g.Constraints[0] = json.RawMessage(strings.Replace(string(g.Constraints[0]), "GB29", "GB30", 1))
		}, "constraint is not among"},
		{"no budgets", func(_ *grants.Task, g *grants.Grant) { g.Budgets = nil }, `bounds "max_calls"`},
		{"no count", func(_ *grants.Task, g *grants.Grant) {
			g.Budgets = slices.DeleteFunc(g.Budgets, func(b grants.Budget) bool { return b.Arg == "" })
		}, `bounds "max_calls"`},
		{"no sum", func(_ *grants.Task, g *grants.Grant) {
			g.Budgets = slices.DeleteFunc(g.Budgets, func(b grants.Budget) bool { return b.Arg != "" })
		}, "bounds its sum"},
		{"a higher count", func(_ *grants.Task, g *grants.Grant) { budget("", g).Limit++ }, `bounds "max_calls"`},
		{"a higher sum", func(_ *grants.Task, g *grants.Grant) { budget("/amount", g).Limit++ }, "bounds its sum"},
		{"a count of its own alone", func(_ *grants.Task, g *grants.Grant) { budget("", g).Key = grants.GrantBudget(g.ID, "") }, `bounds "max_calls"`},
		{"a count of another task", func(_ *grants.Task, g *grants.Grant) {
			budget("", g).Key = grants.TaskBudget("t_other", g.Tool, "")
		}, `bounds "max_calls"`},
		{"a sum under the key of the count", func(_ *grants.Task, g *grants.Grant) { budget("", g).Arg = "/amount" }, `bounds "max_calls"`},
		{"a task that lasts longer", func(task *grants.Task, _ *grants.Grant) {
			task.Deadline = begin.Add(m.MaxDuration + skew + time.Second)
		}, "more is left of the task"},
		{"a task of another node's clock", func(task *grants.Task, _ *grants.Grant) { task.Deadline = begin.Add(m.MaxDuration + skew) }, ""},

		{"other parameters", func(task *grants.Task, _ *grants.Grant) {
			task.Params = json.RawMessage(`{"limit":123.5,"recipient":"GB30"}`)
		}, "constraint is not among"},
		{"parameters that are out of bounds", func(task *grants.Task, _ *grants.Grant) {
			task.Params = json.RawMessage(`{"limit":10001,"recipient":"GB29"}`)
		}, "does not take the task's parameters"},
		{"parameters that are missing", func(task *grants.Task, _ *grants.Grant) { task.Params = json.RawMessage(`{"limit":1}`) }, "does not take the task's parameters"},
		{"parameters that are none", func(task *grants.Task, _ *grants.Grant) { task.Params = json.RawMessage(``) }, "does not take the task's parameters"},
		{"parameters that do not fit", func(task *grants.Task, _ *grants.Grant) {
			task.Params = json.RawMessage(`{"limit":0.00001,"recipient":"GB29"}`)
		}, "does not take the task's parameters"},
		{"started without a manifest", func(task *grants.Task, _ *grants.Grant) { task.Params = nil }, "has a manifest now"},
		{"a kind without one any more", func(task *grants.Task, _ *grants.Grant) { task.Kind = "other" }, "has no manifest any more"},
		{"a kind that never had one", func(task *grants.Task, _ *grants.Grant) { task.Kind, task.Params = "other", nil }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := s.Admits(send(tc.change))
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("not admitted: %v", err)
			case tc.want != "" && err == nil:
				t.Error("admitted")
			case err != nil && !strings.Contains(err.Error(), tc.want):
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "GB29") || strings.Contains(err.Error(), "123")) {
				t.Errorf("a value is in the error: %v", err)
			}
		})
	}
}

func TestAdmitsOnce(t *testing.T) {
	m := mustParse(t, payBill)
	task := taskOf(m, `{"limit":1,"recipient":"r"}`)
	g := granted(t, m, task, "bank/wire")
	if err := setOf(m).Admits(task, g); err != nil {
		t.Error(err)
	}
	g.Once = grants.Digest{}
	if err := setOf(m).Admits(task, g); err == nil || !strings.Contains(err.Error(), `ask with "input"`) {
		t.Errorf("a grant of a tool that is once, for any input: %v", err)
	}
}

func TestAdmitsAWindowOfTheTaskAtMost(t *testing.T) {
	m := mustParse(t, "kind: k\nmax_duration: 20s\ntools: [{tool: bank/get_iban}]")
	task := taskOf(m, "{}")
	g := granted(t, m, task, "bank/get_iban")
	if err := setOf(m).Admits(task, g); err != nil {
		t.Error(err)
	}
	g.Expires = g.NotBefore.Add(21 * time.Second)
	if err := setOf(m).Admits(task, g); err == nil || !strings.Contains(err.Error(), "for the whole task") {
		t.Errorf("a window that is longer than a task may be: %v", err)
	}
}

func TestAdmitsNothingWithoutAQuestion(t *testing.T) {
	var none *Set
	if err := none.Admits(&grants.Task{Kind: "k"}, &grants.Grant{}); err != nil {
		t.Errorf("no manifests: %v", err)
	}
	if none.Admits(&grants.Task{Kind: "k", Params: json.RawMessage("{}")}, &grants.Grant{}) == nil {
		t.Error("no manifests: a task that was started under one is admitted")
	}
	if none.Admits(nil, &grants.Grant{}) == nil || none.Admits(&grants.Task{}, nil) == nil {
		t.Error("no task, or no grant, is admitted")
	}
}

// A manifest that has become narrower admits no grant that was given before.
func TestAdmitsByTheManifestOfToday(t *testing.T) {
	was := mustParse(t, payBill)
	task := taskOf(was, `{"limit":100,"recipient":"r"}`)
	g := granted(t, was, task, "bank/send_money")
	for name, change := range map[string][2]string{
		"ttl":          {"ttl: 2m", "ttl: 1m"},
		"max_duration": {"max_duration: 10m", "max_duration: 8m"},
		"calls":        {"max_calls: 3", "max_calls: 2"},
		"sum":          {"max: {$param: limit}}  ", "max: 99}  "},
		"constraint":   {"amount: {maximum: {$param: limit}}", "amount: {maximum: 99}"},
		"tool":         {"bank/send_money", "shop/look"},
		"once":         {"max_calls: 3", "once: true"},
		"parameters":   {"maximum: 10000", "maximum: 99"},
		"parameter":    {"required: [recipient, limit], properties: {", "required: [recipient, limit, more], properties: {more: {type: string}, "},
	} {
		text := strings.Replace(payBill, change[0], change[1], 1)
		if text == payBill {
			t.Fatalf("%s: nothing is changed", name)
		}
		if name == "tool" {
			text = strings.NewReplacer("  input: {recipient", "  # ", "  sum:", "  # ").Replace(text)
		}
		now := mustParse(t, text)
		if setOf(now).Admits(task, g) == nil {
			t.Errorf("%s: a grant from before is admitted", name)
		}
	}
	if err := setOf(mustParse(t, strings.Replace(payBill, "max_calls: 3", "max_calls: 4", 1))).Admits(task, g); err != nil {
		t.Errorf("a wider manifest: %v", err)
	}
}

// FuzzParse: no text makes a panic, and what parses holds what the package
// promises: parameters that are read have an entry for every tool, whose
// constraint compiles, and a grant of it is admitted.
func FuzzParse(f *testing.F) {
	f.Add(payBill, `{"limit":100,"recipient":"r"}`)
	f.Add(with("properties: {p: {type: array, items: {type: string}, default: [a]}, n: {type: integer, default: 3}}",
		"- {tool: bank/send_money, input: {recipient: {enum: {$param: p}}, amount: {minimum: {$param: n}}, tags: {maxItems: {$param: n}}, from: {properties: {iban: {maxLength: {$param: n}}}}}}"), `{"n":9}`)
	f.Add("kind: k\ntools:\n- {tool: shop/order, input: {body: {item: {pattern: '^(?:a+)$'}, a/b: {enum: [1, 2]}}}, sum: [{argument: /body/a~1b, max: 0.5}]}\n- {tool: shop/tag, input: {body: {const: [x]}}}", `{}`)
	f.Add(sendMoney("note: {type: object, properties: {a: {type: 'null'}}}, secret: {properties: {x: {type: array, items: {type: boolean}}}}"), `{"s":"$param","n":1e300,"i":-1,"b":true,"ls":[],"li":[1],"low":0}`)
	f.Add("kind: k\ntools: [{tool: bank/send_money, input: {}}]", `[]`)
	c := testCatalog(f)
	f.Fuzz(func(t *testing.T, text, raw string) {
		m, err := Parse("m.yaml", []byte(text), c)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "m.yaml:") {
					t.Errorf("a fault without its place: %q", line)
				}
			}
			return
		}
		if _, err := m.Explain(nil); err != nil {
			t.Errorf("Explain: %v", err)
		}
		params, err := m.ReadParams([]byte(raw))
		if err != nil {
			return
		}
		if again, err := m.ReadParams(params); err != nil || string(again) != string(params) {
			t.Errorf("ReadParams(%s) = %s, %v", params, again, err)
		}
		if _, err := m.Explain([]byte(raw)); err != nil {
			t.Errorf("Explain(%s): %v", raw, err)
		}
		task := taskOf(m, string(params))
		for _, tool := range m.Tools {
			g := granted(t, m, task, tool.Tool.ID)
			for i, raw := range g.Constraints {
				if _, err := grants.CompileConstraint(raw); err != nil {
					t.Errorf("%s: constraint %d: %v\n%s", tool.Tool.ID, i, err, raw)
				}
			}
			if len(g.Budgets) > grants.MaxBudgets-1 {
				t.Errorf("%s: %d budgets", tool.Tool.ID, len(g.Budgets))
			}
			if err := setOf(m).Admits(task, g); err != nil {
				t.Errorf("Admits: %v", err)
			}
		}
	})
}

// BenchmarkEntry is what a request pays for each tool of its kind.
func BenchmarkEntry(b *testing.B) {
	m := mustParse(b, payBill)
	params := json.RawMessage(`{"limit":100,"recipient":"GB29"}`)
	for _, tool := range []string{"bank/send_money", "bank/get_iban"} {
		b.Run(tool, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := m.Entry(tool, params); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAdmits is what each decision about a grant pays before policy.
func BenchmarkAdmits(b *testing.B) {
	m := mustParse(b, payBill)
	s, task := setOf(m), taskOf(m, `{"limit":100,"recipient":"GB29"}`)
	g := granted(b, m, task, "bank/send_money")
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Admits(task, g); err != nil {
			b.Fatal(fmt.Sprint(err))
		}
	}
}
