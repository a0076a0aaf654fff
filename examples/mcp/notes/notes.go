// Package notes is the MCP server of the example: notes on shelves, in memory, with
// tools, a resource and a prompt. It knows nothing of grants. What may reach it is
// decided in front of it, so it must not be reachable past Envoy.
//
// The server in Python beside it (../server.py) is the same one; both tell of their
// tools in the words of descriptors.json, so that one pin in a catalogue fits both.
package notes

import (
	"context"
	_ "embed"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

//go:embed descriptors.json
var descriptors []byte

// maxBody bounds a request body, in bytes. Envoy's limit is the same.
const maxBody = 64 << 10

// sessionless is the first revision of MCP without sessions.
const sessionless = "2026-07-28"

// Handler serves the notes by Streamable HTTP, at any path, in all revisions that
// the SDK knows. It logs one line for each thing that really ran.
func Handler(log *slog.Logger) http.Handler {
	n := &notes{log: log, text: map[string]string{"work/standup": "ship the report", "home/shopping": "bread, salt"}}
	server := n.server()
	get := func(*http.Request) *mcp.Server { return server }
	options := mcp.StreamableHTTPOptions{MaxRequestBodyBytes: maxBody, SessionTimeout: 10 * time.Minute}
	sessions := mcp.NewStreamableHTTPHandler(get, &options)
	options.Stateless = true
	stateless := mcp.NewStreamableHTTPHandler(get, &options)
	// One handler of the SDK has either sessions or the newest revision, not both.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Protocol-Version") >= sessionless {
			stateless.ServeHTTP(w, r)
			return
		}
		sessions.ServeHTTP(w, r)
	})
}

// notes is the store, and what its tools do.
type notes struct {
	log  *slog.Logger
	mu   sync.Mutex
	text map[string]string // SHELF/NAME -> text
}

func (n *notes) server() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "notes", Version: "1.0.0"}, &mcp.ServerOptions{Capabilities: &mcp.ServerCapabilities{}})
	var tools []*mcp.Tool
	if err := stdjson.Unmarshal(descriptors, &tools); err != nil {
		panic(err) // a part of the program
	}
	for _, tool := range tools {
		s.AddTool(tool, func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			text, err := n.call(r.Extra.Header, tool.Name, r.Params.Arguments)
			if err != nil {
				return &mcp.CallToolResult{IsError: true, Content: []mcp.Content{&mcp.TextContent{Text: err.Error()}}}, nil
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil
		})
	}
	index := &mcp.Resource{URI: "notes://index", Name: "index", Description: "The names of all notes.", MIMEType: "text/plain"}
	s.AddResource(index, func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		n.ran(r.Extra.Header, "resource", index.URI)
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: index.URI, MIMEType: index.MIMEType, Text: n.names("")}}}, nil
	})
	summarize := &mcp.Prompt{Name: "summarize", Description: "Sum up a note.", Arguments: []*mcp.PromptArgument{{Name: "note", Required: true}}}
	s.AddPrompt(summarize, func(_ context.Context, r *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		note := r.Params.Arguments["note"]
		n.ran(r.Extra.Header, "prompt", summarize.Name, "note", note)
		text, err := n.read(note)
		if err != nil {
			return nil, err
		}
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: "Sum up in one sentence: " + text}}}}, nil
	})
	return s
}

// call runs a tool. Its arguments are read strictly: encoding/json would take
// "NOTE" for "note", and what was authorized is "note".
func (n *notes) call(h http.Header, tool string, args []byte) (string, error) {
	if tool == "call_tool" {
		var in struct {
			Name      string             `json:"name"`
			Arguments stdjson.RawMessage `json:"arguments"`
		}
		if err := json.Unmarshal(args, &in, json.RejectUnknownMembers(true)); err != nil {
			return "", fmt.Errorf("%s does not take such arguments", tool)
		}
		return n.call(h, in.Name, in.Arguments)
	}
	var in map[string]string
	if err := json.Unmarshal(args, &in); err != nil {
		return "", fmt.Errorf("%s does not take such arguments", tool)
	}
	switch given := strings.Join(slices.Sorted(maps.Keys(in)), " "); tool + ": " + given {
	case "read_note: note":
		n.ran(h, "tool", tool, "note", in["note"])
		return n.read(in["note"])
	case "list_notes: shelf":
		n.ran(h, "tool", tool, "shelf", in["shelf"])
		return n.names(in["shelf"] + "/"), nil
	case "write_note: note text":
		n.ran(h, "tool", tool, "note", in["note"], "text", in["text"])
		n.mu.Lock()
		defer n.mu.Unlock()
		n.text[in["note"]] = in["text"]
		return "written", nil
	case "delete_note: note":
		n.ran(h, "tool", tool, "note", in["note"])
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.text, in["note"])
		return "deleted", nil
	}
	return "", fmt.Errorf("no tool %q takes such arguments", tool)
}

func (n *notes) read(note string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text, ok := n.text[note]
	if !ok {
		return "", errors.New("there is no such note")
	}
	return text, nil
}

// names returns the names of the notes that begin so, sorted, a line each.
func (n *notes) names(prefix string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(n.text)), func(name string) bool { return !strings.HasPrefix(name, prefix) })
	return strings.Join(names, "\n")
}

// ran logs what really ran: what, under which grant (the x-grant-ctx-* headers say
// it), and whether a credential came with it. None may: of an authorization header
// the log says only that it was there.
func (n *notes) ran(h http.Header, kind, name string, args ...any) {
	for _, header := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(header, "X-Grant-Ctx-") {
			args = append(args, strings.ToLower(header), strings.Join(h[header], ","))
		}
	}
	_, credential := h["Authorization"]
	n.log.Info("ran", append([]any{kind, name, "authorization", credential}, args...)...)
}
