package cedar

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
)

// mcpCatalog has the servers of testdata/tools.yaml, which are HTTP services, and
// those of testdata/mcp.yaml: forge, and notes, which has no tools and speaks
// 2026-07-28 alone.
func mcpCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	var text []byte
	for _, name := range []string{"testdata/tools.yaml", "testdata/mcp.yaml"} {
		part, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if text != nil {
			part = bytes.TrimPrefix(part, []byte("servers:\n"))
		}
		text = append(text, part...)
	}
	c, err := catalog.Parse("tools.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const release = `[{"uid": {"type": "Toolgrant::TaskKind", "id": "release"}}]`

// loadMCP loads policies in which T:: stands for Toolgrant::.
func loadMCP(t testing.TB, text string) (*Set, error) {
	t.Helper()
	cfg := config(t, "p.cedar", long(text), "entities.json", release)
	cfg.Catalog = mcpCatalog(t)
	return Load(cfg)
}

func mcpPolicies(t testing.TB, text string) *Set {
	t.Helper()
	s, err := loadMCP(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The actions about MCP servers are there where the catalogue has one, and then
// there is one for each method but tools/call.
func TestMCPSchema(t *testing.T) {
	without, err := SchemaText(testCatalog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(without, []byte("mcp")) || bytes.Contains(without, []byte("revision")) {
		t.Error("a catalogue without an MCP server knows of MCP")
	}
	c := mcpCatalog(t)
	text, err := SchemaText(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/mcp.cedarschema"
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(old), string(text)); diff != "" {
		t.Errorf("%s (-update writes it anew):\n%s", golden, diff)
	}
	var read schema.Schema
	if err := read.UnmarshalCedar(text); err != nil {
		t.Fatal(err)
	}
	got, err := read.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(Config{Catalog: c}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(len(got.Actions), len(w.schema.Actions)); diff != "" {
		t.Error(diff)
	}
	for _, m := range mcp.Methods() {
		if m.Name == mcp.ToolsCall {
			continue
		}
		action, there := w.schema.Actions[actionUID("mcp:"+m.Name)]
		if !there {
			t.Errorf("%s has no action", m.Name)
			continue
		}
		parents := action.Entity.Parents
		if notification := m.Kind == mcp.Notification; !parents.Contains(actionUID("mcp")) || parents.Contains(actionUID("mcp:notifications")) != notification || parents.Contains(actionUID("call")) {
			t.Errorf("%s has the parents %v", m.Name, slices.Collect(parents.All()))
		}
		for member, wanted := range map[string]bool{"requester": true, "revision": true, "input": true, "grant": m.Grant, "retry": m.Retry} {
			if _, has := action.AppliesTo.Context[cedargo.String(member)]; has != wanted {
				t.Errorf("%s: context has %s: %v", m.Name, member, has)
			}
		}
	}
	if len(w.methods) != len(mcp.Methods())-1 {
		t.Errorf("%d methods", len(w.methods))
	}
	if _, there := w.schema.Actions[actionUID("mcp:tools/call")]; there {
		t.Error("tools/call is an action beside those of the calls")
	}
}

// What the catalogue calls "any" is nowhere in what policy sees.
func TestMCPOpaque(t *testing.T) {
	all, err := shapes(mcpCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	for id, member := range map[string]string{"forge/merge": "note", "forge/run": "arguments"} {
		if a, there := all[id].attrs[member]; !there || a.shape != nil {
			t.Errorf("%s: %s is not opaque: %+v", id, member, a)
		}
	}
	anything := &catalog.Schema{Type: "object", Properties: map[string]*catalog.Schema{"x": {Type: "any"}}}
	if _, err := newShape(anything, "", nil, maxDepth); err == nil || !strings.Contains(err.Error(), `/x: type "any"`) {
		t.Errorf("an any that policy would see: %v", err)
	}
}

// Every parameter in the table has a type here, and what is closed is in the
// table.
func TestMCPParams(t *testing.T) {
	closed := map[string]bool{}
	for _, m := range mcp.Methods() {
		for _, p := range m.Input {
			closed[m.Name+" "+p.Name] = p.Type == mcp.Text
		}
	}
	for param := range closedParams {
		if !closed[param] {
			t.Errorf("%s is no text in the table", param)
		}
	}
	for param, texts := range closedParams {
		if !slices.IsSorted(texts) {
			t.Errorf("%s: not sorted", param)
		}
	}
	schema := inputSchema(&mcp.Method{Name: "x", Input: []mcp.Param{{Name: "p", Type: 99}}})
	if _, err := newShape(schema, "", nil, maxDepth); err == nil {
		t.Error("a parameter of an unknown type was accepted")
	}
}
