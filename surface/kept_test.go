package surface

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

func id(i int) key { return key{"s", fmt.Sprint(i)} }

// known says which of the ids are known, without using them.
func known(b *book[string], ids ...int) string {
	var out string
	for _, i := range ids {
		if _, ok := b.places[id(i)]; ok {
			out += fmt.Sprint(i)
		}
	}
	return out
}

func TestTheLongestUnusedGivesWay(t *testing.T) {
	now := time.Now()
	b := newBook[string](5, 3, time.Hour, true)
	put := func(agent string, i int) {
		t.Helper()
		if !b.put(now, id(i), agent, agent) {
			t.Fatalf("%d is somebody else's", i)
		}
	}
	put("a", 1)
	put("a", 2)
	put("a", 3)
	b.get(now, id(1))
	put("a", 4) // a is at its own bound: 2 goes
	if got := known(b, 1, 2, 3, 4); got != "134" {
		t.Errorf("of a's: %s are known, want 134", got)
	}
	put("b", 5)
	put("b", 6)
	put("b", 7) // all are at their bound: 3 goes
	if got := known(b, 1, 2, 3, 4, 5, 6, 7); got != "14567" {
		t.Errorf("of all: %s are known, want 14567", got)
	}
	put("a", 1) // said again, that is a use, and nobody gives way
	put("c", 8)
	if got := known(b, 1, 2, 3, 4, 5, 6, 7, 8); got != "15678" {
		t.Errorf("of all: %s are known, want 15678", got)
	}
	b.drop(id(1))
	b.drop(id(1))
	b.drop(id(99))
	if got := known(b, 1, 5, 6, 7, 8); got != "5678" {
		t.Errorf("after 1 was dropped: %s are known, want 5678", got)
	}
	if b.put(now, id(5), "a", "a") {
		t.Error("5 was given away")
	}
	if agent, value, _ := b.get(now, id(5)); !b.put(now, id(5), "b", "other") || agent != "b" || value != "b" {
		t.Errorf("5 is %q's %q", agent, value)
	}
	if _, value, _ := b.get(now, id(5)); value != "b" {
		t.Errorf("5 became %q by being said again", value)
	}
	b.set(now, id(6), "set")
	if agent, value, _ := b.get(now, id(6)); agent != "b" || value != "set" {
		t.Errorf("6 is %q's %q", agent, value)
	}
}

func TestLives(t *testing.T) {
	for _, renewed := range []bool{false, true} {
		now := time.Now()
		b := newBook[string](5, 5, time.Hour, renewed)
		b.put(now, id(1), "a", "a")
		for range 3 {
			now = now.Add(20*time.Minute - 1)
			if _, _, ok := b.get(now, id(1)); !ok {
				t.Fatalf("renewed %v: forgotten too early", renewed)
			}
		}
		if !b.put(now, id(1), "a", "a") { // to say it again is a use at most
			t.Fatal("it is not a's any more")
		}
		now = now.Add(3)
		if _, _, ok := b.get(now, id(1)); ok != renewed {
			t.Errorf("renewed %v: after an hour: known %v", renewed, ok)
		}
		if b.put(now, id(1), "b", "b") == renewed {
			t.Errorf("renewed %v: whether another may have it now: %v", renewed, !renewed)
		}
		now = now.Add(time.Hour)
		if _, _, ok := b.get(now, id(1)); ok {
			t.Errorf("renewed %v: known after an hour without use", renewed)
		}
		if n := len(b.places) + b.all.Len() + len(b.agents); n != 0 {
			t.Errorf("renewed %v: %d things are left of it", renewed, n)
		}
	}
}

// Whatever happens, the two lists and the two maps say the same.
func TestABookIsConsistent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	b := newBook[string](20, 6, time.Minute, true)
	for range 20_000 {
		now = now.Add(time.Duration(rnd.IntN(3)) * time.Second)
		k, agent := id(rnd.IntN(60)), fmt.Sprint(rnd.IntN(7))
		switch rnd.IntN(4) {
		case 0, 1:
			owner, had := "", false
			if p, ok := b.places[k]; ok {
				e := p.inAll.Value.(*entry[string])
				owner, had = e.agent, now.Sub(e.since) < time.Minute
			}
			if got, want := b.put(now, k, agent, agent), !had || owner == agent; got != want {
				t.Fatalf("put: %v, want %v", got, want)
			}
		case 2:
			b.get(now, k)
		case 3:
			b.drop(k)
		}
		own := 0
		for agent, l := range b.agents {
			if own += l.Len(); l.Len() == 0 || l.Len() > 6 {
				t.Fatalf("%s has %d", agent, l.Len())
			}
		}
		if n := len(b.places); n > 20 || n != b.all.Len() || n != own {
			t.Fatalf("%d ids, %d in all, %d of agents", n, b.all.Len(), own)
		}
	}
}

func TestAPassIsGoodOnce(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	u := newUsed(4, 2)
	take := func(now int, decision, agent string, ends int, want bool) {
		t.Helper()
		if got := u.take(mcp.Pass{Decision: decision, Agent: agent, Ends: at(ends)}, at(now)); got != want {
			t.Errorf("%s at %d: %v, want %v", decision, now, got, want)
		}
	}
	take(0, "1", "a", 10, true)
	take(0, "1", "a", 10, false)
	take(10, "1", "a", 10, false)
	take(1, "2", "a", 50, true)
	take(1, "3", "a", 10, false) // a has its share
	take(1, "3", "b", 5, true)
	take(1, "4", "c", 10, true)
	take(1, "5", "d", 10, false) // no room
	take(5, "5", "d", 10, false)
	take(6, "5", "d", 10, true)  // 3 has ended
	take(7, "3", "b", 5, false)  // it does not come back
	take(4, "3", "b", 5, false)  // not by a clock that was set back
	take(11, "6", "a", 20, true) // 1, 4 and 5 have ended
	take(11, "7", "a", 20, false)
	take(51, "2", "a", 50, false)
	take(51, "8", "a", 60, true)
	if len(u.ids) != 1 || len(u.ends) != 1 || len(u.agents) != 1 {
		t.Errorf("left: %v, %v, %v; want 8's alone", u.ids, u.ends, u.agents)
	}
}

// Many that end at once are forgotten bit by bit, and each is remembered until
// then.
func TestManyPasses(t *testing.T) {
	start := time.Now()
	u := newUsed(1000, 1000)
	for i := range 1000 {
		ends := start.Add(time.Duration(i%7) * time.Second)
		if !u.take(mcp.Pass{Decision: fmt.Sprint(i), Agent: "a", Ends: ends}, start) {
			t.Fatalf("%d is not taken", i)
		}
	}
	late := start.Add(time.Minute)
	for i := range 1000/(maxForgotten-1) + 1 {
		if !u.take(mcp.Pass{Decision: fmt.Sprint("late", i), Agent: "a", Ends: late}, start.Add(10*time.Second)) {
			t.Fatalf("late %d is not taken", i)
		}
		if n := len(u.ends); i == 0 && n != 1000-maxForgotten+1 {
			t.Fatalf("%d are remembered after the first, want %d", n, 1000-maxForgotten+1)
		}
	}
	if n := len(u.ends); n > 1000/(maxForgotten-1)+1 {
		t.Errorf("%d are remembered", n)
	}
}

func TestNobodyEntersWhatIsClosed(t *testing.T) {
	g := newGate(2, 2)
	if !g.enter("a", initialize) {
		t.Fatal("there is no room")
	}
	closed := make(chan struct{})
	go func() { g.close(); close(closed) }()
	eventually(t, "it is shut", func() bool {
		entered := g.enter("b", initialize)
		if entered {
			g.leave("b", initialize)
		}
		return !entered
	})
	select {
	case <-closed:
		t.Error("close did not wait")
	default:
	}
	g.leave("a", initialize)
	<-closed
	if g.enter("a", initialize) {
		t.Error("it is open again")
	}
}

// Sessions live by their use, tasks from their start.
func TestWhatASurfaceRemembers(t *testing.T) {
	now := time.Now()
	s := New(Config{Now: func() time.Time { return now }})
	s.sessions.put(now, key{"s", "1"}, "a", false)
	s.tasks.put(now, key{"s", "1"}, "a", nil)
	for hours := 20; hours < 100; hours += 20 {
		now = now.Add(20 * time.Hour)
		if agent, _, ok := s.Session("s", "1"); agent != "a" || !ok {
			t.Errorf("after %d h: the session is %q's", hours, agent)
		}
		if _, ok := s.Task("s", "1"); ok != (hours < 24) {
			t.Errorf("after %d h: the task is known: %v", hours, ok)
		}
	}
	now = now.Add(24 * time.Hour)
	if _, _, ok := s.Session("s", "1"); ok {
		t.Error("the session is known after a day without use")
	}
}

func TestToPinIsToUse(t *testing.T) {
	now := time.Now()
	s := New(Config{Now: func() time.Time { return now }})
	s.sessions.put(now, key{"s", "1"}, "a", false)
	for range 3 {
		now = now.Add(20 * time.Hour)
		s.PinSession("s", "1")
	}
	for i := range maxKeptEach {
		if i == maxKeptEach/2 {
			s.PinSession("s", "1")
		}
		s.sessions.put(now, key{"s", fmt.Sprint("other", i)}, "a", false)
	}
	if agent, pinned, known := s.Session("s", "1"); agent != "a" || !pinned || !known {
		t.Errorf("it is %q's, pinned %v, known %v", agent, pinned, known)
	}
	now = now.Add(keptTime)
	s.PinSession("s", "1")
	if _, pinned, known := s.Session("s", "1"); pinned || known {
		t.Errorf("forgotten, and pinned %v, known %v", pinned, known)
	}
}

// A method, or an agent, that takes all it gets leaves the others what is theirs.
func TestNobodyTakesAll(t *testing.T) {
	var s *Surface
	fill := func(method string) (n, most int) {
		for a := range 200 {
			own := 0
			for s.gate.enter(fmt.Sprint(method, a), method) {
				own++
			}
			n, most = n+own, max(most, own)
		}
		return n, most
	}
	for _, first := range []string{initialize, mcp.ToolsCall} {
		second := map[string]string{initialize: mcp.ToolsCall, mcp.ToolsCall: initialize}[first]
		s = New(Config{})
		n, each := fill(first)
		if rest, _ := fill(second); n != 768 || rest != 256 || each != 32 {
			t.Errorf("%s first: it has %d, %d of an agent's, and the other %d; want 768, 32, 256", first, n, each, rest)
		}
		for a := range 24 {
			s.gate.leave(fmt.Sprint(first, a), first)
		}
		if n, _ := fill(second); n != 24 {
			t.Errorf("%s first: of 24 that left, the other gets %d", first, n)
		}
		if n, _ := fill(first); n != 0 {
			t.Errorf("%s first: %d more than all", first, n)
		}
	}
}
