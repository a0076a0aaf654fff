package authz

import (
	"context"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/toolgrant/toolgrant/grants"
)

// Closed is the last line before the wire. Envoy lets a request through on an
// empty CheckResponse, on nil, on a denied_response with HTTP status 0; and a
// panic in a handler ends the process. Each of these becomes a denial with
// status 503 here, whatever the handler is; so does an allow that was found
// when the caller's time was up, which Envoy may still take. Other services pass untouched but
// for panics, which become codes.Internal.
func Closed(log *zap.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
		_, checks := req.(*authv3.CheckRequest)
		no := func(what string, field zap.Field) (any, error) {
			id := grants.NewID(grants.DecisionPrefix)
			log.Error(what, zap.String("method", info.FullMethod), zap.String("decision", id), field)
			if !checks {
				return nil, grpcInternal
			}
			return plain(grants.Undecided).response(id, nil), nil
		}
		defer func() {
			if p := recover(); p != nil {
				resp, err = no("panic in a handler", zap.Any("panic", p))
			}
		}()
		resp, err = next(ctx, req)
		if !checks {
			return resp, err
		}
		if err != nil {
			return no("a check returned an error", zap.Error(err))
		}
		if r, ok := resp.(*authv3.CheckResponse); !ok || !sound(r) {
			return no("a check returned what Envoy could take for an allow", zap.Skip())
		} else if r.GetOkResponse() != nil && ctx.Err() != nil {
			return no("a check allowed when its time was up", zap.Error(ctx.Err()))
		}
		return resp, nil
	}
}

// sound reports whether the response says in full what it means: OK with an
// ok_response, or another code with a denied_response and an HTTP error status,
// or with status 200 and a JSON-RPC error.
func sound(r *authv3.CheckResponse) bool {
	if r.GetStatus() == nil {
		return false
	}
	if codes.Code(r.GetStatus().GetCode()) == codes.OK {
		return r.GetOkResponse() != nil
	}
	no := r.GetDeniedResponse()
	http := no.GetStatus().GetCode()
	return http >= 400 && http < 600 || http == 200 && strings.HasPrefix(no.GetBody(), rpcPrefix)
}
