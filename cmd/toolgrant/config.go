package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Config is the configuration file of the broker and the call door. Paths in
// it have been resolved against the file's folder, and what the file leaves
// out has its default.
type Config struct {
	Broker    BrokerConfig   `yaml:"broker"`
	Authz     AuthzConfig    `yaml:"authz"`
	Catalogue string         `yaml:"catalogue"` // file of servers and tools; default tools.yaml
	Policies  string         `yaml:"policies"`  // folder of *.cedar and entities.json; default policies
	Identity  IdentityConfig `yaml:"identity"`
	Keys      KeysConfig     `yaml:"keys"`
	Token     TokenConfig    `yaml:"token"`
	Limits    LimitsConfig   `yaml:"limits"`
	Audit     AuditConfig    `yaml:"audit"`
	Envoy     EnvoyConfig    `yaml:"envoy"`
}

// BrokerConfig is the issue door.
type BrokerConfig struct {
	Listen string `yaml:"listen"` // host:port on loopback; default 127.0.0.1:8181
	Issuer string `yaml:"issuer"` // "iss" of the tokens; https, or http on loopback; default http://LISTEN
}

// AuthzConfig is the call door.
type AuthzConfig struct {
	Listen string `yaml:"listen"` // unix:///PATH or host:port on loopback; default unix:///run/toolgrant/authz.sock
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
	Issuers []IssuerConfig `yaml:"issuers"` // at least one
}

// IssuerConfig is one issuer of identity tokens. An agent's id is ALIAS/SUB.
type IssuerConfig struct {
	Alias       string            `yaml:"alias"`        // lower-case letters, digits and "-"; required, unique
	Issuer      string            `yaml:"issuer"`       // "iss", compared exactly; required, unique
	JWKSFile    string            `yaml:"jwks_file"`    // its public keys; required
	Audience    string            `yaml:"audience"`     // the "aud" by which a token is meant for the broker; required
	GroupsClaim string            `yaml:"groups_claim"` // claim that lists the groups; default groups
	Groups      map[string]string `yaml:"groups"`       // its group -> policy group; the others become ALIAS/GROUP
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

// LimitsConfig bounds what can be asked for. Whole seconds.
type LimitsConfig struct {
	MaxTTL  time.Duration `yaml:"max_ttl"`  // of a grant; default 15m
	MaxTask time.Duration `yaml:"max_task"` // of a task; default 4h
}

// AuditConfig is the log of decisions.
type AuditConfig struct {
	File  string `yaml:"file"`  // default audit.jsonl
	Fsync string `yaml:"fsync"` // always, interval (default) or never
}

// EnvoyConfig is what `toolgrant envoy` prints for.
type EnvoyConfig struct {
	Listen string `yaml:"listen"` // host:port; default 127.0.0.1:10000; port 0: Envoy chooses
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
	def(&c.Broker.Issuer, "http://"+c.Broker.Listen)
	def(&c.Authz.Listen, "unix:///run/toolgrant/authz.sock")
	def(&c.Catalogue, "tools.yaml")
	def(&c.Policies, "policies")
	for i := range c.Identity.Issuers {
		def(&c.Identity.Issuers[i].GroupsClaim, "groups")
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
	def(&c.Audit.File, "audit.jsonl")
	def(&c.Audit.Fsync, "interval")
	def(&c.Envoy.Listen, "127.0.0.1:10000")
}

func (c *Config) resolve(dir string) {
	paths := []*string{&c.Catalogue, &c.Policies, &c.Keys.Dir, &c.Audit.File}
	for i := range c.Identity.Issuers {
		paths = append(paths, &c.Identity.Issuers[i].JWKSFile)
	}
	for _, p := range paths {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// check holds the values to what the program can do, and finds all faults, not
// the first alone.
func (c *Config) check(f *yamlFile) error {
	var faults []error
	fail := func(path, format string, args ...any) { faults = append(faults, f.errorf(path, format, args...)) }
	addressAt := func(path, listen string, lowest uint64) {
		if err := checkAddress(listen, lowest); err != nil {
			fail(path, "%q %v", listen, err)
		}
	}

	if addressAt("broker.listen", c.Broker.Listen, 1); !loopbackAddress(c.Broker.Listen) {
		fail("broker.listen", "%q is not on loopback, and TLS is not there yet: tokens would travel in the clear; write 127.0.0.1:8181, and put a proxy that ends TLS in front of it", c.Broker.Listen)
	}
	if err := checkIssuer(c.Broker.Issuer); err != nil {
		fail("broker.issuer", "%q %v", c.Broker.Issuer, err)
	}
	switch network, address := c.Authz.Address(); {
	case network == "unix":
		// 108 bytes of sun_path, with a final zero: unix(7).
		if !filepath.IsAbs(address) || strings.HasSuffix(address, "/") || len(address) > 107 {
			fail("authz.listen", "%q is not the absolute path of a socket of at most 107 bytes; write unix:///run/toolgrant/authz.sock", c.Authz.Listen)
		}
	case strings.HasPrefix(c.Authz.Listen, "unix:"):
		fail("authz.listen", "%q: write unix:// and an absolute path, three slashes in all: unix:///run/toolgrant/authz.sock", c.Authz.Listen)
	default:
		if addressAt("authz.listen", address, 1); !loopbackAddress(address) {
			fail("authz.listen", "%q is not on loopback, and mTLS is not there yet: anyone who reaches it could ask in Envoy's place; write unix:///run/toolgrant/authz.sock, or 127.0.0.1 and a port", c.Authz.Listen)
		}
	}
	addressAt("envoy.listen", c.Envoy.Listen, 0)
	if c.Authz.Listen == c.Broker.Listen {
		fail("authz.listen", "%q is the broker's; give each its own", c.Authz.Listen)
	}
	if c.Envoy.Listen == c.Broker.Listen || c.Envoy.Listen == c.Authz.Listen {
		fail("envoy.listen", "%q is the broker's or the authz server's; give each its own", c.Envoy.Listen)
	}

	c.checkIssuers(fail)
	oneOf := func(path, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		fail(path, "%q is not known; write %s", value, strings.Join(allowed, " or "))
	}
	oneOf("keys.alg", c.Keys.Alg, "EdDSA", "ES256")
	oneOf("audit.fsync", c.Audit.Fsync, "always", "interval", "never")
	if !tokenHeader.MatchString(c.Token.Header) || reservedHeader.MatchString(c.Token.Header) {
		fail("token.header", "%q cannot carry a token; write authorization, or a name of your own in lower case such as x-tool-token", c.Token.Header)
	}
	if c.Limits.MaxTTL > c.Limits.MaxTask {
		fail("limits.max_ttl", "%s is longer than limits.max_task (%s), and no grant outlives its task; make it at most that", c.Limits.MaxTTL, c.Limits.MaxTask)
	}
	return errors.Join(faults...)
}

var (
	issuerAlias = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	tokenHeader = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	// Headers that HTTP, Envoy or we ourselves give a meaning.
	reservedHeader = regexp.MustCompile(`^(host|cookie|connection|te|trailer|upgrade|transfer-encoding|content-.*|proxy-.*|x-grant-.*|x-envoy-.*|x-forwarded-.*|x-request-id)$`)
)

func (c *Config) checkIssuers(fail func(path, format string, args ...any)) {
	if len(c.Identity.Issuers) == 0 {
		fail("identity.issuers", "at least one is required, or nobody could ask for anything; write\n%s", leastConfig)
	}
	aliases, urls := map[string]bool{}, map[string]bool{}
	for i, is := range c.Identity.Issuers {
		at := fmt.Sprintf("identity.issuers[%d].", i)
		required := func(key, value, example string) {
			if value == "" {
				fail(at+key, "is required; write, for example, %s: %s", key, example)
			}
		}
		required("alias", is.Alias, "corp")
		required("issuer", is.Issuer, `"https://idp.example"`)
		required("jwks_file", is.JWKSFile, "jwks.json")
		required("audience", is.Audience, "toolgrant")
		if is.Alias != "" && !issuerAlias.MatchString(is.Alias) {
			fail(at+"alias", "%q: write at most 31 lower-case letters, digits and -, such as corp", is.Alias)
		}
		// Two issuers under one alias could name each other's agents.
		if aliases[is.Alias] && is.Alias != "" {
			fail(at+"alias", "%q is there twice; agents are ALIAS/SUB, so each issuer needs its own", is.Alias)
		}
		if urls[is.Issuer] && is.Issuer != "" {
			fail(at+"issuer", "%q is there twice; one entry per issuer", is.Issuer)
		}
		if strings.ContainsAny(is.Issuer, " \t") {
			fail(at+"issuer", "%q has a blank in it; write it exactly as in the token's \"iss\"", is.Issuer)
		}
		aliases[is.Alias], urls[is.Issuer] = true, true
	}
}

// checkAddress takes host:port. The broker's and authz's ports are named
// elsewhere, so they cannot be 0, which is another one at each start; Envoy
// tells its own.
func checkAddress(s string, lowest uint64) error {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" || perr != nil || n < lowest {
		return errors.New("is not host:port; write, for example, 127.0.0.1:8181")
	}
	return nil
}

func loopbackAddress(s string) bool {
	host, _, err := net.SplitHostPort(s)
	return err != nil || isLoopback(host) // what is no address at all is told once
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkIssuer: RFC 8414, Section 2, and https but on loopback.
func checkIssuer(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return errors.New("is not an issuer's URL (no user, query or fragment); write, for example, https://broker.example")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("must be https (http is for loopback only); write, for example, https://broker.example")
}
