package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
)

// caSuffix marks the SDS name of the authorities in a Secret.
const caSuffix = "-cacert"

// serverTLS is how a Gateway server takes TLS off, nil where it does not.
func (b *listenerBuilder) serverTLS(g *gatewayServer) *ir.DownstreamTLS {
	t := g.GetTls()
	if t.GetMode() == networking.ServerTLSSettings_ISTIO_MUTUAL {
		return b.peerTLS(g.isHTTP())
	}
	out := &ir.DownstreamTLS{
		Origin:       originOf(g.gateway.Config, fmt.Sprintf("servers[%d]", g.index)),
		ALPN:         []string{"h2", "http/1.1"},
		MinVersion:   tlsVersion(t.GetMinProtocolVersion()),
		MaxVersion:   tlsVersion(t.GetMaxProtocolVersion()),
		CipherSuites: knownCiphers(t.GetCipherSuites()),
	}
	b.serverCertificates(out, t)
	b.meshTLSDefaults(out)
	mutual := t.GetMode() == networking.ServerTLSSettings_MUTUAL
	if !mutual && t.GetMode() != networking.ServerTLSSettings_OPTIONAL_MUTUAL {
		return out
	}
	out.Require = mutual
	out.AcceptUntrusted = t.GetInsecureSkipVerify().GetValue()
	if !out.AcceptUntrusted {
		b.clientAuthority(out, t)
	}
	out.SANs = t.GetSubjectAltNames()
	out.SPKIs, out.CertHashes = t.GetVerifyCertificateSpki(), t.GetVerifyCertificateHash()
	out.CRL = t.GetCaCrl()
	return out
}

// serverCertificates come from Secrets by name, else from files beside the proxy,
// which its agent reads if it has one.
func (b *listenerBuilder) serverCertificates(out *ir.DownstreamTLS, t *networking.ServerTLSSettings) {
	names := t.GetCredentialNames()
	if n := t.GetCredentialName(); n != "" && len(names) == 0 {
		names = []string{n}
	}
	for _, n := range names {
		out.Certificates = append(out.Certificates, ir.SecretRef{Name: secretName(n)})
	}
	if len(names) > 0 {
		return
	}
	var files []ir.CertificateFiles
	for _, c := range t.GetTlsCertificates() {
		files = append(files, ir.CertificateFiles{Certificate: c.GetServerCertificate(), Key: c.GetPrivateKey()})
	}
	if t.GetServerCertificate() != "" && len(files) == 0 {
		files = []ir.CertificateFiles{{Certificate: t.GetServerCertificate(), Key: t.GetPrivateKey()}}
	}
	if !b.proxy.HasAgent() {
		out.CertificateFiles = files
		return
	}
	for _, f := range files {
		out.Certificates = append(out.Certificates, fileCertificate(f.Certificate, f.Key))
	}
}

func fileCertificate(certificate, key string) ir.SecretRef {
	return ir.SecretRef{Name: "file-cert:" + certificate + "~" + key, FromAgent: true}
}

// clientAuthority is what client certificates are checked against.
func (b *listenerBuilder) clientAuthority(out *ir.DownstreamTLS, t *networking.ServerTLSSettings) {
	for _, n := range append([]string{t.GetCaCertCredentialName(), t.GetCredentialName()}, t.GetCredentialNames()...) {
		if n != "" {
			out.CA = &ir.SecretRef{Name: secretName(n) + caSuffix}
			return
		}
	}
	name := t.GetCaCertificates()
	for _, c := range t.GetTlsCertificates() {
		name = cmp.Or(name, c.GetCaCertificates())
	}
	switch {
	case name == "":
	case b.proxy.HasAgent():
		out.CA = &ir.SecretRef{Name: "file-root:" + name, FromAgent: true}
	default:
		out.CAFile = name
	}
}

// secretName is the SDS name of a Secret in the gateway's namespace.
func secretName(credential string) string {
	if strings.Contains(credential, "://") {
		return credential
	}
	return "kubernetes://" + credential
}

// tlsVersion is Envoy's name of a version, "" for its default.
func tlsVersion(v networking.ServerTLSSettings_TLSProtocol) string {
	if v == networking.ServerTLSSettings_TLS_AUTO {
		return ""
	}
	return "TLSv" + strings.TrimPrefix(v.String(), "TLSV")
}

// meshTLSDefaults fills in what the server leaves open.
func (b *listenerBuilder) meshTLSDefaults(t *ir.DownstreamTLS) {
	d := b.snapshot.MeshConfig.GetTlsDefaults()
	if t.MinVersion == "" {
		t.MinVersion = minVersion(d)
	}
	if len(t.CipherSuites) == 0 {
		t.CipherSuites = knownCiphers(d.GetCipherSuites())
	}
	t.Curves = knownCurves(d.GetEcdhCurves())
}

// minVersion is Envoy's name of the mesh's lowest version, "" for its default.
func minVersion(c *meshconfig.MeshConfig_TLSConfig) string {
	switch c.GetMinProtocolVersion() {
	case meshconfig.MeshConfig_TLSConfig_TLSV1_2:
		return "TLSv1_2"
	case meshconfig.MeshConfig_TLSConfig_TLSV1_3:
		return "TLSv1_3"
	}
	return ""
}

// knownCurves keeps the curves that proxies have, for the same reason as knownCiphers.
func knownCurves(names []string) []string {
	var out []string
	for _, n := range names {
		switch n {
		case "X25519", "P-256", "P-384", "P-521", "X25519MLKEM768":
			out = append(out, n)
		}
	}
	return out
}

// meshCiphers are the suites of TLS between proxies of the mesh.
func meshCiphers() []string {
	return []string{
		"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
		"AES256-GCM-SHA384", "AES128-GCM-SHA256",
	}
}

// knownCiphers keeps the suites that proxies have: one unknown name would make
// them refuse the listener.
func knownCiphers(suites []string) []string {
	var out []string
	for _, s := range suites {
		if config.IsCipherSuite(s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// meshServerTLS is the server side of TLS between proxies of the mesh.
func meshServerTLS(m *meshconfig.MeshConfig, alpn ...string) *ir.DownstreamTLS {
	out := &ir.DownstreamTLS{
		ALPN:         alpn,
		Certificates: []ir.SecretRef{{Name: "default", FromAgent: true, WaitForever: true}},
		CA:           &ir.SecretRef{Name: "ROOTCA", FromAgent: true, WaitForever: true},
		Require:      true,
		MinVersion:   "TLSv1_2",
		MaxVersion:   "TLSv1_3",
		CipherSuites: meshCiphers(),
	}
	for _, d := range trustDomains(m) {
		out.SANPrefixes = append(out.SANPrefixes, "spiffe://"+d+"/")
	}
	if own := m.GetMeshMTLS(); own != nil {
		out.MinVersion = cmp.Or(minVersion(own), out.MinVersion)
		if suites := knownCiphers(own.GetCipherSuites()); len(suites) > 0 {
			out.CipherSuites = suites
		}
	}
	return out
}

// trustDomains are the mesh's own and those whose identities it accepts as its own.
func trustDomains(m *meshconfig.MeshConfig) []string {
	return append([]string{cmp.Or(m.GetTrustDomain(), "cluster.local")}, m.GetTrustDomainAliases()...)
}
