package audit

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// Explain tells an operator in words what the records of one decision say: who
// asked for what, what the answer was and why, and what can be done about it. It
// says more than the denied caller was told, policies included. Whatever stands
// in the records, the text is lines of printable characters; one that could be
// taken for our own words is in quotes.
func Explain(rs []Record) string {
	var b strings.Builder
	for i := range rs {
		if i > 0 {
			b.WriteByte('\n')
		}
		explainRecord(&b, &rs[i])
	}
	if n := len(rs); n > 1 && rs[n-1].called() {
		b.WriteString("\nThe last of these records is what the caller got: writing a record takes time, and the window may end meanwhile.\n")
	}
	return b.String()
}

func explainRecord(b *strings.Builder, r *Record) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	at := r.Time.UTC().Format(timeLayout)
	if r.Outcome == "" {
		fmt.Fprintf(b, "Record %d, %s: the log about itself, %s\n", r.Seq, at, word(r.Kind))
		row("note", "%s", plain(r.Note))
		return
	}
	fmt.Fprintf(b, "Decision %s, %s, record %d\n", word(r.ID), at, r.Seq)
	row("asked", "%s", asked(r))
	if from := origin(r); from != "" {
		row("from", "%s", from)
	}
	row("answer", "%s", answered(r))
	why := explanationOf(r)
	row("why", "%s", why.means)
	row("to do", "%s", why.todo)
	if ids := policiesOf(r); ids != "" {
		row("policies", "%s", ids)
	}
	if !r.Revision.IsZero() {
		row("revision", "policy %s", r.Revision)
	}
	if r.Rev != "" {
		row("view", "of the grants, at revision %s", word(r.Rev))
	}
	if r.Args != "" {
		row("arguments", "on record as their keyed digest alone: %s", word(r.Args))
	}
	if r.Note != "" {
		row("note", "%s", plain(r.Note))
	}
}

// doings say what was asked, by kind.
var doings = map[string]string{
	KindCall:               "called a tool",
	grants.ActionGrant:     "asked for a grant",
	grants.ActionAskFor:    "asked for a grant of another agent",
	grants.ActionStartTask: "asked to start a task",
	grants.ActionEndTask:   "asked to end a task",
	grants.ActionRevoke:    "asked to revoke",
	"show_task":            "asked to see a task",
	"list_tasks":           "asked for the list of tasks",
	"list_grants":          "asked for the list of grants",
	"evaluate":             "asked by AuthZEN what would be decided",
	"sweep":                "had a grant decided again, since policy had changed",
}

// asked is the question as a sentence.
func asked(r *Record) string {
	who, agent := r.Requester, r.Agent
	if r.called() {
		who, agent = r.Agent, ""
	}
	if who == "" {
		who, agent = agent, ""
	}
	var b strings.Builder
	switch {
	case who != "":
		b.WriteString(word(who))
	case r.Outcome == Allow: // such as the end of a task whose owner is silent
		b.WriteString("toolgrant itself")
	default:
		b.WriteString("a caller without a verified identity")
	}
	if doing := doings[r.Kind]; doing != "" {
		b.WriteString(" " + doing)
	} else if method, mcp := strings.CutPrefix(r.Kind, grants.ActionMCP); mcp {
		b.WriteString(" sent the MCP message " + word(method))
	} else {
		b.WriteString(" made a request of kind " + word(r.Kind))
	}
	for _, part := range []struct{ name, value string }{
		{"tool", r.Tool}, {"task", r.Task}, {"grant", r.Grant}, {"agent", agent}, {"through", r.Actor},
	} {
		if part.value != "" && !(part.name == "agent" && agent == who) {
			b.WriteString(", " + part.name + " " + word(part.value))
		}
	}
	if r.called() && r.Requester != "" && r.Requester != who {
		b.WriteString("; the grant was asked for by " + word(r.Requester))
	}
	return b.String()
}

func origin(r *Record) string {
	var parts []string
	if r.Source != "" {
		parts = append(parts, word(r.Source))
	}
	if r.Client != "" {
		parts = append(parts, "client "+word(r.Client))
	}
	return strings.Join(parts, ", ")
}

func answered(r *Record) string {
	var b strings.Builder
	if r.Outcome == Allow {
		b.WriteString("allowed")
	} else {
		b.WriteString("denied, " + r.Reason.String())
	}
	if r.Status != 0 {
		fmt.Fprintf(&b, ", with HTTP status %d", r.Status)
	}
	if r.Count > 1 {
		fmt.Fprintf(&b, ", %d times: this one record stands for all of them", r.Count)
	} else if r.LatencyUS > 0 {
		fmt.Fprintf(&b, ", after %v", time.Duration(r.LatencyUS)*time.Microsecond)
	}
	return b.String()
}

// policiesOf says what the policies on record did: grants.Decision has those
// that permit, that forbid, or that could not be evaluated, by its reason.
func policiesOf(r *Record) string {
	ids := make([]string, len(r.Policies))
	for i, p := range r.Policies {
		ids[i] = word(p)
	}
	list := strings.Join(ids, ", ")
	switch {
	case list == "" && (r.Reason == grants.Policy || r.Reason == grants.PolicyChanged):
		return "none permits it"
	case list == "":
		return ""
	case r.Outcome == Allow:
		return "permitted by " + list
	case r.Reason == grants.Policy || r.Reason == grants.PolicyChanged:
		return "forbidden by " + list
	case r.Reason == grants.PolicyError:
		return "could not be evaluated: " + list
	case r.Reason == grants.UnknownTask || r.Reason == grants.UnknownGrant:
		return "it is there, and policy said no: " + list
	}
	return "permitted by " + list + "; what refused it came after"
}

// word is a text from outside among our own words: in quotes, and escaped, if
// it is not one plain word.
func word(s string) string {
	quoted := string(appendString(nil, s, MaxID))
	plain := s != "" && len(quoted) == len(s)+2
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] > ' ' && s[i] <= '~' && s[i] != ',' && s[i] != ';'
	}
	if plain {
		return s
	}
	return quoted
}

// plain is a sentence of the log, escaped.
func plain(s string) string {
	quoted := string(appendString(nil, s, MaxNote))
	return quoted[1 : len(quoted)-1]
}

// explanation is what a reason means, and what an operator can do.
type explanation struct{ means, todo string }

func explanationOf(r *Record) explanation {
	e := explanations[r.Reason]
	return explanation{
		means: cmp.Or(e.means, "this version has no words for it"),
		todo:  cmp.Or(e.todo, "look it up in the version that wrote it"),
	}
}
