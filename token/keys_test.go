package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openKeys(t testing.TB, dir, alg string) *Keys {
	t.Helper()
	k, err := OpenKeys(dir, alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyFile(dir string, k *Keys) string { return filepath.Join(dir, k.signer().kid+keySuffix) }

func TestOpenKeysFirstStart(t *testing.T) {
	for _, alg := range []string{EdDSA, ES256} {
		dir := filepath.Join(t.TempDir(), "a", "keys")
		k := openKeys(t, dir, alg)
		names := map[string]os.FileMode{".": 0o700, k.signer().kid + ".jwk": 0o600, "audit.key": 0o600}
		for name, want := range names {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
			}
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("entries %v, %v: want the key and the secret, and no temporary file", entries, err)
		}
		again := openKeys(t, dir+"/", alg)
		if again.signer().kid != k.signer().kid || !bytes.Equal(again.AuditKey(), k.AuditKey()) || !bytes.Equal(again.JWKS(), k.JWKS()) {
			t.Error("the second start reads something else than the first made")
		}
		if len(k.AuditKey()) != 32 {
			t.Errorf("audit key of %d bytes", len(k.AuditKey()))
		}
		k.AuditKey()[0] ^= 1
		k.JWKS()[0] ^= 1
		if !bytes.Equal(again.AuditKey(), k.AuditKey()) || !bytes.Equal(again.JWKS(), k.JWKS()) {
			t.Error("a caller can change the keys")
		}
	}
	if k := openKeys(t, t.TempDir()+"/k", ""); k.signer().alg != EdDSA {
		t.Errorf("default alg %s", k.signer().alg)
	}
	if _, err := OpenKeys(t.TempDir()+"/k", "RS256"); err == nil {
		t.Error("alg RS256")
	}
}

// RFC 8037, Appendix A.3.
func TestKeyIDIsThumbprint(t *testing.T) {
	x, ok := decodeSegment("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if !ok {
		t.Fatal("base64")
	}
	public, _, err := jwkMembers{"kty": "OKP", "crv": "Ed25519", "x": b64.EncodeToString(x)}.publicKey()
	if err != nil {
		t.Fatal(err)
	}
	if kid, err := keyID(public); err != nil || kid != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("kid %q, %v", kid, err)
	}
}

// A first start that was cut short between the secret and the key goes on.
func TestOpenKeysCutShort(t *testing.T) {
	dir := t.TempDir() + "/keys"
	k := openKeys(t, dir, EdDSA)
	if err := os.Remove(keyFile(dir, k)); err != nil {
		t.Fatal(err)
	}
	again := openKeys(t, dir, EdDSA)
	if !bytes.Equal(again.AuditKey(), k.AuditKey()) || again.signer().kid == k.signer().kid {
		t.Error("want the secret of before and a new key")
	}
}

func TestOpenKeysRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir, key string)
		want   string // in the error
		repair bool   // the error ends in a command after which OpenKeys succeeds
	}{
		{"directory open", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o750)) }, "chmod 700", true},
		{"directory writable", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o702)) }, "chmod 700", true},
		{"key readable by group", func(t *testing.T, _, key string) { must(t, os.Chmod(key, 0o640)) }, "chmod 600", true},
		{"key readable by all", func(t *testing.T, _, key string) { must(t, os.Chmod(key, 0o604)) }, "chmod 600", true},
		{"key writable by group", func(t *testing.T, _, key string) { must(t, os.Chmod(key, 0o620)) }, "chmod 600", true},
		{"secret readable", func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir+"/audit.key", 0o644)) }, "chmod 600", true},
		{"key is a link", func(t *testing.T, dir, key string) {
			must(t, os.Rename(key, dir+"/elsewhere"))
			must(t, os.Symlink(dir+"/elsewhere", key))
		}, "symbolic link", true},
		{"key is a dangling link", func(t *testing.T, _, key string) {
			must(t, os.Remove(key))
			must(t, os.Symlink("nowhere", key))
		}, "symbolic link", true},
		{"secret is a link", func(t *testing.T, dir, _ string) {
			must(t, os.Rename(dir+"/audit.key", dir+"/elsewhere"))
			must(t, os.Symlink("elsewhere", dir+"/audit.key"))
		}, "symbolic link", true},
		{"key empty", func(t *testing.T, _, key string) { must(t, os.Truncate(key, 0)) }, " is empty", true},
		{"key cut off", func(t *testing.T, _, key string) { must(t, os.Truncate(key, 40)) }, "not a private JWK", true},
		{"key large", func(t *testing.T, _, key string) { must(t, os.Truncate(key, maxKeyFile+1)) }, "over 4096 bytes", true},
		{"key is a directory", func(t *testing.T, _, key string) {
			must(t, os.Remove(key))
			must(t, os.Mkdir(key, 0o700))
		}, "not a regular file", false},
		{"key under another name", func(t *testing.T, dir, key string) { must(t, os.Rename(key, dir+"/x.jwk")) }, "the name", true},
		{"secret empty", func(t *testing.T, dir, _ string) { must(t, os.Truncate(dir+"/audit.key", 0)) }, " is empty", false},
		{"secret absent", func(t *testing.T, dir, _ string) { must(t, os.Remove(dir+"/audit.key")) }, "absent", true},
		{"secret short", func(t *testing.T, dir, _ string) { must(t, os.Truncate(dir+"/audit.key", 31)) }, "32 random bytes", true},
		{"secret long", func(t *testing.T, dir, _ string) { must(t, os.Truncate(dir+"/audit.key", 33)) }, "over 32 bytes", false},
		{"secret all zero", func(t *testing.T, dir, _ string) {
			must(t, os.WriteFile(dir+"/audit.key", make([]byte, 32), 0o600))
		}, "32 random bytes", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "it's keys") // a path that needs quotes
			k := openKeys(t, dir, EdDSA)
			before, err := os.ReadFile(keyFile(dir, k))
			must(t, err)
			c.damage(t, dir, keyFile(dir, k))
			_, err = OpenKeys(dir, EdDSA)
			if err == nil {
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q in it", err, c.want)
			}
			noSecrets(t, err.Error(), before, k)
			if !c.repair {
				return
			}
			text := err.Error()
			command := text[strings.LastIndex(text, ": ")+2:]
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			if _, err := OpenKeys(dir, EdDSA); err != nil {
				t.Errorf("after %s: %v", command, err)
			}
		})
	}
	t.Run("directory is a link", func(t *testing.T) {
		dir := t.TempDir()
		openKeys(t, dir+"/keys", EdDSA)
		must(t, os.Symlink("keys", dir+"/link"))
		for _, path := range []string{dir + "/link", dir + "/link/"} {
			if _, err := OpenKeys(path, EdDSA); err == nil || !strings.Contains(err.Error(), "readlink -f") {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
	t.Run("directory is a file", func(t *testing.T) {
		path := t.TempDir() + "/file"
		must(t, os.WriteFile(path, nil, 0o600))
		if _, err := OpenKeys(path, EdDSA); err == nil {
			t.Error("opened")
		}
	})
	t.Run("alg", func(t *testing.T) {
		dir := t.TempDir() + "/keys"
		openKeys(t, dir, ES256)
		if _, err := OpenKeys(dir, EdDSA); err == nil || !strings.Contains(err.Error(), "configure ES256") {
			t.Errorf("%v", err)
		}
	})
}

func noSecrets(t *testing.T, text string, file []byte, k *Keys) {
	t.Helper()
	var f privateJWK
	must(t, json.Unmarshal(file, &f))
	for _, secret := range []string{f.D, string(k.AuditKey()), fmt.Sprintf("%x", k.AuditKey()), fmt.Sprint(k.AuditKey())} {
		if strings.Contains(text, strings.Trim(secret, "[]")) {
			t.Errorf("tells a secret: %s", text)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A key file in which one member is another than createKey wrote.
func TestParsePrivateRefuses(t *testing.T) {
	for _, alg := range []string{EdDSA, ES256} {
		dir := t.TempDir() + "/keys"
		data, err := os.ReadFile(keyFile(dir, openKeys(t, dir, alg)))
		must(t, err)
		other := t.TempDir() + "/keys"
		otherData, err := os.ReadFile(keyFile(other, openKeys(t, other, alg)))
		must(t, err)
		if _, err := parsePrivate(data); err != nil {
			t.Fatal(err)
		}
		var foreign map[string]any
		must(t, json.Unmarshal(otherData, &foreign))
		for name, value := range map[string]any{
			"d": foreign["d"], "x": foreign["x"], "kid": foreign["kid"], "alg": "RS256", "use": "enc", "crv": "P-384", "kty": "oct",
			"iat": 0, "key_ops": []string{"sign"},
		} {
			var m map[string]any
			must(t, json.Unmarshal(data, &m))
			m[name] = value
			if _, err := parsePrivate([]byte(toJSON(t, m))); err == nil {
				t.Errorf("%s: %s changed to %v and read", alg, name, value)
			} else if strings.Contains(err.Error(), fmt.Sprint(m["d"])) {
				t.Errorf("%s: the error tells the key: %v", alg, err)
			}
			delete(m, name)
			if _, err := parsePrivate([]byte(toJSON(t, m))); err == nil && name != "key_ops" {
				t.Errorf("%s: read without %s", alg, name)
			}
		}
		// The right alg for another key: an Ed25519 key that says ES256.
		var m map[string]any
		must(t, json.Unmarshal(data, &m))
		m["alg"] = map[string]string{EdDSA: ES256, ES256: EdDSA}[alg]
		if _, err := parsePrivate([]byte(toJSON(t, m))); err == nil {
			t.Errorf("%s key read as %v", alg, m["alg"])
		}
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	path := t.TempDir() + "/f"
	must(t, createPrivateFile(path, []byte("first")))
	if err := createPrivateFile(path, []byte("second")); !os.IsExist(err) && err == nil {
		t.Error("replaced")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "first" {
		t.Errorf("%q, %v", data, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestJWKSIsPublic(t *testing.T) {
	dir := t.TempDir() + "/keys"
	openKeys(t, dir, EdDSA)
	must(t, AddKey(dir, ES256, time.Time{}))
	k := openKeys(t, dir, ES256)
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	must(t, json.Unmarshal(k.JWKS(), &set))
	if len(set.Keys) != 2 {
		t.Fatalf("%d keys", len(set.Keys))
	}
	for _, key := range set.Keys {
		allowed := map[string]bool{"kty": true, "crv": true, "x": true, "y": true, "kid": true, "alg": true, "use": true}
		for name := range key {
			if !allowed[name] {
				t.Errorf("publishes %q", name)
			}
		}
		if key["use"] != "sig" || key["kid"] == "" || key["alg"] != EdDSA && key["alg"] != ES256 {
			t.Errorf("use %q, kid %q, alg %q", key["use"], key["kid"], key["alg"])
		}
	}
	path := dir + "/jwks.json"
	for range 2 { // and replaces it
		must(t, k.WriteJWKS(path))
	}
	data, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if !bytes.Equal(data, k.JWKS()) || info.Mode().Perm() != 0o644 {
		t.Errorf("written with mode %v: %s", info.Mode(), data)
	}
	if err := k.WriteJWKS(dir + "/absent/jwks.json"); err == nil {
		t.Error("written to no directory")
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	dir := t.TempDir() + "/keys"
	k := openKeys(t, dir, EdDSA)
	data, err := os.ReadFile(keyFile(dir, k))
	must(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		noSecrets(t, fmt.Sprintf(verb, k), data, k)
		if got := fmt.Sprintf(verb, k); got != "token.Keys("+k.signer().kid+")" {
			t.Errorf("%s: %s", verb, got)
		}
	}
	//lint:ignore SA9005 that it has nothing to marshal is what is tested
	if b, err := json.Marshal(k); err != nil || string(b) != "{}" {
		t.Errorf("JSON: %s, %v", b, err)
	}
}

// B13: a key that everybody knows, or that nothing random made.
func TestB13KnownKeys(t *testing.T) {
	for name, data := range map[string]string{
		"RFC 8037": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",` +
			`"alg":"EdDSA","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","iat":1800000000}`,
		"RFC 7515": `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",` +
			`"d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI","alg":"ES256","kid":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U","use":"sig","iat":1800000000}`,
	} {
		if _, err := parsePrivate([]byte(data)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, b := range []byte{0, 'A'} {
		seed := bytes.Repeat([]byte{b}, ed25519.SeedSize)
		public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
		kid, err := keyID(public)
		must(t, err)
		more := fmt.Sprintf(`,"alg":"EdDSA","use":"sig","iat":1800000000,"d":%q`, b64.EncodeToString(seed))
		if _, err := parsePrivate([]byte(okpJWK(public, kid, more))); err == nil || !strings.Contains(err.Error(), "over and over") {
			t.Errorf("seed of %q: %v", b, err)
		}
	}
}

// d must be a scalar: a P-256 key of zero would sign nothing that holds.
func TestPrivateKeyScalar(t *testing.T) {
	order := elliptic.P256().Params().N.Bytes()
	for _, d := range [][]byte{make([]byte, 32), order} {
		if _, err := privateKey(ES256, d); err == nil {
			t.Errorf("scalar %x", d)
		}
	}
	if key, err := privateKey(ES256, append(make([]byte, 31), 1)); err != nil || key.(*ecdsa.PrivateKey) == nil {
		t.Errorf("scalar 1: %v", err)
	}
}
