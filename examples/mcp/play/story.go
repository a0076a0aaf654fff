package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/stage"
)

// script is the story as it goes on.
type script struct {
	*stage.Stage
	shelf *clients.Shelf
	tap   *tap // by which the clients call Envoy
	open  []*clients.Session
}

// Steps of the clients.
const (
	readNote    = `call read_note {"note":"work/standup"}`
	writeNote   = `call write_note {"note":"work/standup","text":"shipped"}`
	deleteNote  = `call delete_note {"note":"work/standup"}`
	writeByName = `call call_tool {"name":"write_note","arguments":{"note":"work/standup","text":"shipped, and told"}}`
	eraseByName = `call call_tool {"name":"delete_note","arguments":{"note":"work/standup"}}`
)

func (s *script) play(ctx context.Context) error {
	defer func() {
		for _, c := range s.open {
			_ = c.Close()
		}
	}()
	fmt.Printf(`
toolgrant and MCP. Everything below really runs, on this machine alone:
  an MCP server "notes" (Go SDK) · toolgrant serve (broker %s, call door and surface on Unix sockets)
  Envoy in front of the server at %s/mcp · clients of the Go, Python and TypeScript SDKs
  two identities: planner (orchestrators), scribe (assistants)
For each message that a client sends there is a line with what Envoy answered; "client:" is what the client made of it.
`, s.Broker, s.Front)

	s.Tell("The catalogue pins what the server says of its tools. The server is asked: nothing has drifted.")
	drift, err := s.CLI(ctx, "", "catalogue", "diff", "--config", s.Path("toolgrant.yaml"))
	if err != nil {
		return err
	}
	fmt.Printf("   %s\n", drift)

	s.Tell("The scribe's agent starts without a task. At baseline it sees the tools, and reads; it does not write.")
	baseline := []string{"TOOLGRANT_TASK=", "TOOLGRANT_BASELINE_TOKEN_FILE=" + s.Path("scribe-notes.jwt")}
	python, err := s.client(clients.Python, "2026-07-28", baseline)
	if err != nil {
		return err
	}
	s.does(python, "tools", "call_tool delete_note list_notes read_note write_note", "")
	s.does(python, readNote, "ship the report", "")
	s.does(python, writeNote, "", "no_grant")

	s.Tell("The planner starts a task. The same agent with that task: its client asks the broker for write_note\nby itself, and puts the token on what it sends.")
	task, err := s.StartTask(ctx, "tidy-up", "corp/scribe")
	if err != nil {
		return err
	}
	fmt.Printf("   %s\n", task)
	granted := []string{"TOOLGRANT_URL=" + s.Broker, "TOOLGRANT_IDENTITY_TOKEN_FILE=" + s.Path("scribe.jwt"),
		"TOOLGRANT_TASK=" + task, "TOOLGRANT_TOOLS=notes/write_note"}
	golang, err := s.client(clients.Go, "2026-07-28", granted)
	if err != nil {
		return err
	}
	s.does(golang, writeNote, "written", "")

	s.Tell("The agent is talked into deleting the note.")
	s.does(golang, deleteNote, "", "wrong_tool")

	s.Tell("The server has a meta-tool that calls another one by its name. What is decided is what would run.")
	typescript, err := s.client(clients.TypeScript, "2026-07-28", granted)
	if err != nil {
		return err
	}
	s.does(typescript, writeByName, "written", "")
	s.does(typescript, eraseByName, "", "wrong_tool")

	s.Tell("A client of an older revision has a session, which is bound to its agent.")
	python1, err := s.client(clients.Python1, "2025-11-25", granted)
	if err != nil {
		return err
	}
	s.does(python1, writeNote, "written", "")
	if err := python1.Close(); err != nil {
		return err
	}
	s.took()

	s.Tell("Another task, with grants of five seconds. The client goes on for seven, and renews them by itself.")
	errand, err := s.StartTask(ctx, "tidy-up", "corp/scribe")
	if err != nil {
		return err
	}
	fmt.Printf("   %s\n", errand)
	short, err := s.client(clients.Python, "2026-07-28", append(granted, "TOOLGRANT_TASK="+errand, "TOOLGRANT_TTL=5"))
	if err != nil {
		return err
	}
	s.does(short, writeNote, "written", "")
	if err := s.goOn(ctx, short, 7*time.Second); err != nil {
		return err
	}
	s.does(short, writeNote, "written", "")

	s.Tell("The planner ends the first task. Its clients still run, their tokens still have minutes: nothing more is\nwritten. What the agent may at baseline, it may still.")
	if _, err := s.CLI(ctx, "planner", "task", "end", task); err != nil {
		return err
	}
	s.does(golang, writeNote, "", "task_ended")
	s.does(typescript, writeByName, "", "task_ended")
	s.does(python, readNote, "shipped", "")

	s.Tell("What the server really ran, by its own log. No credential reached it; calls 5 and 6 had another grant each.")
	grants := s.logged("read_note", "write_note", "write_note", "write_note", "write_note", "write_note", "read_note")
	if len(grants) == 7 && (grants[4] == grants[5] || grants[4] == "") {
		s.Failed("the grant of five seconds was not renewed")
	}

	return s.End(ctx, "examples/mcp/README.md, and the five lines that a client needs.")
}

// client starts the client of an SDK as the scribe's agent.
func (s *script) client(sdk, revision string, env []string) (*clients.Session, error) {
	c, err := clients.Open(s.shelf.Command(sdk, s.tap.url+"/mcp", revision, env...))
	if err != nil {
		return nil, err
	}
	s.open = append(s.open, c)
	fmt.Printf("   [scribe] $ %s client, MCP %s\n", sdk, revision)
	return c, nil
}

// does has a client do a step, prints what Envoy and the client said, and notes when
// that is not what the story needs: an answer that contains ok or, where ok is "",
// a denial with the reason.
func (s *script) does(c *clients.Session, step, ok, reason string) {
	fmt.Printf("   > %s\n", step)
	answer, err := c.Do(step)
	seen := s.took()
	wrong := func(what string) {
		s.Failed("step %d: %s: %s", s.Step, step, what)
	}
	if err != nil {
		fmt.Println("     client:", err)
		wrong("the client gave no answer")
		return
	}
	if answer.OK != nil {
		fmt.Println("     client:", *answer.OK)
	} else {
		fmt.Println("     client: error:", answer.Error)
	}
	denied := slices.ContainsFunc(seen, func(e exchange) bool { return e.reason == reason && e.status == 403 })
	switch {
	case ok != "" && (answer.OK == nil || !strings.Contains(*answer.OK, ok)):
		wrong("it was not done")
	case ok == "" && answer.OK != nil:
		wrong("it was done")
	case ok == "" && !denied:
		wrong("Envoy did not say 403 " + reason)
	}
}

// goOn has a client ask for the tools once a second, and prints what Envoy said.
func (s *script) goOn(ctx context.Context, c *clients.Session, span time.Duration) error {
	for end := time.Now().Add(span); time.Now().Before(end); {
		if answer, err := c.Do("tools"); err != nil || answer.OK == nil {
			s.Failed("step %d: tools: %s %v", s.Step, answer, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	s.took()
	return nil
}

// took prints what Envoy has answered since the last time, and returns it.
func (s *script) took() []exchange {
	seen := s.tap.taken()
	for _, e := range seen {
		fmt.Printf("     %s\n", e)
	}
	return seen
}

var ranTool = regexp.MustCompile(`^tool=(\w+) authorization=false (?:.* x-grant-ctx-grant=(g_\w+))?`)

// logged prints the server's log, and notes when other tools ran than these, or a
// credential reached one. It returns the grant of each, "" for none.
func (s *script) logged(want ...string) (grants []string) {
	var ran []string
	for line := range strings.Lines(s.ToolLog()) {
		_, line, ok := strings.Cut(strings.TrimSpace(line), "msg=ran ")
		if !ok {
			continue
		}
		fmt.Println("   server:", line)
		if m := ranTool.FindStringSubmatch(line); m != nil {
			ran, grants = append(ran, m[1]), append(grants, m[2])
		} else {
			s.Failed("the server ran something else: %s", line)
		}
	}
	if !slices.Equal(ran, want) {
		s.Failed("the server ran %v, not %v", ran, want)
	}
	return grants
}
