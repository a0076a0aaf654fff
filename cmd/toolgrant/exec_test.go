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
	"strings"
	"sync"
	"syscall"
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
			fmt.Fprint(w, `{"error":"x","reason":"policy","decision_id":"d_1"}`)
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

// The token is replaced before it expires, by a renewal; one that fails is
// tried again, and then asks as at the start. The task is kept open meanwhile.
func TestExecRenews(t *testing.T) {
	b := newFakeBroker(t)
	b.expires = 3
	failed := 0
	t.Setenv(envTokenFile, tokenFile(t, testIdentity, 0o644)) // a warning, once
	b.failing(func(r *http.Request, body string) int {
		if strings.Contains(body, `"renew"`) && failed == 0 {
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
		grant(`"tool":"reports/export","ttl":3,"renew":"` + b.grant(1) + `"`),
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
			return []int{503, 503, 403}[min(b.beats-1, 2)]
		}
		return 0
	})
	got := toolgrantExec(t, "", append(execOne, "--", "sh", "-c", `sleep 9`)...)
	if got.code != exitDone || strings.Count(got.stderr, "still trying") != 1 || strings.Count(got.stderr, "its calls are refused") != 1 || b.beats != 3 {
		t.Errorf("%d beats, %+v", b.beats, got)
	}
}

// program starts toolgrant in a process and a session of its own, where no
// terminal sends signals.
func program(t *testing.T, args ...string) (*exec.Cmd, *syncBuffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second // what it started may still hold the pipes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tooLong := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() }) // so that no Wait hangs
	t.Cleanup(func() { tooLong.Stop(); _ = cmd.Process.Kill() })
	return cmd, out
}

// eventually waits for a condition, with a deadline that only a fault reaches.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: it never came to that", what)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// Signals go on to the command, whose exit code counts; and one that ignores
// them goes on, with its task.
func TestExecSignals(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT} {
		b := newFakeBroker(t)
		cmd, out := program(t, append(execOne, "--", "sh", "-c",
			`n=0; trap 'n=$((n+1)); echo got $n; [ $n -lt 2 ] || exit 42' `+name+`; echo ready; while :; do sleep 0.05; done`)...)
		for _, want := range []string{"ready", "got 1"} {
			eventually(t, name+" "+want, func() bool { return strings.Contains(out.String(), want) })
			if _, ended := b.saw(); ended {
				t.Errorf("%s: the task was ended while the command ran", name)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait()
		if _, ended := b.saw(); cmd.ProcessState.ExitCode() != 42 || !ended {
			t.Errorf("%s: %v, ended %v\n%s", name, cmd.ProcessState, ended, out)
		}
	}
}

// A signal before the command has begun: it does not begin, and its task ends.
func TestExecInterruptedBefore(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		b := newFakeBroker(t)
		hold := make(chan struct{})
		asked := make(chan struct{}, 1)
		b.failing(func(r *http.Request, _ string) int {
			if r.URL.Path == "/v1/grants" {
				asked <- struct{}{}
				b.mu.Unlock()
				<-hold
				b.mu.Lock()
			}
			return 0
		})
		cmd, out := program(t, append(execOne, "--", "sh", "-c", "echo ran")...)
		<-asked
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
		close(hold)
		if _, ended := b.saw(); cmd.ProcessState.ExitCode() != exitFailed || !ended || strings.Contains(out.String(), "ran\n") {
			t.Errorf("%s: %v, ended %v\n%s", sig, cmd.ProcessState, ended, out)
		}
	}
}

// When exec is killed, the beats stop and the kernel tells the command; what it
// left is taken away by the next one.
func TestExecKilled(t *testing.T) {
	b := newFakeBroker(t)
	t.Setenv("TMPDIR", t.TempDir())
	cmd, out := program(t, append(execOne, "--", "sh", "-c", `trap 'echo told; exit' TERM; echo "file $TOOLGRANT_TOKEN_FILE"; while :; do sleep 0.05; done`)...)
	eventually(t, "it runs", func() bool { return strings.Contains(out.String(), "file ") })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command is told", func() bool { return strings.Contains(out.String(), "told") })
	_ = cmd.Wait()
	if _, ended := b.saw(); ended {
		t.Error("who was killed ended the task")
	}
	_, file, _ := strings.Cut(out.String(), "file ")
	file, _, _ = strings.Cut(file, "\n")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("it was left by a process that was killed: %v", err)
	}
	if got := toolgrantExec(t, "", append(execOne, "--", "true")...); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
