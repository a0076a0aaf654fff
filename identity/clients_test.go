package identity

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	brokerIssuer  = "https://broker.internal"
	tokenEndpoint = "https://broker.internal/oauth2/token"
)

var brokerAudiences = []string{brokerIssuer, tokenEndpoint}

// newClients has "ci" and "cd" with keys of their own, both named "1", and "spa"
// without.
func newClients(t testing.TB) (c *Clients, ci, cd testKey) {
	t.Helper()
	ci, cd = newTestKey(t, "1"), newTestKey(t, "1")
	c, err := NewClients([]Client{
		{ID: "ci", JWKSFile: writeFile(t, ci.jwks())}, {ID: "cd", JWKSFile: writeFile(t, cd.jwks()), Auth: PrivateKeyJWT}, {ID: "spa", Auth: NoAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, ci, cd
}

// assertionClaims are good ones of "ci", with claims set to JSON text or left
// out for "".
func assertionClaims(t testing.TB, set ...string) string {
	t.Helper()
	all := []string{"iss", `"ci"`, "sub", `"ci"`, "aud", `"` + brokerIssuer + `"`, "groups", "", "azp", "", "email", "", "jti", `"` + nextJTI() + `"`}
	return payload(t, append(all, set...)...)
}

var jtis atomic.Int64

func nextJTI() string { return fmt.Sprintf("a-%d", jtis.Add(1)) }

func assertionForm(assertion string, set ...string) url.Values {
	form := url.Values{"client_assertion": {assertion}, "client_assertion_type": {AssertionType}, "grant_type": {"x"}}
	for i := 0; i < len(set); i += 2 {
		if form.Set(set[i], set[i+1]); set[i+1] == "-" {
			form.Del(set[i])
		}
	}
	return form
}

func wantClient(t *testing.T, c *Clients, name string, form url.Values, authorization, want string, wantErr error) {
	t.Helper()
	id, err := c.Authenticate(form, authorization, brokerAudiences, testNow)
	if id != want || !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
		t.Errorf("%s: %q, %v; want %q, %v", name, id, err, want, wantErr)
	}
}

func TestAuthenticate(t *testing.T) {
	c, ci, cd := newClients(t)
	sign := func(set ...string) string { return ci.sign(ci.header(`,"typ":"JWT"`), assertionClaims(t, set...)) }
	for name, assertion := range map[string]string{
		"issuer":              sign(),
		"token endpoint":      sign("aud", `"`+tokenEndpoint+`"`),
		"list":                sign("aud", `["`+brokerIssuer+`"]`),
		"list of both":        sign("aud", `["`+brokerIssuer+`","`+tokenEndpoint+`"]`),
		"no iat, no nbf":      sign("iat", "", "nbf", ""),
		"longest life":        sign("exp", "1800000305"),
		"just ahead":          sign("iat", "1800000005", "nbf", "1800000005"),
		"typ absent":          ci.sign(ci.header(""), assertionClaims(t)),
		"typ of the revision": ci.sign(ci.header(`,"typ":"client-authentication+jwt"`), assertionClaims(t)),
	} {
		wantClient(t, c, name, assertionForm(assertion), "", "ci", nil)
	}
	wantClient(t, c, "client_id too", assertionForm(sign(), "client_id", "ci"), "", "ci", nil)
	wantClient(t, c, "the other client", assertionForm(cd.sign(cd.header(""), assertionClaims(t, "iss", `"cd"`, "sub", `"cd"`))), "", "cd", nil)
	wantClient(t, c, "no authentication, as registered", url.Values{"client_id": {"spa"}}, "", "spa", nil)
	wantClient(t, c, "nobody", url.Values{"grant_type": {"x"}}, "", "", ErrNoClient)

	id, err := c.Authenticate(assertionForm(sign()), "", nil, testNow)
	if id != "" || !errors.Is(err, ErrAssertion) {
		t.Errorf("a server without a name: %q, %v", id, err)
	}
	none, err := NewClients(nil)
	if err != nil {
		t.Fatal(err)
	}
	wantClient(t, none, "none registered", assertionForm(sign()), "", "", ErrUnknownClient)
	wantClient(t, none, "none registered, client_id", url.Values{"client_id": {"ci"}}, "", "", ErrUnknownClient)
}

// B12: none, wrong, two methods at once, a secret.
func TestB12Methods(t *testing.T) {
	c, ci, _ := newClients(t)
	sign := func() string { return ci.sign(ci.header(""), assertionClaims(t)) }
	twice := func(name string) url.Values {
		form := assertionForm(sign(), "client_id", "ci")
		form[name] = append(form[name], form[name][0])
		return form
	}
	for _, b := range []struct {
		name          string
		form          url.Values
		authorization string
		want          error
	}{
		{"B12 none", url.Values{"client_id": {"ci"}}, "", ErrNoAssertion},
		{"B12 none, client_id empty", url.Values{"client_id": {""}}, "", ErrUnknownClient},
		{"B12 unknown client", url.Values{"client_id": {"nobody"}}, "", ErrUnknownClient},
		{"B12 case", url.Values{"client_id": {"SPA"}}, "", ErrUnknownClient},
		{"B12 Basic", url.Values{}, "Basic Y2k6c2VjcmV0", ErrMethod},
		{"B12 Basic for a client without authentication", url.Values{"client_id": {"spa"}}, "Basic c3BhOg==", ErrMethod},
		{"B12 Basic and assertion", assertionForm(sign()), "Basic Y2k6c2VjcmV0", ErrMethod},
		{"B12 Bearer and assertion", assertionForm(sign()), "Bearer x", ErrMethod},
		{"B12 secret", url.Values{"client_id": {"ci"}, "client_secret": {"s"}}, "", ErrMethod},
		{"B12 secret for a client without authentication", url.Values{"client_id": {"spa"}, "client_secret": {"s"}}, "", ErrMethod},
		{"B12 empty secret", assertionForm(sign(), "client_secret", ""), "", ErrMethod},
		{"B12 secret and assertion", assertionForm(sign(), "client_secret", "s"), "", ErrMethod},
		{"B12 two assertions", twice("client_assertion"), "", ErrMethod},
		{"B12 two types", twice("client_assertion_type"), "", ErrMethod},
		{"B12 two ids", twice("client_id"), "", ErrMethod},
		{"B12 type absent", assertionForm(sign(), "client_assertion_type", "-"), "", ErrAssertionType},
		{"B12 assertion absent", assertionForm("", "client_assertion", "-", "client_id", "spa"), "", ErrAssertionType},
		{"B12 SAML", assertionForm(sign(), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), "", ErrAssertionType},
		{"B12 type with a space", assertionForm(sign(), "client_assertion_type", AssertionType+" "), "", ErrAssertionType},
		{"B12 assertion empty", assertionForm(""), "", ErrAssertion},
		{"B12 other client_id", assertionForm(sign(), "client_id", "cd"), "", ErrAssertion},
		{"B12 client_id of one without authentication", assertionForm(sign(), "client_id", "spa"), "", ErrAssertion},
		{"B12 client_id empty", assertionForm(sign(), "client_id", ""), "", ErrAssertion},
	} {
		wantClient(t, c, b.name, b.form, b.authorization, "", b.want)
	}
}

// B12: an assertion that is wrong in one thing.
func TestB12Assertions(t *testing.T) {
	c, ci, cd := newClients(t)
	stranger := newTestKey(t, "1")
	sign := func(set ...string) string { return ci.sign(ci.header(""), assertionClaims(t, set...)) }
	good := sign()
	parts := strings.Split(good, ".")
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for _, b := range []struct {
		name, assertion string
		want            error
	}{
		{"B12 stranger's key", stranger.sign(stranger.header(""), assertionClaims(t)), ErrAssertion},
		{"B12 another client's key", cd.sign(cd.header(""), assertionClaims(t)), ErrAssertion},
		{"B12 another client's name", sign("iss", `"cd"`, "sub", `"cd"`), ErrAssertion},
		{"B12 unknown client", sign("iss", `"nobody"`, "sub", `"nobody"`), ErrUnknownClient},
		{"B12 a client without keys", sign("iss", `"spa"`, "sub", `"spa"`), ErrAssertion},
		{"B12 sub of another", sign("sub", `"cd"`), ErrAssertion},
		{"B12 sub absent", sign("sub", ""), ErrAssertion},
		{"B12 iss absent", sign("iss", ""), ErrAssertion},
		{"B12 aud of another server", sign("aud", `"https://other.example"`), ErrAssertion},
		{"B12 aud of another server too", sign("aud", `["`+brokerIssuer+`","https://other.example"]`), ErrAssertion},
		{"B12 aud with a slash", sign("aud", `"`+brokerIssuer+`/"`), ErrAssertion},
		{"B12 aud absent", sign("aud", ""), ErrAssertion},
		{"B12 aud empty", sign("aud", "[]"), ErrAssertion},
		{"B12 exp absent", sign("exp", ""), ErrAssertion},
		{"B12 exp far ahead", sign("exp", "1800000306"), ErrAssertion},
		{"B12 exp a text", sign("exp", `"1800000060"`), ErrAssertion},
		{"B12 exp now", sign("exp", "1800000000"), ErrAssertionPast},
		{"B12 exp past", sign("exp", "1799999999"), ErrAssertionPast},
		{"B12 nbf ahead", sign("nbf", "1800000006"), ErrAssertion},
		{"B12 iat ahead", sign("iat", "1800000006"), ErrAssertion},
		{"B12 jti absent", sign("jti", ""), ErrAssertion},
		{"B12 jti empty", sign("jti", `""`), ErrAssertion},
		{"B12 jti long", sign("jti", long(maxSubject+1)), ErrAssertion},
		{"B12 claim twice", ci.sign(ci.header(""), strings.TrimSuffix(assertionClaims(t), "}")+`,"sub":"ci"}`), ErrAssertion},
		{"B12 alg none", encode(`{"alg":"none","kid":"1"}`) + "." + encode(assertionClaims(t)) + ".", ErrAssertion},
		{"B12 no kid", ci.sign(`{"alg":"EdDSA"}`, assertionClaims(t)), ErrAssertion},
		{"B12 jwk", stranger.sign(stranger.header(`,"jwk":{"kty":"OKP"}`), assertionClaims(t)), ErrAssertion},
		{"B12 a DPoP proof", ci.sign(ci.header(`,"typ":"dpop+jwt"`), assertionClaims(t)), ErrAssertion},
		{"B12 a request object", ci.sign(ci.header(`,"typ":"oauth-authz-req+jwt"`), assertionClaims(t)), ErrAssertion},
		{"B12 an access token", ci.sign(ci.header(`,"typ":"at+jwt"`), assertionClaims(t)), ErrAssertion},
		{"B12 cut off", parts[0] + "." + parts[1], ErrAssertion},
		{"B12 flattened", fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2]), ErrAssertion},
		{"B12 respelt", good + "=", ErrAssertion},
		{"B12 long", ci.sign(ci.header(""), assertionClaims(t)+strings.Repeat(" ", maxAssertion)), ErrAssertion},
	} {
		wantClient(t, c, b.name, assertionForm(b.assertion), "", "", b.want)
	}
	wantClient(t, c, "control", assertionForm(good), "", "ci", nil)
}

// B12: an assertion is good once, whoever presents it again and how often.
func TestB12Replay(t *testing.T) {
	c, ci, cd := newClients(t)
	assertion := ci.sign(ci.header(""), assertionClaims(t, "jti", `"once"`))
	var passed atomic.Int32
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for range 100 {
		wg.Go(func() {
			<-begin
			switch id, err := c.Authenticate(assertionForm(assertion), "", brokerAudiences, testNow); {
			case err == nil && id == "ci":
				passed.Add(1)
			case !errors.Is(err, ErrReplay) || id != "":
				t.Errorf("%q, %v", id, err)
			}
		})
	}
	close(begin)
	wg.Wait()
	if n := passed.Load(); n != 1 {
		t.Errorf("%d of 100 in parallel passed", n)
	}
	wantClient(t, c, "the jti in another text", assertionForm(ci.sign(ci.header(""), assertionClaims(t, "jti", `"once"`, "exp", "1800000061"))), "", "", ErrReplay)
	wantClient(t, c, "the jti of another client", assertionForm(cd.sign(cd.header(""), assertionClaims(t, "jti", `"once"`, "iss", `"cd"`, "sub", `"cd"`))), "", "cd", nil)

	// One that is refused uses nothing up.
	stranger := newTestKey(t, "1")
	wantClient(t, c, "by a stranger", assertionForm(stranger.sign(stranger.header(""), assertionClaims(t, "jti", `"mine"`))), "", "", ErrAssertion)
	wantClient(t, c, "for another server", assertionForm(ci.sign(ci.header(""), assertionClaims(t, "jti", `"mine"`, "aud", `"https://other.example"`))), "", "", ErrAssertion)
	wantClient(t, c, "by its owner", assertionForm(ci.sign(ci.header(""), assertionClaims(t, "jti", `"mine"`))), "", "ci", nil)

	// One that was never used is past all the same, sweep or no sweep.
	short := ci.sign(ci.header(""), assertionClaims(t, "exp", "1800000010"))
	if id, err := c.Authenticate(assertionForm(short), "", brokerAudiences, testNow.Add(10*time.Second)); id != "" || !errors.Is(err, ErrAssertionPast) {
		t.Errorf("at its exp: %q, %v", id, err)
	}

	// Never again: not just before its end, not after it, not with a clock that
	// was set back over a sweep.
	for _, after := range []time.Duration{59 * time.Second, time.Minute, 3 * time.Minute, 0} {
		if id, err := c.Authenticate(assertionForm(assertion), "", brokerAudiences, testNow.Add(after)); err == nil {
			t.Errorf("%v later: %q", after, id)
		}
		// Other assertions make the sweep run.
		other := ci.sign(ci.header(""), assertionClaims(t, "exp", fmt.Sprint(testNow.Add(4*time.Minute).Unix())))
		if _, err := c.Authenticate(assertionForm(other), "", brokerAudiences, testNow.Add(after)); err != nil {
			t.Errorf("another one %v later: %v", after, err)
		}
	}
	if n := len(c.byID["ci"].used.seen); n != 4 {
		t.Errorf("%d are remembered; the 4 that go on, and nothing past", n)
	}
}

// What there is no room to remember is refused, until there is room again.
func TestReplaysAreBounded(t *testing.T) {
	var r replays
	for i := range maxReplays {
		if err := r.once(fmt.Sprint(i), testNow.Add(time.Minute), testNow); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	for _, c := range []struct {
		name, jti string
		after     time.Duration
		want      error
	}{
		{"full", "x", 0, ErrBusy}, {"a replay, full", "7", 0, ErrReplay}, {"full, a second later", "x", time.Second, ErrBusy},
		{"a replay, a second later", "7", time.Second, ErrReplay}, {"all past", "x", time.Minute, nil}, {"again", "x", time.Minute, ErrReplay},
	} {
		if err := r.once(c.jti, testNow.Add(2*time.Minute), testNow.Add(c.after)); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if len(r.seen) != 1 {
		t.Errorf("%d are remembered", len(r.seen))
	}
}

func TestNewClientsRefuses(t *testing.T) {
	keys := writeFile(t, newTestKey(t, "1").jwks())
	open := writeFile(t, newTestKey(t, "1").jwks())
	if err := os.Chmod(open, 0o622); err != nil {
		t.Fatal(err)
	}
	secret := writeFile(t, `{"keys":[{"kty":"oct","kid":"1","k":"Q0FOQVJZ"}]}`)
	for _, c := range []struct {
		name   string
		client Client
		want   string
	}{
		{"no id", Client{JWKSFile: keys}, "id"},
		{"id with a line end", Client{ID: "a\n", JWKSFile: keys}, "id"},
		{"id long", Client{ID: strings.Repeat("a", maxSubject+1), JWKSFile: keys}, "id"},
		{"id twice", Client{ID: "ci", JWKSFile: keys}, "another client"},
		{"no file", Client{ID: "a"}, "needs a JWKS file"},
		{"auth unknown", Client{ID: "a", JWKSFile: keys, Auth: "client_secret_basic"}, "client_secret_basic"},
		{"keys for none", Client{ID: "a", JWKSFile: keys, Auth: NoAuth}, "nothing would look"},
		{"file absent", Client{ID: "a", JWKSFile: "/nonexistent/k"}, "/nonexistent/k"},
		{"file that others write", Client{ID: "a", JWKSFile: open}, "chmod go-w"},
		{"a secret", Client{ID: "a", JWKSFile: secret}, secret},
	} {
		_, err := NewClients([]Client{{ID: "ci", JWKSFile: keys}, c.client})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", c.name, err, c.want)
		} else if strings.Contains(err.Error(), "Q0FOQVJZ") {
			t.Errorf("%s: tells the key: %v", c.name, err)
		}
	}
	many := make([]Client, maxClients+1)
	for i := range many {
		many[i] = Client{ID: fmt.Sprint(i), Auth: NoAuth}
	}
	if _, err := NewClients(many); err == nil {
		t.Error("over 1,000")
	}
	some, err := NewClients([]Client{{ID: "ci", JWKSFile: keys}, {ID: "spa", Auth: NoAuth}})
	if err != nil || !some.Must("ci") || some.Must("spa") || some.Must("other") || some.Must("") || (*Clients)(nil).Must("ci") {
		t.Errorf("who must authenticate: %v", err)
	}
	if _, err := NewClients(many[1:]); err != nil {
		t.Errorf("1,000: %v", err)
	}
}

func FuzzAuthenticate(f *testing.F) {
	c, ci, _ := newClients(f)
	good := ci.sign(ci.header(""), assertionClaims(f))
	for _, seed := range []string{good, "", "..", good + "="} {
		f.Add(seed, "ci", assertionClaims(f))
	}
	f.Fuzz(func(t *testing.T, assertion, id, claims string) {
		for _, k := range []string{assertion, ci.sign(ci.header(""), claims)} {
			form := assertionForm(k, "client_id", id)
			got, err := c.Authenticate(form, "", brokerAudiences, testNow)
			if (err == nil) != (got != "") || err == nil && (got != id || got != "ci") {
				t.Errorf("%q, client_id %q: %q, %v", k, id, got, err)
			}
			if err != nil {
				continue
			}
			if k == assertion && k != good {
				t.Errorf("%q: nobody signed it", k)
			}
			if _, again := c.Authenticate(form, "", brokerAudiences, testNow); !errors.Is(again, ErrReplay) {
				t.Errorf("%q a second time: %v", k, again)
			}
		}
	})
}
