package hcm

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A client is a downstream connection as its streams see it, whatever version of HTTP
// it speaks.
type client struct {
	m      *manager
	nc     *network.Conn
	tls    bool
	mutual bool // the client showed a certificate
	began  time.Time
	maxAge time.Duration   // max_connection_duration with this connection's jitter, 0: none
	uses   atomic.Uint32   // requests so far
	why    *route.Recorder // nil: nobody asks
	remote bool            // the client ended the connection
	torn   atomic.Bool     // it ended in the middle of a request

	open opens

	certOnce sync.Once
	cert     []byte
}

// A carrier is what carries a stream: an HTTP/1 connection for one at a time, an HTTP/2
// connection for many.
type carrier interface {
	// unconnected says that the stream is a tunnel whose upstream was not there, or broke off.
	unconnected()
	// routeIdle notes idle_timeout of the stream's route, negative for none.
	routeIdle(d time.Duration)
	// routeLife notes how long the stream may last by its route, negative for no word on that.
	routeLife(d time.Duration)
	// stop ends the stream for a reason that it then has as its limit, from another goroutine
	// while the stream is held.
	stop(why *limit)
	// expired is the limit that has ended the stream, nil for none.
	expired() *limit
	// tunnel says that what follows the request's head is about to be read as its body.
	tunnel()
	// stopBody ends a blocked read of the request's body.
	stopBody()
	// ending decides, before the head of an answer is written, what becomes of the
	// connection, and says so in the head where that is how it is said.
	ending(st *stream, h *http.Headers)
	// left is how a stream is described whose client has gone.
	left(st *stream)
	// refused is the answer to a request whose body broke the protocol, ok false when it
	// was the connection that failed.
	refused(err error) (r http.Reply, ok bool)
}

func (c *client) init(m *manager, nc *network.Conn) {
	c.m, c.nc, c.began = m, nc, time.Now()
	c.maxAge = m.maxAge
	if m.ageExtra > 0 {
		c.maxAge += time.Duration(float64(m.maxAge) * m.ageExtra * rand.Float64())
	}
	if t := nc.TLS(); t != nil {
		c.tls, c.mutual = true, len(t.PeerCertificates) > 0
	}
	nc.OnReview(c.review)
}

// facts are what routes are chosen by for a request of the client's.
func (c *client) facts(r *http.Request, i *streaminfo.Info, random uint64) route.Facts {
	return route.Facts{Request: r, Random: random, TLS: c.tls, Info: i,
		PeerPresented: c.mutual, PeerValidated: c.mutual, Metadata: i.Metadata}
}

// opened counts the connection; closed counts its end.
func (c *client) opened() {
	n := &c.m.stats
	n.cxTotal.Inc()
	n.cxActive.Inc()
	if c.tls {
		n.cxSSL.Inc()
		n.cxSSLActive.Inc()
	}
}

func (c *client) closed() {
	n := &c.m.stats
	n.cxActive.Dec()
	if c.tls {
		n.cxSSLActive.Dec()
	}
	n.cxDestroy.Inc()
	whole, amid := n.cxDestroyLocal, n.cxDestroyLocalActive
	if c.remote {
		whole, amid = n.cxDestroyRemote, n.cxDestroyRemoteActive
	}
	whole.Inc()
	if c.torn.Load() {
		n.cxDestroyActive.Inc()
		amid.Inc()
	}
	n.cxLength.Record(uint64(time.Since(c.began).Milliseconds()))
}

// mustClose reports that no further request is wanted on the connection.
func (c *client) mustClose() bool {
	m := c.m
	switch {
	case m.maxUses > 0 && c.uses.Load() >= m.maxUses:
		m.stats.cxMaxRequests.Inc()
		return true
	case c.maxAge > 0 && time.Since(c.began) >= c.maxAge:
		m.stats.cxMaxDuration.Inc()
		return true
	case c.draining(), c.nc.Stale != nil && c.nc.Stale():
		m.stats.cxDrainClose.Inc()
		return true
	}
	return false
}

func (c *client) draining() bool {
	select {
	case <-c.nc.Draining:
		return true
	default:
		return false
	}
}

// linger lets a client that is still sending read the answer before the connection
// ends: our side is ended, and what comes is dropped for delayed_close_timeout.
func (c *client) linger() {
	if c.m.delayed == 0 {
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

// A counted connection counts bytes and tells who watches that they move.
type counted struct {
	transport.Conn
	c     *client
	watch *watch // nil: nobody
}

func (n counted) Read(p []byte) (int, error) {
	k, err := n.Conn.Read(p)
	if k > 0 {
		n.c.m.stats.rxBytes.Add(uint64(k))
		n.progress()
	}
	return k, err
}

func (n counted) Write(p []byte) (int, error) {
	k, err := n.Conn.Write(p)
	n.wrote(int64(k))
	return k, err
}

func (n counted) WriteBuffers(bufs *net.Buffers) (int64, error) {
	k, err := n.Conn.WriteBuffers(bufs)
	n.wrote(k)
	return k, err
}

func (n counted) wrote(k int64) {
	n.c.m.stats.txBytes.Add(uint64(k))
	n.progress()
}

func (n counted) progress() {
	if n.watch != nil {
		n.watch.progress()
	}
}
