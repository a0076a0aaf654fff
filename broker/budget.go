package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// bound is a budget that is asked for.
type bound struct {
	arg   string // JSON Pointer (RFC 6901) of what is summed; "": calls are counted
	limit int64  // calls, or units of 10^-4
}

const (
	maxCalls = 1 << 31 // of one budget
	decimals = 4       // of a sum: it is counted in units of 10^-4
)

// readSums reads a "max_sum", sorted by argument. Each must lead to a number
// that the catalogue declares and policy sees: of any other it could not be
// said what is counted.
func readSums(tool *catalog.Tool, sums map[string]json.RawMessage) ([]bound, error) {
	if len(sums) > grants.MaxBudgets {
		return nil, fmt.Errorf("at most %d sums", grants.MaxBudgets)
	}
	var out []bound
	for _, arg := range slices.Sorted(maps.Keys(sums)) {
		if err := summable(tool, arg); err != nil {
			return nil, fmt.Errorf("%q: %w", cut(arg), err)
		}
		text, err := strictjson.Parse(sums[arg], strictjson.Limits{})
		quoted, isText := text.(string)
		limit, ok := units(quoted)
		if err != nil || !isText || !ok {
			return nil, fmt.Errorf("%q: write a decimal over 0 in quotes, with at most %d decimals, such as \"1000.50\"", cut(arg), decimals)
		}
		out = append(out, bound{arg, limit})
	}
	return out, nil
}

// units reads a decimal in units of 10^-4.
func units(text string) (int64, bool) {
	if _, frac, _ := strings.Cut(text, "."); len(frac) > decimals || strings.ContainsAny(text, "eE-") || !strictjson.Number(text).Valid() {
		return 0, false
	}
	n, ok := strictjson.Number(text).Units()
	return n, ok && n > 0
}

// decimal writes what units reads.
func decimal(units int64) string {
	whole, frac := units/10_000, units%10_000
	if frac == 0 {
		return strconv.FormatInt(whole, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%d.%04d", whole, frac), "0")
}

// summable says why an argument cannot be summed; nil if it can.
func summable(tool *catalog.Tool, arg string) error {
	if !strings.HasPrefix(arg, "/") {
		return errors.New("write a JSON Pointer into the call's input, such as /body/amount")
	}
	at := tool.Input()
	for escaped := range strings.SplitSeq(arg[1:], "/") {
		// RFC 6901, Section 4; one place has one pointer, or it would have
		// several budgets.
		name := strings.ReplaceAll(strings.ReplaceAll(escaped, "~1", "/"), "~0", "~")
		if strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1") != escaped {
			return errors.New(`"~" is followed by 0 or 1 (RFC 6901, Section 3)`)
		}
		if at = at.Properties[name]; at == nil {
			return errors.New("the catalogue declares no such argument; a pointer leads through objects alone")
		}
	}
	if at.Type != "integer" && at.Type != "number" {
		return errors.New("it is a " + at.Type + ", and numbers alone are summed")
	}
	for _, hidden := range tool.Opaque {
		if arg == hidden || strings.HasPrefix(arg, hidden+"/") {
			return errors.New("the catalogue lists it as opaque: policy does not see it")
		}
	}
	return nil
}

// budgets adds what is asked to those that a grant has to carry, which asking
// neither drops nor refills: the first bound of its kind becomes the task's, a
// narrower one later the grant's own, and a wider one is nothing.
func budgets(carried []grants.Budget, id grants.ID, task grants.ID, tool string, asked []bound) []grants.Budget {
	out := slices.Clone(carried)
	for _, ask := range asked {
		switch least, any := narrowest(carried, ask.arg); {
		case !any:
			out = append(out, grants.Budget{Key: grants.TaskBudget(task, tool, ask.arg), Arg: ask.arg, Limit: ask.limit})
		case ask.limit < least:
			out = append(out, grants.Budget{Key: grants.GrantBudget(id, ask.arg), Arg: ask.arg, Limit: ask.limit})
		}
	}
	return out
}

// narrowest is the least limit over an argument, or over calls.
func narrowest(bs []grants.Budget, arg string) (least int64, any bool) {
	for _, b := range bs {
		if b.Arg == arg && (!any || b.Limit < least) {
			least, any = b.Limit, true
		}
	}
	return least, any
}

// calls is what a grant's narrowest count of calls allows; 0: not counted.
func calls(g *grants.Grant) int64 {
	least, _ := narrowest(g.Budgets, "")
	return least
}

// sums are a grant's narrowest limits by argument, as decimals; nil for none.
func sums(g *grants.Grant) map[string]string {
	var out map[string]string
	for _, b := range g.Budgets {
		if b.Arg == "" {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		least, _ := narrowest(g.Budgets, b.Arg)
		out[b.Arg] = decimal(least)
	}
	return out
}
