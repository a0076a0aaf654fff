package broker

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

const tools = `
servers:
- {id: a, resource: "https://a.internal", upstream: "127.0.0.1:1", http: [{tool: x, method: GET, path: /ax}, {tool: y, method: GET, path: /ay}]}
- {id: b, resource: "https://b.internal", upstream: "127.0.0.1:1", http: [{tool: x, method: GET, path: /bx}]}
`

func testBroker(t testing.TB) *Broker {
	cat, err := catalog.Parse("tools.yaml", []byte(tools))
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Catalog: cat, Logger: zap.NewNop()})
}

// TestEveryReasonHasAnAnswer, in both styles, and none of them is a success.
func TestEveryReasonHasAnAnswer(t *testing.T) {
	for _, why := range append(grants.Reasons(), grants.Reason(250)) {
		rep := refused(why, "")
		for _, s := range []style{apiStyle, oauthStyle} {
			if got := s.status(rep); got < 400 || got > 599 {
				t.Errorf("%v: status %d", why, got)
			}
		}
		if a, ok := answers[why]; why != 250 && (!ok || a.help == "" || a.error == "" || a.oauth == "") {
			t.Errorf("%v: no full answer", why)
		}
	}
}

func TestOneServerOneTaskOncePerTool(t *testing.T) {
	b := testBroker(t)
	for text, want := range map[string]string{
		`[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"},{"type":"urn:toolgrant:grant:1","tool":"a/y","task":"t"}]`: "",
		`[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"},{"type":"urn:toolgrant:grant:1","tool":"b/x","task":"t"}]`: "invalid_target",
		`[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"},{"type":"urn:toolgrant:grant:1","tool":"a/y","task":"u"}]`: "invalid_request",
		`[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"},{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"}]`: "invalid_request",
		"[" + strings.Repeat(`{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"},`, 16) + `{"type":"x"}]`:               "invalid_authorization_details",
		`[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t","constraints":"x"}]`:                                        "invalid_authorization_details",
	} {
		_, rep := b.readExchange(url.Values{"authorization_details": {text}})
		if rep.code != want || (want == "") != (rep.why == grants.None) {
			t.Errorf("%.90s: %q %v, want %q", text, rep.code, rep.why, want)
		}
	}
	// The resource is held against the details, too.
	_, rep := b.readExchange(url.Values{"resource": {"https://b.internal"}, "authorization_details": {`[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t"}]`}})
	if rep.code != "invalid_target" {
		t.Errorf("resource of another server: %q", rep.code)
	}
}

// FuzzForm: a form that is accepted asks for tools of one server and one task,
// each once, and no time that is not positive.
func FuzzForm(f *testing.F) {
	f.Add("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=x&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&resource=https%3A%2F%2Fa.internal&scope=a%2Fx+a%2Fy&task=t&ttl=3")
	f.Add(`grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x&subject_token_type=urn:ietf:params:oauth:token-type:jwt&authorization_details=[{"type":"urn:toolgrant:grant:1","tool":"a/x","task":"t","ttl":3,"max_calls":2}]`)
	b := testBroker(f)
	f.Fuzz(func(t *testing.T, body string) {
		hr := httptest.NewRequest(http.MethodPost, "/oauth2/token", nil)
		hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r := &request{Request: hr, body: []byte(body)}
		form, rep := r.readForm()
		if rep.why != grants.None {
			return
		}
		if rep := checkForm(form); rep.why != grants.None {
			return
		}
		o, rep := b.readExchange(form)
		if rep.why != grants.None {
			return
		}
		seen := map[string]bool{}
		for _, a := range o.asks {
			if a.tool.Server != o.asks[0].tool.Server || o.task == "" || seen[a.tool.ID] || a.ttl < 0 {
				t.Fatalf("accepted: %q", body)
			}
			for _, bd := range a.bounds {
				if bd.limit <= 0 {
					t.Fatalf("accepted: %q", body)
				}
			}
			seen[a.tool.ID] = true
		}
		if len(o.asks) == 0 {
			t.Fatalf("accepted, and asks for nothing: %q", body)
		}
	})
}
