package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// scaleServices is how many services the benchmarks' mesh has, each with ten
// endpoints, a DestinationRule, and a VirtualService for the mesh and the gateway.
const scaleServices = 1000

// scaleText is the YAML of such a mesh. The hosts of the gateway are those of one
// plain server, or each has an HTTPS server of its own.
func scaleText(services int, https bool) string {
	var b, servers strings.Builder
	for i := range services {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d}
spec:
  hosts: [s%[1]d.example.com]
  addresses: [10.%[2]d.%[3]d.1]
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 9000, name: tcp, protocol: TCP}
  endpoints:
`, i, i/250, i%250)
		for e := range 10 {
			fmt.Fprintf(&b, "  - {address: 10.%d.%d.%d, labels: {version: v%d}}\n", 100+i/250, i%250, e+1, e%2)
		}
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%[1]d}
spec:
  host: s%[1]d.example.com
  subsets: [{name: v0, labels: {version: v0}}, {name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d}
spec:
  hosts: [s%[1]d.example.com]
  gateways: [mesh, front]
  http:
  - match: [{uri: {prefix: /v1}}]
    route: [{destination: {host: s%[1]d.example.com, subset: v1, port: {number: 80}}}]
  - route: [{destination: {host: s%[1]d.example.com, subset: v0, port: {number: 80}}}]
`, i)
		if https {
			fmt.Fprintf(&servers, "  - port: {number: 443, name: https-%[1]d, protocol: HTTPS}\n    tls: {mode: SIMPLE, credentialName: c%[1]d}\n    hosts: [s%[1]d.example.com]\n", i)
		}
	}
	if !https {
		servers.WriteString("  - port: {number: 80, name: http, protocol: HTTP}\n    hosts: ['*']\n")
	}
	fmt.Fprintf(&b, "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: front}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n%s", servers.String())
	return b.String()
}

func scaleSet(b *testing.B, services int, https bool) *config.Set {
	b.Helper()
	objects, problems := config.DecodeIn(config.DefaultNamespace, "scale.yaml", []byte(scaleText(services, https)))
	if config.HasErrors(problems) {
		b.Fatal(problems[0])
	}
	return config.NewSet(1, objects)
}

func BenchmarkSnapshot(b *testing.B) {
	set := scaleSet(b, scaleServices, false)
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			mesh.Build(set, mesh.Options{})
		}
	})
	b.Run("rules", func(b *testing.B) {
		snap := mesh.Build(set, mesh.Options{})
		for b.Loop() {
			brokenRules(snap)
		}
	})
}

// BenchmarkProxy makes everything that one proxy is given.
func BenchmarkProxy(b *testing.B) {
	for _, c := range []struct {
		name, node string
		https      bool
	}{
		{"gateway", "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local", false},
		{"gateway with a server for each host", "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local", true},
		{"sidecar", "sidecar~10.9.9.9~app.default~default.svc.cluster.local", false},
	} {
		b.Run(c.name, func(b *testing.B) {
			snap := mesh.Build(scaleSet(b, scaleServices, c.https), mesh.Options{})
			labels, err := structpb.NewStruct(map[string]any{"LABELS": map[string]any{"istio": "ingressgateway"}})
			if err != nil {
				b.Fatal(err)
			}
			p, err := mesh.ParseProxy(&corepb.Node{Id: c.node, Metadata: labels})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				v := newView(snap, p, nil)
				b.ReportMetric(float64(everything(b, v)), "resources")
			}
		})
	}
}

// everything asks for all types as a proxy does, and counts what it gets.
func everything(b *testing.B, v *view) int {
	b.Helper()
	n := 0
	get := func(url string, names []string) []ads.Resource {
		list, err := v.Resources(url, names)
		if err != nil {
			b.Fatal(err)
		}
		n += len(list)
		return list
	}
	var names []string
	for _, r := range get(wellknown.ClusterType, nil) {
		names = append(names, r.Name)
	}
	get(wellknown.EndpointType, names)
	get(wellknown.ListenerType, nil)
	var tables []string
	for _, l := range compile.Listeners(v.snapshot, v.scope(), v.proxy) {
		for _, c := range l.Chains {
			if c.HTTP != nil && c.HTTP.Routes == nil && !slices.Contains(tables, c.HTTP.RouteName) {
				tables = append(tables, c.HTTP.RouteName)
			}
		}
	}
	get(wellknown.RouteType, tables)
	return n
}
