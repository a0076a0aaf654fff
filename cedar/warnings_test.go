package cedar

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWarnings(t *testing.T) {
	group := func(id string, parents ...string) string {
		var in []string
		for _, p := range parents {
			in = append(in, `{"type": "Toolgrant::AgentGroup", "id": "`+p+`"}`)
		}
		return `{"uid": {"type": "Toolgrant::AgentGroup", "id": "` + id + `"}, "parents": [` + strings.Join(in, ", ") + `]}`
	}
	agent := func(parent string) string { return strings.Replace(group("corp/a", parent), "AgentGroup", "Agent", 1) }
	const (
		shoppers = `@id("a") permit (principal in T::AgentGroup::"shoppers", action, resource);`
		nobody   = `no identity is ever in it: no issuer maps to it (identity.issuers[].groups) and no agent of entities.json is in it; an unmapped group is ALIAS/GROUP`
		dead     = `p.cedar:1:54: policy "a": group "shoppers": ` + nobody
	)
	for _, tt := range []struct {
		name, policies  string
		entities        []string
		groups, aliases []string
		want            []string
	}{
		{"no groups", permitAll, nil, nil, nil, nil},
		{"nobody", shoppers, []string{group("shoppers")}, nil, []string{"corp"}, []string{dead}},
		{"mapped", shoppers, nil, []string{"shoppers"}, nil, nil},
		{"mapped and declared", shoppers, []string{group("shoppers")}, []string{"shoppers"}, nil, nil},
		{"unmapped group of an issuer", strings.ReplaceAll(shoppers, "shoppers", "corp/shoppers"), []string{group("corp/shoppers")}, nil, []string{"idp", "corp"}, nil},
		{"unmapped group of no issuer", strings.ReplaceAll(shoppers, "shoppers", "crop/shoppers"), []string{group("crop/shoppers")}, nil, []string{"corp"},
			[]string{strings.Replace(dead, `"shoppers"`, `"crop/shoppers"`, 1)}},
		{"a group that is called like an issuer", strings.ReplaceAll(shoppers, "shoppers", "corp"), []string{group("corp")}, nil, []string{"corp"},
			[]string{strings.Replace(dead, `"shoppers"`, `"corp"`, 1)}},
		{"a declared agent", shoppers, []string{group("shoppers"), agent("shoppers")}, nil, nil, nil},
		{"a declared agent in another", shoppers, []string{group("shoppers"), group("b"), agent("b")}, nil, nil, []string{dead}},
		{"a group in it has an agent", shoppers, []string{group("shoppers"), group("b", "shoppers"), group("c", "b"), agent("c")}, nil, nil, nil},
		{"a group in it is mapped", shoppers, []string{group("shoppers"), group("b", "shoppers")}, []string{"b"}, nil, nil},
		{"a group in it is of an issuer", shoppers, []string{group("shoppers"), group("corp/b", "shoppers")}, nil, []string{"corp"}, nil},
		{"a group in it has nobody", shoppers, []string{group("shoppers"), group("b", "shoppers")}, nil, []string{"corp"}, []string{dead}},
		{"it is in one that is mapped", shoppers, []string{group("shoppers", "b"), group("b")}, []string{"b"}, nil, []string{dead}},
		{"declared and not named", permitAll, []string{group("shoppers")}, nil, nil, nil},
		{"in conditions, once for each policy",
			`@id("a") permit (principal, action, resource)
when { principal in T::AgentGroup::"shoppers" ||
       context.requester in [ T::AgentGroup::"ops", T::AgentGroup::"buyers", T::AgentGroup::"shoppers"] };
@id("b") forbid (principal is T::Agent in T::AgentGroup::"shoppers", action, resource);`,
			[]string{group("shoppers"), group("buyers")}, []string{"ops"}, nil,
			[]string{
				`p.cedar:2:44: policy "a": group "shoppers": ` + nobody, `p.cedar:3:84: policy "a": group "buyers": ` + nobody,
				`p.cedar:4:74: policy "b": group "shoppers": ` + nobody,
			}},
		{"misspelt map", shoppers, []string{group("shoppers")}, []string{"shopers"}, nil, []string{
			dead, `identity.issuers[].groups: group "shopers": no policy names it, and entities.json does not declare it; did you mean "shoppers"?`}},
		{"maps to what nothing names", permitAll, nil, []string{"x", "a", "x"}, nil, []string{
			`identity.issuers[].groups: group "a": no policy names it, and entities.json does not declare it`,
			`identity.issuers[].groups: group "x": no policy names it, and entities.json does not declare it`}},
		{"maps to what is declared", permitAll, []string{group("shoppers")}, []string{"shoppers"}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{
				Dir:     dir(t, "p.cedar", long(tt.policies), "entities.json", "["+strings.Join(tt.entities, ",\n")+"]"),
				Catalog: testCatalog(t), Groups: tt.groups, Aliases: tt.aliases,
			}
			s, err := Load(cfg)
			if err != nil {
				t.Fatal(err)
			}
			got := lines(s, CodeDeadGroup, CodeUnnamedGroup)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if again, err := Load(cfg); err != nil || !slices.Equal(s.Warnings(), again.Warnings()) {
				t.Errorf("another time: %q, %v", again.Warnings(), err)
			}
		})
	}
}

// lines prints the findings of some codes.
func lines(s *Set, codes ...string) []string {
	var out []string
	for _, f := range s.Findings() {
		if slices.Contains(codes, f.Code) {
			out = append(out, f.String())
		}
	}
	return out
}

func TestFinding(t *testing.T) {
	s := policies(t, permitAll+`  @id("a") permit (principal in T::AgentGroup::"ops", action == T::Action::"grant", resource) when { context.task.owner == principal };`)
	var at []Finding
	for _, f := range s.Findings() {
		if f.Policy == "a" {
			at = append(at, f)
		}
	}
	want := []Finding{{Policy: "a", File: "p.cedar", Line: 2, Column: 3, Code: CodeRedundant,
		Text: `it adds nothing: what it permits is permitted all the same by "all" (p.cedar:1:1)`, Hint: "take it away, or narrow the other"},
		{Policy: "a", File: "p.cedar", Line: 2, Column: 3, Code: CodeTwoRoles,
			Text: `whom it lets be granted something may also start the task, by "all" (p.cedar:1:1): what such an agent reads can talk it into tasks of its own`,
			Hint: "add when { principal != context.task.owner }, or let another group start tasks"}}
	if diff := cmp.Diff(want, at); diff != "" {
		t.Error(diff)
	}
	if line := `p.cedar:2:3: policy "a": ` + want[0].Text + "; " + want[0].Hint; !slices.Contains(s.Warnings(), line) {
		t.Errorf("%q has no %q", s.Warnings(), line)
	}
}

// A column is that of the name that is meant, in characters.
func TestPosition(t *testing.T) {
	const text = `@id("a") permit (
  principal is A::B, x) // é
	when { "é\"" like "x*" && "é" == context.name };`
	p := &parsed{file: file{"p.cedar", []byte(text)}, to: len(text)}
	for _, tt := range []struct {
		offset       int
		line, column int
	}{
		{0, 1, 1}, {p.findType("A::B"), 2, 16}, {p.findLike(), 3, 20}, {p.findMember("name"), 3, 43}, {p.findText("é"), 3, 28}, {p.findText("nowhere"), 1, 1}, {len(text), 3, 50},
	} {
		if line, column := p.position(tt.offset); line != tt.line || column != tt.column {
			t.Errorf("offset %d is at %d:%d, want %d:%d", tt.offset, line, column, tt.line, tt.column)
		}
	}
}

// However much is wrong, the warnings are few.
func TestManyWarnings(t *testing.T) {
	files := many(maxFaults + 10)
	files[1] = strings.ReplaceAll(files[1], "principal,", `principal in Toolgrant::AgentGroup::"x",`)
	cfg := config(t, append(files, "entities.json", `[{"uid": {"type": "Toolgrant::AgentGroup", "id": "x"}}]`)...)
	s, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Warnings(); len(got) != maxFaults || !strings.HasPrefix(got[9], "60.cedar:10:54: ") {
		t.Errorf("%d warnings, and first %q", len(got), got[:min(10, len(got))])
	}
}
