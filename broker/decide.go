package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// decided notes on the request's one record what policy said to a question, and
// what it knew of who asked.
func (r *request) decided(ds []grants.Decision, why grants.Reason, in grants.Input) {
	rec := &r.records[0]
	say(rec, ds, why)
	rec.Note = facts(in)
}

// decidedOnNothing is decided, for a question about what is not there: whatever
// was said of it decided nothing, and an operator is to see that.
func (r *request) decidedOnNothing(ds []grants.Decision) {
	rec := &r.records[0]
	say(rec, ds, grants.None)
	rec.Policies, rec.Note = nil, audit.Facts{Groups: r.who.Principal.Groups}.String()
}

// facts are what a policy may have refused the action for, to who reads the record.
func facts(in grants.Input) string {
	ttl := in.Task.Deadline.Sub(in.At)
	if in.Grant != nil {
		ttl = in.Grant.TTL()
	}
	return audit.Facts{Kind: in.Task.Kind, TTL: secondsUp(ttl), Groups: in.Principal.Groups}.String()
}

// secondsUp is a time as policy sees it: part of a second counts against the
// asker.
func secondsUp(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// say notes in a record the policies that made the decisions, and the revision
// that they share. Those of a refusal are the ones that said no, for the reason
// that the caller is told: what permitted a part of it accuses nobody.
func say(rec *audit.Record, ds []grants.Decision, why grants.Reason) {
	if len(ds) == 0 {
		return
	}
	var ids []string
	for _, d := range ds {
		if d.Refusal() == why {
			ids = append(ids, d.Policies...)
		}
	}
	slices.Sort(ids)
	rec.Policies, rec.Revision = slices.Compact(ids), ds[0].Revision
}

// ask puts one batch to policy. An error: there was no full answer, and nothing
// of it counts.
func (b *Broker) ask(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
	ds, err := b.cfg.Decide(ctx, in)
	if err == nil && len(ds) != len(in) {
		err = fmt.Errorf("%d decisions for %d questions", len(ds), len(in))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return ds, nil
}

// objection is the first refusal among decisions; None if all of them allow.
func objection(ds []grants.Decision) grants.Reason {
	for _, d := range ds {
		if why := d.Refusal(); why != grants.None {
			return why
		}
	}
	return grants.None
}

// advice is what the policies that refused something tell who asked: that of the
// first of the decisions that has any.
func advice(ds []grants.Decision, why grants.Reason) string {
	if why != grants.Policy {
		return "" // nothing else is a policy's own word
	}
	for _, d := range ds {
		if d.Refusal() == why && d.Advice != "" {
			return d.Advice
		}
	}
	return ""
}

// decide puts one batch to policy, all of which must be allowed. Reasons: that
// of the first refusal; Undecided when there was no full answer.
func (b *Broker) decide(ctx context.Context, r *request, in []grants.Input) ([]grants.Decision, grants.Reason) {
	ds, why := b.answers(ctx, r, in)
	if why != grants.None {
		return nil, why
	}
	return ds, objection(ds)
}

// answers is decide for a batch of which each part counts for itself: None, or
// Undecided.
func (b *Broker) answers(ctx context.Context, r *request, in []grants.Input) ([]grants.Decision, grants.Reason) {
	ds, err := b.ask(ctx, in)
	if err != nil {
		b.cfg.Logger.Error("deciding at the issue door", zap.String("decision", r.id), zap.Error(err))
		return nil, grants.Undecided
	}
	b.told(r.id, in, ds)
	return ds, grants.None
}

// told passes on what was decided, to whom it concerns.
func (b *Broker) told(decision string, in []grants.Input, ds []grants.Decision) {
	if b.cfg.Asked != nil {
		b.cfg.Asked(decision, in, ds)
	}
}
