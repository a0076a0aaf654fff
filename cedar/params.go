package cedar

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
)

// What a task was started with, its parameters, is context.task.params to policy
// and, with what is asked under a grant, context.grant.params. There is one type
// for the tasks of all kinds, with every member optional; it is there where some
// kind has a parameter. The manifest itself policy does not see: what it does not
// cover is refused before policy is asked.

// paramsShape is the parameters of tasks as policy sees them.
func paramsShape(m *manifest.Set) (*shape, error) {
	schema := m.Params()
	if schema == nil {
		schema = &catalog.Schema{Type: "object"}
	}
	s, err := newShape(schema, "", nil, maxDepth)
	if err != nil {
		return nil, fmt.Errorf("parameters of the manifests%w", err)
	}
	return s, nil
}

// addParams adds the task's parameters to what policy sees of it, or of its grant;
// false if they have no exact Cedar value.
func (s *Set) addParams(t *grants.Task, to cedargo.RecordMap) bool {
	if t.Params == nil {
		return true
	}
	params, err := strictjson.Parse(t.Params, strictjson.Limits{})
	if err != nil {
		return false
	}
	var b builder
	value, ok := b.value(s.params, params)
	if ok && len(s.params.attrs) > 0 { // or else the schema has none
		to["params"] = value
	}
	return ok
}

// uncovered reports whether the manifest of the task's kind does not cover what is
// asked: starting the task, or the grant. Grants were covered when they were
// issued; when manifests have changed since, the doors ask for them again.
func (s *Set) uncovered(in *grants.Input) bool {
	switch in.Action {
	case grants.ActionStartTask:
		_, bounded := s.manifests.Kind(in.Task.Kind)
		return bounded != (in.Task.Params != nil)
	case grants.ActionGrant, grants.ActionAskFor:
		return s.manifests.Admits(in.Task, in.Grant) != nil
	}
	return false
}

func hasTool(m *manifest.Manifest, id string) bool {
	return slices.ContainsFunc(m.Tools, func(t *manifest.Tool) bool { return t.Tool.ID == id })
}

// aboutTask gives what a written question says of a task, and where; false if it
// is about none, or about one that may be of another time: a task can be ended,
// and a grant revoked, whatever the manifests say by now.
func aboutTask(q *question) (task cedargo.Record, at string, ok bool) {
	switch string(q.request.Action.ID) {
	case grants.ActionEndTask, grants.ActionRevoke:
		return task, "", false
	}
	for _, name := range []cedargo.String{"task", "grant"} {
		if v, there := q.request.Context.Get(name); there {
			task, ok = v.(cedargo.Record)
			return task, "context." + string(name), ok
		}
	}
	return task, "", false
}

// agreeOnParams holds that a written question has the parameters of the task's
// kind: all of them and no others. No task is started with less or more.
func (s *Set) agreeOnParams(q *question) error {
	task, at, ok := aboutTask(q)
	if !ok || len(s.params.attrs) == 0 {
		return nil
	}
	kind, _ := task.Get("kind")
	name, _ := kind.(cedargo.String)
	m, bounded := s.manifests.Kind(string(name))
	params, there := task.Get("params")
	switch {
	case there && !bounded:
		return fmt.Errorf("%s.params: there is no manifest of the kind %q, and a task without one has no parameters", at, string(name))
	case !there && !bounded:
		return nil
	case !there:
		return fmt.Errorf("%s.params: it is not there; the kind %q has a manifest, and each task of it the parameters {%s}", at, string(name), strings.Join(paramNames(m), ", "))
	}
	given := slices.Sorted(names(params.(cedargo.Record).Map()))
	if wanted := paramNames(m); !slices.Equal(given, wanted) {
		return fmt.Errorf("%s.params: {%s}; each task of the kind %q has the parameters {%s}", at, strings.Join(given, ", "), string(name), strings.Join(wanted, ", "))
	}
	return nil
}

func paramNames(m *manifest.Manifest) []string {
	return slices.Sorted(maps.Keys(m.Params.Properties))
}

// lacksTool reports whether a written question asks for a grant of a tool that the
// manifest of the task's kind does not have.
func (s *Set) lacksTool(q *question) bool {
	switch string(q.request.Action.ID) {
	case grants.ActionGrant, grants.ActionAskFor:
	default:
		return false
	}
	task, _ := q.request.Context.Get("task")
	kind, _ := task.(cedargo.Record).Get("kind")
	m, bounded := s.manifests.Kind(string(kind.(cedargo.String)))
	return bounded && !hasTool(m, string(q.request.Resource.ID))
}
