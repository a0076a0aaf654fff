package grants

import (
	"context"
	"time"
)

// Actions of an Input. A call's action is ActionCall + tool.
const (
	ActionStartTask = "start_task"
	ActionEndTask   = "end_task"
	ActionGrant     = "grant"
	ActionAskFor    = "ask_for" // ask for a grant of another agent: principal is the requester
	ActionRevoke    = "revoke"
	ActionCall      = "call:" // + SERVER/TOOL
	ActionMCP       = "mcp:"  // + a method of MCP: what it does on a server, calls of tools aside
)

// Input is what is decided on: one document for every engine, for policy
// tests and for replay.
type Input struct {
	Action    string
	Requester Principal // who asks
	Principal Principal // who would act; for the task actions and ask_for the requester
	Tool      string    // SERVER/TOOL; "" for the task actions
	Task      *Task     // nil: no task (a baseline call)
	Grant     *Grant    // the grant asked for, revoked, or called under; nil: baseline
	Args      any       // a call's input as strictjson gives it, or that of an mcp: action; nil: unknown
	Server    string    // id of the server that an mcp: action is about
	Revision  string    // of MCP in which a call or mcp: action came; "": by no MCP
	Retry     *Retry    // of a multi-round-trip retry; nil: it is none
	At        time.Time
}

// Retry is what a multi-round-trip retry brings beside its parameters
// (MCP 2026-07-28).
type Retry struct {
	Responses string // RFC 8785 text of inputResponses; "": none
	State     bool   // it has a requestState
}

// Decision is the answer to one Input. The zero value denies.
type Decision struct {
	Allow    bool
	Reason   Reason   // why not: Policy, PolicyError, Manifest, Unrepresentable or UnknownTool; None with Allow
	Policies []string // ids of the policies that made it; sorted
	Advice   string   // what a denial may tell who asked, by the policies that made it (@advice); "": nothing
	Revision Digest   // of everything that the decision rests on; of one load for a whole batch
}

// Refusal is why the decision does not allow; None if it does. One that denies
// without a reason has one all the same, and one that names a reason denies.
func (d Decision) Refusal() Reason {
	switch {
	case d.Reason != None:
		return d.Reason
	case !d.Allow:
		return Policy
	}
	return None
}

// Decider answers a batch of inputs, one decision each and in their order, all
// from one policy revision. It is safe for concurrent use and does no I/O that
// outlives ctx. An error means that nothing was decided; the caller denies.
type Decider func(ctx context.Context, in []Input) ([]Decision, error)
