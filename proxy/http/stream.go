package http

// core is the part of a Stream that the connection manager fills.
type core struct {
	reply     Reply
	replied   bool
	states    []any
	overrides []any
	done      chan struct{}
	arena     []byte
	Route     RouteConfig // the matched route, nil before routing and without a match
}

// RouteConfig is what filters see of the matched route (*route.Route implements it
// through the connection manager).
type RouteConfig interface {
	// RouteName is ROUTE_NAME.
	RouteName() string
}

// Reply answers the stream by the proxy itself; the filter then returns Replied.
func (s *Stream) Reply(r Reply) { s.reply, s.replied = r, true }

// State is what the filter in slot stored for this stream, nil before.
func (s *Stream) State(slot Slot) any { return s.states[slot] }

// SetState stores v for the filter in slot until the stream is over.
func (s *Stream) SetState(slot Slot, v any) { s.states[slot] = v }

// Override is the most specific typed_per_filter_config of the matched route for the
// filter in slot, compiled by its Factory; nil when there is none. Routing happens
// before the first filter runs, and again after ClearRoute.
func (s *Stream) Override(slot Slot) any {
	if int(slot) >= len(s.overrides) {
		return nil
	}
	return s.overrides[slot]
}

// Done is closed when the client has left; every blocking wait of a filter ends by it.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Copy puts b into the stream's arena, valid until the stream is over.
func (s *Stream) Copy(b []byte) []byte {
	n := len(s.arena)
	s.arena = append(s.arena, b...)
	return s.arena[n:len(s.arena):len(s.arena)]
}
