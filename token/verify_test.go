package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	testIssuer   = "https://broker.internal"
	testAudience = "https://reports.internal"
)

var testNow = time.Unix(1_800_000_000, 0).UTC()

// fixture is a broker's keys with their verifier, and the means to forge.
type fixture struct {
	keys     *Keys
	verifier *Verifier
	header   map[string]any // of a good token
	payload  string         // of a good token
}

func newFixture(t testing.TB, alg string) *fixture {
	t.Helper()
	keys, err := OpenKeys(t.TempDir()+"/keys", alg)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(testIssuer, keys.Public())
	if err != nil {
		t.Fatal(err)
	}
	c := testClaims()
	payload, err := json.Marshal(c.wire())
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{
		keys: keys, verifier: v, payload: string(payload),
		header: map[string]any{"alg": alg, "typ": Typ, "kid": keys.signer().kid},
	}
}

func testClaims() Claims {
	return Claims{
		Issuer: testIssuer, Subject: "corp/agent-7", Audience: testAudience,
		ID:       IDPrefix + strings.Repeat("a", 26),
		IssuedAt: testNow, NotBefore: testNow, Expires: testNow.Add(time.Minute),
		Client: "corp/agent-7",
		Act:    &Actor{Issuer: "corp", Subject: "agent-8", Act: &Actor{Issuer: "corp", Subject: "agent-7"}},
		CNF:    Confirmation{Cert: sha256.Sum256([]byte("certificate"))},
		Task:   Task{ID: grants.TaskPrefix + strings.Repeat("b", 26), Kind: "release"},
		Depth:  1, Rev: grants.Rev{Epoch: 3, N: 41},
		Details: []Detail{{
			Type: DetailType, GrantID: grants.GrantPrefix + strings.Repeat("c", 26),
			Tool: "reports/export", ConstraintsDigest: sha256.Sum256([]byte("[]")),
		}},
	}
}

// sign signs any header and payload with the broker's own key: what is then
// refused is refused for what it says.
func (f *fixture) sign(t testing.TB, header, payload string) string {
	t.Helper()
	return f.signSegments(t, encode(header), encode(payload))
}

func (f *fixture) signSegments(t testing.TB, header, payload string) string {
	t.Helper()
	input := header + "." + payload
	sig, err := f.keys.signer().signer.Sign(f.keys.signer().private, []byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64.EncodeToString(sig)
}

func encode(s string) string { return b64.EncodeToString([]byte(s)) }

// headerWith is the good header with one member set, or left out for nil.
func (f *fixture) headerWith(t testing.TB, name string, value any) string {
	t.Helper()
	h := make(map[string]any)
	for k, v := range f.header {
		h[k] = v
	}
	if h[name] = value; value == nil {
		delete(h, name)
	}
	return toJSON(t, h)
}

// payloadWith is the good payload with one claim set to JSON text; "": left
// out.
func (f *fixture) payloadWith(t testing.TB, name, value string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(f.payload), &m); err != nil {
		t.Fatal(err)
	}
	var parts []string
	for k, v := range m {
		if k != name {
			parts = append(parts, toJSON(t, k)+":"+string(v))
		}
	}
	if value != "" {
		parts = append(parts, toJSON(t, name)+":"+value)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f *fixture) want(t *testing.T, name, compact string, want grants.Reason) {
	t.Helper()
	c, got := f.verifier.Verify(compact, testAudience, testNow)
	if got != want {
		t.Errorf("%s: reason %v, want %v", name, got, want)
	}
	if want != grants.None && !cmp.Equal(c, Claims{}) {
		t.Errorf("%s: refused, and yet with claims %+v", name, c)
	}
}

func bothAlgs(t *testing.T, test func(t *testing.T, f *fixture)) {
	for _, alg := range []string{EdDSA, ES256} {
		t.Run(alg, func(t *testing.T) { test(t, newFixture(t, alg)) })
	}
}

func TestMintVerify(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		want := testClaims()
		compact, err := f.keys.Mint(want)
		if err != nil {
			t.Fatal(err)
		}
		got, reason := f.verifier.Verify(compact, testAudience, testNow)
		if reason != grants.None {
			t.Fatalf("reason %v", reason)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("claims (-minted +verified):\n%s", diff)
		}
		if typ, ok := UnverifiedType(compact); typ != Typ || !ok {
			t.Errorf("UnverifiedType = %q, %v", typ, ok)
		}
		// The forger used below makes good tokens too, so what it makes with
		// one thing wrong is refused for that thing.
		f.want(t, "forger", f.sign(t, toJSON(t, f.header), f.payload), grants.None)
		f.want(t, "forger, rebuilt", f.sign(t, f.headerWith(t, "typ", Typ), f.payloadWith(t, "depth", "1")), grants.None)
	})
}

// The names in the token are read by others: RFC 8693, 7800, 8705, 9396.
func TestWireNames(t *testing.T) {
	f := newFixture(t, EdDSA)
	var m map[string]any
	if err := json.Unmarshal([]byte(f.payload), &m); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"iss": testIssuer, "sub": "corp/agent-7", "aud": testAudience, "jti": "j_aaaaaaaaaaaaaaaaaaaaaaaaaa",
		"iat": 1.8e9, "nbf": 1.8e9, "exp": 1.8e9 + 60, "client_id": "corp/agent-7",
		"act":   map[string]any{"iss": "corp", "sub": "agent-8", "act": map[string]any{"iss": "corp", "sub": "agent-7"}},
		"cnf":   map[string]any{"x5t#S256": encodeDigest(sha256.Sum256([]byte("certificate")))},
		"task":  map[string]any{"id": "t_bbbbbbbbbbbbbbbbbbbbbbbbbb", "kind": "release"},
		"depth": 1.0, "rev": "3.41",
		"authorization_details": []any{map[string]any{
			"type": "urn:toolgrant:grant:1", "grant_id": "g_cccccccccccccccccccccccccc", "tool": "reports/export",
			"constraints_digest": fmt.Sprintf("%x", sha256.Sum256([]byte("[]"))),
		}},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	c := testClaims()
	c.CNF, c.Act, c.Client, c.Depth = Confirmation{Key: sha256.Sum256([]byte("key"))}, nil, "", 0
	compact, err := f.keys.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	if got, reason := f.verifier.Verify(compact, testAudience, testNow); reason != grants.None || !cmp.Equal(got, c) {
		t.Errorf("a token bound to a key: %v %v", reason, cmp.Diff(c, got))
	}
}

func TestT01AlgNone(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		for _, alg := range []string{"none", "None", "NONE", "nOnE", "noNe", ""} {
			header := f.headerWith(t, "alg", alg)
			f.want(t, alg+", no signature", encode(header)+"."+encode(f.payload)+".", grants.BadCredential)
			f.want(t, alg+", signed", f.sign(t, header, f.payload), grants.BadCredential)
		}
		good := f.sign(t, toJSON(t, f.header), f.payload)
		f.want(t, "signature cut off", good[:strings.LastIndex(good, ".")+1], grants.BadCredential)
		f.want(t, "signature and dot cut off", good[:strings.LastIndex(good, ".")], grants.BadCredential)
		f.want(t, "alg absent", f.sign(t, f.headerWith(t, "alg", nil), f.payload), grants.BadCredential)
		f.want(t, "alg null", f.sign(t, f.headerWith(t, "alg", json.RawMessage("null")), f.payload), grants.BadCredential)
	})
}

func TestT02PublicKeyAsSecret(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		public := f.keys.signer().private.Public()
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		var raw []byte
		switch k := public.(type) {
		case ed25519.PublicKey:
			raw = k
		case *ecdsa.PublicKey:
			if raw, err = k.Bytes(); err != nil {
				t.Fatal(err)
			}
		}
		var set struct{ Keys []json.RawMessage }
		if err := json.Unmarshal(f.keys.JWKS(), &set); err != nil {
			t.Fatal(err)
		}
		for name, secret := range map[string][]byte{
			"raw": raw, "DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
			"JWK": set.Keys[0], "JWKS": f.keys.JWKS(), "empty": nil,
		} {
			for _, alg := range []string{"HS256", f.keys.signer().alg} {
				input := encode(f.headerWith(t, "alg", alg)) + "." + encode(f.payload)
				mac := hmac.New(sha256.New, secret)
				mac.Write([]byte(input))
				f.want(t, name+" "+alg, input+"."+b64.EncodeToString(mac.Sum(nil)), grants.BadCredential)
			}
		}
	})
}

func TestT03AlgSwapped(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		for _, alg := range []string{"EdDSA", "Ed25519", "eddsa", "ES256", "es256", "ES256K", "ES384", "ES512", "RS256", "PS256", "HS256"} {
			if alg != f.keys.signer().alg {
				f.want(t, alg, f.sign(t, f.headerWith(t, "alg", alg), f.payload), grants.BadCredential)
			}
		}
	})
}

func TestT04EmbeddedKey(t *testing.T) {
	var connections atomic.Int32
	attacker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connections.Add(1)
		_, _ = w.Write([]byte(`{"keys":[]}`))
	}))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, EdDSA)
	own := map[string]string{"kty": "OKP", "crv": "Ed25519", "x": b64.EncodeToString(public)}
	for name, value := range map[string]any{
		"jwk": own, "jku": attacker.URL, "x5u": attacker.URL, "x5c": []string{"MAA="}, "x5t": "AAAA", "x5t#S256": "AAAA",
	} {
		header := f.headerWith(t, name, value)
		f.want(t, name+", our signature", f.sign(t, header, f.payload), grants.BadCredential)
		input := encode(header) + "." + encode(f.payload)
		f.want(t, name+", the attacker's", input+"."+b64.EncodeToString(ed25519.Sign(private, []byte(input))), grants.BadCredential)
	}
	f.want(t, "kid is a URL", f.sign(t, f.headerWith(t, "kid", attacker.URL), f.payload), grants.BadCredential)
	attacker.Close() // waits for what is under way
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to where a token pointed", n)
	}
}

func TestT05KeyID(t *testing.T) {
	f := newFixture(t, EdDSA)
	kid := f.keys.signer().kid
	for name, value := range map[string]any{
		"absent": nil, "empty": "", "unknown": "nobody", "path": "../../dev/null", "own file": kid + keySuffix,
		"SQL": "x' UNION SELECT 'k", "100 kB": strings.Repeat("k", 100_000), "array": []string{kid}, "number": 1,
		"NUL": kid + "\x00", "case": strings.ToUpper(kid), "space": " " + kid,
	} {
		f.want(t, name, f.sign(t, f.headerWith(t, "kid", value), f.payload), grants.BadCredential)
	}
	twice := fmt.Sprintf(`{"alg":%q,"typ":%q,"kid":"nobody","kid":%q}`, EdDSA, Typ, kid)
	f.want(t, "twice", f.sign(t, twice, f.payload), grants.BadCredential)
	folded := fmt.Sprintf(`{"alg":%q,"typ":%q,"KID":"nobody","kid":%q}`, EdDSA, Typ, kid)
	f.want(t, "twice, folded", f.sign(t, folded, f.payload), grants.BadCredential)
}

func TestT06Critical(t *testing.T) {
	f := newFixture(t, EdDSA)
	for name, add := range map[string]string{
		"unknown name": `"crit":["x"],"x":1`, "empty": `"crit":[]`, "null": `"crit":null`, "b64 false": `"crit":["b64"],"b64":false`,
		"b64 true": `"crit":["b64"],"b64":true`, "b64 alone": `"b64":true`, "exp": `"crit":["exp"],"exp":1`,
		"zip": `"zip":"DEF"`, "any other": `"x":1`,
	} {
		header := strings.TrimSuffix(toJSON(t, f.header), "}") + "," + add + "}"
		f.want(t, name, f.sign(t, header, f.payload), grants.BadCredential)
	}
	unencoded := strings.TrimSuffix(toJSON(t, f.header), "}") + `,"crit":["b64"],"b64":false}`
	f.want(t, "unencoded payload", f.signSegments(t, encode(unencoded), "payload"), grants.BadCredential)
	parts := strings.Split(f.sign(t, toJSON(t, f.header), f.payload), ".")
	f.want(t, "detached", parts[0]+".."+parts[2], grants.BadCredential)
	f.want(t, "empty payload, signed", f.signSegments(t, encode(toJSON(t, f.header)), ""), grants.BadCredential)
}

func TestT07OtherSerialisations(t *testing.T) {
	f := newFixture(t, EdDSA)
	good := f.sign(t, toJSON(t, f.header), f.payload)
	parts := strings.Split(good, ".")
	flattened := fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q,"sub":"corp/root"}`, parts[1], parts[0], parts[2])
	// The library's own entry point takes this for a good token.
	if _, err := jws.Verify([]byte(flattened), jws.WithKey(jwa.EdDSA(), f.keys.signer().private.Public())); err != nil {
		t.Fatalf("the flattened form is not what it is to be: %v", err)
	}
	for name, compact := range map[string]string{
		"flattened":           flattened,
		"flattened, encoded":  encode(flattened),
		"general":             fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts[1], parts[0], parts[2]),
		"no signatures":       fmt.Sprintf(`{"payload":%q,"signatures":[]}`, parts[1]),
		"dots in JSON":        `{"payload":"a.b.c"}`,
		"JWE":                 encode(`{"alg":"dir","enc":"A128GCM"}`) + "..AAAA.AAAA.AAAA",
		"JWE header":          f.sign(t, f.headerWith(t, "enc", "A128GCM"), f.payload),
		"nested":              f.sign(t, f.headerWith(t, "cty", "JWT"), good),
		"nested, not said so": f.sign(t, toJSON(t, f.header), good),
		"two tokens":          good + "." + good,
		"bearer":              "Bearer " + good,
		"list":                good + "," + good,
		"empty":               "", "dots": "..", "dot": ".", "space before": " " + good, "space behind": good + " ", "line end": good + "\n", "NUL": good + "\x00",
	} {
		f.want(t, name, compact, grants.BadCredential)
	}
}

func TestT08Size(t *testing.T) {
	f := newFixture(t, EdDSA)
	// White space in the payload pads a good token to any size.
	padded := func(n int) string {
		empty := len(f.sign(t, toJSON(t, f.header), ""))
		return f.sign(t, toJSON(t, f.header), f.payload+strings.Repeat(" ", (n-empty)/4*3-len(f.payload)))
	}
	if fits := padded(MaxBytes); len(fits) > MaxBytes || len(fits) < MaxBytes-4 {
		t.Fatalf("padded to %d bytes", len(fits))
	} else {
		f.want(t, "8,000 bytes", fits, grants.None)
	}
	if over := padded(MaxBytes + 8); len(over) <= MaxBytes {
		t.Fatalf("padded to %d bytes", len(over))
	} else {
		f.want(t, "over 8,000 bytes", over, grants.BadCredential)
	}
	for name, compact := range map[string]string{
		"1 MB": padded(1 << 20), "10^5 dots": strings.Repeat(".", 100_000), "7,999 dots": strings.Repeat(".", 7999),
		"1 MB without a dot": strings.Repeat("a", 1<<20),
	} {
		f.want(t, name, compact, grants.BadCredential)
		allocs := testing.AllocsPerRun(10, func() {
			_, _ = f.verifier.Verify(compact, testAudience, testNow)
			_, _ = UnverifiedIssuer(compact, MaxBytes)
		})
		if allocs > 0 {
			t.Errorf("%s: %v allocations before it is refused", name, allocs)
		}
	}
	// A header has its own bound: 2,048 bytes of base64 are 1,536 of JSON.
	header := toJSON(t, f.header)
	header += strings.Repeat(" ", maxHeader/4*3-len(header))
	f.want(t, "long header", f.sign(t, header, f.payload), grants.None)
	f.want(t, "longer header", f.sign(t, header+" ", f.payload), grants.BadCredential)
	if _, ok := UnverifiedType(f.sign(t, header+" ", f.payload)); ok {
		t.Error("UnverifiedType reads a header that is too long")
	}
	nested := f.payloadWith(t, "act", strings.Repeat(`{"iss":"i","sub":"s","act":`, 200)+"null"+strings.Repeat("}", 200))
	f.want(t, "deep act", f.sign(t, toJSON(t, f.header), nested), grants.BadCredential)
}

func TestT09T10Times(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		sign := func(name, value string) string {
			return f.sign(t, toJSON(t, f.header), f.payloadWith(t, name, value))
		}
		at := func(d time.Duration) string { return fmt.Sprint(testNow.Add(d).Unix()) }
		back := f.payloadWith(t, "nbf", at(-time.Hour))
		old := &fixture{payload: back}
		for _, c := range []struct {
			exp  time.Duration
			want grants.Reason
		}{{-time.Second, grants.ExpiredToken}, {0, grants.ExpiredToken}, {time.Second, grants.None}} {
			f.want(t, "exp at "+c.exp.String(), f.sign(t, toJSON(t, f.header), old.payloadWith(t, "exp", at(c.exp))), c.want)
		}
		for _, name := range []string{"exp", "nbf", "iat"} {
			for _, value := range []string{
				"", "null", `"1800000060"`, "1e400", "-1", "0", "9223372036854775808", "9223372036854775807", "253402300800",
				"18446744075509551676", "1800000060.5", "1800000060.0", "18000000.6e2", "true", "[1800000060]", `{}`, "NaN",
			} {
				f.want(t, name+" "+value, sign(name, value), grants.BadCredential)
			}
		}
		for _, name := range []string{"nbf", "iat"} {
			f.want(t, name+" 5 s ahead", sign(name, at(5*time.Second)), grants.None)
			f.want(t, name+" 6 s ahead", sign(name, at(6*time.Second)), grants.BadCredential)
		}
		f.want(t, "empty window", sign("exp", at(0)), grants.BadCredential)

		// A forged token that is too old is no more than a forged token.
		expired := f.sign(t, toJSON(t, f.header), old.payloadWith(t, "exp", at(-time.Second)))
		f.want(t, "expired, another signature", expired[:len(expired)-86]+strings.Repeat("A", 86), grants.BadCredential)

		compact := sign("exp", at(time.Minute))
		end := testNow.Add(time.Minute)
		if _, reason := f.verifier.Verify(compact, testAudience, end.Add(-time.Nanosecond)); reason != grants.None {
			t.Errorf("1 ns before exp: %v", reason)
		}
		if _, reason := f.verifier.Verify(compact, testAudience, end); reason != grants.ExpiredToken {
			t.Errorf("at exp: %v", reason)
		}
		if task, details := f.verifier.Names(compact); task != testClaims().Task.ID || !cmp.Equal(details, testClaims().Details) {
			t.Errorf("a genuine token names %q %+v", task, details)
		}
		for _, forged := range []string{"", "a.b.c", compact[:len(compact)-86] + strings.Repeat("A", 86), f.sign(t, f.headerWith(t, "typ", "JWT"), f.payload)} {
			if task, details := f.verifier.Names(forged); task != "" || details != nil {
				t.Errorf("%q names %q %+v", forged, task, details)
			}
		}
		if _, reason := f.verifier.Verify(compact, testAudience, testNow.Add(-5*time.Second-time.Nanosecond)); reason != grants.BadCredential {
			t.Errorf("nbf 5 s and 1 ns ahead: %v", reason)
		}
	})
}

func TestT11AudienceIssuer(t *testing.T) {
	f := newFixture(t, EdDSA)
	for _, c := range []struct{ name, value string }{
		{"aud", `"https://other.internal"`}, {"aud", `"https://reports.internal/"`}, {"aud", `"HTTPS://reports.internal"`},
		{"aud", `["https://reports.internal"]`}, {"aud", `["https://other.internal","https://reports.internal"]`},
		{"aud", ""}, {"aud", "null"}, {"aud", `""`}, {"aud", `"https://reports.internal\u0000"`},
		{"iss", `"https://broker.internal/"`}, {"iss", `"https://Broker.internal"`}, {"iss", `"http://broker.internal"`},
		{"iss", ""}, {"iss", "null"}, {"iss", `["https://broker.internal"]`},
	} {
		f.want(t, c.name+" "+c.value, f.sign(t, toJSON(t, f.header), f.payloadWith(t, c.name, c.value)), grants.BadCredential)
	}
	good := f.sign(t, toJSON(t, f.header), f.payload)
	for _, audience := range []string{"", "https://other.internal", testAudience + "/", strings.ToUpper(testAudience)} {
		if _, reason := f.verifier.Verify(good, audience, testNow); reason != grants.BadCredential {
			t.Errorf("presented at %q: %v", audience, reason)
		}
	}
}

func TestT12Type(t *testing.T) {
	f := newFixture(t, EdDSA)
	for _, typ := range []any{nil, "", "JWT", "at+jwt", "dpop+jwt", "Toolgrant+jwt", "application/toolgrant+jwt", "toolgrant+jwt ", "logout+jwt", 1} {
		f.want(t, fmt.Sprint("typ ", typ), f.sign(t, f.headerWith(t, "typ", typ), f.payload), grants.BadCredential)
	}
	// Nor can Sign be talked into one.
	for _, typ := range []string{Typ, strings.ToUpper(Typ), "", "a\nb"} {
		if s, err := f.keys.Sign(typ, []byte(f.payload)); err == nil {
			t.Errorf("Sign(%q) = %q", typ, s)
		}
	}
}

func TestT14Claims(t *testing.T) {
	f := newFixture(t, EdDSA)
	open := strings.TrimSuffix(f.payload, "}")
	for name, payload := range map[string]string{
		"sub twice": open + `,"sub":"corp/root"}`, "sub twice, folded": open + `,"Sub":"corp/root"}`,
		"task twice": open + `,"task":{"id":"t_bbbbbbbbbbbbbbbbbbbbbbbbbb","kind":"x"}}`,
		"escaped":    open + `,"\u0073ub":"corp/root"}`, "long s": open + `,"ſub":"corp/root"}`,
		"unknown claim": open + `,"scope":"all"}`, "trailing": f.payload + "{}", "array": "[" + f.payload + "]", "not JSON": "x", "bad UTF-8": open + ",\"x\":\"\xff\"}",
		"BOM": "\ufeff" + f.payload, "null": "null",
	} {
		f.want(t, name, f.sign(t, toJSON(t, f.header), payload), grants.BadCredential)
	}
	detail := `{"type":"urn:toolgrant:grant:1","grant_id":"g_%s","tool":"reports/export"}`
	details := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(detail, strings.Repeat(string(rune('a'+i)), 26)))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	one := fmt.Sprintf(detail, strings.Repeat("a", 26))
	for _, c := range []struct{ name, value string }{
		{"jti", ""}, {"jti", `"x"`}, {"jti", `"g_aaaaaaaaaaaaaaaaaaaaaaaaaa"`}, {"jti", `"j_AAAAAAAAAAAAAAAAAAAAAAAAAA"`},
		{"sub", ""}, {"sub", `""`}, {"sub", `"` + strings.Repeat("x", maxText+1) + `"`}, {"sub", `"a\nb"`}, {"sub", `"a\u202eb"`}, {"sub", `7`},
		{"client_id", `"a\u0000"`}, {"client_id", "7"},
		{"task", ""}, {"task", "null"}, {"task", `"t"`}, {"task", `{"id":"t_b","kind":"x"}`}, {"task", `{"id":"t_bbbbbbbbbbbbbbbbbbbbbbbbbb"}`},
		{"task", `{"id":"t_bbbbbbbbbbbbbbbbbbbbbbbbbb","kind":"x","end":1}`},
		{"depth", "-1"}, {"depth", "17"}, {"depth", `"1"`}, {"depth", "0.5"},
		{"rev", ""}, {"rev", "7"}, {"rev", `"7"`}, {"rev", `"1.07"`}, {"rev", `"-1.7"`},
		{"act", `{"iss":"corp"}`}, {"act", `{"sub":"x"}`}, {"act", `"x"`}, {"act", `{"iss":"corp","sub":"x","y":1}`},
		{"act", strings.Repeat(`{"iss":"i","sub":"s","act":`, 16) + `{"iss":"i","sub":"s"}` + strings.Repeat("}", 16)},
		{"cnf", `{}`}, {"cnf", `{"jkt":"AAAA"}`}, {"cnf", `{"kid":"x"}`},
		{"cnf", `{"jkt":"AAAA","x5t#S256":"` + strings.Repeat("E", 43) + `"}`},
		{"cnf", `{"x5t#S256":"AAAA","jkt":"` + strings.Repeat("E", 43) + `"}`},
		{"cnf", `{"jkt":"` + strings.Repeat("A", 43) + `"}`},
		{"cnf", `{"jkt":"` + strings.Repeat("B", 43) + `"}`}, // padding bits
		{"cnf", `{"jkt":"` + strings.Repeat("E", 43) + `","x5t#S256":"` + strings.Repeat("E", 43) + `"}`},
		{"authorization_details", ""}, {"authorization_details", "[]"}, {"authorization_details", one}, {"authorization_details", details(17)},
		{"authorization_details", "[" + one + "," + one + "]"},
		{"authorization_details", "[" + strings.Replace(one, "grant:1", "grant:2", 1) + "]"},
		{"authorization_details", "[" + strings.Replace(one, "g_", "t_", 1) + "]"},
		{"authorization_details", "[" + strings.Replace(one, "reports/export", "", 1) + "]"},
		{"authorization_details", "[" + strings.Replace(one, "reports/export", "reports", 1) + "]"},
		{"authorization_details", "[" + strings.Replace(one, "}", `,"actions":[]}`, 1) + "]"},
		{"authorization_details", "[" + strings.Replace(one, "}", `,"constraints_digest":"00"}`, 1) + "]"},
	} {
		f.want(t, c.name+" "+c.value, f.sign(t, toJSON(t, f.header), f.payloadWith(t, c.name, c.value)), grants.BadCredential)
	}
	// Just inside those bounds.
	for _, c := range []struct{ name, value string }{
		{"sub", `"` + strings.Repeat("x", maxText) + `"`},
		{"depth", "16"}, {"depth", "0"}, {"act", ""}, {"cnf", ""}, {"client_id", ""}, {"authorization_details", details(16)},
		{"act", strings.Repeat(`{"iss":"i","sub":"s","act":`, 15) + `{"iss":"i","sub":"s"}` + strings.Repeat("}", 15)},
		{"cnf", `{"jkt":"` + strings.Repeat("E", 43) + `"}`},
	} {
		f.want(t, c.name+" "+c.value, f.sign(t, toJSON(t, f.header), f.payloadWith(t, c.name, c.value)), grants.None)
	}
}

func TestT16Respelt(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		// Sizes for which each segment has bits to spare in its last character.
		for pad := range 3 {
			payload := f.payload + strings.Repeat(" ", pad)
			header := toJSON(t, f.header) + strings.Repeat(" ", pad)
			good := f.sign(t, header, payload)
			f.want(t, "as it was", good, grants.None)
			parts := strings.Split(good, ".")
			for i := range parts {
				respell := func(name, segment string) {
					// Signed over the text as respelt, so that only the spelling
					// can be what refuses it.
					with := []string{parts[0], parts[1], parts[2]}
					with[i] = segment
					f.want(t, fmt.Sprintf("segment %d, %s", i, name), strings.Join(with, "."), grants.BadCredential)
					if i < 2 {
						f.want(t, fmt.Sprintf("segment %d, %s, signed", i, name), f.signSegments(t, with[0], with[1]), grants.BadCredential)
					}
				}
				respell("=", parts[i]+"=")
				respell("==", parts[i]+"==")
				respell("line end", parts[i]+"\n")
				respell("line break", parts[i][:4]+"\r\n"+parts[i][4:])
				respell("space", parts[i]+" ")
				if std := strings.NewReplacer("-", "+", "_", "/").Replace(parts[i]); std != parts[i] {
					respell("standard alphabet", std)
				}
				if n := len(parts[i]) % 4; n != 0 {
					respell("padding bits", setPaddingBit(t, parts[i]))
				}
			}
		}
	})
}

func setPaddingBit(t testing.TB, segment string) string {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(segment) - 1
	out := segment[:last] + string(alphabet[strings.IndexByte(alphabet, segment[last])|1])
	a, err1 := base64.RawURLEncoding.DecodeString(segment)
	b, err2 := base64.RawURLEncoding.DecodeString(out)
	if out == segment || err1 != nil || err2 != nil || string(a) != string(b) {
		t.Fatalf("%q and %q are not two spellings of one text", segment, out)
	}
	return out
}

func TestEveryBitMatters(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		good := []byte(f.sign(t, toJSON(t, f.header), f.payload))
		for i := range good {
			for bit := range 8 {
				good[i] ^= 1 << bit
				if _, reason := f.verifier.Verify(string(good), testAudience, testNow); reason == grants.None {
					t.Errorf("byte %d, bit %d flipped: verified", i, bit)
				}
				good[i] ^= 1 << bit
			}
		}
		f.want(t, "restored", string(good), grants.None)
	})
}

func TestOtherBrokersKey(t *testing.T) {
	ours, theirs := newFixture(t, EdDSA), newFixture(t, EdDSA)
	ours.want(t, "their kid", theirs.sign(t, toJSON(t, theirs.header), theirs.payload), grants.BadCredential)
	ours.want(t, "our kid", theirs.sign(t, toJSON(t, ours.header), theirs.payload), grants.BadCredential)
}

func TestNewVerifierRefuses(t *testing.T) {
	f := newFixture(t, EdDSA)
	if _, err := NewVerifier("", f.keys.Public()); err == nil {
		t.Error("no issuer")
	}
	if _, err := NewVerifier(testIssuer, &KeySet{}); err == nil {
		t.Error("no keys")
	}
	set, err := ParseJWKS([]byte(`{"keys":[` + rsaJWK(t, rsaKey(t, 2048), "r", "") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewVerifier(testIssuer, set); err == nil || !strings.Contains(err.Error(), "RS256") {
		t.Errorf("RS256: %v", err)
	}
	// What a broker publishes is what a node can verify by.
	if set, err = ParseJWKS(f.keys.JWKS()); err != nil {
		t.Fatal(err)
	}
	if f.verifier, err = NewVerifier(testIssuer, set); err != nil {
		t.Fatal(err)
	}
	f.want(t, "by the published keys", f.sign(t, toJSON(t, f.header), f.payload), grants.None)
}

func TestMintRounds(t *testing.T) {
	f := newFixture(t, EdDSA)
	c := testClaims()
	c.IssuedAt, c.NotBefore = testNow.Add(999*time.Millisecond), testNow.Add(time.Nanosecond)
	c.Expires = testNow.Add(time.Minute + 999_999_999)
	compact, err := f.keys.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	got, reason := f.verifier.Verify(compact, testAudience, testNow)
	if reason != grants.None || !got.Expires.Equal(testNow.Add(time.Minute)) || !got.NotBefore.Equal(testNow) || !got.IssuedAt.Equal(testNow) {
		t.Errorf("%v: iat %v nbf %v exp %v", reason, got.IssuedAt, got.NotBefore, got.Expires)
	}
}

func TestMintRefuses(t *testing.T) {
	f := newFixture(t, EdDSA)
	for name, change := range map[string]func(*Claims){
		"nothing":         func(c *Claims) { *c = Claims{} },
		"no end":          func(c *Claims) { c.Expires = time.Time{} },
		"no window":       func(c *Claims) { c.Expires = c.NotBefore.Add(999 * time.Millisecond) },
		"bad UTF-8":       func(c *Claims) { c.Subject = "a\xff" },
		"bad UTF-8, tool": func(c *Claims) { c.Details[0].Tool = "a/\xff" },
		"no grants":       func(c *Claims) { c.Details = nil },
		"jti":             func(c *Claims) { c.ID = "x" },
		"two senders":     func(c *Claims) { c.CNF.Key = c.CNF.Cert },
		"endless actors": func(c *Claims) {
			c.Act.Act.Act = c.Act
		},
	} {
		c := testClaims()
		change(&c)
		if s, err := f.keys.Mint(c); err == nil {
			t.Errorf("%s: minted %q", name, s)
		}
	}
}

func TestMintSize(t *testing.T) {
	f := newFixture(t, EdDSA)
	most := 0
	for n := 880; n <= maxText; n++ { // near the bound
		c := testClaims()
		c.Details = nil
		for i := range 5 {
			d := testClaims().Details[0]
			d.GrantID = grants.GrantPrefix + strings.Repeat(string(rune('a'+i)), 26)
			d.Tool = "r/" + strings.Repeat("x", n)
			if len(d.Tool) <= maxText {
				c.Details = append(c.Details, d)
			}
		}
		if len(c.Details) == 0 {
			break
		}
		compact, err := f.keys.Mint(c)
		if err != nil {
			if errors.Is(err, ErrTooLarge) && most > MaxBytes-50 {
				return // refused just at the bound
			}
			t.Fatalf("%d: %v; longest so far %d", n, err, most)
		}
		if most = len(compact); most >= MaxBytes {
			t.Fatalf("minted %d bytes", most)
		}
		if _, reason := f.verifier.Verify(compact, testAudience, testNow); reason != grants.None {
			t.Fatalf("%d bytes: %v", most, reason)
		}
	}
	t.Fatalf("never refused; longest %d", most)
}

func FuzzVerify(f *testing.F) {
	fix := newFixture(f, EdDSA)
	good := fix.sign(f, toJSON(f, fix.header), fix.payload)
	parts := strings.Split(good, ".")
	for _, seed := range []string{
		good, "", "..", parts[0] + "." + parts[1] + ".", good + "=", strings.Join(parts[:2], "."), `{"payload":""}`,
		encode(`{"alg":"none"}`) + "." + parts[1] + ".",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, compact string) {
		c, reason := fix.verifier.Verify(compact, testAudience, testNow)
		if (reason == grants.None) != (compact == good) {
			t.Errorf("%q: %v", compact, reason)
		}
		if reason != grants.None && !cmp.Equal(c, Claims{}) {
			t.Errorf("%q: refused, and yet with claims", compact)
		}
		typ, ok := UnverifiedType(compact)
		if reason == grants.None && (!ok || typ != Typ) {
			t.Errorf("%q: typ %q, %v", compact, typ, ok)
		}
		if iss, ok := UnverifiedIssuer(compact, MaxBytes); reason == grants.None && (!ok || iss != testIssuer) {
			t.Errorf("%q: iss %q, %v", compact, iss, ok)
		}
		// The claims parser, past the signature.
		if c, err := parseClaims([]byte(compact)); err == nil && c.validate() != nil {
			t.Errorf("%q: claims parsed, and not valid", compact)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	for _, alg := range []string{EdDSA, ES256} {
		b.Run(alg, func(b *testing.B) {
			f := newFixture(b, alg)
			c := testClaims()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.keys.Mint(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{EdDSA, ES256} {
		b.Run(alg, func(b *testing.B) {
			f := newFixture(b, alg)
			compact, err := f.keys.Mint(testClaims())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				f.verifier.known = Cache[*genuine]{}
				if _, reason := f.verifier.Verify(compact, testAudience, testNow); reason != grants.None {
					b.Fatal(reason)
				}
			}
		})
		b.Run(alg+"/known", func(b *testing.B) {
			f := newFixture(b, alg)
			compact, err := f.keys.Mint(testClaims())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, reason := f.verifier.Verify(compact, testAudience, testNow); reason != grants.None {
					b.Fatal(reason)
				}
			}
		})
	}
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
