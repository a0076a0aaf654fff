package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// TaskRequest is what a task is started with.
type TaskRequest struct {
	Kind   string        // the kind of work, as policy names it; required
	Agents []string      // agent ids ("ALIAS/SUBJECT") that may hold its grants; none means the caller
	TTL    time.Duration // until its deadline, in whole seconds; 0 leaves it to the broker
	Beat   time.Duration // when it is silent for so long it ends, in whole seconds; see Client.Beat. 0: never
}

// Task is a task as the broker knows it.
type Task struct {
	ID       string    `json:"task"` // "t_…"
	Kind     string    `json:"kind"`
	Owner    string    `json:"owner"` // agent id of who started it
	Agents   []string  `json:"agents"`
	Deadline time.Time `json:"deadline"`
	Beat     int64     `json:"beat"`            // seconds; 0: none
	State    string    `json:"state,omitempty"` // StateOpen or StateEnded
	// Grants are its live grants that the caller may see; of Client.Task alone.
	Grants []LiveGrant `json:"grants,omitempty"`
}

// The states of a task.
const (
	StateOpen  = "open"
	StateEnded = "ended"
)

// TaskFilter says which tasks to list: those to which every field that is not
// "" applies.
type TaskFilter struct {
	Kind  string
	Owner string // agent id
	Agent string // agent id of one that may hold its grants
}

// StartTask opens a task (POST /v1/tasks). Errors: ErrInvalid before anything
// was sent, *Error for the broker's no, anything else when it is unknown
// whether the task was started; such a task ends by its deadline, or by its
// beat.
func (c *Client) StartTask(ctx context.Context, r TaskRequest) (Task, error) {
	ttl, err := seconds("task ttl", r.TTL)
	if err != nil {
		return Task{}, err
	}
	beat, err := seconds("beat", r.Beat)
	if err != nil {
		return Task{}, err
	}
	if r.Kind == "" {
		return Task{}, fmt.Errorf("%w: a task needs a kind", ErrInvalid)
	}
	in := struct {
		Kind   string   `json:"kind"`
		Agents []string `json:"agents,omitempty"`
		TTL    int64    `json:"ttl,omitzero"`
		Beat   int64    `json:"beat,omitzero"`
	}{r.Kind, r.Agents, ttl, beat}
	var t Task
	if err := c.call(ctx, http.MethodPost, []string{"v1", "tasks"}, nil, in, &t); err != nil {
		return Task{}, fmt.Errorf("starting a task: %w", err)
	}
	if !validID(t.ID, "t_") {
		return Task{}, fmt.Errorf("starting a task: the broker's answer names no task")
	}
	if t.Beat != beat {
		return Task{}, fmt.Errorf("starting a task: the broker did not take the beat; it does not end %s by silence", t.ID)
	}
	return t, nil
}

// Task returns a task with its live grants (GET /v1/tasks/{id}). One that the
// caller may not see is refused as an unknown one is. Errors as StartTask.
func (c *Client) Task(ctx context.Context, id string) (Task, error) {
	if err := checkTask(id); err != nil {
		return Task{}, err
	}
	var t Task
	if err := c.call(ctx, http.MethodGet, []string{"v1", "tasks", id}, nil, nil, &t); err != nil {
		return Task{}, fmt.Errorf("asking for the task: %w", err)
	}
	if t.ID != id || t.State != StateOpen && t.State != StateEnded || !allValid(t.Grants) {
		return Task{}, fmt.Errorf("asking for the task: the broker's answer does not describe %s", id)
	}
	return t, nil
}

// Tasks lists open tasks (GET /v1/tasks): at most 1000 of those that the
// caller may see; more says that there are others. Errors as StartTask.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) (tasks []Task, more bool, err error) {
	var out struct {
		Tasks []Task `json:"tasks"`
		More  bool   `json:"more"`
	}
	query := url.Values{"kind": {f.Kind}, "owner": {f.Owner}, "agent": {f.Agent}}
	if err := c.call(ctx, http.MethodGet, []string{"v1", "tasks"}, query, nil, &out); err != nil {
		return nil, false, fmt.Errorf("listing tasks: %w", err)
	}
	for _, t := range out.Tasks {
		if !validID(t.ID, "t_") {
			return nil, false, fmt.Errorf("listing tasks: the broker's answer is no list of tasks")
		}
	}
	return out.Tasks, out.More, nil
}

// Beat says that a task's work goes on (POST /v1/tasks/{id}/beat). A task that
// was started with a Beat ends when nobody has said so for that long. Errors as
// StartTask; a task that has ended is refused.
func (c *Client) Beat(ctx context.Context, task string) error {
	if err := checkTask(task); err != nil {
		return err
	}
	var out struct {
		Task  string `json:"task"`
		State string `json:"state"`
	}
	if err := c.call(ctx, http.MethodPost, []string{"v1", "tasks", task, "beat"}, nil, nil, &out); err != nil {
		return fmt.Errorf("keeping the task open: %w", err)
	}
	if out.Task != task || out.State != StateOpen {
		return fmt.Errorf("keeping the task open: the broker does not say that %s is open", task)
	}
	return nil
}

// EndTask ends a task (POST /v1/tasks/{id}/end): every grant of it is dead
// when this returns nil. Ending it again is no error. Errors as StartTask.
func (c *Client) EndTask(ctx context.Context, task string) error {
	if err := checkTask(task); err != nil {
		return err
	}
	var out struct {
		Task  string `json:"task"`
		State string `json:"state"`
	}
	if err := c.call(ctx, http.MethodPost, []string{"v1", "tasks", task, "end"}, nil, nil, &out); err != nil {
		return fmt.Errorf("ending the task: %w", err)
	}
	if out.Task != task || out.State != StateEnded {
		return fmt.Errorf("ending the task: the broker does not say that %s has ended", task)
	}
	return nil
}

func checkTask(id string) error {
	if !validID(id, "t_") {
		return fmt.Errorf("%w: %q is not a task id (t_ and 26 characters)", ErrInvalid, id)
	}
	return nil
}
