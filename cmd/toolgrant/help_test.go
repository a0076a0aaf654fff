package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/grants"
)

// Every command has help that teaches by example and says the exit codes.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		path := strings.Fields(cmd.CommandPath())[1:]
		if cmd.Name() == "help" || len(path) > 0 && path[0] == "completion" { // cobra's own
			return
		}
		got := toolgrant(t, "", append(path, "--help")...)
		codes := "Exit codes:\n  0  done"
		if cmd.Name() == "exec" {
			codes = "Exit codes:\n  CMD's own; "
		}
		if got.code != exitDone || got.stderr != "" || strings.Count(got.stdout, "Exit codes:") != 1 || !strings.Contains(got.stdout, codes) {
			t.Errorf("%v: %+v", path, got)
		}
		if !cmd.HasSubCommands() && !strings.Contains(got.stdout, "Examples:\n  ") {
			t.Errorf("%v: no example", path)
		}
		if cmd.Short == "" {
			t.Errorf("%v: no short description", path)
		}
		for line := range strings.Lines(cmd.Long) {
			if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > 88 {
				t.Errorf("%v: %d letters in a line: %s", path, n, line)
			}
		}
	}
	walk(rootCommand(nil, nil, nil))
	if got := toolgrant(t, ""); got.code != exitDone || !strings.Contains(got.stdout, "Available Commands") {
		t.Errorf("no arguments: %+v", got)
	}
	if got := toolgrant(t, "", "completion", "bash"); got.code != exitDone || !strings.Contains(got.stdout, "toolgrant") {
		t.Errorf("completion: %+v", got)
	}
}

// The constraint that the help shows is in the profile, and means what it says.
func TestHelpConstraint(t *testing.T) {
	_, text, _ := strings.Cut(grantCommand().Example, "<<'END'\n")
	text, _, _ = strings.Cut(text, "END")
	c, err := grants.CompileConstraint([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	input := func(month string) any {
		return map[string]any{"query": map[string]any{"format": "csv"}, "body": map[string]any{"month": month}}
	}
	if err := c.Check(input("2026-06")); err != nil {
		t.Error(err)
	}
	if c.Check(input("2026-07")) == nil {
		t.Error("another month passes")
	}
}
