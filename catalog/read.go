package catalog

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)

// reader builds a catalogue; its maps notice what is there twice.
type reader struct {
	*Catalog
	routes     map[string]string // "METHOD PATH" -> whose that is; see anyMethod
	toolAt     map[*Tool]*node
	resourceAt map[*Server]*node // of "resource"
}

func readCatalog(root *node) (*Catalog, error) {
	r := reader{
		Catalog:    &Catalog{tools: map[string]*Tool{}, servers: map[string]*Server{}, resources: map[string]*Server{}},
		routes:     map[string]string{},
		toolAt:     map[*Tool]*node{},
		resourceAt: map[*Server]*node{},
	}
	f, err := root.keys("servers")
	if err != nil {
		return nil, err
	}
	list, err := f.list("servers")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, root.errorf("a catalogue needs at least one server")
	}
	r.Servers = make([]Server, len(list)) // never grown: tools point into it
	for i, n := range list {
		if err := r.server(&r.Servers[i], n); err != nil {
			return nil, err
		}
	}
	if err := r.keptCredentials("", func(t *Tool, err error) error { return r.toolAt[t].errorf("%v", err) }); err != nil {
		return nil, err
	}
	if err := r.metadata(); err != nil {
		return nil, err
	}
	sets := map[string]bool{}
	for t := range r.AllTools() {
		for _, s := range t.Sets {
			sets[s] = true
		}
	}
	r.sets = slices.Sorted(maps.Keys(sets))
	r.Digest = r.digest()
	return r.Catalog, nil
}

func checkID(v *node) error {
	if !idPattern.MatchString(v.text) {
		return v.errorf("%q: must match %s", v.text, idPattern)
	}
	return nil
}

// fields is a mapping whose keys are all known.
type fields struct{ *node }

// keys checks that n is a mapping with no keys but the known.
func (n *node) keys(known ...string) (*fields, error) {
	if n.kind != mapping {
		return nil, n.errorf("must be %s, not %s", mapping, n.kind)
	}
	for _, f := range n.fields {
		if !slices.Contains(known, f.key.text) {
			return nil, f.key.errorf("unknown key %q; known are %s", f.key.text, strings.Join(known, ", "))
		}
	}
	return &fields{n}, nil
}

func (f *fields) find(key string) (field, bool) {
	i := slices.IndexFunc(f.fields, func(f field) bool { return f.key.text == key })
	if i < 0 {
		return field{}, false
	}
	return f.fields[i], true
}

func (f *fields) key(key string) (*node, bool) {
	e, ok := f.find(key)
	return e.key, ok
}

func (f *fields) get(key string) (*node, bool) {
	e, ok := f.find(key)
	return e.value, ok
}

// text returns the string under key, which must be there.
func (f *fields) text(key string) (*node, error) {
	v, ok := f.get(key)
	if !ok {
		return nil, f.errorf("%q is missing", key)
	}
	if v.kind != text {
		return nil, v.errorf("%q must be %s, not %s; put it in quotes", key, text, v.kind)
	}
	return v, nil
}

// id returns the id under key, which must be there.
func (f *fields) id(key string) (*node, error) {
	v, err := f.text(key)
	if err != nil {
		return nil, err
	}
	return v, checkID(v)
}

// boolean returns what is under key; false if it is not there.
func (f *fields) boolean(key string) (bool, error) {
	v, ok := f.get(key)
	if !ok {
		return false, nil
	}
	if v.kind != boolean {
		return false, v.errorf("%q must be %s, not %s", key, boolean, v.kind)
	}
	return v.yes, nil
}

// duration returns the time-out under key; def if it is not there.
func (f *fields) duration(key string, def time.Duration) (time.Duration, error) {
	v, ok := f.get(key)
	if !ok {
		return def, nil
	}
	d, err := time.ParseDuration(v.text) // "" if it is no string
	if err != nil {
		return 0, v.errorf("%q must be a duration with its unit, such as 5s", key)
	}
	// Envoy and the call door count in milliseconds, and take 0 for "none".
	if d <= 0 || d > MaxTimeout || d%time.Millisecond != 0 {
		return 0, v.errorf("%s %q: must be whole milliseconds, above 0 and at most %v", key, v.text, MaxTimeout)
	}
	return d, nil
}

// list returns the items under key, which must be there.
func (f *fields) list(key string) ([]*node, error) {
	v, ok := f.get(key)
	if !ok {
		return nil, f.errorf("%q is missing", key)
	}
	if v.kind != sequence {
		return nil, v.errorf("%q must be %s, not %s", key, sequence, v.kind)
	}
	return v.items, nil
}

// strings returns the strings under key, sorted; nil if it is not there. Each
// passes check and is there once.
func (f *fields) strings(key string, check func(*node) error) ([]string, error) {
	if _, ok := f.find(key); !ok {
		return nil, nil
	}
	items, err := f.list(key)
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	for _, v := range items {
		if v.kind != text {
			return nil, v.errorf("%q must hold strings, not %s; put it in quotes", key, v.kind)
		}
		if err := check(v); err != nil {
			return nil, err
		}
		if seen[v.text] {
			return nil, v.errorf("%q is there twice in %q", v.text, key)
		}
		seen[v.text] = true
		out = append(out, v.text)
	}
	slices.Sort(out)
	return out, nil
}
