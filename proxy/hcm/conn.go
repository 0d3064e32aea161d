package hcm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A conn is one downstream connection.
type conn struct {
	m      *manager
	nc     *network.Conn
	codec  *http1.Server
	st     *stream
	mem    *memory // of codec and st; nil at rest
	atRest atomic.Bool
	watch  watch
	left   chan struct{} // closed when the client has left or its time is up
	leave  sync.Once
	tls    bool
	mutual bool // the client showed a certificate
	cert   []byte
	began  time.Time
	uses   uint32
	remote bool // the client ended the connection
	torn   bool // it ended in the middle of a request

	// made once, so that they cost nothing per request
	sourceIP func() string
	header   func([]byte) []byte
}

// memory is what a connection needs while it is not idle.
type memory struct {
	codec http1.Server
	st    stream
}

var memories = sync.Pool{New: func() any { return new(memory) }}

func newConn(m *manager, nc *network.Conn) *conn {
	c := &conn{m: m, nc: nc, left: make(chan struct{}), began: time.Now()}
	if t := nc.TLS(); t != nil {
		c.tls, c.mutual = true, len(t.PeerCertificates) > 0
	}
	c.sourceIP = func() string { return c.st.Info.DownstreamRemote.Addr().String() }
	c.header = func(name []byte) []byte { return c.st.Request.Headers.Get(string(name)) }
	c.watch.init(c)
	return c
}

// serve runs exchanges until the connection ends.
func (c *conn) serve(context.Context) {
	m := c.m
	m.stats.cxTotal.Inc()
	m.stats.cxHTTP1.Inc()
	m.stats.cxActive.Inc()
	m.stats.cxHTTP1Active.Inc()
	if c.tls {
		m.stats.cxSSL.Inc()
		m.stats.cxSSLActive.Inc()
	}
	leaveDrain := m.drains.join(c)
	c.take()
	for c.next() {
	}
	c.watch.end()
	c.linger()
	leaveDrain()
	if c.mem != nil {
		c.give()
	}
	c.account()
}

// take gets the memory for serving requests.
func (c *conn) take() {
	mem := memories.Get().(*memory)
	opts := c.m.codec
	opts.AllowHTTPS = c.tls || !c.m.edge.remote // as Envoy has it
	mem.codec.Reset(counted{c.nc.Conn, c}, opts)
	mem.st.c = c
	c.mem, c.codec, c.st = mem, &mem.codec, &mem.st
}

// give gives it back.
func (c *conn) give() {
	mem := c.mem
	mem.codec.Idle()
	mem.st.c = nil
	c.mem, c.codec, c.st = nil, nil, nil
	memories.Put(mem)
}

// account counts the connection's end.
func (c *conn) account() {
	n := &c.m.stats
	n.cxActive.Dec()
	n.cxHTTP1Active.Dec()
	if c.tls {
		n.cxSSLActive.Dec()
	}
	n.cxDestroy.Inc()
	whole, amid := n.cxDestroyLocal, n.cxDestroyLocalActive
	if c.remote {
		whole, amid = n.cxDestroyRemote, n.cxDestroyRemoteActive
	}
	whole.Inc()
	if c.torn {
		n.cxDestroyActive.Inc()
		amid.Inc()
	}
	n.cxLength.Record(uint64(time.Since(c.began).Milliseconds()))
}

// next serves one request; false: the connection ends.
func (c *conn) next() bool {
	c.watch.wait()
	for {
		err := c.codec.ReadRequest(&c.st.Request)
		if err == nil {
			break
		}
		if !c.refused(err) {
			return false
		}
	}
	c.uses++
	c.watch.begin()
	c.st.begin()
	keep := c.st.run()
	return c.watch.settle() && keep
}

// refused deals with an error of reading a request; true: read on.
func (c *conn) refused(err error) bool {
	var bad *http1.Error
	switch {
	case errors.As(err, &bad):
		c.m.stats.cxProtocolError.Inc()
		if bad.Status == 431 {
			c.m.stats.rqTooLarge.Inc()
		}
		c.st.refuse(bad)
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.woken()
	}
	c.remote = true
	return false
}

// woken finds out why a wait for a request was cut short; true: wait on.
func (c *conn) woken() bool {
	started := c.codec != nil && !c.codec.Started().IsZero()
	switch c.watch.reason() {
	case wakeHeaders:
		c.m.stats.rqHeaderTimeout.Inc()
		c.st.headersLate(lateHeaders)
		return false
	case wakeStalled:
		c.m.stats.rqIdleTimeout.Inc()
		c.st.headersLate(stalledHead)
		return false
	case wakeIdle:
		if c.arrived() {
			return c.clearDeadline()
		}
		c.m.stats.cxIdleTimeout.Inc()
		return false
	case wakeAge:
		c.m.stats.cxMaxDuration.Inc()
		return (started || c.arrived()) && c.clearDeadline()
	case wakeDrain:
		return (started || c.arrived()) && c.clearDeadline()
	case wakeMemory:
		if started {
			c.watch.headBegan(c.codec.Started())
		}
		return c.clearDeadline() && (started || c.mem == nil || c.rest())
	}
	return c.clearDeadline()
}

// arrived reports that something waits in the socket: a request may come in the very
// moment in which its connection is about to end, and it has a right to its answer.
func (c *conn) arrived() bool {
	socket, ok := c.nc.Conn.(interface{ Stale() bool })
	return ok && socket.Stale()
}

func (c *conn) clearDeadline() bool { return c.nc.SetReadDeadline(time.Time{}) == nil }

// rest waits for the next request without holding memory.
func (c *conn) rest() bool {
	c.give()
	c.atRest.Store(true)
	defer c.atRest.Store(false)
	for {
		err := c.nc.WaitReadable()
		if err == nil {
			c.take()
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.woken() {
			return false
		}
	}
}

// mustClose reports that no further request is wanted on the connection.
func (c *conn) mustClose() bool {
	m := c.m
	switch {
	case m.maxUses > 0 && c.uses >= m.maxUses:
		m.stats.cxMaxRequests.Inc()
		return true
	case m.maxAge > 0 && time.Since(c.began) >= m.maxAge:
		m.stats.cxMaxDuration.Inc()
		return true
	case c.draining(), c.nc.Stale != nil && c.nc.Stale():
		m.stats.cxDrainClose.Inc()
		return true
	}
	return false
}

func (c *conn) draining() bool {
	select {
	case <-c.nc.Draining:
		return true
	default:
		return false
	}
}

// linger lets a client that is still sending read the answer before the connection
// ends: our side is ended, and what comes is dropped for delayed_close_timeout.
func (c *conn) linger() {
	if c.m.delayed == 0 || !c.lingers() {
		return
	}
	if c.nc.CloseWrite() != nil || c.nc.SetReadDeadline(time.Now().Add(c.m.delayed)) != nil {
		return
	}
	var sink [512]byte
	for {
		if _, err := c.nc.Read(sink[:]); err != nil {
			c.remote = c.remote || errors.Is(err, io.EOF)
			return
		}
	}
}

// lingers reports that an answer was written that the client may not have read.
func (c *conn) lingers() bool {
	return c.mem != nil && c.codec.Answered() && !c.st.broken && !c.st.Left()
}

// drop tells the stream under way that its client has left.
func (c *conn) drop() {
	c.leave.Do(func() { close(c.left) })
	c.st.Leave()
}

// revive makes the connection ready for further requests after one whose time was up.
func (c *conn) revive() { c.left, c.leave = make(chan struct{}), sync.Once{} }

// refuse answers a message that was no request.
func (st *stream) refuse(e *http1.Error) {
	c := st.c
	st.begin()
	st.Request.Method, st.Request.Path, st.Request.Authority = nil, nil, nil
	st.Request.Headers.Reset()
	st.Response.Headers.Reset()
	st.local(refusal(e))
	st.respond(len(c.m.chain))
	st.finish()
}

// headersLate answers a client that did not complete a request's head in time.
func (st *stream) headersLate(r http.Reply) {
	st.begin()
	st.Request.Method, st.Request.Path, st.Request.Authority = nil, nil, nil
	st.Request.Headers.Reset()
	st.local(r)
	st.respond(len(st.c.m.chain))
	st.finish()
}

// A counted connection counts bytes and tells the watch that they move.
type counted struct {
	transport.Conn
	c *conn
}

func (n counted) Read(p []byte) (int, error) {
	k, err := n.Conn.Read(p)
	if k > 0 {
		n.c.m.stats.rxBytes.Add(uint64(k))
		n.c.watch.progress()
	}
	return k, err
}

func (n counted) Write(p []byte) (int, error) {
	k, err := n.Conn.Write(p)
	n.c.m.stats.txBytes.Add(uint64(k))
	n.c.watch.progress()
	return k, err
}

func (n counted) WriteBuffers(bufs *net.Buffers) (int64, error) {
	k, err := n.Conn.WriteBuffers(bufs)
	n.c.m.stats.txBytes.Add(uint64(k))
	n.c.watch.progress()
	return k, err
}
