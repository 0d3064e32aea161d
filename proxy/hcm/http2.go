package hcm

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A multiplex is a downstream connection that speaks HTTP/2: it carries many streams, each
// in a goroutine of its own. One timer keeps the time limits of all of them.
type multiplex struct {
	*client
	server *http2.Server

	mu       sync.Mutex
	first    *muxStream // of those under way
	idleFrom time.Time  // since when there is none
	timer    *time.Timer
	due      time.Time // when the timer fires
	drains   *time.Timer
	ended    bool

	fault atomic.Pointer[string] // of a stream's code, nil: none
}

// A muxStream is one exchange of a multiplex; it is used again for other exchanges.
type muxStream struct {
	stream
	conn       *multiplex
	wire       *http2.ServerStream
	done       chan struct{} // closed when the client has left or the stream's time is up
	isDone     bool
	prev, next *muxStream

	since time.Time
	idle  atomic.Int64 // idle_timeout of the route, negative: the connection manager's
	life  atomic.Int64 // max_stream_duration of the route, likewise
	why   atomic.Pointer[limit]
	ended time.Time // when why was set
	moved uint64    // bytes that had moved at the last look
	still time.Time // since when no more have
}

var muxStreams = sync.Pool{New: func() any { return new(muxStream) }}

// serveHTTP2 serves a connection that speaks HTTP/2; ahead is what was read of it.
func (m *manager) serveHTTP2(c *client, ahead []byte) {
	x := &multiplex{client: c, idleFrom: time.Now()}
	n := &m.stats
	n.cxHTTP2.Inc()
	n.cxHTTP2Active.Inc()
	defer n.cxHTTP2Active.Dec()
	x.server = http2.NewServer(counted{c.nc.Conn, c, nil}, ahead, m.http2, x.exchange)
	x.timer = time.AfterFunc(farAway, x.tick)
	x.due = time.Now().Add(farAway)
	x.mu.Lock()
	x.arm(time.Now(), x.rest(time.Now()))
	x.mu.Unlock()
	leave := m.drains.join(x, c.nc.Draining)
	err := x.server.Serve()
	leave()
	x.end()
	if err != nil {
		c.remote = true
	}
	if f := x.fault.Load(); f != nil {
		panic(*f) // here, where the listener sees to it that no other connection ends
	}
}

// caught keeps a fault in the code of one stream from ending the process; its connection
// ends, as one of HTTP/1 does.
func (x *multiplex) caught() {
	if p := recover(); p != nil {
		text := fmt.Sprintf("%v\n%s", p, debug.Stack())
		x.fault.CompareAndSwap(nil, &text)
		x.server.Close()
	}
}

// end stops the timers for good.
func (x *multiplex) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	x.timer.Stop()
	if x.drains != nil {
		x.drains.Stop()
	}
}

// exchange runs one stream.
func (x *multiplex) exchange(wire *http2.ServerStream) {
	defer x.caught()
	s := muxStreams.Get().(*muxStream)
	x.enter(s, wire)
	x.uses.Add(1)
	x.m.stats.rqHTTP2.Inc()
	s.serve()
	x.exit(s) // not after a fault: nothing is known of s then
}

// serve reads the request's head and answers it.
func (s *muxStream) serve() {
	m := s.c.m
	if s.wire.ReadRequest(&s.Request) != nil {
		e := s.wire.Err()
		s.unread(e.Details, e.Flag)
		return
	}
	if n := m.http2.Stats; m.underscored(&s.Request.Headers, n.DroppedHeadersWithUnderscores, n.RequestsRejectedWithUnderscores) {
		s.reject("http2.unexpected_underscore")
		return
	}
	s.begin(s.done)
	s.wire.Attach(s)
	s.run()
}

// reject ends a stream whose head is not to be looked at.
func (s *muxStream) reject(details string) {
	s.wire.Reset(http2.CodeInternal)
	s.unread(details, streaminfo.DownstreamRemoteReset)
}

// unread ends a stream without a request; it is counted and logged.
func (s *muxStream) unread(details string, why streaminfo.Flag) {
	s.Request = http.Request{Headers: s.Request.Headers, Protocol: http.HTTP2, Body: http.NoBody}
	s.Request.Headers.Reset()
	s.begin(nil)
	s.Info.Flags.Set(why)
	s.Info.CodeDetails = details
	s.finish()
}

// enter and exit keep the list of the streams under way.
func (x *multiplex) enter(s *muxStream, wire *http2.ServerStream) {
	s.attach(x.client, s, wire)
	if s.done == nil {
		s.done = make(chan struct{})
	}
	s.conn, s.wire, s.isDone = x, wire, false
	s.moved = 0
	s.why.Store(nil)
	s.idle.Store(-1)
	now := time.Now()
	s.since, s.still = now, now
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.next = x.first; s.next != nil {
		s.next.prev = s
	}
	x.first = s
	x.arm(now, stall)
}

func (x *multiplex) exit(s *muxStream) {
	s.wire.Attach(nil) // no word of the codec reaches the exchange that uses s next
	x.mu.Lock()
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		x.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	if x.first == nil {
		x.idleFrom = time.Now()
	}
	x.mu.Unlock()
	if s.isDone {
		s.done = nil
	}
	s.prev, s.next, s.conn, s.wire = nil, nil, nil, nil
	s.attach(nil, nil, nil)
	muxStreams.Put(s)
}

// arm makes the timer fire after d at the latest. x.mu is held.
func (x *multiplex) arm(now time.Time, d time.Duration) {
	at := now.Add(d)
	if x.ended || !at.Before(x.due) {
		return
	}
	x.due = at
	x.timer.Reset(d)
}

// tick looks at the streams under way, or, when there is none, at the connection.
func (x *multiplex) tick() {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.due = now.Add(farAway)
	next := farAway
	for s := x.first; s != nil; s = s.next {
		next = min(next, s.look(now))
	}
	x.arm(now, min(next, x.rest(now)))
}

// rest looks at the time of the connection itself, and says when to look again.
func (x *multiplex) rest(now time.Time) time.Duration {
	next := farAway
	m := x.m
	check := func(limit, used time.Duration, n interface{ Inc() }) {
		switch {
		case limit == 0 || x.drains != nil:
		case used >= limit:
			n.Inc()
			x.drainLocked()
		default:
			next = min(next, limit-used)
		}
	}
	if x.first == nil {
		check(m.idle, now.Sub(x.idleFrom), m.stats.cxIdleTimeout)
	} else if m.idle > 0 {
		next = min(next, m.idle)
	}
	check(x.maxAge, now.Sub(x.began), m.stats.cxMaxDuration)
	return next
}

// look ends a stream whose time is up, and says when to look again. The connection's
// lock is held, so that the stream is not another one meanwhile.
func (s *muxStream) look(now time.Time) time.Duration {
	if moved := s.wire.Received() + s.wire.Sent(); moved != s.moved {
		s.moved, s.still = moved, now
	}
	if s.why.Load() != nil {
		if now.Sub(s.ended) < stall {
			return stall
		}
		s.wire.Reset(http2.CodeNo) // it did not end by itself
		return farAway
	}
	m := s.conn.m
	request, idle, life := m.request, m.streamIdle, m.maxStream
	if d := s.life.Load(); d >= 0 {
		life = time.Duration(d)
	}
	if s.wire.Finished() {
		request = 0
	}
	if d := s.idle.Load(); d >= 0 {
		idle = time.Duration(d)
	}
	next := farAway
	for _, l := range [...]struct {
		max  time.Duration
		from time.Time
		why  *limit
	}{{life, s.since, limitStream}, {request, s.since, limitRequest}, {idle, s.still, limitIdle}} {
		left := l.max - now.Sub(l.from)
		switch {
		case l.max == 0:
		case left <= 0:
			s.expire(l.why)
			return stall
		case l.why == limitIdle:
			next = min(next, max(stall, min(left, l.max/8)))
		default:
			next = min(next, max(stall, left))
		}
	}
	return next
}

// expire ends the stream. The connection's lock is held.
func (s *muxStream) expire(why *limit) {
	s.ended = time.Now()
	s.why.Store(why)
	s.leave()
}

// Leave is what the codec says when the client has left.
func (s *muxStream) Leave() {
	conn := s.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	s.leave()
}

// leave wakes the stream. The connection's lock is held.
func (s *muxStream) leave() {
	if !s.isDone {
		s.isDone = true
		close(s.done)
	}
	s.stream.Leave()
}

// stop ends the stream by a limit that is not of its time.
func (s *muxStream) stop(why *limit) {
	conn := s.conn
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if s.why.Load() == nil {
		s.expire(why)
		conn.arm(time.Now(), stall) // to see that it does
	}
}

// drain ends the connection in an orderly way: the client is told to open no further
// stream, and after drain_timeout, when it has heard of it, none is taken any more.
func (x *multiplex) drain() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drainLocked()
}

func (x *multiplex) drainLocked() {
	if x.drains != nil || x.ended {
		return
	}
	x.server.GoAway()
	d := x.m.drainTime
	if x.m.drainExtra > 0 {
		d += time.Duration(float64(d) * x.m.drainExtra * rand.Float64())
	}
	x.drains = time.AfterFunc(d, x.server.Shutdown)
}

// The carrier of an exchange is the stream itself.

func (s *muxStream) routeIdle(d time.Duration) {
	if s.idle.Swap(int64(d)) == int64(d) || d <= 0 {
		return
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.conn.arm(time.Now(), max(stall, d/8))
}

func (s *muxStream) routeLife(d time.Duration) {
	if s.life.Swap(int64(d)) == int64(d) || d <= 0 {
		return
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.conn.arm(time.Now(), max(stall, d))
}

func (s *muxStream) expired() *limit { return s.why.Load() }
func (s *muxStream) tunnel()         {}
func (s *muxStream) unconnected()    { s.wire.Torn(http2.CodeConnect) }
func (s *muxStream) stopBody()       { s.wire.StopBody() }

func (s *muxStream) ending(st *stream, _ *http.Headers) {
	if !s.wire.Finished() && !(st.Request.Upgrade != nil && st.Response.Status == 101) {
		s.c.m.stats.rqBeforeComplete.Inc()
	}
	if st.closing || s.conn.mustClose() {
		s.conn.drain()
	}
}

func (s *muxStream) left(st *stream) {
	why, details := streaminfo.DownstreamRemoteReset, "http2.remote_reset"
	if e := s.wire.Err(); e != nil && e.Flag != 0 {
		why, details = e.Flag, e.Details
	}
	st.Info.Flags.Set(why)
	st.Info.CodeDetails = details
}

func (s *muxStream) refused(error) (http.Reply, bool) { return http.Reply{}, false }
