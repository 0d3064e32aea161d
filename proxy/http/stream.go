package http

import "sync"

// core is the part of a Stream that the connection manager fills.
type core struct {
	reply     Reply
	replied   bool
	states    []any
	overrides []any
	done      <-chan struct{}
	arena     []byte
	control   Control

	mu      sync.Mutex
	waiting Interrupter
	left    bool

	Route RouteConfig // the matched route, nil before routing and without a match
	// Traced is the decision that the request is to be traced, where it is ours to take.
	Traced bool
	Trace  Trace // the stream's span, nil where nothing is traced
	// Tell is set where the stream is only explained: a filter that would wait, or leave
	// it to chance, says so instead and lets the stream go on. Nil in the running proxy.
	Tell func(what string)
}

// Trace is what passes a stream's trace on.
type Trace interface {
	// Inject writes the span into the headers of the stream's request.
	Inject(*Stream)
	// Mirror writes a span below it into the headers of a copy.
	Mirror(h *Headers, sampled bool)
}

// RouteConfig is what filters see of the matched route (*route.Route implements it
// through the connection manager).
type RouteConfig interface {
	// RouteName is ROUTE_NAME.
	RouteName() string
}

// Control is what the connection manager does for the filters of one stream.
type Control interface {
	// Inform sends a 1xx head downstream at once.
	Inform(*Response) error
	// ClearRoute forgets the matched route; it is chosen anew from the request as it is.
	ClearRoute()
	// Reroute chooses the route at once in the newest table; false if that is where it is from,
	// or filters before would have acted otherwise.
	Reroute() bool
	// Tunnel says that the upstream has agreed to another protocol: the bytes after the
	// request's head, which nobody has read so far, are about to be read as its body.
	Tunnel()
	// StopBody ends a read of the request's body that is blocked in another goroutine;
	// the connection is of no further use then.
	StopBody()
}

// Begin makes s ready for one exchange: slots is the number of filters, done is
// closed when the client has left.
func (s *Stream) Begin(c Control, slots int, done <-chan struct{}) {
	for len(s.states) < slots {
		s.states = append(s.states, nil)
	}
	s.control, s.done = c, done
	s.mu.Lock()
	s.waiting, s.left = nil, false
	s.mu.Unlock()
}

// Finish clears what belongs to the exchange and keeps its memory for the next.
func (s *Stream) Finish() {
	clear(s.states)
	clear(s.overrides)
	s.overrides = s.overrides[:0]
	s.arena = s.arena[:0]
	if cap(s.arena) > maxKeptArena {
		s.arena = nil
	}
	s.reply, s.replied, s.Route, s.Trace, s.Traced, s.Tell = Reply{}, false, nil, nil, false, nil
	s.Request = Request{Headers: s.Request.Headers, Body: NoBody}
	s.Response = Response{Headers: s.Response.Headers, Body: NoBody}
	s.Request.Headers.Reset()
	s.Response.Headers.Reset()
}

// Renew forgets what filters stored, and the answer, for a request that begins anew.
func (s *Stream) Renew() {
	clear(s.states)
	s.Response = Response{Headers: s.Response.Headers, Body: NoBody}
	s.Response.Headers.Reset()
}

const maxKeptArena = 16 << 10

// Reply answers the stream by the proxy itself; the filter then returns Replied.
func (s *Stream) Reply(r Reply) { s.reply, s.replied = r, true }

// TakeReply returns the answer a filter gave and forgets it; ok is false when there is none.
func (s *Stream) TakeReply() (r Reply, ok bool) {
	r, ok = s.reply, s.replied
	s.replied = false
	return r, ok
}

// Inform sends a 1xx head (but 101) downstream at once.
func (s *Stream) Inform(r *Response) error { return s.control.Inform(r) }

// ClearRoute forgets the matched route after the request has changed; it is chosen
// anew before the next filter runs.
func (s *Stream) ClearRoute() { s.control.ClearRoute() }

// Reroute chooses the route at once in the newest table, for a filter that finds the route's
// cluster gone: it may have gone with the route. False if the route is from that table, or filters
// before would have acted otherwise: the route is as it was then.
func (s *Stream) Reroute() bool { return s.control.Reroute() }

// Tunnel says that what follows the request's head is about to be read as its body.
func (s *Stream) Tunnel() { s.control.Tunnel() }

// StopBody ends a read of the request's body that is blocked in another goroutine.
func (s *Stream) StopBody() { s.control.StopBody() }

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

// SetOverrides replaces the overrides, one for each slot; empty means none at all.
func (s *Stream) SetOverrides(n int, of func(Slot) any) {
	clear(s.overrides)
	s.overrides = s.overrides[:0]
	for i := range n {
		s.overrides = append(s.overrides, of(Slot(i)))
	}
}

// Done is closed when the client has left; every blocking wait of a filter ends by it.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Await says that the stream is about to block on x: when the client leaves, x is
// interrupted. False: the client has left already. Settle ends it.
func (s *Stream) Await(x Interrupter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = x
	return !s.left
}

// Settle says that the stream no longer waits; after it nothing is interrupted any more.
func (s *Stream) Settle() {
	s.mu.Lock()
	s.waiting = nil
	s.mu.Unlock()
}

// Leave tells the stream from another goroutine that its client has left, after Done was
// closed. What it waits on is interrupted under the lock: after Settle the interrupter
// may serve another stream already.
func (s *Stream) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	if s.waiting != nil {
		s.waiting.Interrupt()
	}
}

// Left reports whether Leave was called.
func (s *Stream) Left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// Copy puts b into the stream's arena, valid until the stream is over.
func (s *Stream) Copy(b []byte) []byte {
	n := len(s.arena)
	s.arena = append(s.arena, b...)
	return s.arena[n:len(s.arena):len(s.arena)]
}

// Scratch is the stream's arena to append to; Keep takes back what was appended and
// returns it as Copy would. Nothing else may use the arena in between.
func (s *Stream) Scratch() []byte { return s.arena }

// Keep stores a grown Scratch and returns what was appended to it.
func (s *Stream) Keep(grown []byte) []byte {
	n := len(s.arena)
	s.arena = grown
	return grown[n:len(grown):len(grown)]
}
