package pdp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

func instance(t *testing.T, text []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// post puts a body to a handler and gives status and answer.
func post(t *testing.T, h http.Handler, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+pepToken)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	out, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(out)
}

// record is a HandlerConfig.Record.
type record func(pep, decision string, in []grants.Input, out []grants.Decision) error

func recordNothing(string, string, []grants.Input, []grants.Decision) error { return nil }

func newHandler(t *testing.T, decide grants.Decider, r record) http.Handler {
	t.Helper()
	h, err := Handler(HandlerConfig{
		URL: "https://pdp.internal", Decide: decide, Logger: zap.NewNop(), Record: r,
		Authorized: func(r *http.Request) (string, bool) {
			return "pep", r.Header.Get("Authorization") == "Bearer "+pepToken
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// permitRates permits calls of bank/rates alone.
func permitRates(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
	out := make([]grants.Decision, len(in))
	for i := range in {
		out[i].Revision = grants.Digest{9}
		if out[i].Allow = in[i].Tool == "bank/rates"; !out[i].Allow {
			out[i].Advice = "ask for rates"
		}
	}
	return out, nil
}

const (
	subjectBot = `"subject": {"type": "agent", "id": "corp/bot", "properties": {"groups": ["b", "a", "b"], "tags": {"x": "y"}}}`
	callRates  = `"action": {"name": "call:bank/rates"}, "resource": {"type": "tool", "id": "bank/rates"}`
)

func TestEvaluation(t *testing.T) {
	var pep string
	var got grants.Input
	h := newHandler(t, permitRates, func(p, id string, in []grants.Input, out []grants.Decision) error {
		pep, got = p, in[0]
		if !grants.ValidID(id, grants.DecisionPrefix) || len(out) != len(in) {
			t.Errorf("recorded by %q, %d decisions", id, len(out))
		}
		return nil
	})
	resp, body := post(t, h, evaluationPath, `{`+subjectBot+`, `+callRates+`, "context": {"input": {"n": 1.50}, "ip": "::1"}}`)
	if resp.StatusCode != 200 || !strings.Contains(body, `{"decision":true,"context":{"decision_id":"d_`) || !strings.Contains(body, `"revision":"09`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if pep != "pep" || got.Requester.ID() != "corp/bot" || strings.Join(got.Principal.Groups, ",") != "a,b" || got.Principal.Tags["x"] != "y" {
		t.Errorf("%q asked %+v", pep, got)
	}
	if cc := resp.Header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("Cache-Control: %s", cc)
	}
	_, body = post(t, h, evaluationPath, `{`+subjectBot+`, "action": {"name": "call:bank/pay"}, "resource": {"type": "tool", "id": "bank/pay"}}`)
	if !strings.Contains(body, `"decision":false`) || !strings.Contains(body, `"reason":"policy","advice":"ask for rates"`) {
		t.Error(body)
	}
	validate := authzenSchema(t, "api_schemas_evaluation-response.schema.json")
	if err := validate.Validate(instance(t, []byte(body))); err != nil {
		t.Error(err)
	}
}

// What AuthZEN calls malformed is status 400; what only is no question of ours is
// a denial, and no decider is asked.
func TestNoQuestion(t *testing.T) {
	h := newHandler(t, func(context.Context, []grants.Input) ([]grants.Decision, error) {
		return nil, errors.New("asked")
	}, recordNothing)
	const resource = `"resource": {"type": "tool", "id": "bank/pay"}`
	grant := func(text string) string {
		return `{` + subjectBot + `, "action": {"name": "grant"}, ` + resource + `, "context": {"task": {"id": "t_1", "kind": "k", "owner": {"id": "corp/lead"}}, "grant": {"agent": {"id": "corp/bot"}` + text + `}}}`
	}
	for name, body := range map[string]string{
		"type of subject":  `{"subject": {"type": "user", "id": "corp/bot"}, ` + callRates + `}`,
		"id of subject":    `{"subject": {"type": "agent", "id": "bot"}, ` + callRates + `}`,
		"two ids":          `{"subject": {"type": "agent", "id": "corp/bot", "properties": {"id": "corp/root"}}, ` + callRates + `}`,
		"another issuer":   `{"subject": {"type": "agent", "id": "corp/bot", "properties": {"issuer": "x"}}, ` + callRates + `}`,
		"groups":           `{"subject": {"type": "agent", "id": "corp/bot", "properties": {"groups": "x"}}, ` + callRates + `}`,
		"type of resource": `{` + subjectBot + `, "action": {"name": "x"}, "resource": {"type": "record", "id": "1"}}`,
		"input":            `{` + subjectBot + `, ` + callRates + `, "context": {"input": [1]}}`,
		"requester":        `{` + subjectBot + `, ` + callRates + `, "context": {"requester": {"id": "x"}}}`,
		"kind":             `{` + subjectBot + `, "action": {"name": "start_task"}, "resource": {"type": "task_kind", "id": "k"}, "context": {"task": {"id": "t", "kind": "l", "owner": {"id": "corp/bot"}}}}`,
		"no task":          `{` + subjectBot + `, "action": {"name": "start_task"}, "resource": {"type": "task_kind", "id": "k"}}`,
		"owner":            `{` + subjectBot + `, "action": {"name": "start_task"}, "resource": {"type": "task_kind", "id": "k"}, "context": {"task": {"kind": "k"}}}`,
		"ttl of task":      `{` + subjectBot + `, "action": {"name": "start_task"}, "resource": {"type": "task_kind", "id": "k"}, "context": {"task": {"kind": "k", "owner": {"id": "corp/bot"}, "ttl": 1000000000}}}`,
		"params":           `{` + subjectBot + `, "action": {"name": "start_task"}, "resource": {"type": "task_kind", "id": "k"}, "context": {"task": {"kind": "k", "owner": {"id": "corp/bot"}, "params": 1}}}`,
		"ttl":              grant(`, "ttl": 9007199254740991`),
		"age":              grant(`, "ttl": 1, "age": -9007199254740991`),
		"an age":           grant(`, "ttl": 1, "age": 1`),
		"depth":            grant(`, "ttl": 1, "depth": 1000000000`),
		"depth below":      grant(`, "ttl": 1, "depth": -1`),
		"many budgets":     grant(`, "ttl": 1, "budgets": [{}` + strings.Repeat(`,{}`, grants.MaxBudgets) + `]`),
	} {
		resp, out := post(t, h, evaluationPath, body)
		if resp.StatusCode != 200 || !strings.Contains(out, `"decision":false`) || !strings.Contains(out, `"reason":"malformed","error":{"status":422`) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, out)
		}
	}
	resp, out := post(t, h, evaluationPath, grant(`, "ttl": 1`))
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(out, "decision\"") {
		t.Errorf("the decider's error: %d %s", resp.StatusCode, out)
	}
	for name, body := range map[string]string{
		"properties": `{"subject": {"type": "agent", "id": "corp/bot", "properties": []}, ` + callRates + `}`,
		"context":    `{` + subjectBot + `, ` + callRates + `, "context": 1}`,
		"duplicate":  `{` + subjectBot + `, ` + callRates + `, ` + callRates + `}`,
		"array":      `[]`,
		"semantic":   `{` + subjectBot + `, ` + callRates + `, "evaluations": [{}], "options": {"evaluations_semantic": "x"}}`,
		"options":    `{` + subjectBot + `, ` + callRates + `, "evaluations": [{}], "options": []}`,
		"too many":   `{` + subjectBot + `, ` + callRates + `, "evaluations": [{}` + strings.Repeat(`,{}`, maxEvaluations) + `]}`,
	} {
		if resp, out := post(t, h, evaluationsPath, body); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, resp.StatusCode, out)
		}
	}
	if resp, out := post(t, h, evaluationPath, `{"x": "`+strings.Repeat("x", maxBody)+`"}`); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d %s", resp.StatusCode, out)
	}
}

// A decider that does not answer each question has decided nothing.
func TestTooFewDecisions(t *testing.T) {
	h := newHandler(t, func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
		return make([]grants.Decision, len(in)-1), nil
	}, recordNothing)
	resp, body := post(t, h, evaluationsPath, `{`+subjectBot+`, `+callRates+`, "evaluations": [{}, {}]}`)
	if resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// What cannot be recorded is not answered.
func TestNotRecorded(t *testing.T) {
	h := newHandler(t, permitRates, func(string, string, []grants.Input, []grants.Decision) error {
		return errors.New("the disk is full")
	})
	resp, body := post(t, h, evaluationPath, `{`+subjectBot+`, `+callRates+`}`)
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "true") || strings.Contains(body, "disk") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// Nobody is answered who has not said who it is; the request's id comes back all
// the same.
func TestUnauthorized(t *testing.T) {
	h := newHandler(t, permitRates, recordNothing)
	for _, path := range []string{evaluationPath, evaluationsPath} {
		resp, body := post(t, h, path, `{`+subjectBot+`, `+callRates+`}`, "Authorization", "Bearer x", "X-Request-ID", "q 1")
		if resp.StatusCode != http.StatusUnauthorized || strings.Contains(body, "decision") || resp.Header.Get("WWW-Authenticate") != "Bearer" || resp.Header.Get("X-Request-ID") != "q 1" {
			t.Errorf("%s: %d %s %v", path, resp.StatusCode, body, resp.Header)
		}
	}
}

func TestSemantics(t *testing.T) {
	h := newHandler(t, permitRates, recordNothing)
	const items = `[{"resource": {"type": "tool", "id": "bank/rates"}}, {"resource": {"type": "tool", "id": "bank/pay"}},
		{"subject": "x"}, {"resource": {"type": "tool", "id": "bank/rates"}}]`
	for semantic, want := range map[string]string{
		"": "true,false,false,true", executeAll: "true,false,false,true", denyOnDeny: "true,false", permitFirst: "true",
	} {
		options := ""
		if semantic != "" {
			options = `, "options": {"evaluations_semantic": "` + semantic + `"}`
		}
		_, body := post(t, h, evaluationsPath, `{`+subjectBot+`, "action": {"name": "x"}, "evaluations": `+items+options+`}`)
		var out struct {
			Evaluations []struct{ Decision bool }
		}
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range out.Evaluations {
			text, _ := json.Marshal(e.Decision)
			got = append(got, string(text))
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %v, want %s", semantic, got, want)
		}
	}
}

func TestHandlerConfigIsRefused(t *testing.T) {
	good := HandlerConfig{
		URL: "https://pdp.internal", Decide: permitRates, Logger: zap.NewNop(), Record: recordNothing,
		Authorized: func(*http.Request) (string, bool) { return "", false },
	}
	for name, change := range map[string]func(*HandlerConfig){
		"plain":         func(c *HandlerConfig) { c.URL = "http://pdp.internal" },
		"query":         func(c *HandlerConfig) { c.URL += "?x" },
		"no decider":    func(c *HandlerConfig) { c.Decide = nil },
		"authorization": func(c *HandlerConfig) { c.Authorized = nil },
		"record":        func(c *HandlerConfig) { c.Record = nil },
		"logger":        func(c *HandlerConfig) { c.Logger = nil },
	} {
		cfg := good
		change(&cfg)
		if _, err := Handler(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
