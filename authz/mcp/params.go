package mcp

import (
	"fmt"
	"maps"
	"slices"

	"github.com/toolgrant/toolgrant/strictjson"
)

// shape is what a member of params has to be.
type shape struct {
	words string // "… must be WORDS"
	is    func(v any) bool
}

var (
	anObject  = shape{"an object", func(v any) bool { _, ok := v.(map[string]any); return ok }}
	aText     = shape{"a string", func(v any) bool { _, ok := v.(string); return ok }}
	aName     = shape{"a string that is not empty", func(v any) bool { s, ok := v.(string); return ok && s != "" }}
	aNumber   = shape{"a number", func(v any) bool { _, ok := v.(strictjson.Number); return ok }}
	anInteger = shape{"a whole number", isInteger}
	anID      = shape{"a string or a whole number", isID}
	aTruth    = shape{"true or false", func(v any) bool { _, ok := v.(bool); return ok }}
	someTexts = shape{"an array of strings", isTexts}
)

// shapes has every member that any params can have: each is of one shape in all
// methods.
var shapes = map[string]shape{
	"_meta":  anObject,
	"cursor": aText,
	// initialize
	"protocolVersion": aText, "capabilities": anObject, "clientInfo": anObject,
	// notifications
	"requestId": anID, "reason": aText,
	"progressToken": anID, "progress": aNumber, "total": aNumber, "message": aText,
	"status": aText, "statusMessage": aText, "createdAt": aText, "lastUpdatedAt": aText, "pollInterval": aNumber,
	"ttl": {"a number or null", func(v any) bool { return v == nil || aNumber.is(v) }},
	// tools, prompts, resources, tasks
	"name": aName, "uri": aName, "taskId": aName, "arguments": anObject, "task": anObject,
	"ref": anObject, "argument": anObject, "context": anObject,
	"level":         {"a level of RFC 5424", func(v any) bool { s, ok := v.(string); return ok && slices.Contains(levels, s) }},
	"notifications": anObject,
	// retries
	"inputResponses": {"an object of objects", isObjects}, "requestState": aText,
}

// levels are those of logging/setLevel (2025-03-26 and on, LoggingLevel).
var levels = []string{"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"}

func isTexts(v any) bool {
	list, ok := v.([]any)
	return ok && !slices.ContainsFunc(list, func(v any) bool { return !aText.is(v) })
}

func isObjects(v any) bool {
	obj, ok := v.(map[string]any)
	for _, member := range obj {
		ok = ok && anObject.is(member)
	}
	return ok
}

// check refuses members of an object that the form does not have, that are of
// another shape, or that are missing.
func check(obj map[string]any, where string, form map[string]shape, require []string) *Refusal {
	for _, member := range slices.Sorted(maps.Keys(obj)) {
		s, ok := form[member]
		if !ok {
			return malformed(CodeParams, "%s has no member %s in this method and revision: leave it away", where, quote(member))
		}
		if !s.is(obj[member]) {
			return malformed(CodeParams, "%s.%s must be %s", where, member, s.words)
		}
	}
	for _, member := range require {
		if _, ok := obj[member]; !ok {
			return malformed(CodeParams, "%s.%s is missing", where, member)
		}
	}
	return nil
}

// readParams checks params, and takes from them what policy sees.
func (r *reader) readParams() *Refusal {
	m := r.msg.Method
	if m.Kind == Response {
		return nil
	}
	form := map[string]shape{"_meta": anObject}
	for _, member := range m.Members {
		form[member] = shapes[member]
	}
	if m.Retry && r.msg.Modern() {
		form["inputResponses"], form["requestState"] = shapes["inputResponses"], shapes["requestState"]
	}
	if m.Name == ToolsCall && r.msg.Revision != Rev20251125 {
		delete(form, "task")
	}
	if no := check(r.params, "params", form, m.Require); no != nil {
		return no
	}
	if no := r.readRetry(); no != nil {
		return no
	}
	if uri, ok := r.params["uri"].(string); ok {
		if no := checkURI(uri, "params.uri"); no != nil {
			return no
		}
	}
	if task, ok := r.params["taskId"].(string); ok {
		r.msg.Tasks = append(r.msg.Tasks, task)
	}
	switch m.Name {
	case ToolsCall:
		return r.readCall()
	case "prompts/get":
		return r.readPrompt()
	case "completion/complete":
		return r.readCompletion()
	case "subscriptions/listen":
		return r.readListen()
	}
	for _, p := range m.Input {
		member := p.Name
		if member == "task" {
			member = "taskId"
		}
		r.msg.Input[p.Name] = r.params[member]
	}
	return nil
}

// readRetry reads what a retry brings (2026-07-28, "Multi Round-Trip Requests").
// check has let it through where the method may have it.
func (r *reader) readRetry() *Refusal {
	responses, has := r.params["inputResponses"]
	_, state := r.params["requestState"]
	if !has && !state {
		return nil
	}
	r.msg.Retry = &Retry{State: state}
	if has {
		text, err := strictjson.Canonical(responses)
		if err != nil {
			return malformed(CodeParams, "params.inputResponses: %v", err)
		}
		r.msg.Retry.Responses = string(text)
	}
	return nil
}

func (r *reader) readPrompt() *Refusal {
	list, no := pairs(r.params["arguments"], "params.arguments")
	r.msg.Input["name"], r.msg.Input["arguments"] = r.params["name"], list
	return no
}

// readCompletion reads completion/complete. ref.title, which is for people, is
// the one member of it that policy does not see (2025-06-18, BaseMetadata).
func (r *reader) readCompletion() *Refusal {
	ref, argument := r.params["ref"].(map[string]any), r.params["argument"].(map[string]any)
	of := map[string]string{"ref/prompt": "name", "ref/resource": "uri"}
	typ, _ := ref["type"].(string)
	key, ok := of[typ]
	if !ok {
		return malformed(CodeParams, "params.ref.type must be ref/prompt or ref/resource")
	}
	form := map[string]shape{"type": aText, key: aName}
	if typ == "ref/prompt" {
		form["title"] = aText
	}
	if no := check(ref, "params.ref", form, []string{key}); no != nil {
		return no
	}
	if typ == "ref/resource" {
		if no := checkTemplate(ref[key].(string), "params.ref.uri"); no != nil {
			return no
		}
	}
	both := []string{"name", "value"}
	if no := check(argument, "params.argument", map[string]shape{"name": aName, "value": aText}, both); no != nil {
		return no
	}
	context, _ := r.params["context"].(map[string]any)
	if no := check(context, "params.context", map[string]shape{"arguments": anObject}, nil); no != nil {
		return no
	}
	list, no := pairs(context["arguments"], "params.context.arguments")
	r.msg.Input = map[string]any{
		"ref_type": typ, "ref": ref[key], "argument": argument["name"], "value": argument["value"], "arguments": list,
	}
	return no
}

// readListen reads subscriptions/listen (2026-07-28, SubscriptionFilter; taskIds
// is of the tasks extension).
func (r *reader) readListen() *Refusal {
	filter := r.params["notifications"].(map[string]any)
	form := map[string]shape{
		"toolsListChanged": aTruth, "promptsListChanged": aTruth, "resourcesListChanged": aTruth,
		"resourceSubscriptions": someTexts, "taskIds": someTexts,
	}
	if no := check(filter, "params.notifications", form, nil); no != nil {
		return no
	}
	for input, member := range map[string]string{"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"} {
		r.msg.Input[input] = filter[member] == true
	}
	for input, member := range map[string]string{"uris": "resourceSubscriptions", "tasks": "taskIds"} {
		list, _ := filter[member].([]any)
		r.msg.Input[input] = append([]any{}, list...)
	}
	for i, uri := range r.msg.Input["uris"].([]any) {
		if no := checkURI(uri.(string), fmt.Sprintf("params.notifications.resourceSubscriptions[%d]", i)); no != nil {
			return no
		}
	}
	for _, task := range r.msg.Input["tasks"].([]any) {
		r.msg.Tasks = append(r.msg.Tasks, task.(string))
	}
	return nil
}

// pairs gives an object of strings as policy sees it: {name, value}, sorted by
// name. nil has none.
func pairs(v any, where string) ([]any, *Refusal) {
	obj, _ := v.(map[string]any)
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(obj)) {
		if !aText.is(obj[name]) {
			return nil, malformed(CodeParams, "%s must have strings alone", where)
		}
		list = append(list, map[string]any{"name": name, "value": obj[name]})
	}
	return list, nil
}
