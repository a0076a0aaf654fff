package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// goodLine is a line as Inputs writes it.
func goodLine(t testing.TB, id string, in grants.Input, out grants.Decision) string {
	t.Helper()
	var b bytes.Buffer
	s := Inputs{catalog: testCatalog(t, testTools)}
	if err := s.encode(&b, id, []grants.Input{in}, []grants.Decision{out}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReadRefuses(t *testing.T) {
	good := goodLine(t, "d_1", call(testGrant(), parse(t, `{"body": {"amount": 12345}}`)), allow(oldRe, "p"))
	for _, tc := range []struct{ name, old, new, want string }{
		{"as it is", "", "", ""},
		{"another version", `"v":1`, `"v":2`, "version 2"},
		{"no version", `"v":1,`, "", "version 0"},
		{"no id", `"id":"d_1"`, `"id":""`, "no decision id"},
		{"an unknown member", `"v":1`, `"v":1,"w":1`, `"/w"`},
		{"an unknown member of a question", `"action"`, `"x":0,"action"`, `"/questions/0/x"`},
		{"an unknown member of a grant", `"client"`, `"x":0,"client"`, `"/questions/0/grant/x"`},
		{"a member twice", `"v":1`, `"v":1,"v":1`, "not one JSON text"},
		{"a name in another case", `"action"`, `"Action"`, "Action"},
		{"no action", `"action":"call:bank/pay"`, `"action":""`, "without an action"},
		{"no time of the question", now.Format(time.RFC3339Nano) + `","args`, `0001-01-01T00:00:00Z","args`, "without an action, or a time"},
		{"an unknown reason", `"reason":"none"`, `"reason":"nine"`, "/reason"},
		{"allowed with a reason", `"reason":"none"`, `"reason":"policy"`, "allowed, with the reason policy"},
		{"an argument twice", `"amount":12345`, `"amount":12345,"Amount":1`, "duplicate name"},
		{"an argument that no reader keeps", `12345`, `12345678901234567890`, "question 0"},
		{"no value of a text in the error", `"allow":true`, `"allow":"s3cret"`, "/allow"},
		{"two texts", "\n", "{}\n", "not one JSON text"},
		{"no questions", good[strings.Index(good, `[{"action"`)+1 : len(good)-len("]}\n")], "", "no question"},
		{"too long", "\n", strings.Repeat(" ", MaxLine) + "\n", "longer than"},
		{"torn", "\n", "", "no newline"},
		{"not UTF-8", `d_1`, "d\xff", "not one JSON text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(good, tc.old, tc.new, 1)
			if tc.name != "as it is" && text == good {
				t.Fatal("the case changes nothing")
			}
			// Another line before and, but for a torn one, behind.
			text = good + text
			if strings.HasSuffix(text, "\n") {
				text += good
			}
			n := 0
			for line, err := range Read(strings.NewReader(text)) {
				n++
				if n != 2 || tc.name == "as it is" {
					if err != nil {
						t.Errorf("line %d: %v", n, err)
					}
					continue
				}
				if err == nil || !strings.HasPrefix(err.Error(), "line 2: ") || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("got %v, want …%s…", err, tc.want)
				}
				if !cmp.Equal(Line{}, line, cmp.AllowUnexported(Line{})) {
					t.Errorf("with the error: %+v", line)
				}
			}
			if want := strings.Count(text, "\n"); n != want && !strings.HasPrefix(tc.name, "torn") {
				t.Errorf("%d lines of %d", n, want)
			}
		})
	}
}

func TestReadEnds(t *testing.T) {
	good := goodLine(t, "d_1", baseline("bank/look"), allow(oldRe))
	for name, tc := range map[string]struct {
		r     io.Reader
		lines int
		err   error
	}{
		"empty":           {strings.NewReader(""), 0, nil},
		"byte by byte":    {iotest.OneByteReader(strings.NewReader(good + good)), 2, nil},
		"a long torn one": {strings.NewReader(good + strings.Repeat("x", MaxLine+2)), 1, ErrTorn},
		"a bad disk":      {io.MultiReader(strings.NewReader(good), iotest.ErrReader(errDisk)), 1, errDisk},
	} {
		t.Run(name, func(t *testing.T) {
			n, last := 0, error(nil)
			for _, err := range Read(tc.r) {
				if last != nil {
					t.Fatalf("goes on behind %v", last)
				}
				if last = err; err == nil {
					n++
				}
			}
			if n != tc.lines || !errors.Is(last, tc.err) {
				t.Errorf("%d lines, %v", n, last)
			}
		})
	}
	for range Read(strings.NewReader(good + good)) {
		break // no more is asked of it
	}
}

var errDisk = errors.New("a bad disk")

// FuzzRead holds that whatever is read as a line is written as one that is read as
// the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(goodLine(f, "d_1", call(testGrant(), parse(f, `{"body": {"amount": 1.5e1, "l": [null, true, "x"]}}`)), deny(oldRe, grants.Policy, "p"))))
	f.Add([]byte(goodLine(f, "d_2", grants.Input{
		Action: "mcp:ping", Requester: agent, Principal: boss, Server: "bank", Revision: "2026-07-28", Retry: &grants.Retry{State: true}, At: now,
	}, allow(newRe))))
	f.Add([]byte("{}\n{\"v\":1}\ntorn"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		for line, err := range Read(bytes.NewReader(text)) {
			if n++; err != nil {
				continue
			}
			w := wireLine{V: version, Time: line.Time, ID: line.ID}
			for _, q := range line.Questions {
				wq, err := newQuestion(&q.Input, q.Input.Args, q.Decision)
				if err != nil {
					t.Fatal(err)
				}
				wq.Opaque, wq.Redacted = q.Opaque, q.Redacted
				w.Questions = append(w.Questions, wq)
			}
			var b bytes.Buffer
			if encodeLine(&b, w) != nil {
				continue // such as a year that Go does not write, or a line that escapes make too long
			}
			again, err := parseLine(bytes.TrimSuffix(b.Bytes(), []byte{'\n'}))
			if err != nil {
				t.Fatalf("%v\n%s", err, b.Bytes())
			}
			line.size, again.size = 0, 0
			if diff := cmp.Diff(line, again, cmp.AllowUnexported(Line{}), cmp.Comparer(sameJSON)); diff != "" {
				t.Fatal(diff)
			}
			for _, one := range again.Questions {
				one := asked{&one, one.Decision}
				one.again(t.Context(), says(nil), nil) // and nothing in it makes deciding panic
			}
			lineCases(again.Questions)
		}
		if max := bytes.Count(text, []byte{'\n'}) + 1; n > max {
			t.Fatalf("%d lines of at most %d", n, max)
		}
	})
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}
