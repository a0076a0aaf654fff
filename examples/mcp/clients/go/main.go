// Command go is an MCP client (Go SDK). A line of its input is a step, and gets a
// line of JSON:
//
//	tools                              the names of the server's tools
//	call write_note {"note": "a/b"}    what the tool answers
//	read notes://index                 a resource's text
//	prompt summarize {"note": "a/b"}   a prompt's text
//
// Usage: client URL [REVISION]
//
// To copy: task.go, and the lines of run that use it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	url, revision := args[0], ""
	if len(args) > 1 {
		revision = args[1]
	}
	http, err := taskClient(url)
	if err != nil {
		return err
	}
	transport := &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: http}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "example", Version: "1.0.0"}, nil).
		Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		return err
	}
	defer session.Close()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		text, err := step(ctx, session, strings.SplitN(lines.Text(), " ", 3))
		answer := map[string]any{"ok": text}
		if err != nil {
			answer = map[string]any{"error": err.Error()}
			if refused := (*jsonrpc.Error)(nil); errors.As(err, &refused) {
				answer["data"] = refused.Data
			}
		}
		if err := json.NewEncoder(out).Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func step(ctx context.Context, s *mcp.ClientSession, words []string) (string, error) {
	name, args := "", []byte("{}")
	if len(words) > 1 {
		name = words[1]
	}
	if len(words) > 2 {
		args = []byte(words[2])
	}
	switch words[0] {
	case "tools":
		list, err := s.ListTools(ctx, nil)
		if err != nil {
			return "", err
		}
		var names []string
		for _, tool := range list.Tools {
			names = append(names, tool.Name)
		}
		return strings.Join(names, " "), nil
	case "call":
		result, err := s.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: json.RawMessage(args)})
		if err != nil {
			return "", err
		}
		return result.Content[0].(*mcp.TextContent).Text, nil
	case "read":
		result, err := s.ReadResource(ctx, &mcp.ReadResourceParams{URI: name})
		if err != nil {
			return "", err
		}
		return result.Contents[0].Text, nil
	case "prompt":
		var values map[string]string
		if err := json.Unmarshal(args, &values); err != nil {
			return "", err
		}
		result, err := s.GetPrompt(ctx, &mcp.GetPromptParams{Name: name, Arguments: values})
		if err != nil {
			return "", err
		}
		return result.Messages[0].Content.(*mcp.TextContent).Text, nil
	}
	return "", fmt.Errorf("no such step: %s", words[0])
}
