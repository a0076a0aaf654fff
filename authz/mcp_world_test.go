package authz

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

const mcpTools = `
servers:
- id: notes
  resource: https://notes.internal/mcp
  upstream: 127.0.0.1:1
  mcp: {path: /mcp}
  tools:
  - {tool: read, sets: [read], input: {type: object, properties: {id: {type: string}}, required: [id]}}
  - {tool: write, name: writeNote, input: {type: object, properties: {id: {type: string}, text: {type: string}, size: {type: integer}}, required: [id]}, opaque: [/text]}
  - {tool: slow, tasks: true, retries: true, timeout: 20s, input: {type: object, properties: {id: {type: string}, folder: {type: string, nullable: true}}}}
  - {tool: deep, meta: {tool: /name, arguments: /arguments}, tasks: true, input: {type: object, properties: {name: {type: string}, arguments: {type: object}}, required: [name]}}
  - {tool: any, sets: [read], meta: {tool: /name, arguments: /arguments}, input: {type: object, properties: {name: {type: string}, arguments: {type: object}}, required: [name]}}
- {id: rpc, resource: "https://rpc.internal/mcp", upstream: "127.0.0.1:1", mcp: {path: /rpc, denials: jsonrpc, revisions: ["2025-11-25"]}, tools: [{tool: read}]}
- {id: web, resource: "https://web.internal", upstream: "127.0.0.1:1", http: [{tool: get, method: GET, path: /get}]}
`

// mcpWorld is a world whose tools are those of MCP servers. Policy permits what
// comes with a grant, the read set, and of methods initialize, tools/list and what
// permit says.
type mcpWorld struct {
	*world
	seal *mcp.Seal

	mu       sync.Mutex
	sessions map[string]string // session -> agent
	pinned   map[string]bool   // session
	tasks    map[string]Started
	permit   map[string]bool // actions permitted without a grant
}

func newMCPWorld(t testing.TB) *mcpWorld {
	t.Helper()
	m := &mcpWorld{
		seal: mcp.NewSeal(), sessions: map[string]string{}, pinned: map[string]bool{}, tasks: map[string]Started{},
		permit: map[string]bool{"mcp:initialize": true, "mcp:tools/list": true, "mcp:server/discover": true},
	}
	m.world = newWorld(t, func(c *Config) {
		cat, err := catalog.Parse("tools.yaml", []byte(mcpTools))
		if err != nil {
			t.Fatal(err)
		}
		c.Catalog, c.Decide = cat, m.policy
		c.Watched = &Watched{
			Seal: m.seal,
			Session: func(server, id string) (string, bool, bool) {
				m.mu.Lock()
				defer m.mu.Unlock()
				agent, ok := m.sessions[server+" "+id]
				return agent, m.pinned[server+" "+id], ok
			},
			PinSession: func(server, id string) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.pinned[server+" "+id] = true
			},
			EndSession: func(server, id string) {
				m.mu.Lock()
				defer m.mu.Unlock()
				delete(m.sessions, server+" "+id)
			},
			Task: func(server, id string) (Started, bool) {
				m.mu.Lock()
				defer m.mu.Unlock()
				s, ok := m.tasks[server+" "+id]
				return s, ok
			},
		}
	})
	return m
}

func (m *mcpWorld) policy(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
	m.world.mu.Lock()
	m.asked = append(m.asked, in...)
	m.world.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]grants.Decision, len(in))
	for i, q := range in {
		tool, _ := m.cfg.Catalog.Tool(q.Tool)
		if q.Grant != nil || m.permit[q.Action] || tool != nil && len(tool.Sets) > 0 {
			out[i] = grants.Decision{Allow: true, Policies: []string{"test"}}
		}
	}
	return out, nil
}

// modern is a message of 2026-07-28 as Envoy would send it, with the headers that
// its client puts beside it. params is a JSON object without its _meta.
func modern(tok, method, name, params string, more ...string) *authv3.CheckRequest {
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	if inner := strings.TrimSpace(strings.Trim(params, " {}")); params != "" && inner != "" {
		meta = strings.TrimSuffix(strings.TrimSpace(params), "}") + "," + meta + "}"
	} else {
		meta = "{" + meta + "}"
	}
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":%q,"params":%s}`, method, meta)
	headers := []string{"mcp-protocol-version", "2026-07-28", "mcp-method", method}
	if name != "" {
		headers = append(headers, "mcp-name", name)
	}
	return message("notes", tok, body, append(headers, more...)...)
}

// legacy is a message of 2025-11-25.
func legacy(server, tok, session, body string, more ...string) *authv3.CheckRequest {
	headers := []string{"mcp-protocol-version", "2025-11-25"}
	if session != "" {
		headers = append(headers, "mcp-session-id", session)
	}
	return message(server, tok, body, append(headers, more...)...)
}

func message(server, tok, body string, headers ...string) *authv3.CheckRequest {
	path := map[string]string{"notes": "/mcp", "rpc": "/rpc"}[server]
	headers = append([]string{":authority", server + ".internal", "content-type", "application/json"}, headers...)
	if tok != "" {
		headers = append(headers, "authorization", "Bearer "+tok)
	}
	req := ask("", "POST", path, body, headers...)
	req.Attributes.ContextExtensions = map[string]string{ContextServer: server, ContextTimeout: "15000"}
	return req
}

// rpcAnswer is a denial's body.
type rpcAnswer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Error   struct {
		Code    int            `json:"code"`
		Message string         `json:"message"`
		Data    map[string]any `json:"data"`
	} `json:"error"`
}

func (m *mcpWorld) answer(r *authv3.CheckResponse) rpcAnswer {
	m.t.Helper()
	var a rpcAnswer
	if err := json.Unmarshal([]byte(r.GetDeniedResponse().GetBody()), &a); err != nil || a.Version != "2.0" {
		m.t.Fatalf("%v: %s", err, r.GetDeniedResponse().GetBody())
	}
	return a
}

// sent is a header that an allow sets; "" for none.
func sent(r *authv3.CheckResponse, name string) string {
	for _, h := range r.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == name {
			return h.GetHeader().GetValue()
		}
	}
	return ""
}

func challengeOf(r *authv3.CheckResponse) string {
	for _, h := range r.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "www-authenticate" {
			return h.GetHeader().GetValue()
		}
	}
	return ""
}
