// Package identity turns an identity token of a trusted issuer (an OIDC
// provider, a SPIFFE server that sets iss) into a principal.
//
// An agent's id is ALIAS/SUBJECT. The alias is the configuration's name for
// the issuer and has no slash, so no issuer can name an agent of another, and
// a group that is not mapped carries the alias for the same reason.
//
// Invariants:
//   - A token is verified by the keys of the one issuer that its iss names
//     exactly, and by no other.
//   - The keys come from a file that was read at start. Nothing in a token
//     makes this package open a file or a connection.
//   - What is verified says who, never what for: the door compares the
//     audience (Verified.For).
package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

const (
	// MaxBytes is the longest identity token that is read.
	MaxBytes = 16 << 10

	// Skew is how far ahead nbf and iat may lie; exp has none.
	Skew = 5 * time.Second

	maxJWKS = 256 << 10 // bytes
)

// Config is whom to trust.
type Config struct {
	Issuers []Issuer // none: every token is refused
}

// Issuer is one issuer of identity tokens.
type Issuer struct {
	Alias    string // its name in agent ids and groups: lower-case letters, digits and "-", at most 31; unique
	URL      string // its tokens' iss, compared byte by byte; unique
	JWKSFile string // path of its public keys (token.ParseJWKS); read by New
	Audience string // what its tokens for the broker name as aud

	// GroupsClaim is the top-level claim that holds the groups; "": "groups".
	GroupsClaim string

	// Groups maps a group as the issuer names it to a group of the policies.
	// One that is not mapped becomes ALIAS/GROUP.
	Groups map[string]string
}

// Verifier verifies identity tokens. It is immutable and safe for concurrent
// use.
type Verifier struct {
	byURL map[string]*issuer // iss -> issuer
}

type issuer struct {
	Issuer
	keys *token.KeySet
}

// Verified is what a genuine token says about its bearer.
type Verified struct {
	Principal grants.Principal // groups as the policies name them, sorted
	Audiences []string         // 1 to 16
	Issuer    string           // alias
	Expires   time.Time        // the first instant at which it no longer holds
	JTI       string           // "" for none
	Party     string           // azp, or else client_id: the OAuth client that it was issued to; "" for none
	Digest    grants.Digest    // SHA-256 of the token's compact text
}

// For reports whether the token is meant for aud, compared byte by byte. That
// it is also meant for others is for the door to judge, by Audiences.
func (v Verified) For(aud string) bool { return aud != "" && slices.Contains(v.Audiences, aud) }

var aliasPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// New reads every issuer's keys. Its error names the issuer and the file.
func New(c Config) (*Verifier, error) {
	v := &Verifier{byURL: make(map[string]*issuer, len(c.Issuers))}
	aliases := make(map[string]bool, len(c.Issuers))
	for i, iss := range c.Issuers {
		if !aliasPattern.MatchString(iss.Alias) {
			return nil, fmt.Errorf("issuer %d: alias %q: write 1 to 31 lower-case letters, digits or \"-\", the first no \"-\"", i, iss.Alias)
		}
		if aliases[iss.Alias] {
			return nil, fmt.Errorf("issuer %q: another issuer has this alias", iss.Alias)
		}
		aliases[iss.Alias] = true
		if _, twice := v.byURL[iss.URL]; twice {
			return nil, fmt.Errorf("issuer %q: another issuer has the URL %q", iss.Alias, iss.URL)
		}
		known, err := load(iss)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", iss.Alias, err)
		}
		v.byURL[iss.URL] = known
	}
	return v, nil
}

func load(iss Issuer) (*issuer, error) {
	if u, err := url.Parse(iss.URL); err != nil || !u.IsAbs() || !token.ValidText(iss.URL, maxAudience) {
		return nil, fmt.Errorf("URL %q: not an absolute URL", iss.URL)
	}
	if !token.ValidText(iss.Audience, maxAudience) {
		return nil, fmt.Errorf("audience: absent, over %d bytes or not printable", maxAudience)
	}
	if iss.GroupsClaim == "" {
		iss.GroupsClaim = "groups"
	}
	for from, to := range iss.Groups {
		if !token.ValidText(from, maxGroup) || !token.ValidText(to, maxGroup) {
			return nil, fmt.Errorf("groups: %q: %q: empty, over %d bytes or not printable", from, to, maxGroup)
		}
	}
	data, err := readFile(iss.JWKSFile, maxJWKS)
	if err != nil {
		return nil, fmt.Errorf("JWKS file: %w", err)
	}
	keys, err := token.ParseJWKS(data)
	if err != nil {
		return nil, fmt.Errorf("JWKS file %s: %w", iss.JWKSFile, err)
	}
	return &issuer{Issuer: iss, keys: keys}, nil
}

// readFile reads at most one byte more than limit, which the parser refuses. Who
// can write the file can be anybody, so that only its owner may.
func readFile(path string, limit int64) ([]byte, error) {
	if path == "" {
		return nil, errors.New("no path")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		return nil, fmt.Errorf("%s: group or others can write it (%#o), and could be anybody by that; if nobody has, run: chmod go-w %s", path, mode, quoted)
	}
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Verify checks an identity token at the time now. The reason is None,
// BadCredential, or ExpiredToken for a token that is genuine in all else; only
// None comes with a principal.
func (v *Verifier) Verify(compact string, now time.Time) (Verified, grants.Reason) {
	iss := v.unverifiedIssuer(compact)
	if iss == nil {
		return Verified{}, grants.BadCredential
	}
	payload, _, reason := iss.keys.VerifyCompact(compact, MaxBytes, allowedType)
	if reason != grants.None {
		return Verified{}, reason
	}
	// The iss by which the keys were chosen is compared once more now that it
	// is verified, whatever reads it first.
	c, err := iss.parse(payload)
	if err != nil || c.issuer != iss.URL {
		return Verified{}, grants.BadCredential
	}
	if latest := now.Add(Skew); c.notBefore.After(latest) || c.issuedAt.After(latest) {
		return Verified{}, grants.BadCredential
	}
	if !c.expires.After(now) {
		return Verified{}, grants.ExpiredToken
	}
	return Verified{
		Principal: grants.Principal{Issuer: iss.Alias, Subject: c.subject, Groups: c.groups},
		Audiences: c.audiences,
		Issuer:    iss.Alias,
		Expires:   c.expires,
		JTI:       c.id,
		Digest:    sha256.Sum256([]byte(compact)),
	}, grants.None
}

// unverifiedIssuer finds the issuer whose keys have to verify the token; nil
// if there is none.
func (v *Verifier) unverifiedIssuer(compact string) *issuer {
	unverified, ok := token.UnverifiedIssuer(compact, MaxBytes)
	if !ok {
		return nil
	}
	return v.byURL[unverified]
}

// allowedType is an allow-list, so that no token made for another purpose (a
// grant token, a DPoP proof, a logout token) passes for an identity: RFC 8725,
// Section 3.11. "at+jwt" is RFC 9068, Section 2.1.
func allowedType(typ string) bool {
	switch strings.ToLower(typ) {
	case "", "jwt", "at+jwt", "application/at+jwt":
		return true
	}
	return false
}

// BrokerAudience is the audience that tokens of the issuer with this alias
// name when they are meant for the broker.
func (v *Verifier) BrokerAudience(alias string) (aud string, ok bool) {
	for _, iss := range v.byURL {
		if iss.Alias == alias {
			return iss.Audience, true
		}
	}
	return "", false
}

// KnownGroups is every group of the policies that an issuer's groups are
// mapped to, sorted.
func (v *Verifier) KnownGroups() []string {
	var known []string
	for _, iss := range v.byURL {
		for _, to := range iss.Groups {
			known = append(known, to)
		}
	}
	slices.Sort(known)
	return slices.Compact(known)
}
