package envoy

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// listenerTLS takes calls by TLS. A client's certificate names its sender to the
// check, so one is either verified or there is none: trust_chain_verification
// keeps its default, since ACCEPT_UNTRUSTED takes anybody's word for its name.
func listenerTLS(t ListenerTLS) *corev3.TransportSocket {
	c := &tlsv3.DownstreamTlsContext{CommonTlsContext: common(t.CertFile, t.KeyFile, tlsv3.TlsParameters_TLSv1_2)}
	c.CommonTlsContext.AlpnProtocols = []string{"h2", "http/1.1"}
	if t.ClientCAFile != "" {
		c.RequireClientCertificate = wrapperspb.Bool(t.RequireClientCert)
		c.CommonTlsContext.ValidationContextType = trust(&tlsv3.CertificateValidationContext{TrustedCa: file(t.ClientCAFile)})
		// A resumed session keeps a certificate that nobody looks at again.
		c.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
		c.DisableStatefulSessionResumption = true
	}
	return tlsSocket(c)
}

// authzTLS calls the authorization server by mutual TLS. The name is compared
// too: else whoever has any certificate of that CA could allow calls.
func authzTLS(t AuthzTLS) *corev3.TransportSocket {
	c := &tlsv3.UpstreamTlsContext{CommonTlsContext: common(t.CertFile, t.KeyFile, tlsv3.TlsParameters_TLSv1_3)}
	c.CommonTlsContext.AlpnProtocols = []string{"h2"}
	san := &tlsv3.SubjectAltNameMatcher{
		SanType: tlsv3.SubjectAltNameMatcher_DNS,
		Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: t.ServerName}},
	}
	if _, err := netip.ParseAddr(t.ServerName); err == nil {
		san.SanType = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	} else if strings.Contains(t.ServerName, "://") {
		san.SanType = tlsv3.SubjectAltNameMatcher_URI
	} else {
		c.Sni = t.ServerName
	}
	c.CommonTlsContext.ValidationContextType = trust(&tlsv3.CertificateValidationContext{
		TrustedCa: file(t.CAFile), MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{san},
	})
	return tlsSocket(c)
}

func common(cert, key string, least tlsv3.TlsParameters_TlsProtocol) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: least,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, // a client's default is 1.2
		},
		TlsCertificates: []*tlsv3.TlsCertificate{{CertificateChain: file(cert), PrivateKey: file(key)}},
	}
}

func trust(v *tlsv3.CertificateValidationContext) *tlsv3.CommonTlsContext_ValidationContext {
	return &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func tlsSocket(context proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: toAny(context)},
	}
}
