package compile

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// How a workload is served to the mesh: with its own certificate, to those who show one of the
// trust domain or of an alias.
func TestServerTLS(t *testing.T) {
	objects, problems := config.DecodeYAML("test.yaml", []byte(served))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	for _, tc := range []struct {
		name    string
		mesh    func(*meshconfig.MeshConfig)
		least   string
		ciphers []string
		domains []string
	}{
		{"SX-012 by default", func(*meshconfig.MeshConfig) {}, "TLSv1_2", []string{
			"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
			"AES256-GCM-SHA384", "AES128-GCM-SHA256"}, []string{"spiffe://cluster.local/"}},
		{"SX-012 SX-022 as the mesh says", func(m *meshconfig.MeshConfig) {
			m.TrustDomain, m.TrustDomainAliases = "new.example", []string{"old.example"}
			m.MeshMTLS = &meshconfig.MeshConfig_TLSConfig{MinProtocolVersion: meshconfig.MeshConfig_TLSConfig_TLSV1_3, CipherSuites: []string{"AES128-GCM-SHA256", "none of them"}}
		}, "TLSv1_3", []string{"AES128-GCM-SHA256"}, []string{"spiffe://new.example/", "spiffe://old.example/"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mc := config.DefaultMeshConfig()
			tc.mesh(mc)
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{Identities: true, MeshConfig: mc})
			p := parseProxy(t, "sidecar default 10.9.9.9 app=in agent")
			all := Listeners(s, s.Scope(p), p)
			in := all[slices.IndexFunc(all, func(l ir.Listener) bool { return l.Name == captureIn })]
			seen := map[bool]int{}
			for _, c := range in.Chains {
				if c.TLS == nil {
					continue
				}
				alpn := []string{"istio-peer-exchange", "h2", "http/1.1"}
				if c.HTTP != nil {
					alpn = []string{"h2", "http/1.1"}
				}
				seen[c.HTTP != nil]++
				want := &ir.DownstreamTLS{
					Certificates: []ir.SecretRef{{Name: "default", FromAgent: true, WaitForever: true}}, CA: &ir.SecretRef{Name: "ROOTCA", FromAgent: true, WaitForever: true},
					Require: true, MinVersion: tc.least, MaxVersion: "TLSv1_3", CipherSuites: tc.ciphers, SANPrefixes: tc.domains, ALPN: alpn,
				}
				if diff := cmp.Diff(want, c.TLS); diff != "" {
					t.Errorf("%s: %s", c.Name, diff)
				}
			}
			if seen[true] == 0 || seen[false] == 0 {
				t.Errorf("chains: %v", seen)
			}
		})
	}
}
