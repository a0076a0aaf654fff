package mcp

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The request headers of MCP's own, as Header has them.
const (
	headerRevision = "mcp-protocol-version"
	headerMethod   = "mcp-method"
	headerName     = "mcp-name"
	headerParam    = "mcp-param-" // and what x-mcp-header says
	headerSession  = "mcp-session-id"
	headerEvent    = "last-event-id"
	headerPrefix   = "mcp-"
)

// place checks by which name the server was called, and by whose page. Names
// that others control, and origins, are what DNS rebinding needs (MCP
// 2026-07-28, Streamable HTTP, "Security & Endpoint").
func (r *reader) place() *Refusal {
	hosts, origins := r.in.Header[":authority"], r.in.Header["origin"]
	if len(hosts) != 1 || !r.allowedHost(hosts[0]) {
		return atHTTP(Foreign, http.StatusForbidden,
			"the host is none by which this server may be called: use the resource's own, or add it to the catalogue's hosts")
	}
	if len(origins) > 1 || len(origins) == 1 && !slices.Contains(r.server.Origins, origins[0]) {
		return atHTTP(Foreign, http.StatusForbidden,
			"pages of this origin may not call the server: add it to the catalogue's origins if they may")
	}
	return nil
}

// allowedHost accepts the server's names, localhost and address literals, with
// or without a port. An address is no name that another could point elsewhere.
func (r *reader) allowedHost(authority string) bool {
	host := authority
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		if n, err := strconv.ParseUint(authority[i+1:], 10, 16); err != nil || n == 0 {
			return false
		}
		host = authority[:i]
	}
	if six, ok := strings.CutPrefix(host, "["); ok {
		six, ok = strings.CutSuffix(six, "]")
		addr, err := netip.ParseAddr(six)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Is4()
	}
	host = strings.ToLower(host)
	return host == "localhost" || slices.Contains(r.server.Hosts, host)
}

// steering are the headers beside MCP's own that change what a server reads.
var steering = []string{"content-type", "content-encoding", "content-length", "accept", headerEvent}

// once refuses what HTTP libraries read differently: a query, which MCP does not
// have, and a header that came twice, of which one reader takes the first and
// another the last, or that is not plain text. Those of MCP's own are looked at
// by plain, when the id is known.
func (r *reader) once() *Refusal {
	if r.in.Query != "" {
		return malformed(CodeInvalid, "MCP's endpoint has no query: leave it away")
	}
	for _, name := range steering {
		if wrong := wrongHeader(r.in.Header[name]); wrong != "" {
			return malformed(CodeInvalid, "header %s %s", name, wrong)
		}
	}
	return nil
}

// plain is once for MCP's own headers.
func (r *reader) plain() *Refusal {
	for _, name := range slices.Sorted(maps.Keys(r.in.Header)) {
		if strings.HasPrefix(name, headerPrefix) {
			if wrong := wrongHeader(r.in.Header[name]); wrong != "" {
				return mismatch("header %s %s", quote(name), wrong)
			}
		}
	}
	return nil
}

// wrongHeader says what is wrong with a header's values; "" if nothing is.
func wrongHeader(values []string) string {
	if len(values) > 1 {
		return "came more than once"
	}
	// RFC 9110, Section 5.5: beyond ASCII a header has no one reading.
	for _, v := range values {
		if strings.ContainsFunc(v, func(c rune) bool { return (c < ' ' || c > '~') && c != '\t' }) {
			return "is not visible ASCII and blanks: encode the value as =?base64?…?="
		}
	}
	return ""
}

// header gives a header that is there at most once, as once and plain have seen.
func (r *reader) header(name string) (value string, there bool) {
	values := r.in.Header[name]
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// coding checks that the body is JSON as it is.
func (r *reader) coding() *Refusal {
	if _, there := r.header("content-encoding"); there {
		return atHTTP(Encoding, http.StatusUnsupportedMediaType, "a content-encoding is not read: send the body as it is")
	}
	if typ, _ := r.header("content-type"); !IsJSON(typ) {
		return atHTTP(Encoding, http.StatusUnsupportedMediaType, "the body's content-type is application/json, in UTF-8")
	}
	return nil
}

// IsJSON accepts application/json, alone or with charset=utf-8, and nothing
// else: a server may decode by a parameter that another parser overlooks
// (charset*=, RFC 8187).
func IsJSON(contentType string) bool {
	typ, param, has := strings.Cut(strings.ToLower(contentType), ";")
	if strings.Trim(typ, " \t") != "application/json" {
		return false
	}
	switch strings.Trim(param, " \t") {
	case "charset=utf-8", `charset="utf-8"`:
		return true
	}
	return !has
}

// resume is the method of a GET that goes on with a stream (2025-03-26 to
// 2025-11-25, Transports, "Resumability and Redelivery").
const resume = "resume"

// bare reads a GET or DELETE, which is no message.
func (r *reader) bare() *Refusal {
	if len(r.in.Body) > 0 {
		return malformed(CodeInvalid, "GET and DELETE have no body")
	}
	if !slices.ContainsFunc(r.server.Revisions, legacy) {
		return noVerb("the server has no revision with GET or DELETE: use subscriptions/listen for a stream")
	}
	name := r.in.Verb
	if event, there := r.header(headerEvent); there && name == http.MethodGet {
		// What an empty one means, a server may see either way.
		if strings.Trim(event, " \t") == "" {
			return malformed(CodeInvalid, "header last-event-id is empty: leave it away for a new stream")
		}
		name = resume
	}
	r.msg.Method, _ = Lookup(name, Verb)
	return nil
}

const maxSession = 256 // bytes; of SDKs none makes more than 64

// session reads the session's id, which has visible ASCII characters alone
// (2025-03-26 to 2025-11-25, Transports, "Session Management"). Since 2026-07-28
// one that is there is to be ignored.
func (r *reader) session() *Refusal {
	id, there := r.header(headerSession)
	if !there || r.msg.Modern() {
		return nil
	}
	if id == "" || len(id) > maxSession || strings.ContainsAny(id, " \t") {
		return mismatch("header mcp-session-id is not of 1 to %d visible ASCII characters: open a new session", maxSession)
	}
	r.msg.Session = id
	return nil
}

// pass notes which of MCP's headers the server may see.
func (r *reader) pass() {
	for _, name := range slices.Sorted(maps.Keys(r.in.Header)) {
		switch {
		case name == headerRevision, name == headerMethod, name == headerName, r.mirrors(name),
			name == headerSession && !r.msg.Modern(),
			name == headerEvent && r.msg.Method.Name == resume:
			r.msg.headers = append(r.msg.headers, name)
		}
	}
}

// mirrors reports whether the header repeats an argument of the tool that is
// called.
func (r *reader) mirrors(name string) bool {
	param, ok := strings.CutPrefix(name, headerParam)
	return ok && slices.ContainsFunc(r.tool.Headers, func(h Header) bool { return h.Name == param })
}
