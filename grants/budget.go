package grants

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/toolgrant/toolgrant/strictjson"
)

// purse is this node's share of a budget: drawn from the Store, spent here.
type purse struct {
	key  string
	left atomic.Int64
	refs int // records that spend from it; follower only
}

// take spends n, first drawing from the Store what the share lacks: None,
// BudgetSpent or, with an error, Undecided. Nothing is held while it draws, so
// that a call too dear for the budget keeps no other from its own.
func (p *purse) take(ctx context.Context, n int64, draw func(context.Context, string, int64) (int64, error)) (Reason, error) {
	for {
		left := p.left.Load()
		if left >= n {
			if p.left.CompareAndSwap(left, left-n) {
				return None, nil
			}
			continue
		}
		got, err := draw(ctx, p.key, n-left)
		if err != nil {
			return Undecided, err // what the draw left unknown counts as spent
		}
		if got <= 0 {
			return BudgetSpent, nil
		}
		p.left.Add(got)
	}
}

// Spent is what one call has taken; GiveBack returns it.
type Spent struct {
	// Refused is the budget for which a Spend was refused; nil after one that was
	// not. It is the grant's own: not to be changed.
	Refused *Budget

	purses [MaxBudgets]*purse
	amount [MaxBudgets]int64
	n      int
}

// MaxBudgets is how many budgets a grant may name.
const MaxBudgets = 8

// GiveBack returns all that was spent, for a call that does not run after all.
// A second call does nothing.
func (s *Spent) GiveBack() {
	for i := range s.n {
		s.purses[i].left.Add(s.amount[i])
	}
	s.n = 0
}

// Spend takes what the call costs from all of the grant's budgets, or from none
// of them; then Spent names the one that refused. Reasons: BudgetSpent;
// ConstraintBroken (a sum's argument is missing, negative, or no multiple of
// 10^-4); Undecided, with an error.
func (t *Table) Spend(ctx context.Context, l Live, input any) (Spent, Reason, error) {
	var s Spent
	for i := range l.r.grant.Budgets {
		b := &l.r.grant.Budgets[i]
		amount, ok := b.Amount(input)
		if !ok {
			s.GiveBack()
			return Spent{Refused: b}, ConstraintBroken, nil
		}
		p := l.r.limits.purses[i]
		if why, err := p.take(ctx, amount, t.cfg.Draw); why != None {
			s.GiveBack()
			return Spent{Refused: b}, why, err
		}
		s.purses[s.n], s.amount[s.n] = p, amount
		s.n++
	}
	return s, None, nil
}

// Amount is what a call with this input costs: 1 for a count of calls, else the
// argument in units of 10^-4; false if that is not there, negative (it would
// refill the budget) or not exact.
func (b Budget) Amount(input any) (int64, bool) {
	if b.Arg == "" {
		return 1, true
	}
	v, ok := pointer(input, b.Arg)
	if !ok {
		return 0, false
	}
	num, ok := v.(strictjson.Number)
	if !ok {
		return 0, false
	}
	units, ok := num.Units()
	return units, ok && units >= 0
}

// pointer resolves a JSON Pointer (RFC 6901, Section 4).
func pointer(v any, ptr string) (any, bool) {
	if ptr == "" {
		return v, true
	}
	if ptr[0] != '/' {
		return nil, false
	}
	for _, tok := range strings.Split(ptr[1:], "/") {
		tok = strings.ReplaceAll(strings.ReplaceAll(tok, "~1", "/"), "~0", "~")
		switch x := v.(type) {
		case map[string]any:
			child, ok := x[tok]
			if !ok {
				return nil, false
			}
			v = child
		case []any:
			i, err := strconv.Atoi(tok)
			if err != nil || i < 0 || i >= len(x) || strconv.Itoa(i) != tok {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}
