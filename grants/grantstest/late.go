package grantstest

import (
	"cmp"
	"fmt"
	"slices"
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
