// Package audit keeps one record of every decision, written before the answer
// is given, in a log in which a changed, lost or moved record shows.
//
// The log is a file of JSON Lines. Each line carries its number (seq, from 1
// without a gap), the SHA-256 of the line before it (prev) and the SHA-256 of
// itself up to there (sum), so a line cannot be changed, removed, doubled or
// moved without breaking the line itself or the next. The chain continues over
// a restart. What it cannot show by itself is that lines are missing at the
// end, or that the whole was written anew: for that, compare it with a hash
// that was kept elsewhere (see Verify).
//
// Invariants:
//   - Append gives nil only after write(2) has taken the whole line. Anything
//     else means "not recorded", and the caller denies. The records of one
//     request (AppendAll) are one write: all or none.
//   - A failed write leaves nothing behind and uses no seq. The log goes on by
//     itself when it can, and then says in the chain that it had stopped.
//   - No decision goes uncounted. Only denials of callers that nobody could
//     verify are folded, past a few a second for each source: one record then
//     stands for as many as its Count says (see Config.FoldAfter).
//   - One writer: the file is locked for the life of the Log. A lock holds only
//     those who ask for it, so each Append looks first whether the file is in
//     its place and as long as it was left. What another wrote is never cut.
//   - No string of a record can end a line, reorder it on a screen or drive a
//     terminal: what does not print is escaped, each field is cut at a stated
//     length, and a line is at most MaxLine bytes.
//   - Arguments are never written, only their keyed digest (Log.Digest).
//
// Read, Find and Explain give the log back to people; Signals says when what
// was decided looks like misuse.
package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/grants"
)

// MaxLine is the longest line, in bytes without its newline.
const MaxLine = 8 << 10

// How much of a field a line holds, in bytes as they stand in the line (an
// escape counts as six). What is longer is cut and ends in "…".
const (
	MaxID       = 256 // id, agent, actor, requester, client, tool, task, grant
	MaxNote     = 512 // note
	MaxWord     = 64  // kind, source, rev, args
	MaxPolicy   = 128 // each policy id
	MaxPolicies = 16  // policy ids; when there are more, the last is "…"
)

// Outcome is what was decided.
type Outcome string

// The outcomes. A record that the Log writes about itself has none.
const (
	Allow Outcome = "allow"
	Deny  Outcome = "deny"
)

// KindCall is the kind of a call door's decision. The issue door's kinds are the
// actions of grants, and names of its own for what is no action.
const KindCall = "call"

// Kinds of the records that a Log writes about itself. Their Note says more.
const (
	KindRecovered = "recovered" // Open found a torn last line and moved it aside
	KindResumed   = "resumed"   // writing had failed, and goes on
)

// Record is one decision of either door. Its JSON form is one line of the log,
// with every member present and in this order.
type Record struct {
	Seq  uint64 `json:"seq"`  // from 1; set by the Log
	Prev string `json:"prev"` // SHA-256 of the previous line without its newline, hex; 64 zeros before the first; set by the Log

	Time      time.Time `json:"time"` // of the decision; zero: now. Written in UTC with microseconds
	ID        string    `json:"id"`   // decision id, as the denied caller gets it
	Kind      string    `json:"kind"` // what was decided: KindCall, or the action (grants.ActionGrant, mcp:METHOD, …)
	Agent     string    `json:"agent"`
	Actor     string    `json:"actor"`     // who acts for the agent, outermost first; "" without delegation
	Requester string    `json:"requester"` // who asked, if it was not the agent
	Client    string    `json:"client"`    // OAuth client_id
	Tool      string    `json:"tool"`      // SERVER/TOOL; SERVER of an MCP message that calls no tool
	Task      string    `json:"task"`
	Grant     string    `json:"grant"`
	Source    string    `json:"source"` // address of who sent the request, without a port; "" for not known

	Outcome  Outcome       `json:"outcome"`
	Reason   grants.Reason `json:"reason"`   // None exactly with Allow
	Status   int           `json:"status"`   // HTTP status of the answer; 0: not known
	Policies []string      `json:"policies"` // ids of the policies that made it; of a denial by policy: of those decisions alone that said no
	Revision grants.Digest `json:"revision"` // policy revision that it rests on
	Rev      string        `json:"rev"`      // grants.Rev of the view that it rests on, "EPOCH.N"
	Args     string        `json:"args"`     // Log.Digest of the arguments; "" for none

	Count     int64  `json:"count"`      // how many decisions this record stands for; 0 is written as 1, and more is the Log's to write
	LatencyUS int64  `json:"latency_us"` // from the request's arrival to this record, in microseconds
	Note      string `json:"note"`       // for people: what the caller was told to mend, and Facts; never a secret or an argument

	Sum string `json:"sum"` // SHA-256 of the line's bytes before `,"sum"`, hex; set by the Log
}

// called reports whether it is of the call door.
func (r *Record) called() bool {
	return r.Kind == KindCall || strings.HasPrefix(r.Kind, grants.ActionMCP)
}

// check refuses what no door may decide: it would be a record that cannot be
// joined with its answer, or that contradicts itself.
func (r *Record) check() error {
	switch {
	case r.ID == "":
		return errors.New("no decision id")
	case r.Kind == "":
		return errors.New("no kind")
	case r.Outcome != Allow && r.Outcome != Deny:
		return fmt.Errorf("outcome %q is neither allow nor deny", r.Outcome)
	case (r.Outcome == Allow) != (r.Reason == grants.None):
		return fmt.Errorf("outcome %s with reason %s", r.Outcome, r.Reason)
	case r.Count != 0 && r.Count != 1:
		return fmt.Errorf("count %d: a door records each decision, and the log folds", r.Count)
	}
	if _, err := r.Reason.MarshalText(); err != nil {
		return err
	}
	if y := r.Time.UTC().Year(); y < 1 || y > 9999 {
		return fmt.Errorf("year %d is not in RFC 3339", y)
	}
	return nil
}

// timeLayout is RFC 3339 of one width, so that lines sort as text.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// appendBody appends the members from "time" to "note" of a record that check
// has passed, without the braces. It is apart from seq and prev because it needs
// no lock.
func appendBody(b []byte, r *Record) []byte {
	at := r.Time.UTC()
	if r.Time.IsZero() {
		at = time.Now().UTC()
	}
	b = append(b, `"time":"`...)
	b = at.AppendFormat(b, timeLayout)
	b = append(b, '"')
	b = appendMember(b, "id", r.ID, MaxID)
	b = appendMember(b, "kind", r.Kind, MaxWord)
	b = appendMember(b, "agent", r.Agent, MaxID)
	b = appendMember(b, "actor", r.Actor, MaxID)
	b = appendMember(b, "requester", r.Requester, MaxID)
	b = appendMember(b, "client", r.Client, MaxID)
	b = appendMember(b, "tool", r.Tool, MaxID)
	b = appendMember(b, "task", r.Task, MaxID)
	b = appendMember(b, "grant", r.Grant, MaxID)
	b = appendMember(b, "source", r.Source, MaxWord)
	b = appendMember(b, "outcome", string(r.Outcome), MaxWord)
	b = append(append(append(b, `,"reason":"`...), r.Reason.String()...), '"')
	b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	b = append(b, `,"policies":[`...)
	for i, p := range r.Policies {
		if i > 0 {
			b = append(b, ',')
		}
		if i == MaxPolicies-1 && len(r.Policies) > MaxPolicies {
			b = append(b, `"…"`...)
			break
		}
		b = appendString(b, p, MaxPolicy)
	}
	b = append(b, ']')
	b = append(b, `,"revision":"`...)
	if !r.Revision.IsZero() {
		b = hex.AppendEncode(b, r.Revision[:])
	}
	b = append(b, '"')
	b = appendMember(b, "rev", r.Rev, MaxWord)
	b = appendMember(b, "args", r.Args, MaxWord)
	b = strconv.AppendInt(append(b, `,"count":`...), max(1, r.Count), 10)
	b = strconv.AppendInt(append(b, `,"latency_us":`...), r.LatencyUS, 10)
	return appendMember(b, "note", r.Note, MaxNote)
}

func appendMember(b []byte, name, value string, limit int) []byte {
	b = append(append(append(b, ',', '"'), name...), '"', ':')
	return appendString(b, value, limit)
}

const cutMark = "…"

// appendString appends s as a JSON string of at most limit bytes between its
// quotes. Bytes that are not UTF-8 become U+FFFD. What does not print (controls,
// line and paragraph separators, bidi and other format characters, unassigned
// and private ones) becomes \uXXXX: a JSON parser gives it back, a terminal
// never sees it.
func appendString(b []byte, s string, limit int) []byte {
	b = append(b, '"')
	start := len(b)
	cut := start // the last place where the mark still fits behind
	for i := 0; i < len(s); {
		c, n := rune(s[i]), 1
		if c >= utf8.RuneSelf {
			c, n = utf8.DecodeRuneInString(s[i:])
		}
		i += n
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c >= ' ' && c <= '~':
			b = append(b, byte(c))
		case c >= utf8.RuneSelf && unicode.IsPrint(c): // U+FFFD included
			b = utf8.AppendRune(b, c)
		default:
			b = appendEscape(b, c)
		}
		if len(b)-start > limit {
			return append(append(b[:cut], cutMark...), '"')
		}
		if len(b)-start <= limit-len(cutMark) {
			cut = len(b)
		}
	}
	return append(b, '"')
}

func appendEscape(b []byte, c rune) []byte {
	const digits = "0123456789abcdef"
	if c > 0xffff { // a surrogate pair: RFC 8259, Section 7
		c -= 0x10000
		return appendEscape(appendEscape(b, 0xd800+c>>10), 0xdc00+c&0x3ff)
	}
	return append(b, '\\', 'u', digits[c>>12&15], digits[c>>8&15], digits[c>>4&15], digits[c&15])
}
