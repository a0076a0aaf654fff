package manifest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
)

// object is a JSON object as encoding/json gives it, numbers as json.Number.
type object = map[string]any

// reading is the closed reading of one manifest for one task, written from
// docs/grant-manifest.md alone: it reads the manifest as a plain JSON value,
// compiles nothing, and shares no code with what it is held against.
type reading struct {
	doc    object
	inputs map[string]toolInput // by SERVER/TOOL
	params object               // complete
	calls  map[string]int64     // tool -> what has passed
	sums   map[string]*big.Rat  // tool + "#" + pointer -> what has been spent
}

// toolInput is what the catalogue says of a tool's input.
type toolInput struct {
	schema   object // JSON Schema of the whole input
	http     bool
	volatile []string
}

// given is a grant, with all its renewals, as the reading knows it.
type given struct {
	tool  string
	bound bool // to one call
	once  any  // the input of that call
	used  bool
}

// read starts a reading; false if the parameters are not the manifest's.
func read(doc object, inputs map[string]toolInput, params object) (*reading, bool) {
	r := &reading{doc: doc, inputs: inputs, params: object{}, calls: map[string]int64{}, sums: map[string]*big.Rat{}}
	schema, _ := doc["params"].(object)
	declared, _ := schema["properties"].(object)
	for name := range params {
		if _, ok := declared[name]; !ok {
			return nil, false
		}
	}
	for name, s := range declared {
		s := s.(object)
		v, ok := params[name]
		if !ok {
			if v, ok = s["default"]; !ok || contains(schema["required"], name) {
				return nil, false
			}
		}
		if !literally(s, v) {
			return nil, false
		}
		r.params[name] = v
	}
	return r, r.sensible()
}

// literally holds a value against a schema of a parameter, in which nothing stands
// for something else.
func literally(s object, v any) bool { return (&reading{}).fits(s, s["type"].(string), v, false) }

// sensible is whether the parameters leave sense in every tool (section 3).
func (r *reading) sensible() bool {
	for _, e := range r.doc["tools"].([]any) {
		e := e.(object)
		if n, ok := e["max_calls"]; ok && rat(r.value(n)).Cmp(big.NewRat(1, 1)) < 0 {
			return false
		}
		for _, s := range sumsOf(e) {
			most := rat(r.value(s["max"]))
			if most.Sign() <= 0 || !fourDecimals(most) {
				return false
			}
		}
		if in, ok := e["input"]; ok && !r.lengths(in) {
			return false
		}
	}
	return true
}

// lengths is whether no length or count anywhere in a template is below 0.
func (r *reading) lengths(v any) bool {
	t, ok := v.(object)
	if !ok {
		return true
	}
	for k, v := range t {
		switch k {
		case "minLength", "maxLength", "maxItems":
			if p := r.value(v); isNumber(p) && rat(p).Sign() < 0 {
				return false
			}
		}
		if !r.lengths(v) {
			return false
		}
	}
	return true
}

// uncounted is 2^63 units of 10^-4: no sum can hold it, and no multiple is counted
// past it.
var uncounted = new(big.Rat).SetFrac(new(big.Int).Lsh(big.NewInt(1), 63), big.NewInt(10_000))

// refuses says which part of the reading a call breaks; "" if none. It spends
// nothing.
func (r *reading) refuses(g *given, input any) string {
	e := r.entry(g.tool)
	switch {
	case e == nil:
		return "manifest"
	case !g.bound && e["once"] == true:
		return "manifest"
	}
	if in, ok := e["input"].(object); ok && !r.inside(in, r.inputs[g.tool], input) {
		return "constraint"
	}
	if g.bound {
		left := r.inputs[g.tool].volatile
		if !equal(drop(g.once, left), drop(input, left)) {
			return "constraint"
		}
	}
	uncountable, spent := false, g.used
	if n, ok := e["max_calls"]; ok && rat(r.value(n)).Cmp(big.NewRat(r.calls[g.tool]+1, 1)) < 0 {
		spent = true
	}
	for _, s := range sumsOf(e) {
		pointer := s["argument"].(string)
		v, ok := at(input, pointer)
		if !ok || !isNumber(v) || rat(v).Sign() < 0 || !fourDecimals(rat(v)) || rat(v).Cmp(uncounted) >= 0 {
			uncountable = true
		} else if new(big.Rat).Add(r.sum(g.tool, pointer), rat(v)).Cmp(rat(r.value(s["max"]))) > 0 {
			spent = true
		}
	}
	switch { // which of the two is told where both hold is open
	case uncountable && spent:
		return "constraint or budget_spent"
	case uncountable:
		return "constraint"
	case spent:
		return "budget_spent"
	}
	return ""
}

// spend notes that a call has passed.
func (r *reading) spend(g *given, input any) {
	g.used = g.bound
	r.calls[g.tool]++
	for _, s := range sumsOf(r.entry(g.tool)) {
		pointer := s["argument"].(string)
		if v, ok := at(input, pointer); ok && isNumber(v) {
			r.sums[g.tool+"#"+pointer] = new(big.Rat).Add(r.sum(g.tool, pointer), rat(v))
		}
	}
}

func (r *reading) sum(tool, pointer string) *big.Rat {
	if s := r.sums[tool+"#"+pointer]; s != nil {
		return s
	}
	return new(big.Rat)
}

func (r *reading) entry(tool string) object {
	for _, e := range r.doc["tools"].([]any) {
		if e.(object)["tool"] == tool {
			return e.(object)
		}
	}
	return nil
}

// inside holds a whole input against a manifest's (section 5).
func (r *reading) inside(in object, tool toolInput, input any) bool {
	declared, _ := tool.schema["properties"].(object)
	if !tool.http {
		return r.members(in, declared, input)
	}
	parts, ok := input.(object)
	if !ok || len(parts) != len(declared) {
		return false
	}
	for part, s := range declared {
		v, ok := parts[part]
		if !ok {
			return false
		}
		s, _ := s.(object)
		inner, _ := s["properties"].(object)
		templates, named := in[part].(object)
		switch {
		case !named:
			ok = r.members(object{}, inner, v)
		case s["type"] == "object":
			ok = r.members(templates, inner, v)
		default:
			ok = r.template(templates, s, v)
		}
		if !ok {
			return false
		}
	}
	return true
}

// members is whether v is an object of exactly these members.
func (r *reading) members(templates, declared object, v any) bool {
	o, ok := v.(object)
	if !ok || len(o) != len(templates) {
		return false
	}
	for name, t := range templates {
		v, ok := o[name]
		s, _ := declared[name].(object)
		if !ok || !r.template(t.(object), s, v) {
			return false
		}
	}
	return true
}

// template holds a value against a template of an argument of which the catalogue
// has the schema.
func (r *reading) template(t, schema object, v any) bool {
	typ, _ := schema["type"].(string)
	if typ == "" && schema["enum"] != nil {
		typ = "string"
	}
	if typ == "" || typ == "any" {
		typ, _ = t["type"].(string)
	}
	if e, ok := schema["enum"]; ok && t["const"] == nil && t["enum"] == nil && !contains(e, v) {
		return false
	}
	if !r.fits(t, typ, v, true) {
		return false
	}
	switch inner, _ := schema["items"].(object); typ {
	case "object":
		templates, _ := t["properties"].(object)
		declared, _ := schema["properties"].(object)
		return r.members(templates, declared, v)
	case "array":
		items, _ := t["items"].(object)
		for _, e := range v.([]any) {
			if !r.template(items, inner, e) {
				return false
			}
		}
	}
	return true
}

// fits holds a value against the type and the keywords of one level.
func (r *reading) fits(s object, typ string, v any, template bool) bool {
	if !isA(typ, v) {
		return false
	}
	for keyword, want := range s {
		if template {
			want = r.value(want)
		}
		ok := true
		switch keyword {
		case "const":
			ok = equal(v, want)
		case "enum":
			ok = contains(want, v)
		case "minimum":
			ok = rat(v).Cmp(rat(want)) >= 0
		case "exclusiveMinimum":
			ok = rat(v).Cmp(rat(want)) > 0
		case "maximum":
			ok = rat(v).Cmp(rat(want)) <= 0
		case "exclusiveMaximum":
			ok = rat(v).Cmp(rat(want)) < 0
		case "minLength":
			ok = length(v).Cmp(rat(want)) >= 0
		case "maxLength", "maxItems":
			ok = length(v).Cmp(rat(want)) <= 0
		case "pattern":
			found := regexp.MustCompile(want.(string)).FindString(v.(string))
			ok = found == v.(string) && regexp.MustCompile(want.(string)).MatchString(v.(string))
		case "items":
			if !template {
				for _, e := range v.([]any) {
					ok = ok && literally(want.(object), e)
				}
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// value is the value of a keyword: the parameter's where it names one.
func (r *reading) value(v any) any {
	if o, ok := v.(object); ok && len(o) == 1 {
		if name, ok := o["$param"].(string); ok {
			return r.params[name]
		}
	}
	return v
}

// isA is whether v has a type; integers are within ±(2^53−1).
func isA(typ string, v any) bool {
	switch v := v.(type) {
	case string:
		return typ == "string"
	case bool:
		return typ == "boolean"
	case json.Number:
		n := rat(v)
		most := new(big.Rat).SetInt64(1<<53 - 1)
		return typ == "number" || typ == "integer" && n.IsInt() && n.Abs(n).Cmp(most) <= 0
	case []any:
		return typ == "array"
	case object:
		return typ == "object"
	}
	return false
}

func isNumber(v any) bool { _, ok := v.(json.Number); return ok }

func rat(v any) *big.Rat {
	n, ok := new(big.Rat).SetString(string(v.(json.Number)))
	if !ok {
		panic("no number: " + string(v.(json.Number)))
	}
	return n
}

func length(v any) *big.Rat {
	if a, ok := v.([]any); ok {
		return big.NewRat(int64(len(a)), 1)
	}
	return big.NewRat(int64(utf8.RuneCountInString(v.(string))), 1)
}

func fourDecimals(n *big.Rat) bool { return new(big.Rat).Mul(n, big.NewRat(10_000, 1)).IsInt() }

// equal compares as section 5 says.
func equal(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		return isNumber(b) && rat(a).Cmp(rat(b)) == 0
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case object:
		b, ok := b.(object)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, v := range a {
			if w, ok := b[name]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case json.Number, []any, object:
		return false
	}
	return a == b
}

func contains(list, v any) bool {
	l, _ := list.([]any)
	for _, e := range l {
		if equal(e, v) {
			return true
		}
	}
	return false
}

// sumsOf gives the sums of an entry: one, or a list.
func sumsOf(e object) (out []object) {
	switch s := e["sum"].(type) {
	case object:
		out = append(out, s)
	case []any:
		for _, s := range s {
			out = append(out, s.(object))
		}
	}
	return out
}

// at follows a JSON Pointer through objects.
func at(v any, pointer string) (any, bool) {
	for _, name := range steps(pointer) {
		o, _ := v.(object)
		var ok bool
		if v, ok = o[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// drop is a copy of v without what the pointers lead to.
func drop(v any, pointers []string) any {
	o, ok := v.(object)
	if !ok {
		return v
	}
	out := object{}
	for name, v := range o {
		var deeper []string
		gone := false
		for _, p := range pointers {
			if s := steps(p); s[0] == name {
				gone = gone || len(s) == 1
				deeper = append(deeper, p[1+strings.IndexByte(p[1:]+"/", '/'):])
			}
		}
		if !gone {
			out[name] = drop(v, deeper)
		}
	}
	return out
}

func steps(pointer string) []string {
	names := strings.Split(pointer, "/")[1:]
	for i := range names {
		names[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(names[i])
	}
	return names
}

// maker makes random catalogues, manifests, parameters and inputs.
type maker struct {
	*rand.Rand
	kind   string
	params object // name -> schema
}

func (m *maker) one(p float64) bool { return m.Float64() < p }

func pick[T any](m *maker, of ...T) T { return of[m.IntN(len(of))] }

// Few values, so that near misses are frequent: neighbours of each other, the same
// value spelt otherwise, texts that look like another type or a place of a
// parameter, and two forms of Unicode of one letter.
var (
	someTexts   = []string{"a", "b", "ab", "A", "\u00e9", "e\u0301", "", "a\n", "1", "true", "$param", `{"$param":"p0"}`, "abcd"}
	someNumbers = []string{"0", "1", "1.0", "1e0", "2", "3", "10e-1", "0.5", "0.0001", "0.00005", "2.5", "-1", "100", "1E2", "9007199254740991"}
	somePattern = []string{"^(?:a|ab)$", "^(?:[a-z]{1,2})$", "^(?:[0-9]+)$"}
)

// scalar is a random value of a type.
func (m *maker) scalar(typ string) any {
	switch typ {
	case "string":
		return pick(m, someTexts...)
	case "boolean":
		return m.one(.5)
	case "integer":
		return json.Number(pick(m, "0", "1", "1.0", "2", "3", "4", "-1", "100"))
	}
	return json.Number(pick(m, someNumbers...))
}

// declared is a schema of the catalogue.
func (m *maker) declared(depth int) object {
	switch typ := pick(m, "string", "string", "integer", "number", "number", "boolean", "array", "object"); {
	case typ == "array" && depth > 0:
		return object{"type": typ, "items": object{"type": pick(m, "string", "number", "integer")}}
	case typ == "object" && depth > 0:
		return m.declaredObject(depth - 1)
	case typ == "string" && m.one(.2):
		return object{"type": typ, "enum": []any{"a", "b", "\u00e9"}}
	case typ == "array", typ == "object":
		return object{"type": "number"}
	default:
		return object{"type": typ}
	}
}

func (m *maker) declaredObject(depth int) object {
	properties, required := object{}, []any{}
	for _, name := range []string{"x", "y", "a/b"}[:1+m.IntN(3)] {
		properties[name] = m.declared(depth)
		if m.one(.5) {
			required = append(required, name)
		}
	}
	return object{"type": "object", "properties": properties, "required": required}
}

// catalogue makes one MCP server and one HTTP service, as text and as the reading
// knows them.
func (m *maker) catalogue() ([]byte, map[string]toolInput) {
	inputs := map[string]toolInput{}
	var mcp, http []any
	for i := range 3 {
		name := fmt.Sprint("t", i)
		in := m.declaredObject(2)
		t := object{"tool": name, "input": in}
		input := toolInput{schema: in}
		if m.one(.3) {
			t["volatile"], input.volatile = []any{"/x"}, []string{"/x"}
		}
		mcp, inputs["m/"+name] = append(mcp, t), input

		parts := object{}
		h := object{"tool": name, "method": "POST", "path": "/" + name}
		declared := object{
			"query":  object{"q": object{"type": pick(m, "string", "integer")}, "r": object{"type": "number"}},
			"header": object{"x-h": object{"type": "string"}},
		}
		for _, part := range sorted(declared) {
			if s := declared[part].(object); m.one(.6) {
				h[part], parts[part] = s, object{"type": "object", "properties": s, "required": []any{}}
			}
		}
		if m.one(.7) {
			h["body"] = m.declaredObject(1)
			if m.one(.2) {
				h["body"] = object{"type": "number"}
			}
			parts["body"] = h["body"]
		}
		http = append(http, h)
		inputs["h/"+name] = toolInput{http: true, schema: object{"type": "object", "properties": parts}}
	}
	return marshal(object{"servers": []any{
		object{"id": "m", "resource": "https://m.internal/mcp", "upstream": "127.0.0.1:1", "mcp": object{"path": "/mcp"}, "tools": mcp},
		object{"id": "h", "resource": "https://h.internal", "upstream": "127.0.0.1:2", "http": http},
	}}), inputs
}

// manifest makes a random manifest over the tools.
func (m *maker) manifest(inputs map[string]toolInput) object {
	m.params = object{}
	tools := []any{}
	for _, id := range slices.Sorted(maps.Keys(inputs)) {
		if m.one(.6) && len(tools) > 0 {
			continue
		}
		e := object{"tool": id}
		if m.one(.85) {
			e["input"] = m.template(inputs[id])
		}
		if m.one(.6) {
			e["ttl"] = pick(m, "2s", "3s", "5s")
		}
		if m.one(.6) {
			e["max_calls"] = m.orParam(json.Number(pick(m, "1", "2", "3")), "integer")
		}
		if sums := m.sums(e, inputs[id]); len(sums) == 1 && m.one(.5) {
			e["sum"] = sums[0]
		} else if len(sums) > 0 {
			e["sum"] = sums
		}
		if m.one(.15) {
			e["once"] = true
		}
		tools = append(tools, e)
	}
	doc := object{"kind": m.kind, "tools": tools}
	if m.one(.5) {
		doc["max_duration"] = pick(m, "2s", "6s", "1m")
	}
	if len(m.params) > 0 {
		required := []any{}
		for _, name := range sorted(m.params) {
			if s := m.params[name].(object); s["default"] == nil {
				required = append(required, name)
			}
		}
		doc["params"] = object{"type": "object", "required": required, "properties": m.params}
	}
	return doc
}

func (m *maker) template(tool toolInput) object {
	properties, _ := tool.schema["properties"].(object)
	if !tool.http {
		return m.templates(tool.schema)
	}
	out := object{}
	for _, part := range sorted(properties) {
		s := properties[part].(object)
		switch {
		case s["type"] != "object":
			out[part] = m.argument(s)
		case m.one(.75) || contains(s["required"], "x") || contains(s["required"], "y") || contains(s["required"], "a/b"):
			out[part] = m.templates(s)
		}
	}
	return out
}

func (m *maker) templates(s object) object {
	properties, _ := s["properties"].(object)
	out := object{}
	for _, name := range sorted(properties) {
		if contains(s["required"], name) || m.one(.6) {
			out[name] = m.argument(properties[name].(object))
		}
	}
	return out
}

func (m *maker) argument(s object) object {
	t := object{}
	typ := s["type"].(string)
	if m.one(.2) {
		t["type"] = typ
	}
	switch {
	case typ == "object":
		t["properties"] = m.templates(s)
	case typ == "array":
		if m.one(.6) {
			t["items"] = m.argument(s["items"].(object))
		}
		if m.one(.6) {
			t["maxItems"] = m.orParam(json.Number(pick(m, "0", "1", "2")), "integer")
		}
	case s["enum"] != nil && m.one(.7):
	case m.one(.3):
		t["const"] = m.orParam(m.scalar(typ), typ)
	case m.one(.2):
		a, b := m.scalar(typ), m.scalar(typ)
		if equal(a, b) || m.one(.3) {
			t["enum"] = m.param(object{"type": "array", "items": object{"type": typ}})
		} else {
			t["enum"] = []any{a, b}
		}
	case typ == "string":
		if m.one(.3) {
			t["pattern"] = pick(m, somePattern...)
		}
		if m.one(.4) {
			t["maxLength"] = m.orParam(json.Number(pick(m, "0", "1", "2", "3")), "integer")
		}
		if m.one(.2) {
			t["minLength"] = m.orParam(json.Number(pick(m, "0", "1")), "integer")
		}
	case typ == "number" || typ == "integer":
		if m.one(.5) {
			t[pick(m, "minimum", "exclusiveMinimum")] = m.orParam(json.Number(pick(m, "0", "1", "-1")), typ)
		}
		if m.one(.6) {
			t[pick(m, "maximum", "exclusiveMaximum")] = m.orParam(json.Number(pick(m, "1", "2", "100")), typ)
		}
	}
	return t
}

// orParam is the value, or a parameter in its place.
func (m *maker) orParam(v any, typ string) any {
	if m.one(.5) {
		return v
	}
	s := object{"type": typ}
	if m.one(.3) {
		s["default"] = v
	}
	if typ == "number" && m.one(.3) {
		s["maximum"] = json.Number("100")
	}
	return m.param(s)
}

func (m *maker) param(s object) any {
	name := fmt.Sprint("p", len(m.params), "_", m.kind)
	m.params[name] = s
	return object{"$param": name}
}

// sums bounds some of the numbers that a call can have, at any depth: the template
// lists them, or there is none.
func (m *maker) sums(e object, tool toolInput) (out []any) {
	in, bounded := e["input"].(object)
	var look func(s, templates object, at string)
	look = func(s, templates object, at string) {
		properties, _ := s["properties"].(object)
		for _, name := range sorted(properties) {
			s, below := properties[name].(object), at+"/"+strings.ReplaceAll(name, "/", "~1")
			t, listed := templates[name].(object)
			if !listed && bounded {
				continue
			}
			if typ := s["type"]; (typ == "number" || typ == "integer") && m.one(.3) {
				out = append(out, object{"argument": below, "max": m.orParam(json.Number(pick(m, "1", "2", "2.5", "100", "0.0001")), "number")})
			}
			if inner, ok := t["properties"].(object); ok {
				t = inner
			}
			look(s, t, below)
		}
	}
	look(tool.schema, in, "")
	return out
}

// values are parameters: mostly ones that fit.
func (m *maker) values() object {
	out := object{}
	for _, name := range sorted(m.params) {
		s := m.params[name].(object)
		if s["default"] != nil && m.one(.5) || m.one(.01) {
			continue
		}
		typ := s["type"].(string)
		if m.one(.02) {
			typ = pick(m, "string", "number", "boolean")
		}
		if typ != "array" {
			if out[name] = m.scalar(typ); isNumber(out[name]) && m.one(.6) {
				out[name] = json.Number(pick(m, "1", "2", "3"))
			}
			continue
		}
		list := []any{}
		items, _ := s["items"].(object)
		for range 1 + m.IntN(2) {
			if v := m.scalar(items["type"].(string)); !contains(list, v) {
				list = append(list, v)
			}
		}
		out[name] = list
	}
	return out
}

// input makes the input of a call: one that may fit, or, if near, one with a fault.
func (m *maker) input(r *reading, tool string, near bool) any {
	t := r.inputs[tool]
	e := r.entry(tool)
	in, bounded := e["input"].(object)
	var v any
	switch properties, _ := t.schema["properties"].(object); {
	case !bounded:
		v = m.free(t.schema)
	case !t.http:
		v = m.filled(r, in, t.schema)
	default:
		parts := object{}
		for _, part := range sorted(properties) {
			if s := properties[part].(object); s["type"] == "object" {
				templates, _ := in[part].(object)
				parts[part] = m.filled(r, templates, s)
			} else {
				parts[part] = m.fitting(r, in[part].(object), s)
			}
		}
		v = parts
	}
	if near {
		v = m.spoilt(v)
	}
	return v
}

func (m *maker) free(s object) any {
	switch s["type"] {
	case "object":
		out := object{}
		properties, _ := s["properties"].(object)
		for _, name := range sorted(properties) {
			out[name] = m.free(properties[name].(object))
		}
		return out
	case "array":
		return []any{m.free(s["items"].(object))}
	}
	return m.scalar(s["type"].(string))
}

func (m *maker) filled(r *reading, templates, s object) any {
	out := object{}
	properties, _ := s["properties"].(object)
	for _, name := range sorted(templates) {
		out[name] = m.fitting(r, templates[name].(object), properties[name].(object))
	}
	return out
}

// fitting is a value for a template: tried until it fits, but not for long.
func (m *maker) fitting(r *reading, t, s object) (v any) {
	typ := s["type"].(string)
	for range 30 {
		switch list, _ := r.value(t["enum"]).([]any); {
		case typ == "object":
			templates, _ := t["properties"].(object)
			v = m.filled(r, templates, s)
		case t["const"] != nil:
			v = m.again(r.value(t["const"]))
		case len(list) > 0:
			v = m.again(pick(m, list...))
		case typ == "array":
			items, _ := t["items"].(object)
			l := []any{}
			for range m.IntN(3) {
				l = append(l, m.fitting(r, items, s["items"].(object)))
			}
			v = l
		default:
			v = m.scalar(typ)
		}
		if r.template(t, s, v) {
			break
		}
	}
	return v
}

// again is the same number in another spelling.
func (m *maker) again(v any) any {
	if n, ok := v.(json.Number); ok && m.one(.3) && !strings.ContainsAny(string(n), ".eE") {
		return n + pick(m, json.Number(".0"), "e0")
	}
	return v
}

// spoilt changes one thing somewhere in a value.
func (m *maker) spoilt(v any) any {
	switch v := v.(type) {
	case object:
		names := sorted(v)
		out := maps.Clone(v)
		switch {
		case len(names) == 0 || m.one(.15):
			out[pick(m, "z", "X", "", "q")] = m.scalar(pick(m, "string", "number"))
		case m.one(.2):
			delete(out, pick(m, names...))
		case m.one(.1):
			name := pick(m, names...)
			out[name+" "] = out[name]
			delete(out, name)
		default:
			name := pick(m, names...)
			out[name] = m.spoilt(v[name])
		}
		return out
	case []any:
		if len(v) == 0 || m.one(.5) {
			return append(slices.Clone(v), m.scalar("string"))
		}
		return append([]any{m.spoilt(v[0])}, v[1:]...)
	case json.Number:
		n, _ := rat(v).Float64()
		return pick[any](m, string(v), json.Number(fmt.Sprint(n+1)), json.Number(fmt.Sprint(n-1)), json.Number(fmt.Sprint(n+.0001)), []any{v}, nil)
	case string:
		return pick[any](m, v+"a", strings.ToUpper(v), v+"\n", json.Number("1"), []any{v}, nil, pick(m, someTexts...))
	case bool:
		return pick[any](m, !v, "true", json.Number("1"), nil)
	}
	return m.scalar("number")
}

func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// TestClosed holds what passes against the closed reading, over random catalogues,
// manifests, parameters, grants, renewals and calls: 2,000 manifests, or as many as
// TOOLGRANT_MANIFEST_CASES says. TOOLGRANT_MANIFEST_SEED runs one seed again.
func TestClosed(t *testing.T) {
	cases, seed := fromEnv(t, "TOOLGRANT_MANIFEST_CASES", 2_000), fromEnv(t, "TOOLGRANT_MANIFEST_SEED", rand.Uint64())
	t.Logf("seed %d", seed)
	const batch = 50 // manifests of one catalogue and set
	n := map[string]int{}
	for i := uint64(0); uint64(n["manifests read"]) < cases && !t.Failed(); i++ {
		synctest.Test(t, func(t *testing.T) {
			d := &driver{T: t, m: &maker{Rand: rand.New(rand.NewPCG(seed, i))}, n: n}
			d.batch(batch)
		})
	}
	for _, what := range slices.Sorted(maps.Keys(n)) {
		t.Logf("%8d %s", n[what], what)
	}
	// None of it is vacuous: each side of the property was met often.
	for what, share := range map[string]struct {
		of   string
		part float64
	}{
		"manifests read":                  {"manifests", .8},
		"tasks started":                   {"manifests read", .5},
		"tasks refused":                   {"manifests read", .02},
		"grants issued":                   {"grants asked for", .3},
		"grants not admitted":             {"grants asked for", .02},
		"renewals issued":                 {"grants issued", .05},
		"calls passed":                    {"calls", .1},
		"calls passed under a renewal":    {"calls", .005},
		"calls refused: constraint":       {"calls", .1},
		"calls refused: budget_spent":     {"calls", .02},
		"calls refused: window":           {"calls", .02},
		"calls under all of the manifest": {"calls", .2},
	} {
		if float64(n[what]) < share.part*float64(n[share.of]) || n[what] == 0 {
			t.Errorf("%d %s of %d %s: that says too little", n[what], what, n[share.of], share.of)
		}
	}
}

func fromEnv(t *testing.T, name string, def uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// driver puts manifests, grants, a Store and a Table together as the doors do.
type driver struct {
	*testing.T
	m     *maker
	n     map[string]int
	cat   *catalog.Catalog
	set   *manifest.Set
	store *grants.Memory
	table *grants.Table
}

func (d *driver) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// batch runs so many manifests of one catalogue, all of them in one set.
func (d *driver) batch(size int) {
	text, inputs := d.m.catalogue()
	var err error
	d.cat, err = catalog.Parse("tools.yaml", text)
	d.must(err)
	dir := d.TempDir()
	docs := map[string]object{}
	params := map[string]object{}
	for i := range size {
		d.n["manifests"]++
		d.m.kind = fmt.Sprint("k", i)
		doc := d.m.manifest(inputs)
		if _, err := manifest.Parse("m.yaml", marshal(doc), d.cat); err != nil {
			continue
		}
		d.n["manifests read"]++
		docs[d.m.kind], params[d.m.kind] = doc, d.m.params
		d.must(os.WriteFile(filepath.Join(dir, d.m.kind+".yaml"), marshal(doc), 0o600))
	}
	d.set, err = manifest.Load(dir, d.cat)
	d.must(err)
	defer d.open()()
	for _, kind := range slices.Sorted(maps.Keys(docs)) {
		d.m.kind, d.m.params = kind, params[kind]
		d.task(docs[kind], inputs)
	}
}

// open makes a Store with a Table that follows it, inside a bubble of synctest.
func (d *driver) open() (closed func()) {
	start := time.Now()
	d.store = grants.NewMemory(grants.MemoryConfig{})
	d.table = grants.NewTable(grants.TableConfig{Draw: d.store.Draw, Clock: func() (time.Time, time.Duration) {
		return time.Now().Round(0), time.Since(start)
	}})
	ctx, stop := context.WithCancel(d.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.table.Follow(ctx, d.store, nil) })
	synctest.Wait()
	return func() { stop(); running.Wait() }
}

// play is one task, in both readings.
type play struct {
	*driver
	r     *reading
	mf    *manifest.Manifest
	task  grants.Task
	begin time.Time
	held  []*holding
}

// holding is one grant, in both readings.
type holding struct {
	id      grants.ID
	given   *given
	begin   time.Time
	ends    time.Time // by what was asked for
	whole   bool      // nothing in it is narrower than the manifest
	renewal bool
	fenced  bool
}

var bot = grants.Principal{Issuer: "corp", Subject: "bot"}

func (d *driver) task(doc object, inputs map[string]toolInput) {
	values := d.m.values()
	r, ok := read(doc, inputs, values)
	mf, _ := d.set.Kind(d.m.kind)
	params, err := mf.ReadParams(marshal(values))
	if err != nil {
		d.n["tasks refused"]++
		if ok {
			d.n["tasks refused that the reading would start"]++
		}
		return
	}
	if !ok {
		d.Fatalf("parameters that the reading refuses: %s\n%s", marshal(values), marshal(doc))
	}
	if started := parse(d.T, params); !equal(started, r.params) {
		d.Fatalf("parameters of the task: %s, the reading has %s\n%s", params, marshal(r.params), marshal(doc))
	}
	d.n["tasks started"]++
	p := d.start(r, mf, params)
	for range 24 {
		switch roll := d.m.Float64(); {
		case len(p.held) == 0 || roll < .15:
			p.ask(nil)
		case roll < .25:
			p.ask(pick(d.m, p.held...))
		case roll < .33:
			time.Sleep(pick[time.Duration](d.m, 1, 1, 3) * time.Second)
		default:
			p.call(pick(d.m, p.held...))
		}
	}
}

// start starts a task as the broker does.
func (d *driver) start(r *reading, mf *manifest.Manifest, params json.RawMessage) *play {
	now := time.Now()
	p := &play{driver: d, r: r, mf: mf, begin: now}
	p.task = grants.Task{ID: grants.NewID(grants.TaskPrefix), Kind: mf.Kind, Owner: bot, Agents: []string{bot.ID()}, Params: params, Deadline: now.Add(time.Minute)}
	if mf.MaxDuration > 0 {
		p.task.Deadline = now.Add(min(time.Minute, mf.MaxDuration))
	}
	_, why, err := d.store.Start(d.Context(), p.task)
	d.must(err)
	if why != grants.None {
		d.Fatal(why)
	}
	return p
}

// ask asks for a grant, or for a renewal of one, as the issue door narrows it; or,
// as a door with a fault would, for one that is wider somewhere.
func (p *play) ask(old *holding) {
	m := p.m
	tool := pick(m, p.mf.Tools...).Tool
	if old != nil {
		tool, _ = p.cat.Tool(old.given.tool)
	}
	e, ok, err := p.mf.Entry(tool.ID, p.task.Params)
	if err != nil || !ok {
		p.Fatalf("entry of %s: %v, %v", tool.ID, ok, err)
	}
	p.n["grants asked for"]++
	now := time.Now()
	h := &holding{given: &given{tool: tool.ID}, begin: now, whole: true, renewal: old != nil}
	ttl := pick[time.Duration](m, 2, 3, 10) * time.Second
	fault := ""
	if m.one(.2) {
		fault = pick(m, "ttl", "constraint", "calls", "sum", "once", "own")
	}
	if e.TTL > 0 && fault != "ttl" {
		ttl = min(ttl, e.TTL)
	}
	g := grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: p.task.ID, Agent: bot, Requester: bot, Tool: tool.ID, Pin: tool.Digest,
		NotBefore: now, Expires: now.Add(ttl), Rev: p.table.Rev(),
	}
	if left := p.task.Deadline; g.Expires.After(left) {
		g.Expires = left
	}
	h.ends = g.Expires
	var carried []grants.Budget
	if old == nil {
		carried = p.table.TaskBudgets(p.task.ID, tool.ID)
	} else {
		was, _ := p.table.Grant(old.id)
		if was == nil {
			return
		}
		g.Renews, g.Once, g.Constraints, carried = old.id, was.Once, was.Constraints, was.Budgets
		h.given, h.whole = old.given, old.whole
	}
	if fault == "own" { // as if the task had none, or the old grant
		carried = nil
	}
	if e.Constraint != nil && fault != "constraint" && !slices.ContainsFunc(g.Constraints, func(c json.RawMessage) bool { return string(c) == string(e.Constraint) }) {
		g.Constraints = append(slices.Clone(g.Constraints), e.Constraint)
	}
	if m.one(.1) { // one of the asker's own
		if text := m.constraint(p.r.inputs[tool.ID].schema); len(text) > 0 {
			g.Constraints, h.whole = append(slices.Clone(g.Constraints), text), false
		}
	}
	asked := map[string]int64{}
	if e.MaxCalls > 0 {
		asked[""] = e.MaxCalls
	}
	maps.Copy(asked, e.Sums)
	for _, arg := range slices.Sorted(maps.Keys(asked)) {
		limit := asked[arg]
		if m.one(.08) {
			asked[arg], h.whole = max(1, limit-1), false
		}
		if fault == "calls" && arg == "" || fault == "sum" && arg != "" {
			asked[arg] = limit + 10
		}
	}
	if old == nil && (e.Once && fault != "once" || m.one(.1)) {
		text := marshal(m.input(p.r, tool.ID, m.one(.1)))
		read, err := strictjson.Parse(text, strictjson.Limits{})
		if err != nil {
			return // nor does the issue door take it
		}
		if g.Once, err = grants.OnceDigest(read, tool.Volatile); err != nil {
			return
		}
		in := parse(p.T, text)
		h.given.once, h.given.bound = in, true
		carried = append(slices.Clone(carried), grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 1})
	}
	g.Budgets = slices.Clone(carried)
	for _, arg := range slices.Sorted(maps.Keys(asked)) {
		key := grants.TaskBudget(p.task.ID, tool.ID, arg)
		if fault == "own" {
			key = grants.GrantBudget(g.ID, arg)
		}
		i := slices.IndexFunc(g.Budgets, func(b grants.Budget) bool { return b.Key == key })
		own := grants.GrantBudget(g.ID, arg)
		switch {
		case i < 0:
			g.Budgets = append(g.Budgets, grants.Budget{Key: key, Arg: arg, Limit: asked[arg]})
		case asked[arg] < g.Budgets[i].Limit && !slices.ContainsFunc(g.Budgets, func(b grants.Budget) bool { return b.Key == own }):
			g.Budgets = append(g.Budgets, grants.Budget{Key: own, Arg: arg, Limit: asked[arg]})
		}
	}
	if err := p.set.Admits(&p.task, &g); err != nil {
		p.n["grants not admitted"]++
		if fault == "" {
			p.Fatalf("a grant within the manifest is not admitted: %v\n%s\n%s", err, marshal(p.r.doc), marshal(g))
		}
		return
	}
	rev, why, err := p.store.Issue(p.Context(), []grants.Grant{g})
	p.must(err)
	if why != grants.None {
		p.n["grants refused: "+why.String()]++
		return
	}
	p.must(p.table.Wait(p.Context(), rev))
	p.n["grants issued"]++
	if old != nil {
		p.n["renewals issued"]++
	}
	if old != nil && m.one(.7) {
		_, err := p.store.Fence(p.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: old.id, Why: grants.Superseded, Until: h.ends.Add(time.Minute)})
		p.must(err)
		old.fenced = true
	}
	// A first grant that asked for less has made the task's budget a lesser one.
	for _, b := range p.table.TaskBudgets(p.task.ID, tool.ID) {
		h.whole = h.whole && b.Limit == map[bool]int64{true: e.MaxCalls, false: e.Sums[b.Arg]}[b.Arg == ""]
	}
	h.id = g.ID
	p.held = append(p.held, h)
}

// constraint is one that an asker might add: of the arguments' types.
func (m *maker) constraint(schema object) json.RawMessage {
	var closed func(s object) object
	closed = func(s object) object {
		switch properties, _ := s["properties"].(object); s["type"] {
		case "object":
			out, required := object{}, []any{}
			for _, name := range sorted(properties) {
				out[name], required = closed(properties[name].(object)), append(required, name)
			}
			return object{"type": "object", "properties": out, "required": required, "additionalProperties": false}
		case "array":
			return object{"type": "array", "items": closed(s["items"].(object))}
		}
		return object{"type": s["type"]}
	}
	text := marshal(closed(schema))
	if _, err := grants.CompileConstraint(text); err != nil {
		return nil
	}
	return text
}

// call makes a call under a grant, in both readings.
func (p *play) call(h *holding) {
	text := marshal(p.m.input(p.r, h.given.tool, p.m.one(.4)))
	if h.given.bound && p.m.one(.7) {
		text = marshal(h.given.once)
		if o, ok := h.given.once.(object); ok && p.m.one(.3) {
			o = maps.Clone(o)
			o["x"] = p.m.scalar("string")
			text = marshal(o)
		}
	}
	p.n["calls"]++
	input, err := strictjson.Parse(text, strictjson.Limits{})
	if err != nil {
		p.n["calls that are not read"]++
		return
	}
	plain := parse(p.T, text)
	now := time.Now()
	why := p.r.refuses(h.given, plain)
	if !p.inWindow(h, now) {
		why = "window"
	}
	got := p.passes(h.id, input)
	tell := func(what string) {
		g, _ := p.table.Grant(h.id)
		p.Fatalf("%s: got %q, the reading has %q\nmanifest %s\nparams %s\ngrant %s\ninput %s\nseen: calls %v, sums %v",
			what, got, why, marshal(p.r.doc), p.task.Params, marshal(g), text, p.r.calls, p.r.sums)
	}
	whole := h.whole && !h.fenced && now.Before(h.ends)
	if whole {
		p.n["calls under all of the manifest"]++
	}
	switch {
	case got == "" && why != "":
		tell("a call passed that the manifest's closed reading refuses")
	case got == "":
		p.r.spend(h.given, plain)
		p.n["calls passed"]++
		if h.renewal {
			p.n["calls passed under a renewal"]++
		}
	case whole && why == "":
		tell("a call was refused that the manifest lets pass")
	case whole && !strings.Contains(why, got):
		tell("a call was refused for another reason")
	default:
		p.n["calls refused: "+cmp.Or(why, "by what was asked for")]++
	}
}

// inWindow is the reading's own view of time: a grant has at most its tool's ttl,
// and a task at most max_duration.
func (p *play) inWindow(h *holding, now time.Time) bool {
	within := func(begin time.Time, longest any) bool {
		text, bounded := longest.(string)
		if !bounded {
			return true
		}
		d, err := time.ParseDuration(text)
		p.must(err)
		return now.Before(begin.Add(d))
	}
	return within(h.begin, p.r.entry(h.given.tool)["ttl"]) && within(p.begin, p.r.doc["max_duration"])
}

// passes asks the parts in the order of the call door; "" lets the call pass.
func (p *play) passes(id grants.ID, input any) string {
	live, why := p.table.Lookup(id)
	if why != grants.None {
		return "window"
	}
	g := live.Grant()
	if p.set.Admits(live.Task(), g) != nil {
		return grants.Manifest.String()
	}
	for _, c := range live.Constraints() {
		if c.Check(input) != nil {
			return grants.ConstraintBroken.String()
		}
	}
	if !g.Once.IsZero() {
		tool, _ := p.cat.Tool(g.Tool)
		if d, err := grants.OnceDigest(input, tool.Volatile); err != nil || d != g.Once {
			return grants.ConstraintBroken.String()
		}
	}
	_, why, err := p.table.Spend(p.Context(), live, input)
	p.must(err)
	if why != grants.None {
		return why.String()
	}
	return ""
}

// parse reads JSON as the reading sees it.
func parse(t testing.TB, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func sorted(o object) []string { return slices.Sorted(maps.Keys(o)) }
