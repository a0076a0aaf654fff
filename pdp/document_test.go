package pdp

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

var update = flag.Bool("update", false, "write the golden files")

// The documents are what others write policies against.
func TestDocuments(t *testing.T) {
	c := testCatalog(t)
	var out bytes.Buffer
	all := questions(t)
	for _, name := range sorted(all) {
		in := all[name]
		d, why := newDocument(c, &in)
		if why != grants.None {
			t.Fatalf("%s: %s", name, why)
		}
		text, err := d.text()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out.WriteString("// " + name + "\n" + string(text) + "\n")
	}
	golden := filepath.Join("testdata", "documents.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("-golden +now:\n%s", diff)
	}
}

// What is no question, or has no exact text, is never put to an engine.
func TestNoDocument(t *testing.T) {
	c := testCatalog(t)
	inside := call("bank/pay", testGrant("bank/pay"), parse(t, `{"body": {"to": "a", "amount": 1}}`))
	note := questions(t)["call of MCP, retried"]
	read := questions(t)["mcp method, in a grant"]
	for name, tt := range map[string]struct {
		in     grants.Input
		change func(*grants.Input)
		want   grants.Reason
	}{
		"no time":               {start(), func(in *grants.Input) { in.At = time.Time{} }, grants.Undecided},
		"nobody":                {start(), func(in *grants.Input) { in.Principal = grants.Principal{} }, grants.Undecided},
		"nobody asks":           {start(), func(in *grants.Input) { in.Requester.Subject = "" }, grants.Undecided},
		"an alias with a slash": {start(), func(in *grants.Input) { in.Principal.Issuer = "corp/x" }, grants.Undecided},
		"nobody's task":         {start(), func(in *grants.Input) { in.Task.Owner.Issuer = "" }, grants.Undecided},
		"no task":               {start(), func(in *grants.Input) { in.Task = nil }, grants.Undecided},
		"a task with a tool":    {start(), func(in *grants.Input) { in.Tool = "bank/pay" }, grants.Undecided},
		"a task with arguments": {start(), func(in *grants.Input) { in.Args = parse(t, `{}`) }, grants.Undecided},
		"a task by MCP":         {start(), func(in *grants.Input) { in.Revision = "2025-11-25" }, grants.Undecided},
		"no action":             {inside, func(in *grants.Input) { in.Action = "" }, grants.Undecided},
		"another tool's action": {inside, func(in *grants.Input) { in.Action = grants.ActionCall + "bank/rates" }, grants.Undecided},
		"no such tool":          {inside, func(in *grants.Input) { in.Tool, in.Action = "bank/x", "call:bank/x" }, grants.UnknownTool},
		"another tool's grant":  {inside, func(in *grants.Input) { in.Grant.Tool = "bank/rates" }, grants.Undecided},
		"another task's grant":  {inside, func(in *grants.Input) { in.Grant.Task = "t_2" }, grants.Undecided},
		"another agent's grant": {inside, func(in *grants.Input) { in.Grant.Agent = lead }, grants.Undecided},
		"a grant without task":  {inside, func(in *grants.Input) { in.Task = nil }, grants.Undecided},
		"by MCP":                {inside, func(in *grants.Input) { in.Revision = "2025-11-25" }, grants.Undecided},
		"input is no object":    {inside, func(in *grants.Input) { in.Args = "x" }, grants.Undecided},
		"more than a double":    {inside, func(in *grants.Input) { in.Args = parse(t, `{"body": {"amount": 0.10000000000000000001}}`) }, grants.Unrepresentable},
		"a limit past 2^53":     {ask(fullGrant()), func(in *grants.Input) { in.Grant.Budgets[0].Limit = 1 << 53 }, grants.Unrepresentable},
		"grant: no such tool":   {ask(fullGrant()), func(in *grants.Input) { in.Tool = "bank/x" }, grants.UnknownTool},
		"grant: arguments":      {ask(fullGrant()), func(in *grants.Input) { in.Args = parse(t, `{}`) }, grants.Undecided},
		"grant: nobody's":       {ask(fullGrant()), func(in *grants.Input) { in.Action, in.Grant.Agent = grants.ActionRevoke, grants.Principal{} }, grants.Undecided},
		"ask_for oneself":       {ask(fullGrant()), func(in *grants.Input) { in.Action = grants.ActionAskFor }, grants.Undecided},
		"MCP: no revision":      {note, func(in *grants.Input) { in.Revision = "" }, grants.Undecided},
		"MCP: an early retry":   {note, func(in *grants.Input) { in.Revision = "2025-11-25" }, grants.Undecided},
		"MCP: a server":         {note, func(in *grants.Input) { in.Server = "notes" }, grants.Undecided},
		"method: not MCP's":     {read, func(in *grants.Input) { in.Action = "mcp:x" }, grants.Undecided},
		"method: no server":     {read, func(in *grants.Input) { in.Server = "bank" }, grants.UnknownTool},
		"method: too new":       {read, func(in *grants.Input) { in.Action = "mcp:subscriptions/listen" }, grants.Undecided},
		"method: foreign grant": {read, func(in *grants.Input) { in.Grant.Tool = "bank/pay" }, grants.Undecided},
		"method: not covered":   {read, func(in *grants.Input) { in.Action, in.Args = "mcp:tools/list", parse(t, `{}`) }, grants.Undecided},
		"method: no retries": {read, func(in *grants.Input) {
			in.Action, in.Revision, in.Args = "mcp:resources/list", "2026-07-28", parse(t, `{}`)
			in.Retry = &grants.Retry{State: true}
		}, grants.Undecided},
		"method: no input": {read, func(in *grants.Input) { in.Args = nil }, grants.Undecided},
	} {
		in := clone(tt.in)
		if _, why := newDocument(c, &in); why != grants.None {
			t.Errorf("%s: the question itself: %s", name, why)
		}
		tt.change(&in)
		if d, why := newDocument(c, &in); why != tt.want || d != nil {
			t.Errorf("%s: %s, want %s", name, why, tt.want)
		}
	}
}

func clone(in grants.Input) grants.Input {
	if in.Task != nil {
		task := *in.Task
		in.Task = &task
	}
	if in.Grant != nil {
		g := *in.Grant
		g.Budgets = append([]grants.Budget(nil), g.Budgets...)
		in.Grant = &g
	}
	return in
}

// A text that is not UTF-8 would be another one to the engine.
func TestNotUTF8(t *testing.T) {
	f := newFake(t, permitAll(t, "", ""))
	p := newOPAClient(t, f)
	in := start()
	in.Principal.Groups = []string{"a\xff"}
	ds, err := p.Decide(t.Context(), []grants.Input{in})
	if err != nil || ds[0].Reason != grants.Unrepresentable || ds[0].Allow {
		t.Errorf("%+v, %v", ds, err)
	}
	if n := f.count(); n != 0 {
		t.Errorf("the engine was asked %d times", n)
	}
}
