package main

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program starts toolgrant in a process and a session of its own, where no
// terminal sends signals.
func program(t *testing.T, args ...string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second // what it started may still hold the pipes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tooLong := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() }) // so that no Wait hangs
	t.Cleanup(func() { tooLong.Stop(); _ = cmd.Process.Kill() })
	return cmd, out
}

// eventually waits for a condition, with a deadline that only a fault reaches.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: it never came to that", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// Signals go on to the command, whose exit code counts; and one that ignores
// them goes on, with its task.
func TestExecSignals(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT} {
		b := newFakeBroker(t)
		cmd, out := program(t, append(execOne, "--", "sh", "-c",
			`n=0; trap 'n=$((n+1)); echo got $n; [ $n -lt 2 ] || exit 42' `+name+`; echo ready; while :; do sleep 0.05; done`)...)
		for _, want := range []string{"ready", "got 1"} {
			eventually(t, name+" "+want, func() bool { return strings.Contains(out.String(), want) })
			if _, ended := b.saw(); ended {
				t.Errorf("%s: the task was ended while the command ran", name)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait()
		if _, ended := b.saw(); cmd.ProcessState.ExitCode() != 42 || !ended {
			t.Errorf("%s: %v, ended %v\n%s", name, cmd.ProcessState, ended, out)
		}
	}
}

// A signal before the command has begun: it does not begin, and its task ends.
func TestExecInterruptedBefore(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		b := newFakeBroker(t)
		hold := make(chan struct{})
		asked := make(chan struct{}, 1)
		b.failing(func(r *http.Request, _ string) int {
			if r.URL.Path == "/v1/grants" {
				asked <- struct{}{}
				b.mu.Unlock()
				<-hold
				b.mu.Lock()
			}
			return 0
		})
		cmd, out := program(t, append(execOne, "--", "sh", "-c", "echo ran")...)
		<-asked
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
		close(hold)
		if _, ended := b.saw(); cmd.ProcessState.ExitCode() != exitFailed || !ended || strings.Contains(out.String(), "ran\n") {
			t.Errorf("%s: %v, ended %v\n%s", sig, cmd.ProcessState, ended, out)
		}
	}
}

// When exec is killed, the beats stop and the kernel tells the command; what it
// left is taken away by the next one.
func TestExecKilled(t *testing.T) {
	b := newFakeBroker(t)
	t.Setenv("TMPDIR", t.TempDir())
	cmd, out := program(t, append(execOne, "--", "sh", "-c", `trap 'echo told; exit' TERM; echo "file $TOOLGRANT_TOKEN_FILE"; while :; do sleep 0.05; done`)...)
	eventually(t, "it runs", func() bool { return strings.Contains(out.String(), "file ") })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command is told", func() bool { return strings.Contains(out.String(), "told") })
	_ = cmd.Wait()
	if _, ended := b.saw(); ended {
		t.Error("who was killed ended the task")
	}
	_, file, _ := strings.Cut(out.String(), "file ")
	file, _, _ = strings.Cut(file, "\n")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("it was left by a process that was killed: %v", err)
	}
	if got := toolgrantExec(t, "", append(execOne, "--", "true")...); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
