package broker

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// Bounds of a task's beat, in seconds.
const (
	minBeat = 2
	maxBeat = 3600
)

// beatTick is how often Run looks: a task ends at most so much, and the time
// that a fence takes, after its silence has become too long.
const beatTick = 500 * time.Millisecond

// pulses are the last signs of life of the open tasks that must give one. They
// are counted by the broker that started the task, on the monotonic clock: a
// wall clock that is set neither ends a task nor keeps it.
type pulses struct {
	mu sync.Mutex
	of map[grants.ID]*pulse // task id -> pulse; no more of them than tasks
}

type pulse struct {
	task   *grants.Task
	last   time.Time // with its monotonic reading
	silent bool      // for too long: the task ends, and no beat comes in time any more

	// Of the goroutine of Run alone.
	fenced  bool
	fence   grants.Rev
	silence time.Duration // as of the last look
}

func newPulses() *pulses { return &pulses{of: map[grants.ID]*pulse{}} }

// beat takes in a sign of life, the first one included; false: it came too late.
func (p *pulses) beat(task *grants.Task, now time.Time) bool {
	if task.Beat == 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pl := p.of[task.ID]
	if pl == nil {
		pl = &pulse{task: task, last: now}
		p.of[task.ID] = pl
	}
	// One that comes late is not let pass because nobody has looked yet.
	if pl.silent = pl.silent || now.Sub(pl.last) >= task.Beat; pl.silent {
		return false
	}
	pl.last = now
	return true
}

func (p *pulses) forget(task grants.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, task)
}

// silent returns those whose silence is too long, and forgets those whose task
// is past its deadline at the wall time.
func (p *pulses) silent(now, wall time.Time) []*pulse {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*pulse
	for id, pl := range p.of {
		if !pl.fenced && !wall.Before(pl.task.Deadline) {
			delete(p.of, id)
			continue
		}
		if pl.silence = now.Sub(pl.last); pl.silent || pl.silence >= pl.task.Beat {
			pl.silent = true
			found = append(found, pl)
		}
	}
	return found
}

// Run ends the tasks that are silent for longer than their beat, until ctx
// ends, whose error it returns. What could not be ended or recorded is tried
// again.
func (b *Broker) Run(ctx context.Context) error {
	tick := time.NewTicker(beatTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := b.endSilent(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Logger.Error("ending silent tasks; it is tried again", zap.Error(err))
		}
	}
}

// endSilent fences what is silent, and records it once the table has that: from
// then on a beat finds its task ended. The first error ends it, and the map's
// order sees to it that no task is always behind one that fails.
func (b *Broker) endSilent(ctx context.Context) error {
	var ended []*pulse
	var last grants.Rev
	var failed error
	for _, pl := range b.pulses.silent(time.Now(), b.cfg.Table.Now()) {
		if !pl.fenced {
			if _, why := b.cfg.Table.Task(pl.task.ID); why == grants.TaskEnded || why == grants.UnknownTask {
				b.pulses.forget(pl.task.ID) // somebody else has ended it
				continue
			}
			if failed = b.fenceSilent(ctx, pl); failed != nil {
				break
			}
		}
		if ended = append(ended, pl); pl.fence.Compare(last) > 0 {
			last = pl.fence
		}
	}
	if len(ended) == 0 {
		return failed
	}
	if err := b.settle(last); err != nil {
		return err
	}
	for some := range slices.Chunk(ended, 256) {
		if err := b.recordSilent(some); err != nil {
			return err
		}
		for _, pl := range some {
			b.pulses.forget(pl.task.ID)
		}
	}
	return failed
}

func (b *Broker) fenceSilent(ctx context.Context, pl *pulse) (err error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	pl.fence, err = b.cfg.Store.Fence(ctx, endOf(pl.task))
	pl.fenced = err == nil
	return err
}

// recordSilent writes one record for each task: nobody asked for its end.
func (b *Broker) recordSilent(ended []*pulse) error {
	var records []audit.Record
	for _, pl := range ended {
		records = append(records, audit.Record{
			ID: grants.NewID(grants.DecisionPrefix), Time: b.cfg.Table.Now(), Kind: grants.ActionEndTask,
			Task: pl.task.ID, Outcome: audit.Allow, Rev: b.cfg.Table.Rev().String(), Count: 1,
			Note: fmt.Sprintf("silent for %v, with a beat of %v", pl.silence.Truncate(time.Second), pl.task.Beat),
		})
	}
	return b.cfg.Record(records)
}

// beatAnswer is the answer of POST /v1/tasks/{id}/beat.
type beatAnswer struct {
	Task     grants.ID `json:"task"`
	State    string    `json:"state"`
	Deadline time.Time `json:"deadline"`
	Beat     int64     `json:"beat"` // seconds
}

// beatTask handles POST /v1/tasks/{id}/beat, by the task's owner. An accepted
// beat leaves no record: it decides nothing, permits nothing and moves no
// deadline, and one a second for each task would bury what the log is for. A
// refused one does.
func (b *Broker) beatTask(_ context.Context, r *request) reply {
	id := r.PathValue("id")
	r.named(id)
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	task, why := b.cfg.Table.Task(id)
	switch {
	case why == grants.NotFresh:
		return refused(why, "")
	case task == nil || !is(task.Owner, r.who.Principal):
		return refused(grants.UnknownTask, "")
	case why != grants.None:
		return refused(why, "")
	case task.Beat == 0:
		return refused(grants.BadRequest, `the task was started without a "beat": it may be silent until its deadline`)
	case !b.pulses.beat(task, time.Now()):
		return refused(grants.TaskEnded, "the task was silent for longer than its beat, and ends")
	}
	return reply{
		status: http.StatusOK, quiet: true,
		body: beatAnswer{task.ID, stateOpen, task.Deadline, int64(task.Beat / time.Second)},
	}
}
