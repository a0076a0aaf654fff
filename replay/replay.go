// Package replay decides again what was decided: what a candidate set of
// policies would have answered, before it counts.
//
// Inputs keeps each question that policy was asked, with its answer, in a file;
// Replay takes the decisions of an audit log, finds their questions there, and
// puts them to another Decider. Shadow does the same while the questions come,
// and keeps the differences alone.
//
// Invariants:
//   - Nothing here changes an answer, makes one wait for the candidate, or fails
//     with it. What could not be kept is counted.
//   - Nothing is guessed. What cannot be decided again, because what policy saw is
//     not all there, is counted with the reason and is neither "same" nor
//     "flipped".
//   - A call under a grant is decided as the call door does it: where the revision
//     is not the one that permitted the grant, the questions about the grant are
//     put too.
//   - What a tool's catalogue entry calls opaque or redacted is in no file, and
//     the files are read by nobody but their owner.
//   - Memory is bounded, whatever the length of the files.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// Config says what is decided again, and by whom.
type Config struct {
	Audit  io.Reader // an audit log, as audit.Log writes it; see Replay for its order
	Inputs io.Reader // what Inputs wrote in the same time
	// Decide is asked. All of its answers must be of one policy revision.
	Decide grants.Decider
	// Catalog is the one that Decide rests on: arguments that were left out because
	// policy does not see them must still be opaque in it. nil: whatever was left
	// out may be seen.
	Catalog *catalog.Catalog
}

// Replay decides the log's decisions again. A decision counts once, however many
// records tell of it, and is flipped if the answer to one of its questions is.
//
// Both files are read once, side by side, since both are in the order of time: a
// door writes the inputs of a decision before its record, and the record tells
// when that was (time and latency_us). So the inputs of a record are looked for
// among those that were written up to a second after it; those that are two minutes
// older than it, or the oldest where there are over 32 MiB of them, are given up.
// What is not found there counts as NoInputs.
//
// The error is of a file that could not be read, of the Decider, or ctx's; the
// Report then has what came before. A line that is no record, or no inputs, is no
// error: it is counted.
func Replay(ctx context.Context, c Config) (Report, error) {
	log, inputs := &watched{r: c.Audit}, &watched{r: c.Inputs}
	r := replayer{ctx: ctx, decide: c.Decide, catalog: c.Catalog, report: newReport()}
	w := newWindow(inputs)
	defer w.close()
	for rec, err := range audit.Read(log) {
		if err == nil {
			err = r.record(w, &rec)
		} else {
			r.report.cannot(Torn, 1) // or, at the end of the log, the reader's error
			err = nil
		}
		if err = errors.Join(err, inputs.err); err != nil {
			return r.report.done(), fmt.Errorf("replaying: %w", err)
		}
	}
	w.drain()
	counts := &r.report.Counts
	counts.Unrecorded, counts.TornInputs, counts.NotLines = w.unrecorded, w.bad.TornInputs, w.bad.NotLines
	if err := errors.Join(log.err, inputs.err); err != nil {
		return r.report.done(), fmt.Errorf("replaying: %w", err)
	}
	return r.report.done(), nil
}

type replayer struct {
	ctx     context.Context // of one Replay
	decide  grants.Decider
	catalog *catalog.Catalog
	report  *builder
}

// record decides again what one record tells of.
func (r *replayer) record(w *window, rec *audit.Record) error {
	switch {
	case rec.Outcome == "": // the log's words about itself
		return nil
	case rec.Count > 1: // which names the first alone
		r.report.cannot(Folded, rec.Count)
		return nil
	case rec.Revision.IsZero():
		r.report.Counts.NotByPolicy++
		return nil
	}
	lines, counted := w.take(rec)
	if counted {
		return nil
	}
	cases, whole := casesOf(lines)
	res := result{why: NoInputs}
	if whole && len(cases) > 0 {
		res.why = ""
	}
	for _, one := range cases {
		if err := r.again(rec.ID, one, &res); err != nil {
			return err
		}
	}
	r.report.add(res)
	return nil
}

// again decides one case again.
func (r *replayer) again(id string, one asked, res *result) error {
	now, why, err := one.again(r.ctx, r.decide, r.catalog)
	if err != nil {
		return err
	}
	if why != "" {
		res.why = why
		return nil
	}
	if one.was.Refusal() != now.Refusal() {
		res.flipped = true
		r.report.flip(id, one.was, now)
	}
	return r.report.by(now.Revision)
}

// watched keeps a reader's error, which audit.Read and Read tell as they tell of a
// bad line.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}
