// Package manifest reads grant manifests: for each kind of task, which tools it
// may have, with which arguments, how often and how long.
//
// A manifest proposes and policy disposes: nothing is granted because a manifest
// has it, and for a task of its kind nothing is granted that it does not have.
// Parameters are fixed when the task starts; a template becomes a constraint of
// the closed profile (grants.Constraint) by putting whole values in their places.
//
// It is pure: no clock, no network, and no file but those that Load reads.
//
// Invariants:
//   - What a parameter's value holds is data. A place for one is a type of its
//     own in a template, so that no text can become one.
//   - Parameters that ReadParams has returned give an Entry for each tool of
//     the manifest, and its constraint compiles.
//   - What Entry gives and a grant has unchanged, Admits admits.
package manifest

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// MaxTools is how many tools a manifest may have, so that one request can be
// granted all of them: in one write (grants.MaxBatch), and for each server in
// one token (token.MaxDetails, which this package may not import).
const MaxTools = grants.MaxBatch

// Set is all manifests of a folder. It is immutable and safe for concurrent
// use; nil is the empty one.
type Set struct {
	kinds  map[string]*Manifest
	digest grants.Digest
	params *catalog.Schema
}

// Digest is a SHA-256 over all that the manifests say; none for the empty set.
// Comments and the order of keys count for nothing.
func (s *Set) Digest() grants.Digest {
	if s == nil {
		return grants.Digest{}
	}
	return s.digest
}

// Kinds are the kinds of task that have a manifest, sorted.
func (s *Set) Kinds() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.kinds))
}

// Kind returns the manifest of a kind of task.
func (s *Set) Kind(kind string) (*Manifest, bool) {
	if s == nil {
		return nil, false
	}
	m, ok := s.kinds[kind]
	return m, ok
}

// Params describes the parameters of all kinds together, for policy: an object,
// none of whose members is required. A name has one type in all manifests of a
// set. nil: no kind has any.
func (s *Set) Params() *catalog.Schema {
	if s == nil {
		return nil
	}
	return s.params
}

// Manifest says what one kind of task may have.
type Manifest struct {
	Kind        string
	Description string
	MaxDuration time.Duration   // of the task; 0: the broker's maximum
	Params      *catalog.Schema // an object; a parameter that is not required has a default
	Tools       []*Tool         // in the file's order; each tool once
	At          string          // FILE:LINE

	params map[string]*parameter // name -> parameter
	closed *grants.Constraint    // of all parameters, the defaults filled in
	text   []byte                // RFC 8785 text of what the file says
}

// Tool is what a kind of task may have of one tool.
type Tool struct {
	Tool *catalog.Tool
	TTL  time.Duration // of each grant; 0: the broker's maximum
	Once bool          // each grant covers one call, whose input is given when it is asked for

	calls *bound
	sums  []sum
	input map[string]any // a schema of the profile with places in it; nil: any input
	uses  []use          // what parameters must be to fit their places
	fixed *Entry         // if it has no places: the same for every task
}

// tool returns what the manifest has of a tool.
func (m *Manifest) tool(id string) (*Tool, bool) {
	i := slices.IndexFunc(m.Tools, func(t *Tool) bool { return t.Tool.ID == id })
	if i < 0 {
		return nil, false
	}
	return m.Tools[i], true
}

// Entry is what a Tool says for one task: its parameters are in their places.
// It is not to be changed.
type Entry struct {
	Tool       *catalog.Tool
	TTL        time.Duration
	MaxCalls   int64            // over all calls of the task; 0: not bounded
	Sums       map[string]int64 // JSON Pointer into the input -> units of 10^-4, over all calls of the task
	Constraint json.RawMessage  // RFC 8785 text in the closed profile; nil: any input
	Once       bool
}
