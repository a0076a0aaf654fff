package grants

import (
	"context"
	"fmt"
)

// Fence implements Store. An unknown scope or an empty key is an error. The
// fence stands at least until what it kills has ended, even if f.Until is
// earlier.
func (m *Memory) Fence(ctx context.Context, f Fence) (Rev, error) {
	if err := ctx.Err(); err != nil {
		return Rev{}, err
	}
	if err := f.check(); err != nil {
		return Rev{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	own, rev := m.viewLocked().NextFence(f)
	if rev != (Rev{}) {
		return rev, nil
	}
	own.Rev = m.nextLocked()
	k := fenceKey{f.Scope, f.Key}
	switch f.Scope {
	case ScopeTask:
		m.endLocked(m.tasks[f.Key])
	case ScopeGrant:
		if h := m.grants[f.Key]; h != nil {
			m.agents.remove(&h.counted)
			if h.delegated {
				m.moved = m.n
			}
		}
	default:
		own.Until = later(own.Until, m.lastEnd)
		if m.moved = m.n; m.held[k] == 0 {
			m.idleLocked(&own)
		}
	}
	m.fences[k] = &own
	m.log = append(m.log, Event{Rev: own.Rev, Fence: &own})
	return own.Rev, nil
}

// maxIdle is how many fences are kept that kill nothing here.
const maxIdle = 4096

// idleLocked takes in a fence on an agent or a tool of which no grant is here.
// None that is to come can be older, so the fence kills nothing for good; it
// only refuses what was decided before it and not written yet. Past maxIdle the
// oldest is dropped, and any such Issue is refused as Conflict, because nobody
// can tell any more whom it concerned. So names that nothing matches, fenced one
// after another, take no more than this.
func (m *Memory) idleLocked(f *Fence) {
	m.idle = append(m.idle, f)
	if len(m.idle) <= maxIdle {
		return
	}
	oldest := m.idle[0]
	m.idle[0] = nil
	m.idle = m.idle[1:]
	if k := (fenceKey{oldest.Scope, oldest.Key}); m.fences[k] == oldest { // else there is a newer one
		m.dropFenceLocked(oldest)
	}
}

func (m *Memory) dropFenceLocked(f *Fence) {
	delete(m.fences, fenceKey{f.Scope, f.Key})
	if f.Scope == ScopeAgent || f.Scope == ScopeTool {
		m.forgot = max(m.forgot, f.Rev.N)
	}
}

// endLocked makes room for as much as the task and its grants have counted.
func (m *Memory) endLocked(h *heldTask) {
	if h == nil || h.ended {
		return
	}
	h.ended = true
	m.open--
	m.live -= len(h.grants)
	m.owners.remove(&h.counted)
	for _, g := range h.grants {
		m.agents.remove(&g.counted)
	}
}

func (f *Fence) check() error {
	switch f.Scope {
	case ScopeGrant, ScopeTask, ScopeAgent, ScopeTool:
		if f.Key != "" {
			return nil
		}
	}
	return fmt.Errorf("fence on scope %q, key %q: names nothing", f.Scope, f.Key)
}
