package grants

import (
	"slices"
	"time"
)

// apply takes in one event. The follower alone calls it.
func (v *view) apply(ev Event, wall time.Time, mono time.Duration) {
	switch {
	case ev.Task != nil:
		v.addTask(ev.Task, wall, mono)
	case ev.Grant != nil:
		v.addGrant(ev.Grant, wall, mono)
	case ev.Fence != nil:
		v.addFence(ev.Fence, mono)
	}
	// Grants of one Issue share a Rev, so an event says only that whatever is
	// older is here; a heartbeat says that of its own Rev, too.
	rev := ev.Rev
	if !ev.heartbeat() {
		if rev.N == 0 {
			return
		}
		rev.N--
	}
	if rev.Compare(*v.rev.Load()) > 0 {
		v.rev.Store(&rev)
	}
}

// built ends the making of a view: from now on, events come in order of Rev.
func (v *view) built(mono time.Duration) {
	v.before, v.setBack, v.early = nil, 0, nil
	v.swept = mono
}

func (v *view) addTask(task *Task, wall time.Time, mono time.Duration) {
	s := v.shard(task.ID)
	if s.tasks[task.ID] != nil {
		return
	}
	tr := &taskRecord{task: task, deadline: deadlineAt(task.Deadline, wall.Add(v.setBack), mono)}
	if v.before != nil {
		if old, _ := v.before.task(task.ID); old != nil {
			tr.deadline.mono = old.deadline.mono
		}
	}
	// A fence that came before its task, as it may in a first state.
	if f := v.early[fenceKey{ScopeTask, task.ID}]; f != nil {
		tr.mark.set(f)
		tr.ended = mono
	}
	s.mu.Lock()
	s.tasks[task.ID] = tr
	s.mu.Unlock()
}

func (v *view) addGrant(g *Grant, wall time.Time, mono time.Duration) {
	s, ts := v.shard(g.ID), v.shard(g.Task)
	tr := ts.tasks[g.Task]
	cs, err := CompileConstraints(g.Constraints)
	var parent *record
	if g.Parent != "" {
		if parent = v.shard(g.Parent).grants[g.Parent]; parent == nil {
			return
		}
	}
	if tr == nil || err != nil || len(g.Budgets) > MaxBudgets || s.grants[g.ID] != nil {
		// Without its task or parent, or with what this program cannot read or
		// count, it is not in the table, and so not live.
		return
	}
	agent := g.Agent.ID()
	r := &record{
		grant: g, parent: parent, task: tr,
		agent: v.mark(ScopeAgent, agent), tool: v.mark(ScopeTool, g.Tool),
		ends: deadlineAt(g.Expires, wall.Add(v.setBack), mono),
	}
	if v.before != nil {
		if old := v.before.record(g.ID); old != nil {
			r.ends.mono = old.ends.mono
		}
	}
	if f := v.early[fenceKey{ScopeGrant, g.ID}]; f != nil {
		r.self.set(f)
	}
	if len(cs)+len(g.Budgets) > 0 {
		r.limits = &limits{constraints: cs, purses: v.carry(g)}
	}
	ts.mu.Lock()
	tr.add(r, v.holding(g.Tool, agent))
	ts.mu.Unlock()
	s.mu.Lock()
	s.grants[g.ID] = r
	s.mu.Unlock()
}

// mark returns the mark of the agent or the tool of a record that is to point
// there.
func (v *view) mark(scope Scope, key string) *sharedMark {
	k := fenceKey{scope, key}
	m := v.marks[k]
	if m == nil {
		m = &sharedMark{}
		if f := v.early[k]; f != nil {
			m.set(f)
		}
		v.marks[k] = m
	}
	m.refs++
	return m
}

// unmark undoes a mark.
func (v *view) unmark(m *sharedMark, scope Scope, key string) {
	if m.refs--; m.refs == 0 {
		delete(v.marks, fenceKey{scope, key})
	}
}

// carry returns this node's purses for the grant's budgets.
func (v *view) carry(g *Grant) []*purse {
	all := make([]*purse, len(g.Budgets))
	for i, b := range g.Budgets {
		p := v.purses[b.Key]
		if p == nil {
			p = &purse{key: b.Key}
			v.purses[b.Key] = p
		}
		p.refs++
		all[i] = p
	}
	return all
}

// drop undoes a carry. The purse of a grant's own budget stays for as long as
// any grant carries it on, so that what is left there is for them; the task's
// stays with the task.
func (v *view) drop(r *record) {
	for i, b := range r.grant.Budgets {
		p := r.limits.purses[i]
		if p.refs--; p.refs == 0 && b.Key != TaskBudget(r.grant.Task, r.grant.Tool, b.Arg) {
			delete(v.purses, b.Key)
		}
	}
}

// add puts a record before those that the agent has of the tool, and learns the
// task's budgets from it.
func (tr *taskRecord) add(r *record, h holding) {
	if tr.newest == nil {
		tr.newest = map[holding]*record{}
	}
	if r.older = tr.newest[h]; r.older != nil {
		r.older.newer = r
	}
	tr.newest[h] = r
	tool := r.grant.Tool
	for _, b := range r.grant.Budgets {
		if b.Key != TaskBudget(r.grant.Task, tool, b.Arg) ||
			slices.ContainsFunc(tr.budgets[tool], func(have Budget) bool { return have.Key == b.Key }) {
			continue
		}
		if tr.budgets == nil {
			tr.budgets = map[string][]Budget{}
		}
		tr.budgets[tool] = append(tr.budgets[tool], b)
	}
}

// remove undoes the first half of an add: the budgets stay with the task.
func (tr *taskRecord) remove(r *record, h holding) {
	if r.older != nil {
		r.older.newer = r.newer
	}
	switch {
	case r.newer != nil:
		r.newer.older = r.older
	case r.older != nil:
		tr.newest[h] = r.older
	default:
		delete(tr.newest, h)
	}
}

func (v *view) addFence(f *Fence, mono time.Duration) {
	switch k := (fenceKey{f.Scope, f.Key}); f.Scope {
	case ScopeTask:
		if tr := v.shard(f.Key).tasks[f.Key]; tr != nil {
			if tr.mark.word.Load() == 0 {
				tr.ended = mono
			}
			tr.mark.set(f)
			return
		}
	case ScopeGrant:
		if r := v.shard(f.Key).grants[f.Key]; r != nil {
			r.self.set(f)
			return
		}
	default:
		if m := v.marks[k]; m != nil {
			m.set(f)
			return
		}
	}
	if v.early != nil {
		v.early[fenceKey{f.Scope, f.Key}] = f
	}
}

const (
	// forgetAfter is how long the dead are kept, so that a late call is told why.
	forgetAfter = time.Minute
	// sweepRound is how long it takes to sweep all shards, a few at a time: the
	// follower, who sweeps, is then soon back to hear of the next fence.
	sweepRound = 10 * time.Second
)

// sweep frees what can matter no more, in as many shards as are due. The
// follower alone calls it.
func (v *view) sweep(wall time.Time, mono time.Duration) {
	const step = sweepRound / numShards
	due := min((mono-v.swept)/step, numShards)
	if due <= 0 {
		return
	}
	v.swept = mono - (mono-v.swept)%step
	for range due {
		v.sweepShard(&v.shards[v.next], wall, mono)
		v.next = (v.next + 1) % numShards
	}
}

func (v *view) sweepShard(s *shard, wall time.Time, mono time.Duration) {
	for id, r := range s.grants {
		if r.ends.left(wall, mono) > -forgetAfter && !r.task.over(wall, mono) {
			continue
		}
		s.mu.Lock()
		delete(s.grants, id)
		s.mu.Unlock()
		g, agent := r.grant, r.grant.Agent.ID()
		ts := v.shard(g.Task)
		ts.mu.Lock()
		r.task.remove(r, v.holding(g.Tool, agent))
		ts.mu.Unlock()
		v.unmark(r.agent, ScopeAgent, agent)
		v.unmark(r.tool, ScopeTool, g.Tool)
		v.drop(r)
	}
	for id, tr := range s.tasks {
		if !tr.over(wall, mono) { // else its grants in other shards go in this round, too
			continue
		}
		s.mu.Lock()
		delete(s.tasks, id)
		s.mu.Unlock()
		for _, bs := range tr.budgets {
			for _, b := range bs {
				delete(v.purses, b.Key)
			}
		}
	}
}
