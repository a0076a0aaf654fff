package grants

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/strictjson"
)

// compiler counts what one constraint costs.
type compiler struct {
	insts   int // of its patterns
	schemas int
	room    int // bytes of state that are left
}

// take counts bytes of state.
func (c *compiler) take(n int, at string) error {
	if c.room -= n; c.room < 0 {
		return placed(at, "the grant's constraints would take over %d bytes of memory; use fewer schemas and values, narrower classes, and \"maxLength\" in place of repetitions", maxState)
	}
	return nil
}

// Keywords beside "type", by the type that they fit.
var keywords = map[string][]string{
	"object":  {"properties", "required", "additionalProperties", "const", "enum"},
	"array":   {"items", "maxItems", "const", "enum"},
	"string":  {"minLength", "maxLength", "pattern", "const", "enum"},
	"number":  {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "const", "enum"},
	"integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "const", "enum"},
	"boolean": {"const", "enum"},
	"null":    {"const", "enum"},
}

func (c *compiler) schema(v any, at string, depth int) (*schema, error) {
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, placed(at, "write a schema object here")
	}
	if depth > maxSchemaDepth {
		return nil, placed(at, "schemas are nested more than %d deep", maxSchemaDepth)
	}
	if err := checkKeywords(doc, at); err != nil {
		return nil, err
	}
	if c.schemas++; c.schemas > maxSchemas {
		return nil, placed(at, "the constraint has more than %d schemas; name fewer members", maxSchemas)
	}
	if err := c.take(schemaState, at); err != nil {
		return nil, err
	}
	s := &schema{kind: doc["type"].(string), maxLen: -1, maxItems: -1}
	var err error
	switch s.kind {
	case "object":
		err = c.object(s, doc, at, depth)
	case "array":
		err = c.array(s, doc, at, depth)
	case "string":
		err = c.string(s, doc, at)
	case "number", "integer":
		err = c.bounds(s, doc, at)
	}
	if err != nil {
		return nil, err
	}
	return s, c.values(s, doc, at)
}

// checkKeywords sees to it that doc has a type and no keyword that does not fit it.
func checkKeywords(doc map[string]any, at string) error {
	kind, typed := doc["type"].(string)
	fit, known := keywords[kind]
	for _, name := range sortedNames(doc) {
		if name == "type" {
			continue
		}
		switch {
		case !inProfile(name):
			return placed(at, "keyword %q is not in the profile; %s", name, instead(name))
		case known && !slices.Contains(fit, name):
			return placed(at, "keyword %q does not fit type %q; leave it out", name, kind)
		}
	}
	if !typed || !known {
		return placed(at, `"type" must be one of the strings %q`, sortedNames(keywords))
	}
	return nil
}

func inProfile(keyword string) bool {
	for _, fit := range keywords {
		if slices.Contains(fit, keyword) {
			return true
		}
	}
	return false
}

// instead says what to write in place of a keyword that is not in the profile.
func instead(keyword string) string {
	switch keyword {
	case "$ref", "$dynamicRef", "$defs", "definitions", "$anchor", "$id":
		return "write the schema out where it is used"
	case "anyOf", "oneOf", "allOf", "not", "if", "then", "else":
		return `ask for one grant per alternative, or use "enum"`
	case "format", "contentEncoding", "contentMediaType":
		return `use "pattern"`
	case "patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired":
		return `list each member in "properties"`
	}
	return "leave it out"
}

func (c *compiler) object(s *schema, doc map[string]any, at string, depth int) error {
	if closed, ok := doc["additionalProperties"].(bool); !ok || closed {
		return placed(at, `an object's schema must say "additionalProperties": false`)
	}
	properties, ok := doc["properties"].(map[string]any)
	if _, has := doc["properties"]; has && !ok {
		return placed(at+"/properties", "write an object of schemas here")
	}
	required, ok := doc["required"].([]any)
	if _, has := doc["required"]; has && !ok {
		return placed(at+"/required", "write an array of names here")
	}
	seen := map[string]bool{}
	for i, r := range required {
		place := at + "/required/" + strconv.Itoa(i)
		name, ok := r.(string)
		switch _, listed := properties[name]; {
		case !ok:
			return placed(place, "write a name here")
		case seen[name]:
			return placed(place, "%q is there twice; leave one out", name)
		case !listed:
			return placed(place, `%q is not in "properties"; give it a schema there`, name)
		}
		seen[name] = true
	}
	for _, name := range sortedNames(properties) {
		if !seen[name] {
			return placed(at, `%q is in "properties" but not in "required"; add it, for an absent argument would pass`, name)
		}
		member, err := c.schema(properties[name], at+"/properties/"+pointerToken(name), depth+1)
		if err != nil {
			return err
		}
		s.names = append(s.names, name)
		s.members = append(s.members, member)
	}
	return nil
}

func (c *compiler) array(s *schema, doc map[string]any, at string, depth int) (err error) {
	items, ok := doc["items"]
	if !ok {
		return placed(at, `an array's schema must have "items"`)
	}
	if s.items, err = c.schema(items, at+"/items", depth+1); err != nil {
		return err
	}
	s.maxItems, err = count(doc, "maxItems", at, -1)
	return err
}

func (c *compiler) string(s *schema, doc map[string]any, at string) (err error) {
	if s.minLen, err = count(doc, "minLength", at, 0); err != nil {
		return err
	}
	if s.maxLen, err = count(doc, "maxLength", at, -1); err != nil {
		return err
	}
	if s.maxLen >= 0 && s.minLen > s.maxLen {
		return placed(at, `"minLength" is above "maxLength"; nothing could pass`)
	}
	if v, ok := doc["pattern"]; ok {
		return c.pattern(s, v, at+"/pattern")
	}
	return nil
}

// costly gives the first part of a pattern that costs out of all proportion to
// its length when it is parsed, before there is a result to measure: Unicode
// classes, and flags (folding a range of letters walks all of it: 250 bytes took
// 200 ms). \Q goes with them, so that what follows a backslash is one thing.
func costly(pattern string) string {
	for i := 0; i+1 < len(pattern); i++ {
		two := pattern[i : i+2]
		switch two {
		case `\p`, `\P`, `\Q`:
			return two
		case "(?":
			if !strings.HasPrefix(pattern[i:], "(?:") {
				return "(? with anything but a colon behind it"
			}
		}
		if two[0] == '\\' {
			i++
		}
	}
	return ""
}

func (c *compiler) pattern(s *schema, v any, at string) error {
	text, ok := v.(string)
	if !ok || len(text) > maxPattern {
		return placed(at, "write a string of at most %d bytes here", maxPattern)
	}
	inner, ok1 := strings.CutPrefix(text, "^(?:")
	inner, ok2 := strings.CutSuffix(inner, ")$")
	if !ok1 || !ok2 {
		return placed(at, "a pattern must be anchored: write ^(?:…)$ around it")
	}
	if part := costly(inner); part != "" {
		return placed(at, "%s is not in the profile: write out the characters, or a class such as [A-Za-z0-9]", part)
	}
	// The inside must stand alone: "^(?:a)|(?:b)$" looks anchored and is not.
	tree, err := syntax.Parse(inner, syntax.Perl)
	if err == nil {
		_, err = syntax.Parse(text, syntax.Perl)
	}
	if err != nil {
		return placed(at, "not a regular expression in the syntax of RE2: %v", err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return placed(at, "not a regular expression in the syntax of RE2")
	}
	s.insts = len(prog.Inst)
	if c.insts += s.insts; c.insts > maxInsts {
		return placed(at, "the patterns are too costly to match; use smaller repetitions")
	}
	if err := c.take(progState(prog), at); err != nil {
		return err
	}
	// The first assertion says nothing that the second does not. It keeps the
	// regexp package from what it does to a program that begins with \A: copying
	// classes from one instruction to those before it, until \pL{900} takes 7 MB.
	s.pattern, err = regexp.Compile(`(?m:^)\A(?:` + inner + `)\z`)
	if err != nil {
		return placed(at, "not a regular expression in the syntax of RE2")
	}
	return nil
}

// progState is the state of a pattern. Instructions that are repetitions of one
// share its class.
func progState(prog *syntax.Prog) int {
	n := patternState + instState*len(prog.Inst)
	seen := map[*rune]bool{}
	for _, inst := range prog.Inst {
		if inst.Op == syntax.InstCapture {
			n += captureState
		}
		if len(inst.Rune) > 0 && !seen[&inst.Rune[0]] {
			seen[&inst.Rune[0]] = true
			n += runeState * cap(inst.Rune)
		}
	}
	return n
}

func (c *compiler) bounds(s *schema, doc map[string]any, at string) error {
	for _, k := range []struct {
		name      string
		to        *[]limit
		exclusive bool
	}{
		{"minimum", &s.lower, false}, {"exclusiveMinimum", &s.lower, true},
		{"maximum", &s.upper, false}, {"exclusiveMaximum", &s.upper, true},
	} {
		v, has := doc[k.name]
		if !has {
			continue
		}
		n, ok := v.(strictjson.Number)
		if !ok {
			return placed(at+"/"+k.name, "write a number here")
		}
		if err := c.take(limitState, at); err != nil {
			return err
		}
		*k.to = append(*k.to, limit{n, k.exclusive})
	}
	for _, lo := range s.lower {
		for _, hi := range s.upper {
			if c := lo.bound.Compare(hi.bound); c > 0 || c == 0 && (lo.exclusive || hi.exclusive) {
				return placed(at, "the lower bound leaves nothing below the upper bound; nothing could pass")
			}
		}
	}
	return nil
}

// values reads const and enum. Values are kept as canonical texts: equal
// values have equal texts, at any depth, and a look-up costs the same for one
// value as for a thousand.
func (c *compiler) values(s *schema, doc map[string]any, at string) error {
	one, isConst := doc["const"]
	list, isEnum := doc["enum"]
	switch {
	case isConst && isEnum:
		return placed(at, `"const" and "enum" are both there; leave one out`)
	case isConst:
		list, at = []any{one}, at+"/const"
	case isEnum:
		at += "/enum"
	default:
		return nil
	}
	values, ok := list.([]any)
	if !ok || len(values) == 0 {
		return placed(at, "write an array of at least one value here")
	}
	if err := c.take(valuesState, at); err != nil {
		return err
	}
	texts := map[string]bool{}
	for i, v := range values {
		if bad := s.check(v, &matcher{steps: maxSteps}); bad != nil {
			return placed(at, "value number %d could never pass, for it %s", i, bad.what)
		}
		text, err := strictjson.Canonical(v)
		if err != nil {
			return placed(at, "value number %d: %v", i, err)
		}
		if err := c.take(valueState+len(text), at); err != nil {
			return err
		}
		texts[string(text)] = true
	}
	s.values = texts
	return nil
}

// count reads a keyword that is a whole number from 0 on.
func count(doc map[string]any, name, at string, absent int64) (int64, error) {
	v, has := doc[name]
	if !has {
		return absent, nil
	}
	n, _ := v.(strictjson.Number)
	i, ok := n.Int64()
	if !ok || i < 0 {
		return 0, placed(at+"/"+name, "write a whole number from 0 on here")
	}
	return i, nil
}
