package token

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

// Grace is how long after a key's "iat" the process that signs may go on with
// the key before it: Reload within that time, and no token ends before its exp.
const Grace = time.Minute

// keyring is one reading of a directory of keys; it never changes.
type keyring struct {
	keys   []*signingKey // as they come to sign: by iat, then kid; at least one
	public *KeySet
	jwks   []byte
}

// newKeyring refuses keys of which the newest is not for alg: to sign with
// another than was configured is a surprise, to go on with an old key another.
func newKeyring(dir string, keys []*signingKey, alg string) (*keyring, error) {
	slices.SortFunc(keys, func(a, b *signingKey) int {
		return cmp.Or(cmp.Compare(a.issuedAt, b.issuedAt), cmp.Compare(a.kid, b.kid))
	})
	if newest := keys[len(keys)-1]; newest.alg != alg {
		file := filepath.Join(dir, newest.kid+keySuffix)
		return nil, repair(fmt.Sprintf("%s, the newest key, is for %s and the configuration says %s; configure %s, or retire the key", file, newest.alg, alg, newest.alg),
			"mv", file, file+".retired")
	}
	r := &keyring{keys: keys, public: &KeySet{keys: make(map[string]record, len(keys))}}
	set := jwk.NewSet()
	for i, key := range keys {
		rec, err := newRecord(key.alg, key.private.Public())
		if err != nil {
			return nil, err
		}
		if i+1 < len(keys) {
			rec.succeeded = unix(keys[i+1].issuedAt)
		}
		r.public.keys[key.kid] = rec
		entry, err := newJWK(rec.public, key.kid, key.alg)
		if err != nil {
			return nil, err
		}
		if err := set.AddKey(entry); err != nil {
			return nil, err
		}
	}
	var err error
	r.jwks, err = json.Marshal(set)
	return r, err
}

// signer is the last key whose time has come. Before all of them (the clock
// was set back) it is the first: what it signs verifies longest ago.
func (r *keyring) signer(now time.Time) *signingKey {
	for _, key := range slices.Backward(r.keys) {
		if key.issuedAt <= now.Unix() {
			return key
		}
	}
	return r.keys[0]
}

func (r *keyring) equal(o *keyring) bool {
	return slices.EqualFunc(r.keys, o.keys, func(a, b *signingKey) bool {
		return a.kid == b.kid && a.issuedAt == b.issuedAt
	})
}

// AddKey makes one more key for alg (as in OpenKeys) in the directory of keys
// that OpenKeys accepts. It signs from begin on, or from now if that is past or
// zero, in whole seconds and at least one after the key before it. With a begin
// that lies ahead, verifiers with a copy of the JWKS get to know the key before
// they meet its tokens.
func AddKey(dir, alg string, begin time.Time) error {
	if alg == "" {
		alg = EdDSA
	}
	dir = filepath.Clean(dir)
	if err := addKey(dir, alg, max(time.Now().Unix(), begin.Unix())); err != nil {
		return fmt.Errorf("add signing key: %w", err)
	}
	return nil
}

func addKey(dir, alg string, issuedAt int64) error {
	if err := checkPrivateDir(dir); err != nil {
		return err
	}
	keys, err := readKeys(dir)
	if err != nil {
		return err
	}
	switch {
	case len(keys) == 0:
		return fmt.Errorf("%s holds none yet; the first start makes it", dir)
	case len(keys) == maxKeys:
		return fmt.Errorf("%s holds %d keys; remove those whose last token has expired", dir, maxKeys)
	}
	// Whatever the clock says, it is later than those before it.
	for _, key := range keys {
		issuedAt = max(issuedAt, key.issuedAt+1)
	}
	return createKey(dir, alg, issuedAt)
}

// Reload reads the directory's keys anew, by the rules of OpenKeys, but makes
// nothing. On an error the keys that were read before stay in force.
func (k *Keys) Reload() (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ring, err := k.reread()
	if err != nil {
		return false, fmt.Errorf("signing keys: %w", err)
	}
	// Equal keys stay one key set, so that what was verified by it stays known.
	if ring.equal(k.held.Load()) {
		return false, nil
	}
	k.held.Store(ring)
	return true, nil
}

func (k *Keys) reread() (*keyring, error) {
	if err := checkPrivateDir(k.dir); err != nil {
		return nil, err
	}
	keys, err := readKeys(k.dir)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New(k.dir + " holds no key")
	}
	return newKeyring(k.dir, keys, k.alg)
}

// Verifier verifies the tokens that these keys mint, by the keys of the last
// Reload. longest is the longest time that a grant may last: what a key has
// signed verifies until its successor's begin, longest and Grace, and then
// never, whatever its exp.
func (k *Keys) Verifier(issuer string, longest time.Duration) (*Verifier, error) {
	if issuer == "" || longest <= 0 {
		return nil, errors.New("token verifier: no issuer, or no longest time of a grant")
	}
	return &Verifier{issuer: issuer, keys: k.Public, keep: longest + Grace}, nil
}
