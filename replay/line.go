package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// MaxLine is the longest line of the files of this package, in bytes without its
// newline. The questions of a batch that would be longer are lost, and counted.
const MaxLine = 4 << 20

// version is member "v" of each line. Another one means other members.
const version = 1

// ErrTorn is in the error for what follows the last newline: the line of a crash,
// or one that is being written.
var ErrTorn = errors.New("no newline at its end: it is torn, or being written")

// Line is one batch of questions that a door put to policy, and the answers.
type Line struct {
	Time      time.Time // when it was answered
	ID        string    // of the decision that they were asked for, as in the audit log; several lines may have it
	Questions []Question

	size int // bytes in the file
}

// Question is what policy was asked, and said.
type Question struct {
	// Input is as it was decided on, but for the arguments that are not kept: see
	// the next two. Where there were arguments, and nothing of them is kept, its
	// Args is nil.
	Input grants.Input
	// Opaque and Redacted are the JSON Pointers (RFC 6901) of arguments that were
	// there and are not kept: because policy does not see them, and because the
	// catalogue redacts them ("" for all of them: a tool that it does not have).
	Opaque   []string
	Redacted []string
	Decision grants.Decision // its Advice is not kept
}

// wireLine is a Line as the file has it.
type wireLine struct {
	V         int            `json:"v"`
	Time      time.Time      `json:"time"`
	ID        string         `json:"id"`
	Questions []wireQuestion `json:"questions"`
}

type wireQuestion struct {
	Action    string           `json:"action"`
	Requester grants.Principal `json:"requester"`
	Principal grants.Principal `json:"principal"`
	Tool      string           `json:"tool,omitempty"`
	Server    string           `json:"server,omitempty"`
	Revision  string           `json:"revision,omitempty"` // of MCP
	Retry     *wireRetry       `json:"retry,omitempty"`
	Task      *grants.Task     `json:"task,omitempty"`
	Grant     *grants.Grant    `json:"grant,omitempty"`
	At        time.Time        `json:"at"`
	Args      json.RawMessage  `json:"args,omitempty"`
	Opaque    []string         `json:"opaque,omitempty"`
	Redacted  []string         `json:"redacted,omitempty"`
	Decision  wireDecision     `json:"decision"`
}

type wireRetry struct {
	Responses string `json:"responses"`
	State     bool   `json:"state"`
}

type wireDecision struct {
	Allow    bool          `json:"allow"`
	Reason   grants.Reason `json:"reason"`
	Policies []string      `json:"policies"`
	Revision grants.Digest `json:"revision"`
}

func wireOf(d grants.Decision) wireDecision {
	return wireDecision{Allow: d.Allow, Reason: d.Reason, Policies: d.Policies, Revision: d.Revision}
}

func (d wireDecision) decision() grants.Decision {
	return grants.Decision{Allow: d.Allow, Reason: d.Reason, Policies: d.Policies, Revision: d.Revision}
}

// newQuestion is the wire form of an Input with the arguments that are kept.
func newQuestion(in *grants.Input, args any, out grants.Decision) (wireQuestion, error) {
	q := wireQuestion{
		Action: in.Action, Requester: in.Requester, Principal: in.Principal, Tool: in.Tool, Server: in.Server,
		Revision: in.Revision, Task: in.Task, Grant: in.Grant, At: in.At, Decision: wireOf(out),
	}
	if in.Retry != nil {
		q.Retry = &wireRetry{in.Retry.Responses, in.Retry.State}
	}
	if args == nil {
		return q, nil
	}
	var err error
	q.Args, err = json.Marshal(args)
	return q, err
}

// Arguments were within what the doors read; escapes make them longer.
var argLimits = strictjson.Limits{Bytes: MaxLine, Depth: 1024, Values: MaxLine}

func (q *wireQuestion) question() (Question, error) {
	out := Question{
		Input: grants.Input{
			Action: q.Action, Requester: q.Requester, Principal: q.Principal, Tool: q.Tool, Server: q.Server,
			Revision: q.Revision, Task: q.Task, Grant: q.Grant, At: q.At,
		},
		Opaque: q.Opaque, Redacted: q.Redacted, Decision: q.Decision.decision(),
	}
	if q.Action == "" || q.At.IsZero() {
		return out, errors.New("a question without an action, or a time")
	}
	if q.Decision.Allow && q.Decision.Reason != grants.None {
		return out, fmt.Errorf("allowed, with the reason %s", q.Decision.Reason)
	}
	if q.Retry != nil {
		out.Input.Retry = &grants.Retry{Responses: q.Retry.Responses, State: q.Retry.State}
	}
	if q.Args == nil {
		return out, nil
	}
	var err error
	out.Input.Args, err = strictjson.Parse(q.Args, argLimits)
	return out, err
}

// Read gives the lines of a file of inputs, in order and one at a time. A line
// that is none is given as an error that names it, with no Line, and reading goes
// on behind it; the error of what follows the last newline is ErrTorn. A line is a
// whole batch; whether lines are missing only the audit log can tell.
func Read(r io.Reader) iter.Seq2[Line, error] { return lines(r, parseLine) }

func parseLine(text []byte) (Line, error) {
	var w wireLine
	if err := unmarshal(text, &w); err != nil {
		return Line{}, err
	}
	if w.V != version {
		return Line{}, fmt.Errorf("version %d, and this program reads %d", w.V, version)
	}
	if w.ID == "" || w.Time.IsZero() || len(w.Questions) == 0 {
		return Line{}, errors.New("no decision id, no time or no question")
	}
	out := Line{Time: w.Time, ID: w.ID, Questions: make([]Question, len(w.Questions)), size: len(text)}
	for i := range w.Questions {
		var err error
		if out.Questions[i], err = w.Questions[i].question(); err != nil {
			return Line{}, fmt.Errorf("question %d: %w", i, err)
		}
	}
	return out, nil
}

// unmarshal is strict in names and in what is there twice. It is not
// strictjson's, for the tags of an identity may differ in case alone.
func unmarshal(text []byte, into any) error {
	err := jsonv2.Unmarshal(text, into, jsonv2.RejectUnknownMembers(true), jsonv1.FormatDurationAsNano(true))
	var sem *jsonv2.SemanticError
	if errors.As(err, &sem) { // whose text may quote a value
		return fmt.Errorf("not a line of this file: %q at byte %d", sem.JSONPointer, sem.ByteOffset)
	}
	if err != nil {
		return errors.New("not a line of this file: not one JSON text")
	}
	return nil
}

// lines gives what parse makes of each line. It ends behind a torn line or the
// reader's error.
func lines[T any](r io.Reader, parse func([]byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		var buf []byte
		for n := 1; ; n++ {
			text, err := nextLine(in, &buf)
			if err == io.EOF {
				return
			}
			var none, v T
			last := err != nil && !errors.Is(err, errTooLong)
			if err == nil {
				v, err = parse(text)
			}
			if err != nil {
				v, err = none, fmt.Errorf("line %d: %w", n, err)
			}
			if !yield(v, err) || last {
				return
			}
		}
	}
}

var errTooLong = fmt.Errorf("longer than %d bytes", MaxLine)

// nextLine gives the next line without its newline, good until the next call. Of
// errTooLong and ErrTorn nothing is given; io.EOF is the end.
func nextLine(in *bufio.Reader, buf *[]byte) ([]byte, error) {
	*buf = (*buf)[:0]
	long := false
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(*buf)+len(part) > MaxLine+1; !long {
			*buf = append(*buf, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(*buf) == 0 && !long:
			return nil, io.EOF
		case err == io.EOF:
			return nil, ErrTorn
		case err != nil:
			return nil, fmt.Errorf("reading: %w", err)
		case long:
			return nil, errTooLong
		default:
			return bytes.TrimSuffix(*buf, []byte{'\n'}), nil
		}
	}
}
