package manifest

import (
	"maps"
	"slices"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// takeGiven makes a parameter of each that all tasks were started with, whether an
// argument has its value or not: whoever starts such a task gives it again. One
// that it cannot make is left out, and the notes tell.
func (s *suggester) takeGiven() {
	names := map[string]bool{}
	for _, params := range s.given {
		for name := range params {
			names[name] = true
		}
	}
	for _, name := range sortedKeys(names) {
		g, why := s.givenGroup(name)
		if why != "" {
			s.left = append(s.left, name)
			s.note("tasks were started with %q, which is no parameter of it: %s", cut(name), why)
			continue
		}
		s.groups = append(s.groups, g)
	}
}

// givenGroup is the parameter of a name that all tasks were started with, or why
// there is none.
func (s *suggester) givenGroup(name string) (*group, string) {
	g := &group{name: name, given: true, values: map[grants.ID]any{}, texts: map[grants.ID]string{}}
	if !namePattern.MatchString(name) {
		return nil, "a manifest has no such name"
	}
	for _, task := range s.tasks {
		v, ok := s.given[task][name]
		if !ok {
			return nil, "some had it not"
		}
		text, err := strictjson.Canonical(v)
		if err != nil || exact(v) != nil {
			return nil, "policy could not see its value exactly"
		}
		if len(g.values) > 0 && kindOf(v) != g.kind {
			return nil, "its values are of several types"
		}
		g.kind = kindOf(v)
		g.values[task], g.texts[task] = v, string(text)
	}
	kind := g.kind
	if g.kind == "array" {
		kind = ""
		for _, o := range g.items() {
			if kind != "" && kindOf(o.value) != kind {
				return nil, "its items are of several types"
			}
			kind = kindOf(o.value)
		}
	}
	if kind != "" && !slices.Contains(scalars, kind) {
		return nil, "a manifest has no parameter of its type"
	}
	return g, ""
}

// startedWith are the parameters of one task: those that it was started with, but
// for what is left out, and those that the proposal adds. An added one that the
// task does not show has the value of another task: nothing in it depends on it.
func (s *suggester) startedWith(task grants.ID) map[string]any {
	values := map[string]any{}
	maps.Copy(values, s.given[task])
	for _, name := range s.left {
		delete(values, name)
	}
	for _, g := range s.groups {
		if g.given {
			continue
		}
		v, ok := g.values[task]
		if !ok {
			v = g.values[sortedKeys(g.values)[0]]
		}
		values[g.name] = v
	}
	return values
}
