package main

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the configuration file of the broker and the call door. Paths in
// it have been resolved against the file's folder, and what the file leaves
// out has its default.
type Config struct {
	Broker    BrokerConfig   `yaml:"broker"`
	Authz     AuthzConfig    `yaml:"authz"`
	Surface   SurfaceConfig  `yaml:"surface"`
	Admin     AdminConfig    `yaml:"admin"`
	Catalogue string         `yaml:"catalogue"` // file of servers and tools; default tools.yaml
	Policies  string         `yaml:"policies"`  // folder of *.cedar and entities.json; default policies
	Manifests string         `yaml:"manifests"` // folder of grant manifests, *.yaml; default manifests, if that is there
	PDP       PDPConfig      `yaml:"pdp"`       // another engine that decides, in place of policies
	Shadow    ShadowConfig   `yaml:"shadow"`
	AuthZEN   AuthZENConfig  `yaml:"authzen"`
	Identity  IdentityConfig `yaml:"identity"`
	Clients   []ClientConfig `yaml:"clients"`
	Keys      KeysConfig     `yaml:"keys"`
	Token     TokenConfig    `yaml:"token"`
	Limits    LimitsConfig   `yaml:"limits"`
	Detect    DetectConfig   `yaml:"detect"`
	Audit     AuditConfig    `yaml:"audit"`
	Envoy     EnvoyConfig    `yaml:"envoy"`
}

// BrokerConfig is the issue door.
type BrokerConfig struct {
	Listen    string    `yaml:"listen"`     // host:port; without tls on loopback only; default 127.0.0.1:8181
	Issuer    string    `yaml:"issuer"`     // "iss" of the tokens; https, or http on loopback; default http://LISTEN
	PublicURL string    `yaml:"public_url"` // where clients reach it; default the issuer
	TLS       TLSConfig `yaml:"tls"`
}

// TLSConfig names PEM files, which are read again when they change.
type TLSConfig struct {
	Cert     string `yaml:"cert"`      // certificate chain, the leaf first
	Key      string `yaml:"key"`       // its private key
	ClientCA string `yaml:"client_ca"` // whoever connects must show a certificate of one of these; none: needs none
}

func (t TLSConfig) on() bool { return t != TLSConfig{} }

// AuthzConfig is the call door.
type AuthzConfig struct {
	Listen string    `yaml:"listen"` // unix:///PATH, or host:port; without tls on loopback only; default unix:///run/toolgrant/authz.sock
	TLS    TLSConfig `yaml:"tls"`    // for host:port; all three files
}

// SurfaceConfig is where Envoy sends the messages to MCP servers whose answers
// have to be seen.
type SurfaceConfig struct {
	Listen string `yaml:"listen"` // unix:///PATH, or host:port on loopback; default surface.sock beside authz.listen's socket
}

// AdminConfig is where operators and probes look, apart from both doors.
type AdminConfig struct {
	Listen string    `yaml:"listen"` // host:port; without tls on loopback only; default: none
	TLS    TLSConfig `yaml:"tls"`    // all three files
}

// Address gives what net.Listen takes: "unix" and a path, or "tcp" and
// host:port.
func (a AuthzConfig) Address() (network, address string) {
	if path, ok := strings.CutPrefix(a.Listen, "unix://"); ok {
		return "unix", path
	}
	return "tcp", a.Listen
}

// IdentityConfig says whose identity tokens are believed.
type IdentityConfig struct {
	Issuers      []IssuerConfig     `yaml:"issuers"` // at least one
	Certificates CertificatesConfig `yaml:"certificates"`
}

// CertificatesConfig lets a client certificate that Envoy verified name an agent
// for the baseline.
type CertificatesConfig struct {
	Alias string `yaml:"alias"` // the agent is ALIAS/NAME, NAME the first URI SAN, or else the first DNS SAN; default: off
}

// IssuerConfig is one issuer of identity tokens. An agent's id is ALIAS/SUB.
type IssuerConfig struct {
	Alias       string            `yaml:"alias"`        // lower-case letters, digits and "-"; required, unique
	Issuer      string            `yaml:"issuer"`       // "iss", compared exactly; required, unique
	JWKSFile    string            `yaml:"jwks_file"`    // its public keys; this or jwks_url
	JWKSURL     string            `yaml:"jwks_url"`     // https, or http on loopback; fetched at start and every few minutes
	CA          string            `yaml:"ca"`           // PEM file: who vouches for jwks_url's certificate; default the system's
	BearerFile  string            `yaml:"bearer_file"`  // a token for jwks_url, read anew each time (a Kubernetes service account's)
	Audience    string            `yaml:"audience"`     // the "aud" by which a token is meant for the broker; required
	GroupsClaim string            `yaml:"groups_claim"` // claim that lists the groups; default groups
	Groups      map[string]string `yaml:"groups"`       // its group -> policy group; the others become ALIAS/GROUP
}

// ClientConfig is an OAuth client of the token endpoint. With none configured,
// a client_id is not looked at.
type ClientConfig struct {
	ID       string `yaml:"id"`        // client_id; required, unique
	Auth     string `yaml:"auth"`      // private_key_jwt (default) or none
	JWKSFile string `yaml:"jwks_file"` // its public keys, for private_key_jwt
}

// KeysConfig is where the signing keys are; they are made at the first start.
type KeysConfig struct {
	Dir string `yaml:"dir"` // default keys
	Alg string `yaml:"alg"` // EdDSA (default) or ES256
}

// TokenConfig says where a call carries its token.
type TokenConfig struct {
	Header string `yaml:"header"` // lower-case header name; default authorization
}

// LimitsConfig bounds what can be asked for. Whole seconds; counts above zero.
type LimitsConfig struct {
	MaxTTL           time.Duration `yaml:"max_ttl"`                  // of a grant; default 15m
	MaxTask          time.Duration `yaml:"max_task"`                 // of a task; default 4h
	GrantsPerAgent   int           `yaml:"grants_per_agent"`         // live at a time; default 1000
	TasksPerOwner    int           `yaml:"tasks_per_owner"`          // open at a time; default 1000
	RequestsPerAgent int           `yaml:"requests_per_agent_per_s"` // at the broker, in the long run; default 50
}

// DetectConfig says when a rate of grant requests is a signal.
type DetectConfig struct {
	GrantRequests int           `yaml:"grant_requests"` // more than so many of one requester for one tool...; default 30
	Window        time.Duration `yaml:"window"`         // ...within this time; default 1m
}

// AuditConfig is the log of decisions.
type AuditConfig struct {
	File   string `yaml:"file"`   // default audit.jsonl
	Fsync  string `yaml:"fsync"`  // always, interval (default) or never
	Inputs string `yaml:"inputs"` // what policy was asked, arguments and all but what the catalogue redacts; default: not kept
}

// EnvoyConfig is what `toolgrant envoy` prints for.
type EnvoyConfig struct {
	Listen   string         `yaml:"listen"`  // host:port; default 127.0.0.1:10000; port 0: Envoy chooses
	Authz    string         `yaml:"authz"`   // where Envoy finds the authz server; default authz.listen
	Surface  string         `yaml:"surface"` // where Envoy finds the surface; default surface.listen
	TLS      EnvoyTLSConfig `yaml:"tls"`
	AuthzTLS AuthzTLSConfig `yaml:"authz_tls"` // how Envoy calls an authz.listen with tls
}

// EnvoyTLSConfig is how Envoy takes calls. The paths are Envoy's: they are
// printed as they are.
type EnvoyTLSConfig struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`                  // a client's certificate, if it shows one, must be of one of these
	Require  bool   `yaml:"require_client_certificate"` // false: it may show none
}

// AuthzTLSConfig is Envoy's side of authz.tls. The paths are Envoy's.
type AuthzTLSConfig struct {
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	CA         string `yaml:"ca"`
	ServerName string `yaml:"server_name"` // name in the authz server's certificate
}

// leastConfig is a file that has all that is required.
const leastConfig = `identity:
  issuers:
  - {alias: corp, issuer: "https://idp.example", jwks_file: jwks.json, audience: toolgrant}
`

// LoadConfig reads and checks a configuration file. The files that it names
// are not opened. Its error is a *ConfigError, or several of them joined: each
// with file, line and column, what is wrong, and what to write.
func LoadConfig(path string) (*Config, error) {
	text, err := readFile(path, maxConfig+1)
	if err != nil {
		return nil, &ConfigError{File: path, Text: err.Error()}
	}
	c := &Config{}
	f, err := readYAML(path, text, c)
	if err != nil {
		return nil, err
	}
	c.setDefaults()
	if err := c.check(f); err != nil {
		return nil, err
	}
	c.resolve(filepath.Dir(path))
	return c, nil
}

// readFile reads at most limit bytes. The error does not repeat the path.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(f, limit)); err == nil {
			return b, nil
		}
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return nil, err
}

func (c *Config) setDefaults() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Broker.Listen, "127.0.0.1:8181")
	scheme := "http://"
	if c.Broker.TLS.on() {
		scheme = "https://"
	}
	def(&c.Broker.Issuer, scheme+c.Broker.Listen)
	def(&c.Broker.PublicURL, c.Broker.Issuer)
	def(&c.Authz.Listen, "unix:///run/toolgrant/authz.sock")
	if network, path := c.Authz.Address(); network == "unix" {
		def(&c.Surface.Listen, "unix://"+filepath.Join(filepath.Dir(path), "surface.sock"))
	}
	def(&c.Catalogue, "tools.yaml")
	def(&c.Policies, "policies")
	for i := range c.Identity.Issuers {
		def(&c.Identity.Issuers[i].GroupsClaim, "groups")
	}
	for i := range c.Clients {
		def(&c.Clients[i].Auth, "private_key_jwt")
	}
	def(&c.Keys.Dir, "keys")
	def(&c.Keys.Alg, "EdDSA")
	def(&c.Token.Header, "authorization")
	if c.Limits.MaxTask == 0 {
		c.Limits.MaxTask = 4 * time.Hour
	}
	if c.Limits.MaxTTL == 0 {
		c.Limits.MaxTTL = min(15*time.Minute, c.Limits.MaxTask)
	}
	count := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	count(&c.Limits.GrantsPerAgent, 1000)
	count(&c.Limits.TasksPerOwner, 1000)
	count(&c.Limits.RequestsPerAgent, 50)
	count(&c.Detect.GrantRequests, 30)
	if c.Detect.Window == 0 {
		c.Detect.Window = time.Minute
	}
	def(&c.Audit.File, "audit.jsonl")
	if c.Shadow.on() {
		def(&c.Shadow.File, "shadow.jsonl")
	}
	if c.PDP.on() {
		c.PDP.Timeout = cmp.Or(c.PDP.Timeout, fineDuration(200*time.Millisecond))
		c.PDP.Cache = cmp.Or(c.PDP.Cache, fineDuration(5*time.Second))
	}
	def(&c.Audit.Fsync, "interval")
	def(&c.Envoy.Listen, "127.0.0.1:10000")
	def(&c.Envoy.Authz, c.Authz.Listen)
	def(&c.Envoy.Surface, c.Surface.Listen)
}

func (c *Config) resolve(dir string) {
	if c.Manifests == "" && isFolder(filepath.Join(dir, "manifests")) {
		c.Manifests = "manifests"
	}
	paths := []*string{
		&c.Catalogue, &c.Policies, &c.Manifests, &c.Keys.Dir, &c.Audit.File, &c.Audit.Inputs,
		&c.Shadow.Policies, &c.Shadow.Manifests, &c.Shadow.File, &c.PDP.CA, &c.PDP.BearerFile,
	}
	for i := range c.Identity.Issuers {
		is := &c.Identity.Issuers[i]
		paths = append(paths, &is.JWKSFile, &is.CA, &is.BearerFile)
	}
	for i := range c.Clients {
		paths = append(paths, &c.Clients[i].JWKSFile)
	}
	for _, t := range []*TLSConfig{&c.Broker.TLS, &c.Authz.TLS, &c.Admin.TLS} {
		paths = append(paths, &t.Cert, &t.Key, &t.ClientCA)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
