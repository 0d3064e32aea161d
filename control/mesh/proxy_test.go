package mesh

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/control/registry"
)

func TestParseProxy(t *testing.T) {
	for _, tc := range []struct {
		name, node string
		want       Proxy // without Metadata
		err        string
	}{
		{
			name: "an agent's sidecar",
			node: `{"id": "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", "locality": {"region": "r1", "zone": "z1"}, "metadata": {
				"NAME": "web-1", "NAMESPACE": "shop", "LABELS": {"app": "web"}, "SERVICE_ACCOUNT": "web", "WORKLOAD_NAME": "web",
				"CLUSTER_ID": "c1", "NETWORK": "n1", "ISTIO_VERSION": "1.30.0", "INTERCEPTION_MODE": "REDIRECT",
				"INSTANCE_IPS": "10.0.0.1, fd00::1", "DNS_CAPTURE": "true", "PILOT_SAN": ["istiod"]}}`,
			want: Proxy{ID: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", Type: SidecarProxy, Addresses: []string{"10.0.0.1", "fd00::1"},
				Name: "web-1", Namespace: "shop", Domain: "shop.svc.cluster.local", Labels: map[string]string{"app": "web"},
				ServiceAccount: "web", WorkloadName: "web", ClusterID: "c1", Network: "n1", IstioVersion: "1.30.0",
				InterceptionMode: "REDIRECT", DNSCapture: true, Locality: registry.Locality{Region: "r1", Zone: "z1"}, Extensions: map[string]bool{}},
		},
		{
			name: "a bare Envoy: namespace from the id, locality from a label, extensions listed",
			node: `{"id": "router~10.0.0.2~gw.istio-system~istio-system.svc.cluster.local", "extensions": [{"name": "envoy.filters.http.router"}],
				"client_features": ["envoy.lb.does_not_support_overprovisioning"],
				"metadata": {"LATEEN_MARK": "1337", "LABELS": {"istio-locality": "r2.z2.s2", "number": 1}}}`,
			want: Proxy{ID: "router~10.0.0.2~gw.istio-system~istio-system.svc.cluster.local", Type: Router, Addresses: []string{"10.0.0.2"},
				Name: "gw", Namespace: "istio-system", Domain: "istio-system.svc.cluster.local", Labels: map[string]string{"istio-locality": "r2.z2.s2"},
				Mark: 1337, Locality: registry.Locality{Region: "r2", Zone: "z2", SubZone: "s2"}, Extensions: map[string]bool{"envoy.filters.http.router": true}},
		},
		{name: "another form of id", node: `{"id": "test"}`, err: `node id "test": want type~ip~name.namespace~domain`},
		{name: "another type", node: `{"id": "ztunnel~1.1.1.1~a.b~c"}`, err: `node id "ztunnel~1.1.1.1~a.b~c": unknown proxy type "ztunnel"`},
		{name: "nothing", node: `{}`, err: `node id "": want type~ip~name.namespace~domain`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node := &corev3.Node{}
			if err := protojson.Unmarshal([]byte(tc.node), node); err != nil {
				t.Fatal(err)
			}
			got, err := ParseProxy(node)
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Fatalf("error %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Metadata = nil
			if d := cmp.Diff(&tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestProxyHas(t *testing.T) {
	unknown, listed := &Proxy{}, &Proxy{Extensions: map[string]bool{"a": true}}
	if !unknown.Has("a") || !listed.Has("a") || listed.Has("b") {
		t.Error("a proxy that lists nothing has everything, one that lists has what it lists")
	}
}

func FuzzParseProxy(f *testing.F) {
	f.Add(`{"id": "sidecar~10.0.0.1~web-1.shop~d", "metadata": {"LABELS": {"a": "b"}, "INSTANCE_IPS": ",,1"}}`)
	f.Add(`{"id": "router~~~", "metadata": {"LABELS": [], "INSTANCE_IPS": 4, "DNS_CAPTURE": true}}`)
	f.Fuzz(func(t *testing.T, text string) {
		node := &corev3.Node{}
		if protojson.Unmarshal([]byte(text), node) != nil {
			return
		}
		if p, err := ParseProxy(node); err == nil && (p.Type != SidecarProxy && p.Type != Router || len(p.Addresses) == 0) {
			t.Errorf("%s gives %+v", text, p)
		}
	})
}
