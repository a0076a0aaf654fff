package identity

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/toolgrant/toolgrant/token"
)

// DevIssuer is an issuer of identity tokens for development: it asks nobody
// who they are. Whoever reads its directory can be any agent in any group, so
// no production configuration may name its keys.
type DevIssuer struct {
	url  string
	keys *token.Keys
	file string
}

// NewDevIssuer opens the development issuer whose key is in dir, and makes
// both at the first time: an Ed25519 key, private as in token.OpenKeys, and
// jwks.json (0644). issuerURL is the iss of its tokens.
func NewDevIssuer(dir, issuerURL string) (*DevIssuer, error) {
	keys, err := token.OpenKeys(dir, token.EdDSA)
	if err != nil {
		return nil, fmt.Errorf("development issuer: %w", err)
	}
	d := &DevIssuer{url: issuerURL, keys: keys, file: filepath.Join(dir, "jwks.json")}
	if err := keys.WriteJWKS(d.file); err != nil {
		return nil, fmt.Errorf("development issuer: %w", err)
	}
	return d, nil
}

// JWKSFile is the path of the public keys, for Issuer.JWKSFile.
func (d *DevIssuer) JWKSFile() string { return d.file }

// Mint makes an identity token of sub for audience, which holds from now for
// ttl, cut to whole seconds, at least one.
func (d *DevIssuer) Mint(sub string, groups []string, audience string, ttl time.Duration) (string, error) {
	if !validSubject(sub) || !token.ValidText(audience, maxAudience) {
		return "", errors.New("development issuer: sub and audience: absent, too long, not printable, or sub with a blank at its begin or end")
	}
	if ttl < time.Second {
		return "", fmt.Errorf("development issuer: ttl %v: under a second", ttl)
	}
	now := time.Now()
	payload, err := json.Marshal(map[string]any{
		"iss": d.url, "sub": sub, "aud": audience, "groups": append([]string{}, groups...), "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(ttl).Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("development issuer: %w", err)
	}
	compact, err := d.keys.Sign("JWT", payload)
	if err != nil {
		return "", fmt.Errorf("development issuer: %w", err)
	}
	return compact, nil
}
