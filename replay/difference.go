package replay

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// ShadowLine is one line of a Shadow's file: an answer that differs or, if Counts
// is not nil, what was counted since the last such line.
type ShadowLine struct {
	Time      time.Time // of the live answer; of counts: when they were written
	ID        string    // of the decision, as in the audit log
	Action    string
	Agent     string // who would act
	Tool      string // SERVER/TOOL, or SERVER of an mcp: action
	Kind      string // of the task; "": none
	Live      grants.Decision
	Candidate grants.Decision
	Counts    *Counts
}

// wireShadow is a ShadowLine as the file has it.
type wireShadow struct {
	V         int           `json:"v"`
	Time      time.Time     `json:"time"`
	ID        string        `json:"id,omitempty"`
	Action    string        `json:"action,omitempty"`
	Agent     string        `json:"agent,omitempty"`
	Tool      string        `json:"tool,omitempty"`
	Kind      string        `json:"kind,omitempty"`
	Live      *wireDecision `json:"live,omitempty"`
	Candidate *wireDecision `json:"candidate,omitempty"`
	Counts    *shadowCounts `json:"counts,omitempty"`
}

type shadowCounts struct {
	Same      int64 `json:"same"`
	Different int64 `json:"different"`
	Dropped   int64 `json:"dropped"`
	Failed    int64 `json:"failed"`
	Unwritten int64 `json:"unwritten"`
}

// differenceOf says no more than the audit log does: of the question, who, what
// and for which kind of task.
func differenceOf(j *job, one *asked, now grants.Decision) wireShadow {
	in, live, candidate := &one.q.Input, wireOf(one.was), wireOf(now)
	w := wireShadow{
		V: version, Time: j.at, ID: j.id, Action: in.Action, Agent: in.Principal.ID(), Tool: in.Tool,
		Live: &live, Candidate: &candidate,
	}
	if w.Tool == "" {
		w.Tool = in.Server
	}
	if in.Task != nil {
		w.Kind = in.Task.Kind
	}
	return w
}

// ReadShadow gives the lines of a Shadow's file, as Read does those of inputs.
func ReadShadow(r io.Reader) iter.Seq2[ShadowLine, error] { return lines(r, parseShadow) }

func parseShadow(text []byte) (ShadowLine, error) {
	var w wireShadow
	if err := unmarshal(text, &w); err != nil {
		return ShadowLine{}, err
	}
	if w.V != version {
		return ShadowLine{}, fmt.Errorf("version %d, and this program reads %d", w.V, version)
	}
	out := ShadowLine{Time: w.Time, ID: w.ID, Action: w.Action, Agent: w.Agent, Tool: w.Tool, Kind: w.Kind}
	switch c := w.Counts; {
	case w.Time.IsZero():
		return ShadowLine{}, errors.New("no time")
	case c != nil && w.ID == "" && w.Live == nil && w.Candidate == nil:
		if min(c.Same, c.Different, c.Dropped, c.Failed, c.Unwritten) < 0 {
			return ShadowLine{}, errors.New("counts below zero")
		}
		out.Counts = &Counts{Same: c.Same, Flipped: c.Different, Unwritten: c.Unwritten, Cannot: map[Why]int64{Dropped: c.Dropped, Failed: c.Failed}}
	case c == nil && w.ID != "" && w.Live != nil && w.Candidate != nil:
		out.Live, out.Candidate = w.Live.decision(), w.Candidate.decision()
		if out.Live.Refusal() == out.Candidate.Refusal() {
			return ShadowLine{}, errors.New("no difference")
		}
	default:
		return ShadowLine{}, errors.New("neither a difference nor counts")
	}
	return out, nil
}

// Summarise reads a Shadow's file and groups its differences as Replay does. Its
// counts are those of the file, the last of which is at most a minute old while
// the Shadow runs; batches with a difference that no line of counts tells of yet,
// or ever will because the Shadow was killed, are counted by their differences.
// The error is the reader's, or says that the file is another: it is not empty,
// and has no line of a Shadow.
func Summarise(r io.Reader) (Report, error) {
	in := &watched{r: r}
	b := newReport()
	var other error // of the first line that is none
	var batch ShadowLine
	shadow, uncounted := false, int64(0)
	for line, err := range ReadShadow(in) {
		shadow = shadow || err == nil
		switch {
		case err != nil:
			b.Counts.bad(err)
			if other == nil {
				other = err
			}
		case line.Counts != nil:
			b.Counts.Same += line.Counts.Same
			// More, if a Shadow that was killed before counting left them.
			b.Counts.Flipped += max(line.Counts.Flipped, uncounted)
			b.Counts.Unwritten += line.Counts.Unwritten
			for why, n := range line.Counts.Cannot {
				if n > 0 {
					b.cannot(why, n)
				}
			}
			uncounted = 0
		default:
			if uncounted == 0 || line.ID != batch.ID || !line.Time.Equal(batch.Time) {
				uncounted++
				batch = line
			}
			b.flip(line.ID, line.Live, line.Candidate)
		}
	}
	b.Counts.Flipped += uncounted
	switch {
	case in.err != nil:
		return b.done(), fmt.Errorf("reading a shadow's file: %w", in.err)
	case other != nil && !shadow:
		return b.done(), fmt.Errorf("not a shadow's file, for none of its lines is one of it: %w", other)
	}
	return b.done(), nil
}
