package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// past is an audit log and a file of inputs, as the doors would write them.
type past struct {
	t           testing.TB
	audit, file string
	log         *audit.Log
	inputs      *Inputs
}

func newPast(t testing.TB) *past {
	t.Helper()
	p := &past{t: t, audit: filepath.Join(t.TempDir(), "audit.jsonl"), file: testPath(t)}
	var err error
	if p.log, err = audit.Open(audit.Config{File: p.audit, Key: bytes.Repeat([]byte{7}, 32)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.log.Close() })
	p.inputs = openInputs(t, p.file)
	return p
}

func (p *past) asked(id string, in grants.Input, out grants.Decision) { ask(p.inputs, id, in, out) }

// record is one of a decision by policy, or of what never reached it (no revision).
func (p *past) record(id string, revision grants.Digest) {
	p.t.Helper()
	err := p.log.Append(audit.Record{
		ID: id, Kind: audit.KindCall, Agent: "corp/agent", Tool: "bank/pay", Outcome: audit.Deny, Reason: grants.Policy, Revision: revision,
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *past) decided(id string, in grants.Input, out grants.Decision) {
	p.t.Helper()
	p.asked(id, in, out)
	p.record(id, out.Revision)
}

// again replays it.
func (p *past) again(decide grants.Decider, tools *catalog.Catalog) Report {
	p.t.Helper()
	r, err := p.try(decide, tools)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *past) try(decide grants.Decider, tools *catalog.Catalog) (Report, error) {
	p.t.Helper()
	var open [2]*os.File
	for i, path := range []string{p.audit, p.file} {
		f, err := os.Open(path)
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close()
		open[i] = f
	}
	return Replay(p.t.Context(), Config{Audit: open[0], Inputs: open[1], Decide: decide, Catalog: tools})
}

func same(t testing.TB, got, want Report) {
	t.Helper()
	if want.Counts.Cannot == nil {
		want.Counts.Cannot = map[Why]int64{}
	}
	if want.Flips == nil {
		want.Flips = []Flip{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFlips(t *testing.T) {
	flip := func(change Change, because, policy string) Flip {
		return Flip{Change: change, Because: because, Policy: policy, Count: 1, Examples: []string{"d_1"}}
	}
	for _, tc := range []struct {
		name     string
		was, now grants.Decision
		want     []Flip // none: the same
	}{
		{"allow, by another policy", allow(oldRe, "a"), allow(newRe, "b"), nil},
		{"deny, by another policy", deny(oldRe, grants.Policy, "a"), deny(newRe, grants.Policy, "b"), nil},
		{"the zero decision denies by policy", grants.Decision{Revision: oldRe}, deny(newRe, grants.Policy), nil},
		{"forbidden", allow(oldRe, "a"), deny(newRe, grants.Policy, "f", "g"), []Flip{flip(ToDeny, "now forbidden by", "f"), flip(ToDeny, "now forbidden by", "g")}},
		{"permitted no more", allow(oldRe, "a", "b"), deny(newRe, grants.Policy), []Flip{flip(ToDeny, "no longer permitted by", "a"), flip(ToDeny, "no longer permitted by", "b")}},
		{"permitted no more, by nobody knows", allow(oldRe), deny(newRe, grants.Policy), []Flip{flip(ToDeny, "no longer permitted", "")}},
		{"an error", allow(oldRe, "a"), deny(newRe, grants.PolicyError, "e"), []Flip{flip(ToDeny, "now could not be evaluated:", "e")}},
		{"the manifest", allow(oldRe, "a"), deny(newRe, grants.Manifest), []Flip{flip(ToDeny, "reason manifest", "")}},
		{"allowed with a reason", allow(oldRe, "a"), grants.Decision{Allow: true, Reason: grants.Manifest, Revision: newRe}, []Flip{flip(ToDeny, "reason manifest", "")}},
		{"permitted", deny(oldRe, grants.Policy), allow(newRe, "p"), []Flip{flip(ToAllow, "now permitted by", "p")}},
		{"forbidden no more", deny(oldRe, grants.Policy, "f"), allow(newRe, "p"), []Flip{flip(ToAllow, "no longer forbidden by", "f"), flip(ToAllow, "now permitted by", "p")}},
		{"no error any more", deny(oldRe, grants.PolicyError, "e"), allow(newRe, "p"), []Flip{flip(ToAllow, "could be evaluated again:", "e"), flip(ToAllow, "now permitted by", "p")}},
		{"in the manifest now", deny(oldRe, grants.Manifest), allow(newRe), []Flip{flip(ToAllow, "no longer manifest", "")}},
		{"permitted by nobody knows", deny(oldRe, grants.Policy), allow(newRe), []Flip{flip(ToAllow, "now permitted", "")}},
		{"another reason", deny(oldRe, grants.Policy, "f"), deny(newRe, grants.PolicyError, "e"), []Flip{flip(ToReason, "policy_error in place of policy", "")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPast(t)
			p.decided("d_1", baseline("bank/look"), tc.was)
			want := Report{Revision: newRe, Counts: Counts{Same: 1}, Flips: tc.want}
			if tc.want != nil {
				want.Counts.Same, want.Counts.Flipped = 0, 1
			}
			got := p.again(says(map[string]grants.Decision{"call:bank/look": tc.now}), nil)
			same(t, got, want)
			if got.Flipped() != want.Counts.Flipped {
				t.Errorf("%d flipped", got.Flipped())
			}
		})
	}
}

// What cannot be decided again is neither the same nor flipped.
func TestCannot(t *testing.T) {
	tools := testCatalog(t, testTools)
	pay := func(g *grants.Grant, args string) grants.Input { return call(g, parse(t, args)) }
	for _, tc := range []struct {
		name  string
		in    grants.Input
		was   grants.Decision
		now   map[string]grants.Decision
		tools *catalog.Catalog
		want  Why // "": the same
	}{
		{"a redacted argument", pay(nil, `{"body": {"iban": "x"}}`), allow(oldRe), nil, tools, Redacted},
		{"of a tool that the catalogue lacked", func() grants.Input {
			in := pay(nil, `{}`)
			in.Action, in.Tool = "call:bank/gone", "bank/gone"
			return in
		}(), deny(oldRe, grants.UnknownTool), nil, tools, Redacted},
		{"an opaque argument", pay(nil, `{"body": {"blob": "x"}}`), allow(oldRe), nil, tools, ""},
		{"an argument that is opaque no more", pay(nil, `{"body": {"blob": "x"}}`), allow(oldRe), nil,
			testCatalog(t, strings.Replace(testTools, "opaque: [/body/blob]", "opaque: [/body/amount]", 1)), Redacted},
		{"an argument inside of what is opaque", pay(nil, `{"body": {"blob": "x"}}`), allow(oldRe), nil,
			testCatalog(t, strings.NewReplacer("opaque: [/body/blob]", "opaque: [/body]", "redact: [/body/iban, /body/payee/name]", "").Replace(testTools)), ""},
		{"an opaque argument, and no catalogue", pay(nil, `{"body": {"blob": "x"}}`), allow(oldRe), nil, nil, Redacted},
		{"an opaque argument of a tool that is gone", pay(nil, `{"body": {"blob": "x"}}`), allow(oldRe),
			map[string]grants.Decision{"call:bank/pay": deny(newRe, grants.UnknownTool)},
			testCatalog(t, strings.Replace(testTools, "tool: pay", "tool: paid", 1)), ToolGone},
		{"a tool that is gone", pay(nil, `{}`), allow(oldRe), map[string]grants.Decision{"call:bank/pay": deny(newRe, grants.UnknownTool)}, tools, ToolGone},
		{"a tool that was gone before", baseline("bank/look"), deny(oldRe, grants.UnknownTool), map[string]grants.Decision{"call:bank/look": deny(newRe, grants.UnknownTool)}, tools, ""},
		{"a grant for a tool that is gone", testGrant().Asks(testTask(), now)[0], allow(oldRe), map[string]grants.Decision{"grant": deny(newRe, grants.UnknownTool)}, tools, ToolGone},
		{"no question any more", pay(nil, `{}`), allow(oldRe), map[string]grants.Decision{"call:bank/pay": deny(newRe, grants.Undecided)}, tools, Undecidable},
		{"no question before", pay(nil, `{}`), deny(oldRe, grants.Undecided), map[string]grants.Decision{"call:bank/pay": deny(newRe, grants.Undecided)}, tools, ""},
		{"a grant that is no question any more", pay(testGrant(), `{}`), allow(oldRe), map[string]grants.Decision{"grant": deny(newRe, grants.Undecided)}, tools, Undecidable},
		{"redacted, under a grant that would be given", pay(testGrant(), `{"body": {"iban": "x"}}`), allow(oldRe), nil, tools, Redacted},
		{"redacted, under a grant of that revision", pay(testGrant(), `{"body": {"iban": "x"}}`), allow(oldRe), map[string]grants.Decision{"grant": deny(oldRe, grants.Policy)}, tools, Redacted},
		{"redacted, under a grant for a tool that is gone", pay(testGrant(), `{"body": {"iban": "x"}}`), allow(oldRe), map[string]grants.Decision{"grant": deny(newRe, grants.UnknownTool)}, tools, ToolGone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPast(t)
			p.decided("d_1", tc.in, tc.was)
			want := Counts{Same: 1, Cannot: map[Why]int64{}}
			if tc.want != "" {
				want = Counts{Cannot: map[Why]int64{tc.want: 1}}
			}
			got := p.again(says(tc.now), tc.tools)
			if diff := cmp.Diff(want, got.Counts); diff != "" || len(got.Flips) > 0 {
				t.Errorf("%s\n%v", diff, got.Flips)
			}
		})
	}
}

// A call is decided as the door does it: where the grant is of another revision, it
// must be one that would still be given.
func TestTheDoorsRule(t *testing.T) {
	in := call(testGrant(), nil)
	asks := testGrant().Asks(testTask(), now)
	forOther := testGrant()
	forOther.Requester = boss
	policyChanged := func(because, policy string) []Flip {
		return []Flip{{Change: ToDeny, Because: because, Policy: policy, Count: 1, Examples: []string{"d_1"}}}
	}
	noGrant := map[string]grants.Decision{"grant": deny(newRe, grants.Policy, "f")}
	type batch struct {
		in  []grants.Input
		out []grants.Decision
	}
	one := func(in grants.Input, out grants.Decision) batch {
		return batch{[]grants.Input{in}, []grants.Decision{out}}
	}
	// The door's two steps, when policy had moved since the grant.
	half := one(in, allow(newRe, "c"))
	full := func(about, call grants.Decision) batch {
		return batch{append(append([]grants.Input{}, asks...), in), []grants.Decision{about, call}}
	}
	for _, tc := range []struct {
		name    string
		batches []batch
		now     map[string]grants.Decision
		counts  Counts
		flips   []Flip
	}{
		{"a grant that would still be given", []batch{one(in, allow(oldRe))}, nil, Counts{Same: 1}, nil},
		{"a grant that is now forbidden", []batch{one(in, allow(oldRe))}, noGrant, Counts{Flipped: 1}, policyChanged("its grant now forbidden by", "f")},
		{"a grant that is now not permitted", []batch{one(in, allow(oldRe))}, map[string]grants.Decision{"grant": deny(newRe, grants.Policy)},
			Counts{Flipped: 1}, policyChanged("its grant no longer permitted", "")},
		{"a grant that may not be asked for", []batch{one(call(forOther, nil), allow(oldRe))}, map[string]grants.Decision{"ask_for": deny(newRe, grants.Policy, "f", "f")},
			Counts{Flipped: 1}, policyChanged("its grant now forbidden by", "f")},
		{"a grant of the deciding revision", []batch{one(in, allow(oldRe))},
			map[string]grants.Decision{"grant": deny(oldRe, grants.Policy), "call:bank/pay": allow(oldRe)}, Counts{Same: 1}, nil},
		{"redacted, and the grant is forbidden whatever they are", []batch{one(call(testGrant(), parse(t, `{"body": {"iban": "x"}}`)), allow(oldRe))}, noGrant,
			Counts{Flipped: 1}, policyChanged("its grant now forbidden by", "f")},
		{"baseline", []batch{one(call(nil, nil), allow(oldRe))}, noGrant, Counts{Same: 1}, nil},
		{"the grant was refused before", []batch{half, full(deny(newRe, grants.Policy, "x"), allow(newRe))}, noGrant, Counts{Same: 1}, nil},
		{"the grant was refused before, and is not now", []batch{half, full(deny(newRe, grants.Policy, "x"), allow(newRe))}, nil, Counts{Flipped: 1}, []Flip{
			{Change: ToAllow, Because: "its grant no longer forbidden by", Policy: "x", Count: 1, Examples: []string{"d_1"}},
			{Change: ToAllow, Because: "now permitted by", Policy: "any", Count: 1, Examples: []string{"d_1"}},
		}},
		{"the grant was decided anew before", []batch{half, full(allow(newRe), allow(newRe))}, nil, Counts{Same: 1}, nil},
		{"the second step is lost", []batch{half}, nil, Counts{Cannot: map[Why]int64{NoInputs: 1}}, nil},
		{"something else is behind the first step", []batch{half, one(in, allow(oldRe))}, nil, Counts{Cannot: map[Why]int64{NoInputs: 1}}, nil},
		{"one lost step, and one answer that flips", []batch{half, one(call(nil, nil), deny(oldRe, grants.Policy))}, nil, Counts{Flipped: 1}, []Flip{
			{Change: ToAllow, Because: "now permitted by", Policy: "any", Count: 1, Examples: []string{"d_1"}},
		}},
		{"a grant asked for", []batch{{asks, []grants.Decision{allow(oldRe, "p")}}}, noGrant, Counts{Flipped: 1}, policyChanged("now forbidden by", "f")},
		{"two answers that one policy flips are one decision", []batch{one(in, allow(oldRe)), one(in, allow(oldRe))}, noGrant, Counts{Flipped: 1}, policyChanged("its grant now forbidden by", "f")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPast(t)
			for _, b := range tc.batches {
				p.inputs.Asked("d_1", b.in, b.out)
			}
			p.record("d_1", oldRe)
			got := p.again(says(tc.now), testCatalog(t, testTools))
			got.Revision = grants.Digest{}
			same(t, got, Report{Counts: tc.counts, Flips: tc.flips})
		})
	}
}

// The questions that are put again are those of then: with their instants, and
// those about the grant behind.
func TestWhatIsAsked(t *testing.T) {
	p := newPast(t)
	grant := testGrant()
	grant.Requester = boss
	in := call(grant, parse(t, `{"body": {"amount": 1}}`))
	p.decided("d_1", in, allow(oldRe))
	var got []grants.Input
	p.again(func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
		got = append(got, in...)
		return says(nil)(t.Context(), in)
	}, nil)
	if diff := cmp.Diff(append([]grants.Input{in}, grant.Asks(testTask(), now)...), got); diff != "" {
		t.Error(diff)
	}
}

func TestCounts(t *testing.T) {
	p := newPast(t)
	look := baseline("bank/look")
	p.asked("d_unrecorded", look, allow(oldRe))
	p.decided("d_1", look, allow(oldRe))
	p.record("d_1", oldRe) // one more of the same decision
	p.record("d_2", oldRe) // no inputs
	p.record("d_2", oldRe)
	p.record("d_3", grants.Digest{})
	for range 30 { // of callers that nobody knows: after ten, they are folded
		if err := p.log.Append(audit.Record{ID: "d_4", Kind: audit.KindCall, Outcome: audit.Deny, Reason: grants.NoCredential, Source: "192.0.2.1"}); err != nil {
			t.Fatal(err)
		}
	}
	p.decided("d_5", look, allow(oldRe))
	p.log.Close()
	p.inputs.Close()
	for path, torn := range map[string]string{p.audit: `{"seq":`, p.file: "x\n" + `{"v":1`} {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(torn)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	same(t, p.again(says(nil), nil), Report{Revision: newRe, Counts: Counts{
		Same: 2, Cannot: map[Why]int64{NoInputs: 1, Folded: 20, Torn: 1}, NotByPolicy: 11, Unrecorded: 1, TornInputs: 1, NotLines: 1,
	}})
}

func TestReplayFails(t *testing.T) {
	p := newPast(t)
	for i := range 3 {
		p.decided(idOf(i), baseline("bank/look"), allow(oldRe))
	}
	errPDP := errors.New("no engine")
	n := 0
	for name, tc := range map[string]struct {
		decide grants.Decider
		want   string
	}{
		"the decider": {func(context.Context, []grants.Input) ([]grants.Decision, error) { return nil, errPDP }, "no engine"},
		"an answer too few": {func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			return make([]grants.Decision, len(in)-1), nil
		}, "0 decisions for 1 questions"},
		"another revision": {func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			n++
			return []grants.Decision{allow(grants.Digest{byte(n)})}, nil
		}, "changed while they were asked"},
	} {
		if r, err := p.try(tc.decide, nil); err == nil || !strings.Contains(err.Error(), tc.want) || r.Flips == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	text, err := os.ReadFile(p.audit)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Replay(ctx, Config{Audit: bytes.NewReader(text), Inputs: bytes.NewReader(asked), Decide: func(context.Context, []grants.Input) ([]grants.Decision, error) {
		return []grants.Decision{allow(newRe)}, nil
	}}); !errors.Is(err, context.Canceled) {
		t.Errorf("ctx: %v", err)
	}
	bad := func(text []byte) io.Reader { return io.MultiReader(bytes.NewReader(text), iotest.ErrReader(errDisk)) }
	if _, err := Replay(t.Context(), Config{Audit: bad(text), Inputs: bytes.NewReader(asked), Decide: says(nil)}); !errors.Is(err, errDisk) {
		t.Errorf("the log's disk: %v", err)
	}
	if _, err := Replay(t.Context(), Config{Audit: bytes.NewReader(text), Inputs: bad(nil), Decide: says(nil)}); !errors.Is(err, errDisk) {
		t.Errorf("the inputs' disk: %v", err)
	}
	first := asked[:bytes.IndexByte(asked, '\n')+1]
	if r, err := Replay(t.Context(), Config{Audit: bytes.NewReader(text), Inputs: bad(first), Decide: says(nil)}); !errors.Is(err, errDisk) || r.Counts.Cannot[NoInputs] > 1 {
		t.Errorf("the inputs' disk, behind a line: %v, %+v", err, r.Counts) // and not: without inputs, all that followed
	}
	if _, err := Replay(t.Context(), Config{Audit: bytes.NewReader(nil), Inputs: bad(nil), Decide: says(nil)}); !errors.Is(err, errDisk) {
		t.Errorf("the inputs' disk, and no record: %v", err)
	}
}

// 10^5 decisions out of order, with gaps on both sides, come to the counts that
// they were made with, and to no more memory than a few of them take. Their files
// are made while they are read.
func TestLong(t *testing.T) {
	const n = 100_000
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(i int) time.Time { return start.Add(time.Duration(i) * 5 * time.Millisecond) }
	id := func(i int) string { return fmt.Sprintf("d_%06d", i) }
	template := strings.SplitN(goodLine(t, "ID", baseline("bank/look"), allow(oldRe, "p")), `"id":"ID"`, 2)
	padding := `,"principal":{"issuer":"` + strings.Repeat("x", 500) + `"`
	rest := strings.Replace(template[1], `,"principal":{"issuer":"corp"`, padding, 1)

	// Inputs come some late among others; each 10th is lost, each 20th never gets a
	// record.
	inputs := pipe(t, func(w io.Writer) {
		for i := range n {
			j := i ^ 7 // out of order among eight
			if j%10 == 3 || j >= n {
				continue
			}
			fmt.Fprintf(w, `{"v":1,"time":%q,"id":%q%s`, at(i).Format(time.RFC3339Nano), id(j), rest)
		}
	})
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	log, err := audit.Open(audit.Config{File: path, Fsync: audit.FsyncNever, Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	var want Counts
	for i := range n {
		j := i ^ 5
		if j%20 == 4 {
			want.Unrecorded++
			continue
		}
		rec := audit.Record{
			Time: at(i), LatencyUS: 50_000, ID: id(j), Kind: audit.KindCall, Agent: "a", Outcome: audit.Allow, Revision: oldRe,
		}
		if err := log.Append(rec); err != nil {
			t.Fatal(err)
		}
		if j%10 == 3 {
			if want.Cannot == nil {
				want.Cannot = map[Why]int64{}
			}
			want.Cannot[NoInputs]++
		} else {
			want.Same++
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	var peak uint64
	asked := 0
	got, err := Replay(t.Context(), Config{Audit: f, Inputs: inputs, Decide: func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
		if asked++; asked%5000 == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
		return says(nil)(ctx, in)
	}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, Report{Revision: newRe, Counts: want})
	if peak == 0 || peak > 64<<20 { // all of the lines are over 90 MB, and more when decoded
		t.Errorf("a heap of %d MB", peak>>20)
	}
}

// pipe is a reader of what write writes.
func pipe(t *testing.T, write func(io.Writer)) io.Reader {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(w)
		w.Close()
	}()
	t.Cleanup(func() { r.Close(); <-done })
	return r
}

// What comes too late or too early for the window is counted as without inputs.
func TestOutsideOfTheWindow(t *testing.T) {
	lineAt := func(id string, at time.Time) Line { return Line{Time: at, ID: id, size: 1000} }
	for _, tc := range []struct {
		name  string
		off   time.Duration // of the inputs against the record
		found bool
	}{
		{"long before", -behindOf - time.Millisecond, false},
		{"before", -behindOf + time.Millisecond, true},
		{"behind", aheadOf, true},
		{"long behind", aheadOf + time.Millisecond, false},
	} {
		w := newWindow(strings.NewReader(""))
		fed := false
		w.next = func() (Line, error, bool) {
			if fed {
				return Line{}, nil, false
			}
			fed = true
			return lineAt("d_1", now.Add(tc.off)), nil, true
		}
		if tc.off < 0 { // an earlier record has it read
			w.take(&audit.Record{ID: "d_0", Time: now.Add(tc.off)})
		}
		lines, counted := w.take(&audit.Record{ID: "d_1", Time: now.Add(-time.Second), LatencyUS: 1e6})
		if (len(lines) == 1) != tc.found || counted {
			t.Errorf("%s: %d lines, %v", tc.name, len(lines), counted)
		}
		w.close()
	}
}

// However much comes in one instant, no more than the bound is kept.
func TestTheWindowIsBounded(t *testing.T) {
	w := newWindow(strings.NewReader(""))
	defer w.close()
	n, most := 0, 0
	w.next = func() (Line, error, bool) {
		most = max(most, w.bytes)
		n++
		return Line{Time: now, ID: idOf(n), size: 1 << 20}, nil, n <= 1000
	}
	w.take(&audit.Record{ID: "d_0", Time: now})
	w.drain()
	if most > maxHeld || most < maxHeld/2 || w.bytes != 0 || len(w.held) != 0 || len(w.order) != 0 || w.unrecorded != 1000 {
		t.Errorf("up to %d bytes; in the end %d, %d, %d; %d without a record", most, w.bytes, len(w.held), len(w.order), w.unrecorded)
	}
}

func TestReportTexts(t *testing.T) {
	b := newReport()
	for i := range 7 {
		b.flip(idOf(i), allow(oldRe, "a"), deny(newRe, grants.Policy, "f"))
		b.add(result{flipped: true})
	}
	b.flip("d_\x1b[2J", allow(oldRe), deny(newRe, grants.Policy, "two words", "\u202e"))
	b.flip("d_9", deny(oldRe, grants.Policy), allow(newRe, "p"))
	b.add(result{})
	b.add(result{why: Redacted})
	b.cannot(NoInputs, 3)
	b.Counts.NotByPolicy = 4
	if err := b.by(newRe); err != nil {
		t.Fatal(err)
	}
	const want = `1 the same, 7 flipped, 4 not decided again
decided again by policy revision 0200000000000000000000000000000000000000000000000000000000000000
allow to deny:
       7  now forbidden by f (d_0, d_1, d_2, d_3, d_4)
       1  now forbidden by two words ("d_\x1b[2J")
       1  now forbidden by "\u202e" ("d_\x1b[2J")
deny to allow:
       1  now permitted by p (d_9)
not decided again:
       3  no inputs for it
       1  arguments were redacted
besides:
       4  records of what never reached policy
`
	r := b.done()
	if diff := cmp.Diff(want, r.String()); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || !cmp.Equal(r, back) {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = json.Marshal(newReport().done())
	if want := `{"counts":{"same":0,"flipped":0,"cannot":{}},"flips":[]}`; err != nil || string(text) != want {
		t.Errorf("%v\n%s", err, text)
	}
}
