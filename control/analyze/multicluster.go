package analyze

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// meshNetworks finds networks of clusters that the mesh does not know: it knows its own,
// and those that a secret says how to reach.
func meshNetworks(p *pass) {
	known := []string{"Kubernetes"}
	for _, o := range of[*corev1.Secret](p.Mesh, secret) {
		if o.labels["istio/multiCluster"] == "true" {
			known = append(known, sortedKeys(o.spec.Data)...)
		}
	}
	about := &object{Key: config.Key{Kind: "MeshNetworks", Namespace: p.root(), Name: "meshnetworks"}}
	networks := p.networks.GetNetworks()
	for _, name := range sortedKeys(networks) {
		for _, e := range networks[name].Endpoints {
			if r := e.GetFromRegistry(); r != "" && !slices.Contains(known, r) {
				p.report(about, "", UnknownMeshNetworksServiceRegistry, r, name)
			}
		}
	}
}
