package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Secret spells a secret: a certificate with its key, or authorities.
func Secret(s ir.Secret) *tlsv3.Secret {
	out := &tlsv3.Secret{Name: s.Name}
	if len(s.Certificate) > 0 {
		out.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(s.Certificate),
			PrivateKey:       inline(s.Key),
			OcspStaple:       inline(s.OCSPStaple),
		}}
		return out
	}
	out.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa: inline(s.CA),
		Crl:       inline(s.CRL),
	}}
	return out
}

func inline(b []byte) *corev3.DataSource {
	if len(b) == 0 {
		return nil
	}
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
