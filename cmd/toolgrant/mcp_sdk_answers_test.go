//lint:file-ignore SA1019 Sampling is deprecated since 2026-07-28, and still asked for.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/toolgrant/toolgrant/client"
)

// tillServer is the catalogue entry of a server whose tools ask back.
const tillServer = `
- id: till
  resource: https://till.internal/mcp
  upstream: UPSTREAM
  mcp: {path: /mcp/notes, upstream_path: /mcp}
  tools:
  - {tool: peek, sets: [read], input: {type: object}}
  - {tool: pay, sets: [write], input: {type: object, properties: {amount: {type: integer}}, required: [amount]}}
  - {tool: pay_again, sets: [write], retries: true, input: {type: object, properties: {amount: {type: integer}}, required: [amount]}}
`

// tillPolicies: one agent answers no server.
const tillPolicies = mcpPolicies + `
@id("no-answers-in-a-session")
forbid (principal == Toolgrant::Agent::"corp/mute-bot", action == Toolgrant::Action::"mcp:response", resource);

@id("no-answers-in-a-retry")
forbid (principal == Toolgrant::Agent::"corp/mute-bot", action in Toolgrant::Action::"call", resource) when { context has retry };
`

// till is a server of the Go SDK, whose tools ask who pays, and a model for its advice:
// in a session by requests of its own, and since 2026-07-28 by a result that the client
// answers in another call.
//
// In a session it waits for answers as long as enough has nothing: the SDK's server lets
// neither the client's end of the session nor its own end a call that waits.
func till(ran *syncBuffer, enough <-chan struct{}) http.Handler {
	s := mcp.NewServer(&mcp.Implementation{Name: "till", Version: "1"}, nil)
	pay := func(_ context.Context, r *mcp.CallToolRequest, in struct {
		Amount int `json:"amount"`
	}) (*mcp.CallToolResult, any, error) {
		who, ok := r.Params.InputResponses["who"].(*mcp.ElicitResult)
		advice, advised := r.Params.InputResponses["advice"].(*mcp.CreateMessageWithToolsResult)
		if !ok || !advised {
			return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{
				"who": &mcp.ElicitParams{Message: "Who pays?", RequestedSchema: map[string]any{
					"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string"}},
				}},
				"advice": &mcp.CreateMessageParams{MaxTokens: 9, Messages: []*mcp.SamplingMessage{{Role: "user", Content: &mcp.TextContent{Text: "Is it wise?"}}}},
			}}, nil, nil
		}
		fmt.Fprintf(ran, "%s %d by %s, %s\n", r.Params.Name, in.Amount, who.Content["name"], advice.Content[0].(*mcp.TextContent).Text)
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "paid"}}}, nil, nil
	}
	for _, name := range []string{"pay", "pay_again"} {
		mcp.AddTool(s, &mcp.Tool{Name: name}, pay)
	}
	s.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, r mcp.Request) (mcp.Result, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			if method == "tools/call" {
				go func() {
					select {
					case <-enough:
						cancel()
					case <-ctx.Done():
					}
				}()
			}
			return next(ctx, method, r)
		}
	})
	get := func(*http.Request) *mcp.Server { return s }
	sessions, stateless := mcp.NewStreamableHTTPHandler(get, nil), mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{Stateless: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Protocol-Version") >= "2026-07-28" {
			stateless.ServeHTTP(w, r)
			return
		}
		sessions.ServeHTTP(w, r)
	})
}

// TestAnswersToServers: what a server asks while a tool runs is answered in a session by
// a message, and since 2026-07-28 by a retry. Each is a decision of its own; where a
// grant pins arguments, answers do not go past it.
func TestAnswersToServers(t *testing.T) {
	ran, enough := &syncBuffer{}, make(chan struct{})
	srv := httptest.NewServer(till(ran, enough))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	m := layOutMCP(t, tillServer, strings.TrimPrefix(srv.URL, "http://"))
	if err := m.write("policies/issue.cedar", tillPolicies); err != nil {
		t.Fatal(err)
	}
	m.serve()
	m.startEnvoy()
	ten := json.RawMessage(`{"type":"object","required":["amount"],"properties":{"amount":{"type":"integer","maximum":10}},"additionalProperties":false}`)
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		for _, tc := range []struct {
			name, agent, tool string
			constraints       []json.RawMessage
			reason            string // "": it is paid
		}{
			{"a grant", "report-bot", "pay", nil, ""},
			{"a grant, and policy", "mute-bot", "pay", nil, "policy"},
			{"a grant that pins", "report-bot", "pay", []json.RawMessage{ten}, "constraint"},
			{"a grant that pins, and retries", "report-bot", "pay_again", []json.RawMessage{ten}, ""},
		} {
			t.Run(revision+"/"+tc.name, func(t *testing.T) {
				inner := *m.world
				inner.t = t
				m := &mcpWorld{world: &inner}
				grant, err := m.pay(revision, tc.agent, tc.tool, tc.constraints, func(err error) {
					if err == nil || revision >= "2026-07-28" {
						return
					}
					select {
					case enough <- struct{}{}:
					case <-time.After(patient):
						t.Errorf("the call has failed, and the tool does not wait for an answer: %v", err)
					}
				})
				paid := strings.Contains(ran.String(), tc.tool+" 5 by "+t.Name()+", wise\n")
				if paid != (tc.reason == "") || paid != (err == nil) {
					t.Fatalf("paid %v, %v", paid, err)
				}
				if tc.reason == "" {
					return
				}
				if revision >= "2026-07-28" && !strings.Contains(err.Error(), tc.reason+": ") {
					t.Error(err) // in a session the client does not say why
				}
				kind := map[bool]string{true: "call", false: "mcp:response"}[revision >= "2026-07-28"]
				if m.audited(`"kind":"`+kind+`"`, `"grant":"`+grant+`"`, `"outcome":"deny","reason":"`+tc.reason+`"`) == "" {
					t.Errorf("the refusal is not on record:\n%s", m.audited(grant))
				}
			})
		}
	}
}

// pay buys a grant, and calls the tool with a client that answers what it is asked. It
// returns the grant's id, and what the client says of the call.
func (m *mcpWorld) pay(revision, agent, tool string, constraints []json.RawMessage, after func(error)) (string, error) {
	t := m.t
	t.Helper()
	task, err := m.planner().StartTask(t.Context(), client.TaskRequest{Kind: "monthly-report", Agents: []string{"corp/" + agent}})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := m.as(agent, "reporting").Exchange(t.Context(), client.GrantRequest{
		Tool: "till/" + tool, Task: task.ID, TTL: 5 * time.Minute, Constraints: constraints,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"name": t.Name()}}, nil
		},
		CreateMessageHandler: func(context.Context, *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			return &mcp.CreateMessageResult{Role: "assistant", Model: "m", Content: &mcp.TextContent{Text: "wise"}}, nil
		},
	})
	hc := &http.Client{Transport: bearerTransport{func() string { return tok.AccessToken }}}
	s, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: m.url(), HTTPClient: hc, MaxRetries: -1}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: map[string]any{"amount": 5}})
	after(err)
	_ = s.Close() // of a session that a refusal has ended it says so
	return tok.Grants[0].ID, err
}
