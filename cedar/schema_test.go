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
	c := testCatalog(t)
	text, err := SchemaText(c)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/schema.cedarschema"
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
	inputs, err := shapes(c)
	if err != nil {
		t.Fatal(err)
	}
	all, err := methods(c)
	if err != nil {
		t.Fatal(err)
	}
	want, err := newSchema(c, inputs, all).Resolve()
	if err != nil {
		t.Fatal(err)
	}
	got, err := read.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read back as %v, not %v", got, want)
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
