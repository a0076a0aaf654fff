package grants

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/strictjson"
)

// member wraps a schema as the member "a" of a root object.
func member(schema string) string {
	return `{"type":"object","properties":{"a":` + schema + `},"required":["a"],"additionalProperties":false}`
}

func mustCompile(t testing.TB, raw string) *Constraint {
	t.Helper()
	c, err := CompileConstraint([]byte(raw))
	if err != nil {
		t.Fatalf("CompileConstraint(%s): %v", raw, err)
	}
	return c
}

func mustParse(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatalf("Parse(%s): %v", text, err)
	}
	return v
}

// nested gives depth schemas inside each other, the root included.
func nested(depth int) string {
	s := `{"type":"null"}`
	for range depth - 1 {
		s = member(s)
	}
	return s
}

func TestCompileConstraintRefuses(t *testing.T) {
	const closed = `,"additionalProperties":false`
	long := strings.Repeat("a", maxPattern)
	for _, tc := range []struct{ name, in, want string }{
		{"not JSON", `{`, "JSON at byte 1"},
		{"duplicate keyword", `{"type":"object","Type":"object"` + closed + `}`, "duplicate"},
		{"too large", member(`{"type":"string","const":"` + strings.Repeat("a", MaxConstraint) + `"}`), "8192 bytes"},
		{"no canonical number", member(`{"type":"number","maximum":1.00000000000000000001}`), "digits"},

		{"boolean", `true`, `at "": write a schema object`},
		{"array", `[]`, `at "": write a schema object`},
		{"boolean inside", member(`true`), `at "/properties/a": write a schema object`},
		{"no type", `{"additionalProperties":false}`, `"type" must be`},
		{"list of types", `{"type":["object"]` + closed + `}`, `"type" must be`},
		{"unknown type", member(`{"type":"text"}`), `at "/properties/a": "type" must be`},
		{"empty type", member(`{"type":""}`), `"type" must be`},
		{"root is a string", `{"type":"string"}`, `must be "object"`},
		{"pointer is escaped", `{"type":"object","properties":{"a/b~":{}},"required":["a/b~"]` + closed + `}`, `at "/properties/a~1b~0"`},

		{"misspelt", `{"type":"object","propertys":{}` + closed + `}`, `"propertys" is not in the profile`},
		{"other case", `{"type":"object","Required":[]` + closed + `}`, `"Required" is not in the profile`},
		{"$schema", `{"$schema":"x","type":"object"` + closed + `}`, `"$schema" is not in the profile`},
		{"$ref", `{"$ref":"#"}`, "write the schema out"},
		{"description", member(`{"type":"string","description":"x"}`), `"description" is not in the profile; leave it out`},
		{"anyOf", member(`{"type":"string","anyOf":[]}`), "one grant per alternative"},
		{"format", member(`{"type":"string","format":"email"}`), `use "pattern"`},
		{"patternProperties", `{"type":"object","patternProperties":{}` + closed + `}`, `"properties"`},
		{"multipleOf", member(`{"type":"number","multipleOf":2}`), "not in the profile"},
		{"minItems", member(`{"type":"array","items":{"type":"null"},"minItems":2}`), "not in the profile"},
		{"type as a name of type", member(`{"type":"type"}`), `"type" must be`},

		{"pattern on a number", member(`{"type":"number","pattern":"^(?:a)$"}`), `"pattern" does not fit type "number"`},
		{"minimum on a string", member(`{"type":"string","minimum":1}`), `"minimum" does not fit`},
		{"maxLength on an array", member(`{"type":"array","items":{"type":"null"},"maxLength":1}`), "does not fit"},
		{"items on an object", `{"type":"object","items":{"type":"null"}` + closed + `}`, "does not fit"},
		{"properties on an array", member(`{"type":"array","items":{"type":"null"},"properties":{}}`), "does not fit"},
		{"additionalProperties on a string", member(`{"type":"string"` + closed + `}`), "does not fit"},
		{"minimum on null", member(`{"type":"null","minimum":1}`), "does not fit"},

		{"open object", `{"type":"object"}`, `"additionalProperties": false`},
		{"open object, true", `{"type":"object","additionalProperties":true}`, `"additionalProperties": false`},
		{"open object, schema", `{"type":"object","additionalProperties":{"type":"null"}}`, `"additionalProperties": false`},
		{"open object inside", member(`{"type":"object"}`), `at "/properties/a"`},
		{"optional", `{"type":"object","properties":{"a":{"type":"null"}},"required":[]` + closed + `}`, `not in "required"`},
		{"optional, absent list", `{"type":"object","properties":{"a":{"type":"null"}}` + closed + `}`, `not in "required"`},
		{"required alone", `{"type":"object","required":["a"]` + closed + `}`, `at "/required/0"`},
		{"required twice", `{"type":"object","properties":{"a":{"type":"null"}},"required":["a","a"]` + closed + `}`, `at "/required/1": "a" is there twice`},
		{"required number", `{"type":"object","required":[1]` + closed + `}`, "write a name"},
		{"required string", `{"type":"object","required":"a"` + closed + `}`, "array of names"},
		{"required null", `{"type":"object","required":null` + closed + `}`, "array of names"},
		{"properties list", `{"type":"object","properties":[]` + closed + `}`, "object of schemas"},
		{"properties null", `{"type":"object","properties":null` + closed + `}`, "object of schemas"},
		{"array without items", member(`{"type":"array"}`), `must have "items"`},
		{"items list", member(`{"type":"array","items":[]}`), `at "/properties/a/items"`},
		{"items false", member(`{"type":"array","items":false}`), `at "/properties/a/items"`},
		{"too deep", nested(maxSchemaDepth + 1), "nested more than 16"},

		{"minimum string", member(`{"type":"number","minimum":"1"}`), `at "/properties/a/minimum"`},
		{"minimum null", member(`{"type":"number","minimum":null}`), `at "/properties/a/minimum"`},
		{"exclusiveMaximum boolean", member(`{"type":"number","exclusiveMaximum":true}`), "write a number"},
		{"minimum above maximum", member(`{"type":"number","minimum":0.2,"maximum":0.1}`), "nothing could pass"},
		{"exclusive at the minimum", member(`{"type":"number","minimum":1,"exclusiveMaximum":1.0}`), "nothing could pass"},
		{"exclusive at the maximum", member(`{"type":"integer","exclusiveMinimum":1,"maximum":1}`), "nothing could pass"},
		{"negative length", member(`{"type":"string","minLength":-1}`), `at "/properties/a/minLength"`},
		{"half a length", member(`{"type":"string","maxLength":1.5}`), "whole number"},
		{"length string", member(`{"type":"string","maxLength":"1"}`), "whole number"},
		{"minLength above", member(`{"type":"string","minLength":2,"maxLength":1}`), "nothing could pass"},
		{"maxItems null", member(`{"type":"array","items":{"type":"null"},"maxItems":null}`), "whole number"},

		{"enum empty", member(`{"type":"string","enum":[]}`), "at least one"},
		{"enum string", member(`{"type":"string","enum":"a"}`), "at least one"},
		{"enum null", member(`{"type":"string","enum":null}`), "at least one"},
		{"enum of another type", member(`{"type":"string","enum":["a",1]}`), "value number 1"},
		{"const of another type", member(`{"type":"string","const":1}`), "must be of type string"},
		{"const null", member(`{"type":"string","const":null}`), "must be of type string"},
		{"const half", member(`{"type":"integer","const":1.5}`), "must be of type integer"},
		{"const out of bounds", member(`{"type":"integer","const":5,"maximum":4}`), "could never pass"},
		{"const against its pattern", member(`{"type":"string","const":"b","pattern":"^(?:a)$"}`), "could never pass"},
		{"const object with more", `{"type":"object","const":{"a":1}` + closed + `}`, "could never pass"},
		{"const and enum", member(`{"type":"string","const":"a","enum":["a"]}`), "leave one out"},

		{"pattern number", member(`{"type":"string","pattern":1}`), "write a string"},
		{"pattern open", member(`{"type":"string","pattern":"a"}`), "anchored"},
		{"pattern open behind", member(`{"type":"string","pattern":"^(?:a)"}`), "anchored"},
		{"pattern open before", member(`{"type":"string","pattern":"\\Qa)$"}`), "anchored"},
		{"pattern with ^ and $ only", member(`{"type":"string","pattern":"^a$"}`), "anchored"},
		{"pattern empty", member(`{"type":"string","pattern":""}`), "anchored"},
		{"pattern whose ends overlap", member(`{"type":"string","pattern":"^(?:$"}`), "anchored"},
		{"pattern that looks anchored", member(`{"type":"string","pattern":"^(?:a)|(?:b)$"}`), "regular expression"},
		{"pattern that quotes its end", member(`{"type":"string","pattern":"^(?:\\Qa)$"}`), "profile"},
		{"pattern with a Unicode class", member(`{"type":"string","pattern":"^(?:[\\pL]*)$"}`), "profile"},
		{"pattern without one", member(`{"type":"string","pattern":"^(?:\\PL)$"}`), "profile"},
		{"pattern with a flag", member(`{"type":"string","pattern":"^(?:(?i)[B-\ud83a\udd42])$"}`), "profile"},
		{"pattern with a flag for a group", member(`{"type":"string","pattern":"^(?:(?i:a))$"}`), "profile"},
		{"pattern with a name", member(`{"type":"string","pattern":"^(?:(?P<x>a))$"}`), "profile"},
		{"pattern with a bad group", member(`{"type":"string","pattern":"^(?:()$"}`), "regular expression"},
		{"pattern with look-ahead", member(`{"type":"string","pattern":"^(?:(?=a)a)$"}`), "profile"},
		{"pattern with a reference", member(`{"type":"string","pattern":"^(?:(a)\\1)$"}`), "regular expression"},
		{"pattern too long", member(`{"type":"string","pattern":"^(?:` + long + `)$"}`), "256 bytes"},
		{"pattern too costly", member(`{"type":"string","pattern":"^(?:a{900}b{900}c{900})$"}`), "too costly"},
		{"patterns too costly together", `{"type":"object","properties":{"a":{"type":"string","pattern":"^(?:a{990})$"},"b":{"type":"string","pattern":"^(?:a{990})$"},"c":{"type":"string","pattern":"^(?:a{990})$"}},"required":["a","b","c"]` + closed + `}`, "too costly"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := CompileConstraint([]byte(tc.in))
			if err == nil || c != nil {
				t.Fatalf("CompileConstraint(%.200s) gave %v, %v; want an error", tc.in, c, err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("CompileConstraint(%.200s): %v; want %q in it", tc.in, err, tc.want)
			}
		})
	}
}

func TestConstraintCheck(t *testing.T) {
	const pair = `{"type":"object","properties":{"x":{"type":"integer"},"y":{"type":"string"}},"required":["x","y"],"additionalProperties":false`
	for _, tc := range []struct {
		schema   string // of the member "a"
		yes, no  []string
		breaksAt string // JSON Pointer that each error of no has; "": /a
	}{
		{schema: `{"type":"string"}`, yes: []string{`""`, `"a"`}, no: []string{`1`, `null`, `true`, `[]`, `{}`, `["a"]`}},
		{schema: `{"type":"number"}`, yes: []string{`1`, `1.5`, `-0`, `1e300`}, no: []string{`"1"`, `null`, `"99999"`}},
		{schema: `{"type":"integer"}`, yes: []string{`1`, `1.0`, `1e2`, `-0`}, no: []string{`1.5`, `"1"`, `1e22`, `1e-1`, `true`}},
		{schema: `{"type":"boolean"}`, yes: []string{`true`, `false`}, no: []string{`0`, `"true"`, `null`}},
		{schema: `{"type":"null"}`, yes: []string{`null`}, no: []string{`0`, `""`, `false`, `{}`}},

		{schema: `{"type":"integer","minimum":1,"maximum":3}`, yes: []string{`1`, `2`, `3`, `3.0`}, no: []string{`0`, `4`, `-2`}},
		{schema: `{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.3}`, yes: []string{`0.1`, `1e-300`, `0.29999999999999993`}, no: []string{`0`, `-0`, `0.3`, `0.30`, `3e-1`, `0.30000000000000000000000000001`}},
		{schema: `{"type":"number","minimum":1,"exclusiveMinimum":0,"maximum":3,"exclusiveMaximum":5}`, yes: []string{`1`, `3`}, no: []string{`0.5`, `4`}},

		{schema: `{"type":"string","minLength":2,"maxLength":3}`, yes: []string{`"ab"`, `"éé"`, `"😀😀😀"`}, no: []string{`"a"`, `"abcd"`, `"é"`, `"😀"`, `""`}},
		{schema: `{"type":"string","maxLength":0}`, yes: []string{`""`}, no: []string{`"a"`}},
		{schema: `{"type":"string","pattern":"^(?:a|bc)$"}`, yes: []string{`"a"`, `"bc"`}, no: []string{`"ab"`, `"abc"`, `"a\n"`, `"xa"`, `""`, `"A"`}},
		{schema: `{"type":"string","pattern":"^(?:a$|^b)$"}`, yes: []string{`"a"`, `"b"`}, no: []string{`"a\nb"`, `"x\nb"`, `"a\n"`}},
		{schema: `{"type":"string","pattern":"^(?:)$"}`, yes: []string{`""`}, no: []string{`"a"`}},

		{schema: `{"type":"string","const":"squash"}`, yes: []string{`"squash"`, `"squ\u0061sh"`}, no: []string{`"Squash"`, `"squash "`, `""`}},
		{schema: `{"type":"number","enum":[1,2.5,-0]}`, yes: []string{`1`, `1.0`, `10e-1`, `25e-1`, `0`}, no: []string{`2`, `1.00000000000000000001`}},
		{schema: `{"type":"boolean","const":true}`, yes: []string{`true`}, no: []string{`false`}},
		{schema: `{"type":"null","const":null}`, yes: []string{`null`}, no: []string{`0`}},
		{schema: `{"type":"array","items":{"type":"string"},"const":["a","b"]}`, yes: []string{`["a","b"]`}, no: []string{`["b","a"]`, `["a"]`, `[]`, `["a","b","c"]`}},

		{schema: `{"type":"array","items":{"type":"integer"},"maxItems":2}`, yes: []string{`[]`, `[1]`, `[1,2]`}, no: []string{`[1,2,3]`, `1`, `{}`}},
		{schema: `{"type":"array","items":{"type":"integer"}}`, no: []string{`[1,"2"]`, `[1,null]`}, breaksAt: "/a/1"},
		{schema: `{"type":"array","items":{"type":"array","items":{"type":"integer"}}}`, yes: []string{`[[],[1]]`}, no: []string{`[[],[1,"x"]]`}, breaksAt: "/a/1/1"},

		{schema: `{"type":"object","additionalProperties":false}`, yes: []string{`{}`}, no: []string{`{"b":1}`, `[]`, `null`}},
		{schema: pair + `}`, yes: []string{`{"x":1,"y":""}`, `{"y":"z","x":2}`}, no: []string{`{"x":1,"y":"","z":0}`, `{"x":1,"y":"","Z":0}`}},
		{schema: pair + `}`, no: []string{`{"x":1}`, `{"x":1,"Y":""}`, `{"x":1,"z":""}`, `{"x":1,"y":null}`}, breaksAt: "/a/y"},
		{schema: pair + `,"enum":[{"x":1,"y":"a"},{"y":"b","x":2}]}`, yes: []string{`{"y":"a","x":1.0}`, `{"x":2,"y":"b"}`}, no: []string{`{"x":2,"y":"a"}`}},
	} {
		c := mustCompile(t, member(tc.schema))
		for _, v := range tc.yes {
			if err := c.Check(mustParse(t, `{"a":`+v+`}`)); err != nil {
				t.Errorf("%s: %s is refused: %v", tc.schema, v, err)
			}
		}
		at := tc.breaksAt
		if at == "" {
			at = "/a"
		}
		for _, v := range tc.no {
			if err := c.Check(mustParse(t, `{"a":`+v+`}`)); err == nil {
				t.Errorf("%s: %s is accepted", tc.schema, v)
			} else if !strings.HasPrefix(err.Error(), fmt.Sprintf("input at %q ", at)) {
				t.Errorf("%s: %s breaks at another place than %s: %v", tc.schema, v, at, err)
			}
		}
		for _, other := range []string{`{}`, `[]`, `null`, `"a"`, `{"a":1,"b":1}`, `{"A":1}`} {
			if c.Check(mustParse(t, other)) == nil {
				t.Errorf("%s: the input %s is accepted", tc.schema, other)
			}
		}
	}
	mustCompile(t, nested(maxSchemaDepth))
}

// What did not come from strictjson is refused, not guessed at.
func TestConstraintCheckForeignValues(t *testing.T) {
	for schema, values := range map[string][]any{
		`{"type":"number"}`:                              {1.5, 1, json.Number("1"), strictjson.Number(""), strictjson.Number("x"), strictjson.Number("1e999")},
		`{"type":"number","minimum":-1}`:                 {strictjson.Number("x"), strictjson.Number("1e999")},
		`{"type":"integer"}`:                             {1, int64(1), strictjson.Number("x")},
		`{"type":"null"}`:                                {(*int)(nil), []any(nil)},
		`{"type":"array","items":{"type":"string"}}`:     {[]string{"a"}},
		`{"type":"object","additionalProperties":false}`: {map[string]string{}, struct{}{}},
	} {
		c := mustCompile(t, member(schema))
		for _, v := range values {
			if c.Check(map[string]any{"a": v}) == nil {
				t.Errorf("%s: %#v is accepted", schema, v)
			}
		}
	}
}

func TestConstraintErrorsHoldNoInput(t *testing.T) {
	const secret = "hunter2"
	for schema, v := range map[string]string{
		`{"type":"integer"}`:                                       `"` + secret + `"`,
		`{"type":"string","const":"a"}`:                            `"` + secret + `"`,
		`{"type":"string","pattern":"^(?:a)$"}`:                    `"` + secret + `"`,
		`{"type":"string","maxLength":1}`:                          `"` + secret + `"`,
		`{"type":"number","maximum":1}`:                            `31337`,
		`{"type":"number","enum":[1]}`:                             `31337.00000000000000000001`,
		`{"type":"object","additionalProperties":false}`:           `{"` + secret + `":1}`,
		`{"type":"array","items":{"type":"integer"},"maxItems":1}`: `["` + secret + `"]`,
	} {
		err := mustCompile(t, member(schema)).Check(mustParse(t, `{"a":`+v+`}`))
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "31337") {
			t.Errorf("%s: %v", schema, err)
		}
	}
}

// The steps that patterns may take are bounded over a whole Check, not per string.
func TestConstraintPatternSteps(t *testing.T) {
	c := mustCompile(t, member(`{"type":"array","items":{"type":"string","pattern":"^(?:(?:a?){900})$"}}`))
	input := func(count, length int) any {
		list := make([]any, count)
		for i := range list {
			list[i] = strings.Repeat("a", length)
		}
		return map[string]any{"a": list}
	}
	if err := c.Check(input(1, 300)); err != nil {
		t.Errorf("one short string: %v", err)
	}
	for _, in := range []any{input(1, 100_000), input(20, 300), input(100_000, 0)} {
		if err := c.Check(in); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Errorf("much text: %v", err)
		}
	}
	if err := c.Check(input(1, 300)); err != nil {
		t.Errorf("a Check took from the next one's steps: %v", err)
	}
}

func TestCompileConstraints(t *testing.T) {
	good := json.RawMessage(member(`{"type":"string"}`))
	list, err := CompileConstraints(slices.Repeat([]json.RawMessage{good}, MaxConstraints))
	if err != nil || len(list) != MaxConstraints {
		t.Errorf("16 constraints: %d, %v", len(list), err)
	}
	if _, err := CompileConstraints(slices.Repeat([]json.RawMessage{good}, MaxConstraints+1)); err == nil {
		t.Error("17 constraints are accepted")
	}
	if _, err := CompileConstraints([]json.RawMessage{good, json.RawMessage(`{}`)}); err == nil || !strings.Contains(err.Error(), "number 1") {
		t.Errorf("a bad second one: %v", err)
	}
	if list, err := CompileConstraints(nil); err != nil || len(list) != 0 {
		t.Errorf("none: %v, %v", list, err)
	}
}

func TestConstraintsDigest(t *testing.T) {
	digest := func(list ...string) Digest {
		t.Helper()
		var raw []json.RawMessage
		for _, s := range list {
			raw = append(raw, json.RawMessage(s))
		}
		d, err := ConstraintsDigest(raw)
		if err != nil {
			t.Fatalf("ConstraintsDigest(%s): %v", list, err)
		}
		return d
	}
	// printf '[{"maximum":1,"type":"number"}]' | sha256sum
	const want = "a74b57170363a834b2a9cd7e75aa535bdb37390be1785e726a667673f9c5e3d8"
	if got := digest(` { "type":"number", "maximum":1.0 } `).String(); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if got := digest(); !got.IsZero() {
		t.Errorf("no constraints have the digest %s", got)
	}
	a, b := member(`{"type":"string","const":"a"}`), member(`{"type":"string","const":"b"}`)
	all := map[Digest]string{}
	for _, list := range [][]string{{}, {a}, {b}, {a, b}, {b, a}, {a, a}} {
		d := digest(list...)
		if other, dup := all[d]; dup {
			t.Errorf("%s and %s share a digest", list, other)
		}
		all[d] = fmt.Sprint(list)
	}
	for _, bad := range [][]json.RawMessage{
		{json.RawMessage(`{`)}, {nil}, {json.RawMessage(`{"a":1,"a":1}`)}, {json.RawMessage(`[1.00000000000000000001]`)},
		slices.Repeat([]json.RawMessage{json.RawMessage(a)}, MaxConstraints+1),
	} {
		if d, err := ConstraintsDigest(bad); err == nil || !d.IsZero() {
			t.Errorf("ConstraintsDigest(%s) = %v, %v", bad, d, err)
		}
	}
}

func TestConstraintIsSharedSafely(t *testing.T) {
	c := mustCompile(t, member(`{"type":"string","pattern":"^(?:[a-z]+)$","enum":["abc","def"]}`))
	in := mustParse(t, `{"a":"abc"}`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := c.Check(in); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// holds is a slow evaluator of the profile's keywords by the text of JSON Schema
// 2020-12 alone, from raw JSON and with none of the code under test.
func holds(schema map[string]any, v any) bool {
	text := func(v any) string { b, _ := json.Marshal(normal(v)); return string(b) }
	num := func(v any) *big.Rat {
		n, ok := v.(json.Number)
		if !ok {
			return nil
		}
		r, _ := new(big.Rat).SetString(string(n))
		return r
	}
	_, isNum := v.(json.Number)
	s, isStr := v.(string)
	a, isArr := v.([]any)
	o, isObj := v.(map[string]any)
	for keyword, arg := range schema {
		ok := true
		switch keyword {
		case "type":
			_, isBool := v.(bool)
			ok = map[string]bool{
				"null": v == nil, "boolean": isBool, "string": isStr, "array": isArr, "object": isObj,
				"number": isNum, "integer": isNum && num(v).IsInt(),
			}[arg.(string)]
		case "const":
			ok = text(arg) == text(v)
		case "enum":
			ok = slices.ContainsFunc(arg.([]any), func(e any) bool { return text(e) == text(v) })
		case "minimum":
			ok = !isNum || num(v).Cmp(num(arg)) >= 0
		case "maximum":
			ok = !isNum || num(v).Cmp(num(arg)) <= 0
		case "exclusiveMinimum":
			ok = !isNum || num(v).Cmp(num(arg)) > 0
		case "exclusiveMaximum":
			ok = !isNum || num(v).Cmp(num(arg)) < 0
		case "minLength":
			ok = !isStr || big.NewRat(int64(utf8.RuneCountInString(s)), 1).Cmp(num(arg)) >= 0
		case "maxLength":
			ok = !isStr || big.NewRat(int64(utf8.RuneCountInString(s)), 1).Cmp(num(arg)) <= 0
		case "pattern":
			ok = !isStr || regexp.MustCompile(arg.(string)).MatchString(s)
		case "maxItems":
			ok = !isArr || big.NewRat(int64(len(a)), 1).Cmp(num(arg)) <= 0
		case "items":
			for _, e := range a {
				ok = ok && holds(arg.(map[string]any), e)
			}
		case "required":
			for _, name := range arg.([]any) {
				if _, has := o[name.(string)]; isObj && !has {
					ok = false
				}
			}
		case "properties":
			for name, sub := range arg.(map[string]any) {
				if e, has := o[name]; has {
					ok = ok && holds(sub.(map[string]any), e)
				}
			}
		case "additionalProperties":
			listed, _ := schema["properties"].(map[string]any)
			for name := range o {
				if _, has := listed[name]; !has {
					ok = ok && arg.(bool)
				}
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// normal writes every number as a fraction, so that equal ones have equal texts.
func normal(v any) any {
	switch v := v.(type) {
	case json.Number:
		r, _ := new(big.Rat).SetString(string(v))
		return map[string]string{"number": r.RatString()}
	case []any:
		list := []any{}
		for _, e := range v {
			list = append(list, normal(e))
		}
		return list
	case map[string]any:
		members := map[string]any{}
		for name, e := range v {
			members[name] = normal(e)
		}
		return members
	}
	return v
}

// loose decodes as encoding/json does, with numbers kept.
func loose(t rapid.TB, text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// drawPair draws a schema and an input that it accepts, both as JSON text.
func drawPair(t *rapid.T, depth int) (schema, input string) {
	kinds := []string{"string", "number", "integer", "boolean", "null", "array", "object"}
	if depth == 0 {
		kinds = kinds[:5]
	}
	js := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	var extra string
	switch kind {
	case "string":
		s := rapid.SampledFrom([]string{"", "a", "ab", "é", "😀b", "aab"}).Draw(t, "string")
		input = js(s)
		n := utf8.RuneCountInString(s)
		if rapid.Bool().Draw(t, "bounded") {
			extra = fmt.Sprintf(`,"minLength":%d,"maxLength":%d`, n-rapid.IntRange(0, n).Draw(t, "below"), n+rapid.IntRange(0, 2).Draw(t, "above"))
		}
		if rapid.Bool().Draw(t, "matched") {
			extra += `,"pattern":` + js("^(?:"+rapid.SampledFrom([]string{regexp.QuoteMeta(s), ".*", regexp.QuoteMeta(s) + "|x"}).Draw(t, "pattern")+")$")
		}
	case "number", "integer":
		i := rapid.IntRange(-5, 5).Draw(t, "integer")
		input = rapid.SampledFrom([]string{"%d", "%d.0", "%d.000e0", "%de0"}).Draw(t, "spelling")
		if kind == "number" {
			input = rapid.SampledFrom([]string{"%d", "%d.25", "%d.0625e0"}).Draw(t, "spelling")
		}
		input = fmt.Sprintf(input, i)
		if rapid.Bool().Draw(t, "bounded") {
			extra = fmt.Sprintf(rapid.SampledFrom([]string{`,"minimum":%d,"maximum":%d`, `,"exclusiveMinimum":%d,"exclusiveMaximum":%d`}).Draw(t, "bounds"), i-1, i+1)
		}
	case "boolean":
		input = js(rapid.Bool().Draw(t, "boolean"))
	case "null":
		input = "null"
	case "array":
		var item string
		schema, item = drawPair(t, depth-1)
		n := rapid.IntRange(0, 3).Draw(t, "items")
		input = "[" + strings.Join(slices.Repeat([]string{item}, n), ",") + "]"
		extra = `,"items":` + schema
		if rapid.Bool().Draw(t, "bounded") {
			extra += fmt.Sprintf(`,"maxItems":%d`, n+rapid.IntRange(0, 1).Draw(t, "more"))
		}
	case "object":
		schema, input = drawObject(t, depth)
		extra = strings.TrimSuffix(strings.TrimPrefix(schema, `{"type":"object"`), "}")
	}
	switch rapid.IntRange(0, 3).Draw(t, "values") {
	case 0:
		extra += `,"const":` + input
	case 1:
		extra += `,"enum":[` + input + "," + input + "]"
	}
	return `{"type":"` + kind + `"` + extra + "}", input
}

func drawObject(t *rapid.T, depth int) (schema, input string) {
	var properties, required, members []string
	for _, name := range []string{`"a"`, `"b/~"`, `"é"`}[:rapid.IntRange(0, 3).Draw(t, "members")] {
		s, v := drawPair(t, depth-1)
		properties, required, members = append(properties, name+":"+s), append(required, name), append(members, name+":"+v)
	}
	schema = `{"type":"object","properties":{` + strings.Join(properties, ",") + `},"required":[` + strings.Join(required, ",") + `],"additionalProperties":false}`
	return schema, "{" + strings.Join(members, ",") + "}"
}

// Whatever a constraint accepts, the slow evaluator accepts; and an accepted
// input with a member more, a member less or a member of another type is not.
func TestConstraintProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, accepted := drawObject(t, 3)
		c, err := CompileConstraint([]byte(raw))
		if err != nil {
			if len(raw) > MaxConstraint {
				t.Skip("too large")
			}
			t.Fatalf("CompileConstraint(%s): %v", raw, err)
		}
		schema := loose(t, raw).(map[string]any)
		check := func(input string) bool {
			v, err := strictjson.Parse([]byte(input), strictjson.Limits{})
			if err != nil {
				t.Fatalf("Parse(%s): %v", input, err)
			}
			ok := c.Check(v) == nil
			if ok != holds(schema, loose(t, input)) {
				t.Fatalf("%s: %s is accepted %v, by the slow evaluator %v", raw, input, ok, !ok)
			}
			return ok
		}
		if !check(accepted) {
			t.Fatalf("%s refuses %s", raw, accepted)
		}
		_, other := drawObject(t, 3) // mostly refused; the two evaluators agree
		check(other)

		// Change one object somewhere inside.
		js := func(v any) string { b, _ := json.Marshal(v); return string(b) }
		tree := loose(t, accepted)
		for _, o := range objects(tree) {
			o["zz"] = nil
			if check(js(tree)) {
				t.Fatalf("%s accepts one member more: %s", raw, js(tree))
			}
			delete(o, "zz")
			for name, v := range o {
				delete(o, name)
				if check(js(tree)) {
					t.Fatalf("%s accepts one member less: %s", raw, js(tree))
				}
				o[name] = []any{map[string]any{"of": "another type"}}
				if _, isArray := v.([]any); isArray {
					o[name] = "of another type"
				}
				if check(js(tree)) {
					t.Fatalf("%s accepts another type: %s", raw, js(tree))
				}
				o[name] = v
			}
		}
	})
}

// objects lists v's objects, v included.
func objects(v any) (list []map[string]any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			list = append(list, objects(e)...)
		}
	case map[string]any:
		list = append(list, v)
		for _, e := range v {
			list = append(list, objects(e)...)
		}
	}
	return list
}

// FuzzCompileConstraint: no panic, and what compiles gives the same verdicts in
// its canonical form.
func FuzzCompileConstraint(f *testing.F) {
	for _, schema := range []string{
		`{"type":"string","minLength":1,"maxLength":3,"pattern":"^(?:a+|b)$"}`, `{"type":"number","minimum":0.1,"exclusiveMaximum":1e2}`,
		`{"type":"integer","enum":[1,2.0]}`, `{"type":"array","items":{"type":"string","const":"a"},"maxItems":2}`, `{"type":"null"}`,
		member(`{"type":"boolean","const":true}`), `{"type":"string","pattern":"^(?:a)|(?:b)$"}`, `{"$ref":"#"}`,
	} {
		for _, input := range []string{`{"a":"a"}`, `{"a":1.0}`, `{"a":["a"]}`, `{"a":null}`, `{"a":{"a":true}}`, `{}`} {
			f.Add([]byte(member(schema)), []byte(input))
		}
	}
	f.Fuzz(func(t *testing.T, raw, input []byte) {
		c, err := CompileConstraint(raw)
		if err != nil {
			if c != nil {
				t.Fatal("a constraint beside an error")
			}
			return
		}
		doc, err := strictjson.Parse(raw, strictjson.Limits{})
		if err != nil {
			t.Fatalf("compiled, but not parsed: %v", err)
		}
		text, err := strictjson.Canonical(doc)
		if err != nil {
			t.Fatalf("compiled, but no canonical text: %v", err)
		}
		if len(text) > MaxConstraint {
			return // 1e15 is written out
		}
		again, err := CompileConstraint(text)
		if err != nil {
			t.Fatalf("%s does not compile in its canonical form %s: %v", raw, text, err)
		}
		if one, err := ConstraintsDigest([]json.RawMessage{raw}); err != nil {
			t.Fatal(err)
		} else if two, err := ConstraintsDigest([]json.RawMessage{text}); err != nil || one != two {
			t.Fatalf("digests %v and %v, %v", one, two, err)
		}
		v, err := strictjson.Parse(input, strictjson.Limits{})
		if err != nil {
			return
		}
		first, second := c.Check(v), again.Check(v)
		if fmt.Sprint(first) != fmt.Sprint(second) {
			t.Fatalf("%s: %v, in its canonical form: %v", raw, first, second)
		}
	})
}

func BenchmarkConstraintCheck(b *testing.B) {
	c := mustCompile(b, `{"type":"object","properties":{"owner":{"type":"string","const":"example"},"repo":{"type":"string","pattern":"^(?:[a-z-]{1,32})$"},"pull_number":{"type":"integer","minimum":1},"method":{"type":"string","enum":["squash","rebase"]}},"required":["owner","repo","pull_number","method"],"additionalProperties":false}`)
	in := mustParse(b, `{"owner":"example","repo":"infra","pull_number":4211,"method":"squash"}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Check(in); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNumberThatReadersSeeDifferently: below the bound as it is written, at it
// for whoever keeps doubles.
func TestNumberThatReadersSeeDifferently(t *testing.T) {
	c, err := CompileConstraint([]byte(`{"type":"object","required":["n"],"additionalProperties":false,"properties":{"n":{"type":"number","exclusiveMaximum":100}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{"99.5": true, "0.1": true, "100": false, "99.99999999999999999999": false} {
		v, err := strictjson.Parse([]byte(`{"n":`+text+`}`), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(v); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
