package grantstest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A history in a few letters: each op runs from start to end in milliseconds.
const ms = time.Millisecond

func op(kind string, start, end int, edit ...func(*Op)) Op {
	o := Op{Kind: kind, Start: time.Duration(start) * ms, End: time.Duration(end) * ms, OK: true}
	for _, e := range edit {
		e(&o)
	}
	return o
}

// issue is of g1: t1, a1, s/x, to 1000.
func issue(start, end int, edit ...func(*Op)) Op {
	return op("issue", start, end, append([]func(*Op){grant1, task1, agent1, toolX, func(o *Op) { o.Expires = 1000 * ms }}, edit...)...)
}

func check(start, end int, edit ...func(*Op)) Op {
	return op("check", start, end, append([]func(*Op){grant1, task1, agent1, toolX}, edit...)...)
}

func grant1(o *Op)  { o.Grant = "g1" }
func grant2(o *Op)  { o.Grant = "g2" }
func task1(o *Op)   { o.Task = "t1" }
func task2(o *Op)   { o.Task = "t2" }
func agent1(o *Op)  { o.Agent = "a1" }
func agent2(o *Op)  { o.Agent = "a2" }
func toolX(o *Op)   { o.Tool = "s/x" }
func toolY(o *Op)   { o.Tool = "s/y" }
func refused(o *Op) { o.OK = false }
func unknown(o *Op) { o.OK, o.Unknown = false, true }
func noIDs(o *Op)   { o.Task, o.Agent, o.Tool = "", "", "" }
func noGrant(o *Op) { o.Grant = "" }

func budgetOf(key string, limit int64) func(*Op) {
	return func(o *Op) { o.Budget, o.Limit = key, limit }
}
func expires(at int) func(*Op)   { return func(o *Op) { o.Expires = time.Duration(at) * ms } }
func notBefore(at int) func(*Op) { return func(o *Op) { o.NotBefore = time.Duration(at) * ms } }

func rules(found []Violation) string {
	var all []string
	for _, v := range found {
		all = append(all, v.Rule)
	}
	return strings.Join(all, " ")
}

func TestLateAllows(t *testing.T) {
	type history = []Op
	for _, c := range []struct {
		name string
		h    history
		want string
	}{
		{"nothing", nil, ""},
		{"plain", history{op("start", 0, 1, task1), issue(2, 3), check(4, 5), op("end", 6, 7, task1), check(8, 9, refused)}, ""},

		{"unissued", history{check(1, 2)}, RuleUnissued},
		{"unissued, denied", history{check(1, 2, refused)}, ""},
		{"unissued, unknown", history{check(1, 2, unknown)}, ""},
		{"baseline", history{check(1, 2, noGrant)}, ""},
		{"issue refused", history{issue(0, 1, refused), check(2, 3)}, RuleUnissued},
		{"issue unknown", history{issue(0, 1, unknown), check(2, 3)}, ""},
		{"lost reply teaches no id", history{issue(0, 1, unknown, noGrant), check(2, 3)}, RuleUnissued},

		{"before issue", history{check(1, 2), issue(3, 4)}, RuleBeforeIssue},
		{"beside issue", history{check(1, 3), issue(3, 4)}, ""},
		{"before issue, unknown issue earlier", history{issue(0, 1, unknown), check(1, 2), issue(3, 4)}, ""},
		{"before a second issue of it", history{issue(0, 1), check(2, 3), issue(4, 5)}, ""},

		{"expired", history{issue(0, 1), check(1000, 1001)}, RuleExpired},
		{"just not expired", history{issue(0, 1), check(999, 1001)}, ""},
		{"expired by the longest of two replies", history{issue(0, 1), issue(2, 3, expires(1001)), check(1001, 1002)}, RuleExpired},
		{"not by the shorter of two replies", history{issue(0, 1), issue(2, 3, expires(1001)), check(1000, 1002)}, ""},

		{"early", history{issue(0, 1, notBefore(5100), expires(9000)), check(2, 99)}, RuleEarly},
		{"within leeway", history{issue(0, 1, notBefore(5100), expires(9000)), check(2, 100)}, ""},

		{"revoked", history{issue(0, 1), op("revoke", 2, 3, grant1), check(4, 5)}, RuleRevoked},
		{"revoked at the same instant", history{issue(0, 1), op("revoke", 2, 3, grant1), check(3, 5)}, ""},
		{"revoke refused", history{issue(0, 1), op("revoke", 2, 3, grant1, refused), check(4, 5)}, ""},
		{"revoke unknown", history{issue(0, 1), op("revoke", 2, 3, grant1, unknown), check(4, 5)}, ""},
		{"another revoked", history{issue(0, 1), op("revoke", 2, 3, grant2), check(4, 5)}, ""},
		{"a revoke of a grant is of that alone", history{issue(0, 1), op("revoke", 2, 3, grant2, task1, agent1, toolX), check(4, 5)}, ""},
		{"first of two revokes", history{issue(0, 1), op("revoke", 2, 9, grant1), op("revoke", 3, 4, grant1), check(5, 6)}, RuleRevoked},
		{"revoked, issue lost", history{issue(0, 1, unknown), op("revoke", 2, 3, grant1), check(4, 5)}, RuleRevoked},
		{"revoked while it ran", history{issue(0, 1), check(2, 9), op("revoke", 3, 4, grant1)}, ""},

		{"task ended", history{issue(0, 1), op("end", 2, 3, task1), check(4, 5)}, RuleTaskEnded},
		{"task ended, the check does not say the task", history{issue(0, 1), op("end", 2, 3, task1), check(4, 5, noIDs)}, RuleTaskEnded},
		{"task ended at the same instant", history{issue(0, 1), op("end", 2, 3, task1), check(3, 5)}, ""},
		{"other task ended", history{issue(0, 1), op("end", 2, 3, task2), check(4, 5)}, ""},
		{"end refused", history{issue(0, 1), op("end", 2, 3, task1, refused), check(4, 5)}, ""},
		{"end unknown", history{issue(0, 1), op("end", 2, 3, task1, unknown), check(4, 5)}, ""},
		{"end unknown, again", history{issue(0, 1), op("end", 2, 3, task1, unknown), op("end", 4, 6, task1), check(5, 7), check(7, 8)}, RuleTaskEnded},
		{"task revoked", history{issue(0, 1), op("revoke", 2, 3, task1), check(4, 5)}, RuleTaskEnded},

		{"agent revoked", history{issue(0, 1), op("revoke", 2, 3, agent1), check(4, 5)}, RuleRevoked},
		{"tool revoked", history{issue(0, 1), op("revoke", 2, 3, toolX), check(4, 5)}, RuleRevoked},
		{"agent and tool revoked", history{issue(0, 1), op("revoke", 2, 3, agent1, toolX), check(4, 5)}, RuleRevoked},
		{"agent in a task revoked", history{issue(0, 1), op("revoke", 2, 3, agent1, task1), check(4, 5)}, RuleRevoked},
		{"agent and another tool", history{issue(0, 1), op("revoke", 2, 3, agent1, toolY), check(4, 5)}, ""},
		{"other agent", history{issue(0, 1), op("revoke", 2, 3, agent2), check(4, 5)}, ""},
		{"other tool", history{issue(0, 1), op("revoke", 2, 3, toolY), check(4, 5)}, ""},
		{"agent revoked beside the issue", history{issue(0, 2), op("revoke", 2, 3, agent1), check(4, 5)}, ""},
		{"agent revoked before the issue", history{op("revoke", 0, 1, agent1), issue(2, 3), check(4, 5)}, ""},
		{"agent revoked, check beside", history{issue(0, 1), op("revoke", 2, 4, agent1), check(4, 5)}, ""},
		{"agent revoked, unknown", history{issue(0, 1), op("revoke", 2, 3, agent1, unknown), check(4, 5)}, ""},
		{"agent revoked, second reply of the issue is later", history{issue(0, 1), issue(0, 9), op("revoke", 2, 3, agent1), check(10, 11)}, RuleRevoked},
		{"of three revokes the right one", history{
			op("revoke", 0, 1, agent1), issue(2, 3), op("revoke", 4, 20, agent1), op("revoke", 5, 6, agent1), check(7, 8),
		}, RuleRevoked},
		{"of three revokes none", history{
			op("revoke", 0, 1, agent1), issue(2, 3), op("revoke", 4, 20, agent1), op("revoke", 5, 7, agent1), check(7, 8),
		}, ""},

		{"other tool called", history{issue(0, 1), check(2, 3, toolY)}, RuleBinding},
		{"other agent calls", history{issue(0, 1), check(2, 3, agent2)}, RuleBinding},
		{"other task", history{issue(0, 1), check(2, 3, task2)}, RuleBinding},
		{"other tool denied", history{issue(0, 1), check(2, 3, toolY, refused)}, ""},
		{"ids left out", history{issue(0, 1), check(2, 3, noIDs)}, ""},

		{"over budget", history{issue(0, 1, budgetOf("b", 2)), check(2, 3), check(2, 3), check(2, 3)}, RuleBudget},
		{"over by two", history{issue(0, 1, budgetOf("b", 1)), check(2, 3), check(2, 3), check(2, 3)}, RuleBudget + " " + RuleBudget},
		{"in budget", history{issue(0, 1, budgetOf("b", 2)), check(2, 3), check(2, 3), check(2, 3, refused), check(2, 3, unknown)}, ""},
		{"a budget shared", history{
			issue(0, 1, budgetOf("b", 1)), issue(0, 1, grant2, budgetOf("b", 1)), check(2, 3), check(4, 5, grant2),
		}, RuleBudget},
		{"two budgets", history{
			issue(0, 1, budgetOf("b", 1)), issue(0, 1, grant2, budgetOf("c", 1)), check(2, 3), check(4, 5, grant2),
		}, ""},
		{"a budget without bound", history{issue(0, 1, budgetOf("b", 0)), check(2, 3), check(2, 3)}, ""},

		{"issue after end", history{op("end", 0, 1, task1), issue(2, 3)}, RuleIssueAfterEnd},
		{"issue after end refused", history{op("end", 0, 1, task1), issue(2, 3, refused)}, ""},
		{"issue after end unknown", history{op("end", 0, 1, task1), issue(2, 3, unknown)}, ""},
		{"issue beside end", history{op("end", 0, 2, task1), issue(2, 3)}, ""},
		{"issue after unknown end", history{op("end", 0, 1, task1, unknown), issue(2, 3)}, ""},
		{"issue after the end of another", history{op("end", 0, 1, task2), issue(2, 3)}, ""},
		{"issue tried again after end", history{issue(0, 1, unknown), op("end", 2, 3, task1), issue(4, 5)}, ""},

		{"one id, two tools", history{issue(0, 1), issue(2, 3, toolY)}, RuleIdentity},
		{"one id, twice", history{issue(0, 1), issue(2, 3)}, ""},

		{"backwards", history{check(2, 1)}, RuleMalformed},
		{"both", history{check(1, 2, func(o *Op) { o.Unknown = true })}, RuleMalformed},
		{"misspelt", history{op("Check", 1, 2)}, RuleMalformed},
		{"negative limit", history{issue(1, 2, budgetOf("b", -1))}, RuleMalformed},
		{"endless issue", history{issue(0, 1, expires(0))}, RuleMalformed},
		{"issue of nothing", history{issue(0, 1, noGrant)}, RuleMalformed},
		{"end of nothing", history{op("end", 0, 1)}, RuleMalformed},
		{"revoke of nothing", history{op("revoke", 0, 1)}, RuleMalformed},
		{"failed start", history{op("start", 0, 1, unknown)}, ""},
	} {
		for range 5 { // in any order of recording
			found := LateAllows(c.h)
			if got := rules(found); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
				break
			}
			for _, v := range found {
				if !strings.HasPrefix(v.Text, v.Rule+": ") {
					t.Errorf("%s: text %q", c.name, v.Text)
				}
			}
			rand.Shuffle(len(c.h), func(i, j int) { c.h[i], c.h[j] = c.h[j], c.h[i] })
		}
	}
}

func TestViolationNamesBoth(t *testing.T) {
	end, late := op("end", 2, 3, task1), check(4, 5)
	got := LateAllows([]Op{issue(0, 1), end, late})
	want := []Violation{{RuleTaskEnded, late, end,
		"task_ended: check g1 t1 a1 s/x ok [4ms, 5ms]: its task had ended: end t1 ok [2ms, 3ms]"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Of each denied check the phase, and whether it was wrong.
func TestSummarize(t *testing.T) {
	type history = []Op
	no := check(10, 20, refused)
	const live, late, edge = "live", "late", "edge"
	for _, c := range []struct {
		name string
		h    history // before or after the check
		want string
	}{
		{"live", history{issue(0, 9)}, live},
		{"issue beside it", history{issue(0, 10)}, edge},
		{"issue lost", history{issue(0, 9, unknown)}, edge},
		{"never issued", nil, "unissued"},
		{"issue refused", history{issue(0, 9, refused)}, "unissued"},

		{"revoked", history{issue(0, 1), op("revoke", 2, 9, grant1)}, late},
		{"revoke beside it", history{issue(0, 1), op("revoke", 2, 10, grant1)}, edge},
		{"revoke starts in it", history{issue(0, 1), op("revoke", 20, 21, grant1)}, edge},
		{"revoke after it", history{issue(0, 1), op("revoke", 21, 22, grant1)}, live},
		{"revoke unknown", history{issue(0, 1), op("revoke", 2, 3, grant1, unknown)}, edge},
		{"revoke refused", history{issue(0, 1), op("revoke", 2, 3, grant1, refused)}, live},

		{"task ended", history{issue(0, 1), op("end", 2, 9, task1)}, late},
		{"end beside it", history{issue(0, 1), op("end", 2, 10, task1)}, edge},
		{"end starts in it", history{issue(0, 1), op("end", 20, 21, task1)}, edge},
		{"end after it", history{issue(0, 1), op("end", 21, 22, task1)}, live},
		{"end unknown", history{issue(0, 1), op("end", 2, 3, task1, unknown)}, edge},
		{"end refused", history{issue(0, 1), op("end", 2, 3, task1, refused)}, live},

		{"agent revoked", history{issue(0, 1), op("revoke", 2, 9, agent1)}, late},
		{"tool revoke starts in it", history{issue(0, 1), op("revoke", 20, 21, toolX)}, edge},
		{"tool revoke after it", history{issue(0, 1), op("revoke", 21, 22, toolX)}, live},
		{"other agent revoked", history{issue(0, 1), op("revoke", 2, 9, agent2)}, live},
		{"agent revoked before the issue", history{op("revoke", 0, 1, agent1), issue(2, 3)}, live},
		{"agent revoked beside the issue", history{op("revoke", 0, 2, agent1), issue(2, 3)}, edge},
		{"agent revoked before the issue, unknown", history{op("revoke", 0, 1, agent1, unknown), issue(2, 3)}, edge},
		{"agent revoked refused", history{issue(0, 1), op("revoke", 2, 9, agent1, refused)}, live},
		{"an older revoke hides no newer", history{op("revoke", 0, 1, agent1), issue(2, 3), op("revoke", 3, 15, agent1)}, edge},

		{"expired", history{issue(0, 1, expires(10))}, late},
		{"expires in it", history{issue(0, 1, expires(20))}, edge},
		{"expires after it", history{issue(0, 1, expires(21))}, live},
		{"expires by one of two replies", history{issue(0, 1, expires(21)), issue(2, 3, expires(20))}, edge},
		{"not yet", history{issue(0, 1, notBefore(11))}, edge},
		{"just begun", history{issue(0, 1, notBefore(10))}, live},
		{"not yet by one of two replies", history{issue(0, 1, notBefore(10)), issue(2, 3, notBefore(11))}, edge},

		{"other tool", history{issue(0, 1, toolY)}, edge},
		{"other agent", history{issue(0, 1, agent2)}, edge},
		{"other task", history{issue(0, 1, task2)}, edge},

		{"budget left", history{issue(0, 1, budgetOf("b", 2)), check(2, 3)}, live},
		{"budget spent", history{issue(0, 1, budgetOf("b", 1)), check(2, 3)}, edge},
		{"budget spent by another grant", history{issue(0, 1, budgetOf("b", 1)), issue(0, 1, grant2, budgetOf("b", 1)), check(2, 3, grant2)}, edge},
		{"budget spent in it", history{issue(0, 1, budgetOf("b", 1)), check(20, 30)}, edge},
		{"budget spent after it", history{issue(0, 1, budgetOf("b", 1)), check(21, 30)}, live},
		{"budget perhaps spent", history{issue(0, 1, budgetOf("b", 1)), check(2, 3, unknown)}, edge},
		{"budget perhaps spent by a lost grant", history{issue(0, 1, budgetOf("b", 1)), issue(0, 1, grant2, budgetOf("b", 9), unknown), check(2, 3, grant2)}, edge},
		{"budget held for a time", history{issue(0, 1, budgetOf("b", 1)), check(2, 10, toolY, refused)}, edge},
		{"budget held by the longer of two", history{issue(0, 1, budgetOf("b", 1)), check(2, 30, toolY, refused), check(3, 4, toolY, refused)}, edge},
		{"budget held before", history{issue(0, 1, budgetOf("b", 1)), check(2, 9, toolY, refused)}, live},
		{"no bound", history{issue(0, 1, budgetOf("b", 0)), check(2, 3)}, live},
	} {
		// Checks of the history are counted apart.
		with, without := Summarize(append(slices.Clone(c.h), no)), Summarize(c.h)
		got := map[int]string{
			with.Live.Denied - without.Live.Denied:               live,
			2 * (with.Late.Denied - without.Late.Denied):         late,
			3 * (with.Edge.Denied - without.Edge.Denied):         edge,
			4 * (with.Unissued.Denied - without.Unissued.Denied): "unissued",
		}
		delete(got, 0)
		if diff := cmp.Diff([]string{c.want}, slices.Collect(values(got))); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if wrong := slices.Contains(with.WrongDenials, no); wrong != (c.want == live) {
			t.Errorf("%s: wrong denial: %v", c.name, wrong)
		}
		// The same check allowed: in a legal history never late.
		yes := check(10, 20)
		all := append(slices.Clone(c.h), yes)
		if found := LateAllows(all); (c.want == late || c.want == "unissued") && len(found) == 0 {
			t.Errorf("%s: an allow passes", c.name)
		} else if c.want == live && len(found) > 0 && c.name != "budget spent after it" {
			t.Errorf("%s: %s", c.name, found[0].Text)
		}
	}
}

func values(m map[int]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func TestSummarizeCounts(t *testing.T) {
	got := Summarize([]Op{
		op("start", 0, 1, task1), op("start", 0, 1, task1, refused), issue(2, 3), issue(2, 3, grant2, unknown), issue(2, 3, refused),
		check(4, 5), check(4, 5, refused), check(4, 5, unknown), check(4, 5, noGrant), check(4, 5, noGrant, refused),
		check(4, 5, func(o *Op) { o.Grant = "g3" }), op("revoke", 6, 7, grant1), op("revoke", 6, 7, grant2, refused),
		check(8, 9), check(6, 9), op("end", 10, 11, task1), op("end", 10, 11, task2, unknown), check(12, 13, refused),
	})
	want := Stats{
		Starts: 1, Issues: 1, Revokes: 1, Ends: 1, Unknown: 3,
		Live: Count{1, 1}, Late: Count{1, 1}, Edge: Count{1, 0}, Unissued: Count{1, 0}, Baseline: Count{1, 1},
		WrongDenials: []Op{check(4, 5, refused)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// No false alarm: a legal server decides each op at one instant inside it, and
// what clients may see of that, lost replies and late writes included, breaks
// no rule. A server that forgets one thing is found out.
func TestLegalExecutionsPass(t *testing.T) {
	forgets := map[string]int{}
	phases := Stats{}
	for seed := range uint64(400) {
		h := execute(seed, "")
		if found := LateAllows(h); len(found) > 0 {
			t.Fatalf("seed %d: %s", seed, found[0].Text)
		}
		s := Summarize(h)
		if len(s.WrongDenials) > 0 {
			t.Fatalf("seed %d: wrong denial: %s", seed, s.WrongDenials[0])
		}
		phases.Live.Allowed += s.Live.Allowed
		phases.Late.Denied += s.Late.Denied
		phases.Edge.Allowed += s.Edge.Allowed
		phases.Edge.Denied += s.Edge.Denied
		for _, fault := range []string{RuleExpired, RuleRevoked, RuleTaskEnded, RuleBinding, RuleBudget, RuleIssueAfterEnd, "deny"} {
			h := execute(seed, fault)
			for _, v := range LateAllows(h) {
				if v.Rule == fault {
					forgets[fault]++
					break
				}
			}
			if len(Summarize(h).WrongDenials) > 0 {
				forgets["deny"]++
				if fault != "deny" {
					t.Fatalf("seed %d without %s: wrong denial", seed, fault)
				}
			}
		}
	}
	for _, fault := range []string{RuleExpired, RuleRevoked, RuleTaskEnded, RuleBinding, RuleBudget, RuleIssueAfterEnd, "deny"} {
		if forgets[fault] < 20 {
			t.Errorf("a server that breaks %q was found out in %d of 400 runs", fault, forgets[fault])
		}
	}
	if min(phases.Live.Allowed, phases.Late.Denied, phases.Edge.Allowed, phases.Edge.Denied) < 400 {
		t.Errorf("the runs show too little: %+v", phases)
	}
}

// execute runs 60 random calls against a server that keeps every rule but one.
// Each takes effect at one instant of its own between Start and End; a write
// with a lost reply may do so later, or never.
func execute(seed uint64, fault string) []Op {
	rnd := rand.New(rand.NewPCG(seed, 1))
	pick := func(of string) string { return fmt.Sprintf("%s%d", of, rnd.IntN(2)) }
	type call struct {
		op Op
		at time.Duration // when it takes effect; <0: never
	}
	var calls []*call
	for i := range 60 {
		o := Op{Start: time.Duration(1 + rnd.IntN(300))}
		at := o.Start + time.Duration(rnd.IntN(20))
		o.End = at + time.Duration(rnd.IntN(20))
		o.Unknown = rnd.IntN(10) == 0
		if o.Unknown && rnd.IntN(2) == 0 {
			at = o.End + time.Duration(rnd.IntN(100))
		} else if o.Unknown && rnd.IntN(2) == 0 {
			at = -1
		}
		g := fmt.Sprintf("g%d", rnd.IntN(12))
		switch r := rnd.IntN(30); {
		case r < 9:
			o.Kind, o.Grant, o.Task, o.Agent, o.Tool = "issue", fmt.Sprintf("g%d", i%12), pick("t"), pick("a"), pick("s/")
			o.Expires = o.Start + time.Duration(50+rnd.IntN(200))
			o.Budget, o.Limit = "task/"+o.Task+"/"+o.Tool, 4
		case r < 26:
			o.Kind, o.Grant = "check", g
			if rnd.IntN(5) == 0 {
				o.Tool = pick("s/")
			}
		case r == 26:
			o.Kind, o.Grant = "revoke", g
		case r == 27:
			o.Kind, o.Agent = "revoke", pick("a")
		case r == 28:
			o.Kind, o.Tool = "revoke", pick("s/")
		default:
			o.Kind, o.Task = "end", pick("t")
		}
		calls = append(calls, &call{o, at})
	}
	order := slices.Clone(calls)
	slices.SortStableFunc(order, func(a, b *call) int { return int(a.at - b.at) })

	issued, dead, ended, spent := map[string]Op{}, map[string]bool{}, map[string]bool{}, map[string]int64{}
	for _, c := range order {
		o := &c.op
		if c.at < 0 {
			continue
		}
		switch o.Kind {
		case "issue":
			old, again := issued[o.Grant]
			ok := again && old.identity() == o.identity() && old.Expires == o.Expires
			if !again && (!ended[o.Task] || fault == RuleIssueAfterEnd) {
				issued[o.Grant], ok = *o, true
			}
			o.OK = ok && !o.Unknown
		case "check":
			g, ok := issued[o.Grant]
			switch {
			case !ok:
			case !o.within(g):
				ok = fault == RuleBinding
			case c.at >= g.Expires:
				ok = fault == RuleExpired
			case ended[g.Task]:
				ok = fault == RuleTaskEnded
			case dead[o.Grant]:
				ok = fault == RuleRevoked
			case fault == "deny" && rnd.IntN(5) == 0:
				ok = false
			case spent[g.Budget] >= g.Limit:
				ok = fault == RuleBudget
			}
			if ok {
				spent[g.Budget]++
			}
			o.OK = ok && !o.Unknown
		case "revoke":
			for id, g := range issued {
				if id == o.Grant || g.Agent == o.Agent || g.Tool == o.Tool {
					dead[id] = true
				}
			}
			if o.Grant != "" {
				dead[o.Grant] = true
			}
			o.OK = !o.Unknown
		case "end":
			ended[o.Task] = true
			o.OK = !o.Unknown
		}
	}
	var h []Op
	for _, c := range calls {
		h = append(h, c.op)
	}
	return h
}

func BenchmarkLateAllows(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var h []Op
			for i := range n {
				id := func(o *Op) { o.Grant = fmt.Sprint("g", i/10) }
				switch i % 10 {
				case 0:
					h = append(h, issue(i, i+1, id, expires(2*n), budgetOf("b", int64(n))))
				case 9:
					h = append(h, op("revoke", i, i+1, agent2))
				default:
					h = append(h, check(i, i+1, id))
				}
			}
			for b.Loop() {
				if found := LateAllows(h); len(found) > 0 {
					b.Fatal(found[0].Text)
				}
			}
		})
	}
}
