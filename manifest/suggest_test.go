package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

func call(t testing.TB, task, tool, input string) Call {
	t.Helper()
	v, err := strictjson.Parse([]byte(input), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return Call{Task: task, Tool: tool, Input: v}
}

const suggested = `# Proposed from 5 calls in 2 tasks. It allows what was seen: hold each line
# against what is meant before it is put in force.
kind: "pay-bill"
params:
  type: object
  required: [recipient]
  properties:
    recipient: {type: string, maxLength: 4} # bank/send_money /recipient, shop/order /body/item: one value in each task
tools:
- tool: "bank/send_money" # 3 calls in 2 tasks
  max_calls: 2 # the most of one task
  sum:
  - {argument: "/amount", max: 30.5} # the most of one task
  input:
    amount: {minimum: 0, maximum: 20.5} # the greatest of 3 calls; not below 0, or not below the least
    from:
      properties:
        iban: {const: "DE1"} # the same in 3 calls of 2 tasks
    recipient: {const: {$param: recipient}} # the same within each of 2 tasks, and not in all
    tags: {maxItems: 2, items: {maxLength: 2}} # tags/*: free text; the longest of 3 calls
- tool: "shop/order" # 2 calls in 2 tasks
  max_calls: 1 # the most of one task
  input:
    body:
      item: {const: {$param: recipient}} # the same within each of 2 tasks, and not in all
    header: {}
    query: {}
`

func TestSuggest(t *testing.T) {
	s, err := Suggest("pay-bill", []Call{
		call(t, "t1", "bank/send_money", `{"recipient":"GB29","amount":10,"from":{"iban":"DE1"},"tags":["a"]}`),
		call(t, "t1", "bank/send_money", `{"recipient":"GB29","amount":20.5,"from":{"iban":"DE1"},"tags":["b","cc"]}`),
		call(t, "t2", "bank/send_money", `{"recipient":"FR7","amount":7,"from":{"iban":"DE1"},"tags":[]}`),
		call(t, "t1", "shop/order", `{"query":{},"header":{},"body":{"item":"GB29"}}`),
		call(t, "t2", "shop/order", `{"query":{},"header":{},"body":{"item":"FR7"}}`),
	}, testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(suggested, s.YAML); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m := mustParse(t, s.YAML)
	params, err := m.ReadParams([]byte(`{"recipient":"GB29"}`))
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := m.Entry("bank/send_money", params)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`{"recipient":"GB29","amount":20.5,"from":{"iban":"DE1"},"tags":[]}`: true,
		`{"recipient":"FR7","amount":20.5,"from":{"iban":"DE1"},"tags":[]}`:  false,
		`{"recipient":"GB29","amount":21,"from":{"iban":"DE1"},"tags":[]}`:   false,
		`{"recipient":"GB29","amount":-1,"from":{"iban":"DE1"},"tags":[]}`:   false,
		`{"recipient":"GB29","amount":1,"from":{"iban":"DE2"},"tags":[]}`:    false,
	} {
		if accepts(t, e, text) != want {
			t.Errorf("%s passes: %v", text, !want)
		}
	}
}

func TestSuggestWays(t *testing.T) {
	pay := func(task, members string) Call {
		return call(t, task, "bank/send_money", `{"recipient":"r","amount":1`+members+`}`)
	}
	started := func(c Call, params string) Call { c.Params = json.RawMessage(params); return c }
	for _, tc := range []struct {
		name       string
		calls      []Call
		want, note []string
		not        string
	}{
		{"few values", slices.Concat(repeat(2, func(i int) Call { return pay("t1", `,"date":"x"`) }), repeat(2, func(int) Call { return pay("t1", `,"date":"y"`) })),
			[]string{`date: {enum: ["x", "y"]}`, `amount: {const: 1}`}, []string{"one task alone"}, "params:"},
		{"few values, each in several tasks", repeat(4, func(i int) Call { return pay(fmt.Sprint("t", i), []string{`,"date":"x"`, `,"date":"y"`}[i%2]) }),
			[]string{`date: {enum: ["x", "y"]}`}, nil, "params:"},
		{"as tasks were started", []Call{started(pay("t1", `,"date":"x"`), `{"when":"x"}`), started(pay("t2", `,"date":"y"`), `{"when":"y"}`)},
			[]string{`date: {const: {$param: when}}`, `when: {type: string, maxLength: 1} # bank/send_money /date: as tasks were started with it`}, nil, ""},
		{"as the only task was started, by its name", []Call{started(pay("t1", ``), `{"recipient":"r","other":"r"}`)},
			[]string{`recipient: {const: {$param: recipient}}`}, nil, ""},
		{"as tasks were started, with what no call has", []Call{
			started(pay("t1", ``), `{"limit":5,"tags":["a"],"no":true,"list":[]}`), started(pay("t2", ``), `{"limit":7.5,"tags":["bcd","e"],"no":false,"list":[]}`)},
			[]string{
				`required: [limit, list, "no", tags]`, `limit: {type: number, minimum: 0, maximum: 7.5} # of no argument: as tasks were started with it`,
				`tags: {type: array, maxItems: 2, items: {type: string, maxLength: 3}}`, `"no": {type: boolean}`, `list: {type: array, maxItems: 0, items: {type: string}}`,
			}, nil, "$param"},
		{"as tasks were started, though one argument differs", []Call{started(pay("t1", `,"date":"x"`), `{"date":"x"}`), started(pay("t2", `,"date":"y"`), `{"date":"z"}`)},
			[]string{`required: [date, date_2]`, `date: {const: {$param: date_2}}`}, nil, ""},
		{"parameters that no manifest has", []Call{
			started(pay("t1", ``), `{"a b":1,"odd":1,"some":1,"null":null,"o":{},"fine":0.00001,"twice":[1,1],"rows":[{}],"mix":[1,"a"],"same":1}`),
			started(pay("t2", ``), `{"a b":1,"odd":"","null":null,"o":{},"fine":1,"twice":[],"rows":[],"mix":[],"same":1}`)},
			[]string{`required: [same]`}, []string{
				`"a b", which is no parameter of it: a manifest has no such name`, `"some", which is no parameter of it: some had it not`,
				`"odd", which is no parameter of it: its values are of several types`, `"null", which is no parameter of it: a manifest has no parameter`,
				`"o", which is no parameter of it: a manifest has no parameter`, `"fine", which is no parameter of it: policy`, `"twice", which is no parameter of it: policy`,
				`"rows", which is no parameter of it: a manifest has no parameter`, `"mix", which is no parameter of it: its items`,
			}, "odd"},
		{"of one task", []Call{started(pay("t1", ``), `{"recipient":"r"}`), started(pay("t1", ``), `{"recipient":"r"}`)},
			[]string{`{const: {$param: recipient}} # the same in 2 calls of 1 task` + "\n"}, nil, "not in all"},
		{"what policy cannot see is no parameter", []Call{
			call(t, "t1", "bank/send_money", `{"recipient":"r","amount":0.00001,"tags":["a","a"]}`), call(t, "t2", "bank/send_money", `{"recipient":"r","amount":2,"tags":["b","b"]}`)},
			[]string{`amount: {minimum: 0, maximum: 2}`, `tags: {maxItems: 2, items: {enum: ["a", "b"]}}`}, nil, "params:"},
		{"an integer that is none, in each task", []Call{pay("t1", `,"copies":1.5`), pay("t2", `,"copies":2.5`), order(t, "t1", "x"), order(t, "t2", "y")},
			[]string{"# any input: no template covers them", `item: {const: {$param: item}}`}, nil, "copies:"},
		{"a list of another type", []Call{pay("t1", `,"tags":[1]`), pay("t2", `,"tags":[2]`)}, []string{"# any input: no template covers them"}, nil, "params:"},
		{"free text", repeat(3, func(i int) Call { return pay("t1", fmt.Sprintf(`,"date":"%s"`, strings.Repeat("é", i+1))) }),
			[]string{`date: {maxLength: 3}`}, nil, ""},
		{"a text that no file holds", repeat(2, func(i int) Call { return pay("t1", `,"date":"\u0001\r"`) }),
			[]string{`date: {maxLength: 2}`}, nil, ""},
		{"a text with every escape", []Call{pay("t1", `,"date":"\"\\ {$param: x} \t\n \u00ad \u202e # ' \udb40\udc01"`)},
			[]string{`date: {const: "\"\\ {$param: x} \t\n \u00ad \u202e # ' \U000e0001"}`}, nil, ""},
		{"other arguments in some calls", []Call{pay("t1", `,"date":"x"`), pay("t1", ``)},
			[]string{"# any input: some calls have /date", `{argument: "/amount", max: 2}`}, []string{"any input: some calls have /date and some have not"}, "  input:"},
		{"several types", []Call{pay("t1", `,"date":"x"`), pay("t1", `,"date":1`)},
			[]string{"# any input: /date is of several types"}, nil, "  input:"},
		{"not declared", []Call{pay("t1", `,"dat":"x"`)},
			[]string{"# any input: the catalogue declares no /dat"}, nil, ""},
		{"a number below 0", []Call{pay("t1", `,"copies":-3`), pay("t1", `,"copies":2`)},
			[]string{`copies: {minimum: -3, maximum: 2}`}, nil, `"/copies"`},
		{"booleans", []Call{pay("t1", `,"loud":true`), pay("t1", `,"loud":false`)}, []string{`loud: {}`}, nil, ""},
		{"a list in each task", []Call{pay("t1", `,"tags":["a","b"]`), pay("t2", `,"tags":[]`), pay("t2", `,"tags":[]`)},
			[]string{`tags: {const: {$param: tags}}`, `tags: {type: array, maxItems: 2, items: {type: string, maxLength: 1}}`}, nil, ""},
		{"the same list", repeat(2, func(i int) Call { return pay(fmt.Sprint(i), `,"tags":["a","true"]`) }), []string{`tags: {const: ["a", "true"]}`}, nil, ""},
		{"an integer that is none", []Call{pay("t1", `,"copies":1.5`), pay("t1", `,"copies":2.5`)}, []string{"# any input: no template covers them"}, nil, ""},
		{"a long text", []Call{pay("t1", `,"date":"`+strings.Repeat("x", 600)+`"`)}, []string{"date: {maxLength: 600}"}, nil, ""},
		{"equal by accident", []Call{pay("t1", `,"date":"x"`), pay("t2", `,"date":"y"`), order(t, "t1", "x"), order(t, "t3", "z")},
			[]string{`date: {const: {$param: date}}`, `item: {const: {$param: item}}`}, nil, ""},
		{"equal in two tasks", []Call{pay("t1", `,"date":"x"`), pay("t2", `,"date":"y"`), order(t, "t1", "x"), order(t, "t2", "y"), order(t, "t3", "z")},
			[]string{`date: {const: {$param: date}}`, `item: {const: {$param: date}}`, "one value in each task"}, nil, "2 of 3 tasks"},
		{"rows", []Call{pay("t1", `,"rows":[{"n":1},{"n":5}]`), pay("t2", `,"rows":[{"n":2}]`)},
			[]string{`rows: {maxItems: 2, items: {properties: {"n": {minimum: 0, maximum: 5}}}}`}, nil, ""},
		{"rows that differ", []Call{pay("t1", `,"rows":[{"n":1},{}]`)}, []string{"# any input: some calls have /rows/*/n"}, nil, ""},
		{"no rows", []Call{pay("t1", `,"rows":[]`)}, []string{"# any input: /rows was always empty"}, nil, ""},
		{"no input", []Call{{Task: "t1", Tool: "bank/get_iban"}}, []string{"# any input: their arguments were not recorded"}, nil, ""},
		{"empty input", []Call{call(t, "t1", "bank/get_iban", "{}")}, []string{"input: {} # nothing"}, nil, ""},
		{"too large for a template", []Call{pay("t1", `,"tags":["`+strings.Repeat(`x","`, 100)+`"]`), call(t, "t1", "bank/send_money", `{"recipient":"`+strings.Repeat("q", 500)+`","amount":1,"tags":["`+strings.Repeat(`x","`, 100)+`"]}`)},
			[]string{`recipient: {maxLength: 500}`}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Suggest("k", tc.calls, testCatalog(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(s.YAML, want) {
					t.Errorf("%q is missing in:\n%s", want, s.YAML)
				}
			}
			for _, want := range tc.note {
				if !strings.Contains(strings.Join(s.Notes, "\n"), want) {
					t.Errorf("%q is missing in %q", want, s.Notes)
				}
			}
			if tc.not != "" && strings.Contains(s.YAML, tc.not) {
				t.Errorf("%q is in:\n%s", tc.not, s.YAML)
			}
		})
	}
}

func order(t testing.TB, task, item string) Call {
	return call(t, task, "shop/order", `{"query":{},"header":{},"body":{"item":"`+item+`"}}`)
}

func repeat(n int, f func(int) Call) (out []Call) {
	for i := range n {
		out = append(out, f(i))
	}
	return out
}

func TestSuggestWithoutWhatWasNotRecorded(t *testing.T) {
	without := func(c Call, pointers ...string) Call { c.Without = pointers; return c }
	full := call(t, "t1", "bank/send_money", `{"amount":1}`)
	whole := call(t, "t1", "bank/send_money", `{"amount":1,"recipient":"r"}`)
	whole.Redacted = true
	s, err := Suggest("k", []Call{without(full, "/recipient"), without(full, "/recipient")}, testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	if want := "recipient: {} # not recorded"; !strings.Contains(s.YAML, want) {
		t.Errorf("%q is missing in:\n%s", want, s.YAML)
	}
	s, err = Suggest("k", []Call{call(t, "t1", "bank/send_money", `{"amount":1,"recipient":"r","hidden":5}`)}, testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	if want := "hidden: {} # not recorded"; !strings.Contains(s.YAML, want) {
		t.Errorf("%q is missing in:\n%s", want, s.YAML)
	}
	for name, calls := range map[string][]Call{
		"redacted, and where is not known": {whole},
		"of all arguments":                 {without(full, "")},
		"opaque, of no type":               {without(full, "/note")},
		"opaque, of no closed type":        {without(full, "/secret")},
		"opaque, but there":                {call(t, "t1", "bank/send_money", `{"amount":1,"note":7}`)},
	} {
		s, err := Suggest("k", calls, testCatalog(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.Contains(s.YAML, "# any input: ") || strings.Contains(s.YAML, "amount") {
			t.Errorf("%s:\n%s", name, s.YAML)
		}
	}
}

func TestSuggestRefuses(t *testing.T) {
	one := call(t, "t1", "bank/get_iban", "{}")
	for name, tc := range map[string]struct {
		kind  string
		calls []Call
	}{
		"no calls":     {"k", nil},
		"no kind":      {"a b", []Call{one}},
		"unknown tool": {"k", []Call{{Task: "t", Tool: "bank/gone"}}},
		"bad params":   {"k", []Call{{Task: "t", Tool: one.Tool, Input: one.Input, Params: json.RawMessage("[]")}}},
	} {
		if s, err := Suggest(tc.kind, tc.calls, testCatalog(t)); err == nil {
			t.Errorf("%s: %s", name, s.YAML)
		}
	}
}

// TestSuggestCovers: whatever was called, there is a proposal, and by its own
// check it covers the calls; and it is the same whatever the calls' order within
// a task is.
func TestSuggestCovers(t *testing.T) {
	c := testCatalog(t)
	text := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "true", "$param", "no", "1e3", "- x", "'"}), rapid.String())
	number := rapid.OneOf(rapid.SampledFrom([]string{"0", "1", "1.5", "-2", "1e2", "0.00001", "9007199254740991", "1e300"}), rapid.Map(rapid.IntRange(-50, 5000), func(i int) string { return fmt.Sprint(i) }))
	rapid.Check(t, func(t *rapid.T) {
		members := map[string]*rapid.Generator[any]{
			"recipient": rapid.Map(text, asAny[string]), "date": rapid.Map(text, asAny[string]),
			"amount": rapid.Map(number, func(n string) any { return strictjson.Number(n) }),
			"copies": rapid.Map(rapid.IntRange(-3, 3), func(i int) any { return strictjson.Number(fmt.Sprint(i)) }),
			"loud":   rapid.Map(rapid.Bool(), asAny[bool]),
			"tags":   rapid.Map(rapid.SliceOfN(rapid.Map(text, asAny[string]), 0, 3), asAny[[]any]),
			"from":   rapid.Map(text, func(s string) any { return map[string]any{"iban": s} }),
			"rows":   rapid.Map(rapid.IntRange(0, 2), func(i int) any { return slices.Repeat([]any{map[string]any{"n": strictjson.Number(fmt.Sprint(i))}}, i) }),
		}
		names := rapid.SliceOfDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(members))), rapid.ID[string]).Draw(t, "names")
		fixed := rapid.SliceOfDistinct(rapid.SampledFrom(append(names, "-")), rapid.ID[string]).Draw(t, "fixed in a task")
		given := rapid.SliceOfDistinct(rapid.SampledFrom(append(names, "unused")), rapid.ID[string]).Draw(t, "given")
		members["unused"] = members["amount"]
		params := map[string]map[string]any{}
		var calls []Call
		for task := range rapid.IntRange(1, 4).Draw(t, "tasks") {
			of := map[string]any{}
			for _, name := range names {
				of[name] = members[name].Draw(t, name)
			}
			values := map[string]any{}
			for _, name := range given {
				if values[name] = of[name]; rapid.Bool().Draw(t, "another") || name == "unused" {
					values[name] = members[name].Draw(t, "given "+name)
				}
			}
			params[fmt.Sprint(task)] = values
			text, err := strictjson.Canonical(values)
			if err != nil {
				t.Fatal(err)
			}
			for range rapid.IntRange(1, 4).Draw(t, "calls") {
				in := map[string]any{}
				for _, name := range names {
					if in[name] = members[name].Draw(t, name); slices.Contains(fixed, name) {
						in[name] = of[name]
					}
				}
				calls = append(calls, Call{Task: fmt.Sprint(task), Tool: "bank/send_money", Input: in, Params: text})
			}
		}
		s, err := Suggest("k", calls, c)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(calls)
		again, err := Suggest("k", calls, c)
		if err != nil || again.YAML != s.YAML {
			t.Fatalf("in another order: %v\n%s\n%s", err, s.YAML, again.YAML)
		}
		// By another way: every call's constraint, read anew.
		m, err := Parse("m", []byte(s.YAML), c)
		if err != nil {
			t.Fatal(err)
		}
		// Each task can be started again with what it was started with.
		for task, values := range params {
			for name, v := range values {
				p := m.params[name]
				if strings.Contains(strings.Join(s.Notes, "\n"), fmt.Sprintf("%q, which is no parameter", name)) {
					continue
				}
				if p == nil || !p.must {
					t.Fatalf("%s is not required in\n%s", name, s.YAML)
				}
				one, err := closedOver(map[string]*parameter{name: p})
				if err != nil || one.Check(map[string]any{name: v}) != nil {
					t.Fatalf("task %s was started with another %s than\n%s", task, name, s.YAML)
				}
			}
		}
		if len(m.params) == 0 && m.Tools[0].input != nil {
			e, _, err := m.Entry("bank/send_money", json.RawMessage("{}"))
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range calls {
				input, _ := strictjson.Canonical(call.Input)
				if c, err := grants.CompileConstraint(e.Constraint); err != nil || c.Check(call.Input) != nil {
					t.Fatalf("%s is not covered by\n%s", input, s.YAML)
				}
			}
		}
	})
}

func asAny[T any](v T) any { return v }
