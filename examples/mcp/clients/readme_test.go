package clients_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/examples/mcp/clients"
)

// The README's diffs are what the clients differ in from clients that know nothing
// of toolgrant: without the lines of a diff, and without the file to copy, the client
// runs, and shows no token.
func TestTheReadmesDiffsAreTrue(t *testing.T) {
	diffs := readDiffs(t, "../README.md")
	for sdk, file := range map[string]string{
		clients.Go: "clients/go/main.go", clients.Python: "clients/python/client.py", clients.TypeScript: "clients/typescript/client.ts",
	} {
		t.Run(sdk, func(t *testing.T) {
			d, ok := diffs[file]
			if !ok {
				t.Fatalf("the README has no diff of %s", file)
			}
			if d.added > 5 {
				t.Errorf("%d lines are added: the README promises about five", d.added)
			}
			text, err := os.ReadFile(filepath.Join("..", file))
			if err != nil {
				t.Fatal(err)
			}
			plain := string(text)
			for _, h := range d.hunks {
				if strings.Count(plain, h.after) != 1 {
					t.Fatalf("%s does not hold, once, what the diff adds:\n%s", file, h.after)
				}
				plain = strings.Replace(plain, h.after, h.before, 1)
			}
			url, l := servers["go"](t)
			c := open(t, without(t, sdk, plain, url))
			do(t, c, aNote, "ok: ship the report")
			if ran := strings.Join(l.ran(), "\n"); ran != "tool=read_note authorization=false note=work/standup" {
				t.Error(ran)
			}
		})
	}
}

// without returns the client of an SDK with another main file, and without the file
// that is to be copied.
func without(t *testing.T, sdk, main, url string) *exec.Cmd {
	t.Helper()
	lay(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "go-client")
	s, err := clients.Lay(dir, folder, program)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	remove := func(name string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	switch sdk {
	case clients.Python:
		write("python/client.py", main)
		remove("python/toolgrant_task.py")
	case clients.TypeScript:
		write("typescript/client.ts", main)
		remove("typescript/task.ts")
	case clients.Go:
		here, err := filepath.Abs("go")
		if err != nil {
			t.Fatal(err)
		}
		overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{ // "": there is no such file
			filepath.Join(here, "main.go"): write("main.go", main), filepath.Join(here, "task.go"): "",
		}})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("go", "build", "-overlay", write("overlay.json", string(overlay)), "-o", program, "./go").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return s.Command(sdk, url, "2026-07-28", "TOOLGRANT_TASK=", "TOOLGRANT_BASELINE_TOKEN_FILE=")
}

// diff is how a file differs from one that knows nothing of toolgrant.
type diff struct {
	added int // lines with words in them
	hunks []hunk
}

type hunk struct{ before, after string }

// readDiffs reads the ```diff blocks of a Markdown file, by the file that they are of.
func readDiffs(t *testing.T, path string) map[string]diff {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	diffs := map[string]diff{}
	for _, block := range strings.Split(string(text), "```diff\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		var d diff
		var file string
		for line := range strings.Lines(block) {
			switch mark, rest := line[0], line[1:]; {
			case strings.HasPrefix(line, "+++ b/"):
				file = strings.TrimSpace(strings.TrimPrefix(line, "+++ b/"))
			case strings.HasPrefix(line, "--- "):
			case strings.HasPrefix(line, "@@"):
				d.hunks = append(d.hunks, hunk{})
			default:
				h := &d.hunks[len(d.hunks)-1]
				if mark != '+' {
					h.before += rest
				}
				if mark != '-' {
					h.after += rest
				}
				if mark == '+' && strings.TrimSpace(rest) != "" {
					d.added++
				}
			}
		}
		diffs[file] = d
	}
	return diffs
}

// The TypeScript is TypeScript: a compiler finds nothing wrong with its types.
func TestTypes(t *testing.T) {
	dir := t.TempDir()
	lay(t)
	if _, err := clients.Lay(dir, folder, ""); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "typescript")
	if out, err := folder.Node(filepath.Join(dir, "node_modules/typescript/bin/tsc"), "-p", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
