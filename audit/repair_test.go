package audit

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

// foreign is what another process may do to the file, and what the log says of
// it. Open, at a restart, finds a good log or the words in reopen.
var foreign = map[string]struct {
	do     func(t testing.TB, path string)
	want   string
	reopen string
}{
	"cut to nothing":  {func(t testing.TB, path string) { cut(t, path, 0) }, "was cut", ""},
	"cut in a line":   {func(t testing.TB, path string) { cut(t, path, -10) }, "was cut", ""},
	"cut and written": {func(t testing.TB, path string) { cut(t, path, 0); add(t, path, "hello") }, "was cut", "not a torn line"},
	"a line appended": {func(t testing.TB, path string) { add(t, path, "{}\n") }, "written by another", "not one of this log"},
	"made longer":     {func(t testing.TB, path string) { cut(t, path, 1<<20) }, "written by another", "not a torn line"},
}

// cut sets the size; a negative one counts from the end.
func cut(t testing.TB, path string, size int64) {
	t.Helper()
	if size < 0 {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// mustStayForeign: the log has failed for good and leaves the file as it is.
func mustStayForeign(t *testing.T, l *Log, want string) {
	t.Helper()
	left, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := l.Append(testRecord(9))
		if !errors.Is(err, errForeign) || !strings.Contains(err.Error(), want) {
			t.Errorf("append: %v; want %q in it", err, want)
		}
		l.tick()
		if err := l.Healthy(); !errors.Is(err, errForeign) {
			t.Errorf("healthy: %v", err)
		}
	}
	if now, _ := os.ReadFile(l.path); !bytes.Equal(now, left) {
		t.Errorf("%d bytes became %d", len(left), len(now))
	}
}

func TestForeignChange(t *testing.T) {
	for name, c := range foreign {
		t.Run(name, func(t *testing.T) {
			path := testPath(t)
			l := openTest(t, path, "")
			mustAppend(t, l, 3)
			before, _ := os.ReadFile(path)
			c.do(t, path)
			mustStayForeign(t, l, c.want)

			changed, _ := os.ReadFile(path)
			if err := os.WriteFile(path, before, 0); err != nil { // as it was, but who knows
				t.Fatal(err)
			}
			mustStayForeign(t, l, c.want)
			if err := os.WriteFile(path, changed, 0); err != nil {
				t.Fatal(err)
			}

			l.Close()
			l, err := Open(Config{File: path, Key: testKey})
			if err != nil {
				if c.reopen == "" || !strings.Contains(err.Error(), c.reopen) {
					t.Errorf("restart: %v; want %q in it", err, c.reopen)
				}
				return
			}
			defer l.Close()
			mustAppend(t, l, 1)
			if c.reopen != "" {
				t.Errorf("restart: no %q", c.reopen)
			}
		})
	}
}

// An idle log hears of it from Run.
func TestForeignChangeIsSeenByTick(t *testing.T) {
	for name, c := range foreign {
		path := testPath(t)
		l := openTest(t, path, "")
		mustAppend(t, l, 3)
		c.do(t, path)
		l.tick()
		if err := l.Healthy(); !errors.Is(err, errForeign) {
			t.Errorf("%s: healthy: %v", name, err)
		}
	}
}

// With half a line of its own still in the file, the log must not take what
// another did for that.
func TestForeignChangeBeforeRepair(t *testing.T) {
	for name, c := range foreign {
		t.Run(name, func(t *testing.T) {
			path := testPath(t)
			l := openTest(t, path, "")
			mustAppend(t, l, 3)
			d := (&badDisk{room: 100, noTruncate: true}).under(l)
			if err := l.Append(testRecord(9)); !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
			d.room, d.noTruncate = -1, false
			c.do(t, path)
			mustStayForeign(t, l, c.want)
		})
	}
}

// Between the look at the file and a write that falls short.
func TestForeignChangeDuringWrite(t *testing.T) {
	for name, c := range foreign {
		t.Run(name, func(t *testing.T) {
			path := testPath(t)
			l := openTest(t, path, "")
			mustAppend(t, l, 3)
			(&badDisk{room: 100}).under(l)
			write := l.write
			var after []byte
			l.write = func(b []byte) (int, error) {
				c.do(t, path)
				n, err := write(b)
				after, _ = os.ReadFile(path)
				return n, err
			}
			if err := l.Append(testRecord(9)); !errors.Is(err, errForeign) {
				t.Errorf("append: %v", err)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, after) {
				t.Errorf("%d bytes became %d", len(after), len(now))
			}
			mustStayForeign(t, l, c.want)
		})
	}
}

// What was taken back is not expected in the file again.
func TestForeignBytesAsManyAsWereTakenBack(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	mustAppend(t, l, 3)
	(&badDisk{room: 100}).under(l)
	if err := l.Append(testRecord(9)); err == nil {
		t.Fatal("appended without room")
	}
	add(t, path, strings.Repeat("x", 100))
	mustStayForeign(t, l, "written by another")
}

// The fsync of Run is made without the lock; that it fails too must not make
// the log one that can be repaired.
func TestForeignChangeDuringFailedFsync(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, FsyncInterval)
	mustAppend(t, l, 3)
	before, _ := os.ReadFile(path)
	sync := l.sync
	l.sync = func() error {
		l.sync = sync
		cut(t, path, 0)
		if err := l.Append(testRecord(9)); !errors.Is(err, errForeign) {
			t.Errorf("append: %v", err)
		}
		add(t, path, string(before)) // nothing to be seen of it later
		return errDisk
	}
	l.tick()
	mustStayForeign(t, l, "was cut")
}

func TestFileMovedAway(t *testing.T) {
	rename := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	path := testPath(t)
	l := openTest(t, path, "")
	mustAppend(t, l, 1)
	rename(t, path, path+".1")
	if err := l.Append(testRecord(9)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("append without a file: %v", err)
	}
	log, _ := os.ReadFile(path + ".1")
	if err := os.WriteFile(path, log, 0o600); err != nil { // of the same size
		t.Fatal(err)
	}
	if err := l.Append(testRecord(9)); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("append with another file in its place: %v", err)
	}
	rename(t, path+".1", path)
	mustAppend(t, l, 1)
	mustVerify(t, path, 3)
	if got := readLog(t, path)[1]; !strings.HasPrefix(got.Note, "2 records were refused") {
		t.Errorf("resumed with %q", got.Note)
	}

	rename(t, path, path+".1")
	l.tick() // nobody calls
	if err := l.Healthy(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("healthy: %v", err)
	}
}

// A write that falls short in a file that was moved in the meantime leaves
// nothing there either.
func TestShortWriteInMovedFile(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	mustAppend(t, l, 2)
	(&badDisk{room: 100}).under(l)
	write := l.write
	l.write = func(b []byte) (int, error) {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		return write(b)
	}
	if err := l.Append(testRecord(9)); err == nil {
		t.Error("recorded")
	}
	mustVerify(t, path+".1", 2)
}
