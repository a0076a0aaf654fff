package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/toolgrant/toolgrant/catalog"
)

// Load reads *.yaml of a folder against the catalogue: all of it or nothing. The
// error joins every fault that was found, each with file, line and column. An
// empty folder is the empty set; one that cannot be read is an error, as is one
// with files that look like manifests and would not be read (.yml, sub-folders).
func Load(dir string, c *catalog.Catalog) (*Set, error) {
	files, err := readFolder(func() ([]file, error) { return readOnce(dir) })
	if err != nil {
		return nil, fmt.Errorf("reading the manifests: %w", err)
	}
	s := &Set{kinds: map[string]*Manifest{}}
	var faults []error
	for _, f := range files {
		m, err := Parse(f.name, f.text, c)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if other, ok := s.kinds[m.Kind]; ok {
			faults = append(faults, fmt.Errorf("%s: kind %q already has a manifest, at %s", m.At, m.Kind, other.At))
			continue
		}
		s.kinds[m.Kind] = m
	}
	if faults = append(faults, s.unite()...); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	s.sum()
	return s, nil
}

// unite makes one schema of the parameters of all kinds: policy has one schema
// for all of them, in which a name has one type.
func (s *Set) unite() (faults []error) {
	first := map[string]*parameter{}
	for _, kind := range s.Kinds() {
		m := s.kinds[kind]
		for _, name := range slices.Sorted(maps.Keys(m.params)) {
			p := m.params[name]
			known, ok := first[name]
			if !ok {
				first[name] = p
				if s.params == nil {
					s.params = &catalog.Schema{Type: "object", Properties: map[string]*catalog.Schema{}}
				}
				s.params.Properties[name] = copySchema(p.schema)
				continue
			}
			if p.words() != known.words() {
				faults = append(faults, fmt.Errorf("%s: parameter %q is of type %s here, and of type %s at %s: to policy a name has one type in all kinds; rename one",
					p.at, name, p.words(), known.words(), known.at))
				continue
			}
			uniteEnums(s.params.Properties[name], p.schema)
		}
	}
	return faults
}

func copySchema(s *catalog.Schema) *catalog.Schema {
	if s == nil {
		return nil
	}
	return &catalog.Schema{Type: s.Type, Description: s.Description, Enum: slices.Clone(s.Enum), Items: copySchema(s.Items)}
}

// uniteEnums widens s to what o allows too. No enum allows everything.
func uniteEnums(s, o *catalog.Schema) {
	if len(s.Enum) == 0 || len(o.Enum) == 0 {
		s.Enum = nil
	} else {
		s.Enum = append(s.Enum, o.Enum...)
		slices.Sort(s.Enum)
		s.Enum = slices.Compact(s.Enum)
	}
	if s.Items != nil {
		uniteEnums(s.Items, o.Items)
	}
}

func (s *Set) sum() {
	if len(s.kinds) == 0 {
		return
	}
	h := sha256.New()
	for _, kind := range s.Kinds() { // the text names its kind
		text := s.kinds[kind].text
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(text))))
		h.Write(text)
	}
	h.Sum(s.digest[:0])
}
