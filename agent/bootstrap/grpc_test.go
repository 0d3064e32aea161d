package bootstrap

import (
	"encoding/json"
	"testing"

	meshpb "istio.io/api/mesh/v1alpha1"
)

// TestGRPC: programs read certificates of the mesh from files, where the agent writes them.
func TestCertificatesOfPrograms(t *testing.T) {
	in := Input{Type: "sidecar", Name: "web-1", Namespace: "default", Addresses: []string{"10.0.0.1"}, Config: &meshpb.ProxyConfig{}, XDSSocket: "/etc/istio/proxy/XDS"}
	for dir, want := range map[string]string{"": "", "/var/lib/istio/data": "/var/lib/istio/data/cert-chain.pem /var/lib/istio/data/key.pem /var/lib/istio/data/root-cert.pem"} {
		in.Certificates = dir
		text, err := in.GRPC()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Providers map[string]struct {
				Plugin string `json:"plugin_name"`
				Config struct {
					Chain string `json:"certificate_file"`
					Key   string `json:"private_key_file"`
					Roots string `json:"ca_certificate_file"`
				} `json:"config"`
			} `json:"certificate_providers"`
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		p, there := got.Providers["default"]
		if there != (dir != "") || there && (p.Plugin != "file_watcher" || p.Config.Chain+" "+p.Config.Key+" "+p.Config.Roots != want) {
			t.Errorf("OUTPUT_CERTS=%s: %s", dir, text)
		}
	}
}
