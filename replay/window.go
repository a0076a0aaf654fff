package replay

import (
	"io"
	"iter"
	"time"

	"github.com/toolgrant/toolgrant/audit"
)

// How far from each other the inputs and the record of one decision may be. Both
// are of one process, and so of one clock.
const (
	aheadOf  = time.Second     // inputs are read up to so long after a record: all of its own are written before it
	behindOf = 2 * time.Minute // inputs without a record are kept so long; a decision takes less
	maxHeld  = 32 << 20        // bytes of what is kept, as it stands in the file; decoded, it takes a few times as much
	heldCost = 256             // bytes that count for each decision besides
)

// window is where the file of inputs is being read: the lines around the record
// that is looked at.
type window struct {
	next  func() (Line, error, bool)
	stop  func()
	ahead *Line // read, and of after that
	held  map[string]*held
	order []*held // by when they came
	bytes int

	unrecorded int64  // decisions that no record came for
	bad        Counts // of these alone TornInputs and NotLines
}

// held are the lines of one decision.
type held struct {
	id    string
	at    time.Time
	lines []Line
	bytes int
	taken bool // its record came; kept to know the next one
}

func newWindow(r io.Reader) *window {
	w := &window{held: map[string]*held{}}
	w.next, w.stop = iter.Pull2(Read(r))
	return w
}

func (w *window) close() { w.stop() }

// take gives the lines of the record's decision, none if there are none near it.
// counted reports that an earlier record of the same decision had them.
func (w *window) take(rec *audit.Record) (lines []Line, counted bool) {
	written := rec.Time.Add(time.Duration(rec.LatencyUS) * time.Microsecond)
	w.forget(written.Add(-behindOf))
	h := w.held[rec.ID]
	if h != nil && h.taken {
		return nil, true
	}
	w.readUpTo(written.Add(aheadOf))
	if h = w.held[rec.ID]; h == nil { // so that its next record does not count it again
		h = w.add(rec.ID, written)
	}
	lines = h.lines
	w.bytes -= h.bytes - heldCost
	h.lines, h.bytes, h.taken = nil, heldCost, true
	return lines, false
}

// readUpTo takes in the lines up to the first that is of after an instant.
func (w *window) readUpTo(until time.Time) {
	for {
		if w.ahead == nil {
			line, err, ok := w.next()
			if !ok {
				return
			}
			if err != nil {
				w.bad.bad(err)
				continue
			}
			w.ahead = &line
		}
		if w.ahead.Time.After(until) {
			return
		}
		w.hold(*w.ahead)
		w.ahead = nil
	}
}

// hold keeps a line with those of its decision.
func (w *window) hold(line Line) {
	h := w.held[line.ID]
	if h == nil {
		h = w.add(line.ID, line.Time)
	}
	h.lines = append(h.lines, line) // after its record, they are nobody's
	h.bytes += line.size
	for w.bytes += line.size; w.bytes > maxHeld; {
		w.drop()
	}
}

func (w *window) add(id string, at time.Time) *held {
	h := &held{id: id, at: at, bytes: heldCost}
	w.held[id], w.order = h, append(w.order, h)
	w.bytes += heldCost
	return h
}

// forget drops what came before an instant.
func (w *window) forget(before time.Time) {
	for len(w.order) > 0 && w.order[0].at.Before(before) {
		w.drop()
	}
}

// drop gives up the oldest.
func (w *window) drop() {
	h := w.order[0]
	w.order[0] = nil
	w.order = w.order[1:]
	delete(w.held, h.id)
	w.bytes -= h.bytes
	h.lines, h.bytes = nil, 0
	if !h.taken {
		w.unrecorded++
	}
}

// drain reads what is left, so that it is counted.
func (w *window) drain() {
	w.readUpTo(endOfTime)
	w.forget(endOfTime)
}

var endOfTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
