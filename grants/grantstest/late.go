package grantstest

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"
)

// Op is one call at one of the two doors, as the client that made it saw it.
// All times are of one monotonic clock. An issue that returns several grants
// is one Op for each; a renewal is an issue of the new grant and a revoke of
// the old one, with the same Start and End; what ends a grant with its parent
// is recorded as a revoke of it.
//
// A revoke is of the grant that it names. One that names no grant is of all
// that match each of the Task, Agent and Tool that it has; of a Task alone, it
// is the task's end.
type Op struct {
	Kind                     string        // "start", "issue", "check", "revoke", "end"
	Task, Grant, Agent, Tool string        // ids as far as the op concerns them; a check with no Grant is a baseline call
	Start, End               time.Duration // of the call; End: its reply was in hand
	OK                       bool          // start, issue, revoke, end: acknowledged as done; check: allowed
	Unknown                  bool          // the reply was an error that says neither

	// Of an issue.
	Expires   time.Duration // when the grant ends: the first instant at which it no longer holds
	NotBefore time.Duration // when it begins; 0: at once
	Budget    string        // key of the budget of calls that it draws on; "" for none
	Limit     int64         // of that budget; 0: no bound
}

// The rules of a Violation.
const (
	RuleMalformed     = "malformed"       // no history of a client: nothing follows from it
	RuleIdentity      = "identity"        // two issues gave one grant id two contents
	RuleUnissued      = "unissued"        // allowed for a grant that no issue returned
	RuleBeforeIssue   = "before_issue"    // allowed before its issue started
	RuleEarly         = "early"           // allowed more than Leeway before its window
	RuleExpired       = "expired"         // allowed at or after its end
	RuleRevoked       = "revoked"         // allowed after an acknowledged revoke
	RuleTaskEnded     = "task_ended"      // allowed after the acknowledged end of its task
	RuleBinding       = "binding"         // allowed for another task, agent or tool
	RuleBudget        = "budget"          // allowed once more than the budget's limit
	RuleIssueAfterEnd = "issue_after_end" // issued after the acknowledged end of the task
)

// Leeway is how far ahead of its window a grant may be accepted.
const Leeway = 5 * time.Second

// Violation is one broken promise.
type Violation struct {
	Rule    string
	Check   Op // what should not have been: an allowed check, or an issue
	Against Op // what forbids it; zero if something is missing
	Text    string
}

// LateAllows returns what in the history no legal execution can show, in order
// of Check.Start. It makes no false alarm: two calls are ordered only if one's
// reply was in hand before the other started (equal instants are concurrent),
// and a call that may have failed is never held against another. It runs in
// O(n log n).
func LateAllows(history []Op) []Violation {
	x := newIndex(history)
	found := x.malformed
	report := func(rule string, op, against Op, format string, args ...any) {
		found = append(found, Violation{rule, op, against, rule + ": " + op.String() + ": " + fmt.Sprintf(format, args...)})
	}
	for _, op := range x.ops {
		switch {
		case op.Kind == "issue" && op.OK:
			g := x.grants[op.Grant]
			if g.issue.identity() != op.identity() {
				report(RuleIdentity, op, g.issue, "the same grant is also %s", g.issue)
			}
			// A retry of an issue that may have been made in time is answered
			// as it was then, and allows nothing.
			if end, ok := x.ended[op.Task]; ok && op.Start > end.End && g.start > end.End {
				report(RuleIssueAfterEnd, op, end, "its task had ended: %s", end)
			}
		case op.Kind == "check" && op.OK && op.Grant != "":
			g := x.grants[op.Grant]
			if g == nil {
				report(RuleUnissued, op, Op{}, "no issue returned this grant")
				continue
			}
			if op.End < g.start {
				report(RuleBeforeIssue, op, g.first, "its first issue started later: %s", g.first)
			}
			if r, ok := x.revokedBy(op.Grant, g); ok && op.Start > r.End {
				report(RuleRevoked, op, r, "it was revoked: %s", r)
			}
			if !g.known { // the reply to its issue was lost: its content is not known
				continue
			}
			if !op.within(g.issue) {
				report(RuleBinding, op, g.issue, "the grant is %s", g.issue)
			}
			if op.End < g.minNotBefore-Leeway {
				report(RuleEarly, op, g.issue, "its window begins at %v", g.minNotBefore)
			}
			if op.Start >= g.maxExpires {
				report(RuleExpired, op, g.issue, "it had expired at %v", g.maxExpires)
			}
			if end, ok := x.ended[g.issue.Task]; ok && op.Start > end.End {
				report(RuleTaskEnded, op, end, "its task had ended: %s", end)
			}
		}
	}
	for _, b := range x.budgets {
		if int64(len(b.allowed)) > b.limit {
			for i, op := range b.allowed[b.limit:] {
				report(RuleBudget, op, b.issue, "call %d on %q, whose limit is %d", b.limit+int64(i)+1, b.issue.Budget, b.limit)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Check.Start, b.Check.Start), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Text, b.Text))
	})
	return found
}

// Count is a number of checks.
type Count struct{ Allowed, Denied int }

func (c *Count) add(op Op) {
	if op.OK {
		c.Allowed++
	} else {
		c.Denied++
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Stats says what a history was worth: one without allowed checks inside a
// window, or without denied ones after it, proves nothing.
type Stats struct {
	Starts, Issues, Revokes, Ends int // acknowledged
	Unknown                       int // ops of any kind that ended in an error

	Live     Count // checks surely inside a live grant for their whole length
	Late     Count // checks surely after the grant's end (expiry, revoke, task end)
	Edge     Count // other checks of a grant: concurrent with its issue or end, of a spent budget, of a lost issue, or for what it does not grant
	Unissued Count // checks of a grant that no issue returned
	Baseline Count // checks without a grant

	// WrongDenials are the checks of Live.Denied: what surely held was refused.
	// A budget is taken for spent by every check that may have drawn on it
	// before the reply; where nodes draw shares of more than one call, what is
	// refused on a budget with calls left in another's share is here too.
	WrongDenials []Op
}

// Summarize counts a history. It runs in O(n log n).
func Summarize(history []Op) Stats {
	x := newIndex(history)
	var s Stats
	for _, op := range x.ops {
		if op.Unknown {
			s.Unknown++
			continue
		}
		switch op.Kind {
		case "start":
			s.Starts += count(op.OK)
		case "issue":
			s.Issues += count(op.OK)
		case "revoke":
			s.Revokes += count(op.OK)
		case "end":
			s.Ends += count(op.OK)
		case "check":
			g := x.grants[op.Grant]
			switch {
			case op.Grant == "":
				s.Baseline.add(op)
			case g == nil:
				s.Unissued.add(op)
			case x.surelyLive(op, g):
				s.Live.add(op)
				if !op.OK {
					s.WrongDenials = append(s.WrongDenials, op)
				}
			case x.surelyOver(op, g):
				s.Late.add(op)
			default:
				s.Edge.add(op)
			}
		}
	}
	return s
}

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

// malformed says why no client can have recorded the op; "" if one can.
func (op Op) malformed() string {
	switch {
	case op.Start > op.End:
		return "it ends before it starts"
	case op.OK && op.Unknown:
		return "both acknowledged and unknown"
	case op.Limit < 0:
		return "a negative limit"
	}
	switch op.Kind {
	case "start", "end":
		if op.OK && op.Task == "" {
			return "no task"
		}
	case "issue":
		if op.OK && (op.Task == "" || op.Grant == "" || op.Agent == "" || op.Tool == "") {
			return "no task, grant, agent or tool"
		}
		if op.OK && op.Expires <= 0 {
			return "no end"
		}
	case "revoke":
		if op.Grant == "" && op.Task == "" && op.Agent == "" && op.Tool == "" {
			return "nothing to revoke"
		}
	case "check":
	default:
		return "no such kind"
	}
	return ""
}

// identity is what every issue of one grant must agree on.
func (op Op) identity() [5]string {
	return [5]string{op.Task, op.Agent, op.Tool, op.Budget, fmt.Sprint(op.Limit)}
}

// within says that the check asks for nothing but what the grant gives.
func (op Op) within(g Op) bool {
	same := func(a, b string) bool { return a == "" || a == b }
	return same(op.Task, g.Task) && same(op.Agent, g.Agent) && same(op.Tool, g.Tool)
}

// String gives the op in one line.
func (op Op) String() string {
	s := op.Kind
	for _, id := range []string{op.Grant, op.Task, op.Agent, op.Tool} {
		if id != "" {
			s += " " + id
		}
	}
	switch {
	case op.Unknown:
		s += " unknown"
	case op.OK:
		s += " ok"
	default:
		s += " refused"
	}
	return fmt.Sprintf("%s [%v, %v]", s, op.Start, op.End)
}
