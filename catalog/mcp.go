package catalog

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/strictyaml"
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
func (r *reader) mcpServer(s *Server, f *fields, n *strictyaml.Node) error {
	var err error
	if s.MCP, err = r.mcp(s, n); err != nil {
		return err
	}
	if _, ok := f.Find("tools"); !ok {
		return nil
	}
	list, err := f.List("tools")
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

func (r *reader) mcp(s *Server, n *strictyaml.Node) (*MCP, error) {
	f, err := keys(n, "path", "upstream_path", "revisions", "denials", "hosts", "origins", "timeout", "stream")
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
	m := &MCP{Path: path.Text, UpstreamPath: path.Text, Revisions: Revisions(), Denials: DenialsHTTP}
	if _, ok := f.Find("upstream_path"); ok {
		v, err := f.path("upstream_path")
		if err != nil {
			return nil, err
		}
		m.UpstreamPath = v.Text
	}
	if at, ok := f.Key("revisions"); ok {
		if m.Revisions, err = f.Strings("revisions", checkRevision); err != nil {
			return nil, err
		}
		if len(m.Revisions) == 0 {
			return nil, at.Errorf("\"revisions\" must list at least one of %s; left out, it is all of them", strings.Join(revisions, ", "))
		}
	}
	if _, ok := f.Find("denials"); ok {
		v, err := f.Text("denials")
		if err != nil {
			return nil, err
		}
		if v.Text != DenialsHTTP && v.Text != DenialsJSONRPC {
			return nil, v.Errorf("denials %q: must be %s or %s", v.Text, DenialsHTTP, DenialsJSONRPC)
		}
		m.Denials = v.Text
	}
	if m.Hosts, err = f.Strings("hosts", func(v *strictyaml.Node) error { return checkHost(v, s) }); err != nil {
		return nil, err
	}
	if m.Origins, err = f.Strings("origins", checkOrigin); err != nil {
		return nil, err
	}
	if m.Timeout, err = f.timeout("timeout", DefaultTimeout); err != nil {
		return nil, err
	}
	m.Stream, err = f.timeout("stream", MaxTimeout)
	return m, err
}

func checkRevision(v *strictyaml.Node) error {
	if !slices.Contains(revisions, v.Text) {
		return v.Errorf("revision %q: must be one of %s", v.Text, strings.Join(revisions, ", "))
	}
	return nil
}

// checkHost refuses also what would add nothing: two files that mean the same
// must be the same catalogue.
func checkHost(v *strictyaml.Node, s *Server) error {
	switch {
	case isAddress(v.Text), v.Text == "localhost":
		return v.Errorf("host %q: addresses and localhost are always allowed; leave it out", v.Text)
	case !isName(v.Text):
		return v.Errorf("host %q: must be a DNS name in lower case, without a port", v.Text)
	case slices.Contains(s.Hosts(), v.Text): // MCP is not set yet: the resource's alone
		return v.Errorf("host %q: is the resource's own, which is always allowed; leave it out", v.Text)
	}
	return nil
}

// checkOrigin wants an origin as browsers write it (RFC 6454, Section 6.2).
func checkOrigin(v *strictyaml.Node) error {
	defaultPort := map[string]string{"http": "80", "https": "443"}
	u, err := url.Parse(v.Text)
	if err == nil && v.Text == u.Scheme+"://"+u.Host && plainHost(u) && defaultPort[u.Scheme] != "" && u.Port() != defaultPort[u.Scheme] {
		return nil
	}
	return v.Errorf("origin %q: must be as browsers send it, http(s)://HOST or http(s)://HOST:PORT, in lower case, "+
		"without a path or the scheme's default port", v.Text)
}
