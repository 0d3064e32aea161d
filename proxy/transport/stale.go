package transport

// Stale reports without blocking that an idle connection is not to be used again: its
// peer has ended it, or has sent bytes that nothing asked for. It takes no byte.
func (r *raw) Stale() bool { return len(r.ahead) > 0 || r.err != nil || r.wait.stale() }

// Stale is that of the socket beneath: between exchanges nothing but the end of the
// stream is expected of a TLS peer either.
func (s *secure) Stale() bool {
	return len(s.ahead) > 0 || s.err != nil || !s.records.empty() || s.records.wait.stale()
}

// stale peeks at the socket once. What waits there, an error too, makes it stale; a
// socket without a descriptor cannot be looked at and is taken as good.
func (w *waiter) stale() bool {
	if w.conn == nil {
		return false
	}
	if w.look == nil {
		w.look = func(fd uintptr) { w.waits = w.peekable(fd) } // bound once, as peek is
	}
	return w.conn.Control(w.look) != nil || w.waits || w.err != nil
}
