package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// noPrev is the prev of the first line.
const noPrev = "0000000000000000000000000000000000000000000000000000000000000000"

const (
	sumStart = `,"sum":"`
	sumEnd   = `"}`
	sumLen   = len(sumStart) + 2*sha256.Size + len(sumEnd)
)

// Summary is what a chain of good lines comes to.
type Summary struct {
	Lines       uint64    // also the seq of the last
	Decisions   uint64    // that the lines stand for; folded ones counted, the log's words about itself not
	First, Last time.Time // of the first and the last record
	LastHash    string    // SHA-256 of the last line, hex: the prev of the next; 64 zeros for an empty log
}

// Verify reads a log from its first line and gives an error that names the
// first line that is not what a Log wrote there, and why; the Summary is then
// of the lines before it.
//
// A changed, missing, doubled or moved line is found, unless all that follows
// was written anew. That, and lines that are missing at the end, show only
// against an earlier Summary that was kept out of the writer's reach: Lines
// must not have become fewer, and the line of that number must still have that
// LastHash.
func Verify(r io.Reader) (Summary, error) {
	return Summary{LastHash: noPrev}.verify(r)
}

// verify goes on from s.
func (s Summary) verify(r io.Reader) (Summary, error) {
	in := bufio.NewReaderSize(r, MaxLine+1)
	for {
		line, err := nextLine(in)
		if err == io.EOF {
			return s, nil
		}
		if err == nil {
			err = s.next(line)
		}
		if err != nil {
			return s, fmt.Errorf("line %d: %w", s.Lines+1, err)
		}
	}
}

var (
	errTooLong = fmt.Errorf("longer than %d bytes", MaxLine)
	errTorn    = errors.New("no newline at its end: it is torn, or the log is cut")
)

// nextLine gives the next line without its newline, good until the next call;
// in holds MaxLine+1 bytes. errTooLong comes without the line, and all of it has
// been read. errTorn is the end, as io.EOF is. Any other error is the reader's.
func nextLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	long := false
	for err == bufio.ErrBufferFull {
		long = true
		_, err = in.ReadSlice('\n')
	}
	switch {
	case err != nil && err != io.EOF:
		return nil, fmt.Errorf("reading: %w", err)
	case long:
		return nil, errTooLong
	case len(line) > 0:
		return nil, errTorn
	}
	return nil, io.EOF
}

// next takes the line that follows in the chain.
func (s *Summary) next(line []byte) error {
	r, hash, err := parseLine(line)
	switch {
	case err != nil:
		return err
	case r.Seq != s.Lines+1:
		return fmt.Errorf("seq is %d where %d belongs: lines are missing, doubled or moved", r.Seq, s.Lines+1)
	case r.Prev != s.LastHash:
		return errors.New("prev is not the hash of the line before: one of them was replaced")
	}
	if s.Lines == 0 {
		s.First = r.Time
	}
	s.Lines, s.Last, s.LastHash = r.Seq, r.Time, hash
	if r.Outcome != "" {
		s.Decisions += uint64(r.Count)
	}
	return nil
}

// parseLine reads one line without its newline and checks all that the line
// can tell by itself; hash is what the next line carries as prev.
func parseLine(line []byte) (r Record, hash string, err error) {
	if len(line) > MaxLine {
		return r, "", errTooLong
	}
	body, sum, ok := cutSum(line)
	if !ok {
		return r, "", errors.New("not a record: no sum at its end")
	}
	if hexSum(body) != sum {
		return r, "", errors.New("its bytes do not give its sum: it was changed")
	}
	if err := json.Unmarshal(line, &r, json.RejectUnknownMembers(true)); err != nil {
		return r, "", fmt.Errorf("not a record: %w", err)
	}
	if !bytes.HasPrefix(line, appendHead(nil, r.Seq, r.Prev)) {
		return r, "", errors.New("not a record: it does not begin with seq and prev")
	}
	if r.Count < 1 {
		return r, "", fmt.Errorf("not a record: it stands for %d decisions", r.Count)
	}
	return r, hexSum(line), nil
}

func cutSum(line []byte) (body []byte, sum string, ok bool) {
	n := len(line) - sumLen
	if n < 0 {
		return nil, "", false
	}
	rest, ok1 := bytes.CutPrefix(line[n:], []byte(sumStart))
	rest, ok2 := bytes.CutSuffix(rest, []byte(sumEnd))
	return line[:n], string(rest), ok1 && ok2
}

// appendHead appends the start of a line, up to where the body begins.
func appendHead(b []byte, seq uint64, prev string) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), seq, 10)
	return append(append(append(b, `,"prev":"`...), prev...), `",`...)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
