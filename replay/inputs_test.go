package replay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/toolgrant/toolgrant/grants"
)

func ask(s *Inputs, id string, in grants.Input, out grants.Decision) {
	s.Asked(id, []grants.Input{in}, []grants.Decision{out})
}

func TestRoundTrip(t *testing.T) {
	path := testPath(t)
	s := openInputs(t, path)
	args := `{"body": {"amount": 1.50e2, "payee": {"city": "Köln <&>\u2028\u202e"}, "n": null, "l": [1, "a", true, {}]}}`
	grant := testGrant()
	grant.Requester = boss
	in := []grants.Input{
		{Action: "start_task", Requester: boss, Principal: boss, Task: testTask(), At: now},
		call(grant, parse(t, args)),
		{
			Action: "mcp:resources/read", Requester: agent, Principal: agent, Server: "bank", Revision: "2026-07-28",
			Retry: &grants.Retry{Responses: `{"a":1}`, State: true}, Args: parse(t, `{"uri": "u"}`), At: now.In(time.FixedZone("", 3600)),
		},
		baseline("bank/look"),
	}
	in = append(in, grant.Asks(testTask(), now)...)
	out := []grants.Decision{
		allow(oldRe, "a", "b"), deny(oldRe, grants.Policy, "c\n"), deny(oldRe, grants.Manifest), deny(oldRe, grants.PolicyError, "e"),
		allow(oldRe), {},
	}
	before := time.Now()
	s.Asked("d_1", in, out)
	all, bad := readAll(t, path)
	if len(all) != 1 || len(bad) > 0 {
		t.Fatalf("%d lines, %v", len(all), bad)
	}
	line := all[0]
	if line.ID != "d_1" || line.Time.Before(before.Add(-time.Minute)) || line.Time.After(time.Now().Add(time.Minute)) {
		t.Errorf("line of %q at %v", line.ID, line.Time)
	}
	for i, q := range line.Questions {
		if diff := cmp.Diff(in[i], q.Input); diff != "" {
			t.Errorf("question %d: %s", i, diff)
		}
		if diff := cmp.Diff(out[i], q.Decision); diff != "" {
			t.Errorf("answer %d: %s", i, diff)
		}
		if q.Opaque != nil || q.Redacted != nil {
			t.Errorf("question %d: %v and %v left out", i, q.Opaque, q.Redacted)
		}
	}
	if len(line.Questions) != len(in) {
		t.Errorf("%d questions of %d", len(line.Questions), len(in))
	}
	if s.Lost() != 0 {
		t.Errorf("%d lost", s.Lost())
	}
}

// Every field of what is kept must come back, so that one which is added to grants
// is not forgotten here.
func TestEveryFieldComesBack(t *testing.T) {
	var in grants.Input
	var out grants.Decision
	fill(t, reflect.ValueOf(&in).Elem())
	fill(t, reflect.ValueOf(&out).Elem())
	in.Args = parse(t, `{"a": 1}`)
	in.Tool = "" // else the catalogue withholds
	out.Allow, out.Reason = false, grants.Policy
	path := testPath(t)
	ask(openInputs(t, path), "d_1", in, out)
	all, bad := readAll(t, path)
	if len(all) != 1 {
		t.Fatal(bad)
	}
	if diff := cmp.Diff(in, all[0].Questions[0].Input); diff != "" {
		t.Error(diff)
	}
	out.Advice = "" // said not to be kept
	if diff := cmp.Diff(out, all[0].Questions[0].Decision); diff != "" {
		t.Error(diff)
	}
}

// fill gives every field a value that is not its zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = now
		return
	case *any:
		*x = "x"
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(7)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Slice:
		if v.Type().Name() == "RawMessage" {
			v.SetBytes([]byte(`{"r":1}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	default:
		t.Fatalf("no value for a %v: teach fill", v.Type())
	}
}

func TestWithheld(t *testing.T) {
	const canary = "CANARY"
	path := testPath(t)
	s := openInputs(t, path)
	args := parse(t, `{"body": {"amount": 1, "iban": "CANARY-1", "blob": "CANARY-2", "payee": {"name": "CANARY-3", "city": "K"}}}`)
	for i, in := range []grants.Input{
		call(testGrant(), args),
		call(testGrant(), parse(t, `{"body": {"amount": 1, "iban": null}}`)),
		call(testGrant(), parse(t, `{"body": "K", "query": {}}`)),
		{Action: "call:bank/gone", Requester: agent, Principal: agent, Tool: "bank/gone", Args: args, At: now},
	} {
		ask(s, idOf(i), in, allow(oldRe))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(canary)) {
		t.Errorf("a withheld value is in the file:\n%s", text)
	}
	all, bad := readAll(t, path)
	if len(all) != 4 {
		t.Fatal(bad)
	}
	for i, want := range []Question{
		{Input: call(nil, parse(t, `{"body": {"amount": 1, "payee": {"city": "K"}}}`)), Opaque: []string{"/body/blob"}, Redacted: []string{"/body/iban", "/body/payee/name"}},
		{Input: call(nil, parse(t, `{"body": {"amount": 1}}`)), Redacted: []string{"/body/iban"}},
		{Input: call(nil, parse(t, `{"body": "K", "query": {}}`))},
		{Redacted: []string{""}},
	} {
		got := all[i].Questions[0]
		if diff := cmp.Diff(want.Input.Args, got.Input.Args); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
		if diff := cmp.Diff([][]string{want.Opaque, want.Redacted}, [][]string{got.Opaque, got.Redacted}); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
	}
	// The question itself, which the door goes on with, is as it was.
	if want := parse(t, `{"body": {"amount": 1, "iban": "CANARY-1", "blob": "CANARY-2", "payee": {"name": "CANARY-3", "city": "K"}}}`); !cmp.Equal(want, args) {
		t.Errorf("the arguments were changed: %v", args)
	}
}

func TestOpenRefuses(t *testing.T) {
	c := testCatalog(t, testTools)
	for name, tc := range map[string]struct {
		config func(t *testing.T, path string) InputsConfig
		want   string
	}{
		"no catalogue": {func(_ *testing.T, path string) InputsConfig { return InputsConfig{File: path} }, "no catalogue"},
		"negative bound": {func(_ *testing.T, path string) InputsConfig {
			return InputsConfig{File: path, Catalog: c, MaxBytes: -1}
		}, "a bound of -1"},
		"others may read it": {func(t *testing.T, path string) InputsConfig {
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o640)); err != nil {
				t.Fatal(err)
			}
			return InputsConfig{File: path, Catalog: c}
		}, "chmod 600"},
		"a folder": {func(_ *testing.T, path string) InputsConfig {
			return InputsConfig{File: strings.TrimSuffix(path, "/inputs.jsonl"), Catalog: c}
		}, "is a directory"},
		"a pipe": {func(t *testing.T, path string) InputsConfig {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			return InputsConfig{File: path, Catalog: c}
		}, "not a regular file"},
		"open already": {func(t *testing.T, path string) InputsConfig {
			openInputs(t, path)
			return InputsConfig{File: path, Catalog: c}
		}, "another writer"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(tc.config(t, testPath(t)))
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want …%s…", err, tc.want)
			}
		})
	}
	path := testPath(t)
	openInputs(t, path)
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestConcurrent(t *testing.T) {
	path := testPath(t)
	s := openInputs(t, path)
	args := parse(t, `{"body": {"amount": 1, "iban": "x"}}`)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				ask(s, fmt.Sprintf("d_%d_%d", w, i), call(testGrant(), args), allow(oldRe, "a"))
			}
		})
	}
	wg.Wait()
	all, bad := readAll(t, path)
	if len(bad) > 0 || len(all) != 400 || s.Lost() != 0 {
		t.Errorf("%d lines, %v, %d lost", len(all), bad, s.Lost())
	}
}

// A torn line stays where it is, and harms none that follows.
func TestGoesOnBehindATornLine(t *testing.T) {
	path := testPath(t)
	s := openInputs(t, path)
	ask(s, "d_1", baseline("bank/look"), allow(oldRe))
	s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(whole, whole[:40]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, bad := readAll(t, path); len(all) != 1 || len(bad) != 1 || !errors.Is(bad[0], ErrTorn) || !strings.HasPrefix(bad[0].Error(), "line 2: ") {
		t.Errorf("%d lines, %v", len(all), bad)
	}
	s = openInputs(t, path)
	ask(s, "d_2", baseline("bank/look"), allow(oldRe))
	ask(s, "d_3", baseline("bank/look"), allow(oldRe))
	all, bad := readAll(t, path)
	if len(all) != 3 || all[1].ID != "d_2" || all[2].ID != "d_3" || len(bad) != 1 || errors.Is(bad[0], ErrTorn) {
		t.Errorf("%d lines, %v", len(all), bad)
	}
}

func logged(level zapcore.Level) (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(level)
	return zap.New(core), logs
}

func TestBound(t *testing.T) {
	path := testPath(t)
	logger, logs := logged(zap.WarnLevel)
	// Room for three lines, and not for one more but for a shorter one.
	limit := 4*int64(len(goodLine(t, idOf(0), baseline("bank/look"), allow(oldRe, "p")))) - 20
	s, err := Open(InputsConfig{File: path, Catalog: testCatalog(t, testTools), MaxBytes: limit, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	for s.Lost() == 0 && n < 100 {
		ask(s, idOf(n), baseline("bank/look"), allow(oldRe, "p"))
		n++
	}
	for range 10 {
		ask(s, "d", baseline("bank/look"), grants.Decision{}) // which is shorter, and does not come behind the gap
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > limit || fi.Size() < limit/2 {
		t.Errorf("%d bytes, %v", fi.Size(), err)
	}
	if s.Lost() != 11 || logs.Len() != 1 || !strings.Contains(logs.All()[0].Message, "bound") {
		t.Errorf("%d lost, %v", s.Lost(), logs.All())
	}
	var ids []string
	for i := range n - 1 {
		ids = append(ids, idOf(i))
	}
	wantLines(t, path, ids...)
}

// What cannot be written is counted, told of once in 10 seconds, and leaves
// nothing behind.
func TestFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testPath(t)
		logger, logs := logged(zap.ErrorLevel)
		s, err := Open(InputsConfig{File: path, Catalog: testCatalog(t, testTools), Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		one := func(id string) { ask(s, id, baseline("bank/look"), allow(oldRe)) }
		write := s.file.write
		one("d_1")
		s.file.write = func(b []byte) (int, error) {
			n, _ := write(b[:len(b)/2])
			return n, syscall.ENOSPC
		}
		for range 3 {
			one("lost")
		}
		if s.Lost() != 3 || logs.Len() != 1 {
			t.Errorf("%d lost, %v", s.Lost(), logs.All())
		}
		wantLines(t, path, "d_1") // the halves were taken back
		time.Sleep(tellEvery)
		one("lost")
		if logs.Len() != 2 || logs.All()[1].ContextMap()["count"] != uint64(3) {
			t.Errorf("%v", logs.All())
		}

		// A half that cannot be taken back becomes a line of its own.
		s.file.truncate = func(int64) error { return syscall.EIO }
		one("lost")
		s.file.write = write
		one("d_2")
		all, bad := readAll(t, path)
		if len(all) != 2 || all[1].ID != "d_2" || len(bad) != 1 || s.Lost() != 5 {
			t.Errorf("%d lines, %v, %d lost", len(all), bad, s.Lost())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if logs.Len() != 3 { // what was not told of yet
			t.Errorf("%v", logs.All())
		}
		one("lost")
		if s.Lost() != 6 || s.Close() != nil {
			t.Errorf("%d lost after the end", s.Lost())
		}
	})
}

// A file that another has cut is not filled with zeros when a write fails.
func TestCutByAnother(t *testing.T) {
	path := testPath(t)
	s := openInputs(t, path)
	ask(s, "d_1", baseline("bank/look"), allow(oldRe))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write := s.file.write
	s.file.write = func(b []byte) (int, error) {
		n, _ := write(b[:10])
		return n, syscall.EIO
	}
	ask(s, "d_2", baseline("bank/look"), allow(oldRe))
	s.file.write = write
	ask(s, "d_3", baseline("bank/look"), allow(oldRe))
	all, bad := readAll(t, path)
	if len(all) != 1 || all[0].ID != "d_3" || len(bad) != 0 {
		t.Errorf("%d lines, %v", len(all), bad)
	}
}

func TestNoQuestionsAreLost(t *testing.T) {
	path := testPath(t)
	s := openInputs(t, path)
	huge := baseline("bank/look")
	huge.Requester.Subject = strings.Repeat("x", MaxLine)
	s.Asked("d_1", []grants.Input{baseline("bank/look")}, nil)
	s.Asked("d_1", nil, nil)
	s.Asked("", []grants.Input{baseline("bank/look")}, []grants.Decision{{}})
	ask(s, "d_1", huge, grants.Decision{})
	ask(s, "d_1", baseline("bank/look"), grants.Decision{Reason: 250})
	if s.Lost() != 5 {
		t.Errorf("%d lost", s.Lost())
	}
	wantLines(t, path)
}

func BenchmarkAsked(b *testing.B) {
	s, err := Open(InputsConfig{File: testPath(b), Catalog: testCatalog(b, testTools), MaxBytes: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	in := []grants.Input{call(testGrant(), parse(b, `{"body": {"amount": 12.5, "iban": "DE00", "payee": {"name": "a", "city": "b"}}}`))}
	out := []grants.Decision{allow(oldRe, "permit-pay")}
	b.ReportAllocs()
	for b.Loop() {
		s.Asked("d_abcdefghijklmnopqrstuvwxyz", in, out)
	}
	if s.Lost() > 0 {
		b.Fatalf("%d lost", s.Lost())
	}
}
