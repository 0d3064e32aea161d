package mesh

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
)

func snapshot(t *testing.T, text string) *Snapshot {
	t.Helper()
	objects, problems := config.DecodeYAML("test.yaml", []byte(text))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	return Build(config.NewSet(7, objects), Options{})
}

func names[T interface{ FullName() string }](list []T) []string {
	got := []string{}
	for _, x := range list {
		got = append(got, x.FullName())
	}
	return got
}

func virtualNames(list []*VirtualService) []string {
	got := []string{}
	for _, v := range list {
		got = append(got, v.Namespace+"/"+v.Name)
	}
	return got
}

func TestGateways(t *testing.T) {
	const server = "servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]"
	s := snapshot(t, `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: b, namespace: apps}
spec: {selector: {istio: ingressgateway}, `+server+`}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: istio-system}
spec: {selector: {istio: ingressgateway, app: gw}, `+server+`}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: c, namespace: apps}
spec: {selector: {istio: egressgateway}, `+server+`}
`)
	labels := map[string]string{"istio": "ingressgateway", "app": "gw"}
	for _, tc := range []struct {
		name string
		p    Proxy
		want []string
	}{
		{"GW-001 by labels, across namespaces", Proxy{Type: Router, Namespace: "istio-system", Labels: labels}, []string{"istio-system/a", "apps/b"}},
		{"every label counts", Proxy{Type: Router, Namespace: "apps", Labels: map[string]string{"istio": "ingressgateway"}}, []string{"apps/b"}},
		{"not for sidecars", Proxy{Type: SidecarProxy, Namespace: "apps", Labels: labels}, []string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := names(s.Scope(&tc.p).Gateways()); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

const services = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [reviews, "*.shop.test"]
  gateways: [mesh, gw, other/gw, ./own, old.ns2.svc.cluster.local]
  http:
  - match: [{gateways: [gw]}]
    route: [{destination: {host: Reviews}}]
    mirror: {host: shadow}
  - route: [{destination: {host: reviews.other.svc.cluster.local}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: private, namespace: other}
spec:
  hosts: [details]
  exportTo: ["."]
  gateways: [shop/gw, mesh]
  http: [{route: [{destination: {host: details}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: plain, namespace: other}
spec:
  hosts: [ratings.other.svc.cluster.local]
  http: [{route: [{destination: {host: ratings}}]}]
`

func TestVirtualServices(t *testing.T) {
	s := snapshot(t, services)
	shop := s.Scope(&Proxy{Type: SidecarProxy, Namespace: "shop"})
	t.Run("VS-006 VS-007 names are made absolute", func(t *testing.T) {
		v := shop.VirtualServicesFor("shop/gw")[0]
		if d := cmp.Diff([]string{"reviews.shop.svc.cluster.local", "*.shop.test"}, v.Spec.Hosts); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"mesh", "shop/gw", "other/gw", "shop/own", "ns2/old"}, v.Spec.Gateways); d != "" {
			t.Error(d)
		}
		got := []string{v.Spec.Http[0].Route[0].Destination.Host, v.Spec.Http[0].Mirror.Host, v.Spec.Http[1].Route[0].Destination.Host, v.Spec.Http[0].Match[0].Gateways[0]}
		want := []string{"reviews.shop.svc.cluster.local", "shadow.shop.svc.cluster.local", "reviews.other.svc.cluster.local", "shop/gw"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("the stored object stays as it was written", func(t *testing.T) {
		stored := s.Config.Get(config.VirtualService, "shop", "a").Spec.(*networking.VirtualService)
		if stored.Hosts[0] != "reviews" || stored.Gateways[1] != "gw" {
			t.Errorf("changed: %v", stored)
		}
	})
	t.Run("by gateway, as far as exported", func(t *testing.T) {
		if got := virtualNames(shop.VirtualServicesFor("shop/gw")); !slices.Equal(got, []string{"shop/a"}) {
			t.Errorf("from shop: %v", got)
		}
		other := s.Scope(&Proxy{Type: Router, Namespace: "other"})
		if got := virtualNames(other.VirtualServicesFor("shop/gw")); !slices.Equal(got, []string{"shop/a", "other/private"}) {
			t.Errorf("from other: %v", got)
		}
	})
	t.Run("without gateways a VirtualService is for sidecars", func(t *testing.T) {
		if got := virtualNames(shop.VirtualServices()); !slices.Equal(got, []string{"shop/a", "other/plain"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestDelegates(t *testing.T) {
	s := snapshot(t, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: a}
spec:
  hosts: [root.test]
  gateways: [gw]
  http:
  - name: r
    match: [{uri: {prefix: /reviews}, headers: {x: {exact: "1"}}}]
    timeout: 5s
    delegate: {name: leaf, namespace: b}
  - match: [{uri: {prefix: /x}}]
    delegate: {name: hidden, namespace: b}
  - match: [{uri: {prefix: /y}}]
    delegate: {name: absent}
  - route: [{destination: {host: rest.test}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: b}
spec:
  http:
  - name: v2
    match: [{uri: {prefix: /reviews/v2}, method: {exact: GET}}, {uri: {prefix: /outside}}]
    timeout: 1s
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {regex: "/reviews/.*"}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /reviews/one}}]
    route: [{destination: {host: reviews, subset: one}}]
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hidden, namespace: b}
spec:
  exportTo: ["."]
  http: [{route: [{destination: {host: hidden}}]}]
`)
	v := s.Scope(&Proxy{Type: Router, Namespace: "a"}).VirtualServicesFor("a/gw")[0]
	type brief struct {
		name, path, subset, host string
		seconds                  int64
		origin                   string
		index                    int
	}
	var got []brief
	for i, r := range v.Spec.Http {
		b := brief{name: r.Name, seconds: r.Timeout.GetSeconds(), host: r.Route[0].Destination.Host, subset: r.Route[0].Destination.Subset,
			origin: v.Origins[i].Name, index: v.Origins[i].Index}
		for _, m := range r.Match {
			b.path += m.Uri.GetPrefix() + m.Uri.GetExact() + m.Headers["x"].GetExact() + m.Method.GetExact()
		}
		got = append(got, b)
	}
	const reviews = "reviews.b.svc.cluster.local"
	want := []brief{
		{"r-v2", "/reviews/v21GET", "v2", reviews, 1, "leaf", 0},
		{"r", "/reviews/one1", "one", reviews, 5, "leaf", 2},
		{"r", "/reviews1", "v1", reviews, 5, "leaf", 3},
		{"", "", "", "rest.test", 0, "root", 3},
	}
	t.Run("VS-042 a delegate's routes under the root's conditions", func(t *testing.T) {
		if d := cmp.Diff(want, got, cmp.AllowUnexported(brief{})); d != "" {
			t.Error(d)
		}
	})
	t.Run("the delegate itself is not changed", func(t *testing.T) {
		leaf := s.Config.Get(config.VirtualService, "b", "leaf").Spec.(*networking.VirtualService)
		if leaf.Http[3].Timeout != nil || cmp.Diff(leaf.Http[3].Match, []*networking.HTTPMatchRequest(nil), protocmp.Transform()) != "" {
			t.Errorf("changed: %v", leaf.Http[3])
		}
	})
}

func TestEgress(t *testing.T) {
	s := snapshot(t, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: default}
spec: {hosts: [a.test], ports: [{number: 80, name: http, protocol: HTTP}, {number: 90, name: http-b, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: default}
spec: {hosts: [b.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s, namespace: default}
spec:
  outboundTrafficPolicy: {}
  egress:
  - {port: {number: 90, protocol: HTTP, name: http}, hosts: ["default/*"]}
  - {hosts: ["./b.test"]}
`)
	own, other := s.Scope(&Proxy{Type: SidecarProxy, Namespace: "default"}), s.Scope(&Proxy{Type: SidecarProxy, Namespace: "other"})
	t.Run("SC-003 a listener for one port has the services with that port", func(t *testing.T) {
		got := [][]string{}
		for _, e := range own.Egress() {
			hosts := []string{}
			for _, svc := range e.Services {
				hosts = append(hosts, svc.Host)
			}
			got = append(got, hosts)
		}
		if d := cmp.Diff([][]string{{"a.test"}, {"b.test"}}, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("SC-013 an empty outboundTrafficPolicy is REGISTRY_ONLY, none is the mesh's", func(t *testing.T) {
		if own.AllowAny() || !other.AllowAny() {
			t.Errorf("with block: %v, without: %v", own.AllowAny(), other.AllowAny())
		}
	})
	t.Run("without a Sidecar there is one listener for everything", func(t *testing.T) {
		if e := other.Egress(); len(e) != 1 || e[0].Spec != nil || len(e[0].Services) != 2 || other.Sidecar() != nil {
			t.Errorf("got %+v", e)
		}
	})
}

func TestPreferredService(t *testing.T) {
	s := snapshot(t, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: aaa}
spec: {hosts: [shared.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: bbb}
spec: {hosts: [shared.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
`)
	for own, want := range map[string]string{"bbb": "bbb", "aaa": "aaa", "ccc": "aaa"} {
		t.Run("NM-012 one host in two namespaces, seen from "+own, func(t *testing.T) {
			sc := s.Scope(&Proxy{Type: SidecarProxy, Namespace: own})
			if got := sc.Service("shared.test").Namespace; got != want || len(sc.Services()) != 1 {
				t.Errorf("got that of %s among %d, want that of %s", got, len(sc.Services()), want)
			}
		})
	}
}

func TestInstances(t *testing.T) {
	const entry = `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: apps}
spec:
  hosts: [%s.test]
  location: %s
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9000}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
`
	s := snapshot(t, fmt.Sprintf(entry, "outside", "outside", "MESH_EXTERNAL")+fmt.Sprintf(entry, "inside", "inside", "MESH_INTERNAL"))
	var got []string
	for _, i := range s.Scope(&Proxy{Type: SidecarProxy, Namespace: "apps", Addresses: []string{"127.0.0.1"}}).Instances() {
		got = append(got, i.Service.Host)
	}
	if want := []string{"inside.test"}; !slices.Equal(got, want) {
		t.Errorf("instances of %v, want %v: what is outside of the mesh is no proxy's workload", got, want)
	}
}

const claimedTwice = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first, namespace: shop}
spec: {hosts: [first.test], resolution: DNS, ports: [{number: 7000, name: tcp, protocol: TCP}, {number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: shop}
spec: {hosts: [second.test], resolution: DNS, ports: [{number: 7000, name: tcp, protocol: TCP}, {number: 7001, name: own, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: addressed, namespace: shop}
spec: {hosts: [addressed.test], addresses: [10.0.0.1], resolution: DNS, ports: [{number: 7001, name: tcp, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: private, namespace: other}
spec: {hosts: [private.test], exportTo: ["."], resolution: DNS, ports: [{number: 7002, name: tcp, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: mine, namespace: shop}
spec: {hosts: [mine.test], exportTo: ["."], resolution: DNS, ports: [{number: 7002, name: tcp, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec: {hosts: [first.test, second.test], http: [{route: [{destination: {host: first.test}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec: {hosts: [first.test], http: [{route: [{destination: {host: first.test}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: c, namespace: shop}
spec: {hosts: [second.test], gateways: [gw], http: [{route: [{destination: {host: first.test}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: first.test, subsets: [{name: v1, labels: {v: "1"}}, {name: v2, labels: {v: "2"}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: first.test, subsets: [{name: v1, labels: {v: one}}, {name: v3, labels: {v: "3"}}]}
`

func TestConflicts(t *testing.T) {
	got := snapshot(t, claimedTwice).Conflicts()
	t.Run("SE-014 services of bytes without address on one port", func(t *testing.T) {
		if got.Listeners != 1 {
			t.Errorf("%d ports, want 7000 alone: on 7001 one has an address, on 7002 no namespace sees both", got.Listeners)
		}
	})
	t.Run("VS-008 one host in two VirtualServices of the mesh", func(t *testing.T) {
		if got.Domains != 1 {
			t.Errorf("%d hosts, want first.test alone: one of the two for second.test is a gateway's", got.Domains)
		}
	})
	t.Run("DR-002 one subset in two rules for a host", func(t *testing.T) {
		if got.Subsets != 1 {
			t.Errorf("%d subsets, want v1 alone", got.Subsets)
		}
	})
}
