package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

// asking is one question to policy, or why it would not come to be asked.
type asking struct {
	in     grants.Input
	why    grants.Reason // None: it is asked
	detail string
}

// refuse keeps the first reason.
func (a *asking) refuse(why grants.Reason, detail string) {
	if a.why == grants.None {
		a.why, a.detail = why, detail
	}
}

// readQuestion reads a case that is one question. What a manifest says of a grant
// is put into it as the broker does it, so that a test need not repeat it.
func (r *testReader) readQuestion(kind string, n *strictyaml.Node) (*asking, error) {
	a := &asking{in: grants.Input{Action: kind, At: r.now}}
	var err error
	switch kind {
	case grants.ActionStartTask, grants.ActionEndTask:
		err = r.readTaskQuestion(a, n)
	case grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke:
		err = r.readGrantQuestion(a, n)
	case "call":
		err = r.readCallQuestion(a, n)
	default:
		err = r.readMethodQuestion(a, n)
	}
	return a, err
}

func (r *testReader) readTaskQuestion(a *asking, n *strictyaml.Node) error {
	keys := []string{"agent", "kind", "ttl", "params"}
	if a.in.Action == grants.ActionEndTask { // of which policy sees no parameters
		keys = []string{"agent", "kind", "ttl", "owner"}
	}
	f, err := n.Keys(keys...)
	if err != nil {
		return err
	}
	if a.in.Principal, err = r.agent(f, "agent", nil); err != nil {
		return err
	}
	a.in.Requester = a.in.Principal
	if a.in.Task, err = r.readTask(a, f, a.in.Principal); err != nil {
		return err
	}
	ttl, err := f.Duration("ttl", time.Second, r.cfg.Limits.MaxTask)
	if err == nil && ttl > 0 && r.now.Add(ttl).Before(a.in.Task.Deadline) {
		a.in.Task.Deadline = r.now.Add(ttl)
	}
	return err
}

// readTask reads the members of a task: kind, owner and params. Where the owner
// is not said it is the given one.
func (r *testReader) readTask(a *asking, f *strictyaml.Fields, owner grants.Principal) (*grants.Task, error) {
	kind, err := r.kind(f)
	if err != nil {
		return nil, err
	}
	if owner, err = r.agent(f, "owner", &owner); err != nil {
		return nil, err
	}
	params, err := object(f, "params")
	if err != nil {
		return nil, err
	}
	task := &grants.Task{
		ID: grants.NewID(grants.TaskPrefix), Kind: kind, Owner: owner, Agents: []string{a.in.Principal.ID()},
		Started: r.now, Deadline: r.now.Add(r.cfg.Limits.MaxTask),
	}
	m, has := r.set.Manifests().Kind(task.Kind)
	switch {
	case !has && params != nil:
		a.refuse(grants.BadRequest, fmt.Sprintf("there is no manifest of the kind %q, and so no params", task.Kind))
	case has:
		if m.MaxDuration > 0 {
			task.Deadline = r.now.Add(min(m.MaxDuration, r.cfg.Limits.MaxTask))
		}
		if a.in.Action == grants.ActionEndTask {
			break
		}
		var raw []byte
		if params != nil {
			if raw, err = strictjson.Canonical(params); err != nil {
				return nil, err
			}
		}
		if task.Params, err = m.ReadParams(raw); err != nil {
			a.refuse(grants.BadRequest, err.Error())
		}
	}
	return task, nil
}

// grantKeys are what can be said of any grant, be it asked for or held.
var grantKeys = []string{"task", "ttl", "requester", "depth", "bound"}

func (r *testReader) readGrantQuestion(a *asking, n *strictyaml.Node) error {
	keys := slices.Concat(grantKeys, []string{"agent", "tool", "max_calls", "max_sum", "constraint", "input"})
	if a.in.Action == grants.ActionRevoke {
		keys = []string{"agent", "tool", "task", "holder"}
	}
	f, err := n.Keys(keys...)
	if err != nil {
		return err
	}
	agent, err := r.agent(f, "agent", nil)
	if err != nil {
		return err
	}
	asker := &agent
	if a.in.Action == grants.ActionAskFor {
		asker = nil
	}
	if a.in.Requester, err = r.agent(f, "requester", asker); err != nil {
		return err
	}
	a.in.Principal = agent
	switch a.in.Action {
	case grants.ActionAskFor:
		if agent.ID() == a.in.Requester.ID() {
			return n.Errorf("who asks for itself does not ask_for: requester and agent are one")
		}
		a.in.Principal = a.in.Requester
	case grants.ActionRevoke:
		if agent, err = r.agent(f, "holder", &agent); err != nil { // of the grant
			return err
		}
	}
	tool, err := r.tool(f)
	if err != nil {
		return err
	}
	a.in.Tool = tool.ID
	if err := r.readGrant(a, f, tool, agent, a.in.Requester); err != nil {
		return err
	}
	return r.readAsked(a, f, tool)
}

// readGrant reads a grant of the tool for the agent: its task, and what else
// policy sees of it.
func (r *testReader) readGrant(a *asking, f *strictyaml.Fields, tool *catalog.Tool, agent, requester grants.Principal) error {
	tn, ok := f.Get("task")
	if !ok {
		return f.Errorf("\"task\" is missing: {kind: …, owner: …}")
	}
	tf, err := tn.Keys("kind", "owner", "params")
	if err != nil {
		return err
	}
	if a.in.Task, err = r.readTask(a, tf, requester); err != nil {
		return err
	}
	a.in.Task.Agents = []string{agent.ID()}
	g := &grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: a.in.Task.ID, Agent: agent, Requester: requester, Tool: tool.ID,
		Pin: grants.Digest(tool.Digest), NotBefore: r.now,
	}
	ttl, err := f.Duration("ttl", time.Second, r.cfg.Limits.MaxTask)
	if err != nil {
		return err
	}
	if ttl == 0 {
		ttl = broker.DefaultTTL
	}
	g.Expires = r.now.Add(min(ttl, r.cfg.Limits.MaxTTL, a.in.Task.Deadline.Sub(r.now)))
	depth, err := whole(f, "depth", 8)
	if err != nil {
		return err
	}
	for i := range depth {
		g.Actors = append(g.Actors, fmt.Sprintf("%s-%d", agent.ID(), i))
	}
	bound, err := f.Boolean("bound")
	if err != nil {
		return err
	}
	if bound {
		g.CNF = grants.Digest{1}
	}
	a.in.Grant = g
	return nil
}

// readAsked reads by what who asks bounds the grant, and bounds it as the
// manifest of the task's kind does.
func (r *testReader) readAsked(a *asking, f *strictyaml.Fields, tool *catalog.Tool) error {
	g := a.in.Grant
	entry := r.entry(a)
	if entry.Once && a.in.Action != grants.ActionRevoke {
		if _, ok := f.Find("input"); !ok {
			a.refuse(grants.BadRequest, g.Tool+": each grant is for one call: say its input")
		}
	}
	calls, err := whole(f, "max_calls", 1<<31)
	if err != nil {
		return err
	}
	sums := map[string]int64{}
	if n, ok := f.Get("max_sum"); ok {
		if n.Kind != strictyaml.Mapping {
			return n.Errorf("\"max_sum\" must be a mapping of JSON Pointers to numbers")
		}
		for _, s := range n.Fields {
			units, ok := strictjson.Number(s.Value.Text).Units()
			if s.Value.Kind != strictyaml.Number || !ok || units < 1 {
				return s.Value.Errorf("must be a number over 0, with at most 4 decimals")
			}
			if !summable(tool, s.Key.Text) {
				return s.Key.Errorf("%q leads to no number that policy sees of %s: write a JSON Pointer into its input", s.Key.Text, tool.ID)
			}
			sums[s.Key.Text] = units
		}
	}
	addBudgets(g, entry, calls, sums)
	if c, err := object(f, "constraint"); err != nil {
		return err
	} else if c != nil {
		text, err := strictjson.Canonical(c)
		if err != nil {
			return err
		}
		g.Constraints = append(g.Constraints, text)
	}
	if _, err := grants.CompileConstraints(g.Constraints); err != nil {
		n, ok := f.Get("constraint")
		if !ok {
			n = f.Node
		}
		return n.Errorf("%v", err)
	}
	return r.readOnce(a, f, tool)
}

// addBudgets bounds the grant as the broker does: by what was asked for (0 and none:
// nothing) and by the task's own budgets, where its manifest has some.
func addBudgets(g *grants.Grant, entry manifest.Entry, calls int64, sums map[string]int64) {
	bound := func(arg string, asked, ceiling int64) {
		switch {
		case ceiling > 0:
			g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(g.Task, g.Tool, arg), Arg: arg, Limit: ceiling})
			if asked > 0 && asked < ceiling {
				g.Budgets = append(g.Budgets, grants.Budget{Key: grants.GrantBudget(g.ID, arg), Arg: arg, Limit: asked})
			}
		case asked > 0:
			g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(g.Task, g.Tool, arg), Arg: arg, Limit: asked})
		}
	}
	bound("", calls, entry.MaxCalls)
	args := slices.AppendSeq(slices.Collect(maps.Keys(sums)), maps.Keys(entry.Sums))
	slices.Sort(args)
	for _, arg := range slices.Compact(args) {
		bound(arg, sums[arg], entry.Sums[arg])
	}
}

// summable reports whether the pointer leads to a number of the tool's input.
func summable(tool *catalog.Tool, pointer string) bool {
	if !strings.HasPrefix(pointer, "/") {
		return false
	}
	at := tool.Input()
	for _, name := range catalog.PointerPath(pointer) {
		if at = at.Properties[name]; at == nil {
			return false
		}
	}
	hidden := slices.ContainsFunc(tool.Opaque, func(o string) bool { return pointer == o || strings.HasPrefix(pointer, o+"/") })
	return (at.Type == "integer" || at.Type == "number") && !hidden
}

// readOnce reads the input of a one-time grant.
func (r *testReader) readOnce(a *asking, f *strictyaml.Fields, tool *catalog.Tool) error {
	input, err := object(f, "input")
	if err != nil || input == nil {
		return err
	}
	if input, err = wholeInput(f, tool, input); err != nil {
		return err
	}
	if err := a.once(tool, input); err != nil {
		return err
	}
	a.inside(input)
	return nil
}

// once makes the question's grant one for a single call with the input.
func (a *asking) once(tool *catalog.Tool, input map[string]any) (err error) {
	g := a.in.Grant
	if g.Once, err = grants.OnceDigest(input, tool.Volatile); err != nil {
		return err
	}
	g.Budgets = append(g.Budgets, grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 1})
	return nil
}

// entry puts into the question's grant what the manifest of its kind has for it,
// but for its budgets. What is not in the manifest is left to the decision.
func (r *testReader) entry(a *asking) manifest.Entry {
	m, has := r.set.Manifests().Kind(a.in.Task.Kind)
	if !has || a.why != grants.None {
		return manifest.Entry{}
	}
	e, known, err := m.Entry(a.in.Grant.Tool, a.in.Task.Params)
	switch {
	case err != nil:
		a.refuse(grants.BadRequest, err.Error())
		return manifest.Entry{}
	case !known:
		return manifest.Entry{}
	}
	g := a.in.Grant
	if e.TTL > 0 && g.TTL() > e.TTL {
		g.Expires = g.NotBefore.Add(e.TTL)
	}
	if e.Constraint != nil {
		g.Constraints = append(g.Constraints, e.Constraint)
	}
	return e
}

// inside holds an input to the constraints of the question's grant.
func (a *asking) inside(input map[string]any) {
	constraints, err := grants.CompileConstraints(a.in.Grant.Constraints)
	if err != nil {
		a.refuse(grants.BadRequest, err.Error())
		return
	}
	for _, c := range constraints {
		if err := c.Check(input); err != nil {
			a.refuse(grants.ConstraintBroken, err.Error())
		}
	}
}
