package ads

import (
	"context"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/wellknown"
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

// Await waits until the connected proxies but those of one node have acknowledged the
// endpoints of a generation, or the context ends. Proxies that ask for no endpoints are
// not waited for.
func (s *Server) Await(ctx context.Context, generation uint64, but string) error {
	moved := make(chan struct{}, 1)
	s.mu.Lock()
	s.waiting[moved] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, moved)
	}()
	for s.behind(generation, but) {
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// behind reports whether a proxy has not acknowledged the endpoints of a generation.
func (s *Server) behind(generation uint64, but string) bool {
	for _, c := range s.streams() {
		if c.proxy.ID == but {
			continue
		}
		c.mu.Lock()
		w := c.watches[wellknown.EndpointType]
		late := w != nil && w.applied < generation
		c.mu.Unlock()
		if late {
			return true
		}
	}
	return false
}

// tellWaiting wakes those that wait for proxies.
func (s *Server) tellWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake()
}

// wake is tellWaiting with s.mu held.
func (s *Server) wake() {
	for w := range s.waiting {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (s *Server) controlPlane() *corepb.ControlPlane {
	if s.o.Identifier == "" {
		return nil
	}
	return &corepb.ControlPlane{Identifier: s.o.Identifier}
}
