package grants

import "iter"

// MaxHolding is how many grants Holding looks at.
const MaxHolding = 32

// chunk is how many records of one task are looked at under one hold of a lock.
const chunk = 1024

// Holding returns the live ones among the MaxHolding grants that the agent was
// given last for the tool in the task, newest first: what the issue door may
// reuse. One that lies further back is not found, so that an agent's many grants
// make no request slow. A table that is not fresh has none.
func (t *Table) Holding(task ID, tool, agent string) []Live {
	if !t.Fresh() {
		return nil
	}
	v := t.view.Load()
	tr, s := v.task(task)
	if tr == nil {
		return nil
	}
	wall, mono := t.cfg.Clock()
	var found []Live
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := tr.newest[v.holding(tool, agent)]
	for range MaxHolding {
		if r == nil {
			break
		}
		if r.grant.Tool == tool && r.grant.Agent.ID() == agent && r.dead(wall, mono) == None {
			found = append(found, Live{r})
		}
		r = r.older
	}
	return found
}

// Tasks returns open tasks that match, at most limit of them, in no order; more
// says that there are others. match is called under a lock: it must be quick and
// call nothing of the table. What is written meanwhile may be in the list or
// not. A table that is not fresh has none.
func (t *Table) Tasks(match func(*Task) bool, limit int) (found []*Task, more bool) {
	if !t.Fresh() {
		return nil, false
	}
	v := t.view.Load()
	for i := range v.shards {
		if found, more = t.tasksOf(&v.shards[i], match, found, limit); more {
			break
		}
	}
	return found, more
}

func (t *Table) tasksOf(s *shard, match func(*Task) bool, found []*Task, limit int) ([]*Task, bool) {
	wall, mono := t.cfg.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, tr := range s.tasks {
		if !tr.open(wall, mono) || !match(tr.task) {
			continue
		}
		if len(found) >= limit {
			return found, true
		}
		found = append(found, tr.task)
	}
	return found, false
}

// Grants returns live grants that match; otherwise as Tasks. It goes through the
// whole table: for those of one task, GrantsOf is the quick way.
func (t *Table) Grants(match func(*Grant) bool, limit int) (found []Live, more bool) {
	if !t.Fresh() {
		return nil, false
	}
	v := t.view.Load()
	for i := range v.shards {
		if found, more = t.grantsOf(&v.shards[i], match, found, limit); more {
			break
		}
	}
	return found, more
}

func (t *Table) grantsOf(s *shard, match func(*Grant) bool, found []Live, limit int) ([]Live, bool) {
	wall, mono := t.cfg.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.grants {
		if !match(r.grant) || r.dead(wall, mono) != None {
			continue
		}
		if len(found) >= limit {
			return found, true
		}
		found = append(found, Live{r})
	}
	return found, false
}

// GrantsOf returns the task's live grants that match; otherwise as Tasks.
func (t *Table) GrantsOf(task ID, match func(*Grant) bool, limit int) (found []Live, more bool) {
	if !t.Fresh() {
		return nil, false
	}
	tr, s := t.view.Load().task(task)
	if tr == nil {
		return nil, false
	}
	wall, mono := t.cfg.Clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var first []*record
	for _, r := range tr.newest {
		first = append(first, r)
	}
	looked := 0
	for _, r := range first {
		for ; r != nil; r = r.older {
			if looked++; looked%chunk == 0 {
				s.mu.RUnlock() // whoever waits to write goes first
				s.mu.RLock()
			}
			if !match(r.grant) || r.dead(wall, mono) != None {
				continue
			}
			if len(found) >= limit {
				return found, true
			}
			found = append(found, Live{r})
		}
	}
	return found, false
}

// Outdated goes through the grants that another policy revision than this one
// permitted and that are live, or will be when their window begins: for the
// sweep that decides them anew. No lock is held while the caller has one. A
// grant that is written meanwhile may be left out: whoever wants them all goes
// through again until nothing comes. A table that is not fresh gives what it
// has, because a fence on an old view does no harm.
func (t *Table) Outdated(policy Digest) iter.Seq[Live] {
	return func(yield func(Live) bool) {
		var ids []ID
		v := t.view.Load()
		for i := range v.shards {
			ids = v.shards[i].outdated(ids[:0], policy)
			for _, id := range ids {
				// By id: the view may have been replaced since.
				r := t.view.Load().record(id)
				if r == nil {
					continue
				}
				if why := r.dead(t.cfg.Clock()); why != None && why != NotYet {
					continue
				}
				if !yield(Live{r}) {
					return
				}
			}
		}
	}
}

func (s *shard) outdated(ids []ID, policy Digest) []ID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, r := range s.grants {
		if r.grant.Policy != policy {
			ids = append(ids, id)
		}
	}
	return ids
}
