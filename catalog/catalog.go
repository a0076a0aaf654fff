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
//   - a method and path lead to at most one tool, MCP server or resource's
//     metadata (that by its host, too), over all servers, because one Envoy
//     listener serves them all;
//   - nothing in it can be read in two ways: paths have no escapes, header and
//     query names no spellings that another parser would fold together;
//   - what policy sees of an input has a type: the type any stands at opaque
//     places alone;
//   - two files that mean the same have the same Digest, and a tool's Digest
//     changes with anything that its entry says.
package catalog

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/strictyaml"
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
	root, err := strictyaml.Parse(text, MaxSize)
	if err == nil {
		var c *Catalog
		if c, err = readCatalog(root); err == nil {
			return c, nil
		}
	}
	var at *strictyaml.PosError
	if errors.As(err, &at) {
		return nil, fmt.Errorf("%s:%d:%d: %s", name, at.Line, at.Column, at.Message)
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

// AllTools gives every tool once, in the file's order.
func (c *Catalog) AllTools() iter.Seq[*Tool] {
	return func(yield func(*Tool) bool) {
		for i := range c.Servers {
			for _, t := range c.Servers[i].Tools {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// Sets returns the names of all sets that a tool is in, sorted.
func (c *Catalog) Sets() []string { return slices.Clone(c.sets) }
