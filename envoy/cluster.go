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

	// What the cap on a server's calls adds to the longest time-out of any, so
	// that it never comes first.
	capSlack = time.Second

	protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// upstreamCluster is the name of a tool server's cluster.
func upstreamCluster(s *catalog.Server) string { return "toolgrant-server-" + s.ID }

// authzCluster is the authorization server, over gRPC.
func authzCluster(o Options) *clusterv3.Cluster {
	c := cluster(AuthzCluster, clusterv3.Cluster_STATIC, endpointAddress(o.Authz))
	c.ConnectTimeout = durationpb.New(min(connectTimeout, o.CheckTimeout))
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxRequests:        wrapperspb.UInt32(maxChecks),
		MaxPendingRequests: wrapperspb.UInt32(maxChecks), // those that wait for the connection
	}}}
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

// clusters are all that what is written needs: the authorization server, the tool
// servers in the catalogue's order, and, for MCP servers, the surface.
func clusters(o Options) ([]*clusterv3.Cluster, error) {
	all := []*clusterv3.Cluster{authzCluster(o)}
	var watched time.Duration
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
		all = append(all, toolCluster(upstreamCluster(s), discovery, socketAddress(host, port), longest(s)))
		if s.MCP != nil {
			watched = max(watched, longest(s))
		}
	}
	if hasMCP(o.Catalog) {
		all = append(all, toolCluster(SurfaceCluster, clusterv3.Cluster_STATIC, endpointAddress(o.Surface), watched))
	}
	return all, nil
}

// toolCluster is a tool server, or the surface in front of some.
//
// It speaks HTTP/1.1 without trailers, which is what keeps a client's HTTP/2
// trailers, unseen by the check, from a tool. It cuts every call that lasts
// longer than any of the server's may, because an answer to the check can raise
// a route's time-out.
func toolCluster(name string, discovery clusterv3.Cluster_DiscoveryType, address *corev3.Address, longest time.Duration) *clusterv3.Cluster {
	c := cluster(name, discovery, address)
	c.ConnectTimeout = durationpb.New(connectTimeout)
	c.TypedExtensionProtocolOptions = protocol(&corev3.HttpProtocolOptions{
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
