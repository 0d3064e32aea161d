package compile

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// ALPN names by which proxies of the mesh know each other.
const (
	alpnIstio        = "istio"
	alpnPeerExchange = "istio-peer-exchange"
	alpnHTTP2        = "h2"
)

// The authorities of the proxy's system. An agent looks for their file; a proxy
// without one is told the place that most distributions use or link to.
const (
	systemRoots     = "system"
	systemRootsFile = "/etc/ssl/certs/ca-certificates.crt"
)

// applyTLS sets up the encryption that the policy asks for; without one, mutual TLS to the
// endpoints that take it.
func (b *clusterBuilder) applyTLS(c *ir.Cluster, t target, p policy) {
	if p.tls == nil {
		b.applyAutoTLS(c, t, p)
		return
	}
	switch p.tls.Mode {
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		c.TLS = b.meshTLS(c, t, p.tls)
	case networking.ClientTLSSettings_SIMPLE, networking.ClientTLSSettings_MUTUAL:
		c.TLS = b.originate(c, t, p.tls)
		c.Metadata.ALPNOverride = "false"
		b.autoSNI(c, t, p.tls)
	default:
		return
	}
	if d := b.mesh.MeshConfig.GetTlsDefaults(); d != nil && !c.TLS.Mesh {
		c.TLS.Ciphers, c.TLS.Curves = knownCiphers(d.CipherSuites), knownCurves(d.EcdhCurves)
		c.TLS.MinVersion = cmp.Or(minVersion(d), c.TLS.MinVersion)
	}
}

// applyAutoTLS has peers that both have a certificate of the mesh speak mutual TLS. Where the
// client chooses the endpoint nothing is known of that one, so there all take it, or none.
func (b *clusterBuilder) applyAutoTLS(c *ir.Cluster, t target, p policy) {
	if auto := b.mesh.MeshConfig.GetEnableAutoMtls(); auto != nil && !auto.Value || !b.mesh.Identified(b.proxy) ||
		t.service.MeshExternal || b.mesh.NamespaceTLSMode(t.service.Namespace) == mesh.Disable {
		return
	}
	if chosen := t.service.Resolution == registry.Passthrough || p.balancer.GetSimple() == networking.LoadBalancerSettings_PASSTHROUGH; chosen && !b.allTLS(t) {
		return
	}
	tls := b.meshTLS(c, t, nil)
	if c.Discovery == ir.OriginalDestination {
		c.TLS = tls
		return
	}
	c.PeerTLS = tls
}

// allTLS reports whether a target has endpoints, and all have a proxy. What
// PeerAuthentications say of single workloads is not looked at, as in the original.
func (b *clusterBuilder) allTLS(t target) bool {
	endpoints := b.mesh.Registry.Endpoints(t.service, t.port)
	return len(endpoints) > 0 && !slices.ContainsFunc(endpoints, func(e *registry.Endpoint) bool { return e.TLSMode == "disabled" })
}

// meshTLS is mTLS with the proxy's own certificate, to peers that the mesh's root
// has signed and whose identity is one of the service's. s may be nil.
func (b *clusterBuilder) meshTLS(c *ir.Cluster, t target, s *networking.ClientTLSSettings) *ir.UpstreamTLS {
	own := b.mesh.MeshConfig.GetMeshMTLS()
	tls := &ir.UpstreamTLS{
		SNI:         s.GetSni(),
		Certificate: &ir.SecretRef{Name: "default", FromAgent: true, WaitForever: true},
		CA:          &ir.SecretRef{Name: "ROOTCA", FromAgent: true, WaitForever: true},
		SANs:        s.GetSubjectAltNames(),
		MinVersion:  cmp.Or(minVersion(own), "TLSv1_2"),
		MaxVersion:  "TLSv1_3",
		Ciphers:     knownCiphers(own.GetCipherSuites()),
		Mesh:        true,
	}
	if tls.SNI == "" {
		tls.SNI = sniCluster(t.service.Host, t.subset.GetName(), t.port.Number)
	}
	if len(tls.SANs) == 0 {
		tls.SANs = b.identities(t.service)
	}
	if b.proxy.Has(peerExchangeExtension) {
		tls.ALPN = append(tls.ALPN, alpnPeerExchange)
	}
	tls.ALPN = append(tls.ALPN, alpnIstio)
	if isHTTP2(c) {
		tls.ALPN = append(tls.ALPN, alpnHTTP2)
	}
	return tls
}

func isHTTP2(c *ir.Cluster) bool { return c.HTTP != nil && c.HTTP.Version == ir.HTTP2 }

// identities are the service accounts of a service's endpoints and the names that
// its ServiceEntry accepts, sorted; those of the mesh under each of its trust domains.
func (b *clusterBuilder) identities(s *registry.Service) []string {
	if ids, known := b.sans[s]; known {
		return ids
	}
	ids := slices.Clone(s.SANs)
	for _, port := range s.Ports {
		for _, e := range b.mesh.Registry.Endpoints(s, port) {
			if e.ServiceAccount != "" {
				ids = append(ids, e.ServiceAccount)
			}
		}
	}
	domains := trustDomains(b.mesh.MeshConfig)
	for _, id := range ids {
		if path, own := strings.CutPrefix(id, "spiffe://"+domains[0]+"/"); own {
			for _, alias := range domains[1:] {
				ids = append(ids, "spiffe://"+alias+"/"+path)
			}
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if b.sans == nil {
		b.sans = map[*registry.Service][]string{}
	}
	b.sans[s] = ids
	return ids
}

// originate is TLS to a server outside of the mesh's trust. Its certificate is
// checked against the given authorities, else against the system's.
func (b *clusterBuilder) originate(c *ir.Cluster, t target, s *networking.ClientTLSSettings) *ir.UpstreamTLS {
	tls := &ir.UpstreamTLS{SNI: s.Sni, SANs: s.SubjectAltNames, CRL: s.CaCrl, MinVersion: "TLSv1_2", MaxVersion: "TLSv1_3"}
	if len(tls.SANs) == 0 && t.service.FromEntry {
		tls.SANs = b.identities(t.service)
	}
	mutual := s.Mode == networking.ClientTLSSettings_MUTUAL
	switch {
	case b.credential(t, s) != "":
		name := secretName(s.CredentialName)
		tls.CA = &ir.SecretRef{Name: name + caSuffix}
		if mutual {
			tls.Certificate = &ir.SecretRef{Name: name}
		}
	case b.proxy.HasAgent():
		tls.CA = &ir.SecretRef{Name: "file-root:" + cmp.Or(s.CaCertificates, systemRoots), FromAgent: true}
		if mutual && s.ClientCertificate != "" {
			tls.Certificate = new(fileCertificate(s.ClientCertificate, s.PrivateKey))
		}
	default:
		tls.CAFile = s.CaCertificates
		if tls.CAFile == "" || tls.CAFile == systemRoots {
			tls.CAFile = systemRootsFile
		}
		if mutual && s.ClientCertificate != "" {
			tls.CertificateFiles = &ir.CertificateFiles{Certificate: s.ClientCertificate, Key: s.PrivateKey}
		}
	}
	if !b.verifies(t, s) {
		tls.CA, tls.CAFile, tls.SANs, tls.CRL = nil, "", nil, ""
	}
	if isHTTP2(c) {
		tls.ALPN = []string{alpnHTTP2}
	}
	return tls
}

// credential is the Secret of a rule. Sidecars follow rules that select workloads alone, as the
// original: a rule for all would have every sidecar ask for a Secret of its own namespace.
func (b *clusterBuilder) credential(t target, s *networking.ClientTLSSettings) string {
	if b.proxy.Type == mesh.SidecarProxy && len(t.rule.Spec.GetWorkloadSelector().GetMatchLabels()) == 0 {
		return ""
	}
	return s.CredentialName
}

// verifies reports whether the server's certificate is checked.
func (b *clusterBuilder) verifies(t target, s *networking.ClientTLSSettings) bool {
	if b.mesh.Origination.Unverified && s.CaCertificates == "" && b.credential(t, s) == "" {
		return false
	}
	return !s.GetInsecureSkipVerify().GetValue()
}

// autoSNI lets the proxy take SNI from each request where the rule names none,
// and check the server's name against it where the rule names none either.
func (b *clusterBuilder) autoSNI(c *ir.Cluster, t target, s *networking.ClientTLSSettings) {
	if s.Sni != "" || b.mesh.Origination.NoAutoSNI {
		return
	}
	if c.HTTP == nil {
		c.HTTP = &ir.UpstreamHTTP{}
	}
	c.HTTP.AutoSNI = true
	c.HTTP.AutoSANValidation = len(s.SubjectAltNames) == 0 && b.verifies(t, s) && !b.mesh.Origination.Unverified
}
