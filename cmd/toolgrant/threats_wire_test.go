package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attack is one request of the threat list. It is written to the wire as it
// stands here, over HTTP/1.1 and HTTP/2 alike: a client library would mend it.
type attack struct {
	name         string   // begins with the row: "T01 …"
	method, path string   // "": POST exportCSV
	host         string   // "": a
	fields       []string // name, value, …
	body         string
	trailers     []string // fields behind the body; if not nil, HTTP/1.1 sends it in chunks

	// One of these instead of all that: what only one protocol can say. MARK in
	// it is put in place of what tells the tool's calls apart.
	http1 string   // a request's bytes
	http2 []string // a request's fields; body and trailers are as above

	hangUp bool // over HTTP/1.1: the client writes no more behind it
	stream bool // what answers it goes on: its head is enough

	// want are the statuses that are right, with blanks between; "ended" is a
	// stream or connection that was closed without an answer. 200 is right for a
	// request only if the tool ran once, and got it as it was decided.
	want  string
	oauth string // what WWW-Authenticate says with a 401 or 403 (RFC 6750, Section 3); "": anything
}

// mayEnd is a refusal by Envoy, which ends what is no HTTP.
const mayEnd = "400 404 ended"

// target is a world that attacks are sent to, with a live grant of reports/export.
type target struct {
	*world
	inTask, grant string // of the token
	token         string
	sent          int // requests so far
	ran           int // those of them that the tool ran
}

// bearer are the fields of a good request with another token.
func bearer(token string, more ...string) []string {
	return append([]string{"authorization", "Bearer " + token, "content-type", "application/json"}, more...)
}

// good is a request that must pass, for attacks that change one thing of it.
type good struct {
	host, path, body string
	fields           []string // the credential comes first
	upstream         string   // host:port of what it is for
	otherHost        string   // attack.want where the host alone is another
}

func (w *target) good() good {
	return good{host: "a", path: exportCSV, body: october, fields: bearer(w.token), upstream: w.upstream, otherHost: "200"}
}

// head1 is its head in HTTP/1.1, up to what says how long the body is.
func (g good) head1() string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: MARK\r\nConnection: close\r\n", g.path, g.host)
	for i := 0; i+1 < len(g.fields); i += 2 {
		b.WriteString(g.fields[i] + ": " + g.fields[i+1] + "\r\n")
	}
	return b.String()
}

// length and chunks are the rest of it.
func (g good) length() string {
	return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(g.body), g.body)
}

func (g good) chunks() string {
	return fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(g.body), g.body)
}

// fields2 are its fields in HTTP/2.
func (g good) fields2() []string {
	return (&attack{host: g.host, path: g.path, fields: g.fields}).fields2("MARK")
}

// way is how a request goes over the wire.
type way struct {
	name    string
	http2   bool          // in frames, the body in two at least
	chunked bool          // over HTTP/1.1: without Content-Length
	pause   time.Duration // over HTTP/1.1: between two writes, the second of which begins inside the body
}

var (
	fixedLength = way{name: "HTTP/1.1"}
	chunkedBody = way{name: "chunked", chunked: true}
	twoWrites   = way{name: "two writes", pause: 150 * time.Millisecond}
	overHTTP2   = way{name: "HTTP/2", http2: true}
)

// in reports whether the request can be said in that way.
func (a *attack) in(w way) bool {
	switch {
	case w.http2:
		return a.http1 == ""
	case a.http2 != nil:
		return false
	case w.chunked: // with trailers it is in any case
		return a.http1 == "" && a.body != "" && a.trailers == nil
	case w.pause > 0:
		return a.http1 != "" && bodyAt(a.http1) < len(a.http1) || a.body != ""
	}
	return true
}

// theID stands in an attack for a JSON-RPC id, which no two requests share, or an
// MCP server could not tell them apart. It has as many bytes.
const theID = "IDIDID"

func idOf(n int) string { return strconv.Itoa(100_000 + n) }

// numbered is the attack with the n-th id.
func (a attack) numbered(n int) attack {
	a.body, a.http1 = strings.ReplaceAll(a.body, theID, idOf(n)), strings.ReplaceAll(a.http1, theID, idOf(n))
	return a
}

// bodyAt is where the head of a request of HTTP/1.1 ends.
func bodyAt(text string) int {
	if i := strings.Index(text, "\r\n\r\n"); i >= 0 {
		return i + 4
	}
	return len(text)
}

// shot is an attack that is sent in one way.
type shot struct {
	attack
	way way
	n   int // it has the mark of
	got answer
}

// fire sends all that can be said in each of the ways, the first with the mark
// of from.
func fire(t *testing.T, front string, attacks []attack, ways []way, from int) []shot {
	t.Helper()
	var shots []shot
	for _, a := range attacks {
		for _, w := range ways {
			if a.in(w) {
				n := from + len(shots)
				shots = append(shots, shot{attack: a.numbered(n), way: w, n: n})
			}
		}
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, 64)
	for i := range shots { // at once: Envoy takes a second to hang up
		room <- struct{}{}
		wg.Go(func() {
			shots[i].got = shots[i].send(t, front, shots[i].way, mark(shots[i].n))
			<-room
		})
	}
	wg.Wait()
	return shots
}

// hold sends attacks, over each protocol that can say them, and holds what came
// of each, in a subtest of its own.
func (w *target) hold(t *testing.T, attacks []attack) {
	t.Helper()
	shots := fire(t, w.front, attacks, []way{fixedLength, overHTTP2}, w.sent)
	w.sent += len(shots)
	for _, s := range shots {
		t.Run(s.name+"/"+s.way.name, func(t *testing.T) { w.judge(t, s.attack, s.got, mark(s.n)) })
	}
	// A request that hid in another would be one more, without a mark of ours.
	if n := w.tool.calls(); n != w.ran {
		t.Errorf("the tool ran %d times, and %d of these are accounted for", n, w.ran)
	}
}

// covers fails unless there is an attack of each row.
func covers(t *testing.T, attacks []attack, rows []string) {
	t.Helper()
	for _, row := range rows {
		if !slices.ContainsFunc(attacks, func(a attack) bool { return strings.HasPrefix(a.name, row+" ") }) {
			t.Errorf("no attack of row %s", row)
		}
	}
}

func mark(n int) string { return fmt.Sprintf("attack-%d.", n) }

// judge holds one answer, and what the tool got.
func (w *target) judge(t *testing.T, a attack, got answer, mark string) {
	status := "ended"
	if got.status != 0 {
		status = strconv.Itoa(got.status)
	}
	if !slices.Contains(strings.Fields(a.want), status) {
		t.Errorf("answer %s %s; want %s", status, got.body, a.want)
	}
	if challenge := got.header.Get("Www-Authenticate"); a.oauth != "" && (got.status == 401 || got.status == 403) {
		if !strings.HasPrefix(challenge, `Bearer error="`+a.oauth+`", `) || !strings.Contains(challenge, `resource_metadata="https://`) || !strings.Contains(got.body, `"error":"`+a.oauth+`"`) {
			t.Errorf("WWW-Authenticate is %q, the body %s; want %s", challenge, got.body, a.oauth)
		}
	}
	var runs []int
	w.tool.mu.Lock()
	defer w.tool.mu.Unlock()
	for i, r := range w.tool.seen {
		if r.UserAgent() == mark {
			runs = append(runs, i)
		}
	}
	if want := got.status == 200; want != (len(runs) == 1) || len(runs) > 1 {
		t.Fatalf("answer %s, and the tool ran %d times", status, len(runs))
	}
	for _, i := range runs {
		w.ran++
		r := w.tool.seen[i]
		if r.Method != "POST" || r.RequestURI != exportCSV || r.Host != "reports.internal" || len(r.Trailer) > 0 {
			t.Errorf("the tool got %s %s of %s, trailers %v", r.Method, r.RequestURI, r.Host, r.Trailer)
		}
		if want := cmp.Or(a.body, october); w.tool.body[i] != want {
			t.Errorf("the tool got %q, and %q was sent", w.tool.body[i], want)
		}
		told(t, r, map[string]string{"Agent": "corp/report-bot", "Tool": "reports/export", "Task": w.inTask, "Grant": w.grant})
	}
}

// told holds what the headers of a request say that reached a tool: the context,
// by what X-Grant-Ctx- stands before, and nothing of a client's.
func told(t *testing.T, r *http.Request, context map[string]string) {
	t.Helper()
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, ","), "evil") || strings.HasPrefix(name, "Authorization") {
			t.Errorf("the tool got %s: %q", name, values)
		}
		if name, ok := strings.CutPrefix(name, "X-Grant-Ctx-"); ok && (len(values) != 1 || values[0] != context[name]) {
			t.Errorf("the tool got X-Grant-Ctx-%s: %q; want %q", name, values, context[name])
		}
	}
	for name := range context {
		if r.Header.Get("X-Grant-Ctx-"+name) == "" {
			t.Errorf("the tool was not told the %s", name)
		}
	}
}

// send writes the request on a connection of its own, and reads the answer; its
// status is 0 if there was none.
func (a *attack) send(t *testing.T, front string, w way, mark string) answer {
	conn, err := net.Dial("tcp", strings.TrimPrefix(front, "http://"))
	if err != nil {
		t.Error(err)
		return answer{}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second)) // only a fault is that slow
	if w.http2 {
		r := newRawH2(conn)
		r.headOnly = a.stream
		return r.exchange(a.fields2(mark), a.body, a.trailers)
	}
	// What cannot be written any more has been answered, or ended.
	text := a.text1(w, mark)
	if w.pause > 0 {
		at := bodyAt(text)
		at += (len(text) - at) / 2
		_, _ = io.WriteString(conn, text[:at])
		time.Sleep(w.pause) // it is the attack
		text = text[at:]
	}
	_, _ = io.WriteString(conn, text)
	if tcp, ok := conn.(*net.TCPConn); ok && a.hangUp {
		_ = tcp.CloseWrite()
	}
	req := &http.Request{Method: cmp.Or(a.method, "POST")}
	if strings.HasPrefix(a.http1, "HEAD ") {
		req.Method = "HEAD"
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return answer{}
	}
	if a.stream && resp.StatusCode < 300 {
		return answer{resp.StatusCode, resp.Header, ""} // to close its body would be to wait for its end
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// text1 is the request in HTTP/1.1 (RFC 9112).
func (a *attack) text1(w way, mark string) string {
	if a.http1 != "" {
		return strings.Replace(a.http1, "MARK", mark, 1)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nUser-Agent: %s\r\n", cmp.Or(a.method, "POST"), cmp.Or(a.path, exportCSV), cmp.Or(a.host, "a"), mark)
	write := func(fields []string) {
		for i := 0; i+1 < len(fields); i += 2 {
			b.WriteString(fields[i] + ": " + fields[i+1] + "\r\n")
		}
	}
	write(a.fields)
	if a.trailers == nil && !w.chunked {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(a.body), a.body)
		return b.String()
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for rest, n := a.body, 1; rest != ""; n = min(2*n+1, 16<<10-1) { // 1, 3, 7, …: borders where nobody would put them
		n := min(n, len(rest))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	b.WriteString("0\r\n")
	write(a.trailers)
	return b.String() + "\r\n"
}

// fields2 are the request's fields in HTTP/2 (RFC 9113, Section 8.3).
func (a *attack) fields2(mark string) []string {
	if a.http2 != nil {
		fields := slices.Clone(a.http2)
		for i := range fields {
			fields[i] = strings.Replace(fields[i], "MARK", mark, 1)
		}
		return fields
	}
	return append([]string{
		":method", cmp.Or(a.method, "POST"), ":scheme", "http", ":path", cmp.Or(a.path, exportCSV), ":authority", cmp.Or(a.host, "a"), "user-agent", mark,
	}, a.fields...)
}

// rawH2 speaks HTTP/2 by hand, as no careful client does.
type rawH2 struct {
	*http2.Framer
	dec          *hpack.Decoder
	conn, stream int // bytes that may be sent (RFC 9113, Section 5.2)
	got          answer
	headOnly     bool // of a good answer
	done         bool
}

func newRawH2(conn net.Conn) *rawH2 {
	r := &rawH2{Framer: http2.NewFramer(conn, conn), conn: 65_535, stream: 65_535}
	r.AllowIllegalWrites = true
	r.got.header = http.Header{}
	r.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			r.got.status, _ = strconv.Atoi(f.Value)
		}
		r.got.header.Add(f.Name, f.Value)
	})
	// Whatever cannot be written shows when the answer is read.
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = r.WriteSettings()
	return r
}

// exchange sends a request on stream 1 and reads until its end.
func (r *rawH2) exchange(fields []string, body string, trailers []string) answer {
	r.headers(1, fields, body == "" && len(trailers) == 0)
	for half := (len(body) + 1) / 2; body != "" && !r.done; {
		n := min(len(body), 16<<10, half)
		if r.conn < n || r.stream < n {
			r.read()
			continue
		}
		last := n == len(body) && len(trailers) == 0
		if r.WriteData(1, last, []byte(body[:n])) != nil {
			break
		}
		body, r.conn, r.stream = body[n:], r.conn-n, r.stream-n
	}
	if len(trailers) > 0 && !r.done {
		r.headers(1, trailers, true)
	}
	for !r.done {
		r.read()
	}
	return r.got
}

// headers writes a block of fields, in as many frames as it takes.
func (r *rawH2) headers(stream uint32, fields []string, end bool) {
	parts := slices.Collect(slices.Chunk(pack(fields), 16<<10))
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: parts[0], EndStream: end, EndHeaders: len(parts) == 1})
	for i := 1; i < len(parts) && err == nil; i++ {
		err = r.WriteContinuation(stream, i == len(parts)-1, parts[i])
	}
}

// pack encodes a block of fields (RFC 7541).
func pack(fields []string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes all
	}
	return b.Bytes()
}

// read takes one frame.
func (r *rawH2) read() {
	frame, err := r.ReadFrame()
	if err != nil {
		r.done = true
		return
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = r.WriteSettingsAck()
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			r.conn += int(f.Increment)
		} else {
			r.stream += int(f.Increment)
		}
	case *http2.HeadersFrame:
		_, err := r.dec.Write(f.HeaderBlockFragment())
		r.done = err != nil || f.StreamEnded() || r.headOnly && r.got.status < 300
	case *http2.DataFrame:
		r.got.body += string(f.Data())
		r.done = f.StreamEnded()
	case *http2.RSTStreamFrame:
		r.done = true
	case *http2.GoAwayFrame:
		r.done = f.ErrCode != http2.ErrCodeNo
	}
}
