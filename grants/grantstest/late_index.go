package grantstest

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// grant is what all issues of one id say together. Where they differ by the
// rounding of a clock, each rule takes the side on which it cannot be wrong.
type grant struct {
	start time.Duration // of the first issue, lost replies included
	first Op            // that issue
	known bool          // an issue was acknowledged; what follows is of those
	issue Op            // the first that was acknowledged (by End)

	minNotBefore, maxNotBefore time.Duration
	minExpires, maxExpires     time.Duration

	mayDraw []string // keys of budgets that lost issues named
}

// scope is what a revoke without a grant matches; "" is anything.
type scope struct{ task, agent, tool string }

// scopesOf are all scopes that match the grant.
func scopesOf(g Op) []scope {
	var all []scope
	for mask := 1; mask < 8; mask++ {
		var s scope
		if mask&1 != 0 {
			s.task = g.Task
		}
		if mask&2 != 0 {
			s.agent = g.Agent
		}
		if mask&4 != 0 {
			s.tool = g.Tool
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b scope) int {
		return cmp.Or(cmp.Compare(a.task, b.task), cmp.Compare(a.agent, b.agent), cmp.Compare(a.tool, b.tool))
	})
	all = slices.Compact(all) // a grant that lacks an id
	return slices.DeleteFunc(all, func(s scope) bool { return s == scope{} })
}

// fences are the revokes of one scope.
type fences struct {
	done []Op            // acknowledged; by Start
	soon []Op            // soon[i]: the one of done[i:] that was acknowledged first
	may  []Op            // acknowledged or unknown; by Start
	last []time.Duration // last[i]: until when one of may[:i+1] may have been written
}

func (f *fences) index() {
	byStart := func(a, b Op) int { return cmp.Compare(a.Start, b.Start) }
	slices.SortStableFunc(f.done, byStart)
	slices.SortStableFunc(f.may, byStart)
	f.soon = slices.Clone(f.done)
	for i := len(f.soon) - 2; i >= 0; i-- {
		if f.soon[i+1].End < f.soon[i].End {
			f.soon[i] = f.soon[i+1]
		}
	}
	var last time.Duration = math.MinInt64
	for _, op := range f.may {
		if op.Unknown { // its write may still be under way
			last = math.MaxInt64
		}
		last = max(last, op.End)
		f.last = append(f.last, last)
	}
}

// after is, of the revokes that started after t, the one that was acknowledged first.
func (f *fences) after(t time.Duration) (Op, bool) {
	i := sort.Search(len(f.done), func(i int) bool { return f.done[i].Start > t })
	if i == len(f.done) {
		return Op{}, false
	}
	return f.soon[i], true
}

// mayTouch says whether a revoke may have been written between from and to.
func (f *fences) mayTouch(from, to time.Duration) bool {
	i := sort.Search(len(f.may), func(i int) bool { return f.may[i].Start > to })
	return i > 0 && f.last[i-1] >= from
}

// budget is what was drawn under one key.
type budget struct {
	issue   Op    // the first acknowledged one that named it
	limit   int64 // the highest that an issue named; math.MaxInt64: no bound
	allowed []Op  // of grants that are known to draw on it; by Start

	starts       []time.Duration // of checks that were allowed or may have been
	deniedStarts []time.Duration // of the others: a draw that was given back
	deniedEnds   []time.Duration
}

type index struct {
	ops       []Op // those that are well formed, by Start
	malformed []Violation
	grants    map[string]*grant  // grant id -> its issues, acknowledged or unknown
	ended     map[string]Op      // task id -> the end that was acknowledged first
	revoked   map[string]Op      // grant id -> the revoke that was acknowledged first
	scopes    map[scope]*fences  // revokes without a grant
	budgets   map[string]*budget // key -> draws

	// When the first call that may have ended it started.
	mayEnd, mayRevoke map[string]time.Duration // task id, grant id
}

func newIndex(history []Op) *index {
	x := &index{
		grants: map[string]*grant{}, ended: map[string]Op{}, revoked: map[string]Op{},
		scopes: map[scope]*fences{}, budgets: map[string]*budget{},
		mayEnd: map[string]time.Duration{}, mayRevoke: map[string]time.Duration{},
	}
	for _, op := range history {
		if why := op.malformed(); why != "" {
			x.malformed = append(x.malformed, Violation{Rule: RuleMalformed, Check: op, Text: RuleMalformed + ": " + op.String() + ": " + why})
			continue
		}
		x.ops = append(x.ops, op)
	}
	slices.SortStableFunc(x.ops, func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	for _, op := range x.ops {
		if !op.OK && !op.Unknown {
			continue // refused: nothing changed
		}
		switch op.Kind {
		case "issue":
			x.addIssue(op)
		case "end":
			addEnd(x.ended, x.mayEnd, op.Task, op)
		case "revoke":
			switch {
			case op.Grant != "":
				addEnd(x.revoked, x.mayRevoke, op.Grant, op)
			case op.Agent == "" && op.Tool == "": // a task, and that is its end
				addEnd(x.ended, x.mayEnd, op.Task, op)
			default:
				x.addRevoke(op)
			}
		}
	}
	for _, f := range x.scopes {
		f.index()
	}
	for _, op := range x.ops {
		if op.Kind == "check" {
			x.addDraw(op)
		}
	}
	for _, b := range x.budgets {
		slices.Sort(b.deniedEnds) // the others are in order of Start
	}
	return x
}

func (x *index) addIssue(op Op) {
	if op.Grant == "" {
		return // a lost reply: nobody learnt the id
	}
	g := x.grants[op.Grant]
	if g == nil {
		g = &grant{start: op.Start, first: op}
		x.grants[op.Grant] = g
	}
	if !op.OK {
		g.mayDraw = append(g.mayDraw, op.Budget)
		return
	}
	if !g.known {
		g.known, g.issue = true, op
		g.minNotBefore, g.maxNotBefore = op.NotBefore, op.NotBefore
		g.minExpires, g.maxExpires = op.Expires, op.Expires
	}
	if op.End < g.issue.End {
		g.issue = op
	}
	g.minNotBefore, g.maxNotBefore = min(g.minNotBefore, op.NotBefore), max(g.maxNotBefore, op.NotBefore)
	g.minExpires, g.maxExpires = min(g.minExpires, op.Expires), max(g.maxExpires, op.Expires)
	if op.Budget != "" {
		b := x.budget(op.Budget)
		if b.limit == 0 {
			b.issue = op
		}
		if b.limit = max(b.limit, op.Limit); op.Limit == 0 {
			b.limit = math.MaxInt64
		}
	}
}

func (x *index) budget(key string) *budget {
	b := x.budgets[key]
	if b == nil {
		b = &budget{}
		x.budgets[key] = b
	}
	return b
}

// addEnd keeps, for a task or a grant, the first that surely ended it and when
// it may first have ended.
func addEnd(done map[string]Op, may map[string]time.Duration, id string, op Op) {
	if _, ok := may[id]; !ok {
		may[id] = op.Start // ops come by Start
	}
	if old, ok := done[id]; op.OK && (!ok || op.End < old.End) {
		done[id] = op
	}
}

func (x *index) addRevoke(op Op) {
	s := scope{op.Task, op.Agent, op.Tool}
	f := x.scopes[s]
	if f == nil {
		f = &fences{}
		x.scopes[s] = f
	}
	if f.may = append(f.may, op); op.OK {
		f.done = append(f.done, op)
	}
}

func (x *index) addDraw(op Op) {
	g := x.grants[op.Grant]
	if g == nil {
		return
	}
	keys := g.mayDraw
	if g.known {
		keys = []string{g.issue.Budget}
	}
	for _, key := range keys {
		if key == "" {
			continue
		}
		b := x.budget(key)
		if op.OK && g.known {
			b.allowed = append(b.allowed, op)
		}
		if op.OK || op.Unknown {
			b.starts = append(b.starts, op.Start)
		} else {
			b.deniedStarts = append(b.deniedStarts, op.Start)
			b.deniedEnds = append(b.deniedEnds, op.End)
		}
	}
}

// revokedBy is the revoke that was acknowledged first of those that surely
// ended the grant: of itself, or of what it matches if its issue had been
// acknowledged before the revoke started.
func (x *index) revokedBy(id string, g *grant) (first Op, found bool) {
	first, found = x.revoked[id]
	if !g.known {
		return first, found
	}
	for _, s := range scopesOf(g.issue) {
		if f := x.scopes[s]; f != nil {
			if r, ok := f.after(g.issue.End); ok && (!found || r.End < first.End) {
				first, found = r, true
			}
		}
	}
	return first, found
}

// surelyOver says that the grant had ended before the check started.
func (x *index) surelyOver(op Op, g *grant) bool {
	if r, ok := x.revokedBy(op.Grant, g); ok && op.Start > r.End {
		return true
	}
	if !g.known {
		return false
	}
	end, ok := x.ended[g.issue.Task]
	return ok && op.Start > end.End || op.Start >= g.maxExpires
}

// surelyLive says that in every legal execution the grant holds for the whole
// length of the check, and for what the check asks.
func (x *index) surelyLive(op Op, g *grant) bool {
	if !g.known || g.issue.End >= op.Start || !op.within(g.issue) ||
		op.Start < g.maxNotBefore || op.End >= g.minExpires {
		return false
	}
	if at, ok := x.mayRevoke[op.Grant]; ok && at <= op.End {
		return false
	}
	if at, ok := x.mayEnd[g.issue.Task]; ok && at <= op.End {
		return false
	}
	for _, s := range scopesOf(g.issue) {
		if f := x.scopes[s]; f != nil && f.mayTouch(g.start, op.End) {
			return false
		}
	}
	return g.issue.Budget == "" || x.budgets[g.issue.Budget].surelyLeft(op)
}

// surelyLeft says that there was something left for the check, which is one of
// the budget's own.
func (b *budget) surelyLeft(op Op) bool {
	upTo := func(in []time.Duration, t time.Duration) int {
		return sort.Search(len(in), func(i int) bool { return in[i] > t })
	}
	before := func(in []time.Duration, t time.Duration) int {
		return sort.Search(len(in), func(i int) bool { return in[i] >= t })
	}
	drawn := upTo(b.starts, op.End)
	// A denied check may have drawn and given back while this one looked.
	drawn += upTo(b.deniedStarts, op.End) - before(b.deniedEnds, op.Start)
	return int64(drawn-1) < b.limit // less this check itself
}
