package token

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/toolgrant/toolgrant/strictjson"
)

const (
	keySuffix   = ".jwk"
	auditFile   = "audit.key"
	auditBytes  = 32
	maxKeyFile  = 4096 // bytes
	thumbprint  = crypto.SHA256
	jwkIssuedAt = "iat"
)

// ErrTooLarge is what Mint returns for a token that would have MaxBytes or
// more: too many grants, or too long names, for one token.
var ErrTooLarge = fmt.Errorf("token: %d bytes or more", MaxBytes)

// Keys is what a broker signs with, as its directory held it when it was
// opened. It is immutable and safe for concurrent use.
//
// The directory (0700) holds one private JWK for each key (KID.jwk, 0600; kid
// is the RFC 7638 thumbprint) and the secret of the audit log's HMAC
// (audit.key, 0600, 32 raw bytes). The key with the latest "iat" signs, of two
// with the same the one whose kid sorts last; all verify. To rotate: AddKey
// and start again; remove the old file once the last token that it signed has
// expired.
type Keys struct {
	signing *signingKey
	public  *KeySet
	jwks    []byte
	audit   [auditBytes]byte
}

type signingKey struct {
	kid      string
	alg      string
	issuedAt int64
	private  crypto.Signer
	signer   jws.Signer2
}

// OpenKeys reads dir. At first start, when dir is absent or holds no signing
// key, it makes dir, the audit secret and a key for alg: EdDSA ("" too) or
// ES256. One process at a time may do this.
//
// It refuses, with the command that repairs it, a directory or file that is a
// symbolic link or open to group or others, a file that is empty or does not
// parse, an absent audit.key beside keys, and a signing key that is not for
// alg. Errors never contain what a file holds.
func OpenKeys(dir, alg string) (*Keys, error) {
	if alg == "" {
		alg = EdDSA
	}
	if alg != EdDSA && alg != ES256 {
		return nil, fmt.Errorf("signing keys: alg %q: write %s or %s", alg, EdDSA, ES256)
	}
	dir = filepath.Clean(dir)
	if err := makePrivateDir(dir); err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	keys, err := readKeys(dir)
	if err == nil && len(keys) == 0 {
		// The secret before the key: if this is cut short, the next start
		// finds no key and goes on here.
		if err = createAuditKey(dir); err == nil {
			err = createKey(dir, alg, time.Now().Unix())
		}
		if err == nil {
			keys, err = readKeys(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	k, err := newKeys(dir, keys, alg)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	return k, nil
}

// AddKey makes one more key for alg (as in OpenKeys) in the directory of keys
// that OpenKeys accepts. It signs from the next OpenKeys on; keys opened before
// do not know it, so verifiers with a copy of the JWKS need the new one first.
func AddKey(dir, alg string) error {
	if alg == "" {
		alg = EdDSA
	}
	dir = filepath.Clean(dir)
	if err := checkPrivateDir(dir); err != nil {
		return fmt.Errorf("add signing key: %w", err)
	}
	keys, err := readKeys(dir)
	if err != nil {
		return fmt.Errorf("add signing key: %w", err)
	}
	if len(keys) == 0 {
		return fmt.Errorf("add signing key: %s holds none yet; the first start makes it", dir)
	}
	// Whatever the clock says, it is later than those before it.
	issuedAt := time.Now().Unix()
	for _, key := range keys {
		issuedAt = max(issuedAt, key.issuedAt+1)
	}
	if err := createKey(dir, alg, issuedAt); err != nil {
		return fmt.Errorf("add signing key: %w", err)
	}
	return nil
}

// AuditKey is the 32-byte secret of the audit log's HMAC.
func (k *Keys) AuditKey() []byte { return bytes.Clone(k.audit[:]) }

// JWKS is the public set as a broker publishes it (RFC 7517, Section 5): each
// key with kid, alg and "use": "sig".
func (k *Keys) JWKS() []byte { return bytes.Clone(k.jwks) }

// WriteJWKS writes the public set to path, mode 0644, in one step.
func (k *Keys) WriteJWKS(path string) error {
	if err := writePublicFile(path, k.jwks); err != nil {
		return fmt.Errorf("writing JWK set: %w", err)
	}
	return nil
}

// Public is the public half, for NewVerifier.
func (k *Keys) Public() *KeySet { return k.public }

// Format keeps the keys out of every %v.
func (k *Keys) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "token.Keys("+k.signing.kid+")")
}

// Mint signs a grant token. Times are rounded down to whole seconds, so exp is
// never later than c.Expires. An error: claims that Verify would refuse
// whatever the time, or ErrTooLarge.
func (k *Keys) Mint(c Claims) (string, error) {
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("minting token: %w", err)
	}
	payload, err := json.Marshal(c.wire())
	if err != nil {
		return "", fmt.Errorf("minting token: %w", err)
	}
	compact, err := k.signing.sign(Typ, payload)
	if err != nil {
		return "", fmt.Errorf("minting token: %w", err)
	}
	if len(compact) >= MaxBytes {
		return "", fmt.Errorf("minting token: %w", ErrTooLarge)
	}
	return compact, nil
}

// Sign signs a payload as a compact JWS whose header has this typ. It is for
// tokens of other kinds: grant tokens come from Mint alone.
func (k *Keys) Sign(typ string, payload []byte) (string, error) {
	if typ == "" || strings.EqualFold(typ, Typ) || !validText(typ) {
		return "", fmt.Errorf("signing: typ %q", typ)
	}
	return k.signing.sign(typ, payload)
}

func (s *signingKey) sign(typ string, payload []byte) (string, error) {
	header, err := json.Marshal(Header{Alg: s.alg, Typ: typ, KID: s.kid})
	if err != nil {
		return "", err
	}
	input := b64.EncodeToString(header) + "." + b64.EncodeToString(payload)
	signature, err := s.signer.Sign(s.private, []byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + b64.EncodeToString(signature), nil
}

func newKeys(dir string, keys []*signingKey, alg string) (*Keys, error) {
	signing := slices.MaxFunc(keys, func(a, b *signingKey) int {
		return cmp.Or(cmp.Compare(a.issuedAt, b.issuedAt), cmp.Compare(a.kid, b.kid))
	})
	if signing.alg != alg {
		file := filepath.Join(dir, signing.kid+keySuffix)
		return nil, repair(fmt.Sprintf("%s, the newest key, is for %s and the configuration says %s; configure %s, or retire the key", file, signing.alg, alg, signing.alg),
			"mv", file, file+".retired")
	}
	k := &Keys{signing: signing, public: &KeySet{keys: make(map[string]record, len(keys))}}
	set := jwk.NewSet()
	for _, key := range keys {
		rec, err := newRecord(key.alg, key.private.Public())
		if err != nil {
			return nil, err
		}
		k.public.keys[key.kid] = rec
		entry, err := newJWK(rec.public, key.kid, key.alg)
		if err != nil {
			return nil, err
		}
		if err := set.AddKey(entry); err != nil {
			return nil, err
		}
	}
	var err error
	if k.jwks, err = json.Marshal(set); err != nil {
		return nil, err
	}
	k.audit, err = readAuditKey(dir)
	return k, err
}

// newJWK wraps a key of crypto/… with what every JWK of ours says; with a
// private key it is private.
func newJWK(raw any, kid, alg string) (jwk.Key, error) {
	key, err := jwk.Import(raw)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{jwk.KeyIDKey: kid, jwk.AlgorithmKey: alg, jwk.KeyUsageKey: "sig"} {
		if err := key.Set(name, value); err != nil {
			return nil, err
		}
	}
	return key, nil
}

func keyID(public crypto.PublicKey) (string, error) {
	key, err := jwk.Import(public)
	if err != nil {
		return "", err
	}
	sum, err := key.Thumbprint(thumbprint)
	return b64.EncodeToString(sum), err
}

func createKey(dir, alg string, issuedAt int64) error {
	var private crypto.Signer
	var err error
	switch alg {
	case EdDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		err = fmt.Errorf("alg %q: write %s or %s", alg, EdDSA, ES256)
	}
	if err != nil {
		return err
	}
	kid, err := keyID(private.Public())
	if err != nil {
		return err
	}
	key, err := newJWK(private, kid, alg)
	if err != nil {
		return err
	}
	if err := key.Set(jwkIssuedAt, issuedAt); err != nil {
		return err
	}
	data, err := json.Marshal(key)
	if err != nil {
		return err
	}
	return createPrivateFile(filepath.Join(dir, kid+keySuffix), data)
}

// readKeys reads every KID.jwk in dir; other files are not looked at.
func readKeys(dir string) ([]*signingKey, error) {
	paths, err := privateFiles(dir, keySuffix)
	if err != nil {
		return nil, err
	}
	if len(paths) > maxKeys {
		return nil, fmt.Errorf("%s: over %d keys; remove those whose last token has expired", dir, maxKeys)
	}
	keys := make([]*signingKey, 0, len(paths))
	for _, path := range paths {
		data, err := readPrivateFile(path, maxKeyFile)
		if err != nil {
			return nil, err
		}
		key, err := parsePrivate(data)
		if err == nil && filepath.Base(path) != key.kid+keySuffix {
			err = errors.New("the name is not that of the key in it")
		}
		if err != nil {
			return nil, repair(fmt.Sprintf("%s: %v; restore it from a copy, or take it out of use (its tokens then no longer verify)", path, err),
				"mv", path, path+".broken")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// privateJWK is the file's format: exactly what createKey writes.
type privateJWK struct {
	Kty      string `json:"kty"`
	Crv      string `json:"crv"`
	X        string `json:"x"`
	Y        string `json:"y,omitzero"`
	D        string `json:"d"`
	Alg      string `json:"alg"`
	KID      string `json:"kid"`
	Use      string `json:"use"`
	IssuedAt int64  `json:"iat"` // Unix seconds, as in OpenID Federation 1.0, Section 8.7
}

// parsePrivate says what is wrong, and never what it read.
func parsePrivate(data []byte) (*signingKey, error) {
	var f privateJWK
	if strictjson.Unmarshal(data, strictjson.Limits{Bytes: maxKeyFile, Depth: 1}, &f) != nil {
		return nil, errors.New("not a private JWK with kty, crv, x, y, d, alg, kid, use and iat alone")
	}
	members := jwkMembers{"kty": f.Kty, "crv": f.Crv, "x": f.X, "y": f.Y, "d": f.D}
	public, algs, err := members.publicKey()
	if err != nil {
		return nil, err
	}
	if public == nil || f.Alg != EdDSA && f.Alg != ES256 || !slices.Contains(algs, f.Alg) || f.Use != "sig" {
		return nil, fmt.Errorf("not a key for %s (Ed25519) or %s (P-256) with alg and use", EdDSA, ES256)
	}
	d, err := members.bytes("d", p256Bytes) // Ed25519 seeds have as many
	if err != nil {
		return nil, err
	}
	private, err := privateKey(f.Alg, d)
	if err != nil {
		return nil, err
	}
	if own, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(public) {
		return nil, errors.New("private and public part do not belong together")
	}
	kid, err := keyID(public)
	if err != nil {
		return nil, err
	}
	if f.KID != kid {
		return nil, errors.New("kid is not the key's thumbprint (RFC 7638)")
	}
	if f.IssuedAt <= 0 || f.IssuedAt > maxTime {
		return nil, errors.New("iat is absent or out of range")
	}
	rec, err := newRecord(f.Alg, public)
	if err != nil {
		return nil, err
	}
	signer, err := jws.SignerFor(rec.jwa)
	return &signingKey{kid: kid, alg: f.Alg, issuedAt: f.IssuedAt, private: private, signer: signer}, err
}

func privateKey(alg string, d []byte) (crypto.Signer, error) {
	if alg == EdDSA {
		return ed25519.NewKeyFromSeed(d), nil
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		return nil, errors.New("d: not a scalar of P-256")
	}
	return key, nil
}

func createAuditKey(dir string) error {
	secret := make([]byte, auditBytes)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	err := createPrivateFile(filepath.Join(dir, auditFile), secret)
	if errors.Is(err, fs.ErrExist) {
		return nil // an earlier start was cut short
	}
	return err
}

func readAuditKey(dir string) (key [auditBytes]byte, err error) {
	path := filepath.Join(dir, auditFile)
	data, err := readPrivateFile(path, auditBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Making a new one in silence would leave the digests of the log so
		// far without their key.
		err = newAuditKey(path, "absent beside signing keys")
	case err != nil:
	case len(data) != auditBytes, bytes.Count(data, data[:1]) == auditBytes:
		err = newAuditKey(path, "not 32 random bytes")
	default:
		copy(key[:], data)
	}
	return key, err
}

func newAuditKey(path, problem string) error {
	return fmt.Errorf("%s: %s; restore it from a copy, or begin with a new one (digests in the log so far then no longer match): (umask 077; head -c %d /dev/urandom > %s)",
		path, problem, auditBytes, shellQuote(path))
}
