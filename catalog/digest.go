package catalog

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// The canonical forms. A tool's has what a grant of it relies on: what the tool
// is, what it takes, and how its calls are judged. How an MCP server is spoken to
// is in the catalogue's alone: its paths are an address, as the upstream is, and
// its revisions, denials, hosts, origins and times say how and by whom a call can
// be made or ended, not what it does; a grant need not end with a change of them.
//
// Lists that are sets have been sorted on reading, maps
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
	Opaque, Volatile, Redact   []string           `json:",omitempty"`
	Query, Header              map[string]*Schema `json:",omitempty"`
	Body                       *Schema            `json:",omitempty"`
	MCP                        *canonicalMCPTool  `json:",omitempty"`
}

type canonicalMCPTool struct {
	Name, Pin      string // pin: hexadecimal; "" for none
	Arguments      *Schema
	Inner          *Inner
	Tasks, Retries bool
}

type canonicalServer struct {
	ID, Resource, Upstream string
	Credential             string   `json:",omitempty"`
	MCP                    *MCP     `json:",omitempty"` // times in nanoseconds
	Tools                  []string // digests, sorted
}

func (t *Tool) digest() [32]byte {
	c := canonicalTool{
		ID: t.ID, Resource: t.Server.Resource, Method: t.Method, Path: t.Path,
		Sets: t.Sets, Timeout: t.Timeout.Milliseconds(), PassAuthorization: t.PassAuthorization,
		Credential: t.Credential, Opaque: t.Opaque, Volatile: t.Volatile, Redact: t.Redact,
		Query: t.Query, Header: t.Header, Body: t.Body,
	}
	if t.Server.MCP != nil {
		c.MCP = &canonicalMCPTool{Name: t.MCPName, Arguments: t.Arguments, Inner: t.Inner, Tasks: t.Tasks, Retries: t.Retries}
		if t.Pin != [32]byte{} {
			c.MCP.Pin = fmt.Sprintf("%x", t.Pin)
		}
	}
	return digest(toolPrefix, c)
}

func (c *Catalog) digest() [32]byte {
	var servers []canonicalServer
	for _, id := range slices.Sorted(maps.Keys(c.servers)) {
		s := c.servers[id]
		cs := canonicalServer{ID: s.ID, Resource: s.Resource, Upstream: s.Upstream, Credential: s.Credential, MCP: s.MCP}
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
