package manifest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/strictyaml"
)

// vector is one of docs/grant-manifest-vectors.json.
type vector struct {
	Name     string
	Sections []string // of docs/grant-manifest.md
	Tools    []struct {
		Tool     string
		HTTP     bool
		Input    json.RawMessage // JSON Schema: of the arguments, or of the parts
		Volatile []string
	}
	Manifest json.RawMessage
	Valid    bool
	Form     bool // of one that is not valid: its form is, so that the JSON Schema takes it
	Tasks    []struct {
		Params   json.RawMessage // absent: none
		Started  bool
		Complete json.RawMessage // the parameters of the task; absent: not looked at
		Steps    []step
	}
}

// step asks for a grant, or makes a call under one.
type step struct {
	Grant  string          // a name for a grant that is asked for, with all that the manifest has
	Tool   string          // of it
	Once   json.RawMessage // the input that it is bound to; absent: none
	Renews string          // the name of the grant that it renews, which lives on
	Issued bool

	Call    string // the name of the grant that is used
	Input   json.RawMessage
	Outcome string // allow, constraint, budget_spent
}

func vectors(t *testing.T) (out []vector) {
	t.Helper()
	text, err := os.ReadFile("../docs/grant-manifest-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := strictjson.Parse(text, strictjson.Limits{}); err != nil { // no implementation reads it in another way
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// catalogue makes one of the vector's tools, for both readings.
func (v *vector) catalogue(t *testing.T) (*catalog.Catalog, map[string]toolInput) {
	t.Helper()
	inputs := map[string]toolInput{}
	servers := map[string]object{}
	for _, tool := range v.Tools {
		id, name, _ := strings.Cut(tool.Tool, "/")
		in := parse(t, tool.Input).(object)
		inputs[tool.Tool] = toolInput{schema: in, http: tool.HTTP, volatile: tool.Volatile}
		s := servers[id]
		if s == nil {
			s = object{"id": id, "resource": "https://" + id + ".internal/mcp", "upstream": "127.0.0.1:1"}
			servers[id] = s
		}
		entry := object{"tool": name}
		if len(tool.Volatile) > 0 {
			entry["volatile"] = tool.Volatile
		}
		key := "tools"
		if tool.HTTP {
			key = "http"
			entry["method"], entry["path"] = "POST", "/"+name
			parts := in["properties"].(object)
			for part, schema := range parts {
				if entry[part] = schema; part != "body" {
					entry[part] = schema.(object)["properties"]
				}
			}
		} else {
			entry["input"], s["mcp"] = in, object{"path": "/" + id}
		}
		tools, _ := s[key].([]any)
		s[key] = append(tools, entry)
	}
	list := []any{}
	for _, s := range servers {
		list = append(list, s)
	}
	c, err := catalog.Parse("tools.yaml", marshal(object{"servers": list}))
	if err != nil {
		t.Fatal(err)
	}
	return c, inputs
}

// TestVectors runs the published vectors against this implementation, and against
// the reading that TestClosed holds it to.
func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			cat, inputs := v.catalogue(t)
			_, err := manifest.Parse("m.yaml", compact(t, v.Manifest), cat)
			if valid := err == nil; valid != v.Valid {
				t.Fatalf("valid: %v, want %v (%v)", valid, v.Valid, err)
			}
			if !v.Valid {
				return
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "m.yaml"), compact(t, v.Manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			set, err := manifest.Load(dir, cat)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				d := &driver{T: t, m: &maker{Rand: rand.New(rand.NewPCG(1, 2))}, n: map[string]int{}, cat: cat, set: set}
				defer d.open()()
				for i := range v.Tasks {
					v.run(d, i, inputs)
				}
			})
		})
	}
}

// run is one task of the vector.
func (v *vector) run(d *driver, i int, inputs map[string]toolInput) {
	task := v.Tasks[i]
	doc := parse(d.T, v.Manifest).(object)
	mf, _ := d.set.Kind(doc["kind"].(string))
	params, err := mf.ReadParams(task.Params)
	if started := err == nil; started != task.Started {
		d.Fatalf("task %d: started: %v, want %v (%v)", i, started, task.Started, err)
	}
	values, isObject := object{}, true
	if task.Params != nil {
		values, isObject = parse(d.T, task.Params).(object)
	}
	r, ok := read(doc, inputs, values)
	if ok = ok && isObject; ok != task.Started {
		d.Fatalf("task %d: in the reading of the test, started: %v", i, ok)
	}
	if !ok {
		return
	}
	if task.Complete != nil && !equal(parse(d.T, params), parse(d.T, task.Complete)) {
		d.Fatalf("task %d: parameters %s, want %s", i, params, task.Complete)
	}
	p := d.start(r, mf, params)
	held := map[string]*holding{}
	for j, s := range task.Steps {
		at := fmt.Sprintf("task %d, step %d", i, j)
		if s.Grant != "" {
			h := v.grant(p, s, held[s.Renews])
			if issued := h != nil; issued != s.Issued {
				d.Fatalf("%s: issued: %v, want %v", at, issued, s.Issued)
			}
			held[s.Grant] = h
			continue
		}
		input, err := strictjson.Parse(s.Input, strictjson.Limits{})
		d.must(err)
		h, plain := held[s.Call], parse(d.T, s.Input)
		got, reads := p.passes(h.id, input), r.refuses(h.given, plain)
		if got == "" && reads == "" {
			r.spend(h.given, plain)
		}
		for who, outcome := range map[string]string{"the doors": got, "the reading of the test": reads} {
			if outcome = orAllow(outcome); outcome != s.Outcome {
				d.Fatalf("%s: %s: %s, want %s", at, who, outcome, s.Outcome)
			}
		}
	}
}

func orAllow(why string) string {
	if why == "" {
		return "allow"
	}
	return why
}

// grant asks for all that the manifest has; nil: it is not admitted, or not issued.
func (v *vector) grant(p *play, s step, old *holding) *holding {
	e, ok, err := p.mf.Entry(s.Tool, p.task.Params)
	if err != nil || !ok {
		p.Fatalf("entry of %s: %v, %v", s.Tool, ok, err)
	}
	now := time.Now()
	g := grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: p.task.ID, Agent: bot, Requester: bot, Tool: s.Tool, Pin: e.Tool.Digest,
		NotBefore: now, Expires: now.Add(2 * time.Second), Rev: p.table.Rev(),
	}
	h := &holding{id: g.ID, given: &given{tool: s.Tool}}
	if e.Constraint != nil {
		g.Constraints = []json.RawMessage{e.Constraint}
	}
	switch {
	case old != nil:
		was, _ := p.table.Grant(old.id)
		g.Renews, g.Once, g.Budgets, h.given = old.id, was.Once, was.Budgets, old.given
	default:
		if e.MaxCalls > 0 {
			g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(p.task.ID, s.Tool, ""), Limit: e.MaxCalls})
		}
		for arg, limit := range e.Sums {
			g.Budgets = append(g.Budgets, grants.Budget{Key: grants.TaskBudget(p.task.ID, s.Tool, arg), Arg: arg, Limit: limit})
		}
		if s.Once != nil {
			h.given.bound, h.given.once = true, parse(p.T, s.Once)
			input, err := strictjson.Parse(s.Once, strictjson.Limits{})
			p.must(err)
			g.Once, err = grants.OnceDigest(input, e.Tool.Volatile)
			p.must(err)
			g.Budgets = append(g.Budgets, grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 1})
		}
	}
	if p.set.Admits(&p.task, &g) != nil {
		return nil
	}
	rev, why, err := p.store.Issue(p.Context(), []grants.Grant{g})
	p.must(err)
	if why != grants.None {
		return nil
	}
	p.must(p.table.Wait(p.Context(), rev))
	return h
}

// TestSchema holds the JSON Schema against what is read: it takes every manifest
// that is read, and refuses those of the vectors whose form is at fault.
func TestSchema(t *testing.T) {
	text, err := os.ReadFile("../docs/grant-manifest.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	form, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, text []byte, want bool) {
		t.Helper()
		var v any // numbers as float64, which is what the validator knows
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		if err := form.Validate(v); (err == nil) != want {
			t.Errorf("by the schema: %v\n%s", err, text)
		}
	}
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) { check(t, v.Manifest, v.Valid || v.Form) })
	}
	ours, err := filepath.Glob("../examples/*/manifests/*.yaml")
	if err != nil || len(ours) == 0 {
		t.Fatalf("our own manifests: %v, %v", ours, err)
	}
	for _, path := range ours {
		t.Run(path, func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			root, err := strictyaml.Parse(text, manifest.MaxFile)
			if err != nil {
				t.Fatal(err)
			}
			check(t, marshal(plainOf(t, root)), true)
		})
	}
	m := &maker{Rand: rand.New(rand.NewPCG(3, 4))}
	read := 0
	for range 20 {
		text, inputs := m.catalogue()
		cat, err := catalog.Parse("tools.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			m.kind = "k"
			doc := marshal(m.manifest(inputs))
			if _, err := manifest.Parse("m.yaml", doc, cat); err == nil {
				read++
				check(t, doc, true)
			}
		}
	}
	if read < 200 {
		t.Errorf("%d of 400 random manifests are read: that says too little", read)
	}
}

// plainOf is a YAML document as a JSON value.
func plainOf(t *testing.T, n *strictyaml.Node) any {
	t.Helper()
	switch n.Kind {
	case strictyaml.Mapping:
		out := object{}
		for _, f := range n.Fields {
			out[f.Key.Text] = plainOf(t, f.Value)
		}
		return out
	case strictyaml.Sequence:
		out := []any{}
		for _, item := range n.Items {
			out = append(out, plainOf(t, item))
		}
		return out
	case strictyaml.Number:
		return json.Number(n.Text)
	}
	v, err := n.Value()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func compact(t *testing.T, raw json.RawMessage) []byte {
	t.Helper()
	return marshal(raw) // without blanks and line ends
}
