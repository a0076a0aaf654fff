package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

// forger signs with a private key what its owner never would. What is made of a
// genuine token with one thing wrong is refused for that thing.
type forger struct {
	t               testing.TB
	key             crypto.Signer
	header, payload map[string]json.RawMessage // of the genuine token
}

// newForger takes the broker's own key from its folder, and one of its tokens.
func newForger(t testing.TB, dir, genuine string) *forger {
	t.Helper()
	f := &forger{t: t}
	parts := strings.Split(genuine, ".")
	for i, into := range []*map[string]json.RawMessage{&f.header, &f.payload} {
		text, err := b64.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	f.key = privateKey(t, filepath.Join(dir, f.text(f.header["kid"])+".jwk"))
	return f
}

func privateKey(t testing.TB, file string) crypto.Signer {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var key any
	parsed, err := jwk.ParseKey(text)
	if err == nil {
		err = jwk.Export(parsed, &key)
	}
	if err != nil {
		t.Fatal(err)
	}
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k
	case *ecdsa.PrivateKey:
		return k
	}
	t.Fatalf("a key of type %T", key)
	return nil
}

var b64 = base64.RawURLEncoding

func encode(text string) string { return b64.EncodeToString([]byte(text)) }

func (f *forger) text(raw json.RawMessage) (s string) {
	f.t.Helper()
	if err := json.Unmarshal(raw, &s); err != nil {
		f.t.Fatal(err)
	}
	return s
}

// with is a JSON object with one member set to JSON text, or left out for "".
func with(object map[string]json.RawMessage, name, value string) string {
	o := maps.Clone(object)
	if o[name] = json.RawMessage(value); value == "" {
		delete(o, name)
	}
	var members []string
	for k, v := range o { // by hand: some of these values no encoder would write
		members = append(members, quote(k)+":"+string(v))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a form
	}
	return string(text)
}

func (f *forger) sign(header, payload string) string {
	return f.signSegments(encode(header), encode(payload))
}

// signSegments signs by what the header says of EdDSA and ES256 (RFC 7518,
// Section 3.4; RFC 8037, Section 3.1).
func (f *forger) signSegments(header, payload string) string {
	input := header + "." + payload
	var sig []byte
	switch k := f.key.(type) {
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
		if err != nil {
			f.t.Fatal(err)
		}
		sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	return input + "." + b64.EncodeToString(sig)
}

// head and claim are the genuine token, signed anew, with one member of its
// header or payload set.
func (f *forger) head(name, value string) string {
	return f.sign(with(f.header, name, value), with(f.payload, "", ""))
}

func (f *forger) claim(name, value string) string {
	return f.sign(with(f.header, "", ""), with(f.payload, name, value))
}

func (f *forger) unsigned() map[string]string {
	tokens := map[string]string{}
	payload := with(f.payload, "", "")
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		header := with(f.header, "alg", quote(alg))
		tokens["alg "+alg] = encode(header) + "." + encode(payload) + "."
		tokens["alg "+alg+", signed"] = f.sign(header, payload)
	}
	good := f.claim("", "")
	tokens["signature cut off"] = good[:strings.LastIndex(good, ".")+1]
	tokens["signature and dot cut off"] = good[:strings.LastIndex(good, ".")]
	tokens["alg absent"] = f.head("alg", "")
	tokens["bare"] = encode(`{"alg":"none"}`) + "." + encode(payload) + "."
	return tokens
}

// publicKeyAsSecret are HMACs whose secret is what everybody knows.
func (f *forger) publicKeyAsSecret(jwks string) map[string]string {
	der, err := x509.MarshalPKIXPublicKey(f.key.Public())
	if err != nil {
		f.t.Fatal(err)
	}
	var raw []byte
	switch k := f.key.Public().(type) {
	case ed25519.PublicKey:
		raw = k
	case *ecdsa.PublicKey:
		if raw, err = k.Bytes(); err != nil {
			f.t.Fatal(err)
		}
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal([]byte(jwks), &set); err != nil || len(set.Keys) != 1 {
		f.t.Fatal(jwks, err)
	}
	tokens := map[string]string{}
	for name, secret := range map[string][]byte{
		"raw point": raw, "DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"JWK": set.Keys[0], "JWK set": []byte(jwks),
	} {
		for _, alg := range []string{`"HS256"`, string(f.header["alg"])} {
			input := encode(with(f.header, "alg", alg)) + "." + encode(with(f.payload, "", ""))
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(input))
			tokens[name+", alg "+alg] = input + "." + b64.EncodeToString(mac.Sum(nil))
		}
	}
	return tokens
}

func (f *forger) algSwapped() map[string]string {
	tokens := map[string]string{}
	for _, alg := range []string{"EdDSA", "Ed25519", "Ed448", "ES256", "ES256K", "ES384", "ES512", "RS256", "PS256", "HS256"} {
		if alg != f.text(f.header["alg"]) {
			tokens[alg] = f.head("alg", quote(alg))
		}
	}
	return tokens
}

// embeddedKey are tokens that bring their key along, or say where it is.
func (f *forger) embeddedKey(url string) map[string]string {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	theirs := &forger{t: f.t, key: private, header: f.header, payload: f.payload}
	tokens := map[string]string{"kid is a URL": f.head("kid", quote(url+"/key"))}
	for name, value := range map[string]string{
		"jwk": `{"kty":"OKP","crv":"Ed25519","x":"` + b64.EncodeToString(public) + `"}`,
		"jku": quote(url + "/jwks.json"), "x5u": quote(url + "/cert.pem"), "x5c": `["MAA="]`,
	} {
		tokens[name+", our signature"] = f.head(name, value)
		tokens[name+", theirs"] = theirs.head(name, value)
		h := maps.Clone(f.header)
		h["alg"] = json.RawMessage(`"EdDSA"`)
		delete(h, "kid")
		tokens[name+", theirs, without kid"] = theirs.sign(with(h, name, value), with(f.payload, "", ""))
	}
	return tokens
}

func (f *forger) keyIDs() map[string]string {
	kid := f.text(f.header["kid"])
	tokens := map[string]string{}
	for name, value := range map[string]string{
		"absent": "", "empty": `""`, "unknown": `"nobody"`, "null": "null", "number": "1", "list": "[" + quote(kid) + "]",
		"path": `"../../dev/null"`, "our file": quote(kid + ".jwk"), "our file's path": quote("../keys/" + kid),
		"SQL": `"x' UNION SELECT 'key"`, "NUL": quote(kid + "\x00"), "6 kB": quote(strings.Repeat("k", 6_000)),
		"another case": quote(strings.ToUpper(kid)),
	} {
		tokens["kid "+name] = f.head("kid", value)
	}
	header := strings.TrimSuffix(with(f.header, "kid", ""), "}")
	tokens["kid twice"] = f.sign(header+`,"kid":"nobody","kid":`+quote(kid)+"}", with(f.payload, "", ""))
	tokens["kid twice, folded"] = f.sign(header+`,"KID":"nobody","kid":`+quote(kid)+"}", with(f.payload, "", ""))
	return tokens
}

func (f *forger) critical() map[string]string {
	tokens := map[string]string{}
	header, payload := strings.TrimSuffix(with(f.header, "", ""), "}"), with(f.payload, "", "")
	for name, add := range map[string]string{
		"crit, unknown": `"crit":["x"],"x":1`, "crit, empty": `"crit":[]`, "crit, null": `"crit":null`,
		"b64 false": `"crit":["b64"],"b64":false`, "b64 false, not critical": `"b64":false`,
	} {
		tokens[name] = f.sign(header+","+add+"}", payload)
	}
	tokens["b64 false, as it is then"] = f.signSegments(encode(header+`,"crit":["b64"],"b64":false}`), "payload")
	parts := strings.Split(f.claim("", ""), ".")
	tokens["detached"] = parts[0] + ".." + parts[2]
	tokens["detached, signed"] = f.signSegments(parts[0], "")
	return tokens
}

func (f *forger) otherSerialisations() map[string]string {
	good := f.claim("", "")
	parts := strings.Split(good, ".")
	flat := fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2])
	return map[string]string{
		"nested, cty JWT":        f.sign(with(f.header, "cty", `"JWT"`), good),
		"nested, not said so":    f.sign(with(f.header, "", ""), good),
		"JWE":                    encode(`{"alg":"dir","enc":"A128GCM","typ":"toolgrant+jwt"}`) + "..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
		"JWE, ECDH":              encode(`{"alg":"ECDH-ES","enc":"A256GCM","epk":{}}`) + ".AAAA.AAAA.AAAA.AAAA",
		"enc in the header":      f.head("enc", `"A128GCM"`),
		"zip in the header":      f.head("zip", `"DEF"`),
		"JSON, flattened":        flat,
		"JSON, general":          fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts[1], parts[0], parts[2]),
		"JSON, no signatures":    fmt.Sprintf(`{"payload":%q,"signatures":[]}`, parts[1]),
		"JSON in base64":         encode(flat),
		"JSON with dots":         `{"payload":"a.b.c"}`,
		"two tokens in one":      good + "." + good,
		"dots alone":             "..",
		"four segments":          good + ".",
		"five segments":          good + "..",
		"an escaped zero behind": good + "%00",
	}
}

func (f *forger) otherAudiences() map[string]string {
	tokens := map[string]string{}
	issuer := f.text(f.payload["iss"])
	for _, c := range []struct{ name, value string }{
		{"aud", `"https://other.internal"`}, {"aud", `"https://reports.internal/"`}, {"aud", `"HTTPS://reports.internal"`},
		{"aud", `["https://reports.internal"]`}, {"aud", `["https://other.internal","https://reports.internal"]`},
		{"aud", ""}, {"aud", "null"}, {"aud", `"toolgrant"`}, {"aud", `"https://reports.internal\u0000"`},
		{"iss", quote(issuer + "/")}, {"iss", quote(strings.Replace(issuer, "http", "HTTP", 1))}, {"iss", ""},
		{"iss", `"https://dev-issuer.invalid"`}, {"iss", "[" + quote(issuer) + "]"},
	} {
		tokens[c.name+" "+strings.ReplaceAll(c.value, "/", "|")] = f.claim(c.name, c.value)
	}
	return tokens
}

func (f *forger) otherTypes(subjectToken string) map[string]string {
	tokens := map[string]string{"a subject token": subjectToken}
	for _, typ := range []string{"", `""`, `"JWT"`, `"at+jwt"`, `"dpop+jwt"`, `"id_token"`, `"Toolgrant+JWT"`, `"application/toolgrant+jwt"`, `"logout+jwt"`, `null`, `["toolgrant+jwt"]`} {
		tokens["typ "+strings.ReplaceAll(typ, "/", "|")] = f.head("typ", typ)
	}
	return tokens
}

func (f *forger) twice() map[string]string {
	open := strings.TrimSuffix(with(f.payload, "", ""), "}")
	sign := func(payload string) string { return f.sign(with(f.header, "", ""), payload) }
	return map[string]string{
		"two sub": sign(open + `,"sub":"corp/root"}`), "two sub, the first wrong": sign(`{"sub":"corp/root",` + open[1:] + "}"),
		"two sub, the same": sign(open + `,"sub":` + string(f.payload["sub"]) + "}"),
		"two sub, folded":   sign(open + `,"Sub":"corp/root"}`), "two sub, escaped": sign(open + `,"\u0073ub":"corp/root"}`),
		"two sub, long s": sign(open + `,"ſub":"corp/root"}`),
		"two task":        sign(open + `,"task":{"id":"t_bbbbbbbbbbbbbbbbbbbbbbbbbb","kind":"x"}}`),
		"two exp":         sign(open + `,"exp":4000000000}`),
		"two task ids":    f.claim("task", `{"id":"t_bbbbbbbbbbbbbbbbbbbbbbbbbb",`+string(f.payload["task"])[1:]),
		"two payloads":    sign(open + "}{}"),
	}
}

// respelt are other texts of which a lenient decoder makes the genuine token.
func (f *forger) respelt(genuine string) map[string]string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	tokens := map[string]string{}
	parts := strings.Split(genuine, ".")
	for i, part := range parts {
		respell := func(name, segment string) {
			with := []string{parts[0], parts[1], parts[2]}
			if with[i] = segment; segment != part {
				tokens[fmt.Sprintf("segment %d, %s", i, name)] = strings.Join(with, ".")
			}
		}
		respell("=", part+"=")
		respell("==", part+"==")
		respell("standard alphabet", strings.NewReplacer("-", "+", "_", "/").Replace(part))
		respell("percent escape", "%"+fmt.Sprintf("%02X", part[0])+part[1:])
		if len(part)%4 != 0 {
			last := len(part) - 1
			respell("padding bits", part[:last]+string(alphabet[strings.IndexByte(alphabet, part[last])|1]))
		}
	}
	return tokens
}
