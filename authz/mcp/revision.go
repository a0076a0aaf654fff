package mcp

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

func legacy(revision string) bool { return revision < Rev20260728 }

// revision finds by which revision's rules the message is read, and whether the
// server may be spoken to in it.
//
// Until 2025-11-25 a session begins with an initialize, whose revision is but an
// offer: SDK clients send it without the header (Go, Python 1.x and 2.x,
// TypeScript), with a protocolVersion that the server may never have heard of,
// and the server negotiates down. So any server with a legacy revision takes an
// initialize without the header. From then on all of those clients send the
// revision that was agreed on, with notifications, GET and DELETE too. Without a
// header is then only what speaks 2025-03-26, the one revision that does not
// know it, and a server that has not that one says what is missing (MCP
// 2026-07-28, Streamable HTTP, "Protocol Version Header").
func (r *reader) revision() *Refusal {
	head, there := r.header(headerRevision)
	meta, inBody := r.meta[metaRevision]
	said, text := meta.(string)
	initialize := r.msg.Method.Name == "initialize"
	switch {
	case inBody && !text:
		return malformed(CodeParams, `_meta["`+metaRevision+`"] must be a string`)
	case inBody && !there:
		return mismatch("header mcp-protocol-version is missing, but _meta states a revision: send both")
	case inBody && said != head:
		return mismatch("header mcp-protocol-version is not the revision that _meta states")
	case there && r.msg.Method.Kind == Verb && slices.Contains(Revisions(), head) && !legacy(head):
		return noVerb("since 2026-07-28 there is neither GET nor DELETE: use subscriptions/listen for a stream")
	case there && !slices.Contains(r.server.Revisions, head):
		return r.noRevision(head)
	case there && !legacy(head) && r.msg.Method.Kind == Request && !inBody:
		return malformed(CodeParams, `_meta["`+metaRevision+`"] is missing: each request has it since 2026-07-28`)
	case there:
		r.msg.Revision = head
	case initialize && !slices.ContainsFunc(r.server.Revisions, legacy):
		offer, _ := r.params["protocolVersion"].(string)
		return r.noRevision(offer)
	case initialize || slices.Contains(r.server.Revisions, Rev20250326):
		r.msg.Revision = Rev20250326
	default:
		return mismatch("header mcp-protocol-version is missing: without it a message is one of %s, in which this server is not spoken to; "+
			"send the revision that was agreed on", Rev20250326)
	}
	return nil
}

func (r *reader) noRevision(requested string) *Refusal {
	if len(requested) > len(Rev20260728) || wrongHeader([]string{requested}) != "" {
		requested = ""
	}
	return &Refusal{
		Why: BadRevision, Status: http.StatusBadRequest, Code: CodeUnsupported,
		Detail:    fmt.Sprintf("the server is not spoken to in this revision, but in %s", strings.Join(r.server.Revisions, ", ")),
		Supported: slices.Clone(r.server.Revisions), Requested: requested,
	}
}

// method checks that the revision has the method, and that Mcp-Method says the
// same: it must be there on requests since 2026-07-28 (Streamable HTTP, "Standard
// Request Headers").
func (r *reader) method() *Refusal {
	m := r.msg.Method
	if !m.In(r.msg.Revision) {
		return noMethod(m.Name, fmt.Sprintf("revision %s has no %s", r.msg.Revision, m.Name))
	}
	head, there := r.header(headerMethod)
	switch {
	case there && (m.Kind == Response || m.Kind == Verb):
		return mismatch("header mcp-method is there, but the request has no method: leave it away")
	case there && head != m.Name:
		return mismatch("header mcp-method is not the method of the message")
	case !there && m.Kind == Request && r.msg.Modern():
		return mismatch("header mcp-method is missing: it repeats the method of the message")
	}
	return nil
}
