package client

import (
	"bytes"
	"context"
	"encoding/json"
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
	// Params are the parameters that the manifest of the kind asks for, a JSON
	// object; nil: none. They never change.
	Params json.RawMessage
	// Grant starts it with the grants of all that the manifest has and policy
	// permits. It goes with a kind that has a manifest, and with one agent.
	Grant bool
}

// Task is a task as the broker knows it.
type Task struct {
	ID     string   `json:"task"` // "t_…"
	Kind   string   `json:"kind"`
	Owner  string   `json:"owner"` // agent id of who started it
	Agents []string `json:"agents"`
	// Params are a JSON object; nil: its kind had no manifest.
	Params   json.RawMessage `json:"params,omitempty"`
	Deadline time.Time       `json:"deadline"`
	Beat     int64           `json:"beat"`            // seconds; 0: none
	State    string          `json:"state,omitempty"` // StateOpen or StateEnded
	// Grants are its live grants that the caller may see; of Client.Task alone.
	Grants []LiveGrant `json:"grants,omitempty"`
}

// Started is a task that has just been started, and what was granted in it.
type Started struct {
	Task
	// Tokens are one for each server of what was granted; nil: no grants were
	// asked for.
	Tokens []Token `json:"tokens,omitempty"`
	// Refused are the manifest's tools that were not granted.
	Refused []Refused `json:"refused,omitempty"`
}

// Refused is a tool that was not granted. Every text in it is the broker's, cut
// and made fit for one line as in Error.
type Refused struct {
	Tool       string `json:"tool"`             // "SERVER/TOOL"
	Reason     string `json:"reason"`           // of toolgrant's closed set
	Help       string `json:"help"`             // what to do
	Advice     string `json:"advice,omitempty"` // what the policies that refused it say
	DecisionID string `json:"decision_id"`      // to be looked up in the audit
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
func (c *Client) StartTask(ctx context.Context, r TaskRequest) (Started, error) {
	ttl, err := seconds("task ttl", r.TTL)
	if err != nil {
		return Started{}, err
	}
	beat, err := seconds("beat", r.Beat)
	if err != nil {
		return Started{}, err
	}
	if r.Kind == "" {
		return Started{}, fmt.Errorf("%w: a task needs a kind", ErrInvalid)
	}
	if r.Params != nil {
		if err := checkObject("the parameters of a task", r.Params); err != nil {
			return Started{}, err
		}
	}
	in := struct {
		Kind   string          `json:"kind"`
		Agents []string        `json:"agents,omitempty"`
		TTL    int64           `json:"ttl,omitzero"`
		Beat   int64           `json:"beat,omitzero"`
		Params json.RawMessage `json:"params,omitempty"`
		Grant  bool            `json:"grant,omitzero"`
	}{r.Kind, r.Agents, ttl, beat, r.Params, r.Grant}
	var s Started
	if err := c.call(ctx, http.MethodPost, []string{"v1", "tasks"}, nil, in, &s); err != nil {
		return Started{}, fmt.Errorf("starting a task: %w", err)
	}
	if err := s.check(r, beat); err != nil {
		return Started{}, fmt.Errorf("starting a task: %w", err)
	}
	return s, nil
}

// check holds an answer against what was asked.
func (s *Started) check(r TaskRequest, beat int64) error {
	switch {
	case !validID(s.ID, "t_"):
		return fmt.Errorf("the broker's answer names no task")
	case s.Beat != beat:
		return fmt.Errorf("the broker did not take the beat; it does not end %s by silence", s.ID)
	case r.Params != nil && s.Params == nil:
		return fmt.Errorf("the broker did not take the parameters of %s", s.ID)
	case r.Grant && s.Tokens == nil:
		return fmt.Errorf("the broker does not say what it granted in %s", s.ID)
	case !r.Grant && s.Tokens != nil:
		return fmt.Errorf("the broker granted in %s what was not asked for", s.ID)
	}
	if _, err := checkTokens(s.Tokens, s.ID); err != nil {
		return fmt.Errorf("%w (the task is %s)", err, s.ID)
	}
	for i := range s.Refused {
		for _, text := range []*string{&s.Refused[i].Tool, &s.Refused[i].Reason, &s.Refused[i].Help, &s.Refused[i].Advice, &s.Refused[i].DecisionID} {
			*text = clean(*text, 512, "")
		}
	}
	return nil
}

// checkObject refuses what is no JSON object.
func checkObject(what string, text json.RawMessage) error {
	if !json.Valid(text) || !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("%w: %s: write a JSON object", ErrInvalid, what)
	}
	return nil
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
