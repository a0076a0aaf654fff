package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/grants"
)

// TestErringForbidDenies (P03): a forbid whose evaluation fails would vanish in
// Cedar; through Envoy the call is refused, in HTTP/1.1 and HTTP/2, and only where
// that policy is asked.
func TestErringForbidDenies(t *testing.T) {
	w := layOut(t)
	if err := w.write("policies/errs.cedar", `
@id("errs") forbid (principal, action == Toolgrant::Action::"call:reports/export", resource)
when { context has grant && context.grant.ttl * 9223372036854775807 > 0 };
@id("health-needs-none") permit (principal, action == Toolgrant::Action::"call:reports/health", resource);
`); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.startEnvoy()
	tok := w.export(w.task())
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		hc := &http.Client{Transport: &http.Transport{Protocols: protocols(proto)}}
		before := w.tool.calls()
		a, err := w.try(hc, tok.AccessToken, "POST", exportCSV, october)
		if err != nil {
			t.Fatal(err)
		}
		w.check(a, before, http.StatusForbidden, "policy_error")
		if strings.Contains(a.body, "errs") {
			t.Errorf("the caller is told which policy: %s", a.body)
		}
		if a, err = w.try(hc, tok.AccessToken, "GET", "/health", ""); err != nil || a.status != http.StatusOK {
			t.Errorf("%s: a tool that it is not about: %d %v", proto, a.status, err)
		}
	}
}

// TestSlowPolicyDenies (P05): what is not decided when Envoy's time is up is no
// allow.
func TestSlowPolicyDenies(t *testing.T) {
	w, p := inProcess(t)
	serveIssue(t, w, p)
	tok := w.export(w.task())
	cfg := p.doorConfig(w.cfg, zap.NewNop())
	decide := cfg.Decide
	cfg.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
		<-ctx.Done() // as long as it may, and then a yes all the same
		return decide(context.WithoutCancel(ctx), in)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	resp, err := authz.New(cfg).Check(ctx, checkRequest(tok.AccessToken))
	if err != nil || reasonOf(resp) != "undecided" {
		t.Errorf("%v %v", resp, err)
	}
}

// TestHostileTextsThroughBothDoors (U01): whatever a caller writes where it can,
// there is one line for each decision, each parses, and nothing in it drives or
// reorders a terminal.
func TestHostileTextsThroughBothDoors(t *testing.T) {
	w := layOut(t)
	w.serve()
	w.startEnvoy()
	task := w.task()
	tok := w.export(task).AccessToken
	const evil = "\u202eEVIL\u2028\u009b31m\u0085"
	decisions := 2 // the task and the grant
	for _, body := range []string{`{"month":"` + evil + `"}`, `{"month":"\u0000\r\n\u001b[31m"}`, `{"` + evil + `":"x"}`, strings.Repeat("\u202e", 20_000)} {
		for _, headers := range [][]string{nil, {"User-Agent", "\"}\\n{" + strings.Repeat("x", 8000)}, {"X-Evil", "\xc2\x9b"}} {
			w.call(tok, "POST", exportCSV, body, headers...)
			decisions++
		}
	}
	quoted, _ := json.Marshal(evil)
	for _, body := range []string{
		`{"kind":` + string(quoted) + `}`, `{"kind":"monthly-report","agents":[` + string(quoted) + `]}`,
		`{"kind":"monthly-report","agents":["corp/` + evil + `"]}`, `{` + string(quoted) + `:1}`, `{"kind":"` + strings.Repeat("x", 60_000) + `"}`,
	} {
		req, err := http.NewRequest("POST", w.broker+"/v1/tasks", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.identity("planner", "toolgrant", "orchestrators"))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		decisions++
	}
	f, err := os.Open(w.cfg.Audit.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	n := 0
	for lines.Scan() {
		n++
		if !json.Valid(lines.Bytes()) {
			t.Errorf("line %d does not parse: %.200q", n, lines.Text())
		}
		if strings.ContainsFunc(lines.Text(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("line %d holds what does not print: %.300q", n, lines.Text())
		}
	}
	if lines.Err() != nil || n != decisions {
		t.Errorf("%d lines for %d decisions: %v", n, decisions, lines.Err())
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(f); err != nil {
		t.Error(err)
	}
	for l := range strings.SplitSeq(w.log.String(), "\n") {
		if strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the program's log holds what does not print: %.300q", l)
		}
	}
}
