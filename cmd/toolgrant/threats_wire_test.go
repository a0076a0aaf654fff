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
	fields       []string // name, value, …
	body         string
	trailers     []string // fields behind the body; if not nil, HTTP/1.1 sends it in chunks

	// One of these instead of all that: what only one protocol can say. MARK in
	// it is put in place of what tells the tool's calls apart.
	http1 string   // a request's bytes
	http2 []string // a request's fields; body and trailers are as above

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

// hold sends attacks, over each protocol that can say them, and holds what came
// of each, in a subtest of its own.
func (w *target) hold(t *testing.T, attacks []attack) {
	t.Helper()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		var send []attack
		for _, a := range attacks {
			if a.http1 == "" && a.http2 == nil || (a.http1 != "") == (proto == "HTTP/1.1") {
				send = append(send, a)
			}
		}
		first := w.sent
		w.sent += len(send)
		answers := make([]answer, len(send))
		var wg sync.WaitGroup
		room := make(chan struct{}, 16)
		for i, a := range send { // at once: Envoy takes a second to hang up
			room <- struct{}{}
			wg.Go(func() {
				answers[i] = w.send(t, proto, a, mark(first+i))
				<-room
			})
		}
		wg.Wait()
		for i, a := range send {
			t.Run(a.name+"/"+proto, func(t *testing.T) { w.judge(t, a, answers[i], mark(first+i)) })
		}
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
		if challenge != `Bearer error="`+a.oauth+`"` || !strings.Contains(got.body, `"error":"`+a.oauth+`"`) {
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
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, ","), "evil") || strings.HasPrefix(name, "Authorization") {
				t.Errorf("the tool got %s: %q", name, values)
			}
		}
		context := map[string]string{"Agent": "corp/report-bot", "Tool": "reports/export", "Task": w.inTask, "Grant": w.grant}
		for name, values := range r.Header {
			if name, ok := strings.CutPrefix(name, "X-Grant-Ctx-"); ok && (len(values) != 1 || values[0] != context[name]) {
				t.Errorf("the tool got X-Grant-Ctx-%s: %q", name, values)
			}
			delete(context, strings.TrimPrefix(name, "X-Grant-Ctx-"))
		}
		if len(context) > 0 {
			t.Errorf("the tool was not told %v", context)
		}
	}
}

// send writes one request on a connection of its own, and reads the answer; its
// status is 0 if there was none.
func (w *target) send(t *testing.T, proto string, a attack, mark string) answer {
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.front, "http://"))
	if err != nil {
		t.Error(err)
		return answer{}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second)) // only a fault is that slow
	if proto == "HTTP/2" {
		return newRawH2(conn).exchange(a.fields2(mark), a.body, a.trailers)
	}
	// What cannot be written any more has been answered, or ended.
	_, _ = io.WriteString(conn, a.text1(mark))
	req := &http.Request{Method: cmp.Or(a.method, "POST")}
	if strings.HasPrefix(a.http1, "HEAD ") {
		req.Method = "HEAD"
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// text1 is the request in HTTP/1.1 (RFC 9112).
func (a *attack) text1(mark string) string {
	if a.http1 != "" {
		return strings.Replace(a.http1, "MARK", mark, 1)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: %s\r\n", cmp.Or(a.method, "POST"), cmp.Or(a.path, exportCSV), mark)
	write := func(fields []string) {
		for i := 0; i+1 < len(fields); i += 2 {
			b.WriteString(fields[i] + ": " + fields[i+1] + "\r\n")
		}
	}
	write(a.fields)
	if a.trailers == nil {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(a.body), a.body)
		return b.String()
	}
	fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(a.body), a.body)
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
		":method", cmp.Or(a.method, "POST"), ":scheme", "http", ":path", cmp.Or(a.path, exportCSV), ":authority", "a", "user-agent", mark,
	}, a.fields...)
}

// rawH2 speaks HTTP/2 by hand, as no careful client does.
type rawH2 struct {
	*http2.Framer
	dec          *hpack.Decoder
	conn, stream int // bytes that may be sent (RFC 9113, Section 5.2)
	got          answer
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
	for body != "" && !r.done {
		n := min(len(body), 16<<10)
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
		r.done = err != nil || f.StreamEnded()
	case *http2.DataFrame:
		r.got.body += string(f.Data())
		r.done = f.StreamEnded()
	case *http2.RSTStreamFrame:
		r.done = true
	case *http2.GoAwayFrame:
		r.done = f.ErrCode != http2.ErrCodeNo
	}
}
