package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/client"
)

// TestCallDoor sends requests through real Envoy, over HTTP/1.1 and HTTP/2, and
// holds what the caller gets and that the tool ran for a 200 alone.
func TestCallDoor(t *testing.T) {
	w, _ := open(t)
	tok := w.export(w.task()).AccessToken
	foreign := w.identity("report-bot", "https://reports.internal", "reporting")
	big := `{"month":"` + strings.Repeat("x", 70<<10) + `"}`
	const csv = exportCSV
	for _, tc := range []struct {
		name               string
		token              string
		method, path, body string
		headers            []string
		status             int
		reason             string
	}{
		{"the granted call", tok, "POST", csv, october, nil, 200, ""},
		{"charset named", tok, "POST", csv, october, []string{"!Content-Type", "application/json; charset=UTF-8"}, 200, ""},
		{"percent escapes that mean the same", tok, "POST", "/export?%66ormat=c%73v", october, nil, 200, ""},

		{"no credential", "", "POST", csv, october, nil, 401, "no_credential"},
		{"two Authorization headers", tok, "POST", csv, october, []string{"Authorization", "Bearer " + tok}, 401, "ambiguous_credential"},
		{"two, one of them junk", tok, "POST", csv, october, []string{"Authorization", "Bearer x"}, 401, "ambiguous_credential"},
		{"Bearer twice in one", "", "POST", csv, october, []string{"Authorization", "Bearer " + tok + " Bearer " + tok}, 401, "ambiguous_credential"},
		{"joined with a comma", "", "POST", csv, october, []string{"Authorization", "Bearer " + tok + ",x"}, 401, "ambiguous_credential"},
		{"token in the query too", tok, "POST", csv + "&access_token=" + tok, october, nil, 401, "ambiguous_credential"},
		{"token in the query alone", "", "POST", csv + "&access_token=" + tok, october, nil, 401, "ambiguous_credential"},
		{"another scheme", "", "POST", csv, october, []string{"Authorization", "DPoP " + tok}, 401, "bad_credential"},
		{"junk", "junk", "POST", csv, october, nil, 401, "bad_credential"},
		{"a byte changed", flip(tok), "POST", csv, october, nil, 401, "bad_credential"},
		{"the broker's identity token", w.identity("report-bot", "toolgrant", "reporting"), "POST", csv, october, nil, 401, "credential_kind"},
		{"an identity token for another server", w.identity("report-bot", "https://other.internal", "reporting"), "POST", csv, october, nil, 401, "credential_kind"},
		{"an identity token for both doors", w.identityFor("report-bot", "toolgrant", "https://reports.internal"), "POST", csv, october, nil, 401, "credential_kind"},
		{"an identity token for this server: baseline, which permits nothing", foreign, "POST", csv, october, nil, 403, "no_grant"},

		{"another tool", tok, "DELETE", "/archive", "", nil, 403, "wrong_tool"},
		{"another method", tok, "PUT", csv, october, nil, 404, ""},
		{"a path that is no tool", tok, "POST", "/nosuch", october, nil, 404, ""},
		{"trailing slash", tok, "POST", "/export/?format=csv", october, nil, 404, ""},
		{"letter case", tok, "POST", "/EXPORT?format=csv", october, nil, 404, ""},
		{"path parameter", tok, "POST", "/export;a=b?format=csv", october, nil, 404, ""},
		{"escaped slash", tok, "POST", "/x%2fexport?format=csv", october, nil, 400, ""},
		{"method override", tok, "POST", csv, october, []string{"X-HTTP-Method-Override", "DELETE", "X-Original-URL", "/archive"}, 200, ""},

		{"enum", tok, "POST", "/export?format=exe", october, nil, 400, "malformed"},
		{"query name not declared", tok, "POST", csv + "&x=1", october, nil, 400, "malformed"},
		{"query name twice", tok, "POST", csv + "&format=pdf", october, nil, 400, "malformed"},
		{"query name twice, escaped", tok, "POST", csv + "&%66ormat=pdf", october, nil, 400, "malformed"},
		{"plus in the query", tok, "POST", "/export?format=c+sv", october, nil, 400, "malformed"},
		{"semicolon in the query", tok, "POST", csv + ";x=1", october, nil, 400, "malformed"},
		{"bare name", tok, "POST", "/export?format", october, nil, 400, "malformed"},
		{"bad escape", tok, "POST", "/export?format=%zz", october, nil, 400, ""},

		{"duplicate key", tok, "POST", csv, `{"month":"2026-10","month":"2026-11"}`, nil, 400, "malformed"},
		{"duplicate key, other case", tok, "POST", csv, `{"month":"2026-10","Month":"2026-11"}`, nil, 400, "malformed"},
		{"duplicate key, escaped", tok, "POST", csv, `{"month":"2026-10","\u006donth":"2026-11"}`, nil, 400, "malformed"},
		{"duplicate key, deep in an array", tok, "POST", csv, `{"month":"2026-10","x":[{"a":1,"a":2}]}`, nil, 400, "malformed"},
		{"trailing object", tok, "POST", csv, october + october, nil, 400, "malformed"},
		{"NDJSON", tok, "POST", csv, october + "\n" + october, nil, 400, "malformed"},
		{"array", tok, "POST", csv, "[" + october + "]", nil, 400, "mismatch"},
		{"BOM", tok, "POST", csv, "\xef\xbb\xbf" + october, nil, 400, "malformed"},
		{"invalid UTF-8", tok, "POST", csv, "{\"month\":\"\xff\"}", nil, 400, "malformed"},
		{"cut short", tok, "POST", csv, `{"month":"2026-`, nil, 400, "malformed"},
		{"deep", tok, "POST", csv, `{"month":"x","y":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", nil, 400, "malformed"},
		{"a type that does not fit", tok, "POST", csv, `{"month":202610}`, nil, 400, "mismatch"},
		{"required member missing", tok, "POST", csv, `{}`, nil, 400, "mismatch"},
		{"member that policy cannot see", tok, "POST", csv, `{"month":"2026-10","note":"x"}`, nil, 403, "unrepresentable"},
		{"null", tok, "POST", csv, `{"month":null}`, nil, 400, "mismatch"},
		{"no body", tok, "POST", csv, "", []string{"Content-Type", "application/json"}, 400, "malformed"},
		{"too large", tok, "POST", csv, big, nil, 413, ""},
		{"no content type", tok, "POST", csv, october, []string{"!Content-Type", ""}, 415, "encoding"},
		{"text/plain", tok, "POST", csv, october, []string{"!Content-Type", "text/plain"}, 415, "encoding"},
		{"UTF-16", tok, "POST", csv, october, []string{"!Content-Type", "application/json; charset=utf-16"}, 415, "encoding"},
		{"a charset by RFC 8187, which some tools decode by", tok, "POST", csv, october, []string{"!Content-Type", "application/json; charset=utf-7; charset*=utf-8''utf-8"}, 415, "encoding"},
		{"the same alone", tok, "POST", csv, october, []string{"!Content-Type", "application/json; charset*=x'y'utf-7"}, 415, "encoding"},
		{"another parameter", tok, "POST", csv, october, []string{"!Content-Type", "application/json; foo=bar"}, 415, "encoding"},
		{"token in the query, escaped", tok, "POST", csv + "&access%5ftoken=" + tok, october, nil, 401, "ambiguous_credential"},
		{"two content types", tok, "POST", csv, october, []string{"Content-Type", "text/plain"}, 415, "encoding"},
		{"gzip, said", tok, "POST", csv, october, []string{"Content-Encoding", "gzip"}, 415, "encoding"},
		{"body where none is declared", tok, "DELETE", "/archive", "{}", nil, 400, "malformed"},
		{"partial body, claimed by the client", tok, "POST", csv, october, []string{"X-Envoy-Auth-Partial-Body", "true"}, 0, ""},
		{"header with an underscore", tok, "POST", csv, october, []string{"X_Grant", "1"}, 400, ""},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(tc.name+" "+proto, func(t *testing.T) {
				w := *w
				w.t = t
				hc := &http.Client{Transport: &http.Transport{Protocols: protocols(proto), DisableCompression: true}}
				defer hc.CloseIdleConnections()
				before := w.tool.calls()
				a, err := w.try(hc, tc.token, tc.method, tc.path, tc.body, tc.headers...)
				if err != nil && proto == "HTTP/2" && tc.status == 400 && tc.reason == "" && w.tool.calls() == before {
					return // refused by ending the stream
				}
				if err != nil {
					t.Fatal(err)
				}
				if tc.status == 0 { // stripped or refused: both are right, but nothing else
					if a.status != 200 && a.status < 400 {
						t.Fatalf("got %d", a.status)
					}
					return
				}
				w.check(a, before, tc.status, tc.reason)
				// RFC 6750, Section 3.
				challenge := a.header.Get("Www-Authenticate")
				const where = `resource_metadata="https://reports.internal/.well-known/oauth-protected-resource"`
				plain := strings.TrimSuffix(strings.TrimSuffix(challenge, where), ", ")
				if a.status == 401 && plain != "Bearer " && !strings.HasPrefix(plain, `Bearer error="invalid_`) ||
					challenge != "" && plain == challenge ||
					strings.Contains(a.body, `"insufficient_scope"`) && !strings.HasPrefix(plain, `Bearer error="insufficient_scope", scope="reports/`) {
					t.Errorf("WWW-Authenticate: %q", challenge)
				}
				if strings.Contains(a.body, "2026") || tc.token != "" && strings.Contains(a.body, tc.token) {
					t.Errorf("a denial repeats what was sent: %s", a.body)
				}
			})
		}
	}
}

func protocols(name string) *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(name == "HTTP/1.1")
	p.SetUnencryptedHTTP2(name == "HTTP/2")
	return &p
}

// flip changes one bit in the middle of a token's signature.
func flip(token string) string {
	b := []byte(token)
	if b[len(b)-20]++; b[len(b)-20] > 'z' || b[len(b)-20] == '[' || b[len(b)-20] == ':' {
		b[len(b)-20] = 'A'
	}
	return string(b)
}

// TestWhatReachesTheTool: no credential, no cookie, nothing undeclared, and the
// context that the door sets and no client can.
func TestWhatReachesTheTool(t *testing.T) {
	w, _ := open(t)
	task := w.task()
	tok := w.export(task)
	a := w.call(tok.AccessToken, "POST", exportCSV, october,
		"Cookie", "session=1", "X-Undeclared", "1", "Accept-Language", "de",
		"X-Grant-Ctx-Agent", "corp/root", "X-Grant-Ctx-Admin", "1", "X-Envoy-Upstream-Rq-Timeout-Ms", "99999999",
		"Proxy-Authorization", "Bearer x", "X-Forwarded-For", "10.0.0.1", "X-Forwarded-User", "admin",
		"X-Forwarded-Host", "evil.example", "Forwarded", "for=10.0.0.1", "X-Real-Ip", "10.0.0.1")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got, body := w.tool.last()
	if body != october {
		t.Errorf("the tool got the body %q", body)
	}
	for name, want := range map[string]string{
		"Authorization": "", "Cookie": "", "X-Undeclared": "", "Proxy-Authorization": "",
		"X-Forwarded-User": "", "X-Forwarded-Host": "", "Forwarded": "", "X-Real-Ip": "",
		"X-Grant-Ctx-Admin": "", "X-Envoy-Upstream-Rq-Timeout-Ms": "",
		"Accept-Language": "de", "Content-Type": "application/json",
		"X-Grant-Ctx-Agent": "corp/report-bot", "X-Grant-Ctx-Task": task, "X-Grant-Ctx-Tool": "reports/export",
		"X-Grant-Ctx-Grant": tok.Grants[0].ID,
	} {
		if have := strings.Join(got.Header.Values(name), ","); have != want {
			t.Errorf("%s: the tool got %q, want %q", name, have, want)
		}
	}
	if xff := got.Header.Get("X-Forwarded-For"); xff == "" || strings.Contains(xff, "10.0.0.1") {
		t.Errorf("X-Forwarded-For is %q: not Envoy's own alone", xff)
	}
	w.until("the access log tells the decision", func() bool {
		log := w.envoy.Stdout()
		return strings.Contains(log, tok.Grants[0].ID) && strings.Contains(log, "corp/report-bot")
	})
	if strings.Contains(w.envoy.Stdout(), tok.AccessToken[:40]) || strings.Contains(w.envoy.Stdout(), "format=csv") {
		t.Error("the access log holds a token or a query")
	}
}

// TestTrailersDoNotReachTheTool: a trailer is unseen by the check.
func TestTrailersDoNotReachTheTool(t *testing.T) {
	w, _ := open(t)
	tok := w.export(w.task()).AccessToken
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.front+exportCSV, io.NopCloser(strings.NewReader(october)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+tok)
		req.Header.Set("Content-Type", "application/json")
		req.Trailer = http.Header{"Authorization": {"Bearer evil"}, "X-Grant-Ctx-Agent": {"corp/root"}}
		hc := &http.Client{Transport: &http.Transport{Protocols: protocols(proto)}}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got, _ := w.tool.last()
		if resp.StatusCode == 200 && (len(got.Trailer) > 0 || strings.Contains(fmt.Sprint(got.Header), "evil") || got.Header.Get("X-Grant-Ctx-Agent") != "corp/report-bot") {
			t.Errorf("%s: %v, trailers %v", proto, got.Header, got.Trailer)
		}
		hc.CloseIdleConnections()
	}
}

// TestHalfARequest: what never arrived whole is never decided to run.
func TestHalfARequest(t *testing.T) {
	w, _ := open(t)
	tok := w.export(w.task()).AccessToken
	for name, rest := range map[string]string{
		"content-length, cut": "Content-Length: 19\r\n\r\n" + `{"month":`,
		"chunked, cut":        "Transfer-Encoding: chunked\r\n\r\n9\r\n" + `{"month":` + "\r\n",
		"both lengths":        "Content-Length: 19\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n" + october + "\r\n0\r\n\r\n",
	} {
		before := w.tool.calls()
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.front, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s", exportCSV, tok, rest)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if w.tool.calls() != before || strings.Contains(line, " 200 ") {
			t.Errorf("%s: %q, and the tool ran %d times", name, line, w.tool.calls()-before)
		}
	}
	// Whole, in two writes.
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.front, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n%s\r\n", exportCSV, tok, `{"month":`)
	time.Sleep(50 * time.Millisecond) // so that they are two writes to Envoy too
	fmt.Fprintf(conn, "a\r\n%s\r\n0\r\n\r\n", `"2026-10"}`)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("two writes: %v %v", resp, err)
	}
}

// TestWindow: a grant ends by time, by revocation and with its task, and each
// is told.
func TestWindow(t *testing.T) {
	w, _ := open(t)
	task := w.task()
	revoked := w.export(task, func(r *client.GrantRequest) { r.TTL = 100 * time.Second })
	w.wantCall(revoked.AccessToken, 200, "")
	if err := w.planner().Revoke(t.Context(), revoked.Grants[0].ID); err != nil {
		t.Fatal(err)
	}
	w.wantCall(revoked.AccessToken, 403, "revoked")
	if err := w.planner().Revoke(t.Context(), revoked.Grants[0].ID); err != nil {
		t.Fatalf("revoking twice: %v", err)
	}

	short := w.export(task, func(r *client.GrantRequest) { r.TTL = 2 * time.Second })
	w.until("the token's time is over", func() bool {
		a := w.call(short.AccessToken, "POST", exportCSV, october)
		if a.status == 200 && !time.Now().Before(short.Grants[0].ExpiresAt.Add(time.Second)) {
			t.Fatal("a call passed a second after the end")
		}
		return a.status == 401 && strings.Contains(a.body, "expired_token")
	})

	tok := w.export(task)
	w.wantCall(tok.AccessToken, 200, "")
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	w.wantCall(tok.AccessToken, 403, "task_ended")
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatalf("ending twice: %v", err)
	}
	if _, err := w.bot().Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task}); err == nil {
		t.Fatal("a grant was issued for a task that has ended")
	}
}

func TestConstraintThroughEnvoy(t *testing.T) {
	w, _ := open(t)
	tok := w.export(w.task(), func(r *client.GrantRequest) {
		r.Constraints = []json.RawMessage{json.RawMessage(`{"type":"object","required":["query","body"],"additionalProperties":false,"properties":{` +
			`"query":{"type":"object","required":["format"],"additionalProperties":false,"properties":{"format":{"type":"string","const":"csv"}}},` +
			`"body":{"type":"object","required":["month"],"additionalProperties":false,"properties":{"month":{"type":"string","pattern":"^(?:2026-(?:0[1-9]|1[0-2]))$"}}}}}`)}
	}).AccessToken
	for _, tc := range []struct {
		path, body string
		status     int
	}{
		{exportCSV, october, 200},
		{"/export?format=pdf", october, 403},
		{"/export", october, 403}, // an absent argument is not the pinned one
		{exportCSV, `{"month":"2025-10"}`, 403},
		{exportCSV, `{"month":"2026-10\n"}`, 403},
	} {
		before := w.tool.calls()
		reason := ""
		if tc.status == 403 {
			reason = "constraint"
		}
		w.check(w.call(tok, "POST", tc.path, tc.body), before, tc.status, reason)
	}
}

// TestBudgetOfOneThroughEnvoy: of 100 calls at once one runs; asking again, with
// or without a budget, refills nothing.
func TestBudgetOfOneThroughEnvoy(t *testing.T) {
	w, _ := open(t)
	task := w.task()
	one := func(r *client.GrantRequest) { r.MaxCalls = 1 }
	tok := w.export(task, one).AccessToken
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			a, err := w.try(http.DefaultClient, tok, "POST", exportCSV, october)
			if err == nil && a.status == 200 {
				allowed.Add(1)
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 1 || w.tool.calls() != 1 {
		t.Fatalf("%d calls were allowed and %d ran, on a budget of one", allowed.Load(), w.tool.calls())
	}
	for _, change := range []func(*client.GrantRequest){
		one, func(r *client.GrantRequest) { r.MaxCalls = 50 }, func(r *client.GrantRequest) { r.MaxCalls = 0 },
	} {
		w.wantCall(w.export(task, change, func(r *client.GrantRequest) { r.TTL = 200 * time.Second }).AccessToken, 403, "budget_spent")
	}
	w.wantCall(w.export(w.task()).AccessToken, 200, "") // another task has its own
}

// TestRecords: one line for each decision of either door, chained, and no
// secret in any file or stream.
func TestRecords(t *testing.T) {
	w, cmd := open(t)
	task := w.task()
	tok := w.export(task).AccessToken
	w.wantCall(tok, 200, "")
	w.wantCall("", 401, "no_credential")
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	w.wantCall(tok, 403, "task_ended")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	w.until("it has stopped", func() bool { return w.call("", "POST", exportCSV, october).status == 503 })
	text, err := os.ReadFile(w.cfg.Audit.File)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := audit.Verify(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s", r.Kind, r.Outcome, r.Reason))
	}
	want := []string{"start_task allow none", "grant allow none", "call allow none", "call deny no_credential", "end_task allow none", "call deny task_ended"}
	for len(got) > len(want) && got[len(got)-1] == "call deny no_credential" {
		got = got[:len(got)-1] // from waiting for the stop
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || int(sum.Lines) < len(want) {
		t.Fatalf("on record:\n%s", strings.Join(got, "\n"))
	}
	for _, secret := range []string{tok[:60], "2026-10"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the audit log holds %q", secret)
		}
	}
}
