package audit

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// testLog is a log of n records, as its lines with their newlines.
func testLog(t testing.TB, n int) [][]byte {
	t.Helper()
	path := testPath(t)
	l := openTest(t, path, FsyncNever)
	mustAppend(t, l, n)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(bytes.Lines(b))
}

func join(lines ...[]byte) []byte { return bytes.Join(lines, nil) }

func TestVerifyGood(t *testing.T) {
	if s, err := Verify(strings.NewReader("")); err != nil || s != (Summary{LastHash: noPrev}) {
		t.Errorf("empty: %+v, %v", s, err)
	}
	lines := testLog(t, 5)
	s, err := Verify(iotest.OneByteReader(bytes.NewReader(join(lines...))))
	at := testRecord(0).Time
	if err != nil || s != (Summary{Lines: 5, Decisions: 5, First: at, Last: at, LastHash: hexSum(bytes.TrimSuffix(lines[4], []byte("\n")))}) {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := Verify(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(join(lines...))))); err == nil || s.Lines != 0 {
		t.Errorf("failing reader: %+v, %v", s, err)
	}
}

// Each byte of a log of 100 lines is flipped in three ways. So that it does not
// read the whole log each time, Verify gets what follows a good beginning from
// the Summary of it; every 101st is also given to Verify whole.
func TestVerifyFindsEveryFlip(t *testing.T) {
	lines := testLog(t, 100)
	whole := join(lines...)
	at, n := 0, 0
	before := Summary{LastHash: noPrev}
	for k, line := range lines {
		for i := range line {
			for _, flip := range []byte{0x01, 0x20, 0x80} {
				rest := join(lines[k:min(k+2, len(lines))]...)
				rest[i] ^= flip
				if s, err := before.verify(bytes.NewReader(rest)); err == nil || s.Lines > uint64(k) {
					t.Fatalf("byte %d of line %d xor %#x: %d lines passed, %v", i, k+1, flip, s.Lines, err)
				}
				if n++; n%101 == 0 {
					all := bytes.Clone(whole)
					all[at+i] ^= flip
					want := fmt.Sprintf("line %d:", k+1)
					if s, err := Verify(bytes.NewReader(all)); err == nil || !strings.HasPrefix(err.Error(), want) || s.Lines != uint64(k) {
						t.Fatalf("byte %d of line %d xor %#x: %d lines passed, %v", i, k+1, flip, s.Lines, err)
					}
				}
			}
		}
		at += len(line)
		if err := before.next(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerifyFindsLines(t *testing.T) {
	l := testLog(t, 6)
	other := testLog(t, 6) // another log with the same records: times and ids are equal
	other[2] = bytes.Replace(other[2], []byte("corp/boss"), []byte("corp/cook"), 1)
	body, _, _ := cutSum(bytes.TrimSuffix(other[2], []byte("\n")))
	other[2] = []byte(string(body) + sumStart + hexSum(body) + sumEnd + "\n") // a sum of its own
	resum := func(s string) []byte { return []byte(s + sumStart + hexSum([]byte(s)) + sumEnd + "\n") }
	head := string(appendHead(nil, 7, hexSum(bytes.TrimSuffix(l[5], []byte("\n")))))

	for name, c := range map[string]struct {
		log  []byte
		line int
		want string
	}{
		"first deleted":      {join(l[1:]...), 1, "seq is 2 where 1 belongs"},
		"deleted":            {join(l[0], l[1], l[3], l[4]), 3, "seq is 4 where 3 belongs"},
		"swapped":            {join(l[0], l[2], l[1], l[3]), 2, "seq is 3 where 2 belongs"},
		"doubled":            {join(l[0], l[1], l[1], l[2]), 3, "seq is 2 where 3 belongs"},
		"doubled at the end": {join(append(slices.Clone(l), l[5])...), 7, "seq is 6 where 7 belongs"},
		"replaced":           {join(l[0], l[1], other[2], l[3]), 4, "prev is not the hash"},
		"log after log":      {join(append(slices.Clone(l), l...)...), 7, "seq is 1 where 7 belongs"},
		"empty line":         {join(l[0], []byte("\n"), l[1]), 2, "not a record"},
		"torn end":           {join(l[0], l[1][:50]), 2, "no newline"},
		"cut before newline": {bytes.TrimSuffix(join(l...), []byte("\n")), 6, "no newline"},
		"torn in the middle": {join(l[0], l[1][:50], []byte("\n"), l[2]), 2, "no sum"},
		"torn and joined":    {join(l[0], l[1][:50], l[2]), 2, "do not give its sum"},
		"CRLF":               {bytes.ReplaceAll(join(l...), []byte("\n"), []byte("\r\n")), 1, "no sum"},
		"too long":           {join(l[0], bytes.Repeat([]byte("x"), 10*MaxLine), l[1]), 2, "longer than"},

		// Lines with a right sum that no Log would write.
		"not JSON":       {join(append(slices.Clone(l), resum(head+`"kind":`))...), 7, "not a record"},
		"unknown member": {join(append(slices.Clone(l), resum(head+`"x":1`))...), 7, "unknown"},
		"doubled member": {join(append(slices.Clone(l), resum(head+`"kind":"a","kind":"b"`))...), 7, "duplicate"},
		"two documents":  {join(append(slices.Clone(l), resum(head+`"kind":"a"} {"seq":7`))...), 7, "not a record"},
		"unknown reason": {join(append(slices.Clone(l), resum(head+`"reason":"why"`))...), 7, "reason"},
		"no count":       {join(append(slices.Clone(l), resum(head+`"kind":"a"`))...), 7, "stands for 0 decisions"},
		"count below 1":  {join(append(slices.Clone(l), resum(head+`"count":-4`))...), 7, "stands for -4 decisions"},
		"seq not first":  {join(append(slices.Clone(l), resum(`{"kind":"a",`+head[1:len(head)-1]))...), 7, "begin with"},
		"seq as 07":      {join(append(slices.Clone(l), resum(strings.Replace(head, "7", "07", 1)+`"kind":"a"`))...), 7, "not a record"},
		"a space":        {join(append(slices.Clone(l), resum(strings.Replace(head, ":", ": ", 1)+`"kind":"a"`))...), 7, "begin with"},
	} {
		s, err := Verify(bytes.NewReader(c.log))
		prefix := fmt.Sprintf("line %d: ", c.line)
		if err == nil || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s … %s", name, err, prefix, c.want)
		}
		if s.Lines != uint64(c.line-1) {
			t.Errorf("%s: summary of %d lines", name, s.Lines)
		}
	}
}

// Lines missing at the end are seen only against what was known before.
func TestVerifyTruncationNeedsEarlierSummary(t *testing.T) {
	lines := testLog(t, 6)
	known, err := Verify(bytes.NewReader(join(lines...)))
	if err != nil {
		t.Fatal(err)
	}
	cut, err := Verify(bytes.NewReader(join(lines[:4]...)))
	if err != nil || cut.Lines >= known.Lines || cut.LastHash == known.LastHash {
		t.Errorf("cut log: %+v, %v; known %+v", cut, err, known)
	}
}

// A second line of any content, with a sum that fits: whoever can write the
// file can make one. Verify and Open agree on it.
func FuzzVerify(f *testing.F) {
	first := testLog(f, 1)[0]
	prev := hexSum(bytes.TrimSuffix(first, []byte("\n")))
	f.Add(true, []byte(`"kind":"call"`), []byte(""))
	f.Add(true, []byte(`"reason":"policy","policies":["a"],"revision":"","count":7,"time":"2026-01-02T03:04:05Z"`), []byte(`{"seq":3`))
	f.Add(false, []byte(`{"seq":2,"prev":""`), []byte("\n"))
	f.Fuzz(func(t *testing.T, head bool, body, tail []byte) {
		if head {
			body = append(appendHead(nil, 2, prev), body...)
		}
		log := join(first, body, []byte(sumStart+hexSum(body)+sumEnd+"\n"), tail)
		s, err := Verify(bytes.NewReader(log))
		if n := uint64(bytes.Count(log, []byte("\n"))); s.Lines > n || (err == nil && s.Lines != n) {
			t.Fatalf("%d lines of %d, %v", s.Lines, n, err)
		}
		if err == nil && (!bytes.HasPrefix(body, appendHead(nil, 2, prev)) || len(tail) > 0) {
			t.Fatal("a line that nobody wrote passed")
		}
		if err != nil {
			return
		}
		seq, last, torn, err := readTail(bytes.NewReader(log), int64(len(log)))
		if err != nil || len(torn) > 0 || seq != s.Lines || last != s.LastHash {
			t.Fatalf("its end: %d, %s, %q, %v; Verify: %+v", seq, last, torn, err, s)
		}
	})
}
