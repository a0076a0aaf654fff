package envoy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"sigs.k8s.io/yaml"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load(filepath.Join("testdata", "tools.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parseCatalog(t testing.TB, text string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("tools.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// testOptions are for the catalogue in testdata. Its mail/send passes
// authorization on, so tokens travel in a header of their own.
func testOptions(t testing.TB) Options {
	return Options{
		Catalog: testCatalog(t), Listen: "127.0.0.1:10000", Authz: "unix:///run/toolgrant/authz.sock",
		Surface: "unix:///run/toolgrant/surface.sock", Issuer: "https://broker.internal", CredentialHeader: "x-grant",
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", name, diff)
	}
}

func TestConfig(t *testing.T) {
	got, err := Config(testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "config.golden.yaml", got)
	if err := envoytest.Validate(t, got); err != nil {
		t.Error(err)
	}
	for range 5 {
		if again, err := Config(testOptions(t)); err != nil || !bytes.Equal(got, again) {
			t.Fatalf("the same options give other bytes, or error %v", err)
		}
	}
}

func TestConfigOverTCP(t *testing.T) {
	o := testOptions(t)
	o.Authz, o.Admin, o.AccessLog, o.Listen = "[::1]:9001", "127.0.0.1:9901", "/dev/null", "[::]:10000"
	o.MaxBody, o.CheckTimeout = 1000, time.Second
	got, err := Config(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := envoytest.Validate(t, got); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"port_value: 9001", "port_value: 9901", "path: /dev/null", "max_request_bytes: 1000", "timeout: 1s"} {
		if !bytes.Contains(got, []byte(want)) {
			t.Errorf("no %q in the configuration", want)
		}
	}
}

// TestWithoutMCP: what is for MCP servers alone, and opens something, is not there
// without one.
func TestWithoutMCP(t *testing.T) {
	o := testOptions(t)
	o.Catalog = parseCatalog(t, `servers: [{id: s, resource: "https://s", upstream: "127.0.0.1:1", http: [{tool: t, method: GET, path: /t}]}]`)
	for _, surface := range []string{o.Surface, ""} {
		o.Surface, o.Issuer = surface, ""
		got, err := Config(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"clear_route_cache", "surface", "prefix_rewrite", "disabled", "direct_response"} {
			if bytes.Contains(got, []byte(word)) {
				t.Errorf("surface %q: the configuration has %q", surface, word)
			}
		}
	}
}

// TestClusterNames: no server's cluster has the name of another's, whose limits and
// routes would then be one's own.
func TestClusterNames(t *testing.T) {
	o, text := testOptions(t), "servers:\n"
	for i, id := range []string{"a", "a-streams", "streams-a", "a-surface", "surface-a", "server-a", "authz"} {
		text += fmt.Sprintf("- {id: %s, resource: 'urn:%[1]s', upstream: '127.0.0.1:1', mcp: {path: /%d}}\n", id, i)
	}
	o.Catalog = parseCatalog(t, text)
	all, err := clusters(o)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.GetName()] {
			t.Errorf("two clusters are called %s", c.GetName())
		}
		seen[c.GetName()] = true
	}
	if want := 1 + 3*len(o.Catalog.Servers); len(seen) != want {
		t.Errorf("%d names, want %d", len(seen), want)
	}
}

// TestFragment puts each part where its comment says, in a configuration that
// has nothing else, and must arrive at what Config writes.
func TestFragment(t *testing.T) {
	o := testOptions(t)
	whole, err := Config(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Listen = ""
	got, err := Fragment(o)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "fragment.golden.yaml", got)

	var parts struct {
		Manager      map[string]any `json:"http_connection_manager"`
		Filters      []any          `json:"http_filters"`
		VirtualHosts []any          `json:"virtual_hosts"`
		Clusters     []any          `json:"clusters"`
	}
	if err := yaml.UnmarshalStrict(got, &parts); err != nil {
		t.Fatal(err)
	}
	manager := parts.Manager
	manager["@type"] = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	manager["stat_prefix"] = ListenerName
	manager["http_filters"] = append(parts.Filters, map[string]any{
		"name": "envoy.filters.http.router",
		"typed_config": map[string]any{
			"@type":                  "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
			"suppress_envoy_headers": true,
		},
	})
	manager["route_config"] = map[string]any{"name": ListenerName, "virtual_hosts": parts.VirtualHosts}
	pasted := map[string]any{"static_resources": map[string]any{
		"clusters": parts.Clusters,
		"listeners": []any{map[string]any{
			"name": ListenerName, "enable_reuse_port": false,
			"address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 10000.0}},
			"filter_chains": []any{map[string]any{"filters": []any{map[string]any{
				"name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
			}}}},
		}},
	}}
	var want map[string]any
	if err := yaml.Unmarshal(whole, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, pasted); diff != "" {
		t.Errorf("pasted together it is not what Config writes (-Config +pasted):\n%s", diff)
	}
	b, err := json.Marshal(pasted)
	if err != nil {
		t.Fatal(err)
	}
	if err := envoytest.Validate(t, b); err != nil {
		t.Error(err)
	}
}

func TestOptionsRefused(t *testing.T) {
	plain := parseCatalog(t, `servers: [{id: s, resource: "https://s", upstream: "127.0.0.1:1", http: [
		{tool: t, method: GET, path: /t, header: {x-token: {type: string}}}]}]`)
	for _, tt := range []struct {
		name string
		set  func(*Options)
		want string
	}{
		{"no catalogue", func(o *Options) { o.Catalog = nil }, "no catalogue"},
		{"no listener", func(o *Options) { o.Listen = "" }, "must be IP:PORT"},
		{"listener by name", func(o *Options) { o.Listen = "localhost:1" }, "must be IP:PORT"},
		{"listener with a zone", func(o *Options) { o.Listen = "[fe80::1%eth0]:1" }, "must be IP:PORT"},
		{"no authorization server", func(o *Options) { o.Authz = "" }, "must be unix:///PATH (the path clean"},
		{"authorization server elsewhere", func(o *Options) { o.Authz = "10.0.0.1:9001" }, "on loopback"},
		{"authorization server on all addresses", func(o *Options) { o.Authz = "0.0.0.0:9001" }, "on loopback"},
		{"authorization server by name", func(o *Options) { o.Authz = "localhost:9001" }, "on loopback"},
		{"authorization server without port", func(o *Options) { o.Authz = "127.0.0.1:0" }, "on loopback"},
		{"relative socket", func(o *Options) { o.Authz = "unix://authz.sock" }, "must be unix:///PATH"},
		{"unclean socket", func(o *Options) { o.Authz = "unix:///run/../authz.sock" }, "must be unix:///PATH"},
		{"long socket", func(o *Options) { o.Authz = "unix:///" + strings.Repeat("a", 107) }, "at most 107 bytes"},
		{"no surface for an MCP server", func(o *Options) { o.Surface = "" }, `surface "", which MCP servers need`},
		{"surface elsewhere", func(o *Options) { o.Surface = "10.0.0.1:9002" }, "on loopback"},
		{"surface on all addresses", func(o *Options) { o.Surface = "[::]:9002" }, "on loopback"},
		{"surface by name", func(o *Options) { o.Surface = "localhost:9002" }, "on loopback"},
		{"surface on a relative socket", func(o *Options) { o.Surface = "unix://surface.sock" }, "must be unix:///PATH"},
		{"surface malformed, and not needed", func(o *Options) { o.Catalog, o.Surface = plain, "x" }, `surface "x"`},
		{"surface at the authorization server", func(o *Options) { o.Surface = o.Authz }, "the authorization server is there"},
		{"issuer without a scheme", func(o *Options) { o.Issuer = "broker.internal" }, "must be an http or https URL"},
		{"issuer with a query", func(o *Options) { o.Issuer = "https://broker.internal?" }, "without query and fragment"},
		{"issuer with a byte that is no text", func(o *Options) { o.Issuer = "https://broker.internal/\xff" }, "in ASCII"},
		{"issuer of another scheme", func(o *Options) { o.Issuer = "urn:broker" }, "must be an http or https URL"},
		{"issuer with a password", func(o *Options) { o.Issuer = "https://a:b@broker.internal" }, "must be an http or https URL"},
		{"metadata too long", func(o *Options) { o.Issuer = "https://broker.internal/" + strings.Repeat("a", 4000) }, "over the 4096 that Envoy takes"},
		{"admin elsewhere", func(o *Options) { o.Admin = "0.0.0.0:9901" }, "on loopback"},
		{"check time-out negative", func(o *Options) { o.CheckTimeout = -time.Second }, "check time-out"},
		{"check time-out too fine", func(o *Options) { o.CheckTimeout = time.Microsecond }, "check time-out"},
		{"check time-out too long", func(o *Options) { o.CheckTimeout = time.Hour }, "check time-out"},
		{"body limit", func(o *Options) { o.MaxBody = 4 << 20 }, "body limit"},
		{"credential header in capitals", func(o *Options) { o.CredentialHeader = "X-Token" }, "must be a lower-case"},
		{"credential header with an underscore", func(o *Options) { o.CredentialHeader = "x_token" }, "must be a lower-case"},
		{"credential header that routes", func(o *Options) { o.CredentialHeader = "host" }, "another use"},
		{"credential header that is stripped", func(o *Options) { o.CredentialHeader = "x-grant-ctx-token" }, "another use"},
		{"credential header as an input", func(o *Options) { o.Catalog, o.CredentialHeader = plain, "x-token" },
			`tool s/t: its input header "x-token" is the credential header`},
		{"TLS key missing", func(o *Options) { o.TLS.CertFile = "c" }, "both a certificate and its key"},
		{"client CA without TLS", func(o *Options) { o.TLS.ClientCAFile = "c" }, "which needs a certificate and key"},
		{"client certificates of nobody", func(o *Options) { o.TLS = ListenerTLS{CertFile: "c", KeyFile: "k", RequireClientCert: true} }, "say whose"},
		{"TLS to a socket", func(o *Options) { o.AuthzTLS = AuthzTLS{"c", "k", "a", "n"} }, "TLS is for IP:PORT"},
		{"TLS to authz without a name", func(o *Options) { o.Authz, o.AuthzTLS = "10.0.0.1:1", AuthzTLS{"c", "k", "a", ""} }, "certificate, key, CA and server name"},
		{"TLS to all addresses", func(o *Options) { o.Authz, o.AuthzTLS = "0.0.0.0:1", AuthzTLS{"c", "k", "a", "n"} }, "another IP:PORT with TLS"},
		{"TLS file with a line end", func(o *Options) { o.TLS = ListenerTLS{CertFile: "c\n", KeyFile: "k"} }, "not a printable path"},
		{"token handed to a tool", func(o *Options) { o.CredentialHeader = "" },
			"tool mail/send: pass_authorization would hand the grant token to the tool"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := testOptions(t)
			tt.set(&o)
			if _, err := Config(o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Config: error %v, want one with %q", err, tt.want)
			}
			if o.Listen == testOptions(t).Listen { // the one that Fragment does not use
				if _, err := Fragment(o); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Fragment: error %v, want one with %q", err, tt.want)
				}
			}
		})
	}
}

// TestValidateLooksInside shows that validate sees what is in an Any in an Any.
func TestValidateLooksInside(t *testing.T) {
	invalid := &hcmv3.HttpConnectionManager{StatPrefix: ""} // must not be empty
	outer := &corev3.TypedExtensionConfig{
		Name: "outer",
		TypedConfig: toAny(&hcmv3.HttpConnectionManager{
			StatPrefix:     "x",
			RouteSpecifier: connectionManager(testOptions(t)).RouteSpecifier,
			EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{
				{Name: "inner", TypedConfig: toAny(invalid)},
			},
		}),
	}
	if err := validate(outer); err == nil || !strings.Contains(err.Error(), "StatPrefix") {
		t.Errorf("error %v, want one about StatPrefix", err)
	}
}
