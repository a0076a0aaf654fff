package mcp

import "strings"

// readCall reads a tools/call, and what it calls in turn. A tool that the
// catalogue does not have is not refused here: the decision denies it.
func (r *reader) readCall() *Refusal {
	name := r.params["name"].(string)
	arguments, _ := r.params["arguments"].(map[string]any)
	r.tool, r.known = r.server.Tool(name)
	if no := r.readTask(); no != nil {
		return no
	}
	if arguments == nil {
		arguments = map[string]any{}
	}
	call := Call{Name: name, Arguments: arguments}
	for {
		r.msg.Calls = append(r.msg.Calls, call)
		tool, known := r.server.Tool(call.Name)
		if !known || tool.Inner == nil {
			return nil
		}
		if len(r.msg.Calls) == MaxInner {
			return malformed(CodeParams, "over %d tools, each named in the arguments of the other", MaxInner)
		}
		var no *Refusal
		if call, no = tool.Inner.call(call.Arguments); no != nil {
			return no
		}
	}
}

// readTask reads params.task, by which 2025-11-25 asks that the call be run as a
// task (Tasks, "Task-Augmented Requests"). Its result is fetched later, so that
// the catalogue has to allow it for the tool.
func (r *reader) readTask() *Refusal {
	task, there := r.params["task"].(map[string]any)
	if !there {
		return nil
	}
	if r.known && !r.tool.Tasks {
		return malformed(CodeParams, "calls of this tool may not become tasks: leave params.task away, or have the catalogue say tasks: true")
	}
	r.msg.AsTask = true
	return check(task, "params.task", map[string]shape{"ttl": anInteger}, nil)
}

// call reads which tool the arguments of a meta-tool name.
func (in *Inner) call(arguments map[string]any) (Call, *Refusal) {
	v, _, _ := walk(arguments, in.Tool)
	inner, ok := v.(string)
	if !ok || inner == "" {
		return Call{}, malformed(CodeParams, "the arguments name no tool where the catalogue says that this one takes it: /%s", strings.Join(in.Tool, "/"))
	}
	call := Call{Name: inner, Arguments: map[string]any{}}
	if len(in.Arguments) == 0 {
		return call, nil
	}
	v, there, blocked := walk(arguments, in.Arguments)
	if !there && !blocked {
		return call, nil
	}
	if call.Arguments, ok = v.(map[string]any); !ok {
		return Call{}, malformed(CodeParams, "the inner tool's arguments must be an object: /%s", strings.Join(in.Arguments, "/"))
	}
	return call, nil
}
