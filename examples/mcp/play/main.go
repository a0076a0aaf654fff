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
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	defer stop()
	err := run(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
		return
	case interrupted:
		fmt.Fprintln(os.Stderr, "play: interrupted; everything that it started has been stopped")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "play:", err)
	os.Exit(1)
}

func run(ctx context.Context) (err error) {
	bin, err := filepath.Abs(".bin")
	if err != nil {
		return err
	}
	parts := os.Getenv("TOOLGRANT_MCP_PEERS")
	st := &stage{toolgrant: filepath.Join(bin, "toolgrant"), server: filepath.Join(bin, "mcp-server"), envoy: os.Getenv("ENVOY")}
	for _, program := range []string{st.toolgrant, st.server, filepath.Join(bin, "mcp-client")} {
		if _, err := os.Stat(program); err != nil || st.envoy == "" || parts == "" {
			return errors.New("start it with `make demo-mcp` in the project's folder: it builds the programs, and finds Envoy and the MCP parts")
		}
	}
	if st.dir, err = os.MkdirTemp("", "toolgrant-mcp-"); err != nil {
		return err
	}
	defer func() {
		st.stop()
		err = errors.Join(err, os.RemoveAll(st.dir))
	}()
	if st.shelf, err = clients.Lay(st.dir, peers.Folder(parts), filepath.Join(bin, "mcp-client")); err != nil {
		return err
	}
	if err := st.build(ctx); err != nil {
		return fmt.Errorf("setting the stage: %w", err)
	}
	return st.play(ctx)
}
