package manifest

import (
	"fmt"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// branch is a place in a tool's input: an object with its members, an array, or
// a leaf.
type branch struct {
	name    string
	members []*branch // sorted by name
	leaf    *leaf     // of a value that is no object; of an array the whole of it, or nil
	items   *branch   // what an array's items are alike in; nil: none was seen
	most    int       // items of an array
}

// leaf is an argument with all values that it was seen with.
type leaf struct {
	at     string // JSON Pointer into the input
	name   string
	tool   *catalog.Tool
	schema *catalog.Schema
	seen   []observed
	free   bool // it was not recorded
	inside bool // of an array: a task has several of it
	group  *group
}

// observe finds what the calls of a tool are alike in.
func (s *suggester) observe(p *proposal) {
	input, err := s.branch(p, "", "", p.tool.Input(), p.calls, false)
	switch {
	case err != nil:
		p.letAny(err.Error())
	case input.leaf != nil:
		p.letAny("their arguments were not recorded")
	default:
		p.input = input
	}
	s.sums(p)
}

// branch finds what values at one place are alike in. The error says why no
// template has them all.
func (s *suggester) branch(p *proposal, name, at string, schema *catalog.Schema, seen []observed, inside bool) (*branch, error) {
	where := at
	if where == "" {
		where = "the input"
	}
	if schema == nil {
		return nil, fmt.Errorf("the catalogue declares no %s", where)
	}
	kinds := map[string]bool{}
	for _, o := range seen {
		kinds[kindOf(o.value)] = true
	}
	b := &branch{name: name}
	newLeaf := func(free bool) *leaf {
		return &leaf{at: at, name: name, tool: p.tool, schema: schema, seen: seen, free: free, inside: inside}
	}
	switch {
	case kinds["withheld"]:
		if at != "" && (schema.Type == "any" || schema.Type == "object" || schema.Type == "array" && declaredItems(schema) == nil) {
			return nil, fmt.Errorf("%s was not recorded, and the catalogue has no closed type for it", where)
		}
		b.leaf = newLeaf(true)
		return b, nil
	case len(kinds) > 1:
		return nil, fmt.Errorf("%s is of several types", where)
	case kinds["object"]:
		return s.object(p, b, at, schema, seen, inside)
	case kinds["array"]:
		return s.array(p, b, at, schema, seen, newLeaf(false))
	}
	b.leaf = newLeaf(false)
	return b, nil
}

func (s *suggester) object(p *proposal, b *branch, at string, schema *catalog.Schema, seen []observed, inside bool) (*branch, error) {
	below := map[string][]observed{}
	for _, o := range seen {
		for name, v := range o.value.(map[string]any) {
			below[name] = append(below[name], observed{o.task, v})
		}
	}
	for _, name := range sortedKeys(below) {
		place := at + "/" + token(name)
		if len(below[name]) != len(seen) {
			return nil, fmt.Errorf("some calls have %s and some have not, and a template has all of its arguments or none", place)
		}
		member, err := s.branch(p, name, place, schema.Properties[name], below[name], inside)
		if err != nil {
			return nil, err
		}
		b.members = append(b.members, member)
	}
	return b, nil
}

func (s *suggester) array(p *proposal, b *branch, at string, schema *catalog.Schema, seen []observed, whole *leaf) (*branch, error) {
	var items []observed
	for _, o := range seen {
		list := o.value.([]any)
		b.most = max(b.most, len(list))
		for _, v := range list {
			items = append(items, observed{o.task, v})
		}
	}
	if declared := schema.Items; declared != nil && declared.Type != "object" && declared.Type != "array" {
		b.leaf = whole // it can be a constant, or a parameter
	}
	var err error
	if len(items) > 0 {
		b.items, err = s.branch(p, "", at+"/*", schema.Items, items, true)
	} else if b.leaf == nil {
		err = fmt.Errorf("%s was always empty, so that nothing is known of its items", at)
	}
	return b, err
}

func kindOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case strictjson.Number:
		return "number"
	case nil:
		return "null"
	}
	return "withheld"
}

// sumSeen is the most that the sum of an argument was in a task.
type sumSeen struct {
	arg   string
	units int64
}

// sums finds the numbers that every call has, where a task made several.
func (s *suggester) sums(p *proposal) {
	if p.most() < 2 {
		return
	}
	var walk func(schema *catalog.Schema, path []string, at string)
	walk = func(schema *catalog.Schema, path []string, at string) {
		for _, name := range sortedKeys(schema.Properties) {
			walk(schema.Properties[name], append(path[:len(path):len(path)], name), at+"/"+token(name))
		}
		if schema.Type != "number" && schema.Type != "integer" {
			return
		}
		if units, ok := p.total(path); ok && len(p.sums) < grants.MaxBudgets-2 { // one counts calls, one is a grant's own
			p.sums = append(p.sums, sumSeen{at, units})
		}
	}
	walk(p.tool.Input(), nil, "")
}

// total is the most that the argument amounts to in one task; false if it is not
// a sum that a budget counts.
func (p *proposal) total(path []string) (most int64, ok bool) {
	totals := map[grants.ID]int64{}
	for _, c := range p.calls {
		v, _ := lookup(c.value, path)
		n, _ := v.(strictjson.Number)
		units, ok := n.Units()
		total := totals[c.task] + units
		if !ok || units < 0 || total < 0 {
			return 0, false
		}
		totals[c.task] = total
		most = max(most, total)
	}
	return most, most > 0
}

// why says what a template rests on.
func (b *branch) why() string {
	if b.items == nil || b.pinned() {
		return b.leaf.why()
	}
	var parts []string
	b.items.each(func(l *leaf) { parts = append(parts, strings.TrimPrefix(l.at, "/")+": "+l.why()) })
	return strings.Join(parts, "; ")
}

func (b *branch) each(f func(*leaf)) {
	if b.leaf != nil && b.items == nil || b.pinned() {
		f(b.leaf)
		return
	}
	if b.items != nil {
		b.items.each(f)
	}
	for _, m := range b.members {
		m.each(f)
	}
}

// pinned reports whether an array as a whole is a constant or a parameter.
func (b *branch) pinned() bool { return b.leaf != nil && (b.leaf.group != nil || b.leaf.constant()) }
