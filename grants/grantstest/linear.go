package grantstest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	linearRounds  = 60 // histories
	linearClients = 5
	linearOps     = 6                // of each client
	linearGrants  = 8                // ids that the clients share, so that some calls are retries
	linearParents = linearGrants / 2 // grant i of these is the parent of grant i+linearParents
)

type linearKind int

const (
	startTask linearKind = iota
	issueGrant
	fenceTask
	fenceAgent
	fenceGrant
	linearKinds
)

// linearInput is a call on the one task of a history.
type linearInput struct {
	kind  linearKind
	grant int        // of issueGrant and fenceGrant
	view  grants.Rev // of issueGrant: what the caller had heard of
}

type linearOutput struct {
	rev grants.Rev
	why grants.Reason
	err error
}

// linearState is what the history's task has come to; a zero Rev: not yet.
type linearState struct {
	last, task, ended, agent grants.Rev
	issued, fenced           [linearGrants]grants.Rev
}

// linearModel is the Store with one task, one agent and no concurrency. A write
// must have a later Rev than every one before it.
var linearModel = porcupine.Model{
	Init: func() any { return linearState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(linearState), input.(linearInput), output.(linearOutput)
		refused := func(why grants.Reason) (bool, any) {
			return out.err == nil && out.why == why && out.rev == grants.Rev{}, s
		}
		// written sets a Rev that is not there yet; one that is must be given.
		written := func(at *grants.Rev) (bool, any) {
			if out.err != nil || out.why != grants.None {
				return false, s
			}
			if *at != (grants.Rev{}) {
				return out.rev == *at, s
			}
			if out.rev.Compare(s.last) <= 0 {
				return false, s
			}
			*at, s.last = out.rev, out.rev
			return true, s
		}
		// ended tells a refusal that holds whatever was there before.
		ended := func(reasons ...grants.Reason) bool {
			return s.ended != (grants.Rev{}) && slices.Contains(reasons, out.why)
		}
		switch in.kind {
		case startTask:
			if ended(grants.TaskEnded) {
				return refused(out.why)
			}
			if s.ended != (grants.Rev{}) && s.task == (grants.Rev{}) {
				return refused(grants.TaskEnded)
			}
			return written(&s.task)
		case fenceTask:
			return written(&s.ended)
		case fenceGrant:
			return written(&s.fenced[in.grant])
		case fenceAgent: // each one is new
			s.agent = grants.Rev{}
			return written(&s.agent)
		}
		parent := in.grant - linearParents
		switch {
		case ended(grants.TaskEnded, grants.UnknownTask):
			return refused(out.why)
		case s.issued[in.grant] != grants.Rev{}: // a retry
		case s.task == grants.Rev{}:
			return refused(grants.UnknownTask)
		case s.ended != grants.Rev{}:
			return refused(grants.TaskEnded)
		case parent >= 0 && s.issued[parent] == grants.Rev{}:
			return refused(grants.UnknownGrant)
		case parent >= 0 && (s.fenced[parent] != grants.Rev{} || s.agent.Compare(s.issued[parent]) > 0):
			return refused(grants.Revoked)
		case s.fenced[in.grant] != grants.Rev{}, s.agent.Compare(in.view) > 0:
			return refused(grants.Revoked)
		}
		return written(&s.issued[in.grant])
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(linearInput), output.(linearOutput)
		name := [...]string{"start", "issue", "fence task", "fence agent", "fence grant"}[in.kind]
		return fmt.Sprintf("%s %d view %v: %v %v %v", name, in.grant, in.view, out.rev, out.why, out.err)
	},
}

// linearizable records what concurrent clients are told about one task, and
// asks whether one order of the calls explains it: an issue that begins after
// the answer to its task's fence is refused, and so on.
func (s *suite) linearizable() {
	granted, refused := 0, 0
	for round := range linearRounds {
		history := s.history(uint64(round))
		result, info := porcupine.CheckOperationsVerbose(linearModel, history, patience)
		if result != porcupine.Ok {
			path := s.TempDir() + "/history.html"
			if err := porcupine.VisualizePath(linearModel, info, path); err != nil {
				s.Log(err)
			}
			for _, op := range history {
				s.Logf("client %d, %d to %d: %s", op.ClientId, op.Call, op.Return, linearModel.DescribeOperation(op.Input, op.Output))
			}
			s.Fatalf("round %d: %v; no order of the calls explains the answers", round, result)
		}
		for _, op := range history {
			if op.Input.(linearInput).kind != issueGrant {
				continue
			}
			if op.Output.(linearOutput).why == grants.None {
				granted++
			} else {
				refused++
			}
		}
	}
	if granted == 0 || refused == 0 {
		s.Errorf("%d grants issued and %d refused: this has tried nothing", granted, refused)
	}
}

// history runs the clients of one round on a new task.
func (s *suite) history(seed uint64) []porcupine.Operation {
	task := newTask()
	agent := grants.Principal{Issuer: "idp", Subject: task.ID} // of this round alone
	var ids [linearGrants]grants.Grant
	for i := range ids {
		if ids[i] = newGrant(task); i >= linearParents {
			ids[i] = child(ids[i-linearParents])
		}
		ids[i].Agent = agent
	}
	var heard atomic.Pointer[grants.Rev] // the newest answer to any client
	heard.Store(&grants.Rev{})
	var mu sync.Mutex
	var history []porcupine.Operation
	begin := time.Now()
	var ready sync.WaitGroup // all begin at once
	ready.Add(linearClients)
	client := func(n int) {
		rnd := rand.New(rand.NewPCG(seed, uint64(n)))
		var own grants.Rev
		ready.Done()
		ready.Wait()
		for i := range linearOps {
			in := linearInput{kind: issueGrant, grant: rnd.IntN(linearGrants)}
			switch p := rnd.IntN(20); {
			case n == 0 && i == 0: // most rounds should get somewhere
				in.kind = startTask
			case p < 8:
				in.kind = linearKind(rnd.IntN(int(linearKinds)))
			}
			if in.kind == fenceTask && i < linearOps/2 { // not too early
				in.kind = startTask
			}
			if in.kind == issueGrant {
				in.view = [...]grants.Rev{{}, own, *heard.Load(), *heard.Load()}[rnd.IntN(4)]
			}
			var out linearOutput
			call := time.Since(begin)
			switch in.kind {
			case startTask:
				out.rev, out.why, out.err = s.store.Start(s.ctx, task)
			case issueGrant:
				g := ids[in.grant]
				g.Rev = in.view
				out.rev, out.why, out.err = s.store.Issue(s.ctx, one(g))
			default:
				f := grants.Fence{Scope: grants.ScopeTask, Key: task.ID, Why: grants.Revoked, Until: task.Deadline}
				switch in.kind {
				case fenceAgent:
					f.Scope, f.Key = grants.ScopeAgent, agent.ID()
				case fenceGrant:
					f.Scope, f.Key = grants.ScopeGrant, ids[in.grant].ID
				}
				out.rev, out.err = s.store.Fence(s.ctx, f)
			}
			end := time.Since(begin)
			if out.err != nil {
				s.Errorf("client %d: %v", n, out.err)
				return
			}
			if out.rev.Compare(own) > 0 {
				own = out.rev
			}
			if rev := own; rev.Compare(*heard.Load()) > 0 {
				heard.Store(&rev)
			}
			mu.Lock()
			history = append(history, porcupine.Operation{ClientId: n, Input: in, Call: int64(call), Output: out, Return: int64(end)})
			mu.Unlock()
		}
	}
	each(linearClients, client)
	return history
}
