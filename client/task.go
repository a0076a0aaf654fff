package client

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// TaskRequest is what a task is started with.
type TaskRequest struct {
	Kind   string        // the kind of work, as policy names it; required
	Agents []string      // agent ids ("ALIAS/SUBJECT") that may hold its grants; none means the caller
	TTL    time.Duration // until its deadline, in whole seconds; 0 leaves it to the broker
}

// Task is a task as the broker started it.
type Task struct {
	ID       string    `json:"task"` // "t_…"
	Kind     string    `json:"kind"`
	Owner    string    `json:"owner"` // agent id of who started it
	Agents   []string  `json:"agents"`
	Deadline time.Time `json:"deadline"`
}

// StartTask opens a task (POST /v1/tasks). Errors: ErrInvalid before anything
// was sent, *Error for the broker's no, anything else when it is unknown
// whether the task was started; such a task ends by its deadline.
func (c *Client) StartTask(ctx context.Context, r TaskRequest) (Task, error) {
	ttl, err := seconds("task ttl", r.TTL)
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
	}{r.Kind, r.Agents, ttl}
	var t Task
	if err := c.call(ctx, http.MethodPost, []string{"v1", "tasks"}, in, &t); err != nil {
		return Task{}, fmt.Errorf("starting a task: %w", err)
	}
	if !validID(t.ID, "t_") {
		return Task{}, fmt.Errorf("starting a task: the broker's answer names no task")
	}
	return t, nil
}

// EndTask ends a task (POST /v1/tasks/{id}/end): every grant of it is dead
// when this returns nil. Ending it again is no error. Errors as StartTask.
func (c *Client) EndTask(ctx context.Context, task string) error {
	if !validID(task, "t_") {
		return fmt.Errorf("%w: %q is not a task id (t_ and 26 characters)", ErrInvalid, task)
	}
	var out struct {
		Task  string `json:"task"`
		State string `json:"state"`
	}
	if err := c.call(ctx, http.MethodPost, []string{"v1", "tasks", task, "end"}, nil, &out); err != nil {
		return fmt.Errorf("ending the task: %w", err)
	}
	if out.Task != task || out.State != "ended" {
		return fmt.Errorf("ending the task: the broker does not say that %s has ended", task)
	}
	return nil
}

// Revoke ends one grant (DELETE /v1/grants/{id}): no call that starts after
// this returned nil passes under it. Errors as StartTask.
func (c *Client) Revoke(ctx context.Context, grant string) error {
	if !validID(grant, "g_") {
		return fmt.Errorf("%w: %q is not a grant id (g_ and 26 characters)", ErrInvalid, grant)
	}
	var out struct {
		Grant string `json:"grant"`
		State string `json:"state"`
	}
	if err := c.call(ctx, http.MethodDelete, []string{"v1", "grants", grant}, nil, &out); err != nil {
		return fmt.Errorf("revoking the grant: %w", err)
	}
	if out.Grant != grant || out.State != "revoked" {
		return fmt.Errorf("revoking the grant: the broker does not say that %s is revoked", grant)
	}
	return nil
}
