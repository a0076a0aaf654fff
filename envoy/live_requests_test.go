package envoy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestLiveRequests: requests that could be read in two ways, or that ask for too
// much, and what does not belong to a call.
func TestLiveRequests(t *testing.T) {
	w := start(t, nil)

	t.Run("paths", func(t *testing.T) {
		for _, target := range []string{
			"/export/", "/EXPORT", "/Export", "/export;a", "/export%3f", "/export%3Fformat=csv", "/export%23", "/export%2f",
			"/export%2F..%2Fslow", "/a%2F..%2Fexport", "/a%5c..%5cexport", "/export%5c", "/export%00", "/export%252f", "/export%20", "/export.", "/export/..;/slow",
			"/", "/export/slow", "/exports", "/expor", "*", "export", "/export#a", "http:/export", "/export\\", "/%u0065xport",
		} {
			w.reset(allow())
			code, _ := w.raw(t, "POST", target, "{}")
			checks, calls := w.seen()
			if code != 404 && code != 400 || len(checks)+len(calls) != 0 {
				t.Errorf("%s: %d, %d checks, %d calls; want 404 or 400 and none", target, code, len(checks), len(calls))
			}
		}
		for _, target := range []string{
			"//export", "/./export", "/slow/../export", "/%65xport", "/a/%2e%2e/export", `\export`, "/../export",
			"http://other.internal/export",
		} {
			w.reset(allow())
			code, _ := w.raw(t, "POST", target, "{}")
			checks, calls := w.seen()
			switch code {
			case 400, 404:
				if len(checks)+len(calls) != 0 {
					t.Errorf("%s: %d, but %d checks, %d calls", target, code, len(checks), len(calls))
				}
			case 200:
				a := checks[0].GetAttributes()
				if a.GetContextExtensions()["tool"] != "reports/export" || a.GetRequest().GetHttp().GetPath() != "/export" ||
					calls[0].uri != "/export" || calls[0].method != "POST" {
					t.Errorf("%s: checked as %v %s, called as %s", target, a.GetContextExtensions(), a.GetRequest().GetHttp().GetPath(), calls[0].uri)
				}
			default:
				t.Errorf("%s: %d", target, code)
			}
		}
	})

	t.Run("header names with underscores", func(t *testing.T) {
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}", "X_Grant_Ctx_Agent: root")
		if checks, _ := w.seen(); code != 400 || len(checks) != 0 {
			t.Errorf("%d, %d checks; want 400 and none", code, len(checks))
		}
	})

	t.Run("body limit", func(t *testing.T) {
		w.reset(allow())
		if code, _ := w.raw(t, "POST", "/export", strings.Repeat("a", DefaultMaxBody)); code != 200 {
			t.Errorf("a body of exactly the limit: %d, want 200", code)
		}
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", strings.Repeat("a", DefaultMaxBody+1))
		if checks, calls := w.seen(); code != 413 || len(checks)+len(calls) != 0 {
			t.Errorf("a body over the limit: %d, %d checks, %d calls; want 413 and none", code, len(checks), len(calls))
		}
	})

	t.Run("headers limit", func(t *testing.T) {
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}", "X-Long: "+strings.Repeat("a", maxHeadersKB<<10))
		if checks, calls := w.seen(); code != 431 || len(checks)+len(calls) != 0 {
			t.Errorf("%d, %d checks, %d calls; want 431 and none", code, len(checks), len(calls))
		}
	})

	t.Run("HTTP/2 trailers", func(t *testing.T) {
		w.reset(allow())
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: &protocols}
		defer transport.CloseIdleConnections()
		body := &lateTrailer{Reader: strings.NewReader("{}")}
		req, err := http.NewRequest("POST", "http://"+w.addr+"/export", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Grant-Ctx-Agent": nil, "Authorization": nil}
		body.atEnd = func() {
			req.Trailer.Set("X-Grant-Ctx-Agent", "root")
			req.Trailer.Set("Authorization", "Bearer s3cret")
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		_, calls := w.seen()
		if resp.ProtoMajor != 2 || resp.StatusCode != 200 || len(calls) != 1 {
			t.Fatalf("%s %s, %d calls", resp.Proto, resp.Status, len(calls))
		}
		if c := calls[0]; c.body != "{}" || len(c.trailer) != 0 || c.header.Get("Authorization") != "" {
			t.Errorf("body %q, trailers %v, headers %v", c.body, c.trailer, c.header)
		}
	})

	t.Run("HTTP/1 trailers", func(t *testing.T) {
		w.reset(allow())
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "POST /export HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-grant-ctx-agent\r\n\r\n"+
			"2\r\n{}\r\n0\r\nx-grant-ctx-agent: root\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		_, calls := w.seen()
		if resp.StatusCode != 200 || len(calls) != 1 {
			t.Fatalf("%s, %d calls", resp.Status, len(calls))
		}
		for _, values := range []http.Header{calls[0].header, calls[0].trailer} {
			if got := values.Get("X-Grant-Ctx-Agent"); got != "" {
				t.Errorf("a trailer got through: %q", got)
			}
		}
	})

	t.Run("upgrades", func(t *testing.T) {
		w.reset(allow())
		code, _ := w.raw(t, "POST", "/export", "{}", "Connection: Upgrade", "Upgrade: websocket")
		if _, calls := w.seen(); code == 101 || len(calls) > 0 && calls[0].header.Get("Upgrade") != "" {
			t.Errorf("%d, the upstream got %+v", code, calls)
		}
	})
}

// lateTrailer calls atEnd at the body's end, when trailers may be set.
type lateTrailer struct {
	io.Reader
	atEnd func()
}

func (b *lateTrailer) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.atEnd()
	}
	return n, err
}
