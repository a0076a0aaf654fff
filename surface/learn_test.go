package surface

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

const (
	core      = `{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t-1","status":"working","ttl":60000}}}`
	extension = `{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t-1","status":"working","ttlMs":60000}}`
)

func TestTaskOf(t *testing.T) {
	long := strings.Repeat("t", maxID)
	for _, c := range []struct {
		revision, text, want string
		unread               bool
	}{
		{mcp.Rev20251125, core, "t-1", false},
		{mcp.Rev20260728, extension, "t-1", false},
		{mcp.Rev20251125, extension, "", false}, // each in its own revision alone
		{mcp.Rev20260728, core, "", false},

		{mcp.Rev20251125, strings.ReplaceAll(core, "t-1", `\u0074\u002d1`), "t-1", false},
		{mcp.Rev20251125, strings.ReplaceAll(core, "t-1", long), long, false},
		{mcp.Rev20251125, strings.ReplaceAll(core, "t-1", long+"t"), "", true},
		{mcp.Rev20251125, strings.ReplaceAll(core, `"t-1"`, "1"), "", false},
		{mcp.Rev20251125, strings.ReplaceAll(core, "t-1", ""), "", false},
		{mcp.Rev20260728, strings.ReplaceAll(extension, `"task"`, `"complete"`), "", false},
		{mcp.Rev20260728, strings.ReplaceAll(extension, `"resultType":"task",`, ""), "", false},

		{mcp.Rev20251125, `{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"task":{"taskId":"t"}},"_meta":{"taskId":"t"}}}`, "", false},
		{mcp.Rev20251125, `{"jsonrpc":"2.0","id":1,"method":"elicitation/create","result":{"task":{"taskId":"t"}}}`, "", false},
		{mcp.Rev20251125, `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"task":{"taskId":"t"}}}}`, "", false},
		{mcp.Rev20251125, `{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t"}}`, "", false},
		{mcp.Rev20251125, "[" + core + "]", "", false},
		{mcp.Rev20251125, `"t"`, "", false},

		{mcp.Rev20251125, strings.Replace(core, `"id":1`, `"id":1,"Result":{}`, 1), "", true},
		{mcp.Rev20251125, strings.Replace(core, `"taskId"`, `"taskid":"t-2","taskId"`, 1), "", true},
		{mcp.Rev20251125, core + core, "", true},
		{mcp.Rev20251125, "\xef\xbb\xbf" + core, "", true},
		{mcp.Rev20251125, core[:len(core)-1], "", true},
		{mcp.Rev20251125, core + strings.Repeat(" ", maxAnswer), "", true},
	} {
		id, unread := taskOf(c.revision, []byte(c.text), maxAnswer)
		if id != c.want || (unread != "") != c.unread {
			t.Errorf("%s %.120s: id %.20q, unread %q", c.revision, c.text, id, unread)
		}
		if strings.Contains(unread, "t-1") {
			t.Errorf("a value is told: %s", unread)
		}
	}
}

// How a task is told, and whether that is learnt: in each case all bytes pass.
func TestTasksAreLearnt(t *testing.T) {
	for name, c := range map[string]struct {
		revision, contentType, coding, body string
		learnt                              bool
		told                                int // that it is not read
	}{
		"core":            {mcp.Rev20251125, "application/json", "", core, true, 0},
		"extension":       {mcp.Rev20260728, "Application/JSON; charset=utf-8", "", extension, true, 0},
		"events":          {mcp.Rev20251125, "text/event-stream", "", "id: 1\ndata:\n\nevent: message\ndata: " + core + "\n\n", true, 0},
		"events ext":      {mcp.Rev20260728, "text/event-stream;charset=utf-8", "", "data: " + extension + "\n\n", true, 0},
		"open event":      {mcp.Rev20251125, "text/event-stream", "", "data: " + core, true, 0},
		"after another":   {mcp.Rev20251125, "text/event-stream", "", "data: {\ndata: \n\ndata: []]\n\ndata: " + core + "\n\n", true, 1},
		"empty":           {mcp.Rev20251125, "application/json", "", "", false, 1},
		"none":            {mcp.Rev20251125, "application/json", "", `{"result":{"content":[]}}`, false, 0},
		"too old":         {mcp.Rev20250618, "application/json", "", core, false, 0},
		"other type":      {mcp.Rev20251125, "text/plain", "", core, false, 0},
		"no type":         {mcp.Rev20251125, "", "", core, false, 1},
		"strange type":    {mcp.Rev20251125, "application/json; charset=utf-8; charset=utf-16", "", core, false, 1},
		"coded":           {mcp.Rev20251125, "application/json", "gzip", core, false, 1},
		"duplicate":       {mcp.Rev20251125, "application/json", "", strings.Replace(core, "{", `{"result":{},`, 1), false, 1},
		"large":           {mcp.Rev20251125, "application/json", "", core + strings.Repeat(" ", maxAnswer), false, 1},
		"large event":     {mcp.Rev20251125, "text/event-stream", "", "data: " + core + strings.Repeat("\ndata: ", maxEvent/7) + "\n\n", false, 1},
		"after the large": {mcp.Rev20251125, "text/event-stream", "", "data: " + strings.Repeat("a", maxEvent) + "\n\ndata: " + core + "\n\n", true, 1},
		"almost large":    {mcp.Rev20251125, "application/json", "", core + strings.Repeat(" ", maxAnswer-len(core)), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if c.contentType != "" {
					w.Header().Set("Content-Type", c.contentType)
				}
				if c.coding != "" {
					w.Header().Set("Content-Encoding", c.coding)
				}
				_, _ = io.WriteString(w, c.body)
			})
			res, body, err := w.send(call("agent-a", c.revision))
			if err != nil || res.StatusCode != 200 || body != c.body || res.Header.Get("Content-Type") != c.contentType {
				t.Errorf("status %d, %d bytes of %d, content type %q, %v", res.StatusCode, len(body), len(c.body), res.Header.Get("Content-Type"), err)
			}
			want := Task{}
			if c.learnt {
				want = Task{Agent: "agent-a", Grants: []string{"G-agent-a"}}
			}
			if got, known := w.surface.Task("github", "t-1"); !cmp.Equal(got, want) || known != c.learnt {
				t.Errorf("the task is %+v, known %v; want %+v", got, known, want)
			}
			if _, known := w.surface.Task("gitlab", "t-1"); known {
				t.Error("the task is another server's, too")
			}
			if n := w.logs.FilterMessageSnippet("not read").Len(); n != c.told {
				t.Errorf("told %d times, want %d: %v", n, c.told, w.logs.All())
			}
		})
	}
}

// An answer to initialize is not looked into.
func TestOnlyCallsBecomeTasks(t *testing.T) {
	w := newWorld(t, Config{}, answerWith("application/json", core))
	if _, body, err := w.send(mcp.Pass{}); body != core || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
	if _, known := w.surface.Task("github", "t-1"); known {
		t.Error("an initialize started a task")
	}
}

func TestTasksAreTheirCallers(t *testing.T) {
	for _, kind := range []string{"application/json", "text/event-stream"} {
		const before = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n"
		body := core
		if kind == "text/event-stream" {
			body = before + "data: " + core + "\n\ndata: {}\n\n"
		}
		w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.(http.Flusher).Flush() // chunked: how much will come is not said
			_, _ = io.WriteString(w, body)
		})
		// The agent may hear of its task again, by the same call and by others.
		for _, grants := range [][]string{{"G-1", "G-2"}, {"G-1", "G-2"}, {"G-3"}, {"G-1", "G-2", "G-3"}, nil} {
			p := call("agent-a", mcp.Rev20251125)
			p.Grants = grants
			if _, got, err := w.send(p); got != body || err != nil {
				t.Fatalf("%s, %q: %q, %v", kind, grants, got, err)
			}
		}
		for _, grants := range [][]string{{"G-1", "G-2"}, {"G-4"}, nil} {
			p := call("agent-b", mcp.Rev20251125)
			p.Grants = grants
			res, got, err := w.send(p)
			if kind == "application/json" {
				if res.StatusCode != http.StatusBadGateway || got != "" || err != nil {
					t.Errorf("%+v: status %d, body %q, %v", p, res.StatusCode, got, err)
				}
			} else if got != before || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%+v: body %q, %v; want what came before, then no regular end", p, got, err)
			}
		}
		first := Task{Agent: "agent-a", Grants: []string{"G-1", "G-2"}}
		if got, _ := w.surface.Task("github", "t-1"); !cmp.Equal(got, first) {
			t.Errorf("%s: the task is now %+v", kind, got)
		}
	}
}

// What a baseline call became stays the baseline's.
func TestATaskOfNoGrant(t *testing.T) {
	w := newWorld(t, Config{}, answerWith("application/json", core))
	for _, grants := range [][]string{nil, {"G-1"}} {
		p := call("agent-a", mcp.Rev20251125)
		p.Grants = grants
		if _, got, err := w.send(p); got != core || err != nil {
			t.Fatalf("%q: %q, %v", grants, got, err)
		}
		if got, known := w.surface.Task("github", "t-1"); !known || got.Agent != "agent-a" || len(got.Grants) > 0 {
			t.Errorf("%q: the task is %+v, known %v", grants, got, known)
		}
	}
}

// Events arrive one by one, as the server sends them.
func TestStreamsFlow(t *testing.T) {
	next := make(chan struct{})
	w := newWorld(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for i := range 3 {
			<-next
			fmt.Fprintf(w, "data: {\"n\": %d}\n\n", i)
			w.(http.Flusher).Flush()
			<-next
			_, _ = io.WriteString(w, ": still there\n")
			w.(http.Flusher).Flush()
		}
	})
	res := w.open(w.request(w.pass(call("agent-a", mcp.Rev20251125)), "{}"))
	for i := range 3 {
		for _, want := range []string{fmt.Sprintf("data: {\"n\": %d}\n\n", i), ": still there\n"} {
			next <- struct{}{}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
		}
	}
	if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
}
