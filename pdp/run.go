package pdp

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	pollEvery = time.Second      // of an engine that states its revision, or cannot be reached
	pollIdle  = 30 * time.Second // of one that states none: only whether it answers
)

// health is how the engine answered Run last.
type health struct {
	mu     sync.Mutex
	failed error
	since  time.Time
}

// Status is how the engine is.
type Status struct {
	Engine, URL string
	Revision    grants.Digest // of what decisions rest on, as far as it is known
	Stated      string        // what the engine says of its revision; "": nothing, and then nothing is cached
	Seen        time.Time     // when it last answered; zero: not since it failed
	Failed      error         // why it did not answer Run's last question; nil: it did, or was not asked yet
	FailedSince time.Time
}

// Status says how the engine is.
func (p *PDP) Status() Status {
	stated, seen := p.cache.stated()
	s := Status{Engine: p.cfg.Engine, URL: p.cfg.URL, Stated: stated, Seen: seen}
	s.Revision = p.digest(stated, p.cfg.Manifests())
	p.health.mu.Lock()
	defer p.health.mu.Unlock()
	s.Failed, s.FailedSince = p.health.failed, p.health.since
	return s
}

// Run asks the engine for its revision until ctx ends, and then gives nil: each
// second if it states one. The question is about nobody. While it is not
// answered, nothing is taken from the cache.
func (p *PDP) Run(ctx context.Context) error {
	defer p.client.http.CloseIdleConnections()
	last := p.Status().Revision
	for {
		err := p.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		p.report(err)
		if now := p.Status().Revision; err == nil && now != last {
			p.cfg.Logger.Info("decisions rest on another revision", zap.Stringer("revision", now), zap.String("engine", p.cfg.Engine))
			if p.cfg.OnRevision != nil {
				p.cfg.OnRevision(last, now)
			}
			last = now
		}
		p.cache.expire(p.cache.now())
		wait := pollEvery
		if stated, _ := p.cache.stated(); stated == "" && err == nil {
			wait = pollIdle
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// poll puts a question of which only the revision counts: may nobody end a task?
func (p *PDP) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	if err := p.client.readToken(); err != nil {
		p.cfg.Logger.Warn("the bearer token cannot be read; the one before stays", zap.Error(err))
	}
	started := p.cache.now()
	nobody := grants.Principal{Issuer: "-", Subject: "-"}
	in := grants.Input{
		Action: grants.ActionEndTask, Requester: nobody, Principal: nobody, At: started,
		Task: &grants.Task{ID: grants.TaskPrefix, Kind: "-", Owner: nobody, Deadline: started.Add(time.Minute)},
	}
	doc, _ := newDocument(p.cfg.Catalog, &in) // a question for every catalogue
	_, revision, err := p.ask(ctx, []question{{in: &in, doc: doc}})
	if err != nil {
		p.cache.lost()
		return err
	}
	p.cache.saw(started, revision)
	return nil
}

// report tells once that the engine is away, and once that it is back.
func (p *PDP) report(err error) {
	p.health.mu.Lock()
	before := p.health.failed
	p.health.failed = err
	if (before == nil) != (err == nil) {
		p.health.since = time.Time{}
		if err != nil {
			p.health.since = p.cache.now()
		}
	}
	p.health.mu.Unlock()
	switch {
	case err != nil && before == nil:
		p.cfg.Logger.Error("the policy engine does not answer: everything is denied until it does", zap.String("engine", p.cfg.Engine), zap.Error(err))
	case err == nil && before != nil:
		p.cfg.Logger.Info("the policy engine answers again", zap.String("engine", p.cfg.Engine))
	}
}

// sleep reports whether d went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
