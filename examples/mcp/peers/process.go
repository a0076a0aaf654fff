package peers

import (
	"bytes"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Bounds on what is waited for.
const (
	startWithin = 30 * time.Second // Python with a cold cache on a busy machine
	runWithin   = 2 * time.Minute
	stopWithin  = 5 * time.Second
)

// Process is a program that runs. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
	out  buffer
}

// Start runs a command until the test ends, and shows what it wrote if the test has
// failed. cmd.Stdout and cmd.Stderr may be set: they get a copy.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = also(&p.out, cmd.Stdout), also(&p.out, cmd.Stderr)
	started := make(chan error)
	go func() {
		// Pdeathsig fires when the thread that forked ends, so that thread is
		// held for as long as the program runs (golang.org/issue/27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = DieWithParent()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", p.name(), p.Output())
		}
	})
	return p
}

// Serve is Start and waits until the program accepts connections at addr
// (host:port).
func Serve(t testing.TB, cmd *exec.Cmd, addr string) *Process {
	t.Helper()
	p := Start(t, cmd)
	deadline := time.Now().Add(startWithin)
	for {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			return p
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended while starting: %v", p.name(), p.err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen at %s after %v: %v", p.name(), addr, startWithin, err)
		}
	}
}

// Run runs a command to its end and returns its standard output. The test fails if
// that takes more than two minutes. The error is that of exec.Cmd.Wait.
func Run(t testing.TB, cmd *exec.Cmd) (string, error) {
	t.Helper()
	var stdout buffer
	cmd.Stdout = &stdout
	p := Start(t, cmd)
	select {
	case <-p.done:
		return stdout.String(), p.err
	case <-time.After(runWithin):
		p.stop()
		t.Fatalf("%s still ran after %v", p.name(), runWithin)
		return "", nil
	}
}

// Output returns what it has written so far, both streams as they came.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

func (p *Process) name() string { return filepath.Base(p.cmd.Path) }

// stop ends it, and waits until it has ended.
func (p *Process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// FreeAddr returns a TCP address on 127.0.0.1 that was free a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func also(b *buffer, w io.Writer) io.Writer {
	if w == nil {
		return b
	}
	return io.MultiWriter(b, w)
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
