package etcd

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	beatEvery = 400 * time.Millisecond
	// A heartbeat says "nothing unseen" as of now. A beat that was asked for
	// longer ago than this is not passed on,
	beatGood = 500 * time.Millisecond
	// and one that was asked for this long ago ends the Watch: who is so far
	// behind is told sooner by reading the present state.
	beatLost = 20 * time.Second
)

// Watch implements grants.Store. Heartbeats come from a key that each Watch
// writes and gets back in its own stream, in order with all else: a member of
// etcd that was cut off from the others cannot make them, which it could with
// etcd's progress notifications.
func (s *Store) Watch(ctx context.Context, from grants.Rev, tools []string) iter.Seq2[grants.Event, error] {
	tools = slices.Clone(tools)
	return func(yield func(grants.Event, error) bool) {
		w := &watch{s: s, tools: tools, yield: yield, begin: time.Now(), id: grants.NewID("w_")}
		err := w.run(ctx, from)
		switch {
		case w.left:
		case ctx.Err() != nil:
			yield(grants.Event{}, ctx.Err())
		default:
			yield(grants.Event{}, err)
		}
	}
}

type watch struct {
	s     *Store
	tools []string
	yield func(grants.Event, error) bool
	left  bool // the consumer has gone
	begin time.Time
	id    string // tells this watch's beats from others'
}

// run returns why the watch has ended, unless the consumer has left.
func (w *watch) run(ctx context.Context, from grants.Rev) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := time.Now()
	n, err := w.first(ctx, from)
	if err != nil || w.left {
		return err
	}
	// The state was complete when it was asked for.
	if from == (grants.Rev{}) && time.Since(asked) < beatGood && !w.send(grants.Event{Rev: w.rev(n)}) {
		return nil
	}
	// Without a leader the member knows of nothing new: end, do not wait.
	ch := w.s.client.Watch(clientv3.WithRequireLeader(ctx), w.s.prefix, clientv3.WithPrefix(), clientv3.WithRev(n+1))
	beaten := make(chan struct{})
	go func() {
		defer close(beaten)
		w.beat(ctx)
	}()
	defer func() { cancel(); <-beaten }()
	for resp := range ch {
		if err := resp.Err(); err != nil { // rpctypes.ErrCompacted among others
			return fmt.Errorf("%w: %w", grants.ErrResync, err)
		}
		for _, ev := range resp.Events {
			if ev.Type != clientv3.EventTypePut {
				continue // clean-up: whatever is deleted was over
			}
			if err := w.put(ev.Kv); err != nil || w.left {
				return err
			}
		}
	}
	return fmt.Errorf("%w: the stream has ended", grants.ErrResync)
}

// first yields the present state, if that was asked for, and returns the
// revision after which to go on.
func (w *watch) first(ctx context.Context, from grants.Rev) (int64, error) {
	if from != (grants.Rev{}) {
		resp, err := w.s.client.Get(ctx, w.s.prefix+"epoch")
		if err != nil {
			return 0, fmt.Errorf("%w: %w", grants.ErrResync, err)
		}
		now := w.rev(resp.Header.Revision)
		if err := w.sameEpoch(resp.Kvs); err != nil {
			return 0, err
		}
		if from.Epoch != now.Epoch || from.N > now.N {
			return 0, grants.ErrResync
		}
		return int64(from.N), nil
	}
	// In order of revision a task comes before its grants.
	resp, err := w.s.client.Get(ctx, w.s.prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", grants.ErrResync, err)
	}
	for _, kv := range resp.Kvs {
		if _, ok := w.s.cut(kv, "beat"); ok {
			continue // of another watch
		}
		if err := w.put(kv); err != nil || w.left {
			return 0, err
		}
	}
	return resp.Header.Revision, nil
}

func (w *watch) sameEpoch(kvs []*mvccpb.KeyValue) error {
	if len(kvs) != 1 || string(kvs[0].Value) != strconv.FormatUint(w.s.epoch, 10) {
		return fmt.Errorf("%w: the epoch is no longer %d", grants.ErrResync, w.s.epoch)
	}
	return nil
}

func (w *watch) rev(n int64) grants.Rev { return grants.Rev{Epoch: w.s.epoch, N: uint64(n)} }

func (w *watch) send(ev grants.Event) bool {
	w.left = !w.yield(ev, nil)
	return !w.left
}

// put yields what was written to a key, if it is for this watch.
func (w *watch) put(kv *mvccpb.KeyValue) error {
	ev := grants.Event{Rev: w.rev(kv.ModRevision)}
	var err error
	if _, ok := w.s.cut(kv, "tasks/"); ok {
		ev.Task, err = readTask(kv, w.s.epoch)
	} else if _, ok := w.s.cut(kv, "fences/"); ok {
		ev.Fence, err = readFence(kv, w.s.epoch)
	} else if path, ok := w.s.cut(kv, "grants/"); ok {
		tool := path[:max(0, strings.LastIndexByte(path, '/'))]
		if w.tools != nil && !slices.Contains(w.tools, tool) {
			return nil
		}
		ev.Grant, err = readGrant(kv, w.s.epoch)
	} else if _, ok := w.s.cut(kv, "epoch"); ok {
		return w.sameEpoch([]*mvccpb.KeyValue{kv})
	} else if _, ok := w.s.cut(kv, "beat"); ok {
		return w.heard(kv)
	} else {
		return nil // ids and budgets
	}
	if err != nil {
		return err
	}
	w.send(ev)
	return nil
}

// beat writes the beat key until ctx ends. A beat that fails is one that is
// not heard.
func (w *watch) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		_, _ = w.s.client.Put(ctx, w.s.prefix+"beat", w.id+"/"+strconv.FormatInt(int64(time.Since(w.begin)), 10))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// heard passes a beat on as a heartbeat if it is this watch's and young.
func (w *watch) heard(kv *mvccpb.KeyValue) error {
	asked, ok := strings.CutPrefix(string(kv.Value), w.id+"/")
	if !ok {
		return nil
	}
	at, err := strconv.ParseInt(asked, 10, 64)
	if err != nil {
		return fmt.Errorf("reading %s: %w", kv.Key, err)
	}
	switch age := time.Since(w.begin) - time.Duration(at); {
	case age > beatLost:
		return fmt.Errorf("%w: %v behind", grants.ErrResync, age)
	case age < beatGood:
		w.send(grants.Event{Rev: w.rev(kv.ModRevision)})
	}
	return nil
}
