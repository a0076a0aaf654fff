package envoy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// world is a real Envoy with the configuration that Config writes, between a
// client, an authorization server and an upstream.
type world struct {
	*envoytest.Proxy
	addr string // of Envoy's listener

	mu     sync.Mutex
	answer func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
	checks []*authv3.CheckRequest
	calls  []call
	serve  http.HandlerFunc // of the upstream, after the call is noted

	grpc *grpc.Server
}

// call is a request as the upstream got it.
type call struct {
	method, uri, host string
	header, trailer   http.Header
	body              string
}

func (w *world) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	w.mu.Lock()
	w.checks = append(w.checks, req)
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		<-ctx.Done() // Envoy gave up
		return nil, ctx.Err()
	}
	return answer(req)
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	w.calls = append(w.calls, call{r.Method, r.RequestURI, r.Host, r.Header, r.Trailer, string(body)})
	serve := w.serve
	w.mu.Unlock()
	if serve != nil {
		serve(rw, r)
		return
	}
	fmt.Fprint(rw, "served")
}

// reset forgets what was seen and sets how checks are answered from now on;
// nil: not at all.
func (w *world) reset(answer func(*authv3.CheckRequest) (*authv3.CheckResponse, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer, w.checks, w.calls, w.serve = answer, nil, nil, nil
}

func (w *world) seen() ([]*authv3.CheckRequest, []call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.checks), slices.Clone(w.calls)
}

const liveTools = `
servers:
- id: reports
  resource: https://reports.internal
  upstream: %[1]s
  http:
  - {tool: export, method: POST, path: /export, timeout: 2s, header: {x-declared: {type: string}}, body: {type: object}}
  - {tool: slow, method: GET, path: /slow, timeout: 400ms}
- id: mail
  resource: https://mail.internal:8443
  upstream: %[1]s
  http:
  - {tool: send, method: PUT, path: /export, body: {type: object}}
`

func start(t *testing.T, set func(*Options)) *world {
	t.Helper()
	w := &world{}
	w.reset(allow())
	upstream := httptest.NewServer(w)
	t.Cleanup(upstream.Close)

	dir, err := os.MkdirTemp("", "authz") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	w.grpc = grpc.NewServer()
	authv3.RegisterAuthorizationServer(w.grpc, w)
	done := make(chan error, 1)
	go func() { done <- w.grpc.Serve(l) }()
	t.Cleanup(func() {
		w.grpc.Stop()
		if err := <-done; err != nil {
			t.Errorf("authorization server: %v", err)
		}
	})

	o := Options{
		Catalog: parseCatalog(t, fmt.Sprintf(liveTools, upstream.Listener.Addr())),
		Listen:  "127.0.0.1:0", Authz: "unix://" + socket,
		CheckTimeout: 20 * time.Second, // the machine may be busy
	}
	if set != nil {
		set(&o)
	}
	config, err := Config(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Proxy = envoytest.Start(t, config)
	w.addr = w.Listener(t, ListenerName)
	return w
}

// allow answers OK, sets headers given as name, value, and removes those in
// remove.
func allow(remove ...string) func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return allowWith(nil, remove...)
}

func allowWith(set map[string]string, remove ...string) func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	ok := &authv3.OkHttpResponse{HeadersToRemove: remove}
	for name, value := range set {
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}})
	}
	return func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{
			Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
		}, nil
	}
}

func deny(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	metadata, err := structpb.NewStruct(map[string]any{
		"decision_id": "d_1", "agent": "ci/bot", "task": "t_1", "grant": "g_1", "tool": "reports/export", "reason": "policy",
	})
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Body: `{"reason":"policy"}`,
		}},
		DynamicMetadata: metadata,
	}, err
}

// raw sends one HTTP/1.1 request exactly as written and returns the answer.
// Go's client would tidy up what these tests are about.
func (w *world) raw(t *testing.T, method, target, body string, headers ...string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: evil.internal\r\nConnection: close\r\nContent-Length: %d\r\n", method, target, len(body))
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return resp.StatusCode, string(b)
}

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

	t.Run("paths", func(t *testing.T) {
		for _, target := range []string{
			"/export/", "/EXPORT", "/Export", "/export;a", "/export%3f", "/export%3Fformat=csv", "/export%23", "/export%2f",
			"/export%2F..%2Fslow", "/a%2F..%2Fexport", "/a%5c..%5cexport", "/export%5c", "/export%00", "/export%252f", "/export%20", "/export.", "/export/..;/slow",
			"/", "/export/slow", "/exports", "/expor", "*", "export", "/export#a", "http:/export", "/export\\", "/%u0065xport",
		} {
			w.reset(allow())
			code, _ := w.raw(t, "POST", target, "{}")
			checks, calls := w.seen()
			if code != 404 && code != 400 || len(checks)+len(calls) != 0 {
				t.Errorf("%s: %d, %d checks, %d calls; want 404 or 400 and none", target, code, len(checks), len(calls))
			}
		}
		for _, target := range []string{
			"//export", "/./export", "/slow/../export", "/%65xport", "/a/%2e%2e/export", `\export`, "/../export",
			"http://other.internal/export",
		} {
			w.reset(allow())
			code, _ := w.raw(t, "POST", target, "{}")
			checks, calls := w.seen()
			switch code {
			case 400, 404:
				if len(checks)+len(calls) != 0 {
					t.Errorf("%s: %d, but %d checks, %d calls", target, code, len(checks), len(calls))
				}
			case 200:
				a := checks[0].GetAttributes()
				if a.GetContextExtensions()["tool"] != "reports/export" || a.GetRequest().GetHttp().GetPath() != "/export" ||
					calls[0].uri != "/export" || calls[0].method != "POST" {
					t.Errorf("%s: checked as %v %s, called as %s", target, a.GetContextExtensions(), a.GetRequest().GetHttp().GetPath(), calls[0].uri)
				}
			default:
				t.Errorf("%s: %d", target, code)
			}
		}
	})

	t.Run("header names with underscores", func(t *testing.T) {
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}", "X_Grant_Ctx_Agent: root")
		if checks, _ := w.seen(); code != 400 || len(checks) != 0 {
			t.Errorf("%d, %d checks; want 400 and none", code, len(checks))
		}
	})

	t.Run("body limit", func(t *testing.T) {
		w.reset(allow())
		if code, _ := w.raw(t, "POST", "/export", strings.Repeat("a", DefaultMaxBody)); code != 200 {
			t.Errorf("a body of exactly the limit: %d, want 200", code)
		}
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", strings.Repeat("a", DefaultMaxBody+1))
		if checks, calls := w.seen(); code != 413 || len(checks)+len(calls) != 0 {
			t.Errorf("a body over the limit: %d, %d checks, %d calls; want 413 and none", code, len(checks), len(calls))
		}
	})

	t.Run("headers limit", func(t *testing.T) {
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}", "X-Long: "+strings.Repeat("a", maxHeadersKB<<10))
		if checks, calls := w.seen(); code != 431 || len(checks)+len(calls) != 0 {
			t.Errorf("%d, %d checks, %d calls; want 431 and none", code, len(checks), len(calls))
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

	t.Run("HTTP/2 trailers", func(t *testing.T) {
		w.reset(allow())
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: &protocols}
		defer transport.CloseIdleConnections()
		body := &lateTrailer{Reader: strings.NewReader("{}")}
		req, err := http.NewRequest("POST", "http://"+w.addr+"/export", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Grant-Ctx-Agent": nil, "Authorization": nil}
		body.atEnd = func() {
			req.Trailer.Set("X-Grant-Ctx-Agent", "root")
			req.Trailer.Set("Authorization", "Bearer s3cret")
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		_, calls := w.seen()
		if resp.ProtoMajor != 2 || resp.StatusCode != 200 || len(calls) != 1 {
			t.Fatalf("%s %s, %d calls", resp.Proto, resp.Status, len(calls))
		}
		if c := calls[0]; c.body != "{}" || len(c.trailer) != 0 || c.header.Get("Authorization") != "" {
			t.Errorf("body %q, trailers %v, headers %v", c.body, c.trailer, c.header)
		}
	})

	t.Run("HTTP/1 trailers", func(t *testing.T) {
		w.reset(allow())
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "POST /export HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-grant-ctx-agent\r\n\r\n"+
			"2\r\n{}\r\n0\r\nx-grant-ctx-agent: root\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		_, calls := w.seen()
		if resp.StatusCode != 200 || len(calls) != 1 {
			t.Fatalf("%s, %d calls", resp.Status, len(calls))
		}
		for _, values := range []http.Header{calls[0].header, calls[0].trailer} {
			if got := values.Get("X-Grant-Ctx-Agent"); got != "" {
				t.Errorf("a trailer got through: %q", got)
			}
		}
	})

	t.Run("upgrades", func(t *testing.T) {
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}", "Connection: Upgrade", "Upgrade: websocket")
		if _, calls := w.seen(); code == 101 || len(calls) > 0 && calls[0].header.Get("Upgrade") != "" {
			t.Errorf("%d, the upstream got %+v", code, calls)
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

// lateTrailer calls atEnd at the body's end, when trailers may be set.
type lateTrailer struct {
	io.Reader
	atEnd func()
}

func (b *lateTrailer) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.atEnd()
	}
	return n, err
}

func wait(t *testing.T, what string, until func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !until(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}
