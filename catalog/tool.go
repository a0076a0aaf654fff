package catalog

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/strictyaml"
)

// Tool is one callable thing on a server: an HTTP method and an exact path, or a
// tool of an MCP server.
type Tool struct {
	ID     string // SERVER/TOOL
	Name   string // TOOL
	Server *Server
	Method string // GET, POST, PUT, PATCH or DELETE; "" on an MCP server
	Path   string // exact; unreserved characters (RFC 3986, Section 2.3) and "/"; "" on an MCP server

	// On an MCP server alone.
	MCPName   string   // as the server knows it ("name" of tools/call); Name if the file says nothing
	Pin       [32]byte // SHA-256 of its descriptor (RFC 8785 text of name, description, inputSchema, outputSchema and annotations); zero: none
	Arguments *Schema  // of its arguments: an object
	Inner     *Inner   // it is a meta-tool; nil: it is none
	Tasks     bool     // its calls may become tasks of the server's
	Retries   bool     // answers to the server (inputResponses, requestState) are let through under a constrained grant

	Sets              []string      // names of sets for policy; sorted
	Timeout           time.Duration // of the whole exchange with the tool; whole milliseconds
	PassAuthorization bool          // the Authorization header goes on to the tool
	Credential        string        // header that carries the credential of its calls, its own or its server's; "": the configuration's (CredentialIn)
	Opaque            []string      // JSON Pointers (RFC 6901) into the input that policy does not see; sorted
	Volatile          []string      // JSON Pointers into the input: arguments that a one-time grant (grants.Grant.Once) does not pin; sorted, none inside of another
	Redact            []string      // JSON Pointers into the input: arguments that the file of inputs (audit.inputs) does not hold; sorted, none inside of another

	Query  map[string]*Schema // name -> scalar; empty: no query parameter is declared
	Header map[string]*Schema // lower-case name -> scalar; empty: no header is declared
	Body   *Schema            // of the JSON body; nil: the tool takes none

	// Digest is the pin: a SHA-256 of the canonical form of the tool's entry
	// with its server's id and resource. The upstream is left out, because
	// moving a server to another address does not make it another tool.
	Digest [32]byte
}

// Input returns the schema of the tool's whole input. Of an MCP tool it is that
// of its arguments. Of an HTTP tool it is an object with the declared ones of
// "query", "body" and "header", all of them required; inside query and header
// nothing is. The schemas in it are the tool's own: not to be changed.
func (t *Tool) Input() *Schema {
	if t.Arguments != nil {
		return t.Arguments
	}
	in := &Schema{Type: "object", Properties: map[string]*Schema{}}
	if len(t.Query) > 0 {
		in.Properties["query"] = &Schema{Type: "object", Properties: t.Query}
	}
	if len(t.Header) > 0 {
		in.Properties["header"] = &Schema{Type: "object", Properties: t.Header}
	}
	if t.Body != nil {
		in.Properties["body"] = t.Body
	}
	in.Required = slices.Sorted(maps.Keys(in.Properties))
	return in
}

// methods holds the methods that a tool can have, and whether they take a body.
var methods = map[string]bool{"GET": false, "DELETE": false, "POST": true, "PUT": true, "PATCH": true}

// anyMethod stands for all of them, and those that no tool can have.
const anyMethod = "*"

// newTool reads what tools of both kinds have but their input.
func (r *reader) newTool(s *Server, f *fields) (*Tool, error) {
	name, err := f.id("tool")
	if err != nil {
		return nil, err
	}
	t := &Tool{ID: s.ID + "/" + name.Text, Name: name.Text, Server: s}
	if _, ok := r.tools[t.ID]; ok {
		return nil, name.Errorf("tool %q is there twice", t.ID)
	}
	if t.Sets, err = f.Strings("sets", checkID); err != nil {
		return nil, err
	}
	t.Timeout, err = f.timeout("timeout", DefaultTimeout)
	return t, err
}

// httpTool reads a tool of an HTTP service.
func (r *reader) httpTool(s *Server, n *strictyaml.Node) error {
	f, err := keys(n, "tool", "method", "path", "sets", "timeout", "pass_authorization", "credential",
		"opaque", "volatile", "redact", "query", "header", "body")
	if err != nil {
		return err
	}
	t, err := r.newTool(s, f)
	if err != nil {
		return err
	}
	if err := r.route(t, f); err != nil {
		return err
	}
	if t.PassAuthorization, err = f.Boolean("pass_authorization"); err != nil {
		return err
	}
	own, err := f.credential()
	if err != nil {
		return err
	}
	t.Credential = cmp.Or(own, s.Credential)
	var schemas schemaReader
	if err := t.readInput(f, &schemas); err != nil {
		return err
	}
	if err := t.readPlaces(f); err != nil {
		return err
	}
	return r.add(t, n, &schemas)
}

// add puts a tool that has been read into the catalogue.
func (r *reader) add(t *Tool, n *strictyaml.Node, schemas *schemaReader) error {
	if err := schemas.checkAny(t.Opaque); err != nil {
		return err
	}
	t.Digest = t.digest()
	t.Server.Tools = append(t.Server.Tools, t)
	r.tools[t.ID], r.toolAt[t] = t, n
	return nil
}

// route reads the method and path, and refuses those that are taken.
func (r *reader) route(t *Tool, f *fields) error {
	method, err := f.Text("method")
	if err != nil {
		return err
	}
	if _, ok := methods[method.Text]; !ok {
		return method.Errorf("method %q: must be GET, POST, PUT, PATCH or DELETE", method.Text)
	}
	path, err := f.path("path")
	if err != nil {
		return err
	}
	t.Method, t.Path = method.Text, path.Text
	return r.take(t.Method, path, `the tool "`+t.ID+`"`)
}

// take notes whose the method is at the path, which nobody else may have.
func (r *reader) take(method string, path *strictyaml.Node, owner string) error {
	if other, ok := r.owner(method, path.Text); ok {
		return path.Errorf("%s is already %s: one listener serves all servers, "+
			"so a method and path can name only one thing in the whole catalogue",
			strings.TrimPrefix(method+" "+path.Text, anyMethod+" "), other)
	}
	r.routes[method+" "+path.Text] = owner
	return nil
}

// owner says whose the method is at the path.
func (r *reader) owner(method, path string) (string, bool) {
	for _, m := range append(slices.Sorted(maps.Keys(methods)), anyMethod) {
		if owner, ok := r.routes[m+" "+path]; ok && (method == anyMethod || m == anyMethod || m == method) {
			return owner, true
		}
	}
	return "", false
}

var pathPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*/?$`) // RFC 3986, Section 2.3: unreserved

// path returns the path under key, which must be there.
func (f *fields) path(key string) (*strictyaml.Node, error) {
	v, err := f.Text(key)
	if err != nil {
		return nil, err
	}
	if fault := pathFault(v.Text); fault != "" {
		return nil, v.Errorf("%s %q: %s", key, v.Text, fault)
	}
	return v, nil
}

// pathFault says what keeps a path from being read alike by every parser: what
// Envoy matches must be what the upstream gets.
func pathFault(path string) string {
	if !strings.HasPrefix(path, "/") {
		return `must start with "/"`
	}
	if strings.Contains(path, "//") {
		return "must have no empty segment"
	}
	if !pathPattern.MatchString(path) {
		return `only letters, digits, "-", ".", "_", "~" and "/" are allowed`
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return `must have no segment "` + segment + `"`
		}
	}
	return ""
}
