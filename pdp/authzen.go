package pdp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// What AuthZEN's Authorization API 1.0 fixes ("Transport", "Policy Decision
// Point Metadata"). X-Request-ID is chosen by who asks; we ask without one.
const (
	wellKnown       = "/.well-known/authzen-configuration"
	evaluationPath  = "/access/v1/evaluation"
	evaluationsPath = "/access/v1/evaluations"

	executeAll  = "execute_all"
	denyOnDeny  = "deny_on_first_deny"
	permitFirst = "permit_on_first_permit"
)

// Types of subject and resource.
const (
	agentType  = "agent"
	toolType   = "tool"
	kindType   = "task_kind"
	serverType = "tool_server"
)

// evaluation is a document as an Access Evaluation request.
type evaluation struct {
	Subject  entity  `json:"subject"`
	Action   action  `json:"action"`
	Resource entity  `json:"resource"`
	Context  ctxPart `json:"context"`
}

type entity struct {
	Type       string `json:"type"`
	ID         string `json:"id"`
	Properties any    `json:"properties,omitempty"`
}

type action struct {
	Name string `json:"name"`
}

// ctxPart is what of a document is neither subject nor action nor resource.
type ctxPart struct {
	Requester *agent         `json:"requester,omitempty"`
	Task      *taskPart      `json:"task,omitempty"`
	Grant     *grantPart     `json:"grant,omitempty"`
	Input     jsontext.Value `json:"input,omitzero"`
	Revision  string         `json:"revision,omitempty"`
	Retry     *retryPart     `json:"retry,omitempty"`
}

type agentProperties struct {
	Issuer  string            `json:"issuer"`
	Subject string            `json:"subject"`
	Groups  []string          `json:"groups"`
	Tags    map[string]string `json:"tags"`
}

type toolProperties struct {
	Server string   `json:"server"`
	Sets   []string `json:"sets"`
}

func (d *document) evaluation() evaluation {
	p := d.Principal
	e := evaluation{
		Subject: entity{agentType, p.ID, agentProperties{p.Issuer, p.Subject, p.Groups, p.Tags}},
		Action:  action{d.Action},
		Context: ctxPart{&d.Requester, d.Task, d.Grant, d.Input, d.Revision, d.Retry},
	}
	switch {
	case d.Tool != nil:
		e.Resource = entity{toolType, d.Tool.ID, toolProperties{d.Tool.Server, d.Tool.Sets}}
	case d.Server != "":
		e.Resource = entity{Type: serverType, ID: d.Server}
	default:
		e.Resource = entity{Type: kindType, ID: d.Task.Kind}
	}
	return e
}

// authzen asks by AuthZEN's Authorization API 1.0.
type authzen struct {
	client *client
	base   *url.URL
	found  atomic.Pointer[endpoints] // nil: to be looked up
}

// endpoints are where a PDP is asked. Without metadata all that is known is that
// there is the one for single evaluations, at its default path.
type endpoints struct {
	one  string
	many string // "": it takes no batches
}

func newAuthZEN(c *client, u *url.URL) *authzen { return &authzen{client: c, base: u} }

func (a *authzen) ask(ctx context.Context, docs []*document) (out []answer, err error) {
	at, err := a.endpoints(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.found.Store(nil) // it may have moved
		}
	}()
	if len(docs) == 1 || at.many == "" {
		return a.each(ctx, at.one, docs)
	}
	body := struct {
		Evaluations []evaluation      `json:"evaluations"`
		Options     map[string]string `json:"options"`
	}{make([]evaluation, len(docs)), map[string]string{"evaluations_semantic": executeAll}}
	for i, d := range docs {
		body.Evaluations[i] = d.evaluation()
	}
	text, err := a.client.post(ctx, at.many, body)
	if err != nil {
		return nil, err
	}
	var all struct {
		Evaluations []azDecision `json:"evaluations"`
	}
	if err := strictjson.UnmarshalOpen(text, strictjson.Limits{}, &all); err != nil {
		return nil, fmt.Errorf("answer of the PDP: %w", err)
	}
	if len(all.Evaluations) != len(docs) {
		return nil, fmt.Errorf("answer of the PDP: %d decisions on %d evaluations", len(all.Evaluations), len(docs))
	}
	out = make([]answer, len(docs))
	for i, d := range all.Evaluations {
		if out[i], err = d.answer(); err != nil {
			return nil, fmt.Errorf("answer of the PDP: decision %d: %w", i, err)
		}
	}
	return out, nil
}

// each asks one by one.
func (a *authzen) each(ctx context.Context, target string, docs []*document) ([]answer, error) {
	out := make([]answer, len(docs))
	for i, doc := range docs {
		text, err := a.client.post(ctx, target, doc.evaluation())
		if err != nil {
			return nil, err
		}
		var d azDecision
		if err := strictjson.UnmarshalOpen(text, strictjson.Limits{}, &d); err != nil {
			return nil, fmt.Errorf("answer of the PDP: %w", err)
		}
		if out[i], err = d.answer(); err != nil {
			return nil, fmt.Errorf("answer of the PDP: %w", err)
		}
	}
	return out, nil
}

// azDecision is AuthZEN's Decision. Its context is each PDP's own; what we know
// of it is what Handler writes.
type azDecision struct {
	Decision *bool `json:"decision"`
	Context  struct {
		said
		Revision string         `json:"revision"`
		Reason   jsontext.Value `json:"reason"` // of ours a grants.Reason; of another PDP anything
	} `json:"context"`
}

func (d *azDecision) answer() (answer, error) {
	if d.Decision == nil {
		return answer{}, errors.New(`"decision" must be true or false`)
	}
	out, err := d.Context.said.answer(*d.Decision)
	if err != nil {
		return answer{}, fmt.Errorf("context: %w", err)
	}
	out.revision = d.Context.Revision
	if !out.allow {
		out.why = refusal(d.Context.Reason)
	}
	return out, checkText("context: revision", out.revision, maxRevision)
}

// refusal reads why one of ours refused; any other text is policy's.
func refusal(reason jsontext.Value) grants.Reason {
	for _, r := range []grants.Reason{grants.PolicyError, grants.Manifest, grants.Unrepresentable, grants.UnknownTool} {
		if string(reason) == `"`+r.String()+`"` {
			return r
		}
	}
	return grants.Policy
}

// endpoints looks up where the PDP is asked ("Obtaining Policy Decision Point
// Metadata"); status 404 says that it has no metadata.
func (a *authzen) endpoints(ctx context.Context) (*endpoints, error) {
	if at := a.found.Load(); at != nil {
		return at, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, wellKnownURL(a.base), nil)
	if err != nil {
		return nil, err
	}
	status, text, err := a.client.do(req)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	var at *endpoints
	switch status {
	case http.StatusOK:
		if at, err = a.readMetadata(text); err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
	case http.StatusNotFound:
		at = &endpoints{one: strings.TrimSuffix(a.base.String(), "/") + evaluationPath}
	default:
		return nil, fmt.Errorf("metadata: status %d", status)
	}
	a.found.Store(at)
	return at, nil
}

func wellKnownURL(base *url.URL) string {
	u := *base
	u.Path, u.RawPath = wellKnown+strings.TrimSuffix(u.Path, "/"), ""
	return u.String()
}

func (a *authzen) readMetadata(text []byte) (*endpoints, error) {
	var m struct {
		PDP  string `json:"policy_decision_point"`
		One  string `json:"access_evaluation_endpoint"`
		Many string `json:"access_evaluations_endpoint"`
	}
	if err := strictjson.UnmarshalOpen(text, strictjson.Limits{}, &m); err != nil {
		return nil, err
	}
	if m.PDP != a.base.String() {
		return nil, fmt.Errorf("it is of another PDP (policy_decision_point) than %s", a.base)
	}
	for _, target := range []string{m.One, m.Many} {
		// Elsewhere would get our token, and nobody vouches for it.
		if u, err := url.Parse(target); target != "" && (err != nil || u.Scheme != a.base.Scheme || u.Host != a.base.Host || u.User != nil) {
			return nil, errors.New("an endpoint is not on the PDP's own host")
		}
	}
	if m.One == "" {
		return nil, errors.New("access_evaluation_endpoint is missing")
	}
	return &endpoints{m.One, m.Many}, nil
}
