package strictyaml

import (
	"slices"
	"strings"
	"time"
)

// Fields is a mapping whose keys are all known. Its methods read what is under a
// key; their errors are *PosError.
type Fields struct{ *Node }

// Keys checks that n is a mapping with no keys but the known.
func (n *Node) Keys(known ...string) (*Fields, error) {
	if n.Kind != Mapping {
		return nil, n.Errorf("must be %s, not %s", Mapping, n.What())
	}
	for _, f := range n.Fields {
		if !slices.Contains(known, f.Key.Text) {
			return nil, f.Key.Errorf("unknown key %q; known are %s", f.Key.Text, strings.Join(known, ", "))
		}
	}
	return &Fields{n}, nil
}

// Find returns the key of a mapping with its value; false if it is not there.
func (n *Node) Find(key string) (Field, bool) {
	i := slices.IndexFunc(n.Fields, func(f Field) bool { return f.Key.Text == key })
	if i < 0 {
		return Field{}, false
	}
	return n.Fields[i], true
}

// Key returns the key itself, for its place; false if it is not there.
func (n *Node) Key(key string) (*Node, bool) {
	f, ok := n.Find(key)
	return f.Key, ok
}

// Get returns what is under key; false if it is not there.
func (n *Node) Get(key string) (*Node, bool) {
	f, ok := n.Find(key)
	return f.Value, ok
}

// get returns what is under key, which must be there.
func (f *Fields) get(key string) (*Node, error) {
	v, ok := f.Get(key)
	if !ok {
		return nil, f.Errorf("%q is missing", key)
	}
	return v, nil
}

// Text returns the string under key, which must be there.
func (f *Fields) Text(key string) (*Node, error) {
	v, err := f.get(key)
	if err != nil {
		return nil, err
	}
	if v.Kind != Text {
		return nil, v.Errorf("%q must be %s, not %s; put it in quotes", key, Text, v.What())
	}
	return v, nil
}

// Number returns the number under key, which must be there.
func (f *Fields) Number(key string) (*Node, error) {
	v, err := f.get(key)
	if err != nil {
		return nil, err
	}
	switch v.Kind {
	case Number:
		return v, nil
	case OddNumber:
		return nil, v.oddNumber()
	}
	return nil, v.Errorf("%q must be %s, not %s", key, Number, v.Kind)
}

// Boolean returns what is under key; false if it is not there.
func (f *Fields) Boolean(key string) (bool, error) {
	v, ok := f.Get(key)
	if !ok {
		return false, nil
	}
	if v.Kind != Boolean {
		return false, v.Errorf("%q must be %s, not %s", key, Boolean, v.What())
	}
	return v.Yes, nil
}

// Duration returns the time under key; 0 if it is not there. It is above 0, at
// most max, and whole in unit, which is a second or a millisecond.
func (f *Fields) Duration(key string, unit, max time.Duration) (time.Duration, error) {
	v, ok := f.Get(key)
	if !ok {
		return 0, nil
	}
	d, err := time.ParseDuration(v.Text)
	if err != nil || v.Kind != Text {
		return 0, v.Errorf("%q must be a duration with its unit, such as 5s", key)
	}
	if d <= 0 || d > max || d%unit != 0 {
		units := "seconds"
		if unit == time.Millisecond {
			units = "milliseconds"
		}
		return 0, v.Errorf("%s %q: must be whole %s, above 0 and at most %v", key, v.Text, units, max)
	}
	return d, nil
}

// List returns the items under key, which must be there.
func (f *Fields) List(key string) ([]*Node, error) {
	v, err := f.get(key)
	if err != nil {
		return nil, err
	}
	if v.Kind != Sequence {
		return nil, v.Errorf("%q must be %s, not %s", key, Sequence, v.What())
	}
	return v.Items, nil
}

// Strings returns the strings under key, sorted; nil if it is not there. Each
// passes check and is there once.
func (f *Fields) Strings(key string, check func(*Node) error) ([]string, error) {
	if _, ok := f.Find(key); !ok {
		return nil, nil
	}
	items, err := f.List(key)
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	for _, v := range items {
		if v.Kind != Text {
			return nil, v.Errorf("%q must hold strings, not %s; put it in quotes", key, v.What())
		}
		if err := check(v); err != nil {
			return nil, err
		}
		if seen[v.Text] {
			return nil, v.Errorf("%q is there twice in %q", v.Text, key)
		}
		seen[v.Text] = true
		out = append(out, v.Text)
	}
	slices.Sort(out)
	return out, nil
}
