package catalog

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// How an MCP server's denials are told.
const (
	DenialsHTTP    = "http"    // an HTTP error status, with a JSON-RPC error as its body
	DenialsJSONRPC = "jsonrpc" // status 200 with a JSON-RPC error: for clients that an HTTP error ends
)

// MCP is how a server speaks the Model Context Protocol (Streamable HTTP).
type MCP struct {
	Path         string        // at Envoy: exact, like a tool's
	UpstreamPath string        // at the server; Path if the file says nothing
	Revisions    []string      // in which it may be spoken to; sorted; all known ones if the file says nothing
	Denials      string        // DenialsHTTP or DenialsJSONRPC
	Hosts        []string      // names by which clients call it, beside the resource's; lower case, no port; sorted
	Origins      []string      // web origins whose pages may call it (RFC 6454); sorted; mostly none
	Timeout      time.Duration // of an exchange that calls no tool and is no stream
	Stream       time.Duration // of a stream, at most
}

// revisions are those of MCP that are known. They are dates: a revision is
// compared as a text.
var revisions = []string{"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"} // sorted

// Revisions returns the revisions of MCP in which a server may be spoken to,
// oldest first.
func Revisions() []string { return slices.Clone(revisions) }

// mcpServer reads how a server speaks MCP, and its tools.
func (r *reader) mcpServer(s *Server, f *fields, n *node) error {
	var err error
	if s.MCP, err = r.mcp(s, n); err != nil {
		return err
	}
	if _, ok := f.find("tools"); !ok {
		return nil
	}
	list, err := f.list("tools")
	if err != nil {
		return err
	}
	s.mcpNames = map[string]*Tool{}
	for _, n := range list {
		if err := r.mcpTool(s, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) mcp(s *Server, n *node) (*MCP, error) {
	f, err := n.keys("path", "upstream_path", "revisions", "denials", "hosts", "origins", "timeout", "stream")
	if err != nil {
		return nil, err
	}
	path, err := f.path("path")
	if err != nil {
		return nil, err
	}
	if err := r.take(anyMethod, path, `the MCP server "`+s.ID+`"`); err != nil {
		return nil, err
	}
	m := &MCP{Path: path.text, UpstreamPath: path.text, Revisions: Revisions(), Denials: DenialsHTTP}
	if _, ok := f.find("upstream_path"); ok {
		v, err := f.path("upstream_path")
		if err != nil {
			return nil, err
		}
		m.UpstreamPath = v.text
	}
	if at, ok := f.key("revisions"); ok {
		if m.Revisions, err = f.strings("revisions", checkRevision); err != nil {
			return nil, err
		}
		if len(m.Revisions) == 0 {
			return nil, at.errorf("\"revisions\" must list at least one of %s; left out, it is all of them", strings.Join(revisions, ", "))
		}
	}
	if _, ok := f.find("denials"); ok {
		v, err := f.text("denials")
		if err != nil {
			return nil, err
		}
		if v.text != DenialsHTTP && v.text != DenialsJSONRPC {
			return nil, v.errorf("denials %q: must be %s or %s", v.text, DenialsHTTP, DenialsJSONRPC)
		}
		m.Denials = v.text
	}
	if m.Hosts, err = f.strings("hosts", func(v *node) error { return checkHost(v, s) }); err != nil {
		return nil, err
	}
	if m.Origins, err = f.strings("origins", checkOrigin); err != nil {
		return nil, err
	}
	if m.Timeout, err = f.duration("timeout", DefaultTimeout); err != nil {
		return nil, err
	}
	m.Stream, err = f.duration("stream", MaxTimeout)
	return m, err
}

func checkRevision(v *node) error {
	if !slices.Contains(revisions, v.text) {
		return v.errorf("revision %q: must be one of %s", v.text, strings.Join(revisions, ", "))
	}
	return nil
}

// checkHost refuses also what would add nothing: two files that mean the same
// must be the same catalogue.
func checkHost(v *node, s *Server) error {
	switch {
	case isAddress(v.text), v.text == "localhost":
		return v.errorf("host %q: addresses and localhost are always allowed; leave it out", v.text)
	case !isName(v.text):
		return v.errorf("host %q: must be a DNS name in lower case, without a port", v.text)
	case slices.Contains(s.Hosts(), v.text): // MCP is not set yet: the resource's alone
		return v.errorf("host %q: is the resource's own, which is always allowed; leave it out", v.text)
	}
	return nil
}

// checkOrigin wants an origin as browsers write it (RFC 6454, Section 6.2).
func checkOrigin(v *node) error {
	defaultPort := map[string]string{"http": "80", "https": "443"}
	u, err := url.Parse(v.text)
	if err == nil && v.text == u.Scheme+"://"+u.Host && plainHost(u) && defaultPort[u.Scheme] != "" && u.Port() != defaultPort[u.Scheme] {
		return nil
	}
	return v.errorf("origin %q: must be as browsers send it, http(s)://HOST or http(s)://HOST:PORT, in lower case, "+
		"without a path or the scheme's default port", v.text)
}
