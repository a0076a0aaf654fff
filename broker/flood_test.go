package broker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
)

// The test binary plays a second process where one is needed: childEnv says
// which. It does its part until its standard input ends.
const childEnv = "TOOLGRANT_BROKER_TEST_CHILD"

func TestAsChild(t *testing.T) {
	switch what, arg, _ := strings.Cut(os.Getenv(childEnv), " "); what {
	case "":
		t.Skip("this is a part of other tests")
	case "flood":
		flood(t, arg)
	case "few-files":
		fewFiles(t, arg)
	default:
		t.Fatalf("what is %q", what)
	}
}

// child is a second process.
type child struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *bufio.Reader
	stop func() error // ends it, once, and gives its error
}

// newChild starts one, which ends with the test at the latest.
func newChild(t testing.TB, part string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestAsChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, out: bufio.NewReader(out)}
	c.stop = sync.OnceValue(func() error {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, c.out)
		return cmd.Wait()
	})
	t.Cleanup(func() { _ = c.stop() })
	return c
}

// line reads one line that it prints.
func (c *child) line() string {
	c.t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("the child said %q: %v", s, err)
	}
	return strings.TrimSpace(s)
}

func (c *child) signal(sig os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// flooders is how many connections a flood has, each in a closed loop.
const flooders = 64

// flood exchanges as fast as it is answered: arg is "ADDR FILE". FILE holds the
// form; where it says JUNK, each request says something else.
func flood(t *testing.T, arg string) {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		t.Fatal(err)
	}
	addr, file, _ := strings.Cut(arg, " ")
	form, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var sent, refused atomic.Int64
	var all sync.WaitGroup
	for range flooders {
		all.Go(func() {
			c := &http.Client{Transport: new(http.Transport)}
			defer c.CloseIdleConnections()
			for !stop.Load() {
				body := strings.Replace(string(form), "JUNK", strconv.FormatInt(sent.Add(1), 10), 1)
				res, err := c.Post("http://"+addr+"/oauth2/token", "application/x-www-form-urlencoded", strings.NewReader(body))
				if err != nil {
					continue // it was shed
				}
				_ = drain(res.Body)
				if res.StatusCode == http.StatusTooManyRequests {
					refused.Add(1)
				}
			}
		})
	}
	for refused.Load() < 2*flooders {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("flooding") // and past what it may
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop.Store(true)
	all.Wait()
}

// BenchmarkFlood measures an exchange of a quiet agent, 40 a second, alone and
// beside 64 connections of another, each of which asks again as soon as it is
// answered: with a genuine token, and with ever new junk. What is to be seen is
// x-flood-p99 and x-junk-p99, the quiet agent's p99 as a multiple of that alone.
//
// Everything shares one machine. A flood is a process of its own, at the lowest
// priority, so that it is the broker's work for it that is measured, and not the
// flood's own; the quiet agent is in the broker's process. All come from one
// address, which is the worst case. The audit log is real; policy is not. The
// three are measured in turns of two seconds and a half, so that what else the
// machine does meets them alike; the first half second of a turn is left out:
// what a flood may at once when it is rested is not what it does to others in
// the long run. Use -benchtime=1000x or more: a p99 of fewer is chance.
func BenchmarkFlood(b *testing.B) {
	trail, err := audit.Open(audit.Config{
		File: filepath.Join(b.TempDir(), "audit.jsonl"), Fsync: audit.FsyncInterval, Key: []byte("0123456789abcdef0123456789abcdef"),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer trail.Close()
	s := newShell(b, func(c *Config) { c.Record = trail.AppendAll })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = NewServer(s.Handler(), ServerConfig{Logger: zap.NewNop()}).Serve(b.Context(), l) }()
	addr := l.Addr().String()

	form := func(agent string) string {
		me := s.identity(agent)
		return exchangeForm(me, s.task(me), "a/x")
	}
	newFlood := func(name, body string) *child {
		file := filepath.Join(b.TempDir(), name)
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			b.Fatal(err)
		}
		c := newChild(b, "flood "+addr+" "+file)
		if got := c.line(); got != "flooding" {
			b.Fatal(got)
		}
		c.signal(syscall.SIGSTOP)
		return c
	}
	quiet := form("quiet")
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	exchange := func() time.Duration {
		began := time.Now()
		res, err := client.Post("http://"+addr+"/oauth2/token", "application/x-www-form-urlencoded", strings.NewReader(quiet))
		if err != nil {
			b.Fatal(err)
		}
		if body := drain(res.Body); res.StatusCode != http.StatusOK {
			b.Fatalf("the quiet agent: %d %s", res.StatusCode, body)
		}
		return time.Since(began)
	}
	const perSecond, lead, turn = 40, 20, 100
	phases := []struct {
		name  string
		flood *child // nil: none
		took  []time.Duration
	}{
		{name: "alone"},
		{name: "flood", flood: newFlood("flood", form("greedy"))},
		{name: "junk", flood: newFlood("junk", exchangeForm("JUNK", "t_aaaaaaaaaaaaaaaaaaaaaaaaaa", "a/x"))},
	}
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	b.ResetTimer()
	for left := b.N; left > 0; left -= turn {
		for i := range phases {
			p := &phases[i]
			if p.flood != nil {
				p.flood.signal(syscall.SIGCONT)
			}
			for n := range lead + min(turn, left) {
				<-tick.C
				if d := exchange(); n >= lead {
					p.took = append(p.took, d)
				}
			}
			if p.flood != nil {
				p.flood.signal(syscall.SIGSTOP)
			}
		}
	}
	b.StopTimer()
	var alone time.Duration
	for _, p := range phases {
		slices.Sort(p.took)
		p99 := p.took[len(p.took)*99/100]
		b.ReportMetric(float64(p.took[len(p.took)/2].Microseconds()), p.name+"-p50-µs")
		b.ReportMetric(float64(p99.Microseconds()), p.name+"-p99-µs")
		if p.flood == nil {
			alone = p99
			continue
		}
		b.ReportMetric(float64(p99)/float64(alone), "x-"+p.name+"-p99")
		p.flood.signal(syscall.SIGCONT)
		if err := p.flood.stop(); err != nil {
			b.Error(err)
		}
	}
}

// fewFiles serves with 64 files: it prints its address, takes all files that are
// left at /burn and gives them back at /free.
func fewFiles(t *testing.T, _ string) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var burnt []*os.File
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch r.URL.Path {
		case "/burn":
			for {
				f, err := os.Open(os.DevNull)
				if err != nil {
					_, _ = fmt.Fprint(w, err)
					return
				}
				burnt = append(burnt, f)
			}
		case "/free":
			for _, f := range burnt {
				_ = f.Close()
			}
			burnt = nil
		}
		hello(w, r)
	}), ServerConfig{})
	fmt.Println(addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestFewFiles (O08): with 64 files, a server sheds connections, whoever took
// the files; it does not end, and it serves again.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	server := newChild(t, "few-files")
	addr := server.line()
	kept := dial(t, "127.0.0.2", addr)
	if _, err := get(kept, "/"); err != nil {
		t.Fatal(err)
	}
	var many []net.Conn
	for range 200 {
		many = append(many, dial(t, "127.0.0.1", addr))
	}
	mustGet(t, "127.0.0.1", addr)
	mustGet(t, "127.0.0.2", addr)
	shed := 0
	for _, c := range many[:len(many)-64/4/2] {
		if closed(c) {
			shed++
		}
	}
	if want := len(many) - 64/4/2; shed != want {
		t.Errorf("%d connections were shed, want %d", shed, want)
	}
	for _, c := range many {
		_ = c.Close()
	}

	if body, err := get(kept, "/burn"); !strings.Contains(body, "too many open files") || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	late := dial(t, "127.0.0.3", addr) // the kernel takes it; the server cannot
	if body, err := get(kept, "/"); body != "hello" || err != nil {
		t.Errorf("a connection that was there: %q, %v", body, err)
	}
	if body, err := get(kept, "/free"); body != "hello" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	if body, err := get(late, "/"); body != "hello" || err != nil {
		t.Errorf("the late one: %q, %v", body, err)
	}
	mustGet(t, "127.0.0.1", addr)
	if err := server.stop(); err != nil {
		t.Errorf("the server ended: %v", err)
	}
}
