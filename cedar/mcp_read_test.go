package cedar

import (
	"fmt"
	"testing"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/grants"
)

// What mcp.Read gives of any method is a question that is decided: the two agree
// on each parameter.
func TestMCPReads(t *testing.T) {
	s := mcpPolicies(t, permitAll)
	server := mcp.Server{Revisions: mcp.Revisions(), Hosts: []string{"forge.internal"}, Tool: func(string) (mcp.Tool, bool) { return mcp.Tool{}, false }}
	params := map[string]string{ // members beside _meta
		"initialize":                 `"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}`,
		"notifications/cancelled":    `"requestId":1`,
		"notifications/progress":     `"progressToken":1,"progress":2`,
		"notifications/tasks/status": `"taskId":"t","status":"working"`,
		"resources/read":             `"uri":"file:///a"`,
		"resources/subscribe":        `"uri":"file:///a"`,
		"resources/unsubscribe":      `"uri":"file:///a"`,
		"prompts/get":                `"name":"p","arguments":{"a":"b","c":""}`,
		"completion/complete":        `"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""},"context":{"arguments":{"x":"y"}}`,
		"logging/setLevel":           `"level":"debug"`,
		"tasks/get":                  `"taskId":"t"`,
		"tasks/result":               `"taskId":"t"`,
		"tasks/cancel":               `"taskId":"t"`,
		"tasks/update":               `"taskId":"t","inputResponses":{"a":{"action":"accept"}}`,
		"subscriptions/listen":       `"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///a","file:///b"]}`,
	}
	names := map[string]string{"resources/read": "file:///a", "prompts/get": "p", "tasks/get": "t", "tasks/cancel": "t", "tasks/update": "t"} // Mcp-Name
	for _, m := range mcp.Methods() {
		for _, revision := range mcp.Revisions() {
			if m.Name == mcp.ToolsCall || !m.In(revision) {
				continue
			}
			t.Run(m.Name+" "+revision, func(t *testing.T) {
				r := mcp.HTTPRequest{Verb: "POST", Header: map[string][]string{
					":authority": {"forge.internal"}, "content-type": {"application/json"},
					"accept": {"application/json, text/event-stream"}, "mcp-protocol-version": {revision},
				}}
				id, members := `"id":7,`, params[m.Name]
				if m.Kind == mcp.Notification {
					id = ""
				}
				if revision == mcp.Rev20260728 {
					if m.Kind == mcp.Request {
						r.Header["mcp-method"] = []string{m.Name}
						if name, has := names[m.Name]; has {
							r.Header["mcp-name"] = []string{name}
						}
					}
					if members != "" {
						members = "," + members
					}
					members = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}` + members
				}
				r.Body = fmt.Appendf(nil, `{"jsonrpc":"2.0",%s"method":%q,"params":{%s}}`, id, m.Name, members)
				switch m.Kind {
				case mcp.Verb:
					r.Verb, r.Body = m.Name, nil
					delete(r.Header, "content-type")
					if m.Name == "resume" {
						r.Verb, r.Header["last-event-id"] = "GET", []string{"1"}
					}
					if r.Verb == "GET" {
						r.Header["accept"] = []string{"text/event-stream"}
					}
				case mcp.Response:
					r.Body = []byte(`{"jsonrpc":"2.0","id":7,"result":{"roots":[]}}`)
				}
				got, no := mcp.Read(server, r)
				if no != nil {
					t.Fatalf("refused: %+v", no)
				}
				in := askMCP(m.Name, "forge", got.Input)
				in.Revision = got.Revision
				if got.Retry != nil {
					in.Retry = &grants.Retry{Responses: got.Retry.Responses, State: got.Retry.State}
				}
				if got.Method.Action() != in.Action {
					t.Errorf("the action is %s", got.Method.Action())
				}
				want(t, decide(t, s, in), "allow all")
			})
		}
	}
}
