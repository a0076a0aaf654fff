package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Call is one call that a task of a kind made.
type Call struct {
	Task   grants.ID
	Tool   string          // SERVER/TOOL
	Input  any             // as strictjson gives it; nil: not known
	Params json.RawMessage // of its task; nil: none
	// Without are the JSON Pointers (RFC 6901) of arguments that the call had and
	// Input has not: opaque or redacted ones; "" is all of them.
	Without []string
	// Redacted says that Input lacks arguments of the call, of which Without is
	// all that is known.
	Redacted bool
}

// Suggestion is a manifest that covers calls.
type Suggestion struct {
	YAML  string   // the text of a manifest; its comments say what was pinned and why
	Notes []string // what whoever reads it should know
}

// Suggest proposes the narrowest manifest of a kind that covers recorded calls:
// for each tool the most calls of a task; an argument that was always the same
// is pinned; one that was the same within each task is a parameter, or takes the
// few values that it had; numbers are bounded and, where a tool was called
// repeatedly, summed; texts are bounded in length. What all tasks were started
// with stays a parameter, whether an argument has it or not, so that such a task
// can be started again. What was not recorded, or is opaque, is free. A tool whose calls differ in which arguments they have gets
// any input, since a template has all of its arguments or none.
//
// The result has been parsed, and the parameters of every task and every call were
// held against it. The error is
// of calls that no manifest of the catalogue covers.
func Suggest(kind string, calls []Call, c *catalog.Catalog) (*Suggestion, error) {
	if !validKind(kind) {
		return nil, fmt.Errorf("a kind is 1 to %d bytes that print, with no blank among them", maxKind)
	}
	if len(calls) == 0 {
		return nil, errors.New("there are no calls to make a manifest of")
	}
	s := &suggester{kind: kind, catalog: c, tools: map[string]*proposal{}, given: map[grants.ID]map[string]any{}}
	for _, call := range calls {
		if err := s.take(call); err != nil {
			return nil, err
		}
	}
	if len(s.tools) > MaxTools {
		return nil, fmt.Errorf("the calls are of %d tools, and a manifest has at most %d: split the kind of task", len(s.tools), MaxTools)
	}
	for _, id := range sortedKeys(s.tools) {
		s.observe(s.tools[id])
	}
	s.takeGiven()
	s.pin()
	for _, id := range sortedKeys(s.tools) {
		p := s.tools[id]
		if p.input == nil {
			continue
		}
		// One that is over a bound of the profile must not spoil the others.
		if err := s.holds(id); err != nil {
			p.letAny("no template covers them: " + err.Error())
		}
	}
	s.dropGroups()
	for _, id := range sortedKeys(s.tools) {
		if p := s.tools[id]; p.input == nil {
			s.note("%s may be called with any input: %s", id, p.whyFree)
		}
	}
	if len(s.tasks) == 1 {
		s.note("there is one task alone, so that what it had is taken for what every task has: record more")
	}
	s.note("ttl, max_duration and once are not in it: calls say nothing of them")
	if err := s.holds(sortedKeys(s.tools)...); err != nil {
		return nil, fmt.Errorf("the proposal does not cover the calls: %w", err)
	}
	return &Suggestion{YAML: s.yaml(sortedKeys(s.tools)), Notes: s.notes}, nil
}

// suggester makes one manifest.
type suggester struct {
	kind    string
	catalog *catalog.Catalog
	tasks   []grants.ID
	given   map[grants.ID]map[string]any // task -> the parameters that it was started with
	tools   map[string]*proposal         // SERVER/TOOL -> what is proposed for it
	groups  []*group                     // the parameters
	left    []string                     // parameters that tasks were started with, and that are none of it
	notes   []string
}

// proposal is what is proposed for one tool.
type proposal struct {
	tool    *catalog.Tool
	calls   []observed
	input   *branch // nil: any
	whyFree string
	sums    []sumSeen
}

// observed is a value that came in a task.
type observed struct {
	task  grants.ID
	value any
}

// withheld stands for an argument that the recording does not have.
type withheld struct{}

func (s *suggester) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (p *proposal) letAny(why string) { p.input, p.whyFree = nil, why }

// take sorts in one call.
func (s *suggester) take(call Call) error {
	tool, ok := s.catalog.Tool(call.Tool)
	if !ok {
		return fmt.Errorf("the catalogue has no tool %q: leave its calls out, or take its entry in", cut(call.Tool))
	}
	if _, known := s.given[call.Task]; !known {
		s.tasks = append(s.tasks, call.Task)
		s.given[call.Task] = nil
	}
	if call.Params != nil {
		doc, err := strictjson.Parse(call.Params, strictjson.Limits{})
		params, ok := doc.(map[string]any)
		if err != nil || !ok {
			return fmt.Errorf("the parameters of task %s are no JSON object", cut(call.Task))
		}
		s.given[call.Task] = params
	}
	p := s.tools[tool.ID]
	if p == nil {
		p = &proposal{tool: tool}
		s.tools[tool.ID] = p
	}
	input := call.Input
	if call.Redacted && len(call.Without) == 0 {
		input = withheld{}
	}
	for _, pointer := range call.Without {
		input = put(input, catalog.PointerPath(pointer))
	}
	for _, pointer := range tool.Opaque {
		if _, ok := lookup(input, catalog.PointerPath(pointer)); ok {
			input = put(input, catalog.PointerPath(pointer))
		}
	}
	p.calls = append(p.calls, observed{call.Task, input})
	return nil
}

// put is a copy of v in which the path leads to what was withheld.
func put(v any, path []string) any {
	if len(path) == 0 {
		return withheld{}
	}
	object, ok := v.(map[string]any)
	if !ok {
		return withheld{} // nothing of it is known
	}
	out := make(map[string]any, len(object)+1)
	for name, member := range object {
		out[name] = member
	}
	out[path[0]] = put(object[path[0]], path[1:])
	if len(path) > 1 && object[path[0]] == nil {
		out[path[0]] = put(map[string]any{}, path[1:]) // all that was in it was withheld
	}
	return out
}

func lookup(v any, path []string) (any, bool) {
	for _, name := range path {
		object, _ := v.(map[string]any)
		var ok bool
		if v, ok = object[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// most is how many calls a task made at most.
func (p *proposal) most() int {
	n := map[grants.ID]int{}
	most := 0
	for _, c := range p.calls {
		n[c.task]++
		most = max(most, n[c.task])
	}
	return most
}

func (p *proposal) tasks() int { return countTasks(p.calls) }

func countTasks(list []observed) int {
	seen := map[grants.ID]bool{}
	for _, o := range list {
		seen[o.task] = true
	}
	return len(seen)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
