package compile

import (
	"slices"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// TestMetricsFilter: proxies count for the mesh's dashboards where the mesh configuration
// names a Prometheus provider and they have the filter; it stands just before the router,
// and in TCP chains.
func TestMetricsFilter(t *testing.T) {
	const input = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec:
  hosts: [web.test]
  addresses: [10.1.1.1]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 5432, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.2.2.2}]
`
	objects, problems := config.DecodeYAML("input", []byte(input))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	for name, c := range map[string]struct {
		meshConfig string
		extensions []string
		http, tcp  bool
	}{
		"a provider, and the filter":    {"defaultProviders: {metrics: [prometheus]}", []string{extMetrics, extTCPMetrics}, true, true},
		"a proxy that lists nothing":    {"defaultProviders: {metrics: [prometheus]}", nil, true, true},
		"the filter for requests alone": {"defaultProviders: {metrics: [prometheus]}", []string{extMetrics}, true, false},
		"a proxy without the filter":    {"defaultProviders: {metrics: [prometheus]}", []string{"envoy.filters.http.router"}, false, false},
		"no provider":                   {"{}", []string{extMetrics, extTCPMetrics}, false, false},
		"a provider of another kind":    {"defaultProviders: {metrics: [stackdriver]}", []string{extMetrics, extTCPMetrics}, false, false},
	} {
		t.Run("MC-046 MC-051 TM-008 "+name, func(t *testing.T) {
			mc, problems := config.DecodeMeshConfig("mesh", []byte(c.meshConfig))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			p := ProxyWith(t, "sidecar~10.0.0.1~a.default~default.svc.cluster.local", c.extensions...)
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc})
			http, tcp := 0, 0
			for _, l := range Listeners(s, s.Scope(p), p) {
				for _, ch := range l.Chains {
					switch {
					case ch.HTTP != nil:
						n := len(ch.HTTP.Filters)
						has := slices.Contains([]ir.HTTPFilter{ir.Metrics, ir.MetricsNoHost}, ch.HTTP.Filters[n-2])
						if has != c.http || ch.HTTP.Filters[n-1] != ir.Router {
							t.Errorf("%s %s: filters %v", l.Name, ch.Name, ch.HTTP.Filters)
						}
						http++
					case ch.TCP != nil:
						if ch.Metrics != c.tcp {
							t.Errorf("%s %s: counted: %v", l.Name, ch.Name, ch.Metrics)
						}
						tcp++
					}
				}
			}
			if http == 0 || tcp == 0 {
				t.Errorf("%d chains of HTTP, %d of TCP", http, tcp)
			}
		})
	}
}
