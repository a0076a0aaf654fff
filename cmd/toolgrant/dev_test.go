package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
	"github.com/toolgrant/toolgrant/grants"
)

// devUp starts dev in a process of its own and waits until it says that
// everything is up; front is where Envoy listens.
func devUp(t *testing.T, args ...string) (cmd *exec.Cmd, out *syncBuffer, dir, front string) {
	t.Helper()
	cmd, out = program(t, append([]string{"dev", "--envoy", envoytest.Binary(t)}, args...)...)
	eventually(t, "dev is up:\n"+out.String(), func() bool { return strings.Contains(out.String(), "\nls ") })
	_, rest, _ := strings.Cut(out.String(), envDevDir+"=")
	dir, _, _ = strings.Cut(rest, "\n")
	_, rest, _ = strings.Cut(rest, "--proxy http://")
	front, _, _ = strings.Cut(rest, " ")
	if !listens(front) {
		t.Fatalf("Envoy does not listen at %q:\n%s", front, out)
	}
	return cmd, out, dir, front
}

func listens(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// Whatever ends it, nothing is left: no process, no file.
func TestDevEnds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		cmd, out, _, front := devUp(t)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "nothing of it is left") {
			t.Errorf("%s: %v\n%s", sig, err, out)
		}
		if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 || listens(front) {
			t.Errorf("%s: left %v (%v), Envoy listens %v", sig, left, err, listens(front))
		}
	}
	// Also before it is up.
	never := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(never, []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	early, out := program(t, "dev", "--envoy", never)
	eventually(t, "it has begun", func() bool {
		began, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*", "dev-*", "toolgrant.log"))
		return len(began) == 1
	})
	_ = early.Process.Signal(syscall.SIGTERM)
	if err := early.Wait(); err != nil || strings.Contains(out.String(), "Everything is up") {
		t.Errorf("before it was up: %v\n%s", err, out)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("before it was up: left %v (%v)", left, err)
	}
	// Killed, it can take nothing away; its Envoy goes with it, and the next dev
	// finds its files.
	cmd, _, dir, front := devUp(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "Envoy is gone", func() bool { return !listens(front) })
	if _, err := os.Stat(filepath.Join(dir, "planner.jwt")); err != nil {
		t.Fatalf("it was to leave its files: %v", err)
	}
	next, out, _, _ := devUp(t)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("they are still there: %v", err)
	}
	_ = next.Process.Signal(syscall.SIGTERM)
	if err := next.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}

// Kept files are what runs the next time, ports and all.
func TestDevKeeps(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "it's kept")
	var fronts []string
	for range 2 {
		cmd, out, _, front := devUp(t, "--keep", keep)
		fronts = append(fronts, front)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), keep) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if fronts[0] != fronts[1] {
		t.Errorf("its ports changed: %v", fronts)
	}
	config := filepath.Join(keep, "toolgrant.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "misspelt: 1\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "dev", "--envoy", "sh", "--keep", keep); got.code != exitUsage || !strings.Contains(got.stderr, `unknown key "misspelt"`) {
		t.Errorf("%+v", got)
	}
}

// A --port that the kept files agree with is no contradiction.
func TestDevKeepsPort(t *testing.T) {
	keep, port := t.TempDir(), fiveFreePorts(t)
	for range 2 {
		cmd, out, _, front := devUp(t, "--keep", keep, "--port", strconv.Itoa(port))
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || front != fmt.Sprintf("127.0.0.1:%d", port) {
			t.Fatalf("Envoy at %s, %v\n%s", front, err, out)
		}
	}
	got := toolgrant(t, "", "dev", "--envoy", "sh", "--keep", keep, "--port", strconv.Itoa(port+1))
	if got.code != exitUsage || !strings.Contains(got.stderr, "envoy.listen is 127.0.0.1:"+strconv.Itoa(port)) {
		t.Errorf("another port: %+v", got)
	}
}

// fiveFreePorts gives the first of five ports in a row that nobody has.
func fiveFreePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		first := 10000 + rand.IntN(22000)
		all := true
		for i := range 5 {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if all = err == nil; !all {
				break
			}
			defer l.Close()
		}
		if all {
			return first
		}
	}
	t.Fatal("no five free ports")
	return 0
}

// What cannot run says why, and nothing is left.
func TestDevFails(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	notEnvoy := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(notEnvoy, []byte("#!/bin/sh\necho 'no\x1b[2Jway'; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "dev", "--envoy", notEnvoy); got.code != exitFailed || !strings.Contains(got.stderr, "no?[2Jway") {
		t.Errorf("%+v", got)
	}
	silent := filepath.Join(t.TempDir(), "envoy")
	if err := os.WriteFile(silent, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "dev", "--envoy", silent); got.code != exitFailed || !strings.Contains(got.stderr, silent+" ended (exit status 0) and said nothing: is it an Envoy?") {
		t.Errorf("%+v", got)
	}
	// A port that another program has: nothing is said to be up there.
	port := fiveFreePorts(t)
	for i, whose := range []string{"Envoy", "the broker", "the call door", "the example's tool", "/metrics"} {
		busy, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+i))
		if err != nil {
			t.Fatal(err)
		}
		got := toolgrant(t, "", "dev", "--envoy", envoytest.Binary(t), "--port", strconv.Itoa(port))
		busy.Close()
		if got.code != exitFailed || !strings.Contains(got.stderr, whose) || !strings.Contains(got.stderr, "address already in use") || got.stdout != "" {
			t.Errorf("%s: %+v", whose, got)
		}
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("left %v (%v)", left, err)
	}

	t.Setenv("ENVOY", "")
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	if got := toolgrant(t, "", "dev"); got.code != exitUsage || !strings.Contains(got.stderr, "\n  "+getEnvoy) {
		t.Errorf("no Envoy: %+v", got)
	}
	place := ".envoy/envoy/_bin/envoy" // where the command of that message puts one
	if err := errors.Join(os.MkdirAll(filepath.Dir(place), 0o700), os.WriteFile(place, nil, 0o700)); err != nil {
		t.Fatal(err)
	}
	if path, err := findEnvoy(""); err != nil || path != place && path != "./"+place {
		t.Errorf("%q, %v", path, err)
	}
}

// A record that is written in two halves is one line, and what was in the log
// before is none.
func TestDecisions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	write := func(id string, why grants.Reason) []byte {
		log, err := audit.Open(audit.Config{File: path, Key: bytes.Repeat([]byte{7}, 32)})
		if err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		if err := errors.Join(log.Append(audit.Record{ID: id, Kind: "call", Agent: "corp/bot\u202e", Tool: "a/b", Outcome: audit.Deny, Reason: why}), log.Close()); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return after[len(before):]
	}
	write("d_old", grants.Policy)
	d, err := newDecisions(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	line := write("d_new", grants.WrongTool)
	for i, n := range []int{0, len(line) / 2, len(line)} {
		if err := os.WriteFile(path, append(bytes.Clone(whole), line[:n]...), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := d.next()
		if err != nil || len(got) != i/2 {
			t.Fatalf("after %d bytes: %v, %v", n, got, err)
		}
		if i == 2 {
			if text := decisionLine(got[0]); !strings.Contains(text, "call        deny   corp/bot?  a/b  wrong_tool  d_new") {
				t.Error(text)
			}
		}
	}
	allowed := audit.Record{ID: "d_yes", Kind: "call", Agent: "corp/bot", Outcome: audit.Allow, Policies: []string{"p"}}
	if text := decisionLine(allowed); !strings.HasSuffix(text, "call        allow  corp/bot  d_yes  by p") {
		t.Error(text)
	}
}

// Only the Envoy that was started here is waited for, wherever another listens.
func TestAwaitEnvoy(t *testing.T) {
	d := &dev{private: t.TempDir(), envoy: "envoy"}
	l, err := net.Listen("unix", d.adminSocket())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan int, 100)
	n := 0
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 3 || r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable) // as Envoy says it while it begins
		}
		asked <- n
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	if err := d.awaitEnvoy(t.Context()); err != nil || len(asked) != 3 {
		t.Errorf("after %d answers: %v", len(asked), err)
	}
	srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := d.awaitEnvoy(ctx); err == nil || !strings.Contains(err.Error(), "envoy is not ready") {
		t.Errorf("nobody there: %v", err)
	}
}

// The line by which the other shell finds this program works in a shell, and is
// left out where nothing is to be done.
func TestFindMe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	usual := os.Getenv("PATH")
	for _, name := range []string{"toolgrant", "toolgrant-linux-amd64"} {
		self := filepath.Join(dir, name)
		if err := os.WriteFile(self, []byte("#!/bin/sh\necho "+name+" \"$@\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, "toolgrant"), []byte("#!/bin/sh\necho another\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{usual, other + ":" + usual} {
			t.Setenv("PATH", path)
			out, err := exec.Command("sh", "-c", findMe(self)+"toolgrant task start").CombinedOutput()
			if err != nil || string(out) != name+" task start\n" {
				t.Errorf("%s: %q, %v", name, out, err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+usual)
	if line := findMe(filepath.Join(dir, "toolgrant")); line != "" {
		t.Errorf("found already, and %q", line)
	}
}
