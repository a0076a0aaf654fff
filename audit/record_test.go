package audit

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/grants"
)

// longRecord has every string longer than its limit and made of what grows
// most when it is escaped.
func longRecord() Record {
	s := strings.Repeat("\x00\U000e0001", 1<<19) // 1 MB and more, of controls and tag characters
	r := Record{
		ID: s, Kind: s, Agent: s, Actor: s, Requester: s, Client: s, Tool: s, Task: s, Grant: s, Source: s,
		Outcome: Deny, Reason: grants.Unrepresentable, Status: -1 << 31, Revision: grants.Digest{31: 1}, Rev: s, Args: s,
		LatencyUS: -1 << 62, Note: s,
	}
	for range 100 {
		r.Policies = append(r.Policies, s)
	}
	return r
}

func TestEveryFieldIsCut(t *testing.T) {
	path := testPath(t)
	l := openTest(t, path, "")
	if err := l.Append(longRecord()); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// All limits together leave room for a seq and a count of any length.
	if len(line) > MaxLine-64 {
		t.Errorf("%d bytes of %d", len(line), MaxLine)
	}
	mustVerify(t, path, 1)
	got := readLog(t, path)[0]
	if len(got.Policies) != MaxPolicies || got.Policies[MaxPolicies-1] != cutMark {
		t.Errorf("policies: %d, %q", len(got.Policies), got.Policies[len(got.Policies)-1])
	}
	v := reflect.ValueOf(got)
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Name; name {
		case "Seq", "Prev", "Sum", "Time", "Outcome", "Reason", "Status", "Policies", "Revision", "Count", "LatencyUS":
		default:
			if s := v.Field(i).String(); !strings.HasSuffix(s, cutMark) {
				t.Errorf("%s: no mark of the cut at the end of %q", name, s)
			}
		}
	}
}

func TestAppendString(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 8, ""},
		{`a"b\c/<&>`, 99, `a\"b\\c/<&>`},
		{"a\r\n\tb\x00\x1b[2K\x7f", 99, `a\u000d\u000a\u0009b\u0000\u001b[2K\u007f`},
		{"\u0080\u009b\u00a0\u00ad", 99, `\u0080\u009b\u00a0\u00ad`}, // C1 (CSI among them), no-break space, soft hyphen
		{"\u2028\u2029", 99, `\u2028\u2029`},
		{"\u202a\u202e\u2066\u2069\u200e\u200f\u061c", 99, `\u202a\u202e\u2066\u2069\u200e\u200f\u061c`},
		{"\u200b\u200d\ufeff\U000e0041", 99, `\u200b\u200d\ufeff\udb40\udc41`},
		{"grün 日本 😀", 99, "grün 日本 😀"},
		{"a\xffb\xc3", 99, "a\ufffdb\ufffd"},
		{"\xed\xa0\x80", 99, "\ufffd\ufffd\ufffd"}, // a surrogate in UTF-8
		{"abcdefgh", 8, "abcdefgh"},
		{"abcdefghi", 8, "abcde…"},
		{"äöüß", 8, "äöüß"},
		{"äöüßa", 8, "äö…"},         // not within a rune
		{"abc\n\n", 9, `abc` + "…"}, // nor within an escape
		{`abc\\\\`, 8, `abc\\` + "…"},
	} {
		if got := string(appendString(nil, c.in, c.limit)); got != `"`+c.want+`"` {
			t.Errorf("%q to %d bytes: %s; want %s", c.in, c.limit, got, c.want)
		}
	}
}

// Whatever stands in a record: one line more, which verifies, prints as one
// line, and says the same when it is read and written again.
func FuzzAppend(f *testing.F) {
	f.Add("d_1", "corp/agent", "a\nb", "\u202e\u2028", "\x1b[2J", uint8(3), int64(0), int64(5))
	f.Add("x", "\xff\xfe", strings.Repeat("😀\x00", 200), `","seq":9,"x":"`, "}\n{", uint8(0), int64(1<<40), int64(-1))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, id, agent, tool, policy, note string, reason uint8, at, latency int64) {
		path := dir + "/" + grants.NewID("") // a fuzz worker runs one at a time, but not alone
		l := openTest(t, path, FsyncNever)
		l.sync = func() error { return nil } // Close would wait for the disk
		defer os.Remove(path)
		mustAppend(t, l, 1)
		r := Record{
			ID: id, Kind: "call", Agent: agent, Actor: tool, Tool: tool, Client: note, Outcome: Deny, Reason: grants.Reason(reason),
			Source: tool, Policies: []string{policy, agent}, Args: policy, Note: note, LatencyUS: latency, Status: int(at), Time: time.Unix(at%(1<<37), 0),
		}
		if reason == 0 {
			r.Outcome = Allow
		}
		err := l.Append(r)
		if want := id != "" && r.Reason <= grants.Undecided; (err == nil) != want {
			if y := r.Time.UTC().Year(); err == nil || y > 0 && y < 10000 {
				t.Fatalf("append: %v", err)
			}
		}
		lines := 1
		if err == nil {
			lines++
		}
		mustVerify(t, path, lines)
		log, _ := os.ReadFile(path)
		if !utf8.Valid(log) {
			t.Fatalf("not UTF-8: %q", log)
		}
		for _, c := range string(log) {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Fatalf("%U stands in %q", c, log)
			}
		}
		for line := range bytes.Lines(log) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			r, _, err := parseLine(line)
			if err != nil {
				t.Fatal(err)
			}
			again := appendBody(appendHead(nil, r.Seq, r.Prev), &r)
			if body, _, _ := cutSum(line); !bytes.Equal(again, body) {
				t.Fatalf("%s\nis written again as\n%s", body, again)
			}
		}
	})
}
