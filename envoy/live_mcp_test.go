package envoy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

const liveMCP = `
servers:
- id: github
  resource: https://github.internal/mcp
  upstream: %[1]s
  mcp: {path: /mcp/github, upstream_path: /mcp}
  tools: [{tool: merge_pr}]
- id: notes
  resource: https://notes.internal:8443/mcp
  upstream: %[1]s
  credential: x-notes-token
  mcp: {path: /mcp/notes, timeout: 7s}
- id: reports
  resource: https://reports.internal
  upstream: %[1]s
  http:
  - {tool: export, method: POST, path: /export, body: {type: object}}
  - {tool: secret, method: POST, path: /secret, credential: x-secret-token, body: {type: object}}
`

// startMCP is start with the servers of the text, all at the same upstream.
func startMCP(t *testing.T, text string, edit ...func(config string) string) *world {
	return start(t, func(o *Options) {
		o.Catalog = parseCatalog(t, fmt.Sprintf(text, o.Catalog.Servers[0].Upstream))
		o.Issuer = "https://broker.internal"
	}, edit...)
}

// What the check sets sends a message over the surface, and over the connections
// of streams.
var (
	pass   = map[string]string{PassHeader: "sealed", "x-grant-ctx-agent": "ci/bot"}
	stream = map[string]string{StreamHeader: "1", "x-grant-ctx-agent": "ci/bot"}
)

func TestLiveMCP(t *testing.T) {
	w := startMCP(t, liveMCP)

	t.Run("every method is asked about", func(t *testing.T) {
		for _, method := range []string{"POST", "GET", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"} {
			for _, over := range []struct {
				set  map[string]string
				by   string
				want call
			}{
				{nil, "toolgrant-server-github", call{uri: "/mcp"}},
				{map[string]string{"x-grant-ctx-agent": "ci/bot"}, "toolgrant-server-github", call{uri: "/mcp"}},
				{map[string]string{"x-grant-ctx-streams": "1"}, "toolgrant-server-github", call{uri: "/mcp"}},
				{stream, "toolgrant-streams-github", call{uri: "/mcp"}},
				{pass, "toolgrant-surface-github", call{surface: true, uri: "/mcp/github"}},
				{map[string]string{PassHeader: "sealed", StreamHeader: "1"}, "toolgrant-surface-github", call{surface: true, uri: "/mcp/github"}},
			} {
				wantTook := w.took(t)
				wantTook[over.by]++
				w.reset(allowWith(over.set))
				if code, _ := w.raw(t, method, "/mcp/github", ""); code != 200 {
					t.Errorf("%s %v: %d, want 200", method, over.set, code)
				}
				checks, calls := w.seen()
				if len(checks) != 1 || len(calls) != 1 {
					t.Fatalf("%s %v: %d checks, %d calls; want 1 and 1", method, over.set, len(checks), len(calls))
				}
				want := map[string]string{"server": "github", "timeout_ms": "15000"}
				if diff := cmp.Diff(want, checks[0].GetAttributes().GetContextExtensions()); diff != "" {
					t.Errorf("%s %v: context extensions (-want +got):\n%s", method, over.set, diff)
				}
				if c := calls[0]; c.method != method || c.surface != over.want.surface || c.uri != over.want.uri {
					t.Errorf("%s %v: arrived as %s %s, at the surface: %v", method, over.set, c.method, c.uri, c.surface)
				}
				if got := calls[0].header.Values(StreamHeader); len(got) != 0 {
					t.Errorf("%s %v: %s arrived: %q", method, over.set, StreamHeader, got)
				}
				if diff := cmp.Diff(wantTook, w.took(t)); diff != "" {
					t.Errorf("%s %v: requests by cluster (-want +got):\n%s", method, over.set, diff)
				}
			}
		}
	})

	t.Run("what arrives", func(t *testing.T) {
		for _, set := range []map[string]string{
			{TimeoutHeader: "1000"}, {TimeoutHeader: "1000", StreamHeader: "1"}, {TimeoutHeader: "1000", PassHeader: "sealed"},
		} {
			w.reset(allowWith(set, "accept", "x-undeclared"))
			if code, _ := w.raw(t, "POST", "/mcp/github", `{"id":1}`, "Authorization: Bearer s3cret", "X-Notes-Token: s3cret", "Cookie: s3cret",
				"X-Secret-Token: s3cret", "Mcp-Session-Id: s", "Mcp-Protocol-Version: 2025-11-25", "Mcp-Param-Region: eu", "Last-Event-ID: 7",
				"Accept: text/event-stream", "X-Undeclared: 1", "X-Envoy-Original-Path: /x"); code != 200 {
				t.Fatalf("%d, want 200", code)
			}
			checks, calls := w.seen()
			if path := checks[0].GetAttributes().GetRequest().GetHttp().GetPath(); path != "/mcp/github" {
				t.Errorf("checked path %q: must be as the client wrote it", path)
			}
			want := http.Header{
				"Mcp-Session-Id": {"s"}, "Mcp-Protocol-Version": {"2025-11-25"}, "Mcp-Param-Region": {"eu"}, "Last-Event-Id": {"7"},
				"Content-Length": {"8"},
			}
			if value := set[PassHeader]; value != "" {
				want.Set(PassHeader, value)
			}
			got := calls[0].header.Clone()
			for _, name := range []string{"X-Forwarded-Proto", "X-Request-Id", "X-Forwarded-For"} {
				got.Del(name) // Envoy's own, which the check removes
			}
			if diff := cmp.Diff(want, got); diff != "" || calls[0].body != `{"id":1}` {
				t.Errorf("body %q, headers (-want +got):\n%s", calls[0].body, diff)
			}
			if !strings.HasPrefix(calls[0].host, "127.0.0.1:") {
				t.Errorf("host %q, want the upstream of the catalogue", calls[0].host)
			}
		}
	})

	t.Run("a server without upstream_path", func(t *testing.T) {
		w.reset(allow())
		w.raw(t, "POST", "/mcp/notes", "{}", "X-Notes-Token: s3cret")
		checks, calls := w.seen()
		want := map[string]string{"server": "notes", "timeout_ms": "7000"}
		if diff := cmp.Diff(want, checks[0].GetAttributes().GetContextExtensions()); diff != "" || calls[0].uri != "/mcp/notes" {
			t.Errorf("arrived at %s; context extensions (-want +got):\n%s", calls[0].uri, diff)
		}
	})

	t.Run("the client cannot take the check's headers away", func(t *testing.T) {
		for name, by := range map[string]string{PassHeader: "toolgrant-surface-github", StreamHeader: "toolgrant-streams-github"} {
			want := w.took(t)
			want[by]++
			w.reset(allowWith(map[string]string{name: "1"}))
			code, _ := w.raw(t, "POST", "/mcp/github", "{}", "Connection: "+name)
			if diff := cmp.Diff(want, w.took(t)); code != 200 || diff != "" {
				t.Errorf("%s: %d; requests by cluster (-want +got):\n%s", name, code, diff)
			}
		}
	})

	t.Run("HTTP tools have no second route", func(t *testing.T) {
		w.reset(allowWith(pass))
		if code, _ := w.raw(t, "POST", "/export", "{}"); code != 200 {
			t.Errorf("%d, want 200", code)
		}
		checks, calls := w.seen()
		want := map[string]string{"tool": "reports/export", "timeout_ms": "15000"}
		if diff := cmp.Diff(want, checks[0].GetAttributes().GetContextExtensions()); diff != "" {
			t.Errorf("context extensions (-want +got):\n%s", diff)
		}
		if c := calls[0]; c.surface || c.uri != "/export" || c.host != "reports.internal" {
			t.Errorf("arrived: %+v", c)
		}
	})

	t.Run("denied", func(t *testing.T) {
		w.reset(deny)
		for _, method := range []string{"POST", "GET", "DELETE"} {
			code, body := w.raw(t, method, "/mcp/github", "")
			if _, calls := w.seen(); code != 403 || body != `{"reason":"policy"}` || len(calls) != 0 {
				t.Errorf("%s: %d %q, arrived: %+v", method, code, body, calls)
			}
		}
		w.reset(func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return nil, io.ErrUnexpectedEOF })
		code, _ := w.raw(t, "POST", "/mcp/github", "{}")
		if _, calls := w.seen(); code != 503 || len(calls) != 0 {
			t.Errorf("no answer: %d, arrived: %+v", code, calls)
		}
	})

	// denials: jsonrpc. That the status of the check denies counts, and not the
	// one that the client is told.
	t.Run("denied with status 200", func(t *testing.T) {
		const denial = `{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"denied"}}`
		w.reset(func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return &authv3.CheckResponse{
				Status: &status.Status{Code: int32(codes.PermissionDenied)},
				HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
					Status:  &typev3.HttpStatus{Code: typev3.StatusCode_OK},
					Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "content-type", Value: "application/json"}}},
					Body:    denial,
				}},
			}, nil
		})
		resp, body := w.do(t, "POST", "http://"+w.addr+"/mcp/github", "")
		if resp.StatusCode != 200 || body != denial || !slices.Equal(resp.Header.Values("Content-Type"), []string{"application/json"}) {
			t.Errorf("%s %q, content type %q", resp.Status, body, resp.Header.Values("Content-Type"))
		}
		if checks, calls := w.seen(); len(checks) != 1 || len(calls) != 0 {
			t.Errorf("%d checks, arrived: %+v", len(checks), calls)
		}
	})

	t.Run("paths", func(t *testing.T) {
		for _, target := range []string{
			"/mcp/github/", "/mcp/github/x", "/mcp/GitHub", "/mcp", "/mcp/", "/mcp/github;a", "/mcp%2Fgithub", "/mcp/github%3Fa", "/mcp/githubs",
		} {
			w.reset(allowWith(pass))
			code, _ := w.raw(t, "POST", target, "{}")
			if checks, calls := w.seen(); code != 404 && code != 400 || len(checks)+len(calls) != 0 {
				t.Errorf("%s: %d, %d checks, %d calls; want 404 or 400 and none", target, code, len(checks), len(calls))
			}
		}
		// No route can refuse a query: the check must, which sees it as it would
		// arrive, behind the server's path and nowhere else.
		for _, query := range []string{"?", "?a=/../b", "?/mcp/../admin", "?a?b"} {
			w.reset(allow())
			code, _ := w.raw(t, "POST", "/mcp/github"+query, "{}")
			checks, calls := w.seen()
			if code != 200 || checks[0].GetAttributes().GetRequest().GetHttp().GetPath() != "/mcp/github"+query || calls[0].uri != "/mcp"+query {
				t.Errorf("%s: %d, checked as %q, arrived at %q", query, code, checks[0].GetAttributes().GetRequest().GetHttp().GetPath(), calls[0].uri)
			}
		}
	})

	t.Run("upgrades", func(t *testing.T) {
		w.reset(allowWith(pass))
		for method, want := range map[string]int{"GET": 403, "CONNECT": 400} {
			code, _ := w.raw(t, method, "/mcp/github", "", "Connection: Upgrade", "Upgrade: websocket")
			if checks, calls := w.seen(); code != want || len(checks)+len(calls) != 0 {
				t.Errorf("%s: %d, %d checks, arrived: %+v; want %d and none", method, code, len(checks), calls, want)
			}
		}
	})
}

// do sends a request without a body to Envoy, for the host if it is not "".
func (w *world) do(t *testing.T, method, url, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(b)
}
