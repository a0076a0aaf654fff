package client

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// Error is an answer of the broker other than success. Every text in it is
// the broker's, cut to a bounded length, with unprintable characters replaced
// and without the token that was sent.
type Error struct {
	Status     int           // HTTP status
	Code       string        // "error": on the token endpoint RFC 6749's code
	Reason     string        // "reason", of toolgrant's closed set; "" when the answer was not a broker's
	DecisionID string        // "decision_id", to be looked up in the audit; may be ""
	Help       string        // "help" (on the token endpoint "error_description"); may be ""
	Advice     string        // "advice": what the policies that refused it say; may be ""
	RetryAfter time.Duration // from the Retry-After header; 0 when not said
}

// Denied reports whether the broker decided, and the answer is no. Otherwise
// it could not decide (5xx), or it was not a broker that answered.
func (e *Error) Denied() bool {
	return e.Status >= 400 && e.Status < 500 && e.Reason != ""
}

// Error says in one line what was answered and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Denied() {
		b.WriteString("refused")
	} else {
		fmt.Fprintf(&b, "the broker answered %d", e.Status)
	}
	switch {
	case e.Reason != "":
		b.WriteString(" (" + e.Reason + ")")
	case e.Code != "":
		b.WriteString(" (" + e.Code + ")")
	}
	b.WriteString(": " + e.todo())
	if e.Advice != "" {
		b.WriteString("; policy says: " + e.Advice)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, "; try again in %s", e.RetryAfter)
	}
	if e.DecisionID != "" {
		b.WriteString(" [decision " + e.DecisionID + "]")
	}
	return b.String()
}

func (e *Error) todo() string {
	switch {
	case e.Help != "":
		return strings.TrimRight(e.Help, ". ")
	case e.Status >= 300 && e.Status < 400:
		return "a redirect, which is not followed because a token would go with it; give the broker's own URL"
	case e.Status == http.StatusUnauthorized:
		return "get a fresh identity token that is meant for the broker"
	case e.Status == http.StatusTooManyRequests:
		return "too many requests; ask less often"
	case e.Status >= 500:
		return "it could not decide, and nothing was allowed; try again, or look into its log"
	case e.Reason == "":
		return "not an answer of a broker; check its URL"
	default:
		return "ask the broker's operator, who finds the decision in the audit"
	}
}

// newError reads a refusal of either shape: ours on /v1, RFC 6749, Section 5.2
// on the token endpoint. What is no JSON at all (a proxy's page) leaves the
// status alone.
func newError(res *http.Response, body []byte, secret string) *Error {
	var w struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Reason      string `json:"reason"`
		DecisionID  string `json:"decision_id"`
		Help        string `json:"help"`
		Advice      string `json:"advice"`
	}
	if len(body) > maxAnswer || json.Unmarshal(body, &w) != nil {
		return &Error{Status: res.StatusCode, RetryAfter: retryAfter(res.Header, time.Now())}
	}
	if w.Help == "" {
		w.Help = w.Description
	}
	return &Error{
		Status: res.StatusCode, RetryAfter: retryAfter(res.Header, time.Now()),
		Code:       clean(w.Error, 64, secret),
		Reason:     clean(w.Reason, 64, secret),
		DecisionID: clean(w.DecisionID, 64, secret),
		Help:       clean(w.Help, 512, secret),
		Advice:     clean(w.Advice, 512, secret),
	}
}

// clean makes a foreign text fit for one line of a terminal or a log.
func clean(s string, limit int, secret string) string {
	if secret != "" {
		s = strings.ReplaceAll(s, secret, "[token]")
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// retryAfter reads RFC 9110, Section 10.2.3: seconds or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil && at.After(now) {
		return at.Sub(now).Round(time.Second)
	}
	return 0
}
