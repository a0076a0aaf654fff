package surface

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// world is a Surface on a Unix socket between a client and one MCP server, which
// is known as "github" and as "gitlab".
type world struct {
	t       *testing.T
	surface *Surface
	server  *Server
	seal    *mcp.Seal
	client  *http.Client
	asked   atomic.Int32 // times that the MCP server was
	host    string       // of the MCP server
	logs    *observer.ObservedLogs
	passes  atomic.Int32
	stop    context.CancelFunc // ends Run
	tune    func(*http.Server) // nil: as it is
}

// newWorld starts one; answers are the MCP server's.
func newWorld(t *testing.T, cfg Config, answers http.HandlerFunc) *world {
	t.Helper()
	w := &world{t: t, seal: mcp.NewSeal()}
	w.behind(cfg, answers)
	return w
}

func (w *world) behind(cfg Config, answers http.HandlerFunc) {
	w.t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		answers(rw, r)
	}))
	w.t.Cleanup(upstream.Close)
	w.start(cfg, upstream.Listener.Addr().String())
}

// newRawWorld starts one whose MCP server says exactly what answer does, once its
// request has been read, and then closes the connection.
func newRawWorld(t *testing.T, answer string) *world {
	t.Helper()
	w := &world{t: t, seal: mcp.NewSeal()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(c, answer)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	w.start(Config{}, l.Addr().String())
	return w
}

func (w *world) start(cfg Config, upstream string) {
	w.t.Helper()
	w.host = upstream
	c, err := catalog.Parse("tools.yaml", []byte(strings.ReplaceAll(`
servers:
- {id: github, resource: "https://github.example/mcp", upstream: UPSTREAM, mcp: {path: /mcp/github, upstream_path: /v1/mcp}}
- {id: gitlab, resource: "https://gitlab.example/mcp", upstream: UPSTREAM, mcp: {path: /mcp/gitlab}}
- {id: plain, resource: "https://plain.example", upstream: UPSTREAM, http: [{tool: get, method: GET, path: /get}]}
`, "UPSTREAM", upstream)))
	if err != nil {
		w.t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	w.logs = logs
	cfg.Catalog, cfg.Seal, cfg.Logger = c, w.seal, zap.New(core)
	w.surface = New(cfg)
	socket := filepath.Join(w.t.TempDir(), "surface.sock")
	if w.server, err = w.surface.Open(w.t.Context(), "unix://"+socket); err != nil {
		w.t.Fatal(err)
	}
	if w.tune != nil {
		w.tune(w.server.http)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	done := make(chan error, 1)
	go func() { done <- w.server.Run(ctx) }()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{DialContext: dial, DisableCompression: true}
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	w.t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
}

// pass seals a Pass; what is not said of it is that of an initialize.
func (w *world) pass(p mcp.Pass) string {
	if p.Decision == "" {
		p.Decision = fmt.Sprintf("D-%d", w.passes.Add(1))
	}
	if p.Server == "" {
		p.Server = "github"
	}
	if p.Agent == "" {
		p.Agent = "agent-a"
	}
	if p.Method == "" {
		p.Method = initialize
	}
	if p.Revision == "" {
		p.Revision = mcp.Rev20251125
	}
	if p.Ends.IsZero() {
		p.Ends = w.surface.cfg.Now().Add(time.Minute)
	}
	return w.seal.Close(p)
}

// call is the Pass of a tools/call that may become a task.
func call(agent, revision string) mcp.Pass {
	return mcp.Pass{Agent: agent, Method: mcp.ToolsCall, Grants: []string{"G-" + agent}, Revision: revision}
}

func (w *world) request(pass, body string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://envoy/mcp/github", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if pass != "" {
		r.Header.Set(mcp.PassHeader, pass)
	}
	return r
}

// open sends a message and returns the answer's head.
func (w *world) open(r *http.Request) *http.Response {
	w.t.Helper()
	res, err := w.client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { res.Body.Close() })
	return res
}

// send sends a message and reads the whole answer.
func (w *world) send(p mcp.Pass) (res *http.Response, body string, err error) {
	w.t.Helper()
	res = w.open(w.request(w.pass(p), `{"jsonrpc":"2.0","id":1}`))
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) underWay() int {
	w.surface.gate.mu.Lock()
	defer w.surface.gate.mu.Unlock()
	return w.surface.gate.total
}

// answerWith answers with a body of the content type.
func answerWith(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}
}
