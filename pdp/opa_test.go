package pdp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

const regoPolicy = "../examples/opa/policy"

// opaBinary is the OPA to run.
func opaBinary(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("TOOLGRANT_OPA")
	if bin == "" {
		t.Skip("set TOOLGRANT_OPA to a real OPA, such as $(make -s opa), to run this")
	}
	return bin
}

// opaServer is a real OPA on loopback.
type opaServer struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// startOPA serves what args say at the address, and waits until it answers.
func startOPA(t *testing.T, address string, args ...string) *opaServer {
	t.Helper()
	args = append([]string{"run", "--server", "--addr", address, "--skip-version-check", "--log-level", "error"}, args...)
	s := &opaServer{cmd: exec.Command(opaBinary(t), args...), done: make(chan struct{})}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait()
	}()
	t.Cleanup(s.kill)
	waitFor(t, func() bool {
		select {
		case <-s.done:
			t.Fatal("OPA has ended")
		default:
		}
		c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get("http://" + address + "/health")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return s
}

func (s *opaServer) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// freeAddress is one that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func bundle(t *testing.T, revision string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if text, err := exec.Command(opaBinary(t), "build", "-b", regoPolicy, "--revision", revision, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

func newReports(t *testing.T, address string) *PDP {
	t.Helper()
	c, err := catalog.Load("../examples/reports/tools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{
		Engine: OPA, URL: "http://" + address + "/v1/data/toolgrant/decide",
		Catalog: c, Logger: zap.NewNop(), Timeout: 2 * time.Second, Cache: MaxCache,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.http.CloseIdleConnections)
	return p
}

var (
	planner   = grants.Principal{Issuer: "corp", Subject: "planner", Groups: []string{"orchestrators"}}
	reportBot = grants.Principal{Issuer: "corp", Subject: "report-bot", Groups: []string{"reporting"}}
	monthly   = &grants.Task{ID: "t_1", Kind: "monthly-report", Owner: planner, Deadline: now.Add(time.Hour)}
)

func reportsGrant(tool string, ttl time.Duration) *grants.Grant {
	return &grants.Grant{ID: "g_1", Task: "t_1", Agent: reportBot, Requester: reportBot, Tool: tool, NotBefore: now, Expires: now.Add(ttl)}
}

func reportsCall(g *grants.Grant) grants.Input {
	in := grants.Input{Action: "call:reports/export", Requester: reportBot, Principal: reportBot, Tool: "reports/export", Grant: g, At: now.Add(time.Second)}
	if g != nil {
		in.Task = monthly
	}
	return in
}

// The example's Rego says what the example's Cedar says.
func TestRegoExample(t *testing.T) {
	if text, err := exec.Command(opaBinary(t), "check", "--strict", regoPolicy).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	address := freeAddress(t)
	startOPA(t, address, regoPolicy)
	p := newReports(t, address)
	task := func(action string, who grants.Principal) grants.Input {
		return grants.Input{Action: action, Requester: who, Principal: who, Task: monthly, At: now}
	}
	other := *monthly
	other.Kind = "debug"
	second := grants.Principal{Issuer: "corp", Subject: "planner-2", Groups: []string{"orchestrators"}}
	revoke := func(who grants.Principal) grants.Input {
		in := reportsGrant("reports/export", time.Minute).Asks(monthly, now)[0]
		in.Action, in.Principal, in.Requester = grants.ActionRevoke, who, who
		return in
	}
	ownTask := *monthly
	ownTask.Owner = reportBot
	start := task(grants.ActionStartTask, reportBot)
	start.Task = &ownTask
	var in []grants.Input
	var want []string
	for _, tt := range []struct {
		in   grants.Input
		want string
	}{
		{task(grants.ActionStartTask, planner), "orchestrators-run-their-tasks"},
		{start, ""},
		{task(grants.ActionEndTask, planner), "orchestrators-run-their-tasks"},
		{task(grants.ActionEndTask, second), ""},
		{revoke(planner), "orchestrators-run-their-tasks"},
		{revoke(second), ""},
		{reportsGrant("reports/export", 10*time.Minute).Asks(monthly, now)[0], "reporting-may-export"},
		{reportsGrant("reports/export", 10*time.Minute+1).Asks(monthly, now)[0], ""},
		{reportsGrant("reports/purge", time.Minute).Asks(monthly, now)[0], ""},
		{reportsGrant("reports/export", time.Minute).Asks(&other, now)[0], ""},
		{reportsCall(reportsGrant("reports/export", time.Minute)), "inside-a-grant"},
		{reportsCall(nil), ""},
	} {
		in, want = append(in, tt.in), append(want, tt.want)
	}
	ds := mustDecide(t, p, in...) // one batch
	for i, d := range ds {
		switch {
		case want[i] == "" && (d.Reason != grants.Policy || d.Allow || len(d.Policies) > 0):
			t.Errorf("%d: %+v, want a denial", i, d)
		case want[i] != "" && (!d.Allow || len(d.Policies) != 1 || d.Policies[0] != want[i]):
			t.Errorf("%d: %+v, want %s", i, d, want[i])
		}
	}
	if s := p.Status(); s.Stated != "" {
		t.Errorf("a file states the revision %q", s.Stated)
	}
}

// Whatever becomes of the engine (stopped, killed, another policy in its place),
// nothing is permitted that it does not permit now; and it comes back by itself.
func TestOPAFails(t *testing.T) {
	address := freeAddress(t)
	s := startOPA(t, address, "-b", bundle(t, "one"))
	p := newReports(t, address)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	inside := reportsCall(reportsGrant("reports/export", time.Hour))
	permitted := func() (d grants.Decision) {
		t.Helper()
		waitFor(t, func() bool {
			ds, err := p.Decide(t.Context(), []grants.Input{inside})
			if err == nil {
				d = ds[0]
			}
			return err == nil && d.Allow
		})
		return d
	}
	denied := func() {
		t.Helper()
		// Once it is known to be away, not even what was decided before is permitted.
		waitFor(t, func() bool { return p.Status().Failed != nil })
		for _, in := range []grants.Input{inside, reportsCall(nil)} {
			if ds, err := p.Decide(t.Context(), []grants.Input{in}); err == nil {
				t.Errorf("the engine is away, and decides %+v", ds)
			}
		}
	}
	one := permitted()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	denied()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if again := permitted(); again.Revision != one.Revision {
		t.Error("the same policy has two revisions")
	}
	s.kill()
	denied()
	startOPA(t, address, "-b", bundle(t, "two"))
	if two := permitted(); two.Revision == one.Revision {
		t.Error("two policies have one revision")
	}
	waitFor(t, func() bool { s := p.Status(); return s.Failed == nil && s.Stated != "" })
}

// A second call of the same grant is answered without asking, because the policy
// states its revision and says that seconds do not matter to it.
func TestOPACache(t *testing.T) {
	address := freeAddress(t)
	s := startOPA(t, address, "-b", bundle(t, "one"))
	p := newReports(t, address)
	at := now
	p.cache.clock(&at) // however slow this machine is
	first := mustDecide(t, p, reportsCall(reportsGrant("reports/export", time.Hour)))
	s.kill()
	later := reportsCall(reportsGrant("reports/export", time.Hour))
	later.At = later.At.Add(2 * time.Second)
	if again := mustDecide(t, p, later); again[0].Revision != first[0].Revision || !again[0].Allow {
		t.Errorf("%+v", again)
	}
	if _, err := p.Decide(t.Context(), []grants.Input{reportsCall(nil)}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("another question: %v", err)
	}
}
