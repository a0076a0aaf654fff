package surface

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// What one connection may cost. Reading and writing have longer within an
// exchange, as its Pass says.
const (
	headerTime     = 5 * time.Second
	readTime       = 10 * time.Second
	writeTime      = 10 * time.Second
	idleTime       = 30 * time.Second // longer than Envoy keeps one for later (4 s), or it would find it closed
	maxConnections = 4096             // Envoy opens 320 for each server; MaxExchanges refuses before that
	graceTime      = 5 * time.Second  // for exchanges under way when the surface closes
)

// Server is a Surface on the wire.
type Server struct {
	surface  *Surface
	listener net.Listener
	http     *http.Server
	cut      context.CancelFunc // ends all exchanges
}

// Open listens on "unix:///path", a socket file that is made with mode 0660, or on
// "host:port" of a loopback address; Run answers. One that is not run is closed. A
// Surface is opened once.
func (s *Surface) Open(ctx context.Context, address string) (*Server, error) {
	l, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("surface listen %q: %w", address, err)
	}
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	h := &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxRequestHeaders,
		BaseContext:       func(net.Listener) context.Context { return base },
		Protocols:         new(http.Protocols),
		// What a peer does wrong is no news: a flood of it would be one of lines.
		ErrorLog: zap.NewStdLog(s.cfg.Logger.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))),
	}
	h.Protocols.SetHTTP1(true)
	return &Server{surface: s, listener: netutil.LimitListener(l, maxConnections), http: h, cut: cut}, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close cuts what is under way, and waits for it. Run does it at its end.
func (s *Server) Close() error {
	s.cut()
	_ = s.http.Close()
	err := s.listener.Close()
	s.surface.gate.close()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("surface: %w", err)
	}
	return nil
}

// Run answers until ctx ends; then exchanges under way get 5 s to finish. When it
// returns, none is left.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.listener) }()
	var failed error
	select {
	case err := <-done:
		if !errors.Is(err, http.ErrServerClosed) {
			failed = fmt.Errorf("surface: %w", err)
		}
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
		defer cancel()
		_ = s.http.Shutdown(grace) // what is left after it is cut
		<-done
	}
	return errors.Join(failed, s.Close())
}

// listen opens the address. A socket file that nobody listens on any more is
// replaced; one that somebody does is an error.
func listen(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return listenUnix(ctx, path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("write unix:///path or host:port: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, errors.New("plain TCP is for loopback only; use a Unix socket beside Envoy")
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the socket's path is absolute: unix:///run/toolgrant/surface.sock")
	}
	if err := clearSocket(ctx, path); err != nil {
		return nil, err
	}
	// Bound under a private name and moved into place with its mode set, so that
	// nobody can connect while the file still has the umask's mode.
	private := path + ".new"
	if err := os.Remove(private); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", private)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(private, 0o660)
	if err == nil {
		err = os.Rename(private, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return renamed{l, &net.UnixAddr{Net: "unix", Name: path}}, nil
}

// renamed is a listener at another address than it was bound to.
type renamed struct {
	net.Listener
	addr net.Addr
}

func (r renamed) Addr() net.Addr { return r.addr }

// clearSocket removes what an earlier run left at path, if it is a socket that
// nobody answers on.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("it is there and is no socket: remove it or choose another path")
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
		return errors.New("another process listens on it")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // busy is not gone
		return fmt.Errorf("whether another process listens on it is not known: %w", err)
	}
	return os.Remove(path)
}
