package grants

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryForgetsAll: once all is over, nothing is left of it.
func TestMemoryForgetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{GrantsPerAgent: 100, TasksPerOwner: 100})
		for i := range 3 {
			task := Task{ID: NewID(TaskPrefix), Owner: Principal{Issuer: "corp", Subject: "o"}, Deadline: time.Now().Add(time.Hour)}
			if _, why, err := m.Start(t.Context(), task); why != None || err != nil {
				t.Fatal(why, err)
			}
			g := Grant{ID: NewID(GrantPrefix), Task: task.ID, Agent: Principal{Issuer: "corp", Subject: "a"}, Tool: "s/t", Expires: time.Now().Add(time.Minute)}
			g.Budgets = []Budget{{Key: GrantBudget(g.ID, ""), Limit: 1}, {Key: TaskBudget(task.ID, "s/t", ""), Limit: 1}}
			next, child := g, g
			next.ID, next.Renews = NewID(GrantPrefix), g.ID
			child.ID, child.Parent = NewID(GrantPrefix), g.ID
			for _, g := range []Grant{g, next, child} {
				if _, why, err := m.Issue(t.Context(), []Grant{g}); why != None || err != nil {
					t.Fatal(why, err)
				}
			}
			for _, f := range []Fence{{Scope: ScopeTask, Key: task.ID}, {Scope: ScopeGrant, Key: next.ID}}[:i] {
				if _, err := m.Fence(t.Context(), f); err != nil {
					t.Fatal(err)
				}
			}
		}
		// One whose task goes on.
		short := Grant{ID: NewID(GrantPrefix), Agent: Principal{Issuer: "corp", Subject: "b"}, Tool: "s/u", Expires: time.Now().Add(time.Minute)}
		open := Task{ID: NewID(TaskPrefix), Owner: Principal{Issuer: "corp", Subject: "p"}, Deadline: time.Now().Add(time.Hour)}
		short.Task = open.ID
		if _, why, err := m.Start(t.Context(), open); why != None || err != nil {
			t.Fatal(why, err)
		}
		if _, why, err := m.Issue(t.Context(), []Grant{short}); why != None || err != nil {
			t.Fatal(why, err)
		}
		if len(m.agents) != 2 || len(m.owners) != 2 || len(m.held) != 4 || len(m.accounts) != 6 {
			t.Fatalf("agents %d, owners %d, held %d, accounts %d: the test says nothing", len(m.agents), len(m.owners), len(m.held), len(m.accounts))
		}
		time.Sleep(time.Minute)
		m.Sweep(time.Now())
		if m.agents[bounded{agent: "corp/b"}] != nil || m.held[fenceKey{ScopeAgent, "corp/b"}] != 0 {
			t.Error("an agent whose grants are all forgotten is not")
		}
		time.Sleep(time.Hour)
		m.Sweep(time.Now())
		m.Sweep(time.Now())
		for what, n := range map[string]int{
			"tasks": len(m.tasks), "grants": len(m.grants), "fences": len(m.fences), "accounts": len(m.accounts),
			"owners": len(m.owners), "agents": len(m.agents), "held": len(m.held), "open": m.open, "live": m.live,
			"bytes": int(m.bytes), "log": len(m.log),
		} {
			if n != 0 {
				t.Errorf("%s: %d", what, n)
			}
		}
	})
}

// TestHoldingsOfOneHash: who happens to share a list sees only its own.
func TestHoldingsOfOneHash(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	g := r.grant(task, time.Hour)
	v := r.view.Load()
	tr, s := v.task(task.ID)
	for _, change := range []func(*Grant){func(g *Grant) { g.Agent.Subject = "b" }, func(g *Grant) { g.Tool = "srv/other" }} {
		other := r.grant(task, time.Hour, change)
		rec := v.record(other.ID)
		s.mu.Lock()
		tr.remove(rec, v.holding(other.Tool, other.Agent.ID()))
		tr.add(rec, v.holding(g.Tool, g.Agent.ID()))
		s.mu.Unlock()
	}
	same(t, "holding", ids(r.Holding(task.ID, g.Tool, g.Agent.ID())), []ID{g.ID})
	all, _ := r.GrantsOf(task.ID, func(*Grant) bool { return true }, 10)
	if len(all) != 3 {
		t.Errorf("%d grants of the task; want 3", len(all))
	}
}
