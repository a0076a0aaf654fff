package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/pdp"
)

// engine is what decides at both doors: our policies, or another engine's. It is
// safe for concurrent use.
type engine interface {
	Decide(context.Context, []grants.Input) ([]grants.Decision, error)
	Manifests() *manifest.Set        // in force; they bound what is asked
	Reload() (changed bool, _ error) // read the files again
	Run(context.Context)             // follow what can change, until the context ends
	Status() engineStatus
}

// engineStatus is what an engine decides by, and how that stands to its files.
type engineStatus struct {
	Revision grants.Digest
	Loaded   time.Time
	Failed   error // why what is there now is not in force; nil: it is
	FailedAt time.Time
	Down     error // why nothing can be decided now; nil: it can, as far as is known
}

// ours is our policies as an engine.
type ours struct{ *cedar.Live }

func (o ours) Manifests() *manifest.Set { return o.Current().Manifests() }

func (o ours) Status() engineStatus {
	s := o.Live.Status()
	return engineStatus{Revision: s.Revision, Loaded: s.Loaded, Failed: s.Failed, FailedAt: s.FailedAt}
}

// theirs is another engine, with manifests of ours.
type theirs struct {
	*pdp.PDP
	dir       string // "": none
	catalog   *catalog.Catalog
	log       *zap.Logger
	changed   func() // the manifests, or the engine's revision
	manifests atomic.Pointer[manifest.Set]
	state     atomic.Pointer[engineStatus] // of the manifests
}

// manifestsEvery is how often the folder is looked at.
const manifestsEvery = time.Second

// openTheirs reads the manifests, and reaches nobody yet.
func openTheirs(cfg *Config, c *catalog.Catalog, log *zap.Logger, changed func()) (*theirs, error) {
	t := &theirs{dir: cfg.Manifests, catalog: c, log: log, changed: changed}
	if err := t.read(); err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	var err error
	t.PDP, err = pdp.New(pdp.Config{
		Engine: cfg.PDP.Engine, URL: cfg.PDP.URL, CAFile: cfg.PDP.CA, TokenFile: cfg.PDP.BearerFile,
		Timeout: time.Duration(cfg.PDP.Timeout), Cache: time.Duration(cfg.PDP.Cache), Catalog: c, Manifests: t.Manifests, Logger: log,
		OnRevision: func(_, _ grants.Digest) { changed() },
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (t *theirs) read() error {
	if t.dir == "" {
		t.state.CompareAndSwap(nil, &engineStatus{Loaded: time.Now()})
		return nil
	}
	set, err := manifest.Load(t.dir, t.catalog)
	if err != nil {
		return err
	}
	t.manifests.Store(set)
	t.state.Store(&engineStatus{Loaded: time.Now()})
	return nil
}

func (t *theirs) Manifests() *manifest.Set { return t.manifests.Load() }

// Reload reads the manifests again; on an error the last good ones stay.
func (t *theirs) Reload() (bool, error) {
	before := t.Manifests().Digest()
	if err := t.read(); err != nil {
		now := *t.state.Load()
		if now.Failed == nil || now.Failed.Error() != err.Error() {
			t.log.Error("the changed manifests do not load; the last good ones stay in force", zap.Error(err))
			now.Failed, now.FailedAt = err, time.Now()
			t.state.Store(&now)
		}
		return false, err
	}
	if t.Manifests().Digest() == before {
		return false, nil
	}
	t.log.Info("manifests were reloaded", zap.Stringer("digest", t.Manifests().Digest()))
	t.changed()
	return true, nil
}

func (t *theirs) Run(ctx context.Context) {
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() {
		tick := time.NewTicker(manifestsEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = t.Reload() // which logs
			}
		}
	})
	_ = t.PDP.Run(ctx) // it ends with ctx alone
}

func (t *theirs) Status() engineStatus {
	s := *t.state.Load()
	now := t.PDP.Status()
	s.Revision, s.Down = now.Revision, now.Failed
	return s
}
