package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/grants"
)

// testRun is what a run of policy tests came to.
type testRun struct {
	results  []testResult
	part     bool     // not of all tests: nothing is said of coverage
	policies []string // of the set, sorted
	covered  map[string]bool
}

// testResult is what came of one case. wrong is one line, "": passed; hints say
// more.
type testResult struct {
	test  *policyTest
	at    string // FILE:LINE:COLUMN of the case, or of the step that went wrong
	wrong string
	hints []string
	took  time.Duration
}

// runTests reads the tests of the places, of which only those whose name matches
// are run; nil: all.
func runTests(ctx context.Context, cfg *Config, places []string, only *regexp.Regexp) (run *testRun, err error) {
	if cfg.PDP.on() {
		return nil, usageError(errors.New("policy test is about Cedar policies, and in this configuration pdp decides"))
	}
	var files []string
	for _, place := range places {
		found, err := findTests(place)
		if err != nil {
			return nil, usageError(err)
		}
		files = append(files, found...)
	}
	h, err := openHouse(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	tests, err := readTests(cfg, h, files, only)
	if err != nil {
		return nil, err
	}
	run = &testRun{part: only != nil, policies: h.set.Policies(), covered: map[string]bool{}}
	for _, t := range tests {
		result, err := run.try(ctx, h, t)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d:%d: %s: %w", t.file, t.line, t.column, t.name, err)
		}
		run.results = append(run.results, result)
	}
	return run, nil
}

func readTests(cfg *Config, h *testHouse, files []string, only *regexp.Regexp) ([]*policyTest, error) {
	r := &testReader{cfg: cfg, catalog: h.parts.catalog, set: h.set, now: time.Now().UTC().Truncate(time.Second)}
	var tests []*policyTest
	var faults []error
	for _, file := range slices.Compact(files) {
		of, err := r.readFile(file)
		tests, faults = append(tests, of...), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, usageError(err)
	}
	if only == nil {
		return tests, nil
	}
	tests = slices.DeleteFunc(tests, func(t *policyTest) bool { return !only.MatchString(t.name) })
	if len(tests) == 0 {
		return nil, usageError(fmt.Errorf("no test's name matches %q", only))
	}
	return tests, nil
}

// try plays one case. An error is none of what is tested.
func (run *testRun) try(ctx context.Context, h *testHouse, t *policyTest) (testResult, error) {
	began := time.Now()
	result := testResult{test: t, at: fmt.Sprintf("%s:%d:%d", t.file, t.line, t.column)}
	judge := func(o testOutcome, want expectation, where string) bool {
		for _, id := range o.decisive {
			run.covered[id] = true
		}
		if result.wrong = want.differs(o); result.wrong == "" {
			return true
		}
		result.wrong, result.hints = where+result.wrong, hintsFor(h.set, o)
		return false
	}
	if t.question != nil {
		o, err := h.put(ctx, t.question)
		if err != nil {
			return result, err
		}
		judge(o, t.want, "")
	}
	p := &play{house: h}
	for i, s := range t.story {
		where := fmt.Sprintf("step %d (%s): ", i+1, s.title)
		o, err := s.do(ctx, p)
		if err != nil {
			return result, fmt.Errorf("%s%w", where, err)
		}
		if !judge(o, s.want, where) { // what follows would go wrong for this
			result.at = fmt.Sprintf("%s:%d:%d", t.file, s.line, s.column)
			break
		}
	}
	result.took = time.Since(began)
	return result, nil
}

// put puts a case's question to the policies.
func (h *testHouse) put(ctx context.Context, a *asking) (testOutcome, error) {
	if a.why != grants.None {
		return testOutcome{reason: a.why, detail: a.detail}, nil
	}
	ds, err := h.set.Decide(ctx, []grants.Input{a.in})
	if err != nil {
		return testOutcome{}, err
	}
	d := ds[0]
	o := testOutcome{allow: d.Allow, reason: d.Refusal(), advice: d.Advice, by: d.Policies, asked: []asked{{a.in, d}}}
	if d.Reason != grants.PolicyError {
		o.decisive = d.Policies
	}
	return o, nil
}

// undecisive are the reasons of a denial that say nothing about policies: the test
// asked for what could not be, or it went wrong. A denial for one of these is
// expected by its name alone, so that no test passes for its own misspelling.
var undecisive = []grants.Reason{
	grants.Malformed, grants.Mismatch, grants.TooLarge, grants.Encoding, grants.UnknownTool, grants.Unrepresentable,
	grants.NoCredential, grants.Ambiguous, grants.BadCredential, grants.ExpiredToken, grants.UnboundToken, grants.CredentialKind,
	grants.UnknownSession, grants.UnknownGrant, grants.NotYet, grants.PolicyError, grants.BadTTL, grants.BadRequest,
	grants.Conflict, grants.Limit, grants.NotFresh, grants.CannotRecord, grants.Undecided,
}

// differs says in a line what came instead of what was expected; "": it came.
func (w expectation) differs(o testOutcome) string {
	reason := w.allow || w.reason == o.reason || w.reason == grants.None && !slices.Contains(undecisive, o.reason)
	if w.allow == o.allow && reason &&
		(w.by == nil || slices.Equal(w.by, o.by)) && (w.advice == "" || w.advice == o.advice) {
		return w.differsInTokens(o)
	}
	line := "expected " + w.words(o) + "; got " + o.words()
	if w.advice != "" && w.advice != o.advice {
		line += fmt.Sprintf("; expected the advice %q, got %q", w.advice, o.advice)
	}
	if !w.allow && !o.allow && !reason && w.reason == grants.None {
		line += ": that is no decision about it; if it is meant, write reason: " + o.reason.String()
	}
	return line
}

func (w expectation) differsInTokens(o testOutcome) string {
	if w.granted != nil && !slices.Equal(w.granted, o.granted) {
		return fmt.Sprintf("expected grants of %s; got %s, %s", namesOrNothing(w.granted), namesOrNothing(o.granted), refusals(o.refused))
	}
	if w.refused != nil && !maps.Equal(w.refused, o.refused) {
		return fmt.Sprintf("expected %s; got %s", refusals(w.refused), refusals(o.refused))
	}
	return ""
}

// words says what was expected; who decides, only where that is said.
func (w expectation) words(o testOutcome) string {
	text := "allow"
	if !w.allow {
		text = "deny"
		if w.reason != grants.None {
			text += " (" + w.reason.String() + ")"
		}
	}
	if w.by != nil {
		text += by(w.by)
	}
	return text
}

// words says what came, and which policies decided.
func (o testOutcome) words() string {
	text := "allow"
	if !o.allow {
		text = "deny (" + o.reason.String() + ")"
		if o.detail != "" && o.reason != grants.Policy {
			text += ": " + printable(o.detail)
		}
	}
	return text + by(o.by)
}

func by(policies []string) string {
	if len(policies) == 0 {
		return ", by no policy"
	}
	return ", by " + strings.Join(policies, ", ")
}

func namesOrNothing(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

func refusals(of map[string]grants.Reason) string {
	if len(of) == 0 {
		return "nothing refused"
	}
	var all []string
	for _, tool := range slices.Sorted(maps.Keys(of)) {
		all = append(all, tool+" ("+of[tool].String()+")")
	}
	return "refused " + strings.Join(all, ", ")
}

// hintsFor says of what policy refused, what would have to differ.
func hintsFor(set *cedar.Set, o testOutcome) []string {
	for _, a := range o.asked {
		if a.out.Refusal() != grants.Policy {
			continue
		}
		if e, err := set.Explain(a.in); err == nil {
			return e.WithValues().Differ // the test's own
		}
	}
	return nil
}

// failed counts the cases that went wrong.
func (run *testRun) failed() int {
	n := 0
	for _, r := range run.results {
		if r.wrong != "" {
			n++
		}
	}
	return n
}

// uncovered are the policies that decided nothing.
func (run *testRun) uncovered() []string {
	return slices.DeleteFunc(slices.Clone(run.policies), func(id string) bool { return run.covered[id] })
}

// text is what people read of a run.
func (run *testRun) text() string {
	var b strings.Builder
	for _, r := range run.results {
		if r.wrong == "" {
			continue
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", r.at, printable(r.test.name), r.wrong)
		for _, h := range r.hints {
			for line := range strings.Lines(h) {
				fmt.Fprintf(&b, "  %s\n", printable(strings.TrimRight(line, "\n")))
			}
		}
	}
	failed := run.failed()
	fmt.Fprintf(&b, "%d passed, %d failed", len(run.results)-failed, failed)
	if uncovered := run.uncovered(); !run.part {
		fmt.Fprintf(&b, "; policies covered %d of %d", len(run.policies)-len(uncovered), len(run.policies))
		if len(uncovered) > 0 {
			b.WriteString(": not covered: " + strings.Join(uncovered, ", "))
		}
	}
	b.WriteByte('\n')
	return b.String()
}
