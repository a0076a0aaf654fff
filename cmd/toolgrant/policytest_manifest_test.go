package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// What a manifest says of a grant is in the question, as the broker puts it there.
func TestPolicyTestManifest(t *testing.T) {
	dir, config := exampleDir(t, "bank")
	writeTests(t, dir, `
agents: {clerk: {id: corp/clerk}, front: {id: corp/front, groups: [front-ends]}}
tests:
- name: narrower than asked
  grant: {agent: clerk, tool: bank/send_money, task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}, ttl: 10m, max_calls: 2, max_sum: {/amount: 2}}
  expect: allow
- name: not in it
  grant: {agent: clerk, tool: bank/change_password, task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}
  expect: deny
  reason: manifest
- name: parameters that it does not take
  start_task: {agent: front, kind: pay-bill, params: {recipient: a, limit: 10001}}
  expect: deny
  reason: bad_request
- name: none, where it has some
  start_task: {agent: front, kind: pay-bill}
  expect: deny
  reason: bad_request
- name: another recipient
  call: {agent: clerk, tool: bank/send_money, input: {recipient: b, amount: 1, subject: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}}
  expect: deny
  reason: constraint
- name: the same one
  call: {agent: clerk, tool: bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}}
  expect: allow
- name: a call under a grant that its manifest does not have
  call: {agent: clerk, tool: bank/change_password, input: {password: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}}
  expect: deny
  reason: manifest
  by: []
- name: a message under such a grant
  mcp: {agent: clerk, server: bank, method: resources/read, input: {uri: "x:y"}, grant: {tool: bank/wire, task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}}}
  expect: deny
  reason: manifest
- name: a call under all that its manifest has
  call: {agent: clerk, tool: bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}, age: 1m, ttl: 1m}}
  expect: allow
- name: and under what is left of it
  call: {agent: clerk, tool: bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}, age: 119s}}
  expect: allow
- name: late in a task
  call: {agent: clerk, tool: bank/get_iban, input: {name: a}, grant: {task: {kind: pay-bill, owner: front, params: {recipient: a, limit: 3}}, age: 9m}}
  expect: allow
- name: under a one-time grant of this call
  call: {agent: clerk, tool: bank/wire, input: {iban: x, amount: 3}, grant: {task: {kind: settle-account, owner: front}}}
  expect: allow
- name: one call each, of which no input is said
  grant: {agent: clerk, requester: front, tool: bank/wire, task: {kind: settle-account}}
  expect: deny
  reason: bad_request
- name: with its input
  grant: {agent: clerk, requester: front, tool: bank/wire, task: {kind: settle-account}, input: {iban: x, amount: 3}}
  expect: allow
- name: advice
  start_task: {agent: front, kind: pay-bill, params: {recipient: a, limit: 1001}}
  expect: deny
  advice: payments over 1000 are started at the counter
- name: an end, of which policy sees no parameters
  end_task: {agent: front, kind: pay-bill}
  expect: allow
- name: MCP
  mcp: {agent: clerk, server: bank, method: tools/list}
  expect: allow
- name: a retry of MCP
  mcp: {agent: clerk, server: bank, method: resources/read, input: {uri: "x:y"}, retry: {responses: {a: {b: 1}}, state: true}, grant: {tool: bank/get_iban, task: {kind: settle-account, owner: front}}}
  expect: deny
  by: []
`)
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitDone || !strings.HasPrefix(got.stdout, "18 passed, 0 failed;") {
		t.Errorf("%+v", got)
	}
	writeTests(t, dir, "agents: {front: {id: corp/front, groups: [front-ends]}}\ntests:\n- name: other advice\n  start_task: {agent: front, kind: pay-bill, params: {recipient: a, limit: 1001}}\n  expect: deny\n  advice: none\n")
	if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitFailed || !strings.Contains(got.stdout, `expected the advice "none", got "payments over 1000`) {
		t.Errorf("%+v", got)
	}
}

// A call is made by no grant that lasts longer than its manifest has: a case of one
// is an error, with its place.
func TestPolicyTestWindows(t *testing.T) {
	dir, config := exampleDir(t, "bank")
	edit(t, filepath.Join(dir, "manifests", "pay-bill.yaml"), "tool: bank/get_iban\n  ttl: 10m", "tool: bank/get_iban\n  ttl: 12m")
	for window, want := range map[string]string{
		"bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {age: 1m, ttl: 61s": `no grant of bank/send_money lasts 2m1s ("age" and what is left of it, "ttl"): its ttl in the manifest of pay-bill is 2m0s`,
		"bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {ttl: 10m":          `lasts 10m0s`,
		"bank/send_money, input: {recipient: a, amount: 1, subject: x}, grant: {age: 2m":           `lasts 2m1s`,
		"bank/get_iban, input: {name: a}, grant: {age: 9m, ttl: 61s":                               `max_duration in the manifest of pay-bill is 10m0s`,
		"bank/change_password, input: {password: x}, grant: {age: 9m, ttl: 61s":                    `max_duration in the manifest of pay-bill is 10m0s`,
	} {
		writeTests(t, dir, "agents: {clerk: {id: corp/clerk}}\ntests:\n- name: too long\n  call: {agent: clerk, tool: "+window+", task: {kind: pay-bill, params: {recipient: a, limit: 3}}}}\n  expect: allow\n")
		if got := toolgrant(t, "", "policy", "test", "--config", config); got.code != exitUsage || !strings.Contains(got.stderr, "a.yaml:4:") || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v\nwant %s", window, got, want)
		}
	}
}
