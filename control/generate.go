package control

import (
	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// Generate makes the resources of a type for a proxy, as a Server with that snapshot would
// send them: those of the names that exist, or all of a type that is asked for as a whole
// where names is nil. It is for who looks at configuration without a running mesh.
func Generate(snapshot *mesh.Snapshot, p *mesh.Proxy, typeURL string, names []string) ([]ads.Resource, error) {
	return newView(snapshot, p, nil).Resources(typeURL, names)
}
