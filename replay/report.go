package replay

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/toolgrant/toolgrant/grants"
)

// Why says what keeps a decision from being decided again. The set is closed.
type Why string

// The values of Why.
const (
	NoInputs    Why = "no inputs for it"                    // none were kept, or not near its record
	Redacted    Why = "arguments were redacted"             // or policy sees some today that it did not then
	ToolGone    Why = "tool no longer in the catalogue"     // or MCP server
	Undecidable Why = "its parts make no question"          // by the mapping of today
	Folded      Why = "folded record"                       // one record that stands for several denials
	Torn        Why = "torn line"                           // of the audit log, or one that cannot be read
	Dropped     Why = "dropped: the candidate was too slow" // by a Shadow
	Failed      Why = "the candidate failed"                // in a Shadow: no full answer
)

// Report is what deciding again came to.
type Report struct {
	// Revision is the policy revision that decided again; none if nothing was, and
	// of a Shadow, whose candidate may have changed.
	Revision grants.Digest `json:"revision,omitzero"`
	Counts   Counts        `json:"counts"`
	Flips    []Flip        `json:"flips"` // by Change, then the most frequent first
}

// Counts of a Replay are of decisions. Those of a Shadow are of batches of
// questions, as the doors put them.
type Counts struct {
	Same    int64         `json:"same"`    // each answer with the same reason
	Flipped int64         `json:"flipped"` // one answer, at least, with another
	Cannot  map[Why]int64 `json:"cannot"`  // not decided again, though no answer that was is flipped

	NotByPolicy int64 `json:"not_by_policy,omitempty"` // records of what never reached policy
	Unrecorded  int64 `json:"unrecorded,omitempty"`    // decisions with inputs, and without a record in this log
	TornInputs  int64 `json:"torn_inputs,omitempty"`   // what follows the last newline of the other file
	NotLines    int64 `json:"not_lines,omitempty"`     // whole lines there that are none of such a file
	Unwritten   int64 `json:"unwritten,omitempty"`     // of a Shadow: differences that its file had no room for
}

// Change is how an answer flips.
type Change string

// The values of Change.
const (
	ToDeny   Change = "allow to deny"
	ToAllow  Change = "deny to allow"
	ToReason Change = "deny for another reason"
)

// Flip is a group of answers that flip for one cause. An answer that several
// policies flip is in the group of each.
type Flip struct {
	Change   Change   `json:"change"`
	Because  string   `json:"because"`  // such as "now forbidden by"
	Policy   string   `json:"policy"`   // its id; "" where there is none to name
	Count    int64    `json:"count"`    // of decisions
	Examples []string `json:"examples"` // ids of the first decisions
}

const maxExamples = 5

// Flipped is how many decisions flip.
func (r Report) Flipped() int64 { return r.Counts.Flipped }

// result is what one decision comes to.
type result struct {
	flipped bool
	why     Why // "": all of it was decided again
}

// builder makes a Report.
type builder struct {
	Report
	groups map[cause]*group
}

type cause struct {
	change  Change
	because string
	policy  string
}

type group struct {
	Flip
	last string // decision that was counted last
}

func newReport() *builder {
	return &builder{Report: Report{Counts: Counts{Cannot: map[Why]int64{}}}, groups: map[cause]*group{}}
}

// bad counts what is no line of the file beside the audit log. Only what has no
// newline can be one that is being written.
func (c *Counts) bad(err error) {
	if errors.Is(err, ErrTorn) {
		c.TornInputs++
	} else {
		c.NotLines++
	}
}

func (b *builder) cannot(why Why, n int64) { b.Counts.Cannot[why] += n }

func (b *builder) add(r result) {
	switch {
	case r.flipped:
		b.Counts.Flipped++
	case r.why != "":
		b.cannot(r.why, 1)
	default:
		b.Counts.Same++
	}
}

// by holds that all is decided by one revision.
func (b *builder) by(revision grants.Digest) error {
	if b.Revision.IsZero() {
		b.Revision = revision
	}
	if b.Revision != revision {
		return errors.New("the policies changed while they were asked")
	}
	return nil
}

// flip counts one answer that differs.
func (b *builder) flip(id string, was, now grants.Decision) {
	for _, c := range causes(was, now) {
		g := b.groups[c]
		if g == nil {
			g = &group{Flip: Flip{Change: c.change, Because: c.because, Policy: c.policy}}
			b.groups[c] = g
		}
		if g.Count > 0 && g.last == id {
			continue
		}
		g.Count++
		g.last = id
		if len(g.Examples) < maxExamples {
			g.Examples = append(g.Examples, id)
		}
	}
}

// causes are what makes an answer flip: of an allow, what forbids it now or, if
// nothing does, what permits it no more; of a denial, what permits it now and what
// forbids it no more.
func causes(was, now grants.Decision) []cause {
	from, to := was.Refusal(), now.Refusal()
	each := func(change Change, because string, policies []string) (all []cause) {
		for _, p := range policies {
			all = append(all, cause{change, because, p})
		}
		return all
	}
	var all []cause
	switch {
	case from == grants.None && to == grants.Policy && len(now.Policies) == 0:
		if all = each(ToDeny, "no longer permitted by", was.Policies); all == nil {
			all = []cause{{ToDeny, "no longer permitted", ""}}
		}
	case from == grants.None && to == grants.PolicyChanged && len(now.Policies) == 0:
		all = []cause{{ToDeny, "its grant no longer permitted", ""}}
	case from == grants.None:
		if all = each(ToDeny, denies(to), now.Policies); all == nil {
			all = []cause{{ToDeny, "reason " + to.String(), ""}}
		}
	case to == grants.None:
		if from == grants.Policy || from == grants.PolicyError || from == grants.PolicyChanged {
			all = each(ToAllow, ceases(from), was.Policies)
		} else {
			all = []cause{{ToAllow, "no longer " + from.String(), ""}}
		}
		all = append(all, each(ToAllow, "now permitted by", now.Policies)...)
		if all == nil {
			all = []cause{{ToAllow, "now permitted", ""}}
		}
	default:
		all = []cause{{ToReason, to.String() + " in place of " + from.String(), ""}}
	}
	return all
}

// denies says what policies do that a denial names.
func denies(why grants.Reason) string {
	switch why {
	case grants.Policy:
		return "now forbidden by"
	case grants.PolicyError:
		return "now could not be evaluated:"
	case grants.PolicyChanged:
		return "its grant now forbidden by"
	}
	return "reason " + why.String() + " by"
}

// ceases says what they do no more.
func ceases(why grants.Reason) string {
	switch why {
	case grants.PolicyError:
		return "could be evaluated again:"
	case grants.PolicyChanged:
		return "its grant no longer forbidden by"
	}
	return "no longer forbidden by"
}

// done gives the Report.
func (b *builder) done() Report {
	r := b.Report
	r.Flips = []Flip{}
	for _, g := range b.groups {
		r.Flips = append(r.Flips, g.Flip)
	}
	slices.SortFunc(r.Flips, func(x, y Flip) int {
		return cmp.Or(cmp.Compare(x.Change, y.Change), cmp.Compare(y.Count, x.Count),
			cmp.Compare(x.Because, y.Because), cmp.Compare(x.Policy, y.Policy))
	})
	return r
}

// String is the report for people. Whatever stands in the files, it is lines of
// printable characters.
func (r Report) String() string {
	var out strings.Builder
	var cannot int64
	for _, n := range r.Counts.Cannot {
		cannot += n
	}
	fmt.Fprintf(&out, "%d the same, %d flipped, %d not decided again\n", r.Counts.Same, r.Counts.Flipped, cannot)
	if !r.Revision.IsZero() {
		fmt.Fprintf(&out, "decided again by policy revision %s\n", r.Revision)
	}
	var change Change
	for _, f := range r.Flips {
		if f.Change != change {
			change = f.Change
			fmt.Fprintf(&out, "%s:\n", word(string(change)))
		}
		what := word(f.Because)
		if f.Policy != "" {
			what += " " + word(f.Policy)
		}
		ids := make([]string, len(f.Examples))
		for i, id := range f.Examples {
			ids[i] = word(id)
		}
		fmt.Fprintf(&out, "  %6d  %s (%s)\n", f.Count, what, strings.Join(ids, ", "))
	}
	rows := func(title string, all []row) {
		for _, one := range all {
			if one.n == 0 {
				continue
			}
			if title != "" {
				fmt.Fprintf(&out, "%s:\n", title)
				title = ""
			}
			fmt.Fprintf(&out, "  %6d  %s\n", one.n, one.text)
		}
	}
	var whys []row
	for why, n := range r.Counts.Cannot {
		whys = append(whys, row{n, word(string(why))})
	}
	slices.SortFunc(whys, func(x, y row) int { return cmp.Or(cmp.Compare(y.n, x.n), cmp.Compare(x.text, y.text)) })
	rows("not decided again", whys)
	rows("besides", []row{
		{r.Counts.NotByPolicy, "records of what never reached policy"},
		{r.Counts.Unrecorded, "decisions with inputs, and without a record in this log"},
		{r.Counts.TornInputs, "torn lines beside those that were read"},
		{r.Counts.NotLines, "lines that are none of such a file"},
		{r.Counts.Unwritten, "differences that the file had no room for"},
	})
	return out.String()
}

type row struct {
	n    int64
	text string
}

// word is a text of a file, in quotes and escaped if it does not print as it is.
func word(s string) string {
	if s == "" || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) || c == '"' || c == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}
