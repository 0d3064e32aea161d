package registry

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control/config"
)

const podObjects = `
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1, topology.istio.io/subzone: s1}
---
apiVersion: v1
kind: Node
metadata: {name: old, labels: {failure-domain.beta.kubernetes.io/region: r2, failure-domain.beta.kubernetes.io/zone: z2}}
---
apiVersion: v1
kind: Namespace
metadata: {name: web, labels: {topology.istio.io/network: net1}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-5d4f-x1
  namespace: web
  labels: {app: web, version: v1, pod-template-hash: 5d4f, security.istio.io/tlsMode: istio}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d4f, uid: u, controller: true}]
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.244.0.5, podIPs: [{ip: 10.244.0.5}, {ip: "fd00::5"}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: nightly-28900000-z
  namespace: web
  labels: {app: web, version: v2, istio-locality: r9.z9, topology.istio.io/network: net2}
  ownerReferences: [{apiVersion: batch/v1, kind: Job, name: nightly-28900000, uid: u, controller: true}]
spec: {nodeName: old, hostNetwork: true, containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 192.0.2.7}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: web, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: x}]}
status: {phase: Succeeded, podIP: 10.244.0.6}
---
apiVersion: v1
kind: Pod
metadata: {name: pending, namespace: web, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: web}
spec: {clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.5], nodeName: n1, targetRef: {kind: Pod, name: web-5d4f-x1}}
- {addresses: [192.0.2.7], targetRef: {kind: Pod, name: nightly-28900000-z, namespace: web}, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.244.0.9], nodeName: old, targetRef: {kind: Pod, name: unknown}, conditions: {ready: false}}
- {addresses: [10.9.9.9]}
`

func TestPodsTellWhoEndpointsAre(t *testing.T) {
	r := build(t, podObjects)
	s := lookup(r, "web.web.svc.cluster.local")
	want := []Endpoint{
		{Address: "10.244.0.5", Port: 8080, PortName: "http", Weight: 1, Cluster: "Kubernetes", Namespace: "web", WorkloadName: "web",
			ServiceAccount: "spiffe://cluster.local/ns/web/sa/web", TLSMode: "istio", Network: "net1",
			Locality: Locality{"r1", "z1", "s1"},
			Labels:   map[string]string{"app": "web", "version": "v1", "pod-template-hash": "5d4f", "security.istio.io/tlsMode": "istio"}},
		{Address: "192.0.2.7", Port: 8080, PortName: "http", Weight: 1, Cluster: "Kubernetes", Namespace: "web", WorkloadName: "nightly",
			ServiceAccount: "spiffe://cluster.local/ns/web/sa/default", TLSMode: "disabled", Network: "net2",
			Locality: Locality{"r9", "z9", ""}, Unhealthy: true, Draining: true,
			Labels: map[string]string{"app": "web", "version": "v2", "istio-locality": "r9.z9", "topology.istio.io/network": "net2"}},
		{Address: "10.244.0.9", Port: 8080, PortName: "http", Weight: 1, Cluster: "Kubernetes", Namespace: "web", WorkloadName: "unknown",
			TLSMode: "disabled", Locality: Locality{"r2", "z2", ""}, Unhealthy: true},
		{Address: "10.9.9.9", Port: 8080, PortName: "http", Weight: 1, Cluster: "Kubernetes", Namespace: "web", TLSMode: "disabled"},
	}
	t.Run("KC-010 KC-011 KC-012 labels, service account, owner, place, network and state of each endpoint", func(t *testing.T) {
		var got []Endpoint
		for _, e := range r.Endpoints(s, s.Ports[0]) {
			got = append(got, *e)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a slice of an API waits for the Pods that it names", func(t *testing.T) {
		objects, _ := config.DecodeYAML("test.yaml", []byte(podObjects))
		for _, o := range objects {
			o.Source = config.Source{}
		}
		r := Build(config.NewSet(1, objects), Options{})
		s := lookup(r, "web.web.svc.cluster.local")
		if got := addresses(r.Endpoints(s, s.Ports[0])); !slices.Equal(got, []string{"10.244.0.5", "192.0.2.7", "10.9.9.9"}) {
			t.Errorf("endpoints %v", got)
		}
	})
	t.Run("publishNotReadyAddresses makes every endpoint ready", func(t *testing.T) {
		r := build(t, strings.Replace(podObjects, "clusterIP: 10.96.1.1", "clusterIP: 10.96.1.1, publishNotReadyAddresses: true", 1))
		for _, e := range r.Endpoints(lookup(r, "web.web.svc.cluster.local"), s.Ports[0]) {
			if e.Unhealthy || e.Draining {
				t.Errorf("endpoint %+v", e)
			}
		}
	})
	t.Run("KC-010 a Pod that is to end drains before its slice says so", func(t *testing.T) {
		ending := strings.Replace(podObjects, "  name: web-5d4f-x1\n", "  name: web-5d4f-x1\n  deletionTimestamp: 2026-01-01T00:00:00Z\n", 1)
		r := build(t, ending)
		if e := r.Endpoints(lookup(r, "web.web.svc.cluster.local"), s.Ports[0])[0]; !e.Unhealthy || !e.Draining {
			t.Errorf("endpoint %+v", e)
		}
		r = build(t, strings.Replace(ending, "clusterIP: 10.96.1.1", "clusterIP: 10.96.1.1, publishNotReadyAddresses: true", 1))
		if e := r.Endpoints(lookup(r, "web.web.svc.cluster.local"), s.Ports[0])[0]; e.Unhealthy {
			t.Errorf("of a Service that does not ask: %+v", e)
		}
	})
	t.Run("workloads are Pods that run; those with the address of their node are not found by it", func(t *testing.T) {
		var names []string
		for _, w := range r.Workloads() {
			names = append(names, w.Name)
		}
		if !slices.Equal(names, []string{"nightly-28900000-z", "web-5d4f-x1"}) {
			t.Errorf("workloads %v", names)
		}
		if w := r.WorkloadAt([]string{"192.0.2.1", "fd00::5"}); w == nil || w.Name != "web-5d4f-x1" {
			t.Errorf("at fd00::5: %+v", w)
		}
		if w := r.WorkloadAt([]string{"192.0.2.7"}); w != nil {
			t.Errorf("at the node's address: %+v", w)
		}
	})
}

func TestServiceEntrySelectsPods(t *testing.T) {
	r := build(t, podObjects+`---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: inner, namespace: web}
spec:
  hosts: [inner.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8081}]
  workloadSelector: {labels: {app: web}}
`)
	s := lookup(r, "inner.example.com")
	var got []string
	for _, e := range r.Endpoints(s, s.Ports[0]) {
		if e.Port != 8081 {
			t.Errorf("port %d", e.Port)
		}
		got = append(got, e.Address+" "+e.WorkloadName+map[bool]string{true: " unhealthy"}[e.Unhealthy])
	}
	if want := []string{"192.0.2.7 nightly unhealthy", "10.244.0.5 web"}; !slices.Equal(got, want) {
		t.Errorf("endpoints %q, want %q", got, want)
	}
}

func TestKindsOfServices(t *testing.T) {
	r := build(t, `
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: web}
spec: {clusterIP: None, ports: [{name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: node, namespace: web}
spec: {type: NodePort, clusterIP: 10.96.1.2, sessionAffinity: ClientIP, ports: [{name: grpc-api, port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced, namespace: web}
spec: {type: LoadBalancer, clusterIP: 10.96.1.3, clusterIPs: [10.96.1.3, "fd00::3"], ports: [{port: 443, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: web}
spec: {type: ExternalName, externalName: node.web.svc.cluster.local.}
`)
	type form struct {
		Addresses  []string
		Headless   bool
		Resolution Resolution
		Protocol   Protocol
		Target     uint32
		Aliases    []string
	}
	want := map[string]form{
		"headless.web.svc.cluster.local": {Headless: true, Resolution: Passthrough, Protocol: TCP, Target: 9000},
		"node.web.svc.cluster.local":     {Addresses: []string{"10.96.1.2"}, Protocol: GRPC, Target: 8080, Aliases: []string{"alias.web.svc.cluster.local"}},
		"balanced.web.svc.cluster.local": {Addresses: []string{"10.96.1.3", "fd00::3"}, Protocol: HTTP2, Target: 443},
	}
	t.Run("KC-008 KC-009 ClusterIP, headless, NodePort, LoadBalancer and ExternalName", func(t *testing.T) {
		got := map[string]form{}
		for _, s := range r.Services() {
			got[s.Host] = form{s.Addresses, s.Headless, s.Resolution, s.Ports[0].Protocol, s.Ports[0].TargetPort, s.Aliases}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDepartures(t *testing.T) {
	objects := podObjects + "---\n" + entry("vm", "default", "vm.test", 80, "10.7.7.7") + entry("local", "default", "local.test", 80, "127.0.0.1")
	for _, tc := range []struct {
		name      string
		departure Departure
		host      string
		unhealthy []string // endpoints
	}{
		{"a Pod by its name and address", Departure{"web-5d4f-x1", "web", []string{"10.244.0.5"}}, "web.web.svc.cluster.local", []string{"10.244.0.5"}},
		{"a Pod of that name with another address is not meant", Departure{"web-5d4f-x1", "web", []string{"10.244.0.77"}}, "web.web.svc.cluster.local", nil},
		{"what has the address of a Pod is not that Pod", Departure{"other", "web", []string{"10.244.0.5"}}, "web.web.svc.cluster.local", nil},
		{"a Pod with its node's address takes itself away only", Departure{"nightly-28900000-z", "web", []string{"192.0.2.7"}}, "web.web.svc.cluster.local", []string{"192.0.2.7"}},
		{"what is no Pod, by its address", Departure{"vm", "default", []string{"10.7.7.7"}}, "vm.test", []string{"10.7.7.7"}},
		{"loopback is shared by all of a machine", Departure{"local", "default", []string{"127.0.0.1"}}, "local.test", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			decoded, problems := config.DecodeYAML("test.yaml", []byte(strings.Replace(objects, "ready: false, serving: true, terminating: true", "ready: true", 1)))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			r := Build(config.NewSet(1, decoded), Options{Leaving: []Departure{tc.departure}})
			s := lookup(r, tc.host)
			var got []string
			for _, e := range r.Endpoints(s, s.Ports[0]) {
				if e.Unhealthy && e.Address != "10.244.0.9" {
					got = append(got, e.Address)
				}
				if len(r.Instances([]string{e.Address})) == 0 {
					t.Errorf("nothing is served at %s: the workload still answers what it has", e.Address)
				}
			}
			if !slices.Equal(got, tc.unhealthy) {
				t.Errorf("unhealthy %v, want %v", got, tc.unhealthy)
			}
		})
	}
}
