package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

var testKey = bytes.Repeat([]byte{7}, keySize)

func openTest(t testing.TB, path, fsync string) *Log {
	t.Helper()
	l, err := Open(Config{File: path, Fsync: fsync, Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func testPath(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.jsonl") }

func testRecord(i int) Record {
	return Record{
		ID: fmt.Sprintf("d_%d", i), Kind: "call", Agent: "corp/agent", Actor: "corp/sub", Requester: "corp/boss",
		Client: "cli", Tool: "reports/export", Task: "t_1", Grant: "g_1", Source: "192.0.2.1", Outcome: Deny, Reason: grants.BudgetSpent,
		Status: 403, Policies: []string{"a", "b"}, Revision: grants.Digest{1}, Rev: "1.2", Args: "00ff", Count: 1, LatencyUS: 17, Note: "n",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
	}
}

func mustAppend(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(testRecord(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func mustVerify(t testing.TB, path string, lines int) Summary {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Verify(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if s.Lines != uint64(lines) || bytes.Count(b, []byte("\n")) != lines {
		t.Fatalf("%d lines verified, %d newlines; want %d", s.Lines, bytes.Count(b, []byte("\n")), lines)
	}
	return s
}

func readLog(t testing.TB, path string) []Record {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []Record
	for line := range bytes.Lines(b) {
		var r Record
		if err := json.Unmarshal(line, &r, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

// The line is written by hand and read by reflection: each holds the other.
func TestRecordComesBack(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	want := testRecord(1)
	want.Time = want.Time.In(time.FixedZone("", 3600))
	if err := l.Append(want); err != nil {
		t.Fatal(err)
	}
	got := readLog(t, path)
	if len(got) != 1 || len(got[0].Sum) != 64 {
		t.Fatalf("got %+v", got)
	}
	want.Seq, want.Prev, want.Sum = 1, noPrev, got[0].Sum
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
	line, _ := os.ReadFile(path)
	inOrder, err := json.Marshal(got[0])
	if err != nil {
		t.Fatal(err)
	}
	// encoding/json writes the time in another width; the rest must be equal.
	inOrder = bytes.Replace(inOrder, []byte(want.Time.UTC().Format(time.RFC3339Nano)), []byte(want.Time.UTC().Format(timeLayout)), 1)
	if diff := cmp.Diff(string(inOrder)+"\n", string(line)); diff != "" {
		t.Error(diff)
	}
}

func TestAppendStampsTheTime(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	before := time.Now().Truncate(time.Microsecond)
	r := testRecord(1)
	r.Time = time.Time{}
	if err := l.Append(r); err != nil {
		t.Fatal(err)
	}
	if got := readLog(t, path)[0].Time; got.Before(before) || got.After(time.Now()) {
		t.Errorf("time %v", got)
	}
}

func TestAppendRefusesContradictions(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	for name, edit := range map[string]func(*Record){
		"no id":               func(r *Record) { r.ID = "" },
		"no kind":             func(r *Record) { r.Kind = "" },
		"no outcome":          func(r *Record) { r.Outcome = "" },
		"other outcome":       func(r *Record) { r.Outcome = "maybe" },
		"allow with reason":   func(r *Record) { r.Outcome = Allow },
		"deny without reason": func(r *Record) { r.Reason = grants.None },
		"reason not in set":   func(r *Record) { r.Reason = 255 },
		"folded by a door":    func(r *Record) { r.Count = 2 },
		"less than none":      func(r *Record) { r.Count = -1 },
		"year 10000":          func(r *Record) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		r := testRecord(1)
		edit(&r)
		if err := l.Append(r); err == nil {
			t.Errorf("%s: appended", name)
		}
	}
	mustAppend(t, l, 1)
	mustVerify(t, path, 1) // nothing of the others, and no seq gone
}

func TestCountIsAtLeastOne(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	r := testRecord(1)
	r.Count = 0
	if err := l.Append(r); err != nil {
		t.Fatal(err)
	}
	if got := readLog(t, path)[0].Count; got != 1 {
		t.Errorf("count %d", got)
	}
}

func TestAppendAll(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, FsyncAlways)
	d := (&badDisk{room: -1}).under(l)
	mustAppend(t, l, 1)
	d.writes = 0
	if err := l.AppendAll([]Record{testRecord(1), longRecord(), testRecord(3)}); err != nil {
		t.Fatal(err)
	}
	if d.writes != 1 || d.syncs.Load() != 2 {
		t.Errorf("%d writes, %d syncs with that of the first record", d.writes, d.syncs.Load())
	}
	mustAppend(t, l, 1)
	mustVerify(t, path, 5)
	if got := readLog(t, path); got[1].ID != "d_1" || got[3].ID != "d_3" {
		t.Errorf("in another order: %+v", got)
	}
}

func TestAppendAllOrNothing(t *testing.T) {
	request := []Record{testRecord(7), testRecord(8), testRecord(9)}
	invalid := slices.Clone(request)
	invalid[2].ID = ""
	type failure struct {
		records []Record
		disk    *badDisk
	}
	failures := map[string]failure{
		"no record":     {nil, &badDisk{room: -1}},
		"one invalid":   {invalid, &badDisk{room: -1}},
		"fsync":         {request, &badDisk{room: -1, noSync: true}},
		"quietly short": {request, &badDisk{room: 1000, quiet: true}},
	}
	line := len(testLog(t, 1)[0])
	for _, room := range []int{0, 1, line - 1, line, line + 1, 2 * line, 5 * line / 2, 3*line - 1} {
		failures[fmt.Sprintf("room for %d bytes", room)] = failure{request, &badDisk{room: room}}
	}
	for name, c := range failures {
		path := testPath(t)
		l := openTest(t, path, FsyncAlways)
		mustAppend(t, l, 1)
		before, _ := os.ReadFile(path)
		d := c.disk.under(l)
		if err := l.AppendAll(c.records); err == nil {
			t.Errorf("%s: recorded", name)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
			t.Errorf("%s: left %q", name, after[len(before):])
		}
		failed := l.Healthy() != nil
		d.room, d.noSync = -1, false
		mustAppend(t, l, 1)
		got := readLog(t, path)
		if resumed := len(got) == 3 && strings.HasPrefix(got[1].Note, "3 records were refused"); resumed != failed {
			t.Errorf("%s: resumed with %+v", name, got[1:])
		}
		mustVerify(t, path, len(got)) // no seq gone
	}
}

func TestConcurrentAppends(t *testing.T) {
	const writers, each = 16, 50
	path := testPath(t)
	l := openTest(t, path, "")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				r := testRecord(w*each + i)
				r.Args = l.Digest([]byte(r.ID))
				second := r
				second.Kind = "second"
				if err := l.AppendAll([]Record{r, second}); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					l.tick()
				}
			}
		})
	}
	wg.Wait()
	mustVerify(t, path, 2*writers*each)
	seen := map[string]bool{}
	all := readLog(t, path)
	for i, r := range all {
		seen[r.ID] = true
		if r.ID != all[i&^1].ID || (r.Kind == "second") != (i&1 == 1) {
			t.Errorf("line %d stands apart from its request's other", i+1)
		}
		if r.Args != l.Digest([]byte(r.ID)) {
			t.Errorf("%s holds another's arguments", r.ID)
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d different ids of %d", len(seen), writers*each)
	}
}

func TestChainContinuesOverRestart(t *testing.T) {
	path := testPath(t)
	lines := 0
	for _, n := range []int{0, 1, 0, 5, 40} { // also after none, one, and more than the tail that is read
		l, err := Open(Config{File: path, Key: testKey})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, n)
		lines += n
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		mustVerify(t, path, lines)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestLongestLinesOverRestart(t *testing.T) {
	path := testPath(t)
	for range 3 {
		l, err := Open(Config{File: path, Key: testKey})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(longRecord()); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	mustVerify(t, path, 3)
}

func TestSecondWriterIsRefused(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	if _, err := Open(Config{File: path, Key: testKey}); err == nil || !strings.Contains(err.Error(), "another writer") {
		t.Fatalf("second writer: %v", err)
	}
	mustAppend(t, l, 1)
	l.Close()
	openTest(t, path, "")
}

func TestClosed(t *testing.T) {
	l := openTest(t, testPath(t), "")
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	l.tick()
	if err := l.Append(testRecord(1)); !errors.Is(err, errClosed) {
		t.Errorf("append: %v", err)
	}
	if err := l.Healthy(); !errors.Is(err, errClosed) {
		t.Errorf("healthy: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := testPath(t)
	l := openTest(t, good, "")
	mustAppend(t, l, 3)
	l.Close()
	log, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	second := log[bytes.IndexByte(log, '\n')+1:]
	second = second[:bytes.IndexByte(second, '\n')+1]
	third := bytes.TrimSuffix(log[bytes.LastIndexByte(log[:len(log)-1], '\n')+1:], []byte("\n"))
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}

	file := func(s string) string {
		path := testPath(t)
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := file("")
	if err := os.Chmod(open, 0o620); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		Config
		want string
	}{
		"short key":          {Config{File: good, Key: testKey[1:]}, "key"},
		"zero key":           {Config{File: good, Key: make([]byte, keySize)}, "key"},
		"fsync":              {Config{File: good, Key: testKey, Fsync: "sometimes"}, "fsync"},
		"fold":               {Config{File: good, Key: testKey, FoldAfter: -1}, "folding"},
		"no directory":       {Config{File: filepath.Join(good, "x"), Key: testKey}, "not a directory"},
		"device":             {Config{File: os.DevNull, Key: testKey}, "not a regular file"},
		"pipe":               {Config{File: fifo, Key: testKey}, "not a regular file"},
		"others write":       {Config{File: open, Key: testKey}, "lets others write"},
		"other text":         {Config{File: file("root:x:0:0\n"), Key: testKey}, "not one of this log"},
		"text, no newline":   {Config{File: file("root:x:0:0"), Key: testKey}, "not a torn line"},
		"changed last line":  {Config{File: file(strings.TrimSuffix(string(log), "\n") + " \n"), Key: testKey}, "not one of this log"},
		"empty last line":    {Config{File: file(string(log) + "\n"), Key: testKey}, "not one of this log"},
		"other tail":         {Config{File: file(string(log) + "oops"), Key: testKey}, "not a torn line"},
		"tail of another":    {Config{File: file(string(log) + string(log[:40])), Key: testKey}, "not a torn line"},
		"first line is gone": {Config{File: file(string(second)), Key: testKey}, "only line has seq 2"},
		"endless line":       {Config{File: file(strings.Repeat("x", 3*MaxLine)), Key: testKey}, "not a torn line"},
		"endless torn line":  {Config{File: file(string(log) + string(appendHead(nil, 4, hexSum(third))) + strings.Repeat("x", MaxLine)), Key: testKey}, "not a torn line"},
		"endless line + nl":  {Config{File: file(strings.Repeat("x", 3*MaxLine) + "\n"), Key: testKey}, "longer than"},
	} {
		var before []byte
		if c.File != fifo { // reading one waits for a writer
			before, _ = os.ReadFile(c.File)
		}
		l, err := Open(c.Config)
		if err == nil {
			l.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", name, err, c.want)
		}
		if before == nil {
			continue
		}
		if after, _ := os.ReadFile(c.File); !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A crash may stop a line anywhere.
func TestTornTail(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	mustAppend(t, l, 3)
	l.Close()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := 0
	for whole, line := range bytes.SplitAfter(log, []byte("\n")) {
		for n := 1; n < len(line)-1; n += 1 + n/16 { // closest where the head is looked at
			tornTail(t, log[:start], line[:n], whole)
		}
		if len(line) > 0 {
			tornTail(t, log[:start], line[:len(line)-1], whole) // all but the newline
		}
		start += len(line)
	}
	tornTail(t, log, make([]byte, 4096), 3) // a block that never reached the disk
}

func tornTail(t *testing.T, whole, torn []byte, lines int) {
	t.Helper()
	path := testPath(t)
	if err := os.WriteFile(path, append(bytes.Clone(whole), torn...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".torn-1", []byte("of earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Config{File: path, Key: testKey, Fsync: FsyncNever})
	if err != nil {
		t.Fatalf("torn after %d bytes of line %d: %v", len(torn), lines+1, err)
	}
	mustAppend(t, l, 1)
	l.Close()
	mustVerify(t, path, lines+2)
	if log, _ := os.ReadFile(path); !bytes.HasPrefix(log, whole) {
		t.Fatal("whole lines were changed")
	}
	r := readLog(t, path)[lines]
	if r.Kind != KindRecovered || !strings.Contains(r.Note, hexSum(torn)) || !strings.Contains(r.Note, "audit.jsonl.torn-2") {
		t.Fatalf("record of the recovery: %+v", r)
	}
	if saved, err := os.ReadFile(path + ".torn-2"); err != nil || !bytes.Equal(saved, torn) {
		t.Fatalf("saved %q, %v; want %q", saved, err, torn)
	}
	if earlier, _ := os.ReadFile(path + ".torn-1"); string(earlier) != "of earlier" {
		t.Fatal("an earlier torn line was overwritten")
	}
	if fi, _ := os.Stat(path + ".torn-2"); fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v", fi.Mode())
	}
}

// badDisk does to a Log what a disk does; the file under it is real.
type badDisk struct {
	room               int // bytes that can still be written; -1: no end
	noTruncate, noSync bool
	quiet              bool // says nothing of what it leaves out
	writes             int
	syncs              atomic.Int64
}

var errDisk = errors.New("no luck with this disk")

func (d *badDisk) under(l *Log) *badDisk {
	write, truncate, sync := l.write, l.truncate, l.sync
	l.write = func(b []byte) (int, error) {
		d.writes++
		if d.room < 0 || d.room >= len(b) {
			return write(b)
		}
		n, err := write(b[:d.room])
		if d.quiet {
			return n, err
		}
		return n, errors.Join(err, syscall.ENOSPC)
	}
	l.truncate = func(n int64) error {
		if d.noTruncate {
			return errDisk
		}
		return truncate(n)
	}
	l.sync = func() error {
		d.syncs.Add(1)
		if d.noSync {
			return errDisk
		}
		return sync()
	}
	return d
}

func TestShortWriteIsTakenBack(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	d := (&badDisk{room: -1}).under(l)
	mustAppend(t, l, 2)
	d.room, d.quiet = 100, true
	if err := l.Append(testRecord(9)); !errors.Is(err, io.ErrShortWrite) {
		t.Fatal(err)
	}
	mustVerify(t, path, 2)
	d.quiet = false
	for _, room := range []int{100, 0} {
		d.room = room
		if err := l.Append(testRecord(9)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room %d: %v", room, err)
		}
		mustVerify(t, path, 2)
		if l.Healthy() == nil {
			t.Error("healthy without room")
		}
	}
	d.room = -1
	mustAppend(t, l, 1)
	if err := l.Healthy(); err != nil {
		t.Error(err)
	}
	mustVerify(t, path, 4)
	got := readLog(t, path)
	if got[2].Kind != KindResumed || !strings.Contains(got[2].Note, "3 records were refused") || got[3].ID != "d_0" {
		t.Errorf("got %+v", got[2:])
	}

	d.room = 0
	if err := l.Append(testRecord(9)); err == nil {
		t.Fatal("appended without room")
	}
	d.room = -1
	mustAppend(t, l, 1)
	if got := readLog(t, path)[4]; !strings.HasPrefix(got.Note, "1 records were refused") {
		t.Errorf("the second time: %q", got.Note)
	}
}

// What cannot be taken back at once is taken back before anything else is
// written.
func TestTruncateFails(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	d := (&badDisk{room: -1}).under(l)
	mustAppend(t, l, 2)
	d.room, d.noTruncate = 100, true
	if err := l.Append(testRecord(9)); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	d.room = -1
	writes := d.writes
	for range 3 {
		if err := l.Append(testRecord(9)); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		l.tick()
	}
	if d.writes != writes {
		t.Fatal("written behind half a line")
	}
	if l.Healthy() == nil {
		t.Error("healthy with half a line in the file")
	}
	d.noTruncate = false
	l.tick() // nobody calls: the log comes back by itself
	if err := l.Healthy(); err != nil {
		t.Error(err)
	}
	mustAppend(t, l, 1)
	mustVerify(t, path, 4)
}

// With FsyncAlways a record that is not known to be on disk is none.
func TestFsyncAlways(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, FsyncAlways)
	d := (&badDisk{room: -1}).under(l)
	mustAppend(t, l, 3)
	if n := d.syncs.Load(); n != 3 {
		t.Errorf("%d syncs of 3 records", n)
	}
	d.noSync = true
	if err := l.Append(testRecord(9)); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	mustVerify(t, path, 3)
	d.noSync = false
	mustAppend(t, l, 1)
	mustVerify(t, path, 5)
	l.tick()
	if n := d.syncs.Load(); n != 6 { // 3, the one that failed, "resumed", 1
		t.Errorf("%d syncs", n)
	}
}

func TestFsyncInterval(t *testing.T) {
	for _, mode := range []string{FsyncInterval, FsyncNever} {
		synctest.Test(t, func(t *testing.T) {
			path := testPath(t)
			l := openTest(t, path, mode)
			d := (&badDisk{room: -1}).under(l)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()

			mustAppend(t, l, 3)
			if d.syncs.Load() != 0 {
				t.Errorf("%s: synced in Append", mode)
			}
			time.Sleep(10 * tickEvery) // of the bubble
			synctest.Wait()
			if n, want := d.syncs.Load(), map[string]int64{FsyncInterval: 1, FsyncNever: 0}[mode]; n != want {
				t.Errorf("%s: %d syncs in ten idle seconds", mode, n)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			before := d.syncs.Load()
			l.Close()
			if d.syncs.Load() != before+1 {
				t.Errorf("%s: no sync by Close", mode)
			}
		})
	}
}

func TestFsyncIntervalFails(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	d := (&badDisk{room: -1}).under(l)
	mustAppend(t, l, 3)
	d.noSync = true
	for range 3 {
		l.tick()
		if err := l.Append(testRecord(9)); !errors.Is(err, errDisk) {
			t.Fatalf("append after a failed fsync: %v", err)
		}
	}
	if err := l.Healthy(); err == nil || !strings.Contains(err.Error(), "records 1 to 3") {
		t.Errorf("healthy: %v", err)
	}
	mustVerify(t, path, 3) // no line for each trial
	d.noSync = false
	l.tick()
	mustAppend(t, l, 1)
	mustVerify(t, path, 5)
}

func TestDigest(t *testing.T) {
	l := openTest(t, testPath(t), "")
	other, err := Open(Config{File: testPath(t), Key: bytes.Repeat([]byte{8}, keySize)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got := l.Digest(nil) + l.Digest([]byte{}); got != "" {
		t.Errorf("digest of nothing: %q", got)
	}
	// printf %s '{"a":1}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…07
	const want = "0d733feec304f131c0dcbceb873c317e2bcc4789397082bd429646222a2eb027"
	for range 2 { // a pooled MAC starts anew
		if got := l.Digest([]byte(`{"a":1}`)); got != want {
			t.Errorf("got %s", got)
		}
	}
	if other.Digest([]byte(`{"a":1}`)) == want {
		t.Error("the key does not matter")
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, mode := range []string{FsyncNever, FsyncInterval, FsyncAlways} {
		b.Run(mode, func(b *testing.B) {
			l := openTest(b, testPath(b), mode)
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() { l.Run(ctx) })
			b.Cleanup(func() { cancel(); wg.Wait() })
			r := testRecord(1)
			r.Task, r.Grant, r.ID = grants.NewID(grants.TaskPrefix), grants.NewID(grants.GrantPrefix), grants.NewID(grants.DecisionPrefix)
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Append(r); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(l.size / int64(l.seq))
		})
	}
}

func BenchmarkAppendAll(b *testing.B) {
	l := openTest(b, testPath(b), FsyncNever)
	request := make([]Record, 8)
	for i := range request {
		request[i] = testRecord(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.AppendAll(request); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	path := testPath(b)
	l := openTest(b, path, FsyncNever)
	mustAppend(b, l, 1000)
	log, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if _, err := Verify(io.Reader(bytes.NewReader(log))); err != nil {
			b.Fatal(err)
		}
	}
}
