package token

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestInspect(t *testing.T) {
	f := newFixture(t, EdDSA)
	good := f.sign(t, toJSON(t, f.header), f.payload)
	signature := good[strings.LastIndex(good, ".")+1:]
	// Whoever signed it, and whatever the time.
	for name, compact := range map[string]string{"genuine": good, "forged": strings.TrimSuffix(good, signature) + strings.Repeat("A", 86)} {
		in, err := Inspect(compact)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := testClaims()
		if diff := cmp.Diff(&want, in.UnverifiedClaims); diff != "" {
			t.Errorf("%s (-minted +inspected):\n%s", name, diff)
		}
		if in.UnverifiedHeader != (Header{Alg: EdDSA, Typ: Typ, KID: f.keys.signer().kid}) || string(in.UnverifiedPayload) != f.payload ||
			!in.UnverifiedExpires.Equal(testNow.Add(time.Minute)) || !in.UnverifiedNotBefore.Equal(testNow) || !in.UnverifiedIssuedAt.Equal(testNow) {
			t.Errorf("%s: %+v", name, in)
		}
	}
	if in, _ := Inspect(good); !strings.HasPrefix(signature, strings.TrimSuffix(in.SignatureMark, "…")) || len(in.SignatureMark) > 8+len("…") {
		t.Errorf("mark %q of signature %q", in.SignatureMark, signature)
	}

	in, err := Inspect(f.sign(t, `{"alg":"RS256","kid":"1","typ":"JWT"}`, `{"iss":"https://idp.example","exp":1800000060,"kubernetes.io":{"namespace":"a"}}`))
	if err != nil || in.UnverifiedClaims != nil || !in.UnverifiedExpires.Equal(testNow.Add(time.Minute)) || !in.UnverifiedIssuedAt.IsZero() || !in.UnverifiedNotBefore.IsZero() {
		t.Errorf("identity token: %v, %+v", err, in)
	}
	// A mark is never all of a signature, however short that is.
	if in, err = Inspect(encode(`{"alg":"x"}`) + "." + encode("{}") + "." + encode("abc")); err != nil || in.SignatureMark != "Y…" {
		t.Errorf("short signature: %v, %q", err, in.SignatureMark)
	}
}

func TestInspectRefuses(t *testing.T) {
	f := newFixture(t, EdDSA)
	good := f.sign(t, toJSON(t, f.header), f.payload)
	parts := strings.Split(good, ".")
	for name, c := range map[string]struct{ compact, want string }{
		"empty":             {"", "compact"},
		"two parts":         {parts[0] + "." + parts[1], "compact"},
		"JWE":               {good + ".a.b", "compact"},
		"JSON":              {`{"payload":"x"}`, "compact"},
		"long":              {good + strings.Repeat("A", maxInspected), "compact"},
		"header":            {"!." + parts[1] + "." + parts[2], "header"},
		"header with jwk":   {f.sign(t, f.headerWith(t, "jwk", 1), f.payload), "header"},
		"payload":           {parts[0] + ".=." + parts[2], "payload"},
		"signature":         {parts[0] + "." + parts[1] + ".=", "signature"},
		"no signature":      {parts[0] + "." + parts[1] + ".", "signature"},
		"claims":            {f.sign(t, toJSON(t, f.header), f.payloadWith(t, "jti", `"x"`)), "jti"},
		"claim twice":       {f.sign(t, toJSON(t, f.header), `{"CANARY":1,"CANARY":2}`), "strict JSON"},
		"unknown claim":     {f.sign(t, toJSON(t, f.header), f.payloadWith(t, "CANARY", "1")), "strict JSON"},
		"identity, array":   {f.sign(t, `{"alg":"x"}`, `[]`), "payload"},
		"identity, no JSON": {f.sign(t, `{"alg":"x"}`, `CANARY`), "strict JSON"},
		"identity, exp":     {f.sign(t, `{"alg":"x"}`, `{"exp":"CANARY"}`), "exp"},
	} {
		in, err := Inspect(c.compact)
		if err == nil || !strings.Contains(err.Error(), c.want) || !cmp.Equal(in, Inspection{}) {
			t.Errorf("%s: %v, %+v; want %q", name, err, in, c.want)
		} else if strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), parts[2]) {
			t.Errorf("%s: tells what it read: %v", name, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	fix := newFixture(f, EdDSA)
	f.Add(fix.sign(f, toJSON(f, fix.header), fix.payload))
	f.Add(fix.sign(f, `{"alg":"RS256"}`, `{"exp":1800000060}`))
	f.Add("..")
	f.Fuzz(func(t *testing.T, compact string) {
		in, err := Inspect(compact)
		if err != nil {
			if !cmp.Equal(in, Inspection{}) {
				t.Errorf("%q: refused, and yet %+v", compact, in)
			}
			return
		}
		parts := strings.Split(compact, ".")
		if len(parts) != 3 || encode(string(in.UnverifiedPayload)) != parts[1] || strings.Contains(in.SignatureMark, parts[2]) {
			t.Errorf("%q: %+v", compact, in)
		}
		if in.UnverifiedClaims != nil && in.UnverifiedClaims.validate() != nil {
			t.Errorf("%q: claims that are not valid", compact)
		}
		// All that verifies can be inspected, too.
		if _, reason := fix.verifier.Verify(compact, testAudience, testNow); reason == 0 && in.UnverifiedClaims == nil {
			t.Errorf("%q: verifies, and is no grant token to Inspect", compact)
		}
	})
}
