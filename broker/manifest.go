package broker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// A manifest is a ceiling: what is asked for is narrowed to it before policy is
// asked. That policy was asked within it is not enough, for the manifests of the
// decision can be newer than those that it was narrowed to: so the Decider looks,
// too, and says grants.Manifest.

// manifests are those of today.
func (b *Broker) manifests() *manifest.Set {
	if b.cfg.Manifests == nil {
		return nil
	}
	return b.cfg.Manifests()
}

// reloaded reports whether there are others by now.
func (b *Broker) reloaded(set *manifest.Set) bool { return b.manifests().Digest() != set.Digest() }

// raced is the answer to what was decided on other manifests than it was read with.
func raced() reply { return refused(grants.Conflict, "manifests were just reloaded: ask again") }

// under narrows what is ordered to the manifest of the task's kind. A task whose
// parameters are of a manifest that is gone, or that has none where there is one
// now, has nothing.
func (o *order) under(set *manifest.Set, task *grants.Task) reply {
	m, has := set.Kind(task.Kind)
	switch {
	case !has && task.Params == nil:
		return reply{}
	case !has:
		return refused(grants.Manifest, "the task was started under a manifest that is there no more: start another task")
	case task.Params == nil:
		return refused(grants.Manifest, "the task was started before its kind had a manifest: start another task, with the manifest's parameters")
	}
	if m.MaxDuration > 0 && !task.Started.IsZero() { // the deadline may be of an earlier manifest
		o.end = task.Started.Add(m.MaxDuration)
	}
	for i := range o.asks {
		a := &o.asks[i]
		e, ok, err := m.Entry(a.tool.ID, task.Params)
		switch {
		case !ok && err == nil:
			return refused(grants.Manifest, fmt.Sprintf("the manifest of %s does not have %s", m.Kind, a.tool.ID))
		case err != nil:
			return refused(grants.Manifest, "the manifest does not take the task's parameters any more: start another task")
		}
		*a = a.under(e)
	}
	return reply{}
}

// under is the ask as far as the manifest's entry for the tool goes: nothing in
// it is wider than either of the two.
func (a ask) under(e manifest.Entry) ask {
	a.ttl, a.ceiling, a.oneByOne = shorter(a.ttl, e.TTL), e.Constraint, e.Once
	a.bounds = slices.Clone(a.bounds)
	if e.MaxCalls > 0 {
		a.bounds = narrow(a.bounds, bound{limit: e.MaxCalls})
	}
	for _, arg := range slices.Sorted(maps.Keys(e.Sums)) {
		a.bounds = narrow(a.bounds, bound{arg, e.Sums[arg]})
	}
	// In one order, whoever says it, so that asking again is found to be the same.
	slices.SortFunc(a.bounds, func(x, y bound) int { return cmp.Compare(x.arg, y.arg) })
	return a
}

// shorter is the shorter of two times, of which 0 says nothing.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// narrow adds a bound to others, or narrows the one that is there.
func narrow(bounds []bound, by bound) []bound {
	for i := range bounds {
		if bounds[i].arg == by.arg {
			bounds[i].limit = min(bounds[i].limit, by.limit)
			return bounds
		}
	}
	return append(bounds, by)
}

// with adds a constraint, byte for byte and not twice; nil is none.
func with(constraints []json.RawMessage, one json.RawMessage) []json.RawMessage {
	if one == nil || slices.ContainsFunc(constraints, func(have json.RawMessage) bool { return bytes.Equal(have, one) }) {
		return constraints
	}
	return append(slices.Clip(constraints), one)
}
