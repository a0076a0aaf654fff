// Package token is the one place for JOSE: it keeps the signing keys, mints
// and verifies grant tokens, and verifies what other issuers signed. No type
// of a JOSE library leaves it.
//
// A grant token is a compact JWS (RFC 7515, Section 7.1) that names one
// agent's grants for one task at one server. It carries no power of its own:
// a grant that is not in the table is refused whatever was signed.
//
// Invariants:
//   - Nothing is read from a token twice by two parsers: header and claims go
//     through strictjson, and base64url is canonical, so one token has one
//     text and one reading.
//   - The key is chosen by kid alone and the algorithm by the key, never by
//     the header, which only has to agree.
//   - Nothing in a token makes this package open a file or a connection.
//   - A token says until when, in whole seconds, and never later than its
//     grants' end.
//   - A refusal says BadCredential or, of a token that is genuine in all else,
//     ExpiredToken. It never says which check failed.
package token

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const (
	// Typ is the header's typ of a grant token (RFC 8725, Section 3.11).
	Typ = "toolgrant+jwt"

	// DetailType is the type of an authorization_details object (RFC 9396,
	// Section 2) that stands for one grant.
	DetailType = "urn:toolgrant:grant:1"

	// IDPrefix begins the jti of a grant token: grants.NewID(token.IDPrefix).
	IDPrefix = "j_"

	// MaxBytes is the longest grant token that is read; Mint stays below it.
	MaxBytes = 8000

	// MaxDetails is how many grants one token may name.
	MaxDetails = 16

	// MaxActors bounds depth and the actor chain.
	MaxActors = 16

	// Skew is how far ahead nbf and iat may lie. exp has none: one issuer, one
	// clock, and time only shortens.
	Skew = 5 * time.Second

	maxText = 1024 // bytes of one string claim
)

// Claims is what a grant token says, except for its signature. Times have
// whole seconds once minted.
type Claims struct {
	Issuer   string // the broker
	Subject  string // the agent id on whose behalf it is, ALIAS/SUB
	Audience string // resource URI of the one server (RFC 8707)
	ID       string // jti: IDPrefix and 26 base32

	IssuedAt  time.Time
	NotBefore time.Time
	Expires   time.Time // the first instant at which it no longer holds

	Client  string       // OAuth client_id; "" for none
	Act     *Actor       // current actor outermost; nil: the subject acts itself
	CNF     Confirmation // the sender that must present it; zero: bearer
	Task    Task
	Depth   int // how often its grants were delegated
	Rev     grants.Rev
	Details []Detail // one for each grant, 1 to MaxDetails
}

// Task names the task of a token.
type Task struct {
	ID   grants.ID `json:"id"`
	Kind string    `json:"kind"`
}

// Actor is one link of the chain of actors. Only the outermost is ever decided
// on; those inside it are information (RFC 8693, Section 4.1).
type Actor struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Act     *Actor `json:"act,omitzero"`
}

// Confirmation binds a token to its sender (RFC 7800); at most one is set.
// Verify does not see the sender: the door compares.
type Confirmation struct {
	Key  grants.Digest // RFC 7638 thumbprint of its DPoP key: cnf.jkt (RFC 9449, Section 6.1)
	Cert grants.Digest // SHA-256 of its certificate's DER: cnf.x5t#S256 (RFC 8705, Section 3.1)
}

// Digest is the one that is set; zero for a bearer token.
func (c Confirmation) Digest() grants.Digest {
	if c.Key.IsZero() {
		return c.Cert
	}
	return c.Key
}

// Detail stands for one grant in authorization_details. The constraints
// themselves stay in the table.
type Detail struct {
	Type              string        `json:"type"` // DetailType
	GrantID           grants.ID     `json:"grant_id"`
	Tool              string        `json:"tool"` // SERVER/TOOL
	ConstraintsDigest grants.Digest `json:"constraints_digest,omitzero"`
}

// validate holds what minting and verifying demand alike: no token is signed
// that would be refused for anything but its time.
func (c *Claims) validate() error {
	for _, f := range []struct{ name, value string }{
		{"iss", c.Issuer}, {"sub", c.Subject}, {"aud", c.Audience}, {"task.kind", c.Task.Kind},
	} {
		if !validText(f.value) {
			return fmt.Errorf("%s: empty, over %d bytes or not printable", f.name, maxText)
		}
	}
	if c.Client != "" && !validText(c.Client) {
		return fmt.Errorf("client_id: over %d bytes or not printable", maxText)
	}
	if !grants.ValidID(c.ID, IDPrefix) {
		return errors.New("jti: not an id")
	}
	if !grants.ValidID(c.Task.ID, grants.TaskPrefix) {
		return errors.New("task.id: not a task id")
	}
	for _, f := range []struct {
		name string
		at   time.Time
	}{{"iat", c.IssuedAt}, {"nbf", c.NotBefore}, {"exp", c.Expires}} {
		if s := f.at.Unix(); s <= 0 || s > maxTime {
			return fmt.Errorf("%s: absent or out of range", f.name)
		}
	}
	if c.Expires.Unix() <= c.NotBefore.Unix() {
		return errors.New("exp: the window is empty in whole seconds")
	}
	if c.Depth < 0 || c.Depth > MaxActors {
		return fmt.Errorf("depth: not within 0 and %d", MaxActors)
	}
	n := 0
	for a := c.Act; a != nil; a = a.Act {
		if n++; n > MaxActors {
			return fmt.Errorf("act: over %d actors", MaxActors)
		}
		if !validText(a.Issuer) || !validText(a.Subject) {
			return errors.New("act: iss and sub are required and printable")
		}
	}
	if !c.CNF.Key.IsZero() && !c.CNF.Cert.IsZero() {
		return errors.New("cnf: both a key and a certificate")
	}
	return validDetails(c.Details)
}

func validDetails(details []Detail) error {
	if len(details) == 0 || len(details) > MaxDetails {
		return fmt.Errorf("authorization_details: not 1 to %d", MaxDetails)
	}
	seen := make(map[grants.ID]bool, len(details))
	for _, d := range details {
		switch {
		case d.Type != DetailType:
			return fmt.Errorf("authorization_details: type is not %q", DetailType)
		case !grants.ValidID(d.GrantID, grants.GrantPrefix):
			return errors.New("authorization_details: grant_id is not a grant id")
		case seen[d.GrantID]:
			return errors.New("authorization_details: a grant twice")
		case !validText(d.Tool) || !strings.Contains(d.Tool, "/"):
			return errors.New("authorization_details: tool is not SERVER/TOOL")
		}
		seen[d.GrantID] = true
	}
	return nil
}

func validText(s string) bool { return ValidText(s, maxText) }

// wireClaims is Claims as the payload spells them. The names are a closed set:
// this package is the only issuer.
type wireClaims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  string   `json:"aud"`
	ID        string   `json:"jti"`
	IssuedAt  int64    `json:"iat"` // 0: absent, which validate refuses
	NotBefore int64    `json:"nbf"`
	Expires   int64    `json:"exp"`
	Client    string   `json:"client_id,omitzero"`
	Act       *Actor   `json:"act,omitzero"`
	CNF       *wireCNF `json:"cnf,omitzero"`
	Task      Task     `json:"task"`
	Depth     int      `json:"depth"`
	Rev       string   `json:"rev"`
	Details   []Detail `json:"authorization_details"`
}

type wireCNF struct {
	JKT string `json:"jkt,omitzero"`
	X5T string `json:"x5t#S256,omitzero"`
}

// wire cuts the times to whole seconds. Unix rounds down, so exp is never
// later than the grant's end; nbf and iat come up to a second early, which the
// table, with the exact window, does not let through.
func (c *Claims) wire() *wireClaims {
	w := &wireClaims{
		Issuer: c.Issuer, Subject: c.Subject, Audience: c.Audience, ID: c.ID,
		IssuedAt: c.IssuedAt.Unix(), NotBefore: c.NotBefore.Unix(), Expires: c.Expires.Unix(),
		Client: c.Client, Act: c.Act, Task: c.Task, Depth: c.Depth, Rev: c.Rev.String(), Details: c.Details,
	}
	if !c.CNF.Digest().IsZero() {
		w.CNF = &wireCNF{JKT: encodeDigest(c.CNF.Key), X5T: encodeDigest(c.CNF.Cert)}
	}
	return w
}

// parseClaims reads a payload: strict, closed, complete.
func parseClaims(payload []byte) (Claims, error) {
	var w wireClaims
	if err := strictjson.Unmarshal(payload, strictjson.Limits{Bytes: MaxBytes, Depth: 2 * MaxActors}, &w); err != nil {
		return Claims{}, err
	}
	rev, err := grants.ParseRev(w.Rev)
	if err != nil {
		return Claims{}, err
	}
	c := Claims{
		Issuer: w.Issuer, Subject: w.Subject, Audience: w.Audience, ID: w.ID,
		IssuedAt: unix(w.IssuedAt), NotBefore: unix(w.NotBefore), Expires: unix(w.Expires),
		Client: w.Client, Act: w.Act, Task: w.Task, Depth: w.Depth, Rev: rev, Details: w.Details,
	}
	if w.CNF != nil {
		var okKey, okCert bool
		c.CNF.Key, okKey = decodeDigest(w.CNF.JKT)
		c.CNF.Cert, okCert = decodeDigest(w.CNF.X5T)
		// A cnf that names no sender must not be read as "bearer".
		if !okKey || !okCert || c.CNF.Digest().IsZero() {
			return Claims{}, errors.New("cnf: names no sender")
		}
	}
	return c, c.validate()
}

func encodeDigest(d grants.Digest) string {
	if d.IsZero() {
		return ""
	}
	return b64.EncodeToString(d[:])
}

func decodeDigest(s string) (grants.Digest, bool) {
	if s == "" {
		return grants.Digest{}, true
	}
	b, ok := decodeSegment(s)
	if !ok || len(b) != len(grants.Digest{}) {
		return grants.Digest{}, false
	}
	return grants.Digest(b), true
}
