package compile

import (
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

func (b *listenerBuilder) sidecarListeners() []ir.Listener { return nil }

func sidecarRoutes(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, name string) *ir.RouteConfiguration {
	return nil
}
