package grants

import (
	"context"
	"errors"
	"iter"
)

// ErrResync is what a Watch ends with when the history that was asked for is
// gone (compacted, or of another epoch): start again from the zero Rev.
var ErrResync = errors.New("watch: history is gone; start again from the beginning")

// Store keeps tasks, grants, fences and budgets for every node. Package
// grantstest holds what each implementation must do.
//
// It is linearizable and safe for concurrent use. A Reason other than None
// means refused and nothing changed; an error means that it is unknown whether
// the change was made, and that the same call may be made again: the same ID
// with the same content succeeds and gives the first call's Rev, with another
// content it is refused as Conflict.
//
// A task that has ended, and its grants, may be forgotten at once, but for the
// fence, which stands until its Until. So a Start of it that comes again may
// also be refused as TaskEnded, and any Issue for it as TaskEnded or UnknownTask.
type Store interface {
	// Start opens a task. Task.Rev is ignored. Refused: an id that is none
	// (BadRequest), a deadline that has passed (BadTTL), an id that was fenced
	// before it arrived (TaskEnded).
	Start(context.Context, Task) (Rev, Reason, error)

	// Issue writes all grants or none, at one Rev; at most MaxBatch (Limit). For
	// each it compares, in one step with the write: the task is open (TaskEnded,
	// UnknownTask) and its deadline not before the grant's end (BadTTL); the
	// window is not empty or past (BadTTL); the parent, if any, is there, of the
	// same task and tool (UnknownGrant, BadRequest), live and not outlived, and
	// so is every grant above it (Revoked, Expired, BadTTL); there is no fence
	// on its own id, and none on its task, agent, tool or parent is newer than
	// Grant.Rev (TaskEnded, Revoked); every budget that its task and tool
	// already have is among its own, and every key has the limit it was first
	// given (Conflict). A Grant.Rev of another epoch, of the future, or from
	// before a fence that is forgotten, is no view to compare with (Conflict).
	//
	// A grant that renews another finds it there (UnknownGrant), live (its
	// fence's reason, Expired), of the same agent, task, tool, parent, actors and
	// Once (BadRequest), and has all of its constraints, byte for byte (BadRequest),
	// and all of its budgets (Conflict), those of grants before it included. So
	// whatever was spent stays spent, however often it is renewed: the account of
	// a grant's own budget lives as long as any grant carries it. The grant that
	// was renewed lives on until somebody fences it. No two grants of a batch
	// renew the same one (BadRequest).
	Issue(context.Context, []Grant) (Rev, Reason, error)

	// Fence writes a fence. On a grant or a task that already has one it
	// changes nothing and gives the Rev of the first. Fence.Rev is ignored. One on
	// an agent or a tool may be forgotten before its Until once no grant is there
	// that it kills; what was decided before it is then refused, by Issue.
	Fence(context.Context, Fence) (Rev, error)

	// Draw takes up to want from what is left of a budget, for this node to
	// spend; 0 when nothing is left or the key is unknown. What an error left
	// unknown counts as spent.
	Draw(ctx context.Context, budget string, want int64) (got int64, err error)

	// Watch yields, after from, every change once and in order of Rev, and a
	// heartbeat at least once a second, which was true at most a second before it
	// is yielded: freshness is measured by it. Only a heartbeat's Rev is safe to
	// resume from. From the zero Rev it first yields what is there now, tasks
	// before their grants and parents before their children, and ends that with
	// a heartbeat. Grants of tools not in tools are left out (nil: none is).
	// Ended tasks and expired grants may be left out too, but while a task is
	// open there is, for each of its budgets, a grant that carries it, expired or
	// not: Issue compares them for so long, and a Table has nothing else to learn
	// them from.
	// It ends when ctx does (yielding its error) or with ErrResync; a consumer
	// that is too slow to be kept gets ErrResync.
	Watch(ctx context.Context, from Rev, tools []string) iter.Seq2[Event, error]
}
