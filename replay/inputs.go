package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// InputsConfig says where and what to keep.
type InputsConfig struct {
	// File is the path of the file. It is created with mode 0600, and one that
	// others may read or write is refused. To rotate it: stop, move it away, start.
	File string
	// Catalog says which arguments are opaque or redacted. It must be the one that
	// the decisions rest on.
	Catalog *catalog.Catalog
	// MaxBytes is the length that the file does not exceed; 0: 1 GiB. At the first
	// line that would not fit, writing stops until a restart.
	MaxBytes int64
	// Logger hears when lines are lost, once in 10 seconds, and of the bound, once;
	// nil: nobody does.
	Logger *zap.Logger
}

// Inputs keeps the questions that policy was asked, and its answers. It is safe for
// concurrent use.
//
// What is kept is what policy sees and so what deciding again needs: who asked,
// with groups and tags, the task with its parameters, the grant with its
// constraints, what a user answered in a multi-round-trip retry, and the arguments
// but for those that the catalogue calls opaque or redact. Parameters and
// constraints can repeat what is redacted as an argument.
type Inputs struct {
	file    *file
	catalog *catalog.Catalog
	buffers sync.Pool // of *bytes.Buffer
}

// Open opens or creates the file, and goes on at its end. A torn last line stays
// there, as a line that Read says is none. It fails if another process has the
// file open, and if others may read or write it.
func Open(c InputsConfig) (*Inputs, error) {
	if c.Catalog == nil {
		return nil, errors.New("opening the file of inputs: no catalogue says what is to be left out")
	}
	f, err := openFile(c.File, c.MaxBytes, c.Logger)
	if err != nil {
		return nil, fmt.Errorf("opening the file of inputs %q: %w", c.File, err)
	}
	return &Inputs{file: f, catalog: c.Catalog, buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}, nil
}

// Asked keeps one batch of questions, as one line and in one write. It is for the
// doors' field of that name: it never fails a decision, and keeps nothing of what
// it is given. What could not be written is counted.
func (s *Inputs) Asked(decision string, in []grants.Input, out []grants.Decision) {
	b := s.buffers.Get().(*bytes.Buffer)
	b.Reset()
	if err := s.encode(b, decision, in, out); err != nil {
		s.file.lose(err)
	} else {
		s.file.append(b.Bytes(), 0)
	}
	if b.Cap() <= maxPooled { // one large batch is not kept for all small ones
		s.buffers.Put(b)
	}
}

const maxPooled = 64 << 10

func (s *Inputs) encode(b *bytes.Buffer, decision string, in []grants.Input, out []grants.Decision) error {
	if decision == "" || len(in) == 0 || len(in) != len(out) {
		return fmt.Errorf("%d questions and %d answers of decision %q", len(in), len(out), decision)
	}
	line := wireLine{V: version, Time: time.Now().UTC(), ID: decision, Questions: make([]wireQuestion, len(in))}
	for i := range in {
		args, opaque, redacted := withheld(s.catalog, &in[i])
		q, err := newQuestion(&in[i], args, out[i])
		if err != nil {
			return fmt.Errorf("question %d: %w", i, err)
		}
		q.Opaque, q.Redacted = opaque, redacted
		line.Questions[i] = q
	}
	return encodeLine(b, line)
}

// encodeLine appends v with a newline.
func encodeLine(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	if b.Len() > MaxLine+1 {
		return errTooLong
	}
	return nil
}

// Lost is how many lines were not written since Open: each one batch of questions.
func (s *Inputs) Lost() uint64 { return s.file.lost.Load() }

// Close gives up the file. What is asked later is lost.
func (s *Inputs) Close() error { return s.file.close() }
