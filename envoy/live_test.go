package envoy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
)

// TestLive: what the check sees of a call to an HTTP tool, and what its answer
// does.
func TestLive(t *testing.T) {
	w := start(t, func(o *Options) { o.CheckTimeout = 2 * time.Second }) // one test waits for it

	t.Run("allow", func(t *testing.T) {
		w.reset(allow())
		if code, body := w.raw(t, "POST", "/export?format=csv", `{"a":1}`, "X-Two: 1", "X-Two: 2"); code != 200 || body != "served" {
			t.Fatalf("%d %q, want 200 served", code, body)
		}
		checks, calls := w.seen()
		if len(checks) != 1 || len(calls) != 1 {
			t.Fatalf("%d checks, %d calls; want 1 and 1", len(checks), len(calls))
		}
		a := checks[0].GetAttributes()
		want := map[string]string{"tool": "reports/export", "timeout_ms": "2000"}
		if diff := cmp.Diff(want, a.GetContextExtensions()); diff != "" {
			t.Errorf("context extensions (-want +got):\n%s", diff)
		}
		h := a.GetRequest().GetHttp()
		if string(h.GetRawBody()) != `{"a":1}` || h.GetBody() != "" || h.GetPath() != "/export?format=csv" {
			t.Errorf("checked body %q %q, path %q", h.GetRawBody(), h.GetBody(), h.GetPath())
		}
		var two []string
		for _, v := range h.GetHeaderMap().GetHeaders() {
			if v.Key == "x-two" {
				two = append(two, string(v.RawValue))
			}
		}
		if diff := cmp.Diff([]string{"1", "2"}, two); diff != "" {
			t.Errorf("raw headers x-two (-want +got):\n%s", diff)
		}
		c := calls[0]
		if c.method != "POST" || c.uri != "/export?format=csv" || c.body != `{"a":1}` || c.host != "reports.internal" {
			t.Errorf("the upstream got %+v", c)
		}
	})

	t.Run("another method is another tool", func(t *testing.T) {
		w.reset(allow())
		if code, _ := w.raw(t, "PUT", "/export", "{}"); code != 200 {
			t.Fatalf("PUT: %d, want 200", code)
		}
		checks, calls := w.seen()
		if tool := checks[0].GetAttributes().GetContextExtensions()["tool"]; tool != "mail/send" {
			t.Errorf("tool %q, want mail/send", tool)
		}
		if calls[0].host != "mail.internal:8443" {
			t.Errorf("host %q, want mail.internal:8443", calls[0].host)
		}
		for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "post", "POSTS"} {
			w.reset(allow())
			code, _ := w.raw(t, method, "/export", "")
			if checks, calls := w.seen(); code != 404 && code != 400 || len(checks)+len(calls) != 0 {
				t.Errorf("%s: %d, %d checks, %d calls; want 404 or 400 and none", method, code, len(checks), len(calls))
			}
		}
	})

	t.Run("deny", func(t *testing.T) {
		w.reset(deny)
		if code, body := w.raw(t, "POST", "/export?secret=s3cret", "{}", "Authorization: Bearer s3cret"); code != 403 || body != `{"reason":"policy"}` {
			t.Errorf("%d %q", code, body)
		}
		if _, calls := w.seen(); len(calls) != 0 {
			t.Errorf("a denied call reached the upstream: %+v", calls)
		}
		var line map[string]any
		wait(t, "an access log line of the denial", func() bool {
			for text := range strings.Lines(w.Stdout()) {
				if json.Unmarshal([]byte(text), &line) == nil && line["decision_id"] == "d_1" {
					return true
				}
			}
			return false
		})
		for key, want := range map[string]any{
			"agent": "ci/bot", "task": "t_1", "grant": "g_1", "tool": "reports/export", "reason": "policy",
			"path": "/export", "method": "POST", "route": "reports/export", "status": 403.0,
		} {
			if line[key] != want {
				t.Errorf("access log: %s = %v, want %v", key, line[key], want)
			}
		}
		if us, _ := line["check_us"].(string); us == "" {
			t.Errorf("access log: check_us = %v, want microseconds", line["check_us"])
		}
		if strings.Contains(w.Stdout(), "s3cret") {
			t.Error("the access log holds a secret")
		}
	})

	t.Run("the server removes and sets headers", func(t *testing.T) {
		w.reset(allowWith(map[string]string{"x-grant-ctx-agent": "ci/bot", "x-grant-ctx-task": "t_1", TimeoutHeader: "1900"},
			"authorization", "cookie", "x-undeclared", "user-agent", "accept", "te", "expect", "x-forwarded-for",
			"x-forwarded-proto", "x-request-id", "content-type", "content-encoding", "range", "via", "x-grant"))
		code, body := w.raw(t, "POST", "/export", "{}",
			"Authorization: Bearer s3cret", "Cookie: s3cret", "X-Undeclared: 1", "X-Undeclared: 2", "User-Agent: a",
			"Accept: */*", "TE: trailers", "X-Forwarded-For: 9.9.9.9", "Content-Type: a/b", "Range: bytes=0-1",
			"Content-Encoding: gzip", "Via: a", "X-Grant: s3cret", "X-Declared: yes")
		if code != 200 {
			t.Fatalf("%d %q", code, body)
		}
		checks, calls := w.seen()
		sent := map[string]string{}
		for _, h := range checks[0].GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			sent[h.Key] = string(h.RawValue)
		}
		if sent["authorization"] != "Bearer s3cret" || sent["cookie"] != "s3cret" {
			t.Errorf("the credential did not reach the check: %v", sent)
		}
		want := http.Header{
			"Content-Length": {"2"}, "X-Declared": {"yes"},
			"X-Grant-Ctx-Agent": {"ci/bot"}, "X-Grant-Ctx-Task": {"t_1"},
		}
		if diff := cmp.Diff(want, calls[0].header); diff != "" {
			t.Errorf("headers upstream (-want +got):\n%s", diff)
		}
	})

	t.Run("credentials stay out even if the server forgets them", func(t *testing.T) {
		w.reset(allow())
		if code, _ := w.raw(t, "POST", "/export", "{}", "Authorization: Bearer s3cret", "Cookie: s3cret", "DPoP: s3cret",
			"Proxy-Authorization: s3cret"); code != 200 {
			t.Fatalf("%d, want 200", code)
		}
		_, calls := w.seen()
		for name, values := range calls[0].header {
			if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "s3cret") }) {
				t.Errorf("%s reached the upstream", name)
			}
		}
	})

	t.Run("spoofed headers", func(t *testing.T) {
		w.reset(allow())
		if code, _ := w.raw(t, "POST", "/export", "{}", "X-Grant-Ctx-Agent: root", "x-grant-ctx-agent: root2",
			"X-Grant-Ctx-Anything: x", "X-Envoy-Upstream-Rq-Timeout-Ms: 60000", "X-Envoy-Retry-On: 5xx",
			"X-Envoy-Original-Path: /admin", "X-Envoy-Internal: true", "X-Envoy-Anything: x",
			"X-Request-Id: mine",
			"X-Forwarded-Client-Cert: URI=spiffe://root"); code != 200 {
			t.Fatalf("%d, want 200", code)
		}
		checks, calls := w.seen()
		got := map[string]string{}
		for name := range calls[0].header {
			if strings.HasPrefix(strings.ToLower(name), "x-envoy-") {
				t.Errorf("%s reached the upstream", name)
			}
		}
		for _, h := range checks[0].GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
			got[h.Key] = string(h.RawValue)
		}
		for name, values := range calls[0].header {
			got[strings.ToLower(name)] = strings.Join(values, ",")
		}
		for name, value := range got {
			if strings.HasPrefix(name, ContextPrefix) || name == "x-forwarded-client-cert" ||
				strings.HasPrefix(name, "x-envoy-") && name != "x-envoy-external-address" && name != "x-envoy-auth-partial-body" ||
				strings.Contains(value, "root") || value == "mine" {
				t.Errorf("a client's %s: %s got through", name, value)
			}
		}
	})

	t.Run("what the server must not change", func(t *testing.T) {
		for name, value := range map[string]string{
			":path": "/slow", ":method": "GET", ":authority": "a", ":scheme": "https", "host": "a",
			"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3", "x-envoy-hedge-on-per-try-timeout": "true",
			"content-length": "1", "transfer-encoding": "chunked",
		} {
			w.reset(allowWith(map[string]string{name: value}))
			code, _ := w.raw(t, "POST", "/export", "{}")
			if _, calls := w.seen(); code != 500 || len(calls) != 0 {
				t.Errorf("setting %s: %d, %d calls; want 500 and none", name, code, len(calls))
			}
			if name == "x-envoy-max-retries" || name == "x-envoy-hedge-on-per-try-timeout" || name == "transfer-encoding" {
				continue // not there to be removed
			}
			w.reset(allow(name))
			code, _ = w.raw(t, "POST", "/export", "{}")
			_, calls := w.seen()
			unchanged := len(calls) == 1 && calls[0].method == "POST" && calls[0].uri == "/export" &&
				calls[0].body == "{}" && calls[0].host == "reports.internal"
			if code != 500 && !unchanged || code == 500 && len(calls) != 0 {
				t.Errorf("removing %s: %d, the upstream got %+v", name, code, calls)
			}
		}
		w.reset(allowWith(map[string]string{"x-grant-ctx-agent": "a\r\nx-injected: b"}))
		if code, _ := w.raw(t, "POST", "/export", "{}"); code != 500 {
			t.Errorf("a line end in a header: %d, want 500", code)
		}
		w.reset(func(req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			resp, err := deny(req)
			resp.GetDeniedResponse().Headers = []*corev3.HeaderValueOption{
				{Header: &corev3.HeaderValue{Key: "www-authenticate", Value: "a\r\nx-injected: b"}},
			}
			return resp, err
		})
		if code, _ := w.raw(t, "POST", "/export", "{}"); code != 500 {
			t.Errorf("a line end in a denial's header: %d, want 500", code)
		}
	})

	t.Run("time-outs", func(t *testing.T) {
		for _, tt := range []struct {
			name, method, path string
			answer             func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
			least, most        time.Duration // between what could cut it before and after
		}{
			{"the tool's", "GET", "/slow", allow(), 300 * time.Millisecond, 2900 * time.Millisecond},
			{"shortened by the server", "POST", "/export",
				allowWith(map[string]string{TimeoutHeader: "100"}), 50 * time.Millisecond, 1900 * time.Millisecond},
			{"raised by the server", "GET", "/slow",
				allowWith(map[string]string{TimeoutHeader: "60000"}), 2500 * time.Millisecond, 10 * time.Second},
		} {
			w.reset(tt.answer)
			released := make(chan struct{})
			w.mu.Lock()
			w.serve = func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done(): // Envoy gave up
				case <-released:
				}
			}
			w.mu.Unlock()
			begun := time.Now()
			code, _ := w.raw(t, tt.method, tt.path, "", TimeoutHeader+": 60000")
			if took := time.Since(begun); code != 504 || took < tt.least || took > tt.most {
				t.Errorf("%s: %d after %v, want 504 after %v to %v", tt.name, code, took, tt.least, tt.most)
			}
			close(released)
		}
	})

	t.Run("no answer", func(t *testing.T) {
		for name, answer := range map[string]func(*authv3.CheckRequest) (*authv3.CheckResponse, error){
			"an error":   func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return nil, io.ErrUnexpectedEOF },
			"a time-out": nil,
		} {
			w.reset(answer)
			code, _ := w.raw(t, "POST", "/export", "{}")
			if _, calls := w.seen(); code != 503 || len(calls) != 0 {
				t.Errorf("%s: %d, %d calls; want 503 and none", name, code, len(calls))
			}
		}
		w.grpc.Stop()
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}")
		if _, calls := w.seen(); code != 503 || len(calls) != 0 {
			t.Errorf("server down: %d, %d calls; want 503 and none", code, len(calls))
		}
	})
}

// TestLiveCredentialHeader: no credential header of any tool reaches a tool, even
// if the server forgets to remove it; authorization does where the tool says so.
func TestLiveCredentialHeader(t *testing.T) {
	w := start(t, func(o *Options) {
		o.CredentialHeader, o.MaxBody = "x-grant", 10
		export, ok1 := o.Catalog.Tool("reports/export")
		send, ok2 := o.Catalog.Tool("mail/send")
		if !ok1 || !ok2 {
			t.Fatal("no such tools")
		}
		export.PassAuthorization, send.Credential = true, "x-mail-token"
	})
	headers := []string{"Authorization: Bearer for-the-tool", "X-Grant: s3cret", "X-Grant: s3cret2", "X-Mail-Token: s3cret"}
	for _, tc := range []struct{ method, authorization string }{{"POST", "Bearer for-the-tool"}, {"PUT", ""}} {
		w.reset(allow())
		if code, _ := w.raw(t, tc.method, "/export", "{}", headers...); code != 200 {
			t.Fatalf("%d, want 200", code)
		}
		checks, calls := w.seen()
		if n := len(checks[0].GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders()); n < 8 {
			t.Errorf("%s: the check saw %d headers: not all that were sent", tc.method, n)
		}
		if h := calls[0].header; h.Get("Authorization") != tc.authorization || strings.Contains(fmt.Sprint(h), "s3cret") {
			t.Errorf("%s: the tool got %v", tc.method, h)
		}
	}
	if code, _ := w.raw(t, "POST", "/export", strconv.Itoa(12345678901)); code != 413 {
		t.Errorf("11 bytes: %d, want 413", code)
	}
}
