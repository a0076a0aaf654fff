package grants_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// by is a grant of the task for that agent and tool.
func (m memory) by(task grants.Task, agent, tool string, life time.Duration) grants.Grant {
	g := m.grant(task, life)
	g.Agent.Subject, g.Tool = agent, tool
	return g
}

func (m memory) batch(want grants.Reason, gs ...grants.Grant) {
	m.Helper()
	if _, why, err := m.Issue(m.Context(), gs); err != nil || why != want {
		m.Fatalf("issue of %d: %v, %v; want %v", len(gs), why, err, want)
	}
}

// renewal is a grant that stands in g's place.
func renewal(g grants.Grant) grants.Grant {
	next := g
	next.ID, next.Renews, next.Rev = grants.NewID(grants.GrantPrefix), g.ID, grants.Rev{}
	return next
}

// An agent at its bound gets one more as soon as one of its grants has ended,
// however that came, and never before.
func TestMemoryGrantsPerAgent(t *testing.T) {
	const bound = 4
	for name, end := range map[string]func(m memory, task grants.Task, gs []grants.Grant) (freed int){
		"its own fence": func(m memory, _ grants.Task, gs []grants.Grant) int {
			m.fence(grants.ScopeGrant, gs[0].ID, time.Hour)
			m.fence(grants.ScopeGrant, gs[0].ID, time.Hour) // frees one place, not two
			return 1
		},
		"its time": func(m memory, _ grants.Task, _ []grants.Grant) int {
			time.Sleep(time.Minute - time.Nanosecond)
			m.issue(m.by(m.start(time.Hour), "bot", "s/a", time.Hour), grants.Limit)
			time.Sleep(time.Nanosecond)
			return bound - 1
		},
		"its task": func(m memory, task grants.Task, _ []grants.Grant) int {
			m.fence(grants.ScopeTask, task.ID, time.Hour)
			return bound
		},
		"its agent": func(m memory, _ grants.Task, _ []grants.Grant) int {
			m.fence(grants.ScopeAgent, "idp/bot", time.Hour)
			return bound
		},
		"its tool": func(m memory, _ grants.Task, _ []grants.Grant) int {
			m.fence(grants.ScopeTool, "s/a", time.Hour)
			return bound - 1
		},
		"its parent": func(m memory, _ grants.Task, gs []grants.Grant) int {
			m.fence(grants.ScopeGrant, gs[1].Parent, time.Hour)
			return 1
		},
		"its parent's agent": func(m memory, _ grants.Task, _ []grants.Grant) int {
			m.fence(grants.ScopeAgent, "idp/root", time.Hour)
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, grants.MemoryConfig{GrantsPerAgent: bound}, func(m memory) {
				task, other := m.start(time.Hour), m.start(time.Hour)
				parent := m.by(task, "root", "s/a", time.Hour)
				m.issue(parent, grants.None)
				gs := []grants.Grant{
					m.by(task, "bot", "s/a", time.Minute), m.by(task, "bot", "s/a", time.Minute),
					m.by(task, "bot", "s/b", time.Hour), m.by(task, "bot", "s/a", time.Minute),
				}
				gs[1].Parent = parent.ID
				m.batch(grants.None, gs[:2]...)
				m.batch(grants.Limit, m.by(task, "bot", "s/a", time.Hour), m.by(other, "bot", "s/a", time.Hour), m.by(other, "bot", "s/a", time.Hour))
				m.batch(grants.None, gs[2:]...)
				m.batch(grants.None, gs[2:]...) // a retry counts once, and passes when it is full
				m.issue(m.by(other, "bot", "s/b", time.Hour), grants.Limit)
				m.fence(grants.ScopeAgent, "idp/none", time.Hour)
				m.issue(m.by(other, "bot", "s/b", time.Hour), grants.Limit)
				m.batch(grants.Limit, m.by(other, "eve", "s/b", time.Hour), m.by(other, "bot", "s/b", time.Hour))
				m.issue(m.by(other, "eve", "s/b", time.Hour), grants.None) // another's bound is its own
				freed := end(m, task, gs)
				view := m.start(time.Hour).Rev // newer than the fence
				for i := range freed + 1 {
					g := m.by(other, "bot", "s/c", time.Minute)
					g.Rev = view
					want := grants.None
					if i == freed {
						want = grants.Limit
					}
					m.issue(g, want)
				}
			})
		})
	}
}

// A renewal counts in the old one's place, once.
func TestMemoryRenewAtTheBound(t *testing.T) {
	inBubble(t, grants.MemoryConfig{GrantsPerAgent: 2}, func(m memory) {
		task := m.start(time.Hour)
		g := m.grant(task, time.Hour)
		m.batch(grants.None, g, m.grant(task, time.Hour))
		m.issue(m.grant(task, time.Hour), grants.Limit)
		next := renewal(g)
		m.batch(grants.Limit, next, m.grant(task, time.Hour))
		m.issue(next, grants.None)
		m.issue(renewal(g), grants.Limit) // its place is taken
		m.fence(grants.ScopeGrant, g.ID, time.Hour)
		m.issue(m.grant(task, time.Hour), grants.Limit) // the renewed one's fence frees nothing
		m.fence(grants.ScopeGrant, next.ID, time.Hour)
		m.issue(m.grant(task, time.Hour), grants.None)
	})
}

// What others ask for in an agent's name does not spend what the agent may have
// by asking itself, nor one requester's what another's may.
func TestMemoryGrantsPerRequester(t *testing.T) {
	const bound = 2
	inBubble(t, grants.MemoryConfig{GrantsPerAgent: bound}, func(m memory) {
		task := m.start(time.Hour)
		asked := func(by string) grants.Grant {
			g := m.by(task, "bot", "s/a", time.Hour)
			g.Requester = grants.Principal{Issuer: "idp", Subject: by}
			return g
		}
		for _, by := range []string{"boss", "bot", "chief"} {
			m.batch(grants.Limit, asked(by), asked(by), asked(by))
			m.batch(grants.None, asked(by), asked(by))
			m.issue(asked(by), grants.Limit)
		}
		other := m.by(task, "mate", "s/a", time.Hour)
		other.Requester = grants.Principal{Issuer: "idp", Subject: "boss"}
		m.issue(other, grants.None)

		// A renewal frees a place of whom it was, and takes one of whoever asks.
		mine := asked("dora")
		m.issue(mine, grants.None)
		taken := renewal(mine)
		taken.Requester = asked("boss").Requester
		m.issue(taken, grants.Limit)
		taken.Requester = asked("carl").Requester
		m.issue(taken, grants.None)
		m.batch(grants.None, asked("dora"), asked("dora"))
		m.issue(asked("dora"), grants.Limit)
		m.issue(asked("carl"), grants.None)
		m.issue(asked("carl"), grants.Limit)
	})
}

func TestMemoryTasksPerOwner(t *testing.T) {
	inBubble(t, grants.MemoryConfig{TasksPerOwner: 2}, func(m memory) {
		start := func(owner string, life time.Duration, want grants.Reason) grants.Task {
			m.Helper()
			task := grants.Task{ID: grants.NewID(grants.TaskPrefix), Owner: grants.Principal{Issuer: "idp", Subject: owner}, Deadline: time.Now().Add(life)}
			if _, why, err := m.Start(m.Context(), task); err != nil || why != want {
				m.Fatalf("start: %v, %v; want %v", why, err, want)
			}
			return task
		}
		start("olga", time.Minute, grants.None)
		long := start("olga", time.Hour, grants.None)
		start("olga", time.Hour, grants.Limit)
		start("oleg", time.Hour, grants.None)
		if _, why, err := m.Start(m.Context(), long); err != nil || why != grants.None {
			t.Errorf("a retry at the bound: %v, %v", why, err)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		start("olga", time.Hour, grants.Limit)
		time.Sleep(time.Nanosecond)
		start("olga", time.Hour, grants.None)
		start("olga", time.Hour, grants.Limit)
		m.fence(grants.ScopeTask, long.ID, time.Hour)
		m.fence(grants.ScopeTask, long.ID, time.Hour)
		start("olga", time.Hour, grants.None)
		start("olga", time.Hour, grants.Limit)
		m.sweep(2) // the first and the fenced one; they free nothing twice
		start("olga", time.Hour, grants.Limit)
	})
}

// Whatever is issued, renewed, fenced, swept and waited for: an Issue is refused
// exactly if the agent's live grants, counted one by one, are as many as it may
// have.
func TestMemoryCountIsExact(t *testing.T) {
	const bound, steps = 5, 4000
	inBubble(t, grants.MemoryConfig{GrantsPerAgent: bound}, func(m memory) {
		rng := rand.New(rand.NewPCG(7, 7))
		var tasks []grants.Task
		var live []grants.Grant
		limited, issued := 0, 0
		lives := func(dead func(grants.Grant) bool) { live = slices.DeleteFunc(live, dead) }
		under := func(g grants.Grant, dead func(grants.Grant) bool) bool { // g or one that it hangs on
			for !dead(g) {
				i := slices.IndexFunc(live, func(p grants.Grant) bool { return p.ID == g.Parent })
				if i < 0 {
					return false
				}
				g = live[i]
			}
			return true
		}
		fence := func(scope grants.Scope, key string, hit func(grants.Grant) bool) {
			m.fence(scope, key, time.Hour)
			killed := map[grants.ID]bool{}
			for _, g := range live {
				killed[g.ID] = under(g, hit)
			}
			lives(func(g grants.Grant) bool { return killed[g.ID] })
		}
		view := grants.Rev{}
		for step := range steps {
			if len(tasks) < 3 {
				tasks = append(tasks, m.start(100*time.Hour))
				continue
			}
			agent, tool := fmt.Sprint("a", rng.IntN(3)), fmt.Sprint("s/", rng.IntN(3))
			switch rng.IntN(40) {
			case 0:
				i := rng.IntN(len(tasks))
				fence(grants.ScopeTask, tasks[i].ID, func(g grants.Grant) bool { return g.Task == tasks[i].ID })
				tasks = slices.Delete(tasks, i, i+1)
			case 1:
				fence(grants.ScopeAgent, "idp/"+agent, func(g grants.Grant) bool { return g.Agent.Subject == agent })
			case 2:
				fence(grants.ScopeTool, tool, func(g grants.Grant) bool { return g.Tool == tool })
			case 3, 4, 5, 6:
				if len(live) > 0 {
					id := live[rng.IntN(len(live))].ID
					fence(grants.ScopeGrant, id, func(g grants.Grant) bool { return g.ID == id })
				}
			case 7, 8:
				time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
				lives(func(g grants.Grant) bool { return !time.Now().Before(g.Expires) })
			case 9:
				m.Sweep(time.Now())
			default:
				g := m.by(tasks[rng.IntN(len(tasks))], agent, tool, time.Duration(1+rng.IntN(100))*time.Second)
				if len(live) > 0 && rng.IntN(3) == 0 { // delegated
					p := live[rng.IntN(len(live))]
					g.Parent, g.Task, g.Tool, g.Expires = p.ID, p.Task, p.Tool, p.Expires
				}
				g.Rev = view
				has := 0
				for _, have := range live {
					if have.Agent.Subject == agent {
						has++
					}
				}
				want := grants.None
				if has >= bound {
					want = grants.Limit
					limited++
				}
				_, why, err := m.Issue(m.Context(), []grants.Grant{g})
				if err != nil || why != want {
					m.Fatalf("step %d: an agent with %d live grants: %v, %v; want %v", step, has, why, err, want)
				}
				if want == grants.None {
					live = append(live, g)
					issued++
				}
			}
			view = m.start(time.Second).Rev // newer than any fence
		}
		if limited < 50 || issued < 500 {
			t.Errorf("%d issued and %d refused say little", issued, limited)
		}
	})
}

// Those who race for the last places get just these.
func TestMemoryLimitsConcurrent(t *testing.T) {
	const bound, racers = 10, 40
	for round := range 20 {
		m := memory{t, grants.NewMemory(grants.MemoryConfig{GrantsPerAgent: bound, TasksPerOwner: bound})}
		task := m.start(time.Hour)
		var gs, ts atomic.Int32
		var wg sync.WaitGroup
		for range racers {
			wg.Go(func() {
				if _, why, err := m.Issue(context.Background(), []grants.Grant{m.grant(task, time.Minute)}); err == nil && why == grants.None {
					gs.Add(1)
				}
				next := grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(time.Hour)}
				if _, why, err := m.Start(context.Background(), next); err == nil && why == grants.None {
					ts.Add(1)
				}
			})
		}
		wg.Wait()
		if gs.Load() != bound || ts.Load() != bound-1 {
			t.Fatalf("round %d: %d grants and %d tasks; want %d and %d", round, gs.Load(), ts.Load(), bound, bound-1)
		}
	}
}

// Fences on agents and tools that nobody has a grant of, and fences on one again
// and again, take no more than their bound; those that kill something stay, for
// whoever comes anew.
func TestMemoryFencesAreBounded(t *testing.T) {
	const names, kept = 10_000, 4096
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(10 * time.Hour)
		g := m.by(task, "bot", "s/a", time.Hour)
		m.issue(g, grants.None)
		before := m.start(10 * time.Hour).Rev
		m.fence(grants.ScopeAgent, "idp/bot", 10*time.Hour)
		for i := range names {
			m.fence(grants.ScopeAgent, "idp/again", 10*time.Hour)
			m.fence(grants.ScopeAgent, fmt.Sprint("idp/", i), 10*time.Hour)
		}
		m.fence(grants.ScopeAgent, "idp/last", 10*time.Hour) // pushes out an old one on again, not the newest
		m.Sweep(time.Now())
		m.Sweep(time.Now())
		bot, all := 0, 0
		for ev, err := range m.Watch(m.Context(), grants.Rev{}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if ev.Fence == nil && ev.Task == nil && ev.Grant == nil {
				break
			}
			if ev.Fence != nil {
				all++
				if ev.Fence.Key == "idp/bot" {
					bot++
				}
			}
		}
		if bot != 1 || all > kept+1 || all < kept/4 {
			t.Errorf("%d fences, %d of them on who has a grant; want at most %d, and 1", all, bot, kept+1)
		}

		// Whoever decided before a fence that is dropped may have been meant by it.
		next := m.by(task, "0", "s/a", time.Hour)
		next.Rev = before
		m.issue(next, grants.Conflict)
		for _, agent := range []string{fmt.Sprint(names - 1), "again"} { // the newest
			next = m.by(task, agent, "s/a", time.Hour)
			next.Rev = before
			m.issue(next, grants.Revoked)
		}
		next.Rev = m.fence(grants.ScopeAgent, "idp/again", time.Hour)
		m.issue(next, grants.None)

		// Once its grants are forgotten, the fence on bot is one like the others.
		time.Sleep(time.Hour)
		m.Sweep(time.Now())
		for i := range names {
			m.fence(grants.ScopeTool, fmt.Sprint("s/", i), 9*time.Hour)
		}
		m.Sweep(time.Now())
		m.Sweep(time.Now())
		if _, _, all := m.seen(); all > kept {
			t.Errorf("%d fences that kill nothing; want at most %d", all, kept)
		}
	})
}

// The account of a grant's own budget lives as long as a grant that carries it,
// and no longer.
func TestMemoryRenewedAccount(t *testing.T) {
	inBubble(t, grants.MemoryConfig{}, func(m memory) {
		task := m.start(time.Hour)
		g := m.grant(task, time.Minute)
		b := grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 3}
		g.Budgets = []grants.Budget{b}
		m.issue(g, grants.None)
		draw := func(want int64) {
			m.Helper()
			if got, err := m.Draw(m.Context(), b.Key, 1); err != nil || got != want {
				m.Fatalf("draw: %d, %v; want %d", got, err, want)
			}
		}
		for i := range 100 {
			next := renewal(g)
			next.Expires = time.Now().Add(time.Minute)
			m.issue(next, grants.None)
			m.fence(grants.ScopeGrant, g.ID, time.Minute)
			if g = next; i%40 == 20 { // three in all
				draw(1)
			}
			time.Sleep(30 * time.Second)
			m.Sweep(time.Now()) // all but g and the one before it
		}
		draw(1)
		draw(0)
		time.Sleep(time.Minute)
		m.sweep(2) // the last, and its predecessor's fence
		draw(0)
	})
}
