package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// sdkServer is a server of the Go SDK that has what world says of it.
func sdkServer(modern bool) http.Handler {
	s := sdk.NewServer(&sdk.Implementation{Name: "s", Version: "1"}, &sdk.ServerOptions{
		SubscribeHandler:   func(context.Context, *sdk.SubscribeRequest) error { return nil },
		UnsubscribeHandler: func(context.Context, *sdk.UnsubscribeRequest) error { return nil },
		CompletionHandler: func(context.Context, *sdk.CompleteRequest) (*sdk.CompleteResult, error) {
			return &sdk.CompleteResult{Completion: sdk.CompletionResultDetails{Values: []string{"v"}}}, nil
		},
	})
	schema := `{"type":"object","properties":{
		"region":{"type":"string","x-mcp-header":"Region"},"dry":{"type":"boolean","x-mcp-header":"Dry"},
		"page":{"type":"object","properties":{"limit":{"type":"integer","x-mcp-header":"Limit"}}}}}`
	done := func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "done"}}}, nil
	}
	s.AddTool(&sdk.Tool{Name: "query", InputSchema: json.RawMessage(schema)}, done)
	s.AddTool(&sdk.Tool{Name: "echo", InputSchema: json.RawMessage(`{"type":"object"}`)}, done)
	s.AddPrompt(&sdk.Prompt{Name: "p", Arguments: []*sdk.PromptArgument{{Name: "a"}}}, func(context.Context, *sdk.GetPromptRequest) (*sdk.GetPromptResult, error) {
		return &sdk.GetPromptResult{Messages: []*sdk.PromptMessage{}}, nil
	})
	s.AddResource(&sdk.Resource{URI: "file:///%C3%BC", Name: "r"}, func(context.Context, *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
		return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: "file:///%C3%BC", Text: "t"}}}, nil
	})
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, &sdk.StreamableHTTPOptions{Stateless: modern})
}

func fromHTTP(r *http.Request, body []byte) HTTPRequest {
	in := HTTPRequest{Verb: r.Method, Query: r.URL.RawQuery, Body: body, Header: map[string][]string{":authority": {r.Host}}}
	for name, values := range r.Header {
		in.Header[strings.ToLower(name)] = values
	}
	return in
}

// TestSDKClient: what the Go SDK's own client sends is accepted, of whatever
// revision it speaks.
func TestSDKClient(t *testing.T) {
	for _, modern := range []bool{false, true} {
		t.Run(fmt.Sprintf("modern=%v", modern), func(t *testing.T) {
			s, server := world(), sdkServer(modern)
			var mu sync.Mutex
			seen := map[string]string{} // method -> revision
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				m, no := Read(s, fromHTTP(r, body))
				if no != nil {
					t.Errorf("%s %v\n%s\nis refused: %+v", r.Method, r.Header, body, no)
					http.Error(w, no.Detail, no.Status)
					return
				}
				mu.Lock()
				seen[m.Method.Name] = m.Revision
				mu.Unlock()
				r.Body = io.NopCloser(bytes.NewReader(body))
				server.ServeHTTP(w, r)
			}))
			defer front.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			client := sdk.NewClient(&sdk.Implementation{Name: "c", Version: "1"}, &sdk.ClientOptions{
				ToolListChangedHandler: func(context.Context, *sdk.ToolListChangedRequest) {},
			})
			session, err := client.Connect(ctx, &sdk.StreamableClientTransport{Endpoint: front.URL}, nil)
			if err != nil {
				t.Fatal(err)
			}
			steps := map[string]func() error{
				"tools/list":     func() error { _, err := session.ListTools(ctx, nil); return err },
				"resources/list": func() error { _, err := session.ListResources(ctx, nil); return err },
				"prompts/list":   func() error { _, err := session.ListPrompts(ctx, nil); return err },
				"prompts/get": func() error {
					_, err := session.GetPrompt(ctx, &sdk.GetPromptParams{Name: "p", Arguments: map[string]string{"a": "b"}})
					return err
				},
				"completion/complete": func() error {
					_, err := session.Complete(ctx, &sdk.CompleteParams{
						Ref: &sdk.CompleteReference{Type: "ref/prompt", Name: "p"}, Argument: sdk.CompleteParamsArgument{Name: "a", Value: "b"},
					})
					return err
				},
				"resources/read": func() error {
					_, err := session.ReadResource(ctx, &sdk.ReadResourceParams{URI: "file:///%C3%BC"})
					return err
				},
			}
			if !modern { // the newest revision has neither
				steps["ping"] = func() error { return session.Ping(ctx, nil) }
				steps["resources/subscribe"] = func() error { return session.Subscribe(ctx, &sdk.SubscribeParams{URI: "file:///%C3%BC"}) }
			}
			for name, step := range steps {
				if err := step(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			// After tools/list, so that the client knows which arguments to mirror.
			arguments := map[string]any{"region": "Köln", "dry": true, "page": map[string]any{"limit": 3}}
			if res, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "query", Arguments: arguments}); err != nil || res.IsError {
				t.Errorf("tools/call: %+v, %v", res, err)
			}
			if err := session.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			want, also := Rev20251125, []string{"initialize", "notifications/initialized", "GET", "DELETE"}
			if modern {
				want, also = Rev20260728, []string{"server/discover"}
			}
			mu.Lock()
			defer mu.Unlock()
			for name := range steps {
				also = append(also, name)
			}
			for _, name := range append(also, ToolsCall) {
				switch revision := seen[name]; {
				case revision == "":
					t.Errorf("%s never came", name)
				case revision != want && name != "initialize": // that has no header
					t.Errorf("%s came in %s, want %s", name, revision, want)
				}
			}
		})
	}
}

// TestRefusesAsTheSDK: where headers and body disagree, status and code are
// those of a server of the Go SDK.
func TestRefusesAsTheSDK(t *testing.T) {
	s, server := world(), sdkServer(true)
	const capable = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	call := func(params string, headers ...string) HTTPRequest {
		return post(Rev20260728, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{`+capable+params+`}}`, append(headers, headerMethod, "tools/call")...)
	}
	query := `,"name":"query","arguments":{"region":"eu"}`
	good := call(query, headerName, "query", "mcp-param-region", "eu")
	for name, in := range map[string]HTTPRequest{
		"none":                          good,
		"no revision":                   with(good, headerRevision),
		"another revision":              with(good, headerRevision, Rev20251125),
		"no revision in the body":       post(Rev20260728, string(old("tools/list", "").Body), headerMethod, "tools/list"),
		"no method":                     with(good, headerMethod),
		"another method":                with(good, headerMethod, "tools/list"),
		"no name":                       with(good, headerName),
		"another name":                  with(good, headerName, "echo"),
		"no argument":                   with(good, "mcp-param-region"),
		"another argument":              with(good, "mcp-param-region", "us"),
		"an argument that is not there": with(good, "mcp-param-dry", "true"),
		"argument that is null":         call(`,"name":"query","arguments":{"region":null}`, headerName, "query", "mcp-param-region", "null"),
		"argument that is an object":    call(`,"name":"query","arguments":{"region":{}}`, headerName, "query", "mcp-param-region", "{}"),
		"loose base64":                  with(good, "mcp-param-region", "=?base64?ZXU?="),
		"integer by value":              call(`,"name":"query","arguments":{"page":{"limit":42}}`, headerName, "query", "mcp-param-limit", "42.0"),
		"text":                          with(good, "content-type", "text/plain"),
		"GET":                           verb("GET", Rev20260728),
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(in.Verb, "http://mcp.example/mcp", bytes.NewReader(in.Body))
			for header, values := range in.Header {
				for _, v := range values {
					r.Header.Add(header, v)
				}
			}
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			_, no := Read(s, in)
			if no == nil {
				if w.Code != http.StatusOK {
					t.Errorf("accepted, and the SDK says %d %s", w.Code, w.Body)
				}
				return
			}
			var answer struct {
				ID    json.RawMessage
				Error struct{ Code int }
			}
			if w.Code != no.Status {
				t.Errorf("status %d, and the SDK's %d %s", no.Status, w.Code, w.Body)
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err == nil && (answer.Error.Code != no.Code || !bytes.Equal(answer.ID, no.ID)) {
				t.Errorf("refused as %+v, and by the SDK as %s", no, w.Body)
			}
		})
	}
}
