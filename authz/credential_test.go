package authz

import (
	"os"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
	"github.com/toolgrant/toolgrant/grants"
)

// TestCredentialHeaderOfATool: a tool that names a header takes its credential
// there alone, and is told so where one stands elsewhere.
func TestCredentialHeaderOfATool(t *testing.T) {
	w := newWorld(t)
	bare, own := w.token(w.grant("srv/bare")), w.token(w.grant("srv/own"))
	passes := w.token(w.grant("srv/passes"))
	for _, tc := range []struct {
		name, tool, path string
		headers          []string
		why, help        string
	}{
		{"in its place", "srv/own", "/own", []string{"x-own-token", own}, "", ""},
		{"in the default place", "srv/bare", "/bare", []string{"authorization", "Bearer " + bare}, "", ""},
		{"in the default place of another", "srv/own", "/own", []string{"authorization", "Bearer " + own}, "no_credential", `send it in the header \"x-own-token\": the token alone`},
		{"in another's place", "srv/bare", "/bare", []string{"x-own-token", bare}, "no_credential", `send it in the header \"authorization\": Bearer TOKEN`},
		{"in both", "srv/own", "/own", []string{"x-own-token", own, "authorization", "Bearer " + own}, "ambiguous_credential", "is for the tokens of other tools"},
		{"in both, the other one junk", "srv/bare", "/bare", []string{"authorization", "Bearer " + bare, "x-own-token", "x"}, "ambiguous_credential", "is for the tokens of other tools"},
		{"twice", "srv/own", "/own", []string{"x-own-token", own, "x-own-token", own}, "ambiguous_credential", ""},
		{"joined", "srv/own", "/own", []string{"x-own-token", own + "," + own}, "ambiguous_credential", ""},
		{"with a scheme", "srv/own", "/own", []string{"x-own-token", "Bearer " + own}, "ambiguous_credential", ""},
		{"in the query", "srv/own", "/own?access%5Ftoken=" + own, []string{"x-own-token", own}, "ambiguous_credential", ""},
		{"none", "srv/own", "/own", nil, "no_credential", `in the header \"x-own-token\"`},

		{"beside the tool's own authorization", "srv/passes", "/passes", []string{"x-own-token", passes, "authorization", "Basic x"}, "", ""},
		{"in the tool's own authorization", "srv/passes", "/passes", []string{"authorization", "Bearer " + passes}, "no_credential", ""},
		{"in the tool's own authorization too", "srv/passes", "/passes", []string{"x-own-token", passes, "authorization", "Bearer " + passes}, "ambiguous_credential", "the tool's own"},
		{"another grant's token in it", "srv/passes", "/passes", []string{"x-own-token", passes, "authorization", "Bearer " + bare}, "ambiguous_credential", "the tool's own"},
		{"two of the tool's own", "srv/passes", "/passes", []string{"x-own-token", passes, "authorization", "Basic x", "authorization", "Basic y"}, "ambiguous_credential", ""},
		{"two of them, joined", "srv/passes", "/passes", []string{"x-own-token", passes, "authorization", "Basic x,Basic y"}, "ambiguous_credential", ""},
	} {
		r := w.want(tc.name, ask(tc.tool, "GET", tc.path, "", tc.headers...), tc.why)
		body := r.GetDeniedResponse().GetBody()
		if !strings.Contains(body, tc.help) || strings.Contains(body, own[:30]) {
			t.Errorf("%s: %s", tc.name, body)
		}
		// What reaches the tool of an allowed call.
		if ok := r.GetOkResponse(); ok != nil {
			removed := strings.Join(ok.GetHeadersToRemove(), " ")
			if credential, _, _ := strings.Cut(strings.Join(tc.headers, " "), " "); !strings.Contains(removed, credential) {
				t.Errorf("%s: removed are %s", tc.name, removed)
			}
			if strings.Contains(removed, "authorization") != (tc.tool == "srv/bare") {
				t.Errorf("%s: removed are %s", tc.name, removed)
			}
		}
	}
}

// fromPeer adds what Envoy says of a client certificate.
func fromPeer(req *authv3.CheckRequest, name, certificate string) *authv3.CheckRequest {
	req.Attributes.Source = &authv3.AttributeContext_Peer{Principal: name, Certificate: certificate}
	return req
}

// pemOf gives a certificate as Envoy does: percent-encoded.
func pemOf(t testing.TB, ca *envoytest.CA, end time.Time, names ...string) string {
	t.Helper()
	file, _ := ca.Issue(t, end, names...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(string(text))
}

// TestCertificate: without a credential it names the agent for the baseline, and
// for no grant; beside a credential it must name the same agent.
func TestCertificate(t *testing.T) {
	w := newWorld(t)
	const bot = "spiffe://corp/bot"
	ca, later := envoytest.NewCA(t), time.Now().Add(time.Hour)
	cert := pemOf(t, ca, later, bot, "bot.internal")
	token := w.token(w.grant("srv/open"))
	bearer := []string{"authorization", "Bearer " + token}
	// An agent of the certificates' own alias that holds a grant.
	w.grant("srv/bare", func(g *grants.Grant) { g.Agent = grants.Principal{Issuer: "mesh", Subject: bot} })
	for _, tc := range []struct {
		name, tool, path string
		headers          []string
		peer, cert       string
		why, agent       string
	}{
		{"baseline", "srv/open", "/open", nil, bot, cert, "", "mesh/" + bot},
		{"at another server", "other/open", "/other", nil, bot, cert, "", "mesh/" + bot},
		{"by its DNS name", "srv/open", "/open", nil, "bot.internal", cert, "", "mesh/bot.internal"},
		{"what baseline does not permit, though it has a grant", "srv/bare", "/bare", nil, bot, cert, "no_grant", "mesh/" + bot},
		{"a name that is not in it", "srv/open", "/open", nil, "spiffe://corp/root", cert, "unbound_token", ""},
		{"a subject", "srv/open", "/open", nil, "CN=test", pemOf(t, ca, later), "no_credential", ""},
		{"its time is over", "srv/open", "/open", nil, bot, pemOf(t, ca, time.Now().Add(-time.Second), bot), "expired_token", ""},
		{"not sent", "srv/open", "/open", nil, bot, "", "unbound_token", ""},
		{"junk", "srv/open", "/open", nil, bot, "-----BEGIN CERTIFICATE-----%0AAAAA%0A-----END CERTIFICATE-----", "unbound_token", ""},
		{"a bad escape", "srv/open", "/open", nil, bot, cert + "%zz", "unbound_token", ""},
		{"two of them", "srv/open", "/open", nil, bot, cert + cert, "unbound_token", ""},
		{"without a name", "srv/open", "/open", nil, "", cert, "unbound_token", ""},
		{"none", "srv/open", "/open", nil, "", "", "no_credential", ""},

		{"beside the agent's token", "srv/open", "/open", bearer, bot, cert, "", "corp/" + bot},
		{"beside another's token", "srv/open", "/open", bearer, "spiffe://corp/other", cert, "no_grant", "corp/" + bot},
		{"beside the agent's identity token", "srv/open", "/open", []string{"authorization", "Bearer " + w.identity(bot, "https://srv.internal")}, bot, cert, "", "corp/" + bot},
		{"beside another's identity token", "srv/open", "/open", []string{"authorization", "Bearer " + w.identity("other", "https://srv.internal")}, bot, cert, "no_grant", ""},
		// A credential that fails, or is in the wrong place, is judged all the same.
		{"beside junk", "srv/open", "/open", []string{"authorization", "Bearer x"}, bot, cert, "bad_credential", ""},
		{"beside an empty credential", "srv/open", "/open", []string{"authorization", ""}, bot, cert, "bad_credential", ""},
		{"beside a misplaced token", "srv/open", "/open", []string{"x-own-token", token}, bot, cert, "no_credential", ""},
		{"beside a token in the query", "srv/open", "/open?access_token=" + token, nil, bot, cert, "ambiguous_credential", ""},
		{"beside authorization, which no other header excuses", "srv/own", "/own", []string{"authorization", "Bearer " + token}, bot, cert, "no_credential", ""},
		{"beside a grant's token for the tool itself", "srv/passes", "/passes", []string{"authorization", "Bearer " + token}, bot, cert, "ambiguous_credential", ""},
	} {
		w.want(tc.name, fromPeer(ask(tc.tool, "GET", tc.path, "", tc.headers...), tc.peer, tc.cert), tc.why)
		if r := w.last(); r.Agent != tc.agent {
			t.Errorf("%s: agent %q on record, want %q", tc.name, r.Agent, tc.agent)
		}
	}

	// Where the credential has a header of its own, authorization is no tool's, and
	// yet where clients put tokens.
	elsewhere := New(w.cfgWith(func(c *Config) { c.CredentialHeader = "x-tool-token" }))
	for headers, want := range map[string]string{"": "", "authorization": "no_credential"} {
		req := ask("srv/open", "GET", "/open", "")
		if headers != "" {
			req = ask("srv/open", "GET", "/open", "", headers, "Bearer "+token)
		}
		if resp, err := elsewhere.Check(t.Context(), fromPeer(req, bot, cert)); err != nil || reason(resp) != want {
			t.Errorf("with the header %q: %v %v", headers, resp, err)
		}
	}

	off := New(w.cfgWith(func(c *Config) { c.Identity = issuersOnly(t, w) }))
	resp, err := off.Check(t.Context(), fromPeer(ask("srv/open", "GET", "/open", ""), bot, cert))
	if err != nil || reason(resp) != "no_credential" {
		t.Errorf("not configured: %v %v", resp, err)
	}
}
