package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
)

var update = flag.Bool("update", false, "write the golden files anew")

// mcpServer is a server of the Go SDK, behind a door that notes what came.
type mcpServer struct {
	*sdk.Server
	url, host string

	mu    sync.Mutex
	verbs map[string]int // HTTP method -> requests
}

func startMCP(t *testing.T, opts *sdk.ServerOptions, how *sdk.StreamableHTTPOptions, tools ...*sdk.Tool) *mcpServer {
	t.Helper()
	s := &mcpServer{Server: sdk.NewServer(&sdk.Implementation{Name: "Every Thing", Version: "1.0"}, opts), verbs: map[string]int{}}
	for _, tool := range tools {
		s.add(tool)
	}
	h := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s.Server }, how)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.verbs[r.Method]++
		s.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.url, s.host = srv.URL+"/mcp", strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *mcpServer) add(tool *sdk.Tool) {
	s.AddTool(tool, func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		panic("a tool was called")
	})
}

func liveOf(name, description, schema string) *sdk.Tool {
	return &sdk.Tool{Name: name, Description: description, InputSchema: json.RawMessage(schema)}
}

// nasty are tools as they come.
func nasty() []*sdk.Tool {
	yes := true
	merge := liveOf("mergePR", "Merge a pull request.\n\n# Not a comment\u202e \u2028 and\x1b[2J a lot more than anybody wants to read in the line above a tool of theirs.", `{
		"type": "object", "title": "MergeArguments",
		"$defs": {"Method": {"enum": ["squash", "merge"], "type": "string"}, "Node": {"type": "object", "properties": {"value": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}},
		"properties": {
			"repo": {"type": "string", "x-mcp-header": "Repo"},
			"number": {"type": "integer", "minimum": 1},
			"method": {"anyOf": [{"$ref": "#/$defs/Method"}, {"type": "null"}], "default": null},
			"labels": {"type": "array", "items": {"type": "string"}},
			"tree": {"$ref": "#/$defs/Node"},
			"target": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
			"meta": {"type": "object", "additionalProperties": {"type": "string"}},
			"where": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}, "required": ["zone"]}},
		"required": ["repo", "number"]}`)
	merge.Annotations = &sdk.ToolAnnotations{DestructiveHint: &yes, Title: "Merge"}
	read := liveOf("get_file", "", `{"type":"object","properties":{"päth":{"type":"string"},"yes":{"type":"boolean"}}}`)
	read.Annotations = &sdk.ToolAnnotations{ReadOnlyHint: true}
	return []*sdk.Tool{
		merge, read, liveOf("ping", `says "pong"`, `{"type":"object"}`),
		liveOf("merge_pr", "", `{"type":"object","additionalProperties":true}`), liveOf("MergePr", "", `{"type":"object"}`), liveOf("-", "", `{"type":"object"}`),
	}
}

func importFrom(t *testing.T, url string, more ...string) result {
	t.Helper()
	return toolgrant(t, "", append([]string{"catalogue", "import", "--mcp", url}, more...)...)
}

// What is printed, to the letter.
func TestImport(t *testing.T) {
	s := startMCP(t, nil, &sdk.StreamableHTTPOptions{Stateless: true}, nasty()...)
	whole := importFrom(t, s.url)
	entry := importFrom(t, s.url, "--server-only", "--id", "tickets", "--resource", "https://mcp.example/tickets", "--path", "/tickets")
	for file, got := range map[string]result{"whole.yaml": whole, "entry.yaml": entry} {
		if got.code != exitDone || got.stderr != "" {
			t.Fatalf("%s: %+v", file, got)
		}
		text := strings.ReplaceAll(got.stdout, s.host, "127.0.0.1:9000")
		file = filepath.Join("testdata", "catalogue", file)
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), text); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
	// An entry goes below others.
	both, err := catalog.Parse("both", []byte(whole.stdout+entry.stdout))
	if err != nil || len(both.Servers) != 2 {
		t.Errorf("%v", err)
	}
	// No tool was called (that panics), and no stream opened.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verbs["GET"] > 0 || s.verbs["POST"] == 0 {
		t.Errorf("%v", s.verbs)
	}
}

func TestImportRevisions(t *testing.T) {
	stateless := &sdk.StreamableHTTPOptions{Stateless: true}
	for _, tc := range []struct {
		name string
		how  *sdk.StreamableHTTPOptions
		only []string
		want []string
	}{
		{"stateless", stateless, nil, catalog.Revisions()},
		{"JSON", &sdk.StreamableHTTPOptions{Stateless: true, JSONResponse: true}, nil, catalog.Revisions()},
		{"sessions", nil, nil, catalog.Revisions()[:3]},
		{"one", nil, []string{"2025-06-18"}, []string{"2025-06-18"}},
		{"old and new", nil, []string{"2024-11-05", "2025-03-26"}, []string{"2025-03-26"}},
		{"the newest", stateless, []string{"2026-07-28"}, []string{"2026-07-28"}},
	} {
		s := startMCP(t, &sdk.ServerOptions{SupportedProtocolVersions: tc.only}, tc.how, liveOf("ping", "", `{"type":"object"}`))
		i, err := importMCP(t.Context(), importOptions{URL: s.url})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if !slices.Equal(i.revisions, tc.want) || len(i.tools) != 1 {
			t.Errorf("%s: %v, %d tools", tc.name, i.revisions, len(i.tools))
		}
	}
	both := startMCP(t, nil, stateless)
	if live, err := fetchTools(t.Context(), mcpTarget{url: both.url}, []string{"2025-03-26", "2025-11-25"}, false); err != nil || !slices.Equal(live.Revisions, []string{"2025-11-25"}) {
		t.Errorf("of two that may be asked for, not the newest alone: %+v, %v", live, err)
	}
	s := startMCP(t, &sdk.ServerOptions{SupportedProtocolVersions: []string{"2024-11-05"}}, nil)
	if got := importFrom(t, s.url); got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "it speaks MCP 2024-11-05, and none of 2025-03-26, ") {
		t.Errorf("%+v", got)
	}
}

// All pages, in both ways to answer.
func TestImportPages(t *testing.T) {
	var tools []*sdk.Tool
	for n := range 300 {
		tools = append(tools, liveOf(fmt.Sprintf("tool_%03d", n), "", `{"type":"object","properties":{"a":{"type":"string"}}}`))
	}
	for _, json := range []bool{false, true} {
		s := startMCP(t, &sdk.ServerOptions{PageSize: 7}, &sdk.StreamableHTTPOptions{JSONResponse: json}, tools...)
		i, err := importMCP(t.Context(), importOptions{URL: s.url})
		if err != nil || len(i.tools) != 300 || i.tools[299].id != "tool_299" {
			t.Errorf("%v, %d tools", err, len(i.tools))
		}
	}
	none := startMCP(t, nil, nil)
	if got := importFrom(t, none.url); got.code != exitDone || !strings.HasSuffix(got.stdout, "\n  tools: []\n") {
		t.Errorf("%+v", got)
	}
}

func TestImportNames(t *testing.T) {
	for _, name := range []string{"two words", "schön", strings.Repeat("x", 129), "tab\there"} {
		s := startMCP(t, nil, nil, liveOf("fine", "", `{"type":"object"}`), liveOf(name, "", `{"type":"object"}`))
		if got := importFrom(t, s.url); got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "the tool \""+name[:3]) || !strings.Contains(got.stderr, "cannot be in a catalogue") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, tc := range []struct{ name, url, want string }{
		{"Every Thing", "http://127.0.0.1:9000/mcp", "every_thing"}, {"", "http://[::1]/", "mcp"}, {"evil", "https://github-mcp.internal/mcp", "github-mcp"},
		{"evil", "https://mcp.Stripe.com", "stripe"}, {"evil", "http://mcp/", "mcp"}, {"getURLFor", "http://localhost:1", "get_urlfor"}, {"../x", "http://localhost:1", "x"},
		{strings.Repeat("x", 62) + ".y", "http://localhost:1", strings.Repeat("x", 62)},
	} {
		u, err := parseMCPURL(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if got := serverIDOf(u, tc.name); got != tc.want || !serverID.MatchString(got) {
			t.Errorf("%+v: %s", tc, got)
		}
	}
	var tools []*importedTool
	long := strings.Repeat("x", 63)
	for _, name := range []string{"A_B", "a.b", "aB", "a_b", "a b", long, long + "y", "..", "_"} {
		tools = append(tools, &importedTool{liveTool: liveTool{Name: name}})
	}
	giveIDs(tools)
	var ids []string
	for _, tool := range tools {
		ids = append(ids, tool.id)
	}
	if got := strings.Join(ids, " "); got != "a_b_2 a.b a_b_3 a_b a_b_4 "+long+" "+long[:61]+"_2 tool tool_2" {
		t.Error(got)
	}
}

func TestImportMisuse(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "--mcp is missing"},
		{[]string{"--mcp", "127.0.0.1:9000"}, "write the URL"},
		{[]string{"--mcp", "ftp://127.0.0.1/"}, "write the URL"},
		{[]string{"--mcp", "http://user:secret@127.0.0.1/"}, "no user and password"},
		{[]string{"--mcp", "http://127.0.0.1/?key=secret"}, "no query"},
		{[]string{"--mcp", "http://127.0.0.1/#x"}, "no fragment"},
		{[]string{"--mcp", "http://127.0.0.1/a%2Fb"}, "a catalogue cannot have that"},
		{[]string{"--mcp", "http://127.0.0.1/", "--id", "No"}, "--id No"},
		{[]string{"--mcp", "http://127.0.0.1/", "--path", "mcp"}, "--path mcp"},
		{[]string{"--mcp", "http://127.0.0.1/", "--header", "secret"}, "\"Name: value\""},
		{[]string{"--mcp", "http://127.0.0.1/", "--header", "a: b\nsecret: d"}, "\"Name: value\""},
		{[]string{"--mcp", "http://127.0.0.1/", "--header", "Mcp-Method: secret"}, "the protocol sets that itself"},
		{[]string{"--mcp", "http://127.0.0.1/", "--header", "Host: secret"}, "the protocol sets that itself"},
		{[]string{"--mcp", "http://127.0.0.1/", "--timeout", "0s"}, "above zero"},
		{[]string{"--mcp", "http://127.0.0.1/", "--bearer-file", "/nonexistent"}, "no such file"},
		{[]string{"--mcp", "http://127.0.0.1/", "--bearer-file", "/nonexistent", "--header", "Authorization: secret"}, "two credentials"},
		{[]string{"more"}, "unexpected operand"},
	} {
		got := toolgrant(t, "", append([]string{"catalogue", "import"}, tc.args...)...)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, tc.want) || strings.Contains(got.stderr, "secret") {
			t.Errorf("%v: %+v", tc.args, got)
		}
	}
	// What cannot be a resource is found when the catalogue is read again.
	s := startMCP(t, nil, nil)
	if got := importFrom(t, s.url, "--resource", "nothing"); got.code == exitDone || got.stdout != "" || !strings.Contains(got.stderr, "must be an absolute URI") {
		t.Errorf("%+v", got)
	}
}

// A pin is of what the server wrote, and changes with it.
func TestImportPins(t *testing.T) {
	pin := func(tool *sdk.Tool) string {
		s := startMCP(t, nil, nil, tool)
		i, err := importMCP(t.Context(), importOptions{URL: s.url})
		if err != nil {
			t.Fatal(err)
		}
		return pinText(i.tools[0].Pin)
	}
	schema := `{"type":"object","properties":{"a":{"type":"string"}}}`
	no := false
	seen := map[string]int{}
	for i, change := range []func(*sdk.Tool){
		func(*sdk.Tool) {},
		func(t *sdk.Tool) { t.Description = "other" },
		func(t *sdk.Tool) { t.InputSchema = json.RawMessage(strings.Replace(schema, "string", "integer", 1)) },
		func(t *sdk.Tool) {
			t.InputSchema = json.RawMessage(strings.Replace(schema, `"string"`, `"string","x-unknown":false`, 1))
		},
		func(t *sdk.Tool) {
			t.InputSchema = json.RawMessage(strings.Replace(schema, `"string"`, `"string","maxLength":12345678901`, 1))
		},
		func(t *sdk.Tool) { t.OutputSchema = json.RawMessage(`{"type":"object"}`) },
		func(t *sdk.Tool) { t.Annotations = &sdk.ToolAnnotations{OpenWorldHint: &no} },
		func(t *sdk.Tool) { t.Name = "other" },
	} {
		one := liveOf("name", "what it does", schema)
		change(one)
		p := pin(one)
		if other, ok := seen[p]; ok {
			t.Errorf("changes %d and %d have the same pin", other, i)
		}
		seen[p] = i
	}
	same := liveOf("name", "what it does", `{"properties": {"a": {"type": "str\u0069ng"}}, "type": "object"}`)
	same.Title = "not of the descriptor"
	if seen[pin(same)] != 0 || len(seen) != 8 {
		t.Error("the same descriptor, written otherwise, has another pin")
	}
}
