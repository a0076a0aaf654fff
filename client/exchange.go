package client

import (
	"context"
	stdjson "encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Names of RFC 8693, Sections 2.1 and 3, and our type of RFC 9396.
const (
	grantTypeExchange    = "urn:ietf:params:oauth:grant-type:token-exchange"
	tokenTypeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	tokenTypeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	detailType           = "urn:toolgrant:grant:1"
)

// GrantRequest asks for one tool for one task.
type GrantRequest struct {
	Tool     string        // "SERVER/TOOL"; required
	Task     string        // task id; required
	TTL      time.Duration // length of the window, in whole seconds; 0 leaves it to the broker
	MaxCalls int64         // calls, over all grants of the task for the tool; 0: not bounded
	// MaxSums bounds the sum of an argument over all calls, as MaxCalls bounds
	// their count: JSON Pointer into the input (RFC 6901; "/body/amount") to a
	// decimal above zero with at most 4 decimals ("1000.50").
	MaxSums map[string]string
	// Constraints are JSON Schemas of the closed profile over the call's
	// input; every one of them must hold.
	Constraints []stdjson.RawMessage
	// Input makes it a one-time grant: the input of the one call that it is to
	// cover, an object as the broker's catalogue describes it ({"body": {…}}, or the
	// arguments of an MCP tool). Does not go with MaxCalls; nil: any input.
	Input stdjson.RawMessage
	// Renew is a live grant of the same agent, task and tool, in whose place
	// the new one stands, with the old one's constraints and budgets. "": none.
	Renew string
}

// GrantsRequest asks for tools of any number of servers, for one task.
type GrantsRequest struct {
	Task string // task id; required
	// Agent is the agent id of who will hold the grants; "": the caller.
	Agent string
	// Grants are the tools; in each, Task must be Task or "". At least one.
	Grants []GrantRequest
}

// ScopeRequest is RFC 8693's plain form: tools of one server, by name.
type ScopeRequest struct {
	Resource string        // the server's URI (RFC 8707); required
	Scope    []string      // tool ids; required
	Task     string        // task id; required
	TTL      time.Duration // as in GrantRequest
}

// Grant is what the broker granted, which may be less than was asked.
type Grant struct {
	Type              string               `json:"type"`
	ID                string               `json:"grant_id"` // "g_…"
	Tool              string               `json:"tool"`
	Task              string               `json:"task"`
	TTL               int64                `json:"ttl"` // seconds
	MaxCalls          int64                `json:"max_calls,omitzero"`
	MaxSum            map[string]string    `json:"max_sum,omitempty"` // JSON Pointer into the input -> decimal
	Constraints       []stdjson.RawMessage `json:"constraints,omitempty"`
	ConstraintsDigest string               `json:"constraints_digest,omitempty"`
	Once              bool                 `json:"once,omitzero"`     // for one call, of the input that was asked for
	ExpiresAt         time.Time            `json:"expires_at"`        // no call passes at or after it
	Reused            bool                 `json:"reused"`            // such a grant was alive already
	Renewed           string               `json:"renewed,omitempty"` // the grant in whose place it stands
}

// Token is a token with its grants. It prints without the token, by any verb
// of fmt (but in an unexported field of a struct fmt cannot ask it);
// AccessToken itself is the secret, and so is the JSON.
type Token struct {
	Server          string  `json:"server,omitempty"`   // id of the one server that takes it
	Resource        string  `json:"resource,omitempty"` // the server's URI (RFC 8707): the token's audience
	AccessToken     string  `json:"access_token"`
	IssuedTokenType string  `json:"issued_token_type"`
	TokenType       string  `json:"token_type"` // "Bearer"
	ExpiresIn       int64   `json:"expires_in"` // seconds
	Scope           string  `json:"scope,omitempty"`
	Grants          []Grant `json:"authorization_details"`
}

// String names the grants, and not the token.
func (t Token) String() string {
	ids := make([]string, len(t.Grants))
	for i, g := range t.Grants {
		ids[i] = g.ID
	}
	return "token with grants [" + strings.Join(ids, " ") + "]"
}

// Format implements fmt.Formatter: %#v and %+v would print the fields.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// Exchange buys a token with grants (POST /oauth2/token; RFC 8693 with RFC
// 9396 details), for tools of one server: a token has one audience. Errors are
// ErrInvalid, *Error, or anything else when it is unknown whether grants were
// issued.
//
// It is not retried. Each exchange is a decision of its own, which is recorded
// and counted; when the answer is lost it is unknown whether grants were
// issued, and only the caller knows whether the work still needs them. Asking
// again is safe: it finds the living grant, and budgets belong to the task and
// are not refilled. A broker in trouble does not need every client to try
// three times.
func (c *Client) Exchange(ctx context.Context, asks ...GrantRequest) (Token, error) {
	details, err := askDetails(asks)
	if err != nil {
		return Token{}, err
	}
	for i, a := range asks {
		details[i].Type, details[i].Task = detailType, a.Task
	}
	text, err := json.Marshal(details)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c.exchange(ctx, url.Values{"authorization_details": {string(text)}})
}

// Grant buys tokens, one for each server of the tools, in the order in which
// the servers are first named (POST /v1/grants): all or none. It may ask for
// another agent. Errors as Exchange, and it is not retried either.
func (c *Client) Grant(ctx context.Context, r GrantsRequest) ([]Token, error) {
	asks := slices.Clone(r.Grants)
	for i := range asks {
		if asks[i].Task == "" {
			asks[i].Task = r.Task
		}
		if asks[i].Task != r.Task {
			return nil, fmt.Errorf("%w: grants for two tasks", ErrInvalid)
		}
	}
	details, err := askDetails(asks)
	if err != nil {
		return nil, err
	}
	in := struct {
		Task   string      `json:"task"`
		Agent  string      `json:"agent,omitempty"`
		Grants []askDetail `json:"grants"`
	}{r.Task, r.Agent, details}
	var out struct {
		Tokens []Token `json:"tokens"`
	}
	if err := c.call(ctx, http.MethodPost, []string{"v1", "grants"}, nil, in, &out); err != nil {
		return nil, fmt.Errorf("asking for grants: %w", err)
	}
	tools, err := checkTokens(out.Tokens, r.Task)
	if err != nil {
		return nil, fmt.Errorf("asking for grants: %w", err)
	}
	for _, a := range asks {
		if !slices.Contains(tools, a.Tool) {
			return nil, fmt.Errorf("asking for grants: the broker's answer lacks %s", a.Tool)
		}
	}
	return out.Tokens, nil
}

// checkTokens sees to it that there is one token for each server, with grants of
// the task alone, and gives the tools that they are for.
func checkTokens(tokens []Token, task string) (tools []string, err error) {
	servers := map[string]bool{}
	for _, t := range tokens {
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("the broker's answer is not one of tokens: %w", err)
		}
		if servers[t.Server] || !validServer(t.Server) {
			return nil, fmt.Errorf("the broker's answer is not one of a token for each server")
		}
		servers[t.Server] = true
		for _, g := range t.Grants {
			if g.Task != task || !strings.HasPrefix(g.Tool, t.Server+"/") {
				return nil, fmt.Errorf("the broker's answer holds a grant of another task or server")
			}
			tools = append(tools, g.Tool)
		}
	}
	return tools, nil
}

// askDetail is what is asked for one tool, as it is sent. The token endpoint
// takes type and task in each, POST /v1/grants in none.
type askDetail struct {
	Type        string               `json:"type,omitempty"`
	Tool        string               `json:"tool"`
	Task        string               `json:"task,omitempty"`
	TTL         int64                `json:"ttl,omitzero"`
	MaxCalls    int64                `json:"max_calls,omitzero"`
	MaxSum      map[string]string    `json:"max_sum,omitempty"`
	Constraints []stdjson.RawMessage `json:"constraints,omitempty"`
	Input       stdjson.RawMessage   `json:"input,omitempty"`
	Renew       string               `json:"renew,omitempty"`
}

func askDetails(asks []GrantRequest) ([]askDetail, error) {
	if len(asks) == 0 {
		return nil, fmt.Errorf("%w: nothing is asked for", ErrInvalid)
	}
	details := make([]askDetail, len(asks))
	for i, a := range asks {
		ttl, err := seconds("grant ttl", a.TTL)
		if err != nil {
			return nil, err
		}
		if a.MaxCalls < 0 {
			return nil, fmt.Errorf("%w: a budget of %d calls", ErrInvalid, a.MaxCalls)
		}
		for pointer, sum := range a.MaxSums {
			if err := checkSum(pointer, sum); err != nil {
				return nil, err
			}
		}
		if err := checkAsk(a.Tool, a.Task); err != nil {
			return nil, err
		}
		if a.Input != nil {
			if a.MaxCalls > 0 {
				return nil, fmt.Errorf("%w: a grant for one input covers one call: leave the budget of calls out", ErrInvalid)
			}
			if err := checkObject("the input of a one-time grant", a.Input); err != nil {
				return nil, err
			}
		}
		if a.Renew != "" {
			if err := checkGrant(a.Renew); err != nil {
				return nil, err
			}
		}
		details[i] = askDetail{
			Tool: a.Tool, TTL: ttl, MaxCalls: a.MaxCalls, MaxSum: a.MaxSums, Constraints: a.Constraints, Input: a.Input, Renew: a.Renew,
		}
	}
	return details, nil
}

// sumText is a decimal with at most 4 decimals; the broker counts in units of
// 10^-4 in 64 bits.
var sumText = regexp.MustCompile(`^(0|[1-9][0-9]{0,13})(\.[0-9]{1,4})?$`)

func checkSum(pointer, sum string) error {
	switch {
	case !strings.HasPrefix(pointer, "/"):
		return fmt.Errorf("%w: a sum over %q: write a JSON Pointer into the call's input, such as /body/amount", ErrInvalid, pointer)
	case !sumText.MatchString(sum) || strings.Trim(sum, "0.") == "":
		return fmt.Errorf("%w: a sum of %q: write a decimal above zero with at most 4 decimals, such as 1000.50", ErrInvalid, sum)
	}
	return nil
}

// ExchangeScope is Exchange in RFC 8693's plain form.
func (c *Client) ExchangeScope(ctx context.Context, r ScopeRequest) (Token, error) {
	ttl, err := seconds("grant ttl", r.TTL)
	if err != nil {
		return Token{}, err
	}
	if r.Resource == "" || len(r.Scope) == 0 {
		return Token{}, fmt.Errorf("%w: nothing is asked for", ErrInvalid)
	}
	for _, tool := range r.Scope {
		if err := checkAsk(tool, r.Task); err != nil {
			return Token{}, err
		}
	}
	form := url.Values{"resource": {r.Resource}, "scope": {strings.Join(r.Scope, " ")}, "task": {r.Task}}
	if ttl > 0 {
		form.Set("ttl", strconv.FormatInt(ttl, 10))
	}
	return c.exchange(ctx, form)
}

// checkAsk refuses a tool that would become two in a scope, and a task that is
// none.
func checkAsk(tool, task string) error {
	server, name, ok := strings.Cut(tool, "/")
	if !ok || server == "" || name == "" || strings.ContainsAny(tool, " \t\r\n") {
		return fmt.Errorf("%w: tool %q: write SERVER/TOOL", ErrInvalid, tool)
	}
	return checkTask(task)
}

// validServer reports whether s can be a server's id: it goes into the names of
// environment variables.
func validServer(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

func (c *Client) exchange(ctx context.Context, form url.Values) (Token, error) {
	identity, err := c.token(ctx)
	if err != nil {
		return Token{}, err
	}
	form.Set("grant_type", grantTypeExchange)
	form.Set("subject_token", identity)
	form.Set("subject_token_type", tokenTypeJWT)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("oauth2", "token").String(), strings.NewReader(form.Encode()))
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var t Token
	if err := c.do(req, identity, &t); err != nil {
		return Token{}, fmt.Errorf("asking for a grant: %w", err)
	}
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("asking for a grant: the broker's answer is not a token's: %w", err)
	}
	return t, nil
}

// check holds an answer to RFC 8693, Section 2.2.1, and to what callers print.
func (t *Token) check() error {
	switch {
	case !validToken(t.AccessToken):
		return fmt.Errorf("access_token is not a bearer token")
	case t.IssuedTokenType != tokenTypeAccessToken:
		return fmt.Errorf("issued_token_type is not an access token's")
	case !strings.EqualFold(t.TokenType, "Bearer"): // RFC 6749, Section 5.1: case does not matter
		return fmt.Errorf("token_type is not Bearer")
	case t.ExpiresIn <= 0:
		return fmt.Errorf("it has expired")
	case len(t.Grants) == 0:
		return fmt.Errorf("it holds no grant")
	}
	for _, g := range t.Grants {
		if g.Type != detailType || !validID(g.ID, "g_") {
			return fmt.Errorf("authorization_details hold something other than grants")
		}
	}
	return nil
}
