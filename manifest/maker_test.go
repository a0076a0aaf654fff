package manifest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

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
