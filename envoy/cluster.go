package envoy

import (
	"net/netip"
	"strings"
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

	// What the cap on a server's calls adds to its longest tool's time-out, so
	// that it never comes first.
	capSlack = time.Second

	protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// upstreamCluster is the name of a tool server's cluster.
func upstreamCluster(s *catalog.Server) string { return "toolgrant-server-" + s.ID }

// authzCluster is the authorization server, over gRPC.
func authzCluster(o Options) *clusterv3.Cluster {
	var address *corev3.Address
	if file, ok := strings.CutPrefix(o.Authz, "unix://"); ok {
		address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: file}}}
	} else {
		ap := netip.MustParseAddrPort(o.Authz) // withDefaults has parsed it
		address = socketAddress(ap.Addr().String(), uint32(ap.Port()))
	}
	c := cluster(AuthzCluster, clusterv3.Cluster_STATIC, address)
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

// serverClusters are the tool servers, in the catalogue's order.
//
// They speak HTTP/1.1 without trailers, which is what keeps a client's HTTP/2
// trailers, unseen by the check, from a tool. They cut every call that lasts
// longer than any tool of theirs may, because an answer to the check can
// raise a route's time-out.
func serverClusters(o Options) ([]*clusterv3.Cluster, error) {
	var all []*clusterv3.Cluster
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
		c := cluster(upstreamCluster(s), discovery, socketAddress(host, port))
		c.ConnectTimeout = durationpb.New(connectTimeout)
		var longest time.Duration
		for _, t := range s.Tools {
			longest = max(longest, t.Timeout)
		}
		c.TypedExtensionProtocolOptions = protocol(&corev3.HttpProtocolOptions{
			MaxStreamDuration: durationpb.New(longest + capSlack),
		}, &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{EnableTrailers: false},
			},
		})
		all = append(all, c)
	}
	return all, nil
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
