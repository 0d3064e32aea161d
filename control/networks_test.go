package control_test

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/wellknown"
)

const networksMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  meshNetworks: |
    networks: {far: {gateways: [{address: 192.0.2.1, port: 15443}]}}
`

const farService = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec:
  hosts: [web.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, serviceAccount: web, network: far}]
`

// Networks change while the mesh runs; what is broken leaves the last good in force.
func TestMeshNetworksAreFollowed(t *testing.T) {
	p := start(t, map[string]string{"service.yaml": farService}, nil)
	c := p.connect(wellknown.EndpointType, map[string]any{"NETWORK": "near"}, "outbound|80||web.test")
	has(t, "EDS", text(t, c.next("")), `"address":"10.0.0.1"`)
	p.write("map.yaml", networksMap)
	t.Run("KC-015 MC-085 a network gets a gateway", func(t *testing.T) {
		has(t, "EDS", text(t, c.next("")), `"address":"192.0.2.1","portValue":15443`)
	})
	p.write("map.yaml", strings.Replace(networksMap, "address: 192.0.2.1, port: 15443", "port: 15443", 1))
	t.Run("a broken one is named, and changes nothing", func(t *testing.T) {
		wait(t, func() bool {
			for _, problem := range p.server.Status().Problems {
				if strings.Contains(problem.Field+": "+problem.Message, `gateways[0]: needs address or registryServiceName`) {
					return true
				}
			}
			return false
		})
	})
	p.write("map.yaml", strings.Replace(networksMap, "192.0.2.1", "192.0.2.2", 1))
	t.Run("the next good one counts", func(t *testing.T) {
		has(t, "EDS", text(t, c.next("")), `"address":"192.0.2.2"`)
	})
}
