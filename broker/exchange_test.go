package broker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

// newClients registers "ci" with a key and "cli" without one, and returns what
// signs for "ci".
func newClients(t testing.TB) (*identity.Clients, *token.Keys) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ci")
	keys, err := token.OpenKeys(dir, token.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "jwks.json")
	if err := keys.WriteJWKS(file); err != nil {
		t.Fatal(err)
	}
	clients, err := identity.NewClients([]identity.Client{
		{ID: "ci", JWKSFile: file, Auth: identity.PrivateKeyJWT}, {ID: "cli", Auth: identity.NoAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	return clients, keys
}

// assertion is the client "ci"'s, for an audience; each has a jti of its own.
func assertion(t testing.TB, keys *token.Keys, aud string, ttl time.Duration) string {
	t.Helper()
	payload, _ := json.Marshal(members{
		"iss": "ci", "sub": "ci", "aud": aud, "jti": grants.NewID("a_"), "iat": time.Now().Unix(), "exp": time.Now().Add(ttl).Unix(),
	})
	compact, err := keys.Sign("JWT", payload)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// issuedTo is an identity token of "bot" with more claims.
func (h *house) issuedTo(more members) string {
	h.t.Helper()
	keys, err := token.OpenKeys(filepath.Dir(h.issuer.JWKSFile()), token.EdDSA)
	if err != nil {
		h.t.Fatal(err)
	}
	claims := members{"iss": foreignIssuer, "sub": "bot", "aud": brokerAud, "jti": grants.NewID("n_"), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range more {
		claims[name] = v
	}
	payload, _ := json.Marshal(claims)
	compact, err := keys.Sign("JWT", payload)
	if err != nil {
		h.t.Fatal(err)
	}
	return compact
}

func withHeader(form string, pairs ...string) *http.Request {
	r := newRequest(ownIssuer, "POST /oauth2/token", "", form)
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
	return r
}

// B12: a client that does not authenticate as it is registered is no client,
// and is not taken for nobody's request either.
func TestB12ClientAuthentication(t *testing.T) {
	clients, keys := newClients(t)
	h := newHouse(t, func(c *Config) { c.Clients = clients })
	task := h.start("", "corp/bot")
	bot := h.as("bot")
	good := func() string { return assertion(t, keys, ownIssuer, time.Minute) }
	form := func(pairs ...string) string { return h.form(bot, append([]string{"task", task}, pairs...)...) }
	const kind = identity.AssertionType
	used := good()
	for _, tc := range []struct {
		name   string
		r      *http.Request
		client string // "": refused
	}{
		{"none at all", withHeader(form()), "corp/bot"},
		{"by its key", withHeader(form("client_assertion", used, "client_assertion_type", kind)), "ci"},
		{"and its name", withHeader(form("client_id", "ci", "client_assertion", good(), "client_assertion_type", kind)), "ci"},
		{"for the token endpoint", withHeader(form("client_assertion", assertion(t, keys, ownIssuer+"/oauth2/token", time.Minute), "client_assertion_type", kind)), "ci"},
		{"a public client", withHeader(form("client_id", "cli")), "cli"},

		{"replayed", withHeader(form("client_assertion", used, "client_assertion_type", kind)), ""},
		{"its name alone", withHeader(form("client_id", "ci")), ""},
		{"an unknown name", withHeader(form("client_id", "nobody")), ""},
		{"another's name", withHeader(form("client_id", "cli", "client_assertion", good(), "client_assertion_type", kind)), ""},
		{"no type", withHeader(form("client_assertion", good())), ""},
		{"a type alone", withHeader(form("client_assertion_type", kind)), ""},
		{"another type", withHeader(form("client_assertion", good(), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")), ""},
		{"another server's", withHeader(form("client_assertion", assertion(t, keys, "https://other.example", time.Minute), "client_assertion_type", kind)), ""},
		{"past", withHeader(form("client_assertion", assertion(t, keys, ownIssuer, -time.Second), "client_assertion_type", kind)), ""},
		{"far ahead", withHeader(form("client_assertion", assertion(t, keys, ownIssuer, time.Hour), "client_assertion_type", kind)), ""},
		{"by another key", withHeader(form("client_assertion", assertion(t, h.keys, ownIssuer, time.Minute), "client_assertion_type", kind)), ""},
		{"junk", withHeader(form("client_assertion", "junk", "client_assertion_type", kind)), ""},
		{"its identity token", withHeader(form("client_assertion", bot, "client_assertion_type", kind)), ""},
		{"a secret", withHeader(form("client_secret", "s3cret")), ""},
		{"a secret beside", withHeader(form("client_secret", "s3cret", "client_assertion", good(), "client_assertion_type", kind)), ""},
		{"Basic", withHeader(form(), "Authorization", "Basic Y2k6eA=="), ""},
		{"Basic beside", withHeader(form("client_assertion", good(), "client_assertion_type", kind), "Authorization", "Basic Y2k6eA=="), ""},
		{"Bearer", withHeader(form(), "Authorization", "Bearer "+bot), ""},
		{"two headers", withHeader(form(), "Authorization", "Basic Y2k6eA==", "Authorization", "Basic Y2k6eA=="), ""},
		{"a secret in the URL", newRequest(ownIssuer, "POST /oauth2/token?client_secret=s3cret", "", form()), ""},
		{"an assertion in the URL", newRequest(ownIssuer, "POST /oauth2/token?client_assertion="+good(), "", form()), ""},
	} {
		h.recorded()
		w := h.do(tc.r)
		status, m := read(t, w)
		rs := h.recorded()
		if tc.client == "" {
			if status != 401 || m["error"] != "invalid_client" || w.Header().Get("WWW-Authenticate") == "" || strings.Contains(w.Body.String(), "s3cret") {
				t.Errorf("%s: %d %v", tc.name, status, m)
			}
			if len(rs) != 1 || rs[0].Client != "" || rs[0].Outcome != audit.Deny {
				t.Errorf("%s: on record: %+v", tc.name, rs)
			}
			if strings.HasPrefix(tc.r.Header.Get("Authorization"), "Basic") && len(tc.r.Header.Values("Authorization")) == 1 &&
				!strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s: %s", tc.name, w.Header().Get("WWW-Authenticate"))
			}
			continue
		}
		if status != 200 {
			t.Errorf("%s: %d %v", tc.name, status, m)
			continue
		}
		c := h.open(m["access_token"].(string), "https://pay.internal")
		g, _ := h.cfg.Table.Grant(c.Details[0].GrantID)
		if c.Client != tc.client || g.Client != tc.client || c.Subject != "corp/bot" {
			t.Errorf("%s: %+v", tc.name, c)
		}
		if want := strings.TrimPrefix(tc.client, "corp/bot"); rs[0].Client != want {
			t.Errorf("%s: on record: %+v", tc.name, rs)
		}
	}

	// One assertion, 100 at a time: one passes.
	once, passed := good(), atomic.Int32{}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if w := h.do(withHeader(form("client_assertion", once, "client_assertion_type", kind))); w.Code == 200 {
				passed.Add(1)
			} else if w.Code != 401 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	if passed.Load() != 1 {
		t.Errorf("%d of 100 replays passed", passed.Load())
	}

	// Where no client is configured, one that tries is told so, and a client_id
	// is not looked at.
	none := newHouse(t)
	task = none.start("", "corp/bot")
	bot = none.as("bot")
	if w := none.do(withHeader(form("client_id", "ci"))); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, r := range []*http.Request{
		withHeader(form("client_assertion", good(), "client_assertion_type", kind)), withHeader(form("client_secret", "x")), withHeader(form(), "Authorization", "Basic Y2k6eA=="),
	} {
		if w := none.do(r); w.Code != 401 || errorOf(t, w) != "invalid_client" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// B02: a client that authenticates gets nothing by that for a subject token
// that is none.
func TestB02ClientWithoutSubject(t *testing.T) {
	clients, keys := newClients(t)
	h := newHouse(t, func(c *Config) { c.Clients = clients })
	task := h.start("", "corp/bot", "corp/ci")
	bot := h.as("bot")
	for name, subject := range map[string]string{
		"none": "", "junk": "junk", "oversized": strings.Repeat("a", 20_000), "dots": strings.Repeat(".", 5_000), "cut": bot[:len(bot)-4],
		"tampered": bot[:len(bot)-8] + "AAAAAAAA", "an assertion": assertion(t, keys, ownIssuer, time.Minute), "a grant token": h.grantToken(task),
		"expired": h.issuedTo(members{"exp": time.Now().Add(-time.Second).Unix()}),
	} {
		form := h.form("x", "subject_token", subject, "task", task, "client_assertion", assertion(t, keys, ownIssuer, time.Minute), "client_assertion_type", identity.AssertionType)
		w := h.do(withHeader(form))
		if w.Code != 400 || errorOf(t, w) != "invalid_request" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func (h *house) grantToken(task grants.ID) string {
	h.t.Helper()
	m := h.must("POST /oauth2/token", "", h.form(h.as("bot"), "task", task))
	return m["access_token"].(string)
}

// B03: a subject token of another audience, for more than us, or of another
// client.
func TestB03OtherAudienceOtherClient(t *testing.T) {
	clients, keys := newClients(t)
	h := newHouse(t, func(c *Config) { c.Clients = clients })
	task := h.start("", "corp/bot")
	for _, tc := range []struct {
		name   string
		claims members
		client bool
		status int
		code   string
	}{
		{"ours", members{}, true, 200, ""},
		{"issued to the client", members{"azp": "ci"}, true, 200, ""},
		{"issued to the client, by client_id", members{"client_id": "ci"}, true, 200, ""},
		{"issued to a client that must authenticate, which does not", members{"azp": "ci"}, false, 401, "invalid_client"},
		{"the same, by client_id", members{"client_id": "ci"}, false, 401, "invalid_client"},
		{"issued to a public client", members{"azp": "cli"}, false, 200, ""},
		{"issued to a client that is not registered", members{"azp": "other"}, false, 200, ""},
		{"issued to another", members{"azp": "cli"}, true, 400, "invalid_target"},
		{"issued to another, by client_id", members{"client_id": "other"}, true, 400, "invalid_target"},
		{"azp counts before client_id", members{"azp": "other", "client_id": "ci"}, true, 400, "invalid_target"},
		{"another audience", members{"aud": "other"}, true, 400, "invalid_target"},
		{"another audience, no client", members{"aud": "other"}, false, 400, "invalid_target"},
		{"the tool server's", members{"aud": "https://pay.internal"}, false, 400, "invalid_target"},
		{"ours and the tool server's", members{"aud": []string{brokerAud, "https://rep.internal"}}, false, 400, "invalid_target"},
	} {
		var client []string
		if tc.client {
			client = []string{"client_assertion", assertion(t, keys, ownIssuer, time.Minute), "client_assertion_type", identity.AssertionType}
		}
		w := h.do(withHeader(h.form(h.issuedTo(tc.claims), append(client, "task", task)...)))
		if w.Code != tc.status || tc.code != "" && errorOf(t, w) != tc.code {
			t.Errorf("%s: %d %s", tc.name, w.Code, w.Body)
		}
	}
}

// A token of a client that must authenticate buys nothing where none does; the
// rest of the API it opens, since it says who asks.
func TestB03ClientsTokenAtTheAPI(t *testing.T) {
	clients, _ := newClients(t)
	h := newHouse(t, func(c *Config) { c.Clients = clients })
	task := h.start("", "corp/bot")
	ask := `{"task":"` + task + `","grants":[{"tool":"pay/send"}]}`
	for _, claims := range []members{{"azp": "ci"}, {"client_id": "ci"}, {"azp": "ci", "client_id": "cli"}} {
		bearer := h.issuedTo(claims)
		if help := h.refuse("POST /v1/grants", bearer, ask, 401, grants.CredentialKind); !strings.Contains(help, "POST /oauth2/token") {
			t.Errorf("%v: %s", claims, help)
		}
		h.must("GET /v1/tasks/"+task, bearer, "")
	}
	for _, claims := range []members{{"azp": "cli"}, {"client_id": "other"}, {}} {
		h.must("POST /v1/grants", h.issuedTo(claims), ask)
	}
}

// Scope is split at the one blank of RFC 6749, Section 3.3.
func TestScopeIsStrict(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	for scope, good := range map[string]bool{
		"pay/send": true, "pay/send pay/show": true,
		"pay/send\tpay/show": false, "pay/send\npay/show": false, "pay/send\u00a0pay/show": false, "pay/send\u2028pay/show": false,
		"pay/send  pay/show": false, " pay/send": false, "pay/send ": false, " ": false, "pay/send\t": false, "pay/send,pay/show": false,
	} {
		w := h.shell.ask("POST /oauth2/token", "", h.form(h.as("bot"), "task", task, "scope", scope))
		if good != (w.Code == 200) || !good && errorOf(t, w) != "invalid_scope" {
			t.Errorf("%q: %d %s", scope, w.Code, w.Body)
		}
	}
}

// B05: nobody acts for another at the token endpoint, whatever chain it shows.
func TestB05Actors(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	bot := h.as("bot")
	act := members{"sub": "x"}
	for range 100 {
		act = members{"sub": "x", "act": act}
	}
	for name, form := range map[string]string{
		"itself":            h.form(bot, "task", task, "actor_token", bot, "actor_token_type", typeJWT),
		"another":           h.form(bot, "task", task, "actor_token", h.as("mate"), "actor_token_type", typeJWT),
		"a type alone":      h.form(bot, "task", task, "actor_token_type", typeJWT),
		"a token alone":     h.form(bot, "task", task, "actor_token", bot),
		"a chain in it":     h.form(bot, "task", task, "actor_token", h.issuedTo(members{"act": act}), "actor_token_type", typeJWT),
		"may_act, mismatch": h.form(h.issuedTo(members{"may_act": members{"sub": "z"}}), "task", task, "actor_token", h.as("mate"), "actor_token_type", typeJWT),
	} {
		w := h.shell.ask("POST /oauth2/token", "", form)
		if w.Code != 400 || errorOf(t, w) != "invalid_request" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if found, _ := h.cfg.Table.GrantsOf(task, func(*grants.Grant) bool { return true }, 9); len(found) != 0 {
		t.Errorf("%d grants", len(found))
	}
}

// B06: times that are none, and times that are cut.
func TestB06Times(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	for ttl, want := range map[string]int{ // seconds; 0: refused
		"0": 0, "-1": 0, "1": 0, "PT1H": 0, "1e9": 0, "3.5": 0, " 5": 0, "0x10": 0, "99999999999999999999": 0, "+5": 0, "1_0": 0,
		"2": 2, "1000000000": 900, "9223372036854775807": 900, "901": 900,
	} {
		w := h.shell.ask("POST /oauth2/token", "", h.form(h.as("bot"), "task", task, "ttl", ttl))
		status, m := read(t, w)
		if want == 0 {
			if status != 400 || m["error"] != "invalid_request" || !strings.Contains(m["error_description"].(string), "2 or more") {
				t.Errorf("ttl %s: %d %v", ttl, status, m)
			}
			continue
		}
		if in := m["expires_in"].(float64); status != 200 || int(in) > want || int(in) < want-2 {
			t.Errorf("ttl %s: %d %v", ttl, status, m)
		}
	}
	// The task's and the identity token's end cut it, too; and where no second
	// is left, the answer says which it is.
	short := h.start(`,"ttl":1`, "corp/bot")
	w := h.shell.ask("POST /oauth2/token", "", h.form(h.as("bot"), "task", short))
	if _, m := read(t, w); w.Code != 400 || m["reason"] == "bad_ttl" && !strings.Contains(m["error_description"].(string), "the task ends at") {
		t.Errorf("%d %v", w.Code, m)
	}
	for body, why := range map[string]grants.Reason{
		`{"kind":"k","ttl":0}`: grants.BadTTL, `{"kind":"k","ttl":-1}`: grants.BadTTL, `{"kind":"k","ttl":"1"}`: grants.Malformed,
		`{"kind":"k","beat":1}`: grants.BadTTL, `{"kind":"k","beat":3601}`: grants.BadTTL, `{"kind":"k","beat":-9223372036854775808}`: grants.Malformed,
	} {
		h.refuse("POST /v1/tasks", h.as("bot"), body, 400, why)
	}
}

// B11: a form that can be read in two ways is not read.
func TestB11Forms(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	bot := h.as("bot")
	good := h.form(bot, "task", task)
	post := func(body string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := withHeader(good)
		if body != good {
			r = newRequest(ownIssuer, "POST /oauth2/token", "", body)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if change != nil {
			change(r)
		}
		return h.do(r)
	}
	for _, tc := range []struct {
		name   string
		body   string
		change func(*http.Request)
		status int
		code   string
	}{
		{"good", good, nil, 200, ""},
		{"an unknown parameter is ignored", good + "&foo=bar", nil, 200, ""},
		{"a parameter without a value is none", good + "&actor_token=&authorization_details=", nil, 200, ""},
		{"with a charset", good, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
		}, 200, ""},
		{"a parameter twice", good + "&task=" + task, nil, 400, "invalid_request"},
		{"an unknown one twice", good + "&foo=1&foo=1", nil, 400, "invalid_request"},
		{"an empty one twice", good + "&foo=&foo=", nil, 400, "invalid_request"},
		{"two resources", good + "&resource=https%3A%2F%2Frep.internal", nil, 400, "invalid_target"},
		{"one resource twice", good + "&resource=https%3A%2F%2Fpay.internal", nil, 400, "invalid_request"},
		{"two audiences", good + "&audience=pay&audience=rep", nil, 400, "invalid_target"},
		{"grant_type in capitals", strings.Replace(good, "urn%3Aietf", "URN%3AIETF", 1), nil, 400, "unsupported_grant_type"},
		{"a code", h.form(bot, "task", task, "grant_type", "authorization_code") + "&code=x", nil, 400, "unsupported_grant_type"},
		{"client credentials", h.form(bot, "task", task, "grant_type", "client_credentials"), nil, 400, "unsupported_grant_type"},
		{"no grant_type", strings.Replace(good, "grant_type=", "x=", 1), nil, 400, "invalid_request"},
		{"GRANT_TYPE", strings.Replace(good, "grant_type=", "GRANT_TYPE=", 1), nil, 400, "invalid_request"},
		{"nothing", "", nil, 400, "invalid_request"},
		{"a bad escape", good + "&x=%zz", nil, 400, "invalid_request"},
		{"a semicolon", good + ";x=y", nil, 400, "invalid_request"},
		{"as JSON", good, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 400, "invalid_request"},
		{"as multipart", good, func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") }, 400, "invalid_request"},
		{"in UTF-16", good, func(r *http.Request) {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-16")
		}, 400, "invalid_request"},
		{"of no type", good, func(r *http.Request) { r.Header.Del("Content-Type") }, 400, "invalid_request"},
		{"compressed", good, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 415, "invalid_request"},
		{"parameters in the URL", good, func(r *http.Request) { r.URL.RawQuery = "task=" + task }, 400, "invalid_request"},
		{"1 MB", good + "&x=" + strings.Repeat("x", 1<<20), nil, 413, "invalid_request"},
		{"no such server", h.form(bot, "task", task, "resource", "https://none.internal"), nil, 400, "invalid_target"},
		{"no server", h.form(bot, "task", task, "resource", ""), nil, 400, "invalid_target"},
		{"resource and audience disagree", h.form(bot, "task", task, "audience", "rep"), nil, 400, "invalid_target"},
		{"details and scope", good + "&authorization_details=%5B%5D", nil, 400, "invalid_request"},
		{"details of another server", h.form(bot, "scope", "", "resource", "", "authorization_details", fmt.Sprintf(
			`[{"type":"urn:toolgrant:grant:1","tool":"pay/send","task":%q},{"type":"urn:toolgrant:grant:1","tool":"rep/export","task":%q}]`, task, task)), nil, 400, "invalid_target"},
	} {
		w := post(tc.body, tc.change)
		if w.Code != tc.status || tc.code != "" && errorOf(t, w) != tc.code {
			t.Errorf("%s: %d %s", tc.name, w.Code, w.Body)
		}
		if w.Header().Get("Cache-Control") != "no-store" || strings.Contains(w.Body.String(), bot) {
			t.Errorf("%s: %v %s", tc.name, w.Header(), w.Body)
		}
	}
	// What is refused for several servers says where several can be asked for.
	w := post(h.form(bot, "scope", "pay/send rep/export", "task", task), nil)
	if _, m := read(t, w); !strings.Contains(m["error_description"].(string), "POST /v1/grants") {
		t.Errorf("%v", m)
	}
}
