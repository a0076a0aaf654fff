package catalog

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// sameMeaning is twoServers in another order and spelling, with defaults
// written out.
const sameMeaning = `
"servers":
  - http:
      - body: {properties: {}, type: "object"}
        path: '/mail/send'
        method: "POST"
        tool: send
        timeout: 15000ms
        sets: []
        pass_authorization: true
    upstream: "mail.internal:80"
    resource: https://mail.internal/api
    id: mail
  - {id: reports, upstream: "127.0.0.1:8080", resource: "https://reports.internal", http: [
      {tool: health, sets: [init], path: /health, method: GET, pass_authorization: false},
      {tool: export, path: /export, method: POST, timeout: 5000ms, sets: [month-end, write], opaque: [/body/a~1b, /body/note],
        volatile: [/body/note, /query/page], redact: [/body/month, /query/format],
        header: {x-locale: {type: string}},
        query: {page: {description: "from 1", type: integer}, format: {type: string, enum: [csv, pdf]}},
        body: {type: object, properties: {note: {type: string}, month: {type: string}, a/b: {type: number},
          lines: {type: array, items: {type: object, properties: {paid: {type: boolean}}}}}, required: [month]}}]}
`

// sameGithub is github in the same way.
const sameGithub = `
servers:
- id: plain
  mcp: {upstream_path: /mcp, path: /mcp, denials: http, hosts: [], origins: [], timeout: 15000ms, stream: 60m,
    revisions: ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]}
  tools: []
  upstream: plain.internal:80
  resource: urn:example:plain
- id: github
  tools:
  - {tool: whoami, name: whoami, timeout: 15s, tasks: false, retries: false, sets: [], opaque: [], volatile: [], redact: [], input: {type: object, properties: {}, required: []}}
  - tool: call_tool
    opaque: [/args, /note]
    redact: [/args, /a~1b/name]
    volatile: [/args]
    meta: {arguments: /args, tool: /a~1b/name}
    input: {type: object, properties: {note: {type: string}, args: {type: any}, a/b: {type: object, properties: {name: {type: string}}}}}
  - tool: merge_pr
    name: mergePR
    retries: true
    tasks: true
    opaque: [/body]
    timeout: 30000ms
    sets: [repo, write]
    pin: "sha256:9f00000000000000000000000000000000000000000000000000000000000001"
    input:
      type: object
      properties:
        where: {type: object, properties: {dry: {type: boolean, header: DRY}, Region: {type: string, header: X_region}}}
        body: {type: any}
        pull: {type: integer, header: pull}
      required: [pull]
  mcp:
    stream: 1800s
    timeout: 20000ms
    origins: ["http://127.0.0.1:6274", "https://inspector.example"]
    hosts: [a.example, mcp.example]
    denials: jsonrpc
    revisions: ["2025-11-25", "2026-07-28"]
    upstream_path: /mcp
    path: /mcp/github
  credential: x-github-token
  upstream: 127.0.0.1:9000
  resource: https://github-mcp.internal/mcp
`

func TestDigestIsOfTheMeaning(t *testing.T) {
	for _, pair := range [][2]string{{twoServers, sameMeaning}, {github, sameGithub}} {
		a, b := mustParse(t, pair[0]), mustParse(t, pair[1])
		if a.Digest != b.Digest {
			t.Error("two files that mean the same have different digests")
		}
		for ta := range a.AllTools() {
			if tb, ok := b.Tool(ta.ID); !ok || ta.Digest != tb.Digest {
				t.Errorf("%s: digests differ", ta.ID)
			}
		}
	}
}

// TestDigestIsKept: a grant holds its tool's digest, so a key that a catalogue
// does not use must not change what it is.
func TestDigestIsKept(t *testing.T) {
	lists := regexp.MustCompile("    (volatile|redact): .*\n")
	for text, want := range map[string]string{
		twoServers: "90708b0e35e3ad44df9e28496348aae29e282f373fe5a2b5e7380cdad72fd817",
		github:     "87ebfe1c7bc067df72e5a6230edb9fbf45c1ef5450664e56ddda252114a71ace",
	} {
		if got := fmt.Sprintf("%x", mustParse(t, lists.ReplaceAllString(text, "")).Digest); got != want {
			t.Errorf("digest %s, want %s", got, want)
		}
	}
}

// change is one of a file's text.
type change struct {
	from, to string
	pin      bool // whether the tool in question becomes another
}

func digestsChange(t *testing.T, original, id string, changes []change) {
	t.Helper()
	was := mustParse(t, original)
	seen := map[[32]byte]string{was.Digest: "the original"}
	for _, change := range changes {
		text := strings.Replace(original, change.from, change.to, 1)
		if text == original {
			t.Fatalf("%q is not in the catalogue", change.from)
		}
		c := mustParse(t, text)
		if other, ok := seen[c.Digest]; ok {
			t.Errorf("%s: same digest as %s", change.to, other)
		}
		seen[c.Digest] = change.to
		before, _ := was.Tool(id)
		after, ok := c.Tool(id)
		if pinned := ok && before.Digest == after.Digest; pinned == change.pin {
			t.Errorf("%s: pin unchanged = %t, want %t", change.to, pinned, !change.pin)
		}
	}
}

func TestDigestChangesWithTheMeaning(t *testing.T) {
	digestsChange(t, twoServers, "reports/export", []change{
		{"method: POST\n    path: /export", "method: PUT\n    path: /export", true},
		{"path: /export", "path: /export2", true},
		{"[write, month-end]", "[write]", true},
		{"timeout: 5s", "timeout: 6s", true},
		{"opaque: [/body/note, /body/a~1b]", "opaque: [/body/note]", true},
		{"volatile: [/query/page, /body/note]", "volatile: [/query/page]", true},
		{"    volatile: [/query/page, /body/note]\n", "", true},
		{"redact: [/query/format, /body/month]", "redact: [/body/month]", true},
		{"    redact: [/query/format, /body/month]\n", "", true},
		{"timeout: 5s", "timeout: 5s\n    pass_authorization: true\n    credential: x-c", true},
		{"timeout: 5s", "timeout: 5s\n    credential: x-c", true},
		{"upstream: 127.0.0.1:8080", "upstream: 127.0.0.1:8080\n  credential: x-d", true},
		{"[pdf, csv]", "[pdf]", true},
		{"type: integer", "type: number", true},
		{"from 1", "from 0", true},
		{"x-locale", "x-language", true},
		{"required: [month]", "required: [month, note]", true},
		{"paid: {type: boolean}", "paid: {type: string}", true},
		{"items: {type: object, properties: {paid: {type: boolean}}}", "items: {type: string}", true},
		{"https://reports.internal", "https://reports2.internal", true},
		{"id: reports", "id: reports2", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"path: /health", "path: /healthz", false},
		{"mail.internal:80", "mail.internal:81", false},
	})
}

func TestDigestChangesWithTheMeaningMCP(t *testing.T) {
	digestsChange(t, github, "github/merge_pr", []change{
		{"name: mergePR", "name: mergePr", true},
		{"sha256:9f0", "sha256:9f1", true},
		{"    pin: sha256:9f00000000000000000000000000000000000000000000000000000000000001\n", "", true},
		{"sets: [write, repo]", "sets: [write]", true},
		{"timeout: 30s", "timeout: 31s", true},
		{"tasks: true", "tasks: false", true},
		{"retries: true", "retries: false", true},
		{"opaque: [/body]", "opaque: [/body, /where]", true},
		{"opaque: [/body]", "opaque: [/body]\n    volatile: [/where]", true},
		{"opaque: [/body]", "opaque: [/body]\n    redact: [/where]", true},
		{"required: [pull]", "required: []", true},
		{"header: Pull", "header: Pulls", true},
		{", header: dry", "", true},
		{"{type: any}", "{type: string}", true},
		{"opaque: [/body]", "opaque: [/body]\n    meta: {tool: /where/Region}", true},
		{"opaque: [/body]", "opaque: [/body]\n    meta: {tool: /where/Region, arguments: /body}", true},
		{"credential: x-github-token", "credential: x-gh-token", true},
		{"https://github-mcp.internal/mcp", "https://github-mcp.internal/mcp2", true},
		{"tool: merge_pr", "tool: merge", true},

		{"path: /mcp/github", "path: /mcp/gh", false},
		{"upstream_path: /mcp", "upstream_path: /mcp2", false},
		{`["2026-07-28", 2025-11-25]`, `["2026-07-28"]`, false},
		{"denials: jsonrpc", "denials: http", false},
		{"mcp.example, a.example", "mcp.example", false},
		{`"http://127.0.0.1:6274"`, `"http://127.0.0.1:6275"`, false},
		{"timeout: 20s", "timeout: 21s", false},
		{"stream: 30m", "stream: 31m", false},
		{"127.0.0.1:9000", "127.0.0.1:9001", false},
		{"tool: whoami", "tool: who", false},
		{"meta: {tool: /a~1b/name, arguments: /args}\n    opaque: [/note]", "opaque: [/args, /note]", false},
		{"upstream: plain.internal:80", "upstream: plain.internal:80\n  credential: x-plain", false},
	})
}
