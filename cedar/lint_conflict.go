package cedar

import (
	"math"
	"strconv"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// conflict finds two conjuncts of a policy of which one is false where the other
// is true, whatever is asked: an expression and its negation, one place with two
// texts, or with a number over one bound and under the other. It does not find
// every contradiction.
func conflict(p *ast.Policy) (a, b conjunct, found bool) {
	all := conjuncts(p)
	all = all[:min(maxConflict, len(all))]
	places := map[string]*place{}
	for i, c := range all {
		c = c.plain()
		all[i] = c
		for _, before := range all[:i] {
			if c.negated != before.negated && ast.Equal(ast.NewNode(c.node), ast.NewNode(before.node)) {
				return before, c, true
			}
		}
		path, says, ok := c.reads()
		if !ok {
			continue
		}
		at := places[path]
		if at == nil {
			at = &place{low: math.MinInt64, high: math.MaxInt64}
			places[path] = at
		}
		if before, empty := at.narrow(c, says); empty {
			return before, c, true
		}
	}
	return a, b, false
}

// maxConflict bounds the conjuncts of which each is compared with each.
const maxConflict = 64

// place is what is left of the values that a place in the context can have, and
// which conjunct left it.
type place struct {
	texts           []string // nil: any
	low, high       int64
	byTexts         conjunct
	byLow, byHigh   conjunct
	hasLow, hasHigh bool
}

// reading is what one conjunct says of a place: that its text is one of some, or
// a number within bounds.
type reading struct {
	texts     []string
	low, high int64
}

func (at *place) narrow(c conjunct, r reading) (before conjunct, empty bool) {
	if r.texts != nil {
		if at.texts == nil {
			at.texts, at.byTexts = r.texts, c
			return before, false
		}
		var both []string
		for _, t := range at.texts {
			for _, o := range r.texts {
				if t == o {
					both = append(both, t)
				}
			}
		}
		if len(both) == 0 {
			return at.byTexts, true
		}
		at.texts, at.byTexts = both, c
		return before, false
	}
	if at.hasHigh && r.low > at.high {
		return at.byHigh, true
	}
	if at.hasLow && r.high < at.low {
		return at.byLow, true
	}
	if r.low > at.low {
		at.low, at.byLow, at.hasLow = r.low, c, true
	}
	if r.high < at.high {
		at.high, at.byHigh, at.hasHigh = r.high, c, true
	}
	return before, false
}

// reads gives the place that a conjunct compares with what is written out.
func (c conjunct) reads() (path string, says reading, ok bool) {
	none := func() (string, reading, bool) { return "", reading{}, false }
	if n, is := c.node.(ast.NodeTypeContains); is {
		set, written := literals(n.Left)
		path, place := placeOf(n.Right)
		if !written || !place || c.negated || len(set) == 0 {
			return none()
		}
		return path, reading{texts: set}, true
	}
	op, left, right := comparison(c.node)
	if op == "" {
		return none()
	}
	path, place := placeOf(left)
	if !place { // LITERAL op PLACE
		left, right = right, left
		op = map[string]string{"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}[op]
		if path, place = placeOf(left); !place {
			return none()
		}
	}
	if c.negated {
		op = map[string]string{"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[op]
	}
	value, is := valueOf(right)
	if !is {
		return none()
	}
	says = reading{low: math.MinInt64, high: math.MaxInt64}
	switch v := value.(type) {
	case cedargo.String:
		return path, reading{texts: []string{string(v)}}, op == "=="
	case cedargo.Long, cedargo.Decimal:
		n, ok := steps(v)
		if !ok {
			return none()
		}
		switch {
		case op == "==":
			says.low, says.high = n, n
		case op == "<" && n > math.MinInt64:
			says.high = n - 1
		case op == "<=":
			says.high = n
		case op == ">" && n < math.MaxInt64:
			says.low = n + 1
		case op == ">=":
			says.low = n
		default:
			return none()
		}
		return path, says, true
	}
	return none()
}

func comparison(n ast.IsNode) (op string, left, right ast.IsNode) {
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		return "==", n.Left, n.Right
	case ast.NodeTypeLessThan:
		return "<", n.Left, n.Right
	case ast.NodeTypeLessThanOrEqual:
		return "<=", n.Left, n.Right
	case ast.NodeTypeGreaterThan:
		return ">", n.Left, n.Right
	case ast.NodeTypeGreaterThanOrEqual:
		return ">=", n.Left, n.Right
	case ast.NodeTypeExtensionCall: // of decimals
		op = map[types.Path]string{"lessThan": "<", "lessThanOrEqual": "<=", "greaterThan": ">", "greaterThanOrEqual": ">="}[n.Name]
		if op != "" && len(n.Args) == 2 {
			return op, n.Args[0], n.Args[1]
		}
	}
	return "", nil, nil
}

// valueOf gives what is written out: a literal, or decimal("…").
func valueOf(n ast.IsNode) (cedargo.Value, bool) {
	switch n := n.(type) {
	case ast.NodeValue:
		return n.Value, true
	case ast.NodeTypeExtensionCall:
		if n.Name != "decimal" || len(n.Args) != 1 {
			return nil, false
		}
		text, ok := literal(n.Args[0])
		if !ok {
			return nil, false
		}
		d, err := types.ParseDecimal(text)
		return d, err == nil
	}
	return nil, false
}

// steps counts a number in the smallest steps of its type: a Long in ones, a
// decimal, which has four digits after the point, in ten-thousandths.
func steps(v cedargo.Value) (int64, bool) {
	switch v := v.(type) {
	case cedargo.Long:
		return int64(v), true
	case cedargo.Decimal:
		whole, fraction, _ := strings.Cut(v.String(), ".")
		n, err := strconv.ParseInt(whole+(fraction + "0000")[:4], 10, 64)
		return n, err == nil
	}
	return 0, false
}

// placeOf gives a path of members, such as context.task.kind, as a text that no
// other path has.
func placeOf(n ast.IsNode) (string, bool) {
	of, ok := n.(ast.NodeTypeAccess)
	if !ok {
		v, variable := n.(ast.NodeTypeVariable)
		return string(v.Name), variable
	}
	path, ok := placeOf(of.Arg)
	return path + "." + string(of.Value.MarshalCedar()), ok
}
