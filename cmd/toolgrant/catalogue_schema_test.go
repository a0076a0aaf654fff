package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/strictjson"
)

// inWordsOf writes what a schema became: the arguments, and below them what is
// opaque and noted.
func inWordsOf(m *mappedSchema) string {
	w := yamlWriter{}
	w.schema(0, "input", m.input)
	text := strings.ReplaceAll(strings.TrimPrefix(w.String(), "input:\n  type: object\n"), "\n  ", "\n")
	for _, o := range m.opaque {
		text += "opaque " + o.pointer + ": " + o.why + "\n"
	}
	for _, n := range m.notes {
		text += "note: " + n + "\n"
	}
	return strings.TrimSpace(text)
}

// mapped is the schema of an object with the properties in the text.
var mapSchemaTests = []struct{ name, schema, want string }{
	{"nothing", `{"type":"object"}`, ""},
	{"scalars", `{"type":"object","properties":{"s":{"type":"string","minLength":1,"format":"uri","title":"S"},"i":{"type":"integer","minimum":1},"n":{"type":"number"},"b":{"type":"boolean","default":true}},"required":["s","s"],"additionalProperties":false}`,
		"properties:\n  b: {type: boolean}\n  i: {type: integer}\n  \"n\": {type: number}\n  s: {type: string}\nrequired: [s]"},
	{"enum and const", `{"type":"object","properties":{"e":{"type":"string","enum":["b","a","b"]},"c":{"const":"one"},"u":{"enum":["x",null]},"k":{"const":7},"t":{"enum":[true]},"m":{"enum":["x",1]},"y":{"type":"string","enum":["yes","","a \"b\""]}}}`,
		"properties:\n  c: {type: string, enum: [one]}\n  e: {type: string, enum: [a, b]}\n  k: {type: number}\n  m: {type: any}\n  t: {type: boolean}\n  u: {type: string, enum: [x]}\n" +
			`  "y": {type: string, enum: ["", "a \"b\"", "yes"]}` + "\nopaque /m: no type is declared"},
	{"enum that a catalogue cannot hold", `{"type":"object","properties":{"e":{"enum":["\u0007","a"]},"big":{"enum":["` + strings.Repeat("x", maxSchemaEnum) + `","a"]}}}`,
		"properties:\n  big: {type: string}\n  e: {type: string}"},
	{"nullable", `{"type":"object","properties":{"a":{"anyOf":[{"type":"string","enum":["x"]},{"type":"null"}],"default":null},"o":{"oneOf":[{"type":"null"},{"type":"integer"}]},"l":{"type":["boolean","null"]},"n":{"type":"null"}}}`,
		"properties:\n  a: {type: string, enum: [x], nullable: true}\n  l: {type: boolean}\n  \"n\": {type: any}\n  o: {type: integer}\nopaque /n: no type is declared"},
	{"unions", `{"type":"object","properties":{"a":{"anyOf":[{"type":"string"},{"type":"integer"}]},"b":{"anyOf":[{"const":"x"},{"const":"y"},{"type":"null"}]},"c":{"type":["integer","number"]},"d":{"type":["string","object"]},"e":{"anyOf":[{"const":"x"},{"type":"string"}]},"f":{"oneOf":[{"type":"object","properties":{"x":{"type":"string"}}},{"type":"object","properties":{"y":{"type":"string"}}}]},"g":{"anyOf":[{"type":"string"}],"oneOf":[{"type":"string"}]},"h":{"anyOf":[]}}}`,
		"properties:\n  a: {type: any}\n  b: {type: string, enum: [x, \"y\"], nullable: true}\n  c: {type: number}\n  d: {type: any}\n  e: {type: string}\n  f: {type: any}\n  g: {type: any}\n  h: {type: any}\n" +
			"opaque /a: one of several types\nopaque /d: one of several types\nopaque /f: one of several types\nopaque /g: one of several types\nopaque /h: one of several types"},
	{"untyped", `{"type":"object","properties":{"a":{},"b":true,"c":{"description":"x"},"no":false,"d":{"type":"file"},"e":{"type":7}},"required":["a","b","no"]}`,
		"properties:\n  a: {type: any}\n  b: {type: any}\n  c: {type: any}\n  d: {type: any}\n  e: {type: any}\nrequired: [a, b]\n" +
			"opaque /a: no type is declared\nopaque /b: no type is declared\nopaque /c: no type is declared\nopaque /d: no type is declared\nopaque /e: no type is declared"},
	{"required and not declared", `{"type":"object","properties":{"a":{"type":"string"}},"required":["z","A"]}`,
		"properties:\n  A: {type: any}\n  z: {type: any}\nrequired: [A, z]\nopaque /A: no type is declared\nopaque /z: no type is declared\n" +
			"note: the argument \"a\" is refused: a catalogue cannot hold such a name, or two that differ only in case"},
	{"objects", `{"type":"object","properties":{"o":{"type":"object","properties":{"x":{"type":"string"},"u":{}},"required":["x"]},"free":{"type":"object"},"map":{"type":"object","additionalProperties":{"type":"string"}},"both":{"type":"object","properties":{"x":{"type":"string"}},"additionalProperties":{"type":"string"}},"open":{"type":"object","properties":{"x":{"type":"string"}},"additionalProperties":true},"none":{"type":"object","additionalProperties":false},"pat":{"type":"object","properties":{"x":{"type":"string"}},"patternProperties":{"^y":{}}}}}`,
		"properties:\n  both: {type: any}\n  free: {type: any}\n  map: {type: any}\n  none:\n    type: object\n  o:\n    type: object\n    properties:\n      u: {type: any}\n      x: {type: string}\n    required: [x]\n  open:\n    type: object\n    properties:\n      x: {type: string}\n  pat: {type: any}\n" +
			"opaque /both: " + whyFree + "\nopaque /free: " + whyFree + "\nopaque /map: " + whyFree + "\nopaque /o/u: no type is declared\nopaque /pat: " + whyFree},
	{"names", `{"type":"object","properties":{"a/b~c":{},"":{"type":"string"},"Ünï":{"type":"string"},"o":{"type":"object","properties":{"":{"type":"string"}}},"p":{"type":"object","properties":{"\ufffd":{}}}}}`,
		"properties:\n  \"a/b~c\": {type: any}\n  o: {type: any}\n  p: {type: any}\n  \"Ünï\": {type: string}\nopaque /a~1b~0c: no type is declared\nopaque /o: " + whyNames + "\nopaque /p: " + whyNames + "\n" +
			"note: the argument \"\" is refused: a catalogue cannot hold such a name, or two that differ only in case"},
	{"arrays", `{"type":"object","properties":{"s":{"type":"array","items":{"type":"string"}},"o":{"type":"array","items":{"type":"object","properties":{"x":{"type":"integer"}}}},"u":{"type":"array","items":{"type":"object","properties":{"x":{"type":"integer"},"y":{}}}},"aa":{"type":"array","items":{"type":"array","items":{}}},"none":{"type":"array"},"tuple":{"type":"array","items":[{"type":"string"}]},"pre":{"type":"array","prefixItems":[{"type":"string"}],"items":{"type":"string"}},"any":{"items":true,"type":"array"},"i":{"items":{"type":"string"}}}}`,
		"properties:\n  aa: {type: any}\n  any: {type: any}\n  i:\n    type: array\n    items: {type: string}\n  none: {type: any}\n  o:\n    type: array\n    items:\n      type: object\n      properties:\n        x: {type: integer}\n  pre: {type: any}\n  s:\n    type: array\n    items: {type: string}\n  tuple: {type: any}\n  u: {type: any}\n" +
			"opaque /aa: no type is declared\nopaque /any: " + whyItems + "\nopaque /none: " + whyItems + "\nopaque /pre: " + whyTuple + "\nopaque /tuple: " + whyTuple + "\nopaque /u: no type is declared"},
	{"references", `{"type":"object","$defs":{"Color":{"enum":["red"]},"P":{"type":"object","properties":{"x":{"$ref":"#/definitions/N"}}},"a b/c":{"type":"boolean"}},"definitions":{"N":{"type":"number"}},"properties":{"c":{"$ref":"#/$defs/Color"},"p":{"$ref":"#/$defs/P","description":"d"},"q":{"$ref":"#/$defs/P"},"e":{"$ref":"#/$defs/a%20b~1c"},"all":{"allOf":[{"$ref":"#/$defs/Color"}],"default":"red"},"two":{"allOf":[{"$ref":"#/$defs/P"},{"$ref":"#/$defs/Color"}]},"no":{"$ref":"#/$defs/None"},"web":{"$ref":"https://example.com/s"},"opt":{"anyOf":[{"$ref":"#/$defs/P"},{"type":"null"}]}}}`,
		"properties:\n  all: {type: string, enum: [red]}\n  c: {type: string, enum: [red]}\n  e: {type: boolean}\n  \"no\": {type: any}\n  opt:\n    type: object\n    properties:\n      x: {type: number}\n  p:\n    type: object\n    properties:\n      x: {type: number}\n  q:\n    type: object\n    properties:\n      x: {type: number}\n  two: {type: any}\n  web: {type: any}\n" +
			"opaque /no: " + whyReference + "\nopaque /two: " + whyAllOf + "\nopaque /web: " + whyReference},
	{"recursion", `{"type":"object","$defs":{"T":{"type":"object","properties":{"v":{"type":"string"},"left":{"$ref":"#/$defs/T"},"kids":{"type":"array","items":{"$ref":"#/$defs/T"}}}},"L":{"$ref":"#/$defs/L"}},"properties":{"t":{"$ref":"#/$defs/T"},"me":{"$ref":"#"},"l":{"$ref":"#/$defs/L"},"o":{"anyOf":[{"$ref":"#/properties/o"},{"type":"null"}]}}}`,
		"properties:\n  l: {type: any}\n  me: {type: any}\n  o: {type: any}\n  t:\n    type: object\n    properties:\n      kids: {type: any}\n      left: {type: any}\n      v: {type: string}\n" +
			"opaque /l: " + whyRecursive + "\nopaque /me: " + whyRecursive + "\nopaque /o: " + whyRecursive + "\nopaque /t/kids: " + whyRecursive + "\nopaque /t/left: " + whyRecursive},
	{"the whole is a reference", `{"$ref":"#/$defs/In","$defs":{"In":{"type":"object","properties":{"a":{"type":"string"},"in":{"$ref":"#/$defs/In"}}}}}`,
		"properties:\n  a: {type: string}\n  in: {type: any}\nopaque /in: " + whyRecursive},
	{"the whole is no object", `{"type":"string"}`, "note: its input is not described as an object: it can be called without arguments alone"},
	{"no schema", `null`, "note: its input is not described as an object: it can be called without arguments alone"},
	{"what narrows only", `{"type":"object","properties":{"a":{"type":"string","allOf":[{"minLength":1}]},"o":{"type":"object","properties":{"x":{"type":"string"}},"anyOf":[{"required":["x"]}]}},"oneOf":[{"required":["a"]},{"required":["o"]}],"if":{"required":["a"]},"then":{"properties":{"a":{"const":"x"}}}}`,
		"properties:\n  a: {type: string}\n  o:\n    type: object\n    properties:\n      x: {type: string}"},
	{"arguments elsewhere", `{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":{"type":"string"},"anyOf":[{"properties":{"b":{"type":"string"}}}]}`,
		"properties:\n  a: {type: string}\nnote: it takes other arguments than these: they are refused\nnote: a part of its schema may declare further arguments: they are refused"},
	{"headers", `{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"Region"},"o":{"type":"object","properties":{"p":{"type":"integer","x-mcp-header":"Deep"}}},"again":{"type":"boolean","x-mcp-header":"region"},"n":{"type":"number","x-mcp-header":"N"},"bad":{"type":"string","x-mcp-header":"a b"},"null":{"type":["string","null"],"x-mcp-header":"L"},"arr":{"type":"array","items":{"type":"string","x-mcp-header":"In"}},"all":{"allOf":[{"type":"string","x-mcp-header":"All"}]}}}`,
		"properties:\n  again: {type: boolean, header: region}\n  all: {type: string}\n  arr:\n    type: array\n    items: {type: string}\n  bad: {type: string}\n  \"n\": {type: number}\n  \"null\": {type: string, nullable: true}\n  o:\n    type: object\n    properties:\n      p: {type: integer, header: deep}\n  r: {type: string}\n" +
			strings.TrimSpace(noteOfHeader("/bad")+noteOfHeader("/n")+noteOfHeader("/null")+noteOfHeader("/r"))},
	{"a header out of reach", `{"type":"object","$defs":{"S":{"type":"string","x-mcp-header":"S"}},"properties":{"o":{"type":"object","properties":{"p":{"type":"string","x-mcp-header":"P"}},"additionalProperties":{"type":"string"}},"s":{"$ref":"#/$defs/S"}}}`,
		"properties:\n  o: {type: any}\n  s: {type: string}\nopaque /o: " + whyFree + "\n" + strings.TrimSpace(noteOfHeader("/o/p"))},
	{"deep", deepSchema(20), "properties:\n  a:\n" + deepText(maxSchemaDepth-1) + "opaque " + strings.Repeat("/a", maxSchemaDepth+1) + ": nested too deep"},
}

func noteOfHeader(at string) string {
	return "note: the x-mcp-header of " + at + " could not be kept: clients may leave the tool out, or calls with that header be refused\n"
}

func deepSchema(levels int) string {
	return `{"type":"object","properties":{"a":` + strings.Repeat(`{"type":"object","properties":{"a":`, levels) + `{"type":"string"}` + strings.Repeat(`}}`, levels+1)
}

func deepText(levels int) string {
	text := ""
	for n := range levels + 1 {
		in := strings.Repeat("    ", n+1)
		last := in + "  a:\n"
		if n == levels {
			last = in + "  a: {type: any}\n"
		}
		text += in + "type: object\n" + in + "properties:\n" + last
	}
	return text
}

func parsed(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMapSchema(t *testing.T) {
	for _, tc := range mapSchemaTests {
		m := mapSchema(parsed(t, tc.schema))
		if got := inWordsOf(m); got != tc.want {
			t.Errorf("%s:\n%s\n--- wanted\n%s", tc.name, got, tc.want)
		}
		if err := holds(m); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Names that differ only in case: no strict parser lets them through, and no
// schema may rest on that.
func TestMapSchemaOfTwoCases(t *testing.T) {
	text := map[string]any{"type": "string"}
	two := map[string]any{"type": "object", "properties": map[string]any{"name": text, "Name": text}}
	got := inWordsOf(mapSchema(map[string]any{"type": "object", "properties": map[string]any{"o": two, "K": text, "\u212a": text}}))
	if want := "properties:\n  K: {type: string}\n  o: {type: any}\nopaque /o: " + whyNames + "\nnote: the argument \"\u212a\" is refused: a catalogue cannot hold such a name, or two that differ only in case"; got != want {
		t.Errorf("%s\n--- wanted\n%s", got, want)
	}
}

// References that multiply: what they would make is cut off.
func TestMapSchemaIsBounded(t *testing.T) {
	var defs []string
	for n := range 11 {
		var members []string
		for k := range 10 {
			members = append(members, fmt.Sprintf(`"m%d":{"$ref":"#/$defs/d%d"}`, k, n+1))
		}
		defs = append(defs, fmt.Sprintf(`"d%d":{"type":"object","properties":{%s}}`, n, strings.Join(members, ",")))
	}
	m := mapSchema(parsed(t, `{"type":"object","properties":{"a":{"$ref":"#/$defs/d0"}},"$defs":{`+strings.Join(defs, ",")+`,"d11":{"type":"string"}}}`))
	if text := inWordsOf(m); len(text) > 4*maxSchemaSize || !strings.Contains(text, ": the schema is too large\n") {
		t.Errorf("%d bytes", len(text))
	}
	if err := holds(m); err != nil {
		t.Error(err)
	}
	many := make([]string, maxSchemaTexts+1)
	for i := range many {
		many[i] = fmt.Sprintf("%q", fmt.Sprint(i))
	}
	huge := strings.Join(many, ",")
	m = mapSchema(parsed(t, `{"type":"object","properties":{"s":{"type":"string","enum":[`+huge+`]},"u":{"enum":[`+huge+`]}}}`))
	if got, want := inWordsOf(m), "properties:\n  s: {type: string}\n  u: {type: any}\nopaque /u: no type is declared"; got != want {
		t.Errorf("%s", got)
	}
}

// holds reports whether what is written of a schema is read as a catalogue with
// that schema in it, by the catalogue and by policy.
func holds(m *mappedSchema) error {
	i := &importedServer{
		url: "http://127.0.0.1:1/", id: "s", resource: "https://s.internal", upstream: "127.0.0.1:1", path: "/s", upstreamPath: "/",
		revisions: catalog.Revisions(), tools: []*importedTool{{liveTool: liveTool{Name: "T t", Pin: [32]byte{1}}, id: "t", mapped: m}},
	}
	i.tools[0].Name = "T"
	if err := i.check(); err != nil {
		return fmt.Errorf("%w\n%s", err, i.YAML())
	}
	_, err := cedar.SchemaText(i.parsed, nil)
	return err
}

// Whatever a server says of its input, the catalogue that is made of it is one.
func FuzzMapSchema(f *testing.F) {
	for _, tc := range mapSchemaTests {
		f.Add([]byte(tc.schema))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := strictjson.Parse(text, strictjson.Limits{Bytes: 16 << 10})
		if err != nil {
			return
		}
		m := mapSchema(v)
		if err := holds(m); err != nil {
			t.Fatalf("%s\n%v", bytes.TrimSpace(text), err)
		}
	})
}

// TestMetaToolsAreNoted: where a tool looks as if it called others, what to write is
// said; a line that is taken up makes a catalogue that loads.
func TestMetaToolsAreNoted(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"object","properties":{"name":{"type":"string"},"arguments":{"type":"object"}}}`:                                    "/name /arguments",
		`{"type":"object","properties":{"a":{"type":"string"},"tool":{"type":"string"},"payload":{},"x":{}}}`:                        "/tool /payload",
		`{"type":"object","properties":{"repo":{"type":"string"},"target":{}}}`:                                                      "",
		`{"type":"object","properties":{"name":{"type":"string","enum":["a"]},"x":{"type":"string"},"arguments":{"type":"object"}}}`: "/x /arguments",
		`{"type":"object","properties":{"name":{"type":"string"}}}`:                                                                  "",
	} {
		tool := importedTool{mapped: mapSchema(parsed(t, schema))}
		name, arguments, may := tool.mayCallOthers()
		if got := name + " " + arguments; may != (want != "") || may && got != want {
			t.Errorf("%s: %q %v", schema, got, may)
		}
	}
}
