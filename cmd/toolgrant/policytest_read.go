package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/spelling"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

const maxTestFile = 1 << 20 // bytes

// policyTest is one case of a file: a question to policy, or a story.
type policyTest struct {
	file         string
	line, column int
	name         string
	question     *asking // nil: a story
	want         expectation
	story        []storyStep
}

// testReader reads the files of policy tests. All names in them must be there: a
// misspelt one would let a test pass for another reason than its author's.
type testReader struct {
	cfg     *Config
	catalog *catalog.Catalog
	set     *cedar.Set
	now     time.Time

	agents map[string]grants.Principal // of the file that is read: short name -> who that is
}

// findTests gives the test files of a place, which is a file or a folder.
func findTests(place string) ([]string, error) {
	info, err := os.Stat(place)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{place}, nil
	}
	entries, err := os.ReadDir(place)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, ".yaml"):
			files = append(files, filepath.Join(place, name))
		case strings.EqualFold(filepath.Ext(name), ".yml"), strings.EqualFold(filepath.Ext(name), ".yaml"):
			return nil, fmt.Errorf("%s: would not be read: name it .yaml", filepath.Join(place, name))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no tests: there is no *.yaml in it", place)
	}
	return files, nil
}

// readFile reads all cases of a file. The error joins what is wrong with each.
func (r *testReader) readFile(path string) ([]*policyTest, error) {
	text, err := readFile(path, maxTestFile+1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	placed := func(err error) error {
		if at, ok := errors.AsType[*strictyaml.PosError](err); ok {
			return &ConfigError{path, at.Line, at.Column, at.Message}
		}
		return &ConfigError{File: path, Text: err.Error()}
	}
	root, err := strictyaml.Parse(text, maxTestFile)
	if err != nil {
		return nil, placed(err)
	}
	f, err := root.Keys("agents", "tests")
	if err != nil {
		return nil, placed(err)
	}
	if r.agents, err = r.readAgents(f); err != nil {
		return nil, placed(err)
	}
	list, err := f.List("tests")
	if err != nil {
		return nil, placed(err)
	}
	var tests []*policyTest
	var faults []error
	seen := map[string]bool{}
	for _, n := range list {
		t, err := r.readTest(n)
		if err == nil && seen[t.name] {
			err = n.Errorf("a test named %q is there already", t.name)
		}
		if err != nil {
			faults = append(faults, placed(err))
			continue
		}
		t.file, seen[t.name] = path, true
		tests = append(tests, t)
	}
	if len(list) == 0 {
		faults = append(faults, placed(f.Errorf("\"tests\" is empty")))
	}
	return tests, errors.Join(faults...)
}

func (r *testReader) readAgents(f *strictyaml.Fields) (map[string]grants.Principal, error) {
	v, ok := f.Get("agents")
	if !ok {
		return nil, nil
	}
	if v.Kind != strictyaml.Mapping {
		return nil, v.Errorf("\"agents\" must be a mapping of short names, such as ci: {id: corp/ci-1, groups: [ci]}")
	}
	agents := map[string]grants.Principal{}
	for _, a := range v.Fields {
		af, err := a.Value.Keys("id", "groups")
		if err != nil {
			return nil, err
		}
		id, err := af.Text("id")
		if err != nil {
			return nil, err
		}
		p, ok := identity.ParseAgent(id.Text)
		if !ok {
			return nil, id.Errorf("%q is no agent: write ISSUER-ALIAS/SUBJECT", id.Text)
		}
		if known := aliases(r.cfg); !slices.Contains(known, p.Issuer) {
			return nil, id.Errorf("no issuer of identities has the alias %q%s", p.Issuer, nearest(p.Issuer, known))
		}
		if p.Groups, err = af.Strings("groups", func(g *strictyaml.Node) error { return r.checkGroup(p.Issuer, g) }); err != nil {
			return nil, err
		}
		agents[a.Key.Text] = p
	}
	return agents, nil
}

// checkGroup refuses a group that no identity token of the issuer could bring.
func (r *testReader) checkGroup(alias string, g *strictyaml.Node) error {
	var mapped map[string]string
	for _, is := range r.cfg.Identity.Issuers {
		if is.Alias == alias {
			mapped = is.Groups
		}
	}
	if _, ok := issuersGroup(alias, g.Text, mapped); ok {
		return nil
	}
	known := slices.Sorted(maps.Values(mapped))
	return g.Errorf("no identity token of %s brings the group %q%s (one that is not mapped is %s/GROUP; those that entities.json puts an agent into come by its id)",
		alias, g.Text, nearest(g.Text, known), alias)
}

// issuersGroup is the group as the issuer's token has to name it, so that it is
// the group of policy.
func issuersGroup(alias, group string, mapped map[string]string) (string, bool) {
	for _, from := range slices.Sorted(maps.Keys(mapped)) {
		if mapped[from] == group {
			return from, true
		}
	}
	from, ok := strings.CutPrefix(group, alias+"/")
	_, taken := mapped[from]
	return from, ok && from != "" && !taken
}

// testKinds are what a case can be about.
var testKinds = []string{
	grants.ActionStartTask, grants.ActionEndTask, grants.ActionGrant, grants.ActionAskFor, grants.ActionRevoke, "call", "mcp", "story",
}

func (r *testReader) readTest(n *strictyaml.Node) (*policyTest, error) {
	f, err := n.Keys(append([]string{"name", "expect", "reason", "by", "advice"}, testKinds...)...)
	if err != nil {
		return nil, err
	}
	name, err := f.Text("name")
	if err != nil {
		return nil, err
	}
	t := &policyTest{name: name.Text, line: n.Line, column: n.Column}
	kind, err := oneOf(f, testKinds)
	if err != nil {
		return nil, err
	}
	if kind.Key.Text == "story" {
		for _, key := range []string{"expect", "reason", "by", "advice"} {
			if k, ok := f.Key(key); ok {
				return nil, k.Errorf("%q belongs to the steps of a story", key)
			}
		}
		t.story, err = r.readStory(f)
		return t, err
	}
	if _, ok := f.Find("expect"); !ok {
		return nil, n.Errorf("\"expect\" is missing: allow or deny")
	}
	if t.want, err = r.readExpectation(f); err != nil {
		return nil, err
	}
	t.question, err = r.readQuestion(kind.Key.Text, kind.Value)
	return t, err
}

// oneOf is the one of the keys that is there.
func oneOf(f *strictyaml.Fields, keys []string) (strictyaml.Field, error) {
	var found []strictyaml.Field
	for _, key := range keys {
		if e, ok := f.Find(key); ok {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return strictyaml.Field{}, f.Errorf("says nothing to do: write one of %s", strings.Join(keys, ", "))
	case 1:
		return found[0], nil
	}
	return strictyaml.Field{}, found[1].Key.Errorf("there is %q already: make two of it", found[0].Key.Text)
}

// agent reads the short name of an agent under key, or gives the other one.
func (r *testReader) agent(f *strictyaml.Fields, key string, other *grants.Principal) (grants.Principal, error) {
	if _, ok := f.Find(key); !ok && other != nil {
		return *other, nil
	}
	v, err := f.Text(key)
	if err != nil {
		return grants.Principal{}, err
	}
	return r.agentAt(v)
}

func (r *testReader) agentAt(v *strictyaml.Node) (grants.Principal, error) {
	p, ok := r.agents[v.Text]
	if !ok || v.Kind != strictyaml.Text {
		return p, v.Errorf("%q is none of \"agents\"%s", v.Text, nearest(v.Text, slices.Sorted(maps.Keys(r.agents))))
	}
	return p, nil
}

// kind reads the kind of a task. Policies would be asked about one that nobody
// knows, too, and a test of it would pass for its misspelling.
func (r *testReader) kind(f *strictyaml.Fields) (string, error) {
	v, err := f.Text("kind")
	if err != nil {
		return "", err
	}
	if known := r.set.Kinds(); !slices.Contains(known, v.Text) {
		return "", v.Errorf("no kind of task is called %q: entities.json does not declare it, and it has no manifest%s", v.Text, nearest(v.Text, known))
	}
	return v.Text, nil
}

func (r *testReader) tool(f *strictyaml.Fields) (*catalog.Tool, error) {
	v, err := f.Text("tool")
	if err != nil {
		return nil, err
	}
	return r.toolAt(v)
}

func (r *testReader) toolAt(v *strictyaml.Node) (*catalog.Tool, error) {
	if t, ok := r.catalog.Tool(v.Text); ok {
		return t, nil
	}
	var all []string
	for t := range r.catalog.AllTools() {
		all = append(all, t.ID)
	}
	return nil, v.Errorf("%q is no tool of the catalogue%s", v.Text, nearest(v.Text, all))
}

// object reads what is under key as package strictjson would give it; nil: it is
// not there.
func object(f *strictyaml.Fields, key string) (map[string]any, error) {
	n, ok := f.Get(key)
	if !ok {
		return nil, nil
	}
	if n.Kind != strictyaml.Mapping {
		return nil, n.Errorf("%q must be %s, not %s", key, strictyaml.Mapping, n.Kind)
	}
	v, err := n.Value()
	if err != nil {
		return nil, err
	}
	if v, err = numbers(v); err == nil {
		_, err = strictjson.Canonical(v) // it is sent as JSON
	}
	if err != nil {
		return nil, n.Errorf("%q: %v", key, err)
	}
	return v.(map[string]any), nil
}

// numbers gives a tree of strictyaml the numbers of strictjson.
func numbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case strictyaml.JSONNumber:
		n := strictjson.Number(v)
		if !n.Valid() {
			return nil, fmt.Errorf("%s is beyond the numbers that are read", v)
		}
		return n, nil
	case []any:
		for i := range v {
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range v {
			if v[name], err = numbers(v[name]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// whole reads a number of times; 0: it is not there.
func whole(f *strictyaml.Fields, key string, most int64) (int64, error) {
	if _, ok := f.Find(key); !ok {
		return 0, nil
	}
	v, err := f.Number(key)
	if err != nil {
		return 0, err
	}
	n, ok := strictjson.Number(v.Text).Int64()
	if !ok || n < 1 || n > most {
		return 0, v.Errorf("%q must be a whole number from 1 to %d", key, most)
	}
	return n, nil
}

// nearest completes an error about a name that is not known: with the one that
// was probably meant, or with all of a few.
func nearest(name string, known []string) string {
	const few = 12
	best := spelling.Nearest(name, known)
	switch {
	case best != "":
		return fmt.Sprintf("; did you mean %q?", best)
	case len(known) == 0:
		return "; there is none"
	case len(known) <= few:
		return "; there are: " + strings.Join(known, ", ")
	}
	return ""
}
