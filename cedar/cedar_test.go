package cedar

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

var update = flag.Bool("update", false, "write the golden files anew")

var _ grants.Decider = (*Set)(nil).Decide

func testCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load("testdata/tools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dir writes files, name and text in turn, into a new directory.
func dir(t testing.TB, files ...string) string {
	t.Helper()
	d := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func config(t testing.TB, files ...string) Config {
	return Config{Dir: dir(t, files...), Catalog: testCatalog(t), Groups: []string{"orchestrators", "ops"}}
}

// policies loads one file of policies in which T:: stands for Toolgrant::.
func policies(t testing.TB, text string) *Set {
	t.Helper()
	s, err := Load(config(t, "p.cedar", long(text)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func long(text string) string { return strings.ReplaceAll(text, " T::", " Toolgrant::") }

func example(t testing.TB) *Set {
	t.Helper()
	s, err := Load(Config{Dir: "testdata/example", Catalog: testCatalog(t), Groups: []string{"orchestrators"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decide(t testing.TB, s *Set, in grants.Input) grants.Decision {
	t.Helper()
	ds, err := s.Decide(context.Background(), []grants.Input{in})
	if err != nil || len(ds) != 1 {
		t.Fatalf("Decide: %d decisions, %v", len(ds), err)
	}
	return ds[0]
}

// want compares a decision with "allow IDS" or "REASON IDS".
func want(t *testing.T, got grants.Decision, text string) {
	t.Helper()
	verdict := got.Reason.String()
	if got.Allow {
		verdict = "allow"
		if got.Reason != grants.None {
			t.Errorf("allowed with the reason %v", got.Reason)
		}
	}
	if s := strings.Join(append([]string{verdict}, got.Policies...), " "); s != text {
		t.Errorf("got %q, want %q", s, text)
	}
}

const permitAll = `@id("all") permit (principal, action, resource);` + "\n"

func TestRevision(t *testing.T) {
	load := func(c Config) grants.Digest {
		t.Helper()
		s, err := Load(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision()
	}
	other := func() *catalog.Catalog {
		text, err := os.ReadFile("testdata/tools.yaml")
		if err != nil {
			t.Fatal(err)
		}
		c, err := catalog.Parse("other", bytes.Replace(text, []byte("sets: [init]"), []byte("sets: [init, read]"), 1))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}()
	c := testCatalog(t)
	base := Config{Dir: dir(t, "p.cedar", permitAll), Catalog: c, Groups: []string{"a", "b"}}
	revision := load(base)
	if revision.IsZero() {
		t.Fatal("no revision")
	}
	same := base
	same.Dir, same.Groups = dir(t, "p.cedar", permitAll), []string{"b", "a", "b"}
	if load(same) != revision {
		t.Error("the same has another revision")
	}
	for name, c := range map[string]Config{
		"policy":    {Dir: dir(t, "p.cedar", strings.Replace(permitAll, "permit", "forbid", 1)), Catalog: c, Groups: base.Groups},
		"file":      {Dir: dir(t, "q.cedar", permitAll), Catalog: c, Groups: base.Groups},
		"entities":  {Dir: dir(t, "p.cedar", permitAll, "entities.json", "[]"), Catalog: c, Groups: base.Groups},
		"catalogue": {Dir: base.Dir, Catalog: other, Groups: base.Groups},
		"groups":    {Dir: base.Dir, Catalog: c, Groups: []string{"a"}},
	} {
		if load(c) == revision {
			t.Errorf("%s: another %s has the same revision", name, name)
		}
	}
}

func TestPolicies(t *testing.T) {
	got := example(t).Policies()
	ids := []string{"inside-a-grant", "orchestrators-start-tasks", "reads-need-no-grant", "release-may-merge", "squash-only"}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzLoad: no text of policies makes Load panic or overflow the stack, and
// what loads is named and decides without errors of its own making.
func FuzzLoad(f *testing.F) {
	text, err := os.ReadFile("testdata/example/policies.cedar")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	for _, seed := range []string{
		permitAll, `@id("a") permit (principal, action, resource) when { !-(1) == "\"" };`,
		`@id("a") forbid (principal is Toolgrant::Agent in Toolgrant::AgentGroup::"ci", action in [Toolgrant::Action::"call"], resource) unless { if context has grant then context.grant.ttl > 3 else principal.hasTag("x") && principal.getTag("x") like "a*" };`,
		"// \r\n@id(\"\\u{1F600}\") permit(principal,action,resource);",
		`@id("a") @advice("Ask for less.") forbid (principal, action, resource) when { context has task && context.task.kind == "release" };`,
		MCPBaseline, `@id("a") forbid (principal, action in Toolgrant::Action::"mcp", resource == Toolgrant::ToolServer::"forge") when { context has retry || context.revision like "2025-*" };`,
	} {
		f.Add(seed)
	}
	c := mcpCatalog(f)
	entities, err := os.ReadFile("testdata/example/entities.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > maxFile {
			return
		}
		src := source{policies: []file{{"p.cedar", []byte(text)}}, entities: entities}
		s, err := load(src, Config{Catalog: c, Groups: []string{"orchestrators"}})
		if err != nil {
			return
		}
		ids := s.Policies()
		if len(ids) == 0 || slices.Contains(ids, "") || len(slices.Compact(slices.Clone(ids))) != len(ids) {
			t.Fatalf("ids %q", ids)
		}
		for _, in := range []grants.Input{
			startTask("release"), grantTool("github/merge_pr"), call("bank/pay", nil, nil),
			call("github/merge_pr", testGrant("github/merge_pr"), map[string]any{}),
			callMCP("forge/merge", nil, nil), askMCP("notifications/progress", "forge", nil), under(askMCP("GET", "forge", nil), "forge/merge"),
		} {
			d := decide(t, s, in)
			if len(d.Advice) > maxAdvices || d.Reason != grants.Policy && d.Advice != "" || strings.ContainsFunc(d.Advice, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("%v tells %q", d.Reason, d.Advice)
			}
			for _, id := range d.Policies {
				if !slices.Contains(ids, id) {
					t.Fatalf("decided by %q, which is none of %q", id, ids)
				}
			}
		}
	})
}

// Inputs that the tests vary.

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var (
	builder1 = grants.Principal{Issuer: "corp", Subject: "bot", Groups: []string{"ci"}, Tags: map[string]string{"team": "a"}}
	lead     = grants.Principal{Issuer: "corp", Subject: "lead", Groups: []string{"orchestrators"}}
)

func testTask(kind string) *grants.Task {
	return &grants.Task{ID: "t_1", Kind: kind, Owner: lead, Deadline: now.Add(time.Hour)}
}

func testGrant(tool string) *grants.Grant {
	return &grants.Grant{
		ID: "g_1", Task: "t_1", Agent: builder1, Requester: lead, Tool: tool,
		NotBefore: now.Add(-time.Minute), Expires: now.Add(9 * time.Minute),
	}
}

func startTask(kind string) grants.Input {
	return grants.Input{Action: grants.ActionStartTask, Requester: lead, Principal: lead, Task: testTask(kind), At: now}
}

func grantTool(tool string) grants.Input {
	return testGrant(tool).Asks(testTask("release"), now)[0]
}

func askFor(tool string) grants.Input {
	return testGrant(tool).Asks(testTask("release"), now)[1]
}

func call(tool string, g *grants.Grant, args any) grants.Input {
	in := grants.Input{Action: grants.ActionCall + tool, Requester: builder1, Principal: builder1, Tool: tool, Grant: g, Args: args, At: now}
	if g != nil {
		in.Task = testTask("release")
	}
	return in
}
