package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

// ShadowConfig says who is asked beside the live Decider, and where the
// differences go.
type ShadowConfig struct {
	// File is the path of the differences: mode 0600, one writer, at most MaxBytes
	// long (0: 1 GiB), but for a line of counts a minute.
	File     string
	MaxBytes int64
	// Decide is the candidate.
	Decide grants.Decider
	// Queue is how many batches may wait for it; 0: 1024. What comes on top is
	// dropped, and counted; so is what would make those that wait take more than
	// some 64 MiB.
	Queue int
	// Logger hears when lines are lost, and when the candidate fails, each once in
	// 10 seconds; nil: nobody does.
	Logger *zap.Logger
}

const (
	defaultQueue = 1024
	maxWaiting   = 64 << 20 // bytes, by the estimate of weigh
	countEvery   = time.Minute
	countSpare   = 1 << 20 // of the file, for lines of counts
)

// Shadow asks a candidate what the doors ask, in the background. It only records.
// It is safe for concurrent use.
type Shadow struct {
	decide grants.Decider
	logger *zap.Logger
	file   *file
	jobs   chan job

	waiting atomic.Int64 // bytes of jobs
	dropped atomic.Int64
	ended   atomic.Bool

	// Of Run alone.
	counts shadowCounts // since the last line of counts
	told   time.Time    // when a failure was logged
}

// job is one batch of questions, with the live answers.
type job struct {
	id     string
	at     time.Time
	in     []grants.Input
	out    []grants.Decision
	weight int64
}

// NewShadow opens or creates the file. It fails as Open does. Run is to be called
// next, and Close in the end.
func NewShadow(c ShadowConfig) (*Shadow, error) {
	if c.Decide == nil || c.Queue < 0 {
		return nil, fmt.Errorf("a shadow needs a candidate that decides, and a queue of %d is none", c.Queue)
	}
	if c.Queue == 0 {
		c.Queue = defaultQueue
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	f, err := openFile(c.File, c.MaxBytes, c.Logger)
	if err != nil {
		return nil, fmt.Errorf("opening the file of differences %q: %w", c.File, err)
	}
	return &Shadow{decide: c.Decide, logger: c.Logger, file: f, jobs: make(chan job, c.Queue)}, nil
}

// Asked queues one batch of questions. It is for the doors' field of that name: it
// never waits. It keeps what the inputs point to, which nobody changes.
func (s *Shadow) Asked(decision string, in []grants.Input, out []grants.Decision) {
	if s.ended.Load() {
		return
	}
	weight := weigh(in)
	if s.waiting.Add(weight) > maxWaiting {
		s.drop(weight)
		return
	}
	select {
	case s.jobs <- job{decision, time.Now().UTC(), slices.Clone(in), slices.Clone(out), weight}:
	default:
		s.drop(weight)
	}
}

func (s *Shadow) drop(weight int64) {
	s.waiting.Add(-weight)
	s.dropped.Add(1)
}

// weigh estimates the bytes that a batch keeps from being freed: above all, the
// arguments, which a caller chooses.
func weigh(in []grants.Input) int64 {
	n := int64(0)
	for i := range in {
		n += 1024 + weighValue(in[i].Args)
		if in[i].Retry != nil {
			n += int64(len(in[i].Retry.Responses))
		}
	}
	return n
}

func weighValue(v any) int64 {
	n := int64(32)
	switch v := v.(type) {
	case string:
		n += int64(len(v))
	case []any:
		for _, e := range v {
			n += weighValue(e)
		}
	case map[string]any:
		for name, e := range v {
			n += int64(len(name)) + weighValue(e)
		}
	}
	return n
}

// Run asks the candidate, until ctx ends, and then gives nil: it writes a line for
// each answer that differs and, once a minute and at the end, one of counts. What
// still waits at the end counts as dropped; what is asked later does not count.
func (s *Shadow) Run(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.end()
			return nil
		case <-tick.C:
			s.count()
		case j := <-s.jobs:
			s.waiting.Add(-j.weight)
			if !s.again(ctx, &j) {
				s.dropped.Add(1) // ctx has ended
			}
		}
	}
}

func (s *Shadow) end() {
	s.ended.Store(true)
	for len(s.jobs) > 0 {
		s.drop((<-s.jobs).weight)
	}
	s.count()
}

// again asks the candidate one batch; false: ctx ended before it could answer.
func (s *Shadow) again(ctx context.Context, j *job) bool {
	if len(j.in) != len(j.out) {
		s.counts.Failed++
		s.fail(fmt.Errorf("%d questions and %d answers", len(j.in), len(j.out)))
		return true
	}
	qs := make([]Question, len(j.in))
	for i := range j.in {
		qs[i] = Question{Input: j.in[i], Decision: j.out[i]}
	}
	cases, _ := lineCases(qs) // a half is followed by the batch that counted
	if len(cases) == 0 {
		return true
	}
	different, failed := false, false
	for _, one := range cases {
		now, why, err := one.again(ctx, s.decide, nil)
		if ctx.Err() != nil {
			return false
		}
		if err == nil && why != "" {
			err = errors.New(string(why))
		}
		switch {
		case err != nil:
			failed = true
			s.fail(err)
		case one.was.Refusal() != now.Refusal():
			different = true
			if !s.line(differenceOf(j, &one, now), 0) {
				s.counts.Unwritten++
			}
		}
	}
	switch {
	case different:
		s.counts.Different++
	case failed:
		s.counts.Failed++
	default:
		s.counts.Same++
	}
	return true
}

func (s *Shadow) fail(err error) {
	if now := time.Now(); s.told.IsZero() || now.Sub(s.told) >= tellEvery {
		s.told = now
		s.logger.Warn("the candidate policies could not decide", zap.Error(err))
	}
}

// count writes what was counted since the last time; if it cannot, it goes on
// counting.
func (s *Shadow) count() {
	counts := s.counts
	counts.Dropped = s.dropped.Load()
	if counts == (shadowCounts{}) {
		return
	}
	if s.line(wireShadow{V: version, Time: time.Now().UTC(), Counts: &counts}, countSpare) {
		s.counts = shadowCounts{}
		s.dropped.Add(-counts.Dropped)
	}
}

func (s *Shadow) line(w wireShadow, spare int64) bool {
	var b bytes.Buffer
	if err := encodeLine(&b, w); err != nil {
		s.file.lose(err)
		return false
	}
	return s.file.append(b.Bytes(), spare)
}

// Lost is how many lines were not written since NewShadow.
func (s *Shadow) Lost() uint64 { return s.file.lost.Load() }

// Close gives up the file. It is for after Run.
func (s *Shadow) Close() error { return s.file.close() }
