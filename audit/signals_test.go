package audit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/toolgrant/toolgrant/grants"
)

var day = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

// observed are Signals whose lines are kept.
func observed(c SignalsConfig) (*Signals, *observer.ObservedLogs) {
	core, lines := observer.New(zapcore.InfoLevel)
	c.Logger = zap.New(core)
	return NewSignals(c), lines
}

func deniedCall(id int, agent, tool string, why grants.Reason, at time.Time) Record {
	return Record{ID: fmt.Sprintf("d_%d", id), Kind: KindCall, Agent: agent, Tool: tool, Outcome: Deny, Reason: why, Time: at}
}

// grantRequest is one for another agent than who asks.
func grantRequest(id int, requester, tool string, at time.Time) Record {
	return Record{ID: fmt.Sprintf("d_%d", id), Kind: grants.ActionGrant, Requester: requester, Agent: "corp/worker", Tool: tool, Outcome: Allow, Time: at}
}

func ids(from, to int) (list []any) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("d_%d", i))
	}
	return list
}

// mustTell takes the lines and compares level, start of the message, and the
// fields that are named.
func mustTell(t *testing.T, lines *observer.ObservedLogs, want ...map[string]any) {
	t.Helper()
	got := lines.TakeAll()
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(got), len(want), got)
	}
	for i, w := range want {
		fields := got[i].ContextMap()
		fields["level"], fields["message"] = got[i].Level.String(), got[i].Message
		for name, v := range w {
			if fmt.Sprint(fields[name]) != fmt.Sprint(v) {
				t.Errorf("line %d: %s is %v, want %v", i, name, fields[name], v)
			}
		}
	}
}

func TestOutsideWindow(t *testing.T) {
	want := map[grants.Reason]bool{
		grants.BadCredential: true, grants.ExpiredToken: true, grants.UnboundToken: true, grants.CredentialKind: true,
		grants.NoGrant: true, grants.UnknownGrant: true, grants.NotYet: true, grants.Expired: true, grants.Revoked: true,
		grants.TaskEnded: true, grants.Superseded: true, grants.PolicyChanged: true, grants.WrongTool: true, grants.ToolChanged: true,

		grants.Malformed: false, grants.Mismatch: false, grants.TooLarge: false, grants.Encoding: false, grants.UnknownTool: false,
		grants.Unrepresentable: false, grants.NoCredential: true, grants.Ambiguous: false, grants.ConstraintBroken: false,
		grants.UnknownSession: false, grants.BudgetSpent: true, grants.Policy: false, grants.PolicyError: false, grants.Manifest: false, grants.UnknownTask: false, grants.BadTTL: false,
		grants.BadRequest: false, grants.Conflict: false, grants.Limit: false, grants.NotFresh: false, grants.CannotRecord: false,
		grants.Undecided: false,
	}
	for _, why := range grants.Reasons() {
		w, ok := want[why]
		if !ok {
			t.Errorf("%s: nobody has decided whether this is outside", why)
		}
		if OutsideWindow(why) != w {
			t.Errorf("%s: %v", why, !w)
		}
		s, lines := observed(SignalsConfig{})
		for _, r := range []Record{
			deniedCall(1, "corp/a", "s/t", why, day),
			{ID: "d_2", Kind: grants.ActionRevoke, Outcome: Deny, Reason: why, Time: day}, // of the other door
		} {
			s.Observe([]Record{r})
		}
		if n := lines.Len(); (n == 1) != w || n > 1 {
			t.Errorf("%s: %d lines", why, n)
		}
	}
	if OutsideWindow(grants.None) {
		t.Error("an allowed call is outside")
	}
}

func TestOutsideLines(t *testing.T) {
	s, lines := observed(SignalsConfig{})
	at := func(sec float64) time.Time { return day.Add(time.Duration(sec * float64(time.Second))) }
	s.Observe([]Record{deniedCall(0, "corp/a", "s/t", grants.Expired, at(0))})
	mustTell(t, lines, map[string]any{"level": "warn", "message": "calls outside any window", "agent": "corp/a", "tool": "s/t", "reason": "expired", "count": 1, "decisions": ids(0, 1)})

	// Others, and at once.
	s.Observe([]Record{deniedCall(1, "", "s/t", grants.BadCredential, at(1)), deniedCall(2, "corp/a", "s/u", grants.Expired, at(1)), deniedCall(3, "corp/a", "s/t", grants.Revoked, at(1))})
	mustTell(t, lines, map[string]any{"agent": "", "count": 1}, map[string]any{"tool": "s/u", "count": 1}, map[string]any{"reason": "revoked", "count": 1})

	for i := range 30 {
		s.Observe([]Record{deniedCall(100+i, "corp/a", "s/t", grants.Expired, at(2+float64(i)/4))})
	}
	s.sweep(at(9.9), false)
	mustTell(t, lines)
	s.sweep(at(10), false)
	mustTell(t, lines, map[string]any{"count": 30, "decisions": ids(114, 130)})
	s.Observe([]Record{deniedCall(200, "corp/a", "s/t", grants.Expired, at(19.9))})
	mustTell(t, lines)
	s.Observe([]Record{deniedCall(201, "corp/a", "s/t", grants.Expired, at(20))})
	mustTell(t, lines, map[string]any{"count": 2, "decisions": ids(200, 202)})

	// A folded record, as a log that is read again has them.
	folded := deniedCall(300, "", "s/t", grants.BadCredential, at(40))
	folded.Count = 1000
	s.Observe([]Record{folded})
	mustTell(t, lines, map[string]any{"count": 1000, "decisions": ids(300, 301)})

	s.Observe([]Record{deniedCall(400, "corp/a", "s/t", grants.Expired, at(-3600))}) // the clock was set back
	mustTell(t, lines, map[string]any{"count": 1})

	s.sweep(at(100), false)
	if n := len(s.outside); n != 0 {
		t.Errorf("%d keys are kept that are quiet", n)
	}
}

// Calls at random: each is told once, none before its time.
func TestOutsideAtRandom(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		var hooked int
		s, lines := observed(SignalsConfig{OnOutside: func(tool string, why grants.Reason, n int) { hooked += n }})
		last := map[string]time.Time{}
		told, calls, at := 0, 0, day
		check := func(at time.Time, closing bool) {
			for _, line := range lines.TakeAll() {
				f := line.ContextMap()
				key := fmt.Sprint(f["agent"], f["tool"], f["reason"])
				n := int(f["count"].(int64))
				if got := len(f["decisions"].([]any)); got != min(n, maxIDs) {
					t.Errorf("seed %d: %d ids of %d", seed, got, n)
				}
				if before, ok := last[key]; ok && at.Sub(before) < outsideEvery && !closing {
					t.Errorf("seed %d: lines of %s after %v", seed, key, at.Sub(before))
				}
				last[key] = at
				told += n
			}
		}
		rate := []float64{0.02, 1, 50}[rnd.IntN(3)]
		for calls = range 1000 {
			at = at.Add(time.Duration(rnd.ExpFloat64() / rate * float64(time.Second)))
			s.Observe([]Record{deniedCall(calls, fmt.Sprint("corp/", rnd.IntN(3)), "s/t", []grants.Reason{grants.Expired, grants.NoGrant}[rnd.IntN(2)], at)})
			check(at, false)
			if rnd.IntN(3) == 0 {
				s.sweep(at, false)
				check(at, false)
			}
		}
		s.sweep(at, true)
		check(at, true)
		if told != 1000 || hooked != 1000 {
			t.Errorf("seed %d: %d told, %d hooked, of 1000", seed, told, hooked)
		}
	}
}

// The outside keys of a flood are bounded, and what is beyond shows by itself.
func TestOutsideFlood(t *testing.T) {
	s, lines := observed(SignalsConfig{})
	for i := range maxKeys + 500 {
		s.Observe([]Record{deniedCall(i, fmt.Sprint("corp/", i), "s/t", grants.Expired, day)})
	}
	if n := len(s.outside); n != maxKeys+1 {
		t.Errorf("%d keys", n)
	}
	many := lines.FilterField(zap.String("agent", manySource)).All()
	if len(many) != 1 || lines.Len() != maxKeys+1 {
		t.Fatalf("%d lines, %d of the overflow", lines.Len(), len(many))
	}
	lines.TakeAll()
	s.sweep(day.Add(outsideEvery), false)
	mustTell(t, lines, map[string]any{"agent": manySource, "tool": manySource, "reason": "expired", "count": 499})
	s.sweep(day.Add(2*outsideEvery), false)
	if n := len(s.outside); n != 0 {
		t.Errorf("%d keys are kept that are quiet", n)
	}
}

func TestSpikeLines(t *testing.T) {
	spikes := map[string]int{}
	s, lines := observed(SignalsConfig{GrantRequests: 20, OnSpike: func(tool string) { spikes[tool]++ }})
	at := func(sec int) time.Time { return day.Add(time.Duration(sec) * time.Second) }
	one := func(i, sec int) { s.Observe([]Record{grantRequest(i, "corp/a", "s/t", at(sec))}) }
	for i := range 20 {
		one(i, i)
	}
	mustTell(t, lines)
	denied := grantRequest(20, "corp/a", "s/t", at(20))
	denied.Outcome, denied.Reason = Deny, grants.Policy
	s.Observe([]Record{denied, grantRequest(99, "corp/a", "s/u", at(20)), grantRequest(98, "corp/b", "s/t", at(20))})
	mustTell(t, lines, map[string]any{"level": "warn", "message": "grant requests above the configured rate", "requester": "corp/a", "agents": []any{"corp/worker"}, "tool": "s/t", "count": 21,
		"within": 20 * time.Second, "limit": 20, "window": time.Minute, "decisions": ids(5, 21)})

	for i := 21; i < 80; i++ { // one a second, to the second 79
		one(i, i)
	}
	mustTell(t, lines)
	one(80, 80)
	mustTell(t, lines, map[string]any{"level": "warn", "message": "grant requests are still above the configured rate", "count": 60, "within": time.Minute, "decisions": ids(65, 81)})
	s.sweep(at(119), false) // after (59, 119] there are 21 in the window still
	mustTell(t, lines)
	s.sweep(at(120), false)
	mustTell(t, lines, map[string]any{"level": "info", "message": "grant requests are no longer above the configured rate", "count": 81, "within": 80 * time.Second})

	one(81, 121) // (61, 121] has 19 of them, and this
	mustTell(t, lines)
	one(82, 121)
	mustTell(t, lines, map[string]any{"level": "warn", "count": 21, "within": 59 * time.Second})
	one(83, 300) // nobody swept
	mustTell(t, lines, map[string]any{"level": "info", "count": 21})
	if spikes["s/t"] != 2 || len(spikes) != 1 {
		t.Errorf("spikes: %v", spikes)
	}
	s.sweep(at(400), false)
	if n := len(s.spikes); n != 0 {
		t.Errorf("%d keys are kept that are quiet", n)
	}
}

// Who asks without an identity has no spike; who asks for itself has, whichever
// member of the record names it.
func TestSpikeOfRequester(t *testing.T) {
	s, lines := observed(SignalsConfig{GrantRequests: 1})
	for i := range 10 {
		r := grantRequest(i, "", "s/t", day)
		r.Agent = ""
		s.Observe([]Record{r})
	}
	mustTell(t, lines)
	itself := func(id int, requester string) Record {
		r := grantRequest(id, requester, "", day)
		r.Agent = "corp/a"
		return r
	}
	s.Observe([]Record{itself(10, ""), itself(11, "corp/a")})
	mustTell(t, lines, map[string]any{"requester": "corp/a", "tool": "", "agents": nil})
}

// The agent that a grant is asked for is what the caller wrote. It raises no
// alarm in that agent's name, and many of them hide nobody.
func TestSpikeIsTheRequesters(t *testing.T) {
	ask := func(s *Signals, id int, requester, agent string) {
		r := grantRequest(id, requester, "s/t", day)
		r.Agent, r.Outcome, r.Reason = agent, Deny, grants.UnknownTask
		s.Observe([]Record{r})
	}
	s, lines := observed(SignalsConfig{})
	for i := range defaultGrantRequests + 2 {
		ask(s, i, "corp/nobody", "corp/victim")
	}
	mustTell(t, lines, map[string]any{"message": "grant requests above the configured rate", "requester": "corp/nobody", "agent": nil, "agents": []any{"corp/victim"}})
	ask(s, 100, "corp/victim", "corp/victim")
	mustTell(t, lines)

	s, lines = observed(SignalsConfig{})
	for i := range 31 {
		ask(s, 2*i, "corp/nobody", fmt.Sprint("corp/v", 2*i))
		if i < 15 { // and for itself
			ask(s, 2*i+1, "corp/nobody", "corp/nobody")
		}
	}
	// The 31st request is i = 15's.
	mustTell(t, lines, map[string]any{"requester": "corp/nobody", "count": 31, "agents": []any{manySource, "corp/v24", "corp/v26", "corp/v28", "corp/v30"}})

	// A few, by turns, are these few.
	s, lines = observed(SignalsConfig{GrantRequests: 8})
	for i := range 9 {
		ask(s, i, "corp/boss", fmt.Sprint("corp/w", i%maxAgents))
	}
	mustTell(t, lines, map[string]any{"requester": "corp/boss", "agents": []any{"corp/w1", "corp/w2", "corp/w3", "corp/w0"}})
}

// One name cannot use up the keys and so hide another; what it does with tools
// that are not told apart is counted together.
func TestOneNameCannotFillTheKeys(t *testing.T) {
	for limit, each := range map[int]int{30: keysEach, 1 << 30: maxStamps / (maxGrantRequests + 1) / leastNames} {
		s, lines := observed(SignalsConfig{GrantRequests: limit})
		for i := range 2 * maxKeys {
			s.Observe([]Record{grantRequest(i, "corp/nobody", fmt.Sprint("s/", i), day), deniedCall(i, "corp/nobody", fmt.Sprint("s/", i), grants.NoGrant, day)})
		}
		if n, m := len(s.spikes), len(s.outside); n != each+1 || m != keysEach+1 {
			t.Errorf("one name has %d and %d keys", n, m)
		}
		if n := lines.FilterField(zap.String("message", "grant requests by more requesters than are told apart")).Len(); n != 0 {
			t.Errorf("%d lines that there are many requesters", n)
		}
		outside := lines.FilterMessage("calls outside any window")
		if n, more := outside.Len(), outside.FilterField(zap.String("tool", manySource)); n != keysEach+1 || more.Len() != 1 || more.FilterField(zap.String("agent", "corp/nobody")).Len() != 1 {
			t.Errorf("%d lines of calls, %v of tools not told apart", n, more.All())
		}
		if spikes := lines.FilterMessage("grant requests above the configured rate").FilterField(zap.String("tool", manySource)); limit == 30 && spikes.Len() != 1 {
			t.Errorf("%d spikes over tools not told apart", spikes.Len())
		}
		lines.TakeAll()
		s.Observe([]Record{deniedCall(1, "corp/a", "s/t", grants.NoGrant, day)})
		mustTell(t, lines, map[string]any{"agent": "corp/a", "tool": "s/t"})
		for i := range min(limit, maxGrantRequests) + 1 {
			s.Observe([]Record{grantRequest(i, "corp/a", "s/t", day)})
		}
		mustTell(t, lines, map[string]any{"requester": "corp/a", "tool": "s/t"})

		// What is quiet gives its share back.
		s.sweep(day.Add(2*time.Minute), false)
		s.sweep(day.Add(4*time.Minute), false)
		if len(s.spikes)+len(s.outside)+len(s.askers)+len(s.callers) != 0 {
			t.Errorf("kept: %d and %d keys, of %v and %v", len(s.spikes), len(s.outside), s.askers, s.callers)
		}
	}
}

// A name stands in a line as in the log of records.
func TestSignalsEscape(t *testing.T) {
	const evil = "corp/\u009b2J\u202e\u2028\x1b\n\"\\é世"
	const shown = `corp/\u009b2J\u202e\u2028\u001b\u000a\"\\é世`
	s, lines := observed(SignalsConfig{GrantRequests: 1})
	for i := range 2 {
		r := grantRequest(i, evil, evil, day)
		r.Agent = evil + "2"
		s.Observe([]Record{r})
	}
	s.Observe([]Record{deniedCall(2, evil, evil, grants.NoGrant, day)})
	mustTell(t, lines, map[string]any{"requester": shown, "tool": shown, "agents": []any{shown + "2"}}, map[string]any{"agent": shown, "tool": shown})
}

// A record that others have overtaken stands where its time is.
func TestSpikeLateRecord(t *testing.T) {
	s, lines := observed(SignalsConfig{GrantRequests: 2})
	at := func(i, sec int) {
		s.Observe([]Record{grantRequest(i, "corp/a", "s/t", day.Add(time.Duration(sec)*time.Second))})
	}
	at(0, 10)
	at(1, 0)
	at(2, 68)
	mustTell(t, lines)
	at(3, 12) // 10, 12 and 68
	mustTell(t, lines, map[string]any{"level": "warn", "count": 3, "within": 58 * time.Second, "decisions": ids(0, 4)})
	at(4, 9) // older than all that matter
	s.sweep(day.Add(69*time.Second), false)
	mustTell(t, lines)
	s.sweep(day.Add(70*time.Second), false)
	mustTell(t, lines, map[string]any{"level": "info", "count": 4})
}

func TestSpikeClockSetBack(t *testing.T) {
	s, lines := observed(SignalsConfig{GrantRequests: 2})
	burst := func(from int, at time.Time) {
		for i := range 3 {
			s.Observe([]Record{grantRequest(from+i, "corp/a", "s/t", at)})
		}
	}
	burst(0, day)
	mustTell(t, lines, map[string]any{"level": "warn"})
	burst(10, day.Add(-time.Hour))
	mustTell(t, lines, map[string]any{"level": "info"}, map[string]any{"level": "warn", "count": 3, "decisions": ids(10, 13)})
	s.sweep(day.Add(-2*time.Hour), false)
	mustTell(t, lines, map[string]any{"level": "info"})
	if n := len(s.spikes); n != 0 {
		t.Errorf("%d keys are kept from a time to come", n)
	}
}

// arrivals of a Poisson process for some ten windows, on a grid that makes some
// of them coincide.
func arrivals(rnd *rand.Rand, perWindow float64, window time.Duration) (times []time.Time) {
	grid := window / time.Duration(1+rnd.IntN(2000))
	for at := time.Duration(0); at < 10*window && len(times) < 2000; {
		at += time.Duration(rnd.ExpFloat64() / perWindow * float64(window))
		times = append(times, day.Add(at.Truncate(grid)))
	}
	return times
}

// within counts the requests in [from, to], each end with or without itself.
func within(times []time.Time, from time.Time, fromToo bool, to time.Time, toToo bool) (n int) {
	for _, t := range times {
		if (t.After(from) || fromToo && t.Equal(from)) && (t.Before(to) || toToo && t.Equal(to)) {
			n++
		}
	}
	return n
}

// The rule as it is written, counted the long way: a spike begins at an instant
// whose window has more than limit requests, if just before it had not.
func beginsAt(times []time.Time, at time.Time, limit int, window time.Duration) bool {
	return within(times, at.Add(-window), false, at, true) > limit && within(times, at.Add(-window), true, at, false) <= limit
}

// The generator knows nothing of the detector: several agents ask at several
// rates, some below, some at, some above the limit. Neither false alarms nor
// misses are allowed, at any instant.
func TestSpikeIsTheRule(t *testing.T) {
	silent, loud := 0, 0
	for range 40 {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 1))
		limit, window := 1+rnd.IntN(30), time.Duration(1+rnd.IntN(120))*time.Second
		type request struct {
			agent string
			at    time.Time
		}
		of := map[string][]time.Time{}
		var all []request
		for i, load := range []float64{0.2, 0.6, 0.9, 1, 1.1, 3} {
			agent := fmt.Sprint("corp/", i)
			of[agent] = arrivals(rnd, load*float64(limit), window)
			for _, at := range of[agent] {
				all = append(all, request{agent, at})
			}
		}
		slices.SortStableFunc(all, func(a, b request) int { return a.at.Compare(b.at) })

		s, lines := observed(SignalsConfig{GrantRequests: limit, Window: window})
		began, over := map[string]int{}, map[string]int{}
		take := func() {
			for _, line := range lines.TakeAll() {
				agent := line.ContextMap()["requester"].(string)
				switch {
				case line.Level == zapcore.InfoLevel:
					over[agent]++
				case !strings.Contains(line.Message, "still"):
					began[agent]++
				}
			}
		}
		for i, r := range all {
			if rnd.IntN(4) == 0 { // that somebody looks changes nothing
				s.sweep(r.at.Add(-1), false)
			}
			before := began[r.agent]
			s.Observe([]Record{grantRequest(i, r.agent, "s/t", r.at)})
			take()
			first := i == 0 || !slices.ContainsFunc(all[:i], func(o request) bool { return o == r })
			last := !slices.Contains(all[i+1:], r)
			if first && last { // else the instant has several, and the sum below judges it
				if got, want := began[r.agent] > before, beginsAt(of[r.agent], r.at, limit, window); got != want {
					t.Fatalf("seed %d, %d in %v, %s at %v: signal %v, rule %v", seed, limit, window, r.agent, r.at.Sub(day), got, want)
				}
			}
		}
		s.sweep(all[len(all)-1].at.Add(window), false)
		take()
		for agent, times := range of {
			want := 0
			for i, at := range times {
				if (i == 0 || !at.Equal(times[i-1])) && beginsAt(times, at, limit, window) {
					want++
				}
			}
			if began[agent] != want || over[agent] != want {
				t.Errorf("seed %d, %d in %v, %s: %d spikes begun, %d over; the rule has %d", seed, limit, window, agent, began[agent], over[agent], want)
			}
			if want > 0 {
				loud++
			} else {
				silent++
			}
		}
	}
	if silent < 20 || loud < 20 {
		t.Errorf("%d agents without and %d with a spike: this shows little", silent, loud)
	}
}

// Records that overtake each other by less than late: no false alarm, and no
// miss of what is within a window that is shorter by that.
func TestSpikeOutOfOrder(t *testing.T) {
	silent, loud := 0, 0
	for range 200 {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 2))
		const limit, window, late = 10, time.Minute, time.Second
		times := arrivals(rnd, limit*(0.3+rnd.Float64()), window)
		came := make([]time.Time, len(times))
		for i, at := range times {
			came[i] = at.Add(time.Duration(rnd.Int64N(int64(late))))
		}
		order := make([]int, len(times))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return came[a].Compare(came[b]) })
		s, lines := observed(SignalsConfig{GrantRequests: limit, Window: window})
		for _, i := range order {
			s.Observe([]Record{grantRequest(i, "corp/a", "s/t", times[i])})
		}
		signal := lines.FilterMessage("grant requests above the configured rate").Len() > 0
		most := func(window time.Duration) (n int) {
			for _, at := range times {
				n = max(n, within(times, at.Add(-window), false, at, true))
			}
			return n
		}
		if signal && most(window) <= limit || !signal && most(window-late) > limit {
			t.Errorf("seed %d: signal %v, at most %d in a window, %d in the shorter", seed, signal, most(window), most(window-late))
		}
		if signal {
			loud++
		} else {
			silent++
		}
	}
	if silent < 10 || loud < 10 {
		t.Errorf("%d without and %d with a spike: this shows little", silent, loud)
	}
}

func TestSpikeFlood(t *testing.T) {
	for limit, keys := range map[int]int{30: maxKeys, 1 << 30: maxStamps / (maxGrantRequests + 1)} {
		var spilt int
		s, lines := observed(SignalsConfig{GrantRequests: limit, OnSpike: func(tool string) {
			if tool == manySource {
				spilt++
			}
		}})
		for i := range keys + 7 {
			s.Observe([]Record{grantRequest(i, fmt.Sprint("corp/", i), "s/t", day)})
		}
		if n := len(s.spikes); n != keys {
			t.Errorf("%d keys, want %d", n, keys)
		}
		mustTell(t, lines, map[string]any{"level": "warn", "requester": manySource, "tool": manySource, "count": 1, "decisions": ids(keys, keys+1)})
		s.sweep(day.Add(59*time.Second), false)
		mustTell(t, lines)
		s.sweep(day.Add(time.Minute), false)
		mustTell(t, lines, map[string]any{"requester": manySource, "count": 6, "decisions": ids(keys+1, keys+7)})
		if spilt != 2 {
			t.Errorf("%d spikes of the overflow", spilt)
		}
		if n := len(s.spikes); n != 0 {
			t.Errorf("%d keys are kept that are quiet", n)
		}
	}
}

// A key holds no more than so many times, ids and agents, however many come.
func TestSpikeKeyIsBounded(t *testing.T) {
	s, _ := observed(SignalsConfig{GrantRequests: 5})
	long := "corp/" + strings.Repeat("x", 10*MaxID)
	for i := range 10_000 {
		r := grantRequest(i, long, long, day.Add(time.Duration(i)*time.Millisecond))
		r.Agent = fmt.Sprint("corp/", i, long)
		s.Observe([]Record{r, deniedCall(i, long, long, grants.Expired, day)})
	}
	for key, q := range s.spikes {
		if len(q.times) != 6 || len(q.ids) != maxIDs || cap(q.ids) > 2*maxIDs || len(key.requester) != MaxID || len(key.tool) != MaxID {
			t.Errorf("%d times, %d ids (of %d), requester of %d bytes, tool of %d", len(q.times), len(q.ids), cap(q.ids), len(key.requester), len(key.tool))
		}
		if len(q.agents) != maxAgents || cap(q.agents) > 2*maxAgents || len(q.agents[0]) != MaxID {
			t.Errorf("%d agents (of %d) of %d bytes", len(q.agents), cap(q.agents), len(q.agents[0]))
		}
	}
	for key, n := range s.outside {
		if len(n.ids) != maxIDs || cap(n.ids) > 2*maxIDs || len(key.agent) != MaxID || len(key.tool) != MaxID {
			t.Errorf("%d ids (of %d), agent of %d bytes, tool of %d", len(n.ids), cap(n.ids), len(key.agent), len(key.tool))
		}
	}
	if len(s.spikes) != 1 || len(s.outside) != 1 {
		t.Errorf("%d and %d keys", len(s.spikes), len(s.outside))
	}
}

func TestSignalsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, lines := observed(SignalsConfig{GrantRequests: 1})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		for i := range 3 { // without a time of their own: now
			s.Observe([]Record{deniedCall(i, "corp/a", "s/t", grants.Expired, time.Time{}), grantRequest(i, "corp/a", "s/t", time.Time{})})
		}
		mustTell(t, lines, map[string]any{"message": "calls outside any window", "count": 1}, map[string]any{"message": "grant requests above the configured rate"})
		time.Sleep(outsideEvery + 2*sweepEvery) // of the bubble
		mustTell(t, lines, map[string]any{"message": "calls outside any window", "count": 2})
		time.Sleep(time.Minute)
		mustTell(t, lines, map[string]any{"level": "info", "count": 3})
		if len(s.outside)+len(s.spikes) != 0 {
			t.Error("quiet keys are kept")
		}
		s.Observe([]Record{deniedCall(7, "corp/a", "s/t", grants.Expired, time.Now()), deniedCall(8, "corp/a", "s/t", grants.Expired, time.Now())})
		lines.TakeAll()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		mustTell(t, lines, map[string]any{"count": 1, "decisions": ids(8, 9)})
	})
}

func TestSignalsConcurrently(t *testing.T) {
	const workers, each = 8, 500
	var mu sync.Mutex
	hooked := 0
	s, lines := observed(SignalsConfig{OnOutside: func(string, grants.Reason, int) {
		mu.Lock()
		defer mu.Unlock()
		hooked++
	}})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				at := day.Add(time.Duration(i) * 100 * time.Millisecond)
				s.Observe([]Record{deniedCall(i, fmt.Sprint("corp/", w%3), "s/t", grants.Expired, at), grantRequest(i, fmt.Sprint("corp/", w%3), "s/t", at)})
				if i%50 == 0 {
					s.sweep(at, false)
				}
			}
		})
	}
	wg.Wait()
	s.sweep(day.Add(time.Hour), true)
	var told int64
	for _, line := range lines.FilterMessage("calls outside any window").All() {
		told += line.ContextMap()["count"].(int64)
	}
	if told != workers*each || hooked != workers*each {
		t.Errorf("%d told, %d hooked, of %d", told, hooked, workers*each)
	}
}

func BenchmarkObserve(b *testing.B) {
	for name, r := range map[string]Record{
		"allowed":  {ID: "d_1", Kind: KindCall, Agent: "corp/a", Tool: "s/t", Outcome: Allow, Time: day},
		"outside":  deniedCall(1, "corp/a", "s/t", grants.Expired, day),
		"requests": grantRequest(1, "corp/a", "s/t", day),
	} {
		b.Run(name, func(b *testing.B) {
			s := NewSignals(SignalsConfig{})
			rs := []Record{r}
			b.ReportAllocs()
			for b.Loop() {
				rs[0].Time = rs[0].Time.Add(time.Second)
				s.Observe(rs)
			}
		})
	}
}
