package authz

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

var grpcInternal = status.Error(codes.Internal, "internal error")

// NewServer returns a gRPC server that serves check behind Closed, and the
// standard health service. maxBody is the filter's max_request_bytes.
func NewServer(check authv3.AuthorizationServer, maxBody int, log *zap.Logger) *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(Closed(log)),
		// The body, and what headers and metadata Envoy lets through (its
		// max_request_headers_kb bounds them).
		grpc.MaxRecvMsgSize(maxBody+256<<10),
		grpc.MaxConcurrentStreams(4096),
		grpc.ConnectionTimeout(5*time.Second),
		// Envoy's own keepalive asks every 10 s, also on an idle connection.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
	)
	authv3.RegisterAuthorizationServer(s, check)
	healthv1.RegisterHealthServer(s, health.NewServer())
	return s
}

// Listen opens the door's address: "unix:///path", whose socket file is
// readable and writable by owner and group (0660), or "host:port" on loopback,
// since nothing on the wire is encrypted. A socket file that nobody listens on
// any more is replaced; one that somebody does is an error.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix://")
	if !isUnix {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("authz listen %q: write unix:///path or host:port: %w", address, err)
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("authz listen %q: plain TCP is for loopback only; use a Unix socket beside Envoy", address)
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("authz listen: %w", err)
		}
		return l, nil
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("authz listen %q: the socket's path is absolute: unix:///run/toolgrant/authz.sock", address)
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	// Bound under a private name and moved into place with its mode set, so
	// that nobody can connect while the file still has the umask's mode.
	private := path + ".new"
	if err := os.Remove(private); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("authz listen: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", private)
	if err != nil {
		return nil, fmt.Errorf("authz listen: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(private, 0o660)
	if err == nil {
		err = os.Rename(private, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("authz listen: %w", err)
	}
	return l, nil
}

// clearSocket removes what an earlier run left at path, if it is a socket that
// nobody answers on.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("authz listen: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("authz listen: %s is there and is no socket: remove it or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("authz listen: another process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // busy is not gone
		return fmt.Errorf("authz listen: whether another process listens on %s is not known: %w", path, err)
	}
	return os.Remove(path)
}
