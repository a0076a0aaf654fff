package cedar

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/cedar/cedartest"
	"github.com/toolgrant/toolgrant/grants"
)

// corpusRoute gives the policies that could match a request, as a Set finds them:
// by the index, over the entities with all of their ancestors. The corpus has
// actions whose parents are no chain, which our schema has not, and a policy that
// is filed under two of them is met once all the same.
func corpusRoute(policies *cedargo.PolicySet, entities cedargo.EntityMap, r cedargo.Request) route {
	above := func(uid cedargo.EntityUID) []cedargo.EntityUID {
		all := []cedargo.EntityUID{uid}
		for i := 0; i < len(all); i++ {
			for parent := range entities[all[i]].Parents.All() {
				if !slices.Contains(all, parent) {
					all = append(all, parent)
				}
			}
		}
		return all
	}
	ix := index{}
	for id, p := range policies.All() {
		ix.add(entry{id, p}, entities)
	}
	var out route
	met := map[cedargo.PolicyID]bool{}
	for _, list := range ix.route(above(r.Action), above(r.Resource)) {
		for _, e := range list {
			if !met[e.id] {
				met[e.id] = true
				out = append(out, []entry{e})
			}
		}
	}
	return out
}

// Through what a Set does (its routes, its view of the entities, its reading of
// the answer), every request of the corpus is decided as the corpus says, by the
// policies that it says. There is one difference, and it is looked for: where it
// says that a policy errs, the answer is no and names those that erred. And none of
// the corpus's policies, made for other schemas and without ids, loads.
func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("the corpus takes some seconds")
	}
	type uid struct{ Type, ID string }
	entity := func(u uid) cedargo.EntityUID {
		return cedargo.NewEntityUID(cedargo.EntityType(u.Type), cedargo.String(u.ID))
	}
	files := cedartest.Corpus(t)
	c := testCatalog(t)
	var cases, requests, errs int
	for name, text := range files {
		if !strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".entities.json") {
			continue
		}
		cases++
		var test struct {
			Policies, Entities string
			Requests           []struct {
				Principal, Action, Resource uid
				Context                     cedargo.Record
				Decision                    string
				Reason, Errors              []string
			}
		}
		if err := json.Unmarshal(text, &test); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		policies := files[path.Base(test.Policies)]
		if _, err := load(source{policies: []file{{"p.cedar", policies}}}, Config{Catalog: c}); err == nil {
			t.Errorf("%s loads", test.Policies)
		}
		set, err := cedargo.NewPolicySetFromBytes(name, policies)
		if err != nil {
			t.Fatalf("%s: %v", test.Policies, err)
		}
		var entities cedargo.EntityMap
		if err := json.Unmarshal(files[path.Base(test.Entities)], &entities); err != nil {
			t.Fatalf("%s: %v", test.Entities, err)
		}
		for i, r := range test.Requests {
			requests++
			request := cedargo.Request{
				Principal: entity(r.Principal), Action: entity(r.Action), Resource: entity(r.Resource), Context: r.Context,
			}
			decision, diag := cedargo.Authorize(corpusRoute(set, entities, request), &view{base: entities}, request)
			got := verdict(decision, diag)
			// What it is without a look at errors, and then with one.
			diag.Errors = nil
			want := grants.Decision{Allow: r.Decision == "allow", Policies: sorted(r.Reason)}
			if !want.Allow {
				want.Reason = grants.Policy
			}
			if diff := cmp.Diff(want, verdict(decision, diag)); diff != "" {
				t.Errorf("%s, request %d, without errors: %s", name, i, diff)
			}
			if len(r.Errors) > 0 {
				errs++
				want = grants.Decision{Reason: grants.PolicyError, Policies: sorted(r.Errors)}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, request %d: %s", name, i, diff)
			}
		}
	}
	t.Logf("%d requests of %d cases; policies err in %d", requests, cases, errs)
	if cases < 1000 || requests < 8*cases || errs < 1000 {
		t.Error("the corpus tries too little")
	}
}

// sorted gives the ids in order; nil for none.
func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

// Row P01 of the threats, with files of the corpus: each is good Cedar for another
// schema, and gets ids, so that it is refused for what it says. None comes into
// force, the set of before stays, and each failure is told.
func TestCorpusReload(t *testing.T) {
	if testing.Short() {
		t.Skip("the corpus takes some seconds")
	}
	files := cedartest.Corpus(t)
	w := watch(t, dir(t, "p.cedar", onlyPay))
	first := w.Current()
	tried := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, policySuffix) {
			continue
		}
		list, err := cedargo.NewPolicyListFromBytes(name, files[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var text strings.Builder
		done := 0
		for i, p := range list {
			at := p.Position().Offset
			text.Write(files[name][done:at])
			fmt.Fprintf(&text, "@id(\"p%d\")\n", i)
			done = at
		}
		text.Write(files[name][done:])
		if _, err := load(source{policies: []file{{"q.cedar", []byte(text.String())}}}, w.cfg); err == nil {
			continue // it names nothing: permit (principal, action, resource) when { true };
		}
		w.write(t, "q.cedar", text.String())
		changed, err := w.Reload()
		if tried++; changed || err == nil || w.Current() != first || w.Status().Failed == nil {
			t.Errorf("%s: reloaded: %v, %v", name, changed, err)
		}
		if err == nil || strings.Contains(err.Error(), "@id") || !strings.Contains(err.Error(), "q.cedar:") {
			t.Errorf("%s is not refused for what it says: %v", name, err)
		}
		w.permits(t, true, false)
		w.told(t, 0, tried)
		if tried == 100 {
			return
		}
	}
	t.Errorf("only %d files", tried)
}
