package test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tracepb "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// A staticBootstrap holds what proxies would get by discovery in the form that Envoy
// reads from a file: route tables within listeners, endpoints within clusters,
// secrets beside them. Names and ports are made different from proxy to proxy.
type staticBootstrap struct {
	*bootstrappb.Bootstrap
	pem  pemFiles
	port uint32
}

func newStaticBootstrap(p pemFiles) *staticBootstrap {
	return &staticBootstrap{pem: p, port: 10_000, Bootstrap: &bootstrappb.Bootstrap{
		Node:            &corepb.Node{Id: "x", Cluster: "x"},
		StaticResources: &bootstrappb.Bootstrap_StaticResources{},
		LayeredRuntime: &bootstrappb.LayeredRuntime{Layers: []*bootstrappb.RuntimeLayer{{
			Name: "static", LayerSpecifier: &bootstrappb.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{
				Fields: map[string]*structpb.Value{"re2.max_program_size.error_level": structpb.NewNumberValue(32768)}}}}}},
	}}
}

// A proxyPart adds the resources of one proxy.
type proxyPart struct {
	*staticBootstrap
	stockView
	proxy *mesh.Proxy
	scope *mesh.Scope
	known map[string]bool // names of secrets
}

func (b *staticBootstrap) add(v stockView) error {
	p, err := mesh.ParseProxy(v.node)
	if err != nil {
		return err
	}
	part := proxyPart{staticBootstrap: b, stockView: v, proxy: p, scope: v.snapshot.Scope(p), known: map[string]bool{}}
	for _, c := range compile.Clusters(v.snapshot, part.scope, p) {
		if err := part.addCluster(c); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
	}
	for _, l := range compile.Listeners(v.snapshot, part.scope, p) {
		if err := part.addListener(envoy.Listener(l)); err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
	}
	return nil
}

func (p *proxyPart) addCluster(c ir.Cluster) error {
	m := envoy.Cluster(c)
	if c.Discovery == ir.EDS {
		m.ClusterDiscoveryType, m.EdsClusterConfig = &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}, nil
		m.LoadAssignment = envoy.Assignment(*compile.Endpoints(p.snapshot, p.scope, p.proxy, c.Name))
	}
	m.Name = p.name + "/" + c.Name
	p.StaticResources.Clusters = append(p.StaticResources.Clusters, m)
	return p.static(m.TransportSocket)
}

func (p *proxyPart) addListener(l *listenerpb.Listener) error {
	l.Name = p.name + "/" + l.Name
	p.port++
	if s := l.GetAddress().GetSocketAddress(); s != nil {
		s.PortSpecifier = &corepb.SocketAddress_PortValue{PortValue: p.port}
	} else {
		l.Address.GetPipe().Path = fmt.Sprintf("@%d", p.port)
	}
	chains := l.FilterChains
	if l.DefaultFilterChain != nil {
		chains = append(slices.Clip(chains), l.DefaultFilterChain)
	}
	for _, c := range chains {
		if err := p.static(c.TransportSocket); err != nil {
			return err
		}
		for _, f := range c.Filters {
			if err := p.inlineRoutes(f.GetTypedConfig()); err != nil {
				return err
			}
		}
	}
	p.StaticResources.Listeners = append(p.StaticResources.Listeners, l)
	return nil
}

// inlineRoutes puts the route table into a connection manager that names it.
func (p *proxyPart) inlineRoutes(config *anypb.Any) error {
	var h hcmpb.HttpConnectionManager
	if !config.MessageIs(&h) {
		return nil
	}
	if err := config.UnmarshalTo(&h); err != nil {
		return err
	}
	if err := p.ownTracer(h.GetTracing().GetProvider()); err != nil {
		return err
	}
	if h.GetRds() == nil {
		return config.MarshalFrom(&h)
	}
	name := h.GetRds().GetRouteConfigName()
	tables := compile.Routes(p.snapshot, p.scope, p.proxy, name)
	if len(tables) == 0 {
		return fmt.Errorf("no route table %s", name)
	}
	h.RouteSpecifier = &hcmpb.HttpConnectionManager_RouteConfig{RouteConfig: envoy.RouteConfiguration(*tables[0])}
	return config.MarshalFrom(&h)
}

// ownTracer has a tracer send to the proxy's own cluster.
func (p *proxyPart) ownTracer(tracer *tracepb.Tracing_Http) error {
	config := tracer.GetTypedConfig()
	var z tracepb.ZipkinConfig
	var o tracepb.OpenTelemetryConfig
	switch {
	case config.MessageIs(&z):
		if err := config.UnmarshalTo(&z); err != nil {
			return err
		}
		if z.CollectorCluster != "" {
			z.CollectorCluster = p.name + "/" + z.CollectorCluster
		}
		p.ownSpans(z.GetCollectorService())
		return config.MarshalFrom(&z)
	case config.MessageIs(&o):
		if err := config.UnmarshalTo(&o); err != nil {
			return err
		}
		if g := o.GetGrpcService().GetEnvoyGrpc(); g != nil {
			g.ClusterName = p.name + "/" + g.ClusterName
		}
		p.ownSpans(o.GetHttpService())
		return config.MarshalFrom(&o)
	}
	return nil
}

func (p *proxyPart) ownSpans(s *corepb.HttpService) {
	if u := s.GetHttpUri(); u != nil {
		u.HttpUpstreamType = &corepb.HttpUri_Cluster{Cluster: p.name + "/" + u.GetCluster()}
	}
}

// static makes a TLS socket's secrets static, and its files ours.
func (p *proxyPart) static(s *corepb.TransportSocket) error {
	config := s.GetTypedConfig()
	if config == nil {
		return nil
	}
	m, err := config.UnmarshalNew()
	if err != nil {
		return err
	}
	tls, ok := m.(interface {
		GetCommonTlsContext() *tlspb.CommonTlsContext
	})
	if !ok {
		return nil
	}
	common := tls.GetCommonTlsContext()
	for _, c := range common.GetTlsCertificateSdsSecretConfigs() {
		p.secret(c, p.pem.certificate())
	}
	for _, c := range common.GetTlsCertificates() {
		own := p.pem.certificate()
		c.CertificateChain, c.PrivateKey = own.CertificateChain, own.PrivateKey
	}
	if c := common.GetCombinedValidationContext(); c != nil {
		p.secret(c.GetValidationContextSdsSecretConfig(), nil)
		p.pem.replace(c.GetDefaultValidationContext())
	}
	p.pem.replace(common.GetValidationContext())
	return config.MarshalFrom(m)
}

// secret lists the secret that a configuration names, with what the mesh has under
// the name, else a certificate or (nil) an authority of the test.
func (p *proxyPart) secret(c *tlspb.SdsSecretConfig, certificate *tlspb.TlsCertificate) {
	out := &tlspb.Secret{Type: &tlspb.Secret_TlsCertificate{TlsCertificate: certificate}}
	if certificate == nil {
		out.Type = &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: file(p.pem.ca)}}
	}
	if own, err := compile.Secret(p.snapshot, p.proxy, c.Name); err == nil {
		out = envoy.Secret(*own)
	}
	c.Name, c.SdsConfig = p.name+"/"+c.Name, nil
	out.Name = c.Name
	if !p.known[out.Name] {
		p.known[out.Name] = true
		p.StaticResources.Secrets = append(p.StaticResources.Secrets, out)
	}
}

// pemFiles are files of the test that stand in for those that configuration names.
type pemFiles struct{ cert, key, ca, crl string }

func file(path string) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_Filename{Filename: path}}
}

func (f pemFiles) certificate() *tlspb.TlsCertificate {
	return &tlspb.TlsCertificate{CertificateChain: file(f.cert), PrivateKey: file(f.key)}
}

func (f pemFiles) replace(v *tlspb.CertificateValidationContext) {
	if v.GetTrustedCa().GetFilename() != "" {
		v.TrustedCa = file(f.ca)
	}
	if v.GetCrl().GetFilename() != "" {
		v.Crl = file(f.crl)
	}
}

// writePEMs makes an authority with an empty list of revocations, and a certificate
// that it signed.
func writePEMs(t *testing.T) pemFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now, NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now, NotAfter: now.Add(time.Hour), DNSNames: []string{"a.test"}}
	dir := t.TempDir()
	write := func(name, block string, der []byte, err error) string {
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(name string, c *x509.Certificate) string {
		der, err := x509.CreateCertificate(rand.Reader, c, authority, key.Public(), crypto.Signer(key))
		return write(name, "CERTIFICATE", der, err)
	}
	pkcs8, keyErr := x509.MarshalPKCS8PrivateKey(key)
	crl, crlErr := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, authority, key)
	return pemFiles{cert: sign("cert.pem", leaf), key: write("key.pem", "PRIVATE KEY", pkcs8, keyErr),
		ca: sign("ca.pem", authority), crl: write("crl.pem", "X509 CRL", crl, crlErr)}
}
