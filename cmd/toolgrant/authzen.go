package main

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/pdp"
)

// kindEvaluate is the kind of a record of what somebody asked by AuthZEN.
const kindEvaluate = "evaluate"

const (
	maxEvaluating = 4              // requests in hand; each may bring 4 MiB
	peersFor      = time.Minute    // how long a token that was verified is not verified again
	maxPeers      = 256            // such tokens
	failuresPerS  = rate.Limit(20) // tokens that are not accepted: each may cost a signature
)

// withAuthZEN lets those whom the configuration names ask our policies (AuthZEN
// Authorization API 1.0) at the issue door's address; all else is next's.
func (p *parts) withAuthZEN(cfg *Config, next http.Handler) (http.Handler, error) {
	if len(cfg.AuthZEN.Agents) == 0 {
		return next, nil
	}
	u, err := url.Parse(cfg.Broker.PublicURL)
	if err != nil {
		return nil, fmt.Errorf("authzen: %w", err)
	}
	who := &peps{parts: p, agents: cfg.AuthZEN.Agents, failures: rate.NewLimiter(failuresPerS, 2*int(failuresPerS)), known: map[[sha256.Size]byte]knownPEP{}}
	asked, err := pdp.Handler(pdp.HandlerConfig{
		URL: cfg.Broker.PublicURL, Decide: p.decides.Decide, Authorized: who.authorized, Record: p.recordEvaluation, Logger: p.log,
	})
	if err != nil {
		return nil, fmt.Errorf("authzen: %w", err)
	}
	base := strings.TrimSuffix(u.Path, "/")
	inHand := make(chan struct{}, maxEvaluating)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, base+"/access/v1/") && r.URL.Path != "/.well-known/authzen-configuration"+base {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case inHand <- struct{}{}:
			defer func() { <-inHand }()
			asked.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many evaluations at a time", http.StatusServiceUnavailable)
		}
	}), nil
}

// peps are those who may ask.
type peps struct {
	*parts
	agents   []string
	failures *rate.Limiter

	mu    sync.Mutex
	known map[[sha256.Size]byte]knownPEP // by the token's digest
}

type knownPEP struct {
	agent string
	until time.Time
}

// authorized verifies a bearer identity token that is meant for the broker, and
// whose agent is named in the configuration.
func (s *peps) authorized(r *http.Request) (agent string, ok bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, compact, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	digest, now := sha256.Sum256([]byte(compact)), time.Now()
	s.mu.Lock()
	have, known := s.known[digest]
	s.mu.Unlock()
	if known && now.Before(have.until) {
		return have.agent, true
	}
	if !s.identity.Names(compact) || s.failures.Tokens() < 1 {
		return "", false
	}
	who, why := s.identity.Verify(compact, now)
	aud, hasAud := s.identity.BrokerAudience(who.Issuer)
	if why != grants.None || !hasAud || !who.For(aud) || !slices.Contains(s.agents, who.Principal.ID()) {
		s.failures.AllowN(now, 1)
		return "", false
	}
	for i := range s.catalog.Servers { // as at the issue door: a server that sees it could ask in its place
		if who.For(s.catalog.Servers[i].Resource) {
			return "", false
		}
	}
	until := now.Add(peersFor)
	if who.Expires.Before(until) {
		until = who.Expires
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxPeers {
		clear(s.known)
	}
	s.known[digest] = knownPEP{who.Principal.ID(), until}
	return who.Principal.ID(), true
}

// recordEvaluation puts what was asked and answered on record, before it is
// answered: one record for each question.
func (p *parts) recordEvaluation(pep, decision string, in []grants.Input, out []grants.Decision) error {
	rs := make([]audit.Record, len(in))
	for i := range in {
		why := out[i].Refusal()
		rec := audit.Record{
			ID: decision, Kind: kindEvaluate, Agent: in[i].Principal.ID(), Requester: pep, Tool: in[i].Tool,
			Outcome: audit.Allow, Reason: why, Status: http.StatusOK, Policies: out[i].Policies, Revision: out[i].Revision,
			Rev: p.table.Rev().String(), Note: audit.Note("action " + in[i].Action),
		}
		if in[i].Task != nil {
			rec.Task = in[i].Task.ID
		}
		if in[i].Grant != nil {
			rec.Grant = in[i].Grant.ID
		}
		if why != grants.None {
			rec.Outcome = audit.Deny
		}
		rs[i] = rec
	}
	if err := p.record(rs); err != nil {
		p.log.Error("recording what a PEP was answered", zap.String("pep", pep), zap.String("decision", decision), zap.Error(err))
		return err
	}
	return nil
}
