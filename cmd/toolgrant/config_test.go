package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// writeConfig writes a configuration file and gives its path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "toolgrant.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigDefaults(t *testing.T) {
	path := writeConfig(t, leastConfig)
	dir := filepath.Dir(path)
	got, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Broker:    BrokerConfig{Listen: "127.0.0.1:8181", Issuer: "http://127.0.0.1:8181", PublicURL: "http://127.0.0.1:8181"},
		Authz:     AuthzConfig{Listen: "unix:///run/toolgrant/authz.sock"},
		Surface:   SurfaceConfig{Listen: "unix:///run/toolgrant/surface.sock"},
		Catalogue: filepath.Join(dir, "tools.yaml"),
		Policies:  filepath.Join(dir, "policies"),
		Identity: IdentityConfig{Issuers: []IssuerConfig{{Alias: "corp", Issuer: "https://idp.example",
			JWKSFile: filepath.Join(dir, "jwks.json"), Audience: "toolgrant", GroupsClaim: "groups"}}},
		Keys:   KeysConfig{Dir: filepath.Join(dir, "keys"), Alg: "EdDSA"},
		Token:  TokenConfig{Header: "authorization"},
		Limits: LimitsConfig{MaxTTL: 15 * time.Minute, MaxTask: 4 * time.Hour, GrantsPerAgent: 1000, TasksPerOwner: 1000, RequestsPerAgent: 50},
		Detect: DetectConfig{GrantRequests: 30, Window: time.Minute},
		Audit:  AuditConfig{File: filepath.Join(dir, "audit.jsonl"), Fsync: "interval"},
		Envoy: EnvoyConfig{
			Listen: "127.0.0.1:10000", Authz: "unix:///run/toolgrant/authz.sock", Surface: "unix:///run/toolgrant/surface.sock",
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLoadConfigWhole(t *testing.T) {
	path := writeConfig(t, `
broker:
  listen: "0.0.0.0:9191"
  issuer: https://broker.example/x
  public_url: https://broker.internal
  tls: {cert: b.pem, key: b.key}
authz: {listen: "0.0.0.0:9192", tls: {cert: a.pem, key: a.key, client_ca: /ca.pem}}
admin: {listen: "10.0.0.1:9190", tls: {cert: m.pem, key: m.key, client_ca: /ca.pem}}
catalogue: /etc/tg/tools.yaml
policies: rules/
identity:
  issuers:
  - alias: corp
    issuer: https://idp.example
    jwks_file: a/jwks.json
    audience: toolgrant
    groups_claim: roles
    groups: {Orchestrators: orchestrators, 'team a': a}
  - {alias: k8s, issuer: "https://kubernetes.default.svc", jwks_url: "https://kubernetes.default.svc/openid/v1/jwks", ca: /ca.crt, bearer_file: t, audience: broker}
  certificates: {alias: mesh}
clients: [{id: ci, jwks_file: ci.json}, {id: spa, auth: none}]
keys: {dir: k/, alg: ES256}
token: {header: x-tool-token}
limits: {max_ttl: 90s, max_task: 1h30m, grants_per_agent: 7, tasks_per_owner: 8, requests_per_agent_per_s: 9}
detect: {grant_requests: 5, window: 30s}
audit: {file: ../log.jsonl, fsync: always}
envoy:
  listen: "0.0.0.0:10001"
  authz: 10.0.0.1:9192
  tls: {cert: e.pem, key: e.key, client_ca: eca.pem, require_client_certificate: true}
  authz_tls: {cert: ec.pem, key: ec.key, ca: ca.pem, server_name: authz.internal}
`)
	dir := filepath.Dir(path)
	got, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	want := &Config{
		Broker: BrokerConfig{Listen: "0.0.0.0:9191", Issuer: "https://broker.example/x", PublicURL: "https://broker.internal",
			TLS: TLSConfig{Cert: in("b.pem"), Key: in("b.key")}},
		Authz:     AuthzConfig{Listen: "0.0.0.0:9192", TLS: TLSConfig{Cert: in("a.pem"), Key: in("a.key"), ClientCA: "/ca.pem"}},
		Admin:     AdminConfig{Listen: "10.0.0.1:9190", TLS: TLSConfig{Cert: in("m.pem"), Key: in("m.key"), ClientCA: "/ca.pem"}},
		Catalogue: "/etc/tg/tools.yaml",
		Policies:  in("rules"),
		Identity: IdentityConfig{
			Issuers: []IssuerConfig{
				{Alias: "corp", Issuer: "https://idp.example", JWKSFile: in("a/jwks.json"), Audience: "toolgrant",
					GroupsClaim: "roles", Groups: map[string]string{"Orchestrators": "orchestrators", "team a": "a"}},
				{Alias: "k8s", Issuer: "https://kubernetes.default.svc", JWKSURL: "https://kubernetes.default.svc/openid/v1/jwks",
					CA: "/ca.crt", BearerFile: in("t"), Audience: "broker", GroupsClaim: "groups"},
			},
			Certificates: CertificatesConfig{Alias: "mesh"},
		},
		Clients: []ClientConfig{{ID: "ci", Auth: "private_key_jwt", JWKSFile: in("ci.json")}, {ID: "spa", Auth: "none"}},
		Keys:    KeysConfig{Dir: in("k"), Alg: "ES256"},
		Token:   TokenConfig{Header: "x-tool-token"},
		Limits:  LimitsConfig{MaxTTL: 90 * time.Second, MaxTask: 90 * time.Minute, GrantsPerAgent: 7, TasksPerOwner: 8, RequestsPerAgent: 9},
		Detect:  DetectConfig{GrantRequests: 5, Window: 30 * time.Second},
		Audit:   AuditConfig{File: filepath.Join(filepath.Dir(dir), "log.jsonl"), Fsync: "always"},
		Envoy: EnvoyConfig{
			Listen: "0.0.0.0:10001", Authz: "10.0.0.1:9192",
			TLS:      EnvoyTLSConfig{Cert: "e.pem", Key: "e.key", ClientCA: "eca.pem", Require: true},
			AuthzTLS: AuthzTLSConfig{Cert: "ec.pem", Key: "ec.key", CA: "ca.pem", ServerName: "authz.internal"},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A shorter task bounds the default of a grant, which nobody wrote down.
func TestLoadConfigShortTask(t *testing.T) {
	got, err := LoadConfig(writeConfig(t, leastConfig+"limits: {max_task: 10m}\n"))
	if err != nil || got.Limits.MaxTTL != 10*time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLoadConfigEnvoyChooses(t *testing.T) {
	if _, err := LoadConfig(writeConfig(t, leastConfig+"envoy: {listen: \"127.0.0.1:0\"}\n")); err != nil {
		t.Error(err)
	}
}

func TestAuthzAddress(t *testing.T) {
	for listen, want := range map[string][2]string{
		"unix:///run/x.sock": {"unix", "/run/x.sock"},
		"127.0.0.1:9192":     {"tcp", "127.0.0.1:9192"},
	} {
		if n, a := (AuthzConfig{Listen: listen}).Address(); n != want[0] || a != want[1] {
			t.Errorf("%s: %s %s", listen, n, a)
		}
	}
}

// leastConfig is three lines: what a case adds to it starts at line 4.
func TestLoadConfigErrors(t *testing.T) {
	least := leastConfig
	issuers := func(entries string) string { return "identity:\n  issuers:\n" + entries }
	for _, tc := range []struct {
		name, text string
		at         string // LINE:COLUMN
		want       string
	}{
		// What the YAML is.
		{"empty", "", "", "empty; write at least\nidentity:"},
		{"comment alone", "# nothing\n", "", "empty"},
		{"not yaml", "broker: {listen: [\n", "1:18", "not YAML"},
		{"tab", "broker:\n\tlisten: x\n", "2:1", "not YAML"},
		{"binary", "\x00\x01", "", "not UTF-8 text"},
		{"latin-1", "broker: {issuer: \"\xe4\"}", "", "not UTF-8 text"},
		{"huge", "# " + strings.Repeat("x", maxConfig), "", "longer than"},
		{"deep", strings.Repeat("[", 4096), "1:65", "nested deeper than 64 levels"},
		{"list", "- broker\n", "1:1", "must be a mapping"},
		{"text", "broker\n", "1:1", "must be a mapping"},
		{"two documents", least + "---\nkeys: {alg: ES256}\n", "5:5", "more than one YAML document"},
		{"unknown key", least + "brokr: {listen: x}\n", "4:1", `unknown key "brokr"; known here: admin, audit, authz, authzen, broker, catalogue, `},
		{"another case", least + "Broker: {listen: \"127.0.0.1:1\"}\n", "4:1", `unknown key "Broker"`},
		{"unknown inner key", least + "keys:\n  alg: ES256\n  algo: ES256\n", "6:3", `unknown key "algo"; known here: alg, dir`},
		{"first of two unknown", least + "zz: 1\nyy: 1\n", "4:1", `unknown key "zz"`},
		{"unknown issuer key", issuers("  - alias: corp\n    jwks: x\n"), "4:5", `unknown key "jwks"; known here: alias, audience, `},
		{"twice", least + "keys: {alg: ES256}\nkeys: {alg: EdDSA}\n", "5:1", `not YAML that is read here: duplicate key "keys"`},
		{"twice quoted", least + "keys: {alg: ES256, \"alg\": EdDSA}\n", "4:20", `duplicate key "alg"`},
		{"merge", least + "keys:\n  <<: {alg: ES256}\n", "5:3", "anchors, aliases and merge keys are not supported"},
		{"alias", least + "policies: &p x\ncatalogue: *p\n", "4:11", "anchors, aliases and merge keys are not supported"},
		{"tag", least + "policies: !!str x\n", "4:11", "tags are not supported"},
		{"number", least + "policies: 5\n", "4:1", "policies: must be text, not a number"},
		{"bool", least + "keys: {alg: true}\n", "4:8", "keys.alg: must be text, not true or false"},
		{"block", least + "policies: |\n  x\n", "4:1", "policies: must be text, not a block"},
		{"null", least + "keys:\n", "4:1", "keys: is empty"},
		{"null text", least + "keys: {dir: }\n", "4:8", "keys.dir: is empty"},
		{"blank", least + "policies: \"  \"\n", "4:1", "policies: is empty"},
		{"control", least + "policies: \"a\\nb\"\n", "4:1", "policies: has a control character"},
		{"section as text", least + "keys: here\n", "4:1", "keys: must be a mapping (key: value), not text"},
		{"list as mapping", "identity: {issuers: {alias: corp}}\n", "1:12", "identity.issuers: must be a list, not a mapping"},
		{"text as mapping", least + "policies: {a: b}\n", "4:1", "policies: must be text, not a mapping"},
		{"item as text", issuers("  - corp\n"), "3:5", "identity.issuers[0]: must be a mapping"},
		{"map of numbers", issuers("  - {alias: corp, issuer: a, jwks_file: b, audience: c, groups: {a: 1}}\n"), "3:66", "identity.issuers[0].groups.a: must be text"},

		// What the values say.
		{"broker open", least + "broker: {listen: \"0.0.0.0:8181\"}\n", "4:10", "without broker.tls"},
		{"broker name", least + "broker:\n  listen: broker.example:8181\n", "5:3", "without broker.tls"},
		{"broker all", least + "broker: {listen: \":8181\"}\n", "4:10", "is not host:port"},
		{"broker port", least + "broker: {listen: \"127.0.0.1:0\"}\n", "4:10", "is not host:port"},
		{"broker no port", least + "broker: {listen: 127.0.0.1}\n", "4:10", "is not host:port; write, for example"},
		{"issuer http", least + "broker: {issuer: \"http://broker.example\"}\n", "4:10", "must be https"},
		{"issuer path", least + "broker: {issuer: broker.example}\n", "4:10", "is not an issuer's URL"},
		{"issuer query", least + "broker: {issuer: \"https://broker.example?\"}\n", "4:10", "is not an issuer's URL"},
		{"issuer fragment", least + "broker: {issuer: \"https://broker.example#\"}\n", "4:10", "is not an issuer's URL"},
		{"authz open", least + "authz: {listen: \"0.0.0.0:9192\"}\n", "4:9", "without authz.tls"},
		{"authz relative", least + "authz: {listen: \"unix://run/x.sock\"}\n", "4:9", "not the absolute path"},
		{"authz one slash", least + "authz: {listen: \"unix:/run/x.sock\"}\n", "4:9", "three slashes in all"},
		{"authz long", least + "authz: {listen: \"unix:///" + strings.Repeat("x", 107) + "\"}\n", "4:9", "at most 107 bytes"},
		{"authz folder", least + "authz: {listen: \"unix:///run/\"}\n", "4:9", "not the absolute path"},
		{"authz is broker", least + "authz: {listen: \"127.0.0.1:8181\"}\n", "4:9", "give each its own"},
		{"envoy is broker", least + "envoy: {listen: \"127.0.0.1:8181\"}\n", "4:9", "give each its own"},
		{"authz port", least + "authz: {listen: \"127.0.0.1:0\"}\n", "4:9", "is not host:port"},
		{"envoy", least + "envoy: {listen: \"10000\"}\n", "4:9", "is not host:port"},
		{"no issuer", "keys: {alg: ES256}\n", "1:1", "identity.issuers: at least one is required"},
		{"no issuers", "\nidentity: {issuers: []}\n", "2:12", "identity.issuers: at least one is required"},
		{"no jwks", issuers("  - alias: corp\n    issuer: https://idp.example\n    audience: toolgrant\n"), "3:5", "identity.issuers[0].jwks_file: one of jwks_file and jwks_url is required"},
		{"two jwks", issuers("  - {alias: corp, issuer: x, audience: y, jwks_file: a, jwks_url: b}\n"), "3:43", "and not both"},
		{"ca without url", issuers("  - {alias: corp, issuer: x, audience: y, jwks_file: a, ca: b}\n"), "3:6", "ca and bearer_file are for it"},
		{"certificates alias", least + "  certificates: {alias: A}\n", "4:18", `"A": write at most 31`},
		{"admin open", least + "admin: {listen: \"0.0.0.0:9190\"}\n", "4:9", "nobody is asked who they are"},
		{"admin without client_ca", least + "admin: {listen: \"10.0.0.1:9190\", tls: {cert: x, key: y}}\n", "4:34", "needs client_ca"},
		{"admin's tls alone", least + "admin: {tls: {cert: x, key: y, client_ca: z}}\n", "4:9", "without admin.listen"},
		{"admin is the broker", least + "admin: {listen: \"127.0.0.1:8181\"}\n", "4:9", "is the broker's; give each its own"},
		{"half of tls", least + "broker: {tls: {cert: x}}\n", "4:10", "needs both cert and key"},
		{"socket with tls", least + "authz: {tls: {cert: x, key: y, client_ca: z}}\n", "4:9", "is for host:port"},
		{"authz without client_ca", least + "authz: {listen: \"10.0.0.1:9\", tls: {cert: x, key: y}}\n", "4:31", "needs client_ca"},
		{"Envoy without its half", least + "authz: {listen: \"10.0.0.1:9\", tls: {cert: x, key: y, client_ca: z}}\n", "1:1", "envoy.authz_tls: needs cert, key, ca and server_name"},
		{"Envoy's half alone", least + "envoy: {authz_tls: {cert: x}}\n", "4:9", "is there without authz.tls"},
		{"required of nobody", least + "envoy: {tls: {cert: x, key: y, require_client_certificate: true}}\n", "4:32", "needs client_ca"},
		{"a word for true", least + "envoy: {tls: {require_client_certificate: yes}}\n", "4:15", "must be true or false"},
		{"another case of true", least + "envoy: {tls: {require_client_certificate: True}}\n", "4:15", "must be true or false"},
		{"count of zero", least + "limits: {grants_per_agent: 0}\n", "4:10", "not a whole number above zero"},
		{"count below zero", least + "limits: {grants_per_agent: -1}\n", "4:10", "not a whole number above zero"},
		{"count in hex", least + "limits: {grants_per_agent: 0x10}\n", "4:10", "not a whole number above zero"},
		{"count of text", least + "limits: {grants_per_agent: many}\n", "4:10", "must be a whole number"},
		{"count of half", least + "limits: {grants_per_agent: 1.5}\n", "4:10", "not a whole number above zero"},
		{"client without keys", least + "clients: [{id: a}]\n", "4:12", "the client's public keys"},
		{"client with keys for nothing", least + "clients: [{id: a, auth: none, jwks_file: x}]\n", "4:31", "its keys would not be looked at"},
		{"client twice", least + "clients: [{id: a, auth: none}, {id: a, auth: none}]\n", "4:33", `"a" is there twice`},
		{"client secret", least + "clients: [{id: a, auth: client_secret_basic}]\n", "4:19", "write private_key_jwt or none"},
		{"no jwks in flow", issuers("  - {alias: corp, issuer: x, audience: y}\n"), "3:6", "one of jwks_file and jwks_url"},
		{"no audience", issuers("  - {alias: corp, issuer: x, jwks_file: y}\n"), "3:6", "audience: is required"},
		{"no alias", issuers("  - {issuer: x, jwks_file: y, audience: z}\n"), "3:6", "alias: is required"},
		{"no iss", issuers("  - {alias: x, jwks_file: y, audience: z}\n"), "3:6", "issuer: is required"},
		{"alias case", issuers("  - alias: Corp\n    issuer: x\n    jwks_file: y\n    audience: z\n"), "3:5", "lower-case"},
		{"alias slash", issuers("  - {issuer: x, jwks_file: y, audience: z, alias: a/b}\n"), "3:44", "lower-case"},
		{"alias twice", issuers("  - {alias: a, issuer: x, jwks_file: y, audience: z}\n  - {alias: a, issuer: w, jwks_file: y, audience: z}\n"), "4:6", "identity.issuers[1].alias: \"a\" is there twice"},
		{"iss twice", issuers("  - {alias: a, issuer: x, jwks_file: y, audience: z}\n  - {alias: b, issuer: x, jwks_file: y, audience: z}\n"), "4:16", "identity.issuers[1].issuer: \"x\" is there twice"},
		{"iss blank", issuers("  - {alias: a, issuer: \"x \", jwks_file: y, audience: z}\n"), "3:16", "has a blank"},
		{"alg", least + "keys: {alg: RS256}\n", "4:8", `keys.alg: "RS256" is not known; write EdDSA or ES256`},
		{"fsync", least + "audit:\n  fsync: often\n", "5:3", `"often" is not known; write always or interval or never`},
		{"header case", least + "token: {header: Authorization}\n", "4:9", "cannot carry a token"},
		{"header cookie", least + "token: {header: cookie}\n", "4:9", "cannot carry a token"},
		{"header host", least + "token: {header: \":authority\"}\n", "4:9", "cannot carry a token"},
		{"header ours", least + "token: {header: x-grant-ctx-agent}\n", "4:9", "cannot carry a token"},
		{"bare number", least + "limits: {max_ttl: 15}\n", "4:10", "has no unit"},
		{"quoted number", least + "limits: {max_ttl: \"15\"}\n", "4:10", "has no unit"},
		{"zero", least + "limits: {max_ttl: 0s}\n", "4:10", "whole seconds above zero"},
		{"negative", least + "limits: {max_ttl: \"-1s\"}\n", "4:10", "whole seconds above zero"},
		{"part of a second", least + "limits: {max_ttl: 1500ms}\n", "4:10", "whole seconds above zero"},
		{"overflow", least + "limits: {max_ttl: 9999999999h}\n", "4:10", "whole seconds above zero"},
		{"ttl over task", least + "limits: {max_task: 1m, max_ttl: 2m}\n", "4:24", "longer than limits.max_task"},
	} {
		path := writeConfig(t, tc.text)
		c, err := LoadConfig(path)
		var ce *ConfigError
		if c != nil || !errors.As(err, &ce) {
			t.Errorf("%s: got %v, %v", tc.name, c, err)
			continue
		}
		prefix := path + ": "
		if tc.at != "" {
			prefix = path + ":" + tc.at + ": "
		}
		if text := err.Error(); !strings.HasPrefix(text, prefix) || !strings.Contains(text, tc.want) {
			t.Errorf("%s:\n got %s\nwant %s… %s", tc.name, text, tc.at, tc.want)
		}
		if exitCode(err) != exitUsage {
			t.Errorf("%s: exit code %d", tc.name, exitCode(err))
		}
	}
}

// All faults of the values are told at once, each with its place.
func TestLoadConfigAllFaults(t *testing.T) {
	path := writeConfig(t, leastConfig+"keys: {alg: RS256}\naudit: {fsync: no way}\n")
	_, err := LoadConfig(path)
	if err == nil || strings.Count(err.Error(), path) != 2 || !strings.Contains(err.Error(), path+":4:8: ") || !strings.Contains(err.Error(), path+":5:9: ") {
		t.Errorf("got %v", err)
	}
}

func TestLoadConfigMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := LoadConfig(path); err == nil || err.Error() != path+": no such file or directory" || exitCode(err) != exitUsage {
		t.Errorf("got %v", err)
	}
	if _, err := LoadConfig(t.TempDir()); err == nil || exitCode(err) != exitUsage {
		t.Errorf("a folder: %v", err)
	}
}

// The example that is shipped must be one that loads.
func TestShippedConfig(t *testing.T) {
	if _, err := LoadConfig("../../examples/reports/toolgrant.yaml"); err != nil {
		t.Error(err)
	}
}

func FuzzLoadConfig(f *testing.F) {
	f.Add([]byte(leastConfig))
	f.Add([]byte("broker: {listen: \"127.0.0.1:8181\"}\n---\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("? {a: b}\n: c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := &Config{}
		file, err := readYAML("f", text, c)
		if err != nil {
			var ce *ConfigError
			if !errors.As(err, &ce) {
				t.Errorf("%v is no *ConfigError", err)
			}
			return
		}
		c.setDefaults()
		if c.check(file) == nil && len(c.Identity.Issuers) == 0 {
			t.Error("a configuration in which nobody is believed")
		}
	})
}
