package catalog

import (
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/strictyaml"
)

// Inner says where the arguments of a meta-tool name the tool of the same server
// that it calls, and where they hold that one's arguments: JSON Pointers (RFC
// 6901). Arguments may be "": such a call has none. Policy sees the name, and
// judges the arguments with the inner tool.
type Inner struct{ Tool, Arguments string }

var (
	mcpNamePattern = regexp.MustCompile("^[!-~]{1,128}$")
	pinPattern     = regexp.MustCompile("^sha256:[0-9a-f]{64}$")
)

// mcpTool reads a tool of an MCP server.
func (r *reader) mcpTool(s *Server, n *strictyaml.Node) error {
	if at, ok := n.Key("credential"); ok {
		return at.Errorf("\"credential\" is the MCP server's, for all of its tools: one message can call several")
	}
	f, err := keys(n, "tool", "name", "pin", "sets", "timeout", "opaque", "volatile", "redact", "input", "tasks", "retries", "meta")
	if err != nil {
		return err
	}
	t, err := r.newTool(s, f)
	if err != nil {
		return err
	}
	t.Credential = s.Credential
	if err := t.readMCPName(f); err != nil {
		return err
	}
	if _, ok := f.Find("pin"); ok {
		if t.Pin, err = f.pin(); err != nil {
			return err
		}
	}
	if t.Tasks, err = f.Boolean("tasks"); err != nil {
		return err
	}
	if t.Retries, err = f.Boolean("retries"); err != nil {
		return err
	}
	schemas := schemaReader{arguments: true}
	t.Arguments = &Schema{Type: "object"}
	if v, ok := f.Get("input"); ok {
		if t.Arguments, err = schemas.read(v, "", true); err != nil {
			return err
		}
		if t.Arguments.Type != "object" {
			return v.Errorf("\"input\" must be of the type object, not %s: the arguments of an MCP tool always are one", t.Arguments.Type)
		}
	}
	if err := t.readPlaces(f); err != nil {
		return err
	}
	if v, ok := f.Get("meta"); ok {
		if err := t.readInner(v); err != nil {
			return err
		}
	}
	s.mcpNames[t.MCPName] = t
	return r.add(t, n, &schemas)
}

// readMCPName reads the name that the server knows the tool by.
func (t *Tool) readMCPName(f *fields) error {
	t.MCPName = t.Name
	v, err := f.Text("tool")
	if err != nil {
		return err
	}
	if _, ok := f.Find("name"); ok {
		if v, err = f.Text("name"); err != nil {
			return err
		}
		if !mcpNamePattern.MatchString(v.Text) {
			return v.Errorf("name %q: must be 1 to 128 printable ASCII characters without blanks, as the server has it in tools/list", v.Text)
		}
		t.MCPName = v.Text
	}
	if other, ok := t.Server.mcpNames[t.MCPName]; ok {
		return v.Errorf("name %q is already that of the tool %q on this server", t.MCPName, other.ID)
	}
	return nil
}

func (f *fields) pin() ([32]byte, error) {
	var pin [32]byte
	v, err := f.Text("pin")
	if err != nil {
		return pin, err
	}
	if !pinPattern.MatchString(v.Text) {
		return pin, v.Errorf("pin %q: must be sha256: and 64 hexadecimal digits in lower case", v.Text)
	}
	if _, err := hex.Decode(pin[:], []byte(strings.TrimPrefix(v.Text, "sha256:"))); err != nil {
		return pin, v.Errorf("pin %q: %v", v.Text, err)
	}
	if pin == [32]byte{} {
		return pin, v.Errorf("pin %q: is no descriptor's; leave \"pin\" out for none", v.Text)
	}
	return pin, nil
}

// readInner reads what makes a meta-tool. The inner tool's arguments are opaque
// here, since they are judged as that tool's, and by its schema.
func (t *Tool) readInner(n *strictyaml.Node) error {
	f, err := keys(n, "tool", "arguments")
	if err != nil {
		return err
	}
	name, err := f.Text("tool")
	if err != nil {
		return err
	}
	s, err := checkPointer("meta: tool", name, t.Arguments)
	if err != nil {
		return err
	}
	if s.Type != "string" {
		return name.Errorf("meta: tool %q: names the inner tool, and so must be of the type string, not %s", name.Text, s.Type)
	}
	t.Inner = &Inner{Tool: name.Text}
	if _, ok := f.Find("arguments"); ok {
		arguments, err := f.Text("arguments")
		if err != nil {
			return err
		}
		if s, err = checkPointer("meta: arguments", arguments, t.Arguments); err != nil {
			return err
		}
		if s.Type != "object" && s.Type != "any" {
			return arguments.Errorf("meta: arguments %q: hold the inner tool's, and so must be of the type object or any, not %s", arguments.Text, s.Type)
		}
		t.Inner.Arguments = arguments.Text
		if at, listed := slices.BinarySearch(t.Opaque, arguments.Text); !listed {
			t.Opaque = slices.Insert(t.Opaque, at, arguments.Text)
		}
	}
	if covered(t.Opaque, name.Text) {
		return name.Errorf("meta: tool %q: is opaque, but policy must see which tool is called", name.Text)
	}
	if covered(t.Volatile, name.Text) {
		return name.Errorf("meta: tool %q: is volatile, but a one-time grant must pin which tool is called", name.Text)
	}
	return nil
}

// HeaderArgument is an argument that clients repeat in a header (MCP
// 2026-07-28, Streamable HTTP, "Custom Headers from Tool Parameters").
type HeaderArgument struct {
	Name string   // behind "Mcp-Param-", in lower case
	Path []string // names of members, from the arguments down
	Type string   // string, integer or boolean
}

// HeaderArguments are the arguments of the MCP tool that clients repeat in
// headers, sorted by name.
func (t *Tool) HeaderArguments() []HeaderArgument {
	var all []HeaderArgument
	var walk func(s *Schema, path []string)
	walk = func(s *Schema, path []string) {
		if s.Header != "" {
			all = append(all, HeaderArgument{Name: s.Header, Path: path, Type: s.Type})
		}
		for name, p := range s.Properties {
			walk(p, append(slices.Clip(path), name))
		}
	}
	if t.Arguments != nil {
		walk(t.Arguments, nil)
	}
	slices.SortFunc(all, func(a, b HeaderArgument) int { return strings.Compare(a.Name, b.Name) })
	return all
}
