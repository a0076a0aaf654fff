package stage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// stopWithin is how long a program may take to end in order, before it is killed.
const stopWithin = 5 * time.Second

// Process is a program that runs. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
	out  buffer
}

// Start starts a command, which dies with this process. Stop must be called.
// cmd.Stdout and cmd.Stderr may be set: they get a copy of what is written. So may
// cmd.SysProcAttr, from DieWithParent.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = also(&p.out, cmd.Stdout), also(&p.out, cmd.Stderr)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = DieWithParent()
	}
	started := make(chan error)
	go func() {
		// Pdeathsig fires when the thread that forked ends, so that thread is
		// held for as long as the program runs (golang.org/issue/27505).
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
		return nil, fmt.Errorf("starting %s: %w", p.Name(), err)
	}
	return p, nil
}

// Listens waits until the program accepts connections at addr (host:port). It is an
// error if that takes more than 30 seconds (Python with a cold cache on a busy
// machine), or if the program ends.
func (p *Process) Listens(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr); err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once:\n%s", p.Name(), p.Output())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen at %s: %w\n%s", p.Name(), addr, ctx.Err(), p.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Name returns the program's, without its folder.
func (p *Process) Name() string { return filepath.Base(p.cmd.Path) }

// Output returns what it has written so far, both streams as they came.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until it has ended. The error is that of exec.Cmd.Wait.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stop ends it, and waits until it has ended.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// FreeAddrs returns n TCP addresses on 127.0.0.1 that were free a moment ago.
func FreeAddrs(n int) ([]string, error) {
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
