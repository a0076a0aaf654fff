// Command demo plays the main job on loopback with real parts: the reports
// tool, toolgrant (broker and call door) and Envoy in front of the tool. It
// prints what Envoy answered, not what was expected, and exits with 1 if the
// two differ. It keeps everything in a temporary folder and takes it away at
// the end, also when interrupted. (Killed by SIGKILL, it leaves the folder, and
// no process.)
//
// It is started by `make demo`, which builds its programs and sets ENVOY.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/toolgrant/toolgrant/examples/stage"
)

func main() { os.Exit(stage.Main("demo", run)) }

func run(ctx context.Context) (err error) {
	st, err := stage.Open(stage.Config{
		Example:  "examples/reports",
		Programs: []string{"reports-tool"},
		Temp:     "toolgrant-demo-",
		Missing:  "start it with `make demo` in the project's folder: it builds the programs and finds Envoy",
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := st.Build(ctx, map[string][]string{
		"planner":    {"--agent", "planner", "--group", "orchestrators", "--audience", "toolgrant"},
		"report-bot": {"--agent", "report-bot", "--group", "reporting", "--audience", "toolgrant"},
	}); err != nil {
		return fmt.Errorf("setting the stage: %w", err)
	}
	return script{st}.play(ctx)
}
