package token

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// Verifier verifies grant tokens of one broker. It holds public keys only and
// is safe for concurrent use.
type Verifier struct {
	issuer string
	keys   func() *KeySet
	keep   time.Duration // how long a key verifies after its successor's begin; 0: as long as it is in keys
	known  Cache[*genuine]
}

// genuine is what a text says whose signature was verified; it never changes.
type genuine struct {
	claims    Claims
	keys      *KeySet   // the set that verified it
	succeeded time.Time // record.succeeded of its key
}

// NewVerifier returns a verifier of the tokens whose iss is issuer and whose
// key is in keys, as ParseJWKS reads them from what the broker publishes. Keys
// that no broker signs with (RS256) are an error. The broker itself verifies by
// Keys.Verifier, which follows its keys.
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
	return &Verifier{issuer: issuer, keys: func() *KeySet { return keys }}, nil
}

// Verify checks a grant token that was presented at the server whose resource
// URI is audience. The reason is None, BadCredential, or ExpiredToken for a
// token that is genuine in all else; only None comes with claims. It knows
// neither the table nor the sender: a verified token is not yet a live grant,
// and Claims.CNF is for the door to compare.
func (v *Verifier) Verify(compact, audience string, now time.Time) (Claims, grants.Reason) {
	g, ok := v.genuine(compact)
	if !ok {
		return Claims{}, grants.BadCredential
	}
	// What follows depends on where and when, and is judged at every use.
	c := &g.claims
	if v.keep > 0 && !g.succeeded.IsZero() && !now.Before(g.succeeded.Add(v.keep)) {
		return Claims{}, grants.BadCredential
	}
	if latest := now.Add(Skew); c.Audience != audience || c.NotBefore.After(latest) || c.IssuedAt.After(latest) {
		return Claims{}, grants.BadCredential
	}
	if !c.Expires.After(now) {
		return Claims{}, grants.ExpiredToken
	}
	return c.clone(), grants.None
}

// Names gives the task and the grants that a genuine token names, whatever its
// time and audience, so that a refusal (ExpiredToken) can say in its record which
// they were. It permits nothing, and gives no claims to judge by. Of what is not
// genuine: nothing.
func (v *Verifier) Names(compact string) (task grants.ID, details []Detail) {
	g, ok := v.genuine(compact)
	if !ok {
		return "", nil
	}
	return g.claims.Task.ID, slices.Clone(g.claims.Details)
}

// genuine verifies the signature and reads the claims, or remembers having done
// so with the key set of now.
func (v *Verifier) genuine(compact string) (*genuine, bool) {
	if !isCompact(compact, MaxBytes) {
		return nil, false
	}
	keys, text := v.keys(), TextDigest(compact)
	if g, ok := v.known.Get(text); ok && g.keys == keys {
		return g, true
	}
	p, key, ok := keys.verify(compact, MaxBytes, func(h Header) bool {
		return h.Typ == Typ && h.X5T == nil
	})
	if !ok {
		return nil, false
	}
	c, err := parseClaims(p.unverifiedPayload)
	if err != nil || c.Issuer != v.issuer {
		return nil, false
	}
	g := &genuine{claims: c, keys: keys, succeeded: key.succeeded}
	v.known.Put(text, len(compact), g)
	return g, true
}

// clone shares nothing that a caller could change.
func (c *Claims) clone() Claims {
	out := *c
	out.Details = slices.Clone(c.Details)
	out.Act = c.Act.clone()
	return out
}

func (a *Actor) clone() *Actor {
	if a == nil {
		return nil
	}
	return &Actor{Issuer: a.Issuer, Subject: a.Subject, Act: a.Act.clone()}
}
