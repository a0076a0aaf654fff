// Package envoytest runs the real Envoy for tests.
//
// An Envoy that it starts lives no longer than the test: it is ended by a
// cleanup, and by the kernel if the test process dies first. A missing binary
// fails the test and never skips it, so a green run means that Envoy ran.
package envoytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// Bounds on what Start and its cleanup wait for.
const (
	startWithin = 20 * time.Second
	stopWithin  = 5 * time.Second
)

// Proxy is a running Envoy. Its methods are safe for concurrent use.
type Proxy struct {
	// Admin is the host:port of the admin interface: the configuration's own,
	// or one on a free loopback port where the configuration has none.
	Admin string

	listeners map[string]string // listener name -> host:port
	stdout    buffer
	stderr    buffer
	done      chan struct{} // closed when the process has ended
	err       error         // how it ended; read after done
}

// Binary returns the path of the Envoy to test with: $ENVOY if set, else
// .envoy/envoy/_bin/envoy under the module's root, else envoy on PATH. It
// fails the test if there is none.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ENVOY"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			t.Fatalf("$ENVOY: %v", err)
		}
		return path
	}
	if root, ok := moduleRoot(); ok {
		path := filepath.Join(root, ".envoy", "envoy", "_bin", "envoy")
		if _, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		t.Fatal("no Envoy binary: run `make envoy`, or set $ENVOY")
	}
	return path
}

// moduleRoot walks up from the working directory, which go test sets to the
// package's folder, to the one that holds go.mod.
func moduleRoot() (string, bool) {
	dir, err := os.Getwd()
	if err != nil {
		return "", false
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// FreePort returns a TCP port that was free on 127.0.0.1 a moment ago. Prefer
// port 0 and Proxy.Listener where the configuration permits it.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("finding a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Validate has Envoy check a bootstrap (YAML or JSON) without serving it, and
// returns what Envoy says about it if it is refused.
func Validate(t testing.TB, config []byte) error {
	t.Helper()
	out, err := exec.Command(Binary(t), "--mode", "validate", "-l", "error",
		"-c", writeConfig(t, config)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy --mode validate: %w\n%s", err, out)
	}
	return nil
}

// Start runs Envoy on a bootstrap (YAML or JSON) and returns once it is live
// and all its listeners accept connections. The test fails if that takes more
// than 20 s. Envoy ends with the test; if the test has failed, Envoy's stderr
// is logged.
func Start(t testing.TB, config []byte) *Proxy {
	t.Helper()
	path := writeConfig(t, config)
	adminPath := filepath.Join(filepath.Dir(path), "admin")
	args := []string{
		"-c", path,
		"-l", "error",
		"--concurrency", "1",
		// Without it Envoy takes part in hot restarts by shared memory, meets
		// other tests' Envoys there, and ends when its starter's thread does.
		"--disable-hot-restart",
		"--admin-address-path", adminPath,
		"--file-flush-interval-msec", "10",
	}
	if !hasAdmin(t, config) {
		args = append(args, "--config-yaml",
			"admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}")
	}
	cmd := exec.Command(Binary(t), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	p := &Proxy{done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	started := make(chan error)
	go func() {
		// Pdeathsig fires when the thread that forked ends, so that thread is
		// held for as long as Envoy runs (golang.org/issue/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting Envoy: %v", err)
	}
	t.Cleanup(func() {
		p.stop(t, cmd.Process)
		if t.Failed() {
			t.Logf("Envoy's stderr:\n%s", p.stderr.String())
		}
	})

	deadline := time.Now().Add(startWithin)
	var why error
	for {
		if why = p.probe(adminPath); why == nil {
			return p
		}
		select {
		case <-p.done:
			t.Fatalf("Envoy ended while starting: %v", p.err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("Envoy not ready after %v: %v", startWithin, why)
		}
	}
}

// Listener returns the host:port at which the named listener accepts
// connections, with the real port where the configuration says 0. The test
// fails if there is no such listener on TCP.
func (p *Proxy) Listener(t testing.TB, name string) string {
	t.Helper()
	addr, ok := p.listeners[name]
	if !ok {
		t.Fatalf("Envoy has no TCP listener %q; it has %v", name, p.listeners)
	}
	return addr
}

// Stdout returns what Envoy has written to its standard output so far: the
// access log, if that is where the configuration sends it. Envoy writes it
// some milliseconds after a request's end.
func (p *Proxy) Stdout() string { return p.stdout.String() }

// Stderr returns what Envoy has written to its standard error so far.
func (p *Proxy) Stderr() string { return p.stderr.String() }

// probe returns nil once Envoy says that it is live and its listeners accept.
func (p *Proxy) probe(adminPath string) error {
	b, err := os.ReadFile(adminPath)
	if err != nil {
		return err
	}
	admin := string(bytes.TrimSpace(b))
	if _, err := get("http://" + admin + "/ready"); err != nil {
		return err
	}
	body, err := get("http://" + admin + "/listeners?format=json")
	if err != nil {
		return err
	}
	var status struct {
		Listeners []struct {
			Name    string `json:"name"`
			Address struct {
				Socket *struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(body, &status); err != nil {
		return err
	}
	listeners := map[string]string{}
	for _, l := range status.Listeners {
		if l.Address.Socket == nil {
			continue
		}
		addr := net.JoinHostPort(l.Address.Socket.Address, strconv.Itoa(l.Address.Socket.Port))
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		conn.Close()
		listeners[l.Name] = addr
	}
	p.Admin, p.listeners = admin, listeners
	return nil
}

func (p *Proxy) stop(t testing.TB, process *os.Process) {
	process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended already
	select {
	case <-p.done:
		return
	case <-time.After(stopWithin):
	}
	t.Logf("Envoy still runs %v after SIGTERM: killing it", stopWithin)
	process.Kill() //nolint:errcheck // as above
	<-p.done
}

func writeConfig(t testing.TB, config []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hasAdmin(t testing.TB, config []byte) bool {
	t.Helper()
	var top struct {
		Admin map[string]any `json:"admin"`
	}
	if err := yaml.Unmarshal(config, &top); err != nil {
		t.Fatalf("Envoy's configuration: %v", err)
	}
	return top.Admin != nil
}

func get(url string) ([]byte, error) {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, nil
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
