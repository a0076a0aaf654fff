package authz

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// call is a request as far as it has been read.
type call struct {
	tool       *catalog.Tool
	timeout    time.Duration // the route's own; 0: none stated
	credential string        // not yet verified
	headers    headers
	query      string         // as it was sent
	peer       string         // name in the client certificate that Envoy verified; "" for none
	input      map[string]any // of a known caller; see readInput
}

// ContextTool and ContextTimeout are the context_extensions of a route: the id
// of its tool ("SERVER/TOOL"), and its own time-out in milliseconds.
const (
	ContextTool    = "tool"
	ContextTimeout = "timeout_ms"
)

// passed are the headers that reach the tool without being declared. Everything
// else goes: what policy does not see must not steer the tool.
var passed = map[string]bool{
	"accept": true, "accept-encoding": true, "accept-language": true,
	"content-length": true, "content-type": true, "transfer-encoding": true,
	"host": true, "user-agent": true, "x-request-id": true,
	"traceparent": true, "tracestate": true,
	"x-forwarded-for": true, "x-forwarded-proto": true, // Envoy's own: the client's are stripped
}

// parse reads which tool the request is for, and the credential. The route says
// which tool it is (context_extensions, which a client cannot set); that the
// method and path are that tool's is checked all the same. The input is read
// later (readInput), for a caller who is known: it is what costs.
func (d *Door) parse(req *authv3.CheckRequest, c *call) (grants.Reason, string) {
	attrs := req.GetAttributes()
	http := attrs.GetRequest().GetHttp()
	if http == nil || http.GetHeaderMap() == nil {
		return grants.Malformed, "Envoy sent no headers: set encode_raw_headers: true"
	}
	ext := attrs.GetContextExtensions()
	tool, ok := d.cfg.Catalog.Tool(ext[ContextTool])
	if !ok {
		return grants.UnknownTool, "the route names no tool of the catalogue: print the configuration again with `toolgrant envoy`"
	}
	c.tool = tool
	if ms := ext[ContextTimeout]; ms != "" {
		n, err := strconv.ParseInt(ms, 10, 32)
		if err != nil || n < 0 {
			return grants.Mismatch, "the route's timeout_ms is not a number of milliseconds"
		}
		c.timeout = time.Duration(n) * time.Millisecond
	}
	if c.peer = attrs.GetSource().GetPrincipal(); c.peer == "" && attrs.GetSource().GetCertificate() != "" {
		return grants.UnboundToken, "the client certificate names nobody: it has no URI or DNS name"
	}
	c.headers = readHeaders(http.GetHeaderMap().GetHeaders(), tool, d.cfg.CredentialHeader)
	path, query, _ := strings.Cut(http.GetPath(), "?")
	c.query = query
	// The credential comes first, so that one in two places is told so.
	if why, detail := c.headers.credentialIn(&c.credential, query, d.cfg.CredentialHeader); why != grants.None {
		return why, detail
	}
	if http.GetMethod() != tool.Method || path != tool.Path {
		return grants.Mismatch, "method and path are not the tool's"
	}
	return grants.None, ""
}

// headers is what the request's headers say.
type headers struct {
	declared      map[string]string // the tool's own, present
	credentials   []string
	contentType   []string
	encoded       bool // any content-encoding
	length        string
	partial       bool
	authorization string   // the tool's own, where it has one beside the credential
	remove        []string // what must not reach the tool
	bad           string   // what is wrong with them
}

// readHeaders sorts the request's headers: what is the credential, what the
// tool declares, what passes, and what must go.
func readHeaders(list []*corev3.HeaderValue, tool *catalog.Tool, credential string) headers {
	h := headers{declared: map[string]string{}}
	seen := map[string]bool{}
	for _, hv := range list {
		name, value := hv.GetKey(), string(hv.GetRawValue())
		if len(hv.GetRawValue()) == 0 {
			value = hv.GetValue()
		}
		first := !seen[name]
		seen[name] = true
		switch {
		case strings.HasPrefix(name, ":"):
			continue
		case name == credential:
			h.credentials = append(h.credentials, value)
			if first {
				h.remove = append(h.remove, name)
			}
			continue
		case name == "x-envoy-auth-partial-body":
			h.partial = h.partial || value != "false"
			continue
		case name == "content-type":
			h.contentType = append(h.contentType, value)
		case name == "content-encoding":
			h.encoded = true
		case name == "content-length":
			h.length = value
		}
		own := name == "authorization" && tool.PassAuthorization
		if own {
			h.authorization = value // two of them Envoy joins: "A,B"
		}
		if _, ok := tool.Header[name]; ok {
			if !first {
				h.bad = "header " + strconv.Quote(name) + " came twice"
			}
			h.declared[name] = value
		} else if !own && !passed[name] && !strings.HasPrefix(name, "x-envoy-") { // those are Envoy's to strip
			if first {
				h.remove = append(h.remove, name)
			}
			continue
		}
		// Beyond ASCII a header has no one reading (RFC 9110, Section 5.5).
		if strings.ContainsFunc(value, func(r rune) bool { return r >= 0x7f || r < 0x20 && r != '\t' }) {
			h.bad = "header " + strconv.Quote(name) + " is not plain ASCII"
		}
	}
	return h
}

// credentialIn reads the one credential: RFC 6750, Section 2.1 and no other
// way. Two headers, or a header that Envoy joined from two ("A,B"), are refused
// whatever they hold.
func (h *headers) credentialIn(into *string, query, header string) (grants.Reason, string) {
	for _, part := range strings.Split(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if strings.EqualFold(name, "access_token") {
			return grants.Ambiguous, "a token in the query is not read: send it in the header " + strconv.Quote(header) + " alone"
		}
	}
	switch {
	case len(h.credentials) == 0:
		return grants.NoCredential, "send the grant's token in the header " + strconv.Quote(header) + credentialForm(header)
	case len(h.credentials) > 1, strings.Contains(h.credentials[0], ","):
		return grants.Ambiguous, "send one credential, in one header " + strconv.Quote(header)
	}
	value := h.credentials[0]
	if header == "authorization" {
		scheme, rest, ok := strings.Cut(value, " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return grants.BadCredential, "the scheme is Bearer"
		}
		value = strings.TrimLeft(rest, " ")
	}
	if value == "" || strings.ContainsAny(value, " \t") {
		return grants.Ambiguous, "the header holds more or less than one token"
	}
	// What is passed on to the tool must not be what is kept from it.
	if strings.Contains(h.authorization, value) || strings.Contains(h.authorization, ",") {
		return grants.Ambiguous, "authorization is the tool's own here, once, and not a place for the credential"
	}
	*into = value
	return grants.None, ""
}

// credentialForm is how a credential is written in a header of that name.
func credentialForm(header string) string {
	if header == "authorization" {
		return ": Bearer TOKEN"
	}
	return ": the token alone"
}
