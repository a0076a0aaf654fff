// Package peers runs the real MCP parts that `make mcp` has installed: the SDKs of
// Python (1.x and 2.x) and TypeScript (1.x and 2.x, on Node.js 22), the Go SDK's
// server for the conformance suite, and that suite.
//
// The commands of a Folder are for anybody; the rest is for tests. What is missing
// fails the test and never skips it. What is started is bounded and lives no longer
// than the test: it is ended by its id in a cleanup, and by the kernel if the test
// process dies first.
package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Folder is where the parts are, an absolute path.
type Folder string

// Find returns $TOOLGRANT_MCP_PEERS or .mcp in the module's root. The test fails if
// there is neither.
func Find(t testing.TB) Folder {
	t.Helper()
	dir := os.Getenv("TOOLGRANT_MCP_PEERS")
	if dir == "" {
		wd, err := os.Getwd() // go test sets it to the package's folder
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(moduleRoot(wd), ".mcp")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "stamp")); err != nil {
		t.Fatalf("no MCP parts to test with (%v): run `make mcp`", err)
	}
	return Folder(dir)
}

// moduleRoot walks up to the folder that holds go.mod; "" if there is none.
func moduleRoot(dir string) string {
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// Python returns a command that runs a script with the MCP SDK 1.x or 2.x (major is
// 1 or 2) and no other package of the machine's.
func (f Folder) Python(major int, script string, args ...string) *exec.Cmd {
	// -S: no site-packages; what is in PYTHONPATH is complete.
	cmd := exec.Command(filepath.Join(string(f), "bin", "python3"), append([]string{"-S", "-u", script}, args...)...)
	cmd.Env = append(os.Environ(),
		"PYTHONPATH="+filepath.Join(string(f), "python", fmt.Sprint(major)), "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

// Node returns a command that runs a script, in JavaScript or in TypeScript whose
// types can be erased. Its imports are found where Node.js looks for them, beside
// the script: see Modules.
func (f Folder) Node(script string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(string(f), "bin", "node"), append([]string{"--disable-warning=ExperimentalWarning", script}, args...)...)
}

// Modules makes dir a place where scripts find the packages: Node.js resolves
// imports from the folder of the file that imports, and NODE_PATH does not hold for
// ES modules.
func (f Folder) Modules(dir string) error {
	return os.Symlink(filepath.Join(string(f), "node_modules"), filepath.Join(dir, "node_modules"))
}

// Everything returns a command that serves the Go SDK's server for the conformance
// suite at http://ADDR (any path), by revisions up to 2026-07-28: with sessions, or
// without.
func (f Folder) Everything(addr string, sessions bool) *exec.Cmd {
	return exec.Command(filepath.Join(string(f), "bin", "everything-server"), "-http", addr, fmt.Sprintf("-stateless=%t", !sessions))
}

// Conformance returns a command of the conformance suite, such as
// "server", "--url", URL, "--scenario", NAME, "--spec-version", REVISION.
func (f Folder) Conformance(args ...string) *exec.Cmd {
	return f.Node(filepath.Join(string(f), "node_modules/@modelcontextprotocol/conformance/dist/index.js"), args...)
}
