package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/toolgrant/toolgrant/broker"
	"go.uber.org/zap"
)

// health is what /readyz and Envoy's health checks ask.
type health struct {
	checks []healthCheck
}

type healthCheck struct {
	name string
	ask  func() (note string, err error) // nil: well
}

// err is the first thing that keeps the doors from allowing anything; nil: none.
func (h *health) err() error {
	for _, c := range h.checks {
		if _, err := c.ask(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// adminHandler is for operators and probes. It has no secrets and no way to
// change anything.
func adminHandler(m *metrics, h *health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	// Alive: the process answers. A restart would end every task, so nothing
	// else is asked here.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	// Ready: a call inside a grant could be allowed now.
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		bad := false
		var text []byte
		for _, c := range h.checks {
			switch note, err := c.ask(); {
			case err != nil:
				bad = true
				text = fmt.Appendf(text, "%s: not ready: %v\n", c.name, err)
			case note != "":
				text = fmt.Appendf(text, "%s: ok: %s\n", c.name, note)
			default:
				text = fmt.Appendf(text, "%s: ok\n", c.name)
			}
		}
		if bad {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(text)
	})
	return ownHost(mux)
}

// ownHost refuses what a web page could send by a name of its own that leads
// here (DNS rebinding): an address cannot be rebound, and neither can localhost.
func ownHost(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if r.TLS == nil && host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
			http.Error(w, "this address is asked for by its number", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// maxAdminConns bounds what whoever reaches the admin address can take of the
// files that the doors need. When there is no room, the longest idle gives way.
const maxAdminConns = 32

// serveAdmin blocks until ctx ends. conf may be nil: plain HTTP, on loopback.
func serveAdmin(ctx context.Context, l net.Listener, conf *tls.Config, h http.Handler, log *zap.Logger) error {
	if err := broker.NewServer(h, broker.ServerConfig{TLS: conf, MaxConns: maxAdminConns, Logger: log}).Serve(ctx, l); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
