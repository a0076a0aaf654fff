package broker

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

// grantAnswer is a live grant as callers see it.
type grantAnswer struct {
	GrantID           grants.ID         `json:"grant_id"`
	Task              grants.ID         `json:"task"`
	Kind              string            `json:"kind"` // of the task
	Agent             string            `json:"agent"`
	Requester         string            `json:"requester"`
	Tool              string            `json:"tool"`
	NotBefore         time.Time         `json:"not_before"`
	ExpiresAt         time.Time         `json:"expires_at"`
	TTL               int64             `json:"ttl"` // seconds left
	MaxCalls          int64             `json:"max_calls,omitempty"`
	MaxSum            map[string]string `json:"max_sum,omitempty"`
	ConstraintsDigest grants.Digest     `json:"constraints_digest,omitzero"`
	Once              bool              `json:"once,omitempty"` // for one call, of the input that was asked for
	Depth             int               `json:"depth"`
}

type tasksAnswer struct {
	Tasks []taskAnswer `json:"tasks"`
	More  bool         `json:"more"` // there are others that the caller may see: name what you look for
}

type grantsListAnswer struct {
	Grants []grantAnswer `json:"grants"`
	More   bool          `json:"more"`
}

// showTask handles GET /v1/tasks/{id}, for the task's owner and agents and for
// whom policy would let end it. Others get what they get for an unknown one, in
// the same time: both are put to policy.
func (b *Broker) showTask(ctx context.Context, r *request) reply {
	id := r.PathValue("id")
	r.named(id)
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	if _, why, detail := r.parameters(); why != grants.None {
		return refused(why, detail)
	}
	task, why := b.cfg.Table.Task(id)
	switch {
	case why == grants.NotFresh:
		return refused(why, "")
	case task == nil || !knows(r.who.Principal, task):
		if task, why = b.ownTask(ctx, r, id, grants.ActionEndTask); why != grants.None {
			return refused(why, "")
		}
	}
	state := stateOpen
	if _, why := b.cfg.Table.Task(id); why != grants.None {
		state = stateEnded
	}
	ans := answerTask(task, state)
	live, more, rep := b.visibleGrants(ctx, r, grantFilter{task: id})
	if rep.why != grants.None {
		return rep
	}
	found, err := b.answerGrants(live)
	if err != nil {
		return b.fault(r, "digesting constraints", err)
	}
	ans.Grants = found
	r.records[0].Note = fmt.Sprintf("grants=%d more=%t", len(found), more)
	return reply{status: http.StatusOK, body: ans}
}

// listTasks handles GET /v1/tasks: open tasks that the caller may see.
func (b *Broker) listTasks(ctx context.Context, r *request) reply {
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	q, why, detail := r.parameters("kind", "owner", "agent")
	if why != grants.None {
		return refused(why, detail)
	}
	f := taskFilter{kind: q.Get("kind"), agent: q.Get("agent")}
	if q.Has("kind") && !validKind(f.kind) {
		return refused(grants.Malformed, "kind: no kind of task is written so")
	}
	var rep reply
	if f.owner, rep = agentFilter(q, "owner"); rep.why != grants.None {
		return rep
	}
	if _, rep = agentFilter(q, "agent"); rep.why != grants.None {
		return rep
	}
	tasks, more, rep := b.visibleTasks(ctx, r, f)
	if rep.why != grants.None {
		return rep
	}
	slices.SortFunc(tasks, func(x, y *grants.Task) int {
		return cmp.Or(x.Deadline.Compare(y.Deadline), cmp.Compare(x.ID, y.ID))
	})
	ans := tasksAnswer{Tasks: make([]taskAnswer, len(tasks)), More: more}
	for i, t := range tasks {
		ans.Tasks[i] = answerTask(t, stateOpen)
	}
	r.records[0].Note = fmt.Sprintf("tasks=%d more=%t", len(tasks), more)
	return reply{status: http.StatusOK, body: ans}
}

// listGrants handles GET /v1/grants: live grants that the caller may see.
func (b *Broker) listGrants(ctx context.Context, r *request) reply {
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := r.noBody(); why != grants.None {
		return refused(why, detail)
	}
	q, why, detail := r.parameters("task", "agent", "tool")
	if why != grants.None {
		return refused(why, detail)
	}
	f := grantFilter{task: q.Get("task"), tool: q.Get("tool")}
	if q.Has("task") && !grants.ValidID(f.task, grants.TaskPrefix) {
		return refused(grants.Malformed, "task: write the id of a task")
	}
	r.named(f.task)
	if _, ok := b.cfg.Catalog.Tool(f.tool); q.Has("tool") && !ok {
		return refused(grants.UnknownTool, "")
	}
	var rep reply
	if f.agent, rep = agentFilter(q, "agent"); rep.why != grants.None {
		return rep
	}
	live, more, rep := b.visibleGrants(ctx, r, f)
	if rep.why != grants.None {
		return rep
	}
	found, err := b.answerGrants(live)
	if err != nil {
		return b.fault(r, "digesting constraints", err)
	}
	r.records[0].Note = fmt.Sprintf("grants=%d more=%t", len(found), more)
	return reply{status: http.StatusOK, body: grantsListAnswer{found, more}}
}

// answerGrants are live grants as callers see them, in order of their end.
func (b *Broker) answerGrants(live []grants.Live) ([]grantAnswer, error) {
	slices.SortFunc(live, func(x, y grants.Live) int {
		return cmp.Or(x.Grant().Expires.Compare(y.Grant().Expires), cmp.Compare(x.Grant().ID, y.Grant().ID))
	})
	out := make([]grantAnswer, len(live))
	for i, l := range live {
		g := l.Grant()
		digest, err := grants.ConstraintsDigest(g.Constraints)
		if err != nil {
			return nil, err
		}
		out[i] = grantAnswer{
			GrantID: g.ID, Task: g.Task, Kind: l.Task().Kind, Agent: g.Agent.ID(), Requester: g.Requester.ID(), Tool: g.Tool,
			NotBefore: g.NotBefore, ExpiresAt: g.Expires, TTL: max(0, int64(b.cfg.Table.Left(l)/time.Second)),
			MaxCalls: calls(g), MaxSum: sums(g), ConstraintsDigest: digest, Once: !g.Once.IsZero(), Depth: g.Depth(),
		}
	}
	return out, nil
}

// agentFilter reads a query parameter that names an agent; nil: it is not there.
func agentFilter(q url.Values, name string) (*grants.Principal, reply) {
	if !q.Has(name) {
		return nil, reply{}
	}
	agent, ok := identity.ParseAgent(q.Get(name))
	if !ok {
		return nil, refused(grants.Malformed, name+": write ISSUER-ALIAS/SUBJECT")
	}
	return &agent, reply{}
}
