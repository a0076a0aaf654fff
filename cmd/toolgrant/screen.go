package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

// clock is how dev's lines begin.
const clock = "15:04:05.000"

// screen is what dev shows while it runs: a line for each decision on out, and
// what is logged on errs, in one form.
//
// A warning about decisions is logged when these are on record, and the record
// is looked at from time to time alone: while decisions are followed, logged
// lines wait for what they tell of.
type screen struct {
	out, errs io.Writer

	mu        sync.Mutex
	following bool
	waiting   []string // of the log
}

// follow shows decisions until ctx ends, and meanwhile also changes of state
// (INFO): by then everything is up, and each is news.
func (s *screen) follow(ctx context.Context, d *decisions) error {
	s.mu.Lock()
	s.following = true
	s.mu.Unlock()
	defer s.release()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.show(d); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// show writes what is new. The log's lines are taken first: what they tell of
// was on record before them.
func (s *screen) show(d *decisions) error {
	s.mu.Lock()
	lines := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	records, err := d.next()
	if err != nil {
		return err
	}
	for _, r := range records {
		if _, err := fmt.Fprintln(s.out, decisionLine(r)); err != nil {
			return err
		}
	}
	for _, line := range lines {
		fmt.Fprintln(s.errs, line)
	}
	return nil
}

func (s *screen) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.waiting {
		fmt.Fprintln(s.errs, line)
	}
	s.following, s.waiting = false, nil
}

// Enabled implements zapcore.LevelEnabler.
func (s *screen) Enabled(level zapcore.Level) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return level >= zapcore.WarnLevel || s.following && level >= zapcore.InfoLevel
}

// logged writes a line of the log, now or when it is its turn.
func (s *screen) logged(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.following {
		s.waiting = append(s.waiting, line)
		return
	}
	fmt.Fprintln(s.errs, line)
}

// screenLog is a screen as a log's zapcore.Core.
type screenLog struct {
	*screen
	fields []zapcore.Field // of the logger
}

func (l screenLog) With(fields []zapcore.Field) zapcore.Core {
	l.fields = append(l.fields[:len(l.fields):len(l.fields)], fields...)
	return l
}

func (l screenLog) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return to.AddCore(e, l)
	}
	return to
}

func (l screenLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	words := []string{e.Time.Local().Format(clock), fmt.Sprintf("%-5s", e.Level.CapitalString()), e.Message}
	for _, f := range append(l.fields[:len(l.fields):len(l.fields)], fields...) {
		one := zapcore.NewMapObjectEncoder()
		f.AddTo(one)
		for _, name := range sortedKeys(one.Fields) { // an error may have two
			if value := fmt.Sprint(one.Fields[name]); value != "" {
				words = append(words, name+"="+value)
			}
		}
	}
	l.logged(printableLines([]byte(strings.Join(words, "  "))))
	return nil
}

func (l screenLog) Sync() error { return nil }
