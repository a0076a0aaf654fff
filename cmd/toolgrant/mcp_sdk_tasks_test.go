package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/client"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// jobsServer is the catalogue entry of a server whose calls become tasks.
const jobsServer = `
- id: jobs
  resource: https://jobs.internal/mcp
  upstream: UPSTREAM
  mcp: {path: /mcp/jobs, upstream_path: /mcp, denials: DENIALS}
  tools:
  - {tool: peek, sets: [read], input: {type: object}}
  - {tool: start_job, sets: [write], tasks: true, input: {type: object, properties: {text: {type: string}}, required: [text]}}
`

// jobs makes a task of each call, and answers it in JSON or, where the job's text says
// so, by an event of a stream. It tells whoever asks.
type jobs struct {
	mu   sync.Mutex
	made int
	ran  []string // methods, and the task that they are about
}

func (j *jobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID     json.RawMessage
		Method string
		Params struct {
			TaskID    string
			Arguments struct{ Text string }
		}
	}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &m); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	j.mu.Lock()
	id := m.Params.TaskID
	if m.Method == "tools/call" {
		j.made++
		id = fmt.Sprintf("job-%d", j.made)
	}
	j.ran = append(j.ran, m.Method+" "+id)
	j.mu.Unlock()
	const when = `"createdAt":"2026-07-28T00:00:00Z","lastUpdatedAt":"2026-07-28T00:00:00Z"`
	modern := r.Header.Get("Mcp-Protocol-Version") >= "2026-07-28"
	result := `{"taskId":"` + id + `","status":"working","ttl":60000,` + when + `}`
	switch {
	case modern && m.Method == "tools/call":
		result = `{"resultType":"task","taskId":"` + id + `","status":"working","ttlMs":60000,` + when + `}`
	case modern:
		result = `{"resultType":"complete","taskId":"` + id + `","status":"working","ttlMs":60000,` + when + `}`
	case m.Method == "tools/call":
		result = `{"task":` + result + `}`
	}
	answer := `{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":` + result + `}`
	if m.Params.Arguments.Text == "by an event" {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, ": wait\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"begun\"}}\n\ndata: %s\n\n", answer)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, answer)
}

// took returns what ran since the last time.
func (j *jobs) took() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	ran := j.ran
	j.ran = nil
	return ran
}

// TestServersTasks: a call under a grant becomes a task of the server's, in both forms
// that MCP has of it. It is told under that grant, or what renews it, and to its agent.
func TestServersTasks(t *testing.T) {
	j := &jobs{}
	srv := httptest.NewServer(j)
	t.Cleanup(srv.Close)
	m := openMCP(t, strings.Replace(jobsServer, "DENIALS", "http", 1), strings.TrimPrefix(srv.URL, "http://"))
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		for _, how := range []string{"by JSON", "by an event"} {
			t.Run(revision+" "+how, func(t *testing.T) {
				inner := *m.world
				inner.t = t
				(&jobsClient{&inner, j, revision}).play(how)
			})
		}
	}
}

type jobsClient struct {
	*world
	jobs     *jobs
	revision string
}

// wants asks for a method, about the task or (tools/call) with the text, and holds the
// status, and that the server ran it exactly if that is 200.
func (c *jobsClient) wants(want, token, method, about string) string {
	c.t.Helper()
	params, name := fmt.Sprintf(`"taskId":%q`, about), about
	if method == "tools/call" {
		params, name = fmt.Sprintf(`"name":"start_job","arguments":{"text":%q}`, about), "start_job"
		if c.revision == "2025-11-25" {
			params += `,"task":{"ttl":60000}`
		}
	}
	headers := []string{"Accept", "application/json, text/event-stream", "MCP-Protocol-Version", c.revision}
	if c.revision >= "2026-07-28" {
		headers = append(headers, "Mcp-Method", method, "Mcp-Name", name)
		params += `,"_meta":{"io.modelcontextprotocol/protocolVersion":"` + c.revision +
			`","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`
	}
	a := c.call(token, "POST", "/mcp/jobs", `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":{`+params+`}}`, headers...)
	said := "200"
	if a.status != http.StatusOK {
		var denial struct {
			Error struct{ Data struct{ Reason string } }
		}
		if err := json.Unmarshal([]byte(a.body), &denial); err != nil {
			c.t.Fatalf("%v: %s", err, a.body)
		}
		said = fmt.Sprintf("%d %s", a.status, denial.Error.Data.Reason)
	}
	ran := c.jobs.took()
	if said != want || (len(ran) == 1) != (want == "200") || len(ran) > 1 {
		c.t.Fatalf("%s %s: %s, and the server ran %q; want %s\n%s", method, about, said, ran, want, a.body)
	}
	return a.body
}

func (c *jobsClient) play(how string) {
	c.t.Helper()
	task, err := c.planner().StartTask(c.t.Context(), client.TaskRequest{Kind: "monthly-report", Agents: []string{"corp/report-bot", "corp/other-bot"}})
	if err != nil {
		c.t.Fatal(err)
	}
	buy := func(agent, renew string) client.Token {
		c.t.Helper()
		tok, err := c.as(agent, "reporting").Exchange(c.t.Context(), client.GrantRequest{Tool: "jobs/start_job", Task: task.ID, TTL: 5 * time.Minute, Renew: renew})
		if err != nil {
			c.t.Fatal(err)
		}
		return tok
	}
	mine, again, other := buy("report-bot", ""), buy("report-bot", ""), buy("other-bot", "")
	self := c.identity("report-bot", "https://jobs.internal/mcp", "reporting")

	c.wants("403 no_grant", self, "tools/call", how)
	answer := c.wants("200", mine.AccessToken, "tools/call", how)
	_, rest, _ := strings.Cut(answer, `"taskId":"`)
	job, _, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(job, "job-") || strings.Contains(answer, "data: ") != (how == "by an event") {
		c.t.Fatalf("no task: %s", answer)
	}
	c.wants("200", mine.AccessToken, "tasks/get", job)
	c.wants("403 no_grant", other.AccessToken, "tasks/get", job)
	c.wants("403 no_grant", other.AccessToken, "tasks/cancel", job)
	c.wants("403 no_grant", mine.AccessToken, "tasks/get", "job-of-nobody")
	c.wants("403 wrong_tool", again.AccessToken, "tasks/get", job)
	c.wants("403 wrong_tool", self, "tasks/get", job)

	renewed := buy("report-bot", mine.Grants[0].ID)
	c.wants("403 superseded", mine.AccessToken, "tasks/get", job)
	c.wants("200", renewed.AccessToken, "tasks/get", job)
	if err := c.planner().Revoke(c.t.Context(), renewed.Grants[0].ID); err != nil {
		c.t.Fatal(err)
	}
	c.wants("403 revoked", renewed.AccessToken, "tasks/get", job)
	c.wants("403 wrong_tool", again.AccessToken, "tasks/get", job)
}

// TestPythonsTasks: a server and a client of Python's mcp 1.x, which have tasks of
// 2025-11-25, in a session.
func TestPythonsTasks(t *testing.T) {
	parts := peers.Find(t)
	addr := peers.FreeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	server := peers.Serve(t, parts.Python(1, "testdata/mcp/jobs_server.py", port), addr)
	m := openMCP(t, strings.Replace(jobsServer, "DENIALS", "jsonrpc", 1), addr) // by HTTP, a denial ends the session
	tok, _ := m.grants("jobs/start_job")
	other, _ := m.grants("jobs/start_job")
	out, err := peers.Run(t, parts.Python(1, "testdata/mcp/jobs_client.py", m.front+"/mcp/jobs", tok, other))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := "started working\ngot completed\nresult done: x\nanother grant: wrong_tool\n"
	if d := cmp.Diff(want, out); d != "" {
		t.Error(d)
	}
	if got := server.Output(); strings.Count(got, "ran x") != 1 {
		t.Errorf("what ran:\n%s", got)
	}
}
