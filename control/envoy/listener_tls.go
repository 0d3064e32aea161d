package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func downstreamTLS(t ir.DownstreamTLS) *corev3.TransportSocket {
	common := &tlsv3.CommonTlsContext{AlpnProtocols: t.ALPN, TlsParams: tlsParams(t)}
	for _, c := range t.Certificates {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, secretConfig(c))
	}
	for _, f := range t.CertificateFiles {
		common.TlsCertificates = append(common.TlsCertificates,
			&tlsv3.TlsCertificate{CertificateChain: file(f.Certificate), PrivateKey: file(f.Key)})
	}
	switch {
	case t.CA != nil:
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         clientValidation(t),
				ValidationContextSdsSecretConfig: secretConfig(*t.CA),
			}}
	case t.CAFile != "" || t.AcceptUntrusted:
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: clientValidation(t)}
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: typed(&tlsv3.DownstreamTlsContext{
			CommonTlsContext:         common,
			RequireClientCertificate: wrapperspb.Bool(t.Require),
		})},
	}
}

func clientValidation(t ir.DownstreamTLS) *tlsv3.CertificateValidationContext {
	v := &tlsv3.CertificateValidationContext{
		VerifyCertificateSpki: t.SPKIs,
		VerifyCertificateHash: t.CertHashes,
	}
	if t.AcceptUntrusted {
		v.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	}
	if t.CAFile != "" {
		v.TrustedCa = file(t.CAFile)
	}
	if t.CRL != "" {
		v.Crl = file(t.CRL)
	}
	for _, s := range t.SANs {
		v.MatchSubjectAltNames = append(v.MatchSubjectAltNames, // any kind of SAN, as the original
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}})
	}
	for _, s := range t.SANPrefixes {
		v.MatchSubjectAltNames = append(v.MatchSubjectAltNames, // any kind of SAN, as the original
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}})
	}
	return v
}

func tlsParams(t ir.DownstreamTLS) *tlsv3.TlsParameters {
	if t.MinVersion == "" && t.MaxVersion == "" && len(t.CipherSuites)+len(t.Curves) == 0 {
		return nil
	}
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsVersion(t.MinVersion),
		TlsMaximumProtocolVersion: tlsVersion(t.MaxVersion),
		CipherSuites:              t.CipherSuites,
		EcdhCurves:                t.Curves,
	}
}

func tlsVersion(v string) tlsv3.TlsParameters_TlsProtocol {
	return tlsv3.TlsParameters_TlsProtocol(tlsv3.TlsParameters_TlsProtocol_value[v])
}

func secretConfig(s ir.SecretRef) *tlsv3.SdsSecretConfig {
	source := overADS()
	if s.FromAgent {
		source.ConfigSourceSpecifier = &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "sds-grpc"}}}},
		}}
	}
	if s.WaitForever {
		source.InitialFetchTimeout = durationpb.New(0)
	}
	return &tlsv3.SdsSecretConfig{Name: s.Name, SdsConfig: source}
}
