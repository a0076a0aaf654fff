package surface

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
)

const (
	connectTime       = 5 * time.Second
	maxAnswerHeaders  = 60 << 10 // bytes; Envoy takes no more
	maxRequestHeaders = 64 << 10 // bytes; Envoy's max_request_headers_kb, and what the check adds
)

// newTransport reaches MCP servers. (httputil.ReverseProxy would pass on interim
// answers, trailers and upgrades, which nobody has looked at.)
//
// Each message has a connection of its own, closed after it: nothing that a server
// sends behind an answer is taken for the next one; and net/http sends nothing
// again (as it would by an Idempotency-Key) but what went to a reused connection.
func newTransport() *http.Transport {
	t := &http.Transport{
		Proxy:                  nil, // and none of the environment's
		DialContext:            (&net.Dialer{Timeout: connectTime}).DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswerHeaders,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// answer is what the client of one exchange gets.
type answer struct {
	pass    mcp.Pass
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool // its head has been written
	told    bool // that it is not read
}

// exchange asks the server and passes on what it answers, once that is learnt.
// After an error, the answer has been passed on in part or not at all (begun).
func (s *Surface) exchange(ctx context.Context, a *answer, server *catalog.Server, header http.Header, body []byte) error {
	res, err := s.ask(ctx, server, header, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := s.learnSession(a.pass, res); err != nil {
		return err
	}
	view := s.watch(a, res)
	if !view.whole() {
		if err := a.begin(res); err != nil {
			return err
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, readErr := res.Body.Read(buf)
		ready, refused := view.feed(buf[:n])
		if err := a.send(res, ready); err != nil {
			return err
		}
		switch {
		case refused != nil:
			return refused
		case readErr == io.EOF:
			return a.end(res, view)
		case readErr != nil:
			return fmt.Errorf("reading the server's answer: %w", readErr)
		}
	}
}

// ask sends the message, once, and returns the answer's head.
func (s *Surface) ask(ctx context.Context, server *catalog.Server, header http.Header, body []byte) (*http.Response, error) {
	url := "http://" + server.Upstream + server.MCP.UpstreamPath
	out, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header = forwarded(header)
	res, err := s.transport.RoundTrip(out) // which follows no redirect
	if err != nil {
		return nil, fmt.Errorf("asking the server: %w", err)
	}
	if res.StatusCode < 200 || res.StatusCode > 599 { // a change of protocol, or none that can be passed on
		res.Body.Close()
		return nil, fmt.Errorf("%w: status %d", errRefused, res.StatusCode)
	}
	return res, nil
}

// begin writes the head, unless that has been done.
func (a *answer) begin(res *http.Response) error {
	if a.begun {
		return nil
	}
	a.begun = true
	maps.Copy(a.w.Header(), endToEnd(res.Header))
	a.w.WriteHeader(res.StatusCode)
	return a.flush()
}

// send writes what of the body is ready, behind the head.
func (a *answer) send(res *http.Response, ready []byte) error {
	if len(ready) == 0 {
		return nil
	}
	if err := a.begin(res); err != nil {
		return err
	}
	if _, err := a.w.Write(ready); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return a.flush()
}

// end writes what is left when the server's answer is complete.
func (a *answer) end(res *http.Response, view watcher) error {
	rest, refused := view.end()
	if refused != nil {
		return refused
	}
	if err := a.send(res, rest); err != nil {
		return err
	}
	return a.begin(res) // of an empty one
}

func (a *answer) flush() error {
	if err := a.control.Flush(); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// hopByHop are the headers that are not end to end (RFC 9110, Section 7.6.1),
// beside those that Connection names.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// envoyPrefix begins what Envoy tells the next hop, and what a hop can tell Envoy:
// an upstream's x-envoy-immediate-health-check-fail would be said of the surface.
const envoyPrefix = "X-Envoy-"

// endToEnd is a copy without the headers that are this hop's.
func endToEnd(from http.Header) http.Header {
	h := from.Clone()
	for _, line := range from["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	for name := range h {
		if strings.HasPrefix(name, envoyPrefix) {
			delete(h, name)
		}
	}
	return h
}

// forwarded are the headers that the server gets: those that it would get from
// Envoy. The context headers (x-grant-ctx-...) are among them, the Pass is not.
func forwarded(from http.Header) http.Header {
	h := endToEnd(from)
	h.Del(mcp.PassHeader)
	h.Del("Expect") // it was answered here
	h.Del("Content-Length")
	// What is coded cannot be read, and so not be learnt.
	h.Set("Accept-Encoding", "identity")
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // else net/http names itself
	}
	return h
}

// errRefused is that of every answer that the client must not get.
var errRefused = errors.New("the server's answer is refused")
