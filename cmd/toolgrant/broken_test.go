package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/grants"
)

// brokenCalls is how many calls are made while something is broken:
// TOOLGRANT_BROKEN_CALLS, else few enough for every day.
func brokenCalls(t *testing.T) int64 {
	text := os.Getenv("TOOLGRANT_BROKEN_CALLS")
	if text == "" {
		return 4000
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("TOOLGRANT_BROKEN_CALLS=%q: write a number of calls", text)
	}
	return n
}

// TestBrokenPartsAllowNothing makes calls with a token whose grant is live, which
// is allowed before and after, while one part behind the door is broken.
func TestBrokenPartsAllowNothing(t *testing.T) {
	n := brokenCalls(t)
	for _, tc := range []struct {
		part   string
		fault  func(*authz.Config, func() bool)
		reason string
	}{
		{"policy, with an error", func(c *authz.Config, broken func() bool) {
			decide := c.Decide
			c.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
				if broken() {
					return nil, errors.New("broken")
				}
				return decide(ctx, in)
			}
		}, "undecided"},
		{"policy, with no answer", func(c *authz.Config, broken func() bool) {
			decide := c.Decide
			c.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
				if broken() {
					return nil, nil
				}
				return decide(ctx, in)
			}
		}, "undecided"},
		{"policy, with a panic", func(c *authz.Config, broken func() bool) {
			decide := c.Decide
			c.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
				if broken() {
					panic("broken")
				}
				return decide(ctx, in)
			}
		}, "undecided"},
		{"the audit log", func(c *authz.Config, broken func() bool) {
			record := c.Record
			c.Record = func(r audit.Record) error {
				if broken() {
					return errors.New("broken")
				}
				return record(r)
			}
		}, "cannot_record"},
	} {
		t.Run(tc.part, func(t *testing.T) {
			w, p := inProcess(t)
			serveIssue(t, w, p)
			tok := w.export(w.task())
			var broken atomic.Bool
			cfg := p.doorConfig(w.cfg, zap.NewNop())
			tc.fault(&cfg, broken.Load)
			door := authz.New(cfg)
			if got := outcome(door, tok.AccessToken); got != "" {
				t.Fatalf("before: %s", got)
			}
			broken.Store(true)
			if got := flood(n, func() string { return outcome(door, tok.AccessToken) }); len(got) != 1 || got[tc.reason] != n {
				t.Errorf("of %d calls: %v", n, got)
			}
			broken.Store(false)
			if got := outcome(door, tok.AccessToken); got != "" {
				t.Fatalf("after: %s", got)
			}
		})
	}
	t.Run("the store, silent", func(t *testing.T) {
		w, p := inProcess(t)
		serveIssue(t, w, p)
		tok := w.export(w.task())
		// The door's table hears of the store until it is cut off.
		table := grants.NewTable(grants.TableConfig{Draw: p.store.Draw, MaxStaleness: 1500 * time.Millisecond})
		ctx, cut := context.WithCancel(t.Context())
		followed := make(chan error, 1)
		go func() { followed <- table.Follow(ctx, p.store, nil) }()
		cfg := p.doorConfig(w.cfg, zap.NewNop())
		cfg.Table = table
		door := authz.New(cfg)
		w.until("the door's table has the grant", func() bool { return outcome(door, tok.AccessToken) == "" })
		cut()
		<-followed
		w.until("its view is stale", func() bool { return !table.Fresh() })
		if got := flood(n, func() string { return outcome(door, tok.AccessToken) }); len(got) != 1 || got["not_fresh"] != n {
			t.Errorf("of %d calls: %v", n, got)
		}
	})
}

// TestBrokenAuthzAllowsNothing: the same through Envoy, while the process behind
// both doors is stopped, and when it is killed (O01).
func TestBrokenAuthzAllowsNothing(t *testing.T) {
	n := brokenCalls(t)
	w := layOut(t)
	cmd := w.serve()
	w.patience = 250 * time.Millisecond // as in the printed configuration
	w.startEnvoy()
	tok := w.export(w.task())
	w.until("a call is allowed", func() bool {
		return w.call(tok.AccessToken, "POST", exportCSV, october).status == http.StatusOK
	})
	before := w.tool.calls()
	hc := &http.Client{Transport: &http.Transport{Protocols: protocols("HTTP/2")}}
	try := func() string {
		a, err := w.try(hc, tok.AccessToken, "POST", exportCSV, october)
		if err != nil {
			return err.Error()
		}
		return strconv.Itoa(a.status)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.until("it has stopped", func() bool { return stopped(cmd.Process.Pid) })
	// Each of these waits for Envoy's time-out. What was under way to the door
	// must not run when it goes on, either.
	if got := flood(200, try); len(got) != 1 || got["503"] != 200 {
		t.Errorf("stopped: %v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := flood(n, try); len(got) != 1 || got["503"] != n {
		t.Errorf("killed: %v", got)
	}
	if ran := w.tool.calls() - before; ran != 0 {
		t.Errorf("the tool ran %d times", ran)
	}
}

// outcome is the reason of one check; "" is an allow.
func outcome(door *authz.Door, token string) string {
	resp, err := door.Check(context.Background(), checkRequest(token))
	if err != nil {
		return "error: " + err.Error()
	}
	return reasonOf(resp)
}

func reasonOf(resp *authv3.CheckResponse) string {
	if resp.GetOkResponse() != nil {
		return ""
	}
	_, rest, _ := strings.Cut(resp.GetDeniedResponse().GetBody(), `"reason":"`)
	reason, _, _ := strings.Cut(rest, `"`)
	return reason
}

// flood makes n calls from several goroutines and counts their outcomes.
func flood(n int64, call func() string) map[string]int64 {
	var (
		mu   sync.Mutex
		got  = map[string]int64{}
		left atomic.Int64
		wg   sync.WaitGroup
	)
	left.Store(n)
	for range 16 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				o := call()
				mu.Lock()
				got[o]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return got
}
