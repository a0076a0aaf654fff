package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// sdkWorld has a notes server of the Go SDK and one of the Python SDK behind it,
// each under two ids: with denials as HTTP errors, and (-rpc) as JSON-RPC errors.
type sdkWorld struct {
	*mcpWorld
	shelf *clients.Shelf
	logs  map[string]*syncBuffer // "go", "python" -> what really ran
}

func openSDKs(t *testing.T) *sdkWorld {
	t.Helper()
	w := layOutSDKs(t)
	w.serve()
	w.startEnvoy()
	return w
}

func layOutSDKs(t *testing.T) *sdkWorld {
	t.Helper()
	parts := peers.Find(t)
	python := &syncBuffer{}
	addr := peers.FreeAddr(t)
	cmd := parts.Python(2, "../../examples/mcp/server.py", strings.TrimPrefix(addr, "127.0.0.1:"))
	cmd.Stderr = python
	peers.Serve(t, cmd, addr)

	entry := func(id, denials, upstream string) string {
		return strings.NewReplacer("id: notes\n", "id: "+id+"\n", "notes.internal", id+".internal", "/mcp/notes", "/mcp/"+id,
			"denials: http", "denials: "+denials, "UPSTREAM", upstream).Replace(notesServer)
	}
	m := layOutMCP(t, entry("go", "http", "UPSTREAM")+entry("go-rpc", "jsonrpc", "UPSTREAM")+
		entry("python", "http", addr)+entry("python-rpc", "jsonrpc", addr), "")
	dir := t.TempDir()
	program := filepath.Join(dir, "go-client")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/mcp/clients/go").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shelf, err := clients.Lay(dir, parts, program)
	if err != nil {
		t.Fatal(err)
	}
	return &sdkWorld{m, shelf, map[string]*syncBuffer{"go": m.ran, "python": python}}
}

// sdkClient is a client of an SDK that speaks to a server through Envoy. The token
// that it sends is what stands in a file, and may change.
type sdkClient struct {
	*sdkWorld
	*clients.Session
	server string // its id
	file   string
}

// start starts a client, with its identity token for the server.
func (w *sdkWorld) start(t *testing.T, sdk, revision, server string) *sdkClient {
	t.Helper()
	c := &sdkClient{w.of(t), nil, server, filepath.Join(t.TempDir(), "token")}
	c.show(c.self())
	c.Session = w.begin(t, sdk, revision, server, "TOOLGRANT_TASK=", "TOOLGRANT_BASELINE_TOKEN_FILE="+c.file)
	return c
}

func (w *sdkWorld) begin(t *testing.T, sdk, revision, server string, env ...string) *clients.Session {
	t.Helper()
	s, err := clients.Open(w.shelf.Command(sdk, w.front+"/mcp/"+server, revision, env...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some end with what they were refused
	return s
}

// of is the world for another test.
func (w *sdkWorld) of(t *testing.T) *sdkWorld {
	inner := *w.world
	inner.t = t
	return &sdkWorld{&mcpWorld{world: &inner, seen: w.seen, ran: w.ran}, w.shelf, w.logs}
}

// self is the agent's identity token for the server: its baseline.
func (c *sdkClient) self() string {
	c.t.Helper()
	return c.identity("report-bot", "https://"+c.server+".internal/mcp", "reporting")
}

func (c *sdkClient) show(token string) {
	c.t.Helper()
	next := c.file + ".next"
	if err := os.WriteFile(next, []byte(token+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(next, c.file); err != nil {
		c.t.Fatal(err)
	}
}

// wants has the client do a step. It says "ok: …", or an error with the reason.
func (c *sdkClient) wants(want, step string) {
	c.t.Helper()
	a, err := c.Do(step)
	if err != nil {
		c.t.Fatal(err)
	}
	ok := strings.HasPrefix(want, "ok: ")
	if ok != (a.OK != nil) || ok && a.String() != want || !strings.Contains(a.String(), want) {
		c.t.Fatalf("%s: %s, want %s", step, a, want)
	}
}

// ranOf are the lines of a server's log that have a word, without their beginning.
func (w *sdkWorld) ranOf(server, word string) []string {
	var lines []string
	for line := range strings.Lines(w.logs[server].String()) {
		if _, ran, ok := strings.Cut(strings.TrimSpace(line), "ran "); ok && strings.Contains(line, word) {
			lines = append(lines, ran)
		}
	}
	return lines
}

// sdkSpeaks are the revisions in which the example's client of an SDK can be had to
// speak: all of the Go SDK, and of the others the last with sessions and the first
// without.
func sdkSpeaks(sdk string) []string {
	all := []string{"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"}
	if sdk != clients.Go {
		all = all[2:]
	}
	return slices.DeleteFunc(all, func(revision string) bool { return !clients.Speaks(sdk, revision) })
}

// TestSDKs: clients of three SDKs in five versions, servers of two, in each revision,
// through real Envoy: a baseline, a grant, what it does not open, its task's end, and
// the baseline again, in one session.
func TestSDKs(t *testing.T) {
	w := openSDKs(t)
	t.Run("each", func(t *testing.T) {
		for server := range w.logs {
			for _, sdk := range clients.All() {
				for _, revision := range sdkSpeaks(sdk) {
					t.Run(server+"/"+sdk+"/"+revision, func(t *testing.T) {
						t.Parallel()
						w.playStory(t, server, sdk, revision)
					})
				}
			}
		}
	})
	for server := range w.logs {
		if ran := w.ranOf(server, "delete_note"); len(ran) > 0 {
			t.Errorf("%s: what nobody was granted ran: %s", server, ran)
		}
		if ran := w.ranOf(server, "authorization=true"); len(ran) > 0 {
			t.Errorf("%s: a credential reached the server: %s", server, ran)
		}
	}
}

func (w *sdkWorld) playStory(t *testing.T, server, sdk, revision string) {
	entry := server
	if sdk == clients.Python1 {
		entry += "-rpc" // an HTTP error ends its session: see TestSDKsShowDenials
	}
	c := w.start(t, sdk, revision, entry)
	no := func(reason, tool string) string {
		if sdk == clients.TypeScript {
			return fmt.Sprintf("InsufficientScopeError: Insufficient scope: required %q", entry+"/"+tool)
		}
		return reason
	}
	note := fmt.Sprintf("work/%s-%s-%s", server, sdk, revision)
	write := fmt.Sprintf(`call write_note {"note":%q,"text":"done"}`, note)
	erase := fmt.Sprintf(`{"note":%q}`, note)

	c.wants("ok: call_tool delete_note list_notes read_note write_note", "tools")
	c.wants("ok: ship the report", `call read_note {"note":"work/standup"}`)
	c.wants(no("no_grant", "write_note"), write)
	c.wants("no_grant", "read notes://index")

	token, task := c.grants(entry + "/write_note")
	c.show(token)
	c.wants("ok: written", write)
	c.wants(no("wrong_tool", "delete_note"), "call delete_note "+erase)
	c.wants(no("wrong_tool", "delete_note"), `call call_tool {"name":"delete_note","arguments":`+erase+`}`)
	if err := c.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	c.wants(no("task_ended", "write_note"), write)

	c.show(c.self())
	c.wants("ok: done", "call read_note "+erase)

	read := "tool=read_note authorization=false note=" + note + " x-grant-ctx-agent=corp/report-bot x-grant-ctx-tool=" + entry + "/read_note"
	c.until("the server has logged it", func() bool { return slices.Contains(c.ranOf(server, note+" "), read) })
	ran := c.ranOf(server, note+" ")
	for i := range ran {
		ran[i] = regexp.MustCompile(`x-grant-ctx-grant=g_\S+`).ReplaceAllString(ran[i], "x-grant-ctx-grant=g")
	}
	want := []string{
		"tool=write_note authorization=false note=" + note + " text=done x-grant-ctx-agent=corp/report-bot x-grant-ctx-grant=g x-grant-ctx-task=" + task +
			" x-grant-ctx-tool=" + entry + "/write_note",
		read,
	}
	if d := gocmp.Diff(want, ran); d != "" {
		t.Errorf("what ran (-want +got):\n%s", d)
	}
}

// TestSDKsShowDenials: what the client of each SDK shows of a denial, as an HTTP error
// and as a JSON-RPC error. By HTTP, Python's mcp 1.x ends its session, and TypeScript's
// client 2.x shows which tool it lacks, and not why: hence the catalogue's denials.
func TestSDKsShowDenials(t *testing.T) {
	w := openSDKs(t)
	byHTTP := map[string]string{clients.Python1: "ends", clients.TypeScript: `InsufficientScopeError: Insufficient scope: required "go/delete_note"`}
	for _, sdk := range clients.All() {
		for server, want := range map[string]string{"go": cmp.Or(byHTTP[sdk], "no_grant"), "go-rpc": "no_grant"} {
			t.Run(server+"/"+sdk, func(t *testing.T) {
				t.Parallel()
				c := w.start(t, sdk, "2025-11-25", server)
				const read, erase = `call read_note {"note":"work/standup"}`, `call delete_note {"note":"work/standup"}`
				c.wants("ok: ship the report", read)
				if want == "ends" {
					if a, err := c.Do(erase); err == nil {
						t.Fatalf("it goes on, and says %s", a)
					}
					return
				}
				c.wants(want, erase)
				c.wants("ok: ship the report", read)
			})
		}
	}
}

// TestSDKsRenew: each client buys its own grants, renews them, and no call fails.
func TestSDKsRenew(t *testing.T) {
	w := openSDKs(t)
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(w.identity("report-bot", "toolgrant", "reporting")), 0o600); err != nil {
		t.Fatal(err)
	}
	under := regexp.MustCompile(`x-grant-ctx-grant=(g_\S+)`)
	for _, sdk := range clients.All() {
		t.Run(sdk, func(t *testing.T) {
			t.Parallel()
			w := w.of(t)
			s := w.begin(t, sdk, "2026-07-28", "go", "TOOLGRANT_URL="+w.broker, "TOOLGRANT_IDENTITY_TOKEN_FILE="+identity,
				"TOOLGRANT_TASK="+w.task(), "TOOLGRANT_TOOLS=go/write_note", "TOOLGRANT_TTL=5")
			var grants []string
			w.until("it has written under two grants", func() bool {
				a, err := s.Do(fmt.Sprintf(`call write_note {"note":"work/%s","text":"x"}`, sdk))
				if err != nil || a.OK == nil {
					t.Fatal(a, err)
				}
				grants = grants[:0]
				for _, line := range w.ranOf("go", "note=work/"+sdk+" ") {
					if g := under.FindStringSubmatch(line); g != nil {
						grants = append(grants, g[1])
					}
				}
				grants = slices.Compact(grants)
				return len(grants) > 1
			})
			if on := w.audited(grants[1]); !strings.Contains(on, grants[0]) {
				t.Errorf("%s renews %s, and the audit does not say so:\n%s", grants[1], grants[0], on)
			}
		})
	}
}

// audited are the lines of the audit that have a word.
func (w *world) audited(word string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "run/audit.jsonl"))
	if err != nil {
		w.t.Fatal(err)
	}
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, word) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// TestSDKsOutliveARestart: sessions are one process's. A client that goes on with one
// after toolgrant has started anew is told so by 404, and starts a new session or
// says that the old one is over; a new client works, as does one without sessions.
func TestSDKsOutliveARestart(t *testing.T) {
	w := layOutSDKs(t)
	first := w.serve()
	w.startEnvoy()
	all := map[string]*sdkClient{}
	const read = `call read_note {"note":"work/standup"}`
	for _, sdk := range clients.All() {
		for _, revision := range sdkSpeaks(sdk)[max(0, len(sdkSpeaks(sdk))-2):] {
			all[sdk+"/"+revision] = w.start(t, sdk, revision, "go-rpc")
			all[sdk+"/"+revision].wants("ok: ship the report", read)
		}
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.until("it has ended", func() bool { return first.Process.Signal(syscall.Signal(0)) != nil })
	w.serve()
	w.until("Envoy has found the new one", func() bool { return w.call("", "POST", "/mcp/go", "{}").status == http.StatusUnauthorized })
	for name, c := range all {
		for range 2 {
			a, err := c.Do(read)
			t.Log(name, a, err)
		}
	}
}
