package listener

import (
	"net"
	"time"
)

// How often the machine is asked again for the socket behind a port when nobody answers.
const (
	publishAgain    = time.Second
	publishAgainMax = 30 * time.Second
)

// publish has l accept also from the socket of the machine around the pod for the port
// of sock, where there is one.
func (s *Set) publish(l *listener, sock *socket) {
	for wait := publishAgain; ; wait = min(2*wait, publishAgainMax) {
		ln, err := s.opts.Publish(s.ctx, sock.addr.ip.Port())
		if err == nil {
			s.attach(l, sock, ln)
			return
		}
		if s.ctx.Err() != nil {
			return
		}
		s.opts.Log.Warn("the published port is asked for again", "address", sock.addr.String(), "error", err)
		if !s.pause(wait) {
			return
		}
	}
}

// attach gives sock its second listening socket; nil when the port is not published.
func (s *Set) attach(l *listener, sock *socket, ln net.Listener) {
	if ln == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sock.closed {
		_ = ln.Close()
		return
	}
	sock.published = ln
	s.opts.Log.Info("listener has a published port", "address", sock.addr.String(), "published", ln.Addr().String())
	s.held.Add(1)
	s.wg.Go(func() { l.accept(ln) })
}
