package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// readAll gives the records and the texts of the errors.
func readAll(r io.Reader) (rs []Record, errs []string) {
	for rec, err := range Read(r) {
		if err != nil {
			errs = append(errs, err.Error())
		} else {
			rs = append(rs, rec)
		}
	}
	return rs, errs
}

// wantErrors compares each error by what stands in it.
func wantErrors(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d errors, want %d: %q", len(got), len(want), got)
	}
	for i, w := range want {
		if !strings.Contains(got[i], w) {
			t.Errorf("error %q; want %q in it", got[i], w)
		}
	}
}

// logOf writes records and gives the file.
func logOf(t testing.TB, rs ...Record) []byte {
	t.Helper()
	path := testPath(t)
	l := openTest(t, path, FsyncNever)
	for _, r := range rs {
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestReadGivesWhatWasWritten(t *testing.T) {
	var want []Record
	for i, why := range append(grants.Reasons(), grants.None) {
		r := testRecord(i)
		r.Reason = why
		if why == grants.None {
			r.Outcome, r.Policies, r.Revision = Allow, []string{}, grants.Digest{}
		}
		// Whatever is in the texts, as long as it is not cut.
		r.Agent, r.Actor, r.Requester = "corp/\u202e\x1b[2J", "a\n\"b\\\r\u2028", "日本 \U000e0041"
		r.Note, r.Tool, r.Source = `","id":"d_0","count":9,"x":"`, "", "2001:db8::1"
		want = append(want, r)
	}
	got, errs := readAll(iotest.OneByteReader(bytes.NewReader(logOf(t, want...))))
	wantErrors(t, errs)
	for i := range got {
		if got[i].Seq != uint64(i+1) || got[i].Prev == "" || got[i].Sum == "" {
			t.Errorf("record %d: seq %d, prev %q, sum %q", i, got[i].Seq, got[i].Prev, got[i].Sum)
		}
		got[i].Seq, got[i].Prev, got[i].Sum = 0, "", ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadGoesOnBehindDamage(t *testing.T) {
	l := testLog(t, 5)
	changed := bytes.Replace(l[1], []byte("corp/boss"), []byte("corp/cook"), 1)
	long := append(bytes.Repeat([]byte("x"), 3*MaxLine), '\n')
	rs, errs := readAll(bytes.NewReader(join(l[0], changed, l[2], long, []byte("\n"), l[3], l[4][:50])))
	wantErrors(t, errs, "line 2: its bytes do not give its sum", "line 4: longer than", "line 5: not a record", "line 7: no newline")
	if len(rs) != 3 || rs[0].ID != "d_0" || rs[1].ID != "d_2" || rs[2].ID != "d_3" {
		t.Errorf("got %+v", rs)
	}
	rs, errs = readAll(bytes.NewReader(bytes.Repeat([]byte("x"), 3*MaxLine)))
	wantErrors(t, errs, "line 1: longer than")
	if len(rs) != 0 {
		t.Errorf("got %+v", rs)
	}

	rs, errs = readAll(io.MultiReader(bytes.NewReader(join(l[0], l[1][:50])), iotest.ErrReader(errDisk)))
	wantErrors(t, errs, "line 2: reading: "+errDisk.Error())
	if len(rs) != 1 {
		t.Errorf("got %+v", rs)
	}
	for range Read(bytes.NewReader(join(l...))) {
		break // and nothing is yielded after it, or this panics
	}
}

func TestFind(t *testing.T) {
	rs := make([]Record, 6)
	for i := range rs {
		rs[i] = testRecord(i)
	}
	rs[4].ID = "d_1"                  // a second record of it, apart from the first
	rs[2].Note = `","id":"d_5555"`    // no id
	rs[3].ID = "d_\n\"3"              // none of ours, and found all the same
	rs[5].Agent, rs[5].ID = "d_", "x" // no id either
	log := logOf(t, rs...)
	for id, want := range map[string][]uint64{"d_0": {1}, "d_1": {2, 5}, "d_2": {3}, "d_\n\"3": {4}, "x": {6}} {
		got, err := Find(iotest.HalfReader(bytes.NewReader(log)), id)
		var seqs []uint64
		for _, r := range got {
			seqs = append(seqs, r.Seq)
		}
		if err != nil || !slices.Equal(seqs, want) {
			t.Errorf("%q: %v, %v; want %v", id, seqs, err, want)
		}
	}
	for _, id := range []string{"", "d_", "d_5", "d_55", "d_5555", "D_1", "d_1 ", "_1", `d_1","kind":"call`} {
		got, err := Find(bytes.NewReader(log), id)
		if !errors.Is(err, ErrNotFound) || got != nil {
			t.Errorf("%q: %+v, %v", id, got, err)
		}
		if err != nil && id != "" && !strings.Contains(err.Error(), "folded no denials") {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestFindSaysThatItMayBeFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // all in one second
		var rs []Record
		for i := range 30 {
			rs = append(rs, stranger(i, "192.0.2.1"))
		}
		log := logOf(t, rs...)
		got, err := Find(bytes.NewReader(log), "d_10") // the first of the fold
		if err != nil || len(got) != 1 || got[0].Count != 20 {
			t.Fatalf("the first: %+v, %v", got, err)
		}
		got, err = Find(bytes.NewReader(log), "d_11")
		if !errors.Is(err, ErrNotFound) || got != nil || !strings.Contains(err.Error(), "it may be one of 20 denials that 1 records stand for") {
			t.Errorf("the second: %+v, %v", got, err)
		}
	})
}

func TestFindInDamagedLog(t *testing.T) {
	l := testLog(t, 5)
	changed := bytes.Replace(l[1], []byte("corp/boss"), []byte("corp/cook"), 1)
	log := join(l[0], changed, l[2], l[1], l[3], l[4][:len(l[4])-1])
	if got, err := Find(bytes.NewReader(log), "d_3"); err != nil || len(got) != 1 { // other lines do not matter
		t.Errorf("%+v, %v", got, err)
	}
	got, err := Find(bytes.NewReader(log), "d_1")
	if len(got) != 1 || err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "line 2 may hold the decision") {
		t.Errorf("a changed record: %+v, %v", got, err)
	}
	if got, err := Find(bytes.NewReader(log), "d_4"); !errors.Is(err, ErrNotFound) { // not written yet
		t.Errorf("a torn record: %+v, %v", got, err)
	}
	long := join(l[0], append(bytes.Repeat([]byte("x"), 3*MaxLine), '\n'), l[2])
	got, err = Find(bytes.NewReader(long), "d_2")
	if len(got) != 1 || err == nil || !strings.Contains(err.Error(), "line 2 may hold the decision: longer than") {
		t.Errorf("behind a long line: %+v, %v", got, err)
	}
	got, err = Find(io.MultiReader(bytes.NewReader(l[0]), iotest.ErrReader(errDisk)), "d_0")
	if len(got) != 1 || !errors.Is(err, errDisk) {
		t.Errorf("failing reader: %+v, %v", got, err)
	}
}

// Any bytes: what Read gives as records are the lines that say so themselves,
// and Verify passes nothing that Read does not give.
func FuzzRead(f *testing.F) {
	l := testLog(f, 3)
	f.Add(join(l...), "d_1")
	f.Add(join(l[0], l[1][:40], []byte("\n"), l[2]), "d_2")
	f.Add([]byte("\n\n{}\n"), "\n")
	f.Add(bytes.Repeat([]byte("x"), 2*MaxLine), "")
	f.Fuzz(func(t *testing.T, log []byte, id string) {
		good, bad, mine := uint64(0), uint64(0), 0
		for r, err := range Read(bytes.NewReader(log)) {
			if err != nil {
				bad++
				continue
			}
			good++
			if r.ID == id && id != "" {
				mine++
			}
		}
		lines := uint64(bytes.Count(log, []byte("\n")))
		if n := len(log); n > 0 && log[n-1] != '\n' {
			lines++
		}
		if good+bad != lines {
			t.Fatalf("%d records and %d errors of %d lines", good, bad, lines)
		}
		s, err := Verify(bytes.NewReader(log))
		if s.Lines > good || err == nil && bad > 0 {
			t.Fatalf("%d lines verified (%v), %d records and %d errors read", s.Lines, err, good, bad)
		}
		// Find knows ids as the Log writes them.
		found, err := Find(bytes.NewReader(log), id)
		if len(found) > mine || err == nil && len(found) == 0 {
			t.Fatalf("%d found of %d, %v", len(found), mine, err)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	log := join(testLog(b, 1000)...)
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if rs, err := Find(bytes.NewReader(log), fmt.Sprint("d_", 500)); err != nil || len(rs) != 1 {
			b.Fatal(err)
		}
	}
}
