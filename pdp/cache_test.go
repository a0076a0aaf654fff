package pdp

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// clock is moved by a test.
func (c *cache) clock(at *time.Time) { c.now = func() time.Time { return *at } }

func mustDecide(t testing.TB, p *PDP, in ...grants.Input) []grants.Decision {
	t.Helper()
	ds, err := p.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func TestCache(t *testing.T) {
	inside := func() grants.Input {
		return call("bank/pay", testGrant("bank/pay"), parse(t, `{"body": {"to": "a", "amount": 1}}`))
	}
	later := func(in grants.Input, d time.Duration) grants.Input { in.At = in.At.Add(d); return in }
	revoke := questions(t)["revoke"]
	const stated = `, "revision": "1"`
	for name, tt := range map[string]struct {
		each, beside string // of the engine's answers
		first, then  grants.Input
		after        time.Duration // between them
		between      func(p *PDP)
		again        bool // the engine is asked again
	}{
		"the same":                     {"", stated, inside(), inside(), 0, nil, false},
		"within its time":              {"", stated, inside(), inside(), DefaultCache - 1, nil, false},
		"after it":                     {"", stated, inside(), inside(), DefaultCache, nil, true},
		"an opaque argument":           {"", stated, inside(), call("bank/pay", testGrant("bank/pay"), parse(t, `{"body": {"to": "a", "amount": 1, "note": "n"}}`)), 0, nil, false},
		"another second":               {"", stated, inside(), later(inside(), time.Second), 0, nil, true},
		"another second, said":         {`, "cacheable_for": 3`, stated, inside(), later(inside(), 2*time.Second), 2 * time.Second, nil, false},
		"another second, said, late":   {`, "cacheable_for": 3`, stated, inside(), later(inside(), 3*time.Second), 3 * time.Second, nil, true},
		"said for longer than we keep": {`, "cacheable_for": 60`, stated, inside(), inside(), DefaultCache, nil, true},
		"no revision":                  {"", "", inside(), inside(), 0, nil, true},
		"a grant":                      {"", stated, ask(fullGrant()), ask(fullGrant()), 0, nil, false},
		"the start of a task":          {"", stated, start(), start(), 0, nil, true},
		"a revocation":                 {"", stated, revoke, revoke, 0, nil, true},
		"without a grant":              {"", stated, call("bank/rates", nil, parse(t, `{}`)), call("bank/rates", nil, parse(t, `{}`)), 0, nil, true},
		"the engine was lost":          {"", stated, inside(), inside(), 0, func(p *PDP) { p.cache.lost() }, true},
		"not seen for long": {"", stated, inside(), inside(), 0, func(p *PDP) {
			p.cache.seen = p.cache.seen.Add(-freshFor)
		}, true},
		"another revision": {"", stated, inside(), inside(), 0, func(p *PDP) {
			p.cache.saw(p.cache.now(), `"2"`)
			p.cache.saw(p.cache.now(), `"1"`)
		}, true},
		"the task is fenced":     {"", stated, inside(), inside(), 0, func(p *PDP) { p.Drop(grants.Fence{Scope: grants.ScopeTask, Key: "t_1"}) }, true},
		"the grant is fenced":    {"", stated, inside(), inside(), 0, func(p *PDP) { p.Drop(grants.Fence{Scope: grants.ScopeGrant, Key: "g_1"}) }, true},
		"the agent is fenced":    {"", stated, inside(), inside(), 0, func(p *PDP) { p.Drop(grants.Fence{Scope: grants.ScopeAgent, Key: "corp/team/bot"}) }, true},
		"the tool is fenced":     {"", stated, inside(), inside(), 0, func(p *PDP) { p.Drop(grants.Fence{Scope: grants.ScopeTool, Key: "bank/pay"}) }, true},
		"another task is fenced": {"", stated, inside(), inside(), 0, func(p *PDP) { p.Drop(grants.Fence{Scope: grants.ScopeTask, Key: "t_2"}) }, false},
		"other manifests": {"", stated, inside(), inside(), 0, func(p *PDP) {
			set := loadManifest(t, "kind: other\ntools:\n- {tool: bank/rates}\n")
			p.cfg.Manifests = func() *manifest.Set { return set }
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, permitAll(t, tt.each, tt.beside))
			p := newOPAClient(t, f)
			at := now
			p.cache.clock(&at)
			first := mustDecide(t, p, tt.first)[0]
			if tt.between != nil {
				tt.between(p)
			}
			if at = at.Add(tt.after); tt.after > 0 { // and polled meanwhile
				stated, _ := p.cache.stated()
				p.cache.saw(at, stated)
			}
			then := mustDecide(t, p, tt.then)[0]
			if again := f.count() == 2; again != tt.again {
				t.Errorf("asked again: %t, want %t", again, tt.again)
			}
			if !first.Allow || !then.Allow || !tt.again && first.Revision != then.Revision {
				t.Errorf("%+v, then %+v", first, then)
			}
		})
	}
}

func loadManifest(t *testing.T, text string) *manifest.Set {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "m.yaml", text)
	set, err := manifest.Load(dir, testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A batch is taken whole or asked whole: half of either could be of two revisions.
func TestCacheIsAllOrNothing(t *testing.T) {
	f := newFake(t, permitAll(t, "", `, "revision": "1"`))
	p := newOPAClient(t, f)
	mustDecide(t, p, ask(fullGrant()))
	var got int
	allow := permitAll(t, "", `, "revision": "1"`)
	f.say(func(w http.ResponseWriter, r *http.Request) {
		got++
		allow(w, r)
	})
	mustDecide(t, p, ask(fullGrant()), ask(testGrant("bank/pay")))
	if got != 1 {
		t.Fatalf("asked %d times", got)
	}
	mustDecide(t, p, ask(fullGrant()), ask(testGrant("bank/pay")))
	if got != 1 {
		t.Errorf("asked %d times", got)
	}
}

// What was under way while a fence was written, or the revision moved, is not
// kept: it may have been decided before.
func TestOvertaken(t *testing.T) {
	q := func(p *PDP) []question {
		in := ask(fullGrant())
		read, why := p.read(&in, nil)
		if why != grants.None {
			t.Fatal(why)
		}
		return []question{read}
	}
	for name, tt := range map[string]struct {
		meanwhile func(p *PDP)
		kept      int
	}{
		"nothing":          {func(*PDP) {}, 1},
		"a fence":          {func(p *PDP) { p.Drop(grants.Fence{Scope: grants.ScopeTool, Key: "x/y"}) }, 0},
		"another revision": {func(p *PDP) { p.cache.saw(now.Add(1), "2") }, 0},
	} {
		p := newPDP(t, Config{Engine: AuthZEN, URL: "http://127.0.0.1:1"})
		dropped := p.cache.dropped()
		tt.meanwhile(p)
		p.cache.saw(now, "1")
		p.cache.put(now, dropped, q(p), []answer{{allow: true, revision: "1"}}, grants.Digest{1})
		if p.cache.size != tt.kept {
			t.Errorf("%s: %d kept, want %d", name, p.cache.size, tt.kept)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(time.Second)
	for i := range maxEntries + 10 {
		c.keep(fmt.Sprint("t_", i%100), key{byte(i), byte(i >> 8), byte(i >> 16)}, entry{until: now.Add(time.Duration(i % 2))}, 0)
	}
	if c.size != maxEntries {
		t.Errorf("%d entries", c.size)
	}
	c.expire(now)
	if c.size != maxEntries/2 || len(c.tasks) != 50 {
		t.Errorf("%d entries of %d tasks", c.size, len(c.tasks))
	}
	c.saw(now, "x")
	if c.size != 0 || len(c.tasks) != 0 {
		t.Errorf("%d entries of %d tasks", c.size, len(c.tasks))
	}
}

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
