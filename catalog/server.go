package catalog

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/strictyaml"
)

// Server is what offers tools: an HTTP service, or an MCP server.
type Server struct {
	ID         string
	Resource   string  // absolute URI (RFC 8707, Section 2): the audience of tokens for this server
	Upstream   string  // host:port, the host an IP address or a DNS name
	Credential string  // header that carries the credential of its calls; "": the configuration's (CredentialIn)
	Tools      []*Tool // in the file's order; at least one of an HTTP service
	MCP        *MCP    // nil: an HTTP service

	mcpNames map[string]*Tool // name on the MCP server -> tool
}

// ToolByMCPName returns the tool that the MCP server knows by the name. Names
// are compared exactly.
func (s *Server) ToolByMCPName(name string) (*Tool, bool) {
	t, ok := s.mcpNames[name]
	return t, ok
}

// server reads a server.
func (r *reader) server(s *Server, n *strictyaml.Node) error {
	f, err := keys(n, "id", "resource", "upstream", "credential", "http", "mcp", "tools")
	if err != nil {
		return err
	}
	id, err := f.id("id")
	if err != nil {
		return err
	}
	if _, ok := r.servers[id.Text]; ok {
		return id.Errorf("server %q is there twice", id.Text)
	}
	resource, err := f.Text("resource")
	if err != nil {
		return err
	}
	if err := checkResource(resource); err != nil {
		return err
	}
	if other, ok := r.resources[resource.Text]; ok {
		return resource.Errorf("resource %q is already that of server %q", resource.Text, other.ID)
	}
	upstream, err := f.Text("upstream")
	if err != nil {
		return err
	}
	if err := checkUpstream(upstream); err != nil {
		return err
	}
	s.ID, s.Resource, s.Upstream = id.Text, resource.Text, upstream.Text
	r.servers[s.ID], r.resources[s.Resource], r.resourceAt[s] = s, s, resource
	if s.Credential, err = f.credential(); err != nil {
		return err
	}
	return r.offers(s, f, id)
}

// offers reads the server's tools, by either of the two ways to call them.
func (r *reader) offers(s *Server, f *fields, id *strictyaml.Node) error {
	_, isHTTP := f.Find("http")
	mcp, isMCP := f.Find("mcp")
	tools, hasTools := f.Key("tools")
	switch {
	case isHTTP && isMCP:
		return mcp.Key.Errorf("server %q has both \"http\" and \"mcp\": make two servers of it, each with a resource of its own", s.ID)
	case hasTools && !isMCP:
		return tools.Errorf("\"tools\" are an MCP server's, which has \"mcp\" as well; an HTTP service lists its tools under \"http\"")
	case isMCP:
		return r.mcpServer(s, f, mcp.Value)
	case !isHTTP:
		return id.Errorf("server %q needs \"http\", the tools of an HTTP service, or \"mcp\", how an MCP server is spoken to", s.ID)
	}
	list, err := f.List("http")
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return id.Errorf("server %q has no tools: \"http\" must list at least one", s.ID)
	}
	for _, n := range list {
		if err := r.httpTool(s, n); err != nil {
			return err
		}
	}
	return nil
}

func checkUpstream(v *strictyaml.Node) error {
	host, port, err := net.SplitHostPort(v.Text)
	if err != nil {
		return v.Errorf("upstream %q: must be HOST:PORT", v.Text)
	}
	if !isPort(port) {
		return v.Errorf("upstream %q: the port must be a number from 1 to 65535", v.Text)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if !isAddress(host) {
			return v.Errorf("upstream %q: write the address as %s", v.Text, ip.WithZone(""))
		}
		return nil
	}
	if !isName(host) {
		return v.Errorf("upstream %q: the host must be an IP address or a DNS name in lower case", v.Text)
	}
	return nil
}

var dnsPattern = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}

// isAddress wants an IP address in its one spelling, without a zone.
func isAddress(s string) bool {
	ip, err := netip.ParseAddr(s)
	return err == nil && ip.Zone() == "" && ip.String() == s
}

// isName wants a DNS name in lower case that cannot be read as an IPv4 address.
func isName(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	return len(s) <= 253 && dnsPattern.MatchString(s) && strings.Trim(last, "0123456789") != ""
}
