package client

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	liveText = `{"grant_id":"` + testGrant + `","task":"` + testTask + `","kind":"pay","agent":"corp/bot","requester":"corp/planner","tool":"bank/pay",` +
		`"not_before":"2030-01-02T03:04:05Z","expires_at":"2030-01-02T03:09:05Z","ttl":300,"max_calls":2,"max_sum":{"/body/amount":"10.5"},"constraints_digest":"ab","depth":1}`
	taskText = `{"task":"` + testTask + `","kind":"pay","owner":"corp/planner","agents":["corp/bot"],"deadline":"2030-01-02T04:04:05Z","beat":6,"state":"open","grants":[` + liveText + `]}`
)

func wantLive() LiveGrant {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	return LiveGrant{ID: testGrant, Task: testTask, Kind: "pay", Agent: "corp/bot", Requester: "corp/planner", Tool: "bank/pay",
		NotBefore: at, ExpiresAt: at.Add(5 * time.Minute), TTL: 300, MaxCalls: 2, MaxSum: map[string]string{"/body/amount": "10.5"}, ConstraintsDigest: "ab", Depth: 1}
}

func TestTaskAndLists(t *testing.T) {
	want := Task{ID: testTask, Kind: "pay", Owner: "corp/planner", Agents: []string{"corp/bot"}, Deadline: time.Date(2030, 1, 2, 4, 4, 5, 0, time.UTC),
		Beat: 6, State: StateOpen, Grants: []LiveGrant{wantLive()}}
	b := newBroker(t, 200, taskText)
	got, err := newClient(t, b.URL).Task(t.Context(), testTask)
	if d := cmp.Diff(want, got); d != "" || err != nil || b.path != "/v1/tasks/"+testTask || b.method != "GET" {
		t.Errorf("%s %s: %v\n%s", b.method, b.path, err, d)
	}

	b = newBroker(t, 200, `{"tasks":[`+taskText+`],"more":true}`)
	tasks, more, err := newClient(t, b.URL).Tasks(t.Context(), TaskFilter{Kind: "pay", Agent: "corp/a b&owner=x"})
	if d := cmp.Diff([]Task{want}, tasks); d != "" || err != nil || !more {
		t.Errorf("more %v, %v\n%s", more, err, d)
	}
	if d := cmp.Diff(url.Values{"kind": {"pay"}, "agent": {"corp/a b&owner=x"}}, b.query); d != "" || b.path != "/v1/tasks" {
		t.Error(b.path, d)
	}

	b = newBroker(t, 200, `{"grants":[`+liveText+`],"more":false}`)
	grants, more, err := newClient(t, b.URL).Grants(t.Context(), GrantFilter{Task: testTask, Tool: "bank/pay"})
	if d := cmp.Diff([]LiveGrant{wantLive()}, grants); d != "" || err != nil || more {
		t.Errorf("more %v, %v\n%s", more, err, d)
	}
	if d := cmp.Diff(url.Values{"task": {testTask}, "tool": {"bank/pay"}}, b.query); d != "" || b.path != "/v1/grants" || b.method != "GET" {
		t.Error(b.path, d)
	}
	if _, _, err := newClient(t, b.URL).Grants(t.Context(), GrantFilter{}); err != nil || len(b.query) != 0 {
		t.Errorf("no filter: %v %v", b.query, err)
	}
}

func TestBeat(t *testing.T) {
	b := newBroker(t, 201, strings.Replace(taskText, `"beat":6,`, "", 1))
	c := newClient(t, b.URL)
	if _, err := c.StartTask(t.Context(), TaskRequest{Kind: "k", Beat: 6 * time.Second}); err == nil || b.sent != `{"kind":"k","beat":6}` {
		t.Errorf("a beat that was not taken: %v, sent %s", err, b.sent)
	}
	b.body = `{"task":"` + testTask + `","state":"open","deadline":"2030-01-02T03:04:05Z","beat":6}`
	if err := c.Beat(t.Context(), testTask); err != nil || b.path != "/v1/tasks/"+testTask+"/beat" || b.method != "POST" || b.sent != "" {
		t.Errorf("%v: %s %s %s", err, b.method, b.path, b.sent)
	}
}

func TestRevokeAll(t *testing.T) {
	for scope, key := range map[Scope]string{ScopeTask: testTask, ScopeAgent: "corp/bot&tool=x", ScopeTool: "bank/pay"} {
		state := map[bool]string{true: "ended", false: "revoked"}[scope == ScopeTask]
		b := newBroker(t, 200, `{"scope":"`+string(scope)+`","key":"`+key+`","state":"`+state+`"}`)
		if err := newClient(t, b.URL).RevokeAll(t.Context(), scope, key); err != nil {
			t.Errorf("%s: %v", scope, err)
		}
		if d := cmp.Diff(url.Values{string(scope): {key}}, b.query); d != "" || b.method != "DELETE" || b.path != "/v1/grants" {
			t.Errorf("%s %s %s", b.method, b.path, d)
		}
		// What does not say that it was done is not done.
		for _, body := range []string{`{}`, `{"scope":"` + string(scope) + `","key":"` + key + `","state":"open"}`,
			`{"scope":"` + string(scope) + `","key":"other","state":"` + state + `"}`, `{"scope":"grant","key":"` + key + `","state":"` + state + `"}`} {
			b.body = body
			if newClient(t, b.URL).RevokeAll(t.Context(), scope, key) == nil {
				t.Errorf("%s: took %s", scope, body)
			}
		}
	}
}

func tokens(edit func([]any)) string {
	var one, two map[string]any
	_ = stdjson.Unmarshal([]byte(answer(func(m map[string]any) { m["server"], m["resource"] = "reports", "https://reports" })), &one)
	_ = stdjson.Unmarshal([]byte(answer(func(m map[string]any) {
		m["server"] = "bank"
		m["authorization_details"] = []any{map[string]any{"type": detailType, "grant_id": "g_bbbbbbbbbbbbbbbbbbbbbbbbbb", "tool": "bank/pay", "task": testTask,
			"ttl": 60, "max_sum": map[string]string{"/body/amount": "10.5"}, "expires_at": "2030-01-02T03:04:05Z", "reused": false, "renewed": testGrant}}
	})), &two)
	list := []any{one, two}
	if edit != nil {
		edit(list)
	}
	b, _ := stdjson.Marshal(map[string]any{"tokens": list})
	return string(b)
}

func TestGrantOfSeveralServers(t *testing.T) {
	b := newBroker(t, 200, tokens(nil))
	asks := GrantsRequest{Task: testTask, Agent: "corp/bot", Grants: []GrantRequest{
		{Tool: "reports/export", TTL: time.Minute, MaxCalls: 2},
		{Tool: "bank/pay", MaxSums: map[string]string{"/body/amount": "10.5"}, Renew: testGrant, Constraints: []stdjson.RawMessage{[]byte(`{"type":"object"}`)}},
	}}
	got, err := newClient(t, b.URL).Grant(t.Context(), asks)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Server != "reports" || got[0].Resource != "https://reports" || got[1].Grants[0].Renewed != testGrant || got[1].Grants[0].MaxSum["/body/amount"] != "10.5" {
		t.Errorf("%v", got)
	}
	if d := cmp.Diff(`{"task":"`+testTask+`","agent":"corp/bot","grants":[{"tool":"reports/export","ttl":60,"max_calls":2},`+
		`{"tool":"bank/pay","max_sum":{"/body/amount":"10.5"},"constraints":[{"type":"object"}],"renew":"`+testGrant+`"}]}`, b.sent); d != "" || b.path != "/v1/grants" || b.auth != "Bearer "+testIdentity {
		t.Errorf("%s %s", b.path, d)
	}
	if asks.Grants[0].Task != "" {
		t.Error("the caller's slice was written to")
	}

	detail := func(list []any, i int) map[string]any {
		return list[i].(map[string]any)["authorization_details"].([]any)[0].(map[string]any)
	}
	for name, edit := range map[string]func([]any){
		"one server twice":  func(l []any) { l[1].(map[string]any)["server"] = "reports" },
		"no server":         func(l []any) { delete(l[0].(map[string]any), "server") },
		"a server's shape":  func(l []any) { l[0].(map[string]any)["server"] = "re\x1bports" },
		"of another server": func(l []any) { detail(l, 0)["tool"] = "bank/pay" },
		"of another task":   func(l []any) { detail(l, 1)["task"] = "t_bbbbbbbbbbbbbbbbbbbbbbbbbb" },
		"a tool is missing": func(l []any) { detail(l, 1)["tool"] = "bank/see" },
		"no token":          func(l []any) { l[0].(map[string]any)["access_token"] = "" },
	} {
		b.body = tokens(edit)
		if got, err := newClient(t, b.URL).Grant(t.Context(), asks); err == nil || got != nil || strings.Contains(err.Error(), testToken) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// Two tokens for one server: which of them is good?
func TestGrantOfOneServerTwice(t *testing.T) {
	b := newBroker(t, 200, tokens(func(l []any) { l[1] = l[0] }))
	if _, err := newClient(t, b.URL).Grant(t.Context(), GrantsRequest{Task: testTask, Grants: []GrantRequest{{Tool: "reports/export"}}}); err == nil {
		t.Error("it was taken")
	}
}

// What is wrong in itself is refused before anything is sent.
func TestNewMisuse(t *testing.T) {
	b := newBroker(t, 200, "{}")
	c := newClient(t, b.URL)
	ask := func(f func(*GrantsRequest)) func(context.Context) error {
		r := GrantsRequest{Task: testTask, Grants: []GrantRequest{{Tool: "a/b"}}}
		f(&r)
		return func(ctx context.Context) error { _, err := c.Grant(ctx, r); return err }
	}
	sum := func(pointer, text string) func(context.Context) error {
		return ask(func(r *GrantsRequest) { r.Grants[0].MaxSums = map[string]string{pointer: text} })
	}
	for name, f := range map[string]func(context.Context) error{
		"task": func(ctx context.Context) error { _, err := c.Task(ctx, "../x"); return err },
		"beat": func(ctx context.Context) error { return c.Beat(ctx, testGrant) },
		"part beat": func(ctx context.Context) error {
			_, err := c.StartTask(ctx, TaskRequest{Kind: "k", Beat: 1})
			return err
		},
		"filter":       func(ctx context.Context) error { _, _, err := c.Grants(ctx, GrantFilter{Task: "t"}); return err },
		"scope":        func(ctx context.Context) error { return c.RevokeAll(ctx, "grant", testGrant) },
		"key":          func(ctx context.Context) error { return c.RevokeAll(ctx, ScopeAgent, "") },
		"task scope":   func(ctx context.Context) error { return c.RevokeAll(ctx, ScopeTask, "corp/x") },
		"nothing":      ask(func(r *GrantsRequest) { r.Grants = nil }),
		"two tasks":    ask(func(r *GrantsRequest) { r.Grants[0].Task = "t_bbbbbbbbbbbbbbbbbbbbbbbbbb" }),
		"no task":      ask(func(r *GrantsRequest) { r.Task = "" }),
		"no object":    ask(func(r *GrantsRequest) { r.Grants[0].Input = []byte(`[1]`) }),
		"broken input": ask(func(r *GrantsRequest) { r.Grants[0].Input = []byte(`{"a":`) }),
		"input and calls": ask(func(r *GrantsRequest) {
			r.Grants[0].Input, r.Grants[0].MaxCalls = []byte(`{}`), 1
		}),
		"broken params": func(ctx context.Context) error {
			_, err := c.StartTask(ctx, TaskRequest{Kind: "k", Params: []byte(`{"a":1}}`)})
			return err
		},
		"params of no object": func(ctx context.Context) error {
			_, err := c.StartTask(ctx, TaskRequest{Kind: "k", Params: []byte(`null`)})
			return err
		},
		"renew a task": ask(func(r *GrantsRequest) { r.Grants[0].Renew = testTask }),
		"pointer":      sum("amount", "1"),
		"zero":         sum("/a", "0.00"),
		"negative":     sum("/a", "-1"),
		"decimals":     sum("/a", "1.00001"),
		"exponent":     sum("/a", "1e3"),
		"blank":        sum("/a", ""),
		"huge":         sum("/a", "100000000000000"),
	} {
		if err := f(t.Context()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if b.calls != 0 {
		t.Errorf("%d requests were sent", b.calls)
	}
	if err := sum("/a/0/b", "99999999999999.9999")(t.Context()); errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// An answer that is no task, or no list, is an error and never half a one.
func TestNotThat(t *testing.T) {
	for _, body := range []string{`{}`, `null`, strings.Replace(taskText, "open", "opne", 1), strings.Replace(taskText, testTask, "t_bbbbbbbbbbbbbbbbbbbbbbbbbb", 1),
		strings.Replace(taskText, testGrant, `g_\u001b`, 1)} {
		if _, err := newClient(t, newBroker(t, 200, body).URL).Task(t.Context(), testTask); err == nil {
			t.Errorf("Task took %s", body)
		}
	}
	b := newBroker(t, 200, `{"tasks":[{"task":"x"}]}`)
	if _, _, err := newClient(t, b.URL).Tasks(t.Context(), TaskFilter{}); err == nil {
		t.Error("Tasks took no list")
	}
	b = newBroker(t, 200, `{"grants":[{"grant_id":"x"}]}`)
	if _, _, err := newClient(t, b.URL).Grants(t.Context(), GrantFilter{}); err == nil {
		t.Error("Grants took no list")
	}
	b = newBroker(t, 200, `{"task":"`+testTask+`","state":"ended"}`)
	if err := newClient(t, b.URL).Beat(t.Context(), testTask); err == nil {
		t.Error("Beat took an ended task")
	}
}
