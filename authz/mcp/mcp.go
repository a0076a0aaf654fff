// Package mcp reads what a client sends to an MCP server (Model Context
// Protocol, Streamable HTTP, revisions 2025-03-26 to 2026-07-28), so that a
// decision can be made on exactly what the server will run.
//
// It is pure: Read goes from headers and body to a Message, or to a Refusal. It
// knows no policy, no grant and no agent.
//
// Invariants of a Message that Read has returned:
//   - the body was one JSON object that every parser reads alike (strictjson),
//     with no member that its form does not have;
//   - its method is in the table (Methods) and in the revision that it came in;
//   - what headers say of it (MCP-Protocol-Version, Mcp-Method, Mcp-Name,
//     Mcp-Param-*) is what the body says;
//   - a URI in it is in the one form that all parsers leave as it is;
//   - of a tools/call, Calls has every tool that it would run, the inner ones of
//     meta-tools too.
package mcp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// HTTPRequest is what came.
type HTTPRequest struct {
	Verb   string              // HTTP method
	Query  string              // behind the "?"
	Header map[string][]string // lower-case name -> values, in their order; ":authority" for the host
	Body   []byte
}

// Server is what has to be known of the server.
type Server struct {
	Revisions []string // that it may be spoken to in; sorted; never empty
	Hosts     []string // names by which it may be called, in lower case, without a port; address literals and localhost may always
	Origins   []string // web origins whose pages may call it; mostly none
	// Tool is what the catalogue says of the tool that the server knows by name.
	Tool func(name string) (Tool, bool)
}

// Tool is what has to be known of a tool.
type Tool struct {
	Headers []Header // arguments that are mirrored into Mcp-Param-* headers (x-mcp-header)
	Inner   *Inner   // of a meta-tool: where its arguments name another tool
	Tasks   bool     // calls may become tasks of the server's: params.task is let through
}

// Header is an argument that clients repeat in a header (MCP 2026-07-28,
// Streamable HTTP, "Custom Headers from Tool Parameters").
type Header struct {
	Name string   // behind "mcp-param-", in lower case
	Path []string // names of members, from the arguments down
	Type string   // string, integer or boolean
}

// Inner says where the arguments of a meta-tool name the tool that it calls, and
// where they hold that one's arguments: names of members, from the arguments
// down. A call without Arguments calls the inner tool with none.
type Inner struct {
	Tool, Arguments []string
}

// MaxInner bounds how many tools one call can name, each inside the other; the
// outermost counts.
const MaxInner = 8

// Call is one tool that a tools/call would run.
type Call struct {
	Name      string         // as the server knows it
	Arguments map[string]any // as strictjson gives them; never nil
}

// Message is what a client asks.
type Message struct {
	Method   *Method
	Revision string          // as the header says; 2025-03-26 where there is none (2025-06-18, "Protocol Version Header")
	ID       json.RawMessage // of a request: RFC 8785 text of a string or an integer; nil for none
	Calls    []Call          // of tools/call: the tool, and behind it what it calls; else empty
	Input    map[string]any  // of any other method: by Method.Input; strings, bools, []any of strings, []any of {name, value}; never nil
	Retry    *Retry          // of a multi-round-trip retry; nil: it is none
	Session  string          // Mcp-Session-Id; "" for none, and since 2026-07-28, which knows none
	Tasks    []string        // ids of the server's tasks that it is about
	AsTask   bool            // it asks to be run as a task (params.task)

	headers []string // see PassedHeaders
}

// Retry is what a multi-round-trip retry brings beside the parameters
// (MCP 2026-07-28, "Multi Round-Trip Requests").
type Retry struct {
	Responses string // RFC 8785 text of inputResponses; "": none
	State     bool   // it has a requestState, which is opaque, and the sender's
}

// Modern reports whether the message is of a revision without sessions.
func (m *Message) Modern() bool { return m.Revision >= Rev20260728 }

// PassedHeaders are those request headers of MCP's own that came and that the
// server may see, sorted: the ones that Read has compared with the body or put
// into the message, and of resume last-event-id, which says where a stream goes on.
// last-event-id of anything else, and all other mcp-* headers, have to be removed.
func PassedHeaders(m *Message) []string { return slices.Clone(m.headers) }

// Why is the kind of a Refusal.
type Why uint8

// The kinds of refusal.
const (
	Malformed   Why = iota + 1 // it can be read in more than one way, or in none
	Mismatch                   // headers and body disagree, or a header is missing
	TooLarge                   // over a bound of the parser's
	Encoding                   // content type or coding
	BadVerb                    // an HTTP method that MCP does not have here
	BadRevision                // a revision that the server does not have
	NoMethod                   // not in the table, or not in this revision
	Foreign                    // host or origin
)

// JSON-RPC error codes (JSON-RPC 2.0, Section 5.1; MCP 2026-07-28, "Error
// Codes").
const (
	CodeParse       = -32700
	CodeInvalid     = -32600
	CodeNoMethod    = -32601
	CodeParams      = -32602
	CodeMismatch    = -32020 // HeaderMismatch
	CodeUnsupported = -32022 // UnsupportedProtocolVersion
)

// Refusal says why a request is refused, whoever sent it.
type Refusal struct {
	Why       Why
	Status    int             // HTTP
	Code      int             // JSON-RPC; the HTTP status where what is wrong is no message
	Detail    string          // what is wrong and what to mend; names of members may be in it, values never
	ID        json.RawMessage // of the request, where it could be read
	Supported []string        // of BadRevision: those that the server has
	Requested string          // of BadRevision; "" where it is no short visible text
	Asked     string          // of NoMethod: the method's name as it was sent, its first 64 bytes, for the audit; it may be any text
}

// reader is the reading of one request. Each step leaves what it has read for
// those behind it.
type reader struct {
	server Server
	in     HTTPRequest
	msg    *Message
	params map[string]any // of a request or notification; never nil
	meta   map[string]any // _meta of params or of a result; nil for none
	tool   Tool           // of a tools/call, where the catalogue knows it
	known  bool
}

// Read reads a request. Exactly one of its results is set.
//
// The body is read before any header of MCP's is believed: they are compared
// with it (MCP 2026-07-28, Streamable HTTP, "Server Validation"). Where the
// specification leaves it open, status and code are those of the Go SDK.
func Read(s Server, in HTTPRequest) (*Message, *Refusal) {
	r := &reader{server: s, in: in, msg: &Message{Input: map[string]any{}}, params: map[string]any{}}
	steps := []func() *Refusal{r.place}
	switch in.Verb {
	case http.MethodPost:
		steps = append(steps, r.once, r.coding, r.envelope, r.plain, r.revision, r.method, r.readParams, r.named, r.session)
	case http.MethodGet, http.MethodDelete:
		steps = append(steps, r.once, r.bare, r.plain, r.revision, r.method, r.named, r.session)
	default:
		steps = append(steps, func() *Refusal { return noVerb("MCP has POST, and GET and DELETE until 2025-11-25") })
	}
	for _, step := range steps {
		if no := step(); no != nil {
			no.ID = r.msg.ID
			return nil, no
		}
	}
	r.pass()
	return r.msg, nil
}

func malformed(code int, format string, args ...any) *Refusal {
	return &Refusal{Why: Malformed, Status: http.StatusBadRequest, Code: code, Detail: fmt.Sprintf(format, args...)}
}

func mismatch(format string, args ...any) *Refusal {
	return &Refusal{Why: Mismatch, Status: http.StatusBadRequest, Code: CodeMismatch, Detail: fmt.Sprintf(format, args...)}
}

// atHTTP is a refusal of what is no message yet.
func atHTTP(why Why, status int, detail string) *Refusal {
	return &Refusal{Why: why, Status: status, Code: status, Detail: detail}
}

func noVerb(detail string) *Refusal { return atHTTP(BadVerb, http.StatusMethodNotAllowed, detail) }
