package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/strictjson"
)

// testHouse is both doors of the configuration in this process, with issuers and
// keys of its own and without a listener. Nothing of it outlives close.
type testHouse struct {
	parts   *parts
	set     *cedar.Set // by which all is decided, however long it takes
	door    *authz.Door
	broker  http.Handler
	header  string                         // that carries the credential where the catalogue names none
	issuers map[string]*identity.DevIssuer // alias -> who vouches for its agents
	mapped  map[string]IssuerConfig        // alias -> the configuration's
	tokens  map[string]string              // agent, groups and audience -> identity token
	heard   hearing
	dir     *scratch
	stop    func() error
}

// hearing is what a step led to.
type hearing struct {
	mu      sync.Mutex
	records []audit.Record
	asked   []asked
}

// asked is a question to policy with its answer.
type asked struct {
	in  grants.Input
	out grants.Decision
}

// openHouse wires what the configuration says, as serve does, but for what would
// reach beyond this process. The caller closes it.
func openHouse(ctx context.Context, cfg *Config) (h *testHouse, err error) {
	dir, err := newScratch("policy-test")
	if err != nil {
		return nil, err
	}
	h = &testHouse{
		dir: dir, header: cfg.Token.Header, issuers: map[string]*identity.DevIssuer{}, mapped: map[string]IssuerConfig{}, tokens: map[string]string{},
		stop: func() error { return nil },
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	own, err := h.ownConfig(cfg)
	if err != nil {
		return h, err
	}
	if h.parts, err = wire(own, zap.NewNop()); err != nil {
		return h, err
	}
	h.set = h.parts.policies.Current()
	onCall := h.parts.doorConfig(own, zap.NewNop())
	onCall.Decide, onCall.Asked, onCall.Record = h.decide, nil, func(r audit.Record) error { return h.record([]audit.Record{r}) }
	h.door = authz.New(onCall)
	onIssue := h.parts.brokerConfig(own, zap.NewNop())
	onIssue.Decide, onIssue.Record = h.decide, h.record
	issue := broker.New(onIssue)
	h.broker = issue.Handler()

	behind, cancel := context.WithCancel(ctx)
	g, behind := errgroup.WithContext(behind)
	g.Go(func() error { return ended(h.parts.store.Run(behind)) })
	g.Go(func() error { return ended(issue.Run(behind)) })
	g.Go(func() error { return ended(h.parts.table.Follow(behind, h.parts.store, nil)) })
	h.stop = func() error { cancel(); return g.Wait() }
	return h, await(ctx, func(context.Context) error {
		if !h.parts.table.Fresh() {
			return errors.New("the view of grants is not fresh")
		}
		return nil
	})
}

// ownConfig is the configuration with issuers and keys of this run, and without
// what is written, fetched or asked elsewhere. What bounds requests by number is
// out of the way: a test may ask faster than an agent.
func (h *testHouse) ownConfig(cfg *Config) (*Config, error) {
	own := *cfg
	own.Keys.Dir = filepath.Join(h.dir.dir, "keys")
	own.Audit = AuditConfig{File: filepath.Join(h.dir.dir, "audit.jsonl"), Fsync: "never"}
	own.Clients, own.Shadow, own.AuthZEN, own.Admin = nil, ShadowConfig{}, AuthZENConfig{}, AdminConfig{}
	const many = 1 << 20
	own.Limits.GrantsPerAgent, own.Limits.TasksPerOwner, own.Limits.RequestsPerAgent = many, many, many
	own.Identity.Issuers = slices.Clone(cfg.Identity.Issuers)
	for i := range own.Identity.Issuers {
		is := &own.Identity.Issuers[i]
		issuer, err := identity.NewDevIssuer(filepath.Join(h.dir.dir, "issuer-"+is.Alias), is.Issuer)
		if err != nil {
			return nil, err
		}
		is.JWKSFile, is.JWKSURL, is.CA, is.BearerFile, is.GroupsClaim = issuer.JWKSFile(), "", "", "", "groups"
		h.issuers[is.Alias], h.mapped[is.Alias] = issuer, *is
	}
	return &own, nil
}

func (h *testHouse) close() error {
	err := h.stop()
	if h.parts != nil {
		err = errors.Join(err, h.parts.close())
	}
	return errors.Join(err, h.dir.remove())
}

func (h *testHouse) decide(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
	out, err := h.set.Decide(ctx, in)
	h.heard.mu.Lock()
	defer h.heard.mu.Unlock()
	for i := range out {
		h.heard.asked = append(h.heard.asked, asked{in[i], out[i]})
	}
	return out, err
}

func (h *testHouse) record(rs []audit.Record) error {
	h.heard.mu.Lock()
	defer h.heard.mu.Unlock()
	for _, r := range rs {
		r.Policies = slices.Clone(r.Policies)
		h.heard.records = append(h.heard.records, r)
	}
	return nil
}

// listen forgets what was heard before.
func (h *testHouse) listen() {
	h.heard.mu.Lock()
	defer h.heard.mu.Unlock()
	h.heard.records, h.heard.asked = nil, nil
}

// tell puts what was heard since into an outcome.
func (h *testHouse) tell(o *testOutcome) {
	h.heard.mu.Lock()
	defer h.heard.mu.Unlock()
	for _, r := range h.heard.records {
		o.by = append(o.by, r.Policies...)
		if r.Reason != grants.PolicyError { // which names policies that decided nothing
			o.decisive = append(o.decisive, r.Policies...)
		}
	}
	slices.Sort(o.by)
	o.by = slices.Compact(o.by)
	o.asked = slices.Clone(h.heard.asked)
}

// identity is an identity token of the agent's, of the one audience.
func (h *testHouse) identity(who grants.Principal, audience string) (string, error) {
	key := fmt.Sprintf("%q %q %q", who.ID(), who.Groups, audience)
	if jwt, ok := h.tokens[key]; ok {
		return jwt, nil
	}
	var groups []string
	for _, g := range who.Groups {
		from, ok := issuersGroup(who.Issuer, g, h.mapped[who.Issuer].Groups)
		if !ok {
			return "", fmt.Errorf("no identity token of %s brings the group %q", who.Issuer, g)
		}
		groups = append(groups, from)
	}
	jwt, err := h.issuers[who.Issuer].Mint(who.Subject, groups, audience, devTokenTTL)
	if err == nil {
		h.tokens[key] = jwt
	}
	return jwt, err
}

// send sends a request to the issue door, and gives the body of its answer.
func (h *testHouse) send(ctx context.Context, who grants.Principal, method, path string, body map[string]any) (testOutcome, []byte, error) {
	jwt, err := h.identity(who, h.mapped[who.Issuer].Audience)
	if err != nil {
		return testOutcome{}, nil, err
	}
	var text []byte
	if body != nil {
		if text, err = strictjson.Canonical(body); err != nil {
			return testOutcome{}, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(text))
	if err != nil {
		return testOutcome{}, nil, err
	}
	req.RemoteAddr = "127.0.0.1:1"
	req.Header.Set("Authorization", "Bearer "+jwt)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	h.listen()
	w := answerWriter{header: http.Header{}}
	h.broker.ServeHTTP(&w, req)
	o := testOutcome{allow: w.status/100 == 2}
	if !o.allow {
		err = o.readDenial(w.body.Bytes())
	}
	h.tell(&o)
	return o, w.body.Bytes(), err
}

// check sends a call to the call door.
func (h *testHouse) check(ctx context.Context, c *wireCall) (testOutcome, error) {
	h.listen()
	resp, err := h.door.Check(ctx, c.request())
	if err != nil {
		return testOutcome{}, err
	}
	o := testOutcome{allow: resp.GetOkResponse() != nil && resp.GetStatus().GetCode() == 0}
	if !o.allow {
		err = o.readDenial([]byte(resp.GetDeniedResponse().GetBody()))
	}
	h.tell(&o)
	return o, err
}

// readDenial reads the body of a denial of either door: of an MCP server it is
// the data of a JSON-RPC error.
func (o *testOutcome) readDenial(body []byte) error {
	type denial struct {
		Reason grants.Reason `json:"reason"`
		Help   string        `json:"help"`
		Advice string        `json:"advice"`
	}
	var plain denial
	var rpc struct {
		Error struct {
			Data denial `json:"data"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &rpc) == nil && rpc.Error.Data.Reason != grants.None {
		plain = rpc.Error.Data
	} else if err := json.Unmarshal(body, &plain); err != nil || plain.Reason == grants.None {
		return fmt.Errorf("a denial that cannot be read: %q", body)
	}
	o.reason, o.detail, o.advice = plain.Reason, plain.Help, plain.Advice
	return nil
}

// answerWriter keeps an answer.
type answerWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *answerWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
