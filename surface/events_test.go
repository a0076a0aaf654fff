package surface

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lesson is what a watcher did with a stream.
type lesson struct {
	Out      string
	Learnt   []string
	TooLarge int
}

// watchAll gives a stream to events in chunks that end at the cuts.
func watchAll(t testing.TB, limit int, stream string, cuts ...int) lesson {
	t.Helper()
	var got lesson
	var out strings.Builder
	e := &events{
		max:      limit,
		learn:    func(text []byte) error { got.Learnt = append(got.Learnt, string(text)); return nil },
		tooLarge: func() { got.TooLarge++ },
	}
	took := func(ready []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		out.Write(ready)
	}
	last := 0
	for _, cut := range append(cuts, len(stream)) {
		took(e.feed([]byte(stream[last:cut])))
		if held := len(e.held) - e.free; held > limit {
			t.Fatalf("%d bytes are held, of at most %d", held, limit)
		}
		last = cut
	}
	took(e.end())
	got.Out = out.String()
	return got
}

func everywhere(stream string) []int {
	cuts := make([]int, len(stream))
	for i := range cuts {
		cuts[i] = i
	}
	return cuts
}

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		stream string
		learnt []string
	}{
		{"", nil},
		{"data: a\n\n", []string{"a"}},
		{"data:a\n\ndata:  b\n\n", []string{"a", " b"}},
		{"id: 1\nevent: message\nretry: 5\ndata: a\n\n", []string{"a"}},
		{"data: a\nid: 1\n\n", []string{"a"}},
		{"data: a\ndata: b\ndata\ndata: c\n\n", []string{"a\nb\n\nc"}},
		{": note\n\n:\n\ndata: a\n\n", []string{"a"}},
		{"data:\n\n", nil},
		{"data\n\n", nil},
		{"datas: a\n\n data: a\n\nDATA: a\n\n", nil},
		{"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", []string{"a"}}, // one mark, at the beginning
		{"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", nil},
		{"\xef\xbb\xbf\ndata: a\n\n", []string{"a"}},
		{"data: a\n\ndata: b", []string{"a", "b"}}, // there are clients that read the last
		{"data: a\n\ndata: b\n", []string{"a", "b"}},
		{"data: a\u2028\n\n", []string{"a\u2028"}},
		{"\n\n\ndata: a\n\n\n\n", []string{"a"}},
	} {
		for _, lineEnd := range []string{"\n", "\r\n", "\r"} {
			stream := strings.ReplaceAll(c.stream, "\n", lineEnd)
			want := lesson{Out: stream, Learnt: c.learnt}
			if diff := cmp.Diff(want, watchAll(t, 1000, stream)); diff != "" {
				t.Errorf("%q (-want +got):\n%s", stream, diff)
			}
			if diff := cmp.Diff(want, watchAll(t, 1000, stream, everywhere(stream)...)); diff != "" {
				t.Errorf("%q byte by byte (-want +got):\n%s", stream, diff)
			}
			for cut := range len(stream) {
				if diff := cmp.Diff(want, watchAll(t, 1000, stream, cut)); diff != "" {
					t.Errorf("%q cut at %d (-want +got):\n%s", stream, cut, diff)
				}
			}
		}
	}
	late := "data: 01234567890123456789\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n" // a mark that does not stand at the beginning
	if diff := cmp.Diff(lesson{Out: late, Learnt: []string{"c"}, TooLarge: 1}, watchAll(t, 20, late)); diff != "" {
		t.Errorf("behind what is too large (-want +got):\n%s", diff)
	}
	mixed := "data: a\r\ndata: b\n\rdata: c\r\n\r\n\rdata: d\r\r"
	if diff := cmp.Diff(lesson{Out: mixed, Learnt: []string{"a\nb", "c", "d"}}, watchAll(t, 100, mixed)); diff != "" {
		t.Errorf("mixed line ends (-want +got):\n%s", diff)
	}
}

// What goes on, and when, as the bytes come.
func TestEventsAreHeldBack(t *testing.T) {
	var learnt []string
	taken := errors.New("taken")
	e := &events{max: 20, tooLarge: func() {}, learn: func(text []byte) error {
		learnt = append(learnt, string(text))
		if string(text) == "stop" {
			return taken
		}
		return nil
	}}
	for _, step := range []struct {
		chunk, ready string
		learnt       int
	}{
		{": no", "", 0},
		{"te\n", ": note\n", 0}, // there is no data yet
		{"event: x\r", "event: x\r", 0},
		{"\n", "\n", 0},
		{"data: a\n", "", 0},
		{"id: 1\n", "", 0}, // it stands behind data
		{"\nda", "data: a\nid: 1\n\n", 1},
		{"ta: b\r", "", 1},
		{"\n", "", 1},
		{"\r", "data: b\r\n\r", 2},
		{"\ndata: ", "\n", 2},
		{"0123456789abcd", "", 2},                        // 20 bytes
		{"e", "data: 0123456789abcde", 2},                // one too many
		{"\ndata: x", "\ndata: x", 2},                    // the rest of that event
		{"\n\ndata: c\n\ndata: s", "\n\ndata: c\n\n", 3}, // and the next one
		{"top\n\ndata: d\n\n", "", 4},                    // refused
	} {
		ready, err := e.feed([]byte(step.chunk))
		if string(ready) != step.ready || len(learnt) != step.learnt || (err != nil) != (step.learnt == 4) {
			t.Fatalf("after %q: %q, %v, learnt %q; want %q, %d learnt", step.chunk, ready, err, learnt, step.ready, step.learnt)
		}
	}
	if want := []string{"a", "b", "c", "stop"}; !slices.Equal(learnt, want) {
		t.Errorf("learnt %q, want %q", learnt, want)
	}
}

func TestAnOpenEventIsRefusedAsWell(t *testing.T) {
	e := &events{max: 100, learn: func([]byte) error { return errRefused }}
	if ready, err := e.feed([]byte("data: a")); len(ready) > 0 || err != nil {
		t.Errorf("%q, %v", ready, err)
	}
	if ready, err := e.end(); len(ready) > 0 || !errors.Is(err, errRefused) {
		t.Errorf("%q, %v", ready, err)
	}
}

// reference takes a whole stream apart as the standard says (WHATWG HTML, Section
// 9.2.6), but for the end, where an open event is taken as well.
func reference(stream string) (learnt []string) {
	stream = strings.TrimPrefix(stream, "\xef\xbb\xbf")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	for event := range strings.SplitSeq(stream, "\n\n") {
		var data []string
		for line := range strings.SplitSeq(event, "\n") {
			if name, value, _ := strings.Cut(line, ":"); name == "data" {
				data = append(data, strings.TrimPrefix(value, " "))
			}
		}
		if text := strings.Join(data, "\n"); text != "" {
			learnt = append(learnt, text)
		}
	}
	return learnt
}

func FuzzEvents(f *testing.F) {
	for _, s := range []string{
		"data: a\n\n", "\xef\xbb\xbfdata: a\r\n\r\ndata: b\r\r", "id: 1\ndata\n\n: x\n\ndata: " + core + "\n\n", "data: abcdefghijklmnop\n\ndata:1\n\n",
	} {
		f.Add(s, []byte{1, 2, 3}, uint8(10))
	}
	f.Fuzz(func(t *testing.T, stream string, steps []byte, limit uint8) {
		if len(stream) > 4096 {
			return
		}
		var cuts []int
		at := 0
		for _, step := range steps {
			if at += int(step); at > len(stream) {
				break
			}
			cuts = append(cuts, at)
		}
		for _, limit := range []int{int(limit), len(stream)} {
			one := watchAll(t, limit, stream)
			if one.Out != stream {
				t.Fatalf("limit %d: %q became %q", limit, stream, one.Out)
			}
			for _, cuts := range [][]int{cuts, everywhere(stream)} {
				if diff := cmp.Diff(one, watchAll(t, limit, stream, cuts...)); diff != "" {
					t.Fatalf("limit %d, %q: in one chunk, and cut at %v:\n%s", limit, stream, cuts, diff)
				}
			}
		}
		if want, got := reference(stream), watchAll(t, len(stream), stream).Learnt; !slices.Equal(want, got) {
			t.Fatalf("%q: learnt %q, want %q", stream, got, want)
		}
	})
}

func TestDocument(t *testing.T) {
	for size := range 6 {
		var learnt []string
		large := 0
		d := &document{max: 4, tooLarge: func() { large++ }, learn: func(text []byte) error { learnt = append(learnt, string(text)); return nil }}
		var out bytes.Buffer
		text := strings.Repeat("a", size)
		for i := range text {
			ready, err := d.feed([]byte(text[i : i+1]))
			if err != nil || len(learnt) > 0 || i < 4 && len(ready) > 0 {
				t.Errorf("%d of %d bytes: %q goes on, %v", i+1, size, ready, err)
			}
			out.Write(ready)
		}
		ready, err := d.end()
		out.Write(ready)
		if out.String() != text || err != nil {
			t.Errorf("%q became %q, %v", text, out.String(), err)
		}
		if want := size <= 4; want != (large == 0) || want != slices.Equal(learnt, []string{text}) {
			t.Errorf("%d bytes: learnt %q, too large %d times", size, learnt, large)
		}
	}
}
