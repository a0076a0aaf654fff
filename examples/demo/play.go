package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// onlyCSV is the constraint of the story's grant, in the closed profile of JSON
// Schema: the report of October, as CSV.
const onlyCSV = `{"type":"object","required":["query","body"],"additionalProperties":false,"properties":{` +
	`"query":{"type":"object","required":["format"],"additionalProperties":false,"properties":{"format":{"type":"string","const":"csv"}}},` +
	`"body":{"type":"object","required":["month"],"additionalProperties":false,"properties":{"month":{"type":"string","const":"2026-10"}}}}}`

// script is the story as it goes on: what went wrong is kept.
type script struct {
	*stage
	step   int
	failed []string
}

func (st *stage) play(ctx context.Context) error {
	s := &script{stage: st}
	fmt.Printf(`
toolgrant, the main job. Everything below really runs, on this machine alone:
  a tool server "reports" (export, purge, health) · toolgrant serve (broker %s, call door on a Unix socket)
  Envoy in front of the tool at %s · two identities: planner (orchestrators), report-bot (reporting)
Each line "Envoy:" is what Envoy answered.
`, st.broker, st.front)

	s.tell("A call without a token. At baseline the agent's tool surface is empty.")
	s.call(ctx, "", "POST", "/export?format=csv", `{"month":"2026-10"}`, 401, "no_credential")

	s.tell("The planner starts a task and names who may hold its grants. report-bot asks for the one\ntool that the task needs: for 5 minutes, two calls, October as CSV and nothing else.")
	task, err := s.cli(ctx, "planner", "task", "start", "--kind", "monthly-report", "--agent", "corp/report-bot", "--ttl", "10m")
	if err != nil {
		return err
	}
	fmt.Printf("   %s\n", task)
	token, err := s.cli(ctx, "report-bot", "grant", "--task", task, "--tool", "reports/export", "--ttl", "5m",
		"--max-calls", "2", "--constraint", onlyCSV)
	if err != nil {
		return err
	}
	fmt.Printf("   %s…  (a signed token of %d bytes)\n", token[:24], len(token))

	s.tell("Granted: the same call with the token.")
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 200, "")
	s.tell("Another tool, with the same token: as if the agent had been talked into it.")
	s.call(ctx, token, "DELETE", "/archive", "", 403, "wrong_tool")
	s.tell("The granted tool with arguments that the grant does not cover: another format.")
	s.call(ctx, token, "POST", "/export?format=pdf", `{"month":"2026-10"}`, 403, "constraint")
	s.tell("The second call that the budget has, and a third that it has not. (A denial spends nothing.)")
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 200, "")
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 403, "budget_spent")

	s.tell("Another task, with a grant that no budget bounds. The planner ends the task: its grants are\nover at once, whatever time the token still names.")
	if task, err = s.cli(ctx, "planner", "task", "start", "--kind", "monthly-report", "--agent", "corp/report-bot", "--ttl", "10m"); err != nil {
		return err
	}
	if token, err = s.cli(ctx, "report-bot", "grant", "--task", task, "--tool", "reports/export", "--ttl", "5m"); err != nil {
		return err
	}
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 200, "")
	if _, err := s.cli(ctx, "planner", "task", "end", task); err != nil {
		return err
	}
	s.call(ctx, token, "POST", "/export?format=csv", `{"month":"2026-10"}`, 403, "task_ended")

	s.tell("What the tool really ran, by its own log. Three calls; no credential reached it.")
	ran := 0
	for _, line := range s.ranCalls() {
		if strings.Contains(line, "/export") || strings.Contains(line, "/archive") {
			ran++
			fmt.Println("   tool:", line)
			if !strings.Contains(line, "authorization=false") {
				s.failed = append(s.failed, "a credential reached the tool")
			}
		}
	}
	if ran != 3 {
		s.failed = append(s.failed, fmt.Sprintf("the tool ran %d calls, not 3", ran))
	}

	s.tell("What is on record: one line for each decision of either door, each chained to the one before.")
	out, err := s.cli(ctx, "", "audit", "verify", s.path("run/audit.jsonl"))
	if err != nil {
		return err
	}
	fmt.Println("   " + strings.ReplaceAll(out, "\n", "\n   "))

	if err := ctx.Err(); err != nil {
		return err
	}
	if len(s.failed) > 0 {
		return errors.New("this did not go as it should:\n  " + strings.Join(s.failed, "\n  "))
	}
	fmt.Println("\nAll as it should be. Next: README.md, and examples/reports for the files behind this.")
	return nil
}

// tell says what comes next.
func (s *script) tell(text string) {
	s.step++
	fmt.Printf("\n%d. %s\n", s.step, strings.ReplaceAll(text, "\n", "\n   "))
}

// cli shows a command and runs it.
func (s *script) cli(ctx context.Context, as string, args ...string) (string, error) {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = strings.ReplaceAll(a, s.dir+string(os.PathSeparator), "")
		if strings.HasPrefix(a, "{") {
			shown[i] = "'{…}'"
		}
	}
	prompt := ""
	if as != "" {
		prompt = "[" + as + "] "
	}
	fmt.Printf("   %s\n", prompt+"$ toolgrant "+strings.Join(shown, " "))
	return s.run(ctx, as, args...)
}

// call sends one request to Envoy, prints its answer, and notes when its status
// or its reason is not what the story needs.
func (s *script) call(ctx context.Context, token, method, path, body string, want int, reason string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.front+path, strings.NewReader(body))
	if err != nil {
		s.failed = append(s.failed, err.Error())
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
		s.failed = append(s.failed, err.Error())
		return
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	fmt.Printf("   Envoy: %s  %s\n", resp.Status, strings.TrimSpace(string(text)))
	if resp.StatusCode != want || reason != "" && !strings.Contains(string(text), `"reason":"`+reason+`"`) {
		s.failed = append(s.failed, fmt.Sprintf("step %d: %s %s did not get %d %s", s.step, method, path, want, reason))
	}
}
