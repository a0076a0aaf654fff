package cedar

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

// corpus gives the files of the corpus with which Cedar's implementations are
// compared (https://github.com/cedar-policy/cedar-integration-tests), as it
// lies in the cedar-go module that this build uses: names without folders.
func corpus(t *testing.T) map[string][]byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cedar-policy/cedar-go").Output()
	if err != nil {
		t.Skipf("where cedar-go lies is not known: %v", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "corpus-tests.tar.gz"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this cedar-go comes without Cedar's corpus")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || strings.HasSuffix(h.Name, ".cedarschema") {
			continue
		}
		if files[path.Base(h.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// Decisions are read as Cedar's corpus says them, and where it says that a
// policy errs, the answer is no and names it. And none of the corpus's policies,
// made for other schemas and without ids, loads.
func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("the corpus takes some seconds")
	}
	type uid struct{ Type, ID string }
	entity := func(u uid) cedargo.EntityUID {
		return cedargo.NewEntityUID(cedargo.EntityType(u.Type), cedargo.String(u.ID))
	}
	files := corpus(t)
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
			got := verdict(cedargo.Authorize(set, entities, cedargo.Request{
				Principal: entity(r.Principal), Action: entity(r.Action), Resource: entity(r.Resource), Context: r.Context,
			}))
			want := grants.Decision{Allow: r.Decision == "allow", Policies: r.Reason}
			if !want.Allow {
				want.Reason = grants.Policy
			}
			if len(r.Errors) > 0 {
				errs++
				want = grants.Decision{Reason: grants.PolicyError, Policies: r.Errors}
			}
			slices.Sort(want.Policies)
			if len(want.Policies) == 0 {
				want.Policies = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, request %d: %s", name, i, diff)
			}
		}
	}
	t.Logf("%d requests of %d cases; policies err in %d", requests, cases, errs)
	if cases < 1000 || errs < 1000 {
		t.Error("the corpus tries too little")
	}
}
