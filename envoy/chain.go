package envoy

import (
	"net/netip"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Bounds on what a client may make Envoy hold or wait for.
const (
	requestTimeout    = 10 * time.Second // from the first byte to the last one of a request
	streamIdleTimeout = time.Minute      // where no route says otherwise
	connectionIdle    = 5 * time.Minute
	maxHeadersKB      = 32 // a token is under 8 kB
	maxHTTP2Streams   = 100
)

// neverPassed are headers that no tool gets, whatever the server answers:
// credentials, the announcement of trailers that are dropped, and what Envoy
// adds about the client but lets no server remove.
var neverPassed = []string{"cookie", "dpop", "proxy-authorization", "trailer", "x-envoy-external-address"}

// nobody is an address that no client can have. A configuration of internal
// addresses that names none would mean loopback and private networks, whose
// x-request-id and x-envoy-* Envoy believes; without any it depends on the
// version.
var nobody = &corev3.CidrRange{AddressPrefix: "255.255.255.255", PrefixLen: wrapperspb.UInt32(32)}

func listener(o Options, address netip.AddrPort) *listenerv3.Listener {
	chain := &listenerv3.FilterChain{
		Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: toAny(connectionManager(o))},
		}},
	}
	if o.TLS.CertFile != "" {
		chain.TransportSocket = listenerTLS(o.TLS)
	}
	return &listenerv3.Listener{
		Name:    ListenerName,
		Address: socketAddress(address.Addr().String(), uint32(address.Port())),
		// A second Envoy on the same port is an error, and not a part of the
		// calls that an older catalogue decides.
		EnableReusePort: wrapperspb.Bool(false),
		FilterChains:    []*listenerv3.FilterChain{chain},
	}
}

// connectionManager reads a request in one way only, before the check sees it.
func connectionManager(o Options) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		StatPrefix: ListenerName,

		// The client is whoever holds the connection, and nobody is internal:
		// a client's x-request-id and x-envoy-* mean nothing.
		UseRemoteAddress: wrapperspb.Bool(true),
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{
			CidrRanges: []*corev3.CidrRange{nobody},
		},
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_SANITIZE,

		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		StripPortMode:                &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},

		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(connectionIdle),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{EnableTrailers: false},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(maxHTTP2Streams),
			InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
			InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
		},
		MaxRequestHeadersKb:   wrapperspb.UInt32(maxHeadersKB),
		RequestTimeout:        durationpb.New(requestTimeout),
		RequestHeadersTimeout: durationpb.New(requestTimeout),
		StreamIdleTimeout:     durationpb.New(streamIdleTimeout),

		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{earlyMutation()},
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{
			RouteConfig: &routev3.RouteConfiguration{
				Name:         ListenerName,
				VirtualHosts: []*routev3.VirtualHost{virtualHost(o)},
			},
		},
		HttpFilters: []*hcmv3.HttpFilter{
			httpFilter(FilterName, extAuthz(o)),
			// No x-envoy-* of the router's own, such as the expected
			// time-out, goes to a tool.
			httpFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}),
		},
		AccessLog: []*accesslogv3.AccessLog{accessLog(o)},
	}
}

// earlyMutation removes, before anything else runs, what only the server may
// set. The prefix "x-envoy-" holds the time-out, but also headers with which a
// client would ask for retries or hedging; of those that Envoy does not know
// and so would keep, the server could remove none. From "x-forwarded-" tools
// read who calls and by which name; Envoy writes its own -for and -proto after
// this.
func earlyMutation() *corev3.TypedExtensionConfig {
	m := &earlyv3.HeaderMutation{}
	for _, prefix := range []string{ContextPrefix, "x-envoy-", "x-forwarded-"} {
		m.Mutations = append(m.Mutations, &mutationv3.HeaderMutation{
			Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
				RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
					KeyMatcher: &matcherv3.StringMatcher{
						MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
					},
				},
			},
		})
	}
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: toAny(m),
	}
}

func extAuthz(o Options) *authzv3.ExtAuthz {
	return &authzv3.ExtAuthz{
		// The server sends a message to the surface, or a stream to its own
		// connections, by a header that it sets, and a route is chosen by headers
		// before the check alone, unless it is chosen again. No other route looks at what a server may set.
		ClearRouteCache:     hasMCP(o.Catalog),
		TransportApiVersion: corev3.ApiVersion_V3,
		Services: &authzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: AuthzCluster},
			},
			Timeout: durationpb.New(o.CheckTimeout),
		}},
		FailureModeAllow: false,
		StatusOnError:    &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		WithRequestBody: &authzv3.BufferSettings{
			MaxRequestBytes:     o.MaxBody,
			AllowPartialMessage: false, // it would send on what nobody has checked
			PackAsBytes:         true,  // else bytes that are not UTF-8 are replaced in the check
		},
		EncodeRawHeaders:            true, // else two headers of a name look like one
		IncludePeerCertificate:      true,
		ValidateMutations:           true,
		EnforceResponseHeaderLimits: true,
		EmitFilterStateStats:        true,
		DecoderHeaderMutationRules:  mutationRules(),
	}
}

// mutationRules say what the server's answer may change. The rules know no
// difference between setting and removing, and the server must be able to
// remove any header that is no declared input, so ordinary headers are open.
// Closed are ":…" and host, which route; x-envoy-*, which steer the router;
// and what frames the body. A breach is an error (500): if it were ignored, a
// header that was to be removed would reach the tool.
func mutationRules() *mutationv3.HeaderMutationRules {
	return &mutationv3.HeaderMutationRules{
		AllowAllRouting:    wrapperspb.Bool(false),
		AllowEnvoy:         wrapperspb.Bool(false),
		DisallowSystem:     wrapperspb.Bool(true),
		AllowExpression:    &matcherv3.RegexMatcher{Regex: TimeoutHeader},
		DisallowExpression: &matcherv3.RegexMatcher{Regex: "host|content-length|transfer-encoding"},
		DisallowIsError:    wrapperspb.Bool(true),
	}
}

// accessLog prints no header of the client's, and no query: either may hold a
// secret.
func accessLog(o Options) *accesslogv3.AccessLog {
	line := map[string]string{
		"time":        "%START_TIME%",
		"request_id":  "%STREAM_ID%",
		"client":      "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
		"protocol":    "%PROTOCOL%",
		"method":      "%REQ(:METHOD)%",
		"path":        "%PATH(NQ:PATH):256%",
		"route":       "%ROUTE_NAME%",
		"status":      "%RESPONSE_CODE%",
		"details":     "%RESPONSE_CODE_DETAILS%",
		"flags":       "%RESPONSE_FLAGS%",
		"bytes_in":    "%BYTES_RECEIVED%",
		"bytes_out":   "%BYTES_SENT%",
		"duration_ms": "%DURATION%",
		"check_us":    "%FILTER_STATE(" + FilterName + ":FIELD:latency_us)%",
	}
	for _, key := range MetadataKeys {
		line[key] = "%DYNAMIC_METADATA(" + FilterName + ":" + key + ")%"
	}
	fields := map[string]*structpb.Value{}
	for name, value := range line {
		fields[name] = structpb.NewStringValue(value)
	}
	format := &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
	}
	if o.AccessLog == "" {
		return &accesslogv3.AccessLog{
			Name: "envoy.access_loggers.stdout",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: toAny(&streamlogv3.StdoutAccessLog{
				AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: format},
			})},
		}
	}
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: toAny(&filelogv3.FileAccessLog{
			Path:            o.AccessLog,
			AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format},
		})},
	}
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: toAny(config)}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func toAny(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		// Only a string that is not UTF-8 can do it, and withDefaults and the
		// catalogue have refused those.
		panic("envoy: " + strings.TrimPrefix(err.Error(), "proto: "))
	}
	return a
}
