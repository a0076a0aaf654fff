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
)

// listen opens the door's address: "unix:///path", whose socket file is readable
// and writable by owner and group (0660), or "host:port"; where what is said
// there will not be encrypted, on loopback alone. A socket file that nobody
// listens on any more is replaced; one that somebody does is an error.
func listen(ctx context.Context, address string, encrypted bool) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if encrypted {
			return nil, fmt.Errorf("authz listen %q: TLS is for host:port; a socket's file mode says who may open it", address)
		}
		return listenUnix(ctx, path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("authz listen %q: write unix:///path or host:port: %w", address, err)
	}
	if ip, err := netip.ParseAddr(host); !encrypted && host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("authz listen %q: plain TCP is for loopback only; use a Unix socket beside Envoy, or TLS", address)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("authz listen: %w", err)
	}
	return l, nil
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("authz listen %q: the socket's path is absolute: unix:///run/toolgrant/authz.sock", path)
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
