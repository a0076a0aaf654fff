package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// conformancePolicies permit two agents everything, and forbid one of them
// something.
const conformancePolicies = `
@id("everything")
permit (principal, action in [Toolgrant::Action::"mcp", Toolgrant::Action::"call"], resource);

@id("not-of-some")
forbid (principal == Toolgrant::Agent::"corp/some", action in [
  Toolgrant::Action::"mcp:resources/read", Toolgrant::Action::"call:sessions/test_image_content", Toolgrant::Action::"call:stateless/test_image_content"
], resource);
`

// TestConformance plays @modelcontextprotocol/conformance to the Go SDK's server
// for it, directly and with Envoy and toolgrant in front. There is no difference
// where policy permits everything; where it does not, just what it denies.
func TestConformance(t *testing.T) {
	parts := peers.Find(t)
	m, servers := openConformance(t, parts)
	for _, play := range []struct{ server, revision string }{
		{"sessions", "2025-06-18"}, {"sessions", "2025-11-25"}, {"stateless", "2025-11-25"}, {"stateless", "2026-07-28"},
	} {
		t.Run(play.server+"/"+play.revision, func(t *testing.T) {
			t.Parallel()
			_ = m
			s := servers[play.server]
			direct := conformance(t, parts, s.direct, play.revision)
			through := conformance(t, parts, s.through["all"], play.revision)
			if d := cmp.Diff(direct, through); d != "" {
				t.Errorf("policy permits everything (-direct +through):\n%s", d)
			}
			some := conformance(t, parts, s.through["some"], play.revision)
			t.Log(cmp.Diff(direct, some))
		})
	}
}

type conformanceServer struct {
	direct  string            // URL
	through map[string]string // agent -> URL of a proxy that adds its token
}

func openConformance(t *testing.T, parts peers.Folder) (*mcpWorld, map[string]conformanceServer) {
	t.Helper()
	servers := map[string]conformanceServer{}
	var front string // Envoy, when it runs
	tokens := map[string]string{}
	var catalogue strings.Builder
	for _, id := range []string{"sessions", "stateless"} {
		addr := peers.FreeAddr(t)
		peers.Serve(t, parts.Everything(addr, id == "sessions"), addr)
		s := conformanceServer{direct: "http://" + addr + "/mcp", through: map[string]string{}}
		var origins []string
		for _, agent := range []string{"all", "some"} {
			proxy := httptest.NewServer(&httputil.ReverseProxy{
				FlushInterval: -1,
				Rewrite: func(r *httputil.ProxyRequest) {
					r.Out.URL.Scheme, r.Out.URL.Host = "http", front
					r.Out.Header.Set("Authorization", "Bearer "+tokens[agent+" "+id])
				},
			})
			t.Cleanup(proxy.Close)
			t.Cleanup(proxy.CloseClientConnections)
			s.through[agent] = proxy.URL + "/mcp/" + id
			origins = append(origins, `"`+proxy.URL+`"`)
		}
		imported, err := importMCP(t.Context(), importOptions{URL: s.direct, ID: id})
		if err != nil {
			t.Fatal(err)
		}
		path := "\n    path: /mcp/" + id + "\n"
		catalogue.WriteString(strings.Replace("\n"+imported.entry(), path, path+"    origins: ["+strings.Join(origins, ", ")+"]\n", 1))
		servers[id] = s
	}
	m := layOutMCP(t, catalogue.String(), "unused")
	if err := m.write("policies/issue.cedar", conformancePolicies); err != nil {
		t.Fatal(err)
	}
	m.serve()
	m.startEnvoy()
	front = strings.TrimPrefix(m.front, "http://")
	for _, id := range []string{"sessions", "stateless"} {
		for _, agent := range []string{"all", "some"} {
			tokens[agent+" "+id] = m.identity(agent, "https://"+id+".internal/mcp/"+id)
		}
	}
	return m, servers
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
	out, err := peers.Run(t, parts.Conformance("server", "--url", url, "--suite", "all", "--spec-version", revision, "-o", dir, "--timeout", "6000"))
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
	if os.Getenv("KEEP") != "" {
		fmt.Println(os.CopyFS(filepath.Join(os.Getenv("KEEP"), strings.ReplaceAll(t.Name(), "/", "_")+filepath.Base(dir)), os.DirFS(dir)))
	}
	return results
}

var conformanceFolder = regexp.MustCompile(`^server-(.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z$`)

var _ = http.StatusOK
