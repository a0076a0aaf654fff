package catalog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
)

const twoServers = `
servers:
- id: reports
  resource: https://reports.internal
  upstream: 127.0.0.1:8080
  http:
  - tool: export
    method: POST
    path: /export
    sets: [write, month-end]
    timeout: 5s
    opaque: [/body/note, /body/a~1b]
    volatile: [/query/page, /body/note]
    redact: [/query/format, /body/month]
    query: {format: {enum: [pdf, csv]}, page: {type: integer, description: from 1}}
    header: {x-locale: {type: string}}
    body:
      type: object
      required: [month]
      properties:
        month: {type: string}
        note: {type: string}
        a/b: {type: number}
        lines: {type: array, items: {type: object, properties: {paid: {type: boolean}}}}
  - {tool: health, method: GET, path: /health, sets: [init]}
- id: mail
  resource: https://mail.internal/api
  upstream: mail.internal:80
  http:
  - {tool: send, method: POST, path: /mail/send, pass_authorization: true, body: {type: object}}
`

func mustParse(t testing.TB, text string) *Catalog {
	t.Helper()
	c, err := Parse("tools.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	c := mustParse(t, twoServers)
	got, ok := c.Tool("reports/export")
	if !ok {
		t.Fatal("no tool reports/export")
	}
	want := &Tool{
		ID: "reports/export", Name: "export", Server: &c.Servers[0],
		Method: "POST", Path: "/export",
		Sets: []string{"month-end", "write"}, Timeout: 5 * time.Second,
		Opaque:   []string{"/body/a~1b", "/body/note"},
		Volatile: []string{"/body/note", "/query/page"}, Redact: []string{"/body/month", "/query/format"},
		Query: map[string]*Schema{
			"format": {Type: "string", Enum: []string{"csv", "pdf"}},
			"page":   {Type: "integer", Description: "from 1"},
		},
		Header: map[string]*Schema{"x-locale": {Type: "string"}},
		Body: &Schema{
			Type: "object", Required: []string{"month"},
			Properties: map[string]*Schema{
				"month": {Type: "string"}, "note": {Type: "string"}, "a/b": {Type: "number"},
				"lines": {Type: "array", Items: &Schema{
					Type: "object", Properties: map[string]*Schema{"paid": {Type: "boolean"}},
				}},
			},
		},
	}
	opts := cmp.Options{cmpopts.IgnoreFields(Tool{}, "Digest", "Server")}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("reports/export (-want +got):\n%s", diff)
	}
	if got.Server != &c.Servers[0] {
		t.Error("a tool's Server is not the one in Servers")
	}
	if diff := cmp.Diff([]string{"init", "month-end", "write"}, c.Sets()); diff != "" {
		t.Errorf("Sets (-want +got):\n%s", diff)
	}
	if s, ok := c.ServerByResource("https://mail.internal/api"); !ok || s.ID != "mail" || s.Upstream != "mail.internal:80" {
		t.Errorf("ServerByResource = %+v, %t", s, ok)
	}
	if s, ok := c.ServerByID("mail"); !ok || s != &c.Servers[1] {
		t.Errorf("ServerByID = %+v, %t", s, ok)
	}
	send, _ := c.Tool("mail/send")
	if !send.PassAuthorization || send.Timeout != DefaultTimeout {
		t.Errorf("mail/send: PassAuthorization %t, Timeout %v", send.PassAuthorization, send.Timeout)
	}
	for _, absent := range []string{"", "reports", "export", "reports/EXPORT", "mail/export"} {
		if _, ok := c.Tool(absent); ok {
			t.Errorf("Tool(%q) found one", absent)
		}
	}
	if _, ok := c.ServerByResource("https://mail.internal/api/"); ok {
		t.Error("ServerByResource found a server by another URI")
	}
}

func TestInput(t *testing.T) {
	c := mustParse(t, twoServers)
	export, _ := c.Tool("reports/export")
	want := &Schema{
		Type: "object", Required: []string{"body", "header", "query"},
		Properties: map[string]*Schema{
			"body":   export.Body,
			"header": {Type: "object", Properties: export.Header},
			"query":  {Type: "object", Properties: export.Query},
		},
	}
	if diff := cmp.Diff(want, export.Input()); diff != "" {
		t.Errorf("export (-want +got):\n%s", diff)
	}
	health, _ := c.Tool("reports/health")
	want = &Schema{Type: "object", Properties: map[string]*Schema{}}
	if diff := cmp.Diff(want, health.Input()); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tools.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	for _, tt := range []struct{ text, want string }{
		{one(""), ""},
		{one("    path: 1\n"), path + ":9:5: "},
		{one("") + strings.Repeat("#", MaxSize), path + ": larger than"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); (err != nil) != (tt.want != "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}
