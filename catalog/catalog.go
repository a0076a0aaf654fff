// Package catalog reads tools.yaml: the tool servers, their tools, and what
// each tool takes as input.
//
// The catalogue is the one source of what a tool is. Envoy's routes, the policy
// schema and the resource metadata are made from it, the call door never
// guesses a tool from a path, and a tool's sets come from here and never from
// what a live server says about itself.
//
// Invariants of a Catalog that Parse has returned:
//   - it is never changed, and may be read concurrently;
//   - a method and path lead to at most one tool, over all servers, because one
//     Envoy listener serves them all;
//   - nothing in it can be read in two ways: paths have no escapes, header and
//     query names no spellings that another parser would fold together;
//   - two files that mean the same have the same Digest, and a tool's Digest
//     changes with anything that its entry says.
package catalog

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"
)

// MaxSize is the largest tools.yaml that is read, in bytes.
const MaxSize = 1 << 20

// Bounds of a tool's time-out.
const (
	DefaultTimeout = 15 * time.Second
	MaxTimeout     = time.Hour
)

// Catalog is a whole tools.yaml.
type Catalog struct {
	Servers []Server // in the file's order
	Digest  [32]byte // SHA-256 of the canonical form of everything in it

	tools     map[string]*Tool   // SERVER/TOOL -> tool
	servers   map[string]*Server // id -> server
	resources map[string]*Server // resource URI -> server
	sets      []string           // sorted
}

// Server is an HTTP service that offers tools.
type Server struct {
	ID       string
	Resource string  // absolute URI (RFC 8707, Section 2): the audience of tokens for this server
	Upstream string  // host:port, the host an IP address or a DNS name
	Tools    []*Tool // in the file's order; at least one
}

// Tool is one callable thing on a server: an HTTP method and an exact path.
type Tool struct {
	ID     string // SERVER/TOOL
	Name   string // TOOL
	Server *Server
	Method string // GET, POST, PUT, PATCH or DELETE
	Path   string // exact; unreserved characters (RFC 3986, Section 2.3) and "/"

	Sets              []string      // names of sets for policy; sorted
	Timeout           time.Duration // of the whole exchange with the tool; whole milliseconds
	PassAuthorization bool          // the Authorization header goes on to the tool
	Credential        string        // header that carries the credential of its calls, its own or its server's; "": the configuration's (CredentialIn)
	Opaque            []string      // JSON Pointers (RFC 6901) into the input that policy does not see; sorted

	Query  map[string]*Schema // name -> scalar; empty: no query parameter is declared
	Header map[string]*Schema // lower-case name -> scalar; empty: no header is declared
	Body   *Schema            // of the JSON body; nil: the tool takes none

	// Digest is the pin: a SHA-256 of the canonical form of the tool's entry
	// with its server's id and resource. The upstream is left out, because
	// moving a server to another address does not make it another tool.
	Digest [32]byte
}

// Schema says what one value is: the subset of JSON Schema in which the
// catalogue describes inputs. What it does not declare, policy cannot see.
type Schema struct {
	Type        string             // object, string, integer, number, boolean or array
	Description string             // for people and models; decides nothing
	Enum        []string           // strings only; sorted; empty: any
	Required    []string           // of an object: names out of Properties; sorted
	Properties  map[string]*Schema // of an object
	Items       *Schema            // of an array: its elements
}

// Load reads the catalogue in the file at path. See Parse.
func Load(path string) (*Catalog, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue: %w", err)
	}
	return Parse(path, b)
}

// Parse reads a catalogue from the text of a tools.yaml. Errors begin
// "NAME:LINE:COLUMN:"; the first one found is returned. Unknown and duplicate
// keys, anchors, aliases, tags and more than one document are errors.
func Parse(name string, text []byte) (*Catalog, error) {
	root, err := parseYAML(text)
	if err == nil {
		var c *Catalog
		if c, err = readCatalog(root); err == nil {
			return c, nil
		}
	}
	var at *posError
	if errors.As(err, &at) {
		return nil, fmt.Errorf("%s:%d:%d: %s", name, at.line, at.column, at.message)
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// Tool returns the tool with the id SERVER/TOOL.
func (c *Catalog) Tool(id string) (*Tool, bool) {
	t, ok := c.tools[id]
	return t, ok
}

// ServerByID returns the server with the id.
func (c *Catalog) ServerByID(id string) (*Server, bool) {
	s, ok := c.servers[id]
	return s, ok
}

// ServerByResource returns the server whose resource is exactly uri.
func (c *Catalog) ServerByResource(uri string) (*Server, bool) {
	s, ok := c.resources[uri]
	return s, ok
}

// Sets returns the names of all sets that a tool is in, sorted.
func (c *Catalog) Sets() []string { return slices.Clone(c.sets) }

// Input returns the schema of the tool's whole input: an object with the
// declared ones of "query", "body" and "header", all of them required. Inside
// query and header nothing is. The schemas in it are the tool's own: not to be
// changed.
func (t *Tool) Input() *Schema {
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

// The canonical forms. Lists that are sets have been sorted on reading, maps
// are written by sorted key, defaults are filled in: what means the same is
// the same text. The prefixes keep a tool's digest from ever being a
// catalogue's.
const (
	toolPrefix    = "toolgrant tool 1\n"
	catalogPrefix = "toolgrant catalog 1\n"
)

type canonicalTool struct {
	ID, Resource, Method, Path string
	Sets                       []string           `json:",omitempty"`
	Timeout                    int64              // milliseconds
	PassAuthorization          bool               `json:",omitempty"`
	Credential                 string             `json:",omitempty"`
	Opaque                     []string           `json:",omitempty"`
	Query, Header              map[string]*Schema `json:",omitempty"`
	Body                       *Schema            `json:",omitempty"`
}

type canonicalServer struct {
	ID, Resource, Upstream string
	Tools                  []string // digests, sorted
}

func (t *Tool) digest() [32]byte {
	return digest(toolPrefix, canonicalTool{
		ID: t.ID, Resource: t.Server.Resource, Method: t.Method, Path: t.Path,
		Sets: t.Sets, Timeout: t.Timeout.Milliseconds(), PassAuthorization: t.PassAuthorization,
		Credential: t.Credential, Opaque: t.Opaque, Query: t.Query, Header: t.Header, Body: t.Body,
	})
}

func (c *Catalog) digest() [32]byte {
	var servers []canonicalServer
	for _, id := range slices.Sorted(maps.Keys(c.servers)) {
		s := c.servers[id]
		cs := canonicalServer{ID: s.ID, Resource: s.Resource, Upstream: s.Upstream}
		for _, t := range s.Tools {
			cs.Tools = append(cs.Tools, fmt.Sprintf("%x", t.Digest))
		}
		slices.Sort(cs.Tools)
		servers = append(servers, cs)
	}
	return digest(catalogPrefix, servers)
}

func digest(prefix string, v any) [32]byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("catalog: canonical form: " + err.Error()) // strings, numbers and booleans alone: cannot fail
	}
	return sha256.Sum256(append([]byte(prefix), b...))
}
