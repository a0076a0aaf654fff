package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rawMCP is a server of one revision with sessions, whose answers to tools/list
// are written by hand. It notes the headers of the last request.
type rawMCP struct {
	url string

	mu   sync.Mutex
	last http.Header
	gone bool // the session was ended
}

func startRaw(t *testing.T, list func(w http.ResponseWriter, id, cursor string)) *rawMCP {
	t.Helper()
	s := &rawMCP{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.last, s.gone = r.Header.Clone(), s.gone || r.Method == http.MethodDelete
		s.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		var m struct {
			ID     json.RawMessage
			Method string
			Params struct{ Cursor string }
		}
		_ = json.Unmarshal(body, &m)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		switch m.Method {
		case "initialize":
			w.Header().Set("Mcp-Session-Id", "s1")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"raw","version":"1"}}}`, m.ID)
		case "notifications/initialized":
			w.WriteHeader(http.StatusAccepted)
		case "tools/list":
			list(w, string(m.ID), m.Params.Cursor)
		default:
			http.Error(w, strings.Repeat("not here ", 2<<20), http.StatusNotFound) // of which nobody wants all
		}
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL + "/mcp"
	return s
}

// listing answers each tools/list with the same text; ID stands for the id.
func listing(answer string) func(http.ResponseWriter, string, string) {
	return func(w http.ResponseWriter, id, _ string) {
		if strings.HasPrefix(answer, "data:") || strings.HasPrefix(answer, ":") {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		io.WriteString(w, strings.ReplaceAll(answer, "ID", id))
	}
}

const fineTool = `{"name":"fine","inputSchema":{"type":"object"}}`

func listed(tools string) string {
	return `{"jsonrpc":"2.0","id":ID,"result":{"tools":[` + tools + `]}}`
}

func TestAnswersThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"a member twice":         {listed(fineTool + `,{"name":"evil","name":"good","inputSchema":{"type":"object"}}`), `the tool "good" (number 2 of its list) describes itself in a way that cannot be read strictly: JSON at byte `},
		"two cases":              {listed(`{"name":"evil","inputSchema":{"type":"object","properties":{"a":{},"A":{}}}}`), `the tool "evil" (number 1 of its list)`},
		"a number":               {listed(`{"name":"evil","inputSchema":{"type":"object","maxProperties":9007199254740993}}`), `the tool "evil" (number 1 of its list)`},
		"two lists":              {`{"jsonrpc":"2.0","id":ID,"result":{"tools":[` + fineTool + `],"tools":[]}}`, "its list of tools cannot be read strictly"},
		"two results":            {`{"jsonrpc":"2.0","id":ID,"result":{"tools":[]},"Result":{"tools":[]}}`, "its list of tools cannot be read strictly"},
		"a batch":                {`[` + listed(fineTool) + `]`, "no JSON-RPC message"},
		"another's answer":       {strings.ReplaceAll(listed(fineTool), "ID", "77"), "answers tools/list with another message"},
		"cut short":              {listed(fineTool)[:40], "cannot be read strictly"},
		"a stream cut short":     {"data: " + listed(fineTool) + "\n", "ends its answer to tools/list before it has given one"},
		"a stream that lies":     {"data: {\"id\":ID,\"id\":0}\n\ndata: " + listed(fineTool) + "\n\n", "cannot be read strictly"},
		"no tools":               {`{"jsonrpc":"2.0","id":ID,"result":{}}`, `none of "tools"`},
		"no list":                {`{"jsonrpc":"2.0","id":ID,"result":[]}`, "listing its tools"},
		"an error":               {`{"jsonrpc":"2.0","id":ID,"error":{"code":-32603,"message":"out \u001b[2J of order"}}`, "out ?[2J of order"},
		"a tool twice":           {listed(fineTool + "," + fineTool), `the tool "fine" twice`},
		"no name":                {listed(`{"inputSchema":{"type":"object"}}`), "a tool without a name"},
		"no schema":              {listed(`{"name":"fine"}`), `the tool "fine": its descriptor: `},
		"a tool that is none":    {listed(`null`), "a tool without a name"},
		"always the same page":   {`{"jsonrpc":"2.0","id":ID,"result":{"tools":[],"nextCursor":"x"}}`, "leads back to a page"},
		"more than may be":       {"data: " + strings.Repeat("x", maxMCPAnswers), "more than 16777216 bytes"},
		"more than may be, JSON": {`"` + strings.Repeat("x", maxMCPAnswers), "more than 16777216 bytes"},
		"more lines than may be": {strings.Repeat(": "+strings.Repeat("x", 1<<20)+"\n", 17), "more than 16777216 bytes"},
	} {
		s := startRaw(t, listing(tc.answer))
		got := importFrom(t, s.url)
		if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, s.url+": ") || !strings.Contains(got.stderr, tc.want) || strings.Contains(got.stderr, "\x1b") {
			t.Errorf("%s: %d, stdout %q, stderr %q", name, got.code, got.stdout, got.stderr)
		}
	}
}

// What may be between a request and its answer is passed over.
func TestAnswersInStreams(t *testing.T) {
	answer := listed(fineTool)
	cut := strings.Index(answer, `"result"`)
	for name, stream := range map[string]string{
		"alone":         "data: " + answer + "\n\n",
		"CR LF":         ": hello\r\nid: 7\r\ndata:\r\n\r\nevent: message\r\ndata:" + answer + "\r\n\r\n",
		"CR":            ":\rdata: " + answer + "\r\r",
		"in two":        "data: " + answer[:cut] + "\ndata: " + answer[cut:] + "\n\n",
		"behind others": "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":ID,\"method\":\"ping\"}\n\nevent: other\ndata: what is this\n\ndata: " + answer + "\n\n",
		"then anything": "data: " + answer + "\n\ndata: {{{\n\n",
	} {
		s := startRaw(t, listing(strings.Replace(stream, "data: ", "data: ", 1)))
		if name == "CR LF" || name == "CR" {
			s = startRaw(t, func(w http.ResponseWriter, id, _ string) {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, strings.ReplaceAll(stream, "ID", id))
			})
		}
		i, err := importMCP(t.Context(), importOptions{URL: s.url})
		if err != nil || len(i.tools) != 1 || i.tools[0].Name != "fine" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// More tools, or pages, than may be.
func TestAnswersWithoutEnd(t *testing.T) {
	page := 0
	s := startRaw(t, func(w http.ResponseWriter, id, _ string) {
		page++
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"tools":[],"nextCursor":"%d"}}`, id, page)
	})
	if _, err := importMCP(t.Context(), importOptions{URL: s.url}); err == nil || !strings.Contains(err.Error(), "more than 1000 pages") || page != maxMCPPages {
		t.Errorf("%v after %d", err, page)
	}
	var many []string
	for n := range maxMCPTools + 1 {
		many = append(many, fmt.Sprintf(`{"name":"t%d","inputSchema":{"type":"object"}}`, n))
	}
	s = startRaw(t, listing(listed(strings.Join(many, ","))))
	if _, err := importMCP(t.Context(), importOptions{URL: s.url}); err == nil || !strings.Contains(err.Error(), "more than 10000 tools") {
		t.Error(err)
	}
	s = startRaw(t, listing(listed(strings.Join(many[1:], ","))))
	if _, err := importMCP(t.Context(), importOptions{URL: s.url}); err == nil || !strings.Contains(err.Error(), "its 10000 tools make a catalogue of ") {
		t.Error(err)
	}
}

// The session is ended, and in it the server was spoken to as it wants.
func TestAnswersEndTheSession(t *testing.T) {
	s := startRaw(t, listing(listed(fineTool)))
	got := importFrom(t, s.url, "--header", "X-Tenant: a", "--header", "x-tenant:b")
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gone || got.code != exitDone || !strings.Contains(got.stdout, `revisions: ["2025-06-18"]`) || strings.Join(s.last["X-Tenant"], " ") != "a b" || s.last.Get("Authorization") != "" {
		t.Errorf("%+v, %v", got, s.last)
	}
}

func TestServersThatRefuse(t *testing.T) {
	file := tokenFile(t, "s3cret", 0o600)
	inner := startRaw(t, listing(listed(fineTool)))
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			w.Header().Set("WWW-Authenticate", "Bearer scope=\"x\u00e9\"")
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		req, _ := http.NewRequestWithContext(r.Context(), r.Method, inner.url, r.Body)
		req.Header = r.Header
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		for name, v := range resp.Header {
			w.Header()[name] = v
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	defer door.Close()
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitFailed, `"401 Unauthorized" (Bearer scope="x`},
		{nil, exitFailed, "give a token for it by --bearer-file FILE"},
		{[]string{"--bearer-file", file}, exitDone, ""},
		{[]string{"--header", "Authorization: Bearer s3cret"}, exitDone, ""},
		{[]string{"--bearer-file", tokenFile(t, "wr0ng", 0o600)}, exitFailed, "to the credential that it was given"},
		{[]string{"--bearer-file", tokenFile(t, "s3cret\nmore", 0o600)}, exitUsage, "more than a line in it"},
	} {
		got := importFrom(t, door.URL, tc.args...)
		if got.code != tc.code || (got.stdout != "") != (tc.code == exitDone) || !strings.Contains(got.stderr, tc.want) || tc.want == "" && got.stderr != "" || strings.Contains(got.stderr, "s3cret") {
			t.Errorf("%v: %+v", tc.args, got)
		}
	}

	// A redirect is not followed, least of all with the token.
	called := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer elsewhere.Close()
	asked := 0
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer moved.Close()
	got := importFrom(t, moved.URL, "--bearer-file", file)
	if got.code != exitFailed || !strings.Contains(got.stderr, elsewhere.URL) || called || asked != 1 {
		t.Errorf("%v, %d, %+v", called, asked, got)
	}

	for name, tc := range map[string]struct {
		door http.HandlerFunc
		want string
	}{
		"a web site": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, "is the path right?"},
		"nothing":    {http.NotFound, "does not speak MCP over Streamable HTTP there"},
		"busy":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "Service Unavailable"},
	} {
		srv := httptest.NewServer(tc.door)
		if got := importFrom(t, srv.URL); got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, tc.want) {
			t.Errorf("%s: %+v", name, got)
		}
		srv.Close()
	}
}

// One that never answers, or never ends: --timeout does.
func TestServersThatHang(t *testing.T) {
	for name, some := range map[string]string{"never answers": "", "never ends": ": still thinking\n"} {
		ended := make(chan struct{})
		defer close(ended)
		s := startRaw(t, func(w http.ResponseWriter, _, _ string) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, some)
			w.(http.Flusher).Flush()
			<-ended
		})
		start := time.Now()
		got := importFrom(t, s.url, "--timeout", "300ms")
		if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "no whole answer within 300ms; a longer --timeout may help") || time.Since(start) > 20*time.Second {
			t.Errorf("%s: after %v: %+v", name, time.Since(start), got)
		}
	}
}

func TestReportSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := reportSlow(&out, "still asking")
		s.now("one")
		time.Sleep(slow + time.Second)
		s.now("two")
		time.Sleep(slow)
		s.stop()
		if out.String() != "still asking: one\nstill asking: two\n" {
			t.Errorf("%q", out.String())
		}
	})
}
