package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// What is logged about a decision comes behind it, in the same form, however
// late the record is looked at.
func TestScreenOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := audit.Open(audit.Config{File: path, Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	d, err := newDecisions(path)
	if err != nil {
		t.Fatal(err)
	}
	out := &syncBuffer{} // a terminal has both
	s := &screen{out: out, errs: out}
	log := zap.New(screenLog{screen: s}).With(zap.String("of", "dev"))
	decide := func(id string) {
		if err := trail.Append(audit.Record{ID: id, Kind: "call", Agent: "corp/bot", Outcome: audit.Deny, Reason: grants.Policy}); err != nil {
			t.Error(err)
		}
		log.Warn("look at it", zap.String("agent", ""), zap.Strings("decisions", []string{id}), zap.Duration("window", time.Minute))
	}
	// While one decision is shown, the next is made: it is told of, and not read yet.
	once := false
	s.out = writerFunc(func(line []byte) (int, error) {
		if !once {
			once = true
			decide("d_2")
		}
		return out.Write(line)
	})
	log.Info("not news before all is up")
	log.Warn("at once")

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.follow(ctx, d) }()
	eventually(t, "it follows", func() bool { return s.Enabled(zap.InfoLevel) })
	decide("d_1")
	eventually(t, "the second is shown", func() bool { return strings.Contains(out.String(), "decisions=[d_2]") })
	decide("d_3")
	log.Info("reloaded", zap.Error(errors.New("one\ntwo\x1b[2J")))
	eventually(t, "all is shown", func() bool { return strings.Contains(out.String(), "reloaded") })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	log.Warn("at once again")
	log.Info("not news any more")

	text := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}  `).ReplaceAllString(out.String(), "")
	for _, id := range []string{"d_1", "d_2", "d_3"} {
		decided := strings.Index(text, "call        deny   corp/bot  policy  "+id+"\n")
		told := strings.Index(text, "WARN   look at it  of=dev  decisions=["+id+"]  window=1m0s\n")
		if decided < 0 || told < decided {
			t.Errorf("%s: decided at %d, told of at %d:\n%s", id, decided, told, text)
		}
	}
	if !strings.HasPrefix(text, "WARN   at once  of=dev\n") || !strings.HasSuffix(text, "\ntwo?[2J\nWARN   at once again  of=dev\n") || strings.Contains(text, "not news") {
		t.Error(text)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What waited when the end came is not lost.
func TestScreenEnds(t *testing.T) {
	var out, errs syncBuffer
	s := &screen{out: &out, errs: &errs, following: true}
	zap.New(screenLog{screen: s}).Warn("late")
	if errs.String() != "" {
		t.Fatalf("before its turn: %q", errs.String())
	}
	s.release()
	if !strings.HasSuffix(errs.String(), "WARN   late\n") || out.String() != "" || s.Enabled(zap.InfoLevel) {
		t.Errorf("%q, %q", errs.String(), out.String())
	}
}
