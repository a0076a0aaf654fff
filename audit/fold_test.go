package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
)

// stranger is the denial of a caller that nobody could verify.
func stranger(i int, source string) Record {
	return Record{
		ID: fmt.Sprintf("d_%d", i), Kind: KindCall, Tool: "reports/export", Source: source,
		Outcome: Deny, Reason: grants.BadCredential, Status: 401, Policies: []string{"p"}, Rev: "1.2", LatencyUS: 9, Note: "n",
	}
}

func mustAppendStrangers(t testing.TB, l *Log, n int, source string) {
	t.Helper()
	for i := range n {
		if err := l.Append(stranger(i, source)); err != nil {
			t.Fatal(err)
		}
	}
}

// decisions are the records but for the log's words about itself.
func decisions(t testing.TB, path string) (rs []Record) {
	t.Helper()
	for _, r := range readLog(t, path) {
		if r.Outcome != "" {
			rs = append(rs, r)
		}
	}
	return rs
}

func TestFold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testPath(t)
		l := openTest(t, path, FsyncNever)
		mustAppendStrangers(t, l, 10, "192.0.2.1")
		first := time.Now().UTC()
		time.Sleep(100 * time.Millisecond) // of the bubble
		for i := range 5 {
			r := stranger(100+i, "192.0.2.1")
			if i == 4 {
				r.Tool, r.Status = "reports/import", 400
			}
			if err := l.Append(r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		other := stranger(200, "192.0.2.1")
		other.Kind, other.Reason = "request", grants.NoCredential
		if err := l.Append(other); err != nil {
			t.Fatal(err)
		}
		mustAppendStrangers(t, l, 10, "192.0.2.2") // another source has its own share
		l.tick()
		if n := len(readLog(t, path)); n != 20 {
			t.Fatalf("%d lines before the second is over", n)
		}
		time.Sleep(time.Second)
		l.tick()

		got := readLog(t, path)[20:]
		at := first.Add(100 * time.Millisecond)
		want := []Record{
			{Time: at, ID: "d_100", Kind: KindCall, Source: "192.0.2.1", Outcome: Deny, Reason: grants.BadCredential, Count: 5,
				Note: "folded: denials without a verified identity, from " + at.Format(timeLayout) + " to " + at.Add(4*time.Millisecond).Format(timeLayout) + ", the first d_100"},
			{Time: at.Add(5 * time.Millisecond), ID: "d_200", Kind: "request", Tool: "reports/export", Source: "192.0.2.1", Outcome: Deny, Reason: grants.NoCredential, Status: 401, Count: 1},
		}
		if len(got) != len(want) {
			t.Fatalf("%d records of folds: %+v", len(got), got)
		}
		for i, w := range want {
			g := got[i]
			if g.ID != w.ID || !g.Time.Equal(w.Time) || g.Kind != w.Kind || g.Tool != w.Tool || g.Source != w.Source || g.Outcome != Deny ||
				g.Reason != w.Reason || g.Status != w.Status || g.Count != w.Count || g.Rev != "" || len(g.Policies) != 0 || g.LatencyUS != 0 {
				t.Errorf("got %+v\nwant %+v", g, w)
			}
			if w.Note != "" && g.Note != w.Note {
				t.Errorf("note %q\nwant %q", g.Note, w.Note)
			}
		}
		mustAppendStrangers(t, l, 10, "192.0.2.1") // another second
		if s := mustVerify(t, path, 32); s.Decisions != 36 {
			t.Errorf("%d decisions", s.Decisions)
		}
	})
}

// Whoever was verified, and whatever was allowed, stands in a line of its own.
func TestNotFolded(t *testing.T) {
	for name, edit := range map[string]func(*Record){
		"agent":     func(r *Record) { r.Agent = "corp/a" },
		"actor":     func(r *Record) { r.Actor = "corp/a" },
		"requester": func(r *Record) { r.Requester = "corp/a" },
		"client":    func(r *Record) { r.Client = "cli" },
		"limited":   func(r *Record) { r.Requester, r.Kind, r.Reason, r.Status = "corp/a", "request", grants.Limit, 429 },
		"allowed":   func(r *Record) { r.Outcome, r.Reason = Allow, grants.None },
	} {
		path := testPath(t)
		l := openTest(t, path, FsyncNever)
		for i := range 50 {
			r := stranger(i, "192.0.2.1")
			edit(&r)
			if err := l.Append(r); err != nil {
				t.Fatal(err)
			}
			if err := l.AppendAll([]Record{stranger(i, "192.0.2.1"), r}); err != nil { // nor what stands beside it
				t.Fatal(err)
			}
		}
		l.Close()
		mustVerify(t, path, 150)
		for _, r := range readLog(t, path) {
			if strings.HasPrefix(r.Note, "folded") {
				t.Errorf("%s: folded", name)
			}
		}
	}
}

// What is refused in a line of its own is refused in a fold.
func TestFoldChecksRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // all in one second
		l := openTest(t, testPath(t), FsyncNever)
		mustAppendStrangers(t, l, 20, "")
		for i, edit := range []func(*Record){
			func(r *Record) { r.ID = "" },
			func(r *Record) { r.Reason = grants.None },
			func(r *Record) { r.Reason = 255 },
			func(r *Record) { r.Count = 1 << 40 },
			func(r *Record) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		} {
			r := stranger(1, "")
			edit(&r)
			if l.Append(r) == nil {
				t.Errorf("edit %d: counted", i)
			}
		}
		if n := l.folds.sum(); n != 10 {
			t.Errorf("%d counted", n)
		}
	})
}

func TestFoldSource(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		"192.0.2.1":                              "192.0.2.1",
		"::ffff:192.0.2.1":                       "192.0.2.1",
		"2001:db8:0:1:2:3:4:5":                   "2001:db8:0:1::/64",
		"2001:db8:0:1::9":                        "2001:db8:0:1::/64",
		"fe80::1%eth0":                           "fe80::/64",
		"unix":                                   "unix",
		strings.Repeat("x", 3*MaxWord) + "-tail": strings.Repeat("x", MaxWord),
	} {
		if got := foldSource(in); got != want {
			t.Errorf("%s: %s; want %s", in, got, want)
		}
	}
}

func TestFoldIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testPath(t)
		l, err := Open(Config{File: path, Key: testKey, Fsync: FsyncNever, FoldAfter: 1})
		if err != nil {
			t.Fatal(err)
		}
		const sources, each = 3 * maxSources, 3
		for range each {
			for i := range sources {
				if err := l.Append(stranger(i, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))); err != nil {
					t.Fatal(err)
				}
			}
		}
		if w, c := len(l.folds.written), len(l.folds.counted); w > maxSources+1 || c > maxSources+1 {
			t.Errorf("%d sources, %d counts", w, c)
		}
		l.Close()
		rs := decisions(t, path)
		if n := len(rs); n > 2*(maxSources+1) {
			t.Errorf("%d lines", n)
		}
		var all, many int64
		for _, r := range rs {
			all += r.Count
			if r.Source == manySource {
				many += r.Count
			}
		}
		if all != sources*each || many < all/2 {
			t.Errorf("%d denials, %d of them of sources that are not told apart", all, many)
		}
	})
}

// A log that cannot be written counts nothing, and loses nothing that it has
// counted.
func TestFoldOnBadDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testPath(t)
		l := openTest(t, path, FsyncNever)
		d := (&badDisk{room: -1}).under(l)
		mustAppendStrangers(t, l, 15, "192.0.2.1")

		d.room = 30
		time.Sleep(2 * time.Second) // of the bubble
		l.tick()                    // finds out that the disk is full
		for i := range 20 {
			if err := l.Append(stranger(i, "192.0.2.1")); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("counted on a full disk: %v", err)
			}
			time.Sleep(200 * time.Millisecond)
			l.tick()
		}
		if l.Healthy() == nil {
			t.Error("healthy on a full disk")
		}
		mustVerify(t, path, 10)

		d.room = -1
		l.tick()
		mustAppendStrangers(t, l, 12, "192.0.2.1")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if s := mustVerify(t, path, 10+1+1+10+1); s.Decisions != 15+12 { // with "resumed" and two folds
			t.Errorf("%d decisions", s.Decisions)
		}
	})
}

// Of many counts some are written, then the disk is full: each is written once.
func TestFoldPartlyWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // all in one second
		path := testPath(t)
		l, err := Open(Config{File: path, Key: testKey, Fsync: FsyncNever, FoldAfter: 1})
		if err != nil {
			t.Fatal(err)
		}
		d := (&badDisk{room: -1}).under(l)
		const sources = 2*unfoldLines + 1
		for i := range 2 * sources {
			mustAppendStrangers(t, l, 1, fmt.Sprint("192.0.2.", i%sources))
		}
		write := l.write
		l.write = func(b []byte) (int, error) {
			n, err := write(b)
			d.room = 10 // for the next one
			return n, err
		}
		l.mu.Lock()
		err = l.unfoldLocked(time.Now(), true)
		l.mu.Unlock()
		if !errors.Is(err, syscall.ENOSPC) || l.folds.sum() != sources-unfoldLines {
			t.Errorf("%v, %d still to be written", err, l.folds.sum())
		}
		l.write, d.room = write, -1
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if s := mustVerify(t, path, 2*sources+1); s.Decisions != 2*sources { // with "resumed"
			t.Errorf("%d decisions of %d", s.Decisions, 2*sources)
		}
	})
}

// Nothing was counted yet, and nothing is from now on.
func TestFoldInFailedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, fail := range map[string]func(*Log, *badDisk){
			"full":   func(l *Log, d *badDisk) { d.room = 0; l.Append(testRecord(1)) },
			"moved":  func(l *Log, d *badDisk) { os.Rename(l.path, l.path+".1") },
			"closed": func(l *Log, d *badDisk) { l.Close() },
		} {
			l := openTest(t, testPath(t), FsyncNever)
			d := (&badDisk{room: -1}).under(l)
			mustAppendStrangers(t, l, 10, "192.0.2.1")
			fail(l, d)
			if err := l.Append(stranger(1, "192.0.2.1")); err == nil || l.folds.sum() != 0 {
				t.Errorf("%s: %v, %d counted", name, err, l.folds.sum())
			}
			if l.Healthy() == nil {
				t.Errorf("%s: healthy", name)
			}
		}
	})
}

func TestCloseSaysWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // all in one second
		l := openTest(t, testPath(t), FsyncNever)
		d := (&badDisk{room: -1}).under(l)
		mustAppendStrangers(t, l, 15, "192.0.2.1")
		d.room = 0
		if err := l.Close(); err == nil || !strings.Contains(err.Error(), "5 folded denials are not recorded") {
			t.Errorf("close: %v", err)
		}
		if err := l.Append(stranger(1, "")); !errors.Is(err, errClosed) {
			t.Errorf("append after close: %v", err)
		}
	})
}

// step is one thing that happens to a log: time, a tick, another disk, or a
// request.
type step struct {
	what    int
	pause   time.Duration
	room    int
	records []Record
}

func drawStep(t *rapid.T) step {
	s := step{what: rapid.IntRange(0, 9).Draw(t, "step")}
	switch s.what {
	case 0:
		s.pause = time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond
	case 1:
	case 2:
		s.room = rapid.SampledFrom([]int{-1, -1, 0, 700}).Draw(t, "room")
	default:
		s.records = make([]Record, rapid.IntRange(1, 3).Draw(t, "records"))
		source := rapid.SampledFrom([]string{"", "192.0.2.1", "2001:db8::1"}).Draw(t, "source")
		agent := rapid.SampledFrom([]string{"", "", "corp/a"}).Draw(t, "agent")
		why := rapid.SampledFrom([]grants.Reason{grants.NoCredential, grants.Malformed}).Draw(t, "reason")
		for i := range s.records {
			s.records[i] = stranger(i, source)
			s.records[i].Agent, s.records[i].Reason = agent, why
		}
	}
	return s
}

// Whatever comes, in whatever time, from a disk that fails now and then: the
// records stand for as many decisions as were answered with nil.
func TestCountsAreTheDecisions(t *testing.T) {
	outer, dir := t, t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		after := rapid.IntRange(1, 4).Draw(t, "after")
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 80).Draw(t, "steps")
		var err error // a property cannot fail in the bubble's goroutine
		synctest.Test(outer, func(*testing.T) {
			err = countsAreTheDecisions(dir+"/"+grants.NewID(""), after, steps)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func countsAreTheDecisions(path string, after int, steps []step) error {
	l, err := Open(Config{File: path, Key: testKey, Fsync: FsyncNever, FoldAfter: after})
	if err != nil {
		return err
	}
	defer os.Remove(path)
	l.sync = func() error { return nil } // Close would wait for the disk
	d := (&badDisk{room: -1}).under(l)
	want := 0
	for _, s := range steps {
		switch s.what {
		case 0:
			time.Sleep(s.pause) // of the bubble
		case 1:
			l.tick()
		case 2:
			d.room = s.room
		default:
			if l.AppendAll(s.records) == nil {
				want += len(s.records)
			}
		}
	}
	d.room = -1
	if err := l.Close(); err != nil {
		return err
	}
	log, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum, err := Verify(bytes.NewReader(log))
	if err != nil || sum.Decisions != uint64(want) {
		return fmt.Errorf("%d decisions on record, %d answered; %v", sum.Decisions, want, err)
	}
	lines := map[string]int{} // source and second -> lines of its own
	for r, err := range Read(bytes.NewReader(log)) {
		if err != nil {
			return err
		}
		if r.Outcome == Deny && r.Agent == "" && !strings.HasPrefix(r.Note, "folded") {
			at := r.Source + " " + r.Time.Format(time.DateTime)
			if lines[at]++; lines[at] > 2*after { // two of the log's seconds may meet in one of the clock's
				return fmt.Errorf("%d lines of %s", lines[at], at)
			}
		}
	}
	return nil
}

// A flood that is folded costs less than one that is written.
func BenchmarkAppendFolded(b *testing.B) {
	l := openTest(b, testPath(b), FsyncNever)
	r := stranger(1, "192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(r); err != nil {
			b.Fatal(err)
		}
	}
}
