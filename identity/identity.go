// Package identity says who asks: it turns an identity token of a trusted
// issuer (an OIDC provider, a SPIFFE server that sets iss, a Kubernetes cluster)
// or a client certificate into a principal, and authenticates OAuth clients.
//
// An agent's id is ALIAS/SUBJECT. The alias is the configuration's name for
// the issuer and has no slash, so no issuer can name an agent of another, and
// a group that is not mapped carries the alias for the same reason.
//
// Invariants:
//   - A token is verified by the keys of the one issuer that its iss names
//     exactly, and by no other.
//   - The keys come from the file or the URL that the configuration names.
//     Nothing in a token makes this package open a file or a connection; the
//     most it can do is to hasten, once a minute, what is fetched anyway.
//   - Verify does no I/O: keys are read by New and by Run.
//   - What is verified says who, never what for: the door compares the
//     audience (Verified.For).
package identity

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

const (
	// MaxBytes is the longest identity token that is read.
	MaxBytes = 16 << 10

	// Skew is how far ahead nbf and iat may lie; exp has none.
	Skew = 5 * time.Second
)

// Config is whom to trust.
type Config struct {
	Issuers []Issuer // none: every token is refused

	// Certificates is the alias of agents that a client certificate names
	// (Verifier.Certificate); "": none does. It may be an issuer's: a workload
	// with a JWT-SVID and an X.509-SVID is one agent then. That issuer's sub
	// and the certificates' names must be one name space, or a certificate
	// would speak for a namesake.
	Certificates string

	// OnRefresh is told of every look at an issuer's keys by Run, after it:
	// whether they are others than before, or why there is nothing to say. It
	// must be safe for concurrent use. nil: nobody is told.
	OnRefresh func(alias string, changed bool, err error)

	Logger *zap.Logger // nil: nothing is logged
}

// Issuer is one issuer of identity tokens. Exactly one of JWKSFile and JWKSURL
// says where its public keys (token.ParseJWKS) are.
type Issuer struct {
	Alias    string // its name in agent ids and groups: lower-case letters, digits and "-", at most 31; unique
	URL      string // its tokens' iss, compared byte by byte; unique
	Audience string // what its tokens for the broker name as aud

	JWKSFile string // path; its owner alone may write it

	JWKSURL    string // https, or http to a loopback address; redirects are not followed
	CAFile     string // PEM: who vouches for JWKSURL's certificate; "": the system's roots
	BearerFile string // a token to present to JWKSURL, read anew each time (a Kubernetes service account's); "": none

	// GroupsClaim is the top-level claim that holds the groups; "": "groups".
	GroupsClaim string

	// Groups maps a group as the issuer names it to a group of the policies.
	// One that is not mapped becomes ALIAS/GROUP.
	Groups map[string]string
}

// Verifier verifies identity tokens and maps certificates. It is safe for
// concurrent use.
type Verifier struct {
	byURL        map[string]*issuer // iss -> issuer
	certificates string             // Config.Certificates
	onRefresh    func(alias string, changed bool, err error)
	log          *zap.Logger
	known        token.Cache[*genuine]
}

type issuer struct {
	Issuer
	source source
	held   atomic.Pointer[held] // never nil once New returned
	missed chan struct{}        // a token named a key that is not held
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

const aliasRule = `write 1 to 31 lower-case letters, digits or "-", the first no "-"`

// New reads every issuer's keys, from where they are: a URL that does not
// answer within 10 s is an error, too. Its error names the issuer and the place.
// Run keeps the keys fresh.
func New(c Config) (*Verifier, error) {
	v := &Verifier{byURL: make(map[string]*issuer, len(c.Issuers)), certificates: c.Certificates, onRefresh: c.OnRefresh, log: c.Logger}
	if v.log == nil {
		v.log = zap.NewNop()
	}
	if v.onRefresh == nil {
		v.onRefresh = func(string, bool, error) {}
	}
	if c.Certificates != "" && !aliasPattern.MatchString(c.Certificates) {
		return nil, fmt.Errorf("certificates: alias %q: %s", c.Certificates, aliasRule)
	}
	aliases := make(map[string]bool, len(c.Issuers))
	for i, iss := range c.Issuers {
		if !aliasPattern.MatchString(iss.Alias) {
			return nil, fmt.Errorf("issuer %d: alias %q: %s", i, iss.Alias, aliasRule)
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
	src, err := iss.keySource()
	if err != nil {
		return nil, err
	}
	known := &issuer{Issuer: iss, source: src, missed: make(chan struct{}, 1)}
	if _, err := known.refresh(context.Background(), time.Now()); err != nil {
		return nil, err
	}
	return known, nil
}

// genuine is what a text says whose signature was verified; it never changes.
type genuine struct {
	iss    *issuer
	keys   *token.KeySet // the set that verified it
	claims claims
}

// Verify checks an identity token at the time now. The reason is None,
// BadCredential, or ExpiredToken for a token that is genuine in all else; only
// None comes with a principal.
func (v *Verifier) Verify(compact string, now time.Time) (Verified, grants.Reason) {
	if len(compact) > MaxBytes {
		return Verified{}, grants.BadCredential
	}
	text := token.TextDigest(compact)
	g, ok := v.known.Get(text)
	if !ok || g.keys != g.iss.held.Load().keys {
		if g, ok = v.open(compact); !ok {
			return Verified{}, grants.BadCredential
		}
		v.known.Put(text, len(compact), g)
	}
	// Times are judged at every use.
	c := &g.claims
	if latest := now.Add(Skew); c.notBefore.After(latest) || c.issuedAt.After(latest) {
		return Verified{}, grants.BadCredential
	}
	if !c.expires.After(now) {
		return Verified{}, grants.ExpiredToken
	}
	// The slices are the caller's own: what is known is used again.
	return Verified{
		Principal: grants.Principal{Issuer: g.iss.Alias, Subject: c.subject, Groups: slices.Clone(c.groups)},
		Audiences: slices.Clone(c.audiences),
		Issuer:    g.iss.Alias,
		Expires:   c.expires,
		JTI:       c.id,
		Party:     c.party,
		Digest:    text,
	}, grants.None
}

// open verifies the signature and reads the claims.
func (v *Verifier) open(compact string) (*genuine, bool) {
	iss := v.unverifiedIssuer(compact)
	if iss == nil {
		return nil, false
	}
	keys := iss.held.Load().keys
	payload, _, reason := keys.VerifyCompact(compact, MaxBytes, allowedType)
	if reason != grants.None {
		iss.hasten(keys, compact)
		return nil, false
	}
	// The iss by which the keys were chosen is compared once more now that it
	// is verified, whatever reads it first.
	c, err := iss.parse(payload)
	if err != nil || c.issuer != iss.URL {
		return nil, false
	}
	return &genuine{iss: iss, keys: keys, claims: c}, true
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

// Names reports whether a token names a key that a configured issuer has: no
// other costs Verify a signature. Nothing of the token is verified, and key ids
// are public, so this tells junk apart and proves nothing.
func (v *Verifier) Names(compact string) bool {
	unverified, ok := token.UnverifiedKID(compact, MaxBytes)
	if !ok {
		return false
	}
	for _, iss := range v.byURL {
		if iss.held.Load().keys.Has(unverified) {
			return true
		}
	}
	return false
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
