package main

import (
	"context"
	"errors"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/replay"
)

// keepQuestions opens what hears of every question to policy: the file of inputs,
// and the shadow.
func (p *parts) keepQuestions(cfg *Config, log *zap.Logger) error {
	var err error
	if cfg.Audit.Inputs != "" {
		if p.inputs, err = replay.Open(replay.InputsConfig{File: cfg.Audit.Inputs, Catalog: p.catalog, Logger: log}); err != nil {
			return err
		}
		log.Warn("what policy is asked is kept, arguments included", zap.String("file", cfg.Audit.Inputs))
	}
	if p.shadow != nil {
		p.beside, err = replay.NewShadow(replay.ShadowConfig{File: cfg.Shadow.File, Decide: p.shadow.Decide, Logger: log})
	}
	return err
}

// asked hears of each answer that either door got; nil: nobody wants to.
func (p *parts) asked() func(string, []grants.Input, []grants.Decision) {
	switch {
	case p.inputs != nil && p.beside != nil:
		return func(id string, in []grants.Input, out []grants.Decision) {
			p.inputs.Asked(id, in, out)
			p.beside.Asked(id, in, out)
		}
	case p.inputs != nil:
		return p.inputs.Asked
	case p.beside != nil:
		return p.beside.Asked
	}
	return nil
}

// runShadow decides by the candidates, and follows their folder.
func (p *parts) runShadow(ctx context.Context) error {
	if p.beside == nil {
		<-ctx.Done()
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { p.shadow.Run(ctx); return nil })
	g.Go(func() error { return p.beside.Run(ctx) })
	return g.Wait()
}

// close closes the files that are written, when nothing runs any more.
func (p *parts) close() error {
	errs := []error{p.trail.Close()}
	if p.inputs != nil {
		errs = append(errs, p.inputs.Close())
	}
	if p.beside != nil {
		errs = append(errs, p.beside.Close())
	}
	return errors.Join(errs...)
}

// names are the ids of our policies, if they decide.
func (p *parts) names() []string {
	if p.policies == nil {
		return nil
	}
	return p.policies.Current().Policies()
}
