package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// testOutcome is what came of a case or a step.
type testOutcome struct {
	allow    bool
	reason   grants.Reason // of a denial
	detail   string        // what its caller was told
	advice   string
	by       []string                 // ids of the policies on record, sorted
	decisive []string                 // of these, what counts as covered
	granted  []string                 // tools, sorted
	refused  map[string]grants.Reason // tool -> why
	asked    []asked
}

// play is a story while it is played. Its task is the one that was started last.
type play struct {
	house *testHouse
	task  grants.ID
	held  []heldToken // oldest first
}

// heldToken is a token that an agent got.
type heldToken struct {
	agent, server, token string
	grants               map[string]grants.ID // tool -> grant
}

// tokensAnswer is what of an answer says which tokens it has.
type tokensAnswer struct {
	Task   grants.ID `json:"task"`
	Tokens []struct {
		Server  string `json:"server"`
		Token   string `json:"access_token"`
		Details []struct {
			Grant grants.ID `json:"grant_id"`
			Tool  string    `json:"tool"`
		} `json:"authorization_details"`
	} `json:"tokens"`
	Refused []struct {
		Tool   string        `json:"tool"`
		Reason grants.Reason `json:"reason"`
	} `json:"refused"`
}

// keep gives the answer's tokens to who holds them.
func (p *play) keep(holder grants.Principal, o *testOutcome, a *tokensAnswer) {
	o.refused = map[string]grants.Reason{}
	for _, t := range a.Tokens {
		held := heldToken{agent: holder.ID(), server: t.Server, token: t.Token, grants: map[string]grants.ID{}}
		for _, d := range t.Details {
			held.grants[d.Tool] = d.Grant
			o.granted = append(o.granted, d.Tool)
		}
		p.held = append(p.held, held)
	}
	for _, no := range a.Refused {
		o.refused[no.Tool] = no.Reason
	}
	slices.Sort(o.granted)
}

// started is the task's id; before one was started, that of none.
func (p *play) started() grants.ID {
	if p.task == "" {
		return grants.NewID(grants.TaskPrefix)
	}
	return p.task
}

// holding is the newest grant of the tool that the agent has; "" for none.
func (p *play) holding(agent grants.Principal, tool string) grants.ID {
	for _, h := range slices.Backward(p.held) {
		if id := h.grants[tool]; id != "" && h.agent == agent.ID() {
			return id
		}
	}
	return ""
}

// start starts a task. holder is its one agent, which gets the tokens if there
// are any.
func (p *play) start(ctx context.Context, who, holder grants.Principal, body map[string]any) (testOutcome, error) {
	o, text, err := p.house.send(ctx, who, http.MethodPost, "/v1/tasks", body)
	if err != nil || !o.allow {
		return o, err
	}
	var a tokensAnswer
	if err := json.Unmarshal(text, &a); err != nil {
		return o, fmt.Errorf("the answer to a start: %w", err)
	}
	p.task = a.Task
	p.keep(holder, &o, &a)
	return o, nil
}

// buy asks for a grant of the story's task.
func (p *play) buy(ctx context.Context, who, holder grants.Principal, wish map[string]any, renew bool) (testOutcome, error) {
	body := map[string]any{"task": p.started(), "grants": []any{wish}}
	if holder.ID() != who.ID() {
		body["agent"] = holder.ID()
	}
	if renew {
		old := p.holding(holder, wish["tool"].(string))
		if old == "" {
			return testOutcome{}, fmt.Errorf("%s has no grant of %s to renew", holder.ID(), wish["tool"])
		}
		wish = maps.Clone(wish)
		wish["renew"] = old
		body["grants"] = []any{wish}
	}
	o, text, err := p.house.send(ctx, who, http.MethodPost, "/v1/grants", body)
	if err != nil || !o.allow {
		return o, err
	}
	var a tokensAnswer
	if err := json.Unmarshal(text, &a); err != nil {
		return o, fmt.Errorf("the answer with a grant: %w", err)
	}
	p.keep(holder, &o, &a)
	return o, nil
}

// check calls a tool, or asks its MCP server something (tool is nil), with the
// credential that the agent would choose: the newest token with a grant of the
// tool, else the newest for the server, else its identity.
func (p *play) check(ctx context.Context, c *wireCall, who grants.Principal, baseline bool, s *catalog.Server, tool *catalog.Tool) (testOutcome, error) {
	credential, best := "", -1
	for _, h := range p.held {
		fit := 0
		if tool != nil && h.grants[tool.ID] != "" {
			fit = 1
		}
		if h.agent == who.ID() && h.server == s.ID && fit >= best && !baseline {
			credential, best = h.token, fit
		}
	}
	if credential == "" {
		var err error
		if credential, err = p.house.identity(who, s.Resource); err != nil {
			return testOutcome{}, err
		}
	}
	header := s.CredentialIn(p.house.header)
	if tool != nil && s.MCP == nil {
		header = tool.CredentialIn(p.house.header)
	}
	c.present(header, credential)
	return p.house.check(ctx, c)
}

func (p *play) revoke(ctx context.Context, who, holder grants.Principal, tool string) (testOutcome, error) {
	id := p.holding(holder, tool)
	if id == "" {
		return testOutcome{}, fmt.Errorf("%s has no grant of %s to revoke", holder.ID(), tool)
	}
	o, _, err := p.house.send(ctx, who, http.MethodDelete, "/v1/grants/"+url.PathEscape(id), nil)
	return o, err
}

func (p *play) end(ctx context.Context, who grants.Principal) (testOutcome, error) {
	o, _, err := p.house.send(ctx, who, http.MethodPost, "/v1/tasks/"+p.started()+"/end", nil)
	return o, err
}
