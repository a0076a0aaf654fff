package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/examples/stage"
)

// onlyCSV is the constraint of the story's grant, in the closed profile of JSON
// Schema: the report of October, as CSV.
const onlyCSV = `{"type":"object","required":["query","body"],"additionalProperties":false,"properties":{` +
	`"query":{"type":"object","required":["format"],"additionalProperties":false,"properties":{"format":{"type":"string","const":"csv"}}},` +
	`"body":{"type":"object","required":["month"],"additionalProperties":false,"properties":{"month":{"type":"string","const":"2026-10"}}}}}`

// script is the story as it goes on.
type script struct{ *stage.Stage }

func (s script) play(ctx context.Context) error {
	fmt.Printf(`
toolgrant, the main job. Everything below really runs, on this machine alone:
  a tool server "reports" (export, purge, health) · toolgrant serve (broker %s, call door on a Unix socket)
  Envoy in front of the tool at %s · two identities: planner (orchestrators), report-bot (reporting)
Each line "Envoy:" is what Envoy answered.
`, s.Broker, s.Front)

	s.Tell("A call without a token. At baseline the agent's tool surface is empty.")
	s.call(ctx, "", "POST", "/export?format=csv", `{"month":"2026-10"}`, 401, "no_credential")

	s.Tell("The planner starts a task and names who may hold its grants. report-bot asks for the one\ntool that the task needs: for 5 minutes, two calls, October as CSV and nothing else.")
	task, err := s.StartTask(ctx, "monthly-report", "corp/report-bot")
	if err != nil {
		return err
	}
	fmt.Printf("   %s\n", task)
	token, err := s.CLI(ctx, "report-bot", "grant", "--task", task, "--tool", "reports/export", "--ttl", "5m",
		"--max-calls", "2", "--constraint", onlyCSV)
	if err != nil {
		return err
	}
	fmt.Printf("   %s…  (a signed token of %d bytes)\n", token[:24], len(token))

	s.Tell("Granted: the same call with the token.")
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 200, "")
	s.Tell("Another tool, with the same token: as if the agent had been talked into it.")
	s.call(ctx, token, "DELETE", "/archive", "", 403, "wrong_tool")
	s.Tell("The granted tool with arguments that the grant does not cover: another format.")
	s.call(ctx, token, "POST", "/export?format=pdf", `{"month":"2026-10"}`, 403, "constraint")
	s.Tell("The second call that the budget has, and a third that it has not. (A denial spends nothing.)")
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 200, "")
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 403, "budget_spent")

	s.Tell("Another task, with a grant that no budget bounds. The planner ends the task: its grants are\nover at once, whatever time the token still names.")
	if task, err = s.StartTask(ctx, "monthly-report", "corp/report-bot"); err != nil {
		return err
	}
	if token, err = s.CLI(ctx, "report-bot", "grant", "--task", task, "--tool", "reports/export", "--ttl", "5m"); err != nil {
		return err
	}
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 200, "")
	if _, err := s.CLI(ctx, "planner", "task", "end", task); err != nil {
		return err
	}
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 403, "task_ended")

	s.Tell("What the tool really ran, by its own log. Three calls; no credential reached it.")
	ran := 0
	for line := range strings.Lines(s.ToolLog()) {
		if strings.Contains(line, "/export") || strings.Contains(line, "/archive") {
			ran++
			fmt.Print("   tool: ", line)
			if !strings.Contains(line, "authorization=false") {
				s.Failed("a credential reached the tool")
			}
		}
	}
	if ran != 3 {
		s.Failed("the tool ran %d calls, not 3", ran)
	}

	return s.End(ctx, "README.md, and examples/reports for the files behind this.")
}

// call sends one request to Envoy, prints its answer, and notes when its status
// or its reason is not what the story needs.
func (s script) call(ctx context.Context, token, method, path, body string, want int, reason string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.Front+path, strings.NewReader(body))
	if err != nil {
		s.Failed("%v", err)
		return
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	with := "no token"
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
		with = "token"
	}
	fmt.Printf("   %s %s %s  (%s)\n", method, path, body, with)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println("   Envoy: no answer:", err)
		s.Failed("%v", err)
		return
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	fmt.Printf("   Envoy: %s  %s\n", resp.Status, strings.TrimSpace(string(text)))
	if resp.StatusCode != want || reason != "" && !strings.Contains(string(text), `"reason":"`+reason+`"`) {
		s.Failed("step %d: %s %s did not get %d %s", s.Step, method, path, want, reason)
	}
}
