package authz

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// peer is the other end of the connection to Envoy, by the client certificate
// that Envoy verified; the zero value without one.
type peer struct {
	name        string // first URI SAN, or else DNS SAN, or else the subject
	certificate string // PEM of the leaf, URL-encoded
}

// sentBy reports whether the client certificate, if there was one, is the
// agent's: its name is the subject, as in a SPIFFE JWT-SVID and X.509-SVID of
// one workload.
func (p peer) sentBy(agent grants.Principal) bool {
	return p.name == "" || p.name == agent.Subject
}

// end is when the certificate ends. Envoy looked at that when the connection
// began, which may be long ago. The name must be one of a workload: of a
// certificate that has none Envoy takes the subject, which many can share.
func (p peer) end() (time.Time, error) {
	text, err := url.PathUnescape(p.certificate)
	if err != nil {
		return time.Time{}, err
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return time.Time{}, errors.New("not one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, err
	}
	named := slices.Contains(cert.DNSNames, p.name) ||
		slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == p.name })
	if !named {
		return time.Time{}, errors.New("the name is neither a URI nor a DNS name of the certificate")
	}
	return cert.NotAfter, nil
}

// identifyByCertificate names the agent of a call without a credential, for the
// baseline alone: grants are never looked up by agent.
func (d *Door) identifyByCertificate(c *check) (grants.Reason, string) {
	agent, ok := d.cfg.Identity.Certificate(c.call.peer.name)
	if !ok {
		return grants.NoCredential, ""
	}
	ends, err := c.call.peer.end()
	if err != nil {
		return grants.UnboundToken, "the client certificate cannot be read, or is not a workload's; Envoy must send it (include_peer_certificate: true)"
	}
	if !c.now.Before(ends) {
		return grants.ExpiredToken, "the client certificate's time is over"
	}
	c.caller = caller{agent: agent, ends: ends}
	return grants.None, ""
}
