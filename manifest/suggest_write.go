package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/strictjson"
)

// flow writes a template.
func (b *branch) flow() string {
	switch {
	case b.items == nil && b.leaf != nil && kindOf(b.leaf.seen[0].value) == "array" && !b.leaf.free && !b.pinned():
		return fmt.Sprintf("{maxItems: %d}", b.most)
	case b.items != nil && !b.pinned():
		return fmt.Sprintf("{maxItems: %d, items: %s}", b.most, b.items.flow())
	case b.leaf != nil:
		return b.leaf.flow()
	}
	parts := make([]string, len(b.members))
	for i, m := range b.members {
		parts[i] = key(m.name) + ": " + m.flow()
	}
	return "{properties: {" + strings.Join(parts, ", ") + "}}"
}

func (l *leaf) flow() string {
	switch {
	case l.free:
		return "{}"
	case l.group != nil:
		return "{const: {" + placeKey + ": " + key(l.group.name) + "}}"
	case l.constant():
		return "{const: " + literal(l.seen[0].value) + "}"
	}
	switch kindOf(l.seen[0].value) {
	case "number":
		least, most := extent(l.seen)
		return fmt.Sprintf("{minimum: %s, maximum: %s}", literal(least), literal(most))
	case "string":
		if !l.few() {
			return fmt.Sprintf("{maxLength: %d}", longest(l.seen))
		}
		var values []string
		for _, text := range sortedKeys(l.distinct()) {
			values = append(values, literal(l.distinct()[text]))
		}
		return "{enum: [" + strings.Join(values, ", ") + "]}"
	}
	return "{}" // a boolean
}

// why says what the template rests on.
func (l *leaf) why() string {
	calls, tasks := count(len(l.seen), "call"), count(countTasks(l.seen), "task")
	switch {
	case l.free:
		return "not recorded: any value of the type in the catalogue"
	case l.group != nil && !l.constant():
		return "the same within each of " + tasks + ", and not in all"
	case l.constant():
		return "the same in " + calls + " of " + tasks
	}
	switch kindOf(l.seen[0].value) {
	case "number":
		return "the greatest of " + calls + "; not below 0, or not below the least"
	case "string":
		if l.few() {
			return fmt.Sprintf("%d values in %s of %s", len(l.distinct()), calls, tasks)
		}
		return "free text; the longest of " + calls
	case "array":
		return "always empty"
	}
	return "both in " + calls
}

// schema writes the parameter's schema.
func (g *group) schema() string {
	seen := make([]observed, 0, len(g.values))
	for _, task := range sortedKeys(g.values) {
		seen = append(seen, observed{task, g.values[task]})
	}
	if g.kind == "array" {
		most := 0
		for _, o := range seen {
			most = max(most, len(o.value.([]any)))
		}
		items, kind := g.items(), "string" // of no item, it says nothing
		if len(items) > 0 {
			kind = kindOf(items[0].value)
		}
		return fmt.Sprintf("{type: array, maxItems: %d, items: %s}", most, scalarSchema(g.declared(kind, items), items))
	}
	return scalarSchema(g.declared(g.kind, seen), seen)
}

// declared is the type of the values, or of a list's items. Of whole numbers it is
// the catalogue's, and of a list that was always empty. An argument whose values
// are of another type than the catalogue's does not spoil the parameter for others.
func (g *group) declared(kind string, seen []observed) string {
	for _, l := range g.leaves {
		of := l.schema
		if g.kind == "array" {
			of = l.schema.Items
		}
		if of == nil || !slices.Contains(scalars, of.Type) {
			continue
		}
		if len(seen) == 0 || of.Type == "integer" && !slices.ContainsFunc(seen, func(o observed) bool { return !whole(o.value) }) {
			return of.Type
		}
	}
	return kind
}

// whole reports whether the value is a whole number.
func whole(v any) bool {
	n, _ := v.(strictjson.Number)
	_, ok := n.Int64()
	return ok
}

// items are those of all values of a list.
func (g *group) items() (items []observed) {
	for _, task := range sortedKeys(g.values) {
		for _, v := range g.values[task].([]any) {
			items = append(items, observed{task, v})
		}
	}
	return items
}

func scalarSchema(kind string, seen []observed) string {
	switch {
	case len(seen) == 0:
	case kind == "string":
		return fmt.Sprintf("{type: string, maxLength: %d}", longest(seen))
	case kind == "number" || kind == "integer":
		least, most := extent(seen)
		return fmt.Sprintf("{type: %s, minimum: %s, maximum: %s}", kind, literal(least), literal(most))
	}
	return "{type: " + kind + "}"
}

func (g *group) why() string {
	var where []string
	for _, l := range g.leaves {
		where = append(where, l.tool.ID+" "+l.at)
	}
	text := printable(strings.Join(where, ", "))
	if len(where) == 0 {
		text = "of no argument"
	}
	if g.given {
		text += ": as tasks were started with it"
	} else {
		text += ": one value in each task"
	}
	if len(g.values) < g.tasks {
		text += fmt.Sprintf("; %d of %s had it", len(g.values), count(g.tasks, "task"))
	}
	return text
}

// extent is the least, or 0 if none is below it, and the greatest number.
func extent(seen []observed) (least, most strictjson.Number) {
	least, most = "0", seen[0].value.(strictjson.Number)
	for _, o := range seen {
		n := o.value.(strictjson.Number)
		if n.Compare(least) < 0 {
			least = n
		}
		if n.Compare(most) > 0 {
			most = n
		}
	}
	return least, most
}

func longest(seen []observed) (most int) {
	for _, o := range seen {
		most = max(most, utf8.RuneCountInString(o.value.(string)))
	}
	return most
}

// literal writes a value as YAML: texts in quotes with the escapes that Go and
// YAML share (YAML 1.2.2, Section 5.7), everything else as JSON.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = literal(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	text, err := strictjson.Canonical(v)
	if err != nil {
		return "null" // a number that no constraint takes: the check of the whole tells
	}
	return string(text)
}
