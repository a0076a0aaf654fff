package manifest_test

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"unicode/utf8"
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
