package envoy

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// liveStreams has calls of at most 2 s and streams of at most 3 s, on routes of
// 1.5 s.
const liveStreams = `
servers:
- id: github
  resource: https://github.internal/mcp
  upstream: %[1]s
  mcp: {path: /mcp/github, timeout: 1500ms, stream: 3s}
  tools: [{tool: merge_pr, timeout: 2s}]
`

// impatient makes the listener do within 300 ms what it does within minutes: end
// streams and connections that are idle.
func impatient(t *testing.T) func(string) string {
	return func(config string) string {
		for _, setting := range []string{" stream_idle_timeout: 60s\n", " idle_timeout: 300s\n"} {
			if n := strings.Count(config, setting); n != 1 {
				t.Fatalf("%q is in the configuration %d times, want 1", setting, n)
			}
			name, _, _ := strings.Cut(setting, ":")
			config = strings.Replace(config, setting, name+": 0.3s\n", 1)
		}
		return config
	}
}

// stream asks for a stream of two events, with silence between them, and returns
// what came of it, how it ended, and when.
func (w *world) stream(t *testing.T, silence time.Duration, set map[string]string) (got string, took time.Duration, end error) {
	t.Helper()
	w.reset(allowWith(set))
	w.mu.Lock()
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(rw, "data: 1\n\n")
		rw.(http.Flusher).Flush()
		select {
		case <-r.Context().Done(): // Envoy cut it
		case <-time.After(silence):
			fmt.Fprint(rw, "data: 2\n\n")
		}
	}
	w.mu.Unlock()
	req, err := http.NewRequest("GET", "http://"+w.addr+"/mcp/github", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	begun := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("status %s, want 200", resp.Status)
	}
	b, end := io.ReadAll(resp.Body)
	return string(b), time.Since(begun), end
}

// TestLiveStreams: an answer may be silent for as long as it may last, be it a
// stream or a call's, and lasts as long as the answer to the check says, up to the
// cap of its kind.
func TestLiveStreams(t *testing.T) {
	const first, second = "data: 1\n\n", "data: 2\n\n"
	for _, way := range []struct {
		name    string
		set     map[string]string
		surface bool
		cap     time.Duration // and a second
	}{
		{"a call", nil, false, 2 * time.Second},
		{"a stream", stream, false, 3 * time.Second},
		{"over the surface", pass, true, 2 * time.Second},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := startMCP(t, liveStreams, impatient(t))
			for _, tt := range []struct {
				name, timeout string
				silence       time.Duration
				least, most   time.Duration // when it ends: between what could end it before and after
				want          string
			}{
				{"silent for longer than the listener waits", "2000", time.Second, 900 * time.Millisecond, 1900 * time.Millisecond, first + second},
				{"the route's time-out", "", time.Minute, 1400 * time.Millisecond, way.cap, first},
				{"a shorter one from the check", "100", time.Minute, 50 * time.Millisecond, 1400 * time.Millisecond, first},
				{"one over the cap", "3600000", time.Minute, way.cap + 500*time.Millisecond, 30 * time.Second, first},
			} {
				set := map[string]string{}
				maps.Copy(set, way.set)
				if tt.timeout != "" {
					set[TimeoutHeader] = tt.timeout
				}
				got, took, err := w.stream(t, tt.silence, set)
				if got != tt.want || (err == nil) != (tt.want == first+second) || took < tt.least || took > tt.most {
					t.Errorf("%s: %q, %v, after %v; want %q after %v to %v", tt.name, got, err, took, tt.want, tt.least, tt.most)
				}
				if _, calls := w.seen(); len(calls) != 1 || calls[0].surface != way.surface {
					t.Errorf("%s: arrived: %+v", tt.name, calls)
				}
			}
		})
	}
	// The routes' own idle time-out is what keeps a silent stream.
	t.Run("without the routes' idle time-out", func(t *testing.T) {
		t.Parallel()
		own := regexp.MustCompile(`(?m)^ *idle_timeout: 60s\n`)
		w := startMCP(t, liveStreams, impatient(t), func(config string) string { return own.ReplaceAllString(config, "") })
		got, took, err := w.stream(t, time.Minute, map[string]string{TimeoutHeader: "3000", StreamHeader: "1"})
		if got != first || err == nil || took > 2900*time.Millisecond {
			t.Errorf("%q, %v, after %v; want it ended by the listener", got, err, took)
		}
	})
}
