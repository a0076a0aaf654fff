package main

import (
	"strings"
	"testing"
)

// Exit code 2, a line or two that say what to write, no wall of usage, and
// nothing sent.
func TestMisuse(t *testing.T) {
	last := startBroker(t, 0, "")
	dir := t.TempDir()
	noCatalogue := writeConfig(t, leastConfig)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"tsk"}, `unknown command "tsk"; did you mean task?`},
		{[]string{"tas", "start"}, `unknown command "tas"`},
		{[]string{"--nope"}, "unknown flag: --nope"},
		{[]string{"task"}, "say what to do: end or list or show or start"},
		{[]string{"task", "stop"}, `unknown command "stop"`},
		{[]string{"task", "start"}, "--kind is missing"},
		{[]string{"task", "start", "--kind", "k", "more"}, `unexpected operand "more"`},
		{[]string{"task", "start", "--kind", "k", "--ttl", "0"}, "write a time above zero"},
		{[]string{"task", "start", "--kind", "k", "--ttl", "-1h"}, "write a time above zero"},
		{[]string{"task", "start", "--kind", "k", "--ttl", "90"}, "with its unit"},
		{[]string{"task", "start", "--kind", "k", "--ttl", "1500ms"}, "whole seconds"},
		{[]string{"task", "start", "--kind", "k", "--url", "http://broker.example"}, "loopback only"},
		{[]string{"task", "start", "--kind", "k", "--url", "broker"}, "https://"},
		{[]string{"task", "end"}, "TASK is missing"},
		{[]string{"task", "end", testTask, testTask}, "unexpected operand"},
		{[]string{"task", "end", "../x"}, "not a task id"},
		{[]string{"task", "end", testGrant}, "not a task id"},
		{[]string{"task", "start", "--kind", "k", "--beat", "1500ms"}, "whole seconds"},
		{[]string{"task", "show"}, "TASK is missing"},
		{[]string{"task", "show", testGrant}, "not a task id"},
		{[]string{"task", "list", "x"}, "unexpected operand"},
		{[]string{"grants", "x"}, "unexpected operand"},
		{[]string{"grants", "--task", "x"}, "not a task id"},
		{[]string{"revoke"}, "GRANT is missing"},
		{[]string{"revoke", testGrant, testGrant}, "unexpected operand"},
		{[]string{"revoke", testGrant, "--agent", "a/b"}, "not several"},
		{[]string{"revoke", "--tool", "a/b", "--agent", "a/b"}, "not several"},
		{[]string{"revoke", "--agent", ""}, "not named"},
		{[]string{"revoke", "--task", "x"}, "not a task id"},
		{[]string{"revoke", testTask}, "not a grant id"},
		{[]string{"grant", "--tool", "a/b"}, "--task is missing"},
		{[]string{"grant", "--task", testTask}, "--tool is missing"},
		{[]string{"grant", "--task", "t_1", "--tool", "a/b"}, "not a task id"},
		{[]string{"grant", "--task", testTask, "--tool", "ab"}, "write SERVER/TOOL"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--tool", "c/d", "--header"}, "of a, c"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--header-name", "X"}, "goes with --header"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--header", "--header-name", "X\r\nY: z"}, "name of an HTTP header"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--renew", "x"}, "not a grant id"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--tool", "a/c", "--renew", testGrant}, "one --tool"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-sum", "/a"}, "POINTER=SUM"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-sum", "a=1"}, "JSON Pointer"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-sum", "/a=1.00001"}, "4 decimals"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-sum", "/a=1", "--max-sum", "/a=2"}, "there twice"},
		{[]string{"exec", "--tool", "a/b", "--", "true"}, "--kind is missing"},
		{[]string{"exec", "--kind", "k", "--ttl", "5m", "--", "true"}, "--tool is missing"},
		{[]string{"exec", "--kind", "k", "--param", "x", "--", "true"}, "write NAME=TEXT"},
		{[]string{"task", "start", "--kind", "k", "--param", "x:=y"}, "is not JSON; a text is written x=TEXT"},
		{[]string{"task", "start", "--kind", "k", "--param", "x=1", "--param", "x:=1"}, "x is there twice"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--tool", "a/c", "--input", "{}"}, "one --tool"},
		{[]string{"manifest"}, "say what to do: check or explain or suggest"},
		{[]string{"manifest", "check", "a", "b"}, "one folder at most"},
		{[]string{"policy", "replay"}, "--policies is missing"},
		{[]string{"exec", "--kind", "k", "--tool", "a/b"}, "CMD is missing"},
		{[]string{"exec", "--kind", "k", "--tool", "a/b", "--identity-token-file", "-", "--", "true"}, "CMD's, too"},
		{[]string{"exec", "--kind", "k", "--tool", "a/b", "--tool", "c/d", "--proxy", "http://127.0.0.1:1", "--", "true"}, "of a, c"},
		{[]string{"exec", "--kind", "k", "--tool", "a/b", "--header-name", "X", "--", "true"}, "goes with --proxy"},
		{[]string{"exec", "--kind", "k", "--tool", "a/b", "--proxy", "http://10.0.0.1:1", "--", "true"}, "loopback only"},
		{[]string{"exec", "--kind", "k", "--tool", "a/b", "--proxy", "https://x.example/path", "--", "true"}, "origin alone"},
		{[]string{"token", "inspect", "a", "b"}, "unexpected operand"},
		{[]string{"token", "inspect", "--jwks", "x"}, "go together"},
		{[]string{"token", "inspect", dir + "/none"}, "no such file"},
		{[]string{"policy"}, "say what to do: check or example-input or explain or replay or schema or shadow or test"},
		{[]string{"policy", "check", "--config", noCatalogue}, "tools.yaml"},
		{[]string{"policy", "example-input"}, "ACTION is missing"},
		{[]string{"policy", "example-input", "grnt", "--config", "../../examples/reports/toolgrant.yaml"}, `no action "grnt"`},
		{[]string{"explain"}, "DECISION is missing"},
		{[]string{"explain", "d_1", "--audit", "a", "--config", "b"}, "choose one"},
		{[]string{"explain", "d_1", "--audit", dir + "/none"}, "no such file"},
		{[]string{"dev", "--port", "65532", "--envoy", "sh", "--keep", dir}, "from 1 to 65531"},
		{[]string{"dev", "--port", "80000"}, "from 1 to 65531"},
		{[]string{"dev", "--port", "x"}, "from 1 to 65531"},
		{[]string{"dev", "--envoy", dir + "/none"}, "the Envoy to run"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--tool", "a/b"}, "there twice"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--json", "--header"}, "choose one"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-calls", "0"}, "1 or more"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-calls", "-1"}, "1 or more"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--max-calls", "abc"}, "a whole number"},
		{[]string{"grants", "--json=abc"}, "--json takes no value"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--constraint", "{"}, "not a JSON object"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--constraint", "[]"}, "not a JSON object"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--constraint", "null"}, "not a JSON object"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--constraint", `{"a":1,"a":2}`}, "not a JSON object"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--constraint", "@" + dir + "/none"}, "no such file"},
		{[]string{"grant", "--task", testTask, "--tool", "a/b", "--constraint", strings.Repeat(" ", maxConstraint) + "{}"}, "longer than"},
		{[]string{"identity", "--agent", "a"}, "--dir is missing"},
		{[]string{"identity", "--dir", dir}, "--agent is missing"},
		{[]string{"envoy", "--config", dir + "/none.yaml"}, "none.yaml: no such file"},
		{[]string{"envoy", "--config", noCatalogue}, "tools.yaml"},
		{[]string{"audit"}, "say what to do: verify"},
		{[]string{"audit", "verify"}, "FILE is missing"},
		{[]string{"audit", "verify", dir + "/none"}, "no such file"},
		{[]string{"version", "x"}, "unexpected operand"},
		{[]string{"serve", "x"}, `unknown command "x"`}, // cobra's own words
		{[]string{"completion"}, "say what to do"},
		{[]string{"completion", "tcsh"}, `unknown command "tcsh"`},
	} {
		got := toolgrant(t, "", tc.args...)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, tc.want) {
			t.Errorf("%v: %+v\nwant %s", tc.args, got, tc.want)
		}
		if strings.Contains(got.stderr, "strconv") {
			t.Errorf("%v: Go's own words: %s", tc.args, got.stderr)
		}
		if strings.Count(got.stderr, "\n") > 2 || strings.Contains(got.stderr, "Usage:") {
			t.Errorf("%v: a wall:\n%s", tc.args, got.stderr)
		}
	}
	if last.Method != "" {
		t.Errorf("sent %s %s", last.Method, last.URL)
	}
}
