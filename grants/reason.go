package grants

import "fmt"

// Reason says why something is refused. The set is closed; each door maps it
// to its own codes once. The zero value, None, means "not refused".
type Reason uint8

// The reasons. Their text (String) is the "reason" of a denial's body, of the
// audit record and of metrics; it does not change once published.
const (
	None Reason = iota

	// The request cannot be read in one way only.
	Malformed       // not what the protocol or the strict parse allows
	Mismatch        // parts of the request, or request and catalogue, disagree
	TooLarge        // over a stated size
	Encoding        // a content type or coding that is not read
	UnknownTool     // neither route nor catalogue know the tool
	Unrepresentable // an argument that policy could not see exactly

	// Who asks.
	NoCredential   // none was presented
	Ambiguous      // more than one was presented, or one in a place that is not read
	BadCredential  // presented, and not accepted
	ExpiredToken   // genuine, and its time is over
	UnboundToken   // genuine, and presented by another sender than it names
	CredentialKind // genuine, and meant for the other door
	UnknownSession // an MCP session that is not known here: never opened, or forgotten

	// Whether there is a live grant.
	NoGrant       // the credential holds no grant for the tool, and baseline does not permit it
	UnknownGrant  // not in the table: never issued, or forgotten after its end
	NotYet        // before its window
	Expired       // after its window
	Revoked       // fenced by grant, agent or tool
	TaskEnded     // its task has ended
	Superseded    // renewed: another grant stands in its place
	ToolChanged   // the tool is not the one that was granted
	PolicyChanged // the policy of today would not grant it

	// Whether this call is inside it.
	WrongTool        // the grants presented are for other tools
	ConstraintBroken // the input breaks a constraint
	BudgetSpent      // nothing, or not enough, is left
	Policy           // no policy permits it, or one forbids it
	PolicyError      // a policy could not be evaluated
	Manifest         // the manifest of the task's kind does not cover it

	// Issue.
	UnknownTask // no such task, or not the asker's
	BadTTL      // a time that cannot be granted
	BadRequest  // parameters that do not fit together
	Conflict    // the same id with another content, a budget with another limit, a state that moved

	// Ourselves.
	Limit        // a stated bound is reached
	NotFresh     // the view of grants is older than it may be
	CannotRecord // the audit record could not be written
	Undecided    // anything else that kept a decision from being made

	numReasons
)

var reasonText = [numReasons]string{
	None:      "none",
	Malformed: "malformed", Mismatch: "mismatch", TooLarge: "too_large", Encoding: "encoding",
	UnknownTool: "unknown_tool", Unrepresentable: "unrepresentable",
	NoCredential: "no_credential", Ambiguous: "ambiguous_credential", BadCredential: "bad_credential", ExpiredToken: "expired_token",
	UnboundToken: "unbound_token", CredentialKind: "credential_kind", UnknownSession: "unknown_session",
	NoGrant: "no_grant", UnknownGrant: "unknown_grant", NotYet: "not_yet", Expired: "expired",
	Revoked: "revoked", TaskEnded: "task_ended", Superseded: "superseded",
	ToolChanged: "tool_changed", PolicyChanged: "policy_changed",
	WrongTool: "wrong_tool", ConstraintBroken: "constraint", BudgetSpent: "budget_spent",
	Policy: "policy", PolicyError: "policy_error", Manifest: "manifest",
	UnknownTask: "unknown_task", BadTTL: "bad_ttl",
	BadRequest: "bad_request", Conflict: "conflict",
	Limit: "limit", NotFresh: "not_fresh", CannotRecord: "cannot_record", Undecided: "undecided",
}

// Reasons returns every reason but None, in order.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons-1)
	for r := None + 1; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}

func (r Reason) String() string {
	if r >= numReasons {
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasonText[r]
}

// MarshalText implements encoding.TextMarshaler.
func (r Reason) MarshalText() ([]byte, error) {
	if r >= numReasons {
		return nil, fmt.Errorf("reason %d is not in the set", uint8(r))
	}
	return []byte(reasonText[r]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Reason) UnmarshalText(b []byte) error {
	for i, s := range reasonText {
		if s == string(b) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("reason %q is not in the set", b)
}
