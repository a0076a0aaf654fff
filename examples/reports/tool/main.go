// Command tool is the tool server of the reports example: three endpoints that
// do nothing but say that they ran. It knows nothing of grants. What may reach
// it is decided in front of it, so it must not be reachable past Envoy.
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

	"github.com/toolgrant/toolgrant/examples/reports"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "host:port to serve the tools on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and writes one line per call to out.
func run(ctx context.Context, listen string, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(out, nil))
	log.Info("tools are served", "address", l.Addr().String())
	srv := &http.Server{Handler: reports.Tools(log), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
