package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/toolgrant/toolgrant/audit"
)

// decisions reads what an audit log gets from now on.
type decisions struct {
	file string
	at   int64  // how far it is read
	part []byte // of a line whose end is not there yet
}

func newDecisions(file string) (*decisions, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &decisions{file: file}, nil
	case err != nil:
		return nil, err
	}
	return &decisions{file: file, at: info.Size()}, nil
}

// next reads what has been written since the last time.
func (d *decisions) next() ([]audit.Record, error) {
	f, err := os.Open(d.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, d.at, 1<<20))
	if err != nil {
		return nil, err
	}
	d.at += int64(len(text))
	lines := bytes.Split(append(d.part, text...), []byte("\n"))
	d.part = bytes.Clone(lines[len(lines)-1])
	var records []audit.Record
	for _, line := range lines[:len(lines)-1] {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s: a line that is no record: %w", d.file, err)
		}
		records = append(records, r)
	}
	return records, nil
}

// decisionLine says in one line what was decided, and why not; its id is what
// "toolgrant explain" takes.
func decisionLine(r audit.Record) string {
	what := []string{r.Time.Local().Format(clock), fmt.Sprintf("%-10s", r.Kind), fmt.Sprintf("%-5s", r.Outcome)}
	add := func(name, value string) {
		if value != "" {
			what = append(what, name+value)
		}
	}
	nobody := "(unknown)"
	if r.Outcome == audit.Allow { // such as the end of a task whose beat stopped
		nobody = "(toolgrant)"
	}
	what = append(what, cmp.Or(r.Agent, r.Requester, nobody))
	add("", r.Tool)
	add("", r.Task)
	if r.Outcome == audit.Deny {
		add("", r.Reason.String())
	}
	add("", r.ID)
	if r.Outcome == audit.Deny {
		add("", r.Note)
	}
	if len(r.Policies) > 0 {
		add("by ", strings.Join(r.Policies, ", "))
	}
	return printable(strings.Join(what, "  "))
}
