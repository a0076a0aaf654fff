package pdp

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

// pdpServer serves a Decider by AuthZEN over TLS, below /tenant1.
type pdpServer struct {
	*httptest.Server
	url    string // policy_decision_point
	caFile string

	mu    sync.Mutex
	asked []grants.Input
	paths []string
}

const pepToken = "the-pep"

func servePDP(t *testing.T, path string, decide grants.Decider) *pdpServer {
	t.Helper()
	s := &pdpServer{}
	var h http.Handler
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.paths = append(s.paths, r.URL.Path)
		s.mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	s.url = s.URL + path
	var err error
	h, err = Handler(HandlerConfig{
		URL: s.url, Logger: zap.NewNop(), Record: recordNothing,
		Decide: func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
			s.mu.Lock()
			s.asked = append(s.asked, in...)
			s.mu.Unlock()
			return decide(ctx, in)
		},
		Authorized: func(r *http.Request) (string, bool) {
			return "pep", r.Header.Get("Authorization") == "Bearer "+pepToken
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFile(t, dir, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	writeFile(t, dir, "token", pepToken)
	s.caFile = dir + "/ca.pem"
	return s
}

func (s *pdpServer) client(t *testing.T) *PDP {
	return newPDP(t, Config{Engine: AuthZEN, URL: s.url, CAFile: s.caFile, TokenFile: strings.TrimSuffix(s.caFile, "ca.pem") + "token"})
}

// One toolgrant decides for another: what the one asks is what the other is asked,
// in every member, and its decisions come back whole.
func TestOneDecidesForAnother(t *testing.T) {
	c := testCatalog(t)
	revision := grants.Digest{1, 2, 3}
	decide := func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
		out := make([]grants.Decision, len(in))
		for i := range in {
			out[i] = grants.Decision{Allow: true, Policies: []string{"p"}, Revision: revision}
			switch in[i].Action {
			case grants.ActionStartTask:
				out[i] = grants.Decision{Reason: grants.PolicyError, Policies: []string{"q"}, Advice: "later", Revision: revision}
			case "mcp:tools/list":
				out[i] = grants.Decision{Revision: revision}
			}
		}
		return out, nil
	}
	s := servePDP(t, "/tenant1", decide)
	p := s.client(t)
	all := questions(t)
	var in []grants.Input
	for _, name := range sorted(all) {
		if q := all[name]; q.Task == nil || q.Task.Params == nil { // whose kind would need a manifest here
			in = append(in, q)
		}
	}
	in = append(in, all["call, full"], all["end_task, late, with params"]) // calls and ends need none
	ds := mustDecide(t, p, in...)
	want, _ := decide(t.Context(), in)
	for i := range want {
		want[i].Revision = p.digest(revision.String(), nil)
		want[i].Reason = want[i].Refusal()
	}
	if diff := cmp.Diff(want, ds); diff != "" {
		t.Error(diff)
	}
	if len(s.asked) != len(in) {
		t.Fatalf("asked %d of %d", len(s.asked), len(in))
	}
	for i := range in {
		a, why := newDocument(c, &in[i])
		b, whyNot := newDocument(c, &s.asked[i])
		if why != grants.None || whyNot != grants.None {
			t.Fatalf("%s: %s, %s", in[i].Action, why, whyNot)
		}
		one, _ := a.text()
		two, _ := b.text()
		if !bytes.Equal(one, two) {
			t.Errorf("asked\n%s\ncame as\n%s", one, two)
		}
	}
	// Single ones go to the other endpoint, and mean the same.
	if one := mustDecide(t, p, start()); one[0].Revision != ds[0].Revision || one[0].Reason != grants.PolicyError {
		t.Errorf("%+v", one)
	}
	wantPaths := []string{wellKnown + "/tenant1", "/tenant1" + evaluationsPath, "/tenant1" + evaluationPath}
	if diff := cmp.Diff(wantPaths, s.paths); diff != "" {
		t.Error(diff)
	}
}

// The cache works between them, because ours states its revision.
func TestOneDecidesForAnotherFromCache(t *testing.T) {
	s := servePDP(t, "", func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
		return []grants.Decision{{Allow: true, Revision: grants.Digest{1}}}, nil
	})
	p := s.client(t)
	mustDecide(t, p, ask(fullGrant()))
	mustDecide(t, p, ask(fullGrant()))
	if len(s.asked) != 1 {
		t.Errorf("asked %d times", len(s.asked))
	}
}

// A PEP that is not let in, and one whose PDP has another certificate, decide
// nothing.
func TestNotLetIn(t *testing.T) {
	s := servePDP(t, "", nil)
	for name, cfg := range map[string]Config{
		"no token":            {CAFile: s.caFile},
		"another certificate": {TokenFile: strings.TrimSuffix(s.caFile, "ca.pem") + "token"},
	} {
		cfg.Engine, cfg.URL = AuthZEN, s.url
		if ds, err := newPDP(t, cfg).Decide(t.Context(), []grants.Input{start()}); err == nil {
			t.Errorf("%s: %+v", name, ds)
		}
	}
}

// azFake is a PDP of which a test says what it answers at each path.
func azFake(t *testing.T, answers map[string]string) (*fake, *PDP) {
	var f *fake
	f = newFake(t, func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		text(strings.NewReplacer("URL", f.URL, "HOST", r.Host).Replace(body))(w, r)
	})
	return f, newPDP(t, Config{Engine: AuthZEN, URL: f.URL})
}

func TestMetadata(t *testing.T) {
	const yes = `{"decision": true}`
	for name, tt := range map[string]struct {
		metadata string // "": there is none
		requests int    // 0: an error
	}{
		"none: one by one":      {"", 3},
		"no batches":            {`{"policy_decision_point": "URL", "access_evaluation_endpoint": "URL/access/v1/evaluation"}`, 3},
		"batches":               {`{"policy_decision_point": "URL", "access_evaluation_endpoint": "URL/access/v1/evaluation", "access_evaluations_endpoint": "URL/many", "x": 1}`, 2},
		"another PDP's":         {`{"policy_decision_point": "URL/x", "access_evaluation_endpoint": "URL/access/v1/evaluation"}`, 0},
		"no endpoint":           {`{"policy_decision_point": "URL"}`, 0},
		"an endpoint elsewhere": {`{"policy_decision_point": "URL", "access_evaluation_endpoint": "https://elsewhere.internal/access/v1/evaluation"}`, 0},
		"batches elsewhere":     {`{"policy_decision_point": "URL", "access_evaluation_endpoint": "URL/access/v1/evaluation", "access_evaluations_endpoint": "http://127.0.0.1:1/many"}`, 0},
		"batches by TLS":        {`{"policy_decision_point": "URL", "access_evaluation_endpoint": "URL/access/v1/evaluation", "access_evaluations_endpoint": "https://HOST/many"}`, 0},
		"no JSON":               {`x`, 0},
	} {
		answers := map[string]string{evaluationPath: yes, "/many": `{"evaluations": [` + yes + `,` + yes + `]}`}
		if tt.metadata != "" {
			answers[wellKnown] = tt.metadata
		}
		f, p := azFake(t, answers)
		ds, err := p.Decide(t.Context(), []grants.Input{start(), start()})
		switch {
		case (err == nil) != (tt.requests > 0), err != nil && !strings.Contains(err.Error(), "metadata: "):
			t.Errorf("%s: %+v, %v", name, ds, err)
		case err == nil && (f.count() != tt.requests || !ds[1].Allow):
			t.Errorf("%s: %d requests, %+v", name, f.count(), ds)
		}
	}
}

// A PDP that has moved is looked up again after it failed.
func TestMetadataAfterFailure(t *testing.T) {
	answers := map[string]string{evaluationPath: `{"decision": true}`}
	_, p := azFake(t, answers)
	mustDecide(t, p, start())
	answers[wellKnown] = `{"policy_decision_point": "URL", "access_evaluation_endpoint": "URL/moved"}`
	answers["/moved"] = answers[evaluationPath]
	delete(answers, evaluationPath)
	if _, err := p.Decide(t.Context(), []grants.Input{start()}); err == nil {
		t.Error("the old place answers")
	}
	mustDecide(t, p, start())
}

func TestBadDecisions(t *testing.T) {
	const metadata = `{"policy_decision_point": "URL", "access_evaluation_endpoint": "URL/access/v1/evaluation", "access_evaluations_endpoint": "URL/many"}`
	for name, body := range map[string]string{
		"none":            `{}`,
		"null":            `{"decision": null}`,
		"a text":          `{"decision": "true"}`,
		"a number":        `{"decision": 1}`,
		"a context":       `{"decision": true, "context": "x"}`,
		"policies":        `{"decision": true, "context": {"policies": "x"}}`,
		"advice":          `{"decision": false, "context": {"advice": ["x"]}}`,
		"revision":        `{"decision": true, "context": {"revision": 1}}`,
		"revision, lines": `{"decision": true, "context": {"revision": "a\nb"}}`,
		"duplicate":       `{"decision": false, "decision": true}`,
		"another case":    `{"decision": false, "Decision": true}`,
		"empty":           ``,
	} {
		_, p := azFake(t, map[string]string{evaluationPath: body})
		if ds, err := p.Decide(t.Context(), []grants.Input{start()}); err == nil {
			t.Errorf("%s: %+v", name, ds)
		}
		_, p = azFake(t, map[string]string{wellKnown: metadata, "/many": `{"evaluations": [{"decision": true}, ` + body + `]}`})
		if ds, err := p.Decide(t.Context(), []grants.Input{start(), start()}); err == nil {
			t.Errorf("%s, in a batch: %+v", name, ds)
		}
	}
	for name, body := range map[string]string{
		"too few":       `{"evaluations": [{"decision": true}]}`,
		"too many":      `{"evaluations": [{"decision": true}, {"decision": true}, {"decision": true}]}`,
		"one for all":   `{"decision": true}`,
		"two revisions": `{"evaluations": [{"decision": true, "context": {"revision": "1"}}, {"decision": true}]}`,
	} {
		_, p := azFake(t, map[string]string{wellKnown: metadata, "/many": body})
		if ds, err := p.Decide(t.Context(), []grants.Input{start(), start()}); err == nil {
			t.Errorf("%s: %+v", name, ds)
		}
	}
}

// What another PDP says in a decision's context is its own, and is not ours to
// refuse.
func TestForeignContext(t *testing.T) {
	for body, want := range map[string]grants.Decision{
		`{"decision": true, "context": {"reason": "as you like", "obligations": [1]}, "x": {}}`: {Allow: true},
		`{"decision": false, "context": {"reason": {"en": "no"}}}`:                              {Reason: grants.Policy},
		`{"decision": false, "context": {"reason": "unknown_tool", "advice": "a"}}`:             {Reason: grants.UnknownTool, Advice: "a"},
		`{"decision": false, "context": {"reason": "none"}}`:                                    {Reason: grants.Policy},
		`{"decision": true, "context": {"reason": "policy", "advice": "a"}}`:                    {Allow: true},
	} {
		_, p := azFake(t, map[string]string{evaluationPath: body})
		want.Revision = p.digest("", nil)
		if diff := cmp.Diff([]grants.Decision{want}, mustDecide(t, p, start())); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
}

// What we ask is as AuthZEN's JSON Schema of a request has it.
func TestRequestsFitTheSchema(t *testing.T) {
	schema := authzenSchema(t, "api_schemas_evaluation-request.schema.json")
	c := testCatalog(t)
	for name, in := range questions(t) {
		d, _ := newDocument(c, &in)
		text, err := json.Marshal(d.evaluation())
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
