package mcp

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/strictjson"
)

// named compares Mcp-Name and Mcp-Param-* with what they repeat of the params.
// Both must be there since 2026-07-28 (Streamable HTTP, "Standard Request
// Headers" and "Custom Headers from Tool Parameters"; tasks extension, "Routing
// Headers"); before it they need not, but may not say anything else either: who
// routes by them does not look at the revision.
func (r *reader) named() *Refusal {
	head, there := r.header(headerName)
	subject, has := r.subject()
	switch {
	case there && !has:
		return mismatch("header mcp-name is there, but this method names nothing: leave it away")
	case there && !says(head, subject):
		return mismatch("header mcp-name is not the name, uri or taskId of params")
	case !there && has && r.msg.Modern():
		return mismatch("header mcp-name is missing: it repeats the name, uri or taskId of params")
	}
	return r.mirrored()
}

// subject gives what Mcp-Name repeats.
func (r *reader) subject() (string, bool) {
	if len(r.msg.Calls) > 0 {
		return r.msg.Calls[0].Name, true
	}
	switch r.msg.Method.Subject {
	case "name", "uri", "task":
		text, ok := r.msg.Input[r.msg.Method.Subject].(string)
		return text, ok
	}
	return "", false
}

// mirrored compares Mcp-Param-* with the arguments of the tool that is called.
// Of a tool that the catalogue does not have it says nothing: nobody may call it.
func (r *reader) mirrored() *Refusal {
	call := r.msg.Method.Name == ToolsCall
	if call && !r.known {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(r.in.Header)) {
		if strings.HasPrefix(name, headerParam) && !r.mirrors(name) {
			return mismatch("header %s repeats no argument that the catalogue knows of: leave it away, or import the catalogue again", quote(name))
		}
	}
	if !call {
		return nil
	}
	for _, h := range r.tool.Headers {
		name := headerParam + h.Name
		head, there := r.header(name)
		v, _, _ := walk(r.msg.Calls[0].Arguments, h.Path)
		switch {
		case v == nil && there:
			return mismatch("header %s is there, but not the argument that it repeats", quote(name))
		case v == nil, !there && !r.msg.Modern():
		case !there:
			return mismatch("header %s is missing: it repeats an argument; list the tools again to see which", quote(name))
		case !equals(head, v, h.Type):
			return mismatch("header %s is not what the argument says, or the argument is no %s", quote(name), h.Type)
		}
	}
	return nil
}

// equals compares a header with the argument that it repeats: integers by value,
// so that 42.0 is 42 ("Server Validation").
func equals(head string, v any, typ string) bool {
	switch v := v.(type) {
	case string:
		return typ == "string" && says(head, v)
	case bool:
		return typ == "boolean" && (v && says(head, "true") || !v && says(head, "false"))
	case strictjson.Number:
		text, ok := decode(head)
		n := strictjson.Number(text)
		_, whole := v.Int64() // an integer that parsed is within ±(2^53-1), or no int64
		return typ == "integer" && ok && whole && n.Valid() && n.Compare(v) == 0
	}
	return false
}

func says(head, want string) bool {
	text, ok := decode(head)
	return ok && text == want
}

// decode reads a header that may be encoded ("Value Encoding"). Base64 has to be
// in the one form that an encoder makes. What it holds need not be looked at:
// only UTF-8 is equal to anything in a body.
func decode(head string) (string, bool) {
	inner, ok := strings.CutPrefix(head, "=?base64?")
	if !ok {
		return head, true
	}
	if inner, ok = strings.CutSuffix(inner, "?="); !ok {
		return head, true
	}
	text, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(text), err == nil
}

// walk goes from an object down by names of members. there: all of them were.
// blocked: it came to what is no object, and has no members.
func walk(from map[string]any, path []string) (v any, there, blocked bool) {
	v = from
	for _, name := range path {
		obj, ok := v.(map[string]any)
		if !ok {
			return nil, false, true
		}
		if v, ok = obj[name]; !ok {
			return nil, false, false
		}
	}
	return v, true, false
}
