package compile

import (
	"reflect"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// TestLike makes everything for a proxy and for the one that stands for it: if anything of
// it depended on what tells the proxy from its like, they would differ.
func TestLike(t *testing.T) {
	check := func(t *testing.T, s *mesh.Snapshot, p *mesh.Proxy) {
		t.Helper()
		like, key := Like(s, p)
		if want, got := makeAll(s, p), makeFor(s, s.Scope(p), like); !reflect.DeepEqual(want, got) {
			t.Errorf("%s: what is made for its like differs", p.ID)
		}
		if _, again := Like(s, p); again != key {
			t.Errorf("%s: the key is another one the next time", p.ID)
		}
	}
	eachConfiguration(t, check)
	t.Run("golden scenarios", func(t *testing.T) {
		for _, sc := range goldenScenarios(t) {
			for _, p := range sc.proxies {
				check(t, sc.snapshot, p)
			}
		}
	})
}

// TestAlike says who is like whom.
func TestAlike(t *testing.T) {
	s := snapshotOf(txtar.Parse([]byte(`-- config.yaml --
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: crowd, namespace: default}
spec: {clusterIP: None, selector: {app: crowd}, ports: [{name: tcp, port: 9000}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: default}
spec:
  hosts: [entry.test]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.8.0.1, labels: {app: a}}, {address: 10.8.0.2, labels: {app: a}}, {address: 10.8.0.3, labels: {app: b}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: direct, namespace: default}
spec:
  workloadSelector: {labels: {app: direct}}
  ingress: [{port: {number: 80, protocol: HTTP, name: http}, defaultEndpoint: "0.0.0.0:8080"}]
`)))
	key := func(change func(*mesh.Proxy), line string) Likeness {
		p := parseProxy(t, line)
		if change != nil {
			change(p)
		}
		_, k := Like(s, p)
		return k
	}
	none := func(*mesh.Proxy) {}
	headers := func(p *mesh.Proxy) { p.Extensions = map[string]bool{extHeaders: true} }
	for _, c := range []struct {
		name      string
		one, two  string
		change    func(*mesh.Proxy)
		different bool
	}{
		{"two Pods of a Deployment", "sidecar default 10.1.1.1 app=a", "sidecar default 10.1.1.2 app=a", none, false},
		{"another label", "sidecar default 10.1.1.1 app=a", "sidecar default 10.1.1.1 app=b", none, true},
		{"another namespace", "sidecar default 10.1.1.1 app=a", "sidecar other 10.1.1.1 app=a", none, true},
		{"an address of IPv6", "sidecar default 10.1.1.1 app=a", "sidecar default fd00::1 app=a", none, true},
		{"a gateway", "sidecar default 10.1.1.1 app=a", "router default 10.1.1.1 app=a", none, true},
		{"two endpoints of a service", "sidecar default 10.8.0.1 app=a", "sidecar default 10.8.0.2 app=a", none, false},
		{"an endpoint and nobody's", "sidecar default 10.8.0.1 app=a", "sidecar default 10.1.1.1 app=a", none, true},
		{"an endpoint with other labels", "sidecar default 10.8.0.1 app=a", "sidecar default 10.8.0.3 app=a", none, true},
		{"a Sidecar that forwards to the proxy's address", "sidecar default 10.1.1.1 app=direct", "sidecar default 10.1.1.2 app=direct", none, true},
		{"those who tell peers by headers who they are", "sidecar default 10.1.1.1 app=a", "sidecar default 10.1.1.2 app=a", headers, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if different := key(c.change, c.one) != key(c.change, c.two); different != c.different {
				t.Errorf("different: %v, want %v", different, c.different)
			}
		})
	}
}
