// Package client speaks to a toolgrant broker: it starts, keeps alive and ends
// tasks, buys grants, and lists and revokes them.
//
// What it holds to:
//   - Tokens travel to the configured broker alone: over TLS, or in the clear
//     on loopback only, and no redirect is ever followed (a 307 would carry an
//     identity token to wherever it points).
//   - No token appears in an error or in a String. What the broker wrote is
//     cleaned before it becomes an error: printable, bounded, and with the
//     tokens that were sent to it taken out.
//   - Answers are bounded and checked for their shape. What the client cannot
//     read is an error, never half a grant.
//   - Nothing is retried; see Client.Exchange for why.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	maxAnswer   = 8 << 20 // bytes of an answer's body; a list has at most 1000 entries
	maxToken    = 64 << 10
	httpTimeout = 10 * time.Second
)

// ErrInvalid is wrapped by every error about what the caller asked for and
// that was found before anything was sent.
var ErrInvalid = errors.New("invalid request")

// Config says which broker and as whom.
type Config struct {
	// URL is the broker's base URL: https, or http on loopback
	// ("localhost", 127.0.0.0/8, ::1). Required.
	URL string
	// Identity returns the identity token to send, in compact form. It is
	// asked once for each call, so that it may return a fresh one each time;
	// its error is returned as it is (wrapped). Required. It must be safe for
	// concurrent use if the Client is used so.
	Identity func(context.Context) (string, error)
	// HTTP carries the requests; nil means one with a 10 s time-out. Its
	// CheckRedirect is not used: redirects are never followed.
	HTTP *http.Client
	// UserAgent is the User-Agent header; "" means "toolgrant-client".
	UserAgent string
}

// Client is a broker's client. It is safe for concurrent use.
type Client struct {
	base      *url.URL
	identity  func(context.Context) (string, error)
	http      *http.Client
	userAgent string
}

// New checks the configuration; nothing is sent. Its errors wrap ErrInvalid.
func New(c Config) (*Client, error) {
	base, err := parseBase(c.URL)
	if err != nil {
		return nil, err
	}
	if c.Identity == nil {
		return nil, fmt.Errorf("%w: no source of identity tokens", ErrInvalid)
	}
	hc := &http.Client{Timeout: httpTimeout}
	if c.HTTP != nil {
		*hc = *c.HTTP // a copy: the caller's client keeps its own rules
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ua := c.UserAgent
	if ua == "" {
		ua = "toolgrant-client"
	}
	return &Client{base: base, identity: c.Identity, http: hc, userAgent: ua}, nil
}

func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		// The text is not repeated: a URL that does not parse may hold a password.
		return nil, fmt.Errorf("%w: the broker's URL is not one; write it like https://broker.example", ErrInvalid)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%w: the broker's URL must have no user, query or fragment", ErrInvalid)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("%w: broker URL %s: plain http is for loopback only, tokens would travel in the clear; use https", ErrInvalid, u)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%w: broker URL %s: the scheme must be https (or http on loopback)", ErrInvalid, u)
	}
	return u, nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// token asks for the identity token and refuses what could not be one, so that
// a broken source never puts a line break into a header.
func (c *Client) token(ctx context.Context) (string, error) {
	t, err := c.identity(ctx)
	if err != nil {
		return "", fmt.Errorf("getting the identity token: %w", err)
	}
	if !validToken(t) {
		return "", fmt.Errorf("%w: the identity token is empty or not a token (a JWT in compact form)", ErrInvalid)
	}
	return t, nil
}

// validToken reports whether t is a b64token (RFC 6750, Section 2.1) of
// bounded length: it can go into a header and onto a terminal as it is.
func validToken(t string) bool {
	if t == "" || len(t) > maxToken {
		return false
	}
	for _, c := range []byte(t) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~+/=", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// call sends a request to /v1 with the identity token as its bearer, and reads
// the answer into out. Empty values of query are left out; in is the JSON body,
// nil for none.
func (c *Client) call(ctx context.Context, method string, path []string, query url.Values, in, out any) error {
	token, err := c.token(ctx)
	if err != nil {
		return err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		body = bytes.NewReader(b)
	}
	to := c.base.JoinPath(path...)
	maps.DeleteFunc(query, func(_ string, v []string) bool { return v[0] == "" })
	to.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, to.String(), body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return c.do(req, token, out)
}

// do sends req and decodes a 2xx answer into out; any other answer is an
// *Error. secret is the token that req carries, to be kept out of errors.
func (c *Client) do(req *http.Request, secret string, out any) error {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	res, err := c.http.Do(req)
	if err != nil {
		// *url.Error holds the URL and the cause; the request's headers and
		// body are in neither.
		return fmt.Errorf("no answer from the broker at %s (whether it acted is unknown): %w", c.base, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("reading the broker's answer (whether it acted is unknown): %w", err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return newError(res, body, secret)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("the answer of %s is longer than %d bytes: is it the broker? (A list is shorter with a filter.)", c.base, maxAnswer)
	}
	// The decoder's own error may quote the answer, which may hold a token.
	if json.Unmarshal(body, out) != nil {
		return fmt.Errorf("the answer of %s (status %d) is not the JSON that a broker gives: is it the broker?", c.base, res.StatusCode)
	}
	return nil
}

// seconds turns a duration into the protocol's whole seconds; 0 means "not
// said". A part of a second is refused, because rounding would either widen
// the window or silently ask for none.
func seconds(name string, d time.Duration) (int64, error) {
	if d < 0 || d%time.Second != 0 {
		return 0, fmt.Errorf("%w: %s %s: write whole seconds above zero", ErrInvalid, name, d)
	}
	return int64(d / time.Second), nil
}

// validID reports whether s has the shape of the broker's ids ("t_" or "g_"
// and 26 base32 characters). It goes into paths, shells and terminals.
func validID(s, prefix string) bool {
	body, ok := strings.CutPrefix(s, prefix)
	if !ok || len(body) != 26 {
		return false
	}
	return strings.Trim(body, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
