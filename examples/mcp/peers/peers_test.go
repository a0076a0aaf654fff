package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The parts are those that are pinned, and no other package of the machine's.
func TestParts(t *testing.T) {
	f := Find(t)
	version := script(t, "version.py", "import importlib.metadata, mcp, sys; print(importlib.metadata.version('mcp'), *[p for p in sys.path if 'site-packages' in p])")
	for major, want := range map[int]string{1: "1.30.0\n", 2: "2.3.0\n"} {
		if got, err := Run(t, f.Python(major, version)); err != nil || got != want {
			t.Errorf("Python, mcp %d.x: %q, %v; want %q", major, got, err, want)
		}
	}
	modules := script(t, "modules.ts", `
import { LATEST_PROTOCOL_VERSION as v1 } from '@modelcontextprotocol/sdk/types.js';
import { Client } from '@modelcontextprotocol/client';
const node: string = process.version.split('.')[0]!;
console.log(node, v1, typeof Client);
`)
	if err := f.Modules(filepath.Dir(modules)); err != nil {
		t.Fatal(err)
	}
	if got, err := Run(t, f.Node(modules)); err != nil || got != "v22 2025-11-25 function\n" {
		t.Errorf("Node.js: %q, %v", got, err)
	}
	if got, err := Run(t, f.Conformance("list")); err != nil || !strings.Contains(got, "- http-header-validation [2026-07-28]") {
		t.Errorf("conformance list: %q, %v", got, err)
	}
}

// The Go SDK's server passes the suite in both ways of serving, and lives no longer
// than its test.
func TestEverythingServer(t *testing.T) {
	f := Find(t)
	for scenario, sessions := range map[string]bool{"server-initialize": true, "http-header-validation": false} {
		var p *Process
		t.Run(scenario, func(t *testing.T) {
			addr := FreeAddr(t)
			p = Serve(t, f.Everything(addr, sessions), addr)
			cmd := f.Conformance("server", "--url", "http://"+addr+"/mcp", "--scenario", scenario, "--output-dir", t.TempDir())
			if out, err := Run(t, cmd); err != nil || !strings.Contains(out, "0 failed") {
				t.Errorf("%v\n%s", err, out)
			}
		})
		select {
		case <-p.Done():
		default:
			t.Error("the server outlived its test")
		}
	}
}
