package identity

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

const (
	corpURL  = "https://idp.example"
	otherURL = "https://other.example"
)

var testNow = time.Unix(1_800_000_000, 0).UTC()

// testKey signs by the standard library alone, as an issuer that is not ours.
type testKey struct {
	kid     string
	private ed25519.PrivateKey
}

func newTestKey(t testing.TB, kid string) testKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{kid, private}
}

func (k testKey) jwks() string {
	x := base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, k.kid, x)
}

func (k testKey) header(more string) string {
	return fmt.Sprintf(`{"alg":"EdDSA","kid":%q%s}`, k.kid, more)
}

func (k testKey) sign(header, payload string) string {
	input := encode(header) + "." + encode(payload)
	return input + "." + encode(string(ed25519.Sign(k.private, []byte(input))))
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func writeFile(t testing.TB, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newVerifier trusts corp and other; both call their key "1".
func newVerifier(t testing.TB) (v *Verifier, corp, other testKey) {
	t.Helper()
	corp, other = newTestKey(t, "1"), newTestKey(t, "1")
	v, err := New(Config{Issuers: []Issuer{
		{Alias: "corp", URL: corpURL, JWKSFile: writeFile(t, corp.jwks()), Audience: "toolgrant", Groups: map[string]string{"Orchestrators": "orchestrators", "CI": "ci", "Builders": "ci"}},
		{Alias: "other", URL: otherURL, JWKSFile: writeFile(t, other.jwks()), Audience: "grants", GroupsClaim: "roles"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return v, corp, other
}

// payload is a good one with claims set to JSON text, or left out for "".
func payload(t testing.TB, set ...string) string {
	t.Helper()
	m := map[string]json.RawMessage{
		"iss": json.RawMessage(`"` + corpURL + `"`), "sub": json.RawMessage(`"agent-7"`), "aud": json.RawMessage(`"toolgrant"`),
		"exp": json.RawMessage("1800000060"), "iat": json.RawMessage("1800000000"), "nbf": json.RawMessage("1800000000"),
		"jti": json.RawMessage(`"n-1"`), "groups": json.RawMessage(`["Orchestrators","auditors","CI","Builders"]`),
		"azp": json.RawMessage(`"ci"`), "email": json.RawMessage(`"x@example.com"`),
	}
	for i := 0; i < len(set); i += 2 {
		if m[set[i]] = json.RawMessage(set[i+1]); set[i+1] == "" {
			delete(m, set[i])
		}
	}
	var parts []string
	for name, value := range m { // not Marshal, which would refuse what is to be tested
		parts = append(parts, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func want(t *testing.T, v *Verifier, name, compact string, want grants.Reason) {
	t.Helper()
	got, reason := v.Verify(compact, testNow)
	if reason != want {
		t.Errorf("%s: reason %v, want %v", name, reason, want)
	}
	if want != grants.None && !cmp.Equal(got, Verified{}) {
		t.Errorf("%s: refused, and yet %+v", name, got)
	}
}

func TestVerify(t *testing.T) {
	v, corp, other := newVerifier(t)
	compact := corp.sign(corp.header(`,"typ":"JWT"`), payload(t))
	got, reason := v.Verify(compact, testNow)
	if reason != grants.None {
		t.Fatalf("reason %v", reason)
	}
	if diff := cmp.Diff(Verified{
		Principal: grants.Principal{Issuer: "corp", Subject: "agent-7", Groups: []string{"ci", "corp/auditors", "orchestrators"}},
		Audiences: []string{"toolgrant"}, Issuer: "corp", Expires: testNow.Add(time.Minute), JTI: "n-1", Party: "ci",
		Digest: sha256.Sum256([]byte(compact)),
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.For("toolgrant") || got.For("Toolgrant") || got.For("") || got.For("toolgrant/") {
		t.Error("For")
	}
	if (Verified{Audiences: []string{""}}).For("") {
		t.Error("no audience is an audience")
	}

	// A SPIFFE id as sub, two audiences, groups in another claim and unmapped:
	// "Orchestrators" of an issuer that does not map it stays its own.
	got, reason = v.Verify(other.sign(other.header(""), payload(t, "iss", `"`+otherURL+`"`, "sub", `"spiffe://example.org/agent"`,
		"aud", `["a","b"]`, "roles", `["Orchestrators","Orchestrators"]`, "jti", "", "iat", "", "nbf", "")), testNow)
	if reason != grants.None {
		t.Fatalf("reason %v", reason)
	}
	if got.Principal.ID() != "other/spiffe://example.org/agent" || !cmp.Equal(got.Principal.Groups, []string{"other/Orchestrators"}) ||
		!got.For("a") || !got.For("b") || got.JTI != "" || got.Issuer != "other" {
		t.Errorf("%+v", got)
	}
	for alias, want := range map[string]string{"corp": "toolgrant", "other": "grants", "nobody": ""} {
		if aud, ok := v.BrokerAudience(alias); aud != want || ok != (want != "") {
			t.Errorf("BrokerAudience(%q) = %q, %v", alias, aud, ok)
		}
	}
	if got := v.KnownGroups(); !cmp.Equal(got, []string{"ci", "orchestrators"}) {
		t.Errorf("KnownGroups = %q", got)
	}
}

func TestParty(t *testing.T) {
	v, corp, _ := newVerifier(t)
	for _, c := range []struct{ azp, client, want string }{{`"a"`, `"b"`, "a"}, {"", `"b"`, "b"}, {`"a"`, "", "a"}, {"", "", ""}} {
		got, reason := v.Verify(corp.sign(corp.header(""), payload(t, "azp", c.azp, "client_id", c.client)), testNow)
		if reason != grants.None || got.Party != c.want {
			t.Errorf("azp %s, client_id %s: %v, party %q", c.azp, c.client, reason, got.Party)
		}
	}
}

// What is known of a token's text does not outlive its time, its key, or the
// text itself.
func TestKnownTokens(t *testing.T) {
	v, corp, _ := newVerifier(t)
	good := corp.sign(corp.header(""), payload(t))
	parts := strings.Split(good, ".")
	for range 2 {
		want(t, v, "genuine", good, grants.None)
		want(t, v, "another payload, its signature", parts[0]+"."+encode(payload(t, "sub", `"root"`))+"."+parts[2], grants.BadCredential)
		want(t, v, "another header, its signature", encode(corp.header(`,"typ":"JWT"`))+"."+parts[1]+"."+parts[2], grants.BadCredential)
		want(t, v, "its payload, another signature", parts[0]+"."+parts[1]+"."+encode(strings.Repeat("x", 64)), grants.BadCredential)
	}
	end := testNow.Add(time.Minute)
	for _, c := range []struct {
		now  time.Time
		want grants.Reason
	}{{end, grants.ExpiredToken}, {testNow.Add(-6 * time.Second), grants.BadCredential}, {testNow, grants.None}} {
		if _, reason := v.Verify(good, c.now); reason != c.want {
			t.Errorf("at %v: %v, want %v", c.now, reason, c.want)
		}
	}
	if _, known := v.known.Get(token.TextDigest(good)); !known {
		t.Error("it was not known, so that nothing was tested")
	}
	if _, known := v.known.Get(token.TextDigest(parts[0] + "." + parts[1] + "." + encode(strings.Repeat("x", 64)))); known {
		t.Error("a failure is known")
	}
	// What one caller does with it is not what the next one gets.
	got, _ := v.Verify(good, testNow)
	got.Principal.Groups[0], got.Audiences[0] = "orchestrators", "x"
	if again, _ := v.Verify(good, testNow); again.Principal.Groups[0] != "ci" || again.Audiences[0] != "toolgrant" {
		t.Errorf("shared with another caller: %+v", again)
	}
	// Its key is taken away, and comes back.
	iss, before := v.byURL[corpURL], v.byURL[corpURL].held.Load()
	file := func(data string) {
		t.Helper()
		if err := os.WriteFile(iss.JWKSFile, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if changed, err := iss.refresh(t.Context(), testNow); err != nil || !changed {
			t.Fatalf("refresh: %v, %v", changed, err)
		}
	}
	file(newTestKey(t, "1").jwks())
	want(t, v, "of a key that is gone", good, grants.BadCredential)
	file(string(before.data))
	want(t, v, "of a key that is back", good, grants.None)
}

// The keys of one issuer do not speak for another, whatever their kid.
func TestIssuersApart(t *testing.T) {
	v, corp, other := newVerifier(t)
	want(t, v, "corp's token by other's key", other.sign(other.header(""), payload(t)), grants.BadCredential)
	want(t, v, "other's token by corp's key", corp.sign(corp.header(""), payload(t, "iss", `"`+otherURL+`"`)), grants.BadCredential)
	for _, iss := range []string{`"https://idp.example/"`, `"https://IDP.example"`, `"http://idp.example"`, `"corp"`, `""`, "", "null", `["https://idp.example"]`} {
		want(t, v, "iss "+iss, corp.sign(corp.header(""), payload(t, "iss", iss)), grants.BadCredential)
	}
	twice := strings.TrimSuffix(payload(t), "}") + `,"iss":"` + otherURL + `"}`
	want(t, v, "iss twice", corp.sign(corp.header(""), twice), grants.BadCredential)
	want(t, v, "iss twice, by other", other.sign(other.header(""), twice), grants.BadCredential)
	none, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, none, "no issuers", corp.sign(corp.header(""), payload(t)), grants.BadCredential)
}

func TestForgeries(t *testing.T) {
	v, corp, _ := newVerifier(t)
	stranger := newTestKey(t, "1")
	want(t, v, "control", corp.sign(corp.header(""), payload(t)), grants.None)
	want(t, v, "stranger", stranger.sign(stranger.header(""), payload(t)), grants.BadCredential)
	for _, alg := range []string{"none", "None", "nOnE", "", "HS256", "ES256", "Ed25519", "eddsa", "RS256"} {
		header := fmt.Sprintf(`{"alg":%q,"kid":"1"}`, alg)
		want(t, v, "alg "+alg, corp.sign(header, payload(t)), grants.BadCredential)
		want(t, v, "unsigned, alg "+alg, encode(header)+"."+encode(payload(t))+".", grants.BadCredential)
	}
	input := encode(`{"alg":"HS256","kid":"1"}`) + "." + encode(payload(t))
	mac := hmac.New(sha256.New, corp.private.Public().(ed25519.PublicKey))
	mac.Write([]byte(input))
	want(t, v, "public key as secret", input+"."+encode(string(mac.Sum(nil))), grants.BadCredential)

	var connections atomic.Int32
	attacker := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { connections.Add(1) }))
	for _, more := range []string{
		`,"jku":"` + attacker.URL + `"`, `,"x5u":"` + attacker.URL + `"`, `,"x5c":["MAA="]`, `,"jwk":{"kty":"OKP"}`,
		`,"crit":[]`, `,"crit":["exp"],"exp":1`, `,"b64":false`, `,"zip":"DEF"`, `,"cty":"JWT"`, `,"kid":"2"`, `,"Kid":"2"`,
	} {
		want(t, v, more, corp.sign(corp.header(more), payload(t)), grants.BadCredential)
		want(t, v, "stranger "+more, stranger.sign(stranger.header(more), payload(t)), grants.BadCredential)
	}
	want(t, v, "iss is the attacker's", stranger.sign(stranger.header(""), payload(t, "iss", `"`+attacker.URL+`"`)), grants.BadCredential)
	for _, kid := range []string{"", "2", "../1", "1\x00", attacker.URL, strings.Repeat("1", 100_000)} {
		want(t, v, "kid", corp.sign(fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, kid), payload(t)), grants.BadCredential)
	}
	attacker.Close()
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to where a token pointed", n)
	}

	good := corp.sign(corp.header(""), payload(t))
	parts := strings.Split(good, ".")
	for name, compact := range map[string]string{
		"empty": "", "dots": strings.Repeat(".", 100_000), "1 MB": strings.Repeat("a", 1<<20), "=": good + "=", "space": good + " ", "line end": good + "\n",
		"flattened": fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2]),
		"JWE":       parts[0] + "." + good + ".AAAA", "twice": good + "." + good, "detached": parts[0] + ".." + parts[2],
		"too long": corp.sign(corp.header(""), payload(t)+strings.Repeat(" ", MaxBytes)),
	} {
		want(t, v, name, compact, grants.BadCredential)
	}
	flipped := []byte(good)
	for i := range flipped {
		flipped[i] ^= 1
		if _, reason := v.Verify(string(flipped), testNow); reason == grants.None {
			t.Errorf("byte %d flipped: verified", i)
		}
		flipped[i] ^= 1
	}
}

func TestTypes(t *testing.T) {
	v, corp, _ := newVerifier(t)
	for _, typ := range []string{"", "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"} {
		want(t, v, "typ "+typ, corp.sign(corp.header(fmt.Sprintf(`,"typ":%q`, typ)), payload(t)), grants.None)
	}
	want(t, v, "x5t", corp.sign(corp.header(`,"x5t":"AAAA"`), payload(t)), grants.None)
	for _, typ := range []string{"toolgrant+jwt", "Toolgrant+JWT", "dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "JWT ", "JOSE", "JWE", "application/jwt"} {
		want(t, v, "typ "+typ, corp.sign(corp.header(fmt.Sprintf(`,"typ":%q`, typ)), payload(t)), grants.BadCredential)
	}
	want(t, v, "typ 1", corp.sign(corp.header(`,"typ":1`), payload(t)), grants.BadCredential)
}

func TestTimes(t *testing.T) {
	v, corp, _ := newVerifier(t)
	sign := func(set ...string) string { return corp.sign(corp.header(""), payload(t, set...)) }
	want(t, v, "exp 1 s ahead", sign("exp", "1800000001"), grants.None)
	want(t, v, "exp now", sign("exp", "1800000000"), grants.ExpiredToken)
	want(t, v, "exp past", sign("exp", "1799999999"), grants.ExpiredToken)
	for _, name := range []string{"exp", "nbf", "iat"} {
		for _, value := range []string{
			"null", `"1800000000"`, "1e400", "-1", "0", "9223372036854775808", "18446744075509551676", "253402300800", "1800000000.5", "true", "[]", "{}", "Infinity",
		} {
			want(t, v, name+" "+value, sign(name, value), grants.BadCredential)
		}
	}
	want(t, v, "exp absent", sign("exp", ""), grants.BadCredential)
	for _, name := range []string{"nbf", "iat"} {
		want(t, v, name+" absent", sign(name, ""), grants.None)
		want(t, v, name+" 5 s ahead", sign(name, "1800000005"), grants.None)
		want(t, v, name+" 6 s ahead", sign(name, "1800000006"), grants.BadCredential)
	}
	compact := sign()
	end := testNow.Add(time.Minute)
	if _, reason := v.Verify(compact, end.Add(-time.Nanosecond)); reason != grants.None {
		t.Errorf("1 ns before exp: %v", reason)
	}
	if _, reason := v.Verify(compact, end); reason != grants.ExpiredToken {
		t.Errorf("at exp: %v", reason)
	}
}

func TestClaims(t *testing.T) {
	v, corp, _ := newVerifier(t)
	list := func(n int, item func(i int) string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = item(i)
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	nth := func(i int) string { return fmt.Sprintf(`"%d"`, i) }
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for _, c := range []struct {
		name, value string
		want        grants.Reason
	}{
		{"sub", "", grants.BadCredential}, {"sub", "null", grants.BadCredential}, {"sub", "7", grants.BadCredential}, {"sub", `""`, grants.BadCredential},
		{"sub", `"a\nb"`, grants.BadCredential}, {"sub", `"a\u0000"`, grants.BadCredential}, {"sub", `"a\u007f"`, grants.BadCredential},
		{"sub", `"a\u202eb"`, grants.BadCredential}, {"sub", `"a\u200bb"`, grants.BadCredential}, {"sub", `"a\ud800"`, grants.BadCredential},
		{"sub", "\"a\xffb\"", grants.BadCredential},
		{"sub", long(257), grants.BadCredential}, {"sub", long(256), grants.None}, {"sub", `"auth0|5f7c é 名"`, grants.None}, {"sub", `"a/b/c"`, grants.None},
		{"aud", "", grants.BadCredential}, {"aud", "null", grants.BadCredential}, {"aud", "7", grants.BadCredential}, {"aud", `""`, grants.BadCredential},
		{"aud", "[]", grants.BadCredential}, {"aud", `["a",7]`, grants.BadCredential}, {"aud", `[["a"]]`, grants.BadCredential}, {"aud", `["a",""]`, grants.BadCredential},
		{"aud", `"a\u0000"`, grants.BadCredential}, {"aud", list(17, nth), grants.BadCredential}, {"aud", list(16, nth), grants.None},
		{"groups", "", grants.None}, {"groups", "[]", grants.None}, {"groups", `"CI"`, grants.BadCredential}, {"groups", "null", grants.BadCredential},
		{"groups", "{}", grants.BadCredential}, {"groups", `["CI",7]`, grants.BadCredential}, {"groups", `["CI",""]`, grants.BadCredential},
		{"groups", `["a\tb"]`, grants.BadCredential}, {"groups", "[" + long(129) + "]", grants.BadCredential}, {"groups", "[" + long(128) + "]", grants.None},
		{"groups", list(129, nth), grants.BadCredential}, {"groups", list(128, nth), grants.None},
		{"azp", `""`, grants.BadCredential}, {"azp", "null", grants.BadCredential}, {"azp", `["ci"]`, grants.BadCredential}, {"azp", `"a\u202eb"`, grants.BadCredential},
		{"azp", long(257), grants.BadCredential}, {"azp", long(256), grants.None}, {"azp", "", grants.None},
		{"client_id", "7", grants.BadCredential}, {"client_id", `"a\nb"`, grants.BadCredential}, {"client_id", `"other"`, grants.None},
		{"jti", `""`, grants.BadCredential}, {"jti", "7", grants.BadCredential}, {"jti", `"a\nb"`, grants.BadCredential}, {"jti", long(257), grants.BadCredential},
	} {
		name := c.name + " " + c.value
		want(t, v, name[:min(len(name), 60)], corp.sign(corp.header(""), payload(t, c.name, c.value)), c.want)
	}
	open := strings.TrimSuffix(payload(t), "}")
	for name, text := range map[string]string{
		"sub twice": open + `,"sub":"root"}`, "sub twice, folded": open + `,"Sub":"root"}`, "groups twice": open + `,"groups":["CI"]}`,
		"inside": open + `,"x":{"a":1,"a":2}}`, "array": "[" + payload(t) + "]", "trailing": payload(t) + "{}", "string": `"x"`,
	} {
		want(t, v, name, corp.sign(corp.header(""), text), grants.BadCredential)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Issuer{Alias: "corp", URL: corpURL, JWKSFile: writeFile(t, newTestKey(t, "1").jwks()), Audience: "toolgrant"}
	second := good
	second.Alias, second.URL = "second", otherURL
	if _, err := New(Config{Issuers: []Issuer{good, second}}); err != nil {
		t.Fatal(err)
	}
	broken := writeFile(t, `{"keys":[{"kty":"oct","kid":"1","k":"c2VjcmV0"}]}`)
	mode := func(m os.FileMode) string {
		path := writeFile(t, newTestKey(t, "1").jwks())
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
		return path
	}
	readable, byGroup, byOthers := mode(0o644), mode(0o664), mode(0o606)
	second.JWKSFile = readable
	if _, err := New(Config{Issuers: []Issuer{good, second}}); err != nil {
		t.Errorf("a file that all can read: %v", err)
	}
	large := writeFile(t, newTestKey(t, "1").jwks()+strings.Repeat(" ", maxJWKS))
	for _, c := range []struct {
		name   string
		change func(*Issuer)
		want   string
	}{
		{"alias empty", func(i *Issuer) { i.Alias = "" }, "alias"},
		{"alias with slash", func(i *Issuer) { i.Alias = "a/b" }, "alias"},
		{"alias upper case", func(i *Issuer) { i.Alias = "Corp" }, "alias"},
		{"alias with line end", func(i *Issuer) { i.Alias = "second\n" }, "alias"},
		{"alias long", func(i *Issuer) { i.Alias = strings.Repeat("a", 32) }, "alias"},
		{"alias begins with -", func(i *Issuer) { i.Alias = "-a" }, "alias"},
		{"alias twice", func(i *Issuer) { i.Alias = "corp" }, "another issuer"},
		{"URL twice", func(i *Issuer) { i.URL = corpURL }, "another issuer"},
		{"URL empty", func(i *Issuer) { i.URL = "" }, "URL"},
		{"URL relative", func(i *Issuer) { i.URL = "idp.example" }, "URL"},
		{"no audience", func(i *Issuer) { i.Audience = "" }, "audience"},
		{"group mapped to nothing", func(i *Issuer) { i.Groups = map[string]string{"a": ""} }, "groups"},
		{"neither file nor URL", func(i *Issuer) { i.JWKSFile = "" }, "exactly one"},
		{"file and URL", func(i *Issuer) { i.JWKSURL = "https://idp.example/keys" }, "exactly one"},
		{"bearer for a file", func(i *Issuer) { i.BearerFile = i.JWKSFile }, "bearer file"},
		{"CA for a file", func(i *Issuer) { i.CAFile = i.JWKSFile }, "CA file"},
		{"file absent", func(i *Issuer) { i.JWKSFile = "/nonexistent/jwks.json" }, "/nonexistent/jwks.json"},
		{"file with a secret", func(i *Issuer) { i.JWKSFile = broken }, broken},
		{"file writable by group", func(i *Issuer) { i.JWKSFile = byGroup }, "chmod go-w '" + byGroup + "'"},
		{"file writable by others", func(i *Issuer) { i.JWKSFile = byOthers }, "chmod go-w '" + byOthers + "'"},
		{"file large", func(i *Issuer) { i.JWKSFile = large }, large},
	} {
		bad := second
		c.change(&bad)
		_, err := New(Config{Issuers: []Issuer{good, bad}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", c.name, err, c.want)
		} else if strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: tells the key: %v", c.name, err)
		}
	}
}

func TestDevIssuer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	const url = "https://dev.localhost"
	d, err := NewDevIssuer(dir, url)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(d.JWKSFile())
	if err != nil || info.Mode().Perm() != 0o644 || filepath.Dir(d.JWKSFile()) != dir {
		t.Errorf("%s: %v, %v", d.JWKSFile(), info.Mode(), err)
	}
	// The second start has the same key.
	if d, err = NewDevIssuer(dir, url); err != nil {
		t.Fatal(err)
	}
	v, err := New(Config{Issuers: []Issuer{{Alias: "dev", URL: url, JWKSFile: d.JWKSFile(), Audience: "toolgrant", Groups: map[string]string{"orchestrators": "orchestrators"}}}})
	if err != nil {
		t.Fatal(err)
	}
	compact, err := d.Mint("agent-7", []string{"orchestrators"}, "toolgrant", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	got, reason := v.Verify(compact, now)
	if reason != grants.None || got.Principal.ID() != "dev/agent-7" || !got.For("toolgrant") || got.JTI == "" || !cmp.Equal(got.Principal.Groups, []string{"orchestrators"}) {
		t.Errorf("%v: %+v", reason, got)
	}
	if got.Expires.After(now.Add(time.Minute)) {
		t.Errorf("expires %v, over a minute from %v", got.Expires, now)
	}
	if _, reason := v.Verify(compact, now.Add(time.Minute)); reason != grants.ExpiredToken {
		t.Errorf("a minute later: %v", reason)
	}
	if compact, err = d.Mint("agent-7", nil, "toolgrant", time.Minute); err != nil {
		t.Fatal(err)
	}
	if got, reason := v.Verify(compact, time.Now()); reason != grants.None || got.Principal.Groups != nil {
		t.Errorf("no groups: %v, %+v", reason, got)
	}
	for name, mint := range map[string]func() (string, error){
		"no sub":      func() (string, error) { return d.Mint("", nil, "toolgrant", time.Minute) },
		"sub":         func() (string, error) { return d.Mint("a\nb", nil, "toolgrant", time.Minute) },
		"no audience": func() (string, error) { return d.Mint("a", nil, "", time.Minute) },
		"no time":     func() (string, error) { return d.Mint("a", nil, "toolgrant", 0) },
		"past":        func() (string, error) { return d.Mint("a", nil, "toolgrant", -time.Minute) },
	} {
		if s, err := mint(); err == nil {
			t.Errorf("%s: minted %q", name, s)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDevIssuer(dir, url); err == nil {
		t.Error("opened in a directory that others read")
	}
}

func FuzzVerify(f *testing.F) {
	v, corp, _ := newVerifier(f)
	good := corp.sign(corp.header(""), payload(f))
	for _, seed := range []string{good, "", "..", good + "=", encode(`{"alg":"none"}`) + "." + encode(payload(f)) + "."} {
		f.Add(seed, payload(f))
	}
	f.Fuzz(func(t *testing.T, compact, claims string) {
		if _, reason := v.Verify(compact, testNow); (reason == grants.None) != (compact == good) {
			t.Errorf("%q: %v", compact, reason)
		}
		got, reason := v.Verify(corp.sign(corp.header(""), claims), testNow)
		if reason != grants.None {
			return
		}
		if got.Issuer != "corp" || got.Principal.Issuer != "corp" || got.Principal.Subject == "" || len(got.Audiences) == 0 || !got.Expires.After(testNow) {
			t.Errorf("%q: %+v", claims, got)
		}
		for _, g := range got.Principal.Groups {
			if !strings.HasPrefix(g, "corp/") && g != "ci" && g != "orchestrators" {
				t.Errorf("%q: group %q is not corp's to give", claims, g)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v, corp, _ := newVerifier(b)
	compact := corp.sign(corp.header(`,"typ":"JWT"`), payload(b))
	for _, known := range []bool{false, true} {
		b.Run(map[bool]string{false: "new", true: "known"}[known], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !known {
					v.known = token.Cache[*genuine]{}
				}
				if _, reason := v.Verify(compact, testNow); reason != grants.None {
					b.Fatal(reason)
				}
			}
		})
	}
}

// TestNames: what costs a signature is told from what does not, at a glance.
func TestNames(t *testing.T) {
	v, corp, _ := newVerifier(t)
	stranger := newTestKey(t, "2")
	for compact, want := range map[string]bool{
		corp.sign(corp.header(""), payload(t)):                true,
		stranger.sign(corp.header(""), payload(t)):            true, // a forgery: nobody can tell yet
		stranger.sign(stranger.header(""), payload(t)):        false,
		corp.sign(`{"alg":"EdDSA"}`, payload(t)):              false,
		corp.sign(`{"alg":"EdDSA","kid":"1","jwk":{}}`, "{}"): false,
		corp.header(""):                 false,
		"":                              false,
		strings.Repeat("a", 100) + "..": false,
		corp.sign(corp.header(""), strings.Repeat("a", MaxBytes)): false,
	} {
		if got := v.Names(compact); got != want {
			t.Errorf("%.80s: %t, want %t", compact, got, want)
		}
		if _, why := v.Verify(compact, testNow); why == grants.None && !want {
			t.Errorf("%.80s: genuine, and taken for junk", compact)
		}
	}
}
