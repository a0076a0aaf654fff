package broker

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// sweepChunk is how many grants are decided in one batch.
const sweepChunk = 256

// Sweep goes through the live grants that another policy revision than today's
// permitted, decides them anew, and fences those that it would not permit: of
// which policy says no, or cannot be evaluated. It is for after a policy reload,
// and takes nothing from calls: the call door decides such grants anew by
// itself, so that what is not swept yet is denied all the same.
//
// It returns how many grants were decided and how many of them fenced. An error
// (no full answer of the decider, a record or fence that could not be written,
// the end of ctx) ends it; what it had not come to stays as it was. To be called
// again is safe.
func (b *Broker) Sweep(ctx context.Context) (decided, fenced int, err error) {
	revision, err := b.revision(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("sweeping: %w", err)
	}
	var some []grants.Live
	flush := func() error {
		n, err := b.sweep(ctx, some)
		if fenced += n; err != nil {
			return fmt.Errorf("sweeping: %w", err)
		}
		decided += len(some)
		some = some[:0]
		return nil
	}
	for l := range b.cfg.Table.Outdated(revision) {
		if some = append(some, l); len(some) == sweepChunk {
			if err := flush(); err != nil {
				return decided, fenced, err
			}
		}
	}
	if err := flush(); err != nil {
		return decided, fenced, err
	}
	if fenced > 0 {
		b.cfg.Logger.Info("the policy of today does not permit all grants of before", zap.Int("decided", decided), zap.Int("fenced", fenced), zap.Stringer("revision", revision))
	}
	return decided, fenced, nil
}

// revision is that of today's policy: of a decision about nobody.
func (b *Broker) revision(ctx context.Context) (grants.Digest, error) {
	now := b.cfg.Table.Now()
	task := nobodysTask(now)
	ds, err := b.ask(ctx, []grants.Input{{
		Action: grants.ActionEndTask, Requester: task.Owner, Principal: task.Owner, Task: task, At: now,
	}})
	if err != nil {
		return grants.Digest{}, err
	}
	return ds[0].Revision, nil
}

// sweep decides some grants, records which do not hold, and fences those.
func (b *Broker) sweep(ctx context.Context, some []grants.Live) (fenced int, err error) {
	if len(some) == 0 {
		return 0, ctx.Err()
	}
	now := b.cfg.Table.Now()
	var in []grants.Input
	ends := make([]int, len(some)) // of each grant's questions in in
	for i, l := range some {
		in = append(in, l.Grant().Asks(l.Task(), now)...)
		ends[i] = len(in)
	}
	ds, err := b.ask(ctx, in)
	if err != nil {
		return 0, err
	}
	var records []audit.Record
	var fences []grants.Fence
	begin := 0
	for i, l := range some {
		asks, said := in[begin:ends[i]], ds[begin:ends[i]]
		begin = ends[i]
		why := objection(said)
		if why == grants.None {
			continue
		}
		g := l.Grant()
		rec := audit.Record{
			ID: grants.NewID(grants.DecisionPrefix), Time: now, Kind: kindSweep, Count: 1,
			Agent: g.Agent.ID(), Requester: g.Requester.ID(), Client: g.Client, Tool: g.Tool, Task: g.Task, Grant: g.ID,
			Outcome: audit.Deny, Reason: grants.PolicyChanged, Rev: b.cfg.Table.Rev().String(),
		}
		say(&rec, said, why)
		b.told(rec.ID, asks, said)
		records = append(records, rec)
		fences = append(fences, grants.Fence{Scope: grants.ScopeGrant, Key: g.ID, Why: grants.PolicyChanged, Until: g.Expires})
	}
	if len(fences) == 0 {
		return 0, nil
	}
	// Records first: a grant that is fenced is not found again, and what is not
	// fenced is denied by the call door.
	if err := b.cfg.Record(records); err != nil {
		return 0, err
	}
	var last grants.Rev
	for _, f := range fences {
		rev, err := b.cfg.Store.Fence(ctx, f)
		if err != nil {
			return fenced, err
		}
		fenced++
		if rev.Compare(last) > 0 {
			last = rev
		}
	}
	return fenced, b.settle(last)
}
