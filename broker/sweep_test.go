package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// many issues n grants of an agent straight into the store, in tasks of 100.
func (h *house) many(n int, tool string) []grants.ID {
	h.t.Helper()
	var out []grants.ID
	var task *grants.Task
	var rev grants.Rev
	for i := range n {
		if i%100 == 0 {
			task = &grants.Task{
				ID: grants.NewID(grants.TaskPrefix), Kind: "k", Owner: grants.Principal{Issuer: "corp", Subject: "boss"},
				Agents: []string{"corp/bot"}, Deadline: h.cfg.Table.Now().Add(1 << 42),
			}
			if _, why, err := h.store.Start(h.t.Context(), *task); err != nil || why != grants.None {
				h.t.Fatal(why, err)
			}
		}
		g := grants.Grant{
			ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Agent: grants.Principal{Issuer: "corp", Subject: "bot"}, Tool: tool,
			Requester: grants.Principal{Issuer: "corp", Subject: "bot"}, NotBefore: h.cfg.Table.Now(), Expires: task.Deadline, Policy: h.rev,
		}
		var why grants.Reason
		var err error
		if rev, why, err = h.store.Issue(h.t.Context(), []grants.Grant{g}); err != nil || why != grants.None {
			h.t.Fatal(why, err)
		}
		out = append(out, g.ID)
	}
	if err := h.cfg.Table.Wait(h.t.Context(), rev); err != nil {
		h.t.Fatal(err)
	}
	return out
}

func TestSweep(t *testing.T) {
	h := newHouse(t)
	keeps, loses := h.many(300, "pay/show"), h.many(600, "pay/send")
	task := h.start("", "corp/bot")
	status, m := h.json("POST /v1/grants", h.boss(), fmt.Sprintf(`{"task":%q,"agent":"corp/bot","grants":[{"tool":"pay/show"}]}`, task))
	if status != 200 {
		t.Fatal(m)
	}
	asked := m["tokens"].([]any)[0].(members)["authorization_details"].([]any)[0].(members)["grant_id"].(string)

	// Nothing has changed: nothing is decided.
	h.recorded()
	if decided, fenced, err := h.Sweep(t.Context()); decided != 0 || fenced != 0 || err != nil {
		t.Fatalf("%d %d %v", decided, fenced, err)
	}
	// The decider as a whole is down: nothing is changed.
	h.rule(houseRules, errors.New("down"))
	if _, fenced, err := h.Sweep(t.Context()); fenced != 0 || err == nil {
		t.Fatalf("%d %v", fenced, err)
	}
	// Down only after the first question: the same.
	h.rule(houseRules, nil)
	h.rule(func(in grants.Input) grants.Decision {
		if in.Action == grants.ActionEndTask {
			h.err = errors.New("down")
		}
		return grants.Decision{}
	}, nil)
	if _, fenced, err := h.Sweep(t.Context()); fenced != 0 || err == nil || h.state(loses[0]) != grants.None {
		t.Fatalf("%d %v", fenced, err)
	}
	// One of a policy that cannot be evaluated is fenced, like one that is denied,
	// and like one that only its asker may not have any more.
	failed := loses[7]
	h.rule(func(in grants.Input) grants.Decision {
		switch {
		case in.Action == grants.ActionGrant && in.Grant.ID == failed:
			return grants.Decision{Allow: true, Reason: grants.PolicyError, Policies: []string{"erring"}}
		case in.Action == grants.ActionAskFor, in.Action == grants.ActionGrant && in.Tool == "pay/send":
			return grants.Decision{Reason: grants.Policy, Policies: []string{"forbids"}}
		}
		return grants.Decision{Allow: true, Policies: []string{"permits"}}
	}, nil)
	decided, fenced, err := h.Sweep(t.Context())
	if decided != 901 || fenced != 601 || err != nil {
		t.Fatalf("%d %d %v", decided, fenced, err)
	}
	for _, id := range keeps {
		if h.state(id) != grants.None {
			t.Fatalf("%v, and policy permits it", h.state(id))
		}
	}
	rs := h.recorded()
	of := map[grants.ID]audit.Record{}
	for _, r := range rs {
		of[r.Grant] = r
	}
	for _, id := range append(loses, asked) {
		r := of[id]
		if h.state(id) != grants.PolicyChanged || r.Kind != "sweep" || r.Outcome != audit.Deny || r.Reason != grants.PolicyChanged ||
			r.Agent != "corp/bot" || r.Revision != h.rev || len(r.Policies) == 0 || r.ID == "" {
			t.Fatalf("%v, on record %+v", h.state(id), r)
		}
	}
	if len(rs) != 601 {
		t.Errorf("%d records", len(rs))
	}
	// What it permits it decides again, until those grants are over.
	if decided, fenced, err := h.Sweep(t.Context()); decided != 300 || fenced != 0 || err != nil {
		t.Errorf("%d %d %v", decided, fenced, err)
	}
}

func TestSweepThatFails(t *testing.T) {
	var noRoom, noStore error
	h := newHouse(t, func(c *Config) {
		c.Store = brokenStore{c.Store, func(grants.Fence) error { return noStore }}
		record := c.Record
		c.Record = func(rs []audit.Record) error { return errors.Join(noRoom, record(rs)) }
	})
	ids := h.many(3, "pay/send")
	h.rule(func(grants.Input) grants.Decision { return grants.Decision{Reason: grants.Policy} }, nil)
	noRoom = errors.New("no room")
	if _, fenced, err := h.Sweep(t.Context()); fenced != 0 || !errors.Is(err, noRoom) {
		t.Errorf("%d %v", fenced, err)
	}
	noRoom, noStore = nil, errors.New("no store")
	if _, fenced, err := h.Sweep(t.Context()); fenced != 0 || !errors.Is(err, noStore) {
		t.Errorf("%d %v", fenced, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := h.Sweep(gone); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	noStore = nil
	if _, fenced, err := h.Sweep(t.Context()); fenced != 3 || err != nil || h.state(ids[0]) != grants.PolicyChanged {
		t.Errorf("%d %v", fenced, err)
	}
}

// TestSweepBesideCalls: grants are bought, looked up and revoked meanwhile.
func TestSweepBesideCalls(t *testing.T) {
	h := newHouse(t)
	h.many(3000, "pay/send")
	task := h.start("", "corp/bot")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var bought atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := h.buy(h.as("bot"), task, "pay/show", fmt.Sprintf(`,"ttl":%d`, 10+(i*50+n)%800)).GrantID
				if why := h.state(id); why != grants.None {
					t.Errorf("a grant of today's policy: %v", why)
				}
				bought.Add(1)
			}
		})
	}
	h.rule(func(in grants.Input) grants.Decision {
		if in.Action == grants.ActionGrant && in.Tool == "pay/send" {
			return grants.Decision{Reason: grants.Policy}
		}
		return houseRules(in)
	}, nil)
	before := bought.Load()
	decided, fenced, err := h.Sweep(t.Context())
	eventually(t, "grants are bought", func() bool { return bought.Load() > before })
	stop()
	wg.Wait()
	if fenced != 3000 || err != nil || decided < 3000 {
		t.Errorf("%d %d %v", decided, fenced, err)
	}
}
