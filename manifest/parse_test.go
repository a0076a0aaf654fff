package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// entry is a manifest with one entry for a tool; params p of each type are there.
func entry(fields string) string {
	return with("required: [s, n, i, b, ls, li, low], properties: {s: {type: string}, n: {type: number}, i: {type: integer}, b: {type: boolean},"+
		" ls: {type: array, items: {type: string}}, li: {type: array, items: {type: integer}}, low: {type: integer, maximum: 0}}",
		"- {"+fields+"}")
}

func sendMoney(template string) string {
	return entry("tool: bank/send_money, input: {recipient: {}, amount: {}, " + template + "}")
}

func TestParseRefuses(t *testing.T) {
	many := func(n int, item string) string { return strings.Repeat(item, n) }
	param := func(schema string) string {
		return with("required: [p], properties: {p: "+schema+"}", "- {tool: bank/get_iban}")
	}
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "m.yaml:1:1: the file is empty"},
		{"not YAML", "a: [", "m.yaml:1:"},
		{"two documents", "kind: k\n---\nkind: l\n", "m.yaml:3:5: more than one YAML document"},
		{"too large", "# " + many(MaxFile, "x"), "m.yaml: larger than 65536 bytes"},
		{"no mapping", "- a", "a manifest must be a mapping"},
		{"unknown key", "kind: k\ntool: []\ntools: [{tool: bank/get_iban}]", `m.yaml:2:1: a manifest has no "tool"; did you mean "tools"?`},
		{"another version", "version: 2\nkind: k\ntools: [{tool: bank/get_iban}]", "m.yaml:1:10: \"version\" is 1"},
		{"version as text", "version: '1'\nkind: k\ntools: [{tool: bank/get_iban}]", "\"version\" is 1"},
		{"no kind", "tools: [{tool: bank/get_iban}]", `"kind" is missing`},
		{"kind with a blank", "kind: a b\ntools: [{tool: bank/get_iban}]", "m.yaml:1:7: \"kind\" is 1 to 64 bytes"},
		{"long kind", "kind: " + many(65, "k") + "\ntools: [{tool: bank/get_iban}]", "1 to 64 bytes"},
		{"number as kind", "kind: 7\ntools: [{tool: bank/get_iban}]", "put it in quotes"},
		{"long description", "kind: k\ndescription: " + many(1025, "d") + "\ntools: [{tool: bank/get_iban}]", "over 1024 bytes"},
		{"max_duration without a unit", "kind: k\nmax_duration: 10\ntools: [{tool: bank/get_iban}]", "m.yaml:2:15: \"max_duration\" must be whole seconds"},
		{"max_duration of parts", "kind: k\nmax_duration: 1500ms\ntools: [{tool: bank/get_iban}]", "whole seconds"},
		{"max_duration below", "kind: k\nmax_duration: 0s\ntools: [{tool: bank/get_iban}]", "2s or more"},
		{"max_duration beyond", "kind: k\nmax_duration: 9999999999999h\ntools: [{tool: bank/get_iban}]", "whole seconds"},

		{"no tools", "kind: k", `"tools" is missing`},
		{"tools no list", "kind: k\ntools: {}", `"tools" must be a list`},
		{"none in it", "kind: k\ntools: []", `"tools" has none`},
		{"too many", "kind: k\ntools:\n" + many(MaxTools+1, "- {tool: bank/get_iban}\n"), "at most 16 tools"},
		{"twice", "kind: k\ntools: [{tool: bank/get_iban}, {tool: bank/get_iban}]", "m.yaml:2:33: tool \"bank/get_iban\" is there twice"},
		{"unknown tool", "kind: k\ntools: [{tool: bank/get_ibn}]", `m.yaml:2:16: the catalogue has no tool "bank/get_ibn"; did you mean "bank/get_iban"?`},
		{"no tool", "kind: k\ntools: [{ttl: 2s}]", `"tool" is missing`},
		{"no entry", "kind: k\ntools: [bank/get_iban]", "a tool's entry must be a mapping"},
		{"unknown field", entry("tool: bank/get_iban, maxcalls: 3"), `did you mean "max_calls"?`},
		{"short ttl", entry("tool: bank/get_iban, ttl: 1s"), "2s or more"},
		{"negative ttl", entry("tool: bank/get_iban, ttl: -5s"), "2s or more"},
		{"once no boolean", entry("tool: bank/get_iban, once: 1"), "true or false"},

		{"max_calls 0", entry("tool: bank/get_iban, max_calls: 0"), "a whole number from 1 to 2147483648"},
		{"max_calls beyond", entry("tool: bank/get_iban, max_calls: 2147483649"), "a whole number from 1 to 2147483648"},
		{"max_calls of parts", entry("tool: bank/get_iban, max_calls: 1.5"), "a whole number"},
		{"max_calls text", entry("tool: bank/get_iban, max_calls: '3'"), "must be a number"},
		{"max_calls odd", entry("tool: bank/get_iban, max_calls: 0x10"), "must be a number"},
		{"max_calls of a number", entry("tool: bank/get_iban, max_calls: {$param: n}"), `parameter "n" is of type number, and "max_calls" of bank/get_iban takes one of type integer`},
		{"max_calls of none", entry("tool: bank/get_iban, max_calls: {$param: nn}"), `there is no parameter "nn"; did you mean`},
		{"max_calls never", entry("tool: bank/get_iban, max_calls: {$param: low}"), `parameter "low" can be none that fits "max_calls"`},
		{"max_calls with more", entry("tool: bank/get_iban, max_calls: {$param: i, or: 3}"), "nothing beside it"},
		{"max_calls of a number as name", entry("tool: bank/get_iban, max_calls: {$param: 3}"), "nothing beside it"},

		{"sum of nothing", entry("tool: bank/wire, sum: []"), "bounds nothing"},
		{"sum text", entry("tool: bank/wire, sum: 5"), "a sum must be a mapping"},
		{"sum without max", entry("tool: bank/wire, sum: {argument: /amount}"), `"max" is missing`},
		{"sum without argument", entry("tool: bank/wire, sum: {max: 3}"), `"argument" is missing`},
		{"sum of 0", entry("tool: bank/wire, sum: {argument: /amount, max: 0}"), "over 0 with at most 4 decimals"},
		{"sum below 0", entry("tool: bank/wire, sum: {argument: /amount, max: -1}"), "over 0"},
		{"sum of 5 decimals", entry("tool: bank/wire, sum: {argument: /amount, max: 0.00001}"), "4 decimals"},
		{"sum beyond", entry("tool: bank/wire, sum: {argument: /amount, max: 1e15}"), "922 trillion"},
		{"sum of a text", entry("tool: bank/wire, sum: {argument: /amount, max: {$param: s}}"), "takes one of type number or integer"},
		{"sum never", entry("tool: bank/wire, sum: {argument: /amount, max: {$param: low}}"), "can be none that fits"},
		{"sum of no pointer", entry("tool: bank/wire, sum: {argument: amount, max: 1}"), "write a JSON Pointer into the call's input, such as /amount"},
		{"sum of no pointer of HTTP", entry("tool: shop/order, sum: {argument: price, max: 1}"), "such as /body/amount"},
		{"sum of an unknown", entry("tool: bank/wire, sum: {argument: /amont, max: 1}"), `did you mean "amount"?`},
		{"sum of another type", entry("tool: bank/send_money, sum: {argument: /date, max: 1}"), "numbers alone are summed"},
		{"sum of an array's", entry("tool: bank/send_money, sum: {argument: /rows/0/n, max: 1}"), "objects alone"},
		{"sum of what is opaque", entry("tool: bank/send_money, sum: {argument: /secret/code, max: 1}"), "opaque"},
		{"sum of an opaque number", entry("tool: bank/send_money, sum: {argument: /hidden, max: 1}"), "opaque"},
		{"sum with two spellings", entry("tool: shop/order, sum: {argument: /body/a~2b, max: 1}"), "RFC 6901"},
		{"sum twice", entry("tool: bank/wire, sum: [{argument: /amount, max: 1}, {argument: /amount, max: 2}]"), "summed twice"},
		{"sum of what is not listed", entry("tool: bank/send_money, input: {recipient: {}, amount: {}}, sum: {argument: /copies, max: 1}"), `"input" does not list it`},
		{"sum of what is not listed below", entry("tool: bank/send_money, input: {recipient: {}, amount: {}, from: {properties: {iban: {}}}}, sum: {argument: /from/limit, max: 1}"), `"input" does not list it`},

		{"input no mapping", entry("tool: bank/get_iban, input: [a]"), `"input" must be a mapping`},
		{"unknown argument", sendMoney("dat: {}"), `the catalogue declares no /dat of bank/send_money; did you mean "date"?`},
		{"required one is missing", entry("tool: bank/send_money, input: {recipient: {}}"), "/amount is missing: bank/send_money takes no call without it"},
		{"required one is missing below", sendMoney("from: {properties: {limit: {}}}"), "/from/iban is missing"},
		{"unknown part", entry("tool: shop/look, input: {body: {}}"), `the input of shop/look has no "body"`},
		{"unknown in a part", entry("tool: shop/order, input: {query: {dri: {}}, body: {item: {}}}"), `no /query/dri of shop/order; did you mean "dry"?`},
		{"part of a body is missing", entry("tool: shop/order, input: {}"), "/body/item is missing"},
		{"body that is no object", entry("tool: shop/tag, input: {}"), `"body" is missing: it is not an object`},
		{"value in place of a template", sendMoney("date: today"), "/date of bank/send_money: write {const: …} for one value, or {}"},
		{"parameter in place of a template", sendMoney("date: {$param: s}"), "write {const: {$param: …}}"},
		{"other type", sendMoney("date: {type: number}"), "/date of bank/send_money is of type string in the catalogue, not number"},
		{"unknown type", sendMoney("date: {type: text}"), `type "text": must be one of array, boolean`},
		{"type is no text", sendMoney("date: {type: [string]}"), `"type" must be a string`},
		{"no type where the catalogue has none", sendMoney("note: {}"), `give its "type": the catalogue has none`},
		{"no type in what is opaque", sendMoney("secret: {properties: {more: {}}}"), `/secret/more of bank/send_money: give its "type"`},
		{"misspelt keyword", sendMoney("date: {maxlength: 3}"), `"maxlength" is no keyword for a template of type string; did you mean "maxLength"?`},
		{"keyword of another type", sendMoney("date: {maximum: 3}"), `"maximum" is no keyword for a template of type string`},
		{"format", sendMoney("date: {format: date}"), `"format" is no keyword`},
		{"required", sendMoney("from: {properties: {iban: {}}, required: [iban]}"), `"required" is not written`},
		{"additionalProperties", sendMoney("from: {properties: {iban: {}}, additionalProperties: true}"), `"additionalProperties" is not written`},
		{"object without properties", sendMoney("from: {}"), `an object needs "properties"`},
		{"items that are objects", sendMoney("rows: {}"), `write "items"`},
		{"const and enum", sendMoney("date: {const: a, enum: [a]}"), `"const" and "enum" are both there`},
		{"const of another type", sendMoney("date: {const: 1}"), "could never pass"},
		{"enum of none", sendMoney("date: {enum: []}"), "at least one value"},
		{"enum text", sendMoney("date: {enum: a}"), "at least one value"},
		{"const that never is", sendMoney("urgency: {const: hi}"), `is never "hi" in the catalogue`},
		{"enum that never is", sendMoney("urgency: {enum: [low, hgh]}"), `did you mean "high"?`},
		{"pattern without an anchor", sendMoney("date: {pattern: a}"), "must be anchored"},
		{"bounds that cross", sendMoney("copies: {minimum: 3, maximum: 2}"), "nothing could pass"},
		{"number of too many digits", sendMoney("copies: {const: 9007199254740993}"), "beyond 2^53-1"},
		{"number of too many decimals", sendMoney("from: {properties: {iban: {}, limit: {maximum: 0.10000000000000000001}}}"), "more digits than a double has"},
		{"odd number", sendMoney("copies: {maximum: 1_000}"), "write a number in digits as JSON does"},
		{"too large", sendMoney("date: {const: " + many(8192, "x") + "}"), "8192 bytes"},

		{"too large together", sendMoney("date: {const: " + many(5000, "x") + "}, from: {properties: {iban: {const: " + many(5000, "y") + "}}}"), "8192 bytes"},

		{"$param in a pattern", sendMoney("date: {pattern: {$param: s}}"), `$param cannot stand for "pattern" here`},
		{"$param of another type", sendMoney("date: {const: {$param: i}}"), `parameter "i" is of type integer, and "const" of /date of bank/send_money takes one of type string`},
		{"$param number for an integer", sendMoney("copies: {const: {$param: n}}"), "takes one of type integer"},
		{"$param text for enum", sendMoney("date: {enum: {$param: s}}"), "takes one of type array of string"},
		{"$param list of others for enum", sendMoney("date: {enum: {$param: li}}"), "takes one of type array of string"},
		{"$param list for const", sendMoney("tags: {const: {$param: li}}"), "takes one of type array of string"},
		{"$param for a list's enum", sendMoney("tags: {enum: {$param: ls}}"), `cannot stand for "enum"`},
		{"$param in an enum", sendMoney("date: {enum: [{$param: s}]}"), "$param stands for the whole value of const, enum or a bound: it cannot stand here"},
		{"$param inside of a const", sendMoney("tags: {const: [{$param: s}]}"), "it cannot stand here"},
		{"$param as a length", sendMoney("date: {maxLength: {$param: n}}"), "takes one of type integer"},
		{"$param as type", sendMoney("date: {type: {$param: s}}"), `"type" must be a string`},
		{"$param as properties", sendMoney("from: {properties: {$param: s}}"), "the catalogue declares no /from/$param"},
		{"$param as items", sendMoney("tags: {items: {$param: s}}"), "write {const: {$param: …}}"},
		{"$param as input", entry("tool: bank/get_iban, input: {$param: s}"), "the catalogue declares no /$param"},
		{"$param as ttl", entry("tool: bank/get_iban, ttl: {$param: s}"), "whole seconds"},
		{"$param as tool", entry("tool: {$param: s}"), `"tool" must be a string`},
		{"$param that never fits", with("required: [p], properties: {p: {type: string, enum: [abc, abcd]}}", "- {tool: bank/send_money, input: {recipient: {const: {$param: p}, maxLength: 2}, amount: {}}}"), `parameter "p" can be none that fits "const"`},

		{"params no mapping", "kind: k\nparams: [a]\ntools: [{tool: bank/get_iban}]", `"params" must be a mapping`},
		{"params without a type", "kind: k\nparams: {properties: {}}\ntools: [{tool: bank/get_iban}]", `"type" is missing`},
		{"params of another type", "kind: k\nparams: {type: array}\ntools: [{tool: bank/get_iban}]", "is object"},
		{"params open", with("additionalProperties: true, properties: {}", "- {tool: bank/get_iban}"), "can be false alone"},
		{"params misspelt", with("propertis: {}", "- {tool: bank/get_iban}"), `did you mean "properties"?`},
		{"properties no mapping", with("properties: [p]", "- {tool: bank/get_iban}"), `"properties" must be a mapping`},
		{"required of none", with("required: [pp], properties: {p: {type: string, default: a}}", "- {tool: bank/get_iban}"), `required parameter "pp" is not in "properties"; did you mean "p"?`},
		{"required twice", with("required: [p, p], properties: {p: {type: string}}", "- {tool: bank/get_iban}"), "twice"},
		{"required no list", with("required: p, properties: {p: {type: string}}", "- {tool: bank/get_iban}"), `"required" must be a list`},
		{"required numbers", with("required: [1], properties: {p: {type: string, default: a}}", "- {tool: bank/get_iban}"), "holds names"},
		{"name", with("required: [a-b], properties: {a-b: {type: string}}", "- {tool: bank/get_iban}"), `parameter "a-b": must match`},
		{"names differ in case", with("required: [p, P], properties: {p: {type: string}, P: {type: string}}", "- {tool: bank/get_iban}"), "differ only in case"},
		{"neither required nor a default", with("properties: {p: {type: string}}", "- {tool: bank/get_iban}"), `must be in "required" or have a "default"`},
		{"both", param("{type: string, default: a}"), "its default would never count"},
		{"default of another type", with("properties: {p: {type: string, default: 1}}", "- {tool: bank/get_iban}"), "the default is none that the parameter may have"},
		{"default out of bounds", with("properties: {p: {type: number, maximum: 3, default: 4}}", "- {tool: bank/get_iban}"), "above its bound"},
		{"default that is a place", with("required: [q], properties: {q: {type: string}, p: {type: string, default: {$param: q}}}", "- {tool: bank/get_iban}"), "it cannot stand here"},
		{"defaults that do not fit", with("properties: {p: {type: integer, default: 0}}", "- {tool: bank/get_iban, max_calls: {$param: p}}"), "the defaults do not fit where they are used"},
		{"object", param("{type: object, properties: {}}"), `type "object": here it must be one of`},
		{"list of lists", param("{type: array, items: {type: array, items: {type: string}}}"), `type "array": here it must be one of`},
		{"list without items", param("{type: array}"), `an array needs "items"`},
		{"no type", param("{maxLength: 3}"), `"type" is missing`},
		{"no schema", param("string"), "must be a mapping"},
		{"values of another type, where they are used", with("required: [p], properties: {p: {type: array, items: {type: string}, enum: [a]}}", "- {tool: bank/send_money, input: {recipient: {enum: {$param: p}}, amount: {}}}"), "could never pass"},
		{"keyword", param("{type: string, maximum: 3}"), `has no "maximum"`},
		{"pattern", param("{type: string, pattern: a}"), "must be anchored"},
		{"a bound that is a place", param("{type: integer, maximum: {$param: p}}"), "it cannot stand here"},
		{"default inside of items", param("{type: array, items: {type: string, default: a}}"), `has no "default"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := Parse("m.yaml", []byte(tc.text), testCatalog(t))
			if err == nil {
				t.Fatalf("parsed: %+v", m)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error:\n%v\nwant in it:\n%s", err, tc.want)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "m.yaml:") {
					t.Errorf("a fault without its place: %s", line)
				}
			}
		})
	}
}

func TestParseTellsEveryFault(t *testing.T) {
	_, err := Parse("m.yaml", []byte(`
kind: a b
params: {type: object, properties: {p: {type: strin}}}
tools:
- {tool: bank/nothing}
- tool: bank/send_money
  max_calls: 0
  input:
    recipient: {const: {$param: q}}
    dat: {}
`), testCatalog(t))
	if err == nil {
		t.Fatal("parsed")
	}
	for _, place := range []string{"2:7", "3:47", "5:10", "7:14", "9:33", "10:5", "9:5"} {
		if !strings.Contains(err.Error(), "m.yaml:"+place+": ") {
			t.Errorf("no fault at %s in:\n%v", place, err)
		}
	}
}

func TestParseBoundsItsFaults(t *testing.T) {
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "x%d: 1\n", i)
	}
	_, err := Parse("m.yaml", []byte(lines.String()), testCatalog(t))
	if n := strings.Count(err.Error(), "\n") + 1; n != maxFaults {
		t.Errorf("%d faults are told, want %d", n, maxFaults)
	}
}

func TestBudgetsAreBounded(t *testing.T) {
	var properties, sums []string
	for i := range 8 {
		properties = append(properties, fmt.Sprintf("a%d: {type: integer}", i))
		sums = append(sums, fmt.Sprintf("{argument: /a%d, max: 1}", i))
	}
	c := mustCatalog(t, "servers: [{id: s, resource: 'https://s', upstream: '127.0.0.1:1', mcp: {path: /m}, tools: [{tool: t, input: {type: object, properties: {"+strings.Join(properties, ", ")+"}}}]}]")
	for n, want := range map[int]bool{6: true, 7: false} { // with the count of calls and one of a grant's own
		text := fmt.Sprintf("kind: k\ntools: [{tool: s/t, max_calls: 1, sum: [%s]}]", strings.Join(sums[:n], ", "))
		if _, err := Parse("m", []byte(text), c); (err == nil) != want {
			t.Errorf("%d sums: %v", n, err)
		}
	}
}
