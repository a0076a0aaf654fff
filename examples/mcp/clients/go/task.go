package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

// task is an http.RoundTripper that puts a task's token on every request to one
// MCP server, and renews it while the task lasts: shortly before its grants end,
// and after an answer that says they have ended. It is safe for concurrent use.
//
// Without TOOLGRANT_TASK it is the baseline: the agent shows its identity token for
// the server.
type task struct {
	server   *url.URL
	baseline string         // file
	broker   *client.Client // nil: baseline
	asks     []client.GrantRequest

	asking chan struct{} // holds one element while somebody reads or writes what follows
	token  client.Token
	ends   time.Time // of the token
	askAt  time.Time // when to ask again
}

// taskClient returns an HTTP client for the MCP server at a URL, by the environment:
//
//	TOOLGRANT_URL                   the broker
//	TOOLGRANT_IDENTITY_TOKEN_FILE   the agent's identity token for the broker; read anew each time
//	TOOLGRANT_TASK                  the task
//	TOOLGRANT_TOOLS                 its tools on this server: "notes/write_note notes/read_note"
//	TOOLGRANT_TTL                   seconds that a grant lasts; 300
//	TOOLGRANT_BASELINE_TOKEN_FILE   the identity token for the server, read where there is no task
func taskClient(server string) (*http.Client, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	t := &task{server: u, baseline: os.Getenv("TOOLGRANT_BASELINE_TOKEN_FILE"), asking: make(chan struct{}, 1)}
	id := os.Getenv("TOOLGRANT_TASK")
	if id == "" {
		return &http.Client{Transport: t}, nil
	}
	ttl, err := time.ParseDuration(cmp.Or(os.Getenv("TOOLGRANT_TTL"), "300") + "s")
	if err != nil {
		return nil, fmt.Errorf("TOOLGRANT_TTL: %w", err)
	}
	for _, tool := range strings.Fields(os.Getenv("TOOLGRANT_TOOLS")) {
		t.asks = append(t.asks, client.GrantRequest{Tool: tool, Task: id, TTL: ttl})
	}
	t.broker, err = client.New(client.Config{
		URL:      os.Getenv("TOOLGRANT_URL"),
		Identity: func(context.Context) (string, error) { return read(os.Getenv("TOOLGRANT_IDENTITY_TOKEN_FILE")) },
	})
	return &http.Client{Transport: t}, err
}

// RoundTrip implements http.RoundTripper.
func (t *task) RoundTrip(r *http.Request) (*http.Response, error) {
	// The token is for this server alone, wherever the client is sent.
	if r.URL.Scheme != t.server.Scheme || r.URL.Host != t.server.Host {
		return http.DefaultTransport.RoundTrip(r)
	}
	token, err := t.current(r.Context(), "")
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	res, err := http.DefaultTransport.RoundTrip(bearing(r, token))
	if err != nil || t.broker == nil || !over(res) || r.Body != nil && r.GetBody == nil {
		return res, err
	}
	_ = res.Body.Close()
	if token, err = t.current(r.Context(), token); err != nil {
		return nil, err
	}
	again := bearing(r, token)
	if r.GetBody != nil {
		if again.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return http.DefaultTransport.RoundTrip(again)
}

// bearing returns the request with the token; a RoundTripper may not change it.
func bearing(r *http.Request, token string) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// current returns the token to send. spent is one that was refused because its time
// is over; "": none.
func (t *task) current(ctx context.Context, spent string) (string, error) {
	if t.broker == nil {
		return read(t.baseline)
	}
	select {
	case t.asking <- struct{}{}: // one request at a time asks the broker
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if spent != "" && spent == t.token.AccessToken {
		t.ends, t.askAt = time.Time{}, time.Time{}
	}
	now := time.Now()
	if now.Before(t.askAt) {
		return t.token.AccessToken, nil
	}
	asks := slices.Clone(t.asks)
	if now.Before(t.ends) {
		// In place of the living ones: their constraints, and what is left of their budgets.
		for i, a := range asks {
			for _, g := range t.token.Grants {
				if g.Tool == a.Tool {
					asks[i] = client.GrantRequest{Tool: a.Tool, Task: a.Task, TTL: a.TTL, Renew: g.ID}
				}
			}
		}
	}
	token, err := t.broker.Exchange(ctx, asks...)
	if err != nil {
		if !now.Before(t.ends) {
			return "", err
		}
		t.askAt = now.Add(t.ends.Sub(now) / 2) // what there is holds until then
		return t.token.AccessToken, nil
	}
	lasts := time.Duration(token.ExpiresIn) * time.Second
	t.token, t.ends, t.askAt = token, now.Add(lasts), now.Add(lasts-min(30*time.Second, lasts/5))
	return token.AccessToken, nil
}

// over reports whether Envoy refused for a reason that a new token mends:
// error.data.reason of the JSON-RPC error. The body can be read again after it.
func over(res *http.Response) bool {
	if res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusForbidden {
		return false
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(strings.NewReader(string(body)), res.Body), res.Body}
	var answer struct {
		Error struct{ Data struct{ Reason string } }
	}
	if err != nil || json.Unmarshal(body, &answer) != nil {
		return false
	}
	return slices.Contains([]string{"expired", "expired_token", "superseded"}, answer.Error.Data.Reason)
}

func read(file string) (string, error) {
	if file == "" {
		return "", errors.New("no task, and no identity token for the server: set TOOLGRANT_TASK or TOOLGRANT_BASELINE_TOKEN_FILE")
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}
