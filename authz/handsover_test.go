package authz

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/catalog"
)

// TestWhatAuthorizationMayHold: a tool that gets its own Authorization gets
// nothing with it that holds or buys grants, however it is wrapped.
func TestWhatAuthorizationMayHold(t *testing.T) {
	w := newWorld(t)
	grant := w.token(w.grant("srv/passes"))
	other := w.token(w.grant("srv/bare"))
	forBroker := w.identity("report-bot", "toolgrant")
	forTool := w.identity("report-bot", "https://elsewhere.internal")
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, tc := range []struct{ name, value, why string }{
		{"nothing of ours", "Basic dTpw", ""},
		{"an identity token for somebody else", "Bearer " + forTool, ""},
		{"a grant's token", "Bearer " + other, "ambiguous_credential"},
		{"quoted", `Bearer "` + other + `"`, "ambiguous_credential"},
		{"as a parameter", "DPoP t=" + other, "ambiguous_credential"},
		{"inside Basic", basic("u:" + other), "ambiguous_credential"},
		{"inside Basic, without padding", strings.TrimRight(basic("u:"+other), "="), "ambiguous_credential"},
		{"the credential inside Basic", basic("u:" + grant), "ambiguous_credential"},
		{"an identity token for the broker", "Bearer " + forBroker, "ambiguous_credential"},
		{"that, inside Basic", basic(forBroker), "ambiguous_credential"},
		{"behind another word", "Bearer xxxxxxxx." + other, "ambiguous_credential"},
		{"behind two", "Token v4.local." + forBroker, "ambiguous_credential"},
		{"inside Basic, behind a name", basic("corporate-user.prod." + forBroker), "ambiguous_credential"},
		{"Basic and a tab", "Basic\t" + base64.StdEncoding.EncodeToString([]byte("u:"+forBroker)), "ambiguous_credential"},
		{"base64 without a scheme", base64.StdEncoding.EncodeToString([]byte(other)), "ambiguous_credential"},
		{"base64 behind Bearer", "Bearer " + base64.URLEncoding.EncodeToString([]byte(forBroker)), "ambiguous_credential"},
		{"percent-encoded", "Bearer " + strings.ReplaceAll(other, ".", "%2E"), "ambiguous_credential"},
		{"the credential, percent-encoded", "Bearer " + strings.ReplaceAll(grant, ".", "%2e"), "ambiguous_credential"},
		{"behind another text", "Custom x;y=" + forBroker + ";z", "ambiguous_credential"},
	} {
		w.want(tc.name, ask("srv/passes", "GET", "/passes", "", "x-own-token", grant, "authorization", tc.value), tc.why)
	}
}

// TestPlainNumbers: outside JSON a number is written in one way.
func TestPlainNumbers(t *testing.T) {
	for text, ok := range map[string]bool{
		"0": true, "7": true, "-7": true, "10": true, "0.5": true, "-0.5": true, "12.25": true, "-12.001": true,
		"": false, "-": false, "-0": false, "-0.0": false, "0.0": false, "1.0": false, "1.50": false, "01": false, "+1": false, ".5": false, "5.": false,
		"1e0": false, "1E2": false, "1000000e-6": false, "0x1": false, "1_000": false, " 1": false, "1 ": false, "1\n": false, "٣": false, "NaN": false,
	} {
		_, err := scalar(text, &catalog.Schema{Type: "number"})
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := scalar("1.5", &catalog.Schema{Type: "integer"}); err == nil {
		t.Error("1.5 is no integer")
	}
}
