package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// One rule for all: the flag, else the folder of dev, else this one.
func TestConfigFlag(t *testing.T) {
	t.Setenv(envDevDir, "")
	for _, tc := range []struct{ flag, dev, want string }{
		{"", "", "toolgrant.yaml"}, {"", "/d", "/d/toolgrant.yaml"}, {"a.yaml", "", "a.yaml"}, {"a.yaml", "/d", "a.yaml"},
	} {
		t.Setenv(envDevDir, tc.dev)
		if got := (&configFlag{file: tc.flag}).path(); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
	dir := t.TempDir()
	t.Setenv(envDevDir, dir)
	for _, args := range [][]string{{"envoy"}, {"serve", "--check"}, {"ready"}, {"keys", "add"}, {"policy", "check"}, {"policy", "schema"}, {"explain", "d_1"}} {
		if got := toolgrant(t, "", args...); got.code != exitUsage || !strings.Contains(got.stderr, filepath.Join(dir, "toolgrant.yaml")) {
			t.Errorf("%v: %+v", args, got)
		}
	}
	text := leastConfig + "keys: {dir: here}\n"
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "here"), 0o700), os.WriteFile(filepath.Join(dir, "toolgrant.yaml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	// The first start has yet to make a key there.
	if got := toolgrant(t, "", "keys", "add"); got.code != exitUsage || !strings.Contains(got.stderr, filepath.Join(dir, "here")+" holds none yet") {
		t.Errorf("%+v", got)
	}
}

// A shell is offered files where a file is meant, and nothing with the quotes
// of placeholders in it.
func TestCompletion(t *testing.T) {
	const anyFile, noFile, folder = ":0\n", ":4\n", ":16\n"
	for want, lines := range map[string][]string{
		anyFile: {"audit verify", "token inspect", "token inspect --jwks", "exec --kind k --tool a/b --", "grant --identity-token-file", "policy check --config", "serve --config", "dev --envoy", "explain --audit"},
		noFile: {
			"task show", "task end", "task start --kind", "explain", "revoke", "grant --tool", "grant --task", "grant --ttl", "grant --max-calls",
			"grants --agent", "exec --tool", "grant", "identity --agent", "token inspect --issuer", "dev --port", "task", "version",
		},
		folder: {"dev --keep", "identity --dir"},
	} {
		for _, line := range lines {
			got := toolgrant(t, "", append(append([]string{cobra.ShellCompRequestCmd}, strings.Fields(line)...), "")...)
			if got.code != exitDone || !strings.HasSuffix("\n"+got.stdout, "\n"+want) {
				t.Errorf("%s: %+v", line, got)
			}
		}
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		got := toolgrant(t, "", append(append([]string{cobra.ShellCompRequestCmd}, strings.Fields(cmd.CommandPath())[1:]...), "--")...)
		if strings.Contains(got.stdout, "`") {
			t.Errorf("%s: a backquote: %s", cmd.CommandPath(), got.stdout)
		}
	}
	walk(rootCommand(nil, nil, nil))
	if got := toolgrant(t, "", cobra.ShellCompRequestCmd, "grant", "--tool"); !strings.Contains(got.stdout, "SERVER/TOOL to grant") {
		t.Errorf("%+v", got)
	}
}
