package grants

import (
	"runtime"
	"testing"
	"time"
	"unsafe"
)

// events are those of n grants, ten a task, of 1,000 agents and 100 tools.
func events(n int) []Event {
	evs := make([]Event, 0, n+n/10)
	wall, _ := SystemClock()
	var task *Task
	for i := range n {
		if i%10 == 0 {
			task = &Task{ID: NewID(TaskPrefix), Kind: "release", Agents: []string{"corp/a"}, Deadline: wall.Add(4 * time.Hour)}
			evs = append(evs, Event{Task: task})
		}
		evs = append(evs, Event{Grant: &Grant{
			ID: NewID(GrantPrefix), Task: task.ID, Tool: toolNames[i%len(toolNames)], Agent: agents[i/10%len(agents)],
			NotBefore: wall, Expires: wall.Add(time.Hour), Policy: Digest{byte(1 + i%2)}, Rev: Rev{1, uint64(i)},
		}})
	}
	return evs
}

// tableOf is a Table that has heard of the events.
func tableOf(evs []Event) *Table {
	t := NewTable(TableConfig{MaxStaleness: time.Hour})
	v := t.view.Load()
	wall, mono := SystemClock()
	for _, ev := range evs {
		v.apply(ev, wall, mono)
	}
	v.built(mono)
	t.heardMono.Store(int64(mono))
	t.heardWall.Store(wall.UnixNano())
	return t
}

// million is a Table with 10^6 live grants, and their ids.
func million() (*Table, []ID) {
	evs := events(1_000_000)
	var ids []ID
	for _, ev := range evs {
		if ev.Grant != nil {
			ids = append(ids, ev.Grant.ID)
		}
	}
	return tableOf(evs), ids
}

var toolNames, agents = func() ([]string, []Principal) {
	names, ps := make([]string, 100), make([]Principal, 1000)
	for i := range names {
		names[i] = "server/" + NewID("tool_")
	}
	for i := range ps {
		ps[i] = Principal{Issuer: "corp", Subject: NewID("agent_"), Groups: []string{"corp/agents"}}
	}
	return names, ps
}()

// BenchmarkLookup is among 10^6 live grants.
func BenchmarkLookup(b *testing.B) {
	t, ids := million()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i += 7919 { // a prime: the next is in no cache
			if _, why := t.Lookup(ids[i%len(ids)]); why != None {
				b.Error(why)
				return
			}
		}
	})
}

// BenchmarkTableBytes is what each of 10^6 live grants takes, with a tenth of
// its task: as a Grant, which a Memory in the same process shares, and in the
// Table besides.
func BenchmarkTableBytes(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	const n = 1_000_000
	for b.Loop() {
		none := heap()
		evs := events(n)
		alone := heap()
		t := tableOf(evs)
		all := heap()
		b.ReportMetric((alone-none-float64(cap(evs))*float64(unsafe.Sizeof(Event{})))/n, "B/Grant")
		b.ReportMetric((all-alone)/n, "B/record")
		runtime.KeepAlive(evs)
		runtime.KeepAlive(t)
	}
}

// BenchmarkHolding is the lookup of what may be reused, in a task of 10^5
// grants of one agent for one tool.
func BenchmarkHolding(b *testing.B) {
	wall, _ := SystemClock()
	task := &Task{ID: NewID(TaskPrefix), Deadline: wall.Add(time.Hour)}
	evs := []Event{{Task: task}}
	for i := range uint64(100_000) {
		evs = append(evs, Event{Grant: &Grant{
			ID: NewID(GrantPrefix), Task: task.ID, Tool: toolNames[0], Agent: agents[0],
			NotBefore: wall, Expires: wall.Add(time.Hour), Rev: Rev{1, i},
		}})
	}
	t := tableOf(evs)
	agent := agents[0].ID()
	for b.Loop() {
		if len(t.Holding(task.ID, toolNames[0], agent)) != MaxHolding {
			b.Fatal("not found")
		}
	}
}

// BenchmarkLists is a list that matches nothing, and a whole sweep of policy, of
// 10^6 grants; and how long one shard's lock is held by it.
func BenchmarkLists(b *testing.B) {
	t, ids := million()
	b.Run("Grants", func(b *testing.B) {
		for b.Loop() {
			if found, _ := t.Grants(func(g *Grant) bool { return g.Tool == "none" }, 1000); found != nil {
				b.Fatal(found)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/numShards, "ns/lock")
	})
	b.Run("Outdated", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for range t.Outdated(Digest{1}) {
				n++
			}
			if n != len(ids)/2 {
				b.Fatal(n)
			}
		}
	})
}
