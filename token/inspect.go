package token

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/strictjson"
)

// maxInspected is the longest text that Inspect reads, in bytes: as long as an
// identity token may be.
const maxInspected = 16 << 10

// Inspection is what a token says of itself. NOTHING in it is verified: whoever
// wrote the text chose every word.
type Inspection struct {
	UnverifiedHeader  Header
	UnverifiedPayload []byte  // strict JSON, an object, as the token spells it
	UnverifiedClaims  *Claims // of a grant token; nil for a token of another issuer

	// Times as the claims iat, nbf and exp say; zero if absent.
	UnverifiedIssuedAt, UnverifiedNotBefore, UnverifiedExpires time.Time

	// SignatureMark is the beginning of the signature, to tell two tokens
	// apart: too little of it to present the token anywhere.
	SignatureMark string
}

// Inspect takes a compact JWS (a grant token, or an issuer's identity token of
// at most 16 KiB) apart, as strictly as a verifier does, and verifies nothing:
// no key, no time, no audience. It is for people who look at a token, and no
// decision may rest on it. Its errors say which part is wrong, and not what
// stands there.
func Inspect(compact string) (Inspection, error) {
	if !isCompact(compact, maxInspected) {
		return Inspection{}, fmt.Errorf("not a compact JWS: three parts with dots between, at most %d bytes", maxInspected)
	}
	p, ok := parseCompact(compact, maxInspected)
	if !ok {
		return Inspection{}, unreadable(compact)
	}
	if len(p.signature) == 0 {
		return Inspection{}, errors.New("signature: absent")
	}
	in := Inspection{UnverifiedHeader: p.unverifiedHeader, UnverifiedPayload: p.unverifiedPayload}
	signature := compact[strings.LastIndexByte(compact, '.')+1:]
	in.SignatureMark = signature[:min(8, len(signature)/4)] + "…"
	if p.unverifiedHeader.Typ == Typ {
		c, err := parseClaims(p.unverifiedPayload)
		if err != nil {
			return Inspection{}, notClaims(err)
		}
		in.UnverifiedClaims = &c
		in.UnverifiedIssuedAt, in.UnverifiedNotBefore, in.UnverifiedExpires = c.IssuedAt, c.NotBefore, c.Expires
		return in, nil
	}
	claims, err := ParsePayload(p.unverifiedPayload)
	if err != nil {
		return Inspection{}, notClaims(err)
	}
	for name, at := range map[string]*time.Time{"iat": &in.UnverifiedIssuedAt, "nbf": &in.UnverifiedNotBefore, "exp": &in.UnverifiedExpires} {
		claim, found := claims[name]
		if *at, ok = NumericDate(claim); found && !ok {
			return Inspection{}, fmt.Errorf("payload: %s: not whole seconds since 1970", name)
		}
	}
	return in, nil
}

// notClaims says what is wrong with a payload. A parser's error may repeat what
// it read, which can be anything.
func notClaims(err error) error {
	var syntax *strictjson.Error
	if errors.As(err, &syntax) {
		return errors.New("payload: not a strict JSON object with the claims of its kind")
	}
	return fmt.Errorf("payload: %w", err)
}

// unreadable names the part of a compact JWS that cannot be read.
func unreadable(compact string) error {
	parts := strings.Split(compact, ".")
	if _, ok := parseHeader(parts[0]); !ok {
		return errors.New("header: not canonical base64url of a strict JSON object with alg, typ, kid and x5t alone, which is all that is ever accepted")
	}
	if _, ok := decodeSegment(parts[1]); !ok {
		return errors.New("payload: not canonical base64url")
	}
	return errors.New("signature: not canonical base64url")
}
