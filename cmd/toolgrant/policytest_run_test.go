package main

import (
	"context"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Nothing of a run stays: no key, no audit log, no temporary file.
func TestPolicyTestLeavesNothing(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	writeTests(t, dir, reportsStory)
	before := allFiles(t, dir)
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	if now := allFiles(t, dir); !slices.Equal(before, now) {
		t.Errorf("before %q\nafter %q", before, now)
	}
	if left := allFiles(t, temp); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func allFiles(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && path != dir {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPolicyTestJUnit(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: passes <&>\n  start_task: {agent: planner, kind: monthly-report}\n  expect: allow\n- name: \"fails \\\"x\\\"\"\n  start_task: {agent: bot, kind: monthly-report}\n  expect: allow\n")
	file := filepath.Join(dir, "report.xml")
	got := toolgrant(t, "", "policy", "test", "--config", config, "--junit", file)
	text, err := os.ReadFile(file)
	if got.code != exitFailed || err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	var all junitSuites
	if err := xml.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if all.Tests != 2 || all.Failures != 1 || len(all.Suites) != 1 || all.Suites[0].Tests != 2 || all.Suites[0].Failures != 1 {
		t.Fatalf("%s", text)
	}
	pass, fail := all.Suites[0].Cases[0], all.Suites[0].Cases[1]
	if pass.Name != "passes <&>" || pass.Failure != nil || fail.Name != `fails "x"` || fail.Failure == nil || !strings.Contains(fail.Failure.Message, "expected allow; got deny (policy)") || fail.Line != 10 {
		t.Errorf("%s", text)
	}
	if got := toolgrant(t, "", "policy", "test", "--config", config, "--junit", filepath.Join(dir, "none", "r.xml")); got.code != exitFailed || !strings.Contains(got.stderr, "--junit") {
		t.Errorf("%+v", got)
	}
}

// Tests run again when what they rest on changes, and when that is mended.
func TestPolicyTestWatch(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: starts\n  start_task: {agent: planner, kind: monthly-report}\n  expect: allow\n")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs syncBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"policy", "test", "--watch", "--config", config}, strings.NewReader(""), &out, &errs)
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) { // between two looks
			if time.Now().After(deadline) {
				t.Fatalf("%s: it never came; stdout %s, stderr %s", what, out.String(), errs.String())
			}
		}
	}
	until("the first run", func() bool { return strings.Contains(out.String(), "1 passed, 0 failed") })
	policy := filepath.Join(dir, "policies", "issue.cedar")
	edit(t, policy, "context.task.owner == principal", "context.task.owner != principal")
	until("a policy changed", func() bool { return strings.Contains(out.String(), "0 passed, 1 failed") })
	edit(t, filepath.Join(dir, "tests", "a.yaml"), "expect: allow", "expect: deny")
	until("a test changed", func() bool { return strings.Count(out.String(), "1 passed, 0 failed") == 2 })
	edit(t, policy, "context.task.owner != principal", "context.task.ovner != principal")
	until("a fault", func() bool { return strings.Contains(errs.String(), "ovner") })
	edit(t, policy, "context.task.ovner != principal", "context.task.owner == principal")
	until("it is mended", func() bool { return strings.Count(out.String(), "0 passed, 1 failed") == 2 })
	stop()
	if code := <-ended; code != exitDone {
		t.Errorf("code %d, stderr %s", code, errs.String())
	}
}

// With another engine there are no policies to test.
func TestPolicyTestOtherEngine(t *testing.T) {
	dir, config := exampleDir(t, "reports")
	writeTests(t, dir, reportsAgents+"- name: starts\n  start_task: {agent: planner, kind: monthly-report}\n  expect: allow\n")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "\npdp: {engine: opa, url: \"http://127.0.0.1:1/v1/data/toolgrant\"}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitUsage || !strings.Contains(got.stderr, "pdp decides") {
		t.Errorf("%+v", got)
	}
}
