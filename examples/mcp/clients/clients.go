// Package clients runs the example's clients: the same program five times, of which
// each reads steps from its input and answers each with a line of JSON (see
// python/client.py). The files to copy into a client of one's own are in the
// folders: task.go, toolgrant_task.py and task.ts.
package clients

import (
	"bufio"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/toolgrant/toolgrant/examples/mcp/peers"
	"github.com/toolgrant/toolgrant/examples/stage"
)

//go:embed python typescript
var files embed.FS

// The SDKs.
const (
	Go          = "go"          // Go SDK 1.8
	Python      = "python"      // mcp 2.x
	Python1     = "python1"     // mcp 1.x
	TypeScript  = "typescript"  // @modelcontextprotocol/client 2.x
	TypeScript1 = "typescript1" // @modelcontextprotocol/sdk 1.x
)

// All returns every SDK.
func All() []string { return []string{Go, Python, Python1, TypeScript, TypeScript1} }

// Speaks reports whether the SDK's client can speak a revision. The 1.x of Python and
// TypeScript know none without sessions.
func Speaks(sdk, revision string) bool {
	return revision < "2026-07-28" || sdk != Python1 && sdk != TypeScript1
}

// Shelf is a folder from which the clients run.
type Shelf struct {
	dir      string
	parts    peers.Folder
	goClient string
}

// Lay writes the clients' files into dir, which exists and belongs to the caller.
// goClient is the program that `go build` makes of the folder go.
func Lay(dir string, parts peers.Folder, goClient string) (*Shelf, error) {
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, path), 0o700)
		}
		text, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, path), text, 0o600)
	})
	if err != nil {
		return nil, err
	}
	return &Shelf{dir, parts, goClient}, parts.Modules(filepath.Join(dir, "typescript"))
}

// Command returns the client of an SDK for the MCP server at url. revision is what
// it shall speak at most; env is added to its environment.
func (s *Shelf) Command(sdk, url, revision string, env ...string) *exec.Cmd {
	var cmd *exec.Cmd
	switch sdk {
	case Go:
		cmd = exec.Command(s.goClient, url, revision)
	case Python:
		cmd = s.parts.Python(2, filepath.Join(s.dir, "python/client.py"), url, revision)
	case Python1:
		cmd = s.parts.Python(1, filepath.Join(s.dir, "python/client1.py"), url)
	case TypeScript:
		cmd = s.parts.Node(filepath.Join(s.dir, "typescript/client.ts"), url, revision)
	case TypeScript1:
		cmd = s.parts.Node(filepath.Join(s.dir, "typescript/client1.ts"), url)
	default:
		panic("no SDK " + sdk)
	}
	cmd.Env = append(cmd.Environ(), env...)
	return cmd
}

// Answer is what a client says of one step.
type Answer struct {
	OK    *string         // what came; nil: Error
	Error string          // what the SDK says
	Data  json.RawMessage // data of the JSON-RPC error, if the SDK hands it on
}

func (a Answer) String() string {
	if a.OK != nil {
		return "ok: " + *a.OK
	}
	return "error: " + a.Error + " " + string(a.Data)
}

// Session is a client that runs.
type Session struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan []byte // closed when the client has ended
	stderr  tail

	waited error // read after answers is closed
}

// stepWithin bounds a step, and the client's start with it.
const stepWithin = 60 * time.Second

// Open starts a client. Close must be called.
func Open(cmd *exec.Cmd) (*Session, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s := &Session{cmd: cmd, in: in, answers: make(chan []byte)}
	cmd.Stderr = &s.stderr
	cmd.SysProcAttr = stage.DieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			s.answers <- append([]byte(nil), lines.Bytes()...)
		}
		s.waited = cmd.Wait()
		close(s.answers)
	}()
	return s, nil
}

// Do has the client do a step. An error says that the client has ended, or does not
// answer, with what it wrote to its standard error.
func (s *Session) Do(step string) (Answer, error) {
	_, _ = io.WriteString(s.in, step+"\n") // fails if it has ended, and how is said below
	select {
	case line, ok := <-s.answers:
		if !ok {
			return Answer{}, fmt.Errorf("the client ended at %q: %v\n%s", step, s.waited, s.stderr.String())
		}
		var a Answer
		if err := json.Unmarshal(line, &a); err != nil {
			return Answer{}, fmt.Errorf("the client answered %q: %w", line, err)
		}
		return a, nil
	case <-time.After(stepWithin):
		return Answer{}, fmt.Errorf("the client did not answer %q within %v\n%s", step, stepWithin, s.stderr.String())
	}
}

// Stderr returns the end of what the client wrote to its standard error so far.
func (s *Session) Stderr() string { return s.stderr.String() }

// Close ends the client, and says how it ended: it must end by itself when its
// input does.
func (s *Session) Close() error {
	_ = s.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	for range s.answers {
	}
	if s.waited != nil {
		return fmt.Errorf("%w\n%s", s.waited, s.stderr.String())
	}
	return nil
}

// tail keeps the last of what was written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-8<<10):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
