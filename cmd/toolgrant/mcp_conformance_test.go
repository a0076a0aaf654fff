package main

import (
	"encoding/json"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// conformancePolicies permit two agents everything, and forbid one of them
// something.
const conformancePolicies = `
@id("everything")
permit (principal, action in [Toolgrant::Action::"mcp", Toolgrant::Action::"call"], resource);

@id("not-of-some")
forbid (principal == Toolgrant::Agent::"corp/some", action in [
  Toolgrant::Action::"mcp:resources/read",
  Toolgrant::Action::"call:sessions-some/test_image_content", Toolgrant::Action::"call:stateless-some/test_image_content"
], resource);
`

// deniedAlways is what no policy permits, and where a server says something else:
// it has 404 for a method that it does not have, and the door denies what is not in
// its table by default (403, with the same JSON-RPC code).
var deniedAlways = []string{
	"server-stateless HttpServerMethodNotFound404", "server-stateless HttpServerMethodNotFound404initialize",
	"server-stateless HttpServerMethodNotFound404loggingsetLevel", "server-stateless HttpServerMethodNotFound404ping",
	"server-stateless HttpServerMethodNotFound404resourcessubscribe", "server-stateless HttpServerMethodNotFound404resourcesunsubscribe",
}

// deniedToSome is what the policy keeps from the other agent.
var deniedToSome = map[string]bool{
	"resources-read-text ResourcesReadText": true, "resources-read-binary ResourcesReadBinary": true,
	"resources-templates-read ResourceTemplateRead": true, "resources-templates-read ResourcesTemplateRead": true,
	"sep-2164-resource-not-found ResourcesNotFoundErrorCode": true, "sep-2164-resource-not-found ResourcesNotFoundDataUri": true,
	"caching ResourcesReadCachingHints": true, "tools-call-image ToolsCallImage": true,
}

// TestConformance plays @modelcontextprotocol/conformance to the Go SDK's server
// for it, directly and with Envoy and toolgrant in front. There is no difference
// where policy permits everything, but for what is denied always; where it does not,
// just what it denies besides.
func TestConformance(t *testing.T) {
	parts := peers.Find(t)
	servers := openConformance(t, parts)
	for _, play := range []struct{ server, revision string }{
		{"sessions", "2025-06-18"}, {"sessions", "2025-11-25"}, {"stateless", "2025-11-25"}, {"stateless", "2026-07-28"},
	} {
		t.Run(play.server+"/"+play.revision, func(t *testing.T) {
			t.Parallel()
			direct := conformance(t, parts, servers[play.server+"-direct"], play.revision)
			var always []string
			if play.revision == "2026-07-28" {
				always = deniedAlways
			}
			if d := cmp.Diff(always, differing(t, direct, conformance(t, parts, servers[play.server+"-all"], play.revision))); d != "" {
				t.Errorf("policy permits everything (-want +got):\n%s", d)
			}
			differ := differing(t, direct, conformance(t, parts, servers[play.server+"-some"], play.revision))
			denied := 0
			for _, check := range differ {
				switch {
				case deniedToSome[check]:
					denied++
				case !slices.Contains(always, check):
					t.Errorf("policy denies something else than %s", check)
				}
			}
			if denied < 4 { // three of resources, one of the tool
				t.Errorf("of what policy denies, only this shows: %q", differ)
			}
		})
	}
}

// differing are the checks, "SCENARIO NAME", that came out otherwise; sorted.
func differing(t *testing.T, direct, through map[string][]conformanceCheck) []string {
	t.Helper()
	var all []string
	for scenario, want := range direct {
		got := through[scenario]
		if len(got) != len(want) {
			t.Errorf("%s: %d checks, and %d directly", scenario, len(got), len(want))
			continue
		}
		for i := range want {
			if got[i].ID != want[i].ID || got[i].Name != want[i].Name {
				t.Errorf("%s: check %+v, and directly %+v", scenario, got[i], want[i])
			}
			if got[i].Status != want[i].Status {
				t.Logf("%s: %s directly, %s through: %s", want[i].Name, want[i].Status, got[i].Status, got[i].ErrorMessage)
				all = append(all, scenario+" "+want[i].Name)
			}
		}
	}
	if len(through) != len(direct) {
		t.Errorf("%d scenarios, and %d directly", len(through), len(direct))
	}
	slices.Sort(all)
	return all
}

// openConformance starts a server for each way of playing, since scenarios change
// what it offers, and returns NAME-WAY -> URL: directly, or of a proxy that adds the
// token of an agent, which the suite does not have.
func openConformance(t *testing.T, parts peers.Folder) map[string]string {
	t.Helper()
	urls := map[string]string{}
	var front string // Envoy, when it runs
	tokens := map[string]string{}
	var catalogue strings.Builder
	for _, name := range []string{"sessions", "stateless"} {
		for _, way := range []string{"direct", "all", "some"} {
			id, addr := name+"-"+way, peers.FreeAddr(t)
			peers.Serve(t, parts.Everything(addr, name == "sessions"), addr)
			urls[id] = "http://" + addr + "/mcp"
			takeUp(t, urls[id])
			if way == "direct" {
				continue
			}
			proxy := httptest.NewServer(&httputil.ReverseProxy{
				FlushInterval: -1,
				Rewrite: func(r *httputil.ProxyRequest) {
					r.Out.URL.Scheme, r.Out.URL.Host = "http", front
					r.Out.Header.Set("Authorization", "Bearer "+tokens[id])
				},
			})
			t.Cleanup(proxy.Close)
			t.Cleanup(proxy.CloseClientConnections)
			imported, err := importMCP(t.Context(), importOptions{URL: urls[id], ID: id})
			if err != nil {
				t.Fatal(err)
			}
			path := "\n    path: /mcp/" + id + "\n"
			catalogue.WriteString(strings.Replace("\n"+imported.entry(), path, path+"    origins: [\""+proxy.URL+"\"]\n", 1))
			urls[id] = proxy.URL + "/mcp/" + id
		}
	}
	m := layOutMCP(t, catalogue.String(), "unused")
	if err := m.write("policies/issue.cedar", conformancePolicies); err != nil {
		t.Fatal(err)
	}
	m.serve()
	m.startEnvoy()
	front = strings.TrimPrefix(m.front, "http://")
	for _, name := range []string{"sessions", "stateless"} {
		for _, agent := range []string{"all", "some"} {
			id := name + "-" + agent
			tokens[id] = m.identity(agent, "https://"+id+".internal/mcp/"+id)
		}
	}
	return urls
}

// takeUp has a server take up the tool that it otherwise would when a scenario asks for
// it: then it is not in the catalogue, and the next scenario, which calls whatever tool
// is the first, is denied.
func takeUp(t *testing.T, url string) {
	t.Helper()
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	s, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: url}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "test_trigger_tool_change"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// conformanceCheck is what the suite says of one check.
type conformanceCheck struct {
	ID, Name, Status string
	ErrorMessage     string
}

// conformance plays all scenarios of a revision, and returns scenario -> checks.
func conformance(t *testing.T, parts peers.Folder, url, revision string) map[string][]conformanceCheck {
	t.Helper()
	dir := t.TempDir()
	out, err := peers.Run(t, parts.Conformance("server", "--url", url, "--suite", "all", "--spec-version", revision, "-o", dir))
	if _, failed := err.(interface{ ExitCode() int }); err != nil && !failed {
		t.Fatal(err)
	}
	results := map[string][]conformanceCheck{}
	files, _ := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	for _, file := range files {
		scenario := conformanceFolder.FindStringSubmatch(filepath.Base(filepath.Dir(file)))
		if scenario == nil {
			t.Fatalf("the suite wrote %s", file)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var checks []conformanceCheck
		if err := json.Unmarshal(text, &checks); err != nil {
			t.Fatal(err)
		}
		results[scenario[1]] = checks
	}
	if n := strings.Count(out, "=== Running scenario: "); n == 0 || n != len(results) {
		t.Fatalf("%d scenarios, and %d results (%v):\n%s", n, len(results), err, out)
	}
	return results
}

var conformanceFolder = regexp.MustCompile(`^server-(.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z$`)
