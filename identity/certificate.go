package identity

import (
	"regexp"

	"github.com/toolgrant/toolgrant/grants"
)

// certificateName is a URI (RFC 3986, Section 3: a scheme first) or a DNS name.
// A subject's distinguished name, to which Envoy falls back for a certificate
// without SANs, is neither, since its first "=" stands before any ":"; what
// stands in it is the subscriber's to say in many a CA.
var certificateName = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:.+|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$`)

// Certificate is the agent that a client certificate names, which Envoy has
// verified: name is the source.principal of its CheckRequest, the first URI SAN
// or else the first DNS SAN, compared byte by byte wherever it is compared. An
// agent that is known by its certificate has no groups. Not ok: certificates
// name nobody (Config.Certificates), or this is not such a name.
func (v *Verifier) Certificate(name string) (agent grants.Principal, ok bool) {
	if v.certificates == "" || !validSubject(name) || !certificateName.MatchString(name) {
		return grants.Principal{}, false
	}
	return grants.Principal{Issuer: v.certificates, Subject: name}, true
}
