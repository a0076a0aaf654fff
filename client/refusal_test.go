package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		header string
		body   string
		want   Error
		denied bool
		line   string
	}{
		{"v1", 403, "", `{"error":"forbidden","reason":"policy","decision_id":"d_1","help":"Ask for another tool."}`,
			Error{Status: 403, Code: "forbidden", Reason: "policy", DecisionID: "d_1", Help: "Ask for another tool."}, true,
			"refused (policy): Ask for another tool [decision d_1]"},
		{"oauth", 400, "", `{"error":"invalid_target","error_description":"one server per token","reason":"bad_request","decision_id":"d_2"}`,
			Error{Status: 400, Code: "invalid_target", Reason: "bad_request", DecisionID: "d_2", Help: "one server per token"}, true,
			"refused (bad_request): one server per token [decision d_2]"},
		{"advice", 403, "", `{"error":"access_denied","reason":"policy","decision_id":"d_4","help":"No.","advice":"ask\n` + testIdentity + `"}`,
			Error{Status: 403, Code: "access_denied", Reason: "policy", DecisionID: "d_4", Help: "No.", Advice: "ask [token]"}, true,
			"refused (policy): No; policy says: ask [token] [decision d_4]"},
		{"no help", 401, "", `{"error":"unauthorized","reason":"expired_token"}`,
			Error{Status: 401, Code: "unauthorized", Reason: "expired_token"}, true,
			"refused (expired_token): get a fresh identity token that is meant for the broker"},
		{"limit", 429, "7", `{"error":"limit","reason":"limit"}`,
			Error{Status: 429, Code: "limit", Reason: "limit", RetryAfter: 7 * time.Second}, true,
			"refused (limit): too many requests; ask less often; try again in 7s"},
		{"undecided", 503, "2", `{"error":"unavailable","reason":"cannot_record","decision_id":"d_3"}`,
			Error{Status: 503, Code: "unavailable", Reason: "cannot_record", DecisionID: "d_3", RetryAfter: 2 * time.Second}, false,
			"the broker answered 503 (cannot_record): it could not decide, and nothing was allowed; try again, or look into its log; try again in 2s [decision d_3]"},
		{"a proxy's page", 404, "", `<html>`,
			Error{Status: 404}, false, "the broker answered 404: not an answer of a broker; check its URL"},
		{"an API of another kind", 403, "", `{"error":{"code":403}}`,
			Error{Status: 403}, false, "the broker answered 403: not an answer of a broker; check its URL"},
		{"hostile text", 403, "-1", `{"error":"forbidden","reason":"policy","decision_id":"d_1\u001b[2J","help":"a\nb\u202ec ` + testIdentity + `"}`,
			Error{Status: 403, Code: "forbidden", Reason: "policy", DecisionID: "d_1 [2J", Help: "a b c [token]"}, true,
			"refused (policy): a b c [token] [decision d_1 [2J]"},
	} {
		b := newBroker(t, tc.status, tc.body)
		if tc.header != "" {
			b.header.Set("Retry-After", tc.header)
		}
		_, err := newClient(t, b.URL).StartTask(t.Context(), TaskRequest{Kind: "k"})
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v is no *Error", tc.name, err)
			continue
		}
		if d := cmp.Diff(tc.want, *e); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
		if e.Denied() != tc.denied || e.Error() != tc.line {
			t.Errorf("%s: denied %v, %q\nwant %v, %q", tc.name, e.Denied(), e.Error(), tc.denied, tc.line)
		}
		if b.calls != 1 {
			t.Errorf("%s: %d calls", tc.name, b.calls)
		}
	}
}

func TestCleanCuts(t *testing.T) {
	if got := clean(strings.Repeat("ä", 300), 511, ""); len(got) > 511+len("…") || !strings.HasSuffix(got, "ä…") {
		t.Errorf("cut to %d bytes, ending in %q", len(got), got[len(got)-6:])
	}
}

func TestRetryAfterDate(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"Tue, 01 Jan 2030 00:01:30 GMT": 90 * time.Second, "Mon, 31 Dec 2029 00:00:00 GMT": 0, "soon": 0, "": 0, "99999999999": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}

// A redirect would carry the identity token elsewhere: 307 repeats the body.
// A caller's client that follows redirects changes nothing.
func TestNoRedirect(t *testing.T) {
	elsewhere := newBroker(t, 200, answer(nil))
	b := newBroker(t, 307, "")
	b.header.Set("Location", elsewhere.URL+"/oauth2/token")
	for _, hc := range []*http.Client{nil, {CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}} {
		c, err := New(Config{URL: b.URL, Identity: identity(testIdentity), HTTP: hc})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Exchange(t.Context(), GrantRequest{Tool: "reports/export", Task: testTask})
		var e *Error
		if !errors.As(err, &e) || e.Status != 307 || e.Denied() || !strings.Contains(err.Error(), "redirect") {
			t.Errorf("got %v", err)
		}
	}
	if elsewhere.calls != 0 {
		t.Errorf("the token went elsewhere %d times", elsewhere.calls)
	}
}

func TestBounded(t *testing.T) {
	// White space keeps the answer valid at any length.
	b := newBroker(t, 200, answer(nil)+strings.Repeat(" ", maxAnswer))
	_, err := newClient(t, b.URL).Exchange(t.Context(), GrantRequest{Tool: "reports/export", Task: testTask})
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

func TestNoToken(t *testing.T) {
	closed := newBroker(t, 200, "")
	closed.Close()
	_, err := newClient(t, closed.URL).Exchange(t.Context(), GrantRequest{Tool: "reports/export", Task: testTask})
	if err == nil || strings.Contains(err.Error(), testIdentity) || !strings.Contains(err.Error(), closed.URL) {
		t.Errorf("unreachable: %v", err)
	}
	tok := Token{AccessToken: testToken, Grants: []Grant{{ID: testGrant}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{tok, &tok, struct{ T Token }{tok}, []Token{tok}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, testToken) || !strings.Contains(s, testGrant) {
				t.Errorf("%s of %T: %s", verb, v, s)
			}
		}
	}
}

func TestIdentityError(t *testing.T) {
	b := newBroker(t, 200, answer(nil))
	gone := errors.New("gone")
	c, err := New(Config{URL: b.URL, Identity: func(context.Context) (string, error) { return "", gone }})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EndTask(t.Context(), testTask); !errors.Is(err, gone) || b.calls != 0 {
		t.Errorf("got %v after %d calls", err, b.calls)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := newBroker(t, 200, "{}")
	if err := newClient(t, b.URL).EndTask(ctx, testTask); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
