package authz

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

var grpcInternal = status.Error(codes.Internal, "internal error")

// ServerConfig says how a Server serves. Listen, Check and Logger are required.
type ServerConfig struct {
	// Listen is the address: "unix:///path", made with mode 0660, or
	// "host:port", without TLS on loopback alone.
	Listen string
	Check  authv3.AuthorizationServer
	Logger *zap.Logger

	// MaxBody is the filter's max_request_bytes; 0: DefaultMaxBody.
	MaxBody int
	// TLS is for host:port; nil: plain, on loopback alone. Every connection must
	// end up with RequireAndVerifyClientCert and ClientCAs, from here or from
	// GetConfigForClient, or it is turned away: whoever asks learns decisions, and
	// says of calls that nobody made which certificate they came with.
	TLS *tls.Config
	// Healthy is what the gRPC health service answers by; nil: always SERVING.
	Healthy func() bool
}

// Bounds on those who hold the socket. A connection runs no more than maxStreams
// checks at a time, whether or not their callers have gone away, and Envoy opens
// another one for each worker and where it needs more.
const (
	maxStreams     = 256
	maxConnections = 512              // beyond: see guard
	messageRoom    = 256 << 10        // beside the body: headers and metadata, which Envoy's max_request_headers_kb bounds
	idleTime       = 10 * time.Minute // a connection that asks nothing more
	graceTime      = 5 * time.Second  // for checks under way when the door closes
	beginTime      = 5 * time.Second  // of a connection, until it speaks TLS and HTTP/2
)

// Server is the call door on the wire: ext_authz behind Closed, and the gRPC
// health service; nothing else is served.
type Server struct {
	guard *guard
	grpc  *grpc.Server
}

// Open listens; Run answers. One that is not run is closed.
func Open(ctx context.Context, cfg ServerConfig) (*Server, error) {
	l, err := listen(ctx, cfg.Listen, cfg.TLS != nil)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if cfg.TLS != nil {
		creds = credentials.NewTLS(mutual(cfg.TLS))
	}
	srv := grpc.NewServer(
		grpc.Creds(counted{creds}),
		grpc.ChainUnaryInterceptor(Closed(cfg.Logger), count),
		grpc.MaxRecvMsgSize(cmp.Or(cfg.MaxBody, DefaultMaxBody)+messageRoom),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(16<<10), // of the gRPC call itself
		grpc.ConnectionTimeout(beginTime),
		// Envoy's own keepalive asks every 10 s, also on an idle connection.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTime, Time: 30 * time.Second, Timeout: 5 * time.Second,
		}),
	)
	authv3.RegisterAuthorizationServer(srv, cfg.Check)
	healthv1.RegisterHealthServer(srv, health{healthy: cfg.Healthy})
	return &Server{guard: newGuard(l, maxConnections, cfg.Logger), grpc: srv}, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.guard.Addr() }

// Close is for a Server that is not run, or not any more.
func (s *Server) Close() error {
	s.grpc.Stop()
	if err := s.guard.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("authz: %w", err)
	}
	return nil
}

// Run answers until ctx ends; then checks under way get 5 s to finish.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var tidying sync.WaitGroup
	tidying.Go(func() { s.guard.run(ctx) })
	defer func() { stop(); tidying.Wait() }()
	done := make(chan error, 1)
	go func() { done <- s.grpc.Serve(s.guard) }()
	select {
	case err := <-done:
		return fmt.Errorf("authz: %w", err)
	case <-ctx.Done():
	}
	force := time.AfterFunc(graceTime, s.grpc.Stop) // Envoy keeps its connection open
	s.grpc.GracefulStop()
	force.Stop()
	<-done
	return nil
}

// mutual turns away every connection whose configuration does not verify the
// client, however that came about. Sessions are not resumed: a resumed one would
// keep a certificate that nobody looks at again.
func mutual(c *tls.Config) *tls.Config {
	out := c.Clone()
	out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen := c
		if c.GetConfigForClient != nil {
			switch own, err := c.GetConfigForClient(hello); {
			case err != nil:
				return nil, err
			case own != nil:
				chosen = own
			}
		}
		if chosen.ClientAuth != tls.RequireAndVerifyClientCert || chosen.ClientCAs == nil {
			return nil, errors.New("authz: the TLS configuration does not verify clients by a CA of its own")
		}
		chosen = chosen.Clone()
		chosen.GetConfigForClient, chosen.SessionTicketsDisabled = nil, true
		return chosen, nil
	}
	return out
}

// health is the gRPC health service, asked anew each time. (Watch is left
// unimplemented, which tells a client to ask.)
type health struct {
	healthv1.UnimplementedHealthServer
	healthy func() bool
}

// Check implements healthv1.HealthServer.
func (h health) Check(_ context.Context, req *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	switch req.GetService() {
	case "", authv3.Authorization_ServiceDesc.ServiceName:
	default:
		return nil, status.Error(codes.NotFound, "no such service")
	}
	answer := healthv1.HealthCheckResponse_SERVING
	if h.healthy != nil && !h.healthy() {
		answer = healthv1.HealthCheckResponse_NOT_SERVING
	}
	return &healthv1.HealthCheckResponse{Status: answer}, nil
}
