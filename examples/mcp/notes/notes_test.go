package notes

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"sigs.k8s.io/yaml"
)

// The example's catalogue pins the tools as descriptors.json has them: SHA-256 of
// the RFC 8785 text. encoding/json writes that of these (no number, no character
// that it escapes, names in order).
func TestTheCataloguePinsTheDescriptors(t *testing.T) {
	text, err := os.ReadFile("../tools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var catalogue struct {
		Servers []struct {
			Tools []struct{ Tool, Pin string }
		}
	}
	if err := yaml.Unmarshal(text, &catalogue); err != nil {
		t.Fatal(err)
	}
	var tools []map[string]any
	if err := json.Unmarshal(descriptors, &tools); err != nil {
		t.Fatal(err)
	}
	pins := map[string]string{}
	for _, tool := range tools {
		canonical, err := json.Marshal(tool)
		if err != nil {
			t.Fatal(err)
		}
		pins[tool["name"].(string)] = fmt.Sprintf("sha256:%x", sha256.Sum256(canonical))
	}
	if len(catalogue.Servers) != 1 || len(catalogue.Servers[0].Tools) != len(pins) {
		t.Fatalf("the catalogue has other tools than %v", pins)
	}
	for _, c := range catalogue.Servers[0].Tools {
		if c.Pin != pins[c.Tool] {
			t.Errorf("%s is pinned as %s, and is %s", c.Tool, c.Pin, pins[c.Tool])
		}
	}
}
