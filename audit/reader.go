package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrNotFound: the log holds no record of that decision id.
var ErrNotFound = errors.New("no such decision on record")

// Read gives the records of a log, each as it was written (but for what was cut
// and for times beyond microseconds), in order and one at a time. A line that is
// not a record is given as an error that names it, with no record, and reading
// goes on behind it; so is what follows the last newline, which in a log that is
// being written may be a line of the next moment. Each line is held against its
// own sum. That none is missing or moved is for Verify to say.
func Read(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for n, line := range numbered(r) {
			rec, err := line.parse()
			if err != nil {
				rec, err = Record{}, fmt.Errorf("line %d: %w", n, err)
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

// Find gives all records of one decision, in order, and reads no more than a
// line at a time: most are one, a call whose allow was withdrawn has two, a
// request for several tools one for each. Without any the error is ErrNotFound;
// its text says if the decision may be among those that were folded, since the
// log keeps only the first id of each fold. Another error names the first line
// that may hold the decision and could not be read; what was found is given
// with it.
func Find(r io.Reader, id string) ([]Record, error) {
	if id == "" { // the log's words about itself have none
		return nil, fmt.Errorf("%w: no decision id was given", ErrNotFound)
	}
	// Only lines that can matter are parsed. The needles are as appendBody
	// writes them: a string's quotes are escaped, so neither can stand in one.
	needle := appendMember(nil, "id", id, MaxID)
	one := []byte(`,"count":1,`)
	var (
		found       []Record
		bad         error
		folds, many int64
	)
	for n, line := range numbered(r) {
		mine := line.err != nil || bytes.Contains(line.text, needle)
		if !mine && bytes.Contains(line.text, one) {
			continue
		}
		rec, err := line.parse()
		switch {
		case errors.Is(err, errTorn): // of the next moment; Verify tells it from a cut
		case err != nil && mine:
			bad = cmp.Or(bad, fmt.Errorf("line %d may hold the decision: %w", n, err))
		case err != nil:
		case mine:
			found = append(found, rec)
		case rec.Count > 1:
			folds++
			many += rec.Count
		}
	}
	switch {
	case bad != nil || len(found) > 0:
		return found, bad
	case folds > 0:
		return nil, fmt.Errorf("%w: %s; if its caller had no verified identity, it may be one of %d denials that %d records stand for, which name only the first of them", ErrNotFound, word(id), many, folds)
	}
	return nil, fmt.Errorf("%w: %s; this log folded no denials, so it is of another log or time", ErrNotFound, word(id))
}

// lineOrError is one line as nextLine gives it.
type lineOrError struct {
	text []byte
	err  error
}

func (l lineOrError) parse() (Record, error) {
	if l.err != nil {
		return Record{}, l.err
	}
	rec, _, err := parseLine(l.text)
	return rec, err
}

// numbered gives the lines of a log with their numbers, from 1. It ends behind
// a torn line or the reader's error.
func numbered(r io.Reader) iter.Seq2[uint64, lineOrError] {
	return func(yield func(uint64, lineOrError) bool) {
		in := bufio.NewReaderSize(r, MaxLine+1)
		for n := uint64(1); ; n++ {
			text, err := nextLine(in)
			if err == io.EOF {
				return
			}
			goOn := err == nil || errors.Is(err, errTooLong)
			if !yield(n, lineOrError{text, err}) || !goOn {
				return
			}
		}
	}
}
