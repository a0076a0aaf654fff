package grants

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/strictjson"
)

// Bounds on constraints.
const (
	MaxConstraint       = 8 << 10  // bytes of one
	MaxConstraints      = 16       // of one grant
	MaxConstraintsBytes = 16 << 10 // of all that one grant has

	maxSchemas     = 256 // in one constraint
	maxSchemaDepth = 16  // schemas inside each other, the root included
	maxPattern     = 256 // bytes
	// A pattern of 8 bytes can compile to 1,000 instructions, and each byte of
	// the input can cost a step through all of them. So both are bounded:
	maxInsts = 2_000   // of all patterns in one constraint
	maxSteps = 1 << 20 // instructions × bytes in one Check

	// A pattern of 6 bytes can take 40 KB when compiled, so that the text's length
	// bounds nothing by itself.
	maxState = 256 << 10 // bytes of all that one grant has, by the estimate below
)

// Bytes of compiled state, from above: measured (TestConstraintState), it is a
// half to nine tenths of this, so that no grant's constraints take more than
// some 230 KiB. The costly ones are classes such as \PL, 5.5 KB each (of a
// repetition, once), and after them values, 250 bytes each when alone. Names and
// numbers of the text are not counted.
const (
	schemaState  = 256
	limitState   = 48
	valuesState  = 400 // one const or enum
	valueState   = 64  // each value, and its text
	patternState = 800
	instState    = 64 // each instruction
	runeState    = 5  // each end of a range in a class
	captureState = 16 // each end of a group
)

var constraintLimits = strictjson.Limits{Bytes: MaxConstraint, Depth: 4 * maxSchemaDepth}

// Constraint is a compiled argument constraint: a closed profile of JSON Schema
// 2020-12 in which nothing passes by being absent, misspelt or of another type.
// Every schema has one type; objects list all their members, each required, and
// allow no other; patterns match the whole string; what the profile does not
// know is refused when compiled. It is stricter than JSON Schema in two places:
// an "integer" is within int64, and a string too long for its pattern's cost
// (instructions × bytes in one Check over 2^20) is refused.
//
// It is immutable and safe for concurrent use.
type Constraint struct {
	root  *schema
	state int // bytes that it takes, but for names and numbers of its text
}

// schema is one level of a Constraint. Which fields count depends on kind.
type schema struct {
	kind     string
	values   map[string]bool // canonical texts of const or enum; nil: any value
	lower    []limit
	upper    []limit
	minLen   int64 // code points
	maxLen   int64 // code points; -1: no bound
	pattern  *regexp.Regexp
	insts    int       // of pattern
	names    []string  // of members; sorted, so that errors are the same each time
	members  []*schema // by the place in names
	items    *schema
	maxItems int64 // -1: no bound
}

type limit struct {
	bound     strictjson.Number
	exclusive bool
}

// CompileConstraint reads one constraint: at most MaxConstraint bytes, and of
// type object at its root. The error names the place by its JSON Pointer (RFC
// 6901, "" is the root) and says what to write instead.
func CompileConstraint(raw []byte) (*Constraint, error) {
	return compileConstraint(raw, maxState)
}

// compileConstraint is CompileConstraint, with room bytes for the state.
func compileConstraint(raw []byte, room int) (*Constraint, error) {
	doc, err := strictjson.Parse(raw, constraintLimits)
	if err != nil {
		return nil, fmt.Errorf("constraint: %w", err)
	}
	// What has no canonical text could not be in ConstraintsDigest.
	if _, err := strictjson.Canonical(doc); err != nil {
		return nil, fmt.Errorf("constraint: %w", err)
	}
	c := compiler{room: room}
	root, err := c.schema(doc, "", 1)
	if err != nil {
		return nil, err
	}
	if root.kind != "object" {
		return nil, placed("", `"type" at the root must be "object", for a call's input is one`)
	}
	return &Constraint{root: root, state: room - c.room}, nil
}

// CompileConstraints compiles the constraints of one grant: at most
// MaxConstraints, of at most MaxConstraintsBytes together. All of them must
// pass.
func CompileConstraints(raw []json.RawMessage) ([]*Constraint, error) {
	if err := boundConstraints(raw); err != nil {
		return nil, err
	}
	list := make([]*Constraint, len(raw))
	room := maxState
	for i, r := range raw {
		c, err := compileConstraint(r, room)
		if err != nil {
			return nil, fmt.Errorf("number %d: %w", i, err)
		}
		list[i] = c
		room -= c.state
	}
	return list, nil
}

func boundConstraints(raw []json.RawMessage) error {
	if len(raw) > MaxConstraints {
		return fmt.Errorf("%d constraints, at most %d are allowed", len(raw), MaxConstraints)
	}
	if n := constraintsBytes(raw); n > MaxConstraintsBytes {
		return fmt.Errorf("the constraints are %d bytes together, at most %d are allowed; ask for one grant per alternative, with shorter ones", n, MaxConstraintsBytes)
	}
	return nil
}

func constraintsBytes(raw []json.RawMessage) (n int) {
	for _, r := range raw {
		n += len(r)
	}
	return n
}

// ConstraintsDigest is the SHA-256 over the RFC 8785 text of the array of the
// constraints, in their order; none for no constraints. It does not compile them.
func ConstraintsDigest(raw []json.RawMessage) (Digest, error) {
	if len(raw) == 0 {
		return Digest{}, nil
	}
	if err := boundConstraints(raw); err != nil {
		return Digest{}, err
	}
	list := make([]any, len(raw))
	for i, r := range raw {
		doc, err := strictjson.Parse(r, constraintLimits)
		if err != nil {
			return Digest{}, fmt.Errorf("constraint number %d: %w", i, err)
		}
		list[i] = doc
	}
	text, err := strictjson.Canonical(list)
	if err != nil {
		return Digest{}, fmt.Errorf("constraints: %w", err)
	}
	return sha256.Sum256(text), nil
}

// Check holds a call's input, as strictjson.Parse gives it, against the
// constraint. The error says what broke and where, by its JSON Pointer; nothing
// of the input is in its text, for it goes into answers and records.
func (c *Constraint) Check(input any) error {
	if bad := c.root.check(input, &matcher{steps: maxSteps}); bad != nil {
		return fmt.Errorf("input at %q %s", bad.at, bad.what)
	}
	return nil
}

// matcher bounds the patterns' work in one Check.
type matcher struct{ steps int }

// violation is what Check found. at grows from the inside out, so that a check
// that passes builds no pointers.
type violation struct{ at, what string }

func broken(format string, args ...any) *violation {
	return &violation{what: fmt.Sprintf(format, args...)}
}

// under places a violation one token further down.
func (bad *violation) under(token string) *violation {
	bad.at = "/" + pointerToken(token) + bad.at
	return bad
}

func (s *schema) check(v any, m *matcher) *violation {
	var bad *violation
	ok := false
	switch s.kind {
	case "object":
		var o map[string]any
		if o, ok = v.(map[string]any); ok {
			bad = s.checkObject(o, m)
		}
	case "array":
		var a []any
		if a, ok = v.([]any); ok {
			bad = s.checkArray(a, m)
		}
	case "string":
		var text string
		if text, ok = v.(string); ok {
			bad = s.checkString(text, m)
		}
	case "number":
		var n strictjson.Number
		if n, ok = v.(strictjson.Number); ok {
			bad = s.checkNumber(n)
		}
	case "integer":
		var n strictjson.Number
		if n, ok = v.(strictjson.Number); ok {
			if _, ok = n.Int64(); ok {
				bad = s.checkNumber(n)
			}
		}
	case "boolean":
		_, ok = v.(bool)
	case "null":
		ok = v == nil
	}
	if !ok {
		return broken("must be of type %s", s.kind)
	}
	if bad == nil && s.values != nil {
		// A number without a canonical text is none of the values: they have one.
		if text, err := strictjson.Canonical(v); err != nil || !s.values[string(text)] {
			return broken("is not one of the permitted values")
		}
	}
	return bad
}

func (s *schema) checkObject(o map[string]any, m *matcher) *violation {
	for i, name := range s.names {
		v, ok := o[name]
		if !ok {
			return broken("is missing").under(name)
		}
		if bad := s.members[i].check(v, m); bad != nil {
			return bad.under(name)
		}
	}
	if n := len(o) - len(s.names); n > 0 { // all of s.names are there
		return broken("has members that the constraint does not list (%d)", n)
	}
	return nil
}

func (s *schema) checkArray(a []any, m *matcher) *violation {
	if s.maxItems >= 0 && int64(len(a)) > s.maxItems {
		return broken("has more than %d items", s.maxItems)
	}
	for i, v := range a {
		if bad := s.items.check(v, m); bad != nil {
			return bad.under(strconv.Itoa(i))
		}
	}
	return nil
}

func (s *schema) checkString(text string, m *matcher) *violation {
	n := int64(utf8.RuneCountInString(text))
	switch {
	case n < s.minLen:
		return broken("is shorter than %d characters", s.minLen)
	case s.maxLen >= 0 && n > s.maxLen:
		return broken("is longer than %d characters", s.maxLen)
	case s.pattern == nil:
		return nil
	}
	// One byte more, so that empty strings are not free.
	if m.steps -= s.insts * (len(text) + 1); m.steps < 0 {
		return broken("is too long to be matched against its pattern")
	}
	if !s.pattern.MatchString(text) {
		return broken("does not match its pattern")
	}
	return nil
}

func (s *schema) checkNumber(n strictjson.Number) *violation {
	if !n.Valid() { // not from Parse: comparing it would say nothing
		return broken("must be of type %s", s.kind)
	}
	if !n.IsDouble() { // a tool that reads doubles would see another one, beyond a bound perhaps
		return broken("has more digits than a double keeps")
	}
	for _, l := range s.lower {
		if c := n.Compare(l.bound); c < 0 || c == 0 && l.exclusive {
			return broken("is below its bound")
		}
	}
	for _, l := range s.upper {
		if c := n.Compare(l.bound); c > 0 || c == 0 && l.exclusive {
			return broken("is above its bound")
		}
	}
	return nil
}

func placed(at, format string, args ...any) error {
	return fmt.Errorf("constraint at %q: "+format, append([]any{at}, args...)...)
}

// pointerToken escapes a name for a JSON Pointer (RFC 6901, Section 3).
func pointerToken(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
