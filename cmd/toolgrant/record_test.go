package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/client"
	"github.com/toolgrant/toolgrant/grants"
)

// TestNoRecordNoCall: while nothing can be recorded, nothing is allowed at
// either door, nothing is spent, and what was issued is taken back.
func TestNoRecordNoCall(t *testing.T) {
	w, _ := open(t)
	task := w.task()
	tok := w.export(task, func(r *client.GrantRequest) { r.MaxCalls = 1 })
	away := w.cfg.Audit.File + ".away"
	if err := os.Rename(w.cfg.Audit.File, away); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.wantCall(tok.AccessToken, http.StatusServiceUnavailable, "cannot_record")
	}
	w.wantCall("", http.StatusServiceUnavailable, "cannot_record") // a denial is a decision, too
	var refused *client.Error
	if _, err := w.bot().Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task, TTL: time.Minute}); !errors.As(err, &refused) || refused.Reason != "cannot_record" {
		t.Fatalf("exchange: %v", err)
	}
	if _, err := w.planner().StartTask(t.Context(), client.TaskRequest{Kind: "monthly-report"}); !errors.As(err, &refused) || refused.Reason != "cannot_record" {
		t.Fatalf("task start: %v", err)
	}
	if err := os.Rename(away, w.cfg.Audit.File); err != nil {
		t.Fatal(err)
	}
	w.until("it records again", func() bool {
		return w.call("", "POST", exportCSV, october).status == http.StatusUnauthorized
	})
	w.wantCall(tok.AccessToken, http.StatusOK, "") // the one call that the budget has
	w.wantCall(tok.AccessToken, http.StatusForbidden, "budget_spent")
}

// TestEndedMeanwhile: a grant that ends, or a caller whose time runs out, while
// the call is decided or recorded is no allow, and its budget is whole.
func TestEndedMeanwhile(t *testing.T) {
	w, p := inProcess(t)
	serveIssue(t, w, p)
	for _, when := range []string{"deciding", "recording"} {
		for _, what := range []string{"revoked", "undecided"} {
			t.Run(what+" while "+when, func(t *testing.T) {
				tok := w.export(w.task(), func(r *client.GrantRequest) { r.MaxCalls = 1 })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				end := func() {
					if what == "undecided" {
						cancel() // Envoy has stopped waiting
						return
					}
					rev, err := p.store.Fence(t.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: tok.Grants[0].ID, Why: grants.Revoked, Until: tok.Grants[0].ExpiresAt})
					if err != nil || p.table.Wait(t.Context(), rev) != nil {
						t.Error("fence:", err)
					}
				}
				cfg := p.doorConfig(w.cfg, zap.NewNop())
				var records []audit.Record
				cfg.Record = func(r audit.Record) error {
					if records = append(records, r); when == "recording" && len(records) == 1 {
						end()
					}
					return nil
				}
				if when == "deciding" {
					decide := cfg.Decide
					cfg.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
						ds, err := decide(ctx, in)
						end()
						return ds, err
					}
				}
				resp, err := authz.New(cfg).Check(ctx, checkRequest(tok.AccessToken))
				if err != nil || !strings.Contains(resp.GetDeniedResponse().GetBody(), `"reason":"`+what+`"`) {
					t.Fatalf("%v %v", resp, err)
				}
				last := records[len(records)-1]
				if last.Outcome != audit.Deny || when == "recording" && (len(records) != 2 || records[0].Outcome != audit.Allow || records[0].ID != last.ID) {
					t.Errorf("on record: %+v", records)
				}
				if what == "undecided" { // the grant lives, and the budget of one is whole
					if resp, err := p.check.Check(t.Context(), checkRequest(tok.AccessToken)); err != nil || resp.GetOkResponse() == nil {
						t.Errorf("what was spent was not given back: %v %v", resp, err)
					}
				}
			})
		}
	}
}

// TestTimePassesWhileRecording: no call passes at or after the end of what it
// was allowed by, however long the record took, and the record says so.
func TestTimePassesWhileRecording(t *testing.T) {
	w := layOut(t)
	if err := w.write("policies/init.cedar", `@id("init-needs-no-grant")
permit (principal, action in Toolgrant::Action::"call", resource in Toolgrant::ToolSet::"init");
`); err != nil {
		t.Fatal(err)
	}
	p := w.run()
	serveIssue(t, w, p)
	health := func(token string) *authv3.CheckRequest {
		r := checkRequest(token)
		r.Attributes.ContextExtensions[authz.ContextTool] = "reports/health"
		h := r.Attributes.Request.Http
		h.Method, h.Path, h.RawBody = "GET", "/health", nil
		return r
	}
	task := w.task()
	tok := w.export(task).AccessToken
	for name, req := range map[string]*authv3.CheckRequest{
		"a grant":                            checkRequest(tok),
		"the baseline, by a grant's token":   health(tok),
		"the baseline, by an identity token": health(w.identity("report-bot", "https://reports.internal")),
	} {
		t.Run(name, func(t *testing.T) {
			var ahead atomic.Int64
			cfg := p.doorConfig(w.cfg, zap.NewNop())
			cfg.Table = grants.NewTable(grants.TableConfig{Draw: p.store.Draw, Clock: func() (time.Time, time.Duration) {
				wall, mono := grants.SystemClock()
				return wall.Add(time.Duration(ahead.Load())), mono + time.Duration(ahead.Load())
			}, MaxStaleness: 24 * time.Hour})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = cfg.Table.Follow(ctx, p.store, nil) }()
			defer func() { cancel(); <-done }()
			if err := cfg.Table.Wait(t.Context(), p.table.Rev()); err != nil {
				t.Fatal(err)
			}
			var records []audit.Record
			cfg.Record = func(r audit.Record) error { records = append(records, r); return nil }
			door := authz.New(cfg)
			if resp, err := door.Check(t.Context(), req); err != nil || resp.GetOkResponse() == nil {
				t.Fatalf("in time: %v %v", resp, err)
			}
			records, cfg.Record = nil, func(r audit.Record) error {
				records = append(records, r)
				ahead.Store(int64(2 * time.Hour))
				return nil
			}
			resp, err := authz.New(cfg).Check(t.Context(), req)
			if err != nil || resp.GetDeniedResponse() == nil {
				t.Fatalf("two hours later: %v %v", resp, err)
			}
			if len(records) != 2 || records[1].Outcome != audit.Deny {
				t.Errorf("on record: %+v", records)
			}
		})
	}

	// A token names its agent for the baseline while its grant lives, and no
	// longer: also when that ends while the record is written.
	cfg := p.doorConfig(w.cfg, zap.NewNop())
	cfg.Record = func(audit.Record) error {
		f := grants.Fence{Scope: grants.ScopeTask, Key: task, Why: grants.TaskEnded, Until: time.Now().Add(time.Hour)}
		rev, err := p.store.Fence(t.Context(), f)
		return errors.Join(err, p.table.Wait(t.Context(), rev))
	}
	resp, err := authz.New(cfg).Check(t.Context(), health(tok))
	if err != nil || !strings.Contains(resp.GetDeniedResponse().GetBody(), `"task_ended"`) {
		t.Errorf("%v %v", resp, err)
	}
}

// TestUnrecordedIsTakenBack: what was written and could not be recorded does not
// stay.
func TestUnrecordedIsTakenBack(t *testing.T) {
	w, p := inProcess(t)
	serveIssue(t, w, p)
	task := w.task()
	cfg := p.brokerConfig(w.cfg, zap.NewNop())
	var unrecorded []audit.Record
	cfg.Record = func(rs []audit.Record) error {
		unrecorded = append(unrecorded, rs...)
		return errors.New("no room")
	}
	p.issue = broker.New(cfg)
	serveIssue(t, w, p)
	if _, err := w.bot().Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task}); err == nil {
		t.Fatal("a grant without a record")
	}
	if _, err := w.planner().StartTask(t.Context(), client.TaskRequest{Kind: "monthly-report"}); err == nil {
		t.Fatal("a task without a record")
	}
	if g := unrecorded[0].Grant; g == "" {
		t.Fatalf("%+v", unrecorded)
	} else if _, why := p.table.Lookup(g); why == grants.None {
		t.Error("the grant lives")
	}
	if _, why := p.table.Task(unrecorded[1].Task); why == grants.None {
		t.Error("the task is open")
	}
}

// TestPanicIsADenial, on record, at both doors.
func TestPanicIsADenial(t *testing.T) {
	w, p := inProcess(t)
	serveIssue(t, w, p)
	task := w.task()
	tok := w.export(task)
	panics := func(context.Context, []grants.Input) ([]grants.Decision, error) { panic("planted") }
	var records []audit.Record

	call := p.doorConfig(w.cfg, zap.NewNop())
	call.Decide = panics
	call.Record = func(r audit.Record) error { records = append(records, r); return nil }
	resp, err := authz.New(call).Check(t.Context(), checkRequest(tok.AccessToken))
	if err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("%v %v", resp, err)
	}

	issue := p.brokerConfig(w.cfg, zap.NewNop())
	issue.Decide = panics
	issue.Record = func(rs []audit.Record) error { records = append(records, rs...); return nil }
	p.issue = broker.New(issue)
	serveIssue(t, w, p)
	var refused *client.Error
	if _, err := w.bot().Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task}); !errors.As(err, &refused) || refused.Status != 503 {
		t.Errorf("exchange: %v", err)
	}
	if len(records) != 2 || records[0].Outcome != audit.Deny || records[1].Outcome != audit.Deny {
		t.Errorf("on record: %+v", records)
	}
}
