package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeBroker grants everything, and notes what it was asked for.
type fakeBroker struct {
	*httptest.Server

	mu      sync.Mutex
	expires int64                                  // seconds that a token is good for
	fail    func(r *http.Request, body string) int // status; 0: answer
	asked   []string                               // "METHOD PATH BODY" but for beats
	beats   int
	tokens  int
	ended   bool
}

func newFakeBroker(t *testing.T) *fakeBroker {
	t.Helper()
	b := &fakeBroker{expires: 300}
	b.Server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.Close)
	t.Setenv(envURL, b.URL)
	t.Setenv(envTokenFile, tokenFile(t, testIdentity, 0o600))
	return b
}

func (b *fakeBroker) serve(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Grants []struct{ Tool, Renew string }
	}
	var text json.RawMessage
	_ = json.NewDecoder(r.Body).Decode(&text)
	_ = json.Unmarshal(text, &body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/beat") {
		b.beats++
	} else {
		b.asked = append(b.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(text)))
	}
	if b.fail != nil {
		if status := b.fail(r, string(text)); status != 0 {
			w.WriteHeader(status)
			why := map[int]string{401: "expired_token", 403: "policy", 409: "task_ended", 503: "undecided"}[status]
			fmt.Fprintf(w, `{"error":"x","reason":%q,"decision_id":"d_1"}`, why)
			return
		}
	}
	deadline := time.Now().Add(time.Hour)
	switch {
	case r.URL.Path == "/v1/tasks":
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"task":%q,"kind":"k","owner":"corp/ci","agents":["corp/ci"],"deadline":%q,"beat":6,"state":"open"}`, testTask, deadline.UTC().Format(time.RFC3339))
	case strings.HasSuffix(r.URL.Path, "/beat"):
		fmt.Fprintf(w, `{"task":%q,"state":"open","beat":6}`, testTask)
	case strings.HasSuffix(r.URL.Path, "/end"):
		b.ended = true
		fmt.Fprintf(w, `{"task":%q,"state":"ended"}`, testTask)
	case r.URL.Path == "/v1/grants":
		var order []string
		details := map[string][]string{}
		for _, g := range body.Grants {
			server, _, _ := strings.Cut(g.Tool, "/")
			if details[server] == nil {
				order = append(order, server)
			}
			b.tokens++
			details[server] = append(details[server], fmt.Sprintf(`{"type":"urn:toolgrant:grant:1","grant_id":%q,"tool":%q,"task":%q,"ttl":%d,"expires_at":%q,"reused":false,"renewed":%q}`,
				b.grant(b.tokens), g.Tool, testTask, b.expires, time.Now().Add(time.Duration(b.expires)*time.Second).UTC().Format(time.RFC3339Nano), g.Renew))
		}
		var list []string
		for _, server := range order {
			list = append(list, fmt.Sprintf(`{"server":%q,"resource":"https://x","access_token":"token-%s-%d","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":%d,"authorization_details":[%s]}`,
				server, server, b.tokens, b.expires, strings.Join(details[server], ",")))
		}
		fmt.Fprintf(w, `{"tokens":[%s]}`, strings.Join(list, ","))
	default:
		w.WriteHeader(404)
	}
}

func (b *fakeBroker) grant(n int) string { return "g_" + strings.Repeat(string(rune('a'+n)), 26) }

// saw returns what was asked for, and whether the task was ended.
func (b *fakeBroker) saw() ([]string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.asked...), b.ended
}

// failing has f say which requests fail, with what status; it holds b.mu.
func (b *fakeBroker) failing(f func(r *http.Request, body string) int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = f
}

// toolgrantExec is toolgrant with an output that the command and toolgrant may
// write to at the same time, as to a file.
func toolgrantExec(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs syncBuffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

var execOne = []string{"exec", "--kind", "k", "--tool", "reports/export"}

func TestExecEnvironment(t *testing.T) {
	b := newFakeBroker(t)
	t.Setenv("TOOLGRANT_TOKEN_FILE_OLD", "of an exec around this one")
	got := toolgrantExec(t, "from stdin", append(execOne, "--task-ttl", "1h", "--ttl", "5m", "--max-calls", "2", "--", "sh", "-c", `
		env | grep ^TOOLGRANT_ | sort
		cat "$TOOLGRANT_TOKEN_FILE"; echo
		ls -ld "$TOOLGRANT_TOKEN_FILE" | cut -c1-10; ls -ld "$(dirname "$TOOLGRANT_TOKEN_FILE")" | cut -c1-10
		cat; echo; echo "$0 $1" >&2`, "zero", "one")...)
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	var file string
	for i, l := range lines {
		if rest, ok := strings.CutPrefix(l, "TOOLGRANT_TOKEN_FILE="); ok {
			file, lines[i] = rest, "TOOLGRANT_TOKEN_FILE=…"
		}
	}
	want := []string{"TOOLGRANT_TASK=" + testTask, "TOOLGRANT_TOKEN=token-reports-1", "TOOLGRANT_TOKEN_FILE=…", "TOOLGRANT_URL=" + b.URL,
		"token-reports-1", "-rw-------", "drwx------", "from stdin"}
	if d := cmp.Diff(want, lines); d != "" || got.code != exitDone {
		t.Errorf("code %d: %s", got.code, d)
	}
	if !strings.Contains(got.stderr, "toolgrant exec: granted: ") || !strings.HasSuffix(got.stderr, "zero one\n") || strings.Contains(got.stderr, "token-") {
		t.Error(got.stderr)
	}
	if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the files are left: %v", err)
	}
	asked, _ := b.saw()
	if d := cmp.Diff([]string{
		`POST /v1/tasks {"kind":"k","ttl":3600,"beat":6}`,
		`POST /v1/grants {"task":"` + testTask + `","grants":[{"tool":"reports/export","ttl":300,"max_calls":2}]}`,
		`POST /v1/tasks/` + testTask + `/end`,
	}, asked); d != "" {
		t.Error(d)
	}
}

func TestExecExitCodes(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken") // starts to run, and then cannot
	if err := os.WriteFile(broken, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		argv  []string
		code  int
		tasks bool // whether the broker was asked for anything
		say   string
	}{
		{[]string{"sh", "-c", "exit 0"}, 0, true, ""},
		{[]string{"sh", "-c", "exit 7"}, 7, true, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, true, ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 143, true, ""},
		{[]string{"no-such-command-anywhere"}, 127, false, "not found"},
		{[]string{"/no/such/file"}, 127, false, "no such file"},
		{[]string{plain}, 126, false, "permission denied"},
		{[]string{broken}, 127, true, "no such file"},
	} {
		b := newFakeBroker(t)
		got := toolgrantExec(t, "", append(append(execOne, "--"), tc.argv...)...)
		if got.code != tc.code || !strings.Contains(got.stderr, tc.say) {
			t.Errorf("%v: %+v, want %d and %q", tc.argv, got, tc.code, tc.say)
		}
		if asked, ended := b.saw(); (len(asked) > 0) != tc.tasks || ended != tc.tasks {
			t.Errorf("%v: asked %q, ended %v", tc.argv, asked, ended)
		}
	}
}

// A command that gets no grant does not run, and its task ends.
func TestExecRefused(t *testing.T) {
	for path, code := range map[string]int{"/v1/tasks": exitRefused, "/v1/grants": exitRefused} {
		b := newFakeBroker(t)
		b.failing(func(r *http.Request, _ string) int {
			if r.URL.Path == path {
				return 403
			}
			return 0
		})
		got := toolgrantExec(t, "", append(execOne, "--", "sh", "-c", "echo ran")...)
		if got.code != code || got.stdout != "" || !strings.Contains(got.stderr, "(policy)") {
			t.Errorf("%s: %+v", path, got)
		}
		if _, ended := b.saw(); ended != (path == "/v1/grants") {
			t.Errorf("%s: ended %v", path, ended)
		}
	}
}

func TestExecSeveralServers(t *testing.T) {
	b := newFakeBroker(t)
	got := toolgrantExec(t, "", "exec", "--kind", "k", "--tool", "re-ports.v2/export", "--tool", "bank/pay", "--tool", "bank/see",
		"sh", "-c", `cat "$TOOLGRANT_TOKEN_FILE" "$TOOLGRANT_TOKEN_FILE_RE_PORTS_V2" "$TOOLGRANT_TOKEN_FILE_BANK"; echo "$TOOLGRANT_TOKEN"`)
	if want := "token-re-ports.v2-3token-re-ports.v2-3token-bank-3token-re-ports.v2-3\n"; got.code != exitDone || got.stdout != want {
		t.Errorf("%+v\nwant %s", got, want)
	}
	// Two names that would be one.
	got = toolgrantExec(t, "", "exec", "--kind", "k", "--tool", "a-b/x", "--tool", "a.b/x", "--", "sh", "-c", "echo ran")
	if _, ended := b.saw(); got.code != exitUsage || got.stdout != "" || !ended || !strings.Contains(got.stderr, "TOKEN_FILE_A_B") {
		t.Errorf("%+v, ended %v", got, ended)
	}
}

// The token is replaced before it expires, by one that is asked for as at the
// start: the old grant is not renewed, which would end it under calls that are on
// their way. What fails is tried again. The task is kept open meanwhile.
func TestExecRenews(t *testing.T) {
	b := newFakeBroker(t)
	b.expires = 3
	failed := 0
	t.Setenv(envTokenFile, tokenFile(t, testIdentity, 0o644)) // a warning, once
	b.failing(func(r *http.Request, body string) int {
		if r.URL.Path == "/v1/grants" && b.tokens == 1 && failed == 0 {
			failed++
			return 503
		}
		b.expires = 300 // but for the first
		if r.URL.Path == "/v1/grants" && b.tokens == 0 {
			b.expires = 3
		}
		return 0
	})
	got := toolgrantExec(t, "", append(execOne, "--ttl", "3s", "--max-calls", "9", "--", "sh", "-c", `
		i=0; while [ "$(cat "$TOOLGRANT_TOKEN_FILE")" = "$TOOLGRANT_TOKEN" ] && [ $i -lt 300 ]; do i=$((i+1)); sleep 0.1; done
		cat "$TOOLGRANT_TOKEN_FILE"`)...)
	if got.code != exitDone || got.stdout != "token-reports-2" || !strings.Contains(got.stderr, "renewing the grants for reports, which end in ") || strings.Count(got.stderr, "others can read") != 1 {
		t.Errorf("%+v", got)
	}
	grant := func(rest string) string {
		return `POST /v1/grants {"task":"` + testTask + `","grants":[{` + rest + `}]}`
	}
	asked, _ := b.saw()
	if d := cmp.Diff([]string{
		grant(`"tool":"reports/export","ttl":3,"max_calls":9`),
		grant(`"tool":"reports/export","ttl":3,"max_calls":9`), // refused
		grant(`"tool":"reports/export","ttl":3,"max_calls":9`),
	}, asked[1:len(asked)-1]); d != "" {
		t.Error(d)
	}
	if b.beats == 0 {
		t.Error("no beats")
	}
}

// What was bought is given up at its end, said once, and CMD goes on.
func TestExecEndOfGrants(t *testing.T) {
	b := newFakeBroker(t)
	b.expires = 2
	b.failing(func(_ *http.Request, body string) int {
		if b.tokens > 0 && strings.Contains(body, `"grants"`) {
			return 403
		}
		return 0
	})
	got := toolgrantExec(t, "", append(execOne, "--", "sh", "-c", `sleep 3; echo on`)...)
	if got.code != exitDone || got.stdout != "on\n" || strings.Count(got.stderr, "the grants for reports are over") != 1 {
		t.Errorf("%+v", got)
	}
}

// A task that was ended elsewhere, and a broker that is away, are said once.
func TestExecBeatRefused(t *testing.T) {
	b := newFakeBroker(t)
	b.failing(func(r *http.Request, _ string) int {
		if strings.HasSuffix(r.URL.Path, "/beat") {
			return []int{503, 401, 409}[min(b.beats-1, 2)] // the identity token's file may be renewed a moment later
		}
		return 0
	})
	got := toolgrantExec(t, "", append(execOne, "--", "sh", "-c", `sleep 9`)...)
	if got.code != exitDone || strings.Count(got.stderr, "still trying") != 1 || strings.Count(got.stderr, "its calls are refused") != 1 || b.beats != 3 {
		t.Errorf("%d beats, %+v", b.beats, got)
	}
}

// TestExecKeepsItsFiles: the identity token may come by a file that the shell has
// opened; the command does not get it with the others.
func TestExecKeepsItsFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs close_range")
	}
	b := newFakeBroker(t)
	file := tokenFile(t, testIdentity, 0o600)
	program := func(args ...string) (string, error) {
		cmd := exec.Command(os.Args[0], append([]string{"exec"}, args...)...)
		cmd.Env = append(os.Environ(), asProgram+"=1", envURL+"="+b.URL)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f} // 3
		if strings.Contains(strings.Join(args, " "), "stdin") {
			cmd.Stdin = f
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := program(append([]string{"--identity-token-file", "/dev/fd/3"}, append(execOne[1:], "--", "sh", "-c", "cat <&3; cat /dev/fd/3; ls /proc/self/fd")...)...)
	if strings.Contains(out, testIdentity) {
		t.Errorf("the command got the identity token: %s %v", out, err)
	}
	if !strings.Contains(out, "granted") {
		t.Errorf("the token was not read: %s %v", out, err)
	}
	out, err = program(append([]string{"--identity-token-file", "/dev/stdin"}, append(execOne[1:], "--", "cat")...)...)
	if err == nil || strings.Contains(out, testIdentity) || !strings.Contains(out, "give a file") {
		t.Errorf("the command's own stdin: %s %v", out, err)
	}
}
