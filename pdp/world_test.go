package pdp

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

const tools = `servers:
- id: bank
  resource: https://bank.internal
  upstream: 127.0.0.1:8080
  http:
  - tool: pay
    method: POST
    path: /pay
    sets: [write, money]
    opaque: [/body/note]
    body:
      type: object
      properties:
        to: {type: string}
        amount: {type: number}
        note: {type: string}
      required: [to, amount]
  - tool: rates
    method: GET
    path: /rates
- id: notes
  resource: https://notes.internal
  upstream: 127.0.0.1:8081
  mcp: {path: /mcp}
  tools:
  - tool: add
    input:
      type: object
      properties: {text: {type: string}}
      required: [text]
`

var (
	now     = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	lead    = grants.Principal{Issuer: "corp", Subject: "lead", Groups: []string{"orchestrators"}}
	bot     = grants.Principal{Issuer: "corp", Subject: "team/bot", Groups: []string{"ci", "paying"}, Tags: map[string]string{"env": "prod", "tier": "1"}}
	release = &grants.Task{ID: "t_1", Kind: "release", Owner: lead, Agents: []string{"corp/team/bot"}, Deadline: now.Add(time.Hour)}
)

func testCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Parse("tools.yaml", []byte(tools))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func testGrant(tool string) *grants.Grant {
	return &grants.Grant{
		ID: "g_1", Task: "t_1", Agent: bot, Requester: bot, Tool: tool,
		NotBefore: now.Add(-time.Minute), Expires: now.Add(9 * time.Minute),
	}
}

func fullGrant() *grants.Grant {
	g := testGrant("bank/pay")
	g.Actors = []string{"corp/a", "corp/b"}
	g.CNF, g.Once = grants.Digest{7}, grants.Digest{8}
	g.Constraints = []json.RawMessage{json.RawMessage(`{"type": "object", "properties": {"body": {"const": {"to": "a"}}}}`)}
	g.Budgets = []grants.Budget{
		{Key: grants.TaskBudget("t_1", "bank/pay", ""), Limit: 7}, {Key: grants.GrantBudget("g_0", ""), Limit: 3},
		{Key: grants.TaskBudget("t_1", "bank/pay", "/body/amount"), Arg: "/body/amount", Limit: 1_000_000},
	}
	g.Expires = g.NotBefore.Add(90*time.Second + 1)
	return g
}

func start() grants.Input {
	return grants.Input{Action: grants.ActionStartTask, Requester: lead, Principal: lead, Task: release, At: now.Add(-1)}
}

func ask(g *grants.Grant) grants.Input { return g.Asks(release, now)[0] }

func call(tool string, g *grants.Grant, args any) grants.Input {
	in := grants.Input{Action: grants.ActionCall + tool, Requester: bot, Principal: bot, Tool: tool, Grant: g, Args: args, At: now}
	if g != nil {
		in.Task = release
	}
	return in
}

// questions are one of each kind, by name.
func questions(t testing.TB) map[string]grants.Input {
	params := *release
	params.Params = json.RawMessage(`{"limit":100.5,"to":["a","b"]}`)
	other := fullGrant()
	other.Requester = lead
	withParams := call("bank/pay", fullGrant(), parse(t, `{"body": {"to": "a", "amount": 12.50, "note": "not for policy"}}`))
	withParams.Task, withParams.At = &params, now.Add(1)
	note := call("notes/add", testGrant("notes/add"), parse(t, `{"text": "x"}`))
	note.Revision = "2026-07-28"
	note.Retry = &grants.Retry{Responses: `{"a":1}`, State: true}
	read := grants.Input{
		Action: "mcp:resources/read", Requester: bot, Principal: bot, Server: "notes", Revision: "2025-11-25",
		Args: parse(t, `{"uri": "note://1"}`), Grant: testGrant("notes/add"), Task: release, At: now,
	}
	list := read
	list.Action, list.Grant, list.Task, list.Args = "mcp:tools/list", nil, nil, parse(t, `{}`)
	revoke := ask(fullGrant())
	revoke.Action, revoke.Principal, revoke.Requester = grants.ActionRevoke, lead, lead
	end := start()
	end.Action, end.Task, end.At = grants.ActionEndTask, &params, now.Add(2*time.Hour)
	return map[string]grants.Input{
		"start_task": start(), "end_task, late, with params": end,
		"grant": ask(testGrant("bank/pay")), "grant, full": ask(fullGrant()),
		"ask_for": other.Asks(release, now)[1], "revoke": revoke,
		"call, baseline": call("bank/rates", nil, parse(t, `{}`)), "call, input not known": call("bank/pay", testGrant("bank/pay"), nil),
		"call, full": withParams, "call of MCP, retried": note,
		"mcp method, in a grant": read, "mcp method": list,
	}
}

// fake is an engine that a test makes answer what it likes.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  int
}

func newFake(t testing.TB, answer http.HandlerFunc) *fake {
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		answer := f.answer
		f.asked++
		f.mu.Unlock()
		// All of it: net/http sees that the client is gone only behind its body.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.Header().Set("Content-Type", "application/json")
		answer(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) say(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(body)) }
}

func newPDP(t testing.TB, cfg Config) *PDP {
	t.Helper()
	cfg.Catalog, cfg.Logger = testCatalog(t), zap.NewNop()
	if cfg.Timeout == 0 {
		cfg.Timeout = MaxTimeout // of a busy machine
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.http.CloseIdleConnections)
	return p
}

// newOPAClient asks the engine as OPA.
func newOPAClient(t testing.TB, f *fake) *PDP {
	return newPDP(t, Config{Engine: OPA, URL: f.URL + "/v1/data/toolgrant/decide"})
}

// permitAll answers OPA's protocol with yes to all, and with what is beside.
func permitAll(t testing.TB, each, beside string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Input struct {
				Questions []struct{ N int } `json:"questions"`
			} `json:"input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		var all []string
		for _, q := range body.Input.Questions {
			n, _ := json.Marshal(q.N)
			all = append(all, `{"n": `+string(n)+`, "allow": true`+each+`}`)
		}
		text(`{"result": {"answers": [`+strings.Join(all, ",")+`]`+beside+`}}`)(w, r)
	}
}

func sorted[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
