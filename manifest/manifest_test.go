package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const tools = `
servers:
- id: bank
  resource: https://bank.example
  upstream: 127.0.0.1:9001
  mcp:
    path: /mcp
  tools:
  - tool: send_money
    input:
      type: object
      required: [recipient, amount]
      properties:
        recipient: {type: string}
        amount: {type: number}
        date: {type: string}
        urgency: {type: string, enum: [low, high]}
        tags: {type: array, items: {type: string}}
        copies: {type: integer}
        loud: {type: boolean}
        from:
          type: object
          required: [iban]
          properties: {iban: {type: string}, limit: {type: number}}
        rows: {type: array, items: {type: object, properties: {n: {type: integer}}}}
        note: {type: any}
        secret: {type: object, required: [code], properties: {code: {type: integer}}}
        hidden: {type: number}
    opaque: [/note, /secret, /hidden]
  - tool: get_iban
  - tool: wire
    input: {type: object, properties: {amount: {type: number}}}
- id: shop
  resource: https://shop.example
  upstream: 127.0.0.1:9002
  http:
  - tool: order
    method: POST
    path: /orders
    query: {dry: {type: boolean}}
    header: {x-shop: {type: string}}
    body:
      type: object
      required: [item]
      properties: {item: {type: string}, price: {type: number}, "a/b": {type: integer}}
  - tool: tag
    method: PUT
    path: /tags
    body: {type: array, items: {type: string}}
  - tool: look
    method: GET
    path: /look
`

// payBill is the example of the documents.
const payBill = `
kind: pay-bill
description: Pay one bill.
max_duration: 10m
params: {type: object, required: [recipient, limit], properties: {recipient: {type: string}, limit: {type: number, maximum: 10000}}}
tools:
- tool: bank/send_money
  ttl: 2m
  max_calls: 3
  sum: {argument: /amount, max: {$param: limit}}          # over all calls of the task
  input: {recipient: {const: {$param: recipient}}, amount: {maximum: {$param: limit}}}
- {tool: bank/get_iban}
- {tool: bank/wire, once: true}
`

func testCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("tools.yaml", []byte(tools))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustParse(t testing.TB, text string) *Manifest {
	t.Helper()
	m, err := Parse("m.yaml", []byte(text), testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// with is a manifest with these parameters and tools.
func with(params, tools string) string {
	return "kind: k\nparams: {type: object, " + params + "}\ntools:\n" + tools + "\n"
}

// input is a manifest with these parameters, which all are required, and this
// template of bank/send_money.
func input(params, template string) string {
	var names []string
	for p := range strings.SplitSeq(params, "}; ") {
		name, _, _ := strings.Cut(p, ":")
		names = append(names, name)
	}
	list := strings.Join(names, ", ")
	if params == "" {
		list = ""
	}
	return with("required: ["+list+"], properties: {"+strings.ReplaceAll(params, "}; ", "}, ")+"}",
		"- {tool: bank/send_money, input: {recipient: {}, amount: {}, "+template+"}}")
}

func TestPayBill(t *testing.T) {
	m := mustParse(t, payBill)
	if m.Kind != "pay-bill" || m.MaxDuration != 10*time.Minute || m.Description != "Pay one bill." || m.At != "m.yaml:2" {
		t.Errorf("read %q, %v, %q at %s", m.Kind, m.MaxDuration, m.Description, m.At)
	}
	if diff := cmp.Diff(&catalog.Schema{
		Type: "object", Required: []string{"limit", "recipient"},
		Properties: map[string]*catalog.Schema{"recipient": {Type: "string"}, "limit": {Type: "number"}},
	}, m.Params); diff != "" {
		t.Errorf("Params (-want +got):\n%s", diff)
	}
	params, err := m.ReadParams([]byte(`{"recipient": "GB29", "limit": 100.50}`))
	if err != nil || string(params) != `{"limit":100.5,"recipient":"GB29"}` {
		t.Fatalf("ReadParams = %s, %v", params, err)
	}
	e, ok, err := m.Entry("bank/send_money", params)
	if err != nil || !ok {
		t.Fatalf("Entry: %v, %v", ok, err)
	}
	const constraint = `{"additionalProperties":false,"properties":{"amount":{"maximum":100.5,"type":"number"},"recipient":{"const":"GB29","type":"string"}},"required":["amount","recipient"],"type":"object"}`
	if e.TTL != 2*time.Minute || e.MaxCalls != 3 || e.Once || string(e.Constraint) != constraint || e.Sums["/amount"] != 1_005_000 || len(e.Sums) != 1 {
		t.Errorf("Entry = %+v", e)
	}
	if e, ok, err := m.Entry("bank/get_iban", params); err != nil || !ok || e.Constraint != nil || e.MaxCalls != 0 || e.Sums != nil || e.TTL != 0 || e.Tool.ID != "bank/get_iban" {
		t.Errorf("Entry of get_iban = %+v, %v, %v", e, ok, err)
	}
	if e, ok, err := m.Entry("bank/wire", params); err != nil || !ok || !e.Once {
		t.Errorf("Entry of wire = %+v, %v, %v", e, ok, err)
	}
	if _, ok, err := m.Entry("shop/look", params); ok || err != nil {
		t.Errorf("a tool that is not in the manifest: %v, %v", ok, err)
	}
}

// accepts reports whether a call with the input passes the compiled template.
func accepts(t testing.TB, e Entry, text string) bool {
	t.Helper()
	c, err := grants.CompileConstraint(e.Constraint)
	if err != nil {
		t.Fatalf("constraint %s: %v", e.Constraint, err)
	}
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(v) == nil
}

func TestTemplates(t *testing.T) {
	const base = `"recipient":"r","amount":1`
	for _, tc := range []struct {
		params, template, values string
		passes, breaks           []string // members beside recipient and amount
	}{
		{"", "", "{}", []string{``}, []string{`,"date":"x"`}},
		{"", "date: {}", "{}", []string{`,"date":"x"`}, []string{``, `,"date":1`}},
		{"", "urgency: {}", "{}", []string{`,"urgency":"low"`}, []string{`,"urgency":"x"`}},
		{"", "urgency: {const: low}", "{}", []string{`,"urgency":"low"`}, []string{`,"urgency":"high"`}},
		{"", "tags: {maxItems: 1}", "{}", []string{`,"tags":["a"]`, `,"tags":[]`}, []string{`,"tags":["a","b"]`, `,"tags":[1]`}},
		{"", "tags: {items: {const: a}}", "{}", []string{`,"tags":["a"]`}, []string{`,"tags":["b"]`}},
		{"", "tags: {const: [a, b]}", "{}", []string{`,"tags":["a","b"]`}, []string{`,"tags":["b","a"]`, `,"tags":["a"]`}},
		{"", "rows: {items: {properties: {n: {minimum: 3}}}}", "{}", []string{`,"rows":[{"n":3}]`}, []string{`,"rows":[{"n":2}]`, `,"rows":[{}]`}},
		{"", "from: {properties: {iban: {pattern: '^(?:A+)$'}}}", "{}", []string{`,"from":{"iban":"AA"}`}, []string{`,"from":{"iban":"B"}`, `,"from":{"iban":"A","limit":1}`, ``}},
		{"", "note: {type: integer}", "{}", []string{`,"note":7`}, []string{`,"note":"7"`, ``}},
		{"", "note: {type: object, properties: {a: {type: 'null'}}}", "{}", []string{`,"note":{"a":null}`}, []string{`,"note":{}`, `,"note":{"a":1}`}},
		{"", "secret: {properties: {code: {type: string}, more: {type: boolean}}}", "{}", []string{`,"secret":{"code":"x","more":true}`}, []string{`,"secret":{"code":1,"more":true}`}},
		{"", "copies: {enum: [1, 2]}", "{}", []string{`,"copies":2`, `,"copies":2.0`}, []string{`,"copies":3`}},
		{"", "loud: {const: true}", "{}", []string{`,"loud":true`}, []string{`,"loud":false`}},

		{"d: {type: string}", "date: {const: {$param: d}}", `{"d":"x"}`, []string{`,"date":"x"`}, []string{`,"date":"y"`}},
		{"b: {type: boolean}", "loud: {const: {$param: b}}", `{"b":false}`, []string{`,"loud":false`}, []string{`,"loud":true`}},
		{"l: {type: array, items: {type: string}}", "date: {enum: {$param: l}}", `{"l":["x","y"]}`, []string{`,"date":"y"`}, []string{`,"date":"z"`}},
		{"l: {type: array, items: {type: string}}", "tags: {const: {$param: l}}", `{"l":["x"]}`, []string{`,"tags":["x"]`}, []string{`,"tags":["x","y"]`}},
		{"l: {type: array, items: {type: string}}", "tags: {items: {enum: {$param: l}}}", `{"l":["x"]}`, []string{`,"tags":["x"]`}, []string{`,"tags":["x","y"]`}},
		{"n: {type: integer}", "copies: {exclusiveMaximum: {$param: n}}", `{"n":5}`, []string{`,"copies":4`}, []string{`,"copies":5`}},
		{"n: {type: integer}", "from: {properties: {iban: {}, limit: {minimum: {$param: n}}}}", `{"n":5}`, []string{`,"from":{"iban":"x","limit":5.5}`}, []string{`,"from":{"iban":"x","limit":4}`}},
		{"n: {type: integer}", "date: {maxLength: {$param: n}}", `{"n":2}`, []string{`,"date":"xy"`}, []string{`,"date":"xyz"`}},
		{"n: {type: integer}", "tags: {maxItems: {$param: n}}", `{"n":0}`, []string{`,"tags":[]`}, []string{`,"tags":["a"]`}},

		// What a value holds is data.
		{"d: {type: string}", "date: {const: {$param: d}}", `{"d":"{$param: d}"}`, []string{`,"date":"{$param: d}"`}, []string{`,"date":"d"`}},
		{"d: {type: string}; e: {type: string}", "date: {const: {$param: d}}", `{"d":"$param","e":"x"}`, []string{`,"date":"$param"`}, []string{`,"date":"x"`}},
		{"d: {type: string}", "date: {const: d}", `{"d":"x"}`, []string{`,"date":"d"`}, []string{`,"date":"x"`}},
		{"d: {type: string}; e: {type: string}", "date: {const: {$param: d}}", `{"d":"e","e":"x"}`, []string{`,"date":"e"`}, []string{`,"date":"x"`}},
		{"l: {type: array, items: {type: string}}", "date: {enum: {$param: l}}", `{"l":["$param","l"]}`, []string{`,"date":"l"`}, []string{`,"date":""`}},
	} {
		t.Run(tc.template+" "+tc.values, func(t *testing.T) {
			m := mustParse(t, input(tc.params, tc.template))
			params, err := m.ReadParams([]byte(tc.values))
			if err != nil {
				t.Fatal(err)
			}
			e, _, err := m.Entry("bank/send_money", params)
			if err != nil {
				t.Fatal(err)
			}
			for _, members := range tc.passes {
				if !accepts(t, e, "{"+base+members+"}") {
					t.Errorf("%s: refused by %s", members, e.Constraint)
				}
			}
			for _, members := range tc.breaks {
				if accepts(t, e, "{"+base+members+"}") {
					t.Errorf("%s: let through by %s", members, e.Constraint)
				}
			}
		})
	}
}

func TestPartsOfHTTPTools(t *testing.T) {
	m := mustParse(t, `
kind: k
tools:
- tool: shop/order
  input: {body: {item: {const: book}, price: {maximum: 5}}}
  sum: {argument: /body/price, max: 7.25}
- {tool: shop/tag, input: {body: {items: {const: a}}}}
- {tool: shop/look, input: {}}
`)
	for tool, calls := range map[string]map[string]bool{
		"shop/order": {
			`{"query":{},"header":{},"body":{"item":"book","price":5}}`:             true,
			`{"query":{"dry":true},"header":{},"body":{"item":"book","price":5}}`:   false,
			`{"query":{},"header":{"x-shop":"a"},"body":{"item":"book","price":5}}`: false,
			`{"query":{},"header":{},"body":{"item":"book"}}`:                       false,
			`{"header":{},"body":{"item":"book","price":5}}`:                        false,
		},
		"shop/tag":  {`{"body":["a","a"]}`: true, `{"body":["b"]}`: false},
		"shop/look": {`{}`: true, `{"query":{}}`: false},
	} {
		e, _, err := m.Entry(tool, json.RawMessage("{}"))
		if err != nil {
			t.Fatal(err)
		}
		for call, want := range calls {
			if accepts(t, e, call) != want {
				t.Errorf("%s: %s passes: %v", tool, call, !want)
			}
		}
	}
	if e, _, _ := m.Entry("shop/order", json.RawMessage("{}")); e.Sums["/body/price"] != 72_500 {
		t.Errorf("sums: %v", e.Sums)
	}
}

func TestReadParamsFillsIn(t *testing.T) {
	m := mustParse(t, with("required: [a], properties: {a: {type: string}, n: {type: integer, default: 1e1}, l: {type: array, items: {type: number}, default: [1.50]}}",
		"- {tool: bank/get_iban, max_calls: {$param: n}}"))
	params, err := m.ReadParams([]byte(`{"a":"é\u0001"}`))
	if want := `{"a":"é\u0001","l":[1.5],"n":10}`; err != nil || string(params) != want {
		t.Fatalf("ReadParams = %s, %v; want %s", params, err, want)
	}
	again, err := m.ReadParams(params)
	if err != nil || string(again) != string(params) {
		t.Errorf("ReadParams of what it gave = %s, %v", again, err)
	}
	if e, _, err := m.Entry("bank/get_iban", params); err != nil || e.MaxCalls != 10 {
		t.Errorf("Entry = %+v, %v", e, err)
	}
	long := mustParse(t, with("required: [a], properties: {a: {type: string}, b: {type: string, default: "+strings.Repeat("b", 5000)+"}}", "- {tool: bank/get_iban}"))
	if _, err := long.ReadParams([]byte(`{"a":"` + strings.Repeat("a", 3000) + `"}`)); err != nil {
		t.Errorf("within the bound: %v", err)
	}
	if _, err := long.ReadParams([]byte(`{"a":"` + strings.Repeat("a", 5000) + `"}`)); err == nil || !strings.Contains(err.Error(), "over 8192 bytes") {
		t.Errorf("over the bound with the defaults: %v", err)
	}
	none := mustParse(t, "kind: k\ntools: [{tool: bank/get_iban}]")
	for _, raw := range []json.RawMessage{nil, json.RawMessage("{}")} {
		if params, err := none.ReadParams(raw); err != nil || string(params) != "{}" {
			t.Errorf("without parameters: %s, %v", params, err)
		}
	}
}

func TestReadParamsRefuses(t *testing.T) {
	const secret = 77123
	both := input("n: {type: number}; m: {type: number}; d: {type: string}; l: {type: array, items: {type: string}}; i: {type: integer}; s: {type: number}",
		"date: {const: {$param: d}, maxLength: 8}, from: {properties: {iban: {enum: {$param: l}}, limit: {minimum: {$param: m}, maximum: {$param: n}}}}, tags: {maxItems: {$param: i}}")
	both += "- {tool: bank/get_iban, max_calls: {$param: i}}\n- {tool: bank/wire, sum: {argument: /amount, max: {$param: s}}}\n"
	m := mustParse(t, both)
	good := map[string]any{"n": secret, "m": 1, "d": "x", "l": []string{"y"}, "i": 5, "s": secret}
	text, _ := json.Marshal(good)
	if _, err := m.ReadParams(text); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, value, want string }{
		{"d", ``, `"d" is missing`},
		{"x", `1`, `no parameter "x"`},
		{"nn", `1`, `did you mean "n"?`},
		{"n", `"77123"`, `at "/n" must be of type number`},
		{"n", `null`, `at "/n" must be of type number`},
		{"n", `0`, "nothing could pass"},
		{"s", `0`, "over 0"},
		{"s", `-77123`, "over 0"},
		{"s", `77123.77123`, "4 decimals"},
		{"s", `1e300`, "4 decimals"},
		{"n", `77123.00000000000000000000001`, "digits"},
		{"m", `77123.5`, "nothing could pass"}, // its minimum is above the maximum
		{"i", `0`, "whole number from 1 to 2147483648"},
		{"i", `-1`, "whole number from 0"},
		{"i", `2147483649`, "whole number from 1 to 2147483648"},
		{"i", `77123.5`, `must be of type integer`},
		{"d", `"77123xxxxx"`, "longer than 8"},
		{"d", `"` + strings.Repeat("77123", 2000) + `"`, "8192 bytes"},
		{"l", `[]`, "at least one value"},
		{"l", `["` + strings.Repeat("77123", 1600) + `"]`, "larger than one may be"},
		{"l", `["77123", 1]`, `"/l/1" must be of type string`},
	} {
		t.Run(tc.name+" "+tc.value[:min(20, len(tc.value))], func(t *testing.T) {
			values := map[string]json.RawMessage{}
			if err := json.Unmarshal(text, &values); err != nil {
				t.Fatal(err)
			}
			values[tc.name] = json.RawMessage(tc.value)
			if tc.value == "" {
				delete(values, tc.name)
			}
			raw := "{"
			for name, v := range values {
				raw += fmt.Sprintf("%q:%s,", name, v)
			}
			params, err := m.ReadParams([]byte(strings.TrimSuffix(raw, ",") + "}"))
			if err == nil {
				t.Fatalf("read as %s", params)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "77123") {
				t.Errorf("a value is in the error: %v", err)
			}
		})
	}
	for _, raw := range []string{"", "null", "[]", `"x"`, `{"a":1,"a":2}`, "{} {}"} {
		if _, err := m.ReadParams([]byte(raw)); err == nil {
			t.Errorf("%q was read", raw)
		}
	}
}

func TestEntryOfOtherParameters(t *testing.T) {
	m := mustParse(t, payBill)
	for _, params := range []string{"", "null", "[]", "{}", `{"limit":1}`, `{"limit":20000,"recipient":"x"}`, `{"limit":1,"recipient":"x","more":1}`, `{"limit":"1","recipient":"x"}`} {
		if e, ok, err := m.Entry("bank/send_money", json.RawMessage(params)); err == nil || !ok {
			t.Errorf("%s: %+v, %v, %v", params, e, ok, err)
		}
	}
}
