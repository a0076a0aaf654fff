package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/client"
)

// benchParts is everything behind both doors, without the wire.
func benchParts(b *testing.B) (*world, *parts) {
	b.Helper()
	w := layOut(b)
	p, err := wire(w.cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.run(ctx) })
	b.Cleanup(func() { cancel(); wg.Wait(); _ = p.trail.Close() })
	srv := httptest.NewServer(p.issue.Handler())
	b.Cleanup(srv.Close)
	w.broker = srv.URL
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

// BenchmarkIssue is from a request at the broker, over loopback HTTP, to a
// signed token: a new decision each time.
func BenchmarkIssue(b *testing.B) {
	w, _ := benchParts(b)
	task, bot := w.task(), w.bot()
	for i := 0; b.Loop(); i++ {
		if i%100 == 0 {
			task = w.task() // a task has some grants, not a million
		}
		pin := fmt.Sprintf(`{"type":"object","required":["q"],"additionalProperties":false,"properties":{"q":{"type":"integer","const":%d}}}`, i)
		if _, err := bot.Exchange(b.Context(), client.GrantRequest{
			Tool: "reports/export", Task: task, Constraints: []json.RawMessage{json.RawMessage(pin)},
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReuse is the same request again: the living grant is the decision's
// cache.
func BenchmarkReuse(b *testing.B) {
	w, _ := benchParts(b)
	task, bot := w.task(), w.bot()
	for b.Loop() {
		if _, err := bot.Exchange(b.Context(), client.GrantRequest{Tool: "reports/export", Task: task}); err != nil {
			b.Fatal(err)
		}
	}
}
