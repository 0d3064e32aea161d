package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

// manyRoutes are services with a VirtualService each, as a mesh of some size has them.
func manyRoutes(services int) string {
	var b strings.Builder
	for i := range services {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%[1]d}
spec:
  hosts: [s%[1]d.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.9.9.9}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d}
spec:
  hosts: [s%[1]d.example.com]
  http:
  - match: [{uri: {prefix: /v1}}]
    route: [{destination: {host: s%[1]d.example.com}}]
    headers: {request: {set: {x-release: "%[1]d"}}}
  - route: [{destination: {host: s%[1]d.example.com}}]
`, i)
	}
	return b.String()
}

// ours is the node of a sidecar that takes virtual hosts apart from their tables.
func ours() *corepb.Node {
	return &corepb.Node{Id: "sidecar~10.0.0.1~app.default~default.svc.cluster.local", ClientFeatures: []string{wellknown.HostsFeature}}
}

func resourceNames(m *discoverypb.DeltaDiscoveryResponse) (list []string) {
	for _, r := range m.Resources {
		list = append(list, r.Name)
	}
	return list
}

// TestVirtualHosts: a sidecar of ours is sent what differs of a route table, virtual host by
// virtual host.
func TestVirtualHosts(t *testing.T) {
	const services = 300
	files := func() map[string]string { return map[string]string{"routes.yaml": manyRoutes(services)} }
	connect := func(t *testing.T, p *plane) (*proxy, *discoverypb.DeltaDiscoveryResponse) {
		t.Helper()
		c := p.connectNode(ours(), wellknown.RouteType, "80")
		table := c.next("")
		if got := text(t, table); strings.Contains(got, "virtualHosts") || !strings.Contains(got, `"vhds":{"configSource":{"ads":{},"initialFetchTimeout":"0s","resourceApiVersion":"V3"}}`) {
			t.Fatalf("the table is %s", got)
		}
		c.ask(wellknown.VirtualHostType, "80")
		all := c.next("")
		if names := resourceNames(all); len(names) != services+1 || !slices.Contains(names, "80/s7.example.com:80") || !slices.Contains(names, "80/allow_any") {
			t.Fatalf("%d virtual hosts: %q", len(names), names)
		}
		return c, all
	}
	t.Run("a change of a header sends one, of less than 20 KB", func(t *testing.T) {
		p := start(t, files(), nil)
		c, all := connect(t, p)
		p.write("routes.yaml", strings.Replace(manyRoutes(services), `x-release: "7"`, `x-release: "changed"`, 1))
		m := c.next("")
		if got := resourceNames(m); m.TypeUrl != wellknown.VirtualHostType || len(got) != 1 || got[0] != "80/s7.example.com:80" || len(m.RemovedResources) > 0 {
			t.Errorf("%s %q, without %q", m.TypeUrl, got, m.RemovedResources)
		}
		has(t, "the virtual host", text(t, m), `"value":"changed"`)
		t.Logf("%d bytes of %d", proto.Size(m), proto.Size(all))
		if size := proto.Size(m); size > 20_000 {
			t.Errorf("%d bytes for a header, 20,000 are allowed", size)
		}
		d := <-p.waiting(t.Context(), 0)
		if !d.Done() {
			t.Errorf("the proxy has everything: %+v", d)
		}
	})
	t.Run("one that is gone is removed, and comes again", func(t *testing.T) {
		p := start(t, files(), nil)
		c, _ := connect(t, p)
		p.write("routes.yaml", manyRoutes(services-1))
		if m := c.next(""); len(m.Resources) > 0 || len(m.RemovedResources) != 1 || m.RemovedResources[0] != "80/s299.example.com:80" {
			t.Errorf("%q, without %q", resourceNames(m), m.RemovedResources)
		}
		p.write("routes.yaml", manyRoutes(services))
		if m := c.next(""); len(m.Resources) != 1 || m.Resources[0].Name != "80/s299.example.com:80" {
			t.Errorf("%q, without %q", resourceNames(m), m.RemovedResources)
		}
	})
	t.Run("one that is refused names its object", func(t *testing.T) {
		p := start(t, files(), nil)
		c, _ := connect(t, p)
		p.write("routes.yaml", strings.Replace(manyRoutes(services), `x-release: "7"`, `x-release: "odd"`, 1))
		c.next("80/s7.example.com:80: odd is not liked")
		d := <-p.waiting(t.Context(), 0)
		if len(d.Refused) != 1 || d.Refused[0].Type != "VHDS" || !slices.Equal(d.Refused[0].Objects, []string{"VirtualService default/s7"}) {
			t.Errorf("%+v", d)
		}
		found := slices.ContainsFunc(p.server.Status().Problems, func(x control.Problem) bool {
			return x.Object == "VirtualService default/s7" && strings.Contains(x.Message, "odd is not liked")
		})
		if !found {
			t.Errorf("problems %+v", p.server.Status().Problems)
		}
		_, page := p.get("/debug/syncz")
		has(t, "syncz", page, `"route_error":`)
	})
	t.Run("pages show whole tables, and one column for both", func(t *testing.T) {
		p := start(t, files(), nil)
		_, all := connect(t, p)
		if d := <-p.waiting(t.Context(), 0); !d.Done() {
			t.Fatalf("%+v", d)
		}
		_, page := p.get("/debug/config_dump?proxyID=app.default")
		has(t, "dump", page, `"s299.example.com:80"`)
		if strings.Contains(page, "vhds") {
			t.Error("the dump has half a table")
		}
		_, page = p.get("/debug/syncz")
		if n := strings.Count(page, "_sent"); n != 1 {
			t.Errorf("%d types: %s", n, page)
		}
		_ = all
	})
	t.Run("an Envoy gets whole tables", func(t *testing.T) {
		p := start(t, files(), nil)
		c := p.sidecar("app", "10.0.0.1", wellknown.RouteType, "80")
		has(t, "RDS", text(t, c.next("")), `"name":"s299.example.com:80"`)
		c.ask(wellknown.VirtualHostType, "80")
		if m := c.next(""); len(m.Resources) > 0 || !slices.Equal(m.RemovedResources, []string{"80"}) {
			t.Errorf("virtual hosts %q, without %q", resourceNames(m), m.RemovedResources)
		}
	})
	t.Run("a table of one service stays whole", func(t *testing.T) {
		detected := "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: d}\nspec:\n  hosts: [d.example.com]\n  addresses: [10.1.1.1]\n" +
			"  resolution: STATIC\n  ports: [{number: 8000, name: unnamed}]\n  endpoints: [{address: 10.9.9.9}]\n"
		p := start(t, map[string]string{"routes.yaml": detected}, nil)
		c := p.connectNode(ours(), wellknown.RouteType, "d.example.com:8000")
		got := text(t, c.next(""))
		has(t, "RDS", got, `"virtualHosts":[{`)
	})
}
