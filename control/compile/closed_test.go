package compile

import (
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const leavesMesh = `
apiVersion: v1
kind: Service
metadata: {name: out, namespace: out}
spec: {clusterIP: 10.96.0.9, selector: {app: out}, ports: [{port: 80, name: http}, {port: 443, name: https}, {port: 3306, name: tcp}]}
---
apiVersion: v1
kind: Pod
metadata: {name: out-1, namespace: out, labels: {app: out, istio: LABEL}}
spec: {serviceAccountName: out}
status: {podIP: 10.8.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: out-1, namespace: out, labels: {kubernetes.io/service-name: out}}
addressType: IPv4
endpoints: [{addresses: [10.8.0.1], targetRef: {kind: Pod, name: out-1, namespace: out}, conditions: {ready: true}}]
ports: [{name: http, port: 80}, {name: https, port: 443}, {name: tcp, port: 3306}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out, namespace: out}
spec:
  selector: {app: out}
  servers:
  - {hosts: [a.example.com], port: {number: 80, name: http, protocol: HTTP}}
  - {hosts: ["*"], port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}}
  - {hosts: ["*"], port: {number: 3306, name: tcp, protocol: TCP}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: out, namespace: out}
spec:
  hosts: ["*"]
  gateways: [out]
  tcp: [{match: [{port: 3306}], route: [{destination: {host: out.out.svc.cluster.local, port: {number: 80}}}]}]
  tls: [{match: [{port: 443, sniHosts: [a.example.com]}], route: [{destination: {host: out.out.svc.cluster.local, port: {number: 80}}}]}]
---
`

// TestClosedGateway: an egress gateway under STRICT of its own namespace takes mutual TLS where
// its servers have no TLS, and its clients know (scenario 41).
func TestClosedGateway(t *testing.T) {
	policy := func(namespace, spec string) string {
		return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: " + namespace + "}\nspec: {" + spec + "}\n"
	}
	for _, tc := range []struct {
		name, label, policy string
		closed              bool
	}{
		{"PO-002 of its namespace", "egressgateway", policy("out", "mtls: {mode: STRICT}"), true},
		{"PO-001 of its labels", "egressgateway", policy("out", "selector: {matchLabels: {app: out}}, mtls: {mode: STRICT}"), true},
		{"PO-001 of other labels", "egressgateway", policy("out", "selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}"), false},
		{"PO-002 of the mesh", "egressgateway", policy("istio-system", "mtls: {mode: STRICT}"), false},
		{"PO-002 PERMISSIVE", "egressgateway", policy("out", "mtls: {mode: PERMISSIVE}"), false},
		{"PO-002 an ingress gateway", "ingressgateway", policy("out", "mtls: {mode: STRICT}"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			objects, problems := config.DecodeYAML("test.yaml", []byte(strings.ReplaceAll(leavesMesh, "LABEL", tc.label)+tc.policy))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{Identities: true})
			gateway := parseProxy(t, "router out 10.8.0.1 app=out istio="+tc.label+" agent")
			mutual := map[uint32]bool{}
			for _, l := range Listeners(s, s.Scope(gateway), gateway) {
				mutual[l.Port] = slices.ContainsFunc(l.Chains, func(c ir.FilterChain) bool { return c.TLS != nil })
			}
			client := parseProxy(t, "sidecar default 10.9.9.9 app=in agent")
			for port, name := range map[uint32]string{80: "outbound|80||out.out.svc.cluster.local", 443: "outbound|443||out.out.svc.cluster.local", 3306: "outbound|3306||out.out.svc.cluster.local"} {
				want := tc.closed && port != 443
				if mutual[port] != want {
					t.Errorf("port %d: takes mutual TLS: %v", port, mutual[port])
				}
				got := Endpoints(s, s.Scope(client), client, name)
				if got == nil || len(got.Localities) != 1 || (got.Localities[0].Endpoints[0].TLSMode == "istio") != want {
					t.Errorf("port %d: endpoints %+v", port, got)
				}
			}
		})
	}
}
