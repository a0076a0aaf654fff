package clients_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/mcp/notes"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// shelf is one folder with the clients for all tests of this package.
var shelf = sync.OnceValues(func() (*clients.Shelf, error) {
	dir, err := os.MkdirTemp("", "mcp-clients-")
	if err != nil {
		return nil, err
	}
	scratch = dir
	program := filepath.Join(dir, "go-client")
	if out, err := exec.Command("go", "build", "-o", program, "./go").CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: string(out), Err: err}
	}
	return clients.Lay(dir, folder, program)
})

var (
	scratch string
	folder  peers.Folder
)

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

func lay(t *testing.T) *clients.Shelf {
	t.Helper()
	folder = peers.Find(t)
	s, err := shelf()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open starts a client; it must end by itself when its input does.
func open(t *testing.T, cmd *exec.Cmd) *clients.Session {
	t.Helper()
	s, err := clients.Open(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !t.Failed() {
			t.Errorf("how the client ended: %v", err)
		}
	})
	return s
}

// do has a client do a step, and wants an answer that contains want.
func do(t *testing.T, s *clients.Session, step, want string) {
	t.Helper()
	a, err := s.Do(step)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(a.String(), want) {
		t.Errorf("%s: %s, want %q", step, a, want)
	}
}

// log is what a server wrote.
type log struct {
	mu       sync.Mutex
	b        strings.Builder
	revision atomic.Value // string: in which it was spoken to; of the Go server
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// ran returns the lines of what really ran, without their beginning.
func (l *log) ran() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ran []string
	for line := range strings.Lines(l.b.String()) {
		if _, what, ok := strings.Cut(strings.TrimSpace(line), "ran "); ok {
			ran = append(ran, what)
		}
	}
	return ran
}

// servers are both notes servers: each gives its URL and its log.
var servers = map[string]func(t *testing.T) (string, *log){
	"go": func(t *testing.T) (string, *log) {
		l := &log{}
		handler := notes.Handler(slog.New(slog.NewTextHandler(l, nil)))
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if v := r.Header.Get("Mcp-Protocol-Version"); v != "" {
				l.revision.Store(v) // the last one: a client may have tried another before
			}
			handler.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.CloseClientConnections) // or Close waits for the streams of sessions
		t.Cleanup(srv.Close)
		return srv.URL + "/mcp", l
	},
	"python": func(t *testing.T) (string, *log) {
		l := &log{}
		addr := peers.FreeAddr(t)
		cmd := peers.Find(t).Python(2, "../server.py", strings.TrimPrefix(addr, "127.0.0.1:"))
		cmd.Stderr = l
		peers.Serve(t, cmd, addr)
		return "http://" + addr + "/mcp", l
	},
}

// Every client plays all that the server has, with every server, in the revisions
// that both speak; and both servers run the same, and log it in the same words.
func TestClientsAndServers(t *testing.T) {
	s := lay(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("baseline\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, serve := range servers {
		for _, sdk := range clients.All() {
			for _, revision := range []string{"2025-06-18", "2025-11-25", "2026-07-28"} {
				if !clients.Speaks(sdk, revision) || revision == "2025-06-18" && sdk != clients.Go {
					continue // the others take the newest with sessions that the server has
				}
				t.Run(name+"/"+sdk+"/"+revision, func(t *testing.T) {
					t.Parallel()
					url, l := serve(t)
					c := open(t, s.Command(sdk, url, revision, "TOOLGRANT_TASK=", "TOOLGRANT_BASELINE_TOKEN_FILE="+token))
					do(t, c, "tools", "ok: call_tool delete_note list_notes read_note write_note")
					do(t, c, `call list_notes {"shelf":"work"}`, "ok: work/standup")
					do(t, c, `call write_note {"note":"work/new","text":"a \"b\""}`, "ok: written")
					do(t, c, `call read_note {"note":"work/new"}`, `ok: a "b"`)
					do(t, c, `call call_tool {"name":"call_tool","arguments":{"name":"delete_note","arguments":{"note":"work/new"}}}`, "ok: deleted")
					do(t, c, `call read_note {"note":"work/new"}`, "no such note")
					do(t, c, `call read_note {"NOTE":"work/new"}`, "takes such arguments")
					do(t, c, `read notes://index`, "home/shopping\nwork/standup")
					do(t, c, `prompt summarize {"note":"work/standup"}`, "ok: Sum up in one sentence: ship the report")
					want := []string{
						`tool=list_notes authorization=true shelf=work`,
						`tool=write_note authorization=true note=work/new text="a \"b\""`,
						`tool=read_note authorization=true note=work/new`,
						`tool=delete_note authorization=true note=work/new`,
						`tool=read_note authorization=true note=work/new`,
						`resource=notes://index authorization=true`,
						`prompt=summarize authorization=true note=work/standup`,
					}
					if spoken, ok := l.revision.Load().(string); name == "go" && (!ok || spoken != revision) {
						t.Errorf("the client spoke %q", spoken)
					}
					got := l.ran()
					for deadline := time.Now().Add(10 * time.Second); len(got) < len(want) && time.Now().Before(deadline); got = l.ran() {
						time.Sleep(5 * time.Millisecond) // a line may come after the answer
					}
					if d := cmp.Diff(want, got); d != "" {
						t.Error(d)
					}
				})
			}
		}
	}
}

// One pin fits both servers: they tell of their tools in the same words.
func TestDescriptorsAreTheSame(t *testing.T) {
	lists := map[string]any{}
	for name, serve := range servers {
		url, _ := serve(t)
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",` +
			`"io.modelcontextprotocol/clientCapabilities":{}}}}`
		r, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
			"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"} {
			r.Header.Set(k, v)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		// The Go SDK answers by an event.
		message := string(text[strings.Index(string(text), "{"):])
		var list struct {
			Result struct{ Tools []any }
		}
		if err := json.NewDecoder(strings.NewReader(message)).Decode(&list); err != nil || len(list.Result.Tools) != 5 {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
		lists[name] = list.Result.Tools
	}
	var want any
	text, err := os.ReadFile("../notes/descriptors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for name, list := range lists {
		if d := cmp.Diff(want, list); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
