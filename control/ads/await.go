package ads

import (
	"context"

	"github.com/lateen-mesh/lateen/wellknown"
)

// Await waits until the connected proxies but those of one node have acknowledged the
// endpoints of a generation, or the context ends. Proxies that ask for no endpoints are
// not waited for.
func (s *Server) Await(ctx context.Context, generation uint64, but string) error {
	return s.until(ctx, func() bool { return !s.behind(generation, but) })
}

// Until waits until done says so of the status of all streams, or the context ends. It is
// asked at once, and again when a proxy has come further, has come or gone, and after a Push.
func (s *Server) Until(ctx context.Context, done func([]ConnStatus) bool) error {
	return s.until(ctx, func() bool { return done(s.Conns()) })
}

func (s *Server) until(ctx context.Context, done func() bool) error {
	moved := make(chan struct{}, 1)
	s.mu.Lock()
	s.waiting[moved] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, moved)
	}()
	for !done() {
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
