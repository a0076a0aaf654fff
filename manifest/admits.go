package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// skew is how far the clocks of two nodes may be apart, one of which started a
// task that the other one gives a grant in.
const skew = time.Minute

// Admits reports whether a grant of the task, new or old, is inside the manifest
// of the task's kind as it is now; nil if it is, or if kind and task have no
// manifest. A task with parameters whose kind has no manifest any more, and one
// without whose kind has got one, have nothing. The error says what is outside,
// for the requester; it has nothing of the parameters in it.
//
// Inside is: the tool is in it; the window is at most its ttl, and the manifest's
// max_duration; the compiled constraint is among the grant's, byte for byte; for
// each bound the task's budget is among the grant's, and at most as high; a
// grant for a tool that is "once" is one. It ends within max_duration of the
// task's start; where that is not known (Task.Started), no more than that, and a
// minute, is left of the task at the grant's begin.
func (s *Set) Admits(t *grants.Task, g *grants.Grant) error {
	if t == nil || g == nil {
		return errors.New("manifest: no task or no grant to look at")
	}
	m, ok := s.Kind(t.Kind)
	switch {
	case !ok && t.Params == nil:
		return nil
	case !ok:
		return fmt.Errorf("the kind %q has no manifest any more, and the task was started under one", t.Kind)
	case t.Params == nil:
		return fmt.Errorf("the kind %q has a manifest now, and the task was started without one", t.Kind)
	}
	tool, ok := m.tool(g.Tool)
	if !ok {
		return fmt.Errorf("the manifest of %q does not have the tool %s", t.Kind, cut(g.Tool))
	}
	values, err := m.started(t.Params)
	if err != nil {
		return fmt.Errorf("the manifest of %q does not take the task's parameters any more: %w", t.Kind, err)
	}
	// Not compiled: the grant has the very text, and its constraints were.
	e, err := tool.entry(values)
	if err != nil {
		return fmt.Errorf("the manifest of %q does not take the task's parameters any more: %w", t.Kind, err)
	}
	if err := m.admitsTime(t, g, e.TTL); err != nil {
		return err
	}
	return e.admits(t, g)
}

func (m *Manifest) admitsTime(t *grants.Task, g *grants.Grant, ttl time.Duration) error {
	switch {
	case ttl > 0 && g.TTL() > ttl:
		return fmt.Errorf("%s: the grant lasts %v, and the manifest has %v", g.Tool, g.TTL(), ttl)
	case m.MaxDuration > 0 && g.TTL() > m.MaxDuration:
		return fmt.Errorf("%s: the grant lasts %v, and the manifest has %v for the whole task", g.Tool, g.TTL(), m.MaxDuration)
	case m.MaxDuration > 0 && !t.Started.IsZero() && g.Expires.After(t.Started.Add(m.MaxDuration)):
		return fmt.Errorf("%s: the grant ends later than the %v after the task's start that the manifest has", g.Tool, m.MaxDuration)
	case m.MaxDuration > 0 && t.Started.IsZero() && t.Deadline.Sub(g.NotBefore) > m.MaxDuration+skew:
		return fmt.Errorf("%s: more is left of the task than the %v that the manifest has for all of it", g.Tool, m.MaxDuration)
	}
	return nil
}

func (e *Entry) admits(t *grants.Task, g *grants.Grant) error {
	if e.Once && g.Once.IsZero() {
		return fmt.Errorf("%s: the manifest has it for one call whose input is given: ask with \"input\"", g.Tool)
	}
	same := func(raw json.RawMessage) bool { return bytes.Equal(raw, e.Constraint) }
	if e.Constraint != nil && !slices.ContainsFunc(g.Constraints, same) {
		return fmt.Errorf("%s: the manifest's constraint is not among the grant's", g.Tool)
	}
	if e.MaxCalls > 0 && !within(t, g, "", e.MaxCalls) {
		return fmt.Errorf("%s: the task's budget of calls is not, or not in full, among the grant's: the manifest bounds \"max_calls\"", g.Tool)
	}
	for _, arg := range sortedKeys(e.Sums) {
		if !within(t, g, arg, e.Sums[arg]) {
			return fmt.Errorf("%s: the task's budget of %s is not, or not in full, among the grant's: the manifest bounds its sum", g.Tool, arg)
		}
	}
	return nil
}

// within reports whether the grant spends from the task's own budget, and that
// one is at most as high. A budget of the grant alone would be filled again with
// the next grant.
func within(t *grants.Task, g *grants.Grant, arg string, limit int64) bool {
	key := grants.TaskBudget(t.ID, g.Tool, arg)
	return slices.ContainsFunc(g.Budgets, func(b grants.Budget) bool {
		return b.Key == key && b.Arg == arg && b.Limit <= limit
	})
}
