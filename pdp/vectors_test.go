package pdp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
)

// AuthZEN's own vectors: the JSON Schemas and the certification scenario of
// https://github.com/openid/authzen, and decisions of its interop harnesses.
const vectors = "../../shared/data/authzen"

func vector(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("AuthZEN's vectors are not beside the project (%s)", vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func authzenSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	// The $id of these files is relative, which is an absolute one at no address.
	if err := c.AddResource("https://authzen.invalid/schema", instance(t, vector(t, name))); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("https://authzen.invalid/schema")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// The vectors speak of users, records and todos, and we of agents and tools. What
// is translated, entity by entity, so that all merging of defaults is ours:
//
//	subject   TYPE ID                -> agent x/ID; the property role becomes a group
//	action    NAME                   -> the same; of delete, the property soft becomes part of it
//	resource  TYPE ID                -> tool TYPE/ID; its properties are known to the Decider by its id
//
// What is malformed stays as it is.
func translate(v any) any {
	request, ok := v.(map[string]any)
	if !ok {
		return v
	}
	object := func(name string) (map[string]any, string, bool) {
		e, ok := request[name].(map[string]any)
		id, isText := e["id"].(string)
		kind, isKind := e["type"].(string)
		return e, kind + "/" + id, ok && isText && isKind
	}
	if e, _, ok := object("subject"); ok {
		var groups []any
		if properties, ok := e["properties"].(map[string]any); ok {
			if role, ok := properties["role"]; ok {
				groups = append(groups, role)
			}
		}
		request["subject"] = map[string]any{"type": agentType, "id": "x/" + e["id"].(string), "properties": map[string]any{"groups": groups}}
	}
	if e, id, ok := object("resource"); ok {
		e["type"], e["id"] = toolType, id
	}
	if e, ok := request["action"].(map[string]any); ok && e["name"] == "delete" {
		if properties, ok := e["properties"].(map[string]any); ok && properties["soft"] == true {
			e["name"] = "delete softly"
		}
	}
	if items, ok := request["evaluations"].([]any); ok {
		for _, item := range items {
			translate(item)
		}
	}
	return v
}

// translated is the handler with the translation before it.
func translated(t *testing.T, h http.Handler, path string, request []byte) (*http.Response, string) {
	t.Helper()
	var v any
	if err := json.Unmarshal(request, &v); err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	body, err := json.Marshal(translate(v))
	if err != nil {
		t.Fatal(err)
	}
	return post(t, h, path, string(body))
}

// deciding makes a Decider of a rule.
func deciding(rule func(in *grants.Input) bool) grants.Decider {
	return func(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
		out := make([]grants.Decision, len(in))
		for i := range in {
			out[i].Allow = rule(&in[i])
		}
		return out, nil
	}
}

// certified is the scenario's required policy (its Section "Required Policy
// Behaviour"): record-2 is archived.
func certified(in *grants.Input) bool {
	archived := in.Tool == "record/record-2"
	switch in.Action {
	case "read":
		return true
	case "write":
		if archived {
			return slices.Contains(in.Principal.Groups, "admin")
		}
		return in.Principal.Subject == "alice"
	case "delete softly":
		return in.Principal.Subject == "alice"
	}
	return false
}

var (
	sectionForm = regexp.MustCompile(`\{#(c-[0-9-]+)\}`)
	statusForm  = regexp.MustCompile(`^\*\*Expected.*HTTP (\d+)`)
	inlineForm  = regexp.MustCompile(`"decision": (true|false)`)
)

// scenarioCase is a request of the scenario and what has to come back.
type scenarioCase struct {
	section, request string
	status           string // "": 200
	inline           string // the decision, where the text of the expectation says it
	answer           string // with <boolean> and <context> for what is not said
}

// scenario reads the cases of the levels Basic and Batch.
func scenario(t *testing.T) []*scenarioCase {
	var all []*scenarioCase
	var at *scenarioCase
	var section, fence string
	var block []string
	asks := true
	for lines := bufio.NewScanner(strings.NewReader(string(vector(t, "certification_authorization-api-1_0-scenario.md")))); lines.Scan(); {
		line := lines.Text()
		switch {
		case fence != "" && line == "~~~":
			if text := strings.Join(block, "\n"); asks {
				at = &scenarioCase{section: section, request: text}
				all = append(all, at)
			} else if at != nil {
				at.answer = text
			}
			fence = ""
		case fence != "":
			block = append(block, line)
		case strings.HasPrefix(line, "~~~"):
			fence, block = line, nil
		case strings.HasPrefix(line, "**Request"):
			asks = true
		case strings.HasPrefix(line, "**Expected"):
			if asks = false; at == nil {
				continue
			}
			if m := statusForm.FindStringSubmatch(line); m != nil {
				at.status = m[1]
			}
			if m := inlineForm.FindStringSubmatch(line); m != nil {
				at.inline = m[1]
			}
		case strings.HasPrefix(line, "#"):
			if m := sectionForm.FindStringSubmatch(line); m != nil {
				section, at = m[1], nil
			}
		}
	}
	return slices.DeleteFunc(all, func(c *scenarioCase) bool {
		return !strings.HasPrefix(c.section, "c-2-2") && !strings.HasPrefix(c.section, "c-2-4") && !strings.HasPrefix(c.section, "c-3-2") && !strings.HasPrefix(c.section, "c-3-4")
	})
}

func TestCertification(t *testing.T) {
	h := newHandler(t, deciding(certified), recordNothing)
	cases := scenario(t)
	counts := map[string]int{}
	for _, c := range cases {
		path := evaluationPath
		if strings.HasPrefix(c.section, "c-3") {
			path = evaluationsPath
		}
		counts[c.section[:3]]++
		resp, body := translated(t, h, path, []byte(c.request))
		if c.status == "400" {
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %s: %d %s", c.section, c.request, resp.StatusCode, body)
			}
			continue
		}
		if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || kind != "application/json" {
			t.Errorf("%s: %d %s %s", c.section, resp.StatusCode, kind, body)
			continue
		}
		want := c.answer
		if want == "" {
			want = `{"decision": ` + c.inline + `}`
		}
		if got := decisions(t, body); !regexp.MustCompile(pattern(t, want)).MatchString(got) {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.section, c.request, got, want)
		}
	}
	// As many as the scenario has, so that none is lost by a change of its form.
	if want := map[string]int{"c-2": 19, "c-3": 10}; !cmp.Equal(want, counts) {
		t.Errorf("cases: %v, want %v", counts, want)
	}
}

// decisions is an answer without what no case says: {"evaluations":[true,false]}.
func decisions(t *testing.T, body string) string {
	t.Helper()
	var a struct {
		Decision    *bool
		Evaluations []struct{ Decision *bool }
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		t.Fatal(err)
	}
	say := func(d *bool) string {
		text, _ := json.Marshal(d)
		return string(text)
	}
	if a.Evaluations == nil {
		return say(a.Decision)
	}
	var each []string
	for _, e := range a.Evaluations {
		each = append(each, say(e.Decision))
	}
	return strings.Join(each, ",")
}

// pattern is an expected answer as a regular expression for decisions.
func pattern(t *testing.T, want string) string {
	t.Helper()
	want = strings.NewReplacer("<boolean>", `"(true|false)"`, "<context>", `{}`).Replace(want)
	var a struct {
		Decision    any
		Evaluations []struct{ Decision any }
	}
	if err := json.Unmarshal([]byte(want), &a); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	say := func(d any) string {
		if text, ok := d.(string); ok {
			return text
		}
		text, _ := json.Marshal(d)
		return string(text)
	}
	if a.Evaluations == nil {
		return "^" + say(a.Decision) + "$"
	}
	var each []string
	for _, e := range a.Evaluations {
		each = append(each, say(e.Decision))
	}
	return "^" + strings.Join(each, ",") + "$"
}

// The rest of the scenario's Basic and Batch levels, which is no JSON: content
// type, malformed and empty bodies, the request's id, the same answer each time.
func TestCertificationOfTransport(t *testing.T) {
	h := newHandler(t, deciding(certified), recordNothing)
	const good = `{"subject": {"type": "agent", "id": "x/alice"}, "action": {"name": "read"}, "resource": {"type": "tool", "id": "record/record-1"}}`
	for _, path := range []string{evaluationPath, evaluationsPath} {
		for name, tt := range map[string]struct{ kind, body string }{
			"content type":    {"text/plain", good},
			"no content type": {"", good},
			"malformed":       {"application/json", good[1:]},
			"empty":           {"application/json", ""},
		} {
			resp, body := post(t, h, path, tt.body, "Content-Type", tt.kind, "X-Request-ID", "r-1")
			if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("X-Request-ID") != "r-1" {
				t.Errorf("%s: %s: %d %s", path, name, resp.StatusCode, body)
			}
		}
		for range 3 {
			resp, body := post(t, h, path, good, "Content-Type", "application/json; charset=utf-8")
			if resp.StatusCode != 200 || decisions(t, body) != "true" || resp.Header.Get("X-Request-ID") != "" {
				t.Errorf("%s: %d %s", path, resp.StatusCode, body)
			}
		}
		if resp, _ := post(t, h, path, good, "X-Request-ID", "r-2"); resp.Header.Get("X-Request-ID") != "r-2" {
			t.Errorf("%s: the request's id does not come back", path)
		}
	}
}

// The scenario's level Discovery ("Metadata Validation").
func TestCertificationOfDiscovery(t *testing.T) {
	for base, path := range map[string]string{"https://pdp.internal": wellKnown, "https://pdp.internal:8443/tenant1": wellKnown + "/tenant1"} {
		h, err := Handler(HandlerConfig{URL: base, Decide: permitRates, Record: recordNothing, Logger: zap.NewNop(), Authorized: func(*http.Request) (string, bool) { return "", false }})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		want := `{"policy_decision_point":"` + base + `","access_evaluation_endpoint":"` + base + `/access/v1/evaluation","access_evaluations_endpoint":"` + base + `/access/v1/evaluations"}`
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != want {
			t.Errorf("%s: %d %s", base, w.Code, w.Body)
		}
	}
}

// Who is who in the interop harnesses, by how a subject's id begins (base64 of
// "fd0614d3-…" for Rick, and so on).
var citizens = map[string]struct {
	email string
	roles []string
}{
	"CiRmZDA2": {"rick@the-citadel.com", []string{"admin", "evil_genius"}},
	"CiRmZDE2": {"morty@the-citadel.com", []string{"editor"}},
	"CiRmZDI2": {"summer@the-smiths.com", []string{"editor"}},
	"CiRmZDM2": {"beth@the-smiths.com", []string{"viewer"}},
	"CiRmZDQ2": {"jerry@the-smiths.com", []string{"viewer"}},
}

// owners are whose the todos are; the vectors repeat that in ownerID.
var owners = map[string]string{
	"todo/7240d0db-8ff0-41ec-98b2-34a096273b91": "morty@the-citadel.com",
	"todo/7240d0db-8ff0-41ec-98b2-34a096273b92": "rick@the-citadel.com",
	"todo/7240d0db-8ff0-41ec-98b2-34a096273b93": "summer@the-smiths.com",
	"todo/7240d0db-8ff0-41ec-98b2-34a096273b94": "beth@the-smiths.com",
	"todo/7240d0db-8ff0-41ec-98b2-34a096273b95": "jerry@the-smiths.com",
}

// citadel is the policy of the todo and gateway harnesses.
func citadel(in *grants.Input) bool {
	who := citizens[in.Principal.Subject[:8]]
	has := func(role string) bool { return slices.Contains(who.roles, role) }
	switch in.Action {
	case "can_read_user", "can_read_todos", "GET":
		return true
	case "can_create_todo", "POST", "PUT", "DELETE":
		return has("admin") || has("editor")
	case "can_update_todo":
		return has("evil_genius") || has("editor") && owners[in.Tool] == who.email
	case "can_delete_todo":
		return has("admin") || has("editor") && owners[in.Tool] == who.email
	}
	return false
}

// The decisions of two interop harnesses, whose policies are citadel here.
func TestInterop(t *testing.T) {
	h := newHandler(t, deciding(citadel), recordNothing)
	for name, want := range map[string]int{
		"interop_authzen-todo-backend_test_decisions-authorization-api-1_0-02.json": 43,
		"interop_authzen-api-gateways_test-harness_test_decisions.json":             25,
	} {
		var all struct {
			Evaluation []struct {
				Request  json.RawMessage
				Expected bool
			}
			Evaluations []struct {
				Request  json.RawMessage
				Expected []struct{ Decision bool }
			}
		}
		if err := json.Unmarshal(vector(t, name), &all); err != nil {
			t.Fatal(err)
		}
		if n := len(all.Evaluation) + len(all.Evaluations); n != want {
			t.Errorf("%s: %d cases, want %d", name, n, want)
		}
		for _, c := range all.Evaluation {
			if _, body := translated(t, h, evaluationPath, c.Request); decisions(t, body) != strconv.FormatBool(c.Expected) {
				t.Errorf("%s: %s, want %t", c.Request, body, c.Expected)
			}
		}
		for _, c := range all.Evaluations {
			var want []string
			for _, e := range c.Expected {
				want = append(want, strconv.FormatBool(e.Decision))
			}
			if _, body := translated(t, h, evaluationsPath, c.Request); decisions(t, body) != strings.Join(want, ",") {
				t.Errorf("%s: %s, want %v", c.Request, body, want)
			}
		}
	}
}
