package manifest

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Entry is what a task with these parameters (of ReadParams) may have of a tool;
// ok is false if the manifest does not have the tool. The error is of parameters
// that the manifest would not take, or of a constraint over the profile's bounds.
func (m *Manifest) Entry(tool string, params json.RawMessage) (e Entry, ok bool, err error) {
	t, ok := m.tool(tool)
	if !ok {
		return Entry{}, false, nil
	}
	values, err := m.started(params)
	if err != nil {
		return Entry{}, true, err
	}
	e, err = m.compiled(t, values)
	return e, true, err
}

var errTemplate = errors.New("with these parameters nothing could pass, or the constraint is larger than one may be")

// compiled is a tool's entry whose constraint compiles. The values have been
// checked.
func (m *Manifest) compiled(t *Tool, values map[string]any) (Entry, error) {
	e, err := t.entry(values)
	if err != nil || e.Constraint == nil || t.fixed != nil {
		return e, err
	}
	if _, err := grants.CompileConstraint(e.Constraint); err != nil {
		// Its text may have a value in it.
		return Entry{}, fmt.Errorf("params: the input of %s: %w", t.Tool.ID, errTemplate)
	}
	return e, nil
}

// entry puts values, which have been checked, in their places.
func (t *Tool) entry(values map[string]any) (Entry, error) {
	if t.fixed != nil {
		return *t.fixed, nil
	}
	e := Entry{Tool: t.Tool, TTL: t.TTL, Once: t.Once}
	for _, u := range t.uses {
		if err := u.fit(values[u.param]); err != nil {
			return Entry{}, fmt.Errorf("params: %q is %s, which must be %w", u.param, u.where, err)
		}
	}
	var err error
	if t.calls != nil {
		if e.MaxCalls, err = t.calls.of(values); err != nil {
			return Entry{}, err
		}
	}
	for _, s := range t.sums {
		if e.Sums == nil {
			e.Sums = map[string]int64{}
		}
		if e.Sums[s.arg], err = s.max.of(values); err != nil {
			return Entry{}, err
		}
	}
	if t.input != nil {
		if e.Constraint, err = strictjson.Canonical(fill(t.input, values)); err != nil {
			return Entry{}, fmt.Errorf("params: the input of %s: %w", t.Tool.ID, err)
		}
	}
	return e, nil
}
