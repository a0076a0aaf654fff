package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// TestRevokeMany: one fence for a task, an agent or a tool, for whom policy
// would let revoke any grant of it.
func TestRevokeMany(t *testing.T) {
	h := newHouse(t)
	ops := h.as("op", "ops")
	task := h.start("", "corp/bot", "corp/mate")
	buyAll := func() map[string]grants.ID {
		g := map[string]grants.ID{}
		for _, who := range []string{"bot", "mate"} {
			for _, tool := range []string{"pay/send", "rep/export"} {
				g[who+" "+tool] = h.buy(h.as(who), task, tool, "").GrantID
			}
		}
		return g
	}
	for _, tc := range []struct {
		query, scope, key string
		kills             func(name string) bool
	}{
		{"agent=corp/bot", "agent", "corp/bot", func(n string) bool { return strings.HasPrefix(n, "bot ") }},
		{"tool=rep/export", "tool", "rep/export", func(n string) bool { return strings.HasSuffix(n, " rep/export") }},
		{"agent=corp/nobody", "agent", "corp/nobody", func(string) bool { return false }},
	} {
		all := buyAll()
		// Neither the agent nor the owner of all that there is may do it.
		h.refuse("DELETE /v1/grants?"+tc.query, h.as("bot"), "", 403, grants.Policy)
		h.refuse("DELETE /v1/grants?"+tc.query, h.boss(), "", 403, grants.Policy)
		for name, id := range all {
			if h.state(id) != grants.None {
				t.Fatalf("%s: %s is dead by a refused revocation", tc.query, name)
			}
		}
		h.questions()
		h.recorded()
		m := h.must("DELETE /v1/grants?"+tc.query, ops, "")
		if m["scope"] != tc.scope || m["key"] != tc.key || m["state"] != "revoked" {
			t.Errorf("%v", m)
		}
		in := h.questions()
		if want := map[string]int{"agent": 4, "tool": 1}[tc.scope]; len(in) != want {
			t.Errorf("%s: %d questions", tc.query, len(in))
		}
		for _, q := range in {
			if q.Action != grants.ActionRevoke || q.Task.Owner.ID() != "-/-" || q.Grant.Tool != q.Tool || tc.scope == "agent" && q.Grant.Agent.ID() != tc.key {
				t.Errorf("%+v", q)
			}
		}
		if rs := h.recorded(); len(rs) != 1 || rs[0].Kind != grants.ActionRevoke || rs[0].Outcome != audit.Allow ||
			rs[0].Agent+rs[0].Tool != tc.key || len(rs[0].Policies) != 1 {
			t.Errorf("on record: %+v", rs)
		}
		for name, id := range all {
			want := grants.None
			if tc.kills(name) {
				want = grants.Revoked
			}
			if got := h.state(id); got != want {
				t.Errorf("%s: %s: %v", tc.query, name, got)
			}
		}
		for name, id := range buyAll() { // what is written later lives
			if h.state(id) != grants.None {
				t.Errorf("%s: the new %s: %v", tc.query, name, h.state(id))
			}
		}
	}
	// One tool that policy does not let revoke is enough to refuse the agent's.
	h.rule(func(in grants.Input) grants.Decision {
		if in.Tool == "pay/purge" {
			return grants.Decision{Reason: grants.Policy}
		}
		return houseRules(in)
	}, nil)
	h.refuse("DELETE /v1/grants?agent=corp/bot", ops, "", 403, grants.Policy)
	h.rule(houseRules, fmt.Errorf("down"))
	h.refuse("DELETE /v1/grants?agent=corp/bot", ops, "", 503, grants.Undecided)
	h.rule(houseRules, nil)

	for query, why := range map[string]grants.Reason{
		"": grants.BadRequest, "?task=" + task + "&agent=corp/bot": grants.BadRequest, "?agent=corp/bot&agent=corp/mate": grants.Malformed,
		"?agent=": grants.Malformed, "?agent=bot": grants.Malformed, "?tool=pay/none": grants.UnknownTool, "?owner=corp/boss": grants.Malformed,
	} {
		h.refuse("DELETE /v1/grants"+query, ops, "", 400, why)
	}
	h.refuse("DELETE /v1/grants?agent=corp/bot", ops, "{}", 400, grants.Malformed)
	h.refuse("DELETE /v1/grants", "", "", 401, grants.NoCredential)
	h.refuse("DELETE /v1/grants?tool=pay/none", "", "", 401, grants.NoCredential)

	// A task's fence ends the task, under the rules of that.
	h.refuse("DELETE /v1/grants?task="+task, h.as("bot"), "", 404, grants.UnknownTask)
	h.recorded()
	m := h.must("DELETE /v1/grants?task="+task, h.boss(), "")
	if m["scope"] != "task" || m["key"] != task || m["state"] != "ended" {
		t.Errorf("%v", m)
	}
	if rs := h.recorded(); len(rs) != 1 || rs[0].Kind != grants.ActionEndTask || rs[0].Task != task {
		t.Errorf("on record: %+v", rs)
	}
	if _, why := h.cfg.Table.Task(task); why != grants.TaskEnded {
		t.Error(why)
	}
}

// TestFenceOutlivesWhatItKills: it is not forgotten before the last grant that
// it could kill has ended.
func TestFenceOutlivesWhatItKills(t *testing.T) {
	var fences []grants.Fence
	h := newHouse(t, func(c *Config) {
		c.MaxTask = 3 * time.Hour
		c.Store = brokenStore{c.Store, func(f grants.Fence) error { fences = append(fences, f); return nil }}
	})
	began := h.cfg.Table.Now()
	h.must("DELETE /v1/grants?agent=corp/bot", h.as("op", "ops"), "")
	h.must("DELETE /v1/grants?tool=pay/send", h.as("op", "ops"), "")
	for _, f := range fences {
		if f.Until.Before(began.Add(3 * time.Hour)) {
			t.Errorf("%+v", f)
		}
	}
	if len(fences) != 2 {
		t.Errorf("%d fences", len(fences))
	}
}

// B09: no lookup that starts after the reply finds the grant alive; revoking
// twice is done, revoking the unknown is not; and no grant comes out of an
// exchange that raced the end of its task.
func TestB09RevokeWhileCallsRun(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	id := h.buy(h.as("bot"), task, "pay/send", "").GrantID
	var acked atomic.Bool
	var late, alive atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				after := acked.Load()
				if h.state(id) == grants.None {
					if alive.Add(1); after {
						late.Add(1)
					}
				}
			}
		})
	}
	eventually(t, "1000 checks have passed", func() bool { return alive.Load() > 1000 })
	h.must("DELETE /v1/grants/"+id, h.boss(), "")
	acked.Store(true)
	h.must("DELETE /v1/grants/"+id, h.boss(), "")
	stop()
	wg.Wait()
	if late.Load() != 0 {
		t.Errorf("%d checks passed after the reply", late.Load())
	}
	h.refuse("DELETE /v1/grants/"+grants.NewID("g_"), h.boss(), "", 404, grants.UnknownGrant)
	h.refuse("DELETE /v1/grants/g_x", h.boss(), "", 404, grants.UnknownGrant)

	for range 20 {
		task := h.start("", "corp/bot")
		var got []grants.ID
		var mu sync.Mutex
		for i := range 4 {
			wg.Go(func() {
				status, m := h.json("POST /oauth2/token", "", h.form(h.as("bot"), "task", task, "ttl", fmt.Sprint(100+i)))
				if status == 200 {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, m["authorization_details"].([]any)[0].(members)["grant_id"].(string))
				} else if !slices.Contains([]any{"task_ended", "conflict"}, m["reason"]) {
					t.Errorf("%d %v", status, m)
				}
			})
		}
		h.must("POST /v1/tasks/"+task+"/end", h.boss(), "")
		wg.Wait()
		for _, id := range got {
			if h.state(id) == grants.None {
				t.Errorf("a grant lives in an ended task")
			}
		}
	}
}

// TestRevokeAllOfMany tools: the first no ends the asking, all of it is paid for,
// and policies that change in between decide nothing.
func TestRevokeAllOfMany(t *testing.T) {
	const tools = 1000
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		text.WriteString("servers:\n- {id: a, resource: \"https://a.internal\", upstream: \"127.0.0.1:1\", http: [")
		for i := range tools {
			fmt.Fprintf(&text, "{tool: t%d, method: GET, path: /t%d},", i, i)
		}
		text.WriteString("]}\n")
		h := newHouse(t, func(c *Config) {
			var err error
			if c.Catalog, err = catalog.Parse("tools.yaml", []byte(text.String())); err != nil {
				t.Fatal(err)
			}
		})
		const all = "DELETE /v1/grants?agent=corp/bot"
		h.refuse(all, h.as("bot"), "", 403, grants.Policy)
		if n := len(h.questions()); n != atOnce {
			t.Errorf("%d questions after a no", n)
		}
		h.must(all, h.as("op", "ops"), "")
		if n := len(h.questions()); n != tools {
			t.Errorf("%d questions before a yes", n)
		}
		h.limits = newLimits(15) // 30 at once; each takes 1 as a request and 10 for its questions
		for i, want := range []int{403, 403, 429} {
			if status, m := h.json(all, h.as("bot"), ""); status != want {
				t.Errorf("number %d: %d %v", i, status, m)
			}
		}
		h.limits = newLimits(1000)
		old, asked := grants.Digest{9}, 0
		h.rule(func(in grants.Input) grants.Decision {
			if asked++; asked > atOnce {
				h.rev = old
			}
			return houseRules(in)
		}, nil)
		rev := h.cfg.Table.Rev()
		if help := h.refuse(all, h.as("op", "ops"), "", 409, grants.Conflict); !strings.Contains(help, "changed while") {
			t.Error(help)
		}
		if h.cfg.Table.Rev() != rev {
			t.Error("something was written")
		}
	})
}
