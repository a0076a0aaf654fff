package cedar

import (
	"slices"
	"testing"
)

// Kinds are those of entities.json and those with a manifest, each once.
func TestKinds(t *testing.T) {
	declared := `[{"uid": {"type": "Toolgrant::TaskKind", "id": "tidy"}, "attrs": {}, "parents": []},` +
		`{"uid": {"type": "Toolgrant::TaskKind", "id": "look"}, "attrs": {}, "parents": []},` +
		`{"uid": {"type": "Toolgrant::AgentGroup", "id": "people"}, "attrs": {}, "parents": []}]`
	cfg := config(t, "p.cedar", long(`@id("a") permit (principal, action == T::Action::"start_task", resource == T::TaskKind::"tidy");`), entitiesFile, declared)
	for manifests, want := range map[string][]string{
		"": {"look", "tidy"},
		dir(t, "a.yaml", look, "b.yaml", "kind: admire\ntools:\n- tool: github/get_pr\n"): {"admire", "look", "tidy"},
	} {
		cfg.Manifests = manifests
		s, err := Load(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Kinds(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
