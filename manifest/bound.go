package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

const (
	maxCalls  = 1 << 31 // of one budget; as at the issue door
	maxLength = 1<<53 - 1
)

// bound is how much may be spent over all calls of a task: a number of the file,
// or the value of a parameter.
type bound struct {
	fixed int64
	param string // "": fixed
	read  func(v any) (int64, error)
}

func (b *bound) of(values map[string]any) (int64, error) {
	if b.param == "" {
		return b.fixed, nil
	}
	return b.read(values[b.param])
}

// sum bounds the sum of an argument.
type sum struct {
	arg string // JSON Pointer (RFC 6901) into the input
	max *bound
}

// callsOf reads a count of calls.
func callsOf(v any) (int64, error) { return wholeOf(v, 1, maxCalls) }

func wholeOf(v any, least, most int64) (int64, error) {
	n, _ := v.(strictjson.Number)
	i, ok := n.Int64()
	if !ok || i < least || i > most {
		return 0, fmt.Errorf("a whole number from %d to %d", least, most)
	}
	return i, nil
}

// unitsOf reads a sum in units of 10^-4, as grants.Budget counts them.
func unitsOf(v any) (int64, error) {
	n, _ := v.(strictjson.Number)
	units, ok := n.Units()
	if !ok || units <= 0 {
		return 0, errors.New("a number over 0 with at most 4 decimals, up to some 922 trillion")
	}
	return units, nil
}

// budgets reads "max_calls" and "sum" of a tool.
func (r *reader) budgets(n *strictyaml.Node) {
	t := r.tool
	if v, ok := n.Get("max_calls"); ok {
		t.calls = r.bound(v, "\"max_calls\" of "+t.Tool.ID, []string{"integer"}, callsOf)
	}
	if v, ok := n.Get("sum"); ok {
		items := []*strictyaml.Node{v}
		if v.Kind == strictyaml.Sequence {
			if items = v.Items; len(items) == 0 {
				r.fault(v, "\"sum\" bounds nothing; leave it out")
			}
		}
		for _, item := range items {
			r.sum(item)
		}
	}
	// A grant may have one budget more of its own, and a one-time grant has.
	budgets := len(t.sums) + 1
	if t.calls != nil {
		budgets++
	}
	if budgets > grants.MaxBudgets {
		r.fault(n, "%s has %d budgets, and a grant %d with one of its own: sum fewer arguments", t.Tool.ID, budgets-1, grants.MaxBudgets)
	}
}

func (r *reader) sum(n *strictyaml.Node) {
	t := r.tool
	if !r.mapping(n, "a sum", "argument", "max") {
		return
	}
	at, arg := r.text(n, "argument", true)
	if at != nil {
		if err := r.summable(arg); err != nil {
			r.fault(at, "argument %q: %v", cut(arg), err)
		}
		if slices.ContainsFunc(t.sums, func(s sum) bool { return s.arg == arg }) {
			r.fault(at, "argument %q is summed twice", cut(arg))
		}
	}
	limit, ok := n.Get("max")
	if !ok {
		r.fault(n, "\"max\" is missing")
		return
	}
	what := fmt.Sprintf("\"max\" of the sum of %s of %s", cut(arg), t.Tool.ID)
	t.sums = append(t.sums, sum{arg, r.bound(limit, what, []string{"number", "integer"}, unitsOf)})
}

// bound reads a number or a place.
func (r *reader) bound(n *strictyaml.Node, what string, types []string, read func(any) (int64, error)) *bound {
	b := &bound{read: read}
	if _, ok := n.Get(placeKey); ok {
		if p := r.place(n, what, types); p != nil {
			b.param = p.name
			r.use(n, p, what, func(v any) error { _, err := read(v); return err })
		}
		return b
	}
	if n.Kind != strictyaml.Number {
		r.fault(n, "%s must be %s, not %s", what, strictyaml.Number, n.Kind)
		return b
	}
	var err error
	if b.fixed, err = read(r.value(n)); err != nil {
		r.fault(n, "%s must be %v", what, err)
	}
	return b
}

// summable says why an argument cannot be summed; nil if it can. It is the issue
// door's rule: a number that the catalogue declares and policy sees. A template
// lists it, too, for else no call has it.
func (r *reader) summable(arg string) error {
	tool := r.tool.Tool
	if !strings.HasPrefix(arg, "/") {
		example := "/amount"
		if tool.Arguments == nil {
			example = "/body/amount"
		}
		return errors.New("write a JSON Pointer into the call's input, such as " + example)
	}
	at, template := tool.Input(), r.tool.input
	for escaped := range strings.SplitSeq(arg[1:], "/") {
		// RFC 6901, Section 4; one place has one pointer, or it would have several
		// budgets.
		name := strings.ReplaceAll(strings.ReplaceAll(escaped, "~1", "/"), "~0", "~")
		if token(name) != escaped {
			return errors.New(`"~" is followed by 0 or 1 (RFC 6901, Section 3)`)
		}
		next := at.Properties[name]
		if next == nil {
			return fmt.Errorf("the catalogue declares no such argument; a pointer leads through objects alone%s", suggest(name, sortedKeys(at.Properties)))
		}
		at = next
		if template != nil {
			properties, _ := template["properties"].(map[string]any)
			if template, _ = properties[name].(map[string]any); template == nil {
				return errors.New(`"input" does not list it, so that every call with it is refused`)
			}
		}
	}
	if at.Type != "integer" && at.Type != "number" {
		return errors.New("it is of type " + at.Type + ", and numbers alone are summed")
	}
	for _, hidden := range tool.Opaque {
		if arg == hidden || strings.HasPrefix(arg, hidden+"/") {
			return errors.New("the catalogue lists it as opaque: policy does not see it")
		}
	}
	return nil
}

// use notes what a parameter must be at one of its places. That none of its
// values could ever be is a fault.
func (r *reader) use(n *strictyaml.Node, p *parameter, where string, fit func(v any) error) {
	r.tool.uses = append(r.tool.uses, use{p.name, where, fit})
	values, finite := p.doc["enum"].([]any)
	if v, ok := p.doc["const"]; ok {
		values, finite = []any{v}, true
	}
	if finite {
		if slices.ContainsFunc(values, func(v any) bool { return fit(v) == nil }) {
			return
		}
		r.fault(n, "parameter %q can be none that fits %s: that must be %v", p.name, where, fit(values[0]))
		return
	}
	// Every number that fits a bound of this kind is 0 or more.
	for _, word := range []string{"maximum", "exclusiveMaximum"} {
		if most, ok := p.doc[word].(strictjson.Number); ok && most.Compare("0") <= 0 {
			if err := fit(most); err != nil {
				r.fault(n, "parameter %q can be none that fits %s: that must be %v", p.name, where, err)
				return
			}
		}
	}
}
