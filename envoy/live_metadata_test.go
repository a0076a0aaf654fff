package envoy

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLiveMetadata: each server's own document, to anybody, by GET alone, and
// nothing else without a check.
func TestLiveMetadata(t *testing.T) {
	w := startMCP(t, liveMCP+`
- {id: files, resource: "https://files.internal/srv/mcp", upstream: %[1]s, mcp: {path: /mcp/files}}
- {id: bare, resource: "https://bare.internal/", upstream: %[1]s, http: [{tool: t, method: GET, path: /bare}]}
- {id: urn, resource: "urn:example:x", upstream: %[1]s, mcp: {path: /mcp/urn}}
- {id: port1, resource: "https://ports.internal:1/p", upstream: %[1]s, mcp: {path: /mcp/port1}}
- {id: port2, resource: "https://ports.internal:2/p", upstream: %[1]s, mcp: {path: /mcp/port2}}
`)
	w.reset(deny)
	const wellKnown = "/.well-known/oauth-protected-resource"
	for _, tt := range []struct {
		path, host, resource string // resource "": there is no document
		bearer               bool   // by the authorization header
	}{
		{wellKnown + "/srv/mcp", "", "https://files.internal/srv/mcp", true},
		{wellKnown + "/srv/mcp", "elsewhere.example:1", "https://files.internal/srv/mcp", true},
		{wellKnown + "/mcp", "github.internal", "https://github.internal/mcp", true},
		{wellKnown + "/mcp", "GitHub.internal:443", "https://github.internal/mcp", true},
		{wellKnown + "/mcp", "notes.internal", "https://notes.internal:8443/mcp", false},
		{wellKnown + "/mcp", "notes.internal:8443", "https://notes.internal:8443/mcp", false},
		{wellKnown, "bare.internal", "https://bare.internal/", true},
		{wellKnown, "reports.internal", "https://reports.internal", false}, // one of its tools has another header

		{wellKnown + "/mcp", "elsewhere.example", "", false}, // one of two, and the name says none
		{wellKnown + "/mcp", "reports.internal", "", false},
		{wellKnown, "", "", false},
		{wellKnown + "/p", "ports.internal:1", "", false},
		{wellKnown + "/p", "ports.internal:2", "", false},
		{wellKnown + "/srv", "", "", false},
		{wellKnown + "/srv/mcp/", "", "", false},
		{wellKnown + "/mcp/urn", "", "", false},
		{"/.well-known/oauth-authorization-server", "", "", false},
	} {
		resp, body := w.do(t, "GET", "http://"+w.addr+tt.path, tt.host)
		if tt.resource == "" {
			if resp.StatusCode != 404 {
				t.Errorf("%s on %q: %s %s, want 404", tt.path, tt.host, resp.Status, body)
			}
			continue
		}
		want := map[string]any{
			"resource":                              tt.resource,
			"authorization_servers":                 []any{"https://broker.internal"},
			"authorization_details_types_supported": []any{"urn:toolgrant:grant:1"},
		}
		if tt.bearer {
			want["bearer_methods_supported"] = []any{"header"}
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s on %q: %s %q, %v", tt.path, tt.host, resp.Status, body, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s on %q (-want +got):\n%s", tt.path, tt.host, diff)
		}
		header := http.Header{"Content-Type": resp.Header.Values("Content-Type"), "Cache-Control": resp.Header.Values("Cache-Control")}
		if diff := cmp.Diff(http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"public, max-age=300"}}, header); diff != "" {
			t.Errorf("%s on %q: headers (-want +got):\n%s", tt.path, tt.host, diff)
		}
	}
	for _, method := range []string{"POST", "DELETE", "HEAD", "OPTIONS"} {
		if resp, _ := w.do(t, method, "http://"+w.addr+wellKnown+"/srv/mcp", ""); resp.StatusCode != 404 {
			t.Errorf("%s: %s, want 404", method, resp.Status)
		}
	}
	if checks, calls := w.seen(); len(checks)+len(calls) != 0 {
		t.Errorf("%d checks, %d calls; want none", len(checks), len(calls))
	}
	// The one thing that is answered unchecked, with bodies and upgrades too.
	for _, headers := range [][]string{nil, {"Connection: Upgrade", "Upgrade: websocket"}, {"X-Grant-Ctx-Pass: mine"}} {
		if _, body := w.raw(t, "GET", wellKnown+"/srv/mcp", strings.Repeat("a", DefaultMaxBody+1), headers...); strings.Contains(body, "served") {
			t.Errorf("%v: something answered: %q", headers, body)
		}
	}
	if checks, calls := w.seen(); len(checks)+len(calls) != 0 {
		t.Errorf("%d checks, %d calls; want none", len(checks), len(calls))
	}
}
