package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

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

	addressAt("broker.listen", c.Broker.Listen, 1)
	c.Broker.TLS.check("broker.tls", fail)
	if !loopbackAddress(c.Broker.Listen) && !c.Broker.TLS.on() {
		fail("broker.listen", "%q is not on loopback: without broker.tls, tokens would travel in the clear; add tls: {cert: …, key: …}, or write 127.0.0.1:8181", c.Broker.Listen)
	}
	if err := checkIssuer(c.Broker.Issuer); err != nil {
		fail("broker.issuer", "%q %v", c.Broker.Issuer, err)
	}
	if err := checkIssuer(c.Broker.PublicURL); err != nil && c.Broker.PublicURL != c.Broker.Issuer {
		fail("broker.public_url", "%q %v", c.Broker.PublicURL, err)
	}
	c.checkAuthz(fail, addressAt)
	c.checkSurface(fail, addressAt)
	if addressAt("envoy.listen", c.Envoy.Listen, 0); c.Envoy.TLS != (EnvoyTLSConfig{}) && (c.Envoy.TLS.Cert == "" || c.Envoy.TLS.Key == "") {
		fail("envoy.tls", "needs both cert and key")
	}
	if c.Envoy.TLS.Require && c.Envoy.TLS.ClientCA == "" {
		fail("envoy.tls.require_client_certificate", "needs client_ca: whose certificates")
	}
	listens := map[string]string{c.Broker.Listen: "the broker's"}
	for _, l := range []struct{ path, listen, whose string }{
		{"authz.listen", c.Authz.Listen, "the authz server's"},
		{"surface.listen", c.Surface.Listen, "the surface's"},
		{"envoy.listen", c.Envoy.Listen, "Envoy's"},
		{"admin.listen", c.Admin.Listen, "the admin server's"},
	} {
		if taken := listens[l.listen]; taken != "" && l.listen != "" {
			fail(l.path, "%q is %s; give each its own", l.listen, taken)
		}
		listens[l.listen] = l.whose
	}
	c.checkAdmin(fail, addressAt)

	c.checkIssuers(fail)
	oneOf := func(path, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		fail(path, "%q is not known; write %s", value, strings.Join(allowed, " or "))
	}
	c.checkClients(fail)
	oneOf("keys.alg", c.Keys.Alg, "EdDSA", "ES256")
	c.checkDeciders(fail, oneOf)
	oneOf("audit.fsync", c.Audit.Fsync, "always", "interval", "never")
	if !tokenHeader.MatchString(c.Token.Header) || reservedHeader.MatchString(c.Token.Header) {
		fail("token.header", "%q cannot carry a token; write authorization, or a name of your own in lower case such as x-tool-token", c.Token.Header)
	}
	if c.Limits.MaxTTL > c.Limits.MaxTask {
		fail("limits.max_ttl", "%s is longer than limits.max_task (%s), and no grant outlives its task; make it at most that", c.Limits.MaxTTL, c.Limits.MaxTask)
	}
	return errors.Join(faults...)
}

func (c *Config) checkAuthz(fail func(path, format string, args ...any), addressAt func(path, listen string, lowest uint64)) {
	c.Authz.TLS.check("authz.tls", fail)
	switch network, address := c.Authz.Address(); {
	case network == "unix":
		if !socketPath(address) {
			fail("authz.listen", "%q is not the absolute path of a socket of at most 107 bytes; write unix:///run/toolgrant/authz.sock", c.Authz.Listen)
		}
		if c.Authz.TLS.on() {
			fail("authz.tls", "is for host:port; a socket's file mode says who may open it")
		}
	case strings.HasPrefix(c.Authz.Listen, "unix:"):
		fail("authz.listen", "%q: write unix:// and an absolute path, three slashes in all: unix:///run/toolgrant/authz.sock", c.Authz.Listen)
	default:
		addressAt("authz.listen", address, 1)
		if c.Authz.TLS.on() && c.Authz.TLS.ClientCA == "" {
			fail("authz.tls", "needs client_ca: anyone could ask in Envoy's place")
		}
		if !loopbackAddress(address) && !c.Authz.TLS.on() {
			fail("authz.listen", "%q is not on loopback: without authz.tls, anyone who reaches it could ask in Envoy's place; write unix:///run/toolgrant/authz.sock, or add tls: {cert: …, key: …, client_ca: …}", c.Authz.Listen)
		}
	}
	t := c.Envoy.AuthzTLS
	switch whole := t.Cert != "" && t.Key != "" && t.CA != "" && t.ServerName != ""; {
	case c.Authz.TLS.on() && !whole:
		fail("envoy.authz_tls", "needs cert, key, ca and server_name, because authz.tls is there: Envoy has to show a certificate, and to check one")
	case !c.Authz.TLS.on() && t != (AuthzTLSConfig{}):
		fail("envoy.authz_tls", "is there without authz.tls")
	}
}

// socketPath reports whether a socket can have the path: 108 bytes of sun_path,
// with a final zero (unix(7)).
func socketPath(path string) bool {
	return filepath.IsAbs(path) && !strings.HasSuffix(path, "/") && len(path) <= 107
}

// checkSurface: it gives nothing to who has no sealed pass, and is no door of its
// own, so it stays on the machine.
func (c *Config) checkSurface(fail func(path, format string, args ...any), addressAt func(path, listen string, lowest uint64)) {
	listen := c.Surface.Listen
	path, unix := strings.CutPrefix(listen, "unix://")
	switch {
	case listen == "":
	case unix && !socketPath(path):
		fail("surface.listen", "%q is not the absolute path of a socket of at most 107 bytes; write unix:///run/toolgrant/surface.sock", listen)
	case unix:
	case strings.HasPrefix(listen, "unix:"):
		fail("surface.listen", "%q: write unix:// and an absolute path, three slashes in all: unix:///run/toolgrant/surface.sock", listen)
	default:
		addressAt("surface.listen", listen, 1)
		if !loopbackAddress(listen) {
			fail("surface.listen", "%q is not on loopback, where Envoy has to be, too; write unix:///run/toolgrant/surface.sock", listen)
		}
	}
}

// checkAdmin: it shows which tools are called and refused.
func (c *Config) checkAdmin(fail func(path, format string, args ...any), addressAt func(path, listen string, lowest uint64)) {
	c.Admin.TLS.check("admin.tls", fail)
	switch {
	case c.Admin.Listen == "" && c.Admin.TLS.on():
		fail("admin.tls", "is there without admin.listen")
	case c.Admin.Listen == "":
		return
	case c.Admin.TLS.on() && c.Admin.TLS.ClientCA == "":
		fail("admin.tls", "needs client_ca: nobody is asked who they are there but by their certificate")
	case !c.Admin.TLS.on() && !loopbackAddress(c.Admin.Listen):
		fail("admin.listen", "%q is not on loopback, and nobody is asked who they are there; add tls: {cert: …, key: …, client_ca: …}, or write 127.0.0.1:9190 (a probe in the container runs `toolgrant ready`)", c.Admin.Listen)
	}
	addressAt("admin.listen", c.Admin.Listen, 1)
}

func (t TLSConfig) check(path string, fail func(path, format string, args ...any)) {
	if t.on() && (t.Cert == "" || t.Key == "") {
		fail(path, "needs both cert and key")
	}
}

func (c *Config) checkClients(fail func(path, format string, args ...any)) {
	ids := map[string]bool{}
	for i, cl := range c.Clients {
		at := fmt.Sprintf("clients[%d]", i)
		switch {
		case cl.ID == "":
			fail(at+".id", "is required: the client_id")
		case ids[cl.ID]:
			fail(at+".id", "%q is there twice", cl.ID)
		}
		ids[cl.ID] = true
		switch {
		case cl.Auth == "private_key_jwt" && cl.JWKSFile == "":
			fail(at+".jwks_file", "is required: the client's public keys")
		case cl.Auth == "none" && cl.JWKSFile != "":
			fail(at+".jwks_file", "is there, but auth is none: its keys would not be looked at")
		case cl.Auth != "private_key_jwt" && cl.Auth != "none":
			fail(at+".auth", "%q is not known; write private_key_jwt or none", cl.Auth)
		}
	}
}

var (
	issuerAlias = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	tokenHeader = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	// Headers that HTTP, Envoy or we ourselves give a meaning.
	reservedHeader = regexp.MustCompile(`^(host|cookie|connection|te|trailer|upgrade|transfer-encoding|content-.*|proxy-.*|x-grant-.*|x-envoy-.*|x-forwarded-.*|x-request-id)$`)
)

func (c *Config) checkIssuers(fail func(path, format string, args ...any)) {
	if a := c.Identity.Certificates.Alias; a != "" && !issuerAlias.MatchString(a) {
		fail("identity.certificates.alias", "%q: write at most 31 lower-case letters, digits and -, such as mesh", a)
	}
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
		if (is.JWKSFile == "") == (is.JWKSURL == "") {
			fail(at+"jwks_file", "one of jwks_file and jwks_url is required, and not both; write, for example, jwks_file: jwks.json")
		}
		if is.JWKSURL == "" && (is.CA != "" || is.BearerFile != "") {
			fail(at+"jwks_url", "is missing: ca and bearer_file are for it")
		}
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
