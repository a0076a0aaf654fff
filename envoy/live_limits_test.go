package envoy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"sigs.k8s.io/yaml"
)

// liveCrowd has two servers whose answers are held for longer than any test takes.
const liveCrowd = `
servers:
- id: github
  resource: https://github.internal/mcp
  upstream: %[1]s
  mcp: {path: /mcp/github, timeout: 2m}
- id: notes
  resource: https://notes.internal:8443/mcp
  upstream: %[1]s
  mcp: {path: /mcp/notes, timeout: 2m}
`

// few are the requests that each of a server's clusters takes in tight.
const few = 2

// tight makes the limits of all clusters of tool servers small: few requests, one
// waiting where it was less than the requests, and as many connections as it was
// more.
func tight(t *testing.T) func(string) string {
	return func(config string) string {
		var all map[string]any
		if err := yaml.Unmarshal([]byte(config), &all); err != nil {
			t.Fatal(err)
		}
		for _, c := range all["static_resources"].(map[string]any)["clusters"].([]any) {
			c := c.(map[string]any)
			if c["name"] == AuthzCluster {
				continue
			}
			limits := c["circuit_breakers"].(map[string]any)["thresholds"].([]any)[0].(map[string]any)
			requests, waiting, connections := limits["max_requests"].(float64), limits["max_pending_requests"].(float64), limits["max_connections"].(float64)
			limits["max_requests"], limits["max_pending_requests"], limits["max_connections"] = few, few, few
			if waiting < requests {
				limits["max_pending_requests"] = 1
			}
			if connections > requests {
				limits["max_connections"] = few + 1
			}
		}
		b, err := yaml.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// crowd is a world with tight limits, in which a client says itself which way its
// message goes (x-way) and whether the server holds it (x-hold).
type crowd struct {
	*world
	release chan struct{} // ends one that is held
}

func startCrowd(t *testing.T) *crowd {
	w := &crowd{startMCP(t, liveCrowd, tight(t)), make(chan struct{}, 1)}
	w.reset(func(req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		set := map[string]string{}
		for _, h := range req.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			if h.Key == "x-way" {
				set[string(h.RawValue)] = "1"
			}
		}
		return allowWith(set)(req)
	})
	w.mu.Lock()
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusOK)
		rw.(http.Flusher).Flush()
		if r.Header.Get("X-Hold") == "" {
			return
		}
		select {
		case <-w.release:
		case <-r.Context().Done():
		}
	}
	w.mu.Unlock()
	return w
}

// open sends a message that is held, and returns once its answer has begun.
func (w *crowd) open(t *testing.T, server, way string) *http.Response {
	t.Helper()
	resp := w.ask(t, server, way, true)
	if resp.StatusCode != 200 {
		t.Fatalf("%s, %q: %s, want 200", server, way, resp.Status)
	}
	return resp
}

// send returns the status of a message that is not held.
func (w *crowd) send(t *testing.T, server, way string) int {
	t.Helper()
	resp := w.ask(t, server, way, false)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("%s, %q: %v", server, way, err)
	}
	return resp.StatusCode
}

func (w *crowd) ask(t *testing.T, server, way string, hold bool) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+w.addr+"/mcp/"+server, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if way != "" {
		req.Header.Set("X-Way", way)
	}
	if hold {
		req.Header.Set("X-Hold", "1")
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s, %q: %v", server, way, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestLiveLimits: who fills one of the ways to a server keeps nobody from the
// others, nor from another server's, and is told so at once.
func TestLiveLimits(t *testing.T) {
	const calls = ""
	for full, name := range map[string]string{StreamHeader: "streams", PassHeader: "what is watched"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startCrowd(t)
			held := []*http.Response{w.open(t, "github", full), w.open(t, "github", full)}
			for range 2 * few { // also by the connections that the first ones have opened
				if code := w.send(t, "github", full); code != 503 {
					t.Errorf("over the limit: %d, want 503", code)
				}
			}
			for _, server := range []string{"github", "notes"} {
				for _, way := range []string{calls, StreamHeader, PassHeader} {
					if server == "github" && way == full {
						continue
					}
					for range few { // all of it is free
						w.open(t, server, way)
					}
				}
			}
			// Who is done makes room.
			held[0].Body.Close()
			wait(t, "room for another", func() bool { return w.send(t, "github", full) == 200 })
		})
	}
	t.Run("calls", func(t *testing.T) {
		t.Parallel()
		w := startCrowd(t)
		w.open(t, "github", calls)
		w.open(t, "github", calls)
		for _, way := range []string{StreamHeader, PassHeader} {
			if code := w.send(t, "github", way); code != 200 {
				t.Errorf("%s: %d, want 200", way, code)
			}
		}
		// A call waits for one of the others' end.
		late := make(chan int, 1)
		go func() {
			defer close(late)
			late <- w.send(t, "github", calls)
		}()
		wait(t, "a call that waits", func() bool {
			return w.stats(t, "upstream_rq_pending_active")["toolgrant-server-github"] == 1
		})
		w.release <- struct{}{}
		if code := <-late; code != 200 {
			t.Errorf("the call that waited: %d, want 200", code)
		}
	})
	t.Run("idle connections", func(t *testing.T) {
		t.Parallel()
		w := startCrowd(t)
		for _, way := range []string{calls, StreamHeader, PassHeader} {
			if code := w.send(t, "github", way); code != 200 {
				t.Fatalf("%q: %d, want 200", way, code)
			}
		}
		wait(t, "no connection is kept", func() bool {
			open, all := w.stats(t, "upstream_cx_active"), w.stats(t, "upstream_cx_total")
			for _, cluster := range []string{"toolgrant-server-github", "toolgrant-streams-github", "toolgrant-surface-github"} {
				if all[cluster] != 1 || open[cluster] != 0 {
					return false
				}
			}
			return true
		})
	})
}
