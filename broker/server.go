package broker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// What one connection may cost. The first two bound a slow sender, the third the
// whole of an answer; once there is one to read, answerTime bounds that.
const (
	headerTime = 5 * time.Second
	readTime   = 10 * time.Second
	writeTime  = 30 * time.Second
	idleTime   = 60 * time.Second
	maxHeaders = 32 << 10 // bytes
	maxStreams = 64       // at a time, of one HTTP/2 connection

	// maxUnread is what an HTTP/2 connection may send ahead of its handlers, in
	// bytes; the default of 1 MiB would make 4 GiB of 4096 connections.
	maxUnread = maxBody

	// graceTime is how long an answer may take after the door has closed.
	graceTime = 5 * time.Second
)

// ServerConfig is how a Server takes connections.
type ServerConfig struct {
	// TLS, if it is not nil, is what to speak: HTTP/1.1 or HTTP/2 over it. A
	// configuration that GetConfigForClient returns names "h2" and "http/1.1" in
	// its own NextProtos. Nil: plain HTTP/1.1, for loopback.
	TLS *tls.Config

	// MaxConns bounds the open connections; 0: a quarter of the files that the
	// process may open, at most 4096. One source address (an IPv6 /64) has at most
	// half of them. When there is no room, a new connection takes the place of the
	// one that has been idle longest.
	MaxConns int

	Logger *zap.Logger // required
}

// Server serves HTTP so that a client which is slow, idle or greedy costs the
// others nothing.
type Server struct {
	http *http.Server
	cfg  ServerConfig
}

// NewServer returns a Server of h, which is Broker.Handler or stands before it.
func NewServer(h http.Handler, cfg ServerConfig) *Server {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultMaxConns()
	}
	s := &http.Server{
		Handler:           h,
		TLSConfig:         cfg.TLS.Clone(),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaders,
		ConnState:         connState,
		Protocols:         new(http.Protocols),
		// A stream that is reset stays counted until its handler is back, and four
		// times maxStreams that wait for one end the connection (CVE-2023-44487).
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: maxUnread, MaxReceiveBufferPerConnection: maxUnread,
			SendPingTimeout: idleTime, WriteByteTimeout: writeTime,
		},
		// What a client does wrong is no news: a flood of it would be one of lines.
		ErrorLog: zap.NewStdLog(cfg.Logger.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(cfg.TLS != nil)
	return &Server{http: s, cfg: cfg}
}

// Serve answers on l, which it closes, until ctx ends; then answers that are
// under way have graceTime. It is called once. The error is nil after an end that
// ctx asked for.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := newGuard(l, s.cfg.MaxConns, s.cfg.Logger)
	done := make(chan error, 1)
	go func() {
		if s.cfg.TLS != nil {
			done <- s.http.ServeTLS(g, "", "")
		} else {
			done <- s.http.Serve(g)
		}
	}()
	select {
	case err := <-done:
		return fmt.Errorf("broker: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close()
	}
	<-done
	return nil
}
