package client

import (
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/go-json-experiment/json"
)

// FuzzAnswer: whatever a broker answers, an error fits on one line of a terminal
// and keeps the token that was sent to itself; and what passes for a token is one.
func FuzzAnswer(f *testing.F) {
	const secret = "eyJ.secret.token"
	f.Add(403, `{"error":"x","reason":"policy","decision_id":"d_1","help":"eyJ.secret.token \u202e"}`)
	f.Add(200, `{"access_token":"a","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":1,"authorization_details":[]}`)
	f.Add(502, "<html>")
	f.Fuzz(func(t *testing.T, status int, body string) {
		text := newError(&http.Response{StatusCode: status, Header: http.Header{}}, []byte(body), secret).Error()
		if strings.Contains(text, secret) || len(text) > 2048 {
			t.Fatalf("%q", text)
		}
		for _, c := range text {
			if !unicode.IsPrint(c) {
				t.Fatalf("%q does not print", text)
			}
		}
		var tok Token
		if json.Unmarshal([]byte(body), &tok) == nil && tok.check() == nil {
			if !validToken(tok.AccessToken) || tok.ExpiresIn <= 0 || len(tok.Grants) == 0 {
				t.Fatalf("%+v", tok.Grants)
			}
		}
	})
}
