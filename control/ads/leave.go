package ads

import (
	"context"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// leave has the proxy taken out of the mesh, without holding up its stream. What else it
// says of the type, such as that it has the answer, changes nothing.
func (c *conn) leave(ctx context.Context) {
	if c.leaving {
		return
	}
	c.leaving = true
	c.log.Info("about to end", "node", c.proxy.ID)
	go func() {
		c.o.Leave(ctx, c.proxy)
		c.left <- struct{}{}
	}()
}

func (s *Server) controlPlane() *corepb.ControlPlane {
	if s.o.Identifier == "" {
		return nil
	}
	return &corepb.ControlPlane{Identifier: s.o.Identifier}
}
