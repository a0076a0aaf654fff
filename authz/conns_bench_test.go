package authz

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/credentials/insecure"
)

// BenchmarkServer is a check over the socket whose answer costs nothing: what
// gRPC and the guard of its connections take.
func BenchmarkServer(b *testing.B) {
	client := authv3.NewAuthorizationClient(dial(b, run(b, ServerConfig{Check: denyAll}), insecure.NewCredentials()))
	req := &authv3.CheckRequest{}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Check(b.Context(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
