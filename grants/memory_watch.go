package grants

import (
	"context"
	"iter"
	"slices"
	"sort"
	"time"
)

// Watch implements Store. All watchers read one log, which nobody changes, at
// their own pace: none holds up a writer or another watcher, and the lock is
// held only to look where the log ends. A watcher that falls behind what the
// log still has gets ErrResync.
//
// Whenever a watcher has been given all there is, it gets a heartbeat with the
// newest Rev: from the zero Rev, the first one says that the present state is
// complete. Only a heartbeat's Rev is safe to come back with, because the
// grants of one Issue share theirs.
func (m *Memory) Watch(ctx context.Context, from Rev, tools []string) iter.Seq2[Event, error] {
	tools = slices.Clone(tools)
	return func(yield func(Event, error) bool) {
		tick := time.NewTicker(m.heartbeat)
		defer tick.Stop()
		start := from == Rev{}
		for at := from; ; {
			asked := time.Now()
			events, now, wake, err := m.after(at)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, ev := range events {
				if err := ctx.Err(); err != nil {
					yield(Event{}, err)
					return
				}
				if ev.Grant != nil && tools != nil && !slices.Contains(tools, ev.Grant.Tool) {
					continue
				}
				if start && ev.passed(asked) && !m.carries(ev) {
					continue
				}
				if !yield(ev, nil) {
					return
				}
			}
			at, start = now, false
			// A heartbeat says "nothing unseen", and is believed as of now. If
			// the consumer took long over the events, that may be wrong: look
			// again first.
			if len(events) > 0 && time.Since(asked) > m.heartbeat/2 {
				continue
			}
			if !yield(Event{Rev: now}, nil) {
				return
			}
			select {
			case <-ctx.Done():
				yield(Event{}, ctx.Err())
				return
			case <-wake:
			case <-tick.C:
			}
		}
	}
}

// after returns what the log has after at (all of it for the zero Rev), the
// newest Rev, and a channel that is closed by the next write; ErrResync if the
// log lacks some of what came after at.
func (m *Memory) after(at Rev) ([]Event, Rev, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at != (Rev{}) && (at.Epoch != m.epoch || at.N > m.n || at.N < m.floor) {
		return nil, Rev{}, nil, ErrResync
	}
	if m.wake == nil {
		m.wake = make(chan struct{})
	}
	i := sort.Search(len(m.log), func(i int) bool { return m.log[i].Rev.N > at.N })
	return m.log[i:len(m.log):len(m.log)], Rev{m.epoch, m.n}, m.wake, nil
}

// carries reports whether the event is of a grant that is kept beyond its end,
// for its budgets.
func (m *Memory) carries(ev Event) bool {
	if ev.Grant == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, kept := m.standsLocked(ev)
	return kept
}

// passed reports whether what the event tells can matter no more at that time.
func (ev Event) passed(now time.Time) bool {
	switch {
	case ev.Task != nil:
		return !now.Before(ev.Task.Deadline)
	case ev.Grant != nil:
		return !now.Before(ev.Grant.Expires)
	default:
		return !now.Before(ev.Fence.Until)
	}
}
