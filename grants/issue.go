package grants

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"
)

// MaxBatch is how many grants one Issue may hold; more are refused as Limit.
// It keeps the transaction of a Store on etcd near etcd's 128 operations.
const MaxBatch = 16

// View is what a Store holds, as the rules of its writes must see it. The
// rules do no I/O of their own and change nothing, so that every Store has the
// same ones. A Store makes the answers, and the write that follows from them,
// one step: by a lock that is held over both, or by a transaction that
// compares all that was asked.
type View struct {
	Task    func(ID) *Task             // nil: unknown
	Grant   func(ID) *Grant            // nil: unknown
	Fence   func(Scope, string) *Fence // the newest on that key; nil: none
	Budgets func(task ID) []Budget     // the task's, for all of its tools, as first given

	// Now is the newest write. A Grant.Rev that is newer, or of another epoch,
	// is no view of this history.
	Now Rev
	// Forgotten is the newest of the fences on an agent or a tool that the
	// Store holds no more. With them, what was decided on an older view can no
	// longer be compared.
	Forgotten Rev
}

// CheckStart says whether the task may be written at time now. A Rev other than
// zero: it is there already, since then.
func (v View) CheckStart(t Task, now time.Time) (Rev, Reason) {
	if old := v.Task(t.ID); old != nil {
		if !reflect.DeepEqual(copyTask(*old, Rev{}), copyTask(t, Rev{})) {
			return Rev{}, Conflict
		}
		return old.Rev, None
	}
	switch {
	case !ValidID(t.ID, TaskPrefix):
		return Rev{}, BadRequest
	case v.Fence(ScopeTask, t.ID) != nil: // ended before its start arrived
		return Rev{}, TaskEnded
	case !now.Before(t.Deadline):
		return Rev{}, BadTTL
	}
	return Rev{}, None
}

// CheckIssue says whether the batch may be written at time now, as if its grants
// came one after another. A Rev other than zero: all of them are there
// already, since then.
func (v View) CheckIssue(batch []*Grant, now time.Time) (Rev, Reason) {
	if why := wellFormed(batch); why != None {
		return Rev{}, why
	}
	if rev, why := v.again(batch); why != None || rev != (Rev{}) {
		return rev, why
	}
	var staged []Budget // what the grants before this one in the batch bring
	for _, g := range batch {
		if why := v.checkLife(g, now); why != None {
			return Rev{}, why
		}
		if why := v.checkFences(g); why != None {
			return Rev{}, why
		}
		if why := v.checkRenewal(g, now); why != None {
			return Rev{}, why
		}
		if why := v.checkBudgets(g, staged); why != None {
			return Rev{}, why
		}
		staged = append(staged, g.Budgets...)
	}
	return Rev{}, None
}

// NextFence gives what is to be written for f or, if f would change nothing, the
// Rev of the fence that stands. It keeps a fence from being forgotten while
// what it names is held.
func (v View) NextFence(f Fence) (Fence, Rev) {
	old := v.Fence(f.Scope, f.Key)
	switch f.Scope {
	case ScopeTask:
		if old != nil {
			return Fence{}, old.Rev
		}
		if t := v.Task(f.Key); t != nil {
			f.Until = later(f.Until, t.Deadline)
		}
	case ScopeGrant:
		if old != nil {
			return Fence{}, old.Rev
		}
		if g := v.Grant(f.Key); g != nil {
			f.Until = later(f.Until, g.Expires) // its children end no later
		}
	default:
		if old != nil {
			f.Until = later(f.Until, old.Until) // it stands for the old one too
		}
	}
	f.Until = instant(f.Until)
	return f, Rev{}
}

// wellFormed checks what needs no Store.
func wellFormed(batch []*Grant) Reason {
	if len(batch) == 0 {
		return BadRequest
	}
	if len(batch) > MaxBatch {
		return Limit
	}
	ids := map[ID]bool{}
	for _, g := range batch {
		if !ValidID(g.ID, GrantPrefix) || ids[g.ID] || g.Agent.ID() == "" || g.Tool == "" {
			return BadRequest
		}
		if g.Renews != "" && ids[g.Renews] { // there is one place to stand in
			return BadRequest
		}
		ids[g.ID], ids[g.Renews] = true, true
		if !g.NotBefore.Before(g.Expires) {
			return BadTTL
		}
		if len(g.Budgets) > MaxBudgets {
			return Limit
		}
		keys := map[string]bool{}
		for _, b := range g.Budgets {
			if b.Limit < 0 || keys[b.Key] {
				return BadRequest
			}
			keys[b.Key] = true
		}
	}
	return None
}

// again finds a batch that was written before. One that was written in part is
// not the same batch.
func (v View) again(batch []*Grant) (Rev, Reason) {
	var first Rev
	known := 0
	for _, g := range batch {
		old := v.Grant(g.ID)
		if old == nil {
			continue
		}
		same := reflect.DeepEqual(copyGrant(*old, Rev{}), copyGrant(*g, Rev{}))
		if !same || known > 0 && old.Rev != first {
			return Rev{}, Conflict
		}
		first = old.Rev
		known++
	}
	if known > 0 && known < len(batch) {
		return Rev{}, Conflict
	}
	return first, None
}

// checkLife compares the grant's window with its task, its parents and now.
func (v View) checkLife(g *Grant, now time.Time) Reason {
	task := v.Task(g.Task)
	switch {
	case task == nil:
		return UnknownTask
	case v.Fence(ScopeTask, g.Task) != nil: // whenever it was written
		return TaskEnded
	case !now.Before(task.Deadline):
		return TaskEnded
	case g.Expires.After(task.Deadline):
		return BadTTL
	}
	child := g
	for child.Parent != "" {
		p := v.Grant(child.Parent)
		switch {
		case p == nil: // never issued, or forgotten after its end
			return UnknownGrant
		case p.Task != g.Task || p.Tool != g.Tool:
			// Another task's or tool's budgets would be fresh ones.
			return BadRequest
		case v.killer(p) != nil:
			return Revoked
		case !now.Before(p.Expires):
			return Expired
		case child.Expires.After(p.Expires):
			return BadTTL
		}
		child = p
	}
	if !now.Before(g.Expires) {
		// It could do no harm, but it would make a late answer look like a
		// grant, and a fence is kept only as long as what it kills may live.
		return BadTTL
	}
	return None
}

// checkFences refuses what was fenced after the view on which it was decided.
func (v View) checkFences(g *Grant) Reason {
	// A fence on a grant that was never issued holds for good: the next fence
	// on it would change nothing.
	if v.killer(g) != nil {
		return Revoked
	}
	none := g.Rev == Rev{} // decided on no view: every fence is newer
	if !none && (g.Rev.Epoch != v.Now.Epoch || g.Rev.N > v.Now.N) || g.Rev.Compare(v.Forgotten) < 0 {
		return Conflict
	}
	return None
}

// killer is the fence that kills the grant, if it was written, or decided, at
// its Rev: one on itself, or a newer one on its agent or tool; nil: none.
func (v View) killer(g *Grant) *Fence {
	if f := v.Fence(ScopeGrant, g.ID); f != nil {
		return f
	}
	for _, f := range []*Fence{v.Fence(ScopeAgent, g.Agent.ID()), v.Fence(ScopeTool, g.Tool)} {
		if f != nil && f.Rev.Compare(g.Rev) > 0 {
			return f
		}
	}
	return nil
}

// live reports whether a grant that is there, of an open task, is live, and so
// is every grant above it.
func (v View) live(g *Grant, now time.Time) bool {
	for g != nil && v.killer(g) == nil && now.Before(g.Expires) {
		if g.Parent == "" {
			return true
		}
		g = v.Grant(g.Parent)
	}
	return false
}

// checkRenewal sees to it that a grant that renews another lets nobody do more
// than that one did. The parents, which it shares, have been looked at; of the
// budgets, checkBudgets compares those of the task.
func (v View) checkRenewal(g *Grant, now time.Time) Reason {
	if g.Renews == "" {
		return None
	}
	old := v.Grant(g.Renews)
	switch {
	case old == nil: // never issued, or forgotten after its end
		return UnknownGrant
	case old.Task != g.Task || old.Tool != g.Tool || old.Agent.ID() != g.Agent.ID():
		return BadRequest
	case old.Parent != g.Parent || !slices.Equal(old.Actors, g.Actors):
		return BadRequest // it would outlive what the old one hangs on
	case old.Once != g.Once:
		return BadRequest
	}
	if f := v.killer(old); f != nil {
		return f.reason()
	}
	if !now.Before(old.Expires) {
		return Expired
	}
	for _, c := range old.Constraints {
		if !slices.ContainsFunc(g.Constraints, func(have json.RawMessage) bool { return bytes.Equal(have, c) }) {
			return BadRequest
		}
	}
	for _, b := range old.Budgets {
		if !slices.Contains(g.Budgets, b) {
			return Conflict // what is spent would be there again
		}
	}
	return None
}

// checkBudgets sees to it that a new grant shares what its task and tool have,
// and refills nothing.
func (v View) checkBudgets(g *Grant, staged []Budget) Reason {
	for _, have := range slices.Concat(v.Budgets(g.Task), staged) {
		if have.Key == TaskBudget(g.Task, g.Tool, have.Arg) && !slices.Contains(g.Budgets, have) {
			return Conflict
		}
	}
	var inherited []Budget
	for _, from := range []ID{g.Parent, g.Renews} {
		if from == "" {
			continue
		}
		if g := v.Grant(from); g != nil { // it was, but a Store may fail at any time
			inherited = append(inherited, g.Budgets...)
		}
	}
	for _, b := range g.Budgets {
		switch b.Key {
		case TaskBudget(g.Task, g.Tool, b.Arg), GrantBudget(g.ID, b.Arg):
		default:
			if !slices.Contains(inherited, b) {
				return BadRequest // a budget of something else
			}
		}
	}
	return None
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// instant strips what a time.Time has beyond the instant, so that one that was
// stored equals one that was not.
func instant(t time.Time) time.Time { return t.Round(0).UTC() }

// copyTask returns a deep copy in the one form that equal tasks share.
func copyTask(t Task, rev Rev) *Task {
	t.Owner = copyPrincipal(t.Owner)
	t.Agents = compact(t.Agents)
	t.Params = compact(t.Params)
	t.Started, t.Deadline = instant(t.Started), instant(t.Deadline)
	t.Rev = rev
	return &t
}

// copyGrant is copyTask for a grant.
func copyGrant(g Grant, rev Rev) *Grant {
	g.Agent, g.Requester = copyPrincipal(g.Agent), copyPrincipal(g.Requester)
	g.Actors = compact(g.Actors)
	g.NotBefore, g.Expires = instant(g.NotBefore), instant(g.Expires)
	g.Constraints = compact(g.Constraints)
	for i, c := range g.Constraints {
		g.Constraints[i] = bytes.Clone(c)
	}
	g.Budgets = compact(g.Budgets)
	g.Rev = rev
	return &g
}

func copyPrincipal(p Principal) Principal {
	p.Groups = compact(p.Groups)
	if p.Tags = maps.Clone(p.Tags); len(p.Tags) == 0 {
		p.Tags = nil
	}
	return p
}

// compact returns a copy without spare capacity; nil if there is nothing in it.
func compact[S ~[]E, E any](s S) S {
	if len(s) == 0 {
		return nil
	}
	return append(make(S, 0, len(s)), s...)
}
