package cedar

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

func TestValues(t *testing.T) {
	s := policies(t, permitAll)
	const ok = `"amount": 1, "to": "a"`
	body := func(members string) string { return `{"body": {` + members + `}}` }
	for _, tt := range []struct{ args, want string }{ // "": unrepresentable
		{body(ok), `{"body":{"amount":decimal("1.0"), "to":"a"}}`},
		{body(`"amount": 0.0001, "to": ""`), `{"body":{"amount":decimal("0.0001"), "to":""}}`},
		{body(`"amount": -1.25e1, "to": ""`), `{"body":{"amount":decimal("-12.5"), "to":""}}`},
		{body(`"amount": 0.00001, "to": ""`), ``},
		{body(`"amount": 1e300, "to": ""`), ``},
		{body(`"amount": "1", "to": ""`), ``},
		{body(`"amount": null, "to": ""`), ``},
		{body(`"amount": 1, "to": 1`), ``},
		{body(`"amount": 1, "to": true`), ``},
		{body(`"amount": 1, "to": ["a"]`), ``},
		{body(`"amount": 1, "to": {}`), ``},
		{body(`"amount": 1`), ``}, // "to" is required, and policies were told that it is there
		{body(ok + `, "nosuch": 1`), ``},
		{body(ok + `, "__entity": {"type": "Toolgrant::Agent", "id": "corp/root"}`), ``},
		{body(`"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}, "to": "a"`), ``},
		{body(`"amount": 1, "to": {"__entity": {"type": "Toolgrant::Agent", "id": "corp/root"}}`), ``},
		{body(ok + `, "urgent": false`), `{"body":{"amount":decimal("1.0"), "to":"a", "urgent":false}}`},
		{body(ok + `, "urgent": 0`), ``},
		{body(ok + `, "x": -5`), `{"body":{"amount":decimal("1.0"), "to":"a", "x":-5}}`},
		{body(ok + `, "x": 2.0`), `{"body":{"amount":decimal("1.0"), "to":"a", "x":2}}`},
		{body(ok + `, "x": 2.5`), ``},
		{body(ok + `, "x": true`), ``},
		{body(ok + `, "tags": []`), `{"body":{"amount":decimal("1.0"), "tags":[], "to":"a"}}`},
		{body(ok + `, "tags": ["b"]`), `{"body":{"amount":decimal("1.0"), "tags":["b"], "to":"a"}}`},
		{body(ok + `, "tags": ["b", "b"]`), ``},
		{body(ok + `, "tags": ["b", 1]`), ``},
		{body(ok + `, "tags": "b"`), ``},
		{body(ok + `, "tags": {}`), ``},
		{body(ok + `, "matrix": [[1, 2]]`), `{"body":{"amount":decimal("1.0"), "matrix":[[1, 2]], "to":"a"}}`},
		{body(ok + `, "matrix": [[1, 2], [2, 1]]`), ``}, // equal, as sets
		{body(ok + `, "lines": [{"sku": "a", "n": 1}]`), `{"body":{"amount":decimal("1.0"), "lines":[{"n":1, "sku":"a"}], "to":"a"}}`},
		{body(ok + `, "lines": [{"n": 1}]`), ``},
		{body(ok + `, "lines": [{"sku": "a", "m": 1}]`), ``},
		{body(ok + `, "lines": [null]`), ``},
		{body(ok + `, "memo": {"any": [null, 1e300]}`), `{"body":{"amount":decimal("1.0"), "to":"a"}}`},
		{body(ok + `, "extra": {"blob": {"any": null}, "ref": "r"}`), `{"body":{"amount":decimal("1.0"), "extra":{"ref":"r"}, "to":"a"}}`},
		{body(ok + `, "extra": {"blob": {}, "blub": {}}`), ``},
		{`{}`, ``},
		{`{"body": []}`, ``},
		{`{` + ok + `}`, ``},
		{`{"body": {` + ok + `}, "query": {}}`, ``},
		{`[]`, ``},
		{`"a"`, ``},
		{`1`, ``},
		{`false`, ``},
	} {
		t.Run(tt.args, func(t *testing.T) {
			in := call("bank/pay", nil, parse(t, tt.args))
			if tt.want == "" {
				want(t, decide(t, s, in), "unrepresentable")
				return
			}
			want(t, decide(t, s, in), "allow all")
			var q question
			if why := s.ask(&in, &q); why != grants.None {
				t.Fatal(why)
			}
			if got, _ := q.request.Context.Get("input"); got.String() != tt.want {
				t.Errorf("policy sees %s", got)
			}
		})
	}
	t.Run("foreign Go types", func(t *testing.T) {
		for _, v := range []any{1, 1.5, int64(1), json.Number("1"), map[string]string{}, []string{}, struct{}{}} {
			want(t, decide(t, s, call("bank/pay", nil, map[string]any{"body": map[string]any{"amount": v, "to": "a"}})), "unrepresentable")
		}
	})
}

func TestLargeArrays(t *testing.T) {
	s := policies(t, permitAll)
	pay := func(member, elements string) grants.Decision {
		return decide(t, s, call("bank/pay", nil, parse(t, `{"body": {"amount": 1, "to": "a", "`+member+`": [`+elements+`]}}`)))
	}
	list := func(n int, element func(i int) string) string {
		var all []string
		for i := range n {
			all = append(all, element(i))
		}
		return strings.Join(all, ",")
	}
	tag := func(i int) string { return fmt.Sprintf(`"%d"`, i) }
	want(t, pay("tags", list(maxArray, tag)), "allow all")
	want(t, pay("tags", list(maxArray+1, tag)), "unrepresentable")
	row := func(n int) func(int) string {
		return func(i int) string {
			return "[" + list(n, func(j int) string { return fmt.Sprint(i*1000 + j) }) + "]"
		}
	}
	want(t, pay("matrix", list(8, row(511))), "allow all") // 8 + 8 × 511 = 4096
	want(t, pay("matrix", list(8, row(512))), "unrepresentable")
}

// FuzzDecideInput: no input panics, gets past a forbid, or is allowed with
// something in it that policy did not see.
func FuzzDecideInput(f *testing.F) {
	for _, seed := range []string{
		`{"body": {"amount": 1, "to": "a"}}`, `{"body": {"amount": 100.0001, "to": "a"}}`,
		`{"body": {"amount": 1e2, "to": "evil"}}`, `{"body": {"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}, "to": "a"}}`,
		`{"body": {"amount": 1, "to": {"__entity": {"type": "Toolgrant::Agent", "id": "corp/a"}}}}`,
		`{"body": {"amount": 1, "to": "a", "memo": null, "extra": {"blob": [1, 1]}}}`,
		`{"body": {"amount": 1, "to": "a", "tags": ["a", "evil"], "matrix": [[1], [2, 3]], "lines": [{"sku": "a"}], "x": 3}}`, `[]`, `null`,
	} {
		f.Add([]byte(seed))
	}
	s := policies(f, permitAll+`@id("much") forbid (principal, action == T::Action::"call:bank/pay", resource)
		unless { context has input && context.input.body.amount.lessThanOrEqual(decimal("100.0")) };
		@id("evil") forbid (principal, action == T::Action::"call:bank/pay", resource)
		when { context has input && (context.input.body.to == "evil" || context.input.body has tags && context.input.body.tags.contains("evil")) };`)
	f.Fuzz(func(t *testing.T, text []byte) {
		args, err := strictjson.Parse(text, strictjson.Limits{})
		if err != nil {
			return
		}
		if !decide(t, s, call("bank/pay", testGrant("bank/pay"), args)).Allow {
			return
		}
		body, ok := args.(map[string]any)["body"].(map[string]any)
		if !ok || len(args.(map[string]any)) != 1 {
			t.Fatalf("allowed %s", text)
		}
		amount, ok := body["amount"].(strictjson.Number)
		value, exact := new(big.Rat).SetString(string(amount))
		if !ok || !exact || value.Cmp(big.NewRat(100, 1)) > 0 {
			t.Fatalf("allowed %s", text)
		}
		if to, ok := body["to"].(string); !ok || to == "evil" {
			t.Fatalf("allowed %s", text)
		}
		tags, _ := body["tags"].([]any)
		for _, tag := range tags {
			if s, ok := tag.(string); !ok || s == "evil" {
				t.Fatalf("allowed %s", text)
			}
		}
		delete(body, "memo") // opaque
		if extra, ok := body["extra"].(map[string]any); ok {
			delete(extra, "blob")
		}
		for name, member := range body {
			switch name {
			case "amount", "to", "urgent", "x", "tags", "matrix", "lines", "extra":
			default:
				t.Fatalf("allowed %q in %s", name, text)
			}
			if hasNull(member) {
				t.Fatalf("allowed a null in %s", text)
			}
		}
	})
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	}
	return false
}
