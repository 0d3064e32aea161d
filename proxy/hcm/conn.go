package hcm

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A conn is a downstream connection that speaks HTTP/1: it carries one stream at a time.
type conn struct {
	client
	codec      *http1.Server
	st         *stream
	mem        *memory // of codec and st; nil at rest
	atRest     atomic.Bool
	watch      watch
	spoke      bool          // it is known that the client speaks HTTP/1
	http2      bool          // it speaks HTTP/2
	leaveDrain func()        // nil: begin has not gone so far
	gone       chan struct{} // closed when the client has left or its time is up
	leave      sync.Once
}

// memory is what a connection needs while it is not idle.
type memory struct {
	codec http1.Server
	st    stream
}

var memories = sync.Pool{New: func() any {
	mem := new(memory)
	return mem
}}

func newConn(m *manager, nc *network.Conn) *conn {
	c := &conn{gone: make(chan struct{})}
	c.init(m, nc)
	c.watch.init(c)
	return c
}

// serve runs exchanges until the connection ends. Its frame lies under each idle
// connection, as do those of its callers: what they hold is memory that each one costs.
func (c *conn) serve() {
	if c.begin() {
		for t := again; t != over; {
			if t = c.next(); t == rests {
				t = c.rest()
			}
		}
	}
	c.finish()
}

// begin makes the connection ready for its first request; false: it is known to speak
// HTTP/2.
func (c *conn) begin() bool {
	c.opened()
	if c.m.speaks(c.nc) {
		c.http2 = true
		return false
	}
	c.leaveDrain = c.m.drains.join(c, c.nc.Draining)
	c.take()
	return true
}

// finish ends what begin has begun. A client that turned out to speak HTTP/2 goes on:
// nothing of it has been served.
func (c *conn) finish() {
	defer c.closed()
	c.watch.end()
	if c.leaveDrain == nil {
		c.m.serveHTTP2(&c.client, nil)
		return
	}
	var preface []byte
	switch {
	case c.http2:
		preface = bytes.Clone(c.codec.Unread())
	case c.lingers():
		c.linger()
	}
	c.leaveDrain()
	if c.mem != nil {
		c.give()
	}
	if c.spoke {
		c.m.stats.cxHTTP1Active.Dec()
	}
	if preface != nil {
		c.m.serveHTTP2(&c.client, preface)
	}
}

// take gets the memory for serving requests.
func (c *conn) take() {
	mem := memories.Get().(*memory)
	opts := c.m.codec
	opts.AllowHTTPS = c.tls || !c.m.edge.remote // as Envoy has it
	opts.HTTP2 = opts.HTTP2 && c.uses.Load() == 0
	mem.codec.Reset(counted{c.nc.Conn, &c.client, &c.watch}, opts)
	mem.st.attach(&c.client, c, &mem.codec)
	c.mem, c.codec, c.st = mem, &mem.codec, &mem.st
}

// give gives it back.
func (c *conn) give() {
	mem := c.mem
	mem.codec.Idle()
	mem.st.attach(nil, nil, nil)
	c.mem, c.codec, c.st = nil, nil, nil
	memories.Put(mem)
}

// A turn is what a connection does next.
type turn uint8

const (
	again turn = iota // read on
	rests             // wait without holding memory
	over              // end
)

// next serves one request.
func (c *conn) next() turn {
	c.watch.wait()
	for {
		err := c.codec.ReadRequest(&c.st.Request)
		if err == nil {
			break
		}
		if t := c.unread(err); t != again {
			return t
		}
	}
	c.uses.Add(1)
	c.speaks()
	if n := &c.m.stats; c.m.underscored(&c.st.Request.Headers, n.http1Dropped, n.http1Underscored) {
		c.st.refuse(errUnderscore)
		return over
	}
	c.watch.begin()
	c.m.stats.rqHTTP1.Inc()
	c.st.begin(c.gone)
	c.st.run()
	if c.watch.settle() && c.keeps() {
		return again
	}
	return over
}

// speaks counts the connection as HTTP/1 when its first message has come.
func (c *conn) speaks() {
	if !c.spoke {
		c.spoke = true
		c.m.stats.cxHTTP1.Inc()
		c.m.stats.cxHTTP1Active.Inc()
	}
}

// keeps reports that the connection lives on after its stream.
func (c *conn) keeps() bool {
	return !c.st.closing && !c.st.broken && !c.codec.Closes() && c.codec.Finished()
}

// unread deals with an error of reading a request.
func (c *conn) unread(err error) turn {
	var bad *http1.Error
	switch {
	case errors.Is(err, http1.ErrHTTP2):
		c.http2 = true
		return over
	case errors.As(err, &bad):
		c.speaks()
		c.m.stats.cxProtocolError.Inc()
		if bad.Status == 431 {
			c.m.stats.rqTooLarge.Inc()
		}
		c.st.refuse(bad)
		return over
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.woken()
	}
	c.remote = true
	if c.codec.Begun() {
		c.speaks()
		c.st.cut()
	}
	return over
}

// woken finds out why a wait for a request was cut short.
func (c *conn) woken() turn {
	started := c.codec != nil && !c.codec.Started().IsZero()
	switch c.watch.reason() {
	case wakeHeaders:
		c.m.stats.rqHeaderTimeout.Inc()
		c.st.headersLate(lateHeaders)
		return over
	case wakeStalled:
		c.m.stats.rqIdleTimeout.Inc()
		c.st.headersLate(stalledHead)
		return over
	case wakeIdle:
		if c.arrived() {
			return c.goesOn(true)
		}
		c.m.stats.cxIdleTimeout.Inc()
		return over
	case wakeAge:
		c.m.stats.cxMaxDuration.Inc()
		return c.goesOn(started || c.arrived())
	case wakeDrain:
		return c.goesOn(started || c.arrived())
	case wakeMemory:
		if started {
			c.watch.headBegan(c.codec.Started())
		}
		if t := c.goesOn(true); t == over || started || c.mem == nil {
			return t
		}
		return rests
	}
	return c.goesOn(true)
}

// goesOn makes the connection readable again, if it is to go on.
func (c *conn) goesOn(on bool) turn {
	if on && c.clearDeadline() {
		return again
	}
	return over
}

// arrived reports that something waits in the socket: a request may come in the very
// moment in which its connection is about to end, and it has a right to its answer.
func (c *conn) arrived() bool {
	socket, ok := c.nc.Conn.(interface{ Stale() bool })
	return ok && socket.Stale()
}

func (c *conn) clearDeadline() bool { return c.nc.SetReadDeadline(time.Time{}) == nil }

// rest waits for the next request without holding memory.
func (c *conn) rest() turn {
	c.give()
	c.atRest.Store(true)
	defer c.atRest.Store(false)
	for {
		err := c.nc.WaitReadable()
		if err == nil {
			c.take()
			return again
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || c.woken() == over {
			return over
		}
	}
}

// lingers reports that an answer was written that the client may not have read. A tunnel
// has no end but that of its upstream.
func (c *conn) lingers() bool {
	return c.mem != nil && c.codec.Answered() && (!c.st.broken || c.codec.Tunnels()) && !c.st.Left()
}

// drop tells the stream under way that its client has left.
func (c *conn) drop() {
	c.leave.Do(func() { close(c.gone) })
	c.st.Leave()
}

// revive makes the connection ready for further requests after one whose time was up.
func (c *conn) revive() { c.gone, c.leave = make(chan struct{}), sync.Once{} }

// drain wakes the connection, if it is idle, to end it.
func (c *conn) drain() { c.watch.kick(wakeDrain) }

func (c *conn) routeIdle(d time.Duration) { c.watch.routeIdle(d) }
func (c *conn) routeLife(d time.Duration) { c.watch.routeLife(d) }
func (c *conn) expired() *limit           { return c.watch.expired() }
func (c *conn) stop(why *limit)           { c.watch.stop(why) }
func (c *conn) unconnected()              {}
func (c *conn) tunnel()                   { c.watch.tunnel() }

// stopBody ends the read by a deadline that has passed; the connection is of no use then.
func (c *conn) stopBody() {
	c.st.closing = true
	_ = c.nc.SetReadDeadline(past) // a closed connection reads no more either
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (c *conn) left(st *stream) {
	c.remote = true
	c.torn.Store(true)
	st.Info.Flags.Set(streaminfo.DownstreamConnectionTermination)
	st.Info.CodeDetails = "downstream_remote_disconnect"
}

// ending ends the connection after the answer where the request, its framing or the
// connection's time says so.
func (c *conn) ending(st *stream, h *http.Headers) {
	switched := st.Response.Status == 101 && st.Request.Upgrade != nil
	if !c.codec.Finished() && !switched {
		st.closing = true
		c.m.stats.rqBeforeComplete.Inc()
	}
	if c.codec.Closes() || c.mustClose() {
		st.closing = true
	}
	connect := string(st.Request.Method) == "CONNECT" && st.Response.Status/100 == 2
	if st.closing && !switched && !connect {
		h.Set("connection", valueClose)
	}
}

func (c *conn) refused(err error) (http.Reply, bool) {
	var bad *http1.Error
	if !errors.As(err, &bad) {
		return http.Reply{}, false
	}
	return refusal(bad), true
}

// errUnderscore is how the codec of HTTP/1 names a head with underscores in its names.
var errUnderscore = &http1.Error{Status: 400, Details: "http1.unexpected_underscore"}

// refuse answers a message that was no request.
func (st *stream) refuse(e *http1.Error) { st.answerNothing(refusal(e)) }

// headersLate answers a client that did not complete a request's head in time.
func (st *stream) headersLate(r http.Reply) { st.answerNothing(r) }

// answerNothing answers what was no request.
func (st *stream) answerNothing(r http.Reply) {
	st.beginNothing()
	st.local(r)
	st.respond(len(st.chain.links))
	st.c.m.stats.rqRxReset.Inc() // it never was a whole request
	st.finish()
}

// beginNothing begins the stream of what was no request.
func (st *stream) beginNothing() {
	st.c.m.stats.rqHTTP1.Inc()
	st.Request.Protocol = http.HTTP11
	st.begin(nil)
	st.Request.Method, st.Request.Path, st.Request.Authority = nil, nil, nil
	st.Request.Headers.Reset()
	st.Response.Headers.Reset()
}

// cut logs a request whose client left before its head was complete. No filter has seen it.
func (st *stream) cut() {
	st.beginNothing()
	st.lost()
	st.record()
	st.Settle()
	st.Finish()
}

// refusal is the answer to a message that breaks the protocol.
func refusal(e *http1.Error) http.Reply {
	return http.Reply{Status: e.Status, Body: []byte(http1.ReasonPhrase(e.Status)), Details: e.Details,
		Flag: streaminfo.DownstreamProtocolError, GRPCStatus: -1, Close: true}
}
