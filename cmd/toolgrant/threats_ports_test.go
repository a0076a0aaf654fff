package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/toolgrant/toolgrant/envoy"
)

// operators are the paths by which processes give away, or do, what is for their
// operators alone.
var operators = []string{
	"/admin", "/admin/", "/metrics", "/healthz", "/readyz", "/livez", "/ready", "/status", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline",
	"/debug/pprof/profile?seconds=1", "/debug/vars", "/debug/requests", "/config", "/config_dump", "/stats", "/stats/prometheus", "/server_info", "/clusters", "/listeners",
	"/logging", "/quitquitquit", "/-/reload", "/-/quit", "/actuator/env", "/swagger", "/.env", "/keys", "/v1/keys", "/v1/policies", "/v1/reload", "//metrics", "/%6detrics", "/v1/../metrics",
}

// services are the gRPC services that nobody is to have.
var services = []string{
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	"/grpc.channelz.v1.Channelz/GetServers", "/envoy.admin.v3.Admin/Get", "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus", "/grpc.health.v1.Health/Watch",
}

// TestPortsForOperators (O10): a `toolgrant serve` listens at three addresses and
// no more; what is for operators is at one of them, and changes nothing there.
func TestPortsForOperators(t *testing.T) {
	w := layOut(t)
	cmd := w.serve()
	w.startEnvoy()
	task := w.task()
	tok := w.export(task).AccessToken
	_, socket := w.cfg.Authz.Address()
	broker, front, admin := strings.TrimPrefix(w.broker, "http://"), strings.TrimPrefix(w.front, "http://"), strings.TrimPrefix(w.admin, "http://")

	want := []string{broker, admin, socket + ".new"} // bound under that name, then moved into place
	slices.Sort(want)
	if got := listening(t, cmd.Process.Pid); !slices.Equal(got, want) {
		t.Errorf("the process listens at %v; want %v", got, want)
	}
	config, err := envoy.Config(w.envoyOptions())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(config, []byte("\nadmin:")) {
		t.Error("the printed configuration opens Envoy's admin interface")
	}

	methods := []string{"GET", "POST", "PUT", "DELETE"}
	for name, addr := range map[string]string{"broker": broker, "Envoy": front} {
		t.Run(name, func(t *testing.T) {
			for _, path := range operators {
				for _, method := range methods {
					for _, token := range []string{"", tok} {
						// 307 is to a path's clean form.
						if status, body := ask(t, "tcp", addr, method, path, token); !slices.Contains([]int{307, 400, 401, 404}, status) {
							t.Errorf("%s %s: %d %s", method, path, status, body)
						}
					}
				}
			}
		})
	}
	t.Run("admin", func(t *testing.T) {
		reads := []string{"/metrics", "/healthz", "/readyz"}
		for _, path := range append([]string{"/", "/v1/tasks", "/v1/grants", "/oauth2/token", "/.well-known/jwks.json", "/export"}, operators...) {
			for _, method := range methods {
				want := []int{404, 307}
				if plain, err := url.PathUnescape(path); err == nil && slices.Contains(reads, plain) {
					want = []int{405}
					if method == "GET" {
						want = []int{200}
					}
				}
				if status, body := ask(t, "tcp", admin, method, path, tok); !slices.Contains(want, status) {
					t.Errorf("%s %s: %d %s", method, path, status, body)
				}
			}
		}
	})
	t.Run("authz", func(t *testing.T) {
		for _, path := range operators[:8] {
			if status, body := ask(t, "unix", socket, "GET", path, ""); status == 200 {
				t.Errorf("%s: %s", path, body)
			}
		}
	})
	for name, addr := range map[string]string{"broker": broker, "Envoy": front, "admin": admin, "authz": "unix://" + socket} {
		t.Run("gRPC at "+name, func(t *testing.T) {
			conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, method := range services {
				err := conn.Invoke(t.Context(), method, &emptypb.Empty{}, &emptypb.Empty{})
				if code := status.Code(err); code != codes.Unimplemented && (name == "authz" || code != codes.Unavailable) { // no HTTP/2 there
					t.Errorf("%s: %v", method, err)
				}
			}
		})
	}

	// After all that: alive, the grant too, and nothing was granted by it.
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
	w.wantCall(tok, 200, "")
	if err := w.planner().EndTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	w.wantCall(tok, 403, "task_ended")
}

// ask makes one request, whose path goes out as it is, and gives the answer; 0
// where there is none in HTTP/1.1.
func ask(t *testing.T, network, addr, method, path, token string) (int, string) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if token != "" {
		token = "Authorization: Bearer " + token + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n", method, path, token); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body := make([]byte, 200)
	n, _ := resp.Body.Read(body)
	return resp.StatusCode, string(body[:n])
}

// listening are the addresses at which a process listens, by what the kernel
// knows of it (proc_pid_fd(5), proc_pid_net(5)); sorted.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	mine := map[string]bool{} // inode
	for _, f := range files {
		to, err := os.Readlink(filepath.Join(dir, "fd", f.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && err == nil {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	found := map[string]bool{}
	rows := func(table string, each func(fields []string)) {
		text, err := os.ReadFile(dir + "net/" + table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			each(strings.Fields(line))
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		rows(table, func(f []string) {
			const listens, bound = "0A", "07" // TCP_LISTEN; a UDP socket without a peer
			if len(f) < 10 || !mine[f[9]] || f[3] != listens && f[3] != bound {
				return
			}
			host, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			if host == "0100007F" { // 127.0.0.1, in this machine's byte order
				host = "127.0.0.1"
			}
			found[net.JoinHostPort(host, strconv.FormatUint(n, 10))] = true
		})
	}
	rows("unix", func(f []string) {
		const accepts = "00010000" // __SO_ACCEPTCON
		if len(f) >= 7 && mine[f[6]] && f[3] == accepts {
			found[f[len(f)-1]] = true
		}
	})
	return slices.Sorted(maps.Keys(found))
}
