package compile

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

func TestGoldenClusters(t *testing.T) {
	asIs := func(resources map[string]any) map[string]any { return resources }
	checkGolden(t, map[string]goldenKind{
		"cds": {form: asIs, generate: func(t testing.TB, s *mesh.Snapshot, p *mesh.Proxy) map[string]any {
			var list []*clusterv3.Cluster
			for _, c := range Clusters(s, s.Scope(p), p) {
				list = append(list, envoy.Cluster(c))
			}
			return jsonResources(t, patchesOf(t, s, p).Clusters(list))
		}},
		"eds": {form: asIs, generate: func(t testing.TB, s *mesh.Snapshot, p *mesh.Proxy) map[string]any {
			var list []*endpointv3.ClusterLoadAssignment
			scope := s.Scope(p)
			for _, c := range Clusters(s, scope, p) {
				if c.Discovery == ir.EDS {
					list = append(list, envoy.Assignment(*Endpoints(s, scope, p, c.Name)))
				}
			}
			return jsonResources(t, list)
		}},
	})
}
