package manifest

import (
	"fmt"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// holds parses the proposal with some of its tools, and holds every call of them
// against it as the doors would: in its task, with the parameters that this has.
func (s *suggester) holds(tools ...string) error {
	m, err := Parse("proposal", []byte(s.yaml(tools)), s.catalog)
	if err != nil {
		return err
	}
	for _, task := range s.tasks {
		values, err := s.started(m, task)
		if err != nil {
			return err
		}
		for _, id := range tools {
			if err := s.holdsTask(m, id, task, values); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
		}
	}
	return nil
}

// started reads the parameters of one task as the broker would at its start.
func (s *suggester) started(m *Manifest, task grants.ID) ([]byte, error) {
	text, err := strictjson.Canonical(s.startedWith(task))
	if err != nil {
		return nil, err
	}
	return m.ReadParams(text)
}

func (s *suggester) holdsTask(m *Manifest, tool string, task grants.ID, params []byte) error {
	e, _, err := m.Entry(tool, params)
	if err != nil {
		return err
	}
	var c *grants.Constraint
	if e.Constraint != nil {
		if c, err = grants.CompileConstraint(e.Constraint); err != nil {
			return err
		}
	}
	calls := int64(0)
	spent := map[string]int64{}
	p := s.tools[tool]
	for _, call := range p.calls {
		if call.task != task {
			continue
		}
		calls++
		if c != nil {
			if err := c.Check(presumed(call.value, p.tool.Input())); err != nil {
				return err
			}
		}
		for arg, most := range e.Sums {
			n, ok := grants.Budget{Arg: arg}.Amount(call.value)
			if spent[arg] += n; !ok || spent[arg] > most {
				return fmt.Errorf("the sum of %s is not covered", arg)
			}
		}
	}
	if calls > e.MaxCalls {
		return fmt.Errorf("%d calls are not covered", calls)
	}
	return nil
}

// presumed is the input with a value of its type for each argument that was not
// recorded.
func presumed(v any, s *catalog.Schema) any {
	switch v := v.(type) {
	case withheld:
		switch {
		case s.Type == "array":
			return []any{}
		case s.Type == "boolean":
			return false
		case s.Type == "number" || s.Type == "integer":
			return strictjson.Number("0")
		case len(s.Enum) > 0:
			return s.Enum[0]
		}
		return ""
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[name] = presumed(member, s.Properties[name])
		}
		return out
	}
	return v
}
