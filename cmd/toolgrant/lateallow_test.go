package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/grants/grantstest"
)

// traffic drives both doors in this process, from many goroutines, and writes
// down what each caller saw. It knows nothing of what is checked in it: that is
// grantstest.LateAllows, which knows nothing of this.
type traffic struct {
	t      *testing.T
	w      *world
	issue  http.Handler
	check  *authz.Door
	start  time.Time
	count  atomic.Int64
	owner  string // identity tokens
	agents []string

	mu      sync.Mutex
	history []grantstest.Op
	tasks   []*traffTask
}

// traffTask is what the callers know of one task.
type traffTask struct {
	id       string
	agent    int
	maxCalls int // of its budget, where a grant asks for one

	mu     sync.Mutex
	grants []traffGrant
}

type traffGrant struct {
	op    grantstest.Op // of its issue
	token string
}

func (tr *traffic) since() time.Duration { return time.Since(tr.start) }

func (tr *traffic) note(op grantstest.Op) {
	op.End = tr.since()
	tr.mu.Lock()
	tr.history = append(tr.history, op)
	tr.mu.Unlock()
	tr.count.Add(1)
}

// post calls the issue door.
func (tr *traffic) post(method, path, identity, contentType, body string, into any) int {
	req := httptest.NewRequest(method, tr.w.cfg.Broker.Issuer+path, strings.NewReader(body))
	if identity != "" {
		req.Header.Set("Authorization", "Bearer "+identity)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	rec := httptest.NewRecorder()
	tr.issue.ServeHTTP(rec, req)
	if into != nil && rec.Code < 300 {
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			tr.t.Errorf("%s %s: %v", method, path, err)
		}
	}
	return rec.Code
}

func (tr *traffic) startTask(rng *rand.Rand) {
	agent := rng.IntN(len(tr.agents))
	op := grantstest.Op{Kind: "start", Agent: fmt.Sprintf("corp/bot-%d", agent), Start: tr.since()}
	var ans struct {
		Task string `json:"task"`
	}
	code := tr.post("POST", "/v1/tasks", tr.owner, "application/json",
		fmt.Sprintf(`{"kind":"monthly-report","agents":["corp/bot-%d"],"ttl":3600}`, agent), &ans)
	op.Task, op.OK = ans.Task, code == http.StatusCreated
	tr.note(op)
	if op.OK {
		tr.mu.Lock()
		tr.tasks = append(tr.tasks, &traffTask{id: ans.Task, agent: agent, maxCalls: 1 + rng.IntN(60)})
		tr.mu.Unlock()
	}
}

// pick returns one of the newest tasks, ended ones among them.
func (tr *traffic) pick(rng *rand.Rand) *traffTask {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.tasks) == 0 {
		return nil
	}
	newest := min(len(tr.tasks), 12)
	return tr.tasks[len(tr.tasks)-1-rng.IntN(newest)]
}

func (tr *traffic) issueGrant(rng *rand.Rand, task *traffTask) {
	op := grantstest.Op{Kind: "issue", Task: task.id, Agent: fmt.Sprintf("corp/bot-%d", task.agent), Tool: "reports/export", Start: tr.since()}
	ttl := 300
	if rng.IntN(4) == 0 {
		ttl = 1 + rng.IntN(2) // some that run out during the test
	}
	detail := fmt.Sprintf(`[{"type":"urn:toolgrant:grant:1","tool":"reports/export","task":%q,"ttl":%d`, task.id, ttl)
	if rng.IntN(2) == 0 {
		detail += fmt.Sprintf(`,"max_calls":%d`, task.maxCalls)
	}
	form := url.Values{
		"grant_type":            {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":         {tr.agents[task.agent]},
		"subject_token_type":    {"urn:ietf:params:oauth:token-type:jwt"},
		"authorization_details": {detail + "}]"},
	}
	var ans struct {
		Token   string `json:"access_token"`
		Details []struct {
			ID       string    `json:"grant_id"`
			MaxCalls int64     `json:"max_calls"`
			Expires  time.Time `json:"expires_at"`
		} `json:"authorization_details"`
	}
	op.OK = tr.post("POST", "/oauth2/token", "", "application/x-www-form-urlencoded", form.Encode(), &ans) == http.StatusOK
	if op.OK {
		det := ans.Details[0]
		op.Grant, op.Expires = det.ID, det.Expires.Sub(tr.start.Round(0))
		if det.MaxCalls > 0 { // one for the task and tool, however often it is asked for
			op.Budget, op.Limit = "task/"+task.id, det.MaxCalls
		}
	}
	tr.note(op)
	if op.OK {
		task.mu.Lock()
		task.grants = append(task.grants, traffGrant{op, ans.Token})
		task.mu.Unlock()
	}
}

func (task *traffTask) pick(rng *rand.Rand) (traffGrant, bool) {
	task.mu.Lock()
	defer task.mu.Unlock()
	if len(task.grants) == 0 {
		return traffGrant{}, false
	}
	return task.grants[rng.IntN(len(task.grants))], true
}

func (tr *traffic) checkCall(g traffGrant) {
	op := grantstest.Op{Kind: "check", Task: g.op.Task, Grant: g.op.Grant, Agent: g.op.Agent, Tool: g.op.Tool, Start: tr.since()}
	resp, err := tr.check.Check(tr.t.Context(), checkRequest(g.token))
	if err != nil {
		tr.t.Errorf("Check: %v", err)
	}
	op.OK = resp.GetOkResponse() != nil && resp.GetStatus().GetCode() == 0
	tr.note(op)
}

// checkRequest is what Envoy asks about a call of reports/export.
func checkRequest(token string) *authv3.CheckRequest {
	header := func(k, v string) *corev3.HeaderValue { return &corev3.HeaderValue{Key: k, RawValue: []byte(v)} }
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{authz.ContextTool: "reports/export", authz.ContextTimeout: "15000"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Path: exportCSV, RawBody: []byte(october),
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				header("authorization", "Bearer "+token), header("content-type", "application/json"),
			}},
		}},
	}}
}

// step does one thing.
func (tr *traffic) step(rng *rand.Rand) {
	task := tr.pick(rng)
	dice := rng.IntN(1000)
	if task == nil || dice < 8 {
		tr.startTask(rng)
		return
	}
	g, has := task.pick(rng)
	switch {
	case dice < 60 || !has:
		tr.issueGrant(rng, task)
	case dice < 70:
		op := grantstest.Op{Kind: "revoke", Task: task.id, Grant: g.op.Grant, Start: tr.since()}
		code := tr.post("DELETE", "/v1/grants/"+g.op.Grant, tr.owner, "", "", nil)
		op.OK, op.Unknown = code == http.StatusOK, code >= 500
		tr.note(op)
		tr.checkCall(g) // what comes right behind an end is where lateness shows
	case dice < 76:
		op := grantstest.Op{Kind: "end", Task: task.id, Start: tr.since()}
		code := tr.post("POST", "/v1/tasks/"+task.id+"/end", tr.owner, "", "", nil)
		op.OK, op.Unknown = code == http.StatusOK, code >= 500
		tr.note(op)
		tr.checkCall(g)
	default:
		tr.checkCall(g)
	}
}

// lagging is a stale read, planted: it passes its Store's history on as it
// comes, but for fences, which it holds back for a while. A table that follows
// it believes that it has seen everything.
type lagging struct {
	grants.Store
	by time.Duration
}

func (l lagging) Watch(ctx context.Context, from grants.Rev, tools []string) iter.Seq2[grants.Event, error] {
	type held struct {
		until time.Time
		ev    grants.Event
	}
	return func(yield func(grants.Event, error) bool) {
		var later []held
		for ev, err := range l.Store.Watch(ctx, from, tools) {
			for len(later) > 0 && time.Now().After(later[0].until) {
				if !yield(later[0].ev, nil) {
					return
				}
				later = later[1:]
			}
			if ev.Fence != nil {
				later = append(later, held{time.Now().Add(l.by), ev})
				continue
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

// runTraffic plays n operations on the doors and returns what was seen. With a
// lag, the call door answers from a table that hears of fences that much later.
func runTraffic(t *testing.T, n int64, lag time.Duration) []grantstest.Op {
	w, p := inProcess(t)
	tr := &traffic{t: t, w: w, issue: p.issue.Handler(), check: p.check, owner: w.identity("planner", "toolgrant", "orchestrators")}
	for i := range 4 {
		tr.agents = append(tr.agents, w.identity(fmt.Sprintf("bot-%d", i), "toolgrant", "reporting"))
	}
	if lag > 0 {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		t.Cleanup(func() { cancel(); wg.Wait() })
		late := grants.NewTable(grants.TableConfig{Draw: p.store.Draw})
		wg.Go(func() { _ = late.Follow(ctx, lagging{p.store, lag}, nil) })
		cfg := p.doorConfig(w.cfg, zap.NewNop())
		cfg.Table = late
		tr.check = authz.New(cfg)
	}
	tr.start = time.Now()
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 20260728))
			for tr.count.Load() < n && !t.Failed() {
				tr.step(rng)
			}
		})
	}
	callers.Wait()
	return tr.history
}

// operations is how much traffic the detector sees; TOOLGRANT_LATE_OPS asks for
// more.
const operations = 100_000

func TestNoLateAllows(t *testing.T) {
	n := int64(operations)
	if s := os.Getenv("TOOLGRANT_LATE_OPS"); s != "" {
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil || n < operations {
			t.Fatalf("TOOLGRANT_LATE_OPS=%q: not a number of %d or more", s, operations)
		}
	}
	history := runTraffic(t, n, 0)
	for i, v := range grantstest.LateAllows(history) {
		if i < 10 {
			t.Errorf("%s: %s", v.Rule, v.Text)
		}
	}
	stats := grantstest.Summarize(history)
	t.Logf("%d operations: %d tasks, %d grants, %d revoked, %d ended; checks: live %+v, late %+v, at an edge %+v",
		len(history), stats.Starts, stats.Issues, stats.Revokes, stats.Ends, stats.Live, stats.Late, stats.Edge)
	for i, op := range stats.WrongDenials {
		if i < 10 {
			t.Errorf("refused, though surely live: %+v", op)
		}
	}
	// A history in which little happens shows nothing.
	if stats.Live.Allowed < len(history)/20 || stats.Late.Denied < len(history)/20 || stats.Revokes < 100 || stats.Ends < 100 {
		t.Error("the traffic has too few calls inside or after a window, or too few ends")
	}
}

// TestDetectorCatchesAStaleRead: with a door that hears of fences a little
// later than its store tells, the same traffic must be seen to fail.
func TestDetectorCatchesAStaleRead(t *testing.T) {
	history := runTraffic(t, 20_000, 5*time.Millisecond)
	got := grantstest.LateAllows(history)
	if len(got) == 0 {
		t.Fatal("a door that reads a stale table was not caught")
	}
	t.Logf("caught %d times, such as: %s: %s", len(got), got[0].Rule, got[0].Text)
}
