package authz

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
	"github.com/toolgrant/toolgrant/grants"
)

// live is a world behind a real Envoy, with the configuration that is printed,
// and in front of a tool that notes what reaches it.
type live struct {
	*world
	front string // host:port of Envoy
	envoy *envoytest.Proxy

	toolMu sync.Mutex
	seen   []*http.Request
	bodies []string
}

func (l *live) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a broken one counts as a call all the same
	l.toolMu.Lock()
	defer l.toolMu.Unlock()
	l.seen, l.bodies = append(l.seen, r), append(l.bodies, string(body))
	fmt.Fprint(rw, "ran")
}

// taken returns what has reached the tool since the last time.
func (l *live) taken() []*http.Request {
	l.toolMu.Lock()
	defer l.toolMu.Unlock()
	seen := l.seen
	l.seen, l.bodies = nil, nil
	return seen
}

// openLive makes one; change is for TLS between Envoy and the door.
func openLive(t *testing.T, change func(*ServerConfig, *envoy.Options)) *live {
	t.Helper()
	l := &live{}
	upstream := httptest.NewServer(l)
	t.Cleanup(upstream.Close)
	cat, err := catalog.Parse("tools.yaml", []byte(strings.ReplaceAll(tools, "127.0.0.1:1", upstream.Listener.Addr().String())))
	if err != nil {
		t.Fatal(err)
	}
	l.world = newWorld(t, func(c *Config) { c.Catalog = cat })
	cfg := ServerConfig{Check: l.door}
	opts := envoy.Options{Catalog: cat, Listen: "127.0.0.1:0", CheckTimeout: 20 * time.Second}
	if change != nil {
		change(&cfg, &opts)
	}
	opts.Authz = run(t, cfg)
	config, err := envoy.Config(opts)
	if err != nil {
		t.Fatal(err)
	}
	l.envoy = envoytest.Start(t, config)
	l.front = l.envoy.Listener(t, envoy.ListenerName)
	return l
}

// TestLiveMutualTLS: calls by TLS, checks by TLS; a certificate is enough for the
// baseline and for nothing else.
func TestLiveMutualTLS(t *testing.T) {
	ca, stranger := envoytest.NewCA(t), envoytest.NewCA(t)
	soon := time.Now().Add(time.Hour)
	pair := func(certFile, keyFile string) tls.Certificate {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	setup := func(name string, envoyOf *envoytest.CA) func(*ServerConfig, *envoy.Options) {
		return func(cfg *ServerConfig, opts *envoy.Options) {
			cfg.Listen = "127.0.0.1:0"
			cfg.TLS = &tls.Config{
				Certificates: []tls.Certificate{pair(ca.Issue(t, soon, "authz.internal", "127.0.0.1", "spiffe://corp/authz"))},
				ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool,
			}
			opts.TLS.CertFile, opts.TLS.KeyFile = ca.Issue(t, soon, "tools.internal")
			opts.TLS.ClientCAFile = ca.File
			opts.AuthzTLS = envoy.AuthzTLS{CAFile: ca.File, ServerName: name}
			opts.AuthzTLS.CertFile, opts.AuthzTLS.KeyFile = envoyOf.Issue(t, soon, "envoy.internal")
		}
	}
	get := func(l *live, path, token string, client ...tls.Certificate) (int, string) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool, ServerName: "tools.internal", Certificates: client}}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(within(t), "GET", "https://"+l.front+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}

	l := openLive(t, setup("authz.internal", ca))
	bot := pair(ca.Issue(t, soon, "spiffe://corp/bot"))
	other := pair(ca.Issue(t, soon, "spiffe://corp/other"))
	granted := l.token(l.grant("srv/bare"))
	for _, tc := range []struct {
		name, path, token string
		client            []tls.Certificate
		status            int
		reason, agent     string
	}{
		{"baseline by certificate", "/open", "", []tls.Certificate{bot}, 200, "", "mesh/spiffe://corp/bot"},
		{"no baseline for it", "/bare", "", []tls.Certificate{bot}, 403, "no_grant", ""},
		{"a subject is no name", "/open", "", []tls.Certificate{pair(ca.Issue(t, soon))}, 401, "no_credential", ""},
		{"neither", "/open", "", nil, 401, "no_credential", ""},
		{"a token beside its agent's certificate", "/bare", granted, []tls.Certificate{bot}, 200, "", "corp/spiffe://corp/bot"},
		{"a token beside another's certificate", "/bare", granted, []tls.Certificate{other}, 403, "no_grant", ""},
		{"a token alone", "/bare", granted, nil, 200, "", "corp/spiffe://corp/bot"},
	} {
		status, body := get(l, tc.path, tc.token, tc.client...)
		if status != tc.status || !strings.Contains(body, tc.reason) {
			t.Errorf("%s: %d %s", tc.name, status, body)
		}
		ran := l.taken()
		if (len(ran) == 1) != (tc.status == 200) {
			t.Errorf("%s: the tool ran %d times", tc.name, len(ran))
		} else if len(ran) == 1 && ran[0].Header.Get("X-Grant-Ctx-Agent") != tc.agent {
			t.Errorf("%s: agent %q", tc.name, ran[0].Header.Get("X-Grant-Ctx-Agent"))
		}
	}
	if r := l.last(); r.Source != "127.0.0.1" {
		t.Errorf("source %q on record", r.Source)
	}
	for name, tc := range map[string]struct {
		serverName string
		envoyOf    *envoytest.CA
		status     int
	}{
		"by an IP address":                    {"127.0.0.1", ca, 200},
		"by a SPIFFE id":                      {"spiffe://corp/authz", ca, 200},
		"the server has another name":         {"other.internal", ca, 503},
		"another SPIFFE id":                   {"spiffe://corp/envoy", ca, 503},
		"Envoy's certificate is a stranger's": {"authz.internal", stranger, 503},
	} {
		l := openLive(t, setup(tc.serverName, tc.envoyOf))
		status, body := get(l, "/bare", l.token(l.grant("srv/bare")))
		if ran := l.taken(); status != tc.status || (len(ran) == 1) != (status == 200) {
			t.Errorf("%s: %d %s, and the tool ran %d times", name, status, body, len(ran))
		}
	}
}

// TestLiveAccessLog: one line of Envoy's log says who did what, for an allow and
// for a denial.
func TestLiveAccessLog(t *testing.T) {
	l := openLive(t, nil)
	g := l.grant("srv/pay", func(g *grants.Grant) {
		g.Budgets = []grants.Budget{{Key: grants.TaskBudget(g.Task, g.Tool, "/body/amount"), Arg: "/body/amount", Limit: 2_0000}}
	})
	tok := l.token(g)
	for _, tc := range []struct {
		body   string
		status int
		reason any
	}{
		{`{"amount":1}`, 200, ""},
		{`{"amount":2}`, 403, "budget_spent"},
	} {
		resp := l.h1(t, "POST /pay HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "+tok+
			"\r\nContent-Type: application/json\r\nContent-Length: "+fmt.Sprint(len(tc.body))+"\r\n\r\n"+tc.body)
		if resp != fmt.Sprint(tc.status) {
			t.Fatalf("%s: %s", tc.body, resp)
		}
		id := l.last().ID
		var line map[string]any
		l.until("the access log has the decision", func() bool {
			for text := range strings.Lines(l.envoy.Stdout()) {
				line = nil
				if json.Unmarshal([]byte(text), &line) == nil && line["decision_id"] == id {
					return true
				}
			}
			return false
		})
		for key, value := range map[string]any{
			"agent": l.bot.ID(), "task": g.Task, "grant": g.ID, "tool": "srv/pay", "reason": tc.reason, "status": float64(tc.status), "path": "/pay",
		} {
			if line[key] != value {
				t.Errorf("%d: %s is %v, want %v", tc.status, key, line[key], value)
			}
		}
	}
	if strings.Contains(l.envoy.Stdout(), tok[:40]) {
		t.Error("a token in the access log")
	}
}

// h1 sends bytes to Envoy and gives the status of the answer; "" if the
// connection was closed without one.
func (l *live) h1(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", l.front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return ""
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return ""
	}
	_, status, _ := strings.Cut(line, " ")
	status, _, _ = strings.Cut(status, " ")
	return status
}

// send begins one HTTP/2 request with the given header fields, body and trailers,
// on a connection of its own.
func (l *live) send(t *testing.T, fields []string, body string, trailers ...string) *rawH2 {
	t.Helper()
	r := dialRaw(t, "tcp", l.front)
	_ = r.conn.SetDeadline(time.Now().Add(30 * time.Second))
	// An error is a connection that was ended: status shows it.
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: body == "" && trailers == nil, BlockFragment: block(fields...)})
	if err == nil && body != "" {
		err = r.WriteData(1, trailers == nil, []byte(body))
	}
	if err == nil && trailers != nil {
		_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block(trailers...)})
	}
	return r
}
