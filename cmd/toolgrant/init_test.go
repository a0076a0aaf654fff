package main

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

// TestInitToolsOutliveGrants runs an agent whose start-up needs a tool of the
// set init: it works before any grant, while every grant expires, and after; a
// granted tool does only inside its window.
func TestInitToolsOutliveGrants(t *testing.T) {
	w := layOut(t)
	if err := w.write("policies/baseline.cedar", `
@id("start-up-needs-no-grant")
permit (principal in Toolgrant::AgentGroup::"reporting", action in Toolgrant::Action::"call", resource in Toolgrant::ToolSet::"init");
`); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.startEnvoy()
	self := w.identity("report-bot", "https://reports.internal", "reporting")
	health := func() int { return w.call(self, "GET", "/health", "").status }
	if got := health(); got != http.StatusOK {
		t.Fatalf("before any grant: %d", got)
	}
	w.wantCall(self, http.StatusForbidden, "no_grant") // write is not init

	// The agent: it looks after itself all the time, whatever becomes of its
	// grants.
	var stop atomic.Bool
	var looks atomic.Int64
	var agent sync.WaitGroup
	agent.Go(func() {
		for !stop.Load() {
			if got := health(); got != http.StatusOK {
				t.Errorf("start-up tool: %d", got)
				return
			}
			looks.Add(1)
		}
	})
	defer agent.Wait()
	defer stop.Store(true)

	task := w.task()
	for range 2 {
		tok := w.export(task, func(r *client.GrantRequest) { r.TTL = 3 * time.Second })
		w.until("the grant has worked", func() bool {
			return w.call(tok.AccessToken, "POST", exportCSV, october).status == http.StatusOK || time.Now().After(tok.Grants[0].ExpiresAt)
		})
		w.until("the grant has expired", func() bool { return time.Now().After(tok.Grants[0].ExpiresAt) })
		if a := w.call(tok.AccessToken, "POST", exportCSV, october); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "expired_token") {
			t.Errorf("after its end: %d %s", a.status, a.body)
		}
		seen := looks.Load()
		w.until("the start-up tool still works", func() bool { return looks.Load() > seen })
	}
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	seen := looks.Load()
	w.until("the start-up tool works after the task", func() bool { return looks.Load() > seen })
}

// TestBaselineByGrantToken: a grant token names its agent for the baseline while
// a grant of it lives, and no longer.
func TestBaselineByGrantToken(t *testing.T) {
	w := layOut(t)
	if err := w.write("policies/baseline.cedar", `
@id("start-up-needs-no-grant")
permit (principal in Toolgrant::AgentGroup::"reporting", action in Toolgrant::Action::"call", resource in Toolgrant::ToolSet::"init");
`); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.startEnvoy()
	task := w.task()
	tok := w.export(task)
	if a := w.call(tok.AccessToken, "GET", "/health", ""); a.status != http.StatusOK {
		t.Fatalf("while the grant lives: %d %s", a.status, a.body)
	}
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	before := w.tool.calls()
	w.check(w.call(tok.AccessToken, "GET", "/health", ""), before, http.StatusForbidden, "task_ended")
}
