package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
)

// stage is everything that the story needs, and what was started for it.
type stage struct {
	dir                      string // temporary: files, keys, logs
	toolgrant, server, envoy string // programs
	shelf                    *clients.Shelf

	broker, front string // base URLs: the broker's, and Envoy's
	tap           *tap   // by which the clients call Envoy
	procs         []*proc
}

// proc is a program that was started, and what it wrote.
type proc struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *proc) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// build lays out the files of examples/mcp with free ports, and starts the server,
// toolgrant and Envoy.
func (st *stage) build(ctx context.Context) error {
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	st.broker, st.front = "http://"+ports[1], "http://"+ports[2]
	if err := st.copyExample(map[string]string{
		"127.0.0.1:8080": ports[0], "127.0.0.1:8181": ports[1], "127.0.0.1:10000": ports[2], "127.0.0.1:9190": ports[3],
		// The path of a socket may have 107 bytes.
		"listen: 127.0.0.1:8182": "listen: unix://" + st.path("authz.sock"),
		"listen: 127.0.0.1:8183": "listen: unix://" + st.path("surface.sock"),
	}); err != nil {
		return err
	}

	// An identity provider in a folder, and two workloads that have its tokens. The
	// agent has one for the broker, and one for the MCP server's baseline.
	for file, args := range map[string][]string{
		"planner.jwt":      {"--agent", "planner", "--group", "orchestrators", "--audience", "toolgrant"},
		"scribe.jwt":       {"--agent", "scribe", "--group", "assistants", "--audience", "toolgrant"},
		"scribe-notes.jwt": {"--agent", "scribe", "--audience", st.front + "/mcp"},
	} {
		out, err := st.run(ctx, "", append([]string{"identity", "--dir", st.path("run/issuer")}, args...)...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(st.path(file), []byte(out), 0o600); err != nil {
			return err
		}
	}
	config, err := st.run(ctx, "", "envoy", "--config", st.path("toolgrant.yaml"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(st.path("envoy.yaml"), []byte(config), 0o600); err != nil {
		return err
	}

	for _, start := range []struct {
		addr string
		args []string
	}{
		{ports[0], []string{st.server, "--listen", ports[0]}},
		{ports[1], []string{st.toolgrant, "serve", "--config", st.path("toolgrant.yaml")}},
		{ports[2], []string{st.envoy, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c", st.path("envoy.yaml")}},
	} {
		if err := st.start(ctx, start.addr, start.args...); err != nil {
			return err
		}
	}
	st.tap, err = openTap(st.front)
	return err
}

func (st *stage) path(name string) string { return filepath.Join(st.dir, name) }

// copyExample copies examples/mcp, with other addresses.
func (st *stage) copyExample(replace map[string]string) error {
	var pairs []string
	for from, to := range replace {
		pairs = append(pairs, from, to)
	}
	r := strings.NewReplacer(pairs...)
	for _, pattern := range []string{"*.yaml", "policies/*"} {
		files, err := filepath.Glob(filepath.Join("examples/mcp", pattern))
		if err != nil || len(files) == 0 {
			return errors.Join(err, fmt.Errorf("no examples/mcp/%s: start the play in the project's folder", pattern))
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			to := st.path(strings.TrimPrefix(f, "examples/mcp/"))
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(to, []byte(r.Replace(string(text))), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// run runs toolgrant as a workload with an identity would, and returns what it
// printed.
func (st *stage) run(ctx context.Context, as string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, st.toolgrant, args...)
	cmd.Env = append(os.Environ(), "TOOLGRANT_URL="+st.broker)
	if as != "" {
		cmd.Env = append(cmd.Env, "TOOLGRANT_IDENTITY_TOKEN_FILE="+st.path(as+".jwt"))
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("toolgrant %s: %w\n%s", args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// start starts a program and waits until it listens at addr.
func (st *stage) start(ctx context.Context, addr string, args ...string) error {
	p := &proc{name: filepath.Base(args[0]), cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	// Its own group: a Ctrl-C comes to the play alone, which then stops them in
	// order. If the play itself is killed, so are they.
	p.cmd.SysProcAttr = childAttr()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	st.procs = append(st.procs, p)

	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr); err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once:\n%s", p.name, p.text())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen at %s: %w\n%s", p.name, addr, ctx.Err(), p.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends what was started, last first.
func (st *stage) stop() {
	if st.tap != nil {
		_ = st.tap.srv.Close()
	}
	for i := len(st.procs) - 1; i >= 0; i-- {
		p := st.procs[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
}

// freePorts returns loopback addresses that nobody listens on now.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// ranCalls returns the lines that the server logged: one for each thing that it
// really ran.
func (st *stage) ranCalls() []string {
	var ran []string
	for line := range strings.Lines(st.procs[0].text()) {
		if _, what, ok := strings.Cut(strings.TrimSpace(line), "msg=ran "); ok {
			ran = append(ran, what)
		}
	}
	return ran
}
