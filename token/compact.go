package token

import (
	"encoding/base64"
	"strings"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// b64 is canonical base64url: no padding, and no bits behind the last byte, so
// that a token cannot be respelt.
var b64 = base64.RawURLEncoding.Strict()

const maxHeader = 2048 // bytes of an encoded header; one with a long kid has some 200

// Header is the JOSE header of a JWS.
type Header struct {
	Alg string `json:"alg"`
	Typ string `json:"typ"` // "" if absent
	KID string `json:"kid"`

	// X5T is a certificate's thumbprint, which some identity issuers put
	// beside kid. It is never used; grant tokens may not have it. Every other
	// member is refused: jwk, jku, x5u and x5c would bring a key along, crit,
	// b64 and zip change what is signed, cty nests, enc makes it a JWE.
	X5T *string `json:"x5t,omitzero"`
}

// parsed is a JWS that was taken apart and not yet verified.
type parsed struct {
	unverifiedHeader  Header
	unverifiedPayload []byte
	signingInput      []byte
	signature         []byte
}

// parseCompact takes a compact JWS apart and does no cryptography. The length
// is looked at before anything else, so the work is bounded by maxBytes.
func parseCompact(compact string, maxBytes int) (parsed, bool) {
	if !isCompact(compact, maxBytes) {
		return parsed{}, false
	}
	header, rest, _ := strings.Cut(compact, ".")
	payload, signature, _ := strings.Cut(rest, ".")

	var p parsed
	var okHeader, okPayload, okSignature bool
	p.unverifiedHeader, okHeader = parseHeader(header)
	p.unverifiedPayload, okPayload = decodeSegment(payload)
	p.signature, okSignature = decodeSegment(signature)
	p.signingInput = []byte(compact[:len(header)+1+len(payload)])
	return p, okHeader && okPayload && okSignature
}

// isCompact is what a text must be for any work on it to be worth while.
func isCompact(text string, maxBytes int) bool {
	return len(text) <= maxBytes && strings.Count(text, ".") == 2
}

func parseHeader(segment string) (Header, bool) {
	if len(segment) > maxHeader {
		return Header{}, false
	}
	raw, ok := decodeSegment(segment)
	if !ok {
		return Header{}, false
	}
	var h Header
	err := strictjson.Unmarshal(raw, strictjson.Limits{Bytes: maxHeader, Depth: 1, Values: 16}, &h)
	return h, err == nil
}

func decodeSegment(s string) ([]byte, bool) {
	// encoding/base64 skips line breaks even in strict mode.
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	raw, err := b64.DecodeString(s)
	if err != nil {
		return nil, false
	}
	return raw, true
}

// VerifyCompact checks the signature of a compact JWS of at most maxBytes
// bytes by the key that its kid names. allow judges the header's typ ("" if it
// has none). The reason is None or BadCredential; without None there is no
// payload. Claims, times among them, are for the caller to check.
func (s *KeySet) VerifyCompact(compact string, maxBytes int, allow func(typ string) bool) (payload []byte, header Header, reason grants.Reason) {
	p, _, ok := s.verify(compact, maxBytes, func(h Header) bool { return allow(h.Typ) })
	if !ok {
		return nil, Header{}, grants.BadCredential
	}
	return p.unverifiedPayload, p.unverifiedHeader, grants.None
}

// verify is the one path on which signatures are checked. With ok, nothing in
// parsed is unverified any more, and key is the one that signed.
func (s *KeySet) verify(compact string, maxBytes int, allow func(Header) bool) (p parsed, key record, ok bool) {
	p, ok = parseCompact(compact, maxBytes)
	if !ok || !allow(p.unverifiedHeader) {
		return parsed{}, record{}, false
	}
	key, ok = s.keys[p.unverifiedHeader.KID]
	if !ok || p.unverifiedHeader.Alg != key.alg || !key.signed(p.signingInput, p.signature) {
		return parsed{}, record{}, false
	}
	return p, key, true
}

// UnverifiedType reads the header's typ ("" if absent), by which a door tells
// a grant token from an identity token before it verifies it as such. Not ok:
// neither of them could be verified.
func UnverifiedType(compact string) (typ string, ok bool) {
	segment, _, found := strings.Cut(compact[:min(len(compact), maxHeader+1)], ".")
	if !found {
		return "", false
	}
	h, ok := parseHeader(segment)
	return h.Typ, ok
}

// UnverifiedKID reads the header's kid, by which a refused token can be one
// whose key was published after the set was last fetched. It chooses nothing
// else. Not ok: no key could verify it.
func UnverifiedKID(compact string, maxBytes int) (kid string, ok bool) {
	if !isCompact(compact, maxBytes) {
		return "", false
	}
	segment, _, _ := strings.Cut(compact, ".")
	h, ok := parseHeader(segment)
	return h.KID, ok && h.KID != ""
}
