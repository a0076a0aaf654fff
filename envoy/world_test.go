package envoy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// world is a real Envoy with the configuration that Config writes, between a
// client, an authorization server, an upstream, and a surface.
type world struct {
	*envoytest.Proxy
	addr string // of Envoy's listener

	mu     sync.Mutex
	answer func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
	checks []*authv3.CheckRequest
	calls  []call
	serve  http.HandlerFunc // of upstream and surface, after the call is noted

	grpc *grpc.Server
}

// call is a request as it came out of Envoy.
type call struct {
	surface           bool // there, and not at the upstream
	method, uri, host string
	header, trailer   http.Header
	body              string
}

func (w *world) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	w.mu.Lock()
	w.checks = append(w.checks, req)
	answer := w.answer
	w.mu.Unlock()
	if answer == nil {
		<-ctx.Done() // Envoy gave up
		return nil, ctx.Err()
	}
	return answer(req)
}

// receive is the upstream, or the surface.
func (w *world) receive(surface bool) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		w.mu.Lock()
		w.calls = append(w.calls, call{surface, r.Method, r.RequestURI, r.Host, r.Header, r.Trailer, string(body)})
		serve := w.serve
		w.mu.Unlock()
		if serve != nil {
			serve(rw, r)
			return
		}
		fmt.Fprint(rw, "served")
	})
}

// reset forgets what was seen and sets how checks are answered from now on;
// nil: not at all.
func (w *world) reset(answer func(*authv3.CheckRequest) (*authv3.CheckResponse, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer, w.checks, w.calls, w.serve = answer, nil, nil, nil
}

func (w *world) seen() ([]*authv3.CheckRequest, []call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.checks), slices.Clone(w.calls)
}

const liveTools = `
servers:
- id: reports
  resource: https://reports.internal
  upstream: %[1]s
  http:
  - {tool: export, method: POST, path: /export, timeout: 2s, header: {x-declared: {type: string}}, body: {type: object}}
  - {tool: slow, method: GET, path: /slow, timeout: 400ms}
- id: mail
  resource: https://mail.internal:8443
  upstream: %[1]s
  http:
  - {tool: send, method: PUT, path: /export, body: {type: object}}
`

// start runs the parts. set changes the options, whose catalogue is liveTools at
// first; edit, if there is one, the configuration.
func start(t *testing.T, set func(o *Options), edit ...func(config string) string) *world {
	t.Helper()
	w := &world{}
	w.reset(allow())
	dir, err := os.MkdirTemp("", "envoy") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}

	upstream := httptest.NewServer(w.receive(false))
	t.Cleanup(upstream.Close)
	surface := httptest.NewUnstartedServer(w.receive(true))
	surface.Listener.Close()
	surface.Listener = listen("surface")
	surface.Start()
	t.Cleanup(surface.Close)

	l := listen("authz")
	w.grpc = grpc.NewServer()
	authv3.RegisterAuthorizationServer(w.grpc, w)
	done := make(chan error, 1)
	go func() { done <- w.grpc.Serve(l) }()
	t.Cleanup(func() {
		w.grpc.Stop()
		if err := <-done; err != nil {
			t.Errorf("authorization server: %v", err)
		}
	})

	o := Options{
		Catalog: parseCatalog(t, fmt.Sprintf(liveTools, upstream.Listener.Addr())),
		Listen:  "127.0.0.1:0", Authz: "unix://" + filepath.Join(dir, "authz"), Surface: "unix://" + filepath.Join(dir, "surface"),
		CheckTimeout: 20 * time.Second, // the machine may be busy
	}
	if set != nil {
		set(&o)
	}
	config, err := Config(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range edit {
		config = []byte(change(string(config)))
	}
	w.Proxy = envoytest.Start(t, config)
	w.addr = w.Listener(t, ListenerName)
	return w
}

// allow answers OK, sets headers given as name, value, and removes those in
// remove.
func allow(remove ...string) func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return allowWith(nil, remove...)
}

func allowWith(set map[string]string, remove ...string) func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	ok := &authv3.OkHttpResponse{HeadersToRemove: remove}
	for name, value := range set {
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}})
	}
	return func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{
			Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
		}, nil
	}
}

func deny(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	metadata, err := structpb.NewStruct(map[string]any{
		"decision_id": "d_1", "agent": "ci/bot", "task": "t_1", "grant": "g_1", "tool": "reports/export", "reason": "policy",
	})
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Body: `{"reason":"policy"}`,
		}},
		DynamicMetadata: metadata,
	}, err
}

// raw sends one HTTP/1.1 request exactly as written and returns the answer.
// Go's client would tidy up what these tests are about.
func (w *world) raw(t *testing.T, method, target, body string, headers ...string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: evil.internal\r\nConnection: close\r\nContent-Length: %d\r\n", method, target, len(body))
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return resp.StatusCode, string(b)
}

func wait(t *testing.T, what string, until func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !until(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}
