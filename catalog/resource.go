package catalog

import (
	"net/url"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/strictyaml"
)

// checkResource wants an absolute URI without a fragment (RFC 8707, Section
// 2), in the one spelling in which tokens will be compared with it.
func checkResource(v *strictyaml.Node) error {
	for _, c := range []byte(v.Text) {
		if c <= ' ' || c >= 0x7f {
			return v.Errorf("resource %q: a URI has visible ASCII characters only", v.Text)
		}
	}
	u, err := url.Parse(v.Text)
	switch {
	case err != nil, !u.IsAbs(), u.Host == "" && u.Opaque == "",
		u.Host == "" && (u.Scheme == "https" || u.Scheme == "http"):
		return v.Errorf("resource %q: must be an absolute URI, such as https://reports.internal", v.Text)
	case strings.Contains(v.Text, "#"):
		return v.Errorf("resource %q: must have no fragment (RFC 8707, Section 2)", v.Text)
	case u.User != nil:
		return v.Errorf("resource %q: must have no user information", v.Text)
	case !strings.HasPrefix(v.Text, u.Scheme+":"), u.Host != strings.ToLower(u.Host):
		return v.Errorf("resource %q: write scheme and host in lower case", v.Text)
	}
	return nil
}

// wellKnown is where a resource's metadata is (RFC 9728, Section 3).
const wellKnown = "/.well-known/oauth-protected-resource"

// MetadataURL is where clients look for the metadata of the server's resource
// (RFC 9728, Section 3.1): the well-known path stands between the resource's
// origin and its path. "" for a resource without metadata: one that is no http
// or https URL, or whose host or path parsers could read in more than one way. A
// resource's query is left out, because Envoy finds the metadata by its path.
func (s *Server) MetadataURL() string {
	path := s.MetadataPath()
	if path == "" {
		return ""
	}
	u := s.web()
	return u.Scheme + "://" + u.Host + path
}

// MetadataPath is the path of MetadataURL; "" if there is none. No tool and no
// MCP server has it.
func (s *Server) MetadataPath() string {
	u := s.web()
	if u == nil {
		return ""
	}
	path := u.EscapedPath()
	if path == "" || path == "/" {
		return wellKnown
	}
	if pathFault(path) != "" {
		return ""
	}
	return wellKnown + path
}

// SharesMetadataPath reports whether another server has the same MetadataPath,
// so that only the host of MetadataURL tells the two apart. Both together are no
// other server's.
func (c *Catalog) SharesMetadataPath(s *Server) bool {
	path := s.MetadataPath()
	return path != "" && slices.ContainsFunc(c.Servers, func(o Server) bool { return o.ID != s.ID && o.MetadataPath() == path })
}

// Discoverable returns the MetadataURL of the server; "" also where another
// server's differs by the port alone. A listener behind which all servers are
// knows no port of theirs, and one server's document is no answer to a question
// for the other's.
func (c *Catalog) Discoverable(s *Server) string {
	path := s.MetadataPath()
	if path == "" || slices.ContainsFunc(c.Servers, func(o Server) bool {
		return o.ID != s.ID && o.MetadataPath() == path && o.web().Hostname() == s.web().Hostname()
	}) {
		return ""
	}
	return s.MetadataURL()
}

// Hosts are the names by which clients may call the server, in lower case and
// without a port: its resource's, and those that an MCP server has beside it;
// sorted.
func (s *Server) Hosts() []string {
	var all []string
	if u := s.web(); u != nil {
		all = append(all, u.Hostname())
	}
	if s.MCP != nil {
		all = append(all, s.MCP.Hosts...)
	}
	slices.Sort(all)
	return all
}

// web returns the resource as a URL; nil if it is no http or https one, or its
// host and port can be read in more than one way.
func (s *Server) web() *url.URL {
	u, err := url.Parse(s.Resource)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || !plainHost(u) {
		return nil
	}
	return u
}

// metadata refuses a catalogue in which a request for a server's metadata would
// be another server's, or a call.
func (r *reader) metadata() error {
	places := map[string]string{} // host and path -> server id
	for i := range r.Servers {
		s := &r.Servers[i]
		path := s.MetadataPath()
		if path == "" {
			continue
		}
		at, host := r.resourceAt[s], s.web().Host
		if owner, ok := r.owner(anyMethod, path); ok {
			return at.Errorf("resource %q: its metadata is at %s (RFC 9728, Section 3.1), which is already %s", s.Resource, path, owner)
		}
		if other, ok := places[host+path]; ok {
			return at.Errorf("resource %q: its metadata would be where that of server %q is, at %s%s: "+
				"resources must differ in host or path", s.Resource, other, host, path)
		}
		places[host+path] = s.ID
	}
	return nil
}

// plainHost wants a host in one spelling, with a port or without a colon.
func plainHost(u *url.URL) bool {
	host, port := u.Hostname(), u.Port()
	return (isAddress(host) || isName(host)) && !strings.HasSuffix(u.Host, ":") && (port == "" || isPort(port))
}
