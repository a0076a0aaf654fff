package broker

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/token"
)

// Values of RFC 8693, Sections 2.1 and 3.
const (
	grantTypeExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT           = "urn:ietf:params:oauth:token-type:jwt"
	typeIDToken       = "urn:ietf:params:oauth:token-type:id_token"
	typeAccessToken   = "urn:ietf:params:oauth:token-type:access_token"
)

// detailRequest is one object of authorization_details (RFC 9396, Section 2) of
// our type; a member that is not here is refused.
type detailRequest struct {
	Type        string            `json:"type"`
	Tool        string            `json:"tool"`
	Task        grants.ID         `json:"task"`
	TTL         *int64            `json:"ttl"`       // seconds; absent: DefaultTTL
	MaxCalls    *int64            `json:"max_calls"` // absent: not counted
	Constraints []json.RawMessage `json:"constraints"`
}

// exchange handles POST /oauth2/token: RFC 8693 token exchange, with RFC 9396
// details or with plain resource, scope, task and ttl.
func (b *Broker) exchange(ctx context.Context, r *request) reply {
	form, rep := r.readForm()
	if rep.why != grants.None {
		return rep
	}
	if why, detail := b.verify(r, form.Get("subject_token")); why != grants.None {
		return refused(why, detail)
	}
	asks, rep := b.readAsks(form)
	if rep.why != grants.None {
		return rep
	}
	return b.issue(ctx, r, asks)
}

// readForm reads the parameters; RFC 6749, Section 3.2 forbids each of them, and
// any other, to come twice.
func (r *request) readForm() (url.Values, reply) {
	bad := func(why grants.Reason, code, detail string) (url.Values, reply) {
		return nil, reply{why: why, code: code, detail: detail}
	}
	if r.URL.RawQuery != "" {
		return bad(grants.BadRequest, "invalid_request", "parameters go into the form, not into the URL")
	}
	if ct, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || ct != "application/x-www-form-urlencoded" ||
		params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return bad(grants.BadRequest, "invalid_request", "the body is application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(r.body))
	if err != nil {
		return bad(grants.BadRequest, "invalid_request", "the form is not well formed")
	}
	for name, values := range form {
		if len(values) > 1 {
			detail := "a parameter came twice"
			if name == "resource" || name == "audience" {
				detail = "one token is for one server: ask once for each resource"
			}
			return bad(grants.BadRequest, "invalid_request", detail)
		}
	}
	// Clients authenticate by their subject token alone; whoever presents more
	// must not be left to believe that it was looked at.
	if r.Header.Get("Authorization") != "" || form.Has("client_secret") || form.Has("client_assertion") || form.Has("client_assertion_type") {
		return bad(grants.BadRequest, "invalid_client", "no client authentication is supported here: the subject_token says who asks")
	}
	switch gt := form.Get("grant_type"); {
	case gt == "":
		return bad(grants.BadRequest, "invalid_request", "grant_type is missing: "+grantTypeExchange)
	case gt != grantTypeExchange:
		return bad(grants.BadRequest, "unsupported_grant_type", "the one grant_type is "+grantTypeExchange)
	case form.Get("subject_token") == "":
		return bad(grants.BadRequest, "invalid_request", "subject_token is missing: the agent's identity token")
	case !slices.Contains([]string{typeJWT, typeIDToken, typeAccessToken}, form.Get("subject_token_type")):
		return bad(grants.BadRequest, "invalid_request", "subject_token_type is "+typeJWT)
	case form.Has("actor_token"), form.Has("actor_token_type"):
		return bad(grants.BadRequest, "invalid_request", "actor_token is not supported")
	case form.Has("requested_token_type") && form.Get("requested_token_type") != typeAccessToken && form.Get("requested_token_type") != typeJWT:
		return bad(grants.BadRequest, "invalid_request", "requested_token_type is "+typeAccessToken)
	}
	return form, reply{}
}

// ask is one tool that is asked for.
type ask struct {
	task        grants.ID
	tool        *catalog.Tool
	ttl         time.Duration // 0: DefaultTTL
	maxCalls    int64         // 0: not counted
	constraints []json.RawMessage
}

// readAsks reads what is asked for, in either form. All tools are of one
// server, since a token has one audience.
func (b *Broker) readAsks(form url.Values) ([]ask, reply) {
	server, rep := b.readTarget(form)
	if rep.why != grants.None {
		return nil, rep
	}
	var asks []ask
	if form.Has("authorization_details") {
		asks, rep = b.readDetails(form)
	} else {
		asks, rep = b.readScope(form, server)
	}
	if rep.why != grants.None {
		return nil, rep
	}
	seen := map[string]bool{}
	for _, a := range asks {
		if server == nil {
			server = a.tool.Server
		}
		if a.tool.Server != server {
			return nil, reply{why: grants.BadRequest, code: "invalid_target", detail: "one token is for one server: ask once for each server"}
		}
		if a.task != asks[0].task {
			return nil, reply{why: grants.BadRequest, code: "invalid_request", detail: "one token is for one task"}
		}
		if seen[a.tool.ID] {
			return nil, reply{why: grants.BadRequest, code: "invalid_request", detail: "a tool came twice: ask for each once"}
		}
		seen[a.tool.ID] = true
	}
	return asks, reply{}
}

// readTarget reads resource (RFC 8707) or audience: the server's URI, or its id.
func (b *Broker) readTarget(form url.Values) (*catalog.Server, reply) {
	var found *catalog.Server
	for _, name := range []string{"resource", "audience"} {
		if !form.Has(name) {
			continue
		}
		s, ok := b.cfg.Catalog.ServerByResource(form.Get(name))
		if !ok && name == "audience" {
			s, ok = b.cfg.Catalog.ServerByID(form.Get(name))
		}
		if !ok || found != nil && found != s {
			return nil, reply{why: grants.UnknownTool, code: "invalid_target", detail: name + " is not the resource URI of one server of the catalogue"}
		}
		found = s
	}
	return found, reply{}
}

func (b *Broker) readDetails(form url.Values) ([]ask, reply) {
	bad := func(code, detail string) ([]ask, reply) {
		return nil, reply{why: grants.BadRequest, code: code, detail: detail}
	}
	for _, name := range []string{"scope", "task", "ttl"} {
		if form.Has(name) {
			return bad("invalid_request", name+" and authorization_details do not go together")
		}
	}
	var details []detailRequest
	if err := strictjson.Unmarshal([]byte(form.Get("authorization_details")), strictjson.Limits{}, &details); err != nil {
		return bad("invalid_authorization_details", "authorization_details: "+err.Error())
	}
	if len(details) == 0 || len(details) > token.MaxDetails {
		return bad("invalid_authorization_details", "authorization_details holds 1 to "+strconv.Itoa(token.MaxDetails)+" objects")
	}
	var asks []ask
	for i, det := range details {
		at := "authorization_details[" + strconv.Itoa(i) + "]: "
		tool, ok := b.cfg.Catalog.Tool(det.Tool)
		switch {
		case det.Type != token.DetailType:
			return bad("invalid_authorization_details", at+`the one type is "`+token.DetailType+`"`)
		case !ok:
			return bad("invalid_authorization_details", at+"the catalogue has no such tool: write SERVER/TOOL")
		case det.Task == "":
			return bad("invalid_authorization_details", at+`"task" is missing`)
		}
		a := ask{task: det.Task, tool: tool, constraints: det.Constraints}
		if det.TTL != nil {
			if a.ttl, ok = seconds(*det.TTL, minTTL); !ok {
				return nil, reply{why: grants.BadTTL, code: "invalid_authorization_details", detail: at + `"ttl" is a whole number of seconds, 2 or more`}
			}
		}
		if det.MaxCalls != nil {
			if a.maxCalls = *det.MaxCalls; a.maxCalls < 1 || a.maxCalls > 1<<31 {
				return bad("invalid_authorization_details", at+`"max_calls" is a whole number, 1 or more`)
			}
		}
		if _, err := grants.CompileConstraints(det.Constraints); err != nil {
			return bad("invalid_authorization_details", at+"constraints: "+err.Error())
		}
		asks = append(asks, a)
	}
	return asks, reply{}
}

func (b *Broker) readScope(form url.Values, server *catalog.Server) ([]ask, reply) {
	bad := func(code, detail string) ([]ask, reply) {
		return nil, reply{why: grants.BadRequest, code: code, detail: detail}
	}
	scope := strings.Fields(form.Get("scope"))
	switch {
	case server == nil:
		return bad("invalid_target", "say which server: resource=URI, or authorization_details")
	case len(scope) == 0 || len(scope) > token.MaxDetails:
		return bad("invalid_scope", "scope names 1 to "+strconv.Itoa(token.MaxDetails)+" tools, with blanks between them")
	case form.Get("task") == "":
		return bad("invalid_request", "task is missing: start one, and send its id")
	}
	var ttl time.Duration
	if form.Has("ttl") {
		n, err := strconv.ParseInt(form.Get("ttl"), 10, 64)
		var ok bool
		if ttl, ok = seconds(n, minTTL); err != nil || !ok {
			return nil, reply{why: grants.BadTTL, code: "invalid_request", detail: "ttl is a whole number of seconds, 2 or more"}
		}
	}
	var asks []ask
	for _, name := range scope {
		tool, ok := b.cfg.Catalog.Tool(name)
		if !ok {
			return nil, reply{why: grants.UnknownTool, code: "invalid_scope", detail: "scope: the catalogue has no such tool: write SERVER/TOOL"}
		}
		asks = append(asks, ask{task: form.Get("task"), tool: tool, ttl: ttl})
	}
	return asks, reply{}
}

// detailAnswer is one object of the answer's authorization_details: what was
// granted (RFC 9396, Section 7).
type detailAnswer struct {
	Type              string            `json:"type"`
	GrantID           grants.ID         `json:"grant_id"`
	Tool              string            `json:"tool"`
	Task              grants.ID         `json:"task"`
	TTL               int64             `json:"ttl"` // seconds left
	ExpiresAt         time.Time         `json:"expires_at"`
	MaxCalls          int64             `json:"max_calls,omitempty"`
	Constraints       []json.RawMessage `json:"constraints,omitempty"`
	ConstraintsDigest grants.Digest     `json:"constraints_digest,omitzero"`
	Reused            bool              `json:"reused"`
}

// tokenAnswer is RFC 8693, Section 2.2.1.
type tokenAnswer struct {
	AccessToken     string         `json:"access_token"`
	IssuedTokenType string         `json:"issued_token_type"`
	TokenType       string         `json:"token_type"`
	ExpiresIn       int64          `json:"expires_in"`
	Scope           string         `json:"scope"`
	Details         []detailAnswer `json:"authorization_details"`
}

// answerToken mints one token for the grants and writes the answer.
func (b *Broker) answerToken(r *request, gs []granted, rev grants.Rev) reply {
	task, server := gs[0].task, gs[0].tool.Server
	agent := gs[0].grant.Agent.ID()
	ans := tokenAnswer{IssuedTokenType: typeAccessToken, TokenType: "Bearer"}
	c := token.Claims{
		Issuer: b.cfg.Issuer, Subject: agent, Audience: server.Resource, ID: grants.NewID(token.IDPrefix),
		IssuedAt: r.now, NotBefore: gs[0].grant.NotBefore, Client: agent,
		Task: token.Task{ID: task.ID, Kind: task.Kind}, Rev: rev,
	}
	var scope []string
	for _, g := range gs {
		digest, err := grants.ConstraintsDigest(g.grant.Constraints)
		if err != nil {
			return b.fault(r, "digesting constraints", err)
		}
		if g.end.After(c.Expires) {
			c.Expires = g.end
		}
		c.Details = append(c.Details, token.Detail{
			Type: token.DetailType, GrantID: g.grant.ID, Tool: g.tool.ID, ConstraintsDigest: digest,
		})
		left := max(1, int64(g.end.Sub(b.cfg.Table.Now())/time.Second))
		ans.ExpiresIn = max(ans.ExpiresIn, left)
		ans.Details = append(ans.Details, detailAnswer{
			Type: token.DetailType, GrantID: g.grant.ID, Tool: g.tool.ID, Task: task.ID,
			TTL: left, ExpiresAt: g.end, MaxCalls: g.maxCalls(),
			Constraints: g.grant.Constraints, ConstraintsDigest: digest, Reused: g.reused,
		})
		scope = append(scope, g.tool.ID)
	}
	ans.Scope = strings.Join(scope, " ")
	var err error
	if ans.AccessToken, err = b.cfg.Keys.Mint(c); err != nil {
		return b.fault(r, "minting a token", err)
	}
	return reply{status: http.StatusOK, body: ans}
}
