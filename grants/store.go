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
type Store interface {
	// Start opens a task. Task.Rev is ignored.
	Start(context.Context, Task) (Rev, Reason, error)

	// Issue writes all grants or none. For each it compares, in one step with
	// the write: the task is open (TaskEnded, UnknownTask) and its deadline not
	// before the grant's end (BadTTL); the parent, if any, is live and not
	// outlived (Revoked, Expired, BadTTL); no fence on its task, agent, tool,
	// parent or own id is newer than Grant.Rev (TaskEnded, Revoked); every
	// budget that its task and tool already have is among its own, and every
	// key has the limit it was first given (Conflict).
	Issue(context.Context, []Grant) (Rev, Reason, error)

	// Fence writes a fence. On a grant or a task that already has one it
	// changes nothing and gives the Rev of the first. Fence.Rev is ignored.
	Fence(context.Context, Fence) (Rev, error)

	// Draw takes up to want from what is left of a budget, for this node to
	// spend; 0 when nothing is left or the key is unknown. What an error left
	// unknown counts as spent.
	Draw(ctx context.Context, budget string, want int64) (got int64, err error)

	// Watch yields, after from, every change once and in order of Rev, and a
	// heartbeat at least once a second. From the zero Rev it first yields what
	// is there now. Grants of tools not in tools are left out (nil: none is).
	// It ends when ctx does (yielding its error) or with ErrResync; a consumer
	// that is too slow to be kept gets ErrResync.
	Watch(ctx context.Context, from Rev, tools []string) iter.Seq2[Event, error]
}
