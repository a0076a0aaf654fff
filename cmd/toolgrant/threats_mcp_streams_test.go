package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// TestThreatsToMCPStreams (R17): a stream that was opened under a grant ends with
// it, however it was asked for; one that rests on no grant goes on beside it.
// (That a revocation does not cut it is a stated limit.)
func TestThreatsToMCPStreams(t *testing.T) {
	m := openRPCTarget(t)
	self := m.self["legacy"]
	control := make(chan answer, 1)
	watch := m.speaks("legacy", mcp.Rev20251125).verb("GET", self)
	m.sent++
	go func() { control <- watch.send(t, m.front, fixedLength, mark(m.sent-1)) }()
	m.until("a stream without a grant is open", func() bool { return m.streams(mark(m.sent - 1)) })

	const short = 3 * time.Second
	type stream struct {
		name, server string
		way          way
		open         func(token string) attack
	}
	var streams []stream
	for _, w := range []way{fixedLength, overHTTP2} {
		session := m.begin(t, "legacy", self) // the server has one such stream in each
		streams = append(streams, stream{"GET", "legacy", w, func(token string) attack {
			s := m.speaks("legacy", mcp.Rev20251125)
			s.session = session
			return s.verb("GET", token)
		}})
	}
	for _, w := range four {
		streams = append(streams, stream{"subscriptions|listen", "notes", w, func(token string) attack {
			s := m.speaks("notes", mcp.Rev20260728)
			a := s.attack("", "subscriptions/listen", someParams["subscriptions/listen"])
			a.fields = s.fields(token, "subscriptions/listen")
			return a
		}})
	}
	var group sync.WaitGroup
	first := m.sent
	m.sent += len(streams)
	for i, s := range streams {
		group.Go(func() {
			token, grant := m.buy("report-bot", s.server, short)
			a := s.open(token).numbered(first + i)
			got := a.send(t, m.front, s.way, mark(first+i))
			late := time.Since(grant.ExpiresAt)
			switch {
			case got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/event-stream"):
				t.Errorf("%s over %s: %d %s", s.name, s.way.name, got.status, got.body)
			case late < -time.Second || late > patient:
				t.Errorf("%s over %s: it ended %v after its grant", s.name, s.way.name, late)
			}
		})
	}
	group.Wait()
	select {
	case got := <-control:
		t.Errorf("the stream without a grant ended, too: %d %s", got.status, got.body)
	default:
	}

	// Where the task has ended, none is opened any more; and who ends a session ends
	// the streams of it.
	s := m.speaks("legacy", mcp.Rev20251125)
	if err := m.planner().EndTask(t.Context(), m.inTask); err != nil {
		t.Fatal(err)
	}
	got := s.verb("GET", m.tokens["legacy"])
	if a := got.send(t, m.front, fixedLength, "late"); a.status != http.StatusForbidden || !strings.Contains(a.body, "task_ended") {
		t.Errorf("GET after the task's end: %d %s", a.status, a.body)
	}
	end := s.verb("DELETE", self)
	if a := end.send(t, m.front, overHTTP2, "end"); a.status >= 300 {
		t.Errorf("DELETE: %d %s", a.status, a.body)
	}
	select {
	case <-control:
	case <-time.After(patient):
		t.Error("the stream outlives its session")
	}
	if a := end.send(t, m.front, overHTTP2, "end"); a.status != http.StatusNotFound {
		t.Errorf("DELETE of a session that has ended: %d %s", a.status, a.body)
	}
}

// verb is a request without a message.
func (s speaker) verb(method, token string) attack {
	a := s.attack("", "", "")
	a.method, a.body, a.fields = method, "", s.fields(token, "")
	return a.set("", "", "content-type")
}

// streams reports whether the request with that mark has reached the server.
func (m *rpcTarget) streams(mark string) bool {
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	for _, r := range m.seen.seen {
		if r.UserAgent() == mark {
			return true
		}
	}
	return false
}

// TestThreatsToMCPPartialBody (R06): what TestPartialBody is of HTTP tools. The part
// that is checked is a good message by itself, and blanks follow.
func TestThreatsToMCPPartialBody(t *testing.T) {
	m := openRPCTarget(t)
	s := m.speaks("notes", mcp.Rev20260728)
	whole := s.write("R06 the whole")
	m.sendParts(t, len(whole.body))
	const tooLarge = "413/-32600/null"
	part := whole.plus("R06 a part that is whole by itself", tooLarge)
	part.body += strings.Repeat(" ", 100)
	evil := whole.plus("R06 a part, and another message behind it", tooLarge)
	evil.body += s.call("delete_note", `"note":"work/b"`).body
	trailers := part.plus("R06 a part, with trailers", tooLarge)
	trailers.trailers = []string{"x-evil", "1"}
	s.hold(t, []attack{whole, part, evil, trailers, part.plus("R06 a part, and the client says that it is not", tooLarge, "x-envoy-auth-partial-body", "false")})
}

// TestThreatsToMCPPipelined (R10): a request behind another on its connection is
// one of its own, whatever became of the first.
func TestThreatsToMCPPipelined(t *testing.T) {
	m := openRPCTarget(t)
	for _, s := range []speaker{m.speaks("notes", mcp.Rev20260728), m.speaks("legacy", mcp.Rev20251125)} {
		good := s.write("good").plus("good", "200")
		bad := s.call("delete_note", `"note":"work/b"`).plus("another tool", denied)
		broken := good.plus("broken", unparsed)
		broken.body = "{" + broken.body
		anonymous := good.set("no token", nobody, "authorization")
		all := []attack{good, bad, broken, anonymous}
		if s.session != "" {
			all = append(all, good.set("another agent's session", denied, "mcp-session-id", s.other), good.set("an unknown session", "404/404/id", "mcp-session-id", "evil"))
		}
		var pairs []*pipeline
		for _, first := range all {
			for _, second := range all {
				for _, w := range []way{fixedLength, chunkedBody, twoWrites} {
					pairs = append(pairs, &pipeline{way: w, n: s.sent, sent: [2]attack{first.numbered(s.sent), second.numbered(s.sent + 1)}})
					s.sent += 2
				}
			}
		}
		var group sync.WaitGroup
		for _, p := range pairs {
			group.Go(func() { p.send(t, s.front) })
		}
		group.Wait()
		s.look()
		for _, p := range pairs {
			t.Run(s.server+"/"+p.sent[0].name+", then "+p.sent[1].name+"/"+p.way.name, func(t *testing.T) {
				if p.got[0].status == http.StatusBadRequest && p.got[1].status == 0 {
					p.sent[1].want = "ended" // Envoy hangs up on whom it has told that
				}
				for i := range p.sent {
					s.judge(t, p.sent[i], p.got[i], p.n+i)
				}
			})
		}
		if n := s.seen.count(); n != s.arrived {
			t.Errorf("%d requests reached the servers, and %d of these are accounted for", n, s.arrived)
		}
	}
}

// pipeline is two requests on one connection.
type pipeline struct {
	way  way
	n    int // the first one's; the second has the next
	sent [2]attack
	got  [2]answer
}

// send writes both, and then reads what answers there are.
func (p *pipeline) send(t *testing.T, front string) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(front, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second)) // only a fault is that slow
	var text string
	for i := range p.sent {
		text += strings.Replace(p.sent[i].text1(p.way, mark(p.n+i)), "Connection: close\r\n", "", 1)
	}
	if p.way.pause > 0 { // inside the first one's body
		at := bodyAt(text) + 5
		_, _ = io.WriteString(conn, text[:at])
		time.Sleep(p.way.pause) // it is the attack
		text = text[at:]
	}
	_, _ = io.WriteString(conn, text)
	r := bufio.NewReader(conn)
	for i := range p.got {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		p.got[i] = answer{resp.StatusCode, resp.Header, string(body)}
	}
}

// TestThreatsToMCPTasks (R15): what a call has started is told to its agent under
// its grant, and to nobody else.
func TestThreatsToMCPTasks(t *testing.T) {
	m := openRPCTarget(t)
	for _, revision := range []string{mcp.Rev20251125, mcp.Rev20260728} {
		t.Run(revision, func(t *testing.T) {
			s := m.speaks("jobs", revision)
			start := s.write("")
			if !s.modern() {
				start.body = strings.Replace(start.body, `"name":`, `"task":{},"name":`, 1)
			}
			id := jobOf(m.sent)
			if got := m.one(t, start, fixedLength); got.status != 200 || !strings.Contains(got.body, id) {
				t.Fatalf("%d %s", got.status, got.body)
			}
			mine := m.tokens["jobs"]
			stranger := m.identity("other-bot", "https://jobs.internal/mcp", "reporting")
			theirs, _ := m.buy("other-bot", "jobs", 15*time.Minute)
			another, _ := m.buy("report-bot", "jobs", 15*time.Minute)
			var attacks []attack
			for _, method := range []string{"tasks/get", "tasks/result", "tasks/cancel", "tasks/update"} {
				if known, _ := mcp.Lookup(method, mcp.Request); !known.In(revision) {
					continue
				}
				params := func(id string) string {
					return strings.Replace(someParams[method], "t1", id, 1)
				}
				ask := func(who, want, token, id string) {
					a := s.attack("R15 "+strings.ReplaceAll(method, "/", "|")+" "+who, method, params(id))
					a.fields, a.want = s.fields(token, method, id), want
					attacks = append(attacks, a)
				}
				ask("under its grant", "200", mine, id)
				ask("of its agent's, with no grant", denied, m.self["jobs"], id)
				ask("of its agent's, under another grant", denied, another, id)
				ask("of another agent's", denied, stranger, id)
				ask("of another agent's, with a grant of the tool", denied, theirs, id)
				ask("of none", denied, mine, id+"x")
				ask("in capitals", denied, mine, strings.ToUpper(id))
			}
			related := s.write("R15 a call that says it belongs to a task of none")
			related.body = strings.Replace(related.body, `"_meta":{`, `"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t9"},`, 1)
			related.want = denied
			attacks = append(attacks, related)
			if s.modern() {
				listen := s.attack("R15 subscriptions|listen to a task of none", "subscriptions/listen", `"notifications":{"taskIds":["`+id+`","t9"]}`)
				listen.want = denied
				attacks = append(attacks, listen)
			}
			s.hold(t, attacks)
		})
	}
}

// jobOf is the id of the task that the n-th request started.
func jobOf(n int) string { return "job-" + idOf(n) }

// jobs is an MCP server that makes a task of each call that may become one, and has
// an empty result for all else.
func (m *rpcTarget) jobs(w http.ResponseWriter, r *http.Request) {
	var msg struct {
		ID     json.RawMessage
		Method string
		Params struct {
			Task      any
			Arguments struct{ Text string }
		}
	}
	if json.NewDecoder(r.Body).Decode(&msg) != nil || msg.ID == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	result, job := "{}", "job-"+msg.Params.Arguments.Text
	if msg.Method == mcp.ToolsCall {
		fmt.Fprintf(m.ran, "tool=write_note text=%s\n", msg.Params.Arguments.Text)
		if result = `{"content":[]}`; msg.Params.Task != nil {
			result = `{"task":{"taskId":"` + job + `","status":"working","ttl":null}}`
		} else if r.Header.Get("Mcp-Protocol-Version") == mcp.Rev20260728 {
			result = `{"resultType":"task","taskId":"` + job + `"}`
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, msg.ID, result)
}
