package cedar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"pgregory.net/rapid"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar/cedartest"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// refCase is policies and the schema that they are validated against.
type refCase struct {
	name     string
	Schema   string `json:"schema"`
	Policies string `json:"policies"`
}

// refVerdict is what the reference says of a case.
type refVerdict struct {
	Errors  []string // of what cannot be read
	Refused []string // "policy0 WHY"
}

func (v refVerdict) refuses(id string) (why string, refused bool) {
	for _, r := range v.Refused {
		if of, why, _ := strings.Cut(r, " "); of == id {
			return why, true
		}
	}
	return "", false
}

// reference asks @cedar-policy/cedar-wasm, by cedar/reference/validate.mjs.
func reference(t *testing.T, cases []refCase) []refVerdict {
	t.Helper()
	parts := peers.Find(t)
	dir := t.TempDir()
	script, err := os.ReadFile("reference/validate.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "validate.mjs"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := parts.Modules(dir); err != nil {
		t.Fatal(err)
	}
	var in strings.Builder
	for _, c := range cases {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	cmd := parts.Node(filepath.Join(dir, "validate.mjs"))
	cmd.Stdin = strings.NewReader(in.String())
	text, err := peers.Run(t, cmd)
	if err != nil {
		t.Fatalf("%v: is what package-lock.json pins there? run `make mcp`", err)
	}
	var out []refVerdict
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var v refVerdict
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	if len(out) != len(cases) {
		t.Fatalf("%d answers to %d cases", len(out), len(cases))
	}
	return out
}

func skipIfShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("the reference validator is a part that `make mcp` fetches")
	}
}

// Whatever of ours loads, the reference takes too; and it refuses what it should,
// or this would show nothing.
func TestReference(t *testing.T) {
	skipIfShort(t)
	var cases []refCase
	add := func(name, policies string, c *catalog.Catalog) {
		text, err := SchemaText(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, refCase{name, string(text), policies})
	}
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	loadTools := func(name string) *catalog.Catalog {
		c, err := catalog.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	reports := loadTools("../examples/reports/tools.yaml")
	for dir, c := range map[string]*catalog.Catalog{
		"../examples/reports/policies": reports, "../examples/mcp/policies": loadTools("../examples/mcp/tools.yaml"), "testdata/example": testCatalog(t),
	} {
		files, err := filepath.Glob(dir + "/*.cedar")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, f := range files {
			add(f, read(f), c)
		}
	}
	add("MCPBaseline", MCPBaseline, mcpCatalog(t))
	blocks := regexp.MustCompile("(?s)```cedar\n(.*?)```").FindAllStringSubmatch(read("../README.md"), -1)
	if len(blocks) < 2 {
		t.Errorf("README.md has %d policies", len(blocks))
	}
	for _, b := range blocks {
		add("README.md", b[1], reports)
	}
	const ofParams = `@id("a") permit (principal, action == Toolgrant::Action::"grant", resource)
when { context.once && context.task has params.limit && context.task.params.limit.lessThan(decimal("5.0")) };`
	withParams, err := SchemaText(testCatalog(t), bounded(t, ofParams).Manifests())
	if err != nil {
		t.Fatal(err)
	}
	cases = append(cases, refCase{"parameters of manifests", string(withParams), ofParams})
	ours := len(cases)
	add("refused by both", `permit (principal, action, resource) when { context.grant.nosuch };`, reports)
	add("read by none", `permit (principal`, reports)
	for i, v := range reference(t, cases) {
		if refused := len(v.Errors)+len(v.Refused) > 0; refused != (i >= ours) {
			t.Errorf("%s: errors %q, refused %q", cases[i].name, v.Errors, v.Refused)
		}
	}
}

// Random policies about our schema that load, the reference takes too.
func TestReferenceOverRandomPolicies(t *testing.T) {
	skipIfShort(t)
	c := mcpCatalog(t)
	schema, err := SchemaText(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	const entities = `[{"uid": {"type": "Toolgrant::AgentGroup", "id": "staff"}}, {"uid": {"type": "Toolgrant::AgentGroup", "id": "ci"}},
		{"uid": {"type": "Toolgrant::TaskKind", "id": "release"}}, {"uid": {"type": "Toolgrant::TaskKind", "id": "other"}}]`
	var accepted []string
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			text := randomPolicies(t)
			src := source{policies: []file{{"p.cedar", []byte(text)}}, entities: []byte(entities)}
			if _, err := load(src, Config{Catalog: c}); err == nil {
				accepted = append(accepted, strings.SplitAfter(strings.TrimSpace(text), ";\n")...)
			}
		}
	})
	if len(accepted) < 200 {
		t.Errorf("of the random policies, only %d load", len(accepted))
	}
	// As one case: each policy is validated by itself, and the schema is read once.
	v := reference(t, []refCase{{"random", string(schema), strings.Join(accepted, "\n")}})[0]
	if len(v.Errors) > 0 {
		t.Fatal(v.Errors)
	}
	for i, text := range accepted {
		if why, refused := v.refuses(fmt.Sprintf("policy%d", i)); refused {
			t.Errorf("the reference refuses it: %s\n%s", why, text)
		}
	}
	t.Logf("%d policies", len(accepted))
}

// Of the policies of Cedar's corpus, with its schemas, the validator that Load uses
// takes none that the reference refuses. There is one class that it refuses alone,
// which is the safe side: a scope that no action of the schema fits, of which the
// reference only warns.
func TestReferenceOverCorpus(t *testing.T) {
	skipIfShort(t)
	files := cedartest.Corpus(t)
	var cases []refCase
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if base, is := strings.CutSuffix(name, ".cedar"); is {
			cases = append(cases, refCase{base, string(files[base+".cedarschema"]), string(files[name])})
		}
	}
	var policies, refused, alone int
	for i, v := range reference(t, cases) {
		c := cases[i]
		var of schema.Schema
		err := of.UnmarshalCedar([]byte(c.Schema))
		if err != nil {
			t.Fatalf("%s: schema: %v", c.name, err)
		}
		resolved, err := of.Resolve()
		list, errPolicies := cedargo.NewPolicyListFromBytes(c.name, []byte(c.Policies))
		if len(v.Errors) > 0 || err != nil || errPolicies != nil {
			if bad := err != nil || errPolicies != nil; bad != (len(v.Errors) > 0) {
				t.Errorf("%s: %v, %v, and the reference says %q", c.name, err, errPolicies, v.Errors)
			}
			continue
		}
		check := validate.New(resolved)
		for n, p := range list {
			policies++
			err := check.Policy("", (*ast.Policy)(p.AST()))
			why, theirs := v.refuses(fmt.Sprintf("policy%d", n))
			switch {
			case theirs && err == nil:
				t.Errorf("%s: accepted here, and the reference refuses it: %s", c.name, why)
			case theirs:
				refused++
			case err != nil && strings.Contains(err.Error(), "applicable action"):
				alone++
			case err != nil:
				t.Errorf("%s: the reference accepts it, and here: %v", c.name, err)
			}
		}
	}
	t.Logf("%d policies of %d cases: %d refused by both, %d here alone", policies, len(cases), refused, alone)
	if policies < 5000 || refused < 1000 {
		t.Error("the corpus tries too little")
	}
}
