package mcp

import "slices"

// The revisions of MCP that are known, oldest first. A revision is compared as a
// text: it is a date.
const (
	Rev20250326 = "2025-03-26"
	Rev20250618 = "2025-06-18"
	Rev20251125 = "2025-11-25"
	Rev20260728 = "2026-07-28" // no sessions and no initialize: each request says its revision
)

// Revisions returns all known revisions, oldest first.
func Revisions() []string { return []string{Rev20250326, Rev20250618, Rev20251125, Rev20260728} }

// Kind is the form in which a method comes.
type Kind uint8

// The kinds.
const (
	Request      Kind = iota + 1 // POST of a JSON-RPC request: it has an id
	Notification                 // POST of a JSON-RPC notification: it has none
	Response                     // POST of a client's answer to a request of the server's; none since 2026-07-28
	Verb                         // no message: HTTP GET or DELETE; none since 2026-07-28
)

// ParamType is how policy sees a parameter.
type ParamType uint8

// The types of parameters.
const (
	Text  ParamType = iota + 1 // a string
	Texts                      // a set of strings
	Pairs                      // a set of {name, value}, both strings: a JSON object of strings
	Truth                      // a boolean
)

// Param is a parameter as policy sees it: a member of the action's input.
type Param struct {
	Name     string
	Type     ParamType
	Optional bool // absent where the message has none
}

// Method is one thing that a client can ask of an MCP server.
type Method struct {
	Name    string   // as JSON-RPC has it; "GET", "resume", "DELETE" and "response" for what is no request
	Kind    Kind     //
	Since   string   // first revision that has it
	Until   string   // last one; "": none has dropped it
	Members []string // all that its params may have, beside _meta and what Retry adds; what else is there is refused
	Require []string // what of them must be there
	Input   []Param  // what of it policy sees; the rest of Members steers the protocol, see methods
	Subject string   // the one of Input that says which resource it is about; "": the server as a whole
	Grant   bool     // a grant can cover it: policy sees the grant of the token that it comes with
	Retry   bool     // it may be a multi-round-trip retry: inputResponses and requestState, since 2026-07-28
	Stream  bool     // its answer is a stream that goes on after the check
}

// ToolsCall is the one method that has no action of its own: a call is
// call:SERVER/TOOL, for each tool that it names.
const ToolsCall = "tools/call"

// ActionPrefix begins the Cedar action of a method: "mcp:resources/read".
const ActionPrefix = "mcp:"

// Action is the method's Cedar action; "" for tools/call.
func (m *Method) Action() string {
	if m.Name == ToolsCall {
		return ""
	}
	return ActionPrefix + m.Name
}

// In reports whether the revision has the method.
func (m *Method) In(revision string) bool {
	return revision >= m.Since && (m.Until == "" || revision <= m.Until)
}

// Methods returns the whole table, in the order in which it is documented. What
// is not in it is denied, whatever policy says.
func Methods() []*Method { return slices.Clone(methods) }

// Lookup finds a method by its name and kind.
func Lookup(name string, kind Kind) (*Method, bool) {
	for _, m := range methods {
		if m.Name == name && m.Kind == kind {
			return m, true
		}
	}
	return nil, false
}

// methods is the table. Members that are in no Input steer the protocol and not
// what is done, so that policy does not see them:
//
//	cursor                                       of a paged list: opaque
//	protocolVersion, capabilities, clientInfo    of initialize: what the client can do, and calls itself
//	requestId, reason                            of notifications/cancelled
//	progressToken, progress, total, message      of notifications/progress
//	task                                         of tools/call: see Message.AsTask
//	all but taskId                               of notifications/tasks/status
var methods = []*Method{
	// What start-up needs: baseline in the policies that come with the program.
	{Name: "initialize", Kind: Request, Since: Rev20250326, Until: Rev20251125,
		Members: []string{"protocolVersion", "capabilities", "clientInfo"},
		Require: []string{"protocolVersion", "capabilities", "clientInfo"}},
	{Name: "server/discover", Kind: Request, Since: Rev20260728},
	{Name: "ping", Kind: Request, Since: Rev20250326, Until: Rev20251125},
	{Name: "tools/list", Kind: Request, Since: Rev20250326, Members: []string{"cursor"}},
	{Name: "notifications/initialized", Kind: Notification, Since: Rev20250326, Until: Rev20251125},
	{Name: "notifications/cancelled", Kind: Notification, Since: Rev20250326, Members: []string{"requestId", "reason"},
		Require: []string{"requestId"}},
	{Name: "notifications/progress", Kind: Notification, Since: Rev20250326,
		Members: []string{"progressToken", "progress", "total", "message"},
		Require: []string{"progressToken", "progress"}},
	{Name: "notifications/roots/list_changed", Kind: Notification, Since: Rev20250326, Until: Rev20251125},

	{Name: ToolsCall, Kind: Request, Since: Rev20250326, Members: []string{"name", "arguments", "task"},
		Require: []string{"name"},
		Subject: "name", Grant: true, Retry: true},

	// What reads.
	{Name: "resources/list", Kind: Request, Since: Rev20250326, Members: []string{"cursor"}, Grant: true},
	{Name: "resources/templates/list", Kind: Request, Since: Rev20250326, Members: []string{"cursor"}, Grant: true},
	{Name: "resources/read", Kind: Request, Since: Rev20250326, Members: []string{"uri"},
		Require: []string{"uri"},
		Input:   []Param{{Name: "uri", Type: Text}}, Subject: "uri", Grant: true, Retry: true},
	{Name: "resources/subscribe", Kind: Request, Since: Rev20250326, Until: Rev20251125, Members: []string{"uri"},
		Require: []string{"uri"},
		Input:   []Param{{Name: "uri", Type: Text}}, Subject: "uri", Grant: true},
	{Name: "resources/unsubscribe", Kind: Request, Since: Rev20250326, Until: Rev20251125, Members: []string{"uri"},
		Require: []string{"uri"},
		Input:   []Param{{Name: "uri", Type: Text}}, Subject: "uri", Grant: true},
	{Name: "prompts/list", Kind: Request, Since: Rev20250326, Members: []string{"cursor"}, Grant: true},
	{Name: "prompts/get", Kind: Request, Since: Rev20250326, Members: []string{"name", "arguments"},
		Require: []string{"name"},
		Input:   []Param{{Name: "name", Type: Text}, {Name: "arguments", Type: Pairs}}, Subject: "name", Grant: true, Retry: true},
	{Name: "completion/complete", Kind: Request, Since: Rev20250326, Members: []string{"ref", "argument", "context"},
		Require: []string{"ref", "argument"},
		Input: []Param{
			{Name: "ref_type", Type: Text}, // ref/prompt or ref/resource
			{Name: "ref", Type: Text},      // the prompt's name, or the resource's URI (template)
			{Name: "argument", Type: Text}, {Name: "value", Type: Text},
			{Name: "arguments", Type: Pairs}, // context.arguments
		}, Subject: "ref", Grant: true},
	{Name: "logging/setLevel", Kind: Request, Since: Rev20250326, Until: Rev20251125, Members: []string{"level"},
		Require: []string{"level"},
		Input:   []Param{{Name: "level", Type: Text}}, Grant: true},

	// Tasks of the server's: in the core of 2025-11-25, an extension since
	// 2026-07-28 (io.modelcontextprotocol/tasks). Bound to the agent and the
	// grant that started them, whatever policy says.
	{Name: "tasks/get", Kind: Request, Since: Rev20251125, Members: []string{"taskId"},
		Require: []string{"taskId"},
		Input:   []Param{{Name: "task", Type: Text}}, Subject: "task", Grant: true},
	{Name: "tasks/result", Kind: Request, Since: Rev20251125, Until: Rev20251125, Members: []string{"taskId"},
		Require: []string{"taskId"},
		Input:   []Param{{Name: "task", Type: Text}}, Subject: "task", Grant: true, Stream: true},
	{Name: "tasks/cancel", Kind: Request, Since: Rev20251125, Members: []string{"taskId"},
		Require: []string{"taskId"},
		Input:   []Param{{Name: "task", Type: Text}}, Subject: "task", Grant: true},
	{Name: "tasks/update", Kind: Request, Since: Rev20260728, Members: []string{"taskId"},
		Require: []string{"taskId", "inputResponses"},
		Input:   []Param{{Name: "task", Type: Text}}, Subject: "task", Grant: true, Retry: true},
	{Name: "tasks/list", Kind: Request, Since: Rev20251125, Until: Rev20251125, Members: []string{"cursor"}, Grant: true},
	{Name: "notifications/tasks/status", Kind: Notification, Since: Rev20251125, Until: Rev20251125,
		Members: []string{"taskId", "status", "statusMessage", "createdAt", "lastUpdatedAt", "ttl", "pollInterval"},
		Require: []string{"taskId", "status"},
		Input:   []Param{{Name: "task", Type: Text}}, Subject: "task"},

	// What goes on, and what answers the server.
	{Name: "subscriptions/listen", Kind: Request, Since: Rev20260728, Members: []string{"notifications"},
		Require: []string{"notifications"},
		Input: []Param{
			{Name: "tools", Type: Truth}, {Name: "prompts", Type: Truth}, {Name: "resources", Type: Truth}, // ...ListChanged
			{Name: "uris", Type: Texts},  // resourceSubscriptions
			{Name: "tasks", Type: Texts}, // taskIds
		}, Grant: true, Stream: true},
	{Name: "GET", Kind: Verb, Since: Rev20250326, Until: Rev20251125, Grant: true, Stream: true},
	// A GET with Last-Event-ID: what a stream has already carried is sent again, also
	// of another request's stream.
	{Name: resume, Kind: Verb, Since: Rev20250326, Until: Rev20251125, Grant: true, Stream: true},
	{Name: "DELETE", Kind: Verb, Since: Rev20250326, Until: Rev20251125, Grant: true},
	// result is the RFC 8785 text of an answer's result; an error has none.
	{Name: "response", Kind: Response, Since: Rev20250326, Until: Rev20251125,
		Input: []Param{{Name: "result", Type: Text, Optional: true}}, Grant: true},
}
