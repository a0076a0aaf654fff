// Command play plays the MCP example on loopback with real parts: clients of the
// Go, Python and TypeScript SDKs, Envoy, toolgrant (broker, call door and surface)
// and the notes server. It prints what Envoy and the clients said, not what was
// expected, and exits with 1 if the two differ. It keeps everything in a temporary
// folder and takes it away at the end, also when interrupted. (Killed by SIGKILL,
// it leaves the folder, and no process.)
//
// It is started by `make demo-mcp`, which builds its programs and sets ENVOY and
// TOOLGRANT_MCP_PEERS.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
	"github.com/toolgrant/toolgrant/examples/stage"
)

const missing = "start it with `make demo-mcp` in the project's folder: it builds the programs, and finds Envoy and the MCP parts"

func main() { os.Exit(stage.Main("play", run)) }

func run(ctx context.Context) (err error) {
	parts := os.Getenv("TOOLGRANT_MCP_PEERS")
	if parts == "" {
		return errors.New(missing)
	}
	st, err := stage.Open(stage.Config{
		Example:  "examples/mcp",
		Programs: []string{"mcp-server", "mcp-client"},
		Temp:     "toolgrant-mcp-",
		Missing:  missing,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	shelf, err := clients.Lay(st.Dir, peers.Folder(parts), st.Program("mcp-client"))
	if err != nil {
		return err
	}
	// The agent has a token for the broker, and one for the MCP server's baseline.
	if err := st.Build(ctx, map[string][]string{
		"planner":      {"--agent", "planner", "--group", "orchestrators", "--audience", "toolgrant"},
		"scribe":       {"--agent", "scribe", "--group", "assistants", "--audience", "toolgrant"},
		"scribe-notes": {"--agent", "scribe", "--audience", st.Front + "/mcp"},
	}); err != nil {
		return fmt.Errorf("setting the stage: %w", err)
	}
	tap, err := openTap(st.Front)
	if err != nil {
		return fmt.Errorf("setting the stage: %w", err)
	}
	defer tap.srv.Close()
	return (&script{Stage: st, shelf: shelf, tap: tap}).play(ctx)
}
