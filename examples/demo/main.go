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
	"os/signal"
	"path/filepath"
	"syscall"
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
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything that it started has been stopped")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	os.Exit(1)
}

func run(ctx context.Context) (err error) {
	bin, err := filepath.Abs(".bin")
	if err != nil {
		return err
	}
	st := &stage{toolgrant: filepath.Join(bin, "toolgrant"), tool: filepath.Join(bin, "reports-tool"), envoy: os.Getenv("ENVOY")}
	for _, program := range []string{st.toolgrant, st.tool} {
		if _, err := os.Stat(program); err != nil || st.envoy == "" {
			return errors.New("start it with `make demo` in the project's folder: it builds the programs and finds Envoy")
		}
	}
	if st.dir, err = os.MkdirTemp("", "toolgrant-demo-"); err != nil {
		return err
	}
	defer func() {
		st.stop()
		err = errors.Join(err, os.RemoveAll(st.dir))
	}()
	if err := st.build(ctx); err != nil {
		return fmt.Errorf("setting the stage: %w", err)
	}
	return st.play(ctx)
}
