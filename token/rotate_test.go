package token

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

const longest = 15 * time.Minute

// claimsNow are good claims whose window begins now and lasts as long as may be.
func claimsNow(ttl time.Duration) Claims {
	c := testClaims()
	now := time.Now()
	c.IssuedAt, c.NotBefore, c.Expires = now, now, now.Add(ttl)
	return c
}

func mint(t testing.TB, k *Keys, c Claims) string {
	t.Helper()
	compact, err := k.Mint(c)
	must(t, err)
	return compact
}

func reload(t testing.TB, k *Keys, want bool) {
	t.Helper()
	if changed, err := k.Reload(); err != nil || changed != want {
		t.Fatalf("Reload = %v, %v; want %v", changed, err, want)
	}
}

// B13, T05: keys change under a verifier that goes on. Time is the bubble's.
func TestB13T05Rotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "keys")
		k := openKeys(t, dir, EdDSA)
		v, err := k.Verifier(testIssuer, longest)
		must(t, err)
		verifies := func(name, compact string, want grants.Reason) {
			t.Helper()
			for range 2 { // the second time it may be known
				if _, reason := v.Verify(compact, testAudience, time.Now()); reason != want {
					t.Errorf("%s: %v, want %v", name, reason, want)
				}
			}
		}
		first := k.signer().kid
		begin := time.Now().Add(30 * time.Second)
		must(t, AddKey(dir, EdDSA, begin))
		reload(t, k, true)
		reload(t, k, false)
		if k.Public().Len() != 2 || strings.Count(string(k.JWKS()), `"kid"`) != 2 {
			t.Error("the key to come is not published")
		}
		time.Sleep(time.Until(begin) - time.Second)
		if got := k.signer().kid; got != first {
			t.Errorf("%s signs before its time", got)
		}
		old := mint(t, k, claimsNow(longest))
		time.Sleep(time.Second)
		second := k.signer().kid
		if second == first {
			t.Error("the new key does not sign when its time has come")
		}
		// A process that reads the directory later signs with the old one yet.
		late := &Keys{}
		late.held.Store(&keyring{keys: k.held.Load().keys[:1]})
		time.Sleep(Grace - time.Second)
		lateToken := mint(t, late, claimsNow(longest))
		forever := mint(t, late, claimsNow(1000*time.Hour)) // by who has taken the old key
		verifies("old", old, grants.None)
		verifies("late", lateToken, grants.None)
		verifies("forever", forever, grants.None)

		time.Sleep(longest) // a second is left
		verifies("old", old, grants.ExpiredToken)
		verifies("late, at its exp", lateToken, grants.ExpiredToken)
		verifies("forever, known", forever, grants.None)
		time.Sleep(time.Second)
		verifies("forever, of a retired key", forever, grants.BadCredential)
		verifies("new", mint(t, k, claimsNow(longest)), grants.None)

		// Opened anew, it is as retired as before.
		if v, err = openKeys(t, dir, EdDSA).Verifier(testIssuer, longest); err != nil {
			t.Fatal(err)
		}
		verifies("forever, after a new start", forever, grants.BadCredential)
	})
}

// A key that has become known is taken away: its tokens end at once, those too
// that were verified before.
func TestB13T05KeyTakenAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k := openKeys(t, dir, EdDSA)
	v, err := k.Verifier(testIssuer, longest)
	must(t, err)
	file := keyFile(dir, k)
	compact := mint(t, k, claimsNow(longest))
	check := func(want grants.Reason) {
		t.Helper()
		if _, reason := v.Verify(compact, testAudience, time.Now()); reason != want {
			t.Errorf("%v, want %v", reason, want)
		}
	}
	check(grants.None)
	must(t, AddKey(dir, EdDSA, time.Time{}))
	must(t, os.Rename(file, file+".retired"))
	check(grants.None) // not read yet
	reload(t, k, true)
	check(grants.BadCredential)
	if k.Public().Len() != 1 || k.signer().kid == strings.TrimSuffix(filepath.Base(file), keySuffix) {
		t.Error("the key that is gone signs")
	}
	must(t, os.Rename(file+".retired", file))
	reload(t, k, true)
	check(grants.None)
}

// What Reload cannot read changes nothing, and says what is wrong.
func TestReloadKeepsTheLastGood(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k := openKeys(t, dir, EdDSA)
	file := keyFile(dir, k)
	for name, c := range map[string]struct {
		damage, mend func() error
		want         string
	}{
		"no key":    {func() error { return os.Rename(file, file+".x") }, func() error { return os.Rename(file+".x", file) }, "holds no key"},
		"readable":  {func() error { return os.Chmod(file, 0o644) }, func() error { return os.Chmod(file, 0o600) }, "chmod 600"},
		"directory": {func() error { return os.Chmod(dir, 0o755) }, func() error { return os.Chmod(dir, 0o700) }, "chmod 700"},
		"junk":      {func() error { return os.WriteFile(dir+"/x.jwk", []byte("{}"), 0o600) }, func() error { return os.Remove(dir + "/x.jwk") }, "x.jwk"},
	} {
		before := k.held.Load()
		must(t, c.damage())
		changed, err := k.Reload()
		if changed || err == nil || !strings.Contains(err.Error(), c.want) || k.held.Load() != before {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
		must(t, c.mend())
		reload(t, k, false)
	}
	must(t, AddKey(dir, ES256, time.Time{}))
	if _, err := k.Reload(); err == nil || !strings.Contains(err.Error(), "configure ES256") {
		t.Errorf("newest of another alg: %v", err)
	}
}

func TestAddKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	openKeys(t, dir, EdDSA)
	// Several within one second: each is later than the one before.
	for range 3 {
		must(t, AddKey(dir, EdDSA, time.Time{}))
	}
	must(t, AddKey(dir, ES256, time.Time{}))
	if _, err := OpenKeys(dir, EdDSA); err == nil {
		t.Error("the newest key is for ES256")
	}
	ring := openKeys(t, dir, ES256).held.Load()
	for i, key := range ring.keys {
		next := ring.public.keys[key.kid].succeeded
		if last := i == len(ring.keys)-1; last != next.IsZero() || !last && (next.Unix() != ring.keys[i+1].issuedAt || next.Unix() <= key.issuedAt) {
			t.Errorf("key %d of %d: succeeded %v", i, len(ring.keys), next)
		}
	}
	if err := AddKey(t.TempDir()+"/absent", EdDSA, time.Time{}); err == nil {
		t.Error("added to no directory")
	}
	empty := t.TempDir()
	must(t, os.Chmod(empty, 0o700))
	if err := AddKey(empty, EdDSA, time.Time{}); err == nil {
		t.Error("added where there is no audit secret")
	}
	must(t, os.Chmod(dir, 0o755))
	if err := AddKey(dir, EdDSA, time.Time{}); err == nil {
		t.Error("added to a directory that others read")
	}
	must(t, os.Chmod(dir, 0o700))
	for len(ring.keys) < maxKeys {
		must(t, AddKey(dir, ES256, time.Time{}))
		ring = openKeys(t, dir, ES256).held.Load()
	}
	if err := AddKey(dir, ES256, time.Time{}); err == nil {
		t.Error("added one that OpenKeys would refuse")
	}
}

// Of two keys of one second, the kid decides, whatever the order of reading;
// before all keys' time the first signs.
func TestSignerIsDetermined(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k := openKeys(t, dir, EdDSA)
	first, at := k.signer(), time.Now().Add(time.Hour)
	for range 4 {
		must(t, createKey(dir, EdDSA, at.Unix()))
	}
	reload(t, k, true)
	ring := k.held.Load()
	got := ring.signer(at)
	for _, key := range ring.keys {
		if key.issuedAt == at.Unix() && key.kid > got.kid {
			t.Errorf("%s signs, and %s sorts behind it", got.kid, key.kid)
		}
	}
	if got.issuedAt != at.Unix() {
		t.Error("an older key signs")
	}
	for _, when := range []time.Time{at.Add(-time.Second), time.Unix(1, 0)} {
		if got := ring.signer(when); got.kid != first.kid {
			t.Errorf("at %v %s signs", when, got.kid)
		}
	}
}

func TestKeysVerifierRefuses(t *testing.T) {
	k := openKeys(t, t.TempDir()+"/keys", EdDSA)
	if _, err := k.Verifier("", longest); err == nil {
		t.Error("no issuer")
	}
	if _, err := k.Verifier(testIssuer, 0); err == nil {
		t.Error("no longest time: a key would be retired at once, or never")
	}
}
