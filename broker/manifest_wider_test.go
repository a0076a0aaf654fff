package broker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// B04: 100 runs of 1000 random pairs of an ask and a manifest's entry: what is put
// to policy is inside of both.
func TestB04NeverWiderThanTheManifest(t *testing.T) {
	args := []string{"", "/body/amount", "/query/copies"}
	texts := []json.RawMessage{nil, json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`)}
	rapid.Check(t, func(rt *rapid.T) {
		small := rapid.Int64Range(0, 6)
		for range 1000 {
			a := ask{ttl: time.Duration(small.Draw(rt, "ttl")) * time.Second}
			a.constraints = append(a.constraints, rapid.SliceOfN(rapid.SampledFrom(texts[1:]), 0, 3).Draw(rt, "constraints")...)
			e := manifest.Entry{
				TTL: time.Duration(small.Draw(rt, "its ttl")) * time.Second, MaxCalls: small.Draw(rt, "its calls"),
				Constraint: rapid.SampledFrom(texts).Draw(rt, "its constraint"), Sums: map[string]int64{}, Once: small.Draw(rt, "once") == 0,
			}
			for _, arg := range args {
				if n := small.Draw(rt, "bound"); n > 0 {
					a.bounds = append(a.bounds, bound{arg, n})
				}
				if n := small.Draw(rt, "its bound"); n > 0 && arg != "" {
					e.Sums[arg] = n
				}
			}
			before := slices.Clone(a.bounds)
			n := a.under(e)
			if !slices.Equal(before, a.bounds) {
				rt.Fatal("the ask itself was changed")
			}
			if e.TTL > 0 && (n.ttl == 0 || n.ttl > e.TTL) || a.ttl > 0 && (n.ttl == 0 || n.ttl > a.ttl) {
				rt.Fatalf("%v, of %v and %v", n.ttl, a.ttl, e.TTL)
			}
			of := func(bs []bound, arg string) int64 {
				for _, b := range bs {
					if b.arg == arg {
						return b.limit
					}
				}
				return 0
			}
			for i, b := range n.bounds {
				if i > 0 && n.bounds[i-1].arg >= b.arg {
					rt.Fatalf("%v: not in order, or twice", n.bounds)
				}
			}
			for _, arg := range args {
				is, asked, its := of(n.bounds, arg), of(a.bounds, arg), e.Sums[arg]
				if arg == "" {
					its = e.MaxCalls
				}
				if asked > 0 && (is == 0 || is > asked) || its > 0 && (is == 0 || is > its) || is > 0 && asked == 0 && its == 0 {
					rt.Fatalf("%q: %d, of %d and %d", arg, is, asked, its)
				}
			}
			all := with(n.constraints, n.ceiling)
			count := func(cs []json.RawMessage, of json.RawMessage) (n int) {
				for _, c := range cs {
					if string(c) == string(of) {
						n++
					}
				}
				return n
			}
			for _, c := range texts[1:] {
				want := count(a.constraints, c)
				if e.Constraint != nil && string(c) == string(e.Constraint) {
					want = max(want, 1)
				}
				if got := count(all, c); got != want {
					rt.Fatalf("%s: %d times, want %d", c, got, want)
				}
			}
			if n.oneByOne != e.Once {
				rt.Fatal("once is lost")
			}
		}
	})
}

// B04: the task's parameters are no wider than the manifest has them, and what a
// grant has of them is data.
func TestB04Parameters(t *testing.T) {
	b := newBank(t, payBill)
	for body, says := range map[string]string{
		`{"kind":"pay-bill"}`:                                                                       "is missing",
		`{"kind":"pay-bill","params":null}`:                                                         "must be an object",
		`{"kind":"pay-bill","params":{"recipient":"x"}}`:                                            `"limit" is missing`,
		`{"kind":"pay-bill","params":{"recipient":"x","limit":10001}}`:                              "limit",
		`{"kind":"pay-bill","params":{"recipient":"x","limit":"100"}}`:                              "limit",
		`{"kind":"pay-bill","params":{"recipient":"*","limit":1,"more":true}}`:                      `no parameter "more"`,
		`{"kind":"pay-bill","params":{"recipient":{"$param":"limit"},"limit":1}}`:                   "recipient",
		`{"kind":"pay-bill","params":{"recipient":"x","limit":0}}`:                                  "limit",
		`{"kind":"k","params":{}}`:                                                                  "this one has none",
		`{"kind":"k","grant":true}`:                                                                 "this one has none",
		`{"kind":"pay-bill","agents":["corp/a","corp/b"],"grant":true,"params":` + billParams + `}`: "of one agent",
	} {
		if help := b.refuse("POST /v1/tasks", b.boss(), body, 400, grants.BadRequest); !strings.Contains(help, says) || strings.Contains(help, "10001") {
			t.Errorf("%s: %s", body, help)
		}
	}
	for _, body := range []string{`{"kind":"pay-bill","params":{"recipient":"x","recipient":"y","limit":1}}`, `{"kind":"pay-bill","grant":"yes","params":` + billParams + `}`} {
		b.refuse("POST /v1/tasks", b.boss(), body, 400, grants.Malformed)
	}
	if n := b.cfg.Table.Counts().Tasks; n != 0 {
		t.Errorf("%d tasks", n)
	}
	m := b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","agents":["corp/bot"],"params":{"recipient":"$param","limit":1e2}}`)
	task := m["task"].(string)
	want := members{"recipient": "$param", "limit": 100.0, "note": "none"}
	if d := cmp.Diff(want, m["params"]); d != "" {
		t.Error(d)
	}
	if g := b.live(b.buy(b.as("bot"), task, "pay/send", "").GrantID); !strings.Contains(string(g.Constraints[0]), `"const":"$param"`) {
		t.Errorf("%s", g.Constraints)
	}
	// Who may see the task sees them.
	for name, shown := range map[string]any{
		"task":  b.must("GET /v1/tasks/"+task, b.as("bot"), "")["params"],
		"list":  b.must("GET /v1/tasks?kind=pay-bill", b.boss(), "")["tasks"].([]any)[0].(members)["params"],
		"by op": b.must("GET /v1/tasks/"+task, b.as("op", "ops"), "")["params"],
	} {
		if d := cmp.Diff(want, shown); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	b.refuse("GET /v1/tasks/"+task, b.as("stranger"), "", 404, grants.UnknownTask)
	if _, there := b.must("POST /v1/tasks", b.boss(), `{"kind":"k"}`)["params"]; there {
		t.Error("parameters of a kind without a manifest")
	}
}

// B06: renewing for ever under a manifest ends with the task, which ends with
// max_duration; and each window is the manifest's at most.
func TestB06ManifestTimes(t *testing.T) {
	b := newBank(t, strings.Replace(payBill, "max_duration: 10m", "max_duration: 20s", 1))
	for ttl, most := range map[string]time.Duration{"": 20 * time.Second, `,"ttl":1000000000`: 20 * time.Second, `,"ttl":5`: 5 * time.Second} {
		m := b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","params":`+billParams+ttl+`}`)
		ends, err := time.Parse(time.RFC3339, m["deadline"].(string))
		if left := ends.Sub(b.cfg.Table.Now()); err != nil || left > most {
			t.Errorf("%q: %v left, %v", ttl, left, err)
		}
	}
	for body, why := range map[string]grants.Reason{`,"ttl":0`: grants.BadTTL, `,"ttl":-1`: grants.BadTTL, `,"ttl":"PT1H"`: grants.Malformed, `,"ttl":1e9`: grants.Malformed} {
		b.refuse("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","params":`+billParams+body+`}`, 400, why)
	}
	task := b.bill("")
	ends := b.must("GET /v1/tasks/"+task, b.boss(), "")["deadline"].(string)
	deadline, err := time.Parse(time.RFC3339, ends)
	if err != nil {
		t.Fatal(err)
	}
	bot, spent := b.as("bot"), 0
	g := b.buy(bot, task, "pay/send", "")
	for i := range 40 {
		if i%8 == 0 && b.spend(g.GrantID, "1") == grants.None {
			spent++
		}
		g = b.renew(bot, task, "pay/send", g.GrantID, `,"ttl":900`)
		if g.ExpiresAt.After(deadline) || g.MaxCalls != 3 || len(b.live(g.GrantID).Constraints) != 1 {
			t.Fatalf("%+v", g)
		}
	}
	if spent != 3 || b.spend(g.GrantID, "1") == grants.None {
		t.Errorf("%d calls on a budget of 3, and then another", spent)
	}
}
