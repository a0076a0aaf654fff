package client

import (
	stdjson "encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// started is an answer to a task that was started under a manifest.
func started(edit func(map[string]any)) string {
	var m map[string]any
	_ = stdjson.Unmarshal([]byte(tokens(nil)), &m)
	for name, v := range map[string]any{
		"task": testTask, "kind": "pay-bill", "owner": "corp/planner", "agents": []string{"corp/bot"}, "params": map[string]any{"to": "x"},
		"deadline": "2030-01-02T03:04:05Z", "beat": 0, "state": "open",
		"refused": []any{map[string]any{"tool": "bank/wire", "reason": "policy", "help": "no\x1b[2J", "advice": "ask\non Monday", "decision_id": "d_1"}},
	} {
		m[name] = v
	}
	if edit != nil {
		edit(m)
	}
	b, _ := stdjson.Marshal(m)
	return string(b)
}

func TestStartWithGrants(t *testing.T) {
	b := newBroker(t, 201, started(nil))
	c := newClient(t, b.URL)
	ask := TaskRequest{Kind: "pay-bill", Agents: []string{"corp/bot"}, Params: []byte(`{"to":"x"}`), Grant: true}
	got, err := c.StartTask(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	want := Task{ID: testTask, Kind: "pay-bill", Owner: "corp/planner", Agents: []string{"corp/bot"}, Params: []byte(`{"to":"x"}`),
		Deadline: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), State: StateOpen}
	if d := cmp.Diff(want, got.Task); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Refused{{"bank/wire", "policy", "no [2J", "ask on Monday", "d_1"}}, got.Refused); d != "" {
		t.Error(d)
	}
	if len(got.Tokens) != 2 || got.Tokens[1].Server != "bank" || b.sent != `{"kind":"pay-bill","agents":["corp/bot"],"params":{"to":"x"},"grant":true}` {
		t.Errorf("%v, sent %s", got.Tokens, b.sent)
	}
	// Nothing was granted, and that is an answer.
	b.body = started(func(m map[string]any) { m["tokens"] = []any{} })
	if got, err := c.StartTask(t.Context(), ask); err != nil || got.Tokens == nil || len(got.Tokens) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for name, edit := range map[string]func(map[string]any){
		"the parameters were not taken": func(m map[string]any) { delete(m, "params") },
		"nothing is said of grants":     func(m map[string]any) { delete(m, "tokens") },
		"no token":                      func(m map[string]any) { m["tokens"].([]any)[0].(map[string]any)["access_token"] = "" },
		"of another task":               func(m map[string]any) { m["task"] = "t_bbbbbbbbbbbbbbbbbbbbbbbbbb" },
	} {
		b.body = started(edit)
		if got, err := c.StartTask(t.Context(), ask); err == nil || got.ID != "" || strings.Contains(err.Error(), testToken) || !strings.Contains(err.Error(), "t_") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// What was not asked for.
	b.body = started(nil)
	ask.Grant = false
	if _, err := c.StartTask(t.Context(), ask); err == nil {
		t.Error("took grants that were not asked for")
	}
}

// TestOneTimeGrant: the input goes as it is, and the answer says what it is.
func TestOneTimeGrant(t *testing.T) {
	b := newBroker(t, 200, strings.Replace(tokens(nil), `"reused":true`, `"once":true,"reused":false`, 1))
	c := newClient(t, b.URL)
	const input = `{"body":{"amount":1.50}}`
	got, err := c.Grant(t.Context(), GrantsRequest{Task: testTask, Grants: []GrantRequest{{Tool: "reports/export", Input: []byte(input)}}})
	if err != nil || !got[0].Grants[0].Once || got[1].Grants[0].Once {
		t.Errorf("%v, %v", got, err)
	}
	if want := `{"task":"` + testTask + `","grants":[{"tool":"reports/export","input":` + input + `}]}`; b.sent != want {
		t.Errorf("sent %s", b.sent)
	}
	b.body = strings.Replace(answer(nil), `"reused":true`, `"once":true,"reused":false`, 1)
	one, err := c.Exchange(t.Context(), GrantRequest{Tool: "reports/export", Task: testTask, Input: []byte(input)})
	if err != nil || !one.Grants[0].Once || !strings.Contains(b.sent, "input") {
		t.Errorf("%v, %v, sent %s", one, err, b.sent)
	}
}
