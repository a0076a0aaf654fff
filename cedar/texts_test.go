package cedar

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/catalog"
)

// An agent is of an issuer that there is, wherever it is named. Where the
// aliases are not known, any is taken.
func TestIssuers(t *testing.T) {
	const (
		agent  = `[{"uid": {"type": "Toolgrant::Agent", "id": "%/a"}}]`
		scope  = `principal, action in T::Action::"call", resource`
		wanted = `did you mean "corp"?`
	)
	rule := func(scope, condition string) string {
		return long(`@id("a") forbid (` + scope + ")\nwhen {\n" + condition + " };")
	}
	for _, tt := range []struct{ name, policy, entities, at string }{
		{"scope", rule(`principal == T::Agent::"%/orc", action, resource`, "true"), "[]", `p.cedar:1:49: policy "a"`},
		{"condition", rule(scope, `context.requester == T::Agent::"%/orc"`), "[]", `p.cedar:3:40: policy "a"`},
		{"in a set", rule(scope, `principal in [ T::Agent::"%/orc"]`), "[]", "p.cedar:3:"},
		{"entities.json", permitAll, agent, "entities.json:1:"},
		{"alias", rule(scope, `principal.issuer == "%"`), "[]", `p.cedar:3:21: policy "a": principal.issuer never has "crop"`},
		{"alias, turned round", rule(scope, `"%" != context.requester.issuer`), "[]", `context.requester.issuer never has "crop"`},
		{"alias of an owner", rule(scope, `context has grant && context.grant.owner.issuer == "%"`), "[]", "p.cedar:3:"},
		{"alias of a written agent", rule(scope, ` T::Agent::"corp/a".issuer == "%"`), "[]", "p.cedar:3:"},
		{"alias behind an if", rule(scope, `(if true then principal else context.requester).issuer == "%"`), "[]", "p.cedar:3:"},
		{"one of two, behind an if", rule(scope, `principal.issuer == (if context has grant then "mesh" else "%")`), "[]", "p.cedar:3:"},
		{"alias in a set", rule(scope, `["mesh", "%"].contains(principal.issuer)`), "[]", "p.cedar:3:"},
		{"alias in a set that is made", rule(scope, `[principal.subject, if true then "%" else "mesh"].contains(principal.issuer)`), "[]", "p.cedar:3:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load := func(alias string, aliases ...string) error {
				cfg := config(t, "p.cedar", strings.ReplaceAll(tt.policy, "%", alias), "entities.json", strings.ReplaceAll(tt.entities, "%", alias))
				cfg.Aliases = aliases
				_, err := Load(cfg)
				return err
			}
			if err := load("corp", "mesh", "corp"); err != nil {
				t.Error(err)
			}
			if err := load("crop"); err != nil {
				t.Errorf("the aliases are not known, and it does not load: %v", err)
			}
			err := load("crop", "mesh", "corp")
			if err == nil {
				t.Fatal("loaded")
			}
			for _, part := range []string{tt.at, `"crop`, wanted} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not have %q", err, part)
				}
			}
		})
	}
	t.Run("like", func(t *testing.T) {
		for pattern, loads := range map[string]bool{"cor*": true, "*": true, "crop*": false} {
			cfg := config(t, "p.cedar", rule(scope, `principal.issuer like "`+pattern+`"`))
			cfg.Aliases = []string{"mesh", "corp"}
			if _, err := Load(cfg); (err == nil) != loads {
				t.Errorf("%s: %v", pattern, err)
			}
		}
	})
	t.Run("example", func(t *testing.T) {
		cfg := config(t, "p.cedar", permitAll)
		cfg.Aliases = []string{"corp"}
		s, err := Load(cfg)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := s.ExampleInput("call", "bank/pay")
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]jsontext.Value
		if err := json.Unmarshal(doc, &members); err != nil {
			t.Fatal(err)
		}
		members["entities"] = jsontext.Value("[]") // they need not be described
		text, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.DecideExample(text); err != nil {
			t.Error(err)
		}
		for _, who := range []string{"agent-1", "orchestrator-1"} { // who calls; an owner
			other := bytes.ReplaceAll(text, []byte("corp/"+who), []byte("crop/"+who))
			if _, err := s.DecideExample(other); err == nil || !strings.Contains(err.Error(), `no issuer of identities has the alias "crop"`) {
				t.Errorf("%s of another issuer: %v", who, err)
			}
		}
	})
}

// A text that is compared with an argument is in the enum that the catalogue
// has for it.
func TestEnums(t *testing.T) {
	c, err := catalog.Load(filepath.Join(dir(t, "tools.yaml", `servers:
- id: docs
  resource: https://docs.internal
  upstream: 127.0.0.1:9200
  http:
  - tool: find
    method: POST
    path: /find
    header: {x-mode: {enum: [fast, slow]}}
    query: {how: {enum: [all]}, name: {enum: [x]}}
    body: {type: object, required: [tags, rows, deep], properties: {tags: {type: array, items: {type: string, enum: [red, blue]}}, rows: {type: array, items: {type: array, items: {type: string, enum: [n]}}}, deep: {type: object, required: [colour], properties: {colour: {type: string, enum: [red]}}}}}
  - {tool: list, method: GET, path: /list, query: {how: {enum: [some]}, name: {type: string}}}
`), "tools.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const (
		find   = `action == T::Action::"call:docs/find"`
		either = `action in T::Action::"call"`
		mode   = `context has input.header && context.input.header has "x-mode" && `
		how    = `context has input.query.how && `
	)
	for _, tt := range []struct{ name, scope, condition, bad string }{
		{"equal", find, mode + `context.input.header["x-mode"] == "fast"`, ""},
		{"equal", find, mode + `context.input.header["x-mode"] == "fastst"`, `context.input.header.x-mode never has "fastst": it is in no enum that the catalogue, the manifests or MCP have for it; did you mean "fast"?`},
		{"turned round", find, mode + `"fsat" != context.input.header["x-mode"]`, `did you mean "fast"?`},
		{"in a set", find, mode + `["fast", "slwo"].contains(context.input.header["x-mode"])`, `never has "slwo"`},
		{"behind an if", find, mode + `(if context has grant then context.input.header["x-mode"] else context.input.header["x-mode"]) == "fsat"`, `never has "fsat"`},
		{"behind an if that may be another", find, mode + `(if context has grant then context.input.header["x-mode"] else principal.subject) == "any"`, ""},
		{"like", find, mode + `context.input.header["x-mode"] like "f*"`, ""},
		{"like", find, mode + `context.input.header["x-mode"] like "ff*"`, `context.input.header.x-mode is never like "ff*"`},
		{"deep", find, `context has input && context.input.body.deep.colour == "green"`, `never has "green"`},
		{"an array", find, `context has input && context.input.body.tags.contains("red")`, ""},
		{"an array", find, `context has input && context.input.body.tags.contains("rde")`, `never has "rde"`},
		{"any of an array", find, `context has input && context.input.body.tags.containsAny(["red", "green"])`, `never has "green"`},
		{"all of an array", find, `context has input && context.input.body.tags.containsAll(["green"])`, `never has "green"`},
		{"an array that is equal", find, `context has input && ["green"] == context.input.body.tags`, `never has "green"`},
		{"arrays of an array", find, `context has input && context.input.body.rows.contains(["m"])`, `never has "m"`},
		{"of one tool or the other", either, how + `(context.input.query.how == "all" || context.input.query.how == "some")`, ""},
		{"of no tool", either, how + `context.input.query.how == "many"`, `there are: all, some`},
		{"of a tool outside of the scope", find, how + `context.input.query.how == "some"`, `never has "some"`},
		{"one of the tools takes any", either, `context has input.query.name && context.input.query.name == "any"`, ""},
		{"no enum", `action == T::Action::"call:docs/list"`, `context has input.query.name && context.input.query.name == "any"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			policy := long(`@id("a") forbid (principal, ` + tt.scope + ", resource)\nwhen {\n" + tt.condition + " };")
			_, err := Load(Config{Dir: dir(t, "p.cedar", policy), Catalog: c})
			switch {
			case tt.bad == "" && err != nil:
				t.Error(err)
			case tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.bad) || !strings.Contains(err.Error(), " p.cedar:3:") || !strings.Contains(err.Error(), `: policy "a": `)):
				t.Errorf("error %v does not have %q", err, tt.bad)
			}
		})
	}
}
