package envoy

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/toolgrant/toolgrant/catalog"
)

// virtualHost has the routes of all servers. Those of the metadata, which alone
// are answered without a check, stand last: they hide nothing that is checked.
func virtualHost(o Options) *routev3.VirtualHost {
	vh := &routev3.VirtualHost{Name: ListenerName, Domains: []string{"*"}}
	for i := range o.Catalog.Servers {
		s := &o.Catalog.Servers[i]
		if s.MCP != nil {
			vh.Routes = append(vh.Routes, surfaceRoute(o, s), streamsRoute(o, s), mcpRoute(o, s))
			continue
		}
		for _, t := range s.Tools {
			vh.Routes = append(vh.Routes, toolRoute(o, t))
		}
	}
	vh.Routes = append(vh.Routes, metadataRoutes(o)...)
	return vh
}

// toolRoute is the one way to an HTTP tool. It names the tool to the server,
// which therefore need not guess it from the path.
func toolRoute(o Options, t *catalog.Tool) *routev3.Route {
	action := forward(o, upstreamCluster(t.Server), t.Timeout, t.Timeout)
	// The host is an input that no policy sees: the client's own would choose
	// among an upstream's virtual hosts.
	action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: toolHost(t.Server)}
	return &routev3.Route{
		Name:                   t.ID,
		Match:                  matchPath(t.Path, matchHeader(":method", t.Method)),
		Action:                 &routev3.Route_Route{Route: action},
		RequestHeadersToRemove: removed(o, t.PassAuthorization), // after the check, which needs them
		TypedPerFilterConfig:   checkedAs(ExtensionTool, t.ID, t.Timeout),
	}
}

// mcpRoute is the way of a message to its MCP server, by any HTTP method: which
// ones there are depends on the revision, and the check knows it.
func mcpRoute(o Options, s *catalog.Server) *routev3.Route {
	r := messageRoute(o, s, upstreamCluster(s), longestCall(s))
	r.Name = s.ID
	r.Match = matchPath(s.MCP.Path)
	rewritePath(r, s)
	return r
}

// streamsRoute is the way of a message whose answer is a stream, to the same
// server by connections that no call needs: StreamHeader is the check's, as
// PassHeader is. It stands before mcpRoute, which matches such a message too.
func streamsRoute(o Options, s *catalog.Server) *routev3.Route {
	r := messageRoute(o, s, streamsCluster(s), longestStream(s))
	r.Name = s.ID + ":streams" // no id has a colon
	r.Match = matchPath(s.MCP.Path, matchPresent(StreamHeader))
	rewritePath(r, s)
	return r
}

// surfaceRoute is the way of a message whose answer has to be watched: it bears
// a pass of the check's, since a client's own PassHeader has been removed before
// the check. It stands first, so that nothing that has to be watched goes past.
// The path stays: the surface knows the server's.
func surfaceRoute(o Options, s *catalog.Server) *routev3.Route {
	r := messageRoute(o, s, surfaceCluster(s), longestCall(s))
	r.Name = s.ID + ":surface"
	r.Match = matchPath(s.MCP.Path, matchPresent(PassHeader))
	return r
}

// messageRoute is what the routes of an MCP server share. Their extensions must
// be the same, so that nothing depends on which of them Envoy asks by.
func messageRoute(o Options, s *catalog.Server, cluster string, most time.Duration) *routev3.Route {
	action := forward(o, cluster, s.MCP.Timeout, most)
	// Not the resource's host: servers of the MCP SDKs refuse on loopback, for
	// fear of DNS rebinding, every host that is not their own address.
	action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: s.Upstream}
	return &routev3.Route{
		Action:                 &routev3.Route_Route{Route: action},
		RequestHeadersToRemove: append(removed(o, false), StreamHeader), // it says nothing to a server
		TypedPerFilterConfig:   checkedAs(ExtensionServer, s.ID, s.MCP.Timeout),
	}
}

// rewritePath exchanges the whole path for the catalogue's. A query would stay
// behind it; the check refuses every query on an MCP route. The router says
// nothing of the path before (x-envoy-original-path), because of
// suppress_envoy_headers.
func rewritePath(r *routev3.Route, s *catalog.Server) {
	if s.MCP.UpstreamPath != s.MCP.Path {
		r.GetRoute().PrefixRewrite = s.MCP.UpstreamPath
	}
}

// forward sends to the cluster, for timeout, or for what an answer to the check
// says instead. A call may be silent for as long as it may last at most.
func forward(o Options, cluster string, timeout, most time.Duration) *routev3.RouteAction {
	return &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		// No max_stream_duration beside it: it would switch this one off
		// (envoyproxy/envoy issue 15530). The cluster has the hard cap.
		Timeout: durationpb.New(timeout),
		// Else the listener's would cut what takes longer.
		IdleTimeout: durationpb.New(max(streamIdleTimeout, requestTimeout+o.CheckTimeout+most)),
	}
}

// longestCall is how long a call of the server's may last at most, whatever its
// tool or method, as may the answer to it that comes as a stream of events.
func longestCall(s *catalog.Server) time.Duration {
	var d time.Duration
	if s.MCP != nil {
		d = s.MCP.Timeout
	}
	for _, t := range s.Tools {
		d = max(d, t.Timeout)
	}
	return d
}

// longestStream is how long a stream of an MCP server's may last at most.
func longestStream(s *catalog.Server) time.Duration { return max(s.MCP.Timeout, s.MCP.Stream) }

// checkedAs says to the check by which route a request came: what names the tool
// or server, and the route's time-out.
func checkedAs(key, id string, timeout time.Duration) map[string]*anypb.Any {
	return perRoute(&authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_CheckSettings{
		CheckSettings: &authzv3.CheckSettings{ContextExtensions: map[string]string{
			key:              id,
			ExtensionTimeout: strconv.FormatInt(timeout.Milliseconds(), 10),
		}},
	}})
}

func perRoute(settings *authzv3.ExtAuthzPerRoute) map[string]*anypb.Any {
	return map[string]*anypb.Any{FilterName: toAny(settings)}
}

func matchPath(path string, headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}, Headers: headers}
}

func matchHeader(name, value string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value},
		}},
	}
}

func matchPresent(name string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

// removed are the headers that do not reach a tool even if the server forgets
// them; sorted. Every tool's credential header is among them: a token in the
// wrong one is a token all the same.
func removed(o Options, passAuthorization bool) []string {
	names := slices.Concat([]string{"authorization"}, o.Catalog.CredentialHeaders(o.CredentialHeader), neverPassed)
	if passAuthorization {
		names = slices.DeleteFunc(names, func(name string) bool { return name == "authorization" })
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// toolHost is the host that an HTTP server is called by: its resource's, or its
// address where the resource has none (a URN).
func toolHost(s *catalog.Server) string {
	if u, err := url.Parse(s.Resource); err == nil {
		return cmp.Or(u.Host, s.Upstream)
	}
	return s.Upstream
}

func hasMCP(c *catalog.Catalog) bool {
	return slices.ContainsFunc(c.Servers, func(s catalog.Server) bool { return s.MCP != nil })
}
