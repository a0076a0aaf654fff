package envoy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stats returns a number that Envoy has of each tool server's cluster, by the
// cluster's name.
func (w *world) stats(t *testing.T, name string) map[string]int {
	t.Helper()
	resp, err := http.Get("http://" + w.Admin + "/stats?format=json&filter=" + url.QueryEscape(`^cluster\.toolgrant-(server|streams|surface)-[^.]*\.`+name+"$"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all struct {
		Stats []struct {
			Name  string
			Value int
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil || len(all.Stats) == 0 {
		t.Fatalf("%s: %+v, %v", name, all, err)
	}
	n := map[string]int{}
	for _, s := range all.Stats {
		n[strings.TrimSuffix(strings.TrimPrefix(s.Name, "cluster."), "."+name)] = s.Value
	}
	return n
}

// took returns how many messages have gone each way.
func (w *world) took(t *testing.T) map[string]int {
	t.Helper()
	return w.stats(t, "upstream_rq_total")
}

// TestLiveSpoofedWay: what a client sends chooses no way to a server.
func TestLiveSpoofedWay(t *testing.T) {
	w := startMCP(t, liveMCP)
	for name, by := range map[string]string{PassHeader: "toolgrant-surface-github", StreamHeader: "toolgrant-streams-github"} {
		t.Run(name, func(t *testing.T) { w.spoof(t, name, by) })
	}
}

// spoof sends a client's own header, which the check would send messages to github
// by that cluster with.
func (w *world) spoof(t *testing.T, header, by string) {
	want := w.took(t)
	for _, own := range [][]string{
		{header + ": mine"},
		{http.CanonicalHeaderKey(header) + ": mine", strings.ToUpper(header) + ": mine"},
		{header + ":"},
		{header + ": \t mine"},
	} {
		for _, server := range []string{"github", "notes"} {
			w.reset(allow())
			code, _ := w.raw(t, "POST", "/mcp/"+server, "{}", own...)
			w.plain(t, fmt.Sprint(own), header, code)
			want["toolgrant-server-"+server]++
		}
		w.reset(deny)
		code, _ := w.raw(t, "POST", "/mcp/github", "{}", own...)
		if _, calls := w.seen(); code != 403 || len(calls) != 0 {
			t.Errorf("%q, denied: %d, arrived: %+v", own, code, calls)
		}
		// It neither adds to the check's nor stands in for it.
		w.reset(allowWith(map[string]string{header: "checked"}))
		w.raw(t, "POST", "/mcp/github", "{}", own...)
		want[by]++
		if _, calls := w.seen(); len(calls) != 1 || slices.Contains(calls[0].header.Values(header), "mine") || len(calls[0].header.Values(header)) > 1 {
			t.Errorf("%q beside the check's: arrived: %+v", own, calls)
		}
	}
	w.reset(allow())
	code, _ := w.raw(t, "POST", "/mcp/github", "{}", strings.ReplaceAll(header, "-", "_")+": mine")
	if checks, calls := w.seen(); code != 400 || len(checks)+len(calls) != 0 {
		t.Errorf("with underscores: %d, %d checks, arrived: %+v", code, len(checks), calls)
	}

	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	body := &lateTrailer{Reader: strings.NewReader("{}")}
	req, err := http.NewRequest("POST", "http://"+w.addr+"/mcp/github", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(header, "mine")
	req.Trailer = http.Header{http.CanonicalHeaderKey(header): nil}
	body.atEnd = func() { req.Trailer.Set(header, "mine") }
	w.reset(allow())
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	w.plain(t, "HTTP/2", header, resp.StatusCode)
	want["toolgrant-server-github"]++

	if diff := cmp.Diff(want, w.took(t)); diff != "" {
		t.Errorf("messages by way (-want +got):\n%s", diff)
	}
}

// plain wants the one message that was sent to have gone to the server, and
// nobody to have seen the header.
func (w *world) plain(t *testing.T, name, header string, code int) {
	t.Helper()
	checks, calls := w.seen()
	if code != 200 || len(checks) != 1 || len(calls) != 1 || calls[0].surface || len(calls[0].header.Values(header))+len(calls[0].trailer) != 0 {
		t.Errorf("%s: %d, %d checks, arrived: %+v", name, code, len(checks), calls)
		return
	}
	for _, h := range checks[0].GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if h.Key == header {
			t.Errorf("%s: the check saw %q", name, h.RawValue)
		}
	}
}
