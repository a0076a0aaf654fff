package authz

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// call is a request as far as it has been read.
type call struct {
	source     string // address of who holds the connection to Envoy, without a port
	peer       peer
	server     *catalog.Server
	tool       *catalog.Tool // nil: the server speaks MCP, and the message says what is asked
	timeout    time.Duration // the route's own; 0: none stated
	credential string        // not yet verified; "": the certificate is all there is
	headers    headers
	query      string          // as it was sent
	message    *mcp.Message    // to an MCP server, of a known caller
	id         json.RawMessage // of a JSON-RPC request, once it could be read
	wanted     string          // method or tool that there is not, as the message has it
	pinned     bool            // a call by a grant that pins arguments went through its session
	asks       []asked         // what is asked, of a known caller; all of it is decided
	at         *asked          // the one that is decided, or was last
}

// asked is one thing that a request asks for.
type asked struct {
	action string         // of grants.Input
	tool   *catalog.Tool  // nil: what an MCP method does
	input  map[string]any // what policy sees of its arguments; never nil
}

// subject is what the request is about, as records and Envoy's log have it:
// SERVER/TOOL, or SERVER where it asks for no tool; "" before that is known.
func (c *call) subject() string {
	switch {
	case c.at != nil && c.at.tool != nil:
		return c.at.tool.ID
	case c.tool != nil:
		return c.tool.ID
	case c.server != nil:
		return c.server.ID
	}
	return ""
}

// ContextTool, ContextServer and ContextTimeout are the context_extensions of a
// route: the id of its tool ("SERVER/TOOL") or of its MCP server, and its own
// time-out in milliseconds.
const (
	ContextTool    = "tool"
	ContextServer  = "server"
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
	c.source = source(req)
	c.peer = peer{name: attrs.GetSource().GetPrincipal(), certificate: attrs.GetSource().GetCertificate()}
	http := attrs.GetRequest().GetHttp()
	if http == nil || http.GetHeaderMap() == nil {
		return grants.Malformed, "Envoy sent no headers: set encode_raw_headers: true"
	}
	ext := attrs.GetContextExtensions()
	if !d.routed(ext, c) {
		return grants.UnknownTool, "the route names nothing of the catalogue: print the configuration again with `toolgrant envoy`"
	}
	if ms := ext[ContextTimeout]; ms != "" {
		n, err := strconv.ParseInt(ms, 10, 32)
		if err != nil || n < 0 {
			return grants.Mismatch, "the route's timeout_ms is not a number of milliseconds"
		}
		c.timeout = time.Duration(n) * time.Millisecond
	}
	if c.peer.name == "" && c.peer.certificate != "" {
		return grants.UnboundToken, "the client certificate names nobody: it has no URI or DNS name"
	}
	in := wanted{credential: c.server.CredentialIn(d.cfg.CredentialHeader), all: d.credentials, mcp: c.server.MCP != nil}
	if c.tool != nil {
		in.credential, in.declared, in.passAuthorization = c.tool.CredentialIn(d.cfg.CredentialHeader), c.tool.Header, c.tool.PassAuthorization
	}
	c.headers = readHeaders(http.GetHeaderMap().GetHeaders(), in)
	path, query, _ := strings.Cut(http.GetPath(), "?")
	c.query = query
	// The credential comes first, so that one in two places is told so.
	if why, detail := c.readCredential(in, d.buysGrants); why != grants.None {
		return why, detail
	}
	if c.tool != nil && (http.GetMethod() != c.tool.Method || path != c.tool.Path) {
		return grants.Mismatch, "method and path are not the tool's"
	}
	if c.tool == nil && (path != c.server.MCP.Path || query == "" && http.GetPath() != path) {
		return grants.Mismatch, "the path is not the server's, or has a \"?\" behind it"
	}
	return grants.None, ""
}

// routed takes from the route which tool, or which MCP server, the request is
// for: one of them, and of its own kind.
func (d *Door) routed(ext map[string]string, c *call) bool {
	if id := ext[ContextServer]; id != "" {
		s, ok := d.cfg.Catalog.ServerByID(id)
		if !ok || s.MCP == nil || ext[ContextTool] != "" {
			return false
		}
		c.server = s
		return true
	}
	t, ok := d.cfg.Catalog.Tool(ext[ContextTool])
	if !ok || t.Server.MCP != nil {
		return false
	}
	c.tool, c.server = t, t.Server
	return true
}

// source is the address of who holds the connection to Envoy, without a port: what
// a client writes into x-forwarded-for is not looked at.
func source(req *authv3.CheckRequest) string {
	return req.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress()
}

// wanted is what the headers of a request are sorted by.
type wanted struct {
	credential        string                     // the header that the credential stands in
	all               []string                   // those of all tools
	declared          map[string]*catalog.Schema // inputs of the tool
	passAuthorization bool
	mcp               bool // the server speaks MCP
}

// headers is what the request's headers say.
type headers struct {
	declared      map[string]string   // the tool's own, present
	mcp           map[string][]string // all that a message is read with; nil of an HTTP tool
	contentType   []string
	encoded       bool // any content-encoding
	length        string
	partial       bool
	remove        []string // what must not reach the tool; sorted
	bad           string   // what is wrong with them
	credentials   []string // in the tool's credential header
	misplaced     string   // another tool's credential header that is there
	authorization []string // that header, where it is not the credential's
}

// readHeaders sorts the request's headers: what is the credential, what the tool
// declares, what passes, and what must go. (What of MCP's own goes on to the
// server, the message says: until then, all of it goes.)
func readHeaders(list []*corev3.HeaderValue, in wanted) headers {
	var h headers
	if in.declared != nil {
		h.declared = make(map[string]string, len(in.declared))
	}
	if in.mcp {
		h.mcp = make(map[string][]string, len(list))
	}
	for _, hv := range list {
		name, value := hv.GetKey(), string(hv.GetRawValue())
		if len(hv.GetRawValue()) == 0 {
			value = hv.GetValue()
		}
		if in.mcp && name != in.credential && name != "authorization" {
			h.mcp[name] = append(h.mcp[name], value)
		}
		own := false // authorization that the tool gets
		switch {
		case name == ":authority" && strings.Contains(value, ","):
			h.bad = "the host came twice" // RFC 9112, Section 3.2; Envoy joins them
			continue
		case strings.HasPrefix(name, ":"):
			continue
		case name == in.credential:
			h.credentials = append(h.credentials, value)
			h.remove = append(h.remove, name)
			continue
		case name == "authorization":
			h.authorization = append(h.authorization, value)
			own = in.passAuthorization
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
		if _, ok := in.declared[name]; ok {
			if _, twice := h.declared[name]; twice {
				h.bad = "header " + strconv.Quote(name) + " came twice"
			}
			h.declared[name] = value
		} else if !own && !passed[name] && !strings.HasPrefix(name, "x-envoy-") { // those are Envoy's to strip
			if slices.Contains(in.all, name) {
				h.misplaced = name
			}
			h.remove = append(h.remove, name)
			continue
		}
		// Beyond ASCII a header has no one reading (RFC 9110, Section 5.5).
		if strings.ContainsFunc(value, func(r rune) bool { return r >= 0x7f || r < 0x20 && r != '\t' }) {
			h.bad = "header " + strconv.Quote(name) + " is not plain ASCII"
		}
	}
	slices.Sort(h.remove)
	h.remove = slices.Compact(h.remove)
	return h
}
