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

	"github.com/toolgrant/toolgrant/grants"
)

// mayPay and mayExport are manifests of one kind, each with one of two tools.
const (
	mayPay    = "kind: work\ntools:\n- {tool: bank/pay}\n"
	mayExport = "kind: work\ntools:\n- {tool: reports/export}\n"
)

// workAsks are two questions of which mayPay and mayExport each cover one.
func workAsks() []grants.Input {
	task := testTask("work")
	task.Params = json.RawMessage(`{}`)
	return []grants.Input{testGrant("bank/pay").Asks(task, now)[0], testGrant("reports/export").Asks(task, now)[0]}
}

// watchManifests gives a Live with policies that permit everything and mayPay.
func watchManifests(t *testing.T, folder string) *watched {
	t.Helper()
	w := watchConfig(t, Config{Dir: dir(t, "p.cedar", permitAll), Manifests: folder})
	w.covers(t, true, false)
	return w
}

// covers holds which of workAsks is covered, and that nothing else is permitted.
func (w *watched) covers(t *testing.T, pay, export bool) {
	t.Helper()
	ds, err := w.Decide(context.Background(), workAsks())
	if err != nil || ds[0].Allow != pay || ds[1].Allow != export {
		t.Errorf("decided %+v, %v; want pay %v, export %v", ds, err, pay, export)
	}
	for _, d := range ds {
		if !d.Allow && d.Reason != grants.Manifest {
			t.Errorf("refused for %s", d.Reason)
		}
	}
}

func (w *watched) manifest(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.cfg.Manifests, "work.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Manifests come into force with the policies, and what is broken in either keeps
// both as they were.
func TestManifestReload(t *testing.T) {
	w := watchManifests(t, dir(t, "work.yaml", mayPay))
	first := w.Current()
	w.manifest(t, "# a comment\n"+mayPay)
	if changed, err := w.Reload(); changed || err != nil || w.Current() != first {
		t.Errorf("of the same: %v, %v", changed, err)
	}
	w.manifest(t, mayExport)
	w.covers(t, true, false)
	if changed, err := w.Reload(); !changed || err != nil {
		t.Errorf("of another: %v, %v", changed, err)
	}
	w.covers(t, false, true)
	w.told(t, 1, 0)

	// A policy and a manifest that are good alone, and not together.
	w.manifest(t, "kind: other\ntools:\n- {tool: bank/pay}\n")
	w.write(t, "q.cedar", `@id("q") permit (principal, action, resource == Toolgrant::TaskKind::"work");`)
	if changed, err := w.Reload(); changed || err == nil {
		t.Errorf("of a kind that is gone: %v, %v", changed, err)
	}
	w.covers(t, false, true)
	w.manifest(t, mayPay)
	if changed, err := w.Reload(); !changed || err != nil {
		t.Errorf("mended: %v, %v", changed, err)
	}
	w.covers(t, true, false)
	w.told(t, 2, 1)
}

// A broken manifest never comes into force, nor do policies beside it.
func TestBrokenManifestReload(t *testing.T) {
	broken := map[string]string{ // x.yaml, beside a good work.yaml
		"empty":                  "",
		"not YAML":               "kind: [",
		"cut off":                "kind: x\ntools:\n- {tool: bank/pay",
		"cut off behind a key":   "kind: x\ntools:",
		"another language":       "default allow = true",
		"not UTF-8":              mayExport + "\xff\xfe",
		"two documents":          strings.Replace(mayExport, "work", "x", 1) + "---\n" + mayExport,
		"an alias":               "kind: x\ntools: &t\n- {tool: bank/pay}\nmore: *t\n",
		"no kind":                "tools:\n- {tool: bank/pay}\n",
		"kind taken":             mayExport,
		"no tools":               "kind: x\n",
		"unknown tool":           "kind: x\ntools:\n- {tool: bank/pya}\n",
		"tool twice":             "kind: x\ntools:\n- {tool: bank/pay}\n- {tool: bank/pay}\n",
		"unknown key":            "kind: x\ntols: []\ntools:\n- {tool: bank/pay}\n",
		"misspelt bound":         "kind: x\ntools:\n- {tool: bank/pay, max_cals: 3}\n",
		"unknown argument":       "kind: x\ntools:\n- {tool: bank/pay, input: {body: {recipient: {const: a}}}}\n",
		"unknown parameter":      "kind: x\ntools:\n- {tool: bank/pay, input: {body: {amount: {}, to: {const: {$param: to}}}}}\n",
		"parameter in a pattern": "kind: x\nparams: {type: object, required: [to], properties: {to: {type: string}}}\ntools:\n- {tool: bank/pay, input: {body: {amount: {}, to: {pattern: {$param: to}}}}}\n",
		"wrong type":             "kind: x\ntools:\n- {tool: bank/pay, max_calls: many}\n",
		"bound that cannot be":   "kind: x\ntools:\n- {tool: bank/pay, max_calls: 0}\n",
		"keyword of no profile":  "kind: x\ntools:\n- {tool: bank/pay, input: {body: {amount: {multipleOf: 2}, to: {}}}}\n",
	}
	if len(broken) < 20 {
		t.Fatalf("%d broken files", len(broken))
	}
	w := watchManifests(t, dir(t, "work.yaml", mayPay))
	first := w.Current()
	told := 0
	for name, text := range broken {
		t.Run(name, func(t *testing.T) {
			w.write(t, "q.cedar", strings.ReplaceAll(permitAll, "all", "more"))
			if err := os.WriteFile(filepath.Join(w.cfg.Manifests, "x.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			changed, err := w.Reload()
			told++
			if changed || err == nil || w.Current() != first || !strings.Contains(err.Error(), "x.yaml:") && !strings.Contains(err.Error(), "work.yaml:") {
				t.Errorf("reloaded: %v, %v", changed, err)
			}
			w.covers(t, true, false)
			w.told(t, 0, told)
			if s := w.Status(); s.Revision != first.Revision() || s.Failed == nil || s.FailedAt.IsZero() {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// Whatever becomes of the folder of manifests: while running the last good set
// stays. Emptied, it would be a folder without manifests, and every kind without
// its ceiling; so that is refused too, unless it is so from the start.
func TestManifestsLost(t *testing.T) {
	for name, lose := range map[string]func(folder string) error{
		"all files deleted": func(d string) error { return os.Remove(filepath.Join(d, "work.yaml")) },
		"gone":              os.RemoveAll,
		"a file in its place": func(d string) error {
			return errors.Join(os.RemoveAll(d), os.WriteFile(d, []byte(mayExport), 0o600))
		},
		"emptied file":    func(d string) error { return os.Truncate(filepath.Join(d, "work.yaml"), 0) },
		"half of a file":  func(d string) error { return os.Truncate(filepath.Join(d, "work.yaml"), int64(len(mayPay)/2)) },
		"link to nothing": func(d string) error { return os.Symlink("gone", filepath.Join(d, "x.yaml")) },
		"renamed":         func(d string) error { return os.Rename(filepath.Join(d, "work.yaml"), filepath.Join(d, "work.yml")) },
		"in a sub-folder": func(d string) error {
			return errors.Join(os.Mkdir(filepath.Join(d, "sub"), 0o700), os.WriteFile(filepath.Join(d, "sub/x.yaml"), nil, 0o600))
		},
		"renamed to a copy": func(d string) error {
			return os.Rename(filepath.Join(d, "work.yaml"), filepath.Join(d, "work.yaml.old"))
		},
		"swapped for an empty one": func(d string) error {
			return errors.Join(os.Rename(d, d+".old"), os.Mkdir(d+".new", 0o700), os.Symlink(d+".new", d))
		},
		"not readable": func(d string) error {
			if os.Getuid() == 0 { // root reads all; a directory is no file to anybody
				return errors.Join(os.Remove(filepath.Join(d, "work.yaml")), os.Mkdir(filepath.Join(d, "work.yaml"), 0o700))
			}
			return os.Chmod(filepath.Join(d, "work.yaml"), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "manifests")
			if err := os.Rename(dir(t, "work.yaml", mayPay), d); err != nil {
				t.Fatal(err)
			}
			w := watchManifests(t, d)
			first := w.Current()
			if err := lose(d); err != nil {
				t.Fatal(err)
			}
			for range 2 { // nor at the second try
				if changed, err := w.Reload(); changed || err == nil || w.Current() != first || w.Status().Failed == nil {
					t.Errorf("reloaded: %v, %v", changed, err)
				}
			}
			w.covers(t, true, false)
			w.told(t, 0, 2)
		})
	}
	w := watchConfig(t, Config{Dir: dir(t, "p.cedar", permitAll), Manifests: t.TempDir()})
	w.covers(t, false, false) // of a task that has parameters
	w.manifest(t, mayPay)
	if changed, err := w.Reload(); !changed || err != nil {
		t.Errorf("the first manifest: %v, %v", changed, err)
	}
	w.covers(t, true, false)
}

// Run finds a change of manifests as it finds one of policies.
func TestRunManifests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchManifests(t, mount(t, "work.yaml", mayPay))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { w.Run(ctx) })
		rest := func() { time.Sleep(3 * w.live.Every); synctest.Wait() }
		rest()
		w.told(t, 0, 0)

		// Kubernetes swaps the version of a mount.
		d := w.cfg.Manifests
		const next = "..2026_11_24_12_00_01.77"
		if err := errors.Join(os.Mkdir(filepath.Join(d, next), 0o700), os.WriteFile(filepath.Join(d, next, "work.yaml"), []byte(mayExport), 0o600),
			os.Symlink(next, filepath.Join(d, "..data_tmp")), os.Rename(filepath.Join(d, "..data_tmp"), filepath.Join(d, "..data"))); err != nil {
			t.Fatal(err)
		}
		rest()
		w.covers(t, false, true)
		w.told(t, 1, 0)

		// Written in pieces: none of them comes into force, and none is told.
		for i := range len(mayPay) {
			if i%6 == 0 {
				w.manifest(t, mayPay[:i])
				time.Sleep(w.live.Every / 10)
				synctest.Wait()
			}
		}
		w.manifest(t, mayPay)
		w.told(t, 1, 0)
		rest()
		w.covers(t, true, false)
		w.told(t, 2, 0)

		// Broken, it is told once; emptied, once more.
		w.manifest(t, "kind: work\n")
		rest()
		time.Sleep(time.Minute)
		w.told(t, 2, 1)
		if err := os.Remove(filepath.Join(d, "work.yaml")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(d, "..data")); err != nil {
			t.Fatal(err)
		}
		rest()
		time.Sleep(time.Minute)
		w.told(t, 2, 2)

		// Policies that cannot be read, beside manifests that can: once more.
		if err := os.Rename(filepath.Join(w.dir, "p.cedar"), filepath.Join(w.dir, "p.CEDAR")); err != nil {
			t.Fatal(err)
		}
		rest()
		time.Sleep(time.Minute)
		w.told(t, 2, 3)
		w.covers(t, true, false)
		cancel()
		wg.Wait()
	})
}

// Each batch is decided by one set of policies and manifests, the one whose
// revision it carries, however often either is swapped meanwhile.
func TestManifestReloadWhileDeciding(t *testing.T) {
	w := watchManifests(t, dir(t, "work.yaml", mayPay))
	policies := []string{permitAll, strings.ReplaceAll(permitAll, "all", "other")}
	texts := []string{mayPay, mayExport}
	type pair struct{ policy, manifest int }
	revisions := map[grants.Digest]pair{}
	for i := range policies {
		for j := range texts {
			w.write(t, "p.cedar", policies[i])
			w.manifest(t, texts[j])
			if _, err := w.Reload(); err != nil {
				t.Fatal(err)
			}
			revisions[w.Current().Revision()] = pair{i, j}
		}
	}
	if len(revisions) != 4 {
		t.Fatalf("%d revisions", len(revisions))
	}
	var stop atomic.Bool
	var decided [2][2]atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			asks := workAsks()
			for !stop.Load() {
				ds, err := w.Decide(context.Background(), asks)
				if err != nil {
					t.Error(err)
					return
				}
				by, known := revisions[ds[0].Revision]
				allowed, refused := ds[by.manifest], ds[1-by.manifest]
				if !known || ds[1].Revision != ds[0].Revision || !allowed.Allow || refused.Reason != grants.Manifest ||
					allowed.Policies[0] != []string{"all", "other"}[by.policy] {
					t.Errorf("decided %+v", ds)
					return
				}
				decided[by.policy][by.manifest].Add(1)
			}
		})
	}
	wg.Go(func() {
		for !stop.Load() {
			_, _ = w.Reload() // while a file is swapped it may fail, and then keeps the set
			w.Status()
		}
	})
	enough := func() bool {
		for i := range decided {
			for j := range decided[i] {
				if decided[i][j].Load() < 500 {
					return false
				}
			}
		}
		return true
	}
	swap := func(folder, name, text string) error {
		next := filepath.Join(folder, "next")
		return errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, filepath.Join(folder, name)))
	}
	deadline := time.Now().Add(60 * time.Second)
	for i := 0; !enough() || i < 50; i++ {
		if time.Now().After(deadline) {
			t.Error("the revisions were not all decided by")
			break
		}
		if err := errors.Join(swap(w.dir, "p.cedar", policies[i%2]), swap(w.cfg.Manifests, "work.yaml", texts[i/2%2])); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

// What manifests cost a decision, and a look whether anything has changed.
func BenchmarkManifests(b *testing.B) {
	s := bounded(b, permitAll)
	task := billTask(bill)
	g := billGrant(b, s, task)
	pay := call("bank/pay", g, parse(b, `{"body": {"amount": 1, "to": "ACME"}}`))
	pay.Task = task
	for name, in := range map[string]grants.Input{
		"grant": g.Asks(task, now)[0], "grant without": grantTool("bank/pay"),
		"call": pay, "call without": call("bank/pay", testGrant("bank/pay"), pay.Args),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ds, err := s.Decide(context.Background(), []grants.Input{in}); err != nil || !ds[0].Allow {
					b.Fatalf("%+v, %v", ds, err)
				}
			}
		})
	}
	for _, n := range []int{0, 10, 1000} {
		var files []string
		for i := range n {
			files = append(files, fmt.Sprintf("%d.yaml", i), strings.Replace(payBill, "kind: pay-bill", fmt.Sprintf("kind: pay-%d", i), 1))
		}
		cfg := config(b, "p.cedar", permitAll)
		cfg.Manifests = dir(b, files...)
		l, err := Open(cfg, LiveConfig{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("look/%d", n), func(b *testing.B) {
			for b.Loop() {
				if l.look() != l.state.Load().seen {
					b.Fatal("it changed")
				}
			}
		})
	}
}
