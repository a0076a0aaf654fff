package pdp

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

func TestOPADecides(t *testing.T) {
	const said = `{"result": {"revision": "r1", "answers": [
		{"n": 0, "allow": true, "policies": ["b", "a", "b"], "advice": "not told"},
		{"n": 1, "allow": false, "advice": "ask for less"}]},
		"decision_id": "1", "provenance": {"version": "1", "bundles": {"main": {"revision": "7"}}}}`
	f := newFake(t, text(said))
	p := newOPAClient(t, f)
	unknown := call("bank/x", nil, nil)
	ds, err := p.Decide(t.Context(), []grants.Input{start(), unknown, ask(testGrant("bank/pay"))})
	if err != nil {
		t.Fatal(err)
	}
	revision := p.digest(`"r1" "main"="7"`, nil)
	want := []grants.Decision{
		{Allow: true, Policies: []string{"a", "b"}, Revision: revision},
		{Reason: grants.UnknownTool, Revision: revision},
		{Reason: grants.Policy, Advice: "ask for less", Revision: revision},
	}
	if diff := cmp.Diff(want, ds); diff != "" {
		t.Error(diff)
	}
}

// A revision rests on each of its parts, and on all of an engine's.
func TestRevisions(t *testing.T) {
	seen := map[grants.Digest]string{}
	for name, body := range map[string]string{
		"none":         `{"result": {"answers": []}}`,
		"own":          `{"result": {"answers": [], "revision": "1"}}`,
		"other":        `{"result": {"answers": [], "revision": "2"}}`,
		"bundle":       `{"result": {"answers": []}, "provenance": {"bundles": {"a": {"revision": "1"}}}}`,
		"other bundle": `{"result": {"answers": []}, "provenance": {"bundles": {"b": {"revision": "1"}}}}`,
		"both":         `{"result": {"answers": [], "revision": "1"}, "provenance": {"bundles": {"a": {}}}}`,
	} {
		var all opaAnswer
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		var own struct{ Revision string }
		if err := json.Unmarshal(all.Result, &own); err != nil {
			t.Fatal(err)
		}
		text, err := all.revision(own.Revision)
		if (name == "none") != (text == "") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		p := newPDP(t, Config{Engine: AuthZEN, URL: "http://127.0.0.1:1"})
		if other, twice := seen[p.digest(text, nil)]; twice {
			t.Errorf("%s: the revision of %s", name, other)
		}
		seen[p.digest(text, nil)] = name
	}
	half := opaAnswer{}
	if err := json.Unmarshal([]byte(`{"provenance": {"bundles": {"a": {"revision": "1"}, "b": {}}}}`), &half); err != nil {
		t.Fatal(err)
	}
	if text, _ := half.revision(""); text != "" {
		t.Errorf("%q is stated for a bundle without a revision", text)
	}
	a := newPDP(t, Config{Engine: AuthZEN, URL: "http://127.0.0.1:1"}).digest("", nil)
	b := newPDP(t, Config{Engine: AuthZEN, URL: "http://127.0.0.1:2"}).digest("", nil)
	if a == b {
		t.Error("two engines have one revision")
	}
}

// What is not one well-formed answer to each question decides nothing.
func TestBadAnswers(t *testing.T) {
	const good = `{"n": 0, "allow": true}`
	long := strings.Repeat("x", maxAdvice+1)
	for name, answer := range map[string]http.HandlerFunc{
		"undefined":              text(`{}`),
		"null":                   text(`{"result": null}`),
		"a bare boolean":         text(`{"result": true}`),
		"no answers":             text(`{"result": {}}`),
		"too few":                text(`{"result": {"answers": []}}`),
		"too many":               text(`{"result": {"answers": [` + good + `, {"n": 1, "allow": true}]}}`),
		"another's":              text(`{"result": {"answers": [{"n": 1, "allow": true}]}}`),
		"nobody's":               text(`{"result": {"answers": [{"allow": true}]}}`),
		"no decision":            text(`{"result": {"answers": [{"n": 0}]}}`),
		"a null decision":        text(`{"result": {"answers": [{"n": 0, "allow": null}]}}`),
		"a text":                 text(`{"result": {"answers": [{"n": 0, "allow": "true"}]}}`),
		"a number":               text(`{"result": {"answers": [{"n": 0, "allow": 1}]}}`),
		"misspelt":               text(`{"result": {"answers": [{"n": 0, "allow": true, "policy": "x"}]}}`),
		"policies":               text(`{"result": {"answers": [{"n": 0, "allow": true, "policies": "x"}]}}`),
		"an empty policy":        text(`{"result": {"answers": [{"n": 0, "allow": true, "policies": [""]}]}}`),
		"many policies":          text(`{"result": {"answers": [{"n": 0, "allow": true, "policies": ["x"` + strings.Repeat(`,"x"`, maxPolicies) + `]}]}}`),
		"advice too long":        text(`{"result": {"answers": [{"n": 0, "allow": false, "advice": "` + long + `"}]}}`),
		"advice with bells":      text(`{"result": {"answers": [{"n": 0, "allow": false, "advice": "\u0007"}]}}`),
		"cacheable":              text(`{"result": {"answers": [{"n": 0, "allow": true, "cacheable_for": -1}]}}`),
		"revision":               text(`{"result": {"answers": [` + good + `], "revision": "` + long + `"}}`),
		"a number of a revision": text(`{"result": {"answers": [` + good + `], "revision": 1}}`),
		"a duplicate":            text(`{"result": {"answers": [{"n": 0, "allow": false, "allow": true}]}}`),
		"cut":                    text(`{"result": {"answers": [` + good),
		"more":                   text(`{"result": {"answers": [` + good + `]}} {}`),
		"no JSON":                text(`yes`),
		"empty":                  text(``),
		"too long":               text(`{"result": {"answers": [` + good + `]}, "x": "` + strings.Repeat("x", maxAnswer) + `"}`),
		"status 500": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			text(`{"result": {"answers": [`+good+`]}}`)(w, r)
		},
		"status 201": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			text(`{"result": {"answers": [`+good+`]}}`)(w, r)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				text(`{"result": {"answers": [`+good+`]}}`)(w, r)
				return
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"HTML": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			text(`{"result": {"answers": [`+good+`]}}`)(w, r)
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, answer)
			p := newOPAClient(t, f)
			ds, err := p.Decide(t.Context(), []grants.Input{start()})
			if err == nil || ds != nil {
				t.Errorf("%+v", ds)
			}
			if f.count() == 0 {
				t.Error("the engine was not asked")
			}
		})
	}
	p := newOPAClient(t, newFake(t, text(`{"result": {"answers": [`+good+`]}}`)))
	if ds, err := p.Decide(t.Context(), []grants.Input{start()}); err != nil || !ds[0].Allow {
		t.Errorf("the good answer: %+v, %v", ds, err)
	}
}

// An engine that is slow or away costs its time-out, and decides nothing.
func TestTimeout(t *testing.T) {
	free := make(chan struct{})
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-free:
		case <-r.Context().Done():
		}
	})
	defer close(free)
	p := newPDP(t, Config{Engine: OPA, URL: f.URL + "/v1/data/x", Timeout: 20 * time.Millisecond})
	if ds, err := p.Decide(t.Context(), []grants.Input{start()}); err == nil {
		t.Errorf("%+v", ds)
	}
	f.Close()
	if ds, err := p.Decide(t.Context(), []grants.Input{start()}); err == nil {
		t.Errorf("%+v", ds)
	}
}

// A long batch is several requests; all of one revision, or none.
func TestChunks(t *testing.T) {
	f := newFake(t, permitAll(t, "", `, "revision": "1"`))
	p := newOPAClient(t, f)
	in := make([]grants.Input, 2*maxBatch+1)
	for i := range in {
		in[i] = start()
	}
	ds, err := p.Decide(t.Context(), in)
	if err != nil || len(ds) != len(in) || !ds[len(in)-1].Allow {
		t.Errorf("%d decisions, %v", len(ds), err)
	}
	if n := f.count(); n != 3 {
		t.Errorf("%d requests", n)
	}
	answer := permitAll(t, "", `, "revision": "1"`)
	f.say(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r)
		answer = permitAll(t, "", `, "revision": "2"`)
	})
	if _, err := p.Decide(t.Context(), in); err == nil || !strings.Contains(err.Error(), "two policy revisions") {
		t.Errorf("two revisions in one batch: %v", err)
	}
}

// The manifest of a task's kind is asked before the engine is.
func TestManifestBeforeEngine(t *testing.T) {
	f := newFake(t, permitAll(t, "", ""))
	set := loadManifest(t, "kind: release\ntools:\n- {tool: bank/rates}\n")
	p := newPDP(t, Config{Engine: OPA, URL: f.URL + "/v1/data/x", Manifests: func() *manifest.Set { return set }})
	g, other := testGrant("bank/pay"), testGrant("bank/pay")
	other.Requester = lead
	ds, err := p.Decide(t.Context(), append(other.Asks(release, now), ask(g)))
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range ds {
		if d.Reason != grants.Manifest || d.Allow {
			t.Errorf("%d: %+v", i, d)
		}
	}
	if n := f.count(); n != 0 {
		t.Errorf("the engine was asked %d times", n)
	}
	under := *release
	under.Params = json.RawMessage(`{}`)
	rates := testGrant("bank/rates")
	ds, err = p.Decide(t.Context(), rates.Asks(&under, now))
	if err != nil || !ds[0].Allow {
		t.Errorf("what the manifest has: %+v, %v", ds, err)
	}
	if ds[0].Revision == p.digest("", nil) {
		t.Error("the revision does not rest on the manifests")
	}
}

func TestTokenIsSentAndReadAnew(t *testing.T) {
	var got string
	allow := permitAll(t, "", "")
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		allow(w, r)
	})
	file := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	p := newPDP(t, Config{Engine: OPA, URL: f.URL + "/v1/data/x", TokenFile: file})
	for _, tt := range [][2]string{{"one", "one"}, {"two", "two"}, {"not a token", "two"}, {"", "two"}} {
		write(tt[0])
		if err := p.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got != "Bearer "+tt[1] {
			t.Errorf("%q: sent %q", tt[0], got)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o622); err != nil {
		t.Fatal(err)
	}
	good := Config{Engine: OPA, URL: "https://opa.internal/v1/data/x", Catalog: testCatalog(t), Logger: zap.NewNop()}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"engine":            func(c *Config) { c.Engine = "cedar" },
		"no engine":         func(c *Config) { c.Engine = "" },
		"no URL":            func(c *Config) { c.URL = "" },
		"plain, elsewhere":  func(c *Config) { c.URL = "http://10.0.0.1/v1/data/x" },
		"plain, by name":    func(c *Config) { c.URL = "http://localhost/v1/data/x" },
		"another scheme":    func(c *Config) { c.URL = "file:///v1/data/x" },
		"user":              func(c *Config) { c.URL = "https://u:p@opa.internal/v1/data/x" },
		"query":             func(c *Config) { c.URL = "https://opa.internal/v1/data/x?y" },
		"fragment":          func(c *Config) { c.URL = "https://opa.internal/v1/data/x#" },
		"no document":       func(c *Config) { c.URL = "https://opa.internal/v1/data/" },
		"not the Data API":  func(c *Config) { c.URL = "https://opa.internal/v1/policies/x" },
		"time-out":          func(c *Config) { c.Timeout = MaxTimeout + 1 },
		"negative time-out": func(c *Config) { c.Timeout = -1 },
		"cache":             func(c *Config) { c.Cache = MaxCache + 1 },
		"negative cache":    func(c *Config) { c.Cache = -1 },
		"no catalogue":      func(c *Config) { c.Catalog = nil },
		"no token file":     func(c *Config) { c.TokenFile = filepath.Join(dir, "none") },
		"an open token":     func(c *Config) { c.TokenFile = open },
		"no CA file":        func(c *Config) { c.CAFile = filepath.Join(dir, "none") },
		"a CA without TLS":  func(c *Config) { c.URL, c.CAFile = "http://127.0.0.1/v1/data/x", open },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRunPolls(t *testing.T) {
	f := newFake(t, permitAll(t, "", `, "revision": "1"`))
	moved := make(chan grants.Digest, 8)
	p := newPDP(t, Config{Engine: OPA, URL: f.URL + "/v1/data/x", OnRevision: func(old, new grants.Digest) { moved <- new }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	next := func() grants.Digest {
		t.Helper()
		select {
		case d := <-moved:
			return d
		case <-time.After(time.Minute):
			t.Fatal("no revision was reported")
			return grants.Digest{}
		}
	}
	if got := next(); got != p.digest(`"1"`, nil) {
		t.Errorf("first revision %s", got)
	}
	f.say(text("no"))
	waitFor(t, func() bool { s := p.Status(); return s.Failed != nil && s.Seen.IsZero() && !s.FailedSince.IsZero() })
	f.say(permitAll(t, "", `, "revision": "2"`))
	if got := next(); got != p.digest(`"2"`, nil) {
		t.Errorf("second revision %s", got)
	}
	if s := p.Status(); s.Failed != nil || s.Stated != `"2"` || s.Seen.IsZero() || !s.FailedSince.IsZero() {
		t.Errorf("%+v", s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to hold")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
