package main

import (
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// TestMCPStory: the Go SDK's client and server, in each revision, through real
// Envoy: a baseline, a grant, its task's end, and a meta-tool that opens nothing.
func TestMCPStory(t *testing.T) {
	m := openMCP(t, notesServer, "")
	for _, revision := range []string{"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"} {
		t.Run(revision, func(t *testing.T) {
			w := *m.world
			w.t = t
			m := &mcpWorld{world: &w, seen: m.seen, ran: m.ran}
			tok := m.identity("report-bot", "https://notes.internal/mcp", "reporting")
			s, err := m.connect(func() string { return tok }, revision)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := s.InitializeResult().ProtocolVersion; got != revision {
				t.Fatalf("speaks %s", got)
			}
			if _, err := s.ListTools(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			call := func(name string, args map[string]any) (string, error) {
				r, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
				if err != nil {
					return "", err
				}
				return r.Content[0].(*mcp.TextContent).Text, nil
			}
			refused := func(reason string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), reason) {
					t.Fatalf("got %v, want %s", err, reason)
				}
			}
			if text, err := call("read_note", map[string]any{"note": "work/standup"}); err != nil || text == "" {
				t.Fatal(text, err)
			}
			if _, err := call("list_notes", map[string]any{"shelf": "work"}); err != nil {
				t.Fatal(err)
			}
			note := map[string]any{"note": "work/new", "text": revision}
			_, err = call("write_note", note)
			refused("no_grant", err)
			self := tok
			var task string
			tok, task = m.grants("notes/write_note")
			if text, err := call("write_note", note); err != nil || text != "written" {
				t.Fatal(text, err)
			}
			_, err = call("delete_note", map[string]any{"note": "work/new"})
			refused("wrong_tool", err)
			if _, err := call("call_tool", map[string]any{"name": "write_note", "arguments": note}); err != nil {
				t.Fatal(err)
			}
			_, err = call("call_tool", map[string]any{"name": "delete_note", "arguments": map[string]any{"note": "work/new"}})
			refused("wrong_tool", err)
			if err := m.planner().EndTask(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			_, err = call("write_note", note)
			refused("task_ended", err)
			tok = self
			if text, err := call("read_note", map[string]any{"note": "work/new"}); err != nil || text != revision {
				t.Fatal(text, err)
			}
		})
	}
	if ran := m.ran.String(); strings.Contains(ran, "delete_note") || strings.Count(ran, "tool=write_note") != 8 {
		t.Errorf("what ran:\n%s", ran)
	}
}
