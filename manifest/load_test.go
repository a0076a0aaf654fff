package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

func mustCatalog(t testing.TB, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("tools.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// folder writes files; a name that ends in "/" is a folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		isFolder := strings.HasSuffix(name, "/")
		parent := filepath.Dir(path)
		if isFolder {
			parent = path
		}
		if err := os.MkdirAll(parent, 0o700); err != nil {
			t.Fatal(err)
		}
		if isFolder {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func kind(name, params string) string {
	text := "kind: " + name + "\n"
	if params != "" {
		text += "params: {type: object, " + params + "}\n"
	}
	return text + "tools: [{tool: bank/get_iban}]\n"
}

func TestLoad(t *testing.T) {
	c := testCatalog(t)
	dir := folder(t, map[string]string{
		"b.yaml":        kind("two", "required: [x, m], properties: {x: {type: string, enum: [c]}, m: {type: string, enum: [d]}}"),
		"pay-bill.yaml": payBill,
		"a.yaml":        kind("one", "required: [x, l], properties: {x: {type: string, enum: [b, a], description: of one}, l: {type: array, items: {type: string, enum: [x]}}}"),
		"c.yaml":        kind("three", "required: [m, l], properties: {m: {type: string}, l: {type: array, items: {type: string, enum: [y]}}}"),
		"README.md":     "", "notes/x.txt": "", "tests/": "",
	})
	s, err := Load(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "pay-bill", "three", "two"}, s.Kinds()); diff != "" {
		t.Errorf("Kinds (-want +got):\n%s", diff)
	}
	if m, ok := s.Kind("pay-bill"); !ok || m.At != "pay-bill.yaml:2" {
		t.Errorf("Kind = %+v, %v", m, ok)
	}
	if _, ok := s.Kind("other"); ok {
		t.Error("a kind that is not there was found")
	}
	want := &catalog.Schema{Type: "object", Properties: map[string]*catalog.Schema{
		"limit": {Type: "number"}, "recipient": {Type: "string"},
		"x": {Type: "string", Description: "of one", Enum: []string{"a", "b", "c"}},
		"m": {Type: "string"}, // one of the two allows any
		"l": {Type: "array", Items: &catalog.Schema{Type: "string", Enum: []string{"x", "y"}}},
	}}
	if diff := cmp.Diff(want, s.Params()); diff != "" {
		t.Errorf("Params (-want +got):\n%s", diff)
	}
	if m, _ := s.Kind("one"); len(m.Params.Properties["x"].Enum) != 2 {
		t.Error("the union has changed a manifest")
	}
}

func TestLoadOfNothing(t *testing.T) {
	s, err := Load(t.TempDir(), testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Set{s, nil} {
		if s.Kinds() != nil || s.Params() != nil || s.Digest() != (grants.Digest{}) {
			t.Errorf("the empty set has %v, %v, %v", s.Kinds(), s.Params(), s.Digest())
		}
		if _, ok := s.Kind("k"); ok {
			t.Error("the empty set has a kind")
		}
	}
}

func TestDigestIsOfTheMeaning(t *testing.T) {
	c := testCatalog(t)
	digest := func(texts ...string) grants.Digest {
		t.Helper()
		files := map[string]string{}
		for i, text := range texts {
			files[fmt.Sprint(i, ".yaml")] = text
		}
		s, err := Load(folder(t, files), c)
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	one, two := kind("one", ""), kind("two", "")
	base := digest(one, two)
	for name, same := range map[string]grants.Digest{
		"in other files": digest(two, one),
		"with a comment": digest("# x\n"+one, two),
		"in other order": digest("tools: [{tool: bank/get_iban}]\nkind: one", two),
	} {
		if same != base {
			t.Errorf("%s the digest is another", name)
		}
	}
	seen := map[grants.Digest]string{base: "base", {}: "none"}
	for name, text := range map[string]string{
		"kind": kind("three", ""), "params": kind("one", "required: [x], properties: {x: {type: string}}"),
		"ttl":      "kind: one\ntools: [{tool: bank/get_iban, ttl: 9s}]",
		"once":     "kind: one\ntools: [{tool: bank/get_iban, once: true}]",
		"calls":    "kind: one\ntools: [{tool: bank/get_iban, max_calls: 9}]",
		"input":    "kind: one\ntools: [{tool: bank/get_iban, input: {}}]",
		"duration": "kind: one\nmax_duration: 9s\ntools: [{tool: bank/get_iban}]",
		"sum":      "kind: one\ntools: [{tool: bank/wire, sum: {argument: /amount, max: 9}}]",
		"template": "kind: one\ntools: [{tool: bank/wire, input: {amount: {maximum: 9}}}]",
	} {
		d := digest(text, two)
		if other, ok := seen[d]; ok {
			t.Errorf("%s: the digest is that of %s", name, other)
		}
		seen[d] = name
	}
}

func TestLoadRefuses(t *testing.T) {
	good := kind("k", "")
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"yml", map[string]string{"a.yml": good}, []string{"a.yml: only names in .yaml are read"}},
		{"upper case", map[string]string{"a.YAML": good}, []string{"a.YAML: only names in .yaml"}},
		{"below", map[string]string{"x/y/a.yaml": good}, []string{"x/y/a.yaml: sub-folders are not read"}},
		{"yml below", map[string]string{"x/a.YmL": good}, []string{"sub-folders are not read"}},
		{"a folder of the name", map[string]string{"a.yaml/": ""}, []string{"not a regular file"}},
		{"two dots", map[string]string{"..a.yaml": good}, []string{"belong to Kubernetes"}},
		{"too large", map[string]string{"a.yaml": "#" + strings.Repeat("x", MaxFile)}, []string{"a.yaml: over 65536 bytes"}},
		{"two of a kind", map[string]string{"a.yaml": good, "b.yaml": good}, []string{`b.yaml:1: kind "k" already has a manifest, at a.yaml:1`}},
		{"two types of a name", map[string]string{
			"a.yaml": kind("a", "required: [p], properties: {p: {type: string}}"),
			"b.yaml": kind("b", "required: [p], properties: {p: {type: array, items: {type: string}}}"),
		}, []string{`b.yaml:2:52: parameter "p" is of type array of string here, and of type string at a.yaml:2:52`}},
		{"several faults", map[string]string{"a.yaml": "kind: 1", "b.yaml": "", "c.yaml": good}, []string{"a.yaml:1:7: ", "b.yaml:1:1: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Load(folder(t, tc.files), testCatalog(t))
			if err == nil {
				t.Fatalf("loaded: %v", s.Kinds())
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error:\n%v\nwant in it:\n%s", err, want)
				}
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none"), testCatalog(t)); err == nil {
		t.Error("a folder that is not there was loaded")
	}
}

func TestLoadBoundsTheWhole(t *testing.T) {
	files := map[string]string{}
	for i := range maxTotal/MaxFile + 1 {
		files[fmt.Sprint(i, ".yaml")] = kind(fmt.Sprint("k", i), "") + "#" + strings.Repeat("x", MaxFile-100)
	}
	if _, err := Load(folder(t, files), testCatalog(t)); err == nil || !strings.Contains(err.Error(), "the manifests together are over") {
		t.Errorf("%d large files: %v", len(files), err)
	}
	files = map[string]string{}
	for i := range maxKinds + 1 {
		files[fmt.Sprintf("%04d.yaml", i)] = kind(fmt.Sprint("k", i), "")
	}
	dir := folder(t, files)
	if _, err := Load(dir, testCatalog(t)); err == nil || !strings.Contains(err.Error(), "over 1000 manifests") {
		t.Errorf("%d files: %v", len(files), err)
	}
	if err := os.Remove(filepath.Join(dir, "0000.yaml")); err != nil {
		t.Fatal(err)
	}
	if s, err := Load(dir, testCatalog(t)); err != nil || len(s.Kinds()) != maxKinds {
		t.Errorf("%d files: %v", maxKinds, err)
	}
}

func TestLoadFollowsAMountOfKubernetes(t *testing.T) {
	const version = "..2026_01_02_03_04_05.123456789"
	dir := folder(t, map[string]string{version + "/a.yaml": kind("k", "")})
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(version, "..data")
	if _, err := Load(dir, testCatalog(t)); err == nil || !strings.Contains(err.Error(), "there is no link to it") {
		t.Errorf("a manifest without its link: %v", err)
	}
	link("..data/a.yaml", "a.yaml")
	s, err := Load(dir, testCatalog(t))
	if err != nil || !slices.Equal(s.Kinds(), []string{"k"}) {
		t.Errorf("a mount: %v, %v", s.Kinds(), err)
	}
	link("/etc/passwd", "b.yaml")
	if _, err := Load(dir, testCatalog(t)); err == nil {
		t.Error("a link out of the folder was followed")
	}
}

func TestLoadRefusesLinksThatMayHide(t *testing.T) {
	for name, to := range map[string]string{"dangling": "nowhere", "loop": "loop"} {
		dir := folder(t, map[string]string{"a.yaml": kind("k", "")})
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, testCatalog(t)); err == nil || !strings.Contains(err.Error(), "may hide manifests") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadFolderWantsTheSameTwice(t *testing.T) {
	one, two := []file{{"a.yaml", []byte("a")}}, []file{{"a.yaml", []byte("b")}}
	for name, tc := range map[string]struct {
		reads [][]file
		ok    bool
	}{
		"alike":         {[][]file{one, one}, true},
		"other text":    {[][]file{one, two}, false},
		"one file more": {[][]file{one, append(slices.Clone(one), two...)}, false},
		"other name":    {[][]file{one, {{"b.yaml", []byte("a")}}}, false},
	} {
		i := 0
		got, err := readFolder(func() ([]file, error) { i++; return tc.reads[i-1], nil })
		if (err == nil) != tc.ok || i != 2 || tc.ok != (got != nil) {
			t.Errorf("%s: %v, %v after %d reads", name, got, err, i)
		}
	}
}
