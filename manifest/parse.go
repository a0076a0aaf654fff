package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

const (
	version = "1" // of the form that is read: docs/grant-manifest.md

	maxKind        = 64 // bytes; as of every kind of task
	maxDescription = 1024
	maxFaults      = 50 // that are told of one file

	minTTL = 2 * time.Second // the shortest window that the issue door gives
)

// Parse reads one manifest against the catalogue. The error joins every fault
// that was found; each begins "NAME:LINE:COLUMN: ".
func Parse(name string, text []byte, c *catalog.Catalog) (*Manifest, error) {
	r := &reader{name: name, catalog: c}
	root, err := strictyaml.Parse(text, MaxFile)
	if err != nil {
		r.add(err)
		return nil, errors.Join(r.faults...)
	}
	m := r.manifest(root)
	if len(r.faults) > 0 {
		return nil, errors.Join(r.faults...)
	}
	return m, nil
}

// reader reads one file, and goes on after a fault where it can.
type reader struct {
	name    string
	catalog *catalog.Catalog
	faults  []error

	m    *Manifest
	tool *Tool // that is being read
}

func (r *reader) fault(n *strictyaml.Node, format string, args ...any) {
	r.add(n.Errorf(format, args...))
}

func (r *reader) add(err error) {
	if len(r.faults) >= maxFaults {
		return
	}
	var at *strictyaml.PosError
	if errors.As(err, &at) {
		err = fmt.Errorf("%s:%d:%d: %s", r.name, at.Line, at.Column, at.Message)
	} else {
		err = fmt.Errorf("%s: %w", r.name, err)
	}
	r.faults = append(r.faults, err)
}

func (r *reader) at(n *strictyaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", r.name, n.Line, n.Column)
}

// mapping reports whether n is a mapping; its unknown keys are faults.
func (r *reader) mapping(n *strictyaml.Node, what string, known ...string) bool {
	if n.Kind != strictyaml.Mapping {
		r.fault(n, "%s must be %s, not %s", what, strictyaml.Mapping, n.Kind)
		return false
	}
	for _, f := range n.Fields {
		if !slices.Contains(known, f.Key.Text) {
			r.fault(f.Key, "%s has no %q%s", what, cut(f.Key.Text), suggest(f.Key.Text, known))
		}
	}
	return true
}

// text returns the string under a key; "" if it is not there, which is a fault
// if it must be.
func (r *reader) text(n *strictyaml.Node, key string, must bool) (*strictyaml.Node, string) {
	v, ok := n.Get(key)
	switch {
	case !ok && must:
		r.fault(n, "%q is missing", key)
	case ok && v.Kind != strictyaml.Text:
		r.fault(v, "%q must be %s, not %s; put it in quotes", key, strictyaml.Text, v.Kind)
	case ok:
		return v, v.Text
	}
	return nil, ""
}

// seconds returns the time under a key; 0 if it is not there.
func (r *reader) seconds(n *strictyaml.Node, key string, least time.Duration) time.Duration {
	v, ok := n.Get(key)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(v.Text)
	if err != nil || v.Kind != strictyaml.Text || d < least || d%time.Second != 0 {
		r.fault(v, "%q must be whole seconds with their unit, such as 90s or 2m, and %v or more", key, least)
		return 0
	}
	return d
}

// yes returns what is under a key; false if it is not there.
func (r *reader) yes(n *strictyaml.Node, key string) bool {
	v, ok := n.Get(key)
	if ok && v.Kind != strictyaml.Boolean {
		r.fault(v, "%q must be %s, not %s", key, strictyaml.Boolean, v.Kind)
	}
	return ok && v.Yes
}

// value gives a tree as strictjson does. It is a literal: no place of a
// parameter is in it.
func (r *reader) value(n *strictyaml.Node) any {
	switch n.Kind {
	case strictyaml.Number:
		num := strictjson.Number(n.Text)
		if !num.Valid() || !num.IsDouble() {
			r.fault(n, "a number that not every reader keeps: beyond 2^53-1, or with more digits than a double has")
		}
		return num
	case strictyaml.Sequence:
		list := make([]any, len(n.Items))
		for i, item := range n.Items {
			list[i] = r.value(item)
		}
		return list
	case strictyaml.Mapping:
		object := make(map[string]any, len(n.Fields))
		for _, f := range n.Fields {
			if f.Key.Text == placeKey {
				r.fault(f.Key, "%s stands for the whole value of const, enum or a bound: it cannot stand here", placeKey)
			}
			object[f.Key.Text] = r.value(f.Value)
		}
		return object
	}
	v, err := n.Value() // a string, a boolean or null
	if err != nil {
		r.add(err)
	}
	return v
}

// meaning is the canonical text of the whole file, for the set's digest.
func (r *reader) meaning(n *strictyaml.Node) []byte {
	text, err := strictjson.Canonical(plain(n))
	if err != nil { // every number has been looked at, and so are strings by their reader
		r.fault(n, "%v", err)
	}
	return text
}

func plain(n *strictyaml.Node) any {
	switch n.Kind {
	case strictyaml.Number:
		return strictjson.Number(n.Text)
	case strictyaml.Sequence:
		list := make([]any, len(n.Items))
		for i, item := range n.Items {
			list[i] = plain(item)
		}
		return list
	case strictyaml.Mapping:
		object := make(map[string]any, len(n.Fields))
		for _, f := range n.Fields {
			object[f.Key.Text] = plain(f.Value)
		}
		return object
	case strictyaml.Boolean:
		return n.Yes
	case strictyaml.Text:
		return n.Text
	}
	return nil
}

func (r *reader) manifest(root *strictyaml.Node) *Manifest {
	r.m = &Manifest{At: fmt.Sprintf("%s:%d", r.name, root.Line), params: map[string]*parameter{}}
	if !r.mapping(root, "a manifest", "version", "kind", "description", "max_duration", "params", "tools") {
		return r.m
	}
	if v, ok := root.Get("version"); ok && (v.Kind != strictyaml.Number || strictjson.Number(v.Text).Compare(version) != 0) {
		r.fault(v, "\"version\" is %s, which is what its absence means: no other is read here", version)
	}
	n, kind := r.text(root, "kind", true)
	if n != nil && !validKind(kind) {
		r.fault(n, "\"kind\" is 1 to %d bytes that print, with no blank among them", maxKind)
	}
	r.m.Kind = kind
	if n, r.m.Description = r.text(root, "description", false); len(r.m.Description) > maxDescription {
		r.fault(n, "\"description\" is over %d bytes", maxDescription)
	}
	r.m.MaxDuration = r.seconds(root, "max_duration", 2*time.Second)
	params, _ := root.Get("params")
	r.params(params)
	r.tools(root)
	if len(r.faults) > 0 {
		return r.m
	}
	r.m.text = r.meaning(root)
	// A kind whose parameters all have defaults can be started with none.
	if len(r.m.Params.Required) == 0 {
		if _, err := r.m.ReadParams(nil); err != nil {
			if params == nil {
				params = root
			}
			r.fault(params, "the defaults do not fit where they are used: %v", err)
		}
	}
	return r.m
}

// validKind is the rule for kinds of task: what prints, and no blank.
func validKind(s string) bool {
	return s != "" && len(s) <= maxKind && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' })
}

func (r *reader) tools(root *strictyaml.Node) {
	list, ok := root.Get("tools")
	switch {
	case !ok:
		r.fault(root, "\"tools\" is missing")
		return
	case list.Kind != strictyaml.Sequence:
		r.fault(list, "\"tools\" must be %s, not %s", strictyaml.Sequence, list.Kind)
		return
	case len(list.Items) == 0:
		r.fault(list, "\"tools\" has none: a task of this kind could do nothing")
	case len(list.Items) > MaxTools:
		r.fault(list.Items[MaxTools], "a manifest has at most %d tools: one request must be able to get them all", MaxTools)
		return
	}
	seen := map[string]bool{}
	for _, n := range list.Items {
		if t := r.readTool(n); t != nil {
			if seen[t.Tool.ID] {
				r.fault(n, "tool %q is there twice; one entry says all that a task may have of it", t.Tool.ID)
			}
			seen[t.Tool.ID] = true
			r.m.Tools = append(r.m.Tools, t)
		}
	}
}

// readTool reads one entry of "tools"; nil if its tool is not known.
func (r *reader) readTool(n *strictyaml.Node) *Tool {
	if !r.mapping(n, "a tool's entry", "tool", "ttl", "max_calls", "sum", "input", "once") {
		return nil
	}
	at, id := r.text(n, "tool", true)
	if at == nil {
		return nil
	}
	tool, ok := r.catalog.Tool(id)
	if !ok {
		var known []string
		for t := range r.catalog.AllTools() {
			known = append(known, t.ID)
		}
		r.fault(at, "the catalogue has no tool %q%s", cut(id), suggest(id, known))
		return nil
	}
	t := &Tool{Tool: tool, TTL: r.seconds(n, "ttl", minTTL), Once: r.yes(n, "once")}
	before := len(r.faults)
	r.tool = t
	input, ok := n.Get("input")
	if ok {
		r.input(input)
	}
	r.budgets(n)
	if len(r.faults) > before {
		return t
	}
	if ok {
		// What could never compile, whatever the parameters are.
		if err := compile(t.input); err != nil {
			r.fault(input, "%v", err)
			return t
		}
	}
	if len(t.uses) == 0 {
		e, err := t.entry(nil)
		if err != nil {
			r.fault(n, "%v", err)
		}
		t.fixed = &e
	}
	return t
}

// compile holds a schema against the profile, its places left out.
func compile(doc map[string]any) error {
	text, err := strictjson.Canonical(withoutPlaces(doc))
	if err != nil {
		return err
	}
	_, err = grants.CompileConstraint(text)
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
