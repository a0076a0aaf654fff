package catalog

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/strictyaml"
)

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)

// reader builds a catalogue; its maps notice what is there twice.
type reader struct {
	*Catalog
	routes     map[string]string // "METHOD PATH" -> whose that is; see anyMethod
	toolAt     map[*Tool]*strictyaml.Node
	resourceAt map[*Server]*strictyaml.Node // of "resource"
}

func readCatalog(root *strictyaml.Node) (*Catalog, error) {
	r := reader{
		Catalog:    &Catalog{tools: map[string]*Tool{}, servers: map[string]*Server{}, resources: map[string]*Server{}},
		routes:     map[string]string{},
		toolAt:     map[*Tool]*strictyaml.Node{},
		resourceAt: map[*Server]*strictyaml.Node{},
	}
	f, err := keys(root, "servers")
	if err != nil {
		return nil, err
	}
	list, err := f.List("servers")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, root.Errorf("a catalogue needs at least one server")
	}
	r.Servers = make([]Server, len(list)) // never grown: tools point into it
	for i, n := range list {
		if err := r.server(&r.Servers[i], n); err != nil {
			return nil, err
		}
	}
	if err := r.keptCredentials("", func(t *Tool, err error) error { return r.toolAt[t].Errorf("%v", err) }); err != nil {
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

func checkID(v *strictyaml.Node) error {
	if !idPattern.MatchString(v.Text) {
		return v.Errorf("%q: must match %s", v.Text, idPattern)
	}
	return nil
}

// fields is a mapping whose keys are all known. More methods are where what they
// read is.
type fields struct{ *strictyaml.Fields }

// keys checks that n is a mapping with no keys but the known.
func keys(n *strictyaml.Node, known ...string) (*fields, error) {
	f, err := n.Keys(known...)
	return &fields{f}, err
}

// id returns the id under key, which must be there.
func (f *fields) id(key string) (*strictyaml.Node, error) {
	v, err := f.Text(key)
	if err != nil {
		return nil, err
	}
	return v, checkID(v)
}

// timeout returns the time-out under key; def if it is not there. Envoy and the
// call door count in milliseconds, and take 0 for "none".
func (f *fields) timeout(key string, def time.Duration) (time.Duration, error) {
	d, err := f.Duration(key, time.Millisecond, MaxTimeout)
	return cmp.Or(d, def), err
}
