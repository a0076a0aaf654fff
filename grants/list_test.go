package grants

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func all[T any](*T) bool { return true }

func ids(ls []Live) []ID {
	var out []ID
	for _, l := range ls {
		out = append(out, l.Grant().ID)
	}
	return out
}

// same compares two lists without regard to order.
func same(t *testing.T, what string, got, want []ID) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v; want %v", what, got, want)
	}
}

// TestListsHoldWhatIsLive: whatever ends a grant or a task ends its place in
// every list.
func TestListsHoldWhatIsLive(t *testing.T) {
	r := newRig(t)
	task, other := r.task(time.Hour), r.task(time.Hour)
	of := func(agent, tool string) func(*Grant) {
		return func(g *Grant) { g.Agent.Subject, g.Tool = agent, tool }
	}
	live := r.grant(task, time.Hour, of("a", "srv/a"))
	elsewhere := r.grant(other, time.Hour, of("a", "srv/a"))
	ended := r.task(time.Hour)
	r.grant(ended, time.Hour, of("a", "srv/a"))
	r.fence(ScopeTask, ended.ID, TaskEnded)
	short := r.task(time.Minute)
	r.grant(short, time.Hour, of("a", "srv/a"))
	r.grant(task, time.Minute, of("a", "srv/a"))
	r.fence(ScopeGrant, r.grant(task, time.Hour, of("a", "srv/a")).ID, Revoked)
	r.grant(task, time.Hour, of("b", "srv/a"))
	r.fence(ScopeAgent, "corp/b", Revoked)
	r.grant(task, time.Hour, of("a", "srv/b"))
	r.fence(ScopeTool, "srv/b", Revoked)
	again := r.grant(task, time.Hour, of("a", "srv/b")) // after the fence
	r.clock.pass(time.Minute)
	r.beat()

	gs, more := r.Grants(all, 100)
	same(t, "all", ids(gs), []ID{live.ID, elsewhere.ID, again.ID})
	gs, moreOf := r.GrantsOf(task.ID, all, 100)
	same(t, "of a task", ids(gs), []ID{live.ID, again.ID})
	ts, moreTasks := r.Tasks(all, 100)
	var open []ID
	for _, task := range ts {
		open = append(open, task.ID)
	}
	same(t, "tasks", open, []ID{task.ID, other.ID})
	if more || moreOf || moreTasks {
		t.Error("there are more")
	}
	same(t, "holding", ids(r.Holding(task.ID, "srv/a", "corp/a")), []ID{live.ID})
	same(t, "of an agent that is fenced", ids(r.Holding(task.ID, "srv/a", "corp/b")), nil)
	same(t, "of no task", ids(r.Holding(NewID(TaskPrefix), "srv/a", "corp/a")), nil)
	gs, _ = r.GrantsOf(ended.ID, all, 100)
	same(t, "of an ended task", ids(gs), nil)

	gs, _ = r.Grants(func(g *Grant) bool { return g.Tool == "srv/b" }, 100)
	same(t, "by tool", ids(gs), []ID{again.ID})
	gs, _ = r.GrantsOf(task.ID, func(g *Grant) bool { return g.Tool == "srv/b" }, 100)
	same(t, "of a task by tool", ids(gs), []ID{again.ID})
	if ts, _ := r.Tasks(func(t *Task) bool { return t == other }, 100); len(ts) != 1 || ts[0] != other {
		t.Errorf("the other task: %v", ts)
	}

	r.clock.pass(DefaultMaxStaleness + 1)
	gs, _ = r.Grants(all, 100)
	of1, _ := r.GrantsOf(task.ID, all, 100)
	ts, _ = r.Tasks(all, 100)
	if len(gs)+len(of1)+len(ts)+len(r.Holding(task.ID, "srv/a", "corp/a")) != 0 {
		t.Error("a table that is not fresh lists something")
	}
}

// TestListsAreBounded: a list is as long as was asked, and says whether there is
// more.
func TestListsAreBounded(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	r.task(time.Hour)
	r.task(time.Hour)
	for range 3 {
		r.grant(task, time.Hour)
	}
	for limit := range 5 {
		gs, more := r.Grants(all, limit)
		of, moreOf := r.GrantsOf(task.ID, all, limit)
		ts, moreTasks := r.Tasks(all, limit)
		if n := min(limit, 3); len(gs) != n || len(of) != n || len(ts) != n || more != (limit < 3) || moreOf != more || moreTasks != more {
			t.Errorf("limit %d: %d %v, %d %v, %d %v", limit, len(gs), more, len(of), moreOf, len(ts), moreTasks)
		}
	}
}

// TestHoldingIsTheNewest: of an agent's many grants, the last ones, newest
// first.
func TestHoldingIsTheNewest(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	var want []ID
	for i := range MaxHolding + 5 {
		g := r.grant(task, time.Hour)
		if i >= 5 {
			want = slices.Insert(want, 0, g.ID)
		}
	}
	r.grant(task, time.Hour, func(g *Grant) { g.Agent.Subject = "b" })
	r.grant(task, time.Hour, func(g *Grant) { g.Tool = "srv/other" })
	if got := ids(r.Holding(task.ID, "srv/tool", "corp/a")); !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
	r.fence(ScopeGrant, want[0], Superseded)
	if got := ids(r.Holding(task.ID, "srv/tool", "corp/a")); !slices.Equal(got, want[1:]) {
		t.Errorf("after a fence: %v; want %v", got, want[1:])
	}
}

func TestOutdated(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	policy := func(d byte) func(*Grant) { return func(g *Grant) { g.Policy = Digest{d} } }
	r.grant(task, time.Hour, policy(2))
	old, older := r.grant(task, time.Hour, policy(1)), r.grant(task, time.Hour)
	soon := r.grant(task, time.Hour, policy(1), func(g *Grant) { g.NotBefore = epoch.Add(time.Minute) })
	r.grant(task, time.Second, policy(1))
	r.fence(ScopeGrant, r.grant(task, time.Hour, policy(1)).ID, Revoked)
	r.clock.pass(time.Second)
	r.beat()
	outdated := func() []ID { return ids(slices.Collect(r.Outdated(Digest{2}))) }
	want := []ID{old.ID, older.ID, soon.ID}
	same(t, "outdated", outdated(), want)
	for range r.Outdated(Digest{2}) { // nothing is held up by who leaves, or stays
		r.fence(ScopeGrant, soon.ID, PolicyChanged)
		break
	}
	same(t, "after a fence", outdated(), want[:2])
	n := 0
	for range r.Outdated(Digest{2}) {
		r.fence(ScopeAgent, "corp/a", PolicyChanged)
		n++
	}
	if n != 1 {
		t.Errorf("%d came, all of them dead but the first", n)
	}
	again := r.grant(task, time.Hour, policy(1))
	r.clock.pass(DefaultMaxStaleness + 1)
	same(t, "not fresh", outdated(), []ID{again.ID})
}

// TestListsWhileWritten: lists, lookups and a sweep of policy go on while grants
// come and are forgotten; what lives all the time is in every list.
func TestListsWhileWritten(t *testing.T) {
	r := newRig(t)
	task := r.task(time.Hour)
	var always []ID
	for range 3 * chunk / 2 {
		g := &Grant{ID: NewID(GrantPrefix), Task: task.ID, Agent: Principal{Issuer: "corp", Subject: "a"}, Tool: "srv/tool", NotBefore: epoch, Expires: epoch.Add(time.Hour)}
		always = append(always, g.ID)
		r.send(Event{Grant: g})
	}
	r.beat()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	reader := func(what string, list func() []ID) {
		wg.Go(func() {
			for done := false; !done; {
				select {
				case <-stop:
					done = true // once more
				default:
				}
				got := map[ID]bool{}
				for _, id := range list() {
					if got[id] {
						t.Errorf("%s: %s twice", what, id)
					}
					got[id] = true
				}
				for _, id := range always {
					if !got[id] {
						t.Errorf("%s: %s is missing", what, id)
						return
					}
				}
			}
		})
	}
	reader("all", func() []ID { gs, _ := r.Grants(all, 1<<20); return ids(gs) })
	reader("of a task", func() []ID { gs, _ := r.GrantsOf(task.ID, all, 1<<20); return ids(gs) })
	reader("outdated", func() []ID { return ids(slices.Collect(r.Outdated(Digest{1}))) })
	for i := range 200 {
		for range 5 {
			wall, _ := r.clock.read()
			r.send(Event{Grant: &Grant{
				ID: NewID(GrantPrefix), Task: task.ID, Agent: Principal{Issuer: "corp", Subject: "a"}, Tool: "srv/tool",
				NotBefore: wall, Expires: wall.Add(time.Second),
			}})
		}
		if i%5 == 0 { // what came a minute ago is swept; never so much that the table is not fresh
			r.clock.pass(4 * time.Second)
		}
		r.beat()
	}
	close(stop)
	wg.Wait()
	if n := r.Counts().Grants; n >= len(always)+1000 {
		t.Errorf("%d grants: nothing was swept", n)
	}
}

// TestHoldingsAreWhatIsThere: after any writes and sweeps, a task's holdings are
// exactly its grants in the table, newest first, and each points to its
// neighbours.
func TestHoldingsAreWhatIsThere(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	v := newView()
	v.built(0)
	wall, mono := epoch, time.Duration(0)
	tasks := []*Task{{ID: NewID(TaskPrefix), Deadline: epoch.Add(100 * time.Hour)}, {ID: NewID(TaskPrefix), Deadline: epoch.Add(100 * time.Hour)}}
	for _, task := range tasks {
		v.apply(Event{Task: task}, wall, mono)
	}
	have := map[ID]*Grant{}
	for n := range uint64(3000) {
		g := &Grant{
			ID: NewID(GrantPrefix), Task: tasks[rng.IntN(2)].ID, Agent: Principal{Issuer: "corp", Subject: fmt.Sprint(rng.IntN(8))}, Tool: fmt.Sprint("srv/", rng.IntN(8)),
			NotBefore: wall, Expires: wall.Add(time.Duration(1+rng.IntN(300)) * time.Second), Rev: Rev{1, n + 1},
		}
		have[g.ID] = g
		v.apply(Event{Rev: g.Rev, Grant: g}, wall, mono)
		if rng.IntN(10) > 0 {
			continue
		}
		step := time.Duration(rng.IntN(int(sweepRound * 2)))
		wall, mono = wall.Add(step), mono+step
		v.sweep(wall, mono)
		if step >= sweepRound { // all shards were due
			maps.DeleteFunc(have, func(_ ID, g *Grant) bool { return !wall.Before(g.Expires.Add(forgetAfter)) })
		}
		for id := range have {
			if v.record(id) == nil { // swept before its round was full
				if wall.Before(have[id].Expires.Add(forgetAfter)) {
					t.Fatalf("%s was swept %v before its time", id, have[id].Expires.Add(forgetAfter).Sub(wall))
				}
				delete(have, id)
			}
		}
		listed := 0
		for _, task := range tasks {
			tr, _ := v.task(task.ID)
			for h, r := range tr.newest {
				for newer := (*record)(nil); r != nil; newer, r = r, r.older {
					g := r.grant
					if have[g.ID] != g || g.Task != task.ID || h != v.holding(g.Tool, g.Agent.ID()) || r.newer != newer || newer != nil && newer.grant.Rev.N <= g.Rev.N {
						t.Fatalf("write %d: %+v among %v of %s", n, g, h, task.ID)
					}
					listed++
				}
			}
		}
		if listed != len(have) {
			t.Fatalf("write %d: %d listed of %d", n, listed, len(have))
		}
	}
	if len(have) == 3000 {
		t.Error("nothing was swept")
	}
}
