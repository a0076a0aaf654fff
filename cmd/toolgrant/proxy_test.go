package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startProxy starts a proxy before an origin that says what it got.
func startProxy(t *testing.T, header headerFlag, origin http.Handler) (p *proxy, addr string) {
	t.Helper()
	up := httptest.NewServer(origin)
	t.Cleanup(up.Close)
	to, err := url.Parse(up.URL)
	if err != nil {
		t.Fatal(err)
	}
	return startProxyTo(t, header, to)
}

func startProxyTo(t *testing.T, header headerFlag, to *url.URL) (p *proxy, addr string) {
	t.Helper()
	p, err := newProxy(to, header, func() string { return testToken })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p, p.listener.Addr().String()
}

var saying = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Saw", fmt.Sprintf("%s %s host=%s auth=%q tool=%q forwarded=%q proxy=%q", r.Method, r.RequestURI, r.Host,
		r.Header["Authorization"], r.Header["X-Tool-Token"], r.Header["X-Forwarded-For"], r.Header["Proxy-Authorization"]))
	w.WriteHeader(418)
	w.Write(body)
})

// raw sends a request as it is written, and returns the answer.
func raw(t *testing.T, addr, text string) (status int, saw, body string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(c, strings.ReplaceAll(text, "\n", "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("X-Saw"), string(b)
}

func TestProxy(t *testing.T) {
	p, addr := startProxy(t, headerFlag{"Authorization"}, saying)
	origin := p.to.Host
	user := base64.StdEncoding.EncodeToString([]byte(p.secret + ":"))
	wrong := strings.Repeat("a", len(p.secret))
	tail := ` tool=[] forwarded=[] proxy=[]`
	token := fmt.Sprintf(`host=%s auth=["Bearer %s"]`, origin, testToken) + tail
	for _, tc := range []struct {
		name, request string
		status        int
		saw           string
	}{
		{"a path", "GET /" + p.secret + "/a%2Fb//c?x=%zz&y=;1 HTTP/1.1\nHost: h\n\n", 418, "GET /a%2Fb//c?x=%zz&y=;1 " + token},
		{"dots stay", "GET /" + p.secret + "/../" + p.secret + "/x HTTP/1.1\nHost: h\n\n", 418, "GET /../" + p.secret + "/x " + token},
		{"no path", "GET /" + p.secret + " HTTP/1.1\nHost: h\n\n", 418, "GET / " + token},
		{"only a query", "GET /" + p.secret + "?q HTTP/1.1\nHost: h\n\n", 418, "GET /?q " + token},
		{"two slashes are no host", "GET /" + p.secret + "//evil.example/x HTTP/1.1\nHost: h\n\n", 418, "GET //evil.example/x " + token},
		{"its own credentials go", "GET /" + p.secret + "/x HTTP/1.1\nHost: h\nAuthorization: Bearer mine\nauthorization: Basic other\nX-Forwarded-For: 9.9.9.9\nProxy-Authorization: Basic x\n\n", 418, "GET /x " + token},
		{"nor can it take ours away", "GET /" + p.secret + "/x HTTP/1.1\nHost: h\nConnection: authorization\n\n", 418, "GET /x " + token},
		{"no secret", "GET /x HTTP/1.1\nHost: h\n\n", 403, ""},
		{"an empty one", "GET // HTTP/1.1\nHost: h\n\n", 403, ""},
		{"a wrong one", "GET /" + wrong + "/x HTTP/1.1\nHost: h\n\n", 403, ""},
		{"a part", "GET /" + p.secret[:20] + "/x HTTP/1.1\nHost: h\n\n", 403, ""},
		{"more", "GET /" + p.secret + "a/x HTTP/1.1\nHost: h\n\n", 403, ""},
		{"not first", "GET /x/" + p.secret + " HTTP/1.1\nHost: h\n\n", 403, ""},
		{"as a proxy", "GET http://" + origin + "/x?y HTTP/1.1\nHost: h\nProxy-Authorization: Basic " + user + "\n\n", 418, "GET /x?y " + token},
		{"as a proxy, no user", "GET http://" + origin + "/x HTTP/1.1\nHost: h\n\n", 407, ""},
		{"as a proxy, the secret in the path", "GET http://" + origin + "/" + p.secret + "/x HTTP/1.1\nHost: h\n\n", 407, ""},
		{"to another origin", "GET http://127.0.0.1:1/x HTTP/1.1\nHost: " + origin + "\nProxy-Authorization: Basic " + user + "\n\n", 403, ""},
		{"by another scheme", "GET https://" + origin + "/x HTTP/1.1\nHost: h\nProxy-Authorization: Basic " + user + "\n\n", 403, ""},
		{"with a user in it", "GET http://u@" + origin + "/x HTTP/1.1\nHost: h\nProxy-Authorization: Basic " + user + "\n\n", 403, ""},
		{"a tunnel", "CONNECT " + origin + " HTTP/1.1\nHost: h\nProxy-Authorization: Basic " + user + "\n\n", 403, ""},
		{"itself", "OPTIONS * HTTP/1.1\nHost: h\n\n", 403, ""},
	} {
		status, saw, body := raw(t, addr, tc.request)
		if status != tc.status || saw != tc.saw {
			t.Errorf("%s: %d\n got %s\nwant %s", tc.name, status, saw, tc.saw)
		}
		if strings.Contains(body, testToken) || strings.Contains(body, p.secret) {
			t.Errorf("%s: %s", tc.name, body)
		}
	}
}

// Through the two variables, as clients use them.
func TestProxyVariables(t *testing.T) {
	p, _ := startProxy(t, headerFlag{"X-Tool-Token"}, saying)
	if p.forward.Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy of the environment would get the token")
	}
	via, err := url.Parse(p.asProxy())
	if err != nil {
		t.Fatal(err)
	}
	proxied := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(via)}}
	defer proxied.CloseIdleConnections()
	for name, get := range map[string]func() (*http.Response, error){
		"in the origin's place": func() (*http.Response, error) {
			return http.Post(p.base()+"/x", "application/json", strings.NewReader("{}"))
		},
		"as a proxy": func() (*http.Response, error) {
			return proxied.Post("http://"+p.to.Host+"/x", "application/json", strings.NewReader("{}"))
		},
	} {
		res, err := get()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if want := fmt.Sprintf(`POST /x host=%s auth=[] tool=[%q]`, p.to.Host, testToken); res.StatusCode != 418 || !strings.HasPrefix(res.Header.Get("X-Saw"), want) || string(body) != "{}" {
			t.Errorf("%s: %d %s %s", name, res.StatusCode, res.Header.Get("X-Saw"), body)
		}
	}
}

// A stream comes through as it is written, and ends with the command.
func TestProxyStreams(t *testing.T) {
	more := make(chan struct{})
	p, _ := startProxy(t, headerFlag{"Authorization"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "13")
		fmt.Fprintln(w, "first")
		w.(http.Flusher).Flush()
		select {
		case <-more:
			fmt.Fprintln(w, "second")
		case <-r.Context().Done():
		}
	}))
	res, err := (&http.Client{Timeout: 30 * time.Second}).Get(p.base() + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); line != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	close(more)
	if line, err := in.ReadString('\n'); line != "second\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func TestProxyNoOrigin(t *testing.T) {
	p, _ := startProxyTo(t, headerFlag{"Authorization"}, &url.URL{Scheme: "http", Host: "127.0.0.1:1"}) // nobody is there
	res, err := http.Get(p.base() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 502 || !strings.Contains(string(body), "no answer from http://127.0.0.1:1") || strings.Contains(string(body), testToken) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestOrigin(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:10000":  "http://127.0.0.1:10000",
		"http://127.0.0.1:10000/": "http://127.0.0.1:10000",
		"http://LOCALHOST:1":      "http://localhost:1",
		"https://envoy.example":   "https://envoy.example",
		"http://envoy.example":    "",
		"http://10.0.0.1":         "",
		"https://x/path":          "",
		"https://x?q":             "",
		"https://x?":              "",
		"https://u@x":             "",
		"ftp://127.0.0.1":         "",
		"127.0.0.1:10000":         "",
		"":                        "",
	} {
		got, err := origin(text)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestProxyIsOneUsers: who knows the secret and is another user gets nowhere, by
// either way in.
func TestProxyIsOneUsers(t *testing.T) {
	p, addr := startProxy(t, headerFlag{"Authorization"}, saying)
	get := func() int {
		status, _, _ := raw(t, addr, "GET /"+p.secret+"/x HTTP/1.1\nHost: a\nConnection: close\n\n")
		return status
	}
	if got := get(); got != 418 {
		t.Fatalf("its own user: %d", got)
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root can be another user, and only Linux tells")
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl")
	}
	basic := base64.StdEncoding.EncodeToString([]byte(p.secret + ":"))
	for name, args := range map[string][]string{
		"by the base URL": {p.base() + "/x"},
		"as a proxy":      {"--proxy", "http://" + addr, "--proxy-header", "Proxy-Authorization: Basic " + basic, p.to.String() + "/x"},
	} {
		cmd := exec.Command(curl, append([]string{"-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
		if out, err := cmd.Output(); err != nil || string(out) != "418" {
			t.Fatalf("%s, its own user: %s %v", name, out, err)
		}
		cmd = exec.Command(curl, append([]string{"-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.Output(); err != nil || string(out) != "403" {
			t.Errorf("%s, another user: %s %v", name, out, err)
		}
	}
}

// TestProxyFindsTheOwner: IPv4 sockets, also those of a program that speaks IPv4
// by IPv6; what is not there is nobody's.
func TestProxyFindsTheOwner(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, network := range []string{"tcp4", "tcp"} {
		to := l.Addr().String()
		if network == "tcp" {
			to = "[::ffff:127.0.0.1]" + to[strings.LastIndexByte(to, ':'):]
		}
		c, err := net.Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		local, remote := netip.MustParseAddrPort(c.RemoteAddr().String()), netip.MustParseAddrPort(c.LocalAddr().String())
		if err := ownPeer(local, remote); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		gone := netip.AddrPortFrom(remote.Addr(), remote.Port()^1)
		if err := ownPeer(local, gone); err == nil {
			t.Errorf("%s: a socket that is not there has an owner", network)
		}
	}
}

// TestProxySecretStays: a page's name does not go to the tool, and redirects
// within the origin come back through the base URL.
func TestProxySecretStays(t *testing.T) {
	var referer []string
	p, addr := startProxy(t, headerFlag{"Authorization"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		referer = r.Header["Referer"]
		w.Header().Set("Location", strings.ReplaceAll(r.URL.Query().Get("to"), "ORIGIN", "http://"+r.Host))
		w.WriteHeader(302)
	}))
	for to, want := range map[string]string{
		"/next?a=b":               "/" + p.secret + "/next?a=b",
		"ORIGIN/next?a=b":         p.base() + "/next?a=b",
		"https://elsewhere.test/": "https://elsewhere.test/",
		"next":                    "next",
	} {
		hc := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		req, _ := http.NewRequest("GET", p.base()+"/page?to="+url.QueryEscape(to), nil)
		req.Header.Set("Referer", p.base()+"/before")
		res, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Location"); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
		if referer != nil {
			t.Errorf("the tool was told %q", referer)
		}
	}
	_ = addr
}
