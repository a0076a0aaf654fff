package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/client"
	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

// asProgram makes the test binary behave as toolgrant: for tests that must kill
// or stop it.
const asProgram = "TOOLGRANT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	testscript.Main(leakless{m}, map[string]func(){"toolgrant": main})
}

// leakless fails tests that leave goroutines behind.
type leakless struct{ m *testing.M }

func (l leakless) Run() int {
	code := l.m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// world is the example in examples/reports, on free ports: a tool that notes
// what it really ran, an issuer, toolgrant, and a real Envoy.
type world struct {
	t        testing.TB
	dir      string
	cfg      *Config
	cat      *catalog.Catalog
	issuer   *identity.DevIssuer
	broker   string // base URL
	front    string // base URL of Envoy
	envoy    *envoytest.Proxy
	tool     *tool
	upstream string      // host:port of tool
	admin    string      // base URL of the admin server
	log      *syncBuffer // what `toolgrant serve` has written

	// patience is how long Envoy waits for a check: more than the default, so
	// that a busy machine is no fault.
	patience time.Duration
}

// tool answers 200 to everything and keeps what came.
type tool struct {
	mu   sync.Mutex
	seen []*http.Request
	body []string
}

func (tl *tool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	tl.mu.Lock()
	tl.seen, tl.body = append(tl.seen, r.Clone(context.Background())), append(tl.body, string(body))
	tl.mu.Unlock()
	fmt.Fprintln(w, `{"ran":true}`)
}

func (tl *tool) calls() int {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	return len(tl.seen)
}

func (tl *tool) last() (*http.Request, string) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	if len(tl.seen) == 0 {
		return nil, ""
	}
	return tl.seen[len(tl.seen)-1], tl.body[len(tl.body)-1]
}

// layOut writes the example's files for a world whose doors are not yet open.
func layOut(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), tool: &tool{}, log: &syncBuffer{}, patience: 20 * time.Second}
	upstream := httptest.NewServer(w.tool)
	t.Cleanup(upstream.Close)
	w.upstream = strings.TrimPrefix(upstream.URL, "http://")
	// A socket's path is short (108 bytes), a test's folder may not be.
	sock, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sock) })
	brokerAt := fmt.Sprintf("127.0.0.1:%d", envoytest.FreePort(t))
	adminAt := fmt.Sprintf("127.0.0.1:%d", envoytest.FreePort(t))
	r := strings.NewReplacer(
		"127.0.0.1:8080", w.upstream,
		"127.0.0.1:8181", brokerAt,
		"listen: 127.0.0.1:8182", "listen: unix://"+filepath.Join(sock, "authz.sock"),
		"127.0.0.1:10000", "127.0.0.1:0",
		"127.0.0.1:9190", adminAt,
	)
	root := "../../examples/reports"
	if err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || (filepath.Ext(path) != ".yaml" && filepath.Base(filepath.Dir(path)) != "policies") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return w.write(strings.TrimPrefix(path, root), r.Replace(string(text)))
	}); err != nil {
		t.Fatal(err)
	}
	if w.issuer, err = identity.NewDevIssuer(filepath.Join(w.dir, "run/issuer"), "https://dev-issuer.invalid"); err != nil {
		t.Fatal(err)
	}
	w.broker, w.admin = "http://"+brokerAt, "http://"+adminAt
	w.load()
	return w
}

func (w *world) write(name, text string) error {
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

// load reads the configuration and catalogue as they are now.
func (w *world) load() {
	w.t.Helper()
	var err error
	if w.cfg, err = LoadConfig(filepath.Join(w.dir, "toolgrant.yaml")); err != nil {
		w.t.Fatal(err)
	}
	if w.cat, err = catalog.Load(w.cfg.Catalogue); err != nil {
		w.t.Fatal(err)
	}
}

// open starts toolgrant in a process of its own, and Envoy.
func open(t testing.TB) (*world, *exec.Cmd) {
	t.Helper()
	w := layOut(t)
	cmd := w.serve()
	w.startEnvoy()
	return w, cmd
}

// serve starts toolgrant in a process of its own.
func (w *world) serve() *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(os.Args[0], "serve", "--config", filepath.Join(w.dir, "toolgrant.yaml"))
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = w.log, w.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		<-done
		if w.t.Failed() {
			w.t.Logf("toolgrant serve:\n%s", w.log.String())
		}
	})
	w.until("the broker listens", func() bool {
		select {
		case <-done:
			w.t.Fatalf("toolgrant serve ended:\n%s", w.log.String())
		default:
		}
		c, err := net.Dial("tcp", strings.TrimPrefix(w.broker, "http://"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return cmd
}

func (w *world) startEnvoy() {
	w.t.Helper()
	config, err := envoy.Config(w.envoyOptions())
	if err != nil {
		w.t.Fatal(err)
	}
	w.envoy = envoytest.Start(w.t, config)
	w.front = "http://" + w.envoy.Listener(w.t, "toolgrant")
}

func (w *world) envoyOptions() envoy.Options {
	o := envoyOptions(w.cfg, w.cat)
	o.CheckTimeout = w.patience
	return o
}

// until waits for a condition, with a deadline that only a fault reaches.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	w.untilBy(30*time.Second, what, ok)
}

func (w *world) untilBy(patience time.Duration, what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waiting until %s: it never came to that", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// identity mints an identity token for a workload.
func (w *world) identity(sub, audience string, groups ...string) string {
	w.t.Helper()
	jwt, err := w.issuer.Mint(sub, groups, audience, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return jwt
}

// identityFor signs, with the issuer's key, what no careful issuer would: an
// identity token for several audiences.
func (w *world) identityFor(sub string, audiences ...string) string {
	w.t.Helper()
	keys, err := token.OpenKeys(filepath.Join(w.dir, "run/issuer"), "")
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://dev-issuer.invalid", "sub": sub, "aud": audiences, "iat": now, "nbf": now, "exp": now + 600,
		"jti": "x", "groups": []string{"reporting"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	jwt, err := keys.Sign("JWT", claims)
	if err != nil {
		w.t.Fatal(err)
	}
	return jwt
}

// as is a client of the broker with somebody's identity.
func (w *world) as(sub string, groups ...string) *client.Client {
	w.t.Helper()
	return w.with(w.identity(sub, "toolgrant", groups...))
}

func (w *world) with(jwt string) *client.Client {
	w.t.Helper()
	c, err := client.New(client.Config{
		URL: w.broker, Identity: func(context.Context) (string, error) { return jwt, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) planner() *client.Client { return w.as("planner", "orchestrators") }
func (w *world) bot() *client.Client     { return w.as("report-bot", "reporting") }

// task starts a task of which report-bot is the agent.
func (w *world) task() string {
	w.t.Helper()
	task, err := w.planner().StartTask(w.t.Context(), client.TaskRequest{Kind: "monthly-report", Agents: []string{"corp/report-bot"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return task.ID
}

// export asks for a grant of reports/export.
func (w *world) export(task string, change ...func(*client.GrantRequest)) client.Token {
	w.t.Helper()
	req := client.GrantRequest{Tool: "reports/export", Task: task, TTL: 5 * time.Minute}
	for _, f := range change {
		f(&req)
	}
	tok, err := w.bot().Exchange(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return tok
}

// answer is what came back through Envoy.
type answer struct {
	status int
	header http.Header
	body   string
}

// call sends one request to Envoy. Headers are name, value, name, value; with a
// "!" before the name it replaces what stands there, or deletes it ("").
func (w *world) call(token, method, path, body string, headers ...string) answer {
	w.t.Helper()
	a, err := w.try(http.DefaultClient, token, method, path, body, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) try(hc *http.Client, token, method, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.front+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		name, replace := strings.CutPrefix(headers[i], "!")
		if replace {
			req.Header.Del(name)
		}
		if headers[i+1] != "" {
			req.Header.Add(name, headers[i+1])
		}
	}
	resp, err := hc.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, maps.Clone(resp.Header), string(text)}, err
}

const (
	exportCSV = "/export?format=csv"
	october   = `{"month":"2026-10"}`
)

// wantCall calls reports/export and holds the status, the reason, and that the
// tool ran exactly if the status says so.
func (w *world) wantCall(token string, status int, reason string) {
	w.t.Helper()
	before := w.tool.calls()
	a := w.call(token, "POST", exportCSV, october)
	w.check(a, before, status, reason)
}

func (w *world) check(a answer, before, status int, reason string) {
	w.t.Helper()
	if a.status != status || reason != "" && !strings.Contains(a.body, `"reason":"`+reason+`"`) {
		w.t.Fatalf("got %d %s; want %d %s", a.status, a.body, status, reason)
	}
	ran := w.tool.calls() - before
	if want := status == http.StatusOK; (ran == 1) != want || ran > 1 {
		w.t.Fatalf("status %d, and the tool ran %d times", a.status, ran)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
