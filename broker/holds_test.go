package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

const holdsTools = `
servers:
- id: s
  resource: https://s.internal
  upstream: 127.0.0.1:1
  http:
  - tool: all
    method: POST
    path: /all
    opaque: [/body/hidden, /body/deep/hidden]
    query: {copies: {type: integer}, to: {type: string}}
    header: {x-tenant: {type: string}}
    body:
      type: object
      properties:
        amount: {type: number}
        "a/b~c": {type: boolean}
        hidden: {type: object, properties: {n: {type: number}}}
        free: {type: object}
        deep: {type: object, required: [must], properties: {must: {type: string}, hidden: {type: string}}}
        list: {type: array, items: {type: object, properties: {n: {type: number}}}}
  - {tool: text, method: POST, path: /text, body: {type: string}}
  - {tool: none, method: GET, path: /none}
`

// object is the constraint of an object with members, all of them required.
func object(members ...string) string {
	var properties, required []string
	for i := 0; i < len(members); i += 2 {
		properties = append(properties, fmt.Sprintf("%q:%s", members[i], members[i+1]))
		required = append(required, fmt.Sprintf("%q", members[i]))
	}
	return `{"type":"object","properties":{` + strings.Join(properties, ",") + `},"required":[` + strings.Join(required, ",") + `],"additionalProperties":false}`
}

// TestCanHold: what no call of the tool could meet is refused, and named.
func TestCanHold(t *testing.T) {
	cat, err := catalog.Parse("tools.yaml", []byte(holdsTools))
	if err != nil {
		t.Fatal(err)
	}
	const num, integer, text, truth, null = `{"type":"number"}`, `{"type":"integer"}`, `{"type":"string"}`, `{"type":"boolean"}`, `{"type":"null"}`
	empty := object()
	// of constrains a member of a part of the input, and says nothing else.
	of := func(part, name, c string) string {
		all := map[string]string{"query": empty, "header": empty, "body": empty}
		all[part] = object(name, c)
		return object("query", all["query"], "header", all["header"], "body", all["body"])
	}
	for _, tc := range []struct{ tool, constraint, says string }{ // "": it can hold
		{"s/all", object("query", empty, "header", empty, "body", empty), ""},
		{"s/all", of("query", "to", text), ""},
		{"s/all", of("query", "copies", integer), ""},
		{"s/all", of("query", "copies", `{"type":"number","maximum":3}`), ""}, // an integer is a number
		{"s/all", of("body", "amount", integer), ""},                          // and a number may be an integer
		{"s/all", of("body", "a/b~c", truth), ""},
		{"s/all", of("header", "x-tenant", text), ""},
		{"s/all", of("body", "hidden", text), ""}, // opaque: anything
		{"s/all", of("body", "hidden", object("m", null)), ""},
		{"s/all", of("body", "deep", object("must", text, "hidden", num)), ""},
		{"s/all", of("body", "free", object("anything", null)), ""}, // nothing is declared below
		{"s/all", of("body", "list", `{"type":"array","items":`+object("n", num)+`}`), ""},
		{"s/text", object("body", text), ""},
		{"s/none", empty, ""},

		{"s/all", of("query", "Copies", integer), `no "/query/Copies"`},
		{"s/all", of("query", "amount", num), `no "/query/amount"`}, // the parts are never merged
		{"s/all", of("header", "x-other", text), `no "/header/x-other"`},
		{"s/all", of("body", "amout", num), `no "/body/amout"`},
		{"s/all", of("body", "x/y~z", text), `no "/body/x~1y~0z"`},
		{"s/all", of("body", "a/b~c", text), `"/body/a~1b~0c" is of type boolean`},
		{"s/all", of("query", "copies", text), `"/query/copies" is of type integer in the catalogue, and no string`},
		{"s/all", of("query", "to", num), `"/query/to" is of type string`},
		{"s/all", of("body", "amount", null), `"/body/amount" is of type number`},
		{"s/all", of("body", "amount", object()), `"/body/amount" is of type number`},
		{"s/all", of("body", "deep", text), `"/body/deep" is of type object`},
		{"s/all", of("body", "deep", object("must", text, "other", num)), `no "/body/deep/other"`},
		{"s/all", of("body", "deep", object("hidden", num)), `every call has "/body/deep/must"`},
		{"s/all", of("body", "free", text), `"/body/free" is of type object`},
		{"s/all", of("body", "list", `{"type":"array","items":`+text+`}`), `"/body/list/*" is of type object`},
		{"s/all", of("body", "list", `{"type":"array","items":`+object("m", num)+`}`), `no "/body/list/*/m"`},
		{"s/all", object("query", empty, "header", empty, "body", text), `"/body" is of type object`},
		{"s/all", object("query", empty, "body", empty), `every call has "/header"`},
		{"s/all", empty, `every call has "/body"`},
		{"s/all", object("q", num), `every call has`},
		{"s/text", object("body", object("a", text)), `"/body" is of type string`},
		{"s/text", object("body", text, "query", empty), `no "/query"`},
		{"s/none", object("query", empty), `no "/query"`},
		{"s/none", object(strings.Repeat("x", 1000), text), "no "},
	} {
		tool, _ := cat.Tool(tc.tool)
		raw := []json.RawMessage{json.RawMessage(tc.constraint)}
		if _, err := grants.CompileConstraints(raw); err != nil {
			t.Fatalf("%s: %v", tc.constraint, err)
		}
		err := canHold(tool, raw)
		switch {
		case tc.says == "" && err != nil:
			t.Errorf("%s %s: %v", tc.tool, tc.constraint, err)
		case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || len(err.Error()) > 200):
			t.Errorf("%s %s: %v, want %s", tc.tool, tc.constraint, err, tc.says)
		}
	}
}

// TestConstraintThatCannotHold is refused at both ways of asking, by its number.
func TestConstraintThatCannotHold(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	bad := `[` + object("query", object(), "body", object()) + `,` + object("query", object("copies", `{"type":"string"}`), "body", object()) + `]`
	const says = `constraints: number 1 could never hold: "/query/copies" is of type integer in the catalogue, and no string`
	help := h.refuse("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/show"},{"tool":"pay/send","constraints":%s}]}`, task, bad), 400, grants.BadRequest)
	if help != "grants[1]: "+says {
		t.Error(help)
	}
	details := fmt.Sprintf(`[{"type":"urn:toolgrant:grant:1","tool":"pay/send","task":%q,"constraints":%s}]`, task, bad)
	status, m := h.json("POST /oauth2/token", "", h.form(h.as("bot"), "scope", "", "authorization_details", details))
	if status != 400 || m["error"] != badDetails || m["error_description"] != "authorization_details[0]: "+says {
		t.Errorf("%d %v", status, m)
	}
}
