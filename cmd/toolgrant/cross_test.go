package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/client"
)

// crossWorld is three servers with three tools each, and a policy by which
// everybody may be granted everything: what keeps one grant from being another
// is not policy.
func crossWorld(t *testing.T) *world {
	t.Helper()
	w := layOut(t)
	var cat strings.Builder
	cat.WriteString("servers:\n")
	for s := range 3 {
		fmt.Fprintf(&cat, "- id: s%d\n  resource: https://s%d.internal\n  upstream: %s\n  http:\n", s, s, w.upstream)
		for tool := range 3 {
			fmt.Fprintf(&cat, "  - {tool: t%d, method: GET, path: /s%d/t%d}\n", tool, s, tool)
		}
	}
	for name, text := range map[string]string{
		"tools.yaml": cat.String(),
		"policies/issue.cedar": `
@id("anyone-starts") permit (principal, action == Toolgrant::Action::"start_task", resource);
@id("anything-granted") permit (principal, action == Toolgrant::Action::"grant", resource);`,
	} {
		if err := w.write(name, text); err != nil {
			t.Fatal(err)
		}
	}
	w.load()
	w.serve()
	w.startEnvoy()
	return w
}

// TestCrossProduct: 3 agents × 3 tasks × 3 tools × 3 servers, about half of them
// granted, each token shown at each tool, over HTTP/1.1 and HTTP/2: allowed
// exactly where granted (T13, B14).
func TestCrossProduct(t *testing.T) {
	w := crossWorld(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	clients := []*http.Client{
		{Transport: &http.Transport{Protocols: protocols("HTTP/1.1")}},
		{Transport: &http.Transport{Protocols: protocols("HTTP/2")}},
	}
	var agents []string
	for a := range 3 {
		agents = append(agents, fmt.Sprintf("corp/a%d", a))
	}
	granted, allowed, refused := 0, 0, 0
	for task := range 3 {
		started, err := w.planner().StartTask(t.Context(), client.TaskRequest{Kind: "any", Agents: agents})
		if err != nil {
			t.Fatal(err)
		}
		for agent := range 3 {
			as := w.as(fmt.Sprintf("a%d", agent))
			for server := range 3 {
				var asks []client.GrantRequest
				holds := map[string]bool{} // path ->
				for tool := range 3 {
					if rng.IntN(2) == 0 {
						continue
					}
					asks = append(asks, client.GrantRequest{Tool: fmt.Sprintf("s%d/t%d", server, tool), Task: started.ID})
					holds[fmt.Sprintf("/s%d/t%d", server, tool)] = true
				}
				if len(asks) == 0 {
					continue
				}
				granted += len(asks)
				tok, err := as.Exchange(t.Context(), asks...)
				if err != nil {
					t.Fatal(err)
				}
				for s := range 3 {
					for tool := range 3 {
						path := fmt.Sprintf("/s%d/t%d", s, tool)
						before := w.tool.calls()
						for _, hc := range clients {
							got, err := w.try(hc, tok.AccessToken, "GET", path, "")
							if err != nil {
								t.Fatal(err)
							}
							if (got.status == http.StatusOK) != holds[path] {
								t.Errorf("agent %d, task %d, token for %v, at %s: %d %s", agent, task, holds, path, got.status, got.body)
							}
							if got.status != http.StatusOK {
								refused++
							} else if seen, _ := w.tool.last(); seen.Header.Get("X-Grant-Ctx-Agent") != agents[agent] || seen.Header.Get("X-Grant-Ctx-Task") != started.ID {
								t.Errorf("the tool was told of %v", seen.Header)
							} else {
								allowed++
							}
						}
						if ran := w.tool.calls() - before; (ran == 2) != holds[path] || ran == 1 {
							t.Errorf("%s ran %d times", path, ran)
						}
					}
				}
			}
		}
	}
	if allowed != 2*granted || refused == 0 {
		t.Errorf("%d grants, %d calls allowed, %d refused", granted, allowed, refused)
	}
}

// TestGrantOfAnotherTask: who is no agent of a task gets no grant in it.
func TestGrantOfAnotherTask(t *testing.T) {
	w := crossWorld(t)
	start := func(agent string) string {
		task, err := w.planner().StartTask(t.Context(), client.TaskRequest{Kind: "any", Agents: []string{"corp/" + agent}})
		if err != nil {
			t.Fatal(err)
		}
		return task.ID
	}
	a, b := start("a0"), start("a1")
	for _, tc := range []struct {
		agent, task string
		ok          bool
	}{{"a0", a, true}, {"a1", b, true}, {"a0", b, false}, {"a1", a, false}} {
		_, err := w.as(tc.agent).Exchange(t.Context(), client.GrantRequest{Tool: "s0/t0", Task: tc.task})
		if (err == nil) != tc.ok {
			t.Errorf("%s in %s: %v", tc.agent, tc.task, err)
		}
	}
}
