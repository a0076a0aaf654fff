package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/toolgrant/toolgrant/strictjson"
)

// Signature algorithms (RFC 7518, Section 3.1; RFC 8037; RFC 9864).
const (
	EdDSA      = "EdDSA"   // with Ed25519 alone
	ES256      = "ES256"   // P-256 and SHA-256
	ed25519Alg = "Ed25519" // what RFC 9864 calls EdDSA; in other issuers' sets
	rs256      = "RS256"   // in other issuers' sets, from 2048 bits
)

const (
	maxJWKS   = 256 << 10 // bytes
	maxKeys   = 64
	maxRSA    = 8192 // bits: a larger modulus only costs time
	maxKID    = 256  // bytes
	minRSA    = 2048
	p256Bytes = 32
)

// KeySet is an immutable set of public keys by kid; the zero value verifies
// nothing.
type KeySet struct {
	keys    map[string]record // kid -> key
	skipped int
}

// record is a key with the one algorithm that it is used with.
type record struct {
	alg      string
	jwa      jwa.SignatureAlgorithm // alg, as the library names it
	public   crypto.PublicKey
	verifier jws.Verifier2

	// succeeded is when the next of our own keys begins to sign; zero for the
	// newest, and for every key of a JWK Set.
	succeeded time.Time
}

// signed reports whether the signature of input is this key's.
func (r record) signed(input, signature []byte) bool {
	return r.verifier.Verify(r.public, input, signature) == nil
}

func newRecord(alg string, public crypto.PublicKey) (record, error) {
	var a jwa.SignatureAlgorithm
	switch alg {
	case EdDSA:
		a = jwa.EdDSA()
	case ed25519Alg:
		a = jwa.EdDSAEd25519()
	case ES256:
		a = jwa.ES256()
	case rs256:
		a = jwa.RS256()
	default:
		return record{}, fmt.Errorf("alg %q is not supported", alg)
	}
	v, err := jws.VerifierFor(a)
	return record{alg: alg, jwa: a, public: public, verifier: v}, err
}

// Len is how many keys can verify.
func (s *KeySet) Len() int { return len(s.keys) }

// Has reports whether there is a key with this kid.
func (s *KeySet) Has(kid string) bool {
	_, found := s.keys[kid]
	return found
}

// Skipped is how many keys ParseJWKS left out: of another type, curve or alg
// than this package verifies, or not for signatures.
func (s *KeySet) Skipped() int { return s.skipped }

// ParseJWKS reads a JWK Set (RFC 7517, Section 5) of an issuer: at most 256
// KiB and 64 keys, strict JSON, members that it does not know ignored. Keys
// for Ed25519, P-256 and RSA signatures are taken, each with a kid of its own;
// other keys are skipped and counted. An error: a private or symmetric key
// anywhere, a key that is not what it says, a kid absent or twice, an RSA
// modulus under 2048 bits or with the ROCA weakness, or no key that can verify.
func ParseJWKS(data []byte) (*KeySet, error) {
	v, err := strictjson.Parse(data, strictjson.Limits{Bytes: maxJWKS, Depth: 16})
	if err != nil {
		// The parser's text may show what it read, and this could be a file of
		// private keys that was named by mistake.
		return nil, errors.New("JWK set: not strict JSON of at most 256 KiB")
	}
	set, _ := v.(map[string]any)
	list, ok := set["keys"].([]any)
	if !ok {
		return nil, errors.New(`JWK set: no array "keys"`)
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("JWK set: over %d keys", maxKeys)
	}
	s := &KeySet{keys: make(map[string]record, len(list))}
	for i, item := range list {
		members, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("JWK set: keys[%d] is no object", i)
		}
		if err := s.add(jwkMembers(members)); err != nil {
			return nil, fmt.Errorf("JWK set: keys[%d]: %w", i, err)
		}
	}
	if len(s.keys) == 0 {
		return nil, errors.New("JWK set: no key that can verify EdDSA (Ed25519), ES256 or RS256")
	}
	return s, nil
}

func (s *KeySet) add(m jwkMembers) error {
	// First of all, for skipped keys too: a private key that was published is
	// to be noticed, whatever it is for. "k" is a symmetric one.
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		if _, found := m[name]; found {
			return fmt.Errorf("holds the private member %q: publish public keys only", name)
		}
	}
	signs, err := m.forSignatures()
	if err != nil {
		return err
	}
	if !signs {
		s.skipped++
		return nil
	}
	public, algs, err := m.publicKey()
	if err != nil {
		return err
	}
	alg, found, err := m.text("alg")
	if err != nil {
		return err
	}
	if public == nil || found && !slices.Contains(algs, alg) {
		s.skipped++
		return nil
	}
	if !found {
		alg = algs[0]
	}
	kid, _, err := m.text("kid")
	if err != nil {
		return err
	}
	if kid == "" || len(kid) > maxKID {
		return fmt.Errorf("kid: absent, empty or over %d bytes", maxKID)
	}
	if _, twice := s.keys[kid]; twice {
		return fmt.Errorf("kid %q is not the only one", kid)
	}
	s.keys[kid], err = newRecord(alg, public)
	return err
}

// jwkMembers is one JWK (RFC 7517, Section 4) as parsed.
type jwkMembers map[string]any

func (m jwkMembers) text(name string) (value string, found bool, err error) {
	v, found := m[name]
	if !found {
		return "", false, nil
	}
	value, ok := v.(string)
	if !ok {
		return "", false, fmt.Errorf("%s: not a string", name)
	}
	return value, true, nil
}

// bytes reads a required member of n bytes in base64url; n 0: any length, no
// leading zero byte (RFC 7518, Section 2: Base64urlUInt).
func (m jwkMembers) bytes(name string, n int) ([]byte, error) {
	text, _, err := m.text(name)
	if err != nil {
		return nil, err
	}
	b, ok := decodeSegment(text)
	if !ok || len(b) == 0 || n > 0 && len(b) != n || n == 0 && b[0] == 0 {
		return nil, fmt.Errorf("%s: absent, or not the canonical base64url of such a value", name)
	}
	return b, nil
}

// forSignatures is false for keys that are meant for something else, such as
// the "enc" keys that an issuer may publish beside. "jwt-svid" is SPIFFE's
// word (SPIFFE Trust Domain and Bundle, Section 4.2.2).
func (m jwkMembers) forSignatures() (bool, error) {
	use, found, err := m.text("use")
	if err != nil || found && use != "sig" && use != "jwt-svid" {
		return false, err
	}
	ops, found := m["key_ops"]
	if !found {
		return true, nil
	}
	list, ok := ops.([]any)
	if !ok {
		return false, errors.New("key_ops: not an array")
	}
	return slices.Contains(list, any("verify")), nil
}

// publicKey builds the key and names the algorithms that fit it, the default
// first. No key and no error: a type or curve that is not supported.
func (m jwkMembers) publicKey() (crypto.PublicKey, []string, error) {
	kty, _, err := m.text("kty")
	if err != nil {
		return nil, nil, err
	}
	crv, _, err := m.text("crv")
	if err != nil {
		return nil, nil, err
	}
	switch {
	case kty == "":
		return nil, nil, errors.New("kty: absent")
	case kty == "OKP" && crv == "Ed25519":
		x, err := m.bytes("x", ed25519.PublicKeySize)
		if err != nil {
			return nil, nil, err
		}
		return ed25519.PublicKey(x), []string{EdDSA, ed25519Alg}, nil
	case kty == "EC" && crv == "P-256":
		key, err := m.p256()
		if err != nil {
			return nil, nil, err
		}
		return key, []string{ES256}, nil
	case kty == "RSA":
		key, err := m.rsa()
		if err != nil {
			return nil, nil, err
		}
		return key, []string{rs256}, nil
	}
	return nil, nil, nil
}

func (m jwkMembers) p256() (*ecdsa.PublicKey, error) {
	x, err := m.bytes("x", p256Bytes)
	if err != nil {
		return nil, err
	}
	y, err := m.bytes("y", p256Bytes)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("x, y: not a point of P-256")
	}
	return key, nil
}

func (m jwkMembers) rsa() (*rsa.PublicKey, error) {
	n, err := m.bytes("n", 0)
	if err != nil {
		return nil, err
	}
	e, err := m.bytes("e", 0)
	if err != nil {
		return nil, err
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < minRSA || bits > maxRSA || modulus.Bit(0) == 0 {
		return nil, fmt.Errorf("n: %d bits; an odd modulus of %d to %d is needed", bits, minRSA, maxRSA)
	}
	if exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0 {
		return nil, errors.New("e: not an odd number from 3 to 2^31-1")
	}
	if isROCA(modulus) {
		return nil, errors.New("n: made by a faulty smart card (CVE-2017-15361): it can be factored; make the key anew")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// isROCA tells the moduli of CVE-2017-15361, which can be factored: modulo each
// of the first primes they are powers of 65537 (Nemec et al., "The Return of
// Coppersmith's Attack", CCS 2017, Section 2.2). Another modulus is so with
// probability under 2^-27.
func isROCA(modulus *big.Int) bool {
	for p := uint64(3); p <= 167; p += 2 {
		if !big.NewInt(int64(p)).ProbablyPrime(0) {
			continue
		}
		rest := new(big.Int).Mod(modulus, new(big.Int).SetUint64(p)).Uint64()
		power := uint64(1)
		for power != rest {
			if power = power * 65537 % p; power == 1 {
				return false // all powers seen
			}
		}
	}
	return true
}
