package compile

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const grpcMesh = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: echo, namespace: default}
spec:
  hosts: [echo.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 7070, name: grpc, protocol: GRPC}]
  endpoints:
  - {address: 192.0.2.1, locality: north/one}
  - {address: 192.0.2.1, locality: north/two}
  - {address: 192.0.2.2, locality: south/one}
  - {address: unix:///run/echo}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: default}
spec:
  hosts: [one.example, two.example, any.example]
  resolution: DNS
  ports: [{number: 443, name: grpc, protocol: GRPC}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: several, namespace: default}
spec:
  hosts: [several.example]
  resolution: DNS
  ports: [{number: 443, name: grpc, protocol: GRPC}]
  endpoints: [{address: a.example}, {address: b.example}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: default}
spec:
  host: echo.default.svc.cluster.local
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    loadBalancer: {simple: LEAST_REQUEST, localityLbSetting: {enabled: true}}
    outlierDetection: {consecutive5xxErrors: 1}
    connectionPool: {http: {http2MaxRequests: 7}}
  subsets:
  - {name: random, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
  - {name: maglev, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65537}}}}}
  - {name: ring, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 9}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: two, namespace: default}
spec: {host: two.example, trafficPolicy: {tls: {mode: SIMPLE}}}
`

// grpcProgram is the mesh of a text as a gRPC program of the namespace default sees it.
func grpcProgram(t *testing.T, text string) (*mesh.Snapshot, *mesh.Scope, *mesh.Proxy) {
	t.Helper()
	objects, problems := config.DecodeYAML("mesh.yaml", []byte(text))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	p := &mesh.Proxy{Type: mesh.SidecarProxy, Namespace: "default", Domain: "default.svc.cluster.local", Addresses: []string{"192.0.2.9"},
		Metadata: map[string]any{"GENERATOR": "grpc"}}
	p.Locality.Region, p.Locality.Zone = "north", "one"
	s := mesh.Build(config.NewSet(1, objects), mesh.Options{})
	return s, s.Scope(p), p
}

func TestGRPCClusters(t *testing.T) {
	s, scope, p := grpcProgram(t, grpcMesh)
	const echo = "|echo.default.svc.cluster.local"
	for _, test := range []struct {
		name, cluster string
		want          string // what is not as it should be, "" for a cluster that is not there
		right         func(ir.Cluster) bool
	}{
		{"least request is in turn", "outbound|7070|" + echo, "in turn, 7 calls at once", func(c ir.Cluster) bool {
			return c.Discovery == ir.EDS && c.LoadBalancer.Balancer == ir.RoundRobin && c.Limits.MaxRequests == 7 && c.Outlier == nil
		}},
		{"encryption with the program's own certificate", "outbound|7070|" + echo, "mTLS", func(c ir.Cluster) bool {
			return c.TLS != nil && c.TLS.Mesh && c.TLS.CA.Name == "ROOTCA"
		}},
		{"random is in turn", "outbound|7070|random" + echo, "in turn", func(c ir.Cluster) bool { return c.LoadBalancer.Balancer == ir.RoundRobin }},
		{"Maglev is a ring", "outbound|7070|maglev" + echo, "a ring", func(c ir.Cluster) bool {
			return c.LoadBalancer.Balancer == ir.RingHash && c.LoadBalancer.MinRingSize == 1024 && c.LoadBalancer.TableSize == 0
		}},
		{"DR-010 a ring of another size", "outbound|7070|ring" + echo, "9", func(c ir.Cluster) bool { return c.LoadBalancer.MinRingSize == 9 }},
		{"a name of DNS", "outbound|443||one.example", "one name", func(c ir.Cluster) bool {
			return c.Discovery == ir.LogicalDNS && c.TLS == nil && c.Assignment.Localities[0].Endpoints[0].Address == "one.example"
		}},
		{"several names of DNS", "outbound|443||several.example", "", nil},
		{"encryption that gRPC cannot do", "outbound|443||two.example", "", nil},
		{"no such service", "outbound|443||none.example", "", nil},
		{"nowhere", "BlackHoleCluster", "without endpoints", func(c ir.Cluster) bool { return c.Discovery == ir.EDS && c.TLS == nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := GRPCClusters(s, scope, p, []string{test.cluster})
			switch {
			case test.right == nil && len(got) > 0:
				t.Errorf("it is there: %+v", got[0])
			case test.right != nil && (len(got) != 1 || !test.right(got[0])):
				t.Errorf("want %s: %+v", test.want, got)
			}
		})
	}
}

// TestGRPCEndpoints: gRPC refuses an assignment whole that has an address twice or one that
// is no socket of the network.
func TestGRPCEndpoints(t *testing.T) {
	s, scope, p := grpcProgram(t, grpcMesh)
	a := GRPCEndpoints(s, scope, p, "outbound|7070||echo.default.svc.cluster.local")
	if a == nil {
		t.Fatal("no assignment")
	}
	priorities := map[string]uint32{}
	for _, l := range a.Localities {
		for _, e := range l.Endpoints {
			if _, twice := priorities[e.Address]; twice {
				t.Errorf("%s is there twice", e.Address)
			}
			priorities[e.Address] = l.Priority
		}
	}
	if len(priorities) != 2 || priorities["192.0.2.2"] <= priorities["192.0.2.1"] {
		t.Errorf("priorities %v, want the own zone first", priorities)
	}
	if a := GRPCEndpoints(s, scope, p, "BlackHoleCluster"); a == nil || len(a.Localities) != 0 {
		t.Errorf("nowhere: %+v", a)
	}
}

func TestGRPCUnfits(t *testing.T) {
	const to = "    route: [{destination: {host: echo.default.svc.cluster.local}}]\n"
	for _, test := range []struct {
		name, rule  string
		lost, fails string
		routes      int
	}{
		{"a plain rule", "  -\n" + to, "", "", 1},
		{"a query, which no call has", "  - match: [{queryParams: {a: {exact: b}}}]\n    redirect: {uri: /}\n", "", "", 0},
		{"another method of HTTP", "  - match: [{method: {exact: GET}}]\n" + to, "", "", 0},
		{"another scheme", "  - match: [{scheme: {exact: https}}]\n" + to, "", "", 0},
		{"another authority", "  - match: [{authority: {regex: 'other.*'}}]\n" + to, "", "", 0},
		{"the authority without its port", "  - match: [{authority: {exact: echo.default.svc.cluster.local}}]\n" + to, "", "", 1},
		{"a header that is not something", "  - match: [{withoutHeaders: {a: {exact: b}, c: {}}}]\n" + to, "", "", 2},
		{"too many of them", "  - match: [{withoutHeaders: {a: {exact: x}, b: {exact: x}, c: {exact: x}, d: {exact: x}, e: {exact: x}}}]\n" + to, "", "more than 4 headers", 1},
		{"a redirect", "  - redirect: {uri: /}\n", "", "redirect", 1},
		{"a rewrite", "  - rewrite: {uri: /}\n" + to, "", "rewrite", 1},
		{"no such subset", "  - route: [{destination: {host: echo.default.svc.cluster.local, subset: none}}]\n", "", "subset none", 1},
		{"no such port", "  - route: [{destination: {host: echo.default.svc.cluster.local, port: {number: 1}}}]\n", "", "no port 1", 1},
		{"headers, mirror and a timeout of each try", "  - headers: {request: {set: {a: b}}}\n    mirror: {host: echo.default.svc.cluster.local}\n    retries: {attempts: 1, perTryTimeout: 1s}\n    rewrite: {authority: other}\n" + to,
			"headers, rewrite.authority, mirror, retries.perTryTimeout", "", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, scope, p := grpcProgram(t, grpcMesh+`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo, namespace: default}
spec:
  hosts: [echo.default.svc.cluster.local]
  http:
`+test.rule)
			table := []string{"outbound|7070||echo.default.svc.cluster.local"}
			routes := GRPCRoutes(s, scope, p, table)[0].VirtualHosts[0].Routes
			if len(routes) != test.routes {
				t.Errorf("%d routes, want %d: %+v", len(routes), test.routes, routes)
			}
			lost, fails := "", ""
			for _, u := range GRPCUnfits(s, scope, p, table) {
				lost, fails = strings.Join(u.Lost, ", "), u.Fails
			}
			if lost != test.lost || !strings.Contains(fails, test.fails) || (fails == "") != (test.fails == "") {
				t.Errorf("lost %q, fails %q; want %q, %q", lost, fails, test.lost, test.fails)
			}
		})
	}
}
