package broker

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// beating is a house whose Run runs, in a bubble of its own time.
func beating(t *testing.T, test func(*testing.T, *house), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, change...)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- h.Run(ctx) }()
		defer func() {
			stop()
			if err := <-ran; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		}()
		test(t, h)
	})
}

// ended waits until a task is open no more, and says how long that took.
func (h *house) ended(task grants.ID, patience time.Duration) time.Duration {
	h.t.Helper()
	began := time.Now()
	for time.Since(began) < patience {
		if _, why := h.cfg.Table.Task(task); why == grants.TaskEnded {
			return time.Since(began)
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("open after %v", patience)
	return 0
}

// kept is how many pulses there are.
func (h *house) kept() int {
	h.pulses.mu.Lock()
	defer h.pulses.mu.Unlock()
	return len(h.pulses.of)
}

func TestSilenceEndsATask(t *testing.T) {
	beating(t, func(t *testing.T, h *house) {
		task := h.start(`,"beat":10`, "corp/bot")
		quiet := h.start("", "corp/bot")
		id := h.buy(h.as("bot"), task, "pay/send", "").GrantID
		began := time.Now()
		h.recorded()
		for range 10 {
			time.Sleep(9 * time.Second)
			m := h.must("POST /v1/tasks/"+task+"/beat", h.boss(), "")
			if m["task"] != task || m["state"] != "open" || m["beat"] != 10.0 || m["deadline"] == "" {
				t.Fatalf("%v", m)
			}
		}
		if rs := h.recorded(); len(rs) != 0 {
			t.Errorf("accepted beats are on record: %+v", rs)
		}
		if took := h.ended(task, time.Minute); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("ended after %v of silence", took)
		}
		if h.state(id) != grants.TaskEnded {
			t.Errorf("its grant: %v", h.state(id))
		}
		time.Sleep(time.Second)
		rs := h.recorded()
		if len(rs) != 1 || rs[0].Kind != grants.ActionEndTask || rs[0].Task != task || rs[0].Requester != "" || rs[0].Outcome != audit.Allow ||
			!strings.HasPrefix(rs[0].Note, "silent for 10s") || rs[0].ID == "" {
			t.Errorf("on record: %+v", rs)
		}
		h.refuse("POST /v1/tasks/"+task+"/beat", h.boss(), "", 409, grants.TaskEnded)
		if rs := h.recorded(); len(rs) != 1 || rs[0].Kind != "beat" || rs[0].Task != task || rs[0].Outcome != audit.Deny {
			t.Errorf("on record: %+v", rs)
		}
		if _, why := h.cfg.Table.Task(quiet); why != grants.None || time.Since(began) < 90*time.Second {
			t.Errorf("a task that may be silent: %v", why)
		}
		if n := h.kept(); n != 0 {
			t.Errorf("%d pulses of ended tasks are kept", n)
		}
	})
}

func TestWhoMayBeat(t *testing.T) {
	beating(t, func(t *testing.T, h *house) {
		task := h.start(`,"beat":5`, "corp/bot")
		h.refuse("POST /v1/tasks/"+task+"/beat", h.as("bot"), "", 404, grants.UnknownTask)
		h.refuse("POST /v1/tasks/"+task+"/beat", h.as("op", "ops"), "", 404, grants.UnknownTask)
		h.refuse("POST /v1/tasks/"+task+"/beat", h.boss(), "{}", 400, grants.Malformed)
		h.refuse("POST /v1/tasks/"+task+"/beat", "", "", 401, grants.NoCredential)
		h.refuse("POST /v1/tasks/"+h.start("", "corp/bot")+"/beat", h.boss(), "", 400, grants.BadRequest)
		// None of these kept it alive.
		if took := h.ended(task, time.Minute); took > 7*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

// TestLateBeat: one that comes too late is refused also where nobody has looked
// yet, and the task does end.
func TestLateBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t) // without Run
		task := h.start(`,"beat":5`, "corp/bot")
		time.Sleep(5 * time.Second)
		h.refuse("POST /v1/tasks/"+task+"/beat", h.boss(), "", 409, grants.TaskEnded)
		h.refuse("POST /v1/tasks/"+task+"/beat", h.boss(), "", 409, grants.TaskEnded)
		if err := h.endSilent(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, why := h.cfg.Table.Task(task); why != grants.TaskEnded {
			t.Error(why)
		}
	})
}

// TestSilenceIsTriedAgain until the fence is written, and until it is on record.
func TestSilenceIsTriedAgain(t *testing.T) {
	var failing, unrecorded atomic.Bool
	var records atomic.Int64
	beating(t, func(t *testing.T, h *house) {
		task := h.start(`,"beat":5`, "corp/bot")
		failing.Store(true)
		time.Sleep(10 * time.Second)
		if _, why := h.cfg.Table.Task(task); why != grants.None {
			t.Fatal(why)
		}
		h.refuse("POST /v1/tasks/"+task+"/beat", h.boss(), "", 409, grants.TaskEnded)
		failing.Store(false)
		unrecorded.Store(true)
		h.ended(task, 2*time.Second)
		time.Sleep(3 * time.Second)
		if records.Load() != 0 {
			t.Fatal("recorded")
		}
		unrecorded.Store(false)
		time.Sleep(5 * time.Second)
		if records.Load() != 1 || h.kept() != 0 {
			t.Errorf("%d records, %d pulses", records.Load(), h.kept())
		}
	}, func(c *Config) {
		c.Store = brokenStore{c.Store, func(f grants.Fence) error {
			if failing.Load() {
				return errors.New("no store")
			}
			return nil
		}}
		record := c.Record
		c.Record = func(rs []audit.Record) error {
			if unrecorded.Load() {
				return errors.New("no room")
			}
			for _, r := range rs {
				if strings.HasPrefix(r.Note, "silent") {
					records.Add(1)
				}
			}
			return record(rs)
		}
	})
}

// TestPulsesAreNoMoreThanTasks: what ends in another way leaves nothing.
func TestPulsesAreNoMoreThanTasks(t *testing.T) {
	beating(t, func(t *testing.T, h *house) {
		for range 5 {
			h.must("POST /v1/tasks/"+h.start(`,"beat":3600`, "corp/bot")+"/end", h.boss(), "")
			h.must("DELETE /v1/grants?task="+h.start(`,"beat":3600`, "corp/bot"), h.boss(), "")
			h.start(`,"beat":3600,"ttl":30`, "corp/bot")
		}
		if n := h.kept(); n != 5 {
			t.Errorf("%d pulses of 5 open tasks", n)
		}
		// One that a fence of somebody else ends is forgotten without a record.
		task := h.start(`,"beat":5`, "corp/bot")
		if _, err := h.store.Fence(t.Context(), grants.Fence{Scope: grants.ScopeTask, Key: task, Why: grants.TaskEnded, Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		h.recorded()
		time.Sleep(31 * time.Second)
		if n, rs := h.kept(), h.recorded(); n != 0 || len(rs) != 0 {
			t.Errorf("%d pulses, on record %+v", n, rs)
		}
	})
	// One whose start is not on record is none.
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *Config) { c.Record = func([]audit.Record) error { return errors.New("no room") } })
		h.refuse("POST /v1/tasks", h.boss(), `{"kind":"k","beat":5}`, 503, grants.CannotRecord)
		if n := h.kept(); n != 0 {
			t.Errorf("%d pulses", n)
		}
	})
}

// TestManySilent: all of them end in time.
func TestManySilent(t *testing.T) {
	beating(t, func(t *testing.T, h *house) {
		for range 600 {
			h.must("POST /v1/tasks", h.boss(), `{"kind":"k","beat":3}`)
		}
		h.recorded()
		time.Sleep(5 * time.Second)
		open, _ := h.cfg.Table.Tasks(func(*grants.Task) bool { return true }, 1)
		if rs := h.recorded(); len(open) != 0 || len(rs) != 600 {
			t.Errorf("%d open, %d on record", len(open), len(rs))
		}
	})
}
