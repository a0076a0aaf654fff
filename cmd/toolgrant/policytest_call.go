package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

// readHeld reads the grant of the principal under which something is asked: one as
// the broker gives it, "age" ago, in a task that began with it. "ttl" is what is
// left of it, as in policies. What the manifest of the kind does not admit, no door
// has given. A one-time grant is for the input.
func (r *testReader) readHeld(a *asking, f *strictyaml.Fields, tool *catalog.Tool, input map[string]any) error {
	requester, err := r.agent(f, "requester", &a.in.Principal)
	if err != nil {
		return err
	}
	if err := r.readGrant(a, f, tool, a.in.Principal, requester); err != nil {
		return err
	}
	entry := r.entry(a)
	if err := r.readAge(a, f, entry); err != nil {
		return err
	}
	addBudgets(a.in.Grant, entry, 0, nil)
	if entry.Once {
		if err := a.once(tool, input); err != nil {
			return err
		}
	}
	if err := r.set.Manifests().Admits(a.in.Task, a.in.Grant); err != nil {
		a.refuse(grants.Manifest, err.Error())
	}
	return nil
}

// readAge reads when the grant began and what is left of it. One that lasts longer
// than any can is an error, for nothing decided about it would be true of a call.
func (r *testReader) readAge(a *asking, f *strictyaml.Fields, entry manifest.Entry) error {
	age, err := f.Duration("age", time.Second, r.cfg.Limits.MaxTask)
	if err != nil {
		return err
	}
	left, err := f.Duration("ttl", time.Second, r.cfg.Limits.MaxTask)
	if err != nil {
		return err
	}
	most, whose := r.longest(a.in.Task.Kind, entry)
	if left == 0 {
		left = max(min(broker.DefaultTTL, most-age), time.Second)
	}
	if age+left > most {
		n, said := f.Get("ttl")
		if !said {
			n, _ = f.Get("age")
		}
		return n.Errorf("no grant of %s lasts %v (\"age\" and what is left of it, \"ttl\"): %s %v", a.in.Grant.Tool, age+left, whose, most)
	}
	g, task := a.in.Grant, a.in.Task
	g.NotBefore, g.Expires = r.now.Add(-age), r.now.Add(left)
	task.Started, task.Deadline = task.Started.Add(-age), task.Deadline.Add(-age)
	return nil
}

// longest is how long a grant in a task of the kind lasts at most, and who says so.
func (r *testReader) longest(kind string, entry manifest.Entry) (most time.Duration, whose string) {
	most, whose = r.cfg.Limits.MaxTTL, "limits.max_ttl is"
	if entry.TTL > 0 && entry.TTL < most {
		most, whose = entry.TTL, fmt.Sprintf("its ttl in the manifest of %s is", kind)
	}
	if m, has := r.set.Manifests().Kind(kind); has && m.MaxDuration > 0 && m.MaxDuration < most {
		most, whose = m.MaxDuration, fmt.Sprintf("max_duration in the manifest of %s is", kind)
	}
	return most, whose
}

func (r *testReader) readCallQuestion(a *asking, n *strictyaml.Node) error {
	f, err := n.Keys("agent", "tool", "input", "grant", "revision", "retry")
	if err != nil {
		return err
	}
	if a.in.Principal, err = r.agent(f, "agent", nil); err != nil {
		return err
	}
	a.in.Requester = a.in.Principal
	tool, err := r.tool(f)
	if err != nil {
		return err
	}
	a.in.Action, a.in.Tool = grants.ActionCall+tool.ID, tool.ID
	input, err := object(f, "input")
	if err != nil {
		return err
	}
	if input, err = wholeInput(f, tool, input); err != nil {
		return err
	}
	a.in.Args = input
	if err := r.readRevision(a, f, tool.Server, func(string) bool { return true }); err != nil {
		return err
	}
	n, held := f.Get("grant")
	if !held {
		return nil
	}
	gf, err := n.Keys(append([]string{"age"}, grantKeys...)...)
	if err != nil {
		return err
	}
	if err := r.readHeld(a, gf, tool, input); err != nil {
		return err
	}
	a.inside(input)
	return nil
}

// wholeInput gives an input the parts that an HTTP tool declares and that have
// nothing in them; policy sees them all the same.
func wholeInput(f *strictyaml.Fields, tool *catalog.Tool, input map[string]any) (map[string]any, error) {
	out := map[string]any{}
	maps.Copy(out, input)
	if tool.Server.MCP != nil {
		return out, nil
	}
	n, ok := f.Get("input")
	if !ok {
		n = f.Node
	}
	parts := tool.Input().Properties
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if _, ok := parts[name]; !ok {
			return nil, n.Errorf("the input of %s has no part %q%s", tool.ID, name, nearest(name, slices.Sorted(maps.Keys(parts))))
		}
		if name == "body" {
			continue
		}
		values, ok := out[name].(map[string]any)
		if !ok {
			return nil, n.Errorf("%q must be a mapping of names to values", name)
		}
		// A header that is not declared never reaches the tool, nor policy.
		for _, v := range slices.Sorted(maps.Keys(values)) {
			if declared := parts[name].Properties; declared[v] == nil {
				return nil, n.Errorf("%s declares no %s %q%s", tool.ID, name, v, nearest(v, slices.Sorted(maps.Keys(declared))))
			}
		}
	}
	for _, name := range []string{"query", "header"} {
		if _, there := out[name]; parts[name] != nil && !there {
			out[name] = map[string]any{}
		}
	}
	if _, there := out["body"]; parts["body"] != nil && !there {
		return nil, n.Errorf("the input of %s needs a body", tool.ID)
	}
	return out, nil
}

// readRevision says in which revision of MCP something is asked of the server: the
// newest that has it, where the test does not say.
func (r *testReader) readRevision(a *asking, f *strictyaml.Fields, s *catalog.Server, has func(revision string) bool) error {
	_, said := f.Find("revision")
	n, retries := f.Get("retry")
	if s.MCP == nil {
		if said || retries {
			return f.Errorf("\"revision\" and \"retry\" are of MCP, and %s is an HTTP service", s.ID)
		}
		return nil
	}
	if said {
		v, err := f.Text("revision")
		if err != nil {
			return err
		}
		if a.in.Revision = v.Text; !slices.Contains(s.MCP.Revisions, v.Text) || !has(v.Text) {
			return v.Errorf("the server %s is not spoken to in the revision %q, or that does not have it; it has %s", s.ID, v.Text, strings.Join(s.MCP.Revisions, ", "))
		}
	} else if a.in.Revision = newest(s, has); a.in.Revision == "" {
		return f.Errorf("the server %s speaks no revision of MCP that has it", s.ID)
	}
	if !retries {
		return nil
	}
	if a.in.Revision < mcp.Rev20260728 {
		return n.Errorf("there are no retries in the revision %s", a.in.Revision)
	}
	rf, err := n.Keys("responses", "state")
	if err != nil {
		return err
	}
	a.in.Retry = &grants.Retry{}
	if a.in.Retry.State, err = rf.Boolean("state"); err != nil {
		return err
	}
	responses, err := object(rf, "responses")
	if err != nil || responses == nil {
		return err
	}
	text, err := strictjson.Canonical(responses)
	a.in.Retry.Responses = string(text)
	return err
}

// newest is the newest revision of the server's that has what is asked; "": none.
func newest(s *catalog.Server, has func(revision string) bool) string {
	for _, revision := range slices.Backward(s.MCP.Revisions) {
		if has(revision) {
			return revision
		}
	}
	return ""
}

func (r *testReader) readMethodQuestion(a *asking, n *strictyaml.Node) error {
	f, err := n.Keys("agent", "server", "method", "input", "grant", "revision", "retry")
	if err != nil {
		return err
	}
	if a.in.Principal, err = r.agent(f, "agent", nil); err != nil {
		return err
	}
	a.in.Requester = a.in.Principal
	server, err := r.server(f)
	if err != nil {
		return err
	}
	method, err := readMethod(f)
	if err != nil {
		return err
	}
	a.in.Action, a.in.Server = method.Action(), server.ID
	input, err := object(f, "input")
	if err != nil {
		return err
	}
	if input == nil {
		input = map[string]any{}
	}
	a.in.Args = input
	if err := r.readRevision(a, f, server, method.In); err != nil {
		return err
	}
	n, held := f.Get("grant")
	if !held {
		return nil
	}
	if !method.Grant {
		return n.Errorf("no grant covers %s: leave \"grant\" out", method.Name)
	}
	gf, err := n.Keys(append([]string{"tool", "age"}, grantKeys...)...)
	if err != nil {
		return err
	}
	tool, err := r.tool(gf)
	if err != nil {
		return err
	}
	return r.readHeld(a, gf, tool, map[string]any{}) // of which input a one-time grant is, policy does not see here
}

func (r *testReader) server(f *strictyaml.Fields) (*catalog.Server, error) {
	v, err := f.Text("server")
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range r.catalog.Servers {
		if s := &r.catalog.Servers[i]; s.MCP != nil {
			if all = append(all, s.ID); s.ID == v.Text {
				return s, nil
			}
		}
	}
	return nil, v.Errorf("%q is no MCP server of the catalogue%s", v.Text, nearest(v.Text, all))
}

// readMethod reads the method of MCP that a case is about.
func readMethod(f *strictyaml.Fields) (*mcp.Method, error) {
	v, err := f.Text("method")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, m := range mcp.Methods() {
		if m.Action() == "" {
			continue
		}
		if all = append(all, m.Name); m.Name == v.Text {
			return m, nil
		}
	}
	if v.Text == mcp.ToolsCall {
		return nil, v.Errorf("a call of a tool is a case of its own: write call: {tool: SERVER/TOOL}")
	}
	return nil, v.Errorf("%q is no method of MCP%s", v.Text, nearest(v.Text, all))
}
