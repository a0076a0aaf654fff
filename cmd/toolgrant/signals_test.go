package main

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/client"
)

// TestBothSignals: through the running program. A call by a revoked grant, and
// more requests of one agent for one tool than detect.grant_requests, are each a
// line in the log that holds the decision ids that the caller was given, and a
// metric; and no label of a metric is anybody's name.
func TestBothSignals(t *testing.T) {
	w := layOut(t)
	if err := w.edit("toolgrant.yaml", "grant_requests: 30", "grant_requests: 3"); err != nil {
		t.Fatal(err)
	}
	w.load()
	w.serve()
	w.startEnvoy()
	task := w.task()
	tok := w.export(task)
	w.wantCall(tok.AccessToken, http.StatusOK, "")
	if err := w.planner().Revoke(t.Context(), tok.Grants[0].ID); err != nil {
		t.Fatal(err)
	}
	a := w.call(tok.AccessToken, "POST", exportCSV, october)
	if a.status != http.StatusForbidden {
		t.Fatalf("%d %s", a.status, a.body)
	}
	outside := regexp.MustCompile(`"decision_id":"(d_[a-z2-7]{26})"`).FindStringSubmatch(a.body)
	if outside == nil {
		t.Fatalf("no decision id: %s", a.body)
	}
	// The first request was one; the third more is the fourth, one over three. It is refused,
	// and its id is told.
	for range 2 {
		w.export(task)
	}
	var refused *client.Error
	_, err := w.bot().Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task, TTL: 3600e9})
	if err == nil {
		t.Fatal("an hour was granted")
	}
	if !errors.As(err, &refused) || refused.DecisionID == "" {
		t.Fatal(err)
	}
	line := func(msg string, more ...string) func() bool {
		return func() bool {
			for l := range strings.SplitSeq(w.log.String(), "\n") {
				if strings.Contains(l, msg) && !strings.Contains(l, `"level":"info"`) {
					for _, m := range more {
						if !strings.Contains(l, m) {
							return false
						}
					}
					return true
				}
			}
			return false
		}
	}
	w.until("the call outside its window is told", line("calls outside any window", outside[1], `"reason":"revoked"`, `"tool":"reports/export"`, "corp/report-bot"))
	w.until("the spike is told", line("grant requests above the configured rate", `"tool":"reports/export"`, "corp/report-bot", refused.DecisionID))
	metric := func(text string) func() bool {
		return func() bool { _, page := w.page("/metrics"); return strings.Contains(page, "\n"+text+"\n") }
	}
	w.until("the call is counted", metric(`toolgrant_calls_outside_window_total{reason="revoked",tool="reports/export"} 1`))
	w.until("the spike is counted", metric(`toolgrant_grant_request_spikes_total{tool="reports/export"} 1`))
	w.until("decisions are counted", metric(`toolgrant_decisions_total{kind="call",outcome="deny",reason="revoked"} 1`))
	w.until("decisions are counted", metric(`toolgrant_decisions_total{kind="revoke",outcome="allow",reason="none"} 1`))
	_, page := w.page("/metrics")
	for _, name := range []string{"report-bot", "planner", task, tok.Grants[0].ID, outside[1], "127.0.0.1"} {
		if strings.Contains(page, name) {
			t.Errorf("the metrics name %s", name)
		}
	}
	if n := strings.Count(page, "toolgrant_"); n < 20 {
		t.Error(fmt.Sprint("only ", n, " lines of metrics"))
	}
}
