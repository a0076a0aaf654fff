// Package pdp lets other engines decide: OPA by its REST Data API, and any PDP of
// AuthZEN's Authorization API 1.0; and it lets others ask our decider by AuthZEN.
//
// # The document
//
// An engine sees each grants.Input as one JSON object, which has all that policy
// may compare and nothing else:
//
//	action     start_task, end_task, grant, ask_for, revoke, call:SERVER/TOOL or mcp:METHOD
//	requester  who asks: {id, issuer, subject, groups, tags}; id is ALIAS/SUBJECT
//	principal  who would act, likewise; of the task actions and ask_for the requester
//	tool       {id, server, sets} of the catalogue; not of the task actions and mcp:METHOD
//	server     id of the MCP server that an mcp:METHOD is about
//	task       {id, kind, owner, params, ttl}; absent from a call without a grant. params are
//	           those of a task with a manifest. ttl, seconds to its deadline rounded up, only of
//	           start_task and end_task
//	grant      the one asked for, revoked, or called under; absent: baseline.
//	           agent, tool    who holds it or would, and for which tool
//	           ttl            seconds: of the whole window rounded up; under a grant (call, mcp) what is
//	                          left of it, rounded down
//	           depth, bound   how often it was delegated; whether it is bound to a key
//	           max_calls      the least of its budgets of calls; absent: any number
//	           sums           JSON Pointers to the arguments whose sums its budgets bound
//	           budgets        [{of, argument, limit}]: of is "task" or "grant"; without argument it
//	                          counts calls, else units of 10^-4 of the argument's sum
//	           constrained    its arguments are constrained
//	           constraints    by these, in the closed profile of JSON Schema (grants.Constraint)
//	           once           it covers the one call whose input it was asked for
//	           id, age        only under a grant; age is seconds since its window began, rounded up
//	input      of a call, without what the catalogue calls opaque, or of an mcp:METHOD; absent: not
//	           known. Numbers are exact: what a reader with doubles would change is not asked
//	revision   of MCP, in which a call or mcp:METHOD came
//	retry      {responses, state} of a multi-round-trip retry
//
// OPA gets {"questions": [DOCUMENT, …]} as its input, with "n", its place, in each
// document, and answers
//
//	{"answers": [{"n": 0, "allow": true, "policies": ["id"], "advice": "…", "cacheable_for": 5}, …], "revision": "…"}
//
// of which n and allow must be there. AuthZEN gets subject {type: "agent", id,
// properties}, the principal; action {name}; resource {type, id, properties}, which
// is a tool, task_kind or tool_server; and the rest in context. In the context of
// its decision it may say policies, advice, cacheable_for and revision.
//
// # Invariants
//
//   - What is not one well-formed answer to each question, in time and of one
//     revision for the whole batch, is an error: nothing is decided, and the doors
//     deny.
//   - A decision is used again only for a question that is the same in every
//     member, under the same revision of engine, catalogue and manifests, and while
//     the engine has stated that revision within 5 s. Seconds are members like any
//     other, unless the engine itself has said for how long they do not matter
//     (cacheable_for). An engine that states no revision is asked each time, since
//     nobody could tell when its policy changes; and for the same reason what it
//     granted is not decided anew when it does.
//   - No grant is decided on that the manifest of its task's kind does not admit.
package pdp

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

// The engines.
const (
	OPA     = "opa"
	AuthZEN = "authzen"
)

// Bounds and defaults of a Config.
const (
	DefaultTimeout = 250 * time.Millisecond
	MaxTimeout     = 10 * time.Second
	DefaultCache   = 5 * time.Second
	MaxCache       = time.Minute
)

// Config says which engine decides, and what it is asked with.
type Config struct {
	Engine string // OPA or AuthZEN

	// URL is, for OPA, the document that decides, .../v1/data/PATH; for AuthZEN,
	// the identifier of the PDP, without a path of the API. It is https, or http to
	// a loopback address. Redirects are not followed, and no proxy is used.
	URL string

	TokenFile string        // holds a bearer token, and is read anew by Run; "": none is sent
	CAFile    string        // certificates in PEM that vouch for the engine, read once; "": the system's
	Timeout   time.Duration // of one Decide, all of it; 0: DefaultTimeout; at most MaxTimeout
	Cache     time.Duration // how long a decision may be used again; 0: DefaultCache; at most MaxCache

	Catalog   *catalog.Catalog     // required
	Manifests func() *manifest.Set // those in force; nil: there are none
	Logger    *zap.Logger          // required

	// OnRevision is called by Run when decisions rest on something else than
	// before, for what has to be decided anew; nil: nobody asks. Run waits for it.
	OnRevision func(old, new grants.Digest)
}

// PDP decides by another engine. It is safe for concurrent use.
type PDP struct {
	cfg    Config
	client *client
	engine engine
	cache  *cache
	health health
}

// engine puts at most maxBatch questions to an engine, none of them twice, and
// gives an answer to each, in their order. It may be called concurrently.
type engine interface {
	ask(ctx context.Context, docs []*document) ([]answer, error)
}

// maxBatch bounds one request; a longer batch is several.
const maxBatch = 512

// New returns a PDP. It does not ask the engine yet: one that is away when we
// start is as one that goes away later.
func New(cfg Config) (*PDP, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Cache == 0 {
		cfg.Cache = DefaultCache
	}
	if cfg.Manifests == nil {
		cfg.Manifests = func() *manifest.Set { return nil }
	}
	p := &PDP{cfg: cfg, cache: newCache(cfg.Cache)}
	if err := p.connect(); err != nil {
		return nil, fmt.Errorf("pdp: %w", err)
	}
	return p, nil
}

func (p *PDP) connect() error {
	switch {
	case p.cfg.Catalog == nil || p.cfg.Logger == nil:
		return errors.New("catalogue and logger are required")
	case p.cfg.Timeout < 0 || p.cfg.Timeout > MaxTimeout:
		return fmt.Errorf("timeout %s: must be over 0 and at most %s", p.cfg.Timeout, MaxTimeout)
	case p.cfg.Cache < 0 || p.cfg.Cache > MaxCache:
		return fmt.Errorf("cache %s: must be over 0 and at most %s", p.cfg.Cache, MaxCache)
	}
	u, err := readURL(p.cfg.URL)
	if err != nil {
		return err
	}
	if p.client, err = newClient(u.Scheme == "https", p.cfg.CAFile, p.cfg.TokenFile); err != nil {
		return err
	}
	switch p.cfg.Engine {
	case OPA:
		p.engine, err = newOPA(p.client, u)
	case AuthZEN:
		p.engine = newAuthZEN(p.client, u)
	default:
		err = fmt.Errorf("engine %q: must be %s or %s", p.cfg.Engine, OPA, AuthZEN)
	}
	return err
}

// question is one that the engine is asked, and where its answer goes.
type question struct {
	at   int // in the batch
	in   *grants.Input
	doc  *document
	text []byte // of doc
}

// Decide is a grants.Decider. What a question lacks to be one (UnknownTool,
// Unrepresentable, Undecided) and what the manifest of the task's kind does not
// admit (Manifest) is decided here. The error is anything that keeps the engine
// from answering all the rest.
func (p *PDP) Decide(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	manifests := p.cfg.Manifests() // once: a batch has one revision
	out := make([]grants.Decision, len(in))
	var asks []question
	for i := range in {
		q, why := p.read(&in[i], manifests)
		if out[i].Reason = why; why == grants.None {
			q.at = i
			asks = append(asks, q)
		}
	}
	answers, revision, err := p.answer(ctx, asks, manifests)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", p.cfg.Engine, err)
	}
	for i, a := range answers {
		out[asks[i].at] = a.decision()
	}
	digest := p.digest(revision, manifests)
	for i := range out {
		out[i].Revision = digest
	}
	return out, nil
}

// read gives the question, or why the engine is not asked.
func (p *PDP) read(in *grants.Input, manifests *manifest.Set) (question, grants.Reason) {
	doc, why := newDocument(p.cfg.Catalog, in)
	if why != grants.None {
		return question{}, why
	}
	if in.Action == grants.ActionGrant || in.Action == grants.ActionAskFor {
		if manifests.Admits(in.Task, in.Grant) != nil {
			return question{}, grants.Manifest
		}
	}
	text, err := doc.text()
	if err != nil {
		return question{}, grants.Unrepresentable
	}
	return question{in: in, doc: doc, text: text}, grants.None
}

// answer takes the answers from the cache, all of them, or asks the engine all:
// half of either could be of two revisions.
func (p *PDP) answer(ctx context.Context, asks []question, manifests *manifest.Set) ([]answer, string, error) {
	started := p.cache.now()
	basis := func(revision string) grants.Digest { return p.digest(revision, manifests) }
	answers, revision, ok := p.cache.take(started, asks, basis)
	if ok || len(asks) == 0 {
		return answers, revision, nil
	}
	dropped := p.cache.dropped()
	answers, revision, err := p.ask(ctx, asks)
	if err != nil {
		return nil, "", err
	}
	p.cache.saw(started, revision)
	p.cache.put(started, dropped, asks, answers, basis(revision))
	return answers, revision, nil
}

// ask asks the engine, in as many requests as it takes.
func (p *PDP) ask(ctx context.Context, asks []question) (answers []answer, revision string, err error) {
	for chunk := range slices.Chunk(asks, maxBatch) {
		docs := make([]*document, len(chunk))
		for i, q := range chunk {
			docs[i] = q.doc
		}
		some, err := p.engine.ask(ctx, docs)
		if err != nil {
			return nil, "", err
		}
		if len(some) != len(chunk) {
			return nil, "", fmt.Errorf("%d answers to %d questions", len(some), len(chunk))
		}
		answers = append(answers, some...)
	}
	for _, a := range answers {
		if a.revision != answers[0].revision {
			return nil, "", errors.New("the answers are of two policy revisions")
		}
	}
	// It may all have come just in time, and been read too late.
	return answers, answers[0].revision, ctx.Err()
}

// mapping names how an Input becomes a document. It is raised with any change
// that could change a decision, so that grants are then decided anew.
const mapping = "toolgrant pdp mapping 1"

// digest is the revision of all that a decision rests on.
func (p *PDP) digest(revision string, manifests *manifest.Set) grants.Digest {
	h := sha256.New()
	set := manifests.Digest()
	for _, part := range [][]byte{
		[]byte(mapping), []byte(p.cfg.Engine), []byte(p.cfg.URL), []byte(revision), p.cfg.Catalog.Digest[:], set[:],
	} { // each with its length: no two lists of parts run together
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		h.Write(part)
	}
	return grants.Digest(h.Sum(nil))
}

// Drop forgets the decisions about what a fence ends. A fenced grant is not asked
// about again in any case, because grants.Table refuses it before policy; this
// frees the memory, and covers what is asked for anew.
func (p *PDP) Drop(f grants.Fence) { p.cache.drop(f) }
