// Command tool is the tool server of the reports example: three endpoints that
// do nothing but say that they ran. It knows nothing of grants. What may reach
// it is decided in front of it, so it must not be reachable past Envoy.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

// maxBody bounds a request body, in bytes. Envoy's limit is the same.
const maxBody = 64 << 10

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
	srv := &http.Server{Handler: tools(log), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// tools serves the three tools of the catalogue. Any other path or method is
// answered 404 or 405 and not logged: it ran nothing.
func tools(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /export", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Month string `json:"month"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, "a JSON body with a month is needed", http.StatusBadRequest)
			return
		}
		format := r.URL.Query().Get("format")
		ran(log, r, "export", "month", in.Month, "format", format)
		answer(w, map[string]any{"tool": "export", "month": in.Month, "format": format, "rows": 42})
	})
	mux.HandleFunc("DELETE /archive", func(w http.ResponseWriter, r *http.Request) {
		ran(log, r, "purge")
		answer(w, map[string]any{"tool": "purge", "purged": true})
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		ran(log, r, "health")
		answer(w, map[string]any{"tool": "health", "ok": true})
	})
	return mux
}

// ran logs a call that really ran: the tool, what the call door says of the
// grant it came under (the x-grant-ctx-* headers), and whether a credential
// came with it. None may: of an authorization header the log says only that it
// was there.
func ran(log *slog.Logger, r *http.Request, tool string, args ...any) {
	for _, name := range grantContext(r.Header) {
		args = append(args, name, strings.Join(r.Header[name], ","))
	}
	_, credential := r.Header["Authorization"]
	log.Info("ran", append([]any{"tool", tool, "authorization", credential}, args...)...)
}

// grantContext returns the names of the x-grant-ctx-* headers, sorted.
func grantContext(h http.Header) []string {
	var names []string
	for name := range h {
		if strings.HasPrefix(name, "X-Grant-Ctx-") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func answer(w http.ResponseWriter, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the caller has gone
}
