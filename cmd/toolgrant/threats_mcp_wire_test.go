package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/client"
)

// What an answer to an attack on an MCP route is: its status and, where the call
// door gave it, the code and the id of its JSON-RPC error. The id is "id" for that
// of the request. attack.want may be a status alone, which goes for every code; of
// an answer that is none of the door's it is the status in any case. "ran" is any
// answer of the server's.
const (
	unparsed  = "400/-32700/null" // no JSON
	ambiguous = "400/-32600/null" // no one message
	invalid   = "400/-32600/id"
	badParams = "400/-32602/id"
	differs   = "400/-32020/id" // headers and body
	noMethod  = "403/-32601/id"
	denied    = "403/403/id"
	nobody    = "401/401/null"
	foreign   = "403/403/null" // host or origin
	noVerb    = "405/405/null"
)

// four are the ways in which attacks on MCP routes are sent.
var four = []way{fixedLength, chunkedBody, twoWrites, overHTTP2}

// rpcTarget is a world with four MCP servers that attacks are sent to: notes in
// every revision, legacy in 2025-11-25 alone, with a session, told, which tells
// denials by JSON-RPC, and jobs, whose calls go over the surface because they may
// become tasks.
type rpcTarget struct {
	*mcpWorld
	inTask   string
	tokens   map[string]string    // server -> token with a live grant of its write_note
	held     map[string]string    // server -> that grant
	self     map[string]string    // server -> identity token for it: no grant
	session  string               // of corp/report-bot's, at legacy
	other    string               // of another agent's, there
	stranger string               // identity token of that one, for legacy
	sessions []string             // that may have been opened
	sent     int                  // requests so far
	reached  map[string][]reached // mark -> what reached a server, when it was last looked at
	logged   string               // what ran, then
	arrived  int                  // those of them that reached a server
}

// anotherServer is notesServer by another name.
func anotherServer(id, more string) string {
	return strings.NewReplacer("id: notes", "id: "+id, "notes.internal", id+".internal", "/mcp/notes", "/mcp/"+id,
		"upstream_path: /mcp, denials: http", "upstream_path: /"+id+", "+more).Replace(notesServer)
}

func openRPCTarget(t *testing.T) *rpcTarget {
	t.Helper()
	servers := notesServer + strings.Replace(anotherServer("jobs", "denials: http"), "{tool: write_note,", "{tool: write_note, tasks: true,", 1) + anotherServer("legacy", `revisions: ["2025-11-25"], hosts: [mcp.example], origins: ["https://inspector.example"]`) + anotherServer("told", "denials: jsonrpc")
	m := &rpcTarget{mcpWorld: openMCP(t, servers, ""), tokens: map[string]string{}, held: map[string]string{}, self: map[string]string{}}
	of := m.seen.next
	m.seen.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jobs" {
			m.jobs(w, r)
			return
		}
		of.ServeHTTP(w, r)
	})
	m.upstream = m.cat.Servers[0].Upstream // of all of them
	task, err := m.planner().StartTask(t.Context(), client.TaskRequest{Kind: "monthly-report", Agents: []string{"corp/report-bot", "corp/other-bot"}})
	if err != nil {
		t.Fatal(err)
	}
	m.inTask = task.ID
	for i := range m.cat.Servers {
		id := m.cat.Servers[i].ID
		tok, grant := m.buy("report-bot", id, 15*time.Minute)
		m.tokens[id], m.held[id] = tok, grant.ID
		m.self[id] = m.identity("report-bot", m.cat.Servers[i].Resource, "reporting")
	}
	t.Cleanup(func() { // or the server keeps them for minutes
		for _, id := range m.sessions {
			req, _ := http.NewRequest("DELETE", "http://"+m.upstream+"/", nil)
			req.Header.Set("Mcp-Session-Id", id)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}
	})
	m.session = m.begin(t, "legacy", m.tokens["legacy"])
	m.stranger = m.identity("other-bot", "https://legacy.internal/mcp", "reporting")
	m.other = m.begin(t, "legacy", m.stranger)
	return m
}

// buy buys an agent a grant of the server's write_note.
func (m *rpcTarget) buy(agent, server string, ttl time.Duration) (token string, grant client.Grant) {
	m.t.Helper()
	tok, err := m.as(agent, "reporting").Exchange(m.t.Context(), client.GrantRequest{Tool: server + "/write_note", Task: m.inTask, TTL: ttl})
	if err != nil {
		m.t.Fatal(err)
	}
	return tok.AccessToken, tok.Grants[0]
}

// begin opens a session.
func (m *rpcTarget) begin(t *testing.T, server, token string) string {
	t.Helper()
	s := m.speaks(server, mcp.Rev20251125)
	s.session = ""
	hello := s.attack("", "initialize", helloParams)
	hello.fields = s.fields(token, "initialize")
	got := m.one(t, hello, fixedLength)
	s.session = got.header.Get("Mcp-Session-Id")
	if m.sessions = append(m.sessions, s.session); got.status != 200 || s.session == "" {
		t.Fatalf("initialize: %d %s", got.status, got.body)
	}
	ready := s.attack("", "", "")
	ready.fields, ready.body = s.fields(token, ""), `{"jsonrpc":"2.0","method":"notifications/initialized"}`
	if got := m.one(t, ready, fixedLength); got.status != 202 {
		t.Fatalf("initialized: %d %s", got.status, got.body)
	}
	return s.session
}

const helloParams = `"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}`

// one sends a request that reaches the server, and returns what it answers.
func (m *rpcTarget) one(t *testing.T, a attack, w way) answer {
	t.Helper()
	m.sent, m.arrived = m.sent+1, m.arrived+1
	a = a.numbered(m.sent - 1)
	return a.send(t, m.front, w, mark(m.sent-1))
}

// speaker is how an agent speaks to a server.
type speaker struct {
	*rpcTarget
	server, revision, session string
}

// speaks is corp/report-bot, with its session where there is one.
func (m *rpcTarget) speaks(server, revision string) speaker {
	s := speaker{rpcTarget: m, server: server, revision: revision}
	if server == "legacy" {
		s.session = m.session
	}
	return s
}

func (s speaker) modern() bool { return s.revision == mcp.Rev20260728 }

// body is a request. params are members, without braces.
func (s speaker) body(method, params string) string {
	meta := `"com.example/a":1`
	if s.modern() {
		meta = `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}`
	}
	if params != "" {
		params = "," + params
	}
	return `{"jsonrpc":"2.0","id":` + theID + `,"method":"` + method + `","params":{"_meta":{` + meta + `}` + params + `}}`
}

// fields are those of a request; name is what its Mcp-Name says, if there is one.
func (s speaker) fields(token, method string, name ...string) []string {
	f := bearer(token, "accept", "application/json, text/event-stream", "mcp-protocol-version", s.revision)
	if s.session != "" {
		f = append(f, "mcp-session-id", s.session)
	}
	if s.modern() && method != "" {
		f = append(f, "mcp-method", method)
		for _, n := range name {
			f = append(f, "mcp-name", n)
		}
	}
	return f
}

// attack is a request with the grant's token. name is that of the attack.
func (s speaker) attack(name, method, params string) attack {
	return attack{name: name, host: s.server + ".internal", path: "/mcp/" + s.server, fields: s.fields(s.tokens[s.server], method), body: s.body(method, params)}
}

// theNote is what the grant is for. Its text tells one call from another; its name
// is in no other message.
const (
	theName = "work/a"
	theNote = `"note":"` + theName + `","text":"` + theID + `"`
	theCall = `"name":"write_note","arguments":{` + theNote + `}`
)

// write is the granted call: what is to be changed of it.
func (s speaker) write(name string) attack {
	a := s.attack(name, mcp.ToolsCall, theCall)
	a.fields, a.want = s.fields(s.tokens[s.server], mcp.ToolsCall, "write_note"), "200"
	return a
}

func (s speaker) good() good {
	a := s.write("")
	return good{host: a.host, path: a.path, fields: a.fields, body: a.body, upstream: s.upstream, otherHost: foreign}
}

// hold sends attacks to the speaker's server, in each of the four ways that can say
// them, and holds what came of each.
func (s speaker) hold(t *testing.T, attacks []attack) {
	t.Helper()
	shots := fire(t, s.front, attacks, four, s.sent)
	s.sent += len(shots)
	s.look()
	for _, shot := range shots {
		t.Run(shot.name+"/"+shot.way.name, func(t *testing.T) { s.judge(t, shot.attack, shot.got, shot.n) })
	}
	// A request that hid in another would be one more, without a mark of ours.
	if n := s.seen.count(); n != s.arrived {
		t.Errorf("%d requests reached the servers, and %d of these are accounted for", n, s.arrived)
	}
	if strings.Contains(s.logged, "delete_note") {
		t.Errorf("what ran:\n%s", s.logged)
	}
}

// reached is a request as a server got it.
type reached struct {
	*http.Request
	body string
}

// look takes note of what has reached the servers, and what they ran.
func (m *rpcTarget) look() {
	m.logged = m.ran.String()
	m.reached = map[string][]reached{}
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	for i, r := range m.seen.seen {
		m.reached[r.UserAgent()] = append(m.reached[r.UserAgent()], reached{r, m.seen.body[i]})
	}
}

// judge holds the answer to the n-th request, and what reached the server.
func (s speaker) judge(t *testing.T, a attack, got answer, n int) {
	t.Helper()
	said, byDoor := saidBy(got, n)
	s.sessions = append(s.sessions, got.header.Get("Mcp-Session-Id"))
	wants := strings.Fields(a.want)
	reached := !byDoor && (got.status >= 200 && got.status < 300 || slices.Contains(wants, "ran"))
	switch status, _, _ := strings.Cut(said, "/"); {
	case slices.Contains(wants, said), slices.Contains(wants, "ran") && !byDoor:
	case byDoor && got.status >= 400 && slices.Contains(wants, status):
	default:
		t.Errorf("answer %s: %s; want %s", said, got.body, a.want)
	}
	sent := a.body
	if a.http1 != "" {
		sent = strings.ReplaceAll(s.write("").body, theID, idOf(n))
	}
	arrived := s.reached[mark(n)]
	s.arrived += len(arrived)
	for _, c := range arrived {
		r := c.Request
		verb, path := cmp.Or(a.method, "POST"), map[string]string{"notes": "/mcp"}[s.server]
		if r.Method != verb || r.RequestURI != cmp.Or(path, "/"+s.server) || r.Host != s.upstream || len(r.Trailer) > 0 {
			t.Errorf("the server got %s %s of %s, trailers %v", r.Method, r.RequestURI, r.Host, r.Trailer)
		}
		if c.body != sent {
			t.Errorf("the server got %q, and %q was sent", c.body, sent)
		}
		context := map[string]string{"Agent": "corp/report-bot"}
		if r.Header.Get("X-Grant-Ctx-Grant") != "" || strings.Contains(sent, theName) {
			context["Task"], context["Grant"] = s.inTask, s.held[s.server]
		}
		if tool, ok := strings.CutPrefix(r.Header.Get("X-Grant-Ctx-Tool"), s.server+"/"); ok && strings.Contains(sent, `"`+tool+`"`) || strings.Contains(sent, theName) {
			context["Tool"] = s.server + "/" + cmp.Or(tool, "write_note")
		}
		told(t, r, context)
	}
	if len(arrived) > 1 || (len(arrived) == 1) != reached {
		t.Fatalf("answer %s, and it reached the server %d times", said, len(arrived))
	}
	wrote := strings.Count(s.logged, "text="+idOf(n))
	if want := said == "200" && strings.Contains(sent, theName); wrote > 1 || (wrote == 1) != want && !slices.Contains(wants, "ran") {
		t.Errorf("answer %s: %s, and the tool ran %d times", said, got.body, wrote)
	}
}

// saidBy is what an answer to the n-th request says, as attack.want has it.
func saidBy(got answer, n int) (said string, byDoor bool) {
	if got.status == 0 {
		return "ended", false
	}
	var rpc struct {
		ID    json.RawMessage `json:"id"`
		Error struct {
			Code int `json:"code"`
			Data struct {
				Decision string `json:"decision_id"`
			} `json:"data"`
		} `json:"error"`
	}
	if json.Unmarshal([]byte(got.body), &rpc) != nil || rpc.Error.Data.Decision == "" {
		return strconv.Itoa(got.status), false
	}
	return fmt.Sprintf("%d/%d/%s", got.status, rpc.Error.Code, strings.Replace(string(rpc.ID), idOf(n), "id", 1)), true
}
