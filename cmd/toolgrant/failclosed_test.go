package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/zap"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/toolgrant/toolgrant/authz"
)

// faulty is an ext_authz server whose handler does what a test wants.
type faulty struct {
	authv3.UnimplementedAuthorizationServer
	check func(context.Context) (*authv3.CheckResponse, error)
}

func (f faulty) Check(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return f.check(ctx)
}

// faults are the handlers that must not open the door.
var faults = []struct {
	name  string
	opens bool // Envoy by itself lets the request through
	check func(context.Context) (*authv3.CheckResponse, error)
}{
	{"panic", false, func(context.Context) (*authv3.CheckResponse, error) { panic("planted") }},
	{"nil response", true, func(context.Context) (*authv3.CheckResponse, error) { return nil, nil }},
	{"empty response", true, func(context.Context) (*authv3.CheckResponse, error) { return &authv3.CheckResponse{}, nil }},
	{"status OK and nothing else", true, func(context.Context) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{}}, nil
	}},
	{"OK with a denied response", true, func(context.Context) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}}}}, nil
	}},
	{"denied with HTTP status 0", false, func(context.Context) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{}}}, nil
	}},
	{"denied with HTTP status 200", true, func(context.Context) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_OK}}}}, nil
	}},
	{"error", false, func(context.Context) (*authv3.CheckResponse, error) { return nil, errors.New("planted") }},
	{"allowed as Envoy's time runs out", false, func(ctx context.Context) (*authv3.CheckResponse, error) {
		<-ctx.Done() // the call's deadline, which is Envoy's
		return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
	}},
	{"much slower than Envoy waits", false, func(context.Context) (*authv3.CheckResponse, error) {
		time.Sleep(time.Second) // Envoy waits 250 ms
		return &authv3.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
	}},
}

func TestFaultyHandlersStayClosed(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			w := layOut(t)
			if strings.Contains(f.name, "Envoy") { // those that are about its time
				w.patience = 250 * time.Millisecond
			}
			s, err := authz.Open(t.Context(), authz.ServerConfig{Listen: w.cfg.Authz.Listen, Check: faulty{check: f.check}, Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			ran := make(chan error, 1)
			go func() { ran <- s.Run(ctx) }()
			t.Cleanup(func() { stop(); <-ran })
			w.startEnvoy()
			for range 3 {
				w.wantCall("any", http.StatusServiceUnavailable, "")
			}
		})
	}
}

// TestEnvoyAloneWouldOpen shows that the guard is what holds: without it, real
// Envoy does strange things with the very same handlers.
func TestEnvoyAloneWouldOpen(t *testing.T) {
	for _, f := range faults {
		if !f.opens {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			w := layOut(t)
			s := grpc.NewServer()
			authv3.RegisterAuthorizationServer(s, faulty{check: f.check})
			_, path := w.cfg.Authz.Address()
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); _ = s.Serve(l) }()
			t.Cleanup(func() { s.Stop(); <-done })
			w.startEnvoy()
			a := w.call("any", "POST", exportCSV, october)
			t.Logf("Envoy alone: %d", a.status)
			if a.status >= 400 && w.tool.calls() == 0 {
				t.Errorf("Envoy has become stricter: this handler gets %d now; is the guard still needed for it?", a.status)
			}
		})
	}
}

// TestServerGoneStaysClosed: the process killed, stopped, or never there.
func TestServerGoneStaysClosed(t *testing.T) {
	t.Run("never started", func(t *testing.T) {
		w := layOut(t)
		w.startEnvoy()
		w.wantCall("any", http.StatusServiceUnavailable, "")
	})
	t.Run("killed and started again", func(t *testing.T) {
		w, cmd := open(t)
		tok := w.export(w.task())
		w.wantCall(tok.AccessToken, http.StatusOK, "")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		w.until("the process is gone", func() bool {
			_, err := net.Dial("unix", strings.TrimPrefix(w.cfg.Authz.Listen, "unix://"))
			return err != nil
		})
		for range 5 {
			w.wantCall(tok.AccessToken, http.StatusServiceUnavailable, "")
		}
		// The key is the same; the grant is not in the new process's table.
		w.serve()
		w.until("Envoy has found the new server", func() bool {
			return w.call("", "POST", exportCSV, october).status == http.StatusUnauthorized
		})
		w.wantCall(tok.AccessToken, http.StatusForbidden, "unknown_grant")
		w.wantCall(w.export(w.task()).AccessToken, http.StatusOK, "")
	})
	t.Run("stopped and continued", func(t *testing.T) {
		w := layOut(t)
		w.patience = time.Second
		cmd := w.serve()
		w.startEnvoy()
		tok := w.export(w.task())
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		w.until("all of its threads have stopped", func() bool { return stopped(cmd.Process.Pid) })
		for range 3 {
			w.wantCall(tok.AccessToken, http.StatusServiceUnavailable, "")
		}
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		w.until("calls pass again", func() bool {
			return w.call(tok.AccessToken, "POST", exportCSV, october).status == http.StatusOK
		})
	})
}

// stopped reports whether every thread of a process is in state T: a signal is
// sent before it has its effect.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // proc(5): pid (comm) state …
		if !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return true
}
