package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// Verifier verifies grant tokens of one broker. It holds public keys only and
// is safe for concurrent use.
type Verifier struct {
	issuer string
	keys   *KeySet
}

// NewVerifier returns a verifier of the tokens whose iss is issuer and whose
// key is in keys: Keys.Public, or ParseJWKS of what the broker publishes.
// Keys that no broker signs with (RS256) are an error.
func NewVerifier(issuer string, keys *KeySet) (*Verifier, error) {
	if issuer == "" {
		return nil, errors.New("token verifier: no issuer")
	}
	if keys.Len() == 0 {
		return nil, errors.New("token verifier: no keys")
	}
	for kid, key := range keys.keys {
		if key.alg != EdDSA && key.alg != ES256 {
			return nil, fmt.Errorf("token verifier: key %q has alg %s; grant tokens are signed with %s or %s", kid, key.alg, EdDSA, ES256)
		}
	}
	return &Verifier{issuer: issuer, keys: keys}, nil
}

// Verify checks a grant token that was presented at the server whose resource
// URI is audience. The reason is None, BadCredential, or ExpiredToken for a
// token that is genuine in all else; only None comes with claims. It knows
// neither the table nor the sender: a verified token is not yet a live grant,
// and Claims.CNF is for the door to compare.
func (v *Verifier) Verify(compact, audience string, now time.Time) (Claims, grants.Reason) {
	payload, _, reason := v.keys.verify(compact, MaxBytes, func(h Header) bool {
		return h.Typ == Typ && h.X5T == nil
	})
	if reason != grants.None {
		return Claims{}, reason
	}
	c, err := parseClaims(payload)
	if err != nil || c.Issuer != v.issuer || c.Audience != audience {
		return Claims{}, grants.BadCredential
	}
	if latest := now.Add(Skew); c.NotBefore.After(latest) || c.IssuedAt.After(latest) {
		return Claims{}, grants.BadCredential
	}
	if !c.Expires.After(now) {
		return Claims{}, grants.ExpiredToken
	}
	return c, grants.None
}
