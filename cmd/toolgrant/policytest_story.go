package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

// storyStep is one step of a story, which goes through a door.
type storyStep struct {
	line, column int
	title        string
	do           func(context.Context, *play) (testOutcome, error)
	want         expectation
}

// expectation is what a case or a step says that will come.
type expectation struct {
	allow   bool
	reason  grants.Reason            // of a denial; None: any that is about what was asked (see undecisive)
	by      []string                 // ids of the policies that decide, sorted; nil: whichever do
	advice  string                   // ""; not looked at
	granted []string                 // tools, sorted; nil: not looked at
	refused map[string]grants.Reason // tool -> why; nil: not looked at
}

// readExpectation reads the members around a case or step. What is not said is
// allowed, which a case has to say.
func (r *testReader) readExpectation(f *strictyaml.Fields) (expectation, error) {
	w := expectation{allow: true}
	if _, ok := f.Find("expect"); ok {
		v, err := f.Text("expect")
		if err != nil {
			return w, err
		}
		if v.Text != "allow" && v.Text != "deny" {
			return w, v.Errorf("\"expect\" is allow or deny, not %q", v.Text)
		}
		w.allow = v.Text == "allow"
	}
	if k, ok := f.Key("reason"); ok {
		v, err := f.Text("reason")
		if err != nil {
			return w, err
		}
		if w.allow {
			return w, k.Errorf("\"reason\" is of a denial: write expect: deny with it")
		}
		if w.reason, err = readReason(v); err != nil {
			return w, err
		}
	}
	if _, ok := f.Find("by"); ok {
		known := r.set.Policies()
		by, err := f.Strings("by", func(n *strictyaml.Node) error {
			if slices.Contains(known, n.Text) {
				return nil
			}
			return n.Errorf("there is no policy %q%s", n.Text, nearest(n.Text, known))
		})
		if err != nil {
			return w, err
		}
		w.by = append([]string{}, by...) // an empty list says that none decides
	}
	if k, ok := f.Key("advice"); ok {
		v, err := f.Text("advice")
		if err != nil {
			return w, err
		}
		if w.allow {
			return w, k.Errorf("\"advice\" is of a denial: write expect: deny with it")
		}
		w.advice = v.Text
	}
	return w, nil
}

func readReason(v *strictyaml.Node) (grants.Reason, error) {
	var why grants.Reason
	if err := why.UnmarshalText([]byte(v.Text)); err != nil || why == grants.None || v.Kind != strictyaml.Text {
		var known []string
		for _, r := range grants.Reasons() {
			known = append(known, r.String())
		}
		return why, v.Errorf("%q is no reason of a denial%s", v.Text, nearest(v.Text, known))
	}
	return why, nil
}

var stepKinds = []string{"start", "grant", "call", "mcp", "revoke", "end"}

func (r *testReader) readStory(f *strictyaml.Fields) ([]storyStep, error) {
	list, err := f.List("story")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, f.Errorf("\"story\" has no steps")
	}
	steps := make([]storyStep, len(list))
	for i, n := range list {
		if steps[i], err = r.readStep(n); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

func (r *testReader) readStep(n *strictyaml.Node) (storyStep, error) {
	f, err := n.Keys(append([]string{"expect", "reason", "by", "advice", "granted", "refused"}, stepKinds...)...)
	if err != nil {
		return storyStep{}, err
	}
	kind, err := oneOf(f, stepKinds)
	if err != nil {
		return storyStep{}, err
	}
	s := storyStep{line: n.Line, column: n.Column, title: kind.Key.Text}
	if s.want, err = r.readExpectation(f); err != nil {
		return s, err
	}
	if err := r.readTokensOf(f, kind.Key.Text, &s.want); err != nil {
		return s, err
	}
	read := map[string]func(*storyStep, *strictyaml.Node) error{
		"start": r.readStart, "grant": r.readBuy, "call": r.readCall, "mcp": r.readMCP, "revoke": r.readRevoke, "end": r.readEnd,
	}[kind.Key.Text]
	return s, read(&s, kind.Value)
}

// readTokensOf reads what the answer to a step has of tokens.
func (r *testReader) readTokensOf(f *strictyaml.Fields, kind string, w *expectation) error {
	for _, key := range []string{"granted", "refused"} {
		if k, ok := f.Key(key); ok && kind != "start" && kind != "grant" {
			return k.Errorf("%q is of the steps start and grant", key)
		}
	}
	if _, ok := f.Find("granted"); ok {
		tools, err := f.Strings("granted", func(n *strictyaml.Node) error { _, err := r.toolAt(n); return err })
		if err != nil {
			return err
		}
		w.granted = append([]string{}, tools...)
	}
	n, ok := f.Get("refused")
	if !ok {
		return nil
	}
	if n.Kind != strictyaml.Mapping {
		return n.Errorf("\"refused\" must be a mapping of tools to reasons")
	}
	w.refused = map[string]grants.Reason{}
	for _, e := range n.Fields {
		tool, err := r.toolAt(e.Key)
		if err != nil {
			return err
		}
		if w.refused[tool.ID], err = readReason(e.Value); err != nil {
			return err
		}
	}
	return nil
}

// as reads who does a step.
func (r *testReader) as(n *strictyaml.Node, keys ...string) (*strictyaml.Fields, grants.Principal, error) {
	f, err := n.Keys(append([]string{"as"}, keys...)...)
	if err != nil {
		return nil, grants.Principal{}, err
	}
	who, err := r.agent(f, "as", nil)
	if err == nil && !slices.ContainsFunc(r.cfg.Identity.Issuers, func(is IssuerConfig) bool { return is.Alias == who.Issuer }) {
		v, _ := f.Get("as")
		err = v.Errorf("agents of %s are known by client certificates, which a story does not have: write single cases of them", who.Issuer)
	}
	return f, who, err
}

func (r *testReader) readStart(s *storyStep, n *strictyaml.Node) error {
	f, who, err := r.as(n, "kind", "agents", "params", "ttl", "grant")
	if err != nil {
		return err
	}
	kind, err := r.kind(f)
	if err != nil {
		return err
	}
	body := map[string]any{"kind": kind}
	holder := who
	if _, ok := f.Find("agents"); ok {
		list, err := f.List("agents")
		if err != nil {
			return err
		}
		var agents []any
		for _, a := range list {
			p, err := r.agentAt(a)
			if err != nil {
				return err
			}
			holder, agents = p, append(agents, p.ID())
		}
		body["agents"] = agents
	}
	if params, err := object(f, "params"); err != nil {
		return err
	} else if params != nil {
		body["params"] = params
	}
	if err := seconds(body, f, "ttl"); err != nil {
		return err
	}
	grant, err := f.Boolean("grant")
	if err != nil {
		return err
	}
	if grant {
		body["grant"] = true
	}
	s.title += " " + kind
	s.do = func(ctx context.Context, p *play) (testOutcome, error) { return p.start(ctx, who, holder, body) }
	return nil
}

// seconds puts a time, if there is one, into a request.
func seconds(body map[string]any, f *strictyaml.Fields, key string) error {
	d, err := f.Duration(key, time.Second, 365*24*time.Hour)
	if err == nil && d > 0 {
		body[key] = strictjson.Number(fmt.Sprint(int64(d / time.Second)))
	}
	return err
}

func (r *testReader) readBuy(s *storyStep, n *strictyaml.Node) error {
	f, who, err := r.as(n, "agent", "tool", "ttl", "max_calls", "max_sum", "constraint", "input", "renew")
	if err != nil {
		return err
	}
	holder, err := r.agent(f, "agent", &who)
	if err != nil {
		return err
	}
	tool, err := r.tool(f)
	if err != nil {
		return err
	}
	wish := map[string]any{"tool": tool.ID}
	if err := seconds(wish, f, "ttl"); err != nil {
		return err
	}
	calls, err := whole(f, "max_calls", 1<<31)
	if err != nil {
		return err
	}
	if calls > 0 {
		wish["max_calls"] = strictjson.Number(fmt.Sprint(calls))
	}
	sums, err := object(f, "max_sum")
	if err != nil {
		return err
	}
	if sums != nil {
		for arg, most := range sums {
			sums[arg] = fmt.Sprint(most) // decimals in quotes, as the broker takes them
		}
		wish["max_sum"] = sums
	}
	constraint, err := object(f, "constraint")
	if err != nil {
		return err
	}
	if constraint != nil {
		wish["constraints"] = []any{constraint}
	}
	input, err := object(f, "input")
	if err != nil {
		return err
	}
	if input != nil {
		if wish["input"], err = wholeInput(f, tool, input); err != nil {
			return err
		}
	}
	renew, err := f.Boolean("renew")
	if err != nil {
		return err
	}
	s.title += " " + tool.ID
	s.do = func(ctx context.Context, p *play) (testOutcome, error) { return p.buy(ctx, who, holder, wish, renew) }
	return nil
}

func (r *testReader) readCall(s *storyStep, n *strictyaml.Node) error {
	f, who, err := r.as(n, "tool", "input", "baseline")
	if err != nil {
		return err
	}
	tool, err := r.tool(f)
	if err != nil {
		return err
	}
	input, err := object(f, "input")
	if err != nil {
		return err
	}
	if input, err = wholeInput(f, tool, input); err != nil {
		return err
	}
	baseline, err := f.Boolean("baseline")
	if err != nil {
		return err
	}
	s.title += " " + tool.ID
	s.do = func(ctx context.Context, p *play) (testOutcome, error) {
		c, err := callOf(tool, input)
		if err != nil {
			return testOutcome{}, err
		}
		return p.check(ctx, c, who, baseline, tool.Server, tool)
	}
	return nil
}

func (r *testReader) readMCP(s *storyStep, n *strictyaml.Node) error {
	f, who, err := r.as(n, "server", "method", "params", "baseline")
	if err != nil {
		return err
	}
	server, err := r.server(f)
	if err != nil {
		return err
	}
	method, err := readMethod(f)
	if err != nil {
		return err
	}
	if method.Kind != mcp.Request && method.Kind != mcp.Notification {
		return f.Errorf("%s is no request and no notification: write a single case of it", method.Name)
	}
	revision := newest(server, method.In)
	if revision == "" {
		return f.Errorf("the server %s speaks no revision of MCP that has %s", server.ID, method.Name)
	}
	params, err := object(f, "params")
	if err != nil {
		return err
	}
	baseline, err := f.Boolean("baseline")
	if err != nil {
		return err
	}
	s.title += " " + method.Name
	s.do = func(ctx context.Context, p *play) (testOutcome, error) {
		c, err := messageOf(server, method, revision, params)
		if err != nil {
			return testOutcome{}, err
		}
		return p.check(ctx, c, who, baseline, server, nil)
	}
	return nil
}

func (r *testReader) readRevoke(s *storyStep, n *strictyaml.Node) error {
	f, who, err := r.as(n, "agent", "tool")
	if err != nil {
		return err
	}
	holder, err := r.agent(f, "agent", &who)
	if err != nil {
		return err
	}
	tool, err := r.tool(f)
	if err != nil {
		return err
	}
	s.title += " " + tool.ID
	s.do = func(ctx context.Context, p *play) (testOutcome, error) { return p.revoke(ctx, who, holder, tool.ID) }
	return nil
}

func (r *testReader) readEnd(s *storyStep, n *strictyaml.Node) error {
	_, who, err := r.as(n)
	s.do = func(ctx context.Context, p *play) (testOutcome, error) { return p.end(ctx, who) }
	return err
}
