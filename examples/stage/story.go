package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Main plays until the end, or until a signal ends ctx, and returns the exit code:
// 0, 1 after an error, 130 if it was interrupted. name is what it calls itself.
func Main(name string, play func(ctx context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	defer stop()
	err := play(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
		return 0
	case interrupted:
		fmt.Fprintf(os.Stderr, "%s: interrupted; everything that it started has been stopped\n", name)
		return 130
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return 1
}

// Tell says what comes next.
func (st *Stage) Tell(text string) {
	st.Step++
	fmt.Printf("\n%d. %s\n", st.Step, indent(text))
}

// Failed notes what did not go as the story needs, for End.
func (st *Stage) Failed(format string, args ...any) {
	st.failed = append(st.failed, fmt.Sprintf(format, args...))
}

// CLI shows a command and runs it, as a workload with an identity of Build or, where
// as is "", without one. It returns what was printed.
func (st *Stage) CLI(ctx context.Context, as string, args ...string) (string, error) {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = strings.ReplaceAll(a, st.Dir+string(os.PathSeparator), "")
		if strings.HasPrefix(a, "{") {
			shown[i] = "'{…}'"
		}
	}
	prompt := "$"
	if as != "" {
		prompt = "[" + as + "] $"
	}
	fmt.Printf("   %s toolgrant %s\n", prompt, strings.Join(shown, " "))
	return st.run(ctx, as, args...)
}

// StartTask has the planner start a task of ten minutes, whose grants an agent may
// hold, and returns its id.
func (st *Stage) StartTask(ctx context.Context, kind, agent string) (string, error) {
	return st.CLI(ctx, "planner", "task", "start", "--kind", kind, "--agent", agent, "--ttl", "10m")
}

// End shows what is on record. Its error says what did not go as the story needs;
// if there is nothing, next says where to read on.
func (st *Stage) End(ctx context.Context, next string) error {
	st.Tell("What is on record: one line for each decision of either door, each chained to the one before.")
	out, err := st.CLI(ctx, "", "audit", "verify", st.Path("run/audit.jsonl"))
	if err != nil {
		return err
	}
	fmt.Println("   " + indent(out))
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(st.failed) > 0 {
		return errors.New("this did not go as it should:\n  " + strings.Join(st.failed, "\n  "))
	}
	fmt.Println("\nAll as it should be. Next: " + next)
	return nil
}

func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n   ") }
