package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/toolgrant/toolgrant/client"
	"github.com/toolgrant/toolgrant/examples/mcp/notes"
)

const mcpPolicies = `
@id("orchestrators-run-their-tasks")
permit (principal in Toolgrant::AgentGroup::"orchestrators", action in [Toolgrant::Action::"start_task", Toolgrant::Action::"end_task", Toolgrant::Action::"revoke"], resource)
when { context.task.owner == principal };

@id("reporting-may-be-granted")
permit (principal in Toolgrant::AgentGroup::"reporting", action == Toolgrant::Action::"grant", resource)
when { context.task.kind == "monthly-report" && context.ttl <= 900 };

@id("inside-a-grant")
permit (principal, action in Toolgrant::Action::"call", resource) when { context has grant };

@id("reads-need-no-grant")
permit (principal, action in Toolgrant::Action::"call", resource in Toolgrant::ToolSet::"read");

@id("mcp-start-up-needs-no-grant")
permit (principal, action in [
  Toolgrant::Action::"mcp:initialize", Toolgrant::Action::"mcp:ping", Toolgrant::Action::"mcp:server/discover",
  Toolgrant::Action::"mcp:notifications", Toolgrant::Action::"mcp:tools/list"
], resource);

@id("sessions-of-ones-own")
permit (principal, action in [Toolgrant::Action::"mcp:GET", Toolgrant::Action::"mcp:DELETE"], resource);

@id("more-inside-a-grant")
permit (principal, action in Toolgrant::Action::"mcp", resource) when { context has grant };
`

// notesServer is the catalogue entry of the notes server.
const notesServer = `
- id: notes
  resource: https://notes.internal/mcp
  upstream: UPSTREAM
  mcp: {path: /mcp/notes, upstream_path: /mcp, denials: http}
  tools:
  - {tool: read_note, sets: [read], input: {type: object, properties: {note: {type: string}}, required: [note]}}
  - {tool: list_notes, sets: [read], input: {type: object, properties: {shelf: {type: string, header: Shelf}}, required: [shelf]}}
  - {tool: write_note, sets: [write], input: {type: object, properties: {note: {type: string}, text: {type: string}}, required: [note, text]}}
  - {tool: delete_note, sets: [write], input: {type: object, properties: {note: {type: string}}, required: [note]}}
  - {tool: call_tool, sets: [read], meta: {tool: /name, arguments: /arguments}, input: {type: object, properties: {name: {type: string}, arguments: {type: object}}, required: [name]}}
`

// mcpWorld is a world in front of an MCP server.
type mcpWorld struct {
	*world
	seen *recorder
	ran  *syncBuffer // the notes server's own log
}

// recorder keeps what reached the MCP server.
type recorder struct {
	next http.Handler
	mu   sync.Mutex
	seen []*http.Request
	body []string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(strings.NewReader(string(body)))
	r.mu.Lock()
	r.seen, r.body = append(r.seen, req.Clone(context.Background())), append(r.body, string(body))
	r.mu.Unlock()
	r.next.ServeHTTP(w, req)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// openMCP starts toolgrant in a process of its own and Envoy, in front of a notes
// server in this one, or of what listens at upstream.
func openMCP(t testing.TB, server, upstream string) *mcpWorld {
	t.Helper()
	m := layOutMCP(t, server, upstream)
	m.serve()
	m.startEnvoy()
	return m
}

func layOutMCP(t testing.TB, server, upstream string) *mcpWorld {
	t.Helper()
	m := &mcpWorld{ran: &syncBuffer{}}
	if upstream == "" {
		m.seen = &recorder{next: notes.Handler(slog.New(slog.NewTextHandler(m.ran, nil)))}
		srv := httptest.NewServer(m.seen)
		t.Cleanup(srv.Close)
		t.Cleanup(srv.CloseClientConnections) // streams that a client left open
		upstream = strings.TrimPrefix(srv.URL, "http://")
	}
	m.world = layOut(t)
	for name, text := range map[string]string{
		"tools.yaml":           "servers:" + strings.ReplaceAll(server, "UPSTREAM", upstream),
		"policies/issue.cedar": mcpPolicies,
		"policies/call.cedar":  `@id("nothing") forbid (principal, action, resource) when { false };`,
	} {
		if err := m.write(name, text); err != nil {
			t.Fatal(err)
		}
	}
	m.load()
	return m
}

// url is the notes server as clients call it.
func (m *mcpWorld) url() string { return m.front + "/mcp/notes" }

// grants buys a token for tools in a task of its own.
func (m *mcpWorld) grants(tools ...string) (tok, task string) {
	m.t.Helper()
	task = m.task()
	var asks []client.GrantRequest
	for _, tool := range tools {
		asks = append(asks, client.GrantRequest{Tool: tool, Task: task, TTL: 5 * time.Minute})
	}
	got, err := m.bot().Exchange(m.t.Context(), asks...)
	if err != nil {
		m.t.Fatal(err)
	}
	return got.AccessToken, task
}

// connect is a session of the Go SDK's client, with a token that may change.
func (m *mcpWorld) connect(source func() string, revision string) (*mcp.ClientSession, error) {
	hc := &http.Client{Transport: bearerTransport{source}}
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	return c.Connect(m.t.Context(), &mcp.StreamableClientTransport{Endpoint: m.url(), HTTPClient: hc, MaxRetries: -1}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
}

type bearerTransport struct{ source func() string }

func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.source())
	return http.DefaultTransport.RoundTrip(r)
}

// patient is a deadline that only a fault reaches.
const patient = 30 * time.Second
