package envoy

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/toolgrant/toolgrant/catalog"
)

const (
	connectTimeout = time.Second
	// A worker has one HTTP/2 connection to the server: a dead one must be
	// noticed, or every check on it waits for its time-out.
	keepaliveInterval = 10 * time.Second
	keepaliveTimeout  = 2 * time.Second
	// Checks at once, over all workers; what is beyond gets 503. Each holds a
	// body, here and in the server.
	maxChecks = 1024

	// At once at one tool server, over all workers, with one connection each: calls
	// (to the server, and over the surface) and streams, which are apart since a
	// stream holds its connection for up to an hour.
	maxCalls   = 1024
	maxStreams = 1024
	maxWatched = 256 // three servers' fill the 1,024 connections that the surface takes
	// Of streams, and of what goes over the surface: those that wait for a
	// connection, which is on its way. One for each comes on top of the limit, so
	// that what is over it is refused at once, and does not wait for others' end.
	maxWaiting = 64
	// A connection that a worker keeps for later counts for the others, too. And
	// Node and uvicorn close such a one after 5 s: Envoy must be first, or a call
	// meets the end of its connection, and is not tried again.
	upstreamIdle = 4 * time.Second

	// What the cap on a server's calls adds to the longest time-out of any, so
	// that it never comes first.
	capSlack = time.Second

	protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// The names of a tool server's clusters: for calls, for streams, and for what goes
// over the surface, the last two of MCP servers alone. The id stands last, so that
// none is another's, whatever the ids.
func upstreamCluster(s *catalog.Server) string { return "toolgrant-server-" + s.ID }
func streamsCluster(s *catalog.Server) string  { return "toolgrant-streams-" + s.ID }
func surfaceCluster(s *catalog.Server) string  { return "toolgrant-surface-" + s.ID }

// authzCluster is the authorization server, over gRPC.
func authzCluster(o Options) *clusterv3.Cluster {
	c := cluster(AuthzCluster, clusterv3.Cluster_STATIC, endpointAddress(o.Authz))
	c.ConnectTimeout = durationpb.New(min(connectTimeout, o.CheckTimeout))
	c.CircuitBreakers = breakers(&clusterv3.CircuitBreakers_Thresholds{
		MaxRequests:        wrapperspb.UInt32(maxChecks),
		MaxPendingRequests: wrapperspb.UInt32(maxChecks), // those that wait for the connection
	})
	if o.AuthzTLS != (AuthzTLS{}) {
		c.TransportSocket = authzTLS(o.AuthzTLS)
	}
	c.TypedExtensionProtocolOptions = protocol(nil, &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
				ConnectionKeepalive: &corev3.KeepaliveSettings{
					Interval: durationpb.New(keepaliveInterval),
					Timeout:  durationpb.New(keepaliveTimeout),
				},
			},
		},
	})
	return c
}

// clusters are all that what is written needs: the authorization server, and, in
// the catalogue's order, the tool servers, each MCP server's followed by its
// streams' and the surface's for it. A server has clusters of its own even at the
// surface, which is one, because a cluster's limits are for all that is in it.
func clusters(o Options) ([]*clusterv3.Cluster, error) {
	all := []*clusterv3.Cluster{authzCluster(o)}
	for i := range o.Catalog.Servers {
		s := &o.Catalog.Servers[i]
		host, port, err := splitUpstream(s.Upstream)
		if err != nil {
			return nil, err
		}
		discovery := clusterv3.Cluster_STRICT_DNS
		if _, err := netip.ParseAddr(host); err == nil {
			discovery = clusterv3.Cluster_STATIC
		}
		address := socketAddress(host, port)
		calls := toolCluster(upstreamCluster(s), discovery, address, longestCall(s))
		calls.CircuitBreakers = callBreakers()
		all = append(all, calls)
		if s.MCP == nil {
			continue
		}
		streams := toolCluster(streamsCluster(s), discovery, address, longestStream(s))
		streams.CircuitBreakers = promptBreakers(maxStreams)
		watched := toolCluster(surfaceCluster(s), clusterv3.Cluster_STATIC, endpointAddress(o.Surface), longestCall(s))
		watched.CircuitBreakers = promptBreakers(maxWatched)
		all = append(all, streams, watched)
	}
	return all, nil
}

// callBreakers let a burst of calls wait for connections, as long as each may
// last: calls end soon.
func callBreakers() *clusterv3.CircuitBreakers {
	return breakers(&clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     wrapperspb.UInt32(maxCalls),
		MaxRequests:        wrapperspb.UInt32(maxCalls),
		MaxPendingRequests: wrapperspb.UInt32(maxCalls),
	})
}

// promptBreakers give 503 at once to what is over the limit.
func promptBreakers(limit uint32) *clusterv3.CircuitBreakers {
	return breakers(&clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     wrapperspb.UInt32(limit + maxWaiting),
		MaxRequests:        wrapperspb.UInt32(limit),
		MaxPendingRequests: wrapperspb.UInt32(maxWaiting),
	})
}

func breakers(t *clusterv3.CircuitBreakers_Thresholds) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{t}}
}

// toolCluster is a tool server, or the surface in front of one.
//
// It speaks HTTP/1.1 without trailers, which is what keeps a client's HTTP/2
// trailers, unseen by the check, from a tool. It cuts every exchange that lasts
// longer than any of its kind may, because an answer to the check can raise a
// route's time-out.
func toolCluster(name string, discovery clusterv3.Cluster_DiscoveryType, address *corev3.Address, longest time.Duration) *clusterv3.Cluster {
	c := cluster(name, discovery, address)
	c.ConnectTimeout = durationpb.New(connectTimeout)
	c.TypedExtensionProtocolOptions = protocol(&corev3.HttpProtocolOptions{
		IdleTimeout:       durationpb.New(upstreamIdle),
		MaxStreamDuration: durationpb.New(longest + capSlack),
	}, &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{EnableTrailers: false},
		},
	})
	return c
}

// endpointAddress is the address of an endpoint that withDefaults has checked.
func endpointAddress(text string) *corev3.Address {
	e, _ := parseEndpoint(text)
	if e.file != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: e.file}}}
	}
	return socketAddress(e.addr.Addr().String(), uint32(e.addr.Port()))
}

func cluster(name string, discovery clusterv3.Cluster_DiscoveryType, address *corev3.Address) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: discovery},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{
				LbEndpoints: []*endpointv3.LbEndpoint{{
					HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
				}},
			}},
		},
	}
}

func protocol(common *corev3.HttpProtocolOptions, c *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig) map[string]*anypb.Any {
	return map[string]*anypb.Any{protocolOptions: toAny(&upstreamv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: common,
		UpstreamProtocolOptions:   &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: c},
	})}
}
