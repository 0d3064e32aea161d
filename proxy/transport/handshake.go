package transport

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

var versionNames = map[uint16]string{tls.VersionTLS10: "TLSv1", tls.VersionTLS11: "TLSv1.1", tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}

// VersionName is the name of a version of TLS in logs, OpenSSL's; "" for an unknown one.
func VersionName(v uint16) string { return versionNames[v] }

var groupNames = map[tls.CurveID]string{
	tls.CurveP256: "P-256", tls.CurveP384: "P-384", tls.CurveP521: "P-521", tls.X25519: "X25519", tls.X25519MLKEM768: "X25519MLKEM768",
}

// GroupName is the name of a key exchange's group in logs, BoringSSL's; "" for none.
func GroupName(id tls.CurveID) string { return groupNames[id] }

// handshakeOf is what is told of a finished handshake; own is what our end could show,
// whether it was asked for or not, as Envoy tells it.
func handshakeOf(state *tls.ConnectionState, own *streaminfo.Certificate) *streaminfo.TLS {
	t := &streaminfo.TLS{Version: VersionName(state.Version), Cipher: CipherName(state.CipherSuite), Group: GroupName(state.CurveID), Local: own}
	if len(state.PeerCertificates) > 0 {
		t.Peer = Describe(state.PeerCertificates[0])
	}
	return t
}

// Describe is c as logs print it, nil for nil.
func Describe(c *x509.Certificate) *streaminfo.Certificate {
	if c == nil {
		return nil
	}
	d := &streaminfo.Certificate{X509: c, Subject: Visible(c.Subject.String()), Issuer: Visible(c.Issuer.String())}
	for _, name := range c.DNSNames {
		d.DNS = append(d.DNS, Visible(name))
	}
	for _, u := range c.URIs {
		d.URIs = append(d.URIs, u.String())
	}
	return d
}
