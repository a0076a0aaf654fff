package envoy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"sigs.k8s.io/yaml"
)

const configHeader = `# Envoy for toolgrant, written by "toolgrant envoy" from the catalogue.
# Write it again when the catalogue changes; edit no routes by hand. What is not
# written has Envoy's default: failure_mode_allow and allow_partial_message are
# false. Never set either: calls would pass unchecked, or bodies half checked.
#
# Change to fit the place:
%s# - The tool servers are called by plain HTTP/1.1. Where that crosses a network,
#   give their clusters a transport_socket. With HTTP/2 instead, a client's
#   trailers would reach the tool unchecked.
# - The circuit_breakers say how much a tool server gets at once: 1,024 calls, and
#   an MCP server 1,024 streams and 256 watched messages besides, each by a
#   connection of its own (HTTP/1.1). Lower them to what a server bears.
# - Nothing may reach the tool servers but this Envoy and toolgrant itself.
`

const plainListener = `# - The listener is plain HTTP. Where tokens cross a network, set envoy.tls in
#   toolgrant's configuration and write this again.
`

const tlsFiles = `# - Envoy reads the TLS files at its start: start it anew when they are renewed.
`

// Config returns a whole Envoy bootstrap as YAML, ready to run. The same
// options give the same bytes.
func Config(o Options) ([]byte, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	address, err := addrPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("envoy: listener: %w", err)
	}
	all, err := clusters(o)
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	l := listener(o, address)
	b := &bootstrapv3.Bootstrap{
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: all,
		},
	}
	b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
	if o.Admin != "" {
		admin := netip.MustParseAddrPort(o.Admin) // withDefaults has parsed it
		b.Admin = &bootstrapv3.Admin{Address: socketAddress(admin.Addr().String(), uint32(admin.Port()))}
	}
	body, err := render(b)
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	note := ""
	if o.TLS.CertFile == "" {
		note += plainListener
	}
	if o.TLS.CertFile != "" || o.AuthzTLS != (AuthzTLS{}) {
		note += tlsFiles
	}
	return append(fmt.Appendf(nil, configHeader, note), body...), nil
}

const fragmentHeader = `# Parts of an Envoy configuration for toolgrant, written by "toolgrant envoy
# --fragment" from the catalogue. This file is not a configuration: each of the
# four keys below says where its content goes. The listener's transport_socket is
# yours: where it asks clients for certificates, never set trust_chain_verification
# to ACCEPT_UNTRUSTED, because the check takes a certificate's name as verified.
`

// Fragment returns, as YAML, the parts that make an existing configuration ask
// the authorization server: one mapping with the keys http_connection_manager,
// http_filters, virtual_hosts and clusters, each under a comment that says
// where its content goes. The same options give the same bytes.
func Fragment(o Options) ([]byte, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	all, err := clusters(o)
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	// The same manager as Config's, taken apart.
	settings := connectionManager(o)
	filters, hosts := settings.HttpFilters[:1], settings.GetRouteConfig().VirtualHosts
	if err := validate(settings); err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	settings.HttpFilters, settings.RouteSpecifier, settings.StatPrefix = nil, nil, ""

	out := bytes.NewBufferString(fragmentHeader)
	for _, part := range []struct {
		key, comment string
		value        any
	}{
		{"http_connection_manager", `
# 1. Into the typed_config of the HttpConnectionManager. All of it counts: without
#    these settings a path or header can mean one thing to the check and another
#    to the tool, and a client can spoof what the server adds.
`, settings},
		{"http_filters", `
# 2. Into its http_filters, before envoy.filters.http.router, and behind any filter
#    that changes paths, headers or bodies. Keep the name: the routes' settings are
#    keyed by it, and Envoy ignores a key that fits no filter. Never set
#    failure_mode_allow or allow_partial_message: calls would pass unchecked, or
#    bodies half checked. Give the router suppress_envoy_headers: true, or it adds
#    x-envoy-* headers to calls.
`, list(filters)},
		{"virtual_hosts", `
# 3. Into the virtual_hosts of its route_config. Add no catch-all route, and no
#    retry_policy, hedge_policy, request_mirror_policies or redirects, here or in
#    what encloses it. Routes of yours in another virtual host would be checked
#    too: disable the filter for them. With an MCP server, routes are chosen again
#    after the check: keep the order of the server's three (SERVER:surface,
#    SERVER:streams, SERVER), and have none of yours look at a header that the
#    check may set or remove. Routes named SERVER:metadata are not checked: they
#    answer by themselves, and nothing is behind them.
`, list(hosts)},
		{"clusters", `
# 4. Into the clusters of static_resources. Keep a server's calls and streams in
#    clusters of their own, each with its circuit_breakers: agents that open streams
#    would else take the connections from everybody's calls. What the limits add up
#    to, a server must bear: lower them to that.
`, list(all)},
	} {
		body, err := renderPart(part.key, part.value)
		if err != nil {
			return nil, fmt.Errorf("envoy: %w", err)
		}
		out.WriteString(part.comment)
		out.Write(body)
	}
	return out.Bytes(), nil
}

func list[M proto.Message](ms []M) []proto.Message {
	var out []proto.Message
	for _, m := range ms {
		out = append(out, m)
	}
	return out
}

// renderPart returns the YAML of a mapping with one key. Messages in a list
// are validated; a single one is the settings, which are not whole.
func renderPart(key string, value any) ([]byte, error) {
	var encoded any
	switch v := value.(type) {
	case *hcmv3.HttpConnectionManager:
		b, err := toJSON(v)
		if err != nil {
			return nil, err
		}
		encoded = b
	case []proto.Message:
		var items []json.RawMessage
		for _, m := range v {
			if err := validate(m); err != nil {
				return nil, err
			}
			b, err := toJSON(m)
			if err != nil {
				return nil, err
			}
			items = append(items, b)
		}
		encoded = items
	}
	return yaml.Marshal(map[string]any{key: encoded})
}

// render returns the YAML of a message, its keys sorted: protojson gives its
// output no stable form of its own.
func render(m proto.Message) ([]byte, error) {
	if err := validate(m); err != nil {
		return nil, err
	}
	b, err := toJSON(m)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(b)
}

func toJSON(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

// validate checks a message by the rules of its definition. ValidateAll stops
// at each Any, and here nearly everything that matters is in one, so the
// messages inside are visited too.
func validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return err
		}
	}
	return protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		at := p.Index(-1)
		if at.Step.Kind() != protopath.AnyExpandStep {
			return nil
		}
		if v, ok := at.Value.Message().Interface().(interface{ ValidateAll() error }); ok {
			return v.ValidateAll()
		}
		return nil
	})
}
