package peers

import (
	"bytes"
	"os/exec"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/examples/stage"
)

// runWithin bounds a command that runs to its end.
const runWithin = 2 * time.Minute

// Process is a program that runs.
type Process = stage.Process

// Start runs a command until the test ends, and shows what it wrote if the test has
// failed. cmd.Stdout and cmd.Stderr may be set: they get a copy.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := stage.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", p.Name(), p.Output())
		}
	})
	return p
}

// Serve is Start and waits until the program accepts connections at addr
// (host:port).
func Serve(t testing.TB, cmd *exec.Cmd, addr string) *Process {
	t.Helper()
	p := Start(t, cmd)
	if err := p.Listens(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	return p
}

// Run runs a command to its end and returns its standard output. The test fails if
// that takes more than two minutes. The error is that of exec.Cmd.Wait.
func Run(t testing.TB, cmd *exec.Cmd) (string, error) {
	t.Helper()
	var stdout bytes.Buffer // read when the command has ended
	cmd.Stdout = &stdout
	p := Start(t, cmd)
	select {
	case <-p.Done():
		return stdout.String(), p.Wait()
	case <-time.After(runWithin):
		t.Fatalf("%s still ran after %v", p.Name(), runWithin)
		return "", nil
	}
}

// FreeAddr returns a TCP address on 127.0.0.1 that was free a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addrs, err := stage.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}
