package broker

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"

	"github.com/toolgrant/toolgrant/token"
)

const metadataPath = "/.well-known/oauth-authorization-server"

// serverMetadata is RFC 8414, Section 2, as far as there is something to say.
// scopes_supported is left out: it would be the catalogue, and who may know that
// a tool exists is policy's.
type serverMetadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKS          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"` // required; none, since there is no authorization endpoint
	GrantTypes    []string `json:"grant_types_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	AuthAlgs      []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"`
	DetailTypes   []string `json:"authorization_details_types_supported"` // RFC 9396, Section 10
	Documentation string   `json:"service_documentation"`
}

// publicURL is where clients reach the broker, without a slash at its end.
func (b *Broker) publicURL() string {
	return strings.TrimSuffix(cmp.Or(b.cfg.PublicURL, b.cfg.Issuer), "/")
}

// metadata serves the authorization server's metadata. Where the issuer has a
// path, clients look for them behind it (RFC 8414, Section 3.1), and those that
// do not split the issuer look at the root.
func (b *Broker) metadata(w http.ResponseWriter, r *http.Request) {
	if behind := strings.TrimPrefix(r.URL.Path, metadataPath); behind != "" && behind != issuerPath(b.cfg.Issuer) {
		http.NotFound(w, r)
		return
	}
	m := serverMetadata{
		Issuer:        b.cfg.Issuer,
		TokenEndpoint: b.publicURL() + "/oauth2/token",
		JWKS:          b.publicURL() + "/.well-known/jwks.json",
		ResponseTypes: []string{},
		GrantTypes:    []string{grantTypeExchange},
		AuthMethods:   []string{"none"},
		DetailTypes:   []string{token.DetailType},
		Documentation: b.publicURL() + "/openapi.json",
	}
	if b.cfg.Clients != nil {
		m.AuthMethods = append(m.AuthMethods, "private_key_jwt")
		m.AuthAlgs = []string{token.EdDSA, token.ES256, "RS256"}
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	writeJSON(w, http.StatusOK, m)
}

// issuerPath is the issuer's path, "" for none: RFC 8414, Section 3.1 drops a
// slash at its end.
func issuerPath(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	write(w, status, body)
}
