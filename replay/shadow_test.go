package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

func newShadow(t *testing.T, c ShadowConfig) *Shadow {
	t.Helper()
	if c.File == "" {
		c.File = testPath(t)
	}
	s, err := NewShadow(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *Shadow) one(id string, in grants.Input, out grants.Decision) {
	s.Asked(id, []grants.Input{in}, []grants.Decision{out})
}

// run lets Run go on until all that waits is decided, and ends it.
func (s *Shadow) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	synctest.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func shadowLines(t *testing.T, s *Shadow) (all []ShadowLine) {
	t.Helper()
	f, err := os.Open(s.file.f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for line, err := range ReadShadow(f) {
		if err != nil {
			t.Error(err)
		}
		all = append(all, line)
	}
	return all
}

func summary(t *testing.T, s *Shadow) Report {
	t.Helper()
	f, err := os.Open(s.file.f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := Summarise(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestShadow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: says(map[string]grants.Decision{
			"call:bank/look": deny(newRe, grants.Policy, "f"), "grant": deny(newRe, grants.Policy, "g"), "ask_for": deny(newRe, grants.Policy, "g"),
		})})
		if fi, err := os.Stat(s.file.f.Name()); err != nil || fi.Mode() != 0o600 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
		asked := time.Now().UTC()
		grant := testGrant()
		grant.Requester = boss
		under := call(grant, parse(t, `{"body": {"iban": "CANARY"}}`))
		s.one("d_same", call(nil, nil), allow(oldRe, "a"))
		s.one("d_look", baseline("bank/look"), allow(oldRe, "a"))
		s.one("d_grant", under, allow(oldRe, "a"))
		s.one("d_half", under, allow(newRe, "a")) // asked again by the door, with the grant:
		s.Asked("d_half", append(testGrant().Asks(testTask(), now), under), []grants.Decision{deny(newRe, grants.Policy, "x"), allow(newRe)})
		s.one("d_server", grants.Input{Action: "mcp:ping", Requester: agent, Principal: agent, Server: "bank", Revision: "r", At: now}, deny(oldRe, grants.Policy))
		s.run(t)

		got := shadowLines(t, s)
		want := []ShadowLine{
			{ID: "d_look", Action: "call:bank/look", Tool: "bank/look", Live: allow(oldRe, "a"), Candidate: deny(newRe, grants.Policy, "f")},
			{ID: "d_grant", Action: "call:bank/pay", Tool: "bank/pay", Kind: "pay-bill", Live: allow(oldRe, "a"), Candidate: deny(newRe, grants.PolicyChanged, "g")},
			{ID: "d_server", Action: "mcp:ping", Tool: "bank", Live: deny(oldRe, grants.Policy), Candidate: allow(newRe, "any")},
		}
		for i := range want {
			want[i].Time, want[i].Agent = asked, "corp/agent"
		}
		want = append(want, ShadowLine{Time: asked, Counts: &Counts{Same: 2, Flipped: 3, Cannot: map[Why]int64{Dropped: 0, Failed: 0}}})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		same(t, summary(t, s), Report{Counts: Counts{Same: 2, Flipped: 3}, Flips: []Flip{
			{Change: ToDeny, Because: "its grant now forbidden by", Policy: "g", Count: 1, Examples: []string{"d_grant"}},
			{Change: ToDeny, Because: "now forbidden by", Policy: "f", Count: 1, Examples: []string{"d_look"}},
			{Change: ToAllow, Because: "now permitted by", Policy: "any", Count: 1, Examples: []string{"d_server"}},
		}})
		text, err := os.ReadFile(s.file.f.Name())
		if err != nil || bytes.Contains(text, []byte("CANARY")) {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// What does not fit into the queue is dropped and counted; the doors never wait.
func TestShadowNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: says(nil), Queue: 2})
		for i := range 5 { // nobody decides yet
			s.one(idOf(i), baseline("bank/look"), allow(oldRe))
		}
		s.run(t)
		if s.waiting.Load() != 0 {
			t.Errorf("%d bytes wait for nobody", s.waiting.Load())
		}
		same(t, summary(t, s), Report{Counts: Counts{Same: 2, Cannot: map[Why]int64{Dropped: 3}}})
		s.one("d_late", baseline("bank/look"), allow(oldRe))
		if len(s.jobs) != 0 {
			t.Error("queued after the end")
		}
	})
}

// The slices are the doors' again as soon as Asked has returned.
func TestShadowCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: says(map[string]grants.Decision{"other": deny(newRe, grants.Policy)})})
		in, out := []grants.Input{baseline("bank/look")}, []grants.Decision{allow(oldRe)}
		s.Asked("d_1", in, out)
		in[0].Action = "other"
		s.Asked("d_2", []grants.Input{baseline("bank/look")}, out)
		out[0] = deny(oldRe, grants.Policy)
		s.run(t)
		same(t, summary(t, s), Report{Counts: Counts{Same: 2}})
	})
}

// Arguments are a caller's to choose, so that their size bounds the queue as well.
func TestShadowQueueIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: says(nil)})
		big := map[string]any{strings.Repeat("n", 1<<20): []any{strings.Repeat("x", 15<<20)}}
		for i := range 10 {
			s.one(idOf(i), call(nil, big), allow(oldRe))
		}
		retry := baseline("bank/look")
		retry.Retry = &grants.Retry{Responses: strings.Repeat("x", 17<<20)}
		s.one("d_retry", retry, allow(oldRe))
		s.run(t)
		same(t, summary(t, s), Report{Counts: Counts{Same: 3, Cannot: map[Why]int64{Dropped: 8}}})
	})
}

func TestShadowCountsEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: says(nil), Queue: 1})
		s.one("d_0", baseline("bank/look"), allow(oldRe))
		s.one("d_dropped", baseline("bank/look"), allow(oldRe))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		s.one("d_1", baseline("bank/look"), allow(oldRe))
		time.Sleep(countEvery + time.Second)
		if got := shadowLines(t, s); len(got) != 1 || got[0].Counts == nil || got[0].Counts.Same != 2 {
			t.Errorf("%+v", got)
		}
		time.Sleep(3 * countEvery) // in which nothing happens
		s.one("d_2", baseline("bank/look"), allow(oldRe))
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := shadowLines(t, s); len(got) != 2 {
			t.Errorf("%+v", got)
		}
		same(t, summary(t, s), Report{Counts: Counts{Same: 3, Cannot: map[Why]int64{Dropped: 1}}})
	})
}

func TestShadowFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logs := logged(zap.WarnLevel)
		s := newShadow(t, ShadowConfig{Logger: logger, Decide: func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
			switch in[0].Action {
			case "start_task":
				return nil, errors.New("no")
			case "end_task":
				return nil, nil
			case "grant":
				return []grants.Decision{deny(newRe, grants.UnknownTool)}, nil
			}
			return []grants.Decision{deny(newRe, grants.Policy)}, nil
		}})
		in := baseline("bank/look")
		for _, action := range []string{"start_task", "end_task", "grant"} {
			in.Action = action
			s.one("d_1", in, allow(oldRe))
		}
		s.Asked("d_2", []grants.Input{in}, nil)
		// A difference that was found counts, whatever else fails.
		s.Asked("d_3", []grants.Input{in, baseline("bank/look")}, []grants.Decision{allow(oldRe), allow(oldRe)})
		s.run(t)
		r := summary(t, s)
		if r.Counts.Cannot[Failed] != 4 || r.Counts.Flipped != 1 || r.Counts.Same != 0 || len(r.Flips) != 1 {
			t.Errorf("%+v", r)
		}
		if logs.Len() != 1 {
			t.Errorf("%v", logs.All())
		}
	})
}

// A candidate that is still thinking when Run ends has not answered.
func TestShadowEndsAmidADecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
			<-ctx.Done()
			return says(nil)(context.Background(), in)
		}})
		for i := range 3 {
			s.one(idOf(i), baseline("bank/look"), allow(oldRe))
		}
		s.run(t)
		same(t, summary(t, s), Report{Counts: Counts{Cannot: map[Why]int64{Dropped: 3}}})
	})
}

// Differences end at the bound; that there were more is told.
func TestShadowBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{MaxBytes: 2000, Decide: says(map[string]grants.Decision{"call:bank/look": deny(newRe, grants.Policy)})})
		for i := range 20 {
			s.one(idOf(i), baseline("bank/look"), allow(oldRe))
		}
		s.run(t)
		r := summary(t, s)
		if c := r.Counts; c.Flipped != 20 || c.Unwritten == 0 || c.Unwritten+r.Flips[0].Count != 20 || s.Lost() != uint64(c.Unwritten) {
			t.Errorf("%+v, %d lost", r, s.Lost())
		}
	})
}

// Counts that could not be written are in the next line of counts.
func TestShadowCountsSurviveAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShadow(t, ShadowConfig{Decide: says(nil), Queue: 1})
		s.one("d_1", baseline("bank/look"), allow(oldRe))
		s.one("d_2", baseline("bank/look"), allow(oldRe))
		write := s.file.write
		s.file.write = func([]byte) (int, error) { return 0, syscall.ENOSPC }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(countEvery + time.Second)
		synctest.Wait()
		s.file.mu.Lock()
		s.file.write = write
		s.file.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		same(t, summary(t, s), Report{Counts: Counts{Same: 1, Cannot: map[Why]int64{Dropped: 1}}})
	})
}

func TestShadowConcurrent(t *testing.T) {
	s := newShadow(t, ShadowConfig{Decide: says(nil), Queue: 16})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	args := parse(t, `{"body": {"amount": 1}}`)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			in := []grants.Input{call(testGrant(), args)}
			out := []grants.Decision{allow(oldRe, "a")}
			for i := range 200 {
				s.Asked(fmt.Sprintf("d_%d_%d", w, i), in, out)
				in[0].At, out[0].Policies = now, nil
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c := summary(t, s).Counts; c.Same+c.Cannot[Dropped] != 1600 || c.Flipped != 0 {
		t.Errorf("%+v", c)
	}
}

func TestNewShadowRefuses(t *testing.T) {
	path := testPath(t)
	newShadow(t, ShadowConfig{File: path, Decide: says(nil)})
	for want, c := range map[string]ShadowConfig{
		"needs a candidate":   {File: testPath(t)},
		"a queue of -1":       {File: testPath(t), Decide: says(nil), Queue: -1},
		"a bound of -1 bytes": {File: testPath(t), Decide: says(nil), MaxBytes: -1},
		"another writer":      {File: path, Decide: says(nil)},
	} {
		if s, err := NewShadow(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, want …%s…", s, err, want)
		}
	}
}

func TestReadShadowRefuses(t *testing.T) {
	const (
		difference = `{"v":1,"time":"2026-01-02T03:04:05Z","id":"d","action":"grant","live":{"allow":true,"reason":"none","policies":[],"revision":""},"candidate":{"allow":false,"reason":"policy","policies":["f"],"revision":""}}`
		counts     = `{"v":1,"time":"2026-01-02T03:04:05Z","counts":{"same":1,"different":2,"dropped":3,"failed":4,"unwritten":5}}`
	)
	read := func(text string) error {
		for _, err := range ReadShadow(strings.NewReader(text + "\n")) {
			return err
		}
		return nil
	}
	for _, good := range []string{difference, counts} {
		if err := read(good); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{
		strings.Replace(difference, `"v":1`, `"v":2`, 1),
		strings.Replace(difference, `2026-01-02T03:04:05Z`, `0001-01-01T00:00:00Z`, 1),
		strings.Replace(difference, `"d"`, `""`, 1),
		strings.Replace(difference, `"live"`, `"life"`, 1),
		strings.Replace(difference, `"allow":true`, `"allow":false`, 1), // no difference: both deny by policy
		strings.Replace(counts, `"counts"`, `"id":"d","counts"`, 1),
		strings.Replace(counts, `"dropped":3`, `"dropped":-3`, 1),
		`{"v":1,"time":"2026-01-02T03:04:05Z"}`, `null`, `{}`, ``,
	} {
		if read(bad) == nil {
			t.Errorf("taken: %s", bad)
		}
	}
	r, err := Summarise(strings.NewReader(counts + "\nx\n" + counts + "\n" + difference + "\n" + `{"v":1`))
	if err != nil {
		t.Fatal(err)
	}
	same(t, r, Report{
		Counts: Counts{Same: 2, Flipped: 5, Unwritten: 10, TornInputs: 1, NotLines: 1, Cannot: map[Why]int64{Dropped: 6, Failed: 8}},
		Flips:  []Flip{{Change: ToDeny, Because: "now forbidden by", Policy: "f", Count: 1, Examples: []string{"d"}}},
	})
	if _, err := Summarise(iotest.ErrReader(errDisk)); !errors.Is(err, errDisk) {
		t.Errorf("a bad disk: %v", err)
	}
}

// Counts come once a minute; a difference is none the less one before that.
func TestSummariseCountsWhatIsNotCountedYet(t *testing.T) {
	const counts = `{"v":1,"time":"2026-01-02T03:04:05Z","counts":{"same":1,"different":1,"dropped":0,"failed":0,"unwritten":0}}` + "\n"
	difference := func(id string, second int) string {
		return fmt.Sprintf(`{"v":1,"time":"2026-01-02T03:04:%02dZ","id":%q,"action":"grant","live":{"allow":true,"reason":"none","policies":[],"revision":""},"candidate":{"allow":false,"reason":"policy","policies":["f"],"revision":""}}`+"\n", second, id)
	}
	for name, tc := range map[string]struct {
		text string
		want int64
	}{
		"before the first counts":         {difference("d_1", 1), 1},
		"two answers of one batch":        {difference("d_1", 1) + difference("d_1", 1), 1},
		"two batches of one decision":     {difference("d_1", 1) + difference("d_1", 2), 2},
		"two decisions at once":           {difference("d_1", 1) + difference("d_2", 1), 2},
		"counted":                         {difference("d_1", 1) + counts, 1},
		"behind counts":                   {difference("d_1", 1) + counts + difference("d_2", 2), 2},
		"the same batch behind counts":    {difference("d_1", 1) + counts + difference("d_1", 1), 2},
		"left by one that was killed":     {difference("d_1", 1) + difference("d_2", 2) + counts, 2},
		"counted, with one that was lost": {counts, 1},
	} {
		r, err := Summarise(strings.NewReader(tc.text))
		if err != nil || r.Flipped() != tc.want {
			t.Errorf("%s: %d flipped, %v; want %d", name, r.Flipped(), err, tc.want)
		}
	}
}

func TestSummariseOfAnotherFile(t *testing.T) {
	inputs := goodLine(t, "d_1", baseline("bank/look"), allow(oldRe))
	for name, text := range map[string]string{"inputs": inputs + inputs, "a text": "x", "a blank line": "\n"} {
		_, err := Summarise(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), "not a shadow's file") || !strings.Contains(err.Error(), "line 1: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := Summarise(strings.NewReader("")); err != nil || r.Flipped() != 0 {
		t.Errorf("an empty file, as a shadow has it at first: %+v, %v", r, err)
	}
	const counts = `{"v":1,"time":"2026-01-02T03:04:05Z","counts":{"same":1,"different":0,"dropped":0,"failed":0,"unwritten":0}}` + "\n"
	r, err := Summarise(strings.NewReader(inputs + counts))
	if err != nil || r.Counts.NotLines != 1 || strings.Contains(r.String(), "torn") || !strings.Contains(r.String(), "1  lines that are none of such a file") {
		t.Errorf("%v\n%s", err, r)
	}
}

// FuzzSummarise holds that whatever is in the file, the report has no empty group
// and is printable lines.
func FuzzSummarise(f *testing.F) {
	f.Add([]byte(`{"v":1,"time":"2026-01-02T03:04:05Z","id":"d","action":"grant","live":{"allow":true,"reason":"none","policies":["a"],"revision":""},"candidate":{"allow":false,"reason":"policy","policies":["f\u001b"],"revision":""}}` + "\n"))
	f.Add([]byte(`{"v":1,"time":"2026-01-02T03:04:05Z","counts":{"same":1,"different":2,"dropped":3,"failed":4,"unwritten":5}}` + "\n{}\ntorn"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Summarise(bytes.NewReader(text))
		if err != nil && len(r.Flips) > 0 {
			t.Fatal(err)
		}
		if len(r.Flips) > 0 && r.Flipped() < 1 {
			t.Error("flips, and none flipped")
		}
		for _, flip := range r.Flips {
			if flip.Count < 1 || len(flip.Examples) < 1 || len(flip.Examples) > maxExamples {
				t.Errorf("%+v", flip)
			}
		}
		for _, c := range r.String() {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Fatalf("%q is in the report:\n%q", c, r.String())
			}
		}
	})
}
