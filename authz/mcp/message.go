package mcp

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/strictjson"
)

// Bounds on a message, beside those of strictjson.Limits.
const (
	maxDepth = 64
	maxID    = 256 // bytes of an id that is a string
	maxAsked = 64  // bytes of Refusal.Asked
)

// members are those of a JSON-RPC message.
var members = []string{"jsonrpc", "id", "method", "params", "result", "error"}

// envelope reads the body as one JSON-RPC message (JSON-RPC 2.0, Sections 4 and
// 5, as MCP narrows them: an id is a string or an integer, params are an object,
// and there are no batches, which 2025-03-26 alone had).
func (r *reader) envelope() *Refusal {
	v, err := strictjson.Parse(r.in.Body, strictjson.Limits{Depth: maxDepth})
	if err != nil {
		return r.unread(err)
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return malformed(CodeInvalid, "the body is no JSON object: send one message in a request, and no batch")
	}
	_, request := obj["method"]
	id, hasID := obj["id"]
	if hasID {
		text, ok := idText(id)
		if !ok {
			return malformed(CodeInvalid, "id must be a string of at most %d bytes, or a whole number within ±(2^53-1) in plain digits", maxID)
		}
		if request {
			r.msg.ID = text
		}
	}
	if hasProto(v) {
		return malformed(CodeInvalid, "a member is named __proto__, which some servers drop: name it differently")
	}
	if obj["jsonrpc"] != "2.0" {
		return malformed(CodeInvalid, `jsonrpc must be "2.0"`)
	}
	for _, name := range slices.Sorted(maps.Keys(obj)) {
		if !slices.Contains(members, name) {
			return malformed(CodeInvalid, "%s is no member of a JSON-RPC message: leave it away", quote(name))
		}
	}
	if request {
		return r.request(obj, hasID)
	}
	return r.response(obj, hasID)
}

// unread maps what the parser says. A text that no parser reads is another thing
// than one that they read differently; and one that is too deep, or of too many
// values, is not too long (RFC 9110, Section 15.5.14).
func (r *reader) unread(err error) *Refusal {
	var e *strictjson.Error
	if !errors.As(err, &e) {
		return malformed(CodeParse, "the body cannot be read")
	}
	switch e.Kind {
	case strictjson.TooLarge:
		no := malformed(CodeInvalid, "%s", e.Error())
		if no.Why = TooLarge; len(r.in.Body) > strictjson.DefaultBytes {
			no.Status = http.StatusRequestEntityTooLarge
		}
		return no
	case strictjson.Ambiguous:
		return malformed(CodeInvalid, "%s", e.Error())
	}
	return malformed(CodeParse, "%s", e.Error())
}

// request reads a request, or a notification, which is one without an id.
func (r *reader) request(obj map[string]any, hasID bool) *Refusal {
	name, ok := obj["method"].(string)
	if !ok {
		return malformed(CodeInvalid, "method must be a string")
	}
	for _, other := range []string{"result", "error"} {
		if _, there := obj[other]; there {
			return malformed(CodeInvalid, "a message with a method has no %s", other)
		}
	}
	kind := Notification
	if hasID {
		kind = Request
	}
	if r.msg.Method, ok = Lookup(name, kind); !ok {
		return noMethod(name, "MCP has no such method in this form: a request has an id, a notification has none")
	}
	if params, there := obj["params"]; there {
		if r.params, ok = params.(map[string]any); !ok {
			return malformed(CodeParams, "params must be an object")
		}
	}
	return r.readMeta(r.params, "params")
}

// response reads a client's answer to a request of the server's.
func (r *reader) response(obj map[string]any, hasID bool) *Refusal {
	result, hasResult := obj["result"]
	failure, hasError := obj["error"]
	if hasResult == hasError {
		return malformed(CodeInvalid, "a message has a method, or either a result or an error")
	}
	if _, there := obj["params"]; there || !hasID {
		return malformed(CodeInvalid, "an answer has an id, and no params")
	}
	r.msg.Method, _ = Lookup("response", Response)
	if hasError {
		return checkError(failure)
	}
	res, ok := result.(map[string]any)
	if !ok {
		return malformed(CodeInvalid, "result must be an object")
	}
	text, err := strictjson.Canonical(res)
	if err != nil {
		return malformed(CodeInvalid, "result: %v", err)
	}
	r.msg.Input["result"] = string(text)
	return r.readMeta(res, "result")
}

// checkError checks an error object (JSON-RPC 2.0, Section 5.1).
func checkError(v any) *Refusal {
	obj, ok := v.(map[string]any)
	n := 2
	if _, there := obj["data"]; there {
		n++
	}
	if _, text := obj["message"].(string); !ok || !text || !isInteger(obj["code"]) || len(obj) != n {
		return malformed(CodeInvalid, "error must be an object with a code, a whole number, a message, a string, and data or not")
	}
	return nil
}

// readMeta takes note of _meta and of what in it steers: the revision is left to
// revision, progress is the client's own, and a task is one of those that the
// message is about (2025-11-25, Tasks, "Associating Task-Related Messages").
func (r *reader) readMeta(of map[string]any, where string) *Refusal {
	v, there := of["_meta"]
	if !there {
		return nil
	}
	var ok bool
	if r.meta, ok = v.(map[string]any); !ok {
		return malformed(CodeParams, "%s._meta must be an object", where)
	}
	if token, there := r.meta["progressToken"]; there && !isID(token) {
		return malformed(CodeParams, "%s._meta.progressToken must be a string or a whole number", where)
	}
	if v, there := r.meta[metaTask]; there {
		related, _ := v.(map[string]any)
		id, ok := related["taskId"].(string)
		if !ok || id == "" || len(related) != 1 {
			return malformed(CodeParams, `%s._meta["`+metaTask+`"] must be an object with a taskId, a string, alone`, where)
		}
		r.msg.Tasks = append(r.msg.Tasks, id)
	}
	return nil
}

// The members of _meta that MCP reads.
const (
	metaRevision = "io.modelcontextprotocol/protocolVersion"
	metaTask     = "io.modelcontextprotocol/related-task"
)

// idText gives the text of an id. Numbers are let through in the one spelling
// that all print alike, so that what is echoed is what was sent.
func idText(v any) (json.RawMessage, bool) {
	if !isID(v) {
		return nil, false
	}
	text, err := strictjson.Canonical(v)
	return text, err == nil
}

func isID(v any) bool {
	s, ok := v.(string)
	return ok && len(s) <= maxID || isInteger(v)
}

// isInteger accepts an integer within ±(2^53-1) without fraction, exponent or
// minus zero.
func isInteger(v any) bool {
	n, ok := v.(strictjson.Number)
	i, whole := n.Int64()
	return ok && whole && strconv.FormatInt(i, 10) == string(n)
}

// hasProto reports whether an object has a member named __proto__. Parsers read
// it as any other, but what they give is often copied, and JavaScript's
// assignment makes it the copy's prototype, or its libraries leave it out (zod
// does, by which the TypeScript SDK reads params): Python's servers would then
// run something else.
func hasProto(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if name == "__proto__" || hasProto(member) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasProto)
	}
	return false
}

func noMethod(asked, detail string) *Refusal {
	if len(asked) > maxAsked {
		asked = strings.ToValidUTF8(asked[:maxAsked], "") // a character that was cut in two
	}
	return &Refusal{Why: NoMethod, Status: http.StatusForbidden, Code: CodeNoMethod, Detail: detail, Asked: asked}
}

// quote makes a sender's name of a member fit for a log line.
func quote(name string) string {
	const most = 64
	if len(name) > most {
		return strconv.QuoteToASCII(strings.ToValidUTF8(name[:most], "")) + "…"
	}
	return strconv.QuoteToASCII(name)
}
