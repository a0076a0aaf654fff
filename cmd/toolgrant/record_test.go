package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
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

// TestPanicIsADenial, on record, at both doors.
func TestPanicIsADenial(t *testing.T) {
	w, p := inProcess(t)
	serveIssue(t, w, p)
	tok := w.export(w.task())
	cfg := p.doorConfig(w.cfg, zap.NewNop())
	cfg.Decide = func(context.Context, []grants.Input) ([]grants.Decision, error) { panic("planted") }
	resp, err := authz.New(cfg).Check(t.Context(), checkRequest(tok.AccessToken))
	if err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("%v %v", resp, err)
	}
}
