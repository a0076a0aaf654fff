package cedar

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
)

// The text is stable, and reads back as the very schema that policies are
// validated against.
func TestSchemaText(t *testing.T) {
	checkSchemaText(t, "testdata/schema.cedarschema", policies(t, permitAll).world)
}

func checkSchemaText(t *testing.T, golden string, w *world) {
	t.Helper()
	text, err := SchemaText(w.catalog, w.manifests)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(old), string(text)); diff != "" {
		t.Errorf("%s (-update writes it anew):\n%s", golden, diff)
	}
	var read schema.Schema
	if err := read.UnmarshalCedar(text); err != nil {
		t.Fatal(err)
	}
	got, err := read.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, w.schema) {
		t.Errorf("read back as %v, not %v", got, w.schema)
	}
}

func TestDeepSchemaRefused(t *testing.T) {
	s := &catalog.Schema{Type: "string"}
	for range maxDepth {
		s = &catalog.Schema{Type: "array", Items: s}
	}
	if _, err := newShape(s, "", nil, maxDepth); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("error %v", err)
	}
	if _, err := newShape(s.Items, "", nil, maxDepth); err != nil {
		t.Error(err)
	}
	if _, err := newShape(&catalog.Schema{Type: "null"}, "", nil, maxDepth); err == nil {
		t.Error("an unknown type was accepted")
	}
}
