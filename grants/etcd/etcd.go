// Package etcd is a grants.Store on etcd. It is a TRIAL of the types, not for
// production: it shows that grants.Store can be kept by a store that many
// nodes share, in single transactions. It leaves out what production needs:
// values are not signed, so whoever can write to etcd can make grants; the
// connection is whatever the client was given, with or without mTLS; nothing
// is ever deleted; the present state is read in one answer; and the tool
// filter of a Watch is applied here, after all has come over the network.
//
// Keys, behind the prefix, and their JSON values:
//
//	epoch                   the Epoch of every Rev; to be raised by whoever restores a copy
//	tasks/TASK              a task, written once
//	grants/SERVER/TOOL/ID   a grant, written once
//	ids/ID                  the grant's tool, because an id is unique over all tools
//	fences/SCOPE/KEY        the newest fence; put, never deleted
//	budgets/KEY             a budget and what is left of it
//	beat                    rewritten by each Watch, for its heartbeats
//
// A Rev's N is etcd's revision: the ModRevision of what was written. It also
// counts writes that are none of the Store's.
//
// A call reads what the rules ask for, and then commits a transaction that
// compares the revision of all that it read. A lost race starts anew until ctx
// ends. A refusal commits such a transaction too, without a write: otherwise
// it could rest on two facts that never held together.
package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/toolgrant/toolgrant/grants"
)

// Store is a grants.Store on etcd; see the package comment for its limits.
type Store struct {
	client  *clientv3.Client
	prefix  string
	epoch   uint64
	drawing chan struct{} // holds a token while a Draw runs: the draws of one node would only make each other lose
}

var _ grants.Store = (*Store)(nil)

// New returns a Store whose keys begin with the prefix, to which it adds a
// slash. The first Store on a prefix makes its epoch: the wall clock's Unix
// time in milliseconds. It waits for etcd without end; the client's dial
// options bound that.
func New(client *clientv3.Client, prefix string) (*Store, error) {
	s := &Store{client: client, prefix: prefix + "/", drawing: make(chan struct{}, 1)}
	key := s.prefix + "epoch"
	resp, err := client.Txn(client.Ctx()).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, strconv.FormatInt(time.Now().UnixMilli(), 10)), clientv3.OpGet(key)).
		Else(clientv3.OpGet(key), clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return nil, fmt.Errorf("reading the epoch: %w", err)
	}
	kvs := resp.Responses[1].GetResponseRange().Kvs
	if len(kvs) != 1 {
		return nil, fmt.Errorf("reading the epoch: %d values", len(kvs))
	}
	if s.epoch, err = strconv.ParseUint(string(kvs[0].Value), 10, 64); err != nil {
		return nil, fmt.Errorf("reading the epoch: %w", err)
	}
	return s, nil
}

// The values. Raw JSON is kept as bytes: encoding/json would rewrite its
// blanks, and digests are made of them.
type (
	taskValue struct {
		grants.Task
		Params []byte `json:"params,omitempty"`
	}
	grantValue struct {
		grants.Grant
		Constraints [][]byte `json:"constraints,omitempty"`
	}
	budgetValue struct {
		grants.Budget
		Left int64 `json:"left"`
	}
)

func readTask(kv *mvccpb.KeyValue, epoch uint64) (*grants.Task, error) {
	var v taskValue
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return nil, fmt.Errorf("reading %s: %w", kv.Key, err)
	}
	v.Task.Params = v.Params
	v.Task.Rev = grants.Rev{Epoch: epoch, N: uint64(kv.ModRevision)}
	return &v.Task, nil
}

func readGrant(kv *mvccpb.KeyValue, epoch uint64) (*grants.Grant, error) {
	var v grantValue
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return nil, fmt.Errorf("reading %s: %w", kv.Key, err)
	}
	for _, c := range v.Constraints {
		v.Grant.Constraints = append(v.Grant.Constraints, c)
	}
	v.Grant.Rev = grants.Rev{Epoch: epoch, N: uint64(kv.ModRevision)}
	return &v.Grant, nil
}

func readFence(kv *mvccpb.KeyValue, epoch uint64) (*grants.Fence, error) {
	var f grants.Fence
	if err := json.Unmarshal(kv.Value, &f); err != nil {
		return nil, fmt.Errorf("reading %s: %w", kv.Key, err)
	}
	f.Rev = grants.Rev{Epoch: epoch, N: uint64(kv.ModRevision)}
	return &f, nil
}

// attempt is one try at a transaction: what it has read, what that must still
// be when it commits, and what it would write. The first error sticks, and
// after it all lookups find nothing.
type attempt struct {
	ctx  context.Context
	s    *Store
	now  uint64 // etcd's revision at the first read
	read map[string]*mvccpb.KeyValue
	cmps []clientv3.Cmp
	puts []clientv3.Op
	err  error
}

// do runs f in attempts until one commits, and returns its revision. What f
// answers must come from the attempt alone.
func (s *Store) do(ctx context.Context, f func(*attempt)) (grants.Rev, error) {
	for {
		a := &attempt{ctx: ctx, s: s, read: map[string]*mvccpb.KeyValue{}}
		a.begin()
		if a.err == nil {
			f(a)
		}
		if a.err != nil {
			return grants.Rev{}, a.err
		}
		resp, err := s.client.Txn(ctx).If(a.cmps...).Then(a.puts...).Commit()
		if err != nil {
			return grants.Rev{}, fmt.Errorf("committing: %w", err)
		}
		if resp.Succeeded {
			return grants.Rev{Epoch: s.epoch, N: uint64(resp.Header.Revision)}, nil
		}
	}
}

// begin sees to it that the history is still the one that the Store began
// with.
func (a *attempt) begin() {
	resp, err := a.s.client.Get(a.ctx, a.s.prefix+"epoch")
	if err != nil {
		a.err = fmt.Errorf("reading the epoch: %w", err)
		return
	}
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != strconv.FormatUint(a.s.epoch, 10) {
		a.err = fmt.Errorf("the epoch is no longer %d: open the store anew", a.s.epoch)
		return
	}
	a.now = uint64(resp.Header.Revision)
	a.cmps = append(a.cmps, clientv3.Compare(clientv3.ModRevision(a.s.prefix+"epoch"), "=", resp.Kvs[0].ModRevision))
}

// get returns the key's value; nil if there is none.
func (a *attempt) get(key string) *mvccpb.KeyValue {
	if kv, ok := a.read[key]; ok || a.err != nil {
		return kv
	}
	resp, err := a.s.client.Get(a.ctx, a.s.prefix+key)
	if err != nil {
		a.err = fmt.Errorf("reading %s: %w", key, err)
		return nil
	}
	var kv *mvccpb.KeyValue
	var rev int64 // etcd's ModRevision of what is not there
	if len(resp.Kvs) == 1 {
		kv, rev = resp.Kvs[0], resp.Kvs[0].ModRevision
	}
	a.read[key] = kv
	a.cmps = append(a.cmps, clientv3.Compare(clientv3.ModRevision(a.s.prefix+key), "=", rev))
	return kv
}

func (a *attempt) put(key string, value any) {
	b, err := json.Marshal(value)
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("writing %s: %w", key, err)
	}
	a.puts = append(a.puts, clientv3.OpPut(a.s.prefix+key, string(b)))
}

// look reads a key with one of the read functions above.
func look[T any](a *attempt, key string, read func(*mvccpb.KeyValue, uint64) (*T, error)) *T {
	kv := a.get(key)
	if kv == nil || a.err != nil {
		return nil
	}
	v, err := read(kv, a.s.epoch)
	if err != nil {
		a.err = err
		return nil
	}
	return v
}

func (a *attempt) view() grants.View {
	return grants.View{
		Task: func(id grants.ID) *grants.Task { return look(a, "tasks/"+id, readTask) },
		Grant: func(id grants.ID) *grants.Grant {
			tool := a.get("ids/" + id)
			if tool == nil {
				return nil
			}
			return look(a, "grants/"+string(tool.Value)+"/"+id, readGrant)
		},
		Fence: func(scope grants.Scope, key string) *grants.Fence {
			return look(a, "fences/"+string(scope)+"/"+key, readFence)
		},
		Budgets: a.budgets,
		Now:     grants.Rev{Epoch: a.s.epoch, N: a.now},
	}
}

// budgets returns the task's budgets. The transaction compares that no other
// was created since; that some are spent meanwhile does not matter.
func (a *attempt) budgets(task grants.ID) []grants.Budget {
	if a.err != nil {
		return nil
	}
	prefix := a.s.prefix + "budgets/task/" + task + "/"
	resp, err := a.s.client.Get(a.ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		a.err = fmt.Errorf("reading budgets: %w", err)
		return nil
	}
	a.cmps = append(a.cmps, clientv3.Compare(clientv3.CreateRevision(prefix), "<", resp.Header.Revision+1).WithPrefix())
	var all []grants.Budget
	for _, kv := range resp.Kvs {
		var v budgetValue
		if err := json.Unmarshal(kv.Value, &v); err != nil {
			a.err = fmt.Errorf("reading %s: %w", kv.Key, err)
			return nil
		}
		all = append(all, v.Budget)
	}
	return all
}

// Start implements grants.Store.
func (s *Store) Start(ctx context.Context, t grants.Task) (grants.Rev, grants.Reason, error) {
	var first grants.Rev
	var why grants.Reason
	rev, err := s.do(ctx, func(a *attempt) {
		if first, why = a.view().CheckStart(t, time.Now()); why == grants.None && first == (grants.Rev{}) {
			a.put("tasks/"+t.ID, taskValue{Task: t, Params: t.Params})
		}
	})
	return settle(rev, first, why, err)
}

// settle picks the answer: an error, a refusal, the first call's Rev, or this
// one's.
func settle(rev, first grants.Rev, why grants.Reason, err error) (grants.Rev, grants.Reason, error) {
	switch {
	case err != nil:
		return grants.Rev{}, grants.None, err
	case why != grants.None || first != grants.Rev{}:
		return first, why, nil
	}
	return rev, grants.None, nil
}

// Issue implements grants.Store.
func (s *Store) Issue(ctx context.Context, batch []grants.Grant) (grants.Rev, grants.Reason, error) {
	own := make([]*grants.Grant, len(batch))
	for i := range batch {
		own[i] = &batch[i]
	}
	var first grants.Rev
	var why grants.Reason
	rev, err := s.do(ctx, func(a *attempt) {
		if first, why = a.view().CheckIssue(own, time.Now()); why != grants.None || first != (grants.Rev{}) {
			return
		}
		opened := map[string]bool{}
		for _, g := range own {
			v := grantValue{Grant: *g}
			for _, c := range g.Constraints {
				v.Constraints = append(v.Constraints, c)
			}
			a.put("grants/"+g.Tool+"/"+g.ID, v)
			a.puts = append(a.puts, clientv3.OpPut(s.prefix+"ids/"+g.ID, g.Tool))
			a.open(g, opened)
		}
	})
	return settle(rev, first, why, err)
}

// open writes the budgets of a grant that are new. opened holds those that the
// attempt has written.
func (a *attempt) open(g *grants.Grant, opened map[string]bool) {
	for _, b := range a.budgets(g.Task) {
		opened[b.Key] = true
	}
	for _, b := range g.Budgets {
		mine := b.Key == grants.TaskBudget(g.Task, g.Tool, b.Arg) || b.Key == grants.GrantBudget(g.ID, b.Arg)
		if mine && !opened[b.Key] { // else a parent's
			opened[b.Key] = true
			a.put("budgets/"+b.Key, budgetValue{Budget: b, Left: b.Limit})
		}
	}
}

// Fence implements grants.Store. An unknown scope or an empty key is an error.
func (s *Store) Fence(ctx context.Context, f grants.Fence) (grants.Rev, error) {
	switch f.Scope {
	case grants.ScopeGrant, grants.ScopeTask, grants.ScopeAgent, grants.ScopeTool:
	default:
		return grants.Rev{}, fmt.Errorf("fence on scope %q: unknown", f.Scope)
	}
	if f.Key == "" {
		return grants.Rev{}, fmt.Errorf("fence on scope %q: no key", f.Scope)
	}
	var first grants.Rev
	rev, err := s.do(ctx, func(a *attempt) {
		var next grants.Fence
		if next, first = a.view().NextFence(f); first == (grants.Rev{}) {
			a.put("fences/"+string(f.Scope)+"/"+f.Key, next)
		}
	})
	rev, _, err = settle(rev, first, grants.None, err)
	return rev, err
}

// Draw implements grants.Store.
func (s *Store) Draw(ctx context.Context, budget string, want int64) (int64, error) {
	select {
	case s.drawing <- struct{}{}:
		defer func() { <-s.drawing }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	var got int64
	_, err := s.do(ctx, func(a *attempt) {
		got = 0
		kv := a.get("budgets/" + budget)
		if kv == nil || a.err != nil {
			return
		}
		var v budgetValue
		if err := json.Unmarshal(kv.Value, &v); err != nil {
			a.err = fmt.Errorf("reading %s: %w", kv.Key, err)
			return
		}
		if got = max(0, min(want, v.Left)); got > 0 {
			v.Left -= got
			a.put("budgets/"+budget, v)
		}
	})
	if err != nil {
		return 0, err // what was taken, if it was, counts as spent
	}
	return got, nil
}

// cut removes the Store's prefix and one folder from a key.
func (s *Store) cut(kv *mvccpb.KeyValue, folder string) (string, bool) {
	return strings.CutPrefix(string(kv.Key), s.prefix+folder)
}
