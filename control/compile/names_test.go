package compile

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/nametable"
)

const namedServices = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00::1"], ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, ports: [{port: 5432, name: tcp}, {port: 9090, name: http-stats}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: tcp, port: 5432}, {name: http-stats, port: 9090}]
endpoints:
- {addresses: [10.2.1.1], hostname: db-0}
- {addresses: [10.2.1.2], hostname: db-1, conditions: {ready: false}}
- {addresses: [10.2.1.3]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: default}
spec: {clusterIP: None, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: other, annotations: {networking.istio.io/exportTo: "."}}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {clusterIP: 10.96.0.8, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: default}
spec:
  hosts: [Api.Example.com]
  addresses: [192.0.2.10]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: block, namespace: default}
spec:
  hosts: [block.example.com]
  addresses: [192.0.2.32/28]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: auto, namespace: default}
spec:
  hosts: [tcp.example.com]
  ports: [{number: 3306, name: mysql, protocol: TCP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: default}
spec:
  hosts: ["*.wild.example.com"]
  addresses: [192.0.2.20]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.21}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: narrow}
spec: {egress: [{hosts: ["default/web.default.svc.cluster.local", "default/*.example.com"]}]}
`

func TestNames(t *testing.T) {
	objects, problems := config.DecodeYAML("names.yaml", []byte(namedServices))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	s := mesh.Build(config.NewSet(1, objects), mesh.Options{})
	auto := ""
	for _, service := range s.Registry.Hosts("tcp.example.com") {
		auto = service.AutoAddress
	}
	kubernetes := func(short, namespace string, addresses ...string) nametable.Name {
		return nametable.Name{Addresses: addresses, Registry: "Kubernetes", ShortName: short, Namespace: namespace}
	}
	external := func(addresses ...string) nametable.Name {
		return nametable.Name{Addresses: addresses, Registry: "External"}
	}
	web := kubernetes("web", "default", "10.96.0.1", "fd00::1")
	all := nametable.Table{
		"web.default.svc.cluster.local":     web,
		"db.default.svc.cluster.local":      kubernetes("db", "default", "10.2.1.1", "10.2.1.3"),
		"db-0.db.default.svc.cluster.local": kubernetes("db-0.db", "default", "10.2.1.1"),
		"far.other.svc.cluster.local":       kubernetes("far", "other", "10.96.0.8"),
		"api.example.com":                   external("192.0.2.10"),
		"*.wild.example.com":                external("192.0.2.20"),
	}
	for _, tc := range []struct {
		name, namespace string
		capture         bool
		add, only       nametable.Table
	}{
		{name: "Services, ready Pods of headless ones, and ServiceEntries with addresses", namespace: "default"},
		{name: "SE-002 EN-038 an address is given to a host without any where the mesh answers DNS", namespace: "default", capture: true,
			add: nametable.Table{"tcp.example.com": external(auto)}},
		{name: "exportTo", namespace: "other", add: nametable.Table{"hidden.other.svc.cluster.local": kubernetes("hidden", "other", "10.96.0.9")}},
		{name: "SC-002 what a Sidecar imports, and nothing else", namespace: "narrow", only: nametable.Table{
			"web.default.svc.cluster.local": web, "api.example.com": external("192.0.2.10"), "*.wild.example.com": external("192.0.2.20")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &mesh.Proxy{Type: mesh.SidecarProxy, Namespace: tc.namespace, DNSCapture: tc.capture}
			want := tc.only
			if want == nil {
				want = nametable.Table{}
				for _, part := range []nametable.Table{all, tc.add} {
					maps.Copy(want, part)
				}
			}
			if diff := cmp.Diff(want, Names(s, s.Scope(p), p)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a gateway has none", func(t *testing.T) {
		p := &mesh.Proxy{Type: mesh.Router, Namespace: "default"}
		if got := Names(s, s.Scope(p), p); got != nil {
			t.Errorf("names %v", got)
		}
	})
	if auto == "" {
		t.Error("no address was given to tcp.example.com")
	}
}
