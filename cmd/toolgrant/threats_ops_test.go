package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

// serveWithin is serve in a process of fewer means: limits are shell commands
// such as "ulimit -n 64".
func (w *world) serveWithin(limits string, env ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", limits+` && exec "$0" "$@"`, os.Args[0], "serve", "--config", filepath.Join(w.dir, "toolgrant.yaml"))
	cmd.Env = append(append(os.Environ(), asProgram+"=1"), env...)
	cmd.Stdout, cmd.Stderr = w.log, w.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	w.t.Cleanup(func() {
		select {
		case <-done:
			w.t.Errorf("toolgrant serve ended: %v", cmd.ProcessState)
		default:
		}
		_ = cmd.Process.Kill()
		<-done
		if w.t.Failed() {
			w.t.Logf("toolgrant serve:\n%s", w.log.String())
		}
	})
	w.until("the broker answers", func() bool {
		select {
		case <-done:
			w.t.Fatalf("toolgrant serve ended:\n%s", w.log.String())
		default:
		}
		resp, err := http.Get(w.broker + "/.well-known/jwks.json")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	return cmd
}

// from is an HTTP client on a loopback address of its own, with a connection for
// each request.
func from(source string) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 30 * time.Second}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}, Timeout: 30 * time.Second}
}

// buy gets a grant by a new connection from there.
func (w *world) buy(source, task string) (client.Token, error) {
	c, err := client.New(client.Config{
		URL: w.broker, HTTP: from(source),
		Identity: func(context.Context) (string, error) {
			return w.issuer.Mint("report-bot", []string{"reporting"}, "toolgrant", time.Hour)
		},
	})
	if err != nil {
		return client.Token{}, err
	}
	return c.Exchange(w.t.Context(), client.GrantRequest{Tool: "reports/export", Task: task, TTL: time.Minute})
}

// pair are a token whose grant lives, and one whose grant was revoked.
type pair struct{ live, revoked string }

func (w *world) pair(task string) pair {
	w.t.Helper()
	revoked := w.export(task, func(r *client.GrantRequest) { r.TTL = 100 * time.Second })
	if err := w.planner().Revoke(w.t.Context(), revoked.Grants[0].ID); err != nil {
		w.t.Fatal(err)
	}
	return pair{live: w.export(task).AccessToken, revoked: revoked.AccessToken}
}

// hold calls, over and over, by several callers until each has called n times,
// while something goes on: what is granted is answered or shed, what is not never
// passes, and the tool runs for each 200 and no more.
func (p pair) hold(w *world, n int, body string) {
	w.t.Helper()
	var passed, shed atomic.Int64
	before := w.tool.calls()
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			hc := &http.Client{Transport: &http.Transport{Protocols: protocols([]string{"HTTP/1.1", "HTTP/2"}[caller%2])}}
			defer hc.CloseIdleConnections()
			for i := range n {
				token := []string{p.live, p.revoked, flip(p.live), ""}[(i+caller/2)%4]
				a, err := w.try(hc, token, "POST", exportCSV, body)
				switch {
				case err != nil:
					w.t.Errorf("a call through Envoy: %v", err)
				case a.status == http.StatusOK && token == p.live:
					passed.Add(1)
				case a.status == http.StatusServiceUnavailable, a.status == http.StatusTooManyRequests:
					shed.Add(1)
				case token == p.live && body == october, token != p.live && a.status != 401 && a.status != 403:
					w.t.Errorf("granted: %v; answer %d %s", token == p.live, a.status, a.body)
				}
			}
		})
	}
	wg.Wait()
	if ran := w.tool.calls() - before; int64(ran) != passed.Load() {
		w.t.Errorf("%d calls were allowed, and the tool ran %d times", passed.Load(), ran)
	}
	w.t.Logf("%d calls passed, %d were shed", passed.Load(), shed.Load())
}

// crowd keeps connections open to an address, from several sources: idle ones, or
// such as send a header now and then, and no end of them. It counts those that the
// other side has closed, and replaces them.
type crowd struct {
	closed atomic.Int64
	stop   func()
}

func newCrowd(t testing.TB, addr string, n int, slow bool) *crowd {
	t.Helper()
	c := &crowd{}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	var there sync.WaitGroup
	there.Add(n)
	for i := range n {
		wg.Go(func() {
			arrived := sync.OnceFunc(there.Done)
			defer arrived()
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))}, Timeout: 30 * time.Second}
			for ctx.Err() == nil {
				conn, err := d.DialContext(ctx, "tcp", addr)
				arrived()
				if err != nil {
					continue
				}
				undo := context.AfterFunc(ctx, func() { conn.Close() })
				for say := "GET / HTTP/1.1\r\nHost: localhost\r\n"; err == nil; say = "X-A: a\r\n" {
					if slow {
						_, _ = io.WriteString(conn, say) // that it is closed shows below
					}
					_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					if _, err = conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
						err = nil // it is still open
					}
				}
				undo()
				conn.Close()
				if ctx.Err() == nil {
					c.closed.Add(1)
				}
			}
		})
	}
	there.Wait()
	c.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(c.stop)
	return c
}

// openFiles is how many a process has open.
func openFiles(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestFewFilesAndAFlood (O08): a `toolgrant serve` that may open 64 files, and
// more connections at its HTTP ports than that.
func TestFewFilesAndAFlood(t *testing.T) {
	w := layOut(t)
	cmd := w.serveWithin("ulimit -n 64")
	w.startEnvoy()
	task := w.task()
	p := w.pair(task)
	p.hold(w, 8, october)
	broker, admin := strings.TrimPrefix(w.broker, "http://"), strings.TrimPrefix(w.admin, "http://")
	idle, slow := newCrowd(t, broker, 100, false), newCrowd(t, broker, 100, true)
	w.until("connections were shed", func() bool { return idle.closed.Load() > 100 && slow.closed.Load() > 100 })
	p.hold(w, 100, october)
	for range 5 { // whoever asks now is heard, at the latest when they ask again; and the other door has files to open
		w.until("a grant is bought", func() bool { _, err := w.buy("127.0.0.20", task); return err == nil })
		if n := openFiles(t, cmd); n > 64*3/4 {
			t.Fatalf("the broker's connections leave no room: %d files are open", n)
		}
	}
	probes := newCrowd(t, admin, 100, false) // at a port that no agent sees
	p.hold(w, 100, october)
	idle.stop()
	slow.stop()
	probes.stop()
	w.until("a grant can be bought again", func() bool { _, err := w.buy("127.0.0.20", task); return err == nil })
	w.until("the operator sees it", func() bool {
		resp, err := from("127.0.0.20").Get(w.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	w.wantCall(p.live, http.StatusOK, "")
	w.wantCall(p.revoked, http.StatusForbidden, "revoked")
}

// TestLittleMemory (O08): one that is to do with 40 MiB, and has no more than 3 GB
// of addresses (of which Go reserves two), under requests as dear as they can be.
func TestLittleMemory(t *testing.T) {
	w := layOut(t)
	limit := "ulimit -v 3000000"
	if out, err := exec.Command("/bin/sh", "-c", limit+` && exec "$0" -test.run '^$'`, os.Args[0]).CombinedOutput(); err != nil {
		t.Logf("without a limit on addresses, with which this program does not begin (the race detector's takes many): %v %.200s", err, out)
		limit = "true"
	}
	w.serveWithin(limit, "GOMEMLIMIT=40MiB")
	w.startEnvoy()
	task := w.task()
	p := w.pair(task)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	form := "grant_type=" + strings.Repeat("x", 1<<20)
	junk := "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token=" + strings.Repeat("e30.", 8000)
	for i := range 32 {
		wg.Go(func() {
			hc := from(fmt.Sprintf("127.0.0.%d", 2+i%8))
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := hc.Post(w.broker+"/oauth2/token", "application/x-www-form-urlencoded", strings.NewReader([]string{form, junk}[i%2]))
				if err != nil {
					continue // it was shed
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode < 400 {
					t.Errorf("junk was answered %d", resp.StatusCode)
				}
			}
		})
	}
	var names strings.Builder
	for i := range 6_000 {
		fmt.Fprintf(&names, `,"%d":1`, i)
	}
	p.hold(w, 50, `{"month":"2026-10"`+names.String()+"}")
	p.hold(w, 50, october)
	close(stop)
	wg.Wait()
	w.until("a grant can be bought", func() bool { _, err := w.buy("127.0.0.20", task); return err == nil })
	w.wantCall(p.live, http.StatusOK, "")
	w.wantCall(p.revoked, http.StatusForbidden, "revoked")
}

// TestFloodsOfConnections (O09): ten thousand idle connections to the broker and
// some that send their headers slowly, for ever, while another source buys.
func TestFloodsOfConnections(t *testing.T) {
	n := 10_000
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if may := int(min(lim.Cur, 1<<20)) * 2 / 3; n > may {
		t.Logf("%d connections, since this process may open %d files", may, lim.Cur)
		n = may
	}
	w := layOut(t)
	cmd := w.serve()
	w.startEnvoy()
	task := w.task()
	p := w.pair(task)
	addr := strings.TrimPrefix(w.broker, "http://")
	slow := newCrowd(t, addr, 200, true)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	bought := 0
	for i := range n {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(10+i%8))}, Timeout: 30 * time.Second}
		conn, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if idle = append(idle, conn); i%(n/20) == 0 {
			w.buyAndCall(task)
			bought++
		}
	}
	for range 20 {
		w.buyAndCall(task)
	}
	p.hold(w, 20, october)
	if open := openFiles(t, cmd); open > 4096+200 { // the broker's bound, and the rest
		t.Errorf("%d files are open", open)
	}
	w.until("the slow ones are hung up on", func() bool { return slow.closed.Load() >= 200 })
	w.buyAndCall(task)
	if bought < 20 {
		t.Errorf("%d grants were bought meanwhile", bought)
	}
}

// buyAndCall buys a grant from a source of its own, and uses it.
func (w *world) buyAndCall(task string) {
	w.t.Helper()
	tok, err := w.buy("127.0.0.20", task)
	if err != nil {
		w.t.Fatal(err)
	}
	w.wantCall(tok.AccessToken, http.StatusOK, "")
}
