package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

const sweepGrants = 100_000

// TestSweepWhileCalling: 100,000 grants, half of which new policies do not give,
// are called while the policies are swapped. A check that starts after the swap
// is never allowed what they deny, swept or not; what they permit goes on all the
// time; and the sweep fences exactly the others.
func TestSweepWhileCalling(t *testing.T) {
	w := layOut(t)
	w.cfg.Limits.GrantsPerAgent = sweepGrants
	p := w.run()
	bot := grants.Principal{Issuer: "corp", Subject: "report-bot", Groups: []string{"reporting"}}
	now := time.Now().Truncate(time.Second)
	task := grants.Task{ID: grants.NewID(grants.TaskPrefix), Kind: "monthly-report", Owner: bot, Agents: []string{bot.ID()}, Deadline: now.Add(time.Hour)}
	if _, why, err := p.store.Start(t.Context(), task); why != grants.None || err != nil {
		t.Fatal(why, err)
	}
	// Every other one is longer than the new policies allow.
	var ids [2][]grants.ID // kept, denied
	var last grants.Rev
	batch := make([]grants.Grant, 0, grants.MaxBatch)
	for i := range sweepGrants {
		g := grants.Grant{
			ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Agent: bot, Requester: bot, Tool: "reports/export",
			NotBefore: now, Expires: now.Add(time.Duration(5+5*(i%2)) * time.Minute), Policy: p.policies.Current().Revision(), Rev: p.table.Rev(),
		}
		ids[i%2] = append(ids[i%2], g.ID)
		if batch = append(batch, g); len(batch) == cap(batch) || i == sweepGrants-1 {
			rev, why, err := p.store.Issue(t.Context(), batch)
			if why != grants.None || err != nil {
				t.Fatal(why, err)
			}
			last, batch = rev, batch[:0]
		}
	}
	w.until("the table has them", func() bool { return p.table.Rev().Compare(last) >= 0 })
	mint := func(id grants.ID) string {
		signed, err := p.keys.Mint(token.Claims{
			Issuer: w.cfg.Broker.Issuer, Subject: bot.ID(), Audience: "https://reports.internal", ID: grants.NewID(token.IDPrefix),
			IssuedAt: now, NotBefore: now, Expires: now.Add(5 * time.Minute), Task: token.Task{ID: task.ID, Kind: task.Kind}, Rev: last,
			Details: []token.Detail{{Type: token.DetailType, GrantID: id, Tool: "reports/export"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	var tokens [2][]string
	for i := range tokens {
		for n := range 64 { // spread over all: some are swept early, some late
			tokens[i] = append(tokens[i], mint(ids[i][n*len(ids[i])/64]))
		}
	}

	var swapped, stop atomic.Bool
	var calls, late [2]atomic.Int64
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for n := worker; !stop.Load(); n++ {
				kind := n % 2
				after := swapped.Load() // before the check begins
				got := outcome(p.check, tokens[kind][n/2%64])
				if after {
					late[kind].Add(1)
				} else {
					calls[kind].Add(1)
				}
				switch {
				case kind == 0 && got != "":
					t.Errorf("a grant that both policies give: %s", got)
					stop.Store(true)
				case kind == 1 && after && got == "":
					t.Error("allowed after the swap what the new policies deny")
					stop.Store(true)
				case kind == 1 && got != "" && got != "policy_changed":
					t.Errorf("a grant that the new policies do not give: %s", got)
					stop.Store(true)
				}
			}
		})
	}
	w.until("calls are allowed", func() bool { return calls[0].Load() > 50 && calls[1].Load() > 50 || stop.Load() })
	if err := w.edit("policies/issue.cedar", "context.ttl <= 600", "context.ttl <= 300"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.policies.Reload(); err != nil { // Run may have been first
		t.Fatal(err)
	}
	swapped.Store(true)
	fenced := func() (n int) {
		for _, id := range ids[1] {
			if _, why := p.table.Lookup(id); why == grants.PolicyChanged {
				n++
			}
		}
		return n
	}
	w.untilBy(3*time.Minute, "the sweep has fenced what no longer holds", func() bool { return fenced() == len(ids[1]) || stop.Load() })
	w.until("calls went on", func() bool { return late[0].Load() > 50 && late[1].Load() > 50 || stop.Load() })
	stop.Store(true)
	wg.Wait()
	for _, id := range ids[0] {
		if _, why := p.table.Lookup(id); why != grants.None {
			t.Fatalf("the sweep has ended what holds: %v", why)
		}
	}
	t.Logf("calls before %d+%d, after %d+%d", calls[0].Load(), calls[1].Load(), late[0].Load(), late[1].Load())
}

// edit replaces a text in one of the world's files, as an editor does it: a new
// file takes the old one's place.
func (w *world) edit(name, old, new string) error {
	path := filepath.Join(w.dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), old) {
		return fmt.Errorf("%s does not hold %q", name, old)
	}
	if err := w.write(name+"~", strings.Replace(string(text), old, new, 1)); err != nil {
		return err
	}
	return os.Rename(path+"~", path)
}

// page reads a page of the admin server, whatever its status.
func (w *world) page(path string) (int, string) {
	w.t.Helper()
	resp, err := http.Get(w.admin + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestReloadWhileServing: through the running program and real Envoy. Broken
// files change nothing and are told by log, metric and /readyz; good ones are
// in force without a restart, and a living grant that they do not give is gone.
func TestReloadWhileServing(t *testing.T) {
	w := layOut(t)
	cmd := w.serve()
	w.startEnvoy()
	task := w.task()
	tok := w.export(task)
	w.wantCall(tok.AccessToken, http.StatusOK, "")

	has := func(path, text string) func() bool {
		return func() bool { _, page := w.page(path); return strings.Contains(page, "\n"+text+"\n") }
	}
	w.until("it is ready", has("/metrics", "toolgrant_ready 1"))
	for name, text := range map[string]string{
		"policies/syntax.cedar":   `permit (`,
		"policies/group.cedar":    `@id("x") permit (principal in Toolgrant::AgentGroup::"nosuch", action, resource);`,
		"policies/schema.cedar":   `@id("x") permit (principal, action == Toolgrant::Action::"grant", resource) when { context.ttl == "5" };`,
		"policies/tool.cedar":     `@id("x") permit (principal, action, resource == Toolgrant::Tool::"reports/nosuch");`,
		"policies/twice.cedar":    `@id("inside-a-grant") permit (principal, action, resource);`,
		"policies/nameless.cedar": `permit (principal, action, resource);`,
	} {
		if err := w.write(name, text); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		w.until("the broken file is told", has("/metrics", "toolgrant_policy_reload_failed 1"))
		if status, page := w.page("/readyz"); status != http.StatusOK || !strings.Contains(page, "a reload failed at") {
			t.Errorf("%s: /readyz: %d %s", name, status, page)
		}
		w.wantCall(tok.AccessToken, http.StatusOK, "") // P01: the old set stays
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
		w.until("it is whole again", has("/metrics", "toolgrant_policy_reload_failed 0"))
	}
	// P02: what is gone does not allow more, nor take away what was.
	if err := os.Rename(filepath.Join(w.dir, "policies"), filepath.Join(w.dir, "away")); err != nil {
		t.Fatal(err)
	}
	w.until("the missing folder is told", has("/metrics", "toolgrant_policy_reload_failed 1"))
	w.wantCall(tok.AccessToken, http.StatusOK, "")
	w.wantCall("", http.StatusUnauthorized, "no_credential")
	if err := os.Rename(filepath.Join(w.dir, "away"), filepath.Join(w.dir, "policies")); err != nil {
		t.Fatal(err)
	}
	w.until("it is there again", has("/metrics", "toolgrant_policy_reload_failed 0"))

	if err := w.edit("policies/issue.cedar", "context.ttl <= 600", "context.ttl <= 60"); err != nil {
		t.Fatal(err)
	}
	w.until("the grant is gone", func() bool {
		return w.call(tok.AccessToken, "POST", exportCSV, october).status == http.StatusForbidden
	})
	w.wantCall(tok.AccessToken, http.StatusForbidden, "policy_changed")
	w.until("it was swept", has("/metrics", `toolgrant_policy_sweep_grants_total{result="fenced"} 1`))
	if !strings.Contains(w.log.String(), "older grants were decided anew") {
		t.Error("the log does not tell of the sweep")
	}
}
