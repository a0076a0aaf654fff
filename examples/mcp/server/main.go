// Command server serves the MCP server of the example on its own. It knows nothing
// of grants. What may reach it is decided in front of it, so it must not be
// reachable past Envoy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/toolgrant/toolgrant/examples/mcp/notes"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "host:port to serve MCP on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and writes one line to out for each thing that ran.
func run(ctx context.Context, listen string, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(out, nil))
	log.Info("notes are served", "url", fmt.Sprintf("http://%s/mcp", l.Addr()))
	// No WriteTimeout: the stream of a session stays open.
	srv := &http.Server{Handler: notes.Handler(log), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
