package broker

import (
	"context"
	"mime"
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
// our type.
type detailRequest struct {
	Type string    `json:"type"`
	Task grants.ID `json:"task"`
	wish
}

// exchange handles POST /oauth2/token: RFC 8693 token exchange, with RFC 9396
// details or with plain resource, scope, task and ttl.
func (b *Broker) exchange(ctx context.Context, r *request) reply {
	form, rep := r.readForm()
	if rep.why != grants.None {
		return rep
	}
	if rep := checkForm(form); rep.why != grants.None {
		return rep
	}
	// Who asks comes before the client: its allowance, or its address's, pays for
	// the client's signature, which is a new one each time.
	if why, detail := b.verify(r, form.Get("subject_token")); why != grants.None {
		return refused(why, detail)
	}
	if rep := b.authenticate(r, form); rep.why != grants.None {
		return rep
	}
	if rep := b.sameParty(r); rep.why != grants.None {
		return rep
	}
	o, rep := b.readExchange(form)
	if rep.why != grants.None {
		return rep
	}
	o.agent = r.who.Principal
	return b.issue(ctx, r, o, func(tokens []tokenAnswer) any { return tokens[0] })
}

// badForm refuses a form with an error of the token endpoint.
func badForm(code, detail string) reply {
	return reply{why: grants.BadRequest, code: code, detail: detail}
}

// readForm reads the parameters. RFC 6749, Section 3.2 forbids each of them, and
// any other, to come twice, and has one without a value count as absent.
func (r *request) readForm() (url.Values, reply) {
	if q := r.URL.Query(); q.Has("client_secret") || q.Has("client_assertion") {
		return nil, reply{why: grants.BadCredential, code: invalidClient, detail: "a client authenticates in the form, never in the URL: URLs are logged"}
	}
	if r.URL.RawQuery != "" {
		return nil, badForm("invalid_request", "parameters go into the form, not into the URL")
	}
	if ct, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || ct != "application/x-www-form-urlencoded" ||
		params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return nil, badForm("invalid_request", "the body is application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(r.body))
	if err != nil {
		return nil, badForm("invalid_request", "the form is not well formed")
	}
	for name, values := range form {
		switch {
		case (name == "resource" || name == "audience") && slices.ContainsFunc(values, func(v string) bool { return v != values[0] }):
			return nil, badForm("invalid_target", "one token is for one server: ask once for each resource, or for all of them by POST /v1/grants")
		case len(values) > 1:
			return nil, badForm("invalid_request", "a parameter came twice")
		case values[0] == "":
			delete(form, name)
		}
	}
	return form, reply{}
}

// checkForm holds the form to RFC 8693, Section 2.1.
func checkForm(form url.Values) reply {
	switch gt := form.Get("grant_type"); {
	case gt == "":
		return badForm("invalid_request", "grant_type is missing: "+grantTypeExchange)
	case gt != grantTypeExchange:
		return badForm("unsupported_grant_type", "the one grant_type is "+grantTypeExchange)
	case !form.Has("subject_token"):
		return badForm("invalid_request", "subject_token is missing: the agent's identity token")
	case !slices.Contains([]string{typeJWT, typeIDToken, typeAccessToken}, form.Get("subject_token_type")):
		return badForm("invalid_request", "subject_token_type is "+typeJWT)
	case form.Has("actor_token"), form.Has("actor_token_type"):
		return badForm("invalid_request", "actor_token is not supported: who asks for another agent does so by POST /v1/grants")
	case form.Has("requested_token_type") && form.Get("requested_token_type") != typeAccessToken && form.Get("requested_token_type") != typeJWT:
		return badForm("invalid_request", "requested_token_type is "+typeAccessToken)
	}
	return reply{}
}

// readExchange reads what is asked for, in either form. All tools are of one
// server, since a token has one audience.
func (b *Broker) readExchange(form url.Values) (*order, reply) {
	server, rep := b.readTarget(form)
	if rep.why != grants.None {
		return nil, rep
	}
	var o *order
	if form.Has("authorization_details") {
		o, rep = b.readDetails(form)
	} else {
		o, rep = b.readScope(form, server)
	}
	if rep.why != grants.None {
		return nil, rep
	}
	for _, a := range o.asks {
		if server == nil {
			server = a.tool.Server
		}
		if a.tool.Server != server {
			return nil, badForm("invalid_target", "one token is for one server: ask once for each server, or for all of them by POST /v1/grants")
		}
	}
	return o, eachOnce(o.asks)
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

func (b *Broker) readDetails(form url.Values) (*order, reply) {
	for _, name := range []string{"scope", "task", "ttl", "renew"} {
		if form.Has(name) {
			return nil, badForm("invalid_request", name+" and authorization_details do not go together")
		}
	}
	var details []detailRequest
	if err := strictjson.Unmarshal([]byte(form.Get("authorization_details")), strictjson.Limits{}, &details); err != nil {
		return nil, badForm(badDetails, "authorization_details: "+err.Error())
	}
	if len(details) == 0 || len(details) > token.MaxDetails {
		return nil, badForm(badDetails, "authorization_details holds "+tooMany+" objects")
	}
	o := &order{task: details[0].Task}
	for i, det := range details {
		at := "authorization_details[" + strconv.Itoa(i) + "]"
		switch {
		case det.Type != token.DetailType:
			return nil, badForm(badDetails, at+`: the one type is "`+token.DetailType+`"`)
		case det.Task == "":
			return nil, badForm(badDetails, at+`: "task" is missing`)
		case det.Task != o.task:
			return nil, badForm("invalid_request", at+": one token is for one task")
		}
		a, rep := b.read(det.wish, at)
		if rep.why != grants.None {
			return nil, rep
		}
		o.asks = append(o.asks, a)
	}
	return o, reply{}
}

func (b *Broker) readScope(form url.Values, server *catalog.Server) (*order, reply) {
	scope := strings.Split(form.Get("scope"), " ") // RFC 6749, Section 3.3: this blank alone, one between two
	renew := form.Get("renew")
	switch {
	case server == nil:
		return nil, badForm("invalid_target", "say which server: resource=URI, or authorization_details")
	case len(scope) > token.MaxDetails || slices.Contains(scope, ""):
		return nil, badForm("invalid_scope", "scope names "+tooMany+" tools, with one blank between two")
	case !form.Has("task"):
		return nil, badForm("invalid_request", "task is missing: start one, and send its id")
	case renew != "" && len(scope) != 1:
		return nil, badForm("invalid_request", "renew goes with a scope of one tool")
	case renew != "" && !grants.ValidID(renew, grants.GrantPrefix):
		return nil, badForm("invalid_request", "renew is the id of a grant")
	}
	var ttl time.Duration
	if form.Has("ttl") {
		n, err := strconv.ParseUint(form.Get("ttl"), 10, 63) // digits alone, no sign
		var ok bool
		if ttl, ok = seconds(int64(n), minTTL); err != nil || !ok {
			return nil, reply{why: grants.BadTTL, code: "invalid_request", detail: b.ttlRange("ttl")}
		}
	}
	o := &order{task: form.Get("task")}
	for _, name := range scope {
		tool, ok := b.cfg.Catalog.Tool(name)
		if !ok {
			return nil, reply{why: grants.UnknownTool, code: "invalid_scope", detail: "scope: the catalogue has no such tool: write SERVER/TOOL"}
		}
		o.asks = append(o.asks, ask{tool: tool, ttl: ttl, renew: renew})
	}
	return o, reply{}
}
