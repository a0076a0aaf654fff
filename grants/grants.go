// Package grants holds what just-in-time access is made of: tasks, grants,
// fences and budgets; the Store that keeps them for all nodes; and the Table
// from which one node answers.
//
// A grant is agent × tool × task × window. It is written once and never
// changed. What ends it early is a Fence, one stored fact that kills every
// grant it matches and that was written before it: by grant, task, agent or
// tool. What it may still spend is a Budget, kept with the task and tool and
// never with a token, so that asking again refills nothing.
//
// Invariants:
//   - A task that has ended never opens again.
//   - A grant's window only ever gets shorter.
//   - What the Store has acknowledged as fenced, no Table that has seen the
//     fence's revision calls live.
//   - "Refused" is a Reason; an error means "unknown whether done", and the
//     doors deny on it.
package grants

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ID names a task ("t_…") or a grant ("g_…"): the prefix and 26 characters of
// lower-case base32, 130 random bits. It is legal as an etcd key, an HTTP
// header value and an AWS RoleSessionName.
type ID = string

// Prefixes of an ID.
const (
	TaskPrefix     = "t_"
	GrantPrefix    = "g_"
	DecisionPrefix = "d_"
)

// NewID returns a fresh ID with the given prefix.
func NewID(prefix string) ID { return prefix + strings.ToLower(rand.Text()) }

// ValidID reports whether s is an ID with the given prefix.
func ValidID(s, prefix string) bool {
	body, ok := strings.CutPrefix(s, prefix)
	if !ok || len(body) != 26 {
		return false
	}
	for _, c := range []byte(body) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// Rev is a point in the Store's history. N counts writes; Epoch is raised when
// a Store starts anew or is restored from a copy, so that an N of another
// history is never taken for one of this.
type Rev struct{ Epoch, N uint64 }

// Compare orders revisions: -1, 0 or +1.
func (r Rev) Compare(o Rev) int {
	return cmp.Or(cmp.Compare(r.Epoch, o.Epoch), cmp.Compare(r.N, o.N))
}

// String gives "EPOCH.N", the form of the token's claim "rev".
func (r Rev) String() string {
	return strconv.FormatUint(r.Epoch, 10) + "." + strconv.FormatUint(r.N, 10)
}

// ParseRev reads what String gives; anything else is an error.
func ParseRev(s string) (Rev, error) {
	e, n, ok := strings.Cut(s, ".")
	epoch, err1 := strconv.ParseUint(e, 10, 64)
	num, err2 := strconv.ParseUint(n, 10, 64)
	r := Rev{epoch, num}
	if !ok || err1 != nil || err2 != nil || r.String() != s {
		return Rev{}, fmt.Errorf("revision %q: not EPOCH.N", s)
	}
	return r, nil
}

// Digest is a SHA-256; the zero value means none. Its text form is lower-case
// hex, "" for none.
type Digest [32]byte

// IsZero reports whether there is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return hex.EncodeToString(d[:])
}

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	if n, err := hex.Decode(d[:], b[:min(len(b), 2*len(d))]); err != nil || n != len(d) || len(b) != 2*len(d) {
		return fmt.Errorf("digest %q: not 64 hex digits", b)
	}
	return nil
}

// Principal is who someone was when an identity was verified. Tasks and grants
// keep it, so that later decisions see the groups of that moment.
type Principal struct {
	Issuer  string            `json:"issuer"`           // alias from the configuration, never the issuer's URL
	Subject string            `json:"subject"`          // as the issuer names it
	Groups  []string          `json:"groups,omitempty"` // policy names: alias/group, or as mapped; sorted
	Tags    map[string]string `json:"tags,omitempty"`
}

// ID is the agent id, "ALIAS/SUBJECT"; "" for no principal.
func (p Principal) ID() string {
	if p.Issuer == "" && p.Subject == "" {
		return ""
	}
	return p.Issuer + "/" + p.Subject
}

// Task is a bounded piece of work. It is open from its start until it is
// fenced or its deadline passes, and never open again.
type Task struct {
	ID       ID              `json:"id"`
	Kind     string          `json:"kind"`
	Owner    Principal       `json:"owner"`
	Agents   []string        `json:"agents"`           // agent ids that may hold its grants; sorted
	Params   json.RawMessage `json:"params,omitempty"` // RFC 8785 text of an object, complete by its kind's manifest; fixed at the start; none: started without a manifest
	Started  time.Time       `json:"started,omitzero"` // by whose maximum a later manifest measures it; zero: not known
	Deadline time.Time       `json:"deadline"`
	Beat     time.Duration   `json:"beat,omitempty"` // silent this long, it is ended; 0: never. The issue door counts it
	Rev      Rev             `json:"rev"`            // set by the Store
}

// HasAgent reports whether the agent may hold grants of the task.
func (t *Task) HasAgent(agent string) bool {
	for _, a := range t.Agents {
		if a == agent {
			return true
		}
	}
	return false
}

// Budget bounds what may be spent under one key, over all grants that name it.
// Spent by an allow, never by a denial.
type Budget struct {
	Key   string `json:"key"`           // TaskBudget or GrantBudget
	Arg   string `json:"arg,omitempty"` // JSON Pointer (RFC 6901) to a number in the input; "" counts calls
	Limit int64  `json:"limit"`         // calls, or units of 10^-4 of the argument
}

// TaskBudget is the key of the budget that all grants of a task for a tool
// share: "task/TASK/TOOL", with "#POINTER" behind it for a sum.
func TaskBudget(task ID, tool, arg string) string { return budgetKey("task/"+task+"/"+tool, arg) }

// GrantBudget is the key of a budget of one grant alone: "grant/GRANT".
func GrantBudget(grant ID, arg string) string { return budgetKey("grant/"+grant, arg) }

func budgetKey(base, arg string) string {
	if arg == "" {
		return base
	}
	return base + "#" + arg
}

// Grant lets one agent call one tool for one task inside one window. It is
// immutable: renewal is a new grant and a fence on the old one.
type Grant struct {
	ID     ID        `json:"id"`
	Task   ID        `json:"task"`
	Parent ID        `json:"parent,omitempty"` // the grant that it was delegated from
	Renews ID        `json:"renews,omitempty"` // the grant in whose place it stands; it carries all of its budgets
	Agent  Principal `json:"agent"`            // who calls: the current actor
	Actors []string  `json:"actors,omitempty"` // agent ids before it in the chain, oldest first
	// Requester is who asked. With the task and the grant itself it is all that
	// policy saw, so Ask can put the same question again.
	Requester Principal `json:"requester"`
	Client    string    `json:"client,omitempty"`   // OAuth client_id; "" for none
	Identity  Digest    `json:"identity,omitempty"` // of the identity token that bought it
	Tool      string    `json:"tool"`               // SERVER/TOOL
	Pin       Digest    `json:"pin,omitempty"`      // of the tool's descriptor in the catalogue
	CNF       Digest    `json:"cnf,omitempty"`      // of the sender's key or certificate (RFC 7800); none: bearer

	NotBefore   time.Time         `json:"not_before"`
	Expires     time.Time         `json:"expires"` // the first instant at which it no longer holds
	Constraints []json.RawMessage `json:"constraints,omitempty"`
	Budgets     []Budget          `json:"budgets,omitempty"`
	// Once is the OnceDigest of the one input that it may be used with; none:
	// any that its constraints allow. Such a grant has a budget of one call.
	Once Digest `json:"once,omitzero"`

	Policy Digest `json:"policy,omitempty"` // policy revision that permitted it
	// Rev is, in a call of Store.Issue, the view on which the decision was
	// made (a fence written since then refuses it); in an Event, when it was
	// written.
	Rev Rev `json:"rev"`
}

// Depth is how often the grant was delegated.
func (g *Grant) Depth() int { return len(g.Actors) }

// TTL is the length of the window.
func (g *Grant) TTL() time.Duration { return g.Expires.Sub(g.NotBefore) }

// Asks are the questions that policy answered when the grant was issued; all
// must be permitted. They are put again when the policy revision has moved. Who
// asks for another agent than itself needs a permit of its own (ActionAskFor).
func (g *Grant) Asks(task *Task, at time.Time) []Input {
	ask := Input{
		Action: ActionGrant, Requester: g.Requester, Principal: g.Agent,
		Tool: g.Tool, Task: task, Grant: g, At: at,
	}
	if g.Requester.ID() == g.Agent.ID() {
		return []Input{ask}
	}
	askFor := ask
	askFor.Action, askFor.Principal = ActionAskFor, g.Requester
	return []Input{ask, askFor}
}

// Scope says what a Fence matches.
type Scope string

// The scopes of a fence; Key is then a grant id, a task id, an agent id or
// SERVER/TOOL.
const (
	ScopeGrant Scope = "grant"
	ScopeTask  Scope = "task"
	ScopeAgent Scope = "agent"
	ScopeTool  Scope = "tool"
)

// Fence kills every grant that it matches and that was written before it. A
// fenced task has ended.
type Fence struct {
	Scope Scope     `json:"scope"`
	Key   string    `json:"key"`
	Why   Reason    `json:"why"`   // what a later call is told
	Until time.Time `json:"until"` // when nothing written before it can be live any more; then it may be forgotten
	Rev   Rev       `json:"rev"`   // set by the Store
}

// reason is what a call is told that the fence kills; never None.
func (f *Fence) reason() Reason {
	if f.Why == None {
		return Revoked
	}
	return f.Why
}

// Event is one change as a Watch reports it: exactly one of the pointers is
// set; none is a heartbeat ("up to Rev, itself included, there is nothing that
// you have not seen"). Grants of one Issue share a Rev. What an event points to
// is never changed.
type Event struct {
	Rev   Rev
	Task  *Task
	Grant *Grant
	Fence *Fence
}

func (e Event) heartbeat() bool { return e.Task == nil && e.Grant == nil && e.Fence == nil }
