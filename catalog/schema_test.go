package catalog

import (
	"fmt"
	"strings"
	"testing"
)

func TestRefusesSchema(t *testing.T) {
	refuses(t, []refusal{
		{"body with GET", strings.Replace(one("    body: {type: object}\n"), "POST", "GET", 1), "9:5: a tool with the method GET takes no body"},
		{"body with DELETE", strings.Replace(one("    body: {type: object}\n"), "POST", "DELETE", 1), "DELETE takes no body"},
		{"body without type", one("    body: {properties: {}}\n"), `"type" is missing`},
		{"body enum without type", one("    body: {enum: [a]}\n"), `"type" is missing`},
		{"body null", one("    body:\n"), "must be a mapping, not a number or null"},
		{"type unknown", one("    body: {type: 'null'}\n"), `type "null": must be one of`},
		{"type list", one("    body: {type: [string]}\n"), `"type" must be a string, not a list`},
		{"keyword unknown", one("    body: {type: string, pattern: a}\n"), `9:26: unknown key "pattern"`},
		{"keyword misspelt", one("    body: {type: object, propertys: {}}\n"), `unknown key "propertys"`},
		{"keyword deep down", one("    body: {type: array, items: {type: object, properties: {a: {$ref: b}}}}\n"), `unknown key "$ref"`},
		{"properties of a string", one("    body: {type: string, properties: {}}\n"), `"properties" goes with the type object`},
		{"required of an array", one("    body: {type: array, required: [], items: {type: string}}\n"), `"required" goes with the type object`},
		{"items of an object", one("    body: {type: object, items: {type: string}}\n"), `"items" goes with the type array`},
		{"array without items", one("    body: {type: array}\n"), `an array needs "items"`},
		{"required unknown", one("    body: {type: object, required: [a]}\n"), `required property "a" is not in`},
		{"required twice", one("    body: {type: object, required: [a, a], properties: {a: {type: string}}}\n"), `"a" is there twice`},
		{"properties in two cases", one("    body: {type: object, properties: {note: {type: string}, Note: {type: string}}}\n"), "differ only in case"},
		{"properties in two cases, Kelvin", one("    body: {type: object, properties: {k: {type: string}, \"\\u212a\": {type: string}}}\n"), "differ only in case"},
		{"properties a list", one("    body: {type: object, properties: [a]}\n"), "\"properties\" must be a mapping"},
		{"property without name", one("    body: {type: object, properties: {'': {type: string}}}\n"), "a property needs a name"},
		{"any that policy would see", one("    body: {type: any}\n"), `9:18: type any: policy cannot see such a value; list "/body" in the tool's "opaque"`},
		{"any below", one("    body: {type: object, properties: {a: {type: any}, a/b: {type: any}}}\n    opaque: [/body/a]\n"), `9:67: type any: policy cannot see such a value; list "/body/a~1b"`},
		{"any beside", one("    body: {type: object, properties: {a: {type: string}, ab: {type: any}}}\n    opaque: [/body/a]\n"), `list "/body/ab"`},
		{"any in an array", one("    body: {type: object, properties: {a: {type: array, items: {type: object, properties: {b: {type: any}}}}}}\n"), `list "/body/a" in`},
		{"any with an enum", one("    opaque: [/body]\n    body: {type: any, enum: [a]}\n"), `"enum" goes with the type string, not any`},
		{"any with properties", one("    opaque: [/body]\n    body: {type: any, properties: {}}\n"), `"properties" goes with the type object, not any`},
		{"header in a body", one("    body: {type: object, properties: {a: {type: string, header: A}}}\n"), `9:57: unknown key "header"`},
		{"enum of integers", one("    body: {type: integer, enum: ['1']}\n"), `"enum" goes with the type string`},
		{"enum item a number", one("    body: {type: string, enum: [1]}\n"), "must hold strings"},
		{"enum empty", one("    body: {type: string, enum: []}\n"), `an empty "enum"`},
		{"enum twice", one("    body: {type: string, enum: [a, a]}\n"), `"a" is there twice in "enum"`},
		{"description a number", one("    body: {type: string, description: 1}\n"), `"description" must be a string`},

		{"query object", one("    query: {a: {type: object}}\n"), `query "a": must be of the type string, integer`},
		{"query array", one("    query: {a: {type: array}}\n"), `query "a": must be of the type string, integer`},
		{"query of any type", one("    query: {a: {type: any}}\n    opaque: [/query/a]\n"), `query "a": must be of the type string, integer`},
		{"query with a header", one("    query: {a: {type: string, header: A}}\n"), `unknown key "header"`},
		{"query with properties", one("    query: {a: {type: string, properties: {}}}\n"), `unknown key "properties"`},
		{"query without type", one("    query: {a: {}}\n"), `"type" is missing`},
		{"query empty", one("    query: {}\n"), "leave it out"},
		{"query a list", one("    query: [a]\n"), `"query" must be a mapping`},
		{"query name escaped", one("    query: {a%20b: {type: string}}\n"), "visible ASCII characters other than"},
		{"query name delimited", one("    query: {a&b: {type: string}}\n"), "visible ASCII characters other than"},
		{"query names in two cases", one("    query: {a: {type: string}, A: {type: string}}\n"), "differ only in case"},
		{"header object", one("    header: {a: {type: object}}\n"), `header "a": must be of the type string, integer`},
		{"header in capitals", one("    header: {X-Locale: {type: string}}\n"), "must be a lower-case HTTP field name"},
		{"header with an underscore", one("    header: {x_locale: {type: string}}\n"), "without an underscore"},
		{"header with a space", one("    header: {'x locale': {type: string}}\n"), "must be a lower-case HTTP field name"},
	})
}

func TestRefusesHeader(t *testing.T) {
	for _, name := range append([]string{
		":path", "x-grant-ctx-agent", "x-envoy-upstream-rq-timeout-ms", "x-forwarded-for", "proxy-authorization",
	}, forbiddenHeaders...) {
		_, err := Parse("tools.yaml", []byte(one(fmt.Sprintf("    header: {%q: {type: string}}\n", name))))
		if want := fmt.Sprintf("header %q can never be an input", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("header %s: error %v, want one with %q", name, err, want)
		}
	}
}

// TestNullable: of a text alone, and of an MCP tool's.
func TestNullable(t *testing.T) {
	parse := func(input string) (*Catalog, error) {
		return Parse("tools.yaml", []byte(`servers:
- {id: s, resource: "https://s.internal", upstream: "127.0.0.1:1", mcp: {path: /s}, tools: [{tool: t, input: {type: object, properties: {a: `+input+`}}}]}
`))
	}
	c, err := parse(`{type: string, nullable: true}`)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := parse(`{type: string, nullable: false}`)
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Servers[0].Tools[0], plain.Servers[0].Tools[0]
	if !a.Arguments.Properties["a"].Nullable || b.Arguments.Properties["a"].Nullable || a.Digest == b.Digest {
		t.Errorf("%+v, %+v", a.Arguments.Properties["a"], b.Arguments.Properties["a"])
	}
	for _, input := range []string{`{type: integer, nullable: true}`, `{type: string, nullable: yes please}`} {
		if _, err := parse(input); err == nil {
			t.Errorf("%s was read", input)
		}
	}
}
