package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

func benchParts(b *testing.B) (*world, *parts) {
	b.Helper()
	w, p := inProcess(b)
	serveIssue(b, w, p)
	return w, p
}

// BenchmarkCheck is one whole decision of the call door in this process: parse,
// verify, look up, constraints, policy, record.
func BenchmarkCheck(b *testing.B) {
	w, p := benchParts(b)
	tok := w.export(w.task())
	req := checkRequest(tok.AccessToken)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := p.check.Check(b.Context(), req)
		if err != nil || resp.GetOkResponse() == nil {
			b.Fatal(resp, err)
		}
	}
}

// latencies are how long single requests took: their mean hides the slow ones.
type latencies []time.Duration

func (l *latencies) took(began time.Time) { *l = append(*l, time.Since(began)) }

// report gives the percentiles of what was timed, in microseconds.
func (l latencies) report(b *testing.B) {
	slices.Sort(l)
	for _, p := range []struct {
		name string
		at   float64
	}{{"p50-us", 0.5}, {"p99-us", 0.99}} {
		b.ReportMetric(float64(l[min(len(l)-1, int(p.at*float64(len(l))))].Nanoseconds())/1000, p.name)
	}
}

// BenchmarkIssue is from a request at the broker, over loopback HTTP, to a
// signed token: a new decision each time. The pattern's literature gives 10 to 50
// ms of policy evaluation for a grant.
func BenchmarkIssue(b *testing.B) {
	w, _ := benchParts(b)
	task, bot := w.task(), w.bot()
	var all latencies
	for i := 0; b.Loop(); i++ {
		if i%100 == 0 {
			task = w.task() // a task has some grants, not a million
		}
		began := time.Now()
		if _, err := bot.Exchange(b.Context(), client.GrantRequest{
			Tool: "reports/export", Task: task, Constraints: []json.RawMessage{onlyMonth(fmt.Sprint(i))},
		}); err != nil {
			b.Fatal(err)
		}
		all.took(began)
	}
	all.report(b)
}

// BenchmarkStart is from a request that starts a task with parameters to its id and
// its tokens: start and grant are decided, the manifest is compiled.
func BenchmarkStart(b *testing.B) {
	w := layOut(b)
	if err := w.write("manifests/monthly-report.yaml", monthlyManifest); err != nil {
		b.Fatal(err)
	}
	w.load()
	w.cfg.Limits.RequestsPerAgent, w.cfg.Limits.GrantsPerAgent, w.cfg.Limits.TasksPerOwner = 1<<20, 1<<20, 1<<20
	serveIssue(b, w, w.run())
	bot := w.as("report-bot", "reporting", "orchestrators")
	var all latencies
	for b.Loop() {
		began := time.Now()
		s, err := bot.StartTask(b.Context(), client.TaskRequest{
			Kind: "monthly-report", Params: json.RawMessage(`{"month":"2026-10"}`), Grant: true,
		})
		if err != nil || len(s.Tokens) != 1 {
			b.Fatal(s, err)
		}
		all.took(began)
	}
	all.report(b)
}

// BenchmarkReuse is the same request again: the living grant is the decision's
// cache.
func BenchmarkReuse(b *testing.B) {
	w, _ := benchParts(b)
	task, bot := w.task(), w.bot()
	var all latencies
	for b.Loop() {
		began := time.Now()
		if _, err := bot.Exchange(b.Context(), client.GrantRequest{Tool: "reports/export", Task: task}); err != nil {
			b.Fatal(err)
		}
		all.took(began)
	}
	all.report(b)
}

// onlyMonth is a constraint on reports/export: CSV, and that month.
func onlyMonth(month string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"object","additionalProperties":false,"required":["query","body"],"properties":{
		"query":{"type":"object","additionalProperties":false,"required":["format"],"properties":{"format":{"type":"string","const":"csv"}}},
		"body":{"type":"object","additionalProperties":false,"required":["month"],"properties":{"month":{"type":"string","const":%q}}}}}`, month))
}
