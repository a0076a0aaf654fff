package token

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/toolgrant/toolgrant/grants"
)

// vectors is a file of C2SP/wycheproof; the module carries them.
type vectors struct {
	NumberOfTests int
	TestGroups    []struct {
		Comment      string
		Public       json.RawMessage // a JWK, or a set of them; of JWS vectors
		Private      json.RawMessage
		PublicKeyJWK json.RawMessage               // of vectors of bare signatures, mostly
		KeyJWK       json.RawMessage               // the same for RSA
		PublicKey    struct{ Uncompressed string } // a point, in hex
		Tests        []struct {
			TcID     int
			Comment  string
			Result   string // valid, invalid or acceptable
			JWS      any    // a string; an object in JSON serialisation
			Msg, Sig string // hex
		}
	}
}

func readVectors(t *testing.T, name string) vectors {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name)
	must(t, err)
	var v vectors
	must(t, json.Unmarshal(data, &v))
	return v
}

// asSet makes a JWK Set of a key, or of a set.
func asSet(key json.RawMessage) []byte {
	var set struct{ Keys json.RawMessage }
	if json.Unmarshal(key, &set) == nil && set.Keys != nil {
		return key
	}
	return slices.Concat([]byte(`{"keys":[`), key, []byte(`]}`))
}

// No JWS that is invalid verifies with the key it comes with, and each valid
// one does whose algorithm is ours.
func TestWycheproofJWS(t *testing.T) {
	for _, file := range []struct {
		name     string
		accepted int // of the valid ones
	}{
		{"json_web_signature_test.json", 10}, {"json_web_key_test.json", 1}, {"json_web_crypto_test.json", 2},
	} {
		v := readVectors(t, file.name)
		var run, accepted int
		for _, g := range v.TestGroups {
			key := g.Public
			if key == nil {
				key = g.Private // of a symmetric key there is no public half
			}
			set, err := ParseJWKS(asSet(key))
			if err != nil {
				set = &KeySet{} // refused with all its tokens, which is checked by those that are valid
			}
			for _, c := range g.Tests {
				run++
				name := fmt.Sprintf("%s %d (%s, %s)", file.name, c.TcID, g.Comment, c.Comment)
				compact, ok := c.JWS.(string)
				if !ok {
					compact = toJSON(t, c.JWS) // JSON serialisation: as a client would send it
				}
				_, header, reason := set.VerifyCompact(compact, 16<<10, anyType)
				switch {
				case reason == grants.None && c.Result != "valid":
					t.Errorf("%s: accepted", name)
				case reason == grants.None:
					accepted++
				case c.Result == "valid" && err == nil && slices.Contains([]string{EdDSA, ES256, rs256}, claimedAlg(compact)):
					t.Errorf("%s: refused", name)
				}
				if (reason == grants.None) != (header.Alg != "") {
					t.Errorf("%s: %v, header %+v", name, reason, header)
				}
			}
		}
		if run != v.NumberOfTests || accepted != file.accepted {
			t.Errorf("%s: %d of %d run, %d accepted; want %d", file.name, run, v.NumberOfTests, accepted, file.accepted)
		}
	}
}

func claimedAlg(compact string) string {
	p, _ := parseCompact(compact, 16<<10)
	return p.unverifiedHeader.Alg
}

// Bare signatures, in the form that a JWS holds, by the code that verifies it.
// Their messages are not those of a JWS, so they pass by its parser.
func TestWycheproofSignatures(t *testing.T) {
	for name, alg := range map[string]string{
		"ed25519_test.json": EdDSA, "ecdsa_secp256r1_sha256_p1363_test.json": ES256, "rsa_signature_2048_sha256_test.json": rs256,
	} {
		v := readVectors(t, name)
		run := 0
		for _, g := range v.TestGroups {
			key := slices.Concat(g.PublicKeyJWK, g.KeyJWK)
			if len(key) == 0 {
				point, err := hex.DecodeString(g.PublicKey.Uncompressed)
				must(t, err)
				key = fmt.Appendf(nil, `{"kty":"EC","crv":"P-256","kid":"1","x":%q,"y":%q}`, b64.EncodeToString(point[1:33]), b64.EncodeToString(point[33:]))
			}
			set, err := ParseJWKS(asSet(key))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, key := range set.keys {
				if key.alg != alg {
					t.Fatalf("%s: a key for %s", name, key.alg)
				}
				for _, c := range g.Tests {
					run++
					msg, err1 := hex.DecodeString(c.Msg)
					sig, err2 := hex.DecodeString(c.Sig)
					if err1 != nil || err2 != nil {
						t.Fatalf("%s %d: %v, %v", name, c.TcID, err1, err2)
					}
					// "acceptable" is what older standards let pass.
					if got := key.signed(msg, sig); got != (c.Result == "valid") && c.Result != "acceptable" {
						t.Errorf("%s %d (%s): %v, want %s", name, c.TcID, c.Comment, got, c.Result)
					}
				}
			}
		}
		if run != v.NumberOfTests {
			t.Errorf("%s: %d of %d run", name, run, v.NumberOfTests)
		}
	}
}
