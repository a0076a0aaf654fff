package clients_test

import (
	stdcmp "cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
	"github.com/toolgrant/toolgrant/examples/mcp/notes"
	"github.com/toolgrant/toolgrant/examples/mcp/peers"
)

// world is a broker and a door as a client sees them: the broker says when tokens
// end, and the door for which reason the current one is refused. How the real ones
// decide is tested elsewhere; here it is what the clients make of it.
type world struct {
	t   *testing.T
	url string // of the MCP server, behind the door
	env []string

	mu      sync.Mutex
	lasts   int               // seconds: expires_in of the next token
	refuse  string            // reason with which the broker refuses; "": it grants
	tokens  int               // how many it has given: token1, token2, …
	asks    []ask             // what it was asked for since the last look
	reasons map[string]string // token -> reason with which the door refuses it
	refused int               // how often the door has refused
}

type ask struct {
	Type, Tool, Task, Renew string
	TTL                     int
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, lasts: 300, reasons: map[string]string{}}
	broker := httptest.NewServer(http.HandlerFunc(w.broker))
	t.Cleanup(broker.Close)
	server := notes.Handler(slog.New(slog.DiscardHandler))
	door := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.door(rw, r, server) }))
	t.Cleanup(door.CloseClientConnections)
	t.Cleanup(door.Close)
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte("aWRlbnRpdHk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.url = door.URL + "/mcp"
	w.env = []string{"TOOLGRANT_URL=" + broker.URL, "TOOLGRANT_IDENTITY_TOKEN_FILE=" + identity,
		"TOOLGRANT_TASK=t_aaaaaaaaaaaaaaaaaaaaaaaaaa", "TOOLGRANT_TOOLS=notes/write_note notes/read_note", "TOOLGRANT_TTL=240"}
	return w
}

func (w *world) broker(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var asks []ask
	if err := json.Unmarshal([]byte(r.FormValue("authorization_details")), &asks); err != nil || r.URL.Path != "/oauth2/token" ||
		r.FormValue("subject_token") != "aWRlbnRpdHk" || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" ||
		r.FormValue("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" {
		w.t.Errorf("the broker was asked %s %v (%v)", r.URL, r.Form, err)
	}
	w.asks = append(w.asks, asks...)
	rw.Header().Set("Content-Type", "application/json")
	if w.refuse != "" {
		rw.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(rw, `{"error":"invalid_request","reason":%q,"error_description":"no"}`, w.refuse)
		return
	}
	w.tokens++
	var granted []string
	for _, a := range asks {
		granted = append(granted, fmt.Sprintf(`{"type":%q,"grant_id":%q,"tool":%q,"task":%q,"ttl":%d,"expires_at":"2030-01-02T03:04:05Z"}`,
			a.Type, grantID(w.tokens, a.Tool), a.Tool, a.Task, a.TTL))
	}
	fmt.Fprintf(rw, `{"access_token":"token%d","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer",`+
		`"expires_in":%d,"authorization_details":[%s]}`, w.tokens, w.lasts, strings.Join(granted, ","))
}

// grantID is the id of the grant for a tool in the nth token.
func grantID(n int, tool string) string {
	const digits = "abcdefghijklmnopqrstuvwxyz"
	return "g_" + strings.Repeat("a", 23) + string([]byte{digits[n/26], digits[n%26], tool[len("notes/")]})
}

func (w *world) door(rw http.ResponseWriter, r *http.Request, server http.Handler) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	w.mu.Lock()
	why := w.reasons[token]
	if token == "" {
		w.t.Errorf("%s %s came without a token", r.Method, r.URL)
	}
	if why != "" {
		w.refused++
	}
	w.mu.Unlock()
	if why == "" {
		server.ServeHTTP(rw, r)
		return
	}
	var message struct {
		ID json.RawMessage `json:"id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&message)
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(rw, `{"jsonrpc":"2.0","id":%s,"error":{"code":403,"message":"refused","data":{"error":"insufficient_scope","reason":%q}}}`,
		stdcmp.Or(string(message.ID), "null"), why)
}

// is changes what happens next.
func (w *world) is(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// asked returns what the broker was asked for since the last time.
func (w *world) asked() []ask {
	w.mu.Lock()
	defer w.mu.Unlock()
	asks := w.asks
	w.asks = nil
	return asks
}

// wantAsked wants one request to the broker since the last time: for both tools, in
// place of the grants of the nth token; 0: beside what there is.
func (w *world) wantAsked(renewed int) {
	w.t.Helper()
	var want []ask
	for _, tool := range []string{"notes/write_note", "notes/read_note"} {
		a := ask{Type: "urn:toolgrant:grant:1", Tool: tool, Task: "t_aaaaaaaaaaaaaaaaaaaaaaaaaa", TTL: 240}
		if renewed > 0 {
			a.Renew = grantID(renewed, tool)
		}
		want = append(want, a)
	}
	if d := cmp.Diff(want, w.asked()); d != "" {
		w.t.Errorf("asked of the broker: %s", d)
	}
}

// newest returns the newest token.
func (w *world) newest() string { return fmt.Sprintf("token%d", w.tokens) }

const aNote = `call read_note {"note":"work/standup"}`

// eachSDK runs a test with the client of each SDK, in the newest revision that it
// speaks.
func eachSDK(t *testing.T, test func(t *testing.T, w *world, c *clients.Session, sdk string)) {
	s := lay(t)
	for _, sdk := range clients.All() {
		t.Run(sdk, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c, err := clients.Open(s.Command(sdk, w.url, "2026-07-28", w.env...))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() }) // Python 1.x ends with what it was refused
			test(t, w, c, sdk)
		})
	}
}

func TestATokenIsForAllRequestsUntilItIsOver(t *testing.T) {
	eachSDK(t, func(t *testing.T, w *world, c *clients.Session, _ string) {
		do(t, c, "tools", "ok: call_tool")
		do(t, c, aNote, "ok: ship the report")
		w.wantAsked(0)
		for _, why := range []string{"expired", "expired_token", "superseded"} {
			w.is(func() { w.reasons[w.newest()] = why; w.refused = 0 })
			do(t, c, aNote, "ok: ship the report")
			w.wantAsked(0)
			w.is(func() {
				if w.refused != 1 {
					t.Errorf("%s: the door refused %d times", why, w.refused)
				}
			})
		}
	})
}

// What a new token does not mend is not tried again.
func TestOtherRefusalsAreNotMended(t *testing.T) {
	eachSDK(t, func(t *testing.T, w *world, c *clients.Session, sdk string) {
		do(t, c, aNote, "ok: ship the report")
		w.wantAsked(0)
		w.is(func() { w.reasons[w.newest()] = "wrong_tool" })
		a, err := c.Do(aNote)
		if sdk == clients.Python1 {
			// It ends its session at any HTTP error: hence the catalogue's denials: jsonrpc.
			if err == nil {
				t.Errorf("python1 survives: %s", a)
			}
		} else if err != nil || !strings.Contains(a.String(), "refused") || a.OK != nil {
			t.Errorf("%s, %v", a, err)
		}
		if asks := w.asked(); asks != nil {
			t.Errorf("asked of the broker: %+v", asks)
		}
		if w.is(func() { w.refused-- }); w.refused > 1 { // Python 1.x and TypeScript 1.x end their session, too
			t.Errorf("the door refused %d times more", w.refused)
		}
	})
}

// Shortly before its end a token is renewed, so that no call is refused. While the
// old one holds, a broker that does not give a new one disturbs nobody.
func TestATokenIsRenewedBeforeItsEnd(t *testing.T) {
	eachSDK(t, func(t *testing.T, w *world, c *clients.Session, _ string) {
		// The first token lasts; the door sees to it that it is replaced by short ones.
		do(t, c, aNote, "ok: ship the report")
		w.is(func() { w.lasts = 5; w.reasons[w.newest()] = "expired"; w.asks = nil })
		do(t, c, aNote, "ok: ship the report")
		w.wantAsked(0)
		renewal(t, w, c, "")

		w.is(func() { w.refuse = "limit" })
		renewal(t, w, c, "limit")
		w.is(func() { w.refuse = "" })
		renewal(t, w, c, "")
	})
}

// renewal calls until the broker is asked for a renewal, which it grants or refuses,
// and wants that no call notices. A client that gets no processor for a second may
// come too late for one, and asks anew: that is tried again.
func renewal(t *testing.T, w *world, c *clients.Session, refuse string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var living int
		w.is(func() { living = w.tokens })
		a, err := c.Do(aNote)
		if err != nil {
			t.Fatal(err)
		}
		asks := w.asked()
		switch {
		case asks == nil && a.OK != nil:
			continue
		case len(asks) == 2 && asks[0].Renew == "": // too late
			w.is(func() { w.refuse = "" })
			do(t, c, aNote, "ok")
			w.is(func() { w.refuse, w.asks = refuse, nil })
			continue
		case a.OK == nil:
			t.Fatalf("%s", a)
		case len(asks) != 2 || asks[0].Renew != grantID(living, "notes/write_note") || asks[1].Renew != grantID(living, "notes/read_note"):
			t.Fatalf("asked of the broker, when the token was token%d: %+v", living, asks)
		}
		return
	}
	t.Fatal("no renewal within two minutes")
}

// When the token is over and the broker gives no other, the client says what the
// broker said: as the step's error or, where that would end the session, in its log.
func TestTheBrokersRefusalIsTold(t *testing.T) {
	eachSDK(t, func(t *testing.T, w *world, c *clients.Session, sdk string) {
		do(t, c, aNote, "ok: ship the report")
		w.is(func() { w.reasons[w.newest()] = "expired"; w.refuse = "task_ended" })
		a, err := c.Do(aNote)
		told := func() bool { return strings.Contains(fmt.Sprint(a, err, c.Stderr()), "task_ended") }
		for deadline := time.Now().Add(10 * time.Second); !told() && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond) // its log may come after its answer
		}
		if a.OK != nil || !told() {
			t.Errorf("%s, %v\n%s", a, err, c.Stderr())
		}
		if sdk == clients.Python1 {
			return // see above: it has ended
		}
		w.is(func() { w.refuse = "" })
		do(t, c, aNote, "ok: ship the report") // the session goes on
	})
}

// The token goes to the MCP server and to nobody else, whatever the HTTP client that
// has it is used for. (Of the Go client, go/task_test.go says the same.)
func TestTheTokenGoesToItsServerAlone(t *testing.T) {
	lay(t)
	dir := t.TempDir()
	if _, err := clients.Lay(dir, folder, ""); err != nil {
		t.Fatal(err)
	}
	const python = `
import asyncio, sys
from toolgrant_task import Task, httpx
async def main(server, *urls):
    async with httpx.AsyncClient(auth=Task(server), follow_redirects=True) as http:
        for url in urls: print(repr((await http.get(url)).text))
asyncio.run(main(*sys.argv[1:]))
`
	const typescript = `
import { taskFetch } from './task.ts';
const [server, ...urls] = process.argv.slice(2);
for (const url of urls) console.log("'" + await (await taskFetch(server!)(url)).text() + "'");
`
	for name, text := range map[string]string{"python/away.py": python, "typescript/away.ts": typescript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) })
	other := httptest.NewServer(show)
	t.Cleanup(other.Close)
	mux := http.NewServeMux()
	mux.Handle("/mcp", show)
	mux.Handle("/away", http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w := newWorld(t)

	urls := []string{server.URL + "/mcp", server.URL + "/mcp", server.URL + "/away", other.URL}
	for name, cmd := range map[string]*exec.Cmd{
		"python":     folder.Python(2, filepath.Join(dir, "python/away.py"), urls...),
		"python1":    folder.Python(1, filepath.Join(dir, "python/away.py"), urls...),
		"typescript": folder.Node(filepath.Join(dir, "typescript/away.ts"), urls...),
	} {
		cmd.Env = append(cmd.Environ(), w.env...)
		out, err := peers.Run(t, cmd)
		lines := strings.Fields(strings.ReplaceAll(out, "Bearer ", ""))
		if err != nil || len(lines) != 3 || !strings.HasPrefix(lines[0], "'token") || lines[1] != "''" || lines[2] != "''" {
			t.Errorf("%s: the server, a redirect, and another saw %q (%v)", name, lines, err)
		}
	}
}
