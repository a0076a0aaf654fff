package main

import (
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

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// sdkWorld has a notes server of the Go SDK and one of the Python SDK behind it,
// each under two ids: with denials as HTTP errors, and (-rpc) as JSON-RPC errors. Both
// are processes: sessions that clients leave open end with them.
type sdkWorld struct {
	*world
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
	parts, dir := peers.Find(t), t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "../../examples/mcp/server", "../../examples/mcp/clients/go")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shelf, err := clients.Lay(dir, parts, filepath.Join(dir, "go"))
	if err != nil {
		t.Fatal(err)
	}
	logs, entries := map[string]*syncBuffer{}, ""
	for name, server := range map[string]func(addr string) *exec.Cmd{
		"go": func(addr string) *exec.Cmd { return exec.Command(filepath.Join(dir, "server"), "-listen", addr) },
		"python": func(addr string) *exec.Cmd {
			return parts.Python(2, "../../examples/mcp/server.py", strings.TrimPrefix(addr, "127.0.0.1:"))
		},
	} {
		addr := peers.FreeAddr(t)
		cmd := server(addr)
		logs[name] = &syncBuffer{}
		cmd.Stderr = logs[name]
		peers.Serve(t, cmd, addr)
		for id, denials := range map[string]string{name: "http", name + "-rpc": "jsonrpc"} {
			entries += strings.NewReplacer("id: notes\n", "id: "+id+"\n", "notes.internal", id+".internal", "/mcp/notes", "/mcp/"+id,
				"denials: http", "denials: "+denials, "UPSTREAM", addr).Replace(notesServer)
		}
	}
	return &sdkWorld{layOutMCP(t, entries, "in the entries").world, shelf, logs}
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
	return &sdkWorld{&inner, w.shelf, w.logs}
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
// through real Envoy.
func TestSDKs(t *testing.T) {
	w := openSDKs(t)
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(w.identity("report-bot", "toolgrant", "reporting")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("each", func(t *testing.T) {
		for _, sdk := range clients.All() {
			run := func(name string, play func(t *testing.T)) {
				t.Run(sdk+"/"+name, func(t *testing.T) { t.Parallel(); play(t) })
			}
			run("renewal", func(t *testing.T) { w.playRenewal(t, sdk, identity) })
			run("denial", func(t *testing.T) { w.playDenial(t, sdk) })
			for server := range w.logs {
				for _, revision := range sdkSpeaks(sdk) {
					run(server+"/"+revision, func(t *testing.T) { w.playStory(t, server, sdk, revision) })
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

const (
	readStandup  = `call read_note {"note":"work/standup"}`
	eraseStandup = `call delete_note {"note":"work/standup"}`
	standup      = "ok: ship the report"
)

// deniedByHTTP is what the client of an SDK shows of a denial by HTTP that another tool's
// grant would mend: TypeScript's client 2.x says which, and no reason. By JSON-RPC all
// show the reason.
func deniedByHTTP(sdk, reason, tool string) string {
	if sdk == clients.TypeScript {
		return fmt.Sprintf("InsufficientScopeError: Insufficient scope: required %q", tool)
	}
	return reason
}

// playStory is a baseline, a grant, what it does not open, its task's end, and the
// baseline again, in one session.
func (w *sdkWorld) playStory(t *testing.T, server, sdk, revision string) {
	entry := server
	if sdk == clients.Python1 {
		entry += "-rpc" // by HTTP, a denial ends its session: see playDenial
	}
	c := w.start(t, sdk, revision, entry)
	note := fmt.Sprintf("work/%s-%s-%s", server, sdk, revision)
	write := fmt.Sprintf(`call write_note {"note":%q,"text":"done"}`, note)
	erase := fmt.Sprintf(`{"note":%q}`, note)
	no := func(reason, tool string) string { return deniedByHTTP(sdk, reason, entry+"/"+tool) }

	c.wants("ok: call_tool delete_note list_notes read_note write_note", "tools")
	c.wants(standup, readStandup)
	c.wants(no("no_grant", "write_note"), write)
	c.wants("no_grant", "read notes://index")

	token, task := (&mcpWorld{world: c.world}).grants(entry + "/write_note")
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
	want := []string{
		"tool=write_note authorization=false note=" + note + " text=done x-grant-ctx-agent=corp/report-bot x-grant-ctx-grant=g x-grant-ctx-task=" + task +
			" x-grant-ctx-tool=" + entry + "/write_note",
		read,
	}
	ran := c.ranOf(server, note+" ")
	for i := range ran {
		ran[i] = underGrant.ReplaceAllString(ran[i], "x-grant-ctx-grant=g")
	}
	if d := cmp.Diff(want, ran); d != "" {
		t.Errorf("what ran (-want +got):\n%s", d)
	}
}

var underGrant = regexp.MustCompile(`x-grant-ctx-grant=(g_\S+)`)

// playDenial is how a session goes on after a denial: by JSON-RPC always, by HTTP not
// that of Python's mcp 1.x. Hence the catalogue's denials.
func (w *sdkWorld) playDenial(t *testing.T, sdk string) {
	c := w.start(t, sdk, "2025-11-25", "go-rpc")
	c.wants(standup, readStandup)
	c.wants("no_grant", eraseStandup)
	c.wants(standup, readStandup)

	c = w.start(t, sdk, "2025-11-25", "go")
	c.wants(standup, readStandup)
	if sdk == clients.Python1 {
		if a, err := c.Do(eraseStandup); err == nil {
			t.Errorf("it goes on, and says %s", a)
		}
		return
	}
	c.wants(deniedByHTTP(sdk, "no_grant", "go/delete_note"), eraseStandup)
	c.wants(standup, readStandup)
}

// playRenewal is a client that buys its own grants and renews them, so that no call
// fails.
func (w *sdkWorld) playRenewal(t *testing.T, sdk, identity string) {
	w = w.of(t)
	s := w.begin(t, sdk, "2026-07-28", "go", "TOOLGRANT_URL="+w.broker, "TOOLGRANT_IDENTITY_TOKEN_FILE="+identity,
		"TOOLGRANT_TASK="+w.task(), "TOOLGRANT_TOOLS=go/write_note", "TOOLGRANT_TTL=5")
	var under []string // grants, in the order in which they were used
	w.until("it has written under two grants", func() bool {
		a, err := s.Do(fmt.Sprintf(`call write_note {"note":"work/%s","text":"x"}`, sdk))
		if err != nil || a.OK == nil {
			t.Fatal(a, err)
		}
		under = under[:0]
		for _, line := range w.ranOf("go", "note=work/"+sdk+" ") {
			if g := underGrant.FindStringSubmatch(line); g != nil && !slices.Contains(under, g[1]) {
				under = append(under, g[1])
			}
		}
		return len(under) > 1
	})
	if w.audited(`"grant":"`+under[1]+`"`, "renews="+under[0]) == "" {
		t.Errorf("%s does not renew %s:\n%s", under[1], under[0], w.audited(under[1]))
	}
}

// audited are the lines of the audit that have all words.
func (w *world) audited(words ...string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "run/audit.jsonl"))
	if err != nil {
		w.t.Fatal(err)
	}
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// TestSDKsAfterARestart: sessions are one process's. Of one that toolgrant's next
// process does not know, the client is told by 404. None of the SDKs opens another by
// itself; each says that this one is over, and a new client works. Where there are no
// sessions, nothing is noticed.
func TestSDKsAfterARestart(t *testing.T) {
	w := layOutSDKs(t)
	first := w.serve()
	w.startEnvoy()
	type old struct {
		*sdkClient
		sdk, revision string
	}
	var all []old
	for _, sdk := range clients.All() {
		for _, revision := range []string{"2025-11-25", "2026-07-28"} {
			if clients.Speaks(sdk, revision) {
				all = append(all, old{w.start(t, sdk, revision, "go-rpc"), sdk, revision})
			}
		}
	}
	for _, c := range all {
		c.wants(standup, readStandup)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.until("it has ended", func() bool { return first.Process.Signal(syscall.Signal(0)) != nil })
	w.serve()
	w.until("Envoy has found the next", func() bool { return w.call("", "POST", "/mcp/go", "{}").status == http.StatusUnauthorized })
	for _, c := range all {
		switch {
		case c.revision == "2026-07-28":
			c.wants(standup, readStandup)
		case c.sdk == clients.Python1:
			c.wants("Session terminated", readStandup)
		default:
			c.wants("unknown_session", readStandup)
		}
	}
	for _, sdk := range clients.All() {
		w.start(t, sdk, "2025-11-25", "go-rpc").wants(standup, readStandup)
	}
}
