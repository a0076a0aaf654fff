package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

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

// publishedKeys are the thumbprints of private keys that stand in public
// documents, from which they find their way into configurations.
var publishedKeys = map[string]string{
	"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": "RFC 8037, Appendix A.1",
	"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U": "RFC 7515, Appendix A.3",
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
	if bytes.Count(d, d[:1]) == len(d) {
		return nil, errors.New("d: no random key, but one byte over and over")
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
	if where, found := publishedKeys[kid]; found {
		return nil, errors.New("everybody knows this key: it is the example of " + where)
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
