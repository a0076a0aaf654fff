package main_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/toolgrant/toolgrant"

// arrows says which of our own packages a package may import. What tests
// import besides stands apart, so that a test's convenience never becomes a
// dependency of the program.
type arrows struct {
	code  []string
	tests []string // besides code, the package itself and support
}

// support is for tests alone; it stands in no code column.
var support = []string{"cedar/cedartest", "envoy/envoytest", "grants/grantstest", "examples/mcp/clients", "examples/mcp/notes", "examples/mcp/peers"}

// rooms is ARCHITECTURE.md's drawing of the packages as a table. The two doors,
// broker and authz, never import each other, and they are handed what decides:
// neither knows Cedar. Envoy's config, Cedar and JOSE each stay in one room.
var rooms = map[string]arrows{
	"confdir":    {},
	"spelling":   {},
	"strictjson": {},
	"strictyaml": {},
	"catalog":    {code: []string{"strictyaml"}},
	"client":     {},
	"grants":     {code: []string{"strictjson"}},
	"token":      {code: []string{"grants", "strictjson"}},
	"identity":   {code: []string{"grants", "token"}},
	"audit":      {code: []string{"grants"}},
	"manifest":   {code: []string{"catalog", "confdir", "grants", "spelling", "strictjson", "strictyaml"}},
	"cedar":      {code: []string{"authz/mcp", "catalog", "confdir", "grants", "manifest", "spelling", "strictjson"}},
	"pdp":        {code: []string{"authz/mcp", "catalog", "grants", "manifest", "strictjson"}},
	"replay":     {code: []string{"audit", "catalog", "grants", "strictjson"}},
	"envoy":      {code: []string{"catalog"}},
	"broker":     {code: append([]string{"manifest"}, doors...)},
	"authz":      {code: append([]string{"authz/mcp"}, doors...), tests: []string{"envoy"}},
	"authz/mcp":  {code: []string{"strictjson"}},
	"surface":    {code: []string{"authz/mcp", "catalog", "strictjson"}},

	"cmd/toolgrant": {code: append([]string{"manifest", "pdp", "replay", "spelling", "strictyaml", "authz", "authz/mcp", "surface", "broker", "cedar", "client", "envoy", "examples/reports"}, doors...)},

	"examples/demo":    {code: []string{"examples/stage"}},
	"examples/reports": {},
	"examples/stage":   {},

	"examples/mcp/clients":    {code: []string{"examples/mcp/peers", "examples/stage"}, tests: []string{"examples/mcp/notes"}}, // of tests alone
	"examples/mcp/clients/go": {code: []string{"client"}},
	"examples/mcp/notes":      {},
	"examples/mcp/play":       {code: []string{"examples/mcp/clients", "examples/mcp/peers", "examples/stage"}},
	"examples/mcp/peers":      {code: []string{"examples/stage"}},
	"examples/mcp/server":     {code: []string{"examples/mcp/notes"}},

	"examples/reports/tool": {code: []string{"examples/reports"}},

	"cedar/cedartest":   {},
	"envoy/envoytest":   {},
	"grants/grantstest": {code: []string{"grants"}},
	"grants/etcd":       {code: []string{"grants"}}, // a module of its own
}

var doors = []string{"audit", "catalog", "grants", "identity", "strictjson", "token"}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, problem := range check(readPackages(t, filepath.Join("..", "..")), rooms) {
		t.Error(problem)
	}
}

// pkg is a folder of Go files and what they import, by full path.
type pkg struct {
	name    string // path from the module's root; "." for the root
	imports []string
	tests   []string
}

// readPackages reads every Go file below root, whatever its build constraints,
// nested modules included. It reads them itself rather than asking go list:
// go test knows then what this test depends on, and does not repeat an old
// answer from its cache.
func readPackages(t *testing.T, root string) []pkg {
	t.Helper()
	byName := map[string]*pkg{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); d.IsDir() {
			// What the go command does not look into.
			if path != root && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		name := filepath.ToSlash(dir)
		if byName[name] == nil {
			byName[name] = &pkg{name: name}
		}
		into := &byName[name].imports
		if strings.HasSuffix(path, "_test.go") {
			into = &byName[name].tests
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: import %s: %w", path, spec.Path.Value, err)
			}
			*into = append(*into, to)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for _, p := range byName {
		pkgs = append(pkgs, *p)
	}
	return pkgs
}

// check returns what in pkgs is against the table, and what in the table is of
// no package.
func check(pkgs []pkg, table map[string]arrows) []string {
	var problems []string
	seen := map[string]bool{}
	for _, p := range pkgs {
		seen[p.name] = true
		row, ok := table[p.name]
		if !ok {
			problems = append(problems, p.name+": an unknown package; add it to the table and to ARCHITECTURE.md")
			continue
		}
		for _, to := range ours(p.imports) {
			if !slices.Contains(row.code, to) {
				problems = append(problems, fmt.Sprintf("%s imports %s, against the arrows", p.name, to))
			}
		}
		inTests := slices.Concat(row.code, row.tests, support, []string{p.name})
		for _, to := range ours(p.tests) {
			if !slices.Contains(inTests, to) {
				problems = append(problems, fmt.Sprintf("%s's tests import %s, against the arrows", p.name, to))
			}
		}
	}
	for name := range table {
		if !seen[name] {
			problems = append(problems, fmt.Sprintf("%s: in the table, and no such package", name))
		}
	}
	slices.Sort(problems)
	return problems
}

// ours returns the imports of this module, each once, without the module's
// path; the module's root is ".".
func ours(imports []string) []string {
	var names []string
	for _, path := range imports {
		if path == module {
			names = append(names, ".")
		} else if name, ok := strings.CutPrefix(path, module+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestArrowsCanBreak shows each finding of check once, so that the table is
// not held by a test that passes whatever it reads.
func TestArrowsCanBreak(t *testing.T) {
	table := map[string]arrows{
		"a":               {code: []string{"b"}, tests: []string{"c"}},
		"envoy/envoytest": {},
	}
	support := pkg{name: "envoy/envoytest"}
	for _, tc := range []struct {
		name string
		pkgs []pkg
		want []string
	}{
		{
			name: "inside the arrows",
			pkgs: []pkg{support, {
				name:    "a",
				imports: []string{"fmt", module + "/b", module + "else/x"},
				tests:   []string{module + "/a", module + "/b", module + "/c", module + "/envoy/envoytest"},
			}},
		},
		{
			name: "code",
			pkgs: []pkg{support, {name: "a", imports: []string{module + "/c"}}},
			want: []string{"a imports c, against the arrows"},
		},
		{
			name: "test support in code",
			pkgs: []pkg{support, {name: "a", imports: []string{module + "/envoy/envoytest"}}},
			want: []string{"a imports envoy/envoytest, against the arrows"},
		},
		{
			name: "the root",
			pkgs: []pkg{support, {name: "a", imports: []string{module}}},
			want: []string{"a imports ., against the arrows"},
		},
		{
			name: "tests, twice",
			pkgs: []pkg{support, {name: "a", tests: []string{module + "/d", module + "/d"}}},
			want: []string{"a's tests import d, against the arrows"},
		},
		{
			name: "packages that the table does not know",
			pkgs: []pkg{support, {name: "."}, {name: "a"}, {name: "new"}},
			want: []string{
				".: an unknown package; add it to the table and to ARCHITECTURE.md",
				"new: an unknown package; add it to the table and to ARCHITECTURE.md",
			},
		},
		{
			name: "a row without a package",
			pkgs: []pkg{support},
			want: []string{"a: in the table, and no such package"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := check(tc.pkgs, table); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestReadPackages(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"a/a.go":               "package a\nimport \"" + module + "/b\"",
		"a/tagged.go":          "//go:build never\n\npackage a\nimport `" + module + "/c`",
		"a/a_test.go":          "package a_test\nimport _ \"" + module + "/d\"",
		"a/testdata/x/x.go":    "package x",
		".hidden/x.go":         "package x",
		"nested/module/go.mod": "module x",
		"nested/module/x.go":   "package x\nimport \"" + module + "/a\"",
	} {
		path = filepath.Join(root, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := readPackages(t, root)
	slices.SortFunc(got, func(a, b pkg) int { return strings.Compare(a.name, b.name) })
	want := []pkg{
		{name: "a", imports: []string{module + "/b", module + "/c"}, tests: []string{module + "/d"}},
		{name: "nested/module", imports: []string{module + "/a"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
