package cedar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/toolgrant/toolgrant/grants"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ grants.Decider = (*Live)(nil).Decide

// onlyPay and onlyExport each permit one of two calls.
const (
	onlyPay    = `@id("pay") permit (principal, action in Toolgrant::Action::"call", resource == Toolgrant::Tool::"bank/pay");` + "\n"
	onlyExport = `@id("export") permit (principal, action in Toolgrant::Action::"call", resource == Toolgrant::Tool::"reports/export");` + "\n"
)

var payOrExport = []grants.Input{call("bank/pay", nil, nil), call("reports/export", nil, nil)}

// watched is a Live and what its hooks were told.
type watched struct {
	*Live
	dir string

	mu       sync.Mutex
	reloads  []grants.Digest
	failures []string
}

func watch(t *testing.T, dir string) *watched {
	t.Helper()
	return watchConfig(t, Config{Dir: dir})
}

func watchConfig(t *testing.T, cfg Config) *watched {
	t.Helper()
	w := &watched{dir: cfg.Dir}
	cfg.Catalog, cfg.Groups = testCatalog(t), []string{"ops"}
	var err error
	w.Live, err = Open(cfg, LiveConfig{
		OnReload: func(old, new *Set) {
			if w.Current() != new || old == new || old.Revision() == new.Revision() {
				t.Errorf("told of a reload from %v to %v, and %v is in force", old.Revision(), new.Revision(), w.Current().Revision())
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reloads = append(w.reloads, new.Revision())
		},
		OnFailure: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.failures = append(w.failures, err.Error())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// permits holds which of payOrExport is permitted.
func (w *watched) permits(t *testing.T, pay, export bool) {
	t.Helper()
	ds, err := w.Decide(context.Background(), payOrExport)
	if err != nil || ds[0].Allow != pay || ds[1].Allow != export {
		t.Errorf("decided %+v, %v; want pay %v, export %v", ds, err, pay, export)
	}
}

func (w *watched) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *watched) told(t *testing.T, reloads, failures int) {
	t.Helper()
	w.toldOfFailures(t, failures)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reloads) != reloads {
		t.Errorf("told of %d reloads; want %d", len(w.reloads), reloads)
	}
}

// toldOfFailures gives the last failure that was told, of so many.
func (w *watched) toldOfFailures(t *testing.T, failures int) (last string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failures) != failures {
		t.Errorf("told of the failures %q; want %d", w.failures, failures)
	}
	if len(w.failures) > 0 {
		last = w.failures[len(w.failures)-1]
	}
	return last
}

func TestReload(t *testing.T) {
	w := watch(t, dir(t, "p.cedar", onlyPay))
	first := w.Current()
	if changed, err := w.Reload(); changed || err != nil || w.Current() != first {
		t.Errorf("of the same: %v, %v", changed, err)
	}
	w.permits(t, true, false)
	w.write(t, "p.cedar", onlyExport)
	w.permits(t, true, false)
	if changed, err := w.Reload(); !changed || err != nil {
		t.Errorf("of another: %v, %v", changed, err)
	}
	w.permits(t, false, true)
	w.told(t, 1, 0)
	if s := w.Status(); s.Loaded.IsZero() || s.Revision != w.Current().Revision() || s.Failed != nil || !s.FailedAt.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// What is broken never comes into force, and is told: the set of before stays.
func TestBrokenReload(t *testing.T) {
	when := func(condition string) string {
		return `@id("b") permit (principal, action == Toolgrant::Action::"call:bank/pay", resource) when { ` + condition + ` };`
	}
	scope := func(scope string) string { return `@id("b") permit (` + scope + `);` }
	broken := map[string]string{ // q.cedar, beside a good p.cedar
		"empty":              "",
		"cut off":            `@id("b") forbid (principal, acti`,
		"no semicolon":       `@id("b") permit (principal, action, resource)`,
		"misspelt effect":    `@id("b") permitt (principal, action, resource);`,
		"unbalanced":         when(`(true`),
		"string without end": when(`principal.subject == "x`),
		"another language":   "default allow = true",
		"not UTF-8":          when("true") + "\xff\xfe",
		"block comment":      "/* */" + when("true"),
		"no id":              `permit (principal, action, resource);`,
		"id taken":           onlyPay,
		"template":           scope(`principal == ?principal, action, resource`),
		"unknown action":     scope(`principal, action == Toolgrant::Action::"delete", resource`),
		"unknown tool":       scope(`principal, action, resource == Toolgrant::Tool::"bank/steal"`),
		"unknown server":     scope(`principal, action, resource in Toolgrant::ToolServer::"banc"`),
		"unknown group":      scope(`principal in Toolgrant::AgentGroup::"opps", action, resource`),
		"unknown kind":       scope(`principal, action, resource == Toolgrant::TaskKind::"release"`),
		"unknown type":       scope(`principal is Toolgrant::User, action, resource`),
		"wrong type":         when(`context has input && context.input.body.to > 3`),
		"unguarded":          when(`context.input.body.to == "x"`),
		"misspelt has":       when(`context has inptu`),
		"misspelt kind":      when(`context has grant && context.grant.kind == "x"`),
		"impossible scope":   scope(`principal, action == Toolgrant::Action::"grant", resource is Toolgrant::TaskKind`),
	}
	if len(broken) < 20 {
		t.Fatalf("%d broken files", len(broken))
	}
	w := watch(t, dir(t, "p.cedar", onlyPay))
	first := w.Current()
	told := 0
	for name, text := range broken {
		t.Run(name, func(t *testing.T) {
			// A set that would permit everything must not come in with it.
			w.write(t, "r.cedar", permitAll)
			w.write(t, "q.cedar", text)
			changed, err := w.Reload()
			told++
			if changed || err == nil || w.Current() != first {
				t.Errorf("reloaded: %v, %v", changed, err)
			}
			w.permits(t, true, false)
			w.told(t, 0, told)
			if s := w.Status(); s.Revision != first.Revision() || s.Failed == nil || s.FailedAt.IsZero() || s.Failed.Error() != w.failures[told-1] {
				t.Errorf("status %+v", s)
			}
		})
	}
	if err := errors.Join(os.Remove(filepath.Join(w.dir, "q.cedar")), os.Remove(filepath.Join(w.dir, "r.cedar"))); err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Reload(); changed || err != nil {
		t.Errorf("mended: %v, %v", changed, err)
	}
	if s := w.Status(); s.Failed != nil || !s.FailedAt.IsZero() {
		t.Errorf("mended, and the status has %+v", s)
	}
}

// Whatever becomes of the directory: at the start it is refused, and while
// running the last good set stays. Neither ever allows more.
func TestDirectoryLost(t *testing.T) {
	for name, lose := range map[string]func(dir string) error{
		"all files deleted": func(d string) error { return os.Remove(filepath.Join(d, "p.cedar")) },
		"gone":              os.RemoveAll,
		"a file in its place": func(d string) error {
			return errors.Join(os.RemoveAll(d), os.WriteFile(d, []byte(permitAll), 0o600))
		},
		"emptied file":    func(d string) error { return os.Truncate(filepath.Join(d, "p.cedar"), 0) },
		"half of a file":  func(d string) error { return os.Truncate(filepath.Join(d, "p.cedar"), int64(len(onlyPay)/2)) },
		"link to nothing": func(d string) error { return os.Symlink("gone", filepath.Join(d, "q.cedar")) },
		"swapped for an empty one": func(d string) error {
			return errors.Join(os.Rename(d, d+".old"), os.Mkdir(d+".new", 0o700), os.Symlink(d+".new", d))
		},
		"100,000 policies": func(d string) error {
			files := many(100_000)
			for i := 0; i < len(files); i += 2 {
				if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"not readable": func(d string) error {
			if os.Getuid() == 0 { // root reads all; a directory is no file to anybody
				return errors.Join(os.Remove(filepath.Join(d, "p.cedar")), os.Mkdir(filepath.Join(d, "p.cedar"), 0o700))
			}
			return os.Chmod(filepath.Join(d, "p.cedar"), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "policies")
			if err := os.Rename(dir(t, "p.cedar", onlyPay), d); err != nil {
				t.Fatal(err)
			}
			w := watch(t, d)
			if err := lose(w.dir); err != nil {
				t.Fatal(err)
			}
			if changed, err := w.Reload(); changed || err == nil {
				t.Errorf("reloaded: %v, %v", changed, err)
			}
			w.permits(t, true, false)
			w.told(t, 0, 1)
			if l, err := Open(w.cfg, LiveConfig{}); err == nil || l != nil {
				t.Error("opened")
			}
		})
	}
}

// Run finds what changed, when it has come to rest.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, mount(t, "p.cedar", onlyPay))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { w.Run(ctx) })
		rest := func() {
			t.Helper()
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		rest()
		w.told(t, 0, 0)

		// A mounted ConfigMap: ..data turns round.
		next := "..2026_11_24_12_00_01.1"
		version := filepath.Join(w.dir, next)
		if err := errors.Join(os.Mkdir(version, 0o700), os.WriteFile(filepath.Join(version, "p.cedar"), []byte(onlyExport), 0o600),
			os.Symlink(next, filepath.Join(w.dir, "..data_tmp")), os.Rename(filepath.Join(w.dir, "..data_tmp"), filepath.Join(w.dir, "..data"))); err != nil {
			t.Fatal(err)
		}
		rest()
		w.permits(t, false, true)
		w.told(t, 1, 0)

		// An editor's rename, of the same length and time.
		name := filepath.Join(w.dir, "p.cedar")
		before, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, "p.cedar.new", strings.Replace(onlyExport, "permit", "forbid", 1))
		if err := errors.Join(os.Chtimes(name+".new", before.ModTime(), before.ModTime()), os.Rename(name+".new", name)); err != nil {
			t.Fatal(err)
		}
		rest()
		w.permits(t, false, false)
		w.told(t, 2, 0)

		// Written in pieces: none of them comes into force, and none is told.
		long := strings.Replace(onlyPay, `"pay"`, `"pay-too"`, 1)
		for i := range 8 { // over two looks, and for less than Every after the first
			w.write(t, "q.cedar", long[:i*len(long)/8])
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
		}
		w.told(t, 2, 0)
		w.write(t, "q.cedar", long)
		rest()
		w.permits(t, true, false)
		w.told(t, 3, 0)

		// Left broken, it is told once, and the next break once more.
		w.write(t, "q.cedar", "permit")
		rest()
		time.Sleep(time.Minute)
		w.told(t, 3, 1)
		w.write(t, "q.cedar", "forbid")
		rest()
		time.Sleep(time.Minute)
		w.told(t, 3, 2)
		w.permits(t, true, false)

		// What Reload has told, Run does not tell again.
		w.write(t, "q.cedar", "")
		if _, err := w.Reload(); err == nil {
			t.Error("reloaded")
		}
		time.Sleep(time.Minute)
		w.told(t, 3, 3)

		// Mended: nothing new is in force, and nothing failed.
		w.write(t, "q.cedar", long)
		rest()
		w.told(t, 3, 3)
		if s := w.Status(); s.Failed != nil {
			t.Error(s.Failed)
		}
		cancel()
		wg.Wait()
	})
}

// Whoever keeps rewriting one file keeps nothing in another from coming into
// force, and what is broken meanwhile is told once.
func TestRunWithoutRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, dir(t, "p.cedar", onlyPay))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { w.Run(ctx) })
		n := 0
		busyFor := func(d time.Duration) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); n++ {
				w.write(t, "r.cedar", fmt.Sprintf("// %d\n%s", n, onlyExport))
				time.Sleep(100 * time.Millisecond)
				synctest.Wait() // nobody reads while the file is written
			}
		}
		failure := func(some bool) (since time.Time) {
			t.Helper()
			st := w.Status()
			failed, since := st.Failed, st.FailedAt
			if (failed != nil) != some {
				t.Errorf("the status has %v", failed)
			}
			return since
		}
		const forbid = `@id("stop") forbid (principal, action, resource == Toolgrant::Tool::"bank/pay");`
		busyFor(time.Second)
		w.write(t, "q.cedar", forbid)
		busyFor(3 * time.Second)
		w.permits(t, false, true)
		w.toldOfFailures(t, 0)
		failure(false)

		w.write(t, "q.cedar", "forbid")
		busyFor(3 * time.Second)
		since := failure(true)
		busyFor(10 * time.Second)
		if later := failure(true); since.IsZero() || !later.Equal(since) {
			t.Errorf("it has failed since %v, and later since %v", since, later)
		}
		w.permits(t, false, true)
		w.toldOfFailures(t, 1)

		w.write(t, "q.cedar", strings.Replace(forbid, "bank/pay", "reports/export", 1))
		busyFor(time.Second)
		w.permits(t, true, false)
		failure(false)

		// A second break is told again and, when it rests and is another one,
		// once more.
		w.write(t, "q.cedar", "forbid")
		busyFor(5 * time.Second)
		w.write(t, "q.cedar", "")
		busyFor(2 * time.Second)
		w.toldOfFailures(t, 2)
		time.Sleep(time.Minute)
		synctest.Wait()
		last := w.toldOfFailures(t, 3)
		if failed := w.Status().Failed; failed == nil || failed.Error() != last {
			t.Errorf("the status has %v, and %q was told", failed, last)
		}
		w.permits(t, true, false)
		cancel()
		wg.Wait()
	})
}

// Each batch is decided by one set, the one whose revision it carries, however
// often sets are swapped meanwhile.
func TestReloadWhileDeciding(t *testing.T) {
	w := watch(t, dir(t, "p.cedar", onlyPay))
	pay := w.Current().Revision()
	w.write(t, "p.cedar", onlyExport)
	if _, err := w.Reload(); err != nil {
		t.Fatal(err)
	}
	export := w.Current().Revision()

	var wg sync.WaitGroup
	var stop atomic.Bool
	var byPay, byExport atomic.Int64
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				ds, err := w.Decide(context.Background(), payOrExport)
				if err != nil {
					t.Error(err)
					return
				}
				one := ds[0].Revision
				if ds[1].Revision != one || ds[0].Allow != (one == pay) || ds[1].Allow != (one == export) {
					t.Errorf("decided %+v", ds)
					return
				}
				if one == pay {
					byPay.Add(1)
				} else {
					byExport.Add(1)
				}
			}
		})
	}
	for range 2 { // two at once
		wg.Go(func() {
			for !stop.Load() {
				_, _ = w.Reload() // while the file is swapped it may fail, and then keeps the set
				w.Status()
			}
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; byPay.Load() < 1000 || byExport.Load() < 1000 || i < 50; i++ {
		if time.Now().After(deadline) {
			t.Errorf("decided %d and %d times", byPay.Load(), byExport.Load())
			break
		}
		w.write(t, "next", []string{onlyPay, onlyExport}[i%2])
		if err := os.Rename(filepath.Join(w.dir, "next"), filepath.Join(w.dir, "p.cedar")); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	for i := 1; i < len(w.reloads); i++ {
		if w.reloads[i] == w.reloads[i-1] {
			t.Errorf("reload %d brought the revision of the one before", i)
		}
	}
}

// What a policy can make a decision cost at most: a pattern of the longest kind
// against the longest text, a group at the end of the longest chain, as many
// policies as are loaded, each of which could match, and the most parameters.
func BenchmarkPathological(b *testing.B) {
	run := func(name string, s *Set, in grants.Input) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				ds, err := s.Decide(context.Background(), []grants.Input{in})
				if err != nil || !ds[0].Allow {
					b.Fatalf("%+v, %v", ds, err)
				}
			}
		})
	}
	group := func(id, parent string) string {
		return fmt.Sprintf(`{"uid": {"type": "Toolgrant::AgentGroup", "id": %q}, "parents": [{"type": "Toolgrant::AgentGroup", "id": %q}]}`, id, parent)
	}
	text := strings.Repeat("a", 64<<10)
	in := call("bank/pay", nil, map[string]any{"body": map[string]any{"amount": parse(b, "1"), "to": text}})
	in.Principal.Groups, in.Requester.Groups = []string{"g0"}, []string{"g0"}
	for name, condition := range map[string]string{
		"like": `context has input && context.input.body.to like "*` + strings.Repeat("a", maxPattern-4) + `b"`,
		"many": `context has input && context.input.body.to like "` + strings.Repeat("*a", maxPattern/2-2) + `b"`,
		"in":   `principal in Toolgrant::AgentGroup::"other"`,
	} {
		s, err := Load(config(b, "p.cedar", permitAll+`@id("f") forbid (principal, action == Toolgrant::Action::"call:bank/pay", resource) when { `+condition+` };`,
			"entities.json", `[{"uid": {"type": "Toolgrant::AgentGroup", "id": "other"}}, `+strings.TrimPrefix(deepGroups(group, maxAncestors-2), "[")))
		if err != nil {
			b.Fatal(err)
		}
		run(name, s, in)
	}
	crowd, err := Load(config(b, crowdOf(maxPolicies)...))
	if err != nil {
		b.Fatal(err)
	}
	run("10,000 policies", crowd, in)

	cfg := config(b, "p.cedar", permitAll)
	cfg.Manifests = dir(b, "wide.yaml", "kind: wide\nparams: {type: object, required: [list], properties: {list: {type: array, items: {type: integer}, maxItems: 1024}}}\ntools:\n- {tool: bank/pay}\n")
	wide, err := Load(cfg)
	if err != nil {
		b.Fatal(err)
	}
	list := make([]string, maxArray)
	for i := range list {
		list[i] = fmt.Sprint(1000 + i)
	}
	start := startTask("wide")
	start.Task.Params = json.RawMessage(`{"list":[` + strings.Join(list, ",") + `]}`)
	run("params", wide, start)
}

// crowdOf gives files of n policies, each of which could match any question and
// has its condition evaluated.
func crowdOf(n int) []string {
	var files []string
	for i := 0; i < n; {
		var text strings.Builder
		if i == 0 {
			text.WriteString(permitAll)
			i++
		}
		for ; i < n && text.Len() < 200_000; i++ {
			fmt.Fprintf(&text, "@id(\"%d\")forbid(principal,action,resource)when{principal.subject==\"x%d\"};", i, i)
		}
		files = append(files, fmt.Sprintf("%d.cedar", i), text.String())
	}
	return files
}

// As many policies as are loaded are all heard.
func TestCrowdOfPolicies(t *testing.T) {
	s, err := Load(config(t, crowdOf(maxPolicies)...))
	if err != nil {
		t.Fatal(err)
	}
	pay := call("bank/pay", nil, nil)
	want(t, decide(t, s, pay), "allow all")
	pay.Principal.Subject = fmt.Sprintf("x%d", maxPolicies-1)
	want(t, decide(t, s, pay), fmt.Sprintf("policy %d", maxPolicies-1))
}
