package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

const houseTools = `
servers:
- id: pay
  resource: https://pay.internal
  upstream: 127.0.0.1:1
  http:
  - tool: send
    method: POST
    path: /send
    opaque: [/body/hidden]
    query: {copies: {type: integer}, to: {type: string}}
    body:
      type: object
      properties:
        amount: {type: number}
        "a/b~c": {type: integer}
        note: {type: string}
        hidden: {type: object, properties: {n: {type: number}}}
        list: {type: array, items: {type: number}}
  - {tool: show, method: GET, path: /show}
  - {tool: purge, method: POST, path: /purge}
- id: rep
  resource: https://rep.internal
  upstream: 127.0.0.1:1
  http: [{tool: export, method: GET, path: /export}]
`

// house is a shell with inputs to constrain and to sum, and with a policy that
// also says no.
type house struct {
	*shell
	store grants.Store

	mu     sync.Mutex
	policy func(grants.Input) grants.Decision
	err    error // of the decider as a whole
	rev    grants.Digest
	asked  []grants.Input // since the last call of questions
	tokens map[string]string
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	h := &house{policy: houseRules, rev: grants.Digest{1}, tokens: map[string]string{}}
	h.shell = newShell(t, append([]func(*Config){func(c *Config) {
		var err error
		if c.Catalog, err = catalog.Parse("tools.yaml", []byte(houseTools)); err != nil {
			t.Fatal(err)
		}
		c.Decide = h.decideAll
		c.RatePerAgent = 1_000_000
		h.store = c.Store
	}}, change...)...)
	return h
}

// houseRules lets orchestrators ask for others, owners end and revoke what is
// theirs, and operators what is anybody's.
func houseRules(in grants.Input) grants.Decision {
	is := func(group string) bool { return slices.Contains(in.Principal.Groups, "corp/"+group) }
	owns := in.Task != nil && in.Task.Owner.ID() == in.Principal.ID()
	allow := false
	switch in.Action {
	case grants.ActionStartTask:
		allow = true
	case grants.ActionEndTask, grants.ActionRevoke:
		allow = owns || is("ops")
	case grants.ActionGrant:
		allow = in.Tool != "pay/purge"
	case grants.ActionAskFor:
		allow = is("orchestrators")
	}
	if !allow {
		return grants.Decision{Reason: grants.Policy, Policies: []string{"no-" + in.Action}}
	}
	return grants.Decision{Allow: true, Policies: []string{"may-" + in.Action}}
}

func (h *house) decideAll(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, in...)
	if h.err != nil {
		return nil, h.err
	}
	ds := make([]grants.Decision, len(in))
	for i := range in {
		ds[i] = h.policy(in[i])
		ds[i].Revision = h.rev
	}
	return ds, nil
}

// rule puts another policy in force, of another revision.
func (h *house) rule(policy func(grants.Input) grants.Decision, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.policy, h.err = policy, err
	h.rev[0]++
}

func (h *house) questions() []grants.Input {
	h.mu.Lock()
	defer h.mu.Unlock()
	in := h.asked
	h.asked = nil
	return in
}

// as is an identity token of a subject in groups, the same each time.
func (h *house) as(sub string, groups ...string) string {
	h.t.Helper()
	key := sub + " " + strings.Join(groups, " ")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens[key] == "" {
		compact, err := h.issuer.Mint(sub, groups, brokerAud, time.Hour)
		if err != nil {
			h.t.Fatal(err)
		}
		h.tokens[key] = compact
	}
	return h.tokens[key]
}

type members = map[string]any

// json sends a request and reads the answer.
func (h *house) json(what, bearer, body string) (int, members) {
	h.t.Helper()
	return read(h.t, h.shell.ask(what, bearer, body))
}

func read(t testing.TB, w *httptest.ResponseRecorder) (int, members) {
	t.Helper()
	var m members
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return w.Code, m
}

// must is json, for what has to succeed.
func (h *house) must(what, bearer, body string) members {
	h.t.Helper()
	status, m := h.json(what, bearer, body)
	if status/100 != 2 {
		h.t.Fatalf("%s %s: %d %v", what, body, status, m)
	}
	return m
}

// refuse is json, for what has to be refused; it returns the help.
func (h *house) refuse(what, bearer, body string, status int, reason grants.Reason) string {
	h.t.Helper()
	got, m := h.json(what, bearer, body)
	help, _ := m["help"].(string)
	if got != status || m["reason"] != reason.String() || len(help) < 10 {
		h.t.Fatalf("%s %s: %d %v; want %d %v", what, body, got, m, status, reason)
	}
	return help
}

// start opens a task of the orchestrator "boss" for agents.
func (h *house) start(more string, agents ...string) string {
	h.t.Helper()
	list, _ := json.Marshal(agents)
	return h.must("POST /v1/tasks", h.boss(), fmt.Sprintf(`{"kind":"k","agents":%s%s}`, list, more))["task"].(string)
}

func (h *house) boss() string { return h.as("boss", "orchestrators") }

// buy asks for one tool at POST /v1/grants and returns its detail.
func (h *house) buy(bearer, task, tool, more string) detailAnswer {
	h.t.Helper()
	w := h.shell.ask("POST /v1/grants", bearer, fmt.Sprintf(`{"task":%q,"grants":[{"tool":%q%s}]}`, task, tool, more))
	var ans grantsAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &ans); err != nil || w.Code != 200 || len(ans.Tokens) != 1 {
		h.t.Fatalf("%s%s: %d %s", tool, more, w.Code, w.Body)
	}
	return ans.Tokens[0].Details[0]
}

// open reads a grant token as the call door would.
func (h *house) open(compact, audience string) token.Claims {
	h.t.Helper()
	v, err := token.NewVerifier(ownIssuer, h.keys.Public())
	if err != nil {
		h.t.Fatal(err)
	}
	c, why := v.Verify(compact, audience, h.cfg.Table.Now())
	if why != grants.None {
		h.t.Fatalf("the token is not good for %s: %v", audience, why)
	}
	return c
}

// state is what a lookup says of a grant.
func (h *house) state(id grants.ID) grants.Reason {
	_, why := h.cfg.Table.Lookup(id)
	return why
}

// form is a token request; pairs replace or, with "", drop parameters.
func (h *house) form(subject string, pairs ...string) string {
	v := url.Values{
		"subject_token": {subject}, "subject_token_type": {typeJWT}, "resource": {"https://pay.internal"}, "scope": {"pay/send"},
	}
	first := grantTypeExchange
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == "grant_type" {
			first = pairs[i+1]
			continue
		}
		if v.Del(pairs[i]); pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return "grant_type=" + url.QueryEscape(first) + "&" + v.Encode()
}

// brokenStore fails some of its writes.
type brokenStore struct {
	grants.Store
	fence func(grants.Fence) error
}

func (s brokenStore) Fence(ctx context.Context, f grants.Fence) (grants.Rev, error) {
	if err := s.fence(f); err != nil {
		return grants.Rev{}, err
	}
	return s.Store.Fence(ctx, f)
}
