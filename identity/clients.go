package identity

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// The values of Client.Auth, which are those of token_endpoint_auth_method
// (RFC 7591, Section 2; OpenID Connect Core 1.0, Section 9).
const (
	PrivateKeyJWT = "private_key_jwt"
	NoAuth        = "none"
)

// AssertionType is the one client_assertion_type (RFC 7523, Section 2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const (
	maxClients   = 1000
	maxAssertion = 8 << 10         // bytes
	maxLife      = 5 * time.Minute // of an assertion: how far ahead exp may lie, beside Skew
)

// Why a client is not authenticated: a closed set, whose texts are for the
// client. All but ErrNoClient and ErrBusy are OAuth's invalid_client.
var (
	ErrNoClient      = errors.New("no client is named: send client_assertion, or client_id")
	ErrUnknownClient = errors.New("client_id: no such client is registered here")
	ErrMethod        = errors.New("the one client authentication is private_key_jwt: send client_id, client_assertion and client_assertion_type once each, and neither client_secret nor an Authorization header")
	ErrAssertionType = errors.New("client_assertion and client_assertion_type go together, and the type is " + AssertionType)
	ErrNoAssertion   = errors.New("this client authenticates by private_key_jwt: send its client_assertion")
	ErrAssertion     = errors.New("client_assertion is not accepted: it is a compact JWT, signed by a registered key that its kid names, whose iss and sub are the client_id, whose aud is this server's issuer alone, with a jti and an exp at most 5 minutes ahead")
	ErrAssertionPast = errors.New("client_assertion is past its exp: make a new one for each request")
	ErrReplay        = errors.New("client_assertion was used before: make a new one, with a new jti, for each request")
	ErrBusy          = errors.New("too many assertions of this client are not yet past their exp: wait, or give them a nearer exp")
)

// Client is one OAuth client. Client ids are no secret (RFC 6749, Section 2.2).
type Client struct {
	ID       string // client_id, printable, at most 256 bytes; unique
	JWKSFile string // path of its public keys (token.ParseJWKS), which its owner alone may write; "" for NoAuth
	Auth     string // PrivateKeyJWT or NoAuth; "": PrivateKeyJWT
}

// Clients are the OAuth clients that may authenticate at the token endpoint.
// They are safe for concurrent use.
type Clients struct {
	byID map[string]*client // client_id -> client
}

type client struct {
	id   string
	keys *token.KeySet // nil for NoAuth
	used replays
}

// NewClients reads the clients' keys. Its error names the client and the file.
func NewClients(list []Client) (*Clients, error) {
	if len(list) > maxClients {
		return nil, fmt.Errorf("clients: over %d", maxClients)
	}
	c := &Clients{byID: make(map[string]*client, len(list))}
	for i, one := range list {
		if !token.ValidText(one.ID, maxSubject) {
			return nil, fmt.Errorf("client %d: id: absent, over %d bytes or not printable", i, maxSubject)
		}
		if c.byID[one.ID] != nil {
			return nil, fmt.Errorf("client %q: another client has this id", one.ID)
		}
		keys, err := one.keys()
		if err != nil {
			return nil, fmt.Errorf("client %q: %w", one.ID, err)
		}
		c.byID[one.ID] = &client{id: one.ID, keys: keys}
	}
	return c, nil
}

func (c Client) keys() (*token.KeySet, error) {
	switch {
	case c.Auth != "" && c.Auth != PrivateKeyJWT && c.Auth != NoAuth:
		return nil, fmt.Errorf("auth %q: write %s or %s", c.Auth, PrivateKeyJWT, NoAuth)
	case c.Auth == NoAuth && c.JWKSFile != "":
		return nil, fmt.Errorf("auth %s and a JWKS file: nothing would look at its keys", NoAuth)
	case c.Auth == NoAuth:
		return nil, nil
	case c.JWKSFile == "":
		return nil, fmt.Errorf("auth %s needs a JWKS file", PrivateKeyJWT)
	}
	data, err := readFile(c.JWKSFile, maxJWKS)
	if err != nil {
		return nil, fmt.Errorf("JWKS file: %w", err)
	}
	keys, err := token.ParseJWKS(data)
	if err != nil {
		return nil, fmt.Errorf("JWKS file %s: %w", c.JWKSFile, err)
	}
	return keys, nil
}

// Must reports whether this is the id of a registered client that has to
// authenticate. A nil *Clients has none.
func (c *Clients) Must(id string) bool {
	return c != nil && c.byID[id] != nil && c.byID[id].keys != nil
}

// Authenticate says which client makes a request with this form and this
// Authorization header ("" for none). audiences are what an assertion may call
// this server: the issuer, and the token endpoint's URL for older clients (RFC
// 7523, Section 3).
//
// why is nil or one of the errors above, and nil alone comes with an id.
// ErrNoClient is a request that names no client in any way; whether such a one
// is served is for the caller. A client that names itself and does not
// authenticate as registered is refused, never taken for none.
//
// An assertion is good once, in this process: what it has seen is lost at a new
// start.
func (c *Clients) Authenticate(form url.Values, authorization string, audiences []string, now time.Time) (clientID string, why error) {
	for _, name := range []string{"client_id", "client_assertion", "client_assertion_type"} {
		if len(form[name]) > 1 {
			return "", ErrMethod
		}
	}
	if authorization != "" || form.Has("client_secret") {
		return "", ErrMethod
	}
	assertion := form.Has("client_assertion")
	switch {
	case assertion != form.Has("client_assertion_type"), assertion && form.Get("client_assertion_type") != AssertionType:
		return "", ErrAssertionType
	case assertion:
		return c.byAssertion(form, audiences, now)
	case !form.Has("client_id"):
		return "", ErrNoClient
	}
	known := c.byID[form.Get("client_id")]
	switch {
	case known == nil:
		return "", ErrUnknownClient
	case known.keys != nil:
		return "", ErrNoAssertion
	}
	return known.id, nil
}

// byAssertion is RFC 7523, Sections 2.2 and 3.
func (c *Clients) byAssertion(form url.Values, audiences []string, now time.Time) (string, error) {
	compact := form.Get("client_assertion")
	unverified, ok := token.UnverifiedIssuer(compact, maxAssertion)
	if !ok {
		return "", ErrAssertion
	}
	known := c.byID[unverified]
	if known == nil {
		return "", ErrUnknownClient
	}
	if named := form.Get("client_id"); form.Has("client_id") && named != known.id || known.keys == nil {
		return "", ErrAssertion // RFC 7521, Section 4.2: client_id must name the same
	}
	a, why := known.open(compact)
	if why != nil {
		return "", why
	}
	foreign := func(aud string) bool { return !slices.Contains(audiences, aud) }
	latest := now.Add(Skew)
	switch {
	// An aud beside ours is a server to which the same assertion goes, and
	// which could be first to present it here.
	case slices.ContainsFunc(a.audiences, foreign):
		return "", ErrAssertion
	case a.notBefore.After(latest), a.issuedAt.After(latest), a.expires.After(latest.Add(maxLife)):
		return "", ErrAssertion
	case !a.expires.After(now):
		return "", ErrAssertionPast
	}
	// Last of all, so that nobody else can use up a client's jti.
	if why := known.used.once(a.id, a.expires, now); why != nil {
		return "", why
	}
	return known.id, nil
}

// open verifies the signature and reads the claims of the client's assertion.
func (c *client) open(compact string) (claims, error) {
	payload, _, reason := c.keys.VerifyCompact(compact, maxAssertion, assertionType)
	if reason != grants.None {
		return claims{}, ErrAssertion
	}
	m, err := token.ParsePayload(payload)
	if err != nil {
		return claims{}, ErrAssertion
	}
	a, err := registered(m)
	if err != nil || a.issuer != c.id || a.subject != c.id || a.id == "" {
		return claims{}, ErrAssertion
	}
	return a, nil
}

// assertionType lets no JWT pass that the client's key signed for another
// purpose. "client-authentication+jwt" is what the revision of RFC 7523 asks
// for; most clients of today send "JWT" or nothing.
func assertionType(typ string) bool {
	switch strings.ToLower(typ) {
	case "", "jwt", "client-authentication+jwt":
		return true
	}
	return false
}
