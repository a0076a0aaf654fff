package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/client"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// inProcess is everything behind both doors of a world, running.
func inProcess(t testing.TB) (*world, *parts) {
	t.Helper()
	w := layOut(t)
	// What is driven here is not what limits are for.
	w.cfg.Limits.RequestsPerAgent, w.cfg.Limits.GrantsPerAgent, w.cfg.Limits.TasksPerOwner = 1<<20, 1<<20, 1<<20
	return w, w.run()
}

// run wires the parts of a world and keeps them going.
func (w *world) run() *parts {
	w.t.Helper()
	p, err := wire(w.cfg, zap.NewNop())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.run(ctx) })
	w.t.Cleanup(func() { cancel(); wg.Wait(); _ = p.trail.Close() })
	w.until("the table is up to date", p.table.Fresh)
	return p
}

// serveIssue serves the issue door of parts over loopback.
func serveIssue(t testing.TB, w *world, p *parts) {
	srv := httptest.NewServer(p.issue.Handler())
	t.Cleanup(srv.Close)
	w.broker = srv.URL
}

// TestTokenAndTableMustAgree: a key is not enough. Tokens signed by the broker's
// own key, for grants that are live, but not those that they claim to be; and
// grants that are not what the door can hold to.
func TestTokenAndTableMustAgree(t *testing.T) {
	w, p := inProcess(t)
	bot := grants.Principal{Issuer: "corp", Subject: "report-bot", Groups: []string{"reporting"}}
	stranger := grants.Principal{Issuer: "corp", Subject: "stranger"}
	export, _ := p.catalog.Tool("reports/export")
	for _, tc := range []struct {
		name   string
		grant  func(*grants.Grant)
		claims func(*token.Claims)
		req    func(*authv3.CheckRequest)
		want   string // reason; "" is an allow
	}{
		{"as it should be", nil, nil, nil, ""},
		{"another agent", nil, func(c *token.Claims) { c.Subject = "corp/other-bot" }, nil, "bad_credential"},
		{"another task", nil, func(c *token.Claims) { c.Task.ID = grants.NewID(grants.TaskPrefix) }, nil, "bad_credential"},
		{"a grant of another tool", func(g *grants.Grant) { g.Tool = "reports/purge" }, nil, nil, "wrong_tool"},
		{"a grant that is in no table", nil, func(c *token.Claims) { c.Details[0].GrantID = grants.NewID(grants.GrantPrefix) }, nil, "unknown_grant"},
		{"another server", nil, func(c *token.Claims) { c.Audience = "https://other.internal" }, nil, "bad_credential"},
		{"a token bound to a key", nil, func(c *token.Claims) { c.CNF.Key = grants.Digest{1} }, nil, "unbound_token"},
		{"a grant bound to a key", func(g *grants.Grant) { g.CNF = grants.Digest{1} }, nil, nil, "unbound_token"},
		{"a grant of what the tool was", func(g *grants.Grant) { g.Pin = grants.Digest{1} }, nil, nil, "tool_changed"},
		{"the tool as it is", func(g *grants.Grant) { g.Pin = grants.Digest(export.Digest) }, nil, nil, ""},
		{"an older policy, and today's permits it", func(g *grants.Grant) { g.Policy = grants.Digest{1} }, nil, nil, ""},
		{"an older policy, and today's does not", func(g *grants.Grant) { g.Policy, g.Agent, g.Requester = grants.Digest{1}, stranger, stranger },
			func(c *token.Claims) { c.Subject = stranger.ID() }, nil, "policy_changed"},
		{"a token that ends before its grant", nil, func(c *token.Claims) { c.Expires = c.NotBefore.Add(time.Second) }, nil, "expired_token"},
		{"a revision that this node does not reach", nil, func(c *token.Claims) { c.Rev.N += 1 << 30 }, nil, "not_fresh"},
		{"another client certificate", nil, nil, func(r *authv3.CheckRequest) {
			r.Attributes.Source = &authv3.AttributeContext_Peer{Principal: "other-bot", Certificate: "PEM"}
		}, "no_grant"},
		{"its own client certificate", nil, nil, func(r *authv3.CheckRequest) {
			r.Attributes.Source = &authv3.AttributeContext_Peer{Principal: "report-bot", Certificate: "PEM"}
		}, ""},
		{"another client certificate, for a tool of the baseline", nil, func(c *token.Claims) { c.Details[0].Tool = "reports/health" }, func(r *authv3.CheckRequest) {
			r.Attributes.Source = &authv3.AttributeContext_Peer{Principal: "other-bot", Certificate: "PEM"}
		}, "no_grant"},
		{"a token whose grants live no more, for a tool of the baseline", nil, func(c *token.Claims) {
			c.Details[0].Tool, c.Details[0].GrantID = "reports/health", grants.NewID(grants.GrantPrefix)
		}, nil, "unknown_grant"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := time.Now().Truncate(time.Second)
			task := grants.Task{ID: grants.NewID(grants.TaskPrefix), Kind: "monthly-report", Owner: bot, Agents: []string{bot.ID()}, Deadline: now.Add(time.Hour)}
			if _, why, err := p.store.Start(t.Context(), task); why != grants.None || err != nil {
				t.Fatal(why, err)
			}
			g := grants.Grant{
				ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Agent: bot, Requester: bot, Tool: "reports/export",
				NotBefore: now.Add(-2 * time.Second), Expires: now.Add(5 * time.Minute), Policy: p.policies.Current().Revision(), Rev: p.table.Rev(),
			}
			if tc.grant != nil {
				tc.grant(&g)
			}
			rev, why, err := p.store.Issue(t.Context(), []grants.Grant{g})
			if why != grants.None || err != nil {
				t.Fatal(why, err)
			}
			if err := p.table.Wait(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
			c := token.Claims{
				Issuer: w.cfg.Broker.Issuer, Subject: g.Agent.ID(), Audience: "https://reports.internal", ID: grants.NewID(token.IDPrefix),
				IssuedAt: g.NotBefore, NotBefore: g.NotBefore, Expires: g.Expires, Task: token.Task{ID: g.Task, Kind: task.Kind}, Rev: rev,
				Details: []token.Detail{{Type: token.DetailType, GrantID: g.ID, Tool: "reports/export"}},
			}
			if tc.claims != nil {
				tc.claims(&c)
			}
			signed, err := p.keys.Mint(c)
			if err != nil {
				t.Fatal(err)
			}
			req := checkRequest(signed)
			if tc.req != nil {
				tc.req(req)
			}
			resp, err := p.check.Check(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			got := resp.GetDeniedResponse().GetBody()
			if tc.want == "" && resp.GetOkResponse() == nil || tc.want != "" && !strings.Contains(got, `"reason":"`+tc.want+`"`) {
				t.Errorf("%s; want %q", got, tc.want)
			}
		})
	}
}

// TestWindowCutsTheAnswer: Envoy is told to end the response with the window,
// and never later than the route's own time.
func TestWindowCutsTheAnswer(t *testing.T) {
	w, p := inProcess(t)
	serveIssue(t, w, p)
	timeout := func(tok string) string {
		resp, err := p.check.Check(t.Context(), checkRequest(tok))
		if err != nil || resp.GetOkResponse() == nil {
			t.Fatal(resp, err)
		}
		for _, h := range resp.GetOkResponse().GetHeaders() {
			if h.GetHeader().GetKey() == "x-envoy-upstream-rq-timeout-ms" {
				return h.GetHeader().GetValue()
			}
		}
		return ""
	}
	task := w.task()
	if got := timeout(w.export(task).AccessToken); got != "15000" { // the route's
		t.Errorf("a long window: %q", got)
	}
	short := w.export(task, func(r *client.GrantRequest) { r.TTL = 3 * time.Second })
	if got := timeout(short.AccessToken); len(got) > 4 || got == "" || got > "3000" {
		t.Errorf("a window of 3 s: %q", got)
	}
	// The longer grant lives, and is reused: the token's end cuts all the same.
	long := w.bot()
	if _, err := long.Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task, TTL: 5 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	again, err := long.Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task, TTL: 3 * time.Second})
	if err != nil || !again.Grants[0].Reused {
		t.Fatalf("%+v %v", again.Grants, err)
	}
	if got := timeout(again.AccessToken); len(got) > 4 || got > "3000" {
		t.Errorf("a token of 3 s on a longer grant: %q", got)
	}
}
