package manifest

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const (
	maxFew    = 8   // values, so that they are listed
	maxPinned = 512 // bytes of a text that is written out; a longer one is free
)

// group is a parameter: arguments that had the same value in each task.
type group struct {
	name   string
	kind   string               // of its values: string, number, boolean or array
	values map[grants.ID]any    // task -> value
	texts  map[grants.ID]string // task -> RFC 8785 text of it
	leaves []*leaf
	given  bool // tasks were started with a parameter of this name and these values
	tasks  int  // of the recording
}

// pin finds constants and parameters. Leaves are visited in the order of their
// tools and places, so that the same calls give the same manifest.
func (s *suggester) pin() {
	for _, id := range sortedKeys(s.tools) {
		p := s.tools[id]
		if p.input == nil {
			continue
		}
		p.input.all(func(l *leaf) { s.pinLeaf(l) })
	}
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool {
		// Few values of one argument, each in several tasks, are a choice rather
		// than what a task is about.
		if g.given || len(g.leaves) != 1 || g.kind != "string" {
			return false
		}
		l := g.leaves[0]
		few := len(l.distinct()) <= maxFew && len(g.values) >= 2*len(l.distinct())
		if few {
			l.group = nil
		}
		return few
	})
	names := map[string]bool{}
	for _, g := range s.groups {
		if !g.given {
			continue
		}
		names[strings.ToLower(g.name)] = true
	}
	for _, g := range s.groups {
		if !g.given {
			g.name = nameFor(g.leaves[0].name, names)
			names[strings.ToLower(g.name)] = true
		}
		g.tasks = len(s.tasks)
	}
	slices.SortFunc(s.groups, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	for _, p := range s.tools {
		p.dropSums()
	}
}

// all visits every leaf, those of whole arrays too.
func (b *branch) all(f func(*leaf)) {
	if b.leaf != nil {
		f(b.leaf)
	}
	if b.items != nil {
		b.items.all(f)
	}
	for _, m := range b.members {
		m.all(f)
	}
}

// dropSums leaves out the sums of what is pinned: the count of calls bounds it.
func (p *proposal) dropSums() {
	if p.input == nil {
		return
	}
	pinned := map[string]bool{}
	p.input.all(func(l *leaf) {
		if l.group != nil || l.constant() {
			pinned[l.at] = true
		}
	})
	p.sums = slices.DeleteFunc(p.sums, func(s sumSeen) bool { return pinned[s.arg] })
}

// pinLeaf makes the leaf part of a parameter, if it can be one.
func (s *suggester) pinLeaf(l *leaf) {
	values, texts, ok := l.byTask()
	if !ok {
		return
	}
	kind := kindOf(l.seen[0].value)
	for _, g := range s.groups { // those of the start are first, and have a value in every task
		if g.given && g.equals(kind, texts) && (!l.constant() || l.name == g.name) {
			g.add(l, values, texts)
			return
		}
	}
	if l.constant() {
		return
	}
	g := s.group(func(g *group) bool { return !g.given && g.agrees(l, kind, texts) })
	if g == nil {
		g = &group{kind: kind, values: map[grants.ID]any{}, texts: map[grants.ID]string{}}
		s.groups = append(s.groups, g)
	}
	g.add(l, values, texts)
}

func (s *suggester) group(match func(*group) bool) *group {
	if i := slices.IndexFunc(s.groups, match); i >= 0 {
		return s.groups[i]
	}
	return nil
}

func (g *group) add(l *leaf, values map[grants.ID]any, texts map[grants.ID]string) {
	for task, v := range values {
		g.values[task], g.texts[task] = v, texts[task]
	}
	g.leaves, l.group = append(g.leaves, l), g
}

// agrees reports whether the argument is the parameter too: it is equal in all
// tasks that have both, and that is no accident.
func (g *group) agrees(l *leaf, kind string, texts map[grants.ID]string) bool {
	if g.kind != kind {
		return false
	}
	both := 0
	for task, text := range texts {
		if other, ok := g.texts[task]; ok {
			if other != text {
				return false
			}
			both++
		}
	}
	return both > 1 || both == 1 && g.leaves[0].name == l.name
}

// equals reports whether the argument had the value of the parameter in each
// task.
func (g *group) equals(kind string, texts map[grants.ID]string) bool {
	for task, text := range texts {
		if g.texts[task] != text {
			return false
		}
	}
	return g.kind == kind
}

// dropGroups leaves out the parameters that no template has any more, but for those
// of the start.
func (s *suggester) dropGroups() {
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool {
		g.leaves = slices.DeleteFunc(g.leaves, func(l *leaf) bool { return s.tools[l.tool.ID].input == nil })
		return len(g.leaves) == 0 && !g.given
	})
}

var notName = regexp.MustCompile(`[^A-Za-z0-9_]`)

// nameFor makes a name for a parameter that is not taken in any case.
func nameFor(name string, taken map[string]bool) string {
	name = notName.ReplaceAllString(name, "_")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "p_" + name
	}
	name = name[:min(len(name), 48)]
	for i, base := 2, name; taken[strings.ToLower(name)]; i++ {
		name = base + "_" + strconv.Itoa(i)
	}
	return name
}

// byTask gives the one value that the argument had in each task; false if it had
// more than one, or one that is not written out or that no parameter has.
func (l *leaf) byTask() (map[grants.ID]any, map[grants.ID]string, bool) {
	values, texts := map[grants.ID]any{}, map[grants.ID]string{}
	for _, o := range l.seen {
		text, ok := written(o.value)
		if before, again := texts[o.task]; l.free || l.inside || !ok || exact(o.value) != nil || again && before != text {
			return nil, nil, false
		}
		values[o.task], texts[o.task] = o.value, text
	}
	return values, texts, true
}

// written is the canonical text of a value that a manifest can hold; false if it
// is none, or too long to be read.
func written(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		if !writable(v) {
			return "", false
		}
	case []any:
		for _, item := range v {
			if _, ok := written(item); !ok {
				return "", false
			}
		}
	case strictjson.Number, bool:
	default:
		return "", false
	}
	text, err := strictjson.Canonical(v)
	return string(text), err == nil && len(text) <= maxPinned
}

// writable reports whether strictyaml reads the text back.
func writable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r) && r != '\n' && r != '\t'
	})
}

// distinct are the texts of all values; nil if one is not written out.
func (l *leaf) distinct() map[string]any {
	out := map[string]any{}
	for _, o := range l.seen {
		text, ok := written(o.value)
		if !ok {
			return nil
		}
		out[text] = o.value
	}
	return out
}

// constant reports whether the argument was the same in all calls.
func (l *leaf) constant() bool { return !l.free && len(l.distinct()) == 1 }

// few reports whether the argument took few values, and each repeatedly.
func (l *leaf) few() bool {
	n := len(l.distinct())
	return n > 0 && n <= maxFew && len(l.seen) >= 2*n
}
