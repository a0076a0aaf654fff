package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

// document is openapi.json, read.
type document struct {
	t        testing.TB
	root     map[string]any
	compiler *jsonschema.Compiler
}

// readDocument reads it; strict has answers hold nothing that is not described,
// which clients are not told to rely on.
func readDocument(t testing.TB, strict bool) *document {
	t.Helper()
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPIText))
	if err != nil {
		t.Fatal(err)
	}
	d := &document{t: t, root: root.(map[string]any), compiler: jsonschema.NewCompiler()}
	if strict {
		walk(d.root, "", func(_ string, m map[string]any) {
			if _, object := m["properties"].(map[string]any); object && m["type"] == "object" && m["additionalProperties"] == nil {
				m["additionalProperties"] = false
			}
		})
	}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("https://broker.example/openapi.json", d.root); err != nil {
		t.Fatal(err)
	}
	return d
}

// walk visits every object below v, with its JSON Pointer.
func walk(v any, at string, visit func(at string, m map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(at, v)
		for k, sub := range v {
			walk(sub, at+"/"+strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1"), visit)
		}
	case []any:
		for i, sub := range v {
			walk(sub, fmt.Sprint(at, "/", i), visit)
		}
	}
}

// at follows a JSON Pointer, and the $ref that it may end at, and gives where
// that is.
func (d *document) at(pointer string) (any, string) {
	d.t.Helper()
	var v any = d.root
	for _, k := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		m, _ := v.(map[string]any)
		var ok bool
		if v, ok = m[strings.ReplaceAll(strings.ReplaceAll(k, "~1", "/"), "~0", "~")]; !ok {
			d.t.Fatalf("openapi.json has no %s", pointer)
		}
	}
	if m, ok := v.(map[string]any); ok {
		if ref, ok := m["$ref"].(string); ok && !strings.Contains(pointer, "/schema") {
			return d.at(strings.TrimPrefix(ref, "#"))
		}
	}
	return v, pointer
}

// validate holds a value against the schema at a pointer.
func (d *document) validate(pointer string, value any) error {
	d.t.Helper()
	parts := strings.Split(pointer, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	schema, err := d.compiler.Compile("https://broker.example/openapi.json#" + strings.Join(parts, "/"))
	if err != nil {
		d.t.Fatalf("%s: %v", pointer, err)
	}
	return schema.Validate(value)
}

// operations are all "METHOD PATH" that are described, with their places.
func (d *document) operations() map[string]string {
	found := map[string]string{}
	paths, _ := d.at("/paths")
	for path, item := range paths.(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				found[strings.ToUpper(method)+" "+path] = "/paths/" + strings.ReplaceAll(path, "/", "~1") + "/" + method
			}
		}
	}
	return found
}

// TestDocumentAndRoutes: what is described is there, and the other way round.
func TestDocumentAndRoutes(t *testing.T) {
	d := readDocument(t, false)
	var routes []string
	for _, r := range testBroker(t).routes() {
		routes = append(routes, strings.ReplaceAll(r.pattern, "...}", "}"))
	}
	slices.Sort(routes)
	described := slices.Sorted(maps.Keys(d.operations()))
	if diff := cmp.Diff(described, routes); diff != "" {
		t.Errorf("described (-), routes (+):\n%s", diff)
	}
	ids := map[any]string{}
	for what, at := range d.operations() {
		op, _ := d.at(at)
		id := op.(map[string]any)["operationId"]
		if other := ids[id]; other != "" || id == nil {
			t.Errorf("%s: operationId %v is %s's", what, id, other)
		}
		ids[id] = what
		_, open := op.(map[string]any)["security"]
		if _, api := strings.CutPrefix(at, "/paths/~1v1~1"); api == open {
			t.Errorf("%s: the identity token is not where it should be", what)
		}
	}
}

// TestDocumentHoldsTogether: every reference leads somewhere and every component
// is used, every schema compiles, and every example is one.
func TestDocumentHoldsTogether(t *testing.T) {
	d := readDocument(t, true)
	used := map[string]bool{}
	examples := 0
	walk(d.root, "", func(at string, m map[string]any) {
		if ref, ok := m["$ref"].(string); ok {
			if !strings.HasPrefix(ref, "#/components/") {
				t.Errorf("%s: $ref %s", at, ref)
				return
			}
			used[ref] = true
			d.at(strings.TrimPrefix(ref, "#"))
		}
		if _, media := m["schema"]; media && strings.Contains(at, "/content/") {
			example, ok := m["example"]
			if !ok {
				t.Errorf("%s: no example", at)
				return
			}
			examples++
			if err := d.validate(at+"/schema", example); err != nil {
				t.Errorf("%s: the example: %v", at, err)
			}
		}
	})
	if examples < 25 {
		t.Errorf("%d examples were looked at", examples)
	}
	components, _ := d.at("/components")
	for kind, all := range components.(map[string]any) {
		if kind == "securitySchemes" {
			continue
		}
		for name := range all.(map[string]any) {
			if !used["#/components/"+kind+"/"+name] {
				t.Errorf("%s %s is not used", kind, name)
			}
		}
	}
}

// TestConstraintsOfTheDocument: those of the examples are constraints, the digest
// that is shown is theirs, and what the document says of the profile is what the
// compiler takes.
func TestConstraintsOfTheDocument(t *testing.T) {
	d := readDocument(t, false)
	digests := map[string]bool{}
	var shown []string
	walk(d.root["paths"], "/paths", func(at string, m map[string]any) {
		if list, ok := m["constraints"].([]any); ok {
			var raw []json.RawMessage
			for _, c := range list {
				text, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				raw = append(raw, text)
			}
			if _, err := grants.CompileConstraints(raw); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			digest, err := grants.ConstraintsDigest(raw)
			if err != nil {
				t.Error(err)
			}
			digests[digest.String()] = true
		}
		if digest, ok := m["constraints_digest"].(string); ok {
			shown = append(shown, digest)
		}
	})
	if len(digests) == 0 || len(shown) == 0 {
		t.Fatalf("examples show the constraints of the digests %v, and the digests %v", digests, shown)
	}
	for _, digest := range shown {
		if !digests[digest] {
			t.Errorf("%s is the digest of no constraints in the examples", digest)
		}
	}
	of := func(member string) string {
		return `{"type":"object","properties":{"a":` + member + `},"required":["a"],"additionalProperties":false}`
	}
	for text, good := range map[string]bool{
		of(`{"type":"string","pattern":"^(?:[a-z]+)$","minLength":1,"maxLength":9}`):                true,
		of(`{"type":"string","enum":["x","y"]}`):                                                    true,
		of(`{"type":"integer","minimum":1,"maximum":2}`):                                            true,
		of(`{"type":"number","exclusiveMinimum":1,"exclusiveMaximum":2.5}`):                         true,
		of(`{"type":"boolean","const":true}`):                                                       true,
		of(`{"type":"null"}`):                                                                       true,
		of(`{"type":"array","items":{"type":"string"},"maxItems":3}`):                               true,
		of(`{"type":"object","additionalProperties":false}`):                                        true,
		`{"type":"string"}`:                                                                         false,
		of(`{"const":"x"}`):                                                                         false,
		of(`{"type":["string","null"]}`):                                                            false,
		of(`{"type":"string","minimum":1}`):                                                         false,
		of(`{"type":"integer","pattern":"^(?:a)$"}`):                                                false,
		of(`{"type":"string","pattern":"a"}`):                                                       false,
		of(`{"type":"string","format":"date"}`):                                                     false,
		of(`{"type":"string","const":"x","enum":["x"]}`):                                            false,
		of(`{"type":"array"}`):                                                                      false,
		of(`{"type":"string","items":{"type":"string"}}`):                                           false,
		of(`{"type":"object","properties":{}}`):                                                     false,
		of(`{"type":"object","additionalProperties":true}`):                                         false,
		of(`{"type":"string","enum":[]}`):                                                           false,
		of(`{"type":"object","propertys":{},"additionalProperties":false}`):                         false,
		of(`{"type":"string","maxLength":-1}`):                                                      false,
		of(`{"type":"array","items":{"$ref":"#"}}`):                                                 false,
		of(`{"type":"string","pattern":"^(?:` + strings.Repeat("a", 256) + `)$"}`):                  false,
		of(`{"type":"object","properties":{"b":{}},"required":["b"],"additionalProperties":false}`): false,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		described := d.validate("/components/schemas/Constraint", value)
		_, compiled := grants.CompileConstraint([]byte(text))
		if (described == nil) != good || (compiled == nil) != good {
			t.Errorf("%s: the document says %v, the compiler %v", text, described, compiled)
		}
	}
}

// TestDocumentHasEveryAnswer: reasons, errors and statuses of the table of
// answers are described.
func TestDocumentHasEveryAnswer(t *testing.T) {
	d := readDocument(t, false)
	enum := func(at string) (texts []string) {
		v, _ := d.at(at)
		for _, e := range v.([]any) {
			texts = append(texts, e.(string))
		}
		return texts
	}
	var reasons []string
	for _, why := range grants.Reasons() {
		reasons = append(reasons, why.String())
	}
	if diff := cmp.Diff(enum("/components/schemas/Reason/enum"), reasons); diff != "" {
		t.Errorf("reasons, described (-) and given (+):\n%s", diff)
	}
	api, oauth := enum("/components/schemas/Denial/properties/error/enum"), enum("/components/schemas/OAuthDenial/properties/error/enum")
	for why, a := range answers {
		if !slices.Contains(api, a.error) || !slices.Contains(oauth, a.oauth) {
			t.Errorf("%v: error %q or %q is not described", why, a.error, a.oauth)
		}
	}
}

// tour makes calls and holds each request and answer to the document.
type tour struct {
	*shell
	doc     *document
	visited map[string]bool // "METHOD PATH STATUS"
}

// call makes one call; path's {…} are filled with ids.
func (tr *tour) call(status int, what, bearer, body string, ids ...string) *httptest.ResponseRecorder {
	tr.t.Helper()
	real, query, _ := strings.Cut(what, "?")
	what = real
	for _, id := range ids {
		from, to := strings.Index(real, "{"), strings.Index(real, "}")
		real = real[:from] + id + real[to+1:]
	}
	if query != "" {
		real += "?" + query
	}
	w := tr.ask(real, bearer, body)
	if w.Code != status {
		tr.t.Fatalf("%s: %d %s, want %d", real, w.Code, w.Body, status)
	}
	tr.visited[fmt.Sprint(what, " ", status)] = true
	at := tr.doc.operations()[what]
	_, response := tr.doc.at(fmt.Sprint(at, "/responses/", status))
	mime := strings.ReplaceAll(w.Header().Get("Content-Type"), "/", "~1")
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		tr.t.Fatalf("%s: %v", real, err)
	}
	if err := tr.doc.validate(response+"/content/"+mime+"/schema", value); err != nil {
		tr.t.Errorf("%s: %d %s: %v", real, status, w.Body, err)
	}
	if answer, _ := tr.doc.at(response); answer.(map[string]any)["headers"] != nil {
		for name := range answer.(map[string]any)["headers"].(map[string]any) {
			if w.Header().Get(name) == "" {
				tr.t.Errorf("%s: %d: no %s", real, status, name)
			}
		}
	}
	if status < 300 && body != "" {
		tr.validateRequest(what, at, body)
	}
	return w
}

func (tr *tour) validateRequest(what, at, body string) {
	tr.t.Helper()
	mime := "application~1json"
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if strings.HasPrefix(body, "grant_type=") {
		mime = "application~1x-www-form-urlencoded"
		var form url.Values
		form, err = url.ParseQuery(body)
		fields := map[string]any{}
		for k, v := range form {
			fields[k] = v[0]
		}
		value = fields
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := tr.doc.validate(at+"/requestBody/content/"+mime+"/schema", value); err != nil {
		tr.t.Errorf("%s: the request %s: %v", what, body, err)
	}
}

// TestAnswersAreAsDescribed: a tour of every route, with real answers of every
// success and of every kind of refusal.
func TestAnswersAreAsDescribed(t *testing.T) {
	tr := &tour{shell: newShell(t, func(c *Config) { c.Issuer = "http://127.0.0.1:8181/tenant" }), doc: readDocument(t, true), visited: map[string]bool{}}
	me := tr.identity("planner")

	task := field(t, tr.call(201, "POST /v1/tasks", me, `{"kind":"k","agents":["corp/planner","corp/bot"],"ttl":3600,"beat":60}`), 201, "task")
	tr.call(200, "POST /v1/tasks/{id}/beat", me, "", task)
	constraint := `[{"type":"object","additionalProperties":false}]`
	tr.call(200, "POST /v1/grants", me, `{"task":"`+task+`","grants":[{"tool":"a/x","ttl":300,"max_calls":3,"constraints":`+constraint+`},{"tool":"b/x"}]}`)
	tr.call(200, "POST /v1/grants", me, `{"task":"`+task+`","agent":"corp/bot","grants":[{"tool":"a/y"}]}`)
	tr.call(200, "POST /oauth2/token", "", exchangeForm(me, task, "a/x"))
	var bought tokenAnswer
	w := tr.call(200, "POST /oauth2/token", "", "grant_type="+url.QueryEscape(grantTypeExchange)+"&"+url.Values{
		"subject_token": {me}, "subject_token_type": {typeJWT},
		"authorization_details": {`[{"type":"urn:toolgrant:grant:1","tool":"a/y","task":"` + task + `","ttl":60}]`},
	}.Encode())
	if err := json.Unmarshal(w.Body.Bytes(), &bought); err != nil {
		t.Fatal(err)
	}
	old := bought.Details[0].GrantID
	tr.call(200, "POST /v1/grants", me, `{"task":"`+task+`","grants":[{"tool":"a/y","renew":"`+old+`"}]}`)
	tr.call(200, "GET /v1/tasks/{id}", me, "", task)
	tr.call(200, "GET /v1/tasks?kind=k&owner=corp/planner&agent=corp/bot", me, "")
	list := tr.call(200, "GET /v1/grants?task="+task+"&agent=corp/planner&tool=a/x", me, "")
	var listed grantsListAnswer
	if err := json.Unmarshal(list.Body.Bytes(), &listed); err != nil || len(listed.Grants) == 0 {
		t.Fatalf("%s: %v", list.Body, err)
	}
	tr.call(200, "DELETE /v1/grants/{id}", me, "", listed.Grants[0].GrantID)
	tr.call(200, "DELETE /v1/grants?tool=b/x", me, "")
	tr.call(200, "POST /v1/tasks/{id}/end", me, "", task)
	tr.call(200, "DELETE /v1/grants?task="+tr.task(me), me, "")
	tr.call(200, "GET /.well-known/jwks.json", "", "")
	tr.call(200, "GET /.well-known/oauth-authorization-server", "", "")
	tr.call(200, "GET /.well-known/oauth-authorization-server/{path}", "", "", "tenant")
	tr.call(200, "GET /openapi.json", "", "")
	for what, at := range tr.doc.operations() {
		success := 200
		if what == "POST /v1/tasks" {
			success = 201
		}
		if !tr.visited[fmt.Sprint(what, " ", success)] {
			t.Errorf("%s was not called", what)
		}
		if _, api := strings.CutPrefix(at, "/paths/~1v1~1"); !api {
			continue
		}
		// What every call of the API can be answered.
		path := strings.ReplaceAll(what, "{id}", task)
		_, denied := tr.doc.at(at + "/responses/401")
		if w := tr.ask(path, "", ""); w.Code != 401 || tr.doc.validate(denied+"/content/application~1json/schema", parsed(t, w)) != nil {
			t.Errorf("%s, without a token: %d %s", what, w.Code, w.Body)
		}
	}

	tr.call(400, "POST /v1/tasks", me, `{"kind":""}`)
	tr.call(413, "POST /v1/tasks", me, `{"kind":"`+strings.Repeat("k", maxBody)+`"}`)
	tr.call(404, "POST /v1/tasks/{id}/end", me, "", "t_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	tr.call(404, "DELETE /v1/grants/{id}", me, "", "g_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	tr.call(409, "POST /v1/grants", me, `{"task":"`+task+`","grants":[{"tool":"a/x"}]}`)
	tr.call(400, "POST /oauth2/token", "", "grant_type=password")
	w = tr.call(401, "POST /oauth2/token", "", exchangeForm(me, task, "a/x")+"&client_secret=x")
	if got := field(t, w, 401, "error"); got != "invalid_client" {
		t.Errorf("a client secret: %s", got)
	}
}

// TestLimitAndUnavailableAreAsDescribed in both styles.
func TestLimitAndUnavailableAreAsDescribed(t *testing.T) {
	for name, bad := range map[string]struct {
		status int
		change func(*Config)
	}{
		"limit":       {429, func(c *Config) { c.RatePerAgent = 1 }},
		"unavailable": {503, func(c *Config) { c.Decide = nil }}, // a panic at the door
	} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t, bad.change)
			tr := &tour{shell: s, doc: readDocument(t, true), visited: map[string]bool{}}
			me := s.identity("a")
			eventually(t, name, func() bool { return s.ask("POST /v1/tasks", me, `{"kind":"k"}`).Code == bad.status })
			if name == "limit" {
				s.limits.allowance("corp/a", time.Now()).SetBurst(0)
			}
			tr.call(bad.status, "POST /v1/tasks", me, `{"kind":"k"}`)
			if name == "limit" {
				tr.call(bad.status, "POST /oauth2/token", "", exchangeForm(me, "t_aaaaaaaaaaaaaaaaaaaaaaaaaa", "a/x"))
			}
		})
	}
}

func parsed(t testing.TB, w *httptest.ResponseRecorder) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestMetadata as an OAuth client reads it: RFC 8414, Section 3.3 has it compare
// the issuer.
func TestMetadata(t *testing.T) {
	const root = "/.well-known/oauth-authorization-server"
	for name, c := range map[string]struct {
		issuer, public string
		clients        bool
		at, nowhere    string
		base           string
		methods        []string
	}{
		"plain":   {"https://broker.example", "", false, root, root + "/tenant", "https://broker.example", []string{"none"}},
		"slash":   {"https://broker.example/", "", false, root, root + "/", "https://broker.example", []string{"none"}},
		"path":    {"https://broker.example/a/b", "", false, root + "/a/b", root + "/a", "https://broker.example/a/b", []string{"none"}},
		"public":  {"https://broker.example", "https://proxy.example/tg/", false, root, root + "/tg", "https://proxy.example/tg", []string{"none"}},
		"clients": {"https://broker.example", "", true, root, root + "/x", "https://broker.example", []string{"none", "private_key_jwt"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t, func(cfg *Config) {
				cfg.Issuer, cfg.PublicURL = c.issuer, c.public
				if c.clients {
					cfg.Clients = new(identity.Clients)
				}
			})
			w := s.ask("GET "+c.at, "", "")
			var got serverMetadata
			dec := json.NewDecoder(w.Body)
			dec.DisallowUnknownFields()
			if err := dec.Decode(&got); err != nil || w.Code != http.StatusOK {
				t.Fatalf("%d: %v", w.Code, err)
			}
			want := serverMetadata{
				Issuer: c.issuer, TokenEndpoint: c.base + "/oauth2/token", JWKS: c.base + "/.well-known/jwks.json",
				ResponseTypes: []string{}, GrantTypes: []string{"urn:ietf:params:oauth:grant-type:token-exchange"},
				AuthMethods: c.methods, DetailTypes: []string{"urn:toolgrant:grant:1"}, Documentation: c.base + "/openapi.json",
			}
			if c.clients {
				want.AuthAlgs = []string{"EdDSA", "ES256", "RS256"}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if w := s.ask("GET "+c.nowhere, "", ""); w.Code != http.StatusNotFound {
				t.Errorf("%s: %d %s", c.nowhere, w.Code, w.Body)
			}
		})
	}
}
