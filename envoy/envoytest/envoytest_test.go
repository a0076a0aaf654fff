package envoytest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const answering = `
static_resources:
  listeners:
  - name: hello
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: hello
          access_log:
          - name: stdout
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
          route_config:
            virtual_hosts:
            - {name: hello, domains: ["*"], routes: [{match: {path: /}, direct_response: {status: 200, body: {inline_string: hello}}}]}
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`

func TestStartServesUntilTheTestEnds(t *testing.T) {
	var p *Proxy
	t.Run("runs", func(t *testing.T) {
		p = Start(t, fmt.Appendf(nil, answering, 0))
		resp, err := http.Get("http://" + p.Listener(t, "hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); string(body) != "hello" {
			t.Errorf("body = %q, want hello", body)
		}
		for deadline := time.Now().Add(5 * time.Second); !strings.Contains(p.Stdout(), "GET / "); {
			if time.Now().After(deadline) {
				t.Fatalf("no access log line within 5 s; stdout: %q", p.Stdout())
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	select {
	case <-p.done:
	default:
		t.Error("Envoy outlived its test")
	}
}

func TestStartKeepsTheConfigurationsOwnAdmin(t *testing.T) {
	port := FreePort(t)
	p := Start(t, fmt.Appendf(nil, answering+
		"admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}\n", 0, port))
	if want := fmt.Sprintf("127.0.0.1:%d", port); p.Admin != want {
		t.Errorf("Admin = %s, want %s", p.Admin, want)
	}
}

func TestValidate(t *testing.T) {
	if err := Validate(t, fmt.Appendf(nil, answering, 0)); err != nil {
		t.Error(err)
	}
	if err := Validate(t, []byte("static_resources: {listeners: [{unknown_key: 1}]}")); err == nil ||
		!strings.Contains(err.Error(), "unknown_key") {
		t.Errorf("unknown key: error %v, want one that names it", err)
	}
}
