package main

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/authz"
)

// BenchmarkCheckMCP is one whole decision about a tools/call of 2026-07-28, by
// itself and through a meta-tool, which is two decisions and one record.
func BenchmarkCheckMCP(b *testing.B) {
	const write = `"name":"write_note","arguments":{"note":"work/standup","text":"shipped"}`
	for _, tc := range []struct{ name, tool, params string }{
		{"direct", "write_note", write},
		{"meta", "call_tool", `"name":"call_tool","arguments":{` + write + `}`},
	} {
		b.Run(tc.name, func(b *testing.B) {
			m := layOutMCP(b, notesServer, "127.0.0.1:1")
			m.cfg.Limits.RequestsPerAgent = 1 << 20
			p := m.run()
			serveIssue(b, m.world, p)
			tok, _ := m.grants("notes/write_note")
			headers := &corev3.HeaderMap{}
			for name, value := range map[string]string{
				":authority": "notes.internal", "authorization": "Bearer " + tok, "content-type": "application/json",
				"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tc.tool,
			} {
				headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
			}
			req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
				ContextExtensions: map[string]string{authz.ContextServer: "notes", authz.ContextTimeout: "15000"},
				Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
					Method: "POST", Path: "/mcp/notes", HeaderMap: headers,
					RawBody: []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + tc.params +
						`,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`),
				}},
			}}
			b.ReportAllocs()
			for b.Loop() {
				resp, err := p.check.Check(b.Context(), req)
				if err != nil || resp.GetOkResponse() == nil {
					b.Fatal(resp, err)
				}
			}
		})
	}
}
