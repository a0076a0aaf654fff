package authz

import (
	"context"
	"encoding/binary"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// begin opens a stream with a check's headers, and leaves it open.
func (r *rawH2) begin(stream uint32) error {
	return r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: block(
		":method", "POST", ":scheme", "http", ":path", "/envoy.service.auth.v3.Authorization/Check", ":authority", "authz",
		"content-type", "application/grpc", "te", "trailers",
	)})
}

// TestFloods (threat O09): whatever somebody does on a connection of their own,
// others are answered, and nothing grows without bound.
func TestFloods(t *testing.T) {
	target := run(t, ServerConfig{Check: denyAll})
	path := strings.TrimPrefix(target, "unix://")
	other := authv3.NewAuthorizationClient(dial(t, target, insecure.NewCredentials()))
	answered := func(t *testing.T) {
		t.Helper()
		if resp, err := other.Check(within(t), &authv3.CheckRequest{}); err != nil || !sound(resp) {
			t.Errorf("another caller got %v, %v", resp, err)
		}
	}
	for name, flood := range map[string]func(r *rawH2) error{
		"streams that are left open": func(r *rawH2) error {
			for i := range uint32(10_000) {
				if err := r.begin(2*i + 1); err != nil {
					return err
				}
			}
			return nil
		},
		"streams that are reset at once": func(r *rawH2) error { // CVE-2023-44487
			for i := range uint32(20_000) {
				if err := r.begin(2*i + 1); err != nil {
					return err
				}
				if err := r.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
					return err
				}
			}
			return nil
		},
		"headers without an end": func(r *rawH2) error {
			err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":method", "POST")})
			for range 10_000 {
				if err == nil {
					err = r.WriteContinuation(1, false, block("x-a", strings.Repeat("a", 1000)))
				}
			}
			return err
		},
		"pings": func(r *rawH2) error {
			for range 20_000 {
				if err := r.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
			return nil
		},
		"a message that says it is 1 GB": func(r *rawH2) error {
			if err := r.begin(1); err != nil {
				return err
			}
			prefix := binary.BigEndian.AppendUint32([]byte{0}, 1<<30) // gRPC over HTTP/2: Length-Prefixed-Message
			err := r.WriteData(1, false, append(prefix, make([]byte, 8<<10)...))
			for range 4_000 {
				if err == nil {
					err = r.WriteData(1, false, make([]byte, 16<<10))
				}
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, "unix", path)
			r.discard(t)
			// A peer that takes no more, or hangs up, is what is hoped for: then
			// writing fails, in its time.
			_ = r.conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
			flooding := make(chan struct{})
			go func() { defer close(flooding); _ = flood(r) }()
			for done := false; !done; {
				answered(t)
				select {
				case <-flooding:
					done = true
				default:
					if t.Failed() {
						done = true
					}
				}
			}
			answered(t)
			r.conn.Close()
			<-flooding
		})
	}
}

// TestStreamsUnderWay: one connection has no more than maxStreams checks under
// way, also when it has reset their streams; another one's are answered.
func TestStreamsUnderWay(t *testing.T) {
	release := make(chan struct{})
	var underWay atomic.Int64
	target := run(t, ServerConfig{Check: checkFunc(func(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		if req.GetAttributes() != nil { // of the flood
			underWay.Add(1)
			<-release
			underWay.Add(-1)
		}
		return plain(0).response("d_x", nil), nil
	})})
	defer close(release)
	message, err := proto.Marshal(ask("srv/bare", "GET", "/bare", ""))
	if err != nil {
		t.Fatal(err)
	}
	message = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	r := dialRaw(t, "unix", strings.TrimPrefix(target, "unix://"))
	r.discard(t)
	flooding := make(chan struct{})
	go func() { // ends when the connection does: the server reads no more at some point
		defer close(flooding)
		for i := range uint32(20_000) {
			if r.begin(2*i+1) != nil || r.WriteData(2*i+1, true, message) != nil || r.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	deadline := time.Now().Add(30 * time.Second)
	for underWay.Load() < maxStreams {
		if time.Now().After(deadline) {
			t.Fatalf("%d checks are under way, and never more", underWay.Load())
		}
		time.Sleep(time.Millisecond)
	}
	other := authv3.NewAuthorizationClient(dial(t, target, insecure.NewCredentials()))
	for range 100 {
		if resp, err := other.Check(within(t), &authv3.CheckRequest{}); err != nil || !sound(resp) {
			t.Fatalf("another caller got %v, %v", resp, err)
		}
	}
	if n := underWay.Load(); n != maxStreams {
		t.Errorf("%d checks of one connection are under way; the bound is %d", n, maxStreams)
	}
	r.conn.Close()
	<-flooding
}

// TestMessageBound: the body's bound and some room for headers, and no more.
func TestMessageBound(t *testing.T) {
	var seen int
	check := checkFunc(func(_ context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		seen++
		return plain(0).response("d_x", nil), nil
	})
	client := authv3.NewAuthorizationClient(dial(t, run(t, ServerConfig{Check: check, MaxBody: 1 << 20}), insecure.NewCredentials()))
	send := func(n int) error {
		_, err := client.Check(within(t), ask("srv/full", "POST", "/full", strings.Repeat("a", n)))
		return err
	}
	if err := send(1 << 20); err != nil || seen != 1 {
		t.Errorf("a body of the bound: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := send(1<<20 + 256<<10); status.Code(err) != codes.ResourceExhausted || seen != 1 {
		t.Errorf("a larger message: %v, %d checks", err, seen)
	}
	runtime.ReadMemStats(&after)
	t.Logf("allocated for it, the client's own included: %d KiB", (after.TotalAlloc-before.TotalAlloc)>>10)
}

// TestPanickingServer: a check that panics on the wire is a denial, and the next
// one is answered.
func TestPanickingServer(t *testing.T) {
	client := authv3.NewAuthorizationClient(dial(t, run(t, ServerConfig{Check: checkFunc(
		func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { panic("planted") },
	)}), insecure.NewCredentials()))
	for range 3 {
		resp, err := client.Check(within(t), &authv3.CheckRequest{})
		if err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
			t.Fatalf("%v %v", resp, err)
		}
	}
}
