package broker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// taskAnswer is a task as callers see it.
type taskAnswer struct {
	Task     grants.ID       `json:"task"`
	Kind     string          `json:"kind"`
	Owner    string          `json:"owner"`
	Agents   []string        `json:"agents"`
	Params   json.RawMessage `json:"params,omitempty"` // an object; none: the kind had no manifest
	Deadline time.Time       `json:"deadline"`         // RFC 3339
	Beat     int64           `json:"beat"`             // seconds; 0: none
	State    string          `json:"state"`            // stateOpen or stateEnded

	// Grants are the live ones that the caller may see; nil where a task is one
	// of a list, or has just been started.
	Grants []grantAnswer `json:"grants,omitzero"`
}

const (
	stateOpen    = "open"
	stateEnded   = "ended"
	stateRevoked = "revoked"
)

func answerTask(t *grants.Task, state string) taskAnswer {
	return taskAnswer{
		Task: t.ID, Kind: t.Kind, Owner: t.Owner.ID(), Agents: t.Agents, Params: t.Params,
		Deadline: t.Deadline, Beat: int64(t.Beat / time.Second), State: state,
	}
}

// validKind is the rule for kinds of task: what prints, and no blank.
func validKind(s string) bool { return token.ValidText(s, maxKind) && !strings.Contains(s, " ") }

// endOf is the fence that ends a task.
func endOf(task *grants.Task) grants.Fence {
	return grants.Fence{Scope: grants.ScopeTask, Key: task.ID, Why: grants.TaskEnded, Until: task.Deadline}
}

// endTask handles POST /v1/tasks/{id}/end. Ending what has ended is done, for
// about a minute: then it is forgotten, and unknown.
func (b *Broker) endTask(ctx context.Context, r *request) reply {
	r.named(r.PathValue("id"))
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	return b.end(ctx, r, r.PathValue("id"), func(id grants.ID) any {
		return map[string]string{"task": id, "state": stateEnded}
	})
}

// named notes the task that was asked about, known or not.
func (r *request) named(task grants.ID) {
	if grants.ValidID(task, grants.TaskPrefix) {
		r.records[0].Task = task
	}
}

// end ends a task, if policy lets the caller.
func (b *Broker) end(ctx context.Context, r *request, id grants.ID, body func(grants.ID) any) reply {
	task, why := b.ownTask(ctx, r, id, grants.ActionEndTask)
	if why != grants.None {
		return refused(why, "")
	}
	if rep := b.fence(ctx, r, "ending a task", endOf(task)); rep.why != grants.None {
		return rep
	}
	b.pulses.forget(task.ID)
	return reply{
		status: http.StatusOK, body: body(task.ID),
		done: "the task has ended, but that is not on record: ask again until it is",
	}
}

// ownTask returns a task on which policy permits the action to the caller. A
// task that is not there is put to policy all the same, as nobody's, so that
// the answer and its time say nothing about which it was.
func (b *Broker) ownTask(ctx context.Context, r *request, id, action string) (*grants.Task, grants.Reason) {
	task, why := b.cfg.Table.Task(id)
	if why == grants.NotFresh {
		return nil, why
	}
	known := task != nil
	if !known {
		task = nobodysTask(r.now)
	}
	in := grants.Input{Action: action, Requester: r.who.Principal, Principal: r.who.Principal, Task: task, At: r.now}
	ds, why := b.decide(ctx, r, []grants.Input{in})
	if known {
		r.decided(ds, why, in)
	} else {
		r.decidedOnNothing(ds)
	}
	switch {
	case why == grants.Undecided:
		return nil, why
	case why != grants.None || !known:
		return nil, grants.UnknownTask
	}
	return task, grants.None
}

// nobodysTask is put to policy in place of one that is not there.
func nobodysTask(now time.Time) *grants.Task {
	return &grants.Task{ID: grants.TaskPrefix, Kind: "-", Owner: grants.Principal{Issuer: "-", Subject: "-"}, Deadline: now.Add(time.Minute)}
}

// fence ends something and waits until this process's table knows; none of the
// reply's fields is set when that is done.
func (b *Broker) fence(ctx context.Context, r *request, doing string, f grants.Fence) reply {
	rev, err := b.cfg.Store.Fence(ctx, f)
	if err != nil {
		return b.fault(r, doing, err)
	}
	if err := b.settle(rev); err != nil {
		return b.fault(r, doing+": waiting for the table", err)
	}
	return reply{}
}

// undo fences what a request wrote and is not to stand. There is nobody left to
// tell if it fails, but the operator.
func (b *Broker) undo(r *request, fences ...grants.Fence) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	var last grants.Rev
	var errs []error
	for _, f := range fences {
		rev, err := b.cfg.Store.Fence(ctx, f)
		if errs = append(errs, err); rev.Compare(last) > 0 {
			last = rev
		}
	}
	errs = append(errs, b.cfg.Table.Wait(ctx, last))
	if err := errors.Join(errs...); err != nil {
		b.cfg.Logger.Error("taking back what a refused request wrote", zap.String("decision", r.id), zap.Any("fences", fences), zap.Error(err))
	}
}

// minTTL is the shortest window in seconds that can be asked for: both its ends
// are cut to whole ones, and an answer must be able to say how long it lasts.
const minTTL = 2

// seconds reads a number of seconds, bounded so that no sum overflows.
func seconds(n, least int64) (time.Duration, bool) {
	if n < least {
		return 0, false
	}
	return time.Duration(min(n, 10*365*24*3600)) * time.Second, true
}
