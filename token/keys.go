package token

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v3/jws"
)

// ErrTooLarge is what Mint returns for a token that would have MaxBytes or
// more: too many grants, or too long names, for one token.
var ErrTooLarge = fmt.Errorf("token: %d bytes or more", MaxBytes)

// Keys is what a broker signs with, as its directory held it when it was last
// read. It is safe for concurrent use.
//
// The directory (0700) holds one private JWK for each key (KID.jwk, 0600; kid
// is the RFC 7638 thumbprint) and the secret of the audit log's HMAC
// (audit.key, 0600, 32 raw bytes). A key signs from its "iat" until that of the
// next one, of two with the same the one whose kid sorts last; for how long
// its tokens then still verify, see Verifier.
//
// To rotate: AddKey, and Reload in each process; the old file can go once its
// last token has expired. A key that has become known goes at once: AddKey,
// remove its file, Reload.
type Keys struct {
	dir, alg string
	audit    [auditBytes]byte
	held     atomic.Pointer[keyring]
	mu       sync.Mutex // one Reload at a time
}

type signingKey struct {
	kid      string
	alg      string
	issuedAt int64 // Unix seconds: signs from then on
	private  crypto.Signer
	signer   jws.Signer2
}

// OpenKeys reads dir. At first start, when dir is absent or holds no signing
// key, it makes dir, the audit secret and a key for alg: EdDSA ("" too) or
// ES256. One process at a time may do this.
//
// It refuses, with the command that repairs it, a directory or file that is a
// symbolic link or open to group or others, a file that is empty or does not
// parse, a key that stands in a public document, an absent audit.key beside
// keys, and a newest key that is not for alg. Errors never contain what a file
// holds.
func OpenKeys(dir, alg string) (*Keys, error) {
	if alg == "" {
		alg = EdDSA
	}
	if alg != EdDSA && alg != ES256 {
		return nil, fmt.Errorf("signing keys: alg %q: write %s or %s", alg, EdDSA, ES256)
	}
	k := &Keys{dir: filepath.Clean(dir), alg: alg}
	if err := k.open(); err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	return k, nil
}

func (k *Keys) open() error {
	if err := makePrivateDir(k.dir); err != nil {
		return err
	}
	keys, err := readKeys(k.dir)
	if err == nil && len(keys) == 0 {
		// The secret before the key: if this is cut short, the next start
		// finds no key and goes on here.
		if err = createAuditKey(k.dir); err == nil {
			err = createKey(k.dir, k.alg, time.Now().Unix())
		}
		if err == nil {
			keys, err = readKeys(k.dir)
		}
	}
	if err != nil {
		return err
	}
	ring, err := newKeyring(k.dir, keys, k.alg)
	if err != nil {
		return err
	}
	k.held.Store(ring)
	k.audit, err = readAuditKey(k.dir)
	return err
}

// AuditKey is the 32-byte secret of the audit log's HMAC.
func (k *Keys) AuditKey() []byte { return bytes.Clone(k.audit[:]) }

// JWKS is the public set as a broker publishes it (RFC 7517, Section 5): each
// key with kid, alg and "use": "sig".
func (k *Keys) JWKS() []byte { return bytes.Clone(k.held.Load().jwks) }

// WriteJWKS writes the public set to path, mode 0644, in one step.
func (k *Keys) WriteJWKS(path string) error {
	if err := writePublicFile(path, k.held.Load().jwks); err != nil {
		return fmt.Errorf("writing JWK set: %w", err)
	}
	return nil
}

// Public is the public half as it was last read. It does not follow a Reload,
// nor does it end with a key's time: a broker verifies by Verifier.
func (k *Keys) Public() *KeySet { return k.held.Load().public }

// Format keeps the keys out of every %v.
func (k *Keys) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "token.Keys("+k.signer().kid+")")
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
	compact, err := k.signer().sign(Typ, payload)
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
	return k.signer().sign(typ, payload)
}

// signer is the key that signs now.
func (k *Keys) signer() *signingKey { return k.held.Load().signer(time.Now()) }

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
