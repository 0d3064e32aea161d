package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// upstreamSocket is nil for plain connections, and where endpoints decide.
func upstreamSocket(c ir.Cluster) *corev3.TransportSocket {
	switch {
	case c.PeerTLS != nil:
		return nil
	case c.TLS != nil:
		return proxied(c, tlsSocket(*c.TLS))
	case c.ProxyProtocol != 0:
		return proxied(c, plainSocket())
	}
	return nil
}

// socketMatches chooses by what an endpoint's metadata says of it.
func socketMatches(c ir.Cluster) []*clusterv3.Cluster_TransportSocketMatch {
	if c.PeerTLS == nil {
		return nil
	}
	return []*clusterv3.Cluster_TransportSocketMatch{
		{Name: "tlsMode-istio", Match: textField("tlsMode", "istio"), TransportSocket: proxied(c, tlsSocket(*c.PeerTLS))},
		{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: proxied(c, plainSocket())},
	}
}

func tlsSocket(t ir.UpstreamTLS) *corev3.TransportSocket {
	return transportSocket("envoy.transport_sockets.tls", &tlsv3.UpstreamTlsContext{CommonTlsContext: upstreamTLS(t), Sni: t.SNI})
}

func plainSocket() *corev3.TransportSocket {
	return transportSocket("envoy.transport_sockets.raw_buffer", &rawbufferv3.RawBuffer{})
}

// proxied begins a connection with a PROXY header where the cluster asks for it.
func proxied(c ir.Cluster, socket *corev3.TransportSocket) *corev3.TransportSocket {
	if c.ProxyProtocol == 0 {
		return socket
	}
	version := corev3.ProxyProtocolConfig_V1
	if c.ProxyProtocol == 2 {
		version = corev3.ProxyProtocolConfig_V2
	}
	return transportSocket("envoy.transport_sockets.upstream_proxy_protocol", &proxyprotocolv3.ProxyProtocolUpstreamTransport{
		Config:          &corev3.ProxyProtocolConfig{Version: version},
		TransportSocket: socket,
	})
}

func transportSocket(name string, config proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: name, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: typed(config)}}
}

func upstreamTLS(t ir.UpstreamTLS) *tlsv3.CommonTlsContext {
	out := &tlsv3.CommonTlsContext{
		AlpnProtocols: t.ALPN,
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsVersion(t.MinVersion),
			TlsMaximumProtocolVersion: tlsVersion(t.MaxVersion),
			CipherSuites:              t.Ciphers,
			EcdhCurves:                t.Curves,
		},
	}
	if t.Certificate != nil {
		out.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secretConfig(*t.Certificate)}
	}
	if f := t.CertificateFiles; f != nil {
		out.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(f.Certificate), PrivateKey: file(f.Key)}}
	}
	if t.CA == nil {
		own := serverValidation(t)
		if t.CAFile != "" {
			own.TrustedCa = file(t.CAFile)
		}
		out.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: own}
		return out
	}
	out.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         serverValidation(t),
			ValidationContextSdsSecretConfig: secretConfig(*t.CA),
		}}
	return out
}

func serverValidation(t ir.UpstreamTLS) *tlsv3.CertificateValidationContext {
	out := &tlsv3.CertificateValidationContext{}
	for _, s := range t.SANs {
		out.MatchSubjectAltNames = append(out.MatchSubjectAltNames, // any kind of SAN, as the original
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}})
	}
	if t.CRL != "" {
		out.Crl = file(t.CRL)
	}
	return out
}

func file(name string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: name}}
}
