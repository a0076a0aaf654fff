package audit

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/grants"
)

func TestExplain(t *testing.T) {
	call := testRecord(7)
	call.Seq = 12
	allowed := call
	allowed.Outcome, allowed.Reason, allowed.Status, allowed.Actor, allowed.Client, allowed.Note = Allow, grants.None, 0, "", "", ""
	withdrawn := allowed
	withdrawn.Seq, withdrawn.Outcome, withdrawn.Reason, withdrawn.Status = 13, Deny, grants.Expired, 403
	for name, c := range map[string]struct {
		records []Record
		want    string
	}{
		"denied call": {[]Record{call}, `Decision d_7, 2026-01-02T03:04:05.000006Z, record 12
  asked      corp/agent called a tool, tool reports/export, task t_1, grant g_1, through corp/sub; the grant was asked for by corp/boss
  from       192.0.2.1, client cli
  answer     denied, budget_spent, with HTTP status 403, after 17µs
  why        ` + explanations[grants.BudgetSpent].means + `
  to do      ` + explanations[grants.BudgetSpent].todo + `
  policies   permitted by a, b; what refused it came after
  revision   policy ` + grants.Digest{1}.String() + `
  view       of the grants, at revision 1.2
  arguments  on record as their keyed digest alone: 00ff
  note       n
`},
		"allow withdrawn": {[]Record{allowed, withdrawn}, `Decision d_7, 2026-01-02T03:04:05.000006Z, record 12
  asked      corp/agent called a tool, tool reports/export, task t_1, grant g_1; the grant was asked for by corp/boss
  from       192.0.2.1
  answer     allowed, after 17µs
  why        ` + explanations[grants.None].means + `
  to do      nothing
  policies   permitted by a, b
  revision   policy ` + grants.Digest{1}.String() + `
  view       of the grants, at revision 1.2
  arguments  on record as their keyed digest alone: 00ff

Decision d_7, 2026-01-02T03:04:05.000006Z, record 13
  asked      corp/agent called a tool, tool reports/export, task t_1, grant g_1; the grant was asked for by corp/boss
  from       192.0.2.1
  answer     denied, expired, with HTTP status 403, after 17µs
  why        ` + explanations[grants.Expired].means + `
  to do      ` + explanations[grants.Expired].todo + `
  policies   permitted by a, b; what refused it came after
  revision   policy ` + grants.Digest{1}.String() + `
  view       of the grants, at revision 1.2
  arguments  on record as their keyed digest alone: 00ff

The last of these records is what the caller got: writing a record takes time, and the window may end meanwhile.
`},
		"folded": {[]Record{{Seq: 3, ID: "d_9", Kind: "request", Source: "2001:db8::/64", Outcome: Deny, Reason: grants.NoCredential, Status: 401, Count: 123, Note: "folded: 1, 2", Time: call.Time}},
			`Decision d_9, 2026-01-02T03:04:05.000006Z, record 3
  asked      a caller without a verified identity made a request of kind request
  from       2001:db8::/64
  answer     denied, no_credential, with HTTP status 401, 123 times: this one record stands for all of them
  why        ` + explanations[grants.NoCredential].means + `
  to do      ` + explanations[grants.NoCredential].todo + `
  note       folded: 1, 2
`},
		"the log's own": {[]Record{{Seq: 4, Kind: KindRecovered, Note: "torn\x1b", Time: call.Time}},
			`Record 4, 2026-01-02T03:04:05.000006Z: the log about itself, recovered
  note       torn\u001b
`},
		"nothing": {nil, ""},
	} {
		if diff := cmp.Diff(c.want, Explain(c.records)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Each reason has words of its own, which say more than the reason's name.
func TestEveryReasonIsExplained(t *testing.T) {
	seen := map[string]grants.Reason{}
	for _, why := range append(grants.Reasons(), grants.None) {
		e, ok := explanations[why]
		if !ok || len(e.means) < 30 || len(e.todo) < 30 && why != grants.None {
			t.Errorf("%s: no words: %+v", why, e)
			continue
		}
		if other, ok := seen[e.means]; ok {
			t.Errorf("%s: the words of %s", why, other)
		}
		seen[e.means] = why
		r := testRecord(1)
		if r.Reason = why; why == grants.None {
			r.Outcome = Allow
		}
		text := Explain([]Record{r})
		for _, want := range []string{e.means, e.todo, "d_1", "corp/agent", "reports/export", "t_1", "g_1", "a, b", r.Revision.String(), "2026-01-02T03:04:05"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", why, want, text)
			}
		}
		if why != grants.None && !strings.Contains(text, "denied, "+why.String()) {
			t.Errorf("%s is not named in\n%s", why, text)
		}
		for _, s := range []string{e.means, e.todo} {
			if strings.IndexFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) >= 0 || strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q", why, s)
			}
		}
	}
	if len(explanations) != len(seen) {
		t.Errorf("%d explanations of %d reasons", len(explanations), len(seen))
	}
	unknown := Explain([]Record{{ID: "d_1", Kind: KindCall, Outcome: Deny, Reason: 255}})
	if !strings.Contains(unknown, "no words for it") {
		t.Errorf("a reason of another version: %s", unknown)
	}
}

func TestExplainPolicies(t *testing.T) {
	for _, c := range []struct {
		outcome Outcome
		why     grants.Reason
		ids     []string
		want    string
	}{
		{Allow, grants.None, []string{"a"}, "permitted by a"},
		{Allow, grants.None, nil, ""},
		{Deny, grants.Policy, []string{"squash-only", "x y"}, `forbidden by squash-only, "x y"`},
		{Deny, grants.Policy, nil, "none permits it"},
		{Deny, grants.PolicyChanged, []string{"f"}, "forbidden by f"},
		{Deny, grants.PolicyChanged, nil, "none permits it"},
		{Deny, grants.PolicyError, []string{"e"}, "could not be evaluated: e"},
		{Deny, grants.BudgetSpent, []string{"a"}, "permitted by a; what refused it came after"},
		{Deny, grants.NoGrant, nil, ""},
		{Deny, grants.UnknownTask, []string{"f"}, "it is there, and policy said no: f"},
		{Deny, grants.UnknownGrant, []string{"f"}, "it is there, and policy said no: f"},
		{Deny, grants.UnknownTask, nil, ""},
	} {
		if got := policiesOf(&Record{Outcome: c.outcome, Reason: c.why, Policies: c.ids}); got != c.want {
			t.Errorf("%s %s %q: %q; want %q", c.outcome, c.why, c.ids, got, c.want)
		}
	}
}

func TestExplainWhoAsked(t *testing.T) {
	for want, r := range map[string]Record{
		"corp/boss asked for a grant, tool s/t, task t_1, agent corp/a":         {Kind: grants.ActionGrant, Requester: "corp/boss", Agent: "corp/a", Tool: "s/t", Task: "t_1"},
		"corp/a asked for a grant, tool s/t":                                    {Kind: grants.ActionGrant, Requester: "corp/a", Agent: "corp/a", Tool: "s/t"},
		"corp/boss asked to start a task, task t_1":                             {Kind: grants.ActionStartTask, Requester: "corp/boss", Task: "t_1"},
		"corp/boss asked to revoke, grant g_1":                                  {Kind: grants.ActionRevoke, Requester: "corp/boss", Grant: "g_1"},
		"toolgrant itself asked to end a task, task t_1":                        {Kind: grants.ActionEndTask, Outcome: Allow, Task: "t_1"},
		"corp/a had a grant decided again, since policy had changed, grant g_1": {Kind: "sweep", Agent: "corp/a", Grant: "g_1"},
		`"corp/a, tool s/t" made a request of kind "a\nb"`:                      {Kind: "a\nb", Requester: "corp/a, tool s/t"},
		"corp/a called a tool, tool s/t":                                        {Kind: KindCall, Agent: "corp/a", Requester: "corp/a", Tool: "s/t"},
		"a caller without a verified identity called a tool, tool s/t":          {Kind: KindCall, Outcome: Deny, Tool: "s/t"},
	} {
		want = strings.ReplaceAll(want, `\n`, `\u000a`)
		if got := asked(&r); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestWord(t *testing.T) {
	for in, want := range map[string]string{
		"corp/a":    "corp/a",
		"":          `""`,
		"a b":       `"a b"`,
		"a,":        `"a,"`,
		"a\nb":      `"a\u000ab"`,
		"a\"b":      `"a\"b"`,
		"\u202eabc": `"\u202eabc"`,
		"grün":      `"grün"`,
		"\xff":      "\"\ufffd\"",

		strings.Repeat("x", 2*MaxID): `"` + strings.Repeat("x", MaxID-len(cutMark)) + `…"`,
	} {
		if got := word(in); got != want {
			t.Errorf("%q: %s; want %s", in, got, want)
		}
	}
}

// A note is shown as far as a record holds it.
func TestExplainShowsTheWholeNote(t *testing.T) {
	r := testRecord(1)
	r.Note = strings.Repeat("x", MaxNote-1) + "!"
	if text := Explain([]Record{r}); !strings.Contains(text, r.Note+"\n") {
		t.Errorf("the note is cut in\n%s", text)
	}
}

// Whatever stands in a record, the text has the same lines, which all print.
func FuzzExplain(f *testing.F) {
	f.Add("a\n  answer     allowed", "\x1b[2J\u202e", "\u2028\r", uint8(3), true)
	f.Add("\xff", "", strings.Repeat("\x00", 2000), uint8(200), false)
	f.Fuzz(func(t *testing.T, a, b, c string, why uint8, deny bool) {
		of := func(a, b, c string) Record {
			r := Record{
				Seq: 1, ID: a, Kind: b, Agent: c, Actor: a, Requester: b, Client: c, Tool: a, Task: b, Grant: c, Source: a,
				Outcome: Allow, Reason: grants.Reason(why), Policies: []string{b, c}, Revision: grants.Digest{1}, Rev: c, Args: a, Note: b,
				Time: time.Unix(0, 0),
			}
			if deny {
				r.Outcome = Deny
			}
			return r
		}
		// Empty texts have no line.
		plain := func(s string) string {
			if s == "" {
				return ""
			}
			return "x"
		}
		got := Explain([]Record{of(a, b, c), of(c, a, b)})
		want := Explain([]Record{of(plain(a), plain(b), plain(c)), of(plain(c), plain(a), plain(b))})
		if b == KindCall || a == KindCall {
			return // has a line more
		}
		if strings.Count(got, "\n") != strings.Count(want, "\n") {
			t.Fatalf("got\n%s\nwant the lines of\n%s", got, want)
		}
		for _, r := range got {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%U stands in\n%q", r, got)
			}
		}
	})
}
