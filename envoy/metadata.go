package envoy

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/toolgrant/toolgrant/catalog"
)

// maxMetadata is the most that Envoy takes for the body of a direct response
// (RouteConfiguration.max_direct_response_body_size_bytes), in bytes.
const maxMetadata = 4096

// metadata is what a client that knows a server by its resource alone learns of
// how to be let in (RFC 9728, Section 2). There are no scopes in it: they would
// tell everybody the catalogue. Those that a call lacks are told in its denial.
type metadata struct {
	Resource     string   `json:"resource"`
	Servers      []string `json:"authorization_servers"`
	Bearer       []string `json:"bearer_methods_supported,omitempty"`
	DetailsTypes []string `json:"authorization_details_types_supported"`
}

// document is the text of a server's metadata.
func document(o Options, s *catalog.Server) string {
	m := metadata{Resource: s.Resource, Servers: []string{o.Issuer}, DetailsTypes: []string{DetailType}}
	if bearer(o, s) {
		m.Bearer = []string{"header"}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic("envoy: metadata: " + err.Error()) // strings alone: cannot fail
	}
	return string(b)
}

// bearer reports whether all of the server's credentials travel as RFC 6750,
// Section 2.1 has it. RFC 9728 has no word for another header.
func bearer(o Options, s *catalog.Server) bool {
	for _, t := range s.Tools {
		if t.CredentialIn(o.CredentialHeader) != DefaultCredentialHeader {
			return false
		}
	}
	// An HTTP service is called by its tools alone.
	return s.MCP == nil || s.CredentialIn(o.CredentialHeader) == DefaultCredentialHeader
}

// checkMetadata refuses what Envoy could not serve.
func (o Options) checkMetadata() error {
	if o.Issuer == "" {
		return nil
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil ||
		strings.ContainsFunc(o.Issuer, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '?' || r == '#' }) {
		return fmt.Errorf("issuer %q: must be an http or https URL in ASCII without query and fragment (RFC 8414, Section 2)", o.Issuer)
	}
	for i := range o.Catalog.Servers {
		s := &o.Catalog.Servers[i]
		if n := len(document(o, s)); s.MetadataURL() != "" && n > maxMetadata {
			return fmt.Errorf("server %s: its metadata (RFC 9728) has %d bytes, over the %d that Envoy takes: shorten the resource or the issuer",
				s.ID, n, maxMetadata)
		}
	}
	return nil
}

// metadataRoutes are the documents of all servers that can be discovered, in the
// catalogue's order; none without an issuer.
func metadataRoutes(o Options) []*routev3.Route {
	if o.Issuer == "" {
		return nil
	}
	var routes []*routev3.Route
	for i := range o.Catalog.Servers {
		s := &o.Catalog.Servers[i]
		if o.Catalog.Discoverable(s) != "" {
			routes = append(routes, metadataRoute(o, s))
		}
	}
	return routes
}

// metadataRoute answers by itself, and is the one kind of route for which no
// check is asked: who needs the document has no credential yet. It opens
// nothing, since there is nothing behind it.
//
// Where servers share the path, the name by which the client calls tells them
// apart; else any will do, since a resource may have another name in front of
// Envoy.
func metadataRoute(o Options, s *catalog.Server) *routev3.Route {
	match := matchPath(s.MetadataPath(), matchHeader(":method", "GET"))
	if o.Catalog.SharesMetadataPath(s) {
		host := matchHeader(":authority", authority(s))
		host.GetStringMatch().IgnoreCase = true // RFC 9110, Section 4.2.3
		match.Headers = append(match.Headers, host)
	}
	return &routev3.Route{
		Name:  s.ID + ":metadata",
		Match: match,
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 200,
			Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: document(o, s)}},
		}},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{
			setHeader("content-type", "application/json"),
			setHeader("cache-control", "public, max-age=300"),
		},
		TypedPerFilterConfig: perRoute(&authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_Disabled{Disabled: true}}),
	}
}

// authority is the host of the server's resource, as routes see it: without the
// port, which the listener removes (strip_any_host_port).
func authority(s *catalog.Server) string {
	u, err := url.Parse(s.Resource)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Host, ":"+u.Port())
}

func setHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
