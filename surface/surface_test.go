package surface

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

func TestOnlyAGoodPassGetsThrough(t *testing.T) {
	now := time.Now()
	w := newWorld(t, Config{Now: func() time.Time { return now }}, answerWith("application/json", "{}"))
	good := w.pass(mcp.Pass{})
	body, sum, _ := strings.Cut(good, ".")
	for name, r := range map[string]*http.Request{
		"none":            w.request("", "{}"),
		"forged":          w.request(mcp.NewSeal().Close(mcp.Pass{Decision: "D", Server: "github", Agent: "a", Method: initialize, Ends: now.Add(time.Minute)}), "{}"),
		"changed":         w.request(body+"A."+sum, "{}"),
		"expired":         w.request(w.pass(mcp.Pass{Ends: now.Add(-time.Millisecond)}), "{}"),
		"ends now":        w.request(w.pass(mcp.Pass{Ends: now.Truncate(time.Millisecond)}), "{}"),
		"two in one":      w.request(good+","+w.pass(mcp.Pass{}), "{}"),
		"two":             with(w.request(good, "{}"), mcp.PassHeader, w.pass(mcp.Pass{})),
		"GET":             verb(w.request(good, ""), http.MethodGet),
		"DELETE":          verb(w.request(good, ""), http.MethodDelete),
		"unknown server":  w.request(w.pass(mcp.Pass{Server: "gitea"}), "{}"),
		"HTTP server":     w.request(w.pass(mcp.Pass{Server: "plain"}), "{}"),
		"no agent":        w.request(w.seal.Close(mcp.Pass{Decision: "D", Server: "github", Method: initialize, Ends: now.Add(time.Minute)}), "{}"),
		"unwatched":       w.request(w.pass(mcp.Pass{Method: "tools/list"}), "{}"),
		"the pass in use": w.request("", `{"`+mcp.PassHeader+`":"`+good+`"}`),
	} {
		res := w.open(r)
		if b, err := io.ReadAll(res.Body); err != nil || len(b) > 0 || res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d, body %q, %v; want an empty 403", name, res.StatusCode, b, err)
		}
	}
	if n := w.asked.Load(); n != 0 {
		t.Fatalf("the server was asked %d times", n)
	}
	if n := w.logs.FilterMessageSnippet("without a good pass").Len(); n != 1 {
		t.Errorf("told %d times in a minute, want 1", n)
	}
	for i, want := range []int{http.StatusOK, http.StatusForbidden} {
		if res := w.open(w.request(good, "{}")); res.StatusCode != want {
			t.Errorf("use %d of a good pass: %d, want %d", i+1, res.StatusCode, want)
		}
	}
	if n := w.asked.Load(); n != 1 {
		t.Errorf("the server was asked %d times, want once", n)
	}
}

func with(r *http.Request, name, value string) *http.Request {
	r.Header.Add(name, value)
	return r
}

func verb(r *http.Request, method string) *http.Request {
	r.Method = method
	return r
}

func TestSessionsAreTheirAgents(t *testing.T) {
	id := "s-1"
	w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("mcp-session-id", id)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {}\n\n")
	})
	owner := func(server, want string) {
		t.Helper()
		if got, _, _ := w.surface.Session(server, "s-1"); got != want {
			t.Errorf("%s: the session is %q's, want %q's", server, got, want)
		}
	}
	status := func(p mcp.Pass, want int) {
		t.Helper()
		res, body, err := w.send(p)
		if err != nil || res.StatusCode != want {
			t.Fatalf("status %d, %v, want %d", res.StatusCode, err, want)
		}
		if told := res.Header.Get(sessionHeader); want != http.StatusOK && (body != "" || told != "") {
			t.Errorf("a refused answer has body %q and session %q", body, told)
		}
	}

	owner("github", "")
	status(mcp.Pass{Agent: "agent-a"}, 200)
	owner("github", "agent-a")
	owner("gitlab", "")
	status(mcp.Pass{Agent: "agent-a"}, 200) // again
	status(mcp.Pass{Agent: "agent-b"}, 502)
	owner("github", "agent-a")
	status(mcp.Pass{Agent: "agent-b", Server: "gitlab"}, 200) // another server's of the same text
	owner("gitlab", "agent-b")
	owner("github", "agent-a")
	w.surface.EndSession("github", "s-1")
	owner("github", "")
	owner("gitlab", "agent-b")
	status(mcp.Pass{Agent: "agent-b"}, 200)
	owner("github", "agent-b")

	id = "s-2" // an answer to a call tells of no session
	status(call("agent-a", mcp.Rev20251125), 200)
	if agent, _, known := w.surface.Session("github", "s-2"); known {
		t.Errorf("a call opened a session of %q", agent)
	}
}

func TestAPinnedSessionStaysPinned(t *testing.T) {
	w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) { w.Header().Set(sessionHeader, "s-1") })
	pinned := func(when, server string, want bool) {
		t.Helper()
		if agent, got, known := w.surface.Session(server, "s-1"); got != want || !known || agent != "agent-a" {
			t.Errorf("%s: %s: pinned %v, known %v, %q's; want %v", when, server, got, known, agent, want)
		}
	}
	opened := func(agent, server string) {
		t.Helper()
		if _, _, err := w.send(mcp.Pass{Agent: agent, Server: server}); err != nil {
			t.Fatal(err)
		}
	}

	w.surface.PinSession("github", "s-1") // of nobody yet
	if _, _, known := w.surface.Session("github", "s-1"); known {
		t.Fatal("to pin a session made one")
	}
	opened("agent-a", "github")
	opened("agent-a", "gitlab")
	pinned("at first", "github", false)
	w.surface.PinSession("github", "s-1")
	pinned("then", "github", true)
	pinned("then", "gitlab", false)
	w.surface.PinSession("github", "s-1")
	opened("agent-a", "github")
	pinned("initialized again", "github", true)
	opened("agent-b", "github")
	pinned("another agent's initialize", "github", true)
	w.surface.EndSession("github", "s-1")
	w.surface.PinSession("github", "s-1") // a call that was decided before
	if _, _, known := w.surface.Session("github", "s-1"); known {
		t.Fatal("an ended session is known")
	}
	opened("agent-a", "github")
	pinned("a new one", "github", false)
}

func TestMalformedSessionsAreRefused(t *testing.T) {
	for name, ids := range map[string][]string{
		"two":     {"a", "b"},
		"same":    {"a", "a"},
		"empty":   {""},
		"blank":   {"a b"},
		"not7bit": {"a\xe9"},
		"long":    {strings.Repeat("a", maxID+1)},
	} {
		w := newWorld(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()[sessionHeader] = ids
			_, _ = io.WriteString(w, "{}")
		})
		res, body, err := w.send(mcp.Pass{})
		if err != nil || res.StatusCode != http.StatusBadGateway || body != "" || len(res.Header[sessionHeader]) > 0 {
			t.Errorf("%s: status %d, body %q, %v", name, res.StatusCode, body, err)
		}
		for _, id := range ids {
			if _, _, known := w.surface.Session("github", id); known {
				t.Errorf("%s: %q is known", name, id)
			}
		}
	}
	longest := strings.Repeat("~", maxID)
	w := newWorld(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(sessionHeader, longest) })
	if res, _, _ := w.send(mcp.Pass{}); res.StatusCode != http.StatusOK || res.Header.Get(sessionHeader) != longest {
		t.Errorf("the longest id: status %d", res.StatusCode)
	}
}

func TestOnlySuccessTeaches(t *testing.T) {
	for _, status := range []int{307, 400, 404, 500} {
		w := newWorld(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(sessionHeader, "s")
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"result":{"task":{"taskId":"t"}}}`)
		})
		for _, p := range []mcp.Pass{{}, call("agent-a", mcp.Rev20251125)} {
			res, body, err := w.send(p)
			if err != nil || res.StatusCode != status || !strings.Contains(body, "taskId") || res.Header.Get(sessionHeader) != "s" {
				t.Errorf("%s: status %d, body %q, %v", p.Method, res.StatusCode, body, err)
			}
		}
		_, _, session := w.surface.Session("github", "s")
		_, task := w.surface.Task("github", "t")
		if session || task {
			t.Errorf("status %d taught a session %v, a task %v", status, session, task)
		}
		if n := w.asked.Load(); n != 2 {
			t.Errorf("status %d: asked %d times, want 2", status, n)
		}
	}
}

// A client may use what it has read at once.
func TestWhatIsSeenIsKnown(t *testing.T) {
	const clients, each = 8, 1250
	kinds := map[string]string{"json": "application/json", "events": "text/event-stream"}
	w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not noticed
		id, kind := r.Header.Get("X-Id"), r.Header.Get("X-Kind")
		w.Header().Set(sessionHeader, id)
		w.Header().Set("Content-Type", kinds[kind])
		body := `{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"` + id + `"}}}`
		if kind == "events" {
			body = "data: " + body + "\n\n"
		}
		_, _ = io.WriteString(w, body)
		w.(http.Flusher).Flush()
		if kind == "events" {
			<-r.Context().Done()
		}
	})
	w.client.Transport.(*http.Transport).MaxIdleConnsPerHost = clients
	failed := make(chan error, clients)
	for c := range clients {
		go func() {
			failed <- func() error {
				agent := fmt.Sprintf("agent-%d", c)
				for i := range each {
					id := fmt.Sprintf("%s-%d", agent, i)
					p := mcp.Pass{Agent: agent}
					kind := ""
					switch i % 8 {
					case 0:
						p, kind = call(agent, mcp.Rev20251125), "events"
					case 1:
						p, kind = call(agent, mcp.Rev20251125), "json"
					}
					r := w.request(w.pass(p), "{}")
					r.Header.Set("X-Id", id)
					r.Header.Set("X-Kind", kind)
					res, err := w.client.Do(r)
					if err != nil {
						return err
					}
					if kind == "" {
						if owner, _, known := w.surface.Session("github", res.Header.Get(sessionHeader)); !known || owner != agent {
							return fmt.Errorf("session %s is %q's", id, owner)
						}
					} else {
						before := `{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"`
						if kind == "events" {
							before = "data: " + before
						}
						if _, err := io.ReadFull(res.Body, make([]byte, len(before)+len(id))); err != nil {
							return err
						}
						if task, known := w.surface.Task("github", id); !known || task.Agent != agent || !slices.Equal(task.Grants, []string{"G-" + agent}) {
							return fmt.Errorf("task %s is %+v", id, task)
						}
					}
					if kind != "events" {
						_, _ = io.Copy(io.Discard, res.Body)
					}
					res.Body.Close()
				}
				return nil
			}()
		}()
	}
	for range clients {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
