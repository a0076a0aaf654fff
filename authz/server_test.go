package authz

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// checkFunc is an ext_authz service.
type checkFunc func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)

func (f checkFunc) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return f(ctx, req)
}

// denyAll answers every check with a sound no.
var denyAll = checkFunc(func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return plain(0).response("d_x", nil), nil
})

// socket returns a path short enough for one.
func socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// run serves for the test's time, where cfg says or at a socket, and returns where
// that is, as gRPC has it.
func run(t testing.TB, cfg ServerConfig) string {
	t.Helper()
	cfg.Listen = cmp.Or(cfg.Listen, "unix://"+socket(t))
	s := open(t, cfg)
	serve(t, s)
	if strings.HasPrefix(cfg.Listen, "unix://") {
		return cfg.Listen
	}
	return s.Addr().String()
}

func open(t testing.TB, cfg ServerConfig) *Server {
	t.Helper()
	cfg.Logger = zap.NewNop()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve runs s for the test's time.
func serve(t testing.TB, s *Server) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dial(t testing.TB, target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// within bounds a call that must answer on a busy machine too.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOpen(t *testing.T) {
	path := socket(t)
	open := func(listen string, config *tls.Config) (*Server, error) {
		return Open(t.Context(), ServerConfig{Listen: listen, Check: denyAll, Logger: zap.NewNop(), TLS: config})
	}
	s, err := open("unix://"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if _, err := open("unix://"+path, nil); err == nil {
		t.Error("a socket that somebody listens on was taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = open("unix://"+path, nil); err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(s.Run(ended), s.Close()); err != nil {
		t.Errorf("told to stop before it began: %v", err)
	}
	if err := os.WriteFile(path+"f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"unix://" + path + "f", "unix://relative", "0.0.0.0:0", "10.0.0.1:1", "tools.internal:1", "nonsense", ""} {
		if s, err := open(bad, nil); err == nil {
			s.Close()
			t.Errorf("%s: listens", bad)
		}
	}
	if s, err := open("unix://"+path+"2", &tls.Config{}); err == nil {
		s.Close()
		t.Error("TLS on a socket")
	}
	for listen, config := range map[string]*tls.Config{"127.0.0.1:0": nil, "localhost:0": nil, "0.0.0.0:0": {}} {
		s, err := open(listen, config)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

// TestHealthAlone: the health service answers as it is told, and nothing but it
// and ext_authz is served (threat O10).
func TestHealthAlone(t *testing.T) {
	var healthy atomic.Bool
	target := run(t, ServerConfig{Check: denyAll, Healthy: healthy.Load})
	conn := dial(t, target, insecure.NewCredentials())
	hc := healthv1.NewHealthClient(conn)
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{2, 1, 2} {
		healthy.Store(want == healthv1.HealthCheckResponse_SERVING)
		for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
			got, err := hc.Check(within(t), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != want {
				t.Errorf("%q: %v %v, want %v", service, got, err, want)
			}
		}
	}
	if _, err := hc.Check(within(t), &healthv1.HealthCheckRequest{Service: "broker"}); status.Code(err) != codes.NotFound {
		t.Errorf("another service: %v", err)
	}
	for _, method := range []string{
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
		"/grpc.channelz.v1.Channelz/GetServers", "/envoy.service.auth.v2.Authorization/Check", "/metrics", "/debug/pprof/",
	} {
		err := conn.Invoke(within(t), method, &healthv1.HealthCheckRequest{}, &healthv1.HealthCheckResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	s, err := Open(t.Context(), ServerConfig{Listen: "127.0.0.1:0", Check: denyAll, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var served []string
	for name := range s.grpc.GetServiceInfo() {
		served = append(served, name)
	}
	slices.Sort(served)
	if strings.Join(served, " ") != "envoy.service.auth.v3.Authorization grpc.health.v1.Health" {
		t.Errorf("served: %v", served)
	}
	if got, err := healthv1.NewHealthClient(dial(t, run(t, ServerConfig{Check: denyAll}), insecure.NewCredentials())).
		Check(within(t), &healthv1.HealthCheckRequest{}); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("nothing to ask: %v %v", got, err)
	}
}

// TestMutualTLS: whoever has no certificate of the CA gets no connection, and a
// configuration that would let them have one serves nobody.
func TestMutualTLS(t *testing.T) {
	ca, stranger := envoytest.NewCA(t), envoytest.NewCA(t)
	soon := time.Now().Add(time.Hour)
	pair := func(by *envoytest.CA, end time.Time, names ...string) tls.Certificate {
		certFile, keyFile := by.Issue(t, end, names...)
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	server := pair(ca, soon, "authz.internal")
	ask := func(config *tls.Config, client ...tls.Certificate) error {
		target := run(t, ServerConfig{Listen: "127.0.0.1:0", Check: denyAll, TLS: config})
		conn := dial(t, target, credentials.NewTLS(&tls.Config{RootCAs: ca.Pool, ServerName: "authz.internal", Certificates: client}))
		_, err := authv3.NewAuthorizationClient(conn).Check(within(t), &authv3.CheckRequest{})
		return err
	}
	good := func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool}
	}
	chosen := func(inner *tls.Config) *tls.Config {
		return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }}
	}
	weak, anyCA, asked := good(), good(), good()
	weak.ClientAuth = tls.NoClientCert
	anyCA.ClientCAs = nil
	asked.ClientAuth = tls.RequireAnyClientCert
	mixed := good() // what is outside does not count where something else is chosen
	mixed.GetConfigForClient = chosen(weak).GetConfigForClient
	mine := pair(ca, soon, "envoy.internal")
	for _, tc := range []struct {
		name   string
		config *tls.Config
		client []tls.Certificate
		ok     bool
	}{
		{"verified", good(), []tls.Certificate{mine}, true},
		{"verified by what is chosen for each", chosen(good()), []tls.Certificate{mine}, true},
		{"no certificate", good(), nil, false},
		{"of another CA", good(), []tls.Certificate{pair(stranger, soon, "envoy.internal")}, false},
		{"its time is over", good(), []tls.Certificate{pair(ca, time.Now().Add(-time.Minute), "envoy.internal")}, false},
		{"a configuration that asks for none", weak, []tls.Certificate{mine}, false},
		{"one that verifies nothing", asked, []tls.Certificate{mine}, false},
		{"one of the whole world's CAs", anyCA, []tls.Certificate{mine}, false},
		{"one that asks for none, chosen", chosen(weak), []tls.Certificate{mine}, false},
		{"the same beside a good one", mixed, []tls.Certificate{mine}, false},
	} {
		if err := ask(tc.config, tc.client...); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	// The machine's own CAs do not know these certificates, so that this must be
	// seen before the handshake.
	if _, err := mutual(anyCA).GetConfigForClient(&tls.ClientHelloInfo{}); err == nil {
		t.Error("the whole world's CAs may vouch for a client")
	}
	// Plain gRPC to the TLS port, as to any other.
	target := run(t, ServerConfig{Listen: "127.0.0.1:0", Check: denyAll, TLS: good()})
	if _, err := authv3.NewAuthorizationClient(dial(t, target, insecure.NewCredentials())).Check(within(t), &authv3.CheckRequest{}); err == nil {
		t.Error("an answer without TLS")
	}
}
