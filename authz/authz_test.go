package authz

import (
	"context"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	jsonv2 "github.com/go-json-experiment/json"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const tools = `
servers:
- id: srv
  resource: https://srv.internal
  upstream: 127.0.0.1:1
  http:
  - tool: full
    method: POST
    path: /full
    query: {format: {enum: [csv, pdf]}, page: {type: integer}, dry: {type: boolean}, q: {type: string}}
    header: {x-tenant: {type: string}}
    body: {type: object, properties: {month: {type: string}, rows: {type: array, items: {type: number}}, note: {type: string}}, required: [month]}
    opaque: [/body/note]
  - {tool: bare, method: GET, path: /bare}
  - {tool: open, method: GET, path: /open, sets: [read]}
  - {tool: own, method: GET, path: /own, credential: x-own-token}
  - {tool: passes, method: GET, path: /passes, credential: x-own-token, pass_authorization: true}
  - {tool: pay, method: POST, path: /pay, body: {type: object, properties: {amount: {type: number}, to: {type: string}}, required: [amount]}}
- {id: other, resource: "https://other.internal", upstream: "127.0.0.1:1", http: [{tool: open, method: GET, path: /other, sets: [read]}]}
`

// testDoor is one that parses; header is where the credential is, "" the default.
func testDoor(t testing.TB, header string) *Door {
	cat, err := catalog.Parse("tools.yaml", []byte(tools))
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Catalog: cat, Logger: zap.NewNop(), CredentialHeader: header})
}

// ask builds what Envoy would send. Headers are name, value, …
func ask(tool, method, path, body string, headers ...string) *authv3.CheckRequest {
	hm := &corev3.HeaderMap{}
	for i := 0; i+1 < len(headers); i += 2 {
		hm.Headers = append(hm.Headers, &corev3.HeaderValue{Key: headers[i], RawValue: []byte(headers[i+1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{ContextTool: tool},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, HeaderMap: hm, RawBody: []byte(body),
		}},
	}}
}

// read reads a whole request, as judge does for a known caller.
func read(d *Door, req *authv3.CheckRequest, c *call) (grants.Reason, string) {
	if why, detail := d.parse(req, c); why != grants.None {
		return why, detail
	}
	return d.readInput(req, c)
}

// TestEveryReasonHasAnAnswer: a denial must come out as one, whoever gives it.
func TestEveryReasonHasAnAnswer(t *testing.T) {
	for _, why := range append(grants.Reasons(), grants.None, grants.Reason(250)) {
		r := plain(why).response("d_x", nil)
		if !sound(r) || r.GetDeniedResponse() == nil {
			t.Errorf("%v: %v", why, r)
		}
		if a, ok := answers[why]; why != grants.None && why != 250 && (!ok || a.help == "" || a.status == 401 && a.challenge == "") {
			t.Errorf("%v: no full answer", why)
		}
	}
}

// TestNoVerdictIsADenial: the zero values of everything deny.
func TestNoVerdictIsADenial(t *testing.T) {
	if (grants.Decision{}).Refusal() == grants.None {
		t.Error("a zero Decision allows")
	}
	if (grants.Decision{Allow: true, Reason: grants.PolicyError}).Refusal() == grants.None {
		t.Error("a Decision that contradicts itself allows")
	}
	if (verdict{}).allow {
		t.Error("a zero verdict allows")
	}
}

// TestDecidersThatDoNotDecide: too few answers, an error, a late answer.
func TestDecidersThatDoNotDecide(t *testing.T) {
	yes := grants.Decision{Allow: true}
	for name, decide := range map[string]grants.Decider{
		"none": func(context.Context, []grants.Input) ([]grants.Decision, error) { return nil, nil },
		"too many": func(context.Context, []grants.Input) ([]grants.Decision, error) {
			return []grants.Decision{yes, yes}, nil
		},
		"error": func(context.Context, []grants.Input) ([]grants.Decision, error) {
			return []grants.Decision{yes}, os.ErrClosed
		},
	} {
		d := testDoor(t, "")
		d.cfg.Decide = decide
		if _, why := d.ask(t.Context(), &check{}, grants.Input{}); why != grants.Undecided {
			t.Errorf("%s: %v", name, why)
		}
	}
	d := testDoor(t, "")
	d.cfg.Decide = func(context.Context, []grants.Input) ([]grants.Decision, error) { return []grants.Decision{yes}, nil }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, why := d.ask(ctx, &check{}, grants.Input{}); why != grants.Undecided {
		t.Errorf("an answer after the time: %v", why)
	}
}

func TestParse(t *testing.T) {
	d := testDoor(t, "")
	cred := []string{"authorization", "Bearer x"}
	json := append(slices.Clone(cred), "content-type", "application/json")
	for _, tc := range []struct {
		name string
		req  *authv3.CheckRequest
		want grants.Reason
	}{
		{"bare", ask("srv/bare", "GET", "/bare", "", cred...), grants.None},
		{"full", ask("srv/full", "POST", "/full?format=csv&page=3&dry=true&q=a%20b", `{"month":"x","rows":[1.5]}`, append(json, "x-tenant", "a")...), grants.None},
		{"an opaque member may be anything", ask("srv/full", "POST", "/full", `{"month":"x","note":{"deep":[null]}}`, json...), grants.None},
		{"two credentials", ask("srv/bare", "GET", "/bare", "", append(cred, "authorization", "Bearer y")...), grants.Ambiguous},
		{"nothing", &authv3.CheckRequest{}, grants.Malformed},
		{"no tool", ask("", "GET", "/bare", "", cred...), grants.UnknownTool},
		{"a tool of no catalogue", ask("srv/gone", "GET", "/bare", "", cred...), grants.UnknownTool},
		{"another path than the tool's", ask("srv/bare", "GET", "/full", "", cred...), grants.Mismatch},
		{"another method", ask("srv/bare", "POST", "/bare", "", cred...), grants.Mismatch},
		{"residual escape in the path", ask("srv/bare", "GET", "/%62are", "", cred...), grants.Mismatch},
		{"path parameter", ask("srv/bare", "GET", "/bare;x=1", "", cred...), grants.Mismatch},
		{"fragment", ask("srv/bare", "GET", "/bare#x", "", cred...), grants.Mismatch},
		{"fragment in the query", ask("srv/full", "POST", "/full?q=a#x", `{"month":"x"}`, json...), grants.Malformed},
		{"partial body", ask("srv/full", "POST", "/full", `{"month":"x"}`, append(json, "x-envoy-auth-partial-body", "true")...), grants.TooLarge},
		{"length that is not the body's", ask("srv/full", "POST", "/full", `{"month":"x"}`, append(json, "content-length", "400")...), grants.Malformed},
		{"declared header twice", ask("srv/full", "POST", "/full", `{"month":"x"}`, append(json, "x-tenant", "a", "x-tenant", "b")...), grants.Malformed},
		{"declared header beyond ASCII", ask("srv/full", "POST", "/full", `{"month":"x"}`, append(json, "x-tenant", "Zürich")...), grants.Malformed},
		{"passed header beyond ASCII", ask("srv/bare", "GET", "/bare", "", append(cred, "accept-language", "a\x85b")...), grants.Malformed},
		{"integer as text", ask("srv/full", "POST", "/full?page=03", `{"month":"x"}`, json...), grants.Malformed},
		{"integer with blank", ask("srv/full", "POST", "/full?page=%203", `{"month":"x"}`, json...), grants.Malformed},
		{"boolean in capitals", ask("srv/full", "POST", "/full?dry=TRUE", `{"month":"x"}`, json...), grants.Malformed},
		{"control character", ask("srv/full", "POST", "/full?q=%00", `{"month":"x"}`, json...), grants.Malformed},
		{"escape that is not UTF-8", ask("srv/full", "POST", "/full?q=%ff", `{"month":"x"}`, json...), grants.Malformed},
		{"empty pair", ask("srv/full", "POST", "/full?q=a&", `{"month":"x"}`, json...), grants.Malformed},
		{"body as text", func() *authv3.CheckRequest {
			r := ask("srv/full", "POST", "/full", "", json...)
			r.Attributes.Request.Http.Body = `{"month":"x"}`
			return r
		}(), grants.Malformed},
	} {
		if why, detail := read(d, tc.req, &call{}); why != tc.want {
			t.Errorf("%s: %v %s, want %v", tc.name, why, detail, tc.want)
		}
	}
}

// TestOtherCredentialHeader: with a header of its own, the value is the token
// alone, and one in authorization besides is one too many.
func TestOtherCredentialHeader(t *testing.T) {
	d := testDoor(t, "x-tool-token")
	var c call
	why, _ := d.parse(ask("srv/bare", "GET", "/bare", "", "x-tool-token", "abc"), &c)
	if why != grants.None || c.credential != "abc" || !slices.Contains(c.headers.remove, "x-tool-token") {
		t.Errorf("%v %+v", why, c)
	}
	for _, headers := range [][]string{
		{"x-tool-token", "abc", "authorization", "Bearer other"},
		{"x-tool-token", "abc", "authorization", "Basic x"},
		{"x-tool-token", "abc", "authorization", "Bearer other", "authorization", "Bearer third"},
	} {
		if why, _ := d.parse(ask("srv/bare", "GET", "/bare", "", headers...), &call{}); why != grants.Ambiguous {
			t.Errorf("%q: %v", headers, why)
		}
	}
}

// TestPassAuthorization: the tool's own authorization reaches it, the credential
// never does.
func TestPassAuthorization(t *testing.T) {
	d := testDoor(t, "x-tool-token")
	tool, _ := d.cfg.Catalog.Tool("srv/bare")
	tool.PassAuthorization = true
	var c call
	why, _ := read(d, ask("srv/bare", "GET", "/bare", "", "x-tool-token", "abc", "authorization", "Basic x"), &c)
	if why != grants.None || c.credential != "abc" || !slices.Equal(c.headers.remove, []string{"x-tool-token"}) {
		t.Errorf("%v %+v", why, c.headers)
	}
	for authorization, want := range map[string]grants.Reason{
		"Basic x,Basic y": grants.Ambiguous, "Bearer abc": grants.Ambiguous, "abc": grants.Ambiguous, "Basic a\x85b": grants.Malformed,
	} {
		if why, _ := read(d, ask("srv/bare", "GET", "/bare", "", "x-tool-token", "abc", "authorization", authorization), &call{}); why != want {
			t.Errorf("authorization %q: %v", authorization, why)
		}
	}
}

func TestHeaderSafe(t *testing.T) {
	for in, want := range map[string]string{
		"corp/a b": "corp/a%20b", "corp/a ": "corp/a%20", "a\r\nx: y": "a%0D%0Ax:%20y", "ü": "%C3%BC", "100%": "100%25", "\x00": "%00",
	} {
		if got := headerSafe(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestClosedKeepsOtherServices: a panic elsewhere is an error, not a crash.
func TestClosedKeepsOtherServices(t *testing.T) {
	guard := Closed(zap.NewNop())
	_, err := guard(t.Context(), "not a check", &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("x") })
	if err == nil {
		t.Error("no error")
	}
	resp, err := guard(t.Context(), "not a check", &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { return "as it is", nil })
	if resp != "as it is" || err != nil {
		t.Error(resp, err)
	}
}

// FuzzParse: what the door accepts, other parsers read alike.
func FuzzParse(f *testing.F) {
	f.Add("/full?format=csv&page=3", `{"month":"x"}`, "Bearer x", "application/json")
	f.Add("/full?q=%2B&dry=false", `{"month":"x","rows":[1,2.5]}`, "Bearer a.b.c", "application/json; charset=utf-8")
	f.Add("/full?q=a+b", `{"month":"x","Month":"y"}`, "bearer  x", "text/plain")
	f.Add("/full?access_token=x", `{}`, "Bearer x,y", "")
	d := testDoor(f, "")
	f.Fuzz(func(t *testing.T, path, body, authorization, contentType string) {
		var c call
		why, _ := read(d, ask("srv/full", "POST", path, body, "authorization", authorization, "content-type", contentType), &c)
		if why != grants.None {
			return
		}
		if c.credential == "" || strings.ContainsAny(c.credential, ", \t") || !strings.HasSuffix(authorization, c.credential) {
			t.Fatalf("credential %q of %q", c.credential, authorization)
		}
		p, query, _ := strings.Cut(path, "?")
		if p != "/full" {
			t.Fatalf("path %q", p)
		}
		want, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("query %q: %v", query, err)
		}
		got := c.asks[0].input["query"].(map[string]any)
		if len(got) != len(want) {
			t.Fatalf("query %q: %v and %v", query, got, want)
		}
		for name, v := range got {
			text, isText := v.(string)
			if num, ok := v.(strictjson.Number); ok {
				text, isText = string(num), true
			}
			if len(want[name]) != 1 || isText && want.Get(name) != text {
				t.Fatalf("query %q: %q is %v here and %v there", query, name, v, want[name])
			}
		}
		var other any
		if err := jsonv2.Unmarshal([]byte(body), &other); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
	})
}
